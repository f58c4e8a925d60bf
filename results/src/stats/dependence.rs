//! How many independent samples a stream is worth, whose neighbours resemble each other.
//!
//! Decides by batch means: if neighbours were independent, means of b samples would vary b times less
//! than single samples; the factor by which they vary more is the number of samples that count as one.
//! It is read twice, from the values and from whether they lie above the stream's early median (which no
//! single outlier can drown), and the larger counts. Bounded memory: at most [`BATCHES`] batches, whose
//! length doubles as the stream grows. A stream that is kept in order is read for a quantile from what lies beyond it:
//! slow weather in the bulk says little of how far single samples stand out, and bursts in the tail say much. Refuses
//! to call a stream *more* than independent.
//!
//! Source: Law and Kelton, *Simulation Modeling and Analysis*, §9.5 (batch means); Geyer, “Practical
//! Markov Chain Monte Carlo”, 1992 (effective sample size); Sen, “On the Bahadur representation of sample quantiles
//! for sequences of φ-mixing random variables”, 1972, and Heidelberger and Lewis, “Quantile Estimation in Dependent
//! Sequences”, 1984 (a quantile's variance is that of the count beyond it).

use super::finite::Finite;
use super::quantile::rank_of;
use super::sum::{PARTS, turns};

/// Batches kept at most; when full, neighbours are joined.
const BATCHES: usize = 128;
/// Samples from which the middle is read.
const EARLY: usize = 33;
/// Batch means that a variance is taken of: fewer say too little, more would be too short.
const MEANS: (f64, f64) = (8.0, 32.0);

/// A run of neighbouring samples, as they lie about the middle.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Batch {
    sum: f64,
    above: u32,
}

/// A batch that is not full, its samples added by turns.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    parts: [f64; PARTS],
    above: [u32; PARTS],
}

impl Open {
    fn batch(&self) -> Batch {
        let [a, b, c, d] = self.parts;
        Batch {
            sum: (a + b) + (c + d),
            above: self.above.iter().sum(),
        }
    }
}

/// The dependence of one stream, in the order of its samples.
#[derive(Clone, Debug, Default)]
pub struct Dependence {
    /// The first samples, until their median is known.
    early: Vec<f64>,
    middle: Option<f64>,
    batches: Vec<Batch>,
    /// Samples in a full batch, 1 at first.
    length: u64,
    open: Open,
    filled: u64,
    samples: u64,
    /// Squared distances from the middle, added by turns.
    squares: [f64; PARTS],
    /// All samples so far, where they are to be kept and not too many.
    kept: Option<Vec<f64>>,
    most: usize,
}

impl Dependence {
    /// Of a stream that is kept in order while it has no more than `most` samples.
    pub fn keeping(most: usize) -> Self {
        Self {
            kept: Some(Vec::new()),
            most,
            ..Self::default()
        }
    }

    /// Takes the next sample; it must be finite.
    pub fn push(&mut self, value: f64) {
        match &mut self.kept {
            Some(kept) if kept.len() < self.most => kept.push(value),
            kept => *kept = None,
        }
        self.samples += 1;
        let Some(middle) = self.middle else {
            self.early.push(value);
            if self.early.len() == EARLY {
                let mut sorted = std::mem::take(&mut self.early);
                let in_order = sorted.clone();
                sorted.sort_unstable_by(f64::total_cmp);
                let middle = sorted[EARLY / 2];
                self.middle = Some(middle);
                self.length = 1;
                self.enter(&in_order, middle);
            }
            return;
        };
        let part = (self.filled % PARTS as u64) as usize;
        let off = value - middle;
        self.open.parts[part] += off;
        self.open.above[part] += u32::from(off > 0.0);
        self.squares[part] += off * off;
        self.count(1);
    }

    /// [`Self::push`] for each of the values.
    pub fn push_all(&mut self, finite: &Finite) {
        let mut values = finite.values();
        while let Some((value, rest)) = values.split_first()
            && (self.middle.is_none() || self.kept.is_some())
        {
            self.push(*value);
            values = rest;
        }
        if let Some(middle) = self.middle {
            self.samples += values.len() as u64;
            match finite.same().is_some_and(|v| (v - middle).abs() <= 0.0) {
                true => self.stay(values.len() as u64),
                false => self.enter(values, middle),
            }
        }
    }

    fn enter(&mut self, values: &[f64], middle: f64) {
        let mut values = values;
        while !values.is_empty() {
            let room = (self.length - self.filled) as usize;
            let (now, rest) = values.split_at(room.min(values.len()));
            self.fill(now, middle);
            values = rest;
        }
    }

    /// Values that the open batch has room for. Whoever arrives with whom, each value has its own part of the sums.
    fn fill(&mut self, values: &[f64], middle: f64) {
        let (mut open, mut squares) = (self.open, self.squares);
        let mut add = |part: usize, value: f64| {
            let off = value - middle;
            open.parts[part] += off;
            open.above[part] += u32::from(off > 0.0);
            squares[part] += off * off;
        };
        let (head, whole, tail) = turns(values, self.filled);
        let first = (self.filled % PARTS as u64) as usize;
        head.iter().zip(first..).for_each(|(v, part)| add(part, *v));
        for four in whole {
            (0..PARTS).for_each(|part| add(part, four[part]));
        }
        tail.iter().zip(0..).for_each(|(v, part)| add(part, *v));
        (self.open, self.squares) = (open, squares);
        self.count(values.len() as u64);
    }

    /// So many values that are the middle: nothing adds up.
    fn stay(&mut self, values: u64) {
        let mut left = values;
        while left > 0 {
            let now = left.min(self.length - self.filled);
            self.count(now);
            left -= now;
        }
    }

    /// So many values are in the open batch now, which may be full.
    fn count(&mut self, values: u64) {
        self.filled += values;
        if self.filled < self.length {
            return;
        }
        self.batches.push(std::mem::take(&mut self.open).batch());
        self.filled = 0;
        if self.batches.len() == BATCHES {
            self.batches = self.batches.chunks_exact(2).map(join).collect();
            self.length *= 2;
        }
    }

    /// Independent samples that would say as much: 1 to the number of samples; 0 without any.
    ///
    /// Below [`EARLY`] samples nothing can be read, and each counts in full.
    pub fn independent(&self) -> u64 {
        let samples = self.samples as f64;
        if self.middle.is_none() {
            return self.samples;
        }
        let wanted = samples.sqrt().clamp(MEANS.0, MEANS.1);
        let group = ((self.batches.len() as f64 / wanted).round() as usize).max(1);
        let joined: Vec<Batch> = self.batches.chunks_exact(group).map(join).collect();
        let length = (self.length * group as u64) as f64;
        let all = self.batches.iter().fold(self.open.batch(), |a, b| Batch {
            sum: a.sum + b.sum,
            above: a.above.saturating_add(b.above),
        });
        let mean = all.sum / samples;
        let of_values = joined.iter().map(|b| b.sum / length - mean);
        let share = f64::from(all.above) / samples;
        let of_sides = joined.iter().map(|b| f64::from(b.above) / length - share);
        let squares: f64 = self.squares.iter().sum();
        let variance = (squares - all.sum * mean) / (samples - 1.0);
        let values = inflation(of_values, length, variance);
        let sides = inflation(of_sides, length, share * (1.0 - share));
        let per_sample = values.max(sides).max(1.0);
        ((samples / per_sample).floor() as u64).clamp(1, self.samples)
    }
}

impl Dependence {
    /// The same for a quantile: what lies beyond it together counts as one, and so does what lies beyond the quantile
    /// of twice the tail, in which there is more to read. Of a stream that is not kept, [`Self::independent`].
    pub fn independent_at(&self, quantile: f64) -> u64 {
        let Some(kept) = self.kept.as_ref().filter(|k| k.len() >= EARLY) else {
            return self.independent();
        };
        let samples = kept.len() as f64;
        let mut sorted = kept.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let length = (samples / samples.sqrt().clamp(MEANS.0, MEANS.1)) as usize;
        let beyond = |tail: f64| {
            let level = if quantile > 0.5 { 1.0 - tail } else { tail };
            let limit = sorted[rank_of(self.samples, level) as usize - 1];
            let count = |part: &[f64]| part.iter().filter(|v| **v > limit).count() as f64;
            let share = count(kept) / samples;
            let means = kept.chunks_exact(length);
            let means = means.map(|part| count(part) / length as f64 - share);
            inflation(means, length as f64, share * (1.0 - share))
        };
        let tail = quantile.min(1.0 - quantile);
        let per_sample = beyond(tail).max(beyond((2.0 * tail).min(0.5))).max(1.0);
        ((samples / per_sample).floor() as u64).clamp(1, self.samples)
    }
}

fn join(parts: &[Batch]) -> Batch {
    parts.iter().fold(Batch::default(), |all, part| Batch {
        sum: all.sum + part.sum,
        above: all.above.saturating_add(part.above),
    })
}

/// Variance of the batches' means, times their length, over the variance of single samples.
fn inflation(means: impl Iterator<Item = f64>, length: f64, variance: f64) -> f64 {
    let means: Vec<f64> = means.collect();
    if means.len() < 2 || variance <= 0.0 {
        return 1.0;
    }
    let count = means.len() as f64;
    let centre = means.iter().sum::<f64>() / count;
    let spread = means.iter().map(|m| (m - centre).powi(2)).sum::<f64>() / (count - 1.0);
    spread * length / variance
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::bootstrap::SplitMix64;
    use crate::stats::quantile::Sorted;

    /// An autoregression of the first order with the given coefficient.
    fn stream(phi: f64, samples: usize, seed: u64) -> Dependence {
        let mut chance = SplitMix64::new(seed);
        let mut state = 0.0;
        let mut dependence = Dependence::default();
        for _ in 0..samples {
            // Twelve uniforms less six are near enough to a normal.
            let normal = (0..12).map(|_| chance.unit()).sum::<f64>() - 6.0;
            state = phi * state + normal;
            dependence.push(state);
        }
        dependence
    }

    fn typical(phi: f64, samples: usize) -> f64 {
        let mut shares: Vec<f64> = (0..60)
            .map(|seed| stream(phi, samples, seed).independent() as f64 / samples as f64)
            .collect();
        shares.sort_unstable_by(f64::total_cmp);
        shares[30]
    }

    #[test]
    fn independent_samples_keep_most_of_their_worth() {
        for samples in [100, 300, 5_000, 100_000] {
            let share = typical(0.0, samples);
            assert!(share > 0.75, "{samples}: {share}");
        }
    }

    #[test]
    fn an_autocorrelated_stream_is_worth_what_theory_says() {
        // (1 − φ) / (1 + φ) of the samples.
        for (phi, samples) in [(0.5, 2_000), (0.9, 20_000), (0.98, 200_000)] {
            let (share, theory) = (typical(phi, samples), (1.0 - phi) / (1.0 + phi));
            assert!(
                share < 1.25 * theory && share > 0.55 * theory,
                "φ {phi}: {share}, theory {theory}"
            );
        }
    }

    #[test]
    fn a_reading_that_repeats_ten_times_counts_once() {
        let mut chance = SplitMix64::new(5);
        let mut dependence = Dependence::default();
        for _ in 0..400 {
            let value = chance.unit();
            (0..10).for_each(|_| dependence.push(value));
        }
        assert!(
            dependence.independent() < 520,
            "{}",
            dependence.independent()
        );
    }

    #[test]
    fn lone_outliers_do_not_hide_that_the_bulk_is_dependent() {
        let mut chance = SplitMix64::new(9);
        let mut state = 0.0;
        let mut dependence = Dependence::default();
        for n in 0..20_000 {
            state = 0.95 * state + chance.unit() - 0.5;
            dependence.push(if n % 997 == 0 { 1e6 } else { state });
        }
        assert!(
            dependence.independent() < 1_500,
            "{}",
            dependence.independent()
        );
    }

    #[test]
    fn bounds_of_a_tail_keep_their_promise_and_slow_weather_in_the_bulk_does_not_widen_them() {
        // Of a stationary autoregression, whose 95 % quantile is 1.645 standard deviations.
        for phi in [0.0_f64, 0.9, 0.97] {
            let truth = 1.644_854 / (1.0 - phi * phi).sqrt();
            let (mut missed, mut open) = (0, 0);
            for seed in 0..300 {
                let mut dependence = Dependence::keeping(4_000);
                let mut chance = SplitMix64::new(seed);
                let mut state = 0.0;
                for n in 0..3_200 {
                    let normal = (0..12).map(|_| chance.unit()).sum::<f64>() - 6.0;
                    state = phi * state + normal;
                    if n >= 200 {
                        dependence.push(state);
                    }
                }
                let kept = dependence.kept.clone().unwrap();
                let independent = dependence.independent_at(0.95);
                let sorted = Sorted::new(kept).unwrap();
                match sorted.bounds_worth(0.95, 0.95, independent).unwrap().high {
                    Some(high) => missed += u32::from(high < truth),
                    None => open += 1,
                }
            }
            assert!(missed <= 24, "φ {phi}: {missed} of 300 bounds too low");
            assert!(open <= 6, "φ {phi}: {open} of 300 open");
        }
        // Half of the time all takes half as long again; what stands out stands out alone.
        let mut dependence = Dependence::keeping(4_000);
        let mut chance = SplitMix64::new(3);
        for n in 0..1_500 {
            let weather = if (n / 250) % 2 == 0 { 30.0 } else { 45.0 };
            let lone = if chance.unit() < 0.06 { 30.0 } else { 0.0 };
            dependence.push(weather + chance.unit() + lone);
        }
        assert!(dependence.independent() < 60);
        assert!(dependence.independent_at(0.95) > 300);
        // Bursts of what stands out count once.
        let mut dependence = Dependence::keeping(4_000);
        (0..1_500).for_each(|n| dependence.push(if n % 500 < 30 { 60.0 } else { 30.0 }));
        assert!(dependence.independent_at(0.95) < 80);
    }

    #[test]
    fn a_stream_that_is_kept_no_longer_is_read_as_any_other() {
        let mut dependence = Dependence::keeping(4_000);
        let mut chance = SplitMix64::new(3);
        (0..=4_000).for_each(|_| dependence.push(chance.unit()));
        assert!(dependence.kept.is_none());
        assert_eq!(dependence.independent_at(0.95), dependence.independent());
    }

    #[test]
    fn a_constant_and_a_short_stream_count_in_full_and_an_empty_one_not_at_all() {
        let mut dependence = Dependence::default();
        assert_eq!(dependence.independent(), 0);
        (0..20).for_each(|_| dependence.push(3.0));
        assert_eq!(dependence.independent(), 20);
        (0..10_000).for_each(|_| dependence.push(3.0));
        assert_eq!(dependence.independent(), 10_020);
        assert!(dependence.batches.len() < BATCHES);
    }
}
