//! The shared memory of one group: where each rank's buckets and flags lie, and who may map it.
//!
//! Every offset is computed from the caller's own ranks and bucket sizes; the header only confirms
//! them, so nothing a peer writes there can move an access. Refuses files that are foreign,
//! truncated or laid out otherwise. An anonymous region is sealed against resizing; a region at a
//! path that somebody truncates while it is mapped still ends in a bus error, as any mapped file.

use crate::collective::CollectiveError;
use memmap2::{Advice, MmapOptions, MmapRaw};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Most ranks of one machine's group: member sets are 64-bit masks.
pub const RANKS_MAX: u32 = 64;

const MAGIC: u64 = u64::from_ne_bytes(*b"hmkgroup");
const VERSION: u32 = 2;
/// Bytes before the first bucket: header and slots, rounded up to whole pages of every usual size.
const DATA_START: u64 = 64 << 10;
/// Buffers start on pages, so that each can live on its owner's memory node.
const BUFFER_ALIGN: u64 = 4096;

/// Written by the creator, and the marks by which anybody gives a generation up.
#[repr(C, align(128))]
struct Header {
    // The first four lie where `confirm` reads them.
    magic: AtomicU64,
    version: AtomicU32,
    ranks: AtomicU32,
    layout: AtomicU64,
    /// Highest generation given up.
    aborted: AtomicU32,
    /// Ranks said to be lost, as a mask.
    lost: AtomicU64,
}

/// What one rank says of itself; two cache lines, so that neighbours are not disturbed.
#[repr(C, align(128))]
pub(super) struct Slot {
    pub(super) pid: AtomicU32,
    pub(super) generation: AtomicU32,
    /// Count of the reduction this rank has arrived at, within its generation.
    pub(super) arrived: AtomicU32,
    /// Count of the reduction this rank has done its share of.
    pub(super) done: AtomicU32,
    /// The bucket of the reduction it arrived at.
    pub(super) bucket: AtomicU32,
    /// Peers that sleep on one of the words above; wrong counts cost a system call, nothing else.
    pub(super) sleepers: AtomicU32,
    pub(super) arrived_ns: AtomicU64,
    /// The members it formed its generation with, as a mask.
    pub(super) members: AtomicU64,
    /// Of all nodes' ranks the one that arrived last, by its number in the hall; told by a bridge alone.
    pub(super) last: AtomicU32,
    /// The total is to come over the input: 1, or into the output: 0. Told to a bridge.
    pub(super) in_place: AtomicU32,
}

#[repr(C)]
struct Control {
    header: Header,
    slots: [Slot; RANKS_MAX as usize],
}

const _: () = assert!(size_of::<Control>() as u64 <= DATA_START);

/// Where one bucket lies: per rank an input, then an output.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    stride: u64,
    floats: usize,
}

/// A group's memory, mapped. The creator keeps it alive and can give a generation up.
#[derive(Debug)]
pub struct Region {
    map: MmapRaw,
    // Keeps an anonymous region's path under /proc open for the ranks that attach later.
    _file: File,
    path: PathBuf,
    remove: bool,
    ranks: u32,
    spans: Vec<Span>,
}

/// How far a rank has come, for a watchdog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// 0: nobody took this rank yet.
    pub pid: u32,
    pub generation: u32,
    /// Reductions arrived at and completed in this generation, modulo 2³².
    pub arrived: u32,
    pub done: u32,
}

impl Region {
    /// Creates an anonymous region; other processes of this user attach to [`Self::path`] while this process
    /// lives, and it leaves nothing behind when all have ended.
    ///
    /// `bucket_bytes`: what each rank holds per bucket; the region takes twice that per rank.
    ///
    /// # Errors
    /// [`CollectiveError::RankCount`], [`CollectiveError::BucketSize`], [`CollectiveError::TooLarge`], [`CollectiveError::Io`].
    #[cfg(target_os = "linux")]
    pub fn create(ranks: u32, bucket_bytes: &[u64]) -> Result<Self, CollectiveError> {
        use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
        use std::os::fd::AsRawFd;
        let (spans, bytes) = lay_out(ranks, bucket_bytes)?;
        let failed = |what| {
            move |e: rustix::io::Errno| CollectiveError::Io {
                what,
                path: PathBuf::from("anonymous memory"),
                source: e.into(),
            }
        };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = memfd_create("hallmark-group", flags).map_err(failed("cannot create"))?;
        let file = File::from(fd);
        let path = PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            file.as_raw_fd()
        ));
        file.set_len(bytes).map_err(io("cannot size", &path))?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(failed("cannot seal"))?;
        Self::begin(file, path, (ranks, bucket_bytes), spans, bytes)
    }

    /// Creates a region in a new file, which goes when the returned value is dropped.
    ///
    /// # Errors
    /// As `create`; an existing file is an error.
    pub fn create_at(
        path: &Path,
        ranks: u32,
        bucket_bytes: &[u64],
    ) -> Result<Self, CollectiveError> {
        let (spans, bytes) = lay_out(ranks, bucket_bytes)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(io("cannot create", path))?;
        let region = file
            .set_len(bytes)
            .map_err(io("cannot size", path))
            .and_then(|()| Self::begin(file, path.into(), (ranks, bucket_bytes), spans, bytes));
        match region {
            Ok(mut region) => {
                region.remove = true;
                Ok(region)
            }
            Err(e) => {
                // The error that matters is the first one.
                let _ = std::fs::remove_file(path);
                Err(e)
            }
        }
    }

    /// Maps the region at `path`, which must have been created for the same ranks and buckets.
    ///
    /// # Errors
    /// [`CollectiveError::NotARegion`], [`CollectiveError::Truncated`], [`CollectiveError::Version`],
    /// [`CollectiveError::RanksDiffer`], [`CollectiveError::LayoutDiffers`], and as [`Self::create_at`].
    pub fn attach(path: &Path, ranks: u32, bucket_bytes: &[u64]) -> Result<Self, CollectiveError> {
        let (spans, bytes) = lay_out(ranks, bucket_bytes)?;
        let meta = std::fs::metadata(path).map_err(io("cannot open", path))?;
        if !meta.is_file() {
            // Opening a pipe or a device could block or do something.
            return Err(CollectiveError::NotARegion {
                path: path.into(),
                found: 0,
            });
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(io("cannot open", path))?;
        confirm(&mut file, path, ranks, bucket_bytes)?;
        let len = file.metadata().map_err(io("cannot size", path))?.len();
        if len < bytes {
            return Err(CollectiveError::Truncated {
                path: path.into(),
                len,
                need: bytes,
            });
        }
        let map = map(&file, path, bytes)?;
        Ok(Self {
            map,
            _file: file,
            path: path.into(),
            remove: false,
            ranks,
            spans,
        })
    }

    /// Where other processes attach.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Ranks the region was laid out for.
    pub fn ranks(&self) -> u32 {
        self.ranks
    }

    /// Gives `generation` up: every member that waits, now or later, returns
    /// [`CollectiveError::Aborted`] naming `lost`. A generation already passed is left alone.
    pub fn abort(&self, generation: u32, lost: &[u32]) {
        self.abort_mask(generation, mask(lost));
    }

    /// How far `rank` has come.
    ///
    /// # Errors
    /// [`CollectiveError::NoSuchRank`].
    pub fn progress(&self, rank: u32) -> Result<Progress, CollectiveError> {
        let slot = self.slot(rank)?;
        Ok(Progress {
            pid: slot.pid.load(Ordering::Acquire),
            generation: slot.generation.load(Ordering::Acquire),
            arrived: slot.arrived.load(Ordering::Acquire),
            done: slot.done.load(Ordering::Acquire),
        })
    }

    pub(super) fn abort_mask(&self, generation: u32, lost: u64) {
        let header = &self.control().header;
        header.lost.fetch_or(lost, Ordering::SeqCst);
        if header.aborted.fetch_max(generation, Ordering::SeqCst) < generation {
            for slot in &self.control().slots[..self.ranks as usize] {
                for word in [&slot.generation, &slot.arrived, &slot.done] {
                    super::wait::wake(word);
                }
            }
        }
    }

    /// Whether `generation` was given up.
    pub(super) fn aborted(&self, generation: u32) -> bool {
        self.control().header.aborted.load(Ordering::Acquire) >= generation
    }

    pub(super) fn lost(&self) -> u64 {
        self.control().header.lost.load(Ordering::Acquire)
    }

    /// A rank that takes part again is not lost.
    pub(super) fn found(&self, rank: u32) {
        let bit = 1u64 << (rank % RANKS_MAX);
        self.control().header.lost.fetch_and(!bit, Ordering::SeqCst);
    }

    pub(super) fn slot(&self, rank: u32) -> Result<&Slot, CollectiveError> {
        if rank >= self.ranks {
            return Err(CollectiveError::NoSuchRank {
                rank,
                ranks: self.ranks,
            });
        }
        Ok(&self.control().slots[rank as usize])
    }

    pub(super) fn buckets(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn floats(&self, bucket: usize) -> Result<usize, CollectiveError> {
        Ok(self.span(bucket)?.floats)
    }

    /// Start of `rank`'s input: page-aligned, `floats(bucket)` long.
    pub(super) fn input(&self, bucket: usize, rank: u32) -> Result<*mut f32, CollectiveError> {
        self.buffer(bucket, rank, 0)
    }

    /// Start of `rank`'s output: page-aligned, `floats(bucket)` long.
    pub(super) fn output(&self, bucket: usize, rank: u32) -> Result<*mut f32, CollectiveError> {
        self.buffer(bucket, rank, 1)
    }

    /// Allocates `rank`'s buffers now and on the caller's memory node, so that a lack of memory
    /// is an error here rather than a signal during the load.
    ///
    /// # Errors
    /// [`CollectiveError::Io`] when the memory is not there.
    pub(super) fn populate(&self, rank: u32) -> Result<(), CollectiveError> {
        for span in &self.spans {
            let from = span.start + 2 * span.stride * u64::from(rank);
            self.advise_populate(from, 2 * span.stride)?;
        }
        Ok(())
    }

    /// Maps everybody's buffers, so that the first reduction meets no page faults.
    pub(super) fn populate_all(&self) -> Result<(), CollectiveError> {
        self.advise_populate(0, self.map.len() as u64)
    }

    fn advise_populate(&self, from: u64, len: u64) -> Result<(), CollectiveError> {
        #[cfg(target_os = "linux")]
        match self
            .map
            .advise_range(Advice::PopulateWrite, from as usize, len as usize)
        {
            // Before Linux 5.14 the advice is unknown and pages come at first use.
            Err(e) if e.raw_os_error() != Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                return Err(io("not enough memory for", &self.path)(e));
            }
            _ => (),
        }
        Ok(())
    }

    fn span(&self, bucket: usize) -> Result<&Span, CollectiveError> {
        self.spans
            .get(bucket)
            .ok_or(CollectiveError::UnknownBucket {
                bucket,
                buckets: self.spans.len(),
            })
    }

    fn buffer(&self, bucket: usize, rank: u32, side: u64) -> Result<*mut f32, CollectiveError> {
        let span = self.span(bucket)?;
        self.slot(rank)?;
        let offset = span.start + span.stride * (2 * u64::from(rank) + side);
        // SAFETY: `lay_out` placed this buffer inside the mapping, whose length was checked.
        Ok(unsafe { self.map.as_mut_ptr().add(offset as usize) }.cast())
    }

    fn control(&self) -> &Control {
        // SAFETY: the mapping is at least `DATA_START` long, page-aligned and lives as long as `self`;
        // `Control` consists of atomics, for which every bit pattern is valid.
        unsafe { &*self.map.as_ptr().cast::<Control>() }
    }

    fn begin(
        file: File,
        path: PathBuf,
        (ranks, bucket_bytes): (u32, &[u64]),
        spans: Vec<Span>,
        bytes: u64,
    ) -> Result<Self, CollectiveError> {
        let region = Self {
            map: map(&file, &path, bytes)?,
            _file: file,
            path,
            remove: false,
            ranks,
            spans,
        };
        let header = &region.control().header;
        header.version.store(VERSION, Ordering::Relaxed);
        header.ranks.store(ranks, Ordering::Relaxed);
        header
            .layout
            .store(layout_digest(ranks, bucket_bytes), Ordering::Relaxed);
        // Last, so that an unfinished region is not taken for one.
        header.magic.store(MAGIC, Ordering::Release);
        Ok(region)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.remove {
            // Nothing to tell anybody here: the file is gone or the folder is no longer writable.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Set of ranks as a mask; ranks that no region can have are left out.
pub(super) fn mask(ranks: &[u32]) -> u64 {
    ranks
        .iter()
        .filter(|&&r| r < RANKS_MAX)
        .fold(0, |mask, r| mask | 1 << r)
}

/// The ranks of a mask, ascending.
pub(super) fn ranks_of(mask: u64) -> Vec<u32> {
    (0..RANKS_MAX).filter(|r| mask >> r & 1 == 1).collect()
}

fn io<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(std::io::Error) -> CollectiveError + 'a {
    move |source| CollectiveError::Io {
        what,
        path: path.into(),
        source,
    }
}

fn map(file: &File, path: &Path, bytes: u64) -> Result<MmapRaw, CollectiveError> {
    MmapOptions::new()
        .len(bytes as usize)
        .map_raw(file)
        .map_err(io("cannot map", path))
}

/// Reads the header through the file, before anything is mapped.
fn confirm(
    file: &mut File,
    path: &Path,
    ranks: u32,
    bucket_bytes: &[u64],
) -> Result<(), CollectiveError> {
    let mut head = [0u8; 24];
    let mut got = 0;
    while got < head.len() {
        match file
            .read(&mut head[got..])
            .map_err(io("cannot read", path))?
        {
            0 => {
                return Err(CollectiveError::Truncated {
                    path: path.into(),
                    len: got as u64,
                    need: DATA_START,
                });
            }
            n => got += n,
        }
    }
    // Native byte order: a region never leaves its machine.
    let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let long = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&head[at..at + 8]);
        u64::from_ne_bytes(bytes)
    };
    let (magic, version, found, layout) = (long(0), word(8), word(12), long(16));
    let path = || path.to_path_buf();
    if magic != MAGIC {
        return Err(CollectiveError::NotARegion {
            path: path(),
            found: magic,
        });
    }
    if version != VERSION {
        return Err(CollectiveError::Version {
            path: path(),
            found: version,
            expected: VERSION,
        });
    }
    if found != ranks {
        return Err(CollectiveError::RanksDiffer {
            path: path(),
            found,
            expected: ranks,
        });
    }
    let expected = layout_digest(ranks, bucket_bytes);
    if layout != expected {
        return Err(CollectiveError::LayoutDiffers {
            path: path(),
            found: layout,
            expected,
        });
    }
    Ok(())
}

fn lay_out(ranks: u32, bucket_bytes: &[u64]) -> Result<(Vec<Span>, u64), CollectiveError> {
    if !(1..=RANKS_MAX).contains(&ranks) {
        return Err(CollectiveError::RankCount {
            ranks,
            max: RANKS_MAX,
        });
    }
    let mut end = DATA_START;
    let mut spans = Vec::with_capacity(bucket_bytes.len());
    for (bucket, &bytes) in bucket_bytes.iter().enumerate() {
        if bytes == 0 || bytes % 4 != 0 {
            return Err(CollectiveError::BucketSize { bucket, bytes });
        }
        let next = || {
            let stride = bytes.checked_next_multiple_of(BUFFER_ALIGN)?;
            let all = stride.checked_mul(2 * u64::from(ranks))?;
            let next = end.checked_add(all).filter(|&n| n <= isize::MAX as u64)?;
            Some((stride, next))
        };
        let (stride, next) = next().ok_or(CollectiveError::TooLarge {
            ranks,
            buckets: bucket_bytes.len(),
        })?;
        spans.push(Span {
            start: end,
            stride,
            floats: (bytes / 4) as usize,
        });
        end = next;
    }
    Ok((spans, end))
}

/// FNV-1a over version, ranks and bucket sizes.
fn layout_digest(ranks: u32, bucket_bytes: &[u64]) -> u64 {
    [u64::from(VERSION), u64::from(ranks)]
        .iter()
        .chain(bucket_bytes)
        .flat_map(|word| word.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}
