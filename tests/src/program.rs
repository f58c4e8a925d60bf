//! Runs the built program: where it is, how long it may take, what it said.
//!
//! Refuses to wait forever: a program that hangs is killed and its output shown.

use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const POLL: Duration = Duration::from_millis(10);

/// The program next to the running test: `target/<profile>/hallmark`.
///
/// # Panics
/// It is not there.
#[must_use]
pub fn binary() -> PathBuf {
    let path = beside(&format!("hallmark{}", std::env::consts::EXE_SUFFIX));
    let release = path.parent().is_some_and(|p| p.ends_with("release"));
    assert!(
        path.is_file(),
        "{} is not there; run tests/run, or `cargo build --package hallmark{}` first",
        path.display(),
        if release { " --release" } else { "" }
    );
    path
}

/// A file of the profile's folder that the running test was built into.
fn beside(name: &str) -> PathBuf {
    // target/<profile>/deps/<test>-<hash>
    let test = std::env::current_exe().expect("a running test has a path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("tests lie in the target folder");
    profile.join(name)
}

/// The program, without input, and without the settings of the shell that started the test.
#[must_use]
pub fn hallmark<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null());
    for setting in [
        "HALLMARK_NVML",
        "NO_COLOR",
        "CLICOLOR_FORCE",
        "RUST_BACKTRACE",
    ] {
        command.env_remove(setting);
    }
    command
}

/// A program that ended.
#[derive(Debug)]
pub struct Finished {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Itself, for a chain.
    ///
    /// # Panics
    /// It ended with another code.
    #[must_use]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            code,
            stdout,
            stderr,
        } = self;
        write!(
            f,
            "code {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        )
    }
}

/// Runs a program to its end.
///
/// # Panics
/// It cannot be started, or has not ended after `limit`; it is then killed.
#[must_use]
pub fn finish(mut command: Command, limit: Duration) -> Finished {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {:?}: {e}", command.get_program()));
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let begun = Instant::now();
    let ended = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break Some(status),
            None if begun.elapsed() > limit => break None,
            None => std::thread::sleep(POLL),
        }
    };
    let Some(status) = ended else {
        kill(&mut child);
        // Its workers may hold the pipes, so what it said so far cannot be waited for.
        panic!("{command:?} had not ended after {limit:?}");
    };
    let text = |reader: JoinHandle<Vec<u8>>| {
        let bytes = reader.join().expect("the reader of a pipe does not panic");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Finished {
        code: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

fn kill(child: &mut Child) {
    // It may have ended in between.
    let _ = child.kill();
    let _ = child.wait();
}

/// Both pipes have to be read at once: a program blocks on a full one.
fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read until a pipe broke is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Output of `--ui json`, one object a line.
///
/// # Panics
/// A line is no JSON object.
#[must_use]
pub fn json_lines(text: &str) -> Vec<Value> {
    let object = |(number, line): (usize, &str)| {
        let value: Value = serde_json::from_str(line)
            .unwrap_or_else(|e| panic!("line {} is no JSON ({e}): {line}", number + 1));
        assert!(
            value.is_object(),
            "line {} is no object: {line}",
            number + 1
        );
        value
    };
    text.lines().enumerate().map(object).collect()
}

/// A folder of its own for one test, removed at its end.
#[derive(Debug)]
pub struct RunFolder(TempDir);

impl RunFolder {
    /// # Panics
    /// The system has no room for a temporary folder.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "it makes a folder: no default value"
    )]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("hallmark-test-").tempdir();
        Self(folder.expect("a temporary folder can be made"))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where a run may write its record; not there yet, as `--out` wants it.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.path().join("run")
    }

    /// Writes a file into the folder, e.g. a profile.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text)
            .unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        path
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn code_and_both_outputs_of_a_talkative_program_are_kept() {
        let script = "yes out | head -c 300000; yes err | head -c 300000 >&2; exit 3";
        let finished = finish(shell(script), Duration::from_secs(60)).expect_code(3);
        assert_eq!(finished.stdout.len(), 300_000);
        assert_eq!(finished.stderr.len(), 300_000);
    }

    #[test]
    #[should_panic(expected = "had not ended after 50ms")]
    fn a_program_that_hangs_is_killed() {
        let _ = finish(shell("sleep 600"), Duration::from_millis(50));
    }

    #[test]
    #[should_panic(expected = "line 2 is no JSON")]
    fn a_line_that_is_no_json_is_named() {
        assert_eq!(json_lines("{\"a\":1}\n").len(), 1);
        let _ = json_lines("{}\nwarning: x\n");
    }

    #[test]
    fn a_runs_folder_is_not_there_yet_and_gone_at_the_end() {
        let folder = RunFolder::new();
        assert!(folder.path().is_dir() && !folder.run().exists());
        folder.write("p.toml", "x");
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
