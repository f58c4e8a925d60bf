//! Nodes as groups of threads, their bridges joined by memory in the place of MPI: exact totals, who came last, and what a
//! group does whose bridge is lost.

use super::super::tests::{LONG, check, fill};
use super::super::{HostCollective, Region};
use super::*;
use crate::collective::Collective;
use crate::timer::now_ns;
use std::path::Path;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

/// What all nodes hand in for one operation, and take out again.
struct Table<T> {
    places: Mutex<Vec<Option<T>>>,
    met: Barrier,
}

impl<T: Clone> Table<T> {
    fn new(nodes: usize) -> Self {
        Self {
            places: Mutex::new(vec![None; nodes]),
            met: Barrier::new(nodes),
        }
    }

    fn exchange(&self, node: usize, mine: T) -> Vec<T> {
        self.places.lock().unwrap()[node] = Some(mine);
        self.met.wait();
        let all = self
            .places
            .lock()
            .unwrap()
            .iter()
            .flatten()
            .cloned()
            .collect();
        self.met.wait();
        all
    }
}

/// The place of one node's bridge at both tables.
struct Place<'a> {
    node: usize,
    words: &'a Table<[u64; WORDS]>,
    sums: &'a Table<Vec<f32>>,
    /// Breaks instead of adding up, from this reduction on.
    breaks_at: Option<u32>,
    added: u32,
}

impl Between for Place<'_> {
    fn gather(&mut self, words: [u64; WORDS]) -> Result<Vec<[u64; WORDS]>, BetweenError> {
        Ok(self.words.exchange(self.node, words))
    }

    fn add(&mut self, from: &[f32], into: &mut [f32]) -> Result<(), BetweenError> {
        self.added += 1;
        if self.breaks_at.is_some_and(|at| self.added >= at) {
            let (call, code) = ("a test", 7);
            return Err(BetweenError::Call { call, code });
        }
        into.fill(0.0);
        for theirs in self.sums.exchange(self.node, from.to_vec()) {
            into.iter_mut()
                .zip(theirs)
                .for_each(|(sum, value)| *sum += value);
        }
        Ok(())
    }

    fn add_in_place(&mut self, both: &mut [f32]) -> Result<(), BetweenError> {
        let from = both.to_vec();
        self.add(&from, both)
    }

    fn exchange(&mut self, _: u32, _: &[f32], _: &mut [f32]) -> Result<(), BetweenError> {
        unreachable!("a bridge at work exchanges with all or nobody")
    }
}

/// Runs `work` once per rank of nodes with so many ranks each; gives what it gave, by node, and how each bridge ended.
fn hall<T: Send>(
    ranks: &[u32],
    buckets: &[u64],
    breaks_at: Option<u32>,
    work: impl Fn(&mut HostCollective) -> T + Sync,
) -> Vec<(Vec<T>, Result<(), String>)> {
    let (words, sums) = (Table::new(ranks.len()), Table::new(ranks.len()));
    let everyone: Vec<u32> = (0..ranks.iter().sum()).collect();
    std::thread::scope(|scope| {
        let mut first = 0;
        let nodes = ranks.iter().enumerate().map(|(node, &own)| {
            let begin = first;
            first += own;
            let (words, sums, everyone, work) = (&words, &sums, &everyone, &work);
            scope.spawn(move || {
                let region = Region::create(own + 1, buckets).unwrap();
                let attach =
                    |path: &Path| Arc::new(Region::attach(path, own + 1, buckets).unwrap());
                std::thread::scope(|scope| {
                    let ranks: Vec<_> = (0..own)
                        .map(|rank| {
                            let mine = attach(region.path());
                            scope.spawn(move || {
                                let bridged =
                                    HostCollective::attach_bridged(mine, rank, begin, now_ns);
                                let mut group = bridged.unwrap();
                                group.regroup(1, everyone, LONG).unwrap();
                                work(&mut group)
                            })
                        })
                        .collect();
                    let members = (0..own).collect();
                    let regions = vec![attach(region.path())];
                    let mut bridge = Bridge::new(regions, begin, members, 1, now_ns).unwrap();
                    let mut place = Place {
                        node,
                        words,
                        sums,
                        breaks_at,
                        added: 0,
                    };
                    let bridged = scope.spawn(move || {
                        bridge.open().unwrap();
                        bridge.serve(&mut place).map_err(|e| e.to_string())
                    });
                    let done = ranks.into_iter().map(|r| r.join().unwrap()).collect();
                    region.abort(1, &[]);
                    (done, bridged.join().unwrap())
                })
            })
        });
        let nodes: Vec<_> = nodes.collect();
        nodes.into_iter().map(|n| n.join().unwrap()).collect()
    })
}

#[test]
fn ranks_of_all_nodes_get_the_exact_total_and_keep_their_inputs() {
    let buckets: Vec<u64> = [1, 17, 100_003].map(|floats| floats * 4).to_vec();
    for ranks in [&[1, 1][..], &[2, 1, 3], &[1], &[3, 2]] {
        let all: u32 = ranks.iter().sum();
        let nodes = hall(ranks, &buckets, None, |group| {
            assert_eq!(group.ranks(), all);
            for iteration in 0..3 {
                for bucket in 0..buckets.len() {
                    fill(group, bucket, iteration);
                    let done = group.all_reduce(bucket, LONG).unwrap();
                    assert!(done.started_ns <= done.arrived_last_ns);
                    assert!(done.arrived_last_ns <= done.ended_ns);
                    assert!(done.last < all);
                    check(group, bucket, iteration);
                }
            }
            // Each rank's own addend is as it was; a second sum of it is the same.
            group.all_reduce(2, LONG).unwrap();
            check(group, 2, 2);
            group.all_reduce_in_place(2, LONG).unwrap();
            let summed = group.input(2).unwrap().to_vec();
            assert_eq!(summed, group.output(2).unwrap());
            group.barrier(LONG).unwrap();
            group.rank()
        });
        let ranks: Vec<u32> = nodes.iter().flat_map(|(ranks, _)| ranks.clone()).collect();
        assert_eq!(ranks, (0..all).collect::<Vec<_>>());
        assert!(nodes.iter().all(|(_, bridge)| bridge.is_ok()), "{nodes:?}");
    }
}

#[test]
fn nodes_sum_by_themselves_each_as_often_as_it_likes_and_then_together_again() {
    let buckets = [4, 70_001 * 4];
    let first = |rank: u32| match rank {
        0 => 0..1,
        1..4 => 1..4,
        _ => 4..6,
    };
    let nodes = hall(&[1, 3, 2], &buckets, None, |group| {
        let own: Vec<u32> = first(group.rank()).collect();
        let mut iteration = 0;
        for _ in 0..2 {
            for bucket in 0..buckets.len() {
                fill(group, bucket, iteration);
                group.all_reduce(bucket, LONG).unwrap();
                assert_eq!(group.ranks(), 6);
                check(group, bucket, iteration);
            }
            group.within_node(true);
            assert_eq!(group.members(), own);
            for _ in 0..own.len() {
                iteration += 1;
                for bucket in 0..buckets.len() {
                    fill(group, bucket, iteration);
                    let done = group.all_reduce(bucket, LONG).unwrap();
                    assert!(own.contains(&done.last));
                    check(group, bucket, iteration);
                }
            }
            group.all_reduce_in_place(1, LONG).unwrap();
            let summed = group.input(1).unwrap().to_vec();
            assert_eq!(summed, group.output(1).unwrap());
            group.within_node(false);
            // The same on all nodes once more.
            iteration = 100;
        }
    });
    assert!(nodes.iter().all(|(_, bridge)| bridge.is_ok()), "{nodes:?}");
}

#[test]
fn who_arrives_last_of_all_nodes_is_named_and_waited_for_by_everybody() {
    const LATE: Duration = Duration::from_millis(120);
    for late in 0..4 {
        let nodes = hall(&[2, 2], &[4096], None, |group| {
            group.barrier(LONG).unwrap();
            if group.rank() == late {
                std::thread::sleep(LATE);
            }
            group.all_reduce(0, LONG).unwrap()
        });
        for (rank, done) in nodes.iter().flat_map(|(ranks, _)| ranks).enumerate() {
            assert_eq!(done.last, late, "by rank {rank}");
            let waited = Duration::from_nanos(done.waited_ns());
            match rank as u32 == late {
                true => assert!(waited < LATE, "{waited:?}"),
                false => assert!(
                    waited > LATE / 2,
                    "rank {rank} waited {waited:?} for {late}"
                ),
            }
        }
    }
}

#[test]
fn a_bridge_that_breaks_gives_its_ranks_up_at_once() {
    let began = Instant::now();
    let nodes = hall(&[2, 1], &[4096], Some(2), |group| {
        group.all_reduce(0, LONG).unwrap();
        group.all_reduce(0, LONG).unwrap_err()
    });
    assert!(began.elapsed() < LONG / 2);
    for (ranks, bridge) in nodes {
        assert!(bridge.unwrap_err().contains("a test returned 7"));
        let given_up = |e: &CollectiveError| matches!(e, CollectiveError::Aborted { .. });
        assert!(ranks.iter().all(given_up), "{ranks:?}");
    }
}

#[test]
fn a_rank_whose_other_nodes_do_not_come_says_that_nobody_of_its_own_is_missing() {
    let region = Region::create(2, &[64]).unwrap();
    let mine = Arc::new(Region::attach(region.path(), 2, &[64]).unwrap());
    let mut group = HostCollective::attach_bridged(mine, 0, 6, now_ns).unwrap();
    let members = vec![0];
    let regions = vec![Arc::new(Region::attach(region.path(), 2, &[64]).unwrap())];
    let bridge = Bridge::new(regions, 6, members, 1, now_ns).unwrap();
    bridge.open().unwrap();
    group.regroup(1, &[3, 6, 9], LONG).unwrap();
    assert_eq!((group.rank(), group.members()), (6, &[3, 6, 9][..]));
    let alone = group.all_reduce(0, Duration::from_millis(50)).unwrap_err();
    assert!(
        matches!(alone, CollectiveError::OtherNodes { rank: 6, .. }),
        "{alone}"
    );
}

#[test]
fn the_bridges_own_slot_is_no_ranks_and_strangers_are_no_members() {
    let region = Arc::new(Region::create(3, &[64]).unwrap());
    let taken = HostCollective::attach_bridged(Arc::clone(&region), 2, 0, now_ns);
    assert!(matches!(
        taken,
        Err(CollectiveError::NoSuchRank { rank: 2, ranks: 2 })
    ));
    for members in [vec![], vec![2], vec![0, 7]] {
        let refused = Bridge::new(vec![Arc::clone(&region)], 0, members, 1, now_ns);
        assert!(matches!(refused, Err(CollectiveError::BadMembers { .. })));
    }
}

#[test]
fn a_bridge_that_blames_a_stranger_is_not_believed() {
    let region = Arc::new(Region::create(2, &[64]).unwrap());
    let mut group = HostCollective::attach_bridged(Arc::clone(&region), 0, 6, now_ns).unwrap();
    let bridge = Bridge::new(vec![Arc::clone(&region)], 6, vec![0], 1, now_ns).unwrap();
    bridge.open().unwrap();
    group.regroup(1, &[3, 6], LONG).unwrap();
    let slot = own(&region).unwrap();
    slot.arrived_ns.store(u64::MAX, Ordering::Relaxed);
    slot.last.store(4_000_000, Ordering::Relaxed);
    publish(&slot.done, &slot.sleepers, 1);
    let done = group.barrier(LONG).unwrap();
    assert_eq!(done.last, 6);
    assert!(done.arrived_last_ns <= done.ended_ns, "nor a time to come");
}
