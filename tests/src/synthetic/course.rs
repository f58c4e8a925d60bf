//! The course of an invented run: segments, steps, all-reduces and samples, in the order of their times.
//!
//! A phase has a fixed number of steps whatever its length, so that three days are judged in a moment.

use super::healthy::noise;
use super::{Moment, Place, Record, SECOND_NS, Told};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::sku::{self, Of};
use hallmark_results::frame::{
    Closed, Event, Frame, OpRow, Provenance, Samples, Series, StepRow, Steps, Table, What,
};
use hallmark_results::plan::{Plan, Segment, SegmentKind};

/// Steps of the main phase, and of each other one.
const STEPS: (u64, u64) = (640, 60);
/// All-reduces of a phase that does nothing else: a p99.9 over operations needs 30,000.
const OPERATIONS: u64 = 32_000;
/// A healthy device reaches this share of its SKU's reference.
const HEALTHY: f64 = 0.985;
/// Bus bandwidth of a healthy all-reduce of eight, B/s.
const BUS: f64 = 475e9;
const GEMMS: u32 = 24;

/// Share of a step of all nodes that one of a node by itself takes.
const BY_NODE: f64 = 0.97;

/// Has the steps of nodes by themselves last nearly as long as those of the main phase.
pub fn time_nodes(plan: &mut Plan, main: usize) {
    let mut all = plan.schedule.iter();
    let Some(main) = all.find(|s| s.kind == SegmentKind::Phase(main)) else {
        return;
    };
    let step_ns = main.duration_ns as f64 / STEPS.0 as f64 * BY_NODE;
    let by_node = plan.schedule.iter_mut().filter(|s| s.parts.within_node);
    by_node.for_each(|s| s.duration_ns = (step_ns * STEPS.1 as f64) as u64);
}

/// Everything after the opening frame.
pub fn frames(record: &Record) -> Vec<Frame> {
    let mut frames = Vec::new();
    let places = places(record);
    for (id, place) in places.iter().enumerate() {
        frames.push(Frame::Table(table(record, id as u32, place)));
    }
    for (device, passed) in record.self_tests.iter().enumerate() {
        if let Some(passed) = *passed {
            let detail = String::new();
            frames.push(event(
                0,
                Some(device as u32),
                What::SelfTest { passed, detail },
            ));
        }
    }
    let (mut start_ns, mut seq) = (0, 0);
    for (index, segment) in record.plan.schedule.iter().enumerate() {
        frames.push(event(
            start_ns,
            None,
            What::Segment {
                index: index as u32,
            },
        ));
        seq = load(record, index, start_ns, seq, &mut frames);
        samples(record, &places, segment, start_ns, &mut frames);
        if segment.kind == SegmentKind::Phase(record.main) {
            let middle = start_ns + segment.duration_ns / 2;
            for (device, what) in &record.events {
                frames.push(event(middle, *device, what.clone()));
            }
        }
        start_ns += segment.duration_ns;
        if segment.kind == SegmentKind::Warmup {
            frames.push(event(start_ns, None, What::Steady));
        }
    }
    if let Some(ending) = record.ending.clone() {
        frames.push(Frame::Closed(Closed {
            at_ns: start_ns,
            utc_end: "2026-01-04T00:00:00Z".to_owned(),
            clock: record.clock_state(),
            ending,
        }));
    }
    frames
}

fn event(at_ns: u64, device: Option<u32>, what: What) -> Frame {
    Frame::Event(Event {
        at_ns,
        device,
        what,
    })
}

/// Steps and all-reduces of one segment; gives the number of the next step.
fn load(
    record: &Record,
    index: usize,
    start_ns: u64,
    first_seq: u64,
    frames: &mut Vec<Frame>,
) -> u64 {
    let segment = &record.plan.schedule[index];
    let count = match segment.kind {
        SegmentKind::Phase(phase) if phase == record.main => STEPS.0,
        _ => STEPS.1,
    };
    let usual_ns = segment.duration_ns / count;
    let end_ns = start_ns + segment.duration_ns;
    let mut all: Vec<Steps> = (0..segment.active as u32)
        .map(|device| Steps {
            device,
            device_clock: true,
            rows: Vec::new(),
            ops: Vec::new(),
            trials: Vec::new(),
        })
        .collect();
    let (mut now_ns, mut seq) = (start_ns, first_seq);
    while now_ns < end_ns {
        let moment = Moment {
            phase: &segment.name,
            progress: (now_ns - start_ns) as f64 / segment.duration_ns as f64,
            index: seq,
        };
        let length = (record.length)(&moment) * (1.0 + 0.002 * noise(seq));
        // The last step of a segment ends with it.
        let mut next_ns = now_ns + (usual_ns as f64 * length) as u64;
        if next_ns + usual_ns / 2 > end_ns {
            next_ns = end_ns;
        }
        for steps in &mut all {
            let device = steps.device;
            let mut row = step(record, index, device, seq, (now_ns, next_ns));
            if record.edits.iter().all(|e| e(&moment, device, &mut row)) {
                steps.rows.push(row);
            }
        }
        (now_ns, seq) = (next_ns, seq + 1);
    }
    if segment.parts.buckets && segment.active > 1 {
        // All ranks report the same operation.
        for steps in &mut all {
            steps.ops = operations(record, index, start_ns);
        }
    }
    frames.extend(all.into_iter().map(Frame::Steps));
    seq
}

fn step(record: &Record, index: usize, device: u32, seq: u64, span_ns: (u64, u64)) -> StepRow {
    let segment = &record.plan.schedule[index];
    let (start_ns, end_ns) = span_ns;
    let length_ns = end_ns - start_ns;
    let mut row = StepRow {
        seq,
        segment: index as u32,
        due_ns: start_ns,
        start_ns,
        end_ns,
        ..StepRow::default()
    };
    let own = noise(seq ^ (u64::from(device) << 40));
    if segment.parts.gemms {
        let name = &record.plan.devices[device as usize].name;
        row.flop = HEALTHY * reference(name) * length_ns as f64 / 1e9 * (1.0 + 0.001 * own);
        row.gemms = GEMMS;
        row.audited = GEMMS / 8;
        row.audited_flop = row.flop / 8.0;
        row.compute_ns = (length_ns as f64 * (0.8 + 0.004 * own)) as u64;
    }
    if segment.parts.memory {
        row.memory_bytes = (3.1e12 * length_ns as f64 / 1e9) as u64;
        row.memory_ns = length_ns;
    }
    row
}

/// FLOP/s that a model is known to reach; that of an H100 where none is known.
fn reference(name: &str) -> f64 {
    let of = Of::metric(Metric::MatmulRate).dtype(hallmark_profiles::workload::Dtype::Bf16);
    let sku = sku::find(name).ok().flatten();
    sku.and_then(|s| s.reference(&of).map(|r| r.value))
        .unwrap_or(794.5e12)
}

fn operations(record: &Record, index: usize, start_ns: u64) -> Vec<OpRow> {
    let segment = &record.plan.schedule[index];
    let buckets = &record.plan.steps[segment.step].buckets;
    let Some(bytes) = buckets.iter().map(|b| b.bytes.0).max() else {
        return Vec::new();
    };
    let count = if segment.parts.gemms {
        STEPS.0
    } else {
        OPERATIONS
    };
    let ranks = segment.active as f64;
    let usual_ns = bytes as f64 * 2.0 * (ranks - 1.0) / ranks / BUS * 1e9;
    let operation = |i: u64| {
        let took = usual_ns * (record.operation)(i) * (1.0 + 0.02 * noise(i));
        let start_ns = start_ns + i * (segment.duration_ns / count);
        took.is_finite().then_some(OpRow {
            seq: i,
            start_ns,
            end_ns: start_ns + took as u64,
            bytes,
        })
    };
    (0..count).filter_map(operation).collect()
}

fn places(record: &Record) -> Vec<Place> {
    let mut places: Vec<Place> = record.told.iter().map(|t| t.place.clone()).collect();
    places.sort();
    places.dedup();
    places
}

fn at<'a>(record: &'a Record, place: &'a Place) -> impl Iterator<Item = &'a Told> {
    record.told.iter().filter(move |t| t.place == *place)
}

/// Four seconds, or a five-hundredth of the main phase where that is less.
pub(super) fn period_ns(record: &Record) -> u64 {
    let main = SegmentKind::Phase(record.main);
    let of_main = record.plan.schedule.iter().find(|s| s.kind == main);
    of_main
        .map_or(SECOND_NS, |s| s.duration_ns / 500)
        .min(4 * SECOND_NS)
}

fn table(record: &Record, id: u32, place: &Place) -> Table {
    let (name, device, place_name) = match place {
        Place::Device(device) => (format!("device-{device}"), Some(*device), "node-1"),
        Place::Hall(name) => (name.clone(), None, name.as_str()),
    };
    let series = at(record, place).map(|told| Series {
        metric: told.metric,
        label: String::new(),
        unit: told.metric.spec().unit,
        kind: told.kind,
        averaging_ns: None,
        accuracy: None,
    });
    Table {
        id,
        name,
        source: "invented".to_owned(),
        provenance: Provenance::Measured,
        device,
        place: place_name.to_owned(),
        period_ns: period_ns(record),
        series: series.collect(),
    }
}

fn samples(
    record: &Record,
    places: &[Place],
    segment: &Segment,
    start_ns: u64,
    frames: &mut Vec<Frame>,
) {
    let period_ns = period_ns(record);
    let count = segment.duration_ns.div_ceil(period_ns);
    let at_ns: Vec<u64> = (0..count).map(|i| start_ns + i * period_ns).collect();
    for (id, place) in places.iter().enumerate() {
        let column = |told: &Told| {
            let value = |at_ns: &u64| {
                (told.value)(&Moment {
                    phase: &segment.name,
                    progress: (at_ns - start_ns) as f64 / segment.duration_ns as f64,
                    index: at_ns / period_ns,
                })
            };
            at_ns.iter().map(value).collect()
        };
        frames.push(Frame::Samples(Samples {
            table: id as u32,
            at_ns: at_ns.clone(),
            columns: at(record, place).map(column).collect(),
        }));
    }
}
