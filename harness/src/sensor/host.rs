//! The host itself: how fast its cores run, how busy they are, how much memory is used.
//!
//! Decides: the mean frequency over cores (cpufreq, else `/proc/cpuinfo`), the busy share between
//! two reads of `/proc/stat`, memory that is not available to a new process. Refuses: a frequency
//! that is the mean of some cores and passes for that of all, and a share before the second read.
//! Linux only; elsewhere the sensor is absent with its reason.

use super::{Description, Reading, Sensor, Trouble};
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{Provenance, Series, SeriesKind, What};
use std::io;
use std::path::{Path, PathBuf};

pub(super) mod sysfs;

const HERTZ_PER_KILOHERTZ: f64 = 1e3;
const HERTZ_PER_MEGAHERTZ: f64 = 1e6;
const BYTES_PER_KIB: f64 = 1024.0;

/// Where the frequency of the cores comes from.
enum Frequency {
    /// One `scaling_cur_freq` for each core, kHz.
    Cpufreq(Vec<PathBuf>),
    /// The `cpu MHz` lines of `/proc/cpuinfo`.
    Cpuinfo,
}

/// CPU frequency and load and memory in use of this host.
pub struct HostSensor {
    root: PathBuf,
    frequency: Option<Frequency>,
    last: Option<CpuTime>,
}

impl HostSensor {
    /// Opens the host's files below `root`, `/` but for tests.
    ///
    /// # Errors
    /// [`What::Absent`]: there is no `/proc/stat`.
    pub fn open(root: &Path) -> Result<Self, What> {
        let stat = root.join("proc/stat");
        if let Err(error) = sysfs::table(&stat) {
            return Err(What::Absent {
                what: "cpu load".to_owned(),
                why: format!("{}: {error}", stat.display()),
                remedy: "run on Linux with /proc mounted".to_owned(),
            });
        }
        Ok(Self {
            root: root.to_owned(),
            frequency: find_frequency(root),
            last: None,
        })
    }

    fn load_percent(&mut self) -> io::Result<Option<f64>> {
        let now = cpu_time(&sysfs::table(&self.root.join("proc/stat"))?)?;
        let before = self.last.replace(now);
        Ok(before.and_then(|before| now.busy_percent_since(before)))
    }

    fn frequency_hz(&self) -> io::Result<Option<f64>> {
        let hertz = match &self.frequency {
            None => return Ok(None),
            Some(Frequency::Cpufreq(cores)) => {
                let mut sum = 0.0;
                for core in cores {
                    sum += sysfs::number(core)? * HERTZ_PER_KILOHERTZ;
                }
                sum / cores.len() as f64
            }
            Some(Frequency::Cpuinfo) => {
                let text = sysfs::table(&self.root.join("proc/cpuinfo"))?;
                cpuinfo_hz(&text).ok_or_else(|| malformed("no `cpu MHz` line"))?
            }
        };
        Ok(Some(hertz))
    }
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn find_frequency(root: &Path) -> Option<Frequency> {
    let cpus = sysfs::entries(&root.join("sys/devices/system/cpu"), "cpu").unwrap_or_default();
    let cores: Vec<PathBuf> = cpus
        .into_iter()
        .map(|(_, path)| path.join("cpufreq/scaling_cur_freq"))
        .filter(|path| sysfs::number(path).is_ok())
        .collect();
    if !cores.is_empty() {
        return Some(Frequency::Cpufreq(cores));
    }
    let text = sysfs::table(&root.join("proc/cpuinfo")).ok()?;
    cpuinfo_hz(&text).map(|_| Frequency::Cpuinfo)
}

/// The mean of the `cpu MHz` lines, in Hz; `None` where there is none or one is no number.
fn cpuinfo_hz(text: &str) -> Option<f64> {
    let mut sum_mhz = 0.0;
    let mut cores = 0_u32;
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        if key.trim() == "cpu MHz" {
            sum_mhz += sysfs::parse(value)?;
            cores += 1;
        }
    }
    (cores > 0).then(|| sum_mhz / f64::from(cores) * HERTZ_PER_MEGAHERTZ)
}

/// Time of all cores since boot, in clock ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CpuTime {
    busy: u64,
    total: u64,
}

impl CpuTime {
    /// The busy share since `before`, in %; `None` where no time passed or a counter went back.
    fn busy_percent_since(self, before: Self) -> Option<f64> {
        let busy = self.busy.checked_sub(before.busy)?;
        let total = self
            .total
            .checked_sub(before.total)
            .filter(|ticks| *ticks > 0)?;
        Some(100.0 * busy as f64 / total as f64)
    }
}

/// The line `cpu` of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
///
/// Guest time follows, but is part of user and nice already. Stolen time passed, but not for us.
/// Source: proc_stat(5).
fn cpu_time(stat: &str) -> io::Result<CpuTime> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "));
    let line = line.ok_or_else(|| malformed("no line `cpu`"))?;
    let ticks: Result<Vec<u64>, _> = line.split_whitespace().take(8).map(str::parse).collect();
    let ticks = ticks.map_err(|_| malformed("the line `cpu` holds something that is no count"))?;
    let [user, nice, system, idle, rest @ ..] = ticks.as_slice() else {
        return Err(malformed("the line `cpu` has fewer than 4 counts"));
    };
    let at = |place: usize| rest.get(place).copied().unwrap_or(0);
    let (iowait, irq, softirq, steal) = (at(0), at(1), at(2), at(3));
    let sum = |parts: &[u64]| {
        parts
            .iter()
            .fold(0_u64, |sum, part| sum.saturating_add(*part))
    };
    let busy = sum(&[*user, *nice, *system, irq, softirq]);
    let total = sum(&[busy, *idle, iowait, steal]);
    Ok(CpuTime { busy, total })
}

/// `MemTotal` less `MemAvailable` of `/proc/meminfo`, in bytes.
fn memory_used_bytes(text: &str) -> io::Result<f64> {
    let kib = |key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|value| sysfs::parse(value.trim().strip_suffix("kB")?))
    };
    match (kib("MemTotal"), kib("MemAvailable")) {
        (Some(total), Some(available)) if available <= total => {
            Ok((total - available) * BYTES_PER_KIB)
        }
        _ => Err(malformed(
            "no usable MemTotal and MemAvailable in /proc/meminfo",
        )),
    }
}

impl Sensor for HostSensor {
    fn describe(&self) -> Description {
        let series = |metric: Metric| Series {
            metric,
            label: String::new(),
            unit: metric.spec().unit,
            kind: SeriesKind::Gauge,
            averaging_ns: None,
            accuracy: None,
        };
        let frequency = match self.frequency {
            Some(Frequency::Cpufreq(_)) => ", cpufreq",
            Some(Frequency::Cpuinfo) => ", /proc/cpuinfo",
            None => "",
        };
        let mut metrics = vec![Metric::CpuLoad, Metric::MemoryUsed];
        metrics.extend(self.frequency.is_some().then_some(Metric::CpuFrequency));
        Description {
            name: "host".to_owned(),
            source: format!("/proc/stat, /proc/meminfo{frequency}"),
            provenance: Provenance::Measured,
            device: None,
            series: metrics.into_iter().map(series).collect(),
        }
    }

    fn as_found(&mut self) -> Vec<(String, String)> {
        let policy = self.root.join("sys/devices/system/cpu/cpu0/cpufreq");
        let settings = [
            ("cpu_governor", "scaling_governor"),
            ("cpu_frequency_driver", "scaling_driver"),
            ("cpu_frequency_max_khz", "scaling_max_freq"),
        ];
        let found = settings.into_iter().filter_map(|(key, file)| {
            let value = sysfs::attribute(&policy.join(file)).ok()?;
            Some((key.to_owned(), sysfs::label(&value)))
        });
        found.collect()
    }

    fn read(&mut self, _now_ns: u64) -> Reading {
        let memory = sysfs::table(&self.root.join("proc/meminfo"));
        let mut outcomes = vec![
            ("cpu_load", self.load_percent()),
            (
                "memory_used",
                memory.and_then(|text| memory_used_bytes(&text)).map(Some),
            ),
        ];
        if self.frequency.is_some() {
            outcomes.push(("cpu_frequency", self.frequency_hz()));
        }
        let mut reading = Reading::default();
        let mut failed = Vec::new();
        for (what, outcome) in outcomes {
            reading.values.push(match outcome {
                Ok(value) => value.unwrap_or(f64::NAN),
                Err(error) => {
                    failed.push(format!("{what}: {error}"));
                    f64::NAN
                }
            });
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

    const MEMINFO: &str = "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  400 kB\n";

    fn machine(stat: &str, khz: &[u32]) -> TempDir {
        let root = TempDir::new().unwrap();
        fs::create_dir_all(root.path().join("proc")).unwrap();
        fs::write(root.path().join("proc/stat"), stat).unwrap();
        fs::write(root.path().join("proc/meminfo"), MEMINFO).unwrap();
        for (core, khz) in khz.iter().enumerate() {
            let folder = format!("sys/devices/system/cpu/cpu{core}/cpufreq");
            fs::create_dir_all(root.path().join(&folder)).unwrap();
            let folder = root.path().join(folder);
            fs::write(folder.join("scaling_cur_freq"), format!("{khz}\n")).unwrap();
            fs::write(folder.join("scaling_governor"), "performance\n").unwrap();
        }
        root
    }

    fn value(sensor: &HostSensor, reading: &Reading, metric: Metric) -> Option<f64> {
        let series = sensor.describe().series;
        let place = series.iter().position(|series| series.metric == metric)?;
        (!reading.values[place].is_nan()).then_some(reading.values[place])
    }

    #[test]
    fn load_is_the_busy_share_between_two_reads_and_guest_time_counts_once() {
        let root = machine("cpu  100 0 50 800 50 0 0 0 100 0\ncpu0 1 1 1 1\n", &[]);
        let mut sensor = HostSensor::open(root.path()).unwrap();
        let first = sensor.read(0);
        assert_eq!(
            value(&sensor, &first, Metric::CpuLoad),
            None,
            "no interval yet"
        );
        assert_eq!(first.trouble, None);
        // Of 200 ticks 30 + 10 + 10 busy, 100 idle, 30 in iowait, 20 stolen.
        let later = "cpu  130 0 60 900 80 4 6 20 130 0\n";
        fs::write(root.path().join("proc/stat"), later).unwrap();
        let second = sensor.read(1);
        assert_eq!(value(&sensor, &second, Metric::CpuLoad), Some(25.0));
        assert_eq!(
            value(&sensor, &second, Metric::MemoryUsed),
            Some(600.0 * 1024.0)
        );
    }

    #[test]
    fn frequency_is_the_mean_of_all_cores_in_hertz() {
        let root = machine("cpu 1 1 1 1\n", &[2_000_000, 3_000_000]);
        let mut sensor = HostSensor::open(root.path()).unwrap();
        let reading = sensor.read(0);
        assert_eq!(value(&sensor, &reading, Metric::CpuFrequency), Some(2.5e9));
        let found = sensor.as_found();
        assert!(found.contains(&("cpu_governor".to_owned(), "performance".to_owned())));
        // A core that goes away is a gap: the mean of the others would pass for that of all.
        let lost = root
            .path()
            .join("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq");
        fs::remove_file(lost).unwrap();
        let reading = sensor.read(1);
        assert_eq!(value(&sensor, &reading, Metric::CpuFrequency), None);
        assert!(matches!(reading.trouble, Some(Trouble::Failed(_))));
    }

    #[test]
    fn without_cpufreq_the_frequency_comes_from_cpuinfo_and_without_either_it_is_no_series() {
        let root = machine("cpu 1 1 1 1\n", &[]);
        let sensor = HostSensor::open(root.path()).unwrap();
        let series = sensor.describe().series;
        assert!(
            series
                .iter()
                .all(|series| series.metric != Metric::CpuFrequency)
        );
        let cpuinfo = "processor : 0\ncpu MHz\t\t: 2400.000\n\ncpu MHz\t\t: 2600.000\n";
        fs::write(root.path().join("proc/cpuinfo"), cpuinfo).unwrap();
        let mut sensor = HostSensor::open(root.path()).unwrap();
        let reading = sensor.read(0);
        assert_eq!(value(&sensor, &reading, Metric::CpuFrequency), Some(2.5e9));
    }

    #[test]
    fn hostile_tables_are_errors_and_never_a_panic() {
        for stat in [
            "",
            "cpu",
            "cpu \n",
            "cpu 1 2 3",
            "cpu a b c d",
            "cpu -1 0 0 0",
            "cpu 99999999999999999999 0 0 0",
        ] {
            assert!(cpu_time(stat).is_err(), "{stat:?}");
        }
        let most = u64::MAX;
        let overflowing = format!("cpu {most} {most} {most} {most}");
        assert_eq!(cpu_time(&overflowing).unwrap().total, most);
        for meminfo in [
            "",
            "MemTotal: 5 kB\nMemAvailable: 6 kB\n",
            "MemTotal: x kB\n",
        ] {
            assert!(memory_used_bytes(meminfo).is_err(), "{meminfo:?}");
        }
        assert_eq!(cpuinfo_hz("cpu MHz : nan\n"), None);
    }

    #[test]
    fn counters_that_went_back_have_no_share() {
        let (low, high) = (CpuTime { busy: 1, total: 2 }, CpuTime { busy: 5, total: 9 });
        assert_eq!(low.busy_percent_since(high), None);
        assert_eq!(low.busy_percent_since(low), None);
    }

    #[test]
    fn a_machine_without_proc_is_absent_with_a_remedy() {
        let root = TempDir::new().unwrap();
        let absent = HostSensor::open(root.path()).map(|_| ()).unwrap_err();
        assert!(matches!(absent, What::Absent { remedy, .. } if remedy.contains("Linux")));
    }
}
