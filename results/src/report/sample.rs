//! An invented run for the tests of the writers: frames through the real fold.

mod verdict;

use super::Story;
use crate::frame::{
    ClockState, Closed, Ending, Event, FaultKind, Frame, Host, OpRow, Opened, Provenance, Samples,
    Series, SeriesKind, StepRow, Steps, Table, What,
};
use crate::plan::{Plan, PlannedDevice, Segment, SegmentKind};
use crate::standing::Standing;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Bucket, Dtype, Gemm, Parts, StepSpec};

pub const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// What the invented run is like.
#[derive(Clone)]
pub struct Sample {
    pub devices: usize,
    /// Length factor of the schedule.
    pub stretch: u64,
    pub provenance: Provenance,
    /// The last device slows down and dies in the judged phase, and a sensor has a hole.
    pub fault: bool,
    /// Goes into every text of the record.
    pub text: String,
    /// No segment, sample, step or end.
    pub empty: bool,
}

impl Sample {
    pub fn good(devices: usize) -> Self {
        Self {
            devices,
            stretch: 1,
            provenance: Provenance::Measured,
            fault: false,
            text: String::new(),
            empty: false,
        }
    }

    /// Sampled more seldom where there are many devices: a thousand of them need not take minutes to test.
    const fn period_ns(&self) -> u64 {
        if self.devices > 64 {
            2_000 * MS
        } else {
            100 * MS
        }
    }

    fn named(&self, text: &str) -> String {
        format!("{text}{}", self.text)
    }

    pub fn standing(&self) -> Standing {
        let mut standing = Standing::open(&Frame::Opened(Box::new(self.opened()))).unwrap();
        for frame in self.frames() {
            standing.push(&frame).unwrap_or_else(|e| panic!("{e}"));
        }
        standing
    }

    fn opened(&self) -> Opened {
        let plan = self.plan();
        Opened {
            format_version: 1,
            run_id: self.named("2026-03-02-northgate"),
            hallmark_version: "0.1.0".to_owned(),
            utc_start: "2026-03-02T06:00:00.250Z".to_owned(),
            clock: ClockState {
                synchronised: Some(true),
                max_error_s: Some(0.0012),
            },
            host: Host {
                name: self.named("northgate-07"),
                os: self.named("Debian GNU/Linux 12"),
                kernel: "6.1.0".to_owned(),
                cpu: "AMD EPYC 9454".to_owned(),
                cores: 48,
                memory_bytes: 1 << 38,
                boot_id: "b".to_owned(),
            },
            remark: Some(self.named("second try after the hose was reseated")),
            plan_digest: plan.digest(),
            plan,
        }
    }

    fn plan(&self) -> Plan {
        let loaded = profile::load("smoke").unwrap();
        let bucket = Bucket {
            bytes: Bytes::mebibytes(4),
            after: 1,
        };
        let step = StepSpec {
            dtype: Dtype::F32,
            gemms: vec![Gemm::new(512, 512, 512), Gemm::new(512, 2048, 512)],
            buckets: vec![bucket; 3],
            parameters: 1 << 20,
            memory: Bytes(0),
            audit_share: 0.1,
            operand_pairs: 16,
            seed: 1,
            audit_seed: None,
            sweep: None,
        };
        Plan {
            profile_digest: profile::digest(&loaded.text),
            profile_text: loaded.text.clone(),
            profile_origin: loaded.origin.clone(),
            overrides: if self.text.is_empty() {
                Vec::new()
            } else {
                vec![self.text.clone()]
            },
            inventory: None,
            seed: 20_260_301,
            devices: (0..self.devices).map(|i| self.device(i)).collect(),
            dtype: Dtype::F32,
            steps: vec![step],
            schedule: self.schedule(),
            warmup: loaded.profile.load.warmup.clone(),
            stop_when: loaded.profile.load.stop_when.clone(),
            queue_depth: 3,
            sample_period_ns: 100 * MS,
            block_ns: SECOND,
            transport: "host shared memory".to_owned(),
            limits: vec![
                self.named("the all-reduce goes over host memory, not over a link between devices"),
            ],
        }
    }

    fn device(&self, index: usize) -> PlannedDevice {
        PlannedDevice {
            id: format!("gpu{index}"),
            engine: self.named("wgpu"),
            name: self.named("NVIDIA H100 80GB HBM3"),
            vendor: "NVIDIA".to_owned(),
            pci: Some(format!("0000:{index:02x}:00.0")),
            uuid: Some(format!("GPU-6f7e0d4a-0000-4000-8000-{index:012}")),
            driver: self.named("580.95"),
            node: "northgate-07".to_owned(),
            sku: Some("H100".to_owned()),
            software: false,
            cores: Vec::new(),
            memory_bytes: 80 << 30,
            promised: Vec::new(),
            facts: vec![
                ("rack".to_owned(), self.named("7")),
                ("slot".to_owned(), index.to_string()),
                ("hall".to_owned(), "2".to_owned()),
            ],
            provenance: self.provenance,
        }
    }

    fn schedule(&self) -> Vec<Segment> {
        let all = Parts {
            gemms: true,
            buckets: true,
            optimizer: true,
            memory: false,
            within_node: false,
        };
        let segment = |name: &str, kind, parts, seconds: u64, active| Segment {
            name: name.to_owned(),
            kind,
            step: 0,
            parts,
            duration_ns: seconds * SECOND * self.stretch,
            active,
            pulse: None,
        };
        let (n, half) = (self.devices, self.devices.div_ceil(2));
        let compute = Parts {
            buckets: false,
            ..all
        };
        let reduce = Parts {
            gemms: false,
            optimizer: false,
            ..all
        };
        let memory = Parts {
            gemms: false,
            buckets: false,
            optimizer: false,
            memory: true,
            within_node: false,
        };
        vec![
            segment("ramp-50", SegmentKind::RampUp, all, 1, half),
            segment("ramp-100", SegmentKind::RampUp, all, 1, n),
            segment("warm-up", SegmentKind::Warmup, all, 8, n),
            segment("compute", SegmentKind::Phase(0), compute, 8, n),
            segment("collective", SegmentKind::Phase(1), reduce, 4, n),
            segment("memory", SegmentKind::Phase(2), memory, 3, n),
            segment("train", SegmentKind::Phase(3), all, 32, n),
            segment("ramp-down", SegmentKind::RampDown, all, 1, half),
        ]
    }

    fn frames(&self) -> Vec<Frame> {
        let mut chance = 7_u64;
        let mut noise = move || {
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (chance >> 40) as f64 / f64::from(1 << 24) - 0.5
        };
        let mut frames = self.tables();
        let setting = |key: &str, value: &str| What::AsFound {
            key: self.named(key),
            value: self.named(value),
        };
        frames.push(event(0, None, setting("driver", "580.95")));
        if self.empty {
            return frames;
        }
        for device in 0..self.devices as u32 {
            let limit = if device == 1 { "600 W" } else { "700 W" };
            frames.push(event(0, Some(device), setting("power_limit", limit)));
            let detail = self.named("the flipped bit was caught");
            frames.push(event(
                5,
                Some(device),
                What::SelfTest {
                    passed: true,
                    detail,
                },
            ));
        }
        let (mut start, mut seq) = (0, 0);
        let schedule = self.schedule();
        let end: u64 = schedule.iter().map(|s| s.duration_ns).sum();
        for (index, segment) in schedule.iter().enumerate() {
            frames.push(event(
                start,
                None,
                What::Segment {
                    index: index as u32,
                },
            ));
            let stop = start + segment.duration_ns;
            let mut now = start;
            while now < stop {
                let crowd = if self.devices > 64 { 8.0 } else { 1.0 };
                let length = crowd
                    * (1.0 + 0.04 * noise().abs() + if noise() > 0.495 { 0.5 } else { 0.0 })
                    * 120e6
                    * self.stretch as f64;
                let next = (now + length as u64).min(stop);
                for device in 0..segment.active {
                    if let Some(row) = self.step(segment, device, seq, now, next, &mut noise) {
                        frames.push(row);
                    }
                }
                (now, seq) = (next, seq + 1);
            }
            start = stop;
        }
        frames.extend(self.samples(end, &mut noise));
        frames.extend(self.faults());
        frames.push(event(
            end,
            None,
            What::Decision {
                what: self.named("warm-up was steady after 8 s"),
            },
        ));
        frames.push(Frame::Closed(Closed {
            at_ns: end,
            utc_end: "2026-03-02T06:00:58Z".to_owned(),
            clock: ClockState {
                synchronised: None,
                max_error_s: None,
            },
            ending: Ending::Complete,
        }));
        frames
    }

    fn faults(&self) -> Vec<Frame> {
        let mut out = Vec::new();
        if !self.fault {
            return out;
        }
        let last = self.devices as u32 - 1;
        let at = 45 * SECOND * self.stretch;
        let gap = What::Gap {
            table: 1,
            from_ns: 30 * SECOND * self.stretch,
            reason: self.named("NVML: GPU is lost"),
        };
        out.push(event(34 * SECOND * self.stretch, Some(0), gap));
        out.push(event(
            at,
            Some(last),
            What::Fault {
                kind: FaultKind::WorkerDied,
                detail: self.named("signal 11"),
            },
        ));
        out.push(event(
            at,
            Some(last),
            What::Mismatch {
                detail: self.named("element 7 of 262144"),
            },
        ));
        out
    }

    fn step(
        &self,
        segment: &Segment,
        device: usize,
        seq: u64,
        start: u64,
        end: u64,
        noise: &mut impl FnMut() -> f64,
    ) -> Option<Frame> {
        let is_last = device + 1 == self.devices;
        let broken = self.fault && is_last && start > 45 * SECOND * self.stretch;
        if broken {
            return None;
        }
        let slow = if self.fault && is_last && start > 36 * SECOND * self.stretch {
            0.82
        } else {
            1.0
        };
        let length = end - start;
        let flop = if segment.parts.gemms {
            6.2e14 * slow * length as f64 / 1e9 * (1.0 - 0.01 * device as f64)
        } else {
            0.0
        };
        let compute_ns = if segment.parts.gemms {
            (length as f64 * (0.8 + 0.02 * noise())) as u64
        } else {
            0
        };
        let ops = if segment.parts.buckets && device == 0 {
            (0..3)
                .map(|_| OpRow {
                    seq,
                    start_ns: start,
                    end_ns: start + ((1.0 + 0.3 * noise()) * 2.2e6) as u64,
                    bytes: 4 << 20,
                })
                .collect()
        } else {
            Vec::new()
        };
        let row = StepRow {
            seq,
            segment: 0,
            due_ns: start,
            start_ns: start + 1_000,
            end_ns: end,
            compute_ns,
            flop,
            gemms: if segment.parts.gemms { 24 } else { 0 },
            audited: if segment.parts.gemms { 3 } else { 0 },
            audited_flop: flop / 8.0,
            memory_bytes: if segment.parts.memory { 4 << 30 } else { 0 },
            memory_ns: if segment.parts.memory { length } else { 0 },
            ..StepRow::default()
        };
        Some(Frame::Steps(Steps {
            device: device as u32,
            device_clock: true,
            rows: vec![row],
            ops,
            trials: Vec::new(),
        }))
    }

    fn tables(&self) -> Vec<Frame> {
        let gauge = |metric: Metric, label: &str, accuracy: Option<&str>| Series {
            metric,
            label: label.to_owned(),
            unit: metric.spec().unit,
            kind: SeriesKind::Gauge,
            averaging_ns: (metric == Metric::PowerDraw).then_some(SECOND),
            accuracy: accuracy.map(|a| self.named(a)),
        };
        let node = Table {
            id: 0,
            name: "cpu".to_owned(),
            source: self.named("/proc/stat"),
            provenance: self.provenance,
            device: None,
            place: self.named("northgate-07"),
            period_ns: self.period_ns(),
            series: vec![gauge(Metric::CpuLoad, "", None)],
        };
        let device = |index: usize| Table {
            id: index as u32 + 1,
            name: format!("nvml-{index}"),
            source: self.named("NVML 13.580.95"),
            provenance: self.provenance,
            device: Some(index as u32),
            place: self.named("northgate-07"),
            period_ns: self.period_ns(),
            series: vec![
                gauge(Metric::PowerDraw, &self.text, Some("±5 W")),
                gauge(Metric::TempCore, "", None),
                gauge(Metric::ClockSm, "", None),
                gauge(Metric::ThrottleFrac, "hw_thermal", None),
                gauge(Metric::PowerCapFrac, "sw_power_cap", None),
            ],
        };
        let all = std::iter::once(node).chain((0..self.devices).map(device));
        all.map(Frame::Table).collect()
    }

    fn samples(&self, end: u64, noise: &mut impl FnMut() -> f64) -> Vec<Frame> {
        let mut frames = Vec::new();
        let period = self.period_ns();
        let times: Vec<u64> = (0..end / period).map(|i| i * period + 40 * MS).collect();
        let hot = |at: u64, device: usize| {
            self.fault && device + 1 == self.devices && at > 36 * SECOND * self.stretch
        };
        for device in 0..self.devices {
            let mut out = Samples {
                table: device as u32 + 1,
                columns: vec![Vec::new(); 5],
                ..Samples::default()
            };
            for &at in &times {
                let in_gap =
                    self.fault && device == 0 && (30..34).contains(&(at / SECOND / self.stretch));
                if in_gap {
                    continue;
                }
                let rise = 1.0 - (-(at as f64) / 8e9 / self.stretch as f64).exp();
                let slow = hot(at, device);
                out.at_ns.push(at);
                let power = 120.0 + 560.0 * rise - if slow { 90.0 } else { 0.0 } + 20.0 * noise();
                let temp =
                    35.0 + 28.0 * rise + device as f64 + if slow { 20.0 } else { 0.0 } + noise();
                out.columns[0].push(power);
                out.columns[1].push(temp);
                out.columns[2].push(if slow { 1.46e9 } else { 1.665e9 } + 1e7 * noise());
                out.columns[3].push(if slow { 0.4 + 0.3 * noise() } else { 0.0 });
                out.columns[4].push(0.3 + 0.1 * noise());
            }
            frames.push(Frame::Samples(out));
        }
        let load: Vec<f64> = times.iter().map(|_| 40.0 + 10.0 * noise()).collect();
        frames.push(Frame::Samples(Samples {
            table: 0,
            at_ns: times,
            columns: vec![load],
        }));
        frames
    }
}

fn event(at_ns: u64, device: Option<u32>, what: What) -> Frame {
    Frame::Event(Event {
        at_ns,
        device,
        what,
    })
}

/// Calls `told` with the story of a sample.
pub fn tell<T>(sample: &Sample, told: impl FnOnce(&Story<'_>) -> T) -> T {
    let standing = sample.standing();
    let verdict = sample.verdict();
    told(&Story {
        standing: &standing,
        verdict: &verdict,
        head: Some("e94050ae90a44b0ad6020dca9945a34d28dd6a2660100533365bc641ef61bf9c"),
        anchored: false,
        place: "runs/2026-03-02-northgate",
    })
}
