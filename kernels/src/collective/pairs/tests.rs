//! Nodes as threads, whose messages take the time of the slowest of both ends and of the way between them.

use super::super::host::bridge::WORDS;
use super::*;
use crate::timer::now_ns;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

/// What a float takes at a sound node, and between sound nodes; ns.
const FLOAT_NS: f64 = 2.0;

struct Node {
    rank: usize,
    words: Arc<(Mutex<Vec<[u64; WORDS]>>, Barrier)>,
    to: BTreeMap<u32, Sender<Vec<f32>>>,
    from: BTreeMap<u32, Receiver<Vec<f32>>>,
    /// How many times as long a message takes with this other node.
    slower: Box<dyn Fn(u32) -> f64 + Send>,
}

impl Between for Node {
    fn gather(&mut self, words: [u64; WORDS]) -> Result<Vec<[u64; WORDS]>, BetweenError> {
        let (table, met) = &*self.words;
        table.lock().unwrap()[self.rank] = words;
        met.wait();
        let all = table.lock().unwrap().clone();
        met.wait();
        Ok(all)
    }

    fn add(&mut self, _: &[f32], _: &mut [f32]) -> Result<(), BetweenError> {
        unreachable!()
    }

    fn add_in_place(&mut self, _: &mut [f32]) -> Result<(), BetweenError> {
        unreachable!()
    }

    fn exchange(&mut self, peer: u32, from: &[f32], into: &mut [f32]) -> Result<(), BetweenError> {
        let ns = from.len() as f64 * FLOAT_NS * (self.slower)(peer);
        std::thread::sleep(Duration::from_nanos(ns as u64));
        self.to[&peer].send(from.to_vec()).unwrap();
        into.copy_from_slice(&self.from[&peer].recv().unwrap());
        Ok(())
    }
}

/// What each node measured, whose messages take `slower` times as long; ranks are places turned round.
fn hall(nodes: u32, slower: impl Fn(u32, u32) -> f64 + Clone + Send + 'static) -> Vec<Vec<Pair>> {
    let turned = move |at: u32| nodes - 1 - at;
    let count = nodes as usize;
    let words = Arc::new((Mutex::new(vec![[0; WORDS]; count]), Barrier::new(count)));
    let mut all: Vec<Node> = (0..nodes)
        .map(|rank| {
            let slower = slower.clone();
            Node {
                rank: rank as usize,
                words: Arc::clone(&words),
                to: BTreeMap::new(),
                from: BTreeMap::new(),
                slower: Box::new(move |peer| slower(turned(rank), turned(peer))),
            }
        })
        .collect();
    for one in 0..nodes {
        for other in (0..nodes).filter(|o| *o != one) {
            let (to, from) = channel();
            all[one as usize].to.insert(other, to);
            all[other as usize].from.insert(one, from);
        }
    }
    let mut measured: Vec<Vec<Pair>> = std::thread::scope(|scope| {
        let work = |mut node: Node| {
            let place = turned(node.rank as u32);
            scope.spawn(move || measure(&mut node, place, now_ns).unwrap())
        };
        let all: Vec<_> = all.into_iter().map(work).collect();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    measured.reverse();
    measured
}

#[test]
fn both_nodes_of_a_pair_tell_of_it_and_a_slow_node_meets_good_ones_again() {
    let slow = |a: u32, b: u32| if a == 3 || b == 3 { 20.0 } else { 1.0 };
    let measured = hall(6, slow);
    for (place, own) in measured.iter().enumerate() {
        assert!(own.len() >= RANDOM as usize, "{own:?}");
        for pair in own {
            let theirs = &measured[pair.peer as usize];
            let met = |p: &&Pair| (p.round, p.peer) == (pair.round, place as u32);
            assert_eq!(theirs.iter().filter(met).count(), 1, "{pair:?}");
            assert_eq!((pair.wrong, pair.bytes), (0, 4 << 20));
            let is_slow = place == 3 || pair.peer == 3;
            let floor = 4.0e9 / FLOAT_NS * if is_slow { 0.05 } else { 1.0 };
            assert!(pair.bytes_per_s < 1.01 * floor, "{pair:?}");
        }
    }
    // Three random rounds and two retests, each with another node.
    let peers: BTreeSet<u32> = measured[3].iter().map(|p| p.peer).collect();
    assert_eq!(
        (measured[3].len(), peers.len()),
        (5, 5),
        "{:?}",
        measured[3]
    );
}

#[test]
fn two_nodes_alone_measure_nothing_for_neither_could_be_told_from_the_other() {
    assert!(hall(2, |_, _| 1.0).iter().all(Vec::is_empty));
}

#[test]
fn random_pairs_are_disjoint_and_meet_once() {
    for nodes in 3..12_u32 {
        let places: Vec<u32> = (10..10 + nodes).collect();
        let mut met = BTreeSet::new();
        for round in 0..RANDOM {
            let pairs = random(&places, round, 77);
            let within: BTreeSet<u32> = pairs.iter().flatten().copied().collect();
            assert_eq!(within.len(), 2 * pairs.len());
            assert_eq!(pairs.len(), nodes as usize / 2, "{nodes} nodes");
            assert!(pairs.into_iter().all(|p| met.insert(p)), "{nodes} nodes");
        }
    }
    let orders: BTreeSet<Vec<[u32; 2]>> = (0..50)
        .map(|seed| random(&[0, 1, 2, 3, 4, 5, 6, 7], 0, seed))
        .collect();
    assert!(orders.len() > 20, "{}", orders.len());
}

fn seen(pairs: &[(u32, u32, f64)]) -> Vec<Seen> {
    let of = |(a, b, rate): &(u32, u32, f64)| Seen {
        nodes: [*a, *b],
        bytes_per_s: *rate,
    };
    pairs.iter().map(of).collect()
}

#[test]
fn suspects_meet_good_nodes_that_they_have_not_met_and_odd_pairs_themselves() {
    let places = [0, 1, 2, 3, 4, 5];
    let even = seen(&[
        (0, 1, 1.0),
        (2, 3, 0.9),
        (4, 5, 1.1),
        (0, 2, 1.0),
        (1, 4, 0.95),
    ]);
    assert!(retests(&places, &even).is_empty());
    // Node 5 is slow with two; 0 and 3 are, though both are well with others.
    let odd = seen(&[
        (0, 1, 1.0),
        (2, 3, 1.0),
        (4, 5, 0.3),
        (1, 4, 1.0),
        (0, 3, 0.4),
        (2, 5, 0.3),
        (2, 4, 1.0),
    ]);
    let again = retests(&places, &odd);
    assert_eq!(again[0], [0, 5], "the first good one that it has not met");
    assert_eq!(again.len(), 1, "node 0 is taken, so its pair has to wait");
    let waiting = seen(&[(0, 1, 1.0), (2, 3, 1.0), (0, 3, 0.4), (1, 2, 1.0)]);
    assert_eq!(retests(&places[..4], &waiting), [[0, 3]]);
    assert!(retests(&places, &[]).is_empty());
}
