//! Pairs of nodes, measured before the load and after it: a node that is slow with everybody, two that are slow with each other, floats
//! that came otherwise than they were sent.
//!
//! A node is held against the pairs that it has no part in, two nodes against all other pairs. Refuses to name a node for
//! one pair, and to call two nodes slow that met once.

use super::place::{Groups, Level, Place};
use super::{Cause, Diagnosis, Sign};
use crate::frame::{PairRow, What};
use crate::standing::Standing;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};
use std::collections::BTreeSet;

/// Below this share of the others' median a rate is slow, where it is of few other pairs or of many.
const SLOW: (f64, f64) = (0.5, 0.8);
/// Beyond so many times the others' median, and by so many seconds, a latency is long.
const LONG: (f64, f64) = (5.0, 200e-6);
const MANY: usize = 8;
/// Pairs that say something of a node, and times that two must have met.
const LEAST: usize = 2;
/// Most nodes or pairs that are told as slow: where more are, the rest is no measure.
const TOLD: usize = 16;
/// Rows that are looked at: a hall that reduces has fewer.
const ROWS: usize = 4_096;

/// What pairs measured at one time.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    pub when: When,
    pub rows: &'a [PairRow],
}

/// Nothing is loaded while pairs measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    /// As a run was resumed.
    Between,
    After,
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Before => "before the load",
            Self::Between => "before the load was resumed",
            Self::After => "after the load",
        })
    }
}

/// What pairs measured, each time that they did.
pub fn measured(standing: &Standing) -> impl Iterator<Item = Measured<'_>> {
    let begins = standing.windows().iter().map(|w| w.start_ns);
    let (first, last) = (begins.clone().min(), begins.max());
    standing.events().iter().filter_map(move |e| match &e.what {
        What::Pairs { rows } if !rows.is_empty() => Some(Measured {
            when: match (first, last) {
                (Some(first), _) if e.at_ns <= first => When::Before,
                (_, Some(last)) if e.at_ns > last => When::After,
                (None, _) => When::Before,
                _ => When::Between,
            },
            rows: &rows[..rows.len().min(ROWS)],
        }),
        _ => None,
    })
}

/// The middle of some values; `None` of none.
#[must_use]
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|v| v.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// What is seen more than once is one finding, told as it was seen first.
pub(super) fn all(standing: &Standing) -> Vec<Diagnosis> {
    let groups = Groups::of(&standing.opened().plan.devices);
    let mut all: Vec<Diagnosis> = Vec::new();
    for measured in measured(standing) {
        for mut found in shown(measured.rows, &groups) {
            for sign in &mut found.evidence {
                sign.what = format!("{}: {}", measured.when, sign.what);
            }
            let same = |d: &&mut Diagnosis| d.cause == found.cause && d.place == found.place;
            match all.iter_mut().find(same) {
                Some(before) => before.evidence.extend(found.evidence),
                None => all.push(found),
            }
        }
    }
    all
}

fn shown(rows: &[PairRow], groups: &Groups) -> Vec<Diagnosis> {
    let rows: Vec<PairRow> = rows.iter().filter(|r| is_possible(r)).cloned().collect();
    let nodes: BTreeSet<&str> = rows
        .iter()
        .flat_map(|r| r.nodes.iter().map(String::as_str))
        .collect();
    let all = Pairs {
        rows: &rows,
        groups,
    };
    let mut found: Vec<Diagnosis> = nodes.iter().filter_map(|n| all.node(n)).collect();
    let named: BTreeSet<String> = found.iter().map(|d| d.place.name.clone()).collect();
    let ways: BTreeSet<&[String; 2]> = rows.iter().map(|r| &r.nodes).collect();
    let ways = ways.into_iter();
    let ways = ways.filter(|w| !w.iter().any(|n| named.contains(&all.of_node(n).name)));
    found.extend(ways.filter_map(|way| all.way(way)));
    if found.len() > TOLD {
        found.clear();
    }
    found.extend(all.wrong());
    found
}

fn is_possible(row: &PairRow) -> bool {
    [row.bytes_per_s, row.latency_s]
        .iter()
        .all(|v| v.is_finite() && *v > 0.0)
}

struct Pairs<'a> {
    rows: &'a [PairRow],
    groups: &'a Groups,
}

impl Pairs<'_> {
    fn of_node(&self, node: &str) -> Place {
        let mut place = self.groups.of_meter(node);
        if place.devices.is_empty() {
            place.level = Level::Node;
        }
        place
    }

    fn of_way(&self, way: &[String; 2]) -> Place {
        let ends = way.each_ref().map(|n| self.of_node(n));
        let devices = ends.iter().flat_map(|e| e.devices.iter().copied());
        Place {
            level: Level::Pair,
            devices: devices.collect(),
            name: format!("{} with {}", ends[0].name, ends[1].name),
        }
    }

    /// A node that is slow in all of its pairs.
    fn node(&self, node: &str) -> Option<Diagnosis> {
        let is = |r: &&PairRow| r.nodes.iter().any(|n| n == node);
        let (own, others): (Vec<&PairRow>, Vec<&PairRow>) = self.rows.iter().partition(is);
        let partners: BTreeSet<&String> = own.iter().flat_map(|r| &r.nodes).collect();
        // Itself among them.
        if partners.len() <= LEAST {
            return None;
        }
        let with = format!("{} pairs with {} nodes", own.len(), partners.len() - 1);
        let sign = departs(&own, &others, &with)?;
        Some(self.slow(self.of_node(node), own.len(), sign))
    }

    /// Two nodes that are slow with each other alone.
    fn way(&self, way: &[String; 2]) -> Option<Diagnosis> {
        let (own, others): (Vec<&PairRow>, Vec<&PairRow>) =
            self.rows.iter().partition(|r| r.nodes == *way);
        if own.len() < LEAST {
            return None;
        }
        let sign = departs(&own, &others, &format!("met {} times", own.len()))?;
        Some(self.slow(self.of_way(way), own.len(), sign))
    }

    /// Chance: that of all pairs just these were the last. Source: Fisher, *The Design of Experiments*, 1935 (randomisation).
    fn slow(&self, place: Place, own: usize, sign: Sign) -> Diagnosis {
        let (all, own) = (self.rows.len() as f64, own as f64);
        let mut chance = 1.0;
        let mut taken = 0.0;
        while taken < own {
            chance *= (own - taken) / (all - taken);
            taken += 1.0;
        }
        Diagnosis::new(Cause::LinkSlow, place, chance, (1, 1), vec![sign])
    }

    /// Floats that came otherwise: at the node that all such pairs share, else at each pair.
    fn wrong(&self) -> Vec<Diagnosis> {
        let wrong: Vec<&PairRow> = self.rows.iter().filter(|r| r.wrong > 0).collect();
        let Some(first) = wrong.first() else {
            return Vec::new();
        };
        let has = |r: &PairRow, node: &String| r.nodes.contains(node);
        let shared = first.nodes.iter();
        let shared = shared.filter(|n| wrong.len() >= LEAST && wrong.iter().all(|r| has(r, n)));
        let shared: Vec<&String> = shared.collect();
        let told = |place: Place, rows: &[&PairRow]| {
            let count: u64 = rows.iter().fold(0, |sum, r| sum.saturating_add(r.wrong));
            let what = format!("{count} floats came otherwise than they were sent");
            let sign = Sign::new(Metric::AuditErrors, what);
            Diagnosis::new(Cause::ReduceCorruption, place, 0.0, (0, 0), vec![sign])
        };
        match shared[..] {
            [node] => vec![told(self.of_node(node), &wrong)],
            _ => {
                let each = wrong.iter().take(TOLD);
                each.map(|r| told(self.of_way(&r.nodes), &[r])).collect()
            }
        }
    }
}

/// What is far from the others in each of some pairs: their rate, else their latency.
fn departs(own: &[&PairRow], others: &[&PairRow], with: &str) -> Option<Sign> {
    let rate = median(others.iter().map(|r| r.bytes_per_s))?;
    let best = own.iter().map(|r| r.bytes_per_s).reduce(f64::max)?;
    let share = if others.len() < MANY { SLOW.0 } else { SLOW.1 };
    if best < share * rate {
        let say = |rate| human(rate, Unit::BytePerSecond);
        let what = format!(
            "{with}: at most {} each way, {:.2} × the others’ median of {}",
            say(best),
            best / rate,
            say(rate)
        );
        return Some(Sign::new(Metric::AllreduceBusbw, what));
    }
    let latency = median(others.iter().map(|r| r.latency_s))?;
    let least = own.iter().map(|r| r.latency_s).reduce(f64::min)?;
    let say = |latency| human(latency, Unit::Second);
    let what = || {
        let times = least / latency;
        let (least, latency) = (say(least), say(latency));
        format!(
            "{with}: at least {least} for a message, {times:.1} × the others’ median of {latency}"
        )
    };
    (least > LONG.0 * latency && least - latency > LONG.1)
        .then(|| Sign::new(Metric::AllreduceLatency, what()))
}
