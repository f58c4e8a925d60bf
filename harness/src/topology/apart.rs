//! Asking an engine for its devices in a process of its own, the same program: a driver that hangs or crashes there
//! takes neither the command nor the other engines along.
//!
//! Decides how long an answer is waited for and what is said where none came. Refuses to wait for a process that the
//! kernel cannot end: it is killed and left behind.

use crate::engines::{self, Choice};
use hallmark_kernels::backend::Backend;
use hallmark_kernels::device::{Absent, DeviceInfo};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Longest answer that is read: a thousand devices are some hundred kilobytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Between two looks at a process that was killed or has said all, and how many of them: half a second.
const LOOK: Duration = Duration::from_millis(10);
const LOOKS: u32 = 50;

/// What one engine sees, and what is not there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    pub devices: Vec<DeviceInfo>,
    pub absent: Vec<Absent>,
}

impl Listing {
    /// Asks the engine here and now.
    pub fn of(engine: &dyn Backend) -> Self {
        let (devices, absent) = match engine.list() {
            Ok(devices) => (devices, None),
            Err(absent) => (Vec::new(), Some(absent)),
        };
        let absent = absent.into_iter().chain(engine.missing());
        Self {
            devices,
            absent: absent.collect(),
        }
    }
}

/// The listing of the engine of this name, by this process.
///
/// # Errors
/// A sentence that lists the engines of this build.
pub fn listing(engine: &str, choice: &Choice) -> Result<Listing, String> {
    let engines = engines::all(choice);
    let named = engines.iter().find(|e| e.name() == engine);
    named.map(|e| Listing::of(e.as_ref())).ok_or_else(|| {
        let known: Vec<_> = engines.iter().map(|e| e.name()).collect();
        format!("unknown engine `{engine}`; known: {}", known.join(", "))
    })
}

/// A process that was asked.
pub struct Asked {
    child: Child,
    answer: Receiver<Vec<u8>>,
}

/// Starts this program again, to ask the engine of this name.
///
/// # Errors
/// Why it could not be started.
pub fn ask(engine: &str, choice: &Choice) -> Result<Asked, String> {
    let failed = |e: std::io::Error| format!("no process could be started to ask its driver: {e}");
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command
        .args(["probe", engine, "--cuda-matmul", choice.matmuls.name()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(folder) = &choice.folder {
        command.arg("--cuda-lib-path").arg(folder);
    }
    let mut child = command.spawn().map_err(failed)?;
    let (said, answer) = channel();
    let stdout = child.stdout.take();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(stdout) = stdout {
            // What came before a pipe broke is no whole answer, and is told as none.
            let _ = stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
        }
        let _ = said.send(bytes);
    });
    Ok(Asked { child, answer })
}

impl Asked {
    /// Waits for the answer.
    ///
    /// # Errors
    /// Why there is none: the driver was silent, or ended the process that asked it.
    pub fn answer(mut self, patience: Duration) -> Result<Listing, String> {
        let bytes = match self.answer.recv_timeout(patience) {
            Ok(bytes) => bytes,
            Err(RecvTimeoutError::Timeout) => {
                let seconds = patience.as_secs_f64();
                return Err(format!("the driver did not answer within {seconds} s"));
            }
            Err(RecvTimeoutError::Disconnected) => Vec::new(),
        };
        serde_json::from_slice(&bytes).map_err(|_| {
            let how = self.ended().map_or_else(
                || "without an end that could be seen".to_owned(),
                |status| format!("with {status}"),
            );
            format!("the process that asked the driver ended {how} and no answer")
        })
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        for _ in 0..LOOKS {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            crate::clock::sleep(LOOK);
        }
        None
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Whatever it still does, its answer is in or counts as none.
        let _ = self.child.kill();
        self.ended();
    }
}
