//! Heat, from the chip outwards: thermal resistance, branch flow, supply, pump, control, dew point, throttling.
//!
//! Temperature over the peers says that something is wrong; resistance, supply and flow say what. Without those
//! meters the width of the place decides, and the confidence says so.

use super::departure::{Departure, Field, Form, Measure, Rule, step_of};
use super::hall::{Meter, Row};
use super::place::{Level, Place};
use super::signs::{HEAT, Signs, moved, on};
use super::{Cause, Diagnosis, Sign, Size};
use crate::stats::outlier::median;
use crate::stats::spectrum::{Line, spectrum};
use crate::trace::{Bin, Trace};
use hallmark_profiles::criterion::Reference;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};

const LIQUID: [Level; 4] = [Level::Tray, Level::Rack, Level::Cdu, Level::Node];
/// Of the temperature's rise the supply must have made so much to be its cause.
const BY_SUPPLY: f64 = 0.6;
/// Relative steps of flow that count, and that only a stopped pump makes.
const FLOW_STEP: f64 = 0.08;
const PUMP_STEP: f64 = 0.2;
/// Periods of a control that hunts, s, and the least swing that is worth a visit, K.
const HUNTING_S: (f64, f64) = (20.0, 400.0);
const HUNTING_K: f64 = 0.3;
const HUNTING_P: f64 = 1e-4;
/// A swing of the power over its level that is the load's own.
const LOAD_SWING: f64 = 0.02;

const DOWN: Rule = Rule {
    measure: Measure::Ratio,
    unit: Unit::One,
    sign: -1.0,
    step: FLOW_STEP,
    level: 1.0,
    group: 1.0,
    climb: None,
    rare: false,
};

pub fn all(signs: &Signs) -> Vec<Diagnosis> {
    let mut found = flows(signs);
    found.extend(supplies(signs));
    found.extend(hot(signs, &found));
    found.extend(hunting(signs));
    found.extend(dew(signs));
    found.extend(throttled(signs));
    found
}

/// Flow meters and pumps that stepped down.
fn flows(signs: &Signs) -> Vec<Diagnosis> {
    let hall = &signs.hall;
    let pumps = hall.meters(Metric::PumpSpeed);
    let mut found = Vec::new();
    for metric in [Metric::PumpSpeed, Metric::Flow, Metric::FlowPerKw] {
        for meter in hall.meters(metric) {
            let Some(step) = step_of(hall, &meter.row, DOWN) else {
                continue;
            };
            let pump = pumps
                .iter()
                .find(|p| p.place == meter.place)
                .and_then(|p| step_of(hall, &p.row, DOWN));
            let fell = -step.size.value >= PUMP_STEP && meter.place.level >= Level::Cdu;
            let cause = if metric == Metric::PumpSpeed || pump.is_some() || fell {
                Cause::PumpTrip
            } else {
                Cause::BranchFlow
            };
            let name = metric.id().replace('_', " ");
            let mut evidence = vec![moved(metric, &name, &step)];
            let heat = hotter(signs, &meter.place);
            // A branch is low while the pumps run as they did.
            let steady = !pumps.is_empty() && pump.is_none();
            let fits = if cause == Cause::PumpTrip {
                pump.is_some()
            } else {
                steady
            };
            let checks = (usize::from(heat.is_some()) + usize::from(fits), 2);
            evidence.extend(heat);
            let one = Diagnosis::new(cause, meter.place.clone(), step.p, checks, evidence);
            found.push(one.since(step.onset_ns));
        }
    }
    found
}

/// That a place's devices grew hotter.
fn hotter(signs: &Signs, place: &Place) -> Option<Sign> {
    let rise = signs.heat.together(&place.devices)?;
    let what = format!("ΔT{}", on(&place.devices));
    Some(moved(Metric::TempCore, &what, &rise))
}

const SUPPLY_UP: Rule = Rule { step: 0.8, ..HEAT };

fn supplies(signs: &Signs) -> Vec<Diagnosis> {
    let of = |meter: &Meter| {
        let step = step_of(&signs.hall, &meter.row, SUPPLY_UP)?;
        let mut evidence = vec![moved(Metric::CoolantSupply, "coolant supply", &step)];
        let heat = hotter(signs, &meter.place);
        let normal =
            signs.resistance.is_known() && signs.resistance.share(&meter.place.devices) < 0.5;
        let checks = (usize::from(heat.is_some()) + usize::from(normal), 2);
        evidence.extend(heat);
        evidence.extend(normal.then(|| Sign::new(Metric::RTh, "r_th normal")));
        let one = Diagnosis::new(
            Cause::SupplyWarm,
            meter.place.clone(),
            step.p,
            checks,
            evidence,
        );
        Some(one.since(step.onset_ns))
    };
    signs.supply.iter().filter_map(of).collect()
}

/// Devices that are hotter than their peers or than they were, and why.
fn hot(signs: &Signs, known: &[Diagnosis]) -> Vec<Diagnosis> {
    let (heat, resistance) = (&signs.heat, &signs.resistance);
    // More power makes more heat: that is no fault of the cooling.
    let is_hot = |d: usize| {
        let resists = resistance.at(d).is_some();
        resists || heat.at(d).is_some() && !draws_more(signs, d)
    };
    let affected = signs.devices(is_hot);
    let looked = |d: usize| heat.has(d) || resistance.has(d);
    let places = signs.hall.groups.explain(&affected, looked, &LIQUID);
    let explained = |place: &Place| {
        known.iter().any(|d| {
            matches!(d.cause, Cause::SupplyWarm | Cause::PumpTrip) && place.is_within(&d.place)
        })
    };
    let new = places.into_iter().filter(|p| !explained(p));
    new.filter_map(|place| {
        if place.level == Level::Gpu {
            one_device(signs, place)
        } else {
            branch(signs, place)
        }
    })
    .collect()
}

fn draws_more(signs: &Signs, device: usize) -> bool {
    let Some(row) = signs.power.excess.get(device).and_then(Option::as_ref) else {
        return false;
    };
    let tail: Vec<f64> = row
        .iter()
        .rev()
        .copied()
        .filter(|v| v.is_finite())
        .take(16)
        .collect();
    median(&tail).is_some_and(|more| more > 0.08)
}

fn one_device(signs: &Signs, place: Place) -> Option<Diagnosis> {
    let device = *place.devices.first()? as usize;
    let (heat, own) = (signs.heat.at(device), signs.resistance.at(device));
    let lead = own.or(heat)?;
    let cause = if lead.form == Form::Climb {
        Cause::PumpOut
    } else {
        Cause::ColdPlate
    };
    // Where resistance is known and normal, a hot device is hot for another reason.
    if own.is_none() && signs.resistance.has(device) {
        return None;
    }
    let mut evidence = Vec::new();
    evidence.extend(own.map(|d| moved(Metric::RTh, "r_th", &d)));
    evidence.extend(heat.map(|d| moved(Metric::TempCore, "core temperature", &d)));
    let alone = signs
        .hall
        .groups
        .all()
        .iter()
        .any(|g| g.level == Level::Tray && g.devices.contains(&device) && g.devices.len() > 1);
    let checks = [own.is_some(), heat.is_some(), alone];
    let there = checks.iter().filter(|c| **c).count();
    Some(Diagnosis::new(cause, place, lead.p, (there, 3), evidence).since(lead.onset_ns))
}

/// A group whose devices all grew hotter by about as much.
fn branch(signs: &Signs, place: Place) -> Option<Diagnosis> {
    let devices = place.devices.clone();
    let heat = signs.heat.together(&devices);
    let own = signs.resistance.together(&devices);
    let lead = heat.or(own)?;
    let wide = place.level >= Level::Cdu;
    let supply = signs.meter(&signs.supply, &devices);
    let supply_step = supply.and_then(|m| step_of(&signs.hall, &m.row, SUPPLY_UP));
    let by_supply =
        supply_step.is_some_and(|s| heat.is_some_and(|h| s.size.value >= BY_SUPPLY * h.size.value));
    let cause = if by_supply || wide && supply.is_none() {
        Cause::SupplyWarm
    } else {
        Cause::BranchFlow
    };
    let mut evidence = Vec::new();
    evidence.extend(heat.map(|d| moved(Metric::TempCore, &format!("ΔT{}", on(&devices)), &d)));
    let normal = signs.resistance.is_known() && own.is_none();
    evidence.extend(normal.then(|| Sign::new(Metric::RTh, "r_th normal")));
    evidence.extend(own.map(|d| moved(Metric::RTh, "heat path to the supply", &d)));
    let steady = supply.is_some() && supply_step.is_none();
    if let (true, Cause::BranchFlow) = (steady, cause) {
        evidence.push(Sign::new(Metric::CoolantSupply, "supply steady"));
    }
    let alike = even(&signs.heat, &devices);
    let there = usize::from(alike) + usize::from(by_supply || steady);
    Some(Diagnosis::new(cause, place, lead.p, (there, 2), evidence).since(lead.onset_ns))
}

/// Whether the devices rose alike: what comes with the coolant does, what sits on each chip does not.
fn even(heat: &Field, devices: &[u32]) -> bool {
    let own: Vec<Departure> = devices
        .iter()
        .filter_map(|d| heat.at(*d as usize))
        .collect();
    let sizes: Vec<f64> = own.iter().map(|d| d.size.value).collect();
    let Some(middle) = median(&sizes) else {
        return false;
    };
    let near = sizes
        .iter()
        .filter(|s| (*s / middle - 1.0).abs() < 0.5)
        .count();
    near * 4 >= sizes.len() * 3
}

/// Supply, or the temperatures of a loop, that swing with one period that the load does not have.
fn hunting(signs: &Signs) -> Vec<Diagnosis> {
    let hall = &signs.hall;
    // A load that swings by itself; what the coolant does to the power is far less.
    let level = median(&signs.power.reference).unwrap_or(f64::INFINITY);
    let load = main_line(signs, &signs.power.reference)
        .filter(|l| l.p < HUNTING_P && l.amplitude >= LOAD_SWING * level);
    let core = hall.gauge(Metric::TempCore, |_| true);
    let mut found = Vec::new();
    let swings = |line: Option<Line>| {
        let line = line?;
        let of_load = load.is_some_and(|l| (l.period_s / line.period_s - 1.0).abs() < 0.1);
        (line.amplitude >= HUNTING_K && line.p < HUNTING_P && !of_load).then_some(line)
    };
    let supplies = hall.columns(Metric::CoolantSupply);
    for (run, column) in supplies.filter(|(run, _)| run.table.device.is_none()) {
        if let Some(line) = swings(fine_line(signs, &run.traces[column])) {
            let place = hall.groups.of_meter(&run.table.place);
            let heat = loop_swings(signs, &core, &place, &line);
            found.push(hunts(Metric::CoolantSupply, place, line, heat));
        }
    }
    if signs.supply.is_empty()
        && let Some(line) = swings(main_line(signs, &signs.heat.reference))
    {
        let devices: Vec<usize> = (0..hall.devices).collect();
        let place = hall.groups.explain(&devices, |_| true, &[Level::Cdu]);
        let hunting = place.into_iter().next();
        found.extend(hunting.map(|place| hunts(Metric::TempCore, place, line, false)));
    }
    found
}

fn hunts(metric: Metric, place: Place, line: Line, heat: bool) -> Diagnosis {
    let swing = Size {
        value: line.amplitude,
        low: line.amplitude,
        high: line.amplitude,
        unit: Unit::Kelvin,
    };
    let what = format!(
        "{} swings by ±{} every {}",
        metric.id().replace('_', " "),
        human(line.amplitude, Unit::Kelvin),
        human(line.period_s, Unit::Second)
    );
    let evidence = vec![Sign::new(metric, what).sized(Some(swing))];
    Diagnosis::new(
        Cause::Hunting,
        place,
        line.p,
        (1 + usize::from(heat), 2),
        evidence,
    )
}

/// Whether the temperatures of a loop's devices have the supply's period.
fn loop_swings(signs: &Signs, core: &[Option<Row>], place: &Place, line: &Line) -> bool {
    let rows = place.devices.iter().filter_map(|d| core.get(*d as usize));
    let rows: Vec<&Row> = rows.flatten().collect();
    let mean = |column: usize| rows.iter().map(|r| r[column]).sum::<f64>() / rows.len() as f64;
    let mean: Row = (0..signs.hall.at_ns.len()).map(mean).collect();
    let found = main_line(signs, &mean);
    found.is_some_and(|l| (l.period_s / line.period_s - 1.0).abs() < 0.15)
}

/// The line of a course over the main phase in the band of controls.
fn main_line(signs: &Signs, row: &[f64]) -> Option<Line> {
    let main = row.get(signs.hall.main.clone())?;
    line(main, signs.hall.step_ns)
}

/// The same by a trace's own bins, which are narrower than columns where the sensor is read often.
fn fine_line(signs: &Signs, trace: &Trace) -> Option<Line> {
    let hall = &signs.hall;
    let from_ns = *hall.at_ns.get(hall.main.start)?;
    let to_ns = hall.at_ns.get(hall.main.end.checked_sub(1)?)? + hall.step_ns;
    let bins = from_ns.div_ceil(trace.bin_ns())..to_ns / trace.bin_ns();
    let mean = |bin: &Bin| bin.mean().unwrap_or(f64::NAN);
    let all = trace.bins();
    let main = all.iter().take(bins.end as usize).map(mean);
    let main: Row = main.skip(bins.start as usize).collect();
    line(&main, trace.bin_ns())
}

/// The strongest line in the band of controls; short holes are bridged.
fn line(main: &[f64], step_ns: u64) -> Option<Line> {
    let mut last = main.iter().copied().find(|v| v.is_finite())?;
    let filled: Vec<f64> = main
        .iter()
        .map(|v| {
            last = if v.is_finite() { *v } else { last };
            last
        })
        .collect();
    let found = spectrum(&filled, step_ns as f64 / 1e9)?;
    found.line(1.0 / HUNTING_S.1, 1.0 / HUNTING_S.0)
}

/// Supply below the dew point, or below the margin that the profile asks for.
fn dew(signs: &Signs) -> Vec<Diagnosis> {
    let standing = signs.hall.standing;
    let asked = standing.profile().criteria.iter();
    let asked = asked
        .filter(|c| c.metric == Metric::DewMargin && c.relative_to == Reference::Absolute)
        .filter_map(|c| c.at_least?.in_unit(Unit::Kelvin).ok());
    let limit = asked.fold(0.0, f64::max);
    let of = |meter: Meter| {
        let low = |w: &[f64]| w.iter().all(|v| *v < limit);
        let at = meter.row.windows(2).position(low)?;
        let least = meter
            .row
            .iter()
            .copied()
            .filter(|v| v.is_finite())
            .reduce(f64::min)?;
        let what = format!(
            "dew margin {}, limit {}",
            human(least, Unit::Kelvin),
            human(limit, Unit::Kelvin)
        );
        let size = Size {
            value: least,
            low: least,
            high: least,
            unit: Unit::Kelvin,
        };
        let evidence = vec![Sign::new(Metric::DewMargin, what).sized(Some(size))];
        let one = Diagnosis::new(Cause::DewPoint, meter.place, 0.0, (0, 0), evidence);
        Some(one.since(signs.hall.at_ns.get(at).copied()))
    };
    let meters = signs.hall.meters(Metric::DewMargin);
    meters.into_iter().filter_map(of).collect()
}

fn throttled(signs: &Signs) -> Vec<Diagnosis> {
    let affected = signs.devices(|d| signs.thermal[d].is_some());
    let places = signs
        .hall
        .groups
        .explain(&affected, |d| signs.heat.has(d), &LIQUID);
    let one = |place: Place| {
        let devices = &place.devices;
        let own = devices.iter().filter_map(|d| signs.thermal[*d as usize]);
        let onset_ns = own.clone().map(|r| r.onset_ns).min();
        let share = own.map(|r| r.share).fold(0.0, f64::max);
        let what = format!(
            "held down for heat up to {} of the time{}",
            human(100.0 * share, Unit::Percent),
            on(devices)
        );
        let mut evidence = vec![Sign::new(Metric::ThrottleFrac, what)];
        let heat = signs.heat.together(devices);
        let clock = signs.clock.together(devices);
        let checks = (
            usize::from(heat.is_some()) + usize::from(clock.is_some()),
            2,
        );
        evidence.extend(heat.map(|d| moved(Metric::TempCore, "core temperature", &d)));
        evidence.extend(clock.map(|d| moved(Metric::ClockSm, "core clock", &d)));
        Diagnosis::new(Cause::ThermalThrottle, place, 0.0, checks, evidence).since(onset_ns)
    };
    places.into_iter().map(one).collect()
}
