//! Which device differs from its peers, by median and MAD, itself left out.
//!
//! Leaving the device out keeps a straggler from widening the spread it is judged by. Refuses to score
//! a device with fewer than [`PEERS_MIN`] peers, or peers that are all alike and no least spread given;
//! a device without a value is no peer and gets no score. Naming suspects among many devices is the
//! caller's: [`crate::stats::multiplicity`].

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Fewest other devices with a value that a device is compared with.
pub const PEERS_MIN: usize = 3;

/// 1 / Φ⁻¹(3/4): makes the MAD of a normal law its standard deviation.
pub const SIGMA_PER_MAD: f64 = 1.482_602_218_505_602;

/// Efficiency of the MAD at the normal law.
const MAD_EFFICIENCY: f64 = 0.37;

/// How one device stands among the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// Its own value.
    pub value: f64,
    /// Median of the others, same unit.
    pub median: f64,
    /// Spread of the others as a standard deviation (1.4826 · MAD), not below the least spread given.
    pub sigma: f64,
    /// (value − median) / sigma. Rough below about ten peers, where a normal law overstates it.
    pub z: f64,
}

impl Standing {
    /// p-value of “no further out than chance puts one of `peers`”, two-sided.
    ///
    /// Student's with freedom for the MAD's own uncertainty: it tells a spread as well as the standard
    /// deviation of 37 % of the values. The median's is allowed for by widening the spread. Sources: Rousseeuw and
    /// Croux, “Alternatives to the Median Absolute Deviation”, 1993 (efficiency); π/2n: Kendall and Stuart, §14.12.
    pub fn p_two_sided(&self, peers: usize) -> f64 {
        let peers = peers.max(PEERS_MIN) as f64;
        let z = self.z.abs() / (1.0 + std::f64::consts::FRAC_PI_2 / peers).sqrt();
        let freedom = (MAD_EFFICIENCY * (peers - 1.0)).max(1.0);
        StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |t| (2.0 * t.sf(z)).min(1.0))
    }
}

/// The median; the mean of the middle two of an even number. `None` without values or with NaN.
pub fn median(values: &[f64]) -> Option<f64> {
    if values.iter().any(|value| value.is_nan()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    middle(&sorted, None)
}

/// Median absolute deviation from the median, unscaled. `None` as for [`median`].
///
/// Source: Hampel, “The Influence Curve and its Role in Robust Estimation”, 1974.
pub fn mad(values: &[f64]) -> Option<f64> {
    let centre = median(values)?;
    let distances: Vec<f64> = values.iter().map(|value| (value - centre).abs()).collect();
    median(&distances)
}

/// Each device against all others, in the order given; `None` where it cannot be scored.
///
/// `sigma_least`: the smallest spread believed, in the values' unit, e.g. the sensor's resolution; 0 for
/// none. Cost: n log n. Sources: Iglewicz and Hoaglin, *How to Detect and Handle Outliers*
/// (the score); leave-one-out: Rousseeuw and Leroy, *Robust Regression and Outlier Detection*, ch. 6.
pub fn against_peers(values: &[Option<f64>], sigma_least: f64) -> Vec<Option<Standing>> {
    let value_of = |value: &Option<f64>| value.filter(|value| value.is_finite());
    let mut sorted: Vec<f64> = values.iter().filter_map(value_of).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    // Leaving one out gives at most three different medians; each needs its distances only once.
    let mut by_median: Vec<(f64, Vec<f64>)> = Vec::new();
    values
        .iter()
        .map(|value| {
            let value = value_of(value)?;
            if sorted.len() <= PEERS_MIN {
                return None;
            }
            let median = middle(&sorted, Some(value))?;
            let known = by_median
                .iter()
                .position(|(at, _)| at.to_bits() == median.to_bits());
            let place = known.unwrap_or_else(|| {
                let mut distances: Vec<f64> = sorted.iter().map(|x| (x - median).abs()).collect();
                distances.sort_unstable_by(f64::total_cmp);
                by_median.push((median, distances));
                by_median.len() - 1
            });
            let mad = middle(&by_median[place].1, Some((value - median).abs()))?;
            let sigma = (mad * SIGMA_PER_MAD).max(sigma_least);
            let z = (value - median) / sigma;
            (sigma > 0.0).then_some(Standing {
                value,
                median,
                sigma,
                z,
            })
        })
        .collect()
}

/// For each value the median of all the others; `None` where one of those is NaN, or there are none. Cost: n log n.
pub fn medians_of_others(values: &[f64]) -> Vec<Option<f64>> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let holes = values.len() - sorted.len();
    let of = |value: &f64| match (value.is_nan(), holes) {
        (false, 0) => middle(&sorted, Some(*value)),
        (true, 1) => middle(&sorted, None),
        _ => None,
    };
    values.iter().map(of).collect()
}

/// Median of ascending values, one of those equal to `without` left out.
fn middle(sorted: &[f64], without: Option<f64>) -> Option<f64> {
    let gap = without.map_or(sorted.len(), |value| {
        sorted.partition_point(|other| other.total_cmp(&value).is_lt())
    });
    let left = sorted.len() - usize::from(without.is_some() && gap < sorted.len());
    let at = |rank: usize| sorted.get(rank + usize::from(rank >= gap)).copied();
    let (lower, upper) = (at(left.checked_sub(1)? / 2)?, at(left / 2)?);
    // Half of the difference, so that two huge values do not overflow and equal ones stay exact.
    Some(lower + (upper - lower) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::{PEERS_MIN, against_peers, mad, median, medians_of_others};
    use crate::stats::bootstrap::SplitMix64;

    fn near(got: Option<f64>, expected: f64) {
        assert!(
            (got.unwrap() - expected).abs() < 1e-12,
            "{got:?} {expected}"
        );
    }

    #[test]
    fn median_and_mad_equal_the_textbook() {
        // (1, 1, 2, 2, 4, 6, 9): median 2, distances (1, 1, 0, 0, 2, 4, 7), MAD 1.
        let values = [1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0];
        near(median(&values), 2.0);
        near(mad(&values), 1.0);
        near(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        near(median(&[7.0]), 7.0);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn medians_of_others_are_those_worked_out_one_by_one() {
        for seed in 0..40 {
            println!("seed {seed}");
            let mut chance = SplitMix64::new(seed);
            let value = |chance: &mut SplitMix64| match chance.below(30) {
                0 => f64::NAN,
                // Few different values, so that some are equal.
                _ => chance.below(9) as f64,
            };
            let values: Vec<f64> = (0..=chance.below(20)).map(|_| value(&mut chance)).collect();
            let rest = |i: usize| [&values[..i], &values[i + 1..]].concat();
            let one_by_one: Vec<_> = (0..values.len()).map(|i| median(&rest(i))).collect();
            assert_eq!(medians_of_others(&values), one_by_one, "{values:?}");
        }
    }

    #[test]
    fn every_score_equals_the_one_worked_out_without_that_device() {
        let seed = 51;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        for _ in 0..400 {
            let many = chance.below(40) as usize;
            // Few distinct values in half of the rounds: ties are the hard case.
            let coarse = chance.below(2) == 0;
            let value = |chance: &mut SplitMix64| match chance.below(8) {
                0 => None,
                _ if coarse => Some(chance.below(4) as f64),
                _ => Some(chance.unit()),
            };
            let values: Vec<Option<f64>> = (0..many).map(|_| value(&mut chance)).collect();
            let scored = against_peers(&values, 0.0);
            assert_eq!(scored.len(), many);
            for (index, standing) in scored.iter().enumerate() {
                let other = |(at, value): (usize, &Option<f64>)| value.filter(|_| at != index);
                let others: Vec<f64> = values.iter().enumerate().filter_map(other).collect();
                let spread = mad(&others).filter(|mad| *mad > 0.0);
                let scorable =
                    others.len() >= PEERS_MIN && values[index].is_some() && spread.is_some();
                assert_eq!(standing.is_some(), scorable, "{values:?} {index}");
                if let Some(standing) = standing {
                    near(Some(standing.median), median(&others).unwrap());
                    near(
                        Some(standing.sigma),
                        spread.unwrap() * 1.482_602_218_505_602,
                    );
                    near(
                        Some(standing.z),
                        (standing.value - standing.median) / standing.sigma,
                    );
                }
            }
        }
    }

    #[test]
    fn a_straggler_stands_out_and_does_not_hide_itself() {
        let mut values: Vec<Option<f64>> =
            (0..7).map(|i| Some(100.0 + 0.1 * f64::from(i))).collect();
        values.push(Some(90.0));
        let scored = against_peers(&values, 0.0);
        assert!(scored[7].unwrap().z < -30.0);
        assert!(
            scored[..7]
                .iter()
                .all(|standing| standing.unwrap().z.abs() < 3.0)
        );
    }

    #[test]
    fn a_device_like_its_peers_is_rarely_called_out() {
        let seed = 53;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        for many in [8, 24, 72] {
            let (mut called, mut rounds) = (0, 0);
            while rounds < 6_000 {
                let normal = |chance: &mut SplitMix64| (0..12).map(|_| chance.unit()).sum::<f64>();
                let values: Vec<Option<f64>> =
                    (0..many).map(|_| Some(normal(&mut chance))).collect();
                for standing in against_peers(&values, 0.0).into_iter().flatten() {
                    called += u32::from(standing.p_two_sided(many - 1) < 0.01);
                    rounds += 1;
                }
            }
            let share = f64::from(called) / f64::from(rounds);
            assert!(share < 0.02, "{many}: {share}");
        }
    }

    #[test]
    fn peers_all_alike_are_judged_by_the_least_spread_or_not_at_all() {
        let values = [Some(50.0), Some(50.0), Some(50.0), Some(50.0), Some(53.0)];
        assert_eq!(against_peers(&values, 0.0)[4], None);
        near(
            against_peers(&values, 1.0)[4].map(|standing| standing.z),
            3.0,
        );
        assert_eq!(against_peers(&values[..3], 1.0), vec![None; 3]);
    }
}
