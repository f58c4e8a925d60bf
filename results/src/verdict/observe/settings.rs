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

/// All settings as they were found at one time.
struct Round<'a> {
    found: Found<'a>,
    counts: Counts<'a>,
}

/// Settings as they were found at first and, where any was told anew, for instance by a resumed run, at last.
struct Settings<'a> {
    rounds: Vec<Round<'a>>,
    /// Device, key, and the first value and another that followed.
    changed: Vec<(u32, &'a str, [&'a str; 2])>,
}

impl<'a> Settings<'a> {
    fn of(standing: &'a Standing) -> Self {
        let (mut first, mut last) = (Found::new(), Found::new());
        let mut changed = Vec::new();
        for event in standing.events() {
            let (Some(device), What::AsFound { key, value }) = (event.device, &event.what) else {
                continue;
            };
            if !ALIKE.contains(&key.as_str()) {
                continue;
            }
            let begun = *first.entry(key).or_default().entry(device).or_insert(value);
            let before = last.entry(key).or_default().insert(device, value);
            if begun != value && before.is_some_and(|before| before != value) {
                changed.push((device, key.as_str(), [begun, value]));
            }
        }
        let all = [Some(first), (!changed.is_empty()).then_some(last)];
        let rounds = all.into_iter().flatten();
        Self {
            rounds: rounds.map(|found| Round::of(standing, found)).collect(),
            changed,
        }
    }
}

impl<'a> Round<'a> {
    fn of(standing: &'a Standing, found: Found<'a>) -> Self {
        let mut counts = Counts::new();
        for (key, values) in &found {
            for (device, value) in values.iter().filter(|(_, value)| is_read(value)) {
                if let Some(kind) = kind(standing, *device) {
                    let values = counts.entry((*key, kind)).or_default();
                    *values.entry(*value).or_insert(0) += 1;
                }
            }
        }
        Self { found, counts }
    }
}

fn kind(standing: &Standing, device: u32) -> Option<Kind<'_>> {
    let planned = standing.opened().plan.devices.get(device as usize)?;
    Some((&planned.engine, &planned.name))
}

/// Devices whose settings can be held against others of their kind, or against a promise.
fn comparable(standing: &Standing, settings: &Settings) -> Vec<u32> {
    let devices = &standing.opened().plan.devices;
    let found = settings.rounds.iter().flat_map(|r| r.found.values());
    let told: BTreeSet<u32> = found.flat_map(|v| v.keys().copied()).collect();
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
    !comparable(standing, &Settings::of(standing)).is_empty()
}

/// Settings that were others later than at first, in words: what was measured before was not measured with them.
pub fn changed(standing: &Standing) -> Vec<String> {
    let devices = &standing.opened().plan.devices;
    let told = |(device, key, [begun, later]): (u32, &str, [&str; 2])| {
        let id = &devices.get(device as usize)?.id;
        Some(format!(
            "{id} was begun with {key} {begun} and went on with {later}"
        ))
    };
    let changed = Settings::of(standing).changed;
    changed.into_iter().filter_map(told).collect()
}

/// A device's settings held against its peers' and its promises.
#[derive(Default)]
struct Held<'a> {
    /// Each setting in which it differs, in words.
    unlike: BTreeSet<String>,
    compared: u64,
    /// A setting that could not be read.
    unread: Option<&'a str>,
}

impl<'a> Held<'a> {
    fn of(standing: &'a Standing, settings: &Settings<'a>, device: u32) -> Self {
        let mut held = Self::default();
        for round in &settings.rounds {
            held.against_promises(standing, round, device);
            held.against_peers(standing, round, device);
        }
        held
    }

    fn against_promises(&mut self, standing: &'a Standing, round: &Round<'a>, device: u32) {
        let Some(planned) = standing.opened().plan.devices.get(device as usize) else {
            return;
        };
        for (key, wanted) in &planned.promised {
            self.compared += 1;
            let own = round.found.get(key.as_str()).and_then(|of| of.get(&device));
            match own {
                Some(own) if *own == wanted => {}
                Some(own) if is_read(own) && *own != "not supported" => {
                    let what = format!("{key} {own}, where the site's file promises {wanted}");
                    self.unlike.insert(what);
                }
                _ => self.unread = Some(key),
            }
        }
    }

    fn against_peers(&mut self, standing: &'a Standing, round: &Round<'a>, device: u32) {
        let Some(kind) = kind(standing, device) else {
            return;
        };
        for (key, values) in &round.found {
            let own = values.get(&device).copied();
            if own.is_some_and(|own| !is_read(own)) {
                self.unread = Some(*key);
                continue;
            }
            let Some(usual) = round.counts.get(&(*key, kind)).and_then(|c| most(c, own)) else {
                continue;
            };
            self.compared += 1;
            match own {
                Some(own) if own == usual => {}
                Some(own) => {
                    self.unlike
                        .insert(format!("{key} {own}, its peers {usual}"));
                }
                None => self.unread = Some(*key),
            }
        }
    }

    fn in_words(&self) -> String {
        let each: Vec<&str> = self.unlike.iter().map(String::as_str).collect();
        each.join("; ")
    }
}

/// Devices that are set up unlike most of their peers or unlike what was promised, and in what.
pub fn unlike(standing: &Standing) -> Vec<(u32, String)> {
    let settings = Settings::of(standing);
    let of = |device: u32| (device, Held::of(standing, &settings, device).in_words());
    let all = comparable(standing, &settings).into_iter().map(of);
    all.filter(|(_, unlike)| !unlike.is_empty()).collect()
}

impl<'a> Scene<'a> {
    /// For each device that has peers: the number of settings in which it differs from most of them.
    pub(super) fn settings(&self) -> Vec<Sight<'a>> {
        let settings = Settings::of(self.standing);
        let sight = |device: u32| {
            let held = Held::of(self.standing, &settings, device);
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
                told: (!held.unlike.is_empty()).then(|| held.in_words()),
                ..Sight::new(id, Some(device), evidence)
            }
        };
        let comparable = comparable(self.standing, &settings);
        comparable.into_iter().map(sight).collect()
    }
}

/// Whether a value is a setting, rather than why it could not be read.
fn is_read(value: &str) -> bool {
    !value.starts_with("unreadable")
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
