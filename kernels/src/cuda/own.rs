//! Decides which of hallmark's own kernels multiplies a shape, and how it is launched.
//!
//! Hopper has a path of its own for 16-bit and 8-bit floats; every shape it does not take, and every other device, has
//! the path of Ampere and later. Which entry takes what is the contract at the head of `cuda/matmul.cu` and
//! `cuda/hopper.cu`. Refuses nothing but a launch that the driver refuses.

use super::gpu::{Arguments, Gpu, Shape, Stream};
use super::module::{Kernel, Modules, Source};
use crate::error::KernelError;
use core::ffi::c_void;
use cudarc::driver::sys::{
    CUdeviceptr, CUfunction_attribute, CUtensorMap, CUtensorMapDataType as MapType,
    CUtensorMapFloatOOBfill, CUtensorMapInterleave, CUtensorMapL2promotion, CUtensorMapSwizzle,
};
use hallmark_profiles::workload::{Dtype, Gemm};
use std::sync::Arc;

/// Dynamic shared memory of Hopper's kernels.
const HOPPER_SHARED_BYTES: u32 = 197_888;
const HOPPER: u32 = 90;

/// A kernel and what it computes per block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub source: Source,
    pub name: &'static str,
    /// Side of a tile, and threads of a block; Hopper's own are fixed.
    tile: u32,
    block: u32,
}

/// The entry for a shape on a device of this compute capability.
pub(super) fn entry(dtype: Dtype, gemm: Gemm, capability: u32) -> Entry {
    let hopper = (capability == HOPPER)
        .then(|| hopper(dtype, gemm))
        .flatten();
    hopper.unwrap_or_else(|| portable(dtype, gemm))
}

fn hopper(dtype: Dtype, gemm: Gemm) -> Option<Entry> {
    let fits = match dtype {
        Dtype::Bf16 | Dtype::F16 => gemm.k.is_multiple_of(8) && gemm.n.is_multiple_of(8),
        Dtype::Fp8E4m3 | Dtype::Fp8E5m2 => gemm.k.is_multiple_of(16),
        _ => false,
    };
    // Two blocks share B where there are two tiles of rows to share it.
    let pair = gemm.m > 128;
    let name = match (dtype, pair) {
        (Dtype::Bf16, false) => "hopper_bf16",
        (Dtype::Bf16, true) => "hopper_bf16_pair",
        (Dtype::F16, false) => "hopper_f16",
        (Dtype::F16, true) => "hopper_f16_pair",
        (Dtype::Fp8E4m3, false) => "hopper_e4m3",
        (Dtype::Fp8E4m3, true) => "hopper_e4m3_pair",
        (Dtype::Fp8E5m2, false) => "hopper_e5m2",
        (Dtype::Fp8E5m2, true) => "hopper_e5m2_pair",
        _ => return None,
    };
    fits.then_some(Entry {
        source: Source::Hopper,
        name,
        tile: 128,
        block: 384,
    })
}

fn portable(dtype: Dtype, gemm: Gemm) -> Entry {
    let Gemm { n, k, .. } = gemm;
    let by = |of: u32| k.is_multiple_of(of) && n.is_multiple_of(of);
    let entry = |source, name, tile, block| Entry {
        source,
        name,
        tile,
        block,
    };
    let choose = |fits: bool, fast, any| if fits { fast } else { any };
    let ampere = |name| entry(Source::Ampere, name, 128, 128);
    let ada = |name| entry(Source::Ada, name, 128, 256);
    match dtype {
        Dtype::Bf16 => ampere(choose(by(8), "matmul_bf16", "matmul_bf16_any")),
        Dtype::F16 => ampere(choose(by(8), "matmul_f16", "matmul_f16_any")),
        Dtype::Tf32 => ampere(choose(by(4), "matmul_tf32", "matmul_tf32_any")),
        Dtype::Int8 => ampere(choose(k.is_multiple_of(16), "matmul_i8", "matmul_i8_any")),
        Dtype::Fp8E4m3 => ada(choose(
            k.is_multiple_of(16),
            "matmul_e4m3",
            "matmul_e4m3_any",
        )),
        Dtype::Fp8E5m2 => ada(choose(
            k.is_multiple_of(16),
            "matmul_e5m2",
            "matmul_e5m2_any",
        )),
        Dtype::F32 => entry(Source::Ampere, "matmul_f32", 128, 256),
        Dtype::F64 => entry(Source::Ampere, "matmul_f64", 64, 256),
    }
}

impl Entry {
    fn shape(&self, gemm: Gemm, multiprocessors: u32) -> Shape {
        let Gemm { m, n, .. } = gemm;
        if self.source != Source::Hopper {
            let tiles = u64::from(m.div_ceil(self.tile)) * u64::from(n.div_ceil(self.tile));
            // The step's layout refused shapes with more.
            return Shape::new(u32::try_from(tiles).unwrap_or(u32::MAX), self.block);
        }
        let all = u64::from(multiprocessors);
        let grid = if self.name.ends_with("_pair") {
            2 * (all / 2).min(u64::from(m.div_ceil(256)) * u64::from(n.div_ceil(256)))
        } else {
            all.min(u64::from(m.div_ceil(128)) * u64::from(n.div_ceil(256)))
        };
        Shape {
            grid: grid as u32,
            block: self.block,
            shared_bytes: HOPPER_SHARED_BYTES,
        }
    }
}

/// A shape, its kernel, and for Hopper the maps of each operand pair.
pub(super) struct Plan {
    kernel: Kernel,
    shape: Shape,
    gemm: Gemm,
    maps: Vec<[CUtensorMap; 2]>,
    /// For the record.
    pub about: String,
}

impl Plan {
    /// `pairs`: addresses of A and B of each operand pair.
    pub fn new(
        gpu: &Arc<Gpu>,
        modules: &Modules,
        dtype: Dtype,
        gemm: Gemm,
        pairs: &[[CUdeviceptr; 2]],
    ) -> Result<Self, KernelError> {
        let entry = entry(dtype, gemm, gpu.found.capability);
        let kernel = modules.get(entry.source)?.kernel(entry.name)?;
        let mut maps = Vec::new();
        if entry.source == Source::Hopper {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function belongs to a module that is loaded.
            let status = unsafe {
                (gpu.driver.calls.cuFuncSetAttribute)(
                    kernel.function,
                    attribute,
                    HOPPER_SHARED_BYTES as i32,
                )
            };
            gpu.ok(status, "reserve shared memory")?;
            let both = |&[a, b]: &[CUdeviceptr; 2]| {
                let [of_a, of_b] = Map::of(dtype, gemm);
                Ok([of_a.encode(gpu, a)?, of_b.encode(gpu, b)?])
            };
            maps = pairs.iter().map(both).collect::<Result<_, KernelError>>()?;
        }
        Ok(Self {
            shape: entry.shape(gemm, gpu.found.multiprocessors),
            about: format!("{gemm}: own {} of {}", entry.name, entry.source.name()),
            kernel,
            gemm,
            maps,
        })
    }

    /// Queues one matmul: `c` = `a`·`b`, which are operand pair `pair`.
    pub fn queue(
        &self,
        stream: &Stream,
        pair: usize,
        [a, b, c]: [CUdeviceptr; 3],
    ) -> Result<(), KernelError> {
        let Gemm { m, n, k } = self.gemm;
        let doing = "queue a matmul";
        let Some([map_a, map_b]) = self.maps.get(pair) else {
            let arguments = Arguments::new(&[a, b, c, m.into(), n.into(), k.into()]);
            return stream.launch(self.kernel.function, self.shape, &arguments, doing);
        };
        let word = |value: &u32| std::ptr::from_ref(value).cast_mut().cast::<c_void>();
        let mut pointers = [
            std::ptr::from_ref(map_a).cast_mut().cast(),
            std::ptr::from_ref(map_b).cast_mut().cast(),
            std::ptr::from_ref(&c).cast_mut().cast(),
            word(&m),
            word(&n),
            word(&k),
        ];
        stream.launch_at(self.kernel.function, self.shape, &mut pointers, doing)
    }
}

/// How TMA sees one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Map {
    of: MapType,
    /// Elements along the fast dimension, then the slow one.
    dimensions: [u64; 2],
    stride_bytes: u64,
    tile: [u32; 2],
}

impl Map {
    /// A's and B's.
    fn of(dtype: Dtype, gemm: Gemm) -> [Self; 2] {
        let [m, n, k] = [gemm.m, gemm.n, gemm.k].map(u64::from);
        let map = |of, dimensions: [u64; 2], tile| Self {
            of,
            dimensions,
            stride_bytes: dimensions[0] * dtype.bytes(),
            tile,
        };
        if dtype.bytes() == 1 {
            let of = MapType::CU_TENSOR_MAP_DATA_TYPE_UINT8;
            return [map(of, [k, m], [128, 128]), map(of, [k, n], [128, 128])];
        }
        let of = if dtype == Dtype::F16 {
            MapType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16
        } else {
            MapType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
        };
        [map(of, [k, m], [64, 128]), map(of, [n, k], [64, 64])]
    }

    fn encode(&self, gpu: &Gpu, at: CUdeviceptr) -> Result<CUtensorMap, KernelError> {
        let mut map = CUtensorMap { opaque: [0; 16] };
        let ones = [1_u32; 2];
        // SAFETY: the arrays have as many elements as rank 2 asks for; the map is written to a local.
        let status = unsafe {
            (gpu.driver.calls.cuTensorMapEncodeTiled)(
                &raw mut map,
                self.of,
                2,
                std::ptr::without_provenance_mut(at as usize),
                self.dimensions.as_ptr(),
                &raw const self.stride_bytes,
                self.tile.as_ptr(),
                ones.as_ptr(),
                CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        gpu.ok(status, "describe an operand for TMA")?;
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPES: [Gemm; 4] = [
        Gemm::new(1, 1, 1),
        Gemm::new(128, 256, 64),
        Gemm::new(4096, 4096, 4096),
        Gemm::new(300, 260, 52),
    ];

    #[test]
    fn every_type_and_shape_has_a_kernel_that_this_build_holds() {
        for capability in [80, 86, 89, 90, 100, 120] {
            for dtype in Dtype::ALL {
                for gemm in SHAPES {
                    let entry = entry(dtype, gemm, capability);
                    assert!(
                        entry.source.has(entry.name),
                        "{dtype} {gemm} on {capability}: {}",
                        entry.name
                    );
                }
            }
        }
    }

    #[test]
    fn rows_that_copies_of_sixteen_bytes_cannot_take_go_to_the_kernel_for_any_shape() {
        let name = |dtype, gemm| portable(dtype, gemm).name;
        assert_eq!(name(Dtype::Bf16, Gemm::new(3, 12, 8)), "matmul_bf16_any");
        assert_eq!(name(Dtype::Bf16, Gemm::new(3, 16, 8)), "matmul_bf16");
        assert_eq!(name(Dtype::Int8, Gemm::new(3, 3, 16)), "matmul_i8");
        assert_eq!(hopper(Dtype::Bf16, Gemm::new(3, 12, 8)), None);
        assert_eq!(hopper(Dtype::F64, Gemm::new(64, 64, 64)), None);
    }

    #[test]
    fn hopper_s_grid_never_exceeds_the_device_and_pairs_are_even() {
        let grid = |m, n| {
            let gemm = Gemm::new(m, n, 64);
            let entry = hopper(Dtype::Bf16, gemm).unwrap();
            entry.shape(gemm, 132).grid
        };
        assert_eq!(grid(128, 256), 1);
        assert_eq!(grid(129, 256), 2);
        assert_eq!(grid(8192, 8192), 132);
    }

    #[test]
    fn maps_follow_the_contract_of_the_kernels() {
        let [a, b] = Map::of(Dtype::Bf16, Gemm::new(10, 24, 40));
        assert_eq!(
            (a.dimensions, a.stride_bytes, a.tile),
            ([40, 10], 80, [64, 128])
        );
        assert_eq!(
            (b.dimensions, b.stride_bytes, b.tile),
            ([24, 40], 48, [64, 64])
        );
        let [_, b] = Map::of(Dtype::Fp8E4m3, Gemm::new(10, 24, 48));
        assert_eq!(
            (b.dimensions, b.stride_bytes, b.tile),
            ([48, 24], 48, [128, 128])
        );
    }
}
