//! Questions to Slurm's own programs, each with a deadline.
//!
//! It decides how long Slurm may take; what an answer means and what is refused of it: [`super::super::ask`].

use crate::launch::ask;
use std::time::Duration;

pub use ask::AskError;

/// Longest wait for an answer. A controller of Slurm under load takes seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a program of Slurm to its end; gives what it said.
///
/// # Errors
/// [`AskError`].
pub fn ask(program: &str, arguments: &[&str]) -> Result<String, AskError> {
    ask::ask(program, arguments, None, PATIENCE)
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
