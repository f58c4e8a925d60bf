//! What is usual among the same series of all devices: how long a reading rests, how often it moves, how it follows a load.
//!
//! Sorted once for all, so that holding every device against the others costs no more than looking each one up.
//! Refuses to count a device among its own peers, and to call usual what fewer than three others show.

use crate::frame::Series;
use crate::standing::Standing;
use crate::stats::response::{Follow, Response};
use hallmark_profiles::metric::Metric;
use std::collections::{BTreeMap, HashMap};

/// Fewest others that make something usual.
const OTHERS_MIN: usize = 3;

/// By metric and label.
#[derive(Default)]
pub struct Usual {
    kinds: HashMap<Metric, BTreeMap<String, Kind>>,
}

/// One series over all devices, sorted.
#[derive(Default)]
struct Kind {
    /// Longest time at one value, ns.
    rests: Vec<f64>,
    /// Share of readings that moved, 0 to 1.
    moves: Vec<f64>,
    /// By window: share by which the reading moved with the load, and time after which, s.
    follows: BTreeMap<usize, (Vec<f64>, Vec<f64>)>,
}

impl Usual {
    /// Of the devices' tables, the series that `wanted` picks.
    pub fn of(standing: &Standing, wanted: &[Metric]) -> Self {
        let mut usual = Self::default();
        for run in standing.tables() {
            let Some(device) = run.table.device else {
                continue;
            };
            for (column, (series, held)) in run.table.series.iter().zip(&run.held).enumerate() {
                if !wanted.contains(&series.metric) {
                    continue;
                }
                let labels = usual.kinds.entry(series.metric).or_default();
                let kind = labels.entry(series.label.clone()).or_default();
                let (from, to) = held.longest_ns;
                kind.rests.push(to.saturating_sub(from) as f64);
                kind.moves.extend(held.share_moved());
                for (index, window) in standing.windows().iter().enumerate() {
                    let own = window.response(run.table.id, column as u32);
                    let own = own.filter(|_| standing.is_changed(index, device));
                    if let Some(own) = own.and_then(Response::follow) {
                        let (shares, after_s) = kind.follows.entry(index).or_default();
                        shares.push(own.share);
                        after_s.push(own.after_s);
                    }
                }
            }
        }
        for kind in usual.kinds.values_mut().flat_map(BTreeMap::values_mut) {
            kind.rests.sort_unstable_by(f64::total_cmp);
            kind.moves.sort_unstable_by(f64::total_cmp);
            for (shares, after_s) in kind.follows.values_mut() {
                shares.sort_unstable_by(f64::total_cmp);
                after_s.sort_unstable_by(f64::total_cmp);
            }
        }
        usual
    }

    fn kind(&self, series: &Series) -> Option<&Kind> {
        self.kinds.get(&series.metric)?.get(&series.label)
    }

    /// How long the others' readings rest at most, ns; `own`: the device's own, where it is one of them.
    pub fn rest_ns(&self, series: &Series, own: Option<f64>) -> Option<f64> {
        middle(&self.kind(series)?.rests, own)
    }

    /// The same of that twentieth that rest longest.
    pub fn rest_most_ns(&self, series: &Series, own: Option<f64>) -> Option<f64> {
        let rests = &self.kind(series)?.rests;
        others(rests, own, |count, at| at(count - 1 - count / 20))
    }

    /// Share of the others' readings that move, 0 to 1, of that twentieth that move least.
    pub fn moves_least(&self, series: &Series, own: Option<f64>) -> Option<f64> {
        others(&self.kind(series)?.moves, own, |count, at| at(count / 20))
    }

    /// Share of the others' readings that move, 0 to 1.
    pub fn moves(&self, series: &Series, own: Option<f64>) -> Option<f64> {
        middle(&self.kind(series)?.moves, own)
    }

    /// How the others' readings followed the load of a window: by what share, and after what time, s.
    pub fn follows(&self, series: &Series, window: usize, own: Follow) -> Option<(f64, f64)> {
        let (shares, after_s) = self.kind(series)?.follows.get(&window)?;
        Some((
            middle(shares, Some(own.share))?,
            middle(after_s, Some(own.after_s))?,
        ))
    }
}

/// Median of the sorted values without one of them.
fn middle(sorted: &[f64], own: Option<f64>) -> Option<f64> {
    others(sorted, own, |count, at| {
        (at((count - 1) / 2) + at(count / 2)) / 2.0
    })
}

/// What `of` makes of the sorted values without one of them: their number, and each by its place.
fn others(
    sorted: &[f64],
    own: Option<f64>,
    of: impl Fn(usize, &dyn Fn(usize) -> f64) -> f64,
) -> Option<f64> {
    let skipped = own.and_then(|own| sorted.binary_search_by(|v| v.total_cmp(&own)).ok());
    let count = sorted.len() - usize::from(skipped.is_some());
    let at = |k: usize| sorted[k + usize::from(skipped.is_some_and(|s| k >= s))];
    (count >= OTHERS_MIN).then(|| of(count, &at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_the_others_leaves_one_out() {
        let all = [1.0, 2.0, 3.0, 4.0, 9.0];
        for (index, own) in all.iter().enumerate() {
            let mut others = all.to_vec();
            others.remove(index);
            let wanted = crate::stats::outlier::median(&others);
            assert_eq!(middle(&all, Some(*own)), wanted, "{own}");
        }
        assert_eq!(middle(&all, None), Some(3.0));
        assert_eq!(
            others(&all, Some(1.0), |count, at| at(count / 20)),
            Some(2.0)
        );
        assert_eq!(middle(&all[..3], Some(2.0)), None);
    }
}
