//! The vocabulary of device work: data types, matmul shapes and the step that is repeated.
//!
//! A [`StepSpec`] is what every backend is asked to do, already lowered to plain shapes and byte
//! counts. It knows no device, no time and no limit of acceptance.

use crate::units::{Bytes, Flops};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Element type of a matmul's operands. Accumulation is f32 unless the engine's name says otherwise.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    F64,
    F32,
    Tf32,
    Bf16,
    F16,
    #[serde(rename = "fp8_e4m3")]
    Fp8E4m3,
    #[serde(rename = "fp8_e5m2")]
    Fp8E5m2,
    Int8,
}

impl Dtype {
    pub const ALL: [Self; 8] = [
        Self::F64,
        Self::F32,
        Self::Tf32,
        Self::Bf16,
        Self::F16,
        Self::Fp8E4m3,
        Self::Fp8E5m2,
        Self::Int8,
    ];

    /// The name used in profiles, records and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Fp8E4m3 => "fp8_e4m3",
            Self::Fp8E5m2 => "fp8_e5m2",
            Self::Int8 => "int8",
        }
    }

    /// Size of one stored element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F64 => 8,
            Self::F32 | Self::Tf32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::Fp8E4m3 | Self::Fp8E5m2 | Self::Int8 => 1,
        }
    }

    /// Largest magnitude up to which every integer is representable.
    pub const fn exact_integer(self) -> u64 {
        match self {
            Self::F64 => 1 << 53,
            Self::F32 => 1 << 24,
            Self::Tf32 | Self::F16 => 1 << 11,
            Self::Bf16 => 1 << 8,
            Self::Fp8E4m3 => 1 << 4,
            Self::Fp8E5m2 => 1 << 3,
            Self::Int8 => 127,
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// One matmul `C[m×n] = A[m×k] · B[k×n]`, row-major.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Gemm {
    #[schemars(range(min = 1))]
    pub m: u32,
    #[schemars(range(min = 1))]
    pub n: u32,
    #[schemars(range(min = 1))]
    pub k: u32,
}

impl Gemm {
    pub const fn new(m: u32, n: u32, k: u32) -> Self {
        Self { m, n, k }
    }

    /// Work by the field's convention: 2·m·n·k.
    pub fn flop(self) -> Flops {
        Flops(2.0 * f64::from(self.m) * f64::from(self.n) * f64::from(self.k))
    }

    /// Elements of A, B and C.
    pub const fn elements(self) -> [u64; 3] {
        let (m, n, k) = (self.m as u64, self.n as u64, self.k as u64);
        [m * k, k * n, m * n]
    }
}

impl std::fmt::Display for Gemm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}×{}×{}", self.m, self.n, self.k)
    }
}

/// A gradient bucket: all-reduced as soon as the matmul that fills it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Payload held by each rank; a multiple of 4 (f32 elements).
    pub bytes: Bytes,
    /// Index into [`StepSpec::gemms`] of the matmul after which the gradients are ready.
    pub after: u32,
}

/// Which parts of a step are queued: modes are subsets of one prepared step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    pub gemms: bool,
    pub buckets: bool,
    pub optimizer: bool,
    pub memory: bool,
    /// Buckets are summed by each node alone, and not across nodes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub within_node: bool,
}

/// Seed of what is audited and of the vector that audits it. A type of its own, so that the public seed of the
/// operands, by which anyone could list the audited matmuls beforehand, cannot stand in for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuditSeed(pub u64);

/// How often each size of a sweep is all-reduced, out of place and in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trials {
    /// Operations before those that count, at the first of the visits to a size; one at each later one.
    pub warm_up: u32,
    /// Operations that count.
    pub iterations: u32,
}

/// One step of work, lowered to shapes and bytes; the same for every rank of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepSpec {
    pub dtype: Dtype,
    /// Matmuls in the order in which the device runs them.
    pub gemms: Vec<Gemm>,
    pub buckets: Vec<Bucket>,
    /// f32 parameters touched by the optimizer (AdamW: 4 arrays read, 3 written).
    pub parameters: u64,
    /// Size of each array of the device copy and triad; zero for none.
    pub memory: Bytes,
    /// Share of matmuls whose result is audited, 0 to 1.
    pub audit_share: f64,
    /// Operand pairs that the matmuls rotate over.
    pub operand_pairs: u32,
    /// Seed of operands and exact gradients.
    pub seed: u64,
    /// Seed of the audits; absent from records made when one seed served for both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_seed: Option<AuditSeed>,
    /// The buckets are the sizes of a sweep, each measured by itself, and none belongs to a matmul.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Trials>,
}

impl StepSpec {
    /// The seed that chooses audited matmuls and buckets, and the challenge that checks them.
    pub fn audits(&self) -> AuditSeed {
        self.audit_seed.unwrap_or(AuditSeed(self.seed))
    }

    /// Work of all matmuls of one step.
    pub fn flop(&self) -> Flops {
        Flops(self.gemms.iter().map(|g| g.flop().0).sum())
    }

    /// Largest number of elements that A, B and C need over all matmuls.
    pub fn largest(&self) -> [u64; 3] {
        self.gemms.iter().fold([0; 3], |acc, g| {
            let e = g.elements();
            [acc[0].max(e[0]), acc[1].max(e[1]), acc[2].max(e[2])]
        })
    }

    /// Device memory the prepared step holds: operand pairs, one C, optimizer state, copy arrays, buckets in and out.
    pub fn footprint(&self) -> Bytes {
        let [a, b, c] = self.largest();
        let times = u64::saturating_mul;
        // Beyond 64 bits it is more than any device has, which is all that one need know.
        let operands = times(
            times(a.saturating_add(b), self.dtype.bytes()),
            self.operand_pairs.into(),
        );
        let buckets = self.buckets.iter().map(|b| times(2, b.bytes.0));
        let rest = [
            times(c, 4),
            times(self.parameters, 16),
            times(3, self.memory.0),
        ];
        Bytes(
            rest.into_iter()
                .chain(buckets)
                .fold(operands, u64::saturating_add),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matmul_counts_two_operations_for_each_product() {
        assert!((Gemm::new(2, 3, 4).flop().0 - 48.0).abs() < f64::EPSILON);
    }

    #[test]
    fn every_dtype_has_a_name_of_its_own() {
        let mut names: Vec<_> = Dtype::ALL.iter().map(|d| d.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Dtype::ALL.len());
    }
}
