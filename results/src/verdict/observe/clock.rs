//! Clocks: the run's own against true time, and every other node's against the run's.
//!
//! A node whose clock nobody compared shows nothing, whatever the run's own clock is worth: what it tells may stand at
//! the wrong instant, beside what it did not cause.

use super::super::evidence::Evidence;
use super::sensors::Channel;
use super::{Scene, Sight, missing};
use hallmark_profiles::metric::Metric;
use std::collections::{BTreeMap, BTreeSet};

impl<'a> Scene<'a> {
    /// The run's clock, then that of each node beside it.
    pub(super) fn clocks(&self) -> Vec<Sight<'a>> {
        let opened = self.standing.opened();
        let nodes = opened.plan.devices.iter().map(|d| d.node.as_str());
        let nodes: BTreeSet<&str> = nodes.filter(|n| *n != opened.host.name).collect();
        let mut told: BTreeMap<&str, Vec<Channel>> = BTreeMap::new();
        for channel in self.channels(|s| s.metric == Metric::ClockOffset) {
            let place = channel.run.table.place.as_str();
            told.entry(place).or_default().push(channel);
        }
        let others = nodes.into_iter().map(|node| {
            let own = told.get(node).map_or(&[][..], Vec::as_slice);
            self.compared(node, own)
        });
        std::iter::once(self.clock()).chain(others).collect()
    }

    /// How far a node's clock was off the run's at most, by whoever compared it: a node that says the same of itself
    /// takes nothing back.
    fn compared(&self, node: &'a str, own: &[Channel<'a>]) -> Sight<'a> {
        if own.is_empty() {
            return missing(node, "its clock was not compared with the run's");
        }
        let most = own.iter().map(|c| c.whole().extremes);
        let most: Option<Vec<f64>> = most.map(|e| e.map(|(l, m)| l.abs().max(m.abs()))).collect();
        let samples = own.iter().map(|c| c.whole().valid).min();
        let evidence = match most.zip(samples) {
            Some((most, samples)) => Evidence::Exact {
                value: most.into_iter().fold(0.0, f64::max),
                samples,
            },
            None => Evidence::Missing("its clock was compared without a result".to_owned()),
        };
        Sight {
            thin: own.iter().find_map(|c| self.thin(c, true)),
            ..Sight::new(node, None, evidence)
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
            Some(value) => {
                let evidence = Evidence::Exact { value, samples: 2 };
                Sight::new(opened.host.name.clone(), None, evidence)
            }
            None => missing(
                opened.host.name.clone(),
                "no time daemon disciplines this node's clock",
            ),
        }
    }
}
