//! Invented runs that the views' tests look at: two minutes of a small profile on any number of devices.

use crate::run::Run;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile::BUILT_IN;
use hallmark_profiles::units::{Bytes, Unit};
use hallmark_profiles::workload::{Dtype, Gemm, Parts, StepSpec};
use hallmark_results::frame::*;
use hallmark_results::plan::{Plan, PlannedDevice, Segment, SegmentKind};
use hallmark_results::standing::Standing;

pub const SECOND_NS: u64 = 1_000_000_000;
/// Index of the phase that is on in [`Sample::training`].
pub const TRAIN: usize = 2;

/// A run that is told frame by frame.
pub struct Sample {
    pub standing: Standing,
    pub now_ns: u64,
}

const PARTS: Parts = Parts {
    gemms: true,
    buckets: false,
    optimizer: true,
    memory: false,
    within_node: false,
};

fn segment(name: &str, kind: SegmentKind, seconds: u64, active: usize) -> Segment {
    Segment {
        name: name.to_owned(),
        kind,
        step: 0,
        parts: PARTS,
        duration_ns: seconds * SECOND_NS,
        active,
        pulse: None,
    }
}

fn planned(index: usize, name: &str) -> PlannedDevice {
    PlannedDevice {
        id: format!("gpu{index}"),
        engine: "twin".to_owned(),
        name: name.to_owned(),
        vendor: "invented".to_owned(),
        pci: Some("0000:01:00.0".to_owned()),
        uuid: None,
        driver: "1.0".to_owned(),
        node: "node".to_owned(),
        sku: None,
        software: false,
        cores: Vec::new(),
        memory_bytes: 1 << 30,
        promised: Vec::new(),
        facts: vec![("kernel".to_owned(), "blocked".to_owned())],
        provenance: Provenance::Simulated,
    }
}

pub fn opened(devices: usize, name: &str) -> Frame {
    let text = BUILT_IN[0].1;
    let profile = hallmark_profiles::profile::parse(text, "smoke")
        .unwrap()
        .profile;
    let spec = StepSpec {
        dtype: Dtype::F32,
        gemms: vec![Gemm::new(512, 512, 512)],
        buckets: Vec::new(),
        parameters: 0,
        memory: Bytes(0),
        audit_share: 0.1,
        operand_pairs: 16,
        seed: 1,
        audit_seed: None,
        sweep: None,
    };
    let plan = Plan {
        profile_text: text.to_owned(),
        profile_origin: "smoke".to_owned(),
        profile_digest: hallmark_profiles::profile::digest(text),
        overrides: Vec::new(),
        inventory: None,
        seed: 1,
        devices: (0..devices).map(|i| planned(i, name)).collect(),
        dtype: Dtype::F32,
        steps: vec![spec],
        schedule: vec![
            segment("ramp up 50 %", SegmentKind::RampUp, 2, devices.div_ceil(2)),
            segment("warm-up", SegmentKind::Warmup, 20, devices),
            segment("train", SegmentKind::Phase(3), 100, devices),
            segment("ramp down", SegmentKind::RampDown, 2, devices.div_ceil(2)),
        ],
        warmup: profile.load.warmup.clone(),
        stop_when: profile.load.stop_when.clone(),
        queue_depth: 3,
        sample_period_ns: SECOND_NS / 10,
        block_ns: SECOND_NS,
        transport: String::new(),
        limits: Vec::new(),
    };
    Frame::Opened(Box::new(Opened {
        format_version: FORMAT_VERSION,
        run_id: "20260302-060000".to_owned(),
        hallmark_version: "0.1.0".to_owned(),
        utc_start: "2026-03-02T06:00:00.000Z".to_owned(),
        clock: ClockState {
            synchronised: Some(true),
            max_error_s: Some(0.001),
        },
        host: Host {
            name: "node".to_owned(),
            cores: 8,
            ..Host::default()
        },
        remark: None,
        plan_digest: plan.digest(),
        plan,
    }))
}

impl Sample {
    pub fn new(devices: usize) -> Self {
        Self::named(devices, "Accelerator")
    }

    pub fn named(devices: usize, name: &str) -> Self {
        Self {
            standing: Standing::open(&opened(devices, name)).unwrap(),
            now_ns: 0,
        }
    }

    pub fn push(&mut self, frame: &Frame) -> &mut Self {
        self.standing.push(frame).unwrap();
        self
    }

    pub fn event(&mut self, device: Option<u32>, what: What) -> &mut Self {
        let at_ns = self.now_ns;
        self.push(&Frame::Event(Event {
            at_ns,
            device,
            what,
        }))
    }

    /// A quarter of a second of steps at `rate` FLOP/s on a device, ending at `end_ns`.
    pub fn steps(&mut self, device: u32, end_ns: u64, rate: f64, segment: u32) -> &mut Self {
        let length = SECOND_NS / 4;
        let row = StepRow {
            seq: end_ns / length,
            segment,
            due_ns: end_ns - length,
            start_ns: end_ns - length,
            end_ns,
            flop: rate / 4.0,
            gemms: 10,
            audited: 1,
            ..StepRow::default()
        };
        self.push(&Frame::Steps(Steps {
            device,
            device_clock: true,
            rows: vec![row],
            ops: Vec::new(),
            trials: Vec::new(),
        }))
    }

    /// Runs all devices that `working` names from now on for so many seconds, device 1 a tenth slower than others.
    pub fn run(&mut self, seconds: u64, segment: u32, working: impl Fn(u32) -> bool) -> &mut Self {
        let devices = self.standing.devices().len() as u32;
        for _ in 0..seconds * 4 {
            self.now_ns += SECOND_NS / 4;
            for device in (0..devices).filter(|d| working(*d)) {
                let rate = if device == 1 { 90e12 } else { 100e12 };
                self.steps(device, self.now_ns, rate, segment);
            }
        }
        self
    }

    /// Thirty seconds into the phase.
    pub fn training(devices: usize) -> Self {
        let mut sample = Self::new(devices);
        sample.now_ns = SECOND_NS;
        sample.event(None, What::Segment { index: 0 });
        sample.run(2, 0, |d| (d as usize) < devices.div_ceil(2));
        sample.event(None, What::Segment { index: 1 });
        sample.run(8, 1, |_| true);
        sample.event(None, What::Steady);
        sample.event(
            None,
            What::Segment {
                index: TRAIN as u32,
            },
        );
        sample.run(30, TRAIN as u32, |_| true);
        sample
    }

    /// Declares an accelerator's sensors and gives one reading.
    pub fn sensors(&mut self, device: u32, values: [f64; 5]) -> &mut Self {
        let series = |metric: Metric, kind| Series {
            metric,
            label: String::new(),
            unit: metric.spec().unit,
            kind,
            averaging_ns: None,
            accuracy: None,
        };
        let id = self.standing.tables().len() as u32;
        self.push(&Frame::Table(Table {
            id,
            name: format!("load-{device}"),
            source: "invented".to_owned(),
            provenance: Provenance::Simulated,
            device: Some(device),
            place: "node".to_owned(),
            period_ns: SECOND_NS / 10,
            series: vec![
                series(Metric::PowerDraw, SeriesKind::Gauge),
                series(Metric::TempCore, SeriesKind::Gauge),
                series(Metric::ThermalMargin, SeriesKind::Gauge),
                series(Metric::ClockSm, SeriesKind::Gauge),
                series(Metric::ThrottleFrac, SeriesKind::Mask),
            ],
        }));
        let at_ns = vec![self.now_ns];
        self.push(&Frame::Samples(Samples {
            table: id,
            at_ns,
            columns: values.iter().map(|v| vec![*v]).collect(),
        }))
    }

    /// The view's `current` while the training phase is on.
    pub fn current(&self) -> Option<(usize, u64)> {
        let window = self.standing.windows().last()?;
        let segment = window.segment as usize;
        Some((
            segment,
            window.start_ns + self.standing.opened().plan.schedule[segment].duration_ns,
        ))
    }
}

/// A run at its first segment, for what only a [`Run`] can be given to.
pub fn begun(devices: usize, now_ns: u64) -> Run {
    let standing = Standing::open(&opened(devices, "Accelerator")).unwrap();
    let mut run = Run::new(standing, &[], Vec::new(), 0);
    run.begin(0, now_ns);
    run
}

/// Keeps the unit of every shown column honest.
pub const UNITS: [(Metric, Unit); 4] = [
    (Metric::PowerDraw, Unit::Watt),
    (Metric::TempCore, Unit::Celsius),
    (Metric::ThermalMargin, Unit::Kelvin),
    (Metric::ClockSm, Unit::Hertz),
];
