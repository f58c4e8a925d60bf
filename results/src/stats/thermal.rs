//! How a chip gets rid of its heat: resistance between two power levels, and time constants after a step.
//!
//! Temperatures are taken relative to what cools the chip, so that offsets of the sensors cancel. Refuses
//! (with `None`) powers that are too alike to divide by, too few points, and values that are not finite.

use super::outlier::median;

/// Fewest points on either side of the split between two power levels.
const SIDE_MIN: usize = 5;
/// Two levels must differ by this share of the higher one.
const LEVELS_APART: f64 = 0.1;
/// Fewest points of a step response.
const STEP_MIN: usize = 12;
/// Time constants tried, evenly in their logarithm.
const TRIED: usize = 40;
/// Times that the grid is narrowed around the best pair.
const NARROWED: usize = 5;

/// K/W between two power levels: difference of median temperatures over difference of median powers.
///
/// `points`: power in W and temperature over the coolant in K, each pair at rest. Split at the middle between
/// the lowest and the highest power. Offsets of either sensor cancel. Source: JEDEC JESD51-1, eq. 1.
pub fn between_levels(points: &[(f64, f64)]) -> Option<f64> {
    if points
        .iter()
        .any(|(p, t)| !(p.is_finite() && t.is_finite()))
    {
        return None;
    }
    let low = points.iter().map(|p| p.0).reduce(f64::min)?;
    let high = points.iter().map(|p| p.0).reduce(f64::max)?;
    let split = f64::midpoint(low, high);
    let side = |above: bool| {
        let side = || points.iter().filter(move |p| (p.0 > split) == above);
        let powers: Vec<f64> = side().map(|p| p.0).collect();
        let heights: Vec<f64> = side().map(|p| p.1).collect();
        let enough = powers.len() >= SIDE_MIN;
        enough
            .then(|| Some((median(&powers)?, median(&heights)?)))
            .flatten()
    };
    let ((cold_w, cold_k), (hot_w, hot_k)) = (side(false)?, side(true)?);
    let apart = hot_w - cold_w;
    (apart > LEVELS_APART * hot_w.abs()).then(|| (hot_k - cold_k) / apart)
}

/// A step response with two poles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Poles {
    /// Time constants, the fast one first, s.
    pub fast_s: f64,
    pub slow_s: f64,
    /// Share of the step that the slow pole makes, 0 to 1.
    pub slow_share: f64,
    /// Where it starts and where it ends, in the values' unit.
    pub from: f64,
    pub to: f64,
    /// Root mean square of what is left, same unit.
    pub left: f64,
}

/// Fits value(t) = to + a·exp(−t/fast) + b·exp(−t/slow) to points (s after a step of power, value).
///
/// The three amplitudes are linear and solved exactly for each pair of time constants, the pair by a grid
/// that is narrowed: no start value is needed. Source: Golub and Pereyra, “The Differentiation of
/// Pseudo-Inverses and Nonlinear Least Squares Problems Whose Variables Separate”, 1973; two poles of die
/// and cold plate: JESD51-14, §4.
pub fn two_poles(points: &[(f64, f64)]) -> Option<Poles> {
    let finite = points
        .iter()
        .all(|(t, v)| t.is_finite() && v.is_finite() && *t >= 0.0);
    if points.len() < STEP_MIN || !finite {
        return None;
    }
    let last = points.iter().map(|p| p.0).reduce(f64::max)?;
    let first = points
        .iter()
        .map(|p| p.0)
        .filter(|t| *t > 0.0)
        .reduce(f64::min)?;
    // A pole faster than the points or slower than their span is not in them.
    let (mut low, mut high) = ((first / 2.0).ln(), (last * 2.0).ln());
    let (mut span_fast, mut span_slow) = ((low, high), (low, high));
    let mut best: Option<(f64, Poles)> = None;
    for _ in 0..NARROWED {
        for fast in grid(span_fast) {
            for slow in grid(span_slow).filter(|s| *s > fast * 1.2) {
                let Some(found) = amplitudes(points, fast, slow) else {
                    continue;
                };
                if best.as_ref().is_none_or(|(least, _)| found.left < *least) {
                    best = Some((found.left, found));
                }
            }
        }
        let (_, found) = best.as_ref()?;
        let step = 2.0 * (high - low) / TRIED as f64;
        span_fast = (found.fast_s.ln() - step, found.fast_s.ln() + step);
        span_slow = (found.slow_s.ln() - step, found.slow_s.ln() + step);
        (low, high) = span_fast;
    }
    best.map(|(_, found)| found)
        .filter(|f| (f.to - f.from).abs() > f.left.max(1e-9 * f.to.abs()))
}

fn grid((low, high): (f64, f64)) -> impl Iterator<Item = f64> {
    (0..=TRIED).map(move |i| (low + (high - low) * i as f64 / TRIED as f64).exp())
}

/// The best amplitudes for two time constants, by the normal equations.
fn amplitudes(points: &[(f64, f64)], fast: f64, slow: f64) -> Option<Poles> {
    let mut m = [[0.0_f64; 4]; 3];
    let base = |t: f64| [1.0, (-t / fast).exp(), (-t / slow).exp()];
    for (t, v) in points {
        let row = base(*t);
        for i in 0..3 {
            for j in 0..3 {
                m[i][j] += row[i] * row[j];
            }
            m[i][3] += row[i] * v;
        }
    }
    for column in 0..3 {
        let pivot =
            (column..3).max_by(|a, b| m[*a][column].abs().total_cmp(&m[*b][column].abs()))?;
        m.swap(column, pivot);
        if m[column][column].abs() < 1e-12 * points.len() as f64 {
            return None;
        }
        for other in (0..3).filter(|r| *r != column) {
            let factor = m[other][column] / m[column][column];
            for k in 0..4 {
                m[other][k] -= factor * m[column][k];
            }
        }
    }
    let [to, a, b] = [0, 1, 2].map(|i| m[i][3] / m[i][i]);
    let off = |(t, v): &(f64, f64)| {
        let [one, f, s] = base(*t);
        (v - to * one - a * f - b * s).powi(2)
    };
    let left = (points.iter().map(off).sum::<f64>() / points.len() as f64).sqrt();
    let share = b / (a + b);
    // Two poles of one body pull the same way.
    (0.0..=1.0).contains(&share).then_some(Poles {
        fast_s: fast,
        slow_s: slow,
        slow_share: share,
        from: to + a + b,
        to,
        left,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::bootstrap::SplitMix64;

    #[test]
    fn offsets_of_both_sensors_cancel_in_the_resistance() {
        let mut chance = SplitMix64::new(4);
        for (offset_k, offset_w) in [(0.0, 0.0), (4.0, 0.0), (-3.0, 15.0)] {
            let point = |i: usize| {
                let power = if i.is_multiple_of(2) { 120.0 } else { 690.0 };
                let noise = chance.unit() - 0.5;
                (power + offset_w, offset_k + 0.031 * power + 0.2 * noise)
            };
            let points: Vec<_> = (0..60).map(point).collect();
            let found = between_levels(&points).unwrap();
            assert!((found - 0.031).abs() < 3e-4, "{found}");
        }
    }

    #[test]
    fn one_power_level_gives_no_resistance() {
        let points: Vec<_> = (0..60).map(|i| (690.0 + f64::from(i % 3), 21.0)).collect();
        assert_eq!(between_levels(&points), None);
        assert_eq!(between_levels(&[]), None);
        assert_eq!(between_levels(&[(f64::NAN, 1.0)]), None);
    }

    #[test]
    fn two_poles_are_found_again_with_and_without_noise() {
        let seed = 17;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        for (noise, within) in [(0.0, 0.02), (0.1, 0.25)] {
            let value = |t: f64| 58.0 - 14.0 * (-t / 3.0).exp() - 9.0 * (-t / 45.0).exp();
            let points: Vec<_> = (0..600)
                .map(|i| f64::from(i) * 0.5)
                .map(|t| (t, value(t) + noise * (chance.unit() - 0.5)))
                .collect();
            let found = two_poles(&points).unwrap();
            let near = |got: f64, truth: f64| (got / truth - 1.0).abs() < within;
            assert!(
                near(found.fast_s, 3.0) && near(found.slow_s, 45.0),
                "{found:?}"
            );
            assert!(
                near(found.slow_share, 9.0 / 23.0) && near(found.to, 58.0),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_is_no_step_has_no_poles() {
        let flat: Vec<_> = (0..40).map(|i| (f64::from(i), 5.0)).collect();
        assert_eq!(two_poles(&flat), None);
        assert_eq!(two_poles(&flat[..11]), None);
        assert_eq!(two_poles(&[(1.0, f64::NAN); 20]), None);
    }
}
