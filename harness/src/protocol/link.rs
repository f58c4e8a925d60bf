//! What a controller and the agents of a hall say to each other.
//!
//! A *report* carries what happened on a node, numbered from 1 within the node's log; a *task* carries what is to be
//! done there, numbered from 1 within the controller's life. Both are sent again after a broken link from the last one
//! acknowledged, and taken once. Times are nanoseconds on the clock of whoever says them, unless they belong to the run.

use crate::bridge::Tried;
use crate::protocol::{FromWorker, ToWorker};
use crate::rank::Rank;
use crate::sensor::DeviceKey;
use hallmark_kernels::device::{Absent, DeviceInfo};
use hallmark_results::frame::{Host, Samples, Table, What};
use hallmark_results::plan::Plan;
use serde::{Deserialize, Serialize};

/// Version of this protocol; both sides must have the same, and are one program anyway.
pub const VERSION: u32 = 5;
/// The two methods, by their path: a stream of reports against tasks, and a heartbeat that also compares clocks.
/// Each has a connection of its own, so that a long queue on the first does not look like silence.
pub const LINK: &str = "/hallmark.v1.Control/Link";
pub const BEAT: &str = "/hallmark.v1.Control/Beat";

/// From an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Up {
    /// The first message on every link.
    Join(Box<Claim>),
    /// In the order of their numbers, none left out.
    Reports(Vec<Report>),
    /// Tasks up to this number are taken.
    Took { task: u64 },
}

/// Who an agent says that it is, and what its node has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    pub version: u32,
    pub hallmark_version: String,
    /// The node's name in the site file.
    pub node: String,
    pub pass: Pass,
    /// Tells the agent's log from every other one: drawn when the log is begun.
    pub log: u64,
    /// Number of the last report in its log.
    pub last: u64,
    /// The last task that it took.
    pub task: u64,
    pub pid: u32,
    pub host: Host,
    /// As the launcher's environment tells it, where there is one.
    pub rank: Option<Rank>,
    /// The devices that can take part.
    pub devices: Vec<DeviceInfo>,
    /// Devices that telemetry sees.
    pub watched: Vec<DeviceKey>,
    pub absent: Vec<Absent>,
    /// The library of MPI that it would reduce with across nodes, or why there is none.
    #[serde(default = "unasked")]
    pub mpi: Result<Mpi, String>,
}

fn unasked() -> Result<Mpi, String> {
    Err("its agent was not asked for MPI".to_owned())
}

/// A library of MPI on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mpi {
    /// What it says that it is.
    pub version: String,
    pub world: World,
}

/// How the bridges of all nodes find each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum World {
    /// Through this program, in any number and as often as need be.
    Own,
    /// Through the launcher that started the agents, which formed one world, once.
    Launcher { name: String, ranks: u32 },
}

/// Cards of bridges: what each puts up for the others, by its keys.
pub type Cards = Vec<(String, String)>;

/// The trial before the run, which is no generation of a group.
pub const TRIAL: u32 = 0;
/// The same after it.
pub const AGAIN: u32 = u32::MAX;

/// The bridge of a node in one formation of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The group's generation; 0 for a trial.
    pub generation: u32,
    /// The node's number among those that have members, and how many these are.
    pub node: u32,
    pub nodes: u32,
    /// Members of the group on this node, by their numbers in the hall; none in a trial.
    pub members: Vec<u32>,
}

/// What lets an agent in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pass {
    /// From the launcher; good for one process.
    Token(String),
    /// From the controller, after the first join; good for as long as that process lives.
    Session(String),
}

impl std::fmt::Debug for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token",
            Self::Session(_) => "Session",
        })
    }
}

/// One thing that happened on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub number: u64,
    pub said: Said,
}

/// What an agent tells; devices by their number in the plan of the whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Said {
    Worker {
        device: u32,
        report: FromWorker,
    },
    Gone {
        device: u32,
        why: String,
    },
    Table(Table),
    Samples(Samples),
    Event {
        what: What,
        device: Option<u32>,
    },
    /// What this node's bridge shows to all others, in this round.
    Cards {
        generation: u32,
        round: u32,
        cards: Cards,
    },
    /// The bridge found the others, and what came of a trial; or how it ended.
    Bridge {
        generation: u32,
        outcome: Result<Tried, String>,
    },
    /// Sensors and workers have ended: nothing follows.
    Last,
}

impl Said {
    /// Whether it may wait a moment for more of its kind: rows, on which nobody acts at once.
    pub const fn can_wait(&self) -> bool {
        match self {
            Self::Worker { report, .. } => {
                matches!(report, FromWorker::Steps(_) | FromWorker::Resting { .. })
            }
            Self::Samples(_) => true,
            _ => false,
        }
    }

    /// Whether a record is the poorer without it.
    pub const fn is_for_the_record(&self) -> bool {
        match self {
            Self::Cards { .. } | Self::Bridge { outcome: Ok(_), .. } | Self::Last => false,
            Self::Worker { .. }
            | Self::Gone { .. }
            | Self::Table(_)
            | Self::Samples(_)
            | Self::Event { .. }
            | Self::Bridge {
                outcome: Err(_), ..
            } => true,
        }
    }
}

/// From the controller.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Down {
    /// The first message on every link.
    Welcome {
        session: String,
        /// Reports up to this number are on the controller's disk.
        kept: u64,
        /// Time between two messages of rows, so that the controller of a large hall hears few large ones.
        pace_ms: u64,
    },
    /// Each with its number.
    Tasks(Vec<(u64, Task)>),
    /// Reports up to this number are on the controller's disk.
    Kept { number: u64 },
}

/// What an agent has to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Task {
    /// The node's devices are numbered from here in the whole plan; their workers are started.
    Muster {
        first: u32,
    },
    Drive {
        device: u32,
        order: Box<ToWorker>,
    },
    Kill {
        device: u32,
    },
    /// Start the node's bridge anew.
    Bridge(Span),
    /// What all bridges show in this round.
    Cards {
        generation: u32,
        round: u32,
        cards: Cards,
    },
    /// Give a generation up, for these members are lost.
    Abandon {
        generation: u32,
        lost: Vec<u32>,
    },
    /// Begin to read sensors.
    Sense {
        /// As of [`Self::Muster`], which an agent that is started once more was never told.
        first: u32,
        /// The run's plan with this node's devices alone.
        plan: Box<Plan>,
        /// Start of the run on the controller's clock.
        epoch_ns: u64,
    },
    /// End workers and sensors, then say [`Said::Last`].
    Finish,
    /// All is on the controller's disk, or will never be: end.
    Leave,
}

impl Task {
    /// Whether many of it fit into one message.
    pub fn is_small(&self) -> bool {
        match self {
            Self::Drive { order, .. } => matches!(
                **order,
                ToWorker::Start(_) | ToWorker::Stop | ToWorker::Quit
            ),
            Self::Muster { .. } | Self::Kill { .. } | Self::Finish | Self::Leave => true,
            Self::Bridge(_) | Self::Cards { .. } | Self::Abandon { .. } | Self::Sense { .. } => {
                false
            }
        }
    }
}

/// A sign of life, with the node's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    pub node: String,
    pub session: String,
    /// How far the controller's clock is ahead of the node's, once it is known.
    pub ahead: Option<Ahead>,
    /// What it was when the node took the run's start over into its own time, on which rest all times that it tells.
    #[serde(default)]
    pub began: Option<Ahead>,
}

/// The offset of two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    pub ns: i64,
    /// Half of the round trip: the offset cannot be further off, however unequal its two ways are.
    pub error_ns: u64,
}

/// The controller's clock when a beat came and when it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beaten {
    pub came_ns: u64,
    pub left_ns: u64,
}
