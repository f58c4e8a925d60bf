//! How the bridges of a hall's nodes find each other, seen from the controller: who takes part in a formation, what each
//! has put up, and what came of it.
//!
//! It decides when all have shown their cards. It refuses what belongs to another formation, or comes twice.

use crate::bridge::Tried;
use crate::protocol::codec::MESSAGE_MAX;
use crate::protocol::link::{Cards, Claim, Span, Task, World};
use hallmark_kernels::collective::exact::EXACT_RANKS_MAX;
use hallmark_kernels::collective::host::RANKS_MAX;
use hallmark_kernels::collective::pairs::{Pair, ROUNDS_MAX};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// What a card takes beside its words, B.
const CARD: usize = 16;

/// The current formation.
#[derive(Default)]
pub struct Crossing {
    generation: Option<u32>,
    /// It has no members: nodes try each other.
    is_trial: bool,
    /// Nodes that take part, by their numbers in the site.
    nodes: Vec<usize>,
    round: u32,
    shown: BTreeMap<usize, Cards>,
    outcomes: BTreeMap<usize, Result<Tried, String>>,
    /// Nodes of which it is told that they lost it.
    lost: BTreeSet<usize>,
}

impl Crossing {
    /// Begins a formation of these members, and gives what each node has to do; nothing where it was begun already.
    ///
    /// `devices`: by node, the numbers of its devices. `members`: of the group; none in a trial of all nodes.
    pub fn begin(
        &mut self,
        generation: u32,
        devices: &[Range<u32>],
        members: &[u32],
    ) -> Vec<(usize, Task)> {
        if self.generation.is_some_and(|g| g >= generation) {
            return Vec::new();
        }
        let own = |range: &Range<u32>| -> Vec<u32> {
            members
                .iter()
                .copied()
                .filter(|m| range.contains(m))
                .collect()
        };
        let is_trial = members.is_empty();
        let takes_part = |range: &Range<u32>| match is_trial {
            true => !range.is_empty(),
            false => !own(range).is_empty(),
        };
        let nodes = devices.iter().enumerate().filter(|(_, d)| takes_part(d));
        *self = Self {
            generation: Some(generation),
            is_trial,
            nodes: nodes.map(|(node, _)| node).collect(),
            ..Self::default()
        };
        let count = self.nodes.len() as u32;
        let tasks = self.nodes.iter().enumerate().map(|(place, node)| {
            let span = Span {
                generation,
                node: place as u32,
                nodes: count,
                members: own(&devices[*node]),
            };
            (*node, Task::Bridge(span))
        });
        tasks.collect()
    }

    /// A node's bridge shows its cards.
    ///
    /// # Errors
    /// They are more than each of so many nodes may show: what all show goes to each as one message.
    pub fn show(
        &mut self,
        node: usize,
        generation: u32,
        round: u32,
        cards: Cards,
    ) -> Result<(), String> {
        let current = self.generation == Some(generation) && self.round == round;
        if !current || !self.nodes.contains(&node) {
            return Ok(());
        }
        let bytes: usize = cards.iter().map(|(k, v)| k.len() + v.len() + CARD).sum();
        let most = MESSAGE_MAX / 2 / self.nodes.len().max(1);
        if bytes > most {
            return Err(format!(
                "its bridge shows the others {bytes} B, and {most} B are for each"
            ));
        }
        self.shown.entry(node).or_insert(cards);
        Ok(())
    }

    /// What is to be told to whom, once all bridges have shown their cards of this round.
    pub fn complete(&mut self) -> Option<(Vec<usize>, Task)> {
        let generation = self.generation?;
        if self.shown.len() < self.nodes.len() {
            return None;
        }
        let cards = std::mem::take(&mut self.shown).into_values().flatten();
        let task = Task::Cards {
            generation,
            round: self.round,
            cards: cards.collect(),
        };
        self.round += 1;
        Some((self.nodes.clone(), task))
    }

    /// A bridge is open, or has ended; gives why, where a group that was to work has lost it.
    pub fn ended(
        &mut self,
        node: usize,
        generation: u32,
        outcome: Result<Tried, String>,
    ) -> Option<String> {
        if self.generation != Some(generation) || !self.nodes.contains(&node) {
            return None;
        }
        let outcome = outcome.and_then(|tried| {
            let has_rate = tried.bytes_per_s.is_finite() && tried.bytes_per_s > 0.0;
            match has_rate || !self.is_trial {
                true => Ok(tried),
                false => Err("its bridge told no rate of the trial".to_owned()),
            }
        });
        let why = outcome.as_ref().err().cloned();
        self.outcomes.insert(node, outcome);
        // Once, whatever its bridge says after that.
        why.filter(|_| !self.is_trial && self.lost.insert(node))
    }

    /// What came of the trial: B/s of the slowest node once all have told, or why one failed, with its number in the site.
    pub fn outcome(&self) -> Option<Result<f64, (usize, String)>> {
        let failed = self
            .outcomes
            .iter()
            .find_map(|(n, o)| Some((*n, o.as_ref().err()?.clone())));
        if let Some(failed) = failed {
            return Some(Err(failed));
        }
        if self.outcomes.len() < self.nodes.len() {
            return None;
        }
        let rates = self.outcomes.values().flatten().map(|t| t.bytes_per_s);
        Some(Ok(rates.fold(f64::INFINITY, f64::min)))
    }

    /// What pairs of nodes, by their numbers in the site, measured in the trial. A pair counts where both tell of it, and
    /// as the worse of the two has it.
    pub fn pairs(&self) -> Vec<([usize; 2], Pair)> {
        let of = |node: usize| {
            let tried = self.outcomes.get(&node).and_then(|o| o.as_ref().ok());
            let told = tried.map_or(&[][..], |t| &t.pairs);
            told.iter().take(ROUNDS_MAX).filter(|p| is_possible(p))
        };
        let mut found = Vec::new();
        for (place, &node) in self.nodes.iter().enumerate() {
            for own in of(node).filter(|p| p.peer as usize > place) {
                let Some(&peer) = self.nodes.get(own.peer as usize) else {
                    continue;
                };
                let same = |p: &&Pair| p.round == own.round && p.peer as usize == place;
                if let Some(theirs) = of(peer).find(same) {
                    let worse = Pair {
                        bytes: own.bytes.min(theirs.bytes),
                        bytes_per_s: own.bytes_per_s.min(theirs.bytes_per_s),
                        latency_s: own.latency_s.max(theirs.latency_s),
                        wrong: own.wrong.max(theirs.wrong),
                        ..*own
                    };
                    found.push(([node, peer], worse));
                }
            }
        }
        found.sort_by_key(|(nodes, pair)| (pair.round, *nodes));
        found
    }

    /// Nodes that have not told what came of the trial.
    pub fn waiting(&self) -> Vec<usize> {
        let told: BTreeSet<usize> = self.outcomes.keys().copied().collect();
        self.nodes
            .iter()
            .copied()
            .filter(|n| !told.contains(n))
            .collect()
    }
}

fn is_possible(pair: &Pair) -> bool {
    let is = |value: f64| value.is_finite() && value > 0.0;
    is(pair.bytes_per_s) && is(pair.latency_s) && (pair.round as usize) < ROUNDS_MAX
}

/// Whether nodes with these claims can reduce into each other, before anybody has tried; the library that they share.
///
/// # Errors
/// Why not, in one sentence.
pub fn possible(claims: &[Claim]) -> Result<String, String> {
    let Some((first, others)) = claims.split_first() else {
        return Err("no node has joined".to_owned());
    };
    let devices: usize = claims.iter().map(|c| c.devices.len()).sum();
    if devices > EXACT_RANKS_MAX {
        return Err(format!(
            "{devices} ranks would reduce, and sums are checked exactly up to {EXACT_RANKS_MAX}"
        ));
    }
    for claim in claims {
        // The last place of a node's memory is its bridge's.
        if claim.devices.len() >= RANKS_MAX as usize {
            return Err(format!(
                "node `{}` has {} devices, and at most {} of a node reduce",
                claim.node,
                claim.devices.len(),
                RANKS_MAX - 1
            ));
        }
    }
    let of = |claim: &Claim| match &claim.mpi {
        Ok(mpi) => Ok(mpi.clone()),
        Err(why) => Err(format!("node `{}`: {why}", claim.node)),
    };
    let known = of(first)?;
    for claim in others {
        let theirs = of(claim)?;
        if theirs.version != known.version {
            return Err(format!(
                "node `{}` has {}, node `{}` has {}",
                first.node, known.version, claim.node, theirs.version
            ));
        }
        if theirs.world != known.world {
            let (one, other) = (&first.node, &claim.node);
            return Err(format!(
                "nodes `{one}` and `{other}` were not started as one world of MPI"
            ));
        }
    }
    if let World::Launcher { name, ranks } = &known.world
        && *ranks as usize != claims.len()
    {
        return Err(format!(
            "{name} formed a world of {ranks} ranks, and {} nodes have joined",
            claims.len()
        ));
    }
    Ok(known.version)
}

#[cfg(test)]
mod tests;
