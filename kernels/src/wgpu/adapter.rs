//! Decides which adapters count as devices and what is said of each before it is opened.
//!
//! Refuses to guess: a PCI address, a memory size or a type that the driver does not state is left out or
//! bounded by a limit it does state, and the facts say which.

use super::Options;
use super::pipelines::Variant;
use crate::device::DeviceInfo;
use ::wgpu::{Adapter, Backends, DeviceType, Features};
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::Dtype;
use rustix::thread::{CpuSet, sched_getaffinity};

/// The programming interfaces that give timestamps and exact limits.
const INTERFACES: Backends = Backends::VULKAN
    .union(Backends::METAL)
    .union(Backends::DX12);

/// Every adapter, one per physical device: one that two interfaces offer is taken from the first.
pub(super) fn enumerate() -> Vec<Adapter> {
    let mut descriptor = ::wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = INTERFACES;
    descriptor.flags = ::wgpu::InstanceFlags::empty();
    let instance = ::wgpu::Instance::new(descriptor);
    let mut kept: Vec<Adapter> = Vec::new();
    for adapter in pollster::block_on(instance.enumerate_adapters(INTERFACES)) {
        let info = adapter.get_info();
        let twin = kept.iter().any(|k| {
            let k = k.get_info();
            k.backend != info.backend
                && (k.vendor, k.device, &k.device_pci_bus_id)
                    == (info.vendor, info.device, &info.device_pci_bus_id)
        });
        if !twin {
            kept.push(adapter);
        }
    }
    kept
}

/// Identity, abilities and limits of one adapter.
pub(super) fn describe(adapter: &Adapter, index: usize, options: Options) -> DeviceInfo {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let features = adapter.features();
    let software = info.device_type == DeviceType::Cpu;
    let (memory, memory_source) = memory(adapter);
    let mut dtypes = vec![Dtype::F32];
    if features.contains(Features::SHADER_F16) {
        dtypes.push(Dtype::F16);
    }
    let timer = if features.contains(Features::TIMESTAMP_QUERY) && !options.host_clock {
        "device timestamps".to_owned()
    } else {
        "host clock around each submission: an upper bound".to_owned()
    };
    let variant = options.variant.unwrap_or(Variant::of(info.device_type));
    DeviceInfo {
        id: format!("wgpu{index}"),
        engine: "wgpu".into(),
        name: info.name.clone(),
        vendor: vendor(info.vendor),
        pci: Some(info.device_pci_bus_id.to_lowercase()).filter(|id| !id.is_empty()),
        uuid: None,
        driver: format!("{} {}", info.driver, info.driver_info)
            .trim()
            .to_owned(),
        memory,
        dtypes,
        software,
        cores: if software {
            allowed_cores()
        } else {
            Vec::new()
        },
        facts: vec![
            ("interface".into(), format!("{:?}", info.backend)),
            ("type".into(), format!("{:?}", info.device_type)),
            ("matmul".into(), variant.describe().into()),
            ("timer".into(), timer),
            ("memory_source".into(), memory_source.into()),
            (
                "binding_bytes_max".into(),
                limits.max_storage_buffer_binding_size.to_string(),
            ),
            (
                "buffer_bytes_max".into(),
                limits.max_buffer_size.to_string(),
            ),
            (
                "subgroup".into(),
                format!("{}..={}", info.subgroup_min_size, info.subgroup_max_size),
            ),
        ],
    }
}

/// Cores this thread may run on; empty where the system does not say.
fn allowed_cores() -> Vec<usize> {
    sched_getaffinity(None).map_or_else(
        |_| Vec::new(),
        |set| {
            (0..CpuSet::MAX_CPU)
                .filter(|&core| set.is_set(core))
                .collect()
        },
    )
}

/// Device-local memory, and where the figure comes from.
fn memory(adapter: &Adapter) -> (Bytes, &'static str) {
    vulkan_heap(adapter).map_or_else(
        || {
            (
                Bytes(adapter.limits().max_buffer_size),
                "largest buffer: this interface states no memory size",
            )
        },
        |bytes| (Bytes(bytes), "largest device-local Vulkan heap"),
    )
}

#[cfg(any(target_os = "linux", target_os = "windows"))]
fn vulkan_heap(adapter: &Adapter) -> Option<u64> {
    // SAFETY: the guard lives to the end of this function, nothing is destroyed through it, and the physical
    // device belongs to the instance it is asked of.
    unsafe {
        let vulkan = adapter.as_hal::<::wgpu::hal::api::Vulkan>()?;
        let instance = vulkan.shared_instance().raw_instance();
        let memory = instance.get_physical_device_memory_properties(vulkan.raw_physical_device());
        memory
            .memory_heaps_as_slice()
            .iter()
            // Bit 0 of a heap's flags: local to the device (Vulkan specification, VkMemoryHeapFlagBits).
            .filter(|heap| heap.flags.as_raw() & 1 == 1)
            .map(|heap| heap.size)
            .max()
    }
}

#[cfg(not(any(target_os = "linux", target_os = "windows")))]
fn vulkan_heap(_: &Adapter) -> Option<u64> {
    None
}

/// PCI vendor ids of those who make GPUs, and Mesa's own from the Khronos register.
fn vendor(id: u32) -> String {
    match id {
        0x10de => "NVIDIA".into(),
        0x1002 => "AMD".into(),
        0x8086 => "Intel".into(),
        0x106b => "Apple".into(),
        0x13b5 => "Arm".into(),
        0x5143 => "Qualcomm".into(),
        0x1_0005 => "Mesa".into(),
        other => format!("{other:#06x}"),
    }
}
