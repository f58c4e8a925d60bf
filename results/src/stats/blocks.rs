//! Spreads work spans over fixed blocks of time, so that a rate includes every stall.
//!
//! Work of a span is spread evenly over it: a block holds the part done inside. A block in which
//! nothing was done counts as 0, so a silent device shows as silent. Refuses a span that ends before it
//! starts, an amount that is negative or not finite, and time beyond [`BLOCKS_MAX`] blocks.

/// Most blocks held: 0.8 MB; eleven days of 10 s blocks.
pub const BLOCKS_MAX: u64 = 100_000;

/// Why work could not be entered or read.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum BlocksError {
    /// Blocks without length.
    #[error("a block of 0 ns holds no time; give a length, e.g. 10 s")]
    ZeroLength,
    /// A span or window that ends before it starts.
    #[error("time from {start_ns} ns to {end_ns} ns runs backwards; give the earlier one first")]
    Backwards {
        /// Where it starts.
        start_ns: u64,
        /// Where it ends.
        end_ns: u64,
    },
    /// Work that is no amount.
    #[error("{amount} is no amount of work; give a finite one, zero or more")]
    Amount {
        /// What was given.
        amount: f64,
    },
    /// Time too far from the origin for the bound on memory.
    #[error("{end_ns} ns lies beyond block {known} of {block_ns} ns; use longer blocks", known = BLOCKS_MAX)]
    TooMany {
        /// The time asked for.
        end_ns: u64,
        /// Length of a block.
        block_ns: u64,
    },
}

/// Amounts of work per block of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocks {
    block_ns: u64,
    origin_ns: u64,
    /// Work in each block from the origin on; what lies past the end is 0.
    amounts: Vec<f64>,
    before_origin: f64,
}

impl Blocks {
    /// Blocks of `block_ns`, the first of which starts at `origin_ns`.
    ///
    /// # Errors
    /// [`BlocksError::ZeroLength`].
    pub fn new(block_ns: u64, origin_ns: u64) -> Result<Self, BlocksError> {
        if block_ns == 0 {
            return Err(BlocksError::ZeroLength);
        }
        Ok(Blocks {
            block_ns,
            origin_ns,
            amounts: Vec::new(),
            before_origin: 0.0,
        })
    }

    /// Enters `amount` of work done evenly from `start_ns` to `end_ns`; in one instant where they are
    /// equal. Work before the origin is kept apart ([`Blocks::before_origin`]).
    ///
    /// # Errors
    /// [`BlocksError::Backwards`], [`BlocksError::Amount`], [`BlocksError::TooMany`]; nothing is entered
    /// then.
    pub fn add_span(&mut self, start_ns: u64, end_ns: u64, amount: f64) -> Result<(), BlocksError> {
        if end_ns < start_ns {
            return Err(BlocksError::Backwards { start_ns, end_ns });
        }
        if !(amount.is_finite() && amount >= 0.0) {
            return Err(BlocksError::Amount { amount });
        }
        if end_ns < self.origin_ns || (end_ns == self.origin_ns && start_ns < end_ns) {
            self.before_origin += amount;
            return Ok(());
        }
        let from = start_ns.max(self.origin_ns) - self.origin_ns;
        let to = end_ns - self.origin_ns;
        let first = from / self.block_ns;
        // A span that ends on an edge does nothing in the block that starts there.
        let last = if to > from {
            (to - 1) / self.block_ns
        } else {
            first
        };
        if last >= BLOCKS_MAX {
            return Err(BlocksError::TooMany {
                end_ns,
                block_ns: self.block_ns,
            });
        }
        let (first, last) = (first as usize, last as usize);
        if self.amounts.len() <= last {
            self.amounts.resize(last + 1, 0.0);
        }
        let length = (end_ns - start_ns) as f64;
        if first == last && start_ns >= self.origin_ns {
            // One block takes all of it, exactly.
            self.amounts[first] += amount;
            return Ok(());
        }
        self.before_origin += amount * (self.origin_ns.saturating_sub(start_ns) as f64 / length);
        for (index, held) in self.amounts[first..=last].iter_mut().enumerate() {
            let block = (first + index) as u64;
            let (block_start, block_end) = (block * self.block_ns, (block + 1) * self.block_ns);
            let inside = to.min(block_end) - from.max(block_start);
            *held += amount * (inside as f64 / length);
        }
        Ok(())
    }

    /// Rates, in amount per second, of the blocks that lie wholly inside `window_start_ns` to
    /// `window_end_ns`, in time order.
    ///
    /// # Errors
    /// [`BlocksError::Backwards`]; [`BlocksError::TooMany`] where the window reaches further than blocks
    /// can be held.
    pub fn rates(&self, window_start_ns: u64, window_end_ns: u64) -> Result<Vec<f64>, BlocksError> {
        if window_end_ns < window_start_ns {
            return Err(BlocksError::Backwards {
                start_ns: window_start_ns,
                end_ns: window_end_ns,
            });
        }
        let from = window_start_ns
            .saturating_sub(self.origin_ns)
            .div_ceil(self.block_ns);
        let to = window_end_ns.saturating_sub(self.origin_ns) / self.block_ns;
        if to > BLOCKS_MAX {
            return Err(BlocksError::TooMany {
                end_ns: window_end_ns,
                block_ns: self.block_ns,
            });
        }
        let seconds = self.block_ns as f64 / 1e9;
        let rate = |block: u64| {
            self.amounts
                .get(block as usize)
                .map_or(0.0, |amount| amount / seconds)
        };
        Ok((from..to).map(rate).collect())
    }

    /// Where the first block of [`Blocks::rates`] for a window starting there begins, in ns.
    pub fn first_whole_ns(&self, window_start_ns: u64) -> u64 {
        let past = window_start_ns.saturating_sub(self.origin_ns);
        let block = past.div_ceil(self.block_ns);
        self.origin_ns
            .saturating_add(block.saturating_mul(self.block_ns))
    }

    /// Length of a block, in ns.
    pub fn block_ns(&self) -> u64 {
        self.block_ns
    }

    /// All work in blocks, in the amounts' unit.
    pub fn total(&self) -> f64 {
        self.amounts.iter().sum()
    }

    /// Work done before the origin, in the amounts' unit: not in any block, and not lost.
    pub fn before_origin(&self) -> f64 {
        self.before_origin
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCKS_MAX, Blocks, BlocksError};
    use crate::stats::bootstrap::SplitMix64;

    const SECOND: u64 = 1_000_000_000;

    fn near(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len(), "{got:?} {expected:?}");
        for (a, b) in got.iter().zip(expected) {
            assert!(
                (a - b).abs() <= 1e-9 * (1.0 + b.abs()),
                "{got:?} {expected:?}"
            );
        }
    }

    #[test]
    fn a_stall_and_a_silent_device_show_as_zero() {
        let mut blocks = Blocks::new(10 * SECOND, 0).unwrap();
        blocks.add_span(0, 10 * SECOND, 100.0).unwrap();
        blocks.add_span(35 * SECOND, 40 * SECOND, 100.0).unwrap();
        near(
            &blocks.rates(0, 65 * SECOND).unwrap(),
            &[10.0, 0.0, 0.0, 10.0, 0.0, 0.0],
        );
        let silent = Blocks::new(SECOND, 5).unwrap();
        near(&silent.rates(5, 3 * SECOND + 5).unwrap(), &[0.0; 3]);
    }

    #[test]
    fn only_whole_blocks_inside_the_window_count() {
        let mut blocks = Blocks::new(10, 100).unwrap();
        blocks.add_span(100, 200, 100.0).unwrap();
        assert_eq!(blocks.rates(101, 130).unwrap().len(), 2);
        assert_eq!(blocks.first_whole_ns(101), 110);
        assert_eq!(blocks.rates(100, 129).unwrap().len(), 2);
        assert_eq!(blocks.rates(101, 119).unwrap().len(), 0);
        assert_eq!(blocks.rates(0, 120).unwrap().len(), 2);
        assert_eq!(blocks.rates(0, 50).unwrap().len(), 0);
    }

    #[test]
    fn a_span_on_the_edge_belongs_to_the_block_it_ran_in() {
        let mut blocks = Blocks::new(10, 0).unwrap();
        blocks.add_span(0, 10, 1.0).unwrap();
        near(&blocks.rates(0, 20).unwrap(), &[1e8, 0.0]);
        // An instant on the edge belongs to the block that starts there.
        blocks.add_span(10, 10, 1.0).unwrap();
        near(&blocks.rates(0, 20).unwrap(), &[1e8, 1e8]);
    }

    #[test]
    fn every_block_holds_what_a_nanosecond_by_nanosecond_count_gives() {
        let seed = 61;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        for _ in 0..200 {
            let (block_ns, origin_ns) = (1 + chance.below(13), chance.below(40));
            let mut blocks = Blocks::new(block_ns, origin_ns).unwrap();
            let mut per_ns = vec![0.0; 200];
            let mut entered = 0.0;
            for _ in 0..12 {
                let start = chance.below(150);
                let end = start + chance.below(50);
                let amount = chance.unit() * 100.0;
                blocks.add_span(start, end, amount).unwrap();
                entered += amount;
                if start == end {
                    per_ns[start as usize] += amount;
                }
                for ns in start..end {
                    per_ns[ns as usize] += amount / (end - start) as f64;
                }
            }
            assert!((blocks.total() + blocks.before_origin() - entered).abs() < 1e-9 * entered);
            let window = (chance.below(100), 100 + chance.below(100));
            let expected: Vec<f64> = (0..)
                .map(|block| origin_ns + block * block_ns)
                .take_while(|start| start + block_ns <= window.1)
                .filter(|start| *start >= window.0)
                .map(|start| {
                    let held: f64 = per_ns[start as usize..(start + block_ns) as usize]
                        .iter()
                        .sum();
                    held / (block_ns as f64 / 1e9)
                })
                .collect();
            near(&blocks.rates(window.0, window.1).unwrap(), &expected);
        }
    }

    #[test]
    fn bad_input_is_refused_and_changes_nothing() {
        assert_eq!(Blocks::new(0, 0), Err(BlocksError::ZeroLength));
        let mut blocks = Blocks::new(10, 0).unwrap();
        blocks.add_span(0, 10, 1.0).unwrap();
        let before = blocks.clone();
        let edge = 10 * BLOCKS_MAX;
        assert!(matches!(
            blocks.add_span(9, 8, 1.0),
            Err(BlocksError::Backwards { .. })
        ));
        assert!(matches!(
            blocks.add_span(0, 5, f64::NAN),
            Err(BlocksError::Amount { .. })
        ));
        assert!(matches!(
            blocks.add_span(0, 5, -1.0),
            Err(BlocksError::Amount { .. })
        ));
        assert!(matches!(
            blocks.add_span(0, edge + 1, 1.0),
            Err(BlocksError::TooMany { .. })
        ));
        assert!(matches!(
            blocks.add_span(u64::MAX, u64::MAX, 1.0),
            Err(BlocksError::TooMany { .. })
        ));
        assert!(matches!(
            blocks.rates(0, u64::MAX),
            Err(BlocksError::TooMany { .. })
        ));
        assert!(matches!(
            blocks.rates(5, 4),
            Err(BlocksError::Backwards { .. })
        ));
        assert_eq!(blocks, before);
        blocks.add_span(0, edge, 1.0).unwrap();
        assert_eq!(blocks.rates(0, edge).unwrap().len() as u64, BLOCKS_MAX);
    }
}
