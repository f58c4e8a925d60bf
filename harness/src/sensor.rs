//! The boundary to anything that is sampled beside the load.
//!
//! A [`Sensor`] is one group of series read at one instant. It converts raw readings to SI base
//! units at once, says where they come from, and reports a failed read as a reason: never as a
//! zero, never as the last value again. It keeps no time and has no thread; the shell calls it.

use hallmark_results::frame::{Provenance, Series, What};
use serde::{Deserialize, Serialize};

pub mod host;
pub mod hwmon;
pub mod nvml;
pub mod rapl;
pub mod replay;

/// A source of samples.
pub trait Sensor: Send {
    /// What this sensor reads; constant over its life.
    fn describe(&self) -> Description;

    /// Settings as found at the start (driver, limits, link width …), in the order to print them.
    fn as_found(&mut self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Reads all series once. `now_ns` is the run clock, for rates made from counters.
    fn read(&mut self, now_ns: u64) -> Reading;
}

/// What a sensor is and what it reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Short and unique on the node: letters, digits and `-`, e.g. `nvml-gpu0`.
    pub name: String,
    /// Interface and version, e.g. `NVML 13.580.95`.
    pub source: String,
    pub provenance: Provenance,
    /// The compute device that it belongs to, if it belongs to one.
    pub device: Option<DeviceKey>,
    pub series: Vec<Series>,
}

/// How compute devices and sensors find each other; never by index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceKey {
    pub uuid: Option<String>,
    /// `dddd:bb:dd.f`, lower case.
    pub pci: Option<String>,
}

impl DeviceKey {
    /// Whether both name the same device. Two keys without a common kind of id match nothing.
    pub fn matches(&self, other: &Self) -> bool {
        let same = |a: &Option<String>, b: &Option<String>| match (a, b) {
            (Some(a), Some(b)) => Some(a.eq_ignore_ascii_case(b)),
            _ => None,
        };
        same(&self.uuid, &other.uuid)
            .or_else(|| same(&self.pci, &other.pci))
            .unwrap_or(false)
    }
}

/// The outcome of one read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// One value for each series in SI base units; NaN where there is none.
    pub values: Vec<f64>,
    /// Why values are missing, if any are that should be there.
    pub trouble: Option<Trouble>,
    /// Things to journal beside the values, e.g. Xid events.
    pub events: Vec<What>,
}

/// Why a read gave less than it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// This read failed; the next may not.
    Failed(String),
    /// The device or file is gone; reading goes on, in case it comes back.
    Lost(String),
}
