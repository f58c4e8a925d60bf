//! Draws the course: panels under each other on one time axis, phases on top, limits dotted, holes hatched.

use super::super::escape::xml;
use super::super::svg::{Anchor, Scale, Svg, apart, axis_unit, digits, n, tick_label, ticks};
use super::super::{Story, words};
use super::course::{Ink, Line, Panel, Point};
use super::curves::{area, curve};
use super::labels::{mark_rows, phase_rows, time_axis};
use crate::plan::SegmentKind;

pub const WIDTH: f64 = 1000.0;
pub const LEFT: f64 = 46.0;
pub const RIGHT: f64 = 830.0;
/// Height of a panel's drawing, and of its title above.
const PANEL: f64 = 72.0;
const TITLE: f64 = 30.0;
const LANE: f64 = 21.0;
/// Height of one line of labels.
pub const ROW: f64 = 15.0;

/// What lies over what. The script stretches `back` and `plot` along the time axis, and nothing else.
#[derive(Default)]
pub struct Layers {
    /// Shading and vertical lines.
    pub back: Svg,
    /// Grid and its figures.
    pub under: Svg,
    /// Lines, bands and hatches.
    pub plot: Svg,
    /// Titles, limits and labels.
    pub over: Svg,
}

/// The whole figure.
pub fn draw(story: &Story<'_>, all: &[Panel]) -> String {
    let end = story.standing.last_ns();
    let x = Scale::new(0.0, end as f64, LEFT, RIGHT);
    let mut layers = Layers::default();
    let mut svg = Svg::default();
    svg.raw("<defs><pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
             <rect class=\"gapbg\" width=\"6\" height=\"6\"/><line class=\"hatchl\" x1=\"1\" y1=\"0\" x2=\"1\" y2=\"6\"/></pattern></defs>");
    let phases = phase_rows(story, &x);
    let marks = mark_rows(story, &x);
    let top = ROW * (phases.rows + marks.rows) as f64 + 6.0;
    let heights: Vec<f64> = all
        .iter()
        .map(|p| {
            TITLE
                + if p.lanes {
                    LANE * p.lines.len() as f64
                } else {
                    PANEL
                }
        })
        .collect();
    let bottom = top + heights.iter().sum::<f64>().max(20.0);
    backdrop(story, &mut layers.back, &x, top, bottom);
    phases.draw(&mut layers, ROW * marks.rows as f64, bottom);
    let mut named: Vec<String> = Vec::new();
    let mut y = top;
    for (panel, height) in all.iter().zip(&heights) {
        if panel.lanes {
            lanes(&mut layers, panel, &x, y);
        } else {
            panel_at(&mut layers, panel, &x, (y + TITLE, y + height), &mut named);
        }
        y += height;
    }
    marks.draw(&mut layers, 0.0, bottom);
    time_axis(story, &mut layers.over, &x, bottom);
    svg.raw(&format!(
        "<clipPath id=\"clip\"><rect x=\"{LEFT}\" y=\"0\" width=\"{}\" height=\"{}\"/></clipPath>\
         <g clip-path=\"url(#clip)\"><g class=\"zoom\">{}</g></g>{}<g clip-path=\"url(#clip)\"><g class=\"zoom\">{}</g></g>{}",
        n(RIGHT - LEFT),
        n(bottom),
        layers.back.into_body(),
        layers.under.into_body(),
        layers.plot.into_body(),
        layers.over.into_body(),
    ));
    svg.raw(&format!(
        "<rect class=\"chosen off\" id=\"chosen\" y=\"{0}\" height=\"{4}\"/><line class=\"cross off\" id=\"cross\" y1=\"{0}\" y2=\"{1}\"/><rect class=\"hit\" id=\"hit\" data-s=\"{2}\" x=\"{LEFT}\" y=\"{0}\" \
         width=\"{3}\" height=\"{4}\"/>",
        n(top),
        n(bottom),
        end as f64 / 1e9,
        n(RIGHT - LEFT),
        n(bottom - top)
    ));
    let names: Vec<String> = all.iter().map(|p| p.title.to_lowercase()).collect();
    let levels: Vec<String> = all
        .iter()
        .flat_map(|p| p.lines.iter().map(move |l| describe(p, l)))
        .take(40)
        .collect();
    let description = format!(
        "{} over {}. Means over the judged window: {}.",
        names.join(", "),
        words::duration(end),
        if levels.is_empty() {
            "none".to_owned()
        } else {
            levels.join("; ")
        }
    );
    svg.finish(
        "timeline",
        WIDTH,
        bottom + 40.0,
        "The course of the run on one time axis",
        &description,
    )
}

fn describe(panel: &Panel, line: &Line) -> String {
    let level = line.level.map_or_else(
        || "none".to_owned(),
        |l| hallmark_profiles::units::human(l * panel.factor, panel.unit),
    );
    format!(
        "{} {} {level}",
        panel.title.to_lowercase(),
        line.name.replace('\n', " ")
    )
}

/// Shades what is not judged.
fn backdrop(story: &Story<'_>, svg: &mut Svg, x: &Scale, top: f64, bottom: f64) {
    for window in story.standing.windows() {
        if matches!(window.kind, SegmentKind::Phase(_)) {
            continue;
        }
        let to = window.end_ns.unwrap_or_else(|| story.standing.last_ns());
        let (from, to) = (x.inside(window.start_ns as f64), x.inside(to as f64));
        svg.rect(from, top, to - from, bottom - top, "warm");
    }
}

fn ink_class(ink: Ink) -> &'static str {
    match ink {
        Ink::Bad => "l-bad",
        Ink::Place => "l-ink",
        Ink::Device(index) => ["l-d0", "l-d1", "l-d2", "l-d3", "l-d4", "l-d5"][index % 6],
    }
}

/// Class of a panel's n-th line: several that failed share the colour, so they differ by their dashes.
fn line_class(panel: &Panel, index: usize) -> String {
    let Some(line) = panel.lines.get(index) else {
        return String::new();
    };
    let before = panel.lines[..index]
        .iter()
        .filter(|l| l.ink == Ink::Bad)
        .count();
    if line.ink == Ink::Bad && before > 0 {
        return format!("l-bad g{}", 1 + (before - 1) % 3);
    }
    ink_class(line.ink).to_owned()
}

/// The values' range with some air, the limits near it included.
fn range(panel: &Panel) -> (f64, f64) {
    let values = || {
        let lines = panel.lines.iter().flat_map(|l| &l.points);
        lines
            .chain(&panel.band)
            .flat_map(|p| [p.low, p.high])
            .map(|v| v * panel.factor)
            .filter(|v| v.is_finite())
    };
    let (mut low, mut high) = (
        values().fold(f64::INFINITY, f64::min),
        values().fold(f64::NEG_INFINITY, f64::max),
    );
    if low > high {
        return (0.0, 1.0);
    }
    if let Some((least, most)) = panel.least_range {
        (low, high) = (low.min(least), high.max(most));
    }
    let span = high - low;
    for (limit, _) in &panel.limits {
        let limit = limit * panel.factor;
        if limit > low - 0.6 * span && limit < high + 0.6 * span {
            (low, high) = (low.min(limit), high.max(limit));
        }
    }
    // A flat line stands in the middle instead of its noise filling the panel.
    let least_span = 0.02 * low.abs().max(high.abs());
    if high - low < least_span {
        let middle = f64::midpoint(low, high);
        (low, high) = (middle - least_span / 2.0, middle + least_span / 2.0);
    }
    let air = 0.06 * (high - low);
    let at_zero = low.abs() < f64::MIN_POSITIVE;
    (if at_zero { 0.0 } else { low - air }, high + air)
}

fn panel_at(
    layers: &mut Layers,
    panel: &Panel,
    x: &Scale,
    (top, bottom): (f64, f64),
    named: &mut Vec<String>,
) {
    let (low, high) = range(panel);
    let (divide, unit) = axis_unit(panel.unit, low.abs().max(high.abs()));
    let y = Scale::new(low, high, bottom, top);
    let title = format!(
        "<text class=\"tb\" x=\"{LEFT}\" y=\"{}\">{} <tspan class=\"t2\">{}</tspan></text>",
        n(top - 9.0),
        xml(&panel.title),
        xml(&unit)
    );
    let marks = ticks(low / divide, high / divide, 3);
    let step = marks.windows(2).map(|w| w[1] - w[0]).next().unwrap_or(1.0);
    for mark in &marks {
        let at = y.at(mark * divide);
        layers.under.line(LEFT, at, RIGHT, at, "grid");
        layers.under.text(
            LEFT - 6.0,
            at + 4.0,
            "t2",
            Anchor::End,
            &tick_label(*mark, step),
        );
    }
    layers.over.raw(&title);
    gaps(layers, panel, x, (top, bottom), named);
    let to_y = |value: f64| y.inside(value * panel.factor);
    layers
        .plot
        .path(&area(&panel.band, u64::MAX, x, &to_y, 0.0), "band", "");
    if panel.lines.len() <= 3 {
        for line in panel
            .lines
            .iter()
            .filter(|l| l.ink != Ink::Bad || panel.band.is_empty())
        {
            layers.plot.path(
                &area(&line.points, line.reach_ns, x, &to_y, 2.5),
                &format!("range {}", ink_class(line.ink)),
                "",
            );
        }
    }
    for (limit, label) in panel
        .limits
        .iter()
        .filter(|(l, _)| (low..=high).contains(&(l * panel.factor)))
    {
        let at = to_y(*limit);
        layers.over.line(LEFT, at, RIGHT, at, "lim");
        // Above the line, unless the panel's title stands there.
        let beside = if at - top < 14.0 { at + 13.0 } else { at - 4.0 };
        layers
            .over
            .text(LEFT + 8.0, beside, "t2 halo", Anchor::Start, label);
    }
    // The script reads values off the lines: value = v0 + (bottom − y) · k.
    let k = (high - low) / divide / (bottom - top);
    for (index, line) in panel.lines.iter().enumerate() {
        let extra = format!(
            " data-n=\"{}\" data-p=\"{}\" data-u=\"{}\" data-v=\"{} {} {}\"",
            xml(&line.name),
            xml(&panel.title),
            xml(&unit),
            n(bottom),
            low / divide,
            k
        );
        layers
            .plot
            .path(&curve(line, x, &to_y), &line_class(panel, index), &extra);
    }
    end_labels(&mut layers.over, panel, divide, &to_y, top, bottom);
}

/// Each line's name and its mean over the judged window, beside its end.
fn end_labels(
    svg: &mut Svg,
    panel: &Panel,
    divide: f64,
    to_y: &impl Fn(f64) -> f64,
    top: f64,
    bottom: f64,
) {
    let wanted: Vec<f64> = panel
        .lines
        .iter()
        .map(|l| {
            to_y(
                l.level
                    .or_else(|| l.points.last().map(|p| p.mean))
                    .unwrap_or(0.0),
            )
        })
        .collect();
    let placed = apart(&wanted, 13.5, top + 2.0, bottom + 8.0);
    for (index, (line, at)) in panel.lines.iter().zip(placed).enumerate() {
        let level = line
            .level
            .map_or_else(|| "–".to_owned(), |l| digits(l * panel.factor / divide));
        let class = if line.ink == Ink::Bad { "tf" } else { "tl" };
        let name: String = line.name.chars().take(20).collect();
        let swatch = at - 3.5;
        svg.line(
            RIGHT + 6.0,
            swatch,
            RIGHT + 18.0,
            swatch,
            &line_class(panel, index),
        );
        svg.text(
            RIGHT + 23.0,
            at,
            class,
            Anchor::Start,
            &format!("{name}\u{a0}\u{a0}{level}"),
        );
    }
}

/// Hatches what is missing; each reason is named once, above the first panel that it concerns.
fn gaps(
    layers: &mut Layers,
    panel: &Panel,
    x: &Scale,
    (top, bottom): (f64, f64),
    named: &mut Vec<String>,
) {
    let mut drawn: Vec<(f64, f64, String)> = Vec::new();
    for (from, to, why) in &panel.gaps {
        let (from, to) = (x.inside(*from as f64), x.inside(*to as f64));
        // One device's hole and another's over the same stretch are one hatch.
        match drawn
            .iter_mut()
            .find(|(f, t, _)| from <= *t + 1.0 && to >= *f - 1.0)
        {
            Some((f, t, known)) => {
                (*f, *t) = (f.min(from), t.max(to));
                if known.is_empty() {
                    known.clone_from(why);
                }
            }
            None => drawn.push((from, to, why.clone())),
        }
    }
    for (from, to, why) in drawn.iter().take(24) {
        layers.plot.raw(&format!(
            "<rect class=\"gap\" fill=\"url(#hatch)\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
            n(*from),
            n(top),
            n((to - from).max(3.0)),
            n(bottom - top)
        ));
        let label: String = why.chars().take(44).collect();
        if label.is_empty() || named.contains(&label) {
            continue;
        }
        // Clear of the panel's title on the left.
        let clear = LEFT
            + 12.0
            + (panel.title.chars().count() + panel.unit.symbol().len() + 3) as f64 * 7.5;
        let fits = from.max(clear) + label.chars().count() as f64 * 6.2 < RIGHT;
        let (at, anchor) = if fits {
            (from.max(clear), Anchor::Start)
        } else {
            (RIGHT, Anchor::End)
        };
        layers
            .over
            .raw(&format!("<g class=\"along\" data-x=\"{}\">", n(*from)));
        layers.over.text(at, top - 5.0, "ti halo", anchor, &label);
        layers.over.raw("</g>");
        named.push(label);
    }
}

fn lanes(layers: &mut Layers, panel: &Panel, x: &Scale, top: f64) {
    layers.over.raw(&format!(
        "<text class=\"tb\" x=\"{LEFT}\" y=\"{}\">{} <tspan class=\"t2\">share of time, each lane 0 to 100 %, the device with the largest</tspan></text>",
        n(top + TITLE - 9.0),
        xml(&panel.title)
    ));
    for (index, line) in panel.lines.iter().enumerate() {
        let bottom = top + TITLE + LANE * (index as f64 + 1.0) - 3.0;
        let y = Scale::new(0.0, 100.0, bottom, bottom - LANE + 5.0);
        let to_y = |value: f64| y.inside(value * panel.factor);
        let (reason, owner) = line.name.split_once('\n').unwrap_or((&line.name, ""));
        // A power cap is how the device is meant to work; the other reasons are losses.
        let is_cap = reason.contains("power cap");
        let base: Vec<Point> = line
            .points
            .iter()
            .map(|p| Point {
                low: 0.0,
                high: p.mean,
                ..*p
            })
            .collect();
        layers.under.line(LEFT, bottom, RIGHT, bottom, "grid");
        layers.plot.path(
            &area(&base, line.reach_ns, x, &to_y, 0.0),
            if is_cap { "a-grey" } else { "a-bad" },
            "",
        );
        layers
            .over
            .text(LEFT + 8.0, bottom - 4.0, "t halo", Anchor::Start, reason);
        let never = line.points.iter().all(|p| p.high * panel.factor < 0.05);
        let (text, class) = match (never, line.level) {
            (true, _) => ("never".to_owned(), "tl"),
            (false, Some(level)) => (
                format!("{} %, {owner}", digits(level * panel.factor)),
                if is_cap { "tl" } else { "tf" },
            ),
            (false, None) => (owner.to_owned(), "tl"),
        };
        layers
            .over
            .text(RIGHT + 8.0, bottom - 4.0, class, Anchor::Start, &text);
    }
}
