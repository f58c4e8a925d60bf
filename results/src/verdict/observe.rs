//! Finds, for a criterion, the places in its scope and the evidence at each.
//!
//! A metric that nothing produced gives one place without evidence and the reason.

use super::evidence::Evidence;
use crate::frame::{FaultKind, What};
use crate::plan::SegmentKind;
use crate::standing::Standing;
use crate::standing::window::{DeviceWindow, Gathered, Window};
use crate::stats::bootstrap::median_ratio;
use crate::stats::interval::{Events, Interval};
use crate::stats::trend;
use crate::verdict::judge::RUN_WIDE;
use crate::verdict::{CONFIDENCE, limits};
use hallmark_profiles::criterion::{Criterion, Reference, Scope};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};

mod clock;
mod energy;
mod enforced;
mod group;
pub mod sensors;
pub mod settings;

/// Blocks that each tenth needs before their medians are compared.
const TENTH_BLOCKS: usize = 60;
const HOUR_NS: u64 = 3_600_000_000_000;

/// A place and what is known of it.
pub struct Sight<'a> {
    pub place: String,
    pub device: Option<u32>,
    pub evidence: Evidence<'a>,
    /// Why the evidence, whatever it says, is too thin to pass; a miss may still be shown by it.
    pub thin: Option<String>,
    /// What was seen, in words, for a figure that names no cause; it leaves the evidence as it is.
    pub told: Option<String>,
    /// The power limit that was enforced here, W, or why it cannot be said; only where the criterion compares with it.
    pub enforced: Option<Result<f64, String>>,
    /// The median of its peers, in the evidence's unit, or why there is none; only where the criterion compares with it.
    pub peers: Option<Result<f64, String>>,
}

impl<'a> Sight<'a> {
    pub fn new(place: impl Into<String>, device: Option<u32>, evidence: Evidence<'a>) -> Self {
        Self {
            place: place.into(),
            device,
            evidence,
            thin: None,
            told: None,
            enforced: None,
            peers: None,
        }
    }
}

/// What a criterion can look at.
pub struct Scene<'a> {
    pub standing: &'a Standing,
    pub window: &'a Window,
    pub end_ns: u64,
}

/// What is known of those operations alone of which each rank told.
const OF_ALL_RANKS: [Metric; 3] = [
    Metric::AllreduceAlgbw,
    Metric::AllreduceBusbw,
    Metric::AllreduceLatency,
];

/// What is known of those steps alone of which each rank told.
fn is_of_steps(criterion: &Criterion) -> bool {
    match criterion.metric {
        Metric::StepTime => criterion.scope != Scope::Gpu,
        Metric::StepSkew | Metric::ExposedComm | Metric::ScalingEfficiency => true,
        _ => false,
    }
}

/// Other faults have gates of their own, or leave evidence out.
const fn is_failure(kind: FaultKind) -> bool {
    !matches!(
        kind,
        FaultKind::Missing | FaultKind::Sensor | FaultKind::Journal
    )
}

fn missing<'a>(place: impl Into<String>, why: impl Into<String>) -> Sight<'a> {
    Sight::new(place, None, Evidence::Missing(why.into()))
}

fn group<'a>(evidence: Evidence<'a>) -> Vec<Sight<'a>> {
    vec![Sight::new("group", None, evidence)]
}

fn site<'a>(value: f64, samples: u64) -> Vec<Sight<'a>> {
    vec![Sight::new("site", None, Evidence::Exact { value, samples })]
}

impl<'a> Scene<'a> {
    pub fn new(standing: &'a Standing, window: &'a Window) -> Self {
        let end_ns = window.end_ns.unwrap_or_else(|| standing.last_ns());
        Self {
            standing,
            window,
            end_ns,
        }
    }

    /// All places of the criterion's scope, and what weakens the evidence of all of them.
    pub fn sights(&self, criterion: &Criterion) -> Vec<Sight<'a>> {
        let mut sights = self.seen(criterion);
        if criterion.relative_to == Reference::PowerLimit {
            sights.iter_mut().for_each(|s| self.enforce(s));
        }
        if criterion.relative_to == Reference::PeerMedian {
            limits::compare(self.standing, &mut sights);
        }
        let oddities = self.standing.oddities();
        let ended = self.window.end_ns.is_some();
        let (untold, what) = match self.window.coupled() {
            true if OF_ALL_RANKS.contains(&criterion.metric) => {
                (self.window.group.untold_ops(ended), "all-reduces")
            }
            // Of a rank that failed, its fault is the reason, and decides.
            true if is_of_steps(criterion) && !self.has_failed() => {
                (self.window.group.untold_steps(ended), "steps")
            }
            _ => (0, ""),
        };
        let why = if self.length() == 0 && !RUN_WIDE.contains(&criterion.metric) {
            Some("the phase has no length".to_owned())
        } else if oddities > 0 {
            Some(format!(
                "{oddities} rows of this record contradict themselves or come twice"
            ))
        } else if untold > 0 {
            // They need not be like the others: a slow one may be left out on purpose.
            Some(format!("{untold} {what} were not told by every rank alike"))
        } else {
            None
        };
        for sight in &mut sights {
            sight.thin = sight.thin.take().or_else(|| why.clone());
        }
        sights
    }

    fn seen(&self, criterion: &Criterion) -> Vec<Sight<'a>> {
        let metric = criterion.metric;
        match metric {
            Metric::MatmulRate | Metric::MatmulEfficiency => self.rates(criterion),
            Metric::SustainRatio => self.whole(sustained),
            Metric::Drift => self.drift(),
            Metric::KernelRate => self.devices(|s, d| s.kernel_rate(d)),
            Metric::StepTime if criterion.scope == Scope::Gpu => self.devices(|s, d| {
                gathered(
                    &s.window.devices[d].step_time,
                    "no step was completed in this phase",
                )
            }),
            Metric::StepTime => self.step_time(),
            Metric::StepSkew => group(
                self.coupled(|w| gathered(&w.group.skew, "no step of all ranks was completed")),
            ),
            Metric::ExposedComm => group(self.exposed()),
            Metric::ScalingEfficiency => {
                let mut sights = group(self.scaling());
                sights[0].thin = self.slowed();
                sights
            }
            Metric::IdleGap => self.idle(),
            Metric::AllreduceAlgbw => group(self.all_reduce(|bytes, _| bytes)),
            Metric::AllreduceBusbw => {
                group(self.all_reduce(|bytes, n| bytes * 2.0 * (n - 1.0) / n))
            }
            Metric::AllreduceLatency => group(self.operations()),
            Metric::HbmRate => self.memory_rates(),
            Metric::Duty => self.devices(|s, d| s.duty(d)),
            Metric::StepsCompleted => {
                self.counts(criterion.scope, |s, d| s.standing.devices()[d].steps as f64)
            }
            Metric::AuditErrors => self.audited(criterion.scope, |s, d| {
                s.standing.devices()[d].mismatches as f64
            }),
            Metric::AuditExposure => {
                self.counts(criterion.scope, |s, d| s.standing.devices()[d].audited_flop)
            }
            Metric::AuditShare => self.audit_share(),
            Metric::SdcUcl => self.silent_errors(criterion.scope),
            Metric::SelfTest => self.devices(|s, d| match s.standing.devices()[d].self_test {
                Some(passed) => Evidence::Exact {
                    value: f64::from(u8::from(passed)),
                    samples: 1,
                },
                None => Evidence::Missing("no self-test was recorded".to_owned()),
            }),
            Metric::Inventory if criterion.scope == Scope::Gpu => self.settings(),
            Metric::Inventory => self.faults(|k| k == FaultKind::Missing),
            Metric::Failures => self.faults(is_failure),
            Metric::TelemetryCoverage => self.coverage(),
            Metric::TelemetryGap => self.gaps(),
            Metric::FlopPerJoule => self.flop_per_joule(criterion.scope),
            Metric::ClockOffset => self.clocks(),
            _ => self.series(criterion),
        }
    }

    fn has_failed(&self) -> bool {
        let mut faults = self.standing.devices().iter().flat_map(|d| &d.faults);
        faults.any(|e| matches!(e.what, What::Fault { kind, .. } if is_failure(kind)))
    }

    fn length(&self) -> u64 {
        self.end_ns.saturating_sub(self.window.start_ns)
    }

    /// One sight for each device that the phase loads.
    fn devices(&self, evidence: impl Fn(&Self, usize) -> Evidence<'a>) -> Vec<Sight<'a>> {
        let plan = &self.standing.opened().plan;
        let sight = |(index, device): (usize, &crate::plan::PlannedDevice)| {
            Sight::new(device.id.clone(), Some(index as u32), evidence(self, index))
        };
        plan.devices.iter().enumerate().map(sight).collect()
    }

    fn counts(&self, scope: Scope, value: impl Fn(&Self, usize) -> f64) -> Vec<Sight<'a>> {
        if scope == Scope::Gpu {
            return self.devices(|s, d| Evidence::Exact {
                value: value(s, d),
                samples: s.standing.devices()[d].steps,
            });
        }
        let count = self.standing.devices().len();
        site(
            (0..count).map(|d| value(self, d)).sum(),
            self.standing.devices().iter().map(|d| d.steps).sum(),
        )
    }

    /// As [`Self::counts`], but a device of which nothing was audited shows nothing.
    fn audited(&self, scope: Scope, value: impl Fn(&Self, usize) -> f64) -> Vec<Sight<'a>> {
        if scope != Scope::Gpu {
            let devices = self.standing.devices().iter();
            let unseen = devices.filter(|d| d.audited == 0).count();
            let mut sights = self.counts(scope, value);
            for sight in sights.iter_mut().filter(|_| unseen > 0) {
                sight.thin = Some(format!("of {unseen} devices no result was audited"));
            }
            return sights;
        }
        self.devices(|s, d| match s.standing.devices()[d].audited {
            0 if value(s, d) < 0.5 => {
                Evidence::Missing("no result of this device was audited".to_owned())
            }
            samples => Evidence::Exact {
                value: value(s, d),
                samples,
            },
        })
    }

    /// Upper 95 % bound of silent errors per FLOP: Poisson's, which is the rule of three where none was seen.
    fn silent_errors(&self, scope: Scope) -> Vec<Sight<'a>> {
        let bound = |errors: u64, flop: f64, samples: u64| {
            if flop <= 0.0 {
                return Evidence::Missing("no result was audited".to_owned());
            }
            let bound = Events::new(errors, flop).and_then(|e| e.interval(CONFIDENCE));
            match bound {
                Some(bound) => Evidence::Exact {
                    value: bound.high,
                    samples,
                },
                None => Evidence::Missing("no bound can be taken".to_owned()),
            }
        };
        let devices = self.standing.devices();
        if scope == Scope::Gpu {
            return self.devices(|_, d| {
                let d = &devices[d];
                bound(d.mismatches, d.audited_flop, d.audited)
            });
        }
        let errors = devices.iter().map(|d| d.mismatches);
        let errors = errors.fold(0, u64::saturating_add);
        let flop = devices.iter().map(|d| d.audited_flop).sum();
        let audited = devices.iter().map(|d| d.audited).sum();
        vec![Sight::new("site", None, bound(errors, flop, audited))]
    }

    fn audit_share(&self) -> Vec<Sight<'a>> {
        let devices = self.standing.devices();
        let gemms: u64 = devices.iter().map(|d| d.gemms).sum();
        let audited: u64 = devices.iter().map(|d| d.audited).sum();
        if gemms == 0 {
            return vec![missing("site", "no matmul was completed")];
        }
        site(audited as f64 / gemms as f64, gemms)
    }

    fn faults(&self, counts: impl Fn(FaultKind) -> bool) -> Vec<Sight<'a>> {
        let of =
            |e: &&crate::frame::Event| matches!(&e.what, What::Fault { kind, .. } if counts(*kind));
        let faults: Vec<_> = self.standing.events().iter().filter(of).collect();
        let mut sights = site(faults.len() as f64, self.standing.devices().len() as u64);
        // The place of the first one, since that is where to look.
        let first = faults.iter().find_map(|e| e.device);
        if let (Some(device), Some(sight)) = (first, sights.first_mut())
            && let Some(planned) = self.standing.opened().plan.devices.get(device as usize)
        {
            sight.place = planned.id.clone();
            sight.device = Some(device);
        }
        // What it was, since a count names no cause.
        let told = faults.first().and_then(|e| match &e.what {
            What::Fault { detail, .. } => Some(detail.clone()),
            _ => None,
        });
        if let Some(sight) = sights.first_mut() {
            sight.told = told.filter(|detail| !detail.is_empty());
        }
        sights
    }

    fn block_rates(&self, device: usize) -> Result<Vec<f64>, String> {
        let blocks = self.window.devices[device].blocks.as_ref();
        let blocks = blocks.ok_or("the plan's block length is zero")?;
        let rates = blocks
            .rates(self.window.start_ns, self.end_ns)
            .map_err(|e| e.to_string())?;
        if rates.is_empty() {
            return Err("the phase is shorter than one block".to_owned());
        }
        Ok(rates)
    }

    /// Rates of all devices together, block by block.
    fn site_rates(&self) -> Result<Vec<f64>, String> {
        let mut sum: Vec<f64> = Vec::new();
        for device in 0..self.window.devices.len() {
            let rates = self.block_rates(device)?;
            sum.resize(rates.len().max(sum.len()), 0.0);
            sum.iter_mut().zip(rates).for_each(|(s, r)| *s += r);
        }
        Ok(sum)
    }

    fn rates(&self, criterion: &Criterion) -> Vec<Sight<'a>> {
        let by = |rates: Result<Vec<f64>, String>, reference: Option<f64>| match (
            rates,
            criterion.metric,
        ) {
            (Err(why), _) => Evidence::Missing(why),
            (Ok(rates), Metric::MatmulRate) => Evidence::Blocks(rates),
            (Ok(rates), _) => match reference {
                Some(r) => Evidence::Blocks(rates.into_iter().map(|x| x / r).collect()),
                None => Evidence::Missing(
                    "no SKU reference is known for this device and dtype".to_owned(),
                ),
            },
        };
        let reference = |d| limits::sku_reference(self.standing, d, Metric::MatmulRate);
        if criterion.scope == Scope::Gpu {
            let mut sights = self.devices(|s, d| by(s.block_rates(d), reference(d)));
            for (device, sight) in sights.iter_mut().enumerate() {
                sight.thin = self.too_fast(device);
            }
            return sights;
        }
        let devices = 0..self.window.devices.len();
        let references = devices.map(reference).sum::<Option<f64>>();
        let evidence = by(self.site_rates(), references);
        vec![self.of_all(evidence)]
    }

    fn whole(&self, judge: impl Fn(Vec<f64>) -> Evidence<'a>) -> Vec<Sight<'a>> {
        let evidence = self.site_rates().map_or_else(Evidence::Missing, judge);
        vec![self.of_all(evidence)]
    }

    /// Evidence on all devices together; one that did nothing, or the impossible, leaves it open.
    fn of_all(&self, evidence: Evidence<'a>) -> Sight<'a> {
        let devices = &self.standing.opened().plan.devices;
        let still = (0..devices.len()).find(|d| self.window.devices[*d].gemms == 0);
        let still = still.map(|d| format!("{} completed no matmul in this phase", devices[d].id));
        let fast = || (0..devices.len()).find_map(|d| self.too_fast(d));
        Sight {
            thin: still.or_else(fast),
            ..Sight::new("site", None, evidence)
        }
    }

    /// Says so where a device was faster than its datasheet says it can be.
    fn too_fast(&self, device: usize) -> Option<String> {
        let peak = limits::sku_peak(self.standing, device)?;
        let rates = self.block_rates(device).ok()?;
        let median = crate::stats::outlier::median(&rates)?;
        (median > peak).then(|| {
            let id = &self.standing.opened().plan.devices[device].id;
            let shown = |v| human(v, Unit::FlopPerSecond);
            let (median, peak) = (shown(median), shown(peak));
            format!("{id} did {median}, more than its datasheet's peak of {peak}: impossible")
        })
    }

    /// Rates of copy and triad; one beyond the datasheet came from a cache, or is no rate.
    fn memory_rates(&self) -> Vec<Sight<'a>> {
        let none = "no copy or triad ran in this phase";
        let mut sights = self.devices(|s, d| gathered(&s.window.devices[d].memory_rate, none));
        for (device, sight) in sights.iter_mut().enumerate() {
            let peak = limits::sku_datasheet(self.standing, device, Metric::HbmRate);
            let rates = self.window.devices[device].memory_rate.get();
            let median = rates.and_then(|r| r.quantile(0.5));
            if let (Some(peak), Some(median)) = (peak, median)
                && median > peak
            {
                let shown = |v| human(v, Unit::BytePerSecond);
                let (median, peak) = (shown(median), shown(peak));
                sight.thin = Some(format!(
                    "it moved {median}, more than its datasheet's {peak}: impossible"
                ));
            }
        }
        sights
    }

    fn drift(&self) -> Vec<Sight<'a>> {
        let per_hour = (HOUR_NS / self.standing.opened().plan.block_ns.max(1)) as usize;
        self.whole(|rates| {
            let hours: Vec<f64> = rates
                .chunks_exact(per_hour.max(1))
                .map(|h| h.iter().sum::<f64>() / h.len() as f64)
                .collect();
            if hours.len() < 24 {
                return Evidence::Missing(format!(
                    "drift needs 24 h of steady load, there are {} h",
                    hours.len()
                ));
            }
            let middle = crate::stats::outlier::median(&hours).unwrap_or(f64::NAN);
            // Percent of the median a day, from one point an hour.
            let points: Vec<_> = hours
                .iter()
                .enumerate()
                .map(|(h, r)| (h as f64 / 24.0, 100.0 * r / middle))
                .collect();
            let samples = points.len() as u64;
            Evidence::Interval {
                at: Box::new(move |confidence| trend::trend(&points, confidence).map(|t| t.slope)),
                samples,
            }
        })
    }

    fn kernel_rate(&self, device: usize) -> Evidence<'a> {
        let w = &self.window.devices[device];
        if w.compute_ns == 0 {
            return Evidence::Missing("no matmul was completed in this phase".to_owned());
        }
        Evidence::Exact {
            value: w.flop * 1e9 / w.compute_ns as f64,
            samples: w.gemms,
        }
    }

    /// The planned length of the window, and how much of it has not been.
    fn planned_ns(&self) -> (u64, u64) {
        let schedule = &self.standing.opened().plan.schedule;
        let planned = schedule.get(self.window.segment as usize);
        let planned = planned.map_or(0, |s| s.duration_ns).max(1);
        let left = planned.saturating_sub(self.length());
        // The last step of a window ends a little before or after it.
        let over = left < (planned / 100).min(1_000_000_000);
        (planned, if over { 0 } else { left })
    }

    fn idle(&self) -> Vec<Sight<'a>> {
        let schedule = &self.standing.opened().plan.schedule;
        let segment = schedule.get(self.window.segment as usize);
        let pulse = segment.is_some_and(|s| s.pulse.is_some());
        let mut sights = self.devices(|s, d| {
            let w = &s.window.devices[d];
            match w.span_ns() {
                _ if pulse => {
                    Evidence::Missing("a pulse is an open loop: its gaps are the plan's".to_owned())
                }
                0 => Evidence::Missing(
                    "fewer than two steps were completed in this phase".to_owned(),
                ),
                span => s.share_of_window(w.idle_ns as f64, span as f64, w),
            }
        });
        for sight in &mut sights {
            let device = sight.device.map_or(0, |d| d as usize);
            let planned = &self.standing.opened().plan.devices[device];
            if !planned.software && !self.standing.devices()[device].device_clock {
                let why =
                    "its steps were timed by the host's clock, which sees no gap behind a queue";
                sight.thin = Some(why.to_owned());
            }
        }
        sights
    }

    /// A share of time that is known exactly, or bounded by what the rest of an unfinished window may bring.
    fn share_of_window(&self, part_ns: f64, of_ns: f64, w: &DeviceWindow) -> Evidence<'a> {
        let (value, samples) = (part_ns / of_ns, w.steps);
        let left = self.planned_ns().1 as f64;
        if left <= 0.0 {
            return Evidence::Exact { value, samples };
        }
        let whole = of_ns + left;
        let (low, high) = (part_ns / whole, (part_ns + left) / whole);
        Evidence::Interval {
            at: Box::new(move |_| Some(Interval { low, value, high })),
            samples,
        }
    }

    /// Time under load over planned time; what a resumed run lost before counts as planned.
    fn duty(&self, device: usize) -> Evidence<'a> {
        let same = |w: &&Window| w.kind == self.window.kind;
        let passes: Vec<&Window> = self.standing.windows().iter().filter(same).collect();
        let first_ns = passes.first().map_or(self.window.start_ns, |w| w.start_ns);
        let lost = self.window.start_ns.saturating_sub(first_ns) as f64;
        let busy = |w: &&Window| {
            let w = &w.devices[device];
            w.span_ns().saturating_sub(w.idle_ns) as f64
        };
        let busy: f64 = passes.iter().map(busy).sum();
        let (planned, left) = self.planned_ns();
        let (planned, left) = (planned as f64 + lost, left as f64);
        let samples = self.window.devices[device].steps;
        let share = |busy: f64| (busy / planned).min(1.0);
        if left <= 0.0 {
            let value = share(busy);
            return Evidence::Exact { value, samples };
        }
        let (low, high) = (share(busy), share(busy + left));
        Evidence::Interval {
            at: Box::new(move |_| {
                Some(Interval {
                    low,
                    value: low,
                    high,
                })
            }),
            samples,
        }
    }
}

fn gathered<'a>(g: &'a Gathered, why: &str) -> Evidence<'a> {
    g.get().map_or_else(
        || Evidence::Missing(why.to_owned()),
        |of| Evidence::Distribution {
            of,
            dependence: g.dependence(),
        },
    )
}

fn sustained<'a>(rates: Vec<f64>) -> Evidence<'a> {
    let tenth = rates.len() / 10;
    if tenth < TENTH_BLOCKS {
        return Evidence::Missing(format!(
            "sustain_ratio needs {} blocks, there are {}",
            10 * TENTH_BLOCKS,
            rates.len()
        ));
    }
    let samples = rates.len() as u64;
    Evidence::Interval {
        at: Box::new(move |confidence| {
            let (first, last) = (&rates[..tenth], &rates[rates.len() - tenth..]);
            median_ratio(first, last, confidence, 1)
        }),
        samples,
    }
}

/// Whether a window is that of a phase, the only kind that is judged.
pub fn is_phase(window: &Window) -> bool {
    matches!(window.kind, SegmentKind::Phase(_))
}
