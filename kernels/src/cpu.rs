//! The engine for processors: matmul, copy, triad and optimizer on the host's own cores.
//!
//! A device is a share of the cores. Its work runs on a thread of its own, in the order queued, with
//! the all-reduce beside it on another; see [`step`]. The host's clock is this device's clock.

pub mod matmul;
pub mod memory;
pub mod pool;
mod reduce;
mod step;

use crate::backend::{Backend, Device, PreparedStep};
use crate::collective::Collective;
use crate::device::{Absent, DeviceInfo};
use crate::error::KernelError;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Dtype, StepSpec};

/// The processor as an engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

impl Cpu {
    pub const fn new() -> Self {
        Self
    }
}

/// Shares that the processor is offered in where it has one memory domain: two ranks, so that an
/// all-reduce has something to reduce.
const SHARES: usize = 2;

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn list(&self) -> Result<Vec<DeviceInfo>, Absent> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let nodes = numa_nodes();
        let count = if nodes > 1 { nodes } else { SHARES }.min(cores).max(1);
        let (name, vendor) = processor();
        let memory = available_memory();
        let mut dtypes = vec![Dtype::F32];
        if matmul::has_bf16() {
            dtypes.insert(0, Dtype::Bf16);
        }
        let device = |index: usize| DeviceInfo {
            id: format!("cpu{index}"),
            engine: "cpu".to_owned(),
            name: name.clone(),
            vendor: vendor.clone(),
            pci: None,
            uuid: None,
            driver: String::new(),
            memory,
            dtypes: dtypes.clone(),
            software: true,
            cores: Vec::new(),
            facts: vec![(
                "matmul".to_owned(),
                format!("own, {}", matmul::engine_name()),
            )],
        };
        Ok((0..count).map(device).collect())
    }

    fn open(&self, info: &DeviceInfo) -> Result<Box<dyn Device>, KernelError> {
        let mut info = info.clone();
        if info.cores.is_empty() {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            info.cores = (0..cores).collect();
        }
        Ok(Box::new(CpuDevice { info }))
    }
}

struct CpuDevice {
    info: DeviceInfo,
}

impl Device for CpuDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn free_memory(&self) -> Bytes {
        available_memory()
    }

    fn prepare(
        &mut self,
        spec: &StepSpec,
        collective: Option<Box<dyn Collective>>,
    ) -> Result<Box<dyn PreparedStep>, KernelError> {
        if !self.info.dtypes.contains(&spec.dtype) {
            let known = self
                .info
                .dtypes
                .iter()
                .map(|d| d.name())
                .collect::<Vec<_>>();
            return Err(KernelError::Dtype {
                device: self.info.id.clone(),
                dtype: spec.dtype,
                known: known.join(", "),
            });
        }
        let (free, need) = (available_memory(), spec.footprint());
        if need > free {
            return Err(KernelError::Memory {
                device: self.info.id.clone(),
                free,
                need,
            });
        }
        Ok(Box::new(step::CpuStep::new(&self.info, spec, collective)?))
    }
}

fn first_value(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|l| l.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn processor() -> (String, String) {
    let name = first_value("/proc/cpuinfo", "model name");
    let vendor = first_value("/proc/cpuinfo", "vendor_id");
    let unknown = || std::env::consts::ARCH.to_owned();
    (name.unwrap_or_else(unknown), vendor.unwrap_or_else(unknown))
}

/// Memory that can be had without swapping; where the system does not say, nothing is promised.
fn available_memory() -> Bytes {
    let kib = first_value("/proc/meminfo", "MemAvailable")
        .and_then(|v| v.split(' ').next()?.parse::<u64>().ok());
    #[cfg(target_os = "linux")]
    let unknown = Bytes(0);
    // Elsewhere the system has no such file; a modest figure keeps the plan's check meaningful.
    #[cfg(not(target_os = "linux"))]
    let unknown = Bytes::gibibytes(4);
    kib.map_or(unknown, |kib| Bytes(kib * 1024))
}

fn numa_nodes() -> usize {
    let entries = std::fs::read_dir("/sys/devices/system/node")
        .into_iter()
        .flatten()
        .flatten();
    let is_node = |name: &str| {
        name.strip_prefix("node")
            .is_some_and(|n| n.parse::<u32>().is_ok())
    };
    entries
        .filter(|e| e.file_name().to_str().is_some_and(is_node))
        .count()
        .max(1)
}

#[cfg(test)]
mod tests;
