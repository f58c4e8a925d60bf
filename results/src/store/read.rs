//! Reads a run from its folder, sealed or not, as the frames that it consists of.
//!
//! A sealed record is checked before its first frame: the seal, the manifest, and every file's length and
//! digest. It refuses files that are missing, changed or foreign. An unsealed run is read from its journal,
//! and [`Integrity`] says so. Frames come in an order that gives [`crate::standing`] the same account as
//! the journal's: declarations and events first, then rows in each one's own order.

use super::columns::{Column, SheetReader, Spec};
use super::error::{Operation, StoreError};
use super::journal::{JOURNAL, JournalReader, Tail};
use super::manifest::{
    EVENTS, FileEntry, MANIFEST, Manifest, OPENED, OPS, SEAL, STEPS, TRIALS, table_file,
};
use super::shape::Shape;
use super::{COMPANIONS, tables};
use crate::frame::{Closed, Event, Frame, Opened, Samples, Steps, Table};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Rows of one frame at most: a table's batch then fits the processor's own cache.
pub const BATCH_ROWS: usize = 4096;
/// Batches decoded ahead of the reader.
const BATCHES_AHEAD: usize = 4;

/// All of a run but its rows; `events.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Story {
    pub tables: Vec<Table>,
    pub events: Vec<Event>,
    /// `None` for a run that was killed and sealed as it was.
    pub closed: Option<Closed>,
}

/// How far a run's files can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// Every byte is what the seal covers. It is proof only with a head noted elsewhere.
    Sealed,
    /// The journal's chain holds up to its end, but the run was never closed off.
    Unsealed { tail: Tail },
}

/// A run that can be read.
#[derive(Debug)]
pub struct Record {
    dir: PathBuf,
    manifest: Manifest,
    head: String,
    opened: Opened,
    story: Story,
}

impl Record {
    /// Opens and checks the sealed record in `dir`.
    ///
    /// # Errors
    /// [`StoreError::NoRun`], [`StoreError::Missing`], [`StoreError::Altered`], [`StoreError::Unknown`],
    /// [`StoreError::Version`], [`StoreError::Format`], each naming the file.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let (manifest, head) = Manifest::read(dir)?;
        no_foreign_file(dir, &manifest)?;
        verify_all(dir, &manifest.files)?;
        let opened_path = dir.join(OPENED);
        let bytes = manifest.entry(dir, OPENED)?.load(dir)?;
        let opened: Opened =
            serde_json::from_slice(&bytes).map_err(|e| StoreError::format(&opened_path, e))?;
        let story_path = dir.join(EVENTS);
        let bytes = manifest.entry(dir, EVENTS)?.load(dir)?;
        let story: Story =
            serde_json::from_slice(&bytes).map_err(|e| StoreError::format(&story_path, e))?;
        let record = Self {
            dir: dir.to_path_buf(),
            manifest,
            head,
            opened,
            story,
        };
        record
            .check_story()
            .map_err(|why| StoreError::format(&story_path, why))?;
        let named = (&record.opened.run_id, &record.opened.plan_digest);
        if named != (&record.manifest.run_id, &record.manifest.plan_digest) {
            return Err(StoreError::format(
                &opened_path,
                "it is of another run than the manifest",
            ));
        }
        Ok(record)
    }

    /// The declarations must make sense together, and there must be one file for each table.
    fn check_story(&self) -> Result<(), String> {
        let mut shape = Shape::default();
        let closed = self.story.closed.iter().cloned().map(Frame::Closed);
        for frame in self.declarations().chain(closed) {
            shape.check(&frame).map_err(|e| e.to_string())?;
        }
        let listed: BTreeSet<&str> = self
            .manifest
            .files
            .iter()
            .map(|f| f.name.as_str())
            .collect();
        let names: Vec<String> = shape.tables().iter().map(|t| table_file(&t.name)).collect();
        let mut declared: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        declared.extend([OPENED, EVENTS, STEPS, OPS]);
        declared.extend(listed.get(TRIALS));
        if let Some(odd) = listed.symmetric_difference(&declared).next() {
            return Err(format!(
                "`{odd}` is either listed or declared, but not both"
            ));
        }
        Ok(())
    }

    pub(super) fn rows(&self) -> Rows {
        let files = self.manifest.files.iter();
        Rows {
            dir: self.dir.clone(),
            files: files.map(|f| (f.name.clone(), f.clone())).collect(),
            tables: self.story.tables.clone(),
        }
    }

    pub(super) fn declarations(&self) -> impl Iterator<Item = Frame> + '_ {
        let opened = std::iter::once_with(|| Frame::Opened(Box::new(self.opened.clone())));
        let tables = self.story.tables.iter().cloned().map(Frame::Table);
        opened
            .chain(tables)
            .chain(self.story.events.iter().cloned().map(Frame::Event))
    }

    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Tables, events and the closing frame.
    pub fn story(&self) -> &Story {
        &self.story
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the manifest, in hexadecimal.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Whether this is the record whose head was noted; the case of letters does not matter.
    pub fn verify_head(&self, expected: &str) -> bool {
        self.head.eq_ignore_ascii_case(expected.trim())
    }

    /// All frames: the opening one, tables, events, steps, operations, samples table by table, the closing one.
    ///
    /// Rows are decoded on a thread of their own, a few batches ahead.
    pub fn frames(&self) -> Frames {
        let declared: Vec<Frame> = self.declarations().collect();
        let closed = self
            .story
            .closed
            .clone()
            .map(|c| Box::new(Frame::Closed(c)));
        let rows = self.rows();
        let (sender, receiver) = sync_channel(BATCHES_AHEAD);
        let thread = std::thread::spawn(move || rows.send_all(&sender));
        Frames {
            source: Source::Sealed {
                declared: declared.into_iter(),
                rows: Some((receiver, thread)),
                ready: Vec::new().into_iter(),
                closed,
                dir: self.dir.clone(),
            },
        }
    }
}

fn no_foreign_file(dir: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    let parts: BTreeSet<&str> = manifest.files.iter().map(|f| f.name.as_str()).collect();
    let listed = std::fs::read_dir(dir).map_err(|e| StoreError::io(dir, Operation::Read, e))?;
    for entry in listed {
        let entry = entry.map_err(|e| StoreError::io(dir, Operation::Read, e))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let part = parts.contains(&*name);
        // The journal is left where sealing was killed at its last step; its content is in the record.
        let own = part || [SEAL, MANIFEST, JOURNAL].contains(&&*name);
        if !own && !COMPANIONS.iter().any(|c| name.starts_with(c)) {
            return Err(StoreError::Unknown { path: entry.path() });
        }
    }
    Ok(())
}

/// Digests the files on as many threads as there are cores, four at most; the first error by the manifest's order.
fn verify_all(dir: &Path, files: &[FileEntry]) -> Result<(), StoreError> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(4);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failed: Vec<(usize, StoreError)> = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(index) else {
                return failed;
            };
            if let Err(error) = file.verify(dir) {
                failed.push((index, error));
            }
        }
    };
    let mut failed: Vec<(usize, StoreError)> = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = helpers
            .into_iter()
            .flat_map(|h| h.join().unwrap_or_default());
        own.into_iter().chain(others).collect()
    });
    failed.sort_by_key(|(index, _)| *index);
    failed
        .into_iter()
        .next()
        .map_or(Ok(()), |(_, error)| Err(error))
}

/// What whoever decodes rows needs.
pub(super) struct Rows {
    dir: PathBuf,
    /// By name.
    files: BTreeMap<String, FileEntry>,
    tables: Vec<Table>,
}

/// What one batch of rows becomes. It travels whole: the devices' steps lie row by row beside each other, so
/// that a batch of them is thousands of frames, and waking the reader for each would cost more than the rest.
pub(super) type Batch = Vec<Frame>;

type Sender = SyncSender<Result<Batch, StoreError>>;

impl Rows {
    pub(super) fn tables(&self) -> usize {
        self.tables.len()
    }

    fn send_all(&self, sender: &Sender) {
        // The receiver may be gone, which is no error.
        let sent = self.send_devices(sender).and_then(|()| {
            let mut take = |samples| sender.send(Ok(vec![Frame::Samples(samples)])).is_ok();
            (0..self.tables.len()).try_for_each(|t| self.table(t, &mut take))
        });
        if let Err(error) = sent {
            let _ = sender.send(Err(error));
        }
    }

    fn send_devices(&self, sender: &Sender) -> Result<(), StoreError> {
        let held = std::cell::RefCell::new(Batch::new());
        let mut each = |steps: &Steps| {
            held.borrow_mut().push(Frame::Steps(steps.clone()));
            true
        };
        self.devices(&mut each, &mut || sender.send(Ok(held.take())).is_ok())
    }

    /// Steps, operations and trials of all devices, as they lie beside each other; false where no more is wanted.
    pub(super) fn devices(
        &self,
        each: &mut dyn FnMut(&Steps) -> bool,
        batch: &mut dyn FnMut() -> bool,
    ) -> Result<(), StoreError> {
        type Show = fn(&[Column], usize, &mut dyn FnMut(&Steps) -> bool) -> bool;
        let sheets: [(&str, Vec<Spec>, Show); 3] = [
            (STEPS, tables::step_specs(), tables::each_steps),
            (OPS, tables::op_specs(), tables::each_ops),
            (TRIALS, tables::trial_specs(), tables::each_trials),
        ];
        for (name, specs, show) in sheets {
            if name == TRIALS && !self.files.contains_key(name) {
                continue;
            }
            self.sheet(name, specs, |columns, rows| {
                show(&columns, rows, each) && batch()
            })?;
        }
        Ok(())
    }

    /// The samples of one table, by its number.
    pub(super) fn table(
        &self,
        index: usize,
        take: &mut dyn FnMut(Samples) -> bool,
    ) -> Result<(), StoreError> {
        let Some(table) = self.tables.get(index) else {
            return Ok(());
        };
        let specs = tables::expected_specs(table);
        self.sheet(&table_file(&table.name), specs, |columns, _| {
            take(tables::take_samples(table.id, columns))
        })
    }

    fn sheet(
        &self,
        name: &str,
        specs: Vec<Spec>,
        mut take: impl FnMut(Vec<Column>, usize) -> bool,
    ) -> Result<(), StoreError> {
        let entry = self.files.get(name);
        let entry = entry.ok_or_else(|| {
            StoreError::format(&self.dir.join(MANIFEST), format!("`{name}` is not listed"))
        })?;
        let mut reader = SheetReader::open(&self.dir, entry, specs)?;
        while let Some((columns, rows)) = reader.batch(BATCH_ROWS)? {
            if !take(columns, rows) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The frames of a run. It ends at the first error.
#[derive(Debug)]
pub struct Frames {
    source: Source,
}

/// Decoded rows, and the thread that decodes them.
type Decoder = (Receiver<Result<Batch, StoreError>>, JoinHandle<()>);

#[derive(Debug)]
enum Source {
    Sealed {
        declared: std::vec::IntoIter<Frame>,
        rows: Option<Decoder>,
        /// What is left of the batch taken last.
        ready: std::vec::IntoIter<Frame>,
        closed: Option<Box<Frame>>,
        dir: PathBuf,
    },
    Journal(Box<JournalReader>),
    Ended,
}

impl Iterator for Frames {
    type Item = Result<Frame, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match &mut self.source {
            Source::Ended => None,
            Source::Journal(reader) => reader.next(),
            Source::Sealed {
                declared,
                rows,
                ready,
                closed,
                dir,
            } => {
                let declared = declared.next().map(Ok);
                declared
                    .or_else(|| next_row(ready, rows, dir))
                    .or_else(|| closed.take().map(|c| Ok(*c)))
            }
        };
        if !matches!(next, Some(Ok(_))) {
            self.source = Source::Ended;
        }
        next
    }
}

fn next_row(
    ready: &mut std::vec::IntoIter<Frame>,
    rows: &mut Option<Decoder>,
    dir: &Path,
) -> Option<Result<Frame, StoreError>> {
    loop {
        if let Some(frame) = ready.next() {
            return Some(Ok(frame));
        }
        let (receiver, _) = rows.as_ref()?;
        match receiver.recv() {
            Ok(Ok(batch)) => *ready = batch.into_iter(),
            Ok(Err(error)) => return Some(Err(error)),
            // The decoder is done, or dead.
            Err(_) => break,
        }
    }
    let (_, thread) = rows.take()?;
    // A decoder that gives up on hostile bytes by a panic ends its thread and nothing else.
    let ended = thread.join();
    ended.err().map(|_| {
        Err(StoreError::format(
            dir,
            "the decoder gave up on a Parquet file",
        ))
    })
}

/// A run opened from its folder, sealed or not.
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    record: Option<Record>,
    integrity: Integrity,
    head: String,
}

/// Opens the run in `dir`: the sealed record where there is one, else the journal, which is read through once.
///
/// # Errors
/// As [`Record::open`]; [`StoreError::Damaged`] for a journal that is not what was written.
pub fn open_any(dir: &Path) -> Result<Run, StoreError> {
    if dir.join(SEAL).exists() {
        let record = Record::open(dir)?;
        return Ok(Run {
            dir: dir.to_path_buf(),
            head: record.head().to_owned(),
            record: Some(record),
            integrity: Integrity::Sealed,
        });
    }
    let mut reader = JournalReader::open(dir)?;
    for frame in &mut reader {
        frame?;
    }
    Ok(Run {
        dir: dir.to_path_buf(),
        record: None,
        integrity: Integrity::Unsealed {
            tail: reader.tail(),
        },
        head: reader.chain_head(),
    })
}

impl Run {
    pub fn integrity(&self) -> &Integrity {
        &self.integrity
    }

    /// The sealed record, where the run is sealed.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// The record's head, or the journal's chain where the run is not sealed; in hexadecimal.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Whether this is the run whose head was noted; the case of letters does not matter.
    pub fn verify_head(&self, expected: &str) -> bool {
        self.head.eq_ignore_ascii_case(expected.trim())
    }

    /// All frames, see [`Record::frames`]; of a journal in its own order.
    ///
    /// # Errors
    /// [`StoreError`] where the journal is gone.
    pub fn frames(&self) -> Result<Frames, StoreError> {
        let source = match &self.record {
            Some(record) => return Ok(record.frames()),
            None => Source::Journal(Box::new(JournalReader::open(&self.dir)?)),
        };
        Ok(Frames { source })
    }
}
