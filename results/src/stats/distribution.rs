//! A distribution in bounded memory: every sample counted, none kept.
//!
//! Wraps two histograms, one a sign, so that temperature margins (below zero) and idle gaps (often
//! zero) go in as they are. Count, least, most and mean are exact; a quantile is exact to 0.1 % of its
//! size or to the resolution, whichever is coarser, and its bounds err to the safe side by that much.
//! Refuses (and counts) samples that are not finite or lie beyond 2⁶² resolutions. Memory: 136 bytes for every 1.6 % of
//! size in which there are samples, at most 0.5 MB.
//!
//! Source of the method: Tene, *HdrHistogram*; bounds: [`crate::stats::quantile`].

use super::finite::Finite;
use super::histogram::{self, FLOAT_MAX, Histogram};
use super::quantile::{self, Bounds, rank_of, ranks_worth, worth};
use super::sum::ExactSum;

/// Largest size in resolutions that is recorded.
const SIZE_MAX: f64 = (1_u64 << 62) as f64;

/// Why a distribution could not be made or merged.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DistributionError {
    /// The resolution is zero, negative or not finite.
    #[error(
        "a distribution cannot resolve steps of {resolution}; give a resolution above zero, e.g. 1e-9"
    )]
    Resolution {
        /// What was asked for, in the samples' unit.
        resolution: f64,
    },
    /// The two sides count in different steps.
    #[error(
        "distributions with resolutions {own} and {other} do not add up; build both with the same one"
    )]
    Unlike {
        /// Resolution of the one merged into.
        own: f64,
        /// Resolution of the one merged.
        other: f64,
    },
}

/// Samples of one quantity, in its unit.
#[derive(Debug, Clone)]
pub struct Distribution {
    resolution: f64,
    /// Sizes of the samples that round to zero or more, in resolutions.
    positive: Histogram,
    /// Sizes of the samples that round to less than zero; most quantities have none.
    negative: Option<Histogram>,
    count: u64,
    refused: u64,
    min: f64,
    max: f64,
    sum: ExactSum,
}

/// The real values that share one rank: the bucket's edges and centre.
struct Bucket {
    low: f64,
    centre: f64,
    high: f64,
}

impl Distribution {
    /// An empty distribution that tells apart values `resolution` (in the samples' unit) from each other
    /// near zero, e.g. 1e-9 for times in seconds.
    ///
    /// # Errors
    /// [`DistributionError::Resolution`] unless it is finite and above zero.
    pub fn new(resolution: f64) -> Result<Self, DistributionError> {
        if !(resolution.is_finite() && resolution > 0.0) {
            return Err(DistributionError::Resolution { resolution });
        }
        Ok(Distribution {
            resolution,
            positive: Histogram::default(),
            negative: None,
            count: 0,
            refused: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sum: ExactSum::default(),
        })
    }

    /// Counts one sample. Returns false, and counts it as refused, where it is NaN, infinite or larger
    /// than 2⁶² resolutions: a quantile that silently leaves out its worst samples would flatter.
    pub fn record(&mut self, value: f64) -> bool {
        let Some(size) = whole(value.abs() / self.resolution) else {
            self.refused += 1;
            return false;
        };
        let histogram = if value < 0.0 && size > 0 {
            self.negative.get_or_insert_default()
        } else {
            &mut self.positive
        };
        histogram.record(size);
        self.count += 1;
        // Of zeros with either sign, the plain one.
        self.min = self.min.min(value + 0.0);
        self.max = self.max.max(value + 0.0);
        self.sum.push(value);
        true
    }

    /// [`Self::record`] for values that are all counted; false, and nothing is counted, where one might be refused.
    pub fn record_all(&mut self, finite: &Finite) -> bool {
        let (low, high) = (finite.low(), finite.high());
        let values = finite.values();
        if low.abs().max(high.abs()) / self.resolution >= FLOAT_MAX {
            return false;
        }
        if low < 0.0 {
            values.iter().for_each(|v| {
                self.record(*v);
            });
            return true;
        }
        match finite.same().and_then(|v| whole(v / self.resolution)) {
            Some(size) => self.positive.record_times(size, values.len() as u64),
            None => self.positive.record_all(values, self.resolution),
        }
        self.count += values.len() as u64;
        self.min = self.min.min(low);
        self.max = self.max.max(high);
        match finite.is_zero() {
            true => self.sum.skip(values.len() as u64),
            false => self.sum.push_all(values),
        }
        true
    }

    /// Adds all samples of `other`, in any order with the same result.
    ///
    /// # Errors
    /// [`DistributionError::Unlike`] where the resolutions differ; nothing is added then.
    pub fn merge(&mut self, other: &Distribution) -> Result<(), DistributionError> {
        if self.resolution.to_bits() != other.resolution.to_bits() {
            return Err(DistributionError::Unlike {
                own: self.resolution,
                other: other.resolution,
            });
        }
        self.positive.add(&other.positive);
        if let Some(theirs) = &other.negative {
            self.negative.get_or_insert_default().add(theirs);
        }
        self.count += other.count;
        self.refused += other.refused;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum.merge(&other.sum);
        Ok(())
    }

    /// Samples counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Samples refused: not finite, or beyond the range.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// The smallest sample, exact; `None` without samples.
    pub fn min(&self) -> Option<f64> {
        (self.count > 0).then_some(self.min)
    }

    /// The largest sample, exact; `None` without samples.
    pub fn max(&self) -> Option<f64> {
        (self.count > 0).then_some(self.max)
    }

    /// Sum of the samples, exact to rounding.
    pub fn sum(&self) -> f64 {
        self.sum.total()
    }

    /// Mean of the samples, exact to rounding; `None` without samples.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum() / self.count as f64)
    }

    /// The sample quantile ([`rank_of`]), to the histogram's precision; `None` without samples or with
    /// `quantile` outside 0..=1.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        if self.count == 0 || !(0.0..=1.0).contains(&quantile) {
            return None;
        }
        Some(self.bucket_at(rank_of(self.count, quantile)).centre)
    }

    /// The sample quantile with its one-sided bounds ([`ranks`]); a bound is the far edge of its bucket.
    ///
    /// `None` without samples, or with `quantile` outside 0..=1. The samples must be independent.
    pub fn sides(&self, quantile: f64, confidence: f64) -> Option<Bounds> {
        self.sides_worth(quantile, confidence, self.count)
    }

    /// As [`Distribution::sides`], for samples that are worth `independent` independent ones
    /// ([`ranks_worth`]).
    pub fn sides_worth(&self, quantile: f64, confidence: f64, independent: u64) -> Option<Bounds> {
        let value = self.quantile(quantile)?;
        let found = ranks_worth(self.count, independent, quantile, confidence);
        Some(Bounds {
            low: found.low.map(|rank| self.bucket_at(rank).low),
            value,
            high: found.high.map(|rank| self.bucket_at(rank).high),
        })
    }

    /// Both one-sided bounds of [`Distribution::sides`]; `None` where either is missing.
    pub fn bounds(&self, quantile: f64, confidence: f64) -> Option<(f64, f64)> {
        let sides = self.sides(quantile, confidence)?;
        sides.low.zip(sides.high)
    }

    /// p-value of “the `quantile` is at most `limit`”. Samples in the limit's own bucket count as
    /// within, so the answer errs towards 1.
    pub fn p_at_most(&self, quantile: f64, limit: f64) -> f64 {
        self.p_at_most_worth(quantile, limit, self.count)
    }

    /// As [`Distribution::p_at_most`], for samples that are worth `independent` independent ones.
    pub fn p_at_most_worth(&self, quantile: f64, limit: f64, independent: u64) -> f64 {
        let within = worth(self.count_near(limit, true), self.count, independent, true);
        quantile::p_at_most(independent, within, quantile)
    }

    /// p-value of “the `quantile` is at least `limit`”. Samples in the limit's own bucket count as
    /// at the limit or above, so the answer errs towards 1.
    pub fn p_at_least(&self, quantile: f64, limit: f64) -> f64 {
        self.p_at_least_worth(quantile, limit, self.count)
    }

    /// As [`Distribution::p_at_least`], for samples that are worth `independent` independent ones.
    pub fn p_at_least_worth(&self, quantile: f64, limit: f64, independent: u64) -> f64 {
        let near = self.count_near(limit, false);
        let below = worth(near, self.count, independent, false);
        quantile::p_at_least(independent, below, quantile)
    }

    /// The (value, samples at or below it) points of the empirical distribution, one a filled bucket,
    /// ascending: what a picture of it draws. The last point's count is [`Distribution::count`].
    pub fn points(&self) -> Vec<(f64, u64)> {
        let mut points = Vec::new();
        let mut below = 0;
        let negative = self.negative.iter().flat_map(Histogram::filled);
        let mut descending: Vec<_> = negative.collect();
        descending.reverse();
        for (size, count) in descending {
            below += count;
            points.push((self.bucket(size, -1.0).high, below));
        }
        for (size, count) in self.positive.filled() {
            below += count;
            points.push((self.bucket(size, 1.0).high, below));
        }
        points
    }

    /// Samples in buckets below the limit's, with (or without) those in the limit's own.
    fn count_near(&self, limit: f64, with_own: bool) -> u64 {
        let negatives = self.negative.as_ref().map_or(0, Histogram::len);
        let size = (limit.abs() / self.resolution).round().min(SIZE_MAX) as u64;
        if limit < 0.0 && size > 0 {
            let Some(histogram) = &self.negative else {
                return 0;
            };
            // Sizes fall as values rise: below the limit means a larger size.
            let own_first = histogram::lowest(size);
            let inside = match (with_own, own_first.checked_sub(1)) {
                (true, None) => 0,
                (true, Some(last)) => histogram.count_to(last),
                (false, _) => histogram.count_to(size),
            };
            return negatives - inside;
        }
        let own_first = histogram::lowest(size);
        let positives = match (with_own, own_first.checked_sub(1)) {
            (true, _) => self.positive.count_to(size),
            (false, None) => 0,
            (false, Some(last)) => self.positive.count_to(last),
        };
        negatives + positives
    }

    /// The bucket that holds the sample of `rank` (1 = smallest).
    fn bucket_at(&self, rank: u64) -> Bucket {
        let negatives = self.negative.as_ref().map_or(0, Histogram::len);
        match &self.negative {
            Some(histogram) if rank <= negatives => {
                self.bucket(histogram.at_rank(negatives - rank + 1), -1.0)
            }
            _ => self.bucket(self.positive.at_rank(rank - negatives), 1.0),
        }
    }

    /// The real values that round into the bucket of `size`, never beyond the samples seen.
    fn bucket(&self, size: u64, sign: f64) -> Bucket {
        let inner = histogram::lowest(size) as f64 - 0.5;
        let outer = histogram::highest(size) as f64 + 0.5;
        let real = |size: f64| (sign * size * self.resolution).clamp(self.min, self.max);
        let (a, b) = (real(inner), real(outer));
        Bucket {
            low: a.min(b),
            centre: real((inner + outer) / 2.0),
            high: a.max(b),
        }
    }
}

/// `size`, zero or more, rounded to a whole number, halves up: what [`f64::round`] gives. That is a library call
/// where the build does not assume a rounding instruction, and a day's record asks it fifty million times.
/// `None` for NaN and beyond [`SIZE_MAX`].
#[inline]
fn whole(size: f64) -> Option<u64> {
    if size.is_nan() || size > SIZE_MAX {
        return None;
    }
    let below = size as i64;
    // Exact: the part behind the point of a float is a float, and from 2⁵² on there is none.
    let rest = size - below as f64;
    Some(below.cast_unsigned() + u64::from(rest >= 0.5))
}

#[cfg(test)]
mod tests {
    use super::{Distribution, DistributionError, SIZE_MAX, whole};
    use crate::stats::bootstrap::SplitMix64;
    use crate::stats::quantile::Sorted;

    fn filled(resolution: f64, values: &[f64]) -> Distribution {
        let mut distribution = Distribution::new(resolution).unwrap();
        for value in values {
            assert!(distribution.record(*value));
        }
        distribution
    }

    /// Values of every sign and of sizes from below the resolution (1e-6) to 10⁶.
    fn mixed(seed: u64, samples: u64) -> Vec<f64> {
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        let one = |chance: &mut SplitMix64| match chance.below(8) {
            0 => 0.0,
            1..=3 => -(10.0_f64.powf(13.0 * chance.unit() - 7.0)),
            _ => 10.0_f64.powf(13.0 * chance.unit() - 7.0),
        };
        (0..samples).map(|_| one(&mut chance)).collect()
    }

    #[test]
    fn quantiles_of_both_signs_are_within_a_tenth_of_a_percent_of_the_exact_ones() {
        for seed in 0..20 {
            let values = mixed(seed, 1 + seed * 137);
            let distribution = filled(1e-6, &values);
            let sorted = Sorted::new(values).unwrap();
            for quantile in [0.0, 0.001, 0.01, 0.2, 0.5, 0.77, 0.99, 1.0] {
                let (exact, ours) = (
                    sorted.quantile(quantile).unwrap(),
                    distribution.quantile(quantile).unwrap(),
                );
                let allowed = exact.abs() * 1e-3 + 0.5e-6 + 1e-15;
                assert!(
                    (ours - exact).abs() <= allowed,
                    "{quantile}: {ours} {exact}"
                );
            }
        }
    }

    #[test]
    fn bounds_lie_on_the_safe_side_of_the_exact_ones_and_near_them() {
        for seed in 100..120 {
            let values = mixed(seed, 40 + seed * 9);
            let distribution = filled(1e-6, &values);
            let sorted = Sorted::new(values).unwrap();
            for quantile in [0.05, 0.5, 0.95] {
                let exact = sorted.bounds(quantile, 0.95).unwrap();
                let ours = distribution.sides(quantile, 0.95).unwrap();
                let near = |a: f64, b: f64| (a - b).abs() <= b.abs() * 2e-3 + 1.1e-6;
                let (low, exact_low) = (ours.low.unwrap(), exact.low.unwrap());
                let (high, exact_high) = (ours.high.unwrap(), exact.high.unwrap());
                assert!(
                    low <= exact_low + 1e-15 && near(low, exact_low),
                    "{low} {exact_low}"
                );
                assert!(
                    high >= exact_high - 1e-15 && near(high, exact_high),
                    "{high} {exact_high}"
                );
                for limit in [-3.0, -1e-4, 0.0, 1e-6, 0.02, 900.0] {
                    let (p, exact) = (
                        distribution.p_at_most(quantile, limit),
                        sorted.p_at_most(quantile, limit),
                    );
                    assert!(p >= exact - 1e-12, "{limit} {p} {exact}");
                    let (p, exact) = (
                        distribution.p_at_least(quantile, limit),
                        sorted.p_at_least(quantile, limit),
                    );
                    assert!(p >= exact - 1e-12, "{limit} {p} {exact}");
                }
            }
        }
    }

    #[test]
    fn a_p99_over_40_samples_has_no_upper_bound_but_a_lower_one() {
        let values: Vec<f64> = (1..=40).map(f64::from).collect();
        let distribution = filled(1e-3, &values);
        let sides = distribution.sides(0.99, 0.95).unwrap();
        assert_eq!(sides.high, None);
        assert!(sides.low.is_some());
        assert_eq!(distribution.bounds(0.99, 0.95), None);
    }

    #[test]
    fn count_least_most_and_mean_are_exact() {
        let values = mixed(7, 5_000);
        let distribution = filled(1e-6, &values);
        let sorted = Sorted::new(values.clone()).unwrap();
        assert_eq!(distribution.count(), 5_000);
        assert_eq!(distribution.min(), sorted.as_slice().first().copied());
        assert_eq!(distribution.max(), sorted.as_slice().last().copied());
        // Second way: exact rational sums are out of reach, ascending order of sizes is near enough.
        let mut by_size = values;
        by_size.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs()));
        let mean = by_size.iter().sum::<f64>() / 5_000.0;
        assert!((distribution.mean().unwrap() - mean).abs() <= mean.abs() * 1e-12);
        // Neumaier's own example: naive summation gives 0.
        let cancelling = filled(1e90, &[1.0, 1e100, 1.0, -1e100]);
        assert!((cancelling.sum() - 2.0).abs() < 1e-12);
    }

    #[test]
    fn merging_the_parts_equals_recording_the_whole() {
        let values = mixed(11, 3_000);
        let whole = filled(1e-6, &values);
        let mut parts = Distribution::new(1e-6).unwrap();
        for part in values.chunks(700) {
            parts.merge(&filled(1e-6, part)).unwrap();
        }
        assert_eq!(parts.points(), whole.points());
        assert_eq!(parts.min(), whole.min());
        assert!((parts.sum() - whole.sum()).abs() <= whole.sum().abs() * 1e-14);
        let other = Distribution::new(1e-3).unwrap();
        assert!(matches!(
            parts.merge(&other),
            Err(DistributionError::Unlike { .. })
        ));
    }

    #[test]
    fn points_climb_to_the_count_and_stay_in_order() {
        let distribution = filled(1e-6, &mixed(12, 2_000));
        let points = distribution.points();
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 < b.1));
        assert_eq!(points.last().map(|point| point.1), Some(2_000));
        assert_eq!(points.last().map(|point| point.0), distribution.max());
    }

    #[test]
    fn every_size_rounds_as_the_library_rounds_it() {
        let seed = 71;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        let mut sizes = vec![0.0, 0.5, 1.5, 2.5, SIZE_MAX, f64::MIN_POSITIVE];
        for power in [0, 1, 31, 51, 52, 53, 54, 61] {
            let size = (1_u64 << power) as f64;
            sizes.extend([size - 0.5, size, size + 0.5, size * 1.5]);
        }
        sizes.extend((0..100_000).map(|_| {
            let bits = chance.below(63) as u32;
            chance.unit() * (1_u64 << bits) as f64
        }));
        for size in sizes {
            for near in [size.next_down().max(0.0), size, size.next_up()] {
                let expected = (near.round() <= SIZE_MAX).then(|| near.round() as u64);
                assert_eq!(whole(near), expected, "{near:e}");
            }
        }
        for none in [f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(whole(none), None);
        }
    }

    #[test]
    fn a_value_that_cannot_be_ranked_is_refused_and_counted() {
        let mut distribution = Distribution::new(1e-9).unwrap();
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e12] {
            assert!(!distribution.record(value));
        }
        assert_eq!((distribution.count(), distribution.refused()), (0, 4));
        assert_eq!(distribution.quantile(0.5), None);
        assert_eq!(distribution.mean(), None);
        // The ends of the range themselves still count.
        assert!(distribution.record(4.6e9) && distribution.record(-4.6e9));
        assert!((distribution.quantile(1.0).unwrap() - 4.6e9).abs() < 4.6e6);
        assert!((distribution.quantile(0.1).unwrap() + 4.6e9).abs() < 4.6e6);
        assert!(distribution.p_at_most(0.5, 1e300) > 0.99);
        assert!(Distribution::new(0.0).is_err());
        assert!(Distribution::new(f64::NAN).is_err());
    }
}
