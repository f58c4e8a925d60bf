//! Links: flaps, a reduced rate, a congested rail.
//!
//! All ranks report one operation, so a slow one names no link by itself: counters, widths and generations do.
//! Refuses to call a link slow where a slow device holds the group up, and where there is none: shares of one node's
//! processors sum in its memory, and how long that takes is its scheduler's doing.

use super::departure::{Measure, Rule, step_of};
use super::place::{Level, Place};
use super::signs::{Signs, moved};
use super::{Cause, Diagnosis, Sign};
use crate::plan::SegmentKind;
use crate::standing::TableRun;
use crate::standing::window::Gathered;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::Unit;
use std::collections::BTreeMap;

/// An all-reduce that takes longer by this share from one instant on.
const SLOWER: f64 = 0.1;
/// Width or generation that falls by this share.
const NARROWER: f64 = 0.2;
/// Tail over median, and bulk over median, that make few operations slow and most of them not.
const TAIL: f64 = 2.5;
const BULK: f64 = 1.5;
/// Operations that show a 99.9th percentile at all.
const OPERATIONS: u64 = 1_000;
/// Steps of devices within so many columns of the link's are the reason for it.
const TOGETHER: u64 = 8;

const SLOW: Rule = Rule {
    measure: Measure::Ratio,
    unit: Unit::One,
    sign: 1.0,
    step: SLOWER,
    level: 1.0,
    group: 1.0,
    climb: None,
    rare: false,
};

pub fn all(signs: &Signs) -> Vec<Diagnosis> {
    let mut found = flaps(signs);
    found.extend(slow(signs));
    found.extend(congested(signs, found.is_empty()));
    found
}

/// Growth of a counter over the run, by device or by the place of its table.
fn grown(signs: &Signs, metric: Metric) -> Vec<(Place, f64)> {
    let mut found: BTreeMap<(Level, String), (Place, f64)> = BTreeMap::new();
    for run in signs.hall.standing.tables() {
        let place = match run.table.device {
            Some(device) => signs.hall.groups.gpu(device as usize),
            None => signs.hall.groups.of_meter(&run.table.place),
        };
        let columns = run.table.series.iter().zip(&run.whole);
        let growth: f64 = columns
            .filter(|(s, _)| s.metric == metric)
            .map(|(_, w)| w.growth)
            .sum();
        if growth > 0.0 {
            let sum = found.entry((place.level, place.name.clone()));
            sum.or_insert((place, 0.0)).1 += growth;
        }
    }
    let grown = found.into_values();
    grown.filter(|(_, growth)| *growth >= 1.0).collect()
}

fn flaps(signs: &Signs) -> Vec<Diagnosis> {
    let of = |(place, count): (Place, f64)| {
        let what = format!("{count:.0} link flaps counted");
        let evidence = vec![Sign::new(Metric::LinkFlaps, what)];
        Diagnosis::new(Cause::LinkDown, place, 0.0, (0, 0), evidence)
    };
    grown(signs, Metric::LinkFlaps)
        .into_iter()
        .map(of)
        .collect()
}

fn slow(signs: &Signs) -> Vec<Diagnosis> {
    let hall = &signs.hall;
    // Within one phase, and one that has settled: an operation that competes with matmuls takes longer than one alone.
    let row = hall.row(hall.standing.reducing());
    let longer = step_of(hall, &row, SLOW).filter(|_| hall.has_settled() && has_links(signs));
    let mut named = narrowed(signs);
    let errors = grown(signs, Metric::NvlinkErr);
    let Some(longer) = longer.filter(|l| !held_up(signs, l.onset_ns)) else {
        return named;
    };
    let sign = moved(Metric::AllreduceLatency, "time of an all-reduce", &longer);
    if named.is_empty() {
        let few = errors.len() * 4 <= hall.devices.max(4);
        let places: Vec<(Place, Vec<Sign>)> = errors
            .iter()
            .filter(|_| few)
            .map(|(place, count)| {
                let told = Sign::new(Metric::NvlinkErr, format!("{count:.0} link errors"));
                (place.clone(), vec![told])
            })
            .collect();
        let places = if places.is_empty() {
            vec![(everything(signs), Vec::new())]
        } else {
            places
        };
        for (place, told) in places {
            let mut evidence = vec![sign.clone()];
            let there = told.len();
            evidence.extend(told);
            let one = Diagnosis::new(
                Cause::LinkSlow,
                place,
                longer.p,
                (there.min(1), 1),
                evidence,
            );
            named.push(one.since(longer.onset_ns));
        }
        return named;
    }
    for one in &mut named {
        one.evidence.push(sign.clone());
    }
    named
}

/// Devices whose link runs narrower or at an older generation than it did, or than its peers' does.
fn narrowed(signs: &Signs) -> Vec<Diagnosis> {
    let rule = Rule {
        sign: -1.0,
        step: NARROWER,
        level: NARROWER,
        group: NARROWER,
        ..SLOW
    };
    let mut found: Vec<Diagnosis> = Vec::new();
    for metric in [Metric::PcieWidth, Metric::PcieGeneration] {
        let rows = signs.hall.gauge(metric, |_| true);
        let field = super::departure::field(&signs.hall, rows, rule);
        for device in field.affected() {
            let Some(less) = field.at(device) else {
                continue;
            };
            let name = metric.id().replace('_', " ");
            let evidence = vec![moved(metric, &name, &less)];
            let place = signs.hall.groups.gpu(device);
            let one = Diagnosis::new(Cause::LinkSlow, place, less.p, (1, 1), evidence);
            found.push(one.since(less.onset_ns));
        }
    }
    found
}

/// Whether a device slowed down when the operations did: they wait for it.
fn held_up(signs: &Signs, onset_ns: Option<u64>) -> bool {
    let near_ns = TOGETHER.saturating_mul(signs.hall.step_ns);
    let slowed = signs.rate.departed.iter().flatten();
    slowed
        .filter_map(|d| d.onset_ns)
        .any(|at| onset_ns.is_some_and(|o| o.abs_diff(at) <= near_ns))
}

fn everything(signs: &Signs) -> Place {
    let all: Vec<usize> = (0..signs.hall.devices).collect();
    let mut places = signs
        .hall
        .groups
        .explain(&all, |_| true, &[super::Level::Hall]);
    places.pop().unwrap_or_else(|| signs.hall.groups.gpu(0))
}

/// Whether all-reduces cross any link.
fn has_links(signs: &Signs) -> bool {
    let devices = &signs.hall.standing.opened().plan.devices;
    let first = devices.first().map(|d| &d.node);
    let apart = devices.iter().any(|d| Some(&d.node) != first);
    apart || devices.iter().any(|d| !d.software)
}

/// Few operations many times as long while most of them are not.
fn congested(signs: &Signs, quiet: bool) -> Option<Diagnosis> {
    let standing = signs.hall.standing;
    let windows = standing.windows().iter();
    let phases = windows.filter(|w| matches!(w.kind, SegmentKind::Phase(_)));
    let all: Vec<&Gathered> = phases.flat_map(|w| w.group.ops.values()).collect();
    let worst = all
        .into_iter()
        .filter(|g| g.count() >= OPERATIONS)
        .filter_map(|g| {
            let of = g.get()?;
            let (middle, bulk) = (of.quantile(0.5)?, of.quantile(0.98)?);
            let tail = of.quantile(0.999)?;
            (middle > 0.0).then_some((tail / middle, bulk / middle, g.count()))
        })
        .filter(|(tail, bulk, _)| *tail >= TAIL && *bulk <= BULK)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let (tail, bulk, count) = worst?;
    let what = format!("p99.9 of {count} all-reduces {tail:.1} × the median, p98 {bulk:.2} ×");
    let mut evidence = vec![Sign::new(Metric::AllreduceLatency, what)];
    let counted = |t: &TableRun| t.table.series.iter().any(|s| s.metric == Metric::LinkFlaps);
    if standing.tables().iter().any(counted) {
        evidence.push(Sign::new(Metric::LinkFlaps, "no link flapped"));
    }
    let told = (evidence.len() - 1, 2);
    let is_one = quiet && has_links(signs);
    is_one.then(|| Diagnosis::new(Cause::Congestion, everything(signs), 0.0, told, evidence))
}
