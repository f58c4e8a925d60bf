//! Decides, by evidence, when warm-up is over: rate and temperature have stopped moving.
//!
//! A fold over (time, rate, temperature): the same samples give the same answer live and from a sealed
//! record. Steady means that over the last window the two halves' mean rates differ by no more than the
//! tolerance, and the temperature's slope is no steeper than its own; or that either is within twice
//! its standard error, so that noise alone cannot keep a device warming for ever. Both must hold for a
//! quarter of a window on end. Refuses to call steady: a rate of zero, a window with a hole of more than
//! a quarter of it, and a device whose temperature was once read and then went missing. The answer, once
//! given, stands.
//!
//! Sources: comparing an early with a late part of the window: Geweke 1992; noise from successive
//! differences, which a slow drift does not inflate: von Neumann 1941.

use std::collections::VecDeque;

/// Parts of a window in which samples are averaged: bounds memory whatever the sampling rate.
const BINS: u64 = 48;

/// Fewest filled parts in each half of a window.
const HALF_BINS_MIN: usize = 3;

/// A movement within so many standard errors is noise.
const NOISE_ERRORS: f64 = 2.0;

/// What counts as steady; the profile gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameters {
    /// Stretch of time that is looked at.
    pub window_ns: u64,
    /// Largest difference of the halves' mean rates, as a share of the window's mean rate.
    pub rate_tolerance: f64,
    /// Steepest slope of temperature, in kelvin per minute.
    pub temperature_tolerance_k_per_min: f64,
    /// Warm-up lasts at least this long.
    pub least_ns: u64,
    /// Warm-up not over by then is not over: the run is inconclusive.
    pub limit_ns: u64,
}

/// Where warm-up stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warmth {
    /// Not steady yet.
    Warming,
    /// Steady from this time on: when the evidence was complete, on the clock of the samples, in ns.
    SteadySince(u64),
    /// The limit passed without steadiness.
    LimitReached,
}

/// Parameters that no warm-up can meet, or any can.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum SteadyError {
    /// Window too short to be divided.
    #[error("a steadiness window of {window_ns} ns cannot be divided in {BINS}; give seconds")]
    Window {
        /// The window given.
        window_ns: u64,
    },
    /// A tolerance that is negative or not finite.
    #[error("{name} is {value}; give a finite tolerance of zero or more")]
    Tolerance {
        /// Which.
        name: &'static str,
        /// The tolerance given.
        value: f64,
    },
    /// The limit comes before steadiness could be shown.
    #[error(
        "warm-up ends at {limit_ns} ns, evidence needs {needed_ns} ns; raise the limit or shorten the window"
    )]
    Limit {
        /// The limit given.
        limit_ns: u64,
        /// The longer of the least time and five quarters of the window.
        needed_ns: u64,
    },
}

/// Samples of one part of a window.
#[derive(Debug, Clone, Copy)]
struct Bin {
    index: u64,
    rates: Tally,
    temperatures: Tally,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    sum: f64,
    count: u32,
}

impl Tally {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

/// The fold. One per device.
#[derive(Debug, Clone)]
pub struct Steady {
    parameters: Parameters,
    start_ns: u64,
    bins: VecDeque<Bin>,
    /// Where the unbroken evidence begins, and its latest sample.
    unbroken: Option<(u64, u64)>,
    has_temperature: bool,
    /// Since when every look found it steady.
    holds_since_ns: Option<u64>,
    warmth: Warmth,
}

impl Steady {
    /// A fold that begins at `start_ns`, where the load reached its level.
    ///
    /// # Errors
    /// [`SteadyError`]: parameters that no samples could satisfy.
    pub fn new(parameters: Parameters, start_ns: u64) -> Result<Self, SteadyError> {
        let window_ns = parameters.window_ns;
        if window_ns < BINS {
            return Err(SteadyError::Window { window_ns });
        }
        for (name, value) in [
            ("rate tolerance", parameters.rate_tolerance),
            (
                "temperature tolerance in K/min",
                parameters.temperature_tolerance_k_per_min,
            ),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(SteadyError::Tolerance { name, value });
            }
        }
        let needed_ns = window_ns
            .saturating_add(window_ns / 4)
            .max(parameters.least_ns);
        if parameters.limit_ns < needed_ns {
            return Err(SteadyError::Limit {
                limit_ns: parameters.limit_ns,
                needed_ns,
            });
        }
        Ok(Steady {
            parameters,
            start_ns,
            bins: VecDeque::new(),
            unbroken: None,
            has_temperature: false,
            holds_since_ns: None,
            warmth: Warmth::Warming,
        })
    }

    /// Takes the rate (amount per second) at `at_ns` and, where there is one, the temperature (°C).
    ///
    /// Samples come in time order: one earlier than its predecessor, before the start, or whose rate is
    /// not finite is no evidence and leaves everything as it is. Cost: constant.
    pub fn push(&mut self, at_ns: u64, rate: f64, temperature: Option<f64>) -> Warmth {
        if self.tick(at_ns) != Warmth::Warming {
            return self.warmth;
        }
        let late = self.unbroken.is_some_and(|(_, last_ns)| at_ns < last_ns);
        if at_ns < self.start_ns || late || !rate.is_finite() {
            return self.warmth;
        }
        self.continue_or_restart(at_ns);
        let temperature = temperature.filter(|value| value.is_finite());
        self.has_temperature |= temperature.is_some();
        let index = self.bin_index(at_ns);
        let is_new = self.bins.back().is_none_or(|bin| bin.index != index);
        if is_new {
            // All bins held now are complete: the only ones worth looking at.
            self.look(at_ns, index);
            let (rates, temperatures) = (Tally::default(), Tally::default());
            self.bins.push_back(Bin {
                index,
                rates,
                temperatures,
            });
        }
        if let Some(bin) = self.bins.back_mut() {
            bin.rates.add(rate);
            if let Some(temperature) = temperature {
                bin.temperatures.add(temperature);
            }
        }
        self.warmth
    }

    /// Tells the fold the time without a sample: a device that says nothing runs into its limit.
    ///
    /// The limit itself is still in time; only what comes after it is too late, so samples up to there
    /// give the same answer with and without ticks.
    pub fn tick(&mut self, now_ns: u64) -> Warmth {
        let elapsed = now_ns.saturating_sub(self.start_ns);
        if self.warmth == Warmth::Warming && elapsed > self.parameters.limit_ns {
            self.warmth = Warmth::LimitReached;
        }
        self.warmth
    }

    /// Where warm-up stands now.
    pub fn warmth(&self) -> Warmth {
        self.warmth
    }

    /// Part of a window since the start that holds `at_ns`. `at_ns` is within the limit and after the
    /// start; the product needs more than 64 bits after a few days.
    fn bin_index(&self, at_ns: u64) -> u64 {
        let parts = u128::from(at_ns - self.start_ns) * u128::from(BINS);
        (parts / u128::from(self.parameters.window_ns)) as u64
    }

    /// A hole of more than a quarter of a window is no evidence of what happened in it.
    fn continue_or_restart(&mut self, at_ns: u64) {
        let hole_ns = self.parameters.window_ns / 4;
        match &mut self.unbroken {
            Some((_, last_ns)) if at_ns - *last_ns <= hole_ns => *last_ns = at_ns,
            _ => {
                self.bins.clear();
                self.holds_since_ns = None;
                self.unbroken = Some((at_ns, at_ns));
            }
        }
    }

    /// Looks at the complete bins of the last window and takes the decision if it is due.
    fn look(&mut self, at_ns: u64, index: u64) {
        while self
            .bins
            .front()
            .is_some_and(|bin| bin.index + BINS < index)
        {
            self.bins.pop_front();
        }
        let window_ns = self.parameters.window_ns;
        let is_full = self
            .unbroken
            .is_some_and(|(first_ns, _)| at_ns - first_ns >= window_ns);
        if !(is_full && self.rate_is_steady(index) && self.temperature_is_steady()) {
            self.holds_since_ns = None;
            return;
        }
        let since_ns = *self.holds_since_ns.get_or_insert(at_ns);
        let has_held = at_ns - since_ns >= window_ns / 4;
        if has_held && at_ns - self.start_ns >= self.parameters.least_ns {
            self.warmth = Warmth::SteadySince(at_ns);
            self.bins = VecDeque::new();
        }
    }

    /// Whether the halves of the window that ends before bin `index` have the same mean rate.
    fn rate_is_steady(&self, index: u64) -> bool {
        let middle = index.saturating_sub(BINS / 2);
        let means: Vec<f64> = self
            .bins
            .iter()
            .filter_map(|bin| bin.rates.mean())
            .collect();
        let first = self
            .bins
            .iter()
            .take_while(|bin| bin.index < middle)
            .count();
        let (early, late) = means.split_at(first.min(means.len()));
        if early.len() < HALF_BINS_MIN || late.len() < HALF_BINS_MIN {
            return false;
        }
        let mean_of = |half: &[f64]| half.iter().sum::<f64>() / half.len() as f64;
        let mean = mean_of(&means);
        if mean <= 0.0 {
            return false;
        }
        let moved = (mean_of(late) - mean_of(early)).abs();
        let error = noise(&means) * (1.0 / early.len() as f64 + 1.0 / late.len() as f64).sqrt();
        moved <= (self.parameters.rate_tolerance * mean).max(NOISE_ERRORS * error)
    }

    /// Whether the least-squares slope of temperature over the window is flat. A device that never
    /// gave a temperature is judged by its rate alone.
    fn temperature_is_steady(&self) -> bool {
        if !self.has_temperature {
            return true;
        }
        let bin_min = self.parameters.window_ns as f64 / BINS as f64 / 60e9;
        let points: Vec<(f64, f64)> = self
            .bins
            .iter()
            .filter_map(|bin| Some((bin.index as f64 * bin_min, bin.temperatures.mean()?)))
            .collect();
        let enough = points.len() >= 2 * HALF_BINS_MIN && 2 * points.len() >= self.bins.len();
        if !enough {
            return false;
        }
        let n = points.len() as f64;
        let centre = points.iter().map(|(at, _)| at).sum::<f64>() / n;
        let spread: f64 = points.iter().map(|(at, _)| (at - centre).powi(2)).sum();
        let slope: f64 = points
            .iter()
            .map(|(at, value)| (at - centre) * value)
            .sum::<f64>()
            / spread;
        let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
        let error = noise(&values) / spread.sqrt();
        let allowed = self.parameters.temperature_tolerance_k_per_min;
        slope.abs() <= allowed.max(NOISE_ERRORS * error)
    }
}

/// Standard deviation of the noise in a series, from successive differences.
fn noise(values: &[f64]) -> f64 {
    let squares: f64 = values
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).powi(2))
        .sum();
    (squares / (2.0 * (values.len() as f64 - 1.0)).max(1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::{Parameters, Steady, SteadyError, Warmth};
    use crate::stats::bootstrap::SplitMix64;

    const SECOND: u64 = 1_000_000_000;

    fn parameters() -> Parameters {
        Parameters {
            window_ns: 60 * SECOND,
            rate_tolerance: 0.01,
            temperature_tolerance_k_per_min: 0.5,
            least_ns: 30 * SECOND,
            limit_ns: 1_800 * SECOND,
        }
    }

    /// Feeds one sample each `period_ns` until the answer stands; returns it.
    fn run(
        parameters: Parameters,
        period_ns: u64,
        mut sample: impl FnMut(f64) -> (f64, Option<f64>),
    ) -> Warmth {
        let start_ns = 7 * SECOND;
        let mut steady = Steady::new(parameters, start_ns).unwrap();
        for step in 0.. {
            let (rate, temperature) = sample((step * period_ns) as f64 / 1e9);
            let warmth = steady.push(start_ns + step * period_ns, rate, temperature);
            assert!(steady.bins.len() <= 49, "bounded memory");
            if warmth != Warmth::Warming {
                return warmth;
            }
        }
        Warmth::Warming
    }

    fn seconds(warmth: Warmth) -> f64 {
        match warmth {
            Warmth::SteadySince(at_ns) => (at_ns - 7 * SECOND) as f64 / 1e9,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_constant_device_is_steady_after_a_window_and_a_quarter() {
        for period_ns in [SECOND / 10, SECOND, 5 * SECOND, 10 * SECOND] {
            let at = seconds(run(parameters(), period_ns, |_| (100.0, Some(60.0))));
            assert!((75.0..=90.0).contains(&at), "period {period_ns}: {at} s");
        }
    }

    #[test]
    fn white_noise_of_five_percent_does_not_block_the_end() {
        for seed in 0..200 {
            let mut chance = SplitMix64::new(seed);
            let at = seconds(run(parameters(), SECOND, |_| {
                (
                    100.0 * (1.0 + 0.1 * (chance.unit() - 0.5)),
                    Some(60.0 + chance.unit()),
                )
            }));
            assert!(at < 600.0, "seed {seed}: {at} s");
        }
    }

    #[test]
    fn a_rate_that_still_falls_is_not_steady_however_noisy() {
        let (mut earliest, mut latest) = (f64::INFINITY, 0.0_f64);
        for seed in 0..100 {
            // 20 % fall with a time constant of two minutes: within 1 % between half windows
            // (20 % · (1 − e^−0.25) · e^−t/120 · …) only after some 170 s.
            let mut chance = SplitMix64::new(seed);
            let at = seconds(run(parameters(), SECOND, |t| {
                (
                    100.0 + 20.0 * f64::exp(-t / 120.0) + 1.0 * (chance.unit() - 0.5),
                    None,
                )
            }));
            earliest = earliest.min(at);
            latest = latest.max(at);
        }
        println!("between {earliest} s and {latest} s");
        assert!(earliest > 200.0 && latest < 450.0, "{earliest} {latest}");
    }

    #[test]
    fn a_temperature_that_still_climbs_keeps_a_steady_rate_warming() {
        // 40 K with a time constant of 3 min: slope below 0.5 K/min after 3·ln(40/3/0.5) = 9.85 min.
        let at = seconds(run(parameters(), SECOND, |t| {
            (100.0, Some(70.0 - 40.0 * f64::exp(-t / 180.0)))
        }));
        assert!((590.0..680.0).contains(&at), "{at}");
        // The same, read in whole degrees.
        let at = seconds(run(parameters(), SECOND, |t| {
            (100.0, Some((70.0 - 40.0 * f64::exp(-t / 180.0)).round()))
        }));
        assert!((400.0..800.0).contains(&at), "{at}");
    }

    #[test]
    fn a_device_that_never_settles_reaches_its_limit() {
        let climbing = run(parameters(), SECOND, |t| (100.0 + t, None));
        assert_eq!(climbing, Warmth::LimitReached);
        let swinging = run(parameters(), SECOND, |t| {
            (100.0 + 20.0 * f64::sin(t / 12.0), None)
        });
        assert_eq!(swinging, Warmth::LimitReached);
    }

    #[test]
    fn a_silent_device_is_never_steady() {
        assert_eq!(
            run(parameters(), SECOND, |_| (0.0, Some(40.0))),
            Warmth::LimitReached
        );
        assert_eq!(
            run(parameters(), SECOND, |_| (f64::NAN, Some(40.0))),
            Warmth::LimitReached
        );
        let mut mute = Steady::new(parameters(), 0).unwrap();
        assert_eq!(mute.tick(1_800 * SECOND), Warmth::Warming);
        assert_eq!(mute.tick(1_800 * SECOND + 1), Warmth::LimitReached);
        assert_eq!(mute.push(1_801 * SECOND, 1.0, None), Warmth::LimitReached);
    }

    #[test]
    fn samples_too_far_apart_or_a_lost_thermometer_prove_nothing() {
        assert_eq!(
            run(parameters(), 16 * SECOND, |_| (100.0, None)),
            Warmth::LimitReached
        );
        let lost = run(parameters(), SECOND, |t| {
            (100.0, (t < 20.0).then_some(60.0))
        });
        assert_eq!(lost, Warmth::LimitReached);
    }

    #[test]
    fn a_hole_in_the_samples_starts_the_window_again() {
        let mut steady = Steady::new(parameters(), 0).unwrap();
        let mut answer = None;
        for second in (0..70).chain(90..400) {
            if let Warmth::SteadySince(at_ns) = steady.push(second * SECOND, 100.0, None) {
                answer.get_or_insert(at_ns / SECOND);
            }
        }
        assert_eq!(answer, Some(165));
    }

    #[test]
    fn warm_up_lasts_at_least_as_long_as_asked_and_the_answer_stands() {
        let patient = Parameters {
            least_ns: 300 * SECOND,
            ..parameters()
        };
        let mut steady = Steady::new(patient, 0).unwrap();
        for second in 0..=300 {
            assert_eq!(steady.warmth(), Warmth::Warming, "{second} s");
            steady.push(second * SECOND, 100.0, None);
        }
        assert_eq!(steady.warmth(), Warmth::SteadySince(300 * SECOND));
        assert_eq!(
            steady.push(301 * SECOND, 1.0, None),
            Warmth::SteadySince(300 * SECOND)
        );
        assert_eq!(steady.tick(u64::MAX), Warmth::SteadySince(300 * SECOND));
    }

    #[test]
    fn samples_out_of_order_change_nothing() {
        let feed = |disturbed: bool| {
            let mut steady = Steady::new(parameters(), 10 * SECOND).unwrap();
            for second in 10..200 {
                steady.push(second * SECOND, 100.0, None);
                if disturbed {
                    steady.push((second - 1) * SECOND, 900.0, Some(90.0));
                    steady.push(3 * SECOND, 900.0, None);
                }
            }
            steady.warmth()
        };
        assert_eq!(feed(true), feed(false));
    }

    #[test]
    fn parameters_that_nothing_can_meet_are_refused() {
        let refused = |change: fn(&mut Parameters)| {
            let mut parameters = parameters();
            change(&mut parameters);
            Steady::new(parameters, 0).err()
        };
        assert!(matches!(
            refused(|p| p.window_ns = 0),
            Some(SteadyError::Window { .. })
        ));
        assert!(matches!(
            refused(|p| p.rate_tolerance = f64::NAN),
            Some(SteadyError::Tolerance { .. })
        ));
        assert!(matches!(
            refused(|p| p.temperature_tolerance_k_per_min = -1.0),
            Some(SteadyError::Tolerance { .. })
        ));
        assert!(matches!(
            refused(|p| p.limit_ns = 60 * SECOND),
            Some(SteadyError::Limit { .. })
        ));
        assert!(refused(|_| ()).is_none());
    }
}
