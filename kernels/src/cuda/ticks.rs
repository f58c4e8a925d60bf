//! Decides how the device's time becomes the host's: from event to event, and from there by pairs of both clocks.
//!
//! The driver tells only the time between two events, as an f32 of milliseconds, which is good to a microsecond up to
//! some seconds and to nothing over hours. So time is counted from the end of the step before, which is always
//! near. Pairs with the host's clock are taken at rest and every ten seconds, at the end of a step that was
//! watched closely.

use super::course::{Course, Planned};
use super::gpu::{Event, SETUP_LIMIT};
use super::rig::Rig;
use crate::error::KernelError;
use crate::timer::{TickFit, now_ns};
use crate::work::Span;
use std::time::Duration;

/// Time between two pairs of the clock fit.
const FIT_EVERY_NS: u64 = 10_000_000_000;
/// Pairs taken at rest, of which the tightest is kept.
const PAIRS_AT_REST: usize = 8;
/// A pair less certain than this is not taken; the next step's end may be known better.
const PAIR_WIDE_NS: u64 = 1_000_000;
/// An anchor older than this is taken anew while the device rests.
const STALE_NS: u64 = 2_000_000_000;
/// Pause between two looks at a step in flight: short while a pair is due, so that the pair is tight.
const LOOK_CLOSE: Duration = Duration::from_micros(10);
const LOOK: Duration = Duration::from_micros(50);

/// The device's clock as far as it is known.
pub(super) struct Ticks {
    fit: TickFit,
    fit_due_ns: u64,
    /// The event from which time is counted: its slot, or `None` for the one recorded at rest.
    anchor: Option<usize>,
    origin: Event,
    /// The anchor's tick; ticks are nanoseconds, near the host's clock when they were first taken.
    anchor_tick: u64,
    anchored_ns: u64,
}

impl Ticks {
    /// Takes pairs while nothing is queued.
    pub fn at_rest(rig: &Rig) -> Result<Self, KernelError> {
        let mut best: Option<(Event, u64, u64)> = None;
        for _ in 0..PAIRS_AT_REST {
            let event = rig.gpu.event()?;
            let before_ns = now_ns();
            rig.stream.record(&event)?;
            event.wait(SETUP_LIMIT)?;
            let after_ns = now_ns();
            let tighter = |best: &(Event, u64, u64)| after_ns - before_ns < best.2 - best.1;
            if best.as_ref().is_none_or(tighter) {
                best = Some((event, before_ns, after_ns));
            }
        }
        let Some((origin, before_ns, after_ns)) = best else {
            return Err(rig
                .gpu
                .refuse("its clock was never compared with the host's"));
        };
        let tick = before_ns + (after_ns - before_ns) / 2;
        let mut fit = TickFit::new(1.0);
        fit.pair(tick, before_ns, after_ns);
        Ok(Self {
            fit,
            fit_due_ns: after_ns + FIT_EVERY_NS,
            anchor: None,
            origin,
            anchor_tick: tick,
            anchored_ns: after_ns,
        })
    }

    /// Whether the anchor is old, or about to be recorded anew by a step in `slot`. Only with nothing in flight.
    pub fn is_stale(&self, slot: usize) -> bool {
        self.anchor == Some(slot) || now_ns().saturating_sub(self.anchored_ns) > STALE_NS
    }

    /// How long to pause before the next look at a step.
    pub fn look(&self, left_ns: u64) -> Duration {
        let pause = if now_ns() >= self.fit_due_ns {
            LOOK_CLOSE
        } else {
            LOOK
        };
        pause.min(Duration::from_nanos(left_ns))
    }

    /// Spans of the step in `slot`, which ended between the two times `seen_ns`; its end becomes the anchor.
    pub fn read(
        &mut self,
        rig: &Rig,
        course: &Course,
        slot: usize,
        seen_ns: (u64, u64),
    ) -> Result<Vec<Span>, KernelError> {
        let events = &rig.arrays.slots[slot].events;
        let end = rig.places().end();
        let anchor = match self.anchor {
            Some(slot) => &rig.arrays.slots[slot].events[end],
            None => &self.origin,
        };
        let tick = |place: usize| {
            let since_ns = events[place].since_ns(anchor)?;
            Ok::<u64, KernelError>(self.anchor_tick + since_ns)
        };
        let ended = tick(end)?;
        let ticks = course
            .spans
            .iter()
            .map(|s| Ok((*s, tick(s.from)?, tick(s.to)?)))
            .collect::<Result<Vec<_>, KernelError>>()?;
        let wide_ns = seen_ns.1.saturating_sub(seen_ns.0);
        if seen_ns.1 >= self.fit_due_ns && wide_ns < PAIR_WIDE_NS {
            self.fit.pair(ended, seen_ns.0, seen_ns.1);
            self.fit_due_ns = seen_ns.1 + FIT_EVERY_NS;
        }
        self.anchor = Some(slot);
        self.anchor_tick = ended;
        self.anchored_ns = seen_ns.1;
        let at = |tick: u64| self.fit.host_ns(tick).unwrap_or(tick);
        let span = |(planned, from, to): (Planned, u64, u64)| Span {
            work: planned.work,
            start_ns: at(from),
            end_ns: at(to),
            amount: planned.amount,
        };
        Ok(ticks.into_iter().map(span).collect())
    }
}
