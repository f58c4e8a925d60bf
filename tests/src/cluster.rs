//! A stand-in for `kubectl` and the cluster behind it (`tests/kubernetes/kubectl.py`), and Kubernetes' schemas.
//!
//! It runs what a manifest asks for as processes of this machine, and says that it is a stand-in. Refuses to leave anything
//! running: whoever is left is killed when it is dropped, and a test can ask who is.

use crate::Component;
use crate::program::{self, Finished};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
/// Names the folder of a stand-in to it, and marks all of its processes.
const MARK: &str = "HALLMARK_STANDIN";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("kubernetes")
        .join(name)
}

/// What is wrong with a manifest by the schemas of Kubernetes and JobSet, one line each; `None` where they are not
/// installed, after saying so.
///
/// # Panics
/// The schemas cannot be asked, or [`crate::REQUIRE_ALL`] is set and they are not installed.
#[must_use]
pub fn complaints(manifest: &str) -> Option<Vec<String>> {
    Component::KubernetesTools.or_skip()?;
    let mut child = Command::new("python3")
        .arg(script("schemas.py"))
        .arg("validate")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 can be started");
    let mut input = child.stdin.take().expect("it was given a pipe");
    input
        .write_all(manifest.as_bytes())
        .expect("it reads all of its input");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let lines: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    let expected = i32::from(!lines.is_empty());
    assert_eq!(output.status.code(), Some(expected), "{lines:?}");
    Some(lines)
}

/// A stand-in for a cluster.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    program: PathBuf,
}

impl Cluster {
    /// `None` where what it is made of is not installed, after saying so.
    ///
    /// # Panics
    /// It cannot be set up, or [`crate::REQUIRE_ALL`] is set and something is not installed.
    #[must_use]
    pub fn start() -> Option<Self> {
        Component::KubernetesTools.or_skip()?;
        let folder = tempfile::Builder::new()
            .prefix("hallmark-cluster-")
            .tempdir();
        let folder = folder.expect("a temporary folder can be made");
        let programs = folder.path().join("bin");
        fs::create_dir(&programs).expect("a folder can be made");
        let kubectl = programs.join("kubectl");
        let text = format!(
            "#!/bin/sh\nexec python3 '{}' \"$@\"\n",
            script("kubectl.py").display()
        );
        fs::write(&kubectl, text).expect("a file can be written");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&kubectl, mode).expect("a mode can be set");
        fs::create_dir(folder.path().join("state")).expect("a folder can be made");
        let program = program::binary();
        Some(Self { folder, program })
    }

    /// Where its `kubectl` is.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.folder.path().join("bin")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// What its `kubectl` needs in the environment.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [
            (MARK, self.state()),
            ("HALLMARK_STANDIN_PROGRAM", self.program.clone()),
        ]
    }

    /// Has pods of nodes not start.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn trouble(&self, trouble: &Value) {
        self.write("trouble.json", trouble);
    }

    /// Says which nodes it has.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn nodes(&self, nodes: &Value) {
        self.write("nodes.json", nodes);
    }

    fn write(&self, name: &str, value: &Value) {
        let path = self.state().join(name);
        fs::write(path, value.to_string()).expect("a file can be written");
    }

    /// The command lines by which it was called.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.state().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// Names of the objects that are there now.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        let entries = fs::read_dir(self.state().join("objects"))
            .into_iter()
            .flatten();
        let mut names: Vec<String> = entries
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// All that was ever created, by kind; of Secrets the keys alone.
    ///
    /// # Panics
    /// It cannot be read.
    #[must_use]
    pub fn created(&self) -> BTreeMap<String, Value> {
        let entries = fs::read_dir(self.state().join("created"))
            .into_iter()
            .flatten();
        let one = |path: PathBuf| {
            let text = fs::read_to_string(path).expect("a file can be read");
            let object: Value = serde_json::from_str(&text).expect("an object is JSON");
            (
                object["kind"].as_str().unwrap_or_default().to_owned(),
                object,
            )
        };
        entries.flatten().map(|e| one(e.path())).collect()
    }

    /// The agent in the pod on a node.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn agent(&self, node: &str) -> u32 {
        let on = format!("HALLMARK_NODE={node}");
        let is_it = |pid: &u32| {
            list(*pid, "environ").contains(&on)
                && list(*pid, "cmdline").get(1).is_some_and(|w| w == "agent")
        };
        let found = self.processes().into_iter().find(is_it);
        found.unwrap_or_else(|| panic!("node {node} has no agent"))
    }

    /// Processes of its pods, and programs that ask it.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let mark = format!("{MARK}={}", self.state().display());
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|e| e.file_name().to_str()?.parse().ok())
            .filter(|pid| list(*pid, "environ").contains(&mark))
            .collect()
    }

    /// Waits until no object and no process is left.
    ///
    /// # Panics
    /// Something still is after half a minute.
    pub fn wait_until_empty(&self) {
        let begun = Instant::now();
        loop {
            let (objects, processes) = (self.objects(), self.processes());
            if objects.is_empty() && processes.is_empty() {
                return;
            }
            let shown: Vec<String> = processes
                .iter()
                .map(|p| list(*p, "cmdline").join(" "))
                .collect();
            assert!(
                begun.elapsed() < PATIENCE,
                "still there: {objects:?}, processes {shown:?}"
            );
            std::thread::sleep(LOOK);
        }
    }

    /// Says what it was called with, and what its pods said, for a test that fails.
    #[must_use]
    pub fn account(&self) -> String {
        let pods = fs::read_dir(self.state().join("pods"))
            .into_iter()
            .flatten()
            .flatten();
        let said = pods.map(|p| {
            let log = fs::read_to_string(p.path().join("log")).unwrap_or_default();
            format!("{}: {log}", p.file_name().to_string_lossy())
        });
        self.calls()
            .into_iter()
            .chain(said)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Runs the program's `agent` on an invitation in a file, as a pod does.
///
/// # Panics
/// It cannot be started, or does not end.
#[must_use]
pub fn agent_with(invitation: &Path) -> Finished {
    let mut command = program::hallmark(["agent", "--invitation"]);
    command.arg(invitation);
    program::finish(command, Duration::from_secs(60))
}

fn list(pid: u32, file: &str) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let parts = bytes.split(|b| *b == 0).filter(|p| !p.is_empty());
    parts
        .map(|p| String::from_utf8_lossy(p).into_owned())
        .collect()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for pid in self.processes() {
            let _ = Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .stderr(Stdio::null())
                .status();
        }
    }
}
