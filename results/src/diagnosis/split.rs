//! One course in time, summed up in blocks, and the step that parts it best into two levels.
//!
//! Refuses a course of which most is missing, and a step with too few blocks on either side.

use crate::stats::outlier::{SIGMA_PER_MAD, mad, median};
use std::ops::Range;

/// Blocks that a course is summed up in.
pub const BLOCKS: usize = 64;
/// The same where rare values count: fewer, so that each holds some.
const BLOCKS_RARE: usize = 24;
/// Fewest blocks in which a step is looked for, and on either side of it; of rare values both sides show their noise.
const BLOCKS_MIN: usize = 8;
const SIDE_MIN: usize = 2;
const SIDE_MIN_RARE: usize = 4;
/// A step stands out by so many standard deviations of a block.
const STEP_SIGMAS: f64 = 2.5;

/// A block: its first column and its value.
pub type Block = (usize, f64);

/// Blocks of a course within one phase.
pub fn blocks(row: &[f64], phase: &Range<usize>, rare: bool) -> Vec<Block> {
    let all = row.iter().copied().enumerate();
    let own = all.skip(phase.start).take(phase.len());
    let there: Vec<Block> = own.filter(|(_, v)| v.is_finite()).collect();
    if there.len() * 2 < phase.len() {
        return Vec::new();
    }
    let most = if rare { BLOCKS_RARE } else { BLOCKS };
    let size = there.len().div_ceil(most).max(1);
    let value = |part: &[Block]| {
        let values: Vec<f64> = part.iter().map(|(_, v)| *v).collect();
        level(&values, rare)
    };
    let whole = there.chunks(size);
    whole
        .filter_map(|part| Some((part.first()?.0, value(part)?)))
        .collect()
}

/// Where values lie: their median, or their mean where what comes seldom is looked for. `None` without any.
pub fn level(values: &[f64], rare: bool) -> Option<f64> {
    if rare {
        return (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    }
    median(values)
}

/// Two levels and where they part.
pub struct Split {
    /// Column of the first block after the step.
    pub column: usize,
    pub before: f64,
    pub after: f64,
    /// Their distance in standard errors.
    pub z: f64,
}

/// The split of a course into two levels that stand furthest apart.
///
/// By the likelihood ratio over all splits, with the noise read from neighbours' differences, which a step does not
/// widen, and not below what is left on both sides, which slow noise does widen. Sources: Hawkins, “Testing a
/// Sequence of Observations for a Shift in Location”, JASA 72 (1977); differences: von Neumann 1941.
///
/// `rare`: the levels are means of what comes seldom, so that each side has a noise of its own (Welch 1947).
pub fn split(blocks: &[Block], rare: bool) -> Option<Split> {
    let n = blocks.len();
    let side_min = if rare { SIDE_MIN_RARE } else { SIDE_MIN };
    if n < BLOCKS_MIN {
        return None;
    }
    let total: f64 = blocks.iter().map(|b| b.1).sum();
    let (mut sum, mut best) = (0.0, (0, 0.0_f64));
    for (index, block) in blocks.iter().enumerate().take(n - side_min) {
        sum += block.1;
        let k = index + 1;
        if k < side_min {
            continue;
        }
        let (a, b) = (k as f64, (n - k) as f64);
        let score = ((total - sum) / b - sum / a).abs() / (1.0 / a + 1.0 / b).sqrt();
        if score > best.1 {
            best = (k, score);
        }
    }
    let (at, _) = best;
    if at == 0 {
        return None;
    }
    if rare {
        return Some(split_rare(blocks, at));
    }
    let side = |part: &[Block]| median(&part.iter().map(|b| b.1).collect::<Vec<_>>());
    let (before, after) = (side(&blocks[..at])?, side(&blocks[at..])?);
    let left = |(i, b): (usize, &Block)| b.1 - if i < at { before } else { after };
    let left: Vec<f64> = blocks.iter().enumerate().map(left).collect();
    let steps: Vec<f64> = left.windows(2).map(|w| w[1] - w[0]).collect();
    let near = SIGMA_PER_MAD * mad(&steps)? / std::f64::consts::SQRT_2;
    let wide = SIGMA_PER_MAD * median(&left.iter().map(|v| v.abs()).collect::<Vec<_>>())?;
    let sigma = near.max(wide);
    let (a, b) = (at as f64, (n - at) as f64);
    let size = (after - before).abs();
    let z = if size < STEP_SIGMAS * sigma {
        0.0
    } else {
        size / (sigma * (1.0 / a + 1.0 / b).sqrt()).max(f64::MIN_POSITIVE)
    };
    Some(Split {
        column: blocks[at].0,
        before,
        after,
        z: z.min(1e6),
    })
}

/// The split at a block, between means.
fn split_rare(blocks: &[Block], at: usize) -> Split {
    let moments = |part: &[Block]| {
        let count = part.len() as f64;
        let mean = part.iter().map(|b| b.1).sum::<f64>() / count;
        let squares: f64 = part.iter().map(|b| (b.1 - mean).powi(2)).sum();
        (mean, squares / (count - 1.0) / count)
    };
    let ((before, own), (after, other)) = (moments(&blocks[..at]), moments(&blocks[at..]));
    let error = (own + other).sqrt().max(f64::MIN_POSITIVE);
    Split {
        column: blocks[at].0,
        before,
        after,
        z: ((after - before).abs() / error).min(1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::bootstrap::SplitMix64;

    /// Columns of nothing, with a delay now and then from `at` on.
    fn delays(at: usize, share: f64, seed: u64) -> Vec<f64> {
        let mut chance = SplitMix64::new(seed);
        let one = |column| f64::from(u8::from(column >= at && chance.unit() < share));
        (0..300).map(one).collect()
    }

    #[test]
    fn what_comes_seldom_from_one_time_on_is_a_step_and_what_always_came_is_none() {
        let whole = 0..300;
        let found = |row: &[f64]| split(&blocks(row, &whole, true), true).map_or(0.0, |s| s.z);
        for seed in 0..50 {
            let z = found(&delays(80, 0.4, seed));
            assert!(z > 5.0, "seed {seed}: {z}");
            let z = found(&delays(0, 0.4, seed));
            assert!(z < 5.0, "seed {seed}: {z}");
            let mut lone = delays(300, 0.0, seed);
            lone[(50 + 4 * seed) as usize] = 100.0;
            assert!(found(&lone) < 5.0, "one delay is no step");
        }
    }
}
