//! When a series changed its level: Pettitt's test, which needs no law of the noise.
//!
//! One change is looked for: the place that splits the series into two parts whose ranks differ most,
//! and the medians of the two. Refuses (with `None`) fewer than [`POINTS_MIN`] values and values that are
//! not finite. The p-value is that of independent values; neighbours that resemble each other make it too
//! small, so a caller who decides by it gives block means, or asks for a step as well.

use super::outlier::median;

/// Fewest values in which a change is looked for.
pub const POINTS_MIN: usize = 8;

/// A change of level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Values before the change: the first value after it has this index.
    pub at: usize,
    /// Median before and after, in the values' unit.
    pub before: f64,
    pub after: f64,
    /// Pettitt's K: the largest difference of ranks.
    pub score: f64,
    /// p-value of “no change”, approximate and two-sided.
    pub p: f64,
}

impl Change {
    /// After less before.
    pub fn step(&self) -> f64 {
        self.after - self.before
    }
}

/// The likeliest change of level in values in time order.
///
/// Ties take their mean rank. Cost: n log n. Source: Pettitt, “A Non-Parametric Approach to the Change-Point
/// Problem”, Applied Statistics 28 (1979), eqs. 1.3 and 2.2: p ≈ 2·exp(−6K²/(n³ + n²)).
pub fn change(values: &[f64]) -> Option<Change> {
    let n = values.len();
    if n < POINTS_MIN || values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let ranks = ranks(values);
    let middle = (n as f64 + 1.0) / 2.0;
    let (mut sum, mut best) = (0.0, (0, 0.0_f64));
    for (index, rank) in ranks.iter().enumerate().take(n - 1) {
        sum += rank - middle;
        // U = 2·Σ rank − t·(n + 1).
        if (2.0 * sum).abs() > best.1 {
            best = (index + 1, (2.0 * sum).abs());
        }
    }
    let (at, score) = best;
    if at == 0 {
        return None;
    }
    let size = n as f64;
    let p = 2.0 * (-6.0 * score * score / (size.powi(3) + size.powi(2))).exp();
    Some(Change {
        at,
        before: median(&values[..at])?,
        after: median(&values[at..])?,
        score,
        p: p.min(1.0),
    })
}

/// Ranks from 1, equal values at their mean rank.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for tie in order.chunk_by(|a, b| values[*a] >= values[*b]) {
        let rank = first as f64 + (tie.len() as f64 + 1.0) / 2.0;
        tie.iter().for_each(|i| ranks[*i] = rank);
        first += tie.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::bootstrap::SplitMix64;

    /// Annual flow of the Nile at Aswan, 1871 to 1970, 10⁸ m³ (Cobb, Biometrika 65, 1978).
    const NILE: [u16; 100] = [
        1120, 1160, 963, 1210, 1160, 1160, 813, 1230, 1370, 1140, 995, 935, 1110, 994, 1020, 960,
        1180, 799, 958, 1140, 1100, 1210, 1150, 1250, 1260, 1220, 1030, 1100, 774, 840, 874, 694,
        940, 833, 701, 916, 692, 1020, 1050, 969, 831, 726, 456, 824, 702, 1120, 1100, 832, 764,
        821, 768, 845, 864, 862, 698, 845, 744, 796, 1040, 759, 781, 865, 845, 944, 984, 897, 822,
        1010, 771, 676, 649, 846, 812, 742, 801, 1040, 860, 874, 848, 890, 744, 749, 838, 1050,
        918, 986, 797, 923, 975, 815, 1020, 906, 901, 1170, 912, 746, 919, 718, 714, 740,
    ];

    #[test]
    fn the_nile_changed_after_1898() {
        let flow: Vec<f64> = NILE.iter().map(|v| f64::from(*v)).collect();
        let found = change(&flow).unwrap();
        assert_eq!(found.at, 28, "1871 + 28 = 1899 is the first low year");
        assert!(found.p < 1e-6, "{found:?}");
        assert!((found.before - 1110.0).abs() < 60.0 && (found.after - 845.0).abs() < 30.0);
    }

    #[test]
    fn the_score_equals_the_sum_of_signs_over_all_pairs() {
        let seed = 71;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        for _ in 0..200 {
            let many = POINTS_MIN + chance.below(30) as usize;
            let values: Vec<f64> = (0..many).map(|_| chance.below(9) as f64).collect();
            let u = |t: usize| -> f64 {
                let signs = values[..t].iter().flat_map(|a| {
                    let sign =
                        move |b: &f64| f64::from(u8::from(a > b)) - f64::from(u8::from(a < b));
                    values[t..].iter().map(sign)
                });
                signs.sum::<f64>().abs()
            };
            let most = (1..many).map(u).fold(0.0, f64::max);
            match change(&values) {
                Some(found) => {
                    assert!((found.score - most).abs() < 1e-9);
                    assert!((u(found.at) - most).abs() < 1e-9);
                }
                None => assert!(most < 0.5),
            }
        }
    }

    #[test]
    fn noise_alone_rarely_looks_like_a_change() {
        let seed = 72;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        let mut called = || {
            let values: Vec<f64> = (0..60).map(|_| chance.unit()).collect();
            u32::from(change(&values).is_some_and(|c| c.p < 0.05))
        };
        let called: u32 = (0..1_000).map(|_| called()).sum();
        assert!(called <= 65, "{called}");
    }

    #[test]
    fn what_is_too_short_flat_or_not_finite_has_no_change() {
        assert_eq!(change(&[1.0; 7]), None);
        assert_eq!(change(&[1.0; 20]), None);
        let mut values = vec![1.0; 20];
        values[3] = f64::NAN;
        assert_eq!(change(&values), None);
    }
}
