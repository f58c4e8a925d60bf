//! A record's verdict, findings, devices and windows as JSON lines, one object a row: what a query joins with the
//! record's own Parquet tables.
//!
//! They say nothing that the record does not; they spare a query the reading of its JSON. Times are nanoseconds since
//! the run's start, values in their unit's base; what is unknown is null, never zero. Rows carry no key of the run:
//! the folder that they lie in has it.

use super::{Story, facts};
use crate::frame::Provenance;
use crate::plan::SegmentKind;
use crate::verdict::Outcome;
use hallmark_profiles::criterion::Scope;
use serde::Serialize;

/// The tables by name, each as JSON lines: `verdicts`, `findings`, `devices`, `windows`.
pub fn tables(story: &Story<'_>) -> [(&'static str, String); 4] {
    [
        ("verdicts", lines([verdict(story)])),
        ("findings", lines(findings(story))),
        ("devices", lines(devices(story))),
        ("windows", lines(windows(story))),
    ]
}

/// Every row is made of text, numbers and nothing, which serialise.
fn lines<T: Serialize>(rows: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for row in rows {
        if let Ok(row) = serde_json::to_string(&row) {
            text.push_str(&row);
            text.push('\n');
        }
    }
    text
}

#[derive(Serialize)]
struct VerdictRow<'a> {
    outcome: Outcome,
    word: &'static str,
    sentence: &'a str,
    confidence: f64,
    accepts_site: bool,
    profile: &'a str,
    profile_digest: &'a str,
    plan_digest: &'a str,
    head: Option<&'a str>,
    utc_start: &'a str,
    utc_end: Option<&'a str>,
    hallmark_version: &'a str,
    devices: usize,
    failed: usize,
    inconclusive: usize,
    passed: usize,
}

fn verdict<'a>(story: &Story<'a>) -> VerdictRow<'a> {
    let (opened, verdict) = (story.standing.opened(), story.verdict);
    VerdictRow {
        outcome: verdict.outcome,
        word: verdict.word(),
        sentence: &verdict.sentence,
        confidence: verdict.confidence,
        accepts_site: verdict.accepts_site,
        profile: &story.standing.profile().name,
        profile_digest: &opened.plan.profile_digest,
        plan_digest: &opened.plan_digest,
        head: story.head,
        utc_start: &opened.utc_start,
        utc_end: story.standing.closed().map(|c| c.utc_end.as_str()),
        hallmark_version: &opened.hallmark_version,
        devices: opened.plan.devices.len(),
        failed: verdict.count(Outcome::Failed),
        inconclusive: verdict.count(Outcome::Inconclusive),
        passed: verdict.count(Outcome::Passed),
    }
}

#[derive(Serialize)]
struct FindingRow<'a> {
    criterion: &'a str,
    metric: String,
    scope: Scope,
    statistic: String,
    phase: &'a str,
    outcome: Outcome,
    at_least: Option<f64>,
    at_most: Option<f64>,
    unit: String,
    place: &'a str,
    device: Option<u32>,
    value: Option<f64>,
    /// One-sided bounds; null where they are open.
    low: Option<f64>,
    high: Option<f64>,
    samples: Option<u64>,
    place_outcome: Outcome,
    why: &'a str,
}

/// One row for each place that a criterion was judged at.
fn findings<'a>(story: &Story<'a>) -> impl Iterator<Item = FindingRow<'a>> {
    story.verdict.findings.iter().flat_map(|finding| {
        finding.places.iter().map(move |seen| {
            let estimate = seen.estimate.as_ref();
            FindingRow {
                criterion: &finding.criterion.name,
                metric: finding.criterion.metric.to_string(),
                scope: finding.criterion.scope,
                statistic: finding.criterion.statistic.to_string(),
                phase: &finding.phase,
                outcome: finding.outcome,
                at_least: finding.at_least,
                at_most: finding.at_most,
                unit: finding.unit.to_string(),
                place: &seen.place,
                device: seen.device,
                value: estimate.map(|e| e.value),
                low: estimate.map(|e| e.low).filter(|b| b.is_finite()),
                high: estimate.map(|e| e.high).filter(|b| b.is_finite()),
                samples: estimate.map(|e| e.samples),
                place_outcome: seen.outcome,
                why: &seen.why,
            }
        })
    })
}

#[derive(Serialize)]
struct DeviceRow<'a> {
    device: usize,
    id: &'a str,
    /// The host that holds it, which in a record of several nodes is not the folder's.
    host: &'a str,
    name: &'a str,
    vendor: &'a str,
    engine: &'a str,
    sku: Option<&'a str>,
    uuid: Option<&'a str>,
    pci: Option<&'a str>,
    rack: Option<&'a str>,
    tray: Option<&'a str>,
    provenance: Provenance,
}

fn devices<'a>(story: &Story<'a>) -> impl Iterator<Item = DeviceRow<'a>> {
    let devices = story.standing.opened().plan.devices.iter().enumerate();
    devices.map(|(index, device)| {
        let fact = |key: &str| {
            let found = device.facts.iter().find(|(known, _)| known == key);
            found.map(|(_, value)| value.as_str())
        };
        DeviceRow {
            device: index,
            id: &device.id,
            host: &device.node,
            name: &device.name,
            vendor: &device.vendor,
            engine: &device.engine,
            sku: device.sku.as_deref(),
            uuid: device.uuid.as_deref(),
            pci: device.pci.as_deref(),
            rack: fact("rack"),
            tray: fact("tray"),
            provenance: device.provenance,
        }
    })
}

#[derive(Serialize)]
struct WindowRow {
    /// Passes through the schedule, in order.
    pass: usize,
    segment: u32,
    name: String,
    kind: &'static str,
    start_ns: u64,
    /// Null where the record ends inside it.
    end_ns: Option<u64>,
    /// Whether the verdict's main figures are of this window.
    judged: bool,
}

fn windows<'a>(story: &'a Story<'a>) -> impl Iterator<Item = WindowRow> + 'a {
    let judged = facts::main_window(story).map(|w| w.start_ns);
    let windows = story.standing.windows().iter().enumerate();
    windows.map(move |(pass, window)| WindowRow {
        pass,
        segment: window.segment,
        name: facts::segment_name(story, window),
        kind: match window.kind {
            SegmentKind::RampUp => "ramp_up",
            SegmentKind::Warmup => "warmup",
            SegmentKind::Phase(_) => "phase",
            SegmentKind::RampDown => "ramp_down",
        },
        start_ns: window.start_ns,
        end_ns: window.end_ns,
        judged: judged == Some(window.start_ns),
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Sample, tell};
    use super::*;

    #[test]
    fn every_row_is_one_line_of_json_and_none_is_lost() {
        tell(&Sample::good(3), |story| {
            for (name, text) in tables(story) {
                let rows: Vec<serde_json::Value> = text
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect();
                let wanted = match name {
                    "verdicts" => 1,
                    "findings" => story.verdict.findings.iter().map(|f| f.places.len()).sum(),
                    "devices" => 3,
                    _ => story.standing.windows().len(),
                };
                assert_eq!(rows.len(), wanted, "{name}");
                assert!(rows.iter().all(serde_json::Value::is_object), "{name}");
            }
        });
    }

    #[test]
    fn exactly_one_window_is_the_judged_one() {
        tell(&Sample::good(2), |story| {
            assert_eq!(windows(story).filter(|w| w.judged).count(), 1);
        });
    }
}
