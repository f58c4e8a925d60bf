//! Names the place and the cause of what a run has shown: [`cause`] is the closed list of causes.
//!
//! Pure functions of the fold's bounded traces, events, settings and plan. It never decides: an outcome is the
//! same with or without its diagnosis. Refuses to name what fewer than the signs of a cause show, and to score
//! a device against fewer than three peers; what changed in time needs no peers.

mod against;
pub mod cause;
mod departure;
mod hall;
mod heat;
mod link;
mod loss;
pub mod pairs;
pub mod place;
mod power;
pub(crate) mod sensor;
mod signs;
mod split;
pub(crate) mod usual;
mod work;
mod wrong;

pub use cause::Cause;
pub use place::{Level, Place};

use crate::standing::Standing;
use hallmark_profiles::criterion::Side;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::Unit;
use serde::{Deserialize, Serialize};
use signs::Signs;

/// Nothing is believed more than this.
const MOST: f64 = 0.99;
/// An onset is known to so much; and what slows a device may grow for so long until others wait for it.
const KNOWN_NS: u64 = 60_000_000_000;
const GROWS_NS: u64 = 600_000_000_000;
/// From here on a diagnosis stands against a gate that cannot see it.
const NEARLY_CERTAIN: f64 = 0.9;
/// From here on a diagnosis is possible, and told of a run that passed: its leading sign, which is worth a half, is no noise.
const POSSIBLE: f64 = 0.499;

/// Why something is as it is, where, since when, and how sure that is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    pub cause: Cause,
    /// The narrowest group that explains all affected devices.
    pub place: Place,
    /// 0 to 1: the chance that the leading sign is no noise, times the share of the cause's signs that were
    /// there, half of it given for the leading one. A sign that nobody measured counts as one that is not there.
    pub confidence: f64,
    /// The leading sign first.
    pub evidence: Vec<Sign>,
    /// When it began, ns since the run's start; `None`: before the judged phase.
    pub onset_ns: Option<u64>,
    pub side: Side,
    pub what_to_do: String,
}

/// One thing seen that speaks for a diagnosis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sign {
    pub metric: Metric,
    /// As people say it: `ΔT up on 8 GPUs`.
    pub what: String,
    /// By how much, with one-sided 95 % bounds, in `unit`; `None` where it is known and not estimated.
    pub size: Option<Size>,
}

/// A change or a distance from the peers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Size {
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub unit: Unit,
}

impl Sign {
    pub(crate) fn new(metric: Metric, what: impl Into<String>) -> Self {
        Self {
            metric,
            what: what.into(),
            size: None,
        }
    }

    pub(crate) fn sized(mut self, size: Option<Size>) -> Self {
        self.size = size.filter(|s| [s.value, s.low, s.high].iter().all(|v| v.is_finite()));
        self
    }
}

impl Diagnosis {
    /// `p`: chance of the leading sign by noise alone. `checks`: how many of the cause's other signs are there, of
    /// how many.
    pub(crate) fn new(
        cause: Cause,
        place: Place,
        p: f64,
        checks: (usize, usize),
        evidence: Vec<Sign>,
    ) -> Self {
        let share = if checks.1 == 0 {
            1.0
        } else {
            checks.0 as f64 / checks.1 as f64
        };
        Self {
            cause,
            place,
            confidence: ((1.0 - p.clamp(0.0, 1.0)) * (0.5 + 0.5 * share)).min(MOST),
            evidence,
            onset_ns: None,
            side: cause.spec().side,
            what_to_do: cause.spec().remedy.to_owned(),
        }
    }

    pub(crate) fn since(mut self, onset_ns: Option<u64>) -> Self {
        self.onset_ns = onset_ns;
        self
    }

    /// Whether all that would show the cause was looked at and nearly all of it is there.
    #[must_use]
    pub fn is_nearly_certain(&self) -> bool {
        self.confidence >= NEARLY_CERTAIN
    }

    /// Whether it is told where every gate holds.
    #[must_use]
    pub fn is_worth_telling(&self) -> bool {
        self.confidence >= POSSIBLE
    }

    /// The confidence in a word.
    #[must_use]
    pub fn sureness(&self) -> &'static str {
        match self.confidence {
            c if c >= NEARLY_CERTAIN => "nearly certain",
            c if c >= 0.7 => "likely",
            c if c >= POSSIBLE => "possible",
            _ => "a guess",
        }
    }

    /// Place, cause and what shows it: `rack 7, tray 3: branch flow low (ΔT up on 8 GPUs, r_th normal)`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let signs: Vec<&str> = self.evidence.iter().map(|s| s.what.as_str()).collect();
        let shown = if signs.is_empty() {
            String::new()
        } else {
            format!(" ({})", signs.join(", "))
        };
        format!("{}: {}{shown}", self.place.name, self.cause.name())
    }

    /// [`Self::sentence`] with how sure it is, in a word and a figure.
    #[must_use]
    pub fn told(&self) -> String {
        let figure = (100.0 * self.confidence).round();
        format!(
            "{}; {}, {figure:.0}\u{a0}%",
            self.sentence(),
            self.sureness()
        )
    }

    /// Whether the diagnosis speaks of what this metric at this device shows.
    #[must_use]
    pub fn explains(&self, metric: Metric, device: Option<u32>) -> bool {
        let here = device.is_none_or(|d| self.place.devices.contains(&d));
        let moved = self.evidence.iter().any(|s| s.metric == metric);
        here && (moved || moved_by(self.cause, metric))
    }
}

/// Whether a cause moves a metric that is no sign of it: every one that slows a device moves the rates.
fn moved_by(cause: Cause, metric: Metric) -> bool {
    use Metric as M;
    let rates = [
        M::MatmulRate,
        M::MatmulEfficiency,
        M::StepTime,
        M::StepSkew,
        M::SustainRatio,
        M::Drift,
    ];
    let heat = [
        M::TempCore,
        M::TempMemory,
        M::ThermalMargin,
        M::ThrottleFrac,
    ];
    let operations = [M::AllreduceBusbw, M::AllreduceAlgbw, M::AllreduceLatency];
    match cause {
        Cause::SlowSilicon | Cause::SlowDrift | Cause::PowerCap | Cause::RackCap => {
            rates.contains(&metric) || metric == M::RackDensity
        }
        Cause::PowerBrake => rates.contains(&metric) || metric == M::ThrottleFrac,
        Cause::BranchFlow | Cause::PumpTrip
            if [M::Flow, M::FlowPerKw, M::CoolantRise].contains(&metric) =>
        {
            true
        }
        Cause::ThermalThrottle
        | Cause::ColdPlate
        | Cause::PumpOut
        | Cause::BranchFlow
        | Cause::SupplyWarm
        | Cause::Hunting
        | Cause::PumpTrip => rates.contains(&metric) || heat.contains(&metric),
        Cause::MemoryThrottle => metric == M::HbmRate,
        Cause::LinkDown | Cause::LinkSlow | Cause::Congestion => operations.contains(&metric),
        Cause::HostJitter => [M::StepTime, M::StepSkew, M::IdleGap].contains(&metric),
        Cause::DataCorruption | Cause::HotCorruption | Cause::ReduceCorruption => {
            [M::AuditErrors, M::SdcUcl].contains(&metric)
        }
        Cause::DeviceLost | Cause::FeedLoss => [M::Failures, M::Duty].contains(&metric),
        Cause::Missing | Cause::Settings => metric == M::Inventory,
        Cause::AgentRestart => [M::TelemetryCoverage, M::TelemetryGap].contains(&metric),
        _ => false,
    }
}

/// Everything that this run's course names a cause for, the surest first; of equals the wider place first.
///
/// Cost: linear in devices and in the length of their traces where few are ill; so a verdict asks for
/// it when the run is over, not at each refresh.
#[must_use]
pub fn diagnose(standing: &Standing) -> Vec<Diagnosis> {
    let mut found = loss::all(standing);
    found.extend(wrong::all(standing));
    found.extend(sensor::all(standing));
    found.extend(pairs::all(standing));
    if let Some(signs) = Signs::of(standing) {
        found.extend(heat::all(&signs));
        found.extend(power::all(&signs));
        found.extend(link::all(&signs));
        found.extend(work::all(&signs, &found));
        found.extend(against::phases(&signs));
    }
    reconciled(found)
}

/// Whether a change of power is that of ranks which wait for a slow one: they draw less, and less evenly.
fn waited_for(slow: &Diagnosis, one: &Diagnosis) -> bool {
    use Cause as C;
    let slows = matches!(
        slow.cause,
        C::PowerBrake | C::PowerCap | C::RackCap | C::ThermalThrottle
    );
    let drawn = |s: &Sign| matches!(s.metric, Metric::PowerDraw | Metric::PowerInstant);
    let is_power = match one.cause {
        C::PowerSwing => true,
        C::SensorScaled | C::ShortcutWork => one.evidence.first().is_some_and(drawn),
        _ => false,
    };
    let with = |(slow, one): (u64, u64)| {
        slow <= one.saturating_add(KNOWN_NS) && one <= slow.saturating_add(GROWS_NS)
    };
    slows && is_power && slow.onset_ns.zip(one.onset_ns).is_some_and(with)
}

/// What one cause explains is not told again as another's: the effect follows its cause, not the other way round.
fn reconciled(found: Vec<Diagnosis>) -> Vec<Diagnosis> {
    use Cause as C;
    let hides = |cause: Cause, effect: Cause| match cause {
        C::FeedLoss => matches!(
            effect,
            C::DeviceLost
                | C::AgentRestart
                | C::PowerBrake
                | C::SensorStuck
                | C::PowerCap
                | C::RackCap
        ),
        C::DeviceLost => matches!(effect, C::SensorStuck | C::SensorStale | C::Missing),
        C::PumpTrip => matches!(effect, C::BranchFlow | C::SupplyWarm | C::ColdPlate),
        C::SupplyWarm | C::BranchFlow => matches!(effect, C::ColdPlate | C::PumpOut),
        C::PowerBrake => matches!(effect, C::PowerCap | C::RackCap | C::SlowSilicon),
        C::SensorReplayed => matches!(effect, C::SensorStuck | C::SensorStale | C::SensorScaled),
        C::SensorStuck => matches!(
            effect,
            C::SensorStale | C::SensorScaled | C::PowerCap | C::ShortcutWork
        ),
        C::PowerSwing => effect == C::SensorScaled,
        C::HotCorruption => effect == C::DataCorruption,
        C::LinkDown => effect == C::Congestion,
        _ => false,
    };
    let mut kept: Vec<Diagnosis> = Vec::new();
    for (index, one) in found.iter().enumerate() {
        let mut others = found.iter().enumerate().filter(|(i, _)| *i != index);
        let hidden = others.any(|(_, d)| {
            hides(d.cause, one.cause) && one.place.is_within(&d.place) || waited_for(d, one)
        });
        let same = kept
            .iter_mut()
            .find(|k| k.cause == one.cause && one.place.is_within(&k.place));
        match same {
            _ if hidden => {}
            Some(same) => {
                same.confidence = same.confidence.max(one.confidence);
                let new = one.evidence.iter().filter(|s| !same.evidence.contains(s));
                let new: Vec<Sign> = new.cloned().collect();
                same.evidence.extend(new);
                same.onset_ns = [same.onset_ns, one.onset_ns].into_iter().flatten().min();
            }
            None => kept.push(one.clone()),
        }
    }
    kept.sort_by(|a, b| {
        let wider = b.place.devices.len().cmp(&a.place.devices.len());
        b.confidence.total_cmp(&a.confidence).then(wider)
    });
    kept
}
