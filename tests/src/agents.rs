//! A hall of agents on this machine for tests: its site file, its processes, its record.
//!
//! Refuses to leave anything running: whoever is left is killed when the test ends, and a test can ask who is.

use crate::judged::standing;
#[cfg(target_os = "linux")]
use crate::network::Host;
use crate::program;
use hallmark_results::standing::Standing;
use hallmark_results::store::journal::JournalReader;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A minute's worth of waiting for something that takes seconds, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// A short course of computing alone, with criteria that a busy machine cannot fail.
const PROFILE: &str = r#"
schema_version = 1
name = "hall-test"
summary = "A few seconds of computing on every node; accepts no site."
accepts_site = false
seed = 7

[load]
dtype = ["f32"]
matmul = { m = 256, n = 256, k = 256 }
bucket = "4 MiB"
queue_depth = 2
operand_pairs = 16
audit_share = 0.2

[load.ramp]
levels = [0.5, 1.0]
hold = "500 ms"

[load.warmup]
least = "1 s"
limit = "2 s"
window = "1 s"
rate_tolerance = 0.5
temperature_tolerance = "50 K"

[[load.phase]]
name = "steady"
pattern = "steady"
duration = "SECONDS s"

[telemetry]
period = "100 ms"
block = "1 s"
metrics = ["cpu_load"]

[[criterion]]
name = "inventory"
metric = "inventory"
scope = "site"
statistic = "total"
at_most = "0"

[[criterion]]
name = "failures"
metric = "failures"
scope = "site"
statistic = "total"
at_most = "0"

[[criterion]]
name = "integrity"
metric = "audit_errors"
scope = "gpu"
statistic = "total"
at_most = "0"
"#;

/// A hall under load.
#[derive(Debug)]
pub struct HallRun {
    pub child: Child,
    pub folder: PathBuf,
    keep: tempfile::TempDir,
}

/// How a hall is started; the default is a hall of one node by the launcher `local`.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    pub launcher: &'a str,
    /// Folder in which the launcher's program is looked for first.
    pub programs: Option<&'a Path>,
    pub environment: &'a [(&'a str, &'a Path)],
    pub arguments: &'a [&'a str],
    /// Further lines of the site file, for the launcher.
    pub site: &'a str,
    /// Nodes n1, n2, …
    pub nodes: usize,
    /// Devices that each is to have.
    pub devices: usize,
    /// Seconds of load.
    pub seconds: u32,
    /// A built-in profile instead, or a file's.
    pub profile: Option<&'a str>,
    /// Where the run itself is started, instead of on this machine.
    #[cfg(target_os = "linux")]
    pub host: Option<&'a Host>,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            launcher: "local",
            programs: None,
            environment: &[],
            arguments: &[],
            site: "",
            nodes: 1,
            devices: 1,
            seconds: 3,
            profile: None,
            #[cfg(target_os = "linux")]
            host: None,
        }
    }
}

impl Setup<'_> {
    fn command(&self) -> Command {
        #[cfg(target_os = "linux")]
        if let Some(host) = self.host {
            return host.command(program::binary());
        }
        Command::new(program::binary())
    }
}

/// The profile of such a run, for so many seconds of steady load.
#[must_use]
pub fn profile(seconds: u32) -> String {
    PROFILE.replace("SECONDS", &seconds.to_string())
}

impl HallRun {
    /// Starts a run over nodes n1 to n`nodes`, of which each is to have `devices`, for `seconds` of load.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start(nodes: usize, devices: usize, seconds: u32) -> Self {
        Self::launched(&Setup {
            nodes,
            devices,
            seconds,
            ..Setup::default()
        })
    }

    /// Starts a run.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn launched(setup: &Setup) -> Self {
        let Setup {
            launcher,
            site: lines,
            nodes,
            devices,
            seconds,
            ..
        } = setup;
        let keep = tempfile::Builder::new()
            .prefix("hallmark-hall-")
            .tempdir()
            .expect("a temporary folder can be made");
        let write = |name: &str, text: &str| {
            let path = keep.path().join(name);
            fs::write(&path, text).expect("a file can be written");
            path
        };
        let site = write(
            "site.toml",
            &format!(
                "schema_version = 1\nname = \"Rehearsal\"\ncountry = \"NO\"\nregion = \"north\"\nhall = \"A\"\n\
                 launcher = \"{launcher}\"\n{lines}[devices]\ncount = {devices}\n[[rack]]\nname = \"R1\"\n\
                 contract_power = \"40 kW\"\nnodes = [\"n[1-{nodes}]\"]\n"
            ),
        );
        let profile = write("hall.toml", &profile(*seconds));
        let folder = keep.path().join("run");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = setup.programs.into_iter().map(Path::to_path_buf);
        let path = std::env::join_paths(folders.chain(std::env::split_paths(&path)));
        let child = setup
            .command()
            .env("PATH", path.expect("folders without a colon"))
            .envs(setup.environment.iter().copied())
            .args(["run", "--ui", "plain", "--site"])
            .arg(site)
            .arg("--out")
            .arg(&folder)
            .args(setup.arguments)
            .arg(setup.profile.map_or(profile, PathBuf::from))
            .stdin(Stdio::null())
            .stdout(fs::File::create(keep.path().join("stdout")).expect("a file can be made"))
            .stderr(fs::File::create(keep.path().join("stderr")).expect("a file can be made"))
            .spawn()
            .expect("the program can be started");
        Self {
            child,
            folder,
            keep,
        }
    }

    /// Its site file.
    #[must_use]
    pub fn site(&self) -> PathBuf {
        self.keep.path().join("site.toml")
    }

    /// What it said on standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        fs::read_to_string(self.keep.path().join("stdout")).unwrap_or_default()
    }

    /// What it said on standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.keep.path().join("stderr")).unwrap_or_default()
    }

    /// Waits until something holds.
    ///
    /// # Panics
    /// It does not within three minutes.
    pub fn wait_for(&self, what: &str, ready: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !ready(self) {
            assert!(
                begun.elapsed() < PATIENCE && is_alive(self.child.id()),
                "waited in vain for {what}; it said: {}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until so many frames are in the journal.
    pub fn wait_for_load(&self, frames: usize) {
        self.wait_for("the load to begin", |r| r.frames() > frames);
    }

    /// Whole frames in the journal so far.
    #[must_use]
    pub fn frames(&self) -> usize {
        JournalReader::open(&self.folder).map_or(0, |r| r.take_while(Result::is_ok).count())
    }

    /// Process id of a node's agent.
    ///
    /// # Panics
    /// It has none.
    #[must_use]
    pub fn agent(&self, node: &str) -> u32 {
        let log = self.folder.join("nodes").join(node);
        let held = |pid: u32| {
            let open = fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten();
            open.flatten()
                .filter_map(|fd| fs::read_link(fd.path()).ok())
                .any(|file| file.starts_with(&log))
        };
        let mut agents = self
            .left_running()
            .into_iter()
            .filter(|p| is_called(*p, "agent"));
        let found = agents.find(|pid| held(*pid));
        found.unwrap_or_else(|| panic!("node {node} has no agent"))
    }

    /// Processes of this run that are alive, beside the run itself.
    #[must_use]
    pub fn left_running(&self) -> Vec<u32> {
        descendants(self.child.id())
    }

    /// Waits for the end; gives the exit code and the sealed record's account.
    ///
    /// # Panics
    /// It does not end within three minutes, or its record cannot be read.
    #[must_use]
    pub fn end(&mut self) -> (i32, Standing) {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the run does not end: {}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(20));
        };
        (status.code().unwrap_or(-1), standing(&self.folder))
    }
}

fn is_called(pid: u32, command: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|b| *b == 0).nth(1) == Some(command.as_bytes())
}

/// Children of a process and theirs.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let lists = tasks
        .flatten()
        .filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
    let own: Vec<u32> = lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|p| p.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect();
    let others: Vec<u32> = own.iter().flat_map(|child| descendants(*child)).collect();
    own.into_iter().chain(others).collect()
}

/// Whether a process is there and no mere entry of the process table.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.trim().chars().next());
    state.is_some_and(|s| s != 'Z' && s != 'X')
}

/// Sends a signal, e.g. `-KILL`.
///
/// # Panics
/// It cannot be sent.
pub fn signal(pid: u32, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(
        sent.is_ok_and(|s| s.success()),
        "cannot send {signal} to {pid}"
    );
}

impl Drop for HallRun {
    fn drop(&mut self) {
        let all = self.left_running();
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in all.into_iter().filter(|p| is_alive(*p)) {
            let _ = Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .stderr(Stdio::null())
                .status();
        }
    }
}
