//! The devices, worst first: what decides about each, and the course of its rate.

use super::super::escape::xml;
use super::super::facts::DeviceRow;
use super::super::{Story, facts, words};
use super::{class, course, glyph};
use crate::verdict::Outcome;
use hallmark_profiles::units::{Unit, human};

/// Devices listed; the record has them all.
const LISTED: usize = 24;

pub fn section(story: &Story<'_>) -> String {
    let rows = facts::devices(story);
    let has_power = rows.iter().any(|r| r.power_w.is_some());
    let has_heat = rows.iter().any(|r| r.hottest_c.is_some());
    let has_memory = rows.iter().any(|r| r.memory_rate.is_some());
    let has_peers = rows.iter().any(|r| r.relative.is_some());
    let name = one_name(&rows);
    let shown: Vec<String> = rows
        .iter()
        .take(LISTED)
        .map(|r| {
            row(
                story,
                r,
                [has_peers, has_memory, has_power, has_heat],
                name.is_none(),
            )
        })
        .collect();
    let more = rows.len().saturating_sub(LISTED);
    let clean = rows
        .iter()
        .skip(LISTED)
        .filter(|r| r.outcome == Outcome::Passed)
        .count();
    let are = match (name, rows.len()) {
        (Some(name), 1) => format!(" It is {}.", xml(name)),
        (Some(name), _) => format!(" All are {}.", xml(name)),
        (None, _) => String::new(),
    };
    let sub = match more {
        0 => format!(
            "All {}, by outcome, then by rate against peers.{are}",
            words::counted(rows.len(), "device", "devices")
        ),
        more => format!(
            "{LISTED} of {}. Of the other {more}, {clean} are within every limit; all are in the record.{are}",
            rows.len()
        ),
    };
    let head = |wanted: bool, text: &str| {
        if wanted {
            format!("<th class=\"n\">{text}</th>")
        } else {
            String::new()
        }
    };
    format!(
        "<section id=\"devices\"><h2>Devices, worst first</h2><p class=\"sub\">{sub}</p><div class=\"scroll\"><table class=\"dev\"><thead><tr>\
         <th>Device</th><th class=\"n\">Rate<i>median</i></th>{}<th>Rate, whole run</th>{}{}{}<th class=\"n\">Steps</th><th class=\"n\">Audited<i>of matmuls</i></th>\
         <th class=\"n\">Wrong</th><th class=\"n\">Faults</th><th>Found</th></tr></thead><tbody>{}</tbody></table></div></section>",
        head(has_peers, "Of peers<i>%</i>"),
        head(has_memory, "Memory<i>rate</i>"),
        head(has_power, "Power<i>mean</i>"),
        head(has_heat, "Hottest<i>core</i>"),
        shown.concat(),
    )
}

/// What all devices are, where they are one and the same.
fn one_name<'a>(rows: &[DeviceRow<'a>]) -> Option<&'a str> {
    let first = rows.first()?.planned.name.as_str();
    rows.iter()
        .all(|r| r.planned.name == first)
        .then_some(first)
}

fn row(story: &Story<'_>, row: &DeviceRow<'_>, columns: [bool; 4], named: bool) -> String {
    let [peers, memory, power, heat] = columns;
    let cell = |wanted: bool, text: Option<String>| {
        if wanted {
            format!(
                "<td class=\"n\">{}</td>",
                text.unwrap_or_else(|| "–".to_owned())
            )
        } else {
            String::new()
        }
    };
    let ink = if row.outcome == Outcome::Failed {
        "l-bad"
    } else {
        "l-d0"
    };
    let spark = course::spark(story, row.index, 120.0, 22.0).map_or_else(
        || "–".to_owned(),
        |d| format!("<svg class=\"spark\" viewBox=\"0 0 120 22\" aria-hidden=\"true\"><path class=\"thin {ink}\" d=\"{d}\"/></svg>"),
    );
    let audited = if row.gemms == 0 {
        "–".to_owned()
    } else {
        human(100.0 * row.audited as f64 / row.gemms as f64, Unit::Percent)
    };
    let found = row
        .found
        .clone()
        .unwrap_or_else(|| "within every limit".to_owned());
    format!(
        "<tr class=\"{}\"><th scope=\"row\">{}<span>{}<i>{}</i></span></th>{}{}<td>{spark}</td>{}{}{}<td class=\"n\">{}</td><td class=\"n\">{audited}</td>\
         <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"why\">{}<i>{}</i></td></tr>",
        class(row.outcome),
        glyph(row.outcome),
        xml(&row.planned.id),
        if named {
            xml(&row.planned.name)
        } else {
            String::new()
        },
        cell(true, row.rate.map(|r| human(r, Unit::FlopPerSecond))),
        cell(peers, row.relative.map(|r| format!("{:.1}", r * 100.0))),
        cell(
            memory,
            row.memory_rate.map(|r| human(r, Unit::BytePerSecond))
        ),
        cell(power, row.power_w.map(|w| human(w, Unit::Watt))),
        cell(heat, row.hottest_c.map(|c| human(c, Unit::Celsius))),
        human(row.steps as f64, Unit::Count),
        human(row.mismatches as f64, Unit::Count),
        row.faults,
        xml(&words::capital(&found)),
        xml(&facts::location(row.planned)),
    )
}
