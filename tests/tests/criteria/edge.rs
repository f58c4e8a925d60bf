//! Limits at their edge: one sample, one place, one device, one fault or one setting more or less decides.

use super::{judged, with};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile;
use hallmark_results::frame::{
    AT_LEAST, FaultKind, Frame, Provenance, Samples, Series, SeriesKind, Table, What,
};
use hallmark_results::verdict::{Estimate, Outcome, Verdict, judge};
use hallmark_tests::synthetic::{Moment, Record, finding, fold, of, record};

/// What a gate came to, and why.
fn outcome(verdict: &Verdict, gate: &str) -> (Outcome, String) {
    let found = finding(verdict, gate);
    (found.outcome, found.why.clone())
}

fn estimate(verdict: &Verdict, gate: &str) -> Estimate {
    let worst = finding(verdict, gate).worst().expect("a place");
    worst.estimate.expect("an estimate")
}

#[test]
fn a_bound_that_straddles_its_limit_passes_on_neither_side() {
    let gate = |limit: &str| {
        let text = format!(
            "name = \"rate\"\nmetric = \"matmul_rate\"\nscope = \"site\"\nstatistic = \"median\"\n\
             phase = \"steady\"\n{limit}\n"
        );
        of(&with("burn-in", &text), 8).judge()
    };
    let seen = estimate(&gate("at_least = \"1 FLOP/s\""), "rate");
    assert!(seen.low < seen.value && seen.value < seen.high, "{seen:?}");
    let limits = |low: f64, high: f64| {
        gate(&format!(
            "at_least = \"{low} FLOP/s\"\nat_most = \"{high} FLOP/s\""
        ))
    };
    assert_eq!(
        outcome(&limits(seen.low, seen.high), "rate").0,
        Outcome::Passed
    );
    for (low, high) in [(seen.value, 2.0 * seen.high), (1.0, seen.value)] {
        let (found, why) = outcome(&limits(low, high), "rate");
        assert_eq!(found, Outcome::Inconclusive, "{why}");
    }
}

#[test]
fn every_estimate_lies_within_its_own_bounds() {
    for name in ["smoke", "burn-in", "burn", "vendor-compare"] {
        for found in record(name).judge().findings {
            for e in found.places.iter().filter_map(|p| p.estimate) {
                let name = &found.criterion.name;
                assert!(e.low <= e.value && e.value <= e.high, "{name}: {e:?}");
            }
        }
    }
}

#[test]
fn one_sample_fewer_than_asked_decides_nothing() {
    let asking = |least: u64| {
        let text = profile::load("burn-in").expect("a built-in profile").text;
        let to = format!("min_samples = {least}");
        let asked = text.replacen("min_samples = 299", &to, 1);
        let loaded = profile::parse(&asked, "asked.toml").expect("a profile");
        of(&loaded, 8).judge()
    };
    let samples = estimate(&asking(299), "stragglers").samples;
    assert_eq!(outcome(&asking(samples), "stragglers").0, Outcome::Passed);
    let (found, why) = outcome(&asking(samples + 1), "stragglers");
    assert_eq!(found, Outcome::Inconclusive, "{why}");
}

#[test]
fn what_chance_shows_at_one_of_many_places_or_gates_rejects_nothing() {
    // Of thirty blocks 24 are below the floor: by chance once in 1,400 devices, and there are eight of them and 17 gates.
    let run = record("burn-in").rates(|m, d| {
        // Two steps a block; half a step from its start each is within its own.
        let block = (m.progress * 30.0 + 0.25) as u64;
        let low = d == 1 && m.phase == "steady" && !block.is_multiple_of(5);
        if low { 0.9 } else { 1.0 }
    });
    let (found, why) = outcome(&run.judge(), "floor");
    assert_eq!(found, Outcome::Inconclusive, "{why}");
    let (found, why) = outcome(
        &record("burn-in")
            .rates(|_, d| if d == 1 { 0.9 } else { 1.0 })
            .judge(),
        "floor",
    );
    assert_eq!(found, Outcome::Failed, "{why}");
}

#[test]
fn a_sensor_that_one_device_lacks_leaves_the_run_open_though_no_gate_rests_on_it() {
    let device = hallmark_tests::synthetic::Place::Device(3);
    let verdict = record("burn-in").without(Metric::ClockSm, &device).judge();
    assert_eq!(verdict.outcome, Outcome::Inconclusive);
    let told = verdict
        .findings
        .iter()
        .any(|f| f.why.contains("clock_sm of gpu3"));
    assert!(told, "{}", verdict.sentence);
}

/// A built-in profile without the criteria of some names.
fn unasking(name: &str, criteria: &[&str]) -> Record {
    let text = profile::load(name).expect("a built-in profile").text;
    let (head, rest) = text.split_once("[[criterion]]").expect("criteria");
    let kept = rest
        .split("[[criterion]]")
        .filter(|c| !criteria.iter().any(|n| c.contains(&format!("\"{n}\""))));
    let kept: Vec<String> = kept.map(|c| format!("[[criterion]]{c}")).collect();
    let text = format!("{head}{}", kept.concat());
    of(
        &profile::parse(&text, "unasked.toml").expect("a profile"),
        8,
    )
}

#[test]
fn what_every_run_must_show_is_judged_though_its_profile_does_not_ask() {
    let names = [
        "self-test",
        "inventory",
        "integrity",
        "failures",
        "ecc",
        "xid",
    ];
    let bare = || unasking("burn-in", &names);
    assert_eq!(bare().judge().outcome, Outcome::Passed);
    let detail = || "invented".to_owned();
    let grows = |metric| {
        bare().series(metric, hallmark_tests::synthetic::Place::Device(2), |m| {
            if m.phase == "train" && m.progress > 0.5 {
                8.0
            } else {
                7.0
            }
        })
    };
    for (name, run) in [
        ("self-test", bare().self_test(2, Some(false))),
        ("inventory", bare().fault(2, FaultKind::Missing)),
        ("failures", bare().fault(2, FaultKind::Device)),
        (
            "integrity",
            bare().event(Some(2), What::Mismatch { detail: detail() }),
        ),
        ("ecc", grows(Metric::Ecc)),
        ("xid", grows(Metric::Xid)),
    ] {
        let verdict = run.judge();
        assert_eq!(verdict.outcome, Outcome::Failed, "{name}");
        assert_eq!(outcome(&verdict, name).0, Outcome::Failed, "{name}");
    }
}

#[test]
fn a_device_is_not_among_its_own_peers() {
    // Of two devices one has 90 % of the other's rate, and 95 % of the mean of both.
    let loaded = profile::load("burn-in").expect("a built-in profile");
    let verdict = of(&loaded, 2)
        .rates(|_, d| if d == 1 { 0.9 } else { 1.0 })
        .judge();
    let (found, why) = outcome(&verdict, "floor");
    assert_eq!(found, Outcome::Failed, "{why}");
}

#[test]
fn every_fault_of_a_device_or_node_is_a_failure() {
    let failing = |kind| outcome(&record("smoke").fault(1, kind).judge(), "failures");
    for kind in [
        FaultKind::WorkerDied,
        FaultKind::Agent,
        FaultKind::Silent,
        FaultKind::Device,
        FaultKind::Collective,
    ] {
        assert_eq!(failing(kind).0, Outcome::Failed, "{kind:?}");
    }
    // These have gates of their own, or leave evidence out.
    for kind in [FaultKind::Missing, FaultKind::Sensor, FaultKind::Journal] {
        assert_eq!(failing(kind).0, Outcome::Passed, "{kind:?}");
    }
}

#[test]
fn a_device_that_was_set_up_unlike_its_peers_fails_and_an_unread_setting_is_open() {
    let found = |own: Option<&str>| {
        let tell = |run: Record, device: u32, value: &str| {
            let (key, value) = ("power_limit".to_owned(), value.to_owned());
            run.event(Some(device), What::AsFound { key, value })
        };
        let others = (0..8).filter(|d| *d != 3);
        let run = others.fold(record("burn-in"), |run, d| tell(run, d, "700 W"));
        let run = match own {
            Some(value) => tell(run, 3, value),
            None => run,
        };
        let verdict = run.judge();
        let place = finding(&verdict, "settings").worst().map(|p| p.device);
        (outcome(&verdict, "settings").0, place.flatten())
    };
    assert_eq!(found(Some("700 W")).0, Outcome::Passed);
    assert_eq!(found(Some("600 W")), (Outcome::Failed, Some(3)));
    let open = (Outcome::Inconclusive, Some(3));
    assert_eq!(found(Some("unreadable: not supported")), open);
    assert_eq!(found(None), open);
}

#[test]
fn a_setting_that_all_devices_share_still_fails_where_the_site_promises_another() {
    let found = |told: &str, promised: &str| {
        let run = record("burn-in").plan(|plan| {
            let all = plan.devices.iter_mut();
            all.for_each(|d| d.promised = vec![("pcie_width".to_owned(), promised.to_owned())]);
        });
        let run = (0..8).filter(|_| !told.is_empty()).fold(run, |run, d| {
            let (key, value) = ("pcie_width".to_owned(), told.to_owned());
            run.event(Some(d), What::AsFound { key, value })
        });
        outcome(&run.judge(), "settings")
    };
    assert_eq!(found("16", "16").0, Outcome::Passed);
    let (failed, why) = found("8", "16");
    assert_eq!(failed, Outcome::Failed);
    assert!(
        why.contains("pcie_width 8, where the site's file promises 16"),
        "{why}"
    );
    for untold in ["", "not supported", "unreadable: no permission"] {
        assert_eq!(found(untold, "16").0, Outcome::Inconclusive, "{untold}");
    }
}

#[test]
fn a_gap_that_the_host_s_clock_cannot_see_is_not_shown_to_be_small() {
    let verdict = judged(&record("burn-in"), |frame| {
        if let Frame::Steps(steps) = frame {
            steps.device_clock = steps.device != 1;
        }
    });
    let (found, why) = outcome(&verdict, "idle-gap");
    assert_eq!(found, Outcome::Inconclusive, "{why}");
}

#[test]
fn a_hole_between_two_steps_is_no_time_under_load() {
    let hole = |m: &Moment<'_>| m.phase == "train" && (0.3..0.5).contains(&m.progress);
    let run = record("burn-in").steps(move |m, d, _| d != 1 || !hole(m));
    let (found, why) = outcome(&run.judge(), "duration");
    assert_eq!(found, Outcome::Failed, "{why}");
}

#[test]
fn a_clock_that_is_no_longer_disciplined_is_not_as_good_as_its_last_error() {
    let run = record("hall-acceptance").hours(2.0);
    let clock = |lost: Option<bool>| {
        let verdict = judged(&run, |frame| match (frame, lost) {
            (Frame::Opened(opened), Some(false)) => opened.clock.synchronised = Some(false),
            (Frame::Closed(closed), Some(true)) => closed.clock.synchronised = Some(false),
            _ => {}
        });
        outcome(&verdict, "clock").0
    };
    assert_eq!(clock(None), Outcome::Passed);
    for at_the_end in [false, true] {
        assert_eq!(clock(Some(at_the_end)), Outcome::Inconclusive);
    }
}

/// How the gate on clocks comes out where all devices are another node's, whose clock is off at most and at least by so much.
fn other_node(bounds_s: Option<[f64; 2]>) -> Outcome {
    let mut frames = record("hall-acceptance").hours(2.0).frames();
    let Some(Frame::Closed(closed)) = frames.last() else {
        unreachable!("a run that has ended")
    };
    let seconds = closed.at_ns / 1_000_000_000;
    let tables = frames.iter().filter(|f| matches!(f, Frame::Table(_)));
    let id = tables.count() as u32;
    let Some(Frame::Opened(opened)) = frames.first_mut() else {
        unreachable!("a run that has begun")
    };
    "controller".clone_into(&mut opened.host.name);
    let place = opened.plan.devices[0].node.clone();
    let series = |label: &str| Series {
        metric: Metric::ClockOffset,
        label: label.to_owned(),
        unit: Metric::ClockOffset.spec().unit,
        kind: SeriesKind::Gauge,
        averaging_ns: None,
        accuracy: None,
    };
    let table = Table {
        id,
        name: "1-clock".to_owned(),
        source: "heartbeats".to_owned(),
        provenance: Provenance::Measured,
        device: None,
        place,
        period_ns: 1_000_000_000,
        series: vec![series(""), series(AT_LEAST)],
    };
    let rows = bounds_s.map(|bounds| Samples {
        table: id,
        at_ns: (0..seconds).map(|t| t * 1_000_000_000).collect(),
        columns: bounds.map(|s| vec![s; seconds as usize]).to_vec(),
    });
    let last = frames.len() - 1;
    let told = std::iter::once(Frame::Table(table)).chain(rows.map(Frame::Samples));
    frames.splice(last..last, told);
    outcome(&judge(&fold(&frames)), "clock").0
}

#[test]
fn a_nodes_clock_passes_by_what_it_is_off_at_most_whatever_it_is_off_at_least() {
    assert_eq!(other_node(Some([0.002, 0.0])), Outcome::Passed);
    assert_eq!(other_node(Some([0.33, 0.0])), Outcome::Inconclusive);
    assert_eq!(other_node(Some([f64::NAN, 0.0])), Outcome::Inconclusive);
    assert_eq!(other_node(None), Outcome::Inconclusive);
}

#[test]
fn mismatches_that_are_told_together_are_all_counted() {
    let detail = "one element differs".to_owned();
    let more = What::More {
        latest: Box::new(What::Mismatch { detail }),
        count: 40,
        from_ns: 0,
    };
    let verdict = record("burn-in").event(Some(2), more).judge();
    assert_eq!(outcome(&verdict, "integrity").0, Outcome::Failed);
    assert!((estimate(&verdict, "integrity").value - 40.0).abs() < 1e-9);
}

#[test]
fn failures_that_a_gate_allows_do_not_leave_it_open() {
    let gate = "name = \"mine\"\nmetric = \"failures\"\nscope = \"site\"\nstatistic = \"total\"\nat_most = \"1\"\n";
    let allowed = of(&with("burn-in", gate), 8);
    let one = allowed.fault(1, FaultKind::Device);
    let (found, why) = outcome(&one.clone().judge(), "mine");
    assert_eq!(found, Outcome::Passed, "{why}");
    let (found, why) = outcome(&one.fault(2, FaultKind::Silent).judge(), "mine");
    assert_eq!(found, Outcome::Failed, "{why}");
    assert!(why.contains("invented"), "{why}");
}

#[test]
fn a_good_run_on_replayed_readings_would_accept_and_does_not() {
    let run = record("hall-acceptance");
    let verdict = judged(&run, |frame| {
        if let Frame::Table(table) = frame
            && table.name == "rack-1"
        {
            table.provenance = hallmark_results::frame::Provenance::Replayed;
        }
    });
    assert_eq!(verdict.outcome, Outcome::Inconclusive);
    assert!(
        verdict.sentence.contains("would accept"),
        "{}",
        verdict.sentence
    );
    assert!(!verdict.accepts_site);
}
