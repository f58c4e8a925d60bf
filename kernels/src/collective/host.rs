//! The all-reduce between the worker processes of one machine, through memory they share.
//!
//! All inputs and outputs lie in one [`Region`]. Of `n` members the k-th sums the k-th piece of every
//! input and writes it to every output: each byte is read once and written once per rank, and the
//! sum has one order and so the same bits everywhere. Two flags per rank order it: *arrived* and *done*.
//! A rank that stays away is named within the caller's limit, and the survivors regroup. Refuses
//! to trust what a peer wrote: flags out of step, another bucket or other members are errors.
//!
//! Where a hall reduces across nodes, one more slot of the region is a [`bridge`]'s: the members sum into its input, it
//! adds the other nodes' sums, and each member copies the total from its output. Ranks are then numbered in the whole hall.

pub mod bridge;
mod hall;
mod region;
mod sum;
mod wait;

#[cfg(test)]
mod processes;
#[cfg(test)]
mod tests;

pub use region::{Progress, RANKS_MAX, Region};

use crate::collective::{Collective, CollectiveError, FORMING_NODES, Reduced};
use hall::Hall;
use region::{Slot, mask, ranks_of};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;
use sum::{Isa, LINE_FLOATS, sum_into};
use wait::{Patience, Patient, Spin, publish};

/// From this many floats in a bucket's inputs and outputs together they are written past the caches, which they would
/// only sweep: 32 MiB, measured as the crossover on a core with 2 MiB of second-level cache.
const STREAM_FLOATS: usize = 8 << 20;
/// Floats summed between two looks at the abort mark, so that a rank left behind stops soon.
const BLOCK_FLOATS: usize = 1 << 16;
/// What a barrier says in place of a bucket.
const NO_BUCKET: u32 = u32::MAX;
/// Set in the bucket that a node sums by itself: its bridge then only goes along.
const WITHIN: u32 = 1 << 31;

/// One rank of a group over shared memory. Dropping it gives the generation up, so that peers do not wait for it.
pub struct HostCollective {
    region: Arc<Region>,
    /// Slot in the region; members are slots too.
    rank: u32,
    generation: u32,
    members: Vec<u32>,
    hall: Option<Hall>,
    /// Reductions of this generation, modulo 2³².
    count: u32,
    /// Cleared by the first error of a generation.
    whole: bool,
    /// Everybody's buffers are mapped.
    mapped: bool,
    now_ns: fn() -> u64,
    isa: Isa,
    transport: String,
    cores: usize,
    spin: Spin,
}

/// Which of a peer's words is waited for.
#[derive(Clone, Copy)]
enum Word {
    Generation,
    Arrived,
    Done,
}

/// A rank's buffers of a bucket: [`Region::input`] or [`Region::output`].
type Side = fn(&Region, usize, u32) -> Result<*mut f32, CollectiveError>;

/// Why a wait ended without its word.
enum Stop {
    TimedOut,
    Aborted,
    Odd { peer: u32, found: u32 },
}

impl HostCollective {
    /// Takes `rank` and returns when all ranks of the region have joined, as generation 1.
    ///
    /// `now_ns`: a monotonic clock common to all processes of the machine. `limit`: the longest wait for the others.
    ///
    /// # Errors
    /// [`CollectiveError::NoSuchRank`], [`CollectiveError::RankTaken`], [`CollectiveError::Io`] when memory is short, and as
    /// [`Collective::regroup`].
    pub fn join(
        region: Arc<Region>,
        rank: u32,
        now_ns: fn() -> u64,
        limit: Duration,
    ) -> Result<Self, CollectiveError> {
        let members: Vec<u32> = (0..region.ranks()).collect();
        let mut joined = Self::attach(region, rank, now_ns)?;
        joined.regroup(1, &members, limit)?;
        Ok(joined)
    }

    /// Takes `rank` and waits for nobody: there is no group before the first [`Collective::regroup`], which says who is in it.
    ///
    /// # Errors
    /// [`CollectiveError::NoSuchRank`], [`CollectiveError::RankTaken`], [`CollectiveError::Io`] when memory is short.
    pub fn attach(
        region: Arc<Region>,
        rank: u32,
        now_ns: fn() -> u64,
    ) -> Result<Self, CollectiveError> {
        let pid = std::process::id();
        region
            .slot(rank)?
            .pid
            .compare_exchange(0, pid, Ordering::AcqRel, Ordering::Acquire)
            .map_err(|pid| CollectiveError::RankTaken { rank, pid })?;
        region.populate(rank)?;
        let isa = Isa::detect();
        Ok(Self {
            region,
            rank,
            generation: 0,
            members: Vec::new(),
            hall: None,
            count: 0,
            whole: false,
            mapped: false,
            now_ns,
            isa,
            transport: format!("host shared memory, {} sums", isa.name()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            spin: Spin::default(),
        })
    }

    fn slot(&self, rank: u32) -> Result<&Slot, CollectiveError> {
        self.region.slot(rank)
    }

    /// Waits until `word` of every other member reads `want`.
    fn wait_for_all(&mut self, word: Word, want: u32, deadline_ns: u64) -> Result<(), Stop> {
        let cores_for_all = self.members.len() <= self.cores;
        let spin_ns = if cores_for_all { self.spin.ns() } else { 0 };
        let patience = Patience::new(self.now_ns, deadline_ns, spin_ns);
        self.wait_with(&patience, word, want)?;
        self.spin.learn(&patience);
        Ok(())
    }

    fn wait_with(&self, patience: &Patience, word: Word, want: u32) -> Result<(), Stop> {
        for &peer in self.members.iter().filter(|&&m| m != self.rank) {
            self.wait_for(peer, patience, word, want)?;
        }
        Ok(())
    }

    fn wait_for(&self, peer: u32, patience: &Patience, word: Word, want: u32) -> Result<(), Stop> {
        let Ok(slot) = self.slot(peer) else {
            return Ok(()); // `regroup` bounds the members
        };
        loop {
            let seen = word.of(slot).load(Ordering::Acquire);
            // First: who left after having arrived has arrived.
            if seen == want {
                return Ok(());
            }
            if self.region.aborted(self.generation) {
                return Err(Stop::Aborted);
            }
            if !word.can_still_become(seen, want) {
                return Err(Stop::Odd { peer, found: seen });
            }
            if patience.pause(word.of(slot), &slot.sleepers, seen) == Patient::NoMore {
                return Err(Stop::TimedOut);
            }
        }
    }

    /// Gives the generation up for all and says why.
    fn stop(&mut self, why: Stop, word: Word, want: u32, began_ns: u64) -> CollectiveError {
        self.whole = false;
        let generation = self.generation;
        let waiting_for: Vec<u32> = self
            .members
            .iter()
            .copied()
            .filter(|&m| {
                m != self.rank
                    && self
                        .slot(m)
                        .is_ok_and(|s| word.of(s).load(Ordering::Acquire) != want)
            })
            .collect();
        let named = |slots: Vec<u32>| slots.into_iter().map(|s| self.named(s)).collect::<Vec<_>>();
        match why {
            Stop::Aborted => CollectiveError::Aborted {
                generation,
                lost: named(ranks_of(self.region.lost() & mask(&self.members))),
                waiting_for: named(waiting_for),
            },
            Stop::TimedOut => {
                self.region.abort_mask(generation, mask(&waiting_for));
                let waited_ms = (self.now_ns)().saturating_sub(began_ns) / 1_000_000;
                if waiting_for.is_empty() && self.hall.is_some() {
                    return CollectiveError::OtherNodes {
                        rank: self.named(self.rank),
                        generation,
                        waited_ms,
                    };
                }
                CollectiveError::TimedOut {
                    rank: self.named(self.rank),
                    generation,
                    waited_ms,
                    waiting_for: named(waiting_for),
                }
            }
            Stop::Odd { peer, found } => {
                self.region.abort_mask(generation, mask(&[peer]));
                let peer = self.named(peer);
                match word {
                    Word::Generation => CollectiveError::StaleGeneration {
                        generation,
                        current: found,
                    },
                    Word::Arrived | Word::Done => CollectiveError::Scribbled {
                        peer,
                        word: word.name(),
                        found,
                        expected: want,
                    },
                }
            }
        }
    }

    /// Arrives with `bucket`, lets `share` do this rank's part once all are there, and waits for the others' parts.
    ///
    /// `share` says whether it came to its end; a part that did not is never announced as done.
    fn meet(
        &mut self,
        bucket: u32,
        bytes: u64,
        limit: Duration,
        share: impl FnOnce(&Self) -> Result<bool, CollectiveError>,
    ) -> Result<Reduced, CollectiveError> {
        let started_ns = (self.now_ns)();
        let deadline_ns = deadline(started_ns, limit);
        let want = self.count.wrapping_add(1);
        if !self.whole || self.region.aborted(self.generation) {
            return Err(self.stop(Stop::Aborted, Word::Arrived, want, started_ns));
        }
        let slot = self.slot(self.rank)?;
        slot.bucket.store(bucket, Ordering::Relaxed);
        slot.arrived_ns.store(started_ns, Ordering::Relaxed);
        publish(&slot.arrived, &slot.sleepers, want);
        if let Err(why) = self.wait_for_all(Word::Arrived, want, deadline_ns) {
            return Err(self.stop(why, Word::Arrived, want, started_ns));
        }
        let (arrived_last_ns, last) = match self.arrivals(bucket, started_ns) {
            Ok(arrivals) => arrivals,
            Err(e) => {
                self.whole = false;
                self.region.abort_mask(self.generation, 0);
                return Err(e);
            }
        };
        if !share(self)? {
            return Err(self.stop(Stop::Aborted, Word::Done, want, started_ns));
        }
        let slot = self.slot(self.rank)?;
        publish(&slot.done, &slot.sleepers, want);
        if let Err(why) = self.wait_for_all(Word::Done, want, deadline_ns) {
            return Err(self.stop(why, Word::Done, want, started_ns));
        }
        if let Err(why) = self.wait_for_bridge(Word::Done, want, deadline_ns) {
            return Err(self.stop(why, Word::Done, want, started_ns));
        }
        // Later reads of the outputs stay behind the peers' flags, each read with acquire above.
        fence(Ordering::Acquire);
        self.count = want;
        let (arrived_last_ns, last) = self.of_all_nodes(arrived_last_ns, last)?;
        Ok(Reduced {
            started_ns,
            arrived_last_ns,
            ended_ns: (self.now_ns)(),
            bytes,
            last,
        })
    }

    /// Reduces `bucket` into the members' outputs, or over their inputs.
    fn reduce(
        &mut self,
        bucket: usize,
        limit: Duration,
        in_place: bool,
    ) -> Result<Reduced, CollectiveError> {
        let bytes = self.region.floats(bucket)? as u64 * 4;
        // Buckets are counted in `usize`, but nobody lays out 2³¹ of them: each takes a page.
        let name = u32::try_from(bucket).unwrap_or(WITHIN - 1).min(WITHIN - 1);
        let to: Side = if in_place {
            Region::input
        } else {
            Region::output
        };
        match self.bridge() {
            Some(bridge) if !self.is_alone() => {
                self.reduce_bridged((bucket, name, bytes), limit, in_place, bridge)
            }
            bridge => {
                let name = bridge.map_or(name, |_| name | WITHIN);
                self.meet(name, bytes, limit, |me| {
                    me.sum_share(bucket, &me.members, to)
                })
            }
        }
    }

    /// Whether a peer formed the generation with the same members of this node.
    fn same_members(&self, peer: u32) -> Result<(), CollectiveError> {
        let theirs = self.slot(peer)?.members.load(Ordering::Relaxed);
        if theirs != mask(&self.members) {
            self.region.abort_mask(self.generation, 0);
            return Err(CollectiveError::MembersDiffer {
                rank: self.named(self.rank),
                ours: self.members.clone(),
                peer: self.named(peer),
                theirs: ranks_of(theirs),
            });
        }
        Ok(())
    }

    /// When the last member arrived and which it was, once all have and if all brought `bucket`.
    fn arrivals(&self, bucket: u32, started_ns: u64) -> Result<(u64, u32), CollectiveError> {
        let now_ns = (self.now_ns)();
        let mut latest = (started_ns, self.named(self.rank));
        for &peer in self.members.iter().filter(|&&m| m != self.rank) {
            let slot = self.slot(peer)?;
            let theirs = slot.bucket.load(Ordering::Relaxed);
            if theirs != bucket {
                return Err(CollectiveError::OrderDiffers {
                    rank: self.named(self.rank),
                    bucket,
                    peer: self.named(peer),
                    theirs,
                });
            }
            // A peer's word for its arrival counts only as far as it can be true.
            let arrived_ns = slot.arrived_ns.load(Ordering::Relaxed);
            if arrived_ns > latest.0 && arrived_ns <= now_ns {
                latest = (arrived_ns, self.named(peer));
            }
        }
        Ok(latest)
    }

    /// Sums this rank's piece into the buffers of side `to` of these slots; `false` if the generation was given up meanwhile.
    fn sum_share(&self, bucket: usize, into: &[u32], to: Side) -> Result<bool, CollectiveError> {
        let floats = self.region.floats(bucket)?;
        let place = self.members.iter().take_while(|&&m| m != self.rank).count();
        let (from, end) = piece(floats, place, self.members.len());
        let gather = |side: Side, slots: &[u32]| {
            slots
                .iter()
                .map(|&m| side(&self.region, bucket, m))
                .collect::<Result<Vec<_>, _>>()
        };
        let mut outs = gather(to, into)?;
        let mut ins: Vec<*const f32> = gather(Region::input, &self.members)?
            .into_iter()
            .map(<*mut f32>::cast_const)
            .collect();
        let stream = floats.saturating_mul(2 * self.members.len()) >= STREAM_FLOATS;
        let mut at = from;
        // SAFETY: `from <= end <= floats`, the length of each buffer.
        let advance = |ins: &mut [*const f32], outs: &mut [*mut f32], by: usize| unsafe {
            ins.iter_mut().for_each(|p| *p = p.add(by));
            outs.iter_mut().for_each(|p| *p = p.add(by));
        };
        advance(&mut ins, &mut outs, from);
        while at < end {
            if self.region.aborted(self.generation) {
                return Ok(false);
            }
            let len = BLOCK_FLOATS.min(end - at);
            // SAFETY: buffers are page-aligned and pieces and blocks start on cache lines; all lie inside the
            // region, apart from each other, or in place each output is the input of the same rank. All members have arrived, so none writes an input or reads an
            // output, and no other member writes this piece; a process that breaks this changes values only.
            unsafe { sum_into(self.isa, &ins, &outs, len, stream) };
            at += len;
            advance(&mut ins, &mut outs, len);
        }
        Ok(true)
    }
}

impl Collective for HostCollective {
    fn rank(&self) -> u32 {
        self.named(self.rank)
    }

    fn members(&self) -> &[u32] {
        self.hall.as_ref().map_or(&self.members[..], Hall::members)
    }

    fn within_node(&mut self, only: bool) {
        if let Some(hall) = &mut self.hall {
            hall.alone = only;
        }
    }

    fn generation(&self) -> u32 {
        self.generation
    }

    fn transport(&self) -> &str {
        &self.transport
    }

    fn buckets(&self) -> usize {
        self.region.buckets()
    }

    fn input(&mut self, bucket: usize) -> Result<&mut [f32], CollectiveError> {
        let floats = self.region.floats(bucket)?;
        let start = self.region.input(bucket, self.rank)?;
        // SAFETY: the buffer is this rank's alone, `floats` long and mapped while `self` lives. Peers
        // read it only between this rank's arrival and the end of that reduction, when `&mut self` is
        // lent to it; every bit pattern is a float.
        Ok(unsafe { std::slice::from_raw_parts_mut(start, floats) })
    }

    fn output(&self, bucket: usize) -> Result<&[f32], CollectiveError> {
        let floats = self.region.floats(bucket)?;
        let start = self.region.output(bucket, self.rank)?;
        // SAFETY: as in `input`; peers write it only within a reduction this rank takes part in.
        Ok(unsafe { std::slice::from_raw_parts(start, floats) })
    }

    fn all_reduce(&mut self, bucket: usize, limit: Duration) -> Result<Reduced, CollectiveError> {
        self.reduce(bucket, limit, false)
    }

    fn all_reduce_in_place(
        &mut self,
        bucket: usize,
        limit: Duration,
    ) -> Result<Reduced, CollectiveError> {
        self.reduce(bucket, limit, true)
    }

    fn barrier(&mut self, limit: Duration) -> Result<Reduced, CollectiveError> {
        self.meet(NO_BUCKET, 0, limit, |_| Ok(true))
    }

    fn regroup(
        &mut self,
        generation: u32,
        members: &[u32],
        limit: Duration,
    ) -> Result<(), CollectiveError> {
        let ranks = match &self.hall {
            // How many ranks other nodes have is not known here.
            Some(_) => u32::MAX,
            None => self.region.ranks(),
        };
        let mut everyone = members.to_vec();
        everyone.sort_unstable();
        everyone.dedup();
        let bounded = everyone.iter().all(|&m| m < ranks);
        if everyone.len() != members.len() || !bounded || !everyone.contains(&self.rank()) {
            return Err(CollectiveError::BadMembers {
                members: members.to_vec(),
                rank: self.rank(),
                ranks,
            });
        }
        if generation <= self.generation {
            return Err(CollectiveError::StaleGeneration {
                generation,
                current: self.generation,
            });
        }
        let began_ns = (self.now_ns)();
        // Whoever still waits in an older generation must not take the reset below for an arrival.
        self.region.abort_mask(self.generation, 0);
        self.region.found(self.rank);
        self.generation = generation;
        self.members = match &mut self.hall {
            Some(hall) => {
                let slots = self.region.ranks() - 1;
                let own = everyone.iter().filter_map(|m| m.checked_sub(hall.first));
                let own: Vec<u32> = own.filter(|slot| *slot < slots).collect();
                hall.own = own.iter().map(|slot| hall.first + slot).collect();
                hall.everyone = everyone;
                own
            }
            None => everyone,
        };
        self.count = 0;
        self.whole = false;
        let slot = self.slot(self.rank)?;
        slot.arrived.store(0, Ordering::SeqCst);
        slot.done.store(0, Ordering::SeqCst);
        slot.members.store(mask(&self.members), Ordering::Relaxed);
        publish(&slot.generation, &slot.sleepers, generation);
        let deadline_ns = deadline(began_ns, limit);
        if let Err(why) = self.wait_for_all(Word::Generation, generation, deadline_ns) {
            return Err(self.stop(why, Word::Generation, generation, began_ns));
        }
        for &peer in &self.members {
            self.same_members(peer)?;
        }
        if let Some(bridge) = self.bridge() {
            // It forms a world with the other nodes' bridges first.
            let deadline_ns = deadline(began_ns, limit.max(FORMING_NODES));
            if let Err(why) = self.wait_for_bridge(Word::Generation, generation, deadline_ns) {
                return Err(self.stop(why, Word::Generation, generation, began_ns));
            }
            self.same_members(bridge)?;
        }
        if !self.mapped {
            // Every member has placed its own buffers by now.
            self.region.populate_all()?;
            self.mapped = true;
        }
        self.whole = true;
        Ok(())
    }
}

impl Drop for HostCollective {
    fn drop(&mut self) {
        // A peer that this rank has already answered finds its flags before it finds this mark.
        self.region.abort_mask(self.generation, mask(&[self.rank]));
    }
}

impl Word {
    fn of(self, slot: &Slot) -> &AtomicU32 {
        match self {
            Self::Generation => &slot.generation,
            Self::Arrived => &slot.arrived,
            Self::Done => &slot.done,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Generation => "generation",
            Self::Arrived => "arrival count",
            Self::Done => "completion count",
        }
    }

    /// Whether a healthy peer whose word reads `seen` can be on its way to `want`.
    fn can_still_become(self, seen: u32, want: u32) -> bool {
        match self {
            Self::Generation => seen < want,
            // Nobody is more than one reduction behind, since each waits for all.
            Self::Arrived | Self::Done => seen == want.wrapping_sub(1),
        }
    }
}

fn deadline(began_ns: u64, limit: Duration) -> u64 {
    began_ns.saturating_add(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX))
}

/// The `place`-th of `of` nearly equal pieces of `floats`, each starting on a cache line.
fn piece(floats: usize, place: usize, of: usize) -> (usize, usize) {
    let lines = floats.div_ceil(LINE_FLOATS);
    let edge = |k: usize| (lines * k / of * LINE_FLOATS).min(floats);
    (edge(place), edge(place + 1))
}
