//! Settings as found, compared across peers, and with what the site's file promises: a device that was set up
//! differently is no peer, and one that all its peers are like may still be another than the contract's.
//!
//! Only what should be alike is compared; serials, addresses and present states are each device's own.

use super::super::evidence::Evidence;
use super::{Scene, Sight};
use crate::frame::What;
use crate::standing::Standing;
use std::collections::{BTreeMap, BTreeSet};

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

/// What makes devices peers.
type Kind<'a> = (&'a str, &'a str);

/// How often each value stands among the devices of one kind; a hall has few values and many devices.
type Counts<'a> = BTreeMap<(&'a str, Kind<'a>), BTreeMap<&'a str, u32>>;

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

fn kind(standing: &Standing, device: u32) -> Option<Kind<'_>> {
    let planned = standing.opened().plan.devices.get(device as usize)?;
    Some((&planned.engine, &planned.name))
}

fn counts<'a>(standing: &'a Standing, found: &Found<'a>) -> Counts<'a> {
    let mut counts = Counts::new();
    for (key, values) in found {
        for (device, value) in values {
            if let Some(kind) = kind(standing, *device) {
                let values = counts.entry((*key, kind)).or_default();
                *values.entry(*value).or_insert(0) += 1;
            }
        }
    }
    counts
}

/// Devices whose settings can be held against others of their kind, or against a promise.
fn comparable(standing: &Standing, found: &Found) -> Vec<u32> {
    let devices = &standing.opened().plan.devices;
    let told: BTreeSet<u32> = found.values().flat_map(|v| v.keys().copied()).collect();
    let mut of_kind: BTreeMap<Kind, usize> = BTreeMap::new();
    for kind in told.iter().filter_map(|d| kind(standing, *d)) {
        *of_kind.entry(kind).or_insert(0) += 1;
    }
    let held = |d: &u32| {
        let all = kind(standing, *d).and_then(|k| of_kind.get(&k)).copied();
        let peers = all.unwrap_or(0) - usize::from(told.contains(d));
        peers > 0 || !devices[*d as usize].promised.is_empty()
    };
    (0..devices.len() as u32).filter(held).collect()
}

/// Whether this record holds settings of devices that should be alike.
pub fn are_comparable(standing: &Standing) -> bool {
    !comparable(standing, &found(standing)).is_empty()
}

/// A device's settings held against its peers' and its promises.
struct Held<'a> {
    /// Each setting in which it differs, in words.
    unlike: Vec<String>,
    compared: u64,
    /// A setting that could not be read.
    unread: Option<&'a str>,
}

fn held<'a>(
    standing: &'a Standing,
    found: &Found<'a>,
    counts: &Counts<'a>,
    device: u32,
) -> Held<'a> {
    let mut held = Held {
        unlike: Vec::new(),
        compared: 0,
        unread: None,
    };
    let Some(kind) = kind(standing, device) else {
        return held;
    };
    for (key, wanted) in &standing.opened().plan.devices[device as usize].promised {
        held.compared += 1;
        match found.get(key.as_str()).and_then(|of| of.get(&device)) {
            Some(own) if *own == wanted => {}
            Some(own) if is_told(own) => {
                let what = format!("{key} {own}, where the site's file promises {wanted}");
                held.unlike.push(what);
            }
            _ => held.unread = Some(key),
        }
    }
    for (key, values) in found {
        let own = values.get(&device).copied();
        let Some(usual) = counts.get(&(*key, kind)).and_then(|c| most(c, own)) else {
            continue;
        };
        held.compared += 1;
        match own {
            Some(own) if own == usual => {}
            Some(own) if !own.starts_with("unreadable") => {
                held.unlike.push(format!("{key} {own}, its peers {usual}"));
            }
            _ => held.unread = Some(*key),
        }
    }
    held
}

/// Devices that are set up unlike most of their peers or unlike what was promised, and in what.
pub fn unlike(standing: &Standing) -> Vec<(u32, String)> {
    let found = found(standing);
    let counts = counts(standing, &found);
    let of = |device: u32| {
        let held = held(standing, &found, &counts, device);
        (device, held.unlike.join("; "))
    };
    let all = comparable(standing, &found).into_iter().map(of);
    all.filter(|(_, unlike)| !unlike.is_empty()).collect()
}

impl<'a> Scene<'a> {
    /// For each device that has peers: the number of settings in which it differs from most of them.
    pub(super) fn settings(&self) -> Vec<Sight<'a>> {
        let found = found(self.standing);
        let counts = counts(self.standing, &found);
        let sight = |device: u32| {
            let held = held(self.standing, &found, &counts, device);
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

/// Whether a value is a setting, rather than why there is none.
fn is_told(value: &str) -> bool {
    !value.starts_with("unreadable") && value != "not supported"
}

/// The most frequent value without the device's own; of equals the first in their order.
fn most<'v>(counts: &BTreeMap<&'v str, u32>, own: Option<&str>) -> Option<&'v str> {
    let others = |(value, count): (&&'v str, &u32)| {
        let count = *count - u32::from(own == Some(*value));
        (count > 0).then_some((*value, count))
    };
    let others: Vec<(&str, u32)> = counts.iter().filter_map(others).collect();
    let best = others.iter().map(|(_, n)| *n).max()?;
    others.into_iter().find(|(_, n)| *n == best).map(|(v, _)| v)
}
