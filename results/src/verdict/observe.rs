//! Finds, for a criterion, the places in its scope and the evidence at each.
//!
//! A metric that nothing produced gives one place without evidence and the reason.

use super::evidence::Evidence;
use crate::frame::{FaultKind, SeriesKind, What};
use crate::plan::SegmentKind;
use crate::standing::Standing;
use crate::standing::window::{SeriesWindow, Window};
use crate::stats::bootstrap::median_ratio;
use crate::stats::interval::Interval;
use crate::stats::trend;
use hallmark_profiles::criterion::{Criterion, Scope, Statistic};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile::Mode;
use hallmark_profiles::units::Unit;

/// Blocks that each tenth needs before their medians are compared.
const TENTH_BLOCKS: usize = 60;
const HOUR_NS: u64 = 3_600_000_000_000;

/// A place and what is known of it.
pub struct Sight<'a> {
    pub place: String,
    pub device: Option<u32>,
    pub evidence: Evidence<'a>,
}

/// What a criterion can look at.
pub struct Scene<'a> {
    pub standing: &'a Standing,
    pub window: &'a Window,
    pub end_ns: u64,
}

fn missing<'a>(place: impl Into<String>, why: impl Into<String>) -> Sight<'a> {
    Sight {
        place: place.into(),
        device: None,
        evidence: Evidence::Missing(why.into()),
    }
}

fn group<'a>(evidence: Evidence<'a>) -> Vec<Sight<'a>> {
    vec![Sight {
        place: "group".to_owned(),
        device: None,
        evidence,
    }]
}

fn site<'a>(value: f64, samples: u64) -> Vec<Sight<'a>> {
    vec![Sight {
        place: "site".to_owned(),
        device: None,
        evidence: Evidence::Exact { value, samples },
    }]
}

impl<'a> Scene<'a> {
    /// All places of the criterion's scope.
    pub fn sights(&self, criterion: &Criterion) -> Vec<Sight<'a>> {
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
            Metric::IdleGap => self.devices(|s, d| s.idle(d)),
            Metric::AllreduceAlgbw => group(self.all_reduce(|bytes, _| bytes)),
            Metric::AllreduceBusbw => {
                group(self.all_reduce(|bytes, n| bytes * 2.0 * (n - 1.0) / n))
            }
            Metric::AllreduceLatency => group(self.operations()),
            Metric::HbmRate => self.devices(|s, d| {
                gathered(
                    &s.window.devices[d].memory_rate,
                    "no copy or triad ran in this phase",
                )
            }),
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
            Metric::SdcUcl => self.counts(Scope::Gpu, |s, d| {
                3.0 / s.standing.devices()[d].audited_flop
            }),
            Metric::SelfTest => self.devices(|s, d| match s.standing.devices()[d].self_test {
                Some(passed) => Evidence::Exact {
                    value: f64::from(u8::from(passed)),
                    samples: 1,
                },
                None => Evidence::Missing("no self-test was recorded".to_owned()),
            }),
            Metric::Inventory => self.faults(|k| k == FaultKind::Missing),
            Metric::Failures => self.faults(|k| {
                !matches!(
                    k,
                    FaultKind::Missing | FaultKind::Sensor | FaultKind::Journal
                )
            }),
            Metric::TelemetryCoverage => self.every_series(|s, w| {
                let expected = (s.length() as f64 / w.period_ns as f64).max(1.0);
                // Dither can fit a sample more into the window than the mean period says.
                (100.0 * w.valid as f64 / expected).min(100.0)
            }),
            Metric::TelemetryGap => self.every_series(|s, w| {
                w.window.map_or(s.length(), |x| {
                    x.longest_gap_to(s.window.start_ns, s.end_ns)
                }) as f64
                    / 1e9
            }),
            Metric::ClockOffset => vec![self.clock()],
            _ => self.series(metric, criterion.statistic),
        }
    }

    fn length(&self) -> u64 {
        self.end_ns.saturating_sub(self.window.start_ns)
    }

    /// One sight for each device that the phase loads.
    fn devices(&self, evidence: impl Fn(&Self, usize) -> Evidence<'a>) -> Vec<Sight<'a>> {
        let plan = &self.standing.opened().plan;
        let sight = |(index, device): (usize, &crate::plan::PlannedDevice)| Sight {
            place: device.id.clone(),
            device: Some(index as u32),
            evidence: evidence(self, index),
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
            return self.counts(scope, value);
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
        if criterion.scope == Scope::Gpu {
            return self.devices(|s, d| {
                by(
                    s.block_rates(d),
                    super::limits::sku_reference(s.standing, d, Metric::MatmulRate),
                )
            });
        }
        let references = (0..self.window.devices.len())
            .map(|d| super::limits::sku_reference(self.standing, d, Metric::MatmulRate))
            .sum::<Option<f64>>();
        vec![Sight {
            place: "site".to_owned(),
            device: None,
            evidence: by(self.site_rates(), references),
        }]
    }

    fn whole(&self, judge: impl Fn(Vec<f64>) -> Evidence<'a>) -> Vec<Sight<'a>> {
        vec![Sight {
            place: "site".to_owned(),
            device: None,
            evidence: self.site_rates().map_or_else(Evidence::Missing, judge),
        }]
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

    fn idle(&self, device: usize) -> Evidence<'a> {
        let segment = self
            .standing
            .opened()
            .plan
            .schedule
            .get(self.window.segment as usize);
        let w = &self.window.devices[device];
        match w.span_ns() {
            _ if segment.is_some_and(|s| s.pulse.is_some()) => {
                Evidence::Missing("a pulse is an open loop: its gaps are the plan's".to_owned())
            }
            0 => Evidence::Missing("fewer than two steps were completed in this phase".to_owned()),
            span => Evidence::Exact {
                value: w.idle_ns as f64 / span as f64,
                samples: w.steps,
            },
        }
    }

    fn duty(&self, device: usize) -> Evidence<'a> {
        let plan = &self.standing.opened().plan;
        let Some(segment) = plan.schedule.get(self.window.segment as usize) else {
            return Evidence::Missing("the phase is not in the plan".to_owned());
        };
        let w = &self.window.devices[device];
        let busy = w.span_ns().saturating_sub(w.idle_ns) as f64;
        Evidence::Exact {
            value: (busy / segment.duration_ns.max(1) as f64).min(1.0),
            samples: w.steps,
        }
    }

    fn coupled(&self, evidence: impl Fn(&'a Window) -> Evidence<'a>) -> Evidence<'a> {
        if self.window.coupled() {
            return evidence(self.window);
        }
        Evidence::Missing("no ranks work together in this phase".to_owned())
    }

    /// Step time of the ranks together; a device alone is a group of one.
    fn step_time(&self) -> Vec<Sight<'a>> {
        let none = "no step was completed in this phase";
        if self.window.coupled() {
            return group(gathered(&self.window.group.step_time, none));
        }
        self.devices(|s, d| gathered(&s.window.devices[d].step_time, none))
    }

    /// The operations of the largest payload: the plateau.
    fn largest(&self) -> Result<(u64, &'a crate::stats::distribution::Distribution), String> {
        let last = self.window.group.ops.iter().next_back();
        let found = last.and_then(|(bytes, times)| Some((*bytes, times.get()?)));
        found.ok_or_else(|| "nothing was all-reduced in this phase".to_owned())
    }

    fn operations(&self) -> Evidence<'a> {
        self.largest().map_or_else(Evidence::Missing, |(_, times)| {
            Evidence::Distribution(times)
        })
    }

    fn all_reduce(&self, amount: impl Fn(f64, f64) -> f64) -> Evidence<'a> {
        let ranks = self.standing.members_at(self.end_ns).len() as f64;
        match self.largest() {
            Ok((bytes, times)) if ranks > 1.0 => Evidence::Rate {
                amount: amount(bytes as f64, ranks),
                times,
            },
            Ok(_) => Evidence::Missing("one rank moves nothing over a link".to_owned()),
            Err(why) => Evidence::Missing(why),
        }
    }

    /// The share of an overlapped step by which it is longer than a step of computing alone.
    fn exposed(&self) -> Evidence<'a> {
        let phases = &self.standing.profile().load.phases;
        let alone = phases.iter().position(|p| p.mode == Mode::ComputeOnly);
        let Some(alone) = alone.and_then(|p| self.standing.phase_window(p)) else {
            return Evidence::Missing(
                "the profile has no compute-only phase to compare with".to_owned(),
            );
        };
        let Some(both) = self.window.group.step_time.get() else {
            return Evidence::Missing("no overlapped step was completed".to_owned());
        };
        let slowest = alone
            .devices
            .iter()
            .filter_map(|d| d.step_time.get())
            .max_by(|a, b| {
                a.quantile(0.5)
                    .unwrap_or(0.0)
                    .total_cmp(&b.quantile(0.5).unwrap_or(0.0))
            });
        let Some(slowest) = slowest else {
            return Evidence::Missing("no compute-only step was completed".to_owned());
        };
        Evidence::Interval {
            samples: both.count().min(slowest.count()),
            at: Box::new(move |confidence| {
                let (b, c) = (
                    both.sides(0.5, confidence)?,
                    slowest.sides(0.5, confidence)?,
                );
                let share = |both: f64, alone: f64| (both - alone) / both;
                Some(Interval {
                    low: share(b.low?, c.high?),
                    value: share(b.value, c.value),
                    high: share(b.high?, c.low?),
                })
            }),
        }
    }

    fn clock(&self) -> Sight<'a> {
        let opened = self.standing.opened();
        let closed = self.standing.closed().map(|c| &c.clock);
        let states = [Some(&opened.clock), closed];
        let errors: Option<Vec<f64>> = states
            .into_iter()
            .flatten()
            .map(|c| c.max_error_s.filter(|_| c.synchronised == Some(true)))
            .collect();
        match errors.and_then(|e| e.into_iter().reduce(f64::max)) {
            Some(value) => Sight {
                place: opened.host.name.clone(),
                device: None,
                evidence: Evidence::Exact { value, samples: 2 },
            },
            None => missing(
                opened.host.name.clone(),
                "no time daemon disciplines this node's clock",
            ),
        }
    }

    fn every_series(&self, value: impl Fn(&Self, &Watched<'a>) -> f64) -> Vec<Sight<'a>> {
        let mut sights = Vec::new();
        for run in self.standing.tables() {
            for (column, series) in run.table.series.iter().enumerate() {
                let window = self.window.series(run.table.id, column as u32);
                let watched = Watched {
                    window,
                    valid: window.map_or(0, |w| w.valid),
                    period_ns: run.table.period_ns.max(1),
                };
                sights.push(Sight {
                    place: format!("{} {}", run.table.name, named(series)),
                    device: run.table.device,
                    evidence: Evidence::Exact {
                        value: value(self, &watched),
                        samples: watched.valid,
                    },
                });
            }
        }
        if sights.is_empty() {
            sights.push(missing("site", "no sensor gave a series"));
        }
        sights
    }

    /// Sensor series of a metric.
    fn series(&self, metric: Metric, statistic: Statistic) -> Vec<Sight<'a>> {
        let mut sights = Vec::new();
        for run in self.standing.tables() {
            for (column, series) in run
                .table
                .series
                .iter()
                .enumerate()
                .filter(|(_, s)| s.metric == metric)
            {
                let window = self.window.series(run.table.id, column as u32);
                sights.push(Sight {
                    place: format!("{} {}", run.table.place, named(series)),
                    device: run.table.device,
                    evidence: window.map_or_else(
                        || Evidence::Missing(format!("{metric} has no sample in this phase")),
                        |w| of_series(w, series.kind, series.unit, statistic, metric),
                    ),
                });
            }
        }
        if sights.is_empty() {
            sights.push(missing("site", format!("no sensor gave {metric}")));
        }
        sights
    }
}

/// A series as coverage sees it.
struct Watched<'a> {
    window: Option<&'a SeriesWindow>,
    valid: u64,
    period_ns: u64,
}

fn named(series: &crate::frame::Series) -> String {
    if series.label.is_empty() {
        return series.metric.to_string();
    }
    format!("{} {}", series.metric, series.label)
}

fn gathered<'a>(g: &'a crate::standing::window::Gathered, why: &str) -> Evidence<'a> {
    g.get()
        .map_or_else(|| Evidence::Missing(why.to_owned()), Evidence::Distribution)
}

fn of_series<'a>(
    w: &'a SeriesWindow,
    kind: SeriesKind,
    unit: Unit,
    statistic: Statistic,
    metric: Metric,
) -> Evidence<'a> {
    match kind {
        _ if w.valid == 0 => {
            Evidence::Missing(format!("{metric} has no valid sample in this phase"))
        }
        SeriesKind::Counter => Evidence::Exact {
            value: w.growth,
            samples: w.valid,
        },
        SeriesKind::Mask => {
            Evidence::Missing(format!("{metric} is a mask; judge the time of its reasons"))
        }
        // The total of a share of time is its mean over the window.
        SeriesKind::Gauge if statistic == Statistic::Total && unit == Unit::One => {
            match w.values.get().and_then(|d| d.mean()) {
                Some(value) => Evidence::Exact {
                    value,
                    samples: w.valid,
                },
                None => Evidence::Missing(format!("{metric} has no valid sample in this phase")),
            }
        }
        SeriesKind::Gauge => gathered(&w.values, "no valid sample in this phase"),
    }
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
