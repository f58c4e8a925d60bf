//! Reads out of a standing what every report shows: the judged window, devices worst first, series, settings.
//!
//! Judges nothing: outcomes are the verdict's, and what has no samples has no value.

use super::Story;
use super::escape::clean;
use super::words;
use crate::frame::{Provenance, SeriesKind, Table, What};
use crate::plan::{PlannedDevice, SegmentKind};
use crate::standing::window::{DeviceWindow, Window};
use crate::verdict::{Finding, Observed, Outcome};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::Unit;
use std::collections::BTreeMap;

/// The window of the profile's main phase, which criteria judge by default.
pub fn main_window<'a>(story: &Story<'a>) -> Option<&'a Window> {
    story
        .standing
        .phase_window(story.standing.profile().load.main_phase())
}

/// Name of the segment that a window passed through.
pub fn segment_name(story: &Story<'_>, window: &Window) -> String {
    let segment = story
        .standing
        .opened()
        .plan
        .schedule
        .get(window.segment as usize);
    segment.map_or_else(String::new, |s| words::spoken(&s.name))
}

/// Time from the start of the first warm-up to the end of the last one, all passes added.
pub fn warmup_ns(story: &Story<'_>) -> u64 {
    let now = story.standing.last_ns();
    let windows = story.standing.windows().iter();
    windows
        .filter(|w| w.kind == SegmentKind::Warmup)
        .map(|w| w.length_ns(now))
        .sum()
}

/// Ranks that reduced into each other when the window began.
pub fn ranks(story: &Story<'_>, window: &Window) -> usize {
    let active = story
        .standing
        .opened()
        .plan
        .schedule
        .get(window.segment as usize)
        .map_or(0, |s| s.active);
    story.standing.members_at(window.start_ns).len().min(active)
}

/// Rates of a device's whole blocks inside a window, FLOP/s.
pub fn block_rates(window: &Window, device: &DeviceWindow, now_ns: u64) -> Vec<f64> {
    let end = window.end_ns.unwrap_or(now_ns).max(window.start_ns);
    let rates = device
        .blocks
        .as_ref()
        .and_then(|b| b.rates(window.start_ns, end).ok());
    // Blocks that could not be kept have no picture; the verdict says why.
    rates.unwrap_or_default()
}

/// The middle value, the mean of the two middle ones; `None` without finite values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    finite.sort_unstable_by(f64::total_cmp);
    let n = finite.len();
    let upper = *finite.get(n / 2)?;
    let lower = *finite.get(n.saturating_sub(1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// A device as the table of devices shows it.
pub struct DeviceRow<'a> {
    pub index: usize,
    pub planned: &'a PlannedDevice,
    pub outcome: Outcome,
    /// The worst thing said of it by a criterion that it did not pass.
    pub found: Option<String>,
    /// Median of the blocks of the judged window, FLOP/s; the window's mean where no block is whole.
    pub rate: Option<f64>,
    /// Against the median of the other devices of its name, 1 = alike; `None` without peers.
    pub relative: Option<f64>,
    /// Median of copy and triad, B/s, of the last window that ran them.
    pub memory_rate: Option<f64>,
    /// Mean over the judged window, W.
    pub power_w: Option<f64>,
    /// Highest over the judged window, °C.
    pub hottest_c: Option<f64>,
    pub steps: u64,
    pub gemms: u64,
    pub audited: u64,
    pub mismatches: u64,
    pub faults: usize,
}

/// All devices, worst first: by outcome, then by rate against peers.
pub fn devices<'a>(story: &Story<'a>) -> Vec<DeviceRow<'a>> {
    let plan = &story.standing.opened().plan;
    let window = main_window(story);
    let now = story.standing.last_ns();
    let rates: Vec<Option<f64>> = (0..plan.devices.len())
        .map(|index| {
            let window = window?;
            let device = window.devices.get(index).filter(|d| d.gemms > 0)?;
            let mean = || device.flop / (window.length_ns(now).max(1) as f64 / 1e9);
            Some(median(&block_rates(window, device, now)).unwrap_or_else(mean))
        })
        .collect();
    let mut rows: Vec<DeviceRow<'a>> = plan
        .devices
        .iter()
        .enumerate()
        .map(|(i, d)| device(story, i, d, &rates))
        .collect();
    rows.sort_by(|a, b| {
        let key = |row: &DeviceRow<'_>| row.relative.unwrap_or(f64::INFINITY);
        b.outcome
            .cmp(&a.outcome)
            .then(key(a).total_cmp(&key(b)))
            .then(a.index.cmp(&b.index))
    });
    rows
}

fn device<'a>(
    story: &Story<'a>,
    index: usize,
    planned: &'a PlannedDevice,
    rates: &[Option<f64>],
) -> DeviceRow<'a> {
    let standing = story.standing;
    let run = standing.devices().get(index);
    let said = observations(story, index);
    // The first of the worst: findings stand in the order of their weight.
    let worst = said.iter().rev().max_by_key(|(_, o)| o.outcome);
    let alike = said
        .iter()
        .filter(|(_, o)| o.outcome != Outcome::Passed)
        .count();
    let found = worst
        .filter(|(_, o)| o.outcome != Outcome::Passed)
        .map(|(f, o)| {
            let said = if o.why.is_empty() {
                let seen = o
                    .estimate
                    .map(|e| words::value(e.value, f.criterion.metric, e.unit));
                format!(
                    "{}, limit {}",
                    seen.unwrap_or_else(|| "no evidence".to_owned()),
                    words::limit(f)
                )
            } else {
                words::beside(&o.place, &o.why)
            };
            let more = match alike {
                0 | 1 => String::new(),
                2 => "; and 1 more gate".to_owned(),
                more => format!("; and {} more gates", more - 1),
            };
            format!("{}: {said}{more}", words::spoken(&f.criterion.name))
        });
    let plan = &standing.opened().plan;
    let peers: Vec<f64> = plan
        .devices
        .iter()
        .zip(rates)
        .enumerate()
        .filter(|(i, (d, _))| *i != index && d.name == planned.name && d.engine == planned.engine)
        .filter_map(|(_, (_, rate))| *rate)
        .collect();
    let rate = rates.get(index).copied().flatten();
    let relative = median(&peers)
        .filter(|m| *m > 0.0)
        .and_then(|m| rate.map(|r| r / m));
    let gauge =
        |metrics: &[Metric], pick: fn(&crate::stats::distribution::Distribution) -> Option<f64>| {
            metrics
                .iter()
                .find_map(|metric| device_gauge(story, index, *metric, pick))
        };
    DeviceRow {
        index,
        planned,
        outcome: worst.map_or(Outcome::Passed, |(_, o)| o.outcome),
        found,
        rate,
        relative,
        memory_rate: standing
            .windows()
            .iter()
            .rev()
            .find_map(|w| w.devices.get(index)?.memory_rate.get()?.quantile(0.5)),
        power_w: gauge(&[Metric::PowerDraw, Metric::PowerInstant], |d| d.mean()),
        hottest_c: gauge(&[Metric::TempCore], |d| d.max()),
        steps: run.map_or(0, |r| r.steps),
        gemms: run.map_or(0, |r| r.gemms),
        audited: run.map_or(0, |r| r.audited),
        mismatches: run.map_or(0, |r| r.mismatches),
        faults: run.map_or(0, |r| r.faults.len()),
    }
}

/// What the verdict says of a device: gate and observation.
fn observations<'a>(story: &Story<'a>, index: usize) -> Vec<(&'a Finding, &'a Observed)> {
    let findings = story.verdict.findings.iter();
    findings
        .flat_map(|f| f.places.iter().map(move |o| (f, o)))
        .filter(|(_, o)| o.device == Some(index as u32))
        .collect()
}

fn device_gauge(
    story: &Story<'_>,
    device: usize,
    metric: Metric,
    pick: fn(&crate::stats::distribution::Distribution) -> Option<f64>,
) -> Option<f64> {
    let window = main_window(story)?;
    let tables = story.standing.tables_of(device as u32);
    tables
        .flat_map(|t| {
            t.table
                .series
                .iter()
                .enumerate()
                .map(move |(column, s)| (t.table.id, column as u32, s))
        })
        .filter(|(_, _, s)| s.metric == metric && s.kind == SeriesKind::Gauge)
        .find_map(|(table, column, _)| pick(window.series(table, column)?.values.get()?))
}

/// Where a device is: node, and what else identifies it.
pub fn whereabouts(device: &PlannedDevice) -> String {
    let mut parts = vec![clean(&device.node)];
    parts.extend(device.pci.iter().map(|pci| format!("PCI {}", clean(pci))));
    parts.extend(device.uuid.as_deref().map(clean));
    let placing = ["hall", "rack", "slot", "tray", "serial"];
    let facts = device
        .facts
        .iter()
        .filter(|(key, _)| placing.contains(&key.to_lowercase().as_str()));
    parts.extend(facts.map(|(key, value)| format!("{} {}", words::spoken(key), clean(value))));
    parts.retain(|p| !p.is_empty());
    parts.join(" · ")
}

/// Site, hall, rack and slot where the device states them, its PCI address else.
pub fn location(device: &PlannedDevice) -> String {
    let known = |key: &&str| {
        let fact = device
            .facts
            .iter()
            .find(|(k, _)| k.eq_ignore_ascii_case(key))?;
        Some(format!("{key} {}", clean(&fact.1)))
    };
    let stated: Vec<String> = ["site", "hall", "rack", "tray", "slot"]
        .iter()
        .filter_map(known)
        .collect();
    match &device.pci {
        _ if !stated.is_empty() => stated.join(", "),
        Some(pci) => format!("PCI {}", clean(pci)),
        None => String::new(),
    }
}

/// Series that differ only in their device, as one row.
pub struct SeriesRow {
    pub metric: Metric,
    pub label: String,
    pub unit: Unit,
    pub kind: SeriesKind,
    pub source: String,
    pub provenance: Provenance,
    pub period_ns: u64,
    pub averaging_ns: Option<u64>,
    pub accuracy: Option<String>,
    /// Device ids or places.
    pub places: Vec<String>,
    /// Valid samples in the judged window, all places.
    pub samples: u64,
    /// Reads in the judged window that gave no value.
    pub missing: u64,
    /// Samples received over expected of the worst place, 0 to 1; `None` without a judged window.
    pub coverage: Option<f64>,
}

/// All series, those of one kind together, in the order in which the record declares them.
pub fn series(story: &Story<'_>) -> Vec<SeriesRow> {
    let mut rows: Vec<SeriesRow> = Vec::new();
    for run in story.standing.tables() {
        for (column, _) in run.table.series.iter().enumerate() {
            let row = series_row(story, &run.table, column);
            let same = rows.iter_mut().find(|r| {
                (
                    r.metric,
                    &r.label,
                    &r.source,
                    r.provenance,
                    r.period_ns,
                    r.averaging_ns,
                    &r.accuracy,
                ) == (
                    row.metric,
                    &row.label,
                    &row.source,
                    row.provenance,
                    row.period_ns,
                    row.averaging_ns,
                    &row.accuracy,
                )
            });
            match same {
                None => rows.push(row),
                Some(known) => {
                    known.places.extend(row.places);
                    known.samples += row.samples;
                    known.missing += row.missing;
                    known.coverage = match (known.coverage, row.coverage) {
                        (Some(a), Some(b)) => Some(a.min(b)),
                        _ => None,
                    };
                }
            }
        }
    }
    rows
}

fn series_row(story: &Story<'_>, table: &Table, column: usize) -> SeriesRow {
    let series = &table.series[column];
    let window = main_window(story);
    let seen = window.and_then(|w| w.series(table.id, column as u32));
    let expected = window
        .map(|w| w.length_ns(story.standing.last_ns()) as f64 / table.period_ns.max(1) as f64);
    let samples = seen.map_or(0, |s| s.valid);
    SeriesRow {
        metric: series.metric,
        label: series.label.clone(),
        unit: series.unit,
        kind: series.kind,
        source: table.source.clone(),
        provenance: table.provenance,
        period_ns: table.period_ns,
        averaging_ns: series.averaging_ns,
        accuracy: series.accuracy.clone(),
        places: vec![owner(story, table)],
        samples,
        missing: seen.map_or(0, |s| s.missing),
        // The period is dithered: a few samples more than expected are no more than full coverage.
        coverage: expected
            .filter(|e| *e >= 1.0)
            .map(|e| (samples as f64 / e).min(1.0)),
    }
}

/// The device's id, or the place that a sensor belongs to.
pub fn owner(story: &Story<'_>, table: &Table) -> String {
    let device = table
        .device
        .and_then(|d| story.standing.opened().plan.devices.get(d as usize));
    device.map_or_else(|| clean(&table.place), |d| clean(&d.id))
}

/// Name of a table for people: what it is and whose.
pub fn table_name(story: &Story<'_>, id: u32) -> String {
    let run = story.standing.tables().get(id as usize);
    run.map_or_else(
        || format!("table {id}"),
        |t| {
            format!(
                "{} of {}",
                words::spoken(&t.table.name),
                owner(story, &t.table)
            )
        },
    )
}

/// A setting as found: its values, each with the devices that have it.
pub struct Setting {
    pub key: String,
    pub values: Vec<(String, Vec<String>)>,
}

/// Settings as found, by key; the value of most devices first.
pub fn as_found(story: &Story<'_>) -> Vec<Setting> {
    let mut keys: BTreeMap<&str, BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    for event in story.standing.events() {
        let What::AsFound { key, value } = &event.what else {
            continue;
        };
        let owner = device_id(story, event.device);
        let owners = keys.entry(key).or_default().entry(value).or_default();
        if !owners.contains(&owner) {
            owners.push(owner);
        }
    }
    let setting = |(key, values): (&str, BTreeMap<&str, Vec<String>>)| {
        let mut values: Vec<_> = values
            .into_iter()
            .map(|(value, owners)| (value.to_owned(), owners))
            .collect();
        values.sort_by_key(|(_, owners)| std::cmp::Reverse(owners.len()));
        Setting {
            key: key.to_owned(),
            values,
        }
    };
    keys.into_iter().map(setting).collect()
}

/// Faults, wrong results and stops, at the first place that had one, in their order; nothing where all went well.
pub fn happened(story: &Story<'_>) -> Option<String> {
    /// Events named before they are counted.
    const NAMED: usize = 3;
    let decisive = |e: &&crate::frame::Event| {
        matches!(
            e.what,
            What::Fault { .. }
                | What::Mismatch { .. }
                | What::Xid { .. }
                | What::Stop { .. }
                | What::NeverSteady { .. }
        )
    };
    let events = || story.standing.events().iter().filter(decisive);
    let device = events().find_map(|e| e.device);
    let first = events().find(|e| device.is_none() || e.device == device)?;
    let there: Vec<_> = events().filter(|e| e.device == first.device).collect();
    let mut said: Vec<String> = there
        .iter()
        .take(NAMED)
        .filter_map(|e| {
            let (kind, _) = words::event(&e.what, |id| table_name(story, id))?;
            Some(format!("{kind} at {}", words::instant(e.at_ns)))
        })
        .collect();
    if there.len() > NAMED {
        said.push(format!("{} more events", there.len() - NAMED));
    }
    let mut others: Vec<_> = events().map(|e| e.device).collect();
    others.sort_unstable();
    others.dedup();
    let more = others.len() - 1;
    let place = device.map_or_else(String::new, |index| {
        let planned = story.standing.opened().plan.devices.get(index as usize);
        let place = planned.map(location).filter(|l| !l.is_empty());
        let place = place.map_or_else(String::new, |l| format!(" ({l})"));
        format!("{}{place}: ", device_id(story, device))
    });
    let rest = match more {
        0 => String::new(),
        1 => "; events at 1 other place".to_owned(),
        more => format!("; events at {more} other places"),
    };
    Some(format!("{place}{}{rest}", said.join(", ")))
}

/// A device's id, or the node's name where an event concerns no device.
pub fn device_id(story: &Story<'_>, device: Option<u32>) -> String {
    let opened = story.standing.opened();
    let planned = device.and_then(|d| opened.plan.devices.get(d as usize));
    planned.map_or_else(|| clean(&opened.host.name), |d| clean(&d.id))
}

/// Which level of the EE HPC WG's methodology the power measurement reaches, and why.
///
/// Source: EE HPC WG, Energy Efficient High Performance Computing Power Measurement Methodology, §3:
/// every level needs a meter upstream of whole nodes; a device's own sensor is none.
pub fn power_level(story: &Story<'_>) -> (&'static str, &'static str) {
    let is_power =
        |m: Metric| matches!(m, Metric::PowerDraw | Metric::PowerInstant | Metric::Energy);
    let mut metered = story
        .standing
        .tables()
        .iter()
        .filter(|t| t.table.series.iter().any(|s| is_power(s.metric)))
        .peekable();
    if metered.peek().is_none() {
        return ("not measured", "no power sensor was read");
    }
    // Sensors inside a node that see one part of it.
    const PARTS: [&str; 5] = ["nvml", "rapl", "powercap", "hwmon", "amdgpu"];
    let upstream = metered.any(|t| {
        let source = t.table.source.to_lowercase();
        t.table.device.is_none() && !PARTS.iter().any(|part| source.contains(part))
    });
    if upstream {
        (
            "EEHPC level 1 at most",
            "a meter of whole nodes was read; which share of the system it covers is not in the record",
        )
    } else {
        (
            "below EEHPC level 1",
            "only sensors inside the devices: attribution, no meter of whole nodes",
        )
    }
}
