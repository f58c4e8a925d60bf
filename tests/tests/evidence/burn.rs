//! A burn is held against the limit that was enforced while it lasted, and its memory against the datasheet.

use super::changed;
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::What;
use hallmark_results::verdict::{Outcome, Verdict};
use hallmark_tests::synthetic::{Moment, Place, Record, finding, record};

/// Device 1 draws and is allowed this, in W.
fn drawing(draw: f64, limit: impl Fn(&Moment<'_>) -> f64 + 'static) -> Verdict {
    let wobble = |m: &Moment<'_>| if m.index.is_multiple_of(2) { 0.5 } else { -0.5 };
    record("burn")
        .series(Metric::PowerDraw, Place::Device(1), move |m| {
            draw + wobble(m)
        })
        .series(Metric::PowerLimit, Place::Device(1), limit)
        .judge()
}

fn power(verdict: &Verdict) -> (Outcome, String) {
    let found = finding(verdict, "power");
    (found.outcome, found.why.clone())
}

#[test]
fn a_burn_passes_at_98_percent_of_the_enforced_limit_and_fails_at_95() {
    let (outcome, why) = power(&drawing(686.0, |_| 700.0));
    assert_eq!(outcome, Outcome::Passed, "{why}");
    let (outcome, why) = power(&drawing(665.0, |_| 700.0));
    assert_eq!(outcome, Outcome::Failed, "{why}");
    assert!(why.contains("679"), "the limit in W is not told: {why}");
    // The limit of this very device counts, not the one that its peers have.
    let (outcome, why) = power(&drawing(490.0, |_| 500.0));
    assert_eq!(outcome, Outcome::Passed, "{why}");
}

#[test]
fn without_the_limit_nothing_is_said_of_the_power() {
    let device = Place::Device(1);
    for run in [
        record("burn").without(Metric::PowerLimit, &device),
        record("burn").series(Metric::PowerLimit, device.clone(), |_| f64::NAN),
    ] {
        // Even a draw that no limit would excuse.
        let run = run.series(Metric::PowerDraw, device.clone(), |m| {
            90.0 + f64::from(m.index as u8)
        });
        let (outcome, why) = power(&run.judge());
        assert_eq!(outcome, Outcome::Inconclusive, "{why}");
        assert!(why.contains("power_limit"), "{why}");
    }
    let (outcome, why) = power(&drawing(1.0, |_| 0.0));
    assert_eq!(outcome, Outcome::Inconclusive, "{why}");
}

#[test]
fn a_limit_that_was_lowered_is_said_and_passes_nothing() {
    let hold = |m: &Moment<'_>| m.phase == "hold";
    let within = move |m: &Moment<'_>| {
        if hold(m) && m.progress > 0.5 {
            500.0
        } else {
            700.0
        }
    };
    let (outcome, why) = power(&drawing(690.0, within));
    assert_eq!(outcome, Outcome::Inconclusive, "{why}");
    assert!(
        why.contains("moved between 500") && why.contains("700"),
        "{why}"
    );
    let before = move |m: &Moment<'_>| if hold(m) { 500.0 } else { 700.0 };
    let (outcome, why) = power(&drawing(495.0, before));
    assert_eq!(outcome, Outcome::Inconclusive, "{why}");
    assert!(
        why.contains("lowered from 700") && why.contains("500"),
        "{why}"
    );
    // What does not even reach the lower limit is shown all the same.
    let (outcome, why) = power(&drawing(400.0, before));
    assert_eq!(outcome, Outcome::Failed, "{why}");
}

#[test]
fn memory_is_held_against_its_datasheet_and_a_cache_is_no_memory() {
    let rate = |share: f64| {
        let run = record("burn").steps(move |_, device, row| {
            if device == 1 {
                row.memory_bytes = (row.memory_bytes as f64 * share) as u64;
            }
            true
        });
        let verdict = run.judge();
        let found = finding(&verdict, "memory-rate");
        (found.outcome, found.why.clone())
    };
    assert_eq!(rate(1.0).0, Outcome::Passed);
    let (outcome, why) = rate(0.9);
    assert_eq!(outcome, Outcome::Failed, "{why}");
    let (outcome, why) = rate(2.0);
    assert_eq!(outcome, Outcome::Inconclusive, "{why}");
    assert!(why.contains("impossible"), "{why}");
}

#[test]
fn memory_that_was_to_be_tested_and_was_not_leaves_the_run_open() {
    let untested = |run: Record| {
        let verdict = run.judge();
        let mut doubts = verdict.findings.iter().map(|f| f.why.clone());
        let doubt = doubts.find(|why| why.contains("free memory was not tested"));
        (verdict.outcome, doubt)
    };
    assert_eq!(untested(record("burn")), (Outcome::Passed, None));
    let (outcome, doubt) = untested(record("burn").plan(|plan| {
        let fact = (
            "memory_untested".to_owned(),
            "another job holds it".to_owned(),
        );
        plan.devices[1].facts = vec![fact];
    }));
    assert_eq!(outcome, Outcome::Inconclusive);
    let doubt = doubt.unwrap_or_default();
    assert!(doubt.contains("gpu1 (another job holds it)"), "{doubt}");
    let asked = changed("burn", "memory_test = true", "memory_test = false");
    let unasked = hallmark_tests::synthetic::of(&asked, 8);
    assert_eq!(untested(unasked).1, None);
    let detail = "test of free memory: at 0x10, bit 3".to_owned();
    let wrong = record("burn").event(Some(1), What::Mismatch { detail });
    assert_eq!(wrong.judge().outcome, Outcome::Failed);
}
