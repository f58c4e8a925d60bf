//! By how much one series comes after another of the same shape.
//!
//! Decides by the largest correlation over a range of lags, and between steps by how the rest goes with the first one's
//! slope. Pairs of which one value is missing (NaN) are left out. Refuses (with `None`) series of unequal length, fewer than
//! [`PAIRS_MIN`] pairs at any lag, and a series that does not vary.

/// Fewest pairs behind a correlation.
pub const PAIRS_MIN: usize = 16;

/// How one series follows another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lag {
    /// Steps by which the second comes after the first; negative: before.
    pub steps: f64,
    /// Pearson's correlation at that lag, −1 to 1.
    pub correlation: f64,
    /// The correlation at lag 0.
    pub unshifted: f64,
}

/// The lag, of at most `most` steps either way, at which `follower` looks most like `leader`.
///
/// Between steps the follower less the leader over the leader's slope: where both rest it says nothing, so that slow noise
/// of each does not pass for a lag, as it does in the vertex of a parabola through the correlations. Sources: Box, Jenkins
/// and Reinsel, *Time Series Analysis*, ch. 12 (cross-correlation); Lucas and Kanade, IJCAI 1981 (the slope).
pub fn lag(leader: &[f64], follower: &[f64], most: usize) -> Option<Lag> {
    if leader.len() != follower.len() || leader.len() < PAIRS_MIN {
        return None;
    }
    let most = most.min(leader.len() - PAIRS_MIN) as i64;
    let at = |k: i64| correlation_at(leader, follower, k);
    let all: Vec<f64> = (-most..=most).map(at).collect::<Option<_>>()?;
    let best = (0..all.len()).max_by(|a, b| all[*a].total_cmp(&all[*b]))?;
    let whole = best as i64 - most;
    let between = between(leader, follower, whole).unwrap_or(0.0);
    Some(Lag {
        steps: whole as f64 + between.clamp(-1.0, 1.0),
        correlation: all[best],
        unshifted: all[most as usize],
    })
}

/// leader(t) and follower(t + k), from the same t on.
fn shifted<'a>(leader: &'a [f64], follower: &'a [f64], k: i64) -> (&'a [f64], &'a [f64]) {
    let (skip_leader, skip_follower) = (usize::try_from(-k).ok(), usize::try_from(k).ok());
    (
        &leader[skip_leader.unwrap_or(0)..],
        &follower[skip_follower.unwrap_or(0)..],
    )
}

/// By how much of a step follower(t + k) still comes after leader(t): least squares of it on the leader and its slope.
fn between(leader: &[f64], follower: &[f64], k: i64) -> Option<f64> {
    let (a, b) = shifted(leader, follower, k);
    let points = a.windows(3).zip(b.get(1..)?);
    let points = points.map(|(w, y)| [w[1], (w[2] - w[0]) / 2.0, *y]);
    let points: Vec<[f64; 3]> = points.filter(|p| p.iter().all(|v| v.is_finite())).collect();
    let size = points.len() as f64;
    let mut mean = [0.0; 3];
    for point in &points {
        mean.iter_mut().zip(point).for_each(|(m, v)| *m += v / size);
    }
    let (mut xx, mut xs, mut ss, mut xy, mut sy) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for point in &points {
        let [x, s, y] = [0, 1, 2].map(|i| point[i] - mean[i]);
        xx += x * x;
        xs += x * s;
        ss += s * s;
        xy += x * y;
        sy += s * y;
    }
    let [level, slope] = [xy * ss - sy * xs, sy * xx - xy * xs];
    let steps = -slope / level;
    (points.len() >= PAIRS_MIN && steps.is_finite()).then_some(steps)
}

/// Correlation of leader(t) with follower(t + k).
fn correlation_at(leader: &[f64], follower: &[f64], k: i64) -> Option<f64> {
    let (a, b) = shifted(leader, follower, k);
    let both = || {
        a.iter()
            .zip(b)
            .filter(|(x, y)| x.is_finite() && y.is_finite())
    };
    let n = both().count();
    if n < PAIRS_MIN {
        return None;
    }
    let size = n as f64;
    let (mean_a, mean_b) = both().fold((0.0, 0.0), |(p, q), (x, y)| (p + x / size, q + y / size));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in both() {
        let (u, v) = (x - mean_a, y - mean_b);
        ab += u * v;
        aa += u * u;
        bb += v * v;
    }
    let still = |square: f64, mean: f64| square <= size * (mean * 1e-12).powi(2);
    if still(aa, mean_a) || still(bb, mean_b) {
        return None;
    }
    Some(ab / (aa * bb).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::bootstrap::SplitMix64;

    fn smooth(chance: &mut SplitMix64, many: usize) -> Vec<f64> {
        let raw: Vec<f64> = (0..many + 8).map(|_| chance.unit()).collect();
        raw.windows(9)
            .map(|w| w.iter().sum::<f64>() / 9.0)
            .collect()
    }

    #[test]
    fn a_shift_is_found_whole_and_between_steps() {
        let seed = 91;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        let base = smooth(&mut chance, 400);
        for shift in [-7_i64, -1, 0, 3, 12] {
            let take = |i: i64| base[(i + 20) as usize];
            let leader: Vec<f64> = (0..300).map(take).collect();
            let late: Vec<f64> = (0..300).map(|i| 5.0 - take(i - shift) * -2.0).collect();
            let found = lag(&leader, &late, 15).unwrap();
            assert!(
                (found.steps - shift as f64).abs() < 0.1,
                "{shift}: {found:?}"
            );
            assert!(found.correlation > 0.999);
            // Half a step: the mean of two neighbours.
            let half: Vec<f64> = (0..300)
                .map(|i| f64::midpoint(take(i - shift), take(i - shift - 1)))
                .collect();
            let found = lag(&leader, &half, 15).unwrap();
            assert!(
                (found.steps - shift as f64 - 0.5).abs() < 0.1,
                "{shift}: {found:?}"
            );
        }
    }

    #[test]
    fn one_step_among_slow_noise_of_each_is_no_lag_and_one_that_comes_later_is() {
        let seed = 92;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        for late in [0.0, 0.4] {
            for _ in 0..50 {
                let mut of = |late: f64| -> Vec<f64> {
                    let mut slow = 0.0;
                    let one = |t: usize| {
                        slow = 0.9 * slow + (chance.unit() - 0.5) * 2.0;
                        let up = (t as f64 - 200.0 - late).clamp(0.0, 1.0);
                        100.0 + 50.0 * up + slow
                    };
                    (0..1_000).map(one).collect()
                };
                let found = lag(&of(0.0), &of(late), 8).unwrap();
                // Noise in the slopes makes it less, never more.
                let (least, most) = if late > 0.0 { (0.1, 0.6) } else { (-0.2, 0.2) };
                assert!((least..most).contains(&found.steps), "{late}: {found:?}");
            }
        }
    }

    #[test]
    fn the_correlation_is_pearsons() {
        // Anscombe's first quartet: 0.816.
        let x = [10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0];
        let y = [
            8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68,
        ];
        // Twice, so that there are enough pairs; the correlation stays.
        let twice = |v: &[f64]| [v, v].concat();
        let found = lag(&twice(&x), &twice(&y), 0).unwrap();
        assert!((found.unshifted - 0.816_42).abs() < 1e-5, "{found:?}");
    }

    #[test]
    fn holes_are_left_out_and_what_is_still_has_no_lag() {
        let mut chance = SplitMix64::new(9);
        let base = smooth(&mut chance, 120);
        let mut late: Vec<f64> = (0..120).map(|i: usize| base[i.saturating_sub(4)]).collect();
        late[30..40].fill(f64::NAN);
        assert!((lag(&base, &late, 10).unwrap().steps - 4.0).abs() < 0.2);
        assert_eq!(lag(&base, &[1.0; 120], 10), None);
        assert_eq!(lag(&base, &late[1..], 10), None);
        assert_eq!(lag(&[f64::NAN; 40], &[f64::NAN; 40], 3), None);
    }
}
