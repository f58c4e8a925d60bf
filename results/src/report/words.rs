//! How a report says figures, limits, places and states: one wording for every format.
//!
//! Figures go through [`human`]; nothing here decides an outcome.

use super::escape::clean;
use super::{Story, pairs};
use crate::frame::{ClockState, Ending, FaultKind, Provenance, What};
pub use crate::verdict::words::{metric, shown_in, value};
use crate::verdict::{Action, Estimate, Finding, Outcome};
use hallmark_profiles::criterion::{Criterion, Reference, Scope, Side, Statistic};
use hallmark_profiles::quantity::Quantity;
use hallmark_profiles::units::{Unit, human, human_duration};
use std::time::Duration;

const NBSP: char = '\u{a0}';

/// A name as people read it: `step-time` is `step time`.
pub fn spoken(name: &str) -> String {
    clean(&name.replace(['-', '_'], " "))
}

/// With a capital first letter, for headings and row titles; a name such as `cpu0` or `idle_gap` stays as it is.
pub fn capital(text: &str) -> String {
    let first_word = text.split([' ', ':', ',']).next().unwrap_or_default();
    if first_word.contains(|c: char| c.is_ascii_digit() || c == '_') {
        return text.to_owned();
    }
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(chars).collect()
}

/// A reason without the place's own name in front of it, where that is said already.
pub fn beside(place: &str, why: &str) -> String {
    let (place, why) = (clean(place), clean(why));
    let rest = why
        .strip_prefix(&place)
        .and_then(|rest| rest.strip_prefix(": "));
    rest.map_or_else(|| why.clone(), str::to_owned)
}

/// A length of time.
pub fn duration(ns: u64) -> String {
    human_duration(Duration::from_nanos(ns))
}

/// A length that was chosen or is long: trailing zeros say nothing.
pub fn planned(ns: u64) -> String {
    trimmed(&duration(ns))
}

/// A reason why clocks are held down, as people call it.
pub fn reason(label: &str) -> String {
    match label {
        "sw_power_cap" => "power cap, software".to_owned(),
        "hw_slowdown" => "hardware slowdown".to_owned(),
        "sw_thermal" => "thermal slowdown, software".to_owned(),
        "hw_thermal" => "thermal slowdown, hardware".to_owned(),
        "hw_power_brake" => "power brake".to_owned(),
        other => spoken(other),
    }
}

/// An instant of the run: `41 h 20 min`, `12.4 s`.
pub fn instant(ns: u64) -> String {
    if ns < 60_000_000_000 {
        format!("{:.1}{NBSP}s", ns as f64 / 1e9)
    } else {
        duration(ns)
    }
}

pub fn glyph(outcome: Outcome) -> char {
    match outcome {
        Outcome::Passed => '✓',
        Outcome::Inconclusive => '◇',
        Outcome::Failed => '✕',
    }
}

/// Of a criterion.
pub fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "pass",
        Outcome::Inconclusive => "inconclusive",
        Outcome::Failed => "fail",
    }
}

pub fn action(action: Action) -> &'static str {
    match action {
        Action::Replace => "replace",
        Action::Retest => "retest",
        Action::Investigate => "investigate",
    }
}

pub fn side(side: Side) -> &'static str {
    match side {
        Side::Hall => "hall",
        Side::It => "IT",
        Side::Link => "link",
        Side::Harness => "harness",
    }
}

pub fn provenance(provenance: Provenance) -> &'static str {
    match provenance {
        Provenance::Measured => "measured",
        Provenance::Replayed => "replayed",
        Provenance::Simulated => "simulated",
        Provenance::StandIn => "stand-in",
    }
}

pub fn fault(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Missing => "missing",
        FaultKind::WorkerDied => "worker died",
        FaultKind::Agent => "agent ended",
        FaultKind::Silent => "silent",
        FaultKind::Device => "device error",
        FaultKind::Collective => "all-reduce failed",
        FaultKind::Sensor => "sensor lost",
        FaultKind::Journal => "not recorded",
    }
}

/// What the numbers are, where they are not all measured: `SIMULATED, REPLAYED`.
pub fn banner(story: &Story<'_>) -> Option<String> {
    let devices = story
        .standing
        .opened()
        .plan
        .devices
        .iter()
        .map(|d| d.provenance);
    let tables = story.standing.tables().iter().map(|t| t.table.provenance);
    let mut found: Vec<Provenance> = devices.chain(tables).collect();
    found.sort_unstable();
    found.dedup();
    found.retain(|p| *p != Provenance::Measured);
    let words: Vec<String> = found
        .iter()
        .rev()
        .map(|p| provenance(*p).to_uppercase())
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// “95 %”.
pub fn confidence(story: &Story<'_>) -> String {
    human(story.verdict.confidence * 100.0, Unit::Percent).replace(".0\u{a0}", "\u{a0}")
}

/// Value of a finding's deciding place, or that there is none.
pub fn observed(finding: &Finding) -> String {
    let estimate = finding.worst().and_then(|o| o.estimate);
    estimate.map_or_else(
        || "no evidence".to_owned(),
        |e| value(e.value, finding.criterion.metric, e.unit),
    )
}

/// Whether the figure has no uncertainty: a count, a sum.
pub fn is_exact(estimate: &Estimate) -> bool {
    estimate.low.to_bits() == estimate.value.to_bits()
        && estimate.high.to_bits() == estimate.value.to_bits()
}

/// `0.62 to 0.66`, `exact`, or `–` where there is none.
pub fn bounds(finding: &Finding) -> String {
    let Some(estimate) = finding.worst().and_then(|o| o.estimate) else {
        return "–".to_owned();
    };
    if is_exact(&estimate) {
        return "exact".to_owned();
    }
    let said = |v: f64| value(v, finding.criterion.metric, estimate.unit);
    let (low, value, high) = (
        said(estimate.low),
        said(estimate.value),
        said(estimate.high),
    );
    let unit = |text: &str| text.rsplit_once(NBSP).map(|(_, unit)| unit.to_owned());
    match (estimate.low.is_finite(), estimate.high.is_finite()) {
        (false, false) => "unbounded".to_owned(),
        (false, true) => format!("up to {high}"),
        (true, false) => format!("from {low}"),
        // A composed unit (`2 min 5 s`) and unlike prefixes are said in full.
        _ if unit(&low) == unit(&value)
            && unit(&value) == unit(&high)
            && value.matches(NBSP).count() == 1 =>
        {
            let bare = |text: &str| {
                text.rsplit_once(NBSP)
                    .map_or(text.to_owned(), |(n, _)| n.to_owned())
            };
            format!("{} to {}", bare(&low), bare(&high))
        }
        _ => format!("{low} to {high}"),
    }
}

/// Whether what the limits are relative to could not be told, so that they are still bare multiples.
fn is_unresolved(finding: &Finding) -> bool {
    let criterion = &finding.criterion;
    let bare = |q: Option<Quantity>| q.and_then(|q| q.in_unit(Unit::One).ok()).map(f64::to_bits);
    let stands = |v: Option<f64>| v.map(f64::to_bits);
    criterion.relative_to != Reference::Absolute
        && bare(criterion.at_least) == stands(finding.at_least)
        && bare(criterion.at_most) == stands(finding.at_most)
}

/// `≥ 95 %`, `≤ 2`, or both; as the profile states it where it could not be resolved; `–` where there is none.
pub fn limit(finding: &Finding) -> String {
    if is_unresolved(finding) {
        return stated_limit(&finding.criterion);
    }
    let said = |v: f64| trimmed(&value(v, finding.criterion.metric, finding.unit));
    match (finding.at_least, finding.at_most) {
        (Some(low), Some(high)) => format!("{} to {}", said(low), said(high)),
        (Some(low), None) => format!("≥{NBSP}{}", said(low)),
        (None, Some(high)) => format!("≤{NBSP}{}", said(high)),
        (None, None) => match stated_limit(&finding.criterion) {
            none if none.is_empty() => "–".to_owned(),
            stated => stated,
        },
    }
}

/// The limit as the profile states it: `≤ 2 × own median`.
pub fn stated_limit(criterion: &Criterion) -> String {
    let said = |quantity: Quantity| {
        let number = trimmed(&human(quantity.value, quantity.unit));
        match criterion.relative_to {
            Reference::Absolute => number,
            Reference::SkuReference => format!("{number} × SKU reference"),
            Reference::SkuDatasheet => format!("{number} × datasheet"),
            Reference::PeerMedian => format!("{number} × peers’ median"),
            Reference::OwnMedian => format!("{number} × own median"),
            Reference::FirstTenth => format!("{number} × first tenth"),
            Reference::PowerLimit => format!("{number} × enforced power limit"),
        }
    };
    let low = criterion.at_least.map(|q| format!("≥{NBSP}{}", said(q)));
    let high = criterion.at_most.map(|q| format!("≤{NBSP}{}", said(q)));
    let both: Vec<String> = low.into_iter().chain(high).collect();
    both.join(", ")
}

/// Limits are chosen, not measured: trailing zeros say nothing.
fn trimmed(text: &str) -> String {
    let (number, unit) = text
        .split_once(NBSP)
        .map_or((text, String::new()), |(n, u)| (n, format!("{NBSP}{u}")));
    if !number.contains('.') {
        return text.to_owned();
    }
    format!(
        "{}{unit}",
        number.trim_end_matches('0').trim_end_matches('.')
    )
}

/// What a finding is about: its figure, or that it is the evidence as a whole.
pub fn subject(finding: &Finding) -> String {
    let is_doubt = finding.places.is_empty()
        && finding.criterion.at_least.is_none()
        && finding.criterion.at_most.is_none();
    if is_doubt {
        "what the whole run rests on".to_owned()
    } else {
        figure(&finding.criterion)
    }
}

/// What was judged: `p95 step time`, `idle gap`.
pub fn figure(criterion: &Criterion) -> String {
    let name = metric(criterion.metric);
    match criterion.statistic {
        Statistic::Total => name,
        Statistic::Min if matches!(criterion.scope, Scope::Gpu | Scope::Site) => {
            format!("lowest {name}")
        }
        Statistic::Max => format!("highest {name}"),
        Statistic::Min => format!("lowest {name}"),
        Statistic::Slope => format!("slope of {name}"),
        Statistic::Variation => format!("variation of {name}"),
        Statistic::Spread => format!("spread of {name}"),
        statistic => format!("{statistic} {name}"),
    }
}

/// Where the deciding place is: its name, or how many places were seen.
pub fn place(finding: &Finding) -> String {
    finding
        .worst()
        .map_or_else(|| "–".to_owned(), |o| clean(&o.place))
}

/// What is known of the wall clock.
pub fn clock(clock: &ClockState) -> String {
    let error = clock.max_error_s.filter(|e| e.is_finite() && *e >= 0.0);
    let error = error.map(|e| format!(", error at most {}", human(e, Unit::Second)));
    match clock.synchronised {
        Some(true) => format!("clock synchronised{}", error.unwrap_or_default()),
        Some(false) => "clock not synchronised".to_owned(),
        None => "clock’s state unknown".to_owned(),
    }
}

/// RFC 3339 for people: `2026-03-02 06:00:00 UTC`.
pub fn utc(text: &str) -> String {
    let text = clean(text);
    let Some((date, time)) = text.split_once('T') else {
        return text;
    };
    let Some(time) = time
        .strip_suffix('Z')
        .or_else(|| time.strip_suffix("+00:00"))
    else {
        return text;
    };
    let seconds = time.split_once('.').map_or(time, |(seconds, _)| seconds);
    format!("{date} {seconds} UTC")
}

pub fn ending(story: &Story<'_>) -> String {
    match story.standing.closed().map(|c| &c.ending) {
        None => "not closed: the record ends without its last frame".to_owned(),
        Some(Ending::Complete) => "complete".to_owned(),
        Some(Ending::Stopped { why }) => format!("stopped: {}", clean(why)),
        Some(Ending::SealedAfterCrash) => "sealed after a crash, with what was on disk".to_owned(),
    }
}

/// Digest, head or “not sealed”, and whether anything outside vouches for it.
pub fn integrity(story: &Story<'_>) -> String {
    match (story.head, story.anchored) {
        (Some(_), true) => "sealed, and the chain’s head is the one expected".to_owned(),
        (Some(_), false) => "sealed; integrity not anchored: to anchor it, judge with --expect-head and the head that the run printed".to_owned(),
        (None, _) => "not sealed; integrity not anchored".to_owned(),
    }
}

/// First and last digits of a digest.
pub fn short(digest: &str) -> String {
    let digest = clean(digest);
    let count = digest.chars().count();
    if count <= 16 {
        return digest;
    }
    let head: String = digest.chars().take(8).collect();
    let tail: String = digest.chars().skip(count - 4).collect();
    format!("{head}…{tail}")
}

/// `1 device`, `2 devices`.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!(
        "{}{NBSP}{}",
        human(count as f64, Unit::Count),
        if count == 1 { one } else { many }
    )
}

/// `5 fail, 2 inconclusive, 7 pass`; what is zero is left out, except for an empty verdict.
pub fn tally(story: &Story<'_>) -> String {
    let all = [Outcome::Failed, Outcome::Inconclusive, Outcome::Passed];
    let parts: Vec<String> = all
        .into_iter()
        .map(|o| (story.verdict.count(o), outcome(o)))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    if parts.is_empty() {
        "no gate judged".to_owned()
    } else {
        parts.join(", ")
    }
}

/// An event in words: what, and its detail. `None` for those told elsewhere.
pub fn event(what: &What, table: impl Fn(u32) -> String) -> Option<(&'static str, String)> {
    told(what, &table)
}

fn told(what: &What, table: &dyn Fn(u32) -> String) -> Option<(&'static str, String)> {
    Some(match what {
        What::Segment { .. } | What::AsFound { .. } | What::Absent { .. } => return None,
        What::Steady => ("steady", "warm-up ended by evidence".to_owned()),
        What::NeverSteady { why } => ("warm-up never steady", clean(why)),
        What::Gap {
            table: id, reason, ..
        } => ("gap", format!("{}: {}", table(*id), clean(reason))),
        What::Fault { kind, detail } => (fault(*kind), clean(detail)),
        What::SelfTest {
            passed: true,
            detail,
        } => ("self-test passed", clean(detail)),
        What::SelfTest {
            passed: false,
            detail,
        } => ("self-test failed", clean(detail)),
        What::Mismatch { detail } => ("wrong result", clean(detail)),
        What::Regrouped {
            members,
            stalled_ns,
            ..
        } => {
            let left = counted(members.len(), "device", "devices");
            (
                "regrouped",
                format!(
                    "{left} go on; the group stood still for {}",
                    duration(*stalled_ns)
                ),
            )
        }
        What::Xid { code, detail } => ("Xid", format!("{code}: {}", clean(detail))),
        What::Stop { why } => ("stopped", clean(why)),
        What::Resumed { lost_ns } => ("resumed", format!("{} without load", duration(*lost_ns))),
        What::Decision { what } => ("decision", clean(what)),
        What::Pairs { rows } => ("pairs of nodes", pairs::sentence(None, rows)),
        What::More {
            latest,
            count,
            from_ns,
        } => {
            let (kind, detail) = told(latest, table)?;
            let count = human(*count as f64, Unit::Count);
            let since = instant(*from_ns);
            (
                kind,
                format!("{count} times since {since}; the last: {detail}"),
            )
        }
    })
}

/// Percentiles that a distribution's samples can support.
pub fn supported(count: u64) -> Vec<(f64, &'static str)> {
    let all = [
        (0.5, "p50", 1),
        (0.95, "p95", 20),
        (0.99, "p99", 100),
        (0.999, "p99.9", 1_000),
    ];
    all.into_iter()
        .filter(|(_, _, least)| count >= *least)
        .map(|(q, name, _)| (q, name))
        .collect()
}
