//! What happened within one segment of the schedule: per device, per series and for the group.

pub use super::gathered::Gathered;
use super::series::SeriesWindow;
use super::sweep::SweepWindow;
use crate::frame::{OpRow, StepRow, TrialRow};
use crate::plan::{Plan, Segment, SegmentKind};
use crate::stats::blocks::Blocks;
use crate::stats::response::Response;
use std::collections::BTreeMap;

/// Steps whose ranks have not all reported, kept at most; and rows of all their ranks together.
const OPEN_STEPS: usize = 65_536;
const OPEN_ROWS: usize = 1 << 23;

/// Steps that so many ranks may have open.
fn open_most(members: usize) -> usize {
    OPEN_STEPS.min(OPEN_ROWS / members.max(1)).max(1)
}

/// One pass through a segment.
pub struct Window {
    /// Index into the plan's schedule.
    pub segment: u32,
    pub kind: SegmentKind,
    pub start_ns: u64,
    /// `None` while it is open.
    pub end_ns: Option<u64>,
    pub devices: Vec<DeviceWindow>,
    pub group: GroupWindow,
    /// Boxed: a tree keeps room for about twice as many as it holds.
    series: BTreeMap<(u32, u32), Box<SeriesWindow>>,
    /// The devices' steps belong together: they reduce into each other.
    coupled: bool,
    /// Each node reduces by itself, so that there is no group of all ranks.
    within_node: bool,
}

/// A device within a window.
pub struct DeviceWindow {
    /// FLOP by block on the run clock; `None` where the plan's block length is none.
    pub blocks: Option<Blocks>,
    pub steps: u64,
    /// Due to end, s.
    pub step_time: Gathered,
    /// Time in matmuls of one step, s.
    pub compute_time: Gathered,
    /// Bytes read + written by copy and triad over the time they took, B/s, one sample a step.
    pub memory_rate: Gathered,
    /// Time between the end of a step and the start of the next.
    pub idle_ns: u64,
    first_start_ns: Option<u64>,
    last_end_ns: u64,
    last_seq: Option<u64>,
    pub flop: f64,
    pub compute_ns: u64,
    pub gemms: u64,
    pub audited: u64,
    pub audited_flop: f64,
}

/// The ranks together.
pub struct GroupWindow {
    open: BTreeMap<u64, OpenStep>,
    /// Due to the end of the slowest rank, s.
    pub step_time: Gathered,
    /// Slowest over median rank's compute time.
    pub skew: Gathered,
    /// Time of whole operations by payload, from the first rank's start to the last one's end, s.
    pub ops: BTreeMap<u64, Gathered>,
    /// All-reduces of a sweep; those out of place are among `ops` too.
    pub sweep: SweepWindow,
    /// Operations that some rank has not reported, by step and place within it.
    open_ops: BTreeMap<(u64, u32), OpenOp>,
    /// Latest step of each device, and how many of its operations were reported.
    cursors: Vec<(u64, u32)>,
    /// Operations that were given up, and those that ranks told of otherwise than others.
    spoilt_ops: u64,
    /// Steps that were given up, since some rank did not report them.
    incomplete: u64,
}

struct OpenStep {
    due_ns: u64,
    end_ns: u64,
    compute_ns: Vec<u64>,
}

struct OpenOp {
    start_ns: u64,
    /// When the last rank came: from then on it is the links' time.
    arrived_ns: u64,
    end_ns: u64,
    bytes: u64,
    ranks: usize,
}

const SECONDS: f64 = 1e-9;
/// Samples of the group that are kept in order, half a megabyte; of each device, where a run has no more than so many.
pub(super) const KEPT: usize = 65_536;
const KEPT_EACH: usize = 8_192;
const IN_ORDER_MAX: usize = 64;

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

impl Window {
    pub(super) fn new(index: u32, segment: &Segment, start_ns: u64, plan: &Plan) -> Self {
        let has_buckets = plan
            .steps
            .get(segment.step)
            .is_some_and(|s| !s.buckets.is_empty());
        let few = plan.devices.len() <= IN_ORDER_MAX;
        let device = || DeviceWindow::new(Blocks::new(plan.block_ns, start_ns).ok(), few);
        Self {
            segment: index,
            kind: segment.kind,
            start_ns,
            end_ns: None,
            devices: plan.devices.iter().map(|_| device()).collect(),
            group: GroupWindow::new(),
            series: BTreeMap::new(),
            coupled: segment.parts.buckets
                && has_buckets
                && segment.active > 1
                && !segment.parts.within_node,
            within_node: segment.parts.within_node,
        }
    }

    /// The same stretch of time without any row.
    pub(super) fn bare(&self) -> Self {
        Self {
            segment: self.segment,
            kind: self.kind,
            start_ns: self.start_ns,
            end_ns: self.end_ns,
            devices: Vec::new(),
            group: GroupWindow::new(),
            series: BTreeMap::new(),
            coupled: self.coupled,
            within_node: self.within_node,
        }
    }

    /// Takes what another account has of series that this one has nothing of.
    pub(super) fn join(&mut self, mut other: Self) {
        self.series.append(&mut other.series);
    }

    /// Length so far: to its end, or to `now_ns` while it is open.
    pub fn length_ns(&self, now_ns: u64) -> u64 {
        self.end_ns.unwrap_or(now_ns).saturating_sub(self.start_ns)
    }

    pub fn series(&self, table: u32, column: u32) -> Option<&SeriesWindow> {
        self.series.get(&(table, column)).map(|s| &**s)
    }

    /// How a device's power follows the load of this window.
    pub fn response(&self, table: u32, column: u32) -> Option<&Response> {
        self.series(table, column)?.response.as_deref()
    }

    /// Whether the ranks' steps belong together.
    pub fn coupled(&self) -> bool {
        self.coupled
    }

    /// One series (table, column); `fresh`: what there is of it before its first sample here.
    pub(super) fn series_mut(
        &mut self,
        series: (u32, u32),
        fresh: impl FnOnce() -> SeriesWindow,
    ) -> &mut SeriesWindow {
        self.series
            .entry(series)
            .or_insert_with(|| Box::new(fresh()))
    }

    /// Whether the step is a later one than all before it: work that is told twice counts once.
    pub(super) fn is_next(&self, device: u32, row: &StepRow) -> bool {
        let window = self.devices.get(device as usize);
        window.is_some_and(|w| w.last_seq.is_none_or(|last| row.seq > last))
    }

    pub(super) fn step(&mut self, device: u32, row: &StepRow, members: &[u32]) {
        if let Some(window) = self.devices.get_mut(device as usize) {
            window.push(row);
        }
        if self.coupled {
            self.group.push(row, members.len());
        }
    }

    /// End, and time for each byte from the last rank's start on, s/B, of an operation that all ranks have now told.
    pub(super) fn op(&mut self, device: u32, op: &OpRow, members: &[u32]) -> Option<(u64, f64)> {
        if self.within_node {
            return None;
        }
        self.group.op(device, op, members.len())
    }
}

impl Window {
    /// One rank's all-reduce of a sweep.
    pub(super) fn trial(&mut self, device: u32, row: &TrialRow, members: &[u32]) {
        let told = self.group.sweep.push(device, row, members.len());
        if let Some((bytes, took)) = told {
            let times = self.group.ops.entry(bytes);
            let times = times.or_insert_with(|| Gathered::in_order(SECONDS, KEPT));
            times.record(took);
        }
    }
}

impl DeviceWindow {
    fn new(blocks: Option<Blocks>, in_order: bool) -> Self {
        Self {
            blocks,
            steps: 0,
            step_time: match in_order {
                true => Gathered::in_order(SECONDS, KEPT_EACH),
                false => Gathered::new(SECONDS),
            },
            compute_time: Gathered::new(SECONDS),
            memory_rate: Gathered::new(1e3),
            idle_ns: 0,
            first_start_ns: None,
            last_end_ns: 0,
            last_seq: None,
            flop: 0.0,
            compute_ns: 0,
            gemms: 0,
            audited: 0,
            audited_flop: 0.0,
        }
    }

    fn push(&mut self, row: &StepRow) {
        // A refused span (too many blocks) leaves a hole that reads as zero work: never a flattering figure.
        if let Some(blocks) = &mut self.blocks {
            let _ = blocks.add_span(row.start_ns, row.end_ns, row.flop);
        }
        self.steps += 1;
        self.step_time.record(seconds(since_due(row)));
        if row.gemms > 0 {
            self.compute_time.record(seconds(row.compute_ns));
        }
        if row.memory_ns > 0 {
            self.memory_rate
                .record(row.memory_bytes as f64 / seconds(row.memory_ns));
        }
        match self.first_start_ns {
            None => self.first_start_ns = Some(row.start_ns),
            Some(_) => self.idle_ns += row.start_ns.saturating_sub(self.last_end_ns),
        }
        self.last_end_ns = self.last_end_ns.max(row.end_ns);
        self.last_seq = Some(row.seq);
        self.flop += row.flop;
        self.compute_ns += row.compute_ns;
        self.gemms += u64::from(row.gemms);
        self.audited += u64::from(row.audited);
        self.audited_flop += row.audited_flop;
    }

    /// When the first step began.
    pub fn first_start_ns(&self) -> Option<u64> {
        self.first_start_ns
    }

    /// From the first step's start to the last one's end.
    pub fn span_ns(&self) -> u64 {
        let first = self.first_start_ns.unwrap_or(self.last_end_ns);
        self.last_end_ns.saturating_sub(first)
    }
}

impl GroupWindow {
    fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            step_time: Gathered::in_order(SECONDS, KEPT),
            skew: Gathered::in_order(1e-6, KEPT),
            ops: BTreeMap::new(),
            sweep: SweepWindow::default(),
            open_ops: BTreeMap::new(),
            cursors: Vec::new(),
            spoilt_ops: 0,
            incomplete: 0,
        }
    }

    /// Operations that are in no figure, since not every rank told of them alike; of a window that has ended also those that
    /// are open.
    pub fn untold_ops(&self, ended: bool) -> u64 {
        let open = if ended { self.open_ops.len() } else { 0 };
        self.spoilt_ops.saturating_add(open as u64)
    }

    /// Steps that are in no figure of the group, since not every rank told of them; of a window that has ended also those
    /// that are open.
    pub fn untold_steps(&self, ended: bool) -> u64 {
        let open = if ended { self.open.len() } else { 0 };
        self.incomplete.saturating_add(open as u64)
    }

    /// All ranks report the same operation; it is one, as long as from the first start to the last end.
    fn op(&mut self, device: u32, op: &OpRow, members: usize) -> Option<(u64, f64)> {
        let mut whole = None;
        let device = device as usize;
        if self.cursors.len() <= device {
            self.cursors.resize(device + 1, (0, 0));
        }
        let cursor = &mut self.cursors[device];
        if op.seq < cursor.0 {
            // Told once more, or out of order: a rank alone would make up for all.
            self.spoilt_ops += 1;
            return None;
        }
        if cursor.0 != op.seq {
            *cursor = (op.seq, 0);
        }
        let key = *cursor;
        cursor.1 += 1;
        let open = self.open_ops.entry(key).or_insert(OpenOp {
            start_ns: op.start_ns,
            arrived_ns: op.start_ns,
            end_ns: op.end_ns,
            bytes: op.bytes,
            ranks: 0,
        });
        open.start_ns = open.start_ns.min(op.start_ns);
        open.arrived_ns = open.arrived_ns.max(op.start_ns);
        open.end_ns = open.end_ns.max(op.end_ns);
        open.ranks += 1;
        if open.bytes != op.bytes {
            // Ranks that disagree on what they moved have moved nothing that counts.
            self.open_ops.remove(&key);
            self.spoilt_ops += 1;
        } else if open.ranks >= members.max(1)
            && let Some(done) = self.open_ops.remove(&key)
        {
            let times = self.ops.entry(done.bytes);
            let times = times.or_insert_with(|| Gathered::in_order(SECONDS, KEPT));
            let took = seconds(done.end_ns.saturating_sub(done.start_ns));
            times.record(took);
            let moved = seconds(done.end_ns.saturating_sub(done.arrived_ns));
            whole = (done.bytes > 0).then(|| (done.end_ns, moved / done.bytes as f64));
        }
        if self.open_ops.len() > OPEN_STEPS {
            self.open_ops.pop_first();
            self.spoilt_ops += 1;
        }
        whole
    }

    fn push(&mut self, row: &StepRow, members: usize) {
        let step = self.open.entry(row.seq).or_insert_with(|| OpenStep {
            due_ns: row.due_ns.min(row.start_ns),
            end_ns: 0,
            compute_ns: Vec::with_capacity(members.min(OPEN_STEPS)),
        });
        step.due_ns = step.due_ns.min(row.due_ns.min(row.start_ns));
        step.end_ns = step.end_ns.max(row.end_ns);
        step.compute_ns.push(row.compute_ns);
        if step.compute_ns.len() >= members.max(1)
            && let Some(mut done) = self.open.remove(&row.seq)
        {
            self.step_time
                .record(seconds(done.end_ns.saturating_sub(done.due_ns)));
            let slowest = done.compute_ns.iter().copied().max().unwrap_or(0);
            if let Some(median) = median(&mut done.compute_ns).filter(|m| *m > 0.0) {
                self.skew.record(slowest as f64 / median);
            }
        }
        if self.open.len() > open_most(members) {
            self.open.pop_first();
            self.incomplete += 1;
        }
    }
}

/// From due to end; a start that the clocks' fit puts before its due time is the earlier of the two.
fn since_due(row: &StepRow) -> u64 {
    row.end_ns.saturating_sub(row.due_ns.min(row.start_ns))
}

fn median(values: &mut [u64]) -> Option<f64> {
    let half = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let even = values.len().is_multiple_of(2);
    let (below, upper, _) = values.select_nth_unstable(half);
    let lower = below.iter().copied().max().filter(|_| even);
    let lower = lower.unwrap_or(*upper);
    Some((*upper as f64 + lower as f64) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Provenance, Series, SeriesKind, Table};
    use crate::standing::TableRun;
    use crate::standing::series::Pace;
    use crate::stats::bootstrap::SplitMix64;
    use hallmark_profiles::metric::Metric;
    use hallmark_profiles::units::Unit;

    const PERIOD_NS: u64 = 1_000_000_000;

    fn window(start_ns: u64) -> Window {
        Window {
            segment: 0,
            kind: SegmentKind::Phase(0),
            start_ns,
            end_ns: None,
            devices: Vec::new(),
            group: GroupWindow::new(),
            series: BTreeMap::new(),
            coupled: false,
            within_node: false,
        }
    }

    fn table() -> Table {
        let series = |(metric, kind)| Series {
            metric,
            label: String::new(),
            unit: Unit::Count,
            kind,
            averaging_ns: None,
            accuracy: None,
        };
        let kinds = [
            (Metric::PowerDraw, SeriesKind::Gauge),
            (Metric::TempCore, SeriesKind::Gauge),
            (Metric::PowerLimit, SeriesKind::Gauge),
            (Metric::Energy, SeriesKind::Counter),
            (Metric::Ecc, SeriesKind::Counter),
            (Metric::ThrottleFrac, SeriesKind::Mask),
        ];
        Table {
            id: 0,
            name: "gpu-0".to_owned(),
            source: "chance".to_owned(),
            provenance: Provenance::Simulated,
            device: None,
            place: "here".to_owned(),
            period_ns: PERIOD_NS,
            series: kinds.map(series).to_vec(),
        }
    }

    /// A reading after this one: noise, a walk in steps, long stretches of one value, growth with resets, bits.
    fn next(chance: &mut SplitMix64, column: usize, before: f64) -> f64 {
        let rare = chance.below(300) == 0;
        match column {
            0 => 700.0 * chance.unit() - if rare { 900.0 } else { 0.0 },
            1 => before + chance.below(3) as f64 - 1.0,
            2 if rare => [0.0, 1_200.0, -0.0, 1e18][chance.below(4) as usize],
            3 if rare => 0.0,
            3 => before + 800.0 * chance.unit(),
            4 | 5 if rare => chance.below(40) as f64,
            _ => before,
        }
    }

    #[test]
    fn a_rank_that_tells_operations_in_turns_makes_up_for_no_other() {
        let mut group = GroupWindow::new();
        let op = |seq| OpRow {
            seq,
            start_ns: 1_000,
            end_ns: 2_000,
            bytes: 1 << 40,
        };
        for seq in [8, 9, 8, 9] {
            assert_eq!(group.op(0, &op(seq), 2), None);
        }
        assert!(group.ops.is_empty());
        assert_eq!((group.untold_ops(false), group.untold_ops(true)), (1, 4));
    }

    #[test]
    fn an_account_is_the_same_to_the_last_bit_however_many_samples_come_together() {
        for seed in 0..60 {
            let chance = &mut SplitMix64::new(seed);
            let rows = 1 + chance.below(4_000) as usize;
            let (mut at_ns, mut columns) = (vec![chance.below(PERIOD_NS)], vec![Vec::new(); 6]);
            let mut before = [400.0, 61.0, 1_200.0, 0.0, 0.0, 0.0];
            let (holes, start) = (chance.below(3), chance.below(4_000) as usize);
            for row in 0..rows {
                let late = if chance.below(500) == 0 { 90 } else { 1 };
                let last = at_ns[row];
                at_ns.push(last + 1 + chance.below(late * 2 * PERIOD_NS));
                for (index, column) in columns.iter_mut().enumerate() {
                    before[index] = next(chance, index, before[index]);
                    let odd = [f64::NAN, f64::INFINITY][chance.below(2) as usize];
                    let hole = holes > 0 && chance.below(40 * holes) == 0;
                    column.push(if hole { odd } else { before[index] });
                }
            }
            let start_ns = at_ns[start.min(rows)] + chance.below(2);
            let told = |chance: &mut SplitMix64, most: u64| {
                let (mut run, mut window) = (TableRun::new(&table(), 64), window(start_ns));
                let mut from = 0;
                run.first_ns = Some(at_ns[0]);
                while from < rows {
                    let to = (from + 1 + chance.below(most) as usize).min(rows);
                    let within = at_ns[from] >= start_ns;
                    let same = at_ns[from..to]
                        .iter()
                        .take_while(|at| (**at >= start_ns) == within);
                    let to = from + same.count();
                    let pace = Pace::of(&at_ns[from..to], PERIOD_NS);
                    for (index, column) in columns.iter().enumerate() {
                        let window = within.then_some(&mut window);
                        run.column(index, &pace, &column[from..to], window);
                    }
                    from = to;
                }
                format!(
                    "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
                    run.traces,
                    run.latest,
                    run.whole,
                    run.held,
                    run.echoes,
                    run.valued_ns,
                    window.series
                )
            };
            let one_by_one = told(chance, 1);
            for most in [7, 90, 5_000] {
                assert!(
                    told(chance, most) == one_by_one,
                    "seed {seed}, up to {most} together"
                );
            }
        }
    }
}
