//! Rehearsals: what a verdict makes of simulated halls whose faults are known.
//!
//! A case is a scenario at one severity; it is played with many seeds, and each play is scored against what the
//! scenario says should be found. Decides what counts as found, in time, in the right place and by the right cause.
//! Refuses to call a figure what was not played: an interrupted rehearsal tells what is done.

pub mod advice;
pub mod crew;
pub mod html;
mod picture;
pub mod score;
mod sealed;
pub mod table;
pub mod tell;

pub use picture::Picture;
pub use score::Score;

use crate::twin::scenario::{Expected, Scenario};
use serde::{Deserialize, Serialize};

/// A scenario at one severity.
#[derive(Clone, Debug)]
pub struct Case {
    /// Already scaled.
    pub scenario: Scenario,
    /// Times the severity of the file.
    pub factor: f64,
}

impl Case {
    #[must_use]
    pub fn new(scenario: &Scenario, factor: f64) -> Self {
        Self {
            scenario: scenario.scaled(factor),
            factor,
        }
    }

    /// What its plays are filed under: two cases with one key are the same case.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{} ×{}", self.scenario.name, self.factor)
    }
}

/// What the verdict came to, as if the hall had been measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Would {
    Accept,
    Reject,
    DecideNothing,
}

/// What became of one fault in one play.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sought {
    /// The cause that is meant, and where it is.
    pub cause: String,
    pub place: String,
    /// Time from the onset that it may take, s.
    pub within_s: f64,
    /// Named by one of its causes at a place that shares a device with it, or its very place by another cause.
    pub found: bool,
    /// From the onset to the first look at which it was found, s; looks are spaced, so this is an upper bound.
    pub after_s: Option<f64>,
    pub right_place: bool,
    pub right_cause: bool,
    /// What was said of it.
    pub said: Option<String>,
}

impl Sought {
    #[must_use]
    pub fn in_time(&self) -> bool {
        self.found && self.after_s.is_some_and(|t| t <= self.within_s)
    }
}

/// One play, scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Played {
    pub case: String,
    pub seed: u64,
    /// `None` where the play broke, which `broke` tells.
    pub would: Option<Would>,
    pub broke: Option<String>,
    /// The gates that failed, and those that decided nothing.
    pub failed: Vec<String>,
    pub undecided: Vec<String>,
    pub sought: Vec<Sought>,
    /// Diagnoses that no fault of the hall explains.
    pub strays: Vec<String>,
    /// Frames passed through a sealed record on disk, and were judged from it.
    pub sealed: bool,
    /// Virtual seconds that were played, and real ones that it took.
    pub played_s: f64,
    pub took_s: f64,
    #[serde(skip)]
    pub picture: Option<Picture>,
}

impl Played {
    /// Whether the verdict as a whole was the one that the scenario expects.
    #[must_use]
    pub fn is_as_expected(&self, expected: Expected) -> bool {
        match (expected, self.would) {
            (_, None) => false,
            (Expected::NoAlarm, Some(would)) => would != Would::Reject,
            (Expected::NotAccepted, Some(would)) => would != Would::Accept,
            (Expected::Rejected, Some(would)) => would == Would::Reject,
            (Expected::Named, Some(_)) => self.sought.iter().all(|s| s.found),
        }
    }
}

#[cfg(test)]
mod tests;
