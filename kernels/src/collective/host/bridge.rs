//! One node's bridge to the others: adds the other nodes' sums to that of its own ranks.
//!
//! It has the last slot of each region of its node. Once all ranks of the node have arrived it meets the other bridges,
//! which tells when the last rank of all arrived and whether all are at the same all-reduce; once the ranks have summed
//! into its input it has the nodes' sums added into its output. It waits without a limit, since whoever waits for it does
//! not, and ends when its generation is given up. How bytes travel is [`Between`]'s.

use super::region::{Region, Slot, mask};
use super::wait::{Patience, publish};
use super::{NO_BUCKET, WITHIN, Word};
use crate::collective::CollectiveError;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Longest wait that is told in one word, ns: nine minutes.
const WAITED_MAX: u64 = 1 << 39;
/// Ranks of a hall that a word can tell.
const RANK_BITS: u32 = 24;

/// What connects the bridges of all nodes.
pub trait Between {
    /// Gives every node's words to every node, in one order for all; `words` are this node's.
    ///
    /// # Errors
    /// [`BetweenError`].
    fn gather(&mut self, words: [u64; WORDS]) -> Result<Vec<[u64; WORDS]>, BetweenError>;

    /// Adds all nodes' `from` up into `into`, which is as long.
    ///
    /// # Errors
    /// [`BetweenError`].
    fn add(&mut self, from: &[f32], into: &mut [f32]) -> Result<(), BetweenError>;

    /// Adds all nodes' `both` up over themselves.
    ///
    /// # Errors
    /// [`BetweenError`].
    fn add_in_place(&mut self, both: &mut [f32]) -> Result<(), BetweenError>;

    /// Gives `from` to another node for its own, which is as long; `peer`: its place in [`Self::gather`]'s order.
    ///
    /// # Errors
    /// [`BetweenError`].
    fn exchange(&mut self, peer: u32, from: &[f32], into: &mut [f32]) -> Result<(), BetweenError>;
}

/// Words that nodes tell each other at once.
pub const WORDS: usize = 3;

/// Why nodes cannot reduce into each other.
#[derive(Debug, thiserror::Error)]
pub enum BetweenError {
    #[error("{call} returned {code}")]
    Call { call: &'static str, code: i32 },
    #[error(
        "the nodes are at different all-reduces: one at number {theirs} of region {their_region}, bucket {their_bucket}, this one at number {ours} of region {region}, bucket {bucket}"
    )]
    Apart {
        ours: u64,
        region: u64,
        bucket: u64,
        theirs: u64,
        their_region: u64,
        their_bucket: u64,
    },
    #[error(transparent)]
    Region(#[from] CollectiveError),
}

/// The bridge of one generation.
pub struct Bridge {
    regions: Vec<Arc<Region>>,
    /// Number in the hall of the node's first rank.
    first: u32,
    /// Members of this node, by their slots.
    members: Vec<u32>,
    generation: u32,
    /// Reductions of this generation, by region.
    counts: Vec<u32>,
    /// Those of them that were across the nodes: of others each node has its own number.
    met: Vec<u32>,
    now_ns: fn() -> u64,
}

/// A region whose ranks have all arrived.
struct Ready {
    region: usize,
    bucket: u32,
    arrived_ns: u64,
    last: u32,
}

impl Bridge {
    /// Takes the last slot of each region, for these members.
    ///
    /// # Errors
    /// [`CollectiveError::Io`] when memory is short, [`CollectiveError::BadMembers`] for a member without a slot.
    pub fn new(
        regions: Vec<Arc<Region>>,
        first: u32,
        members: Vec<u32>,
        generation: u32,
        now_ns: fn() -> u64,
    ) -> Result<Self, CollectiveError> {
        for region in &regions {
            let slot = region.ranks() - 1;
            if members.is_empty() || members.iter().any(|m| *m >= slot) {
                return Err(CollectiveError::BadMembers {
                    members,
                    rank: slot,
                    ranks: slot,
                });
            }
            region.populate(slot)?;
        }
        Ok(Self {
            counts: vec![0; regions.len()],
            met: vec![0; regions.len()],
            regions,
            first,
            members,
            generation,
            now_ns,
        })
    }

    /// Tells the node's ranks that the bridges of all nodes are here.
    ///
    /// # Errors
    /// As [`Region`]'s.
    pub fn open(&self) -> Result<(), CollectiveError> {
        for region in &self.regions {
            region.populate_all()?;
            let slot = own(region)?;
            slot.pid.store(std::process::id(), Ordering::Relaxed);
            slot.arrived.store(0, Ordering::SeqCst);
            slot.done.store(0, Ordering::SeqCst);
            slot.members.store(mask(&self.members), Ordering::Relaxed);
            publish(&slot.generation, &slot.sleepers, self.generation);
        }
        Ok(())
    }

    /// Reduces with the other nodes until the generation is given up.
    ///
    /// # Errors
    /// [`BetweenError`]; the generation is given up then, for this node's ranks.
    pub fn serve(&mut self, between: &mut dyn Between) -> Result<(), BetweenError> {
        let served = self.serve_all(between);
        for region in &self.regions {
            region.abort(self.generation, &[]);
        }
        served
    }

    fn serve_all(&mut self, between: &mut dyn Between) -> Result<(), BetweenError> {
        while let Some(ready) = self.next()? {
            let region = Arc::clone(&self.regions[ready.region]);
            let want = self.counts[ready.region].wrapping_add(1);
            let within = ready.bucket != NO_BUCKET && ready.bucket & WITHIN != 0;
            let (arrived_ns, last) = match within {
                true => (ready.arrived_ns, self.first + ready.last),
                false => self.meet(&ready, between)?,
            };
            let slot = own(&region)?;
            slot.arrived_ns.store(arrived_ns, Ordering::Relaxed);
            slot.last.store(last, Ordering::Relaxed);
            if !self.all(&region, Word::Done, want)? {
                return Ok(());
            }
            if ready.bucket != NO_BUCKET && !within {
                self.add(&region, ready.bucket as usize, between)?;
            }
            publish(&slot.done, &slot.sleepers, want);
            self.counts[ready.region] = want;
        }
        Ok(())
    }

    /// Adds all nodes' sums of a bucket: of a rank that is alone on its node from its own buffers, where nothing is copied.
    fn add(
        &self,
        region: &Region,
        bucket: usize,
        between: &mut dyn Between,
    ) -> Result<(), BetweenError> {
        let floats = region.floats(bucket)?;
        let (slot, in_place) = match self.members[..] {
            [alone] => {
                let in_place = region.slot(alone)?.in_place.load(Ordering::Relaxed);
                (alone, in_place != 0)
            }
            _ => (region.ranks() - 1, false),
        };
        let (from, into) = (region.input(bucket, slot)?, region.output(bucket, slot)?);
        // SAFETY: the buffers are one slot's, `floats` long, apart from each other and mapped while the region lives. All
        // members are done, and touch neither before this bridge is: a lone one's buffers are lent to it, and the bridge's
        // own output was copied before they arrived. A process that breaks this changes values only.
        unsafe {
            if in_place {
                return between.add_in_place(std::slice::from_raw_parts_mut(from, floats));
            }
            let from = std::slice::from_raw_parts(from.cast_const(), floats);
            between.add(from, std::slice::from_raw_parts_mut(into, floats))
        }
    }

    /// Meets the other bridges: when the last rank of all arrived, and its number in the hall.
    fn meet(
        &mut self,
        ready: &Ready,
        between: &mut dyn Between,
    ) -> Result<(u64, u32), BetweenError> {
        let met = &mut self.met[ready.region];
        *met = met.wrapping_add(1);
        let ours = [*met, ready.region as u32, ready.bucket].map(u64::from);
        for theirs in between.gather(ours)? {
            if theirs != ours {
                return Err(BetweenError::Apart {
                    ours: ours[0],
                    region: ours[1],
                    bucket: ours[2],
                    theirs: theirs[0],
                    their_region: theirs[1],
                    their_bucket: theirs[2],
                });
            }
        }
        let now_ns = (self.now_ns)();
        // The node that waited least came last: no clock but its own has to be believed.
        let waited_ns = now_ns.saturating_sub(ready.arrived_ns).min(WAITED_MAX);
        let name = u64::from(self.first + ready.last);
        let told = between.gather([waited_ns << RANK_BITS | name, 0, 0])?;
        let least = told.iter().map(|w| w[0]).min().unwrap_or(name);
        Ok((now_ns, (least & ((1 << RANK_BITS) - 1)) as u32))
    }

    /// The next region whose ranks have all arrived; `None` once the generation is given up.
    fn next(&self) -> Result<Option<Ready>, CollectiveError> {
        let patience = Patience::new(self.now_ns, u64::MAX, 0);
        loop {
            let mut awaited = None;
            for (index, region) in self.regions.iter().enumerate() {
                if region.aborted(self.generation) {
                    return Ok(None);
                }
                let want = self.counts[index].wrapping_add(1);
                match self.missing(region, Word::Arrived, want)? {
                    None => return self.ready(index).map(Some),
                    // The one whose ranks began to arrive is the one that is worked on.
                    Some(member) if member != self.members[0] => awaited = Some((index, member)),
                    Some(member) => {
                        awaited.get_or_insert((index, member));
                    }
                }
            }
            let Some((index, member)) = awaited else {
                return Ok(None);
            };
            let want = self.counts[index].wrapping_add(1);
            let slot = self.regions[index].slot(member)?;
            self.rest(&patience, slot, Word::Arrived, want);
        }
    }

    fn ready(&self, index: usize) -> Result<Ready, CollectiveError> {
        let region = &self.regions[index];
        let now_ns = (self.now_ns)();
        let mut ready = Ready {
            region: index,
            bucket: region.slot(self.members[0])?.bucket.load(Ordering::Relaxed),
            arrived_ns: 0,
            last: self.members[0],
        };
        for &member in &self.members {
            let arrived_ns = region.slot(member)?.arrived_ns.load(Ordering::Relaxed);
            if arrived_ns > ready.arrived_ns && arrived_ns <= now_ns {
                (ready.arrived_ns, ready.last) = (arrived_ns, member);
            }
        }
        Ok(ready)
    }

    /// Waits until a word of all members reads `want`; false once the generation is given up.
    fn all(&self, region: &Region, word: Word, want: u32) -> Result<bool, CollectiveError> {
        let patience = Patience::new(self.now_ns, u64::MAX, 0);
        while let Some(member) = self.missing(region, word, want)? {
            if region.aborted(self.generation) {
                return Ok(false);
            }
            self.rest(&patience, region.slot(member)?, word, want);
        }
        Ok(true)
    }

    /// Waits a little for a member to come to this generation, or to `want`.
    fn rest(&self, patience: &Patience, slot: &Slot, word: Word, want: u32) {
        let generation = slot.generation.load(Ordering::Acquire);
        let seen = word.of(slot).load(Ordering::Acquire);
        if generation != self.generation {
            patience.pause(&slot.generation, &slot.sleepers, generation);
        } else if seen != want {
            patience.pause(word.of(slot), &slot.sleepers, seen);
        }
    }

    /// The first member whose word does not read `want` in this generation.
    fn missing(
        &self,
        region: &Region,
        word: Word,
        want: u32,
    ) -> Result<Option<u32>, CollectiveError> {
        for &member in &self.members {
            let slot = region.slot(member)?;
            // In this order: a member of an older generation may have come as far.
            let here = word.of(slot).load(Ordering::Acquire) == want
                && slot.generation.load(Ordering::Acquire) == self.generation;
            if !here {
                return Ok(Some(member));
            }
        }
        Ok(None)
    }
}

fn own(region: &Region) -> Result<&Slot, CollectiveError> {
    region.slot(region.ranks() - 1)
}

#[cfg(test)]
mod tests;
