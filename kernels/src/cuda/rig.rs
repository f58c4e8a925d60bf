//! Decides how a step's course becomes work in the device's queues, kernel by kernel or as one graph.
//!
//! A rig is everything prepared for one step, shared by the thread that submits and the one that carries buckets.
//! Refuses to allocate: what it queues was made beforehand.

use super::arrays::{Arrays, StepKernels};
use super::blaslt;
use super::course::{Audited, Course, Places};
use super::gpu::{Arguments, Gpu, Shape, Stream};
use super::graph::{Captured, Graphs};
use super::layout::Layout;
use super::own;
use crate::audit::challenge_key;
use crate::backend::pair_of;
use crate::collective::exact;
use crate::error::KernelError;
use hallmark_profiles::workload::{Gemm, StepSpec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How one shape is multiplied.
pub(super) enum Matmul {
    Own(own::Plan),
    Lt(blaslt::Plan),
}

impl Matmul {
    pub fn about(&self) -> &str {
        match self {
            Self::Own(plan) => &plan.about,
            Self::Lt(plan) => &plan.about,
        }
    }
}

/// Everything prepared for one step.
pub(super) struct Rig {
    pub gpu: Arc<Gpu>,
    /// Graphs are given back before what they refer to.
    pub graphs: Graphs,
    pub matmuls: BTreeMap<Gemm, Matmul>,
    pub arrays: Arrays,
    pub kernels: StepKernels,
    /// Compute, in order.
    pub stream: Stream,
    /// Buckets on their way down and up.
    pub copies: Stream,
    pub spec: StepSpec,
    pub layout: Layout,
    /// This rank, where it has a group to reduce with.
    pub rank: Option<u32>,
}

/// Whether events are recorded as they are, or become nodes of a graph.
pub(super) enum Into<'a> {
    Queue,
    /// Every audit and every event is put in; the nodes of each audit are noted.
    Graph(&'a mut Captured),
}

impl Into<'_> {
    fn is_graph(&self) -> bool {
        matches!(self, Self::Graph(_))
    }
}

impl Rig {
    pub fn places(&self) -> Places {
        Places::new(self.spec.gemms.len())
    }

    fn record(&self, slot: usize, place: usize, into: &Into<'_>) -> Result<(), KernelError> {
        let event = self
            .arrays
            .slots
            .get(slot)
            .and_then(|s| s.events.get(place));
        let Some(event) = event else {
            return Err(self.gpu.refuse(format!("no event {place} in slot {slot}")));
        };
        if into.is_graph() {
            self.stream.record_in_graph(event)
        } else {
            self.stream.record(event)
        }
    }

    /// Queues a step that reduces nothing: as its graph where there is one.
    pub fn whole(&self, course: &Course, slot: usize) -> Result<(), KernelError> {
        if self.graphs.launch(&self.stream, course, slot)? {
            // An event inside a graph stays as it was until the device gets there, so that the end of a step just
            // queued would seem to have passed: the end is an event of the queue itself.
            return self.record(slot, self.places().end(), &Into::Queue);
        }
        self.head(course, slot, &mut Into::Queue)?;
        self.tail(course, slot, &Into::Queue)
    }

    /// Queues matmuls, audits and the buckets' way down.
    pub fn head(
        &self,
        course: &Course,
        slot: usize,
        into: &mut Into<'_>,
    ) -> Result<(), KernelError> {
        if course.gemms == 0 {
            return self.leave(course, None);
        }
        self.record(slot, Places::START, into)?;
        for gemm in 0..course.gemms as usize {
            let pair = pair_of(course.seq, gemm, self.layout.pairs);
            self.matmul(gemm, pair)?;
            if into.is_graph() || course.uses(Places::gemm(gemm)) {
                self.record(slot, Places::gemm(gemm), into)?;
            }
            if into.is_graph() || course.audits(gemm) {
                self.audit(slot, Audited { gemm, pair }, into)?;
                self.record(slot, Places::audit(gemm), into)?;
            }
            self.leave(course, Some(gemm))?;
        }
        Ok(())
    }

    /// Queues optimizer, copy and triad, and the step's end.
    pub fn tail(&self, course: &Course, slot: usize, into: &Into<'_>) -> Result<(), KernelError> {
        let places = self.places();
        if course.uses(places.tail()) {
            self.record(slot, places.tail(), into)?;
        }
        if course.uses(places.optimizer()) {
            self.optimizer()?;
            self.record(slot, places.optimizer(), into)?;
        }
        if course.uses(places.copy()) {
            self.copy()?;
            self.record(slot, places.copy(), into)?;
            self.triad()?;
            self.record(slot, places.triad(), into)?;
        }
        match into {
            Into::Queue => self.record(slot, places.end(), into),
            Into::Graph(_) => Ok(()),
        }
    }

    /// Queues one matmul of the step.
    pub fn matmul(&self, gemm: usize, pair: u32) -> Result<(), KernelError> {
        let shape = self.spec.gemms.get(gemm);
        let plan = shape.and_then(|shape| self.matmuls.get(shape));
        let operands = self.arrays.pairs.get(pair as usize);
        let (Some(plan), Some([a, b])) = (plan, operands) else {
            return Err(self
                .gpu
                .refuse(format!("matmul {gemm} with pair {pair} was not prepared")));
        };
        let c = self.arrays.c.at;
        match plan {
            Matmul::Own(plan) => plan.queue(&self.stream, pair as usize, [a.at, b.at, c]),
            Matmul::Lt(plan) => plan.queue(&self.stream, a.at, b.at, c),
        }
    }

    /// Queues the row sums of C and their way to the host.
    pub fn audit(
        &self,
        slot: usize,
        audited: Audited,
        into: &mut Into<'_>,
    ) -> Result<(), KernelError> {
        let shape = self.spec.gemms[audited.gemm];
        let first = self.layout.first_row[audited.gemm];
        let slot = &self.arrays.slots[slot];
        let (at, bytes) = (u64::from(first) * 4, u64::from(shape.m) * 4);
        let key = challenge_key(self.spec.audits(), audited.pair);
        let arguments = Arguments::new(&[
            self.arrays.c.at,
            slot.rows.at,
            shape.m.into(),
            shape.n.into(),
            key.into(),
            first.into(),
        ]);
        let grid = shape.m.div_ceil(8) * shape.n.div_ceil(2048);
        self.stream.zero(&slot.rows, at, bytes)?;
        self.note(audited.gemm, into)?;
        self.stream.launch(
            self.kernels.audit.function,
            Shape::new(grid, 256),
            &arguments,
            "queue an audit",
        )?;
        self.note(audited.gemm, into)?;
        self.stream
            .down(&slot.rows, at, &slot.readback, at, bytes)?;
        self.note(audited.gemm, into)
    }

    fn note(&self, gemm: usize, into: &mut Into<'_>) -> Result<(), KernelError> {
        match into {
            Into::Queue => Ok(()),
            Into::Graph(captured) => captured.note(&self.stream, gemm),
        }
    }

    /// Flips one bit of C.
    pub fn flip(&self, word: u64, bit: u32) -> Result<(), KernelError> {
        let arguments = Arguments::new(&[self.arrays.c.at, word, bit.into()]);
        let shape = Shape::new(1, 1);
        self.stream
            .launch(self.kernels.flip.function, shape, &arguments, "flip a bit")
    }

    /// Sends the buckets down that `after` completes.
    fn leave(&self, course: &Course, after: Option<usize>) -> Result<(), KernelError> {
        for ready in course.ready.iter().filter(|r| r.after == after) {
            let bucket = &self.arrays.buckets[ready.bucket];
            if ready.audited {
                // Fresh data, so that a total left over from an earlier step cannot pass.
                self.addend(ready.bucket, course.seq)?;
            }
            self.stream.record(&bucket.ready)?;
            self.copies.wait_for(&bucket.ready)?;
            self.copies
                .down(&bucket.addend, 0, &bucket.down, 0, bucket.bytes)?;
            self.copies.record(&bucket.arrived)?;
        }
        Ok(())
    }

    /// Fills a bucket with the exact addends of this rank.
    pub fn addend(&self, bucket: usize, iteration: u64) -> Result<(), KernelError> {
        let Some(rank) = self.rank else {
            return Ok(());
        };
        let bucket = &self.arrays.buckets[bucket];
        let count = bucket.bytes / 4;
        let key = exact::key(self.spec.seed, rank, iteration);
        let arguments = Arguments::new(&[bucket.addend.at, count, key.into()]);
        let shape = Shape::new(Arrays::blocks(&self.gpu, count), 256);
        self.stream.launch(
            self.kernels.addend.function,
            shape,
            &arguments,
            "fill a bucket",
        )
    }

    fn optimizer(&self) -> Result<(), KernelError> {
        let Some([parameter, gradient, mean, square]) = &self.arrays.state else {
            return Ok(());
        };
        let fours = self.layout.parameter_fours;
        let mut arguments = Arguments::new(&[parameter.at, gradient.at, mean.at, square.at, fours]);
        for constant in [1e-4, 0.9, 0.95, 1e-8, 0.1] {
            arguments = arguments.float(constant);
        }
        let shape = Shape::new(Arrays::blocks(&self.gpu, fours), 256);
        self.stream.launch(
            self.kernels.adamw.function,
            shape,
            &arguments,
            "queue the optimizer",
        )
    }

    fn copy(&self) -> Result<(), KernelError> {
        let Some([x, y, _]) = &self.arrays.streams else {
            return Ok(());
        };
        let fours = self.layout.memory_fours;
        let arguments = Arguments::new(&[x.at, y.at, fours]);
        let shape = Shape::new(Arrays::blocks(&self.gpu, fours), 256);
        self.stream.launch(
            self.kernels.copy.function,
            shape,
            &arguments,
            "queue a copy",
        )
    }

    fn triad(&self) -> Result<(), KernelError> {
        let Some([x, y, z]) = &self.arrays.streams else {
            return Ok(());
        };
        let fours = self.layout.memory_fours;
        let arguments = Arguments::new(&[x.at, z.at, y.at]).float(3.0).word(fours);
        let shape = Shape::new(Arrays::blocks(&self.gpu, fours), 256);
        self.stream.launch(
            self.kernels.triad.function,
            shape,
            &arguments,
            "queue a triad",
        )
    }
}
