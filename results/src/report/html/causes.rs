//! Where and why: what the run's course names a cause for, the surest first, each with what shows it.
//!
//! Decides nothing. A page without diagnoses has no such section: no cause is told that nothing shows.

use super::super::escape::{clean, xml};
use super::super::{Story, words};
use crate::diagnosis::{Diagnosis, Sign};
use hallmark_profiles::units::Unit;

/// Causes told; more are counted.
const TOLD: usize = 8;
/// Signs of one cause.
const SIGNS: usize = 6;

pub fn section(story: &Story<'_>) -> String {
    let all = &story.verdict.diagnoses;
    let Some(first) = all.first() else {
        return String::new();
    };
    let rows: Vec<String> = all.iter().take(TOLD).map(row).collect();
    let more = match all.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!("<p class=\"sub\">{more} more, less sure, stand in the JSON report.</p>"),
    };
    let heading = format!("{}: {}", clean(&first.place.name), first.cause.name());
    format!(
        "<section id=\"why\"><h2>{}</h2><p class=\"sub\">Where and why, the surest first. A cause is a reading of the evidence \
         beside it and decides nothing: the gates do.</p><div class=\"scroll\"><table class=\"causes\"><thead><tr><th>Place</th>\
         <th>Cause</th><th>What shows it</th><th>Since</th><th class=\"n\">Sure</th><th>What to do</th></tr></thead>\
         <tbody>{}</tbody></table></div>{more}</section>",
        xml(&words::capital(&heading)),
        rows.concat(),
    )
}

fn row(diagnosis: &Diagnosis) -> String {
    let signs: Vec<String> = diagnosis.evidence.iter().take(SIGNS).map(sign).collect();
    let since = diagnosis
        .onset_ns
        .map_or_else(|| "before the judged phase".to_owned(), words::instant);
    format!(
        "<tr><th>{}</th><td><b>{}</b></td><td>{}</td><td>{}</td>\
         <td class=\"n\">{:.0}\u{a0}%<i>{}</i></td><td>{}</td></tr>",
        xml(&clean(&diagnosis.place.name)),
        words::capital(diagnosis.cause.name()),
        signs.concat(),
        xml(&since),
        (100.0 * diagnosis.confidence).round(),
        diagnosis.sureness(),
        xml(&clean(&diagnosis.what_to_do)),
    )
}

/// A sign as it is said; its bounds where it was estimated.
fn sign(sign: &Sign) -> String {
    let bounds = sign.size.map_or_else(String::new, |s| {
        // A change is a share of what was before; a share itself is told as it is.
        let (times, unit) = match s.unit {
            Unit::One if sign.metric.spec().unit != Unit::One => (100.0, Unit::Percent),
            own => (1.0, own),
        };
        let say = |v: f64| xml(&words::value(times * v, sign.metric, unit));
        format!("<i>{} to {}</i>", say(s.low), say(s.high))
    });
    format!("<span>{}{bounds}</span>", xml(&clean(&sign.what)))
}
