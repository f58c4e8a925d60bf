//! Where simulated ranks wait for each other: one meeting for each step of those that sum together.
//!
//! It knows who has come and who has not. It decides nothing about what a rank does that waits too long.

use hallmark_profiles::workload::Parts;
use hallmark_results::plan::Plan;
use std::collections::BTreeMap;

/// Who sums together: all members, or those of one node by its place among the nodes.
type Party = Option<usize>;

/// The ranks that have come to a step's all-reduce.
#[derive(Default)]
struct Meeting {
    came: Vec<u32>,
    last_ns: u64,
    retired: usize,
}

/// All meetings of the group as it stands.
pub struct Meetings {
    open: BTreeMap<(Party, u64), Meeting>,
    members: Vec<u32>,
    /// Of each device its node, and of each node its members.
    nodes: Vec<usize>,
    own: Vec<usize>,
}

impl Meetings {
    pub fn new(plan: &Plan) -> Self {
        Self {
            open: BTreeMap::new(),
            members: Vec::new(),
            nodes: nodes(plan),
            own: Vec::new(),
        }
    }

    /// A group of these members, none of whom has come to anything.
    pub fn form(&mut self, members: Vec<u32>) {
        if self.members != members {
            self.own = vec![0; self.nodes.len()];
            let of_members = members.iter().filter_map(|m| self.nodes.get(*m as usize));
            of_members.for_each(|node| self.own[*node] += 1);
            self.members = members;
        }
        self.open.clear();
    }

    /// A device comes to a step's all-reduce with its own work done at `at_ns`; gives all who have, once nobody is missing.
    pub fn come(&mut self, device: u32, parts: Parts, seq: u64, at_ns: u64) -> Option<Vec<u32>> {
        let party = self.party(device, parts);
        let all = self.size(party);
        let meeting = self.open.entry((party, seq)).or_default();
        meeting.came.push(device);
        meeting.last_ns = meeting.last_ns.max(at_ns);
        (meeting.came.len() >= all).then(|| meeting.came.clone())
    }

    /// Whether all have come, and when the slowest so far had done its own work; `None` where none has.
    pub fn met(&self, device: u32, parts: Parts, seq: u64) -> Option<(bool, u64)> {
        let party = self.party(device, parts);
        let meeting = self.open.get(&(party, seq))?;
        Some((meeting.came.len() >= self.size(party), meeting.last_ns))
    }

    /// A device is done with a step; one that all are done with is no longer asked for.
    pub fn leave(&mut self, device: u32, parts: Parts, seq: u64) {
        let party = self.party(device, parts);
        let all = self.size(party);
        if let Some(meeting) = self.open.get_mut(&(party, seq)) {
            meeting.retired += 1;
            if meeting.retired >= meeting.came.len() && meeting.retired >= all {
                self.open.remove(&(party, seq));
            }
        }
    }

    /// Ranks that some unfinished step still waits for.
    pub fn absent(&self) -> Vec<u32> {
        let waits = |((party, _), m): &(&(Party, u64), &Meeting)| m.came.len() < self.size(*party);
        let Some(((party, _), open)) = self.open.iter().find(waits) else {
            return Vec::new();
        };
        let of = |m: &&u32| party.is_none_or(|node| self.nodes[**m as usize] == node);
        let members = self.members.iter().filter(of);
        members
            .filter(|m| !open.came.contains(m))
            .copied()
            .collect()
    }

    fn party(&self, device: u32, parts: Parts) -> Party {
        parts.within_node.then(|| self.nodes[device as usize])
    }

    fn size(&self, party: Party) -> usize {
        party.map_or(self.members.len(), |node| self.own[node])
    }
}

/// The node of each device, by its place among the nodes.
pub fn nodes(plan: &Plan) -> Vec<usize> {
    let mut known = BTreeMap::new();
    let nodes = plan.devices.iter().map(|d| {
        let next = known.len();
        *known.entry(&*d.node).or_insert(next)
    });
    nodes.collect()
}
