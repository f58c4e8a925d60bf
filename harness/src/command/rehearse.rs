//! `hallmark rehearse`: what a profile would find on a hall, before a megawatt is burnt.
//!
//! Everything that can be refused is refused before the first play. Interrupted, it tells what is done.

use crate::cli::{Rehearse, Ui};
use crate::clock::RunClock;
use crate::command::say;
use crate::exit::{Exit, Failure};
use crate::rehearsal::advice::{advice, spoken};
use crate::rehearsal::crew::{self, Part};
use crate::rehearsal::tell::{self, Told};
use crate::rehearsal::{Case, Played, html, table};
use crate::twin::scenario::{self, Scenario};
use hallmark_profiles::profile::{self, Loaded};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Cells of the progress bar.
const BAR: u64 = 30;
/// Distance of progress lines where there is no terminal.
const LINES_NS: u64 = 10_000_000_000;

/// Rehearses a profile on a hall.
///
/// # Errors
/// [`Failure`]: exit 2 for a profile, hall or fault that is wrong, 4 where nothing could be played or written.
pub fn rehearse(args: &Rehearse) -> Result<Exit, Failure> {
    let loaded = profile::load(&args.profile).map_err(Failure::usage)?;
    let cases = cases(args)?;
    let parts = parts(&cases, args.seeds);
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(|e| unwritten(folder, &e))?;
    }
    let stop = interrupted()?;
    let clock = RunClock::start();
    let mut progress = Progress::new(args.ui, parts.len() as u64, clock);
    let play = |scenario: &Scenario, seed: u64, take: &mut dyn FnMut(&_)| {
        crew::with(&loaded, scenario, seed, take)
    };
    let jobs = args.jobs.map_or_else(crew::cores, |n| n as usize);
    let mut plays = Vec::new();
    crew::perform(&cases, &parts, jobs, &stop, &play, &mut |_, played| {
        progress.played(&played);
        plays.push(played);
    });
    progress.ended();
    conclude(args, &loaded, &cases, &plays, parts.len() as u64, clock)
}

/// The healthy hall first, then each fault at each severity.
fn cases(args: &Rehearse) -> Result<Vec<Case>, Failure> {
    let hall = scenario::load(&args.hall).map_err(Failure::usage)?;
    let mut cases = vec![Case::new(&hall, 1.0)];
    for file in &args.fault {
        let fault = scenario::load_on(file, &hall).map_err(Failure::usage)?;
        let named = |c: &Case| c.scenario.name == fault.name;
        if cases.iter().any(named) {
            let what = format!("{}: `{}` is played already", file.display(), fault.name);
            return Err(Failure::usage(what));
        }
        let once = [1.0];
        let factors = if fault.has_severity() {
            args.severity.as_slice()
        } else {
            &once
        };
        cases.extend(factors.iter().map(|f| Case::new(&fault, *f)));
    }
    Ok(cases)
}

/// Seed by seed, so that a rehearsal that is stopped has played of everything alike.
fn parts(cases: &[Case], seeds: u64) -> Vec<Part> {
    let of = |seed: u64| {
        (0..cases.len()).map(move |case| Part {
            case,
            seed,
            wants_picture: seed == 1,
            sealed: false,
        })
    };
    (1..=seeds).flat_map(of).collect()
}

/// Set by the first interrupt; the second ends the program at once.
fn interrupted() -> Result<Arc<AtomicBool>, Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let broken = |e: std::io::Error| Failure::broken(format!("cannot listen for signals: {e}"));
        let code = Exit::Broken as i32;
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(broken)?;
    }
    Ok(stop)
}

fn conclude(
    args: &Rehearse,
    loaded: &Loaded,
    cases: &[Case],
    plays: &[Played],
    asked: u64,
    clock: RunClock,
) -> Result<Exit, Failure> {
    let rows = table::rows(cases, plays);
    let advice: Vec<Vec<String>> = cases
        .iter()
        .zip(&rows)
        .map(|(case, row)| advice(&loaded.profile, case, row))
        .collect();
    let told = Told {
        profile: &loaded.profile.name,
        hall: cases.first().map_or("", |c| &c.scenario.name),
        rows: &rows,
        advice: &advice,
        seeds: args.seeds,
        done: plays.len() as u64,
        asked,
        took_s: clock.now_ns() as f64 / 1e9,
    };
    let (text, json) = (tell::text(&told), tell::json(&told));
    if let Some(folder) = &args.out {
        for (name, content) in [
            ("rehearsal.txt", text.clone()),
            ("rehearsal.json", format!("{json:#}\n")),
            ("rehearsal.html", html::page(&told)),
        ] {
            let path = folder.join(name);
            std::fs::write(&path, content).map_err(|e| unwritten(&path, &e))?;
        }
    }
    if args.ui == Ui::Json {
        say(&json.to_string());
    } else {
        say(&text);
    }
    let first_broken = plays.iter().find_map(|p| p.broke.as_ref());
    match first_broken {
        Some(why) if plays.iter().all(|p| p.broke.is_some()) => {
            Err(Failure::broken(format!("nothing could be played: {why}")))
        }
        _ if told.done < asked => Ok(Exit::Inconclusive),
        _ => Ok(Exit::Accepted),
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::broken(format!("cannot write {}: {error}", path.display()))
}

/// How far it is: a bar on a terminal, a line every ten seconds elsewhere, an object a play for machines.
struct Progress {
    ui: Ui,
    bar: bool,
    asked: u64,
    done: u64,
    clock: RunClock,
    next_ns: u64,
}

impl Progress {
    fn new(ui: Ui, asked: u64, clock: RunClock) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            ui,
            bar: terminal && matches!(ui, Ui::Auto | Ui::Live),
            asked,
            done: 0,
            clock,
            next_ns: LINES_NS,
        }
    }

    fn played(&mut self, played: &Played) {
        self.done += 1;
        let now_ns = self.clock.now_ns();
        if self.ui == Ui::Json {
            let mut line = json!(played);
            line["type"] = json!("play");
            line["done"] = json!(self.done);
            line["asked"] = json!(self.asked);
            say(&line.to_string());
        } else if self.bar {
            let filled = (BAR * self.done / self.asked.max(1)) as usize;
            let empty = BAR as usize - filled;
            self.write(&format!(
                "\r\u{1b}[2K{}{} {}\r",
                "█".repeat(filled),
                "░".repeat(empty),
                self.how_far(now_ns)
            ));
        } else if now_ns >= self.next_ns {
            self.next_ns = now_ns + LINES_NS;
            self.write(&format!("{}\n", self.how_far(now_ns)));
        }
    }

    fn how_far(&self, now_ns: u64) -> String {
        let passed = now_ns as f64 / 1e9;
        let left = passed / self.done.max(1) as f64 * (self.asked - self.done) as f64;
        format!(
            "{} of {} plays, about {} left",
            self.done,
            self.asked,
            spoken(left)
        )
    }

    fn ended(&self) {
        if self.bar {
            self.write("\r\u{1b}[2K");
        }
    }

    /// Beside the result, which alone goes to standard output.
    fn write(&self, text: &str) {
        let mut err = std::io::stderr().lock();
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
    }
}
