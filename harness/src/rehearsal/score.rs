//! Scores one play: which faults were named, when, where and by which cause.
//!
//! Folds the play's own frames, as a judge of the record would, and looks at what the record names at times that
//! double from the onset on. It sees the hall only through frames; what is wrong with it, it knows from the scenario.

use super::picture::Picture;
use super::{Case, Played, Sought, Would};
use crate::twin::scenario::{Hall, Placed, Wanted};
use hallmark_results::diagnosis::{Diagnosis, diagnose};
use hallmark_results::frame::Frame;
use hallmark_results::standing::Standing;
use hallmark_results::verdict::{Outcome, Verdict, judge};
use std::collections::BTreeSet;
use std::time::Duration;

/// Looks within the time that a fault may take.
const LOOKS_IN_TIME: u32 = 4;
/// A look costs what judging costs, so they are not closer than this.
const LOOKS_APART: Duration = Duration::from_secs(2);
/// Looks after that time, each twice as late as the one before.
const LOOKS_LATE: u32 = 6;

/// A fault that is looked for.
struct Hunted {
    wanted: Wanted,
    place: String,
    devices: BTreeSet<u32>,
    onset_ns: u64,
    found_ns: Option<u64>,
}

/// The fold over one play.
pub struct Score {
    standing: Option<Standing>,
    hunted: Vec<Hunted>,
    /// Devices of faults that must alarm nobody, too: what is said there is no stray.
    touched: BTreeSet<u32>,
    /// Latest first.
    looks_ns: Vec<u64>,
    wants_picture: bool,
    broke: Option<String>,
}

impl Score {
    /// `placed`: the scenario's faults where the seed put them.
    #[must_use]
    pub fn new(hall: &Hall, placed: &[Placed], wants_picture: bool) -> Self {
        let hunted = placed.iter().filter_map(|p| {
            let wanted = p.fault.wanted.clone()?;
            let place = p.wanted_place(hall);
            Some(Hunted {
                wanted,
                place: place.to_string(),
                devices: place.gpus(hall).collect(),
                onset_ns: p.fault.span.onset.as_nanos() as u64,
                found_ns: None,
            })
        });
        let hunted: Vec<Hunted> = hunted.collect();
        let looks: BTreeSet<u64> = hunted.iter().flat_map(looks).collect();
        Self {
            standing: None,
            touched: placed.iter().flat_map(|p| p.place.gpus(hall)).collect(),
            hunted,
            looks_ns: looks.into_iter().rev().collect(),
            wants_picture,
            broke: None,
        }
    }

    /// Takes the next frame of the play.
    pub fn push(&mut self, frame: &Frame) {
        if self.broke.is_some() {
            return;
        }
        self.look_before(latest_ns(frame));
        let taken = match &mut self.standing {
            None => Standing::open(frame).map(|s| self.standing = Some(s)),
            Some(standing) => standing.push(frame),
        };
        if let Err(error) = taken {
            self.broke = Some(format!("the record refuses a frame: {error}"));
        }
    }

    /// The looks that were due before this time, by what was known then.
    fn look_before(&mut self, now_ns: u64) {
        let mut due_ns = None;
        while let Some(at_ns) = self.looks_ns.pop_if(|at| *at < now_ns) {
            due_ns.get_or_insert(at_ns);
        }
        if let (Some(due_ns), Some(standing)) = (due_ns, &self.standing)
            && self.hunted.iter().any(|h| h.found_ns.is_none())
        {
            let named = diagnose(standing);
            look(&mut self.hunted, &named, due_ns);
        }
    }

    /// What the play came to.
    #[must_use]
    pub fn finish(mut self, case: &Case, seed: u64) -> Played {
        let mut played = Played {
            case: case.key(),
            seed,
            would: None,
            broke: self.broke.take(),
            failed: Vec::new(),
            undecided: Vec::new(),
            sought: Vec::new(),
            strays: Vec::new(),
            sealed: false,
            played_s: 0.0,
            took_s: 0.0,
            picture: None,
        };
        let Some(standing) = self.standing.take() else {
            played
                .broke
                .get_or_insert("no frame was written".to_owned());
            return played;
        };
        if played.broke.is_some() {
            return played;
        }
        let verdict = judge(&standing);
        // What the verdict tells; of a run that never closed it tells nothing yet.
        let named = if standing.closed().is_some() {
            verdict.diagnoses.clone()
        } else {
            diagnose(&standing)
        };
        look(&mut self.hunted, &named, standing.last_ns());
        played.would = Some(would(&verdict));
        played.failed = gates(&verdict, Outcome::Failed);
        played.undecided = gates(&verdict, Outcome::Inconclusive);
        played.played_s = standing.last_ns() as f64 / 1e9;
        played.strays = self.strays(&named);
        played.sought = self.hunted.iter().map(|h| sought(h, &named)).collect();
        if self.wants_picture {
            let onset_ns = self.hunted.first().map(|h| h.onset_ns);
            let found_ns = self.hunted.first().and_then(|h| h.found_ns);
            let about = self.hunted.first().and_then(|h| best(h, &named));
            played.picture = Picture::of(&standing, about, onset_ns, found_ns);
        }
        played
    }

    fn strays(&self, named: &[Diagnosis]) -> Vec<String> {
        let elsewhere = |d: &&Diagnosis| {
            let here = d.place.devices.iter().any(|i| self.touched.contains(i));
            let meant = self.hunted.iter().any(|h| is_meant(h, d));
            !here && !meant
        };
        named
            .iter()
            .filter(elsewhere)
            .map(Diagnosis::sentence)
            .collect()
    }
}

/// The latest time that a frame tells of; 0 where it tells none.
fn latest_ns(frame: &Frame) -> u64 {
    match frame {
        Frame::Samples(samples) => samples.at_ns.last().copied().unwrap_or(0),
        Frame::Steps(steps) => steps.rows.iter().map(|r| r.end_ns).max().unwrap_or(0),
        Frame::Event(event) => event.at_ns,
        Frame::Closed(closed) => closed.at_ns,
        _ => 0,
    }
}

/// Times from the onset on at which it is looked for.
fn looks(hunted: &Hunted) -> Vec<u64> {
    let within = hunted.wanted.within.max(LOOKS_APART);
    let early = (1..=LOOKS_IN_TIME).map(|i| within * i / LOOKS_IN_TIME);
    let late = (1..=LOOKS_LATE).map(|i| within * 2_u32.pow(i));
    let after = early
        .chain(late)
        .map(|t| t.max(LOOKS_APART).as_nanos() as u64);
    after.map(|t| hunted.onset_ns.saturating_add(t)).collect()
}

fn look(hunted: &mut [Hunted], named: &[Diagnosis], now_ns: u64) {
    for one in hunted.iter_mut().filter(|h| h.found_ns.is_none()) {
        if best(one, named).is_some() {
            one.found_ns = Some(now_ns);
        }
    }
}

/// One of the fault's causes, at a place that shares a device with it; or, of what only a meter shows, its loop's.
fn is_meant(hunted: &Hunted, named: &Diagnosis) -> bool {
    let devices = &named.place.devices;
    let shared = devices.iter().any(|d| hunted.devices.contains(d));
    let whole = devices.is_empty() && named.place.name.ends_with(hunted.place.as_str());
    hunted.wanted.causes.contains(&named.cause) && (shared || whole)
}

fn is_there(hunted: &Hunted, named: &Diagnosis) -> bool {
    let devices = &named.place.devices;
    let same =
        devices.len() == hunted.devices.len() && devices.iter().all(|d| hunted.devices.contains(d));
    same || devices.is_empty() && named.place.name.ends_with(hunted.place.as_str())
}

/// What was said of the fault: in its place by its cause, else by its cause, else in its place.
fn best<'a>(hunted: &Hunted, named: &'a [Diagnosis]) -> Option<&'a Diagnosis> {
    let first = |holds: &dyn Fn(&Diagnosis) -> bool| named.iter().find(|d| holds(d));
    first(&|d| is_meant(hunted, d) && is_there(hunted, d))
        .or_else(|| first(&|d| is_meant(hunted, d)))
        .or_else(|| first(&|d| is_there(hunted, d)))
}

fn sought(hunted: &Hunted, named: &[Diagnosis]) -> Sought {
    let said = best(hunted, named);
    let after_ns = hunted.found_ns.map(|t| t.saturating_sub(hunted.onset_ns));
    Sought {
        cause: hunted
            .wanted
            .causes
            .first()
            .map_or("", |c| c.id())
            .to_owned(),
        place: hunted.place.clone(),
        within_s: hunted.wanted.within.as_secs_f64(),
        found: said.is_some(),
        after_s: said.and(after_ns).map(|t| t as f64 / 1e9),
        right_place: said.is_some_and(|d| is_there(hunted, d)),
        right_cause: said.is_some_and(|d| is_meant(hunted, d)),
        said: said.map(Diagnosis::sentence),
    }
}

/// As if all of it had been measured: simulated evidence decides nothing, and says what it would.
pub(super) fn would(verdict: &Verdict) -> Would {
    let worst = verdict.findings.iter().map(|f| f.outcome).max();
    match worst {
        Some(Outcome::Failed) => Would::Reject,
        Some(Outcome::Passed) => Would::Accept,
        Some(Outcome::Inconclusive) | None => Would::DecideNothing,
    }
}

fn gates(verdict: &Verdict, outcome: Outcome) -> Vec<String> {
    /// A row tells the kind of what went wrong, not all of it.
    const TOLD: usize = 12;
    let found = verdict.findings.iter().filter(|f| f.outcome == outcome);
    let names = found.map(|f| match f.criterion.name.as_str() {
        "evidence" => format!("evidence: {}", f.why),
        name => name.to_owned(),
    });
    names.take(TOLD).collect()
}
