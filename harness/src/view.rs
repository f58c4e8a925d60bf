//! What the operator sees while a run lasts. It only looks: no view changes a run.

use crate::run::Run;
use hallmark_results::frame::Frame;
use hallmark_results::standing::Standing;
use hallmark_results::verdict::Verdict;
use std::path::Path;

pub mod json;
pub mod live;
pub mod plain;

/// A way to show a run.
pub trait View {
    /// The plan is made and its digest fixed; nothing is loaded yet.
    fn opened(&mut self, standing: &Standing, folder: &Path);

    /// Something short about what is being done before the load starts or after it ends.
    fn note(&mut self, text: &str);

    /// A frame was journalled.
    fn frame(&mut self, frame: &Frame, run: &Run, now_ns: u64);

    /// Time has passed; called about ten times a second.
    fn tick(&mut self, run: &Run, now_ns: u64);

    /// What the operator pressed since the last call, where the view has the keyboard.
    fn pressed(&mut self) -> Option<Key> {
        None
    }

    /// The load is off; the screen is to be given back before the verdict is printed.
    fn ended(&mut self) {}

    /// The verdict, last. `summary` is the text report.
    fn verdict(&mut self, verdict: &Verdict, summary: &str, folder: &Path, head: &str);
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Ramp down, seal and judge.
    Stop,
    /// End at once.
    Cut,
}
