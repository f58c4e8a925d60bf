//! What every sequence of frames must hold so that it can be sealed and judged.
//!
//! The same check stands before the journal and behind every reader: a frame that it takes in the
//! first second cannot make the seal fail after 72 hours. It keeps declarations only, no rows.

use crate::frame::{Event, Frame, Samples, Steps, Table, What};
use std::collections::BTreeSet;

/// Tables that one record takes at most: two for each of 16,384 devices, and those of their nodes, racks and plant.
pub const TABLES_MAX: usize = 65_536;
/// Letters of a table's name at most.
pub const NAME_MAX: usize = 64;
/// Series that one table takes at most.
pub const SERIES_MAX: usize = 1024;

/// A frame that no reader could make sense of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    #[error("the first frame is not the opening one")]
    NotOpened,
    #[error("the run opens twice")]
    OpenedTwice,
    #[error("a frame follows the closing one; a run that has ended can only be sealed")]
    AfterClosed,
    #[error("table name `{0}` is not 1 to 64 of a-z, 0-9 and `-`")]
    TableName(String),
    #[error("two tables are called `{0}`")]
    TableTwice(String),
    #[error("table {id} is declared where {expected} is due")]
    TableId { id: u32, expected: usize },
    #[error("table {0} is declared again in another form")]
    TableChanged(u32),
    #[error("{found} tables or series are declared, {limit} can be kept")]
    TooMany { found: usize, limit: usize },
    #[error("table `{table}` has two series called `{series}`")]
    SeriesTwice { table: String, series: String },
    #[error("a frame names table {table}, of which {count} are declared")]
    UnknownTable { table: u32, count: usize },
    #[error("a frame names device {device}, of which {count} are planned")]
    UnknownDevice { device: u32, count: usize },
    #[error("a frame names segment {segment}, of which {count} are planned")]
    UnknownSegment { segment: u32, count: usize },
    #[error("events are told together that do not happen over and over")]
    NotKin,
    #[error("table {table}: {columns} columns for {series} series, or columns of unequal length")]
    Ragged {
        table: u32,
        columns: usize,
        series: usize,
    },
}

/// The declarations so far.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    devices: Option<usize>,
    segments: usize,
    tables: Vec<Table>,
    names: BTreeSet<String>,
    closed: bool,
}

/// How far declarations had come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Declared {
    opened: bool,
    tables: usize,
    closed: bool,
}

impl Shape {
    /// How far it is.
    pub const fn declared(&self) -> Declared {
        Declared {
            opened: self.devices.is_some(),
            tables: self.tables.len(),
            closed: self.closed,
        }
    }

    /// Forgets what was declared since.
    pub fn back_to(&mut self, declared: Declared) {
        let since = declared.tables.min(self.tables.len());
        for table in self.tables.drain(since..) {
            self.names.remove(&table.name);
        }
        if !declared.opened {
            *self = Self::default();
        }
        self.closed = declared.closed;
    }

    /// Takes one frame into account.
    ///
    /// # Errors
    /// [`ShapeError`] for a frame that contradicts those before; the account is then unchanged.
    pub fn check(&mut self, frame: &Frame) -> Result<(), ShapeError> {
        let Some(devices) = self.devices else {
            let Frame::Opened(opened) = frame else {
                return Err(ShapeError::NotOpened);
            };
            self.devices = Some(opened.plan.devices.len());
            self.segments = opened.plan.schedule.len();
            return Ok(());
        };
        if self.closed {
            return Err(ShapeError::AfterClosed);
        }
        match frame {
            Frame::Opened(_) => Err(ShapeError::OpenedTwice),
            Frame::Table(table) => self.table(table, devices),
            Frame::Samples(samples) => self.samples(samples),
            Frame::Steps(Steps { device, .. }) => known_device(Some(*device), devices),
            Frame::Event(event) => self.event(event, devices),
            Frame::Closed(_) => {
                self.closed = true;
                Ok(())
            }
        }
    }

    /// The tables declared so far, by id.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Whether the closing frame was seen.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    fn table(&mut self, table: &Table, devices: usize) -> Result<(), ShapeError> {
        if let Some(before) = self.tables.get(table.id as usize) {
            // A resumed run declares its sensors anew.
            let same = before == table;
            return if same {
                Ok(())
            } else {
                Err(ShapeError::TableChanged(table.id))
            };
        }
        let expected = self.tables.len();
        if table.id as usize != expected {
            return Err(ShapeError::TableId {
                id: table.id,
                expected,
            });
        }
        for (found, limit) in [(expected + 1, TABLES_MAX), (table.series.len(), SERIES_MAX)] {
            if found > limit {
                return Err(ShapeError::TooMany { found, limit });
            }
        }
        if !is_table_name(&table.name) {
            return Err(ShapeError::TableName(table.name.clone()));
        }
        if self.names.contains(&table.name) {
            return Err(ShapeError::TableTwice(table.name.clone()));
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = column_names(table)
            .into_iter()
            .find(|n| !names.insert(n.clone()))
        {
            return Err(ShapeError::SeriesTwice {
                table: table.name.clone(),
                series: twice,
            });
        }
        known_device(table.device, devices)?;
        self.names.insert(table.name.clone());
        self.tables.push(table.clone());
        Ok(())
    }

    fn event(&self, event: &Event, devices: usize) -> Result<(), ShapeError> {
        known_device(event.device, devices)?;
        let count = self.tables.len();
        let told = match &event.what {
            What::More { latest, .. } if latest.kin().is_none() => return Err(ShapeError::NotKin),
            What::More { latest, .. } => latest,
            what => what,
        };
        match *told {
            What::Segment { index } if index as usize >= self.segments => {
                Err(ShapeError::UnknownSegment {
                    segment: index,
                    count: self.segments,
                })
            }
            What::Gap { table, .. } if table as usize >= count => {
                Err(ShapeError::UnknownTable { table, count })
            }
            _ => Ok(()),
        }
    }

    fn samples(&self, samples: &Samples) -> Result<(), ShapeError> {
        let count = self.tables.len();
        let table = self
            .tables
            .get(samples.table as usize)
            .ok_or(ShapeError::UnknownTable {
                table: samples.table,
                count,
            })?;
        let rows = samples.at_ns.len();
        let series = table.series.len();
        if samples.columns.len() != series || samples.columns.iter().any(|c| c.len() != rows) {
            return Err(ShapeError::Ragged {
                table: samples.table,
                columns: samples.columns.len(),
                series,
            });
        }
        Ok(())
    }
}

/// Whether a table's name can be part of a file name on every system.
pub fn is_table_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(plain)
}

/// The columns of a table's file after `at_ns`: `metric.label`, or `metric` where the label is empty.
pub fn column_names(table: &Table) -> Vec<String> {
    let name = |s: &crate::frame::Series| match s.label.as_str() {
        "" => s.metric.id().to_owned(),
        label => format!("{}.{label}", s.metric.id()),
    };
    table.series.iter().map(name).collect()
}

fn known_device(device: Option<u32>, count: usize) -> Result<(), ShapeError> {
    match device {
        Some(device) if device as usize >= count => {
            Err(ShapeError::UnknownDevice { device, count })
        }
        _ => Ok(()),
    }
}
