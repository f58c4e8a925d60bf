//! How long before its begin an order is given, so that a whole hall begins together.

use hallmark_results::plan::Plan;
use std::collections::BTreeSet;

/// Time in which an order reaches a node, and what each node and each device adds, for they are told one after the other;
/// far more than a LAN needs, little beside the shortest phase.
const LEAD_NS: u64 = 50_000_000;
const EACH_NODE_NS: u64 = 250_000;
const EACH_NS: u64 = 120_000;

/// An order is an instant away on one machine; between nodes it travels, and all of them begin at its time.
pub fn lead_ns(plan: &Plan) -> u64 {
    let nodes: BTreeSet<&str> = plan.devices.iter().map(|d| d.node.as_str()).collect();
    match nodes.len() as u64 {
        0 | 1 => 0,
        nodes => LEAD_NS + EACH_NODE_NS * nodes + EACH_NS * plan.devices.len() as u64,
    }
}
