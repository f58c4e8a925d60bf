//! The all-reduces of a record in the columns of nccl-tests, one table for each phase, so that people and scripts that
//! read those can read these.
//!
//! Time is the mean of whole operations, from the first rank's start to the last one's end, arrival skew included: what
//! nccl-tests averages is one rank's own. The last line is the plateau, the largest message, and no mean over sizes.
//! Refuses to call a result right where not every one was checked: `#wrong` is then N/A. Of a sweep every one was, and
//! `#wrong` counts elements over all its operations and ranks.
//!
//! Source: nccl-tests, `src/common.cu` and `doc/PERFORMANCE.md`.

use super::escape::clean;
use super::sweep::{self, Figures, Way};
use super::{Format, Story, facts, words};
use crate::plan::SegmentKind;
use crate::standing::window::{Gathered, Window};
use std::fmt::Write;

/// Bytes of a bucket's element, f32.
const ELEMENT_BYTES: u64 = 4;

/// The format.
pub struct Nccl;

impl Format for Nccl {
    fn name(&self) -> &'static str {
        "nccl"
    }

    fn file(&self) -> &'static str {
        "report.nccl.txt"
    }

    fn kept(&self) -> bool {
        false
    }

    fn write(&self, story: &Story<'_>) -> String {
        let opened = story.standing.opened();
        let mut out = format!(
            "# hallmark {}, record {}, columns of nccl-tests all_reduce_perf\n",
            clean(&opened.hallmark_version),
            clean(&opened.run_id)
        );
        if let Some(banner) = words::banner(story) {
            line(
                &mut out,
                &format!("# {banner}: no result of the hardware named"),
            );
        }
        let windows = story.standing.windows().iter();
        let phases = windows.filter(|w| matches!(w.kind, SegmentKind::Phase(_)));
        let mut empty = true;
        for window in phases.filter(|w| !w.group.ops.is_empty()) {
            empty = false;
            table(&mut out, story, window);
        }
        if empty {
            line(
                &mut out,
                "# nothing was all-reduced in any phase of this record",
            );
        }
        out
    }
}

fn line(out: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

fn table(out: &mut String, story: &Story<'_>, window: &Window) {
    let plan = &story.standing.opened().plan;
    let ranks = facts::ranks(story, window);
    line(out, "#");
    line(
        out,
        &format!(
            "# phase {}: {}, over {}; time: mean of whole operations, first start to last end",
            facts::segment_name(story, window),
            words::counted(ranks, "rank", "ranks"),
            if plan.transport.is_empty() {
                "a transport that the record does not name".to_owned()
            } else {
                clean(&plan.transport)
            }
        ),
    );
    let swept = !window.group.sweep.sizes.is_empty();
    let wrong = checked(story, window);
    if swept {
        line(
            out,
            "# every result was checked against the exact sum, the warm-up's too; #wrong: elements over all of them",
        );
    } else {
        line(out, &format!("# {}", wrong.about));
    }
    line(
        out,
        &heading(
            ["size", "count", "type", "redop", "root"],
            "time",
            "algbw",
            "busbw",
            "#wrong",
        ),
    );
    line(
        out,
        &heading(
            ["(B)", "(elements)", "", "", ""],
            "(us)",
            "(GB/s)",
            "(GB/s)",
            "",
        ),
    );
    if swept {
        return sizes(out, window, ranks);
    }
    let mut plateau = None;
    for (&bytes, times) in &window.group.ops {
        let Some(times) = times.get() else {
            continue;
        };
        let Some(figures) = Figures::new(bytes, times, ranks) else {
            continue;
        };
        line(
            out,
            &row(bytes, &side(Some(figures), wrong.count), &side(None, None)),
        );
        plateau = Some((bytes, figures, times.count()));
    }
    plateau_line(out, plateau);
}

fn plateau_line(out: &mut String, plateau: Option<(u64, Figures, u64)>) {
    if let Some((bytes, figures, count)) = plateau {
        let busbw = figures.busbw.map_or_else(
            || "none, one rank".to_owned(),
            |b| format!("{:.2} GB/s", b / 1e9),
        );
        line(
            out,
            &format!("# Plateau bus bandwidth : {busbw}, at {bytes} B, over {count} operations"),
        );
    }
}

/// The sizes of a sweep, and beneath them how long after its due time each was there.
fn sizes(out: &mut String, window: &Window, ranks: usize) {
    let sizes = sweep::sizes(window, ranks);
    let mut plateau = None;
    for size in &sizes {
        let told = |way: Option<Way<'_>>| {
            way.map_or_else(
                || side(None, None),
                |w| side(w.figures, Some(w.trials.wrong)),
            )
        };
        line(out, &row(size.bytes, &told(size.out), &told(size.within)));
        if let Some((way, figures)) = size.out.and_then(|o| Some((o, o.figures?))) {
            plateau = Some((size.bytes, figures, way.trials.whole.count()));
        }
    }
    plateau_line(out, plateau);
    let incomplete = window.group.sweep.untold(window.end_ns.is_some());
    if incomplete > 0 {
        line(
            out,
            &format!(
                "# {incomplete} operations that not every rank told of in the same way are in no row"
            ),
        );
    }
    line(
        out,
        "# latency in us from the due time, which never moves; arrival skew and transfer apart; out of place",
    );
    line(
        out,
        &format!(
            "#{:>13}  {:>10}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}",
            "size", "operations", "p50", "p99", "p99.9", "skew p50", "transfer"
        ),
    );
    for size in &sizes {
        let Some(way) = size.out else { continue };
        let us = |of: &Gathered, name: &str| {
            let value = of.get().and_then(|times| sweep::quantile(times, name));
            value.map_or_else(|| "N/A".to_owned(), |s| format!("{:.2}", s * 1e6))
        };
        let trials = way.trials;
        line(
            out,
            &format!(
                "#{:>13}  {:>10}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}",
                size.bytes,
                trials.latency.count(),
                us(&trials.latency, "p50"),
                us(&trials.latency, "p99"),
                us(&trials.latency, "p99.9"),
                us(&trials.skew, "p50"),
                us(&trials.transfer, "p50"),
            ),
        );
    }
}

/// What `#wrong` may say of a phase.
struct Checked {
    count: Option<u64>,
    about: String,
}

/// Only where every all-reduce was checked, every check was tried on a fault, and none failed anywhere, none is wrong.
fn checked(story: &Story<'_>, window: &Window) -> Checked {
    let plan = &story.standing.opened().plan;
    let segment = plan.schedule.get(window.segment as usize);
    let share = segment.and_then(|s| plan.steps.get(s.step));
    let share = share.map_or(0.0, |step| step.audit_share);
    let found: u64 = story.standing.devices().iter().map(|d| d.mismatches).sum();
    let percent = share * 100.0;
    if found > 0 {
        return Checked {
            count: None,
            about: format!(
                "#wrong is N/A: {found} results were wrong in this run, matmuls included; see the report"
            ),
        };
    }
    if share < 1.0 {
        return Checked {
            count: None,
            about: format!(
                "#wrong is N/A: {percent:.0} % of the results were checked against the exact sum, none of them wrong"
            ),
        };
    }
    Checked {
        count: Some(0),
        about: "every result was checked against the exact sum".to_owned(),
    }
}

fn heading(left: [&str; 5], time: &str, algbw: &str, busbw: &str, wrong: &str) -> String {
    let [size, count, kind, redop, root] = left;
    let side = format!("{time:>9}  {algbw:>8}  {busbw:>8}  {wrong:>6}");
    format!("#{size:>13}  {count:>12}  {kind:>6}  {redop:>6}  {root:>4}  {side}  {side}")
}

/// Out of place on the left, in place on the right.
fn row(bytes: u64, left: &str, right: &str) -> String {
    let count = bytes / ELEMENT_BYTES;
    format!(
        "{bytes:>14}  {count:>12}  {:>6}  {:>6}  {:>4}  {left}  {right}",
        "float", "sum", -1
    )
}

/// Time, bandwidths and wrong elements of one way; N/A for what is not known.
fn side(figures: Option<Figures>, wrong: Option<u64>) -> String {
    let told = |value: Option<f64>, scale: f64| {
        value.map_or_else(|| "N/A".to_owned(), |value| format!("{:.2}", value * scale))
    };
    let wrong = wrong.map_or_else(|| "N/A".to_owned(), |wrong| wrong.to_string());
    format!(
        "{:>9}  {:>8}  {:>8}  {wrong:>6}",
        told(figures.map(|f| f.time_s), 1e6),
        told(figures.map(|f| f.algbw), 1e-9),
        told(figures.and_then(|f| f.busbw), 1e-9),
    )
}

#[cfg(test)]
mod tests {
    use super::super::sample::Sample;
    use super::*;
    use crate::frame::{Event, Frame, Provenance, What};
    use crate::standing::Standing;
    use crate::stats::distribution::Distribution;
    use crate::verdict;

    fn times(seconds: &[f64]) -> Distribution {
        let mut times = Distribution::new(1e-9).unwrap();
        for &s in seconds {
            assert!(times.record(s));
        }
        times
    }

    #[test]
    fn bandwidths_follow_the_published_formulas() {
        let figures = Figures::new(1 << 30, &times(&[0.4, 0.6]), 4).unwrap();
        assert!((figures.time_s - 0.5).abs() < 5e-4, "{}", figures.time_s);
        assert!((figures.algbw - 2.147e9).abs() < 3e6, "{}", figures.algbw);
        let busbw = figures.busbw.unwrap();
        assert!((busbw / figures.algbw - 1.5).abs() < 1e-12);
        // A tautology for our own rows, and how an imported table is checked: n = 2 / (2 − busbw / algbw).
        assert!((2.0 / (2.0 - busbw / figures.algbw) - 4.0).abs() < 1e-9);
        let alone = Figures::new(1 << 30, &times(&[0.5]), 1).unwrap();
        assert!(alone.busbw.is_none());
    }

    #[test]
    fn a_row_has_thirteen_columns_as_scripts_split_them() {
        let figures = Figures::new(26_214_400, &times(&[0.005]), 2).unwrap();
        for wrong in [Some(0), None] {
            let text = row(26_214_400, &side(Some(figures), wrong), &side(None, None));
            let columns: Vec<&str> = text.split_whitespace().collect();
            assert_eq!(columns.len(), 13, "{text}");
            assert_eq!(&columns[..5], ["26214400", "6553600", "float", "sum", "-1"]);
            assert_eq!(columns[8], if wrong.is_some() { "0" } else { "N/A" });
            assert_eq!(columns[9..], ["N/A"; 4]);
        }
        let head = heading(["a", "b", "c", "d", "e"], "f", "g", "h", "i");
        assert_eq!(
            head.len(),
            row(8, &side(Some(figures), None), &side(None, None)).len(),
            "columns are aligned"
        );
    }

    fn written(standing: &Standing) -> String {
        let verdict = verdict::judge(standing);
        Nccl.write(&Story {
            standing,
            verdict: &verdict,
            head: None,
            anchored: false,
            place: "",
        })
    }

    #[test]
    fn a_record_without_all_reduces_says_so_and_a_stand_in_is_called_one() {
        let mut none = Sample {
            empty: true,
            ..Sample::good(2)
        };
        assert!(written(&none.standing()).contains("nothing was all-reduced"));
        none.provenance = Provenance::StandIn;
        assert!(written(&none.standing()).contains("STAND-IN"));
    }

    #[test]
    fn one_rank_has_a_rate_and_no_bus_bandwidth() {
        let text = written(&Sample::good(1).standing());
        let rows: Vec<&str> = text.lines().filter(|l| !l.starts_with('#')).collect();
        assert!(!rows.is_empty(), "{text}");
        for row in rows {
            assert_eq!(row.split_whitespace().nth(7), Some("N/A"), "{row}");
        }
        assert!(text.contains("none, one rank"), "{text}");
    }

    #[test]
    fn wrong_is_a_number_only_where_every_result_was_checked_and_right() {
        let mut standing = Sample::good(2).standing();
        let phase = |s: &Standing| {
            let mut windows = s.windows().iter();
            windows
                .position(|w| matches!(w.kind, SegmentKind::Phase(_)))
                .unwrap()
        };
        let story = |standing: &Standing| {
            let verdict = verdict::judge(standing);
            let story = Story {
                standing,
                verdict: &verdict,
                head: None,
                anchored: false,
                place: "",
            };
            let found = checked(&story, &standing.windows()[phase(standing)]);
            (found.count, found.about)
        };
        let share = standing.opened().plan.steps[0].audit_share;
        assert!(share < 1.0);
        let (count, about) = story(&standing);
        assert!(
            count.is_none() && about.contains("% of the results"),
            "{about}"
        );
        let mismatch = Frame::Event(Event {
            at_ns: standing.last_ns(),
            device: Some(0),
            what: What::Mismatch {
                detail: "all-reduce of bucket 0".to_owned(),
            },
        });
        standing.push(&mismatch).unwrap();
        let (count, about) = story(&standing);
        assert!(
            count.is_none() && about.contains("1 results were wrong"),
            "{about}"
        );
    }
}
