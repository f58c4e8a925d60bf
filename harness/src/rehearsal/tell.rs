//! What a rehearsal came to, for a terminal, for a document and for machines.
//!
//! Every share stands with the plays it rests on and its exact lower 95 % bound (upper for what must not happen).
//! Nothing is rounded up to a hundred.

use super::advice::spoken;
use super::table::{Row, Share};
use hallmark_results::report::escape::{clean, markdown};
use serde_json::{Value, json};
use std::fmt::Write;

/// What was rehearsed.
#[derive(Clone, Debug)]
pub struct Told<'a> {
    pub profile: &'a str,
    pub hall: &'a str,
    pub rows: &'a [Row],
    /// For each row.
    pub advice: &'a [Vec<String>],
    pub seeds: u64,
    /// Plays done, and asked for.
    pub done: u64,
    pub asked: u64,
    pub took_s: f64,
}

impl Told<'_> {
    /// One sentence: how much of it was played.
    #[must_use]
    pub fn extent(&self) -> String {
        let whole = if self.done < self.asked {
            format!("; stopped after {} of {} plays", self.done, self.asked)
        } else {
            String::new()
        };
        format!(
            "{} cases, {} plays, up to {} seeds each, in {}{whole}",
            self.rows.len(),
            self.done,
            self.seeds,
            spoken(self.took_s)
        )
    }

    /// Found at their own severity, all faults together.
    #[must_use]
    pub fn found(&self) -> Share {
        let once = |r: &&Row| !r.is_calm() && (r.factor - 1.0).abs() < 1e-9;
        sum(self.rows.iter().filter(once).map(|r| r.in_time))
    }

    /// Healthy halls that would be rejected.
    #[must_use]
    pub fn false_alarms(&self) -> Share {
        sum(self.rows.iter().filter(|r| r.is_calm()).map(|r| r.rejected))
    }
}

fn sum(shares: impl Iterator<Item = Share>) -> Share {
    shares.fold(Share::default(), |a, b| Share {
        hits: a.hits + b.hits,
        of: a.of + b.of,
    })
}

/// `58/60 (≥ 91 %)`; a dash where nothing was played.
#[must_use]
pub fn at_least(share: Share) -> String {
    share.interval().map_or("–".to_owned(), |i| {
        format!("{}/{} (≥ {})", share.hits, share.of, percent(i.low, false))
    })
}

/// `1/300 (≤ 1.6 %)`.
#[must_use]
pub fn at_most(share: Share) -> String {
    share.interval().map_or("–".to_owned(), |i| {
        format!("{}/{} (≤ {})", share.hits, share.of, percent(i.high, true))
    })
}

/// A share in per cent, rounded to the side that promises less.
fn percent(share: f64, up: bool) -> String {
    let tenths = 1000.0 * share;
    let rounded = if up { tenths.ceil() } else { tenths.floor() };
    let whole = (rounded % 10.0).abs() < 0.5;
    if whole {
        format!("{:.0} %", rounded / 10.0)
    } else {
        format!("{:.1} %", rounded / 10.0)
    }
}

/// Median, and the time in which 95 % were found.
#[must_use]
pub fn after(row: &Row) -> String {
    row.after_s.map_or("–".to_owned(), |[median, p95]| {
        format!("{} ({})", spoken(median), spoken(p95))
    })
}

/// How the verdicts went: `60 reject`, `58 reject, 2 undecided`.
#[must_use]
pub fn verdicts(row: &Row) -> String {
    let told = [
        (row.rejected.hits, "reject"),
        (row.undecided.hits, "undecided"),
        (row.accepted.hits, "accept"),
        (row.broken, "broke"),
    ];
    let told: Vec<String> = told
        .into_iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect();
    if told.is_empty() {
        "–".to_owned()
    } else {
        told.join(", ")
    }
}

const HEAD: [&str; 8] = [
    "fault",
    "×",
    "found",
    "in time",
    "right place",
    "right cause",
    "after (95 %)",
    "verdicts",
];

fn cells(row: &Row) -> [String; 8] {
    let (place, cause) = (row.right_place, row.right_cause);
    [
        row.name.clone(),
        format!("{}", row.factor),
        at_least(row.found),
        at_least(row.in_time),
        format!("{}/{}", place.hits, place.of),
        format!("{}/{}", cause.hits, cause.of),
        after(row),
        verdicts(row),
    ]
}

/// For a terminal.
#[must_use]
pub fn text(told: &Told<'_>) -> String {
    let mut out = format!("{} on {}: {}\n\n", told.profile, told.hall, told.extent());
    let (calm, faults): (Vec<&Row>, Vec<&Row>) = told.rows.iter().partition(|r| r.is_calm());
    let head = HEAD.map(str::to_owned);
    let table: Vec<[String; 8]> = std::iter::once(head)
        .chain(faults.iter().map(|r| cells(r)))
        .collect();
    let width = |column: usize| table.iter().map(|r| r[column].chars().count()).max();
    for line in &table {
        for (column, cell) in line.iter().enumerate() {
            let pad = width(column).unwrap_or(0) - cell.chars().count();
            let _ = write!(out, "{cell}{:pad$}  ", "");
        }
        let kept = out.trim_end().len();
        out.truncate(kept);
        out.push('\n');
    }
    for row in calm {
        let _ = writeln!(
            out,
            "\n{}: rejected {}, undecided {}",
            row.name,
            at_most(row.rejected),
            at_most(row.undecided)
        );
    }
    let mut first = true;
    for (row, advice) in told.rows.iter().zip(told.advice) {
        for one in advice {
            if first {
                out.push_str("\nwhat to change\n");
            }
            first = false;
            let _ = writeln!(out, "  {} ×{}: {}", row.name, row.factor, clean(one));
        }
    }
    out
}

/// One object with everything, its units in its names.
#[must_use]
pub fn json(told: &Told<'_>) -> Value {
    let rows = told.rows.iter().zip(told.advice).map(|(row, advice)| {
        let mut value = serde_json::to_value(row).unwrap_or_default();
        let low = |s: Share| s.interval().map(|i| i.low);
        let high = |s: Share| s.interval().map(|i| i.high);
        if let Value::Object(fields) = &mut value {
            fields.insert("found_at_least".to_owned(), json!(low(row.found)));
            fields.insert("in_time_at_least".to_owned(), json!(low(row.in_time)));
            fields.insert("rejected_at_most".to_owned(), json!(high(row.rejected)));
            fields.insert("calm".to_owned(), json!(row.is_calm()));
            fields.insert("advice".to_owned(), json!(advice));
        }
        value
    });
    json!({
        "type": "rehearsal",
        "provenance": "simulated",
        "profile": told.profile,
        "hall": told.hall,
        "seeds": told.seeds,
        "plays_done": told.done,
        "plays_asked": told.asked,
        "took_s": told.took_s,
        "rows": rows.collect::<Vec<_>>(),
    })
}

/// The rows as a Markdown table, faults or calm halls.
#[must_use]
pub fn markdown_rows(rows: &[&Row], calm: bool) -> String {
    let mut out = if calm {
        "| hall | GPUs | run | plays | rejected | undecided | with a stray diagnosis | what it was |\n|---|---|---|---|---|---|---|---|\n".to_owned()
    } else {
        "| fault | × | found | in time | all in a play | place | cause | after: median (95 %) | wanted | verdicts as expected | undecided | seeds | run |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned()
    };
    for row in rows {
        let run = format!("{} at {}", spoken(row.played_s), spoken(row.tick_s));
        let _ = if calm {
            let what = row.failed.iter().chain(&row.doubts).chain(&row.strays);
            let what: Vec<String> = what.map(|w| markdown(w)).collect();
            writeln!(
                out,
                "| {} | {} | {run} | {} | {} | {} | {} | {} |",
                row.name,
                row.devices,
                row.plays,
                at_most(row.rejected),
                at_most(row.undecided),
                at_most(row.strayed),
                what.join("; ")
            )
        } else {
            let (place, cause) = (row.right_place, row.right_cause);
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {}/{} | {}/{} | {} | {} | {}/{} | {}/{} | {} | {run} |",
                row.name,
                row.factor,
                at_least(row.found),
                at_least(row.in_time),
                at_least(row.all_found),
                place.hits,
                place.of,
                cause.hits,
                cause.of,
                after(row),
                spoken(row.within_s),
                row.as_expected.hits,
                row.as_expected.of,
                row.undecided.hits,
                row.undecided.of,
                row.plays,
            )
        };
    }
    out
}

/// Rows at less than 95 % in time, and what was said or left unsaid in them.
#[must_use]
pub fn markdown_shortfalls(rows: &[&Row]) -> String {
    const ENOUGH: f64 = 0.95;
    let mut out = String::new();
    for row in rows {
        let short = row.in_time.interval().is_some_and(|i| i.value < ENOUGH);
        let wrong = row.right_cause.interval().is_some_and(|i| i.value < 0.9);
        if !(short || wrong) {
            continue;
        }
        let _ = write!(
            out,
            "- **{} ×{}**: in time {}, by the end {}, verdicts {}",
            row.name,
            row.factor,
            at_least(row.in_time),
            at_least(row.found),
            verdicts(row)
        );
        for (what, texts) in [
            ("named instead", &row.mistaken),
            ("elsewhere", &row.strays),
            ("failed gates", &row.failed),
            ("broke", &row.broke),
        ] {
            if !texts.is_empty() {
                let texts: Vec<String> = texts.iter().map(|t| markdown(t)).collect();
                let _ = write!(out, "; {what}: {}", texts.join("; "));
            }
        }
        out.push('\n');
    }
    if out.is_empty() {
        out.push_str("No row that was played does.\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_promises_no_more_than_its_plays_show() {
        assert_eq!(at_least(Share { hits: 60, of: 60 }), "60/60 (≥ 95.1 %)");
        assert_eq!(at_least(Share { hits: 3, of: 3 }), "3/3 (≥ 36.8 %)");
        assert_eq!(at_most(Share { hits: 0, of: 300 }), "0/300 (≤ 1 %)");
        assert_eq!(at_most(Share { hits: 1, of: 300 }), "1/300 (≤ 1.6 %)");
        assert_eq!(at_least(Share { hits: 0, of: 0 }), "–");
    }
}
