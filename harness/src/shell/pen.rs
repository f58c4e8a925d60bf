//! The thread that writes the journal, so that a slow disk holds up neither load nor sensors.
//!
//! Frames are on disk at most a second after they were handed over. A disk that fails is told to
//! the run as a fault; the frames it refused are kept in memory and tried again in their order, so
//! that a journal never has a hole. What could not be written by the end is counted, and such a
//! journal is not sealed.

use crate::run::Input;
use hallmark_results::frame::Frame;
use hallmark_results::store::journal::JournalWriter;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest time from a frame to the disk.
const SYNC: Duration = Duration::from_millis(900);
/// Frames kept for a disk that refuses them; an hour of a node of eight devices.
const KEPT_MAX: usize = 200_000;

/// The journal while a run lasts.
pub struct Pen {
    frames: Option<Sender<Frame>>,
    thread: Option<JoinHandle<Written>>,
}

/// A journal, and how many frames it lacks.
pub struct Written {
    pub journal: JournalWriter,
    pub lost: usize,
}

impl Pen {
    pub fn start(journal: JournalWriter, inputs: Sender<Input>) -> Self {
        let (frames, inbox) = channel();
        let writer = Writer {
            journal,
            kept: VecDeque::new(),
            unsynced: VecDeque::new(),
            dropped: 0,
            failing: false,
            inputs,
        };
        let thread = std::thread::spawn(move || writer.serve(&inbox));
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
    pub fn finish(mut self) -> Option<Written> {
        self.frames = None;
        self.thread.take()?.join().ok()
    }
}

struct Writer {
    journal: JournalWriter,
    /// Frames that the disk refused, oldest first.
    kept: VecDeque<Frame>,
    /// Frames appended and not yet synced: a sync that fails takes them back out of the journal.
    unsynced: VecDeque<Frame>,
    dropped: usize,
    failing: bool,
    inputs: Sender<Input>,
}

impl Writer {
    fn serve(mut self, inbox: &Receiver<Frame>) -> Written {
        let now = hallmark_kernels::timer::now_ns;
        let mut due = now() + SYNC.as_nanos() as u64;
        let mut dirty = false;
        loop {
            let wait = Duration::from_nanos(due.saturating_sub(now()));
            match inbox.recv_timeout(wait) {
                Ok(frame) => {
                    dirty = true;
                    self.keep(frame);
                    // A disk that refused a frame is asked again at the next sync, not for each frame.
                    if !self.failing {
                        self.flush();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if now() >= due {
                if dirty {
                    self.flush();
                    self.sync();
                    dirty = !self.kept.is_empty();
                }
                due = now() + SYNC.as_nanos() as u64;
            }
        }
        self.flush();
        self.sync();
        Written {
            lost: self.kept.len() + self.dropped,
            journal: self.journal,
        }
    }

    fn keep(&mut self, frame: Frame) {
        if self.kept.len() < KEPT_MAX {
            self.kept.push_back(frame);
        } else {
            self.dropped += 1;
        }
    }

    /// Writes what is kept, up to the first frame that the disk refuses.
    fn flush(&mut self) {
        while let Some(frame) = self.kept.front() {
            let appended = self.journal.append(frame);
            let refused = appended.is_err();
            self.note(appended);
            if refused {
                return;
            }
            self.unsynced.extend(self.kept.pop_front());
        }
    }

    fn sync(&mut self) {
        let synced = self.journal.sync();
        if synced.is_err() {
            self.unsynced.append(&mut self.kept);
            std::mem::swap(&mut self.unsynced, &mut self.kept);
        } else {
            self.unsynced.clear();
        }
        self.note(synced);
    }

    fn note<E: std::fmt::Display>(&mut self, result: Result<(), E>) {
        match result {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                let _ = self.inputs.send(Input::JournalFailed(error.to_string()));
            }
            Err(_) => {}
        }
    }
}
