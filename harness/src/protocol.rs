//! What a run and its workers say to each other, and how it is framed on a pipe.
//!
//! Each message is a length (u32, little endian) and a MessagePack body. Lengths are bounded: a
//! worker that lies is a fault, not a crash. What a controller and the agents of a hall say to each other over a
//! network is in [`link`], who may speak at all in [`authority`].

pub mod authority;
pub mod codec;
pub mod link;

use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::profile::Pulse;
use hallmark_profiles::workload::{Parts, StepSpec};
use hallmark_results::frame::{FaultKind, Steps};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Largest message; a batch of steps is some hundred kilobytes.
const MESSAGE_MAX: u32 = 32 << 20;

/// From the run to a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Open the device and say how fast it is, roughly.
    Open {
        device: u32,
        info: DeviceInfo,
        epoch_ns: u64,
        /// Measure a rate with a few small matmuls, for a profile that fits its step to the device.
        probe: bool,
        /// Test nearly all free memory by patterns first.
        #[serde(default)]
        memory_test: bool,
    },
    /// Prepare all steps of the plan and run the self-test. The group is formed by the first [`Self::Regroup`].
    Prepare {
        steps: Vec<StepSpec>,
        groups: Vec<Group>,
        queue_depth: u32,
    },
    Start(Order),
    /// End the current order in good order.
    Stop,
    /// Form the group of these ranks, at first and whenever one is lost. Only when idle.
    Regroup {
        generation: u32,
        members: Vec<u32>,
        /// How long a rank waits for the others of an all-reduce before it gives the group up.
        patience: Duration,
    },
    Quit,
}

/// The group that a worker's buckets are reduced in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Index into the steps: one that has buckets. Each such step has a group of its own, and all are formed together.
    pub step: usize,
    /// File of the shared region.
    pub path: PathBuf,
    pub rank: u32,
    pub ranks: u32,
    /// Where the group goes beyond this node: the last rank of the region is the node's bridge then.
    #[serde(default)]
    pub hall: Option<Beyond>,
}

/// What a rank has to know of a group that goes beyond its node.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beyond {
    /// Number in the hall of the node's first rank.
    pub first: u32,
    /// What the nodes summed per second when it was tried: how long a step may take rests on it.
    pub bytes_per_s: f64,
}

/// Work on one segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Index into the plan's schedule.
    pub segment: u32,
    pub step: usize,
    pub parts: Parts,
    /// Run time before which no step is begun.
    #[serde(default)]
    pub from_ns: u64,
    /// Run time after which no step is begun, but for those that the group has to finish together.
    pub until_ns: u64,
    /// The steps of all ranks belong together.
    pub coupled: bool,
    /// Number of the first step.
    pub first_seq: u64,
    pub pulse: Option<Pulse>,
}

/// From a worker to the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    Opened {
        info: Box<DeviceInfo>,
        free_bytes: u64,
        /// FLOP/s of the probe, if one was asked for.
        probe: Option<f64>,
        /// Wrong words of the test of free memory.
        #[serde(default)]
        memory_faults: Vec<String>,
    },
    Prepared {
        self_test_passed: bool,
        self_test: String,
        /// What moves the collective's bytes.
        transport: Option<String>,
        /// About how long each step takes, from the self-test's matmul; rather too long than too short.
        expected_ns: Vec<u64>,
        /// What the engine decided for the whole run.
        facts: Vec<(String, String)>,
    },
    Steps(Steps),
    /// Nothing is in flight and nothing is due before this run time.
    Resting {
        until_ns: u64,
    },
    Mismatch {
        at_ns: u64,
        detail: String,
    },
    /// A check of the load was tried on a fault that was injected.
    SelfTest {
        passed: bool,
        detail: String,
    },
    /// The order is done and nothing is in flight.
    Idle {
        segment: u32,
        next_seq: u64,
    },
    /// The collective failed; nothing is in flight; waiting for a regroup.
    Broken {
        segment: u32,
        next_seq: u64,
        why: String,
        /// Ranks waited for in vain.
        missing: Vec<u32>,
    },
    Regrouped {
        generation: u32,
    },
    Fault {
        kind: FaultKind,
        detail: String,
    },
}

/// A pipe that broke or a peer that does not speak this protocol.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    #[error("the pipe broke: {0}")]
    Pipe(#[from] std::io::Error),
    #[error("a message of {bytes} bytes was announced; the limit is {MESSAGE_MAX}")]
    TooLong { bytes: u32 },
    #[error("a message cannot be read: {0}")]
    Garbled(String),
}

/// Writes one message.
///
/// # Errors
/// [`ProtocolError::Pipe`] when the peer is gone.
pub fn send<T: Serialize>(pipe: &mut impl Write, message: &T) -> Result<(), ProtocolError> {
    let body =
        rmp_serde::to_vec_named(message).map_err(|e| ProtocolError::Garbled(e.to_string()))?;
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    if length > MESSAGE_MAX {
        return Err(ProtocolError::TooLong { bytes: length });
    }
    pipe.write_all(&length.to_le_bytes())?;
    pipe.write_all(&body)?;
    Ok(pipe.flush()?)
}

/// Reads one message; `None` at a clean end of the pipe.
///
/// # Errors
/// [`ProtocolError`].
pub fn receive<T: DeserializeOwned>(pipe: &mut impl Read) -> Result<Option<T>, ProtocolError> {
    let mut length = [0; 4];
    match pipe.read_exact(&mut length) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let bytes = u32::from_le_bytes(length);
    if bytes > MESSAGE_MAX {
        return Err(ProtocolError::TooLong { bytes });
    }
    let mut body = vec![0; bytes as usize];
    pipe.read_exact(&mut body)?;
    rmp_serde::from_slice(&body)
        .map(Some)
        .map_err(|e| ProtocolError::Garbled(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_as_sent_and_a_clean_end_is_no_error() {
        let mut pipe = Vec::new();
        send(&mut pipe, &FromWorker::Regrouped { generation: 7 }).unwrap();
        let mut reader = pipe.as_slice();
        assert_eq!(
            receive(&mut reader).unwrap(),
            Some(FromWorker::Regrouped { generation: 7 })
        );
        assert_eq!(receive::<FromWorker>(&mut reader).unwrap(), None);
    }

    #[test]
    fn a_length_beyond_all_bounds_is_refused_before_it_is_allocated() {
        let error = receive::<FromWorker>(&mut [0xFF_u8; 64].as_slice()).unwrap_err();
        assert!(matches!(error, ProtocolError::TooLong { .. }), "{error}");
    }

    #[test]
    fn garbage_is_an_error_never_a_panic() {
        for seed in 0..=255_u8 {
            let body = [seed; 40];
            let mut pipe = 40_u32.to_le_bytes().to_vec();
            pipe.extend(body);
            let _ = receive::<FromWorker>(&mut pipe.as_slice());
        }
    }
}
