//! The ranks together: their steps, their all-reduces, and what these cost beside computing.
//!
//! A rank's own figure is never the group's: the slowest decides.

use super::super::evidence::Evidence;
use super::{Scene, Sight, gathered, group};
use crate::standing::window::{Gathered, Window};
use crate::stats::interval::Interval;
use hallmark_profiles::profile::Mode;

/// Matmuls of nodes by themselves take at most this many times as long as beside the hall's all-reduces.
const SLOWED: f64 = 1.03;

impl<'a> Scene<'a> {
    pub(super) fn coupled(&self, evidence: impl Fn(&'a Window) -> Evidence<'a>) -> Evidence<'a> {
        if self.window.coupled() {
            return evidence(self.window);
        }
        Evidence::Missing("no ranks work together in this phase".to_owned())
    }

    /// Step time of the ranks together; a device alone is a group of one.
    pub(super) fn step_time(&self) -> Vec<Sight<'a>> {
        let none = "no step was completed in this phase";
        if self.window.coupled() {
            return group(gathered(&self.window.group.step_time, none));
        }
        self.devices(|s, d| gathered(&s.window.devices[d].step_time, none))
    }

    /// The operations of the largest payload: the plateau.
    fn largest(&self) -> Result<(u64, &'a Gathered), String> {
        let last = self.window.group.ops.iter().next_back();
        last.map(|(bytes, times)| (*bytes, times))
            .ok_or_else(|| "nothing was all-reduced in this phase".to_owned())
    }

    /// Why a sweep's figures stand for less than it did: those of whom not every rank told are in none of them, and they
    /// need not be like the others.
    fn untold(&self) -> Option<String> {
        let untold = self.window.group.sweep.untold(self.window.end_ns.is_some());
        let why = format!("{untold} operations of the sweep were not told by every rank alike");
        (untold > 0).then_some(why)
    }

    pub(super) fn operations(&self) -> Evidence<'a> {
        let none = "nothing was all-reduced in this phase";
        if let Some(why) = self.untold() {
            return Evidence::Missing(why);
        }
        if let Some((_, trials)) = self.window.group.sweep.largest() {
            // A sweep knows when each was due.
            return gathered(&trials.latency, none);
        }
        self.largest()
            .map_or_else(Evidence::Missing, |(_, times)| gathered(times, none))
    }

    pub(super) fn all_reduce(&self, amount: impl Fn(f64, f64) -> f64) -> Evidence<'a> {
        let ranks = self.standing.members_at(self.end_ns).len() as f64;
        if let Some(why) = self.untold() {
            return Evidence::Missing(why);
        }
        match self.largest() {
            Ok((bytes, times)) if ranks > 1.0 => match times.get() {
                Some(of) => Evidence::Rate {
                    amount: amount(bytes as f64, ranks),
                    times: of,
                    dependence: times.dependence(),
                },
                None => Evidence::Missing("nothing was all-reduced in this phase".to_owned()),
            },
            Ok(_) => Evidence::Missing("one rank moves nothing over a link".to_owned()),
            Err(why) => Evidence::Missing(why),
        }
    }

    /// The share of an overlapped step by which it is longer than a step of computing alone.
    pub(super) fn exposed(&self) -> Evidence<'a> {
        let phases = &self.standing.profile().load.phases;
        let alone = phases.iter().position(|p| p.mode == Mode::ComputeOnly);
        let Some(alone) = alone.and_then(|p| self.standing.phase_window(p)) else {
            return Evidence::Missing(
                "the profile has no compute-only phase to compare with".to_owned(),
            );
        };
        let overlapped = &self.window.group.step_time;
        let Some(both) = overlapped.get() else {
            return Evidence::Missing("no overlapped step was completed".to_owned());
        };
        let both_worth = overlapped.dependence().independent_at(0.5);
        let median = |g: &&Gathered| g.get().and_then(|d| d.quantile(0.5)).unwrap_or(0.0);
        let times = alone.devices.iter().map(|d| &d.step_time);
        let slowest = times.max_by(|a, b| median(a).total_cmp(&median(b)));
        let slowest = slowest.and_then(|g| Some((g.get()?, g.dependence().independent_at(0.5))));
        let Some((slowest, slowest_worth)) = slowest else {
            return Evidence::Missing("no compute-only step was completed".to_owned());
        };
        Evidence::Interval {
            samples: both.count().min(slowest.count()),
            at: Box::new(move |confidence| {
                let (b, c) = (
                    both.sides_worth(0.5, confidence, both_worth)?,
                    slowest.sides_worth(0.5, confidence, slowest_worth)?,
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

    /// The phase in which each node is by itself.
    fn by_node(&self) -> Option<&'a Window> {
        let alone = self.standing.profile().load.by_node()?;
        self.standing.phase_window(alone)
    }

    /// Why what the nodes reached by themselves is no measure of them: with less to wait for, devices that compute slower
    /// were held back, and a hall is not the better for it. A device that was fast makes up for none that was slow.
    pub(super) fn slowed(&self) -> Option<String> {
        let alone = self.by_node()?;
        let middle = |w: &Window, d: usize| w.devices.get(d)?.compute_time.get()?.quantile(0.5);
        let members = self.standing.members_at(self.end_ns);
        let ratios = members.iter().map(|m| {
            let device = *m as usize;
            let ratio = middle(alone, device)? / middle(self.window, device)?;
            Some(ratio.max(1.0)).filter(|_| ratio > 0.0)
        });
        let Some(ratios) = ratios.collect::<Option<Vec<f64>>>() else {
            return Some("of some rank it is not known how long its matmuls took".to_owned());
        };
        let mean = ratios.iter().sum::<f64>() / ratios.len().max(1) as f64;
        (mean > SLOWED).then(|| {
            format!(
                "with each node by itself matmuls took {:.1} % longer than with all together, so that nothing can be held \
                 against their pace",
                100.0 * (mean - 1.0)
            )
        })
    }

    /// Steps of all ranks together over what the nodes come to each by itself.
    ///
    /// Ranks of a node end their steps together, so that the paces of a node's devices are its own, and all devices' paces
    /// added up are those of the nodes, weighted by their devices.
    pub(super) fn scaling(&self) -> Evidence<'a> {
        let missing = Evidence::Missing;
        let plan = &self.standing.opened().plan;
        let by_links = ["nccl", "simulated"];
        let by_links = by_links.iter().any(|t| plan.transport.starts_with(t));
        if !by_links && plan.devices.iter().any(|d| !d.software) {
            return missing(format!(
                "gradients moved by way of {}, which says nothing of how far the hall's own links carry",
                plan.transport
            ));
        }
        let Some(alone) = self.by_node() else {
            return missing("no phase in which each node is by itself has been".to_owned());
        };
        let together = &self.window.group.step_time;
        let Some(all) = together.get() else {
            return missing("no step of all ranks was completed".to_owned());
        };
        let all_worth = together.dependence().independent_at(0.5);
        let members = self.standing.members_at(self.end_ns);
        let paces = members.iter().map(|m| {
            let of = &alone.devices.get(*m as usize)?.step_time;
            Some((of.get()?, of.dependence().independent_at(0.5)))
        });
        let Some(paces) = paces.collect::<Option<Vec<_>>>() else {
            return missing("some rank completed no step by its node alone".to_owned());
        };
        let counts = paces.iter().map(|(times, _)| times.count());
        let ranks = paces.len() as f64;
        Evidence::Interval {
            samples: counts.min().unwrap_or(0).min(all.count()),
            at: Box::new(move |confidence| {
                let all = all.sides_worth(0.5, confidence, all_worth)?;
                let (mut fast, mut pace, mut slow) = (0.0, 0.0, 0.0);
                for (times, worth) in &paces {
                    let own = times.sides_worth(0.5, confidence, *worth)?;
                    fast += 1.0 / own.low?;
                    pace += 1.0 / own.value;
                    slow += 1.0 / own.high?;
                }
                let share = |all_s: f64, pace: f64| ranks / all_s / pace;
                Some(Interval {
                    low: share(all.high?, fast),
                    value: share(all.value, pace),
                    high: share(all.low?, slow),
                })
            }),
        }
    }
}
