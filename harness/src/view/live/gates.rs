//! The running gates: what each has shown so far, against its limit. It repeats the verdict and judges nothing.

use super::super::plain::reading::Reading;
use super::super::plain::words;
use super::ink::{self, BOLD, PLAIN, QUIET, UNSURE};
use super::screen::Scene;
use hallmark_profiles::criterion::{Criterion, Reference};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::quantity::Quantity;
use hallmark_profiles::units::{Unit, human};
use hallmark_results::verdict::{Finding, Outcome};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

const NBSP: char = '\u{a0}';

/// Columns of a gate's name.
const NAME: usize = 11;

/// Ratios that are a part of a whole: people read them in per cent.
const SHARES: [Metric; 7] = [
    Metric::IdleGap,
    Metric::Duty,
    Metric::AuditShare,
    Metric::ThrottleFrac,
    Metric::PowerCapFrac,
    Metric::ExposedComm,
    Metric::ScalingEfficiency,
];

fn value(value: f64, metric: Metric, unit: Unit) -> String {
    match unit {
        Unit::One if SHARES.contains(&metric) => human(value * 100.0, Unit::Percent),
        // Caught or missed: a count, not a ratio.
        Unit::One if metric == Metric::SelfTest => human(value, Unit::Count),
        _ => human(value, unit),
    }
}

/// What was seen at the deciding place.
pub fn observed(finding: &Finding) -> String {
    let estimate = finding.worst().and_then(|o| o.estimate);
    estimate.map_or_else(
        || "–".to_owned(),
        |e| value(e.value, finding.criterion.metric, e.unit),
    )
}

/// `0.62 to 0.66`; empty where there is none or the figure is exact.
pub fn bounds(finding: &Finding) -> String {
    let Some(e) = finding.worst().and_then(|o| o.estimate) else {
        return String::new();
    };
    let said = |v: f64| value(v, finding.criterion.metric, e.unit);
    let (low, high) = (said(e.low), said(e.high));
    match (e.low.is_finite(), e.high.is_finite()) {
        (true, true) if low == high => String::new(),
        (true, true) => format!("{low} to {high}"),
        (true, false) => format!("from {low}"),
        (false, true) => format!("up to {high}"),
        (false, false) => String::new(),
    }
}

/// `≥ 95 %`, as far as it is resolved; otherwise as the profile states it.
pub fn limit(finding: &Finding) -> String {
    if is_unresolved(finding) {
        return stated(&finding.criterion);
    }
    let said = |v: f64| trimmed(&value(v, finding.criterion.metric, finding.unit));
    match (finding.at_least, finding.at_most) {
        (Some(low), Some(high)) => format!("{} to {}", said(low), said(high)),
        (Some(low), None) => format!("≥{NBSP}{}", said(low)),
        (None, Some(high)) => format!("≤{NBSP}{}", said(high)),
        (None, None) => stated(&finding.criterion),
    }
}

/// Whether what the limits are relative to is not known yet, so that they are still bare multiples.
fn is_unresolved(finding: &Finding) -> bool {
    let criterion = &finding.criterion;
    let bare = |q: Option<Quantity>| q.and_then(|q| q.in_unit(Unit::One).ok()).map(f64::to_bits);
    criterion.relative_to != Reference::Absolute
        && bare(criterion.at_least) == finding.at_least.map(f64::to_bits)
        && bare(criterion.at_most) == finding.at_most.map(f64::to_bits)
}

fn stated(criterion: &Criterion) -> String {
    let of = match criterion.relative_to {
        Reference::Absolute => "",
        Reference::SkuReference => " × SKU reference",
        Reference::SkuDatasheet => " × datasheet",
        Reference::PeerMedian => " × peers’ median",
        Reference::OwnMedian => " × own median",
        Reference::FirstTenth => " × first tenth",
        Reference::PowerLimit => " × enforced power limit",
    };
    let said =
        |sign: char, q: Quantity| format!("{sign}{NBSP}{}{of}", trimmed(&human(q.value, q.unit)));
    let low = criterion.at_least.map(|q| said('≥', q));
    let high = criterion.at_most.map(|q| said('≤', q));
    low.into_iter().chain(high).collect::<Vec<_>>().join(", ")
}

/// Limits are chosen, not measured: trailing zeros say nothing.
fn trimmed(text: &str) -> String {
    let (number, unit) = text
        .split_once(NBSP)
        .map_or((text, String::new()), |(n, u)| (n, format!("{NBSP}{u}")));
    if !number.contains('.') || number.contains('×') {
        return text.to_owned();
    }
    format!(
        "{}{unit}",
        number.trim_end_matches('0').trim_end_matches('.')
    )
}

/// Figures that only grow while a phase lasts: below their limit until it ends says nothing yet.
const GROWING: [Metric; 3] = [Metric::Duty, Metric::StepsCompleted, Metric::AuditExposure];

/// Whether what a finding lacks may yet arrive: its phase is still to come or to end.
pub fn is_pending(reading: &Reading<'_>, finding: &Finding) -> bool {
    let growing = finding.at_least.is_some() && GROWING.contains(&finding.criterion.metric);
    let open = match finding.outcome {
        Outcome::Passed => false,
        Outcome::Inconclusive => true,
        Outcome::Failed => growing,
    };
    let standing = reading.standing;
    let phases = &standing.profile().load.phases;
    let Some(phase) = phases.iter().position(|p| p.name == finding.phase) else {
        return open && standing.closed().is_none();
    };
    let window = standing.phase_window(phase);
    open && window.is_none_or(|w| w.end_ns.is_none())
}

fn glyph(scene: &Scene<'_>, finding: &Finding) -> (&'static str, Style) {
    if is_pending(&scene.reading, finding) {
        return ("…", UNSURE);
    }
    ink::outcome(finding.outcome)
}

/// Worst first, and what is only pending behind what is decided or can no longer be.
fn sorted<'a>(scene: &Scene<'a>) -> Vec<&'a Finding> {
    let mut findings: Vec<&Finding> = scene.verdict.iter().flat_map(|v| &v.findings).collect();
    let rank = |f: &Finding| match f.outcome {
        _ if is_pending(&scene.reading, f) => 2,
        Outcome::Failed => 0,
        Outcome::Inconclusive => 1,
        Outcome::Passed => 3,
    };
    findings.sort_by_key(|f| rank(f));
    findings
}

/// Two columns of gates in at most `rows` lines; what does not fit is counted.
pub fn overview(scene: &Scene<'_>, columns: usize, rows: usize) -> Vec<Line<'static>> {
    let findings = sorted(scene);
    if findings.is_empty() || rows == 0 {
        return Vec::new();
    }
    let across = if columns >= 70 { 2 } else { 1 };
    let wide = columns.saturating_sub(2 * (across - 1)) / across;
    let room = rows * across;
    let shown = if findings.len() > room {
        room - 1
    } else {
        findings.len()
    };
    let mut cells: Vec<Vec<Span<'static>>> = findings
        .iter()
        .take(shown)
        .map(|f| cell(scene, f, wide))
        .collect();
    if shown < findings.len() {
        let rest = &findings[shown..];
        let passed = rest.iter().all(|f| f.outcome == Outcome::Passed);
        let lead = if passed { "✓" } else { " " };
        let text = format!(" {lead} {} more", rest.len());
        cells.push(vec![
            Span::styled(ink::left(&text, 3 + NAME + 1), QUIET),
            Span::styled("press g", QUIET),
        ]);
    }
    let lines = cells.len().div_ceil(across);
    let mut cells = cells.into_iter().map(Some).collect::<Vec<_>>();
    (0..lines)
        .map(|row| {
            let mut spans = Vec::new();
            for column in 0..across {
                let Some(cell) = cells.get_mut(column * lines + row).and_then(Option::take) else {
                    break;
                };
                let used: usize = cell.iter().map(Span::width).sum();
                spans.extend(cell);
                if column + 1 < across {
                    spans.push(Span::raw(" ".repeat((wide + 2).saturating_sub(used))));
                }
            }
            ink::line(spans, columns)
        })
        .collect()
}

fn cell(scene: &Scene<'_>, finding: &Finding, wide: usize) -> Vec<Span<'static>> {
    let (shape, style) = glyph(scene, finding);
    let decided = finding.outcome != Outcome::Passed;
    let text = if decided { PLAIN } else { QUIET };
    // Wider cells give the figure more room.
    let figure = if wide < 44 { 11 } else { 13 };
    let mut spans = vec![
        Span::styled(format!(" {shape} "), style),
        Span::styled(
            ink::left(&words::spoken(&finding.criterion.name), NAME) + " ",
            text,
        ),
        Span::styled(
            ink::left(&observed(finding), figure) + " ",
            if finding.outcome == Outcome::Failed {
                BOLD
            } else {
                text
            },
        ),
    ];
    let used = 3 + NAME + 1 + figure + 1;
    let rest = wide.saturating_sub(used);
    let limit = limit(finding);
    let place = finding
        .worst()
        .map(|o| words::clean(&o.place))
        .unwrap_or_default();
    let limit_width = 10.min(rest);
    if rest >= limit_width + 8 && decided {
        spans.push(Span::styled(ink::left(&limit, limit_width) + " ", text));
        spans.push(Span::styled(
            ink::cut(&place, rest - limit_width - 1),
            QUIET,
        ));
    } else {
        spans.push(Span::styled(ink::cut(&limit, rest), text));
    }
    spans
}

/// Every gate with its reason.
pub fn page(scene: &Scene<'_>, columns: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for finding in sorted(scene) {
        let (shape, style) = glyph(scene, finding);
        let text = if finding.outcome == Outcome::Passed {
            QUIET
        } else {
            PLAIN
        };
        let place = finding
            .worst()
            .map(|o| words::clean(&o.place))
            .unwrap_or_default();
        let spans = vec![
            Span::styled(format!(" {shape} "), style),
            Span::styled(
                ink::left(&words::spoken(&finding.criterion.name), 15) + " ",
                BOLD,
            ),
            Span::styled(ink::left(&observed(finding), 14) + " ", text),
            Span::styled(ink::left(&limit(finding), 16) + " ", text),
            Span::styled(ink::left(&place, 12) + " ", text),
            Span::styled(bounds(finding), QUIET),
        ];
        lines.push(ink::line(spans, columns));
        let phase = words::spoken(&finding.phase);
        let lead = if phase.is_empty() {
            phase
        } else {
            phase + ": "
        };
        let why = lead + &words::clean(&finding.why);
        let rows = ink::wrap(&why, columns.saturating_sub(4));
        lines.extend(
            rows.into_iter()
                .map(|row| Line::from(Span::styled(format!("    {row}"), QUIET))),
        );
    }
    if lines.is_empty() {
        lines.push(Line::from(Span::styled(" no gate is judged yet", QUIET)));
    }
    lines
}
