//! The list of sensors: the one place that names them, opens those that are there, and matches each
//! to the compute device that it belongs to.

use crate::sensor::host::HostSensor;
use crate::sensor::hwmon::HwmonSensor;
use crate::sensor::nvml::{Group, NvmlLibrary};
use crate::sensor::rapl::RaplSensor;
use crate::sensor::replay::ReplaySensor;
use crate::sensor::{Description, DeviceKey, Sensor};
use crate::shell::probes::Probe;
use crate::topology;
use hallmark_results::frame::{Series, Table, What};
use hallmark_results::plan::Plan;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Slow-changing and slow-to-ask series are read at this period.
const SLOW_NS: u64 = 1_000_000_000;

/// Where sensors are looked for.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Root of `/proc` and `/sys`; another folder in tests.
    pub root: PathBuf,
    /// The NVML library, where it is not at its usual place.
    pub nvml: Option<PathBuf>,
    /// Files to replay.
    pub replay: Vec<PathBuf>,
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
            nvml: None,
            replay: Vec::new(),
        }
    }
}

/// All sensors found, and what is not there.
#[derive(Default)]
pub struct Sensors {
    /// Each with its period, where it has one of its own.
    pub present: Vec<(Box<dyn Sensor>, Option<u64>)>,
    pub absent: Vec<What>,
    /// What was found of the libraries that were loaded, and of what decides which are.
    pub facts: Vec<(String, String)>,
}

/// Opens every sensor of this node.
///
/// # Errors
/// Only for a replay file, which was named on the command line: it must be right.
pub fn open(sources: &Sources) -> Result<Sensors, crate::sensor::replay::ReplayError> {
    let mut sensors = Sensors {
        facts: topology::environment(std::env::vars_os()),
        ..Sensors::default()
    };
    sensors.nvml(sources.nvml.as_deref());
    match HwmonSensor::discover(&sources.root) {
        Ok(chips) => chips.into_iter().for_each(|c| sensors.add(c, None)),
        Err(absent) => sensors.absent.push(absent),
    }
    match RaplSensor::open(&sources.root) {
        Ok(rapl) => sensors.add(rapl, None),
        Err(absent) => sensors.absent.push(absent),
    }
    match HostSensor::open(&sources.root) {
        Ok(host) => sensors.add(host, None),
        Err(absent) => sensors.absent.push(absent),
    }
    for file in &sources.replay {
        sensors.add(ReplaySensor::open(file)?, None);
    }
    Ok(sensors)
}

impl Sensors {
    fn add(&mut self, sensor: impl Sensor + 'static, period_ns: Option<u64>) {
        self.present.push((Box::new(sensor), period_ns));
    }

    fn nvml(&mut self, path: Option<&Path>) {
        let library = match NvmlLibrary::load(path) {
            Ok(library) => library,
            Err(absent) => return self.absent.push(absent.into()),
        };
        self.facts.extend(library.file());
        let (devices, absent) = library.devices();
        self.absent.extend(absent.into_iter().map(What::from));
        for device in devices {
            for (group, period) in [(Group::Load, None), (Group::Health, Some(SLOW_NS))] {
                let sensor = device.sensor(group);
                self.absent
                    .extend(sensor.absent().iter().cloned().map(What::from));
                self.add(sensor, period);
            }
        }
    }

    /// Every device that telemetry sees, whether it takes part or not.
    pub fn devices(&self) -> Vec<DeviceKey> {
        let mut keys: Vec<DeviceKey> = Vec::new();
        for key in self.present.iter().filter_map(|(s, _)| s.describe().device) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }

    /// Turns the sensors into tables of a run and the probes that fill them, numbered from `first`,
    /// with the settings as found.
    pub fn lay_out(self, plan: &Plan, first: u32) -> Layout {
        let mut layout = Layout::default();
        layout
            .events
            .extend(self.absent.into_iter().map(|what| (None, what)));
        let facts = self.facts.into_iter();
        layout
            .events
            .extend(facts.map(|(key, value)| (None, What::AsFound { key, value })));
        for ((mut sensor, period), id) in self.present.into_iter().zip(first..) {
            let description = sensor.describe();
            let device = description.device.as_ref().and_then(|key| owner(plan, key));
            if description.device.is_some() && device.is_none() {
                // Its samples would say nothing of this run; that the device is there and idle does.
                layout.tell_idle(&description);
                continue;
            }
            for (key, value) in sensor.as_found() {
                layout.events.push((device, What::AsFound { key, value }));
            }
            let place = device
                .and_then(|d| plan.devices.get(d as usize))
                .map(|d| d.id.clone());
            let period_ns = period
                .unwrap_or(plan.sample_period_ns)
                .max(plan.sample_period_ns);
            let id = id.min(first + layout.tables.len() as u32);
            let mut series = description.series.clone();
            distinct(&mut series);
            layout.tables.push(Table {
                id,
                name: free_name(&layout.tables, &description.name),
                source: description.source.clone(),
                provenance: description.provenance,
                device,
                place: place.unwrap_or_else(|| {
                    plan.devices
                        .first()
                        .map_or_else(String::new, |d| d.node.clone())
                }),
                period_ns,
                series,
            });
            layout.probes.push(Probe {
                table: id,
                device,
                period_ns,
                description,
                sensor,
            });
        }
        layout
    }
}

/// Tables, what fills them, and what was found on the way.
#[derive(Default)]
pub struct Layout {
    pub tables: Vec<Table>,
    pub probes: Vec<Probe>,
    pub events: Vec<(Option<u32>, What)>,
}

impl Layout {
    /// Tells once that a device is here and takes no part.
    fn tell_idle(&mut self, description: &Description) {
        let key = description.device.clone().unwrap_or_default();
        let name = key.uuid.or(key.pci).unwrap_or_default();
        let told = What::Absent {
            what: format!("load on device {name}"),
            why: "telemetry sees the device, and this run does not load it".to_owned(),
            remedy:
                "leave --devices at its default; `hallmark inspect` shows which engine can load it"
                    .to_owned(),
        };
        if !self.events.iter().any(|(_, what)| *what == told) {
            self.events.push((None, told));
        }
    }
}

/// Series of one metric that a driver calls alike are numbered from the second on: a record keeps each by its name.
fn distinct(series: &mut [Series]) {
    let mut taken = BTreeSet::new();
    for one in series {
        let label = one.label.clone();
        let mut number = 1;
        while !taken.insert((one.metric.id(), one.label.clone())) {
            number += 1;
            one.label = format!("{label}-{number}")
                .trim_start_matches('-')
                .to_owned();
        }
    }
}

/// The table's name as a file name that no other table has.
fn free_name(tables: &[Table], name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let lower = name.to_ascii_lowercase();
    let safe: String = lower
        .chars()
        .map(|c| if plain(c) { c } else { '-' })
        .take(56)
        .collect();
    let safe = if safe.is_empty() {
        "sensor".to_owned()
    } else {
        safe
    };
    let numbered = (2..).map(|n| format!("{safe}-{n}"));
    let free = |n: &String| tables.iter().all(|t| t.name != *n);
    std::iter::once(safe.clone())
        .chain(numbered)
        .find(free)
        .unwrap_or(safe)
}

fn owner(plan: &Plan, key: &DeviceKey) -> Option<u32> {
    let matches = |d: &hallmark_results::plan::PlannedDevice| {
        let own = DeviceKey {
            uuid: d.uuid.clone(),
            pci: d.pci.clone(),
        };
        own.matches(key)
    };
    plan.devices.iter().position(matches).map(|i| i as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_profiles::metric::Metric;
    use hallmark_results::frame::{Provenance, SeriesKind};
    use hallmark_results::store::shape::column_names;

    #[test]
    fn what_a_driver_calls_alike_still_has_a_name_of_its_own() {
        let fan = |label: &str| Series {
            metric: Metric::FanSpeed,
            label: label.to_owned(),
            unit: Metric::FanSpeed.spec().unit,
            kind: SeriesKind::Gauge,
            averaging_ns: None,
            accuracy: None,
        };
        let mut series = ["Other Fan", "Other Fan", "Other Fan-2", "", "", "Other Fan"].map(fan);
        distinct(&mut series);
        let mut table = Table {
            id: 0,
            name: free_name(&[], "hwmon3-Dell SMM"),
            source: String::new(),
            provenance: Provenance::Measured,
            device: None,
            place: String::new(),
            period_ns: 1,
            series: series.to_vec(),
        };
        let names: BTreeSet<String> = column_names(&table).into_iter().collect();
        assert_eq!(names.len(), 6, "{names:?}");
        assert_eq!(table.series[1].label, "Other Fan-2");
        let before = std::mem::take(&mut table.name);
        assert_eq!(before, "hwmon3-dell-smm");
        table.name = before;
        assert_eq!(free_name(&[table], "hwmon3-dell-smm"), "hwmon3-dell-smm-2");
    }
}
