//! The worker processes of one run: started, spoken to, killed and reaped.
//!
//! Each worker has one thread that reads its reports and one that keeps the end of its standard
//! error for the record. A worker that is gone says so once, with its exit status. A process that the
//! kernel cannot end is waited for briefly and left behind: it holds up neither the run nor its end.

use crate::protocol::{self, FromWorker, Group, ToWorker};
use crate::run::Input;
use crate::shell::inbox::Inlet;
use hallmark_kernels::collective::CollectiveError;
use hallmark_kernels::collective::host::Region;
use hallmark_kernels::work::bucket_layout;
use hallmark_results::frame::What;
use hallmark_results::plan::Plan;
use std::collections::VecDeque;
use std::io::{BufWriter, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines of standard error kept of each worker, and characters of each.
const STDERR_LINES: usize = 4;
const LINE_CHARS: usize = 300;
/// Between two looks at a process that may have ended.
const LOOK: Duration = Duration::from_millis(10);
/// Looks at a process whose pipes have closed before it counts as gone all the same: a second and a half.
const LOOKS: u32 = 150;
/// Looks for the end of its standard error, which a process of its own may hold open: a quarter of a second.
const LAST_WORDS: u32 = 25;
/// Looks for killed workers at the end: a second.
const KILLED: u32 = 100;

/// Names another program to drive the devices; whatever it says is then from a stand-in.
pub const WORKER_BINARY: &str = "HALLMARK_WORKER_BINARY";

/// The program named by [`WORKER_BINARY`], unless it is this very one.
pub fn other_program() -> Option<PathBuf> {
    let named = PathBuf::from(std::env::var_os(WORKER_BINARY)?);
    let own = std::env::current_exe().and_then(std::fs::canonicalize).ok();
    let is_own = own.is_some() && std::fs::canonicalize(&named).ok() == own;
    (!is_own).then_some(named)
}

/// Where a report came from: the node's number in the site, its log's id, and the report's number in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub node: u32,
    pub log: u64,
    pub number: u64,
}

/// How far the record is: frames that were handed to the journal, and those of them that are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub handed: u64,
    pub durable: u64,
}

/// Those who drive the devices of a run: processes of this machine, or agents on others.
pub trait Workers {
    /// Sends an order. That it cannot be sent is told by whoever watches the worker.
    fn tell(&mut self, device: u32, order: &ToWorker);

    /// Kills a worker at once.
    fn kill(&mut self, device: u32);

    /// The groups of a device, in memory that is made with the first call and lives as long as this does.
    ///
    /// # Errors
    /// [`CollectiveError`] when memory is short.
    fn groups(&mut self, plan: &Plan, device: u32) -> Result<Vec<Group>, CollectiveError>;

    /// Gives the group's generation up, so that nobody waits for the lost ranks.
    fn abandon(&mut self, generation: u32, lost: &[u32]);

    /// Called once a turn: reports heard since the last one have led to all frames up to `progress.handed`. Gives what
    /// else the run has to hear.
    fn turn(&mut self, heard: &[Origin], progress: Progress, now_ns: u64) -> Vec<Input> {
        let _ = (heard, progress, now_ns);
        Vec::new()
    }

    /// The load is over: whoever reads sensors away from here ends. Gives how long that may take, ns.
    fn finish(&mut self) -> u64;

    /// Whether all that was to come has come.
    fn is_drained(&self) -> bool;

    /// All has come, of a run that was not cut short: what they still have to measure, idle. `goes_on` is asked again and
    /// again, with what is being done.
    fn part(&mut self, goes_on: &mut dyn FnMut(&str) -> bool) -> Vec<What> {
        let _ = goes_on;
        Vec::new()
    }

    /// Whether others keep copies until they know that the record is on disk.
    fn keeps_copies(&self) -> bool {
        false
    }

    /// What will never come, one sentence each.
    fn lost(&self) -> Vec<String> {
        Vec::new()
    }

    /// Ends all workers within about `patience_ms`, and kills what is left.
    fn end(self: Box<Self>, patience_ms: u64);
}

/// Time given to sensor threads of this process to hand over their last rows.
const LAST_ROWS_NS: u64 = 250_000_000;

impl Workers for Fleet {
    fn tell(&mut self, device: u32, order: &ToWorker) {
        Self::tell(self, device, order);
    }

    fn kill(&mut self, device: u32) {
        Self::kill(self, device);
    }

    fn groups(&mut self, plan: &Plan, device: u32) -> Result<Vec<Group>, CollectiveError> {
        let ranks = plan.devices.len() as u32;
        if self.regions.is_empty() {
            for step in reducing(plan) {
                let region = Region::create(ranks, &bucket_layout(&plan.steps[step]))?;
                self.regions.push((step, region));
            }
        }
        let of = |(step, region): &(usize, Region)| Group {
            step: *step,
            path: region.path().to_owned(),
            rank: device,
            ranks,
            hall: None,
        };
        Ok(self.regions.iter().map(of).collect())
    }

    fn abandon(&mut self, generation: u32, lost: &[u32]) {
        for (_, region) in &self.regions {
            region.abort(generation, lost);
        }
    }

    fn finish(&mut self) -> u64 {
        LAST_ROWS_NS
    }

    fn is_drained(&self) -> bool {
        // Sensor threads do not tell when they have ended.
        false
    }

    fn end(self: Box<Self>, patience_ms: u64) {
        Self::end(*self, patience_ms);
    }
}

/// Indices of the plan's steps that reduce: each has a group of its own.
pub fn reducing(plan: &Plan) -> impl Iterator<Item = usize> + '_ {
    let steps = plan.steps.iter().enumerate();
    steps.filter(|(_, s)| !s.buckets.is_empty()).map(|(i, _)| i)
}

/// All workers of a run.
pub struct Fleet {
    workers: Vec<Process>,
    /// The memory of each step that reduces.
    regions: Vec<(usize, Region)>,
}

struct Process {
    pid: u32,
    /// Locked for an instant at a time, never while waiting: killing must always be possible.
    child: Arc<Mutex<Child>>,
    stdin: Option<BufWriter<ChildStdin>>,
    reader: JoinHandle<()>,
}

impl Fleet {
    /// Starts `count` workers, the same binary as this one, whose reports go to `inputs`.
    ///
    /// `environment`: per worker, variables that a driver reads at its start.
    ///
    /// # Errors
    /// The operating system's reason.
    pub fn start(
        environment: &[Vec<(String, String)>],
        inputs: &Inlet,
    ) -> Result<Self, std::io::Error> {
        let program = other_program().map_or_else(std::env::current_exe, Ok)?;
        let mut fleet = Self {
            workers: Vec::new(),
            regions: Vec::new(),
        };
        for (index, variables) in environment.iter().enumerate() {
            let mut command = Command::new(&program);
            command
                .arg("worker")
                .envs(variables.iter().map(|(k, v)| (k, v)))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            own_group(&mut command);
            let child = command.spawn()?;
            fleet
                .workers
                .push(attend(index as u32, child, inputs.clone())?);
        }
        Ok(fleet)
    }

    /// Sends an order. A worker that can no longer be written to has its end reported by its reader.
    pub fn tell(&mut self, device: u32, order: &ToWorker) {
        if let Some(worker) = self.workers.get_mut(device as usize)
            && let Some(stdin) = &mut worker.stdin
            && protocol::send(stdin, order).is_err()
        {
            worker.stdin = None;
        }
    }

    /// Kills a worker at once; also one that is stopped or hangs in a driver's signal handler.
    pub fn kill(&mut self, device: u32) {
        if let Some(worker) = self.workers.get_mut(device as usize) {
            worker.kill();
        }
    }

    /// Process ids, for tests that break workers on purpose.
    pub fn pids(&self) -> Vec<u32> {
        self.workers.iter().map(|w| w.pid).collect()
    }

    /// Ends all workers: closes their pipes, waits for up to `patience_ms`, then kills what is left.
    pub fn end(mut self, patience_ms: u64) {
        for worker in &mut self.workers {
            worker.stdin = None;
        }
        self.wait(u32::try_from(patience_ms / 10).unwrap_or(u32::MAX));
        // Dropping kills whoever is left.
    }

    /// Waits until the end of every worker has been seen, for a bounded time.
    fn wait(&self, looks: u32) {
        for _ in 0..looks {
            if self.workers.iter().all(|w| w.reader.is_finished()) {
                return;
            }
            crate::clock::sleep(LOOK);
        }
    }
}

impl Process {
    fn kill(&mut self) {
        // One that has been reaped is not there to be killed, nor is anyone else by its number.
        let _ = lock(&self.child).kill();
        // After it: a worker whose input closes ends in order, as if nobody had killed it.
        self.stdin = None;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.workers.iter_mut().for_each(Process::kill);
        // A reader that has not come to its end by then is left to itself: its process cannot be ended.
        self.wait(KILLED);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A group of its own: Ctrl-C at the terminal reaches the run alone, which then ends the workers in order. Where the
/// kernel can, it also kills the process once the thread that started it is gone, however that ended.
#[cfg(unix)]
pub fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    #[cfg(target_os = "linux")]
    unsafe {
        command.pre_exec(|| {
            let kill = Some(rustix::process::Signal::KILL);
            Ok(rustix::process::set_parent_process_death_signal(kill)?)
        });
    }
}

/// Has the kernel kill this process with the one that started it, where the kernel can.
///
/// # Errors
/// The operating system's reason.
pub fn die_with_parent() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let kill = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(kill)?;
    }
    Ok(())
}

#[cfg(not(unix))]
pub fn own_group(_command: &mut Command) {}

fn attend(device: u32, mut child: Child, inputs: Inlet) -> Result<Process, std::io::Error> {
    let missing = || std::io::Error::other("a worker was started without pipes");
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let mut stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let pid = child.id();
    let child = Arc::new(Mutex::new(child));
    let shared = Arc::clone(&child);
    let said = LastWords::of(stderr);
    let reader = std::thread::spawn(move || {
        let why = loop {
            match protocol::receive::<FromWorker>(&mut stdout) {
                Ok(Some(report)) => {
                    if inputs.send(Input::Worker(device, report)).is_err() {
                        break None;
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        if why.is_some() {
            // It no longer speaks the protocol, so nothing it does can be believed or ended in order.
            let _ = lock(&shared).kill();
        }
        let status = match reap(&shared, LOOKS) {
            Some(Ok(status)) => format!("worker ended: {status}"),
            Some(Err(error)) => format!("worker ended: {error}"),
            None => format!(
                "the worker closed its pipes, but its process {pid} does not end; a driver call may hold it in the kernel"
            ),
        };
        let text = why.map_or_else(|| status.clone(), |w| format!("{w}; {status}"));
        let _ = inputs.send(Input::Gone(device, said.after(text)));
    });
    Ok(Process {
        pid,
        child,
        stdin: Some(BufWriter::new(stdin)),
        reader,
    })
}

/// Waits for a process to end, a look at a time; `None` if it has not by then.
fn reap(child: &Mutex<Child>, looks: u32) -> Option<std::io::Result<ExitStatus>> {
    for _ in 0..looks {
        let looked = lock(child).try_wait();
        match looked {
            Ok(Some(status)) => return Some(Ok(status)),
            Ok(None) => crate::clock::sleep(LOOK),
            Err(error) => return Some(Err(error)),
        }
    }
    None
}

/// What a process says on its standard error, read beside all else: one that says much would wait for its reader.
pub struct LastWords {
    tail: Arc<Mutex<Tail>>,
    listener: JoinHandle<()>,
}

impl LastWords {
    pub fn of(from: impl Read + Send + 'static) -> Self {
        let tail = Arc::new(Mutex::new(Tail::default()));
        let heard = Arc::clone(&tail);
        let listener = std::thread::spawn(move || listen(from, &heard));
        Self { tail, listener }
    }

    /// How it ended, with what it said at last; waited for a moment, since what it has started may hold its standard
    /// error for ever.
    pub fn after(self, how: String) -> String {
        for _ in 0..LAST_WORDS {
            if self.listener.is_finished() {
                break;
            }
            crate::clock::sleep(LOOK);
        }
        match lock(&self.tail).text() {
            said if said.is_empty() => how,
            said => format!("{how}; it said: {said}"),
        }
    }
}

/// The last lines of a text without end, each cut to a length that a record can hold.
#[derive(Default)]
struct Tail {
    lines: VecDeque<String>,
    /// The line that has not ended, as far as it is kept.
    line: Vec<u8>,
    begun: bool,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
                continue;
            }
            self.begun = true;
            // Four bytes are the longest character.
            if self.line.len() < 4 * LINE_CHARS {
                self.line.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let text: String = String::from_utf8_lossy(&self.line)
            .chars()
            .filter(|c| !c.is_control())
            .take(LINE_CHARS)
            .collect();
        self.line.clear();
        self.begun = false;
        if text.trim().is_empty() {
            return;
        }
        if self.lines.len() == STDERR_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(text);
    }

    fn text(&mut self) -> String {
        if self.begun {
            self.end_line();
        }
        self.lines.make_contiguous().join(" | ")
    }
}

fn listen(mut from: impl Read, tail: &Mutex<Tail>) {
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        lock(tail).push(&bytes[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_never_ends_its_line_is_kept_short() {
        let mut tail = Tail::default();
        for _ in 0..10_000 {
            tail.push(&[b'x'; 4096]);
        }
        assert!(tail.line.capacity() < 4096, "{}", tail.line.capacity());
        assert_eq!(tail.text(), "x".repeat(LINE_CHARS));
    }

    #[test]
    fn the_last_lines_are_kept_without_control_characters() {
        let mut tail = Tail::default();
        tail.push(b"one\n\ntwo\n \nth");
        tail.push("r\u{7}ee\nfour\nf\u{fc}nf".as_bytes());
        assert_eq!(tail.text(), "two | three | four | f\u{fc}nf");
    }
}
