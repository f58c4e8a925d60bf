//! What must hold of every verdict, tried on records that are harmed at random from a printed seed.
//!
//! Taking evidence away never passes what rested on it; adding a fault never improves anything; the
//! order of the devices and the way in which frames reach the judge change nothing.
#![expect(
    clippy::expect_used,
    reason = "a test, and what it is built of, fails by a panic"
)]

#[path = "properties/order.rs"]
mod order;

use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile;
use hallmark_results::frame::{FaultKind, Frame, What};
use hallmark_results::plan::Plan;
use hallmark_results::stats::bootstrap::SplitMix64;
use hallmark_results::verdict::{Outcome, Verdict, judge};
use hallmark_tests::synthetic::{Record, criteria, finding, fold, record};
use std::time::{Duration, Instant};

/// Each property is tried at most for this long.
const PATIENCE: Duration = Duration::from_secs(20);
const ROUNDS: u64 = 24;
/// Metrics of the run as a whole: no single phase carries them.
const RUN_WIDE: [Metric; 6] = [
    Metric::SelfTest,
    Metric::Inventory,
    Metric::Failures,
    Metric::AuditErrors,
    Metric::AuditShare,
    Metric::ClockOffset,
];

/// Tries a property with a chance of its own each time.
fn rounds(seed: u64, mut property: impl FnMut(&mut SplitMix64)) {
    println!("seed {seed}");
    let begun = Instant::now();
    for round in 0..ROUNDS {
        if begun.elapsed() > PATIENCE {
            println!("{round} rounds in {PATIENCE:?}");
            break;
        }
        property(&mut SplitMix64::new(seed ^ (round << 32)));
    }
}

fn not_passed(verdict: &Verdict, names: impl IntoIterator<Item = String>, harm: &str) {
    for name in names {
        let found = finding(verdict, &name);
        assert_ne!(
            found.outcome,
            Outcome::Passed,
            "{harm}: {name}: {}",
            found.why
        );
    }
    assert_ne!(verdict.outcome, Outcome::Passed, "{harm}");
}

/// Names of the criteria of a profile that `rests` holds for.
fn resting(
    name: &str,
    rests: impl Fn(&hallmark_profiles::criterion::Criterion) -> bool,
) -> Vec<String> {
    let loaded = profile::load(name).expect("a built-in profile");
    let all = criteria(&loaded.profile);
    all.into_iter().filter(rests).map(|c| c.name).collect()
}

fn good(name: &str) -> Record {
    match name {
        "hall-acceptance" | "soak" => record(name).hours(2.0),
        _ => record(name),
    }
}

#[test]
fn without_the_series_of_a_metric_what_rested_on_it_is_not_passed() {
    for name in ["burn-in", "hall-acceptance"] {
        let loaded = profile::load(name).expect("a built-in profile");
        for metric in loaded.profile.telemetry.metrics {
            let run = good(name);
            let places = run.places(metric);
            let bare = places
                .iter()
                .fold(run, |run, place| run.without(metric, place));
            let rested = resting(name, |c| c.metric == metric);
            not_passed(&bare.judge(), rested, &format!("{name} without {metric}"));
        }
    }
}

#[test]
fn without_the_steps_of_any_device_what_rested_on_them_is_not_passed() {
    let of_each_device = [
        Metric::Duty,
        Metric::IdleGap,
        Metric::AuditErrors,
        Metric::StepSkew,
    ];
    for device in 0..8 {
        let run = good("burn-in").steps(move |_, d, _| d != device);
        let rested = resting("burn-in", |c| {
            of_each_device.contains(&c.metric)
                || ["floor", "throughput", "reference"].contains(&c.name.as_str())
        });
        assert_eq!(rested.len(), 7);
        not_passed(&run.judge(), rested, &format!("without device {device}"));
    }
}

#[test]
fn without_the_window_of_any_phase_what_rested_on_it_is_not_passed() {
    for name in ["smoke", "burn-in", "soak", "hall-acceptance"] {
        let loaded = profile::load(name).expect("a built-in profile");
        for (index, phase) in loaded.profile.load.phases.iter().enumerate() {
            let of_phase = resting(name, |c| {
                !RUN_WIDE.contains(&c.metric) && Plan::phase_of(&loaded.profile, c) == index
            });
            if of_phase.is_empty() {
                continue;
            }
            let verdict = good(name).never_began(&phase.name).judge();
            not_passed(
                &verdict,
                of_phase,
                &format!("{name} without {}", phase.name),
            );
        }
    }
}

#[test]
fn without_its_closing_frame_no_run_is_passed() {
    for name in ["smoke", "burn-in", "hall-acceptance"] {
        let run = good(name).keep(|f| !matches!(f, Frame::Closed(_)));
        not_passed(&run.judge(), [], name);
    }
}

/// Something that nobody wants to see in a record.
fn trouble(chance: &mut SplitMix64, frames: &mut Vec<Frame>) -> String {
    let last = frames.len() as u64 - 1;
    let at = 1 + chance.below(last) as usize;
    let device = chance.below(8) as u32;
    let kinds = [
        FaultKind::Missing,
        FaultKind::WorkerDied,
        FaultKind::Agent,
        FaultKind::Silent,
        FaultKind::Device,
        FaultKind::Collective,
        FaultKind::Sensor,
        FaultKind::Journal,
    ];
    let detail = "invented".to_owned();
    let why = detail.clone();
    let what = match chance.below(5) {
        0 => {
            // A row whose times contradict themselves.
            for frame in &mut *frames {
                if let Frame::Steps(steps) = frame
                    && let Some(row) = steps.rows.first().copied()
                {
                    steps.rows.push(hallmark_results::frame::StepRow {
                        start_ns: row.end_ns,
                        end_ns: row.start_ns,
                        ..row
                    });
                    return "a step that ends before it starts".to_owned();
                }
            }
            return "nothing".to_owned();
        }
        1 => What::Mismatch { detail },
        2 => What::NeverSteady { why },
        3 => What::SelfTest {
            passed: false,
            detail,
        },
        _ => What::Fault {
            kind: kinds[chance.below(7) as usize],
            detail,
        },
    };
    let told = format!("{what:?} on device {device}");
    let at_ns = 1_000_000_000;
    frames.insert(
        at.max(
            frames
                .iter()
                .rposition(|f| matches!(f, Frame::Table(_)))
                .unwrap_or(0)
                + 1,
        ),
        Frame::Event(hallmark_results::frame::Event {
            at_ns,
            device: Some(device),
            what,
        }),
    );
    told
}

#[test]
fn no_fault_mismatch_or_oddity_improves_any_outcome() {
    let runs = [
        good("burn-in"),
        good("burn-in").rates(|_, d| if d == 1 { 0.93 } else { 1.0 }),
        good("burn-in").hide(Metric::TempCore, |m| m.index.is_multiple_of(50)),
        good("burn-in").named(2, "some other model"),
    ];
    let before: Vec<(Vec<Frame>, Verdict)> =
        runs.iter().map(|run| (run.frames(), run.judge())).collect();
    rounds(20_260_302, |chance| {
        let (frames, before) = &before[chance.below(before.len() as u64) as usize];
        let mut frames = frames.clone();
        let harm: Vec<String> = (0..=chance.below(3))
            .map(|_| trouble(chance, &mut frames))
            .collect();
        let after = judge(&fold(&frames));
        assert!(
            after.outcome >= before.outcome,
            "{harm:?}: {}",
            after.sentence
        );
        for was in before
            .findings
            .iter()
            .filter(|f| f.criterion.name != "evidence")
        {
            let is = finding(&after, &was.criterion.name);
            assert!(
                is.outcome >= was.outcome,
                "{harm:?} made {} {:?} out of {:?}",
                was.criterion.name,
                is.outcome,
                was.outcome
            );
        }
    });
}
