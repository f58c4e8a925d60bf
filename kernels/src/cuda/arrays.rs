//! Decides what a prepared step holds on the device: every array, event and kernel, made once and filled once.
//!
//! Operands come from the counter-based generator on the device itself. Nothing here is made again while the load
//! runs.

use super::gpu::{Arguments, Event, Gpu, Memory, Pinned, SETUP_LIMIT, Shape, Stream};
use super::layout::{Layout, SLOTS};
use super::module::{Kernel, Module, Modules, Source};
use crate::audit::{Stream as Generator, key};
use crate::error::KernelError;
use cudarc::driver::sys::CUdeviceptr;
use hallmark_profiles::workload::{Dtype, StepSpec};
use std::sync::Arc;

/// The kernels of a step beside its matmuls.
pub(super) struct StepKernels {
    pub fill: Kernel,
    pub fill_f32: Kernel,
    pub audit: Kernel,
    pub weigh_a: Kernel,
    pub weigh_b: Kernel,
    pub flip: Kernel,
    pub copy: Kernel,
    pub triad: Kernel,
    pub adamw: Kernel,
    pub addend: Kernel,
    /// Keeps the entries valid.
    _module: Arc<Module>,
}

impl StepKernels {
    pub fn new(modules: &Modules, dtype: Dtype) -> Result<Self, KernelError> {
        let module = modules.get(Source::Step)?;
        let fill = match dtype {
            Dtype::F64 => "fill_f64",
            Dtype::F32 | Dtype::Tf32 => "fill_f32",
            Dtype::Bf16 => "fill_bf16",
            Dtype::F16 => "fill_f16",
            Dtype::Fp8E4m3 => "fill_e4m3",
            Dtype::Fp8E5m2 => "fill_e5m2",
            Dtype::Int8 => "fill_i8",
        };
        let audit = match dtype {
            Dtype::F64 => "audit_f64",
            Dtype::Int8 => "audit_i32",
            _ => "audit_f32",
        };
        let kernel = |name| module.kernel(name);
        Ok(Self {
            fill: kernel(fill)?,
            fill_f32: kernel("fill_f32")?,
            audit: kernel(audit)?,
            weigh_a: kernel("weigh_a")?,
            weigh_b: kernel("weigh_b")?,
            flip: kernel("flip")?,
            copy: kernel("copy")?,
            triad: kernel("triad")?,
            adamw: kernel("adamw")?,
            addend: kernel("addend")?,
            _module: module,
        })
    }
}

/// What belongs to one step in flight.
pub(super) struct Slot {
    /// By number; see `course`.
    pub events: Vec<Event>,
    pub rows: Memory,
    pub readback: Pinned,
}

/// A gradient bucket on the device and on its way through host memory.
pub(super) struct Bucket {
    pub bytes: u64,
    pub addend: Memory,
    pub total: Memory,
    pub down: Pinned,
    pub up: Pinned,
    /// The gradients are ready on the device.
    pub ready: Event,
    /// They have arrived in host memory.
    pub arrived: Event,
}

/// Everything a step touches.
pub(super) struct Arrays {
    pub pairs: Vec<[Memory; 2]>,
    pub c: Memory,
    /// Parameters, gradients, mean and square.
    pub state: Option<[Memory; 4]>,
    /// x, y and z of copy and triad.
    pub streams: Option<[Memory; 3]>,
    pub slots: Vec<Slot>,
    pub buckets: Vec<Bucket>,
}

impl Arrays {
    /// Allocates and fills everything; waits until it is filled.
    pub fn new(
        gpu: &Arc<Gpu>,
        stream: &Stream,
        kernels: &StepKernels,
        spec: &StepSpec,
        layout: &Layout,
        events: usize,
    ) -> Result<Self, KernelError> {
        let filler = Filler {
            gpu,
            stream,
            spec,
            layout,
        };
        let [_, _, bytes_c] = layout.operand_bytes;
        let c = gpu.memory(bytes_c)?;
        stream.zero(&c, 0, bytes_c)?;
        let pairs = if spec.gemms.is_empty() {
            Vec::new()
        } else {
            (0..layout.pairs)
                .map(|pair| filler.pair(kernels, pair))
                .collect::<Result<_, _>>()?
        };
        let state = filler.state(kernels)?;
        let streams = filler.streams(kernels)?;
        let slots = (0..SLOTS)
            .map(|_| slot(gpu, layout, events))
            .collect::<Result<_, _>>()?;
        let buckets = spec
            .buckets
            .iter()
            .map(|b| bucket(gpu, b.bytes.0))
            .collect::<Result<_, _>>()?;
        gpu.finish(stream, SETUP_LIMIT)?;
        Ok(Self {
            pairs,
            c,
            state,
            streams,
            slots,
            buckets,
        })
    }

    /// Addresses of A and B of every pair.
    pub fn addresses(&self) -> Vec<[CUdeviceptr; 2]> {
        self.pairs.iter().map(|[a, b]| [a.at, b.at]).collect()
    }

    /// Blocks of 256 for `count` items: enough to fill the device, no more than there is work for.
    pub fn blocks(gpu: &Gpu, count: u64) -> u32 {
        let most = u64::from(gpu.found.multiprocessors) * 8;
        count.div_ceil(256).clamp(1, most.max(1)) as u32
    }
}

fn slot(gpu: &Arc<Gpu>, layout: &Layout, events: usize) -> Result<Slot, KernelError> {
    Ok(Slot {
        events: (0..events).map(|_| gpu.event()).collect::<Result<_, _>>()?,
        rows: gpu.memory(layout.rows * 4)?,
        readback: gpu.pinned(layout.rows * 4)?,
    })
}

fn bucket(gpu: &Arc<Gpu>, bytes: u64) -> Result<Bucket, KernelError> {
    Ok(Bucket {
        bytes,
        addend: gpu.memory(bytes)?,
        total: gpu.memory(bytes)?,
        down: gpu.pinned(bytes)?,
        up: gpu.pinned(bytes)?,
        ready: gpu.event()?,
        arrived: gpu.event()?,
    })
}

struct Filler<'a> {
    gpu: &'a Arc<Gpu>,
    stream: &'a Stream,
    spec: &'a StepSpec,
    layout: &'a Layout,
}

impl Filler<'_> {
    fn fill(
        &self,
        kernel: Kernel,
        memory: &Memory,
        count: u64,
        (generator, number): (Generator, u32),
        range: u32,
    ) -> Result<(), KernelError> {
        let key = key(self.spec.seed, generator, number);
        let arguments = Arguments::new(&[memory.at, count, key.into(), range.into()]);
        let shape = Shape::new(Arrays::blocks(self.gpu, count), 256);
        self.stream
            .launch(kernel.function, shape, &arguments, "fill an array")
    }

    fn pair(&self, kernels: &StepKernels, pair: u32) -> Result<[Memory; 2], KernelError> {
        let [bytes_a, bytes_b, _] = self.layout.operand_bytes;
        let operand = |bytes: u64, generator| {
            let memory = self.gpu.memory(bytes)?;
            let count = bytes / self.spec.dtype.bytes();
            let from = (generator, pair);
            self.fill(kernels.fill, &memory, count, from, self.layout.range)?;
            Ok::<Memory, KernelError>(memory)
        };
        Ok([
            operand(bytes_a, Generator::A)?,
            operand(bytes_b, Generator::B)?,
        ])
    }

    /// Gradients stand still, so parameters stay finite: weight decay holds them below rate/decay.
    fn state(&self, kernels: &StepKernels) -> Result<Option<[Memory; 4]>, KernelError> {
        let fours = self.layout.parameter_fours;
        if fours == 0 {
            return Ok(None);
        }
        let make = || self.gpu.memory(fours * 16);
        let state = [make()?, make()?, make()?, make()?];
        for memory in &state {
            self.stream.zero(memory, 0, memory.bytes)?;
        }
        let from = (Generator::A, 0x100);
        self.fill(kernels.fill_f32, &state[1], fours * 4, from, 4)?;
        Ok(Some(state))
    }

    fn streams(&self, kernels: &StepKernels) -> Result<Option<[Memory; 3]>, KernelError> {
        let fours = self.layout.memory_fours;
        if fours == 0 {
            return Ok(None);
        }
        let make = || self.gpu.memory(fours * 16);
        let streams = [make()?, make()?, make()?];
        self.stream.zero(&streams[1], 0, streams[1].bytes)?;
        let from = (Generator::A, 0x200);
        self.fill(kernels.fill_f32, &streams[0], fours * 4, from, 4)?;
        let from = (Generator::B, 0x200);
        self.fill(kernels.fill_f32, &streams[2], fours * 4, from, 4)?;
        Ok(Some(streams))
    }
}
