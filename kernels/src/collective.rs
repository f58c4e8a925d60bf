//! What a group of ranks must offer to sum gradient buckets, and what a sum that failed must say.
//!
//! A [`Collective`] owns the buckets' memory: a rank fills its own input, the group reduces out of
//! place, every rank reads the total from its own output, and inputs stay as they were; or in place, over
//! the inputs. Refuses to wait without a limit, to go on in a group that lost a member before the survivors have
//! regrouped, and to know what bandwidth is acceptable. Transports: [`host`] (shared memory of one
//! machine, and with a bridge a node of a hall). Between nodes: [`mpi`], tried out in [`pairs`]. Inputs whose total is exact in any order: [`exact`]. Ranks that share one device: [`within`].
//! All sizes one after the other, each result checked: [`sweep`].

use std::path::PathBuf;
use std::time::Duration;

pub mod alone;
pub mod exact;
pub mod host;
pub mod mpi;
pub mod pairs;
pub mod sweep;
pub mod within;

/// Least time that a rank waits for the others of an all-reduce before it gives its group up.
pub const LEAST_PATIENCE: Duration = Duration::from_millis(3_500);
/// Time that a rank waits for the others to form a group.
pub const FORMING: Duration = Duration::from_millis(10_500);
/// The same where nodes have to find each other first.
pub const FORMING_NODES: Duration = Duration::from_secs(45);

/// Ranks that sum buckets together. Used from one thread.
///
/// Ranks are numbered once, from 0, and keep their number when the group shrinks.
pub trait Collective: Send {
    /// This process's number.
    fn rank(&self) -> u32;

    /// Members of the group as it stands, which fall when survivors regroup.
    fn ranks(&self) -> u32 {
        u32::try_from(self.members().len()).unwrap_or(u32::MAX)
    }

    /// Members that sum together as things stand, ascending.
    fn members(&self) -> &[u32];

    /// Has later reductions sum over this node's members only, or over all again; [`Self::members`] are those that do.
    ///
    /// Every member says the same before the same reduction.
    fn within_node(&mut self, only: bool);

    /// Counts the formations of the group from 1.
    fn generation(&self) -> u32;

    /// What moves the bytes, for the record.
    fn transport(&self) -> &str;

    /// How many buckets the group was laid out for.
    fn buckets(&self) -> usize;

    /// This rank's addend. Written between reductions only; a reduction never changes it.
    ///
    /// # Errors
    /// [`CollectiveError::UnknownBucket`].
    fn input(&mut self, bucket: usize) -> Result<&mut [f32], CollectiveError>;

    /// The total of the last reduction of this bucket that succeeded; unspecified after one that failed.
    ///
    /// # Errors
    /// [`CollectiveError::UnknownBucket`].
    fn output(&self, bucket: usize) -> Result<&[f32], CollectiveError>;

    /// Sums `bucket` over all members; returns when every member holds the total.
    ///
    /// `limit`: the longest this rank may spend waiting for the others, counted from the call.
    ///
    /// # Errors
    /// [`CollectiveError::TimedOut`] and [`CollectiveError::Aborted`] name who is missing. After any error
    /// but an unknown bucket the group is broken for every member until [`Self::regroup`]; a reduction that failed
    /// here may have completed elsewhere.
    fn all_reduce(&mut self, bucket: usize, limit: Duration) -> Result<Reduced, CollectiveError>;

    /// As [`Self::all_reduce`], with the total written over every member's input; outputs stay as they were.
    ///
    /// # Errors
    /// As [`Self::all_reduce`].
    fn all_reduce_in_place(
        &mut self,
        bucket: usize,
        limit: Duration,
    ) -> Result<Reduced, CollectiveError>;

    /// Waits until every member is here; moves no bytes.
    ///
    /// # Errors
    /// As [`Self::all_reduce`].
    fn barrier(&mut self, limit: Duration) -> Result<Reduced, CollectiveError>;

    /// Forms the group anew from `members`, which hold this rank; generations only grow.
    ///
    /// Every survivor calls it with the same two arguments. The ranks left out must have ended: one that
    /// was merely stopped could, when it continues, still finish the piece of an old sum it was writing.
    ///
    /// # Errors
    /// [`CollectiveError::StaleGeneration`], [`CollectiveError::BadMembers`], [`CollectiveError::MembersDiffer`], and as
    /// [`Self::all_reduce`].
    fn regroup(
        &mut self,
        generation: u32,
        members: &[u32],
        limit: Duration,
    ) -> Result<(), CollectiveError>;
}

/// One completed reduction, on the clock the collective was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reduced {
    /// This rank arrived.
    pub started_ns: u64,
    /// The last member arrived; until then nothing could move.
    pub arrived_last_ns: u64,
    /// Every member holds the total.
    pub ended_ns: u64,
    /// The buffer each member holds; 0 for a barrier.
    pub bytes: u64,
    /// The member that arrived last.
    pub last: u32,
}

impl Reduced {
    /// What this rank lost to arrival skew.
    pub fn waited_ns(&self) -> u64 {
        self.arrived_last_ns.saturating_sub(self.started_ns)
    }

    /// From the last arrival to the end: the transfer and the sum, without the skew.
    pub fn transfer_ns(&self) -> u64 {
        self.ended_ns.saturating_sub(self.arrived_last_ns)
    }
}

/// Algorithm bandwidth of an all-reduce, in B/s.
///
/// `bytes`: buffer held by each rank. `elapsed_ns`: until the slowest rank ends.
/// Returns `bytes / elapsed`.
///
/// # Errors
/// [`BandwidthError::NoTime`] when no time passed.
///
/// Source: nccl-tests `doc/PERFORMANCE.md`, “Algorithm bandwidth”.
pub fn all_reduce_algbw(bytes: u64, elapsed_ns: u64) -> Result<f64, BandwidthError> {
    if elapsed_ns == 0 {
        return Err(BandwidthError::NoTime);
    }
    Ok(bytes as f64 * 1e9 / elapsed_ns as f64)
}

/// Bus bandwidth of an all-reduce, in B/s: comparable across rank counts.
///
/// Arguments as [`all_reduce_algbw`]. Returns `bytes / elapsed × 2(n − 1)/n`.
///
/// # Errors
/// [`BandwidthError::TooFewRanks`] below 2: one rank moves nothing over a link.
///
/// Source: nccl-tests `doc/PERFORMANCE.md`, “AllReduce”.
pub fn all_reduce_busbw(bytes: u64, elapsed_ns: u64, ranks: u32) -> Result<f64, BandwidthError> {
    if ranks < 2 {
        return Err(BandwidthError::TooFewRanks { ranks });
    }
    let n = f64::from(ranks);
    Ok(all_reduce_algbw(bytes, elapsed_ns)? * 2.0 * (n - 1.0) / n)
}

/// Bytes the host all-reduce reads plus writes, all ranks together: every input is read once and
/// every output written once, `2 · ranks · bytes`. Caches and write-allocation are not counted.
pub fn all_reduce_bytes_moved(bytes: u64, ranks: u32) -> u64 {
    bytes.saturating_mul(2).saturating_mul(u64::from(ranks))
}

/// Why a bandwidth has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BandwidthError {
    #[error("bus bandwidth needs at least 2 ranks, the group has {ranks}")]
    TooFewRanks { ranks: u32 },
    #[error("no time passed, so there is no rate; reduce a larger buffer")]
    NoTime,
}

/// Why a group could not form or could not complete a sum.
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    #[error("{what} {path}: {source}")]
    Io {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{path} is no shared region: it starts with {found:#018x}; give the path that the creator printed"
    )]
    NotARegion { path: PathBuf, found: u64 },
    #[error(
        "{path} is a shared region of version {found}, this program writes and reads {expected}; run one build everywhere"
    )]
    Version {
        path: PathBuf,
        found: u32,
        expected: u32,
    },
    #[error("{path} holds {len} B, its layout needs {need} B; it was truncated or is not finished")]
    Truncated { path: PathBuf, len: u64, need: u64 },
    #[error(
        "{path} was laid out for {found} ranks, this rank was told {expected}; start all ranks from one plan"
    )]
    RanksDiffer {
        path: PathBuf,
        found: u32,
        expected: u32,
    },
    #[error(
        "{path} has layout {found:016x}, this rank's buckets give {expected:016x}; start all ranks from one plan"
    )]
    LayoutDiffers {
        path: PathBuf,
        found: u64,
        expected: u64,
    },
    #[error("{ranks} ranks asked for, one machine's group takes 1 to {max}")]
    RankCount { ranks: u32, max: u32 },
    #[error("rank {rank} is outside this group of {ranks}; ranks count from 0")]
    NoSuchRank { rank: u32, ranks: u32 },
    #[error("rank {rank} is already taken by process {pid}; give each worker its own rank")]
    RankTaken { rank: u32, pid: u32 },
    #[error(
        "bucket {bucket} has {bytes} B; a bucket is a whole number of 4-byte floats, at least one"
    )]
    BucketSize { bucket: usize, bytes: u64 },
    #[error(
        "{ranks} ranks with {buckets} buckets need more memory than an address can reach; use fewer or smaller buckets"
    )]
    TooLarge { ranks: u32, buckets: usize },
    #[error("no bucket {bucket}; this group was laid out for {buckets}, counted from 0")]
    UnknownBucket { bucket: usize, buckets: usize },
    #[error(
        "rank {rank} waited {waited_ms} ms for ranks {waiting_for:?} in generation {generation}; regroup without them or raise the limit"
    )]
    TimedOut {
        rank: u32,
        generation: u32,
        waited_ms: u64,
        waiting_for: Vec<u32>,
    },
    #[error(
        "generation {generation} was given up, lost ranks {lost:?}, not arrived {waiting_for:?}; regroup the survivors"
    )]
    Aborted {
        generation: u32,
        lost: Vec<u32>,
        waiting_for: Vec<u32>,
    },
    #[error(
        "rank {rank} waited {waited_ms} ms for the other nodes in generation {generation}; its own node's ranks were all there"
    )]
    OtherNodes {
        rank: u32,
        generation: u32,
        waited_ms: u64,
    },
    #[error(
        "rank {rank} reduces bucket {bucket} while rank {peer} is at {theirs}; all ranks submit buckets in one order"
    )]
    OrderDiffers {
        rank: u32,
        bucket: u32,
        peer: u32,
        theirs: u32,
    },
    #[error(
        "rank {peer}'s {word} reads {found} where {expected} or the value before it can stand; its memory was overwritten, restart that worker"
    )]
    Scribbled {
        peer: u32,
        word: &'static str,
        found: u32,
        expected: u32,
    },
    #[error(
        "generation {generation} is not above {current}, which this group has reached; generations only grow"
    )]
    StaleGeneration { generation: u32, current: u32 },
    #[error(
        "members {members:?} do not form a group for rank {rank} of {ranks}; list each rank once, this one among them"
    )]
    BadMembers {
        members: Vec<u32>,
        rank: u32,
        ranks: u32,
    },
    #[error(
        "rank {peer} regroups with {theirs:?}, rank {rank} with {ours:?}; give every survivor the same members"
    )]
    MembersDiffer {
        rank: u32,
        ours: Vec<u32>,
        peer: u32,
        theirs: Vec<u32>,
    },
}

impl CollectiveError {
    /// Ranks that were waited for all the time there is: they are silent. Where others gave the group up, whoever had
    /// not come yet may be as well as the one that tells it.
    pub fn silent(&self) -> &[u32] {
        match self {
            Self::TimedOut { waiting_for, .. } => waiting_for,
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_that_had_not_come_when_others_gave_up_is_not_silent_and_one_that_was_waited_for_is() {
        let waiting_for = vec![1, 2];
        let given_up = CollectiveError::Aborted {
            generation: 0,
            lost: vec![3],
            waiting_for: waiting_for.clone(),
        };
        assert_eq!(given_up.silent(), [0_u32; 0]);
        let waited = CollectiveError::TimedOut {
            rank: 0,
            generation: 0,
            waited_ms: 10_000,
            waiting_for: waiting_for.clone(),
        };
        assert_eq!(waited.silent(), waiting_for);
    }

    #[test]
    fn bus_bandwidth_follows_the_published_factor() {
        let algbw = all_reduce_algbw(1 << 30, 500_000_000).unwrap();
        assert!((algbw - 2.147_483_648e9).abs() < 1.0);
        for (ranks, factor) in [(2, 1.0), (4, 1.5), (8, 1.75)] {
            let busbw = all_reduce_busbw(1 << 30, 500_000_000, ranks).unwrap();
            assert!((busbw / algbw - factor).abs() < 1e-12, "{ranks}");
        }
    }

    #[test]
    fn one_rank_or_no_time_gives_no_bandwidth() {
        assert_eq!(
            all_reduce_busbw(64, 10, 1),
            Err(BandwidthError::TooFewRanks { ranks: 1 })
        );
        assert_eq!(all_reduce_algbw(64, 0), Err(BandwidthError::NoTime));
    }

    #[test]
    fn bytes_moved_count_each_input_and_output_once() {
        assert_eq!(all_reduce_bytes_moved(100, 3), 600);
    }
}
