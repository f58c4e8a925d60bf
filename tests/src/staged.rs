//! Invented runs for tests of reports: the frames of one node or of a whole hall, through the real fold and judge.
//!
//! Nothing here was measured. A record that is not meant to show how a measured one looks says that it is
//! simulated; the others say in their remark that they are invented.

mod course;

use hallmark_profiles::profile;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Bucket, Dtype, Gemm, Parts, StepSpec};
use hallmark_results::frame::{
    ClockState, Closed, Ending, FORMAT_VERSION, Frame, Host, Opened, Provenance,
};
use hallmark_results::plan::{Plan, PlannedDevice, Segment, SegmentKind};
use hallmark_results::report::{self, Story};
use hallmark_results::standing::Standing;
use hallmark_results::store::{JournalWriter, seal};
use hallmark_results::verdict::judge;
use std::path::Path;

pub const SECOND_NS: u64 = 1_000_000_000;
/// Devices of one node.
const NODE: usize = 8;

/// What happens in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tale {
    /// Nothing: every gate holds.
    Good,
    /// The last device overheats, slows down, returns a wrong result and dies.
    Broken,
    /// The warm-up never becomes steady, a sensor is silent for a while, and one device's rate is not settled.
    Unshown,
}

/// An invented run.
#[derive(Clone, Debug)]
pub struct Invented {
    pub devices: usize,
    pub tale: Tale,
    pub provenance: Provenance,
    /// Goes into every text of the record.
    pub text: String,
    pub remark: String,
}

/// What `smoke` judges, and the sensors of a GPU beside it.
fn profile_text() -> String {
    let smoke = profile::BUILT_IN
        .iter()
        .find(|(name, _)| *name == "smoke")
        .expect("smoke is built in");
    let text = smoke
        .1
        .replace("name = \"smoke\"", "name = \"node-check\"")
        .replace("dtype = [\"f32\"]", "dtype = [\"bf16\"]")
        .replace(
            "metrics = [\"cpu_load\"]",
            "metrics = [\"cpu_load\", \"power_draw\", \"temp_core\", \"clock_sm\", \"throttle_frac\", \"power_cap_frac\"]",
        );
    text + r#"
[[criterion]]
name = "throughput"
metric = "matmul_rate"
scope = "gpu"
statistic = "median"
relative_to = "peer_median"
at_least = "95 %"
remedy = "Retest the device alone; compare its clocks, power limit and temperature with its peers'."

[[criterion]]
name = "throttling"
metric = "throttle_frac"
scope = "gpu"
statistic = "max"
at_most = "1 %"
side = "hall"
remedy = "Look at coolant supply, flow and the cold plate of the devices named."

[[criterion]]
name = "core-temperature"
metric = "temp_core"
scope = "gpu"
statistic = "max"
at_most = "85 °C"
side = "hall"
remedy = "Look at the cooling of the device named."
"#
}

impl Invented {
    /// Looks like a measured run; the remark says what it is.
    #[must_use]
    pub fn new(devices: usize, tale: Tale) -> Self {
        Self {
            devices,
            tale,
            provenance: Provenance::Measured,
            text: String::new(),
            remark: "invented for a test, no result of any hardware".to_owned(),
        }
    }

    /// As [`Invented::new`], and says in every title that it is simulated.
    #[must_use]
    pub fn simulated(devices: usize, tale: Tale) -> Self {
        Self {
            provenance: Provenance::Simulated,
            ..Self::new(devices, tale)
        }
    }

    fn named(&self, text: &str) -> String {
        format!("{text}{}", self.text)
    }

    /// The report in a format, as the program writes it.
    ///
    /// # Panics
    /// The frames are none that a run can have written, or there is no such format.
    #[must_use]
    pub fn report(&self, format: &str) -> String {
        let frames = self.frames();
        let mut standing = Standing::open(&frames[0]).unwrap_or_else(|e| panic!("{e}"));
        for frame in &frames[1..] {
            standing.push(frame).unwrap_or_else(|e| panic!("{e}"));
        }
        let verdict = judge(&standing);
        let format = report::find(format).unwrap_or_else(|e| panic!("{e}"));
        format.write(&Story {
            standing: &standing,
            verdict: &verdict,
            head: Some("e94050ae90a44b0ad6020dca9945a34d28dd6a2660100533365bc641ef61bf9c"),
            anchored: false,
            place: "runs/20260302-060000-node-check",
        })
    }

    /// Writes the record into a folder and seals it; returns the chain's head.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn record(&self, folder: &Path) -> String {
        let mut journal = JournalWriter::create(folder).unwrap_or_else(|e| panic!("{e}"));
        for frame in self.frames() {
            journal.append(&frame).unwrap_or_else(|e| panic!("{e}"));
        }
        journal.close().unwrap_or_else(|e| panic!("{e}"));
        seal(folder).unwrap_or_else(|e| panic!("{e}")).head
    }

    /// All frames, as a journal holds them.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        let mut frames = vec![Frame::Opened(Box::new(self.opened()))];
        frames.extend(self.course());
        let seconds = self.end_ns() / SECOND_NS;
        frames.push(Frame::Closed(Closed {
            at_ns: self.end_ns(),
            utc_end: format!("2026-03-02T06:{:02}:{:02}Z", seconds / 60, seconds % 60),
            clock: ClockState {
                synchronised: Some(true),
                max_error_s: Some(0.0011),
            },
            ending: Ending::Complete,
        }));
        frames
    }

    /// The run's length.
    fn end_ns(&self) -> u64 {
        self.schedule().iter().map(|s| s.duration_ns).sum()
    }

    fn opened(&self) -> Opened {
        let plan = self.plan();
        Opened {
            format_version: FORMAT_VERSION,
            run_id: self.named("20260302-060000-node-check"),
            hallmark_version: "0.1.0".to_owned(),
            utc_start: "2026-03-02T06:00:00.250Z".to_owned(),
            clock: ClockState {
                synchronised: Some(true),
                max_error_s: Some(0.0012),
            },
            host: Host {
                name: self.named("northgate-07"),
                os: self.named("Debian GNU/Linux 12 (bookworm)"),
                kernel: "6.1.0-30-amd64".to_owned(),
                cpu: self.named("AMD EPYC 9454 48-Core Processor"),
                cores: 48,
                memory_bytes: 1 << 40,
                boot_id: "b".to_owned(),
            },
            remark: Some(self.named(&self.remark)),
            plan_digest: plan.digest(),
            plan,
        }
    }

    fn plan(&self) -> Plan {
        let text = profile_text();
        let loaded =
            profile::parse(&text, "profiles/node-check.toml").unwrap_or_else(|e| panic!("{e}"));
        let bucket = Bucket {
            bytes: Bytes::mebibytes(25),
            after: 1,
        };
        let step = StepSpec {
            dtype: Dtype::Bf16,
            gemms: vec![
                Gemm::new(4096, 12_288, 4096),
                Gemm::new(4096, 16_384, 4096),
                Gemm::new(4096, 4096, 16_384),
            ],
            buckets: vec![bucket; 3],
            parameters: 1 << 20,
            memory: Bytes(0),
            audit_share: 0.1,
            operand_pairs: 16,
            seed: 20_260_301,
            audit_seed: None,
            sweep: None,
        };
        let load = &loaded.profile.load;
        Plan {
            inventory: None,
            profile_digest: profile::digest(&text),
            profile_origin: self.named(&loaded.origin),
            overrides: if self.text.is_empty() {
                Vec::new()
            } else {
                vec![self.text.clone()]
            },
            seed: 20_260_301,
            devices: (0..self.devices).map(|i| self.device(i)).collect(),
            dtype: Dtype::Bf16,
            steps: vec![step],
            schedule: self.schedule(),
            warmup: load.warmup.clone(),
            stop_when: load.stop_when.clone(),
            queue_depth: 3,
            sample_period_ns: SECOND_NS / 10,
            block_ns: SECOND_NS,
            transport: "host shared memory".to_owned(),
            limits: vec![
                self.named("the all-reduce goes over host memory, not over a link between devices"),
            ],
            profile_text: text,
        }
    }

    fn node(&self, device: usize) -> String {
        self.named(&format!("northgate-{:02}", 7 + device / NODE))
    }

    fn device(&self, index: usize) -> PlannedDevice {
        PlannedDevice {
            id: format!("gpu{index}"),
            engine: self.named("wgpu"),
            name: self.named("NVIDIA H100 80GB HBM3"),
            vendor: "NVIDIA".to_owned(),
            pci: Some(format!("0000:{:02x}:00.0", 0x19 + index % NODE * 0x11)),
            uuid: Some(format!("GPU-6f7e0d4a-0000-4000-8000-{index:012}")),
            driver: self.named("580.95.05"),
            node: self.node(index),
            sku: Some("H100".to_owned()),
            software: false,
            cores: Vec::new(),
            memory_bytes: 80 << 30,
            promised: Vec::new(),
            facts: vec![
                ("hall".to_owned(), "2".to_owned()),
                ("rack".to_owned(), self.named(&(7 + index / 32).to_string())),
                ("slot".to_owned(), (index % 32).to_string()),
            ],
            provenance: self.provenance,
        }
    }

    /// As `smoke` has it, with a warm-up that was steady early.
    fn schedule(&self) -> Vec<Segment> {
        let all = Parts {
            gemms: true,
            buckets: true,
            optimizer: true,
            memory: false,
            within_node: false,
        };
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
        let segment = |name: &str, kind, parts, seconds: u64, active| Segment {
            name: name.to_owned(),
            kind,
            step: 0,
            parts,
            duration_ns: seconds * SECOND_NS,
            active,
            pulse: None,
        };
        let (n, half) = (self.devices, self.devices.div_ceil(2));
        vec![
            segment("ramp 50 %", SegmentKind::RampUp, compute, 1, half),
            segment("warm-up", SegmentKind::Warmup, all, 9, n),
            segment("compute", SegmentKind::Phase(0), compute, 8, n),
            segment("collective", SegmentKind::Phase(1), reduce, 4, n),
            segment("memory", SegmentKind::Phase(2), memory, 3, n),
            segment("train", SegmentKind::Phase(3), all, 32, n),
            segment("ramp 50 %", SegmentKind::RampDown, compute, 1, half),
        ]
    }
}
