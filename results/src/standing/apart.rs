//! What is kept of a table, and an account whose tables are folded apart and joined again.
//!
//! The rows of a table touch nothing but what is kept of that table, here and in the windows.

use super::series::{Pace, SeriesWindow};
use super::window::Window;
use super::{Standing, StandingError, TRACE_BIN_NS, TableRun};
use crate::frame::{Samples, Series, SeriesKind, Table};
use crate::stats::finite::{self, Finite};
use crate::stats::reading::{Echo, Held};
use crate::trace::{Trace, bins_of};
use hallmark_profiles::metric::Metric;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::OnceLock;

impl TableRun {
    /// A sensor that has told nothing yet.
    pub(super) fn new(table: &Table, bins: usize) -> Self {
        let series = &table.series;
        let trace = || Trace::new(TRACE_BIN_NS).at_most(bins);
        Self {
            traces: series.iter().map(|_| trace()).collect(),
            latest: vec![f64::NAN; series.len()],
            whole: series
                .iter()
                .map(|_| SeriesWindow::whole(table.period_ns))
                .collect(),
            held: vec![Held::default(); series.len()],
            echoes: series.iter().map(echo).collect(),
            first_ns: None,
            valued_ns: vec![None; series.len()],
            last_ns: None,
            table: table.clone(),
        }
    }
}

impl TableRun {
    /// Rows come from then on: in an outage before them nobody was there to read anything.
    fn reach(&mut self, at_ns: u64, outages: &[(u64, u64)]) {
        for (cut_ns, back_ns) in outages {
            if let Some(first_ns) = self.first_ns.filter(|f| f < back_ns && *back_ns <= at_ns) {
                let each = self.whole.iter_mut();
                each.for_each(|series| series.pause(first_ns, *cut_ns));
                self.first_ns = Some(*back_ns);
            }
        }
    }

    /// Values of one series at times that all lie in this window, or in none.
    ///
    /// What a series has so far is found once for all of them, not once for each.
    pub(super) fn column(
        &mut self,
        column: usize,
        pace: &Pace,
        values: &[f64],
        window: Option<&mut Window>,
    ) {
        let kind = self.table.series[column].kind;
        let values = &*readings(kind, values);
        self.latest[column] = values.last().copied().unwrap_or(f64::NAN);
        let before = self.whole[column].last();
        let first_ns = self.first_ns.unwrap_or(0);
        let period_ns = self.table.period_ns;
        let is_device_power = self.echoes[column].is_some() && self.table.device.is_some();
        let mut own = window.map(|window| {
            let fresh = || match SeriesWindow::after(before, period_ns) {
                fresh if is_device_power => fresh.responding(),
                fresh => fresh,
            };
            let start_ns = window.start_ns;
            let own = window.series_mut((self.table.id, column as u32), fresh);
            (own, start_ns)
        });
        let mut take = |pace: &Pace, finite: &Finite| {
            self.traces[column].push_all(pace.at_ns(), finite);
            self.whole[column].push(kind, first_ns, pace, finite);
            if kind == SeriesKind::Gauge {
                self.held[column].push_all(pace.at_ns(), finite);
                if let Some(echo) = &mut self.echoes[column] {
                    echo.push_all(pace.at_ns(), finite);
                }
            }
            if let Some((own, start_ns)) = &mut own {
                own.push(kind, *start_ns, pace, finite);
            }
        };
        if let Some(finite) = Finite::of(values) {
            take(pace, &finite);
        } else {
            let mut missing = values.len();
            for rows in finite::runs(values) {
                missing -= rows.len();
                if let Some(finite) = Finite::of(&values[rows.clone()]) {
                    take(&Pace::of(&pace.at_ns()[rows], period_ns), &finite);
                }
            }
            self.whole[column].miss(missing as u64);
            if let Some((own, _)) = &mut own {
                own.miss(missing as u64);
            }
        }
        self.valued_ns[column] = self.whole[column].last().map(|(at, _)| at);
    }
}

/// No counter counts below nothing: such a reading is none, or what was counted before would be taken back.
fn readings(kind: SeriesKind, values: &[f64]) -> Cow<'_, [f64]> {
    if kind != SeriesKind::Counter || values.iter().all(|v| v.is_nan() || *v >= 0.0) {
        return Cow::Borrowed(values);
    }
    let read = |v: &f64| if *v < 0.0 { f64::NAN } else { *v };
    Cow::Owned(values.iter().map(read).collect())
}

/// Powers are noisy enough that none of their stretches comes again by itself.
fn echo(series: &Series) -> Option<Echo> {
    let is_power = matches!(series.metric, Metric::PowerDraw | Metric::PowerInstant);
    is_power.then(Echo::default)
}

impl Standing {
    pub(crate) fn samples(&mut self, samples: &Samples) -> Result<(), StandingError> {
        self.known("table", samples.table, self.tables.len())?;
        let run = &self.tables[samples.table as usize];
        let rows = samples.at_ns.len();
        if samples.columns.len() != run.table.series.len()
            || samples.columns.iter().any(|c| c.len() != rows)
        {
            return Err(StandingError::Ragged(samples.table));
        }
        let stretches = self.stretches(samples);
        self.usual.take();
        let run = &mut self.tables[samples.table as usize];
        for (rows, window) in stretches {
            run.reach(samples.at_ns[rows.start], &self.outages);
            let pace = Pace::of(&samples.at_ns[rows.clone()], run.table.period_ns);
            let mut window = window.and_then(|w| self.windows.get_mut(w));
            for (column, values) in samples.columns.iter().enumerate() {
                let values = &values[rows.clone()];
                run.column(column, &pace, values, window.as_deref_mut());
            }
        }
        Ok(())
    }

    /// The rows that count, as stretches that lie in one window (its index) or in none.
    fn stretches(&mut self, samples: &Samples) -> Vec<(Range<usize>, Option<usize>)> {
        let run = &mut self.tables[samples.table as usize];
        let mut found: Vec<(Range<usize>, Option<usize>)> = Vec::new();
        for (row, &at) in samples.at_ns.iter().enumerate() {
            if run.last_ns.is_some_and(|last| at <= last) {
                // Time that stands still or runs backwards is no evidence: the row is counted, not used.
                self.oddities += 1;
                continue;
            }
            run.first_ns.get_or_insert(at);
            let before_ns = run.last_ns.replace(at).unwrap_or(at);
            let passed = |(_, back_ns): &(u64, u64)| before_ns < *back_ns && *back_ns <= at;
            let resumed = self.outages.iter().any(passed);
            self.last_ns = self.last_ns.max(at);
            let window = self.windows.iter().rposition(|w| w.start_ns <= at);
            let window = window.filter(|w| self.windows[*w].end_ns.is_none_or(|end| at < end));
            match found.last_mut() {
                Some((rows, same)) if rows.end == row && *same == window && !resumed => {
                    rows.end = row + 1;
                }
                _ => found.push((row..row + 1, window)),
            }
        }
        found
    }

    /// An account of the same run so far that takes tables alone; it knows no device.
    pub(crate) fn apart(&self) -> Self {
        let bins = bins_of(self.opened.plan.devices.len());
        Self {
            opened: self.opened.clone(),
            profile: self.profile.clone(),
            tables: self
                .tables
                .iter()
                .map(|t| TableRun::new(&t.table, bins))
                .collect(),
            devices: Vec::new(),
            windows: self.windows.iter().map(Window::bare).collect(),
            members: Vec::new(),
            reducing: Trace::new(TRACE_BIN_NS),
            usual: OnceLock::new(),
            events: Vec::new(),
            closed: None,
            last_ns: 0,
            outages: self.outages.clone(),
            oddities: 0,
        }
    }

    /// Takes the tables that were folded apart.
    pub(crate) fn join(&mut self, other: Self) {
        self.usual.take();
        for (own, theirs) in self.tables.iter_mut().zip(other.tables) {
            if theirs.first_ns.is_some() {
                *own = theirs;
            }
        }
        for (own, theirs) in self.windows.iter_mut().zip(other.windows) {
            own.join(theirs);
        }
        self.oddities += other.oddities;
        self.last_ns = self.last_ns.max(other.last_ns);
    }
}
