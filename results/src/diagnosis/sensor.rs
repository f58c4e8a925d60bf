//! The measurement itself: stuck, stale, replayed, scaled, out of step with the load, beyond what can be.
//!
//! A sensor's health is read from its own readings and its peers' alone, so that the judge can call what rests on
//! it thin. Refuses to call a reading stuck that rests as long as its peers' do.

use super::departure::{Departure, Measure, Rule, field, step_of};
use super::hall::{Hall, Row};
use super::place::{Groups, Level, Place};
use super::signs::{Signs, moved};
use super::{Cause, Diagnosis, Sign, Size};
use crate::frame::SeriesKind;
use crate::plan::SegmentKind;
use crate::standing::window::Window;
use crate::standing::{Standing, TableRun};
use crate::stats::lag::lag;
use crate::stats::outlier::{median, medians_of_others};
use crate::verdict::limits;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};

/// A reading rests for at least so long, so many periods, so many times as long as its peers', and as the twentieth of
/// them that rests longest.
const STUCK_NS: u64 = 30_000_000_000;
const STUCK_PERIODS: u64 = 30;
const STUCK_PEERS: f64 = 10.0;
const STUCK_LONGEST: f64 = 2.0;
/// A reading that moves less often than its peers' by this factor is told again and again.
const STALE_MOVES: f64 = 0.3;
const STALE_LEAST: f64 = 0.5;
const STALE_SEEN: u64 = 100;
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
const LAG_MOST: usize = 8;
const LAG_ALIKE: f64 = 0.8;
/// Readings that move whenever their device works.
pub const LIVELY: [Metric; 4] = [
    Metric::PowerDraw,
    Metric::PowerInstant,
    Metric::TempCore,
    Metric::TempMemory,
];

/// What is wrong with one series' sensor: cause, since when, in words.
pub struct Ill {
    pub cause: Cause,
    pub onset_ns: u64,
    pub why: String,
}

/// Whether the readings of one series are its own and of now.
pub fn ill(standing: &Standing, table: usize, column: usize) -> Option<Ill> {
    let run = standing.tables().get(table)?;
    let series = run.table.series.get(column)?;
    if let Some(again) = run.echoes.get(column)?.as_ref().and_then(|e| e.found()) {
        let why = format!(
            "{} readings came again digit for digit, {} later",
            series.metric, again.distance
        );
        return Some(Ill {
            cause: Cause::SensorReplayed,
            onset_ns: again.from_ns,
            why,
        });
    }
    if !LIVELY.contains(&series.metric) || series.kind != SeriesKind::Gauge {
        return None;
    }
    stuck(standing, run, column).or_else(|| stale(standing, run, column))
}

fn stuck(standing: &Standing, run: &TableRun, column: usize) -> Option<Ill> {
    let held = &run.held[column];
    let (from, to) = held.longest_ns;
    let least = STUCK_NS.max(STUCK_PERIODS.saturating_mul(run.table.period_ns));
    let length = to.saturating_sub(from);
    if length < least || run.table.device.is_none() {
        return None;
    }
    let (series, one) = (&run.table.series[column], Some(length as f64));
    let usual = standing.usual().rest_ns(series, one);
    // A slow quantity rests long where it lies between two digits: then some peers rest as long.
    let longest = standing.usual().rest_most_ns(series, one).unwrap_or(0.0);
    // A device that was lost has nothing to say any more.
    let lost = run
        .table
        .device
        .and_then(|d| standing.devices().get(d as usize));
    let lost = lost.is_some_and(|d| !d.faults.is_empty());
    let power = [Metric::PowerDraw, Metric::PowerInstant];
    let usual = match usual {
        Some(usual) => usual,
        None if power.contains(&run.table.series[column].metric) => 0.0,
        None => return None,
    };
    let least = (STUCK_PEERS * usual).max(STUCK_LONGEST * longest);
    (!lost && length as f64 >= least).then(|| Ill {
        cause: Cause::SensorStuck,
        onset_ns: from,
        why: format!(
            "{} stayed at {} for {}",
            run.table.series[column].metric,
            human(held.longest_value(), run.table.series[column].unit),
            human(length as f64 / 1e9, Unit::Second)
        ),
    })
}

fn stale(standing: &Standing, run: &TableRun, column: usize) -> Option<Ill> {
    let held = &run.held[column];
    let own = held.share_moved().filter(|_| held.seen >= STALE_SEEN)?;
    // No peer moves in more than all of its readings, and most sensors are well.
    if own >= STALE_MOVES {
        return None;
    }
    let series = &run.table.series[column];
    let one = run.table.device.map(|_| own);
    let usual = standing.usual().moves(series, one)?;
    // A slow quantity moves often or seldom by where it lies between two digits: then some peers move as seldom.
    let least = standing.usual().moves_least(series, one)?;
    let seldom = own < STALE_MOVES * usual && own < STALE_LEAST * least;
    (seldom && held.moved >= 3).then(|| Ill {
        cause: Cause::SensorStale,
        onset_ns: held.longest_ns.0,
        why: format!(
            "{} moved in {} of its readings, its peers' in {}",
            run.table.series[column].metric,
            human(100.0 * own, Unit::Percent),
            human(100.0 * usual, Unit::Percent)
        ),
    })
}

/// What the sensors' own readings show.
pub fn all(standing: &Standing) -> Vec<Diagnosis> {
    let groups = Groups::of(&standing.opened().plan.devices);
    let mut found = Vec::new();
    for (table, run) in standing.tables().iter().enumerate() {
        let place = match run.table.device {
            Some(device) => groups.gpu(device as usize),
            None => groups.of_meter(&run.table.place),
        };
        for column in 0..run.table.series.len() {
            if let Some(ill) = ill(standing, table, column) {
                let metric = run.table.series[column].metric;
                let evidence = vec![Sign::new(metric, ill.why)];
                let one = Diagnosis::new(ill.cause, place.clone(), 0.0, (0, 0), evidence);
                found.push(one.since(Some(ill.onset_ns)));
            }
        }
    }
    found.extend(impossible(standing, &groups));
    found
}

/// Devices that did more than their datasheet says they can.
fn impossible(standing: &Standing, groups: &Groups) -> Vec<Diagnosis> {
    let of = |device: usize| {
        let run = &standing.devices()[device];
        let peak = limits::sku_peak(standing, device)?;
        let spent: f64 = run.computing.rates().sum::<f64>() * run.computing.bin_ns() as f64 / 1e9;
        let rate = run.flop * 1e9 / Some(spent).filter(|ns| *ns > 0.0)?;
        (rate > peak).then(|| {
            let shown = |v| human(v, Unit::FlopPerSecond);
            let what = format!(
                "{} while computing, its datasheet {}",
                shown(rate),
                shown(peak)
            );
            let evidence = vec![Sign::new(Metric::KernelRate, what)];
            Diagnosis::new(
                Cause::ShortcutWork,
                groups.gpu(device),
                0.0,
                (0, 0),
                evidence,
            )
        })
    };
    (0..standing.devices().len()).filter_map(of).collect()
}

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
        let own = hall.columns(Metric::PowerDraw).filter(|(t, _)| {
            t.table
                .device
                .is_some_and(|d| node.devices.contains(&(d as usize)))
        });
        let own: Vec<(&TableRun, usize)> = own.collect();
        let Some(bin_ns) = own.iter().map(|(t, c)| t.traces[*c].bin_ns()).max() else {
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
