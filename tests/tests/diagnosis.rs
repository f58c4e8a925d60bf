//! Each cause of the closed list, shown by a small invented hall, and a healthy look-alike that must not show it.
#![expect(
    clippy::expect_used,
    reason = "a test, and what it is built of, fails by a panic"
)]

#[path = "diagnosis/healthy.rs"]
mod healthy;
#[path = "diagnosis/heat.rs"]
mod heat;
#[path = "diagnosis/link.rs"]
mod link;
#[path = "diagnosis/loss.rs"]
mod loss;
#[path = "diagnosis/pairs.rs"]
mod pairs;
#[path = "diagnosis/power.rs"]
mod power;
#[path = "diagnosis/sensor.rs"]
mod sensor;
#[path = "diagnosis/verdict.rs"]
mod verdict;
#[path = "diagnosis/work.rs"]
mod work;

use hallmark_results::diagnosis::Diagnosis;
use hallmark_tests::hall::SECOND_NS;

/// Asserts that a diagnosis began so many seconds into the judged phase, give or take.
fn began(found: &Diagnosis, t_s: f64, within_s: f64) {
    let warm_up_s = 120.0;
    let onset_s = found.onset_ns.expect("an onset") as f64 / SECOND_NS as f64 - warm_up_s;
    assert!(
        (onset_s - t_s).abs() <= within_s,
        "{} s: {}",
        onset_s,
        found.sentence()
    );
}
