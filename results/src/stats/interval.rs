//! Estimates with their one-sided bounds: a mean, a proportion, a rate of rare events.
//!
//! Decides which values of the truth the samples still allow. Refuses (with `None`) what cannot be
//! bounded: a mean of fewer than two samples, a proportion of no trials, a rate over no exposure, a
//! confidence outside 0.5..1. Sides and p-values: see [`crate::stats`].

use super::{is_confidence, law::Law};
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// Halvings of a bracket until it is as narrow as a double allows.
const HALVINGS: u32 = 200;

/// An estimate and its one-sided bounds, all in the estimate's unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower bound.
    pub low: f64,
    /// The estimate.
    pub value: f64,
    /// Upper bound.
    pub high: f64,
}

/// The standard normal value that a normal variable stays below with probability `confidence`;
/// `None` outside 0.5..1.
pub fn normal_quantile(confidence: f64) -> Option<f64> {
    if !is_confidence(confidence) {
        return None;
    }
    Some(Normal::new(0.0, 1.0).ok()?.inverse_cdf(confidence))
}

/// A mean, how uncertain it is, and how well that is known.
///
/// Its bounds are Student's: value ± t · standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    /// The mean, in the samples' unit.
    pub value: f64,
    /// Standard deviation of the mean, same unit.
    pub standard_error: f64,
    /// Degrees of freedom behind the standard error, above 0.
    pub freedom: f64,
    /// Samples behind the mean.
    pub samples: usize,
}

impl Mean {
    /// Mean of independent samples; `None` below two samples or with one that is not finite.
    ///
    /// Samples of one device over time are rarely independent: [`crate::stats::bootstrap::series_mean`].
    /// Source: Student, “The Probable Error of a Mean”, 1908.
    pub fn of_independent(values: &[f64]) -> Option<Mean> {
        let samples = values.len();
        if samples < 2 || values.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let value = values.iter().sum::<f64>() / samples as f64;
        let squares: f64 = values.iter().map(|sample| (sample - value).powi(2)).sum();
        let freedom = samples as f64 - 1.0;
        let standard_error = (squares / freedom / samples as f64).sqrt();
        Some(Mean {
            value,
            standard_error,
            freedom,
            samples,
        })
    }

    /// The mean with its bounds; `None` where `confidence` is not in 0.5..1.
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        if !is_confidence(confidence) {
            return None;
        }
        let reach = student_quantile(self.freedom, confidence)? * self.standard_error;
        Some(Interval {
            low: self.value - reach,
            value: self.value,
            high: self.value + reach,
        })
    }

    /// p-value of “the mean is at most `limit`”: small where it exceeds the limit.
    pub fn p_at_most(&self, limit: f64) -> f64 {
        self.p_beyond(self.value - limit)
    }

    /// p-value of “the mean is at least `limit`”: small where it falls short.
    pub fn p_at_least(&self, limit: f64) -> f64 {
        self.p_beyond(limit - self.value)
    }

    /// Probability that chance alone puts the mean `excess` or more beyond the truth.
    fn p_beyond(&self, excess: f64) -> f64 {
        if excess.is_nan() {
            return f64::NAN;
        }
        if self.standard_error <= 0.0 {
            // No spread at all: the mean is the truth as far as the samples can tell.
            return if excess > 0.0 { 0.0 } else { 1.0 };
        }
        student_upper_tail(self.freedom, excess / self.standard_error)
    }
}

/// Above this freedom Student's law comes from its normal approximation, better than 10⁻⁹ there; the
/// continued fraction behind the exact one is off by 10⁻⁷ of t there and stops short from 10⁵ on.
const FREEDOM_EXACT_MAX: f64 = 1_000.0;

/// The value that Student's t with `freedom` stays below with probability `confidence`.
///
/// Source of the approximation: Peizer and Pratt 1968, solved for t.
fn student_quantile(freedom: f64, confidence: f64) -> Option<f64> {
    if freedom <= FREEDOM_EXACT_MAX {
        return Some(
            StudentsT::new(0.0, 1.0, freedom)
                .ok()?
                .inverse_cdf(confidence),
        );
    }
    let z = normal_quantile(confidence)?;
    Some((freedom * (z / peizer_pratt(freedom)).powi(2).exp_m1()).sqrt())
}

/// Probability that Student's t with `freedom` exceeds `t`.
fn student_upper_tail(freedom: f64, t: f64) -> f64 {
    if freedom <= FREEDOM_EXACT_MAX {
        return StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |law| law.sf(t));
    }
    let z = peizer_pratt(freedom) * (t * t / freedom).ln_1p().sqrt();
    Normal::new(0.0, 1.0).map_or(f64::NAN, |law| law.sf(z.copysign(t)))
}

/// z per √ln(1 + t²/freedom) in Peizer and Pratt's approximation.
fn peizer_pratt(freedom: f64) -> f64 {
    (freedom - 2.0 / 3.0 + 0.1 / freedom) / (freedom - 5.0 / 6.0).sqrt()
}

/// Hits among independent trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proportion {
    hits: u64,
    trials: u64,
}

impl Proportion {
    /// `None` without trials, or with more hits than trials.
    pub fn new(hits: u64, trials: u64) -> Option<Self> {
        (trials > 0 && hits <= trials).then_some(Proportion { hits, trials })
    }

    /// The share of hits, 0..=1.
    pub fn share(&self) -> f64 {
        self.hits as f64 / self.trials as f64
    }

    /// The share with Wilson's score bounds: near the nominal confidence on average, at times below it.
    ///
    /// Source: Wilson 1927; Brown, Cai and DasGupta 2001, eq. 4.
    pub fn wilson(&self, confidence: f64) -> Option<Interval> {
        let z = normal_quantile(confidence)?;
        let (value, trials) = (self.share(), self.trials as f64);
        let weight = 1.0 + z * z / trials;
        let centre = (value + z * z / (2.0 * trials)) / weight;
        let spread = value * (1.0 - value) / trials + z * z / (4.0 * trials * trials);
        let reach = z * spread.sqrt() / weight;
        // At 0 and at all hits the formula gives exactly 0 and 1; rounding must not step outside.
        let low = if self.hits == 0 {
            0.0
        } else {
            (centre - reach).max(0.0)
        };
        let high = if self.hits == self.trials {
            1.0
        } else {
            (centre + reach).min(1.0)
        };
        Some(Interval { low, value, high })
    }

    /// The share with exact bounds, which never cover less often than promised. For verdicts.
    ///
    /// Source: Clopper and Pearson 1934.
    pub fn exact(&self, confidence: f64) -> Option<Interval> {
        if !is_confidence(confidence) {
            return None;
        }
        let tail = 1.0 - confidence;
        let value = self.share();
        let low = if self.hits == 0 {
            0.0
        } else {
            rising_root(0.0, value, |share| self.p_at_most(share) - tail)
        };
        let high = if self.hits == self.trials {
            1.0
        } else {
            rising_root(value, 1.0, |share| tail - self.p_at_least(share))
        };
        Some(Interval { low, value, high })
    }

    /// p-value of “the true share is at most `share`”. Source: the binomial test.
    pub fn p_at_most(&self, share: f64) -> f64 {
        Law::Binomial {
            trials: self.trials,
            share,
        }
        .at_least(self.hits)
    }

    /// p-value of “the true share is at least `share`”.
    pub fn p_at_least(&self, share: f64) -> f64 {
        Law::Binomial {
            trials: self.trials,
            share,
        }
        .at_most(self.hits)
    }
}

/// Rare events counted over an exposure (device-hours, FLOP, operations): a Poisson count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Events {
    count: u64,
    exposure: f64,
}

impl Events {
    /// `None` unless `exposure` is finite and above zero: nothing follows from not looking.
    pub fn new(count: u64, exposure: f64) -> Option<Self> {
        (exposure.is_finite() && exposure > 0.0).then_some(Events { count, exposure })
    }

    /// Events per unit of exposure.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.exposure
    }

    /// The rate with exact bounds, per unit of exposure. Without events the upper bound at 0.95 is
    /// 2.996 / exposure.
    ///
    /// Source: Garwood 1936.
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        if !is_confidence(confidence) {
            return None;
        }
        let tail = 1.0 - confidence;
        let count = self.count as f64;
        let low = if self.count == 0 {
            0.0
        } else {
            rising_root(0.0, count, |mean| self.p_of_more(mean) - tail)
        };
        let mut ceiling = count + 1.0;
        while self.p_of_fewer(ceiling) > tail {
            ceiling *= 2.0;
        }
        let high = rising_root(count, ceiling, |mean| tail - self.p_of_fewer(mean));
        Some(Interval {
            low: low / self.exposure,
            value: self.rate(),
            high: high / self.exposure,
        })
    }

    /// The rule of three: an upper 95 % bound of 3 / exposure where no event was seen, else `None`.
    ///
    /// Rounds −ln 0.05 = 2.9957 up. Source: Hanley and Lippman-Hand, JAMA 1983.
    pub fn rule_of_three(&self) -> Option<f64> {
        (self.count == 0).then(|| 3.0 / self.exposure)
    }

    /// p-value of “the rate is at most `rate`” per unit of exposure.
    pub fn p_at_most(&self, rate: f64) -> f64 {
        self.p_of_more(rate * self.exposure)
    }

    /// p-value of “the rate is at least `rate`” per unit of exposure.
    pub fn p_at_least(&self, rate: f64) -> f64 {
        self.p_of_fewer(rate * self.exposure)
    }

    fn p_of_more(&self, mean: f64) -> f64 {
        Law::Poisson { mean }.at_least(self.count)
    }

    fn p_of_fewer(&self, mean: f64) -> f64 {
        Law::Poisson { mean }.at_most(self.count)
    }
}

/// An acceptance plan for rare events: a hall with `accept` or fewer of them is accepted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventPlan {
    /// Most events of an accepted hall.
    pub accept: u64,
    /// Probability that a hall at the good rate is rejected (producer's risk).
    pub good_rejected: f64,
    /// Probability that a hall at the bad rate is accepted (consumer's risk).
    pub bad_accepted: f64,
}

impl EventPlan {
    /// The risks of accepting up to `accept` events, where a good hall is expected to show `mean_good`
    /// and a bad one `mean_bad`.
    pub fn of(accept: u64, mean_good: f64, mean_bad: f64) -> EventPlan {
        EventPlan {
            accept,
            good_rejected: Law::Poisson { mean: mean_good }.at_least(accept.saturating_add(1)),
            bad_accepted: Law::Poisson { mean: mean_bad }.at_most(accept),
        }
    }

    /// The plan with the fewest accepted events whose good halls are rejected at most with probability
    /// `risk_good`; what bad halls then risk stands in the plan. `None` unless the mean is finite and
    /// not negative, and the risk above 0 and below 1.
    ///
    /// Source: single sampling plans by attributes, Montgomery, *Statistical Quality Control*, §15.2.
    pub fn for_good(mean_good: f64, mean_bad: f64, risk_good: f64) -> Option<EventPlan> {
        let in_range =
            mean_good.is_finite() && mean_good >= 0.0 && risk_good > 0.0 && risk_good < 1.0;
        if !in_range {
            return None;
        }
        let law = Law::Poisson { mean: mean_good };
        let (mut low, mut high) = (0, 1);
        while law.at_least(high + 1) > risk_good {
            low = high + 1;
            high *= 2;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if law.at_least(middle + 1) > risk_good {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Some(EventPlan::of(low, mean_good, mean_bad))
    }
}

/// Where `rising`, negative at `low` and positive at `high`, passes zero.
fn rising_root(mut low: f64, mut high: f64, rising: impl Fn(f64) -> f64) -> f64 {
    for _ in 0..HALVINGS {
        let middle = low + (high - low) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if rising(middle) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
        if high - low <= high * 1e-14 {
            break;
        }
    }
    low + (high - low) / 2.0
}

#[cfg(test)]
mod tests {
    use super::{
        EventPlan, Events, Mean, Proportion, normal_quantile, student_quantile, student_upper_tail,
    };
    use statrs::distribution::{Beta, ChiSquared, ContinuousCDF};

    fn near(got: f64, expected: f64, within: f64) {
        assert!(
            (got - expected).abs() <= within,
            "got {got}, expected {expected} ± {within}"
        );
    }

    #[test]
    fn a_mean_has_the_published_student_bounds() {
        // Two samples 0 and 2: mean 1, standard error 1; t(0.95, 1) = 6.314 (any t table).
        let mean = Mean::of_independent(&[0.0, 2.0]).unwrap();
        let bounds = mean.interval(0.95).unwrap();
        near(bounds.high, 1.0 + 6.3138, 1e-4);
        near(bounds.low, 1.0 - 6.3138, 1e-4);
        // NIST StRD "Lew" style check with a table value: t(0.95, 10) = 1.812, n = 11.
        let values: Vec<f64> = (0..11).map(f64::from).collect();
        let mean = Mean::of_independent(&values).unwrap();
        near(mean.value, 5.0, 1e-12);
        near(
            mean.interval(0.95).unwrap().high,
            5.0 + 1.8125 * (11.0_f64 / 11.0).sqrt(),
            1e-3,
        );
        assert_eq!(Mean::of_independent(&[1.0]), None);
        assert_eq!(Mean::of_independent(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn student_becomes_normal_with_many_samples() {
        let z = normal_quantile(0.95).unwrap();
        near(z, 1.644_853_626_951_472_2, 1e-9);
        for freedom in [1e3, 1e4, 1e5, 1e6, 1e8] {
            let mean = Mean {
                value: 0.0,
                standard_error: 1.0,
                freedom,
                samples: 2,
            };
            // Abramowitz and Stegun 26.7.5, two terms.
            let expected = z
                + (z.powi(3) + z) / (4.0 * freedom)
                + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * freedom * freedom);
            near(mean.interval(0.95).unwrap().high, expected, 1e-7);
            near(mean.p_at_most(-expected), 0.05, 1e-7);
        }
    }

    #[test]
    fn student_quantiles_equal_their_closed_forms() {
        for p in [0.6, 0.8, 0.95, 0.99, 0.999] {
            // Freedom 1 is Cauchy's law; freedom 2 has t = (2p − 1) / √(2p(1 − p)).
            let cauchy = (std::f64::consts::PI * (p - 0.5)).tan();
            near(student_quantile(1.0, p).unwrap() / cauchy, 1.0, 1e-6);
            let two = (2.0 * p - 1.0) / (2.0 * p * (1.0 - p)).sqrt();
            near(student_quantile(2.0, p).unwrap() / two, 1.0, 1e-6);
            for freedom in [0.7, 1.667, 2.5, 9.0, 63.4, 800.0, 5e4] {
                let t = student_quantile(freedom, p).unwrap();
                near(student_upper_tail(freedom, t), 1.0 - p, 1e-6 * (1.0 - p));
            }
        }
    }

    #[test]
    fn student_has_no_step_where_the_approximation_takes_over() {
        for confidence in [0.5, 0.9, 0.95, 0.999] {
            let at = |freedom| student_quantile(freedom, confidence).unwrap();
            near(at(1_000.0), at(1_000.000_01), 1e-6);
        }
        for t in [-3.0, -0.2, 0.0, 1.7, 4.5] {
            near(
                student_upper_tail(1_000.0, t),
                student_upper_tail(1_000.000_01, t),
                1e-8,
            );
        }
    }

    #[test]
    fn a_mean_p_value_is_at_alpha_where_the_bound_touches_the_limit() {
        let mean = Mean::of_independent(&[3.0, 4.0, 4.5, 7.0, 3.2]).unwrap();
        let bounds = mean.interval(0.95).unwrap();
        near(mean.p_at_most(bounds.low), 0.05, 1e-9);
        near(mean.p_at_least(bounds.high), 0.05, 1e-9);
        let flat = Mean::of_independent(&[2.0, 2.0, 2.0]).unwrap();
        near(flat.p_at_most(1.0), 0.0, 0.0);
        near(flat.p_at_most(2.0), 1.0, 0.0);
    }

    #[test]
    fn wilson_bounds_equal_published_ones() {
        // Newcombe 1998, table I: 81/263 two-sided 95 % is 0.2553..0.3662; 0/20 is 0..0.1611;
        // 1/29 is 0.0061..0.1718.
        for (hits, trials, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let bounds = Proportion::new(hits, trials)
                .unwrap()
                .wilson(0.975)
                .unwrap();
            near(bounds.low, low, 5.1e-5);
            near(bounds.high, high, 5.1e-5);
        }
    }

    #[test]
    fn exact_bounds_equal_published_ones_and_the_beta_law() {
        // Newcombe 1998, table I, Clopper–Pearson rows.
        for (hits, trials, low, high) in [
            (81, 263, 0.2527, 0.3676),
            (15, 148, 0.0578, 0.1617),
            (0, 20, 0.0, 0.1684),
            (1, 29, 0.0009, 0.1776),
        ] {
            let bounds = Proportion::new(hits, trials).unwrap().exact(0.975).unwrap();
            near(bounds.low, low, 5.1e-5);
            near(bounds.high, high, 5.1e-5);
        }
        for (hits, trials) in [(3_u64, 17_u64), (40, 90), (1, 1_000), (999, 1_000)] {
            let bounds = Proportion::new(hits, trials).unwrap().exact(0.95).unwrap();
            let (k, n) = (hits as f64, trials as f64);
            near(
                bounds.low,
                Beta::new(k, n - k + 1.0).unwrap().inverse_cdf(0.05),
                1e-9,
            );
            near(
                bounds.high,
                Beta::new(k + 1.0, n - k).unwrap().inverse_cdf(0.95),
                1e-9,
            );
        }
        // No hit in n trials: 1 − 0.05^(1/n).
        let clean = Proportion::new(0, 59).unwrap().exact(0.95).unwrap();
        near(clean.high, 1.0 - 0.05_f64.powf(1.0 / 59.0), 1e-12);
        let many = Proportion::new(50_000_000, 100_000_000)
            .unwrap()
            .exact(0.95)
            .unwrap();
        near(many.high - 0.5, 1.644_853_6 * 0.5e-4, 1e-8);
        assert_eq!(Proportion::new(0, 0), None);
        assert_eq!(Proportion::new(2, 1), None);
    }

    #[test]
    fn event_bounds_equal_garwoods_table_and_the_chi_square_law() {
        // Garwood 1936, two-sided 95 %: 0 → 3.689, 1 → 0.0253..5.572, 10 → 4.795..18.39.
        for (count, low, high) in [(0, 0.0, 3.6889), (1, 0.0253, 5.5716), (10, 4.7954, 18.3904)] {
            let bounds = Events::new(count, 1.0).unwrap().interval(0.975).unwrap();
            near(bounds.low, low, 6e-5);
            near(bounds.high, high, 6e-5);
        }
        for count in [1_u64, 7, 120, 5_000] {
            let bounds = Events::new(count, 2.0).unwrap().interval(0.95).unwrap();
            let chi = |freedom: f64, p| ChiSquared::new(freedom).unwrap().inverse_cdf(p) / 4.0;
            let twice = 2.0 * count as f64;
            near(bounds.low, chi(twice, 0.05), 1e-6 * bounds.low);
            near(bounds.high, chi(twice + 2.0, 0.95), 1e-6 * bounds.high);
        }
    }

    #[test]
    fn no_event_over_an_exposure_is_bounded_by_three_over_it() {
        let clean = Events::new(0, 2e21).unwrap();
        near(
            clean.interval(0.95).unwrap().high * 2e21,
            2.995_732_273_553_991,
            1e-10,
        );
        near(clean.rule_of_three().unwrap() * 2e21, 3.0, 1e-12);
        assert_eq!(Events::new(1, 1.0).unwrap().rule_of_three(), None);
        assert_eq!(Events::new(0, 0.0), None);
        assert_eq!(Events::new(0, f64::NAN), None);
    }

    #[test]
    fn an_event_plan_states_the_risks_of_its_own_limit() {
        // 3.0e-4 per GPU-day over 1,024 GPUs and three days: 0.9216 events expected. By hand:
        // e^-0.9216 (1 + 0.9216 + 0.42467) = 0.93353, with the cubic term 0.13046 more: 0.98544.
        let mean = 3.0e-4 * 1_024.0 * 3.0;
        near(EventPlan::of(2, mean, 4.0).good_rejected, 0.066_47, 5e-5);
        near(EventPlan::of(3, mean, 4.0).good_rejected, 0.014_56, 5e-5);
        near(
            EventPlan::of(2, mean, 4.0).bad_accepted,
            13.0 * (-4.0_f64).exp(),
            1e-12,
        );
        assert_eq!(EventPlan::for_good(mean, 4.0, 0.10).unwrap().accept, 2);
        assert_eq!(EventPlan::for_good(mean, 4.0, 0.05).unwrap().accept, 3);
        for mean in [0.0, 0.3, 5.0, 77.0] {
            for risk in [0.001, 0.05, 0.5] {
                let plan = EventPlan::for_good(mean, 9.0, risk).unwrap();
                assert!(plan.good_rejected <= risk);
                if let Some(fewer) = plan.accept.checked_sub(1) {
                    assert!(EventPlan::of(fewer, mean, 9.0).good_rejected > risk);
                }
            }
        }
    }
}
