//! Decides what a prepared step holds on the device: every buffer and bind group, made once and filled once.
//!
//! Operands come from the counter-based generator on the device itself; the audits regenerate them on the host.

use super::gpu::{Gpu, SETUP_LIMIT};
use super::layout::{Layout, SLOTS};
use super::pipelines::{Kernel, Kernels, PARAMS_BYTES, PARAMS_STRIDE};
use crate::audit::{Stream, challenge_key, key};
use crate::error::KernelError;
use ::wgpu::{BindGroup, Buffer, BufferUsages as Usage, ComputePass, QuerySet};
use hallmark_profiles::workload::{Gemm, StepSpec};

/// Records that kernels read, one every [`PARAMS_STRIDE`] bytes.
#[derive(Default)]
struct Params {
    bytes: Vec<u8>,
}

impl Params {
    fn push(&mut self, words: &[u32]) -> u32 {
        let offset = self.bytes.len();
        self.bytes.extend_from_slice(bytemuck::cast_slice(words));
        self.bytes.resize(offset + PARAMS_STRIDE as usize, 0);
        offset as u32
    }
}

/// One dispatch, bound and ready.
pub(super) struct Job {
    bind: BindGroup,
    params: u32,
    groups: [u32; 2],
}

impl Job {
    pub fn run(&self, pass: &mut ComputePass<'_>, kernel: &Kernel) {
        pass.set_pipeline(&kernel.pipeline);
        pass.set_bind_group(0, &self.bind, &[self.params]);
        pass.dispatch_workgroups(self.groups[0], self.groups[1], 1);
    }
}

/// What belongs to one step in flight.
pub(super) struct Slot {
    pub queries: Option<QuerySet>,
    pub resolved: Buffer,
    pub rows: Buffer,
    /// Timestamps, then row sums, for the host.
    pub readback: Buffer,
    audit_bind: BindGroup,
}

/// Everything a step touches on the device.
pub(super) struct Arrays {
    params: Buffer,
    pairs: Vec<BindGroup>,
    matmul_params: Vec<u32>,
    /// By matmul, then pair.
    audit_params: Vec<Vec<u32>>,
    pub adamw: Vec<Job>,
    pub copy: Vec<Job>,
    pub triad: Vec<Job>,
    pub slots: Vec<Slot>,
    flip_bind: BindGroup,
    flip_params: u32,
    pub buckets: Vec<Bucket>,
    /// By slot, then bucket.
    addend_params: Vec<Vec<u32>>,
}

/// A gradient bucket on the device and on its way through host memory.
pub(super) struct Bucket {
    pub bytes: u64,
    pub addend: Buffer,
    pub down: Buffer,
    pub up: Buffer,
    pub total: Buffer,
    bind: BindGroup,
}

impl Bucket {
    fn new(gpu: &Gpu, kernels: &Kernels, bytes: u64, params: &Buffer) -> Self {
        let addend = gpu.buffer("addend", bytes, Usage::STORAGE | Usage::COPY_SRC);
        Self {
            bytes,
            down: gpu.buffer("bucket down", bytes, Usage::MAP_READ | Usage::COPY_DST),
            up: gpu.buffer("bucket up", bytes, Usage::MAP_WRITE | Usage::COPY_SRC),
            total: gpu.buffer("total", bytes, Usage::COPY_DST | Usage::COPY_SRC),
            bind: kernels.addend.bind(&gpu.device, &[&addend, params]),
            addend,
        }
    }
}

/// One operand or state array still to be filled: which kernel, which buffer, how many, from which key.
struct Filling<'a> {
    kernel: &'a Kernel,
    buffer: Buffer,
    count: u32,
    key: u32,
    range: u32,
}

/// Spreads `groups` workgroups over two dimensions; kernels skip what lies beyond.
fn spread(groups: u64) -> [u32; 2] {
    const SIDE: u64 = 32_768;
    let x = groups.clamp(1, SIDE);
    [x as u32, groups.div_ceil(x).max(1) as u32]
}

impl Arrays {
    pub fn new(gpu: &Gpu, kernels: &Kernels, spec: &StepSpec, layout: &Layout) -> Self {
        let mut params = Params::default();
        let (matmul_params, audit_params) = records(&mut params, spec, layout);
        let flip_params = params.push(&[0; 4]);
        let mut record = |_| params.push(&[0; 4]);
        let addend_params = (0..SLOTS)
            .map(|_| spec.buckets.iter().map(&mut record).collect())
            .collect();
        let storage = Usage::STORAGE | Usage::COPY_SRC;
        let [bytes_a, bytes_b, bytes_c] = layout.operand_bytes;
        let c = gpu.buffer("C", bytes_c, storage);
        let records = record_count(spec, layout);
        let params_buffer = gpu.buffer(
            "parameters",
            records * u64::from(PARAMS_STRIDE) + PARAMS_BYTES,
            Usage::UNIFORM | Usage::COPY_DST,
        );
        let mut fillings = Vec::new();
        let mut pairs = Vec::new();
        let (any, _) = kernels.matmul(Gemm::new(1, 1, 1));
        for pair in 0..layout.pairs {
            let mut operand = |label, bytes: u64, stream| {
                let buffer = gpu.buffer(label, bytes, Usage::STORAGE);
                fillings.push(Filling {
                    kernel: &kernels.fill,
                    buffer: buffer.clone(),
                    count: (bytes / spec.dtype.bytes()) as u32,
                    key: key(spec.seed, stream, pair),
                    range: layout.range,
                });
                buffer
            };
            let a = operand("A", bytes_a, Stream::A);
            let b = operand("B", bytes_b, Stream::B);
            pairs.push(any.bind(&gpu.device, &[&a, &b, &c, &params_buffer]));
        }
        let mut maker = Maker {
            gpu,
            kernels,
            params: &mut params,
            buffer: &params_buffer,
            fillings: &mut fillings,
            seed: spec.seed,
        };
        let adamw = maker.adamw(&layout.parameter_pieces);
        let (copy, triad) = maker.streams(&layout.memory_pieces);
        let slots = (0..SLOTS)
            .map(|_| slot(gpu, kernels, layout, &c, &params_buffer))
            .collect();
        let buckets = spec
            .buckets
            .iter()
            .map(|b| Bucket::new(gpu, kernels, b.bytes.0, &params_buffer))
            .collect();
        let flip_bind = kernels.flip.bind(&gpu.device, &[&c, &params_buffer]);
        fill(gpu, &mut params, &params_buffer, &fillings);
        Self {
            params: params_buffer,
            pairs,
            matmul_params,
            audit_params,
            adamw,
            copy,
            triad,
            slots,
            flip_bind,
            flip_params,
            buckets,
            addend_params,
        }
    }

    /// Sets the key from which the slot's next [`Self::addend`] fills `bucket`; effective with the next submission.
    pub fn aim_addend(&self, gpu: &Gpu, slot: usize, bucket: usize, key: u32) {
        let words = [(self.buckets[bucket].bytes / 4) as u32, key, 0, 0];
        let at = u64::from(self.addend_params[slot][bucket]);
        gpu.queue
            .write_buffer(&self.params, at, bytemuck::cast_slice(&words));
    }

    /// Fills `bucket`'s addend.
    pub fn addend(
        &self,
        pass: &mut ComputePass<'_>,
        kernels: &Kernels,
        slot: usize,
        bucket: usize,
    ) {
        let groups = spread((self.buckets[bucket].bytes / 4).div_ceil(256));
        let params = self.addend_params[slot][bucket];
        pass.set_pipeline(&kernels.addend.pipeline);
        pass.set_bind_group(0, &self.buckets[bucket].bind, &[params]);
        pass.dispatch_workgroups(groups[0], groups[1], 1);
    }

    pub fn matmul(
        &self,
        pass: &mut ComputePass<'_>,
        kernels: &Kernels,
        spec: &StepSpec,
        gemm: usize,
        pair: u32,
    ) {
        let (kernel, groups) = kernels.matmul(spec.gemms[gemm]);
        pass.set_pipeline(&kernel.pipeline);
        pass.set_bind_group(0, &self.pairs[pair as usize], &[self.matmul_params[gemm]]);
        pass.dispatch_workgroups(groups[0], groups[1], 1);
    }

    pub fn audit(
        &self,
        pass: &mut ComputePass<'_>,
        kernels: &Kernels,
        spec: &StepSpec,
        slot: usize,
        gemm: usize,
        pair: u32,
    ) {
        let groups = spread(u64::from(spec.gemms[gemm].m));
        let params = self.audit_params[gemm][pair as usize];
        pass.set_pipeline(&kernels.audit.pipeline);
        pass.set_bind_group(0, &self.slots[slot].audit_bind, &[params]);
        pass.dispatch_workgroups(groups[0], groups[1], 1);
    }

    /// Takes effect with the next submission.
    pub fn aim_flip(&self, gpu: &Gpu, element: u32, bit: u32) {
        let words = [element, bit, 0, 0];
        let at = u64::from(self.flip_params);
        gpu.queue
            .write_buffer(&self.params, at, bytemuck::cast_slice(&words));
    }

    pub fn flip(&self, pass: &mut ComputePass<'_>, kernels: &Kernels) {
        pass.set_pipeline(&kernels.flip.pipeline);
        pass.set_bind_group(0, &self.flip_bind, &[self.flip_params]);
        pass.dispatch_workgroups(1, 1, 1);
    }
}

/// Records of each matmul, and of its audit by pair.
fn records(params: &mut Params, spec: &StepSpec, layout: &Layout) -> (Vec<u32>, Vec<Vec<u32>>) {
    let matmul_params = spec
        .gemms
        .iter()
        .map(|g| params.push(&[g.m, g.n, g.k, 0]))
        .collect();
    let audit_params = spec
        .gemms
        .iter()
        .zip(&layout.first_row)
        .map(|(g, first)| {
            (0..layout.pairs)
                .map(|pair| params.push(&[g.m, g.n, challenge_key(spec.audits(), pair), *first]))
                .collect()
        })
        .collect();
    (matmul_params, audit_params)
}

/// Records that [`Arrays::new`] pushes.
fn record_count(spec: &StepSpec, layout: &Layout) -> u64 {
    let gemms = spec.gemms.len() as u64 * u64::from(1 + layout.pairs);
    let state = 2 * layout.parameter_pieces.len() as u64;
    let streams = 4 * layout.memory_pieces.len() as u64;
    let buckets = SLOTS as u64 * spec.buckets.len() as u64;
    1 + buckets + gemms + 2 * u64::from(layout.pairs) + state + streams
}

fn slot(gpu: &Gpu, kernels: &Kernels, layout: &Layout, c: &Buffer, params: &Buffer) -> Slot {
    let tick_bytes = u64::from(layout.queries) * 8;
    let row_bytes = layout.rows * 4;
    let queries = gpu.tick_ns.map(|_| {
        gpu.device.create_query_set(&::wgpu::QuerySetDescriptor {
            label: Some("step"),
            ty: ::wgpu::QueryType::Timestamp,
            count: layout.queries,
        })
    });
    let rows = gpu.buffer("row sums", row_bytes, Usage::STORAGE | Usage::COPY_SRC);
    Slot {
        queries,
        resolved: gpu.buffer("ticks", tick_bytes, Usage::QUERY_RESOLVE | Usage::COPY_SRC),
        audit_bind: kernels.audit.bind(&gpu.device, &[c, &rows, params]),
        rows,
        readback: gpu.buffer(
            "readback",
            tick_bytes + row_bytes,
            Usage::MAP_READ | Usage::COPY_DST,
        ),
    }
}

struct Maker<'a, 'k> {
    gpu: &'a Gpu,
    kernels: &'k Kernels,
    params: &'a mut Params,
    buffer: &'a Buffer,
    fillings: &'a mut Vec<Filling<'k>>,
    seed: u64,
}

impl Maker<'_, '_> {
    fn state(&self, label: &str, floats: u64) -> Buffer {
        self.gpu.buffer(label, floats * 4, Usage::STORAGE)
    }

    fn fill(&mut self, buffer: &Buffer, floats: u64, stream: Stream, number: u32) {
        self.fillings.push(Filling {
            kernel: &self.kernels.fill_f32,
            buffer: buffer.clone(),
            count: floats as u32,
            key: key(self.seed, stream, number),
            range: 4,
        });
    }

    /// Gradients stand still, so parameters stay finite: weight decay holds them below rate/decay.
    fn adamw(&mut self, pieces: &[u64]) -> Vec<Job> {
        let mut jobs = Vec::new();
        for (number, &floats) in (0x100..).zip(pieces) {
            let parameter = self.state("parameters", floats);
            let gradient = self.state("gradients", floats);
            let (mean, square) = (self.state("mean", floats), self.state("square", floats));
            self.fill(&gradient, floats, Stream::A, number);
            let fours = floats.div_ceil(4);
            let [rate, beta_1, beta_2, floor, decay] =
                [1e-4_f32, 0.9, 0.95, 1e-8, 0.1].map(f32::to_bits);
            let params =
                self.params
                    .push(&[fours as u32, rate, beta_1, beta_2, floor, decay, 0, 0]);
            let buffers = [&parameter, &gradient, &mean, &square, self.buffer];
            jobs.push(Job {
                bind: self.kernels.adamw.bind(&self.gpu.device, &buffers),
                params,
                groups: spread(fours.div_ceil(256)),
            });
        }
        jobs
    }

    fn streams(&mut self, pieces: &[u64]) -> (Vec<Job>, Vec<Job>) {
        let (mut copy, mut triad) = (Vec::new(), Vec::new());
        for (number, &floats) in (0x200..).zip(pieces) {
            let (x, y, z) = (
                self.state("x", floats),
                self.state("y", floats),
                self.state("z", floats),
            );
            self.fill(&x, floats, Stream::A, number);
            self.fill(&z, floats, Stream::B, number);
            let fours = floats.div_ceil(4);
            let params = self.params.push(&[fours as u32, 3.0_f32.to_bits(), 0, 0]);
            let groups = spread(fours.div_ceil(256));
            for (jobs, kernel) in [
                (&mut copy, &self.kernels.copy),
                (&mut triad, &self.kernels.triad),
            ] {
                jobs.push(Job {
                    bind: kernel.bind(&self.gpu.device, &[&x, &z, &y, self.buffer]),
                    params,
                    groups,
                });
            }
        }
        (copy, triad)
    }
}

/// Uploads every record and queues the kernels that fill the arrays.
fn fill(gpu: &Gpu, params: &mut Params, buffer: &Buffer, fillings: &[Filling<'_>]) {
    let jobs: Vec<_> = fillings
        .iter()
        .map(|f| Job {
            params: params.push(&[f.count, f.key, f.range, 0]),
            bind: f.kernel.bind(&gpu.device, &[&f.buffer, buffer]),
            groups: spread(u64::from(f.count).div_ceil(256)),
        })
        .collect();
    gpu.queue.write_buffer(buffer, 0, &params.bytes);
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        for (job, filling) in jobs.iter().zip(fillings) {
            job.run(&mut pass, filling.kernel);
        }
    }
    gpu.queue.submit([encoder.finish()]);
}

/// Waits until the arrays are filled.
pub(super) fn settle(gpu: &Gpu) -> Result<(), KernelError> {
    let index = gpu.submit(None)?;
    gpu.finish(&index, SETUP_LIMIT)
}
