//! The plain report: what the terminal shows after a run, the verdict on its last line.
//!
//! 76 to 100 columns, aligned by display width; colour only repeats what the shapes say.

use super::escape::{clean, width};
use super::{Format, Story, facts, pairs, sweep, words};
use crate::diagnosis::pairs::measured;
use crate::verdict::{Finding, Outcome};

const NARROWEST: usize = 76;
const WIDEST: usize = 100;
/// Column in which the second part of a labelled line starts.
const LABEL: usize = 14;
/// Reasons, punch lines and absences shown; the rest is counted.
const SHOWN: usize = 4;

/// The format; `colour` adds terminal colours.
pub struct Text {
    pub colour: bool,
}

impl Format for Text {
    fn name(&self) -> &'static str {
        "text"
    }

    fn file(&self) -> &'static str {
        "report.txt"
    }

    fn write(&self, story: &Story<'_>) -> String {
        render(story, self.colour)
    }
}

#[derive(Clone, Copy)]
enum Ink {
    Plain,
    Bold,
    Quiet,
    Bad,
    Unsure,
}

/// Paints, or leaves plain.
#[derive(Clone, Copy)]
struct Paint {
    colour: bool,
}

impl Paint {
    fn ink(self, text: &str, ink: Ink) -> String {
        let code = match ink {
            Ink::Plain => return text.to_owned(),
            Ink::Bold => "1",
            Ink::Quiet => "2",
            Ink::Bad => "38;5;208",
            Ink::Unsure => "38;5;178",
        };
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

const fn outcome_ink(outcome: Outcome) -> Ink {
    match outcome {
        Outcome::Passed => Ink::Plain,
        Outcome::Inconclusive => Ink::Unsure,
        Outcome::Failed => Ink::Bad,
    }
}

/// The whole report, each line ended.
pub fn render(story: &Story<'_>, colour: bool) -> String {
    let paint = Paint { colour };
    let open: Vec<&Finding> = story
        .verdict
        .findings
        .iter()
        .filter(|f| f.outcome != Outcome::Passed)
        .collect();
    // Where nothing is wrong, the figures themselves are the news.
    let all_passed = open.is_empty();
    let rows = if all_passed {
        story.verdict.findings.iter().collect()
    } else {
        open
    };
    let table = Table::of(&rows, story);
    let columns = table.width().clamp(NARROWEST, WIDEST);
    let rule = paint.ink(&"─".repeat(columns), Ink::Quiet);
    let mut lines = title(story, columns, paint);
    lines.push(rule.clone());
    lines.extend(table.lines(&rows, columns, paint));
    if !all_passed {
        lines.extend(passed(story, columns, paint));
    }
    lines.push(rule.clone());
    lines.extend(labelled_lines(story, columns, paint));
    lines.push(rule);
    lines.extend(last(story, columns, paint));
    let mut out = lines.join("\n");
    out.push('\n');
    out
}

fn title(story: &Story<'_>, columns: usize, paint: Paint) -> Vec<String> {
    let opened = story.standing.opened();
    let plan = &opened.plan;
    let mut nodes: Vec<&str> = plan.devices.iter().map(|d| d.node.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let mut first = format!(
        "{}   {}",
        clean(&opened.host.name),
        words::counted(plan.devices.len(), "device", "devices")
    );
    if nodes.len() > 1 {
        first.push_str(&format!(
            " on {}",
            words::counted(nodes.len(), "node", "nodes")
        ));
    }
    first.push_str(&format!("   {}", window_line(story)));
    let mut second = vec![
        format!(
            "{} · {}",
            words::spoken(&story.standing.profile().name),
            words::short(&plan.profile_digest)
        ),
        words::utc(&opened.utc_start),
    ];
    second.extend(words::banner(story));
    let mut lines: Vec<String> = wrap(&first, columns)
        .iter()
        .map(|l| paint.ink(l, Ink::Bold))
        .collect();
    lines.extend(
        wrap(&second.join(" · "), columns)
            .iter()
            .map(|l| paint.ink(l, Ink::Quiet)),
    );
    lines
}

/// How long was judged, and after which warm-up.
fn window_line(story: &Story<'_>) -> String {
    let now = story.standing.last_ns();
    match facts::main_window(story) {
        None => format!("nothing judged in {}", words::duration(now)),
        Some(window) => {
            let judged = words::planned(window.length_ns(now));
            match facts::warmup_ns(story) {
                0 => format!("{judged} judged, no warm-up"),
                warm => format!("{judged} judged after {} of warm-up", words::planned(warm)),
            }
        }
    }
}

/// The columns of gates that did not pass.
struct Table {
    head: [String; 5],
    cells: Vec<[String; 5]>,
    widths: [usize; 5],
}

impl Table {
    fn of(rows: &[&Finding], story: &Story<'_>) -> Table {
        let bounds = format!("{} bounds", words::confidence(story));
        let head = ["gate", "observed", &bounds, "limit", "worst place"].map(str::to_owned);
        let cell = |f: &&Finding| {
            let observed = match f.worst().and_then(|o| o.estimate) {
                Some(_) => format!("{} {}", words::observed(f), short_statistic(f))
                    .trim_end()
                    .to_owned(),
                None => words::observed(f),
            };
            let gate = cut(&words::spoken(&f.criterion.name), 20);
            [
                gate,
                cut(&observed, 24),
                words::bounds(f),
                cut(&words::limit(f), 20),
                words::place(f),
            ]
        };
        let cells: Vec<[String; 5]> = rows.iter().map(cell).collect();
        let mut widths = [0; 5];
        for row in cells.iter().chain([&head]) {
            for (longest, text) in widths.iter_mut().zip(row) {
                *longest = (*longest).max(width(text));
            }
        }
        Table {
            head,
            cells,
            widths,
        }
    }

    fn width(&self) -> usize {
        2 + self.widths.iter().sum::<usize>() + 2 * 4
    }

    fn lines(&self, rows: &[&Finding], columns: usize, paint: Paint) -> Vec<String> {
        if rows.is_empty() {
            return Vec::new();
        }
        // What is left of the line is spread over the gaps, as far as it looks like one table.
        let gap = (2 + columns.saturating_sub(self.width()) / 4).min(4);
        let line = |glyph: String, cells: &[String; 5], inks: [Ink; 5]| {
            let mut out = format!("{glyph} ");
            let mut used = 2;
            for (index, text) in cells.iter().enumerate() {
                let text = if index == 4 {
                    cut(text, columns.saturating_sub(used))
                } else {
                    text.clone()
                };
                out.push_str(&paint.ink(&text, inks[index]));
                if index < 4 {
                    let padded = self.widths[index] + gap;
                    out.push_str(&" ".repeat(padded.saturating_sub(width(&text))));
                    used += padded;
                }
            }
            out.trim_end().to_owned()
        };
        let mut lines = vec![line(" ".to_owned(), &self.head, [Ink::Quiet; 5])];
        for (finding, cells) in rows.iter().zip(&self.cells) {
            let ink = outcome_ink(finding.outcome);
            let glyph = paint.ink(&words::glyph(finding.outcome).to_string(), ink);
            lines.push(line(
                glyph,
                cells,
                [Ink::Plain, Ink::Bold, Ink::Quiet, Ink::Plain, Ink::Plain],
            ));
        }
        lines
    }
}

/// The statistic behind a value, as short as it can be; nothing for totals.
fn short_statistic(finding: &Finding) -> String {
    use hallmark_profiles::criterion::Statistic;
    match finding.criterion.statistic {
        Statistic::Total | Statistic::Min | Statistic::Max => String::new(),
        Statistic::Slope => "slope".to_owned(),
        Statistic::Variation => "variation".to_owned(),
        Statistic::Spread => "spread".to_owned(),
        other => other.to_string(),
    }
}

/// What passed: one quiet line, wrapped.
fn passed(story: &Story<'_>, columns: usize, paint: Paint) -> Vec<String> {
    let names: Vec<String> = story
        .verdict
        .findings
        .iter()
        .filter(|f| f.outcome == Outcome::Passed)
        .map(|f| words::spoken(&f.criterion.name).replace(' ', "\u{a0}"))
        .collect();
    if names.is_empty() {
        return Vec::new();
    }
    let wrapped = wrap(&format!("pass: {}", names.join(", ")), columns - 2);
    let line = |(index, text): (usize, &String)| {
        let glyph = if index == 0 { "✓ " } else { "  " };
        format!("{glyph}{}", paint.ink(text, Ink::Quiet))
    };
    wrapped.iter().enumerate().map(line).collect()
}

fn labelled_lines(story: &Story<'_>, columns: usize, paint: Paint) -> Vec<String> {
    let verdict = story.verdict;
    let mut lines = Vec::new();
    let mut put = |label: &str, text: &str| {
        for (index, part) in wrap(text, columns - LABEL).iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            lines.push(format!(
                "{}{part}",
                paint.ink(&format!("{label:LABEL$}"), Ink::Quiet)
            ));
        }
    };
    let label = if verdict.outcome == Outcome::Passed {
        "shown"
    } else {
        "why"
    };
    put(label, &clean(&verdict.sentence));
    let causes: Vec<String> = verdict.diagnoses.iter().map(|d| clean(&d.told())).collect();
    for (index, text) in shortened(&causes).iter().enumerate() {
        put(if index == 0 { "cause" } else { "" }, text);
    }
    if let Some(happened) = facts::happened(story) {
        put("events", &happened);
    }
    let open: Vec<&Finding> = verdict
        .findings
        .iter()
        .filter(|f| f.outcome != Outcome::Passed && !verdict.sentence.starts_with(&f.why))
        .collect();
    for (index, finding) in open.iter().take(SHOWN).enumerate() {
        let text = format!(
            "{}: {}",
            words::spoken(&finding.criterion.name),
            clean(&finding.why)
        );
        put(if index == 0 { "also" } else { "" }, &text);
    }
    let next = punch_lines(story);
    for (index, text) in shortened(&next).iter().enumerate() {
        put(if index == 0 { "next" } else { "" }, text);
    }
    let mut absent: Vec<String> = Vec::new();
    for what in verdict.not_measured.iter().map(|n| clean(&n.what)) {
        if !absent.contains(&what) {
            absent.push(what);
        }
    }
    if !absent.is_empty() {
        put("not measured", &absent.join("; "));
    }
    for said in sweep::windows(story).filter_map(|w| sweep::sentence(story, w)) {
        put("sweep", &said);
    }
    for measured in measured(story.standing) {
        put(
            "pairs",
            &pairs::sentence(Some(measured.when), measured.rows),
        );
    }
    let notes = notes(story);
    for (index, note) in notes.iter().enumerate() {
        put(if index == 0 { "note" } else { "" }, note);
    }
    let place = clean(story.place);
    put(
        "report",
        &format!(
            "{}/{}",
            place.trim_end_matches('/'),
            super::html::Html.file()
        ),
    );
    let head = story
        .head
        .map_or(String::new(), |h| format!("  {}", words::short(h)));
    put("record", &format!("{place}{head}"));
    put("", &words::integrity(story));
    lines
}

/// Remarks, what the command line changed, what the operator said.
fn notes(story: &Story<'_>) -> Vec<String> {
    let mut notes: Vec<String> = story.verdict.remarks.iter().map(|r| clean(r)).collect();
    notes.extend(
        story
            .standing
            .opened()
            .plan
            .overrides
            .iter()
            .map(|o| format!("changed: {}", clean(o))),
    );
    if let Some(remark) = &story.standing.opened().remark {
        notes.push(format!("operator: {}", clean(remark)));
    }
    notes
}

fn punch_lines(story: &Story<'_>) -> Vec<String> {
    let line = |p: &crate::verdict::Punch| {
        let (place, why) = (clean(&p.place), words::beside(&p.place, &p.why));
        format!("{} {place}: {why}", words::action(p.action))
    };
    story.verdict.punch.iter().map(line).collect()
}

fn shortened(lines: &[String]) -> Vec<String> {
    let mut shown: Vec<String> = lines.iter().take(SHOWN).cloned().collect();
    if lines.len() > SHOWN {
        shown.push(format!("and {} more in the report", lines.len() - SHOWN));
    }
    shown
}

/// The verdict: glyph, word, what decided, tally.
fn last(story: &Story<'_>, columns: usize, paint: Paint) -> Vec<String> {
    let verdict = story.verdict;
    let word = format!("{} {}", words::glyph(verdict.outcome), verdict.word());
    let tally = words::tally(story);
    let mut lines = Vec::new();
    let worst = verdict
        .findings
        .first()
        .filter(|f| f.outcome != Outcome::Passed && f.outcome == verdict.outcome);
    let mut about = worst.map_or_else(String::new, |f| {
        format!("{}: {}", words::place(f), words::spoken(&f.criterion.name))
    });
    if verdict.outcome == Outcome::Passed && !verdict.accepts_site {
        about = format!(
            "{} passed: accepts no site",
            words::spoken(&story.standing.profile().name)
        );
    }
    if let Some(banner) = words::banner(story) {
        lines.push(paint.ink(
            &format!("{banner}: this is no result of the hardware named"),
            Ink::Unsure,
        ));
    }
    let room = columns.saturating_sub(width(&word) + width(&tally) + 6);
    let about = cut(&about, room);
    let fill = columns
        .saturating_sub(width(&word) + 3 + width(&about) + width(&tally))
        .max(3);
    lines.push(format!(
        "{}   {}{}{tally}",
        paint.ink(
            &word,
            match verdict.outcome {
                Outcome::Passed => Ink::Bold,
                other => outcome_ink(other),
            }
        ),
        paint.ink(&about, Ink::Bold),
        " ".repeat(fill),
    ));
    lines
}

/// At most `columns` wide, with “…” where something was cut.
fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let next = super::escape::char_width(c);
        if used + next + 1 > columns {
            break;
        }
        used += next;
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// Lines of at most `columns`, broken at plain spaces; a longer word is broken where it must be.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let used = lines.last().map_or(0, |l| width(l));
        let fits = used + usize::from(used > 0) + width(word) <= columns;
        if !fits && used > 0 {
            lines.push(String::new());
        }
        let Some(line) = lines.last_mut() else { break };
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        while lines.last().is_some_and(|l| width(l) > columns) {
            let long = lines.pop().unwrap_or_default();
            let (head, tail) = split_at_width(&long, columns);
            lines.push(head);
            lines.push(tail);
        }
    }
    lines
}

fn split_at_width(text: &str, columns: usize) -> (String, String) {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += super::escape::char_width(c);
        if used > columns && at > 0 {
            return (text[..at].to_owned(), text[at..].to_owned());
        }
    }
    (text.to_owned(), String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_wrap_by_what_the_terminal_shows() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("機房 機房", 4), ["機房", "機房"]);
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrap("5\u{a0}ms ok", 4), ["5\u{a0}ms", "ok"]);
    }

    #[test]
    fn a_cut_is_shown() {
        assert_eq!(cut("rack 7 tray 3", 6), "rack …");
        assert_eq!(cut("rack", 4), "rack");
        assert_eq!(cut("機房", 3), "機…");
    }
}
