//! Series from a CSV file of an earlier measurement, e.g. a hall's power meters.
//!
//! Decides: which column is which metric in which unit, and which row holds at an instant. Its
//! provenance is *replayed*, never *measured*. Refuses: an unknown metric or unit, time that does
//! not grow, text that is no number, and files beyond its bounds; each with file and line. A row
//! holds until the next, but never longer than three of the file's usual steps: beyond that, before
//! the first row and after the last there is no value.
//!
//! ```text
//! at_s,power_draw.average (W),rack_density.rack-7 (kW)
//! 0,612.5,28.1
//! 1,,28.3
//! ```
//! A head is `metric.label (unit)`; the label may be left out, and so may the unit of a plain
//! ratio. An empty cell is no value.

use super::host::sysfs;
use super::{Description, Reading, Sensor, Trouble};
use hallmark_profiles::metric::{Metric, UnknownMetric};
use hallmark_profiles::quantity::{Quantity, QuantityError};
use hallmark_profiles::units::Unit;
use hallmark_results::frame::{Provenance, Series, SeriesKind};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

const FILE_BYTES_MAX: u64 = 256 << 20;
const LINE_BYTES_MAX: usize = 64 << 10;
/// The time's own column not counted.
const COLUMNS_MAX: usize = 256;
/// An empty cell takes one byte in the file and eight here; this many take 256 MiB.
const CELLS_MAX: usize = 32 << 20;
const LABEL_BYTES_MAX: usize = 64;
/// Characters of the file's name that become part of the table's.
const STEM_CHARS_MAX: usize = 40;
/// Rows further apart than this many of the usual steps leave a gap between them.
const HELD_STEPS_MAX: u64 = 3;
/// 100 days, as for every other duration.
const AT_S_MAX: f64 = 100.0 * 86_400.0;
const NS_PER_S: f64 = 1e9;
const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("cannot read {file}: {why}")]
    Unreadable { file: String, why: io::Error },
    #[error(
        "{file} has {bytes} bytes; a replay reads at most {FILE_BYTES_MAX}: thin its rows or split it"
    )]
    TooLarge { file: String, bytes: u64 },
    #[error(
        "{file} has {rows} rows of values; a replay needs at least 2, to know how long one holds"
    )]
    TooFewRows { file: String, rows: usize },
    #[error("{file}:{line}: {what}")]
    Line {
        file: String,
        line: u64,
        what: Box<LineError>,
    },
}

/// What is wrong with one line of the file.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("longer than {LINE_BYTES_MAX} bytes; is this a CSV file?")]
    TooLong,
    #[error("not UTF-8 text; save the file as UTF-8")]
    NotText,
    #[error("the first column is `{found}`, not `at_s`; write such as `at_s,power_draw (W)`")]
    NoTime { found: String },
    #[error("no column beside `at_s`; write such as `at_s,power_draw (W)`")]
    NoColumn,
    #[error("{found} columns beside `at_s`; a replay takes at most {COLUMNS_MAX}")]
    TooManyColumns { found: usize },
    #[error(transparent)]
    Metric(#[from] UnknownMetric),
    #[error("{0}")]
    Unit(QuantityError),
    #[error("`{head}` is in {found}, {metric} needs {wanted}; write such as `{metric} ({wanted})`")]
    WrongUnit {
        head: String,
        metric: Metric,
        found: Unit,
        wanted: Unit,
    },
    #[error(
        "label of `{head}` is not 1 to {LABEL_BYTES_MAX} letters, digits, spaces and `-_.:/+#`; \
         write such as `power_draw.rack-7 (W)`"
    )]
    Label { head: String },
    #[error(
        "two columns are `{head}`; tell them apart by a label, such as `power_draw.rack-7 (W)`"
    )]
    Twice { head: String },
    #[error("{found} cells under {wanted} heads; leave a cell empty where there is no value")]
    Ragged { found: usize, wanted: usize },
    #[error(
        "`{cell}` under `{head}` is no finite number; leave the cell empty where there is none"
    )]
    NoNumber { cell: String, head: String },
    #[error("time {cell} s is outside of 0 to {AT_S_MAX} s; count from the start of the run")]
    TimeRange { cell: String },
    #[error("time {cell} s is not after the row before; sort the rows by time")]
    TimeOrder { cell: String },
    #[error("more than {CELLS_MAX} cells so far; thin the rows or split the file")]
    TooManyCells,
}

/// A file of an earlier measurement, held in memory.
#[derive(Debug)]
pub struct ReplaySensor {
    /// `replay-meters-1b2c3d4e`: the file's name and a digest of where it lies.
    name: String,
    source: String,
    columns: Vec<Column>,
    /// Strictly growing; at least two.
    at_ns: Vec<u64>,
    /// Row by row.
    cells: Vec<f64>,
    /// Median distance of neighbouring rows.
    step_ns: u64,
}

#[derive(Debug)]
struct Column {
    /// As the file spells it.
    head: String,
    series: Series,
    /// How many of the series' units make one of the file's.
    factor: f64,
}

impl ReplaySensor {
    /// Reads and checks the whole file.
    ///
    /// # Errors
    /// [`ReplayError`], with file and line where there is one.
    pub fn open(path: &Path) -> Result<Self, ReplayError> {
        let unreadable = |why| ReplayError::Unreadable {
            file: shown(&path.to_string_lossy()),
            why,
        };
        let about = std::fs::metadata(path).map_err(unreadable)?;
        if !about.is_file() {
            // A pipe or a device may never end.
            let why = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(unreadable(why));
        }
        if about.len() > FILE_BYTES_MAX {
            return Err(ReplayError::TooLarge {
                file: shown(&path.to_string_lossy()),
                bytes: about.len(),
            });
        }
        let file = File::open(path).map_err(unreadable)?;
        Self::parse(BufReader::new(file), path)
    }

    /// Reads and checks CSV text; `path` names it in errors and in the record.
    ///
    /// # Errors
    /// As [`ReplaySensor::open`].
    pub fn parse(text: impl BufRead, path: &Path) -> Result<Self, ReplayError> {
        let mut lines = Lines::new(text, path);
        let mut rows = Rows::default();
        let mut columns: Option<Vec<Column>> = None;
        while let Some(line) = lines.next()? {
            if line.trim().is_empty() {
                continue;
            }
            let taken = match &columns {
                None => heads(line).map(|heads| columns = Some(heads)),
                Some(columns) => rows.push(line, columns),
            };
            taken.map_err(|what| lines.error(what))?;
        }
        let columns = columns.ok_or_else(|| {
            let found = String::new();
            lines.error(LineError::NoTime { found })
        })?;
        let step_ns = median_step(&rows.at_ns).ok_or_else(|| ReplayError::TooFewRows {
            file: shown(&path.to_string_lossy()),
            rows: rows.at_ns.len(),
        })?;
        Ok(Self {
            name: table_name(path),
            source: format!("CSV file {}", shown(&path.to_string_lossy())),
            columns,
            at_ns: rows.at_ns,
            cells: rows.cells,
            step_ns,
        })
    }

    /// The row that holds at `now_ns`, or why none does.
    fn row(&self, now_ns: u64) -> Result<&[f64], Trouble> {
        let next = self.at_ns.partition_point(|at_ns| *at_ns <= now_ns);
        let time = |row: usize| seconds(self.at_ns.get(row).copied().unwrap_or_default());
        let Some(row) = next.checked_sub(1) else {
            let why = format!("the file begins at {} s", time(0));
            return Err(Trouble::Failed(why));
        };
        let held_ns = now_ns - self.at_ns[row];
        if next == self.at_ns.len() && held_ns >= self.step_ns {
            let why = format!("the file ends at {} s", time(row));
            return Err(Trouble::Lost(why));
        }
        if held_ns > self.step_ns.saturating_mul(HELD_STEPS_MAX) {
            let why = format!(
                "the file has no row from {} s to {} s",
                time(row),
                time(next)
            );
            return Err(Trouble::Failed(why));
        }
        let width = self.columns.len();
        let cells = self.cells.get(row * width..(row + 1) * width);
        let cells = cells.unwrap_or_default();
        if cells.iter().all(|cell| cell.is_nan()) {
            let why = format!("the row at {} s is empty", time(row));
            return Err(Trouble::Failed(why));
        }
        Ok(cells)
    }
}

impl Sensor for ReplaySensor {
    fn describe(&self) -> Description {
        Description {
            name: self.name.clone(),
            source: self.source.clone(),
            provenance: Provenance::Replayed,
            device: None,
            series: self.columns.iter().map(|c| c.series.clone()).collect(),
        }
    }

    fn as_found(&mut self) -> Vec<(String, String)> {
        let (first, last) = (self.at_ns.first(), self.at_ns.last());
        let span = format!(
            "{} rows from {} s to {} s, usually {} s apart",
            self.at_ns.len(),
            seconds(first.copied().unwrap_or_default()),
            seconds(last.copied().unwrap_or_default()),
            seconds(self.step_ns),
        );
        let heads: Vec<_> = self.columns.iter().map(|c| c.head.as_str()).collect();
        vec![
            (format!("{}.rows", self.name), span),
            (format!("{}.columns", self.name), heads.join(", ")),
        ]
    }

    fn read(&mut self, now_ns: u64) -> Reading {
        match self.row(now_ns) {
            Ok(cells) => Reading {
                values: cells.to_vec(),
                ..Reading::default()
            },
            Err(trouble) => Reading {
                values: vec![f64::NAN; self.columns.len()],
                trouble: Some(trouble),
                events: Vec::new(),
            },
        }
    }
}

/// Lines of a file, numbered and bounded.
struct Lines<T> {
    text: T,
    path: String,
    line: u64,
    bytes: u64,
    buffer: Vec<u8>,
}

impl<T: BufRead> Lines<T> {
    fn new(text: T, path: &Path) -> Self {
        Self {
            text,
            path: shown(&path.to_string_lossy()),
            line: 0,
            bytes: 0,
            buffer: Vec::new(),
        }
    }

    fn next(&mut self) -> Result<Option<&str>, ReplayError> {
        self.buffer.clear();
        let mut bounded = self.text.by_ref().take(LINE_BYTES_MAX as u64 + 1);
        let read = bounded.read_until(b'\n', &mut self.buffer);
        let length = read.map_err(|why| ReplayError::Unreadable {
            file: self.path.clone(),
            why,
        })?;
        if length == 0 {
            return Ok(None);
        }
        self.line += 1;
        self.bytes += length as u64;
        if self.bytes > FILE_BYTES_MAX {
            return Err(ReplayError::TooLarge {
                file: self.path.clone(),
                bytes: self.bytes,
            });
        }
        if length > LINE_BYTES_MAX {
            return Err(self.error(LineError::TooLong));
        }
        let marked = self.line == 1 && self.buffer.starts_with(&BYTE_ORDER_MARK);
        let text = &self.buffer[if marked { BYTE_ORDER_MARK.len() } else { 0 }..];
        match std::str::from_utf8(text) {
            Ok(text) => Ok(Some(text.trim_end_matches(['\n', '\r']))),
            Err(_) => Err(self.error(LineError::NotText)),
        }
    }

    fn error(&self, what: LineError) -> ReplayError {
        ReplayError::Line {
            file: self.path.clone(),
            line: self.line.max(1),
            what: Box::new(what),
        }
    }
}

/// The columns beside the time, by the file's first line.
fn heads(line: &str) -> Result<Vec<Column>, LineError> {
    let mut cells = line.split(',').map(str::trim);
    let found = cells.next().unwrap_or_default();
    if found != "at_s" {
        let found = shown(found);
        return Err(LineError::NoTime { found });
    }
    let found = cells.clone().count();
    match found {
        0 => return Err(LineError::NoColumn),
        1..=COLUMNS_MAX => {}
        _ => return Err(LineError::TooManyColumns { found }),
    }
    let mut columns: Vec<Column> = Vec::with_capacity(found);
    for head in cells {
        let column = column(head)?;
        let is_same = |other: &Column| {
            other.series.metric == column.series.metric && other.series.label == column.series.label
        };
        if columns.iter().any(is_same) {
            let head = shown(head);
            return Err(LineError::Twice { head });
        }
        columns.push(column);
    }
    Ok(columns)
}

/// `metric.label (unit)`, with label and unit optional.
fn column(head: &str) -> Result<Column, LineError> {
    let (name, unit) = match head.strip_suffix(')').and_then(|h| h.rsplit_once('(')) {
        Some((name, unit)) => (name.trim_end(), unit.trim()),
        None => (head, ""),
    };
    let (metric, label) = match name.split_once('.') {
        Some((metric, label)) => (metric, Some(label)),
        None => (name, None),
    };
    let metric: Metric = metric.parse()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b" -_.:/+#".contains(&b);
    if label.is_some_and(|l| l.is_empty() || l.len() > LABEL_BYTES_MAX || !l.bytes().all(plain)) {
        let head = shown(head);
        return Err(LineError::Label { head });
    }
    let wanted = metric.spec().unit;
    let one: Quantity = format!("1 {unit}").parse().map_err(LineError::Unit)?;
    let factor = one.in_unit(wanted).map_err(|_| LineError::WrongUnit {
        head: shown(head),
        metric,
        found: one.unit,
        wanted,
    })?;
    let series = Series {
        metric,
        label: label.unwrap_or_default().to_owned(),
        unit: wanted,
        kind: kind(metric),
        averaging_ns: None,
        accuracy: None,
    };
    let head = head.to_owned();
    Ok(Column {
        head,
        series,
        factor,
    })
}

/// Metrics that the catalogue makes from a meter's counter are replayed as the counter stood.
fn kind(metric: Metric) -> SeriesKind {
    match metric {
        Metric::Energy
        | Metric::Xid
        | Metric::Ecc
        | Metric::EccCorrected
        | Metric::RowRemap
        | Metric::NvlinkErr
        | Metric::PcieReplay
        | Metric::LinkFlaps => SeriesKind::Counter,
        _ => SeriesKind::Gauge,
    }
}

#[derive(Default)]
struct Rows {
    at_ns: Vec<u64>,
    cells: Vec<f64>,
}

impl Rows {
    fn push(&mut self, line: &str, columns: &[Column]) -> Result<(), LineError> {
        let found = line.split(',').count();
        let wanted = columns.len() + 1;
        if found != wanted {
            return Err(LineError::Ragged { found, wanted });
        }
        if self.cells.len() + columns.len() > CELLS_MAX {
            return Err(LineError::TooManyCells);
        }
        let mut cells = line.split(',').map(str::trim);
        let at_ns = time(cells.next().unwrap_or_default())?;
        if self.at_ns.last().is_some_and(|before| *before >= at_ns) {
            let cell = seconds(at_ns).to_string();
            return Err(LineError::TimeOrder { cell });
        }
        for (cell, column) in cells.zip(columns) {
            let value = if cell.is_empty() {
                f64::NAN
            } else {
                let scaled = sysfs::parse(cell).map(|number| number * column.factor);
                let finite = scaled.filter(|value| value.is_finite());
                finite.ok_or_else(|| no_number(cell, &column.head))?
            };
            self.cells.push(value);
        }
        self.at_ns.push(at_ns);
        Ok(())
    }
}

fn time(cell: &str) -> Result<u64, LineError> {
    let at_s = sysfs::parse(cell).ok_or_else(|| no_number(cell, "at_s"))?;
    if !(0.0..=AT_S_MAX).contains(&at_s) {
        let cell = shown(cell);
        return Err(LineError::TimeRange { cell });
    }
    Ok((at_s * NS_PER_S).round() as u64)
}

fn no_number(cell: &str, head: &str) -> LineError {
    LineError::NoNumber {
        cell: shown(cell),
        head: shown(head),
    }
}

/// The lower median, so that it is a step of the file; `None` below two rows.
fn median_step(at_ns: &[u64]) -> Option<u64> {
    let mut steps: Vec<u64> = at_ns.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let middle = steps.len().checked_sub(1)? / 2;
    Some(*steps.select_nth_unstable(middle).1)
}

fn seconds(at_ns: u64) -> f64 {
    at_ns as f64 / NS_PER_S
}

/// Letters, digits and `-`, as a table's name must be. Files of one name in two folders get two
/// names: the end is a digest (FNV-1a) of the path as it was given.
fn table_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let stem: String = stem.chars().take(STEM_CHARS_MAX).collect();
    let stem = sysfs::name_part(&stem).to_ascii_lowercase();
    let whole = path.as_os_str().as_encoded_bytes();
    let digest = whole.iter().fold(0x811c_9dc5_u32, |digest, byte| {
        (digest ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    format!("replay-{stem}-{digest:08x}")
}

/// Text for an error or a record: one line, no control characters, not endless.
fn shown(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    let plain = |c: char| if c.is_control() { '?' } else { c };
    let mut out: String = text.chars().take(CHARS_MAX).map(plain).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests;
