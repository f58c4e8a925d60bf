//! Clocks: the run's own against true time, and every other node's against the run's.
//!
//! A node whose clock nobody compared shows nothing, whatever the run's own clock is worth: what it tells may stand at
//! the wrong instant, beside what it did not cause.

use super::super::evidence::Evidence;
use super::{Scene, Sight, missing};
use hallmark_profiles::metric::Metric;
use std::collections::BTreeSet;

impl<'a> Scene<'a> {
    /// The run's clock, then that of each node beside it.
    pub(super) fn clocks(&self) -> Vec<Sight<'a>> {
        let opened = self.standing.opened();
        let nodes = opened.plan.devices.iter().map(|d| d.node.as_str());
        let nodes: BTreeSet<&str> = nodes.filter(|n| *n != opened.host.name).collect();
        let others = nodes.into_iter().map(|node| self.compared(node));
        std::iter::once(self.clock()).chain(others).collect()
    }

    /// How far a node's clock was off the run's at most.
    fn compared(&self, node: &'a str) -> Sight<'a> {
        let all = self.channels(|s| s.metric == Metric::ClockOffset);
        let own = all.into_iter().find(|c| c.run.table.place == node);
        let Some(channel) = own else {
            return missing(node, "its clock was not compared with the run's");
        };
        let window = channel.whole();
        let evidence = match window.extremes {
            Some((least, most)) => Evidence::Exact {
                value: least.abs().max(most.abs()),
                samples: window.valid,
            },
            None => Evidence::Missing("its clock was compared without a result".to_owned()),
        };
        Sight {
            thin: self.thin(&channel, true),
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
