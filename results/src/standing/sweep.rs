//! A sweep of all-reduces within one segment: for each size and way, what the ranks together took.
//!
//! An operation is one only when every rank has told it, as long as from the first start to the last end; its latency
//! counts from the time it was due. Warm-up counts in nothing but its own number; wrong elements count always.

use super::window::{Gathered, KEPT};
use crate::frame::TrialRow;
use std::collections::BTreeMap;

/// Operations that some rank has not told, kept at most.
const OPEN_MAX: usize = 65_536;

/// All sizes.
#[derive(Default)]
pub struct SweepWindow {
    /// By payload in bytes, and whether the total was written over the inputs.
    pub sizes: BTreeMap<(u64, bool), SizeTrials>,
    /// Operations that ranks told differently, and those that were given up for want of room.
    incomplete: u64,
    /// By step and number within it.
    open: BTreeMap<(u64, u32), Open>,
    /// The latest of each device.
    last: BTreeMap<u32, (u64, u32)>,
    /// The latest of those that all ranks have told.
    newest: Option<(u64, u32)>,
}

/// One size on one way.
pub struct SizeTrials {
    /// From the first rank's start to the last one's end, s.
    pub whole: Gathered,
    /// From the due time to the last rank's end, s.
    pub latency: Gathered,
    /// From the first rank's start to the last one's, s.
    pub skew: Gathered,
    /// From the last rank's start to the last one's end, s.
    pub transfer: Gathered,
    /// Elements of all ranks' totals that were wrong, warm-up included.
    pub wrong: u64,
    /// Operations of the warm-up.
    pub warm_up: u64,
}

struct Open {
    row: TrialRow,
    ranks: usize,
    first_ns: u64,
}

const SECONDS: f64 = 1e-9;

impl SizeTrials {
    fn new() -> Self {
        let times = || Gathered::in_order(SECONDS, KEPT);
        Self {
            whole: times(),
            latency: times(),
            skew: times(),
            transfer: times(),
            wrong: 0,
            warm_up: 0,
        }
    }

    fn record(&mut self, open: &Open) {
        let row = &open.row;
        if row.warm_up {
            self.warm_up += 1;
            return;
        }
        let seconds = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1e9;
        self.whole.record(seconds(open.first_ns, row.end_ns));
        self.latency.record(seconds(row.due_ns, row.end_ns));
        self.skew.record(seconds(open.first_ns, row.arrived_ns));
        self.transfer.record(seconds(row.arrived_ns, row.end_ns));
    }
}

impl SweepWindow {
    /// Takes one rank's row; gives payload and time, s, of an operation out of place that counts and that all ranks have now told.
    pub(super) fn push(
        &mut self,
        device: u32,
        row: &TrialRow,
        members: usize,
    ) -> Option<(u64, f64)> {
        let size = self.sizes.entry((row.bytes, row.in_place));
        let size = size.or_insert_with(SizeTrials::new);
        size.wrong = size.wrong.saturating_add(row.wrong);
        let key = (row.seq, row.index);
        let last = self.last.insert(device, key);
        if last.is_some_and(|last| key <= last) {
            // Told once more, or out of order: a rank alone would make up for all.
            self.incomplete += 1;
            return None;
        }
        let open = self.open.entry(key).or_insert(Open {
            row: *row,
            ranks: 0,
            first_ns: row.start_ns,
        });
        open.ranks += 1;
        open.first_ns = open.first_ns.min(row.start_ns);
        let told = &mut open.row;
        let same =
            (told.bytes, told.in_place, told.warm_up) == (row.bytes, row.in_place, row.warm_up);
        told.due_ns = told.due_ns.min(row.due_ns);
        told.arrived_ns = told.arrived_ns.max(row.arrived_ns);
        told.end_ns = told.end_ns.max(row.end_ns);
        let mut whole = None;
        if !same {
            // Ranks that disagree on what they moved have moved nothing that counts.
            self.open.remove(&key);
            self.incomplete += 1;
        } else if open.ranks >= members.max(1)
            && let Some(done) = self.open.remove(&key)
        {
            size.record(&done);
            self.newest = self.newest.max(Some(key));
            let took = done.row.end_ns.saturating_sub(done.first_ns) as f64 / 1e9;
            whole = (!row.warm_up && !row.in_place).then_some((row.bytes, took));
        }
        if self.open.len() > OPEN_MAX {
            self.open.pop_first();
            self.incomplete += 1;
        }
        whole
    }

    /// Operations that not all ranks told of, or not in the same way: of a window that has ended all that are open, of
    /// one that goes on those that later ones have overtaken.
    pub fn untold(&self, ended: bool) -> u64 {
        let is_past = |key: &(u64, u32)| ended || self.newest.is_some_and(|newest| *key < newest);
        let open = self.open.keys().filter(|key| is_past(key)).count();
        self.incomplete.saturating_add(open as u64)
    }

    /// The largest size, out of place: the plateau.
    pub fn largest(&self) -> Option<(u64, &SizeTrials)> {
        let out = self.sizes.iter().rev().find(|((_, in_place), _)| !in_place);
        out.map(|((bytes, _), trials)| (*bytes, trials))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(index: u32, start_ns: u64, arrived_ns: u64, end_ns: u64) -> TrialRow {
        TrialRow {
            seq: 1,
            index,
            bytes: 64,
            due_ns: 1_000,
            start_ns,
            arrived_ns,
            end_ns,
            ..TrialRow::default()
        }
    }

    fn mean_ns(gathered: &Gathered) -> f64 {
        (gathered.get().unwrap().mean().unwrap() * 1e9).round()
    }

    #[test]
    fn an_operation_is_one_over_all_ranks_and_its_latency_counts_from_the_due_time() {
        let mut sweep = SweepWindow::default();
        assert_eq!(sweep.push(0, &row(0, 1_100, 1_400, 1_900), 2), None);
        let whole = sweep.push(1, &row(0, 1_400, 1_400, 2_000), 2);
        assert_eq!(whole.map(|w| w.0), Some(64));
        let (bytes, size) = sweep.largest().unwrap();
        assert_eq!(bytes, 64);
        assert!((mean_ns(&size.whole) - 900.0).abs() < 2.0);
        assert!((mean_ns(&size.latency) - 1_000.0).abs() < 2.0);
        assert!((mean_ns(&size.skew) - 300.0).abs() < 2.0);
        assert!((mean_ns(&size.transfer) - 600.0).abs() < 2.0);
    }

    #[test]
    fn a_warm_up_counts_in_no_figure_and_its_wrong_elements_do() {
        let mut sweep = SweepWindow::default();
        let warm = TrialRow {
            warm_up: true,
            wrong: 3,
            ..row(0, 1_000, 1_000, 2_000)
        };
        assert_eq!(sweep.push(0, &warm, 1), None);
        let (_, size) = sweep.largest().unwrap();
        assert_eq!((size.whole.count(), size.warm_up, size.wrong), (0, 1, 3));
    }

    #[test]
    fn a_rank_that_tells_an_operation_twice_makes_up_for_no_other() {
        let mut sweep = SweepWindow::default();
        for _ in 0..2 {
            assert_eq!(sweep.push(0, &row(0, 1_000, 1_000, 2_000), 2), None);
        }
        assert_eq!(sweep.untold(false), 1);
        assert!(sweep.push(1, &row(0, 1_000, 1_000, 2_000), 2).is_some());
    }

    #[test]
    fn ranks_that_tell_of_different_sizes_have_moved_nothing_that_counts() {
        let mut sweep = SweepWindow::default();
        sweep.push(0, &row(0, 1_000, 1_000, 2_000), 2);
        let other = TrialRow {
            bytes: 128,
            ..row(0, 1_000, 1_000, 2_000)
        };
        assert_eq!(sweep.push(1, &other, 2), None);
        assert_eq!((sweep.untold(false), sweep.untold(true)), (1, 1));
        assert!(sweep.sizes.values().all(|s| s.whole.count() == 0));
    }

    #[test]
    fn what_a_rank_did_not_tell_counts_once_it_is_overtaken_and_all_of_it_at_the_end() {
        let mut sweep = SweepWindow::default();
        sweep.push(0, &row(0, 1_000, 1_000, 2_000), 2);
        assert_eq!((sweep.untold(false), sweep.untold(true)), (0, 1));
        for rank in 0..2 {
            sweep.push(rank, &row(1, 3_000, 3_000, 4_000), 2);
        }
        assert_eq!(sweep.untold(false), 1);
        sweep.push(0, &row(2, 5_000, 5_000, 6_000), 2);
        assert_eq!((sweep.untold(false), sweep.untold(true)), (1, 2));
    }
}
