//! Exact tails of the two laws that counts follow: binomial and Poisson.
//!
//! Sums probabilities outward from the most likely count, relative to it, and normalises by their total.
//! That needs no gamma function, so nothing cancels at 10⁸ samples, where continued fractions of fixed
//! length stop short. Cost: about 28 standard deviations of terms, i.e. O(√n); memory: none. Above a
//! standard deviation of 10⁵ the normal law stands in, then good to 10⁻⁵, so that no number from a
//! profile can make judging endless. Refuses no count; NaN gives NaN.
//!
//! Source of the recurrences: Johnson, Kemp and Kotz, *Univariate Discrete Distributions*, 3rd ed.

use statrs::distribution::{ContinuousCDF, Normal};

/// Probabilities below this share of the largest are left out: 40 orders of magnitude.
const NEGLIGIBLE: f64 = 1e-40;

/// Relative slack of comparisons with a tail: what rounding can add over 10⁶ terms.
const ROUNDING: f64 = 1e-9;

/// Largest variance whose law is summed term by term: some milliseconds.
const VARIANCE_MAX: f64 = 1e10;

/// The law of a count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Law {
    /// Hits in `trials` independent trials, each a hit with probability `share` in 0..=1.
    Binomial {
        /// Number of trials.
        trials: u64,
        /// Probability of a hit.
        share: f64,
    },
    /// Events whose expected number is `mean` (≥ 0).
    Poisson {
        /// Expected number of events.
        mean: f64,
    },
}

impl Law {
    /// Mean and standard deviation, where summing would take too long.
    fn as_normal(self) -> Option<Normal> {
        let (mean, variance) = match self {
            Law::Binomial { trials, share } => {
                let mean = trials as f64 * share;
                (mean, mean * (1.0 - share))
            }
            // An infinite mean stands as the largest finite one: every count lies below it.
            Law::Poisson { mean } => (mean.min(f64::MAX), mean.min(f64::MAX)),
        };
        (variance > VARIANCE_MAX).then(|| Normal::new(mean, variance.sqrt()).ok())?
    }

    /// Largest count that can occur.
    fn most(self) -> u64 {
        match self {
            Law::Binomial { trials, share } => {
                if share > 0.0 {
                    trials
                } else {
                    0
                }
            }
            Law::Poisson { mean } => {
                if mean > 0.0 {
                    u64::MAX
                } else {
                    0
                }
            }
        }
    }

    /// Smallest count that can occur.
    fn least(self) -> u64 {
        match self {
            Law::Binomial { trials, share } if share >= 1.0 => trials,
            _ => 0,
        }
    }

    /// The most likely count.
    fn mode(self) -> u64 {
        let peak = match self {
            // `as` saturates, which is the clamp wanted here.
            Law::Binomial { trials, share } => ((trials as f64 + 1.0) * share) as u64,
            Law::Poisson { mean } => mean as u64,
        };
        peak.clamp(self.least(), self.most())
    }

    /// P(count + 1) / P(count).
    fn step_up(self, count: u64) -> f64 {
        let next = count as f64 + 1.0;
        match self {
            Law::Binomial { trials, share } => {
                (trials - count) as f64 / next * (share / (1.0 - share))
            }
            Law::Poisson { mean } => mean / next,
        }
    }

    fn is_nan(self) -> bool {
        match self {
            Law::Binomial { share, .. } => share.is_nan(),
            Law::Poisson { mean } => mean.is_nan(),
        }
    }

    /// Calls `visit(count, weight)` from the mode down, then from just above the mode up; the weight is
    /// relative to the mode's.
    fn walk(self, mut visit: impl FnMut(u64, f64)) {
        let mode = self.mode();
        let (least, most) = (self.least(), self.most());
        let mut weight = 1.0;
        let mut count = mode;
        loop {
            visit(count, weight);
            if count == least {
                break;
            }
            weight /= self.step_up(count - 1);
            count -= 1;
            if weight < NEGLIGIBLE {
                break;
            }
        }
        weight = 1.0;
        count = mode;
        while count < most {
            weight *= self.step_up(count);
            count += 1;
            if weight < NEGLIGIBLE {
                break;
            }
            visit(count, weight);
        }
    }

    /// Probability of `count` or fewer. Below 10⁻⁴⁰ it is 0.
    pub fn at_most(self, count: u64) -> f64 {
        self.split(count).0
    }

    /// Probability of `count` or more. Below 10⁻⁴⁰ it is 0.
    pub fn at_least(self, count: u64) -> f64 {
        match count.checked_sub(1) {
            Some(below) => self.split(below).1,
            None => 1.0,
        }
    }

    /// (P(X ≤ count), P(X > count)), each summed by itself so that a small one keeps its digits.
    fn split(self, count: u64) -> (f64, f64) {
        if self.is_nan() {
            return (f64::NAN, f64::NAN);
        }
        if let Some(normal) = self.as_normal() {
            let edge = count as f64 + 0.5;
            return (normal.cdf(edge), normal.sf(edge));
        }
        let (mut below, mut above) = (0.0, 0.0);
        self.walk(|at, weight| {
            if at <= count {
                below += weight;
            } else {
                above += weight;
            }
        });
        let total = below + above;
        (below / total, above / total)
    }

    /// How many of the counts 0, 1, 2, … have P(X ≤ count) ≤ `tail`.
    ///
    /// 0 where even P(X = 0) exceeds it. `tail`: below 1.
    pub fn counts_within_lower_tail(self, tail: f64) -> u64 {
        if self.is_nan() {
            return 0;
        }
        if let Some(normal) = self.as_normal() {
            // Half a count of continuity, one of counting from 0.
            return (normal.inverse_cdf(tail.clamp(0.0, 1.0)) + 0.5).max(0.0) as u64;
        }
        let (mut total, mut first, mut first_weight) = (0.0, u64::MAX, 1.0);
        self.walk(|at, weight| {
            total += weight;
            if at < first {
                first = at;
                first_weight = weight;
            }
        });
        let allowed = tail * total * (1.0 + ROUNDING);
        let most = self.most();
        let (mut count, mut weight, mut sum) = (first, first_weight, first_weight);
        while sum <= allowed && count < most && weight >= NEGLIGIBLE {
            weight *= self.step_up(count);
            count += 1;
            sum += weight;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::Law;
    use statrs::distribution::{Binomial, DiscreteCDF, Poisson};

    #[test]
    fn small_binomial_tails_equal_the_sum_of_their_terms() {
        // Independent: binomial coefficients by Pascal's triangle.
        for trials in 0..=40_u64 {
            for share in [0.01, 0.2, 0.5, 0.77, 0.999] {
                let mut row = vec![1.0_f64];
                for _ in 0..trials {
                    let mut next = vec![1.0; row.len() + 1];
                    for i in 1..row.len() {
                        next[i] = row[i - 1] + row[i];
                    }
                    row = next;
                }
                for count in 0..=trials {
                    let expected: f64 = (0..=count)
                        .map(|k| {
                            row[k as usize]
                                * f64::powi(share, k as i32)
                                * f64::powi(1.0 - share, (trials - k) as i32)
                        })
                        .sum();
                    let law = Law::Binomial { trials, share };
                    assert!(
                        (law.at_most(count) - expected).abs() < 1e-12,
                        "{law:?} {count}"
                    );
                    let rest = 1.0 - law.at_most(count);
                    assert!(
                        (law.at_least(count + 1) - rest).abs() < 1e-12,
                        "{law:?} {count}"
                    );
                }
            }
        }
    }

    #[test]
    fn tails_agree_with_statrs_where_its_fraction_converges() {
        for (trials, share, count) in [
            (300, 0.99, 297),
            (3_000, 0.999, 2_999),
            (10_000, 0.5, 4_900),
            (20_000, 0.01, 230),
        ] {
            let ours = Law::Binomial { trials, share }.at_most(count);
            let theirs = Binomial::new(share, trials).unwrap().cdf(count);
            assert!(
                (ours - theirs).abs() < 1e-9,
                "{trials} {share} {count}: {ours} {theirs}"
            );
        }
        for (mean, count) in [
            (0.3, 0),
            (0.9216, 2),
            (17.0, 25),
            (1_000.0, 950),
            (1e5, 100_100),
        ] {
            let ours = Law::Poisson { mean }.at_most(count);
            let theirs = Poisson::new(mean).unwrap().cdf(count);
            assert!(
                (ours - theirs).abs() < 1e-9,
                "{mean} {count}: {ours} {theirs}"
            );
        }
    }

    #[test]
    fn a_hundred_million_trials_keep_their_precision() {
        // The normal law with continuity correction is good to ~1e-9 at the centre of a symmetric law.
        let law = Law::Binomial {
            trials: 100_000_000,
            share: 0.5,
        };
        let at_mean = law.at_most(50_000_000);
        // P(X <= n/2) = 1/2 + P(X = n/2)/2, and P(X = n/2) = 1/sqrt(pi n/2) (1 - 1/(4n) + ..).
        let centre = 1.0 / (std::f64::consts::PI * 5e7).sqrt() * (1.0 - 0.25e-8);
        assert!((at_mean - (0.5 + centre / 2.0)).abs() < 1e-11, "{at_mean}");
    }

    #[test]
    fn the_normal_law_takes_over_without_a_step_and_no_size_is_endless() {
        // Just below and just above the largest variance that is summed.
        let at = |mean: f64, errors: f64| {
            Law::Poisson { mean }.at_most((mean + errors * mean.sqrt()) as u64)
        };
        for errors in [-4.0, -1.6, 0.0, 2.0] {
            assert!((at(0.999_999e10, errors) - at(1.000_001e10, errors)).abs() < 1e-5);
        }
        let summed = Law::Binomial {
            trials: 39_999_000_000,
            share: 0.5,
        };
        let normal = Law::Binomial {
            trials: 40_001_000_000,
            share: 0.5,
        };
        for (law, trials) in [(summed, 39_999_000_000.0_f64), (normal, 40_001_000_000.0)] {
            let counts = law.counts_within_lower_tail(0.05) as f64;
            let expected = trials / 2.0 - 1.644_853_627 * trials.sqrt() / 2.0;
            assert!((counts - expected).abs() < 2.0, "{counts} {expected}");
        }
        assert!(Law::Poisson { mean: 1e300 }.at_most(5) < 1e-300);
        assert!(
            Law::Poisson {
                mean: f64::INFINITY
            }
            .at_most(5)
                < 1e-300
        );
        assert!(
            Law::Binomial {
                trials: u64::MAX,
                share: 0.5
            }
            .at_least(1)
                > 0.999
        );
        // A tail of one or more has no end among Poisson's counts; the count still comes.
        assert!(Law::Poisson { mean: 3.0 }.counts_within_lower_tail(1.0) > 3);
    }

    #[test]
    fn certain_and_impossible_hits_are_exact() {
        let never = Law::Binomial {
            trials: 10,
            share: 0.0,
        };
        let always = Law::Binomial {
            trials: 10,
            share: 1.0,
        };
        let quiet = Law::Poisson { mean: 0.0 };
        for (got, expected) in [
            (never.at_most(0), 1.0),
            (never.at_least(1), 0.0),
            (always.at_most(9), 0.0),
            (always.at_least(10), 1.0),
            (quiet.at_most(0), 1.0),
            (quiet.at_least(1), 0.0),
            (Law::Poisson { mean: 1e9 }.at_most(0), 0.0),
        ] {
            assert!((got - expected).abs() < 1e-300, "{got} {expected}");
        }
        assert!(Law::Poisson { mean: f64::NAN }.at_most(3).is_nan());
    }

    #[test]
    fn the_lower_tail_ends_where_the_summed_law_says() {
        for trials in [1, 4, 5, 58, 59, 60, 500, 2_994, 2_995, 40_000] {
            for share in [0.001, 0.01, 0.05, 0.5, 0.9] {
                let law = Law::Binomial { trials, share };
                let counts = law.counts_within_lower_tail(0.05);
                assert!(law.at_most(counts) > 0.05, "{law:?} {counts}");
                if counts > 0 {
                    assert!(law.at_most(counts - 1) <= 0.05 + 1e-9, "{law:?} {counts}");
                }
            }
        }
    }
}
