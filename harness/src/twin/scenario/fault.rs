//! A fault: which effects, where, from when, for how long, and what a verdict should make of it.

use super::Hall;
use super::effect::Effect;
use super::place::{Level, Place, Spot};
use hallmark_results::diagnosis::Cause;
use std::time::Duration;

/// When a fault is there, counted from the run's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub onset: Duration,
    /// Until the end, where there is none.
    pub lasts: Option<Duration>,
    /// It comes again, from onset to onset.
    pub every: Option<Duration>,
    /// Time from the onset until it has its full severity.
    pub grows_over: Duration,
}

impl Span {
    /// Share of the full severity at `now`, 0 to 1.
    #[must_use]
    pub fn share(&self, now: Duration) -> f64 {
        let Some(since) = now.checked_sub(self.onset) else {
            return 0.0;
        };
        let since = match self.every {
            Some(every) if !every.is_zero() => {
                Duration::from_nanos((since.as_nanos() % every.as_nanos()) as u64)
            }
            _ => since,
        };
        if self.lasts.is_some_and(|lasts| since >= lasts) {
            return 0.0;
        }
        if self.grows_over.is_zero() {
            return 1.0;
        }
        (since.as_secs_f64() / self.grows_over.as_secs_f64()).min(1.0)
    }
}

/// What a verdict should say of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Each of these is right; the first is the one that is meant.
    pub causes: Vec<Cause>,
    /// Time from the onset.
    pub within: Duration,
    /// The kind of place that is to be named, where it is not the fault's own: a pump's loop, a device's node.
    pub level: Option<Level>,
}

/// One fault of a scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub spot: Spot,
    pub span: Span,
    /// At least one.
    pub effects: Vec<Effect>,
    /// `None` for what must not alarm anybody.
    pub wanted: Option<Wanted>,
}

impl Fault {
    /// Whether it can be half or twice as severe.
    #[must_use]
    pub fn has_severity(&self) -> bool {
        self.effects.iter().any(Effect::has_severity)
    }

    pub(super) fn scaled(&self, factor: f64, hall: &Hall) -> Fault {
        let effects = self.effects.iter().map(|e| e.scaled(factor, hall));
        Fault {
            effects: effects.collect(),
            ..self.clone()
        }
    }
}

/// A fault in the place that the seed gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    pub place: Place,
    pub fault: Fault,
}

impl Placed {
    /// The place that a verdict should name.
    #[must_use]
    pub fn wanted_place(&self, hall: &Hall) -> Place {
        let level = self.fault.wanted.as_ref().and_then(|w| w.level);
        level
            .and_then(|l| self.place.at(l, hall))
            .unwrap_or(self.place)
    }
}
