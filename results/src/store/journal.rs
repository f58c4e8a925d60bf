//! The journal: frames appended while a run goes on, chained so that no one can be taken out or changed.
//!
//! Decides what is on disk after a crash: all frames up to the last [`JournalWriter::sync`], whole, and
//! perhaps more. A write that fails is cut back to the last whole frame, so that more room later lets the
//! run go on. It refuses a second writer, frames above [`FRAME_MAX`], and a frame that could not be sealed.
//!
//! Layout, integers little-endian:
//! ```text
//! file   = magic "HMJOURN1" | version u32 | CRC-32C of those 12 bytes u32 | frame*
//! frame  = length u32 | CRC-32C of payload u32 | chain 32 B | CRC-32C of those 40 bytes u32 | payload
//! chain  = SHA-256(previous chain | payload); before the first frame SHA-256 of the file's first 16 bytes
//! payload = MessagePack of a frame, fields by name
//! ```
//! The header's own check tells a damaged length from a frame that was never finished: only the latter is
//! a torn tail. A tail is also torn where a power cut left a hole: zeros from a multiple of 512 B to the end.

use super::error::{Operation, StoreError};
use super::shape::{Declared, Shape};
use super::sync_folder;
use crate::frame::Frame;
use crate::plan::hex;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The journal's file name in a run's folder.
pub const JOURNAL: &str = "journal.hmj";
/// Largest payload of one frame, B.
pub const FRAME_MAX: usize = 64 << 20;
/// Version of the journal's layout; that of the frames is in the opening frame.
pub const JOURNAL_VERSION: u32 = 1;
/// Room that must be there before a run begins, B.
const ROOM_AT_START: usize = 1 << 20;
/// A buffer that grew beyond this for one large frame is given back, B.
const BUFFER_KEPT: usize = 4 << 20;
/// Between two tries to lock a journal, and how many of them: half a second.
const LOCK_LOOK: Duration = Duration::from_millis(10);
const LOCK_LOOKS: u32 = 50;
const MAGIC: &[u8; 8] = b"HMJOURN1";
const FILE_HEADER: usize = 16;
const FRAME_HEADER: usize = 44;
/// Unit in which storage writes: a hole of a power cut begins at a multiple of it, B.
const SECTOR: u64 = 512;

type Chain = [u8; 32];

/// Writes one run's journal; the only one to do so while it lives.
#[derive(Debug)]
pub struct JournalWriter {
    file: File,
    path: PathBuf,
    /// End of the last whole frame.
    at: Mark,
    /// End of the last frame known to be durable.
    durable: Mark,
    /// Bytes beyond `at` may be in the file and have to be cut before anything else.
    dirty: bool,
    buffer: Vec<u8>,
    shape: Shape,
    /// The shape at the last sync, where a declaration has changed it since.
    durable_shape: Declared,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    bytes: u64,
    frames: u64,
    chain: Chain,
}

impl JournalWriter {
    /// Begins a run in `dir`, which is created where it is absent; the empty journal is durable on return.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where the folder holds a run, [`StoreError::DiskFull`] where not even 1 MiB
    /// is free, [`StoreError::ReadOnly`], [`StoreError::Io`].
    pub fn create(dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|e| StoreError::io(dir, Operation::Create, e))?;
        if dir.join(super::manifest::SEAL).exists() || dir.join(super::manifest::MANIFEST).exists()
        {
            return Err(StoreError::Exists(dir.to_path_buf()));
        }
        let path = dir.join(JOURNAL);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path);
        let file = opened.map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => StoreError::Exists(dir.to_path_buf()),
            _ => StoreError::io(&path, Operation::Create, e),
        })?;
        let begun = Self::begin(file, &path).and_then(|writer| sync_folder(dir).map(|()| writer));
        if begun.is_err() {
            // Nothing was recorded; a journal without a frame would only stand in the way of the next try.
            let _ = std::fs::remove_file(&path);
        }
        begun
    }

    fn begin(mut file: File, path: &Path) -> Result<Self, StoreError> {
        lock(&file, path)?;
        let header = file_header();
        // Written, not reserved: a quota or a file system that allocates late refuses here, not under load.
        // Zeros, so that a process killed here leaves a hole, which is a torn tail and no damage.
        let mut room = vec![0; ROOM_AT_START];
        room[..FILE_HEADER].copy_from_slice(&header);
        file.write_all(&room)
            .map_err(|e| StoreError::io(path, Operation::Write, e))?;
        file.sync_data()
            .map_err(|e| StoreError::io(path, Operation::Sync, e))?;
        let cut = file.set_len(FILE_HEADER as u64);
        cut.map_err(|e| StoreError::io(path, Operation::Truncate, e))?;
        file.sync_data()
            .map_err(|e| StoreError::io(path, Operation::Sync, e))?;
        let start = Mark {
            bytes: FILE_HEADER as u64,
            frames: 0,
            chain: Sha256::digest(header).into(),
        };
        let mut writer = Self::at(file, path, start, Shape::default());
        writer.dirty = true;
        Ok(writer)
    }

    fn at(file: File, path: &Path, mark: Mark, shape: Shape) -> Self {
        Self {
            file,
            path: path.to_path_buf(),
            at: mark,
            durable: mark,
            dirty: true,
            buffer: Vec::new(),
            durable_shape: shape.declared(),
            shape,
        }
    }

    /// Takes up the journal of a run that was killed: checks every frame, cuts what was left
    /// unfinished and goes on after it. Returns the writer and what was cut.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while its writer lives, [`StoreError::Damaged`] for anything but a torn tail.
    pub fn recover(dir: &Path) -> Result<(Self, Tail), StoreError> {
        let path = dir.join(JOURNAL);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let file = opened.map_err(|e| match e.kind() {
            ErrorKind::NotFound => StoreError::NoRun(dir.to_path_buf()),
            // To open for writing is to write, as far as the operator is concerned.
            _ => StoreError::io(&path, Operation::Write, e),
        })?;
        lock(&file, &path)?;
        let mut reader = JournalReader::open(dir)?;
        for frame in &mut reader {
            frame?;
        }
        let mut writer = Self::at(file, &path, reader.mark, reader.shape.clone());
        writer.cut_back()?;
        let synced = writer.file.sync_data();
        synced.map_err(|e| StoreError::io(&path, Operation::Sync, e))?;
        Ok((writer, reader.tail()))
    }

    /// Appends one frame. It is in the journal on return, and durable after the next [`Self::sync`].
    ///
    /// # Errors
    /// [`StoreError::Shape`] or [`StoreError::FrameTooLarge`] for a frame that cannot be kept;
    /// [`StoreError::DiskFull`] and other write errors, after which the journal ends with the frame
    /// before, and the next call tries anew.
    pub fn append(&mut self, frame: &Frame) -> Result<(), StoreError> {
        let payload = FRAME_HEADER;
        self.buffer.clear();
        self.buffer.resize(payload, 0);
        rmp_serde::encode::write_named(&mut self.buffer, frame)
            .map_err(|e| StoreError::Encode(e.to_string()))?;
        let bytes = self.buffer.len() - payload;
        if bytes > FRAME_MAX {
            self.buffer = Vec::new();
            return Err(StoreError::FrameTooLarge {
                bytes,
                limit: FRAME_MAX,
            });
        }
        let chain = next_chain(&self.at.chain, &self.buffer[payload..]);
        let header = FrameHeader {
            length: bytes as u32,
            payload_crc: crc32c::crc32c(&self.buffer[payload..]),
            chain,
        };
        self.buffer[..payload].copy_from_slice(&header.encode());
        self.cut_back()?;
        // After the cut, before the write: a frame that is refused for its shape must leave no trace,
        // and one whose write fails must not count as declared.
        let before = self.shape.declared();
        self.shape.check(frame)?;
        self.dirty = true;
        let written = self.file.write_all(&self.buffer);
        if let Err(e) = written {
            // The frame stays out: what was written of it is cut now, or before the next one.
            self.shape.back_to(before);
            let _ = self.cut_back();
            return Err(StoreError::io(&self.path, Operation::Write, e));
        }
        self.dirty = false;
        self.at = Mark {
            bytes: self.at.bytes + self.buffer.len() as u64,
            frames: self.at.frames + 1,
            chain,
        };
        if self.buffer.capacity() > BUFFER_KEPT {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Removes what a failed write may have left behind the last whole frame.
    fn cut_back(&mut self) -> Result<(), StoreError> {
        if !self.dirty {
            return Ok(());
        }
        let cut = self.file.set_len(self.at.bytes);
        cut.map_err(|e| StoreError::io(&self.path, Operation::Truncate, e))?;
        let end = self.file.seek(SeekFrom::Start(self.at.bytes));
        end.map_err(|e| StoreError::io(&self.path, Operation::Write, e))?;
        self.dirty = false;
        Ok(())
    }

    /// Makes all appended frames durable.
    ///
    /// # Errors
    /// [`StoreError::RolledBack`]: the system could not keep the frames since the last sync. What it
    /// holds of them is unknown, so they are cut, and the run can go on after the last durable one.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        if let Err(e) = self.file.sync_data() {
            let lost = self.at.frames - self.durable.frames;
            self.at = self.durable;
            self.shape.back_to(self.durable_shape);
            self.dirty = true;
            let _ = self.cut_back();
            return Err(StoreError::RolledBack {
                path: self.path.clone(),
                lost,
                source: Box::new(StoreError::io(&self.path, Operation::Sync, e)),
            });
        }
        self.durable = self.at;
        self.durable_shape = self.shape.declared();
        Ok(())
    }

    /// The chain over all frames so far, in hexadecimal.
    pub fn chain_head(&self) -> String {
        hex(&self.at.chain)
    }

    /// Frames in the journal.
    pub fn frames(&self) -> u64 {
        self.at.frames
    }

    /// Bytes of the journal.
    pub fn bytes(&self) -> u64 {
        self.at.bytes
    }

    /// Makes all frames durable and ends the writing; returns the chain's head.
    ///
    /// # Errors
    /// As [`Self::sync`].
    pub fn close(mut self) -> Result<String, StoreError> {
        self.cut_back()?;
        self.sync()?;
        Ok(self.chain_head())
    }
}

/// Whether the journal in `dir` has a writer that lives, here or on another machine that shares the file system.
pub fn is_written(dir: &Path) -> bool {
    let file = File::open(dir.join(JOURNAL));
    file.is_ok_and(|f| matches!(f.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Takes the run for this process, until the file is closed. Whoever only asks by [`is_written`] holds it for an instant,
/// and must not keep a run from its seal.
pub(super) fn lock(file: &File, path: &Path) -> Result<(), StoreError> {
    for _ in 0..LOCK_LOOKS {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_LOOK),
            Err(TryLockError::Error(e)) => return Err(StoreError::io(path, Operation::Lock, e)),
        }
    }
    Err(StoreError::Busy(path.to_path_buf()))
}

fn file_header() -> [u8; FILE_HEADER] {
    let mut header = [0; FILE_HEADER];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&JOURNAL_VERSION.to_le_bytes());
    let crc = crc32c::crc32c(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    header
}

fn next_chain(chain: &Chain, payload: &[u8]) -> Chain {
    let mut sha = Sha256::new();
    sha.update(chain);
    sha.update(payload);
    sha.finalize().into()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

struct FrameHeader {
    length: u32,
    payload_crc: u32,
    chain: Chain,
}

impl FrameHeader {
    fn encode(&self) -> [u8; FRAME_HEADER] {
        let mut bytes = [0; FRAME_HEADER];
        bytes[..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[8..40].copy_from_slice(&self.chain);
        let crc = crc32c::crc32c(&bytes[..40]);
        bytes[40..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` where the header's own check fails.
    fn decode(bytes: &[u8; FRAME_HEADER]) -> Option<Self> {
        if u32_at(bytes, 40) != crc32c::crc32c(&bytes[..40]) {
            return None;
        }
        let mut chain = [0; 32];
        chain.copy_from_slice(&bytes[8..40]);
        Some(Self {
            length: u32_at(bytes, 0),
            payload_crc: u32_at(bytes, 4),
            chain,
        })
    }
}

/// How a journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// With a whole frame.
    Whole,
    /// With `bytes` of a frame that was never finished, from byte `offset` on.
    Torn { offset: u64, bytes: u64 },
}

/// Reads a journal frame by frame, also while it is written, and checks each one.
///
/// It ends at the first error or at the end; then [`JournalReader::tail`] says how.
#[derive(Debug)]
pub struct JournalReader {
    file: BufReader<File>,
    path: PathBuf,
    length: u64,
    mark: Mark,
    tail: Tail,
    ended: bool,
    shape: Shape,
    payload: Vec<u8>,
}

impl JournalReader {
    /// Opens the journal in `dir` as long as it is now.
    ///
    /// # Errors
    /// [`StoreError::NoRun`] without one, [`StoreError::Version`] for a newer one,
    /// [`StoreError::Damaged`] where its first 16 bytes are not a journal's.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(JOURNAL);
        let file = File::open(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => StoreError::NoRun(dir.to_path_buf()),
            _ => StoreError::io(&path, Operation::Open, e),
        })?;
        let length = file
            .metadata()
            .map_err(|e| StoreError::io(&path, Operation::Read, e))?
            .len();
        let mut reader = Self {
            file: BufReader::with_capacity(1 << 20, file),
            path,
            length,
            mark: Mark {
                bytes: FILE_HEADER as u64,
                frames: 0,
                chain: Chain::default(),
            },
            tail: Tail::Whole,
            ended: false,
            shape: Shape::default(),
            payload: Vec::new(),
        };
        reader.start()?;
        Ok(reader)
    }

    fn start(&mut self) -> Result<(), StoreError> {
        if self.length < FILE_HEADER as u64 {
            return Err(StoreError::Empty {
                path: self.path.clone(),
            });
        }
        let mut header = [0; FILE_HEADER];
        self.read(&mut header)?;
        if header[..8] != *MAGIC {
            return Err(self.damaged(0, "these are not the first bytes of a journal"));
        }
        if u32_at(&header, 12) != crc32c::crc32c(&header[..12]) {
            return Err(self.damaged(8, "the header's check does not match"));
        }
        let version = u32_at(&header, 8);
        if version == 0 || version > JOURNAL_VERSION {
            return Err(StoreError::Version {
                path: self.path.clone(),
                found: version,
                known: JOURNAL_VERSION,
            });
        }
        self.mark.chain = Sha256::digest(header).into();
        Ok(())
    }

    /// How the journal ends; known once the iteration is over.
    pub fn tail(&self) -> Tail {
        self.tail
    }

    /// The chain over the frames read so far, in hexadecimal.
    pub fn chain_head(&self) -> String {
        hex(&self.mark.chain)
    }

    /// Frames read so far.
    pub fn frames(&self) -> u64 {
        self.mark.frames
    }

    /// Bytes of the journal when it was opened.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Byte at which the frames read so far end.
    pub fn bytes(&self) -> u64 {
        self.mark.bytes
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), StoreError> {
        let read = self.file.read_exact(into);
        read.map_err(|e| StoreError::io(&self.path, Operation::Read, e))
    }

    fn damaged(&self, offset: u64, why: impl Into<String>) -> StoreError {
        StoreError::Damaged {
            path: self.path.clone(),
            offset,
            why: why.into(),
        }
    }

    fn torn(&mut self) -> Option<Frame> {
        self.tail = Tail::Torn {
            offset: self.mark.bytes,
            bytes: self.length - self.mark.bytes,
        };
        None
    }

    fn step(&mut self) -> Result<Option<Frame>, StoreError> {
        let offset = self.mark.bytes;
        let left = self.length - offset;
        if left == 0 {
            return Ok(None);
        }
        if left < FRAME_HEADER as u64 {
            return Ok(self.torn());
        }
        let mut bytes = [0; FRAME_HEADER];
        self.read(&mut bytes)?;
        let Some(header) = FrameHeader::decode(&bytes) else {
            return self.hole_or(offset, "the frame's header does not match its check");
        };
        let length = header.length as usize;
        if length > FRAME_MAX {
            return Err(self.damaged(
                offset,
                format!("a frame of {length} bytes, {FRAME_MAX} are allowed"),
            ));
        }
        if (length + FRAME_HEADER) as u64 > left {
            return Ok(self.torn());
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(length, 0);
        self.read(&mut payload)?;
        if crc32c::crc32c(&payload) != header.payload_crc {
            return self.hole_or(offset, "the frame's bytes do not match their check");
        }
        let chain = next_chain(&self.mark.chain, &payload);
        if chain != header.chain {
            return Err(self.damaged(
                offset,
                "the chain breaks: a frame before was changed, moved or removed",
            ));
        }
        let decoded: Result<Frame, _> = rmp_serde::from_slice(&payload);
        let frame = decoded
            .map_err(|e| self.damaged(offset, format!("the frame cannot be decoded: {e}")))?;
        let checked = self.shape.check(&frame);
        checked.map_err(|e| self.damaged(offset, e.to_string()))?;
        self.payload = payload;
        self.mark = Mark {
            bytes: offset + (length + FRAME_HEADER) as u64,
            frames: self.mark.frames + 1,
            chain,
        };
        Ok(Some(frame))
    }

    /// A mismatch is a torn tail only where a power cut explains it: the file ends in a hole of
    /// zeros that begins inside this frame or before it, at a multiple of [`SECTOR`].
    fn hole_or(&mut self, offset: u64, why: &str) -> Result<Option<Frame>, StoreError> {
        // The frame's bytes before the hole are at most one frame long.
        let to = self.length.min(offset + (FRAME_HEADER + FRAME_MAX) as u64);
        let sought = self.file.seek(SeekFrom::Start(offset));
        sought.map_err(|e| StoreError::io(&self.path, Operation::Read, e))?;
        let mut data_end = offset;
        let mut at = offset;
        let mut piece = vec![0; 1 << 16];
        while at < self.length {
            let count = piece.len().min((self.length - at) as usize);
            self.read(&mut piece[..count])?;
            if let Some(last) = piece[..count].iter().rposition(|b| *b != 0) {
                data_end = at + last as u64 + 1;
            }
            if data_end > to {
                break;
            }
            at += count as u64;
        }
        let hole = data_end.next_multiple_of(SECTOR);
        if data_end <= to && hole + 16 <= self.length {
            return Ok(self.torn());
        }
        Err(self.damaged(offset, why))
    }
}

impl Iterator for JournalReader {
    type Item = Result<Frame, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.step().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
