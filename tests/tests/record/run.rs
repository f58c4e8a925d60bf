//! A small synthetic run: two devices, three tables, four segments, every kind of frame.

use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{AuditSeed, Dtype, Parts, StepSpec};
use hallmark_results::frame::{
    ClockState, Closed, Ending, Event, FORMAT_VERSION, FaultKind, Frame, Host, OpRow, Opened,
    Provenance, Samples, Series, SeriesKind, StepRow, Steps, Table, TrialRow, What,
};
use hallmark_results::plan::{Plan, PlannedDevice, Segment, SegmentKind};

pub const SECOND_NS: u64 = 1_000_000_000;
/// Length of each segment, s.
const SEGMENT_S: u64 = 5;

fn device(id: &str) -> PlannedDevice {
    PlannedDevice {
        id: id.to_owned(),
        engine: "cpu".to_owned(),
        name: "synthetic".to_owned(),
        vendor: String::new(),
        pci: None,
        uuid: None,
        driver: String::new(),
        node: "node-a".to_owned(),
        sku: None,
        software: true,
        cores: vec![0],
        memory_bytes: 1 << 30,
        promised: Vec::new(),
        facts: vec![("stepping".to_owned(), "7".to_owned())],
        provenance: Provenance::Simulated,
    }
}

fn segment(name: &str, kind: SegmentKind) -> Segment {
    Segment {
        name: name.to_owned(),
        kind,
        step: 0,
        parts: Parts {
            gemms: true,
            buckets: true,
            optimizer: true,
            memory: true,
            within_node: false,
        },
        duration_ns: SEGMENT_S * SECOND_NS,
        active: 2,
        pulse: None,
    }
}

pub fn opened() -> Opened {
    let loaded = hallmark_profiles::profile::load("smoke").unwrap();
    // Without its comments, so that tests that try every byte stay short.
    let plain = loaded
        .text
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty());
    let text: String = plain.map(|l| format!("{l}\n")).collect();
    let plan = Plan {
        profile_digest: hallmark_profiles::profile::digest(&text),
        profile_text: text,
        profile_origin: "smoke".to_owned(),
        overrides: vec![],
        inventory: None,
        seed: 7,
        devices: vec![device("cpu0"), device("cpu1")],
        dtype: Dtype::F32,
        steps: vec![StepSpec {
            dtype: Dtype::F32,
            gemms: vec![],
            buckets: vec![],
            parameters: 1000,
            memory: Bytes(1 << 20),
            audit_share: 0.1,
            operand_pairs: 2,
            seed: u64::MAX,
            audit_seed: Some(AuditSeed(u64::MAX)),
            sweep: None,
        }],
        schedule: vec![
            segment("ramp", SegmentKind::RampUp),
            segment("warm-up", SegmentKind::Warmup),
            segment("train", SegmentKind::Phase(0)),
            segment("down", SegmentKind::RampDown),
        ],
        warmup: loaded.profile.load.warmup.clone(),
        stop_when: loaded.profile.load.stop_when.clone(),
        queue_depth: 3,
        sample_period_ns: SECOND_NS / 10,
        block_ns: SECOND_NS,
        transport: String::new(),
        limits: vec![],
    };
    Opened {
        format_version: FORMAT_VERSION,
        run_id: "run-1".to_owned(),
        hallmark_version: "0.1.0".to_owned(),
        utc_start: "2026-03-01T00:00:00Z".to_owned(),
        clock: ClockState {
            synchronised: Some(true),
            max_error_s: Some(0.1),
        },
        host: Host::default(),
        remark: Some("“rack 7”, upper half".to_owned()),
        plan_digest: plan.digest(),
        plan,
    }
}

fn series(metric: Metric, label: &str, kind: SeriesKind) -> Series {
    Series {
        metric,
        label: label.to_owned(),
        unit: metric.spec().unit,
        kind,
        averaging_ns: None,
        accuracy: Some("±5 W".to_owned()),
    }
}

pub fn table(id: u32, name: &str, device: Option<u32>) -> Table {
    Table {
        id,
        name: name.to_owned(),
        source: "synthetic".to_owned(),
        provenance: Provenance::Simulated,
        device,
        place: "node-a".to_owned(),
        period_ns: SECOND_NS / 10,
        series: vec![
            series(Metric::PowerDraw, "instant", SeriesKind::Gauge),
            series(Metric::TempCore, "", SeriesKind::Gauge),
            series(Metric::Energy, "", SeriesKind::Counter),
            series(Metric::ClockSm, "reasons", SeriesKind::Mask),
        ],
    }
}

/// Numbers that look like chance and are the same everywhere.
fn noise(x: u64) -> f64 {
    let mixed = (x ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

fn samples(table: u32, from: u64, rows: u64) -> Samples {
    let at: Vec<u64> = (0..rows)
        .map(|i| (from + i) * SECOND_NS / 10 + 1 + u64::from(table))
        .collect();
    let value = |f: &dyn Fn(u64) -> f64| -> Vec<f64> { at.iter().map(|t| f(*t)).collect() };
    Samples {
        table,
        columns: vec![
            // Every 7th read fails; the power needs 64 bits, the temperature 32.
            value(&|t| {
                if t / SECOND_NS % 7 == 3 {
                    f64::NAN
                } else {
                    600.0 + 100.0 * noise(t)
                }
            }),
            value(&|t| 40.0 + (t / SECOND_NS) as f64 * 0.5),
            value(&|t| t as f64 * 0.61),
            value(&|t| f64::from((t / SECOND_NS % 4) as u32)),
        ],
        at_ns: at,
    }
}

fn steps(device: u32, second: u64) -> Steps {
    let row = |i: u64| {
        let start_ns = second * SECOND_NS + i * SECOND_NS / 4 + u64::from(device) + 1;
        let took = SECOND_NS / 5 + (noise(start_ns) * 1e7) as u64;
        StepRow {
            seq: second * 4 + i,
            segment: (second / SEGMENT_S) as u32,
            due_ns: start_ns - 1,
            start_ns,
            end_ns: start_ns + took,
            compute_ns: took / 2,
            reduce_ns: took / 4,
            optimizer_ns: took / 8,
            flop: 1e9 / 3.0,
            audited: 1,
            audited_flop: 1e8,
            gemms: 6,
            reduced_bytes: 1 << 22,
            memory_bytes: 1 << 20,
            memory_ns: took / 16,
            skew_ns: 12,
        }
    };
    let rows: Vec<StepRow> = (0..4).map(row).collect();
    let ops = rows.iter().map(|r| OpRow {
        seq: r.seq,
        start_ns: r.start_ns,
        end_ns: r.start_ns + r.reduce_ns,
        bytes: r.reduced_bytes,
    });
    let trials = rows.iter().map(|r| TrialRow {
        seq: r.seq,
        index: (r.seq % 3) as u32,
        bytes: 8 << (r.seq % 4),
        in_place: r.seq % 2 == 1,
        warm_up: r.seq % 5 == 0,
        due_ns: r.start_ns - 1,
        start_ns: r.start_ns,
        arrived_ns: r.start_ns + 1,
        end_ns: r.start_ns + r.reduce_ns,
        wrong: r.seq % 3,
    });
    Steps {
        device,
        device_clock: device == 0,
        ops: ops.collect(),
        trials: trials.collect(),
        rows,
    }
}

fn event(at_ns: u64, device: Option<u32>, what: What) -> Frame {
    Frame::Event(Event {
        at_ns,
        device,
        what,
    })
}

/// All frames of a run of `seconds`, as its journal holds them.
pub fn frames(seconds: u64) -> Vec<Frame> {
    let mut frames = vec![Frame::Opened(Box::new(opened()))];
    frames.push(event(
        0,
        None,
        What::AsFound {
            key: "governor".to_owned(),
            value: "performance".to_owned(),
        },
    ));
    for (id, name, device) in [
        (0, "gpu-0", Some(0)),
        (1, "gpu-1", Some(1)),
        (2, "node", None),
    ] {
        frames.push(Frame::Table(table(id, name, device)));
    }
    for device in [0, 1] {
        frames.push(event(
            0,
            Some(device),
            What::SelfTest {
                passed: true,
                detail: String::new(),
            },
        ));
    }
    for second in 0..seconds {
        let now = second * SECOND_NS;
        if second % SEGMENT_S == 0 {
            frames.push(event(
                now,
                None,
                What::Segment {
                    index: (second / SEGMENT_S % 4) as u32,
                },
            ));
        }
        if second == SEGMENT_S {
            // A resumed run declares its sensors anew.
            frames.push(event(now, None, What::Resumed { lost_ns: 5 }));
            frames.push(Frame::Table(table(1, "gpu-1", Some(1))));
        }
        for device in [0, 1] {
            frames.push(Frame::Steps(steps(device, second)));
            frames.push(Frame::Samples(samples(device, second * 10, 10)));
        }
        frames.push(Frame::Samples(samples(2, second * 10, 10)));
        if second == seconds / 2 {
            let reason = "read failed".to_owned();
            frames.push(event(
                now + 1,
                None,
                What::Gap {
                    table: 2,
                    from_ns: now,
                    reason,
                },
            ));
            let detail = "code 74".to_owned();
            frames.push(event(
                now + 2,
                Some(1),
                What::Fault {
                    kind: FaultKind::Device,
                    detail,
                },
            ));
        }
    }
    frames.push(closed(seconds));
    frames
}

fn closed(seconds: u64) -> Frame {
    Frame::Closed(Closed {
        at_ns: seconds * SECOND_NS,
        utc_end: "2026-03-01T00:01:00Z".to_owned(),
        clock: ClockState {
            synchronised: None,
            max_error_s: None,
        },
        ending: Ending::Complete,
    })
}
