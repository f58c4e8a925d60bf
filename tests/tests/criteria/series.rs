//! How a sensor's series is read: its gaps, its ages, its counters and states, and the time its readings stand for.

use super::{judged, with};
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{Event, Frame, SeriesKind, What};
use hallmark_results::verdict::{Outcome, Verdict};
use hallmark_tests::synthetic::{Moment, Place, Record, finding, of, record};

const DEVICE: Place = Place::Device(3);

fn outcome(verdict: &Verdict, gate: &str) -> (Outcome, String) {
    let found = finding(verdict, gate);
    (found.outcome, found.why.clone())
}

fn in_train(m: &Moment<'_>, from: f64, to: f64) -> bool {
    m.phase == "train" && (from..to).contains(&m.progress)
}

/// Device 3 shows other values than its peers.
fn told(metric: Metric, value: impl Fn(&Moment<'_>) -> f64 + 'static) -> Record {
    record("burn-in").series(metric, DEVICE, value)
}

#[test]
fn a_long_silence_passes_nothing_though_nearly_all_samples_came() {
    // 90 s of 50 min, in which a sensor is read every 4 s.
    let silent = told(Metric::ThrottleFrac, |m| {
        if in_train(m, 0.4, 0.43) {
            f64::NAN
        } else {
            0.0
        }
    });
    let (found, why) = outcome(&silent.judge(), "throttling");
    assert_eq!(found, Outcome::Inconclusive, "{why}");
}

#[test]
fn a_series_of_which_every_second_sample_is_lost_passes_nothing() {
    let run = told(Metric::ThrottleFrac, |m| match m.index.is_multiple_of(2) {
        true => f64::NAN,
        false => 0.0,
    });
    let (found, why) = outcome(&run.judge(), "throttling");
    assert_eq!(found, Outcome::Inconclusive, "{why}");
}

#[test]
fn silence_at_either_end_of_a_window_or_all_through_it_is_a_gap() {
    let gap = |run: Record| outcome(&run.judge(), "telemetry-gap").0;
    assert_eq!(gap(record("burn-in")), Outcome::Passed);
    let hidden = |hides: fn(&Moment<'_>) -> bool| record("burn-in").hide(Metric::TempCore, hides);
    assert_eq!(
        gap(hidden(|m| in_train(m, 0.99, 2.0))),
        Outcome::Inconclusive
    );
    // Nothing came before either.
    let late = hidden(|m| m.phase != "train" || m.progress < 0.01);
    assert_eq!(gap(late), Outcome::Inconclusive);
    // Not even an empty reading came while the phase lasted.
    let run = record("burn-in");
    let starts: Vec<(u64, u32)> = run.frames().iter().filter_map(starts).collect();
    let Some(Frame::Opened(opened)) = run.frames().into_iter().next() else {
        unreachable!("a run has an opening frame");
    };
    let train = opened.plan.schedule.iter().position(|s| s.name == "train");
    let at = starts.iter().position(|s| Some(s.1 as usize) == train);
    let at = at.expect("a phase");
    let (from_ns, to_ns) = (starts[at].0, starts[at + 1].0);
    let lost = run.keep(move |f| match f {
        Frame::Samples(s) if s.table == 3 => !(from_ns..to_ns).contains(&s.at_ns[0]),
        _ => true,
    });
    assert_eq!(gap(lost), Outcome::Inconclusive);
}

/// When a segment begins, and which.
fn starts(frame: &Frame) -> Option<(u64, u32)> {
    match frame {
        Frame::Event(Event {
            at_ns,
            what: What::Segment { index },
            ..
        }) => Some((*at_ns, *index)),
        _ => None,
    }
}

#[test]
fn a_reading_that_was_old_once_leaves_the_age_open() {
    let gate = "name = \"age\"\nmetric = \"telemetry_age\"\nscope = \"site\"\nstatistic = \"max\"\nat_most = \"5 s\"\n";
    let run = || of(&with("burn-in", gate), 8);
    let aged = |most: f64| {
        let age = move |m: &Moment<'_>| match in_train(m, 0.5, 0.502) {
            true => most,
            false => 1.0 + 0.01 * (m.index % 7) as f64,
        };
        let verdict = run().series(Metric::TelemetryAge, DEVICE, age).judge();
        outcome(&verdict, "age").0
    };
    assert_eq!(aged(2.0), Outcome::Passed);
    assert_eq!(aged(9.0), Outcome::Inconclusive);
    assert_eq!(outcome(&run().judge(), "age").0, Outcome::Inconclusive);
}

#[test]
fn time_under_several_reasons_is_not_that_under_the_longest() {
    // Each reason holds for 0.006 % of the time; 0.01 % are allowed, and they may not have held together.
    let run = told(Metric::ThrottleFrac, |_| 0.000_06);
    let column = std::cell::Cell::new(None);
    let verdict = judged(&run, |frame| match frame {
        Frame::Table(table) if table.device == Some(3) => {
            let of = |s: &hallmark_results::frame::Series| s.metric == Metric::ThrottleFrac;
            let at = table.series.iter().position(of).expect("a series");
            let mut other = table.series[at].clone();
            "power brake".clone_into(&mut other.label);
            table.series.push(other);
            column.set(Some((table.id, at)));
        }
        Frame::Samples(samples) => {
            if let Some((_, at)) = column.get().filter(|(id, _)| *id == samples.table) {
                samples.columns.push(samples.columns[at].clone());
            }
        }
        _ => {}
    });
    let (found, why) = outcome(&verdict, "throttling");
    assert_eq!(found, Outcome::Inconclusive, "{why}");
    assert_eq!(outcome(&run.judge(), "throttling").0, Outcome::Passed);
}

#[test]
fn a_share_of_time_is_weighed_by_the_time_that_its_readings_stand_for() {
    // One reading of 1 % after 36 s without any stands for all of these, 0.013 % of the phase.
    let slowed = told(Metric::ThrottleFrac, |m| {
        if in_train(m, 0.5, 0.510_5) {
            f64::NAN
        } else if in_train(m, 0.510_5, 0.511_9) {
            0.0115
        } else {
            0.0
        }
    });
    let (found, why) = outcome(&slowed.judge(), "throttling");
    assert_eq!(found, Outcome::Failed, "{why}");
}

#[test]
fn a_counter_that_was_reset_has_counted_what_it_shows() {
    let reset = told(Metric::Ecc, |m| if m.index < 400 { 7.0 } else { 3.0 });
    let verdict = reset.judge();
    let (found, why) = outcome(&verdict, "ecc");
    assert_eq!(found, Outcome::Failed, "{why}");
    let worst = finding(&verdict, "ecc").worst().expect("a place");
    let grown = worst.estimate.expect("an estimate").value;
    assert!((grown - 3.0).abs() < 1e-9, "{grown}");
}

#[test]
fn what_a_phase_is_told_to_count_begins_with_the_reading_before_it() {
    let gate = "name = \"mine\"\nmetric = \"ecc\"\nscope = \"gpu\"\nstatistic = \"total\"\nat_most = \"0 count\"\nphase = \"train\"\n";
    let run = of(&with("burn-in", gate), 8).series(Metric::Ecc, DEVICE, |m| match m.phase {
        "train" | "steady" => 9.0,
        _ => 7.0,
    });
    let (found, why) = outcome(&run.judge(), "mine");
    assert_eq!(found, Outcome::Failed, "{why}");
}

#[test]
fn an_error_during_the_warm_up_is_an_error_of_the_run() {
    for (metric, gate) in [(Metric::Ecc, "ecc"), (Metric::Xid, "xid")] {
        let early = told(metric, |m| if m.index < 5 { 7.0 } else { 8.0 });
        let (found, why) = outcome(&early.judge(), gate);
        assert_eq!(found, Outcome::Failed, "{why}");
    }
}

#[test]
fn a_remap_that_waited_for_a_while_fails() {
    let state = |waits: f64| {
        let run = record("soak").hours(2.0);
        let run = run.series(Metric::RowRemap, DEVICE, move |m| {
            if in_train(m, 0.4, 0.6) { waits } else { 0.0 }
        });
        let verdict = judged(&run, |frame| {
            if let Frame::Table(table) = frame
                && table.device == Some(3)
            {
                let states = table.series.iter_mut();
                let states = states.filter(|s| s.metric == Metric::RowRemap);
                states.for_each(|s| s.kind = SeriesKind::Gauge);
            }
        });
        outcome(&verdict, "row-remap").0
    };
    assert_eq!(state(0.0), Outcome::Passed);
    assert_eq!(state(1.0), Outcome::Failed);
}

/// The hall's profile, cut short, on two racks and nodes of four devices each.
fn two_racks() -> Record {
    record("hall-acceptance").hours(2.0).plan(|plan| {
        for (index, device) in plan.devices.iter_mut().enumerate() {
            let rack = format!("rack-{}", 1 + index / 4);
            device.facts.push(("rack".to_owned(), rack));
        }
    })
}

#[test]
fn a_rack_or_node_that_the_plan_names_and_nobody_metered_passes_nothing() {
    assert_eq!(
        outcome(&two_racks().judge(), "rack-power").0,
        Outcome::Passed
    );
    let lacks = two_racks().without(Metric::RackDensity, &Place::hall("rack-2"));
    let (found, why) = outcome(&lacks.judge(), "rack-power");
    assert_eq!(found, Outcome::Inconclusive, "{why}");
    assert!(why.contains("rack-2"), "{why}");
}

/// A gate on the load of each node's processors, in a run of two nodes.
fn on_nodes(second: Option<f64>) -> (Outcome, String) {
    let gate = "name = \"spare\"\nmetric = \"cpu_load\"\nscope = \"node\"\nstatistic = \"median\"\nat_most = \"50 %\"\n";
    let run = of(&with("smoke", gate), 8).plan(|plan| {
        for device in plan.devices.iter_mut().skip(4) {
            "node-2".clone_into(&mut device.node);
        }
    });
    let run = match second {
        Some(load) => run.series(Metric::CpuLoad, Place::hall("node-2"), move |m| {
            load + 0.1 * (m.index % 3) as f64
        }),
        None => run,
    };
    outcome(&run.judge(), "spare")
}

#[test]
fn a_gate_of_nodes_is_judged_at_each_node() {
    assert_eq!(on_nodes(Some(40.0)).0, Outcome::Passed);
    let (found, why) = on_nodes(Some(90.0));
    assert_eq!(found, Outcome::Failed, "{why}");
    assert!(why.contains("node-2"), "{why}");
    let (found, why) = on_nodes(None);
    assert_eq!(found, Outcome::Inconclusive, "{why}");
}

#[test]
fn a_feeder_is_no_rack() {
    // What a feeder draws is held against no rack's limit, and no rack's draw against a feeder's.
    let low = |place: &str| {
        let place = Place::hall(place);
        let run = two_racks().series(Metric::RackDensity, place, |m| 20e3 + (m.index % 3) as f64);
        outcome(&run.judge(), "rack-power").0
    };
    assert_eq!(low("feeder-1"), Outcome::Passed);
    assert_eq!(low("rack-2"), Outcome::Failed);
}
