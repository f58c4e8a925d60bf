//! The report for people: one self-contained page that opens offline, verdict first.
//!
//! Everything is static HTML and SVG and tells the whole story without script, colour or network; the
//! page's own script only reads values off the drawn lines. The page's policy forbids every request.

mod causes;
mod course;
mod curves;
mod devices;
mod evidence;
mod gates;
mod labels;
mod pairs;
mod panels;
mod spread;
mod sweep;
mod top;

use super::escape::xml;
use super::{Format, Story, words};
use crate::verdict::Outcome;

const STYLE: &str = include_str!("../../assets/report.css");
const SCRIPT: &str = include_str!("../../assets/report.js");

/// The format.
pub struct Html;

impl Format for Html {
    fn name(&self) -> &'static str {
        "html"
    }

    fn file(&self) -> &'static str {
        "report.html"
    }

    fn write(&self, story: &Story<'_>) -> String {
        let sections = [
            top::bar(story),
            top::verdict(story),
            causes::section(story),
            top::punch(story),
            gates::section(story),
            course::section(story),
            spread::section(story),
            sweep::section(story),
            pairs::section(story),
            devices::section(story),
            evidence::section(story),
            evidence::reading(story),
            footer(story),
        ];
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
             style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\
             <title>{}</title><style>{STYLE}</style></head><body>\n{}\n\
             <div id=\"tip\" hidden></div><script>{SCRIPT}</script></body></html>\n",
            title(story),
            sections.join("\n"),
        )
    }
}

fn title(story: &Story<'_>) -> String {
    let host = &story.standing.opened().host.name;
    xml(&format!(
        "{}: {host}, {} · hallmark",
        story.verdict.word(),
        story.standing.profile().name
    ))
}

fn footer(story: &Story<'_>) -> String {
    let opened = story.standing.opened();
    let banner = words::banner(story).map_or(String::new(), |b| format!("<span>{b}</span>"));
    format!(
        "<footer><span>hallmark {} · run {}</span>{banner}<span class=\"mono\">{}</span></footer>",
        xml(&opened.hallmark_version),
        xml(&opened.run_id),
        xml(&words::short(story.head.unwrap_or("not sealed"))),
    )
}

/// The three outcomes as three shapes; colour only repeats the shape.
fn glyph(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Failed => {
            "<svg class=\"glyph\" viewBox=\"0 0 16 16\" role=\"img\" aria-label=\"fail\"><rect class=\"gf\" x=\"1\" y=\"1\" \
             width=\"14\" height=\"14\" rx=\"2.5\"/><path class=\"gx\" d=\"M5 5l6 6M11 5l-6 6\"/></svg>"
        }
        Outcome::Inconclusive => {
            "<svg class=\"glyph\" viewBox=\"0 0 16 16\" role=\"img\" aria-label=\"inconclusive\"><path class=\"gi\" \
             d=\"M8 1l7 7-7 7-7-7z\"/><path class=\"gi\" d=\"M8 4.6v4.2M8 10.6v1\"/></svg>"
        }
        Outcome::Passed => {
            "<svg class=\"glyph\" viewBox=\"0 0 16 16\" role=\"img\" aria-label=\"pass\"><circle class=\"gp\" cx=\"8\" cy=\"8\" \
             r=\"6.6\"/><path class=\"gc\" d=\"M5.2 8.2l2 2 3.6-4\"/></svg>"
        }
    }
}

/// Class of an outcome.
const fn class(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Failed => "fail",
        Outcome::Inconclusive => "inc",
        Outcome::Passed => "pass",
    }
}
