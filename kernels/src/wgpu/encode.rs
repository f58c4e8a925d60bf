//! Decides the order of a step's work on the device and where it is timed.
//!
//! Adjacent matmuls share one pass and one span. A step is cut into parts, each one submission, after every matmul
//! that completes a gradient bucket, so that the bucket can leave while the rest of the step goes on; without
//! buckets a step is one part. Where the device has no timestamps, every phase is a part of its own.

use super::arrays::{Arrays, Bucket, Job};
use super::gpu::Gpu;
use super::layout::Layout;
use super::pipelines::{Kernel, Kernels};
use crate::audit;
use crate::backend::pair_of;
use crate::work::{Submission, Work};
use ::wgpu::{CommandBuffer, CommandEncoder, ComputePass};
use hallmark_profiles::workload::StepSpec;
use std::ops::Range;

/// A phase whose time will be known when it has run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub work: Work,
    pub amount: f64,
}

/// One submission and the spans that end in it.
pub(super) struct Part {
    pub commands: CommandBuffer,
    pub spans: Range<usize>,
}

/// A matmul whose row sums will be in the readback.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audited {
    pub gemm: usize,
    pub pair: u32,
}

/// A bucket, ready once the part has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub bucket: usize,
    pub part: usize,
    /// Filled afresh for this step, so that its total can be checked.
    pub audited: bool,
}

/// A step in the order in which it is to be submitted: `head`, the buckets' reductions, `tail`.
pub(super) struct Launch {
    pub head: Vec<Part>,
    pub ready: Vec<Ready>,
    pub tail: Vec<Part>,
    pub spans: Vec<Planned>,
    pub audits: Vec<Audited>,
    pub seq: u64,
    /// This rank's vote, where the step reduces.
    pub stop: Option<bool>,
    /// Its buckets are summed by this node alone.
    pub within_node: bool,
    pub gemms: u32,
}

/// What a step is encoded from.
pub(super) struct Context<'a> {
    pub gpu: &'a Gpu,
    pub kernels: &'a Kernels,
    pub arrays: &'a Arrays,
    pub spec: &'a StepSpec,
    pub layout: &'a Layout,
    /// This rank, where it has a group to reduce with.
    pub rank: Option<u32>,
}

struct Recorder<'a> {
    context: &'a Context<'a>,
    slot: usize,
    encoder: Option<CommandEncoder>,
    spans: Vec<Planned>,
    open_from: usize,
    parts: Vec<Part>,
}

impl<'a> Recorder<'a> {
    fn encoder(&mut self) -> &mut CommandEncoder {
        let device = &self.context.gpu.device;
        self.encoder
            .get_or_insert_with(|| device.create_command_encoder(&Default::default()))
    }

    fn phase(&mut self, work: Work, amount: f64, record: impl FnOnce(&mut ComputePass<'_>)) {
        let number = self.spans.len() as u32;
        let context = self.context;
        let queries = context.arrays.slots[self.slot].queries.as_ref();
        let timestamp_writes = queries.map(|query_set| ::wgpu::ComputePassTimestampWrites {
            query_set,
            beginning_of_pass_write_index: Some(2 * number),
            end_of_pass_write_index: Some(2 * number + 1),
        });
        {
            let mut pass = self
                .encoder()
                .begin_compute_pass(&::wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes,
                });
            record(&mut pass);
        }
        self.spans.push(Planned { work, amount });
        if context.gpu.tick_ns.is_none() {
            self.cut();
        }
    }

    /// Ends the part; an empty one is dropped.
    fn cut(&mut self) {
        if let Some(encoder) = self.encoder.take() {
            self.parts.push(Part {
                commands: encoder.finish(),
                spans: self.open_from..self.spans.len(),
            });
            self.open_from = self.spans.len();
        }
    }

    fn jobs(&mut self, work: Work, amount: f64, jobs: &[Job], kernel: &Kernel) {
        if !jobs.is_empty() {
            self.phase(work, amount, |pass| {
                for job in jobs {
                    job.run(pass, kernel);
                }
            });
        }
    }

    fn matmuls(&mut self, seq: u64, run: &mut Vec<usize>) {
        if run.is_empty() {
            return;
        }
        let Context {
            arrays,
            kernels,
            spec,
            layout,
            ..
        } = self.context;
        let flop = run.iter().map(|&g| spec.gemms[g].flop().0).sum();
        self.phase(Work::Matmul, flop, |pass| {
            for gemm in run.drain(..) {
                let pair = pair_of(seq, gemm, layout.pairs);
                arrays.matmul(pass, kernels, spec, gemm, pair);
            }
        });
    }

    fn audit(&mut self, audited: Audited) {
        let slot = self.slot;
        let Context {
            arrays,
            kernels,
            spec,
            ..
        } = self.context;
        let Audited { gemm, pair } = audited;
        self.phase(Work::Audit, spec.gemms[gemm].flop().0, |pass| {
            arrays.audit(pass, kernels, spec, slot, gemm, pair);
        });
    }

    /// Copies timestamps and the audited matmuls' row sums to where the host reads them.
    fn collect(&mut self, audits: &[Audited]) {
        let context = self.context;
        let slot = &context.arrays.slots[self.slot];
        let ticks = 2 * self.spans.len() as u32;
        let rows_at = u64::from(context.layout.queries) * 8;
        let encoder = self.encoder();
        if let Some(queries) = slot.queries.as_ref().filter(|_| ticks > 0) {
            encoder.resolve_query_set(queries, 0..ticks, &slot.resolved, 0);
            let bytes = u64::from(ticks) * 8;
            encoder.copy_buffer_to_buffer(&slot.resolved, 0, &slot.readback, 0, bytes);
        }
        for audited in audits {
            let first = u64::from(context.layout.first_row[audited.gemm]) * 4;
            let bytes = u64::from(context.spec.gemms[audited.gemm].m) * 4;
            encoder.copy_buffer_to_buffer(
                &slot.rows,
                first,
                &slot.readback,
                rows_at + first,
                bytes,
            );
        }
    }

    /// Copies out the buckets that `gemm` completes (all of them where no matmul runs) and ends the part.
    fn release(&mut self, seq: u64, rank: u32, gemm: Option<usize>, ready: &mut Vec<Ready>) {
        let Context {
            gpu,
            kernels,
            arrays,
            spec,
            ..
        } = *self.context;
        let done = |after: u32| gemm.is_none_or(|g| after as usize == g);
        let slot = self.slot;
        let first = ready.len();
        for (bucket, _) in spec
            .buckets
            .iter()
            .enumerate()
            .filter(|(_, b)| done(b.after))
        {
            let number = audit::bucket_key(bucket as u32);
            let audited = audit::selects(spec.audits(), seq, number, spec.audit_share);
            if audited {
                // Fresh data, so that a total left over from an earlier step cannot pass.
                arrays.aim_addend(gpu, slot, bucket, addend_key(spec.seed, rank, seq));
                let mut pass = self.encoder().begin_compute_pass(&Default::default());
                arrays.addend(&mut pass, kernels, slot, bucket);
            }
            let Bucket {
                addend,
                down,
                bytes,
                ..
            } = &arrays.buckets[bucket];
            self.encoder()
                .copy_buffer_to_buffer(addend, 0, down, 0, *bytes);
            ready.push(Ready {
                bucket,
                part: 0,
                audited,
            });
        }
        if ready.len() > first {
            self.cut();
            let part = self.parts.len().saturating_sub(1);
            for bucket in &mut ready[first..] {
                bucket.part = part;
            }
        }
    }
}

/// The key from which [`exact::fill_exact`](crate::collective::exact::fill_exact) makes an addend: three rounds of
/// splitmix64's finaliser. A test holds the two together.
pub(super) fn addend_key(seed: u64, rank: u32, iteration: u64) -> u32 {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let round = |state: u64, word: u64| {
        let mut h = state.wrapping_add(word).wrapping_add(STEP);
        h = (h ^ (h >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        h = (h ^ (h >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        h ^ (h >> 31)
    };
    let state = [u64::from(rank), iteration, STEP]
        .into_iter()
        .fold(seed, round);
    (state >> 32) as u32
}

/// Fills every bucket's addend for the first time.
pub(super) fn first_addends(context: &Context<'_>, rank: u32) -> CommandBuffer {
    let Context {
        gpu,
        kernels,
        arrays,
        spec,
        ..
    } = *context;
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    for bucket in 0..spec.buckets.len() {
        arrays.aim_addend(gpu, 0, bucket, addend_key(spec.seed, rank, bucket as u64));
        let mut pass = encoder.begin_compute_pass(&Default::default());
        arrays.addend(&mut pass, kernels, 0, bucket);
    }
    encoder.finish()
}

/// Records one step into the buffers of `slot`.
pub(super) fn step(context: &Context<'_>, slot: usize, submission: Submission) -> Launch {
    let Context {
        spec,
        arrays,
        kernels,
        layout,
        ..
    } = *context;
    let Submission { seq, parts, stop } = submission;
    let rank = context.rank.filter(|_| parts.buckets);
    let mut recorder = Recorder {
        context,
        slot,
        encoder: None,
        spans: Vec::new(),
        open_from: 0,
        parts: Vec::new(),
    };
    let (mut audits, mut ready) = (Vec::new(), Vec::new());
    if parts.gemms {
        let mut run = Vec::new();
        for gemm in 0..spec.gemms.len() {
            run.push(gemm);
            let audited = audit::selects(spec.audits(), seq, gemm as u32, spec.audit_share);
            let fills = rank.is_some() && spec.buckets.iter().any(|b| b.after as usize == gemm);
            if audited || fills || gemm + 1 == spec.gemms.len() {
                recorder.matmuls(seq, &mut run);
            }
            if audited {
                let pair = pair_of(seq, gemm, layout.pairs);
                audits.push(Audited { gemm, pair });
                recorder.audit(Audited { gemm, pair });
            }
            if let Some(rank) = rank.filter(|_| fills) {
                recorder.release(seq, rank, Some(gemm), &mut ready);
            }
        }
    } else if let Some(rank) = rank {
        recorder.release(seq, rank, None, &mut ready);
    }
    if rank.is_some() {
        recorder.cut();
    }
    let head = std::mem::take(&mut recorder.parts);
    let floats = |pieces: &[u64]| pieces.iter().sum::<u64>() as f64 * 4.0;
    if parts.optimizer {
        let bytes = 7.0 * floats(&layout.parameter_pieces);
        recorder.jobs(Work::Optimizer, bytes, &arrays.adamw, &kernels.adamw);
    }
    if parts.memory {
        let bytes = floats(&layout.memory_pieces);
        recorder.jobs(Work::Copy, 2.0 * bytes, &arrays.copy, &kernels.copy);
        recorder.jobs(Work::Triad, 3.0 * bytes, &arrays.triad, &kernels.triad);
    }
    recorder.collect(&audits);
    recorder.cut();
    Launch {
        head,
        ready,
        tail: recorder.parts,
        spans: recorder.spans,
        audits,
        seq,
        stop: rank.map(|_| stop),
        within_node: parts.within_node,
        gemms: if parts.gemms {
            spec.gemms.len() as u32
        } else {
            0
        },
    }
}

/// One matmul, optionally a flipped bit, and its audit, for the self-test.
pub(super) fn audited_matmul(
    context: &Context<'_>,
    slot: usize,
    audited: Audited,
    flip: bool,
) -> CommandBuffer {
    let Context {
        gpu,
        arrays,
        kernels,
        spec,
        ..
    } = *context;
    let mut recorder = Recorder {
        context,
        slot,
        encoder: None,
        spans: Vec::new(),
        open_from: 0,
        parts: Vec::new(),
    };
    {
        let mut pass = recorder.encoder().begin_compute_pass(&Default::default());
        arrays.matmul(&mut pass, kernels, spec, audited.gemm, audited.pair);
        if flip {
            arrays.flip(&mut pass, kernels);
        }
        arrays.audit(&mut pass, kernels, spec, slot, audited.gemm, audited.pair);
    }
    recorder.collect(&[audited]);
    let encoder = recorder.encoder.take();
    encoder
        .unwrap_or_else(|| gpu.device.create_command_encoder(&Default::default()))
        .finish()
}
