//! MPI between the nodes of a hall, opened at run time: nothing of it is needed to build or to start this program.
//!
//! It knows three binary interfaces: the standard one of MPI 5, Open MPI's, and that of MPICH and its kin. It refuses a
//! library that it cannot tell, and decides nothing about how a world is formed: the library reads that from its
//! environment. The library may end its process on an error, which is why that is one of its own.
//!
//! Sources: MPI: A Message-Passing Interface Standard, version 5.0, chapter "Application Binary Interface" and its
//! `mpi_abi.h`; `mpi.h` of Open MPI 4.1 and 5.0 and of MPICH 3.4 to 5.0.

use super::host::bridge::{Between, BetweenError, WORDS};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a library is looked for, by the loader, in this order.
const NAMES: [&str; 3] = ["libmpi_abi.so.1", "libmpi.so.12", "libmpi.so.40"];
/// The order for ranks that Open MPI has started.
const OPEN_MPI_FIRST: [&str; 3] = ["libmpi.so.40", "libmpi_abi.so.1", "libmpi.so.12"];
/// Room for what a library says that it is; `MPI_MAX_LIBRARY_VERSION_STRING` is 8192 at most in these.
const VERSION_BYTES: usize = 16 << 10;
/// Most elements of one call: `int` counts them.
const COUNT_MAX: usize = 1 << 30;
/// Looks at whether the other nodes have come, before this one sleeps between two.
const LOOKS: u32 = 2_000;
const SLEEP: Duration = Duration::from_micros(50);

/// A handle of MPI by value: an `int` with MPICH, a pointer elsewhere. On the platforms that this program is built for
/// both travel in one register, the `int` in its lower half.
type Handle = usize;
type Status = c_int;
type Init = unsafe extern "C" fn(*mut c_int, *mut c_void, c_int, *mut c_int) -> Status;
type Ask = unsafe extern "C" fn(Handle, *mut c_int) -> Status;
type Version = unsafe extern "C" fn(*mut c_char, *mut c_int) -> Status;
type AllReduce =
    unsafe extern "C" fn(*const c_void, *mut c_void, c_int, Handle, Handle, Handle) -> Status;
type AllGather = unsafe extern "C" fn(
    *const c_void,
    c_int,
    Handle,
    *mut c_void,
    c_int,
    Handle,
    Handle,
    *mut Handle,
) -> Status;
type SendReceive = unsafe extern "C" fn(
    *const c_void,
    c_int,
    Handle,
    c_int,
    c_int,
    *mut c_void,
    c_int,
    Handle,
    c_int,
    c_int,
    Handle,
    *mut c_void,
) -> Status;
type Test = unsafe extern "C" fn(*mut Handle, *mut c_int, *mut c_void) -> Status;
type Finalize = unsafe extern "C" fn() -> Status;

/// Whose binary interface a library has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Abi {
    /// The standard's own, since MPI 5.
    Standard,
    OpenMpi,
    Mpich,
}

/// Constants of one interface.
struct Constants {
    world: Handle,
    byte: Handle,
    float: Handle,
    sum: Handle,
    ignore_status: usize,
    in_place: usize,
}

/// Why no library of MPI can be used.
#[derive(Debug, thiserror::Error)]
pub enum MpiError {
    #[error("no library of MPI was found: {0}")]
    None(String),
    #[error("{path} is no library of MPI that is known: it has no {lacking}")]
    Unknown { path: PathBuf, lacking: String },
    #[error("{path}: {call} returned {code}")]
    Call {
        path: PathBuf,
        call: &'static str,
        code: i32,
    },
}

/// A library that was opened, and not started.
pub struct Mpi {
    /// Never unloaded: such libraries keep threads.
    library: ManuallyDrop<Library>,
    /// What it was opened by.
    pub path: PathBuf,
    /// What it says that it is, e.g. `MPICH Version: 5.0.2`.
    pub version: String,
    constants: Constants,
}

impl Mpi {
    /// Opens `file`, or the first library that the loader finds.
    ///
    /// `open_mpi`: this process was started by Open MPI, whose own library comes first then.
    ///
    /// # Errors
    /// [`MpiError`].
    pub fn open(file: Option<&Path>, open_mpi: bool) -> Result<Self, MpiError> {
        let names = if open_mpi { OPEN_MPI_FIRST } else { NAMES };
        let names = match file {
            Some(file) => vec![file.to_owned()],
            None => names.iter().map(PathBuf::from).collect(),
        };
        let mut why = Vec::new();
        for path in names {
            // SAFETY: what runs is the library's own start-up code; it is MPI by its name, or the user's choice. Its parts
            // look for each other's symbols, so they are global.
            match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
                Ok(library) => return Self::told(ManuallyDrop::new(library), path),
                Err(error) => why.push(error.to_string()),
            }
        }
        why.truncate(1);
        Err(MpiError::None(why.join("; ")))
    }

    fn told(library: ManuallyDrop<Library>, path: PathBuf) -> Result<Self, MpiError> {
        let unknown = |lacking: &str| MpiError::Unknown {
            path: path.clone(),
            lacking: lacking.to_owned(),
        };
        // SAFETY: the type that the standard gives it; it may be called before the library is started.
        let ask = unsafe { library.get::<Version>(b"MPI_Get_library_version\0") };
        let ask = *ask.map_err(|_| unknown("MPI_Get_library_version"))?;
        let mut text = vec![0; VERSION_BYTES];
        let mut length = 0;
        // SAFETY: the text is longer than any library's longest.
        let code = unsafe { ask(text.as_mut_ptr(), &raw mut length) };
        if code != 0 {
            let call = "MPI_Get_library_version";
            return Err(MpiError::Call { path, call, code });
        }
        // SAFETY: the last byte was written by nobody, and is zero.
        let said = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy();
        let first = said.split(['\n', ',']).next().unwrap_or_default();
        let words: Vec<&str> = first.split_whitespace().collect();
        let abi = match path.file_name().map(|n| n.to_string_lossy()) {
            Some(name) if name.starts_with("libmpi_abi.") => Abi::Standard,
            _ if address(&library, "ompi_mpi_comm_world").is_some() => Abi::OpenMpi,
            _ if address(&library, "MPIR_Err_create_code").is_some() || is_mpich(first) => {
                Abi::Mpich
            }
            _ => {
                return Err(unknown(
                    "interface of MPICH, of Open MPI or of the standard",
                ));
            }
        };
        let constants = abi.constants(&library).map_err(unknown)?;
        let version = words.join(" ");
        Ok(Self {
            library,
            path,
            version,
            constants,
        })
    }

    /// Whether it forms a world by the wire protocol of MPICH's process managers, PMI 1.
    pub fn speaks_pmi(&self) -> bool {
        is_mpich(&self.version)
    }

    /// Starts it: joins the world that its environment names. It waits for all others without a limit.
    ///
    /// # Errors
    /// [`MpiError`].
    pub fn join(self) -> Result<World, MpiError> {
        let function = |name: &'static str| {
            address(&self.library, name).ok_or_else(|| MpiError::Unknown {
                path: self.path.clone(),
                lacking: name.to_owned(),
            })
        };
        // SAFETY: each is a function of this name of a library of MPI, whose type the standard gives.
        let (init, rank, size, all_reduce, all_gather, send_receive, test, finalize) = unsafe {
            (
                std::mem::transmute::<usize, Init>(function("MPI_Init_thread")?),
                std::mem::transmute::<usize, Ask>(function("MPI_Comm_rank")?),
                std::mem::transmute::<usize, Ask>(function("MPI_Comm_size")?),
                std::mem::transmute::<usize, AllReduce>(function("MPI_Allreduce")?),
                std::mem::transmute::<usize, AllGather>(function("MPI_Iallgather")?),
                std::mem::transmute::<usize, SendReceive>(function("MPI_Sendrecv")?),
                std::mem::transmute::<usize, Test>(function("MPI_Test")?),
                std::mem::transmute::<usize, Finalize>(function("MPI_Finalize")?),
            )
        };
        let checked = |call: &'static str, code: c_int| match code {
            0 => Ok(()),
            code => Err(MpiError::Call {
                path: self.path.clone(),
                call,
                code,
            }),
        };
        let (mut given, mut own, mut all) = (0, 0, 0);
        // SAFETY: as the standard has it: no arguments, one thread.
        unsafe {
            let null = std::ptr::null_mut();
            let started = init(null, null.cast(), 0, &raw mut given);
            checked("MPI_Init_thread", started)?;
            checked("MPI_Comm_rank", rank(self.constants.world, &raw mut own))?;
            checked("MPI_Comm_size", size(self.constants.world, &raw mut all))?;
        }
        Ok(World {
            rank: u32::try_from(own).unwrap_or(0),
            size: u32::try_from(all).unwrap_or(0),
            all_reduce,
            all_gather,
            send_receive,
            test,
            finalize,
            mpi: self,
        })
    }
}

/// A world that this process has joined.
pub struct World {
    mpi: Mpi,
    pub rank: u32,
    pub size: u32,
    all_reduce: AllReduce,
    all_gather: AllGather,
    send_receive: SendReceive,
    test: Test,
    finalize: Finalize,
}

impl World {
    /// Leaves the world, together with all others.
    pub fn leave(self) {
        // SAFETY: nothing is in flight, and nothing is called after it.
        unsafe { (self.finalize)() };
    }
}

impl Between for World {
    fn gather(&mut self, words: [u64; WORDS]) -> Result<Vec<[u64; WORDS]>, BetweenError> {
        let mut all = vec![[0; WORDS]; self.size as usize];
        let bytes = size_of_val(&words) as c_int;
        let constants = &self.mpi.constants;
        let mut request: Handle = 0;
        // SAFETY: `bytes` are sent, and as many received of each of `size` ranks; both outlive the request, which the
        // loop below ends. A request is no wider than a pointer.
        let code = unsafe {
            (self.all_gather)(
                words.as_ptr().cast(),
                bytes,
                constants.byte,
                all.as_mut_ptr().cast(),
                bytes,
                constants.byte,
                constants.world,
                &raw mut request,
            )
        };
        checked("MPI_Iallgather", code)?;
        // The others may come late: nobody's core is to be worn out meanwhile.
        for look in 0_u32.. {
            let mut done = 0;
            let ignored = constants.ignore_status as *mut c_void;
            // SAFETY: a request of this world, and no status.
            let code = unsafe { (self.test)(&raw mut request, &raw mut done, ignored) };
            checked("MPI_Test", code)?;
            if done != 0 {
                break;
            }
            if look < LOOKS {
                std::thread::yield_now();
            } else {
                std::thread::sleep(SLEEP);
            }
        }
        Ok(all)
    }

    fn add(&mut self, from: &[f32], into: &mut [f32]) -> Result<(), BetweenError> {
        for (from, into) in from.chunks(COUNT_MAX).zip(into.chunks_mut(COUNT_MAX)) {
            let count = from.len().min(into.len());
            // SAFETY: both are at least `count` floats long and apart from each other.
            unsafe { self.sum(from.as_ptr().cast(), into.as_mut_ptr(), count) }?;
        }
        Ok(())
    }

    fn add_in_place(&mut self, both: &mut [f32]) -> Result<(), BetweenError> {
        let in_place = self.mpi.constants.in_place as *const c_void;
        for part in both.chunks_mut(COUNT_MAX) {
            // SAFETY: the standard's word for a sum over its own addends, which are `part`.
            unsafe { self.sum(in_place, part.as_mut_ptr(), part.len()) }?;
        }
        Ok(())
    }

    fn exchange(&mut self, peer: u32, from: &[f32], into: &mut [f32]) -> Result<(), BetweenError> {
        let constants = &self.mpi.constants;
        let (float, world) = (constants.float, constants.world);
        let ignored = constants.ignore_status as *mut c_void;
        let count = from.len().min(into.len()).min(COUNT_MAX) as c_int;
        let peer = c_int::try_from(peer).unwrap_or(c_int::MAX);
        // SAFETY: both are at least `count` floats long and apart from each other; no status is written.
        let code = unsafe {
            (self.send_receive)(
                from.as_ptr().cast(),
                count,
                float,
                peer,
                0,
                into.as_mut_ptr().cast(),
                count,
                float,
                peer,
                0,
                world,
                ignored,
            )
        };
        checked("MPI_Sendrecv", code)
    }
}

impl World {
    /// # Safety
    /// `into` is valid for `count` floats, which `int` can count, and `from` as well or MPI's word for in place.
    unsafe fn sum(
        &self,
        from: *const c_void,
        into: *mut f32,
        count: usize,
    ) -> Result<(), BetweenError> {
        let constants = &self.mpi.constants;
        let (float, sum, world) = (constants.float, constants.sum, constants.world);
        // SAFETY: the caller's promise; the handles are this library's.
        let code =
            unsafe { (self.all_reduce)(from, into.cast(), count as c_int, float, sum, world) };
        checked("MPI_Allreduce", code)
    }
}

fn checked(call: &'static str, code: c_int) -> Result<(), BetweenError> {
    match code {
        0 => Ok(()),
        code => Err(BetweenError::Call { call, code }),
    }
}

/// Address of a symbol, which is not looked at.
fn address(library: &Library, name: &str) -> Option<usize> {
    // SAFETY: the address alone is taken.
    let symbol = unsafe { library.get::<*const c_void>(name.as_bytes()) };
    symbol.ok().map(|s| s.into_raw() as usize)
}

/// By what a library says of itself: MPICH and those that are made from it.
fn is_mpich(version: &str) -> bool {
    ["MPICH", "MVAPICH", "Intel(R) MPI"]
        .iter()
        .any(|name| version.contains(name))
}

impl Abi {
    /// Its constants, or the name of one that the library lacks.
    fn constants(self, library: &Library) -> Result<Constants, &'static str> {
        let found = |name: &'static str| address(library, name).ok_or(name);
        Ok(match self {
            Self::Standard => Constants {
                world: 0x101,
                byte: 0x247,
                float: 0x210,
                sum: 0x21,
                ignore_status: 0,
                in_place: 1,
            },
            Self::OpenMpi => Constants {
                world: found("ompi_mpi_comm_world")?,
                byte: found("ompi_mpi_byte")?,
                float: found("ompi_mpi_float")?,
                sum: found("ompi_mpi_op_sum")?,
                ignore_status: 0,
                in_place: 1,
            },
            Self::Mpich => Constants {
                world: 0x4400_0000,
                byte: 0x4c00_010d,
                float: 0x4c00_040a,
                sum: 0x5800_0003,
                ignore_status: 1,
                // (void *) -1
                in_place: usize::MAX,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_library_of_mpi_is_refused_with_what_it_lacks() {
        let none = Mpi::open(Some(Path::new("/nowhere/libmpi.so")), false);
        assert!(matches!(none, Err(MpiError::None(_))));
        // The C library is a library, and knows nothing of MPI.
        let other = Mpi::open(Some(Path::new("libc.so.6")), false).err();
        let told = other.map_or_else(String::new, |e| e.to_string());
        assert!(told.contains("MPI_Get_library_version"), "{told}");
    }

    #[test]
    fn mpich_and_its_kin_are_told_from_others_by_what_they_say() {
        assert!(is_mpich("MPICH Version: 5.0.2"));
        assert!(is_mpich("Intel(R) MPI Library 2021.13 for Linux* OS"));
        assert!(!is_mpich("Open MPI v5.0.11"));
    }
}
