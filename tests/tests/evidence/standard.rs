//! Evidence held against the wrong thing: another unit, another scope, another transport, another time.

use super::{changed, judged, not_passed};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile;
use hallmark_profiles::units::Unit;
use hallmark_results::frame::{Frame, Provenance, Series};
use hallmark_results::standing::Standing;
use hallmark_results::verdict::{Outcome, judge};
use hallmark_tests::synthetic::{Place, finding, fold, record};

#[test]
fn the_flaps_of_all_devices_add_up_where_the_limit_is_the_site_s() {
    let flapping = (0..8).fold(record("hall-acceptance").hours(2.0), |run, device| {
        run.series(Metric::LinkFlaps, Place::Device(device), |m| {
            if m.index < 300 { 7.0 } else { 8.0 }
        })
    });
    // Eight flaps at a site that may have one.
    let verdict = flapping.judge();
    not_passed(&verdict, &["links"]);
    assert_eq!(verdict.outcome, Outcome::Failed);
}

#[test]
fn no_gate_goes_below_the_floor_of_its_reference() {
    // 92 % of 480 GB/s is 441.6; the SKU file's floor for eight H100 is 460.
    let verdict = record("soak")
        .hours(2.0)
        .operations(|_| 475.0 / 450.0)
        .judge();
    not_passed(&verdict, &["all-reduce"]);
}

#[test]
fn what_went_over_host_memory_is_not_held_against_a_link_between_devices() {
    let verdict = record("soak")
        .hours(2.0)
        .plan(|plan| "host shared memory".clone_into(&mut plan.transport))
        .operations(|_| 40.0)
        .judge();
    let found = finding(&verdict, "all-reduce");
    assert_eq!(found.outcome, Outcome::Inconclusive, "{}", found.why);
}

#[test]
fn a_meter_that_gives_a_mean_each_minute_has_no_gap() {
    let mut frames = record("hall-acceptance").hours(8.0).frames();
    let mut racks = Vec::new();
    for frame in &mut frames {
        match frame {
            Frame::Table(table) if table.name.starts_with("rack-") => {
                table.period_ns = 60_000_000_000;
                racks.push(table.id);
            }
            Frame::Samples(samples) if racks.contains(&samples.table) => {
                let every = |i: &usize| i.is_multiple_of(15);
                let pick = |values: &[f64]| {
                    let kept = (0..values.len()).filter(every);
                    kept.map(|i| values[i]).collect::<Vec<_>>()
                };
                samples.columns = samples.columns.iter().map(|c| pick(c)).collect();
                let kept = (0..samples.at_ns.len()).filter(every);
                samples.at_ns = kept.map(|i| samples.at_ns[i]).collect();
            }
            _ => {}
        }
    }
    let verdict = judge(&fold(&frames));
    let rack = finding(&verdict, "rack-power");
    assert_eq!(rack.outcome, Outcome::Passed, "{}", rack.why);
    let gap = finding(&verdict, "telemetry-gap");
    assert_ne!(gap.outcome, Outcome::Failed, "{}", gap.why);
}

#[test]
fn what_is_replayed_neither_accepts_nor_rejects() {
    let low = record("hall-acceptance").hours(2.0).series(
        Metric::RackDensity,
        Place::hall("rack-1"),
        |_| 20e3,
    );
    let verdict = judged(&low, |frame| {
        if let Frame::Table(table) = frame
            && table.name == "rack-1"
        {
            table.provenance = Provenance::Replayed;
        }
    });
    let rack = finding(&verdict, "rack-power");
    assert_eq!(
        (rack.outcome, verdict.outcome),
        (Outcome::Inconclusive, Outcome::Inconclusive),
        "{}",
        rack.why
    );
}

#[test]
fn a_series_in_another_unit_is_not_judged_as_if_it_were_in_the_metric_s() {
    // The sum of the nodes is 25 % above the PDU, which this meter writes as a plain ratio.
    let run = record("hall-acceptance").hours(2.0).series(
        Metric::PowerRecon,
        Place::hall("rack-1"),
        |_| 0.25,
    );
    let mut frames = run.frames();
    for frame in &mut frames {
        if let Frame::Table(table) = frame
            && table.name == "rack-1"
        {
            let recon = |s: &&mut Series| s.metric == Metric::PowerRecon;
            table
                .series
                .iter_mut()
                .filter(recon)
                .for_each(|s| s.unit = Unit::One);
        }
    }
    let mut standing = Standing::open(&frames[0]).expect("an opening frame");
    // To refuse the table is as good as to convert it, or to leave the gate open.
    if frames[1..].iter().all(|f| standing.push(f).is_ok()) {
        not_passed(&judge(&standing), &["power-reconciliation"]);
    }
}

#[test]
fn a_scope_at_which_a_metric_is_not_taken_is_refused_not_judged_as_another() {
    let skew = "metric = \"step_skew\"\nscope = \"group\"";
    let text = changed("burn-in", "seed = ", "seed = 1").text;
    for scope in ["gpu", "rack", "feeder"] {
        let asked = text.replacen(skew, &skew.replace("group", scope), 1);
        assert_ne!(asked, text);
        let read = profile::parse(&asked, "scope.toml");
        assert!(
            read.is_err(),
            "step_skew of a {scope} was taken, and is judged of the group"
        );
    }
}
