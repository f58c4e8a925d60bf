//! A run's files on a disk that is full or may not be written.

use super::*;

/// A file system of `size` for one test; `None`, with the reason printed, where none may be mounted.
fn small_disk(dir: &Path, size: &str) -> Option<()> {
    let options = format!("size={size}");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
        .arg(dir)
        .output();
    let why = match mounted {
        Ok(out) if out.status.success() => return Some(()),
        Ok(out) => String::from_utf8_lossy(&out.stderr).into_owned(),
        Err(e) => e.to_string(),
    };
    assert!(
        std::env::var("HALLMARK_REQUIRE_ALL").as_deref() != Ok("1"),
        "a small file system is required: {why}"
    );
    println!("skipped: no small file system can be mounted: {why}");
    None
}

/// Unmounts also when the test fails.
struct Mounted(TempDir);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_before_the_load_and_later_leaves_whole_frames_only() {
    let disk = Mounted(TempDir::new().unwrap());
    let Some(()) = small_disk(disk.0.path(), "256k") else {
        return;
    };
    let dir = disk.0.path().join("run");
    match JournalWriter::create(&dir) {
        Err(e @ StoreError::DiskFull { .. }) => assert!(e.is_disk_full()),
        other => panic!("{other:?}"),
    }
    assert!(
        !dir.join(JOURNAL).exists(),
        "a run that never began leaves no journal"
    );
    let remounted = Command::new("mount")
        .args(["-o", "remount,size=1280k"])
        .arg(disk.0.path())
        .status();
    assert!(remounted.unwrap().success());
    let mut writer = JournalWriter::create(&dir).unwrap();
    // The rest of the room goes to somebody else.
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![1; 1100 << 10]).unwrap();
    let frames = run::frames(600);
    let mut kept = 0;
    let full = loop {
        match writer.append(&frames[kept]) {
            Ok(()) => kept += 1,
            Err(e) => break e,
        }
    };
    assert!(full.is_disk_full(), "{full:?}");
    assert!(writer.append(&frames[kept]).unwrap_err().is_disk_full());
    writer.sync().unwrap();
    let (back, tail) = read_journal(&dir).unwrap();
    assert!(same(&back, &frames[..kept]) && tail == Tail::Whole);
    fs::remove_file(&ballast).unwrap();
    for frame in &frames[kept..kept + 20] {
        writer.append(frame).unwrap();
    }
    writer.close().unwrap();
    assert!(same(&read_journal(&dir).unwrap().0, &frames[..kept + 20]));
    // Sealing without room leaves the journal; with room it goes through.
    let free = fs::metadata(dir.join(JOURNAL)).unwrap().len();
    fs::write(&ballast, vec![1; ((1270 << 10) - free) as usize]).unwrap();
    assert!(seal(&dir).unwrap_err().is_disk_full());
    fs::remove_file(&ballast).unwrap();
    seal(&dir).unwrap();
    Record::open(&dir).unwrap();
}

#[test]
fn a_read_only_folder_is_told_before_the_load() {
    let disk = Mounted(TempDir::new().unwrap());
    let Some(()) = small_disk(disk.0.path(), "4m") else {
        return;
    };
    let run = disk.0.path().join("run");
    journal(&run, &run::frames(1));
    let remounted = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(disk.0.path())
        .status();
    assert!(remounted.unwrap().success());
    let new = JournalWriter::create(&disk.0.path().join("other"));
    assert!(matches!(new, Err(StoreError::ReadOnly { .. })), "{new:?}");
    assert!(matches!(
        JournalWriter::recover(&run),
        Err(StoreError::ReadOnly { .. })
    ));
    assert!(matches!(seal(&run), Err(StoreError::ReadOnly { .. })));
    assert_eq!(
        open_any(&run).unwrap().integrity(),
        &Integrity::Unsealed { tail: Tail::Whole }
    );
}
