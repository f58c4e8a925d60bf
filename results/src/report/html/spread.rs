//! How steps and all-reduce operations are spread: tails on a logarithmic axis, so that one in a thousand is seen.

use super::super::escape::xml;
use super::super::svg::{Anchor, Scale, Svg, axis_unit, n, tick_label, ticks};
use super::super::{Story, facts, words};
use crate::standing::window::Window;
use crate::stats::distribution::Distribution;
use hallmark_profiles::units::{Bytes, Unit, human};

const LEFT: f64 = 48.0;
/// Height of one name above the plot.
const NAME: f64 = 15.0;
const PLOT: f64 = 206.0;
/// Beside the plot, for the percentiles' names.
const MARGIN: f64 = 92.0;
/// Lines of what is shown for comparison, told apart by their dashes.
const QUIET: [&str; 4] = ["l-grey g0", "l-grey g1", "l-grey g2", "l-grey g3"];
/// Tails in one picture.
const TAILS: usize = 5;

/// A distribution to draw, and how.
struct Tail<'a> {
    name: String,
    class: &'static str,
    distribution: &'a Distribution,
}

pub fn section(story: &Story<'_>) -> String {
    let Some(window) = facts::main_window(story) else {
        return "<section id=\"steps\"><h2>No step was judged</h2><p class=\"sub\">The judged phase never began.</p></section>".to_owned();
    };
    let steps = step_tails(story, window);
    let Some(first) = steps.first() else {
        return "<section id=\"steps\"><h2>No step was completed in the judged phase</h2></section>".to_owned();
    };
    let heading = match (
        first.distribution.quantile(0.5),
        first.distribution.quantile(0.99),
    ) {
        (Some(half), Some(most)) => format!(
            "Half of the steps took up to {}, one in a hundred more than {}",
            human(half, Unit::Second),
            human(most, Unit::Second)
        ),
        _ => "Steps".to_owned(),
    };
    let mut wanted = vec![(
        "step-tail",
        "Step time",
        "share of steps slower than x",
        steps,
        Unit::Second,
    )];
    let ops = op_tails(story, window);
    if !ops.is_empty() {
        wanted.push((
            "op-tail",
            "All-reduce",
            "share of operations slower than x",
            ops,
            Unit::Second,
        ));
    }
    if let Some(skew) = window
        .group
        .skew
        .get()
        .filter(|_| facts::ranks(story, window) > 1)
    {
        let only = Tail {
            name: "slowest ÷ median rank".to_owned(),
            class: "l-d0",
            distribution: skew,
        };
        wanted.push((
            "skew-tail",
            "Step skew",
            "share of steps with more skew than x",
            vec![only],
            Unit::One,
        ));
    }
    // Pictures side by side keep the size of their text: fewer are wider.
    let width = if wanted.len() > 2 { 322.0 } else { 482.0 };
    let figures: Vec<String> = wanted
        .iter()
        .map(|(id, name, about, tails, unit)| {
            figure(
                name,
                about,
                &tail(id, width, &format!("{name}: {about}"), tails, *unit),
            )
        })
        .collect();
    let columns = if wanted.len() > 2 { "three" } else { "pair" };
    format!(
        "<section id=\"steps\"><h2>{}</h2><p class=\"sub\">A step lasts from the time it was due to its end, so every stall counts. \
         Each mark is a percentile; a percentile that the number of samples cannot support is not marked.</p>\
         <div class=\"figures {columns}\">{}</div>{}{}</section>",
        xml(&heading),
        figures.concat(),
        step_table(story),
        op_table(story),
    )
}

fn figure(name: &str, about: &str, picture: &str) -> String {
    format!("<figure><figcaption><b>{name}</b> {about}</figcaption>{picture}</figure>")
}

/// The judged window's steps, and those of other phases of like length, quieter.
fn step_tails<'a>(story: &Story<'a>, window: &'a Window) -> Vec<Tail<'a>> {
    let mut tails = window_tails(story, window, false);
    let Some(reference) = tails.first().and_then(|t| t.distribution.quantile(0.5)) else {
        return tails;
    };
    for other in story.standing.windows() {
        let segment = story
            .standing
            .opened()
            .plan
            .schedule
            .get(other.segment as usize);
        let alike = segment.is_some_and(|s| !s.parts.memory) && other.kind != window.kind;
        let is_phase = matches!(other.kind, crate::plan::SegmentKind::Phase(_)) && alike;
        if is_phase && tails.len() < TAILS {
            let near = |t: &Tail<'_>| {
                t.distribution
                    .quantile(0.5)
                    .is_some_and(|m| m > reference / 4.0 && m < reference * 3.0)
            };
            let row = tails.len();
            let more = window_tails(story, other, true)
                .into_iter()
                .filter(near)
                .take(1);
            tails.extend(more.map(|t| Tail {
                class: QUIET[row % QUIET.len()],
                ..t
            }));
        }
    }
    tails
}

fn window_tails<'a>(story: &Story<'a>, window: &'a Window, quiet: bool) -> Vec<Tail<'a>> {
    let name = facts::segment_name(story, window);
    let ink = |index: usize| {
        if quiet {
            "l-grey"
        } else {
            ["l-d0", "l-d1", "l-d2", "l-d3"][index % 4]
        }
    };
    if let Some(distribution) = window.group.step_time.get().filter(|_| window.coupled()) {
        let ranks = words::counted(facts::ranks(story, window), "rank", "ranks");
        return vec![Tail {
            name: format!("{name}, {ranks}"),
            class: ink(0),
            distribution,
        }];
    }
    let devices = window.devices.iter().enumerate();
    devices
        .filter_map(|(index, d)| Some((index, d.step_time.get()?)))
        .take(4)
        .map(|(index, distribution)| Tail {
            name: format!("{name}, {}", facts::device_id(story, Some(index as u32))),
            class: ink(index),
            distribution,
        })
        .collect()
}

/// The payload with the most operations, in the judged window and where it ran alone.
fn op_tails<'a>(story: &Story<'a>, window: &'a Window) -> Vec<Tail<'a>> {
    let Some((&payload, _)) = window
        .group
        .ops
        .iter()
        .max_by_key(|(_, times)| times.count())
    else {
        return Vec::new();
    };
    let windows = std::iter::once(window).chain(
        story
            .standing
            .windows()
            .iter()
            .filter(|w| w.start_ns != window.start_ns),
    );
    windows
        .filter(|w| matches!(w.kind, crate::plan::SegmentKind::Phase(_)))
        .filter_map(|w| Some((w, w.group.ops.get(&payload)?.get()?)))
        .take(TAILS)
        .enumerate()
        .map(|(row, (w, distribution))| Tail {
            name: format!(
                "{}, {}",
                facts::segment_name(story, w),
                human(payload as f64, Unit::Byte)
            ),
            class: if row == 0 {
                "l-d0"
            } else {
                QUIET[row % QUIET.len()]
            },
            distribution,
        })
        .collect()
}

/// Where a tail's picture puts things.
struct Frame {
    x: Scale,
    y: Scale,
    bottom: f64,
    right: f64,
}

/// The share of samples above x, logarithmic.
fn tail(id: &str, width: f64, title: &str, tails: &[Tail<'_>], unit: Unit) -> String {
    let low = tails
        .iter()
        .filter_map(|t| t.distribution.min())
        .fold(f64::INFINITY, f64::min);
    let far = |t: &Tail<'_>| {
        let most = t.distribution.max()?;
        // One stray sample must not squeeze all others into a corner; it is named instead.
        let typical = t.distribution.quantile(0.99)?;
        Some(if most > 3.0 * typical {
            1.6 * typical
        } else {
            most
        })
    };
    let high = tails.iter().filter_map(far).fold(low, f64::max);
    let air = 0.04 * (high - low).max(0.02 * high.abs());
    let most = tails
        .iter()
        .map(|t| t.distribution.count())
        .max()
        .unwrap_or(1);
    let decades = (most as f64).log10().ceil().clamp(1.0, 5.0);
    let top = 10.0 + NAME * tails.len() as f64;
    let (bottom, right) = (top + PLOT, width - MARGIN);
    let frame = Frame {
        x: Scale::new(low - air, high + air, LEFT, right),
        y: Scale::new(-decades, 0.0, bottom, top),
        bottom,
        right,
    };
    let mut svg = Svg::default();
    axes(&mut svg, &frame, unit);
    for tail in tails.iter().rev() {
        svg.path(
            &steps_down(tail.distribution, &frame.x, &frame.y),
            tail.class,
            "",
        );
    }
    labels(&mut svg, tails, &frame, unit);
    let said = tails
        .iter()
        .map(|t| describe(t, unit))
        .collect::<Vec<_>>()
        .join("; ");
    svg.finish(id, width, bottom + 26.0, title, &said)
}

/// Shares in per cent upwards, values along.
fn axes(svg: &mut Svg, frame: &Frame, unit: Unit) {
    let (bottom, right) = (frame.bottom, frame.right);
    let decades = -frame.y.from;
    for decade in 0..=decades as usize {
        let at = frame.y.at(-(decade as f64));
        svg.line(LEFT, at, right, at, "grid");
        let label = ["100", "10", "1", "0.1", "0.01", "0.001"][decade.min(5)];
        svg.text(
            LEFT - 7.0,
            at + 4.0,
            "t2",
            Anchor::End,
            &format!("{label}\u{a0}%"),
        );
    }
    let (divide, shown) = axis_unit(unit, frame.x.to);
    let marks = ticks(
        frame.x.from / divide,
        frame.x.to / divide,
        if right > 320.0 { 5 } else { 4 },
    );
    let step = marks.windows(2).map(|w| w[1] - w[0]).next().unwrap_or(1.0);
    for (index, mark) in marks.iter().enumerate() {
        let at = frame.x.at(mark * divide);
        svg.line(at, bottom, at, bottom + 4.0, "tick");
        let unit = if index + 1 == marks.len() && !shown.is_empty() {
            format!("\u{a0}{shown}")
        } else {
            String::new()
        };
        svg.text(
            at,
            bottom + 18.0,
            "t2",
            Anchor::Middle,
            &format!("{}{unit}", tick_label(*mark, step)),
        );
    }
    svg.line(LEFT, bottom, right, bottom, "axis");
}

/// A ratio near one needs its third decimal.
fn said(value: f64, unit: Unit) -> String {
    if unit == Unit::One {
        format!("{value:.3}")
    } else {
        human(value, unit)
    }
}

/// Percentiles on the first tail; names of all on top, each with a piece of its line.
fn labels(svg: &mut Svg, tails: &[Tail<'_>], frame: &Frame, unit: Unit) {
    for (row, tail) in tails.iter().enumerate() {
        let at = NAME * row as f64 + 8.0;
        svg.line(LEFT, at, LEFT + 16.0, at, tail.class);
        svg.text(LEFT + 22.0, at + 4.0, "t2", Anchor::Start, &tail.name);
    }
    let Some(first) = tails.first() else { return };
    for (quantile, name) in words::supported(first.distribution.count()) {
        let Some(value) = first.distribution.quantile(quantile) else {
            continue;
        };
        let (px, py) = (
            frame.x.inside(value),
            frame.y.inside((1.0 - quantile).log10()),
        );
        svg.circle(px, py, 3.2, "dot");
        svg.text(
            px + 8.0,
            py - 3.0,
            "tblue halo",
            Anchor::Start,
            &format!("{name} {}", said(value, unit)),
        );
    }
    if let Some(max) = first.distribution.max().filter(|m| *m > frame.x.to) {
        svg.text(
            frame.right,
            frame.bottom - 8.0,
            "t2 halo",
            Anchor::End,
            &format!("longest {} ▸", human(max, unit)),
        );
    }
}

fn describe(tail: &Tail<'_>, unit: Unit) -> String {
    let quantiles = words::supported(tail.distribution.count());
    let parts = quantiles.iter().filter_map(|(q, name)| {
        Some(format!(
            "{name} {}",
            said(tail.distribution.quantile(*q)?, unit)
        ))
    });
    format!(
        "{}: {} of {} samples",
        tail.name,
        parts.collect::<Vec<_>>().join(", "),
        tail.distribution.count()
    )
}

fn steps_down(distribution: &Distribution, x: &Scale, y: &Scale) -> String {
    let total = distribution.count().max(1) as f64;
    let mut out = format!(
        "M{} {}",
        n(x.inside(distribution.min().unwrap_or(x.from))),
        n(y.at(0.0))
    );
    let mut last = (f64::NEG_INFINITY, f64::NEG_INFINITY);
    for (value, below) in distribution.points() {
        let above = (total - below as f64) / total;
        let (px, py) = (
            x.inside(value),
            if above > 0.0 {
                y.inside(above.log10())
            } else {
                y.at(y.from)
            },
        );
        let drawn = px - last.0 >= 0.7 || py - last.1 >= 0.7;
        if drawn && value <= x.to {
            out.push_str(&format!("H{}V{}", n(px), n(py)));
            last = (px, py);
        }
    }
    out
}

/// A phase's step times: of the ranks together, or where they step each for itself, of the slowest and the fastest.
fn step_rows<'a>(story: &Story<'a>, window: &'a Window) -> Vec<(String, &'a Distribution)> {
    if window.coupled() {
        let tails = window_tails(story, window, true);
        return tails
            .into_iter()
            .map(|t| (t.name, t.distribution))
            .collect();
    }
    let devices = window.devices.iter().enumerate();
    let mut timed: Vec<(usize, f64, &Distribution)> = devices
        .filter_map(|(index, device)| {
            let distribution = device.step_time.get()?;
            Some((index, distribution.quantile(0.5)?, distribution))
        })
        .collect();
    timed.sort_by(|a, b| b.1.total_cmp(&a.1));
    let count = timed.len();
    let phase = facts::segment_name(story, window);
    let row = |which: &str, (index, _, distribution): &(usize, f64, &'a Distribution)| {
        let id = facts::device_id(story, Some(*index as u32));
        (format!("{phase}, {which}{id}"), *distribution)
    };
    match timed.as_slice() {
        [] => Vec::new(),
        [one] => vec![row("", one)],
        [slowest, .., fastest] => vec![
            row(&format!("slowest of {count}: "), slowest),
            row(&format!("fastest of {count}: "), fastest),
        ],
    }
}

/// Step times of every phase that ran.
fn step_table(story: &Story<'_>) -> String {
    let mut rows = String::new();
    for window in story.standing.windows() {
        if !matches!(window.kind, crate::plan::SegmentKind::Phase(_)) {
            continue;
        }
        for (name, distribution) in step_rows(story, window) {
            rows.push_str(&quantile_row(&name, distribution, ""));
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<div class=\"scroll\"><table class=\"ev nums\"><thead><tr><th>Step time of phase</th><th class=\"n\">steps</th><th class=\"n\">p50</th>\
         <th class=\"n\">p95</th><th class=\"n\">p99</th><th class=\"n\">p99.9</th><th class=\"n\">longest</th><th class=\"n\"></th></tr></thead>\
         <tbody>{rows}</tbody></table></div>"
    )
}

fn quantile_row(name: &str, distribution: &Distribution, last: &str) -> String {
    let known = words::supported(distribution.count());
    let cell = |wanted: &str| {
        let found = known.iter().find(|(_, name)| *name == wanted);
        let value = found.and_then(|(q, _)| distribution.quantile(*q));
        value.map_or_else(|| "–".to_owned(), |v| human(v, Unit::Second))
    };
    format!(
        "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
         <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{last}</td></tr>",
        xml(name),
        human(distribution.count() as f64, Unit::Count),
        cell("p50"),
        cell("p95"),
        cell("p99"),
        cell("p99.9"),
        distribution
            .max()
            .map_or_else(|| "–".to_owned(), |v| human(v, Unit::Second)),
    )
}

/// All-reduce by phase and payload, with the bus bandwidth of the median operation.
fn op_table(story: &Story<'_>) -> String {
    let mut rows = String::new();
    for window in story.standing.windows() {
        if !matches!(window.kind, crate::plan::SegmentKind::Phase(_)) {
            continue;
        }
        if !window.group.sweep.sizes.is_empty() {
            // A sweep has a section of its own.
            continue;
        }
        let ranks = facts::ranks(story, window);
        for (payload, times) in &window.group.ops {
            let Some(distribution) = times.get() else {
                continue;
            };
            let half = distribution.quantile(0.5).filter(|t| *t > 0.0 && ranks > 1);
            // Bus bandwidth: payload / time · 2(n − 1)/n. Source: nccl-tests, PERFORMANCE.md.
            let factor = 2.0 * (ranks as f64 - 1.0) / ranks.max(1) as f64;
            let busbw = half.map_or_else(
                || "–".to_owned(),
                |t| human(*payload as f64 / t * factor, Unit::BytePerSecond),
            );
            let name = format!(
                "{}, {} on {}",
                facts::segment_name(story, window),
                Bytes(*payload),
                words::counted(ranks, "rank", "ranks")
            );
            rows.push_str(&quantile_row(&name, distribution, &busbw));
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let transport = &story.standing.opened().plan.transport;
    let transport = if transport.is_empty() {
        String::new()
    } else {
        format!(", over {}", xml(transport))
    };
    format!(
        "<div class=\"scroll\"><table class=\"ev nums\"><thead><tr><th>All-reduce time of phase, payload{transport}</th><th class=\"n\">operations</th>\
         <th class=\"n\">p50</th><th class=\"n\">p95</th><th class=\"n\">p99</th><th class=\"n\">p99.9</th><th class=\"n\">longest</th>\
         <th class=\"n\">bus bandwidth</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}
