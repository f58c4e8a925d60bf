//! Inputs whose total has the same bits in every order of summation, and the digest that compares them.
//!
//! Each input is a whole number below 2¹⁶ in magnitude drawn from a hash of (seed, rank, iteration,
//! index); up to 128 of them stay below 2²⁴, so every partial sum is exact in `f32`. The digest is a
//! pair of position-weighted wrapping sums over the elements' bits: parts may be digested in any
//! order and added, and no change of a single element keeps it. Refuses more ranks than stay exact.

use std::fmt;
use std::ops::Add;

/// Most ranks whose total is certainly exact: 128 · 2¹⁶ = 2²³.
pub const EXACT_RANKS_MAX: usize = 128;

/// Position-weighted sums of a slice's bits. Digests of the parts of a slice add up to the whole's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub [u64; 2]);

impl Add for Digest {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self([
            self.0[0].wrapping_add(other.0[0]),
            self.0[1].wrapping_add(other.0[1]),
        ])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0[0], self.0[1])
    }
}

/// The first element that is not what the inputs add up to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mismatch {
    pub index: usize,
    pub expected: f32,
    pub found: f32,
}

/// More ranks than an exact total allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{ranks} ranks asked for, totals are exact up to {EXACT_RANKS_MAX}; check groups of at most that many"
)]
pub struct TooManyRanks {
    pub ranks: usize,
}

/// Fills `slice` with the input of `rank` for `iteration`.
pub fn fill_exact(slice: &mut [f32], seed: u64, rank: u32, iteration: u64) {
    let keys = [key(seed, rank, iteration)];
    wide(Job::Fill(slice, &keys));
}

/// Digest of `slice`.
pub fn digest(slice: &[f32]) -> Digest {
    digest_at(slice, 0)
}

/// Digest of a part of a slice that starts at index `first` of the whole.
pub fn digest_at(slice: &[f32], first: usize) -> Digest {
    wide(Job::Digest(slice, first))
}

/// Digest of the total of `len` elements over `members`, computed without any of their buffers.
///
/// # Errors
/// [`TooManyRanks`] above [`EXACT_RANKS_MAX`].
pub fn expected_digest(
    seed: u64,
    members: &[u32],
    len: usize,
    iteration: u64,
) -> Result<Digest, TooManyRanks> {
    let keys = keys(seed, members, iteration)?;
    // One page at a time: the expected total needs no buffer of the bucket's size.
    let mut page = [0f32; 1024];
    let mut total = Digest::default();
    for first in (0..len).step_by(page.len()) {
        let part = page.len().min(len - first);
        total = total + wide(Job::Total(&mut page[..part], first, &keys));
    }
    Ok(total)
}

/// The first element of `slice` that differs in any bit from the total over `members`.
///
/// # Errors
/// [`TooManyRanks`] above [`EXACT_RANKS_MAX`].
pub fn first_mismatch(
    slice: &[f32],
    seed: u64,
    members: &[u32],
    iteration: u64,
) -> Result<Option<Mismatch>, TooManyRanks> {
    let keys = keys(seed, members, iteration)?;
    Ok(slice.iter().enumerate().find_map(|(index, &found)| {
        let expected = total_at(&keys, index as u32);
        (expected.to_bits() != found.to_bits()).then_some(Mismatch {
            index,
            expected,
            found,
        })
    }))
}

/// How many elements of `slice` differ in any bit from the total over `members`.
///
/// # Errors
/// [`TooManyRanks`] above [`EXACT_RANKS_MAX`].
pub fn wrong_elements(
    slice: &[f32],
    seed: u64,
    members: &[u32],
    iteration: u64,
) -> Result<u64, TooManyRanks> {
    let keys = keys(seed, members, iteration)?;
    if digest(slice) == expected_digest(seed, members, slice.len(), iteration)? {
        return Ok(0);
    }
    let differs = |(index, found): &(usize, &f32)| {
        total_at(&keys, *index as u32).to_bits() != found.to_bits()
    };
    Ok(slice.iter().enumerate().filter(differs).count() as u64)
}

fn keys(seed: u64, members: &[u32], iteration: u64) -> Result<Vec<u32>, TooManyRanks> {
    if members.len() > EXACT_RANKS_MAX {
        return Err(TooManyRanks {
            ranks: members.len(),
        });
    }
    Ok(members.iter().map(|&r| key(seed, r, iteration)).collect())
}

/// The 32-bit key of (seed, rank, iteration) from which every element is drawn: three rounds of the 64-bit finaliser of splitmix64.
pub fn key(seed: u64, rank: u32, iteration: u64) -> u32 {
    let mut state = seed;
    for word in [u64::from(rank), iteration, 0x9e37_79b9_7f4a_7c15] {
        state = state.wrapping_add(word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
    }
    (state >> 32) as u32
}

/// 32-bit mixing with two multiplications, so that it vectorises; constants of murmur3's finaliser.
#[inline(always)]
fn mix(mut x: u32) -> u32 {
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

/// The whole number in −2¹⁶ … 2¹⁶ − 1 that stands at `index`.
#[inline(always)]
fn value(key: u32, index: u32) -> i32 {
    (mix(index.wrapping_mul(0x9e37_79b1) ^ key) >> 15) as i32 - (1 << 16)
}

#[inline(always)]
fn total_at(keys: &[u32], index: u32) -> f32 {
    keys.iter().map(|&k| value(k, index)).sum::<i32>() as f32
}

#[inline(always)]
fn digest_body(slice: &[f32], first: usize) -> Digest {
    let (mut low, mut high) = (0u64, 0u64);
    for (i, x) in slice.iter().enumerate() {
        let bits = u64::from(x.to_bits());
        let weight = mix((first + i) as u32);
        // Weights are odd and below 2³²: the product of one with a change of one element's bits stays
        // below 2⁶⁴ and is not zero, so a single change always shows.
        low = low.wrapping_add(bits * u64::from(weight | 1));
        high = high.wrapping_add(bits * u64::from((weight.rotate_left(16) ^ 0x5bd1_e995) | 1));
    }
    Digest([low, high])
}

/// The three loops worth compiling for wider vectors than the baseline's.
enum Job<'a> {
    Fill(&'a mut [f32], &'a [u32]),
    Digest(&'a [f32], usize),
    /// Scratch, index of its first element, keys: digest of the total over the keys.
    Total(&'a mut [f32], usize, &'a [u32]),
}

#[inline(always)]
fn body(job: Job<'_>) -> Digest {
    match job {
        Job::Fill(slice, keys) => {
            fill_body(slice, 0, keys);
            Digest::default()
        }
        Job::Digest(slice, first) => digest_body(slice, first),
        Job::Total(scratch, first, keys) => {
            fill_body(scratch, first, keys);
            digest_body(scratch, first)
        }
    }
}

#[inline(always)]
fn fill_body(slice: &mut [f32], first: usize, keys: &[u32]) {
    if let [key] = keys {
        for (i, x) in slice.iter_mut().enumerate() {
            *x = value(*key, (first + i) as u32) as f32;
        }
        return;
    }
    // Key by key, so that each pass vectorises; every partial sum is exact.
    slice.fill(0.0);
    for key in keys {
        for (i, x) in slice.iter_mut().enumerate() {
            *x += value(*key, (first + i) as u32) as f32;
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn wide(job: Job<'_>) -> Digest {
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw")]
    fn avx512(job: Job<'_>) -> Digest {
        body(job)
    }
    #[target_feature(enable = "avx2")]
    fn avx2(job: Job<'_>) -> Digest {
        body(job)
    }
    if is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512f")
    {
        // SAFETY: the four features were just detected on this processor.
        unsafe { avx512(job) }
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was just detected on this processor.
        unsafe { avx2(job) }
    } else {
        body(job)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn wide(job: Job<'_>) -> Digest {
    body(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(members: &[u32], len: usize) -> Vec<f32> {
        let mut total = vec![0f32; len];
        let mut one = vec![0f32; len];
        for &rank in members {
            fill_exact(&mut one, 7, rank, 3);
            total.iter_mut().zip(&one).for_each(|(t, x)| *t += x);
        }
        total
    }

    #[test]
    fn every_order_of_summation_gives_the_expected_bits() {
        for members in [&[0, 1, 2, 3, 4, 5, 6, 7][..], &[7, 3, 0], &[5]] {
            let mut backwards = members.to_vec();
            backwards.reverse();
            for len in [0, 1, 3, 17, 1024, 1025, 5000] {
                let expected = expected_digest(7, members, len, 3).unwrap();
                assert_eq!(digest(&total(members, len)), expected);
                assert_eq!(digest(&total(&backwards, len)), expected);
            }
        }
    }

    #[test]
    fn any_single_flipped_bit_is_caught_and_located() {
        let members = [0, 1, 2];
        let mut data = total(&members, 1031);
        let expected = expected_digest(7, &members, data.len(), 3).unwrap();
        for index in [0, 1, 511, 1030] {
            for bit in 0..32 {
                let right = data[index];
                data[index] = f32::from_bits(right.to_bits() ^ (1 << bit));
                assert_ne!(digest(&data), expected, "element {index} bit {bit}");
                let found = first_mismatch(&data, 7, &members, 3).unwrap().unwrap();
                assert_eq!((found.index, found.expected), (index, right));
                data[index] = right;
            }
        }
        assert_eq!(first_mismatch(&data, 7, &members, 3), Ok(None));
    }

    #[test]
    fn swapped_elements_and_another_rank_seed_or_iteration_are_caught() {
        let expected = expected_digest(7, &[0, 1], 1000, 3).unwrap();
        let mut data = total(&[0, 1], 1000);
        data.swap(10, 11);
        assert_ne!(digest(&data), expected);
        for (seed, members, iteration) in [(8, [0, 1], 3), (7, [0, 2], 3), (7, [0, 1], 4)] {
            let other = expected_digest(seed, &members, 1000, iteration).unwrap();
            assert_ne!(other, expected);
        }
    }

    #[test]
    fn parts_digested_in_any_order_add_up_to_the_whole() {
        let data = total(&[0, 1], 5000);
        let parts = digest_at(&data[4000..], 4000)
            + digest_at(&data[..33], 0)
            + digest_at(&data[33..4000], 33);
        assert_eq!(parts, digest(&data));
    }

    #[test]
    fn narrow_and_wide_vectors_agree() {
        let mut data = total(&[0, 1], 777);
        assert_eq!(digest_body(&data, 5), digest_at(&data, 5));
        let mut plain = vec![0f32; 777];
        fill_body(&mut plain, 0, &[key(7, 4, 9)]);
        fill_exact(&mut data, 7, 4, 9);
        assert_eq!(digest(&plain), digest(&data));
    }

    #[test]
    fn inputs_are_spread_over_their_whole_range() {
        let mut data = vec![0f32; 100_000];
        fill_exact(&mut data, 1, 0, 0);
        let mean = data.iter().map(|&x| f64::from(x)).sum::<f64>() / data.len() as f64;
        assert!(mean.abs() < 65_536.0 / 100.0, "{mean}");
        assert!(
            data.iter()
                .all(|x| x.abs() <= 65_536.0 && x.fract().abs() < f32::EPSILON)
        );
        assert!(data.iter().any(|&x| x > 65_000.0) && data.iter().any(|&x| x < -65_000.0));
    }

    #[test]
    fn more_ranks_than_stay_exact_are_refused() {
        let members: Vec<u32> = (0..129).collect();
        assert_eq!(
            expected_digest(1, &members, 8, 0),
            Err(TooManyRanks { ranks: 129 })
        );
    }
}
