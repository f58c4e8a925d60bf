//! Whether a series climbs or falls, and how fast: Theil–Sen slope, Sen's bounds, Mann–Kendall test.
//!
//! Neither one wild block nor the law of the noise moves the answer. Refuses (with `None`) fewer than
//! four points, equal places and values that are not finite. The points must be independent around
//! their trend: give block rates (an hour each for drift over a day), never raw samples, where an
//! AR(1) of 0.9 turns 5 % of false alarms into 62 %.
//!
//! Cost is quadratic, so above [`POINTS_MAX`] points consecutive groups are replaced by their median
//! value at their mean place; the slope keeps its meaning, the bounds widen by a quarter at normal noise.

use super::interval::{Interval, normal_quantile};
use super::outlier::median;
use statrs::distribution::{ContinuousCDF, Normal};

/// Most points compared pair by pair: two million slopes.
pub const POINTS_MAX: usize = 2_000;

/// A trend of values over places.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// Median of all pairwise slopes with one-sided bounds, in value units per place unit.
    pub slope: Interval,
    /// Median of value − slope · place: where the line stands at place 0, in value units.
    pub intercept: f64,
    /// Mann–Kendall: rising minus falling pairs.
    pub score: i64,
    /// p-value of “there is no rise”: small where the series rises.
    pub p_no_rise: f64,
    /// p-value of “there is no fall”: small where the series falls.
    pub p_no_fall: f64,
    /// Points compared, after grouping.
    pub points: usize,
}

/// The trend through (place, value) points in any order, bounds one-sided at `confidence` each.
///
/// Sources: Theil 1950; Sen 1968; Mann 1945; Kendall, *Rank Correlation Methods*, 4th ed., ch. 4 (ties);
/// ranks of the bounds: Hollander, Wolfe and Chicken, *Nonparametric Statistical Methods*, 3rd ed., §9.3.
pub fn trend(points: &[(f64, f64)], confidence: f64) -> Option<Trend> {
    let z = normal_quantile(confidence)?;
    let points = ordered(points)?;
    let mut slopes = Vec::with_capacity(points.len() * (points.len() - 1) / 2);
    for (index, (place, value)) in points.iter().enumerate() {
        slopes.extend(
            points[index + 1..]
                .iter()
                .map(|(x, y)| (y - value) / (x - place)),
        );
    }
    let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
    let (score, deviation) = mann_kendall(&values);
    // The bound is the slope at which the test with its continuity step of 1 stops rejecting.
    let outside = (slopes.len() as f64 - z * deviation - 1.0) / 2.0;
    if outside < 0.0 {
        return None;
    }
    let cut = outside as usize;
    slopes.sort_unstable_by(f64::total_cmp);
    let half = slopes.len() / 2;
    let value = if slopes.len() % 2 == 1 {
        slopes[half]
    } else {
        slopes[half - 1] + (slopes[half] - slopes[half - 1]) / 2.0
    };
    let (low, high) = (
        slopes[cut.min(half)],
        slopes[(slopes.len() - 1 - cut).max(half)],
    );
    let residues: Vec<f64> = points
        .iter()
        .map(|(place, height)| height - value * place)
        .collect();
    Some(Trend {
        slope: Interval {
            low: low.min(value),
            value,
            high: high.max(value),
        },
        intercept: median(&residues)?,
        score,
        p_no_rise: upper_tail(score, deviation),
        p_no_fall: upper_tail(-score, deviation),
        points: points.len(),
    })
}

/// p-value of “the slope is at most `limit`”: Mann–Kendall on what `limit` leaves unexplained.
///
/// Agrees with the lower bound of [`trend`] except where residues tie. `None`: as there.
pub fn p_at_most(points: &[(f64, f64)], limit: f64) -> Option<f64> {
    let (score, deviation) = score_around(points, limit)?;
    Some(upper_tail(score, deviation))
}

/// p-value of “the slope is at least `limit`”.
pub fn p_at_least(points: &[(f64, f64)], limit: f64) -> Option<f64> {
    let (score, deviation) = score_around(points, limit)?;
    Some(upper_tail(-score, deviation))
}

fn score_around(points: &[(f64, f64)], limit: f64) -> Option<(i64, f64)> {
    if !limit.is_finite() {
        return None;
    }
    let residues: Vec<f64> = ordered(points)?
        .iter()
        .map(|(x, y)| y - limit * x)
        .collect();
    Some(mann_kendall(&residues))
}

/// Points by place, grouped down to [`POINTS_MAX`].
fn ordered(points: &[(f64, f64)]) -> Option<Vec<(f64, f64)>> {
    let finite = points.iter().all(|(x, y)| x.is_finite() && y.is_finite());
    if points.len() < 4 || !finite {
        return None;
    }
    let mut points = points.to_vec();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    if points.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
        return None;
    }
    let group = points.len().div_ceil(POINTS_MAX);
    if group == 1 {
        return Some(points);
    }
    points
        .chunks(group)
        .map(|part| {
            let place = part.iter().map(|(x, _)| x).sum::<f64>() / part.len() as f64;
            let values: Vec<f64> = part.iter().map(|(_, y)| *y).collect();
            Some((place, median(&values)?))
        })
        .collect()
}

/// Rising minus falling pairs of a series in order, and the standard deviation of that score when the
/// order is chance; equal values are allowed for.
fn mann_kendall(values: &[f64]) -> (i64, f64) {
    let mut score = 0_i64;
    for (index, value) in values.iter().enumerate() {
        for later in &values[index + 1..] {
            score += i64::from(later > value) - i64::from(later < value);
        }
    }
    let weight = |n: usize| {
        let n = n as f64;
        n * (n - 1.0) * (2.0 * n + 5.0)
    };
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let ties: f64 = sorted
        .chunk_by(|a, b| a >= b)
        .map(|tie| weight(tie.len()))
        .sum();
    (score, ((weight(values.len()) - ties) / 18.0).sqrt())
}

/// Probability that chance gives `score` or more, with Kendall's continuity correction.
fn upper_tail(score: i64, deviation: f64) -> f64 {
    if deviation <= 0.0 {
        // All values equal: chance gives this very score.
        return 1.0;
    }
    match Normal::new(0.0, 1.0) {
        Ok(normal) => normal.sf((score as f64 - 1.0) / deviation),
        Err(_) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::{POINTS_MAX, mann_kendall, p_at_least, p_at_most, trend};
    use crate::stats::bootstrap::SplitMix64;

    fn near(got: f64, expected: f64, within: f64) {
        assert!(
            (got - expected).abs() <= within,
            "got {got}, expected {expected} ± {within}"
        );
    }

    fn line(chance: &mut SplitMix64, points: usize, slope: f64, noise: f64) -> Vec<(f64, f64)> {
        (0..points)
            .map(|i| (i as f64, slope * i as f64 + noise * (chance.unit() - 0.5)))
            .collect()
    }

    #[test]
    fn the_slope_of_hollander_and_wolfes_example_is_theirs() {
        // Cloud seeding, example 9.1: median of ten slopes −0.05625.
        let points = [
            (1.0, 1.26),
            (2.0, 1.27),
            (3.0, 1.12),
            (4.0, 1.16),
            (5.0, 1.03),
        ];
        let found = trend(&points, 0.95).unwrap();
        near(found.slope.value, -0.05625, 1e-12);
        assert_eq!(found.score, -6);
        // Kendall's S = 8 is the 5 % point of n = 5, so one slope falls outside on either side.
        near(found.slope.low, -0.13, 1e-12);
        near(found.slope.high, 0.01, 1e-12);
    }

    #[test]
    fn the_tail_of_mann_kendall_is_near_the_exact_one() {
        // Exact: all orders of six values.
        let mut orders = vec![Vec::new()];
        for value in 0..6 {
            let insert = |order: Vec<f64>| {
                (0..=order.len()).map(move |at| {
                    let mut longer = order.clone();
                    longer.insert(at, f64::from(value));
                    longer
                })
            };
            orders = orders.into_iter().flat_map(insert).collect();
        }
        assert_eq!(orders.len(), 720);
        let scores: Vec<(i64, f64)> = orders.iter().map(|order| mann_kendall(order)).collect();
        let variance = scores.iter().map(|(s, _)| (s * s) as f64).sum::<f64>() / 720.0;
        near(scores[0].1.powi(2), variance, 1e-9);
        for score in [1, 5, 9, 11] {
            let exact = scores.iter().filter(|(s, _)| *s >= score).count() as f64 / 720.0;
            near(super::upper_tail(score, variance.sqrt()), exact, 0.013);
        }
    }

    #[test]
    fn tied_values_shrink_the_variance_to_the_exact_one() {
        // All orders of (0, 0, 1, 2, 2), each as often as the others.
        let base = [0.0, 0.0, 1.0, 2.0, 2.0];
        let (mut squares, mut count) = (0.0, 0);
        let mut visit = |order: &[usize]| {
            let values: Vec<f64> = order.iter().map(|i| base[*i]).collect();
            squares += (mann_kendall(&values).0 as f64).powi(2);
            count += 1;
        };
        for code in 0..5_usize.pow(5) {
            let order: Vec<usize> = (0..5).map(|i| code / 5_usize.pow(i) % 5).collect();
            let mut seen = order.clone();
            seen.sort_unstable();
            if seen == [0, 1, 2, 3, 4] {
                visit(&order);
            }
        }
        assert_eq!(count, 120);
        near(mann_kendall(&base).1.powi(2), squares / 120.0, 1e-9);
    }

    #[test]
    fn bounds_of_the_slope_cover_it_as_often_as_promised() {
        let seed = 404;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        for points in [5, 12, 40] {
            let (mut low_ok, mut high_ok) = (0, 0);
            for _ in 0..2_000 {
                let slope = trend(&line(&mut chance, points, 0.25, 1.0), 0.95)
                    .unwrap()
                    .slope;
                low_ok += u32::from(slope.low <= 0.25);
                high_ok += u32::from(slope.high >= 0.25);
            }
            assert!(
                low_ok >= 1_861 && high_ok >= 1_861,
                "{points}: {low_ok} {high_ok}"
            );
        }
    }

    #[test]
    fn the_bound_clears_a_limit_exactly_where_the_p_value_is_small() {
        let seed = 405;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        for _ in 0..400 {
            let many = 4 + chance.below(30) as usize;
            let points = line(&mut chance, many, 0.1, 2.0);
            let slope = trend(&points, 0.95).unwrap().slope;
            let limit = 0.2 * chance.unit();
            assert_eq!(slope.low > limit, p_at_most(&points, limit).unwrap() < 0.05);
            assert_eq!(
                slope.high < limit,
                p_at_least(&points, limit).unwrap() < 0.05
            );
        }
    }

    #[test]
    fn one_wild_block_in_ten_does_not_move_the_slope() {
        let mut points: Vec<(f64, f64)> = (0..50)
            .map(|i| (f64::from(i), 3.0 * f64::from(i)))
            .collect();
        for wild in [4, 17, 23, 31, 48] {
            points[wild].1 = 1e9;
        }
        near(trend(&points, 0.95).unwrap().slope.value, 3.0, 1e-9);
    }

    #[test]
    fn long_series_are_grouped_and_keep_their_slope() {
        let seed = 406;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        let found = trend(&line(&mut chance, 26_000, 1e-3, 4.0), 0.95).unwrap();
        assert!(found.points <= POINTS_MAX && found.points > POINTS_MAX / 2);
        assert!(found.slope.low <= 1e-3 && 1e-3 <= found.slope.high);
        assert!(found.slope.high - found.slope.low < 2e-5, "{found:?}");
        assert!(found.p_no_rise < 1e-6 && found.p_no_fall > 0.99);
    }

    #[test]
    fn constants_have_no_trend_and_too_little_has_no_answer() {
        let flat: Vec<(f64, f64)> = (0..10).map(|i| (f64::from(i), 5.0)).collect();
        let found = trend(&flat, 0.95).unwrap();
        near(found.slope.low, 0.0, 0.0);
        near(found.slope.high, 0.0, 0.0);
        near(found.p_no_rise, 1.0, 0.0);
        near(found.intercept, 5.0, 1e-12);
        assert_eq!(trend(&flat[..3], 0.95), None);
        assert_eq!(
            trend(&[(0.0, 1.0), (0.0, 2.0), (1.0, 1.0), (2.0, 2.0)], 0.95),
            None
        );
        assert_eq!(
            trend(&[(0.0, f64::NAN), (1.0, 2.0), (2.0, 1.0), (3.0, 2.0)], 0.95),
            None
        );
        assert_eq!(trend(&flat, 1.0), None);
    }
}
