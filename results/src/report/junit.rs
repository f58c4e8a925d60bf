//! The report for build systems: one test case a gate, and one for the verdict itself.
//!
//! A gate that failed is a failure; one that is inconclusive is an error, because build systems show
//! skipped cases as green, and what was not shown is never green.

use super::escape::xml;
use super::{Format, Story, words};
use crate::verdict::{Finding, Outcome};

/// The format.
pub struct Junit;

impl Format for Junit {
    fn name(&self) -> &'static str {
        "junit"
    }

    fn file(&self) -> &'static str {
        "report.junit.xml"
    }

    fn write(&self, story: &Story<'_>) -> String {
        let verdict = story.verdict;
        let opened = story.standing.opened();
        let suite = xml(&format!("hallmark.{}", story.standing.profile().name));
        let mut cases = vec![verdict_case(story, &suite)];
        cases.extend(verdict.findings.iter().map(|f| gate_case(story, f, &suite)));
        let own = |outcome| usize::from(verdict.outcome == outcome);
        let counts = format!(
            "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"0\" time=\"{:.3}\"",
            cases.len(),
            verdict.count(Outcome::Failed) + own(Outcome::Failed),
            verdict.count(Outcome::Inconclusive) + own(Outcome::Inconclusive),
            story.standing.last_ns() as f64 / 1e9,
        );
        let stamp = xml(&opened.utc_start);
        let stamp = stamp.strip_suffix('Z').unwrap_or(&stamp);
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"hallmark\" {counts}>\n  \
             <testsuite name=\"{suite}\" {counts} timestamp=\"{stamp}\" hostname=\"{}\">\n{}{}  \
             </testsuite>\n</testsuites>\n",
            xml(&opened.host.name),
            properties(story),
            cases.concat(),
        )
    }
}

fn properties(story: &Story<'_>) -> String {
    let opened = story.standing.opened();
    let pairs = [
        ("run", opened.run_id.clone()),
        ("record", story.place.to_owned()),
        ("profile digest", opened.plan.profile_digest.clone()),
        ("plan digest", opened.plan_digest.clone()),
        ("chain head", story.head.unwrap_or("not sealed").to_owned()),
        ("integrity", words::integrity(story)),
        (
            "provenance",
            words::banner(story).unwrap_or_else(|| "MEASURED".to_owned()),
        ),
        ("hallmark", opened.hallmark_version.clone()),
    ];
    let lines = pairs.map(|(name, value)| {
        format!(
            "      <property name=\"{name}\" value=\"{}\"/>\n",
            xml(&value)
        )
    });
    format!("    <properties>\n{}    </properties>\n", lines.concat())
}

fn verdict_case(story: &Story<'_>, suite: &str) -> String {
    let verdict = story.verdict;
    let mut lines = vec![verdict.sentence.clone()];
    lines.extend(verdict.remarks.iter().cloned());
    lines.extend(
        verdict
            .diagnoses
            .iter()
            .map(|d| format!("cause: {}", d.told())),
    );
    let punch = verdict.punch.iter();
    lines.extend(punch.map(|p| {
        let why = words::beside(&p.place, &p.why);
        format!("{} {}: {why}", words::action(p.action), p.place)
    }));
    let missing = verdict.not_measured.iter();
    lines.extend(missing.map(|n| format!("not measured: {}: {}", n.what, n.why)));
    case(suite, "verdict", verdict.outcome, verdict.word(), &lines)
}

fn gate_case(story: &Story<'_>, finding: &Finding, suite: &str) -> String {
    let criterion = &finding.criterion;
    let phase = match finding.phase.as_str() {
        "" => String::new(),
        phase => format!(", phase {phase}"),
    };
    let mut lines = vec![
        finding.why.clone(),
        format!(
            "{}: {} ({} bounds: {}), limit {}, worst place {}{phase}",
            words::subject(finding),
            words::observed(finding),
            words::confidence(story),
            words::bounds(finding),
            words::limit(finding),
            words::place(finding),
        ),
    ];
    let cause = story.verdict.diagnosis(finding);
    lines.extend(cause.map(|d| format!("cause: {}", d.told())));
    // What would help against a miss says nothing where there is none.
    let missed = finding.outcome != Outcome::Passed;
    lines.extend(finding.remedy.clone().filter(|_| missed));
    case(
        suite,
        &criterion.name,
        finding.outcome,
        &finding.why,
        &lines,
    )
}

fn case(suite: &str, name: &str, outcome: Outcome, message: &str, lines: &[String]) -> String {
    let body: Vec<String> = lines.iter().map(|line| xml(line)).collect();
    let body = body.join("\n");
    let (name, message) = (xml(name), xml(message));
    let open = format!("    <testcase classname=\"{suite}\" name=\"{name}\">");
    let inner = match outcome {
        Outcome::Passed => format!("<system-out>{body}</system-out>"),
        Outcome::Failed => {
            format!("<failure type=\"failed\" message=\"{message}\">{body}</failure>")
        }
        Outcome::Inconclusive => {
            format!("<error type=\"inconclusive\" message=\"{message}\">{body}</error>")
        }
    };
    format!("{open}{inner}</testcase>\n")
}
