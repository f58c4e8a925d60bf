//! The faults on which detection is scored: their files, what the list of causes asks of them, and how many of them a
//! small hall must find, so that a judge that has grown blind fails here and not only on the scoreboard.

use hallmark::rehearsal::crew::{self, Part};
use hallmark::rehearsal::{Case, Played, Would};
use hallmark::twin::scenario::{Expected, Scenario};
use hallmark_profiles::profile;
use hallmark_results::diagnosis::Cause;
use hallmark_tests::scenarios::{all, named};
use std::collections::BTreeSet;
use std::time::Duration;

#[test]
fn every_scenario_is_sound_at_half_once_and_twice_its_severity() {
    let all = all();
    let names: BTreeSet<&str> = all.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names.len(), all.len(), "no two scenarios share a name");
    for scenario in &all {
        let profile = profile::load(&scenario.conditions.profile).unwrap_or_else(|e| panic!("{e}"));
        let phases = profile.profile.load.phases.iter();
        let planned: Duration = phases.map(|p| p.duration.duration()).sum();
        for factor in [0.5, 1.0, 2.0] {
            for fault in &scenario.scaled(factor).faults {
                let onset = fault.span.onset;
                assert!(onset < planned, "{}: begins after the run", scenario.name);
            }
        }
        for placed in scenario.placed(1) {
            let devices = placed.wanted_place(&scenario.hall).gpus(&scenario.hall);
            assert!(!devices.is_empty(), "{}", scenario.name);
        }
    }
}

#[test]
fn every_cause_on_the_list_has_a_fault_that_is_played() {
    let all = all();
    let wanted = |s: &Scenario| -> Vec<Cause> {
        let faults = s.faults.iter().filter_map(|f| f.wanted.as_ref());
        faults.flat_map(|w| w.causes.clone()).collect()
    };
    let played: BTreeSet<Cause> = all.iter().flat_map(wanted).collect();
    // `unknown` is no fault, and a setting is found before anything runs.
    let left: Vec<_> = Cause::ALL
        .iter()
        .filter(|c| !played.contains(c) && !matches!(c, Cause::Unknown | Cause::Settings))
        .collect();
    assert!(left.is_empty(), "no scenario plays {left:?}");
}

#[test]
fn what_must_alarm_nobody_is_played_too_and_two_faults_at_once() {
    let all = all();
    let calm = |s: &&Scenario| s.expected == Expected::NoAlarm;
    let calm: BTreeSet<_> = all.iter().filter(calm).map(|s| s.name.as_str()).collect();
    let known = [
        "afternoon",
        "healthy",
        "healthy-30-h",
        "lost-frame",
        "rated-cap",
        "single-gpu",
    ];
    assert_eq!(calm, BTreeSet::from(known));
    let two = |s: &&Scenario| s.faults.iter().filter(|f| f.wanted.is_some()).count() == 2;
    assert!(all.iter().filter(two).count() >= 5);
}

/// Twenty minutes on one rack of 40 devices, looked at every two seconds: what a debug build plays in a few seconds.
fn small(name: &str) -> Case {
    let mut scenario = named(name);
    (scenario.hall.racks, scenario.hall.cdus) = (1, 1);
    scenario.conditions.duration = Some(Duration::from_secs(20 * 60));
    scenario.conditions.tick = Duration::from_secs(2);
    Case::new(&scenario, 1.0)
}

fn play(name: &str, seed: u64) -> Played {
    let part = Part {
        case: 0,
        seed,
        wants_picture: false,
        sealed: false,
    };
    let played = crew::one(&small(name), part, &crew::twin);
    assert_eq!(played.broke, None, "{name}, seed {seed}");
    println!(
        "{name}, seed {seed}: {:?} in {:.1} s, failed {:?}, undecided {:?}, {:?}, strays {:?}",
        played.would, played.took_s, played.failed, played.undecided, played.sought, played.strays
    );
    played
}

/// Each of these is found in its place by its cause, and the gate beside it does not hold.
fn found(rows: &[(&str, &str)]) {
    for (name, gate) in rows {
        let played = play(name, 1);
        for sought in &played.sought {
            let right = sought.found && sought.right_place && sought.right_cause;
            assert!(right, "{name}: {sought:?}");
        }
        let mut open = played.failed.iter().chain(&played.undecided);
        assert!(open.any(|g| g == gate), "{name}: {gate} holds");
    }
}

#[test]
fn heat_and_coolant_are_found() {
    found(&[
        ("cold-plate", "thermal-resistance"),
        ("branch-flow", "coolant-flow"),
        ("hunting-120-s", "supply-high"),
    ]);
}

#[test]
fn power_links_and_lost_devices_are_found() {
    found(&[
        ("feed-loss", "failures"),
        ("link-flap", "links"),
        ("link-half", "variation"),
    ]);
}

#[test]
fn work_wrong_results_and_sensors_that_lie_are_found() {
    found(&[
        ("flip", "integrity"),
        ("meter-scaled", "power-reconciliation"),
        ("clock-ahead", "clock"),
        ("sensor-stuck", "thermal-resistance"),
    ]);
}

#[test]
fn agents_that_end_or_are_cut_off_are_told_from_feeds_that_are_lost() {
    found(&[
        ("agent-killed", "failures"),
        ("agent-restarted", "failures"),
        ("agent-partitioned", "failures"),
    ]);
}

#[test]
fn a_healthy_hall_is_not_rejected_and_nothing_is_named() {
    for seed in 1..=3 {
        let played = play("healthy", seed);
        assert_ne!(played.would, Some(Would::Reject), "seed {seed}");
        assert_eq!(played.strays, [""; 0], "seed {seed}");
    }
}
