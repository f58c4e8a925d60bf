//! The signals that several rules share, each looked at once, and the least sizes that count as a departure.
//!
//! The sizes are half of what a fault must have to be worth a partner's visit, and above what healthy halls
//! show: silicon spreads by 1.5 %, junctions by a kelvin or two, meters by their accuracy class.

use super::departure::{Departure, Field, Measure, Rule, field};
use super::hall::{Hall, Meter, Row};
use super::{Sign, Size};
use crate::standing::Standing;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};

/// A share of time under a reason that is more than a flicker.
const REASON: f64 = 0.05;
/// Share of a device's highest power above which it tells a resistance.
const LOADED: f64 = 0.6;
/// Columns in a row that a reason must hold for.
const REASON_COLUMNS: usize = 2;

const fn ratio(sign: f64, step: f64, level: f64, group: f64) -> Rule {
    Rule {
        measure: Measure::Ratio,
        unit: Unit::One,
        sign,
        step,
        level,
        group,
        climb: None,
        rare: false,
    }
}

/// Rate while computing falls, beyond what the clock explains.
pub const RATE: Rule = Rule {
    climb: Some(0.005),
    ..ratio(-1.0, 0.008, 0.03, 0.02)
};
pub const CLOCK: Rule = ratio(-1.0, 0.015, 0.05, 0.02);
pub const POWER: Rule = ratio(-1.0, 0.04, 0.12, 0.05);
pub const MEMORY: Rule = ratio(-1.0, 0.015, 0.04, 0.02);
/// Temperature over the coolant, K.
pub const HEAT: Rule = Rule {
    unit: Unit::Kelvin,
    measure: Measure::Difference,
    ..ratio(1.0, 1.0, 5.0, 1.2)
};
/// Thermal resistance.
pub const RESISTANCE: Rule = Rule {
    climb: Some(0.02),
    ..ratio(1.0, 0.06, 0.15, 0.05)
};

/// A run's signals.
pub struct Signs<'a> {
    pub hall: Hall<'a>,
    /// Rate while computing, raw, and what of it the clock leaves unexplained.
    pub rate: Field,
    pub own_rate: Field,
    pub clock: Field,
    pub power: Field,
    pub heat: Field,
    /// Thermal resistance to the coolant; empty where neither sensor nor supply gives one.
    pub resistance: Field,
    /// Onset and share of time under a thermal reason, and under the power brake.
    pub thermal: Vec<Option<Reason>>,
    pub brake: Vec<Option<Reason>>,
    pub supply: Vec<Meter>,
}

/// Time under a reason.
#[derive(Clone, Copy, Debug)]
pub struct Reason {
    pub onset_ns: u64,
    /// Largest share within a column.
    pub share: f64,
}

impl<'a> Signs<'a> {
    pub fn of(standing: &'a Standing) -> Option<Self> {
        let hall = Hall::of(standing)?;
        let any = |_: &str| true;
        let rate = field(&hall, hall.rates(), RATE);
        let clock = field(&hall, hall.gauge(Metric::ClockSm, any), CLOCK);
        let watts = powers(&hall);
        let power = field(&hall, watts.clone(), POWER);
        let core = hall.gauge(Metric::TempCore, any);
        let supply = hall.meters(Metric::CoolantSupply);
        let resistance = resistances(&hall, &core, &watts, &supply);
        let resistance = field(&hall, resistance, RESISTANCE);
        let heat = field(&hall, core, HEAT);
        let own = own_rates(&rate, &clock);
        let own_rate = field(
            &hall,
            own,
            Rule {
                measure: Measure::Difference,
                ..RATE
            },
        );
        let thermal = reasons(&hall, |l| l.contains("thermal"));
        let brake = reasons(&hall, |l| l.contains("brake"));
        Some(Self {
            rate,
            own_rate,
            clock,
            power,
            heat,
            resistance,
            thermal,
            brake,
            supply,
            hall,
        })
    }

    /// Devices for which something holds.
    pub fn devices(&self, holds: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..self.hall.devices).filter(|d| holds(*d)).collect()
    }

    /// The meter of a metric that watches the place: its own, or the smallest group's around it.
    pub fn meter<'m>(&self, meters: &'m [Meter], devices: &[u32]) -> Option<&'m Meter> {
        let around = |m: &&Meter| devices.iter().all(|d| m.place.devices.contains(d));
        let found = meters.iter().filter(around);
        found.min_by_key(|m| m.place.devices.len())
    }
}

/// Instant power where there is one, else its average.
fn powers(hall: &Hall) -> Vec<Option<Row>> {
    let instant = hall.gauge(Metric::PowerInstant, |_| true);
    let average = hall.gauge(Metric::PowerDraw, |_| true);
    let one = |(instant, average): (Option<Row>, Option<Row>)| average.or(instant);
    instant.into_iter().zip(average).map(one).collect()
}

/// The sensor's own, else temperature over the supply through the power.
fn resistances(
    hall: &Hall,
    core: &[Option<Row>],
    watts: &[Option<Row>],
    supply: &[Meter],
) -> Vec<Option<Row>> {
    let told = hall.gauge(Metric::RTh, |_| true);
    let one = |device: usize| {
        let device_u32 = device as u32;
        let around = |m: &&Meter| m.place.devices.contains(&device_u32);
        let meter = supply.iter().filter(around);
        let meter = meter.min_by_key(|m| m.place.devices.len())?;
        let (core, watts) = (core[device].as_ref()?, watts[device].as_ref()?);
        let most = watts
            .iter()
            .copied()
            .filter(|p| p.is_finite())
            .fold(0.0, f64::max);
        // At little power the sensors' offsets are most of the quotient.
        let point = |((t, p), s): ((&f64, &f64), &f64)| {
            if *p > LOADED * most {
                (t - s) / p
            } else {
                f64::NAN
            }
        };
        Some(core.iter().zip(watts).zip(&meter.row).map(point).collect())
    };
    let all = told.into_iter().enumerate();
    all.map(|(device, row)| row.or_else(|| one(device)))
        .collect()
}

/// What of the rate's distance from the peers the clock's leaves: a rate goes with its clock.
fn own_rates(rate: &Field, clock: &Field) -> Vec<Option<Row>> {
    let one = |(rate, clock): (&Option<Row>, &Option<Row>)| {
        let rate = rate.as_ref()?;
        let left = |(r, c): (&f64, &f64)| if c.is_finite() { r - c.min(0.0) } else { *r };
        Some(match clock {
            Some(clock) => rate.iter().zip(clock).map(left).collect(),
            None => rate.clone(),
        })
    };
    rate.excess.iter().zip(&clock.excess).map(one).collect()
}

/// Since when each device was held down for a reason, where it was for longer than a flicker.
fn reasons(hall: &Hall, wanted: impl Fn(&str) -> bool) -> Vec<Option<Reason>> {
    let rows = hall.largest(Metric::ThrottleFrac, wanted);
    let one = |row: Option<Row>| {
        let row = row?;
        let holds = |w: &[f64]| w.iter().all(|v| *v >= REASON);
        let at = row.windows(REASON_COLUMNS).position(holds)?;
        Some(Reason {
            onset_ns: *hall.at_ns.get(at)?,
            share: row
                .iter()
                .copied()
                .filter(|v| v.is_finite())
                .fold(0.0, f64::max),
        })
    };
    rows.into_iter().map(one).collect()
}

/// A departure as a sign: what moved, which way, by how much.
pub fn moved(metric: Metric, what: &str, departure: &Departure) -> Sign {
    let size = departure.size;
    Sign::new(metric, format!("{what} {}", told(&size))).sized(Some(size))
}

/// A size with its direction: `down 5.1 %`, `up 3.2 K`.
pub fn told(size: &Size) -> String {
    let way = if size.value < 0.0 { "down" } else { "up" };
    let figure = match size.unit {
        Unit::One => human(100.0 * size.value.abs(), Unit::Percent),
        unit => human(size.value.abs(), unit),
    };
    format!("{way} {figure}")
}

/// `on 8 GPUs`, nothing for one.
pub fn on(devices: &[u32]) -> String {
    match devices.len() {
        0 | 1 => String::new(),
        n => format!(" on {n} GPUs"),
    }
}
