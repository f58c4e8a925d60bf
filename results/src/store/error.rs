//! Everything that can be wrong with a run's files, told apart by what the operator does next.

use super::shape::ShapeError;
use std::io;
use std::path::{Path, PathBuf};

/// What was being done when a file failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Open,
    Read,
    Write,
    Sync,
    Rename,
    Remove,
    Truncate,
    Lock,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Create => "created",
            Self::Open => "opened",
            Self::Read => "read",
            Self::Write => "written",
            Self::Sync => "made durable",
            Self::Rename => "renamed",
            Self::Remove => "removed",
            Self::Truncate => "cut",
            Self::Lock => "locked",
        })
    }
}

/// A run's file that cannot be written, read or believed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "{path} could not be {operation}: the disk or quota is full; make room, or choose another folder with --out"
    )]
    DiskFull { path: PathBuf, operation: Operation },
    #[error(
        "{path} could not be {operation}: the folder is read-only or not yours; choose another one with --out"
    )]
    ReadOnly { path: PathBuf, operation: Operation },
    #[error("{0} holds a run already; resume or seal it, or choose another folder with --out")]
    Exists(PathBuf),
    #[error("{0} holds neither a journal nor a sealed record; name the folder of a run")]
    NoRun(PathBuf),
    #[error("{0} is in use by another hallmark process; wait for it, or end it")]
    Busy(PathBuf),
    #[error("{path} could not be {operation}: {source}")]
    Io {
        path: PathBuf,
        operation: Operation,
        source: io::Error,
    },
    #[error(
        "{path} was written by format {found}; this build reads 1 to {known}; use a newer hallmark"
    )]
    Version {
        path: PathBuf,
        found: u32,
        known: u32,
    },
    #[error("{path} is damaged at byte {offset}: {why}")]
    Damaged {
        path: PathBuf,
        offset: u64,
        why: String,
    },
    #[error("{path} is not what was sealed: {why}")]
    Altered { path: PathBuf, why: String },
    #[error("{path} is part of the sealed record and is missing")]
    Missing { path: PathBuf },
    #[error("{path} is no part of the sealed record; move it out of the folder")]
    Unknown { path: PathBuf },
    #[error("{path} cannot be understood: {why}")]
    Format { path: PathBuf, why: String },
    #[error("a frame contradicts the run: {0}")]
    Shape(#[from] ShapeError),
    #[error(
        "a frame of {bytes} bytes is larger than the {limit} that a journal takes; write smaller batches"
    )]
    FrameTooLarge { bytes: usize, limit: usize },
    #[error("a frame could not be encoded: {0}")]
    Encode(String),
    #[error("{path} was rolled back to its last durable frame, {lost} frames were lost: {source}")]
    RolledBack {
        path: PathBuf,
        lost: u64,
        source: Box<StoreError>,
    },
    #[error(
        "{path} ends before the run's first frame; nothing was recorded, so there is nothing to seal"
    )]
    Empty { path: PathBuf },
}

impl StoreError {
    /// An input/output error, with a full disk and a folder that takes no writes told apart.
    pub(super) fn io(path: &Path, operation: Operation, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path, operation }
            }
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                if !matches!(operation, Operation::Read | Operation::Open) =>
            {
                Self::ReadOnly { path, operation }
            }
            _ => Self::Io {
                path,
                operation,
                source,
            },
        }
    }

    pub(super) fn altered(path: &Path, why: impl Into<String>) -> Self {
        Self::Altered {
            path: path.to_path_buf(),
            why: why.into(),
        }
    }

    pub(super) fn format(path: &Path, why: impl ToString) -> Self {
        Self::Format {
            path: path.to_path_buf(),
            why: why.to_string(),
        }
    }

    /// Whether more room on the disk would let the same call succeed.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::DiskFull { .. } => true,
            Self::RolledBack { source, .. } => source.is_disk_full(),
            _ => false,
        }
    }
}
