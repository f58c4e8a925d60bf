//! The gates: what each observed, with its bounds, against one common limit line; better is to the right.

use super::super::escape::xml;
use super::super::svg::{Anchor, Scale, Svg, n};
use super::super::{Story, words};
use super::{class, glyph};
use crate::verdict::{Finding, Outcome};
use hallmark_profiles::criterion::Reference;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::Unit;

const WIDTH: f64 = 236.0;
const HEIGHT: f64 = 34.0;
/// Margins beyond this many per cent of the limit stand at the edge, with an arrow.
const EDGE: f64 = 100.0;

pub fn section(story: &Story<'_>) -> String {
    let findings = &story.verdict.findings;
    if findings.is_empty() {
        return "<section id=\"gates\"><h2>No gate was judged</h2><p class=\"sub\">The profile has no criterion, \
                so nothing was accepted or rejected.</p></section>"
            .to_owned();
    }
    let rows: Vec<String> = findings
        .iter()
        .enumerate()
        .map(|(i, f)| row(story, i, f))
        .collect();
    let bounds = words::confidence(story);
    format!(
        "<section id=\"gates\"><h2>What decides it</h2><p class=\"sub\">Each gate is decided by its worst place. The dot is what \
         was observed, the whisker its {bounds} bounds (none: narrower than the dot); the vertical line is the limit and \
         better is always to the right. Scale: margin in % of the limit.</p><div class=\"scroll\"><table class=\"gates\">\
         <thead><tr><th>Gate</th><th>Deciding figure</th><th class=\"n\">Observed<i>{bounds} bounds</i></th>\
         <th class=\"plot\">{}</th><th>Why</th></tr></thead><tbody>{}</tbody></table></div></section>",
        axis(),
        rows.concat(),
    )
}

fn row(story: &Story<'_>, index: usize, finding: &Finding) -> String {
    let outcome = finding.outcome;
    let criterion = &finding.criterion;
    let limit = words::limit(finding);
    let stated = words::stated_limit(criterion);
    let limit = match criterion.relative_to {
        _ if limit == "–" => "no limit of its own".to_owned(),
        Reference::Absolute => format!("limit {}", xml(&limit)),
        _ if limit == stated => format!("limit {}", xml(&limit)),
        _ => format!("limit {}, {}", xml(&limit), xml(&stated)),
    };
    let main = story
        .standing
        .profile()
        .load
        .phases
        .get(story.standing.profile().load.main_phase());
    let phase = if main.is_some_and(|p| p.name == finding.phase) || finding.phase.is_empty() {
        String::new()
    } else {
        format!(", phase {}", xml(&words::spoken(&finding.phase)))
    };
    let place = words::place(finding);
    let mut more: Vec<String> = Vec::new();
    if place != "–" && !finding.why.contains(&place) {
        more.push(xml(&place));
    }
    if outcome != Outcome::Passed {
        more.push(format!("side: {}", words::side(finding.side)));
    }
    format!(
        "<tr class=\"{}\"><th scope=\"row\">{}<span>{}<i>{}</i></span></th><td>{}<i>{limit}{phase}</i></td>\
         <td class=\"n\"><b>{}</b><i>{}</i></td><td class=\"plot\">{}</td><td class=\"why\">{}<i>{}</i></td></tr>",
        class(outcome),
        glyph(outcome),
        xml(&words::capital(&words::spoken(&criterion.name))),
        words::capital(words::outcome(outcome)),
        xml(&words::subject(finding)),
        words::observed(finding),
        words::bounds(finding),
        picture(index, finding),
        xml(&words::capital(&finding.why)),
        more.join(" · "),
    )
}

/// Margins to the limit in per cent of it, positive is better.
struct Margins {
    value: f64,
    low: f64,
    high: f64,
}

/// Where a value stands against the limits: `None` without an estimate or a limit.
fn margins(finding: &Finding) -> Option<Margins> {
    let estimate = finding.worst()?.estimate?;
    let is_count = finding.unit == Unit::Count || finding.criterion.metric == Metric::SelfTest;
    // Between whole things the limit lies halfway: “none allowed, none seen” is clear of it.
    let half = if is_count { 0.5 } else { 0.0 };
    let relative = |distance: f64, limit: f64| {
        let size = if limit.abs() > f64::MIN_POSITIVE {
            limit.abs()
        } else {
            1.0
        };
        100.0 * distance / size
    };
    let margin = |value: f64| {
        let above = finding
            .at_least
            .map(|l| relative(value - (l - half), l - half));
        let below = finding
            .at_most
            .map(|l| relative((l + half) - value, l + half));
        match (above, below) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    };
    let value = margin(estimate.value)?;
    let (a, b) = (margin(estimate.low)?, margin(estimate.high)?);
    Some(Margins {
        value,
        low: a.min(b).min(value),
        high: a.max(b).max(value),
    })
}

/// Signed logarithm: even steps for 1, 10 and 100 %.
fn warp(margin: f64) -> f64 {
    let clamped = if margin.is_nan() {
        0.0
    } else {
        margin.clamp(-EDGE, EDGE)
    };
    clamped.signum() * (1.0 + clamped.abs()).log10()
}

fn scale() -> Scale {
    Scale::new(warp(-EDGE), warp(EDGE), 12.0, WIDTH - 12.0)
}

fn picture(index: usize, finding: &Finding) -> String {
    let Some(margins) = margins(finding) else {
        return "<span class=\"none\">no evidence</span>".to_owned();
    };
    let scale = scale();
    let middle = HEIGHT / 2.0;
    let kind = class(finding.outcome);
    let mut svg = Svg::default();
    let (low, value, high) = (
        scale.at(warp(margins.low)),
        scale.at(warp(margins.value)),
        scale.at(warp(margins.high)),
    );
    if high - low > 7.0 {
        svg.line(low, middle, high, middle, &format!("w-{kind}"));
        svg.line(low, middle - 3.5, low, middle + 3.5, &format!("w-{kind}"));
        svg.line(high, middle - 3.5, high, middle + 3.5, &format!("w-{kind}"));
    }
    if margins.value < -EDGE * 1.0001 {
        let x = scale.at(warp(-EDGE));
        svg.path(
            &format!("M{} {}l7 -5v10z", n(x - 6.0), n(middle)),
            &format!("d-{kind}"),
            "",
        );
        svg.text(x + 7.0, middle + 4.0, "t2", Anchor::Start, &beyond(finding));
    } else {
        svg.circle(value, middle, 4.0, &format!("d-{kind}"));
    }
    let label = format!(
        "{}: margin to the limit",
        words::spoken(&finding.criterion.name)
    );
    let description = format!(
        "{} observed, limit {}",
        words::observed(finding),
        words::limit(finding)
    );
    svg.finish(&format!("g{index}"), WIDTH, HEIGHT, &label, &description)
        .replacen("class=\"fig\"", "class=\"wh\"", 1)
}

/// Far beyond the limit: how far.
fn beyond(finding: &Finding) -> String {
    let value = finding.worst().and_then(|o| o.estimate).map(|e| e.value);
    match (value, finding.at_most) {
        (Some(value), Some(limit)) if limit > 0.0 && value > 0.0 => {
            format!(
                "{}\u{a0}× the limit",
                super::super::svg::digits(value / limit)
            )
        }
        _ => "far beyond the limit".to_owned(),
    }
}

fn axis() -> String {
    let scale = scale();
    let mut svg = Svg::default();
    let centre = WIDTH / 2.0;
    svg.text(centre, 12.0, "tb", Anchor::Middle, "limit");
    svg.text(centre - 24.0, 12.0, "t2", Anchor::End, "◂ worse");
    svg.text(centre + 24.0, 12.0, "t2", Anchor::Start, "better ▸");
    svg.text(0.0, 28.0, "t2", Anchor::Start, "−100");
    for (margin, text) in [(-10.0, "−10"), (-1.0, "−1"), (1.0, "+1"), (10.0, "+10")] {
        svg.text(scale.at(warp(margin)), 28.0, "t2", Anchor::Middle, text);
    }
    svg.text(WIDTH, 28.0, "t2", Anchor::End, "+100 %");
    svg.finish(
        "gate-axis",
        WIDTH,
        32.0,
        "Scale",
        "Margin to the limit in per cent of it, logarithmic, better to the right",
    )
    .replacen("class=\"fig\"", "class=\"wh\"", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_is_to_the_right_whatever_the_direction() {
        let scale = scale();
        assert!((scale.at(warp(0.0)) - WIDTH / 2.0).abs() < 1e-9);
        assert!(warp(-100.0) < warp(-10.0) && warp(-1.0) < 0.0 && warp(5.0) > warp(1.0));
        assert!(
            (warp(f64::INFINITY) - warp(100.0)).abs() < 1e-12,
            "held at the edge"
        );
    }
}
