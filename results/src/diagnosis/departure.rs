//! Which devices depart from their peers, or from what they were: by how much, since when, and how surely.
//!
//! Each device is held against the median of its kind, bin by bin, so that whatever all share (load, weather)
//! cancels; a step that all make together is put back, so that a fault of the whole hall is not lost in it. Then a
//! level apart from the start, one step in time, and a steady climb are looked for. Refuses a level with fewer
//! than three peers, and anything where most of a course is missing.

use super::Size;
use super::hall::{Hall, Row};
use super::split::{BLOCKS, Block, blocks, level, split};
use crate::stats::interval::normal_quantile;
use crate::stats::multiplicity::benjamini_hochberg;
use crate::stats::outlier::{PEERS_MIN, SIGMA_PER_MAD, against_peers, mad, median};
use crate::stats::trend::trend;
use crate::verdict::CONFIDENCE;
use hallmark_profiles::units::Unit;

/// A step must stand so many standard errors out.
const STEP_Z: f64 = 6.0;
/// The same of what comes seldom, whose error is read from each side alone.
const STEP_Z_RARE: f64 = 5.0;
/// Share of false names among all devices named.
const FALSE_NAMES: f64 = 0.01;
/// Shortest course in which a climb is believed, ns: below, the hall may still be settling.
const CLIMB_NS: u64 = 2 * 3_600_000_000_000;
/// Share of a step that the device's own course must show.
const OWN: f64 = 0.25;
/// A step is the better account of a course where it leaves less than this share of what a line leaves.
const BETTER: f64 = 0.9;

/// How a departure is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Value / reference − 1.
    Ratio,
    /// Value − reference, in the values' unit.
    Difference,
}

/// What is looked for; sizes are positive, in the measure's unit.
#[derive(Clone, Copy)]
pub struct Rule {
    pub measure: Measure,
    /// Unit of a difference; a ratio is told in `Unit::One`.
    pub unit: Unit,
    /// +1: upwards, −1: downwards.
    pub sign: f64,
    /// Least step in time.
    pub step: f64,
    /// Least distance of one device from its peers, from the start.
    pub level: f64,
    /// Least distance of a whole group's median from the other groups', from the start.
    pub group: f64,
    /// Least climb over the whole course; `None`: none is looked for.
    pub climb: Option<f64>,
    /// Sum up blocks by their mean, where rare values are what is looked for.
    pub rare: bool,
}

/// How it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    FromStart,
    Step,
    Climb,
}

/// One device's departure, in the direction asked for.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    pub form: Form,
    /// Signed.
    pub size: Size,
    pub onset_ns: Option<u64>,
    /// Chance of it by noise, over all devices.
    pub p: f64,
}

/// A signal over the hall.
pub struct Field {
    /// Distance from the reference by device; `None` where the signal is not there.
    pub excess: Vec<Option<Row>>,
    pub departed: Vec<Option<Departure>>,
    /// Median course of all devices that have the signal.
    pub reference: Row,
}

impl Field {
    pub fn affected(&self) -> Vec<usize> {
        let found = self.departed.iter().enumerate();
        found.filter(|(_, d)| d.is_some()).map(|(i, _)| i).collect()
    }

    pub fn has(&self, device: usize) -> bool {
        self.excess.get(device).is_some_and(Option::is_some)
    }

    pub fn is_known(&self) -> bool {
        self.excess.iter().any(Option::is_some)
    }

    pub fn at(&self, device: usize) -> Option<Departure> {
        self.departed.get(device).copied().flatten()
    }

    /// Median of the departures of some devices, their smallest p and earliest onset.
    pub fn together(&self, devices: &[u32]) -> Option<Departure> {
        let own: Vec<Departure> = devices
            .iter()
            .filter_map(|d| self.at(*d as usize))
            .collect();
        let middle = |of: fn(&Size) -> f64| {
            let values: Vec<f64> = own.iter().map(|d| of(&d.size)).collect();
            median(&values)
        };
        let first = own.first()?;
        Some(Departure {
            size: Size {
                value: middle(|s| s.value)?,
                low: middle(|s| s.low)?,
                high: middle(|s| s.high)?,
                unit: first.size.unit,
            },
            onset_ns: own.iter().filter_map(|d| d.onset_ns).min(),
            p: own.iter().map(|d| d.p).fold(1.0, f64::min),
            form: first.form,
        })
    }

    /// Share of these devices that depart, of those that have the signal.
    pub fn share(&self, devices: &[u32]) -> f64 {
        let seen = devices.iter().filter(|d| self.has(**d as usize)).count();
        let hits = devices
            .iter()
            .filter(|d| self.at(**d as usize).is_some())
            .count();
        if seen == 0 {
            0.0
        } else {
            hits as f64 / seen as f64
        }
    }
}

/// Looks for departures in a signal of each device.
pub fn field(hall: &Hall, values: Vec<Option<Row>>, rule: Rule) -> Field {
    let columns = hall.at_ns.len();
    let kinds = hall.kinds.iter().copied().max().map_or(0, |k| k + 1);
    let mut excess: Vec<Option<Row>> = vec![None; values.len()];
    let mut reference = vec![f64::NAN; columns];
    let mut scorable = vec![false; values.len()];
    for kind in 0..kinds {
        let own: Vec<usize> = (0..values.len())
            .filter(|d| hall.kinds[*d] == kind && values[*d].is_some())
            .collect();
        let common = if own.len() > PEERS_MIN {
            middle_row(&values, &own, columns)
        } else {
            // Too few to be peers: each is held against what it was over the main phase.
            Vec::new()
        };
        let shift = common_step(hall, &common, rule);
        for device in own {
            let Some(row) = &values[device] else { continue };
            let base = if common.is_empty() {
                let main = &row[hall.main.clone()];
                let level = if hall.has_settled() {
                    settled(main)
                } else {
                    f64::NAN
                };
                vec![level; columns]
            } else {
                scorable[device] = true;
                common.clone()
            };
            excess[device] = Some(apart(hall, row, &base, rule.measure, shift));
        }
        if kind == 0 {
            reference = common;
        }
    }
    let mut departed = departures(hall, &excess, &scorable, rule);
    for (found, row) in departed.iter_mut().zip(&values) {
        let own = row
            .as_ref()
            .is_some_and(|r| found.is_none_or(|f| is_own(hall, r, &f, rule)));
        *found = found.filter(|_| own);
    }
    Field {
        excess,
        departed,
        reference,
    }
}

/// Whether the device itself moved when it departed from its peers: where half of them move, the other half departs
/// as well, the other way.
fn is_own(hall: &Hall, row: &[f64], departure: &Departure, rule: Rule) -> bool {
    let onset_ns = match (departure.form, departure.onset_ns) {
        (Form::Step, Some(onset_ns)) => onset_ns,
        _ => return true,
    };
    let main = hall.main.clone();
    let (times, row) = (&hall.at_ns[main.clone()], &row[main]);
    if !times.contains(&onset_ns) {
        return true;
    }
    let side = |after: bool| {
        let own = row.iter().zip(times);
        let own = own.filter(|(v, at)| v.is_finite() && (**at >= onset_ns) == after);
        level(&own.map(|(v, _)| *v).collect::<Vec<_>>(), rule.rare)
    };
    let (Some(before), Some(after)) = (side(false), side(true)) else {
        return true;
    };
    measured(after, before, rule.measure) * rule.sign >= OWN * departure.size.value.abs()
}

/// Median over devices, column by column.
fn middle_row(values: &[Option<Row>], own: &[usize], columns: usize) -> Row {
    let mut held = Vec::with_capacity(own.len());
    (0..columns)
        .map(|column| {
            held.clear();
            let of = own.iter().filter_map(|d| values[*d].as_ref());
            held.extend(of.map(|row| row[column]).filter(|v| v.is_finite()));
            if held.len() * 2 < own.len() || held.is_empty() {
                return f64::NAN;
            }
            let half = held.len() / 2;
            let (_, middle, _) = held.select_nth_unstable_by(half, f64::total_cmp);
            *middle
        })
        .collect()
}

/// Median of what is there; NaN where most is missing.
fn settled(row: &[f64]) -> f64 {
    let there: Vec<f64> = row.iter().copied().filter(|v| v.is_finite()).collect();
    if there.len() * 2 < row.len() {
        return f64::NAN;
    }
    median(&there).unwrap_or(f64::NAN)
}

fn least_z(rule: Rule) -> f64 {
    if rule.rare { STEP_Z_RARE } else { STEP_Z }
}

/// A step of all devices together within the main phase: its column and its size in the measure's unit.
fn common_step(hall: &Hall, common: &[f64], rule: Rule) -> Option<(usize, f64)> {
    let main = common
        .get(hall.main.clone())
        .filter(|_| hall.has_settled())?;
    let level = settled(main);
    let own: Row = common
        .iter()
        .map(|v| measured(*v, level, rule.measure))
        .collect();
    let found = split(&blocks(&own, &hall.main, rule.rare), rule.rare)?;
    let size = found.after - found.before;
    (size * rule.sign >= rule.step && found.z >= least_z(rule)).then_some((found.column, size))
}

fn measured(value: f64, base: f64, measure: Measure) -> f64 {
    match measure {
        Measure::Difference => value - base,
        Measure::Ratio if base.abs() > 0.0 => value / base - 1.0,
        Measure::Ratio => f64::NAN,
    }
}

fn apart(
    hall: &Hall,
    row: &[f64],
    base: &[f64],
    measure: Measure,
    shift: Option<(usize, f64)>,
) -> Row {
    let one = |(column, (value, base)): (usize, (&f64, &f64))| {
        let back = shift.filter(|(at, _)| column >= *at && hall.main.contains(&column));
        measured(*value, *base, measure) + back.map_or(0.0, |(_, size)| size)
    };
    row.iter().zip(base).enumerate().map(one).collect()
}

/// Steps first, then climbs, then levels: what changed says more than what was always so.
fn departures(
    hall: &Hall,
    excess: &[Option<Row>],
    scorable: &[bool],
    rule: Rule,
) -> Vec<Option<Departure>> {
    let phase = hall.told_in(excess.iter().flatten());
    let all: Vec<Vec<Block>> = excess
        .iter()
        .map(|row| {
            row.as_ref()
                .map_or_else(Vec::new, |r| blocks(r, &phase, rule.rare))
        })
        .collect();
    let levels: Vec<Option<f64>> = all
        .iter()
        .zip(scorable)
        .map(|(b, scorable)| {
            let values: Vec<f64> = b.iter().map(|b| b.1).collect();
            scorable.then(|| median(&values)).flatten()
        })
        .collect();
    let mut found: Vec<Option<Departure>> = vec![None; excess.len()];
    for (device, blocks) in all.iter().enumerate() {
        found[device] = climb(hall, blocks, rule).or_else(|| step(hall, blocks, rule));
    }
    for (device, p) in apart_from_start(&levels, rule) {
        found[device].get_or_insert_with(|| Departure {
            form: Form::FromStart,
            size: spread(&all[device], rule),
            onset_ns: None,
            p,
        });
    }
    for (devices, p) in groups_from_start(hall, &levels, rule) {
        for device in devices {
            if levels[device].is_some_and(|l| l * rule.sign >= rule.group / 2.0) {
                found[device].get_or_insert_with(|| Departure {
                    form: Form::FromStart,
                    size: spread(&all[device], rule),
                    onset_ns: None,
                    p,
                });
            }
        }
    }
    found
}

fn unit(rule: Rule) -> Unit {
    match rule.measure {
        Measure::Ratio => Unit::One,
        Measure::Difference => rule.unit,
    }
}

/// Median of blocks and the bounds that their spread allows.
fn spread(blocks: &[Block], rule: Rule) -> Size {
    let values: Vec<f64> = blocks.iter().map(|b| b.1).collect();
    let value = median(&values).unwrap_or(f64::NAN);
    let error = SIGMA_PER_MAD * mad(&values).unwrap_or(0.0) / (values.len().max(1) as f64).sqrt();
    // A median tells a level with a standard error √(π/2) times a mean's.
    let reach =
        error * std::f64::consts::FRAC_PI_2.sqrt() * normal_quantile(CONFIDENCE).unwrap_or(0.0);
    Size {
        value,
        low: value - reach,
        high: value + reach,
        unit: unit(rule),
    }
}

fn step(hall: &Hall, blocks: &[Block], rule: Rule) -> Option<Departure> {
    let found = split(blocks, rule.rare)?;
    let size = found.after - found.before;
    if size * rule.sign < rule.step || found.z < least_z(rule) {
        return None;
    }
    let error = size.abs() / found.z * normal_quantile(CONFIDENCE)?;
    Some(Departure {
        form: Form::Step,
        size: Size {
            value: size,
            low: size - error,
            high: size + error,
            unit: unit(rule),
        },
        onset_ns: hall.at_ns.get(found.column).copied(),
        // Normal tail at z, Bonferroni over the splits and devices that were looked at.
        p: (normal_tail(found.z) * (blocks.len() * hall.devices) as f64).min(1.0),
    })
}

/// Upper bound of the normal tail. Source: Mills' ratio.
fn normal_tail(z: f64) -> f64 {
    (-z * z / 2.0).exp() / (z * (std::f64::consts::TAU).sqrt())
}

/// A steady climb that one step explains less well.
fn climb(hall: &Hall, blocks: &[Block], rule: Rule) -> Option<Departure> {
    let least = rule.climb?;
    let (first, last) = (blocks.first()?.0, blocks.last()?.0);
    let length_ns = hall.at_ns[last].saturating_sub(hall.at_ns[first]);
    if length_ns < CLIMB_NS || blocks.len() < BLOCKS / 2 {
        return None;
    }
    let points: Vec<(f64, f64)> = blocks
        .iter()
        .map(|(column, v)| {
            (
                (hall.at_ns[*column] - hall.at_ns[first]) as f64 / length_ns as f64,
                *v,
            )
        })
        .collect();
    let found = trend(&points, CONFIDENCE)?;
    let p = if rule.sign > 0.0 {
        found.p_no_rise
    } else {
        found.p_no_fall
    };
    let p = (p * hall.devices as f64).min(1.0);
    if found.slope.value * rule.sign < least || p > FALSE_NAMES {
        return None;
    }
    let line: Vec<f64> = points
        .iter()
        .map(|(x, y)| (y - found.intercept - found.slope.value * x).abs())
        .collect();
    if let Some(jump) = split(blocks, rule.rare) {
        let two = |(column, v): &Block| {
            (v - if *column < jump.column {
                jump.before
            } else {
                jump.after
            })
            .abs()
        };
        let two: Vec<f64> = blocks.iter().map(two).collect();
        if two.iter().sum::<f64>() < BETTER * line.iter().sum::<f64>() {
            return None;
        }
    }
    Some(Departure {
        form: Form::Climb,
        size: Size {
            value: found.slope.value,
            low: found.slope.low,
            high: found.slope.high,
            unit: unit(rule),
        },
        onset_ns: hall.at_ns.get(first).copied(),
        p,
    })
}

/// Single devices whose level lies apart from all others'.
fn apart_from_start(levels: &[Option<f64>], rule: Rule) -> Vec<(usize, f64)> {
    let scored = against_peers(levels, rule.level / 20.0);
    let peers = scored.iter().flatten().count().saturating_sub(1);
    let p: Vec<f64> = scored
        .iter()
        .map(|s| s.map_or(f64::NAN, |s| s.p_two_sided(peers)))
        .collect();
    let adjusted = benjamini_hochberg(&p);
    let is = |(device, s): (usize, &Option<crate::stats::outlier::Standing>)| {
        let size = s.map(|s| (s.value - s.median) * rule.sign)?;
        (size >= rule.level && adjusted[device] < FALSE_NAMES).then_some((device, adjusted[device]))
    };
    scored.iter().enumerate().filter_map(is).collect()
}

/// Groups whose median lies apart from that of the other groups of their level.
fn groups_from_start(hall: &Hall, levels: &[Option<f64>], rule: Rule) -> Vec<(Vec<usize>, f64)> {
    let mut out = Vec::new();
    for level in hall.groups.all().chunk_by(|a, b| a.level == b.level) {
        let medians: Vec<Option<f64>> = level
            .iter()
            .map(|g| {
                let own: Vec<f64> = g.devices.iter().filter_map(|d| levels[*d]).collect();
                (own.len() >= 2).then(|| median(&own)).flatten()
            })
            .collect();
        let scored = against_peers(&medians, rule.group / 10.0);
        let peers = scored.iter().flatten().count().saturating_sub(1);
        let p: Vec<f64> = scored
            .iter()
            .map(|s| s.map_or(f64::NAN, |s| s.p_two_sided(peers)))
            .collect();
        let adjusted = benjamini_hochberg(&p);
        for (group, (s, p)) in level.iter().zip(scored.iter().zip(adjusted)) {
            let size = s.map_or(0.0, |s| (s.value - s.median) * rule.sign);
            if size >= rule.group && p < FALSE_NAMES {
                out.push((group.devices.clone(), p));
            }
        }
    }
    out
}

/// A step of one meter's course within the phase of which it tells most, where it is large and sure enough.
pub fn step_of(hall: &Hall, row: &Row, rule: Rule) -> Option<Departure> {
    let phase = hall.told_in(std::iter::once(row));
    let level = settled(row.get(phase.clone())?);
    let own: Row = row
        .iter()
        .map(|v| measured(*v, level, rule.measure))
        .collect();
    let blocks = blocks(&own, &phase, rule.rare);
    let mut found = step(hall, &blocks, rule)?;
    // Told against what was before, and not against the middle of both.
    if rule.measure == Measure::Ratio
        && let Some(before) = split(&blocks, rule.rare)
            .map(|s| 1.0 + s.before)
            .filter(|b| *b > 0.0)
    {
        let size = &mut found.size;
        for told in [&mut size.value, &mut size.low, &mut size.high] {
            *told /= before;
        }
    }
    Some(found)
}
