//! Bridges in pairs, before the load: how fast each pair of nodes exchanges, so that a slow node or a slow way between two
//! can be told from the others.
//!
//! First random disjoint pairs, all at once. Then nodes that were slow in each of their pairs meet nodes that were not, and
//! pairs that were slow though both of their nodes are well meet once more. Every node hears what all pairs measured, so
//! that all come to the same next round by themselves. It names nobody: who reads the record does.

use super::exact::{fill_exact, key};
use super::host::bridge::{Between, BetweenError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Rounds of random pairs, and after them of retests, at most.
const RANDOM: u32 = 3;
const RETESTS: u32 = 2;
/// Rounds of both kinds at most: no node measures more pairs.
pub const ROUNDS_MAX: usize = (RANDOM + RETESTS) as usize;
/// Nodes of which one can be told from the others.
pub const NODES_MIN: usize = 3;
/// Below this share of what good pairs do a pair is looked at once more.
const SUSPECT: f64 = 0.8;
/// No round begins later than this.
const LIMIT_NS: u64 = 20_000_000_000;
/// Floats of a message, and of a larger one where the first takes less time than `SHORT_NS`.
const FLOATS: [usize; 2] = [1 << 20, 1 << 24];
const SHORT_NS: u64 = 2_000_000;
/// How long messages of one size are exchanged, and how many of them at least and at most.
const MESSAGES_NS: u64 = 300_000_000;
const MESSAGES: (u64, u64) = (3, 20);
/// The same of single floats.
const SINGLES_NS: u64 = 100_000_000;
const SINGLES: (u64, u64) = (5, 200);

/// What one node measured with another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    pub round: u32,
    /// The other node, by its place among those that take part.
    pub peer: u32,
    /// Size of a message.
    pub bytes: u64,
    /// Of the median exchange of such messages, each way.
    pub bytes_per_s: f64,
    /// Of the median exchange of single floats, which pass each other.
    pub latency_s: f64,
    /// Floats of the last message that are not what was sent.
    pub wrong: u64,
}

/// What all know of a pair; nodes by their place.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    nodes: [u32; 2],
    bytes_per_s: f64,
}

/// Measures this node's pairs; all nodes of the world call it together.
///
/// `place`: this node's place among those that take part. None where there are fewer than [`NODES_MIN`].
///
/// # Errors
/// [`BetweenError`].
pub fn measure(
    between: &mut dyn Between,
    place: u32,
    now_ns: fn() -> u64,
) -> Result<Vec<Pair>, BetweenError> {
    let began_ns = now_ns();
    // The draw of the first; and who has which place, in the order of the world.
    let told = between.gather([began_ns, u64::from(place), 0])?;
    let places: Vec<u32> = told.iter().map(|w| w[1] as u32).collect();
    let seed = told.first().map_or(0, |w| w[0]);
    let distinct: BTreeSet<u32> = places.iter().copied().collect();
    if places.len() < NODES_MIN || distinct.len() < places.len() {
        return Ok(Vec::new());
    }
    let mut own = Vec::new();
    let mut seen: Vec<Seen> = Vec::new();
    for round in 0..ROUNDS_MAX as u32 {
        let late = now_ns().saturating_sub(began_ns) > LIMIT_NS;
        if between
            .gather([u64::from(late), 0, 0])?
            .iter()
            .any(|w| w[0] != 0)
        {
            break;
        }
        let pairs = match round {
            0..RANDOM => random(&places, round, seed),
            _ => retests(&places, &seen),
        };
        let mine = pairs.iter().find(|p| p.contains(&place));
        let peer = mine.map(|[a, b]| if *a == place { *b } else { *a });
        let peer = peer.and_then(|p| Some((p, places.iter().position(|o| *o == p)? as u32)));
        let measured = match peer {
            Some((peer, rank)) => {
                let mut path = Path::new(between, rank, now_ns);
                Some(path.measure(round, place, peer)?)
            }
            None => None,
        };
        own.extend(measured);
        let rate = measured.map_or(0.0, |m| m.bytes_per_s);
        let told = between.gather([rate.to_bits(), 0, 0])?;
        let of = |node: u32| {
            let at = places.iter().position(|p| *p == node);
            at.and_then(|at| told.get(at))
                .map_or(0.0, |w| f64::from_bits(w[0]))
        };
        seen.extend(pairs.iter().map(|nodes| Seen {
            nodes: *nodes,
            bytes_per_s: of(nodes[0]).min(of(nodes[1])),
        }));
    }
    Ok(own)
}

/// The way to one other node.
struct Path<'a> {
    between: &'a mut dyn Between,
    /// The other, as the world counts.
    rank: u32,
    now_ns: fn() -> u64,
}

impl<'a> Path<'a> {
    fn new(between: &'a mut dyn Between, rank: u32, now_ns: fn() -> u64) -> Self {
        Self {
            between,
            rank,
            now_ns,
        }
    }

    fn measure(&mut self, round: u32, place: u32, peer: u32) -> Result<Pair, BetweenError> {
        let (single, mut answer) = ([0.0], [0.0]);
        // The first of all opens the connection.
        self.exchange(&single, &mut answer)?;
        let latency_ns = self.median(&single, &mut answer, SINGLES_NS, SINGLES)?.1;
        let mut found = (0, 1, 0);
        for floats in FLOATS {
            let (mut from, mut into) = (vec![0.0; floats], vec![0.0; floats]);
            fill_exact(&mut from, u64::from(round), place, 0);
            self.exchange(&from, &mut into)?;
            let (first_ns, took_ns) = self.median(&from, &mut into, MESSAGES_NS, MESSAGES)?;
            fill_exact(&mut from, u64::from(round), peer, 0);
            let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
            let wrong = from.iter().zip(&into).filter(|p| !same(*p)).count();
            found = (size_of_val(&from[..]) as u64, took_ns, wrong as u64);
            if first_ns >= SHORT_NS || wrong > 0 {
                break;
            }
        }
        let (bytes, took_ns, wrong) = found;
        Ok(Pair {
            round,
            peer,
            bytes,
            bytes_per_s: bytes as f64 * 1e9 / took_ns as f64,
            latency_s: latency_ns as f64 / 1e9,
            wrong,
        })
    }

    /// The slower one's first exchange, and the median of as many as both can do in about `for_ns`; ns.
    fn median(
        &mut self,
        from: &[f32],
        into: &mut [f32],
        for_ns: u64,
        (least, most): (u64, u64),
    ) -> Result<(u64, u64), BetweenError> {
        let own_ns = self.exchange(from, into)?;
        // Both go by the slower one, or one would wait for messages that the other never sends.
        let (own, mut theirs) = ([own_ns as f32], [0.0]);
        self.exchange(&own, &mut theirs)?;
        let first_ns = (own[0].max(theirs[0]) as u64).max(1);
        let count = (for_ns / first_ns).clamp(least, most);
        let mut took: Vec<u64> = Vec::with_capacity(count as usize);
        for _ in 0..count {
            took.push(self.exchange(from, into)?);
        }
        took.sort_unstable();
        Ok((first_ns, took[took.len() / 2].max(1)))
    }

    fn exchange(&mut self, from: &[f32], into: &mut [f32]) -> Result<u64, BetweenError> {
        let began_ns = (self.now_ns)();
        self.between.exchange(self.rank, from, into)?;
        Ok((self.now_ns)().saturating_sub(began_ns))
    }
}

/// Disjoint pairs in an order of chance: no two rounds have one in common while there are others, and of an odd number one node rests.
/// Source: the circle method of round-robin tournaments (Kirkman, 1847).
fn random(places: &[u32], round: u32, seed: u64) -> Vec<[u32; 2]> {
    let mut order: Vec<Option<u32>> = places.iter().copied().map(Some).collect();
    order.sort_by_key(|place| key(seed, place.unwrap_or(u32::MAX), 0));
    if order.len() % 2 == 1 {
        order.push(None);
    }
    let others = order.len() - 1;
    if round as usize >= others {
        return Vec::new();
    }
    // The first stays where it is, the others go round.
    order[1..].rotate_right(round as usize);
    let pairs = (0..order.len() / 2).map(|i| (order[i], order[others - i]));
    pairs.filter_map(|(a, b)| Some(ordered(a?, b?))).collect()
}

fn ordered(a: u32, b: u32) -> [u32; 2] {
    [a.min(b), a.max(b)]
}

/// Suspects against nodes that are known to be good, and odd pairs once more.
fn retests(places: &[u32], seen: &[Seen]) -> Vec<[u32; 2]> {
    let mut rates: Vec<f64> = seen.iter().map(|s| s.bytes_per_s).collect();
    rates.sort_by(f64::total_cmp);
    // Of three nodes a single slow one spoils two pairs of three.
    let Some(good) = rates.get(rates.len() * 3 / 4) else {
        return Vec::new();
    };
    let limit = SUSPECT * good;
    let best = |node: u32| {
        let own = seen.iter().filter(|s| s.nodes.contains(&node));
        own.map(|s| s.bytes_per_s).reduce(f64::max)
    };
    let is_good = |node: u32| best(node).is_some_and(|b| b >= limit);
    let times = |pair: [u32; 2]| seen.iter().filter(|s| s.nodes == pair).count();
    let mut free: BTreeSet<u32> = places.iter().copied().filter(|n| is_good(*n)).collect();
    let mut pairs = Vec::new();
    for suspect in places.iter().copied().filter(|n| !is_good(*n)) {
        // One it has not met yet, or met least often.
        let met = |good: &u32| times(ordered(suspect, *good));
        if let Some(good) = free.iter().copied().min_by_key(met) {
            free.remove(&good);
            pairs.push(ordered(suspect, good));
        }
    }
    for one in seen.iter().filter(|s| s.bytes_per_s < limit) {
        if one.nodes.iter().all(|n| free.contains(n)) {
            one.nodes.iter().for_each(|n| {
                free.remove(n);
            });
            pairs.push(one.nodes);
        }
    }
    pairs
}

#[cfg(test)]
mod tests;
