//! A sealed record is decoded beside whoever reads it: the frames are those that one thread would give, in that order.

use super::*;
use hallmark_results::frame::{OpRow, StepRow, Steps};
use hallmark_results::store::columns::{Column, SheetReader};
use hallmark_results::store::manifest::{OPS, STEPS, table_file};
use hallmark_results::store::read::{BATCH_ROWS, Story};
use hallmark_results::store::tables;

/// Rows of each table, and steps of each device: several batches, the last one not full.
const ROWS: u64 = 2 * BATCH_ROWS as u64 + 777;
const TABLES: u32 = 3;

fn step(device: u32, seq: u64) -> Frame {
    let start_ns = seq * 1000 + u64::from(device);
    let row = StepRow {
        seq,
        due_ns: start_ns,
        start_ns,
        end_ns: start_ns + 900,
        flop: seq as f64 / 3.0,
        ..StepRow::default()
    };
    let op = OpRow {
        seq,
        start_ns,
        end_ns: start_ns + 10,
        bytes: 1 << device,
    };
    Frame::Steps(Steps {
        device,
        device_clock: device == 0,
        rows: vec![row],
        ops: vec![op],
        trials: Vec::new(),
    })
}

fn samples(table: u32) -> Frame {
    let column = |c: u64| {
        let value = |i: u64| match (i + c) % 97 {
            5 => f64::NAN,
            _ => (i * 4 + c) as f64 / 8.0,
        };
        (0..ROWS).map(value).collect()
    };
    Frame::Samples(Samples {
        table,
        at_ns: (0..ROWS)
            .map(|i| i * 1_000_000 + u64::from(table))
            .collect(),
        columns: (0..4).map(column).collect(),
    })
}

/// A record whose devices' steps lie row by row beside each other, as a run writes them.
fn long_record(dir: &Path) -> (Record, Vec<Frame>) {
    let story = Story {
        tables: (0..TABLES)
            .map(|id| run::table(id, &format!("gpu-{id}"), None))
            .collect(),
        ..Story::default()
    };
    let steps = (0..ROWS).flat_map(|seq| [0, 1].map(|device| step(device, seq)));
    let rows: Vec<Frame> = steps.chain((0..TABLES).map(samples)).collect();
    synthesize(dir, &run::opened(), &story, false, rows.iter().cloned()).unwrap();
    (Record::open(dir).unwrap(), rows)
}

/// The rows decoded one file after the other on this thread.
fn sequential(dir: &Path, record: &Record) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut sheet = |name: &str, specs, take: &dyn Fn(Vec<_>, usize) -> Vec<Frame>| {
        let entry = record.manifest().entry(dir, name).unwrap();
        let mut reader = SheetReader::open(dir, entry, specs).unwrap();
        while let Some((columns, rows)) = reader.batch(BATCH_ROWS).unwrap() {
            frames.extend(take(columns, rows));
        }
    };
    type Show = fn(&[Column], usize, &mut dyn FnMut(&Steps) -> bool) -> bool;
    let shown = |show: Show, columns: &[Column], rows: usize| {
        let mut found = Vec::new();
        show(columns, rows, &mut |steps| {
            found.push(Frame::Steps(steps.clone()));
            true
        });
        found
    };
    sheet(STEPS, tables::step_specs(), &|c, n| {
        shown(tables::each_steps, &c, n)
    });
    sheet(OPS, tables::op_specs(), &|c, n| {
        shown(tables::each_ops, &c, n)
    });
    for table in &record.story().tables {
        let specs = tables::expected_specs(table);
        sheet(&table_file(&table.name), specs, &|columns, _| {
            vec![Frame::Samples(tables::take_samples(table.id, columns))]
        });
    }
    frames
}

#[test]
fn frames_decoded_ahead_are_those_of_one_thread_in_its_order() {
    let dir = TempDir::new().unwrap();
    let (record, written) = long_record(dir.path());
    let mut read = all(&record).unwrap();
    let rows = read.split_off(1 + TABLES as usize);
    assert!(same(&rows, &sequential(dir.path(), &record)));
    // A second way: what was written, row by row.
    let flat = |frames: &[Frame]| -> Vec<String> {
        let mut steps = Vec::new();
        let mut ops = Vec::new();
        let mut cells = Vec::new();
        for frame in frames {
            match frame {
                Frame::Steps(s) => {
                    steps.extend(s.rows.iter().map(|r| format!("{} {r:?}", s.device)));
                    ops.extend(s.ops.iter().map(|o| format!("{} {o:?}", s.device)));
                }
                Frame::Samples(s) => cells.extend(s.at_ns.iter().enumerate().map(|(row, at)| {
                    let values: Vec<f64> = s.columns.iter().map(|c| c[row]).collect();
                    format!("{} {at} {values:?}", s.table)
                })),
                _ => {}
            }
        }
        [steps, ops, cells].concat()
    };
    let (read, written) = (flat(&rows), flat(&written));
    assert_eq!(read.len() as u64, ROWS * (2 + 2 + u64::from(TABLES)));
    assert!(read == written);
}

#[test]
fn a_file_that_is_spoilt_after_the_check_ends_the_frames_with_one_error_that_names_it() {
    let dir = TempDir::new().unwrap();
    let (record, _) = long_record(dir.path());
    let path = dir.path().join(table_file("gpu-1"));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let mut frames = record.frames();
    let before: Vec<Frame> = frames.by_ref().map_while(Result::ok).collect();
    let rows: u64 = before
        .iter()
        .map(|f| match f {
            Frame::Samples(s) => s.at_ns.len() as u64,
            _ => 0,
        })
        .sum();
    assert_eq!(rows, ROWS, "the table before it is whole, none after it");
    assert!(frames.next().is_none());
    let error = record.frames().find_map(Result::err).unwrap();
    assert!(error.to_string().contains("telemetry-gpu-1"), "{error}");
    // Nor is there an account of the tables that are left, whichever thread came upon it.
    let error = record.account().err().unwrap();
    assert!(error.to_string().contains("telemetry-gpu-1"), "{error}");
}

#[test]
fn samples_in_one_long_frame_give_the_account_that_single_rows_give() {
    let mut frames = run::frames(20);
    let closed = frames.pop().unwrap();
    let mut long: BTreeMap<u32, Samples> = BTreeMap::new();
    let mut single = Vec::new();
    let mut rest = Vec::new();
    for frame in frames {
        let Frame::Samples(mut samples) = frame else {
            rest.push(frame);
            continue;
        };
        // Times that stand still and run backwards, in the middle of a frame.
        let backwards = samples.at_ns[4] - 1;
        samples.at_ns.splice(5..7, [samples.at_ns[4], backwards]);
        let row = |row: usize| Samples {
            table: samples.table,
            at_ns: vec![samples.at_ns[row]],
            columns: samples.columns.iter().map(|c| vec![c[row]]).collect(),
        };
        let all = long.entry(samples.table).or_insert_with(|| Samples {
            table: samples.table,
            at_ns: vec![],
            columns: vec![vec![]; samples.columns.len()],
        });
        single.extend((0..samples.at_ns.len()).map(|r| Frame::Samples(row(r))));
        all.at_ns.extend(&samples.at_ns);
        for (all, values) in all.columns.iter_mut().zip(&samples.columns) {
            all.extend(values);
        }
    }
    let account = |samples: Vec<Frame>| {
        let end = std::iter::once(closed.clone());
        figures(rest.iter().cloned().chain(samples).chain(end))
    };
    let one_by_one = account(single);
    let at_once = account(long.into_values().map(Frame::Samples).collect());
    assert!(at_once == one_by_one, "{at_once}\n\n{one_by_one}");
    assert!(account(vec![]) != one_by_one, "the samples show in it");
}
