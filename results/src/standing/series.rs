//! A sensor's series within one window, or within the whole run.
//!
//! Samples come in runs of neighbours that are all numbers. What follows from their times alone is worked out once for
//! all series that were read together ([`Pace`]); how many come together changes no figure, to the last bit.

use super::window::Gathered;
use crate::frame::SeriesKind;
use crate::stats::finite::Finite;
use crate::stats::response::Response;
use crate::stats::sum::Sum;
use std::collections::BTreeMap;

/// A series within a window, or within the whole run.
#[derive(Debug)]
pub struct SeriesWindow {
    /// Gauge: every value; nothing for the whole run, which keeps memory bounded.
    pub values: Gathered,
    pub valid: u64,
    pub missing: u64,
    /// Smallest and largest valid value.
    pub extremes: Option<(f64, f64)>,
    /// Latest valid sample, at first that from before the window.
    last: Option<(u64, f64)>,
    /// Longest time between two valid samples, the window's start counted as one.
    pub longest_gap_ns: u64,
    /// Counter: growth since the last sample before the window, resets included.
    pub growth: f64,
    /// Gauge: the values weighed by the time since the sample before, and that time.
    weighed: (Sum, u64),
    /// Mask: time during which each bit was set.
    pub bit_ns: BTreeMap<u8, u64>,
    /// Mask: time for which the mask is known.
    pub mask_ns: u64,
    /// Time within twice the period of a valid sample before.
    covered_ns: u64,
    period_ns: u64,
    gathers: bool,
    /// Of a device's power: how it follows the load of this window.
    pub response: Option<Box<Response>>,
}

/// Times of neighbouring samples, one or more, and what follows from them for each series that was read then.
pub(super) struct Pace<'a> {
    at_ns: &'a [u64],
    /// From each sample to the next, ns.
    elapsed_ns: Vec<f64>,
    longest_ns: u64,
    covered_ns: u64,
}

/// Time that a sample stands for, of what passed since the one before it.
fn covered(elapsed_ns: u64, period_ns: u64) -> u64 {
    elapsed_ns.min(period_ns.saturating_mul(2))
}

impl<'a> Pace<'a> {
    /// `at_ns`: ascending.
    pub fn of(at_ns: &'a [u64], period_ns: u64) -> Self {
        let mut pace = Self {
            at_ns,
            elapsed_ns: Vec::with_capacity(at_ns.len().saturating_sub(1)),
            longest_ns: 0,
            covered_ns: 0,
        };
        for pair in at_ns.windows(2) {
            let elapsed = pair[1].saturating_sub(pair[0]);
            pace.elapsed_ns.push(elapsed as f64);
            pace.longest_ns = pace.longest_ns.max(elapsed);
            pace.covered_ns += covered(elapsed, period_ns);
        }
        pace
    }

    pub fn at_ns(&self) -> &'a [u64] {
        self.at_ns
    }

    fn first_ns(&self) -> u64 {
        self.at_ns.first().copied().unwrap_or(0)
    }

    fn last_ns(&self) -> u64 {
        self.at_ns.last().copied().unwrap_or(0)
    }
}

impl SeriesWindow {
    /// `before`: the last valid sample before the window.
    fn new(before: Option<(u64, f64)>, period_ns: u64, gathers: bool) -> Self {
        Self {
            values: Gathered::new(1e-3),
            valid: 0,
            missing: 0,
            extremes: None,
            last: before,
            longest_gap_ns: 0,
            growth: 0.0,
            weighed: (Sum::default(), 0),
            bit_ns: BTreeMap::new(),
            mask_ns: 0,
            covered_ns: 0,
            period_ns,
            gathers,
            response: None,
        }
    }

    /// Of a window that begins after `before`, the series' latest valid sample.
    pub(super) fn after(before: Option<(u64, f64)>, period_ns: u64) -> Self {
        Self::new(before, period_ns, true)
    }

    /// The same, which also follows the load from its level before.
    pub(super) fn responding(self) -> Self {
        let response = self.last.map(|(_, value)| Box::new(Response::new(value)));
        Self { response, ..self }
    }

    /// Of a whole run: counts, growth and extremes, but not every value.
    pub(super) fn whole(period_ns: u64) -> Self {
        Self::new(None, period_ns, false)
    }

    /// So many reads gave no number.
    pub(super) fn miss(&mut self, reads: u64) {
        self.missing += reads;
    }

    /// Nobody was there to read it from `cut_ns` on; its stretch began at `start_ns`.
    pub(super) fn pause(&mut self, start_ns: u64, cut_ns: u64) {
        let since_ns = self.last.map_or(start_ns, |(at, _)| at.max(start_ns));
        let gap_ns = cut_ns.saturating_sub(since_ns);
        self.longest_gap_ns = self.longest_gap_ns.max(gap_ns);
    }

    /// Neighbours at the pace of their times, of a window that begins at `start_ns`.
    pub(super) fn push(&mut self, kind: SeriesKind, start_ns: u64, pace: &Pace, finite: &Finite) {
        self.valid += finite.values().len() as u64;
        let (low, high) = self.extremes.unwrap_or((finite.low(), finite.high()));
        self.extremes = Some((low.min(finite.low()), high.max(finite.high())));
        let since = self.last.map_or(start_ns, |(at, _)| at.max(start_ns));
        let first = pace.first_ns().saturating_sub(since);
        self.longest_gap_ns = self.longest_gap_ns.max(first).max(pace.longest_ns);
        self.covered_ns += covered(first, self.period_ns) + pace.covered_ns;
        match kind {
            SeriesKind::Gauge => self.gauge(first, pace, finite),
            SeriesKind::Counter => self.counter(finite),
            SeriesKind::Mask => self.mask(first, pace, finite),
        }
        self.last = Some((pace.last_ns(), finite.last()));
        if let Some(response) = self.response.as_mut().filter(|r| !r.is_over()) {
            let since = pace.at_ns().iter().map(|at| at.saturating_sub(start_ns));
            since
                .zip(finite.values())
                .for_each(|(at, v)| response.push(at, *v));
        }
    }

    fn gauge(&mut self, first: u64, pace: &Pace, finite: &Finite) {
        let values = finite.values();
        match finite.is_zero() {
            true => self.weighed.0.skip(values.len() as u64),
            false => {
                self.weighed.0.push_products(&values[..1], &[first as f64]);
                self.weighed.0.push_products(&values[1..], &pace.elapsed_ns);
            }
        }
        self.weighed.1 += first + (pace.last_ns() - pace.first_ns());
        if self.gathers {
            self.values.record_all(finite);
        }
    }

    fn counter(&mut self, finite: &Finite) {
        let mut before = self.last.map_or(finite.first(), |(_, v)| v);
        let still = finite.same().is_some();
        let values = if still {
            &finite.values()[..1]
        } else {
            finite.values()
        };
        for &value in values {
            // A counter that falls was reset: what it shows now has been counted since.
            self.growth += if value >= before {
                value - before
            } else {
                value
            };
            before = value;
        }
    }

    /// The mask read last holds until the next read; nothing is known before the first.
    fn mask(&mut self, first: u64, pace: &Pace, finite: &Finite) {
        let mut held = self.last.map(|(_, value)| value);
        let later = pace.at_ns.windows(2).map(|pair| pair[1] - pair[0]);
        for (elapsed, &value) in std::iter::once(first).chain(later).zip(finite.values()) {
            if let Some(held) = held {
                self.mask_ns += elapsed;
                let mut bits = held as u64;
                while bits != 0 {
                    let bit = bits.trailing_zeros() as u8;
                    *self.bit_ns.entry(bit).or_insert(0) += elapsed;
                    bits &= bits - 1;
                }
            }
            held = Some(value);
        }
    }

    /// Mean of a gauge over the time that its samples stand for.
    pub fn mean_over_time(&self) -> Option<f64> {
        let (sum, ns) = &self.weighed;
        (*ns > 0).then(|| sum.total() / *ns as f64)
    }

    /// Time of the window that samples stand for, to its end: none stands for more than twice its period.
    pub fn covered_ns(&self, end_ns: u64) -> u64 {
        let rest = self.last.map_or(0, |(at, _)| end_ns.saturating_sub(at));
        self.covered_ns + rest.min(self.period_ns.saturating_mul(2))
    }

    /// Longest time without a valid sample, the window's ends counted as samples.
    pub fn longest_gap_to(&self, start_ns: u64, end_ns: u64) -> u64 {
        let last = self.last.map_or(start_ns, |(at, _)| at.max(start_ns));
        self.longest_gap_ns.max(end_ns.saturating_sub(last))
    }

    /// Latest valid sample.
    pub(super) fn last(&self) -> Option<(u64, f64)> {
        self.last
    }
}
