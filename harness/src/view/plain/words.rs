//! How the views say times, states and events: one wording on every screen.
//!
//! Names and details come from drivers, files and other machines: they are shown as one line of visible
//! text, without control characters, terminal sequences or marks that reorder what stands around them.

use hallmark_profiles::units::{Unit, human, human_duration};
use hallmark_results::frame::{Event, FaultKind, Provenance, What};
use hallmark_results::plan::SegmentKind;
use hallmark_results::standing::Standing;
use std::time::Duration;

/// Characters of a foreign text that are shown at most.
const LONGEST: usize = 400;

/// Foreign text as one harmless line.
pub fn clean(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if out.len() >= LONGEST {
            out.push('…');
            break;
        }
        match c {
            '\u{1b}' => skip_sequence(&mut chars),
            '\u{a0}' | '\u{202f}' => out.push(c),
            c if c.is_whitespace() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            c if c.is_control() || is_hidden(c) => {}
            c => out.push(c),
        }
    }
    out.trim_matches(' ').to_owned()
}

/// Drops `[ … letter`, the common terminal sequence; of any other the harmless rest stays.
fn skip_sequence(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    if chars.next_if_eq(&'[').is_some() {
        while chars.next_if(|c| !('@'..='~').contains(c)).is_some() {}
        chars.next();
    }
}

/// Marks that reorder, join or hide text.
fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// A length of time: `12.5 s`, `10 min 5 s`.
pub fn duration(ns: u64) -> String {
    human_duration(Duration::from_nanos(ns))
}

/// A length of time that is counted down: whole seconds.
pub fn countdown(ns: u64) -> String {
    match ns.div_ceil(1_000_000_000) {
        seconds @ 0..60 => format!("{seconds}\u{a0}s"),
        seconds => human_duration(Duration::from_secs(seconds)),
    }
}

/// An instant of the run, `hh:mm:ss`.
pub fn clock(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// First and last digits of a digest.
pub fn short(digest: &str) -> String {
    let digest = clean(digest);
    let count = digest.chars().count();
    if count <= 16 {
        return digest;
    }
    let head: String = digest.chars().take(8).collect();
    let tail: String = digest.chars().skip(count - 4).collect();
    format!("{head}…{tail}")
}

/// A name as people read it: `step-time` is `step time`.
pub fn spoken(name: &str) -> String {
    clean(&name.replace(['-', '_'], " "))
}

/// `1 device`, `1 024 devices`.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!(
        "{}\u{a0}{}",
        human(count as f64, Unit::Count),
        if count == 1 { one } else { many }
    )
}

pub fn fault(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Missing => "missing",
        FaultKind::WorkerDied => "worker died",
        FaultKind::Agent => "agent ended",
        FaultKind::Silent => "silent",
        FaultKind::Device => "device error",
        FaultKind::Collective => "all-reduce failed",
        FaultKind::Sensor => "sensor lost",
        FaultKind::Journal => "not recorded",
    }
}

/// What a segment is, for those whose name does not say it.
pub fn kind(kind: SegmentKind) -> &'static str {
    match kind {
        SegmentKind::RampUp => "ramp up",
        SegmentKind::Warmup => "warm-up",
        SegmentKind::Phase(_) => "phase",
        SegmentKind::RampDown => "ramp down",
    }
}

/// Name of a segment of the plan.
pub fn segment(standing: &Standing, index: usize) -> String {
    let segment = standing.opened().plan.schedule.get(index);
    segment.map_or_else(|| format!("segment {index}"), |s| clean(&s.name))
}

/// A device's id, or the host's name where nothing concerns one device alone.
pub fn device(standing: &Standing, device: Option<u32>) -> String {
    let opened = standing.opened();
    let planned = device.and_then(|d| opened.plan.devices.get(d as usize));
    planned.map_or_else(|| clean(&opened.host.name), |d| clean(&d.id))
}

/// What of the figures is not measured: `SIMULATED, REPLAYED`; empty where all is.
pub fn banner(standing: &Standing) -> String {
    let devices = standing.opened().plan.devices.iter().map(|d| d.provenance);
    let mut found: Vec<Provenance> = devices
        .chain(standing.tables().iter().map(|t| t.table.provenance))
        .collect();
    found.sort_unstable();
    found.dedup();
    let word = |p: &Provenance| match p {
        Provenance::Measured => None,
        Provenance::Replayed => Some("REPLAYED"),
        Provenance::Simulated => Some("SIMULATED"),
        Provenance::StandIn => Some("STAND-IN"),
    };
    found
        .iter()
        .rev()
        .filter_map(word)
        .collect::<Vec<_>>()
        .join(", ")
}

/// How much an event matters to someone who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Worth a line only where all are asked for.
    Quiet,
    Plain,
    /// Something is not known.
    Unsure,
    Bad,
}

pub fn weight(what: &What) -> Weight {
    match what {
        What::AsFound { .. } | What::Absent { .. } => Weight::Quiet,
        What::More { latest, .. } => weight(latest),
        What::Gap { .. } | What::NeverSteady { .. } => Weight::Unsure,
        What::Fault { .. } | What::Mismatch { .. } | What::Xid { .. } => Weight::Bad,
        What::SelfTest { passed, .. } => {
            if *passed {
                Weight::Plain
            } else {
                Weight::Bad
            }
        }
        What::Segment { .. } | What::Steady | What::Regrouped { .. } => Weight::Plain,
        What::Stop { .. } | What::Resumed { .. } | What::Decision { .. } => Weight::Plain,
        What::Pairs { .. } => Weight::Plain,
    }
}

pub const SELF_TEST_PASSED: &str = "self-test passed: the flipped bit was caught";

/// An event in words, the place first where it has one.
pub fn event(standing: &Standing, event: &Event) -> String {
    let place = event
        .device
        .map(|d| format!("{} ", device(standing, Some(d))))
        .unwrap_or_default();
    format!("{place}{}", what(standing, &event.what))
}

fn what(standing: &Standing, what: &What) -> String {
    match what {
        What::Segment { index } => format!("{} begins", segment(standing, *index as usize)),
        What::Steady => "warm-up ended: rate and temperature are steady".to_owned(),
        What::NeverSteady { why } => format!("warm-up never steady: {}", clean(why)),
        What::Gap {
            table,
            from_ns,
            reason,
        } => {
            let name = standing
                .tables()
                .get(*table as usize)
                .map(|t| spoken(&t.table.name));
            let name = name.unwrap_or_else(|| format!("table {table}"));
            format!("no {name} since {}: {}", clock(*from_ns), clean(reason))
        }
        What::Fault { kind, detail } => format!("{}: {}", fault(*kind), clean(detail)),
        What::SelfTest { passed: true, .. } => SELF_TEST_PASSED.to_owned(),
        What::SelfTest {
            passed: false,
            detail,
        } => format!("self-test FAILED: {}", clean(detail)),
        What::Mismatch { detail } => format!("wrong result: {}", clean(detail)),
        What::Regrouped {
            members,
            stalled_ns,
            ..
        } => {
            let left = counted(members.len(), "device goes", "devices go");
            format!(
                "{left} on as a new group, after {} at a stand",
                duration(*stalled_ns)
            )
        }
        What::Xid { code, detail } => format!("Xid {code}: {}", clean(detail)),
        What::Stop { why } => format!("stopping: {}", clean(why)),
        What::Resumed { lost_ns } => format!("resumed after {} without load", duration(*lost_ns)),
        What::AsFound { key, value } => format!("as found: {} = {}", clean(key), clean(value)),
        What::Absent { what, why, remedy } => {
            let remedy = clean(remedy);
            let remedy = if remedy.is_empty() {
                remedy
            } else {
                format!("; {remedy}")
            };
            format!("not measured: {}: {}{remedy}", clean(what), clean(why))
        }
        What::Decision { what } => clean(what),
        What::Pairs { rows } => hallmark_results::report::pairs::sentence(None, rows),
        What::More {
            latest,
            count,
            from_ns,
        } => {
            let count = human(*count as f64, Unit::Count);
            let said = self::what(standing, latest);
            format!("{count} times since {}, the last: {said}", clock(*from_ns))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_one_harmless_line() {
        assert_eq!(
            clean("\u{1b}[31mrack\u{1b}[0m\n7\r\u{7}\u{202e}x\u{9b}"),
            "rack 7 x"
        );
        let long = clean(&"x".repeat(10_000));
        assert_eq!(long.chars().count(), LONGEST + 1);
    }

    #[test]
    fn times_count_down_in_whole_seconds() {
        assert_eq!(countdown(1), "1\u{a0}s");
        assert_eq!(countdown(59_000_000_001), "1\u{a0}min");
        assert_eq!(clock(150_082_000_000_000), "41:41:22");
    }
}
