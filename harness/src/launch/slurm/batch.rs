//! A job of Slurm that carries a whole run: its script, its submission, how it fares, and its end.
//!
//! The run itself is in the job, on the allocation's first node, so that it outlives a broken login. It decides what the
//! script asks for: all nodes of the site, whole, for this run alone; nothing begun twice; two minutes before the time
//! limit the run is told to end in good order. It refuses a path that no line of a script can hold. A job that is dropped
//! before it has ended is cancelled.

use super::ask::{AskError, ask, cancel};
use crate::launch::quoted;
use hallmark_profiles::site::LoadedSite;
use std::path::Path;

/// States of a job that has not ended. Source: `squeue(1)` 22.05, “Job state codes”.
const ACTIVE: [&str; 10] = [
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "SUSPENDED",
    "STOPPED",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
    "REQUEUED",
    "REQUEUE_HOLD",
];
/// It has ended, and some node has not said so yet.
pub const COMPLETING: &str = "COMPLETING";

/// The script of a job that says `words` to a shell; its output goes to `output`.
///
/// # Errors
/// One sentence: the path of the output has a character that no line of the script can hold.
pub fn script(site: &LoadedSite, words: &[String], output: &Path) -> Result<String, String> {
    let output = output.display().to_string();
    if output
        .chars()
        .any(|c| c.is_control() || matches!(c, '"' | '\\' | '%'))
    {
        return Err(format!(
            "no script of Slurm can hold the path {output:?}: give --out another, without quotes, `\\` and `%`"
        ));
    }
    let rows = site.site.racks.iter().flat_map(|r| r.nodes.iter());
    let rows: Vec<&str> = rows.map(String::as_str).collect();
    let job = &site.site.slurm;
    let mut asks = vec![
        "--job-name=hallmark".to_owned(),
        format!("--nodes={}", site.nodes().count()),
        format!("--nodelist={}", rows.join(",")),
        "--ntasks-per-node=1".to_owned(),
        "--exclusive".to_owned(),
        "--mem=0".to_owned(),
        "--no-kill".to_owned(),
        "--no-requeue".to_owned(),
        "--signal=B:INT@120".to_owned(),
        "--export=ALL".to_owned(),
        format!("--output=\"{output}\""),
    ];
    asks.extend(job.partition.iter().map(|p| format!("--partition={p}")));
    asks.extend(job.account.iter().map(|a| format!("--account={a}")));
    // Slurm counts whole minutes.
    let minutes = job.time_limit.map(|t| t.duration().as_secs().div_ceil(60));
    asks.extend(minutes.map(|m| format!("--time={m}")));
    let asks: Vec<String> = asks.iter().map(|a| format!("#SBATCH {a}\n")).collect();
    let words: Vec<String> = words.iter().map(|w| quoted(w)).collect();
    Ok(format!(
        "#!/bin/sh\n# Written by hallmark {} for site file {}, digest {}\n{}exec {}\n",
        env!("CARGO_PKG_VERSION"),
        plain(&site.origin),
        site.digest(),
        asks.concat(),
        words.join(" ")
    ))
}

/// A comment ends with its line.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// How a job fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// As Slurm names it, e.g. `PENDING`.
    pub name: String,
    /// Why it is in that state, where Slurm says so.
    pub reason: Option<String>,
    /// What the script returned; `None` for one that a signal ended.
    pub code: Option<i32>,
}

impl State {
    /// Whether nothing of the job follows.
    pub fn has_ended(&self) -> bool {
        !ACTIVE.contains(&self.name.as_str()) && self.name != COMPLETING
    }

    fn parse(told: &str) -> Option<Self> {
        let field = |key: &str| {
            let mut words = told.split_whitespace();
            words.find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
        };
        let (code, signal) = field("ExitCode")?.split_once(':')?;
        Some(Self {
            name: field("JobState")?.to_owned(),
            reason: field("Reason").filter(|r| *r != "None").map(str::to_owned),
            code: code.parse().ok().filter(|_| signal == "0"),
        })
    }
}

/// A job that was submitted.
pub struct Job {
    pub id: String,
    ended: bool,
}

impl Job {
    /// Submits a script.
    ///
    /// # Errors
    /// [`AskError`]: Slurm does not take it.
    pub fn submit(script: &Path) -> Result<Self, AskError> {
        let told = ask("sbatch", &["--parsable", &script.display().to_string()])?;
        let id = told.trim().split(';').next().unwrap_or_default();
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AskError::Failed {
                program: "sbatch".to_owned(),
                why: format!("`{}` is no job's number", plain(told.trim())),
            });
        }
        Ok(Self {
            id: id.to_owned(),
            ended: false,
        })
    }

    /// Asks how it fares.
    ///
    /// # Errors
    /// [`AskError`]; also for an answer that cannot be read.
    pub fn state(&mut self) -> Result<State, AskError> {
        let told = ask("scontrol", &["--oneliner", "show", "job", &self.id])?;
        let state = State::parse(&told).ok_or_else(|| AskError::Failed {
            program: "scontrol".to_owned(),
            why: format!("no state of job {} in its answer", self.id),
        })?;
        self.ended = state.has_ended();
        Ok(state)
    }

    /// Has the run end in good order; a second time, at once.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn interrupt(&self) -> Result<(), AskError> {
        cancel(&["--batch", "--signal=INT", &self.id])
    }

    /// Ends it with all its steps.
    ///
    /// # Errors
    /// [`AskError`].
    pub fn cancel(&self) -> Result<(), AskError> {
        cancel(&[&self.id])
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_profiles::site;

    fn hall() -> LoadedSite {
        let text = "schema_version = 1\nname = \"S\"\ncountry = \"NO\"\nregion = \"r\"\nhall = \"A\"\n\
                    launcher = \"slurm\"\n[slurm]\npartition = \"gpu\"\naccount = \"a_1\"\ntime_limit = \"601 s\"\n\
                    [devices]\ncount = 1\n[[rack]]\nname = \"R\"\ncontract_power = \"1 kW\"\n\
                    nodes = [\"n[1-2]\", \"x\"]\n";
        site::parse(text, "site.toml").unwrap()
    }

    #[test]
    fn a_script_asks_for_all_nodes_alone_and_says_each_word_whole() {
        let words = ["/opt/it's".to_owned(), "a $b".to_owned()];
        let text = script(&hall(), &words, Path::new("/runs/a b.log")).unwrap();
        for line in [
            "#SBATCH --nodes=3",
            "#SBATCH --nodelist=n[1-2],x",
            "#SBATCH --exclusive",
            "#SBATCH --partition=gpu",
            "#SBATCH --account=a_1",
            "#SBATCH --time=11",
            "#SBATCH --output=\"/runs/a b.log\"",
            r"exec '/opt/it'\''s' 'a $b'",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        assert!(script(&hall(), &words, Path::new("/runs/a\n#SBATCH")).is_err());
    }

    #[test]
    fn a_jobs_state_is_read_and_an_unknown_one_has_ended() {
        let told = "JobId=1 JobName=x JobState=RUNNING Reason=None ExitCode=0:0 RunTime=00:00:01\n";
        let state = State::parse(told).unwrap();
        assert!(!state.has_ended() && state.reason.is_none());
        let told = "JobState=NODE_FAIL Reason=NonZeroExitCode ExitCode=0:15";
        let state = State::parse(told).unwrap();
        assert!(state.has_ended());
        assert_eq!(
            (state.code, state.reason.as_deref()),
            (None, Some("NonZeroExitCode"))
        );
        assert_eq!(State::parse("slurm_load_jobs error"), None);
    }
}
