//! Decides how any Vulkan, Metal or DX12 device is found, described and opened.
//!
//! Own WGSL in `wgsl/`; one matmul for adapters with silicon of their own, another for adapters that run
//! on the processor's cores, chosen by the adapter's type and named in [`DeviceInfo::facts`]. Refuses GL (no
//! timestamps, no exact limits) and to open an adapter other than the one that was listed. A lost device,
//! exhausted memory and an error of the driver are values, never a panic.

use crate::backend::{Backend, Device, PreparedStep};
use crate::collective::Collective;
use crate::device::{Absent, DeviceInfo};
use crate::error::KernelError;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::StepSpec;
use std::sync::Arc;

mod adapter;
mod arrays;
mod encode;
mod feeder;
mod flight;
mod gpu;
mod layout;
mod pipelines;
mod step;

#[cfg(test)]
mod tests;

pub use pipelines::Variant;

/// What a caller may fix instead of leaving it to the adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The matmul to run; `None` chooses by the adapter's type.
    pub variant: Option<Variant>,
    /// Times steps by the host even where the device has timestamps.
    pub host_clock: bool,
}

/// The engine `wgpu`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wgpu {
    pub options: Options,
}

impl Backend for Wgpu {
    fn name(&self) -> &'static str {
        "wgpu"
    }

    fn list(&self) -> Result<Vec<DeviceInfo>, Absent> {
        let found: Vec<_> = adapter::enumerate()
            .iter()
            .enumerate()
            .map(|(index, adapter)| adapter::describe(adapter, index, self.options))
            .collect();
        if found.is_empty() {
            return Err(Absent {
                what: "wgpu".into(),
                why: "no Vulkan, Metal or DX12 driver offers an adapter".into(),
                remedy:
                    "install the GPU's driver, or Mesa's software one (Debian: mesa-vulkan-drivers)"
                        .into(),
            });
        }
        Ok(found)
    }

    fn open(&self, info: &DeviceInfo) -> Result<Box<dyn Device>, KernelError> {
        let adapters = adapter::enumerate();
        let known: Vec<DeviceInfo> = adapters
            .iter()
            .enumerate()
            .map(|(index, adapter)| adapter::describe(adapter, index, self.options))
            .collect();
        let same = |d: &&DeviceInfo| d.id == info.id && d.name == info.name && d.pci == info.pci;
        let Some(index) = known.iter().position(|d| same(&d)) else {
            let known: Vec<_> = known
                .iter()
                .map(|d| format!("{} ({})", d.id, d.name))
                .collect();
            return Err(KernelError::UnknownDevice {
                name: format!("{} ({})", info.id, info.name),
                known: known.join(", "),
            });
        };
        let gpu = gpu::Gpu::open(&adapters[index], &info.id, self.options)?;
        Ok(Box::new(Opened {
            info: info.clone(),
            gpu: Arc::new(gpu),
        }))
    }
}

struct Opened {
    info: DeviceInfo,
    gpu: Arc<gpu::Gpu>,
}

impl Device for Opened {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn free_memory(&self) -> Bytes {
        Bytes(self.info.memory.0.saturating_sub(self.gpu.allocated()))
    }

    fn prepare(
        &mut self,
        spec: &StepSpec,
        collective: Option<Box<dyn Collective>>,
    ) -> Result<Box<dyn PreparedStep>, KernelError> {
        let layout = layout::Layout::new(spec, &self.info, &self.gpu, self.free_memory())?;
        Ok(Box::new(step::Step::new(
            Arc::clone(&self.gpu),
            spec,
            layout,
            collective,
        )?))
    }
}
