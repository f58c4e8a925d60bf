//! The thread that writes the journal, so that a slow disk holds up neither load nor sensors.
//!
//! Frames are on disk at most a second after they were handed over. A disk that fails is told to
//! the run as a fault, once for each failure; later frames are tried again.

use crate::run::Input;
use hallmark_results::frame::Frame;
use hallmark_results::store::journal::JournalWriter;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest time from a frame to the disk.
const SYNC: Duration = Duration::from_millis(900);

/// The journal while a run lasts.
pub struct Pen {
    frames: Option<Sender<Frame>>,
    thread: Option<JoinHandle<JournalWriter>>,
}

impl Pen {
    pub fn start(journal: JournalWriter, inputs: Sender<Input>) -> Self {
        let (frames, inbox) = channel();
        let thread = std::thread::spawn(move || write(journal, &inbox, &inputs));
        Self {
            frames: Some(frames),
            thread: Some(thread),
        }
    }

    pub fn write(&self, frame: Frame) {
        if let Some(frames) = &self.frames {
            // The thread ends only after this sender is dropped.
            let _ = frames.send(frame);
        }
    }

    /// Writes what is left and gives the journal back; `None` if its thread died.
    pub fn finish(mut self) -> Option<JournalWriter> {
        self.frames = None;
        self.thread.take()?.join().ok()
    }
}

fn write(
    mut journal: JournalWriter,
    inbox: &Receiver<Frame>,
    inputs: &Sender<Input>,
) -> JournalWriter {
    let mut failing = false;
    let mut due = hallmark_kernels::timer::now_ns() + SYNC.as_nanos() as u64;
    let mut dirty = false;
    loop {
        let now = hallmark_kernels::timer::now_ns();
        let wait = Duration::from_nanos(due.saturating_sub(now));
        let result = match inbox.recv_timeout(wait) {
            Ok(frame) => {
                dirty = true;
                journal.append(&frame)
            }
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                report(journal.sync(), &mut failing, inputs);
                return journal;
            }
        };
        report(result, &mut failing, inputs);
        let now = hallmark_kernels::timer::now_ns();
        if now >= due {
            if dirty {
                report(journal.sync(), &mut failing, inputs);
                dirty = false;
            }
            due = now + SYNC.as_nanos() as u64;
        }
    }
}

fn report<E: std::fmt::Display>(result: Result<(), E>, failing: &mut bool, inputs: &Sender<Input>) {
    match result {
        Ok(()) => *failing = false,
        Err(error) if !*failing => {
            *failing = true;
            let _ = inputs.send(Input::JournalFailed(error.to_string()));
        }
        Err(_) => {}
    }
}
