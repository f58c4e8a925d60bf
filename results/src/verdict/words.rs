//! The words of a verdict: metrics as people call them, figures as people read them, one sentence a finding.

use super::{Estimate, Finding, Outcome};
use hallmark_profiles::criterion::{Criterion, Scope, Statistic};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};

/// One sentence for a finding: place, what was seen, the limit.
pub fn why(finding: &Finding) -> String {
    let criterion = &finding.criterion;
    let Some(worst) = finding.worst() else {
        return finding.why.clone();
    };
    let what = match criterion.statistic {
        _ if is_of_settings(criterion) => "settings out of line".to_owned(),
        Statistic::Total => metric(criterion.metric),
        Statistic::Min => format!("lowest {}", metric(criterion.metric)),
        Statistic::Max => format!("highest {}", metric(criterion.metric)),
        statistic => format!("{statistic} {}", metric(criterion.metric)),
    };
    let Some(estimate) = worst.estimate else {
        return format!("{}: {what} is not known: {}", worst.place, worst.why);
    };
    let seen = value(estimate.value, criterion.metric, estimate.unit);
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
            between(&estimate, criterion.metric)
        ),
    }
}

/// Whether a criterion counts settings that differ between devices, rather than devices that are missing.
pub fn is_of_settings(criterion: &Criterion) -> bool {
    criterion.metric == Metric::Inventory && criterion.scope == Scope::Gpu
}

fn between(estimate: &Estimate, metric: Metric) -> String {
    let open = |v: f64| {
        if v.is_finite() {
            value(v, metric, estimate.unit)
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
        limit.map(|l| {
            format!(
                "{sign} {}",
                value(l, finding.criterion.metric, finding.unit)
            )
        })
    };
    let both = [at(finding.at_least, "≥"), at(finding.at_most, "≤")];
    let known: Vec<_> = both.into_iter().flatten().collect();
    if known.is_empty() {
        return "limit not known".to_owned();
    }
    format!("limit {}", known.join(" and "))
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

/// A metric as people call it.
pub fn metric(metric: Metric) -> String {
    match metric {
        Metric::MatmulRate => "matmul rate".to_owned(),
        Metric::HbmRate => "memory rate".to_owned(),
        Metric::PowerDraw => "power".to_owned(),
        Metric::PowerInstant => "power, instant".to_owned(),
        Metric::TempCore => "core temperature".to_owned(),
        Metric::TempMemory => "memory temperature".to_owned(),
        Metric::ClockSm => "core clock".to_owned(),
        Metric::ClockMemory => "memory clock".to_owned(),
        Metric::CpuLoad => "CPU load".to_owned(),
        Metric::CpuFrequency => "CPU frequency".to_owned(),
        Metric::ThrottleFrac => "time slowed".to_owned(),
        Metric::PowerCapFrac => "time power capped".to_owned(),
        Metric::AllreduceBusbw => "all-reduce bus bandwidth".to_owned(),
        Metric::AllreduceAlgbw => "all-reduce algorithm bandwidth".to_owned(),
        Metric::AllreduceLatency => "all-reduce latency".to_owned(),
        Metric::PcieWidth => "PCIe lanes".to_owned(),
        Metric::PcieGeneration => "PCIe generation".to_owned(),
        Metric::PcieReplay => "PCIe replays".to_owned(),
        Metric::NvlinkErr => "NVLink errors".to_owned(),
        Metric::Ecc => "ECC errors, uncorrected".to_owned(),
        Metric::EccCorrected => "ECC errors, corrected".to_owned(),
        Metric::Xid => "Xid errors".to_owned(),
        other => other.id().replace('_', " "),
    }
}

/// Ratios that are a part of a whole: people read them in per cent.
const SHARES: [Metric; 7] = [
    Metric::IdleGap,
    Metric::Duty,
    Metric::AuditShare,
    Metric::ThrottleFrac,
    Metric::PowerCapFrac,
    Metric::ExposedComm,
    Metric::ScalingEfficiency,
];

/// Factor and unit in which a metric's values are shown.
pub fn shown_in(metric: Metric, unit: Unit) -> (f64, Unit) {
    match unit {
        Unit::One if SHARES.contains(&metric) => (100.0, Unit::Percent),
        // Caught or missed: a count, not a ratio.
        Unit::One if metric == Metric::SelfTest => (1.0, Unit::Count),
        _ => (1.0, unit),
    }
}

/// A value of a metric.
pub fn value(value: f64, metric: Metric, unit: Unit) -> String {
    let (factor, unit) = shown_in(metric, unit);
    human(value * factor, unit)
}
