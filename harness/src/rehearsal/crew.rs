//! Plays many cases on all cores: one thread a core, one play at a time on each.
//!
//! Results arrive as they are done, in no order; each carries its case and seed, so that order tells nothing. A play
//! that breaks, breaks itself alone. Once stopped, no new play begins, and those that are on end.

use super::sealed::Sealing;
use super::{Case, Played, Score};
use crate::clock::RunClock;
use crate::twin;
use crate::twin::scenario::{Effect, Scenario};
use hallmark_profiles::profile::{self, Loaded};
use hallmark_results::frame::Frame;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// Threads at most, however many cores there are: each holds a hall in memory.
const CREW_MAX: usize = 64;

/// One play that is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Index of the case.
    pub case: usize,
    pub seed: u64,
    pub wants_picture: bool,
    /// Goes through a sealed record on disk as well; what edits the record always does.
    pub sealed: bool,
}

/// Plays a scenario with a seed and hands every frame over; an error says why it could not be played.
pub type Play<'a> =
    dyn Fn(&Scenario, u64, &mut dyn FnMut(&Frame)) -> Result<(), String> + Sync + 'a;

/// Plays a scenario in the simulated hall with the profile that it names.
///
/// # Errors
/// Why it could not be played.
pub fn twin(scenario: &Scenario, seed: u64, take: &mut dyn FnMut(&Frame)) -> Result<(), String> {
    let loaded = profile::load(&scenario.conditions.profile).map_err(|e| e.to_string())?;
    with(&loaded, scenario, seed, take)
}

/// As [`twin`], with another profile than the one that the scenario names.
///
/// # Errors
/// Why it could not be played.
pub fn with(
    loaded: &Loaded,
    scenario: &Scenario,
    seed: u64,
    take: &mut dyn FnMut(&Frame),
) -> Result<(), String> {
    let played = twin::play(loaded, scenario, seed, take);
    played.map(drop).map_err(|e| e.to_string())
}

/// As many as there are cores.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Plays all parts; `done` is told of each on the calling thread.
pub fn perform(
    cases: &[Case],
    parts: &[Part],
    jobs: usize,
    stop: &AtomicBool,
    play: &Play<'_>,
    done: &mut dyn FnMut(Part, Played),
) {
    let jobs = jobs.clamp(1, CREW_MAX).min(parts.len().max(1));
    let next = AtomicUsize::new(0);
    let (results, arrivals) = sync_channel(2 * jobs);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (results, next) = (results.clone(), &next);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        return;
                    };
                    let Some(case) = cases.get(part.case) else {
                        continue;
                    };
                    if results.send((*part, one(case, *part, play))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        for (part, played) in arrivals {
            done(part, played);
        }
    });
}

/// Plays one part and scores it.
pub fn one(case: &Case, part: Part, play: &Play<'_>) -> Played {
    let clock = RunClock::start();
    let scenario = &case.scenario;
    let placed = scenario.placed(part.seed);
    let mut score = Score::new(&scenario.hall, &placed, part.wants_picture);
    let effects = placed.iter().flat_map(|p| &p.fault.effects);
    let edited = effects.into_iter().any(|e| matches!(e, Effect::Record(_)));
    let sealing = (part.sealed || edited).then(Sealing::start).transpose();
    let (mut sealing, unsealed) = match sealing {
        Ok(sealing) => (sealing, None),
        Err(why) => (None, Some(why)),
    };
    let told = catch_unwind(AssertUnwindSafe(|| {
        play(scenario, part.seed, &mut |frame| {
            score.push(frame);
            if let Some(sealing) = &mut sealing {
                sealing.push(frame);
            }
        })
    }));
    let mut played = score.finish(case, part.seed);
    match told {
        Ok(Ok(())) => match (sealing, unsealed) {
            (Some(sealing), _) => sealing.finish(&placed, &mut played),
            (None, Some(why)) => broken(&mut played, why),
            (None, None) => {}
        },
        Ok(Err(why)) => broken(&mut played, why),
        Err(_) => broken(&mut played, "the simulated hall panicked".to_owned()),
    }
    played.took_s = Duration::from_nanos(clock.now_ns()).as_secs_f64();
    played
}

fn broken(played: &mut Played, why: String) {
    played.would = None;
    played.broke = Some(why);
}
