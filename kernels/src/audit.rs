//! Exact audits: operands from a counter-based generator and a check that reads only C.
//!
//! Operands are small integers, chosen so that every partial sum is exact in f32 in any order of
//! summation; every engine of every vendor must therefore return the same bits. The check is
//! Freivalds' (R. Freivalds, “Fast probabilistic algorithms”, 1979) in the ring of integers modulo
//! 2³²: with a random odd vector r, row i of C must satisfy `Σ_j C[i,j]·r[j] = Σ_l A[i,l]·(B·r)[l]`.
//! A result that is no integer adds its surplus bits to the sum, so a flip of any bit of any
//! element is seen; only the sign of a zero is not told apart.

use hallmark_profiles::workload::{AuditSeed, Dtype, Gemm};

/// Odd constant that spreads the surplus bits of a result that is no integer.
pub const SURPLUS: u32 = 0x9E37_79B1;

/// Streams of the generator, so that A, B, r and the audit choice never share numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    A = 0x0A00_0000,
    B = 0x0B00_0000,
    R = 0x0C00_0000,
    Choice = 0x0D00_0000,
    Flip = 0x0E00_0000,
}

/// Counter-based generator: a 32-bit hash of (seed, stream, buffer, index), the same on host and device.
///
/// The mixing function is MurmurHash3's 32-bit finaliser (A. Appleby, public domain), applied twice.
pub fn hash(seed: u64, stream: Stream, buffer: u32, index: u32) -> u32 {
    let key = key(seed, stream, buffer);
    mix(mix(index ^ key).wrapping_add(key))
}

/// The 32-bit key that a device needs for one buffer; [`hash`] is `mix(mix(index ^ key) + key)`.
pub fn key(seed: u64, stream: Stream, buffer: u32) -> u32 {
    let low = seed as u32;
    let high = (seed >> 32) as u32;
    mix(low ^ mix(high ^ mix(stream as u32 ^ buffer)))
}

/// MurmurHash3's 32-bit finaliser.
pub const fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85EB_CA6B);
    h ^= h >> 13;
    h = h.wrapping_mul(0xC2B2_AE35);
    h ^ (h >> 16)
}

/// Largest R such that operands in −R..=R are exact in `dtype`, and every partial sum of `k` products is exact in what
/// the matmul accumulates in and returns. `None` where even R = 1 would not be.
///
/// Up to `k·R² ≤ exact sums` this is certain. Beyond, it is so but for a chance that no run will meet: products of
/// operands are independent, of mean zero and at most R² each, so a sum of `k` of them leaves ±t with a chance below
/// 2·exp(−t² / (2·k·R⁴)) (W. Hoeffding, “Probability inequalities for sums of bounded random variables”, 1963). R is
/// chosen for an exponent of 64: below 4·10⁻²⁸ for a partial sum and 2·10⁻¹⁶ for all of an 8192³ matmul. Operands
/// are the same whenever the seed is.
pub fn operand_range(dtype: Dtype, k: u32) -> Option<u32> {
    if u64::from(k) > K_MAX {
        return None;
    }
    let k = u64::from(k.max(1));
    let sum = exact_sum(dtype);
    let certain = (sum / k).isqrt();
    // t² / (2·k·R⁴) ≥ 64 is R² ≤ t / √(128·k).
    let likely = (sum as f64 / (128.0 * k as f64).sqrt()).sqrt() as u64;
    let range = certain.max(likely).min(operand_max(dtype));
    (range >= 1).then_some(range as u32)
}

/// Largest operand: exact in the type, small enough for every engine's kernels, and no larger than 128.
fn operand_max(dtype: Dtype) -> u64 {
    let most = match dtype {
        // Sums of 128 such products stay within what tensor cores keep of a running 8-bit sum.
        Dtype::Fp8E4m3 | Dtype::Fp8E5m2 => 8,
        _ => 128,
    };
    dtype.exact_integer().min(most)
}

/// Largest magnitude up to which a running sum is exact in what the type is accumulated in.
fn exact_sum(dtype: Dtype) -> u64 {
    match dtype {
        // The check takes results as 32-bit integers.
        Dtype::F64 | Dtype::Int8 => (1 << 31) - 1,
        // Hopper keeps 14 bits of a running sum of 8-bit products; how often a library carries it into f32 is unknown.
        Dtype::Fp8E4m3 | Dtype::Fp8E5m2 => 1 << 13,
        Dtype::F32 | Dtype::Tf32 | Dtype::Bf16 | Dtype::F16 => 1 << 24,
    }
}

/// The largest k that [`operand_range`] accepts.
pub const K_MAX: u64 = 1 << 24;

/// Value of an operand from its hash: an integer, uniform over −range..=range.
pub const fn operand(hash: u32, range: u32) -> i32 {
    (hash % (2 * range + 1)) as i32 - range as i32
}

/// Fills `out` with operands as f32.
pub fn fill(out: &mut [f32], seed: u64, stream: Stream, buffer: u32, range: u32) {
    let key = key(seed, stream, buffer);
    for (index, value) in out.iter_mut().enumerate() {
        let hash = mix(mix(index as u32 ^ key).wrapping_add(key));
        *value = operand(hash, range) as f32;
    }
}

/// The key of the challenge vector of one operand pair, for a device that makes the vector itself.
pub fn challenge_key(seed: AuditSeed, pair: u32) -> u32 {
    key(seed.0, Stream::R, pair)
}

/// The odd challenge vector r of one operand pair.
pub fn challenge(seed: AuditSeed, pair: u32, n: u32) -> Vec<u32> {
    (0..n)
        .map(|j| hash(seed.0, Stream::R, pair, j) | 1)
        .collect()
}

/// Whether the matmul `gemm` of step `seq` is audited: a seeded choice at rate `share`.
///
/// The choice hangs on the audit seed alone, so whoever knows the profile cannot say which matmuls will be looked at.
pub fn selects(seed: AuditSeed, seq: u64, gemm: u32, share: f64) -> bool {
    let mixed = seed.0 ^ seq.rotate_left(32);
    let h = hash(mixed, Stream::Choice, gemm, seq as u32);
    f64::from(h) < share * 4_294_967_296.0
}

/// Expected row sums of one shape and operand pair: A·(B·r) modulo 2³², computed once on the host.
pub struct Expected {
    pub gemm: Gemm,
    pub pair: u32,
    pub challenge: Vec<u32>,
    pub rows: Vec<u32>,
}

impl Expected {
    /// Operands are regenerated from the seed, not read back from the device that is under audit.
    ///
    /// `range` must be the one that filled the buffers, whose prefix of m·k and k·n elements the matmul reads.
    pub fn new(gemm: Gemm, seed: u64, audits: AuditSeed, pair: u32, range: u32) -> Self {
        let [na, nb, _] = gemm.elements();
        let mut a = vec![0.0; na as usize];
        let mut b = vec![0.0; nb as usize];
        fill(&mut a, seed, Stream::A, pair, range);
        fill(&mut b, seed, Stream::B, pair, range);
        Self::of(gemm, audits, pair, &a, &b)
    }

    /// As [`Self::new`], from operands that were already generated on the host with [`fill`]: at least
    /// m·k and k·n of them.
    pub fn of(gemm: Gemm, audits: AuditSeed, pair: u32, a: &[f32], b: &[f32]) -> Self {
        let challenge = challenge(audits, pair, gemm.n);
        let weigh = |row: &[f32], weights: &[u32]| {
            row.iter().zip(weights).fold(0_u32, |sum, (&x, &w)| {
                sum.wrapping_add((x as i32 as u32).wrapping_mul(w))
            })
        };
        let (m, n, k) = (gemm.m as usize, gemm.n as usize, gemm.k as usize);
        let b_r: Vec<u32> = b
            .chunks_exact(n)
            .take(k)
            .map(|row| weigh(row, &challenge))
            .collect();
        let rows = a
            .chunks_exact(k)
            .take(m)
            .map(|row| weigh(row, &b_r))
            .collect();
        Self {
            gemm,
            pair,
            challenge,
            rows,
        }
    }

    /// Compares the row sums that a device computed.
    pub fn check(&self, rows: &[u32]) -> Option<Mismatch> {
        let wrong = |(got, want): (&u32, &u32)| got != want;
        let bad_rows = rows.iter().zip(&self.rows).filter(|p| wrong(*p)).count();
        let first = rows.iter().zip(&self.rows).position(wrong);
        match first {
            None if rows.len() == self.rows.len() => None,
            first => Some(Mismatch {
                gemm: self.gemm,
                pair: self.pair,
                row: first.unwrap_or(rows.len()) as u32,
                bad_rows: bad_rows as u32,
                digest: digest(rows),
                expected: digest(&self.rows),
            }),
        }
    }
}

/// Row sums of C on the host: `m` rows of `challenge.len()` columns.
pub fn row_sums(c: &[f32], challenge: &[u32], out: &mut [u32]) {
    for (row, sum) in c.chunks_exact(challenge.len().max(1)).zip(out) {
        *sum = row.iter().zip(challenge).fold(0_u32, |acc, (&value, &r)| {
            acc.wrapping_add(term(value).wrapping_mul(r))
        });
    }
}

/// What one element adds to its row, before r: its integer value plus its surplus bits.
#[inline]
pub fn term(value: f32) -> u32 {
    // Truncation saturates, NaN gives 0; both then show as surplus bits.
    let whole = value as i32;
    let surplus = value.to_bits() ^ (whole as f32).to_bits();
    let surplus = if surplus == 0x8000_0000 { 0 } else { surplus };
    (whole as u32).wrapping_add(surplus.wrapping_mul(SURPLUS))
}

/// One number for a vector of row sums, position dependent.
pub fn digest(rows: &[u32]) -> u64 {
    rows.iter().fold(0xCBF2_9CE4_8422_2325, |acc, &row| {
        (acc ^ u64::from(row)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// An audited matmul whose result was wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    pub gemm: Gemm,
    pub pair: u32,
    /// First wrong row.
    pub row: u32,
    pub bad_rows: u32,
    pub digest: u64,
    pub expected: u64,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "matmul {} of operand pair {}: {} wrong rows, the first is row {}; digest {:016x}, expected {:016x}",
            self.gemm, self.pair, self.bad_rows, self.row, self.digest, self.expected
        )
    }
}

/// Number under which bucket `bucket` of a step takes part in [`selects`].
pub const fn bucket_key(bucket: u32) -> u32 {
    0x8000_0000 | bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(gemm: Gemm, seed: u64, pair: u32, range: u32) -> Vec<f32> {
        let [na, nb, nc] = gemm.elements();
        let mut a = vec![0.0; na as usize];
        let mut b = vec![0.0; nb as usize];
        fill(&mut a, seed, Stream::A, pair, range);
        fill(&mut b, seed, Stream::B, pair, range);
        let mut c = vec![0.0_f32; nc as usize];
        let (n, k) = (gemm.n as usize, gemm.k as usize);
        for (i, row) in c.chunks_mut(n).enumerate() {
            for (j, value) in row.iter_mut().enumerate() {
                *value = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
            }
        }
        c
    }

    #[test]
    fn a_right_product_passes_and_any_single_flipped_bit_is_seen() {
        let gemm = Gemm::new(9, 13, 21);
        let range = operand_range(Dtype::F32, gemm.k).unwrap();
        let expected = Expected::new(gemm, 7, AuditSeed(8), 3, range);
        let mut c = product(gemm, 7, 3, range);
        let mut rows = vec![0; 9];
        row_sums(&c, &expected.challenge, &mut rows);
        assert_eq!(expected.check(&rows), None);
        for element in 0..c.len() {
            for bit in 0..32 {
                let clean = c[element];
                c[element] = f32::from_bits(clean.to_bits() ^ (1 << bit));
                row_sums(&c, &expected.challenge, &mut rows);
                let harmless = c[element] == 0.0 && clean == 0.0;
                assert_eq!(
                    expected.check(&rows).is_some(),
                    !harmless,
                    "{element} {bit}"
                );
                c[element] = clean;
            }
        }
    }

    #[test]
    fn a_partial_sum_leaves_the_exact_integers_by_less_than_any_run_will_meet() {
        for dtype in Dtype::ALL {
            let sum = exact_sum(dtype) as f64;
            for k in [1_u32, 2, 64, 1000, 8192, 1 << 17, 1 << 19] {
                let range = f64::from(operand_range(dtype, k).unwrap());
                let certain = f64::from(k) * range.powi(2) <= sum;
                let exponent = sum.powi(2) / (2.0 * f64::from(k) * range.powi(4));
                assert!(certain || exponent >= 64.0, "{dtype} k {k}: {exponent}");
                assert!(range <= dtype.exact_integer() as f64);
            }
        }
        assert_eq!(operand_range(Dtype::F32, (1 << 24) + 1), None);
        assert_eq!(operand_range(Dtype::Fp8E4m3, 1 << 20), None);
    }

    #[test]
    fn operands_fill_the_mantissa_of_their_type_at_the_depth_of_large_matmuls() {
        assert_eq!(operand_range(Dtype::Bf16, 8192), Some(128));
        assert_eq!(operand_range(Dtype::Int8, 8192), Some(127));
        assert_eq!(operand_range(Dtype::Fp8E4m3, 64), Some(8));
        assert!(operand_range(Dtype::Fp8E4m3, 8192) >= Some(2));
    }

    #[test]
    fn the_audited_share_is_the_share_asked_for() {
        let hits = (0..100_000_u64)
            .filter(|&s| selects(AuditSeed(1), s, 0, 0.1))
            .count();
        assert!((9_500..10_500).contains(&hits), "{hits}");
        assert!(!(0..1000).any(|s| selects(AuditSeed(1), s, 0, 0.0)));
        assert!((0..1000).all(|s| selects(AuditSeed(1), s, 0, 1.0)));
    }

    #[test]
    fn who_knows_the_operands_seed_cannot_list_what_is_audited() {
        let listed = |seed| -> Vec<u64> {
            (0..10_000)
                .filter(|&s| selects(AuditSeed(seed), s, 0, 0.12))
                .collect()
        };
        let (guessed, real) = (listed(20_260_304), listed(7_777_777));
        let right = guessed.iter().filter(|s| real.contains(s)).count();
        // A guess is right as often as chance is: 12 % of about 1,200.
        let share = right as f64 / guessed.len() as f64;
        assert!((0.08..0.17).contains(&share), "{share}");
        let vector = |seed| challenge(AuditSeed(seed), 0, 64);
        assert_ne!(vector(1), vector(2));
    }

    #[test]
    fn operands_fill_their_range_evenly() {
        let mut values = vec![0.0; 70_000];
        fill(&mut values, 42, Stream::A, 0, 3);
        for want in -3..=3 {
            let share = values.iter().filter(|v| **v as i32 == want).count();
            assert!((9_500..10_500).contains(&share), "{want}: {share}");
        }
    }

    #[test]
    fn a_missing_row_is_a_mismatch() {
        let expected = Expected::new(Gemm::new(4, 4, 4), 1, AuditSeed(2), 0, 8);
        assert!(expected.check(&expected.rows[..3]).is_some());
    }
}
