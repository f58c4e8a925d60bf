//! `hallmark run --site` outside an allocation of Slurm: the run is submitted as a job, waited for, and judged again here.
//!
//! It decides nothing about the load: the job runs the same command within its allocation. What the job says is shown as
//! it comes. An interrupt ends the run in good order, a second one at once, a third cancels the job, and so does every
//! other end of this command but a kill that it cannot see. The exit code is that of the sealed record, judged again.

use super::{beside, record};
use crate::cli::{Run, Ui};
use crate::clock;
use crate::exit::{Exit, Failure};
use crate::launch::slurm::batch::{COMPLETING, Job, State, script};
use crate::run::Input;
use crate::shell::inbox;
use hallmark_profiles::site::LoadedSite;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// What the job says.
const LOG: &str = ".log";
/// Between two looks at what the job says and what the operator wants, and between two questions to Slurm.
const LOOK: Duration = Duration::from_millis(200);
const ASK_NS: u64 = 1_000_000_000;
/// A Slurm that does not answer for this long is given up, and the job with it.
const SILENCE_NS: u64 = 600_000_000_000;
/// Time for nodes to say that a job which has ended is gone from them; one that is down never says it.
const COMPLETING_NS: u64 = 10_000_000_000;

/// Submits the run and waits for its end.
///
/// # Errors
/// [`Failure`]: exit 2 where Slurm does not take the job, 4 where it ended without a record.
pub fn run(args: &Run, path: &Path, site: &LoadedSite, folder: &Path) -> Result<Exit, Failure> {
    let folder = whole(folder)?;
    let (log, file) = (beside(&folder, LOG), beside(&folder, ".sbatch"));
    let text = text(args, path, site, &folder)?;
    let unwritten =
        |e: std::io::Error| Failure::broken(format!("cannot write {}: {e}", file.display()));
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent).map_err(unwritten)?;
    }
    std::fs::write(&file, text).map_err(unwritten)?;
    let (inlet, inbox) = inbox::open();
    super::load::listen(&inlet)?;
    let job = Job::submit(&file).map_err(Failure::usage)?;
    note(&format!(
        "job {} was submitted with {}; its output goes to {}",
        job.id,
        file.display(),
        log.display()
    ));
    let state = Wait::new(job, &log).through(&inbox)?;
    conclude(&state, &folder, &log)
}

/// The script of the job.
///
/// # Errors
/// [`Failure`] with exit 2: no script can hold what it would have to say.
pub fn text(args: &Run, path: &Path, site: &LoadedSite, folder: &Path) -> Result<String, Failure> {
    let folder = whole(folder)?;
    let words = words(args, &whole(path)?, &folder)?;
    script(site, &words, &beside(&folder, LOG)).map_err(Failure::usage)
}

fn whole(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(Failure::broken)
}

/// The command that the job runs.
fn words(args: &Run, site: &Path, folder: &Path) -> Result<Vec<String>, Failure> {
    let ui = match args.show.ui {
        Ui::Auto | Ui::Plain => "plain",
        Ui::Json => "json",
        Ui::Live => {
            let why = "no live view of a job; use --ui plain, or run within an allocation (salloc)";
            return Err(Failure::usage(why));
        }
    };
    let text = |p: &Path| {
        let text = p.to_str().map(str::to_owned);
        text.ok_or_else(|| Failure::usage(format!("{} is no UTF-8", p.display())))
    };
    let program = std::env::current_exe().map_err(Failure::broken)?;
    let mut words = vec![text(&program)?, "run".to_owned(), format!("--ui={ui}")];
    let profile = Path::new(&args.profile);
    let profile = match profile.is_file() {
        true => text(&std::path::absolute(profile).map_err(Failure::broken)?)?,
        false => args.profile.clone(),
    };
    words.push(format!("--site={}", text(site)?));
    words.push(format!("--out={}", text(folder)?));
    words.extend(args.duration.map(|d| format!("--duration={d}")));
    words.extend(args.seed.map(|s| format!("--seed={s}")));
    words.extend(args.remark.iter().map(|r| format!("--remark={r}")));
    words.extend(args.rehearsal.then(|| "--rehearsal".to_owned()));
    words.extend(args.cuda.arguments());
    if let Some(nvml) = &args.show.nvml {
        words.push(format!("--nvml={}", text(nvml)?));
    }
    if let Some(library) = &args.mpi {
        let own = match library.as_os_str() == "none" {
            true => library.clone(),
            false => std::path::absolute(library).map_err(Failure::broken)?,
        };
        words.push(format!("--mpi={}", text(&own)?));
    }
    words.extend(["--".to_owned(), profile]);
    Ok(words)
}

/// What a job comes to: its record, judged again; or why it has none.
fn conclude(state: &State, folder: &Path, log: &Path) -> Result<Exit, Failure> {
    if let Ok(judged) = record::open(folder, None)
        && let Some(exit) = judged.sealed()
    {
        return Ok(exit);
    }
    let told = match state.code {
        Some(code) => format!("with code {code}"),
        None => "by a signal".to_owned(),
    };
    let why = format!(
        "the job ended {told} ({}) and left no sealed record; see {}",
        state.name,
        log.display()
    );
    match state.code {
        Some(2) => Err(Failure::usage(why)),
        _ => Err(Failure::broken(why)),
    }
}

struct Wait {
    job: Job,
    log: PathBuf,
    /// So much of the log has been shown.
    shown: u64,
    interrupts: u32,
    told: String,
    asked_ns: u64,
    answered_ns: u64,
    completing_ns: Option<u64>,
}

impl Wait {
    fn new(job: Job, log: &Path) -> Self {
        Self {
            job,
            log: log.to_owned(),
            shown: 0,
            interrupts: 0,
            told: String::new(),
            asked_ns: 0,
            answered_ns: clock::monotonic_ns(),
            completing_ns: None,
        }
    }

    fn through(mut self, inbox: &Receiver<Input>) -> Result<State, Failure> {
        let mut state = None;
        loop {
            self.show();
            for _ in inbox
                .try_iter()
                .filter(|i| matches!(i, Input::Interrupt | Input::Cut))
            {
                self.interrupt(state.as_ref())?;
            }
            let now_ns = clock::monotonic_ns();
            if now_ns.saturating_sub(self.asked_ns) >= ASK_NS {
                self.asked_ns = now_ns;
                state = self.ask(now_ns)?.or(state);
            }
            if let Some(state) = state.take_if(|s| self.is_over(s, now_ns)) {
                self.show();
                return Ok(state);
            }
            clock::sleep(LOOK);
        }
    }

    /// `None` where Slurm does not answer.
    fn ask(&mut self, now_ns: u64) -> Result<Option<State>, Failure> {
        match self.job.state() {
            Ok(state) => {
                self.answered_ns = now_ns;
                let told = match &state.reason {
                    Some(reason) => format!("{}: {reason}", state.name),
                    None => state.name.clone(),
                };
                self.tell(&told);
                Ok(Some(state))
            }
            Err(error) if now_ns.saturating_sub(self.answered_ns) < SILENCE_NS => {
                self.tell(&error.to_string());
                Ok(None)
            }
            Err(error) => Err(Failure::broken(format!(
                "nothing was learnt of job {} for 10 min: {error}",
                self.job.id
            ))),
        }
    }

    fn tell(&mut self, told: &str) {
        if self.told != told {
            told.clone_into(&mut self.told);
            note(&format!("job {}: {told}", self.job.id));
        }
    }

    fn is_over(&mut self, state: &State, now_ns: u64) -> bool {
        if state.name != COMPLETING {
            return state.has_ended();
        }
        let since_ns = *self.completing_ns.get_or_insert(now_ns);
        let late = now_ns.saturating_sub(since_ns) > COMPLETING_NS;
        if late {
            note(&format!(
                "job {} has ended, and a node has not told Slurm so",
                self.job.id
            ));
        }
        late
    }

    fn interrupt(&mut self, state: Option<&State>) -> Result<(), Failure> {
        self.interrupts += 1;
        let runs = state.is_some_and(|s| s.name == "RUNNING");
        let (what, done) = match (runs, self.interrupts) {
            (true, 1) => ("ends the run in good order", self.job.interrupt()),
            (true, 2) => ("ends the run at once", self.job.interrupt()),
            _ => ("is cancelled", self.job.cancel()),
        };
        note(&format!("job {} {what}", self.job.id));
        done.map_err(|e| {
            Failure::broken(format!(
                "{e}; job {id} may still run: `scancel {id}` ends it",
                id = self.job.id
            ))
        })
    }

    /// Shows what the job has said since the last time.
    fn show(&mut self) {
        let Ok(mut file) = File::open(&self.log) else {
            return;
        };
        let mut bytes = Vec::new();
        let read = file
            .seek(SeekFrom::Start(self.shown))
            .and_then(|_| file.read_to_end(&mut bytes));
        if read.is_ok() && !bytes.is_empty() {
            self.shown += bytes.len() as u64;
            let mut out = std::io::stdout().lock();
            // A reader that has gone away is no error.
            let _ = out.write_all(&bytes).and_then(|()| out.flush());
        }
    }
}

/// Beside what the job says, which may be read by a program.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "hallmark: {line}");
}
