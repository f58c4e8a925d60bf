//! Energy of processors and memory from RAPL, through Linux's powercap files.
//!
//! Decides: energy since the sensor was opened, with wraps of the counter resolved, and the mean
//! power between two reads. Refuses: an interval so long that the counter may have wrapped more than
//! once; its energy is unknown, and the read is a gap. The zones that a second interface (mmio)
//! repeats are left out, so that nothing is counted twice.

use super::host::sysfs;
use super::{Description, Reading, Sensor, Trouble};
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{Provenance, Series, SeriesKind, What};
use std::io;
use std::path::{Path, PathBuf};

const MICROJOULE_PER_JOULE: f64 = 1e6;
/// No zone draws more, so a counter cannot have wrapped sooner than its range at this power.
const ZONE_POWER_MAX_W: f64 = 4000.0;
/// Zones beyond this are not a machine's.
const ZONES_MAX: usize = 256;

/// The energy counter of one zone.
struct Zone {
    /// `package-0`, or `package-0/dram` for a part of it.
    label: String,
    energy: PathBuf,
    meter: Meter,
}

/// Follows a counter of microjoules that starts again at zero above its range.
struct Meter {
    range_uj: u64,
    last: Option<(u64, u64)>,
    total_uj: u64,
}

/// What one read of a counter gives.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Metered {
    /// Since the first read.
    energy_j: f64,
    /// Mean since the last read; `None` at the first.
    power_w: Option<f64>,
}

/// Why a counter's growth cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum MeterError {
    #[error("the counter shows {0} µJ, more than its range of {1} µJ")]
    BeyondRange(u64, u64),
    #[error("{0} s since the last read: the counter may have wrapped more than once")]
    TooLong(u64),
    #[error("the run clock did not advance since the last read")]
    NoTime,
}

impl Meter {
    fn new(range_uj: u64) -> Self {
        Self {
            range_uj,
            last: None,
            total_uj: 0,
        }
    }

    /// Takes the counter's value at `now_ns`.
    fn read(&mut self, now_ns: u64, counter_uj: u64) -> Result<Metered, MeterError> {
        if counter_uj > self.range_uj {
            self.last = None;
            return Err(MeterError::BeyondRange(counter_uj, self.range_uj));
        }
        let Some((last_ns, last_uj)) = self.last.replace((now_ns, counter_uj)) else {
            return Ok(self.metered(None));
        };
        let elapsed_ns = now_ns.checked_sub(last_ns).filter(|ns| *ns > 0);
        let elapsed_ns = elapsed_ns.ok_or(MeterError::NoTime)?;
        let elapsed_s = elapsed_ns as f64 / 1e9;
        if elapsed_s * ZONE_POWER_MAX_W * MICROJOULE_PER_JOULE > self.range_uj as f64 {
            return Err(MeterError::TooLong(elapsed_ns / 1_000_000_000));
        }
        let grown_uj = if counter_uj >= last_uj {
            counter_uj - last_uj
        } else {
            self.range_uj - last_uj + counter_uj
        };
        self.total_uj = self.total_uj.saturating_add(grown_uj);
        Ok(self.metered(Some(grown_uj as f64 / MICROJOULE_PER_JOULE / elapsed_s)))
    }

    fn metered(&self, power_w: Option<f64>) -> Metered {
        Metered {
            energy_j: self.total_uj as f64 / MICROJOULE_PER_JOULE,
            power_w,
        }
    }
}

/// All RAPL zones of this node.
pub struct RaplSensor {
    zones: Vec<Zone>,
}

impl RaplSensor {
    /// Opens the zones below `root`, `/` but for tests.
    ///
    /// # Errors
    /// [`What::Absent`]: the kernel shows no zone, or this user may not read any.
    pub fn open(root: &Path) -> Result<Self, What> {
        let folder = root.join("sys/class/powercap");
        let absent = |why: String, remedy: &str| What::Absent {
            what: "cpu energy (RAPL)".to_owned(),
            why,
            remedy: remedy.to_owned(),
        };
        let found = sysfs::entries(&folder, "intel-rapl:").unwrap_or_default();
        let mut zones = Vec::new();
        let mut refused = None;
        for (name, path) in found.into_iter().take(ZONES_MAX) {
            match open_zone(&folder, &name, &path) {
                Ok(zone) => zones.push(zone),
                Err(error) => refused = Some(format!("{name}: {error}")),
            }
        }
        match (zones.is_empty(), refused) {
            (false, _) => Ok(Self { zones }),
            (true, Some(why)) => Err(absent(
                why,
                "run as root, or let this user read /sys/class/powercap/*/energy_uj",
            )),
            (true, None) => Err(absent(
                format!("{} holds no intel-rapl zone", folder.display()),
                "use bare metal and load the module intel_rapl_msr; virtual machines rarely pass it on",
            )),
        }
    }
}

fn open_zone(folder: &Path, name: &str, path: &Path) -> io::Result<Zone> {
    let own = sysfs::label(&sysfs::attribute(&path.join("name"))?);
    // `intel-rapl:0:1` is a part of `intel-rapl:0`.
    let label = match name.rsplit_once(':') {
        Some((parent, _)) if parent.contains(':') => {
            let parent = sysfs::attribute(&folder.join(parent).join("name"))?;
            format!("{}/{own}", sysfs::label(&parent))
        }
        _ => own,
    };
    let energy = path.join("energy_uj");
    sysfs::count(&energy)?;
    let range_uj = sysfs::count(&path.join("max_energy_range_uj"))?;
    Ok(Zone {
        label,
        energy,
        meter: Meter::new(range_uj),
    })
}

impl Sensor for RaplSensor {
    fn describe(&self) -> Description {
        let series = |metric: Metric, label: &str, kind| Series {
            metric,
            label: label.to_owned(),
            unit: metric.spec().unit,
            kind,
            averaging_ns: None,
            accuracy: None,
        };
        let both = |zone: &Zone| {
            [
                series(Metric::Energy, &zone.label, SeriesKind::Counter),
                series(Metric::PowerDraw, &zone.label, SeriesKind::Gauge),
            ]
        };
        Description {
            name: "rapl".to_owned(),
            source: "Linux powercap, intel-rapl".to_owned(),
            provenance: Provenance::Measured,
            device: None,
            series: self.zones.iter().flat_map(both).collect(),
        }
    }

    fn read(&mut self, now_ns: u64) -> Reading {
        let mut reading = Reading::default();
        let mut failed = Vec::new();
        for zone in &mut self.zones {
            let counter = sysfs::count(&zone.energy).map_err(|error| error.to_string());
            let metered = counter.and_then(|counter_uj| {
                let metered = zone.meter.read(now_ns, counter_uj);
                metered.map_err(|error| error.to_string())
            });
            match metered {
                Ok(metered) => {
                    reading.values.push(metered.energy_j);
                    reading.values.push(metered.power_w.unwrap_or(f64::NAN));
                }
                Err(why) => {
                    reading.values.extend([f64::NAN; 2]);
                    failed.push(format!("{}: {why}", zone.label));
                }
            }
        }
        reading.trouble = (!failed.is_empty()).then(|| Trouble::Failed(failed.join("; ")));
        reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    const SECOND_NS: u64 = 1_000_000_000;
    const RANGE_UJ: u64 = 262_143_328_850;

    fn zone(root: &TempDir, name: &str, label: &str, energy: &str, range: &str) -> PathBuf {
        let folder = root.path().join("sys/class/powercap").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("name"), label).unwrap();
        fs::write(folder.join("energy_uj"), energy).unwrap();
        fs::write(folder.join("max_energy_range_uj"), range).unwrap();
        folder.join("energy_uj")
    }

    #[test]
    fn power_is_energy_over_time_and_a_part_is_named_after_its_package() {
        let root = TempDir::new().unwrap();
        let range = RANGE_UJ.to_string();
        let package = zone(&root, "intel-rapl:0", "package-0\n", "1000000\n", &range);
        zone(&root, "intel-rapl:0:0", "dram\n", "5\n", &range);
        zone(&root, "intel-rapl-mmio:0", "package-0\n", "5\n", &range);
        let mut sensor = RaplSensor::open(root.path()).unwrap();
        let labels: Vec<_> = sensor
            .describe()
            .series
            .into_iter()
            .map(|s| s.label)
            .collect();
        assert_eq!(
            labels,
            ["package-0", "package-0", "package-0/dram", "package-0/dram"]
        );
        let first = sensor.read(SECOND_NS);
        assert!(first.values[1].is_nan(), "power needs two reads");
        assert_eq!(first.trouble, None);
        fs::write(package, "401000000\n").unwrap();
        let second = sensor.read(3 * SECOND_NS);
        assert_eq!(second.values, [400.0, 200.0, 0.0, 0.0]);
    }

    #[test]
    fn a_counter_that_wraps_goes_on_growing() {
        let mut meter = Meter::new(RANGE_UJ);
        meter.read(0, RANGE_UJ - 30_000_000).unwrap();
        let metered = meter.read(SECOND_NS, 70_000_000).unwrap();
        let expected = Metered {
            energy_j: 100.0,
            power_w: Some(100.0),
        };
        assert_eq!(metered, expected);
    }

    #[test]
    fn an_interval_that_could_hide_two_wraps_is_a_gap_and_the_next_goes_on() {
        let mut meter = Meter::new(RANGE_UJ);
        meter.read(0, 0).unwrap();
        assert_eq!(
            meter.read(3600 * SECOND_NS, 5),
            Err(MeterError::TooLong(3600))
        );
        let next = meter.read(3601 * SECOND_NS, 50_000_005).unwrap();
        assert_eq!(next.power_w, Some(50.0));
    }

    #[test]
    fn hostile_counters_are_gaps_and_never_a_panic() {
        let mut meter = Meter::new(10);
        assert_eq!(meter.read(0, 11), Err(MeterError::BeyondRange(11, 10)));
        assert!(Meter::new(0).read(0, 0).is_ok());
        let mut meter = Meter::new(u64::MAX);
        meter.read(5, u64::MAX).unwrap();
        assert_eq!(meter.read(5, 0), Err(MeterError::NoTime));
        assert!(meter.read(6, u64::MAX).is_ok());
        let root = TempDir::new().unwrap();
        let range = RANGE_UJ.to_string();
        let energy = zone(&root, "intel-rapl:0", "package-0", "1", &range);
        let mut sensor = RaplSensor::open(root.path()).unwrap();
        for text in ["", "-1", "1e9", "99999999999999999999999", "\u{1b}[2J"] {
            fs::write(&energy, text).unwrap();
            let reading = sensor.read(SECOND_NS);
            assert!(
                reading.values.iter().all(|value| value.is_nan()),
                "{text:?}"
            );
            let Some(Trouble::Failed(why)) = reading.trouble else {
                panic!("{text:?} is no trouble");
            };
            assert!(!why.contains('\u{1b}'), "{why:?}");
        }
    }

    #[test]
    fn no_zone_and_a_zone_that_may_not_be_read_are_absent_for_different_reasons() {
        let root = TempDir::new().unwrap();
        let remedy = |root: &TempDir| match RaplSensor::open(root.path()).map(|_| ()) {
            Err(What::Absent { remedy, .. }) => remedy,
            other => panic!("{other:?}"),
        };
        assert!(remedy(&root).contains("bare metal"));
        let energy = zone(&root, "intel-rapl:0", "package-0", "1", "100");
        fs::remove_file(energy).unwrap();
        assert!(remedy(&root).contains("root"));
    }
}
