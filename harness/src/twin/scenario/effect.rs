//! What a fault does to a hall, as physics: a worse cold plate, a capped supply, a flipped bit, a stuck sensor.
//!
//! Decides at which kinds of place an effect can act and how its severity is scaled. It never says what a metric
//! should show: that is the simulated hall's to work out.

use super::Hall;
use super::place::Level;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Celsius, Hertz, Kelvin, Watts};
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;

/// Least of a rate, flow or resistance that scaling a severity may leave.
const LEAST_TIMES: f64 = 0.02;

/// Which of a device's works or coolings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The compute units: matmuls; the core's way to the coolant.
    #[default]
    Core,
    /// The device memory: copies; the memory's way to the coolant.
    Memory,
}

/// How a device stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceEnd {
    /// Off the bus: gone, and its driver says so with an Xid.
    OffTheBus,
    /// It never answers again and says nothing.
    Hang,
}

/// What happens to the program that serves a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentEnd {
    /// It ends, and is not started again before the fault is over.
    Kill,
    /// It ends and is started again when the fault is over.
    Restart,
    /// It cannot be reached; what it recorded meanwhile arrives when the fault is over.
    Partition,
}

/// What is done instead of the work that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shortcut {
    /// Operands of zeros: power falls, results do not fit.
    Zeros,
    /// Fewer bits of each operand.
    LowerPrecision,
}

/// What is done to the record after the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// One byte of it is another.
    Change,
    /// Its end is cut off.
    Truncate,
    /// Two stretches change places.
    Reorder,
    /// A limit of the profile is loosened.
    Threshold,
}

/// What a sensor tells instead of what is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distortion {
    /// The value at the onset, for ever.
    Stuck,
    Scaled {
        times: f64,
    },
    /// In the metric's unit.
    Offset {
        add: f64,
    },
    /// What was, this long ago.
    Delayed {
        by: Duration,
    },
    /// The stretch before the onset, again and again.
    Replayed {
        stretch: Duration,
    },
    /// This share of the samples is not there.
    Dropped {
        share: f64,
    },
}

impl Distortion {
    fn scaled(self, factor: f64) -> Distortion {
        match self {
            Distortion::Scaled { times } => Distortion::Scaled {
                times: (1.0 + (times - 1.0) * factor).max(LEAST_TIMES),
            },
            Distortion::Offset { add } => Distortion::Offset { add: add * factor },
            Distortion::Delayed { by } => Distortion::Delayed {
                by: by.mul_f64(factor),
            },
            Distortion::Dropped { share } => Distortion::Dropped {
                share: (share * factor).min(1.0),
            },
            Distortion::Stuck | Distortion::Replayed { .. } => self,
        }
    }
}

/// One effect at full severity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    /// The device does its work at `times` its rate, for reasons that no sensor shows.
    Rate {
        of: Part,
        times: f64,
    },
    /// The highest core clock is `times` what it was: a setting.
    CoreClock {
        times: f64,
    },
    /// The resistance between the part and its coolant.
    ThermalResistance {
        of: Part,
        times: f64,
    },
    /// The loop's supply is warmer by this much.
    Supply {
        add: Kelvin,
    },
    /// The loop's supply swings about its mean.
    SupplySwing {
        amplitude: Kelvin,
        period: Duration,
    },
    /// Flow of a branch, rack or loop.
    Flow {
        times: f64,
    },
    /// The loop's pump runs at `times` its speed.
    Pump {
        times: f64,
    },
    /// The air's dew point lies this much above the loop's supply.
    DewPoint {
        above_supply: Kelvin,
    },
    /// The devices' enforced power limit.
    PowerCap {
        times: f64,
    },
    /// The rack as a whole draws no more than this.
    RackCap {
        at_most: Watts,
    },
    /// A power supply is lost: the brake leaves `clock_times` of the clock.
    Psu {
        clock_times: f64,
    },
    /// No power.
    FeedOff,
    /// Every device's power swings in step by `depth` of its dynamic range.
    PowerSwing {
        frequency: Hertz,
        depth: f64,
    },
    /// The links' rate.
    LinkRate {
        times: f64,
    },
    /// Share of packets that are lost and sent again.
    LinkLoss {
        share: f64,
    },
    /// Nothing passes.
    LinkDown,
    /// This share of operations takes `times` as long.
    LinkTail {
        share: f64,
        times: f64,
    },
    /// This share of launches comes `delay` late.
    HostDelay {
        share: f64,
        delay: Duration,
    },
    /// Bits of results flip: so many results per FLOP, each in `bits` places; only above a core temperature, if one is given.
    Flip {
        per_flop: f64,
        bits: u32,
        above: Option<Celsius>,
    },
    /// Elements of reduced sums that one rank gets wrong, per element.
    ReduceFlip {
        per_element: f64,
    },
    /// A fault counter grows by so much while the fault grows.
    Counter {
        metric: Metric,
        add: u32,
    },
    /// The driver reports this Xid.
    Xid {
        code: u32,
    },
    Sensor {
        metric: Metric,
        distortion: Distortion,
    },
    Device(DeviceEnd),
    Agent(AgentEnd),
    /// The node's clock is ahead by this much.
    Clock {
        offset: Duration,
    },
    /// Declared, but not there.
    Missing,
    /// A series that is declared and never tells anything.
    MissingSeries {
        metric: Metric,
    },
    Shortcut(Shortcut),
    Record(Edit),
    /// So many telemetry frames are lost on the way and come with the next try.
    LostFrames {
        count: u32,
    },
}

use Level::{Cdu, Feeder, Gpu, Node, Rack, Site, Tray};

impl Effect {
    /// Kinds of place that it can act at.
    #[must_use]
    pub const fn levels(&self) -> &'static [Level] {
        match self {
            Effect::Rate { .. }
            | Effect::CoreClock { .. }
            | Effect::ThermalResistance { .. }
            | Effect::PowerCap { .. }
            | Effect::Flip { .. }
            | Effect::ReduceFlip { .. }
            | Effect::Shortcut(_)
            | Effect::LinkTail { .. } => &[Gpu, Node, Tray, Rack, Site],
            Effect::Flow { .. } => &[Node, Tray, Rack, Cdu],
            Effect::Supply { .. }
            | Effect::SupplySwing { .. }
            | Effect::Pump { .. }
            | Effect::DewPoint { .. } => &[Cdu, Site],
            Effect::RackCap { .. } => &[Rack],
            Effect::Psu { .. }
            | Effect::Agent(_)
            | Effect::Clock { .. }
            | Effect::HostDelay { .. } => &[Node, Tray, Rack],
            Effect::FeedOff => &[Node, Tray, Rack, Feeder],
            Effect::PowerSwing { .. } => &[Rack, Feeder, Site],
            Effect::LinkRate { .. } | Effect::LinkLoss { .. } | Effect::LinkDown => {
                &[Gpu, Node, Rack]
            }
            Effect::Counter { .. } | Effect::Xid { .. } | Effect::Device(_) => &[Gpu, Node],
            Effect::Sensor { .. } | Effect::MissingSeries { .. } => {
                &[Gpu, Node, Tray, Rack, Cdu, Feeder, Site]
            }
            Effect::Missing => &[Gpu, Node],
            Effect::LostFrames { .. } => &[Gpu, Node],
            Effect::Record(_) => &[Site],
        }
    }

    /// Whether there is more and less of it; a device that is gone cannot be half gone.
    #[must_use]
    pub const fn has_severity(&self) -> bool {
        !matches!(
            self,
            Effect::FeedOff
                | Effect::LinkDown
                | Effect::Xid { .. }
                | Effect::Device(_)
                | Effect::Agent(_)
                | Effect::Missing
                | Effect::MissingSeries { .. }
                | Effect::Shortcut(_)
                | Effect::Record(_)
                | Effect::Sensor {
                    distortion: Distortion::Stuck | Distortion::Replayed { .. },
                    ..
                }
        )
    }

    /// The same effect at `factor` times its severity: twice 5 % slow is 10 % slow; nothing falls below 2 % of what it was.
    #[must_use]
    pub fn scaled(self, factor: f64, hall: &Hall) -> Effect {
        let times = |times: f64| (1.0 + (times - 1.0) * factor).max(LEAST_TIMES);
        let share = |share: f64| (share * factor).min(1.0);
        let whole = |count: u32| (f64::from(count) * factor).round().max(1.0) as u32;
        match self {
            Effect::Rate { of, times: t } => Effect::Rate {
                of,
                times: times(t),
            },
            Effect::CoreClock { times: t } => Effect::CoreClock { times: times(t) },
            Effect::ThermalResistance { of, times: t } => Effect::ThermalResistance {
                of,
                times: times(t),
            },
            Effect::Supply { add } => Effect::Supply { add: add * factor },
            Effect::SupplySwing { amplitude, period } => Effect::SupplySwing {
                amplitude: amplitude * factor,
                period,
            },
            Effect::Flow { times: t } => Effect::Flow { times: times(t) },
            Effect::Pump { times: t } => Effect::Pump { times: times(t) },
            Effect::DewPoint { above_supply } => Effect::DewPoint {
                above_supply: above_supply * factor,
            },
            Effect::PowerCap { times: t } => Effect::PowerCap { times: times(t) },
            // The distance to what the rack may draw is the severity.
            Effect::RackCap { at_most } => Effect::RackCap {
                at_most: hall.rack_power * times(at_most / hall.rack_power),
            },
            Effect::Psu { clock_times } => Effect::Psu {
                clock_times: times(clock_times),
            },
            Effect::PowerSwing { frequency, depth } => Effect::PowerSwing {
                frequency,
                depth: share(depth),
            },
            Effect::LinkRate { times: t } => Effect::LinkRate { times: times(t) },
            Effect::LinkLoss { share: s } => Effect::LinkLoss { share: share(s) },
            Effect::LinkTail { share: s, times: t } => Effect::LinkTail {
                share: share(s),
                times: t,
            },
            Effect::HostDelay { share: s, delay } => Effect::HostDelay {
                share: share(s),
                delay,
            },
            Effect::Flip {
                per_flop,
                bits,
                above,
            } => Effect::Flip {
                per_flop: per_flop * factor,
                bits,
                above,
            },
            Effect::ReduceFlip { per_element } => Effect::ReduceFlip {
                per_element: share(per_element),
            },
            Effect::Counter { metric, add } => Effect::Counter {
                metric,
                add: whole(add),
            },
            Effect::Sensor { metric, distortion } => Effect::Sensor {
                metric,
                distortion: distortion.scaled(factor),
            },
            Effect::Clock { offset } => Effect::Clock {
                offset: offset.mul_f64(factor),
            },
            Effect::LostFrames { count } => Effect::LostFrames {
                count: whole(count),
            },
            same => same,
        }
    }
}
