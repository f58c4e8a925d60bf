//! Real runs that are broken on purpose: workers stopped, killed and corrupted, the run killed.
//!
//! The binary is the real one, the devices are the processor's cores, the faults are signals and
//! bits flipped in a worker's memory from outside.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by a panic")]

use hallmark_results::frame::{FaultKind, Frame, What};
use hallmark_results::standing::Standing;
use hallmark_results::stats::bootstrap::SplitMix64;
use hallmark_results::store::journal::JournalReader;
use hallmark_results::verdict::{Outcome, Verdict, judge};
use hallmark_tests::judged::standing;
use hallmark_tests::program;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A minute's worth of waiting for something that takes seconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

struct Run {
    child: Child,
    folder: PathBuf,
    _keep: tempfile::TempDir,
}

impl Run {
    /// Starts a short smoke run and waits until its load is on.
    fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    fn start_in(keep: tempfile::TempDir, arguments: &[&str]) -> Self {
        let folder = keep.path().join("run");
        let child = Command::new(program::binary())
            .args(["run", "--ui", "plain", "--devices", "cpu", "--out"])
            .arg(&folder)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let run = Self {
            child,
            folder,
            _keep: keep,
        };
        run.wait_for(|r| r.frames() > 30, "the load to begin");
        run
    }

    /// Whole frames in the journal so far; its size says nothing, for a new one is written full and cut.
    fn frames(&self) -> usize {
        JournalReader::open(&self.folder).map_or(0, |r| r.take_while(Result::is_ok).count())
    }

    fn wait_for(&self, ready: impl Fn(&Self) -> bool, what: &str) {
        let begun = Instant::now();
        while !ready(self) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Process ids of the workers, in the order of the devices.
    fn workers(&self) -> Vec<u32> {
        let pid = self.child.id();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let children = tasks
            .flatten()
            .filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
        let mut pids: Vec<u32> = children
            .flat_map(|c| {
                c.split_whitespace()
                    .filter_map(|p| p.parse().ok())
                    .collect::<Vec<_>>()
            })
            .collect();
        pids.sort_unstable();
        pids
    }

    fn signal(&self, pid: u32, signal: &str) {
        let sent = Command::new("kill")
            .args([signal, &pid.to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    fn end(mut self) -> (i32, Standing, Verdict) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "the run does not end");
            std::thread::sleep(Duration::from_millis(50));
        };
        let (standing, verdict) = judged(&self.folder);
        (status.code().unwrap_or(-1), standing, verdict)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn judged(folder: &Path) -> (Standing, Verdict) {
    let standing = standing(folder);
    let verdict = judge(&standing);
    (standing, verdict)
}

fn faults(standing: &Standing) -> Vec<(Option<u32>, FaultKind)> {
    let of = |e: &hallmark_results::frame::Event| match e.what {
        What::Fault { kind, .. } => Some((e.device, kind)),
        _ => None,
    };
    standing.events().iter().filter_map(of).collect()
}

fn finding(verdict: &Verdict, name: &str) -> Outcome {
    verdict
        .findings
        .iter()
        .find(|f| f.criterion.name == name)
        .unwrap()
        .outcome
}

#[test]
fn a_killed_worker_is_its_devices_fault_and_the_other_goes_on() {
    let run = Run::start(&["--duration", "20s"]);
    let victim = run.workers()[1];
    run.signal(victim, "-KILL");
    let (code, standing, verdict) = run.end();
    assert_eq!(faults(&standing), [(Some(1), FaultKind::WorkerDied)]);
    assert_eq!(
        (code, verdict.outcome),
        (1, Outcome::Failed),
        "{}",
        verdict.sentence
    );
    assert_eq!(finding(&verdict, "failures"), Outcome::Failed);
    let at = standing
        .events()
        .iter()
        .find(|e| matches!(e.what, What::Fault { .. }))
        .unwrap()
        .at_ns;
    assert!(
        standing.devices()[0].last_end_ns > at + 2_000_000_000,
        "the survivor works on"
    );
}

#[test]
fn an_aborted_worker_is_reported_with_its_signal() {
    let run = Run::start(&["--duration", "12s"]);
    run.signal(run.workers()[0], "-ABRT");
    let (code, standing, _) = run.end();
    assert_eq!(code, 1);
    let said = standing.events().iter().find_map(|e| match &e.what {
        What::Fault { detail, .. } => Some(detail.clone()),
        _ => None,
    });
    assert!(
        said.as_ref().is_some_and(|s| s.contains("signal: 6")),
        "{said:?}"
    );
}

#[test]
fn a_stalled_device_is_silent_within_seconds_and_rejects_the_run() {
    let run = Run::start(&["--duration", "20s"]);
    run.signal(run.workers()[0], "-STOP");
    let (code, standing, verdict) = run.end();
    assert_eq!(faults(&standing), [(Some(0), FaultKind::Silent)]);
    assert_eq!((code, verdict.outcome), (1, Outcome::Failed));
}

#[test]
fn one_bit_flipped_in_an_operand_is_caught_by_an_audit_and_rejects_the_run() {
    let run = Run::start(&["--duration", "20s"]);
    flip_an_operand_bit(run.workers()[0]);
    let (code, standing, verdict) = run.end();
    assert!(
        standing.devices()[0].mismatches > 0,
        "no audit saw the flipped bit"
    );
    assert_eq!(
        standing.devices()[1].mismatches,
        0,
        "the other device is right"
    );
    assert_eq!(finding(&verdict, "integrity"), Outcome::Failed);
    assert_eq!(code, 1);
}

/// Flips one mantissa bit in every 256 KiB of operands: small whole numbers as far as one looks. Copies
/// of operands that are never read again, or packed anew for each product, look the same and come anywhere.
fn flip_an_operand_bit(pid: u32) {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))
        .unwrap();
    let mut pages = 0;
    for line in maps.lines().filter(|l| l.contains("rw-p")) {
        let range = line.split(' ').next().unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (
            u64::from_str_radix(from, 16).unwrap(),
            u64::from_str_radix(to, 16).unwrap(),
        );
        for page in (from..to.min(from + (64 << 20))).step_by(4096) {
            let mut bytes = [0_u8; 4096];
            if memory.seek(SeekFrom::Start(page)).is_err() || memory.read_exact(&mut bytes).is_err()
            {
                break;
            }
            let values: Vec<f32> = bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect();
            let whole = |v: &f32| v.abs() <= 128.0 && (v.fract().abs() < f32::EPSILON);
            let varied = values.iter().filter(|v| v.abs() > 2.0).count() > 600;
            if values.iter().all(whole) && varied {
                pages += 1;
                if pages % 64 != 1 {
                    continue;
                }
                // 2.0 and more: bit 22 is worth at least a half.
                let at = values.iter().position(|v| v.abs() > 2.0).unwrap();
                let byte = page + 4 * at as u64 + 2;
                let old = bytes[4 * at + 2];
                memory.seek(SeekFrom::Start(byte)).unwrap();
                memory.write_all(&[old ^ 0x40]).unwrap();
            }
        }
    }
    assert!(pages > 0, "no operands were found in the worker's memory");
}

#[test]
fn an_interrupted_run_seals_and_says_inconclusive() {
    let run = Run::start(&["--duration", "40s"]);
    run.signal(run.child.id(), "-INT");
    let (code, standing, verdict) = run.end();
    assert!(standing.closed().is_some());
    assert_eq!(
        (code, verdict.outcome),
        (3, Outcome::Inconclusive),
        "{}",
        verdict.sentence
    );
}

/// Runs killed in all, and at a time: a kill is about the journal, not about speed.
const KILLS: usize = 50;
const AT_ONCE: usize = 5;

#[test]
fn a_run_killed_at_any_instant_can_be_sealed_and_loses_at_most_a_second() {
    // The instants are spread over the run by a printed seed.
    let seed = 20_260_301_u64;
    println!("seed {seed}");
    let mut chance = SplitMix64::new(seed);
    let delays: Vec<_> = (0..KILLS).map(|_| chance.below(6_000)).collect();
    let mut lost_ns: Vec<u64> = Vec::new();
    for some in delays.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let kills: Vec<_> = some
                .iter()
                .map(|ms| scope.spawn(|| kill_after(Duration::from_millis(*ms))))
                .collect();
            lost_ns.extend(kills.into_iter().map(|k| k.join().unwrap()));
        });
    }
    lost_ns.sort_unstable();
    let seconds = |ns: u64| ns as f64 / 1e9;
    let (middle, worst) = (lost_ns[KILLS / 2], lost_ns[KILLS - 1]);
    println!(
        "lost: median {:.2} s, most {:.2} s",
        seconds(middle),
        seconds(worst)
    );
    assert!(middle <= 1_000_000_000, "{lost_ns:?}");
    // Ten processes on two cores may keep the one that writes from running for a while.
    assert!(worst <= 2_000_000_000, "{lost_ns:?}");
}

/// Kills a run some time after its load began, seals it, and says how long before the kill its record ends.
fn kill_after(delay: Duration) -> u64 {
    let mut run = Run::start(&["--duration", "10s"]);
    std::thread::sleep(delay);
    let first = JournalReader::open(&run.folder).unwrap().next().unwrap();
    let Frame::Opened(opened) = first.unwrap() else {
        panic!("a journal begins with its opening frame");
    };
    // A run that ended by itself meanwhile has nothing left to lose.
    let ended = run.child.try_wait().unwrap().is_some();
    let killed_ns = hallmark::clock::since_utc_ns(&opened.utc_start).unwrap();
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    let sealed = Command::new(program::binary())
        .arg("seal")
        .arg(&run.folder)
        .output()
        .unwrap();
    let code = sealed.status.code();
    let text = String::from_utf8_lossy(&sealed.stderr).into_owned();
    let expected = if ended {
        matches!(code, Some(0..=3))
    } else {
        matches!(code, Some(1 | 3))
    };
    assert!(expected, "killed after {delay:?}: {code:?} {text}");
    let (standing, verdict) = judged(&run.folder);
    if ended {
        return 0;
    }
    assert_ne!(verdict.outcome, Outcome::Passed);
    killed_ns.saturating_sub(standing.last_ns())
}

#[test]
fn workers_do_not_outlive_a_run_that_was_killed() {
    let mut run = Run::start(&["--duration", "30s"]);
    let workers = run.workers();
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    let alive = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
    };
    run.wait_for(|_| !workers.iter().any(alive), "the workers to end");
}

#[test]
fn a_resumed_run_goes_on_and_says_so() {
    let mut run = Run::start(&["--duration", "10s"]);
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    let resumed = Command::new(program::binary())
        .args(["resume", "--ui", "plain"])
        .arg(&run.folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&resumed.stderr).into_owned();
    assert!(matches!(resumed.status.code(), Some(0 | 1 | 3)), "{text}");
    let (standing, _) = judged(&run.folder);
    assert!(
        standing
            .events()
            .iter()
            .any(|e| matches!(e.what, What::Resumed { .. }))
    );
    assert!(standing.closed().is_some());
    let again = Command::new(program::binary())
        .arg("resume")
        .arg(&run.folder)
        .output()
        .unwrap();
    assert_eq!(again.status.code(), Some(2), "a sealed run does not go on");
}

/// Unmounts also when the test fails.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_loses_no_frame_and_the_record_says_so() {
    let keep = tempfile::tempdir().unwrap();
    let disk = keep.path().to_owned();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=80m", "tmpfs"])
        .arg(&disk)
        .status();
    if !mounted.is_ok_and(|m| m.success()) {
        let required = std::env::var("HALLMARK_REQUIRE_ALL").as_deref() == Ok("1");
        assert!(!required, "a small file system is required");
        println!("skipped: no small file system can be mounted");
        return;
    }
    let _mounted = Mounted(disk.clone());
    let run = Run::start_in(keep, &["--duration", "12s"]);
    let ballast = disk.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    std::thread::sleep(Duration::from_secs(4));
    fs::remove_file(&ballast).unwrap();
    drop(file);
    let (code, standing, verdict) = run.end();
    let faults = faults(&standing);
    assert!(faults.contains(&(None, FaultKind::Journal)), "{faults:?}");
    assert_eq!(
        finding(&verdict, "telemetry"),
        Outcome::Passed,
        "rows were lost"
    );
    assert!(matches!(code, 1 | 3), "{code}");
    assert_ne!(verdict.outcome, Outcome::Passed);
}
