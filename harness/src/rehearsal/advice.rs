//! What to change in a profile so that it finds what it misses: a longer window, more audits, a phase, a sensor.
//!
//! Reads the profile, the scenario and what the plays came to. It advises where a rehearsal fell short; what was
//! found in time needs no advice.

use super::Case;
use super::table::Row;
use crate::twin::scenario::effect::{Distortion, Part};
use crate::twin::scenario::{Effect, Scenario};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile::{Pattern, Profile};
use hallmark_profiles::units::{Unit, human, human_duration};
use std::time::Duration;

/// Recall at which nothing need be changed.
const ENOUGH: f64 = 0.95;
/// Healthy halls that may be rejected.
const FALSE_MOST: f64 = 0.01;
/// Share of plays that must find a fault by the end for a longer window to be the answer.
const LATER: f64 = 0.5;
/// A bound on a share of 95 % with nothing missed needs so many plays: 0.95^59 < 0.05.
const PLAYS_MIN: u64 = 59;

/// One sentence for each thing to change, the most telling first.
#[must_use]
pub fn advice(profile: &Profile, case: &Case, row: &Row) -> Vec<String> {
    let mut out = Vec::new();
    if row.plays == 0 {
        return out;
    }
    if row.is_calm() {
        calm(row, &mut out);
    } else {
        missed(profile, case, row, &mut out);
    }
    if row.plays < PLAYS_MIN && out.is_empty() {
        out.push(format!(
            "{} plays bound little: a share of 95 % is shown by {PLAYS_MIN} without a miss",
            row.plays
        ));
    }
    out
}

fn calm(row: &Row, out: &mut Vec<String>) {
    let rejected = row.rejected;
    if rejected.hits > 0 && rejected.hits as f64 > FALSE_MOST * rejected.of as f64 {
        out.push(format!(
            "a hall without a fault is rejected: loosen or lengthen {}",
            row.failed.join(", ")
        ));
    }
    if row.undecided.hits > 0 {
        out.push(format!(
            "a hall without a fault stays undecided: more time or another sensor for {}",
            row.doubts.join(", ")
        ));
    }
}

fn missed(profile: &Profile, case: &Case, row: &Row, out: &mut Vec<String>) {
    if share(row.in_time) >= ENOUGH {
        if share(row.as_expected) < ENOUGH {
            let said = "it is named, but no gate judges it: add a criterion on what it moves";
            out.push(said.to_owned());
        }
        return;
    }
    lacking(profile, &case.scenario, out);
    if share(row.found) > share(row.in_time) && share(row.found) >= LATER {
        let p95 = row.after_s.map_or(0.0, |a| a[1]);
        out.push(format!(
            "found later than wanted: 95 % of those found within {}; a window of that length after it begins finds it",
            spoken(p95)
        ));
    }
    if out.is_empty() && share(row.found) < ENOUGH {
        let run = spoken(row.played_s);
        out.push(format!(
            "missed in {} of {} plays of {run}: a longer window, or a sensor nearer to it",
            row.found.of - row.found.hits,
            row.found.of
        ));
    }
}

/// What a fault needs that this profile does not do.
fn lacking(profile: &Profile, scenario: &Scenario, out: &mut Vec<String>) {
    let load = &profile.load;
    let has = |pattern: Pattern| load.phases.iter().any(|p| p.pattern == pattern);
    let planned: Duration = load.phases.iter().map(|p| p.duration.duration()).sum();
    let run = scenario.conditions.duration.unwrap_or(planned);
    for fault in &scenario.faults {
        let Some(wanted) = &fault.wanted else {
            continue;
        };
        let end = fault.span.onset + wanted.within;
        if end > run {
            out.push(format!(
                "the run ends {} before the fault may be expected to show: let it last {}",
                human_duration(end - run),
                human_duration(end)
            ));
        }
        for effect in &fault.effects {
            out.extend(lacks(profile, effect, &has));
        }
    }
}

fn lacks(profile: &Profile, effect: &Effect, has: &dyn Fn(Pattern) -> bool) -> Option<String> {
    let judges = |m: Metric| profile.criteria.iter().any(|c| c.metric == m);
    match effect {
        Effect::Rate {
            of: Part::Memory, ..
        } if !has(Pattern::Memory) => Some("no phase moves memory alone: add one".to_owned()),
        Effect::Flip { per_flop, .. } => {
            let share = profile.load.audit_share;
            let audited = 1.0 / (per_flop * share).max(f64::MIN_POSITIVE);
            Some(format!(
                "audits see one flip in {} of work at a share of {}: audit more",
                human(audited, Unit::Flop),
                human(100.0 * share, Unit::Percent)
            ))
        }
        Effect::PowerSwing { .. } if !has(Pattern::Pulse) && !judges(Metric::BandEnergy) => {
            Some("no criterion judges swings: add `band_energy` at the feeder".to_owned())
        }
        Effect::Supply { .. } | Effect::SupplySwing { .. } if !judges(Metric::CoolantSupply) => {
            Some("no criterion judges the supply: add `coolant_supply`".to_owned())
        }
        Effect::DewPoint { .. } if !judges(Metric::DewMargin) => {
            Some("no criterion judges the dew point: add `dew_margin`".to_owned())
        }
        Effect::Flow { .. } | Effect::Pump { .. } if !judges(Metric::FlowPerKw) => {
            Some("no criterion judges the flow: add `flow_per_kw`".to_owned())
        }
        Effect::ThermalResistance { of: Part::Core, .. } if !judges(Metric::RTh) => {
            Some("no criterion judges cold plates: add `r_th`".to_owned())
        }
        Effect::RackCap { .. } if !judges(Metric::RackDensity) => {
            Some("no criterion judges the rack's power: add `rack_density`".to_owned())
        }
        Effect::Sensor {
            distortion: Distortion::Scaled { .. } | Distortion::Offset { .. },
            ..
        } if !judges(Metric::PowerRecon) => {
            Some("no criterion reconciles meters: add `power_recon`".to_owned())
        }
        Effect::Clock { .. } if !judges(Metric::ClockOffset) => {
            Some("no criterion judges clocks: add `clock_offset`".to_owned())
        }
        _ => None,
    }
}

fn share(share: super::table::Share) -> f64 {
    share.hits as f64 / share.of.max(1) as f64
}

/// A time in a unit that reads well.
#[must_use]
pub fn spoken(seconds: f64) -> String {
    human_duration(Duration::from_secs_f64(seconds.clamp(0.0, 1e9)))
}
