//! The evidence: what was measured and how well, what was not, settings as found, events, digests.

use super::super::escape::xml;
use super::super::facts::SeriesRow;
use super::super::{Story, facts, words};
use super::glyph;
use crate::frame::{Provenance, SeriesKind};
use crate::verdict::Outcome;
use hallmark_profiles::units::{Unit, human};

/// Events listed; the rest is counted.
const EVENTS: usize = 48;
/// Devices whose identity is listed.
const IDENTITIES: usize = 72;
/// Owners named before they are counted.
const NAMED: usize = 3;

pub fn section(story: &Story<'_>) -> String {
    let parts = [
        measured(story),
        halves(story),
        identities(story),
        as_found(story),
        events(story),
        digests(story),
    ];
    format!(
        "<section id=\"evidence\"><h2>Evidence</h2>{}</section>",
        parts.concat()
    )
}

fn owners(names: &[String]) -> String {
    match names.len() {
        0..=NAMED => names.join(", "),
        count => format!(
            "{} and {} more",
            names[..NAMED - 1].join(", "),
            count + 1 - NAMED
        ),
    }
}

fn measured(story: &Story<'_>) -> String {
    let rows: Vec<String> = work_rows(story)
        .into_iter()
        .chain(facts::series(story).iter().map(series))
        .collect();
    format!(
        "<h3>What was measured, how and how well</h3><div class=\"scroll\"><table class=\"ev\"><thead><tr><th>Quantity</th><th>Source</th><th>Of</th>\
         <th>Sampling</th><th>Averaging</th><th>Accuracy</th><th class=\"n\">Samples</th><th class=\"n\">Coverage</th></tr></thead><tbody>{}</tbody></table></div>\
         <p class=\"sub\">Samples and coverage are those of the judged phase; coverage is the worst place’s. Accuracy is what the source \
         states.{}</p>",
        rows.concat(),
        odd(story),
    )
}

fn odd(story: &Story<'_>) -> String {
    match story.standing.oddities() {
        0 => String::new(),
        count => format!(
            " {} with times that contradict themselves were counted, not used.",
            words::counted(count as usize, "row", "rows")
        ),
    }
}

/// Steps and audits: measured by hallmark itself.
fn work_rows(story: &Story<'_>) -> Vec<String> {
    let devices = story.standing.devices();
    let on_device = devices
        .iter()
        .filter(|d| d.steps > 0 && d.device_clock)
        .count();
    let ran = devices.iter().filter(|d| d.steps > 0).count();
    if ran == 0 {
        return vec![row([
            "Matmul rate, step time",
            "no step was completed",
            "–",
            "–",
            "–",
            "–",
            "0",
            "–",
        ])];
    }
    let source = match on_device {
        0 => "host’s clock around completed work".to_owned(),
        all if all == ran => "events on the device’s clock".to_owned(),
        some => format!("device’s clock on {some} of {ran}, host’s clock on the others"),
    };
    let steps =
        facts::main_window(story).map_or(0, |w| w.devices.iter().map(|d| d.steps).sum::<u64>());
    let audited: u64 = devices.iter().map(|d| d.audited).sum();
    let gemms: u64 = devices.iter().map(|d| d.gemms).sum();
    let all = words::counted(ran, "device", "devices");
    let plan = &story.standing.opened().plan;
    let count = |n: u64| human(n as f64, Unit::Count);
    let share = human(100.0 * audited as f64 / gemms.max(1) as f64, Unit::Percent);
    let block = format!("blocks of {}", words::planned(plan.block_ns));
    vec![
        row([
            "Matmul rate, step time",
            &source,
            &all,
            "every step",
            &block,
            "–",
            &count(steps),
            "–",
        ]),
        row([
            "Results, audited",
            "hallmark, exact arithmetic",
            &all,
            "seeded choice during the load",
            "–",
            "bit for bit",
            &count(audited),
            &share,
        ]),
    ]
}

fn row(cells: [&str; 8]) -> String {
    let [first, middle @ .., samples, coverage] = cells;
    let middle: String = middle
        .iter()
        .map(|c| format!("<td>{}</td>", xml(c)))
        .collect();
    format!(
        "<tr><th scope=\"row\">{}</th>{middle}<td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
        xml(first),
        xml(samples),
        xml(coverage)
    )
}

fn series(series: &SeriesRow) -> String {
    let mut name = words::capital(&words::metric(series.metric));
    if !series.label.is_empty() {
        name.push_str(&format!(", {}", words::spoken(&series.label)));
    }
    let source = match series.provenance {
        Provenance::Measured => series.source.clone(),
        other => format!(
            "{} · {}",
            words::provenance(other).to_uppercase(),
            series.source
        ),
    };
    let averaging = match (series.kind, series.averaging_ns) {
        (SeriesKind::Counter, _) => "counter".to_owned(),
        (SeriesKind::Mask, _) => "mask".to_owned(),
        (SeriesKind::Gauge, Some(0)) => "instant".to_owned(),
        (SeriesKind::Gauge, Some(ns)) => words::planned(ns),
        (SeriesKind::Gauge, None) => "not stated".to_owned(),
    };
    let missing = if series.missing > 0 {
        format!(", {} missing", series.missing)
    } else {
        String::new()
    };
    row([
        &name,
        &source,
        &owners(&series.places),
        &format!("{}, dithered", words::planned(series.period_ns)),
        &averaging,
        series.accuracy.as_deref().unwrap_or("not stated"),
        &format!("{}{missing}", human(series.samples as f64, Unit::Count)),
        &series
            .coverage
            .map_or_else(|| "–".to_owned(), |c| format!("{:.2}\u{a0}%", 100.0 * c)),
    ])
}

/// What was not measured beside what ran, in the same size as what was.
fn halves(story: &Story<'_>) -> String {
    let absent: Vec<String> = story
        .verdict
        .not_measured
        .iter()
        .map(|n| {
            let remedy = if n.remedy.is_empty() {
                String::new()
            } else {
                format!("; {}", xml(&n.remedy))
            };
            pair(
                &xml(&words::capital(&n.what)),
                &format!("{}{remedy}", xml(&n.why)),
            )
        })
        .collect();
    let absent = if absent.is_empty() {
        "<p class=\"sub\">The record names nothing that was left out.</p>".to_owned()
    } else {
        list(&absent, "")
    };
    let limits = &story.standing.opened().plan.limits;
    let limits: Vec<String> = limits
        .iter()
        .map(|l| format!("<li>{}</li>", xml(&words::capital(l))))
        .collect();
    let limits = if limits.is_empty() {
        String::new()
    } else {
        format!(
            "<h3>What this run cannot show</h3><ul>{}</ul>",
            limits.concat()
        )
    };
    format!(
        "<div class=\"two\"><div><h3>What was not measured</h3>{absent}{limits}</div><div><h3>What ran</h3>{}</div></div>",
        list(&what_ran(story), "narrow")
    )
}

fn pair(name: &str, value: &str) -> String {
    format!("<div><dt>{name}</dt><dd>{value}</dd></div>")
}

fn list(pairs: &[String], class: &str) -> String {
    format!("<dl class=\"list {class}\">{}</dl>", pairs.concat())
}

fn what_ran(story: &Story<'_>) -> Vec<String> {
    let opened = story.standing.opened();
    let plan = &opened.plan;
    let mut pairs = vec![pair(
        "hallmark",
        &format!(
            "{} · record format {}",
            xml(&opened.hallmark_version),
            opened.format_version
        ),
    )];
    let mut engines: Vec<String> = plan
        .devices
        .iter()
        .map(|d| {
            let known = [&d.engine, &d.vendor, &d.driver]
                .into_iter()
                .filter(|p| !p.is_empty());
            known.cloned().collect::<Vec<_>>().join(" · ")
        })
        .collect();
    engines.sort();
    engines.dedup();
    pairs.push(pair(
        "Compute",
        &engines
            .iter()
            .take(6)
            .map(|e| xml(e))
            .collect::<Vec<_>>()
            .join("<br>"),
    ));
    pairs.extend(step_pairs(story));
    pairs.push(pair(
        "Queue",
        &format!("{} steps kept queued", plan.queue_depth),
    ));
    pairs.push(pair(
        "Seed",
        &format!(
            "<span class=\"mono\">{}</span>: operands, audits, dither",
            plan.seed
        ),
    ));
    let schedule: Vec<String> = plan
        .schedule
        .iter()
        .take(16)
        .map(|s| {
            format!(
                "{} {}",
                words::spoken(&s.name),
                words::planned(s.duration_ns)
            )
        })
        .collect();
    pairs.push(pair("Schedule", &xml(&schedule.join(" · "))));
    pairs.push(pair("Ended", &xml(&words::ending(story))));
    pairs
}

/// The judged phase's step and what it reduces.
fn step_pairs(story: &Story<'_>) -> Vec<String> {
    let plan = &story.standing.opened().plan;
    let main = facts::main_window(story).and_then(|w| plan.schedule.get(w.segment as usize));
    let step = main.and_then(|s| plan.steps.get(s.step));
    let Some(step) = step else {
        return Vec::new();
    };
    let mut pairs = Vec::new();
    let mut shapes: Vec<String> = step.gemms.iter().map(ToString::to_string).collect();
    shapes.sort();
    shapes.dedup();
    let more = shapes.len().saturating_sub(4);
    let mut said = shapes
        .iter()
        .take(4)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if more > 0 {
        said.push_str(&format!(" and {more} more shapes"));
    }
    let flop = human(step.flop().0, Unit::Flop);
    pairs.push(pair(
        "Step",
        &format!(
            "{} matmuls in {}, {flop}: {}",
            step.gemms.len(),
            plan.dtype,
            xml(&said)
        ),
    ));
    let payload: u64 = step.buckets.iter().map(|b| b.bytes.0).sum();
    if payload > 0 {
        let transport = if plan.transport.is_empty() {
            "transport not stated"
        } else {
            &plan.transport
        };
        let buckets = words::counted(step.buckets.len(), "bucket", "buckets");
        pairs.push(pair(
            "All-reduce",
            &format!(
                "{} in {buckets} · {}",
                human(payload as f64, Unit::Byte),
                xml(transport)
            ),
        ));
    }
    pairs
}

/// Which devices these were, as exactly as they are known.
fn identities(story: &Story<'_>) -> String {
    let devices = &story.standing.opened().plan.devices;
    let row = |d: &crate::plan::PlannedDevice| {
        let stated = |text: &Option<String>| text.as_deref().map_or_else(|| "–".to_owned(), xml);
        let facts: Vec<String> = d
            .facts
            .iter()
            .map(|(key, value)| format!("{} {}", xml(&words::spoken(key)), xml(value)))
            .collect();
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td class=\"mono\">{}</td><td class=\"mono\">{}</td><td>{}</td></tr>",
            xml(&d.id),
            xml(&d.name),
            human(d.memory_bytes as f64, Unit::Byte),
            xml(&d.node),
            stated(&d.pci),
            stated(&d.uuid),
            if facts.is_empty() {
                "–".to_owned()
            } else {
                facts.join(", ")
            },
        )
    };
    if devices.is_empty() {
        return String::new();
    }
    let rows: String = devices.iter().take(IDENTITIES).map(row).collect();
    let more = devices.len().saturating_sub(IDENTITIES);
    let rest = if more > 0 {
        format!("<p class=\"sub\">{more} more devices are in the record.</p>")
    } else {
        String::new()
    };
    format!(
        "<h3>Which devices these were</h3><div class=\"scroll\"><table class=\"ev\"><thead><tr><th>Device</th><th>Name</th><th>Memory</th><th>Node</th>\
         <th>PCI</th><th>UUID</th><th>Stated</th></tr></thead><tbody>{rows}</tbody></table></div>{rest}"
    )
}

fn as_found(story: &Story<'_>) -> String {
    let settings = facts::as_found(story);
    if settings.is_empty() {
        return String::new();
    }
    let rows: Vec<String> = settings
        .iter()
        .map(|setting| {
            let unlike = setting.values.len() > 1;
            let values: Vec<String> = setting
                .values
                .iter()
                .map(|(value, ids)| {
                    if unlike {
                        format!("{} <i>{}</i>", xml(value), xml(&owners(ids)))
                    } else {
                        xml(value)
                    }
                })
                .collect();
            let who = setting
                .values
                .first()
                .map_or(String::new(), |(_, ids)| xml(&owners(ids)));
            let peers = if unlike {
                "<b class=\"ti\">peers differ</b>"
            } else {
                who.as_str()
            };
            format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{peers}</td></tr>",
                xml(&words::spoken(&setting.key)),
                values.join("<br>")
            )
        })
        .collect();
    format!(
        "<h3>Settings as found; none was changed</h3><div class=\"scroll\"><table class=\"ev found\"><thead><tr><th>Setting</th><th>Value</th><th>Of</th></tr></thead>\
         <tbody>{}</tbody></table></div>",
        rows.concat()
    )
}

fn events(story: &Story<'_>) -> String {
    let told: Vec<String> = story
        .standing
        .events()
        .iter()
        .filter_map(|event| {
            let (kind, detail) = words::event(&event.what, |id| facts::table_name(story, id))?;
            let owner = event.device.map_or_else(|| "–".to_owned(), |_| facts::device_id(story, event.device));
            Some(format!(
                "<tr><td class=\"n\">{}</td><td>{}</td><th scope=\"row\">{}</th><td class=\"why\">{}</td></tr>",
                words::instant(event.at_ns),
                xml(&owner),
                xml(kind),
                xml(&detail)
            ))
        })
        .collect();
    if told.is_empty() {
        return "<h3>Faults and events</h3><p class=\"sub\">The record holds none.</p>".to_owned();
    }
    let more = told.len().saturating_sub(EVENTS);
    let rest = if more > 0 {
        format!("<p class=\"sub\">{more} more events are in the record.</p>")
    } else {
        String::new()
    };
    format!(
        "<h3>Faults and events</h3><div class=\"scroll\"><table class=\"ev events\"><thead><tr><th class=\"n\">After start</th><th>Device</th><th>What</th><th>Detail</th></tr></thead>\
         <tbody>{}</tbody></table></div>{rest}",
        told.iter().take(EVENTS).cloned().collect::<String>()
    )
}

fn digests(story: &Story<'_>) -> String {
    let opened = story.standing.opened();
    let head = story.head.unwrap_or("not sealed");
    let pairs = [
        pair("Run", &xml(&opened.run_id)),
        pair("Record", &xml(story.place)),
        pair("Profile", &xml(&opened.plan.profile_digest)),
        pair("Plan", &xml(&opened.plan_digest)),
        pair("Chain’s head", &xml(head)),
        pair("Integrity", &xml(&words::integrity(story))),
        pair(
            "Verify",
            &xml(&format!(
                "hallmark judge {} --expect-head {}",
                story.place,
                story.head.unwrap_or("HEAD")
            )),
        ),
    ];
    format!("<h3>Digests</h3>{}", list(&pairs, "narrow monos"))
}

pub fn reading(story: &Story<'_>) -> String {
    let site = if story.verdict.accepts_site {
        "This profile accepts a site where every gate passes."
    } else {
        "This profile accepts no site, whatever its word says: it shows that this machine holds together."
    };
    format!(
        "<section id=\"reading\"><h2>How to read this page</h2><ol><li>The word on top is the whole verdict; the sentence beside it gives the reason.</li>\
         <li>A gate passes or fails only when its whole whisker is on one side of the limit. Otherwise, or without evidence, it is \
         inconclusive, never accepted.</li><li>{} fails, {} is inconclusive, {} passes. Orange is what failed, blue the devices, ochre what is not known.</li>\
         <li>Figures are what the named source reported; nothing is filled in, smoothed or left out. Ramps and warm-up are shaded, kept and not judged.</li>\
         <li>{site}</li></ol></section>",
        glyph(Outcome::Failed),
        glyph(Outcome::Inconclusive),
        glyph(Outcome::Passed),
    )
}
