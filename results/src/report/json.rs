//! The report for machines: one JSON object with a versioned schema and a stable order of fields.
//!
//! Times are nanoseconds since the run's start, values in their unit's base; what is unknown is null, never zero.

use super::{Format, Story, facts, sweep, words};
use crate::diagnosis::Diagnosis;
use crate::frame::{ClockState, Event, Host, Provenance};
use crate::plan::Segment;
use crate::standing::window::{Gathered, Window};
use crate::verdict::{Finding, NotMeasured, Outcome, Punch};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::Unit;
use hallmark_profiles::workload::AuditSeed;
use serde::Serialize;
use std::collections::BTreeMap;

/// Version of this schema; grows when a field changes its meaning or goes.
pub const REPORT_VERSION: u32 = 1;

/// The format.
pub struct Json;

impl Format for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn file(&self) -> &'static str {
        "report.json"
    }

    fn write(&self, story: &Story<'_>) -> String {
        let mut text = match serde_json::to_string_pretty(&Report::of(story)) {
            Ok(text) => text,
            // Every map has text keys, so this is not reached; a reader must not take it for a report.
            Err(why) => {
                serde_json::json!({ "report_version": null, "error": why.to_string() }).to_string()
            }
        };
        text.push('\n');
        text
    }
}

#[derive(Serialize)]
struct Report<'a> {
    report_version: u32,
    verdict: VerdictPart<'a>,
    run: RunPart<'a>,
    profile: ProfilePart<'a>,
    plan: PlanPart<'a>,
    integrity: Integrity<'a>,
    findings: &'a [Finding],
    /// The surest first; a finding's `diagnosis` is an index into them.
    diagnoses: Vec<DiagnosisPart<'a>>,
    punch: &'a [Punch],
    devices: Vec<DevicePart<'a>>,
    series: Vec<SeriesPart>,
    /// Absent where no phase swept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sweeps: Vec<SweepPart>,
    not_measured: &'a [NotMeasured],
    power_level: &'static str,
    as_found: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// Everything that happened, in the record's order.
    events: &'a [Event],
}

#[derive(Serialize)]
struct VerdictPart<'a> {
    outcome: Outcome,
    word: &'static str,
    sentence: &'a str,
    failed: usize,
    inconclusive: usize,
    passed: usize,
    confidence: f64,
    accepts_site: bool,
    remarks: &'a [String],
}

#[derive(Serialize)]
struct DiagnosisPart<'a> {
    sentence: String,
    sureness: &'static str,
    #[serde(flatten)]
    diagnosis: &'a Diagnosis,
}

#[derive(Serialize)]
struct RunPart<'a> {
    id: &'a str,
    hallmark_version: &'a str,
    format_version: u32,
    place: &'a str,
    remark: Option<&'a str>,
    utc_start: &'a str,
    utc_end: Option<&'a str>,
    clock_at_start: &'a ClockState,
    clock_at_end: Option<&'a ClockState>,
    ending: String,
    length_ns: u64,
    warmup_ns: u64,
    judged_ns: Option<u64>,
    host: &'a Host,
    /// Rows that were counted but not used because their times contradict themselves.
    odd_rows: u64,
}

#[derive(Serialize)]
struct ProfilePart<'a> {
    name: &'a str,
    origin: &'a str,
    digest: &'a str,
    overrides: &'a [String],
}

#[derive(Serialize)]
struct PlanPart<'a> {
    digest: &'a str,
    seed: u64,
    /// Null in records made when `seed` chose the audits too.
    audit_seed: Option<AuditSeed>,
    dtype: &'static str,
    transport: &'a str,
    queue_depth: u32,
    sample_period_ns: u64,
    block_ns: u64,
    schedule: &'a [Segment],
    limits: &'a [String],
}

#[derive(Serialize)]
struct Integrity<'a> {
    head: Option<&'a str>,
    anchored: bool,
}

#[derive(Serialize)]
struct DevicePart<'a> {
    index: usize,
    id: &'a str,
    name: &'a str,
    vendor: &'a str,
    engine: &'a str,
    driver: &'a str,
    node: &'a str,
    pci: Option<&'a str>,
    uuid: Option<&'a str>,
    sku: Option<&'a str>,
    provenance: Provenance,
    outcome: Outcome,
    found: Option<String>,
    /// FLOP/s, median of the judged blocks.
    matmul_rate: Option<f64>,
    relative_to_peers: Option<f64>,
    /// B/s read and written by copy and triad, median.
    memory_rate: Option<f64>,
    power_mean_w: Option<f64>,
    temp_core_max_c: Option<f64>,
    steps: u64,
    gemms: u64,
    audited: u64,
    mismatches: u64,
    faults: usize,
}

#[derive(Serialize)]
struct SeriesPart {
    metric: Metric,
    label: String,
    unit: Unit,
    source: String,
    provenance: Provenance,
    places: Vec<String>,
    period_ns: u64,
    averaging_ns: Option<u64>,
    accuracy: Option<String>,
    samples: u64,
    missing: u64,
    coverage: Option<f64>,
}

#[derive(Serialize)]
struct SweepPart {
    phase: String,
    ranks: usize,
    /// Operations that not every rank told of in the same way.
    incomplete: u64,
    sizes: Vec<SizePart>,
}

/// Times in s, bandwidths in B/s.
#[derive(Serialize)]
struct SizePart {
    bytes: u64,
    in_place: bool,
    operations: u64,
    warm_up: u64,
    wrong_elements: u64,
    time_mean: Option<f64>,
    algbw: Option<f64>,
    busbw: Option<f64>,
    /// From the due time.
    latency_p50: Option<f64>,
    latency_p99: Option<f64>,
    latency_p999: Option<f64>,
    skew_p50: Option<f64>,
    transfer_p50: Option<f64>,
}

impl<'a> Report<'a> {
    fn of(story: &Story<'a>) -> Report<'a> {
        let Story {
            standing, verdict, ..
        } = *story;
        let plan = &standing.opened().plan;
        Report {
            report_version: REPORT_VERSION,
            verdict: VerdictPart {
                outcome: verdict.outcome,
                word: verdict.word(),
                sentence: &verdict.sentence,
                failed: verdict.count(Outcome::Failed),
                inconclusive: verdict.count(Outcome::Inconclusive),
                passed: verdict.count(Outcome::Passed),
                confidence: verdict.confidence,
                accepts_site: verdict.accepts_site,
                remarks: &verdict.remarks,
            },
            run: run(story),
            profile: ProfilePart {
                name: &standing.profile().name,
                origin: &plan.profile_origin,
                digest: &plan.profile_digest,
                overrides: &plan.overrides,
            },
            plan: PlanPart {
                digest: &standing.opened().plan_digest,
                seed: plan.seed,
                audit_seed: plan.steps.first().and_then(|s| s.audit_seed),
                dtype: plan.dtype.name(),
                transport: &plan.transport,
                queue_depth: plan.queue_depth,
                sample_period_ns: plan.sample_period_ns,
                block_ns: plan.block_ns,
                schedule: &plan.schedule,
                limits: &plan.limits,
            },
            integrity: Integrity {
                head: story.head,
                anchored: story.anchored,
            },
            findings: &verdict.findings,
            diagnoses: verdict.diagnoses.iter().map(diagnosis).collect(),
            punch: &verdict.punch,
            devices: facts::devices(story).into_iter().map(device).collect(),
            series: facts::series(story).into_iter().map(series).collect(),
            sweeps: sweep::windows(story).map(|w| swept(story, w)).collect(),
            not_measured: &verdict.not_measured,
            power_level: facts::power_level(story).0,
            as_found: facts::as_found(story)
                .into_iter()
                .map(|s| (s.key, s.values.into_iter().collect()))
                .collect(),
            events: standing.events(),
        }
    }
}

fn run<'a>(story: &Story<'a>) -> RunPart<'a> {
    let opened = story.standing.opened();
    let closed = story.standing.closed();
    let now = story.standing.last_ns();
    RunPart {
        id: &opened.run_id,
        hallmark_version: &opened.hallmark_version,
        format_version: opened.format_version,
        place: story.place,
        remark: opened.remark.as_deref(),
        utc_start: &opened.utc_start,
        utc_end: closed.map(|c| c.utc_end.as_str()),
        clock_at_start: &opened.clock,
        clock_at_end: closed.map(|c| &c.clock),
        ending: words::ending(story),
        length_ns: now,
        warmup_ns: facts::warmup_ns(story),
        judged_ns: facts::main_window(story).map(|w| w.length_ns(now)),
        host: &opened.host,
        odd_rows: story.standing.oddities(),
    }
}

fn swept(story: &Story<'_>, window: &Window) -> SweepPart {
    let ranks = facts::ranks(story, window);
    let part = |bytes: u64, in_place: bool, way: Option<sweep::Way<'_>>| {
        let way = way?;
        let trials = way.trials;
        let quantile = |of: &Gathered, name: &str| of.get().and_then(|t| sweep::quantile(t, name));
        Some(SizePart {
            bytes,
            in_place,
            operations: trials.whole.count(),
            warm_up: trials.warm_up,
            wrong_elements: trials.wrong,
            time_mean: way.figures.map(|f| f.time_s),
            algbw: way.figures.map(|f| f.algbw),
            busbw: way.figures.and_then(|f| f.busbw),
            latency_p50: quantile(&trials.latency, "p50"),
            latency_p99: quantile(&trials.latency, "p99"),
            latency_p999: quantile(&trials.latency, "p99.9"),
            skew_p50: quantile(&trials.skew, "p50"),
            transfer_p50: quantile(&trials.transfer, "p50"),
        })
    };
    let sizes = sweep::sizes(window, ranks);
    let ways = sizes.iter().flat_map(|size| {
        [
            part(size.bytes, false, size.out),
            part(size.bytes, true, size.within),
        ]
    });
    SweepPart {
        phase: facts::segment_name(story, window),
        ranks,
        incomplete: window.group.sweep.untold(window.end_ns.is_some()),
        sizes: ways.flatten().collect(),
    }
}

fn diagnosis(diagnosis: &Diagnosis) -> DiagnosisPart<'_> {
    DiagnosisPart {
        sentence: diagnosis.sentence(),
        sureness: diagnosis.sureness(),
        diagnosis,
    }
}

fn device(row: facts::DeviceRow<'_>) -> DevicePart<'_> {
    let planned = row.planned;
    DevicePart {
        index: row.index,
        id: &planned.id,
        name: &planned.name,
        vendor: &planned.vendor,
        engine: &planned.engine,
        driver: &planned.driver,
        node: &planned.node,
        pci: planned.pci.as_deref(),
        uuid: planned.uuid.as_deref(),
        sku: planned.sku.as_deref(),
        provenance: planned.provenance,
        outcome: row.outcome,
        found: row.found,
        matmul_rate: row.rate,
        relative_to_peers: row.relative,
        memory_rate: row.memory_rate,
        power_mean_w: row.power_w,
        temp_core_max_c: row.hottest_c,
        steps: row.steps,
        gemms: row.gemms,
        audited: row.audited,
        mismatches: row.mismatches,
        faults: row.faults,
    }
}

fn series(row: facts::SeriesRow) -> SeriesPart {
    SeriesPart {
        metric: row.metric,
        label: row.label,
        unit: row.unit,
        source: row.source,
        provenance: row.provenance,
        places: row.places,
        period_ns: row.period_ns,
        averaging_ns: row.averaging_ns,
        accuracy: row.accuracy,
        samples: row.samples,
        missing: row.missing,
        coverage: row.coverage,
    }
}
