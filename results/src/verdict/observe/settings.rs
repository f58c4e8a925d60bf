//! Settings as found, compared across peers: a device that was set up differently is no peer.
//!
//! Only what should be alike is compared; serials, addresses and present states are each device's own.

use super::super::evidence::Evidence;
use super::{Scene, Sight};
use crate::frame::What;
use crate::standing::Standing;
use std::collections::BTreeMap;

/// Keys of settings that devices of one kind must share.
const ALIKE: [&str; 16] = [
    "clock_memory_max",
    "clock_sm_max",
    "driver",
    "ecc",
    "memory_total",
    "mig",
    "nvlinks_active",
    "pcie_generation_max",
    "pcie_width",
    "pcie_width_max",
    "power_limit",
    "power_limit_default",
    "power_limit_enforced",
    "temp_shutdown",
    "temp_slowdown",
    "vbios",
];

/// Settings by key and device.
type Found<'a> = BTreeMap<&'a str, BTreeMap<u32, &'a str>>;

fn found(standing: &Standing) -> Found<'_> {
    let mut found = Found::new();
    for event in standing.events() {
        if let (Some(device), What::AsFound { key, value }) = (event.device, &event.what)
            && ALIKE.contains(&key.as_str())
        {
            found.entry(key).or_default().insert(device, value);
        }
    }
    found
}

/// Devices whose settings can be held against others of their kind.
fn comparable(standing: &Standing, found: &Found) -> Vec<u32> {
    let devices = &standing.opened().plan.devices;
    let kind = |d: u32| devices.get(d as usize).map(|d| (&d.engine, &d.name));
    let told = |peer: u32| found.values().any(|values| values.contains_key(&peer));
    let count = devices.len() as u32;
    let has_peer = |d: &u32| (0..count).any(|p| p != *d && kind(p) == kind(*d) && told(p));
    (0..count).filter(has_peer).collect()
}

/// Whether this record holds settings of devices that should be alike.
pub fn are_comparable(standing: &Standing) -> bool {
    !comparable(standing, &found(standing)).is_empty()
}

/// A device's settings held against its peers'.
struct Held<'a> {
    /// Each setting in which it differs, in words.
    unlike: Vec<String>,
    compared: u64,
    /// A setting that could not be read.
    unread: Option<&'a str>,
}

fn held<'a>(standing: &Standing, found: &Found<'a>, device: u32) -> Held<'a> {
    let devices = &standing.opened().plan.devices;
    let kind = |d: u32| devices.get(d as usize).map(|d| (&d.engine, &d.name));
    let mut held = Held {
        unlike: Vec::new(),
        compared: 0,
        unread: None,
    };
    for (key, values) in found {
        let is_peer = |d: u32| d != device && kind(d) == kind(device);
        let peers = values.iter().filter(|(d, _)| is_peer(**d));
        let Some(usual) = most(peers.map(|(_, value)| *value)) else {
            continue;
        };
        held.compared += 1;
        match values.get(&device) {
            Some(own) if *own == usual => {}
            Some(own) if !own.starts_with("unreadable") => {
                held.unlike.push(format!("{key} {own}, its peers {usual}"));
            }
            _ => held.unread = Some(*key),
        }
    }
    held
}

/// Devices that are set up unlike most of their peers, and in what.
pub fn unlike(standing: &Standing) -> Vec<(u32, String)> {
    let found = found(standing);
    let of = |device: u32| (device, held(standing, &found, device).unlike.join("; "));
    let all = comparable(standing, &found).into_iter().map(of);
    all.filter(|(_, unlike)| !unlike.is_empty()).collect()
}

impl<'a> Scene<'a> {
    /// For each device that has peers: the number of settings in which it differs from most of them.
    pub(super) fn settings(&self) -> Vec<Sight<'a>> {
        let found = found(self.standing);
        let sight = |device: u32| {
            let held = held(self.standing, &found, device);
            let evidence = match held.unread {
                Some(key) if held.unlike.is_empty() => {
                    Evidence::Missing(format!("its setting {key} could not be read"))
                }
                _ => Evidence::Exact {
                    value: held.unlike.len() as f64,
                    samples: held.compared,
                },
            };
            let id = self.standing.opened().plan.devices[device as usize]
                .id
                .clone();
            Sight {
                told: (!held.unlike.is_empty()).then(|| held.unlike.join("; ")),
                ..Sight::new(id, Some(device), evidence)
            }
        };
        let comparable = comparable(self.standing, &found);
        comparable.into_iter().map(sight).collect()
    }
}

/// The most frequent value; of equals the first in their order.
fn most<'v>(values: impl Iterator<Item = &'v str>) -> Option<&'v str> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    values.for_each(|v| *counts.entry(v).or_insert(0) += 1);
    let best = counts.values().copied().max()?;
    counts.into_iter().find(|(_, n)| *n == best).map(|(v, _)| v)
}
