//! What the agent of a node has written into its log, read while it writes, and what of it stands in the record.
//!
//! The log is the other end of the way on which a report might be lost or come twice. It stays readable after the agent
//! has removed it. Source of the layout: `harness/src/agent/log.rs`.

use hallmark::protocol::FromWorker;
use hallmark::protocol::link::{Report, Said};
use hallmark_results::frame::{Frame, OpRow, StepRow};
use hallmark_results::store::read;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The bytes before the first report, and those before each.
const HEADER: u64 = 32;
const FRAME: u64 = 8;

/// The log of one node.
#[derive(Debug)]
pub struct Sent {
    file: File,
    node: String,
    /// Index of the node in the site.
    index: usize,
    next: u64,
    reports: Vec<Report>,
}

/// What devices and sensors have delivered, in its order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delivered {
    /// By device.
    pub steps: BTreeMap<u32, Vec<StepRow>>,
    pub operations: BTreeMap<u32, Vec<OpRow>>,
    /// By table: time, and the bits of each value.
    pub samples: BTreeMap<String, Vec<(u64, Vec<u64>)>>,
}

impl Sent {
    /// The log of the node `node`, which is the site's `index`-th, from 0.
    #[must_use]
    pub const fn new(file: File, node: String, index: usize) -> Self {
        Self {
            file,
            node,
            index,
            next: HEADER,
            reports: Vec::new(),
        }
    }

    /// Reports that were written since the last call.
    ///
    /// # Panics
    /// A report cannot be read.
    pub fn news(&mut self) -> &[Report] {
        let known = self.reports.len();
        while let Some(body) = self.whole() {
            self.next += FRAME + body.len() as u64;
            let report = rmp_serde::from_slice(&body).expect("a report");
            self.reports.push(report);
        }
        &self.reports[known..]
    }

    /// The next report, where all of it is there.
    fn whole(&self) -> Option<Vec<u8>> {
        let mut frame = [0; FRAME as usize];
        self.file.read_exact_at(&mut frame, self.next).ok()?;
        let (length, check) = frame.split_at(4);
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
        let mut body = vec![0; number(length) as usize];
        self.file.read_exact_at(&mut body, self.next + FRAME).ok()?;
        (crc32c::crc32c(&body) == number(check)).then_some(body)
    }

    /// All that it was told to deliver, by the names of the record.
    pub fn delivered(&mut self) -> Delivered {
        self.news();
        let mut delivered = Delivered::default();
        let mut tables = BTreeMap::new();
        for report in &self.reports {
            let frame = match &report.said {
                Said::Worker {
                    report: FromWorker::Steps(steps),
                    ..
                } => Frame::Steps(steps.clone()),
                Said::Table(table) => {
                    let mut table = table.clone();
                    table.name = format!("{}-{}-{}", self.index + 1, self.node, table.name);
                    Frame::Table(table)
                }
                Said::Samples(samples) => Frame::Samples(samples.clone()),
                _ => continue,
            };
            delivered.add(frame, &mut tables);
        }
        delivered
    }
}

impl Delivered {
    /// What a record holds of a node's devices and sensors, whoever of it was given up.
    ///
    /// # Panics
    /// It cannot be read.
    #[must_use]
    pub fn recorded(folder: &Path, devices: &[u32], index: usize, node: &str) -> Self {
        let record = read::open_any(folder).expect("a record");
        let mut delivered = Self::default();
        let mut tables = BTreeMap::new();
        for frame in record.frames().expect("frames") {
            delivered.add(frame.expect("a whole frame"), &mut tables);
        }
        let prefix = format!("{}-{node}-", index + 1);
        // The controller's own table about the node.
        let clock = format!("{prefix}clock");
        delivered.steps.retain(|d, _| devices.contains(d));
        delivered.operations.retain(|d, _| devices.contains(d));
        let of_node = |name: &String| name.starts_with(&prefix) && *name != clock;
        delivered.samples.retain(|name, _| of_node(name));
        delivered
    }

    fn add(&mut self, frame: Frame, tables: &mut BTreeMap<u32, String>) {
        match frame {
            Frame::Steps(steps) => {
                let device = steps.device;
                self.steps.entry(device).or_default().extend(steps.rows);
                let operations = self.operations.entry(device).or_default();
                operations.extend(steps.ops);
            }
            Frame::Table(table) => {
                tables.insert(table.id, table.name);
            }
            Frame::Samples(samples) => {
                let name = tables.get(&samples.table).cloned().unwrap_or_default();
                let rows = self.samples.entry(name).or_default();
                for (row, at_ns) in samples.at_ns.iter().enumerate() {
                    let values = samples.columns.iter().map(|column| bits(column[row]));
                    rows.push((*at_ns, values.collect()));
                }
            }
            _ => {}
        }
    }

    /// Steps and rows of sensors.
    #[must_use]
    pub fn counted(&self) -> (usize, usize) {
        let steps = self.steps.values().map(Vec::len).sum();
        (steps, self.samples.values().map(Vec::len).sum())
    }
}

/// The same for every value that stands for none.
const fn bits(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits()
    } else {
        value.to_bits()
    }
}
