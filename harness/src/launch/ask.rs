//! Questions to the programs of a scheduler, each with a deadline.
//!
//! It decides how long an answer may take and what it means. It refuses what it cannot read; a program that does not
//! answer is killed, and what it says on standard error is told, cut to one line. What is given to it on standard input
//! stands on no command line and in no message.

use crate::clock;
use crate::shell::fleet::own_group;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(10);
/// Largest answer that is read, B.
const ANSWER_MAX: u64 = 64 << 20;

/// Reads one pipe to its end.
type Reader = JoinHandle<std::io::Result<Vec<u8>>>;

/// An answer that did not come, or was none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    #[error("cannot start `{program}`: {why}; it must be on PATH")]
    Start { program: String, why: String },
    #[error("`{program}` did not answer within {seconds} s")]
    Late { program: String, seconds: u64 },
    #[error("`{program}` failed: {why}")]
    Failed { program: String, why: String },
}

/// Runs a program to its end, with `input` on its standard input; gives what it said.
///
/// # Errors
/// [`AskError`]; a program that has not ended after `patience` is killed.
pub fn ask(
    program: &str,
    arguments: &[&str],
    input: Option<&[u8]>,
    patience: Duration,
) -> Result<String, AskError> {
    let named = || program.to_owned();
    let start = |e: std::io::Error| AskError::Start {
        program: named(),
        why: e.to_string(),
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(input.map_or_else(Stdio::null, |_| Stdio::piped()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // Ctrl-C at the terminal is the run's to hear; it must not cut off what the run has just asked for.
    own_group(&mut command);
    let mut child = command.spawn().map_err(start)?;
    // All three are served beside the wait: a program blocks on a pipe that is full.
    let fed = feed(&mut child, input);
    let said = collect(child.stdout.take());
    let complained = collect(child.stderr.take());
    let status = wait(&mut child, patience).ok_or_else(|| AskError::Late {
        program: named(),
        seconds: patience.as_secs(),
    })?;
    if let Some(fed) = fed {
        // A program that has ended without reading all of it says by its status what that means.
        let _ = fed.join();
    }
    let failed = |why: String| AskError::Failed {
        program: named(),
        why,
    };
    if status.success() {
        // Half a list of jobs or pods would read as if the rest had ended.
        return text(said).map_err(failed);
    }
    // A complaint that cannot be read leaves the status to tell.
    let why = text(complained).ok();
    let lines = why.iter().flat_map(|why| why.lines().map(str::trim));
    let line = lines.into_iter().find(|l| !l.is_empty());
    Err(failed(
        line.map_or_else(|| status.to_string(), str::to_owned),
    ))
}

/// What a program said, whole.
fn text(reader: Reader) -> Result<String, String> {
    let read = reader
        .join()
        .map_err(|_| "nobody read its answer".to_owned())?;
    let bytes = read.map_err(|e| format!("its answer could not be read: {e}"))?;
    if bytes.len() as u64 > ANSWER_MAX {
        return Err(format!("its answer is longer than {ANSWER_MAX} B"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn feed(child: &mut Child, input: Option<&[u8]>) -> Option<JoinHandle<()>> {
    let (mut pipe, input) = (child.stdin.take()?, input?.to_vec());
    Some(std::thread::spawn(move || {
        let _ = pipe.write_all(&input);
    }))
}

/// `None` for a process that had to be killed.
fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
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

/// One byte beyond the largest answer is read, so that a cut one is known as such.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Reader {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            pipe.take(ANSWER_MAX + 1).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_a_failure_and_silence_are_told_apart() {
        let shell = |script: &str| ask("sh", &["-c", script], None, Duration::from_millis(500));
        assert_eq!(shell("echo 12").unwrap(), "12\n");
        let failed = shell("echo; echo slurm: no such job >&2; exit 1").unwrap_err();
        assert_eq!(failed.to_string(), "`sh` failed: slurm: no such job");
        let late = shell("sleep 60").unwrap_err();
        assert!(matches!(late, AskError::Late { .. }), "{late}");
        let none = ask("no-such-program-anywhere", &[], None, Duration::ZERO).unwrap_err();
        assert!(none.to_string().contains("must be on PATH"), "{none}");
    }

    #[test]
    fn an_answer_that_was_cut_or_not_read_is_none() {
        let reader = |read: fn() -> std::io::Result<Vec<u8>>| std::thread::spawn(read);
        assert_eq!(text(reader(|| Ok(b"12".to_vec()))).unwrap(), "12");
        let long = text(reader(|| Ok(vec![b'x'; ANSWER_MAX as usize + 1])));
        assert!(long.unwrap_err().contains("longer"));
        assert!(text(reader(|| Err(std::io::Error::other("gone")))).is_err());
        assert!(text(reader(|| panic!("on purpose"))).is_err());
    }

    #[test]
    fn what_is_said_to_a_program_reaches_it_whole_and_one_that_does_not_listen_is_no_hang() {
        let long = vec![b'x'; 1 << 20];
        let patience = Duration::from_secs(20);
        let heard = ask("wc", &["-c"], Some(&long), patience).unwrap();
        assert_eq!(heard.trim(), "1048576");
        assert_eq!(ask("true", &[], Some(&long), patience).unwrap(), "");
    }
}
