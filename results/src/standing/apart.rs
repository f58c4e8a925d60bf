//! An account whose tables are folded apart, and joined again.
//!
//! The rows of a table touch nothing but what is kept of that table, here and in the windows.

use super::window::{SeriesWindow, Window};
use super::{Standing, TRACE_BIN_NS, TableRun};
use crate::frame::{Series, Table};
use crate::stats::reading::{Echo, Held};
use crate::trace::Trace;
use hallmark_profiles::metric::Metric;
use std::sync::OnceLock;

impl TableRun {
    /// A sensor that has told nothing yet.
    pub(super) fn new(table: &Table) -> Self {
        let series = &table.series;
        Self {
            traces: series.iter().map(|_| Trace::new(TRACE_BIN_NS)).collect(),
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

/// Powers are noisy enough that none of their stretches comes again by itself.
fn echo(series: &Series) -> Option<Echo> {
    let is_power = matches!(series.metric, Metric::PowerDraw | Metric::PowerInstant);
    is_power.then(Echo::default)
}

impl Standing {
    /// An account of the same run so far that takes tables alone; it knows no device.
    pub(crate) fn apart(&self) -> Self {
        Self {
            opened: self.opened.clone(),
            profile: self.profile.clone(),
            tables: self
                .tables
                .iter()
                .map(|t| TableRun::new(&t.table))
                .collect(),
            devices: Vec::new(),
            windows: self.windows.iter().map(Window::bare).collect(),
            members: Vec::new(),
            reducing: Trace::new(TRACE_BIN_NS),
            usual: OnceLock::new(),
            events: Vec::new(),
            closed: None,
            last_ns: 0,
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
