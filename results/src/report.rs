//! Writes what a run came to, for people and for machines: one story, several formats.
//!
//! Pure: no clock, no file, no network. Every text that comes from a record is hostile and is cleaned
//! and escaped by the writer. An unknown format is an error that lists the known ones.

pub mod html;
pub mod json;
pub mod junit;
pub mod markdown;
pub mod nccl;
pub mod rows;
pub mod text;

pub mod escape;
mod facts;
pub mod pairs;
pub mod svg;
mod sweep;
mod words;

use crate::standing::Standing;
use crate::verdict::Verdict;

/// All that a report tells.
#[derive(Clone, Copy)]
pub struct Story<'a> {
    pub standing: &'a Standing,
    pub verdict: &'a Verdict,
    /// The chain's head as the record has it, in hexadecimal; `None` while the record is not sealed.
    pub head: Option<&'a str>,
    /// Whether the head was compared with one that was noted elsewhere, and agreed.
    pub anchored: bool,
    /// Where the record lies.
    pub place: &'a str,
}

/// A way of writing a story down.
pub trait Format: Sync {
    /// What `--format` calls it.
    fn name(&self) -> &'static str;
    /// The file's name inside the record's folder.
    fn file(&self) -> &'static str;
    /// Whether it is written beside every record, or only when it is asked for.
    fn kept(&self) -> bool {
        true
    }
    fn write(&self, story: &Story<'_>) -> String;
}

/// Every format, in the order in which they are listed to people.
pub const FORMATS: [&dyn Format; 6] = [
    &text::Text { colour: false },
    &json::Json,
    &junit::Junit,
    &markdown::Markdown,
    &html::Html,
    &nccl::Nccl,
];

/// A format that is not in [`FORMATS`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown report format `{name}`; known: {known}")]
pub struct UnknownFormat {
    pub name: String,
    pub known: String,
}

/// The format of that name.
///
/// # Errors
/// [`UnknownFormat`], which lists those that are known.
pub fn find(name: &str) -> Result<&'static dyn Format, UnknownFormat> {
    let found = FORMATS.into_iter().find(|format| format.name() == name);
    found.ok_or_else(|| UnknownFormat {
        name: escape::clean(name).chars().take(40).collect(),
        known: FORMATS.map(Format::name).join(", "),
    })
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
