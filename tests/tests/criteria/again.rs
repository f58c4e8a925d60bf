//! A phase that a resumed run began anew, and one that was left early.

use super::with;
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{Event, Frame, What};
use hallmark_results::verdict::{Outcome, Verdict, judge};
use hallmark_tests::synthetic::{Moment, Record, finding, fold, of, record};

/// The verdict on a run that was cut off at a share of a phase and began this phase anew there at once.
fn resumed(run: &Record, phase: &str, at: f64) -> Verdict {
    after(run, phase, at, 0)
}

/// The same, where nobody drove it for some time before it went on.
fn after(run: &Record, phase: &str, at: f64, outage_ns: u64) -> Verdict {
    let mut frames = run.frames();
    let Some(Frame::Opened(opened)) = frames.first() else {
        unreachable!("a run has an opening frame");
    };
    let named = |s: &hallmark_results::plan::Segment| s.name == phase;
    let index = opened.plan.schedule.iter().position(named);
    let index = index.expect("a phase") as u32;
    let length = opened.plan.schedule[index as usize].duration_ns;
    let begins = |f: &Frame| matches!(f, Frame::Event(Event { what: What::Segment { index: i }, .. }) if *i == index);
    let from = frames.iter().position(begins).expect("a phase");
    let Frame::Event(first) = frames[from].clone() else {
        unreachable!("it is an event");
    };
    let cut_ns = first.at_ns + (at * length as f64) as u64;
    let later = |ns: &mut u64| {
        if *ns >= cut_ns {
            *ns += outage_ns;
        }
    };
    for frame in &mut frames {
        match frame {
            Frame::Event(event) => later(&mut event.at_ns),
            Frame::Closed(closed) => later(&mut closed.at_ns),
            Frame::Samples(samples) => samples.at_ns.iter_mut().for_each(later),
            Frame::Steps(steps) => {
                // A step that the cut fell into was never told.
                steps
                    .rows
                    .retain(|r| r.start_ns >= cut_ns || r.end_ns < cut_ns);
                steps
                    .ops
                    .retain(|o| o.start_ns >= cut_ns || o.end_ns < cut_ns);
                for row in &mut steps.rows {
                    [&mut row.due_ns, &mut row.start_ns, &mut row.end_ns]
                        .into_iter()
                        .for_each(later);
                }
                for op in &mut steps.ops {
                    [&mut op.start_ns, &mut op.end_ns]
                        .into_iter()
                        .for_each(later);
                }
            }
            Frame::Opened(_) | Frame::Table(_) => {}
        }
    }
    let again = |what| {
        Frame::Event(Event {
            at_ns: cut_ns + outage_ns,
            what,
            ..first.clone()
        })
    };
    let resumed = again(What::Resumed { lost_ns: outage_ns });
    frames.splice(
        from..=from,
        [
            Frame::Event(first.clone()),
            resumed,
            again(What::Segment { index }),
        ],
    );
    judge(&fold(&frames))
}

#[test]
fn the_time_in_which_nobody_drove_a_run_is_no_phases() {
    let verdict = after(&record("burn-in"), "steady", 0.5, 1_800_000_000_000);
    for gate in ["floor", "throughput"] {
        let found = finding(&verdict, gate);
        assert_ne!(found.outcome, Outcome::Failed, "{gate}: {}", found.why);
    }
    let wrong = after(&slow(true), "steady", 0.5, 1_800_000_000_000);
    assert_eq!(finding(&wrong, "floor").outcome, Outcome::Failed);
}

#[test]
fn counters_of_the_whole_run_rest_on_the_time_in_which_somebody_drove_it() {
    let half_an_hour = 1_800_000_000_000;
    let well = record("burn-in");
    for gate in ["ecc", "xid"] {
        let found = finding(&after(&well, "steady", 0.5, half_an_hour), gate).clone();
        assert_eq!(found.outcome, Outcome::Passed, "{gate}: {}", found.why);
    }
    // What a counter shows that grew meanwhile, and one that nobody read while somebody drove.
    let ecc = |value: fn(&Moment) -> f64| {
        let place = well.places(Metric::Ecc).remove(0);
        let run = record("burn-in").series(Metric::Ecc, place, value);
        finding(&after(&run, "steady", 0.5, half_an_hour), "ecc").outcome
    };
    let grown = |m: &Moment| {
        let after = m.phase == "steady" && m.progress >= 0.5;
        if after { 3.0 } else { 0.0 }
    };
    assert_eq!(ecc(grown), Outcome::Failed);
    let silent = |m: &Moment| {
        let before = m.phase == "steady" && (0.3..0.5).contains(&m.progress);
        if before { f64::NAN } else { 0.0 }
    };
    assert_eq!(ecc(silent), Outcome::Inconclusive);
    // Nor is a silence the outage's that goes on after it, or that never ends.
    let late = |m: &Moment| {
        let after = m.phase == "steady" && (0.5..0.7).contains(&m.progress);
        if after { f64::NAN } else { 0.0 }
    };
    assert_eq!(ecc(late), Outcome::Inconclusive);
    let gone = |m: &Moment| {
        let after = m.phase == "steady" && m.progress >= 0.5;
        if after { f64::NAN } else { 0.0 }
    };
    assert_eq!(ecc(gone), Outcome::Inconclusive);
}

#[test]
fn a_device_that_misses_before_and_after_is_one_that_misses() {
    let one = |twice: bool| {
        let run = of(
            &hallmark_profiles::profile::load("burn-in").expect("it"),
            100,
        );
        let run = run.rates(move |m, d| {
            let slow = m.phase == "steady" && (d == 7 || twice && d == 8);
            if slow { 0.7 } else { 1.0 }
        });
        let verdict = after(&run, "steady", 0.5, 60_000_000_000);
        finding(&verdict, "throughput").outcome
    };
    assert_eq!(one(false), Outcome::Passed, "one of a hundred may miss");
    assert_ne!(one(true), Outcome::Passed);
}

/// Device 1 is slow in one half of the steady phase.
fn slow(first: bool) -> Record {
    record("burn-in").rates(move |m, d| {
        if d == 1 && m.phase == "steady" && (m.progress < 0.5) == first {
            0.7
        } else {
            1.0
        }
    })
}

#[test]
fn what_was_wrong_before_a_resume_stays_wrong() {
    let verdict = resumed(&slow(true), "steady", 0.5);
    let found = finding(&verdict, "floor");
    assert_eq!(found.outcome, Outcome::Failed, "{}", found.why);
    let well = resumed(&record("burn-in"), "steady", 0.5);
    assert_eq!(finding(&well, "floor").outcome, Outcome::Passed);
}

#[test]
fn a_phase_is_judged_by_its_last_pass() {
    let verdict = resumed(&slow(false), "steady", 0.5);
    let found = finding(&verdict, "floor");
    assert_eq!(found.outcome, Outcome::Failed, "{}", found.why);
}

#[test]
fn what_a_resumed_run_did_before_is_planned_time_too() {
    let verdict = resumed(&record("burn-in"), "train", 0.3);
    let found = finding(&verdict, "duration");
    assert_ne!(found.outcome, Outcome::Passed, "{}", found.why);
}

#[test]
fn a_window_that_was_left_early_shows_no_share_of_its_whole() {
    let gap = "name = \"gap\"\nmetric = \"idle_gap\"\nscope = \"gpu\"\nstatistic = \"total\"\nat_most = \"5 %\"\n";
    let run = of(&with("burn-in", gap), 8);
    assert_eq!(finding(&run.judge(), "gap").outcome, Outcome::Passed);
    // It stops in the middle of the phase, and nothing comes after.
    let early = run.steps(|m, _, _| m.phase != "train" || m.progress < 0.5);
    let mut frames = early.without_telemetry().ending(None).frames();
    let of_phase = |f: &Frame| {
        matches!(
            f,
            Frame::Event(Event {
                what: What::Segment { .. },
                ..
            })
        )
    };
    let begins: Vec<usize> = (0..frames.len())
        .filter(|i| of_phase(&frames[*i]))
        .collect();
    let Some(Frame::Opened(opened)) = frames.first() else {
        unreachable!("a run has an opening frame");
    };
    let train = opened.plan.schedule.iter().position(|s| s.name == "train");
    frames.truncate(begins[train.expect("a phase") + 1]);
    let verdict = judge(&fold(&frames));
    let found = finding(&verdict, "gap");
    assert_eq!(found.outcome, Outcome::Inconclusive, "{}", found.why);
}
