//! A scripted value over time: a constant, steps, or a ramp.
//!
//! Decides: the value at a second. Refuses: steps that are empty or out of order.

use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Timeline {
    /// `421500`
    Constant(f64),
    /// `[[0, 100000], [3, 421500]]`: pairs of (seconds, value); each holds until the next.
    Steps(Vec<(f64, f64)>),
    /// `{"from": 1000, "per_second": 350}`: a counter that runs.
    Ramp { from: f64, per_second: f64 },
}

impl Timeline {
    /// What is wrong with this timeline, if anything.
    pub fn fault(&self) -> Option<&'static str> {
        match self {
            Self::Steps(steps) if steps.is_empty() => Some("a list of steps is empty"),
            Self::Steps(steps) if !steps.is_sorted_by(|a, b| a.0 < b.0) => {
                Some("a list of steps is not in order of time")
            }
            _ => None,
        }
    }

    /// The value at `at_s`; the first step also holds before its own time.
    pub fn value(&self, at_s: f64) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Steps(steps) => steps
                .iter()
                .rev()
                .find(|(from_s, _)| *from_s <= at_s)
                .or_else(|| steps.first())
                .map_or(0.0, |(_, value)| *value),
            Self::Ramp { from, per_second } => from + per_second * at_s,
        }
    }
}
