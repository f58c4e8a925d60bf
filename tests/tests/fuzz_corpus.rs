//! A short corpus with a fixed seed through every reader of outside bytes: no panic, no hang, and
//! every refusal one clear line. The fuzz targets in `fuzz/` call the same functions for longer.
#![expect(
    clippy::unwrap_used,
    reason = "a test, and what it is built of, fails by a panic"
)]

#[path = "record/run.rs"]
mod run;

use hallmark::protocol::{self, FromWorker, ToWorker};
use hallmark_profiles::profile::BUILT_IN;
use hallmark_profiles::workload::Parts;
use hallmark_results::stats::bootstrap::SplitMix64;
use hallmark_results::store::{JOURNAL, JournalWriter};
use hallmark_tests::hostile;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tempfile::TempDir;

/// Tries each mutant; a panic is reported with the bytes that caused it.
fn corpus(seed: u64, mutants: usize, seeds: &[Vec<u8>], words: &[&[u8]], read: fn(&[u8])) {
    let mut random = SplitMix64::new(seed);
    for bytes in seeds {
        read(bytes);
    }
    for number in 0..mutants {
        let chosen = &seeds[random.below(seeds.len() as u64) as usize];
        let bytes = hostile::mutated(chosen, words, &mut random);
        let outcome = catch_unwind(AssertUnwindSafe(|| read(&bytes)));
        assert!(
            outcome.is_ok(),
            "seed {seed}, mutant {number}: {:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

#[test]
fn no_profile_breaks_its_reader() {
    let seeds: Vec<_> = BUILT_IN
        .iter()
        .map(|(_, text)| text.as_bytes().to_vec())
        .collect();
    let words: [&[u8]; 12] = [
        b"\"0 s\"",
        b"\"-1 min\"",
        b"\"1e400 W\"",
        b"nan",
        b"inf",
        b"[[criteria]]\n",
        b"= 18446744073709551616",
        b"\"matmul_rate\"",
        b"[",
        b"{",
        b"\"\"\"",
        b"\xc3\xa9",
    ];
    corpus(1, 3_000, &seeds, &words, hostile::profile);
}

#[test]
fn no_file_breaks_its_replay() {
    let seeds = [
        b"at_s,power_draw.average (W),rack_density.rack-7 (kW)\n0,612.5,28.1\n1,,28.3\n2,613,\n"
            .to_vec(),
        b"at_s,duty\r\n0,1\r\n0.1,0.5\r\n".to_vec(),
    ];
    let words: [&[u8]; 12] = [
        b",",
        b"\n",
        b"\r\n",
        b"1e308",
        b"-1",
        b"nan",
        b"(kW)",
        b".",
        b"at_s",
        b"\xff",
        b"\xc2\xb5",
        b"99999999999999999999",
    ];
    corpus(2, 20_000, &seeds, &words, hostile::replay);
}

#[test]
fn no_message_breaks_the_pipe() {
    let mut seeds = Vec::new();
    let mut keep = |bytes: Vec<u8>| seeds.push(bytes);
    let mut worker = Vec::new();
    protocol::send(
        &mut worker,
        &FromWorker::Idle {
            segment: 1,
            next_seq: 7,
        },
    )
    .unwrap();
    let broken = FromWorker::Broken {
        segment: 0,
        next_seq: 1,
        why: "peer gone".to_owned(),
        missing: vec![1, 2],
    };
    protocol::send(&mut worker, &broken).unwrap();
    keep(worker);
    let mut parent = Vec::new();
    let order = protocol::Order {
        segment: 0,
        step: 0,
        parts: Parts {
            gemms: true,
            buckets: false,
            optimizer: true,
            memory: false,
            within_node: false,
        },
        from_ns: 0,
        until_ns: 1,
        coupled: true,
        first_seq: 0,
        pulse: None,
    };
    protocol::send(&mut parent, &ToWorker::Start(order)).unwrap();
    protocol::send(
        &mut parent,
        &ToWorker::Regroup {
            generation: 1,
            members: vec![0],
            patience: std::time::Duration::from_secs(4),
        },
    )
    .unwrap();
    keep(parent);
    // MessagePack's long forms: a length that is far more than what follows.
    let words: [&[u8]; 6] = [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\x7f\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc0",
        b"\x91\x91\x91\x91",
    ];
    corpus(3, 20_000, &seeds, &words, hostile::message);
}

/// Frames as the journal encodes them.
fn payloads() -> Vec<Vec<u8>> {
    let frames = run::frames(12);
    frames
        .iter()
        .map(|frame| rmp_serde::to_vec_named(frame).unwrap())
        .collect()
}

/// As [`hostile::record`] takes them.
fn listed(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for payload in payloads {
        bytes.extend(u16::try_from(payload.len()).unwrap().to_le_bytes());
        bytes.extend(payload);
    }
    bytes
}

#[test]
fn what_is_chained_here_is_what_the_journal_writes() {
    let folder = TempDir::new().unwrap();
    let mut writer = JournalWriter::create(folder.path()).unwrap();
    for frame in run::frames(3) {
        writer.append(&frame).unwrap();
    }
    writer.close().unwrap();
    let written = std::fs::read(folder.path().join(JOURNAL)).unwrap();
    let frames: Vec<_> = run::frames(3)
        .iter()
        .map(|f| rmp_serde::to_vec_named(f).unwrap())
        .collect();
    assert!(
        hostile::chained(frames.iter().map(Vec::as_slice)) == written,
        "the layouts differ"
    );
}

#[test]
fn no_journal_breaks_its_reader() {
    let frames = payloads();
    let seeds = [
        hostile::chained(frames.iter().map(Vec::as_slice)),
        hostile::chained([]),
    ];
    let words: [&[u8]; 3] = [b"HMJOURN1", b"\xff\xff\xff\xff", b"\0\0\0\0"];
    corpus(4, 1_500, &seeds, &words, hostile::journal);
}

#[test]
fn no_sound_chain_of_unsound_frames_breaks_the_fold_or_the_verdict() {
    let frames = payloads();
    let opened = listed(&frames[..1]);
    let words: [&[u8]; 8] = [
        b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xcb\x7f\xf0\0\0\0\0\0\0",
        b"\xcb\x7f\xf8\0\0\0\0\0\0",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc0",
        b"\0",
        b"\xce\xff\xff\xff\xff",
    ];
    let mut random = SplitMix64::new(5);
    hostile::record(&listed(&frames));
    for number in 0..3_000 {
        // The first frame stays sound: its digest would stop every other change at once.
        let mut changed = frames[1..].to_vec();
        for _ in 0..=random.below(3) {
            let chosen = random.below(changed.len() as u64) as usize;
            match random.below(4) {
                0 => drop(changed.remove(chosen)),
                1 => changed.insert(chosen, changed[chosen].clone()),
                _ => changed[chosen] = hostile::mutated(&changed[chosen], &words, &mut random),
            }
            changed
                .iter_mut()
                .for_each(|payload| payload.truncate(usize::from(u16::MAX)));
        }
        let bytes = [opened.clone(), listed(&changed)].concat();
        let outcome = catch_unwind(AssertUnwindSafe(|| hostile::record(&bytes)));
        assert!(outcome.is_ok(), "seed 5, mutant {number}");
    }
}
