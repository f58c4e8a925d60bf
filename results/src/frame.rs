//! Every row that outlives the process. A run is a sequence of frames; a record is the same frames, sealed.
//!
//! Times are nanoseconds since the run's start unless a name says otherwise.

use crate::plan::Plan;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::Unit;
use serde::{Deserialize, Serialize};

/// Version of the frames and of the sealed record; readers take this one and all before it.
pub const FORMAT_VERSION: u32 = 1;

/// One journalled fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Frame {
    /// The first frame of every journal.
    Opened(Box<Opened>),
    /// A sensor's series, before its first sample.
    Table(Table),
    Samples(Samples),
    Steps(Steps),
    Event(Event),
    /// The last frame of a run that ended in good order.
    Closed(Closed),
}

/// How a run began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    pub format_version: u32,
    pub run_id: String,
    pub hallmark_version: String,
    /// RFC 3339, UTC.
    pub utc_start: String,
    pub clock: ClockState,
    pub host: Host,
    pub remark: Option<String>,
    pub plan: Plan,
    pub plan_digest: String,
}

/// The machine that ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    pub name: String,
    pub os: String,
    pub kernel: String,
    pub cpu: String,
    pub cores: u32,
    pub memory_bytes: u64,
    pub boot_id: String,
}

/// What is known of the node's wall clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockState {
    /// The kernel says that a time daemon disciplines the clock; `None` where it cannot be asked.
    pub synchronised: Option<bool>,
    /// The kernel's own estimate of its largest error, s.
    pub max_error_s: Option<f64>,
}

/// Where a series comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    Measured,
    /// Read from a file of an earlier measurement.
    Replayed,
    Simulated,
    /// From a stand-in for a device or library; never a result.
    StandIn,
}

/// One sensor: series that are read at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Unique within the record, from 0.
    pub id: u32,
    /// File name within the sealed record, without ending: letters, digits, `-`.
    pub name: String,
    /// The interface that is read, e.g. `NVML 13.580.95`, `/proc/stat`.
    pub source: String,
    pub provenance: Provenance,
    /// Index of the planned device that it belongs to; `None` for the node or the hall.
    pub device: Option<u32>,
    /// Node, rack, CDU or feeder that it belongs to.
    pub place: String,
    /// Mean distance of samples.
    pub period_ns: u64,
    pub series: Vec<Series>,
}

/// The label of a series that says at least how large something is, beside one that says at most how large.
pub const AT_LEAST: &str = "at_least";

/// One quantity of a sensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub metric: Metric,
    /// Distinguishes series of one metric, e.g. `instant`, `average`; may be empty.
    pub label: String,
    pub unit: Unit,
    pub kind: SeriesKind,
    /// Averaging window of the source, where it is known.
    pub averaging_ns: Option<u64>,
    /// As the source states it, e.g. `±5 W`.
    pub accuracy: Option<String>,
}

/// Labels that say how a reading was made, and not of what.
const OF_THE_WHOLE: [&str; 4] = ["", "average", "instant", "usage"];

impl Series {
    /// Power or energy of a part of its place, e.g. of a node's processors alone: nothing that its meter would show.
    pub fn is_of_a_part(&self) -> bool {
        let adds_up = matches!(
            self.metric,
            Metric::Energy | Metric::PowerDraw | Metric::PowerInstant
        );
        adds_up && !OF_THE_WHOLE.contains(&self.label.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeriesKind {
    Gauge,
    /// Grows; judged by its delta inside the window.
    Counter,
    /// Bit mask of states that may hold together.
    Mask,
}

/// Rows of one table, column by column. NaN stands for “no value”, never zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    pub table: u32,
    pub at_ns: Vec<u64>,
    /// One vector for each series of the table, each as long as `at_ns`.
    pub columns: Vec<Vec<f64>>,
}

/// Completed steps of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    pub device: u32,
    /// Timed by events on the device rather than by the host's clock.
    pub device_clock: bool,
    pub rows: Vec<StepRow>,
    pub ops: Vec<OpRow>,
    /// All-reduces of a sweep, which are none of `ops`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<TrialRow>,
}

/// One completed step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// Same number on all ranks for steps that belong together.
    pub seq: u64,
    /// Index into the plan's schedule.
    pub segment: u32,
    /// Closed loop: end of the predecessor; open loop: the plan's time.
    pub due_ns: u64,
    pub start_ns: u64,
    pub end_ns: u64,
    /// Sum of the matmul spans.
    pub compute_ns: u64,
    /// Sum of the all-reduce spans.
    pub reduce_ns: u64,
    pub optimizer_ns: u64,
    pub flop: f64,
    pub audited: u32,
    pub audited_flop: f64,
    pub gemms: u32,
    pub reduced_bytes: u64,
    /// Bytes read + written by copy and triad, and the time they took.
    pub memory_bytes: u64,
    pub memory_ns: u64,
    pub skew_ns: u64,
}

/// One all-reduce operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OpRow {
    pub seq: u64,
    pub start_ns: u64,
    pub end_ns: u64,
    /// Payload held by each rank.
    pub bytes: u64,
}

/// One all-reduce of a sweep, as one rank saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrialRow {
    pub seq: u64,
    /// Counts the step's trials from 0, the same on all ranks.
    pub index: u32,
    /// Payload held by each rank.
    pub bytes: u64,
    /// The total was written over the inputs.
    pub in_place: bool,
    /// Recorded, and no part of any figure.
    pub warm_up: bool,
    /// Open loop: decided before, and never moved.
    pub due_ns: u64,
    pub start_ns: u64,
    /// The last rank arrived.
    pub arrived_ns: u64,
    pub end_ns: u64,
    /// Elements of this rank's total that are not the exact sum.
    pub wrong: u64,
}

/// Something that happened at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub at_ns: u64,
    /// Index of the planned device, where it concerns one.
    pub device: Option<u32>,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// A segment of the schedule begins.
    Segment { index: u32 },
    /// Warm-up ended by evidence.
    Steady,
    /// Warm-up ended because its limit was reached.
    NeverSteady { why: String },
    /// Nothing from a table from `from_ns` until the event.
    Gap {
        table: u32,
        from_ns: u64,
        reason: String,
    },
    /// A device, worker or sensor failed while the run went on.
    Fault { kind: FaultKind, detail: String },
    /// The injected bit flip and whether the audit saw it.
    SelfTest { passed: bool, detail: String },
    /// An audited result was wrong.
    Mismatch { detail: String },
    /// The survivors continue without the missing ranks.
    Regrouped {
        generation: u32,
        members: Vec<u32>,
        stalled_ns: u64,
    },
    /// A driver's error event, e.g. an Xid.
    Xid { code: u64, detail: String },
    /// The run is being ended before its time, in good order.
    Stop { why: String },
    /// The run went on after an interruption; `lost_ns` passed without load.
    Resumed { lost_ns: u64 },
    /// A setting as it was found; hallmark never changes one.
    AsFound { key: String, value: String },
    /// Something that is not measured: why, and how to get it.
    Absent {
        what: String,
        why: String,
        remedy: String,
    },
    /// A decision of the harness that changes what comes next.
    Decision { what: String },
    /// What pairs of a hall's nodes measured with each other, with nothing loaded.
    Pairs { rows: Vec<PairRow> },
    /// What happens over and over is told together: `count` times since `from_ns`, `latest` the last of them in full.
    More {
        latest: Box<What>,
        count: u64,
        from_ns: u64,
    },
}

/// What two nodes of a hall measured with each other, as the worse of the two has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairRow {
    /// All pairs of a round were measured at the same time.
    pub round: u32,
    pub nodes: [String; 2],
    /// Size of a message.
    pub bytes: u64,
    /// Of the median exchange of such messages, each way.
    pub bytes_per_s: f64,
    /// Of the median exchange of single floats, s.
    pub latency_s: f64,
    /// Floats that came otherwise than they were sent.
    pub wrong: u64,
}

/// What may happen without end, and of which many are therefore told together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kin {
    Mismatch,
    /// Gaps of one table.
    Gap(u32),
    /// Error events with one code.
    Xid(u64),
    /// Sensors that contradict themselves.
    Sensor,
}

impl What {
    /// Which of the endless kinds this is; `None` for what ends by itself, e.g. a device's one fault.
    pub fn kin(&self) -> Option<Kin> {
        match self {
            Self::Mismatch { .. } => Some(Kin::Mismatch),
            Self::Gap { table, .. } => Some(Kin::Gap(*table)),
            Self::Xid { code, .. } => Some(Kin::Xid(*code)),
            Self::Fault {
                kind: FaultKind::Sensor,
                ..
            } => Some(Kin::Sensor),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Declared, but not there at the start.
    Missing,
    /// The worker ended by itself or by a signal.
    WorkerDied,
    /// The agent of its node ended.
    Agent,
    /// No completed step for longer than the watchdog allows, or nothing heard of its node.
    Silent,
    /// The device's own error.
    Device,
    /// An all-reduce that did not complete.
    Collective,
    /// A sensor that was there is gone.
    Sensor,
    /// What was told could not be written, or never came.
    Journal,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Closed {
    pub at_ns: u64,
    pub utc_end: String,
    pub clock: ClockState,
    pub ending: Ending,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// All of the schedule was done.
    Complete,
    /// Ended in good order before its time.
    Stopped { why: String },
    /// The process died; closed afterwards with what was on disk.
    SealedAfterCrash,
}
