//! How long before its begin an order is given, so that a whole hall begins together.

use hallmark_results::plan::Plan;

/// Time in which an order reaches a node, and what each device adds, for they are told one after the other; far more
/// than a LAN needs, little beside the shortest phase.
const LEAD_NS: u64 = 50_000_000;
const EACH_NS: u64 = 150_000;

/// An order is an instant away on one machine; between nodes it travels, and all of them begin at its time.
pub fn lead_ns(plan: &Plan) -> u64 {
    let mut nodes = plan.devices.iter().map(|d| &d.node);
    let first = nodes.next();
    if nodes.all(|n| Some(n) == first) {
        0
    } else {
        LEAD_NS + EACH_NS * plan.devices.len() as u64
    }
}
