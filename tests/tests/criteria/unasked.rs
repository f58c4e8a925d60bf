//! Metrics and references that may be judged and that no built-in profile judges: each passes, fails and is open.

use super::{judged, with};
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{Frame, Provenance, What};
use hallmark_results::verdict::{Outcome, Verdict};
use hallmark_tests::synthetic::{Place, Record, finding, of, record};

/// A run of a profile with one more gate.
fn asked(profile: &str, metric: &str, scope: &str, statistic: &str, limit: &str) -> Record {
    let gate = format!(
        "name = \"mine\"\nmetric = \"{metric}\"\nscope = \"{scope}\"\nstatistic = \"{statistic}\"\n{limit}\n"
    );
    of(&with(profile, &gate), 8)
}

fn outcome(verdict: &Verdict) -> (Outcome, String) {
    let found = finding(verdict, "mine");
    (found.outcome, found.why.clone())
}

/// The deciding place's figure.
fn value(verdict: &Verdict) -> f64 {
    let worst = finding(verdict, "mine").worst().expect("a place");
    worst.estimate.expect("an estimate").value
}

fn near(value: f64, expected: f64, within: f64) {
    assert!(
        (value / expected - 1.0).abs() < within,
        "{value}, not {expected}"
    );
}

#[test]
fn a_rate_that_falls_after_its_first_tenth_fails_against_it() {
    let limit = "at_least = \"98 %\"\nrelative_to = \"first_tenth\"\nphase = \"steady\"";
    let run = || asked("burn-in", "matmul_rate", "gpu", "median", limit);
    assert_eq!(outcome(&run().judge()).0, Outcome::Passed);
    let falls = run().rates(|m, _| if m.progress < 0.2 { 1.0 } else { 0.9 });
    let (found, why) = outcome(&falls.judge());
    assert_ne!(found, Outcome::Passed, "{why}");
}

#[test]
fn an_efficiency_is_the_rate_over_the_reference_at_each_device_and_at_the_site() {
    for scope in ["gpu", "site"] {
        let judged = |least: &str| {
            let limit = format!("at_least = \"{least}\"\nphase = \"steady\"");
            asked("burn-in", "matmul_efficiency", scope, "median", &limit)
        };
        let verdict = judged("90 %").judge();
        assert_eq!(outcome(&verdict).0, Outcome::Passed);
        near(value(&verdict), 0.985, 0.005);
        let (found, why) = outcome(&judged("99 %").judge());
        assert_eq!(found, Outcome::Failed, "{why}");
        let unknown = judged("90 %").named(1, "some other model").judge();
        assert_ne!(outcome(&unknown).0, Outcome::Passed, "{scope}");
    }
}

/// Steps and audited FLOP of all devices, and the least of any.
fn done(run: &Record) -> [(u64, f64); 2] {
    let mut each = [(0, 0.0); 8];
    for frame in run.frames() {
        if let Frame::Steps(steps) = frame {
            let own = &mut each[steps.device as usize];
            own.0 += steps.rows.len() as u64;
            own.1 += steps.rows.iter().map(|r| r.audited_flop).sum::<f64>();
        }
    }
    let all = each.iter().fold((0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    let least = each.into_iter().reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)));
    [all, least.expect("eight devices")]
}

#[test]
fn steps_and_audited_work_are_counted_to_the_last_one() {
    // Device 7, which began last, has one step less still.
    let run = |metric: &str, scope: &str, least: String| {
        let limit = format!("at_least = \"{least}\"");
        let run = asked("smoke", metric, scope, "total", &limit);
        run.steps(|m, d, _| d != 7 || m.index != 300)
    };
    let [site, own] = done(&run("steps_completed", "site", "1".to_owned()));
    for (scope, (steps, flop)) in [("site", site), ("gpu", own)] {
        let steps_of =
            |least: u64| outcome(&run("steps_completed", scope, least.to_string()).judge()).0;
        assert_eq!(steps_of(steps), Outcome::Passed, "{scope}");
        assert_eq!(steps_of(steps + 1), Outcome::Failed, "{scope}");
        let flop_of =
            |least: f64| outcome(&run("audit_exposure", scope, format!("{least} FLOP")).judge()).0;
        assert_eq!(flop_of(flop * (1.0 - 1e-9)), Outcome::Passed, "{scope}");
        assert_eq!(flop_of(flop * (1.0 + 1e-9)), Outcome::Failed, "{scope}");
    }
}

#[test]
fn silent_errors_are_bounded_from_above_by_three_over_what_was_audited() {
    let run = |scope: &str, most: f64| {
        let limit = format!("at_most = \"{most:e} /FLOP\"");
        asked("smoke", "sdc_ucl", scope, "total", &limit)
    };
    let audited = done(&run("site", 1.0))[0].1;
    for (scope, audited) in [("site", audited), ("gpu", audited / 8.0)] {
        let outcome_of = |times: f64| outcome(&run(scope, times / audited).judge()).0;
        // −ln 0.05 is 2.996.
        assert_eq!(outcome_of(3.05), Outcome::Passed, "{scope}");
        assert_eq!(outcome_of(2.9), Outcome::Failed, "{scope}");
        let detail = "one element differs".to_owned();
        let wrong = run(scope, 3.05 / audited).event(Some(1), What::Mismatch { detail });
        assert_eq!(outcome(&wrong.judge()).0, Outcome::Failed, "{scope}");
        let none = run(scope, 3.05 / audited).steps(|_, _, row| {
            (row.audited, row.audited_flop) = (0, 0.0);
            true
        });
        assert_eq!(outcome(&none.judge()).0, Outcome::Inconclusive, "{scope}");
    }
}

#[test]
fn a_step_that_waited_is_as_long_as_from_its_due_time_on() {
    for scope in ["gpu", "group"] {
        let limit = "at_most = \"2\"\nrelative_to = \"own_median\"";
        let run = || asked("smoke", "step_time", scope, "p95", limit);
        assert_eq!(outcome(&run().judge()).0, Outcome::Passed, "{scope}");
        let waited = run().steps(|m, _, row| {
            if m.index.is_multiple_of(8) {
                let length = row.end_ns - row.start_ns;
                row.due_ns = row.start_ns.saturating_sub(3 * length);
            }
            true
        });
        let (found, why) = outcome(&waited.judge());
        assert_eq!(found, Outcome::Failed, "{scope}: {why}");
    }
}

#[test]
fn exposed_communication_is_what_an_overlapped_step_takes_longer() {
    // Sixty steps of 67.5 ms that compute alone, beside 640 of 75 ms.
    let run = |most: &str| {
        let limit = format!("at_most = \"{most}\"");
        let run = asked("smoke", "exposed_comm", "group", "total", &limit);
        run.plan(|plan| {
            for segment in plan.schedule.iter_mut().filter(|s| s.name == "compute") {
                segment.duration_ns = 60 * 67_500_000;
            }
        })
    };
    let verdict = run("12 %").judge();
    assert_eq!(outcome(&verdict).0, Outcome::Passed);
    near(value(&verdict), 0.1, 0.05);
    let worst = finding(&verdict, "mine").worst().expect("a place");
    let seen = worst.estimate.expect("an estimate");
    assert!(seen.low < seen.value && seen.value < seen.high, "{seen:?}");
    assert_eq!(outcome(&run("8 %").judge()).0, Outcome::Failed);
    let alone = run("12 %").never_began("compute").judge();
    assert_eq!(outcome(&alone).0, Outcome::Inconclusive);
}

#[test]
fn both_bandwidths_of_an_all_reduce_are_those_of_its_latency() {
    let run = |metric: &str, limit: &str| {
        let limit = format!("{limit}\nphase = \"collective\"");
        asked("smoke", metric, "group", "median", &limit)
    };
    let bytes = run("allreduce_algbw", "at_least = \"1 B/s\"").frames();
    let bytes = bytes.iter().find_map(|f| match f {
        Frame::Steps(steps) => steps.ops.first().map(|op| op.bytes as f64),
        _ => None,
    });
    let bytes = bytes.expect("an all-reduce");
    let of = |metric: &str, limit: &str| value(&run(metric, limit).judge());
    let latency_s = of("allreduce_latency", "at_most = \"1 h\"");
    let algorithm = of("allreduce_algbw", "at_least = \"1 B/s\"");
    let bus = of("allreduce_busbw", "at_least = \"1 B/s\"");
    near(algorithm * latency_s, bytes, 0.002);
    // 2 (n − 1) / n of eight.
    near(bus / algorithm, 1.75, 1e-9);
    let limits = format!(
        "at_least = \"{} B/s\"\nat_most = \"{} B/s\"",
        0.98 * algorithm,
        1.02 * algorithm
    );
    assert_eq!(
        outcome(&run("allreduce_algbw", &limits).judge()).0,
        Outcome::Passed
    );
    let above = format!("at_least = \"{} B/s\"", 1.2 * algorithm);
    assert_eq!(
        outcome(&run("allreduce_algbw", &above).judge()).0,
        Outcome::Failed
    );
    let none = run("allreduce_algbw", &limits).operations(|_| f64::NAN);
    assert_eq!(outcome(&none.judge()).0, Outcome::Inconclusive);
}

#[test]
fn an_all_reduce_is_over_when_the_last_rank_is() {
    let verdict = judged(&record("soak").hours(2.0), |frame| {
        if let Frame::Steps(steps) = frame
            && steps.device == 5
        {
            for op in &mut steps.ops {
                op.end_ns += op.end_ns - op.start_ns;
            }
        }
    });
    let found = finding(&verdict, "all-reduce");
    assert_eq!(found.outcome, Outcome::Failed, "{}", found.why);
}

#[test]
fn nodes_that_were_held_back_by_themselves_are_no_measure_of_the_hall() {
    let run = |times: u64| {
        let slowed = move |phase: &str| if phase == "single-nodes" { times } else { 100 };
        let run = record("hall-acceptance").hours(2.0);
        run.steps(move |m, _, row| {
            row.compute_ns = row.compute_ns / 100 * slowed(m.phase);
            true
        })
    };
    // None at all is no time of matmuls, but one that was not told.
    for (times, expected) in [
        (100, Outcome::Passed),
        (110, Outcome::Inconclusive),
        (0, Outcome::Inconclusive),
    ] {
        let verdict = run(times).judge();
        let found = finding(&verdict, "scaling");
        assert_eq!(found.outcome, expected, "{times}: {}", found.why);
    }
    let open = |run: Record| {
        let verdict = run.judge();
        let found = finding(&verdict, "scaling");
        assert_eq!(found.outcome, Outcome::Inconclusive, "{}", found.why);
    };
    // Half of the devices are slow, the others tell so much less.
    open(run(100).steps(|m, d, row| {
        if m.phase == "single-nodes" {
            row.compute_ns = row.compute_ns / 100 * if d < 4 { 120 } else { 80 };
        }
        true
    }));
    open(run(100).steps(|m, d, row| {
        row.gemms *= u32::from(m.phase != "single-nodes" || d != 3);
        true
    }));
    for transport in ["", "host shared memory"] {
        open(run(100).plan(|plan| transport.clone_into(&mut plan.transport)));
    }
}

#[test]
fn work_for_energy_is_all_work_over_all_energy() {
    for scope in ["gpu", "site"] {
        let run = |least: &str| {
            let limit = format!("at_least = \"{least}\"");
            asked("burn-in", "flop_per_joule", scope, "total", &limit)
        };
        let verdict = run("1 TFLOP/J").judge();
        let (found, why) = outcome(&verdict);
        assert_eq!(found, Outcome::Passed, "{why}");
        // 0.985 of 794.5 TFLOP/s at 690 W.
        near(value(&verdict), 1.134e12, 0.02);
        assert_eq!(outcome(&run("1.2 TFLOP/J").judge()).0, Outcome::Failed);
        let device = Place::Device(3);
        let lacks = run("1 TFLOP/J").without(Metric::PowerDraw, &device);
        assert_eq!(outcome(&lacks.judge()).0, Outcome::Inconclusive, "{scope}");
        let replayed = judged(&run("1.2 TFLOP/J"), |frame| {
            if let Frame::Table(table) = frame
                && table.series.iter().any(|s| s.metric == Metric::PowerDraw)
            {
                table.provenance = Provenance::Replayed;
            }
        });
        let (found, why) = outcome(&replayed);
        assert_eq!(found, Outcome::Inconclusive, "{scope}: {why}");
        let none = (0..8).fold(run("1 TFLOP/J"), |run, device| {
            run.series(Metric::PowerDraw, Place::Device(device), |_| 0.0)
        });
        let verdict = none.judge();
        assert_eq!(outcome(&verdict).0, Outcome::Inconclusive, "{scope}");
        let worst = finding(&verdict, "mine").worst().expect("a place");
        assert_eq!(worst.estimate, None, "no energy is no divisor");
    }
}
