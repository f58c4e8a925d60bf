//! Sealing that is killed, repeated, or given a damaged journal.

use super::*;

#[test]
fn sealing_killed_after_any_file_goes_through_when_it_is_repeated() {
    let dir = TempDir::new().unwrap();
    journal(dir.path(), &run::frames(3));
    let bytes = fs::read(dir.path().join(JOURNAL)).unwrap();
    let sealed = seal(dir.path()).unwrap();
    let good = files(dir.path());
    // The order in which the files get their names: data, JSON, manifest, seal.
    let listed = sealed.manifest.files.iter().map(|f| f.name.clone());
    let mut order: Vec<String> = listed.skip(2).collect();
    order.extend(["opened.json", "events.json", "manifest.json", "seal"].map(str::to_owned));
    assert_eq!(order.len(), good.len());
    for done in 0..=order.len() {
        let again = TempDir::new().unwrap();
        fs::write(again.path().join(JOURNAL), &bytes).unwrap();
        for name in &order[..done] {
            fs::write(again.path().join(name), &good[name]).unwrap();
        }
        if let Some(next) = order.get(done) {
            fs::write(again.path().join(format!("{next}.tmp")), &good[next][..10]).unwrap();
            // Until the seal is there, the journal is the run.
            let run = open_any(again.path()).unwrap();
            assert!(matches!(run.integrity(), Integrity::Unsealed { .. }));
        }
        assert_eq!(seal(again.path()).unwrap(), sealed, "after {done} files");
        assert!(files(again.path()) == good, "after {done} files");
    }
}

/// Seals a journal with so many cells in memory, and holds the record against the one that was sealed otherwise.
fn sealed_alike(journal: &[u8], cells: usize, sealed: &Sealed, record: &BTreeMap<String, Vec<u8>>) {
    let again = TempDir::new().unwrap();
    fs::write(again.path().join(JOURNAL), journal).unwrap();
    let told = seal_telling(again.path(), cells, &mut |_| {}).unwrap();
    assert_eq!(told, *sealed, "{cells} cells");
    assert!(files(again.path()) == *record, "{cells} cells");
}

#[test]
fn a_record_is_the_same_however_little_may_be_held_back_while_it_is_sealed() {
    let whole = TempDir::new().unwrap();
    journal(whole.path(), &hallmark_tests::hall::of(2, 2, 4).frames());
    let bytes = fs::read(whole.path().join(JOURNAL)).unwrap();
    let sealed = seal(whole.path()).unwrap();
    for cells in [0, 1, 37, 1_000, 10_000] {
        sealed_alike(&bytes, cells, &sealed, &files(whole.path()));
    }
}

#[test]
fn whoever_waits_for_a_seal_is_told_how_far_it_is_up_to_the_last_file() {
    let dir = TempDir::new().unwrap();
    journal(dir.path(), &run::frames(3));
    let mut told = Vec::new();
    let sealed = seal_telling(dir.path(), 1_000, &mut |p| told.push(p)).unwrap();
    // The two of JSON are written after those that hold rows.
    let files = sealed.manifest.files.len() as u64 - 2;
    assert_eq!(told.last(), Some(&Progress::Written(files, files)));
    let frames = sealed.manifest.journal.frames;
    assert!(told.contains(&Progress::Read(frames, frames)), "{told:?}");
    let checked = told.iter().filter_map(|p| match p {
        Progress::Checked(part, whole) => Some((*part, *whole)),
        _ => None,
    });
    let checked: Vec<(u64, u64)> = checked.collect();
    assert!(
        checked.is_sorted() && checked.len() as u64 == frames,
        "{told:?}"
    );
    assert!(checked.last().is_some_and(|(part, whole)| part == whole));
    assert_eq!(
        told.last().unwrap().to_string(),
        format!("{files} of {files} files written")
    );
}

#[test]
fn tables_longer_than_a_row_group_are_the_same_too() {
    let whole = TempDir::new().unwrap();
    let mut frames = run::frames(3);
    let table = frames.iter().find_map(|f| match f {
        Frame::Samples(samples) => Some(samples.clone()),
        _ => None,
    });
    let mut samples = table.unwrap();
    let last_ns = samples.at_ns.last().copied().unwrap();
    let rows = 50_000;
    samples.at_ns = (0..rows).map(|row| last_ns + 1 + row).collect();
    for (column, values) in samples.columns.iter_mut().enumerate() {
        *values = (0..rows)
            .map(|row| (row * 7 + column as u64) as f64)
            .collect();
    }
    let at = frames.len() - 1;
    for _ in 0..3 {
        frames.insert(at, Frame::Samples(samples.clone()));
        samples.at_ns.iter_mut().for_each(|ns| *ns += rows);
    }
    journal(whole.path(), &frames);
    let bytes = fs::read(whole.path().join(JOURNAL)).unwrap();
    let sealed = seal(whole.path()).unwrap();
    for cells in [0, 60_000, 300_000] {
        sealed_alike(&bytes, cells, &sealed, &files(whole.path()));
    }
}

#[test]
fn a_torn_journal_is_sealed_without_its_tail_and_says_so() {
    let dir = TempDir::new().unwrap();
    let frames = run::frames(3);
    journal(dir.path(), &frames);
    let path = dir.path().join(JOURNAL);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let whole = read_journal(dir.path()).unwrap().0;
    let sealed = seal(dir.path()).unwrap();
    assert!(sealed.manifest.journal.torn_bytes > 0);
    let record = Record::open(dir.path()).unwrap();
    assert!(record.story().closed.is_none());
    assert_eq!(
        figures(all(&record).unwrap().into_iter()),
        figures(whole.into_iter())
    );
}

#[test]
fn a_damaged_journal_is_not_sealed_and_stays() {
    let dir = TempDir::new().unwrap();
    journal(dir.path(), &run::frames(3));
    let path = dir.path().join(JOURNAL);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(seal(dir.path()), Err(StoreError::Damaged { .. })));
    assert!(fs::read(&path).unwrap() == bytes);
    let empty = TempDir::new().unwrap();
    drop(JournalWriter::create(empty.path()).unwrap());
    assert!(matches!(seal(empty.path()), Err(StoreError::Empty { .. })));
}

#[test]
fn parquet_bytes_that_were_never_parquet_end_in_an_error_even_under_a_good_seal() {
    let dir = TempDir::new().unwrap();
    journal(dir.path(), &run::frames(2));
    let manifest = seal(dir.path()).unwrap().manifest;
    let entry = manifest
        .files
        .iter()
        .position(|f| f.name == "telemetry-node.parquet")
        .unwrap();
    let path = dir.path().join("telemetry-node.parquet");
    let good = fs::read(&path).unwrap();
    let original = figures(all(&Record::open(dir.path()).unwrap()).unwrap().into_iter());
    let reseal = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let digest = |p: &Path| {
            let out = Command::new("sha256sum").arg(p).output().unwrap().stdout;
            String::from_utf8(out[..64].to_vec()).unwrap()
        };
        let mut forged = manifest.clone();
        forged.files[entry].bytes = bytes.len() as u64;
        forged.files[entry].sha256 = digest(&path);
        let at = dir.path().join("manifest.json");
        fs::write(&at, forged.encode().unwrap()).unwrap();
        fs::write(dir.path().join("seal"), format!("{}\n", digest(&at))).unwrap();
    };
    let mut refused = 0;
    for at in (0..good.len()).step_by(7) {
        let mut harmed = good.clone();
        harmed[at] ^= 0x55;
        reseal(&harmed);
        // A forger who seals anew is caught by the noted head alone; here nothing may break down.
        match all(&Record::open(dir.path()).unwrap()) {
            Err(_) => refused += 1,
            Ok(frames) => assert!(frames.iter().all(|f| match f {
                Frame::Samples(s) => s.columns.iter().all(|c| c.len() == s.at_ns.len()),
                _ => true,
            })),
        }
    }
    assert!(refused > 20, "{refused}");
    reseal(&good);
    assert_eq!(
        figures(all(&Record::open(dir.path()).unwrap()).unwrap().into_iter()),
        original
    );
}

#[test]
fn whoever_asks_whether_a_run_goes_on_keeps_it_from_no_seal() {
    let dir = TempDir::new().unwrap();
    journal(dir.path(), &run::frames(3));
    // `status` and `stop` look by a lock that they hold for an instant.
    let asking = fs::File::open(dir.path().join(JOURNAL)).unwrap();
    asking.lock_shared().unwrap();
    let asker = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(asking);
    });
    assert!(seal(dir.path()).is_ok());
    asker.join().unwrap();
}
