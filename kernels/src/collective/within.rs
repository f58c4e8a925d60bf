//! What is asked of ranks that share one device, and what their all-reduces came to.
//!
//! The same kernels reduce between devices, so a single one shows whether their sums and barriers are right. Figures are
//! *in-device*: no link carries a byte, so there is a rate by bytes moved and never a bus bandwidth. Refuses types
//! and numbers of ranks whose totals are not exact.

use hallmark_profiles::units::Bytes;

/// Most ranks of one group.
pub const RANKS_MAX: u32 = 16;
/// Largest buffer that goes in one shot; where the second way overtakes the first has not been measured on a device yet.
pub const ONE_SHOT_MAX: Bytes = Bytes(64 << 10);

/// What is summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    F32,
    Bf16,
    F16,
    /// Wraps, so that every bit of every addend counts.
    I32,
}

impl Element {
    pub const ALL: [Self; 4] = [Self::F32, Self::Bf16, Self::F16, Self::I32];

    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::I32 => "i32",
        }
    }

    /// Size of one, in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// How far a 32-bit hash is shifted right, so that whole numbers from −2^(31 − shift) on have an exact total.
    pub fn shift(self, ranks: u32) -> u32 {
        let significand = match self {
            Self::F32 => 24,
            Self::F16 => 11,
            Self::Bf16 => 8,
            Self::I32 => return 0,
        };
        let carries = ranks.max(1).next_power_of_two().ilog2();
        let bits = 16.min(u32::saturating_sub(significand, carries));
        31 - bits
    }

    /// The element of the rank with `key` at `index`; [`super::exact`] has the same for f32 with a shift of 15.
    pub fn addend(index: u64, key: u32, shift: u32) -> i32 {
        let hash = crate::audit::mix((index as u32).wrapping_mul(0x9E37_79B1) ^ key);
        (hash >> shift)
            .wrapping_sub(1 << (31 - shift))
            .cast_signed()
    }

    /// Bits of a whole number that the type holds exactly.
    pub fn whole(self, value: i32) -> u32 {
        match self {
            Self::I32 => value.cast_unsigned(),
            Self::F32 => (value as f32).to_bits(),
            Self::Bf16 => half::bf16::from_f32(value as f32).to_bits().into(),
            Self::F16 => half::f16::from_f32(value as f32).to_bits().into(),
        }
    }
}

/// How the ranks reduce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shots {
    /// Every rank sends its words to all, each sums what it was sent: one trip, for small messages.
    One,
    /// Rank k sums the k-th part of every input and writes it to every output: for large ones.
    Two,
}

impl Shots {
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "one-shot",
            Self::Two => "two-shot",
        }
    }
}

/// A fault that must be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inject {
    Nothing,
    /// One bit of the last rank's total is flipped in device memory after the last reduction.
    Bit,
    /// The last rank is never started.
    Absent,
}

/// Reductions of one kind between ranks that share a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Within {
    pub ranks: u32,
    pub element: Element,
    /// Buffer that each rank holds.
    pub bytes: Bytes,
    pub shots: Shots,
    pub in_place: bool,
    /// Inputs change with each.
    pub iterations: u32,
    pub seed: u64,
    pub inject: Inject,
}

/// What they came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WithinDone {
    /// Device time of each reduction, from the event before it to the event behind it, in ns.
    pub reduce_ns: Vec<u64>,
    /// Likewise of a copy of all inputs to all outputs before each; none in place.
    pub copy_ns: Vec<u64>,
    /// Elements whose bits are not those of the exact total, over all ranks and reductions.
    pub wrong: u64,
    /// The first of them, and what the host's own sum found.
    pub faults: Vec<String>,
    /// Ranks that others waited for in vain.
    pub waited_for: Vec<u32>,
    /// Elements of the last reduction that the host compared as well; 0 where the buffers are large.
    pub compared: u64,
    /// Blocks of each rank.
    pub blocks: u32,
}

impl WithinDone {
    /// The middle of the reductions' times in ns, the lower of two; `None` without any.
    pub fn median_ns(times_ns: &[u64]) -> Option<u64> {
        let mut sorted = times_ns.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collective::exact;

    #[test]
    fn totals_of_the_largest_addends_of_all_ranks_are_exact_in_every_type() {
        for element in [Element::F32, Element::Bf16, Element::F16] {
            for ranks in 1..=RANKS_MAX {
                let least = -(1_i32 << (31 - element.shift(ranks)));
                let total = least * ranks.cast_signed();
                let bits = element.whole(total);
                let value = match element {
                    Element::F32 => f32::from_bits(bits),
                    Element::Bf16 => half::bf16::from_bits(bits as u16).to_f32(),
                    _ => half::f16::from_bits(bits as u16).to_f32(),
                };
                assert_eq!(value as i32, total, "{element:?} of {ranks} ranks");
                assert!(least < -1, "{element:?} of {ranks} ranks says too little");
            }
        }
    }

    #[test]
    fn addends_of_f32_are_those_of_the_exact_all_reduce() {
        let mut wanted = vec![0.0; 999];
        exact::fill_exact(&mut wanted, 3, 5, 8);
        let key = exact::key(3, 5, 8);
        assert_eq!(Element::F32.shift(8), 15);
        for (index, x) in (0..).zip(&wanted) {
            let bits = Element::F32.whole(Element::addend(index, key, 15));
            assert_eq!(bits, x.to_bits());
        }
    }

    #[test]
    fn the_middle_of_times_is_one_of_them_and_none_of_none() {
        assert_eq!(WithinDone::median_ns(&[]), None);
        assert_eq!(WithinDone::median_ns(&[7]), Some(7));
        assert_eq!(WithinDone::median_ns(&[9, 1, 5, 3]), Some(3));
        assert_eq!(WithinDone::median_ns(&[9, 1, 5]), Some(5));
    }
}
