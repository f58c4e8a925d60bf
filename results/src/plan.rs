//! The plan of a run as the record keeps it: what is to be done, on what, in which order, and by which limits.
//!
//! Only the type; the harness makes it from a profile and a topology.

use hallmark_profiles::criterion::Criterion;
use hallmark_profiles::inventory::Inventory;
use hallmark_profiles::profile::{Loaded, Profile, Pulse, StopWhen, Warmup};
use hallmark_profiles::workload::{Dtype, Parts, StepSpec};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How the facts of a device begin that name the vendor's libraries it is driven by: version, file and digest.
pub const LIBRARY: &str = "library ";
/// Fact of a device whose free memory was tested over nearly all of it, and what that came to.
pub const MEMORY_TESTED: &str = "memory_tested";
/// Fact of a device whose free memory was to be tested and was not, or too little of it: why.
pub const MEMORY_UNTESTED: &str = "memory_untested";

/// Everything that is decided before the load starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The profile's text as read; criteria are judged from it and from nothing else.
    pub profile_text: String,
    /// File or built-in name that the text came from.
    pub profile_origin: String,
    /// SHA-256 of the text.
    pub profile_digest: String,
    /// What makes this run another one than its profile promises, one sentence each: the command line, a built-in
    /// profile's name on another text, parts that are not this program's or the driver's own. Such a run accepts no site.
    pub overrides: Vec<String>,
    /// The devices that the site is declared to have; a run without one accepts no site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    pub seed: u64,
    pub devices: Vec<PlannedDevice>,
    pub dtype: Dtype,
    /// Distinct steps; each device prepares all of them before the load starts.
    pub steps: Vec<StepSpec>,
    /// What happens one after the other.
    pub schedule: Vec<Segment>,
    pub warmup: Warmup,
    pub stop_when: StopWhen,
    pub queue_depth: u32,
    pub sample_period_ns: u64,
    pub block_ns: u64,
    /// How the collective moves bytes, e.g. `host shared memory`; empty where no step reduces.
    pub transport: String,
    /// What this run cannot show, known beforehand, one sentence each.
    pub limits: Vec<String>,
}

/// A device that must take part from start to end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedDevice {
    /// `cpu0`, `wgpu0`, …
    pub id: String,
    pub engine: String,
    pub name: String,
    pub vendor: String,
    pub pci: Option<String>,
    pub uuid: Option<String>,
    pub driver: String,
    /// The node's host name.
    pub node: String,
    /// SKU of the reference file, where the name matches one.
    pub sku: Option<String>,
    pub software: bool,
    pub cores: Vec<usize>,
    pub memory_bytes: u64,
    pub facts: Vec<(String, String)>,
    /// Settings that the site's file promises of it, by the keys under which a sensor tells them as found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub promised: Vec<(String, String)>,
    pub provenance: crate::frame::Provenance,
}

/// A stretch of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    pub name: String,
    pub kind: SegmentKind,
    /// Index into [`Plan::steps`].
    pub step: usize,
    pub parts: Parts,
    /// Planned length; for the warm-up its upper limit.
    pub duration_ns: u64,
    /// Devices under load, the first n of the plan.
    pub active: usize,
    pub pulse: Option<Pulse>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SegmentKind {
    RampUp,
    Warmup,
    /// Index into the profile's phases; the only kind that is judged.
    Phase(usize),
    RampDown,
}

impl Plan {
    /// SHA-256 of the plan's JSON, in hexadecimal: printed before the load starts. Two runs of one profile differ in
    /// it, since each draws a seed of its own for its audits; what they share is the profile's digest.
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        hex(&Sha256::digest(&json))
    }

    /// The profile, read again from its text; fails if the text is not the one that the digest names. It accepts a site
    /// only if it has the gates for it and the site's devices were declared.
    ///
    /// # Errors
    /// One sentence: digest mismatch or a profile error.
    pub fn profile(&self) -> Result<Profile, String> {
        if hallmark_profiles::profile::digest(&self.profile_text) != self.profile_digest {
            return Err("the profile's text is not the one whose digest the plan names".to_owned());
        }
        let loaded: Loaded =
            hallmark_profiles::profile::recall(&self.profile_text, &self.profile_origin)
                .map_err(|e| e.to_string())?;
        let mut profile = loaded.profile;
        profile.accepts_site &= self.inventory.is_some();
        Ok(profile)
    }

    /// The phase that a criterion judges: its own, or the main one.
    pub fn phase_of(profile: &Profile, criterion: &Criterion) -> usize {
        let named = criterion.phase.as_ref();
        named
            .and_then(|name| profile.load.phases.iter().position(|p| &p.name == name))
            .unwrap_or_else(|| profile.load.main_phase())
    }

    /// Planned length of the whole run, warm-up at its limit.
    pub fn duration_ns(&self) -> u64 {
        self.schedule.iter().map(|s| s.duration_ns).sum()
    }
}

/// Bytes as lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
