//! Joins the diagnoses to the findings: which explains which, and what rests on a sensor that is ill.
//!
//! A diagnosis never fails a gate and never lets one pass. Two exceptions take a pass back: where a sensor is stuck,
//! stale, replayed, scaled or out of step with the load, what rests on it is not shown; and where a branch nearly
//! certainly carries less coolant than it did, or a supply swings, a flow that is measured for several branches together
//! and a supply's median do not show that all is well. What was shown to be wrong stays shown.

use super::{Finding, Observed, Outcome};
use crate::diagnosis::place::Groups;
use crate::diagnosis::{Cause, Diagnosis, diagnose};
use crate::standing::Standing;
use hallmark_profiles::metric::Metric;

/// Gates that rest on meters and sensors of power.
const OF_POWER: [Metric; 9] = [
    Metric::PowerDraw,
    Metric::PowerInstant,
    Metric::Energy,
    Metric::PowerRecon,
    Metric::RackDensity,
    Metric::PowerSwing,
    Metric::Ramp,
    Metric::BandEnergy,
    Metric::FlopPerJoule,
];

/// The diagnoses of a run that is over, with the findings told of them; a run that goes on has none, since they read
/// every trace from its beginning.
pub(super) fn join(standing: &Standing, findings: &mut [Finding]) -> Vec<Diagnosis> {
    if standing.closed().is_none() {
        return Vec::new();
    }
    let diagnoses = diagnose(standing);
    let groups = Groups::of(&standing.opened().plan.devices);
    for finding in findings.iter_mut() {
        weaken(finding, &diagnoses, &groups);
        if finding.outcome != Outcome::Passed {
            finding.diagnosis = explaining(finding, &diagnoses);
        }
    }
    diagnoses
}

/// The surest diagnosis that speaks of what the finding shows where it shows it.
fn explaining(finding: &Finding, diagnoses: &[Diagnosis]) -> Option<usize> {
    let missed = finding
        .places
        .iter()
        .filter(|p| p.outcome != Outcome::Passed);
    let worst: Vec<&Observed> = missed.collect();
    let first = worst.first()?;
    let metric = finding.criterion.metric;
    let of = |place: &Observed| {
        diagnoses
            .iter()
            .position(|d| d.explains(metric, place.device))
    };
    of(first)
}

fn weaken(finding: &mut Finding, diagnoses: &[Diagnosis], groups: &Groups) {
    let metric = finding.criterion.metric;
    let of = |place: &Observed| {
        let ill = diagnoses.iter().find(|d| doubts(d, metric, place));
        let ill = ill.map(|d| format!("rests on a sensor that is not believed: {}", d.sentence()));
        let short = || {
            let short = diagnoses.iter().find(|d| hides(d, metric, place, groups))?;
            Some(format!(
                "does not show what swings or is short within it: {}",
                short.sentence()
            ))
        };
        ill.or_else(short)
    };
    let mut first = None;
    for place in finding
        .places
        .iter_mut()
        .filter(|p| p.outcome == Outcome::Passed)
    {
        if let Some(why) = of(place) {
            place.outcome = Outcome::Inconclusive;
            first.get_or_insert_with(|| why.clone());
            place.why = why;
        }
    }
    if let Some(why) = first
        && finding.outcome == Outcome::Passed
    {
        finding.outcome = Outcome::Inconclusive;
        finding.places.sort_by_key(|p| std::cmp::Reverse(p.outcome));
        finding.why = why;
    }
}

/// Whether a place's evidence rests on a sensor that a diagnosis calls ill.
fn doubts(diagnosis: &Diagnosis, metric: Metric, place: &Observed) -> bool {
    let sick = matches!(
        diagnosis.cause,
        Cause::SensorStuck
            | Cause::SensorScaled
            | Cause::SensorStale
            | Cause::SensorReplayed
            | Cause::ClockSkew
    );
    let told = |m: Metric| diagnosis.evidence.iter().any(|s| s.metric == m);
    let of_power = OF_POWER.contains(&metric) && OF_POWER.into_iter().any(told);
    // Junction above coolant, by power.
    let of_heat = metric == Metric::RTh
        && [Metric::TempCore, Metric::PowerDraw, Metric::PowerInstant]
            .into_iter()
            .any(told);
    let skewed = diagnosis.cause == Cause::ClockSkew && OF_POWER.contains(&metric);
    let here = match place.device {
        Some(device) => diagnosis.place.devices == [device],
        // The site's figure rests on each of its meters.
        None => place.place == diagnosis.place.name || place.place == "site",
    };
    sick && here && (told(metric) || of_power || of_heat || skewed)
}

/// Whether a gate of a place cannot show what a diagnosis is nearly certain of: one branch of several that carries less,
/// a supply that swings about its median.
fn hides(diagnosis: &Diagnosis, metric: Metric, place: &Observed, groups: &Groups) -> bool {
    let blind = match diagnosis.cause {
        Cause::BranchFlow => matches!(metric, Metric::Flow | Metric::FlowPerKw),
        Cause::Hunting => metric == Metric::CoolantSupply,
        _ => false,
    };
    let sure = blind && diagnosis.is_nearly_certain();
    sure && diagnosis.place.is_within(&groups.of_meter(&place.place))
}
