//! One sensor by itself: stuck, stale, late, replayed, beyond what can be.
//!
//! A sensor's health is read from its own readings and its peers' alone, so that the judge can call what rests on
//! it thin. Refuses to call a reading stuck that rests as long as its peers' do.

use super::place::Groups;
use super::{Cause, Diagnosis, Sign};
use crate::frame::SeriesKind;
use crate::standing::window::Window;
use crate::standing::{Standing, TableRun};
use crate::verdict::limits;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};

/// A reading rests for at least so long, so many periods, so many times as long as its peers', and as the twentieth of
/// them that rests longest; longer where it moved on afterwards under the same load, as a slow quantity between two digits does.
const STUCK_NS: u64 = 30_000_000_000;
const STUCK_PERIODS: u64 = 30;
const STUCK_PEERS: f64 = 10.0;
const STUCK_LONGEST: f64 = 2.0;
const STUCK_AND_GOES_ON: f64 = 4.0;
/// A reading that moves less often than its peers' by this factor is told again and again.
const STALE_MOVES: f64 = 0.3;
const STALE_LEAST: f64 = 0.5;
const STALE_SEEN: u64 = 100;
/// A power whose load moves it by this share, and its peers' by half to twice that, and which rests for so long, and for so
/// many periods, longer than theirs, is told late.
const FOLLOWS: f64 = 0.05;
const FOLLOWS_ALIKE: std::ops::Range<f64> = 0.5..2.0;
/// Beyond these a device goes idle, or comes from there, whatever caps its power.
const ALL: std::ops::Range<f64> = -0.6..1.5;
const LATE_S: f64 = 3.0;
const LATE_PERIODS: f64 = 3.0;
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
    let found = stuck(standing, run, column).or_else(|| stale(standing, run, column));
    found.or_else(|| late(standing, run, column))
}

/// A power that follows its device's load later than its peers' powers follow theirs.
pub(super) fn late(standing: &Standing, run: &TableRun, column: usize) -> Option<Ill> {
    let (device, series) = (run.table.device?, &run.table.series[column]);
    let lost = !standing.devices().get(device as usize)?.faults.is_empty();
    let least_s = LATE_S.max(LATE_PERIODS * run.table.period_ns as f64 / 1e9);
    let of = |(index, window): (usize, &Window)| {
        let segment = standing
            .opened()
            .plan
            .schedule
            .get(window.segment as usize)?;
        if lost || segment.pulse.is_some() || !standing.is_changed(index, device) {
            return None;
        }
        let own = window.response(run.table.id, column as u32)?;
        let followed = own.follow()?;
        let (share, after_s) = standing.usual().follows(series, index, followed)?;
        let own = if FOLLOWS_ALIKE.contains(&(followed.share / share)) {
            followed
        } else {
            // Nothing but what makes a device idle, or idle no more, must show in its power.
            own.follow_by(share).filter(|_| !ALL.contains(&share))?
        };
        if share.abs() < FOLLOWS || !own.rested {
            return None;
        }
        // A device that begins late has its power late as well.
        let works = (device as usize) < segment.active;
        let begun_ns = window.devices.get(device as usize)?.first_start_ns();
        let begun_ns = if works { begun_ns? } else { window.start_ns };
        let begun_s = begun_ns.saturating_sub(window.start_ns) as f64 / 1e9;
        let late_s = own.after_s - after_s.max(begun_s);
        (late_s >= least_s).then(|| Ill {
            cause: Cause::SensorStale,
            onset_ns: window.start_ns,
            why: format!(
                "{} followed the load {} later than its peers'",
                series.metric,
                human(late_s, Unit::Second)
            ),
        })
    };
    standing.windows().iter().enumerate().find_map(of)
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
    let mut begins = standing.windows().iter().map(|w| w.start_ns);
    let times = if held.is_to_the_end() || begins.any(|at| from < at && at < to) {
        STUCK_LONGEST
    } else {
        STUCK_AND_GOES_ON
    };
    let least = (STUCK_PEERS * usual).max(times * longest);
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
