//! A hall whose controller and agents have a host each, started by hand as whoever runs `mpirun` would.
//!
//! The controller is on host 0, the agent of node n1 on host 1, and so on. Refuses to leave anything running or lying
//! about: agents and their logs go with it.

use super::Network;
use super::sent::{Delivered, Sent};
use super::wires::Link;
use crate::agents::{HallRun, Setup, is_alive, profile};
use crate::program::{self, RunFolder};
use crate::swept;
use hallmark_results::frame::Frame;
use hallmark_results::standing::Standing;
use hallmark_results::store::journal::JournalReader;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

const PORT: u16 = 7_400;
/// Longest wait for an agent to begin its log, and to end after its run.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(5);

/// Several halls at a time, or one whose network is measured.
static HALLS: RwLock<()> = RwLock::new(());

#[derive(Debug)]
enum Turn {
    Shared {
        _guard: RwLockReadGuard<'static, ()>,
    },
    Alone {
        _guard: RwLockWriteGuard<'static, ()>,
    },
}

impl Turn {
    fn shared() -> Self {
        let _guard = HALLS.read().unwrap_or_else(PoisonError::into_inner);
        Self::Shared { _guard }
    }

    fn alone() -> Self {
        let _guard = HALLS.write().unwrap_or_else(PoisonError::into_inner);
        Self::Alone { _guard }
    }
}

/// Such a hall under load.
#[derive(Debug)]
pub struct Spread {
    pub run: HallRun,
    pub network: Network,
    agents: Vec<Agent>,
    _profile: RunFolder,
    /// Given back last.
    _turn: Turn,
}

#[derive(Debug)]
struct Agent {
    child: Child,
    /// Where its log lies.
    folder: PathBuf,
    sent: Sent,
}

/// Each node by itself, and what all together must reach of that.
const BY_NODE: &str = r#"
[[load.phase]]
name = "single-nodes"
pattern = "training"
reach = "node"
duration = "2 s"

[[criterion]]
name = "scaling"
metric = "scaling_efficiency"
scope = "group"
statistic = "total"
at_least = "50 %"
phase = "train"
"#;

impl Spread {
    /// Starts a run over nodes n1 to n`nodes` with one device each, for `seconds` of load, in a network that `worsen`
    /// has made what it is; `None` where this machine can have none. `criteria` stand behind those of every such run.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start(
        nodes: usize,
        seconds: u32,
        criteria: &str,
        worsen: impl FnOnce(&mut Network),
    ) -> Option<Self> {
        let folder = RunFolder::new();
        let text = format!("{}\n{criteria}", profile(seconds));
        let path = folder.write("spread.toml", &text).display().to_string();
        Self::over(
            Turn::shared(),
            nodes,
            (folder, path),
            Path::new("none"),
            worsen,
        )
    }

    /// Starts a run whose nodes n1 to n`nodes` reduce through this library of MPI, over the network alone; for some seconds
    /// each by itself.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn reducing(
        nodes: usize,
        seconds: u32,
        library: &Path,
        worsen: impl FnOnce(&mut Network),
    ) -> Option<Self> {
        let folder = RunFolder::new();
        let path = swept::profile(&folder, seconds);
        let swept = fs::read_to_string(&path).expect("the file was just written");
        let path = folder.write("scaled.toml", &format!("{swept}{BY_NODE}"));
        let path = path.display().to_string();
        Self::over(Turn::alone(), nodes, (folder, path), library, worsen)
    }

    fn over(
        turn: Turn,
        nodes: usize,
        (folder, path): (RunFolder, String),
        library: &Path,
        worsen: impl FnOnce(&mut Network),
    ) -> Option<Self> {
        let mut network = Network::of(nodes + 1, 7)?;
        worsen(&mut network);
        let address = network.host(0).address;
        let run = HallRun::launched(&Setup {
            launcher: "manual",
            arguments: &["--rehearsal"],
            site: &format!("address = \"{address}:{PORT}\"\n"),
            nodes,
            profile: Some(&path),
            host: Some(network.host(0)),
            ..Setup::default()
        });
        run.wait_for("invitations", |r| {
            (0..nodes).all(|n| Agent::log_folder(r, n).is_some())
        });
        let agents = (0..nodes).map(|n| Agent::start(&run, &network, n, nodes, library));
        Some(Self {
            agents: agents.collect(),
            run,
            network,
            _profile: folder,
            _turn: turn,
        })
    }

    /// Waits until every node has completed a step of a phase, so that no order for it is on its way any more.
    ///
    /// # Panics
    /// They do not within three minutes.
    pub fn works_in(&self, phase: &str) {
        self.run.wait_for(phase, |run| {
            let Ok(journal) = JournalReader::open(&run.folder) else {
                return false;
            };
            let (mut segment, mut at_work) = (None, BTreeSet::new());
            for frame in journal.map_while(Result::ok) {
                match frame {
                    Frame::Opened(opened) => {
                        let mut schedule = opened.plan.schedule.iter();
                        segment = schedule.position(|s| s.name == phase);
                    }
                    Frame::Steps(steps) => {
                        let last = steps.rows.last().map(|row| row.segment as usize);
                        if last.is_some() && last == segment {
                            at_work.insert(steps.device);
                        }
                    }
                    _ => {}
                }
            }
            at_work.len() == self.agents.len()
        });
    }

    /// Worsens, or mends, the link of a node, by its number from 1.
    pub fn set(&self, node: usize, link: Link) {
        self.network.set(node, link);
    }

    /// The worker processes of a node, by its number from 1.
    #[must_use]
    pub fn workers(&self, node: usize) -> Vec<u32> {
        crate::agents::descendants(self.agents[node - 1].child.id())
    }

    /// What a node's agent writes, by its number from 1.
    pub fn sent(&mut self, node: usize) -> &mut Sent {
        &mut self.agents[node - 1].sent
    }

    /// Waits for the end, and for that of all agents; gives the exit code and the sealed record's account.
    ///
    /// # Panics
    /// The run or an agent does not end.
    pub fn end(&mut self) -> (i32, Standing) {
        let ended = self.run.end();
        let begun = Instant::now();
        while self.agents.iter().any(|a| is_alive(a.child.id())) {
            assert!(begun.elapsed() < PATIENCE, "an agent does not end");
            std::thread::sleep(LOOK);
        }
        ended
    }

    /// Holds the ended run's record against the log of a node, by its number from 1: each step and each sample that the
    /// node has written down stands in the record once. Gives how many steps and samples.
    ///
    /// # Panics
    /// It is otherwise, or the node's agent has not learnt that all of it is taken.
    pub fn taken_once(&mut self, node: usize) -> (usize, usize) {
        let index = node - 1;
        let agent = &mut self.agents[index];
        let sent = agent.sent.delivered();
        let name = format!("n{node}");
        let devices = [index as u32];
        let recorded = Delivered::recorded(&self.run.folder, &devices, index, &name);
        let (wrote, has) = (sent.counted(), recorded.counted());
        assert!(
            sent == recorded,
            "{name} wrote {wrote:?} steps and samples, the record has {has:?} of it, or others"
        );
        assert!(!agent.folder.exists(), "{name} keeps a log that it owes");
        wrote
    }
}

impl Agent {
    /// Where a node's invitation has its agent keep the log; `None` before the invitation is there.
    fn log_folder(run: &HallRun, index: usize) -> Option<PathBuf> {
        let name = format!("{index}.n{}", index + 1);
        let invitation = run.folder.with_extension("join").join(name);
        let invitation = std::fs::read(invitation).ok()?;
        let invitation: serde_json::Value = serde_json::from_slice(&invitation).ok()?;
        invitation["folder"].as_str().map(PathBuf::from)
    }

    fn start(run: &HallRun, network: &Network, index: usize, nodes: usize, library: &Path) -> Self {
        let node = format!("n{}", index + 1);
        let folder = Self::log_folder(run, index).expect("an invitation");
        let said = run.folder.with_extension(format!("{node}.log"));
        let said = File::create(said).expect("a file can be made");
        let mut child = network
            .host(index + 1)
            .command(program::binary())
            .args(["agent", "--mpi"])
            .arg(library)
            .arg("--join")
            .arg(run.folder.with_extension("join"))
            // The hosts have one name and one memory, by which MPICH and the UCX within it would take them for one machine.
            .env("MPIR_CVAR_NOLOCAL", "1")
            .env("UCX_TLS", "tcp")
            .env("HALLMARK_RANK", index.to_string())
            .env("HALLMARK_WORLD_SIZE", nodes.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .expect("an agent can be started");
        let log = folder.join("reports.hml");
        let begun = Instant::now();
        let file = loop {
            if let Ok(file) = File::open(&log) {
                break file;
            }
            let waits = begun.elapsed() < PATIENCE && child.try_wait().is_ok_and(|s| s.is_none());
            assert!(waits, "the agent of {node} begins no log");
            std::thread::sleep(LOOK);
        };
        Self {
            child,
            folder,
            sent: Sent::new(file, node, index),
        }
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        for agent in &mut self.agents {
            // The kernel kills its workers with it. Most have ended by now.
            let _ = agent.child.kill();
            let _ = agent.child.wait();
            let _ = std::fs::remove_dir_all(&agent.folder);
        }
    }
}
