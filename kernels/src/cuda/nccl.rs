//! Decides how NCCL is opened, how a group is formed with it, and when a group that hangs is given up.
//!
//! A group is formed without blocking and every wait has a limit: past it, or on an error that NCCL reports by itself,
//! the communicator is aborted, on a thread of its own since an abort may hang as well. The id travels by the caller's own
//! channel, and the group must have the ranks that it was asked for. Refuses an NCCL before 2.18, and to end the process
//! for whatever a communicator does.
//!
//! NCCL tells nobody which algorithm and protocol it chose; the record says what its environment asks of it.
//!
//! Source: NCCL user guide, “Fault Tolerance” and “Creating a communicator with options”; `nccl.h`.

use super::library::{Library, Wanted, digest, functions};
use crate::collective::within::Element;
use crate::device::Absent;
use crate::timer::now_ns;
use core::ffi::{c_char, c_int, c_uint, c_void};
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

/// A status as the library returns it.
type Status = c_uint;
type Comm = *mut c_void;

const WANTED: Wanted = Wanted {
    names: &["libnccl.so.2", "libnccl.so"],
    price: "nothing is all-reduced by NVIDIA's own collectives",
    remedy: "install NVIDIA's NCCL 2.18 or later (libnccl2 of the distribution, or the package nvidia-nccl-cu12 or -cu13 of pip) and give its folder with --cuda-lib-path",
    toolkit: true,
};

/// The first version whose communicators can be formed and ended without blocking in all that is used here.
const OLDEST: u32 = 21_800;
const SUCCESS: Status = 0;
const IN_PROGRESS: Status = 7;
/// `ncclSum`.
const SUM: c_uint = 0;
/// Pause between two looks at a communicator.
const LOOK: Duration = Duration::from_micros(100);
/// How long an abort may take before it is left to itself.
const ABORT_LIMIT: Duration = Duration::from_secs(2);
/// What NCCL's environment can fix of how it reduces.
const SETTINGS: [&str; 6] = [
    "NCCL_ALGO",
    "NCCL_PROTO",
    "NCCL_NVLS_ENABLE",
    "NCCL_MIN_NCHANNELS",
    "NCCL_MAX_NCHANNELS",
    "NCCL_P2P_DISABLE",
];

functions! {
    /// NCCL's functions, as 2.18 declares them.
    Calls {
        ncclGetVersion: fn(*mut c_int) -> Status;
        ncclGetErrorString: fn(Status) -> *const c_char;
        ncclGetLastError: fn(Comm) -> *const c_char;
        ncclGetUniqueId: fn(*mut UniqueId) -> Status;
        ncclCommInitRankConfig: fn(*mut Comm, c_int, UniqueId, c_int, *mut Config) -> Status;
        ncclCommGetAsyncError: fn(Comm, *mut Status) -> Status;
        ncclCommCount: fn(Comm, *mut c_int) -> Status;
        ncclCommUserRank: fn(Comm, *mut c_int) -> Status;
        ncclCommFinalize: fn(Comm) -> Status;
        ncclCommDestroy: fn(Comm) -> Status;
        ncclCommAbort: fn(Comm) -> Status;
        ncclAllReduce: fn(*const c_void, *mut c_void, usize, c_uint, c_uint, Comm, *mut c_void) -> Status;
    }
}

/// What forms one group and no other; made by one rank and brought to the rest by the caller.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueId(pub [u8; 128]);

/// `ncclConfig_v21700`: NCCL reads as much of it as its size says.
#[repr(C)]
pub(super) struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
    split_share: c_int,
}

impl Config {
    fn new() -> Self {
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: 21_700,
            blocking: 0,
            // Undefined: the library's own choice.
            cga_cluster_size: c_int::MIN,
            min_ctas: c_int::MIN,
            max_ctas: c_int::MIN,
            net_name: std::ptr::null(),
            split_share: c_int::MIN,
        }
    }
}

/// Why a group could not be formed, or did not reduce.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NcclError {
    #[error("NCCL cannot {doing} as rank {rank}: {said}")]
    Refused {
        rank: u32,
        doing: &'static str,
        said: String,
    },
    #[error(
        "rank {rank} waited {waited_ms} ms for NCCL to {doing} with {ranks} ranks, and gave the group up{abort}; look for the rank that did not come"
    )]
    Hung {
        rank: u32,
        ranks: u32,
        doing: &'static str,
        waited_ms: u64,
        abort: Abort,
    },
    #[error("NCCL's group failed while rank {rank} waited for it to {doing}: {said}{abort}")]
    Failed {
        rank: u32,
        doing: &'static str,
        said: String,
        abort: Abort,
    },
    #[error(
        "NCCL formed a group of {found} ranks as rank {found_rank}, asked for were {ranks} as rank {rank}"
    )]
    Another {
        rank: u32,
        ranks: u32,
        found_rank: i64,
        found: i64,
    },
    #[error("NCCL sums no {element} here; known: f32, bf16, f16")]
    Element { element: &'static str },
    #[error("NCCL's group of rank {rank} was given up before; form a new one with a new id")]
    Ended { rank: u32 },
}

/// How an abort went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Abort {
    Done,
    Failed(String),
    /// It did not return either, and was left to itself.
    Hung,
}

impl std::fmt::Display for Abort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => Ok(()),
            Self::Failed(said) => write!(f, " (the abort failed: {said})"),
            Self::Hung => f.write_str(" (the abort did not return)"),
        }
    }
}

/// The library, open; no device is needed for that.
pub struct Nccl {
    calls: Calls,
    pub file: PathBuf,
    /// As the library counts: 22703 is 2.27.3.
    number: u32,
}

impl Nccl {
    /// Opens the library, in `folder` before the system's own places.
    ///
    /// # Errors
    /// [`Absent`]: no such library, one that lacks a function, or one that is too old.
    pub fn open(folder: Option<&Path>) -> Result<Self, Absent> {
        let library = Library::open(&WANTED, folder)?;
        let calls = Calls::find(&library).map_err(|missing| {
            WANTED.absent(&format!("{} lacks {}", library.asked, missing.join(", ")))
        })?;
        let mut version: c_int = 0;
        // SAFETY: one number is written to a local; no device is needed.
        let status = unsafe { (calls.ncclGetVersion)(&raw mut version) };
        let number = u32::try_from(version).unwrap_or(0);
        let file = Library::file(calls.ncclGetVersion as *const c_void);
        let nccl = Self {
            calls,
            file: file.unwrap_or_else(|| PathBuf::from(&library.asked)),
            number,
        };
        if status != SUCCESS {
            let said = nccl.words(status);
            return Err(WANTED.absent(&format!("{} tells no version: {said}", library.asked)));
        }
        if number < OLDEST {
            return Err(WANTED.absent(&format!(
                "{} is NCCL {}, older than 2.18",
                library.asked,
                nccl.version()
            )));
        }
        Ok(nccl)
    }

    /// `2.27.3`.
    pub fn version(&self) -> String {
        let v = self.number;
        format!("{}.{}.{}", v / 10_000, v / 100 % 100, v % 100)
    }

    /// Version, file and digest, and what the environment asks of it: for the record.
    pub fn facts(&self) -> Vec<(String, String)> {
        let digest = digest(&self.file).unwrap_or_else(|| "its file cannot be read".to_owned());
        let about = format!(
            "{}, {}, sha256 {digest}",
            self.version(),
            self.file.display()
        );
        let asked = SETTINGS.iter().filter_map(|name| {
            let value = std::env::var_os(name)?;
            Some(format!("{name}={}", value.to_string_lossy()))
        });
        let asked: Vec<String> = asked.collect();
        let asked = if asked.is_empty() {
            "left to the library, which does not tell what it chose".to_owned()
        } else {
            asked.join(" ")
        };
        vec![
            ("library nccl".to_owned(), about),
            ("nccl algorithm, protocol and channels".to_owned(), asked),
        ]
    }

    /// An id for one new group.
    ///
    /// # Errors
    /// [`NcclError::Refused`].
    pub fn unique_id(&self) -> Result<UniqueId, NcclError> {
        let mut id = UniqueId([0; 128]);
        // SAFETY: 128 bytes are written to a local.
        let status = unsafe { (self.calls.ncclGetUniqueId)(&raw mut id) };
        self.ok(0, status, "make an id").map(|()| id)
    }

    fn ok(&self, rank: u32, status: Status, doing: &'static str) -> Result<(), NcclError> {
        if status == SUCCESS {
            return Ok(());
        }
        Err(NcclError::Refused {
            rank,
            doing,
            said: self.words(status),
        })
    }

    /// The library's own sentence of a status.
    fn words(&self, status: Status) -> String {
        // SAFETY: the library gives a string of its own that lives as long as it does, or null.
        let text = unsafe {
            let text = (self.calls.ncclGetErrorString)(status);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        };
        match text {
            Some(text) => format!("{text} ({status})"),
            None => format!("an error that it does not name ({status})"),
        }
    }
}

/// One rank of a group. Used from one thread; dropping it gives the group up.
pub struct Communicator {
    nccl: Arc<Nccl>,
    /// `None` once it was given up or ended.
    comm: Option<Comm>,
    rank: u32,
    ranks: u32,
}

// SAFETY: a communicator may be used from any thread, one at a time (NCCL user guide, “Thread Safety”).
unsafe impl Send for Communicator {}

impl Communicator {
    /// Takes `rank` of a group of `ranks` and returns once all have come, within `limit`.
    ///
    /// `id`: of this group alone, the same on all ranks. The rank's device must be current to this thread.
    ///
    /// # Errors
    /// [`NcclError`]; the communicator is aborted before it is returned.
    pub fn form(
        nccl: &Arc<Nccl>,
        id: UniqueId,
        rank: u32,
        ranks: u32,
        limit: Duration,
    ) -> Result<Self, NcclError> {
        const DOING: &str = "form a group";
        let number = |n: u32| c_int::try_from(n).unwrap_or(c_int::MAX);
        let mut comm: Comm = std::ptr::null_mut();
        let mut config = Config::new();
        // SAFETY: the handle is written to a local; id and configuration are as the header has them, and are copied.
        let status = unsafe {
            (nccl.calls.ncclCommInitRankConfig)(
                &raw mut comm,
                number(ranks),
                id,
                number(rank),
                &raw mut config,
            )
        };
        let mut group = Self {
            nccl: Arc::clone(nccl),
            comm: (!comm.is_null()).then_some(comm),
            rank,
            ranks,
        };
        if status != IN_PROGRESS {
            nccl.ok(rank, status, DOING)?;
        }
        group.wait(limit, DOING, || Ok::<_, NcclError>(true))?;
        group.assert_itself()?;
        Ok(group)
    }

    /// The group must be the one that was asked for.
    fn assert_itself(&mut self) -> Result<(), NcclError> {
        let comm = self.comm()?;
        let (mut found, mut found_rank): (c_int, c_int) = (-1, -1);
        // SAFETY: the communicator is formed; two numbers are written to locals.
        let statuses = unsafe {
            [
                (self.nccl.calls.ncclCommCount)(comm, &raw mut found),
                (self.nccl.calls.ncclCommUserRank)(comm, &raw mut found_rank),
            ]
        };
        for status in statuses {
            self.nccl.ok(self.rank, status, "count its group")?;
        }
        let (found, found_rank) = (i64::from(found), i64::from(found_rank));
        if (found, found_rank) == (i64::from(self.ranks), i64::from(self.rank)) {
            return Ok(());
        }
        self.abort();
        Err(NcclError::Another {
            rank: self.rank,
            ranks: self.ranks,
            found_rank,
            found,
        })
    }

    fn comm(&self) -> Result<Comm, NcclError> {
        self.comm.ok_or(NcclError::Ended { rank: self.rank })
    }

    /// Queues the sum of `count` elements at `from` over all ranks to `to`, which may be the same, on `stream`.
    ///
    /// # Errors
    /// [`NcclError`]; but for an unknown type the communicator is aborted then.
    ///
    /// # Safety
    /// Both hold `count` elements in memory that the library reaches, until the sum is done or the group given up;
    /// `stream` is a stream of the rank's device.
    pub unsafe fn all_reduce(
        &mut self,
        element: Element,
        count: usize,
        [from, to]: [u64; 2],
        stream: *mut c_void,
        limit: Duration,
    ) -> Result<(), NcclError> {
        const DOING: &str = "queue an all-reduce";
        // `ncclDataType_t`.
        let kind: c_uint = match element {
            Element::F16 => 6,
            Element::F32 => 7,
            Element::Bf16 => 9,
            Element::I32 => {
                return Err(NcclError::Element {
                    element: element.name(),
                });
            }
        };
        let comm = self.comm()?;
        // SAFETY: the caller vouches for memory and stream; the communicator is formed.
        let status = unsafe {
            (self.nccl.calls.ncclAllReduce)(
                from as *const c_void,
                to as *mut c_void,
                count,
                kind,
                SUM,
                comm,
                stream,
            )
        };
        match status {
            SUCCESS => Ok(()),
            IN_PROGRESS => self.wait(limit, DOING, || Ok::<_, NcclError>(true)),
            status => {
                let said = self.nccl.words(status);
                Err(self.failed(DOING, said))
            }
        }
    }

    /// Waits until `done` says so, looking at the communicator's own errors meanwhile; gives the group up after `limit`.
    ///
    /// # Errors
    /// [`NcclError::Hung`] and [`NcclError::Failed`], or what `done` met; the communicator is aborted then.
    pub fn wait<E: From<NcclError>>(
        &mut self,
        limit: Duration,
        doing: &'static str,
        mut done: impl FnMut() -> Result<bool, E>,
    ) -> Result<(), E> {
        let began_ns = now_ns();
        loop {
            let comm = self.comm()?;
            let mut state: Status = SUCCESS;
            // SAFETY: the communicator was made and not given up; one number is written to a local.
            let asked = unsafe { (self.nccl.calls.ncclCommGetAsyncError)(comm, &raw mut state) };
            let state = if asked == SUCCESS { state } else { asked };
            if state != SUCCESS && state != IN_PROGRESS {
                let said = self.nccl.words(state);
                return Err(self.failed(doing, said).into());
            }
            if state == SUCCESS {
                match done() {
                    Ok(true) => return Ok(()),
                    Ok(false) => {}
                    Err(error) => {
                        self.abort();
                        return Err(error);
                    }
                }
            }
            let waited_ns = now_ns().saturating_sub(began_ns);
            if u128::from(waited_ns) > limit.as_nanos() {
                return Err(NcclError::Hung {
                    rank: self.rank,
                    ranks: self.ranks,
                    doing,
                    waited_ms: waited_ns / 1_000_000,
                    abort: self.abort(),
                }
                .into());
            }
            std::thread::sleep(LOOK);
        }
    }

    fn failed(&mut self, doing: &'static str, said: String) -> NcclError {
        let detail = self.comm.map(|comm| {
            // SAFETY: the communicator is there; the library gives a string of its own, or null.
            unsafe {
                let text = (self.nccl.calls.ncclGetLastError)(comm);
                let known = !text.is_null();
                known.then(|| CStr::from_ptr(text).to_string_lossy().trim().to_owned())
            }
        });
        let said = match detail.flatten().filter(|d| !d.is_empty()) {
            Some(detail) => format!("{said}, {detail}"),
            None => said,
        };
        NcclError::Failed {
            rank: self.rank,
            doing,
            said,
            abort: self.abort(),
        }
    }

    /// Gives the group up, so that nobody waits in it any more.
    pub fn abort(&mut self) -> Abort {
        let Some(comm) = self.comm.take() else {
            return Abort::Done;
        };
        let (nccl, comm) = (Arc::clone(&self.nccl), comm.expose_provenance());
        let (sender, done) = channel();
        std::thread::spawn(move || {
            // SAFETY: the communicator was made and nobody else has it any more.
            let status =
                unsafe { (nccl.calls.ncclCommAbort)(std::ptr::with_exposed_provenance_mut(comm)) };
            // Nobody may be waiting any more.
            let _ = sender.send(nccl.ok(0, status, "abort").err());
        });
        match done.recv_timeout(ABORT_LIMIT) {
            Ok(None) => Abort::Done,
            Ok(Some(error)) => Abort::Failed(error.to_string()),
            Err(_) => Abort::Hung,
        }
    }

    /// Ends the group in good order, within `limit`.
    ///
    /// # Errors
    /// [`NcclError`]; the communicator is aborted then.
    pub fn end(mut self, limit: Duration) -> Result<(), NcclError> {
        const DOING: &str = "end a group";
        let comm = self.comm()?;
        // SAFETY: the communicator is formed.
        match unsafe { (self.nccl.calls.ncclCommFinalize)(comm) } {
            SUCCESS | IN_PROGRESS => self.wait(limit, DOING, || Ok::<_, NcclError>(true))?,
            status => {
                let said = self.nccl.words(status);
                return Err(self.failed(DOING, said));
            }
        }
        self.comm = None;
        // SAFETY: finalised, and nobody has it any more.
        let status = unsafe { (self.nccl.calls.ncclCommDestroy)(comm) };
        self.nccl.ok(self.rank, status, DOING)
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.abort();
    }
}
