//! Scenarios: a hall, its weather, the run it is given and the faults it has, as one TOML file.
//!
//! A fault is written as *physics* (a worse cold plate, a capped supply, a stuck sensor) with place and time, never as
//! what a metric should show; anybody can compose one that no list names. Decides what a file means; refuses unknown
//! names, values out of bounds and places that the hall does not have, with file, line and what is known. It simulates
//! nothing.

pub mod effect;
mod fault;
mod file;
pub mod place;

pub use effect::Effect;
pub use fault::{Fault, Placed, Span, Wanted};
pub use file::schema;
pub use place::{Level, Place, Spot};

use hallmark_profiles::units::{Celsius, Kelvin, Watts};
use hallmark_results::stats::bootstrap::SplitMix64;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// The version of the scenario format that this build reads.
pub const SCHEMA_VERSION: u32 = 1;
/// Most devices of a simulated hall.
pub const GPUS_MAX: u32 = 16_384;
/// Most faults of a scenario.
pub const FAULTS_MAX: usize = 64;
/// Keeps the draw of places apart from every other chance of the seed.
const PLACES: u64 = 0x706c_6163_6573;

/// The hall as it was ordered.
#[derive(Clone, Debug, PartialEq)]
pub struct Hall {
    /// The devices' model by its name in the SKU files.
    pub sku: String,
    pub racks: u32,
    pub trays_per_rack: u32,
    pub nodes_per_tray: u32,
    pub gpus_per_node: u32,
    /// Coolant loops; racks are dealt out to them in order.
    pub cdus: u32,
    /// Feeders; racks are dealt out to them in order.
    pub feeders: u32,
    /// Standard deviation between devices of the rate at one clock, as a share.
    pub silicon_sigma: f64,
    /// What a rack may draw.
    pub rack_power: Watts,
    /// Set point of the loops.
    pub supply: Celsius,
}

impl Hall {
    #[must_use]
    pub const fn gpus_per_tray(&self) -> u32 {
        self.nodes_per_tray * self.gpus_per_node
    }

    #[must_use]
    pub const fn gpus_per_rack(&self) -> u32 {
        self.trays_per_rack * self.gpus_per_tray()
    }

    #[must_use]
    pub const fn gpus(&self) -> u32 {
        self.racks * self.gpus_per_rack()
    }

    #[must_use]
    pub const fn nodes(&self) -> u32 {
        self.racks * self.trays_per_rack * self.nodes_per_tray
    }

    /// Racks on the `index`-th of `count` loops or feeders: as even as can be, in order.
    #[must_use]
    pub fn racks_on(&self, index: u32, count: u32) -> Range<u32> {
        let edge = |i: u32| {
            (u64::from(i) * u64::from(self.racks)).div_ceil(u64::from(count.max(1))) as u32
        };
        edge(index)..edge(index + 1)
    }

    #[must_use]
    pub fn cdu_of(&self, rack: u32) -> Place {
        Place::Cdu(self.on(rack, self.cdus))
    }

    #[must_use]
    pub fn feeder_of(&self, rack: u32) -> Place {
        Place::Feeder(self.on(rack, self.feeders))
    }

    fn on(&self, rack: u32, count: u32) -> u32 {
        (u64::from(rack) * u64::from(count) / u64::from(self.racks.max(1))) as u32
    }

    /// The place of a device by its number in the hall.
    #[must_use]
    pub const fn gpu(&self, index: u32) -> Place {
        let node = index / self.gpus_per_node;
        let tray = node / self.nodes_per_tray;
        Place::Gpu(
            tray / self.trays_per_rack,
            tray % self.trays_per_rack,
            node % self.nodes_per_tray,
            index % self.gpus_per_node,
        )
    }
}

/// The air around the hall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weather {
    /// Outside, at night.
    pub ambient: Celsius,
    /// How much warmer the afternoon is.
    pub afternoon: Kelvin,
    /// Of the air at the racks.
    pub dew_point: Celsius,
    /// Time of day at which the run starts.
    pub starts_at: Duration,
}

/// The run that the hall is given.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// Built-in profile or path of a .toml file.
    pub profile: String,
    /// All phases together; the profile's own where there is none.
    pub duration: Option<Duration>,
    /// Distance of the world's steps and of the sensors' samples.
    pub tick: Duration,
    /// Distance of the feeder meters' samples.
    pub feeder_tick: Duration,
}

/// What the verdict as a whole should come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// Nothing fails; relative gates of a single device may be inconclusive.
    NoAlarm,
    /// Anything but acceptance.
    NotAccepted,
    Rejected,
    /// Named as a suspect; the hall may be accepted.
    Named,
}

/// A scenario, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    pub name: String,
    pub summary: String,
    pub hall: Hall,
    pub weather: Weather,
    pub conditions: Conditions,
    pub expected: Expected,
    pub faults: Vec<Fault>,
}

/// A scenario that cannot be used. Nothing has been started or written when one is returned.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScenarioError {
    #[error("cannot read scenario {file}: {why}")]
    Unreadable { file: String, why: String },
    #[error("{file}:{line}: {what}")]
    Syntax {
        file: String,
        line: usize,
        what: String,
    },
}

impl Scenario {
    /// Whether it can be half or twice as severe.
    #[must_use]
    pub fn has_severity(&self) -> bool {
        self.faults.iter().any(Fault::has_severity)
    }

    /// The same scenario with `factor` times the severity; what is all or nothing stays.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Scenario {
        let faults = self.faults.iter().map(|f| f.scaled(factor, &self.hall));
        Scenario {
            faults: faults.collect(),
            ..self.clone()
        }
    }

    /// The faults where the seed puts them, in the file's order; no two in one place as long as there is room.
    #[must_use]
    pub fn placed(&self, seed: u64) -> Vec<Placed> {
        let mut chance = SplitMix64::new(seed ^ PLACES);
        let mut taken: Vec<Place> = Vec::new();
        let placed = self.faults.iter().map(|fault| {
            let place = fault.spot.place(&self.hall, &mut chance, &taken);
            taken.push(place);
            Placed {
                place,
                fault: fault.clone(),
            }
        });
        placed.collect()
    }

    /// This hall with the faults of another scenario beside its own.
    ///
    /// # Errors
    /// The first of them whose place this hall does not have.
    pub fn with_faults(mut self, other: &Scenario) -> Result<Scenario, String> {
        for fault in &other.faults {
            if let Some(what) = fault.spot.fault(&self.hall) {
                return Err(format!("{}: {what}", other.name));
            }
            self.faults.push(fault.clone());
        }
        if self.faults.len() > FAULTS_MAX {
            return Err(format!("more than {FAULTS_MAX} faults at once"));
        }
        Ok(self)
    }
}

/// Reads a scenario file. A profile's path in it counts from the file's own folder.
///
/// # Errors
/// [`ScenarioError`], with file and line where there is one.
pub fn load(path: &Path) -> Result<Scenario, ScenarioError> {
    read(path, None)
}

/// Reads a scenario file whose hall, weather and run are those of `base`, as far as it has none of its own.
///
/// # Errors
/// As [`load`].
pub fn load_on(path: &Path, base: &Scenario) -> Result<Scenario, ScenarioError> {
    read(path, Some(base))
}

fn read(path: &Path, base: Option<&Scenario>) -> Result<Scenario, ScenarioError> {
    /// Longer files are no scenarios.
    const BYTES_MAX: u64 = 1 << 20;
    let file = path.display().to_string();
    let unreadable = |why: String| ScenarioError::Unreadable {
        file: file.clone(),
        why,
    };
    let about = std::fs::metadata(path).map_err(|e| unreadable(e.to_string()))?;
    if !about.is_file() || about.len() > BYTES_MAX {
        let why = format!("it is no file of at most {BYTES_MAX} bytes");
        return Err(unreadable(why));
    }
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
    let mut scenario = parse_on(&text, &file, base)?;
    let given = base.is_none_or(|b| b.conditions != scenario.conditions);
    let profile = Path::new(&scenario.conditions.profile);
    if given && profile.extension().is_some_and(|e| e == "toml") && profile.is_relative() {
        let folder = path.parent().unwrap_or(Path::new(""));
        scenario.conditions.profile = folder.join(profile).display().to_string();
    }
    Ok(scenario)
}

/// Reads and checks a scenario's text; `origin` names it in errors.
///
/// # Errors
/// [`ScenarioError::Syntax`].
pub fn parse(text: &str, origin: &str) -> Result<Scenario, ScenarioError> {
    parse_on(text, origin, None)
}

fn parse_on(text: &str, origin: &str, base: Option<&Scenario>) -> Result<Scenario, ScenarioError> {
    file::parse(text, base).map_err(|wrong| ScenarioError::Syntax {
        file: origin.to_owned(),
        line: wrong.line,
        what: wrong.what,
    })
}

#[cfg(test)]
mod tests;
