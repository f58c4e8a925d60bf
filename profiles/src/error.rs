//! What can be wrong with a profile or a site, each with file and line, what is known and what to do.

use crate::metric::Metric;

/// A profile that cannot be used. Nothing has been started or written when one is returned.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("unknown profile `{name}`; built in: {known}; or give the path of a .toml file")]
    Unknown { name: String, known: String },
    #[error("cannot read profile {file}: {why}")]
    Unreadable { file: String, why: String },
    #[error("{file}:{line}: {what}")]
    Syntax {
        file: String,
        line: usize,
        what: String,
    },
    #[error(
        "{file}:{line}: criterion `{criterion}` judges {metric}, which this profile never measures; it measures: {known}"
    )]
    Undeclared {
        file: String,
        line: usize,
        criterion: String,
        metric: Metric,
        known: String,
    },
}

/// A site file that cannot be used. Nothing has been started or written when one is returned.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    #[error("cannot read site {file}: {why}")]
    Unreadable { file: String, why: String },
    #[error("{file}:{line}: {what}")]
    Syntax {
        file: String,
        line: usize,
        what: String,
    },
}
