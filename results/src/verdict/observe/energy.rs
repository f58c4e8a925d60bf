//! Energy beside work: joules from a counter where there is one, else power over time.
//!
//! The outermost level of meters that watches every device decides, and it is named: the hall's own before the
//! feeders', the racks' and the nodes', and those before the devices' sensors. Refuses to add up meters of which one
//! feeds the other, and to take what a node's processors draw for what the node draws.

use super::super::evidence::Evidence;
use super::sensors::channels_in;
use super::{Scene, Sight, missing};
use crate::diagnosis::place::Groups;
use crate::diagnosis::{Level, Place};
use crate::frame::Series;
use crate::standing::TableRun;
use hallmark_profiles::criterion::Scope;
use hallmark_profiles::metric::Metric;
use std::collections::BTreeSet;

/// Levels that have meters of power, the outermost first.
const LEVELS: [Level; 5] = [
    Level::Hall,
    Level::Feeder,
    Level::Rack,
    Level::Tray,
    Level::Node,
];

/// Energy of one window, which meter it is from, and why it is too thin to pass, if it is.
struct Metered {
    joules: f64,
    meter: String,
    samples: u64,
    thin: Option<String>,
}

impl<'a> Scene<'a> {
    /// FLOP of completed matmuls over energy, at each device or at the site.
    pub(super) fn flop_per_joule(&self, scope: Scope) -> Vec<Sight<'a>> {
        let plan = &self.standing.opened().plan;
        let flop = |device: usize| self.window.devices[device].flop;
        if scope == Scope::Gpu {
            let one = |(index, device): (usize, &crate::plan::PlannedDevice)| {
                let own = self.energy(self.standing.tables_of(index as u32), |_| true);
                ratio(&device.id, Some(index as u32), flop(index), own)
            };
            return plan.devices.iter().enumerate().map(one).collect();
        }
        let mut metered = self.outermost();
        if metered.is_none() && plan.devices.iter().all(|d| d.software) {
            // Of processors, what they draw is what there is to be known.
            let nodes: BTreeSet<&str> = plan.devices.iter().map(|d| d.node.as_str()).collect();
            let each = nodes.iter().map(|n| self.energy(self.at(n), |_| true));
            metered = each.collect::<Option<Vec<_>>>().and_then(together);
        } else if metered.is_none() {
            let each = 0..plan.devices.len() as u32;
            let each = each.map(|d| self.energy(self.standing.tables_of(d), |_| true));
            metered = each.collect::<Option<Vec<_>>>().and_then(together);
        }
        let total = (0..plan.devices.len()).map(flop).sum();
        vec![ratio("site", None, total, metered)]
    }

    /// Energy of the outermost level whose meters watch every device. A meter at a place that the plan does not know
    /// is taken at its word.
    fn outermost(&self) -> Option<Metered> {
        let plan = &self.standing.opened().plan;
        let host = &self.standing.opened().host.name;
        let groups = Groups::of(&plan.devices);
        let whole = |s: &Series| !s.is_of_a_part();
        let metered =
            |s: &Series| matches!(s.metric, Metric::Energy | Metric::PowerDraw) && whole(s);
        let tables = self.channels(metered).into_iter().map(|c| &c.run.table);
        let outside = tables.filter(|t| t.device.is_none() && t.place != *host);
        let names: BTreeSet<&str> = outside.map(|t| t.place.as_str()).collect();
        LEVELS.into_iter().find_map(|level| {
            let here = names.iter().map(|name| (*name, groups.of_meter(name)));
            let here: Vec<(&str, Place)> = here.filter(|(_, p)| p.level == level).collect();
            let unknown = here.iter().any(|(_, p)| p.devices.is_empty());
            let seen: BTreeSet<u32> = here.iter().flat_map(|(_, p)| p.devices.clone()).collect();
            let all = unknown || seen.len() == plan.devices.len();
            let each = here.iter().filter(|_| all);
            let each = each.map(|(name, _)| self.energy(self.at(name), whole));
            each.collect::<Option<Vec<_>>>().and_then(together)
        })
    }

    /// Meters at a place, which are no device's.
    fn at<'p>(&self, place: &'p str) -> impl Iterator<Item = &'a TableRun> + use<'a, 'p> {
        let runs = self.standing.tables().iter();
        runs.filter(move |r| r.table.device.is_none() && r.table.place == place)
    }

    /// Energy of some sensors, of the series that are wanted.
    fn energy(
        &self,
        of: impl Iterator<Item = &'a TableRun>,
        wanted: impl Fn(&Series) -> bool,
    ) -> Option<Metered> {
        let runs: Vec<&TableRun> = of.collect();
        let of = |metric: Metric| {
            let own = channels_in(runs.iter().copied(), |s| s.metric == metric && wanted(s));
            // A zone within another (`package-0/core`) is part of it.
            let outer = own.iter().filter(|c| !c.series().label.contains('/'));
            outer.copied().collect::<Vec<_>>()
        };
        let seconds = self.length() as f64 / 1e9;
        let counters = of(Metric::Energy);
        let by_counter = !counters.is_empty();
        let channels = if by_counter {
            counters
        } else {
            of(Metric::PowerDraw)
        };
        let each = channels.iter().map(|c| {
            let window = self.window_of(c, false).filter(|w| w.valid > 1)?;
            let joules = if by_counter {
                window.growth
            } else {
                window.mean_over_time()? * seconds
            };
            let source = &c.run.table.source;
            let how = if by_counter {
                "counter"
            } else {
                "power over time"
            };
            Some(Metered {
                joules,
                meter: format!("{source}, {how}"),
                samples: window.valid,
                thin: self.thin(c, false),
            })
        });
        each.collect::<Option<Vec<_>>>().and_then(together)
    }
}

fn together(all: Vec<Metered>) -> Option<Metered> {
    all.into_iter().reduce(|a, b| Metered {
        joules: a.joules + b.joules,
        meter: a.meter,
        samples: a.samples.min(b.samples),
        thin: a.thin.or(b.thin),
    })
}

fn ratio<'a>(place: &str, device: Option<u32>, flop: f64, metered: Option<Metered>) -> Sight<'a> {
    let Some(metered) = metered else {
        let none = missing(place, "no meter gave its energy or power in this phase");
        return Sight { device, ..none };
    };
    let Metered {
        joules,
        meter,
        samples,
        thin,
    } = metered;
    let evidence = if joules > 0.0 {
        let value = flop / joules;
        Evidence::Exact { value, samples }
    } else {
        Evidence::Missing(format!("{meter} counted no energy in this phase"))
    };
    let place = format!("{place} ({meter})");
    Sight {
        thin,
        ..Sight::new(place, device, evidence)
    }
}
