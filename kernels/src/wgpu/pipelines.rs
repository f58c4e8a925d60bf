//! Decides which WGSL runs for what, and compiles it.
//!
//! Sources are in `wgsl/`; the element type of the operands is put in front of them here. Refuses nothing: that a
//! device has f16 is checked before.

use super::gpu::Gpu;
use ::wgpu::{BindGroup, BindGroupLayout, Buffer, ComputePipeline, DeviceType, ShaderStages};
use hallmark_profiles::workload::{Dtype, Gemm};

/// The matmul that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Blocks in registers, no workgroup memory: for adapters that run on the processor's cores.
    Direct,
    /// Tiles in workgroup memory: for adapters with silicon of their own.
    Tiled,
}

impl Variant {
    pub(super) fn of(kind: DeviceType) -> Self {
        if kind == DeviceType::Cpu {
            Self::Direct
        } else {
            Self::Tiled
        }
    }

    pub(super) const fn describe(self) -> &'static str {
        match self {
            Self::Direct => "own WGSL, 16×8 block per invocation in registers, no workgroup memory",
            Self::Tiled => "own WGSL, 128×128 tile per workgroup, 16 deep in workgroup memory",
        }
    }
}

/// What a kernel's binding is; bindings are numbered in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    Read,
    Write,
    /// A record in the step's parameter buffer, at a dynamic offset.
    Params,
}

/// Bytes of a parameter record that a kernel sees, and the distance between records: no limit on offsets that
/// WebGPU permits is above 256.
pub(super) const PARAMS_BYTES: u64 = 32;
pub(super) const PARAMS_STRIDE: u32 = 256;

/// One entry point with its full source.
pub(super) struct Source {
    pub label: &'static str,
    pub entry: &'static str,
    pub text: String,
    pub bindings: &'static [Binding],
}

const MATMUL: &[Binding] = &[
    Binding::Read,
    Binding::Read,
    Binding::Write,
    Binding::Params,
];
const IN_PLACE: &[Binding] = &[Binding::Write, Binding::Params];
const STREAM: &[Binding] = MATMUL;

fn operand(dtype: Dtype, fours: bool) -> String {
    let element = if dtype == Dtype::F16 { "f16" } else { "f32" };
    let enable = if dtype == Dtype::F16 {
        "enable f16;\n"
    } else {
        ""
    };
    let operand = if fours {
        format!("vec4<{element}>")
    } else {
        element.to_owned()
    };
    format!("{enable}alias Operand = {operand};\n")
}

fn source(
    label: &'static str,
    entry: &'static str,
    front: &str,
    body: &str,
    bindings: &'static [Binding],
) -> Source {
    Source {
        label,
        entry,
        text: format!("{front}{body}"),
        bindings,
    }
}

/// Matmul for shapes whose rows start on a multiple of four elements.
pub(super) fn direct(dtype: Dtype) -> Source {
    let body = include_str!("../../wgsl/direct.wgsl");
    source("matmul direct", "main", &operand(dtype, true), body, MATMUL)
}

/// Matmul for any shape.
pub(super) fn any_shape(dtype: Dtype, variant: Variant) -> Source {
    let (label, body) = match variant {
        Variant::Direct => ("matmul edge", include_str!("../../wgsl/edge.wgsl")),
        Variant::Tiled => ("matmul tiled", include_str!("../../wgsl/tiled.wgsl")),
    };
    source(label, "main", &operand(dtype, false), body, MATMUL)
}

pub(super) fn fill(dtype: Dtype) -> Source {
    let body = include_str!("../../wgsl/operands.wgsl");
    source("operands", "main", &operand(dtype, false), body, IN_PLACE)
}

pub(super) fn audit() -> Source {
    const BINDINGS: &[Binding] = &[Binding::Read, Binding::Write, Binding::Params];
    source(
        "audit",
        "main",
        "",
        include_str!("../../wgsl/audit.wgsl"),
        BINDINGS,
    )
}

pub(super) fn flip() -> Source {
    source(
        "flip",
        "main",
        "",
        include_str!("../../wgsl/flip.wgsl"),
        IN_PLACE,
    )
}

pub(super) fn addend() -> Source {
    source(
        "addend",
        "main",
        "",
        include_str!("../../wgsl/addend.wgsl"),
        IN_PLACE,
    )
}

pub(super) fn stream(entry: &'static str) -> Source {
    source(
        entry,
        entry,
        "",
        include_str!("../../wgsl/stream.wgsl"),
        STREAM,
    )
}

pub(super) fn adamw() -> Source {
    const BINDINGS: &[Binding] = &[
        Binding::Write,
        Binding::Read,
        Binding::Write,
        Binding::Write,
        Binding::Params,
    ];
    source(
        "adamw",
        "main",
        "",
        include_str!("../../wgsl/adamw.wgsl"),
        BINDINGS,
    )
}

/// A compiled kernel.
pub(super) struct Kernel {
    pub pipeline: ComputePipeline,
    layout: BindGroupLayout,
    bindings: &'static [Binding],
}

impl Kernel {
    pub fn new(device: &::wgpu::Device, source: &Source) -> Self {
        let entries: Vec<_> = (0..)
            .zip(source.bindings)
            .map(|(binding, kind)| ::wgpu::BindGroupLayoutEntry {
                binding,
                visibility: ShaderStages::COMPUTE,
                ty: ::wgpu::BindingType::Buffer {
                    ty: match kind {
                        Binding::Read => ::wgpu::BufferBindingType::Storage { read_only: true },
                        Binding::Write => ::wgpu::BufferBindingType::Storage { read_only: false },
                        Binding::Params => ::wgpu::BufferBindingType::Uniform,
                    },
                    has_dynamic_offset: *kind == Binding::Params,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let layout = device.create_bind_group_layout(&::wgpu::BindGroupLayoutDescriptor {
            label: Some(source.label),
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&::wgpu::PipelineLayoutDescriptor {
            label: Some(source.label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let descriptor = ::wgpu::ShaderModuleDescriptor {
            label: Some(source.label),
            source: ::wgpu::ShaderSource::Wgsl(source.text.as_str().into()),
        };
        // SAFETY: the sources are this crate's own; each clamps or guards every index by the shape it is given, the
        // host binds buffers of at least that shape, and every loop ends with its shape.
        let module = unsafe {
            device
                .create_shader_module_trusted(descriptor, ::wgpu::ShaderRuntimeChecks::unchecked())
        };
        let pipeline = device.create_compute_pipeline(&::wgpu::ComputePipelineDescriptor {
            label: Some(source.label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(source.entry),
            compilation_options: ::wgpu::PipelineCompilationOptions {
                // Every element of workgroup memory is written before it is read.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        Self {
            pipeline,
            layout,
            bindings: source.bindings,
        }
    }

    /// Binds `buffers` in order, the last one being the parameters.
    pub fn bind(&self, device: &::wgpu::Device, buffers: &[&Buffer]) -> BindGroup {
        let entries: Vec<_> = (0..)
            .zip(self.bindings.iter().zip(buffers))
            .map(|(binding, (kind, buffer))| ::wgpu::BindGroupEntry {
                binding,
                resource: match kind {
                    Binding::Params => ::wgpu::BindingResource::Buffer(::wgpu::BufferBinding {
                        buffer,
                        offset: 0,
                        size: std::num::NonZeroU64::new(PARAMS_BYTES),
                    }),
                    _ => buffer.as_entire_binding(),
                },
            })
            .collect();
        device.create_bind_group(&::wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.layout,
            entries: &entries,
        })
    }
}

/// The kernels of one prepared step.
pub(super) struct Kernels {
    variant: Variant,
    direct: Option<Kernel>,
    any_shape: Kernel,
    pub fill: Kernel,
    pub fill_f32: Kernel,
    pub audit: Kernel,
    pub flip: Kernel,
    pub addend: Kernel,
    pub copy: Kernel,
    pub triad: Kernel,
    pub adamw: Kernel,
}

impl Kernels {
    pub fn new(gpu: &Gpu, dtype: Dtype) -> Self {
        let make = |source: Source| Kernel::new(&gpu.device, &source);
        Self {
            variant: gpu.variant,
            direct: (gpu.variant == Variant::Direct).then(|| make(direct(dtype))),
            any_shape: make(any_shape(dtype, gpu.variant)),
            fill: make(fill(dtype)),
            fill_f32: make(fill(Dtype::F32)),
            audit: make(audit()),
            flip: make(flip()),
            addend: make(addend()),
            copy: make(stream("copy")),
            triad: make(stream("triad")),
            adamw: make(adamw()),
        }
    }

    /// The matmul kernel for a shape and the workgroups it takes along n and m.
    pub fn matmul(&self, gemm: Gemm) -> (&Kernel, [u32; 2]) {
        let aligned = gemm.n.is_multiple_of(4) && gemm.k.is_multiple_of(4);
        match (self.variant, &self.direct) {
            (Variant::Direct, Some(direct)) if aligned => {
                (direct, [gemm.n.div_ceil(64), gemm.m.div_ceil(16)])
            }
            (Variant::Direct, _) => (&self.any_shape, [gemm.n.div_ceil(64), gemm.m.div_ceil(16)]),
            (Variant::Tiled, _) => (
                &self.any_shape,
                [gemm.n.div_ceil(128), gemm.m.div_ceil(128)],
            ),
        }
    }
}
