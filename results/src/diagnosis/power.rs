//! Power: brakes, caps on a node or a rack, swings of a feeder.
//!
//! A device that draws less because it is held down for heat, or works less, is not capped. Refuses to call a cap
//! what all devices show alike from the start: a software cap at the rated limit is how a full load looks.

use super::departure::{Measure, Rule, step_of};
use super::hall::Meter;
use super::place::{Level, Place};
use super::signs::{Signs, moved, on};
use super::{Cause, Diagnosis, Sign, Size};
use crate::plan::SegmentKind;
use crate::standing::TableRun;
use crate::stats::outlier::median;
use crate::stats::spectrum::spectrum;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};

const WIRED: [Level; 4] = [Level::Node, Level::Tray, Level::Rack, Level::Feeder];
/// A clock that falls by so much in one step is braked, whatever the reasons say.
const BRAKE: f64 = 0.3;
/// A swing's amplitude over the mean that counts, and the share of variance in the band that does.
const SWING: f64 = 0.05;
const SWING_P: f64 = 1e-6;
const BAND: f64 = 0.2;
/// Frequencies that grids and generators mind, Hz. Source: arXiv 2508.14318.
const BAND_HZ: (f64, f64) = (0.1, 20.0);
/// Range within a column over its mean: a step of it, where bins are too wide for a spectrum.
const RANGE_STEP: f64 = 0.1;
/// Values of one stretch looked at for a line.
const STRETCH: usize = 1_024;

const UP: Rule = Rule {
    measure: Measure::Difference,
    unit: Unit::One,
    sign: 1.0,
    step: BAND,
    level: 1.0,
    group: 1.0,
    climb: None,
    rare: false,
};

pub fn all(signs: &Signs) -> Vec<Diagnosis> {
    let braked = signs.devices(|d| is_braked(signs, d));
    let mut found = brakes(signs, &braked);
    found.extend(caps(signs, &braked));
    found.extend(swings(signs));
    found
}

fn is_braked(signs: &Signs, device: usize) -> bool {
    let fell = signs
        .clock
        .at(device)
        .is_some_and(|c| -c.size.value >= BRAKE);
    let hot = signs.thermal[device].is_some() || signs.heat.at(device).is_some();
    signs.brake[device].is_some() || fell && !hot
}

fn brakes(signs: &Signs, braked: &[usize]) -> Vec<Diagnosis> {
    let looked = |d: usize| signs.clock.has(d) || signs.power.has(d);
    let places = signs.hall.groups.explain(braked, looked, &WIRED);
    let one = |place: Place| {
        let devices = &place.devices;
        let told = devices.iter().filter_map(|d| signs.brake[*d as usize]);
        let share = told.clone().map(|r| r.share).fold(0.0, f64::max);
        let clock = signs.clock.together(devices);
        let power = signs.power.together(devices);
        let onset_ns = told.map(|r| r.onset_ns).min();
        let onset_ns = onset_ns.or_else(|| clock.and_then(|c| c.onset_ns));
        let mut evidence = Vec::new();
        if share > 0.0 {
            let share = human(100.0 * share, Unit::Percent);
            let what = format!("power brake up to {share} of the time{}", on(devices));
            evidence.push(Sign::new(Metric::ThrottleFrac, what));
        }
        let checks = [share > 0.0, clock.is_some(), power.is_some()];
        let there = checks.iter().filter(|c| **c).count();
        evidence.extend(clock.map(|d| moved(Metric::ClockSm, "core clock", &d)));
        evidence.extend(power.map(|d| moved(Metric::PowerDraw, "power", &d)));
        let p = if share > 0.0 {
            0.0
        } else {
            clock.map_or(1.0, |c| c.p)
        };
        Diagnosis::new(Cause::PowerBrake, place, p, (there, 3), evidence).since(onset_ns)
    };
    places.into_iter().map(one).collect()
}

/// Power below its peers' or below what it was, with the clock or the rate, and not for heat.
fn caps(signs: &Signs, braked: &[usize]) -> Vec<Diagnosis> {
    let capped = field_of_caps(signs);
    let is = |d: usize| {
        let slower = signs.clock.at(d).is_some() || signs.rate.at(d).is_some();
        let cooler = signs.thermal[d].is_none() && signs.heat.at(d).is_none();
        signs.power.at(d).is_some() && slower && cooler && !braked.contains(&d)
    };
    let affected = signs.devices(is);
    let places = signs
        .hall
        .groups
        .explain(&affected, |d| signs.power.has(d), &WIRED);
    let meters = signs.hall.meters(Metric::RackDensity);
    let one = |place: Place| {
        let devices = &place.devices;
        let power = signs.power.together(devices)?;
        let clock = signs.clock.together(devices);
        let held = devices.iter().filter(|d| capped[**d as usize]).count() * 2 > devices.len();
        let rack = place.level >= Level::Rack;
        let flat = rack
            .then(|| signs.meter(&meters, devices))
            .flatten()
            .and_then(|m| step_of(&signs.hall, &m.row, fell(0.02)));
        let mut evidence = vec![moved(
            Metric::PowerDraw,
            &format!("power{}", on(devices)),
            &power,
        )];
        evidence.extend(clock.map(|d| moved(Metric::ClockSm, "core clock", &d)));
        if held {
            evidence.push(Sign::new(Metric::PowerCapFrac, "held at its power cap"));
        }
        evidence.extend(flat.map(|d| moved(Metric::RackDensity, "rack power", &d)));
        let checks = [clock.is_some(), held || flat.is_some()];
        let there = checks.iter().filter(|c| **c).count();
        let cause = if rack {
            Cause::RackCap
        } else {
            Cause::PowerCap
        };
        let one = Diagnosis::new(cause, place, power.p, (there, 2), evidence);
        Some(one.since(power.onset_ns))
    };
    places.into_iter().filter_map(one).collect()
}

const fn fell(step: f64) -> Rule {
    Rule {
        measure: Measure::Ratio,
        sign: -1.0,
        step,
        ..UP
    }
}

/// Devices that spend most of the end of the run under the software power cap.
fn field_of_caps(signs: &Signs) -> Vec<bool> {
    let rows = signs.hall.largest(Metric::PowerCapFrac, |_| true);
    let held = |row: Option<super::hall::Row>| {
        let row = row.unwrap_or_default();
        let tail: Vec<f64> = row
            .iter()
            .rev()
            .copied()
            .filter(|v| v.is_finite())
            .take(16)
            .collect();
        median(&tail).is_some_and(|share| share > 0.5)
    };
    rows.into_iter().map(held).collect()
}

/// Feeders and racks whose power swings while the load does not.
fn swings(signs: &Signs) -> Vec<Diagnosis> {
    let mut found = Vec::new();
    for meter in signs.hall.meters(Metric::BandEnergy) {
        found.extend(band(signs, meter));
    }
    for metric in [Metric::PowerInstant, Metric::PowerDraw] {
        for (run, column) in signs.hall.columns(metric) {
            let place = signs.hall.groups.of_meter(&run.table.place);
            if run.table.device.is_none() && place.level >= Level::Rack {
                let swing = line(signs, run, column, &place);
                found.extend(swing.or_else(|| range(signs, run, column, &place)));
            }
        }
    }
    found
}

fn band(signs: &Signs, meter: Meter) -> Option<Diagnosis> {
    let step = step_of(&signs.hall, &meter.row, UP)?;
    let what = "share of variance in 0.1–20 Hz";
    let evidence = vec![moved(Metric::BandEnergy, what, &step)];
    let one = Diagnosis::new(Cause::PowerSwing, meter.place, step.p, (1, 2), evidence);
    Some(one.since(step.onset_ns))
}

/// A line in the spectrum of a stretch without pulse, where the bins are fine enough to hold one.
fn line(signs: &Signs, run: &TableRun, column: usize, place: &Place) -> Option<Diagnosis> {
    let trace = &run.traces[column];
    let step_s = trace.bin_ns() as f64 / 1e9;
    let standing = signs.hall.standing;
    let schedule = &standing.opened().plan.schedule;
    for window in standing.windows() {
        let pulse = schedule
            .get(window.segment as usize)
            .is_some_and(|s| s.pulse.is_some());
        if pulse || !matches!(window.kind, SegmentKind::Phase(_)) {
            continue;
        }
        let end_ns = window.end_ns.unwrap_or_else(|| standing.last_ns());
        let from = window.start_ns.div_ceil(trace.bin_ns()) as usize;
        let all = trace.bins();
        let to = ((end_ns / trace.bin_ns()) as usize).min(all.len());
        let bins = all.get(from..to).unwrap_or(&[]);
        // The latest stretch: a swing that has begun goes on.
        let bins = &bins[bins.len().saturating_sub(STRETCH)..];
        let Some(values) = bins
            .iter()
            .map(crate::trace::Bin::mean)
            .collect::<Option<Vec<f64>>>()
        else {
            continue;
        };
        let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
        let found = spectrum(&values, step_s).and_then(|s| s.line(BAND_HZ.0, BAND_HZ.1));
        let found = found.filter(|l| l.p < SWING_P && l.amplitude >= SWING * mean);
        if let Some(line) = found {
            let depth = 2.0 * line.amplitude / mean;
            let what = format!(
                "power swings by {} peak to trough at {}",
                human(100.0 * depth, Unit::Percent),
                human(1.0 / line.period_s, Unit::Hertz)
            );
            let size = Size {
                value: depth,
                low: depth,
                high: depth,
                unit: Unit::One,
            };
            let sign = Sign::new(run.table.series[column].metric, what).sized(Some(size));
            let one = Diagnosis::new(Cause::PowerSwing, place.clone(), line.p, (1, 1), vec![sign]);
            return Some(one);
        }
    }
    None
}

/// The range within each column, which grew by a step.
fn range(signs: &Signs, run: &TableRun, column: usize, place: &Place) -> Option<Diagnosis> {
    let row = signs.hall.ranges(&run.traces[column]);
    let rule = Rule {
        step: RANGE_STEP,
        ..UP
    };
    let step = step_of(&signs.hall, &row, rule)?;
    let metric = run.table.series[column].metric;
    let evidence = vec![moved(metric, "range of power within seconds", &step)];
    let one = Diagnosis::new(Cause::PowerSwing, place.clone(), step.p, (0, 1), evidence);
    Some(one.since(step.onset_ns))
}
