//! A record read back: its account, its steps, its faults, and how its criteria came out.

use hallmark_results::frame::{Event, FaultKind, Frame, What};
use hallmark_results::standing::Standing;
use hallmark_results::store::read;
use hallmark_results::verdict::{Outcome, judge};
use std::collections::BTreeMap;
use std::path::Path;

/// The account of the record in `folder`, sealed or not.
#[must_use]
pub fn standing(folder: &Path) -> Standing {
    standing_but(folder, |_| {})
}

/// The same, as if each frame had been another.
#[must_use]
pub fn standing_but(folder: &Path, change: impl Fn(&mut Frame)) -> Standing {
    let record = read::open_any(folder).expect("a record");
    let mut frames = record.frames().expect("frames").map(|frame| {
        let mut frame = frame.expect("a whole frame");
        change(&mut frame);
        frame
    });
    let first = frames.next().expect("an opening frame");
    let mut standing = Standing::open(&first).expect("an account");
    for frame in frames {
        standing.push(&frame).expect("a frame that fits");
    }
    standing
}

/// How a criterion came out.
#[must_use]
pub fn outcome(standing: &Standing, criterion: &str) -> Outcome {
    let verdict = judge(standing);
    let mut findings = verdict.findings.iter();
    let finding = findings.find(|f| f.criterion.name == criterion);
    finding.expect("a criterion of the plan").outcome
}

/// Why a criterion came out as it did, and what was seen at each place.
#[must_use]
pub fn told(standing: &Standing, criterion: &str) -> String {
    let verdict = judge(standing);
    let of = verdict
        .findings
        .iter()
        .filter(|f| f.criterion.name == criterion);
    of.map(|f| format!("{}: {} {:?}\n", f.criterion.name, f.why, f.places))
        .collect()
}

/// Faults, in the order of the record.
#[must_use]
pub fn faults(standing: &Standing) -> Vec<&Event> {
    let is_fault = |e: &&Event| matches!(e.what, What::Fault { .. });
    standing.events().iter().filter(is_fault).collect()
}

/// Device, kind and sentence of a fault.
///
/// # Panics
/// It is another event.
#[must_use]
pub fn detail(event: &Event) -> (Option<u32>, FaultKind, &str) {
    match &event.what {
        What::Fault { kind, detail } => (event.device, *kind, detail.as_str()),
        what => unreachable!("{what:?}"),
    }
}

/// Numbers of the steps of each device, in the order of the record.
///
/// # Panics
/// The record cannot be read.
#[must_use]
pub fn steps(folder: &Path) -> BTreeMap<u32, Vec<u64>> {
    let run = read::open_any(folder).expect("a record");
    let mut found: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for frame in run.frames().expect("frames") {
        if let Frame::Steps(steps) = frame.expect("a whole frame") {
            found
                .entry(steps.device)
                .or_default()
                .extend(steps.rows.iter().map(|r| r.seq));
        }
    }
    found
}

/// Within each order a device numbers its steps without a hole, and no step stands twice.
///
/// # Panics
/// It is otherwise.
pub fn whole_and_once(folder: &Path) {
    for (device, numbers) in steps(folder) {
        for pair in numbers.windows(2) {
            let new_order = pair[1] >> 32 != pair[0] >> 32 && pair[1] & 0xFFFF_FFFF == 0;
            assert!(
                pair[1] == pair[0] + 1 || new_order,
                "device {device}: step {:#x} follows {:#x}",
                pair[1],
                pair[0]
            );
        }
    }
}
