//! Decides how steps are queued on one device and taken back, and what a completed step says.
//!
//! Up to four steps are in flight. A step without gradient buckets is queued at once; with a group, the feeder's thread
//! queues all, to keep their order. Refuses a fifth step and, while steps are in flight, the self-test and regrouping.

use super::course::{Audited, Course};
use super::expect::{Answers, Operands};
use super::feeder::{Fed, Feeder};
use super::gpu::SETUP_LIMIT;
use super::layout::{IN_FLIGHT, SLOTS};
use super::rig::{Into, Rig};
use super::ticks::Ticks;
use crate::audit::{Stream as Generator, digest, hash};
use crate::backend::{PreparedStep, SelfTest};
use crate::collective::Collective;
use crate::error::KernelError;
use crate::timer::{Timer, now_ns};
use crate::work::{Span, StepDone, Submission};
use hallmark_profiles::workload::Dtype;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Mismatches of one step whose bit is looked for: the search costs the host some tenths of a second.
const LOCATED_MAX: usize = 2;

/// A step ready to be queued.
pub(super) struct Step {
    rig: Arc<Rig>,
    answers: Answers,
    feeder: Option<Feeder>,
    flights: VecDeque<Flight>,
    ticks: Ticks,
    facts: Vec<(String, String)>,
}

struct Flight {
    course: Arc<Course>,
    slot: usize,
    /// `None` until the feeder's thread has queued the step.
    fed: Option<Fed>,
    /// When the step was last seen unfinished.
    unfinished_ns: u64,
}

impl Step {
    pub fn new(
        rig: Rig,
        answers: Answers,
        collective: Option<Box<dyn Collective>>,
        facts: Vec<(String, String)>,
    ) -> Result<Self, KernelError> {
        let rig = Arc::new(rig);
        if collective.is_some() {
            for bucket in 0..rig.spec.buckets.len() {
                rig.addend(bucket, bucket as u64)?;
            }
            rig.gpu.finish(&rig.stream, SETUP_LIMIT)?;
        }
        let feeder = collective
            .map(|collective| Feeder::start(Arc::clone(&rig), collective))
            .transpose()?;
        let ticks = Ticks::at_rest(&rig)?;
        Ok(Self {
            rig,
            answers,
            feeder,
            flights: VecDeque::with_capacity(IN_FLIGHT),
            ticks,
            facts,
        })
    }

    fn refuse(&self, what: &str) -> KernelError {
        self.rig.gpu.refuse(what)
    }

    /// Whether the step has ended by `deadline_ns`, and when it was last seen unfinished.
    fn ended(&self, flight: &Flight, deadline_ns: u64) -> Result<Option<(u64, u64)>, KernelError> {
        let end = &self.rig.arrays.slots[flight.slot].events[self.rig.places().end()];
        let mut unfinished_ns = flight.unfinished_ns;
        loop {
            let before_ns = now_ns();
            if end.passed()? {
                return Ok(Some((unfinished_ns, now_ns())));
            }
            unfinished_ns = before_ns;
            if before_ns >= deadline_ns {
                return Ok(None);
            }
            std::thread::sleep(self.ticks.look(deadline_ns - before_ns));
        }
    }

    /// What a step that has ended says.
    fn harvest(&mut self, flight: Flight, seen_ns: (u64, u64)) -> Result<StepDone, KernelError> {
        let Flight {
            course, slot, fed, ..
        } = flight;
        let Some(fed) = fed else {
            let seq = course.seq;
            return Err(self
                .rig
                .gpu
                .refuse(format!("step {seq} was harvested before it was queued")));
        };
        let mut spans = self.ticks.read(&self.rig, &course, slot, seen_ns)?;
        let mut mismatches = self.check(&course, slot)?;
        spans.extend(fed.reduced);
        spans.sort_by_key(|s: &Span| s.start_ns);
        mismatches.extend(fed.mismatches);
        let (collective_fault, missing_ranks) = match fed.fault {
            Some(broken) => (Some(broken.why), broken.missing),
            None => (None, Vec::new()),
        };
        let flop = |a: &Audited| self.rig.spec.gemms[a.gemm].flop().0;
        Ok(StepDone {
            seq: course.seq,
            start_ns: spans.iter().map(|s| s.start_ns).min().unwrap_or(seen_ns.1),
            end_ns: spans.iter().map(|s| s.end_ns).max().unwrap_or(seen_ns.1),
            timer: Timer::DeviceEvent,
            gemms: course.gemms,
            audited: course.audits.len() as u32,
            audited_flop: course.audits.iter().map(flop).sum(),
            spans,
            mismatches,
            stop_votes: fed.stop_votes,
            collective_fault,
            missing_ranks,
            arrival_skew_ns: fed.arrival_skew_ns,
            self_test: None,
        })
    }

    /// Row sums of one matmul of an ended step.
    fn rows(&self, slot: usize, audited: Audited) -> Vec<u32> {
        let first = self.rig.layout.first_row[audited.gemm] as usize * 4;
        let length = self.rig.spec.gemms[audited.gemm].m as usize * 4;
        // SAFETY: the step has ended, and its slot is not queued again before it is retired.
        let bytes = unsafe { self.rig.arrays.slots[slot].readback.bytes() };
        bytemuck::pod_collect_to_vec(bytes.get(first..first + length).unwrap_or_default())
    }

    /// What the audits found wrong, with the element and bit where one bit explains it.
    fn check(&self, course: &Course, slot: usize) -> Result<Vec<String>, KernelError> {
        let Rig { spec, layout, .. } = &*self.rig;
        let mut wrong = Vec::new();
        for &audited in &course.audits {
            let gemm = spec.gemms[audited.gemm];
            let Some(expected) = self.answers.get(&(gemm, audited.pair)) else {
                return Err(self.rig.gpu.refuse(format!(
                    "no row sums were expected of {gemm} with pair {}",
                    audited.pair
                )));
            };
            let rows = self.rows(slot, audited);
            let Some(mismatch) = expected.check(&rows) else {
                continue;
            };
            let row = mismatch.row;
            let at = |list: &[u32]| list.get(row as usize).copied().unwrap_or(0);
            let place = if wrong.len() < LOCATED_MAX {
                let operands = Operands::new(spec, layout, gemm, audited.pair);
                let place = operands.locate(spec.dtype, row, at(&rows), at(&expected.rows));
                format!("; {place}")
            } else {
                String::new()
            };
            wrong.push(format!(
                "step {}, matmul {} of it, {mismatch}{place}",
                course.seq, audited.gemm
            ));
        }
        Ok(wrong)
    }

    /// Row sums of the first matmul with pair 0, with one bit of C flipped before they are taken if asked.
    fn probe(&self, flip: Option<(u64, u32)>) -> Result<Vec<u32>, KernelError> {
        let audited = Audited { gemm: 0, pair: 0 };
        self.rig.matmul(audited.gemm, audited.pair)?;
        if let Some((word, bit)) = flip {
            self.rig.flip(word, bit)?;
        }
        self.rig.audit(0, audited, &mut Into::Queue)?;
        self.rig.gpu.finish(&self.rig.stream, SETUP_LIMIT)?;
        Ok(self.rows(0, audited))
    }
}

impl PreparedStep for Step {
    fn submit(&mut self, submission: Submission) -> Result<(), KernelError> {
        if self.flights.len() >= IN_FLIGHT {
            return Err(self.refuse("four steps are in flight already; retire one first"));
        }
        let slot = (submission.seq % SLOTS as u64) as usize;
        if self.flights.iter().any(|f| f.slot == slot) {
            return Err(self.refuse("steps in flight must be numbered one after the other"));
        }
        if self.flights.is_empty() && self.ticks.is_stale(slot) {
            self.ticks = Ticks::at_rest(&self.rig)?;
        }
        let reduces = self.feeder.is_some();
        let course = Course::new(&self.rig.spec, &self.rig.layout, submission, reduces);
        let course = Arc::new(course);
        let fed = match &self.feeder {
            Some(feeder) => {
                feeder.feed(Arc::clone(&course), slot)?;
                None
            }
            None => {
                let submitted_ns = now_ns();
                self.rig.whole(&course, slot)?;
                Some(Fed {
                    submitted_ns,
                    ..Fed::default()
                })
            }
        };
        self.flights.push_back(Flight {
            course,
            slot,
            unfinished_ns: now_ns(),
            fed,
        });
        Ok(())
    }

    fn retire(&mut self, patience: Duration) -> Result<Option<StepDone>, KernelError> {
        let patience_ns = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        let deadline_ns = now_ns().saturating_add(patience_ns);
        let Some(flight) = self.flights.front_mut() else {
            return Ok(None);
        };
        if let (None, Some(feeder)) = (&flight.fed, &self.feeder) {
            match feeder.fed(patience)? {
                Some(fed) => {
                    flight.unfinished_ns = fed.submitted_ns;
                    flight.fed = Some(fed);
                }
                None => return Ok(None),
            }
        }
        let Some(flight) = self.flights.front() else {
            return Ok(None);
        };
        let Some(seen_ns) = self.ended(flight, deadline_ns)? else {
            return Ok(None);
        };
        match self.flights.pop_front() {
            Some(flight) => self.harvest(flight, seen_ns).map(Some),
            None => Ok(None),
        }
    }

    fn in_flight(&self) -> usize {
        self.flights.len()
    }

    fn facts(&self) -> Vec<(String, String)> {
        self.facts.clone()
    }

    fn self_test(&mut self) -> Result<SelfTest, KernelError> {
        if !self.flights.is_empty() {
            return Err(self.refuse("the self-test needs an idle device; retire every step first"));
        }
        let spec = &self.rig.spec;
        let Some(&gemm) = spec.gemms.first() else {
            return Err(self.refuse("a step without a matmul has no result to audit"));
        };
        let Some(expected) = self.answers.get(&(gemm, 0)) else {
            return Err(self.refuse("no row sums were expected of the first matmul"));
        };
        let clean = self.probe(None)?;
        let elements = gemm.elements()[2].min(u64::from(u32::MAX)) as u32;
        let element = hash(spec.audits().0, Generator::Flip, 0, 0) % elements;
        // Not the sign: of a zero it is no error.
        let bit = hash(spec.audits().0, Generator::Flip, 0, 1) % 31;
        let words = if spec.dtype == Dtype::F64 { 2 } else { 1 };
        let flipped = self.probe(Some((u64::from(element) * words, bit)))?;
        let operands = Operands::new(spec, &self.rig.layout, gemm, 0);
        let caught = expected.check(&flipped);
        let place = caught.as_ref().map_or_else(String::new, |mismatch| {
            let at = |list: &[u32]| list.get(mismatch.row as usize).copied().unwrap_or(0);
            let (found, want) = (at(&flipped), at(&expected.rows));
            let place = operands.locate(spec.dtype, mismatch.row, found, want);
            format!(", located as {place}")
        });
        Ok(SelfTest {
            clean_passed: expected.check(&clean).is_none(),
            flip_caught: caught.is_some(),
            detail: format!(
                "matmul {gemm}: bit {bit} of element {element}; digest expected {:016x}, found {:016x}, flipped {:016x}{place}",
                digest(&expected.rows),
                digest(&clean),
                digest(&flipped)
            ),
        })
    }

    fn regroup(
        &mut self,
        generation: u32,
        members: &[u32],
        patience: Duration,
    ) -> Result<(), KernelError> {
        if !self.flights.is_empty() {
            return Err(self.refuse("regrouping needs an idle device; retire every step first"));
        }
        match &self.feeder {
            Some(feeder) => feeder.regroup(generation, members, patience),
            None => Ok(()),
        }
    }
}
