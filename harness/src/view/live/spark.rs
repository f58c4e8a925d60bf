//! The recent course of a rate as a row of bars.
//!
//! All devices share one axis, so that rows compare. A time before the run is blank, a rate of zero is the
//! lowest bar: silence is seen, and is not the same as nothing known.

use super::super::plain::reading::mean_rate;
use super::super::plain::words;
use hallmark_profiles::units::{Unit, human};
use hallmark_results::trace::WorkTrace;

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const SECOND_NS: u64 = 1_000_000_000;
/// Stretches shown, by the time that has passed.
const SPANS_NS: [u64; 6] = [
    60 * SECOND_NS,
    5 * 60 * SECOND_NS,
    30 * 60 * SECOND_NS,
    2 * 3600 * SECOND_NS,
    6 * 3600 * SECOND_NS,
    24 * 3600 * SECOND_NS,
];
/// With all rates above this share of the highest, the axis starts here instead of at zero.
const RAISED: f64 = 0.7;

/// The time and the rates that bars span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    pub from_ns: u64,
    pub to_ns: u64,
    pub low: f64,
    pub high: f64,
    /// Length of the stretch, part of which may lie before the run.
    span_ns: u64,
}

impl Axis {
    /// The axis at `to_ns`, for a run whose load began at `start_ns`; rates are still unknown.
    pub fn of_time(start_ns: u64, to_ns: u64) -> Self {
        let passed = to_ns.saturating_sub(start_ns);
        // A stretch is left for the next one when three of it have passed.
        let span_ns = SPANS_NS
            .into_iter()
            .find(|s| passed <= 3 * s)
            .unwrap_or(SPANS_NS[5]);
        Self {
            from_ns: start_ns.max(to_ns.saturating_sub(span_ns)),
            to_ns,
            low: 0.0,
            high: 0.0,
            span_ns,
        }
    }

    /// Fits the axis to the rates that are shown.
    pub fn fit(mut self, rows: &[Vec<Option<f64>>]) -> Self {
        let all = rows.iter().flatten().flatten().copied();
        self.high = all.clone().fold(0.0, f64::max);
        let low = all.fold(f64::INFINITY, f64::min);
        if self.high > 0.0 && low >= RAISED * self.high {
            self.low = RAISED * self.high;
        }
        self
    }

    /// `last 1 min, 0 to 612 GFLOP/s`.
    pub fn title(&self) -> String {
        let span = words::duration(self.span_ns);
        if self.high <= 0.0 {
            return format!("last {span}");
        }
        let low = if self.low > 0.0 {
            human(self.low, Unit::FlopPerSecond)
        } else {
            "0".to_owned()
        };
        let high = human(self.high, Unit::FlopPerSecond);
        let unit = |text: &str| text.split_once('\u{a0}').map(|(_, u)| u.to_owned());
        let low = match low.split_once('\u{a0}') {
            Some((number, _)) if unit(&low) == unit(&high) => number.to_owned(),
            _ => low,
        };
        format!("last {span}, {low} to {high}")
    }

    /// Mean rates of `columns` equal stretches; `None` before the run.
    pub fn rates(&self, work: &WorkTrace, columns: usize) -> Vec<Option<f64>> {
        // Before the run's start times are negative.
        let span = i128::from(self.span_ns);
        let first = i128::from(self.to_ns) - span;
        let edge = |column: usize| first + span * column as i128 / columns.max(1) as i128;
        let mean = |column: usize| {
            let (from, to) = (edge(column), edge(column + 1));
            // A stretch that lies mostly before the load is not shown as a low rate.
            let known = from.max(i128::from(self.from_ns));
            if (to - known) * 2 <= to - from {
                return None;
            }
            mean_rate(
                work.bin_ns(),
                work.rates(),
                u64::try_from(known).ok()?,
                u64::try_from(to).ok()?,
            )
        };
        (0..columns).map(mean).collect()
    }

    pub fn bars(&self, rates: &[Option<f64>]) -> String {
        let range = self.high - self.low;
        let bar = |rate: &Option<f64>| match rate {
            None => ' ',
            Some(rate) if range > 0.0 => {
                let level = ((rate - self.low) / range * 7.0).round().clamp(0.0, 7.0);
                BARS[level as usize]
            }
            Some(_) => BARS[0],
        };
        rates.iter().map(bar).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_falls_is_seen_and_what_was_before_the_run_is_blank() {
        let mut work = WorkTrace::new(100_000_000);
        work.push(0, 20 * SECOND_NS, 20.0 * 100e9);
        work.push(20 * SECOND_NS, 30 * SECOND_NS, 10.0 * 50e9);
        let axis = Axis::of_time(0, 30 * SECOND_NS);
        let rates = axis.rates(&work, 12);
        let axis = axis.fit(std::slice::from_ref(&rates));
        assert_eq!(axis.bars(&rates), "      ████▅▅");
        assert_eq!(axis.title(), "last 1\u{a0}min, 0 to 100.0\u{a0}GFLOP/s");
    }

    #[test]
    fn a_small_drop_is_seen_because_the_axis_is_raised_and_says_so() {
        let mut work = WorkTrace::new(100_000_000);
        work.push(0, 30 * SECOND_NS, 30.0 * 100e9);
        work.push(30 * SECOND_NS, 60 * SECOND_NS, 30.0 * 90e9);
        let axis = Axis::of_time(0, 60 * SECOND_NS);
        let rates = axis.rates(&work, 6);
        let axis = axis.fit(std::slice::from_ref(&rates));
        assert_eq!(axis.bars(&rates), "███▆▆▆");
        assert_eq!(axis.title(), "last 1\u{a0}min, 70.0 to 100.0\u{a0}GFLOP/s");
    }

    #[test]
    fn silence_is_the_lowest_bar_not_a_blank() {
        let mut work = WorkTrace::new(100_000_000);
        work.push(0, 30 * SECOND_NS, 30.0 * 100e9);
        let axis = Axis::of_time(0, 60 * SECOND_NS);
        let rates = axis.rates(&work, 6);
        let axis = axis.fit(std::slice::from_ref(&rates));
        assert_eq!(axis.bars(&rates), "███▁▁▁");
    }
}
