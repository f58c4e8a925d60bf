//! The devices' own work: slow from the start, slower by a step, drifting, slow memory, a host that is late.
//!
//! A rate that goes with its clock is the clock's matter, and heat or power that explains it is named in its place;
//! the throughput gate stays raw either way.

use super::departure::{Form, Measure, Rule, field};
use super::hall::Row;
use super::place::{Level, Place};
use super::signs::{CLOCK, MEMORY, Signs, moved, on};
use super::{Cause, Diagnosis, Sign};
use crate::stats::outlier::median;
use crate::stats::regression::robust;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::Unit;

/// Devices that a fit over the hall needs: two conditions and room to spare.
const FIT_MIN: usize = 12;
/// Of a rate's shortfall so much must be left after the fit for the device itself to be slow.
const UNEXPLAINED: f64 = 0.5;
/// A host is late when its steps are outside kernels longer than its peers' by this share, and by this time.
const LATE_SHARE: f64 = 0.2;
const LATE_S: f64 = 10e-6;

const HOSTS: [Level; 2] = [Level::Node, Level::Tray];

/// `known`: what heat and power already explain.
pub fn all(signs: &Signs, known: &[Diagnosis]) -> Vec<Diagnosis> {
    let mut found = slow(signs, known);
    found.extend(memory(signs));
    found.extend(late(signs));
    found
}

fn slow(signs: &Signs, known: &[Diagnosis]) -> Vec<Diagnosis> {
    let left = unexplained(signs);
    let of = |device: usize| {
        let place = signs.hall.groups.gpu(device);
        let slower = |c: Cause| {
            matches!(
                c,
                Cause::ThermalThrottle
                    | Cause::PowerBrake
                    | Cause::PowerCap
                    | Cause::RackCap
                    | Cause::DeviceLost
                    | Cause::FeedLoss
            )
        };
        if known
            .iter()
            .any(|d| slower(d.cause) && place.is_within(&d.place))
        {
            return None;
        }
        let raw = signs.rate.at(device)?;
        let own = signs.own_rate.at(device);
        let clock = signs.clock.at(device);
        let lead = own.or(clock).unwrap_or(raw);
        let unlike = lead.form == Form::FromStart && !left[device];
        if own.is_none() && clock.is_none() || unlike {
            return None;
        }
        let cause = if lead.form == Form::Climb {
            Cause::SlowDrift
        } else {
            Cause::SlowSilicon
        };
        let cool = signs.heat.at(device).is_none();
        let uncapped = signs.power.at(device).is_none();
        let mut evidence = vec![moved(Metric::KernelRate, "rate while computing", &raw)];
        evidence.extend(clock.map(|c| moved(Metric::ClockSm, "core clock", &c)));
        if clock.is_none() && signs.clock.has(device) {
            evidence.push(Sign::new(Metric::ClockSm, "clock like its peers'"));
        }
        let told = [
            cool && signs.heat.has(device),
            uncapped && signs.power.has(device),
            clock.is_none() && signs.clock.has(device),
        ];
        let there = told.iter().filter(|t| **t).count();
        let one = Diagnosis::new(cause, place, lead.p, (there, 3), evidence);
        Some(one.since(lead.onset_ns))
    };
    let slow = signs.rate.affected().into_iter();
    slow.filter_map(of).collect()
}

/// Whether most of a device's shortfall from the start is its own, after a robust fit of rate on temperature and clock.
fn unexplained(signs: &Signs) -> Vec<bool> {
    let level = |row: Option<&Option<Row>>| {
        let row = row?.as_ref()?;
        let tail: Vec<f64> = row
            .iter()
            .rev()
            .copied()
            .filter(|v| v.is_finite())
            .take(64)
            .collect();
        median(&tail)
    };
    let row = |device: usize| {
        let rate = level(signs.own_rate.excess.get(device))?;
        let heat = level(signs.heat.excess.get(device))?;
        let clock = level(signs.clock.excess.get(device))?;
        Some((vec![heat, clock], rate))
    };
    let rows: Vec<Option<(Vec<f64>, f64)>> = (0..signs.hall.devices).map(row).collect();
    let known: Vec<(Vec<f64>, f64)> = rows.iter().flatten().cloned().collect();
    let mut all = vec![true; signs.hall.devices];
    if known.len() < FIT_MIN {
        return all;
    }
    if let Some(fit) = robust(&known) {
        let fitted = rows
            .iter()
            .enumerate()
            .filter_map(|(d, r)| Some((d, r.as_ref()?.1)));
        for ((device, short), residual) in fitted.zip(&fit.residuals) {
            // What the clock took is left out of `short`; a clock that fell for no known reason is the device's own.
            let own = signs.clock.at(device).is_some();
            all[device] = own || *residual <= UNEXPLAINED * short.min(0.0);
        }
    }
    all
}

fn memory(signs: &Signs) -> Vec<Diagnosis> {
    let hall = &signs.hall;
    let rate = field(hall, hall.memory_rates(), MEMORY);
    let clock = field(hall, hall.gauge(Metric::ClockMemory, |_| true), CLOCK);
    let heat = field(
        hall,
        hall.gauge(Metric::TempMemory, |_| true),
        super::signs::HEAT,
    );
    let is = |d: usize| {
        let slower = rate.at(d).is_some() || clock.at(d).is_some();
        slower && signs.clock.at(d).is_none() && signs.brake[d].is_none()
    };
    let affected = signs.devices(is);
    let looked = |d: usize| rate.has(d) || clock.has(d);
    let places = hall.groups.explain(&affected, looked, &HOSTS);
    let one = |place: Place| {
        let devices = &place.devices;
        let (rate, clock) = (rate.together(devices), clock.together(devices));
        let lead = rate.or(clock)?;
        let heat = heat.together(devices);
        let flat = signs.heat.together(devices).is_none();
        let mut evidence = Vec::new();
        evidence.extend(
            rate.map(|d| moved(Metric::HbmRate, &format!("memory rate{}", on(devices)), &d)),
        );
        evidence.extend(clock.map(|d| moved(Metric::ClockMemory, "memory clock", &d)));
        evidence.extend(heat.map(|d| moved(Metric::TempMemory, "memory temperature", &d)));
        if flat {
            evidence.push(Sign::new(Metric::TempCore, "core temperature normal"));
        }
        // A rate was measured; a clock alone says less, and heat would say why.
        let told = match rate {
            Some(_) => (usize::from(flat), 1),
            None => (usize::from(flat) + usize::from(heat.is_some()), 2),
        };
        let one = Diagnosis::new(Cause::MemoryThrottle, place, lead.p, told, evidence);
        Some(one.since(lead.onset_ns))
    };
    places.into_iter().filter_map(one).collect()
}

/// Steps that are outside kernels longer than the peers', while computing goes at the usual rate.
fn late(signs: &Signs) -> Vec<Diagnosis> {
    let hall = &signs.hall;
    let rows = by_host(signs);
    let usual: Vec<f64> = rows
        .iter()
        .flatten()
        .filter_map(|r| {
            median(
                &r.iter()
                    .copied()
                    .filter(|v| v.is_finite())
                    .collect::<Vec<_>>(),
            )
        })
        .collect();
    let Some(usual) = median(&usual) else {
        return Vec::new();
    };
    let least = (LATE_SHARE * usual).max(LATE_S);
    let rule = Rule {
        measure: Measure::Difference,
        unit: Unit::Second,
        sign: 1.0,
        step: least,
        level: 2.0 * least,
        group: least,
        climb: None,
        rare: true,
    };
    let outside = field(hall, rows, rule);
    let is = |d: usize| outside.at(d).is_some() && signs.rate.at(d).is_none();
    let affected = signs.devices(is);
    let places = hall.groups.explain(&affected, |d| outside.has(d), &HOSTS);
    let one = |place: Place| {
        let late = outside.together(&place.devices)?;
        let evidence = vec![
            moved(Metric::IdleGap, "time outside kernels", &late),
            Sign::new(Metric::KernelRate, "rate while computing normal"),
        ];
        let whole = place.level == Level::Node || place.devices.len() == 1;
        let one = Diagnosis::new(
            Cause::HostJitter,
            on_host(signs, place),
            late.p,
            (usize::from(whole), 1),
            evidence,
        );
        Some(one.since(late.onset_ns))
    };
    places.into_iter().filter_map(one).collect()
}

/// The time of a step outside kernels, the mean of a host's devices for each of them: they share what makes them late.
fn by_host(signs: &Signs) -> Vec<Option<Row>> {
    let mut rows = signs.hall.outside();
    let nodes = signs
        .hall
        .groups
        .all()
        .iter()
        .filter(|g| g.level == Level::Node);
    for node in nodes {
        let own: Vec<Row> = node
            .devices
            .iter()
            .filter_map(|d| rows[*d].clone())
            .collect();
        let mean = |column: usize| {
            let there = own.iter().map(|r| r[column]).filter(|v| v.is_finite());
            let (sum, count) = there.fold((0.0, 0), |(s, n), v| (s + v, n + 1));
            if count == 0 {
                f64::NAN
            } else {
                sum / f64::from(count)
            }
        };
        let mean: Row = (0..signs.hall.at_ns.len()).map(mean).collect();
        for device in &node.devices {
            rows[*device] = Some(mean.clone());
        }
    }
    rows
}

/// A node of one device is named as the node: the host is at fault, not the device.
fn on_host(signs: &Signs, place: Place) -> Place {
    let only = place.devices.first().filter(|_| place.devices.len() == 1);
    let node = only.and_then(|d| signs.hall.groups.node_of(*d as usize));
    match node.filter(|n| n.devices.len() == 1) {
        Some(node) => node.place(),
        None => place,
    }
}
