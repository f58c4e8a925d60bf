//! The rule that turns evidence into outcomes.
//!
//! PASS: the place's one-sided 95 % bound clears every limit; uncorrected, since all gates must pass.
//! FAIL: the evidence stands on the other side even after Bonferroni over the gate's places and Holm
//! over the gates. Everything between, and everything that is missing, is INCONCLUSIVE.

use super::evidence::{Bounded, Evidence};
use super::observe::{Scene, Sight, is_phase, sensors};
use super::{
    Action, CONFIDENCE, Finding, NotMeasured, Observed, Outcome, Punch, Verdict, diagnosed,
    implied, limits, words,
};
use crate::diagnosis::Diagnosis;
use crate::frame::{Provenance, What};
use crate::plan::Plan;
use crate::standing::Standing;
use crate::standing::window::Window;
use crate::stats::multiplicity::holm;
use hallmark_profiles::criterion::{Criterion, Reference, Scope, Side, Statistic};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::Unit;
use std::collections::{BTreeMap, BTreeSet};

/// Metrics of the run as a whole, which need no particular phase to have begun.
pub(super) const RUN_WIDE: [Metric; 9] = [
    Metric::SelfTest,
    Metric::Inventory,
    Metric::Failures,
    Metric::AuditErrors,
    Metric::AuditShare,
    Metric::AuditExposure,
    Metric::SdcUcl,
    Metric::StepsCompleted,
    Metric::ClockOffset,
];

/// Metrics of the evidence itself: too little of it decides nothing, for or against.
const OF_EVIDENCE: [Metric; 5] = [
    Metric::TelemetryCoverage,
    Metric::TelemetryGap,
    Metric::TelemetryAge,
    Metric::AuditShare,
    Metric::ClockOffset,
];

/// A place, the chance of its evidence if it held, and its limits from below and above.
type Weighed = (Observed, f64, (Option<f64>, Option<f64>));

/// A finding before the gates are weighed against each other.
struct Draft {
    finding: Finding,
    /// Chance of this evidence if the gate held; 1 where it says nothing.
    p_holds: f64,
}

/// The verdict on a run so far.
pub fn judge(standing: &Standing) -> Verdict {
    let profile = standing.profile();
    let mut criteria = profile.criteria.clone();
    criteria.extend(implied::criteria(standing));
    let gates = criteria.len().max(1);
    let mut drafts: Vec<Draft> = criteria.iter().map(|c| draft(standing, c, gates)).collect();
    let adjusted = holm(&drafts.iter().map(|d| d.p_holds).collect::<Vec<_>>());
    for (draft, p) in drafts.iter_mut().zip(adjusted) {
        if p < 1.0 - CONFIDENCE {
            draft.finding.outcome = Outcome::Failed;
        }
        draft.finding.why = words::why(&draft.finding);
    }
    let mut findings: Vec<Finding> = drafts.into_iter().map(|d| d.finding).collect();
    let failed = findings.iter().any(|f| f.outcome == Outcome::Failed);
    for finding in &mut findings {
        // A simulated hall keeps its findings, since all of it is invented; a real one is not failed by invention.
        let invented = implied::rests_on(standing, finding);
        let invented = invented.filter(|p| *p != Provenance::Simulated);
        if let (Outcome::Failed, Some(provenance)) = (finding.outcome, invented) {
            finding.outcome = Outcome::Inconclusive;
            let shouted = implied::shout(provenance);
            finding.why = format!("{} ({shouted}: decides nothing)", finding.why);
        }
    }
    let diagnoses = diagnosed::join(standing, &mut findings);
    let mut doubts = implied::doubts(standing);
    let absent = absent_metrics(standing);
    if !absent.is_empty() {
        doubts.push(format!(
            "declared, but no sensor gave it: {}",
            absent.join(", ")
        ));
    }
    findings.extend(doubts.into_iter().map(doubt));
    findings.sort_by_key(|f| std::cmp::Reverse(f.outcome));
    conclude(standing, (findings, diagnoses), absent, failed)
}

/// `failed`: some gate is shown not to hold, by whatever evidence.
fn conclude(
    standing: &Standing,
    (findings, mut diagnoses): (Vec<Finding>, Vec<Diagnosis>),
    absent: Vec<String>,
    failed: bool,
) -> Verdict {
    let profile = standing.profile();
    let plan = &standing.opened().plan;
    let unmeasured = implied::unmeasured(standing);
    let mut outcome = findings
        .iter()
        .map(|f| f.outcome)
        .max()
        .unwrap_or(Outcome::Inconclusive);
    // Where all gates hold, a guess at a cause has nothing to explain.
    if outcome == Outcome::Passed {
        diagnoses.retain(Diagnosis::is_worth_telling);
    }
    let mut remarks = Vec::new();
    let shouts: Vec<_> = unmeasured.iter().map(|p| implied::shout(*p)).collect();
    let shouted = shouts.join(" + ");
    let would = match outcome {
        Outcome::Passed => "accept",
        _ if failed => "reject",
        _ => "decide nothing",
    };
    if !unmeasured.is_empty() {
        remarks.push(format!(
            "{shouted}: would {would}; only measured evidence accepts or rejects a site"
        ));
        let shown =
            |f: &Finding| f.outcome == Outcome::Failed && implied::rests_on(standing, f).is_none();
        if outcome == Outcome::Passed || !findings.iter().any(shown) {
            outcome = Outcome::Inconclusive;
        }
    }
    let accepts_site = profile.accepts_site && plan.overrides.is_empty() && unmeasured.is_empty();
    if outcome == Outcome::Passed && !accepts_site {
        remarks.push(format!("{} passed: accepts no site", profile.name));
    }
    let sentence = match (outcome, unmeasured.is_empty()) {
        (Outcome::Inconclusive, false) if would == "accept" => format!("{shouted}: would accept"),
        (Outcome::Inconclusive, false) if would == "reject" => format!(
            "{shouted}: would reject: {}",
            words::sentence(Outcome::Failed, &findings)
        ),
        _ => words::sentence(outcome, &findings),
    };
    Verdict {
        outcome,
        sentence,
        punch: punch(&findings),
        not_measured: not_measured(standing, absent),
        findings,
        diagnoses,
        confidence: CONFIDENCE,
        accepts_site,
        remarks,
    }
}

/// A reason for doubt as a finding of its own.
fn doubt(why: String) -> Finding {
    Finding {
        criterion: Criterion {
            name: "evidence".to_owned(),
            metric: Metric::TelemetryCoverage,
            scope: Scope::Site,
            statistic: Statistic::Total,
            relative_to: Reference::Absolute,
            at_least: None,
            at_most: None,
            allowed_share: 0.0,
            min_samples: 0,
            phase: None,
            side: Side::Harness,
            remedy: None,
        },
        phase: String::new(),
        outcome: Outcome::Inconclusive,
        at_least: None,
        at_most: None,
        unit: Unit::One,
        side: Side::Harness,
        places: Vec::new(),
        why,
        remedy: None,
        diagnosis: None,
    }
}

fn draft(standing: &Standing, criterion: &Criterion, gates: usize) -> Draft {
    let phase = Plan::phase_of(standing.profile(), criterion);
    let name = standing
        .profile()
        .load
        .phases
        .get(phase)
        .map_or_else(String::new, |p| p.name.clone());
    let run_wide = RUN_WIDE.contains(&criterion.metric) || sensors::is_run_wide(criterion);
    let of_phase = standing.phase_window(phase).filter(|w| is_phase(w));
    // A run whose devices were all missing has no window at all, and is judged for that.
    let blank = standing.blank().filter(|_| run_wide);
    let last = standing.windows().last().filter(|_| run_wide);
    let window: Option<&Window> = of_phase.or(last).or(blank.as_ref());
    let unit = unit(criterion);
    let mut finding = Finding {
        criterion: criterion.clone(),
        outcome: Outcome::Inconclusive,
        at_least: limit(criterion, true, unit),
        at_most: limit(criterion, false, unit),
        unit,
        side: criterion.side,
        places: Vec::new(),
        why: String::new(),
        remedy: criterion.remedy.clone(),
        diagnosis: None,
        phase: name.clone(),
    };
    let Some(window) = window else {
        finding.places.push(Observed {
            place: "site".to_owned(),
            device: None,
            estimate: None,
            outcome: Outcome::Inconclusive,
            why: format!("phase `{name}` never began"),
        });
        return Draft {
            finding,
            p_holds: 1.0,
        };
    };
    let scene = |window| Scene::new(standing, window);
    // A phase that a resumed run began anew is judged by its last pass; what an earlier one has shown
    // to be wrong is not undone by that.
    let again = |w: &&Window| !run_wide && is_phase(w) && w.kind == window.kind;
    let passes = standing.windows().iter().filter(again);
    let earlier: Vec<Scene> = passes
        .filter(|w| w.start_ns < window.start_ns)
        .map(scene)
        .collect();
    let began = of_phase.is_some_and(|w| w.end_ns != Some(w.start_ns));
    let never = of_phase.is_none() && last.is_none();
    let why = (never || sensors::is_run_wide(criterion) && !began)
        .then(|| format!("phase `{name}`, the one that counts, never began"));
    weigh(
        &scene(window),
        &earlier,
        criterion,
        &mut finding,
        (gates, why),
    )
}

/// Judges each place, then the gate by how many of them miss.
fn weigh(
    scene: &Scene,
    earlier: &[Scene],
    criterion: &Criterion,
    finding: &mut Finding,
    (gates, weak): (usize, Option<String>),
) -> Draft {
    let mut sights = scene.sights(criterion);
    for sight in &mut sights {
        sight.thin = sight.thin.take().or_else(|| weak.clone());
    }
    let before: Vec<Vec<Sight>> = earlier.iter().map(|s| s.sights(criterion)).collect();
    let tests = sights.len() + before.iter().map(Vec::len).sum::<usize>();
    let level = (1.0 - CONFIDENCE) / (gates * tests.max(1)) as f64;
    let all = |sights: &[Sight]| -> Vec<Weighed> {
        (0..sights.len())
            .map(|i| place(scene.standing, criterion, finding, sights, i, level))
            .collect()
    };
    let mut weighed = all(&sights);
    // Lost time is counted in the last pass already.
    if criterion.metric != Metric::Duty {
        let mut failed: Vec<Weighed> = before.iter().flat_map(|s| all(s)).collect();
        failed.retain(|w| w.0.outcome == Outcome::Failed);
        once_a_place(&mut weighed, failed);
    }
    let count = weighed.len();
    // The worst first: failed before unknown before passed, and among equals the likelier miss.
    weighed.sort_by(|a, b| b.0.outcome.cmp(&a.0.outcome).then(a.1.total_cmp(&b.1)));
    let allowed = (criterion.allowed_share * sights.len() as f64).floor() as usize;
    let mut p: Vec<f64> = weighed.iter().map(|w| w.1).collect();
    p.sort_by(f64::total_cmp);
    let p_holds = p.get(allowed).map_or(1.0, |p| (p * tests as f64).min(1.0));
    let short = weighed
        .iter()
        .filter(|w| w.0.outcome != Outcome::Passed)
        .count();
    // A share of places may miss the limit; none may go unseen, or be held against nothing.
    let nothing = (None, None);
    let unseen = weighed
        .iter()
        .any(|w| w.0.estimate.is_none() || w.2 == nothing);
    finding.outcome = if count > 0 && short <= allowed && !unseen {
        Outcome::Passed
    } else {
        Outcome::Inconclusive
    };
    if criterion.relative_to != Reference::Absolute {
        // A ratio is no limit in the metric's unit: where nothing could be compared, none is known.
        let resolved = weighed.iter().map(|w| w.2).find(|l| *l != nothing);
        (finding.at_least, finding.at_most) = resolved.unwrap_or(nothing);
    }
    finding.places = weighed.into_iter().map(|w| w.0).collect();
    Draft {
        finding: finding.clone(),
        p_holds: if finding.outcome == Outcome::Passed {
            1.0
        } else {
            p_holds
        },
    }
}

/// What an earlier pass has shown to be wrong stays so; a place that misses in both passes is one place that misses.
fn once_a_place(weighed: &mut Vec<Weighed>, earlier: Vec<Weighed>) {
    let places = weighed.iter().map(|w| w.0.place.clone());
    let mut at: BTreeMap<String, usize> = places.zip(0..).collect();
    for (mut seen, p, limits) in earlier {
        seen.why = "before the run was resumed".to_owned();
        match at.get(&seen.place).and_then(|at| weighed.get_mut(*at)) {
            Some(now) if now.0.outcome == Outcome::Failed => now.1 = now.1.min(p),
            Some(now) => *now = (seen, p, limits),
            None => {
                at.insert(seen.place.clone(), weighed.len());
                weighed.push((seen, p, limits));
            }
        }
    }
}

/// One place: what was seen, its outcome, the chance that it holds, and its limits resolved.
fn place(
    standing: &Standing,
    criterion: &Criterion,
    finding: &Finding,
    sights: &[Sight],
    index: usize,
    level: f64,
) -> Weighed {
    let sight = &sights[index];
    let mut seen = Observed {
        place: sight.place.clone(),
        device: sight.device,
        estimate: None,
        outcome: Outcome::Inconclusive,
        why: String::new(),
    };
    let bounded = match sight.evidence.bounded(criterion.statistic, CONFIDENCE) {
        Ok(bounded) => bounded,
        Err(why) => {
            seen.why = why;
            return (seen, 1.0, (None, None));
        }
    };
    seen.estimate = Some(bounded.estimate(finding.unit));
    let base = match limits::base(standing, criterion, sight) {
        Ok(base) => base,
        Err(why) => {
            seen.why = why;
            return (seen, 1.0, (None, None));
        }
    };
    let low = finding.at_least.map(|l| l * base);
    let low = match criterion.relative_to {
        Reference::SkuReference if criterion.metric == Metric::AllreduceBusbw => {
            low.map(|l| limits::sku_floor(standing, criterion.metric).map_or(l, |f| f.max(l)))
        }
        _ => low,
    };
    let high = finding.at_most.map(|l| l * base);
    if bounded.samples < criterion.min_samples {
        seen.why = format!(
            "{} samples, {} are needed",
            bounded.samples, criterion.min_samples
        );
        return (seen, 1.0, (low, high));
    }
    let p = if OF_EVIDENCE.contains(&criterion.metric) {
        1.0
    } else {
        miss(&sight.evidence, criterion.statistic, (low, high), level)
    };
    let clear = clears(bounded, low, high);
    seen.outcome = match &sight.thin {
        None if clear => Outcome::Passed,
        _ if p <= level && !clear => Outcome::Failed,
        _ => Outcome::Inconclusive,
    };
    if seen.outcome != Outcome::Passed {
        let samples = bounded.samples;
        let unsettled = || match sight
            .evidence
            .worth(criterion.statistic)
            .filter(|w| *w < samples)
        {
            Some(worth) => {
                format!("{samples} samples, worth {worth} independent ones, do not settle it")
            }
            None => format!("{samples} samples do not settle it"),
        };
        seen.why = match sight.thin.as_ref().or(sight.told.as_ref()) {
            Some(why) => why.clone(),
            None if OF_EVIDENCE.contains(&criterion.metric) => {
                "too little evidence, which decides nothing".to_owned()
            }
            None if seen.outcome == Outcome::Inconclusive => unsettled(),
            None => String::new(),
        };
    }
    (seen, p, (low, high))
}

fn clears(b: Bounded, at_least: Option<f64>, at_most: Option<f64>) -> bool {
    // Rounding in the last place of a figure that is known exactly is no miss.
    let slack = |limit: f64| limit.abs() * 1e-12;
    at_least.is_none_or(|l| b.low.is_some_and(|low| low >= l - slack(l)))
        && at_most.is_none_or(|l| b.high.is_some_and(|high| high <= l + slack(l)))
}

fn miss(
    evidence: &Evidence,
    statistic: Statistic,
    limits: (Option<f64>, Option<f64>),
    level: f64,
) -> f64 {
    let below = limits
        .0
        .map_or(1.0, |l| evidence.p_at_least(statistic, l, level));
    let above = limits
        .1
        .map_or(1.0, |l| evidence.p_at_most(statistic, l, level));
    below.min(above)
}

/// The unit that a criterion's figures come in.
fn unit(criterion: &Criterion) -> Unit {
    match criterion.statistic {
        Statistic::Slope => Unit::PercentPerDay,
        Statistic::Variation => Unit::One,
        Statistic::Spread => criterion.metric.spec().unit.difference(),
        _ => criterion.metric.spec().unit,
    }
}

/// A limit in the estimate's unit, or as a plain ratio where it is relative.
fn limit(criterion: &Criterion, least: bool, unit: Unit) -> Option<f64> {
    let quantity = if least {
        criterion.at_least
    } else {
        criterion.at_most
    }?;
    let wanted = if criterion.relative_to == Reference::Absolute {
        unit
    } else {
        Unit::One
    };
    quantity.in_unit(wanted).ok()
}

/// Metrics that the profile declares and that no sensor gave, or not of every device.
fn absent_metrics(standing: &Standing) -> Vec<String> {
    let devices = &standing.opened().plan.devices;
    let declared = standing.profile().telemetry.metrics.iter();
    let absent = |metric: &Metric| {
        let tables = standing.tables().iter().map(|t| &t.table);
        let giving = tables.filter(|t| t.series.iter().any(|s| s.metric == *metric));
        let owners: BTreeSet<Option<u32>> = giving.map(|t| t.device).collect();
        if owners.is_empty() {
            return Some(metric.to_string());
        }
        let without = |d: &usize| !owners.contains(&Some(*d as u32));
        let on_devices = owners.iter().any(Option::is_some);
        let lacking: Vec<&str> = (0..devices.len())
            .filter(|d| on_devices && without(d))
            .map(|d| devices[d].id.as_str())
            .collect();
        (!lacking.is_empty()).then(|| format!("{metric} of {}", lacking.join(", ")))
    };
    declared.filter_map(absent).collect()
}

fn punch(findings: &[Finding]) -> Vec<Punch> {
    let mut punch: Vec<Punch> = findings
        .iter()
        .filter(|f| f.outcome != Outcome::Passed)
        .map(|f| {
            let place = f
                .worst()
                .map_or_else(|| "run".to_owned(), |p| p.place.clone());
            let broken = matches!(
                f.criterion.metric,
                Metric::AuditErrors | Metric::Failures | Metric::Ecc | Metric::Inventory
            );
            let on_device = f.worst().is_some_and(|p| p.device.is_some());
            let action = match f.outcome {
                _ if words::is_of_settings(&f.criterion) => Action::Investigate,
                Outcome::Failed if broken && on_device => Action::Replace,
                Outcome::Failed if on_device => Action::Retest,
                _ => Action::Investigate,
            };
            Punch {
                action,
                place,
                why: f
                    .remedy
                    .as_ref()
                    .map_or_else(|| f.why.clone(), |r| format!("{}. {r}", f.why)),
            }
        })
        .collect();
    punch.sort_by_key(|p| p.action);
    punch
}

fn not_measured(standing: &Standing, absent: Vec<String>) -> Vec<NotMeasured> {
    let declared = absent.into_iter().map(|what| NotMeasured {
        what,
        why: "the profile asks for it, and no sensor of this node gives it".to_owned(),
        remedy: "add the sensor, or the meter that has it".to_owned(),
    });
    let events = standing.events().iter().filter_map(|e| match &e.what {
        What::Absent { what, why, remedy } => Some(NotMeasured {
            what: what.clone(),
            why: why.clone(),
            remedy: remedy.clone(),
        }),
        _ => None,
    });
    let limits = standing
        .opened()
        .plan
        .limits
        .iter()
        .map(|limit| NotMeasured {
            what: "limits of this run".to_owned(),
            why: limit.clone(),
            remedy: String::new(),
        });
    let mut all: Vec<NotMeasured> = Vec::new();
    for one in declared.chain(events).chain(limits) {
        // A sensor may say the same at every start.
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}
