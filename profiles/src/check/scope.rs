//! Where a metric can be judged: the table of scopes, and the refusal of all others.
//!
//! A scope that nothing is taken at would not fail when judged: the figure of another kind of place would
//! stand for it. So it is refused when the profile is read.

use super::FROM_LOAD;
use crate::criterion::{Criterion, Scope};
use crate::metric::Metric;

/// Scopes at which a metric that the load itself gives is judged.
const fn of_load(metric: Metric) -> &'static [Scope] {
    use Metric as M;
    match metric {
        M::MatmulRate | M::MatmulEfficiency | M::FlopPerJoule => &[Scope::Gpu, Scope::Site],
        M::StepsCompleted | M::AuditErrors | M::AuditExposure | M::SdcUcl => {
            &[Scope::Gpu, Scope::Site]
        }
        M::SustainRatio | M::Drift | M::AuditShare | M::Inventory | M::Failures => &[Scope::Site],
        M::TelemetryCoverage | M::TelemetryAge | M::TelemetryGap => &[Scope::Site],
        M::StepTime => &[Scope::Gpu, Scope::Group],
        M::StepSkew | M::ExposedComm | M::ScalingEfficiency => &[Scope::Group],
        M::AllreduceAlgbw | M::AllreduceBusbw | M::AllreduceLatency => &[Scope::Group],
        M::ClockOffset => &[Scope::Node],
        _ => &[Scope::Gpu],
    }
}

const fn word(scope: Scope) -> &'static str {
    match scope {
        Scope::Gpu => "gpu",
        Scope::Node => "node",
        Scope::Rack => "rack",
        Scope::Cdu => "cdu",
        Scope::Feeder => "feeder",
        Scope::Group => "group",
        Scope::Site => "site",
    }
}

/// What is wrong with a criterion's scope, if anything; lists those that are known.
pub(super) fn fault(criterion: &Criterion) -> Option<String> {
    let Criterion {
        name,
        metric,
        scope,
        ..
    } = criterion;
    let known: Vec<&str> = if FROM_LOAD.contains(metric) {
        of_load(*metric).iter().map(|s| word(*s)).collect()
    } else {
        // A sensor's series are taken where the catalogue says, and can be looked at together as the site.
        let own = metric.spec().scope.iter().copied();
        let ports = own.filter(|s| !["port", "series", "site"].contains(s));
        ports.chain(["site"]).collect()
    };
    let own = word(*scope);
    (!known.contains(&own)).then(|| {
        let known = known.join(", ");
        format!("criterion `{name}`: {metric} is not taken of a {own}; known: {known}")
    })
}
