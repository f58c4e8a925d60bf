//! Decides whether a step fits a device, and how its arrays lie, before anything is allocated.
//!
//! Refuses data types the device lacks, shapes without an exact operand range, counts that 32 bits of a kernel's
//! argument do not hold, and more memory than is free.

use super::blaslt::WORKSPACE_BYTES;
use crate::audit;
use crate::device::DeviceInfo;
use crate::error::KernelError;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Dtype, Gemm, StepSpec};

/// Steps in flight at most.
pub(super) const IN_FLIGHT: usize = 4;
/// Sets of events and row sums. Twice the steps in flight, so that the end of a step can still be read when its
/// successor is retired: device time is counted from there.
pub(super) const SLOTS: usize = 2 * IN_FLIGHT;

/// Whether B is stored n×k: tensor cores take 8-bit operands no other way. Element (l, j) is operand j·k + l.
pub(super) const fn turned(dtype: Dtype) -> bool {
    dtype.bytes() == 1
}

/// Bytes of an element of C.
pub(super) const fn result_bytes(dtype: Dtype) -> u64 {
    if matches!(dtype, Dtype::F64) { 8 } else { 4 }
}

/// A step that fits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    /// Operands are whole numbers in −range..=range.
    pub range: u32,
    pub pairs: u32,
    /// Bytes of one A, one B and the one C.
    pub operand_bytes: [u64; 3],
    /// Groups of four floats of each array of the optimizer, and of copy and triad.
    pub parameter_fours: u64,
    pub memory_fours: u64,
    /// First row sum of each matmul in a slot's row buffer.
    pub first_row: Vec<u32>,
    pub rows: u64,
    pub need: Bytes,
}

impl Layout {
    pub fn new(spec: &StepSpec, info: &DeviceInfo, free: Bytes) -> Result<Self, KernelError> {
        if !info.dtypes.contains(&spec.dtype) {
            let known: Vec<_> = info.dtypes.iter().map(ToString::to_string).collect();
            return Err(KernelError::Dtype {
                device: info.id.clone(),
                dtype: spec.dtype,
                known: known.join(", "),
            });
        }
        let range = range(spec)?;
        let mut first_row = Vec::with_capacity(spec.gemms.len());
        let mut rows = 0_u64;
        for gemm in &spec.gemms {
            within_words(*gemm, info)?;
            first_row.push(rows as u32);
            rows += u64::from(gemm.m);
        }
        if rows > u64::from(u32::MAX) {
            return Err(refuse(
                info,
                "the rows of a step's matmuls are more than 2³²; use fewer matmuls",
            ));
        }
        let pairs = spec.operand_pairs.max(1);
        let [a, b, c] = spec.largest();
        let size = spec.dtype.bytes();
        let operand_bytes = [
            a.saturating_mul(size),
            b.saturating_mul(size),
            c.saturating_mul(result_bytes(spec.dtype)),
        ];
        let parameter_fours = spec.parameters.div_ceil(4);
        let memory_fours = spec.memory.0.div_ceil(16);
        // Sizes come from a profile, so that any sum may be beyond all bounds: then it is beyond what is free.
        let sum = |parts: &[u64]| {
            parts
                .iter()
                .fold(0, |sum: u64, part| sum.saturating_add(*part))
        };
        let pair = sum(&operand_bytes[..2]);
        let operands = sum(&[pair.saturating_mul(pairs.into()), operand_bytes[2]]);
        let arrays = sum(&[
            parameter_fours.saturating_mul(64),
            memory_fours.saturating_mul(48),
        ]);
        let buckets = spec.buckets.iter().fold(0, |sum: u64, b| {
            sum.saturating_add(b.bytes.0.saturating_mul(2))
        });
        let k_max = spec.gemms.iter().map(|g| g.k).max().unwrap_or(0);
        let sums = SLOTS as u64 * rows * 4 + u64::from(k_max) * 4;
        let workspace = if spec.gemms.is_empty() {
            0
        } else {
            WORKSPACE_BYTES
        };
        let need = Bytes(sum(&[operands, arrays, buckets, sums, workspace]));
        if need.0 > free.0 {
            return Err(KernelError::Memory {
                device: info.id.clone(),
                free,
                need,
            });
        }
        Ok(Self {
            range,
            pairs,
            operand_bytes,
            parameter_fours,
            memory_fours,
            first_row,
            rows,
            need,
        })
    }
}

fn refuse(info: &DeviceInfo, what: &str) -> KernelError {
    KernelError::Device {
        device: info.id.clone(),
        what: what.to_owned(),
    }
}

/// Grids have 2³¹ − 1 blocks at most; the smallest tile is 64×64, an audit's 8×2048.
fn within_words(gemm: Gemm, info: &DeviceInfo) -> Result<(), KernelError> {
    let tiles = u64::from(gemm.m.div_ceil(64)) * u64::from(gemm.n.div_ceil(64));
    let audits = u64::from(gemm.m.div_ceil(8)) * u64::from(gemm.n.div_ceil(2048));
    if tiles.max(audits) > i32::MAX as u64 {
        let what =
            format!("matmul {gemm} needs more blocks than one launch has; use smaller m or n");
        return Err(refuse(info, &what));
    }
    Ok(())
}

/// The one operand range that is exact for every matmul of the step: they read the same buffers.
fn range(spec: &StepSpec) -> Result<u32, KernelError> {
    let Some(deepest) = spec.gemms.iter().max_by_key(|g| g.k) else {
        return Ok(1);
    };
    audit::operand_range(spec.dtype, deepest.k).ok_or(KernelError::NoExactRange {
        gemm: *deepest,
        dtype: spec.dtype,
        k_max: audit::K_MAX,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> DeviceInfo {
        DeviceInfo {
            id: "cuda0".to_owned(),
            engine: "cuda".to_owned(),
            name: "a GPU".to_owned(),
            vendor: "NVIDIA".to_owned(),
            pci: None,
            uuid: None,
            driver: String::new(),
            memory: Bytes::gibibytes(80),
            dtypes: vec![Dtype::Bf16, Dtype::F64],
            software: false,
            cores: Vec::new(),
            facts: Vec::new(),
        }
    }

    fn spec(dtype: Dtype, gemms: Vec<Gemm>) -> StepSpec {
        StepSpec {
            dtype,
            gemms,
            buckets: Vec::new(),
            parameters: 5,
            memory: Bytes(33),
            audit_share: 0.1,
            operand_pairs: 16,
            seed: 1,
            audit_seed: None,
            sweep: None,
        }
    }

    #[test]
    fn what_a_device_cannot_do_is_refused_before_anything_is_allocated() {
        let free = Bytes::gibibytes(80);
        let refused = |dtype, gemm, free| Layout::new(&spec(dtype, vec![gemm]), &info(), free);
        let small = Gemm::new(64, 64, 64);
        assert!(matches!(
            refused(Dtype::Fp8E4m3, small, free),
            Err(KernelError::Dtype { .. })
        ));
        assert!(matches!(
            refused(Dtype::Bf16, small, Bytes(1 << 20)),
            Err(KernelError::Memory { .. })
        ));
        assert!(matches!(
            refused(Dtype::Bf16, Gemm::new(1, 1, (1 << 24) + 1), free),
            Err(KernelError::NoExactRange { .. })
        ));
        let wide = Gemm::new(u32::MAX, u32::MAX, 1);
        assert!(matches!(
            refused(Dtype::Bf16, wide, free),
            Err(KernelError::Device { .. })
        ));
        assert!(refused(Dtype::Bf16, small, free).is_ok());
    }

    #[test]
    fn f64_results_take_eight_bytes_and_arrays_are_whole_groups_of_four() {
        let gemms = vec![Gemm::new(8, 16, 4), Gemm::new(2, 2, 2)];
        let layout = Layout::new(&spec(Dtype::F64, gemms), &info(), Bytes::gibibytes(1)).unwrap();
        assert_eq!(layout.operand_bytes, [8 * 4 * 8, 4 * 16 * 8, 8 * 16 * 8]);
        assert_eq!((layout.parameter_fours, layout.memory_fours), (2, 3));
        assert_eq!((layout.first_row, layout.rows), (vec![0, 8], 10));
    }
}
