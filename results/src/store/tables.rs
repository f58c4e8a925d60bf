//! Frames as rows of the record's Parquet files, and those rows as frames again.
//!
//! Decides the columns of each file. A gauge is kept in 32 bits only where that loses nothing, so that
//! the sealed verdict is the live one to the last bit.

use super::columns::{Column, Kind, Spec};
use super::shape::column_names;
use crate::frame::{OpRow, Samples, SeriesKind, StepRow, Steps, Table, TrialRow};

/// Columns of `steps.parquet`.
pub fn step_specs() -> Vec<Spec> {
    let columns = [
        ("device", Kind::Short),
        ("device_clock", Kind::Flag),
        ("seq", Kind::Long),
        ("segment", Kind::Short),
        ("due_ns", Kind::Long),
        ("start_ns", Kind::Long),
        ("end_ns", Kind::Long),
        ("compute_ns", Kind::Long),
        ("reduce_ns", Kind::Long),
        ("optimizer_ns", Kind::Long),
        ("flop", Kind::Double),
        ("audited", Kind::Short),
        ("audited_flop", Kind::Double),
        ("gemms", Kind::Short),
        ("reduced_bytes", Kind::Long),
        ("memory_bytes", Kind::Long),
        ("memory_ns", Kind::Long),
        ("skew_ns", Kind::Long),
    ];
    columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec()
}

/// Columns of `ops.parquet`.
pub fn op_specs() -> Vec<Spec> {
    let columns = [
        ("device", Kind::Short),
        ("device_clock", Kind::Flag),
        ("seq", Kind::Long),
        ("start_ns", Kind::Long),
        ("end_ns", Kind::Long),
        ("bytes", Kind::Long),
    ];
    columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec()
}

/// Columns of `sweep.parquet`.
pub fn trial_specs() -> Vec<Spec> {
    let columns = [
        ("device", Kind::Short),
        ("device_clock", Kind::Flag),
        ("seq", Kind::Long),
        ("index", Kind::Short),
        ("bytes", Kind::Long),
        ("in_place", Kind::Flag),
        ("warm_up", Kind::Flag),
        ("due_ns", Kind::Long),
        ("start_ns", Kind::Long),
        ("arrived_ns", Kind::Long),
        ("end_ns", Kind::Long),
        ("wrong", Kind::Long),
    ];
    columns.map(|(name, kind)| (name.to_owned(), kind)).to_vec()
}

/// Columns of a table's file. `narrow`: for each series whether 32 bits hold all its values.
pub fn sample_specs(table: &Table, narrow: &[bool]) -> Vec<Spec> {
    let mut specs = vec![("at_ns".to_owned(), Kind::Long)];
    let series = column_names(table)
        .into_iter()
        .zip(&table.series)
        .zip(narrow);
    specs.extend(series.map(|((name, series), narrow)| {
        let gauge = series.kind == SeriesKind::Gauge;
        (
            name,
            if gauge && *narrow {
                Kind::Float32
            } else {
                Kind::Float64
            },
        )
    }));
    specs
}

/// What a reader expects of a table's file: gauges in either width.
pub fn expected_specs(table: &Table) -> Vec<Spec> {
    sample_specs(table, &vec![true; table.series.len()])
}

/// Whether 32 bits hold this value; NaN is a null in either width.
pub fn is_narrow(value: f64) -> bool {
    value.is_nan() || f64::from(value as f32).to_bits() == value.to_bits()
}

fn put_u64(columns: &mut [Column], index: usize, values: impl Iterator<Item = u64>) {
    if let Some(Column::Long(column)) = columns.get_mut(index) {
        column.extend(values);
    }
}

fn put_u32(columns: &mut [Column], index: usize, values: impl Iterator<Item = u32>) {
    if let Some(Column::Short(column)) = columns.get_mut(index) {
        column.extend(values);
    }
}

fn put_f64(columns: &mut [Column], index: usize, values: impl Iterator<Item = f64>) {
    if let Some(Column::Float(column)) = columns.get_mut(index) {
        column.extend(values);
    }
}

fn put_flags(columns: &mut [Column], index: usize, values: impl Iterator<Item = bool>) {
    if let Some(Column::Flag(column)) = columns.get_mut(index) {
        column.extend(values);
    }
}

fn put_origin(columns: &mut [Column], steps: &Steps, rows: usize) {
    put_u32(columns, 0, std::iter::repeat_n(steps.device, rows));
    put_flags(columns, 1, std::iter::repeat_n(steps.device_clock, rows));
}

/// Appends a frame's steps to columns of [`step_specs`].
pub fn put_steps(columns: &mut [Column], steps: &Steps, rows: &[StepRow]) {
    put_origin(columns, steps, rows.len());
    put_u64(columns, 2, rows.iter().map(|r| r.seq));
    put_u32(columns, 3, rows.iter().map(|r| r.segment));
    put_u64(columns, 4, rows.iter().map(|r| r.due_ns));
    put_u64(columns, 5, rows.iter().map(|r| r.start_ns));
    put_u64(columns, 6, rows.iter().map(|r| r.end_ns));
    put_u64(columns, 7, rows.iter().map(|r| r.compute_ns));
    put_u64(columns, 8, rows.iter().map(|r| r.reduce_ns));
    put_u64(columns, 9, rows.iter().map(|r| r.optimizer_ns));
    put_f64(columns, 10, rows.iter().map(|r| r.flop));
    put_u32(columns, 11, rows.iter().map(|r| r.audited));
    put_f64(columns, 12, rows.iter().map(|r| r.audited_flop));
    put_u32(columns, 13, rows.iter().map(|r| r.gemms));
    put_u64(columns, 14, rows.iter().map(|r| r.reduced_bytes));
    put_u64(columns, 15, rows.iter().map(|r| r.memory_bytes));
    put_u64(columns, 16, rows.iter().map(|r| r.memory_ns));
    put_u64(columns, 17, rows.iter().map(|r| r.skew_ns));
}

/// Appends a frame's operations to columns of [`op_specs`].
pub fn put_ops(columns: &mut [Column], steps: &Steps, ops: &[OpRow]) {
    put_origin(columns, steps, ops.len());
    put_u64(columns, 2, ops.iter().map(|r| r.seq));
    put_u64(columns, 3, ops.iter().map(|r| r.start_ns));
    put_u64(columns, 4, ops.iter().map(|r| r.end_ns));
    put_u64(columns, 5, ops.iter().map(|r| r.bytes));
}

/// Appends a frame's trials to columns of [`trial_specs`].
pub fn put_trials(columns: &mut [Column], steps: &Steps, trials: &[TrialRow]) {
    put_origin(columns, steps, trials.len());
    put_u64(columns, 2, trials.iter().map(|r| r.seq));
    put_u32(columns, 3, trials.iter().map(|r| r.index));
    put_u64(columns, 4, trials.iter().map(|r| r.bytes));
    put_flags(columns, 5, trials.iter().map(|r| r.in_place));
    put_flags(columns, 6, trials.iter().map(|r| r.warm_up));
    put_u64(columns, 7, trials.iter().map(|r| r.due_ns));
    put_u64(columns, 8, trials.iter().map(|r| r.start_ns));
    put_u64(columns, 9, trials.iter().map(|r| r.arrived_ns));
    put_u64(columns, 10, trials.iter().map(|r| r.end_ns));
    put_u64(columns, 11, trials.iter().map(|r| r.wrong));
}

/// Appends rows of a frame's samples to columns of [`sample_specs`].
pub fn put_samples(columns: &mut [Column], samples: &Samples, rows: std::ops::Range<usize>) {
    put_u64(columns, 0, samples.at_ns[rows.clone()].iter().copied());
    for (index, values) in samples.columns.iter().enumerate() {
        put_f64(columns, index + 1, values[rows.clone()].iter().copied());
    }
}

fn long(columns: &[Column], index: usize, row: usize) -> u64 {
    match columns.get(index) {
        Some(Column::Long(values)) => values[row],
        _ => 0,
    }
}

fn small(columns: &[Column], index: usize, row: usize) -> u32 {
    match columns.get(index) {
        Some(Column::Short(values)) => values[row],
        _ => 0,
    }
}

fn float(columns: &[Column], index: usize, row: usize) -> f64 {
    match columns.get(index) {
        Some(Column::Float(values)) => values[row],
        _ => f64::NAN,
    }
}

fn flag(columns: &[Column], index: usize, row: usize) -> bool {
    matches!(columns.get(index), Some(Column::Flag(values)) if values[row])
}

fn origin(columns: &[Column], row: usize) -> (u32, bool) {
    (small(columns, 0, row), flag(columns, 1, row))
}

/// One frame for each stretch of rows of one device; `fill` gets the frame and its rows.
fn runs(
    columns: &[Column],
    rows: usize,
    mut fill: impl FnMut(&mut Steps, std::ops::Range<usize>),
) -> Vec<Steps> {
    let mut frames: Vec<Steps> = Vec::new();
    let mut from = 0;
    while from < rows {
        let (device, device_clock) = origin(columns, from);
        let same = |row: &usize| origin(columns, *row) == (device, device_clock);
        let to = from + (from..rows).take_while(same).count();
        let mut frame = Steps {
            device,
            device_clock,
            rows: Vec::new(),
            ops: Vec::new(),
            trials: Vec::new(),
        };
        fill(&mut frame, from..to);
        frames.push(frame);
        from = to;
    }
    frames
}

/// Rows of `steps.parquet` as frames: neighbours of one device in one frame, their order kept.
pub fn take_steps(columns: &[Column], rows: usize) -> Vec<Steps> {
    runs(columns, rows, |frame, range| {
        let step = |row| StepRow {
            seq: long(columns, 2, row),
            segment: small(columns, 3, row),
            due_ns: long(columns, 4, row),
            start_ns: long(columns, 5, row),
            end_ns: long(columns, 6, row),
            compute_ns: long(columns, 7, row),
            reduce_ns: long(columns, 8, row),
            optimizer_ns: long(columns, 9, row),
            flop: float(columns, 10, row),
            audited: small(columns, 11, row),
            audited_flop: float(columns, 12, row),
            gemms: small(columns, 13, row),
            reduced_bytes: long(columns, 14, row),
            memory_bytes: long(columns, 15, row),
            memory_ns: long(columns, 16, row),
            skew_ns: long(columns, 17, row),
        };
        frame.rows = range.map(step).collect();
    })
}

/// Rows of `ops.parquet` as frames without steps, their order kept.
pub fn take_ops(columns: &[Column], rows: usize) -> Vec<Steps> {
    runs(columns, rows, |frame, range| {
        let op = |row| OpRow {
            seq: long(columns, 2, row),
            start_ns: long(columns, 3, row),
            end_ns: long(columns, 4, row),
            bytes: long(columns, 5, row),
        };
        frame.ops = range.map(op).collect();
    })
}

/// Rows of `sweep.parquet` as frames without steps, their order kept.
pub fn take_trials(columns: &[Column], rows: usize) -> Vec<Steps> {
    runs(columns, rows, |frame, range| {
        let trial = |row| TrialRow {
            seq: long(columns, 2, row),
            index: small(columns, 3, row),
            bytes: long(columns, 4, row),
            in_place: flag(columns, 5, row),
            warm_up: flag(columns, 6, row),
            due_ns: long(columns, 7, row),
            start_ns: long(columns, 8, row),
            arrived_ns: long(columns, 9, row),
            end_ns: long(columns, 10, row),
            wrong: long(columns, 11, row),
        };
        frame.trials = range.map(trial).collect();
    })
}

/// Rows of a table's file as a frame.
pub fn take_samples(table: u32, columns: Vec<Column>) -> Samples {
    let mut samples = Samples {
        table,
        ..Samples::default()
    };
    for column in columns {
        match column {
            Column::Long(at_ns) => samples.at_ns = at_ns,
            Column::Float(values) => samples.columns.push(values),
            Column::Short(_) | Column::Flag(_) => {}
        }
    }
    samples
}
