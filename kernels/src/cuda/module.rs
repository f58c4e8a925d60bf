//! Decides which PTX a device gets, and how long the driver took to compile it.
//!
//! The PTX is part of the binary, so that a bare node needs the driver and nothing else. Refuses to go on where
//! the driver cannot compile it, with the compiler's own words.

use super::gpu::Gpu;
use crate::error::KernelError;
use crate::timer::now_ns;
use core::ffi::c_void;
use cudarc::driver::sys::{CUfunction, CUjit_option, CUmodule};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::sync::Arc;

/// A PTX file of this build, ended by a zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// All work but matmuls; compute capability 8.0 and later.
    Step,
    /// All-reduces over memory that each rank can reach; 8.0 and later.
    Reduce,
    /// Matmuls but of 8-bit floats; 8.0 and later.
    Ampere,
    /// Matmuls of 8-bit floats; 8.9 and later.
    Ada,
    /// Hopper's own path; 9.0 alone.
    Hopper,
}

macro_rules! ptx {
    ($name:literal) => {
        concat!(include_str!(concat!("../../cuda/ptx/", $name)), "\0")
    };
}

impl Source {
    const fn text(self) -> &'static str {
        match self {
            Self::Step => ptx!("step.compute_80.ptx"),
            Self::Reduce => ptx!("all_reduce.compute_80.ptx"),
            Self::Ampere => ptx!("matmul.compute_80.ptx"),
            Self::Ada => ptx!("matmul.compute_89.ptx"),
            Self::Hopper => ptx!("hopper.sm_90a.ptx"),
        }
    }

    /// Whether the file has this entry.
    #[cfg(test)]
    pub fn has(self, entry: &str) -> bool {
        self.text().contains(&format!(".entry {entry}("))
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Step => "step.compute_80",
            Self::Reduce => "all_reduce.compute_80",
            Self::Ampere => "matmul.compute_80",
            Self::Ada => "matmul.compute_89",
            Self::Hopper => "hopper.sm_90a",
        }
    }
}

/// A compiled file on the device.
pub(super) struct Module {
    gpu: Arc<Gpu>,
    handle: CUmodule,
    source: Source,
    /// What the driver's compiler needed; little where its cache had it.
    pub jit_ns: u64,
}

// SAFETY: a module's handle may be used from any thread; see `Gpu`.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    fn load(gpu: &Arc<Gpu>, source: Source) -> Result<Self, KernelError> {
        let mut log = vec![0_u8; 8192];
        let mut options = [
            CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        // A size is passed in the place of a pointer, as the driver wants it.
        let mut values: [*mut c_void; 2] = [
            log.as_mut_ptr().cast(),
            std::ptr::without_provenance_mut(log.len()),
        ];
        let mut handle: CUmodule = std::ptr::null_mut();
        let start_ns = now_ns();
        // SAFETY: the text ends with a zero; options and values are of equal number and outlive the call.
        let status = unsafe {
            (gpu.driver.calls.cuModuleLoadDataEx)(
                &raw mut handle,
                source.text().as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        if let Err(error) = gpu.ok(status, "compile the kernels") {
            let said = CStr::from_bytes_until_nul(&log).map_or_else(
                |_| String::new(),
                |text| text.to_string_lossy().trim().to_owned(),
            );
            return match error {
                KernelError::Device { what, .. } => Err(gpu.refuse(format!(
                    "{what}; {} {said}; a driver of release 550 or later compiles them",
                    source.name()
                ))),
                other => Err(other),
            };
        }
        Ok(Self {
            gpu: Arc::clone(gpu),
            handle,
            source,
            jit_ns: now_ns().saturating_sub(start_ns),
        })
    }

    /// The kernel `name`.
    pub fn kernel(&self, name: &str) -> Result<Kernel, KernelError> {
        let text = CString::new(name).map_err(|e| self.gpu.refuse(e.to_string()))?;
        let mut function: CUfunction = std::ptr::null_mut();
        // SAFETY: the handle is open and the name ends with a zero.
        let status = unsafe {
            (self.gpu.driver.calls.cuModuleGetFunction)(
                &raw mut function,
                self.handle,
                text.as_ptr(),
            )
        };
        self.gpu
            .ok(status, "find a kernel")
            .map_err(|error| match error {
                KernelError::Device { what, .. } => {
                    let place = self.source.name();
                    self.gpu.refuse(format!("{what}: `{name}` of {place}"))
                }
                other => other,
            })?;
        Ok(Kernel { function })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if !self.gpu.is_lost() {
            // SAFETY: loaded by this value, whose kernels nobody queues any more.
            unsafe { (self.gpu.driver.calls.cuModuleUnload)(self.handle) };
        }
    }
}

/// An entry of a module; used while the module is loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    pub function: CUfunction,
}

// SAFETY: a handle; see `Gpu`.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

/// The modules of a device, each compiled once.
pub(super) struct Modules {
    gpu: Arc<Gpu>,
    loaded: RefCell<BTreeMap<Source, Arc<Module>>>,
}

impl Modules {
    pub fn new(gpu: &Arc<Gpu>) -> Self {
        Self {
            gpu: Arc::clone(gpu),
            loaded: RefCell::default(),
        }
    }

    pub fn get(&self, source: Source) -> Result<Arc<Module>, KernelError> {
        if let Some(module) = self.loaded.borrow().get(&source) {
            return Ok(Arc::clone(module));
        }
        let module = Arc::new(Module::load(&self.gpu, source)?);
        self.loaded.borrow_mut().insert(source, Arc::clone(&module));
        Ok(module)
    }

    /// Each file that was compiled, and for how long.
    pub fn times(&self) -> Vec<(String, String)> {
        let loaded = self.loaded.borrow();
        let time = |(source, module): (&Source, &Arc<Module>)| {
            let ms = module.jit_ns as f64 / 1e6;
            (format!("jit {}", source.name()), format!("{ms:.1} ms"))
        };
        loaded.iter().map(time).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ptx_of_this_build_is_one_that_release_550_takes_and_ends_with_a_zero() {
        for source in [
            Source::Step,
            Source::Reduce,
            Source::Ampere,
            Source::Ada,
            Source::Hopper,
        ] {
            let text = source.text();
            assert_eq!(text.find('\0'), Some(text.len() - 1), "{source:?}");
            let version = text.lines().find_map(|l| l.strip_prefix(".version "));
            let version: f64 = version.unwrap().trim().parse().unwrap();
            assert!(version <= 8.4, "{source:?}: PTX ISA {version}");
        }
    }
}
