//! A rank of a node whose hall reduces across nodes: its number there, and its node's bridge.
//!
//! It waits for the bridge as for a peer, and takes from it when the last rank of all nodes arrived. It knows nothing of
//! how bridges reach each other.

use super::region::Region;
use super::wait::Patience;
use super::{HostCollective, Stop, Word};
use crate::collective::{Collective, CollectiveError, Reduced};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What a rank of a hall knows beside its own node.
pub(super) struct Hall {
    /// Number in the hall of the node's first rank.
    pub(super) first: u32,
    /// Members of all nodes, by their numbers in the hall.
    pub(super) everyone: Vec<u32>,
    /// Those of this node.
    pub(super) own: Vec<u32>,
    /// The node sums by itself.
    pub(super) alone: bool,
}

impl Hall {
    /// Members that sum together.
    pub(super) fn members(&self) -> &[u32] {
        if self.alone {
            &self.own
        } else {
            &self.everyone
        }
    }
}

impl HostCollective {
    /// As [`Self::attach`], on a node of a hall: the region's last slot is its bridge's.
    ///
    /// `rank`: within the node. `first`: number in the hall of the node's first rank.
    ///
    /// # Errors
    /// As [`Self::attach`]; [`CollectiveError::NoSuchRank`] also for the bridge's own slot.
    pub fn attach_bridged(
        region: Arc<Region>,
        rank: u32,
        first: u32,
        now_ns: fn() -> u64,
    ) -> Result<Self, CollectiveError> {
        let ranks = region.ranks().saturating_sub(1);
        if rank >= ranks {
            return Err(CollectiveError::NoSuchRank { rank, ranks });
        }
        let mut attached = Self::attach(region, rank, now_ns)?;
        attached.hall = Some(Hall {
            first,
            everyone: Vec::new(),
            own: Vec::new(),
            alone: false,
        });
        attached.transport = format!("{}, one bridge a node", attached.transport);
        Ok(attached)
    }

    /// The number that the caller knows a slot by.
    pub(super) fn named(&self, slot: u32) -> u32 {
        self.hall.as_ref().map_or(slot, |h| h.first + slot)
    }

    /// Whether the node sums by itself for now.
    pub(super) fn is_alone(&self) -> bool {
        self.hall.as_ref().is_some_and(|h| h.alone)
    }

    /// Slot of the node's bridge.
    pub(super) fn bridge(&self) -> Option<u32> {
        self.hall.as_ref().map(|_| self.region.ranks() - 1)
    }

    /// Waits for the node's bridge, which waits for the other nodes and is never waited for by spinning.
    pub(super) fn wait_for_bridge(
        &self,
        word: Word,
        want: u32,
        deadline_ns: u64,
    ) -> Result<(), Stop> {
        let Some(bridge) = self.bridge() else {
            return Ok(());
        };
        let patience = Patience::new(self.now_ns, deadline_ns, 0);
        self.wait_for(bridge, &patience, word, want)
    }

    /// When the last rank of all nodes arrived and which it was, if this node's last one is known.
    pub(super) fn of_all_nodes(
        &self,
        arrived_ns: u64,
        last: u32,
    ) -> Result<(u64, u32), CollectiveError> {
        let Some(bridge) = self.bridge() else {
            return Ok((arrived_ns, last));
        };
        let slot = self.slot(bridge)?;
        let all_ns = slot.arrived_ns.load(Ordering::Relaxed);
        // As of a peer: its word counts as far as it can be true.
        let all_ns = all_ns.clamp(arrived_ns, (self.now_ns)().max(arrived_ns));
        // It names a rank by what other nodes said: nobody is blamed who is no member.
        let named = slot.last.load(Ordering::Relaxed);
        let is_member = self.members().contains(&named);
        Ok((all_ns, if is_member { named } else { last }))
    }
    /// Reduces with the other nodes' ranks: alone on its node through its own buffers, else by the bridge's.
    pub(super) fn reduce_bridged(
        &mut self,
        (bucket, name, bytes): (usize, u32, u64),
        limit: Duration,
        in_place: bool,
        bridge: u32,
    ) -> Result<Reduced, CollectiveError> {
        // Told before this rank arrives.
        let slot = self.slot(self.rank)?;
        slot.in_place.store(u32::from(in_place), Ordering::Relaxed);
        if self.members.len() == 1 {
            return self.meet(name, bytes, limit, |_| Ok(true));
        }
        let mut reduced = self.meet(name, bytes, limit, |me| {
            me.sum_share(bucket, &[bridge], Region::input)
        })?;
        let total = self.region.output(bucket, bridge)?;
        let own = match in_place {
            true => self.region.input(bucket, self.rank)?,
            false => self.region.output(bucket, self.rank)?,
        };
        let floats = self.region.floats(bucket)?;
        // SAFETY: both are `floats` long and apart from each other. The bridge writes its output only once all members
        // have arrived at the next reduction, which this rank has not; a process that breaks this changes values only.
        unsafe { std::ptr::copy_nonoverlapping(total.cast_const(), own, floats) };
        reduced.ended_ns = (self.now_ns)();
        Ok(reduced)
    }
}
