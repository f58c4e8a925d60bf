//! The course of a quantity over the run in bounded memory, for pictures and the live view.
//!
//! Not judged: judgement uses [`crate::stats`]. When the bins run out, pairs are merged and the
//! bin width doubles, so that a minute and three days both fit.

use crate::stats::finite::Finite;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Bins kept at most of each quantity, in a hall of no more than so many devices; in a larger one fewer, so that what is
/// kept of all of them grows no further.
const BINS: usize = 2048;
const DEVICES: usize = 512;
const BINS_LEAST: usize = 128;

/// Bins kept at most of each quantity in a run of so many devices.
pub fn bins_of(devices: usize) -> usize {
    (BINS * DEVICES / devices.max(DEVICES)).max(BINS_LEAST)
}

/// Smallest, largest and mean value of a stretch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    pub min: f64,
    pub max: f64,
    pub sum: f64,
    pub count: u64,
}

impl Bin {
    fn add(&mut self, values: &[f64]) {
        let (Some(&first), count) = (values.first(), self.count) else {
            return;
        };
        let mut own = if count == 0 {
            (first, first, 0.0)
        } else {
            (self.min, self.max, self.sum)
        };
        for &value in values {
            own.0 = if value < own.0 { value } else { own.0 };
            own.1 = if value > own.1 { value } else { own.1 };
            own.2 += value;
        }
        (self.min, self.max, self.sum) = own;
        self.count = count + values.len() as u64;
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
#[derive(Clone, Debug)]
pub struct Trace {
    bin_ns: u64,
    most: usize,
    bins: Bins,
}

/// Half of what a hall's sensors tell never changes: a limit, counters of faults that do not happen. And at first bins are
/// narrower than the time between two samples.
#[derive(Clone, Debug)]
enum Bins {
    /// All samples so far had this value, so many of them in each bin.
    Flat(Option<f64>, Vec<u32>),
    /// No bin has more than one sample; one without has NaN.
    Sparse(Vec<f64>),
    Varied(Vec<Bin>),
}

impl Bins {
    /// Bins in which a sample came to one that is there, or another value than all so far.
    fn widened(&self) -> Self {
        match self {
            Self::Flat(value, counts) if counts.iter().all(|count| *count <= 1) => {
                let held = |count: &u32| value.filter(|_| *count > 0).unwrap_or(f64::NAN);
                Self::Sparse(counts.iter().map(held).collect())
            }
            other => Self::Varied(other.told().into_owned()),
        }
    }

    fn told(&self) -> Cow<'_, [Bin]> {
        let many = |value, count| match count {
            0 => Bin::default(),
            _ => Bin {
                min: value,
                max: value,
                // From 0.0, like any other sum.
                sum: 0.0 + value * f64::from(count),
                count: u64::from(count),
            },
        };
        match self {
            // Nothing was sampled yet.
            Self::Flat(None, counts) => Cow::Owned(vec![Bin::default(); counts.len()]),
            Self::Flat(Some(value), counts) => {
                Cow::Owned(counts.iter().map(|count| many(*value, *count)).collect())
            }
            Self::Sparse(values) => {
                let one = |value: &f64| many(*value, u32::from(!value.is_nan()));
                Cow::Owned(values.iter().map(one).collect())
            }
            Self::Varied(bins) => Cow::Borrowed(bins),
        }
    }

    /// Neighbours joined.
    fn merged(&self) -> Self {
        let joined: Option<Self> = match self {
            Self::Flat(value, counts) => {
                let sum = |pair: &[u32]| pair.iter().try_fold(0_u32, |a, b| a.checked_add(*b));
                let counts: Option<Vec<u32>> = counts.chunks(2).map(sum).collect();
                counts.map(|counts| Self::Flat(*value, counts))
            }
            Self::Sparse(values) => {
                let join = |pair: &[f64]| match *pair {
                    [a, b] if a.is_nan() => Some(b),
                    [a, b] if b.is_nan() => Some(a),
                    [a] => Some(a),
                    _ => None,
                };
                let values: Option<Vec<f64>> = values.chunks(2).map(join).collect();
                values.map(Self::Sparse)
            }
            Self::Varied(_) => None,
        };
        joined.unwrap_or_else(|| {
            let join = |pair: &[Bin]| {
                pair.iter().fold(Bin::default(), |mut acc, bin| {
                    acc.merge(bin);
                    acc
                })
            };
            Self::Varied(self.told().chunks(2).map(join).collect())
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::Flat(_, counts) => counts.len(),
            Self::Sparse(values) => values.len(),
            Self::Varied(bins) => bins.len(),
        }
    }

    /// Empty bins behind the last, so that there are so many.
    fn reach(&mut self, length: usize) {
        match self {
            Self::Flat(_, counts) => lengthen(counts, length, 0),
            Self::Sparse(values) => lengthen(values, length, f64::NAN),
            Self::Varied(bins) => lengthen(bins, length, Bin::default()),
        }
    }
}

/// Of what a hall has a hundred thousand of, no more is reserved than is soon needed.
fn lengthen<T: Clone>(bins: &mut Vec<T>, length: usize, empty: T) {
    let more = length.saturating_sub(bins.len());
    if bins.len() + more > bins.capacity() {
        bins.reserve_exact(more.max(bins.len() / 8));
    }
    bins.resize(bins.len() + more, empty);
}

impl Trace {
    /// `bin_ns`: width of the first bins.
    pub fn new(bin_ns: u64) -> Self {
        Self {
            bin_ns: bin_ns.max(1),
            most: BINS,
            bins: Bins::Flat(None, Vec::new()),
        }
    }

    /// The same, of no more than so many bins.
    #[must_use]
    pub const fn at_most(mut self, bins: usize) -> Self {
        self.most = bins;
        self
    }

    pub fn bin_ns(&self) -> u64 {
        self.bin_ns
    }

    pub fn bins(&self) -> Cow<'_, [Bin]> {
        self.bins.told()
    }

    /// Bins up to the last that was sampled.
    pub fn len(&self) -> usize {
        self.bins.len()
    }

    /// Nothing was sampled.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a sample; NaN and infinities are no samples.
    pub fn push(&mut self, at_ns: u64, value: f64) {
        if value.is_finite() {
            let index = self.index(at_ns);
            self.add(index, &[value], None);
        }
    }

    /// [`Self::push`] for each time with its value: neighbours mostly share a bin, which is then looked up once.
    pub fn push_all(&mut self, at_ns: &[u64], finite: &Finite) {
        let (mut at_ns, mut values) = (at_ns, finite.values());
        while let Some((&first_ns, later_ns)) = at_ns.split_first() {
            let index = self.index(first_ns);
            let start_ns = index as u64 * self.bin_ns;
            let bin = start_ns..start_ns.saturating_add(self.bin_ns);
            let run = 1 + later_ns.iter().take_while(|at| bin.contains(at)).count();
            self.add(index, &values[..run], finite.same());
            (at_ns, values) = (&at_ns[run..], &values[run..]);
        }
    }

    /// Samples of one bin; `same`: the value that all of them have, where they have one.
    fn add(&mut self, index: usize, values: &[f64], same: Option<f64>) {
        let mut values = values;
        while let Some(&first) = values.first() {
            match &mut self.bins {
                Bins::Flat(held, counts) => {
                    let held = held.get_or_insert(first);
                    let run = if same.is_some() { values.len() } else { 1 };
                    let count = u32::try_from(run).ok();
                    let count = count.and_then(|c| counts[index].checked_add(c));
                    match count.filter(|_| held.to_bits() == first.to_bits()) {
                        Some(count) => {
                            counts[index] = count;
                            values = &values[run..];
                        }
                        None => self.bins = self.bins.widened(),
                    }
                }
                Bins::Sparse(held) if held[index].is_nan() && values.len() == 1 => {
                    held[index] = first;
                    return;
                }
                Bins::Sparse(_) => self.bins = self.bins.widened(),
                Bins::Varied(bins) => {
                    bins[index].add(values);
                    return;
                }
            }
        }
    }

    fn index(&mut self, at_ns: u64) -> usize {
        while at_ns / self.bin_ns >= self.most as u64 {
            self.bins = self.bins.merged();
            self.bin_ns = self.bin_ns.saturating_mul(2);
        }
        let index = (at_ns / self.bin_ns) as usize;
        self.bins.reach(index + 1);
        index
    }
}

impl PartialEq for Trace {
    fn eq(&self, other: &Self) -> bool {
        (self.bin_ns, self.most) == (other.bin_ns, other.most) && self.bins() == other.bins()
    }
}

/// Work over the whole run: spans of time with an amount each, read back as a rate.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkTrace {
    bin_ns: u64,
    most: usize,
    amounts: Vec<f64>,
}

impl WorkTrace {
    pub fn new(bin_ns: u64) -> Self {
        Self {
            bin_ns: bin_ns.max(1),
            most: BINS,
            amounts: Vec::new(),
        }
    }

    /// The same, of no more than so many bins.
    #[must_use]
    pub const fn at_most(mut self, bins: usize) -> Self {
        self.most = bins;
        self
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
        Self::push_each([self], start_ns, end_ns, [amount]);
    }

    /// Spreads an amount for each of the traces over one span; of traces that were given the same spans, bins are found once.
    pub fn push_each<const N: usize>(
        traces: [&mut Self; N],
        start_ns: u64,
        end_ns: u64,
        amounts: [f64; N],
    ) {
        if amounts.iter().any(|a| !a.is_finite()) || end_ns < start_ns {
            return;
        }
        let mut traces = traces;
        traces.iter_mut().for_each(|t| t.reach(end_ns));
        let Some(bin_ns) = traces.first().map(|t| t.bin_ns) else {
            return;
        };
        let first = start_ns / bin_ns;
        let within = end_ns / bin_ns == first;
        if within && traces.iter().all(|t| t.bin_ns == bin_ns) {
            for (trace, amount) in traces.iter_mut().zip(amounts) {
                trace.amounts[first as usize] += amount;
            }
            return;
        }
        for (trace, amount) in traces.iter_mut().zip(amounts) {
            trace.spread(start_ns, end_ns, amount);
        }
    }

    /// Makes room for a span that ends then.
    fn reach(&mut self, end_ns: u64) {
        while end_ns / self.bin_ns >= self.most as u64 {
            let joined = self.amounts.chunks(2).map(|pair| pair.iter().sum());
            self.amounts = joined.collect();
            self.bin_ns = self.bin_ns.saturating_mul(2);
        }
        let held = (self.amounts.len() as u64).saturating_mul(self.bin_ns);
        if end_ns >= held {
            let length = (end_ns / self.bin_ns) as usize + 1;
            lengthen(&mut self.amounts, length, 0.0);
        }
    }

    fn spread(&mut self, start_ns: u64, end_ns: u64, amount: f64) {
        let (first, last) = (start_ns / self.bin_ns, end_ns / self.bin_ns);
        let length = (end_ns - start_ns).max(1) as f64;
        for bin in first..=last {
            let from = start_ns.max(bin * self.bin_ns);
            let to = end_ns.min((bin + 1).saturating_mul(self.bin_ns));
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
    use crate::stats::finite::runs;

    #[test]
    fn of_a_large_hall_fewer_bins_are_kept_and_every_sample_is_in_one() {
        assert_eq!(
            [1, 1_024, 2_048, 100_000].map(bins_of),
            [2_048, 1_024, 512, 128]
        );
        let (mut trace, mut work) = (Trace::new(10).at_most(128), WorkTrace::new(10).at_most(128));
        for second in 0..10_000_u64 {
            trace.push(second * 10, (second % 7) as f64);
            work.push(second * 10, second * 10 + 10, 1.0);
        }
        let bins = trace.bins();
        assert!(bins.len() <= 128 && work.amounts.len() <= 128);
        assert_eq!(bins.iter().map(|b| b.count).sum::<u64>(), 10_000);
        assert!((work.amounts.iter().sum::<f64>() - 10_000.0).abs() < 1e-6);
    }

    #[test]
    fn the_last_instant_there_is_ends_and_loses_no_work() {
        for start_ns in [0, u64::MAX - 5, u64::MAX] {
            let mut work = WorkTrace::new(10).at_most(128);
            work.push(0, 5, 1.0);
            work.push(start_ns, u64::MAX, 2.0);
            assert!(
                (work.amounts.iter().sum::<f64>() - 3.0).abs() < 1e-6,
                "{start_ns}"
            );
        }
    }

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
            for rows in runs(values) {
                let finite = Finite::of(&values[rows.clone()]).unwrap();
                at_once.push_all(&at[rows], &finite);
            }
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
    fn samples_far_apart_are_kept_small_until_two_share_a_bin() {
        let (mut sparse, mut dense) = (Trace::new(10).at_most(64), Trace::new(10).at_most(64));
        for at in (0..5_120_u64).step_by(80) {
            sparse.push(at, at as f64);
        }
        assert!(matches!(sparse.bins, Bins::Sparse(_)));
        let means: Vec<_> = sparse.bins().iter().filter_map(Bin::mean).collect();
        let told: Vec<f64> = (0..5_120_u64).step_by(80).map(|at| at as f64).collect();
        assert_eq!(means, told);
        for at in (0..10_240_u64).step_by(80) {
            dense.push(at, at as f64);
        }
        assert!(matches!(dense.bins, Bins::Varied(_)));
        let bins = dense.bins();
        assert_eq!((bins.len(), bins[1].count), (64, 2));
        assert_eq!((bins[1].min, bins[1].max), (160.0, 240.0));
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
