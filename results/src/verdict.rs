//! Judges what a run has shown against its profile's criteria.
//!
//! Pure: no clock, device or network. A series that is missing or too short makes its criterion
//! *inconclusive*; absence of evidence never passes.

mod diagnosed;
pub mod evidence;
pub mod implied;
mod judge;
pub(crate) mod limits;
mod observe;
pub(crate) mod words;

pub use judge::judge;
pub(crate) use observe::settings;

use crate::diagnosis::Diagnosis;
use hallmark_profiles::criterion::{Criterion, Side};
use hallmark_profiles::units::Unit;
use serde::{Deserialize, Serialize};

/// Confidence of each one-sided bound.
pub const CONFIDENCE: f64 = 0.95;

/// The three outcomes, of a criterion and of a run; ordered from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Shown to hold.
    Passed,
    /// Not shown either way.
    Inconclusive,
    /// Shown not to hold.
    Failed,
}

/// A number with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub value: f64,
    /// One-sided bounds at [`Verdict::confidence`]; equal to `value` where the figure is exact.
    pub low: f64,
    pub high: f64,
    pub samples: u64,
    pub unit: Unit,
}

/// One place seen by one criterion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Device id, node, rack, or `group`.
    pub place: String,
    /// Index of the planned device, where the place is one.
    pub device: Option<u32>,
    pub estimate: Option<Estimate>,
    pub outcome: Outcome,
    /// What was seen, or why nothing could be.
    pub why: String,
}

/// What a criterion came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub criterion: Criterion,
    /// Name of the phase that was judged.
    pub phase: String,
    pub outcome: Outcome,
    /// The limits in the estimate's own unit, resolved from what they are relative to.
    pub at_least: Option<f64>,
    pub at_most: Option<f64>,
    pub unit: Unit,
    pub side: Side,
    /// The deciding place first, then the others, worst first.
    pub places: Vec<Observed>,
    /// One sentence.
    pub why: String,
    pub remedy: Option<String>,
    /// Which of [`Verdict::diagnoses`] explains what did not pass.
    #[serde(default)]
    pub diagnosis: Option<usize>,
}

impl Finding {
    /// The place that decided.
    pub fn worst(&self) -> Option<&Observed> {
        self.places.first()
    }
}

/// What to do about a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Replace,
    Retest,
    Investigate,
}

/// One line of the punch list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Punch {
    pub action: Action,
    pub place: String,
    pub why: String,
}

/// Something that this run did not measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NotMeasured {
    pub what: String,
    pub why: String,
    /// How to get it; may be empty.
    pub remedy: String,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub outcome: Outcome,
    /// The verdict's reason in one sentence.
    pub sentence: String,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// Place and cause of what the run has shown, the surest first; none while the run goes on, and where every gate
    /// holds those alone that are possible.
    #[serde(default)]
    pub diagnoses: Vec<Diagnosis>,
    pub punch: Vec<Punch>,
    pub not_measured: Vec<NotMeasured>,
    /// Confidence of each one-sided bound, e.g. 0.95.
    pub confidence: f64,
    /// Whether accepting means that the site is accepted.
    pub accepts_site: bool,
    /// Remarks a reader must know, e.g. “smoke passed: accepts no site”.
    pub remarks: Vec<String>,
}

impl Verdict {
    pub fn count(&self, outcome: Outcome) -> usize {
        self.findings
            .iter()
            .filter(|f| f.outcome == outcome)
            .count()
    }

    /// The diagnosis that explains a finding.
    pub fn diagnosis(&self, finding: &Finding) -> Option<&Diagnosis> {
        self.diagnoses.get(finding.diagnosis?)
    }

    /// ACCEPTED (a site), PASSED (anything less), REJECTED or INCONCLUSIVE.
    pub fn word(&self) -> &'static str {
        match self.outcome {
            Outcome::Passed if self.accepts_site => "ACCEPTED",
            Outcome::Passed => "PASSED",
            Outcome::Failed => "REJECTED",
            Outcome::Inconclusive => "INCONCLUSIVE",
        }
    }
}
