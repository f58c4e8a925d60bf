//! Counts of whole numbers by size, in buckets no wider than 1/1024 of what they hold, and only those that hold anything.
//!
//! The buckets are those of an HdrHistogram of three digits: 2,048 of width 1, then 1,024 for each doubling. Such a
//! histogram is an array that reaches from zero to the largest size; a step of a second, counted in nanoseconds, takes
//! 170 kB of it for a handful of buckets. A hall has millions of such quantities, so here only pages of 16 neighbouring
//! buckets exist that were ever counted in: 136 bytes each, and few, because what is measured stays near what it was.
//!
//! Source of the buckets: Tene, *HdrHistogram*.

/// Buckets of width 1, and twice those of each doubling after them.
const FINE: u64 = 2_048;
/// Neighbouring buckets that are counted in one page.
const PAGE: usize = 16;

/// Pages whose places are remembered: a reading goes to and fro between a few sizes.
const RECENT: usize = 8;
/// Sizes whose buckets are found together.
const AT_ONCE: usize = 64;
/// Sizes below this are rounded and put into buckets as floats.
pub const FLOAT_MAX: f64 = (1_u64 << 51) as f64;
/// What lies behind the point of a float falls away where this is added.
const WHOLE: f64 = (1_u64 << 52) as f64;

/// Sizes counted.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    /// Ascending.
    pages: Vec<Page>,
    /// Where the pages are that were counted in last, by their numbers' last digit; it may have moved since.
    recent: [u32; RECENT],
    len: u64,
}

#[derive(Debug, Clone)]
struct Page {
    /// Number of its first bucket, over [`PAGE`].
    number: u32,
    counts: [u64; PAGE],
}

/// Number of the bucket that holds `size`.
fn bucket(size: u64) -> u64 {
    let doublings = u64::from((size / (FINE / 2)).max(1).ilog2());
    doublings * (FINE / 2) + (size >> doublings)
}

/// Number of the bucket that holds `size`, zero or more and below [`FLOAT_MAX`], rounded half up.
fn bucket_near(size: f64) -> u32 {
    let even = (size + WHOLE) - WHOLE;
    let near = if size - even >= 0.5 { even + 1.0 } else { even };
    // From 1,024 on, a bucket is a float's exponent and the first ten digits behind it.
    let large = (near.to_bits() >> 42) as u32;
    let small = (near + WHOLE).to_bits() as u32;
    if near >= 1_024.0 {
        large.wrapping_sub((1_023 + 9) << 10)
    } else {
        small
    }
}

/// First and last size of a bucket.
fn sizes(bucket: u64) -> (u64, u64) {
    let doublings = (bucket / (FINE / 2)).saturating_sub(1);
    let first = (bucket - doublings * (FINE / 2)) << doublings;
    (first, first + ((1 << doublings) - 1))
}

/// The smallest size in the bucket that holds `size`.
pub fn lowest(size: u64) -> u64 {
    sizes(bucket(size)).0
}

/// The largest size in the bucket that holds `size`.
pub fn highest(size: u64) -> u64 {
    sizes(bucket(size)).1
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, size: u64) {
        self.count(bucket(size), 1);
    }

    /// Counts one size so many times.
    pub fn record_times(&mut self, size: u64, times: u64) {
        self.count(bucket(size), times);
    }

    /// Counts each value in steps of `resolution`, rounded half up; all are zero or more and below [`FLOAT_MAX`] steps.
    pub fn record_all(&mut self, values: &[f64], resolution: f64) {
        let mut buckets = [0; AT_ONCE];
        for values in values.chunks(AT_ONCE) {
            for (bucket, value) in buckets.iter_mut().zip(values) {
                *bucket = bucket_near(value / resolution);
            }
            for bucket in &buckets[..values.len()] {
                self.count(u64::from(*bucket), 1);
            }
        }
    }

    fn count(&mut self, bucket: u64, times: u64) {
        let number = (bucket / PAGE as u64) as u32;
        let recent = &mut self.recent[number as usize % RECENT];
        if self.pages.get(*recent as usize).map(|p| p.number) != Some(number) {
            let found = self.pages.binary_search_by_key(&number, |p| p.number);
            let at = found.unwrap_or_else(|at| {
                let counts = [0; PAGE];
                self.pages.insert(at, Page { number, counts });
                at
            });
            *recent = at as u32;
        }
        let page = &mut self.pages[*recent as usize];
        let held = &mut page.counts[(bucket % PAGE as u64) as usize];
        *held = held.saturating_add(times);
        self.len = self.len.saturating_add(times);
    }

    /// Counts everything of the other.
    pub fn add(&mut self, other: &Self) {
        for (bucket, times) in other.buckets() {
            self.count(bucket, times);
        }
    }

    /// Sizes counted.
    pub fn len(&self) -> u64 {
        self.len
    }

    fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.pages.iter().flat_map(|page| {
            let first = u64::from(page.number) * PAGE as u64;
            let all = (first..).zip(page.counts);
            all.filter(|(_, count)| *count > 0)
        })
    }

    /// The largest size of each bucket that holds any, ascending, and how many it holds.
    pub fn filled(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets()
            .map(|(bucket, count)| (sizes(bucket).1, count))
    }

    /// How many are no larger than the bucket of `size` reaches.
    pub fn count_to(&self, size: u64) -> u64 {
        let last = bucket(size);
        let within = self.buckets().take_while(|(bucket, _)| *bucket <= last);
        within.map(|(_, count)| count).sum()
    }

    /// A size of the bucket that holds the one of this rank, 1 being the smallest; 0 where there are none so many.
    pub fn at_rank(&self, rank: u64) -> u64 {
        let mut passed = 0;
        let mut found = self.filled().skip_while(|(_, count)| {
            passed += count;
            passed < rank
        });
        found.next().map_or(0, |(size, _)| size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::bootstrap::SplitMix64;

    #[test]
    fn buckets_follow_each_other_without_gap_and_none_is_wider_than_a_thousandth() {
        let mut next = 0;
        for bucket in 0..40_000 {
            let (first, last) = sizes(bucket);
            assert_eq!(first, next, "bucket {bucket}");
            assert!(last - first < 1.max(first / 1_024 + 1), "bucket {bucket}");
            assert_eq!(
                (super::bucket(first), super::bucket(last)),
                (bucket, bucket)
            );
            next = last + 1;
        }
        let most = 1 << 62;
        assert!(lowest(most) <= most && highest(most) >= most);
    }

    #[test]
    fn a_float_is_put_where_the_whole_number_next_to_it_is() {
        let mut chance = SplitMix64::new(7);
        let whole = |size: f64| size.round() as u64;
        let ends = [
            0.0, 0.5, 1.5, 2.5, 1_023.5, 1_024.0, 2_047.5, 2_048.5, 4_096.5,
        ];
        let drawn =
            (0..200_000).map(|_| FLOAT_MAX * chance.unit() / 2_f64.powi(chance.below(51) as i32));
        for size in drawn
            .collect::<Vec<_>>()
            .into_iter()
            .chain(ends)
            .chain([FLOAT_MAX - 0.5])
        {
            for size in [size, size.round(), size.floor() + 0.5] {
                assert_eq!(u64::from(bucket_near(size)), bucket(whole(size)), "{size}");
            }
        }
    }

    #[test]
    fn it_counts_as_an_hdr_histogram_of_three_digits_does() {
        for seed in 0..30 {
            println!("seed {seed}");
            let mut chance = SplitMix64::new(seed);
            let (mut ours, mut theirs) = (
                Histogram::default(),
                hdrhistogram::Histogram::<u64>::new(3).unwrap(),
            );
            let width = 1 + chance.below(62) as u32;
            let sizes: Vec<u64> = (0..2_000).map(|_| chance.bits() >> (64 - width)).collect();
            for size in &sizes {
                ours.record(*size);
                theirs.record(*size).unwrap();
            }
            let filled: Vec<_> = ours.filled().collect();
            let recorded = theirs.iter_recorded();
            let recorded = recorded.map(|s| (s.value_iterated_to(), s.count_at_value()));
            assert_eq!(filled, recorded.collect::<Vec<_>>());
            for rank in [1, 2, 500, 1_000, 1_999, 2_000] {
                let share = (rank as f64 - 0.5) / 2_000.0;
                let (ours, theirs) = (ours.at_rank(rank), theirs.value_at_quantile(share));
                assert_eq!(lowest(ours), lowest(theirs), "rank {rank}");
            }
            for size in &sizes[..50] {
                assert_eq!(ours.count_to(*size), theirs.count_between(0, *size));
                assert_eq!(lowest(*size), theirs.lowest_equivalent(*size));
                assert_eq!(highest(*size), theirs.highest_equivalent(*size));
            }
        }
    }

    #[test]
    fn the_sum_of_the_parts_is_the_whole_and_what_was_never_counted_takes_no_room() {
        let mut chance = SplitMix64::new(5);
        let near = |chance: &mut SplitMix64| 1_000_000_000 + chance.below(10_000_000);
        let sizes: Vec<u64> = (0..10_000).map(|_| near(&mut chance)).collect();
        let filled = |sizes: &[u64]| {
            let mut histogram = Histogram::default();
            sizes.iter().for_each(|s| histogram.record(*s));
            histogram
        };
        let whole = filled(&sizes);
        let mut sum = filled(&sizes[..3_000]);
        sum.add(&filled(&sizes[3_000..]));
        assert!(sum.filled().eq(whole.filled()));
        assert_eq!((sum.len(), whole.count_to(u64::MAX >> 1)), (10_000, 10_000));
        assert!(whole.pages.len() <= 2, "{}", whole.pages.len());
        assert_eq!(
            (whole.at_rank(10_001), Histogram::default().at_rank(1)),
            (0, 0)
        );
    }
}
