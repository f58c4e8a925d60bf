//! Where in a hall something is: `site`, `rack0/tray1/node0/gpu3`, `cdu0`, `feeder0`; or drawn: `any gpu`.
//!
//! Decides how a place is written and which devices it holds. Refuses a place that the hall does not have.

use super::Hall;
use hallmark_results::stats::bootstrap::SplitMix64;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Longest text of a place.
const TEXT_MAX: usize = 64;
const KNOWN: &str = "site, rack0, rack0/tray1, rack0/tray1/node0, rack0/tray1/node0/gpu3, cdu0, feeder0; \
     or drawn by the seed: any gpu, any node, any tray, any rack, any cdu, any feeder";

/// The kinds of place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Gpu,
    Node,
    /// Nodes that share a branch of coolant.
    Tray,
    /// Trays that share a power feed and its meter.
    Rack,
    /// Racks that share a coolant loop.
    Cdu,
    /// Racks that share a feeder.
    Feeder,
    Site,
}

impl Level {
    pub const ALL: [Level; 7] = [
        Level::Gpu,
        Level::Node,
        Level::Tray,
        Level::Rack,
        Level::Cdu,
        Level::Feeder,
        Level::Site,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Level::Gpu => "gpu",
            Level::Node => "node",
            Level::Tray => "tray",
            Level::Rack => "rack",
            Level::Cdu => "cdu",
            Level::Feeder => "feeder",
            Level::Site => "site",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One place of a hall. Trays, nodes and devices count within what holds them; racks, CDUs and feeders within the hall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Site,
    Feeder(u32),
    Cdu(u32),
    Rack(u32),
    Tray(u32, u32),
    Node(u32, u32, u32),
    Gpu(u32, u32, u32, u32),
}

impl Place {
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Place::Site => Level::Site,
            Place::Feeder(_) => Level::Feeder,
            Place::Cdu(_) => Level::Cdu,
            Place::Rack(_) => Level::Rack,
            Place::Tray(..) => Level::Tray,
            Place::Node(..) => Level::Node,
            Place::Gpu(..) => Level::Gpu,
        }
    }

    /// The place of `level` that holds this one; `None` where none does: a rack has no device that holds it.
    #[must_use]
    pub fn at(self, level: Level, hall: &Hall) -> Option<Place> {
        let rack = match self {
            Place::Rack(r) | Place::Tray(r, _) | Place::Node(r, ..) | Place::Gpu(r, ..) => Some(r),
            Place::Site | Place::Feeder(_) | Place::Cdu(_) => None,
        };
        match (level, self) {
            (Level::Site, _) => Some(Place::Site),
            (level, place) if place.level() == level => Some(place),
            (Level::Feeder, _) => rack.map(|r| hall.feeder_of(r)),
            (Level::Cdu, _) => rack.map(|r| hall.cdu_of(r)),
            (Level::Rack, _) => rack.map(Place::Rack),
            (Level::Tray, Place::Node(r, t, _) | Place::Gpu(r, t, ..)) => Some(Place::Tray(r, t)),
            (Level::Node, Place::Gpu(r, t, n, _)) => Some(Place::Node(r, t, n)),
            _ => None,
        }
    }

    /// Devices of this place, by their number in the hall.
    #[must_use]
    pub fn gpus(self, hall: &Hall) -> Range<u32> {
        let (node, tray, rack) = (
            hall.gpus_per_node,
            hall.gpus_per_tray(),
            hall.gpus_per_rack(),
        );
        let racks = |held: Range<u32>| held.start * rack..held.end * rack;
        match self {
            Place::Site => 0..hall.gpus(),
            Place::Feeder(f) => racks(hall.racks_on(f, hall.feeders)),
            Place::Cdu(c) => racks(hall.racks_on(c, hall.cdus)),
            Place::Rack(r) => racks(r..r + 1),
            Place::Tray(r, t) => {
                let first = r * rack + t * tray;
                first..first + tray
            }
            Place::Node(r, t, n) => {
                let first = r * rack + t * tray + n * node;
                first..first + node
            }
            Place::Gpu(r, t, n, g) => {
                let first = r * rack + t * tray + n * node + g;
                first..first + 1
            }
        }
    }

    /// Whether every device of `other` is one of this place's, and this place can hold it.
    #[must_use]
    pub fn holds(self, other: Place, hall: &Hall) -> bool {
        other.at(self.level(), hall) == Some(self)
    }

    /// The largest number that a part of this place may have, and what has it; `None` for a sound place.
    fn beyond(self, hall: &Hall) -> Option<String> {
        let over = |what: &str, number: u32, count: u32| {
            (number >= count)
                .then(|| format!("{what}{number}: the hall's {what}s are 0 to {}", count - 1))
        };
        match self {
            Place::Site => None,
            Place::Feeder(f) => over("feeder", f, hall.feeders),
            Place::Cdu(c) => over("cdu", c, hall.cdus),
            Place::Rack(r) => over("rack", r, hall.racks),
            Place::Tray(r, t) => Place::Rack(r)
                .beyond(hall)
                .or_else(|| over("tray", t, hall.trays_per_rack)),
            Place::Node(r, t, n) => Place::Tray(r, t)
                .beyond(hall)
                .or_else(|| over("node", n, hall.nodes_per_tray)),
            Place::Gpu(r, t, n, g) => Place::Node(r, t, n)
                .beyond(hall)
                .or_else(|| over("gpu", g, hall.gpus_per_node)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Place::Site => "site".to_owned(),
            Place::Feeder(i) => format!("feeder{i}"),
            Place::Cdu(c) => format!("cdu{c}"),
            Place::Rack(r) => format!("rack{r}"),
            Place::Tray(r, t) => format!("rack{r}/tray{t}"),
            Place::Node(r, t, n) => format!("rack{r}/tray{t}/node{n}"),
            Place::Gpu(r, t, n, g) => format!("rack{r}/tray{t}/node{n}/gpu{g}"),
        };
        f.pad(&text)
    }
}

/// A text that is no place.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown place `{text}`; known: {KNOWN}")]
pub struct UnknownPlace {
    text: String,
}

impl FromStr for Place {
    type Err = UnknownPlace;

    fn from_str(text: &str) -> Result<Self, UnknownPlace> {
        let unknown = || UnknownPlace {
            text: text
                .chars()
                .take(TEXT_MAX)
                .map(|c| if c.is_control() { '?' } else { c })
                .collect(),
        };
        let number = |part: &str, name: &str| {
            let digits = part.strip_prefix(name)?;
            let plain = digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() <= 6;
            digits.parse::<u32>().ok().filter(|_| plain)
        };
        let parts: Vec<&str> = text.split('/').collect();
        let place = match parts.as_slice() {
            ["site"] => Some(Place::Site),
            [one] => number(one, "rack")
                .map(Place::Rack)
                .or_else(|| number(one, "cdu").map(Place::Cdu))
                .or_else(|| number(one, "feeder").map(Place::Feeder)),
            [r, t] => number(r, "rack")
                .zip(number(t, "tray"))
                .map(|(r, t)| Place::Tray(r, t)),
            [r, t, n] => number(r, "rack")
                .zip(number(t, "tray"))
                .zip(number(n, "node"))
                .map(|((r, t), n)| Place::Node(r, t, n)),
            [r, t, n, g] => number(r, "rack")
                .zip(number(t, "tray"))
                .zip(number(n, "node"))
                .zip(number(g, "gpu"))
                .map(|(((r, t), n), g)| Place::Gpu(r, t, n, g)),
            _ => None,
        };
        place.ok_or_else(unknown)
    }
}

/// A place in a file: this one, or any of a kind, drawn by the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spot {
    Here(Place),
    Any(Level),
}

impl Spot {
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Spot::Here(place) => place.level(),
            Spot::Any(level) => level,
        }
    }

    /// What is wrong with it in this hall.
    pub(super) fn fault(self, hall: &Hall) -> Option<String> {
        match self {
            Spot::Here(place) => place.beyond(hall),
            Spot::Any(_) => None,
        }
    }

    /// The place; one that is drawn avoids those that share a device with `taken`, as long as there is another.
    #[must_use]
    pub fn place(self, hall: &Hall, chance: &mut SplitMix64, taken: &[Place]) -> Place {
        /// A small hall may have no free place.
        const TRIES: u32 = 64;
        let level = match self {
            Spot::Here(place) => return place,
            Spot::Any(level) => level,
        };
        let mut drawn = draw(level, hall, chance);
        for _ in 0..TRIES {
            let apart = |t: &Place| !t.holds(drawn, hall) && !drawn.holds(*t, hall);
            if taken.iter().all(apart) {
                break;
            }
            drawn = draw(level, hall, chance);
        }
        drawn
    }
}

fn draw(level: Level, hall: &Hall, chance: &mut SplitMix64) -> Place {
    let mut below = |count: u32| chance.below(u64::from(count)) as u32;
    let (r, t) = (below(hall.racks), below(hall.trays_per_rack));
    let (n, g) = (below(hall.nodes_per_tray), below(hall.gpus_per_node));
    match level {
        Level::Site => Place::Site,
        Level::Feeder => hall.feeder_of(r),
        Level::Cdu => hall.cdu_of(r),
        Level::Rack => Place::Rack(r),
        Level::Tray => Place::Tray(r, t),
        Level::Node => Place::Node(r, t, n),
        Level::Gpu => Place::Gpu(r, t, n, g),
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spot::Here(place) => f.pad(&place.to_string()),
            Spot::Any(level) => f.pad(&format!("any {level}")),
        }
    }
}

impl FromStr for Spot {
    type Err = UnknownPlace;

    fn from_str(text: &str) -> Result<Self, UnknownPlace> {
        let named = text.strip_prefix("any ");
        let level = named.and_then(|n| Level::ALL.into_iter().find(|l| l.name() == n));
        match level {
            Some(Level::Site) | None => text.parse().map(Spot::Here),
            Some(level) => Ok(Spot::Any(level)),
        }
    }
}

impl<'de> Deserialize<'de> for Spot {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Spot {
    fn schema_name() -> Cow<'static, str> {
        "Spot".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A place of the hall, or one that the seed draws.",
            "pattern": "^(site|(rack|cdu|feeder)[0-9]+|rack[0-9]+/tray[0-9]+(/node[0-9]+(/gpu[0-9]+)?)?|any (gpu|node|tray|rack|cdu|feeder))$",
            "examples": ["any gpu", "rack0/tray1", "rack0/tray1/node0/gpu3", "cdu0", "site"]
        })
    }
}
