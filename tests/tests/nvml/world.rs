//! A stand-in library with a script and a clock of its own, and how its readings are looked up.
//!
//! The clock is a file that holds the seconds, so that an hour of a failing device is one instant.
//! The library is built here with `cargo build --package fake-nvml`, which does nothing where it is
//! fresh.

use hallmark::sensor::nvml::{Absent, Group, NvmlDevice, NvmlLibrary, NvmlSensor};
use hallmark::sensor::{DeviceKey, Reading, Sensor};
use hallmark_profiles::metric::Metric;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use tempfile::TempDir;

pub const SECOND_NS: u64 = 1_000_000_000;
pub const POWER_CAP: u64 = 0x04;
pub const SW_THERMAL: u64 = 0x20;
pub const FIRST: &str = "GPU-fa4e0000-0000-0000-0000-000000000001";
pub const SECOND: &str = "GPU-fa4e0000-0000-0000-0000-000000000002";

/// The stand-in library, built once for this process.
fn fake_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // target/<profile>/deps/nvml-<hash>
        let test = std::env::current_exe().expect("this test has a path");
        let profile = test
            .ancestors()
            .nth(2)
            .expect("tests lie in the target folder");
        let target = profile.parent().expect("profiles lie in the target folder");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args([
            "build",
            "--quiet",
            "--offline",
            "--package",
            "fake-nvml",
            "--target-dir",
        ]);
        build.arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().expect("cargo can be started");
        assert!(status.success(), "cargo build --package fake-nvml failed");
        profile.join(format!(
            "{}fake_nvml{}",
            std::env::consts::DLL_PREFIX,
            std::env::consts::DLL_SUFFIX
        ))
    })
}

/// A stand-in library with a script and a clock of its own.
pub struct World {
    folder: TempDir,
    pub library: NvmlLibrary,
}

impl World {
    pub fn start(script: Value) -> Self {
        Self::without(&[], script)
    }

    /// A world whose library truly lacks the symbols in `absent`.
    pub fn without(absent: &[&str], script: Value) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let library = load(&folder, absent, script).unwrap_or_else(|absent| panic!("{absent}"));
        Self { folder, library }
    }

    pub fn at(&self, seconds: f64) {
        std::fs::write(self.folder.path().join("clock"), seconds.to_string()).expect("clock");
    }

    pub fn device(&self, uuid: &str) -> NvmlDevice {
        self.library
            .open(&key(uuid))
            .unwrap_or_else(|absent| panic!("{absent}"))
    }

    pub fn sensor(&self, uuid: &str, group: Group) -> NvmlSensor {
        self.device(uuid).sensor(group)
    }
}

pub fn key(uuid: &str) -> DeviceKey {
    DeviceKey {
        uuid: Some(uuid.to_owned()),
        pci: None,
    }
}

pub fn load(folder: &TempDir, absent: &[&str], mut script: Value) -> Result<NvmlLibrary, Absent> {
    static ENVIRONMENT: Mutex<()> = Mutex::new(());
    let library = folder.path().join("libnvidia-ml.so.1");
    let mut bytes = std::fs::read(fake_library()).expect("the stand-in library was built");
    for symbol in absent {
        rename_symbol(&mut bytes, symbol);
    }
    std::fs::write(&library, bytes).expect("a copy of the library");
    let clock = folder.path().join("clock");
    std::fs::write(&clock, "0").expect("clock");
    script["clock_file"] = json!(clock);
    let path = folder.path().join("script.json");
    std::fs::write(&path, script.to_string()).expect("script");
    let _guard = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: every reader and writer of the environment in this process is Rust's own, which locks
    // it, and the guard keeps two tests from naming their scripts at once.
    unsafe { std::env::set_var("FAKE_NVML_SCRIPT", &path) };
    NvmlLibrary::load(Some(&library))
}

/// Renames a symbol in the library's string tables: its hash no longer finds it, so it is absent.
fn rename_symbol(library: &mut [u8], symbol: &str) {
    let wanted = format!("\0{symbol}\0");
    let length = wanted.len();
    let places: Vec<usize> = library
        .windows(length)
        .enumerate()
        .filter_map(|(place, bytes)| (bytes == wanted.as_bytes()).then_some(place))
        .collect();
    assert!(!places.is_empty(), "{symbol} is not exported");
    for place in places {
        library[place + 1] = b'x';
    }
}

/// What a device in good health reads, in NVML's own units.
const READINGS: &str = r#"{
    "power_usage_mw": 421500, "energy_mj": 123456789,
    "temperature_c": 63, "margin_temperature_c": 24,
    "threshold_slowdown_c": 87, "threshold_gpu_max_c": 83,
    "clock_sm_mhz": 1755, "clock_sm_mhz_max": 1980,
    "clock_memory_mhz": 2619, "clock_memory_mhz_max": 2619,
    "reasons_mask": 0,
    "utilization_gpu_percent": 99, "utilization_memory_percent": 41,
    "memory_total_bytes": 85899345920, "memory_used_bytes": 7516192768,
    "ecc_mode": 1, "ecc_mode_pending": 1, "mig_mode": 0, "mig_mode_pending": 0,
    "ecc_corrected_volatile": 3, "ecc_uncorrected_volatile": 0,
    "ecc_corrected_aggregate": 12, "ecc_uncorrected_aggregate": 1,
    "remapped_correctable": 2, "remapped_uncorrectable": 1,
    "remap_pending": 1, "remap_failed": 0,
    "power_limit_mw": 700000, "power_limit_default_mw": 700000,
    "power_limit_enforced_mw": 650000,
    "power_limit_min_mw": 200000, "power_limit_max_mw": 700000,
    "pcie_generation": 5, "pcie_generation_max": 5,
    "pcie_width": 8, "pcie_width_max": 16, "pcie_replays": 4,
    "nvlink_count": 2, "nvlink_replays": 1, "nvlink_recoveries": 2,
    "nvlink_crc_flit": 3, "nvlink_crc_data": 4
}"#;

/// A device in good health but for the changes to its `readings` and `fields`.
pub fn device(uuid: &str, bus: u32, readings: Value, fields: Value) -> Value {
    let healthy: Value = serde_json::from_str(READINGS).expect("the readings are JSON");
    let mut device = json!({
        "name": "Fake H100 80GB HBM3",
        "uuid": uuid,
        "serial": "1650000000001",
        "part_number": "900-00000-0000-000",
        "pci_bus_id": format!("00000000:{bus:02X}:00.0"),
        "vbios_version": "96.00.00.00.01",
        "readings": healthy,
        "fields": { "186": 433_000, "185": 420_000, "82": 71 }
    });
    merge(&mut device["readings"], readings);
    merge(&mut device["fields"], fields);
    device
}

/// Takes over every entry of `changes`; null removes one.
fn merge(into: &mut Value, changes: Value) {
    let Value::Object(changes) = changes else {
        panic!("changes are an object");
    };
    for (key, value) in changes {
        let entries = into.as_object_mut().expect("an object");
        if value.is_null() {
            entries.remove(&key);
        } else {
            entries.insert(key, value);
        }
    }
}

pub fn healthy() -> Value {
    device(FIRST, 0x1b, json!({}), json!({}))
}

/// The value of one series, `None` where the read gave none; panics where there is no such series.
pub fn value(sensor: &NvmlSensor, reading: &Reading, metric: Metric, label: &str) -> Option<f64> {
    let place = place(sensor, metric, label).unwrap_or_else(|| panic!("no {metric} `{label}`"));
    let value = reading.values[place];
    (!value.is_nan()).then_some(value)
}

pub fn place(sensor: &NvmlSensor, metric: Metric, label: &str) -> Option<usize> {
    let series = sensor.describe().series;
    series
        .iter()
        .position(|series| series.metric == metric && series.label == label)
}

pub fn absent(sensor: &NvmlSensor, what: &str) -> bool {
    sensor
        .absent()
        .iter()
        .any(|absent| absent.what.starts_with(what))
}
