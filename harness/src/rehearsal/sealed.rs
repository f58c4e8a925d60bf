//! Sends a play through a sealed record on disk, as a real run goes, and back; and edits that record where the fault
//! says so.
//!
//! A record that was edited must be refused; one that was not must be judged as the running account was. An editor
//! here is careful: who loosens a limit renews the digests of files that he can renew.

use super::{Played, Would};
use crate::twin::scenario::effect::Edit;
use crate::twin::scenario::{Effect, Placed};
use hallmark_results::diagnosis::Cause;
use hallmark_results::frame::Frame;
use hallmark_results::standing::StandingError;
use hallmark_results::store::AccountError;
use hallmark_results::store::journal::JournalWriter;
use hallmark_results::store::read;
use hallmark_results::store::seal::seal;
use hallmark_results::verdict::judge;
use sha2::{Digest, Sha256};
use std::path::Path;

/// The files that an editor goes for.
const STEPS: &str = "steps.parquet";
const OPENED: &str = "opened.json";
const MANIFEST: &str = "manifest.json";
const SEAL: &str = "seal";

/// A record in the making.
pub struct Sealing {
    folder: tempfile::TempDir,
    journal: Option<JournalWriter>,
    broke: Option<String>,
}

/// What became of it.
enum Read {
    Judged(Would),
    Refused(Cause, String),
}

impl Sealing {
    /// # Errors
    /// The disk's.
    pub fn start() -> Result<Self, String> {
        let folder = tempfile::TempDir::new().map_err(|e| e.to_string())?;
        let journal = JournalWriter::create(folder.path()).map_err(|e| e.to_string())?;
        Ok(Self {
            folder,
            journal: Some(journal),
            broke: None,
        })
    }

    pub fn push(&mut self, frame: &Frame) {
        let appended = self.journal.as_mut().map(|j| j.append(frame));
        if let Some(Err(error)) = appended {
            self.broke.get_or_insert(error.to_string());
        }
    }

    /// Seals, edits, reads back and judges; corrects what the play came to by it.
    pub fn finish(mut self, placed: &[Placed], played: &mut Played) {
        let effects = placed.iter().flat_map(|p| &p.fault.effects);
        let edits = effects.filter_map(|e| match e {
            Effect::Record(edit) => Some(*edit),
            _ => None,
        });
        let edits: Vec<Edit> = edits.collect();
        let came = self.close(&edits).map(|()| read_back(self.folder.path()));
        match came {
            Err(why) => {
                played.would = None;
                played.broke.get_or_insert(why);
            }
            Ok(Read::Refused(cause, why)) if !edits.is_empty() => refused(played, cause, &why),
            Ok(Read::Refused(_, why)) => {
                played.would = None;
                let why = format!("its sealed record is refused: {why}");
                played.broke.get_or_insert(why);
            }
            Ok(Read::Judged(would)) => {
                played.sealed = true;
                if edits.is_empty() && played.would.is_some_and(|w| w != would) {
                    let why = format!("its sealed record is judged otherwise: {would:?}");
                    played.would = None;
                    played.broke.get_or_insert(why);
                }
            }
        }
    }

    fn close(&mut self, edits: &[Edit]) -> Result<(), String> {
        if let Some(why) = self.broke.take() {
            return Err(why);
        }
        let journal = self.journal.take().ok_or("the record is closed already")?;
        journal.close().map_err(|e| e.to_string())?;
        seal(self.folder.path()).map_err(|e| e.to_string())?;
        for edit in edits {
            apply(self.folder.path(), *edit).map_err(|e| format!("cannot edit the record: {e}"))?;
        }
        Ok(())
    }
}

/// The record was refused, as it should be: nothing is accepted, and what was done to it is found.
fn refused(played: &mut Played, cause: Cause, why: &str) {
    played.would = Some(Would::DecideNothing);
    played.sealed = true;
    let about = [Cause::RecordTampered.id(), Cause::ThresholdsChanged.id()];
    for sought in &mut played.sought {
        if about.contains(&sought.cause.as_str()) {
            sought.found = true;
            sought.after_s = Some(0.0);
            sought.right_place = true;
            sought.right_cause = sought.cause == cause.id();
            sought.said = Some(format!("{}: {}", cause.name(), without_folder(why)));
        }
    }
}

/// A temporary folder's name is another in every play.
fn without_folder(why: &str) -> String {
    let last = |word: &str| word.rsplit('/').next().unwrap_or(word).to_owned();
    let words: Vec<String> = why.split(' ').map(last).collect();
    words.join(" ")
}

fn read_back(folder: &Path) -> Read {
    let tampered = |why: String| Read::Refused(Cause::RecordTampered, why);
    let account = match read::open_any(folder) {
        Ok(run) => run.account(),
        Err(error) => return tampered(error.to_string()),
    };
    match account {
        Ok(standing) => Read::Judged(super::score::would(&judge(&standing))),
        Err(AccountError::Standing(
            error @ (StandingError::PlanDigest | StandingError::Profile(_)),
        )) => Read::Refused(Cause::ThresholdsChanged, error.to_string()),
        Err(error) => tampered(error.to_string()),
    }
}

fn apply(folder: &Path, edit: Edit) -> std::io::Result<()> {
    let path = folder.join(STEPS);
    let mut bytes = std::fs::read(&path)?;
    let length = bytes.len();
    match edit {
        Edit::Change => {
            if let Some(byte) = bytes.get_mut(length / 2) {
                *byte ^= 1;
            }
        }
        Edit::Truncate => bytes.truncate(length - length / 10),
        Edit::Reorder => {
            let stretch = length / 8;
            let (head, tail) = bytes.split_at_mut(length / 2);
            head[stretch..2 * stretch].swap_with_slice(&mut tail[..stretch]);
        }
        Edit::Threshold => return loosen(folder),
    }
    std::fs::write(path, bytes)
}

/// Loosens a limit in the profile that the record carries, and renews the digests of all that holds it.
fn loosen(folder: &Path) -> std::io::Result<()> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let digest = |text: &str| -> String {
        let hash = Sha256::digest(text.as_bytes());
        hash.iter().map(|b| format!("{b:02x}")).collect()
    };
    let (opened, manifest, seal) = (read(OPENED)?, read(MANIFEST)?, read(SEAL)?);
    // A digit of a limit, so that the text is as long as before.
    let at = opened
        .find("at_least = \\\"9")
        .map(|at| at + "at_least = \\\"".len());
    let at =
        at.ok_or_else(|| std::io::Error::other("no limit is found in the record's profile"))?;
    let mut loosened = opened.clone();
    loosened.replace_range(at..=at, "1");
    let renewed = manifest.replace(&digest(&opened), &digest(&loosened));
    let resealed = seal.replace(&digest(&manifest), &digest(&renewed));
    std::fs::write(folder.join(OPENED), loosened)?;
    std::fs::write(folder.join(MANIFEST), renewed)?;
    std::fs::write(folder.join(SEAL), resealed)
}
