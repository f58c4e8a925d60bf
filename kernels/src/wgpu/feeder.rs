//! Decides when a step with gradient buckets is submitted, and carries the buckets through host memory.
//!
//! A thread of its own takes steps in order: it submits the matmuls, and as each bucket's part ends it copies the
//! addend into the collective, waits for the total and queues it back to the device, while the device goes on with
//! the parts behind; then it submits the optimizer. A group that broke stays broken until it is regrouped: the
//! steps go on and say so. Every wait is bounded.

use super::encode::{Launch, Part, Ready};
use super::gpu::Gpu;
use crate::collective::{Collective, CollectiveError, FORMING, LEAST_PATIENCE, exact};
use crate::error::KernelError;
use crate::timer::now_ns;
use crate::work::{Span, Work};
use ::wgpu::{Buffer, MapMode, SubmissionIndex};
use hallmark_profiles::workload::StepSpec;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Longest wait for the device to reach a bucket.
const DEVICE_LIMIT: Duration = Duration::from_secs(120);

/// A submission and the spans that end in it.
pub(super) type Submitted = (Range<usize>, SubmissionIndex);

/// What became of a step once its last part was submitted.
#[derive(Default)]
pub(super) struct Fed {
    pub submitted_ns: u64,
    pub parts: Vec<Submitted>,
    /// Reductions and their audits.
    pub reduced: Vec<Span>,
    pub mismatches: Vec<String>,
    pub stop_votes: u32,
    pub fault: Option<Broken>,
    pub arrival_skew_ns: u64,
}

/// Why the group cannot sum, and the ranks it waited for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Broken {
    pub why: String,
    pub missing: Vec<u32>,
}

impl From<CollectiveError> for Broken {
    fn from(error: CollectiveError) -> Self {
        Self {
            why: error.to_string(),
            missing: error.silent().to_vec(),
        }
    }
}

enum Order {
    Step(Box<Launch>),
    Regroup(u32, Vec<u32>, Duration),
}

enum Reply {
    Step(Result<Fed, KernelError>),
    Regrouped(Result<(), KernelError>),
}

/// The thread's two ends.
pub(super) struct Feeder {
    orders: Sender<Order>,
    replies: Receiver<Reply>,
    device: String,
}

impl Feeder {
    pub fn start(
        gpu: Arc<Gpu>,
        spec: &StepSpec,
        buckets: Vec<Lane>,
        collective: Box<dyn Collective>,
    ) -> Result<Self, KernelError> {
        let (orders, inbox) = channel();
        let (outbox, replies) = channel();
        let device = gpu.id.clone();
        let worker = Worker {
            gpu,
            seed: spec.seed,
            buckets,
            collective,
            patience: LEAST_PATIENCE,
            broken: None,
        };
        std::thread::Builder::new()
            .name(format!("{device} buckets"))
            .spawn(move || worker.serve(&inbox, &outbox))
            .map_err(|e| KernelError::Device {
                device: device.clone(),
                what: format!("no thread for its buckets: {e}"),
            })?;
        Ok(Self {
            orders,
            replies,
            device,
        })
    }

    pub fn feed(&self, launch: Launch) -> Result<(), KernelError> {
        self.order(Order::Step(Box::new(launch)))
    }

    /// The oldest step that was fed, once its last part is submitted.
    pub fn fed(&self, patience: Duration) -> Result<Option<Fed>, KernelError> {
        match self.replies.recv_timeout(patience) {
            Ok(Reply::Step(fed)) => fed.map(Some),
            Ok(Reply::Regrouped(_)) => Err(self.ended()),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(self.ended()),
        }
    }

    pub fn regroup(
        &self,
        generation: u32,
        members: &[u32],
        patience: Duration,
    ) -> Result<(), KernelError> {
        self.order(Order::Regroup(generation, members.to_vec(), patience))?;
        match self.replies.recv_timeout(FORMING + LEAST_PATIENCE) {
            Ok(Reply::Regrouped(done)) => done,
            Ok(Reply::Step(_)) | Err(_) => Err(self.ended()),
        }
    }

    fn order(&self, order: Order) -> Result<(), KernelError> {
        self.orders.send(order).map_err(|_| self.ended())
    }

    fn ended(&self) -> KernelError {
        KernelError::Lost {
            device: self.device.clone(),
            why: "its bucket thread ended or answers out of turn".into(),
        }
    }
}

/// A bucket as the thread needs it.
pub(super) struct Lane {
    pub bytes: u64,
    pub down: Buffer,
    pub up: Buffer,
    pub total: Buffer,
}

struct Worker {
    gpu: Arc<Gpu>,
    seed: u64,
    buckets: Vec<Lane>,
    collective: Box<dyn Collective>,
    patience: Duration,
    broken: Option<Broken>,
}

impl Worker {
    fn serve(mut self, inbox: &Receiver<Order>, outbox: &Sender<Reply>) {
        while let Ok(order) = inbox.recv() {
            let reply = match order {
                Order::Step(launch) => Reply::Step(self.step(*launch)),
                Order::Regroup(generation, members, patience) => {
                    self.patience = patience;
                    Reply::Regrouped(self.regroup(generation, &members))
                }
            };
            if outbox.send(reply).is_err() {
                return;
            }
        }
    }

    fn regroup(&mut self, generation: u32, members: &[u32]) -> Result<(), KernelError> {
        self.collective.regroup(generation, members, FORMING)?;
        self.broken = None;
        Ok(())
    }

    fn step(&mut self, launch: Launch) -> Result<Fed, KernelError> {
        let mut fed = Fed {
            submitted_ns: now_ns(),
            parts: Vec::with_capacity(launch.head.len() + launch.tail.len()),
            ..Fed::default()
        };
        submit(&self.gpu, launch.head, &mut fed.parts)?;
        self.collective.within_node(launch.within_node);
        for ready in launch.ready {
            let index = fed.parts[ready.part].1.clone();
            self.gpu.finish(&index, DEVICE_LIMIT)?;
            if self.broken.is_none() {
                self.reduce(ready, launch.seq, &mut fed)?;
            }
        }
        submit(&self.gpu, launch.tail, &mut fed.parts)?;
        if let Some(stop) = launch.stop {
            if self.broken.is_none()
                && let Err(error) = self.vote(stop, &mut fed)
            {
                self.broken = Some(error.into());
            }
            fed.fault.clone_from(&self.broken);
            if fed.fault.is_some() {
                fed.reduced.clear();
            }
        }
        Ok(fed)
    }

    /// From the addend's arrival in host memory until the total is queued for the device.
    fn reduce(&mut self, ready: Ready, seq: u64, fed: &mut Fed) -> Result<(), KernelError> {
        let start_ns = now_ns();
        let Lane {
            bytes, ref down, ..
        } = self.buckets[ready.bucket];
        let input = self.collective.input(ready.bucket)?;
        self.gpu.read(down, DEVICE_LIMIT, |from| {
            bytemuck::cast_slice_mut::<f32, u8>(input).copy_from_slice(&from[..bytes as usize]);
        })?;
        match self.collective.all_reduce(ready.bucket, self.patience) {
            Ok(done) => fed.arrival_skew_ns += done.waited_ns(),
            Err(error) => {
                self.broken = Some(error.into());
                return Ok(());
            }
        }
        self.upload(ready.bucket)?;
        let end_ns = now_ns();
        fed.reduced.push(Span {
            work: Work::AllReduce,
            start_ns,
            end_ns,
            amount: bytes as f64,
        });
        if ready.audited {
            let wrong = self.wrong(ready.bucket, seq)?;
            fed.mismatches.extend(wrong);
            fed.reduced.push(Span {
                work: Work::Audit,
                start_ns: end_ns,
                end_ns: now_ns(),
                amount: 0.0,
            });
        }
        Ok(())
    }

    /// The last bucket of the group carries the votes to stop.
    fn vote(&mut self, stop: bool, fed: &mut Fed) -> Result<(), CollectiveError> {
        let bucket = self.collective.buckets().saturating_sub(1);
        if let Some(vote) = self.collective.input(bucket)?.first_mut() {
            *vote = f32::from(u8::from(stop));
        }
        let done = self.collective.all_reduce(bucket, self.patience)?;
        fed.arrival_skew_ns += done.waited_ns();
        let votes = self.collective.output(bucket)?.first();
        fed.stop_votes = votes.map_or(0, |v| *v as u32);
        Ok(())
    }

    fn upload(&mut self, number: usize) -> Result<(), KernelError> {
        let bucket = &mut self.buckets[number];
        self.gpu.map(&bucket.up, MapMode::Write, DEVICE_LIMIT)?;
        let total = self.collective.output(number)?;
        let written = bucket
            .up
            .get_mapped_range_mut(..bucket.bytes)
            .map(|mut view| view.copy_from_slice(bytemuck::cast_slice(total)))
            .map_err(|e| self.gpu.failed(&e));
        bucket.up.unmap();
        written?;
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&bucket.up, 0, &bucket.total, 0, bucket.bytes);
        self.gpu.submit(Some(encoder.finish()))?;
        Ok(())
    }

    /// The total must have the bits that the members' addends give in any order.
    fn wrong(&mut self, bucket: usize, seq: u64) -> Result<Option<String>, KernelError> {
        let total = self.collective.output(bucket)?;
        let members = self.collective.members();
        let found = exact::digest(total);
        let expected = match exact::expected_digest(self.seed, members, total.len(), seq) {
            Ok(expected) => expected,
            Err(error) => return Ok(Some(error.to_string())),
        };
        if expected == found {
            return Ok(None);
        }
        let first = exact::first_mismatch(total, self.seed, members, seq);
        let at = first.ok().flatten().map_or_else(String::new, |m| {
            format!("; element {} is {}, not {}", m.index, m.found, m.expected)
        });
        Ok(Some(format!(
            "all-reduce of bucket {bucket}: digest {found}, expected {expected}{at}"
        )))
    }
}

/// Submits parts in order.
pub(super) fn submit(
    gpu: &Gpu,
    parts: Vec<Part>,
    into: &mut Vec<Submitted>,
) -> Result<(), KernelError> {
    for part in parts {
        let index = gpu.submit(Some(part.commands))?;
        into.push((part.spans, index));
    }
    Ok(())
}
