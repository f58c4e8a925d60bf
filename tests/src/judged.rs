//! A record read back: its account, and how its criteria came out.

use hallmark_results::frame::Frame;
use hallmark_results::standing::Standing;
use hallmark_results::store::read;
use hallmark_results::verdict::{Outcome, judge};
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
