//! Decides what an audited matmul's row sums must be, and which element and bit was wrong where they are not.
//!
//! The device computes the expected sums from the generator alone with its integer units, and the host computes a
//! seeded sample of them again: a step has too many shapes and pairs for the host to do them all. A wrong expectation
//! can raise an alarm, it can never hide one. Refuses a device whose sample differs.

use super::arrays::{Arrays, StepKernels};
use super::gpu::{Arguments, Gpu, SETUP_LIMIT, Shape, Stream};
use super::layout::{Layout, turned};
use crate::audit::{self, Expected, Stream as Source, challenge_key, hash, key, operand};
use crate::error::KernelError;
use hallmark_profiles::workload::{AuditSeed, Dtype, Gemm, StepSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Expected row sums by shape and pair.
pub(super) type Answers = BTreeMap<(Gemm, u32), Expected>;

/// Weights and rows of each shape and pair that the host computes again.
const SAMPLE: u32 = 8;

/// Where operands come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operands {
    pub gemm: Gemm,
    pub seed: u64,
    /// Where the challenge comes from.
    pub audits: AuditSeed,
    pub pair: u32,
    pub range: u32,
    /// B is stored n×k.
    pub turned: bool,
}

impl Operands {
    pub fn new(spec: &StepSpec, layout: &Layout, gemm: Gemm, pair: u32) -> Self {
        Self {
            gemm,
            seed: spec.seed,
            audits: spec.audits(),
            pair,
            range: layout.range,
            turned: turned(spec.dtype),
        }
    }

    fn a(&self, row: u32, l: u32) -> i32 {
        let at = row.wrapping_mul(self.gemm.k).wrapping_add(l);
        operand(hash(self.seed, Source::A, self.pair, at), self.range)
    }

    fn b(&self, l: u32, column: u32) -> i32 {
        let at = if self.turned {
            column.wrapping_mul(self.gemm.k).wrapping_add(l)
        } else {
            l.wrapping_mul(self.gemm.n).wrapping_add(column)
        };
        operand(hash(self.seed, Source::B, self.pair, at), self.range)
    }

    fn challenge(&self, column: u32) -> u32 {
        hash(self.audits.0, Source::R, self.pair, column) | 1
    }

    /// Element l of B·r.
    fn weight(&self, l: u32) -> u32 {
        (0..self.gemm.n).fold(0, |sum: u32, column| {
            let product = (self.b(l, column) as u32).wrapping_mul(self.challenge(column));
            sum.wrapping_add(product)
        })
    }

    /// Element `row` of A·(B·r).
    fn row(&self, row: u32, weights: &[u32]) -> u32 {
        (0..).zip(weights).fold(0, |sum: u32, (l, weight)| {
            sum.wrapping_add((self.a(row, l) as u32).wrapping_mul(*weight))
        })
    }

    /// The true value of an element of C.
    fn element(&self, row: u32, column: u32) -> i64 {
        (0..self.gemm.k)
            .map(|l| i64::from(self.a(row, l)) * i64::from(self.b(l, column)))
            .sum()
    }

    /// The first sampled weight or row that is not what the host computes.
    fn disagrees(&self, weights: &[u32], rows: &[u32]) -> Option<String> {
        let sample = |of: u32, count: u32| {
            let drawn =
                move |i| hash(self.audits.0, Source::Choice, self.pair, of + i) % count.max(1);
            (0..SAMPLE).map(drawn)
        };
        let at = |list: &[u32], index: u32| list.get(index as usize).copied();
        let weight = sample(0, self.gemm.k).find(|&l| at(weights, l) != Some(self.weight(l)));
        let row = sample(SAMPLE, self.gemm.m).find(|&i| at(rows, i) != Some(self.row(i, weights)));
        match (weight, row) {
            (Some(l), _) => Some(format!("weight {l}")),
            (None, Some(i)) => Some(format!("row {i}")),
            (None, None) => None,
        }
    }

    /// The single flipped bit of row `row` that explains `found` in the place of `expected`, in words.
    pub fn locate(&self, dtype: Dtype, row: u32, found: u32, expected: u32) -> String {
        let wrong = found.wrapping_sub(expected);
        let hits = (0..self.gemm.n).flat_map(|column| {
            let whole = self.element(row, column);
            let challenge = self.challenge(column);
            let explains = move |term: u32| {
                let change = term.wrapping_sub(whole as u32);
                change.wrapping_mul(challenge) == wrong
            };
            let bits = flips(dtype, whole).enumerate();
            bits.filter(move |(_, term)| explains(*term))
                .map(move |(bit, _)| (column, bit, whole))
        });
        let hits: Vec<(u32, usize, i64)> = hits.collect();
        let place = |&(column, bit, whole): &(u32, usize, i64)| {
            format!(
                "bit {bit} of element {row},{column} (tile {},{} of 128×128), whose value is {whole}",
                row / 128,
                column / 128
            )
        };
        match hits.as_slice() {
            [] => format!("no single bit of row {row} explains it: several elements are wrong"),
            [one] => place(one),
            // A change by a high power of two leaves few bits of the challenge in the sum.
            [first, ..] => format!(
                "one bit of row {row} explains it, but {} would do so; the first is {}",
                hits.len(),
                place(first)
            ),
        }
    }
}

/// What an element adds to its row with each of its bits flipped, lowest first.
fn flips(dtype: Dtype, whole: i64) -> Box<dyn Iterator<Item = u32>> {
    match dtype {
        Dtype::Int8 => Box::new((0..32).map(move |bit| whole as u32 ^ (1_u32 << bit))),
        Dtype::F64 => {
            let bits = (whole as f64).to_bits();
            Box::new((0..64).map(move |bit: u32| wide_term(bits ^ (1_u64 << bit))))
        }
        _ => {
            let bits = (whole as f32).to_bits();
            let flipped = move |bit: u32| audit::term(f32::from_bits(bits ^ (1_u32 << bit)));
            Box::new((0..32).map(flipped))
        }
    }
}

/// [`audit::term`] of an f64: the two halves of its surplus are spread by two odd constants.
fn wide_term(bits: u64) -> u32 {
    // Truncation saturates, NaN gives 0; both then show as surplus bits.
    let whole = f64::from_bits(bits) as i32;
    let surplus = bits ^ f64::from(whole).to_bits();
    if surplus == 1 << 63 {
        return whole as u32;
    }
    let low = (surplus as u32).wrapping_mul(audit::SURPLUS);
    let high = ((surplus >> 32) as u32).wrapping_mul(0x85EB_CA6B);
    (whole as u32).wrapping_add(low).wrapping_add(high)
}

/// What is needed to compute the answers on the device.
pub(super) struct Desk<'a> {
    pub gpu: &'a Arc<Gpu>,
    pub stream: &'a Stream,
    pub kernels: &'a StepKernels,
    pub spec: &'a StepSpec,
    pub layout: &'a Layout,
}

impl Desk<'_> {
    /// Of every shape and pair that can be audited, and of the first for the self-test.
    pub fn answers(&self) -> Result<Answers, KernelError> {
        let spec = self.spec;
        let pairs = if spec.audit_share > 0.0 {
            self.layout.pairs
        } else {
            1
        };
        let wanted: BTreeSet<(Gemm, u32)> = spec
            .gemms
            .iter()
            .flat_map(|&gemm| (0..pairs).map(move |pair| (gemm, pair)))
            .collect();
        let m_max = spec.gemms.iter().map(|g| g.m).max().unwrap_or(0);
        let k_max = spec.gemms.iter().map(|g| g.k).max().unwrap_or(0);
        let (m_bytes, k_bytes) = (u64::from(m_max) * 4, u64::from(k_max) * 4);
        let weights = self.gpu.memory(k_bytes)?;
        let rows = self.gpu.memory(m_bytes)?;
        let read = self.gpu.pinned(k_bytes + m_bytes)?;
        let mut answers = Answers::new();
        for (gemm, pair) in wanted {
            let source = Operands::new(spec, self.layout, gemm, pair);
            self.weigh(&source, weights.at, rows.at)?;
            let (k, m) = (u64::from(gemm.k) * 4, u64::from(gemm.m) * 4);
            self.stream.down(&weights, 0, &read, 0, k)?;
            self.stream.down(&rows, 0, &read, k, m)?;
            self.gpu.finish(self.stream, SETUP_LIMIT)?;
            // SAFETY: the copies have ended.
            let bytes = unsafe { read.bytes() };
            let words = |from: u64, length: u64| -> Vec<u32> {
                let part = bytes.get(from as usize..(from + length) as usize);
                bytemuck::pod_collect_to_vec(part.unwrap_or_default())
            };
            let (weights, rows) = (words(0, k), words(k, m));
            if let Some(which) = source.disagrees(&weights, &rows) {
                return Err(self.gpu.refuse(format!(
                    "its integer units and the host disagree on what {gemm} must give ({which} of operand pair {pair})"
                )));
            }
            let expected = Expected {
                gemm,
                pair,
                challenge: Vec::new(),
                rows,
            };
            answers.insert((gemm, pair), expected);
        }
        Ok(answers)
    }

    fn weigh(&self, source: &Operands, weights: u64, rows: u64) -> Result<(), KernelError> {
        let Operands {
            gemm,
            seed,
            audits,
            pair,
            range,
            turned,
        } = *source;
        let of = |stream| u64::from(key(seed, stream, pair));
        let grid = |count: u32| Shape::new(Arrays::blocks(self.gpu, u64::from(count) * 256), 256);
        let arguments = Arguments::new(&[
            weights,
            gemm.n.into(),
            gemm.k.into(),
            of(Source::B),
            challenge_key(audits, pair).into(),
            range.into(),
            turned.into(),
        ]);
        self.stream.launch(
            self.kernels.weigh_b.function,
            grid(gemm.k),
            &arguments,
            "queue the weights of an audit",
        )?;
        let arguments = Arguments::new(&[
            rows,
            weights,
            gemm.m.into(),
            gemm.k.into(),
            of(Source::A),
            range.into(),
        ]);
        self.stream.launch(
            self.kernels.weigh_a.function,
            grid(gemm.m),
            &arguments,
            "queue the rows of an audit",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(turned: bool) -> Operands {
        Operands {
            gemm: Gemm::new(9, 13, 21),
            seed: 7,
            audits: AuditSeed(11),
            pair: 3,
            range: 8,
            turned,
        }
    }

    fn weights(source: &Operands) -> Vec<u32> {
        (0..source.gemm.k).map(|l| source.weight(l)).collect()
    }

    #[test]
    fn the_host_s_sample_is_the_audit_s_own_expectation() {
        let source = source(false);
        let expected = Expected::new(
            source.gemm,
            source.seed,
            source.audits,
            source.pair,
            source.range,
        );
        let weights = weights(&source);
        let rows: Vec<u32> = (0..9).map(|i| source.row(i, &weights)).collect();
        assert_eq!(rows, expected.rows);
        assert_eq!(source.disagrees(&weights, &rows), None);
    }

    #[test]
    fn a_turned_operand_gives_the_rows_of_its_own_product() {
        let source = source(true);
        let weights = weights(&source);
        for row in 0..9 {
            let sum = (0..13).fold(0_u32, |sum, column| {
                let value = source.element(row, column) as u32;
                sum.wrapping_add(value.wrapping_mul(source.challenge(column)))
            });
            assert_eq!(sum, source.row(row, &weights));
        }
    }

    #[test]
    fn a_device_whose_sums_differ_from_the_host_s_is_refused() {
        let source = source(false);
        let mut weights = weights(&source);
        let rows: Vec<u32> = (0..9).map(|i| source.row(i, &weights)).collect();
        let wrong: Vec<u32> = rows.iter().map(|r| r ^ 1).collect();
        assert!(source.disagrees(&weights, &wrong).is_some());
        weights.iter_mut().for_each(|w| *w ^= 1);
        assert!(source.disagrees(&weights, &rows).is_some());
        assert!(source.disagrees(&[], &rows).is_some());
    }

    #[test]
    fn a_flipped_bit_is_located_in_every_kind_of_result() {
        for dtype in [Dtype::Bf16, Dtype::Int8, Dtype::F64] {
            let source = source(dtype == Dtype::Int8);
            let weights = weights(&source);
            let (row, column) = (4, 11);
            let truth = source.row(row, &weights);
            let whole = source.element(row, column);
            let wide = if dtype == Dtype::F64 { 64 } else { 32 };
            let mut exact = 0;
            for bit in 0..wide - 1 {
                let term = flips(dtype, whole).nth(bit).unwrap();
                let change = term.wrapping_sub(whole as u32);
                let found = truth.wrapping_add(change.wrapping_mul(source.challenge(column)));
                let said = source.locate(dtype, row, found, truth);
                let want = format!("bit {bit} of element {row},{column} ");
                exact += usize::from(said.starts_with(&want));
                let several = said.contains("would do so");
                assert!(said.starts_with(&want) || several, "{dtype} {bit}: {said}");
            }
            // A change by a high power of two leaves few bits of the challenge in the sum.
            assert!(exact * 4 >= wide * 3, "{dtype}: {exact} of {wide} bits");
            let said = source.locate(dtype, row, truth.wrapping_add(0x1234_5678), truth);
            assert!(said.contains("several"), "{said}");
        }
    }
}
