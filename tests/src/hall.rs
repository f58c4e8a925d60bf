//! Invented halls to try the diagnosis on: racks of trays of GPUs with meters, whose readings hang together.
//!
//! A change is made to the *state* of a device or of the hall (a cold plate, a cap, a flow), and clocks, powers,
//! temperatures and rates follow by a few lines of physics with slow noise of their own; or to what a sensor tells.
//! The constants are invented, the frames go through the real fold, and nothing here is a result.

mod course;

use hallmark::plan::{self, Settings};
use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::profile;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::Dtype;
use hallmark_results::diagnosis::{Cause, Diagnosis, diagnose};
use hallmark_results::frame::{Event, FaultKind, Frame, What};
use hallmark_results::plan::{Plan, SegmentKind};
use hallmark_results::standing::Standing;
use hallmark_results::verdict::{Verdict, judge};
use std::rc::Rc;

pub const SECOND_NS: u64 = 1_000_000_000;
/// The rated power limit, W.
pub const RATED_W: f64 = 700.0;

const PROFILE: &str = r#"
schema_version = 1
name = "invented-hall"
summary = "Training steps on an invented hall; accepts no site."
accepts_site = false
seed = 1

[load]
dtype = ["bf16"]
model = { hidden = 4096, ffn = 16384, tokens = 4096, layers = 2 }
memory = "1 GiB"
bucket = "25 MiB"
queue_depth = 3
operand_pairs = 16
audit_share = 0.1
transients = true

[load.ramp]
levels = [1.0]
hold = "1 s"

[load.warmup]
least = "1 min"
limit = "2 min"
window = "1 min"
rate_tolerance = 0.05
temperature_tolerance = "6 K"

[[load.phase]]
name = "train"
pattern = "training"
mode = "overlapped"
duration = "20 min"

[telemetry]
period = "2 s"
block = "10 s"
metrics = ["power_draw", "temp_core", "flow"]

[[criterion]]
name = "throughput"
metric = "matmul_rate"
scope = "gpu"
statistic = "median"
relative_to = "peer_median"
at_least = "97 %"

[[criterion]]
name = "core-temperature"
metric = "temp_core"
scope = "gpu"
statistic = "median"
at_most = "66 °C"
side = "hall"

[[criterion]]
name = "coolant-flow"
metric = "flow"
scope = "cdu"
statistic = "median"
at_least = "100 L/min"
side = "hall"

[[criterion]]
name = "efficiency"
metric = "flop_per_joule"
scope = "site"
statistic = "total"
at_least = "1 GFLOP/J"
"#;
/// What judges the flow by the power that it carries away.
const FLOW_BY_POWER: &str = r#"
[[criterion]]
name = "flow-by-power"
metric = "flow_per_kw"
scope = "cdu"
statistic = "median"
at_least = "2 L/min/kW"
side = "hall"
"#;
/// A phase of another load before the one that counts.
const BEFORE: &str = r#"
[[load.phase]]
name = "collective"
pattern = "training"
mode = "collective_only"
duration = "5 min"
"#;

/// One device at one time: what it is like, before its sensors tell of it.
#[derive(Clone, Debug)]
pub struct State {
    pub device: usize,
    pub rack: usize,
    /// Within its rack.
    pub tray: usize,
    /// Seconds since the training phase began; negative before it.
    pub t_s: f64,
    /// That phase's length.
    pub of_s: f64,
    /// Rate at a given clock, as a multiple of its kind's.
    pub quality: f64,
    pub cap_w: f64,
    /// Clock as a multiple of what power and heat allow.
    pub clock: f64,
    /// Junction to coolant, K/W.
    pub r_th: f64,
    /// Coolant of its branch as a multiple of the design's.
    pub flow: f64,
    /// Coolant supply of its CDU, °C.
    pub supply_c: f64,
    /// Power that its work needs at full clock, W.
    pub needs_w: f64,
    pub brake: bool,
    /// Memory rate as a multiple of its kind's.
    pub memory: f64,
    /// Time of a step outside kernels, s.
    pub outside_s: f64,
    /// It is on the bus.
    pub alive: bool,
    /// Its node's telemetry arrives.
    pub heard: bool,
}

/// What the sensors of a device tell, in the order of its table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Told {
    pub power: f64,
    pub core: f64,
    pub memory: f64,
    pub clock: f64,
    pub thermal: f64,
    pub brake: f64,
    pub capped: f64,
    pub corrected: f64,
    pub remapped: f64,
    pub flaps: f64,
}

/// What the hall's meters tell: supply, flow, pump, dew margin of the CDU, power of each rack and of the feeder.
#[derive(Clone, Debug)]
pub struct Meters {
    pub t_s: f64,
    pub of_s: f64,
    pub supply: f64,
    pub flow: f64,
    pub pump: f64,
    pub dew: f64,
    pub racks: Vec<f64>,
    pub feeder: f64,
}

type Change = Rc<dyn Fn(&mut State)>;
type Retell = Rc<dyn Fn(&State, &mut Told)>;
type Meter = Rc<dyn Fn(&mut Meters)>;

/// A hall and what happens in it.
#[derive(Clone)]
pub struct Hall {
    racks: usize,
    trays: usize,
    gpus: usize,
    minutes: f64,
    tick_s: f64,
    seed: u64,
    /// A phase of all-reduces alone goes before the training.
    collective_first: bool,
    /// The CDU tells its flow for each kilowatt too, and is judged by it.
    flow_by_power: bool,
    /// All devices are shares of the processors of one node.
    one_processor: bool,
    /// Spread of the devices' quality.
    sigma: f64,
    changes: Vec<Change>,
    retells: Vec<Retell>,
    meters: Vec<Meter>,
    /// Time of an all-reduce as a multiple of the usual, by seconds and number.
    operation: Rc<dyn Fn(f64, u64) -> f64>,
    events: Vec<(f64, Option<u32>, What)>,
}

/// Two racks of two trays of four GPUs, for 20 minutes.
#[must_use]
pub fn hall() -> Hall {
    of(2, 2, 4)
}

/// So many racks of so many trays of so many GPUs; a tray is a node, one CDU and one feeder serve all.
#[must_use]
pub fn of(racks: usize, trays: usize, gpus: usize) -> Hall {
    Hall {
        racks,
        trays,
        gpus,
        minutes: 20.0,
        tick_s: 4.0,
        seed: 1,
        collective_first: false,
        flow_by_power: false,
        one_processor: false,
        sigma: 0.015,
        changes: Vec::new(),
        retells: Vec::new(),
        meters: Vec::new(),
        operation: Rc::new(|_, _| 1.0),
        events: Vec::new(),
    }
}

impl Hall {
    /// Another draw of all chance.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Five minutes of all-reduces alone go before the training; what changes with the load is for the test to say.
    #[must_use]
    pub const fn after_collectives(mut self) -> Self {
        self.collective_first = true;
        self
    }

    /// Its devices are shares of the processors of one node, which sum in its memory.
    #[must_use]
    pub const fn of_one_processor(mut self) -> Self {
        self.one_processor = true;
        self
    }

    /// The CDU tells its flow for each kilowatt too, and is judged by it: a limit that it holds by far.
    #[must_use]
    pub const fn by_flow_and_power(mut self) -> Self {
        self.flow_by_power = true;
        self
    }

    /// Length of the judged phase and time between two rows.
    #[must_use]
    pub const fn lasting(mut self, minutes: f64, tick_s: f64) -> Self {
        (self.minutes, self.tick_s) = (minutes, tick_s);
        self
    }

    /// Changes the state of each device at each time.
    #[must_use]
    pub fn state(mut self, change: impl Fn(&mut State) + 'static) -> Self {
        self.changes.push(Rc::new(change));
        self
    }

    /// Changes what the sensors of a device tell.
    #[must_use]
    pub fn told(mut self, retell: impl Fn(&State, &mut Told) + 'static) -> Self {
        self.retells.push(Rc::new(retell));
        self
    }

    /// Changes what the hall's meters tell.
    #[must_use]
    pub fn meters(mut self, meter: impl Fn(&mut Meters) + 'static) -> Self {
        self.meters.push(Rc::new(meter));
        self
    }

    /// Time of an all-reduce as a multiple of the usual, by seconds since the phase began and number.
    #[must_use]
    pub fn operations(mut self, factor: impl Fn(f64, u64) -> f64 + 'static) -> Self {
        self.operation = Rc::new(factor);
        self
    }

    /// Something that happens so many seconds into the judged phase.
    #[must_use]
    pub fn event(mut self, t_s: f64, device: Option<u32>, what: What) -> Self {
        self.events.push((t_s, device, what));
        self
    }

    #[must_use]
    pub fn fault(self, t_s: f64, device: u32, kind: FaultKind, detail: &str) -> Self {
        let detail = detail.to_owned();
        self.event(t_s, Some(device), What::Fault { kind, detail })
    }

    #[must_use]
    pub const fn devices(&self) -> usize {
        self.racks * self.trays * self.gpus
    }

    fn plan(&self) -> Plan {
        let mut text = PROFILE.to_owned();
        if self.flow_by_power {
            text = text.replace("\"flow\"]", "\"flow\", \"flow_per_kw\"]");
            text.push_str(FLOW_BY_POWER);
        }
        if self.collective_first {
            let train = text.find("[[load.phase]]").unwrap_or(0);
            text.insert_str(train, BEFORE);
        }
        let loaded = profile::parse(&text, "invented-hall.toml").unwrap_or_else(|e| panic!("{e}"));
        let info = |index: usize| DeviceInfo {
            id: format!("gpu{index}"),
            engine: "synthetic".to_owned(),
            name: crate::synthetic::H100.to_owned(),
            vendor: String::new(),
            pci: None,
            uuid: None,
            driver: String::new(),
            memory: Bytes::gibibytes(400),
            dtypes: vec![Dtype::F32, Dtype::Bf16],
            software: false,
            cores: Vec::new(),
            facts: Vec::new(),
        };
        let infos: Vec<DeviceInfo> = (0..self.devices()).map(info).collect();
        let settings = Settings {
            node: "node-1".to_owned(),
            expect_devices: Some(self.devices() as u32),
            ..Settings::default()
        };
        let mut plan = plan::make(&loaded, &infos, &settings).unwrap_or_else(|e| panic!("{e}"));
        "nccl, invented".clone_into(&mut plan.transport);
        for (index, device) in plan.devices.iter_mut().enumerate() {
            let tray = index / self.gpus;
            let fact = |key: &str, value: String| (key.to_owned(), value);
            let node = if self.one_processor { 0 } else { tray };
            device.node = format!("node-{node}");
            device.software = self.one_processor;
            device.facts.extend([
                fact("tray", (tray % self.trays).to_string()),
                fact("rack", (tray / self.trays).to_string()),
                fact("cdu", "cdu-1".to_owned()),
                fact("feeder", "feeder-1".to_owned()),
            ]);
        }
        // No more often than its invented sensors are read.
        plan.sample_period_ns = plan.sample_period_ns.max((self.tick_s * 1e9) as u64);
        plan.schedule.retain(|s| s.duration_ns > 0);
        for segment in &mut plan.schedule {
            if segment.kind == SegmentKind::Phase(usize::from(self.collective_first)) {
                segment.duration_ns = (self.minutes * 60.0) as u64 * SECOND_NS;
            }
        }
        plan
    }

    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        course::frames(self, self.plan())
    }

    #[must_use]
    pub fn standing(&self) -> Standing {
        crate::synthetic::fold(&self.frames())
    }

    #[must_use]
    pub fn diagnose(&self) -> Vec<Diagnosis> {
        diagnose(&self.standing())
    }

    #[must_use]
    pub fn judge(&self) -> Verdict {
        judge(&self.standing())
    }
}

/// The diagnosis that names a cause.
///
/// # Panics
/// None does, and then it is said what was named instead.
#[must_use]
pub fn named(found: &[Diagnosis], cause: Cause) -> &Diagnosis {
    let all = || found.iter().map(Diagnosis::sentence).collect::<Vec<_>>();
    let one = found.iter().find(|d| d.cause == cause);
    one.unwrap_or_else(|| panic!("{cause} is not named among {:?}", all()))
}

/// Asserts that nothing is named.
///
/// # Panics
/// Something is.
pub fn nothing(found: &[Diagnosis]) {
    let all: Vec<String> = found.iter().map(Diagnosis::sentence).collect();
    assert!(all.is_empty(), "{all:?}");
}

/// An event at a time of the run.
fn event(at_ns: u64, device: Option<u32>, what: What) -> Frame {
    Frame::Event(Event {
        at_ns,
        device,
        what,
    })
}
