//! Seals a run: the journal's frames as files that every tool reads, under one digest.
//!
//! It reads the journal twice, once to check all of it and learn its declarations, once to write. Memory
//! is bounded by the declarations, the events and [`CELLS_HELD`], and changes no byte of what is sealed. Each file gets
//! its name when it is whole and durable, manifest and seal last, and the journal goes only after the record was read
//! back: killed at any instant, the run is as sealed as before or fully, and sealing again does the rest.
//! It refuses a damaged journal; an unfinished last frame is left out, and the manifest says so.

use super::error::{Operation, StoreError};
use super::journal::{self, JOURNAL, JournalReader, Tail};
use super::manifest::{
    EVENTS, FileEntry, JournalEnd, MANIFEST, Manifest, OPENED, PENDING, Pending, SEAL,
    is_record_file,
};
use super::read::{Record, Story};
use super::sheets::Sheets;
use super::{sync_folder, tables};
use crate::frame::{Frame, Opened, Provenance};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;

/// Cells that all tables together hold back in memory, 32 MiB of them.
pub const CELLS_HELD: usize = 4 << 20;

/// A run that was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// SHA-256 of the manifest, in hexadecimal: who notes it can tell any later change.
    pub head: String,
    pub manifest: Manifest,
}

/// How far sealing is, of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of the journal that were checked.
    Checked(u64, u64),
    /// Frames of the journal that were read again.
    Read(u64, u64),
    /// Files that were written.
    Written(u64, u64),
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |part: &u64, whole: &u64| 100 * u128::from(*part) / u128::from(*whole).max(1);
        match self {
            Self::Checked(part, whole) => {
                write!(f, "{} % of the journal checked", percent(part, whole))
            }
            Self::Read(part, whole) => write!(f, "{} % of the rows read", percent(part, whole)),
            Self::Written(part, whole) => write!(f, "{part} of {whole} files written"),
        }
    }
}

/// Seals the run in `dir`. A run that is sealed already is checked and returned as it is.
///
/// # Errors
/// [`StoreError::Busy`] while the run goes on, [`StoreError::Damaged`] for a journal that is not what
/// was written, [`StoreError::Empty`] without a first frame, and what files can meet. The journal then stays.
pub fn seal(dir: &Path) -> Result<Sealed, StoreError> {
    seal_telling(dir, CELLS_HELD, &mut |_| {})
}

/// As [`seal`], with at most about `cells` of the tables in memory; the others wait in a file beside the journal. `tell`
/// hears after each frame and file how far it is.
///
/// # Errors
/// As [`seal`].
pub fn seal_telling(
    dir: &Path,
    cells: usize,
    tell: &mut dyn FnMut(Progress),
) -> Result<Sealed, StoreError> {
    let path = dir.join(JOURNAL);
    let journal = match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return sealed(&Record::open(dir)?),
        Err(e) => return Err(StoreError::io(&path, Operation::Write, e)),
    };
    journal::lock(&journal, &path)?;
    if !path.exists() {
        // Another process sealed the run between the opening and the lock.
        return sealed(&Record::open(dir)?);
    }
    let survey = Survey::read(dir, tell)?;
    let done = Record::open(dir)
        .ok()
        .filter(|r| r.manifest().journal == survey.end);
    let record = match done {
        Some(record) => record,
        None => {
            clear(dir)?;
            write(dir, &survey, cells, tell)?;
            Record::open(dir)?
        }
    };
    std::fs::remove_file(&path).map_err(|e| StoreError::io(&path, Operation::Remove, e))?;
    sync_folder(dir)?;
    sealed(&record)
}

fn sealed(record: &Record) -> Result<Sealed, StoreError> {
    Ok(Sealed {
        head: record.head().to_owned(),
        manifest: record.manifest().clone(),
    })
}

/// Removes what an earlier attempt left; the seal first, so that no seal ever lies over other files.
fn clear(dir: &Path) -> Result<(), StoreError> {
    let listed = std::fs::read_dir(dir).map_err(|e| StoreError::io(dir, Operation::Read, e))?;
    let mut names = vec![SEAL.to_owned(), MANIFEST.to_owned()];
    for entry in listed {
        let entry = entry.map_err(|e| StoreError::io(dir, Operation::Read, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let whole = name.strip_suffix(PENDING).unwrap_or(&name);
        if is_record_file(whole) || (whole.len() < name.len() && [SEAL, MANIFEST].contains(&whole))
        {
            names.push(name);
        }
    }
    for name in names {
        let path = dir.join(name);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(StoreError::io(&path, Operation::Remove, e));
            }
            _ => {}
        }
    }
    sync_folder(dir)
}

/// What the first reading of the journal learns.
struct Survey {
    opened: Opened,
    story: Story,
    /// For each table and series whether 32 bits hold all its values.
    narrow: Vec<Vec<bool>>,
    end: JournalEnd,
}

impl Survey {
    fn read(dir: &Path, tell: &mut dyn FnMut(Progress)) -> Result<Self, StoreError> {
        let mut reader = JournalReader::open(dir)?;
        let mut opened = None;
        let mut story = Story::default();
        let mut narrow: Vec<Vec<bool>> = Vec::new();
        while let Some(frame) = reader.next() {
            tell(Progress::Checked(reader.bytes(), reader.length()));
            match frame? {
                Frame::Opened(first) => opened = Some(*first),
                Frame::Table(table) if table.id as usize == narrow.len() => {
                    narrow.push(vec![true; table.series.len()]);
                    story.tables.push(table);
                }
                // The same declaration once more, by a resumed run.
                Frame::Table(_) | Frame::Steps(_) => {}
                Frame::Samples(samples) => {
                    let flags = narrow[samples.table as usize]
                        .iter_mut()
                        .zip(&samples.columns);
                    for (flag, values) in flags {
                        *flag = *flag && values.iter().all(|v| tables::is_narrow(*v));
                    }
                }
                Frame::Event(event) => story.events.push(event),
                Frame::Closed(closed) => story.closed = Some(closed),
            }
        }
        let opened = opened.ok_or_else(|| StoreError::Empty {
            path: dir.join(JOURNAL),
        })?;
        let torn_bytes = match reader.tail() {
            Tail::Whole => 0,
            Tail::Torn { bytes, .. } => bytes,
        };
        Ok(Self {
            opened,
            story,
            narrow,
            end: JournalEnd {
                head: reader.chain_head(),
                frames: reader.frames(),
                torn_bytes,
            },
        })
    }
}

fn write(
    dir: &Path,
    survey: &Survey,
    cells: usize,
    tell: &mut dyn FnMut(Progress),
) -> Result<(), StoreError> {
    let mut sheets = Sheets::create(dir, &survey.story.tables, &survey.narrow, cells)?;
    for (frame, index) in JournalReader::open(dir)?.zip(1..) {
        tell(Progress::Read(index, survey.end.frames));
        match frame? {
            Frame::Steps(steps) => sheets.steps(&steps)?,
            Frame::Samples(samples) => sheets.samples(&samples)?,
            _ => {}
        }
    }
    let files = sheets.finish(tell)?;
    write_seal(
        dir,
        &survey.opened,
        &survey.story,
        files,
        survey.end.clone(),
    )
}

/// Writes the JSON files, the manifest and the seal around data files that are whole.
pub(super) fn write_seal(
    dir: &Path,
    opened: &Opened,
    story: &Story,
    data: Vec<FileEntry>,
    journal: JournalEnd,
) -> Result<(), StoreError> {
    let encode = |e: serde_json::Error| StoreError::Encode(e.to_string());
    let first = serde_json::to_vec_pretty(opened).map_err(encode)?;
    // A number that JSON cannot say must show here, while the journal is there, and not in a year.
    let again: Opened = serde_json::from_slice(&first).map_err(encode)?;
    if again.plan != opened.plan {
        return Err(StoreError::Encode(
            "the plan does not survive JSON".to_owned(),
        ));
    }
    let mut files = vec![
        Pending::write(dir, OPENED, &first, 1)?,
        Pending::write(
            dir,
            EVENTS,
            &serde_json::to_vec(story).map_err(encode)?,
            story.events.len() as u64,
        )?,
    ];
    files.extend(data);
    let devices = opened.plan.devices.iter().map(|d| d.provenance);
    let provenance: BTreeSet<Provenance> = devices
        .chain(story.tables.iter().map(|t| t.provenance))
        .collect();
    let manifest = Manifest {
        format_version: crate::frame::FORMAT_VERSION,
        run_id: opened.run_id.clone(),
        hallmark_version: opened.hallmark_version.clone(),
        plan_digest: opened.plan_digest.clone(),
        profile_digest: opened.plan.profile_digest.clone(),
        journal,
        provenance: provenance.into_iter().collect(),
        files,
    };
    // The names must be durable before the manifest that lists them, and it before its seal.
    sync_folder(dir)?;
    let entry = Pending::write(dir, MANIFEST, &manifest.encode()?, 1)?;
    sync_folder(dir)?;
    Pending::write(dir, SEAL, format!("{}\n", entry.sha256).as_bytes(), 1)?;
    sync_folder(dir)
}

/// Writes a sealed record straight from frames, without a journal: for records that are made, not run.
///
/// `frames`: as a journal would hold them, all declarations before the first row. Gauges are kept in 32
/// bits where `narrow` says so; a value that does not fit is rounded. Returns the record's head.
///
/// # Errors
/// As [`seal`], and [`StoreError::Exists`] where `dir` holds a run.
pub fn synthesize(
    dir: &Path,
    opened: &Opened,
    story: &Story,
    narrow: bool,
    rows: impl Iterator<Item = Frame>,
) -> Result<String, StoreError> {
    if dir.join(SEAL).exists() || dir.join(MANIFEST).exists() || dir.join(JOURNAL).exists() {
        return Err(StoreError::Exists(dir.to_path_buf()));
    }
    let widths: Vec<Vec<bool>> = story
        .tables
        .iter()
        .map(|t| vec![narrow; t.series.len()])
        .collect();
    let mut shape = super::shape::Shape::default();
    shape.check(&Frame::Opened(Box::new(opened.clone())))?;
    for table in &story.tables {
        shape.check(&Frame::Table(table.clone()))?;
    }
    let mut sheets = Sheets::create(dir, &story.tables, &widths, CELLS_HELD)?;
    for frame in rows {
        shape.check(&frame)?;
        match frame {
            Frame::Steps(steps) => sheets.steps(&steps)?,
            Frame::Samples(samples) => sheets.samples(&samples)?,
            _ => {}
        }
    }
    let end = JournalEnd {
        head: String::new(),
        frames: 0,
        torn_bytes: 0,
    };
    write_seal(dir, opened, story, sheets.finish(&mut |_| {})?, end)?;
    Ok(Record::open(dir)?.head().to_owned())
}
