//! The whole window of every device is judged, against a fixed bar and against its peers.

use super::changed;
use hallmark::shell::simulated::{Physics, World};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile;
use hallmark_results::standing::Standing;
use hallmark_results::verdict::{Outcome, judge};
use hallmark_tests::synthetic::{Place, finding, of, record};

#[test]
fn a_node_that_is_slow_in_all_its_devices_fails_though_none_is_slower_than_its_peers() {
    for name in ["burn-in", "vendor-compare", "soak", "hall-acceptance"] {
        let verdict = record(name).hours(2.0).rates(|_, _| 0.85).judge();
        assert_eq!(
            finding(&verdict, "throughput").outcome,
            Outcome::Passed,
            "{name}"
        );
        assert_eq!(
            finding(&verdict, "reference").outcome,
            Outcome::Failed,
            "{name}"
        );
    }
}

#[test]
fn a_slow_device_is_named_though_it_is_the_only_one() {
    let verdict = record("burn-in")
        .rates(|_, d| if d == 5 { 0.9 } else { 1.0 })
        .judge();
    for gate in ["throughput", "floor"] {
        let found = finding(&verdict, gate);
        assert_eq!(found.outcome, Outcome::Failed, "{}", found.why);
        let worst = found.worst().expect("a place");
        assert_eq!((worst.place.as_str(), worst.device), ("gpu5", Some(5)));
    }
}

#[test]
fn one_device_alone_passes_no_gate_that_compares_it_with_peers() {
    let loaded = profile::load("burn-in").expect("a built-in profile");
    let verdict = of(&loaded, 1).judge();
    for gate in ["throughput", "floor", "stragglers"] {
        let found = finding(&verdict, gate);
        assert_eq!(
            found.outcome,
            Outcome::Inconclusive,
            "{gate}: {}",
            found.why
        );
    }
    assert_eq!(verdict.outcome, Outcome::Inconclusive);
}

#[test]
fn throttling_alone_rejects_a_run_whose_rates_are_fine() {
    let verdict = record("burn-in")
        .series(Metric::ThrottleFrac, Place::Device(3), |m| {
            f64::from(u8::from(m.phase == "train" && m.index.is_multiple_of(200)))
        })
        .judge();
    assert_eq!(finding(&verdict, "throughput").outcome, Outcome::Passed);
    assert_eq!(finding(&verdict, "reference").outcome, Outcome::Passed);
    let throttling = finding(&verdict, "throttling");
    assert_eq!(throttling.outcome, Outcome::Failed, "{}", throttling.why);
    assert_eq!(verdict.outcome, Outcome::Failed);
}

#[test]
fn no_best_interval_and_no_good_beginning_passes_a_slow_run() {
    // What the mean up to any instant, or the best tenth, would have taken for healthy.
    for (what, good) in [("the beginning", 0.0..0.3), ("one tenth", 0.6..0.7)] {
        let run = record("hall-acceptance").hours(2.0).rates(move |m, _| {
            if good.contains(&m.progress) {
                1.02
            } else {
                0.75
            }
        });
        let verdict = run.judge();
        let found = finding(&verdict, "reference");
        // A rate that changed its mind says little of what it would do next; it passes nothing.
        assert_ne!(found.outcome, Outcome::Passed, "{what}: {}", found.why);
        assert_ne!(verdict.outcome, Outcome::Passed, "{what}");
    }
}

#[test]
fn a_limit_of_zero_is_a_limit() {
    let none = changed("burn-in", "at_most = \"0.01 %\"", "at_most = \"0 %\"");
    let verdict = of(&none, 8).judge();
    assert_eq!(finding(&verdict, "throttling").outcome, Outcome::Passed);
    let once = of(&none, 8).series(Metric::ThrottleFrac, Place::Device(0), |m| {
        1e-6 * f64::from(u8::from(m.index == 600))
    });
    let verdict = once.judge();
    assert_eq!(finding(&verdict, "throttling").outcome, Outcome::Failed);
}

#[test]
fn a_moment_of_high_power_does_not_pass_a_rack_that_lacks_it() {
    let rack = Place::hall("rack-1");
    let spikes = record("hall-acceptance")
        .hours(2.0)
        .series(Metric::RackDensity, rack, |m| {
            if m.index.is_multiple_of(100) {
                60e3
            } else {
                29e3
            }
        });
    let verdict = spikes.judge();
    let found = finding(&verdict, "rack-power");
    assert_eq!(found.outcome, Outcome::Failed, "{}", found.why);
    assert!(found.why.contains("rack-1"), "{}", found.why);
}

#[test]
fn a_device_that_did_nothing_is_a_miss_not_an_absence() {
    let half = changed("burn-in", "allowed_share = 0.01", "allowed_share = 0.5");
    let verdict = of(&half, 8)
        .steps(|m, d, _| m.phase != "steady" || d != 2)
        .judge();
    // A device that did nothing has a rate: none, and it counts as a miss, not as absent.
    let found = finding(&verdict, "throughput");
    assert_eq!(found.places.len(), 8);
    assert_eq!(finding(&verdict, "floor").outcome, Outcome::Failed);
}

/// A device whose steps always take as long.
struct Paced(u64);

impl Physics for Paced {
    fn compute_ns(&mut self, _seq: u64, _now_ns: u64) -> Option<u64> {
        Some(self.0)
    }

    fn reduce_ns(&self) -> u64 {
        5_000_000
    }
}

#[test]
fn a_slow_device_is_found_though_its_group_waits_for_it_in_every_step() {
    // In a training step all ranks have the rate of the slowest, so that no rank is slower than its peers.
    let run = record("burn-in").plan(|plan| {
        for segment in &mut plan.schedule {
            segment.duration_ns = (segment.duration_ns / 6).max(1);
        }
    });
    let Some(opened) = run.frames().into_iter().next() else {
        panic!("a run has an opening frame");
    };
    let standing = Standing::open(&opened).unwrap_or_else(|e| panic!("{e}"));
    let plan = standing.opened().plan.clone();
    let step_ns = |device| {
        if device == 5 {
            110_000_000
        } else {
            100_000_000
        }
    };
    let physics = (0..8).map(|device| Box::new(Paced(step_ns(device))) as Box<dyn Physics>);
    let world = World::new(&plan, physics.collect(), Vec::new());
    let (standing, _) = world.perform(standing, Vec::new());
    let main = standing.profile().load.main_phase();
    let window = standing.phase_window(main).expect("the main phase");
    let (slow, fast) = (window.devices[5].steps, window.devices[4].steps);
    assert!(
        slow.abs_diff(fast) <= 1,
        "{slow} and {fast} steps: not together"
    );
    let verdict = judge(&standing);
    for gate in ["throughput", "floor"] {
        let found = finding(&verdict, gate);
        assert_ne!(found.outcome, Outcome::Passed, "{}", found.why);
        let worst = found.worst().expect("a place");
        assert_eq!(worst.device, Some(5), "{}", found.why);
    }
}
