//! Plays the faults of `tests/scenarios` at half, once and twice their severity, and writes DETECTION.md.
//!
//! `cargo run --release -p hallmark-tests --example scoreboard -- [--seeds 60] [--healthy 300] [--minutes 360]
//! [--plays FILE] [--only NAME,…] [--jobs N]`
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

const FACTORS: [f64; 3] = [1.0, 0.5, 2.0];

/// What is asked on the command line.
struct Asked {
    seeds: u64,
    healthy: u64,
    minutes: u64,
    plays: PathBuf,
    only: Vec<String>,
    jobs: usize,
}

fn asked() -> Result<Asked, String> {
    let mut asked = Asked {
        seeds: 60,
        healthy: 300,
        minutes: 360,
        plays: PathBuf::from("target/scoreboard.jsonl"),
        only: Vec::new(),
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
            "--jobs" => asked.jobs = number()? as usize,
            "--plays" => asked.plays = PathBuf::from(value),
            "--only" => asked.only = value.split(',').map(str::to_owned).collect(),
            other => {
                let known = "--seeds, --healthy, --minutes, --jobs, --plays, --only";
                return Err(format!("unknown option `{other}`; known: {known}"));
            }
        }
    }
    Ok(asked)
}

fn main() -> Result<(), String> {
    let asked = asked()?;
    let cases: Vec<Case> = cases(&asked.only);
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
    let text = document(&rows);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../DETECTION.md");
    std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn cases(only: &[String]) -> Vec<Case> {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| o == name);
    let all = scenarios::all().into_iter().filter(|s| wanted(&s.name));
    all.flat_map(|s| {
        let factors = if s.has_severity() && s.faults.iter().any(|f| f.wanted.is_some()) {
            FACTORS.to_vec()
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
    text.push_str("\n## At half and at twice the severity\n");
    text.push_str(&tell::markdown_rows(&played(false, false), false));
    text.push_str("\n## Where it falls short\n");
    text.push_str(&tell::markdown_shortfalls(&played(false, true)));
    text
}
