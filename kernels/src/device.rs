//! What a device says of itself, before and without any work.

use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::Dtype;
use serde::{Deserialize, Serialize};

/// Identity and abilities of one compute device, as its engine reports them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Name on the command line and in the record, e.g. `cpu0`, `wgpu0`.
    pub id: String,
    /// The engine that drives it: `cpu`, `wgpu` or `cuda`.
    pub engine: String,
    pub name: String,
    pub vendor: String,
    /// PCI address `dddd:bb:dd.f` in lower case, where the engine knows it.
    pub pci: Option<String>,
    pub uuid: Option<String>,
    pub driver: String,
    /// Memory that a step may use.
    pub memory: Bytes,
    pub dtypes: Vec<Dtype>,
    /// Runs on the processor's own cores, so that it shares them with every other such device.
    pub software: bool,
    /// Processor cores given to it; empty where the device has its own silicon.
    pub cores: Vec<usize>,
    /// Further facts for the record, e.g. the instruction set in use or the kernel variant.
    pub facts: Vec<(String, String)>,
}

/// An engine that is not there: why, and how to get it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Absent {
    pub what: String,
    pub why: String,
    pub remedy: String,
}
