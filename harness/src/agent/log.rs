//! The log of a node: every report is here before it is sent, until the run's folder has it.
//!
//! It decides what an agent that was killed still knows: all reports up to the last whole one. It refuses a file that is
//! no log, a second agent on the same one, and a damaged report in the middle; an unfinished one at the end is cut. What
//! the run's folder has takes no room on the disk for long: days of a node's rows are tens of gigabytes.
//!
//! Layout, integers little-endian: magic "HMNODE02" | id u64 | reports given back u64 | where the next one begins u64,
//! then for each report, numbered from 1: length u32 | CRC-32C u32 | MessagePack. Reports that were given back are a hole.

use crate::protocol::codec::MESSAGE_MAX;
use crate::protocol::link::{Report, Said};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"HMNODE02";
const HEADER: u64 = 32;
/// Where the header tells of the hole.
const HOLE: u64 = 16;
/// Bytes that are given back to the disk together.
const GIVEN_BACK: u64 = 64 << 20;
const FRAME: u64 = 8;
const NAME: &str = "reports.hml";

/// A log that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} belongs to another agent that still runs", path.display())]
    Busy { path: PathBuf },
    #[error("{} is damaged at byte {offset}: {why}", path.display())]
    Damaged {
        path: PathBuf,
        offset: u64,
        why: String,
    },
}

/// The reports of one node.
#[derive(Debug)]
pub struct Log {
    file: File,
    path: PathBuf,
    id: u64,
    /// Where the reports begin that may still have to be sent, oldest first.
    starts: VecDeque<u64>,
    /// Reports before those.
    forgotten: u64,
    /// Up to where the disk has its room back, and how many bytes that may lag.
    given_back: u64,
    give_back: u64,
    end: u64,
}

impl Log {
    /// Opens the log in `folder`, or begins one; `fresh` is the id that a new one gets.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(folder: &Path, fresh: u64) -> Result<Self, LogError> {
        let path = folder.join(NAME);
        let io = |source| LogError::Io {
            path: path.clone(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(io)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(LogError::Busy { path }),
            Err(std::fs::TryLockError::Error(e)) => return Err(io(e)),
        }
        let length = file.metadata().map_err(io)?.len();
        let mut header = [0; HEADER as usize];
        if length < HEADER {
            header[..8].copy_from_slice(MAGIC);
            header[8..16].copy_from_slice(&fresh.to_le_bytes());
            header[24..].copy_from_slice(&HEADER.to_le_bytes());
            file.set_len(0).map_err(io)?;
            file.write_all(&header).map_err(io)?;
        } else {
            file.read_exact(&mut header).map_err(io)?;
        }
        let damaged = |offset: u64, why: &str| LogError::Damaged {
            path: path.clone(),
            offset,
            why: why.to_owned(),
        };
        if header[..8] != *MAGIC {
            return Err(damaged(0, "these are not the first bytes of a node's log"));
        }
        let length = length.max(HEADER);
        let begin = u64_at(&header[24..]);
        if !(HEADER..=length).contains(&begin) {
            return Err(damaged(HOLE, "its first report lies outside of it"));
        }
        let mut log = Self {
            id: u64_at(&header[8..]),
            file,
            path: path.clone(),
            starts: VecDeque::new(),
            forgotten: u64_at(&header[16..]),
            given_back: begin,
            give_back: GIVEN_BACK,
            end: begin,
        };
        while let Some(next) = log.whole(log.end, length)? {
            log.starts.push_back(log.end);
            log.end = next;
        }
        log.file.set_len(log.end).map_err(io)?;
        Ok(log)
    }

    /// Where the report at `offset` ends; `None` where none or only part of one is left.
    fn whole(&self, offset: u64, length: u64) -> Result<Option<u64>, LogError> {
        if length - offset < FRAME {
            return Ok(None);
        }
        let head = self.bytes(offset, FRAME as usize)?;
        let size = u32_at(&head);
        let next = offset + FRAME + u64::from(size);
        if size == 0 || size as usize > MESSAGE_MAX || next > length {
            // A length that was never finished, or whose report was not; a power cut leaves zeros.
            return Ok(None);
        }
        let body = self.bytes(offset + FRAME, size as usize)?;
        match crc32c::crc32c(&body) == u32_at(&head[4..]) {
            true => Ok(Some(next)),
            // Only the last one can be unfinished; a power cut may leave zeros from its middle on.
            false if self.is_zero(next, length)? => Ok(None),
            false => Err(LogError::Damaged {
                path: self.path.clone(),
                offset,
                why: "a report's bytes do not match their check".to_owned(),
            }),
        }
    }

    /// Whether nothing but zeros is left from `offset` to `length`.
    fn is_zero(&self, mut offset: u64, length: u64) -> Result<bool, LogError> {
        while offset < length {
            let count = (length - offset).min(1 << 16);
            if self.bytes(offset, count as usize)?.iter().any(|b| *b != 0) {
                return Ok(false);
            }
            offset += count;
        }
        Ok(true)
    }

    fn io(&self, source: std::io::Error) -> LogError {
        LogError::Io {
            path: self.path.clone(),
            source,
        }
    }

    fn bytes(&self, offset: u64, count: usize) -> Result<Vec<u8>, LogError> {
        let mut bytes = vec![0; count];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| self.io(e))?;
        Ok(bytes)
    }

    /// Tells this log from any other.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Number of the last report; 0 before the first.
    pub fn last(&self) -> u64 {
        self.forgotten + self.starts.len() as u64
    }

    /// Number of the oldest report that is not forgotten; of the next one where all are.
    pub fn oldest(&self) -> u64 {
        self.forgotten + 1
    }

    /// Appends a report; gives its number.
    ///
    /// # Errors
    /// [`LogError`]; the report is then not in the log, and nothing of it either.
    pub fn append(&mut self, said: Said) -> Result<u64, LogError> {
        let number = self.last() + 1;
        let body = rmp_serde::to_vec_named(&Report { number, said })
            .map_err(|e| self.io(std::io::Error::other(e)))?;
        if body.len() > MESSAGE_MAX {
            let long = format!(
                "a report of {} bytes; {MESSAGE_MAX} are allowed",
                body.len()
            );
            return Err(self.io(std::io::Error::other(long)));
        }
        let mut bytes = Vec::with_capacity(body.len() + FRAME as usize);
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(crc32c::crc32c(&body).to_le_bytes());
        bytes.extend(body);
        let written = self
            .file
            .seek(SeekFrom::Start(self.end))
            .and_then(|_| self.file.write_all(&bytes));
        if let Err(error) = written {
            // What was written of it would look like damage once more is written behind it.
            let _ = self.file.set_len(self.end);
            return Err(self.io(error));
        }
        self.starts.push_back(self.end);
        self.end += bytes.len() as u64;
        Ok(number)
    }

    /// A report by its number; `None` for one that is not there yet or was forgotten.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn read(&self, number: u64) -> Result<Option<Report>, LogError> {
        let place = number.checked_sub(self.forgotten + 1);
        let Some(&start) = place.and_then(|p| self.starts.get(p as usize)) else {
            return Ok(None);
        };
        let head = self.bytes(start, FRAME as usize)?;
        let body = self.bytes(start + FRAME, u32_at(&head) as usize)?;
        let report = rmp_serde::from_slice(&body).map_err(|e| LogError::Damaged {
            path: self.path.clone(),
            offset: start,
            why: e.to_string(),
        })?;
        Ok(Some(report))
    }

    /// The reports from a number on that fit into `bytes`, and the first in any case; none where it is not there.
    ///
    /// # Errors
    /// [`LogError`] of the first one.
    pub fn read_from(&self, number: u64, bytes: u64) -> Result<Vec<Report>, LogError> {
        let place = |number: u64| number.checked_sub(self.forgotten + 1);
        let ends = |number: u64| {
            let next = place(number + 1).and_then(|p| self.starts.get(p as usize));
            *next.unwrap_or(&self.end)
        };
        let mut reports: Vec<Report> = self.read(number)?.into_iter().collect();
        let begun = place(number).and_then(|p| self.starts.get(p as usize));
        let limit = begun.map_or(0, |begun| begun + bytes);
        for number in number + 1.. {
            if reports.is_empty() || number > self.last() || ends(number) > limit {
                break;
            }
            match self.read(number) {
                Ok(Some(report)) => reports.push(report),
                _ => break,
            }
        }
        Ok(reports)
    }

    /// Whether it holds what belongs into the record and is not known to be there.
    pub fn owes(&self) -> bool {
        let open = self.oldest()..=self.last();
        open.into_iter().any(|number| match self.read(number) {
            Ok(report) => report.is_some_and(|r| r.said.is_for_the_record()),
            Err(_) => true,
        })
    }

    /// Removes the file, and its folder where nothing else is in it.
    pub fn remove(&self) {
        // Whoever has removed them before was right as well.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.path.parent().map(std::fs::remove_dir);
    }

    /// Reports up to `number` need not be sent again.
    pub fn forget(&mut self, number: u64) {
        while self.forgotten < number && self.starts.pop_front().is_some() {
            self.forgotten += 1;
        }
        let begin = *self.starts.front().unwrap_or(&self.end);
        if begin - self.given_back >= self.give_back {
            self.given_back = begin;
            // A disk that takes or gives nothing now may the next time; until then the log is as large as it was.
            let _ = self.punch(begin);
        }
    }

    /// Gives the room of forgotten reports back to the disk. The header is first: whoever opens the log finds a report
    /// where it points to, whether or not the hole was made. The hole begins where the first one did: what an earlier try
    /// or a killed agent has left is in it.
    fn punch(&mut self, to: u64) -> std::io::Result<()> {
        let mut hole = self.forgotten.to_le_bytes().to_vec();
        hole.extend(to.to_le_bytes());
        self.file.seek(SeekFrom::Start(HOLE))?;
        self.file.write_all(&hole)?;
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::FallocateFlags;
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&self.file, flags, HEADER, to - HEADER)?;
        }
        Ok(())
    }
}

fn u32_at(bytes: &[u8]) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[..4]);
    u32::from_le_bytes(four)
}

fn u64_at(bytes: &[u8]) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(device: u32) -> Said {
        let why = format!("{device} went");
        Said::Gone { device, why }
    }

    #[test]
    fn reports_are_read_as_many_as_fit_and_one_in_any_case() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 7).unwrap();
        for i in 0..5 {
            log.append(gone(i)).unwrap();
        }
        let numbers = |log: &Log, from, bytes| {
            let read = log.read_from(from, bytes).unwrap();
            read.iter().map(|r| r.number).collect::<Vec<_>>()
        };
        let each = log.starts[1] - log.starts[0];
        assert_eq!(numbers(&log, 1, 0), [1]);
        assert_eq!(numbers(&log, 1, 3 * each), [1, 2, 3]);
        assert_eq!(numbers(&log, 2, 3 * each - 1), [2, 3]);
        assert_eq!(numbers(&log, 4, 1 << 20), [4, 5]);
        assert_eq!(numbers(&log, 6, 1 << 20), [0_u64; 0]);
        log.forget(3);
        assert_eq!(numbers(&log, 3, 1 << 20), [0_u64; 0]);
        assert_eq!(numbers(&log, 4, 1 << 20), [4, 5]);
    }

    #[test]
    fn a_killed_agents_log_goes_on_with_the_next_number_and_without_the_unfinished_report() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 7).unwrap();
        let numbers = (0..5).map(|i| log.append(gone(i)).unwrap());
        assert_eq!(numbers.collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        let whole = log.end;
        drop(log);
        let path = folder.path().join(NAME);
        let bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() as u64 - {
            let log = Log::open(folder.path(), 8).unwrap();
            *log.starts.back().unwrap()
        };
        for cut in 1..last {
            std::fs::write(&path, &bytes[..bytes.len() - cut as usize]).unwrap();
            let mut log = Log::open(folder.path(), 9).unwrap();
            assert_eq!((log.id(), log.last()), (7, 4), "{cut}");
            assert_eq!(log.append(gone(4)).unwrap(), 5);
            assert_eq!(log.end, whole);
            assert_eq!(log.read(5).unwrap().unwrap().said, gone(4));
        }
    }

    #[test]
    fn a_report_that_was_changed_is_damage_and_no_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 7).unwrap();
        for i in 0..3 {
            log.append(gone(i)).unwrap();
        }
        let at = log.starts[1] + FRAME + 3;
        drop(log);
        let path = folder.path().join(NAME);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at as usize] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let told = Log::open(folder.path(), 7).unwrap_err().to_string();
        assert!(told.contains("is damaged at byte"), "{told}");
    }

    #[test]
    fn what_is_kept_elsewhere_is_forgotten_and_one_log_has_one_agent() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 7).unwrap();
        for i in 0..4 {
            log.append(gone(i)).unwrap();
        }
        log.forget(3);
        assert_eq!((log.last(), log.read(3).unwrap()), (4, None));
        assert_eq!(log.read(4).unwrap().unwrap().number, 4);
        assert_eq!(log.read(5).unwrap(), None);
        assert!(log.owes());
        log.forget(99);
        assert!(!log.owes());
        assert_eq!(log.append(gone(9)).unwrap(), 5);
        assert!(matches!(
            Log::open(folder.path(), 7),
            Err(LogError::Busy { .. })
        ));
    }

    #[test]
    fn forgotten_reports_give_their_room_back_and_a_killed_agent_goes_on_behind_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let mut log = Log::open(folder.path(), 7).unwrap();
        log.give_back = 64 << 10;
        let said = |device| Said::Gone {
            device,
            why: "w".repeat(5_000),
        };
        let mut most = 0;
        for i in 1..=2_000 {
            assert_eq!(log.append(said(i)).unwrap(), u64::from(i));
            log.forget(u64::from(i.saturating_sub(3)));
            #[cfg(target_os = "linux")]
            {
                use std::os::unix::fs::MetadataExt;
                most = most.max(std::fs::metadata(&path).unwrap().blocks() * 512);
            }
        }
        assert!(most < 1 << 20, "{most} bytes of ten million");
        drop(log);
        let mut log = Log::open(folder.path(), 8).unwrap();
        // Of those that are told again none is missing, and the numbers go on.
        assert_eq!((log.id(), log.last()), (7, 2_000));
        assert!(
            log.oldest() > 1_900 && log.oldest() <= 1_998,
            "{}",
            log.oldest()
        );
        for number in log.oldest()..=2_000 {
            let told = log.read(number).unwrap().unwrap();
            assert_eq!((told.number, told.said), (number, said(number as u32)));
        }
        assert_eq!(log.append(gone(1)).unwrap(), 2_001);
        drop(log);
        let mut bytes = std::fs::read(&path).unwrap();
        let length = bytes.len();
        // What a power cut leaves behind the last whole report.
        bytes.extend([0; 4_096]);
        std::fs::write(&path, &bytes).unwrap();
        let log = Log::open(folder.path(), 9).unwrap();
        assert_eq!((log.last(), log.end), (2_001, length as u64));
        let last = *log.starts.back().unwrap() as usize;
        drop(log);
        for kept in [1, 4, 6, 8, 12, length - last - 1] {
            let mut torn = bytes.clone();
            torn[last + kept..].fill(0);
            std::fs::write(&path, &torn).unwrap();
            let log = Log::open(folder.path(), 9).unwrap();
            assert_eq!((log.last(), log.end), (2_000, last as u64), "{kept}");
        }
        bytes[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let told = Log::open(folder.path(), 9).unwrap_err().to_string();
        assert!(
            told.contains("its first report lies outside of it"),
            "{told}"
        );
    }

    #[test]
    fn only_what_a_record_needs_is_owed_and_a_log_that_owes_nothing_goes_with_its_folder() {
        let keep = tempfile::tempdir().unwrap();
        let folder = keep.path().join("node");
        let mut log = Log::open(&folder, 7).unwrap();
        log.append(gone(0)).unwrap();
        let (generation, outcome) = (1, Err("it died".to_owned()));
        let bridge = Said::Bridge {
            generation,
            outcome,
        };
        log.append(bridge).unwrap();
        log.append(Said::Last).unwrap();
        log.forget(1);
        assert!(log.owes(), "a bridge's end is an event");
        log.forget(2);
        assert!(!log.owes(), "that it was the last word is none");
        log.remove();
        assert!(!folder.exists());
    }
}
