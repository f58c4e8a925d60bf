//! What stands along the time axis: phases and events on top, times below.

use super::super::escape::clean;
use super::super::svg::{Anchor, Scale, Svg, n, tick_label, time_step_ns};
use super::super::{Story, facts, words};
use super::panels::{LEFT, Layers, RIGHT, ROW, WIDTH};
use crate::frame::What;
use crate::plan::SegmentKind;

/// Events named above the panels.
const MARKS: usize = 6;

/// Labels along the axis, put into as many rows as keep them apart.
pub struct Labels {
    items: Vec<Label>,
    pub rows: usize,
}

struct Label {
    at: f64,
    row: usize,
    text: String,
    class: &'static str,
    line: &'static str,
}

impl Labels {
    fn new(wanted: Vec<(f64, String, &'static str, &'static str)>) -> Self {
        let mut ends: Vec<f64> = Vec::new();
        let mut items = Vec::new();
        for (at, text, class, line) in wanted {
            let length = text.chars().count() as f64 * 6.4 + 12.0;
            let row = ends.iter().position(|end| *end <= at).unwrap_or(ends.len());
            if row == ends.len() {
                ends.push(0.0);
            }
            // A label near the right edge runs to the left of its line.
            ends[row] = at + length;
            items.push(Label {
                at,
                row,
                text,
                class,
                line,
            });
        }
        Self {
            items,
            rows: ends.len(),
        }
    }

    /// Lines down to `bottom`, texts from `offset` on.
    pub fn draw(&self, layers: &mut Layers, offset: f64, bottom: f64) {
        for label in &self.items {
            let y = offset + ROW * (label.row as f64 + 1.0);
            layers
                .back
                .line(label.at, y - 9.0, label.at, bottom, label.line);
            let length = label.text.chars().count() as f64 * 6.4;
            let (x, anchor) = if label.at + length > WIDTH {
                (label.at - 4.0, Anchor::End)
            } else {
                (label.at + 4.0, Anchor::Start)
            };
            // The script moves them along when it stretches the axis.
            layers
                .over
                .raw(&format!("<g class=\"along\" data-x=\"{}\">", n(label.at)));
            layers.over.text(x, y, label.class, anchor, &label.text);
            layers.over.raw("</g>");
        }
    }
}

/// Phases by name; the judged one says so.
pub fn phase_rows(story: &Story<'_>, x: &Scale) -> Labels {
    let main = facts::main_window(story).map(|w| w.start_ns);
    let shown = story
        .standing
        .windows()
        .iter()
        .filter(|w| matches!(w.kind, SegmentKind::Phase(_) | SegmentKind::Warmup));
    let label = |w: &crate::standing::window::Window| {
        let name = facts::segment_name(story, w);
        let (text, class) = match w.kind {
            SegmentKind::Warmup => ("warm-up".to_owned(), "t2"),
            _ if Some(w.start_ns) == main => (format!("{name}, judged"), "tb"),
            _ => (name, "t2"),
        };
        (x.inside(w.start_ns as f64), text, class, "phase")
    };
    Labels::new(shown.map(label).collect())
}

/// Faults, wrong results, stops, onsets of named causes: lines through all panels, named on top.
pub fn mark_rows(story: &Story<'_>, x: &Scale) -> Labels {
    let decisive = |what: &What| {
        matches!(
            what,
            What::Fault { .. }
                | What::Mismatch { .. }
                | What::Xid { .. }
                | What::Stop { .. }
                | What::Resumed { .. }
                | What::NeverSteady { .. }
        )
    };
    let events = story.standing.events().iter().filter(|e| decisive(&e.what));
    let mark = |event: &crate::frame::Event| {
        let (kind, _) = words::event(&event.what, |id| facts::table_name(story, id))?;
        let owner = event.device.map_or(String::new(), |_| {
            format!("{} ", facts::device_id(story, event.device))
        });
        let text = format!("{owner}{kind}, {}", words::instant(event.at_ns));
        Some((x.inside(event.at_ns as f64), text, "tf", "onset"))
    };
    let onset = |diagnosis: &crate::diagnosis::Diagnosis| {
        let at_ns = diagnosis.onset_ns?;
        let place = clean(&diagnosis.place.name);
        let text = format!(
            "{place}: {}, {}",
            diagnosis.cause.name(),
            words::instant(at_ns)
        );
        Some((x.inside(at_ns as f64), text, "tf", "onset"))
    };
    let onsets = story.verdict.diagnoses.iter().filter_map(onset);
    let mut marks: Vec<_> = events.filter_map(mark).chain(onsets).take(MARKS).collect();
    marks.sort_by(|a, b| a.0.total_cmp(&b.0));
    Labels::new(marks)
}

/// Ticks since the start, and the UTC that they count from.
pub fn time_axis(story: &Story<'_>, svg: &mut Svg, x: &Scale, bottom: f64) {
    let end = story.standing.last_ns();
    let step = time_step_ns(end, 8);
    let (divide, unit) = match step {
        s if s >= 3_600_000_000_000 => (3.6e12, "h"),
        s if s >= 60_000_000_000 => (6e10, "min"),
        _ => (1e9, "s"),
    };
    svg.line(LEFT, bottom, RIGHT, bottom, "axis");
    let count = end / step.max(1);
    svg.raw("<g id=\"ticks\">");
    for index in 0..=count.min(60) {
        let at_ns = (index * step) as f64;
        let at = x.at(at_ns);
        svg.line(at, bottom, at, bottom + 4.0, "tick");
        let number = tick_label(at_ns / divide, step as f64 / divide);
        let text = if index == count {
            format!("{number}\u{a0}{unit}")
        } else {
            number
        };
        svg.text(at, bottom + 17.0, "t2", Anchor::Middle, &text);
    }
    svg.raw("</g>");
    let opened = story.standing.opened();
    svg.text(
        LEFT,
        bottom + 33.0,
        "t2",
        Anchor::Start,
        &format!("0 = {}", words::utc(&opened.utc_start)),
    );
    if let Some(closed) = story.standing.closed() {
        svg.text(
            RIGHT,
            bottom + 33.0,
            "t2",
            Anchor::End,
            &words::utc(&closed.utc_end),
        );
    }
}
