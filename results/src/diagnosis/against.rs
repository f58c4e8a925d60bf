//! What readings show against each other: scaled, unreconciled, old, and by which clock they were read.
//!
//! Refuses to call a meter wrong that moves with what it feeds, and to say which of two nodes' clocks is off.

use super::departure::{Departure, Measure, Rule, field, step_of};
use super::hall::{Hall, Row};
use super::place::{Level, Place};
use super::sensor::late;
use super::signs::{Signs, moved};
use super::{Cause, Diagnosis, Sign, Size};
use crate::plan::SegmentKind;
use crate::standing::TableRun;
use crate::standing::window::Window;
use crate::stats::lag::lag;
use crate::stats::outlier::{median, medians_of_others};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};

/// Age of a reading that is no news, s: twice the longest gap that a node's telemetry may have.
const AGE_S: f64 = 5.0;
/// A factor that a meter's accuracy class does not allow.
const SCALE: f64 = 0.025;
/// Rate and clock that stay within this belong to the true power, not to the one read.
const FLAT: f64 = 0.02;
/// Balances, the step of each that counts, and how uneven it may be all the time, %. Source of the latter: METRICS.md.
const BALANCES: [(Metric, f64, f64); 2] = [
    (Metric::PowerRecon, 2.5, 3.0),
    (Metric::HeatBalance, 5.0, 7.0),
];
/// Steps within so many columns are one step.
const AT_ONCE: u64 = 8;
/// Power that falls by this much while as much work is done.
const SHORTCUT: f64 = 0.1;
/// A node whose readings come before or after the others' by this share of a bin and this time.
const LAG_BINS: f64 = 0.3;
const LAG_S: f64 = 0.1;
/// Two readings of a sensor are at most so many periods apart.
const DITHERED: f64 = 1.2;
const LAG_MOST: usize = 8;
const LAG_ALIKE: f64 = 0.8;

/// What the readings show against each other: factors, lags, ages.
pub fn phases(signs: &Signs) -> Vec<Diagnosis> {
    let mut found = powers(signs);
    found.extend(meters(signs));
    found.extend(aged(signs));
    found.extend(skewed(signs));
    found
}

const UP: Rule = Rule {
    measure: Measure::Ratio,
    unit: Unit::One,
    sign: 1.0,
    step: SCALE,
    level: 0.3,
    group: 0.3,
    climb: None,
    rare: false,
};
const DOWN: Rule = Rule { sign: -1.0, ..UP };

/// Median of the excess over the main phase since an instant less that before it; what stays the same stays within
/// `FLAT`.
fn change(hall: &Hall, row: Option<&Option<Row>>, onset_ns: u64) -> Option<f64> {
    let row = row?.as_ref()?.get(hall.main.clone())?;
    let at_ns = hall.at_ns.get(hall.main.clone())?;
    let side = |after: bool| {
        let own = row
            .iter()
            .zip(at_ns)
            .filter(|(v, at)| v.is_finite() && (**at >= onset_ns) == after);
        median(&own.map(|(v, _)| *v).collect::<Vec<_>>())
    };
    Some(side(true)? - side(false)?)
}

/// A device's power that steps while rate and clock do not: a scaled sensor where its heat stays, less work where
/// its heat goes with it.
fn powers(signs: &Signs) -> Vec<Diagnosis> {
    let hall = &signs.hall;
    let mut found = Vec::new();
    for rule in [UP, DOWN] {
        let watts = hall.gauge(Metric::PowerDraw, |_| true);
        let power = field(hall, watts, rule);
        for device in power.affected() {
            let Some(step) = power.at(device) else {
                continue;
            };
            let Some(onset_ns) = step.onset_ns else {
                continue;
            };
            let of = |row| change(hall, row, onset_ns);
            let rate = of(signs.rate.excess.get(device)).unwrap_or(0.0);
            let clock = of(signs.clock.excess.get(device)).unwrap_or(0.0);
            let heat = of(signs.heat.excess.get(device));
            if rate.abs() > FLAT || clock.abs() > FLAT || signs.brake[device].is_some() {
                continue;
            }
            // About 25 K over the coolant at full power: a true change of power moves it by its share.
            let expected = 25.0 * step.size.value;
            let follows = heat.is_some_and(|h| h / expected > 0.5);
            let place = hall.groups.gpu(device);
            let lead = moved(Metric::PowerDraw, "power", &step);
            let flat = Sign::new(Metric::KernelRate, "rate and clock normal");
            let (cause, told) = match (follows, heat) {
                (true, _) if step.size.value <= -SHORTCUT => (
                    Cause::ShortcutWork,
                    Sign::new(Metric::TempCore, "cooler with it"),
                ),
                (false, Some(_)) => (
                    Cause::SensorScaled,
                    Sign::new(Metric::TempCore, "temperature as before"),
                ),
                _ => continue,
            };
            let one = Diagnosis::new(cause, place, step.p, (2, 2), vec![lead, flat, told]);
            found.push(one.since(step.onset_ns));
        }
    }
    found
}

/// Whether some device behind a meter is gone: its node's meter is gone with it.
fn has_lost(hall: &Hall, place: &Place) -> bool {
    let runs = hall.standing.devices();
    let lost = |d: &u32| runs.get(*d as usize).is_none_or(|r| !r.faults.is_empty());
    place.devices.iter().any(lost)
}

/// Meters against the sum of what they feed, and the balances that the hall's own meters give.
fn meters(signs: &Signs) -> Vec<Diagnosis> {
    let hall = &signs.hall;
    let watts = hall.gauge(Metric::PowerDraw, |_| true);
    let mut found = Vec::new();
    for meter in hall.meters(Metric::PowerDraw) {
        let own: Vec<&Row> = meter
            .place
            .devices
            .iter()
            .filter_map(|d| watts.get(*d as usize)?.as_ref())
            .collect();
        let short = own.is_empty() || own.len() < meter.place.devices.len();
        if short || has_lost(hall, &meter.place) {
            continue;
        }
        let columns = 0..meter.row.len();
        let sum: Row = columns
            .map(|column| own.iter().map(|r| r[column]).sum())
            .collect();
        let share: Row = meter.row.iter().zip(&sum).map(|(m, s)| m / s).collect();
        // A meter holds what does not follow the devices as well (fans, hosts), so its share moves with their power.
        let moves = [UP, DOWN].into_iter().find_map(|r| step_of(hall, &sum, r));
        let at_once = |step: &Departure| {
            let apart = moves
                .as_ref()
                .and_then(|m| Some((m.onset_ns?, step.onset_ns?)));
            apart.is_some_and(|(m, s)| m.abs_diff(s) <= AT_ONCE.saturating_mul(hall.step_ns))
        };
        for rule in [UP, DOWN] {
            if let Some(step) = step_of(hall, &share, rule).filter(|s| !at_once(s)) {
                let what = "meter over the sum of its devices";
                let evidence = vec![moved(Metric::PowerRecon, what, &step)];
                let place = meter.place.clone();
                let one = Diagnosis::new(Cause::SensorScaled, place, step.p, (1, 1), evidence);
                found.push(one.since(step.onset_ns));
            }
        }
    }
    found.extend(balances(signs));
    found
}

/// Balances that the hall's own meters give: one that jumps, or that never was even.
fn balances(signs: &Signs) -> Vec<Diagnosis> {
    let hall = &signs.hall;
    let mut found = Vec::new();
    for (metric, least, most) in BALANCES {
        for meter in hall.meters(metric) {
            if has_lost(hall, &meter.place) {
                continue;
            }
            let rule = |sign| Rule {
                measure: Measure::Difference,
                unit: Unit::Percent,
                step: least,
                sign,
                ..UP
            };
            let name = metric.id().replace('_', " ");
            let step = [1.0, -1.0]
                .into_iter()
                .find_map(|s| step_of(hall, &meter.row, rule(s)));
            let main = meter.row.get(hall.main.clone()).unwrap_or_default();
            let main: Vec<f64> = main.iter().copied().filter(|v| v.is_finite()).collect();
            let level = median(&main).filter(|l| l.abs() >= most);
            let (sign, p, onset_ns) = match (step, level) {
                (Some(step), _) => (moved(metric, &name, &step), step.p, step.onset_ns),
                (None, Some(level)) => {
                    let told = format!("{name} {}", human(level, Unit::Percent));
                    (Sign::new(metric, told), 0.0, None)
                }
                (None, None) => continue,
            };
            let place = meter.place;
            let one = Diagnosis::new(Cause::SensorScaled, place, p, (0, 1), vec![sign]);
            found.push(one.since(onset_ns));
        }
    }
    found
}

/// Sensors whose newest reading is old.
fn aged(signs: &Signs) -> Vec<Diagnosis> {
    let hall = &signs.hall;
    let of = |(run, column): (&TableRun, usize)| {
        let row = hall.row(&run.traces[column]);
        let at = row.windows(2).position(|w| w.iter().all(|v| *v > AGE_S))?;
        let most = row
            .iter()
            .copied()
            .filter(|v| v.is_finite())
            .fold(0.0, f64::max);
        let place = match run.table.device {
            Some(device) => hall.groups.gpu(device as usize),
            None => hall.groups.of_meter(&run.table.place),
        };
        let what = format!("readings up to {} old", human(most, Unit::Second));
        let evidence = vec![Sign::new(Metric::TelemetryAge, what)];
        let one = Diagnosis::new(Cause::SensorStale, place, 0.0, (0, 0), evidence);
        Some(one.since(hall.at_ns.get(at).copied()))
    };
    hall.columns(Metric::TelemetryAge).filter_map(of).collect()
}

/// Nodes whose power comes before or after the other nodes' by one lag, where the bins are fine enough.
fn skewed(signs: &Signs) -> Vec<Diagnosis> {
    let hall = &signs.hall;
    let nodes = hall.groups.all().iter().filter(|g| g.level == Level::Node);
    let mut courses: Vec<(&super::place::Group, Row, u64)> = Vec::new();
    for node in nodes {
        let own = powers_of(hall, &node.devices);
        let Some(bin_ns) = own.iter().map(|(t, c)| width_ns(t, *c)).max() else {
            continue;
        };
        courses.push((node, total(&own, bin_ns), bin_ns));
    }
    let Some(bin_ns) = courses.iter().map(|c| c.2).max() else {
        return Vec::new();
    };
    courses.retain(|c| c.2 == bin_ns);
    // From the first judged phase to the last, which all begin together; a ramp begins by groups.
    let phases = hall.standing.windows().iter();
    let phases = phases.filter(|w| matches!(w.kind, SegmentKind::Phase(_)));
    let from_ns = phases.clone().map(|w| w.start_ns).min().unwrap_or(0);
    let end_ns = |w: &Window| w.end_ns.unwrap_or_else(|| hall.standing.last_ns());
    let to_ns = phases.map(end_ns).max().unwrap_or(0);
    let shortest = courses.iter().map(|c| c.1.len()).min().unwrap_or(0);
    let length = shortest.min((to_ns / bin_ns) as usize);
    let first = (from_ns.div_ceil(bin_ns) as usize).min(length);
    let mut others: Vec<Row> = vec![Row::new(); courses.len()];
    for bin in first..length {
        let all: Vec<f64> = courses.iter().map(|c| c.1[bin]).collect();
        for (course, rest) in others.iter_mut().zip(medians_of_others(&all)) {
            course.push(rest.unwrap_or(f64::NAN));
        }
    }
    let of = |index: usize| {
        let (node, own, _) = &courses[index];
        let found = lag(&others[index], own.get(first..length)?, LAG_MOST)?;
        let lag_s = found.steps * bin_ns as f64 / 1e9;
        let clear = found.steps.abs() >= LAG_BINS && lag_s.abs() >= LAG_S;
        (clear && found.correlation >= LAG_ALIKE).then(|| {
            let size = Size {
                value: lag_s,
                low: lag_s,
                high: lag_s,
                unit: Unit::Second,
            };
            let way = if lag_s > 0.0 { "after" } else { "before" };
            let what = format!(
                "power comes {} {way} the other nodes'",
                human(lag_s.abs(), Unit::Second)
            );
            let evidence = vec![Sign::new(Metric::ClockOffset, what).sized(Some(size))];
            let place = if node.devices.len() == 1 {
                hall.groups.gpu(node.devices[0])
            } else {
                node.place()
            };
            Diagnosis::new(
                Cause::ClockSkew,
                place,
                1.0 - found.correlation,
                (1, 1),
                evidence,
            )
        })
    };
    // Two nodes cannot say which of them is off.
    if courses.len() < 3 {
        return Vec::new();
    }
    (0..courses.len()).filter_map(of).collect()
}

/// The powers by which a node's clock is told: one that is late by itself says nothing of it, all of a node's do.
fn powers_of<'a>(hall: &Hall<'a>, devices: &[usize]) -> Vec<(&'a TableRun, usize)> {
    let own = hall.columns(Metric::PowerDraw);
    let is = |device: u32| devices.contains(&(device as usize));
    let own: Vec<_> = own
        .filter(|(t, _)| t.table.device.is_some_and(is))
        .collect();
    let is_well = |(run, column): &(&TableRun, usize)| late(hall.standing, run, *column).is_none();
    let well: Vec<_> = own.iter().copied().filter(is_well).collect();
    if 2 * well.len() > own.len() {
        well
    } else {
        own
    }
}

/// Width of bins of which none is a hole only since a sensor is read less often.
fn width_ns(run: &TableRun, column: usize) -> u64 {
    let mut width_ns = run.traces[column].bin_ns().max(1);
    while (width_ns as f64) < DITHERED * run.table.period_ns as f64 {
        width_ns *= 2;
    }
    width_ns
}

/// Sum of several traces in bins of one width; a hole in one is a hole in all.
fn total(own: &[(&TableRun, usize)], bin_ns: u64) -> Row {
    let rows = own.iter().map(|(run, column)| {
        let trace = &run.traces[*column];
        let factor = (bin_ns / trace.bin_ns()).max(1) as usize;
        let mean = |bins: &[crate::trace::Bin]| {
            let (sum, count) = bins
                .iter()
                .fold((0.0, 0), |(s, n), b| (s + b.sum, n + b.count));
            if count == 0 {
                f64::NAN
            } else {
                sum / count as f64
            }
        };
        trace.bins().chunks(factor).map(mean).collect::<Row>()
    });
    rows.reduce(|mut a, b| {
        a.truncate(b.len());
        a.iter_mut().zip(b).for_each(|(x, y)| *x += y);
        a
    })
    .unwrap_or_default()
}
