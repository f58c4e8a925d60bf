//! Chips under Linux's `/sys/class/hwmon`: AMD and Intel GPUs, processors, power meters, fans.
//!
//! Decides: which files of a chip are which metric (temperatures only of chips that measure a
//! processor or its memory), their units, and the device that the chip sits on, by PCI address.
//! Refuses: to write any file; a file that could not be read when the sensor was opened for a lasting
//! reason is no series; one that fails later is a gap with its reason.
//!
//! Source: the kernel's `Documentation/hwmon/sysfs-interface.rst` and
//! `Documentation/gpu/amdgpu/thermal.rst`.

use super::host::sysfs;
use super::{Description, DeviceKey, Reading, Sensor, Trouble};
use hallmark_results::frame::{Provenance, Series, What};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

mod attribute;

use attribute::{Attribute, DEVICE_FILES, Rule, rule_for};

/// More chips or attributes than this are no machine's.
const CHIPS_MAX: usize = 512;
const SERIES_MAX: usize = 256;
/// At most so many failed files are named in one reason.
const NAMED_MAX: usize = 4;

/// How the text of a setting's file is told; `None` where it has another shape.
type Say = fn(String) -> Option<String>;

/// One file and the series that it becomes.
struct Channel {
    series: Series,
    path: PathBuf,
    /// How many of the file's units make one of the series'.
    per_unit: f64,
}

impl Channel {
    fn new(path: PathBuf, rule: &Rule, label: &str, averaging_ns: Option<u64>) -> Self {
        Self {
            series: Series {
                metric: rule.metric,
                label: label.to_owned(),
                unit: rule.metric.spec().unit,
                kind: rule.kind,
                averaging_ns,
                accuracy: None,
            },
            path,
            per_unit: rule.per_unit,
        }
    }

    /// Whether the file is worth asking again: it gave a number, or may do so later. A GPU that
    /// sleeps answers “busy” or “no data” until it is loaded.
    fn may_read(&self) -> bool {
        match sysfs::number(&self.path) {
            Ok(_) => true,
            Err(error) => !matches!(
                error.kind(),
                ErrorKind::NotFound
                    | ErrorKind::PermissionDenied
                    | ErrorKind::InvalidData
                    | ErrorKind::Unsupported
            ),
        }
    }
}

/// All usable series of one chip.
pub struct HwmonSensor {
    /// `hwmon3-amdgpu`
    name: String,
    chip: String,
    folder: PathBuf,
    device: Option<DeviceKey>,
    channels: Vec<Channel>,
}

impl HwmonSensor {
    /// The chips below `root`, `/` but for tests, that measure something of the catalogue.
    ///
    /// # Errors
    /// [`What::Absent`]: there is none.
    pub fn discover(root: &Path) -> Result<Vec<Self>, What> {
        let folder = root.join("sys/class/hwmon");
        let chips = sysfs::entries(&folder, "hwmon").unwrap_or_default();
        let sensors: Vec<Self> = chips
            .into_iter()
            .take(CHIPS_MAX)
            .filter_map(|(entry, path)| Self::open(&entry, path))
            .collect();
        if sensors.is_empty() {
            return Err(What::Absent {
                what: "hwmon telemetry".to_owned(),
                why: format!(
                    "no chip under {} measures what is known here",
                    folder.display()
                ),
                remedy: "use bare metal and load the chip's driver, e.g. amdgpu or coretemp"
                    .to_owned(),
            });
        }
        Ok(sensors)
    }

    fn open(entry: &str, folder: PathBuf) -> Option<Self> {
        let chip = sysfs::label(&sysfs::attribute(&folder.join("name")).ok()?);
        let device_folder = folder.join("device");
        let mut channels = Vec::new();
        for (file, path) in sysfs::entries(&folder, "").unwrap_or_default() {
            let Some(attribute) = Attribute::parse(&file) else {
                continue;
            };
            let label = folder.join(attribute.file("label"));
            let label = sysfs::label(&sysfs::attribute(&label).unwrap_or_default());
            let Some(rule) = rule_for(&chip, &attribute, &label) else {
                continue;
            };
            let label = if label.is_empty() {
                attribute.channel()
            } else {
                label
            };
            let window = averaging_ns(&folder, &attribute);
            channels.push(Channel::new(path, &rule, &label, window));
        }
        if attribute::is_gpu(&chip) {
            let extra = DEVICE_FILES.iter();
            channels.extend(
                extra.map(|(file, rule)| Channel::new(device_folder.join(file), rule, "", None)),
            );
        }
        channels.truncate(SERIES_MAX);
        channels.retain(Channel::may_read);
        tell_apart(&mut channels);
        let device = pci_of(&device_folder).map(|pci| DeviceKey {
            uuid: None,
            pci: Some(pci),
        });
        (!channels.is_empty()).then(|| Self {
            name: format!("{}-{}", sysfs::name_part(entry), sysfs::name_part(&chip)),
            chip,
            folder,
            device,
            channels,
        })
    }
}

/// Two channels that a driver labels alike, e.g. two of `Other Fan`, are told apart by their number on the chip.
fn tell_apart(channels: &mut [Channel]) {
    let name = |c: &Channel| (c.series.metric, c.series.label.clone());
    let names: Vec<_> = channels.iter().map(name).collect();
    for (channel, own) in channels.iter_mut().zip(&names) {
        let file = channel.path.file_name().and_then(|f| f.to_str());
        if let Some(number) = file.and_then(|f| f.split('_').next())
            && names.iter().filter(|n| *n == own).count() > 1
        {
            channel.series.label = format!("{} {number}", channel.series.label);
        }
    }
}

/// The window of an average, where the chip states it (in milliseconds).
fn averaging_ns(folder: &Path, attribute: &Attribute) -> Option<u64> {
    let states_window = attribute.what == "average";
    let file = folder.join(attribute.file("average_interval"));
    let interval_ms = states_window.then(|| sysfs::count(&file).ok()).flatten()?;
    interval_ms.checked_mul(1_000_000)
}

/// The PCI address of the device that the link points to, if it is a PCI device.
fn pci_of(device: &Path) -> Option<String> {
    let target = device.canonicalize().ok()?;
    let name = target.file_name()?.to_str()?;
    let shape = |c: char| if c.is_ascii_hexdigit() { 'x' } else { c };
    let is_pci = name.chars().map(shape).eq("xxxx:xx:xx.x".chars());
    is_pci.then(|| name.to_ascii_lowercase())
}

impl Sensor for HwmonSensor {
    fn describe(&self) -> Description {
        Description {
            name: self.name.clone(),
            source: format!("Linux hwmon, {}", self.chip),
            provenance: Provenance::Measured,
            device: self.device.clone(),
            series: self
                .channels
                .iter()
                .map(|channel| channel.series.clone())
                .collect(),
        }
    }

    fn as_found(&mut self) -> Vec<(String, String)> {
        if !attribute::is_gpu(&self.chip) {
            return Vec::new();
        }
        // The words of NVML's list, so that peers compare whichever sensor read them.
        let settings: [(&str, &str, Say); 9] = [
            ("uuid", "device/unique_id", Some),
            ("serial", "device/serial_number", Some),
            ("vbios", "device/vbios_version", Some),
            ("power_limit", "power1_cap", attribute::watts),
            (
                "power_limit_default",
                "power1_cap_default",
                attribute::watts,
            ),
            (
                "pcie_generation",
                "device/current_link_speed",
                attribute::generation,
            ),
            (
                "pcie_generation_max",
                "device/max_link_speed",
                attribute::generation,
            ),
            ("pcie_width", "device/current_link_width", Some),
            ("pcie_width_max", "device/max_link_width", Some),
        ];
        let found = settings.into_iter().map(|(key, file, say)| {
            let value = match sysfs::attribute(&self.folder.join(file)) {
                Ok(text) => {
                    let text = sysfs::label(&text);
                    say(text.clone()).unwrap_or_else(|| format!("unreadable: {text}"))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => "not supported".to_owned(),
                Err(error) => format!("unreadable: {error}"),
            };
            (key.to_owned(), value)
        });
        found.collect()
    }

    fn read(&mut self, _now_ns: u64) -> Reading {
        let mut reading = Reading::default();
        let mut failed: Vec<(String, io::Error)> = Vec::new();
        for channel in &self.channels {
            reading.values.push(match sysfs::number(&channel.path) {
                Ok(value) => value / channel.per_unit,
                Err(error) => {
                    let what = format!("{} {}", channel.series.metric, channel.series.label);
                    failed.push((what, error));
                    f64::NAN
                }
            });
        }
        reading.trouble = self.trouble(&failed);
        reading
    }
}

impl HwmonSensor {
    fn trouble(&self, failed: &[(String, io::Error)]) -> Option<Trouble> {
        let (first, error) = failed.first()?;
        // The kernel takes the whole folder away with its device.
        if failed.len() == self.channels.len() && !self.folder.join("name").exists() {
            return Some(Trouble::Lost(format!(
                "{} is gone ({first}: {error})",
                self.name
            )));
        }
        let mut named: Vec<String> = failed
            .iter()
            .take(NAMED_MAX)
            .map(|(what, error)| format!("{what}: {error}"))
            .collect();
        if failed.len() > NAMED_MAX {
            named.push(format!("and {} more", failed.len() - NAMED_MAX));
        }
        Some(Trouble::Failed(named.join("; ")))
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use hallmark_profiles::metric::Metric;
    use std::fs;
    use tempfile::TempDir;

    fn chip(root: &TempDir, entry: &str, files: &[(&str, &str)]) -> PathBuf {
        let folder = root.path().join("sys/class/hwmon").join(entry);
        fs::create_dir_all(&folder).unwrap();
        for (file, text) in files {
            fs::write(folder.join(file), text).unwrap();
        }
        folder
    }

    #[test]
    fn two_fans_that_a_driver_calls_alike_are_two_series() {
        let root = TempDir::new().unwrap();
        let files = [
            ("name", "dell_smm"),
            ("fan1_input", "900"),
            ("fan1_label", "Other Fan"),
            ("fan2_input", "1200"),
            ("fan2_label", "Other Fan"),
            ("fan3_input", "1500"),
            ("fan3_label", "Processor Fan"),
        ];
        chip(&root, "hwmon3", &files);
        let sensors = HwmonSensor::discover(root.path()).unwrap();
        let series = sensors[0].describe().series;
        let labels: Vec<&str> = series.iter().map(|s| s.label.as_str()).collect();
        assert_eq!(
            labels,
            ["Other Fan fan1", "Other Fan fan2", "Processor Fan"]
        );
    }

    /// A GPU as amdgpu shows it, on a PCI device of its own.
    fn amd_gpu(root: &TempDir) -> PathBuf {
        let files = [
            ("name", "amdgpu\n"),
            ("temp1_input", "45000\n"),
            ("temp1_label", "edge\n"),
            ("temp2_input", "61000\n"),
            ("temp2_label", "junction\n"),
            ("temp3_input", "58000\n"),
            ("temp3_label", "mem\n"),
            ("power1_average", "303000000\n"),
            ("power1_average_interval", "1000\n"),
            ("power1_cap", "750000000\n"),
            ("freq1_input", "2100000000\n"),
            ("freq1_label", "sclk\n"),
            ("freq2_input", "1300000000\n"),
            ("freq2_label", "mclk\n"),
            ("fan1_input", "1500\n"),
            ("in0_input", "800\n"),
        ];
        let folder = chip(root, "hwmon3", &files);
        let device = root.path().join("sys/devices/pci0000:c0/0000:c1:00.0");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("gpu_busy_percent"), "97\n").unwrap();
        fs::write(device.join("mem_info_vram_used"), "1024\n").unwrap();
        fs::write(device.join("current_link_width"), "16\n").unwrap();
        fs::write(device.join("current_link_speed"), "32.0 GT/s PCIe\n").unwrap();
        fs::write(device.join("vbios_version"), "113-M3000100-102\n").unwrap();
        std::os::unix::fs::symlink(device, folder.join("device")).unwrap();
        folder
    }

    fn value(sensor: &HwmonSensor, reading: &Reading, metric: Metric, label: &str) -> Option<f64> {
        let series = sensor.describe().series;
        let fits = |series: &Series| series.metric == metric && series.label == label;
        let place = series.iter().position(fits)?;
        (!reading.values[place].is_nan()).then_some(reading.values[place])
    }

    #[test]
    fn a_gpu_reads_in_base_units_and_knows_its_pci_address() {
        let root = TempDir::new().unwrap();
        amd_gpu(&root);
        let mut sensors = HwmonSensor::discover(root.path()).unwrap();
        let mut sensor = sensors.remove(0);
        let about = sensor.describe();
        assert_eq!(about.name, "hwmon3-amdgpu");
        let pci = about.device.and_then(|device| device.pci);
        assert_eq!(pci.as_deref(), Some("0000:c1:00.0"));
        let reading = sensor.read(0);
        assert_eq!(reading.trouble, None);
        let read = |metric, label| value(&sensor, &reading, metric, label);
        assert_eq!(read(Metric::TempCore, "edge"), Some(45.0));
        assert_eq!(read(Metric::TempCore, "junction"), Some(61.0));
        assert_eq!(read(Metric::TempMemory, "mem"), Some(58.0));
        assert_eq!(read(Metric::PowerDraw, "power1"), Some(303.0));
        assert_eq!(read(Metric::PowerLimit, "power1"), Some(750.0));
        assert_eq!(read(Metric::ClockSm, "sclk"), Some(2.1e9));
        assert_eq!(read(Metric::ClockMemory, "mclk"), Some(1.3e9));
        assert_eq!(read(Metric::FanSpeed, "fan1"), Some(1500.0));
        assert_eq!(read(Metric::Utilisation, ""), Some(97.0));
        assert_eq!(read(Metric::MemoryUsed, ""), Some(1024.0));
        assert_eq!(read(Metric::PcieWidth, ""), Some(16.0));
        let power = about
            .series
            .iter()
            .find(|series| series.metric == Metric::PowerDraw);
        assert_eq!(
            power.and_then(|series| series.averaging_ns),
            Some(1_000_000_000)
        );
        let found = sensor.as_found();
        let setting = |key: &str| {
            let entry = found.iter().find(|(name, _)| name == key);
            entry.map_or("no such key", |(_, value)| value.as_str())
        };
        assert_eq!(setting("vbios"), "113-M3000100-102");
        assert_eq!(setting("power_limit"), "750 W");
        assert_eq!(setting("pcie_width"), "16");
        assert_eq!(setting("pcie_generation"), "5");
        assert_eq!(setting("serial"), "not supported");
        let known = |(key, _): &(String, String)| crate::sensor::nvml::KEYS.contains(&key.as_str());
        assert!(found.iter().all(known), "one word for one thing: {found:?}");
    }

    #[test]
    fn a_processor_gives_its_temperatures_and_a_disk_gives_none() {
        let root = TempDir::new().unwrap();
        let coretemp = [
            ("name", "coretemp"),
            ("temp1_input", "71000"),
            ("temp1_label", "Package id 0"),
            ("temp1_crit", "100000"),
        ];
        chip(&root, "hwmon0", &coretemp);
        chip(
            &root,
            "hwmon1",
            &[("name", "nvme"), ("temp1_input", "40000")],
        );
        let mut sensors = HwmonSensor::discover(root.path()).unwrap();
        assert_eq!(sensors.len(), 1);
        let reading = sensors[0].read(0);
        let package = value(&sensors[0], &reading, Metric::TempCore, "Package id 0");
        assert_eq!(package, Some(71.0));
        assert_eq!(reading.values.len(), 1, "the limit is no reading");
    }

    #[test]
    fn a_file_that_fails_is_a_gap_and_a_chip_that_vanishes_is_lost() {
        let root = TempDir::new().unwrap();
        let folder = amd_gpu(&root);
        let mut sensor = HwmonSensor::discover(root.path()).unwrap().remove(0);
        fs::write(folder.join("power1_average"), "no number\u{1b}").unwrap();
        let reading = sensor.read(0);
        assert_eq!(value(&sensor, &reading, Metric::PowerDraw, "power1"), None);
        assert_eq!(
            value(&sensor, &reading, Metric::TempMemory, "mem"),
            Some(58.0)
        );
        let Some(Trouble::Failed(why)) = &reading.trouble else {
            panic!("{:?}", reading.trouble);
        };
        assert!(
            why.starts_with("power_draw power1: `no number?` is no number"),
            "{why}"
        );
        fs::remove_dir_all(&folder).unwrap();
        fs::remove_dir_all(root.path().join("sys/devices")).unwrap();
        let reading = sensor.read(1);
        assert!(reading.values.iter().all(|value| value.is_nan()));
        assert!(
            matches!(reading.trouble, Some(Trouble::Lost(_))),
            "{:?}",
            reading.trouble
        );
    }

    #[test]
    fn hostile_trees_are_bounded_and_never_a_panic() {
        let root = TempDir::new().unwrap();
        let long = "9".repeat(10_000);
        let files = [
            ("name", "amdgpu"),
            ("temp_input", "1"),
            ("temp99999999999999999999_input", "1"),
            ("temp1_input", long.as_str()),
            ("temp2_input", "nan"),
            ("temp3_input", "5000"),
            ("temp3_label", "\u{1b}]0;owned\u{7}"),
            ("power1_average", "5"),
            ("power1_average_interval", "18446744073709551615"),
        ];
        chip(&root, "hwmon0", &files);
        chip(&root, "hwmon1", &[("temp1_input", "1")]);
        chip(&root, "hwmon2", &[("name", long.as_str())]);
        let sensors = HwmonSensor::discover(root.path()).unwrap();
        assert_eq!(sensors.len(), 1);
        let series = sensors[0].describe().series;
        let labels: Vec<_> = series.iter().map(|series| series.label.as_str()).collect();
        assert_eq!(labels, ["?]0;owned?", "power1"]);
        assert_eq!(
            series[1].averaging_ns, None,
            "a window beyond all bounds is none"
        );
    }

    #[test]
    fn a_machine_without_chips_is_absent_with_a_remedy() {
        let root = TempDir::new().unwrap();
        let absent = HwmonSensor::discover(root.path()).map(|_| ()).unwrap_err();
        assert!(matches!(absent, What::Absent { remedy, .. } if remedy.contains("amdgpu")));
    }
}
