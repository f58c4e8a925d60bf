//! A run on disk: the journal while it goes on, the sealed record after.
//!
//! The only part of this crate that touches files. It decides how bytes lie on disk and whether they
//! are the ones that were written; what they mean is decided elsewhere. It refuses to guess: a
//! damaged byte is an error that names its file, and only the unfinished last frame of a killed run
//! is left out, which the reader says.
//!
//! A run's folder holds either `journal.hmj` ([`journal`]), or the files of [`seal`]: `seal`,
//! `manifest.json`, `opened.json`, `events.json`, `steps.parquet`, `ops.parquet`, after a sweep `sweep.parquet`, and one
//! `telemetry-NAME.parquet` a table. Files and folders whose name begins with one of [`COMPANIONS`]
//! may lie beside them; they are no part of the record.

mod account;
pub mod columns;
pub mod error;
pub mod journal;
pub mod manifest;
pub mod read;
pub mod seal;
pub mod shape;
mod sheets;
mod spool;
pub mod tables;

pub use account::AccountError;
pub use error::{Operation, StoreError};
pub use journal::{JOURNAL, JournalReader, JournalWriter, Tail};
pub use manifest::Manifest;
pub use read::{Frames, Integrity, Record, Run, Story, open_any};
pub use seal::{Sealed, seal, synthesize};

/// Beginnings of the names of what may lie in a record's folder without being part of it.
pub const COMPANIONS: [&str; 5] = ["report", "verdict", "certificate", "remark", "nodes"];

/// Makes a folder's entries durable, so that a created, renamed or removed file stays so.
fn sync_folder(dir: &std::path::Path) -> Result<(), StoreError> {
    // Only Unix lets a folder be opened and synced; elsewhere the file system orders it.
    if cfg!(unix) {
        let folder =
            std::fs::File::open(dir).map_err(|e| StoreError::io(dir, Operation::Open, e))?;
        folder
            .sync_all()
            .map_err(|e| StoreError::io(dir, Operation::Sync, e))?;
    }
    Ok(())
}
