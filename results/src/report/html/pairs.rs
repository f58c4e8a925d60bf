//! Pairs of nodes before the load and after it: a square for each two that met, the slower the fuller, and the slowest in a table.

use super::super::escape::{clean, xml};
use super::super::pairs::{self, Way};
use super::super::svg::{Anchor, Svg};
use super::super::{Story, sweep, words};
use crate::diagnosis::pairs::{Measured, When, measured};
use hallmark_profiles::units::{Unit, human};
use std::collections::BTreeSet;

const WIDTH: f64 = 482.0;
/// Widest a square becomes.
const SQUARE: f64 = 34.0;
/// Room for a name, and letters that fit in.
const NAME: f64 = 96.0;
const LETTERS: usize = 15;
/// Names stand where squares are at least as high.
const LINE: f64 = 11.0;
/// Pairs in the table.
const TOLD: usize = 8;

/// Nothing where no pairs were measured.
pub fn section(story: &Story<'_>) -> String {
    measured(story.standing).map(|m| of(story, &m)).collect()
}

fn of(story: &Story<'_>, measured: &Measured<'_>) -> String {
    let (when, rows) = (measured.when, measured.rows);
    let ways = pairs::ways(rows);
    let suffix = match when {
        When::Before => "",
        When::Between => "-between",
        When::After => "-after",
    };
    let bytes: BTreeSet<u64> = rows.iter().map(|r| r.bytes).collect();
    let sizes: Vec<String> = bytes.iter().map(|b| sweep::size(*b)).collect();
    let transport = &story.standing.opened().plan.transport;
    format!(
        "<section id=\"pairs{}\"><h2>{}</h2><p class=\"sub\">{}, with nothing loaded, over {}: random disjoint pairs, all at once; then \
         nodes that were slow in each pair against nodes that were not, and slow pairs of good nodes once more. Rates are of \
         the median exchange of {} both ways, latencies of single floats; of two nodes that met more than once the worst.</p>\
         <div class=\"figures pair\"><figure><figcaption><b>Rate of each pair</b> over the median of all</figcaption>{}</figure>\
         <div class=\"scroll\">{}</div></div></section>",
        suffix,
        xml(&words::capital(&pairs::sentence(Some(when), rows))),
        xml(&words::capital(&when.to_string())),
        xml(if transport.is_empty() {
            "a transport not stated"
        } else {
            transport
        }),
        sizes.join(" or "),
        picture(&format!("pairs-rate{suffix}"), &ways),
        table(&ways),
    )
}

/// How a share of the median looks.
fn class(share: f64) -> &'static str {
    match share {
        s if s >= 0.8 => "q-good",
        s if s >= 0.5 => "q-low",
        _ => "q-bad",
    }
}

fn picture(name: &str, ways: &[Way<'_>]) -> String {
    let nodes: BTreeSet<&String> = ways.iter().flat_map(|w| w.nodes).collect();
    let nodes: Vec<&String> = nodes.into_iter().collect();
    let square = ((WIDTH - NAME) / nodes.len().max(1) as f64).min(SQUARE);
    let at = |node: &String| nodes.iter().position(|n| *n == node).unwrap_or(0) as f64;
    let mut svg = Svg::default();
    let room = square * 0.92;
    for (row, name) in nodes.iter().enumerate() {
        let y = square * row as f64;
        if square >= LINE {
            let short: String = clean(name).chars().take(LETTERS).collect();
            let middle = y + square / 2.0 + 4.0;
            svg.text(NAME - 8.0, middle, "tl", Anchor::End, &short);
        }
        // A node does not meet itself.
        let itself = NAME + square * row as f64;
        svg.rect(itself, y, room, room, "q-self");
    }
    for way in ways {
        let (a, b) = (at(&way.nodes[0]), at(&way.nodes[1]));
        for (column, row) in [(a, b), (b, a)] {
            let (x, y) = (NAME + square * column, square * row);
            svg.rect(x, y, room, room, class(way.share));
            if square >= 30.0 {
                let share = format!("{:.2}", way.share);
                let (x, y) = (x + room / 2.0, y + room / 2.0 + 4.0);
                svg.text(x, y, "tl halo", Anchor::Middle, &share);
            }
        }
    }
    let height = square * nodes.len() as f64;
    let said = "Squares by nodes; the fuller, the slower the pair. What is empty has not met.";
    svg.finish(name, WIDTH, height, "Rate of each pair", said)
}

fn table(ways: &[Way<'_>]) -> String {
    let row = |way: &Way<'_>| {
        let wrong = match way.wrong {
            0 => String::new(),
            some => format!("<i class=\"ti\">{some} floats wrong</i>"),
        };
        format!(
            "<tr><th>{} – {}{wrong}</th><td class=\"n\">{}</td><td class=\"n\">{:.2}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            xml(&clean(&way.nodes[0])),
            xml(&clean(&way.nodes[1])),
            human(way.bytes_per_s, Unit::BytePerSecond),
            way.share,
            human(way.latency_s, Unit::Second),
            way.times
        )
    };
    let rows: String = ways.iter().take(TOLD).map(row).collect();
    format!(
        "<table class=\"ev\"><thead><tr><th>Slowest pairs</th><th class=\"n\">Each way</th><th class=\"n\">Of the median</th>\
         <th class=\"n\">Latency</th><th class=\"n\">Met</th></tr></thead><tbody>{rows}</tbody></table>"
    )
}
