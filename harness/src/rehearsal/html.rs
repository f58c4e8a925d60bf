//! The rehearsal's report: one self-contained page with the table, what to change, and each fault's picture.
//!
//! Static HTML and SVG in the style of a run's report, without script or network. It says on top that everything on
//! it is simulated.

use super::Picture;
use super::advice::spoken;
use super::table::Share;
use super::tell::{Told, after, at_least, at_most, verdicts};
use hallmark_profiles::units::Unit;
use hallmark_results::report::escape::xml;
use hallmark_results::report::svg::{Anchor, Scale, Svg, axis_unit, digits, n, tick_label, ticks};
use std::fmt::Write;

const STYLE: &str = include_str!("../../../results/assets/report.css");
/// What the table needs beside a run's report.
const OWN: &str = ".rh td,.rh tbody th{padding:6px 12px 6px 0;vertical-align:middle}.rh .n{font-variant-numeric:tabular-nums}\
.rh tbody th b{display:block;font-weight:620}.rh i{display:block}.rh tbody th{min-width:190px;max-width:260px}.rh .sure{display:block;width:150px;height:16px}\
.rh tr.short b.share{color:var(--bad)}.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(420px,100%),1fr));gap:30px 40px;margin-top:18px}\
.gallery figcaption b{display:block}.target{stroke:var(--ink);stroke-width:.9;stroke-dasharray:2 3;opacity:.6}\
.bar-bg{fill:var(--shade)}.bar-ok{fill:var(--hall);opacity:.85}.bar-bad{fill:var(--bad);opacity:.85}.wh-l{stroke:var(--ink);stroke-width:1.2}\
.todo{list-style:none;padding:0;margin:8px 0 0}.todo li{display:grid;grid-template-columns:220px 1fr;gap:16px;padding:7px 0;border-top:1px solid var(--hair)}\
@media screen and (max-width:820px){.rh{min-width:860px}.todo li{grid-template-columns:1fr;gap:0}}";
/// What the targets of a rehearsal are.
const RECALL: f64 = 0.95;
const FALSE_MOST: f64 = 0.01;

/// The whole page.
#[must_use]
pub fn page(told: &Told<'_>) -> String {
    let sections = [
        bar(told),
        top(told),
        table(told),
        calm(told),
        todo(told),
        gallery(told),
        reading(),
        footer(),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>rehearsal of {} · hallmark</title><style>{STYLE}{OWN}</style></head><body>\n{}\n</body></html>\n",
        xml(told.profile),
        sections.join("\n")
    )
}

fn bar(told: &Told<'_>) -> String {
    format!(
        "<div class=\"bar\"><span><b>hallmark</b> rehearsal</span><span>{} on {}</span>\
         <span class=\"stamp\">SIMULATED</span><nav><a href=\"#faults\">faults</a><a href=\"#change\">what to change</a>\
         <a href=\"#pictures\">pictures</a></nav></div>",
        xml(told.profile),
        xml(told.hall)
    )
}

fn top(told: &Told<'_>) -> String {
    let (found, alarms) = (told.found(), told.false_alarms());
    let faults = match found.of {
        0 => "No fault was played.".to_owned(),
        of => format!("{} of {of} faults found in time", found.hits),
    };
    let class = if found.of > 0 && !found.clears(RECALL) {
        "inc"
    } else {
        "pass"
    };
    let bound = found.interval().map_or(String::new(), |i| {
        format!(
            "; at least {:.1} % with 95 % confidence",
            (1000.0 * i.low).floor() / 10.0
        )
    });
    let calm = match alarms.of {
        0 => "no healthy hall was played".to_owned(),
        _ => format!("healthy halls rejected: {}", at_most(alarms)),
    };
    format!(
        "<div class=\"verdict {class}\"><h1>{}</h1><p class=\"lede\">{}{}; {}.<small>{}. Everything here is simulated: it \
         accepts no site.</small></p></div>",
        found.interval().map_or("–".to_owned(), |i| format!(
            "{:.0} %",
            (100.0 * i.value).floor()
        )),
        xml(&faults),
        xml(&bound),
        xml(&calm),
        xml(&told.extent()),
    )
}

/// A share as a bar with its interval and the target's line.
fn sure(share: Share, target: f64) -> String {
    let Some(interval) = share.interval() else {
        return "–".to_owned();
    };
    let x = Scale::new(0.0, 1.0, 0.0, 150.0);
    let mut svg = Svg::default();
    svg.rect(0.0, 4.0, 150.0, 8.0, "bar-bg");
    let class = if interval.value >= target {
        "bar-ok"
    } else {
        "bar-bad"
    };
    svg.rect(0.0, 4.0, x.inside(interval.value), 8.0, class);
    svg.line(
        x.inside(interval.low),
        8.0,
        x.inside(interval.high),
        8.0,
        "wh-l",
    );
    svg.line(x.at(target), 1.0, x.at(target), 15.0, "target");
    format!(
        "<svg class=\"sure\" viewBox=\"0 0 150 16\" role=\"img\" aria-label=\"{}\">{}</svg>",
        xml(&at_least(share)),
        svg.into_body()
    )
}

fn table(told: &Told<'_>) -> String {
    let mut rows = String::new();
    for row in told.rows.iter().filter(|r| !r.is_calm()) {
        let short = row.in_time.interval().is_some_and(|i| i.value < RECALL);
        let (place, cause) = (row.right_place, row.right_cause);
        let _ = write!(
            rows,
            "<tr{}><th scope=\"row\"><b>{} <small>×{}</small></b><i>{}</i></th><td>{}</td><td class=\"n\"><b class=\"share\">{}</b></td>\
             <td class=\"n\">{}</td><td class=\"n\">{}/{}</td><td class=\"n\">{}/{}</td><td class=\"n\">{}<i>wanted {}</i></td><td>{}</td></tr>",
            if short { " class=\"short\"" } else { "" },
            xml(&row.name),
            row.factor,
            xml(&row.summary),
            sure(row.in_time, RECALL),
            at_least(row.in_time),
            at_least(row.found),
            place.hits,
            place.of,
            cause.hits,
            cause.of,
            xml(&after(row)),
            xml(&spoken(row.within_s)),
            xml(&verdicts(row)),
        );
    }
    format!(
        "<section id=\"faults\"><h2>What this profile would find</h2><p class=\"sub\">Each fault is put into the hall as physics, in \
         a place that the seed draws, and looked for in the record alone. Lower bounds are exact, one-sided, at 95 %.</p>\
         <div class=\"scroll\"><table class=\"rh\"><thead><tr><th>fault</th><th>found in time <i>line: 95 %</i></th>\
         <th class=\"n\">in time</th><th class=\"n\">by the end</th><th class=\"n\">right place</th><th class=\"n\">right cause</th>\
         <th class=\"n\">after, median <i>(95 %)</i></th><th>verdicts</th></tr></thead><tbody>{rows}</tbody></table></div></section>"
    )
}

fn calm(told: &Told<'_>) -> String {
    let mut rows = String::new();
    for row in told.rows.iter().filter(|r| r.is_calm()) {
        let alarm = row.rejected.hits as f64 > FALSE_MOST * row.rejected.of as f64;
        let what: Vec<&str> = row
            .failed
            .iter()
            .chain(&row.doubts)
            .map(String::as_str)
            .collect();
        let _ = write!(
            rows,
            "<tr{}><th scope=\"row\"><b>{}</b><i>{}</i></th><td class=\"n\"><b class=\"share\">{}</b></td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td>{}</td></tr>",
            if alarm { " class=\"short\"" } else { "" },
            xml(&row.name),
            xml(&row.summary),
            at_most(row.rejected),
            at_most(row.undecided),
            at_most(row.strayed),
            xml(&what.join("; ")),
        );
    }
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<section id=\"healthy\"><h2>What must alarm nobody</h2><p class=\"sub\">Halls without a fault, and what is no fault. Upper \
         bounds are exact, one-sided, at 95 %.</p><div class=\"scroll\"><table class=\"rh\"><thead><tr><th>hall</th>\
         <th class=\"n\">rejected</th><th class=\"n\">undecided</th><th class=\"n\">something named</th><th>by</th></tr></thead>\
         <tbody>{rows}</tbody></table></div></section>"
    )
}

fn todo(told: &Told<'_>) -> String {
    let mut items = String::new();
    for (row, advice) in told.rows.iter().zip(told.advice) {
        for one in advice {
            let _ = write!(
                items,
                "<li><b>{} ×{}</b><span>{}</span></li>",
                xml(&row.name),
                row.factor,
                xml(one)
            );
        }
    }
    if items.is_empty() {
        items.push_str(
            "<li><b>Nothing</b><span>Every fault was found in time in enough plays.</span></li>",
        );
    }
    format!(
        "<section id=\"change\"><h2>What to change</h2><p class=\"sub\">Where this profile fell short of 95 % in time.</p>\
         <ul class=\"todo\">{items}</ul></section>"
    )
}

fn gallery(told: &Told<'_>) -> String {
    let mut figures = String::new();
    for (index, row) in told.rows.iter().enumerate() {
        let Some(picture) = row.picture.as_ref().filter(|_| !row.is_calm()) else {
            continue;
        };
        let said = row.said.first().or(row.mistaken.first());
        let said = said.map_or("It was not named.".to_owned(), |s| format!("Named: {s}"));
        let _ = write!(
            figures,
            "<figure><figcaption><b>{} ×{}</b>{}</figcaption>{}</figure>",
            xml(&row.name),
            row.factor,
            xml(&said),
            drawn(picture, index, &row.summary)
        );
    }
    if figures.is_empty() {
        return String::new();
    }
    format!(
        "<section id=\"pictures\"><h2>How each looks</h2><p class=\"sub\">One play of each: the line at the place named, the band and \
         grey line of the others (5th to 95th percentile, median). The orange line is the onset, the dotted one when it was \
         found.</p><div class=\"gallery\">{figures}</div></section>"
    )
}

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 44.0;
const BOTTOM: f64 = 128.0;
const TOP: f64 = 14.0;

fn drawn(picture: &Picture, index: usize, summary: &str) -> String {
    let known = picture.here.iter().chain(picture.others.iter().flatten());
    let known: Vec<f64> = known.copied().filter(|v| v.is_finite()).collect();
    let low = known.iter().copied().fold(f64::INFINITY, f64::min);
    let high = known.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !(low.is_finite() && high.is_finite()) {
        return String::new();
    }
    let room = 0.06 * (high - low).max(high.abs() * 1e-3);
    let y = Scale::new(low - room, high + room, BOTTOM, TOP);
    let end = picture.at_s.last().copied().unwrap_or(1.0);
    let x = Scale::new(0.0, end, LEFT, WIDTH - 8.0);
    let mut svg = Svg::default();
    axes(&mut svg, picture, &x, &y);
    svg.path(&band(picture, &x, &y), "band", "");
    let middle: Vec<f64> = picture.others.iter().map(|o| o[0]).collect();
    svg.path(&line(&picture.at_s, &middle, &x, &y), "l-grey", "");
    svg.path(&line(&picture.at_s, &picture.here, &x, &y), "l-d0", "");
    if let Some(onset) = picture.onset_s.filter(|t| *t > 0.0) {
        svg.line(x.inside(onset), TOP, x.inside(onset), BOTTOM, "onset");
    }
    if let Some(found) = picture.found_s {
        svg.line(x.inside(found), TOP, x.inside(found), BOTTOM, "lim");
    }
    let title = format!("{} over time", picture.metric);
    svg.finish(&format!("pic{index}"), WIDTH, HEIGHT, &title, summary)
}

fn axes(svg: &mut Svg, picture: &Picture, x: &Scale, y: &Scale) {
    let (factor, unit) = axis_unit(picture.unit, y.to.abs().max(y.from.abs()));
    let marks = ticks(y.from / factor, y.to / factor, 3);
    let step = marks.get(1).zip(marks.first()).map_or(1.0, |(b, a)| b - a);
    for mark in &marks {
        let at = y.at(mark * factor);
        svg.line(LEFT, at, WIDTH - 8.0, at, "grid");
        svg.text(
            LEFT - 6.0,
            at + 4.0,
            "t2",
            Anchor::End,
            &tick_label(*mark, step),
        );
    }
    let unit = if picture.unit == Unit::One {
        String::new()
    } else {
        format!(" {unit}")
    };
    let name = picture.metric.id().replace('_', " ");
    svg.text(
        LEFT,
        TOP - 3.0,
        "t2",
        Anchor::Start,
        &format!("{name}{unit}"),
    );
    // Minutes for hours, hours for days.
    let (each, what) = if x.to > 3.0 * 7_200.0 {
        (3_600.0, "h")
    } else {
        (60.0, "min")
    };
    for mark in ticks(0.0, x.to / each, 5) {
        let at = x.at(mark * each);
        svg.line(at, BOTTOM, at, BOTTOM + 3.0, "tick");
        let text = format!(
            "{} {what}",
            digits(mark).trim_end_matches('0').trim_end_matches('.')
        );
        let text = if mark.abs() < 1e-9 {
            "0".to_owned()
        } else {
            text
        };
        svg.text(at, BOTTOM + 15.0, "t2", Anchor::Middle, &text);
    }
    svg.line(LEFT, BOTTOM, WIDTH - 8.0, BOTTOM, "axis");
}

/// Path data; begun anew after each hole.
fn line(at: &[f64], values: &[f64], x: &Scale, y: &Scale) -> String {
    let mut out = String::new();
    let mut pen_down = false;
    for (t, v) in at.iter().zip(values) {
        if v.is_finite() {
            let _ = write!(
                out,
                "{}{} {}",
                if pen_down { "L" } else { "M" },
                n(x.at(*t)),
                n(y.at(*v))
            );
        }
        pen_down = v.is_finite();
    }
    out
}

fn band(picture: &Picture, x: &Scale, y: &Scale) -> String {
    let sound: Vec<(f64, [f64; 3])> = picture
        .at_s
        .iter()
        .copied()
        .zip(picture.others.iter().copied())
        .filter(|(_, o)| o.iter().all(|v| v.is_finite()))
        .collect();
    let upper = sound.iter().map(|(t, o)| (*t, o[2]));
    let lower = sound.iter().rev().map(|(t, o)| (*t, o[1]));
    let mut out = String::new();
    for (index, (t, v)) in upper.chain(lower).enumerate() {
        let _ = write!(
            out,
            "{}{} {}",
            if index == 0 { "M" } else { "L" },
            n(x.at(t)),
            n(y.at(v))
        );
    }
    if !out.is_empty() {
        out.push('z');
    }
    out
}

fn reading() -> String {
    "<section id=\"reading\"><h2>How to read this</h2><p class=\"sub\">Found: named by one of its causes at a place that shares a \
     device with it, or its very place named by another cause. In time: at a look no later than the time wanted, counted from the \
     onset; looks are spaced, so times are upper bounds. Right place: the very devices and no others. The simulated hall's \
     constants are drawn for each seed, and what judges sees none of them.</p></section>"
        .to_owned()
}

fn footer() -> String {
    format!(
        "<footer><span>hallmark {}</span><span>SIMULATED: accepts no site</span></footer>",
        env!("CARGO_PKG_VERSION")
    )
}
