//! The node's bridge to the others, as its agent sees it: a process that is started for each formation of the group, shown
//! to its like on other nodes, and killed when the formation is given up.
//!
//! It decides how a bridge finds the others: through the launcher's world where the agents were started as one, through
//! cards that agents exchange by way of the controller elsewhere. A bridge that ends by itself gives its group up.

use super::pmi::{Answer, LINE_MAX, Pmi};
use crate::bridge::{FromBridge, Memory, Setup, Told};
use crate::clock;
use crate::launch::ask;
use crate::protocol::link::{Cards, Mpi, Said, Span, TRIAL, World};
use crate::protocol::{self, Beyond, Group};
use crate::rank::Rank;
use crate::shell::fleet::{LastWords, own_group};
use hallmark_kernels::collective::CollectiveError;
use hallmark_kernels::collective::host::Region;
use hallmark_kernels::work::bucket_layout;
use hallmark_profiles::workload::StepSpec;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Longest wait for a library of MPI to say what it is.
const ASK: Duration = Duration::from_secs(20);
/// Longest wait for a bridge to end.
const END_MS: u64 = 2_000;
const LOOK: Duration = Duration::from_millis(5);
/// What launchers tell MPI by, which must not reach a world of this program's own.
const OF_LAUNCHERS: [&str; 4] = ["PMI_", "PMIX_", "OMPI_", "PMI2_"];

/// A node's side of all-reduces across nodes.
pub struct Crossing {
    library: Option<PathBuf>,
    rank: Option<Rank>,
    /// One for each step that reduces, with the bytes of its buckets.
    regions: Vec<Shared>,
    /// Number in the hall of the node's first device.
    first: u32,
    bridge: Option<Process>,
    said: (Sender<Said>, Receiver<Said>),
}

/// The memory that the node's ranks share for one step.
struct Shared {
    step: usize,
    region: Region,
    buckets: Vec<u64>,
}

/// A bridge that runs.
struct Process {
    /// The formation that it works for, as it also tells.
    generation: Arc<AtomicU32>,
    nodes: u32,
    child: Child,
    shown: Option<Sender<Cards>>,
}

/// Asks which library of MPI this node has, in a process of its own.
///
/// # Errors
/// Why there is none that could be used here.
pub fn find(library: Option<&PathBuf>, rank: Option<&Rank>) -> Result<Mpi, String> {
    if library.is_some_and(|l| l.as_os_str() == "none") {
        return Err("the run was started with --mpi none".to_owned());
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let library = library.map(|l| l.to_string_lossy());
    let mut arguments = vec!["bridge", "--probe"];
    arguments.extend(is_open_mpi(rank).then_some("--open-mpi"));
    arguments.extend(library.iter().flat_map(|l| ["--mpi", l]));
    let answer = ask::ask(&program.to_string_lossy(), &arguments, None, ASK);
    let answer = answer.map_err(|e| format!("asking for MPI: {e}"))?;
    let told: Result<Told, String> = serde_json::from_str(&answer)
        .map_err(|_| "the process that opened the library of MPI gave no answer".to_owned())?;
    let told = told?;
    let world = match rank.filter(|r| of_mpi(r)) {
        Some(rank) => World::Launcher {
            name: rank.launcher.clone(),
            ranks: rank.world.unwrap_or(0),
        },
        None if told.speaks_pmi => World::Own,
        None => {
            return Err(format!(
                "{} forms a world only where its own launcher starts the agents",
                told.version
            ));
        }
    };
    let version = told.version;
    Ok(Mpi { version, world })
}

fn is_open_mpi(rank: Option<&Rank>) -> bool {
    rank.is_some_and(|r| r.launcher == "Open MPI")
}

/// Whether a launcher of MPI started this process as one of several.
fn of_mpi(rank: &Rank) -> bool {
    ["Open MPI", "PMI", "PMIx"].contains(&rank.launcher.as_str()) && rank.world.unwrap_or(0) > 1
}

impl Crossing {
    /// For this library, and by this launcher.
    pub fn new(library: Option<PathBuf>, rank: Option<Rank>) -> Self {
        Self {
            library,
            rank,
            regions: Vec::new(),
            first: 0,
            bridge: None,
            said: channel(),
        }
    }

    /// Makes the memory that this node's ranks share, once, and says where it is.
    ///
    /// # Errors
    /// [`CollectiveError`] when memory is short.
    pub fn place(
        &mut self,
        groups: &mut [Group],
        steps: &[StepSpec],
        first: u32,
        devices: usize,
    ) -> Result<(), CollectiveError> {
        self.first = first;
        let ranks = devices as u32 + 1;
        for group in groups {
            if !self.regions.iter().any(|s| s.step == group.step) {
                let buckets = steps.get(group.step).map(bucket_layout).unwrap_or_default();
                self.regions.push(Shared {
                    step: group.step,
                    region: Region::create(ranks, &buckets)?,
                    buckets,
                });
            }
            let shared = self.regions.iter().find(|s| s.step == group.step);
            if let Some(Shared { region, .. }) = shared {
                group.path = region.path().to_owned();
                (group.rank, group.ranks) = (group.rank.saturating_sub(first), ranks);
                let bytes_per_s = group.hall.map_or(f64::INFINITY, |h| h.bytes_per_s);
                group.hall = Some(Beyond { first, bytes_per_s });
            }
        }
        Ok(())
    }

    /// Gives a generation up for the ranks of this node.
    pub fn abandon(&self, generation: u32, lost: &[u32]) {
        for Shared { region, .. } in &self.regions {
            let own = lost.iter().filter_map(|d| d.checked_sub(self.first));
            let own: Vec<u32> = own.filter(|slot| slot + 1 < region.ranks()).collect();
            region.abort(generation, &own);
        }
    }

    /// Starts the bridge of a formation, in the place of the last one; that of a trial goes on where all nodes take part.
    pub fn start(&mut self, span: &Span) {
        let formed = self.bridge.is_some();
        if self.goes_on(span) {
            return;
        }
        self.end();
        let launcher = self.rank.as_ref().filter(|r| formed && of_mpi(r));
        let started = match launcher {
            Some(rank) => Err(std::io::Error::other(format!(
                "{} formed one world, and forms no other without the nodes that are lost",
                rank.launcher
            ))),
            None => self.try_start(span),
        };
        if let Err(why) = started {
            let outcome = Err(format!(
                "no bridge to the other nodes could be started: {why}"
            ));
            let generation = span.generation;
            self.abandon(generation, &[]);
            let _ = self.said.0.send(Said::Bridge {
                generation,
                outcome,
            });
        }
    }

    /// Whether the process of the trial has taken this formation on.
    fn goes_on(&mut self, span: &Span) -> bool {
        let setup = self.setup(span);
        let own = self
            .bridge
            .as_mut()
            .filter(|b| b.generation() == TRIAL && b.nodes == span.nodes);
        let Some(bridge) = own else {
            return false;
        };
        let stdin = bridge.child.stdin.as_mut();
        let told = stdin.is_some_and(|stdin| protocol::send(stdin, &setup).is_ok());
        bridge.generation.store(span.generation, Ordering::Release);
        told
    }

    /// Whether the world is its launcher's.
    fn launched(&self) -> bool {
        self.rank.as_ref().is_some_and(of_mpi)
    }

    fn setup(&self, span: &Span) -> Setup {
        let own = span
            .members
            .iter()
            .filter_map(|m| m.checked_sub(self.first));
        Setup {
            library: self.library.clone(),
            open_mpi: is_open_mpi(self.rank.as_ref()),
            leave: self.launched(),
            node: span.node,
            nodes: span.nodes,
            generation: span.generation,
            first: self.first,
            members: own.collect(),
            regions: self.regions.iter().map(Shared::memory).collect(),
        }
    }

    fn try_start(&mut self, span: &Span) -> std::io::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("bridge")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        own_group(&mut command);
        let wired = match self.launched() {
            true => None,
            false => Some(wire(&mut command, span)?),
        };
        let mut child = command.spawn()?;
        let setup = self.setup(span);
        let missing = || std::io::Error::other("a bridge was started without pipes");
        let stdin = child.stdin.as_mut().ok_or_else(missing)?;
        protocol::send(stdin, &setup).map_err(std::io::Error::other)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let generation = Arc::new(AtomicU32::new(span.generation));
        let (said, of) = (self.said.0.clone(), Arc::clone(&generation));
        std::thread::spawn(move || attend(stdout, stderr, &of, &said));
        let shown = wired.map(|manager| {
            let (shown, cards) = channel();
            let (said, generation, nodes) = (self.said.0.clone(), span.generation, span.nodes);
            std::thread::spawn(move || manage(manager, generation, nodes, &said, &cards));
            shown
        });
        self.bridge = Some(Process {
            generation,
            nodes: span.nodes,
            child,
            shown,
        });
        Ok(())
    }

    /// Hands the bridge what all have shown.
    pub fn show(&self, generation: u32, cards: Cards) {
        let own = self
            .bridge
            .as_ref()
            .filter(|b| b.generation() == generation);
        if let Some(shown) = own.and_then(|b| b.shown.as_ref()) {
            let _ = shown.send(cards);
        }
    }

    /// What bridges said since the last call; nothing of one that was killed here. One that has ended gives its formation
    /// up for the node's ranks.
    pub fn said(&self) -> Vec<Said> {
        let current = self.bridge.as_ref().map(Process::generation);
        let of = |said: &Said| match said {
            Said::Bridge { generation, .. } | Said::Cards { generation, .. } => Some(*generation),
            _ => None,
        };
        let said = self.said.1.try_iter().filter(|s| of(s) == current);
        let said: Vec<Said> = said.collect();
        for said in &said {
            if let Said::Bridge {
                generation,
                outcome: Err(_),
            } = said
            {
                self.abandon(*generation, &[]);
            }
        }
        said
    }

    /// Lets the bridge leave a launcher's world, which takes it amiss when a rank just ends; then as [`Self::end`].
    pub fn leave(&mut self) {
        if self.launched() {
            let generation = self.bridge.as_ref().map(Process::generation);
            generation.into_iter().for_each(|g| self.abandon(g, &[]));
            self.bridge.iter_mut().for_each(Process::wait);
        }
        self.end();
    }

    /// Kills the bridge, if there is one.
    pub fn end(&mut self) {
        let Some(mut bridge) = self.bridge.take() else {
            return;
        };
        let _ = bridge.child.kill();
        bridge.wait();
        // What it still had to say is about a formation that is over.
        while self.said.1.try_recv().is_ok() {}
    }
}

impl Drop for Crossing {
    fn drop(&mut self) {
        self.end();
    }
}

impl Process {
    /// Waits for its end; one that the kernel cannot end is left behind.
    fn wait(&mut self) {
        let begun_ns = clock::monotonic_ns();
        while let Ok(None) = self.child.try_wait() {
            if clock::monotonic_ns().saturating_sub(begun_ns) / 1_000_000 > END_MS {
                break;
            }
            clock::sleep(LOOK);
        }
    }

    fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }
}

impl Shared {
    fn memory(&self) -> Memory {
        Memory {
            path: self.region.path().to_owned(),
            ranks: self.region.ranks(),
            buckets: self.buckets.clone(),
        }
    }
}

/// Gives the process a line to its process manager, which is this agent; gives the manager's end.
fn wire(command: &mut Command, span: &Span) -> std::io::Result<UnixStream> {
    use std::os::unix::process::CommandExt;
    let (manager, process) = UnixStream::pair()?;
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if OF_LAUNCHERS.iter().any(|l| text.starts_with(l)) {
            command.env_remove(&name);
        }
    }
    command
        .env("PMI_FD", process.as_raw_fd().to_string())
        .env("PMI_RANK", span.node.to_string())
        .env("PMI_SIZE", span.nodes.to_string());
    // SAFETY: between fork and exec it makes one system call and allocates nothing. The descriptor lives as long as the
    // closure, which the command holds.
    unsafe {
        command.pre_exec(move || {
            rustix::io::fcntl_setfd(&process, rustix::io::FdFlags::empty())?;
            Ok(())
        });
    }
    Ok(manager)
}

/// Hears a bridge to its end, and tells what ended it but its own good order.
fn attend(
    mut stdout: ChildStdout,
    stderr: impl Read + Send + 'static,
    generation: &AtomicU32,
    said: &Sender<Said>,
) {
    let spoken = LastWords::of(stderr);
    let tell = |outcome| {
        let _ = said.send(Said::Bridge {
            generation: generation.load(Ordering::Acquire),
            outcome,
        });
    };
    let why = loop {
        match protocol::receive(&mut stdout) {
            Ok(Some(FromBridge::Open(tried))) => tell(Ok(tried)),
            Ok(Some(FromBridge::Closed)) => return,
            Ok(Some(FromBridge::Failed(why))) => break why,
            Ok(None) => break "it ended without a word".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    tell(Err(spoken.after(why)));
}

/// Is the process manager of a bridge until that leaves or ends.
fn manage(
    line: UnixStream,
    generation: u32,
    nodes: u32,
    said: &Sender<Said>,
    cards: &Receiver<Cards>,
) {
    let mut pmi = Pmi::new(nodes);
    let Ok(mut answers) = line.try_clone() else {
        return;
    };
    let mut lines = BufReader::new(line);
    let mut round = 0;
    loop {
        let mut text = String::new();
        match (&mut lines).take(LINE_MAX as u64).read_line(&mut text) {
            Ok(1..) => {}
            _ => return,
        }
        let (reply, last) = match pmi.answer(&text) {
            Ok(Answer::Reply(reply)) => (reply, false),
            Ok(Answer::Leave(reply)) => (reply, true),
            Ok(Answer::Barrier(own)) => {
                let cards_of = Said::Cards {
                    generation,
                    round,
                    cards: own,
                };
                round += 1;
                // Closed by the agent, which has ended this bridge.
                let Ok(all) = said
                    .send(cards_of)
                    .map_err(drop)
                    .and_then(|()| cards.recv().map_err(drop))
                else {
                    return;
                };
                (pmi.shown(all).to_owned(), false)
            }
            Ok(Answer::Abort(why)) | Err(why) => {
                let outcome = Err(format!("MPI's process manager: {why}"));
                let _ = said.send(Said::Bridge {
                    generation,
                    outcome,
                });
                return;
            }
        };
        if answers.write_all(format!("{reply}\n").as_bytes()).is_err() || last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_whose_library_says_much_is_not_held_up_and_its_last_words_are_told() {
        let says = "head -c 300000 /dev/zero | tr '\\0' x >&2; printf '\\nno such device\\n' >&2";
        let mut child = Command::new("sh")
            .args(["-c", says])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (said, told) = channel();
        std::thread::spawn(move || attend(stdout, stderr, &AtomicU32::new(3), &said));
        let told = told.recv_timeout(Duration::from_secs(30)).unwrap();
        let Said::Bridge {
            generation: 3,
            outcome: Err(why),
        } = told
        else {
            panic!("{told:?}");
        };
        assert!(why.ends_with("no such device"), "{why}");
        child.wait().unwrap();
    }
}
