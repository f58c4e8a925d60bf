//! The boundary between the harness and anything that computes.
//!
//! A [`Backend`] finds and opens devices; a [`Device`] prepares a step once, with every buffer,
//! pipeline and plan it needs; a [`PreparedStep`] then only queues and retires, so that nothing is
//! allocated and nothing waits for the host while the load runs.

use crate::collective::Collective;
use crate::collective::alone::{Alone, AloneDone};
use crate::collective::within::{Within, WithinDone};
use crate::device::{Absent, DeviceInfo};
use crate::error::KernelError;
use crate::work::{StepDone, Submission};
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::StepSpec;
use std::time::Duration;

/// An engine: `cuda`, `wgpu`, `cpu`.
pub trait Backend {
    fn name(&self) -> &'static str;

    /// The devices found, or why there are none.
    fn list(&self) -> Result<Vec<DeviceInfo>, Absent>;

    /// What would serve the devices that were found and is not here, with its price; nothing where all is here.
    fn missing(&self) -> Vec<Absent> {
        Vec::new()
    }

    /// What is said where a process that was asked to list gave no answer, with `why`; `None` for an engine whose listing
    /// hangs and crashes nobody, so that it need not be asked in a process of its own.
    fn unanswered(&self, _why: &str) -> Option<Absent> {
        None
    }

    /// Opens the device that [`Self::list`] described; `info.cores` may have been narrowed by the caller.
    fn open(&self, info: &DeviceInfo) -> Result<Box<dyn Device>, KernelError>;
}

/// An open device. Used from one thread.
pub trait Device {
    fn info(&self) -> &DeviceInfo;

    /// Bytes that can still be allocated for work.
    fn free_memory(&self) -> Bytes;

    /// Allocates and fills everything `spec` needs.
    ///
    /// `collective`: the group for `spec.buckets`, laid out for exactly these buckets; `None` where the
    /// device stands alone, and then a submission with `parts.buckets` reduces nothing.
    ///
    /// # Errors
    /// [`KernelError::Dtype`], [`KernelError::Memory`] and [`KernelError::NoExactRange`] before anything is allocated.
    fn prepare(
        &mut self,
        spec: &StepSpec,
        collective: Option<Box<dyn Collective>>,
    ) -> Result<Box<dyn PreparedStep>, KernelError>;

    /// Writes patterns to nearly all free memory of the device's own and reads them back; `None` where its memory
    /// is the host's or the engine has no such test. Only with no step prepared.
    fn test_memory(&mut self) -> Result<Option<MemoryTest>, KernelError> {
        Ok(None)
    }

    /// All-reduces between ranks that share this device; `None` where the engine has no kernel for it.
    /// Only with no step prepared.
    ///
    /// # Errors
    /// [`KernelError::Memory`] and [`KernelError::Device`] before anything runs; a wrong total or a rank that stayed
    /// away is no error but in what is returned.
    fn reduce_within(&mut self, _ask: &Within) -> Result<Option<WithinDone>, KernelError> {
        Ok(None)
    }

    /// All-reduces by the vendor's collective library in a group of this device alone; `None` where the engine knows
    /// none. Only with no step prepared.
    ///
    /// # Errors
    /// [`KernelError::Device`] where the library is not here, or its group does not form or hangs; a wrong bit is no
    /// error but in what is returned.
    fn reduce_alone(&mut self, _ask: &Alone) -> Result<Option<AloneDone>, KernelError> {
        Ok(None)
    }
}

/// What a test of free memory came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryTest {
    /// Memory that was written and read.
    pub tested: Bytes,
    /// Memory that was free when the test began; what was not tested of it had been taken meanwhile.
    pub free: Bytes,
    /// Patterns written and read over all of it.
    pub passes: u32,
    /// Wrong words over all passes; a count that is full stands still.
    pub wrong: u64,
    /// The first wrong words: where they lie, the bits that differ, and what was read.
    pub faults: Vec<String>,
}

/// A step ready to be queued any number of times.
pub trait PreparedStep {
    /// Queues one step behind those in flight and returns without waiting for it.
    fn submit(&mut self, submission: Submission) -> Result<(), KernelError>;

    /// The oldest step in flight once it is complete; `None` if it is not within `patience`, or if none is in flight.
    fn retire(&mut self, patience: Duration) -> Result<Option<StepDone>, KernelError>;

    fn in_flight(&self) -> usize;

    /// What was decided while it was prepared and holds for the whole run, e.g. the algorithms chosen.
    fn facts(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Runs one audited matmul, flips one bit of its result in device memory between matmul and
    /// check, and says whether the check saw it. Only with nothing in flight.
    fn self_test(&mut self) -> Result<SelfTest, KernelError>;

    /// Continues the collective without dead ranks, of whom each then waits for the others for `patience`
    /// in every all-reduce. Only with nothing in flight.
    fn regroup(
        &mut self,
        generation: u32,
        members: &[u32],
        patience: Duration,
    ) -> Result<(), KernelError>;
}

/// The operand pair that matmul `index` of step `seq` uses; the same on every engine.
pub fn pair_of(seq: u64, index: usize, pairs: u32) -> u32 {
    ((seq.wrapping_add(index as u64)) % u64::from(pairs.max(1))) as u32
}

/// Outcome of the injected bit flip, for the record.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfTest {
    /// The check passed on the true result.
    pub clean_passed: bool,
    /// The check failed on the result with one bit flipped.
    pub flip_caught: bool,
    /// Which element and bit were flipped, and the digests.
    pub detail: String,
}
