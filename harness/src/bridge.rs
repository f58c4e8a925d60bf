//! The bridge process of a node: joins the world of all nodes' bridges through MPI, and reduces with them what the node's
//! ranks have summed.
//!
//! MPI may hang, abort or crash; that ends this process alone, and the agent starts another for the next formation of the
//! group. It ends with its input. It decides nothing about who is in the group.

use crate::cli::BridgeCommand;
use crate::exit::{Exit, Failure};
use crate::protocol;
use hallmark_kernels::collective::host::Region;
use hallmark_kernels::collective::host::bridge::{Between, Bridge};
use hallmark_kernels::collective::mpi::Mpi;
use hallmark_kernels::collective::pairs::{self, Pair};
use hallmark_kernels::timer;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

/// Floats of a trial, and how often they are summed: enough to tell a network's rate roughly.
const TRIAL_FLOATS: usize = 1 << 20;
const TRIALS: usize = 5;

/// What a bridge is told: when it is started, and after a trial for the first group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// The library of MPI; the loader's own where none is given.
    pub library: Option<PathBuf>,
    /// The agents' launcher is Open MPI.
    pub open_mpi: bool,
    /// Leave the world together with all others in the end; else whoever started this process ends it.
    pub leave: bool,
    /// This node's place among those that take part, and how many bridges there must be.
    pub node: u32,
    pub nodes: u32,
    pub generation: u32,
    /// Number in the hall of the node's first rank.
    pub first: u32,
    /// Members of the group, by their slots; none in a trial.
    pub members: Vec<u32>,
    pub regions: Vec<Memory>,
}

/// One region of the node: a file, its ranks, the bytes of its buckets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub path: PathBuf,
    pub ranks: u32,
    pub buckets: Vec<u64>,
}

/// What a bridge tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromBridge {
    /// All bridges are here; what came of it, if it was a trial.
    Open(Tried),
    Failed(String),
    /// It ends in good order: its generation was given up.
    Closed,
}

/// What came of a trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// What all nodes summed per second together.
    pub bytes_per_s: f64,
    /// What this node measured with single other ones.
    pub pairs: Vec<Pair>,
}

/// A library of MPI, as a process of its own told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub version: String,
    pub speaks_pmi: bool,
}

/// Runs a bridge, or tells which library it would use.
///
/// # Errors
/// [`Failure`] where it is told nothing that makes sense.
pub fn main(command: &BridgeCommand) -> Result<Exit, Failure> {
    if command.probe {
        let told = Mpi::open(command.mpi.as_deref(), command.open_mpi);
        let told = told.map_err(|e| e.to_string()).map(|mpi| Told {
            speaks_pmi: mpi.speaks_pmi(),
            version: mpi.version,
        });
        let text = serde_json::to_string(&told).map_err(Failure::broken)?;
        crate::command::say(&text);
        return Ok(Exit::Accepted);
    }
    let setups = setups();
    if let Err(why) = cross(&setups) {
        tell(&FromBridge::Failed(why));
        return Ok(Exit::Broken);
    }
    tell(&FromBridge::Closed);
    Ok(Exit::Accepted)
}

/// What this process is told. It ends with its input: MPI may hold every other thread for ever.
fn setups() -> Receiver<Setup> {
    let (told, setups) = channel();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        while let Ok(Some(setup)) = protocol::receive(&mut stdin) {
            if told.send(setup).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    setups
}

fn tell(what: &FromBridge) {
    // An agent that is gone closes the input too.
    let _ = protocol::send(&mut std::io::stdout(), what);
}

fn cross(setups: &Receiver<Setup>) -> Result<(), String> {
    let next = || {
        setups
            .recv()
            .map_err(|_| "bridges are started by agents".to_owned())
    };
    let mut setup = next()?;
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let mpi = Mpi::open(setup.library.as_deref(), setup.open_mpi).map_err(|e| text(&e))?;
    let mut world = mpi.join().map_err(|e| text(&e))?;
    if world.size != setup.nodes {
        return Err(format!(
            "MPI formed a world of {} ranks, and {} nodes reduce",
            world.size, setup.nodes
        ));
    }
    if setup.members.is_empty() {
        let bytes_per_s = trial(&mut world)?;
        let pairs = pairs::measure(&mut world, setup.node, timer::now_ns).map_err(|e| text(&e))?;
        tell(&FromBridge::Open(Tried { bytes_per_s, pairs }));
        // The world is kept for the group: a launcher's can be formed once.
        setup = next()?;
    }
    let open = |m: &Memory| Region::attach(Path::new(&m.path), m.ranks, &m.buckets).map(Arc::new);
    let regions: Result<Vec<_>, _> = setup.regions.iter().map(open).collect();
    let regions = regions.map_err(|e| text(&e))?;
    let members = setup.members.clone();
    let bridge = Bridge::new(
        regions,
        setup.first,
        members,
        setup.generation,
        timer::now_ns,
    );
    let mut bridge = bridge.map_err(|e| text(&e))?;
    // Nobody begins before all can: a rank that waits for a node which never comes would be called silent.
    world.gather([0; 3]).map_err(|e| text(&e))?;
    bridge.open().map_err(|e| text(&e))?;
    tell(&FromBridge::Open(Tried::default()));
    bridge.serve(&mut world).map_err(|e| text(&e))?;
    if setup.leave {
        world.leave();
    }
    Ok(())
}

/// Sums a little across all nodes, and checks it; gives B/s of the slowest sum.
fn trial(world: &mut impl Between) -> Result<f64, String> {
    let told = world.gather([1; 3]).map_err(|e| e.to_string())?;
    let nodes = told.len() as f32;
    let from = vec![1.0_f32; TRIAL_FLOATS];
    let mut slowest_ns = 1;
    for round in 0..TRIALS {
        let mut into = vec![0.0_f32; TRIAL_FLOATS];
        let began_ns = timer::now_ns();
        world.add(&from, &mut into).map_err(|e| e.to_string())?;
        let took_ns = timer::now_ns().saturating_sub(began_ns);
        if round > 0 {
            // The first sum opens connections.
            slowest_ns = slowest_ns.max(took_ns);
        }
        if let Some(wrong) = into.iter().find(|v| v.to_bits() != nodes.to_bits()) {
            return Err(format!("{nodes} ones summed across the nodes gave {wrong}"));
        }
    }
    Ok((TRIAL_FLOATS * size_of::<f32>()) as f64 * 1e9 / slowest_ns as f64)
}
