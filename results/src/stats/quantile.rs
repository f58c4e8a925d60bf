//! Sample quantiles and their order-statistic bounds: which sample, counted from the smallest, stands
//! on the safe side of a quantile whatever the law behind the samples is.
//!
//! Refuses samples that are not finite, and a bound that the number of samples cannot carry: an upper
//! 95 % bound needs 59 samples for p95, 299 for p99, 2,995 for p99.9; a lower bound on the median needs
//! 5. The samples must be independent, or the bounds are too narrow: for an autocorrelated series say how
//! many independent samples it is worth ([`crate::stats::dependence`]).

use super::{is_confidence, law::Law};

/// A sample value that no order can be given to.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("sample {index} is {value}, which has no rank; mark it as a gap instead of recording it")]
pub struct NotFinite {
    /// Its place in the input.
    pub index: usize,
    /// The value: NaN or infinite.
    pub value: f64,
}

/// The ranks (1 = smallest sample) that bound a quantile, each alone at the stated confidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranks {
    /// The largest rank that is a lower bound; `None`: too few samples.
    pub low: Option<u64>,
    /// The smallest rank that is an upper bound; `None`: too few samples.
    pub high: Option<u64>,
}

/// A quantile and what bounds it, in the samples' unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// One-sided lower bound; `None`: too few samples for it.
    pub low: Option<f64>,
    /// The sample quantile.
    pub value: f64,
    /// One-sided upper bound; `None`: too few samples for it.
    pub high: Option<f64>,
}

/// Ranks whose samples bound the `quantile` (0..1, exclusive) of `samples` samples, each side at
/// `confidence`.
///
/// With X₍r₎ the r-th smallest and B ~ Bin(samples, quantile): P(X₍l₎ ≤ ξ) ≥ P(B ≥ l) and
/// P(ξ ≤ X₍u₎) ≥ P(B ≤ u − 1); equality for continuous laws, so ties only make the bounds safer.
/// Both sides are `None` where `quantile` or `confidence` is out of range.
///
/// Source: David and Nagaraja, *Order Statistics*, 3rd ed., §7.1; Hahn and Meeker, *Statistical
/// Intervals*, §5.2.
pub fn ranks(samples: u64, quantile: f64, confidence: f64) -> Ranks {
    if !can_be_bounded(quantile, confidence) || samples == 0 {
        return Ranks {
            low: None,
            high: None,
        };
    }
    let tail = 1.0 - confidence;
    let hits = |share| {
        Law::Binomial {
            trials: samples,
            share,
        }
        .counts_within_lower_tail(tail)
    };
    // From the top the same question is asked of the samples above the quantile.
    let (from_bottom, from_top) = (hits(quantile), hits(1.0 - quantile));
    Ranks {
        low: (from_bottom > 0).then_some(from_bottom),
        high: (from_top > 0).then(|| samples - from_top + 1),
    }
}

/// As [`ranks`], for `samples` samples that are worth `independent` independent ones: the bounds stand as
/// far out, as a share of the samples, as they would among so many.
pub fn ranks_worth(samples: u64, independent: u64, quantile: f64, confidence: f64) -> Ranks {
    let independent = independent.min(samples);
    if independent == 0 {
        return Ranks {
            low: None,
            high: None,
        };
    }
    let found = ranks(independent, quantile, confidence);
    let stretch = |from_end: u64| {
        let stretched = u128::from(from_end) * u128::from(samples) / u128::from(independent);
        (stretched as u64).max(1)
    };
    Ranks {
        low: found.low.map(stretch),
        high: found
            .high
            .map(|rank| samples + 1 - stretch(independent + 1 - rank)),
    }
}

/// `count` of `samples` as a count of `independent` ones, rounded up or down.
pub fn worth(count: u64, samples: u64, independent: u64, up: bool) -> u64 {
    let (samples, independent) = (u128::from(samples.max(1)), u128::from(independent));
    let scaled = u128::from(count) * independent;
    let scaled = if up {
        scaled.div_ceil(samples)
    } else {
        scaled / samples
    };
    scaled as u64
}

/// Whether order statistics can say anything about this quantile at all.
fn can_be_bounded(quantile: f64, confidence: f64) -> bool {
    quantile > 0.0 && quantile < 1.0 && is_confidence(confidence)
}

/// Fewest samples with which an upper bound on `quantile` exists: the least n with
/// quantileⁿ ≤ 1 − confidence. By symmetry a lower bound on q needs as many as an upper on 1 − q.
///
/// `None` where `quantile` or `confidence` is out of range.
pub fn samples_for_upper(quantile: f64, confidence: f64) -> Option<u64> {
    if !can_be_bounded(quantile, confidence) {
        return None;
    }
    let exact = (1.0 - confidence).ln() / quantile.ln();
    // A quotient that rounding left a hair above an integer is that integer.
    Some((exact * (1.0 - 1e-12)).ceil().max(1.0) as u64)
}

/// The rank of the sample quantile: the smallest r with r / `samples` ≥ `quantile`, at least 1.
///
/// Source: Hyndman and Fan, “Sample Quantiles in Statistical Packages”, 1996, definition 1: the inverse
/// of the empirical distribution, so the answer is always a value that was observed.
pub fn rank_of(samples: u64, quantile: f64) -> u64 {
    let exact = samples as f64 * quantile;
    // 0.07 × 100 is 7.000000000000001 in binary and must stay rank 7.
    let rank = (exact * (1.0 - 4.0 * f64::EPSILON)).ceil();
    (rank as u64).clamp(1, samples.max(1))
}

/// Finite samples in ascending order.
#[derive(Debug, Clone, PartialEq)]
pub struct Sorted(Vec<f64>);

impl Sorted {
    /// Sorts `samples`.
    ///
    /// # Errors
    /// [`NotFinite`] at the first NaN or infinity.
    pub fn new(mut samples: Vec<f64>) -> Result<Self, NotFinite> {
        if let Some(index) = samples.iter().position(|value| !value.is_finite()) {
            return Err(NotFinite {
                index,
                value: samples[index],
            });
        }
        samples.sort_unstable_by(f64::total_cmp);
        Ok(Sorted(samples))
    }

    /// The samples, smallest first.
    pub fn as_slice(&self) -> &[f64] {
        &self.0
    }

    /// The sample quantile ([`rank_of`]); `None` without samples or with `quantile` outside 0..=1.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        if !(0.0..=1.0).contains(&quantile) {
            return None;
        }
        self.at_rank(rank_of(self.0.len() as u64, quantile))
    }

    /// The sample quantile with its one-sided bounds ([`ranks`]).
    ///
    /// `None` without samples, or with `quantile` outside 0..1.
    pub fn bounds(&self, quantile: f64, confidence: f64) -> Option<Bounds> {
        self.bounds_worth(quantile, confidence, self.0.len() as u64)
    }

    /// As [`Sorted::bounds`], for samples that are worth `independent` independent ones ([`ranks_worth`]).
    pub fn bounds_worth(&self, quantile: f64, confidence: f64, independent: u64) -> Option<Bounds> {
        let found = ranks_worth(self.0.len() as u64, independent, quantile, confidence);
        Some(Bounds {
            low: found.low.and_then(|rank| self.at_rank(rank)),
            value: self.quantile(quantile)?,
            high: found.high.and_then(|rank| self.at_rank(rank)),
        })
    }

    /// p-value of “the `quantile` is at most `limit`”: small where it exceeds the limit.
    ///
    /// The quantile sign test, dual to [`Sorted::bounds`]. Source: Conover, *Practical Nonparametric
    /// Statistics*, 3rd ed., §3.2.
    pub fn p_at_most(&self, quantile: f64, limit: f64) -> f64 {
        self.p_at_most_worth(quantile, limit, self.0.len() as u64)
    }

    /// As [`Sorted::p_at_most`], for samples that are worth `independent` independent ones.
    pub fn p_at_most_worth(&self, quantile: f64, limit: f64, independent: u64) -> f64 {
        let within = self.0.partition_point(|value| *value <= limit) as u64;
        let within = worth(within, self.0.len() as u64, independent, true);
        p_at_most(independent, within, quantile)
    }

    /// p-value of “the `quantile` is at least `limit`”: small where it falls short of the limit.
    pub fn p_at_least(&self, quantile: f64, limit: f64) -> f64 {
        self.p_at_least_worth(quantile, limit, self.0.len() as u64)
    }

    /// As [`Sorted::p_at_least`], for samples that are worth `independent` independent ones.
    pub fn p_at_least_worth(&self, quantile: f64, limit: f64, independent: u64) -> f64 {
        let below = self.0.partition_point(|value| *value < limit) as u64;
        let below = worth(below, self.0.len() as u64, independent, false);
        p_at_least(independent, below, quantile)
    }

    fn at_rank(&self, rank: u64) -> Option<f64> {
        self.0
            .get(usize::try_from(rank).ok()?.checked_sub(1)?)
            .copied()
    }
}

/// p-value of “the `quantile` is at most the limit” where `within` of `samples` samples are at or below
/// the limit.
pub fn p_at_most(samples: u64, within: u64, quantile: f64) -> f64 {
    Law::Binomial {
        trials: samples,
        share: quantile,
    }
    .at_most(within)
}

/// p-value of “the `quantile` is at least the limit” where `below` of `samples` samples are strictly
/// below the limit.
pub fn p_at_least(samples: u64, below: u64, quantile: f64) -> f64 {
    Law::Binomial {
        trials: samples,
        share: quantile,
    }
    .at_least(below)
}

#[cfg(test)]
mod tests {
    use super::{NotFinite, Ranks, Sorted, rank_of, ranks, ranks_worth, samples_for_upper, worth};
    use crate::stats::bootstrap::SplitMix64;

    #[test]
    fn upper_bounds_need_59_299_and_2995_samples_and_a_median_5() {
        for (quantile, needed) in [(0.95, 59), (0.99, 299), (0.999, 2_995), (0.5, 5)] {
            assert_eq!(samples_for_upper(quantile, 0.95), Some(needed));
            assert_eq!(ranks(needed - 1, quantile, 0.95).high, None);
            assert_eq!(ranks(needed, quantile, 0.95).high, Some(needed));
        }
        assert_eq!(ranks(4, 0.5, 0.95).low, None);
        assert_eq!(ranks(5, 0.5, 0.95).low, Some(1));
    }

    #[test]
    fn samples_worth_fewer_are_bounded_as_wide_as_the_fewer_would_be() {
        assert_eq!(ranks_worth(500, 500, 0.99, 0.95), ranks(500, 0.99, 0.95));
        // 3,000 samples worth 298 carry no upper bound on p99, worth 299 they do: the largest ten count as one.
        assert_eq!(ranks_worth(3_000, 298, 0.99, 0.95).high, None);
        assert_eq!(ranks_worth(2_990, 299, 0.99, 0.95).high, Some(2_981));
        let few = ranks(30, 0.5, 0.95);
        let many = ranks_worth(300, 30, 0.5, 0.95);
        assert_eq!(many.low, few.low.map(|r| 10 * r));
        assert_eq!(many.high, few.high.map(|r| 301 - 10 * (31 - r)));
        assert_eq!(ranks_worth(10, 0, 0.5, 0.95).low, None);
        assert_eq!((worth(7, 10, 5, true), worth(7, 10, 5, false)), (4, 3));
    }

    #[test]
    fn median_ranks_equal_the_published_sign_test_table() {
        // Two-sided 90 % = one-sided 95 %: critical values of the sign test, as any table of it
        // has them: rejected with c or fewer of the rarer sign; the bound's rank is c + 1.
        for (samples, critical) in [
            (8, 1),
            (10, 1),
            (12, 2),
            (15, 3),
            (20, 5),
            (25, 7),
            (30, 10),
            (50, 18),
        ] {
            let expected = Ranks {
                low: Some(critical + 1),
                high: Some(samples - critical),
            };
            assert_eq!(ranks(samples, 0.5, 0.95), expected, "n = {samples}");
        }
    }

    #[test]
    fn bounds_cover_the_true_quantile_as_often_as_promised() {
        let seed = 20_260;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        for (samples, quantile) in [(60, 0.95), (300, 0.99), (101, 0.5), (40, 0.1)] {
            let (mut low_ok, mut high_ok, rounds) = (0, 0, 2_000);
            for _ in 0..rounds {
                let sorted = Sorted::new((0..samples).map(|_| chance.unit()).collect()).unwrap();
                let bounds = sorted.bounds(quantile, 0.95).unwrap();
                // The quantile of the uniform law is itself.
                low_ok += u32::from(bounds.low.is_none_or(|low| low <= quantile));
                high_ok += u32::from(bounds.high.is_none_or(|high| high >= quantile));
            }
            // 0.95 − 4 standard errors of 2,000 rounds.
            assert!(
                low_ok >= 1_861 && high_ok >= 1_861,
                "{samples} {quantile} {low_ok} {high_ok}"
            );
        }
    }

    #[test]
    fn a_bound_clears_a_limit_exactly_where_the_p_value_is_small() {
        let seed = 77;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        for _ in 0..500 {
            let samples = 1 + chance.below(120);
            // Twenty distinct values: ties are the hard case.
            let values = (0..samples).map(|_| chance.below(20) as f64).collect();
            let sorted = Sorted::new(values).unwrap();
            let limit = chance.below(20) as f64;
            for quantile in [0.05, 0.5, 0.9, 0.95] {
                let bounds = sorted.bounds(quantile, 0.95).unwrap();
                let exceeds = bounds.low.is_some_and(|low| low > limit);
                let short = bounds.high.is_some_and(|high| high < limit);
                assert_eq!(exceeds, sorted.p_at_most(quantile, limit) <= 0.05 + 1e-12);
                assert_eq!(short, sorted.p_at_least(quantile, limit) <= 0.05 + 1e-12);
            }
        }
    }

    #[test]
    fn a_rank_that_is_whole_stays_whole() {
        assert_eq!(rank_of(100, 0.07), 7);
        assert_eq!(rank_of(100, 0.95), 95);
        assert_eq!(rank_of(3_000, 0.999), 2_997);
        assert_eq!(rank_of(10, 0.0), 1);
        assert_eq!(rank_of(10, 1.0), 10);
        // Exact second way: count ranks in integers, quantiles in thousandths.
        for samples in 1..400_u64 {
            for thousandths in 1..1000_u64 {
                let slow = (samples * thousandths).div_ceil(1000);
                assert_eq!(rank_of(samples, thousandths as f64 / 1000.0), slow);
            }
        }
    }

    #[test]
    fn a_sample_without_rank_is_refused_with_its_place() {
        let refused = Sorted::new(vec![1.0, f64::INFINITY]);
        assert_eq!(
            refused,
            Err(NotFinite {
                index: 1,
                value: f64::INFINITY
            })
        );
        assert!(Sorted::new(vec![f64::NAN]).is_err());
        assert_eq!(Sorted::new(Vec::new()).unwrap().quantile(0.5), None);
        assert_eq!(Sorted::new(vec![1.0]).unwrap().quantile(1.5), None);
    }
}
