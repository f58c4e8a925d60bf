//! Decides which NVIDIA devices this engine drives, what they are called and what is said of each before it is opened.
//!
//! No context is made: listing costs a device nothing. Devices are numbered by PCI address, so that `cuda0` is the
//! same device whatever order the driver prefers. Refuses devices before compute capability 8.0, for which
//! the kernels are not built, and names them as absent.

use super::driver::{Driver, Failure, cuda_version};
use crate::device::{Absent, DeviceInfo};
use cudarc::driver::sys::{CUdevice, CUdevice_attribute as Attribute, CUuuid};
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::Dtype;
use std::ffi::CStr;
use std::path::Path;

/// First compute capability that the kernels are built for.
const CAPABILITY_MIN: u32 = 80;
/// First compute capability with tensor cores for 8-bit floats.
pub(super) const CAPABILITY_FP8: u32 = 89;

/// What the driver says of one device.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found {
    pub device: CUdevice,
    pub name: String,
    pub pci: String,
    pub uuid: String,
    pub memory: Bytes,
    /// 10 · major + minor.
    pub capability: u32,
    pub multiprocessors: u32,
    pub l2: Bytes,
    pub ecc: bool,
}

/// Every device of the driver, by PCI address.
pub(super) fn find(driver: &Driver) -> Result<Vec<Found>, Failure> {
    let mut count = 0;
    // SAFETY: the driver is initialised and writes one number.
    let status = unsafe { (driver.calls.cuDeviceGetCount)(&raw mut count) };
    driver.ok(status, "count the devices")?;
    let mut found: Vec<Found> = (0..count)
        .map(|index| one(driver, index))
        .collect::<Result<_, _>>()?;
    found.sort_by(|a, b| a.pci.cmp(&b.pci));
    Ok(found)
}

fn one(driver: &Driver, index: i32) -> Result<Found, Failure> {
    let calls = &driver.calls;
    let mut device: CUdevice = 0;
    let mut name = [0; 256];
    let mut pci = [0; 32];
    let mut uuid = CUuuid { bytes: [0; 16] };
    let mut memory = 0_usize;
    // SAFETY: each call writes to a local of the size it is told, and `device` is set before it is used.
    unsafe {
        driver.ok(
            (calls.cuDeviceGet)(&raw mut device, index),
            "find a device by its number",
        )?;
        let length = name.len() as i32;
        driver.ok(
            (calls.cuDeviceGetName)(name.as_mut_ptr(), length, device),
            "read a device's name",
        )?;
        let length = pci.len() as i32;
        driver.ok(
            (calls.cuDeviceGetPCIBusId)(pci.as_mut_ptr(), length, device),
            "read a device's PCI address",
        )?;
        driver.ok(
            (calls.cuDeviceGetUuid_v2)(&raw mut uuid, device),
            "read a device's UUID",
        )?;
        driver.ok(
            (calls.cuDeviceTotalMem_v2)(&raw mut memory, device),
            "read a device's memory",
        )?;
    }
    let attribute = |which: Attribute| -> Result<u32, Failure> {
        let mut value = 0;
        // SAFETY: writes one number.
        let status = unsafe { (calls.cuDeviceGetAttribute)(&raw mut value, which, device) };
        driver.ok(status, "read a device's attribute")?;
        Ok(u32::try_from(value).unwrap_or(0))
    };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let l2 = attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?;
    Ok(Found {
        device,
        name: text(&name),
        pci: text(&pci).to_lowercase(),
        uuid: uuid_text(&uuid.bytes.map(|b| b as u8)),
        memory: Bytes(memory as u64),
        capability: 10 * major + minor,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        l2: Bytes(u64::from(l2)),
        ecc: attribute(Attribute::CU_DEVICE_ATTRIBUTE_ECC_ENABLED)? != 0,
    })
}

fn text(buffer: &[core::ffi::c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().map(|c| *c as u8).collect();
    CStr::from_bytes_until_nul(&bytes)
        .map_or_else(|_| String::new(), |s| s.to_string_lossy().into_owned())
}

/// A UUID as NVML and nvidia-smi write it, so that telemetry is matched to the device that computes.
fn uuid_text(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    let parts = [
        part(0..8),
        part(8..12),
        part(12..16),
        part(16..20),
        part(20..32),
    ];
    format!("GPU-{}", parts.join("-"))
}

impl Found {
    pub fn is_served(&self) -> bool {
        self.capability >= CAPABILITY_MIN
    }

    /// For the record, as number `index`.
    pub fn info(&self, index: usize, driver: &Driver, release: Option<&str>) -> DeviceInfo {
        let fact = |key: &str, value: String| (key.to_owned(), value);
        let capability = format!("{}.{}", self.capability / 10, self.capability % 10);
        DeviceInfo {
            id: format!("cuda{index}"),
            engine: "cuda".to_owned(),
            name: self.name.clone(),
            vendor: "NVIDIA".to_owned(),
            pci: Some(self.pci.clone()),
            uuid: Some(self.uuid.clone()),
            driver: release.map_or_else(|| cuda_version(driver.cuda), str::to_owned),
            memory: self.memory,
            dtypes: self.dtypes(),
            software: false,
            cores: Vec::new(),
            facts: vec![
                fact("compute_capability", capability),
                fact("cuda_of_driver", cuda_version(driver.cuda)),
                fact("driver_library", driver.file.display().to_string()),
                fact("multiprocessors", self.multiprocessors.to_string()),
                fact("l2_bytes", self.l2.0.to_string()),
                fact("ecc", if self.ecc { "on" } else { "off" }.to_owned()),
            ],
        }
    }

    /// The types this engine multiplies on the device, those of training first.
    fn dtypes(&self) -> Vec<Dtype> {
        let mut dtypes = vec![
            Dtype::Bf16,
            Dtype::F16,
            Dtype::Tf32,
            Dtype::F32,
            Dtype::F64,
            Dtype::Int8,
        ];
        if self.capability >= CAPABILITY_FP8 {
            dtypes.extend([Dtype::Fp8E4m3, Dtype::Fp8E5m2]);
        }
        dtypes
    }

    /// That this device is left to another engine.
    pub fn unserved(&self) -> Absent {
        Absent {
            what: format!("cuda on {} at {}", self.name, self.pci),
            why: format!(
                "compute capability {}.{}, kernels are built for 8.0 and later",
                self.capability / 10,
                self.capability % 10
            ),
            remedy: "load it through wgpu (install its Vulkan driver)".to_owned(),
        }
    }
}

/// The kernel driver's release, e.g. `550.54.15`.
pub(super) fn release() -> Option<String> {
    let text = std::fs::read_to_string("/sys/module/nvidia/version").ok()?;
    Some(text.trim().to_owned()).filter(|t| !t.is_empty())
}

/// PCI addresses of NVIDIA's display and 3D controllers, whatever driver has them.
pub(super) fn on_the_bus(devices: &Path) -> Vec<String> {
    let read = |folder: &Path, file: &str| {
        std::fs::read_to_string(folder.join(file))
            .ok()
            .and_then(|text| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok())
    };
    let entries = std::fs::read_dir(devices).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries
        .filter(|entry| {
            let folder = entry.path();
            // Class 03: display controllers, 3D controllers among them (PCI code and ID assignment, section 1).
            read(&folder, "vendor") == Some(0x10de)
                && read(&folder, "class").is_some_and(|class| class >> 16 == 3)
        })
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_written_as_nvml_writes_it() {
        let bytes = [
            0x24, 0x7b, 0xe9, 0x8d, 0x06, 0xd9, 0xd6, 0x2b, 0x98, 0x36, 0x6c, 0x1d, 0xa4, 0x0d,
            0xde, 0xac,
        ];
        assert_eq!(
            uuid_text(&bytes),
            "GPU-247be98d-06d9-d62b-9836-6c1da40ddeac"
        );
    }

    #[test]
    fn nvidia_devices_are_seen_on_the_bus_without_a_driver() {
        let root = std::env::temp_dir().join(format!("hallmark-bus-{}", std::process::id()));
        let device = |address: &str, vendor: &str, class: &str| {
            let folder = root.join(address);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("vendor"), vendor).unwrap();
            std::fs::write(folder.join("class"), class).unwrap();
        };
        device("0000:1b:00.0", "0x10de\n", "0x030200\n");
        device("0000:1c:00.0", "0x10de\n", "0x068000\n"); // a switch
        device("0000:1d:00.0", "0x8086\n", "0x030000\n");
        let found = on_the_bus(&root);
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, ["0000:1b:00.0"]);
        assert_eq!(on_the_bus(&root), Vec::<String>::new());
    }

    #[test]
    fn eight_bit_floats_are_offered_only_where_the_tensor_cores_have_them() {
        let found = |capability| Found {
            device: 0,
            name: String::new(),
            pci: String::new(),
            uuid: String::new(),
            memory: Bytes(0),
            capability,
            multiprocessors: 1,
            l2: Bytes(0),
            ecc: true,
        };
        assert!(!found(75).is_served() && found(80).is_served());
        assert!(!found(80).dtypes().contains(&Dtype::Fp8E4m3));
        assert!(found(90).dtypes().contains(&Dtype::Fp8E4m3));
    }
}
