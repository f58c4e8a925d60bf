//! Where: gpu, tray, node, rack, CDU, feeder, hall; and the narrowest of them that explains a set of devices.
//!
//! Membership is read from the plan: a device's node, and its facts `tray`, `rack`, `cdu` and `feeder`. Refuses
//! to guess a group that the plan does not name.

use crate::plan::PlannedDevice;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Of a group's devices so many must be affected before the group is named instead of its devices.
const SHARE: f64 = 0.7;
/// What naming a device that is not affected costs, against naming one place more.
const MISS: f64 = 0.5;

/// The kinds of places, the narrow ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Gpu,
    Tray,
    Node,
    /// Two nodes, and the way between them.
    Pair,
    Rack,
    Cdu,
    Feeder,
    Hall,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Tray => "tray",
            Self::Node => "node",
            Self::Pair => "pair",
            Self::Rack => "rack",
            Self::Cdu => "cdu",
            Self::Feeder => "feeder",
            Self::Hall => "hall",
        }
    }
}

/// A place and the planned devices (by index) that belong to it; none where only a meter is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub level: Level,
    pub name: String,
    pub devices: Vec<u32>,
}

impl Place {
    /// Whether all of this place lies in the other. A place without devices lies in its own namesake only.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        if self.devices.is_empty() || other.devices.is_empty() {
            return self.name == other.name;
        }
        self.devices.iter().all(|d| other.devices.contains(d))
    }
}

/// Devices that share something.
#[derive(Clone, Debug)]
pub struct Group {
    pub level: Level,
    /// As the plan names it, which is what a meter's place is held against.
    named: String,
    /// As people call it: with its rack, and with its kind where the plan gives a number.
    pub label: String,
    pub devices: Vec<usize>,
}

impl Group {
    pub fn place(&self) -> Place {
        Place {
            level: self.level,
            name: self.label.clone(),
            devices: self.devices.iter().map(|d| *d as u32).collect(),
        }
    }
}

/// All groups of a plan, single devices not among them.
pub struct Groups {
    all: Vec<Group>,
    ids: Vec<String>,
}

fn fact<'a>(device: &'a PlannedDevice, key: &str) -> Option<&'a str> {
    let found = device.facts.iter().find(|(k, _)| k == key);
    found.map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
}

/// A bare number says nothing without its kind.
fn label(level: Level, name: &str) -> String {
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return format!("{} {name}", level.word());
    }
    name.to_owned()
}

impl Groups {
    pub fn of(devices: &[PlannedDevice]) -> Self {
        let mut found: BTreeMap<(Level, String, String), Vec<usize>> = BTreeMap::new();
        for (index, device) in devices.iter().enumerate() {
            let rack = fact(device, "rack").unwrap_or_default();
            let node = Some(device.node.as_str()).filter(|n| !n.is_empty());
            let of = [
                (Level::Tray, fact(device, "tray"), rack),
                (Level::Node, node, ""),
                (Level::Rack, fact(device, "rack"), ""),
                (Level::Cdu, fact(device, "cdu"), ""),
                (Level::Feeder, fact(device, "feeder"), ""),
                (Level::Hall, Some("hall"), ""),
            ];
            for (level, name, within) in of {
                if let Some(name) = name {
                    let key = (level, within.to_owned(), name.to_owned());
                    found.entry(key).or_default().push(index);
                }
            }
        }
        let all = found.into_iter().map(|((level, within, named), devices)| {
            let own = label(level, &named);
            let bare = named.starts_with(|c: char| c.is_ascii_digit());
            let whole = within.is_empty() || !bare && named.contains(&within);
            Group {
                level,
                label: if whole {
                    own
                } else {
                    format!("{}, {own}", label(Level::Rack, &within))
                },
                named,
                devices,
            }
        });
        Self {
            all: all.collect(),
            ids: devices.iter().map(|d| d.id.clone()).collect(),
        }
    }

    pub fn all(&self) -> &[Group] {
        &self.all
    }

    /// The group that a meter's place names; of several with one name the widest, which is likelier to have a meter.
    pub fn named(&self, place: &str) -> Option<&Group> {
        let whole = self.all.iter().find(|g| g.label == place);
        let named = self.all.iter().filter(|g| g.named == place);
        whole.or_else(|| named.max_by_key(|g| g.level))
    }

    /// The place of a meter: its group's, or its own name where the plan knows no such group.
    pub fn of_meter(&self, place: &str) -> Place {
        if let Some(group) = self.named(place) {
            return group.place();
        }
        let levels = [
            Level::Tray,
            Level::Node,
            Level::Rack,
            Level::Cdu,
            Level::Feeder,
        ];
        let level = levels.into_iter().find(|l| place.starts_with(l.word()));
        Place {
            level: level.unwrap_or(Level::Hall),
            name: place.to_owned(),
            devices: Vec::new(),
        }
    }

    pub fn gpu(&self, device: usize) -> Place {
        Place {
            level: Level::Gpu,
            name: self.ids.get(device).cloned().unwrap_or_default(),
            devices: vec![device as u32],
        }
    }

    pub fn node_of(&self, device: usize) -> Option<&Group> {
        let is = |g: &&Group| g.level == Level::Node && g.devices.contains(&device);
        self.all.iter().find(is)
    }

    /// The fewest places that explain the affected devices: a group where most of those looked at are affected,
    /// else the devices themselves. Of groups with the same devices, the first of `prefer` is named.
    ///
    /// Greedy set cover by price for each device explained; a group that names devices which are well pays for them.
    /// Source: Chvátal, “A Greedy Heuristic for the Set-Covering Problem”, 1979.
    pub fn explain(
        &self,
        affected: &[usize],
        looked: impl Fn(usize) -> bool,
        prefer: &[Level],
    ) -> Vec<Place> {
        let mut left: BTreeSet<usize> = affected.iter().copied().collect();
        let mut out = Vec::new();
        let rank = |level: Level| {
            prefer
                .iter()
                .position(|p| *p == level)
                .unwrap_or(prefer.len())
        };
        loop {
            let priced = |g: &Group| {
                let seen = g.devices.iter().filter(|d| looked(**d)).count();
                let hits = g.devices.iter().filter(|d| left.contains(d)).count();
                let wide = hits >= 2 && hits as f64 >= SHARE * seen as f64;
                let misses = seen.saturating_sub(hits) as f64;
                wide.then(|| ((1.0 + MISS * misses) / hits as f64, seen))
            };
            let best = self
                .all
                .iter()
                .filter_map(|g| Some((priced(g)?, g)))
                .filter(|((price, _), _)| *price < 1.0)
                .min_by(|((p, m), a), ((q, n), b)| {
                    let level = rank(a.level)
                        .cmp(&rank(b.level))
                        .then(a.level.cmp(&b.level));
                    p.total_cmp(q).then(m.cmp(n)).then(level)
                });
            let Some((_, group)) = best else { break };
            left.retain(|d| !group.devices.contains(d));
            out.push(group.place());
        }
        out.extend(left.into_iter().map(|d| self.gpu(d)));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Provenance;

    /// Two racks of four trays of four.
    fn hall() -> Groups {
        let device = |i: usize| PlannedDevice {
            id: format!("gpu{i}"),
            engine: String::new(),
            name: String::new(),
            vendor: String::new(),
            pci: None,
            uuid: None,
            driver: String::new(),
            node: format!("n{}", i / 4),
            sku: None,
            software: false,
            cores: Vec::new(),
            memory_bytes: 0,
            promised: Vec::new(),
            facts: vec![
                ("rack".to_owned(), (i / 16).to_string()),
                ("tray".to_owned(), (i / 4 % 4).to_string()),
                ("cdu".to_owned(), "cdu-a".to_owned()),
            ],
            provenance: Provenance::Measured,
        };
        Groups::of(&(0..32).map(device).collect::<Vec<_>>())
    }

    fn names(affected: &[usize], prefer: &[Level]) -> Vec<String> {
        let places = hall().explain(affected, |_| true, prefer);
        places.into_iter().map(|p| p.name).collect()
    }

    #[test]
    fn the_narrowest_group_that_explains_all_is_named() {
        let tray: Vec<usize> = (20..24).collect();
        assert_eq!(names(&tray, &[Level::Tray]), ["rack 1, tray 1"]);
        assert_eq!(names(&tray, &[Level::Node]), ["n5"]);
        assert_eq!(names(&[7], &[]), ["gpu7"]);
        assert_eq!(names(&(16..32).collect::<Vec<_>>(), &[]), ["rack 1"]);
        assert_eq!(
            names(&(0..32).collect::<Vec<_>>(), &[Level::Cdu]),
            ["cdu-a"]
        );
    }

    #[test]
    fn one_device_missed_does_not_split_a_group_and_strangers_form_none() {
        assert_eq!(names(&[20, 21, 23], &[Level::Tray]), ["rack 1, tray 1"]);
        assert_eq!(names(&[1, 30], &[]), ["gpu1", "gpu30"]);
        let mut two = (20..24).collect::<Vec<_>>();
        two.push(3);
        assert_eq!(names(&two, &[Level::Tray]), ["rack 1, tray 1", "gpu3"]);
        assert_eq!(names(&[], &[]), [""; 0]);
    }

    #[test]
    fn a_meter_belongs_to_the_group_that_it_names() {
        let hall = hall();
        assert_eq!(hall.of_meter("cdu-a").devices.len(), 32);
        let unknown = hall.of_meter("feeder-9");
        assert_eq!((unknown.level, unknown.devices.len()), (Level::Feeder, 0));
    }
}
