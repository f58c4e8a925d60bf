//! Decides when a step with gradient buckets is queued, and carries the buckets through host memory.
//!
//! A thread of its own takes steps in order: it queues the matmuls, and as each bucket arrives in host memory it hands
//! the addend to the collective, waits for the total and queues it back to the device, while the device goes on with the
//! matmuls behind; then it queues the optimizer. A group that broke stays broken until it is regrouped: the steps
//! go on and say so. Every wait is bounded.

use super::course::{Course, Ready};
use super::rig::{Into, Rig};
use crate::collective::{Collective, CollectiveError, FORMING, LEAST_PATIENCE, exact};
use crate::error::KernelError;
use crate::timer::now_ns;
use crate::work::{Span, Work};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Longest wait for the device to reach a bucket.
const DEVICE_LIMIT: Duration = Duration::from_secs(120);

/// What became of a step once its last part was queued.
#[derive(Default)]
pub(super) struct Fed {
    pub submitted_ns: u64,
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
    Step(Arc<Course>, usize),
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
    pub fn start(rig: Arc<Rig>, collective: Box<dyn Collective>) -> Result<Self, KernelError> {
        let (orders, inbox) = channel();
        let (outbox, replies) = channel();
        let device = rig.gpu.id.clone();
        let worker = Worker {
            rig,
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

    pub fn feed(&self, course: Arc<Course>, slot: usize) -> Result<(), KernelError> {
        self.order(Order::Step(course, slot))
    }

    /// The oldest step that was fed, once its last part is queued.
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

struct Worker {
    rig: Arc<Rig>,
    collective: Box<dyn Collective>,
    patience: Duration,
    broken: Option<Broken>,
}

impl Worker {
    fn serve(mut self, inbox: &Receiver<Order>, outbox: &Sender<Reply>) {
        let attached = self.rig.gpu.attach();
        let mut refused = attached.err();
        for order in inbox {
            let reply = match order {
                Order::Step(course, slot) => Reply::Step(match refused.take() {
                    Some(error) => Err(error),
                    None => self.step(&course, slot),
                }),
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

    fn step(&mut self, course: &Course, slot: usize) -> Result<Fed, KernelError> {
        let mut fed = Fed {
            submitted_ns: now_ns(),
            ..Fed::default()
        };
        let Some(stop) = course.stop else {
            self.rig.whole(course, slot)?;
            return Ok(fed);
        };
        let rig = Arc::clone(&self.rig);
        self.collective.within_node(course.parts.within_node);
        rig.head(course, slot, &mut Into::Queue)?;
        for ready in &course.ready {
            rig.arrays.buckets[ready.bucket]
                .arrived
                .wait(DEVICE_LIMIT)?;
            if self.broken.is_none() {
                self.reduce(*ready, course.seq, &mut fed)?;
            }
        }
        // The optimizer, and the next step's fresh addends, come behind every total.
        if let Some(bucket) = course.ready.last().map(|r| &rig.arrays.buckets[r.bucket]) {
            rig.copies.record(&bucket.arrived)?;
            rig.stream.wait_for(&bucket.arrived)?;
        }
        rig.tail(course, slot, &Into::Queue)?;
        if self.broken.is_none()
            && let Err(error) = self.vote(stop, &mut fed)
        {
            self.broken = Some(error.into());
        }
        fed.fault.clone_from(&self.broken);
        if fed.fault.is_some() {
            fed.reduced.clear();
        }
        Ok(fed)
    }

    /// From the addend's arrival in host memory until the total is queued for the device.
    fn reduce(&mut self, ready: Ready, seq: u64, fed: &mut Fed) -> Result<(), KernelError> {
        let start_ns = now_ns();
        let rig = Arc::clone(&self.rig);
        let bucket = &rig.arrays.buckets[ready.bucket];
        let input = self.collective.input(ready.bucket)?;
        let into = bytemuck::cast_slice_mut::<f32, u8>(input);
        // SAFETY: the copy down has ended, and the next begins with the next step, on this thread.
        let from = unsafe { bucket.down.bytes() };
        let length = into.len().min(from.len());
        into[..length].copy_from_slice(&from[..length]);
        match self.collective.all_reduce(ready.bucket, self.patience) {
            Ok(done) => fed.arrival_skew_ns += done.waited_ns(),
            Err(error) => {
                self.broken = Some(error.into());
                return Ok(());
            }
        }
        let total = self.collective.output(ready.bucket)?;
        // SAFETY: the copy up of the step before ended before that step's optimizer, and this step's buckets came down
        // behind it; this thread alone writes here.
        unsafe { bucket.up.write(bytemuck::cast_slice(total)) };
        rig.copies.up(&bucket.up, &bucket.total, bucket.bytes)?;
        let end_ns = now_ns();
        fed.reduced.push(Span {
            work: Work::AllReduce,
            start_ns,
            end_ns,
            amount: bucket.bytes as f64,
        });
        if ready.audited {
            fed.mismatches.extend(self.wrong(ready.bucket, seq)?);
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

    /// The total must have the bits that the members' addends give in any order.
    fn wrong(&self, bucket: usize, seq: u64) -> Result<Option<String>, KernelError> {
        let total = self.collective.output(bucket)?;
        let members = self.collective.members();
        let seed = self.rig.spec.seed;
        let found = exact::digest(total);
        let expected = match exact::expected_digest(seed, members, total.len(), seq) {
            Ok(expected) => expected,
            Err(error) => return Ok(Some(error.to_string())),
        };
        if expected == found {
            return Ok(None);
        }
        let first = exact::first_mismatch(total, seed, members, seq);
        let at = first.ok().flatten().map_or_else(String::new, |m| {
            format!("; element {} is {}, not {}", m.index, m.found, m.expected)
        });
        Ok(Some(format!(
            "all-reduce of bucket {bucket}: digest {found}, expected {expected}{at}"
        )))
    }
}
