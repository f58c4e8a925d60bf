//! Which statistic says something of which metric: the table, and the refusal of all that is not in it.
//!
//! A statistic that is not meaningful would not fail when judged: the window's only figure would stand for it, and a
//! gate would pass that never looked. So it is refused when the profile is read.

use crate::criterion::{Criterion, Reference, Scope, Statistic};
use crate::metric::Metric;

/// How a metric's evidence comes, which decides what can be said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Rates of blocks in order of time.
    Blocks,
    /// Many values: times of operations, readings of a gauge.
    Values,
    /// One figure for the whole window.
    Figure,
    /// One figure at each place, of which the lowest counts.
    Lowest,
    /// One figure at each place, of which the highest counts.
    Highest,
    /// A share of time, read many times.
    Share,
    /// The growth of a counter.
    Growth,
    /// The growth of counters, and states beside them that hold or do not.
    GrowthAndStates,
}

/// The table. A new metric does not compile before it has its line here.
pub const fn form(metric: Metric) -> Form {
    use Metric as M;
    match metric {
        M::MatmulRate | M::MatmulEfficiency => Form::Blocks,
        M::StepTime | M::StepSkew | M::HbmRate => Form::Values,
        M::AllreduceAlgbw | M::AllreduceBusbw | M::AllreduceLatency => Form::Values,
        M::KernelRate
        | M::SustainRatio
        | M::Drift
        | M::ExposedComm
        | M::ScalingEfficiency
        | M::IdleGap => Form::Figure,
        M::Duty | M::StepsCompleted | M::Inventory | M::Failures => Form::Figure,
        M::AuditErrors | M::AuditExposure | M::AuditShare | M::SdcUcl => Form::Figure,
        M::SelfTest | M::TelemetryCoverage => Form::Lowest,
        M::TelemetryAge | M::TelemetryGap | M::ClockOffset => Form::Highest,
        M::ThrottleFrac | M::PowerCapFrac => Form::Share,
        M::Energy | M::Xid | M::Ecc | M::EccCorrected => Form::Growth,
        M::NvlinkErr | M::PcieReplay | M::LinkFlaps => Form::Growth,
        M::RowRemap => Form::GrowthAndStates,
        M::PowerDraw | M::PowerInstant | M::PowerLimit | M::PowerRecon => Form::Values,
        M::RackDensity | M::PowerSwing | M::Ramp | M::BandEnergy => Form::Values,
        M::FlopPerJoule => Form::Figure,
        M::TempCore | M::TempMemory | M::ThermalMargin => Form::Values,
        M::RTh | M::Tau | M::FanDuty | M::FanSpeed | M::PumpSpeed => Form::Values,
        M::CoolantSupply | M::CoolantReturn | M::CoolantRise => Form::Values,
        M::Flow | M::FlowPerKw | M::Approach | M::DewMargin | M::HeatBalance => Form::Values,
        M::InterimPue | M::CoolingPpue | M::Itue | M::Tue | M::Wue => Form::Values,
        M::ClockSm | M::ClockMemory | M::Utilisation | M::MemoryUsed => Form::Values,
        M::CpuFrequency | M::CpuLoad | M::PcieWidth | M::PcieGeneration => Form::Values,
    }
}

impl Form {
    const fn takes(self, statistic: Statistic) -> bool {
        use Statistic as S;
        match self {
            Self::Blocks => matches!(
                statistic,
                S::Quantile(_) | S::Mean | S::Min | S::Max | S::Variation
            ),
            Self::Values => matches!(
                statistic,
                S::Quantile(_) | S::Mean | S::Min | S::Max | S::Spread
            ),
            Self::Figure | Self::Growth => matches!(statistic, S::Total),
            Self::Lowest => matches!(statistic, S::Min),
            Self::Highest => matches!(statistic, S::Max),
            Self::Share => matches!(statistic, S::Total | S::Mean | S::Max),
            Self::GrowthAndStates => matches!(statistic, S::Total | S::Max),
        }
    }

    /// What it is, and the statistics that are known for it.
    const fn known(self) -> (&'static str, &'static str) {
        const MANY: &str = "median, p1 to p99.9, mean, min, max, spread";
        match self {
            Self::Blocks => (
                "rates of blocks",
                "median, p1 to p99.9, mean, min, max, variation",
            ),
            Self::Values => ("many values", MANY),
            Self::Figure => ("one figure for the window", "total"),
            Self::Lowest => ("one figure at each place", "min"),
            Self::Highest => ("one figure at each place", "max"),
            Self::Share => ("a share of time", "total, mean, max"),
            Self::Growth => ("the growth of a counter", "total"),
            Self::GrowthAndStates => ("the growth of counters and states", "total, max"),
        }
    }
}

/// Why this criterion's statistic or reference says nothing; `None` where it says something.
pub(super) fn fault(criterion: &Criterion) -> Option<String> {
    let Criterion {
        name,
        metric,
        statistic,
        ..
    } = criterion;
    let form = form(*metric);
    let (what, known) = form.known();
    if !form.takes(*statistic) {
        let hint = match statistic {
            Statistic::Slope => "; how a rate changes over days is the metric drift",
            _ => "",
        };
        return Some(format!(
            "criterion `{name}`: {statistic} says nothing of {metric}, which is {what}; known for it: {known}{hint}"
        ));
    }
    if *statistic == Statistic::Spread && criterion.relative_to != Reference::Absolute {
        return Some(format!(
            "criterion `{name}`: a spread is a distance in the metric's own unit; leave relative_to out"
        ));
    }
    let many = matches!(form, Form::Blocks | Form::Values);
    match criterion.relative_to {
        Reference::OwnMedian if !many => Some(format!(
            "criterion `{name}`: {metric} is {what}, which has no median of its own to compare with"
        )),
        Reference::OwnMedian if is_median(*statistic) => Some(format!(
            "criterion `{name}` compares the median with itself; give another statistic or reference"
        )),
        Reference::FirstTenth if form != Form::Blocks => Some(format!(
            "criterion `{name}`: first_tenth is for rates of blocks, and {metric} is {what}"
        )),
        Reference::PowerLimit
            if !matches!(metric, Metric::PowerDraw | Metric::PowerInstant)
                || criterion.scope != Scope::Gpu =>
        {
            Some(format!(
                "criterion `{name}`: power_limit is a device's own; it is for power_draw and power_instant of scope gpu"
            ))
        }
        _ => None,
    }
}

pub(super) fn is_median(statistic: Statistic) -> bool {
    matches!(statistic, Statistic::Quantile(q) if (q - 0.5).abs() < 1e-9)
}

#[cfg(test)]
mod tests {
    use crate::profile::{BUILT_IN, parse};

    fn refused(metric: &str, statistic: &str, relative_to: &str) -> Option<String> {
        let text = format!(
            "{}\n[[criterion]]\nname = \"mine\"\nmetric = \"{metric}\"\nscope = \"gpu\"\nstatistic = \"{statistic}\"\n\
             relative_to = \"{relative_to}\"\nat_most = \"1\"\n",
            BUILT_IN[2].1
        );
        parse(&text, "my.toml").err().map(|e| e.to_string())
    }

    #[test]
    fn a_statistic_that_says_nothing_of_its_metric_is_refused_with_those_that_do() {
        let cases = [
            ("duty", "slope", "known for it: total; how a rate changes"),
            (
                "duty",
                "p99",
                "one figure for the window; known for it: total",
            ),
            (
                "ecc",
                "mean",
                "the growth of a counter; known for it: total",
            ),
            ("failures", "max", "known for it: total"),
            ("power_draw", "total", "known for it: median"),
            ("temp_core", "variation", "known for it: median"),
            ("matmul_rate", "total", "mean, min, max, variation"),
            ("telemetry_coverage", "mean", "known for it: min"),
            ("telemetry_gap", "min", "known for it: max"),
            ("row_remap", "mean", "known for it: total, max"),
        ];
        for (metric, statistic, wanted) in cases {
            let error = refused(metric, statistic, "absolute").unwrap_or_default();
            assert!(error.contains(wanted), "{metric} {statistic}: {error}");
            assert!(error.starts_with("my.toml:"), "{error}");
        }
    }

    #[test]
    fn a_spread_is_a_distance() {
        let error = refused("temp_core", "spread", "absolute").unwrap_or_default();
        assert!(error.ends_with("the unit of temp_core, K"), "{error}");
        let error = refused("temp_core", "spread", "own_median").unwrap_or_default();
        assert!(error.contains("leave relative_to out"), "{error}");
        let error = refused("matmul_rate", "spread", "absolute").unwrap_or_default();
        assert!(error.contains("rates of blocks; known for it"), "{error}");
    }

    #[test]
    fn a_figure_is_not_compared_with_itself() {
        for (metric, statistic) in [("duty", "total"), ("step_time", "median")] {
            let error = refused(metric, statistic, "own_median").unwrap_or_default();
            assert!(error.contains("criterion `mine`"), "{metric}: {error}");
        }
        assert_eq!(refused("step_time", "p99", "own_median"), None);
        let error = refused("temp_core", "mean", "power_limit").unwrap_or_default();
        assert!(error.contains("it is for power_draw"), "{error}");
        let error = refused("power_draw", "mean", "power_limit").unwrap_or_default();
        assert!(error.contains("declare it"), "{error}");
        assert!(refused("step_time", "p99", "first_tenth").is_some());
    }
}
