//! Real runs in which the harness itself is put under strain: stopped, not looked at, given workers that
//! never come and processes that never end.
//!
//! The binary is the real one, the devices are the processor's cores; the faults are signals, pipes and
//! terminals that nobody reads, and a tracer that keeps a dead process from being reaped.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use hallmark_results::frame::{Ending, FaultKind, What};
use hallmark_results::standing::Standing;
use hallmark_results::store::journal::JournalReader;
use hallmark_results::verdict::{Outcome, judge};
use hallmark_tests::judged::standing;
use hallmark_tests::program;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A minute's worth of waiting for something that takes seconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(150);

struct Run {
    child: Child,
    folder: PathBuf,
    _keep: tempfile::TempDir,
}

impl Run {
    fn start(arguments: &[&str], change: impl FnOnce(&mut Command, &Path)) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let folder = keep.path().join("run");
        let mut command = Command::new(program::binary());
        command
            .args(["run", "--devices", "cpu", "--out"])
            .arg(&folder)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        change(&mut command, keep.path());
        Self {
            child: command.spawn().unwrap(),
            folder,
            _keep: keep,
        }
    }

    /// Waits for something; the run must not end before it.
    fn wait_for(&mut self, what: &str, ready: impl Fn(&Path) -> bool) {
        let begun = Instant::now();
        while !ready(&self.folder) {
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
            .filter_map(|t| fs::read_to_string(t.path().join("children")).ok())
            .collect::<Vec<_>>()
            .join(" ");
        let pids = children.split_whitespace().filter_map(|p| p.parse().ok());
        let mut pids: Vec<u32> = pids.collect();
        pids.sort_unstable();
        pids
    }

    fn end(mut self) -> (i32, Standing) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "the run does not end");
            std::thread::sleep(Duration::from_millis(50));
        };
        (status.code().unwrap_or(-1), standing(&self.folder))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whole frames in the journal so far.
fn frames(folder: &Path) -> usize {
    JournalReader::open(folder).map_or(0, |r| r.take_while(Result::is_ok).count())
}

fn is_sealed(folder: &Path) -> bool {
    folder.join("manifest.json").is_file() && !folder.join("journal.hmj").exists()
}

fn signal(pid: u32, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

fn faults(standing: &Standing) -> Vec<(Option<u32>, FaultKind)> {
    let of = |e: &hallmark_results::frame::Event| match e.what {
        What::Fault { kind, .. } => Some((e.device, kind)),
        _ => None,
    };
    standing.events().iter().filter_map(of).collect()
}

#[test]
fn a_run_that_was_stopped_for_eleven_seconds_goes_on_with_all_its_devices() {
    let mut run = Run::start(&["--ui", "plain", "--duration", "20s"], |_, _| {});
    run.wait_for("the load to begin", |f| frames(f) > 30);
    let pid = run.child.id();
    signal(pid, "-STOP");
    std::thread::sleep(Duration::from_secs(11));
    signal(pid, "-CONT");
    let (code, standing) = run.end();
    assert_eq!(faults(&standing), []);
    assert!(matches!(code, 0 | 1 | 3), "{code}");
    assert_eq!(standing.closed().unwrap().ending, Ending::Complete);
    let said = standing
        .events()
        .iter()
        .any(|e| matches!(&e.what, What::Decision { what } if what.contains("stood still")));
    assert!(said, "the record says why there is a hole");
}

#[test]
fn a_reader_that_does_not_read_keeps_no_run_from_being_recorded_and_sealed() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    // As `| less` does, it takes nothing: fill the pipe to its last byte, and then some.
    let filled = std::thread::spawn(move || {
        let _ = std::io::Write::write_all(&mut filler, &[b' '; 1 << 16]);
    });
    let mut run = Run::start(&["--ui", "json", "--duration", "12s"], |command, _| {
        command.stdout(writer);
    });
    filled.join().unwrap();
    run.wait_for("the record", is_sealed);
    let standing = standing(&run.folder);
    assert_eq!(faults(&standing), []);
    assert_eq!(standing.closed().unwrap().ending, Ending::Complete);
    let mut text = String::new();
    let drained = std::thread::spawn(move || {
        let _ = reader.read_to_string(&mut text);
        text
    });
    let _ = run.end();
    assert!(drained.join().unwrap().trim_end().ends_with('}'));
}

#[test]
fn a_terminal_that_takes_nothing_keeps_no_run_from_being_recorded_and_sealed() {
    // A terminal of its own that nobody reads, as behind a connection that is gone.
    let script = "import fcntl,os,pty,struct,subprocess,sys,termios\n\
                  m,s=pty.openpty()\n\
                  fcntl.ioctl(s,termios.TIOCSWINSZ,struct.pack('HHHH',50,160,0,0))\n\
                  p=subprocess.Popen(sys.argv[1:],stdin=s,stdout=s,stderr=subprocess.DEVNULL)\n\
                  sys.stdin.read()\n\
                  p.kill()\n\
                  p.wait()\n";
    let keep = tempfile::tempdir().unwrap();
    let folder = keep.path().join("run");
    let child = Command::new("python3")
        .args(["-c", script])
        .arg(program::binary())
        .args([
            "run",
            "--devices",
            "cpu",
            "--ui",
            "live",
            "--duration",
            "12s",
        ])
        .arg("--out")
        .arg(&folder)
        .env("TERM", "xterm-256color")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut run = Run {
        child: child.unwrap(),
        folder,
        _keep: keep,
    };
    run.wait_for("the record", is_sealed);
    let standing = standing(&run.folder);
    assert_eq!(faults(&standing), []);
    assert_eq!(standing.closed().unwrap().ending, Ending::Complete);
    drop(run.child.stdin.take());
    let _ = run.child.wait();
}

#[test]
fn one_device_that_never_comes_leaves_a_run_that_ends_and_names_it() {
    // The second worker ends at once, as one does whose driver is broken.
    let script = |folder: &Path| {
        let path = folder.join("worker");
        let turn = folder.join("turn");
        let text = format!(
            "#!/bin/sh\nif mkdir '{}' 2>/dev/null; then exec '{}' \"$@\"; fi\necho no driver >&2\nexit 7\n",
            turn.display(),
            program::binary().display()
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let run = Run::start(
        &["--ui", "plain", "--duration", "12s"],
        |command, folder| {
            command.env("HALLMARK_WORKER_BINARY", script(folder));
        },
    );
    let (code, standing) = run.end();
    assert_eq!(faults(&standing).len(), 1);
    let (missing, kind) = faults(&standing)[0];
    assert_eq!(kind, FaultKind::Missing);
    assert_eq!(standing.closed().unwrap().ending, Ending::Complete);
    let present = 1 - missing.unwrap();
    assert!(standing.devices()[present as usize].steps > 10);
    // The script that stands in for a worker makes it no evidence; the finding is told all the same.
    let verdict = judge(&standing);
    let said = &verdict.sentence;
    assert_eq!(
        (code, verdict.outcome),
        (3, Outcome::Inconclusive),
        "{said}"
    );
    assert!(said.starts_with("STAND-IN: would reject: "), "{said}");
}

/// Keeps a process from being reaped by its parent, as a driver call does that holds it in the kernel:
/// a dead process is first its tracer's, and this tracer never asks.
fn hold(pid: u32) -> Option<Child> {
    let script = "import ctypes,sys,time\n\
                  c=ctypes.CDLL(None,use_errno=True)\n\
                  r=c.ptrace(0x4206,int(sys.argv[1]),None,None)\n\
                  print('held' if r==0 else 'refused',flush=True)\n\
                  time.sleep(600)\n";
    let mut child = Command::new("python3")
        .args(["-c", script, &pid.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut said = [0; 4];
    let read = child.stdout.as_mut()?.read_exact(&mut said);
    if read.is_ok() && &said == b"held" {
        return Some(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

#[test]
fn a_worker_that_cannot_be_reaped_holds_up_neither_the_run_nor_its_end() {
    let mut run = Run::start(&["--ui", "plain", "--duration", "16s"], |_, _| {});
    run.wait_for("the load to begin", |f| frames(f) > 30);
    let victim = run.workers()[1];
    let Some(mut tracer) = hold(victim) else {
        let required = std::env::var("HALLMARK_REQUIRE_ALL").as_deref() == Ok("1");
        assert!(!required, "a tracer is required");
        println!("skipped: no process can be traced here");
        return;
    };
    signal(victim, "-KILL");
    let begun = Instant::now();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.end()));
    let took = begun.elapsed();
    let _ = tracer.kill();
    let _ = tracer.wait();
    let (code, standing) = ended.unwrap();
    assert_eq!(code, 1);
    let found = faults(&standing);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, Some(1));
    assert_eq!(standing.closed().unwrap().ending, Ending::Complete);
    assert!(took < PATIENCE, "{took:?}");
}
