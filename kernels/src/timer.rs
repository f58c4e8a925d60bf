//! The one place of this crate that reads a clock: the host's monotonic clock and its fit to a device's.
//!
//! `CLOCK_MONOTONIC` is common to all processes of a machine, so times taken in a worker and in
//! its parent are on one axis.

use rustix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;

/// Nanoseconds of the host's monotonic clock.
pub fn now_ns() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

/// Which clock timed a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Events or timestamp queries of the device itself.
    DeviceEvent,
    /// The host's clock around the work; right for a CPU, an upper bound for anything else.
    HostClock,
}

/// Pairs of device ticks and host time kept for the fit.
const PAIRS: usize = 64;

/// Maps device ticks to the host's monotonic clock by a straight line through recent pairs.
///
/// A pair is taken by reading the host clock before and after a device timestamp is written; half
/// the distance is the pair's uncertainty. Two pairs at least 1 ms apart fix the rate; before that
/// the nominal period given by the driver is used.
#[derive(Clone, Debug)]
pub struct TickFit {
    nominal_ns_per_tick: f64,
    pairs: VecDeque<(u64, u64, u64)>,
}

impl TickFit {
    /// `nominal_ns_per_tick`: the period the driver states.
    pub fn new(nominal_ns_per_tick: f64) -> Self {
        Self {
            nominal_ns_per_tick,
            pairs: VecDeque::with_capacity(PAIRS),
        }
    }

    /// Adds one pair: the device read `ticks` somewhere between `before_ns` and `after_ns`.
    pub fn pair(&mut self, ticks: u64, before_ns: u64, after_ns: u64) {
        let half = after_ns.saturating_sub(before_ns) / 2;
        if self.pairs.len() == PAIRS {
            self.pairs.pop_front();
        }
        self.pairs.push_back((ticks, before_ns + half, half));
    }

    /// Host time of `ticks`, or `None` before the first pair.
    pub fn host_ns(&self, ticks: u64) -> Option<u64> {
        let &(tick_0, host_0, _) = self.anchor()?;
        let delta = (ticks as i128 - tick_0 as i128) as f64 * self.ns_per_tick();
        Some((host_0 as i128 + delta.round() as i128).max(0) as u64)
    }

    /// Uncertainty of the mapping: the smallest half-distance among the pairs.
    pub fn uncertainty_ns(&self) -> Option<u64> {
        self.anchor().map(|p| p.2)
    }

    /// The pair that was taken most tightly.
    fn anchor(&self) -> Option<&(u64, u64, u64)> {
        self.pairs.iter().min_by_key(|p| p.2)
    }

    fn ns_per_tick(&self) -> f64 {
        let (Some(first), Some(last)) = (self.pairs.front(), self.pairs.back()) else {
            return self.nominal_ns_per_tick;
        };
        let ticks = last.0.saturating_sub(first.0) as f64;
        let host = last.1.saturating_sub(first.1) as f64;
        let rate = host / ticks;
        // A fit over a short base would be noise; a device clock more than 1 % off its nominal rate is not believed.
        let close = (rate / self.nominal_ns_per_tick - 1.0).abs() < 0.01;
        if host < 1e8 || !close {
            self.nominal_ns_per_tick
        } else {
            rate
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_clock_that_drifts_is_followed() {
        let mut fit = TickFit::new(1.0);
        let host = |tick: u64| 5_000 + tick + tick / 10_000; // 100 ppm fast
        for i in 0..100 {
            let tick = i * 50_000_000;
            fit.pair(tick, host(tick) - 500, host(tick) + 500);
        }
        let tick = 99 * 50_000_000 + 1_000_000;
        let got = fit.host_ns(tick).unwrap();
        assert!(got.abs_diff(host(tick)) < 2_000, "{got} {}", host(tick));
        assert_eq!(fit.uncertainty_ns(), Some(500));
    }

    #[test]
    fn before_the_first_pair_no_time_is_made_up() {
        assert_eq!(TickFit::new(1.0).host_ns(7), None);
    }

    #[test]
    fn the_host_clock_never_runs_backwards() {
        let a = now_ns();
        assert!(now_ns() >= a);
    }
}
