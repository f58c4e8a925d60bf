//! NVIDIA devices through NVML: which there are, how they are found, what is missing and why.
//!
//! Decides: loading the management library at run time and matching devices by UUID or PCI address.
//! Refuses: to change any setting, and to stand in for what is missing: a library or device that
//! cannot be had is an [`Absent`] with its reason and remedy, a value that a device does not have is
//! no series, a read that fails is a gap with its reason. Nothing becomes zero.
//!
//! NVML's calls block and some hang for seconds when a driver is ill. Each sensor is therefore meant
//! for a thread of its own; a hang holds up that thread alone, and the shell sees the missing
//! samples. The library is never unloaded: to do so under a thread that still waits in a call
//! would crash the process.

use super::DeviceKey;
use hallmark_results::frame::{Provenance, What};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;

mod channel;
mod event;
mod group;
mod library;
mod links;
mod raw;
mod reasons;
mod settings;

pub use group::{Group, NvmlSensor};
pub use settings::{IDENTITY, KEYS};

/// Something that is not there, why, and how to get it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{what} is absent: {why}; {remedy}")]
pub struct Absent {
    pub what: String,
    pub why: String,
    pub remedy: String,
}

impl From<Absent> for What {
    fn from(absent: Absent) -> Self {
        Self::Absent {
            what: absent.what,
            why: absent.why,
            remedy: absent.remedy,
        }
    }
}

/// Why one value could not be read. The value is then missing, never zero.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// The device fell off the bus or needs a reset; every later read fails likewise.
    #[error(
        "gpu {uuid} is lost ({why}); look for its Xid in the kernel log, then reset or power-cycle it"
    )]
    Lost { uuid: String, why: String },
    /// This read failed; the next may not.
    #[error("{what}: {why}")]
    Failed { what: String, why: String },
}

/// The loaded management library; lives as long as the process.
#[derive(Clone, Copy)]
pub struct NvmlLibrary {
    nvml: &'static Nvml,
}

impl NvmlLibrary {
    /// Loads `path`, or the library by its usual name, and starts it.
    ///
    /// # Errors
    /// [`Absent`]: there is no such library, the driver is not loaded, or this user may not ask it.
    pub fn load(path: Option<&Path>) -> Result<Self, Absent> {
        let nvml = match path {
            Some(path) => Nvml::builder().lib_path(path.as_os_str()).init(),
            None => Nvml::init(),
        };
        let nvml = nvml.map_err(|error| library_absent(path, &error))?;
        Ok(Self {
            nvml: Box::leak(Box::new(nvml)),
        })
    }

    /// The version of the library, e.g. `NVML 13.580.95.05`.
    pub fn version(&self) -> String {
        match self.nvml.sys_nvml_version() {
            Ok(version) => format!("NVML {version}"),
            Err(error) => format!("NVML of unknown version ({error})"),
        }
    }

    /// The file that was really loaded and its SHA-256, as settings found.
    pub fn file(&self) -> Vec<(String, String)> {
        library::as_found(self.nvml)
    }

    /// Every device that the library can open, and those that it cannot.
    pub fn devices(&self) -> (Vec<NvmlDevice>, Vec<Absent>) {
        let count = match self.nvml.device_count() {
            Ok(count) => count,
            Err(error) => return (Vec::new(), vec![device_absent("nvidia devices", &error)]),
        };
        let mut present = Vec::new();
        let mut absent = Vec::new();
        for index in 0..count {
            let opened = self.nvml.device_by_index(index);
            match opened.and_then(|device| NvmlDevice::identify(*self, device)) {
                Ok(device) => present.push(device),
                Err(error) => absent.push(device_absent(&format!("nvidia gpu {index}"), &error)),
            }
        }
        (present, absent)
    }

    /// Opens the device that `key` names, by UUID where it has one, else by PCI address.
    ///
    /// # Errors
    /// [`Absent`]: the key is empty, or the library does not know or cannot open the device.
    pub fn open(&self, key: &DeviceKey) -> Result<NvmlDevice, Absent> {
        let (what, opened) = match (&key.uuid, &key.pci) {
            (Some(uuid), _) => (
                format!("gpu {uuid}"),
                self.nvml.device_by_uuid(uuid.as_str()),
            ),
            (None, Some(pci)) => (
                format!("gpu at {pci}"),
                self.nvml.device_by_pci_bus_id(pci.as_str()),
            ),
            (None, None) => {
                return Err(Absent {
                    what: "nvml telemetry".to_owned(),
                    why: "the compute device has neither a uuid nor a pci address".to_owned(),
                    remedy: "use a backend that names its device, such as cuda".to_owned(),
                });
            }
        };
        opened
            .and_then(|device| NvmlDevice::identify(*self, device))
            .map_err(|error| device_absent(&what, &error))
    }
}

fn library_absent(path: Option<&Path>, error: &NvmlError) -> Absent {
    let name = path.map_or_else(
        || "libnvidia-ml.so.1".to_owned(),
        |path| path.display().to_string(),
    );
    let (why, remedy) = match error {
        NvmlError::LibloadingError(error) => (
            format!("{name} could not be loaded ({error})"),
            "install the nvidia driver's management library, or name its path",
        ),
        NvmlError::DriverNotLoaded => (
            "the nvidia kernel driver is not loaded".to_owned(),
            "load it with `modprobe nvidia`",
        ),
        NvmlError::LibRmVersionMismatch => (
            format!("{name} and the loaded kernel driver have different versions"),
            "reboot, or reload the kernel driver",
        ),
        NvmlError::NoPermission => (
            "this user may not talk to the nvidia driver".to_owned(),
            "give this user access to /dev/nvidiactl",
        ),
        other => (
            format!("{name} did not start ({other})"),
            "see that `nvidia-smi` works on this machine",
        ),
    };
    Absent {
        what: "NVML".to_owned(),
        why,
        remedy: remedy.to_owned(),
    }
}

fn device_absent(what: &str, error: &NvmlError) -> Absent {
    let remedy = match error {
        NvmlError::GpuLost | NvmlError::ResetRequired => {
            "look for its Xid in the kernel log, then reset or power-cycle it"
        }
        NvmlError::NotFound | NvmlError::InvalidArg => {
            "compare with `nvidia-smi -L`; inside a container the device must be passed in"
        }
        NvmlError::NoPermission => "give this user access to the /dev/nvidia* files",
        _ => "see what `nvidia-smi -q` says of it",
    };
    Absent {
        what: what.to_owned(),
        why: error.to_string(),
        remedy: remedy.to_owned(),
    }
}

/// One device that NVML knows, with what tells it from all others.
#[derive(Clone)]
pub struct NvmlDevice {
    library: NvmlLibrary,
    device: Arc<Device<'static>>,
    name: String,
    uuid: String,
    /// `dddd:bb:dd.f`, where the library gives one.
    pci: Option<String>,
    /// The place in NVML's own list: good for a name, never for matching.
    index: u32,
}

impl NvmlDevice {
    fn identify(library: NvmlLibrary, device: Device<'static>) -> Result<Self, NvmlError> {
        Ok(Self {
            library,
            name: device.name()?,
            uuid: device.uuid()?,
            pci: device
                .pci_info()
                .ok()
                .and_then(|info| pci_address(&info.bus_id)),
            index: device.index()?,
            device: Arc::new(device),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn key(&self) -> DeviceKey {
        DeviceKey {
            uuid: Some(self.uuid.clone()),
            pci: self.pci.clone(),
        }
    }

    /// The stand-in library names its devices `Fake …`; what it says is never a measurement.
    pub fn provenance(&self) -> Provenance {
        if self.name.starts_with("Fake") {
            Provenance::StandIn
        } else {
            Provenance::Measured
        }
    }

    /// The settings as found, in the order to print them; a setting that could not be read says why.
    pub fn as_found(&self) -> Vec<(String, String)> {
        settings::as_found(self)
    }

    /// The sensor of one group of this device's series; asks once what the device supports.
    pub fn sensor(&self, group: Group) -> NvmlSensor {
        NvmlSensor::open(self.clone(), group)
    }

    fn read_error(&self, what: &str, error: &NvmlError) -> ReadError {
        match error {
            NvmlError::GpuLost | NvmlError::ResetRequired => ReadError::Lost {
                uuid: self.uuid.clone(),
                why: error.to_string(),
            },
            other => ReadError::Failed {
                what: what.to_owned(),
                why: other.to_string(),
            },
        }
    }
}

/// Whether a device that answers so at its first question will answer so to all of them.
fn is_unsupported(error: &NvmlError) -> bool {
    /// `NVML_ERROR_ARGUMENT_VERSION_MISMATCH`: the driver is older or newer than the structure.
    const VERSION_MISMATCH: u32 = 25;
    matches!(
        error,
        NvmlError::NotSupported
            | NvmlError::NoPermission
            | NvmlError::InvalidArg
            | NvmlError::FunctionNotFound
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::UnexpectedVariant(VERSION_MISMATCH)
    )
}

/// NVML's `00000000:1B:00.0` as `0000:1b:00.0`; nothing for what has another shape.
fn pci_address(bus_id: &str) -> Option<String> {
    let (domain, rest) = bus_id.split_once(':')?;
    let domain = u32::from_str_radix(domain, 16).ok()?;
    let shape = |c: char| if c.is_ascii_hexdigit() { 'x' } else { c };
    let well_formed = rest.chars().map(shape).eq("xx:xx.x".chars());
    well_formed.then(|| format!("{domain:04x}:{}", rest.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_address_is_written_as_the_kernel_writes_it() {
        assert_eq!(
            pci_address("00000000:1B:00.0").as_deref(),
            Some("0000:1b:00.0")
        );
        assert_eq!(
            pci_address("00010000:AF:00.0").as_deref(),
            Some("10000:af:00.0")
        );
        for hostile in [
            "",
            ":",
            "zz:00:00.0",
            "0000:\u{1b}[2J",
            "0000:1b",
            "0000:1b:00.00",
        ] {
            assert_eq!(pci_address(hostile), None, "{hostile:?}");
        }
    }

    #[test]
    fn a_missing_library_says_why_and_what_to_do() {
        let absent = NvmlLibrary::load(Some(Path::new("/nowhere/libnvidia-ml.so.1")))
            .map(|_| ())
            .unwrap_err();
        assert!(
            absent.why.contains("/nowhere/libnvidia-ml.so.1"),
            "{absent}"
        );
        assert!(absent.remedy.starts_with("install"), "{absent}");
    }
}
