//! What every run is judged by, whether its profile says so or not: the evidence itself.

use super::Finding;
use super::observe::settings;
use crate::frame::{Ending, FaultKind, Provenance, What};
use crate::plan::{LIBRARY, MEMORY_TESTED, MEMORY_UNTESTED, PlannedDevice, SegmentKind};
use crate::standing::Standing;
use crate::standing::window::Window;
use hallmark_profiles::criterion::{Criterion, Reference, Scope, Side, Statistic};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::quantity::Quantity;
use hallmark_profiles::units::Unit;

/// Criteria that hold unless the profile states its own for the metric.
pub fn criteria(standing: &Standing) -> Vec<Criterion> {
    let stated = &standing.profile().criteria;
    [always(stated), where_seen(standing)].concat()
}

/// At most none of something, over the run.
fn none_of(name: &str, metric: Metric, scope: Scope, side: Side) -> Criterion {
    Criterion {
        name: name.to_owned(),
        metric,
        scope,
        statistic: Statistic::Total,
        relative_to: Reference::Absolute,
        at_least: None,
        at_most: Some(Quantity::new(0.0, Unit::Count)),
        allowed_share: 0.0,
        min_samples: 0,
        phase: None,
        side,
        remedy: None,
    }
}

/// What every run must show.
pub fn always(stated: &[Criterion]) -> Vec<Criterion> {
    let all = [
        Criterion {
            at_least: Some(Quantity::new(1.0, Unit::One)),
            at_most: None,
            statistic: Statistic::Min,
            ..none_of("self-test", Metric::SelfTest, Scope::Gpu, Side::Harness)
        },
        none_of("inventory", Metric::Inventory, Scope::Site, Side::It),
        none_of("failures", Metric::Failures, Scope::Site, Side::It),
        none_of("integrity", Metric::AuditErrors, Scope::Gpu, Side::It),
    ];
    let missing = |c: &Criterion| !stated.iter().any(|s| s.metric == c.metric);
    all.into_iter().filter(missing).collect()
}

/// What a run must show whose sensors could see it.
fn where_seen(standing: &Standing) -> Vec<Criterion> {
    let stated = &standing.profile().criteria;
    let mut all = Vec::new();
    let gives = |m: Metric| {
        let mut series = standing.tables().iter().flat_map(|t| &t.table.series);
        series.any(|s| s.metric == m)
    };
    // Where a sensor counts a device's own errors, they count, asked for or not.
    for (name, metric) in [
        ("xid", Metric::Xid),
        ("ecc", Metric::Ecc),
        ("row-remap", Metric::RowRemap),
    ] {
        if gives(metric) && !stated.iter().any(|s| s.metric == metric) {
            all.push(none_of(name, metric, Scope::Site, Side::It));
        }
    }
    if settings::are_comparable(standing) {
        let mut alike = none_of("settings", Metric::Inventory, Scope::Gpu, Side::It);
        let remedy = "Bring the setting into line with the other devices', or replace the device, and run again.";
        alike.remedy = Some(remedy.to_owned());
        all.push(alike);
    }
    all
}

/// Why the run as a whole shows less than its plan promised; empty when it does not.
pub fn doubts(standing: &Standing) -> Vec<String> {
    let mut doubts = Vec::new();
    match standing.closed().map(|c| &c.ending) {
        Some(Ending::Complete) => {}
        Some(Ending::Stopped { why }) => {
            doubts.push(format!("the run ended before its time: {why}"))
        }
        Some(Ending::SealedAfterCrash) => {
            doubts
                .push("the run was cut off and sealed afterwards with what was on disk".to_owned());
        }
        None => doubts.push("the run has not ended".to_owned()),
    }
    let mut resumes = 0;
    for event in standing.events() {
        match &event.what {
            What::NeverSteady { why } => {
                doubts.push(format!("the warm-up never became steady: {why}"))
            }
            What::Fault {
                kind: FaultKind::Journal,
                detail,
            } => doubts.push(format!("not all that was told is in this record: {detail}")),
            What::Stop { why } if !stopped_by(standing, why) => {
                doubts.push(format!("the run was told to stop: {why}"));
            }
            What::Resumed { .. } => resumes += 1,
            What::AsFound { key, value } if key.starts_with(LIBRARY) => {
                doubts.extend(another_library(standing, event.device, key, value));
            }
            _ => {}
        }
    }
    doubts.extend(settings::changed(standing));
    doubts.extend(corrupted(standing));
    doubts.extend(missummed(standing));
    doubts.extend(unsteady(standing));
    doubts.extend(untested(standing));
    if resumes > 1 {
        doubts.push(format!(
            "the run was resumed {resumes} times; one is allowed"
        ));
    }
    if standing.oddities() > 0 {
        doubts.push(format!(
            "{} rows have times that contradict themselves and were not used",
            standing.oddities()
        ));
    }
    doubts
}

/// A library that the run went on with and was not begun with.
fn another_library(
    standing: &Standing,
    device: Option<u32>,
    key: &str,
    value: &str,
) -> Option<String> {
    let device = standing.opened().plan.devices.get(device? as usize)?;
    let begun = device.facts.iter().find(|(k, _)| k == key);
    let begun = begun.map_or("none", |(_, value)| value.as_str());
    (begun != value).then(|| {
        let (id, library) = (&device.id, key.trim_start_matches(LIBRARY));
        format!("{id} was begun with {library} {begun} and went on with {value}")
    })
}

/// Pairs of nodes between which floats came otherwise than they were sent: the network under all else corrupts what it carries.
fn corrupted(standing: &Standing) -> Option<String> {
    let told = standing.events().iter().filter_map(|e| match &e.what {
        What::Pairs { rows } => Some(rows),
        _ => None,
    });
    let mut wrong = told.flatten().filter(|row| row.wrong > 0);
    let first = wrong.next()?;
    let [one, other] = &first.nodes;
    let more = match wrong.count() {
        0 => String::new(),
        more => format!(", and so in {more} more measurements of pairs"),
    };
    Some(format!(
        "{} floats came otherwise than they were sent between {one} and {other}{more}",
        first.wrong
    ))
}

/// Totals of a sweep that were wrong where no device told of a wrong result.
fn missummed(standing: &Standing) -> Option<String> {
    let told = standing.devices().iter().any(|d| d.mismatches > 0);
    let sizes = standing
        .windows()
        .iter()
        .flat_map(|w| w.group.sweep.sizes.values());
    let wrong = sizes.fold(0, |sum: u64, s| sum.saturating_add(s.wrong));
    (wrong > 0 && !told).then(|| {
        format!(
            "{wrong} elements of a sweep's totals were wrong, and no device told of a wrong result"
        )
    })
}

/// Devices whose free memory was not tested, though the profile asks for it.
fn untested(standing: &Standing) -> Option<String> {
    if !standing.profile().load.memory_test {
        return None;
    }
    let devices = &standing.opened().plan.devices;
    let fact = |d: &PlannedDevice, key: &str| {
        let found = d.facts.iter().find(|(k, _)| k == key);
        found.map(|(_, value)| value.clone())
    };
    let bare = devices.iter().filter(|d| fact(d, MEMORY_TESTED).is_none());
    let told = bare.map(|d| match fact(d, MEMORY_UNTESTED) {
        Some(why) => format!("{} ({why})", d.id),
        None => d.id.clone(),
    });
    let told = told.collect::<Vec<_>>().join(", ");
    (!told.is_empty()).then(|| format!("free memory was not tested: {told}"))
}

/// Whether the run's ending tells this stop already.
fn stopped_by(standing: &Standing, stop: &str) -> bool {
    let ending = standing.closed().map(|c| &c.ending);
    matches!(ending, Some(Ending::Stopped { why }) if why == stop)
}

/// A phase that follows a warm-up which never showed that it was over.
fn unsteady(standing: &Standing) -> Option<String> {
    let windows = standing.windows();
    let warm = |w: &&Window| w.kind == SegmentKind::Warmup;
    let warm_up = windows.iter().rev().find(warm)?;
    let judged = windows
        .iter()
        .any(|w| matches!(w.kind, SegmentKind::Phase(_)) && w.start_ns >= warm_up.start_ns);
    let said = standing.events().iter().any(|e| {
        let ended = matches!(e.what, What::Steady | What::NeverSteady { .. });
        ended && e.at_ns >= warm_up.start_ns
    });
    (judged && !said).then(|| "nothing shows that the warm-up had become steady".to_owned())
}

/// The kinds of provenance, other than measured, that the record rests on.
pub fn unmeasured(standing: &Standing) -> Vec<Provenance> {
    let tables = standing.tables().iter().map(|t| t.table.provenance);
    let devices = standing.opened().plan.devices.iter().map(|d| d.provenance);
    let mut kinds: Vec<_> = tables
        .chain(devices)
        .filter(|p| *p != Provenance::Measured)
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

/// What a finding rests on that was not measured, if anything: its sensors' series and the limit that a sensor told, or else
/// the devices' work; work for energy on both.
pub fn rests_on(standing: &Standing, finding: &Finding) -> Option<Provenance> {
    let criterion = &finding.criterion;
    let (mut sources, of_work) = match criterion.metric {
        Metric::FlopPerJoule => (vec![Metric::Energy, Metric::PowerDraw], true),
        metric => (vec![metric], false),
    };
    let given = |sources: &[Metric]| {
        let tables = standing.tables().iter().map(|t| &t.table);
        let giving = tables.filter(|t| t.series.iter().any(|s| sources.contains(&s.metric)));
        giving.map(|t| t.provenance).collect::<Vec<_>>()
    };
    let by_work = of_work || given(&sources).is_empty();
    if criterion.relative_to == Reference::PowerLimit {
        sources.push(Metric::PowerLimit);
    }
    let devices = standing.opened().plan.devices.iter().map(|d| d.provenance);
    let mut all = given(&sources)
        .into_iter()
        .chain(devices.filter(|_| by_work));
    all.find(|p| *p != Provenance::Measured)
}

/// How a provenance is shouted in a title.
pub const fn shout(provenance: Provenance) -> &'static str {
    match provenance {
        Provenance::Measured => "MEASURED",
        Provenance::Replayed => "REPLAYED",
        Provenance::Simulated => "SIMULATED",
        Provenance::StandIn => "STAND-IN",
    }
}
