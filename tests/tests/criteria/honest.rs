//! What a sender has to gain by: settings that nobody could read, counters that take back, samples at chosen moments,
//! steps that are left out, meters of a part. None of it passes anything.

use super::{judged, with};
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{Frame, PairRow, What};
use hallmark_results::verdict::{Outcome, Verdict};
use hallmark_tests::synthetic::{Place, Record, finding, of, record};

const DEVICE: Place = Place::Device(3);

fn outcome(verdict: &Verdict, gate: &str) -> Outcome {
    finding(verdict, gate).outcome
}

/// A setting as each device tells it, one after another.
fn settings(told: &[(u32, &str)]) -> Verdict {
    let tell = |run: Record, (device, value): &(u32, &str)| {
        let (key, value) = ("vbios".to_owned(), (*value).to_owned());
        run.event(Some(*device), What::AsFound { key, value })
    };
    told.iter().fold(record("burn-in"), tell).judge()
}

#[test]
fn why_a_setting_could_not_be_read_is_no_setting() {
    let unread = "unreadable: no permission";
    let all: Vec<_> = (0..8).map(|d| (d, unread)).collect();
    let verdict = settings(&all);
    assert_eq!(outcome(&verdict, "settings"), Outcome::Inconclusive);
    // Nor is the one that could be read unlike the others for it.
    let mut but_one = all.clone();
    but_one[3].1 = "96.00";
    let verdict = settings(&but_one);
    let found = finding(&verdict, "settings");
    assert_eq!(found.outcome, Outcome::Inconclusive, "{}", found.why);
    let read: Vec<_> = (0..8).map(|d| (d, "96.00")).collect();
    assert_eq!(settings(&read).outcome, Outcome::Passed);
}

#[test]
fn a_setting_that_changed_on_the_way_is_held_against_what_it_was() {
    let first: Vec<_> = (0..8).map(|d| (d, "96.00")).collect();
    let again = |later: &[(u32, &str)]| settings(&[&first[..], later].concat());
    assert_eq!(again(&first).outcome, Outcome::Passed, "told twice");
    // All of them: no peer is unlike, and still not one hall was measured but two.
    let all: Vec<_> = (0..8).map(|d| (d, "97.00")).collect();
    let verdict = again(&all);
    assert_eq!(outcome(&verdict, "settings"), Outcome::Passed);
    assert_eq!(verdict.outcome, Outcome::Inconclusive);
    let told = "gpu2 was begun with vbios 96.00 and went on with 97.00";
    assert!(verdict.findings.iter().any(|f| f.why == told));
    // One that was unlike its peers before a resume stays so.
    let mut unlike = first.clone();
    unlike[3].1 = "95.00";
    let verdict = settings(&[&unlike[..], &first[..]].concat());
    assert_eq!(outcome(&verdict, "settings"), Outcome::Failed);
    assert_eq!(outcome(&again(&unlike), "settings"), Outcome::Failed);
}

#[test]
fn a_driver_error_before_the_first_sample_of_its_counter_fails() {
    let error = |code| What::Xid {
        code,
        detail: "invented".to_owned(),
    };
    let counted = || record("burn-in").series(Metric::Xid, DEVICE, |_| 1.0);
    assert_eq!(outcome(&counted().judge(), "xid"), Outcome::Passed);
    let told = counted().event(Some(3), error(79)).judge();
    assert_eq!(outcome(&told, "xid"), Outcome::Failed);
    // The counter shows three, of which many were told together.
    let grows = |m: &hallmark_tests::synthetic::Moment<'_>| f64::from(m.index.min(3) as u32);
    let more = What::More {
        latest: Box::new(error(94)),
        count: 40,
        from_ns: 0,
    };
    let run = record("burn-in").series(Metric::Xid, DEVICE, grows);
    let verdict = run.event(Some(3), more).judge();
    let worst = finding(&verdict, "xid").worst().expect("a place");
    assert!((worst.estimate.expect("an estimate").value - 40.0).abs() < 1e-9);
}

#[test]
fn a_counter_below_nothing_takes_back_no_error() {
    let counts = |below: f64| {
        let run = record("burn-in").series(Metric::Ecc, DEVICE, move |m| match m.index {
            0..400 => 0.0,
            500 => below,
            _ => 5.0,
        });
        let verdict = run.judge();
        let worst = finding(&verdict, "ecc").worst().expect("a place");
        (
            outcome(&verdict, "ecc"),
            worst.estimate.expect("an estimate").value,
        )
    };
    assert_eq!(counts(5.0), (Outcome::Failed, 5.0));
    assert_eq!(counts(-5.0), (Outcome::Failed, 5.0));
}

#[test]
fn floats_that_came_otherwise_than_they_were_sent_pass_no_hall() {
    let pairs = |wrong: u64| {
        let row = PairRow {
            round: 0,
            nodes: ["n1", "n2"].map(str::to_owned),
            bytes: 1 << 20,
            bytes_per_s: 1e9,
            latency_s: 1e-5,
            wrong,
        };
        let rows = vec![row];
        record("burn-in").event(None, What::Pairs { rows }).judge()
    };
    assert_eq!(pairs(0).outcome, Outcome::Passed);
    let verdict = pairs(7);
    assert_eq!(verdict.outcome, Outcome::Inconclusive);
    let told = "7 floats came otherwise than they were sent between n1 and n2";
    assert!(verdict.findings.iter().any(|f| f.why == told));
}

#[test]
fn samples_at_moments_of_their_sender_s_choice_show_no_share_of_the_time() {
    let crowded = |each: u64| {
        let run = record("burn-in");
        let mut apart = Vec::new();
        let verdict = judged(&run, |frame| match frame {
            Frame::Table(table) if table.device == Some(3) => apart.push(table.id),
            Frame::Samples(samples) if apart.contains(&samples.table) => {
                let near = |at: u64| (0..each).map(move |n| at + n * 1_000_000);
                samples.at_ns = samples.at_ns.iter().copied().flat_map(near).collect();
                for column in &mut samples.columns {
                    let same = |v: f64| std::iter::repeat_n(v, each as usize);
                    *column = column.iter().copied().flat_map(same).collect();
                }
            }
            _ => {}
        });
        outcome(&verdict, "throttling")
    };
    assert_eq!(crowded(1), Outcome::Passed);
    assert_eq!(crowded(2), Outcome::Inconclusive);
}

#[test]
fn steps_that_one_rank_leaves_out_leave_what_is_known_of_all_ranks_open() {
    let gates = [
        ("step_skew", "group", "at_most = \"100\""),
        ("step_time", "group", "at_most = \"10 s\""),
        ("step_time", "gpu", "at_most = \"10 s\""),
    ];
    for (metric, scope, limit) in gates {
        let gate = format!(
            "name = \"mine\"\nmetric = \"{metric}\"\nscope = \"{scope}\"\nstatistic = \"p99\"\n{limit}\nphase = \"train\"\n"
        );
        let run = || of(&with("burn-in", &gate), 8);
        assert_eq!(outcome(&run().judge(), "mine"), Outcome::Passed, "{metric}");
        let hides = |m: &hallmark_tests::synthetic::Moment<'_>| {
            m.phase == "train" && m.progress > 0.5 && m.index.is_multiple_of(40)
        };
        let verdict = run().steps(move |m, d, _| d != 3 || !hides(m)).judge();
        let expected = match scope {
            "gpu" => Outcome::Passed,
            _ => Outcome::Inconclusive,
        };
        let found = finding(&verdict, "mine");
        assert_eq!(found.outcome, expected, "{metric} {scope}: {}", found.why);
    }
}

#[test]
fn what_a_node_s_processors_draw_is_not_what_the_node_draws() {
    // All eight devices are one node's, whose own sensors show 200 W where the devices draw 5.5 kW.
    let metered = |label: &'static str, metric: &str, scope: &str, limit: &str| {
        let gate = format!(
            "name = \"mine\"\nmetric = \"{metric}\"\nscope = \"{scope}\"\nstatistic = \"total\"\n{limit}\nphase = \"train\"\n"
        )
        .replace("total", if metric == "power_draw" { "max" } else { "total" });
        let run = of(&with("burn-in", &gate), 8).plan(|plan| {
            for device in &mut plan.devices {
                "n1".clone_into(&mut device.node);
            }
        });
        let run = run.series(Metric::PowerDraw, Place::hall("n1"), |m| {
            200.0 + (m.index % 3) as f64
        });
        let verdict = judged(&run, |frame| {
            if let Frame::Table(table) = frame
                && table.place == "n1"
            {
                for series in &mut table.series {
                    label.clone_into(&mut series.label);
                }
            }
        });
        finding(&verdict, "mine").clone()
    };
    let whole = metered("", "flop_per_joule", "site", "at_least = \"2 TFLOP/J\"");
    assert_eq!(whole.outcome, Outcome::Passed, "{}", whole.why);
    let part = metered(
        "package-0",
        "flop_per_joule",
        "site",
        "at_least = \"2 TFLOP/J\"",
    );
    assert_eq!(part.outcome, Outcome::Failed, "{}", part.why);
    let power = |label| metered(label, "power_draw", "node", "at_most = \"1 kW\"").outcome;
    assert_eq!(
        (power(""), power("package-0")),
        (Outcome::Passed, Outcome::Inconclusive)
    );
}
