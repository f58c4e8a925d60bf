//! One step as it was done: when, what, how much, and whether the audited results were right.

use crate::backend::SelfTest;
use crate::timer::Timer;
use hallmark_profiles::workload::{Parts, StepSpec};

/// A request to queue one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The same on all ranks for steps that belong together; chooses operands and audited matmuls.
    /// Its low 32 bits count from the order's first step.
    pub seq: u64,
    pub parts: Parts,
    /// This rank wishes to stop. The wish travels with the step's collective, so that all ranks learn
    /// of it in the same step and can stop after the same one.
    pub stop: bool,
}

/// Payloads of a group's buckets in bytes: the step's, and one element that carries the votes to stop.
pub fn bucket_layout(spec: &StepSpec) -> Vec<u64> {
    let buckets = spec.buckets.iter().map(|b| b.bytes.0);
    buckets.chain([4]).collect()
}

/// The kind of work that a span of time was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Matmuls; amount in FLOP.
    Matmul,
    /// One gradient bucket; amount in bytes held by each rank.
    AllReduce,
    /// Amount in bytes read + written.
    Optimizer,
    /// Amount in bytes read + written.
    Copy,
    /// Amount in bytes read + written.
    Triad,
    /// Check of a result; amount in FLOP whose result was checked.
    Audit,
    /// One all-reduce of a sweep; amount in bytes held by each rank.
    Trial(Trial),
}

/// What is known of one all-reduce of a sweep beside when it began and ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Counts the step's trials from 0, the same on all ranks.
    pub index: u32,
    /// The total is written over the inputs.
    pub in_place: bool,
    /// It does not count: nothing was due, and the memory may be cold.
    pub warm_up: bool,
    /// When it was to begin, decided before; a warm-up is due when it begins.
    pub due_ns: u64,
    /// The last member arrived.
    pub arrived_ns: u64,
    /// Elements of this rank's total that are not the exact sum.
    pub wrong: u64,
}

/// A stretch of device time, on the host's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    pub work: Work,
    pub start_ns: u64,
    pub end_ns: u64,
    pub amount: f64,
}

/// A completed step.
#[derive(Clone, Debug)]
pub struct StepDone {
    pub seq: u64,
    /// First device work of the step.
    pub start_ns: u64,
    /// Last device work of the step.
    pub end_ns: u64,
    pub timer: Timer,
    /// Adjacent matmuls are merged into one span; each bucket has its own.
    pub spans: Vec<Span>,
    /// Matmuls completed.
    pub gemms: u32,
    /// Matmuls checked, and the FLOP they stand for.
    pub audited: u32,
    pub audited_flop: f64,
    /// What was wrong, one sentence for each wrong matmul or bucket.
    pub mismatches: Vec<String>,
    /// Members that wished to stop when they queued this step; 0 without a collective.
    pub stop_votes: u32,
    /// Why an all-reduce of this step did not complete; the step then counts no collective work.
    pub collective_fault: Option<String>,
    /// Ranks that the failed all-reduce waited for in vain.
    pub missing_ranks: Vec<u32>,
    /// Time this rank waited for others to arrive at its buckets, all buckets together.
    pub arrival_skew_ns: u64,
    /// A check that was tried on an injected fault in this step, and whether it saw it.
    pub self_test: Option<SelfTest>,
}
