//! Page one: the verdict, its reason, the facts a reader needs to trust it, and what to do next.

use super::super::escape::{clean, xml};
use super::super::{Story, facts, words};
use super::{class, glyph};
use crate::verdict::{Action, Outcome, Punch};

/// Devices named in the facts; the table of devices names more.
const NAMED: usize = 4;

pub fn bar(story: &Story<'_>) -> String {
    let banner = words::banner(story).map_or(String::new(), |b| {
        format!("<span class=\"stamp\">{b}</span>")
    });
    let why = if story.verdict.diagnoses.is_empty() {
        ""
    } else {
        "<a href=\"#why\">Cause</a>"
    };
    format!(
        "<header class=\"bar\"><span><b>hallmark</b> acceptance report</span>{banner}<nav>{why}<a href=\"#gates\">Gates</a>\
         <a href=\"#course\">Time</a><a href=\"#steps\">Steps</a><a href=\"#devices\">Devices</a>\
         <a href=\"#evidence\">Evidence</a><a href=\"#reading\">How to read</a></nav></header>"
    )
}

pub fn verdict(story: &Story<'_>) -> String {
    let verdict = story.verdict;
    let word = verdict.word().to_lowercase();
    let word = words::capital(&word);
    let tally: Vec<String> = [Outcome::Failed, Outcome::Inconclusive, Outcome::Passed]
        .into_iter()
        .map(|o| (verdict.count(o), o))
        .filter(|(count, _)| *count > 0)
        .map(|(count, o)| format!("<span>{}{count} {}</span>", glyph(o), words::outcome(o)))
        .collect();
    let tally = if tally.is_empty() {
        "<span>no gate judged</span>".to_owned()
    } else {
        tally.concat()
    };
    let next = next(story).map_or(String::new(), |n| {
        format!("<span class=\"next\"><b>Next</b> {n}</span>")
    });
    let mut remarks: Vec<String> = words::banner(story)
        .map(|b| format!("<b>{b}</b>: these figures are no result of the hardware named"))
        .into_iter()
        .collect();
    remarks.extend(verdict.remarks.iter().map(|r| words::capital(&xml(r))));
    remarks.extend(
        story
            .standing
            .opened()
            .plan
            .overrides
            .iter()
            .map(|o| format!("Changed: {}", xml(o))),
    );
    if !story.anchored {
        remarks.push(words::capital(&words::integrity(story)));
    }
    let remarks: Vec<String> = remarks.iter().map(|r| format!("<li>{r}</li>")).collect();
    format!(
        "<section class=\"verdict {}\"><h1>{}{word}</h1><p class=\"lede\">{}</p>\
         <div class=\"tally\">{tally}{next}</div>{}<ul class=\"remarks\">{}</ul></section>",
        class(verdict.outcome),
        glyph(verdict.outcome),
        lede(story),
        facts_grid(story),
        remarks.concat(),
    )
}

/// The verdict's reason, and below it what happened where.
fn lede(story: &Story<'_>) -> String {
    let happened = facts::happened(story);
    let happened = happened.map_or_else(String::new, |h| {
        format!("<small>{}</small>", xml(&words::capital(&h)))
    });
    format!(
        "{}{happened}",
        xml(&words::capital(&story.verdict.sentence))
    )
}

/// The first thing to do: of the punch list, else the first remedy.
fn next(story: &Story<'_>) -> Option<String> {
    let punch = story.verdict.punch.first();
    let punched = punch.map(|p| {
        format!(
            "{} {}: {}",
            words::action(p.action),
            xml(&p.place),
            xml(&words::beside(&p.place, &p.why))
        )
    });
    let open = story
        .verdict
        .findings
        .iter()
        .filter(|f| f.outcome != Outcome::Passed);
    let remedy = open.filter_map(|f| f.remedy.as_deref()).next().map(xml);
    punched.or(remedy).map(|text| words::capital(&text))
}

/// A fact: its name, its value and a quieter second line, both HTML.
fn fact(name: &str, value: &str, more: &str) -> String {
    let more = if more.is_empty() {
        String::new()
    } else {
        format!("<small>{more}</small>")
    };
    format!("<div><dt>{name}</dt><dd>{value}{more}</dd></div>")
}

fn facts_grid(story: &Story<'_>) -> String {
    let standing = story.standing;
    let opened = standing.opened();
    let (host, plan) = (&opened.host, &opened.plan);
    let mut machine: Vec<String> = vec![clean(&host.cpu), clean(&host.os), clean(&host.kernel)];
    machine.retain(|part| !part.is_empty());
    let closed = standing.closed();
    let (level, level_why) = facts::power_level(story);
    let origin = if plan.profile_origin == standing.profile().name {
        "built in"
    } else {
        plan.profile_origin.as_str()
    };
    let mut cells = vec![
        fact("Host", &xml(&host.name), &xml(&machine.join(" · "))),
        fact(
            "Devices",
            &words::counted(plan.devices.len(), "device", "devices"),
            &named_devices(story),
        ),
        fact(
            "Profile",
            &format!(
                "{} <span class=\"mono\">{}</span>",
                xml(&standing.profile().name),
                xml(&words::short(&plan.profile_digest))
            ),
            &format!(
                "{}, {}",
                xml(origin),
                if story.verdict.accepts_site {
                    "accepts a site"
                } else {
                    "accepts no site"
                }
            ),
        ),
        judged(story),
        fact(
            "Start",
            &xml(&words::utc(&opened.utc_start)),
            &words::clock(&opened.clock),
        ),
        fact(
            "End",
            &closed.map_or_else(|| "not closed".to_owned(), |c| xml(&words::utc(&c.utc_end))),
            &closed.map_or_else(String::new, |c| {
                format!(
                    "{} · {}",
                    xml(&words::ending(story)),
                    words::clock(&c.clock)
                )
            }),
        ),
        fact("Power measured at", level, level_why),
        fact(
            "Confidence",
            &format!("{}, one-sided, per gate", words::confidence(story)),
            "failing gates after Holm’s correction",
        ),
        fact("Place", &xml(&place(story)), ""),
        sealed(story),
    ];
    if let Some(remark) = &opened.remark {
        cells.push(format!(
            "<div class=\"wide\"><dt>Operator’s remark</dt><dd>{}</dd></div>",
            xml(remark)
        ));
    }
    format!("<dl class=\"facts\">{}</dl>", cells.concat())
}

/// Which window was judged, after how long a warm-up.
fn judged(story: &Story<'_>) -> String {
    let warm = match facts::warmup_ns(story) {
        0 => "no warm-up".to_owned(),
        ns => format!("after {} of warm-up", words::planned(ns)),
    };
    match facts::main_window(story) {
        None => fact("Judged", "nothing judged", &warm),
        Some(window) => {
            let length = words::planned(window.length_ns(story.standing.last_ns()));
            let phase = xml(&facts::segment_name(story, window));
            fact("Judged", &length, &format!("phase “{phase}” · {warm}"))
        }
    }
}

/// Whether the record is sealed, and whether anything outside vouches for it.
fn sealed(story: &Story<'_>) -> String {
    let seal = story.head.map_or_else(
        || "not sealed".to_owned(),
        |h| {
            format!(
                "sealed, <span class=\"mono\">{}</span>",
                xml(&words::short(h))
            )
        },
    );
    let anchor = if story.anchored {
        "head is the one expected"
    } else {
        "integrity not anchored"
    };
    fact("Record", &seal, anchor)
}

/// Devices by name: `cpu0, cpu1: AMD EPYC …`.
fn named_devices(story: &Story<'_>) -> String {
    let mut names: Vec<(String, Vec<String>)> = Vec::new();
    for device in &story.standing.opened().plan.devices {
        let software = if device.software { ", software" } else { "" };
        let name = format!(
            "{} ({}{software})",
            clean(&device.name),
            clean(&device.engine)
        );
        match names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, ids)) => ids.push(clean(&device.id)),
            None => names.push((name, vec![clean(&device.id)])),
        }
    }
    let said = |(name, ids): &(String, Vec<String>)| {
        let more = ids.len().saturating_sub(NAMED);
        let mut ids = ids
            .iter()
            .take(NAMED)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        if more > 0 {
            ids.push_str(&format!(" and {more} more"));
        }
        format!("{}: {}", xml(&ids), xml(name))
    };
    names
        .iter()
        .take(NAMED)
        .map(said)
        .collect::<Vec<_>>()
        .join("<br>")
}

/// Hall and rack where the devices state them; what is not declared is said.
fn place(story: &Story<'_>) -> String {
    let devices = &story.standing.opened().plan.devices;
    let mut places: Vec<String> = devices
        .iter()
        .map(|d| {
            let known = |key: &str| {
                d.facts
                    .iter()
                    .find(|(k, _)| k.eq_ignore_ascii_case(key))
                    .map(|(k, v)| format!("{k} {v}"))
            };
            ["site", "hall", "rack"]
                .into_iter()
                .filter_map(known)
                .collect::<Vec<_>>()
                .join(", ")
        })
        .filter(|p| !p.is_empty())
        .collect();
    places.sort();
    places.dedup();
    match places.len() {
        0 => "hall, rack and slot not declared".to_owned(),
        1..=NAMED => places.join("; "),
        more => format!("{} and {} more", places[..NAMED].join("; "), more - NAMED),
    }
}

/// “Replace, retest, investigate”, each with its places.
pub fn punch(story: &Story<'_>) -> String {
    let list = &story.verdict.punch;
    if list.is_empty() {
        let what = if story.verdict.outcome == Outcome::Passed {
            "Nothing to replace, retest or investigate."
        } else {
            return String::new();
        };
        return format!("<section id=\"todo\"><p class=\"quiet\">{what}</p></section>");
    }
    let group = |action: Action| {
        let items: Vec<&Punch> = list.iter().filter(|p| p.action == action).collect();
        if items.is_empty() {
            return String::new();
        }
        let lines: Vec<String> = items
            .iter()
            .map(|p| {
                format!(
                    "<li><b>{}</b> {}<small>{}</small></li>",
                    xml(&p.place),
                    xml(&words::beside(&p.place, &p.why)),
                    xml(&locate(story, &p.place))
                )
            })
            .collect();
        format!(
            "<div><h3>{}</h3><ul>{}</ul></div>",
            words::capital(words::action(action)),
            lines.concat()
        )
    };
    let groups = [Action::Replace, Action::Retest, Action::Investigate]
        .map(group)
        .concat();
    format!("<section id=\"todo\"><h2>What to do</h2><div class=\"punch\">{groups}</div></section>")
}

/// Where a device of that id is to be found.
fn locate(story: &Story<'_>, place: &str) -> String {
    let device = story
        .standing
        .opened()
        .plan
        .devices
        .iter()
        .find(|d| d.id == place);
    device.map_or_else(String::new, |d| {
        format!("{} · {}", clean(&d.name), facts::whereabouts(d))
    })
}
