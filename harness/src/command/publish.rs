//! `hallmark publish`: sealed records into a lake, and back out of it where a command names one there.

use crate::cli::Publish;
use crate::command::record::{Judged, open};
use crate::command::say;
use crate::exit::{Exit, Failure};
use crate::lake::{Lake, LakeError, Partition, RECORDS};
use hallmark_profiles::units::{Unit, human};
use hallmark_results::report::{FORMATS, rows};
use hallmark_results::store::Record;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The file that makes a record one; written last.
const SEAL: &str = "seal";
const MANIFEST: &str = "manifest.json";

/// Puts records where a fleet's queries find them.
///
/// # Errors
/// [`Failure`]: exit 3 for a record that does not verify, 2 for what the user can mend, 4 where the store fails.
pub fn publish(args: &Publish) -> Result<Exit, Failure> {
    // All are read before the first is sent: a wrong name among many leaves nothing half done.
    let mut ready = Vec::new();
    for folder in &args.records {
        if folder.is_file() {
            // Beside runs/ID lie what its job was asked with and what it said.
            say(&format!(
                "left out, since it is no folder: {}",
                folder.display()
            ));
            continue;
        }
        let record = Record::open(folder).map_err(Failure::inconclusive)?;
        let partition = Partition::new(&args.site, record.opened()).map_err(failure)?;
        ready.push((folder, record, partition));
    }
    let lake = Lake::open(&args.to).map_err(failure)?;
    for (folder, record, partition) in &ready {
        let judged = open(folder, None)?;
        send(&lake, folder, record, partition, &judged)?;
    }
    Ok(Exit::Accepted)
}

fn send(
    lake: &Lake,
    folder: &Path,
    record: &Record,
    partition: &Partition,
    judged: &Judged,
) -> Result<(), Failure> {
    let target = partition.folder(RECORDS);
    let seal_key = format!("{target}/{SEAL}");
    let seal = std::fs::read(folder.join(SEAL)).map_err(Failure::broken)?;
    let there = lake.read(&seal_key).map_err(failure)?;
    if there.as_ref().is_some_and(|other| *other != seal) {
        return Err(failure(LakeError::Taken { key: seal_key }));
    }
    let told = judged.story(folder);
    let story = told.as_story();
    for (table, text) in rows::tables(&story) {
        let path = format!("{}/{table}.jsonl", partition.folder(table));
        lake.write(&path, text.into_bytes()).map_err(failure)?;
    }
    let place = format!("{}/{target}", lake.url());
    if there.is_some() {
        say(&format!("already there: {place}"));
        return Ok(());
    }
    let mut bytes = 0;
    for file in &record.manifest().files {
        let path = format!("{target}/{}", file.name);
        let from = folder.join(&file.name);
        bytes += lake.send(&path, &from, &file.sha256).map_err(failure)?;
    }
    for format in FORMATS {
        let path = format!("{target}/{}", format.file());
        let text = format.write(&story);
        lake.write(&path, text.into_bytes()).map_err(failure)?;
    }
    let manifest = folder.join(MANIFEST);
    let path = format!("{target}/{MANIFEST}");
    bytes += lake
        .send(&path, &manifest, record.head())
        .map_err(failure)?;
    lake.write(&seal_key, seal).map_err(failure)?;
    say(&format!(
        "{place}: {} in {} files, head {}",
        human(bytes as f64, Unit::Byte),
        record.manifest().files.len() + 2,
        record.head()
    ));
    Ok(())
}

/// A record as a command names it: a folder, or a record's folder in a lake, which is brought here first.
pub struct Source {
    pub folder: PathBuf,
    /// What was brought here, which goes when this does.
    _brought: Option<TempDir>,
}

impl Source {
    /// # Errors
    /// [`Failure`]: exit 2 where there is no such record, 4 where the store fails.
    pub fn of(record: &Path) -> Result<Self, Failure> {
        let Some(url) = record.to_str().filter(|text| text.contains("://")) else {
            return Ok(Self {
                folder: record.to_path_buf(),
                _brought: None,
            });
        };
        let here = TempDir::with_prefix("hallmark-record-").map_err(Failure::broken)?;
        let lake = Lake::open(url).map_err(failure)?;
        if lake.read(SEAL).map_err(failure)?.is_none() {
            return Err(failure(LakeError::Nothing {
                url: url.to_owned(),
            }));
        }
        lake.fetch(here.path()).map_err(failure)?;
        Ok(Self {
            folder: here.path().to_path_buf(),
            _brought: Some(here),
        })
    }
}

fn failure(error: LakeError) -> Failure {
    match error {
        LakeError::Name { .. }
        | LakeError::Scheme { .. }
        | LakeError::Setup { .. }
        | LakeError::Taken { .. }
        | LakeError::Nothing { .. } => Failure::usage(error),
        _ => Failure::broken(error),
    }
}
