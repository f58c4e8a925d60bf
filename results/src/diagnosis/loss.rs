//! What was there and is gone, was never there, was set up otherwise, or was silent for a while.
//!
//! Devices that go at one instant go together: a feed, not their own faults. One sensor's short silence is no
//! matter of a node; all of a node's at once is.

use super::place::{Groups, Level, Place};
use super::wrong::xids;
use super::{Cause, Diagnosis, Sign};
use crate::frame::{AT_LEAST, Event, FaultKind, Series, SeriesKind, What};
use crate::standing::{Standing, TableRun};
use crate::verdict::settings;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};
use std::collections::BTreeSet;

/// Devices that are lost within this time are lost together.
const TOGETHER_NS: u64 = 10_000_000_000;
/// A node's silence counts from this length, and from so many periods of its sensors.
const SILENCE_NS: u64 = 5_000_000_000;
const SILENCE_PERIODS: u64 = 4;
/// A meter that reads less than this share of what it read under load has nothing behind it; devices at rest draw about a
/// tenth.
const DEAD: f64 = 0.03;
const OFF_THE_BUS: u64 = 79;
/// A clock that is off by this much, s: 10 ms spoils what is compared between nodes; ten times that for a sure name.
const OFFSET_S: f64 = 0.1;
const WIRED: [Level; 3] = [Level::Node, Level::Tray, Level::Rack];

pub fn all(standing: &Standing) -> Vec<Diagnosis> {
    let groups = Groups::of(&standing.opened().plan.devices);
    let mut found = missing(standing, &groups);
    found.extend(lost(standing, &groups));
    found.extend(set_up(standing, &groups));
    found.extend(silent(standing, &groups));
    found.extend(clocks(standing, &groups));
    found
}

fn faults(event: &Event) -> Option<(FaultKind, &str)> {
    match &event.what {
        What::Fault { kind, detail } => Some((*kind, detail)),
        _ => None,
    }
}

/// Declared devices that were not there, and series that the others have.
fn missing(standing: &Standing, groups: &Groups) -> Vec<Diagnosis> {
    let events = standing.events().iter();
    let gone = |e: &&Event| faults(e).is_some_and(|(k, _)| k == FaultKind::Missing);
    let gone: Vec<&Event> = events.filter(gone).collect();
    let known: Vec<usize> = gone
        .iter()
        .filter_map(|e| Some(e.device? as usize))
        .collect();
    let sign =
        |count: usize| Sign::new(Metric::Inventory, format!("{count} not there at the start"));
    let of = |place: Place| {
        let evidence = vec![sign(place.devices.len())];
        Diagnosis::new(Cause::Missing, place, 0.0, (0, 0), evidence)
    };
    let mut found: Vec<Diagnosis> = groups
        .explain(&known, |_| true, &WIRED)
        .into_iter()
        .map(of)
        .collect();
    let unplanned = gone.len() - known.len();
    if unplanned > 0 {
        let place = groups.of_meter("hall");
        let evidence = vec![sign(unplanned)];
        found.push(Diagnosis::new(Cause::Missing, place, 0.0, (0, 0), evidence));
    }
    for metric in &standing.profile().telemetry.metrics {
        let owners: BTreeSet<u32> = standing
            .tables()
            .iter()
            .filter(|t| gives(t, *metric))
            .filter_map(|t| t.table.device)
            .collect();
        let count = standing.devices().len();
        let without = (0..count).filter(|d| !owners.contains(&(*d as u32)) && !known.contains(d));
        let without: Vec<usize> = without.collect();
        // A metric that most devices lack is one that their sensors do not have.
        if owners.is_empty() || without.len() * 2 > count {
            continue;
        }
        for place in groups.explain(&without, |_| true, &WIRED) {
            let what = format!("no sensor gave {metric}");
            let evidence = vec![Sign::new(*metric, what)];
            found.push(Diagnosis::new(Cause::Missing, place, 0.0, (0, 0), evidence));
        }
    }
    found
}

/// Whether a table has the series and a value of it.
fn gives(run: &TableRun, metric: Metric) -> bool {
    let columns = run.table.series.iter().zip(&run.whole);
    columns
        .into_iter()
        .any(|(s, w)| s.metric == metric && w.valid > 0)
}

/// One device that was lost: when, whether with its node's agent, and what was said of it.
struct Loss {
    device: usize,
    at_ns: u64,
    with_agent: bool,
    told: String,
}

fn losses(standing: &Standing) -> Vec<Loss> {
    let mut found = Vec::new();
    let errors = xids(standing);
    for (device, run) in standing.devices().iter().enumerate() {
        let own = run.faults.iter().filter(|e| {
            let kinds = [
                FaultKind::WorkerDied,
                FaultKind::Agent,
                FaultKind::Silent,
                FaultKind::Device,
            ];
            faults(e).is_some_and(|(k, _)| kinds.contains(&k))
        });
        let bus = errors.get(&device).into_iter().flatten();
        let bus = bus.filter(|x| x.1 == OFF_THE_BUS).min();
        let bus = bus.map(|(at_ns, code)| Loss {
            device,
            at_ns: *at_ns,
            with_agent: false,
            told: format!("Xid {code}"),
        });
        let first = own.min_by_key(|e| e.at_ns).and_then(|e| {
            let (kind, detail) = faults(e)?;
            Some(Loss {
                device,
                at_ns: e.at_ns,
                with_agent: kind == FaultKind::Agent,
                told: detail.to_owned(),
            })
        });
        let earliest = [bus, first].into_iter().flatten().min_by_key(|l| l.at_ns);
        found.extend(earliest);
    }
    found.sort_by_key(|l| l.at_ns);
    found
}

fn lost(standing: &Standing, groups: &Groups) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    let all = losses(standing);
    let errors = xids(standing);
    for wave in all.chunk_by(|a, b| b.at_ns - a.at_ns <= TOGETHER_NS) {
        let devices: Vec<usize> = wave.iter().map(|l| l.device).collect();
        for place in groups.explain(&devices, |_| true, &WIRED) {
            let own = wave
                .iter()
                .filter(|l| place.devices.contains(&(l.device as u32)));
            let onset_ns = own.clone().map(|l| l.at_ns).min();
            let Some(told) = own.clone().map(|l| l.told.clone()).next() else {
                continue;
            };
            let ended = own.clone().all(|l| l.with_agent).then(|| told.clone());
            if place.level == Level::Gpu && ended.is_none() {
                let mut evidence = vec![Sign::new(Metric::Failures, told)];
                let device = place.devices[0] as usize;
                let codes = errors.get(&device).into_iter().flatten();
                let codes = codes.map(|(_, c)| Sign::new(Metric::Xid, format!("Xid {c}")));
                evidence.extend(codes);
                evidence.dedup_by(|a, b| a.what == b.what);
                let one = Diagnosis::new(Cause::DeviceLost, place, 0.0, (0, 0), evidence);
                found.push(one.since(onset_ns));
            } else {
                found.push(together(standing, groups, place, onset_ns, ended));
            }
        }
    }
    found
}

/// A whole group that went at once: its feed, unless what its meter or its sensors tell goes on, or its agent is known
/// to have ended while the meter does not say that all power went.
fn together(
    standing: &Standing,
    groups: &Groups,
    place: Place,
    onset_ns: Option<u64>,
    ended: Option<String>,
) -> Diagnosis {
    let from_ns = onset_ns.unwrap_or(0);
    let back = standing
        .tables()
        .iter()
        .filter(|t| t.table.device.is_some_and(|d| place.devices.contains(&d)));
    let back = back.filter(|t| {
        t.last_ns
            .is_some_and(|l| l > from_ns.saturating_add(TOGETHER_NS))
    });
    let on = back.filter(|t| drawing(t, from_ns)).count() * 2 > place.devices.len();
    let meter = dead_meter(standing, groups, &place, from_ns);
    let what = format!("{} devices gone at one instant", place.devices.len());
    let mut evidence = vec![Sign::new(Metric::Failures, what)];
    evidence.extend(meter.clone());
    if on || (ended.is_some() && meter.is_none()) {
        evidence.extend(ended.map(|told| Sign::new(Metric::Failures, told)));
        let shown = "their sensors still show power";
        evidence.extend(on.then(|| Sign::new(Metric::PowerDraw, shown)));
        let one = Diagnosis::new(Cause::AgentRestart, place, 0.1, (0, 1), evidence);
        return one.since(onset_ns);
    }
    let checks = (usize::from(meter.is_some()), 1);
    Diagnosis::new(Cause::FeedLoss, place, 0.0, checks, evidence).since(onset_ns)
}

/// Mean of a trace from one time to another.
fn mean(run: &TableRun, column: usize, from_ns: u64, to_ns: u64) -> Option<f64> {
    let trace = &run.traces[column];
    let (first, last) = (from_ns / trace.bin_ns(), to_ns / trace.bin_ns());
    let all = trace.bins();
    let bins = all.iter().skip(first as usize);
    let bins = bins
        .take(last.saturating_sub(first) as usize)
        .filter(|b| b.count > 0);
    let (sum, count) = bins.fold((0.0, 0), |(s, n), b| (s + b.sum, n + b.count));
    (count > 0).then(|| sum / count as f64)
}

fn power_column(run: &TableRun) -> Option<usize> {
    let is = |m| {
        matches!(
            m,
            Metric::PowerDraw | Metric::PowerInstant | Metric::RackDensity
        )
    };
    run.table
        .series
        .iter()
        .position(|s| is(s.metric) && s.kind == SeriesKind::Gauge)
}

/// Before and after an instant; a bin on either side is left out.
fn around(run: &TableRun, at_ns: u64) -> Option<(f64, f64)> {
    let column = power_column(run)?;
    let bin_ns = run.traces[column].bin_ns();
    let before = mean(run, column, 0, at_ns.saturating_sub(bin_ns))?;
    let after = mean(run, column, at_ns.saturating_add(2 * bin_ns), u64::MAX)?;
    Some((before, after))
}

fn drawing(run: &TableRun, at_ns: u64) -> bool {
    around(run, at_ns).is_some_and(|(before, after)| after > DEAD * before)
}

/// The place's own meter, where it fell to nothing.
fn dead_meter(standing: &Standing, groups: &Groups, place: &Place, at_ns: u64) -> Option<Sign> {
    let tables = standing
        .tables()
        .iter()
        .filter(|t| t.table.device.is_none());
    let own = tables.filter(|t| groups.of_meter(&t.table.place) == *place);
    let dead = own
        .filter_map(|t| around(t, at_ns))
        .find(|(before, after)| *after < DEAD * before);
    dead.map(|_| Sign::new(Metric::PowerDraw, "its meter fell to nothing"))
}

fn set_up(standing: &Standing, groups: &Groups) -> Vec<Diagnosis> {
    let unlike = settings::unlike(standing).into_iter();
    let of = |(device, what): (u32, String)| {
        let evidence = vec![Sign::new(Metric::Inventory, what)];
        let place = groups.gpu(device as usize);
        Diagnosis::new(Cause::Settings, place, 0.0, (0, 0), evidence)
    };
    unlike.map(of).collect()
}

/// Nodes whose clock was measured to be off, twice running: one comparison may have waited on its way.
fn clocks(standing: &Standing, groups: &Groups) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    for run in standing.tables() {
        let series = run.table.series.iter().zip(&run.traces);
        // What a clock may be off at most, for its heartbeats are long on their way, is no finding.
        let bounded = run.table.series.iter().any(|s| s.label == AT_LEAST);
        let shows =
            |s: &Series| s.metric == Metric::ClockOffset && (s.label == AT_LEAST || !bounded);
        for (_, trace) in series.filter(|(s, _)| shows(s)) {
            let bins = trace.bins();
            let known = bins.iter().enumerate();
            let known = known.filter_map(|(at, bin)| Some((at as u64, bin.mean()?)));
            let known: Vec<(u64, f64)> = known.collect();
            let off = |w: &&[(u64, f64)]| w.iter().all(|(_, s)| s.abs() > OFFSET_S);
            let Some(first) = known.windows(2).find(off) else {
                continue;
            };
            let (at, off_s) = first[0];
            let what = format!("clock off by {}", human(off_s, Unit::Second));
            let evidence = vec![Sign::new(Metric::ClockOffset, what)];
            let place = groups.of_meter(&run.table.place);
            let one = Diagnosis::new(Cause::ClockSkew, place, 0.0, (0, 0), evidence);
            found.push(one.since(Some(at * trace.bin_ns())));
        }
    }
    found
}

/// Nodes of which nothing was heard for a while, and then again; and runs that were resumed.
fn silent(standing: &Standing, groups: &Groups) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    for event in standing.events() {
        if let What::Resumed { lost_ns } = event.what {
            let place = groups.of_meter(&standing.opened().host.name);
            let what = format!(
                "the run was resumed, {:.0} s were lost",
                lost_ns as f64 / 1e9
            );
            let evidence = vec![Sign::new(Metric::Duty, what)];
            let one = Diagnosis::new(Cause::AgentRestart, place, 0.0, (0, 0), evidence);
            found.push(one.since(Some(event.at_ns)));
        }
    }
    let stops = standing
        .events()
        .iter()
        .any(|e| matches!(e.what, What::Resumed { .. }));
    for group in groups
        .all()
        .iter()
        .filter(|g| g.level == Level::Node && !stops)
    {
        let own = |t: &&TableRun| {
            t.table
                .device
                .is_some_and(|d| group.devices.contains(&(d as usize)))
        };
        let tables = standing.tables().iter().filter(own);
        // What is read more seldom misses nothing in a short silence.
        let fastest_ns = tables.clone().map(|t| t.table.period_ns).min();
        let fast = |t: &&TableRun| Some(t.table.period_ns) == fastest_ns;
        let tables: Vec<&TableRun> = tables.filter(fast).collect();
        if tables.len() < 2 {
            continue;
        }
        let mut common = holes(tables[0]);
        for table in &tables[1..] {
            let other = holes(table);
            common = common.iter().filter_map(|h| overlap(h, &other)).collect();
        }
        if let Some((from, to)) = common.into_iter().max_by_key(|(from, to)| to - from) {
            let what = format!(
                "nothing from {} sensors for {:.0} s, then all again",
                tables.len(),
                (to - from) as f64 / 1e9
            );
            let evidence = vec![Sign::new(Metric::TelemetryGap, what)];
            let one = Diagnosis::new(Cause::AgentRestart, group.place(), 0.0, (0, 0), evidence);
            found.push(one.since(Some(from)));
        }
    }
    found
}

/// Stretches without a value between values, of a table's first gauge.
fn holes(run: &TableRun) -> Vec<(u64, u64)> {
    let least_ns = SILENCE_NS.max(SILENCE_PERIODS.saturating_mul(run.table.period_ns));
    let is = |kind| kind == SeriesKind::Gauge;
    let Some(column) = run.table.series.iter().position(|s| is(s.kind)) else {
        return Vec::new();
    };
    let trace = &run.traces[column];
    let bins = trace.bins();
    let filled = bins.iter().enumerate().filter(|(_, b)| b.count > 0);
    let filled: Vec<u64> = filled.map(|(i, _)| i as u64).collect();
    filled
        .windows(2)
        .map(|w| ((w[0] + 1) * trace.bin_ns(), w[1] * trace.bin_ns()))
        .filter(|(from, to)| to.saturating_sub(*from) >= least_ns)
        .collect()
}

/// The longest overlap of a stretch with others, where it is long enough.
fn overlap(of: &(u64, u64), others: &[(u64, u64)]) -> Option<(u64, u64)> {
    let both = others.iter().map(|o| (of.0.max(o.0), of.1.min(o.1)));
    let long = both.filter(|(from, to)| to.saturating_sub(*from) >= SILENCE_NS);
    long.max_by_key(|(from, to)| to - from)
}
