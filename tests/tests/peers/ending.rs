//! How a run ends says what it came to: nothing missing, absent or repeated ends as a success.

use hallmark::exit::{Exit, Failure};
use hallmark_profiles::profile;
use hallmark_results::frame::{Ending, Event, FaultKind, Frame, What};
use hallmark_results::verdict::{Outcome, Verdict, judge};
use hallmark_tests::synthetic::{Record, finding, fold, record};
use hallmark_tests::{RunFolder, finish, hallmark};
use std::time::Duration;

#[test]
fn the_exit_code_says_what_a_run_came_to_and_an_error_is_never_a_success() {
    let good = record("burn-in");
    let code = |run: &hallmark_tests::synthetic::Record| Exit::from(&run.judge()) as u8;
    assert_eq!(code(&good), 0);
    assert_eq!(code(&good.clone().fault(2, FaultKind::Device)), 1);
    assert_eq!(code(&good.clone().without_telemetry()), 3);
    let errors = [
        Failure::usage("no such device"),
        Failure::inconclusive("altered"),
        Failure::broken("disk"),
    ];
    let codes: Vec<u8> = errors.iter().map(|e| e.exit as u8).collect();
    assert_eq!(codes, [2, 3, 4]);
}

#[test]
fn a_device_that_is_not_there_is_an_error_that_lists_those_that_are() {
    let folder = RunFolder::new();
    let out = folder.run();
    let mut command = hallmark(["run", "--ui", "plain", "--devices", "gpu7", "--out"]);
    command.arg(&out);
    let ended = finish(command, Duration::from_secs(120)).expect_code(2);
    assert!(
        ended.stderr.contains("gpu7") && ended.stderr.contains("cpu"),
        "{ended}"
    );
    assert!(!out.exists(), "a run that never began has left a folder");
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(!said.contains("PASSED") && !said.contains("OK"), "{ended}");
}

#[test]
fn without_the_driver_s_library_nothing_is_healthy() {
    for name in ["burn-in", "soak", "vendor-compare", "hall-acceptance"] {
        let verdict = record(name).hours(2.0).without_telemetry().judge();
        assert_eq!(verdict.outcome, Outcome::Inconclusive, "{name}");
        let loaded = profile::load(name).expect("a built-in profile");
        for metric in &loaded.profile.telemetry.metrics {
            let named = verdict.not_measured.iter();
            assert!(
                named.clone().any(|n| n.what == metric.id()),
                "{name} does not say that {metric} was not measured"
            );
        }
    }
}

#[test]
fn a_self_test_that_passes_at_another_try_has_failed() {
    let again = |passed| What::SelfTest {
        passed,
        detail: String::new(),
    };
    for (first, second) in [(false, true), (true, false)] {
        let run = record("smoke")
            .self_test(4, Some(first))
            .event(Some(4), again(second));
        let found = run.judge();
        assert_eq!(finding(&found, "self-test").outcome, Outcome::Failed);
    }
}

#[test]
fn a_run_that_did_not_end_as_planned_is_not_passed() {
    let why = "the operator stopped it".to_owned();
    for ending in [
        None,
        Some(Ending::SealedAfterCrash),
        Some(Ending::Stopped { why }),
    ] {
        let verdict = record("burn-in").ending(ending.clone()).judge();
        assert_eq!(verdict.outcome, Outcome::Inconclusive, "{ending:?}");
    }
}

/// The verdict on a run that was cut off and went on so many times, just before its main phase.
fn resumed(run: &Record, times: usize) -> Verdict {
    let mut frames = run.frames();
    let Some(Frame::Opened(opened)) = frames.first() else {
        unreachable!("a run has an opening frame");
    };
    let steady = opened.plan.schedule.iter().position(|s| s.name == "steady");
    let begins = |f: &Frame| match f {
        Frame::Event(event) => match event.what {
            What::Segment { index } => Some(index as usize) == steady,
            _ => false,
        },
        _ => false,
    };
    let at = frames.iter().position(begins).expect("a main phase");
    let Frame::Event(segment) = frames[at].clone() else {
        unreachable!("it is an event");
    };
    let one = Frame::Event(Event {
        what: What::Resumed { lost_ns: 1 },
        ..segment
    });
    frames.splice(at..at, std::iter::repeat_n(one, times));
    judge(&fold(&frames))
}

#[test]
fn two_resumes_are_not_passed_however_good_the_last_part_is() {
    let run = record("burn-in");
    assert_eq!(resumed(&run, 1).outcome, Outcome::Passed, "one is allowed");
    assert_eq!(resumed(&run, 2).outcome, Outcome::Inconclusive);
}

#[test]
fn a_run_that_went_on_with_another_driver_is_open_and_says_which() {
    let with = |value: &str| {
        let begun = ("library libcuda".to_owned(), "12.4, sha256 aa".to_owned());
        let run = record("burn-in").plan(move |plan| plan.devices[1].facts = vec![begun.clone()]);
        let (key, value) = ("library libcuda".to_owned(), value.to_owned());
        resumed(&run.event(Some(1), What::AsFound { key, value }), 1)
    };
    assert_eq!(with("12.4, sha256 aa").outcome, Outcome::Passed);
    let verdict = with("12.8, sha256 cc");
    assert_eq!(verdict.outcome, Outcome::Inconclusive);
    let told = "gpu1 was begun with libcuda 12.4, sha256 aa and went on with 12.8, sha256 cc";
    assert!(
        verdict.findings.iter().any(|f| f.why == told),
        "{verdict:?}"
    );
}

#[test]
fn samples_sent_twice_are_used_once_and_doubted() {
    let frames = record("burn-in").frames();
    let twice: Vec<Frame> = frames
        .iter()
        .flat_map(|f| vec![f.clone(); 1 + usize::from(matches!(f, Frame::Samples(_)))])
        .collect();
    let (once, twice) = (fold(&frames), fold(&twice));
    assert!(once.oddities() == 0 && twice.oddities() > 0);
    let judged = |s| hallmark_results::verdict::judge(s);
    for gate in ["telemetry", "telemetry-gap"] {
        let value = |v: &hallmark_results::verdict::Verdict| {
            finding(v, gate).worst().and_then(|p| p.estimate)
        };
        assert_eq!(value(&judged(&once)), value(&judged(&twice)));
    }
    assert_eq!(judged(&twice).outcome, Outcome::Inconclusive);
}
