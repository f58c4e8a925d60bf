//! For each criterion a record on which it fails and one that lacks its evidence, chosen by its metric.

use hallmark_profiles::criterion::{Criterion, Reference, Statistic};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile::Profile;
use hallmark_results::frame::{FaultKind, What};
use hallmark_results::plan::Plan;
use hallmark_tests::synthetic::{Moment, Record, record};

/// A criterion of a profile, and the phase that it judges.
pub struct Case {
    pub profile: &'static str,
    pub phase: String,
    pub criterion: Criterion,
}

/// Name of the phase that a criterion judges.
pub fn phase(profile: &Profile, criterion: &Criterion) -> String {
    let phase = Plan::phase_of(profile, criterion);
    profile.load.phases[phase].name.clone()
}

/// A run as short as the profile's criteria allow: a drift needs a day, a sustained rate 100 minutes.
pub fn good(name: &str, profile: &Profile) -> Record {
    let asks = |metric| profile.criteria.iter().any(|c| c.metric == metric);
    shortened(name, asks(Metric::Drift), asks(Metric::SustainRatio))
}

fn shortened(name: &str, drift: bool, sustained: bool) -> Record {
    match (drift, sustained) {
        (true, _) => record(name).hours(26.0),
        (false, true) => record(name).hours(2.0),
        (false, false) => record(name),
    }
}

/// True for about one in `n`, the same ones each time.
fn one_in(n: u64, of: u64) -> bool {
    hallmark_results::stats::bootstrap::SplitMix64::new(of).below(n) == 0
}

impl Case {
    /// The run that this criterion alone needs.
    fn good(&self) -> Record {
        let metric = self.criterion.metric;
        let long = matches!(self.profile, "hall-acceptance" | "soak");
        shortened(
            self.profile,
            metric == Metric::Drift,
            long || metric == Metric::SustainRatio,
        )
    }

    /// A record on which the criterion does not hold; `None` where nobody has thought of one.
    pub fn failing(&self) -> Option<Record> {
        let good = self.good();
        let phase = self.phase.clone();
        let here = move |m: &Moment<'_>| m.phase == phase;
        Some(match self.criterion.metric {
            Metric::SelfTest => good.self_test(1, Some(false)),
            Metric::Inventory => good.fault(1, FaultKind::Missing),
            Metric::Failures => good.fault(1, FaultKind::WorkerDied),
            Metric::AuditErrors => {
                let detail = "one element differs".to_owned();
                good.event(Some(1), What::Mismatch { detail })
            }
            Metric::AuditShare => good.steps(|m, _, row| {
                row.audited *= u32::from(m.index.is_multiple_of(20));
                true
            }),
            Metric::Duty => good.steps(move |m, d, _| !here(m) || d != 1 || m.progress < 0.5),
            Metric::TelemetryCoverage => {
                let first = self.first_metric();
                good.hide(first, move |m| here(m) && m.index.is_multiple_of(2))
            }
            Metric::TelemetryGap => {
                let first = self.first_metric();
                good.hide(first, move |m| here(m) && (0.4..0.5).contains(&m.progress))
            }
            Metric::MatmulRate => match (self.criterion.statistic, self.criterion.relative_to) {
                (Statistic::Variation, _) => {
                    good.rates(|m, _| if one_in(2, m.index) { 0.7 } else { 1.0 })
                }
                (_, Reference::SkuReference) => good.rates(|_, _| 0.7),
                (_, Reference::PeerMedian) => good.rates(|_, d| if d == 1 { 0.85 } else { 1.0 }),
                _ => return None,
            },
            Metric::SustainRatio => good.rates(move |m, _| {
                if here(m) && m.progress > 0.8 {
                    0.94
                } else {
                    1.0
                }
            }),
            Metric::Drift => good.rates(|m, _| 1.0 - 0.05 * m.progress),
            Metric::ScalingEfficiency => good.lengths(move |m| if here(m) { 1.3 } else { 1.0 }),
            Metric::StepTime => good.lengths(|m| if one_in(8, m.index) { 4.0 } else { 1.0 }),
            Metric::StepSkew => good.steps(|_, d, row| {
                row.compute_ns += u64::from(d == 1) * row.compute_ns / 6;
                true
            }),
            Metric::IdleGap => good.steps(|_, d, row| {
                row.start_ns += u64::from(d == 1) * (row.end_ns - row.start_ns) / 16;
                true
            }),
            Metric::HbmRate => good.steps(|_, _, row| {
                row.memory_bytes /= 2;
                true
            }),
            Metric::AllreduceBusbw => good.operations(|_| 2.0),
            Metric::AllreduceLatency => match self.criterion.statistic {
                Statistic::Quantile(q) if q > 0.995 => {
                    good.operations(|i| if one_in(200, i) { 5.0 } else { 1.0 })
                }
                _ => good.operations(|i| if one_in(30, i) { 3.0 } else { 1.0 }),
            },
            Metric::ClockOffset => good.clock(Some(0.05)),
            metric => {
                let place = good.places(metric).first().cloned()?;
                let bad = super::change::bad(metric)?;
                good.series(metric, place, move |m| bad.at(m.progress, here(m)))
            }
        })
    }

    /// A record from which the criterion's evidence is missing; `None` where nobody has thought of one.
    pub fn missing(&self) -> Option<Record> {
        let good = self.good();
        let metric = self.criterion.metric;
        Some(match metric {
            Metric::SelfTest => good.self_test(1, None),
            Metric::Inventory | Metric::Failures => good.idle(),
            Metric::AuditErrors => good.steps(|_, d, row| {
                row.audited *= u32::from(d != 1);
                true
            }),
            Metric::AuditShare => good.steps(|_, _, row| {
                (row.gemms, row.audited) = (0, 0);
                true
            }),
            Metric::ScalingEfficiency => good.never_began("single-nodes"),
            Metric::Duty | Metric::StepTime => good.never_began(&self.phase),
            Metric::HbmRate => good.named(1, "some other model"),
            Metric::IdleGap => {
                let phase = self.phase.clone();
                good.steps(move |m, d, _| m.phase != phase || d != 1)
            }
            Metric::TelemetryCoverage | Metric::TelemetryGap => good.without_telemetry(),
            Metric::MatmulRate => match (self.criterion.statistic, self.criterion.relative_to) {
                (Statistic::Variation, _) => good.never_began(&self.phase),
                // A model that nobody has a reference for; a device without another of its kind.
                _ => good.named(1, "some other model"),
            },
            Metric::SustainRatio => record(self.profile).hours(1.0),
            // An hour less than it takes.
            Metric::Drift => record(self.profile).hours(23.5),
            Metric::StepSkew => good.steps(|_, d, _| d != 1),
            Metric::AllreduceBusbw | Metric::AllreduceLatency => good.operations(|_| f64::NAN),
            Metric::ClockOffset => good.clock(None),
            _ => {
                let place = good.places(metric).first().cloned()?;
                good.series(metric, place, |_| f64::NAN)
            }
        })
    }

    /// A metric of which this profile has samples.
    fn first_metric(&self) -> Metric {
        let loaded = hallmark_profiles::profile::load(self.profile).expect("a built-in profile");
        *loaded
            .profile
            .telemetry
            .metrics
            .first()
            .expect("every built-in profile declares a sensor")
    }
}
