//! Questions to Slurm's own programs, each with a deadline.
//!
//! It decides how long an answer may take and what it means. It refuses what it cannot read; a program that does not
//! answer is killed, and what a hall's Slurm says on standard error is told, cut to one line.

use crate::clock;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest wait for an answer. A controller of Slurm under load takes seconds.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);
/// Largest answer that is read, B.
const ANSWER_MAX: u64 = 64 << 20;

/// An answer that did not come, or was none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("cannot start `{program}`: {why}; Slurm's programs must be on PATH")]
    Start { program: String, why: String },
    #[error("`{program}` did not answer within {} s", PATIENCE.as_secs())]
    Late { program: String },
    #[error("`{program}` failed: {why}")]
    Failed { program: String, why: String },
}

/// Runs a program of Slurm to its end; gives what it said.
///
/// # Errors
/// [`AskError`].
pub fn ask(program: &str, arguments: &[&str]) -> Result<String, AskError> {
    ask_within(program, arguments, PATIENCE)
}

fn ask_within(program: &str, arguments: &[&str], patience: Duration) -> Result<String, AskError> {
    let named = || program.to_owned();
    let start = |e: std::io::Error| AskError::Start {
        program: named(),
        why: e.to_string(),
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    // Both are read beside the wait: a program blocks on a pipe that is full.
    let said = collect(child.stdout.take());
    let complained = collect(child.stderr.take());
    let status = wait(&mut child, patience).ok_or_else(|| AskError::Late { program: named() })?;
    let text = |reader: std::thread::JoinHandle<String>| reader.join().unwrap_or_default();
    if status.success() {
        return Ok(text(said));
    }
    let why = text(complained);
    let line = why.lines().map(str::trim).find(|l| !l.is_empty());
    Err(AskError::Failed {
        program: named(),
        why: line.map_or_else(|| status.to_string(), str::to_owned),
    })
}

/// `None` for a process that had to be killed.
fn wait(child: &mut Child, patience: Duration) -> Option<std::process::ExitStatus> {
    let looks = patience.as_millis() / LOOK.as_millis();
    for _ in 0..looks {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        clock::sleep(LOOK);
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            let _ = pipe.take(ANSWER_MAX).read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Steps of a job that bear a name, as `scancel` takes them; none where Slurm does not answer.
pub fn steps(job: &str, name: &str) -> Vec<String> {
    let job = format!("--jobs={job}");
    let told = ask("squeue", &["--steps", "--noheader", &job, "--format=%i|%j"]);
    let told = told.unwrap_or_default();
    let pairs = told.lines().filter_map(|l| l.trim().split_once('|'));
    pairs
        .filter(|(_, n)| *n == name)
        .map(|(id, _)| id.to_owned())
        .collect()
}

/// Ends a job or a step, or sends it a signal; as `scancel` takes it.
///
/// # Errors
/// [`AskError`].
pub fn cancel(arguments: &[&str]) -> Result<(), AskError> {
    ask("scancel", arguments).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_a_failure_and_silence_are_told_apart() {
        let shell = |script: &str| ask_within("sh", &["-c", script], Duration::from_millis(500));
        assert_eq!(shell("echo 12").unwrap(), "12\n");
        let failed = shell("echo; echo slurm: no such job >&2; exit 1").unwrap_err();
        assert_eq!(failed.to_string(), "`sh` failed: slurm: no such job");
        let late = shell("sleep 60").unwrap_err();
        assert!(matches!(late, AskError::Late { .. }), "{late}");
        let none = ask("no-such-program-anywhere", &[]).unwrap_err();
        assert!(none.to_string().contains("must be on PATH"), "{none}");
    }
}
