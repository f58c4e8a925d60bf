//! Plays the faults of `tests/scenarios` at half, once and twice their severity, and writes DETECTION.md.
//!
//! `cargo run --release -p hallmark-tests --example scoreboard -- [--seeds 60] [--healthy 300] [--minutes 360]
//! [--plays FILE] [--only NAME,…] [--times 1,0.5,2] [--racks 3] [--run MINUTES] [--jobs N]`
//!
//! Every play is appended to FILE as it is done, so that a scoreboard that was stopped goes on where it was; plays of
//! another build are refused, since they are not of this judge. Seeds come first, so that whatever the time allows is
//! spread over all rows alike; each row says how many plays it rests on.

use hallmark::clock::{self, RunClock};
use hallmark::rehearsal::crew::{self, Part};
use hallmark::rehearsal::{Case, Played, table, tell};
use hallmark_tests::scenarios;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const FACTORS: [f64; 3] = [1.0, 0.5, 2.0];
/// What is left of a shorter run after the last fault in it begins, at least.
const AFTER: Duration = Duration::from_secs(600);

/// What is asked on the command line.
struct Asked {
    seeds: u64,
    healthy: u64,
    minutes: u64,
    plays: PathBuf,
    only: Vec<String>,
    /// Severities that are played, as multiples of the file's.
    times: Vec<f64>,
    /// Racks of each hall, and minutes of each run that is not one of slow faults, where not the file's.
    racks: Option<u32>,
    run: Option<u64>,
    jobs: usize,
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked {
        seeds: 60,
        healthy: 300,
        minutes: 360,
        plays: PathBuf::from("target/scoreboard.jsonl"),
        only: Vec::new(),
        times: FACTORS.to_vec(),
        racks: None,
        run: None,
        jobs: crew::cores(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(option) = words.next() {
        let value = words.next().ok_or(format!("{option} needs a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{option} needs a number"))
        };
        match option.as_str() {
            "--seeds" => asked.seeds = number()?,
            "--healthy" => asked.healthy = number()?,
            "--minutes" => asked.minutes = number()?,
            "--racks" => asked.racks = Some(number()?.clamp(1, 64) as u32),
            "--run" => asked.run = Some(number()?),
            "--jobs" => asked.jobs = number()? as usize,
            "--plays" => asked.plays = PathBuf::from(value),
            "--only" => asked.only = value.split(',').map(str::to_owned).collect(),
            "--times" => {
                let each = value.split(',').map(str::parse::<f64>);
                let times: Result<Vec<f64>, _> = each.collect();
                asked.times = times.map_err(|_| format!("{option} needs numbers"))?;
            }
            other => {
                let known = "--seeds, --healthy, --minutes, --jobs, --plays, --only, --times, --racks, --run";
                return Err(format!("unknown option `{other}`; known: {known}"));
            }
        }
    }
    Ok(asked)
}

fn main() -> Result<(), String> {
    let asked = asked()?;
    let cases: Vec<Case> = cases(&asked);
    if cases.is_empty() {
        // A page without rows would take the place of the last one that was scored.
        let all: BTreeSet<String> = scenarios::all().into_iter().map(|s| s.name).collect();
        let known: Vec<String> = all.into_iter().collect();
        let asked = asked.only.join(", ");
        return Err(format!(
            "no case is named {asked}; known: {}",
            known.join(", ")
        ));
    }
    let build = build()?;
    let mut plays = before(&asked.plays, &build)?;
    let known: BTreeSet<(String, u64)> = plays.iter().map(|p| (p.case.clone(), p.seed)).collect();
    let parts = parts(&cases, &asked, &known);
    println!(
        "{} cases, {} plays done before, {} to do",
        cases.len(),
        plays.len(),
        parts.len()
    );
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&asked.plays)
        .map_err(|e| format!("{}: {e}", asked.plays.display()))?;
    let stop = AtomicBool::new(false);
    let clock = RunClock::start();
    let total = parts.len();
    let mut done = 0;
    crew::perform(
        &cases,
        &parts,
        asked.jobs,
        &stop,
        &crew::twin,
        &mut |_, played| {
            done += 1;
            let minutes = clock.now_ns() / 60_000_000_000;
            if minutes >= asked.minutes {
                stop.store(true, Ordering::Relaxed);
            }
            let line = serde_json::to_string(&(&build, &played)).unwrap_or_default();
            if writeln!(file, "{line}").is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            if done % 20 == 0 {
                println!("{done} of {total} plays in {minutes} min");
            }
            plays.push(played);
        },
    );
    let rows = table::rows(&cases, &plays);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Read when it is needed: what people say of the rows is no part of the judge that was played.
    let tail = here.join("scenarios/DETECTION.tail.md");
    let said = std::fs::read_to_string(&tail).map_err(|e| format!("{}: {e}", tail.display()))?;
    let text = format!("{}\n{said}", document(&rows));
    let path = here.join("../DETECTION.md");
    std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn cases(asked: &Asked) -> Vec<Case> {
    let only = &asked.only;
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| o == name);
    let all = scenarios::all().into_iter().filter(|s| wanted(&s.name));
    all.flat_map(|mut s| {
        if s.hall.racks > 1 {
            s.hall.racks = asked.racks.unwrap_or(s.hall.racks);
            s.hall.cdus = s.hall.cdus.min(s.hall.racks);
        }
        let is_slow = s.conditions.tick > Duration::from_secs(1);
        if let Some(minutes) = asked.run.filter(|_| !is_slow) {
            let onsets = s.faults.iter().map(|f| f.span.onset);
            let least = onsets.max().unwrap_or_default() + AFTER;
            let run = Duration::from_secs(60 * minutes).max(least);
            s.conditions.duration = Some(run);
        }
        let factors = if s.has_severity() && s.faults.iter().any(|f| f.wanted.is_some()) {
            asked.times.clone()
        } else {
            vec![1.0]
        };
        factors.into_iter().map(move |f| Case::new(&s, f))
    })
    .collect()
}

/// What is not done yet, seed by seed; the first seed of each case goes through a sealed record.
fn parts(cases: &[Case], asked: &Asked, known: &BTreeSet<(String, u64)>) -> Vec<Part> {
    let most = asked.seeds.max(asked.healthy);
    let mut parts = Vec::new();
    for seed in 1..=most {
        for (index, case) in cases.iter().enumerate() {
            let calm = case.scenario.faults.is_empty();
            let seeds = if calm { asked.healthy } else { asked.seeds };
            if seed <= seeds && !known.contains(&(case.key(), seed)) {
                parts.push(Part {
                    case: index,
                    seed,
                    wants_picture: false,
                    sealed: seed == 1,
                });
            }
        }
    }
    parts
}

/// This program's digest: a judge that was changed is another judge.
fn build() -> Result<String, String> {
    let path = std::env::current_exe().map_err(|e| e.to_string())?;
    let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let hash = Sha256::digest(&bytes);
    Ok(hash.iter().take(8).map(|b| format!("{b:02x}")).collect())
}

fn before(path: &Path, build: &str) -> Result<Vec<Played>, String> {
    let Ok(text) = std::fs::read_to_string(path) else {
        return Ok(Vec::new());
    };
    let mut plays = Vec::new();
    // A last line that was cut off is played again.
    for line in text.lines() {
        let Ok((of, played)) = serde_json::from_str::<(String, Played)>(line) else {
            continue;
        };
        if of != build {
            let file = path.display();
            return Err(format!(
                "{file} holds plays of build {of}, this is {build}; name another file with --plays"
            ));
        }
        plays.push(played);
    }
    Ok(plays)
}

fn document(rows: &[table::Row]) -> String {
    let played = |calm: bool, once: bool| -> Vec<&table::Row> {
        let rows = rows
            .iter()
            .filter(|r| r.is_calm() == calm && r.plays + r.broken > 0);
        rows.filter(|r| calm || ((r.factor - 1.0).abs() < 1e-9) == once)
            .collect()
    };
    let plays: u64 = rows.iter().map(|r| r.plays).sum();
    let broken: u64 = rows.iter().map(|r| r.broken).sum();
    let sealed: u64 = rows.iter().map(|r| r.sealed).sum();
    let mut text = include_str!("../scenarios/DETECTION.head.md")
        .replace("{date}", &clock::utc_now()[..10])
        .replace("{plays}", &plays.to_string())
        .replace("{broken}", &broken.to_string())
        .replace("{sealed}", &sealed.to_string());
    text.push_str("\n## At their own severity\n");
    text.push_str(&tell::markdown_rows(&played(false, true), false));
    text.push_str("\n## What must alarm nobody\n");
    text.push_str(&tell::markdown_rows(&played(true, true), true));
    let others = played(false, false);
    if !others.is_empty() {
        text.push_str("\n## At half and at twice the severity\n");
        text.push_str(&tell::markdown_rows(&others, false));
    }
    text.push_str("\n## Where it falls short\n");
    text.push_str(&tell::markdown_shortfalls(&played(false, true)));
    text
}
