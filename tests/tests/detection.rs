//! The faults on which detection is scored: their files, and what the list of causes asks of them.

use hallmark::twin::scenario::{Expected, Scenario};
use hallmark_profiles::profile;
use hallmark_results::diagnosis::Cause;
use hallmark_tests::scenarios::all;
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
