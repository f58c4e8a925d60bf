//! One fault as a picture: the reading that showed it, beside its peers'.
//!
//! A bounded number of points, whatever the hall's size and the run's length. Refuses to draw what no series shows.

use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::Unit;
use hallmark_results::diagnosis::Diagnosis;
use hallmark_results::standing::{Standing, TableRun};
use hallmark_results::trace::Trace;

/// Points of each line.
const POINTS: usize = 160;
/// What is drawn where the diagnosis names no series of a device.
const USUAL: [Metric; 4] = [
    Metric::TempCore,
    Metric::PowerDraw,
    Metric::PowerInstant,
    Metric::ClockSm,
];

/// The course of one metric: at the place named, and of the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    pub metric: Metric,
    pub unit: Unit,
    /// Time of each point, s.
    pub at_s: Vec<f64>,
    /// Mean of what is at the place named; NaN where nothing is known.
    pub here: Vec<f64>,
    /// Median, 5th and 95th percentile of the others.
    pub others: Vec<[f64; 3]>,
    pub onset_s: Option<f64>,
    pub found_s: Option<f64>,
}

impl Picture {
    /// `about`: what was said of the fault; without it the first device stands for the place.
    pub fn of(
        standing: &Standing,
        about: Option<&Diagnosis>,
        onset_ns: Option<u64>,
        found_ns: Option<u64>,
    ) -> Option<Self> {
        let signs = about.map(|d| d.evidence.iter().map(|s| s.metric));
        let wanted: Vec<Metric> = signs.into_iter().flatten().chain(USUAL).collect();
        let devices = about.map(|d| d.place.devices.as_slice()).unwrap_or(&[]);
        let (metric, columns) = wanted.iter().find_map(|m| {
            let columns = columns(standing, *m);
            (!columns.is_empty()).then_some((*m, columns))
        })?;
        let end_ns = standing.last_ns().max(1);
        let step_ns = end_ns.div_ceil(POINTS as u64);
        let rows = columns
            .iter()
            .map(|(device, trace)| (device, row(trace, step_ns)));
        let is_here = |device: &Option<u32>| match device {
            Some(device) => devices.contains(device),
            // A meter of the hall is all there is of its kind.
            None => true,
        };
        let (here, others): (Vec<_>, Vec<_>) = rows.partition(|(device, _)| is_here(device));
        let here: Vec<Vec<f64>> = here.into_iter().map(|(_, row)| row).collect();
        let others: Vec<Vec<f64>> = others.into_iter().map(|(_, row)| row).collect();
        let seconds = |ns: u64| ns as f64 / 1e9;
        Some(Self {
            metric,
            unit: metric.spec().unit,
            at_s: (0..POINTS as u64).map(|i| seconds(i * step_ns)).collect(),
            here: (0..POINTS).map(|i| mean(&here, i)).collect(),
            others: (0..POINTS).map(|i| spread(&others, i)).collect(),
            onset_s: onset_ns.map(seconds),
            found_s: found_ns.map(seconds),
        })
    }
}

/// Every trace of a metric with its device; of a device's several the first.
fn columns(standing: &Standing, metric: Metric) -> Vec<(Option<u32>, &Trace)> {
    let mut seen = std::collections::BTreeSet::new();
    let of = |run: &TableRun| -> Option<usize> {
        run.table.series.iter().position(|s| s.metric == metric)
    };
    let tables = standing.tables().iter();
    let found = tables.filter_map(|run| Some((run.table.device, run.traces.get(of(run)?)?)));
    let all: Vec<_> = found.collect();
    let some_device = all.iter().any(|(device, _)| device.is_some());
    all.into_iter()
        .filter(|(device, _)| device.is_some() == some_device)
        .filter(|(device, _)| device.is_none_or(|d| seen.insert(d)))
        .collect()
}

fn row(trace: &Trace, step_ns: u64) -> Vec<f64> {
    let mut sums = [(0.0, 0_u64); POINTS];
    for (index, bin) in trace.bins().iter().enumerate() {
        let slot = (index as u64 * trace.bin_ns() / step_ns) as usize;
        if let Some(sum) = sums.get_mut(slot) {
            *sum = (sum.0 + bin.sum, sum.1 + bin.count);
        }
    }
    let mean = |(sum, count): &(f64, u64)| match count {
        0 => f64::NAN,
        count => sum / *count as f64,
    };
    sums.iter().map(mean).collect()
}

fn mean(rows: &[Vec<f64>], at: usize) -> f64 {
    let known: Vec<f64> = rows
        .iter()
        .map(|r| r[at])
        .filter(|v| v.is_finite())
        .collect();
    match known.len() {
        0 => f64::NAN,
        n => known.iter().sum::<f64>() / n as f64,
    }
}

fn spread(rows: &[Vec<f64>], at: usize) -> [f64; 3] {
    let mut known: Vec<f64> = rows
        .iter()
        .map(|r| r[at])
        .filter(|v| v.is_finite())
        .collect();
    known.sort_by(f64::total_cmp);
    let quantile = |q: f64| match known.len() {
        0 => f64::NAN,
        n => known[(q * (n - 1) as f64).round() as usize],
    };
    [quantile(0.5), quantile(0.05), quantile(0.95)]
}
