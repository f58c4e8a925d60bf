//! The sensor of one group of a device's series, read at one instant.
//!
//! Decides: which series the device has, asked once when the sensor is opened; all fields of a group
//! come from one call. Refuses: to go on asking a device that is lost within one read, since each
//! question to it may take seconds; the next read asks again, in case it comes back.

use super::channel::{Channel, Choice, Shared, Source, choices};
use super::event::{XidEvents, meaning};
use super::{Absent, NvmlDevice, ReadError, is_unsupported};
use crate::sensor::{Description, Reading, Sensor, Trouble};
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{Series, SeriesKind, What};
use nvml_wrapper::error::NvmlError;

/// At most so many failed series are named in one reason.
const NAMED_MAX: usize = 4;

/// Series that are sampled together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Power, heat, clocks and reasons: what follows the load. For 10 Hz.
    Load,
    /// Errors, links, limits and Xid events: what should not change, and is slow to ask. For 1 Hz.
    Health,
}

/// Reads one [`Group`] of one device.
pub struct NvmlSensor {
    device: NvmlDevice,
    group: Group,
    channels: Vec<Channel>,
    absent: Vec<Absent>,
    told_absent: bool,
}

impl NvmlSensor {
    pub(super) fn open(device: NvmlDevice, group: Group) -> Self {
        let mut channels = Vec::new();
        let mut absent = Vec::new();
        // First, so that a lost device's last Xid is taken before its loss ends the read.
        if group == Group::Health {
            match XidEvents::open(device.library.nvml, &device.device) {
                Ok(events) => channels.push(xid_channel(events)),
                Err(error) => absent.push(series_absent(&device, "xid", &error)),
            }
        }
        for choice in choices(&device, group) {
            match choose(&device, choice) {
                Ok(channel) => channels.push(channel),
                Err(missing) => absent.push(missing),
            }
        }
        Self {
            device,
            group,
            channels,
            absent,
            told_absent: false,
        }
    }

    /// The series that this device does not have, and why.
    pub fn absent(&self) -> &[Absent] {
        &self.absent
    }

    /// Reads every channel in order; a lost device ends the read, and what is left has no value.
    fn read_all(&mut self, shared: &mut Shared) -> (Vec<f64>, Vec<ReadError>) {
        let mut values = vec![f64::NAN; self.channels.len()];
        let mut errors = Vec::new();
        for (channel, value) in self.channels.iter_mut().zip(&mut values) {
            match channel.read(&self.device.device, shared) {
                Ok(read) => *value = read.unwrap_or(f64::NAN),
                Err(error) => {
                    let error = self.device.read_error(&name_of(&channel.series), &error);
                    let lost = matches!(error, ReadError::Lost { .. });
                    errors.push(error);
                    if lost {
                        break;
                    }
                }
            }
        }
        (values, errors)
    }
}

impl Sensor for NvmlSensor {
    fn describe(&self) -> Description {
        let suffix = match self.group {
            Group::Load => "",
            Group::Health => "-health",
        };
        Description {
            name: format!("nvml-gpu{}{suffix}", self.device.index),
            source: self.device.library.version(),
            provenance: self.device.provenance(),
            device: Some(self.device.key()),
            series: self
                .channels
                .iter()
                .map(|channel| channel.series.clone())
                .collect(),
        }
    }

    fn as_found(&mut self) -> Vec<(String, String)> {
        match self.group {
            Group::Load => self.device.as_found(),
            Group::Health => Vec::new(),
        }
    }

    fn read(&mut self, now_ns: u64) -> Reading {
        let mut events = Vec::new();
        if !std::mem::replace(&mut self.told_absent, true) {
            events.extend(self.absent.iter().cloned().map(What::from));
        }
        let asks: Vec<_> = self.channels.iter().filter_map(Channel::field).collect();
        let mut shared = Shared::begin(&self.device.device, &asks, now_ns);
        let (values, errors) = self.read_all(&mut shared);
        events.extend(shared.xids.into_iter().map(|code| What::Xid {
            code,
            detail: meaning(code).to_owned(),
        }));
        Reading {
            values,
            trouble: trouble(&errors),
            events,
        }
    }
}

fn xid_channel(events: XidEvents) -> Channel {
    Channel {
        series: Series {
            metric: Metric::Xid,
            label: String::new(),
            unit: Metric::Xid.spec().unit,
            kind: SeriesKind::Counter,
            averaging_ns: None,
            accuracy: None,
        },
        source: Source::Xids(events, 0),
    }
}

/// The first of the alternatives that the device has.
fn choose(device: &NvmlDevice, choice: Choice) -> Result<Channel, Absent> {
    let mut last = None;
    for mut channel in choice {
        let asks: Vec<_> = channel.field().into_iter().collect();
        let mut shared = Shared::begin(&device.device, &asks, 0);
        let probed = channel.read(&device.device, &mut shared);
        channel.forget();
        match probed {
            Err(error) if is_unsupported(&error) => {
                last = Some(series_absent(device, &name_of(&channel.series), &error));
            }
            // An error that may pass does not cost the series for the whole run.
            Ok(_) | Err(_) => return Ok(channel),
        }
    }
    Err(last.unwrap_or_else(|| series_absent(device, "a series", &NvmlError::NotSupported)))
}

fn series_absent(device: &NvmlDevice, what: &str, error: &NvmlError) -> Absent {
    let remedy = match error {
        NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_) => {
            "a newer nvidia driver may have it"
        }
        NvmlError::NoPermission => "run as a user that may read it",
        _ => "this device does not offer it; judge by another meter",
    };
    Absent {
        what: format!("{what} of gpu {}", device.uuid),
        why: match error {
            // The loader's own text names every place it looked and says no more than this.
            NvmlError::FailedToLoadSymbol(_) => "the library lacks the function".to_owned(),
            other => other.to_string(),
        },
        remedy: remedy.to_owned(),
    }
}

fn name_of(series: &Series) -> String {
    if series.label.is_empty() {
        series.metric.to_string()
    } else {
        format!("{} ({})", series.metric, series.label)
    }
}

/// The one reason of a read: the loss of the device, or what failed.
fn trouble(errors: &[ReadError]) -> Option<Trouble> {
    let lost = errors
        .iter()
        .find(|error| matches!(error, ReadError::Lost { .. }));
    if let Some(lost) = lost {
        return Some(Trouble::Lost(lost.to_string()));
    }
    let mut named: Vec<String> = errors
        .iter()
        .take(NAMED_MAX)
        .map(ToString::to_string)
        .collect();
    if errors.len() > NAMED_MAX {
        named.push(format!("and {} more", errors.len() - NAMED_MAX));
    }
    (!named.is_empty()).then(|| Trouble::Failed(named.join("; ")))
}
