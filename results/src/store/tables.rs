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

fn longs(columns: &[Column], index: usize) -> &[u64] {
    match columns.get(index) {
        Some(Column::Long(values)) => values,
        _ => &[],
    }
}

fn shorts(columns: &[Column], index: usize) -> &[u32] {
    match columns.get(index) {
        Some(Column::Short(values)) => values,
        _ => &[],
    }
}

fn floats(columns: &[Column], index: usize) -> &[f64] {
    match columns.get(index) {
        Some(Column::Float(values)) => values,
        _ => &[],
    }
}

fn flags(columns: &[Column], index: usize) -> &[bool] {
    match columns.get(index) {
        Some(Column::Flag(values)) => values,
        _ => &[],
    }
}

/// One frame for each stretch of rows of one device, the same one each time: neighbours mostly belong to two devices, and
/// memory for each row would cost more than the row. `fill` puts a stretch into the frame, `each` is shown it.
fn stretches(
    columns: &[Column],
    rows: usize,
    fill: impl Fn(&mut Steps, std::ops::Range<usize>),
    each: &mut dyn FnMut(&Steps) -> bool,
) -> bool {
    let (devices, clocks) = (shorts(columns, 0), flags(columns, 1));
    let rows = rows.min(devices.len()).min(clocks.len());
    let mut frame = Steps {
        device: 0,
        device_clock: false,
        rows: Vec::new(),
        ops: Vec::new(),
        trials: Vec::new(),
    };
    let mut from = 0;
    while from < rows {
        (frame.device, frame.device_clock) = (devices[from], clocks[from]);
        let same = |row: &usize| (devices[*row], clocks[*row]) == (devices[from], clocks[from]);
        let to = from + (from..rows).take_while(same).count();
        fill(&mut frame, from..to);
        if !each(&frame) {
            return false;
        }
        from = to;
    }
    true
}

/// Shows `each` the rows of `steps.parquet` as frames: neighbours of one device in one frame, their order kept. It says
/// whether it wants more, and so does this.
pub fn each_steps(columns: &[Column], rows: usize, each: &mut dyn FnMut(&Steps) -> bool) -> bool {
    let long = |index| longs(columns, index);
    let (seq, segment) = (long(2), shorts(columns, 3));
    let (due_ns, start_ns, end_ns) = (long(4), long(5), long(6));
    let (compute_ns, reduce_ns, optimizer_ns) = (long(7), long(8), long(9));
    let (flop, audited_flop) = (floats(columns, 10), floats(columns, 12));
    let (audited, gemms) = (shorts(columns, 11), shorts(columns, 13));
    let (reduced_bytes, memory_bytes) = (long(14), long(15));
    let (memory_ns, skew_ns) = (long(16), long(17));
    let step = |row: usize| StepRow {
        seq: seq[row],
        segment: segment[row],
        due_ns: due_ns[row],
        start_ns: start_ns[row],
        end_ns: end_ns[row],
        compute_ns: compute_ns[row],
        reduce_ns: reduce_ns[row],
        optimizer_ns: optimizer_ns[row],
        flop: flop[row],
        audited: audited[row],
        audited_flop: audited_flop[row],
        gemms: gemms[row],
        reduced_bytes: reduced_bytes[row],
        memory_bytes: memory_bytes[row],
        memory_ns: memory_ns[row],
        skew_ns: skew_ns[row],
    };
    let fill = |frame: &mut Steps, range: std::ops::Range<usize>| {
        frame.rows.clear();
        frame.rows.extend(range.map(step));
    };
    stretches(columns, rows, fill, each)
}

/// Shows `each` the rows of `ops.parquet` as frames without steps, as [`each_steps`].
pub fn each_ops(columns: &[Column], rows: usize, each: &mut dyn FnMut(&Steps) -> bool) -> bool {
    let long = |index| longs(columns, index);
    let (seq, start_ns, end_ns, bytes) = (long(2), long(3), long(4), long(5));
    let op = |row: usize| OpRow {
        seq: seq[row],
        start_ns: start_ns[row],
        end_ns: end_ns[row],
        bytes: bytes[row],
    };
    let fill = |frame: &mut Steps, range: std::ops::Range<usize>| {
        frame.ops.clear();
        frame.ops.extend(range.map(op));
    };
    stretches(columns, rows, fill, each)
}

/// Shows `each` the rows of `sweep.parquet` as frames without steps, as [`each_steps`].
pub fn each_trials(columns: &[Column], rows: usize, each: &mut dyn FnMut(&Steps) -> bool) -> bool {
    let long = |index| longs(columns, index);
    let (seq, index, bytes) = (long(2), shorts(columns, 3), long(4));
    let (in_place, warm_up) = (flags(columns, 5), flags(columns, 6));
    let (due_ns, start_ns) = (long(7), long(8));
    let (arrived_ns, end_ns, wrong) = (long(9), long(10), long(11));
    let trial = |row: usize| TrialRow {
        seq: seq[row],
        index: index[row],
        bytes: bytes[row],
        in_place: in_place[row],
        warm_up: warm_up[row],
        due_ns: due_ns[row],
        start_ns: start_ns[row],
        arrived_ns: arrived_ns[row],
        end_ns: end_ns[row],
        wrong: wrong[row],
    };
    let fill = |frame: &mut Steps, range: std::ops::Range<usize>| {
        frame.trials.clear();
        frame.trials.extend(range.map(trial));
    };
    stretches(columns, rows, fill, each)
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
