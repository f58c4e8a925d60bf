//! The settings a device was found with: who it is, which firmware, which limits.
//!
//! Decides: names, order and units of the list that peers are compared by. Refuses: to change a
//! setting, and to leave one out: what cannot be read says so in its place.
//!
//! Every device has every key of [`KEYS`], in this order; another vendor's sensor uses the same words for the same thing.
//!
//! | key | what | example |
//! |---|---|---|
//! | `name`, `part_number` | the model | `NVIDIA H100 80GB HBM3` |
//! | `uuid`, `serial`, `pci` | which device it is: differs between peers ([`IDENTITY`]) | `0000:1b:00.0` |
//! | `driver`, `nvml`, `cuda`, `vbios` | software and firmware | `580.95.05` |
//! | `ecc`, `mig`, `persistence` | modes: `on`, `off`, `on, off after the next reset` | `on` |
//! | `memory_total` | device memory | `85899345920 B` |
//! | `power_limit_enforced`, `power_limit`, `power_limit_default`, `power_limit_range` | limits of power | `700 W` |
//! | `clock_sm_max`, `clock_memory_max` | highest clocks of the part | `1980 MHz` |
//! | `clock_sm_application`, `clock_memory_application` | clocks that were set for applications | `1980 MHz` |
//! | `temp_gpu_max`, `temp_memory_max`, `temp_slowdown`, `temp_shutdown` | limits of temperature | `87 °C` |
//! | `pcie_generation`, `pcie_width` | the link now; idle devices lower the generation | `5` |
//! | `pcie_generation_max`, `pcie_width_max` | the link as built | `16` |
//! | `nvlinks_active` | links that are up | `18` |
//!
//! `not supported` stands for what the device has not, `unreadable: …` for what it would not tell.

use super::NvmlDevice;
use super::is_unsupported;
use super::links::active_links;
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureThreshold};
use nvml_wrapper::error::NvmlError;

/// All keys, in the order in which they are told.
pub const KEYS: [&str; 30] = [
    "name",
    "uuid",
    "serial",
    "part_number",
    "pci",
    "driver",
    "nvml",
    "cuda",
    "vbios",
    "ecc",
    "mig",
    "persistence",
    "memory_total",
    "power_limit_enforced",
    "power_limit",
    "power_limit_default",
    "power_limit_range",
    "clock_sm_max",
    "clock_memory_max",
    "clock_sm_application",
    "clock_memory_application",
    "temp_gpu_max",
    "temp_memory_max",
    "temp_slowdown",
    "temp_shutdown",
    "pcie_generation",
    "pcie_generation_max",
    "pcie_width",
    "pcie_width_max",
    "nvlinks_active",
];

/// The keys that tell devices apart, so that peers differ in them.
pub const IDENTITY: [&str; 3] = ["uuid", "serial", "pci"];

/// Watts of NVML's milliwatts.
fn watts(milliwatts: u32) -> String {
    format!("{} W", f64::from(milliwatts) / 1e3)
}

fn on_off(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

fn celsius(degrees: u32) -> String {
    format!("{degrees} °C")
}

fn megahertz(mhz: u32) -> String {
    format!("{mhz} MHz")
}

/// A mode that is `now`, and after a reset `pending`.
fn pending_mode(now: bool, pending: bool) -> String {
    if now == pending {
        on_off(now)
    } else {
        format!("{}, {} after the next reset", on_off(now), on_off(pending))
    }
}

pub(super) fn as_found(found: &NvmlDevice) -> Vec<(String, String)> {
    let device = &found.device;
    let nvml = found.library.nvml;
    let mut list = List(Vec::new());
    list.push("name", Ok(found.name.clone()));
    list.push("uuid", Ok(found.uuid.clone()));
    list.push("serial", device.serial());
    list.push("part_number", device.board_part_number());
    list.push("pci", found.pci.clone().ok_or(NvmlError::NotSupported));
    list.push("driver", nvml.sys_driver_version());
    list.push("nvml", nvml.sys_nvml_version());
    let cuda = nvml.sys_cuda_driver_version();
    list.push(
        "cuda",
        cuda.map(|v| format!("{}.{}", v / 1000, v % 1000 / 10)),
    );
    list.push("vbios", device.vbios_version());
    let ecc = device.is_ecc_enabled();
    let ecc = ecc.map(|ecc| pending_mode(ecc.currently_enabled, ecc.pending_enabled));
    list.push("ecc", ecc);
    let mig = device.mig_mode();
    list.push(
        "mig",
        mig.map(|mig| pending_mode(mig.current != 0, mig.pending != 0)),
    );
    list.push("persistence", device.is_in_persistent_mode().map(on_off));
    list.push(
        "memory_total",
        device.memory_info().map(|info| format!("{} B", info.total)),
    );
    list.push(
        "power_limit_enforced",
        device.enforced_power_limit().map(watts),
    );
    list.push("power_limit", device.power_management_limit().map(watts));
    list.push(
        "power_limit_default",
        device.power_management_limit_default().map(watts),
    );
    let range = device.power_management_limit_constraints();
    let range =
        range.map(|range| format!("{} to {}", watts(range.min_limit), watts(range.max_limit)));
    list.push("power_limit_range", range);
    clocks(&mut list, device);
    for (key, threshold) in [
        ("temp_gpu_max", TemperatureThreshold::GpuMax),
        ("temp_memory_max", TemperatureThreshold::MemoryMax),
        ("temp_slowdown", TemperatureThreshold::Slowdown),
        ("temp_shutdown", TemperatureThreshold::Shutdown),
    ] {
        list.push(key, device.temperature_threshold(threshold).map(celsius));
    }
    list.push(
        "pcie_generation",
        device.current_pcie_link_gen().map(|n| n.to_string()),
    );
    list.push(
        "pcie_generation_max",
        device.max_pcie_link_gen().map(|n| n.to_string()),
    );
    list.push(
        "pcie_width",
        device.current_pcie_link_width().map(|n| n.to_string()),
    );
    list.push(
        "pcie_width_max",
        device.max_pcie_link_width().map(|n| n.to_string()),
    );
    let links = active_links(device);
    list.push("nvlinks_active", links.map(|links| links.len().to_string()));
    list.0
}

fn clocks(list: &mut List, device: &Device<'_>) {
    for (key, clock) in [
        ("clock_sm_max", Clock::SM),
        ("clock_memory_max", Clock::Memory),
    ] {
        list.push(key, device.max_clock_info(clock).map(megahertz));
    }
    for (key, clock) in [
        ("clock_sm_application", Clock::SM),
        ("clock_memory_application", Clock::Memory),
    ] {
        list.push(key, device.applications_clock(clock).map(megahertz));
    }
}

struct List(Vec<(String, String)>);

impl List {
    fn push(&mut self, key: &str, value: Result<String, NvmlError>) {
        let value = match value {
            Ok(text) => text,
            Err(error) if is_unsupported(&error) => "not supported".to_owned(),
            Err(error) => format!("unreadable: {error}"),
        };
        self.0.push((key.to_owned(), value));
    }
}
