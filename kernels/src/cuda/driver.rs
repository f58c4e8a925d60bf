//! Decides how the CUDA driver is opened, what each of its functions takes, and what its error codes mean.
//!
//! Types and constants are cudarc's; the functions are looked up here, so that a driver which lacks one says so and
//! nothing panics. Refuses a driver that lacks any of the functions every step
//! needs: all are part of CUDA 12.0.

use super::library::{Library, Wanted, functions};
use crate::device::Absent;
use crate::error::KernelError;
use core::ffi::{c_char, c_int, c_uchar, c_uint, c_ulonglong, c_void};
use cudarc::driver::sys::{
    CUcontext, CUdevice, CUdevice_attribute, CUdeviceptr, CUevent, CUfunction,
    CUfunction_attribute, CUgraph, CUgraphExec, CUgraphNode, CUjit_option, CUmodule, CUstream,
    CUstreamCaptureMode, CUstreamCaptureStatus, CUtensorMap, CUtensorMapDataType,
    CUtensorMapFloatOOBfill, CUtensorMapInterleave, CUtensorMapL2promotion, CUtensorMapSwizzle,
    CUuuid,
};
use std::ffi::CStr;
use std::path::{Path, PathBuf};

/// A status as the driver returns it.
pub(super) type Status = c_uint;

pub(super) const WANTED: Wanted = Wanted {
    names: if cfg!(windows) {
        &["nvcuda.dll"]
    } else {
        &["libcuda.so.1"]
    },
    price: "no NVIDIA device can be driven by its own engine",
    remedy: "install NVIDIA's driver, release 550 or later (in a container: pass the GPUs in, e.g. with --gpus all)",
    toolkit: false,
};

functions! {
    /// The driver's functions, as CUDA 12.0 declares them.
    Calls {
        cuInit: fn(c_uint) -> Status;
        cuDriverGetVersion: fn(*mut c_int) -> Status;
        cuGetErrorName: fn(Status, *mut *const c_char) -> Status;
        cuGetErrorString: fn(Status, *mut *const c_char) -> Status;
        cuDeviceGetCount: fn(*mut c_int) -> Status;
        cuDeviceGet: fn(*mut CUdevice, c_int) -> Status;
        cuDeviceGetName: fn(*mut c_char, c_int, CUdevice) -> Status;
        cuDeviceGetUuid_v2: fn(*mut CUuuid, CUdevice) -> Status;
        cuDeviceTotalMem_v2: fn(*mut usize, CUdevice) -> Status;
        cuDeviceGetAttribute: fn(*mut c_int, CUdevice_attribute, CUdevice) -> Status;
        cuDeviceGetPCIBusId: fn(*mut c_char, c_int, CUdevice) -> Status;
        cuDevicePrimaryCtxRetain: fn(*mut CUcontext, CUdevice) -> Status;
        cuDevicePrimaryCtxRelease_v2: fn(CUdevice) -> Status;
        cuDevicePrimaryCtxSetFlags_v2: fn(CUdevice, c_uint) -> Status;
        cuCtxSetCurrent: fn(CUcontext) -> Status;
        cuMemGetInfo_v2: fn(*mut usize, *mut usize) -> Status;
        cuMemAlloc_v2: fn(*mut CUdeviceptr, usize) -> Status;
        cuMemFree_v2: fn(CUdeviceptr) -> Status;
        cuMemHostAlloc: fn(*mut *mut c_void, usize, c_uint) -> Status;
        cuMemFreeHost: fn(*mut c_void) -> Status;
        cuMemcpyHtoDAsync_v2: fn(CUdeviceptr, *const c_void, usize, CUstream) -> Status;
        cuMemcpyDtoHAsync_v2: fn(*mut c_void, CUdeviceptr, usize, CUstream) -> Status;
        cuMemsetD8Async: fn(CUdeviceptr, c_uchar, usize, CUstream) -> Status;
        cuStreamCreate: fn(*mut CUstream, c_uint) -> Status;
        cuStreamDestroy_v2: fn(CUstream) -> Status;
        cuStreamWaitEvent: fn(CUstream, CUevent, c_uint) -> Status;
        cuEventCreate: fn(*mut CUevent, c_uint) -> Status;
        cuEventDestroy_v2: fn(CUevent) -> Status;
        cuEventRecord: fn(CUevent, CUstream) -> Status;
        cuEventRecordWithFlags: fn(CUevent, CUstream, c_uint) -> Status;
        cuEventQuery: fn(CUevent) -> Status;
        cuEventElapsedTime: fn(*mut f32, CUevent, CUevent) -> Status;
        cuModuleLoadDataEx: fn(*mut CUmodule, *const c_void, c_uint, *mut CUjit_option, *mut *mut c_void) -> Status;
        cuModuleUnload: fn(CUmodule) -> Status;
        cuModuleGetFunction: fn(*mut CUfunction, CUmodule, *const c_char) -> Status;
        cuFuncSetAttribute: fn(CUfunction, CUfunction_attribute, c_int) -> Status;
        cuLaunchKernel: fn(CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void, *mut *mut c_void) -> Status;
        cuLaunchCooperativeKernel: fn(CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void) -> Status;
        cuOccupancyMaxActiveBlocksPerMultiprocessor: fn(*mut c_int, CUfunction, c_int, usize) -> Status;
        cuTensorMapEncodeTiled: fn(*mut CUtensorMap, CUtensorMapDataType, u32, *mut c_void, *const u64, *const u64, *const u32, *const u32, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill) -> Status;
    }
}

functions! {
    /// What is needed to queue a step as one graph.
    Graphs {
        cuStreamBeginCapture_v2: fn(CUstream, CUstreamCaptureMode) -> Status;
        cuStreamEndCapture: fn(CUstream, *mut CUgraph) -> Status;
        cuStreamGetCaptureInfo_v2: fn(CUstream, *mut CUstreamCaptureStatus, *mut u64, *mut CUgraph, *mut *const CUgraphNode, *mut usize) -> Status;
        cuGraphInstantiateWithFlags: fn(*mut CUgraphExec, CUgraph, c_ulonglong) -> Status;
        cuGraphNodeSetEnabled: fn(CUgraphExec, CUgraphNode, c_uint) -> Status;
        cuGraphUpload: fn(CUgraphExec, CUstream) -> Status;
        cuGraphLaunch: fn(CUgraphExec, CUstream) -> Status;
        cuGraphExecDestroy: fn(CUgraphExec) -> Status;
        cuGraphDestroy: fn(CUgraph) -> Status;
    }
}

/// The driver, open and initialised.
pub(super) struct Driver {
    pub calls: Calls,
    /// `None` where the driver lacks one of them: steps are then queued kernel by kernel.
    pub graphs: Option<Graphs>,
    /// The newest CUDA it serves, as 1000 · major + 10 · minor.
    pub cuda: u32,
    /// The file that was opened.
    pub file: PathBuf,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub status: Status,
    /// What was being done, as a verb and its object.
    pub doing: &'static str,
    /// The driver's own words.
    pub said: String,
}

const SUCCESS: Status = 0;
const OUT_OF_MEMORY: Status = 2;
pub(super) const NOT_READY: Status = 600;

/// Codes after which nothing of this process' work on the device can be trusted or ended: sticky errors of a context
/// and those of a device that is gone (cuda.h, “CUresult”).
const FATAL: [Status; 20] = [
    4, 46, 100, 201, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 802, 999,
];

impl Failure {
    /// Whether the context is lost with it.
    pub fn is_fatal(&self) -> bool {
        FATAL.contains(&self.status)
    }

    pub fn is_out_of_memory(&self) -> bool {
        self.status == OUT_OF_MEMORY
    }

    /// As the fault of `device`.
    pub fn of(self, device: &str) -> KernelError {
        let device = device.to_owned();
        let fatal = self.is_fatal();
        let what = self.to_string();
        if fatal {
            KernelError::Lost { device, why: what }
        } else {
            KernelError::Device { device, what }
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.doing, self.said)
    }
}

impl Driver {
    /// Opens the driver's library, looks its functions up and initialises it.
    pub fn open(folder: Option<&Path>) -> Result<Self, Absent> {
        let library = Library::open(&WANTED, folder)?;
        let calls = Calls::find(&library).map_err(|missing| {
            let names = missing.join(", ");
            WANTED.absent(&format!(
                "{} lacks {names}, which every driver from release 525 on has",
                library.asked
            ))
        })?;
        let file = Library::file(calls.cuInit as *const c_void);
        let mut driver = Self {
            calls,
            graphs: Graphs::find(&library).ok(),
            cuda: 0,
            file: file.unwrap_or_else(|| PathBuf::from(&library.asked)),
        };
        // SAFETY: the driver's documented start; the version is written to a local.
        let version = unsafe {
            let status = (driver.calls.cuInit)(0);
            driver.ok(status, "start the driver").and_then(|()| {
                let mut version = 0;
                let status = (driver.calls.cuDriverGetVersion)(&raw mut version);
                driver
                    .ok(status, "read the driver's version")
                    .map(|()| version)
            })
        };
        driver.cuda =
            u32::try_from(version.map_err(|e| WANTED.absent(&e.to_string()))?).unwrap_or_default();
        Ok(driver)
    }

    /// A status as a result.
    pub fn ok(&self, status: Status, doing: &'static str) -> Result<(), Failure> {
        if status == SUCCESS {
            return Ok(());
        }
        Err(Failure {
            status,
            doing,
            said: self.words(status),
        })
    }

    /// The driver's name and sentence of a status.
    fn words(&self, status: Status) -> String {
        let text = |call: unsafe extern "C" fn(Status, *mut *const c_char) -> Status| {
            let mut text: *const c_char = std::ptr::null();
            // SAFETY: the driver sets `text` to a string of its own that lives as long as the library, or to null.
            unsafe {
                let known = call(status, &raw mut text) == SUCCESS && !text.is_null();
                known.then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            }
        };
        let name = text(self.calls.cuGetErrorName);
        let sentence = text(self.calls.cuGetErrorString);
        let name = name.unwrap_or_else(|| "an error this driver does not name".to_owned());
        match sentence {
            Some(sentence) => format!("{name} ({status}), {sentence}"),
            None => format!("{name} ({status})"),
        }
    }
}

/// `12.4` for 12040.
pub(super) fn cuda_version(number: u32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: Status) -> Failure {
        Failure {
            status,
            doing: "queue a matmul",
            said: "CUDA_ERROR".to_owned(),
        }
    }

    #[test]
    fn a_sticky_error_loses_the_device_and_a_mere_refusal_does_not() {
        // Illegal address, launch failed, uncorrectable ECC, unknown.
        for status in [700, 719, 214, 999, 721] {
            let error = failure(status).of("cuda0");
            assert!(matches!(error, KernelError::Lost { .. }), "{status}");
        }
        // Invalid value, out of memory, not supported.
        for status in [1, 2, 801] {
            let error = failure(status).of("cuda0");
            assert!(matches!(error, KernelError::Device { .. }), "{status}");
        }
    }

    #[test]
    fn a_version_number_is_written_as_people_write_it() {
        assert_eq!(cuda_version(12040), "12.4");
        assert_eq!(cuda_version(13000), "13.0");
    }
}
