//! Decides how steps are queued on one device and taken back, with everything made beforehand.
//!
//! Up to four steps are in flight. A step without gradient buckets is submitted at once; one with buckets by the
//! feeder's thread, and then so are all others, to keep their order. Refuses a fifth step and, while
//! steps are in flight, the self-test and regrouping.

use super::arrays::{Arrays, settle};
use super::encode::{self, Audited, Context};
use super::feeder::{self, Fed, Feeder, Lane};
use super::flight::{Answers, Flight, Harvest, words};
use super::gpu::{Gpu, Holding, SETUP_LIMIT};
use super::layout::{Layout, SLOTS};
use super::pipelines::Kernels;
use crate::audit::{Expected, Stream, digest, hash};
use crate::backend::{PreparedStep, SelfTest};
use crate::collective::Collective;
use crate::error::KernelError;
use crate::timer::{TickFit, now_ns};
use crate::work::{StepDone, Submission};
use hallmark_profiles::workload::{Gemm, StepSpec};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Time between two pairs of the clock fit.
const FIT_EVERY_NS: u64 = 10_000_000_000;
/// Pairs taken at rest, of which the tightest is kept.
const PAIRS_AT_REST: usize = 8;

/// A step ready to be queued.
pub(super) struct Step {
    gpu: Arc<Gpu>,
    kernels: Kernels,
    arrays: Arrays,
    spec: StepSpec,
    layout: Layout,
    answers: Answers,
    rank: Option<u32>,
    feeder: Option<Feeder>,
    free: Vec<usize>,
    flights: VecDeque<Flight>,
    fit: TickFit,
    fit_due_ns: u64,
    _memory: Holding,
}

impl Step {
    pub fn new(
        gpu: Arc<Gpu>,
        spec: &StepSpec,
        layout: Layout,
        collective: Option<Box<dyn Collective>>,
    ) -> Result<Self, KernelError> {
        let ((kernels, arrays), memory) = gpu.allocate(layout.need, layout.free, || {
            let kernels = Kernels::new(&gpu, spec.dtype);
            let arrays = Arrays::new(&gpu, &kernels, spec, &layout);
            (kernels, arrays)
        })?;
        let answers = answers(spec, &layout);
        settle(&gpu)?;
        let mut step = Self {
            fit: TickFit::new(gpu.tick_ns.unwrap_or(1.0)),
            fit_due_ns: 0,
            gpu,
            kernels,
            arrays,
            spec: spec.clone(),
            layout,
            answers,
            rank: None,
            feeder: None,
            free: (0..SLOTS).collect(),
            flights: VecDeque::with_capacity(SLOTS),
            _memory: memory,
        };
        if let Some(collective) = collective {
            step.join(collective)?;
        }
        step.fit_at_rest()?;
        Ok(step)
    }

    /// Fills the addends and starts the thread that carries them.
    fn join(&mut self, collective: Box<dyn Collective>) -> Result<(), KernelError> {
        let rank = collective.rank();
        self.rank = Some(rank);
        let index = self
            .gpu
            .submit(Some(encode::first_addends(&self.context(), rank)))?;
        self.gpu.finish(&index, SETUP_LIMIT)?;
        let lanes = self.arrays.buckets.iter().map(|b| Lane {
            bytes: b.bytes,
            down: b.down.clone(),
            up: b.up.clone(),
            total: b.total.clone(),
        });
        let gpu = Arc::clone(&self.gpu);
        self.feeder = Some(Feeder::start(gpu, &self.spec, lanes.collect(), collective)?);
        Ok(())
    }

    /// Takes pairs of device tick and host time while nothing else is queued.
    fn fit_at_rest(&mut self) -> Result<(), KernelError> {
        if self.gpu.tick_ns.is_none() {
            return Ok(());
        }
        let mut best: Option<(u64, u64, u64)> = None;
        for _ in 0..PAIRS_AT_REST {
            let slot = &self.arrays.slots[0];
            let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
            if let Some(query_set) = &slot.queries {
                drop(encoder.begin_compute_pass(&::wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes: Some(::wgpu::ComputePassTimestampWrites {
                        query_set,
                        beginning_of_pass_write_index: Some(0),
                        end_of_pass_write_index: Some(1),
                    }),
                }));
                encoder.resolve_query_set(query_set, 0..2, &slot.resolved, 0);
                encoder.copy_buffer_to_buffer(&slot.resolved, 0, &slot.readback, 0, 16);
            }
            let commands = encoder.finish();
            let before_ns = now_ns();
            let index = self.gpu.submit(Some(commands))?;
            self.gpu.finish(&index, SETUP_LIMIT)?;
            let after_ns = now_ns();
            let ticks = self.gpu.read(&slot.readback, SETUP_LIMIT, |bytes| {
                words::<u64>(bytes, 0, 2)
            })?;
            let tighter = best.is_none_or(|(_, from, to)| after_ns - before_ns < to - from);
            if tighter {
                best = Some((ticks[1], before_ns, after_ns));
            }
        }
        if let Some((tick, before_ns, after_ns)) = best {
            self.fit.pair(tick, before_ns, after_ns);
            self.fit_due_ns = after_ns + FIT_EVERY_NS;
        }
        Ok(())
    }

    fn context(&self) -> Context<'_> {
        Context {
            gpu: &self.gpu,
            kernels: &self.kernels,
            arrays: &self.arrays,
            spec: &self.spec,
            layout: &self.layout,
            rank: self.rank,
        }
    }

    fn refuse(&self, what: &str) -> KernelError {
        KernelError::Device {
            device: self.gpu.id.clone(),
            what: what.into(),
        }
    }

    fn rows_of(&self, audited: Audited, flip: bool, rows: usize) -> Result<Vec<u32>, KernelError> {
        let commands = encode::audited_matmul(&self.context(), 0, audited, flip);
        let index = self.gpu.submit(Some(commands))?;
        self.gpu.finish(&index, SETUP_LIMIT)?;
        let at = self.layout.rows_at(audited.gemm);
        let readback = &self.arrays.slots[0].readback;
        self.gpu
            .read(readback, SETUP_LIMIT, |bytes| words::<u32>(bytes, at, rows))
    }
}

impl PreparedStep for Step {
    fn submit(&mut self, submission: Submission) -> Result<(), KernelError> {
        self.gpu.check()?;
        let Some(slot) = self.free.pop() else {
            return Err(self.refuse("four steps are in flight already; retire one first"));
        };
        let launch = encode::step(&self.context(), slot, submission);
        let mut flight = Flight::new(slot, &launch);
        if let Some(feeder) = &self.feeder {
            feeder.feed(launch)?;
        } else {
            let mut fed = Fed {
                submitted_ns: now_ns(),
                ..Fed::default()
            };
            feeder::submit(&self.gpu, launch.head, &mut fed.parts)?;
            feeder::submit(&self.gpu, launch.tail, &mut fed.parts)?;
            flight.submitted(fed);
        }
        self.flights.push_back(flight);
        Ok(())
    }

    fn retire(&mut self, patience: Duration) -> Result<Option<StepDone>, KernelError> {
        self.gpu.check()?;
        let start_ns = now_ns();
        let patience_ns = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        let deadline_ns = start_ns.saturating_add(patience_ns);
        let Some(flight) = self.flights.front_mut() else {
            return Ok(None);
        };
        if let (None, Some(feeder)) = (&flight.fed, &self.feeder) {
            match feeder.fed(patience)? {
                Some(fed) => flight.submitted(fed),
                None => return Ok(None),
            }
        }
        let close = self.gpu.tick_ns.is_some() && start_ns >= self.fit_due_ns;
        if !flight.ended(&self.gpu, deadline_ns, close)? {
            return Ok(None);
        }
        let Some(flight) = self.flights.pop_front() else {
            return Ok(None);
        };
        let slot = flight.slot;
        let source = Harvest {
            gpu: &self.gpu,
            spec: &self.spec,
            layout: &self.layout,
            readback: &self.arrays.slots[slot].readback,
            answers: &self.answers,
        };
        let done = flight.harvest(&source, &mut self.fit, close)?;
        if close {
            self.fit_due_ns = now_ns() + FIT_EVERY_NS;
        }
        self.free.push(slot);
        Ok(Some(done))
    }

    fn in_flight(&self) -> usize {
        self.flights.len()
    }

    fn self_test(&mut self) -> Result<SelfTest, KernelError> {
        if !self.flights.is_empty() {
            return Err(self.refuse("the self-test needs an idle device; retire every step first"));
        }
        let Some(&gemm) = self.spec.gemms.first() else {
            return Err(self.refuse("a step without a matmul has no result to audit"));
        };
        let audited = Audited { gemm: 0, pair: 0 };
        let fresh;
        let expected = match self.answers.get(&(gemm, 0)) {
            Some(known) => known,
            None => {
                fresh = Expected::new(
                    gemm,
                    self.spec.seed,
                    self.spec.audits(),
                    0,
                    self.layout.range,
                );
                &fresh
            }
        };
        let count = expected.rows.len();
        let clean = self.rows_of(audited, false, count)?;
        let elements = gemm.elements()[2].min(u64::from(u32::MAX)) as u32;
        let element = hash(self.spec.audits().0, Stream::Flip, 0, 0) % elements;
        // Not the sign: of a zero it is no error.
        let bit = hash(self.spec.audits().0, Stream::Flip, 0, 1) % 31;
        self.arrays.aim_flip(&self.gpu, element, bit);
        let flipped = self.rows_of(audited, true, count)?;
        Ok(SelfTest {
            clean_passed: expected.check(&clean).is_none(),
            flip_caught: expected.check(&flipped).is_some(),
            detail: format!(
                "matmul {gemm}: bit {bit} of element {element}; digest expected {:016x}, found {:016x}, flipped {:016x}",
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

/// Expected row sums of every shape and pair that can be audited, computed on all cores.
fn answers(spec: &StepSpec, layout: &Layout) -> Answers {
    if spec.audit_share <= 0.0 {
        return Answers::new();
    }
    let every = spec.gemms.iter();
    let wanted: BTreeSet<(Gemm, u32)> = every
        .flat_map(|&g| (0..layout.pairs).map(move |p| (g, p)))
        .collect();
    let wanted: Vec<_> = wanted.into_iter().collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = wanted.len().div_ceil(threads).max(1);
    let expect = |&(gemm, pair): &(Gemm, u32)| {
        let expected = Expected::new(gemm, spec.seed, spec.audits(), pair, layout.range);
        ((gemm, pair), expected)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = wanted
            .chunks(share)
            .map(|some| scope.spawn(move || some.iter().map(expect).collect::<Vec<_>>()))
            .collect();
        // An expectation that is missing fails the first audit that needs it.
        let computed = workers.into_iter().filter_map(|w| w.join().ok());
        computed.flatten().collect()
    })
}
