//! Makes a sealed record of 8 tables × 24 h × 10 Hz × 12 series and measures how fast it is written and read.
//!
//! The values are synthetic and labelled *simulated*; they look like a loaded accelerator's (slow drifts and
//! noise in the sensor's own steps), since constants would flatter every codec. It reads, folds, judges and
//! renders the record, prints one line a figure (wall clock, processor seconds of all threads) and says nothing
//! of whether they are good. Arguments: folder (made, and removed at the end unless `keep` follows), hours [default: 24].

use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Dtype, Parts, StepSpec};
use hallmark_results::frame::{
    ClockState, Closed, Ending, Event, FORMAT_VERSION, Frame, Host, Opened, Provenance, Samples,
    Series, SeriesKind, StepRow, Steps, Table, What,
};
use hallmark_results::plan::{Plan, PlannedDevice, Segment, SegmentKind};
use hallmark_results::report::{self, find};
use hallmark_results::standing::Standing;
use hallmark_results::store::{Record, Story, synthesize};
use hallmark_results::verdict;
use hallmark_tests::stopwatch;
use std::error::Error;
use std::path::Path;

const DEVICES: u32 = 8;
const SECOND_NS: u64 = 1_000_000_000;
const PERIOD_NS: u64 = SECOND_NS / 10;
/// Rows of one generated frame.
const BATCH: u64 = 4096;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments
        .next()
        .ok_or("name a folder to make the record in")?;
    let hours: u64 = arguments.next().map_or(Ok(24), |h| h.parse())?;
    let keep = arguments.next().is_some_and(|a| a == "keep");
    let dir = Path::new(&dir);
    std::fs::create_dir_all(dir)?;
    if !dir.join("seal").exists() {
        let seconds = hours * 3600;
        let (opened, story) = (opened(seconds)?, story(seconds));
        let made = stopwatch::timed("generate and seal", || {
            synthesize(dir, &opened, &story, true, rows(seconds))
        });
        println!("head: {}", made?);
    }
    measure(dir)?;
    if !keep {
        std::fs::remove_dir_all(dir)?;
    }
    Ok(())
}

fn measure(dir: &Path) -> Outcome<()> {
    let record = stopwatch::timed("open (every digest checked)", || Record::open(dir))?;
    let bytes: u64 = record.manifest().files.iter().map(|f| f.bytes).sum();
    println!("size: {:.1} MB", bytes as f64 / 1e6);
    stopwatch::peak("opened");
    let cells = stopwatch::timed("read all frames", || -> Outcome<u64> {
        let mut cells = 0;
        for frame in record.frames() {
            if let Frame::Samples(samples) = frame? {
                cells += (samples.at_ns.len() * samples.columns.len()) as u64;
            }
        }
        Ok(cells)
    })?;
    println!("samples: {:.1} million", cells as f64 / 1e6);
    stopwatch::peak("read");
    stopwatch::timed("open, read, fold, judge and render", || {
        judge_and_render(dir)
    })
}

/// What `hallmark judge` and three times `hallmark report` do to a record, each part timed.
fn judge_and_render(dir: &Path) -> Outcome<()> {
    let record = stopwatch::timed("- open", || Record::open(dir))?;
    let standing = stopwatch::timed("- read and fold", || -> Outcome<Standing> {
        let mut frames = record.frames();
        let mut standing = Standing::open(&frames.next().ok_or("no frame")??)?;
        for frame in frames {
            standing.push(&frame?)?;
        }
        Ok(standing)
    })?;
    println!("rows out of order: {}", standing.oddities());
    stopwatch::peak("folded");
    let verdict = stopwatch::timed("- judge", || verdict::judge(&standing));
    let story = report::Story {
        standing: &standing,
        verdict: &verdict,
        head: Some(record.head()),
        anchored: false,
        place: &dir.display().to_string(),
    };
    for name in ["html", "json", "text"] {
        let format = find(name)?;
        let text = stopwatch::timed(&format!("- render {name}"), || format.write(&story));
        println!("{name}: {:.1} kB", text.len() as f64 / 1e3);
    }
    stopwatch::peak("rendered");
    Ok(())
}

/// A number in 0..1 from a counter.
fn noise(x: u64) -> f64 {
    let a = (x ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let b = (a ^ (a >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((b ^ (b >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

fn catalogue() -> Vec<(Metric, &'static str, SeriesKind)> {
    use SeriesKind::{Counter, Gauge, Mask};
    vec![
        (Metric::PowerDraw, "instant", Gauge),
        (Metric::PowerDraw, "average", Gauge),
        (Metric::TempCore, "", Gauge),
        (Metric::TempCore, "memory", Gauge),
        (Metric::ClockSm, "", Gauge),
        (Metric::ClockMemory, "", Gauge),
        (Metric::CpuLoad, "utilisation", Gauge),
        (Metric::CpuLoad, "memory", Gauge),
        (Metric::Energy, "", Counter),
        (Metric::Xid, "ecc", Counter),
        (Metric::Xid, "replay", Counter),
        (Metric::ClockSm, "reasons", Mask),
    ]
}

/// A reading of series `column` of `device`, rounded to the step in which such sensors report.
fn value(column: usize, device: u64, index: u64) -> f64 {
    let chance = noise(index * 16 + column as u64 + device * 0x1_0000_0001);
    if chance < 1e-5 {
        return f64::NAN;
    }
    let hour = index as f64 / 36_000.0;
    match column {
        0 => (650_000.0 + 60_000.0 * chance + 5_000.0 * hour.sin()).round() / 1e3,
        1 => (680_000.0 + 4_000.0 * chance + 5_000.0 * hour.sin()).round() / 1e3,
        2 => (62.0 + 3.0 * hour.sin() + chance).round(),
        3 => (78.0 + 2.0 * hour.sin() + chance).round(),
        4 => 1e6 * (1_755.0 - 15.0 * (chance * 8.0).floor()),
        5 => 2.619e9,
        6 => (98.0 + 3.0 * chance).floor().min(100.0),
        7 => (70.0 + 4.0 * chance).floor(),
        8 => (index as f64 * 68.0 * 1e3 + chance * 500.0).round() / 1e3,
        9 => (index / 400_000) as f64,
        10 => (index / 90_000) as f64,
        _ => {
            if chance < 0.2 {
                4.0
            } else {
                0.0
            }
        }
    }
}

fn rows(seconds: u64) -> impl Iterator<Item = Frame> {
    let count = seconds * SECOND_NS / PERIOD_NS;
    let samples = move |first: u64, device: u32| {
        let indices = first..count.min(first + BATCH);
        // Dithered by ±10 %, as the sensors' schedule is.
        let at =
            |i: u64| i * PERIOD_NS + PERIOD_NS / 10 + (noise(i + u64::from(device)) * 2e7) as u64;
        let column = |c: usize| {
            // In 32 bits, as the drivers report gauges.
            let narrow = |v: f64| if c < 8 { f64::from(v as f32) } else { v };
            indices
                .clone()
                .map(|i| narrow(value(c, u64::from(device), i)))
                .collect()
        };
        Frame::Samples(Samples {
            table: device,
            at_ns: indices.clone().map(at).collect(),
            columns: (0..12).map(column).collect(),
        })
    };
    let steps = move |second: u64, device: u32| {
        let start_ns = second * SECOND_NS + u64::from(device) * 1000;
        let took = SECOND_NS - 1_000_000 - (noise(start_ns) * 1e6) as u64;
        let row = StepRow {
            seq: second,
            due_ns: start_ns,
            start_ns,
            end_ns: start_ns + took,
            compute_ns: took / 2,
            flop: 4e14,
            gemms: 96,
            audited: 1,
            ..StepRow::default()
        };
        Frame::Steps(Steps {
            device,
            device_clock: true,
            rows: vec![row],
            ops: vec![],
            trials: Vec::new(),
        })
    };
    let all_steps = (0..seconds).flat_map(move |s| (0..DEVICES).map(move |d| steps(s, d)));
    let firsts = (0..count).step_by(BATCH as usize);
    all_steps.chain(firsts.flat_map(move |first| (0..DEVICES).map(move |d| samples(first, d))))
}

fn story(seconds: u64) -> Story {
    let series = |(metric, label, kind): (Metric, &str, SeriesKind)| Series {
        metric,
        label: label.to_owned(),
        unit: metric.spec().unit,
        kind,
        averaging_ns: None,
        accuracy: None,
    };
    let table = |id: u32| Table {
        id,
        name: format!("gpu-{id}"),
        source: "synthetic".to_owned(),
        provenance: Provenance::Simulated,
        device: Some(id),
        place: "node-a".to_owned(),
        period_ns: PERIOD_NS,
        series: catalogue().into_iter().map(series).collect(),
    };
    Story {
        tables: (0..DEVICES).map(table).collect(),
        events: vec![Event {
            at_ns: 0,
            device: None,
            what: What::Segment { index: 0 },
        }],
        closed: Some(Closed {
            at_ns: seconds * SECOND_NS,
            utc_end: "2026-03-02T00:00:00Z".to_owned(),
            clock: ClockState {
                synchronised: Some(true),
                max_error_s: Some(0.001),
            },
            ending: Ending::Complete,
        }),
    }
}

fn opened(seconds: u64) -> Outcome<Opened> {
    let loaded = hallmark_profiles::profile::load("burn-in")?;
    let device = |index: u32| PlannedDevice {
        id: format!("sim{index}"),
        engine: "simulated".to_owned(),
        name: "simulated accelerator".to_owned(),
        vendor: "none".to_owned(),
        pci: None,
        uuid: None,
        driver: String::new(),
        node: "node-a".to_owned(),
        sku: None,
        software: true,
        cores: vec![],
        memory_bytes: 80 << 30,
        promised: Vec::new(),
        facts: vec![],
        provenance: Provenance::Simulated,
    };
    let plan = Plan {
        profile_digest: loaded.digest(),
        profile_text: loaded.text.clone(),
        profile_origin: loaded.origin.clone(),
        overrides: vec![],
        inventory: None,
        seed: 1,
        devices: (0..DEVICES).map(device).collect(),
        dtype: Dtype::F32,
        steps: vec![StepSpec {
            dtype: Dtype::F32,
            gemms: vec![],
            buckets: vec![],
            parameters: 0,
            memory: Bytes(0),
            audit_share: 0.1,
            operand_pairs: 2,
            seed: 1,
            audit_seed: None,
            sweep: None,
        }],
        schedule: vec![Segment {
            name: "burn".to_owned(),
            kind: SegmentKind::Phase(0),
            step: 0,
            parts: Parts {
                gemms: true,
                buckets: false,
                optimizer: false,
                memory: false,
                within_node: false,
            },
            duration_ns: seconds * SECOND_NS,
            active: DEVICES as usize,
            pulse: None,
        }],
        warmup: loaded.profile.load.warmup.clone(),
        stop_when: loaded.profile.load.stop_when.clone(),
        queue_depth: 3,
        sample_period_ns: PERIOD_NS,
        block_ns: 10 * SECOND_NS,
        transport: String::new(),
        limits: vec!["simulated: shows the store's speed and nothing of any machine".to_owned()],
    };
    Ok(Opened {
        format_version: FORMAT_VERSION,
        run_id: "big-record".to_owned(),
        hallmark_version: env!("CARGO_PKG_VERSION").to_owned(),
        utc_start: "2026-03-01T00:00:00Z".to_owned(),
        clock: ClockState {
            synchronised: Some(true),
            max_error_s: Some(0.001),
        },
        host: Host::default(),
        remark: None,
        plan_digest: plan.digest(),
        plan,
    })
}
