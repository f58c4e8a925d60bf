//! The list of sensors: the one place that names them, opens those that are there, and matches each
//! to the compute device that it belongs to.

use crate::sensor::host::HostSensor;
use crate::sensor::hwmon::HwmonSensor;
use crate::sensor::nvml::{Group, NvmlLibrary};
use crate::sensor::rapl::RaplSensor;
use crate::sensor::replay::ReplaySensor;
use crate::sensor::{Description, DeviceKey, Sensor};
use crate::shell::probes::Probe;
use hallmark_results::frame::{Table, What};
use hallmark_results::plan::Plan;
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
    /// What was found of the libraries that were loaded.
    pub facts: Vec<(String, String)>,
}

/// Opens every sensor of this node.
///
/// # Errors
/// Only for a replay file, which was named on the command line: it must be right.
pub fn open(sources: &Sources) -> Result<Sensors, crate::sensor::replay::ReplayError> {
    let mut sensors = Sensors::default();
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
            layout.tables.push(Table {
                id,
                name: description.name.clone(),
                source: description.source.clone(),
                provenance: description.provenance,
                device,
                place: place.unwrap_or_else(|| {
                    plan.devices
                        .first()
                        .map_or_else(String::new, |d| d.node.clone())
                }),
                period_ns,
                series: description.series.clone(),
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
