//! Bytes that nobody meant well, given to everything that reads bytes from outside.
//!
//! One function for each reader: it may refuse, it may accept, it must come back, and a refusal is
//! one clear line. The fuzz targets call them, and so does a short corpus with a fixed seed
//! (`tests/fuzz_corpus.rs`), so that a machine without a fuzzer tries them too.

use hallmark::protocol::{self, FromWorker, ToWorker};
use hallmark::sensor::Sensor;
use hallmark::sensor::replay::ReplaySensor;
use hallmark_profiles::profile as profiles;
use hallmark_results::frame::Frame;
use hallmark_results::standing::Standing;
use hallmark_results::stats::bootstrap::SplitMix64;
use hallmark_results::store::{JOURNAL, JournalReader};
use hallmark_results::verdict;
use sha2::{Digest, Sha256};
use std::io::Cursor;
use std::path::Path;
use std::sync::OnceLock;
use tempfile::TempDir;

/// Instants at which a replayed file is asked.
const ASKED_NS: [u64; 5] = [0, 1, 1_000_000_000, 1 << 50, u64::MAX];
/// The longest refusal that still is one clear line; the lists of what is known are long.
const REFUSAL_BYTES_MAX: usize = 8 << 10;

/// # Panics
/// The text of a refusal is not one bounded line.
fn refused(error: &dyn std::fmt::Display) {
    let line = error.to_string();
    assert!(
        !line.is_empty() && line.len() <= REFUSAL_BYTES_MAX,
        "{} bytes: {line:.200}",
        line.len()
    );
    assert!(
        !line.contains(['\n', '\r', '\u{1b}']),
        "not one clean line: {line:?}"
    );
}

/// A profile's text.
///
/// # Panics
/// A refusal is no clear line, or what was accepted has no digest.
pub fn profile(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match profiles::parse(text, "hostile.toml") {
        Ok(loaded) => assert_eq!(loaded.digest().len(), 64),
        Err(error) => refused(&error),
    }
}

/// The file of a journal.
///
/// # Panics
/// A refusal is no clear line, or the reader goes on after an error.
pub fn journal(bytes: &[u8]) {
    let folder = temporary();
    std::fs::write(folder.path().join(JOURNAL), bytes).expect("a temporary file can be written");
    let mut reader = match JournalReader::open(folder.path()) {
        Ok(reader) => reader,
        Err(error) => return refused(&error),
    };
    let mut read = 0_usize;
    let mut standing: Option<Standing> = None;
    while let Some(frame) = reader.next() {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                refused(&error);
                assert!(reader.next().is_none(), "the reader goes on after an error");
                break;
            }
        };
        read += 1;
        assert!(read <= bytes.len(), "more frames than bytes");
        if !account(&mut standing, &frame) {
            return;
        }
    }
    if let Some(standing) = standing {
        let verdict = verdict::judge(&standing);
        assert!(
            !verdict.findings.iter().any(|f| f.why.is_empty()),
            "a finding without a reason"
        );
    }
}

/// Whether the fold goes on.
fn account(standing: &mut Option<Standing>, frame: &Frame) -> bool {
    let taken = match standing {
        Some(standing) => standing.push(frame),
        None => Standing::open(frame).map(|opened| *standing = Some(opened)),
    };
    taken.inspect_err(|error| refused(error)).is_ok()
}

/// The payload of frames in a journal whose checks and chain are sound, so that what is behind them
/// is reached: `bytes` are payloads, each after its length (u16, little endian).
///
/// # Panics
/// As [`journal`].
pub fn record(bytes: &[u8]) {
    let mut rest = bytes;
    let mut payloads = Vec::new();
    while let Some((length, body)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(body.len());
        let (payload, after) = body.split_at(length);
        payloads.push(payload);
        rest = after;
    }
    journal(&chained(payloads));
}

/// A journal of these payloads, by the layout that its reader documents.
#[must_use]
pub fn chained<'a>(payloads: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = b"HMJOURN1\x01\0\0\0".to_vec();
    let check = |bytes: &[u8]| crc32c::crc32c(bytes).to_le_bytes();
    bytes.extend(check(&bytes));
    let mut chain = Sha256::digest(&bytes);
    for payload in payloads {
        chain = Sha256::new()
            .chain_update(chain)
            .chain_update(payload)
            .finalize();
        let mut header = (payload.len() as u32).to_le_bytes().to_vec();
        header.extend(check(payload));
        header.extend(chain);
        header.extend(check(&header));
        bytes.extend(header);
        bytes.extend(payload);
    }
    bytes
}

/// A CSV file to replay.
///
/// # Panics
/// A refusal is no clear line, or a reading has not one finite value or NaN for each series.
pub fn replay(bytes: &[u8]) {
    match ReplaySensor::parse(bytes, Path::new("hostile.csv")) {
        Err(error) => refused(&error),
        Ok(mut sensor) => {
            let series = sensor.describe().series.len();
            assert!(!sensor.as_found().is_empty());
            for now_ns in ASKED_NS {
                let values = sensor.read(now_ns).values;
                assert_eq!(values.len(), series);
                assert!(!values.iter().any(|value| value.is_infinite()));
            }
        }
    }
}

/// What comes over the pipe between a run and a worker, both ways.
///
/// # Panics
/// Messages never end.
pub fn message(bytes: &[u8]) {
    drain::<FromWorker>(bytes);
    drain::<ToWorker>(bytes);
}

fn drain<T: serde::de::DeserializeOwned>(bytes: &[u8]) {
    let mut pipe = Cursor::new(bytes);
    let mut read = 0_usize;
    while let Ok(Some(_)) = protocol::receive::<T>(&mut pipe) {
        read += 1;
        assert!(read <= bytes.len(), "more messages than bytes");
    }
}

/// `seed` with a few of the changes that break parsers: bits, bytes, lengths, cuts, repeats, and
/// words of the format itself.
#[must_use]
pub fn mutated(seed: &[u8], words: &[&[u8]], random: &mut SplitMix64) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let place = random.below(bytes.len() as u64 + 1) as usize;
        let length = random.below(16).min((bytes.len() - place) as u64) as usize;
        match random.below(8) {
            0 => bytes.truncate(place),
            1 => drop(bytes.drain(place..place + length)),
            2 => {
                let again = bytes[place..place + length].to_vec();
                bytes.splice(place..place, again);
            }
            3 | 4 => {
                let word = words[random.below(words.len() as u64) as usize];
                bytes.splice(place..place + length, word.iter().copied());
            }
            5 => {
                let extreme = [0x00, 0x7f, 0x80, 0xff][random.below(4) as usize];
                bytes[place..place + length].fill(extreme);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
    bytes
}

/// One folder a thread would do; one a process needs locks. It is written anew for each input.
fn temporary() -> TempDir {
    static MEMORY: OnceLock<bool> = OnceLock::new();
    let memory = Path::new("/dev/shm");
    // A disk would be the slowest part by far.
    let folder = if *MEMORY.get_or_init(|| memory.is_dir()) {
        TempDir::new_in(memory).or_else(|_| TempDir::new())
    } else {
        TempDir::new()
    };
    folder.expect("a temporary folder can be made")
}
