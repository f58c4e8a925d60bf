//! Sums plays up into one row a case: how often found, in time, where, by which cause, and what healthy halls were told.
//!
//! Every share carries its exact (Clopper–Pearson) one-sided 95 % bounds and the plays it rests on. Plays that broke
//! are counted and are no part of a share.

use super::{Case, Picture, Played, Would};
use crate::twin::scenario::Expected;
use hallmark_results::stats::interval::{Interval, Proportion};
use hallmark_results::stats::quantile::Sorted;
use serde::Serialize;

/// Of each one-sided bound.
pub const CONFIDENCE: f64 = 0.95;
/// Examples that a row tells.
const TOLD: usize = 3;

/// Hits among plays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    pub hits: u64,
    pub of: u64,
}

impl Share {
    fn count<T>(all: impl Iterator<Item = T>, hit: impl Fn(&T) -> bool) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            hits: sum.hits + u64::from(hit(&one)),
            of: sum.of + 1,
        })
    }

    /// `None` without plays.
    #[must_use]
    pub fn interval(self) -> Option<Interval> {
        Proportion::new(self.hits, self.of)?.exact(CONFIDENCE)
    }

    /// Whether the lower bound clears the target.
    #[must_use]
    pub fn clears(self, target: f64) -> bool {
        self.interval().is_some_and(|i| i.low >= target)
    }
}

/// One case, summed up.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub name: String,
    pub summary: String,
    pub factor: f64,
    #[serde(skip)]
    pub expected: Expected,
    /// Faults that are to be found in one play.
    pub faults: usize,
    pub devices: u32,
    /// Distance of samples, and time that a play covers, s.
    pub tick_s: f64,
    pub played_s: f64,
    pub plays: u64,
    pub broken: u64,
    /// Plays that went through a sealed record.
    pub sealed: u64,
    /// Plays whose verdict was the expected one.
    pub as_expected: Share,
    /// Faults found by the end, and within the time that each may take.
    pub found: Share,
    pub in_time: Share,
    /// Plays in which all faults were found.
    pub all_found: Share,
    /// Of those found.
    pub right_place: Share,
    pub right_cause: Share,
    pub accepted: Share,
    pub rejected: Share,
    pub undecided: Share,
    /// Plays with a diagnosis that no fault explains.
    pub strayed: Share,
    /// From the onset, s; upper bounds, since looks are spaced: median and 95th percentile of those found.
    pub after_s: Option<[f64; 2]>,
    pub within_s: f64,
    /// What was said of it, rightly; what was said instead; which gates failed or decided nothing; what broke.
    pub said: Vec<String>,
    pub mistaken: Vec<String>,
    pub failed: Vec<String>,
    pub doubts: Vec<String>,
    pub strays: Vec<String>,
    pub broke: Vec<String>,
    #[serde(skip)]
    pub picture: Option<Picture>,
}

impl Row {
    /// The plays of one case, in any order.
    #[must_use]
    pub fn of(case: &Case, plays: &[&Played]) -> Self {
        let (scenario, whole) = (&case.scenario, |p: &&&Played| p.would.is_some());
        let sound: Vec<&Played> = plays.iter().filter(whole).copied().collect();
        let plays_all = || sound.iter();
        let sought = || sound.iter().flat_map(|p| &p.sought);
        let found = || sought().filter(|s| s.found);
        let is = |would: Would| Share::count(plays_all(), |p| p.would == Some(would));
        let wanted = scenario.faults.iter().filter_map(|f| f.wanted.as_ref());
        let after: Vec<f64> = found().filter_map(|s| s.after_s).collect();
        let after = Sorted::new(after).ok();
        let quantile = |q: f64| after.as_ref().and_then(|a| a.quantile(q));
        let texts = |of: &mut dyn Iterator<Item = &String>| common(of);
        Self {
            name: scenario.name.clone(),
            summary: scenario.summary.clone(),
            factor: case.factor,
            expected: scenario.expected,
            faults: wanted.clone().count(),
            devices: scenario.hall.gpus(),
            tick_s: scenario.conditions.tick.as_secs_f64(),
            played_s: plays_all().map(|p| p.played_s).fold(0.0, f64::max),
            plays: sound.len() as u64,
            broken: (plays.len() - sound.len()) as u64,
            sealed: plays_all().filter(|p| p.sealed).count() as u64,
            as_expected: Share::count(plays_all(), |p| p.is_as_expected(scenario.expected)),
            found: Share::count(sought(), |s| s.found),
            in_time: Share::count(sought(), |s| s.in_time()),
            all_found: Share::count(plays_all().filter(|p| !p.sought.is_empty()), |p| {
                p.sought.iter().all(|s| s.found && s.right_cause)
            }),
            right_place: Share::count(found(), |s| s.right_place),
            right_cause: Share::count(found(), |s| s.right_cause),
            accepted: is(Would::Accept),
            rejected: is(Would::Reject),
            undecided: is(Would::DecideNothing),
            strayed: Share::count(plays_all(), |p| !p.strays.is_empty()),
            after_s: quantile(0.5).zip(quantile(0.95)).map(|(m, p)| [m, p]),
            within_s: wanted.map(|w| w.within.as_secs_f64()).fold(0.0, f64::max),
            said: texts(
                &mut found()
                    .filter(|s| s.right_cause)
                    .filter_map(|s| s.said.as_ref()),
            ),
            mistaken: texts(
                &mut found()
                    .filter(|s| !s.right_cause)
                    .filter_map(|s| s.said.as_ref()),
            ),
            failed: texts(&mut sound.iter().flat_map(|p| &p.failed)),
            doubts: texts(&mut sound.iter().flat_map(|p| &p.undecided)),
            strays: texts(&mut sound.iter().flat_map(|p| &p.strays)),
            broke: texts(&mut plays.iter().filter_map(|p| p.broke.as_ref())),
            picture: plays.iter().find_map(|p| p.picture.clone()),
        }
    }

    /// Whether nothing is wrong with this hall.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.expected == Expected::NoAlarm
    }
}

/// The most frequent texts, the first in the alphabet of equals, each with its count where it came more than once.
fn common(texts: &mut dyn Iterator<Item = &String>) -> Vec<String> {
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    for text in texts {
        *counts.entry(text).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let told = counts.into_iter().take(TOLD).map(|(text, n)| match n {
        1 => text.to_owned(),
        n => format!("{text} ({n}×)"),
    });
    told.collect()
}

/// All rows, in the order of the cases.
#[must_use]
pub fn rows(cases: &[Case], plays: &[Played]) -> Vec<Row> {
    let mut by_case = std::collections::BTreeMap::<&str, Vec<&Played>>::new();
    for play in plays {
        by_case.entry(&play.case).or_default().push(play);
    }
    let row = |case: &Case| {
        let plays = by_case.get(case.key().as_str());
        Row::of(case, plays.map_or(&[], Vec::as_slice))
    };
    cases.iter().map(row).collect()
}
