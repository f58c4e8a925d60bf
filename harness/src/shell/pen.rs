//! The thread that writes the journal, so that a slow disk holds up neither load nor sensors.
//!
//! Frames are on disk at most a second after they were handed over. A disk that fails is told to
//! the run as a fault; the frames it refused are kept in memory and tried again in their order, so
//! that a journal never has a hole. A frame that no disk will ever take is set aside at once and told
//! as a fault, so that it keeps no later one out. What could not be written by the end is counted, and
//! such a journal is not sealed.

use crate::run::Input;
use crate::shell::inbox::Inlet;
use hallmark_results::frame::Frame;
use hallmark_results::store::error::StoreError;
use hallmark_results::store::journal::JournalWriter;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Longest time from a frame to the disk.
const SYNC: Duration = Duration::from_millis(900);
/// Frames kept for a disk that refuses them; an hour of a node of eight devices.
const KEPT_MAX: usize = 200_000;

/// The journal while a run lasts.
pub struct Pen {
    frames: Option<Sender<(u64, Frame)>>,
    written: Receiver<Written>,
    /// Frames handed over that the thread has not looked at: a disk that hangs must not fill the memory.
    waiting: Arc<AtomicUsize>,
    /// Frames that were not even handed over, and those of them of which the run was told.
    refused: AtomicUsize,
    told: AtomicUsize,
    inputs: Inlet,
    /// Number of the latest frame that was handed over.
    handed: AtomicU64,
    depth: Arc<Depth>,
}

/// How far the journal reaches.
struct Depth {
    /// Number up to which all frames were written and synced, or set aside since no disk takes them, or lost.
    synced: AtomicU64,
    /// Number of the first that was lost: whoever sent it is to keep it, and all that came after it.
    lost: AtomicU64,
}

/// A journal, and how many frames it lacks.
pub struct Written {
    pub journal: JournalWriter,
    pub lost: usize,
}

impl Pen {
    pub fn start(journal: JournalWriter, inputs: Inlet) -> Self {
        let (frames, inbox) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let depth = Arc::new(Depth {
            synced: AtomicU64::new(0),
            lost: AtomicU64::new(u64::MAX),
        });
        let writer = Writer {
            journal,
            kept: VecDeque::new(),
            unsynced: VecDeque::new(),
            latest: 0,
            dropped: 0,
            failing: false,
            troubles: Vec::new(),
            waiting: Arc::clone(&waiting),
            depth: Arc::clone(&depth),
            inputs: inputs.clone(),
        };
        let (end, written) = channel();
        // Nobody joins this thread: one whose disk hangs cannot be ended.
        std::thread::spawn(move || {
            let _ = end.send(writer.serve(&inbox));
        });
        Self {
            frames: Some(frames),
            written,
            waiting,
            refused: AtomicUsize::new(0),
            told: AtomicUsize::new(0),
            inputs,
            handed: AtomicU64::new(0),
            depth,
        }
    }

    /// Number of the latest frame that was handed over, counted from 1.
    pub fn handed(&self) -> u64 {
        self.handed.load(Ordering::Relaxed)
    }

    /// Number up to which all frames are on disk, or were set aside because no disk will ever take them. From one that was
    /// lost on there is none, whatever came to the disk after it.
    pub fn durable(&self) -> u64 {
        // In this order: what is lost was noted before anything behind it was synced.
        let synced = self.depth.synced.load(Ordering::Acquire);
        synced.min(self.depth.lost.load(Ordering::Acquire) - 1)
    }

    /// Hands a frame over without waiting.
    pub fn write(&self, frame: Frame) {
        let number = self.handed.fetch_add(1, Ordering::Relaxed) + 1;
        if self.waiting.load(Ordering::Relaxed) >= KEPT_MAX {
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.depth.lost.fetch_min(number, Ordering::Release);
            return;
        }
        self.tell();
        if let Some(frames) = &self.frames {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            // The thread ends only after this sender is dropped.
            let _ = frames.send((number, frame));
        }
    }

    /// Tells the run of frames that were refused, now that there is room for what it makes of that: the hole stands in the
    /// record, whoever seals it.
    fn tell(&self) {
        let refused = self.refused.load(Ordering::Relaxed);
        let untold = refused.saturating_sub(self.told.load(Ordering::Relaxed));
        if untold > 0 {
            let what = format!("{untold} frames were refused, since the disk took none for long");
            if self.inputs.offer(Input::JournalFailed(what)) {
                self.told.store(refused, Ordering::Relaxed);
            }
        }
    }

    /// Writes what is left and gives the journal back.
    ///
    /// # Errors
    /// What keeps it, in words: a disk that does not answer within `limit`, or a thread that died.
    pub fn finish(mut self, limit: Duration) -> Result<Written, String> {
        self.frames = None;
        let mut written = self.written.recv_timeout(limit).map_err(|e| match e {
            RecvTimeoutError::Timeout => {
                let seconds = limit.as_secs();
                format!("the disk has not answered for {seconds} s")
            }
            RecvTimeoutError::Disconnected => "the journal's thread died".to_owned(),
        })?;
        written.lost += self.refused.load(Ordering::Relaxed);
        Ok(written)
    }
}

struct Writer {
    journal: JournalWriter,
    /// Frames that the disk refused, oldest first, with their numbers.
    kept: VecDeque<(u64, Frame)>,
    /// Frames appended and not yet synced: a sync that fails takes them back out of the journal.
    unsynced: VecDeque<(u64, Frame)>,
    /// Number of the latest frame that came.
    latest: u64,
    dropped: usize,
    failing: bool,
    /// What the run is still to be told: it may be too busy to take it now, and is never waited for.
    troubles: Vec<Input>,
    waiting: Arc<AtomicUsize>,
    depth: Arc<Depth>,
    inputs: Inlet,
}

/// Faults kept for a run that does not look.
const TROUBLES_MAX: usize = 64;

impl Writer {
    fn serve(mut self, inbox: &Receiver<(u64, Frame)>) -> Written {
        let now = hallmark_kernels::timer::now_ns;
        let mut due = now() + SYNC.as_nanos() as u64;
        let mut dirty = false;
        loop {
            let wait = Duration::from_nanos(due.saturating_sub(now()));
            match inbox.recv_timeout(wait) {
                Ok(frame) => {
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
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
                self.tell();
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

    fn keep(&mut self, numbered: (u64, Frame)) {
        self.latest = numbered.0;
        if self.kept.len() < KEPT_MAX {
            self.kept.push_back(numbered);
        } else {
            self.dropped += 1;
            self.depth.lost.fetch_min(numbered.0, Ordering::Release);
        }
    }

    /// Writes what is kept, up to the first frame that the disk refuses.
    fn flush(&mut self) {
        while let Some((_, frame)) = self.kept.front() {
            match self.journal.append(frame) {
                Ok(()) => {
                    self.failing = false;
                    self.unsynced.extend(self.kept.pop_front());
                }
                Err(
                    error @ (StoreError::Shape(_)
                    | StoreError::FrameTooLarge { .. }
                    | StoreError::Encode(_)),
                ) => {
                    // No later try will take it.
                    self.kept.pop_front();
                    self.dropped += 1;
                    let what = format!("a frame was set aside: {error}");
                    self.trouble(Input::JournalFailed(what));
                }
                Err(error) => return self.fail(&error),
            }
        }
    }

    fn sync(&mut self) {
        match self.journal.sync() {
            Ok(()) => {
                let first = self.kept.front().map(|(number, _)| number - 1);
                let synced = first.unwrap_or(self.latest);
                self.depth.synced.store(synced, Ordering::Release);
                self.unsynced.clear();
                self.failing = false;
            }
            Err(error) => {
                self.unsynced.append(&mut self.kept);
                std::mem::swap(&mut self.unsynced, &mut self.kept);
                self.fail(&error);
            }
        }
    }

    fn fail(&mut self, error: &StoreError) {
        if !self.failing {
            self.failing = true;
            self.trouble(Input::JournalFailed(error.to_string()));
        }
    }

    fn trouble(&mut self, what: Input) {
        if self.troubles.len() < TROUBLES_MAX {
            self.troubles.push(what);
        }
        self.tell();
    }

    fn tell(&mut self) {
        let inputs = &self.inputs;
        self.troubles.retain(|t| !inputs.offer(t.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::inbox;
    use hallmark_results::frame::{ClockState, Closed, Ending, Samples};
    use hallmark_results::store::journal::JournalReader;

    fn until(ready: impl Fn() -> bool) {
        let looks = 20 * SYNC.as_millis() / 20;
        let came = (0..looks).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            ready()
        });
        assert!(came, "it did not come to the disk");
    }

    #[test]
    fn what_was_refused_while_the_disk_hung_is_never_durable_and_the_run_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (inlet, inputs) = inbox::open();
        let pen = Pen::start(JournalWriter::create(folder.path()).unwrap(), inlet);
        // As many as a disk that does not answer leaves there.
        pen.waiting.fetch_add(KEPT_MAX, Ordering::Relaxed);
        pen.write(crate::view::plain::sample::opened(2, "lost"));
        assert!(
            inputs.try_recv().is_err(),
            "there is no room for what it makes of it"
        );
        pen.waiting.fetch_sub(KEPT_MAX, Ordering::Relaxed);
        pen.write(crate::view::plain::sample::opened(2, "pen"));
        let told = inputs.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(
            matches!(&told, Input::JournalFailed(why) if why.starts_with("1 frames were refused")),
            "{told:?}"
        );
        until(|| pen.depth.synced.load(Ordering::Acquire) > 0);
        assert_eq!(
            (pen.handed(), pen.durable()),
            (2, 0),
            "what comes after a hole makes up for nothing before it"
        );
        assert_eq!(pen.finish(SYNC * 10).unwrap().lost, 1);
    }

    #[test]
    fn a_frame_that_no_journal_takes_is_set_aside_and_told_and_the_next_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (inlet, inputs) = inbox::open();
        let pen = Pen::start(JournalWriter::create(folder.path()).unwrap(), inlet);
        pen.write(crate::view::plain::sample::opened(2, "pen"));
        // Rows of a table that was never declared.
        pen.write(Frame::Samples(Samples {
            table: 7,
            ..Samples::default()
        }));
        pen.write(Frame::Closed(Closed {
            at_ns: 1,
            utc_end: String::new(),
            clock: ClockState {
                synchronised: None,
                max_error_s: None,
            },
            ending: Ending::Complete,
        }));
        let told = inputs.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(
            matches!(&told, Input::JournalFailed(why) if why.contains("table 7")),
            "{told:?}"
        );
        // One that is set aside is settled in its turn.
        until(|| pen.durable() == 3);
        let written = pen.finish(SYNC * 10).unwrap();
        assert_eq!(written.lost, 1, "it is counted");
        drop(written);
        let frames = JournalReader::open(folder.path()).unwrap();
        let frames: Vec<_> = frames.map(|f| f.unwrap()).collect();
        assert_eq!(frames.len(), 2);
        assert!(matches!(frames[1], Frame::Closed(_)));
    }
}
