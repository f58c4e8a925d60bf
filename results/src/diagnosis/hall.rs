//! All traces of a run on one time axis, one row a device: what the rules look at.
//!
//! Only judged phases without a pulse count, since only there is the load the same from bin to bin. A bin without
//! samples is a hole (NaN), never a zero. Refuses a run in which no such phase began.

use super::place::{Groups, Place};
use crate::frame::{Series, SeriesKind};
use crate::plan::SegmentKind;
use crate::standing::{Standing, TableRun};
use crate::trace::{Bin, Trace};
use hallmark_profiles::metric::Metric;
use std::ops::Range;

/// Columns at most: what is paired or sorted stays linear in devices.
const COLUMNS: u64 = 512;
/// Fewest columns that say anything of a course.
const COLUMNS_MIN: usize = 16;
/// Samples of the slowest sensor in a column, at least about.
const SAMPLES: u64 = 2;

/// Shortest main phase, once settled, in which a change against a device's own past is believed, ns: in a shorter one
/// the coolant and the cold plates may still be warming up, which all devices do together.
const SETTLED_NS: u64 = 180_000_000_000;
/// So long, but no more than a quarter of it, a phase still shows the load of the one before: cold plates follow within
/// a minute, a loop's return a little later.
const FOLLOWS_NS: u64 = 120_000_000_000;

/// A row of values, NaN where nothing is known.
pub type Row = Vec<f64>;

/// One meter of the hall: where it is, and its course over the judged columns.
pub struct Meter {
    pub place: Place,
    pub row: Row,
}

/// The common time axis of a run.
pub struct Hall<'a> {
    pub standing: &'a Standing,
    pub groups: Groups,
    pub devices: usize,
    /// Width of a column.
    pub step_ns: u64,
    /// Start of each judged column.
    pub at_ns: Vec<u64>,
    /// The phases among them, each from when it has settled on; in each of them the load does not change.
    phases: Vec<Range<usize>>,
    /// Of them the longest with matmuls.
    pub main: Range<usize>,
    /// Devices of one kind have one number.
    pub kinds: Vec<usize>,
    /// Index on the whole axis of each judged column.
    slots: Vec<usize>,
}

impl<'a> Hall<'a> {
    pub fn of(standing: &'a Standing) -> Option<Self> {
        let plan = &standing.opened().plan;
        let step_ns = step_ns(standing);
        let (mut at_ns, mut slots) = (Vec::new(), Vec::new());
        let (mut main, mut phases) = (0..0, Vec::new());
        for window in standing.windows() {
            let segment = plan.schedule.get(window.segment as usize)?;
            if !matches!(window.kind, SegmentKind::Phase(_)) || segment.pulse.is_some() {
                continue;
            }
            let end_ns = window.end_ns.unwrap_or_else(|| standing.last_ns());
            let (from, to) = (window.start_ns.div_ceil(step_ns), end_ns / step_ns);
            let first = slots.len();
            for slot in from..to {
                slots.push(slot as usize);
                at_ns.push(slot * step_ns);
            }
            let follows = FOLLOWS_NS.min(segment.duration_ns / 4) / step_ns;
            let phase = (first + follows as usize).min(slots.len())..slots.len();
            if segment.parts.gemms && phase.len() > main.len() {
                main = phase.clone();
            }
            phases.push(phase);
        }
        let mut known: Vec<(&str, &str)> = Vec::new();
        let kinds = plan.devices.iter().map(|d| {
            let own = (d.engine.as_str(), d.sku.as_deref().unwrap_or(&d.name));
            known.iter().position(|k| *k == own).unwrap_or_else(|| {
                known.push(own);
                known.len() - 1
            })
        });
        (slots.len() >= COLUMNS_MIN).then(|| Self {
            kinds: kinds.collect(),
            groups: Groups::of(&plan.devices),
            devices: plan.devices.len(),
            standing,
            step_ns,
            at_ns,
            phases,
            main,
            slots,
        })
    }

    /// Whether the main phase is long enough for a device to be held against its own past.
    pub fn has_settled(&self) -> bool {
        (self.main.len() as u64).saturating_mul(self.step_ns) >= SETTLED_NS
    }

    /// The phase of which these courses tell most, the main one of equals. Like is held against like: from one phase
    /// to the next the load is another, and what follows it differs without anything being wrong.
    pub fn told_in<'r>(&self, rows: impl Iterator<Item = &'r Row> + Clone) -> Range<usize> {
        let told = |phase: &Range<usize>| {
            let own = rows.clone().filter_map(|r| r.get(phase.clone())).flatten();
            own.filter(|v| v.is_finite()).count()
        };
        let (mut best, mut most) = (self.main.clone(), told(&self.main));
        for phase in &self.phases {
            let count = told(phase);
            if count > most {
                (best, most) = (phase.clone(), count);
            }
        }
        best
    }

    /// A gauge of each device; of several labels the first that is wanted.
    pub fn gauge(&self, metric: Metric, wanted: impl Fn(&str) -> bool) -> Vec<Option<Row>> {
        let mut rows = vec![None; self.devices];
        for (run, column) in self.columns(metric) {
            let device = run.table.device.map(|d| d as usize);
            let series = &run.table.series[column];
            if let Some(row) = device.and_then(|d| rows.get_mut(d))
                && row.is_none()
                && wanted(&series.label)
            {
                *row = Some(self.row(&run.traces[column]));
            }
        }
        rows
    }

    /// The largest of a device's gauges of a metric whose label is wanted: reasons that may hold together.
    pub fn largest(&self, metric: Metric, wanted: impl Fn(&str) -> bool) -> Vec<Option<Row>> {
        let mut rows: Vec<Option<Row>> = vec![None; self.devices];
        for (run, column) in self.columns(metric) {
            let device = run.table.device.map(|d| d as usize);
            let Some(known) = device.and_then(|d| rows.get_mut(d)) else {
                continue;
            };
            if wanted(&run.table.series[column].label) {
                let own = self.row(&run.traces[column]);
                match known {
                    Some(row) => row.iter_mut().zip(own).for_each(|(a, b)| *a = a.max(b)),
                    None => *known = Some(own),
                }
            }
        }
        rows
    }

    /// Meters that are no device's, each of all that its place has.
    pub fn meters(&self, metric: Metric) -> Vec<Meter> {
        let of = |(run, column): (&'a TableRun, usize)| Meter {
            place: self.groups.of_meter(&run.table.place),
            row: self.row(&run.traces[column]),
        };
        let meters = self.columns(metric).filter(|(run, column)| {
            run.table.device.is_none() && !run.table.series[*column].is_of_a_part()
        });
        meters.map(of).collect()
    }

    /// Gauges of a metric in its own unit.
    pub fn columns(&self, metric: Metric) -> impl Iterator<Item = (&'a TableRun, usize)> {
        let is = move |s: &Series| {
            s.metric == metric && s.kind == SeriesKind::Gauge && s.unit == metric.spec().unit
        };
        let tables = self.standing.tables().iter();
        tables.flat_map(move |run| {
            let columns = run.table.series.iter().enumerate();
            columns
                .filter(move |(_, s)| is(s))
                .map(move |(c, _)| (run, c))
        })
    }

    /// Means of a trace over the judged columns.
    pub fn row(&self, trace: &Trace) -> Row {
        let mut sums = vec![(0.0, 0_u64); self.slots.last().map_or(0, |s| s + 1)];
        for (index, bin) in trace.bins().iter().enumerate() {
            let slot = (index as u64 * trace.bin_ns() / self.step_ns) as usize;
            if let Some(sum) = sums.get_mut(slot) {
                *sum = (sum.0 + bin.sum, sum.1 + bin.count);
            }
        }
        let mean = |slot: &usize| match sums[*slot] {
            (_, 0) => f64::NAN,
            (sum, count) => sum / count as f64,
        };
        self.slots.iter().map(mean).collect()
    }

    /// Range over mean of a trace within each judged column; a hole where fewer than three samples came.
    pub fn ranges(&self, trace: &Trace) -> Row {
        let mut all = vec![Bin::default(); self.slots.last().map_or(0, |s| s + 1)];
        for (index, bin) in trace.bins().iter().enumerate() {
            let slot = (index as u64 * trace.bin_ns() / self.step_ns) as usize;
            if let Some(whole) = all.get_mut(slot) {
                whole.merge(bin);
            }
        }
        let range = |slot: &usize| {
            let bin = all[*slot];
            match bin.mean() {
                Some(mean) if bin.count > 2 && mean > 0.0 => (bin.max - bin.min) / mean,
                _ => f64::NAN,
            }
        };
        self.slots.iter().map(range).collect()
    }

    /// FLOP per second of time in matmuls: a device's own rate, whomever it waits for.
    pub fn rates(&self) -> Vec<Option<Row>> {
        let of = |d: &crate::standing::DeviceRun| {
            let spent = self.amounts(&d.computing);
            self.quotient(self.amounts(&d.work), spent)
        };
        self.standing.devices().iter().map(of).collect()
    }

    /// Bytes per second of time in copy and triad.
    pub fn memory_rates(&self) -> Vec<Option<Row>> {
        let of = |d: &crate::standing::DeviceRun| {
            let spent = self.amounts(&d.moving);
            self.quotient(self.amounts(&d.memory), spent)
        };
        self.standing.devices().iter().map(of).collect()
    }

    /// Time of a step outside kernels and all-reduces, s; a hole where they overlap, since it is not known there.
    pub fn outside(&self) -> Vec<Option<Row>> {
        let of = |d: &crate::standing::DeviceRun| {
            let row = self.row(&d.outside);
            row.iter().any(|v| v.is_finite()).then_some(row)
        };
        self.standing.devices().iter().map(of).collect()
    }

    fn amounts(&self, trace: &crate::trace::WorkTrace) -> Row {
        let mut sums = vec![0.0; self.slots.last().map_or(0, |s| s + 1)];
        for (index, rate) in trace.rates().enumerate() {
            let slot = (index as u64 * trace.bin_ns() / self.step_ns) as usize;
            if let Some(sum) = sums.get_mut(slot) {
                *sum += rate * trace.bin_ns() as f64 / 1e9;
            }
        }
        self.slots.iter().map(|s| sums[*s]).collect()
    }

    /// Amount over time spent (ns), s⁻¹; a hole where hardly any time was.
    fn quotient(&self, amounts: Row, spent_ns: Row) -> Option<Row> {
        let least_ns = 0.01 * self.step_ns as f64;
        let row: Row = amounts
            .iter()
            .zip(spent_ns)
            .map(|(amount, ns)| {
                if ns > least_ns {
                    amount * 1e9 / ns
                } else {
                    f64::NAN
                }
            })
            .collect();
        row.iter().any(|v| v.is_finite()).then_some(row)
    }
}

/// The narrowest column that all traces fit into whole.
/// The median step of the phase with the longest: what a device does is known once a step.
fn step_time_ns(standing: &Standing) -> u64 {
    let phases = standing.windows().iter();
    let phases = phases.filter(|w| matches!(w.kind, SegmentKind::Phase(_)));
    let medians = phases.filter_map(|w| {
        let mut known = w.devices.iter().filter_map(|d| d.step_time.get());
        known.next()?.quantile(0.5)
    });
    (medians.fold(0.0, f64::max) * 1e9) as u64
}

fn step_ns(standing: &Standing) -> u64 {
    let traces = standing.tables().iter().flat_map(|t| &t.traces);
    let work = standing.devices().iter().map(|d| d.work.bin_ns());
    let widest = traces.map(Trace::bin_ns).chain(work).max().unwrap_or(1);
    let on_devices = standing
        .tables()
        .iter()
        .filter(|t| t.table.device.is_some());
    let period = on_devices.map(|t| t.table.period_ns).max().unwrap_or(0);
    let period = period.max(step_time_ns(standing));
    let least = (standing.last_ns() / COLUMNS).max(period.saturating_mul(SAMPLES));
    let mut step = widest.max(1);
    while step < least {
        step = step.saturating_mul(2);
    }
    step
}
