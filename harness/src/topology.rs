//! What is there: the devices of this node, which of them take part, and who shares whose cores.

pub mod apart;

use crate::engines::{self, Choice};
use apart::Listing;
use hallmark_kernels::device::{Absent, DeviceInfo};
use hallmark_profiles::units::Bytes;
use hallmark_results::frame::Host;
use std::time::Duration;

/// Everything found on this node.
#[derive(Clone, Debug)]
pub struct Found {
    pub devices: Vec<DeviceInfo>,
    pub absent: Vec<Absent>,
}

/// A selection that this node cannot satisfy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TopologyError {
    #[error("unknown device `{name}`; this machine has: {known}")]
    Unknown { name: String, known: String },
    #[error("no device to load: {why}")]
    None { why: String },
    #[error(
        "{first} and {second} are one device at {place}, which two engines would load at once; name one of them"
    )]
    Twice {
        first: String,
        second: String,
        place: String,
    },
    #[error("{devices} devices share {cores} processor cores; name fewer with --devices")]
    TooFewCores { devices: usize, cores: usize },
}

/// Asks every engine what it sees; one whose driver may hang or crash in a process of its own, for at most `patience`.
pub fn find(choice: &Choice, patience: Duration) -> Found {
    let mut found = Found {
        devices: Vec::new(),
        absent: Vec::new(),
    };
    let engines = engines::all(choice);
    // They answer while the others are asked here.
    let away: Vec<_> = engines
        .iter()
        .map(|engine| {
            engine
                .unanswered("")
                .map(|_| apart::ask(engine.name(), choice))
        })
        .collect();
    for (engine, asked) in engines.iter().zip(away).rev() {
        let listing = match asked {
            None => Listing::of(engine.as_ref()),
            Some(asked) => asked
                .and_then(|asked| asked.answer(patience))
                .unwrap_or_else(|why| Listing {
                    devices: Vec::new(),
                    absent: engine.unanswered(&why).into_iter().collect(),
                }),
        };
        // Engines stay in their order of preference, though the last is asked first.
        found.devices.splice(0..0, listing.devices);
        found.absent.splice(0..0, listing.absent);
    }
    found
}

/// Whether two engines list one physical device: by PCI address, and where an engine does not know the address of
/// an NVIDIA device, by taking it for one that CUDA lists.
fn is_twin(one: &DeviceInfo, other: &DeviceInfo) -> bool {
    if one.engine == other.engine || one.software || other.software {
        return false;
    }
    let nameless = |d: &DeviceInfo| d.vendor == "NVIDIA" && d.pci.is_none();
    match (&one.pci, &other.pci) {
        (Some(a), Some(b)) => a == b,
        _ => (nameless(one) && other.engine == "cuda") || (nameless(other) && one.engine == "cuda"),
    }
}

/// Chooses devices and divides the cores among those that need them.
///
/// `names`: device ids or engine names; `auto` takes every real accelerator, each by its first engine,
/// and the processor only where there is none.
///
/// # Errors
/// [`TopologyError`], which lists the known devices.
pub fn select(
    found: &Found,
    names: &[String],
    cores: &[usize],
) -> Result<Vec<DeviceInfo>, TopologyError> {
    let mut chosen: Vec<DeviceInfo> = Vec::new();
    for name in names {
        let mut picked: Vec<_> = found
            .devices
            .iter()
            .filter(|d| *name == d.id || *name == d.engine)
            .cloned()
            .collect();
        if name == "auto" {
            picked = auto(found);
        }
        if picked.is_empty() {
            let ids = found.devices.iter().map(|d| d.id.clone());
            return Err(TopologyError::Unknown {
                name: name.clone(),
                known: ids
                    .chain(["auto".to_owned()])
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        }
        for device in picked {
            if chosen.iter().any(|c| c.id == device.id) {
                continue;
            }
            if let Some(twin) = chosen.iter().find(|c| is_twin(c, &device)) {
                return Err(TopologyError::Twice {
                    first: twin.id.clone(),
                    second: device.id.clone(),
                    place: twin.pci.clone().or(device.pci).unwrap_or_default(),
                });
            }
            chosen.push(device);
        }
    }
    if chosen.is_empty() {
        let why = found
            .absent
            .iter()
            .map(|a| a.why.clone())
            .collect::<Vec<_>>();
        return Err(TopologyError::None {
            why: why.join("; "),
        });
    }
    share_cores(chosen, names, cores)
}

fn auto(found: &Found) -> Vec<DeviceInfo> {
    let real: Vec<_> = found.devices.iter().filter(|d| !d.software).collect();
    if real.is_empty() {
        return found
            .devices
            .iter()
            .filter(|d| d.engine == "cpu")
            .cloned()
            .collect();
    }
    let mut chosen: Vec<DeviceInfo> = Vec::new();
    for device in real {
        // One physical device, one engine: the first that lists it.
        if !chosen.iter().any(|c| is_twin(c, device)) {
            chosen.push(device.clone());
        }
    }
    chosen
}

/// Gives each software device a share of the cores. Where the engine `cpu` as a whole meets other
/// software devices and cores are short, its shares are merged.
fn share_cores(
    mut chosen: Vec<DeviceInfo>,
    names: &[String],
    cores: &[usize],
) -> Result<Vec<DeviceInfo>, TopologyError> {
    let software = |list: &[DeviceInfo]| list.iter().filter(|d| d.software).count();
    while software(&chosen) > cores.len().max(1) {
        let cpus = chosen.iter().filter(|d| d.engine == "cpu").count();
        let last_cpu = chosen.iter().rposition(|d| d.engine == "cpu");
        match last_cpu {
            Some(index) if cpus > 1 && names.iter().any(|n| n == "cpu" || n == "auto") => {
                chosen.remove(index);
            }
            _ => {
                return Err(TopologyError::TooFewCores {
                    devices: software(&chosen),
                    cores: cores.len(),
                });
            }
        }
    }
    let sharing = software(&chosen);
    if sharing == 0 {
        return Ok(chosen);
    }
    let mut shares = (0..sharing).map(|i| {
        let (from, to) = (cores.len() * i / sharing, cores.len() * (i + 1) / sharing);
        cores[from..to].to_vec()
    });
    for device in chosen.iter_mut().filter(|d| d.software) {
        device.cores = shares.next().unwrap_or_default();
    }
    Ok(chosen)
}

/// The processor cores that this process may use.
#[cfg(target_os = "linux")]
pub fn cores() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|&c| set.is_set(c))
            .collect(),
        Err(_) => (0..parallelism()).collect(),
    }
}

#[cfg(not(target_os = "linux"))]
pub fn cores() -> Vec<usize> {
    (0..parallelism()).collect()
}

fn parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Variables that decide which libraries are loaded, or which devices a driver shows.
const DECIDING: [&str; 3] = ["LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH"];
/// The same, by how their names begin.
const DECIDING_FAMILIES: [&str; 10] = [
    "CUDA_", "GPU_", "HIP_", "HSA_", "MESA_", "NCCL_", "NVIDIA_", "ROCR_", "UCX_", "VK_",
];
/// Most characters of a value that the record keeps.
const VALUE_MAX: usize = 400;

/// The environment's variables that can change what is measured, by name: whoever owns the machine may have set them.
pub fn environment(
    vars: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> Vec<(String, String)> {
    let text = |s: std::ffi::OsString| s.to_string_lossy().chars().take(VALUE_MAX).collect();
    let named = vars.map(|(name, value)| (text(name), text(value)));
    let deciding = |(name, _): &(String, String)| {
        let family = |f: &&str| name.starts_with(f);
        DECIDING.contains(&name.as_str()) || DECIDING_FAMILIES.iter().any(family)
    };
    let mut found: Vec<(String, String)> = named.filter(deciding).collect();
    found.sort();
    let prefixed = |(name, value)| (format!("environment {name}"), value);
    found.into_iter().map(prefixed).collect()
}

/// The machine, for the record.
pub fn host() -> Host {
    let uname = rustix::system::uname();
    let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    let first = |path: &str, key: &str| {
        let file = std::fs::read_to_string(path).unwrap_or_else(|_| String::new());
        let line = file.lines().find(|l| l.starts_with(key)).map(str::to_owned);
        line.and_then(|l| {
            l.split_once([':', '='])
                .map(|(_, v)| v.trim().trim_matches('"').to_owned())
        })
    };
    let memory_kib =
        first("/proc/meminfo", "MemTotal").and_then(|v| v.split(' ').next()?.parse::<u64>().ok());
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    Host {
        name: text(uname.nodename()),
        os: first("/etc/os-release", "PRETTY_NAME").unwrap_or_else(|| text(uname.sysname())),
        kernel: text(uname.release()),
        cpu: first("/proc/cpuinfo", "model name").unwrap_or_else(|| text(uname.machine())),
        cores: u32::try_from(cores().len()).unwrap_or(u32::MAX),
        memory_bytes: memory_kib.map_or(0, |kib| Bytes(kib * 1024).0),
        boot_id: boot_id.map_or_else(|_| String::new(), |id| id.trim().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_profiles::workload::Dtype;

    #[test]
    fn variables_that_decide_what_is_loaded_are_kept_and_others_are_not() {
        let vars = [
            ("VK_ICD_FILENAMES", "/opt/other.json"),
            ("HOME", "/root"),
            ("LD_PRELOAD", "/opt/libfast.so"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
        ];
        let found = environment(vars.into_iter().map(|(n, v)| (n.into(), v.into())));
        let want = [
            ("environment LD_PRELOAD", "/opt/libfast.so"),
            ("environment VK_ICD_FILENAMES", "/opt/other.json"),
        ];
        assert_eq!(found, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    fn device(id: &str, engine: &str, software: bool, pci: Option<&str>) -> DeviceInfo {
        DeviceInfo {
            id: id.to_owned(),
            engine: engine.to_owned(),
            name: id.to_owned(),
            vendor: String::new(),
            pci: pci.map(str::to_owned),
            uuid: None,
            driver: String::new(),
            memory: Bytes(1 << 30),
            dtypes: vec![Dtype::F32],
            software,
            cores: Vec::new(),
            facts: Vec::new(),
        }
    }

    fn found(devices: Vec<DeviceInfo>) -> Found {
        Found {
            devices,
            absent: Vec::new(),
        }
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn one_physical_device_is_loaded_by_one_engine() {
        let pci = Some("0000:1b:00.0");
        let found = found(vec![
            device("cuda0", "cuda", false, pci),
            device("wgpu0", "wgpu", false, pci),
            device("cpu0", "cpu", true, None),
        ]);
        let chosen = select(&found, &names(&["auto"]), &[0, 1]).unwrap();
        assert_eq!(chosen.len(), 1);
        assert_eq!(chosen[0].id, "cuda0");
    }

    #[test]
    fn one_physical_device_named_by_two_engines_is_refused() {
        let found = found(vec![
            device("cuda0", "cuda", false, Some("0000:1b:00.0")),
            device("wgpu0", "wgpu", false, Some("0000:1b:00.0")),
            device("wgpu1", "wgpu", false, Some("0000:3d:00.0")),
        ]);
        let error = select(&found, &names(&["cuda", "wgpu"]), &[0]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cuda0 and wgpu0 are one device at 0000:1b:00.0, which two engines would load at once; name one of them"
        );
        let both = select(&found, &names(&["cuda0", "wgpu1"]), &[0]).unwrap();
        assert_eq!(both.len(), 2);
    }

    #[test]
    fn an_nvidia_device_without_an_address_is_left_to_cuda() {
        let mut portable = device("wgpu0", "wgpu", false, None);
        portable.vendor = "NVIDIA".to_owned();
        let native = device("cuda0", "cuda", false, Some("0000:1b:00.0"));
        let chosen = select(&found(vec![native, portable]), &names(&["auto"]), &[0]).unwrap();
        let ids: Vec<_> = chosen.iter().map(|d| d.id.as_str()).collect();
        assert_eq!(ids, ["cuda0"]);
    }

    #[test]
    fn without_an_accelerator_the_processor_is_loaded_not_a_software_adapter() {
        let found = found(vec![
            device("wgpu0", "wgpu", true, None),
            device("cpu0", "cpu", true, None),
            device("cpu1", "cpu", true, None),
        ]);
        let chosen = select(&found, &names(&["auto"]), &[0, 1]).unwrap();
        let cores: Vec<_> = chosen
            .iter()
            .map(|d| (d.id.as_str(), d.cores.clone()))
            .collect();
        assert_eq!(cores, [("cpu0", vec![0]), ("cpu1", vec![1])]);
    }

    #[test]
    fn software_devices_named_together_split_the_cores() {
        let found = found(vec![
            device("wgpu0", "wgpu", true, None),
            device("cpu0", "cpu", true, None),
            device("cpu1", "cpu", true, None),
        ]);
        let chosen = select(&found, &names(&["cpu", "wgpu0"]), &[0, 1]).unwrap();
        let cores: Vec<_> = chosen
            .iter()
            .map(|d| (d.id.as_str(), d.cores.clone()))
            .collect();
        assert_eq!(cores, [("cpu0", vec![0]), ("wgpu0", vec![1])]);
        let named = select(&found, &names(&["cpu0", "cpu1", "wgpu0"]), &[0, 1]).unwrap_err();
        assert_eq!(
            named,
            TopologyError::TooFewCores {
                devices: 3,
                cores: 2
            }
        );
    }

    #[test]
    fn an_unknown_device_lists_the_known_ones() {
        let found = found(vec![device("cpu0", "cpu", true, None)]);
        let error = select(&found, &names(&["gpu0"]), &[0])
            .unwrap_err()
            .to_string();
        assert_eq!(error, "unknown device `gpu0`; this machine has: cpu0, auto");
    }
}
