//! The script: what the fake driver answers, and when.
//!
//! Decides: the JSON format (unknown keys are errors, so that a misspelt reading cannot pass for an
//! absent one). Times are seconds since `nvmlInit_v2`. A reading that a device does not name is
//! one that it does not have: the call answers `NVML_ERROR_NOT_SUPPORTED`.
//! Refuses: device names that do not begin with `Fake`, doubled UUIDs, timelines out of order.

use crate::abi::Status;
use crate::timeline::Timeline;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    #[serde(default = "default_driver")]
    pub driver_version: String,
    #[serde(default = "default_nvml")]
    pub nvml_version: String,
    /// Major × 1000 + minor × 10, as CUDA writes it.
    #[serde(default = "default_cuda")]
    pub cuda_version: u32,
    /// A file with the time in seconds; without it the steady clock runs.
    #[serde(default)]
    pub clock_file: Option<PathBuf>,
    /// Functions that answer `NVML_ERROR_FUNCTION_NOT_FOUND`.
    #[serde(default)]
    pub missing: Vec<String>,
    #[serde(default)]
    pub faults: Vec<Fault>,
    pub devices: Vec<Device>,
}

/// What befalls the calls that it meets: they hang, then fail, or either.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// A symbol, `field:186` for one field value, or `*` for every call.
    pub function: String,
    /// The device's place in the list; without it the fault meets every device.
    #[serde(default)]
    pub device: Option<usize>,
    #[serde(default)]
    pub from_s: f64,
    #[serde(default)]
    pub until_s: Option<f64>,
    /// How long the call hangs before it answers.
    #[serde(default)]
    pub hang_s: f64,
    /// The error it ends with; without one it is answered.
    #[serde(default)]
    pub code: Option<Status>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub name: String,
    pub uuid: String,
    #[serde(default)]
    pub serial: Option<String>,
    #[serde(default)]
    pub part_number: Option<String>,
    /// `domain:bus:device.function` in hexadecimal, e.g. `00000000:1B:00.0`.
    pub pci_bus_id: String,
    #[serde(default)]
    pub vbios_version: Option<String>,
    #[serde(default)]
    pub events: Vec<Event>,
    #[serde(default)]
    pub readings: BTreeMap<Reading, Timeline>,
    /// Field values by id, e.g. `"186"`; `"161@3"` is scope 3 (a link) of field 161.
    #[serde(default)]
    pub fields: BTreeMap<String, Timeline>,
    /// The types of fields that are not unsigned 64-bit integers.
    #[serde(default)]
    pub field_types: BTreeMap<String, FieldType>,
}

/// `nvmlValueType_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    Double = 0,
    UnsignedInt = 1,
    UnsignedLong = 2,
    #[default]
    UnsignedLongLong = 3,
    SignedLongLong = 4,
    SignedInt = 5,
    UnsignedShort = 6,
}

/// An event that `nvmlEventSetWait_v2` delivers once to each set registered before it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    pub at_s: f64,
    /// The event's bit; 8 is a critical Xid error.
    #[serde(default = "xid_event")]
    pub kind: u64,
    /// For a critical Xid error, its number.
    pub data: u64,
}

/// Every value that a function answers with, in NVML's own units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    PowerUsageMw,
    EnergyMj,
    TemperatureC,
    MarginTemperatureC,
    ThresholdShutdownC,
    ThresholdSlowdownC,
    ThresholdMemoryMaxC,
    ThresholdGpuMaxC,
    ClockGraphicsMhz,
    ClockSmMhz,
    ClockMemoryMhz,
    ClockVideoMhz,
    ClockGraphicsMhzMax,
    ClockSmMhzMax,
    ClockMemoryMhzMax,
    ClockVideoMhzMax,
    ReasonsMask,
    UtilizationGpuPercent,
    UtilizationMemoryPercent,
    MemoryTotalBytes,
    MemoryReservedBytes,
    MemoryUsedBytes,
    EccMode,
    EccModePending,
    MigMode,
    MigModePending,
    PersistenceMode,
    EccCorrectedVolatile,
    EccUncorrectedVolatile,
    EccCorrectedAggregate,
    EccUncorrectedAggregate,
    RemappedCorrectable,
    RemappedUncorrectable,
    RemapPending,
    RemapFailed,
    PowerLimitMw,
    PowerLimitDefaultMw,
    PowerLimitEnforcedMw,
    PowerLimitMinMw,
    PowerLimitMaxMw,
    PcieGeneration,
    PcieGenerationMax,
    PcieWidth,
    PcieWidthMax,
    PcieReplays,
    /// Links 0 to this number (exclusive) are active.
    NvlinkCount,
    /// Per link: each active link answers the same.
    NvlinkReplays,
    NvlinkRecoveries,
    NvlinkCrcFlit,
    NvlinkCrcData,
}

fn default_driver() -> String {
    "580.95.05".into()
}

fn default_nvml() -> String {
    "13.580.95.05".into()
}

fn default_cuda() -> u32 {
    13_000
}

fn xid_event() -> u64 {
    8
}

impl Script {
    /// Reads and checks the script at `path`; the error is a sentence for standard error.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let script: Self = serde_json::from_str(&text)
            .map_err(|error| format!("cannot understand {}: {error}", path.display()))?;
        script.check()?;
        Ok(script)
    }

    fn check(&self) -> Result<(), String> {
        for (place, device) in self.devices.iter().enumerate() {
            if !device.name.starts_with("Fake") {
                return Err(format!(
                    "device {place} is named `{}`; a stand-in's name begins with `Fake`",
                    device.name
                ));
            }
            if self.devices[..place]
                .iter()
                .any(|other| other.uuid == device.uuid)
            {
                return Err(format!("uuid `{}` is given twice", device.uuid));
            }
            let timelines = device.readings.values().chain(device.fields.values());
            if let Some(fault) = timelines.into_iter().find_map(Timeline::fault) {
                return Err(format!("device {place}: {fault}"));
            }
        }
        Ok(())
    }
}

impl Fault {
    /// Whether this fault meets a call of `function` on `device` at `now_s`.
    pub fn meets(&self, function: &str, device: Option<usize>, now_s: f64) -> bool {
        let function_fits = self.function == "*" || self.function == function;
        let device_fits = self.device.is_none() || self.device == device;
        let time_fits = self.from_s <= now_s && self.until_s.is_none_or(|until_s| now_s < until_s);
        function_fits && device_fits && time_fits
    }
}

impl Device {
    /// The value of `reading` at `now_s`, or that this device has none.
    pub fn value(&self, reading: Reading, now_s: f64) -> Result<f64, Status> {
        self.readings
            .get(&reading)
            .map(|timeline| timeline.value(now_s))
            .ok_or(Status::NotSupported)
    }

    /// The PCI address as (domain, bus, device, function).
    pub fn pci_address(&self) -> Option<(u32, u32, u32, u32)> {
        parse_pci(&self.pci_bus_id)
    }
}

/// Parses `domain:bus:device.function` in hexadecimal.
pub fn parse_pci(text: &str) -> Option<(u32, u32, u32, u32)> {
    let (rest, function) = text.split_once('.')?;
    let mut parts = rest
        .split(':')
        .map(|part| u32::from_str_radix(part, 16).ok());
    let (domain, bus, device) = (parts.next()??, parts.next()??, parts.next()??);
    let function = u32::from_str_radix(function, 16).ok()?;
    parts
        .next()
        .is_none()
        .then_some((domain, bus, device, function))
}
