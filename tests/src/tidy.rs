//! What a machine can hold of the house style: each check takes a file's text and gives complaints.
//!
//! It decides on text alone, with comments and literals set apart ([`source`]): no compiler, no
//! build. It refuses to be clever: a rule that needs judgement is for a reviewer. The checks run on
//! the tree in `tests/tidy.rs`, and on small bad samples, so that a check that sees nothing fails.

mod crates;
mod lengths;
pub mod source;
mod tree;
mod words;

pub use crates::directions;
pub use lengths::{FILE_LINES_MAX, FUNCTION_LINES_MAX, file_length, function_lengths};
pub use tree::{File, Tree};
pub use words::{allows, clocks, file_name, opening, panics, places, unfinished};

/// One breach of the house style.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// From the root of the repository.
    pub path: String,
    /// From 1.
    pub line: usize,
    pub what: String,
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}
