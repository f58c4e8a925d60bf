//! A run's files under every kind of harm: killed at any byte, changed at any byte, a full disk, a second writer.
//!
//! Each promise: what was written comes back the same, or an error names the file; never a panic, never
//! a quiet acceptance.
#![expect(
    clippy::unwrap_used,
    reason = "a test, and what it is built of, fails by a panic"
)]

#[path = "record/declaring.rs"]
mod declaring;
#[path = "record/disk.rs"]
mod disk;
#[path = "record/reading.rs"]
mod reading;
#[path = "record/run.rs"]
mod run;
#[path = "record/sealing.rs"]
mod sealing;

use hallmark_results::frame::{Event, Frame, Samples, What};
use hallmark_results::standing::Standing;
use hallmark_results::store::seal::{Progress, Sealed, seal_telling, synthesize};
use hallmark_results::store::{
    Integrity, JOURNAL, JournalReader, JournalWriter, Record, StoreError, Tail, open_any, seal,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const HEADER: usize = 16;

fn journal(dir: &Path, frames: &[Frame]) -> String {
    let mut writer = JournalWriter::create(dir).unwrap();
    for frame in frames {
        writer.append(frame).unwrap();
    }
    writer.close().unwrap()
}

fn read_journal(dir: &Path) -> Result<(Vec<Frame>, Tail), StoreError> {
    let mut reader = JournalReader::open(dir)?;
    let frames = reader.by_ref().collect::<Result<Vec<_>, _>>()?;
    Ok((frames, reader.tail()))
}

/// Equal in every bit but for the kind of NaN, which compares unequal to itself.
fn same(a: &[Frame], b: &[Frame]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| format!("{a:?}") == format!("{b:?}"))
}

/// Where each frame of a journal's bytes begins, and the end.
fn offsets(bytes: &[u8]) -> Vec<usize> {
    let mut at = vec![HEADER];
    while let Some(length) = bytes.get(*at.last().unwrap()..).and_then(|b| b.get(..4)) {
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        at.push(at.last().unwrap() + 44 + length);
    }
    at
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| {
            (c >> 1) ^ if c & 1 == 1 { 0x82F6_3B78 } else { 0 }
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}

fn figures(frames: impl Iterator<Item = Frame>) -> String {
    let mut frames = frames.peekable();
    let mut standing = Standing::open(&frames.next().unwrap()).unwrap();
    for frame in frames {
        standing.push(&frame).unwrap();
    }
    told(&standing)
}

/// All that an account holds, in words.
fn told(standing: &Standing) -> String {
    let mut out = format!(
        "{:?} {} {}",
        standing.closed(),
        standing.last_ns(),
        standing.oddities()
    );
    out += &format!(
        "{:?} {:?}",
        standing.events(),
        standing.members_at(u64::MAX)
    );
    for table in standing.tables() {
        out += &format!(
            "\n{:?} {:?} {:?} {:?}",
            table.table, table.traces, table.latest, table.last_ns
        );
        out += &format!(" {:?} {:?}", table.held, table.valued_ns);
    }
    for d in standing.devices() {
        out += &format!(
            "\n{:?} {:?} {} {} {}",
            d.work, d.memory, d.steps, d.last_end_ns, d.audited
        );
        out += &format!(
            " {} {} {} {}",
            d.gemms, d.audited_flop, d.flop, d.mismatches
        );
        out += &format!(" {:?} {:?} {}", d.self_test, d.faults, d.device_clock);
    }
    for w in standing.windows() {
        out += &format!("\n{} {:?} {} {:?}", w.segment, w.kind, w.start_ns, w.end_ns);
        for d in &w.devices {
            out += &format!(
                "\n {:?} {} {:?}",
                d.blocks,
                d.steps,
                d.step_time.get().map(|t| (t.sum(), t.points()))
            );
            out += &format!(
                " {:?} {} {}",
                d.memory_rate.get().map(|t| t.sum()),
                d.idle_ns,
                d.span_ns()
            );
        }
        let ops: Vec<_> = w
            .group
            .ops
            .iter()
            .map(|(b, g)| (b, g.get().map(|d| (d.sum(), d.points()))))
            .collect();
        out += &format!(
            "\n {:?} {} {ops:?}",
            w.group.step_time.get().map(|t| t.points()),
            w.group.untold_steps(true)
        );
        for s in (0..3)
            .flat_map(|t| (0..4).map(move |c| (t, c)))
            .filter_map(|(t, c)| w.series(t, c))
        {
            out += &format!(
                "\n {} {} {} {}",
                s.valid, s.missing, s.longest_gap_ns, s.growth
            );
            out += &format!(
                " {:?} {} {:?}",
                s.bit_ns,
                s.mask_ns,
                s.values.get().map(|d| (d.sum(), d.points()))
            );
        }
    }
    out
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let listed = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let read = |e: fs::DirEntry| {
        (
            e.file_name().into_string().unwrap(),
            fs::read(e.path()).unwrap(),
        )
    };
    listed.map(read).collect()
}

fn all(record: &Record) -> Result<Vec<Frame>, StoreError> {
    record.frames().collect()
}

#[test]
fn a_journal_gives_back_every_frame_and_recovers_where_it_ended() {
    let dir = TempDir::new().unwrap();
    let frames = run::frames(20);
    let (first, rest) = frames.split_at(30);
    let head = journal(dir.path(), first);
    let (mut writer, tail) = JournalWriter::recover(dir.path()).unwrap();
    assert_eq!((tail, writer.chain_head()), (Tail::Whole, head));
    for frame in rest {
        writer.append(frame).unwrap();
    }
    writer.close().unwrap();
    let (back, tail) = read_journal(dir.path()).unwrap();
    assert!(same(&back, &frames));
    assert_eq!(tail, Tail::Whole);
}

#[test]
fn a_journal_cut_at_any_byte_keeps_every_whole_frame() {
    let dir = TempDir::new().unwrap();
    let frames = run::frames(2);
    journal(dir.path(), &frames);
    let path = dir.path().join(JOURNAL);
    let bytes = fs::read(&path).unwrap();
    let ends = offsets(&bytes);
    for cut in 0..bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        if cut < HEADER {
            assert!(
                matches!(read_journal(dir.path()), Err(StoreError::Empty { .. })),
                "cut at {cut}"
            );
            continue;
        }
        let whole = ends.iter().rposition(|end| *end <= cut).unwrap();
        let (back, tail) = read_journal(dir.path()).unwrap();
        assert!(
            back.len() == whole && same(&back, &frames[..whole]),
            "cut at {cut}"
        );
        let torn = (cut - ends[whole]) as u64;
        let offset = ends[whole] as u64;
        let expected = if torn == 0 {
            Tail::Whole
        } else {
            Tail::Torn {
                offset,
                bytes: torn,
            }
        };
        assert_eq!(tail, expected, "cut at {cut}");
        if cut % 97 == 0 {
            // Going on after the cut gives the very journal that an unharmed run gives.
            let (mut writer, _) = JournalWriter::recover(dir.path()).unwrap();
            frames[whole..]
                .iter()
                .for_each(|f| writer.append(f).unwrap());
            writer.close().unwrap();
            assert!(fs::read(&path).unwrap() == bytes, "cut at {cut}");
        }
    }
}

#[test]
fn a_journal_changed_at_any_byte_is_damaged() {
    let dir = TempDir::new().unwrap();
    journal(dir.path(), &run::frames(1));
    let path = dir.path().join(JOURNAL);
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        for bit in [0x01, 0x80] {
            let mut harmed = bytes.clone();
            harmed[at] ^= bit;
            fs::write(&path, &harmed).unwrap();
            match read_journal(dir.path()) {
                Err(StoreError::Damaged { path: named, .. }) => assert_eq!(named, path),
                other => panic!("byte {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_power_cut_that_leaves_a_hole_of_zeros_is_a_torn_tail() {
    let dir = TempDir::new().unwrap();
    let frames = run::frames(3);
    journal(dir.path(), &frames);
    let path = dir.path().join(JOURNAL);
    let bytes = fs::read(&path).unwrap();
    let ends = offsets(&bytes);
    let hole = (bytes.len() / 2).next_multiple_of(512);
    let mut holed = bytes.clone();
    holed[hole..].fill(0);
    fs::write(&path, &holed).unwrap();
    let (back, tail) = read_journal(dir.path()).unwrap();
    let whole = ends.iter().rposition(|end| *end <= hole).unwrap();
    assert_eq!(back.len(), whole);
    assert!(matches!(tail, Tail::Torn { offset, .. } if offset == ends[whole] as u64));
    // A hole with data behind it is no torn tail.
    holed[hole..hole + 600].fill(0);
    holed[hole + 600..].copy_from_slice(&bytes[hole + 600..]);
    fs::write(&path, &holed).unwrap();
    assert!(matches!(
        read_journal(dir.path()),
        Err(StoreError::Damaged { .. })
    ));
}

#[test]
fn frames_moved_removed_or_edited_break_the_chain() {
    let dir = TempDir::new().unwrap();
    journal(dir.path(), &run::frames(3));
    let path = dir.path().join(JOURNAL);
    let bytes = fs::read(&path).unwrap();
    let at = offsets(&bytes);
    let piece = |i: usize| bytes[at[i]..at[i + 1]].to_vec();
    let order = |picked: &[usize]| {
        let body: Vec<u8> = picked.iter().flat_map(|i| piece(*i)).collect();
        [bytes[..HEADER].to_vec(), body].concat()
    };
    let count = at.len() - 1;
    let mut swapped: Vec<usize> = (0..count).collect();
    swapped.swap(8, 9);
    let removed: Vec<usize> = (0..count).filter(|i| *i != 9).collect();
    let twice: Vec<usize> = (0..=9).chain(9..count).collect();
    let mut edited = bytes.clone();
    let (from, to) = (at[9], at[10]);
    edited[to - 3] ^= 1;
    let payload = crc32c(&edited[from + 44..to]);
    edited[from + 4..from + 8].copy_from_slice(&payload.to_le_bytes());
    let header = crc32c(&edited[from..from + 40]);
    edited[from + 40..from + 44].copy_from_slice(&header.to_le_bytes());
    for harmed in [order(&swapped), order(&removed), order(&twice), edited] {
        fs::write(&path, harmed).unwrap();
        match read_journal(dir.path()) {
            Err(StoreError::Damaged { why, .. }) => assert!(why.contains("chain"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_second_writer_and_a_second_run_are_refused() {
    let dir = TempDir::new().unwrap();
    let mut writer = JournalWriter::create(dir.path()).unwrap();
    writer.append(&run::frames(1)[0]).unwrap();
    assert!(matches!(
        JournalWriter::recover(dir.path()),
        Err(StoreError::Busy(_))
    ));
    assert!(matches!(seal(dir.path()), Err(StoreError::Busy(_))));
    assert!(matches!(
        JournalWriter::create(dir.path()),
        Err(StoreError::Exists(_))
    ));
    writer.sync().unwrap();
    drop(writer);
    assert!(matches!(
        JournalWriter::create(dir.path()),
        Err(StoreError::Exists(_))
    ));
    seal(dir.path()).unwrap();
    assert!(matches!(
        JournalWriter::create(dir.path()),
        Err(StoreError::Exists(_))
    ));
    assert!(matches!(
        JournalWriter::recover(dir.path()),
        Err(StoreError::NoRun(_))
    ));
}

#[test]
fn a_frame_that_could_not_be_sealed_is_refused_at_once_and_leaves_no_trace() {
    let dir = TempDir::new().unwrap();
    let frames = run::frames(1);
    let mut writer = JournalWriter::create(dir.path()).unwrap();
    assert!(
        matches!(writer.append(&frames[2]), Err(StoreError::Shape(_))),
        "a table before the opening frame"
    );
    frames[..5].iter().for_each(|f| writer.append(f).unwrap());
    let ragged = Samples {
        table: 0,
        at_ns: vec![1, 2],
        columns: vec![vec![1.0]; 4],
    };
    let unknown = What::Segment { index: 4 };
    let refused = [
        frames[0].clone(),
        Frame::Samples(ragged),
        Frame::Samples(Samples {
            table: 3,
            ..Samples::default()
        }),
        Frame::Table(run::table(3, "../../etc/passwd", None)),
        Frame::Table(run::table(3, "", None)),
        Frame::Table(run::table(3, "Gpu", None)),
        Frame::Table(run::table(3, &"x".repeat(65), None)),
        Frame::Table(run::table(3, "gpu-0", None)),
        Frame::Table(run::table(5, "late", None)),
        Frame::Table(run::table(1, "gpu-9", Some(1))),
        Frame::Table(run::table(3, "nowhere", Some(2))),
        Frame::Event(Event {
            at_ns: 0,
            device: Some(2),
            what: What::Steady,
        }),
        Frame::Event(Event {
            at_ns: 0,
            device: None,
            what: unknown,
        }),
    ];
    for frame in refused {
        assert!(
            matches!(writer.append(&frame), Err(StoreError::Shape(_))),
            "{frame:?}"
        );
    }
    frames[5..].iter().for_each(|f| writer.append(f).unwrap());
    assert!(
        matches!(writer.append(&frames[5]), Err(StoreError::Shape(_))),
        "a frame after the closing one"
    );
    writer.close().unwrap();
    assert!(same(&read_journal(dir.path()).unwrap().0, &frames));
}

#[test]
fn a_hall_with_more_sensors_than_a_shell_allows_open_files_is_sealed() {
    let dir = TempDir::new().unwrap();
    let hall = hallmark_tests::hall::of(2, 2, 16);
    let frames = hall.frames();
    let tables = frames.iter().filter(|f| matches!(f, Frame::Table(_)));
    assert!(tables.count() > 60);
    journal(dir.path(), &frames);
    let seal = hallmark_tests::hallmark([Path::new("seal"), dir.path()]);
    let mut shell = Command::new("bash");
    shell.args(["-c", "ulimit -Sn 40; exec \"$0\" \"$@\""]);
    shell.arg(seal.get_program()).args(seal.get_args());
    let told = shell.output().unwrap();
    assert!(told.status.success(), "{told:?}");
    assert!(Record::open(dir.path()).is_ok());
}

#[test]
fn a_sealed_record_gives_the_account_that_the_journal_gave() {
    let dir = TempDir::new().unwrap();
    let frames = run::frames(20);
    let chain = journal(dir.path(), &frames);
    let unsealed = open_any(dir.path()).unwrap();
    assert_eq!(
        unsealed.integrity(),
        &Integrity::Unsealed { tail: Tail::Whole }
    );
    assert!(unsealed.verify_head(&chain) && !unsealed.verify_head(&"0".repeat(64)));
    let before = figures(unsealed.frames().unwrap().map(Result::unwrap));
    let sealed = seal(dir.path()).unwrap();
    assert!(!dir.path().join(JOURNAL).exists());
    assert_eq!(sealed.manifest.journal.head, chain);
    let record = Record::open(dir.path()).unwrap();
    assert!(record.verify_head(&sealed.head.to_uppercase()) && !record.verify_head(&chain));
    assert!(
        before == figures(record.frames().map(Result::unwrap)),
        "the account changed"
    );
    assert!(
        before == told(&record.account().unwrap()),
        "tables that are folded apart give another account"
    );
    let run = open_any(dir.path()).unwrap();
    assert_eq!(
        (run.integrity(), run.head()),
        (&Integrity::Sealed, sealed.head.as_str())
    );
    // A sealed run stays what it is.
    assert_eq!(seal(dir.path()).unwrap(), sealed);
}

#[test]
fn extreme_numbers_come_back_bit_for_bit() {
    let dir = TempDir::new().unwrap();
    let odd = [
        0.1,
        -0.0,
        f64::INFINITY,
        f64::MIN_POSITIVE,
        1e308,
        f64::NAN,
        16_777_217.0,
        f64::from(f32::MAX),
    ];
    let mut frames = run::frames(1);
    let closed = frames.pop().unwrap();
    frames.push(Frame::Samples(Samples {
        table: 2,
        at_ns: vec![0, u64::MAX, 1, i64::MAX as u64, 1 << 63, 5, 4, u64::MAX - 1],
        columns: vec![odd.to_vec(), vec![f64::NAN; 8], odd.to_vec(), odd.to_vec()],
    }));
    frames.push(closed);
    journal(dir.path(), &frames);
    seal(dir.path()).unwrap();
    let kept = |f: &Frame| matches!(f, Frame::Samples(s) if s.table == 2);
    let rows = |frames: Vec<Frame>| {
        let mut columns = vec![Vec::new(); 5];
        for frame in frames.iter().filter(|f| kept(f)) {
            let Frame::Samples(s) = frame else { continue };
            columns[0].extend(s.at_ns.iter().copied());
            let bits = |v: &f64| {
                if v.is_nan() {
                    f64::NAN.to_bits()
                } else {
                    v.to_bits()
                }
            };
            (0..4).for_each(|i| columns[i + 1].extend(s.columns[i].iter().map(bits)));
        }
        columns
    };
    assert_eq!(
        rows(all(&Record::open(dir.path()).unwrap()).unwrap()),
        rows(frames)
    );
}

#[test]
fn a_sealed_record_changed_at_any_byte_or_cut_is_refused() {
    let dir = TempDir::new().unwrap();
    journal(dir.path(), &run::frames(2));
    seal(dir.path()).unwrap();
    let good = files(dir.path());
    assert_eq!(good.len(), 10, "{:?}", good.keys());
    for (name, bytes) in &good {
        let path = dir.path().join(name);
        let refused = |harm: &str| match Record::open(dir.path()) {
            Err(StoreError::Altered { path, .. } | StoreError::Missing { path }) => {
                let named = path.file_name().unwrap().to_str().unwrap().to_owned();
                assert!(
                    named == *name || named == "manifest.json",
                    "{name} {harm}: blames {named}"
                );
            }
            other => panic!("{name} {harm}: {:?}", other.map(|r| r.head().to_owned())),
        };
        for at in 0..bytes.len() {
            let mut harmed = bytes.clone();
            harmed[at] ^= 1 << (at % 8);
            fs::write(&path, harmed).unwrap();
            refused(&format!("byte {at}"));
        }
        for cut in (0..bytes.len()).step_by(61).chain([bytes.len() - 1]) {
            fs::write(&path, &bytes[..cut]).unwrap();
            refused(&format!("cut at {cut}"));
        }
        fs::write(&path, [bytes.as_slice(), b"\0"].concat()).unwrap();
        refused("one byte longer");
        fs::remove_file(&path).unwrap();
        refused("removed");
        fs::write(&path, bytes).unwrap();
    }
    fs::write(dir.path().join("telemetry-extra.parquet"), b"").unwrap();
    assert!(matches!(
        Record::open(dir.path()),
        Err(StoreError::Unknown { .. })
    ));
    fs::remove_file(dir.path().join("telemetry-extra.parquet")).unwrap();
    fs::write(dir.path().join("report.html"), b"").unwrap();
    Record::open(dir.path()).unwrap();
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let dir = TempDir::new().unwrap();
    journal(dir.path(), &run::frames(1));
    seal(dir.path()).unwrap();
    let path = dir.path().join("manifest.json");
    let text = fs::read_to_string(&path)
        .unwrap()
        .replace("\"format_version\": 1", "\"format_version\": 9");
    fs::write(&path, text).unwrap();
    fs::remove_file(dir.path().join("seal")).unwrap();
    assert!(matches!(
        Record::open(dir.path()),
        Err(StoreError::Missing { .. })
    ));
    let digest = Command::new("sha256sum")
        .arg(&path)
        .output()
        .unwrap()
        .stdout;
    let digest = [&digest[..64], b"\n"].concat();
    fs::write(dir.path().join("seal"), digest).unwrap();
    match Record::open(dir.path()) {
        Err(StoreError::Version {
            found: 9, known: 1, ..
        }) => {}
        other => panic!("{:?}", other.map(|r| r.head().to_owned())),
    }
}

#[test]
fn a_made_record_reads_like_a_sealed_one() {
    let dir = TempDir::new().unwrap();
    let frames = run::frames(20);
    journal(dir.path(), &frames);
    seal(dir.path()).unwrap();
    let record = Record::open(dir.path()).unwrap();
    let made = TempDir::new().unwrap();
    let rows = frames
        .iter()
        .filter(|f| matches!(f, Frame::Samples(_) | Frame::Steps(_)))
        .cloned();
    synthesize(made.path(), record.opened(), record.story(), false, rows).unwrap();
    let made = all(&Record::open(made.path()).unwrap()).unwrap();
    assert!(same(&made, &all(&record).unwrap()));
}
