//! One `[[fault]]`: place, time, effects, and what should be found.
//!
//! Each effect is a key of its own, so that one fault may do several things at once; a fault that does nothing is refused.

use super::super::effect::{AgentEnd, DeviceEnd, Distortion, Edit, Part, Shortcut};
use super::super::{Effect, Fault, Hall, Level, Span, Spot, Wanted};
use super::{Lines, Place, Wrong};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::quantity::{Quantity, Time, TimeOrZero};
use hallmark_profiles::units::{Celsius, Hertz, Kelvin, Unit, Watts};
use hallmark_results::diagnosis::Cause;
use schemars::JsonSchema;
use serde::Deserialize;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Causes that are all right.
const CAUSES_MAX: usize = 8;
/// What may be a factor: nothing grows more than a hundredfold.
const TIMES: RangeInclusive<f64> = 0.0..=100.0;

/// Effects that act in one place at one time.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FaultFile {
    place: Spot,
    /// From the run's start.
    #[serde(default)]
    at: TimeOrZero,
    /// How long it stays; to the end without it.
    #[serde(default, rename = "for")]
    lasts: Option<Time>,
    /// It comes again, from onset to onset.
    #[serde(default)]
    every: Option<Time>,
    /// Time from the onset to its full severity.
    #[serde(default)]
    grows_over: TimeOrZero,
    /// Names that a verdict may rightly give it, the one that is meant first; see the list of causes. Without them
    /// the fault must alarm nobody.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    causes: Vec<Cause>,
    /// Time from the onset within which it should be found.
    #[serde(default)]
    within: Option<Time>,
    /// The kind of place that should be named, where it is not the fault's own.
    #[serde(default)]
    found_at: Option<Level>,

    /// The device works at `times` its rate, for reasons that no sensor shows.
    #[serde(default)]
    rate: Option<PartTimes>,
    /// The highest core clock is `times` what it was.
    #[serde(default)]
    core_clock: Option<Times>,
    /// Between the part and its coolant.
    #[serde(default)]
    thermal_resistance: Option<PartTimes>,
    /// The loop's supply is warmer by this much, e.g. "3 K".
    #[serde(default)]
    supply: Option<Quantity>,
    /// The loop's supply swings about its mean.
    #[serde(default)]
    supply_swing: Option<SupplySwing>,
    /// Flow of a branch, rack or loop.
    #[serde(default)]
    flow: Option<Times>,
    /// Speed of the loop's pump.
    #[serde(default)]
    pump: Option<Times>,
    /// How far the air's dew point lies above the supply, e.g. "1 K".
    #[serde(default)]
    dew_point_above_supply: Option<Quantity>,
    /// The devices' enforced power limit.
    #[serde(default)]
    power_cap: Option<Times>,
    /// The rack draws no more than this, e.g. "28 kW".
    #[serde(default)]
    rack_cap: Option<Quantity>,
    /// A power supply is lost; the brake leaves so much of the clock, e.g. 0.5.
    #[serde(default)]
    power_brake: Option<Times>,
    /// What no longer gets any power.
    #[serde(default)]
    feed: Option<Off>,
    /// All devices' power swings in step.
    #[serde(default)]
    power_swing: Option<PowerSwing>,
    #[serde(default)]
    link_rate: Option<Times>,
    /// Share of packets that are lost and sent again, e.g. "0.1 %".
    #[serde(default)]
    link_loss: Option<Quantity>,
    #[serde(default)]
    link: Option<Down>,
    /// Some operations take many times as long.
    #[serde(default)]
    link_tail: Option<LinkTail>,
    /// Some launches come late.
    #[serde(default)]
    host_delay: Option<HostDelay>,
    /// Bits of results flip.
    #[serde(default)]
    flip: Option<Flip>,
    /// Elements of reduced sums that come out wrong, per element, e.g. 1e-9.
    #[serde(default)]
    reduce_flip: Option<f64>,
    /// Counters of faults grow.
    #[serde(default)]
    counter: Vec<Counter>,
    /// The driver reports this Xid.
    #[serde(default)]
    xid: Option<u32>,
    /// What sensors tell instead of what is.
    #[serde(default)]
    sensor: Vec<Sensor>,
    #[serde(default)]
    device: Option<DeviceEnd>,
    #[serde(default)]
    agent: Option<AgentEnd>,
    /// The node's clock is ahead by this much, e.g. "200 ms".
    #[serde(default)]
    clock_ahead: Option<Time>,
    /// Declared, but not there.
    #[serde(default)]
    missing: Option<Missing>,
    #[serde(default)]
    shortcut: Option<Shortcut>,
    #[serde(default)]
    record: Option<Edit>,
    /// So many telemetry frames are lost on the way and come with the next try.
    #[serde(default)]
    lost_frames: Option<u32>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Times {
    times: f64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PartTimes {
    times: f64,
    #[serde(default)]
    of: Part,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SupplySwing {
    amplitude: Quantity,
    period: Time,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Off {
    Off,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Down {
    Down,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PowerSwing {
    frequency: Quantity,
    /// Share of the dynamic range between idle and full load.
    depth: Quantity,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LinkTail {
    share: Quantity,
    times: f64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HostDelay {
    share: Quantity,
    delay: Time,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Flip {
    /// Results per FLOP, e.g. "1e-15 1/FLOP".
    rate: Quantity,
    /// Bits that flip in such a result.
    #[serde(default = "super::one")]
    #[schemars(range(min = 1, max = 32))]
    bits: u32,
    /// Only while the core is hotter.
    #[serde(default)]
    above: Option<Quantity>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Counter {
    metric: Metric,
    #[schemars(range(min = 1, max = 1_000_000))]
    add: u32,
}

/// One of these distortions.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sensor {
    metric: Metric,
    /// The value at the onset, for ever: true.
    #[serde(default)]
    stuck: bool,
    #[serde(default)]
    times: Option<f64>,
    /// In the metric's unit; a difference of temperatures in K.
    #[serde(default)]
    add: Option<Quantity>,
    /// Tells what was, this long ago.
    #[serde(default)]
    delay: Option<Time>,
    /// Tells the stretch before the onset again and again.
    #[serde(default)]
    replay: Option<Time>,
    /// Share of samples that are not there.
    #[serde(default)]
    drop: Option<Quantity>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Missing {
    /// Only this series; the device or node itself without it.
    #[serde(default)]
    series: Option<Metric>,
}

/// Effects as they are found, with the keys they stand at.
struct Reader<'a> {
    at: Place<'a>,
    found: Vec<(&'static str, Effect)>,
}

impl Reader<'_> {
    fn add(&mut self, key: &'static str, effect: Effect) {
        self.found.push((key, effect));
    }

    fn times(&self, key: &str, times: f64, bounds: RangeInclusive<f64>) -> Result<f64, Wrong> {
        self.at
            .figure(key, Quantity::new(times, Unit::One), Unit::One, bounds)
    }

    fn share(&self, key: &str, share: Quantity) -> Result<f64, Wrong> {
        self.at.figure(key, share, Unit::One, 0.0..=1.0)
    }

    fn kelvin(&self, key: &str, quantity: Quantity) -> Result<Kelvin, Wrong> {
        let value = self.at.figure(key, quantity, Unit::Kelvin, -60.0..=60.0)?;
        Ok(Kelvin(value))
    }

    fn time(
        &self,
        key: &str,
        time: Time,
        bounds: RangeInclusive<Duration>,
    ) -> Result<Duration, Wrong> {
        let duration = time.duration();
        if bounds.contains(&duration) {
            return Ok(duration);
        }
        let edge = |d: &Duration| Quantity::new(d.as_secs_f64(), Unit::Second);
        let (low, high) = (edge(bounds.start()), edge(bounds.end()));
        Err(self
            .at
            .wrong(key, format!("{key} is {time}; it may be {low} to {high}")))
    }

    fn devices(&mut self, file: &FaultFile) -> Result<(), Wrong> {
        if let Some(PartTimes { times, of }) = file.rate {
            let times = self.times("rate", times, TIMES)?;
            self.add("rate", Effect::Rate { of, times });
        }
        if let Some(Times { times }) = file.core_clock {
            let times = self.times("core_clock", times, 0.05..=1.5)?;
            self.add("core_clock", Effect::CoreClock { times });
        }
        if let Some(Flip { rate, bits, above }) = file.flip {
            let per_flop = self.at.figure("flip", rate, Unit::PerFlop, 0.0..=1e-6)?;
            let bits = self.at.count("flip", bits, 1..=32)?;
            let above = above.map(|t| self.at.figure("flip", t, Unit::Celsius, 0.0..=150.0));
            let above = above.transpose()?.map(Celsius);
            self.add(
                "flip",
                Effect::Flip {
                    per_flop,
                    bits,
                    above,
                },
            );
        }
        if let Some(share) = file.reduce_flip {
            let per_element = self.times("reduce_flip", share, 0.0..=1.0)?;
            self.add("reduce_flip", Effect::ReduceFlip { per_element });
        }
        for counter in &file.counter {
            let counters = [
                Metric::Ecc,
                Metric::EccCorrected,
                Metric::RowRemap,
                Metric::NvlinkErr,
                Metric::PcieReplay,
                Metric::LinkFlaps,
            ];
            let metric = counter.metric;
            if !counters.contains(&metric) {
                let known = counters.map(Metric::id).join(", ");
                let what = format!("`{metric}` counts no faults; known: {known}");
                return Err(self.at.wrong("counter", what));
            }
            let add = self.at.count("counter", counter.add, 1..=1_000_000)?;
            self.add("counter", Effect::Counter { metric, add });
        }
        if let Some(code) = file.xid {
            let code = self.at.count("xid", code, 1..=999)?;
            self.add("xid", Effect::Xid { code });
        }
        if let Some(end) = file.device {
            self.add("device", Effect::Device(end));
        }
        if let Some(shortcut) = file.shortcut {
            self.add("shortcut", Effect::Shortcut(shortcut));
        }
        Ok(())
    }

    fn cooling(&mut self, file: &FaultFile) -> Result<(), Wrong> {
        if let Some(PartTimes { times, of }) = file.thermal_resistance {
            let times = self.times("thermal_resistance", times, 0.1..=20.0)?;
            self.add(
                "thermal_resistance",
                Effect::ThermalResistance { of, times },
            );
        }
        if let Some(add) = file.supply {
            let add = self.kelvin("supply", add)?;
            self.add("supply", Effect::Supply { add });
        }
        if let Some(SupplySwing { amplitude, period }) = file.supply_swing {
            let amplitude = self.kelvin("supply_swing", amplitude)?;
            let bounds = Duration::from_secs(1)..=Duration::from_secs(86_400);
            let period = self.time("supply_swing", period, bounds)?;
            self.add("supply_swing", Effect::SupplySwing { amplitude, period });
        }
        if let Some(Times { times }) = file.flow {
            let times = self.times("flow", times, 0.0..=3.0)?;
            self.add("flow", Effect::Flow { times });
        }
        if let Some(Times { times }) = file.pump {
            let times = self.times("pump", times, 0.0..=2.0)?;
            self.add("pump", Effect::Pump { times });
        }
        if let Some(above) = file.dew_point_above_supply {
            let above_supply = self.kelvin("dew_point_above_supply", above)?;
            self.add("dew_point_above_supply", Effect::DewPoint { above_supply });
        }
        Ok(())
    }

    fn power(&mut self, file: &FaultFile, hall: &Hall) -> Result<(), Wrong> {
        if let Some(Times { times }) = file.power_cap {
            let times = self.times("power_cap", times, 0.1..=2.0)?;
            self.add("power_cap", Effect::PowerCap { times });
        }
        if let Some(cap) = file.rack_cap {
            let most = hall.rack_power.0;
            let cap = self.at.figure("rack_cap", cap, Unit::Watt, 100.0..=most)?;
            self.add(
                "rack_cap",
                Effect::RackCap {
                    at_most: Watts(cap),
                },
            );
        }
        if let Some(Times { times }) = file.power_brake {
            let clock_times = self.times("power_brake", times, 0.02..=1.0)?;
            self.add("power_brake", Effect::Psu { clock_times });
        }
        if let Some(Off::Off) = file.feed {
            self.add("feed", Effect::FeedOff);
        }
        if let Some(PowerSwing { frequency, depth }) = file.power_swing {
            let key = "power_swing";
            let frequency = self.at.figure(key, frequency, Unit::Hertz, 0.001..=500.0)?;
            let depth = self.share(key, depth)?;
            let frequency = Hertz(frequency);
            self.add(key, Effect::PowerSwing { frequency, depth });
        }
        Ok(())
    }

    fn links_and_hosts(&mut self, file: &FaultFile) -> Result<(), Wrong> {
        if let Some(Times { times }) = file.link_rate {
            let times = self.times("link_rate", times, 0.001..=2.0)?;
            self.add("link_rate", Effect::LinkRate { times });
        }
        if let Some(share) = file.link_loss {
            let share = self.share("link_loss", share)?;
            self.add("link_loss", Effect::LinkLoss { share });
        }
        if let Some(Down::Down) = file.link {
            self.add("link", Effect::LinkDown);
        }
        if let Some(LinkTail { share, times }) = file.link_tail {
            let times = self.times("link_tail", times, 1.0..=1e4)?;
            let share = self.share("link_tail", share)?;
            self.add("link_tail", Effect::LinkTail { share, times });
        }
        if let Some(HostDelay { share, delay }) = file.host_delay {
            let bounds = Duration::from_micros(1)..=Duration::from_secs(10);
            let delay = self.time("host_delay", delay, bounds)?;
            let share = self.share("host_delay", share)?;
            self.add("host_delay", Effect::HostDelay { share, delay });
        }
        if let Some(end) = file.agent {
            self.add("agent", Effect::Agent(end));
        }
        if let Some(ahead) = file.clock_ahead {
            let bounds = Duration::from_micros(1)..=Duration::from_secs(86_400);
            let offset = self.time("clock_ahead", ahead, bounds)?;
            self.add("clock_ahead", Effect::Clock { offset });
        }
        if let Some(count) = file.lost_frames {
            let count = self.at.count("lost_frames", count, 1..=1000)?;
            self.add("lost_frames", Effect::LostFrames { count });
        }
        match file.missing {
            Some(Missing { series: None }) => self.add("missing", Effect::Missing),
            Some(Missing {
                series: Some(metric),
            }) => self.add("missing", Effect::MissingSeries { metric }),
            None => {}
        }
        if let Some(edit) = file.record {
            self.add("record", Effect::Record(edit));
        }
        Ok(())
    }

    fn sensors(&mut self, file: &FaultFile) -> Result<(), Wrong> {
        let longest = Duration::from_millis(1)..=Duration::from_secs(86_400);
        for sensor in &file.sensor {
            let metric = sensor.metric;
            let mut ways = Vec::new();
            if sensor.stuck {
                ways.push(Distortion::Stuck);
            }
            if let Some(times) = sensor.times {
                let times = self.times("sensor", times, -10.0..=TIMES.end().to_owned())?;
                ways.push(Distortion::Scaled { times });
            }
            if let Some(add) = sensor.add {
                let unit = match metric.spec().unit {
                    Unit::Celsius => Unit::Kelvin,
                    unit => unit,
                };
                let add = self.at.figure("sensor", add, unit, -1e15..=1e15)?;
                ways.push(Distortion::Offset { add });
            }
            if let Some(delay) = sensor.delay {
                let by = self.time("sensor", delay, longest.clone())?;
                ways.push(Distortion::Delayed { by });
            }
            if let Some(replay) = sensor.replay {
                let stretch = self.time("sensor", replay, longest.clone())?;
                ways.push(Distortion::Replayed { stretch });
            }
            if let Some(share) = sensor.drop {
                let share = self.share("sensor", share)?;
                ways.push(Distortion::Dropped { share });
            }
            if ways.is_empty() {
                let what = "a sensor needs one of stuck, times, add, delay, replay, drop";
                return Err(self.at.wrong("sensor", what.to_owned()));
            }
            for distortion in ways {
                self.add("sensor", Effect::Sensor { metric, distortion });
            }
        }
        Ok(())
    }
}

impl FaultFile {
    /// The fault in this hall.
    pub(super) fn checked(self, hall: &Hall, lines: &Lines, nth: usize) -> Result<Fault, Wrong> {
        let at = Place {
            lines,
            header: "[[fault]]",
            nth,
        };
        let mut reader = Reader {
            at,
            found: Vec::new(),
        };
        if let Some(what) = self.place.fault(hall) {
            return Err(reader.at.wrong("place", what));
        }
        reader.devices(&self)?;
        reader.cooling(&self)?;
        reader.power(&self, hall)?;
        reader.links_and_hosts(&self)?;
        reader.sensors(&self)?;
        let (level, found) = (self.place.level(), &reader.found);
        for (key, effect) in found {
            if !effect.levels().contains(&level) {
                let known: Vec<_> = effect.levels().iter().map(|l| l.name()).collect();
                let what = format!("{key} acts at no {level}; it acts at: {}", known.join(", "));
                return Err(reader.at.wrong("place", what));
            }
        }
        if found.is_empty() {
            let what = "a fault does something: give it an effect, e.g. `rate = { times = 0.95 }`";
            return Err(reader.at.wrong("", what.to_owned()));
        }
        let span = self.span(&reader.at)?;
        let wanted = self.wanted(&reader.at)?;
        Ok(Fault {
            spot: self.place,
            span,
            effects: reader.found.into_iter().map(|(_, e)| e).collect(),
            wanted,
        })
    }

    fn span(&self, at: &Place) -> Result<Span, Wrong> {
        let lasts = self.lasts.map(Time::duration);
        let every = self.every.map(Time::duration);
        if every.is_some_and(|every| lasts.is_none_or(|lasts| lasts >= every)) {
            let what = "every needs a `for` that is shorter".to_owned();
            return Err(at.wrong("every", what));
        }
        let grows_over = self.grows_over.duration();
        if lasts.is_some_and(|lasts| grows_over > lasts) {
            let what = "grows_over is longer than the fault lasts".to_owned();
            return Err(at.wrong("grows_over", what));
        }
        Ok(Span {
            onset: self.at.duration(),
            lasts,
            every,
            grows_over,
        })
    }

    fn wanted(&self, at: &Place) -> Result<Option<Wanted>, Wrong> {
        if self.causes.len() > CAUSES_MAX {
            return Err(at.wrong("causes", format!("more than {CAUSES_MAX} causes")));
        }
        let within = match (self.within, self.causes.is_empty()) {
            (Some(within), false) => within.duration(),
            (None, true) if self.found_at.is_none() => return Ok(None),
            (_, true) => {
                let what = "what must alarm nobody has neither `within` nor `found_at`";
                return Err(at.wrong("within", what.to_owned()));
            }
            (None, false) => {
                let what = "causes need `within`, e.g. within = \"10 min\"";
                return Err(at.wrong("causes", what.to_owned()));
            }
        };
        Ok(Some(Wanted {
            causes: self.causes.clone(),
            within,
            level: self.found_at,
        }))
    }
}
