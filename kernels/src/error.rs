//! What can go wrong between the host and a device, as types that a record can hold.

use crate::collective::CollectiveError;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Dtype, Gemm};

/// A failure of a device or of the work asked of it. Never a panic: a fault is data.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("unknown device `{name}`; known here: {known}")]
    UnknownDevice { name: String, known: String },
    #[error("{device} has no {dtype} matmul; it has {known}")]
    Dtype {
        device: String,
        dtype: Dtype,
        known: String,
    },
    #[error(
        "{device} has {free} free, the step needs {need}; use smaller matmuls or stop other jobs"
    )]
    Memory {
        device: String,
        free: Bytes,
        need: Bytes,
    },
    #[error(
        "matmul {gemm} in {dtype} has no operand range that keeps every partial sum exact, so it could not be audited; use k ≤ {k_max}"
    )]
    NoExactRange {
        gemm: Gemm,
        dtype: Dtype,
        k_max: u64,
    },
    #[error("{device} was lost: {why}")]
    Lost { device: String, why: String },
    #[error("{device} did not finish a step within {waited_ms} ms")]
    Hung { device: String, waited_ms: u64 },
    #[error("{device}: {what}")]
    Device { device: String, what: String },
    #[error(transparent)]
    Collective(#[from] CollectiveError),
}
