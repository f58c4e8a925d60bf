//! Decides whether a step fits a device, and how its arrays are cut into bindings, before anything is allocated.
//!
//! An operand has to fit one binding, since a matmul addresses it as a whole; the arrays of the optimizer and of
//! copy and triad are cut into pieces. Refuses data types the device lacks, shapes without an exact operand
//! range, and more memory than is free.

use super::gpu::Gpu;
use super::pipelines::PARAMS_STRIDE;
use crate::audit;
use crate::device::DeviceInfo;
use crate::error::KernelError;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Dtype, StepSpec};

/// Steps in flight at most.
pub(super) const SLOTS: usize = 4;

/// Timestamps of one query set (WebGPU's limit).
pub(super) const QUERIES_MAX: u32 = 4096;

/// A step that fits.
pub(super) struct Layout {
    /// Operands are whole numbers in −range..=range.
    pub range: u32,
    pub pairs: u32,
    /// Bytes of one A, one B and the one C.
    pub operand_bytes: [u64; 3],
    /// Floats of each piece of the optimizer's arrays.
    pub parameter_pieces: Vec<u64>,
    /// Floats of each piece of the arrays of copy and triad.
    pub memory_pieces: Vec<u64>,
    /// First row sum of each matmul in a slot's row buffer.
    pub first_row: Vec<u32>,
    pub rows: u64,
    pub queries: u32,
    pub need: Bytes,
    pub free: Bytes,
}

impl Layout {
    pub fn new(
        spec: &StepSpec,
        info: &DeviceInfo,
        gpu: &Gpu,
        free: Bytes,
    ) -> Result<Self, KernelError> {
        if !info.dtypes.contains(&spec.dtype) {
            let known: Vec<_> = info.dtypes.iter().map(ToString::to_string).collect();
            return Err(KernelError::Dtype {
                device: info.id.clone(),
                dtype: spec.dtype,
                known: known.join(", "),
            });
        }
        let range = range(spec)?;
        let binding_max = binding_max(gpu);
        let [a, b, c] = spec.largest();
        let size = spec.dtype.bytes();
        let operand_bytes = [a * size, b * size, c * 4];
        let queries = within_limits(spec, info, gpu, operand_bytes)?;
        let mut first_row = Vec::with_capacity(spec.gemms.len());
        let mut rows = 0_u64;
        for gemm in &spec.gemms {
            first_row.push(rows as u32);
            rows += u64::from(gemm.m);
        }
        let parameter_pieces = pieces(spec.parameters, binding_max);
        let memory_pieces = pieces(spec.memory.0.div_ceil(4), binding_max);
        let slot_bytes = 2 * rows * 4 + 3 * queries * 8;
        let records = spec.gemms.len() as u64 * u64::from(1 + spec.operand_pairs)
            + SLOTS as u64 * spec.buckets.len() as u64;
        let params = records * u64::from(PARAMS_STRIDE);
        // Beside the device's copy of a bucket's addend and total stand their two staging buffers.
        let staging: u64 = spec.buckets.iter().map(|b| 2 * b.bytes.0).sum();
        let need = Bytes(spec.footprint().0 + SLOTS as u64 * slot_bytes + params + staging);
        if need.0 > free.0 {
            return Err(KernelError::Memory {
                device: info.id.clone(),
                free,
                need,
            });
        }
        Ok(Self {
            range,
            pairs: spec.operand_pairs.max(1),
            operand_bytes,
            parameter_pieces,
            memory_pieces,
            first_row,
            rows,
            queries: queries as u32,
            need,
            free,
        })
    }
}

impl Layout {
    /// Where a slot's readback holds the row sums of matmul `gemm`, in bytes.
    pub fn rows_at(&self, gemm: usize) -> usize {
        self.queries as usize * 8 + self.first_row[gemm] as usize * 4
    }
}

/// Most bytes that one binding takes.
fn binding_max(gpu: &Gpu) -> u64 {
    let limits = &gpu.limits;
    limits
        .max_storage_buffer_binding_size
        .min(limits.max_buffer_size)
}

/// Refuses what no binding, dispatch or query set of the device takes; returns the timestamps a step needs.
fn within_limits(
    spec: &StepSpec,
    info: &DeviceInfo,
    gpu: &Gpu,
    operand_bytes: [u64; 3],
) -> Result<u64, KernelError> {
    let binding_max = binding_max(gpu);
    let refuse = |what: String| KernelError::Device {
        device: info.id.clone(),
        what,
    };
    if let Some(bytes) = operand_bytes.into_iter().find(|b| *b > binding_max) {
        return Err(refuse(format!(
            "a matrix of the step has {bytes} B, one binding takes {binding_max} B; use smaller matmuls"
        )));
    }
    if let Some(bucket) = spec.buckets.iter().find(|b| b.bytes.0 > binding_max) {
        return Err(refuse(format!(
            "a gradient bucket has {} B, one binding takes {binding_max} B; use smaller buckets",
            bucket.bytes.0
        )));
    }
    let groups_max = gpu.limits.max_compute_workgroups_per_dimension;
    let side = |g: &&hallmark_profiles::workload::Gemm| {
        g.m.div_ceil(16) > groups_max || g.n.div_ceil(64) > groups_max
    };
    if let Some(gemm) = spec.gemms.iter().find(side) {
        return Err(refuse(format!(
            "matmul {gemm} needs more than {groups_max} workgroups along a side; use smaller m or n"
        )));
    }
    // Each matmul can be followed by its audit, and the tail has three phases.
    let queries = 2 * (2 * spec.gemms.len() as u64 + 3);
    if queries > u64::from(QUERIES_MAX) {
        return Err(refuse(format!(
            "a step of {} matmuls needs {queries} timestamps, a query set holds {QUERIES_MAX}; use fewer matmuls per step",
            spec.gemms.len()
        )));
    }
    Ok(queries)
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

/// Cuts `floats` into pieces of whole groups of four that fit one binding.
fn pieces(floats: u64, binding_max: u64) -> Vec<u64> {
    let most = (binding_max / Dtype::F32.bytes()) & !1023;
    let mut left = floats;
    let mut cut = Vec::new();
    while left > 0 {
        let piece = left.min(most);
        cut.push(piece);
        left -= piece;
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_an_array_and_each_fits_a_binding() {
        for floats in [0, 1, 1023, 1024, 1 << 20, (1 << 25) + 7] {
            let cut = pieces(floats, 1 << 22);
            assert_eq!(cut.iter().sum::<u64>(), floats);
            assert!(cut.iter().all(|p| p * 4 <= 1 << 22 && *p > 0));
        }
    }
}
