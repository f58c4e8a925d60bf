//! Decides how cuBLASLt is opened, which of its algorithms multiplies a shape, and how a matmul is queued to it.
//!
//! A plan holds descriptors, layouts and the algorithm that won a timed trial on the device; it is made once and
//! queued any number of times, so that nothing is asked of the heuristic while the load runs. Refuses a
//! library made for a newer CUDA than the driver serves, and shapes for which it has no algorithm.
//!
//! cuBLASLt counts columns first: the row-major C = A·B is its C^T = B^T·A^T, so B is its left operand.

use super::driver::{Status, cuda_version};
use super::gpu::{Gpu, Memory, SETUP_LIMIT, Stream};
use super::library::{Library, Wanted, functions};
use crate::device::Absent;
use crate::error::KernelError;
use core::ffi::{c_int, c_void};
use cudarc::cublaslt::sys::{
    cublasComputeType_t as Compute, cublasLtHandle_t, cublasLtMatmulAlgo_t,
    cublasLtMatmulAlgoConfigAttributes_t as Config, cublasLtMatmulDesc_t,
    cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulPreference_t,
    cublasLtMatmulPreferenceAttributes_t as Preference, cublasLtMatrixLayout_t,
    cudaDataType_t as Type,
};
use cudarc::driver::sys::{CUdeviceptr, CUstream};
use hallmark_profiles::workload::{Dtype, Gemm};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const WANTED: Wanted = Wanted {
    names: if cfg!(windows) {
        &["cublasLt64_13.dll", "cublasLt64_12.dll"]
    } else {
        &["libcublasLt.so.13", "libcublasLt.so.12"]
    },
    price: "matmuls run on hallmark's own kernels, whose rates are not those a SKU's reference was measured with",
    remedy: "install NVIDIA's cuBLAS (a CUDA toolkit, or the package nvidia-cublas of pip) and give its folder with --cuda-lib-path",
    toolkit: true,
};

/// Memory that an algorithm may use beside the operands.
pub(super) const WORKSPACE_BYTES: u64 = 256 << 20;
/// Algorithms asked for; at least eight are tried where the heuristic knows as many.
const ALGORITHMS: usize = 16;
/// Timed matmuls of each algorithm in the trial, after one that is not timed.
const TRIALS: usize = 5;

functions! {
    /// cuBLASLt's functions, as CUDA 12.0 declares them.
    Calls {
        cublasLtCreate: fn(*mut cublasLtHandle_t) -> Status;
        cublasLtDestroy: fn(cublasLtHandle_t) -> Status;
        cublasLtGetVersion: fn() -> usize;
        cublasLtGetCudartVersion: fn() -> usize;
        cublasLtMatmulDescCreate: fn(*mut cublasLtMatmulDesc_t, Compute, Type) -> Status;
        cublasLtMatmulDescDestroy: fn(cublasLtMatmulDesc_t) -> Status;
        cublasLtMatmulDescSetAttribute: fn(cublasLtMatmulDesc_t, Attribute, *const c_void, usize) -> Status;
        cublasLtMatrixLayoutCreate: fn(*mut cublasLtMatrixLayout_t, Type, u64, u64, i64) -> Status;
        cublasLtMatrixLayoutDestroy: fn(cublasLtMatrixLayout_t) -> Status;
        cublasLtMatmulPreferenceCreate: fn(*mut cublasLtMatmulPreference_t) -> Status;
        cublasLtMatmulPreferenceDestroy: fn(cublasLtMatmulPreference_t) -> Status;
        cublasLtMatmulPreferenceSetAttribute: fn(cublasLtMatmulPreference_t, Preference, *const c_void, usize) -> Status;
        cublasLtMatmulAlgoGetHeuristic: fn(cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatmulPreference_t, c_int, *mut Heuristic, *mut c_int) -> Status;
        cublasLtMatmulAlgoConfigGetAttribute: fn(*const cublasLtMatmulAlgo_t, Config, *mut c_void, usize, *mut usize) -> Status;
        cublasLtMatmul: fn(cublasLtHandle_t, cublasLtMatmulDesc_t, *const c_void, *const c_void, cublasLtMatrixLayout_t, *const c_void, cublasLtMatrixLayout_t, *const c_void, *const c_void, cublasLtMatrixLayout_t, *mut c_void, cublasLtMatrixLayout_t, *const cublasLtMatmulAlgo_t, *mut c_void, usize, CUstream) -> Status;
    }
}

/// `cublasLtMatmulHeuristicResult_t`, with its status as a plain number.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Heuristic {
    algorithm: cublasLtMatmulAlgo_t,
    workspace_bytes: usize,
    state: Status,
    waves: f32,
    reserved: [c_int; 4],
}

const NO_ANSWER: Heuristic = Heuristic {
    algorithm: cublasLtMatmulAlgo_t { data: [0; 8] },
    workspace_bytes: 0,
    state: 1,
    waves: 0.0,
    reserved: [0; 4],
};

/// The library, open; no device is needed for that.
pub(super) struct Blas {
    calls: Calls,
    pub file: PathBuf,
    /// As the library counts: 120405 is 12.4.5, 13 00 02 likewise.
    pub version: usize,
}

impl Blas {
    /// Opens the newest cuBLASLt that a driver serving `driver_cuda` can use.
    pub fn open(folder: Option<&Path>, driver_cuda: u32) -> Result<Self, Absent> {
        let mut refused: Option<Absent> = None;
        for names in WANTED.names.chunks(1) {
            let wanted = Wanted { names, ..WANTED };
            match Self::open_one(&wanted, folder, driver_cuda) {
                Ok(blas) => return Ok(blas),
                // The newest that is there but cannot be used explains more than an older one that is not there.
                Err(absent) if refused.is_none() || !refused_says_more(refused.as_ref()) => {
                    refused = Some(absent);
                }
                Err(_) => {}
            }
        }
        Err(refused.unwrap_or_else(|| WANTED.absent("it was not looked for")))
    }

    fn open_one(wanted: &Wanted, folder: Option<&Path>, driver_cuda: u32) -> Result<Self, Absent> {
        let library = Library::open(wanted, folder)?;
        let calls = Calls::find(&library).map_err(|missing| {
            wanted.absent(&format!("{} lacks {}", library.asked, missing.join(", ")))
        })?;
        // SAFETY: both take nothing, need no device and give a number.
        let (version, made_for) = unsafe {
            (
                (calls.cublasLtGetVersion)(),
                (calls.cublasLtGetCudartVersion)() as u32,
            )
        };
        if made_for / 1000 > driver_cuda / 1000 {
            return Err(wanted.absent(&format!(
                "{} is made for CUDA {}, the driver serves {}",
                library.asked,
                cuda_version(made_for),
                cuda_version(driver_cuda)
            )));
        }
        let file = Library::file(calls.cublasLtCreate as *const c_void);
        Ok(Self {
            calls,
            file: file.unwrap_or_else(|| PathBuf::from(&library.asked)),
            version,
        })
    }

    /// `12.4.5`.
    pub fn version(&self) -> String {
        // Since 12 the number is major · 10,000 + minor · 100 + patch.
        let v = self.version;
        format!("{}.{}.{}", v / 10_000, v / 100 % 100, v % 100)
    }

    /// Whether this library multiplies the type at all: it has no product of two e5m2 operands.
    pub const fn has(dtype: Dtype) -> bool {
        !matches!(dtype, Dtype::Fp8E5m2)
    }
}

fn refused_says_more(absent: Option<&Absent>) -> bool {
    absent.is_some_and(|a| !a.why.contains("cannot open shared object file"))
}

/// The library on one device: a handle, the workspace and the scales of 8-bit floats.
pub(super) struct Lt {
    gpu: Arc<Gpu>,
    blas: Arc<Blas>,
    handle: cublasLtHandle_t,
    workspace: Memory,
    /// One f32, 1.0: whole operands need no scaling, but the library wants to be told.
    scale: Memory,
}

// SAFETY: a handle may be used from any thread (cuBLASLt, “Thread safety”).
unsafe impl Send for Lt {}
// SAFETY: as above.
unsafe impl Sync for Lt {}

impl Lt {
    pub fn new(
        gpu: &Arc<Gpu>,
        blas: &Arc<Blas>,
        stream: &Stream,
    ) -> Result<Arc<Self>, KernelError> {
        let mut handle: cublasLtHandle_t = std::ptr::null_mut();
        // SAFETY: a context is current to this thread; the handle is written to a local.
        let status = unsafe { (blas.calls.cublasLtCreate)(&raw mut handle) };
        ok(gpu, status, "open cuBLASLt on the device")?;
        let scale = gpu.memory(4)?;
        let one = gpu.pinned(4)?;
        // SAFETY: nothing is queued with it yet.
        unsafe { one.write(&1.0_f32.to_le_bytes()) };
        stream.up(&one, &scale, 4)?;
        gpu.finish(stream, SETUP_LIMIT)?;
        Ok(Arc::new(Self {
            gpu: Arc::clone(gpu),
            blas: Arc::clone(blas),
            handle,
            workspace: gpu.memory(WORKSPACE_BYTES)?,
            scale,
        }))
    }

    fn ok(&self, status: Status, doing: &'static str) -> Result<(), KernelError> {
        ok(&self.gpu, status, doing)
    }
}

fn ok(gpu: &Gpu, status: Status, doing: &'static str) -> Result<(), KernelError> {
    let name = match status {
        0 => return Ok(()),
        1 => "not initialised",
        3 => "allocation failed",
        7 => "invalid value",
        8 => "architecture mismatch",
        13 => "execution failed",
        14 => "internal error",
        15 => "not supported",
        _ => "an error of a newer library",
    };
    Err(gpu.refuse(format!("cannot {doing}: cuBLASLt says {name} ({status})")))
}

impl Drop for Lt {
    fn drop(&mut self) {
        if !self.gpu.is_lost() {
            // SAFETY: made by this value; plans hold it, so none is left.
            unsafe { (self.blas.calls.cublasLtDestroy)(self.handle) };
        }
    }
}

/// Types of a matmul as cuBLASLt names them.
struct Types {
    compute: Compute,
    scale: Type,
    operand: Type,
    result: Type,
    /// 1 and 0 in the scale's type, little endian.
    one: u64,
}

impl Types {
    fn of(dtype: Dtype) -> Self {
        let float = |compute, operand| Self {
            compute,
            scale: Type::CUDA_R_32F,
            operand,
            result: Type::CUDA_R_32F,
            one: u64::from(1.0_f32.to_bits()),
        };
        match dtype {
            Dtype::F64 => Self {
                compute: Compute::CUBLAS_COMPUTE_64F,
                scale: Type::CUDA_R_64F,
                operand: Type::CUDA_R_64F,
                result: Type::CUDA_R_64F,
                one: 1.0_f64.to_bits(),
            },
            Dtype::Int8 => Self {
                compute: Compute::CUBLAS_COMPUTE_32I,
                scale: Type::CUDA_R_32I,
                operand: Type::CUDA_R_8I,
                result: Type::CUDA_R_32I,
                one: 1,
            },
            Dtype::F32 => float(Compute::CUBLAS_COMPUTE_32F, Type::CUDA_R_32F),
            Dtype::Tf32 => float(Compute::CUBLAS_COMPUTE_32F_FAST_TF32, Type::CUDA_R_32F),
            Dtype::Bf16 => float(Compute::CUBLAS_COMPUTE_32F, Type::CUDA_R_16BF),
            Dtype::F16 => float(Compute::CUBLAS_COMPUTE_32F, Type::CUDA_R_16F),
            Dtype::Fp8E4m3 => float(Compute::CUBLAS_COMPUTE_32F, Type::CUDA_R_8F_E4M3),
            Dtype::Fp8E5m2 => float(Compute::CUBLAS_COMPUTE_32F, Type::CUDA_R_8F_E5M2),
        }
    }
}

/// Everything that is fixed for one shape.
pub(super) struct Plan {
    lt: Arc<Lt>,
    descriptor: cublasLtMatmulDesc_t,
    /// B, A and C, in the library's order.
    layouts: [cublasLtMatrixLayout_t; 3],
    algorithm: cublasLtMatmulAlgo_t,
    one: u64,
    /// For the record.
    pub about: String,
}

// SAFETY: descriptors are read only once the plan is made; see `Lt`.
unsafe impl Send for Plan {}
// SAFETY: as above.
unsafe impl Sync for Plan {}

impl Plan {
    /// Plans `gemm` and lets the heuristic's algorithms compete on `stream` with the given operands.
    pub fn new(
        lt: &Arc<Lt>,
        dtype: Dtype,
        gemm: Gemm,
        stream: &Stream,
        [a, b, c]: [CUdeviceptr; 3],
    ) -> Result<Self, KernelError> {
        let types = Types::of(dtype);
        let mut plan = Self {
            lt: Arc::clone(lt),
            descriptor: std::ptr::null_mut(),
            layouts: [std::ptr::null_mut(); 3],
            algorithm: NO_ANSWER.algorithm,
            one: types.one,
            about: String::new(),
        };
        plan.describe(&types, gemm, super::layout::turned(dtype))?;
        let known = plan.heuristics()?;
        let tried = known.len();
        let mut best: Option<(u64, Heuristic)> = None;
        for heuristic in known {
            plan.algorithm = heuristic.algorithm;
            // An algorithm that the library itself then refuses is out of the race.
            if plan.queue(stream, a, b, c).is_err() {
                lt.gpu.attach()?;
                continue;
            }
            let time_ns = plan.time(stream, [a, b, c])?;
            if best.is_none_or(|(fastest, _)| time_ns < fastest) {
                best = Some((time_ns, heuristic));
            }
        }
        let Some((time_ns, winner)) = best else {
            return Err(lt.gpu.refuse(format!(
                "cuBLASLt {} has no algorithm for {gemm} in {dtype}; use sides that are multiples of 16, or --cuda-matmul own",
                lt.blas.version()
            )));
        };
        plan.algorithm = winner.algorithm;
        plan.about = format!(
            "{gemm}: cublaslt {}, fastest of {tried} in a trial ({:.1} µs), workspace {} B",
            plan.configuration(),
            time_ns as f64 / 1e3,
            winner.workspace_bytes
        );
        Ok(plan)
    }

    /// Queues one matmul: `c` = `a`·`b`.
    pub fn queue(
        &self,
        stream: &Stream,
        a: CUdeviceptr,
        b: CUdeviceptr,
        c: CUdeviceptr,
    ) -> Result<(), KernelError> {
        let zero = 0_u64;
        let [left, right, result] = self.layouts;
        let device = |at: CUdeviceptr| std::ptr::without_provenance_mut::<c_void>(at as usize);
        // SAFETY: descriptors, layouts and algorithm are this plan's; the operands are as large as the layouts
        // say, which the step's layout saw to; factors are read before the call returns (host pointer mode).
        let status = unsafe {
            (self.lt.blas.calls.cublasLtMatmul)(
                self.lt.handle,
                self.descriptor,
                (&raw const self.one).cast(),
                device(b),
                left,
                device(a),
                right,
                (&raw const zero).cast(),
                device(c),
                result,
                device(c),
                result,
                &raw const self.algorithm,
                device(self.lt.workspace.at),
                self.lt.workspace.bytes as usize,
                stream.handle,
            )
        };
        self.lt.ok(status, "queue a matmul")
    }

    /// Median time of a matmul by the algorithm that is set.
    fn time(&self, stream: &Stream, [a, b, c]: [CUdeviceptr; 3]) -> Result<u64, KernelError> {
        let gpu = &self.lt.gpu;
        let events = (0..=TRIALS)
            .map(|_| gpu.event())
            .collect::<Result<Vec<_>, _>>()?;
        for (number, event) in events.iter().enumerate() {
            if number > 0 {
                self.queue(stream, a, b, c)?;
            }
            stream.record(event)?;
        }
        if let Some(last) = events.last() {
            last.wait(SETUP_LIMIT)?;
        }
        let mut times = events
            .windows(2)
            .map(|pair| pair[1].since_ns(&pair[0]))
            .collect::<Result<Vec<_>, _>>()?;
        times.sort_unstable();
        Ok(times.get(TRIALS / 2).copied().unwrap_or(u64::MAX))
    }

    fn describe(&mut self, types: &Types, gemm: Gemm, turned: bool) -> Result<(), KernelError> {
        let lt = Arc::clone(&self.lt);
        let calls = &lt.blas.calls;
        // SAFETY: the descriptor is written to this plan, which destroys it.
        let status = unsafe {
            (calls.cublasLtMatmulDescCreate)(&raw mut self.descriptor, types.compute, types.scale)
        };
        lt.ok(status, "describe a matmul")?;
        // cublasOperation_t: 0 as it is, 1 turned.
        self.set(
            Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
            &u32::from(turned).to_le_bytes(),
        )?;
        self.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, &0_u32.to_le_bytes())?;
        if matches!(types.operand, Type::CUDA_R_8F_E4M3 | Type::CUDA_R_8F_E5M2) {
            let scale = lt.scale.at.to_le_bytes();
            self.set(Attribute::CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &scale)?;
            self.set(Attribute::CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &scale)?;
            // Sums are to be carried into f32 as often as the library can.
            self.set(Attribute::CUBLASLT_MATMUL_DESC_FAST_ACCUM, &[0])?;
        }
        let (m, n, k) = (u64::from(gemm.m), u64::from(gemm.n), u64::from(gemm.k));
        let left = if turned { (k, n) } else { (n, k) };
        let shapes = [
            (types.operand, left.0, left.1),
            (types.operand, k, m),
            (types.result, n, m),
        ];
        for (layout, (of, rows, columns)) in self.layouts.iter_mut().zip(shapes) {
            // SAFETY: the layout is written to this plan, which destroys it.
            let status = unsafe {
                (calls.cublasLtMatrixLayoutCreate)(layout, of, rows, columns, rows as i64)
            };
            lt.ok(status, "describe a matrix")?;
        }
        Ok(())
    }

    fn set(&self, attribute: Attribute, value: &[u8]) -> Result<(), KernelError> {
        // SAFETY: the value has the size it is said to have and is copied.
        let status = unsafe {
            (self.lt.blas.calls.cublasLtMatmulDescSetAttribute)(
                self.descriptor,
                attribute,
                value.as_ptr().cast(),
                value.len(),
            )
        };
        self.lt.ok(status, "set an attribute of a matmul")
    }

    /// What the library thinks best, its favourite first.
    fn heuristics(&self) -> Result<Vec<Heuristic>, KernelError> {
        let calls = &self.lt.blas.calls;
        let mut preference: cublasLtMatmulPreference_t = std::ptr::null_mut();
        let workspace = self.lt.workspace.bytes;
        let [left, right, result] = self.layouts;
        let mut answers = [NO_ANSWER; ALGORITHMS];
        let mut count: c_int = 0;
        // SAFETY: the preference is made, set, used and destroyed here; answers and count are locals of the size told.
        let status = unsafe {
            let status = (calls.cublasLtMatmulPreferenceCreate)(&raw mut preference);
            self.lt.ok(status, "state a preference")?;
            (calls.cublasLtMatmulPreferenceSetAttribute)(
                preference,
                Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of::<u64>(),
            );
            let status = (calls.cublasLtMatmulAlgoGetHeuristic)(
                self.lt.handle,
                self.descriptor,
                left,
                right,
                result,
                result,
                preference,
                ALGORITHMS as c_int,
                answers.as_mut_ptr(),
                &raw mut count,
            );
            (calls.cublasLtMatmulPreferenceDestroy)(preference);
            status
        };
        // “Not supported” means that there is none, which the caller says better.
        if status != 15 {
            self.lt.ok(status, "ask for algorithms")?;
        }
        let count = usize::try_from(count).unwrap_or(0).min(ALGORITHMS);
        let usable = answers[..count].iter().filter(|a| a.state == 0);
        Ok(usable.copied().collect())
    }

    /// The algorithm's numbers, as the library gives them.
    fn configuration(&self) -> String {
        let wanted = [
            ("algorithm", Config::CUBLASLT_ALGO_CONFIG_ID),
            ("tile", Config::CUBLASLT_ALGO_CONFIG_TILE_ID),
            ("stages", Config::CUBLASLT_ALGO_CONFIG_STAGES_ID),
            ("split-k", Config::CUBLASLT_ALGO_CONFIG_SPLITK_NUM),
            ("reduction", Config::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME),
            ("swizzle", Config::CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING),
            ("custom", Config::CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION),
            ("inner", Config::CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID),
            ("cluster", Config::CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID),
        ];
        let known = wanted.into_iter().filter_map(|(name, attribute)| {
            let (mut value, mut written) = (0_u32, 0_usize);
            // SAFETY: at most four bytes are written to a local; shorter attributes fill its low part.
            let status = unsafe {
                (self.lt.blas.calls.cublasLtMatmulAlgoConfigGetAttribute)(
                    &raw const self.algorithm,
                    attribute,
                    (&raw mut value).cast(),
                    size_of::<u32>(),
                    &raw mut written,
                )
            };
            (status == 0).then(|| format!("{name} {value}"))
        });
        known.collect::<Vec<_>>().join(" ")
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        let calls = &self.lt.blas.calls;
        // SAFETY: made by this plan; null where making it failed before. Descriptors are host memory.
        unsafe {
            for layout in self.layouts.iter().filter(|l| !l.is_null()) {
                (calls.cublasLtMatrixLayoutDestroy)(*layout);
            }
            if !self.descriptor.is_null() {
                (calls.cublasLtMatmulDescDestroy)(self.descriptor);
            }
        }
    }
}
