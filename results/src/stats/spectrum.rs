//! How strongly a series swings, and with which period: one Fourier line against its neighbours.
//!
//! Values must be evenly spaced; a straight trend is taken off first. A line counts by how far it stands
//! above the median of the lines around it, so that red noise, whose slow lines are all high, is no
//! period. Refuses (with `None`) fewer than [`POINTS_MIN`] values and values that are not finite.

use super::outlier::median;
use std::f64::consts::TAU;

/// Fewest values.
pub const POINTS_MIN: usize = 32;
/// Lines on either side of one that its surroundings are read from.
const AROUND: usize = 10;
/// Lines that a peak spills into on either side.
const SPILL: usize = 1;

/// The power at each Fourier frequency.
#[derive(Clone, Debug, PartialEq)]
pub struct Spectrum {
    /// Power of line k, which has k + 1 periods in the series; their sum is the variance (population).
    lines: Vec<f64>,
    length_s: f64,
}

/// The line that stands out most in a band.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    pub period_s: f64,
    /// Half of peak to trough of the sine, in the values' unit.
    pub amplitude: f64,
    /// Power over the median of its surroundings.
    pub over: f64,
    /// p-value of “noise”, for the strongest of the band's lines.
    pub p: f64,
}

/// The periodogram of evenly spaced values, `step_s` apart.
///
/// Cost is quadratic: give a few thousand values. Source: Schuster 1898; scaling so that the lines add up
/// to the variance: Percival and Walden, *Spectral Analysis for Physical Applications*, §6.3.
pub fn spectrum(values: &[f64], step_s: f64) -> Option<Spectrum> {
    let n = values.len();
    if n < POINTS_MIN || step_s.is_nan() || step_s <= 0.0 || values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let flat = detrended(values);
    let turn = TAU / n as f64;
    let (cos, sin): (Vec<f64>, Vec<f64>) = (0..n)
        .map(|i| ((turn * i as f64).cos(), (turn * i as f64).sin()))
        .unzip();
    let line = |k: usize| {
        let (mut re, mut im, mut at) = (0.0, 0.0, 0);
        for value in &flat {
            re += value * cos[at];
            im += value * sin[at];
            at += k;
            if at >= n {
                at -= n;
            }
        }
        // The last line of an even number has no mirror image.
        let sides = if 2 * k == n { 1.0 } else { 2.0 };
        sides * (re * re + im * im) / (n as f64).powi(2)
    };
    Some(Spectrum {
        lines: (1..=n / 2).map(line).collect(),
        length_s: n as f64 * step_s,
    })
}

impl Spectrum {
    /// Variance of the series without its trend.
    pub fn variance(&self) -> f64 {
        self.lines.iter().sum()
    }

    /// Share of the variance between two frequencies, Hz; 0 where nothing varies.
    pub fn share(&self, low_hz: f64, high_hz: f64) -> f64 {
        let variance = self.variance();
        if variance <= 0.0 {
            return 0.0;
        }
        let inside = self.inside(low_hz, high_hz);
        self.lines[inside].iter().sum::<f64>() / variance
    }

    fn inside(&self, low_hz: f64, high_hz: f64) -> std::ops::Range<usize> {
        let first = (low_hz * self.length_s).ceil().max(1.0) as usize - 1;
        let last = (high_hz * self.length_s).floor().max(0.0) as usize;
        let last = last.min(self.lines.len());
        first.min(last)..last
    }

    /// The line that stands furthest above its surroundings, of those between two frequencies, Hz.
    ///
    /// Noise of a smooth spectrum makes a line an exponential variable about its surroundings' mean, whose
    /// median is ln 2 of it. The surroundings are read from few lines, so the ratio's tail is that of an F law
    /// rather than an exponential's; p is for the largest of the band's lines. Source: Priestley, *Spectral
    /// Analysis and Time Series*, §6.1.4 and §6.2.
    pub fn line(&self, low_hz: f64, high_hz: f64) -> Option<Line> {
        let inside = self.inside(low_hz, high_hz);
        let tests = inside.len() as f64;
        let weighed = |k: usize| {
            let (level, lines) = self.around(k)?;
            let over = self.lines[k] / level;
            // A median tells a level as well as the mean of half as many.
            let freedom = 0.5 * lines as f64;
            let alone = (1.0 + over * std::f64::consts::LN_2 / freedom).powf(-freedom);
            Some((k, over, alone))
        };
        let best = inside.filter_map(weighed);
        let (k, over, alone) = best.min_by(|a, b| a.2.total_cmp(&b.2))?;
        let spill = k.saturating_sub(SPILL)..(k + SPILL + 1).min(self.lines.len());
        let power: f64 = self.lines[spill.clone()].iter().sum();
        let centre: f64 = spill.map(|i| self.lines[i] * (i + 1) as f64).sum();
        Some(Line {
            period_s: self.length_s * power / centre,
            amplitude: (2.0 * power).sqrt(),
            over,
            p: (tests * alone).min(1.0),
        })
    }

    /// The level around a line, its own spill left out, and the lines it was read from: the higher of both
    /// sides' medians, since noise that reddens is higher on one. `None` where it is 0 or has too few lines.
    fn around(&self, k: usize) -> Option<(f64, usize)> {
        let left = k.saturating_sub(AROUND + SPILL)..k.saturating_sub(SPILL);
        let right =
            (k + SPILL + 1).min(self.lines.len())..(k + AROUND + SPILL + 1).min(self.lines.len());
        let level = |side: std::ops::Range<usize>| {
            let wide = side.len() >= AROUND / 2;
            wide.then(|| median(&self.lines[side])).flatten()
        };
        let lines = left.len() + right.len();
        let level = [level(left), level(right)]
            .into_iter()
            .flatten()
            .reduce(f64::max)?;
        (level > 0.0).then_some((level, lines))
    }
}

/// The values less the straight line from the least squares.
fn detrended(values: &[f64]) -> Vec<f64> {
    let n = values.len() as f64;
    let centre = (n - 1.0) / 2.0;
    let mean = values.iter().sum::<f64>() / n;
    let place = |i: usize| i as f64 - centre;
    let (mut up, mut square) = (0.0, 0.0);
    for (i, v) in values.iter().enumerate() {
        up += place(i) * (v - mean);
        square += place(i).powi(2);
    }
    let slope = up / square;
    values
        .iter()
        .enumerate()
        .map(|(i, v)| v - mean - slope * place(i))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::bootstrap::SplitMix64;

    /// AR(1) noise.
    fn red(chance: &mut SplitMix64, many: usize, phi: f64) -> Vec<f64> {
        let mut last = 0.0;
        let next = |_| {
            last = phi * last + chance.unit() - 0.5;
            last
        };
        (0..many).map(next).collect()
    }

    #[test]
    fn lines_add_up_to_the_variance_and_a_sine_is_found_with_its_size() {
        let wave = |i: usize| 3.0 + 0.8 * (TAU * i as f64 / 50.0).sin();
        let values: Vec<f64> = (0..400).map(wave).collect();
        let found = spectrum(&values, 2.0).unwrap();
        assert!((found.variance() - 0.32).abs() < 0.01, "0.8² / 2");
        let line = found.line(1.0 / 300.0, 1.0 / 30.0).unwrap();
        assert!((line.period_s - 100.0).abs() < 1.0, "{line:?}");
        assert!(
            (line.amplitude - 0.8).abs() < 0.02 && line.p < 1e-6,
            "{line:?}"
        );
        assert!(found.share(1.0 / 300.0, 1.0 / 30.0) > 0.95);
        assert!(found.share(0.1, 0.2) < 0.01);
    }

    #[test]
    fn parseval_holds_for_even_and_odd_lengths() {
        let mut chance = SplitMix64::new(3);
        for many in [64, 65] {
            let values: Vec<f64> = (0..many).map(|_| chance.unit()).collect();
            let flat = detrended(&values);
            let variance = flat.iter().map(|v| v * v).sum::<f64>() / many as f64;
            assert!((spectrum(&values, 1.0).unwrap().variance() - variance).abs() < 1e-12);
        }
    }

    #[test]
    fn red_noise_is_rarely_a_period() {
        let seed = 81;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        let mut called = 0;
        for _ in 0..200 {
            let values = red(&mut chance, 400, 0.9);
            let line = spectrum(&values, 2.0)
                .unwrap()
                .line(1.0 / 300.0, 1.0 / 30.0);
            called += u32::from(line.is_some_and(|l| l.p < 1e-3));
        }
        assert!(called <= 4, "{called} of 200 at 0.1 %");
    }

    #[test]
    fn a_period_stands_out_of_red_noise() {
        let seed = 82;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        let mut values = red(&mut chance, 400, 0.9);
        for (i, v) in values.iter_mut().enumerate() {
            *v += (TAU * i as f64 / 45.0).sin();
        }
        let line = spectrum(&values, 2.0)
            .unwrap()
            .line(1.0 / 300.0, 1.0 / 30.0)
            .unwrap();
        assert!(
            (line.period_s - 90.0).abs() < 6.0 && line.p < 1e-4,
            "{line:?}"
        );
    }

    #[test]
    fn what_is_too_short_flat_or_not_finite_has_no_line() {
        assert_eq!(spectrum(&[1.0; 31], 1.0), None);
        assert_eq!(spectrum(&[f64::NAN; 40], 1.0), None);
        assert_eq!(spectrum(&[1.0; 40], 0.0), None);
        let flat = spectrum(&[1.0; 40], 1.0).unwrap();
        assert_eq!(flat.line(0.0, 0.5), None);
        assert!(flat.share(0.0, 0.5) <= 0.0);
    }
}
