//! The sentences of a verdict.

use super::{Estimate, Finding, Outcome};
use hallmark_profiles::criterion::Statistic;
use hallmark_profiles::units::human;

/// One sentence for a finding: place, what was seen, the limit.
pub fn why(finding: &Finding) -> String {
    let criterion = &finding.criterion;
    let Some(worst) = finding.worst() else {
        return finding.why.clone();
    };
    let what = match criterion.statistic {
        Statistic::Total => criterion.metric.to_string(),
        statistic => format!("{statistic} {}", criterion.metric),
    };
    let Some(estimate) = worst.estimate else {
        return format!("{}: {what} is not known: {}", worst.place, worst.why);
    };
    let seen = human(estimate.value, estimate.unit);
    let limits = limits(finding);
    let tail = if worst.why.is_empty() {
        String::new()
    } else {
        format!(" ({})", worst.why)
    };
    match finding.outcome {
        Outcome::Passed => format!("{what} {seen}, {limits}"),
        _ => format!(
            "{}: {what} {seen}{}, {limits}{tail}",
            worst.place,
            between(&estimate)
        ),
    }
}

fn between(estimate: &Estimate) -> String {
    let open = |v: f64| {
        if v.is_finite() {
            human(v, estimate.unit)
        } else {
            "open".to_owned()
        }
    };
    let width = (estimate.high - estimate.low).abs();
    if width <= estimate.value.abs() * 1e-9 {
        return String::new();
    }
    format!(" ({} to {})", open(estimate.low), open(estimate.high))
}

/// The limits as text.
pub fn limits(finding: &Finding) -> String {
    let at = |limit: Option<f64>, sign: &str| {
        limit.map(|l| format!("{sign} {}", human(l, finding.unit)))
    };
    let both = [at(finding.at_least, "≥"), at(finding.at_most, "≤")];
    format!(
        "limit {}",
        both.into_iter().flatten().collect::<Vec<_>>().join(" and ")
    )
}

/// The verdict's reason in one sentence.
pub fn sentence(outcome: Outcome, findings: &[Finding]) -> String {
    let decisive: Vec<_> = findings.iter().filter(|f| f.outcome == outcome).collect();
    let Some(first) = decisive.first() else {
        return "nothing was judged".to_owned();
    };
    let others = decisive.len() - 1;
    match outcome {
        Outcome::Passed => format!("all {} criteria are shown to hold", decisive.len()),
        _ if others == 0 => first.why.clone(),
        _ => format!("{}; and {others} more", first.why),
    }
}
