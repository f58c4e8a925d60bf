//! Turns what was gathered into a number with bounds, and into the chance that it lies on the other
//! side of a limit. Too little evidence gives no bound, and with it no decision.

use super::Estimate;
use crate::stats::bootstrap::{block_bootstrap, memory, series_mean};
use crate::stats::dependence::Dependence;
use crate::stats::distribution::Distribution;
use crate::stats::interval::Interval;
use crate::stats::quantile::Sorted;
use crate::stats::trend;
use hallmark_profiles::criterion::Statistic;
use hallmark_profiles::units::Unit;

/// What there is to judge one place by.
pub enum Evidence<'a> {
    /// A figure that is known, not estimated: a count, a share of time.
    Exact {
        value: f64,
        samples: u64,
    },
    /// Values of blocks in order of time.
    Blocks(Vec<f64>),
    /// Samples, and how far they depend on each other.
    Distribution {
        of: &'a Distribution,
        dependence: &'a Dependence,
    },
    /// `amount / x` for the samples x of a distribution: a rate from times.
    Rate {
        amount: f64,
        times: &'a Distribution,
        dependence: &'a Dependence,
    },
    /// An estimate made elsewhere, at the confidence asked for.
    Interval {
        at: Box<dyn Fn(f64) -> Option<Interval> + 'a>,
        samples: u64,
    },
    Missing(String),
}

/// A number with the bounds that its samples allow.
#[derive(Clone, Copy, Debug)]
pub struct Bounded {
    pub value: f64,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub samples: u64,
}

impl Bounded {
    /// For the report: a side without a bound is open.
    pub fn estimate(self, unit: Unit) -> Estimate {
        Estimate {
            value: self.value,
            low: self.low.unwrap_or(f64::NEG_INFINITY),
            high: self.high.unwrap_or(f64::INFINITY),
            samples: self.samples,
            unit,
        }
    }
}

/// Samples with a first and a last hundredth.
const SPREAD_MIN: u64 = 100;

/// Seed of the block resampling: fixed, so that a verdict can be repeated to the last digit.
const RESAMPLING_SEED: u64 = 0x6861_6C6C_6D61_726B;

impl Evidence<'_> {
    /// The statistic with one-sided bounds at `confidence`.
    ///
    /// # Errors
    /// One sentence: what is missing.
    pub fn bounded(&self, statistic: Statistic, confidence: f64) -> Result<Bounded, String> {
        let none = |what: &str| format!("{statistic} needs {what}");
        match self {
            Self::Missing(why) => Err(why.clone()),
            Self::Exact { value, samples } => Ok(exact(*value, *samples)),
            Self::Interval { at, samples } => {
                let i = at(confidence).ok_or_else(|| none("a longer window"))?;
                Ok(two_sided(i, *samples))
            }
            Self::Blocks(values) => blocks(values, statistic, confidence),
            Self::Distribution { of, dependence } => {
                of_distribution(of, dependence, statistic, confidence)
            }
            Self::Rate {
                amount,
                times,
                dependence,
            } => {
                let turned = match statistic {
                    Statistic::Quantile(q) => Statistic::Quantile(1.0 - q),
                    Statistic::Min => Statistic::Max,
                    Statistic::Max => Statistic::Min,
                    other => other,
                };
                let t = of_distribution(times, dependence, turned, confidence)?;
                if t.value <= 0.0 {
                    return Err("operations took no measurable time".to_owned());
                }
                let rate = |time: f64| {
                    if time > 0.0 {
                        amount / time
                    } else {
                        f64::INFINITY
                    }
                };
                Ok(Bounded {
                    value: rate(t.value),
                    low: t.high.map(rate),
                    high: t.low.map(rate),
                    samples: t.samples,
                })
            }
        }
    }

    /// Independent samples that those of a distribution are worth for a quantile, where neighbours resemble each other.
    pub fn worth(&self, statistic: Statistic) -> Option<u64> {
        match (self, statistic) {
            (Self::Distribution { dependence, .. }, Statistic::Quantile(q)) => {
                Some(dependence.independent_at(q))
            }
            (Self::Rate { dependence, .. }, Statistic::Quantile(q)) => {
                Some(dependence.independent_at(1.0 - q))
            }
            _ => None,
        }
    }

    /// Chance of evidence like this if the true value were at most `limit`: small means it is above.
    pub fn p_at_most(&self, statistic: Statistic, limit: f64, level: f64) -> f64 {
        match (self, statistic) {
            (Self::Distribution { of, dependence }, Statistic::Quantile(q)) => {
                of.p_at_most_worth(q, limit, dependence.independent_at(q))
            }
            (
                Self::Rate {
                    amount,
                    times,
                    dependence,
                },
                Statistic::Quantile(q),
            ) if limit > 0.0 => {
                let independent = dependence.independent_at(1.0 - q);
                times.p_at_least_worth(1.0 - q, amount / limit, independent)
            }
            (Self::Blocks(v), Statistic::Quantile(q)) => Sorted::new(v.clone())
                .map_or(1.0, |s| s.p_at_most_worth(q, limit, independent_blocks(v))),
            (Self::Blocks(v), Statistic::Mean) => {
                series_mean(v).map_or(1.0, |m| m.p_at_most(limit))
            }
            _ => self.p_by_bound(statistic, level, |b| b.low.is_some_and(|low| low > limit)),
        }
    }

    /// Chance of evidence like this if the true value were at least `limit`: small means it is below.
    pub fn p_at_least(&self, statistic: Statistic, limit: f64, level: f64) -> f64 {
        match (self, statistic) {
            (Self::Distribution { of, dependence }, Statistic::Quantile(q)) => {
                of.p_at_least_worth(q, limit, dependence.independent_at(q))
            }
            (
                Self::Rate {
                    amount,
                    times,
                    dependence,
                },
                Statistic::Quantile(q),
            ) if limit > 0.0 => {
                let independent = dependence.independent_at(1.0 - q);
                times.p_at_most_worth(1.0 - q, amount / limit, independent)
            }
            (Self::Blocks(v), Statistic::Quantile(q)) => Sorted::new(v.clone())
                .map_or(1.0, |s| s.p_at_least_worth(q, limit, independent_blocks(v))),
            (Self::Blocks(v), Statistic::Mean) => {
                series_mean(v).map_or(1.0, |m| m.p_at_least(limit))
            }
            _ => self.p_by_bound(statistic, level, |b| {
                b.high.is_some_and(|high| high < limit)
            }),
        }
    }

    /// Where only bounds exist: at most `level` if the bound at that level stands beyond the limit.
    fn p_by_bound(
        &self,
        statistic: Statistic,
        level: f64,
        beyond: impl Fn(Bounded) -> bool,
    ) -> f64 {
        match self.bounded(statistic, 1.0 - level) {
            Ok(b) if beyond(b) && matches!(self, Self::Exact { .. }) => 0.0,
            Ok(b) if beyond(b) => level * 0.99,
            _ => 1.0,
        }
    }
}

fn exact(value: f64, samples: u64) -> Bounded {
    Bounded {
        value,
        low: Some(value),
        high: Some(value),
        samples,
    }
}

fn two_sided(i: Interval, samples: u64) -> Bounded {
    Bounded {
        value: i.value,
        low: Some(i.low),
        high: Some(i.high),
        samples,
    }
}

fn blocks(values: &[f64], statistic: Statistic, confidence: f64) -> Result<Bounded, String> {
    let n = values.len() as u64;
    let few = || format!("{n} blocks are too few for the {statistic}");
    let sorted =
        Sorted::new(values.to_vec()).map_err(|_| "a block has no finite value".to_owned())?;
    match statistic {
        Statistic::Quantile(q) => {
            let b = sorted.bounds_worth(q, confidence, independent_blocks(values));
            let b = b.ok_or_else(few)?;
            Ok(Bounded {
                value: b.value,
                low: b.low,
                high: b.high,
                samples: n,
            })
        }
        Statistic::Mean | Statistic::Total => {
            let mean = series_mean(values).ok_or_else(few)?;
            Ok(two_sided(mean.interval(confidence).ok_or_else(few)?, n))
        }
        Statistic::Min => sorted
            .as_slice()
            .first()
            .map(|v| exact(*v, n))
            .ok_or_else(few),
        Statistic::Max => sorted
            .as_slice()
            .last()
            .map(|v| exact(*v, n))
            .ok_or_else(few),
        Statistic::Variation => {
            let i = block_bootstrap(values, confidence, RESAMPLING_SEED, |v| variation(v));
            Ok(two_sided(i.ok_or_else(few)?, n))
        }
        Statistic::Spread => Err(format!(
            "{statistic} is taken of single samples, not of blocks"
        )),
        Statistic::Slope => {
            let points: Vec<_> = values
                .iter()
                .enumerate()
                .map(|(i, v)| (i as f64, *v))
                .collect();
            let t = trend::trend(&points, confidence).ok_or_else(few)?;
            Ok(two_sided(t.slope, n))
        }
    }
}

/// Independent blocks that would say as much; below what a correlogram can be read from, each counts.
fn independent_blocks(values: &[f64]) -> u64 {
    let all = values.len() as u64;
    memory(values).map_or(all, |m| (m.effective_samples.floor() as u64).clamp(1, all))
}

fn variation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    if mean > 0.0 {
        var.sqrt() / mean
    } else {
        f64::INFINITY
    }
}

fn of_distribution(
    d: &Distribution,
    dependence: &Dependence,
    statistic: Statistic,
    confidence: f64,
) -> Result<Bounded, String> {
    let n = d.count();
    if d.refused() > 0 {
        return Err(format!(
            "{} of {} samples were not finite",
            d.refused(),
            n + d.refused()
        ));
    }
    let few = || format!("{n} samples are too few for the {statistic}");
    match statistic {
        Statistic::Quantile(q) => {
            let independent = dependence.independent_at(q);
            let b = d.sides_worth(q, confidence, independent).ok_or_else(few)?;
            Ok(Bounded {
                value: b.value,
                low: b.low,
                high: b.high,
                samples: n,
            })
        }
        Statistic::Min => d.min().map(|v| exact(v, n)).ok_or_else(few),
        Statistic::Max => d.max().map(|v| exact(v, n)).ok_or_else(few),
        // The mean of the very samples of the window is known; nothing is inferred beyond the window.
        Statistic::Mean => d.mean().map(|v| exact(v, n)).ok_or_else(few),
        // So is how far they lie apart: readings of one meter follow each other, and a day's course would leave a
        // bound on what lies beyond the window to chance.
        Statistic::Spread => match (d.quantile(0.01), d.quantile(0.99)) {
            (Some(first), Some(last)) if n >= SPREAD_MIN => Ok(exact(last - first, n)),
            _ => Err(few()),
        },
        Statistic::Total => Ok(exact(d.sum(), n)),
        Statistic::Slope | Statistic::Variation => Err(format!(
            "{statistic} is taken of rates in blocks, not of single samples"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::bootstrap::SplitMix64;

    /// Samples in the order given, and their dependence.
    fn gathered(values: &[f64]) -> (Distribution, Dependence) {
        let mut of = Distribution::new(1e-6).unwrap();
        let mut dependence = Dependence::keeping(values.len());
        for value in values {
            assert!(of.record(*value));
            dependence.push(*value);
        }
        (of, dependence)
    }

    /// The values in an order of chance.
    fn shuffled(mut values: Vec<f64>) -> Vec<f64> {
        let mut chance = SplitMix64::new(7);
        for i in (1..values.len()).rev() {
            values.swap(i, chance.below(i as u64 + 1) as usize);
        }
        values
    }

    /// A series whose neighbours resemble each other.
    fn sluggish(samples: usize) -> Vec<f64> {
        let mut chance = SplitMix64::new(11);
        let mut state = 0.0;
        let next = |_| {
            state = 0.95 * state + chance.unit() - 0.5;
            100.0 + state
        };
        (0..samples).map(next).collect()
    }

    fn width(b: Bounded) -> f64 {
        b.high.unwrap() - b.low.unwrap()
    }

    fn close(value: f64, expected: f64) {
        assert!(
            (value / expected - 1.0).abs() < 2e-3,
            "{value}, not {expected}"
        );
    }

    #[test]
    fn a_rate_from_times_has_the_bounds_of_the_times_turned_round() {
        let times = shuffled((1..=1000).map(f64::from).collect());
        let (times, dependence) = gathered(&times);
        let rate = Evidence::Rate {
            amount: 1000.0,
            times: &times,
            dependence: &dependence,
        };
        // One in a hundred rates is that of the longest times.
        for (quantile, expected) in [(0.02, 1000.0 / 980.0), (0.5, 2.0), (0.9, 10.0)] {
            let b = rate.bounded(Statistic::Quantile(quantile), 0.95).unwrap();
            close(b.value, expected);
            let (low, high) = (b.low.unwrap(), b.high.unwrap());
            assert!(low < b.value && b.value < high, "{quantile}: {b:?}");
        }
        let all = |statistic| rate.bounded(statistic, 0.95).unwrap().value;
        close(all(Statistic::Min), 1.0);
        close(all(Statistic::Max), 1000.0);
    }

    #[test]
    fn a_sample_that_is_no_number_leaves_the_rest_unjudged() {
        let (mut of, dependence) = gathered(&sluggish(200));
        assert!(!of.record(f64::NAN));
        for statistic in [
            Statistic::Quantile(0.5),
            Statistic::Mean,
            Statistic::Max,
            Statistic::Total,
        ] {
            let evidence = Evidence::Distribution {
                of: &of,
                dependence: &dependence,
            };
            assert!(evidence.bounded(statistic, 0.95).is_err(), "{statistic}");
        }
    }

    #[test]
    fn blocks_that_follow_each_other_are_bounded_as_fewer_would_be() {
        let series = sluggish(600);
        let median = |values| {
            let b = Evidence::Blocks(values).bounded(Statistic::Quantile(0.5), 0.95);
            width(b.unwrap())
        };
        let (own, strangers) = (median(series.clone()), median(shuffled(series)));
        assert!(own > 2.0 * strangers, "{own} {strangers}");
    }

    #[test]
    fn samples_that_follow_each_other_are_bounded_as_fewer_would_be() {
        let series = sluggish(600);
        let median = |values: &[f64]| {
            let (of, dependence) = gathered(values);
            let evidence = Evidence::Distribution {
                of: &of,
                dependence: &dependence,
            };
            width(evidence.bounded(Statistic::Quantile(0.5), 0.95).unwrap())
        };
        let (own, strangers) = (median(&series), median(&shuffled(series.clone())));
        assert!(own > 2.0 * strangers, "{own} {strangers}");
    }

    #[test]
    fn each_statistic_of_blocks_and_of_samples_is_its_own() {
        // 1 to 100 and one far out: the mean is not the median.
        let mut values: Vec<f64> = (1..=100).map(f64::from).collect();
        values.push(1100.0);
        let values = shuffled(values);
        let (of, dependence) = gathered(&values);
        let samples = Evidence::Distribution {
            of: &of,
            dependence: &dependence,
        };
        let blocks = Evidence::Blocks(values);
        let mean = 6150.0 / 101.0;
        for evidence in [&samples, &blocks] {
            let of = |statistic| evidence.bounded(statistic, 0.95).unwrap().value;
            close(of(Statistic::Min), 1.0);
            close(of(Statistic::Max), 1100.0);
            close(of(Statistic::Quantile(0.5)), 51.0);
            close(of(Statistic::Mean), mean);
        }
        close(
            samples.bounded(Statistic::Total, 0.95).unwrap().value,
            6150.0,
        );
        let steady: Vec<f64> = (0..200).map(|i| 99.0 + 2.0 * f64::from(i % 2)).collect();
        let variation = Evidence::Blocks(steady).bounded(Statistic::Variation, 0.95);
        assert!((variation.unwrap().value - 0.01).abs() < 1e-4);
        let climbing: Vec<f64> = sluggish(60)
            .iter()
            .zip(0..)
            .map(|(v, i)| v + f64::from(i))
            .collect();
        let points: Vec<_> = (0..).map(f64::from).zip(climbing.iter().copied()).collect();
        let expected = trend::trend(&points, 0.95).unwrap().slope;
        let slope = Evidence::Blocks(climbing).bounded(Statistic::Slope, 0.95);
        let slope = slope.unwrap();
        close(slope.low.unwrap(), expected.low);
        close(slope.high.unwrap(), expected.high);
        assert!(expected.low < expected.value && expected.value < expected.high);
    }

    #[test]
    fn what_a_bound_clears_is_what_chance_does_not_explain() {
        let series = sluggish(400);
        let (of, dependence) = gathered(&series);
        let samples = || Evidence::Distribution {
            of: &of,
            dependence: &dependence,
        };
        let rate = || Evidence::Rate {
            amount: 1e4,
            times: &of,
            dependence: &dependence,
        };
        let blocks = || Evidence::Blocks(series.clone());
        let median = Statistic::Quantile(0.5);
        for (evidence, statistic) in [
            (samples(), median),
            (rate(), median),
            (blocks(), median),
            (blocks(), Statistic::Mean),
            (blocks(), Statistic::Variation),
            (samples(), Statistic::Mean),
        ] {
            let b = evidence.bounded(statistic, 0.95).unwrap();
            let (low, high) = (b.low.unwrap(), b.high.unwrap());
            let reach = (high - low).max(b.value.abs() * 0.01);
            let above = |limit| evidence.p_at_most(statistic, limit, 0.05) < 0.05;
            let below = |limit| evidence.p_at_least(statistic, limit, 0.05) < 0.05;
            assert!(above(low - reach) && !above(high + reach), "{statistic}");
            assert!(below(high + reach) && !below(low - reach), "{statistic}");
            assert!(!above(b.value) && !below(b.value), "{statistic}");
        }
    }

    #[test]
    fn a_spread_is_known_of_the_windows_own_samples_and_leaves_strays_out() {
        let mut of = Distribution::new(0.001).unwrap();
        let spread = |of: &Distribution| {
            let dependence = &Dependence::default();
            let evidence = Evidence::Distribution { of, dependence };
            evidence.bounded(Statistic::Spread, 0.95)
        };
        for i in 0..10_000 {
            let stray = if i == 5_000 { 40.0 } else { 0.0 };
            assert!(of.record(30.0 + f64::from(i) / 10_000.0 + stray));
            if i == 50 {
                assert!(spread(&of).is_err(), "too few for a hundredth of them");
            }
        }
        let b = spread(&of).unwrap();
        assert!((b.value - 0.98).abs() < 0.01, "{b:?}");
        assert_eq!((b.low, b.high), (Some(b.value), Some(b.value)));
    }
}
