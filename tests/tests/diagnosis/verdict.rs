//! What a diagnosis does to a verdict: it explains, and it takes a pass back from a sensor that is ill; no more.

use hallmark_results::diagnosis::Cause;
use hallmark_results::frame::Frame;
use hallmark_results::verdict::{Outcome, judge};
use hallmark_tests::hall::{Hall, hall};
use hallmark_tests::synthetic::{finding, fold};

fn loose(factor: f64, from_s: f64) -> Hall {
    hall().state(move |s| {
        s.r_th *= if s.device == 5 && s.t_s > from_s {
            factor
        } else {
            1.0
        }
    })
}

#[test]
fn a_failed_finding_names_the_diagnosis_that_explains_it() {
    let verdict = loose(1.7, -1e3).judge();
    let heat = finding(&verdict, "core-temperature");
    assert_eq!(heat.outcome, Outcome::Failed, "{}", heat.why);
    let why = verdict.diagnosis(heat).expect("a diagnosis");
    assert_eq!(
        (why.cause, why.place.name.as_str()),
        (Cause::ColdPlate, "gpu5")
    );
    assert!(
        why.told().ends_with('%') && why.confidence > 0.9,
        "{}",
        why.told()
    );
    assert_eq!(finding(&verdict, "throughput").diagnosis, None);
}

#[test]
fn a_diagnosis_fails_no_gate_and_lets_none_pass() {
    let well = hall().judge();
    assert_eq!(well.outcome, Outcome::Passed, "{}", well.sentence);
    let loose = loose(1.3, 400.0).judge();
    assert_eq!(loose.outcome, Outcome::Passed, "{}", loose.sentence);
    assert_eq!(loose.diagnoses.len(), 1);
}

#[test]
fn what_rests_on_a_stuck_sensor_is_not_shown() {
    let stuck = hall().told(|s, t| {
        t.core = if s.device == 6 && s.t_s > 300.0 {
            55.0
        } else {
            t.core
        }
    });
    let verdict = stuck.judge();
    let heat = finding(&verdict, "core-temperature");
    assert_eq!(heat.outcome, Outcome::Inconclusive, "{}", heat.why);
    assert_eq!(heat.places[0].place, "gpu6");
    assert_eq!(
        verdict.diagnosis(heat).map(|d| d.cause),
        Some(Cause::SensorStuck)
    );
    assert_eq!(verdict.outcome, Outcome::Inconclusive);
    // What it shows to be wrong stays shown.
    let hot = hall().told(|s, t| t.core = if s.device == 6 { 80.0 } else { t.core });
    let verdict = hot.judge();
    assert_eq!(
        finding(&verdict, "core-temperature").outcome,
        Outcome::Failed
    );
}

#[test]
fn a_run_that_goes_on_has_no_diagnosis_yet() {
    let mut frames = loose(1.7, -1e3).frames();
    frames.retain(|f| !matches!(f, Frame::Closed(_)));
    let verdict = judge(&fold(&frames));
    assert!(verdict.diagnoses.is_empty());
    assert_eq!(finding(&verdict, "core-temperature").diagnosis, None);
}

#[test]
fn where_every_gate_holds_one_clear_sign_is_told_as_possible() {
    let slower = hall().operations(|t_s, _| if t_s > 600.0 { 2.0 } else { 1.0 });
    let verdict = slower.judge();
    assert_eq!(verdict.outcome, Outcome::Passed, "{}", verdict.sentence);
    let told = &verdict.diagnoses[0];
    assert_eq!((told.cause, told.sureness()), (Cause::LinkSlow, "possible"));
    // One that noise may have made is a guess, and explains nothing where nothing failed.
    let mut guess = told.clone();
    guess.confidence = 0.45;
    assert!(told.is_worth_telling() && !guess.is_worth_telling());
    assert_eq!(guess.sureness(), "a guess");
}

#[test]
fn where_every_gate_holds_what_two_signs_speak_for_is_told() {
    // Too little for any gate: one device at a clock 3 % lower, which then draws less.
    let slower = hall().state(|s| {
        s.clock *= match s.device == 5 && s.t_s > 600.0 {
            true => 0.97,
            false => 1.0,
        }
    });
    let verdict = slower.judge();
    assert_eq!(verdict.outcome, Outcome::Passed, "{}", verdict.sentence);
    let told = &verdict.diagnoses[0];
    assert_eq!(
        (told.cause, told.place.name.as_str()),
        (Cause::PowerCap, "gpu5")
    );
    assert!(told.confidence < 0.9, "{}", told.told());
    assert!(told.evidence.len() > 1);
}

#[test]
fn a_branch_that_carries_less_is_not_accepted_for_the_flow_of_all_together() {
    let of_both = hall().by_flow_and_power();
    let well = of_both.judge();
    for gate in ["coolant-flow", "flow-by-power"] {
        let found = finding(&well, gate);
        assert_eq!(found.outcome, Outcome::Passed, "{}", found.why);
    }
    let low = of_both
        .state(|s| {
            if s.t_s > 300.0 && (s.rack, s.tray) == (1, 1) {
                s.flow = 0.7;
            }
        })
        .meters(|m| m.flow *= if m.t_s > 300.0 { 0.93 } else { 1.0 });
    let verdict = low.judge();
    let flow = finding(&verdict, "coolant-flow");
    assert_eq!(flow.outcome, Outcome::Inconclusive, "{}", flow.why);
    let why = verdict.diagnosis(flow).expect("a diagnosis");
    assert_eq!(
        (why.cause, why.place.devices.as_slice()),
        (Cause::BranchFlow, &[12, 13, 14, 15][..])
    );
    let by_power = finding(&verdict, "flow-by-power");
    assert_eq!(by_power.outcome, Outcome::Inconclusive, "{}", by_power.why);
    assert_ne!(verdict.outcome, Outcome::Passed);
}
