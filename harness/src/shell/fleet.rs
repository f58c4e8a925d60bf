//! The worker processes of one run: started, spoken to, killed and reaped.
//!
//! Each worker has one thread that reads its reports and one that keeps the end of its standard
//! error for the record. A worker that is gone says so once, with its exit status.

use crate::protocol::{self, FromWorker, ToWorker};
use crate::run::Input;
use std::io::{BufRead, BufReader, BufWriter};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Lines of standard error kept of each worker.
const STDERR_LINES: usize = 4;

/// Names another program to drive the devices; whatever it says is then from a stand-in.
pub const WORKER_BINARY: &str = "HALLMARK_WORKER_BINARY";

/// The program named by [`WORKER_BINARY`], unless it is this very one.
pub fn other_program() -> Option<PathBuf> {
    let named = PathBuf::from(std::env::var_os(WORKER_BINARY)?);
    let own = std::env::current_exe().and_then(std::fs::canonicalize).ok();
    let is_own = own.is_some() && std::fs::canonicalize(&named).ok() == own;
    (!is_own).then_some(named)
}

/// All workers of a run.
pub struct Fleet {
    workers: Vec<Process>,
}

struct Process {
    child: Arc<Mutex<Child>>,
    stdin: Option<BufWriter<ChildStdin>>,
    reader: Option<JoinHandle<()>>,
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
        inputs: &Sender<Input>,
    ) -> Result<Self, std::io::Error> {
        let program = other_program().map_or_else(std::env::current_exe, Ok)?;
        let mut fleet = Self {
            workers: Vec::new(),
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
            worker.stdin = None;
            let _ = lock(&worker.child).kill();
        }
    }

    /// Process ids, for tests that break workers on purpose.
    pub fn pids(&self) -> Vec<u32> {
        self.workers.iter().map(|w| lock(&w.child).id()).collect()
    }

    /// Ends all workers: closes their pipes, waits for up to `patience_ms`, then kills what is left.
    pub fn end(mut self, patience_ms: u64) {
        for worker in &mut self.workers {
            worker.stdin = None;
        }
        for _ in 0..patience_ms / 10 {
            let gone = |w: &Process| w.reader.as_ref().is_none_or(JoinHandle::is_finished);
            if self.workers.iter().all(gone) {
                break;
            }
            crate::clock::sleep(std::time::Duration::from_millis(10));
        }
        // Dropping kills whoever is left.
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            worker.stdin = None;
            let _ = lock(&worker.child).kill();
            if let Some(reader) = worker.reader.take() {
                let _ = reader.join();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A group of its own: Ctrl-C at the terminal reaches the run alone, which then ends the workers in order.
#[cfg(unix)]
fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

#[cfg(not(unix))]
fn own_group(_command: &mut Command) {}

fn attend(device: u32, mut child: Child, inputs: Sender<Input>) -> Result<Process, std::io::Error> {
    let missing = || std::io::Error::other("a worker was started without pipes");
    let stdin = child.stdin.take().ok_or_else(missing)?;
    let mut stdout = child.stdout.take().ok_or_else(missing)?;
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let child = Arc::new(Mutex::new(child));
    let shared = Arc::clone(&child);
    let tail = std::thread::spawn(move || last_lines(BufReader::new(stderr)));
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
        let said = tail.join().unwrap_or_else(|_| String::new());
        let status = lock(&shared).wait();
        let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
        let mut text = why.map_or_else(
            || format!("worker ended: {status}"),
            |w| format!("{w}; {status}"),
        );
        if !said.is_empty() {
            text = format!("{text}; it said: {said}");
        }
        let _ = inputs.send(Input::Gone(device, text));
    });
    Ok(Process {
        child,
        stdin: Some(BufWriter::new(stdin)),
        reader: Some(reader),
    })
}

fn last_lines(reader: impl BufRead) -> String {
    let mut kept = std::collections::VecDeque::new();
    for line in reader.split(b'\n') {
        let Ok(line) = line else { break };
        let text: String = String::from_utf8_lossy(&line)
            .chars()
            .filter(|c| !c.is_control())
            .take(300)
            .collect();
        if kept.len() == STDERR_LINES {
            kept.pop_front();
        }
        kept.push_back(text);
    }
    Vec::from(kept).join(" | ")
}
