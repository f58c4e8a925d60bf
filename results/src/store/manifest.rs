//! The manifest: what a sealed record consists of, byte for byte, and the seal over it.
//!
//! Decides which file names a record may hold; a name from a record is hostile until it passed here.
//! The head of a record is the SHA-256 of its manifest: who notes it can tell any later change.

use super::error::{Operation, StoreError};
use super::shape::is_table_name;
use crate::frame::{FORMAT_VERSION, Provenance};
use crate::plan::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

/// Hexadecimal SHA-256 of the manifest and a newline; the last file to be written.
pub const SEAL: &str = "seal";
/// What the record consists of.
pub const MANIFEST: &str = "manifest.json";
/// The opening frame.
pub const OPENED: &str = "opened.json";
/// Declared tables, events in order, and the closing frame.
pub const EVENTS: &str = "events.json";
/// Completed steps of all devices, in the journal's order.
pub const STEPS: &str = "steps.parquet";
/// All-reduce operations of all devices, in the journal's order.
pub const OPS: &str = "ops.parquet";
/// Only in the record of a run that swept.
pub const TRIALS: &str = "sweep.parquet";
/// Largest manifest and largest JSON file that are read, B.
const MANIFEST_MAX: u64 = 16 << 20;
const JSON_MAX: u64 = 1 << 30;

/// What a sealed record consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub format_version: u32,
    pub run_id: String,
    pub hallmark_version: String,
    /// SHA-256 of the plan's JSON.
    pub plan_digest: String,
    /// SHA-256 of the profile's text.
    pub profile_digest: String,
    pub journal: JournalEnd,
    /// Every provenance that a device or a table has, once.
    pub provenance: Vec<Provenance>,
    pub files: Vec<FileEntry>,
}

/// The journal that was sealed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEnd {
    /// Its chain's head, in hexadecimal.
    pub head: String,
    pub frames: u64,
    /// Bytes of an unfinished last frame, which the record leaves out; 0 after a run that ended in good order.
    pub torn_bytes: u64,
}

/// One file of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    pub name: String,
    pub bytes: u64,
    /// In hexadecimal.
    pub sha256: String,
    /// Rows of a Parquet file, entries of a JSON file.
    pub rows: u64,
}

#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

/// A table's file in a record.
pub fn table_file(name: &str) -> String {
    format!("telemetry-{name}.parquet")
}

/// Whether a record may hold a file of this name.
pub fn is_record_file(name: &str) -> bool {
    let table = name
        .strip_prefix("telemetry-")
        .and_then(|n| n.strip_suffix(".parquet"));
    [OPENED, EVENTS, STEPS, OPS, TRIALS].contains(&name) || table.is_some_and(is_table_name)
}

impl Manifest {
    /// The bytes of `manifest.json`.
    ///
    /// # Errors
    /// [`StoreError::Encode`], which no manifest of [`super::seal()`] meets.
    pub fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let json =
            serde_json::to_vec_pretty(self).map_err(|e| StoreError::Encode(e.to_string()))?;
        Ok([json, b"\n".to_vec()].concat())
    }

    /// Reads and checks the manifest in `dir` against its seal. Returns it with the record's head.
    ///
    /// # Errors
    /// [`StoreError::NoRun`], [`StoreError::Missing`], [`StoreError::Altered`], [`StoreError::Version`],
    /// [`StoreError::Format`].
    pub fn read(dir: &Path) -> Result<(Self, String), StoreError> {
        let seal_path = dir.join(SEAL);
        let path = dir.join(MANIFEST);
        if !seal_path.exists() && !path.exists() {
            return Err(StoreError::NoRun(dir.to_path_buf()));
        }
        let seal = read_small(&seal_path, 4096)?;
        let bytes = read_small(&path, MANIFEST_MAX)?;
        let head = hex(&Sha256::digest(&bytes));
        if seal != format!("{head}\n").into_bytes() {
            return Err(StoreError::altered(
                &path,
                "its SHA-256 is not the one in `seal`",
            ));
        }
        let version: VersionOnly =
            serde_json::from_slice(&bytes).map_err(|e| StoreError::format(&path, e))?;
        if version.format_version == 0 || version.format_version > FORMAT_VERSION {
            return Err(StoreError::Version {
                path,
                found: version.format_version,
                known: FORMAT_VERSION,
            });
        }
        let manifest: Self =
            serde_json::from_slice(&bytes).map_err(|e| StoreError::format(&path, e))?;
        let names: std::collections::BTreeSet<_> = manifest.files.iter().map(|f| &f.name).collect();
        if names.len() != manifest.files.len() {
            return Err(StoreError::format(&path, "a file is listed twice"));
        }
        if let Some(bad) = manifest.files.iter().find(|f| !is_record_file(&f.name)) {
            return Err(StoreError::format(
                &path,
                format!("`{}` is no file of a record", bad.name),
            ));
        }
        for needed in [OPENED, EVENTS, STEPS, OPS] {
            manifest.entry(dir, needed)?;
        }
        Ok((manifest, head))
    }

    /// The entry of a file.
    ///
    /// # Errors
    /// [`StoreError::Format`] where the manifest does not list it.
    pub fn entry(&self, dir: &Path, name: &str) -> Result<&FileEntry, StoreError> {
        let found = self.files.iter().find(|f| f.name == name);
        found.ok_or_else(|| {
            StoreError::format(&dir.join(MANIFEST), format!("`{name}` is not listed"))
        })
    }
}

impl FileEntry {
    /// Checks that the file in `dir` has this entry's length and digest.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Altered`], [`StoreError::Io`].
    pub fn verify(&self, dir: &Path) -> Result<(), StoreError> {
        let path = dir.join(&self.name);
        let mut file = open(&path)?;
        let failed = |e| StoreError::io(&path, Operation::Read, e);
        let length = file.metadata().map_err(failed)?.len();
        if length != self.bytes {
            let why = format!("it has {length} bytes, {} were sealed", self.bytes);
            return Err(StoreError::altered(&path, why));
        }
        let mut sha = Sha256::new();
        let mut piece = vec![0; 1 << 18];
        loop {
            let count = file.read(&mut piece).map_err(failed)?;
            if count == 0 {
                break;
            }
            sha.update(&piece[..count]);
        }
        if hex(&sha.finalize()) != self.sha256 {
            return Err(StoreError::altered(
                &path,
                "its SHA-256 is not the one in the manifest",
            ));
        }
        Ok(())
    }

    /// The file's bytes, checked; for the JSON files only.
    ///
    /// # Errors
    /// As [`Self::verify`]; [`StoreError::Format`] above 1 GiB.
    pub fn load(&self, dir: &Path) -> Result<Vec<u8>, StoreError> {
        let path = dir.join(&self.name);
        let bytes = read_small(&path, JSON_MAX)?;
        if bytes.len() as u64 != self.bytes || hex(&Sha256::digest(&bytes)) != self.sha256 {
            return Err(StoreError::altered(
                &path,
                "its SHA-256 is not the one in the manifest",
            ));
        }
        Ok(bytes)
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    let file = File::open(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => StoreError::Missing {
            path: path.to_path_buf(),
        },
        _ => StoreError::io(path, Operation::Open, e),
    })?;
    let kind = file
        .metadata()
        .map_err(|e| StoreError::io(path, Operation::Read, e))?;
    if !kind.is_file() {
        return Err(StoreError::altered(path, "it is not a plain file"));
    }
    Ok(file)
}

fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    let read = open(path)?.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|e| StoreError::io(path, Operation::Read, e))?;
    if bytes.len() as u64 > limit {
        return Err(StoreError::format(
            path,
            format!("it is longer than {limit} bytes"),
        ));
    }
    Ok(bytes)
}

/// A file under a temporary name that counts and digests what is written to it.
///
/// It gets its real name when it is whole and durable, so that a name in the folder means a whole file.
#[derive(Debug)]
pub(super) struct Pending {
    file: std::io::BufWriter<Appended>,
    dir: std::path::PathBuf,
    name: String,
    sha: Sha256,
    bytes: u64,
}

/// A file that is open only while something is written to it: a hall's record has more tables than a process may
/// have files open.
#[derive(Debug)]
struct Appended(std::path::PathBuf);

/// What is written at once, and what each of a record's files may hold back.
const HELD_BACK: usize = 16 << 10;

impl Appended {
    fn open(&self) -> std::io::Result<File> {
        File::options().append(true).open(&self.0)
    }
}

impl Write for Appended {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.open()?.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Ending of the name of a file that is not whole yet.
pub(super) const PENDING: &str = ".tmp";

impl Pending {
    pub fn create(dir: &Path, name: &str) -> Result<Self, StoreError> {
        let path = dir.join(format!("{name}{PENDING}"));
        File::create(&path).map_err(|e| StoreError::io(&path, Operation::Create, e))?;
        Ok(Self {
            file: std::io::BufWriter::with_capacity(HELD_BACK, Appended(path)),
            dir: dir.to_path_buf(),
            name: name.to_owned(),
            sha: Sha256::new(),
            bytes: 0,
        })
    }

    /// Makes the file durable and gives it its name. `rows`: what the entry says it holds.
    pub fn finish(mut self, rows: u64) -> Result<FileEntry, StoreError> {
        let pending = self.dir.join(format!("{}{PENDING}", self.name));
        self.file
            .flush()
            .map_err(|e| StoreError::io(&pending, Operation::Write, e))?;
        let synced = self.file.get_ref().open().and_then(|file| file.sync_all());
        synced.map_err(|e| StoreError::io(&pending, Operation::Sync, e))?;
        let renamed = std::fs::rename(&pending, self.dir.join(&self.name));
        renamed.map_err(|e| StoreError::io(&pending, Operation::Rename, e))?;
        Ok(FileEntry {
            name: self.name,
            bytes: self.bytes,
            sha256: hex(&self.sha.finalize()),
            rows,
        })
    }

    /// Writes a whole small file.
    pub fn write(dir: &Path, name: &str, bytes: &[u8], rows: u64) -> Result<FileEntry, StoreError> {
        let mut file = Self::create(dir, name)?;
        file.write_all(bytes)
            .map_err(|e| StoreError::io(&dir.join(name), Operation::Write, e))?;
        file.finish(rows)
    }
}

impl Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.sha.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
