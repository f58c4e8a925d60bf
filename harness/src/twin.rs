//! The simulated hall: what a hall would show if its parts behaved as physics says, faults included.
//!
//! Everything here is *simulated*: it accepts no site. What breaks a hall is here, what judges one is in
//! `hallmark-results`, which cannot know this folder.

mod bend;
mod chance;
mod cooling;
mod device;
mod meters;
mod nature;
mod order;
mod part;
mod path;
pub mod scenario;
mod tables;
mod task;
mod trouble;
mod work;
mod world;

pub use path::{play, record};

use crate::plan::PlanError;
use hallmark_results::standing::StandingError;
use hallmark_results::store::error::StoreError;

/// A hall that cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    #[error("{0}")]
    Part(String),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Standing(#[from] StandingError),
    #[error("cannot keep a record in {folder}: {why}")]
    Folder { folder: String, why: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[cfg(test)]
mod tests;
