//! The report for tickets and merge requests: short, worst first, nothing that becomes a link or a mention.

use super::escape::markdown;
use super::{Format, Story, facts, words};
use crate::verdict::{Finding, Outcome};

/// Devices listed; the rest is counted.
const DEVICES: usize = 16;

/// The format.
pub struct Markdown;

impl Format for Markdown {
    fn name(&self) -> &'static str {
        "markdown"
    }

    fn file(&self) -> &'static str {
        "report.md"
    }

    fn write(&self, story: &Story<'_>) -> String {
        let parts = [
            head(story),
            causes(story),
            punch(story),
            gates(story),
            devices(story),
            not_measured(story),
            record(story),
        ];
        let mut out = parts
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect::<Vec<_>>()
            .join("\n\n");
        out.push('\n');
        out
    }
}

fn head(story: &Story<'_>) -> String {
    let (standing, verdict) = (story.standing, story.verdict);
    let opened = standing.opened();
    let mut lines = vec![
        format!(
            "# {} {}: {}, {}",
            words::glyph(verdict.outcome),
            verdict.word(),
            markdown(&opened.host.name),
            markdown(&standing.profile().name),
        ),
        String::new(),
    ];
    if let Some(banner) = words::banner(story) {
        lines.extend([
            format!("**{banner}: this is no result of the hardware named.**"),
            String::new(),
        ]);
    }
    lines.extend([markdown(&verdict.sentence), String::new()]);
    lines.push(format!("- {}", words::tally(story)));
    lines.extend(facts::happened(story).map(|h| format!("- events: {}", markdown(&h))));
    let end = standing
        .closed()
        .map_or_else(|| "not closed".to_owned(), |c| words::utc(&c.utc_end));
    lines.push(format!(
        "- {} to {}, {}",
        markdown(&words::utc(&opened.utc_start)),
        markdown(&end),
        words::clock(&opened.clock)
    ));
    lines.push(format!("- ended: {}", markdown(&words::ending(story))));
    lines.extend(verdict.remarks.iter().map(|r| format!("- {}", markdown(r))));
    lines.extend(
        opened
            .plan
            .overrides
            .iter()
            .map(|o| format!("- changed: {}", markdown(o))),
    );
    lines.extend(
        opened
            .remark
            .iter()
            .map(|r| format!("- operator: {}", markdown(r))),
    );
    lines.join("\n")
}

fn causes(story: &Story<'_>) -> String {
    let items = story.verdict.diagnoses.iter().map(|d| {
        let since = d
            .onset_ns
            .map_or_else(String::new, |at| format!(", since {}", words::instant(at)));
        let told = markdown(&d.told());
        format!("- {told}{since}. {}", markdown(&d.what_to_do))
    });
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        return String::new();
    }
    format!("## Where and why\n\n{}", items.join("\n"))
}

fn punch(story: &Story<'_>) -> String {
    if story.verdict.punch.is_empty() {
        return String::new();
    }
    let items = story.verdict.punch.iter();
    let items = items.map(|p| {
        format!(
            "- [ ] **{}** {}: {}",
            words::action(p.action),
            markdown(&p.place),
            markdown(&words::beside(&p.place, &p.why))
        )
    });
    format!("## To do\n\n{}", items.collect::<Vec<_>>().join("\n"))
}

fn gates(story: &Story<'_>) -> String {
    let head = format!(
        "## Gates\n\n|   | gate | figure | observed | {} bounds | limit | worst place | why |\n|---|---|---|---:|---:|---:|---|---|",
        words::confidence(story)
    );
    let row = |f: &Finding| {
        let why = if f.outcome == Outcome::Passed {
            String::new()
        } else {
            markdown(&f.why)
        };
        format!(
            "| {} {} | {} | {} | {} | {} | {} | {} | {why} |",
            words::glyph(f.outcome),
            words::outcome(f.outcome),
            markdown(&words::spoken(&f.criterion.name)),
            markdown(&words::subject(f)),
            words::observed(f),
            words::bounds(f),
            words::limit(f),
            markdown(&words::place(f)),
        )
    };
    let rows: Vec<String> = story.verdict.findings.iter().map(row).collect();
    if rows.is_empty() {
        "## Gates\n\nNo gate was judged.".to_owned()
    } else {
        format!("{head}\n{}", rows.join("\n"))
    }
}

fn devices(story: &Story<'_>) -> String {
    let all = facts::devices(story);
    let mut lines = vec![
        "## Devices, worst first".to_owned(),
        String::new(),
        "| device | name | matmul rate | of peers | steps | audited | wrong | faults | found |"
            .to_owned(),
        "|---|---|---:|---:|---:|---:|---:|---:|---|".to_owned(),
    ];
    lines.extend(all.iter().take(DEVICES).map(|row| {
        let rate = row.rate.map_or_else(
            || "–".to_owned(),
            |r| {
                words::value(
                    r,
                    hallmark_profiles::metric::Metric::MatmulRate,
                    hallmark_profiles::units::Unit::FlopPerSecond,
                )
            },
        );
        let relative = row
            .relative
            .map_or_else(|| "–".to_owned(), |r| format!("{:.1}\u{a0}%", r * 100.0));
        format!(
            "| {} {} | {} | {rate} | {relative} | {} | {} | {} | {} | {} |",
            words::glyph(row.outcome),
            markdown(&row.planned.id),
            markdown(&row.planned.name),
            row.steps,
            row.audited,
            row.mismatches,
            row.faults,
            markdown(row.found.as_deref().unwrap_or("")),
        )
    }));
    if all.len() > DEVICES {
        lines.extend([
            String::new(),
            format!("{} more devices.", all.len() - DEVICES),
        ]);
    }
    lines.join("\n")
}

fn not_measured(story: &Story<'_>) -> String {
    let items = story.verdict.not_measured.iter().map(|n| {
        let remedy = if n.remedy.is_empty() {
            String::new()
        } else {
            format!(" ({})", markdown(&n.remedy))
        };
        format!("- {}: {}{remedy}", markdown(&n.what), markdown(&n.why))
    });
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        String::new()
    } else {
        format!("## Not measured\n\n{}", items.join("\n"))
    }
}

fn record(story: &Story<'_>) -> String {
    let opened = story.standing.opened();
    // Inside code nothing can be escaped, so only what needs no escaping is put there.
    let code = |text: &str| {
        let harmless = !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-._/".contains(c));
        if harmless {
            format!("`{text}`")
        } else {
            markdown(text)
        }
    };
    let mut lines = vec![
        "## Record".to_owned(),
        String::new(),
        format!(
            "- run {}, hallmark {}",
            code(&opened.run_id),
            code(&opened.hallmark_version)
        ),
        format!("- record {}", code(story.place)),
        format!("- profile {}", code(&opened.plan.profile_digest)),
        format!("- plan {}", code(&opened.plan_digest)),
    ];
    lines.extend(story.head.map(|h| format!("- chain head {}", code(h))));
    lines.push(format!("- {}", words::integrity(story)));
    lines.join("\n")
}
