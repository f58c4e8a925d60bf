//! What happened within one segment of the schedule: per device, per series and for the group.

use super::sweep::SweepWindow;
use crate::frame::{OpRow, SeriesKind, StepRow, TrialRow};
use crate::plan::{Plan, Segment, SegmentKind};
use crate::stats::blocks::Blocks;
use crate::stats::dependence::Dependence;
use crate::stats::distribution::Distribution;
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
    series: BTreeMap<(u32, u32), SeriesWindow>,
    /// The devices' steps belong together: they reduce into each other.
    coupled: bool,
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
    cursors: BTreeMap<u32, (u64, u32)>,
    /// Steps that some rank never reported.
    pub incomplete: u64,
}

#[derive(Default)]
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

/// A series within a window, or within the whole run.
pub struct SeriesWindow {
    /// Gauge: every value; nothing for the whole run, which keeps memory bounded.
    pub values: Gathered,
    pub valid: u64,
    pub missing: u64,
    /// Smallest and largest valid value.
    pub extremes: Option<(f64, f64)>,
    /// Latest valid sample, at first that from before the window.
    last: Option<(u64, f64)>,
    /// Longest time between two valid samples, the window's start counted as one.
    pub longest_gap_ns: u64,
    /// Counter: growth since the last sample before the window, resets included.
    pub growth: f64,
    /// Gauge: the values weighed by the time since the sample before, and that time.
    weighed: (f64, u64),
    /// Mask: time during which each bit was set.
    pub bit_ns: BTreeMap<u8, u64>,
    /// Mask: time for which the mask is known.
    pub mask_ns: u64,
    /// Time within twice the period of a valid sample before.
    covered_ns: u64,
    period_ns: u64,
    gathers: bool,
}

/// A distribution that is made when its first sample arrives, and how far its samples depend on each other.
pub struct Gathered {
    resolution: f64,
    inner: Option<Distribution>,
    dependence: Dependence,
}

impl Gathered {
    /// `resolution`: smallest step told apart, in the samples' unit.
    pub fn new(resolution: f64) -> Self {
        Self {
            resolution,
            inner: None,
            dependence: Dependence::default(),
        }
    }

    /// As [`Self::new`], and all samples are kept in order while they are no more than `most`.
    pub fn in_order(resolution: f64, most: usize) -> Self {
        Self {
            dependence: Dependence::keeping(most),
            ..Self::new(resolution)
        }
    }

    pub fn record(&mut self, value: f64) {
        if self.inner.is_none() {
            self.inner = Distribution::new(self.resolution).ok();
        }
        if let Some(inner) = &mut self.inner
            && inner.record(value)
        {
            self.dependence.push(value);
        }
    }

    /// How far its samples depend on each other.
    pub fn dependence(&self) -> &Dependence {
        &self.dependence
    }

    /// `None` before the first sample.
    pub fn get(&self) -> Option<&Distribution> {
        self.inner.as_ref()
    }

    pub fn count(&self) -> u64 {
        self.inner.as_ref().map_or(0, Distribution::count)
    }
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
            coupled: segment.parts.buckets && has_buckets && segment.active > 1,
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
        self.series.get(&(table, column))
    }

    /// Whether the ranks' steps belong together.
    pub fn coupled(&self) -> bool {
        self.coupled
    }

    /// Values of one series (table, column) at times that all lie in this window; `fresh`: what there is of
    /// it before the first of them.
    pub(super) fn samples(
        &mut self,
        series: (u32, u32),
        kind: SeriesKind,
        fresh: impl FnOnce() -> SeriesWindow,
        at_ns: &[u64],
        values: &[f64],
    ) {
        let start = self.start_ns;
        let series = self.series.entry(series);
        let series = series.or_insert_with(fresh);
        for (&at_ns, &value) in at_ns.iter().zip(values) {
            series.push(kind, start, at_ns, value);
        }
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
        self.group.op(device, op, members.len())
    }
}

impl Window {
    /// One rank's all-reduce of a sweep.
    pub(super) fn trial(&mut self, row: &TrialRow, members: &[u32]) {
        if let Some((bytes, took)) = self.group.sweep.push(row, members.len()) {
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
            cursors: BTreeMap::new(),
            incomplete: 0,
        }
    }

    /// All ranks report the same operation; it is one, as long as from the first start to the last end.
    fn op(&mut self, device: u32, op: &OpRow, members: usize) -> Option<(u64, f64)> {
        let mut whole = None;
        let cursor = self.cursors.entry(device).or_insert((op.seq, 0));
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
            self.incomplete += 1;
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
            self.incomplete += 1;
        }
        whole
    }

    fn push(&mut self, row: &StepRow, members: usize) {
        let step = self.open.entry(row.seq).or_insert_with(|| OpenStep {
            due_ns: row.due_ns.min(row.start_ns),
            ..OpenStep::default()
        });
        step.due_ns = step.due_ns.min(row.due_ns.min(row.start_ns));
        step.end_ns = step.end_ns.max(row.end_ns);
        step.compute_ns.push(row.compute_ns);
        if step.compute_ns.len() >= members.max(1)
            && let Some(mut done) = self.open.remove(&row.seq)
        {
            self.step_time
                .record(seconds(done.end_ns.saturating_sub(done.due_ns)));
            done.compute_ns.sort_unstable();
            let slowest = done.compute_ns.last().copied().unwrap_or(0);
            if let Some(median) = median(&done.compute_ns).filter(|m| *m > 0.0) {
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

fn median(sorted: &[u64]) -> Option<f64> {
    let n = sorted.len();
    let upper = *sorted.get(n / 2)?;
    let lower = *sorted.get(n.saturating_sub(1) / 2)?;
    Some((upper as f64 + lower as f64) / 2.0)
}

impl SeriesWindow {
    /// `before`: the last valid sample before the window.
    fn new(before: Option<(u64, f64)>, period_ns: u64, gathers: bool) -> Self {
        Self {
            values: Gathered::new(1e-3),
            valid: 0,
            missing: 0,
            extremes: None,
            last: before,
            longest_gap_ns: 0,
            growth: 0.0,
            weighed: (0.0, 0),
            bit_ns: BTreeMap::new(),
            mask_ns: 0,
            covered_ns: 0,
            period_ns,
            gathers,
        }
    }

    /// Of a window that begins after `before`, the series' latest valid sample.
    pub(super) fn after(before: Option<(u64, f64)>, period_ns: u64) -> Self {
        Self::new(before, period_ns, true)
    }

    /// Of a whole run: counts, growth and extremes, but not every value.
    pub(super) fn whole(period_ns: u64) -> Self {
        Self::new(None, period_ns, false)
    }

    pub(super) fn push(&mut self, kind: SeriesKind, start_ns: u64, at_ns: u64, value: f64) {
        if !value.is_finite() {
            self.missing += 1;
            return;
        }
        self.valid += 1;
        let (low, high) = self.extremes.unwrap_or((value, value));
        self.extremes = Some((low.min(value), high.max(value)));
        let since = self.last.map_or(start_ns, |(at, _)| at.max(start_ns));
        let elapsed = at_ns.saturating_sub(since);
        self.longest_gap_ns = self.longest_gap_ns.max(elapsed);
        self.covered_ns += elapsed.min(self.period_ns.saturating_mul(2));
        match kind {
            SeriesKind::Gauge => {
                self.weighed.0 += value * elapsed as f64;
                self.weighed.1 += elapsed;
                if self.gathers {
                    self.values.record(value);
                }
            }
            SeriesKind::Counter => {
                let before = self.last.map_or(value, |(_, v)| v);
                // A counter that falls was reset: what it shows now has been counted since.
                self.growth += if value >= before {
                    value - before
                } else {
                    value
                };
            }
            SeriesKind::Mask => self.mask(elapsed),
        }
        self.last = Some((at_ns, value));
    }

    /// The mask read last holds until the next read; nothing is known before the first.
    fn mask(&mut self, elapsed: u64) {
        let Some((_, held)) = self.last else { return };
        self.mask_ns += elapsed;
        let held = held as u64;
        for bit in (0..64_u8).filter(|b| held & (1 << b) != 0) {
            *self.bit_ns.entry(bit).or_insert(0) += elapsed;
        }
    }

    /// Mean of a gauge over the time that its samples stand for.
    pub fn mean_over_time(&self) -> Option<f64> {
        let (sum, ns) = self.weighed;
        (ns > 0).then(|| sum / ns as f64)
    }

    /// Time of the window that samples stand for, to its end: none stands for more than twice its period.
    pub fn covered_ns(&self, end_ns: u64) -> u64 {
        let rest = self.last.map_or(0, |(at, _)| end_ns.saturating_sub(at));
        self.covered_ns + rest.min(self.period_ns.saturating_mul(2))
    }

    /// Longest time without a valid sample, the window's ends counted as samples.
    pub fn longest_gap_to(&self, start_ns: u64, end_ns: u64) -> u64 {
        let last = self.last.map_or(start_ns, |(at, _)| at.max(start_ns));
        self.longest_gap_ns.max(end_ns.saturating_sub(last))
    }

    /// Latest valid sample.
    pub(super) fn last(&self) -> Option<(u64, f64)> {
        self.last
    }
}
