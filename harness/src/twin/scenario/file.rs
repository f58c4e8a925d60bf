//! The text of a scenario: its keys, its units, its bounds.
//!
//! Refuses unknown keys, figures in another unit or out of bounds, effects where they cannot act, and places that
//! the hall does not have; each with its line.

mod fault;

use super::{Conditions, Expected, FAULTS_MAX, GPUS_MAX, Hall, SCHEMA_VERSION, Scenario, Weather};
use fault::FaultFile;
use hallmark_profiles::profile::{line_at, plainly};
use hallmark_profiles::quantity::{Quantity, Time, TimeOrZero};
use hallmark_profiles::sku::Skus;
use hallmark_profiles::units::{Celsius, Kelvin, Unit, Watts};
use schemars::JsonSchema;
use serde::Deserialize;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Longest name or sentence.
const NAME_MAX: usize = 64;
const SUMMARY_MAX: usize = 400;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct File {
    /// Version of this format; 1.
    schema_version: u32,
    /// Lower-case letters, digits and hyphens.
    name: String,
    /// One sentence: what is wrong with this hall, or that nothing is.
    summary: String,
    /// Left out where the faults are played on a hall of another file.
    #[serde(default)]
    hall: Option<HallFile>,
    #[serde(default)]
    weather: Option<WeatherFile>,
    #[serde(default)]
    run: Option<RunFile>,
    /// What the verdict as a whole should come to.
    /// Without it: not accepted where a fault names a cause, no alarm otherwise.
    #[serde(default)]
    expect: Option<Expected>,
    #[serde(default, rename = "fault")]
    faults: Vec<FaultFile>,
}

/// The hall as it was ordered.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HallFile {
    /// The devices' model by its name in the SKU files, e.g. "H100 SXM".
    sku: String,
    #[schemars(range(min = 1, max = 2048))]
    racks: u32,
    /// Trays share a branch of coolant.
    #[schemars(range(min = 1, max = 64))]
    trays_per_rack: u32,
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 16))]
    nodes_per_tray: u32,
    #[schemars(range(min = 1, max = 64))]
    gpus_per_node: u32,
    /// Coolant loops; racks are dealt out to them in order.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 256))]
    cdus: u32,
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    feeders: u32,
    /// Standard deviation between devices of the rate at one clock, e.g. "1.5 %".
    #[serde(default)]
    silicon_sigma: Option<Quantity>,
    /// What a rack may draw, e.g. "40 kW".
    rack_power: Quantity,
    /// Set point of the loops, e.g. "30 °C".
    #[serde(default)]
    supply: Option<Quantity>,
}

/// The air around the hall.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WeatherFile {
    /// Outside, at night.
    #[serde(default)]
    ambient: Option<Quantity>,
    /// How much warmer the afternoon is, e.g. "6 K".
    #[serde(default)]
    afternoon: Option<Quantity>,
    /// Of the air at the racks.
    #[serde(default)]
    dew_point: Option<Quantity>,
    /// Time of day at which the run starts, e.g. "8 h".
    #[serde(default)]
    starts_at: Option<TimeOrZero>,
}

/// The run that the hall is given.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RunFile {
    /// Built-in profile or path of a .toml file.
    profile: String,
    /// All phases together.
    #[serde(default)]
    duration: Option<Time>,
    /// Distance of the world's steps and of the sensors' samples.
    #[serde(default)]
    tick: Option<Time>,
    /// Distance of the feeder meters' samples.
    #[serde(default)]
    feeder_tick: Option<Time>,
}

const fn one() -> u32 {
    1
}

/// The JSON Schema of scenarios, for editors.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(File)
}

/// What is wrong, and on which line.
pub(super) struct Wrong {
    pub line: usize,
    pub what: String,
}

/// Finds the lines that keys stand on.
struct Lines<'a> {
    text: &'a str,
}

impl Lines<'_> {
    /// Line of `key` in the `nth` table called `header`; the header's where the key is not there, else the first.
    fn line(&self, header: &str, nth: usize, key: &str) -> usize {
        let is_key = |l: &str| {
            let rest = l.trim_start().strip_prefix(key);
            !key.is_empty() && rest.is_some_and(|r| r.trim_start().starts_with(['=', '.']))
        };
        let lines: Vec<&str> = self.text.lines().collect();
        let mut headers = (0..lines.len()).filter(|i| lines[*i].trim_start().starts_with(header));
        let from = if header.is_empty() {
            Some(0)
        } else {
            headers.nth(nth)
        };
        let Some(from) = from else { return 1 };
        let after = lines.iter().enumerate().skip(from);
        let mut within = after.take_while(|(i, l)| *i == from || !l.trim_start().starts_with('['));
        1 + within.find(|(_, l)| is_key(l)).map_or(from, |(i, _)| i)
    }
}

/// Where the values under check stand.
struct Place<'a> {
    lines: &'a Lines<'a>,
    header: &'static str,
    nth: usize,
}

impl Place<'_> {
    fn wrong(&self, key: &str, what: String) -> Wrong {
        Wrong {
            line: self.lines.line(self.header, self.nth, key),
            what,
        }
    }

    /// The value in `unit`, within its bounds.
    fn figure(
        &self,
        key: &str,
        quantity: Quantity,
        unit: Unit,
        bounds: RangeInclusive<f64>,
    ) -> Result<f64, Wrong> {
        let value = quantity
            .in_unit(unit)
            .map_err(|e| self.wrong(key, format!("{key}: {e}")))?;
        if bounds.contains(&value) {
            return Ok(value);
        }
        let edge = |v: &f64| Quantity::new(*v, unit);
        let (low, high) = (edge(bounds.start()), edge(bounds.end()));
        Err(self.wrong(
            key,
            format!("{key} is {quantity}; it may be {low} to {high}"),
        ))
    }

    fn count(&self, key: &str, count: u32, bounds: RangeInclusive<u32>) -> Result<u32, Wrong> {
        if bounds.contains(&count) {
            return Ok(count);
        }
        let (low, high) = (bounds.start(), bounds.end());
        Err(self.wrong(key, format!("{key} is {count}; it may be {low} to {high}")))
    }
}

/// Reads and checks a scenario's text. Tables that it leaves out are those of `base`; without one, a hall and a run
/// must be there.
pub(super) fn parse(text: &str, base: Option<&Scenario>) -> Result<Scenario, Wrong> {
    let file: File = toml::from_str(text).map_err(|e| {
        let line = line_at(text, e.span().map_or(0, |span| span.start));
        let what = plainly(e.message(), text.lines().nth(line - 1).unwrap_or_default());
        Wrong { line, what }
    })?;
    let lines = Lines { text };
    let top = Place {
        lines: &lines,
        header: "",
        nth: 0,
    };
    names(&file, &top)?;
    let missing = |table: &str| {
        let what = format!("[{table}] is missing, and no other file gives it");
        top.wrong("", what)
    };
    let hall = match (&file.hall, base) {
        (Some(file), _) => hall(file, &lines)?,
        (None, Some(base)) => base.hall.clone(),
        (None, None) => return Err(missing("hall")),
    };
    let weather = match (&file.weather, base) {
        (None, Some(base)) => base.weather,
        (given, _) => weather(given.as_ref().unwrap_or(&WeatherFile::default()), &lines)?,
    };
    let conditions = match (file.run, base) {
        (Some(file), _) => conditions(file, &lines)?,
        (None, Some(base)) => base.conditions.clone(),
        (None, None) => return Err(missing("run")),
    };
    let mut faults = Vec::new();
    for (nth, fault) in file.faults.into_iter().enumerate() {
        faults.push(fault.checked(&hall, &lines, nth)?);
    }
    let wanted = faults.iter().any(|f| f.wanted.is_some());
    let expected = match file.expect {
        Some(Expected::NoAlarm) if wanted => {
            let what = "expect is no_alarm, and yet a fault names a cause that is to be found";
            return Err(top.wrong("expect", what.to_owned()));
        }
        Some(Expected::Named | Expected::Rejected | Expected::NotAccepted) if !wanted => {
            let what = "expect needs a fault that names its causes";
            return Err(top.wrong("expect", what.to_owned()));
        }
        Some(expected) => expected,
        None if wanted => Expected::NotAccepted,
        None => Expected::NoAlarm,
    };
    Ok(Scenario {
        name: file.name,
        summary: file.summary,
        hall,
        weather,
        conditions,
        expected,
        faults,
    })
}

fn names(file: &File, top: &Place) -> Result<(), Wrong> {
    let version = file.schema_version;
    if version != SCHEMA_VERSION {
        let what =
            format!("schema_version {version} is not known; this build reads {SCHEMA_VERSION}");
        return Err(top.wrong("schema_version", what));
    }
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let name = &file.name;
    if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(plain) {
        let what = format!("name must be 1 to {NAME_MAX} lower-case letters, digits and hyphens");
        return Err(top.wrong("name", what));
    }
    let summary = &file.summary;
    let length = summary.chars().count();
    if summary.trim().is_empty() || length > SUMMARY_MAX || summary.chars().any(char::is_control) {
        let what = format!("summary must be one sentence of at most {SUMMARY_MAX} characters");
        return Err(top.wrong("summary", what));
    }
    if file.faults.len() > FAULTS_MAX {
        let what = format!("more than {FAULTS_MAX} faults");
        return Err(top.wrong("fault", what));
    }
    Ok(())
}

fn hall(file: &HallFile, lines: &Lines) -> Result<Hall, Wrong> {
    let at = Place {
        lines,
        header: "[hall]",
        nth: 0,
    };
    if let Ok(skus) = Skus::built_in()
        && !skus.iter().any(|s| s.name == file.sku)
    {
        let known: Vec<_> = skus.iter().map(|s| s.name.as_str()).collect();
        let known = known.join(", ");
        let sku: String = file.sku.chars().take(NAME_MAX).collect();
        return Err(at.wrong("sku", format!("unknown sku `{sku}`; known: {known}")));
    }
    let racks = at.count("racks", file.racks, 1..=2048)?;
    let sigma = file
        .silicon_sigma
        .unwrap_or(Quantity::new(1.5, Unit::Percent));
    let supply = file.supply.unwrap_or(Quantity::new(30.0, Unit::Celsius));
    let hall = Hall {
        sku: file.sku.clone(),
        racks,
        trays_per_rack: at.count("trays_per_rack", file.trays_per_rack, 1..=64)?,
        nodes_per_tray: at.count("nodes_per_tray", file.nodes_per_tray, 1..=16)?,
        gpus_per_node: at.count("gpus_per_node", file.gpus_per_node, 1..=64)?,
        cdus: at.count("cdus", file.cdus, 1..=racks.min(256))?,
        feeders: at.count("feeders", file.feeders, 1..=racks.min(64))?,
        silicon_sigma: at.figure("silicon_sigma", sigma, Unit::One, 0.0..=0.1)?,
        rack_power: Watts(at.figure("rack_power", file.rack_power, Unit::Watt, 500.0..=2e6)?),
        supply: Celsius(at.figure("supply", supply, Unit::Celsius, 5.0..=60.0)?),
    };
    // Each factor is bounded above, so that their product cannot overflow before it is compared.
    if hall.gpus() > GPUS_MAX {
        let what = format!(
            "{} devices in all; a hall has at most {GPUS_MAX}",
            hall.gpus()
        );
        return Err(at.wrong("racks", what));
    }
    Ok(hall)
}

fn weather(file: &WeatherFile, lines: &Lines) -> Result<Weather, Wrong> {
    const DAY: Duration = Duration::from_secs(86_400);
    let at = Place {
        lines,
        header: "[weather]",
        nth: 0,
    };
    let celsius = |key, given: Option<Quantity>, otherwise: f64| {
        let value = given.unwrap_or(Quantity::new(otherwise, Unit::Celsius));
        at.figure(key, value, Unit::Celsius, -40.0..=60.0)
            .map(Celsius)
    };
    let afternoon = file.afternoon.unwrap_or(Quantity::new(0.0, Unit::Kelvin));
    let starts_at = file.starts_at.unwrap_or_default().duration();
    if starts_at >= DAY {
        return Err(at.wrong(
            "starts_at",
            "starts_at must be a time of day, below 24 h".to_owned(),
        ));
    }
    Ok(Weather {
        ambient: celsius("ambient", file.ambient, 18.0)?,
        afternoon: Kelvin(at.figure("afternoon", afternoon, Unit::Kelvin, 0.0..=40.0)?),
        dew_point: celsius("dew_point", file.dew_point, 12.0)?,
        starts_at,
    })
}

fn conditions(file: RunFile, lines: &Lines) -> Result<Conditions, Wrong> {
    let at = Place {
        lines,
        header: "[run]",
        nth: 0,
    };
    let length = file.profile.chars().count();
    if !(1..=1024).contains(&length) || file.profile.chars().any(char::is_control) {
        let what = "profile must be a built-in profile's name or the path of a .toml file";
        return Err(at.wrong("profile", what.to_owned()));
    }
    let tick = file.tick.map_or(Duration::from_secs(1), Time::duration);
    if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&tick) {
        return Err(at.wrong("tick", "tick must be 10 ms to 60 s".to_owned()));
    }
    let feeder_tick = file.feeder_tick.map_or(tick, Time::duration);
    if feeder_tick < Duration::from_millis(1) || feeder_tick > tick {
        let what = "feeder_tick must be 1 ms to the tick".to_owned();
        return Err(at.wrong("feeder_tick", what));
    }
    Ok(Conditions {
        profile: file.profile,
        duration: file.duration.map(Time::duration),
        tick,
        feeder_tick,
    })
}
