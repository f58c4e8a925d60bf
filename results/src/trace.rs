//! The course of a quantity over the run in bounded memory, for pictures and the live view.
//!
//! Not judged: judgement uses [`crate::stats`]. When the bins run out, pairs are merged and the
//! bin width doubles, so that a minute and three days both fit.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Bins kept at most.
const BINS: usize = 2048;

/// Smallest, largest and mean value of a stretch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    pub min: f64,
    pub max: f64,
    pub sum: f64,
    pub count: u64,
}

impl Bin {
    fn add(&mut self, value: f64) {
        self.merge(&Self {
            min: value,
            max: value,
            sum: value,
            count: 1,
        });
    }

    /// As if the other's samples had come here.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        self.count += other.count;
    }

    /// `None` where nothing was sampled: a hole stays a hole.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// Samples of a gauge over the whole run.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    bin_ns: u64,
    bins: Bins,
}

/// Half of what a hall's sensors tell never changes: a limit, counters of faults that do not happen.
#[derive(Clone, Debug, PartialEq)]
enum Bins {
    /// All samples so far had this value, so many of them in each bin.
    Flat(Option<f64>, Vec<u32>),
    Varied(Vec<Bin>),
}

impl Trace {
    /// `bin_ns`: width of the first bins.
    pub fn new(bin_ns: u64) -> Self {
        Self {
            bin_ns: bin_ns.max(1),
            bins: Bins::Flat(None, Vec::new()),
        }
    }

    pub fn bin_ns(&self) -> u64 {
        self.bin_ns
    }

    pub fn bins(&self) -> Cow<'_, [Bin]> {
        match &self.bins {
            Bins::Flat(value, counts) => Cow::Owned(varied(*value, counts)),
            Bins::Varied(bins) => Cow::Borrowed(bins),
        }
    }

    /// Bins up to the last that was sampled.
    pub fn len(&self) -> usize {
        match &self.bins {
            Bins::Flat(_, counts) => counts.len(),
            Bins::Varied(bins) => bins.len(),
        }
    }

    /// Nothing was sampled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a sample; NaN and infinities are no samples.
    pub fn push(&mut self, at_ns: u64, value: f64) {
        if value.is_finite() {
            let index = self.index(at_ns);
            self.add(index, value);
        }
    }

    /// [`Self::push`] for each time with its value: neighbours mostly share a bin, which is then looked up once.
    pub fn push_all(&mut self, at_ns: &[u64], values: &[f64]) {
        let (mut bin, mut index) = (0..0, 0);
        for (&at_ns, &value) in at_ns.iter().zip(values) {
            if !value.is_finite() {
                continue;
            }
            if !bin.contains(&at_ns) {
                // Bins are merged in here only, so that the index holds until the next call.
                index = self.index(at_ns);
                let start_ns = index as u64 * self.bin_ns;
                bin = start_ns..start_ns.saturating_add(self.bin_ns);
            }
            self.add(index, value);
        }
    }

    fn add(&mut self, index: usize, value: f64) {
        if let Bins::Flat(held, counts) = &mut self.bins {
            let held = held.get_or_insert(value);
            let count = counts[index].checked_add(1);
            match count.filter(|_| held.to_bits() == value.to_bits()) {
                Some(count) => {
                    counts[index] = count;
                    return;
                }
                None => self.bins = Bins::Varied(varied(Some(*held), counts)),
            }
        }
        if let Bins::Varied(bins) = &mut self.bins {
            bins[index].add(value);
        }
    }

    fn index(&mut self, at_ns: u64) -> usize {
        while at_ns / self.bin_ns >= BINS as u64 {
            match &mut self.bins {
                Bins::Flat(value, counts) => {
                    let sum = |pair: &[u32]| pair.iter().try_fold(0_u32, |a, b| a.checked_add(*b));
                    match counts.chunks(2).map(sum).collect() {
                        Some(merged) => *counts = merged,
                        None => self.bins = Bins::Varied(merged(&varied(*value, counts))),
                    }
                }
                Bins::Varied(bins) => *bins = merged(bins),
            }
            self.bin_ns = self.bin_ns.saturating_mul(2);
        }
        let index = (at_ns / self.bin_ns) as usize;
        match &mut self.bins {
            Bins::Flat(_, counts) if index >= counts.len() => counts.resize(index + 1, 0),
            Bins::Varied(bins) if index >= bins.len() => bins.resize(index + 1, Bin::default()),
            _ => {}
        }
        index
    }
}

/// Neighbours joined.
fn merged(bins: &[Bin]) -> Vec<Bin> {
    let join = |pair: &[Bin]| {
        pair.iter().fold(Bin::default(), |mut acc, bin| {
            acc.merge(bin);
            acc
        })
    };
    bins.chunks(2).map(join).collect()
}

/// Bins of samples that all have one value.
fn varied(value: Option<f64>, counts: &[u32]) -> Vec<Bin> {
    let bin = |count: &u32| match (value, *count) {
        (None, _) | (_, 0) => Bin::default(),
        (Some(value), count) => Bin {
            min: value,
            max: value,
            sum: value * f64::from(count),
            count: u64::from(count),
        },
    };
    counts.iter().map(bin).collect()
}

/// Work over the whole run: spans of time with an amount each, read back as a rate.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkTrace {
    bin_ns: u64,
    amounts: Vec<f64>,
}

impl WorkTrace {
    pub fn new(bin_ns: u64) -> Self {
        Self {
            bin_ns: bin_ns.max(1),
            amounts: Vec::new(),
        }
    }

    pub fn bin_ns(&self) -> u64 {
        self.bin_ns
    }

    /// Amount per second in each bin; bins without work are zero, for silence is no hole.
    pub fn rates(&self) -> impl Iterator<Item = f64> + '_ {
        let per_second = 1e9 / self.bin_ns as f64;
        self.amounts.iter().map(move |a| a * per_second)
    }

    /// Spreads `amount` evenly over the span.
    pub fn push(&mut self, start_ns: u64, end_ns: u64, amount: f64) {
        if !amount.is_finite() || end_ns < start_ns {
            return;
        }
        while end_ns / self.bin_ns >= BINS as u64 {
            self.amounts = self
                .amounts
                .chunks(2)
                .map(|pair| pair.iter().sum())
                .collect();
            self.bin_ns = self.bin_ns.saturating_mul(2);
        }
        let (first, last) = (start_ns / self.bin_ns, end_ns / self.bin_ns);
        if self.amounts.len() <= last as usize {
            self.amounts.resize(last as usize + 1, 0.0);
        }
        let length = (end_ns - start_ns).max(1) as f64;
        for bin in first..=last {
            let from = start_ns.max(bin * self.bin_ns);
            let to = end_ns.min((bin + 1) * self.bin_ns);
            let share = if end_ns == start_ns {
                1.0
            } else {
                (to - from) as f64 / length
            };
            self.amounts[bin as usize] += amount * share;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_days_fit_and_no_sample_is_lost() {
        let mut trace = Trace::new(100_000_000);
        let step = 1_000_000_000_u64;
        for i in 0..72 * 3600 {
            trace.push(i * step, (i % 100) as f64);
        }
        assert!(trace.bins().len() <= BINS);
        assert_eq!(trace.bins().iter().map(|b| b.count).sum::<u64>(), 72 * 3600);
    }

    #[test]
    fn many_samples_at_once_leave_the_trace_that_they_leave_one_by_one() {
        let mut chance = crate::stats::bootstrap::SplitMix64::new(5);
        // Neighbours in one bin, leaps that merge bins, the last instant there is, steps back and holes.
        let mut at_ns: Vec<u64> = (0..20_000).map(|i| i * 7 + chance.below(300)).collect();
        at_ns.extend((0..2_000).map(|_| chance.below(1 << 40)));
        at_ns.extend([u64::MAX, 3, u64::MAX - 1]);
        let hole = |i: usize| i % 50 == 7;
        let value = |i| if hole(i) { f64::NAN } else { chance.unit() };
        let values: Vec<f64> = (0..at_ns.len()).map(value).collect();
        let (mut one_by_one, mut at_once) = (Trace::new(10), Trace::new(10));
        for (at, values) in at_ns.chunks(777).zip(values.chunks(777)) {
            for (at, value) in at.iter().zip(values) {
                one_by_one.push(*at, *value);
            }
            at_once.push_all(at, values);
            assert_eq!(at_once, one_by_one);
        }
        let count: u64 = at_once.bins().iter().map(|b| b.count).sum();
        assert_eq!(
            count as usize,
            (0..values.len()).filter(|i| !hole(*i)).count()
        );
    }

    #[test]
    fn what_never_changes_is_kept_small_and_told_like_everything_else() {
        let (mut flat, mut varied) = (Trace::new(10), Trace::new(10));
        for at in (0..100_000_u64).filter(|at| at / 5_000 % 3 != 1) {
            flat.push(at, 2.0);
            varied.push(at, 2.0);
        }
        varied.push(94_999, 1.0);
        assert!(matches!(flat.bins, Bins::Flat(..)) && matches!(varied.bins, Bins::Varied(_)));
        let (flat, varied) = (flat.bins(), varied.bins());
        let last = flat.len() - 1;
        assert_eq!(flat[..last], varied[..last]);
        assert_eq!(
            (flat[last].min, flat[last].count + 1),
            (2.0, varied[last].count)
        );
        assert!(flat.iter().any(|b| b.mean().is_none()));
    }

    #[test]
    fn a_hole_stays_a_hole() {
        let mut trace = Trace::new(10);
        trace.push(5, 1.0);
        trace.push(35, f64::NAN);
        trace.push(45, 2.0);
        let means: Vec<_> = trace.bins().iter().map(Bin::mean).collect();
        assert_eq!(means, [Some(1.0), None, None, None, Some(2.0)]);
    }

    #[test]
    fn work_is_conserved_when_bins_merge() {
        let mut trace = WorkTrace::new(1_000);
        for i in 0..10_000_u64 {
            trace.push(i * 1_500, i * 1_500 + 1_500, 3.0);
        }
        let total: f64 = trace.rates().sum::<f64>() * trace.bin_ns() as f64 / 1e9;
        assert!((total - 30_000.0).abs() < 1e-6, "{total}");
    }
}
