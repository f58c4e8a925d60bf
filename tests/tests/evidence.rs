//! What is missing, impossible, told twice or of another kind decides nothing: neither for a hall nor against it.
//!
//! Each test is one way in which a figure can look like evidence and is none.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test, and what it is built of, fails by a panic"
)]

#[path = "evidence/burn.rs"]
mod burn;
#[path = "evidence/impossible.rs"]
mod impossible;
#[path = "evidence/missing.rs"]
mod missing;
#[path = "evidence/standard.rs"]
mod standard;

use hallmark_profiles::profile::{self, Loaded};
use hallmark_results::frame::{Frame, Samples, Steps};
use hallmark_results::verdict::{Outcome, Verdict, judge};
use hallmark_tests::synthetic::{Record, finding, fold};

/// A built-in profile with one place of its text changed.
fn changed(name: &str, from: &str, to: &str) -> Loaded {
    let text = profile::load(name).expect("a built-in profile").text;
    assert!(text.contains(from), "{name} has no `{from}`");
    profile::parse(&text.replacen(from, to, 1), "changed.toml").unwrap_or_else(|e| panic!("{e}"))
}

/// The verdict on a record whose frames are changed one by one.
fn judged(run: &Record, change: impl FnMut(&mut Frame)) -> Verdict {
    let mut frames = run.frames();
    frames.iter_mut().for_each(change);
    judge(&fold(&frames))
}

fn samples(frame: &mut Frame) -> Option<&mut Samples> {
    match frame {
        Frame::Samples(samples) => Some(samples),
        _ => None,
    }
}

fn steps(frame: &mut Frame) -> Option<&mut Steps> {
    match frame {
        Frame::Steps(steps) => Some(steps),
        _ => None,
    }
}

fn not_passed(verdict: &Verdict, gates: &[&str]) {
    let passed: Vec<_> = gates
        .iter()
        .map(|gate| finding(verdict, gate))
        .filter(|f| f.outcome == Outcome::Passed)
        .map(|f| format!("{} passed: {}", f.criterion.name, f.why))
        .collect();
    assert!(passed.is_empty(), "{}", passed.join("\n"));
}
