//! MPICH by dlopen: the six calls the comparison needs, in MPICH's own interface or the standard one.
//!
//! Handles are fixed numbers in both: MPICH's are `int`s from its `mpi.h`, the standard's are pointer-sized
//! constants (MPI 5.0, chapter “Application Binary Interface”). Both fit one integer register on x86-64 and
//! aarch64. Refuses libraries of other families.

use crate::Outcome;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::{c_int, c_void};
use std::path::Path;
use std::ptr::null_mut;

type Handle = usize;
type AllReduce =
    unsafe extern "C" fn(*const c_void, *mut c_void, c_int, Handle, Handle, Handle) -> c_int;

pub struct Mpi {
    world: Handle,
    float: Handle,
    sum: Handle,
    rank: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    size: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    barrier: unsafe extern "C" fn(Handle) -> c_int,
    all_reduce: AllReduce,
    finalize: unsafe extern "C" fn() -> c_int,
    // Last: the functions above live in it.
    _library: Library,
}

impl Mpi {
    pub fn start(path: &Path) -> Outcome<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (world, float, sum) = if name.starts_with("libmpi_abi.so") {
            (0x101, 0x210, 0x21)
        } else if name.starts_with("libmpi.so.12") {
            (0x4400_0000, 0x4c00_040a, 0x5800_0003)
        } else {
            return Err(format!("{name} is none of libmpi.so.12, libmpi_abi.so").into());
        };
        // SAFETY: loading MPI runs its initialisers, which is what it is loaded for; the symbols have the
        // types that the MPI standard gives them.
        unsafe {
            let library = Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL)?;
            let init: unsafe extern "C" fn(*mut c_int, *mut c_void) -> c_int =
                *library.get(b"MPI_Init\0")?;
            let mpi = Self {
                world,
                float,
                sum,
                rank: *library.get(b"MPI_Comm_rank\0")?,
                size: *library.get(b"MPI_Comm_size\0")?,
                barrier: *library.get(b"MPI_Barrier\0")?,
                all_reduce: *library.get(b"MPI_Allreduce\0")?,
                finalize: *library.get(b"MPI_Finalize\0")?,
                _library: library,
            };
            ok("MPI_Init", init(null_mut(), null_mut()))?;
            Ok(mpi)
        }
    }

    pub fn rank(&self) -> Outcome<u32> {
        let mut rank = 0;
        // SAFETY: MPI is initialised; the pointer is valid for one int.
        ok("MPI_Comm_rank", unsafe {
            (self.rank)(self.world, &mut rank)
        })?;
        Ok(rank.try_into()?)
    }

    pub fn ranks(&self) -> Outcome<u32> {
        let mut ranks = 0;
        // SAFETY: as above.
        ok("MPI_Comm_size", unsafe {
            (self.size)(self.world, &mut ranks)
        })?;
        Ok(ranks.try_into()?)
    }

    pub fn barrier(&mut self) -> Outcome<()> {
        // SAFETY: MPI is initialised.
        ok("MPI_Barrier", unsafe { (self.barrier)(self.world) })
    }

    pub fn all_reduce(&mut self, input: &[f32], output: &mut [f32]) -> Outcome<()> {
        if input.len() != output.len() {
            return Err("input and output differ in length".into());
        }
        // SAFETY: both buffers hold `count` floats and do not overlap.
        ok("MPI_Allreduce", unsafe {
            (self.all_reduce)(
                input.as_ptr().cast(),
                output.as_mut_ptr().cast(),
                input.len().try_into()?,
                self.float,
                self.sum,
                self.world,
            )
        })
    }

    pub fn finish(self) -> Outcome<()> {
        // SAFETY: the last call into MPI.
        ok("MPI_Finalize", unsafe { (self.finalize)() })
    }
}

fn ok(call: &str, code: c_int) -> Outcome<()> {
    match code {
        0 => Ok(()),
        code => Err(format!("{call} returned {code}").into()),
    }
}
