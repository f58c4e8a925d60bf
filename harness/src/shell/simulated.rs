//! The virtual shell: one event queue drives run, load drivers and sensors; no time passes.
//!
//! The same state machines as in the real shell, so that ten simulated minutes are one exact,
//! instant test. Devices here only know how long a step takes and when they fail; everything they
//! say is *simulated*.

use crate::load::{Act, Driver};
use crate::protocol::{FromWorker, ToWorker};
use crate::run::{Input, Output, Run};
use crate::sensor::Sensor;
use crate::shell::probes::{Batch, next_due};
use hallmark_kernels::timer::Timer;
use hallmark_kernels::work::{Span, StepDone, Submission, Work};
use hallmark_results::frame::{ClockState, Closed, Ending, FaultKind, Frame, Steps, Table};
use hallmark_results::plan::Plan;
use hallmark_results::standing::Standing;
use hallmark_results::stats::bootstrap::SplitMix64;
use std::collections::{BTreeMap, VecDeque};

/// As a worker's: a rest longer than this is told.
const REST_NS: u64 = 1_000_000_000;
/// Rows are handed over at least this often.
const BATCH_NS: u64 = 200_000_000;
/// A simulation that does nothing for this many events is stuck.
const EVENTS_MAX: u64 = 2_000_000_000;

/// What a simulated device does.
pub trait Physics {
    /// Time that the matmuls of this step take from now; `None` when the device never answers again.
    fn compute_ns(&mut self, seq: u64, now_ns: u64) -> Option<u64>;

    /// Time of the step's all-reduce once all ranks have come.
    fn reduce_ns(&self) -> u64;

    /// About how long a step takes, as a worker estimates before the first; 0 where it cannot.
    fn expected_ns(&self) -> u64 {
        0
    }
}

/// A simulated sensor and the table it fills.
pub struct Gauge {
    pub table: Table,
    pub sensor: Box<dyn Sensor>,
}

/// Something the operator or the world does at a given time.
#[derive(Clone, Debug)]
pub struct Happening {
    pub at_ns: u64,
    pub input: Input,
}

struct Device {
    driver: Driver,
    physics: Box<dyn Physics>,
    queue: VecDeque<Queued>,
    free_ns: u64,
    dead: bool,
    coupled: bool,
    /// Its group broke; every later reduction fails at once until the survivors regroup.
    broken: bool,
    rows: Steps,
    flushed_ns: u64,
    wait_ns: u64,
    /// End of the rest that was told last.
    rests_until_ns: u64,
}

struct Queued {
    submission: Submission,
    step: usize,
    submitted_ns: u64,
    /// Set when the step before it has ended: its start, and when its own work is done; no such time for a device that hangs.
    started: Option<(u64, Option<u64>)>,
}

struct Watched {
    gauge: Gauge,
    batch: Batch,
    due_ns: u64,
    random: SplitMix64,
}

/// One run in virtual time.
pub struct World {
    plan: Plan,
    devices: Vec<Device>,
    sensors: Vec<Watched>,
    /// Arrivals by step: rank and time.
    arrivals: BTreeMap<u64, BTreeMap<u32, u64>>,
    members: Vec<u32>,
    /// As a real rank's: one that waits longer for others gives up.
    patience_ns: u64,
    /// Devices that did not come up.
    missing: Vec<u32>,
    abandoned: bool,
    now_ns: u64,
    inputs: VecDeque<Input>,
    journal: Vec<Frame>,
    ending: Option<Ending>,
}

impl World {
    /// Devices in the plan's order; sensors with tables numbered from 0.
    pub fn new(plan: &Plan, physics: Vec<Box<dyn Physics>>, gauges: Vec<Gauge>) -> Self {
        let device = |(index, physics): (usize, Box<dyn Physics>)| Device {
            driver: Driver::new(plan.queue_depth),
            physics,
            queue: VecDeque::new(),
            free_ns: 0,
            dead: false,
            coupled: false,
            broken: false,
            rows: empty(index as u32),
            flushed_ns: 0,
            wait_ns: u64::MAX,
            rests_until_ns: 0,
        };
        let sensors = gauges.into_iter().map(|gauge| Watched {
            batch: Batch::new(gauge.table.id, gauge.table.series.len()),
            due_ns: 0,
            random: SplitMix64::new(plan.seed ^ u64::from(gauge.table.id)),
            gauge,
        });
        let devices: Vec<Device> = physics.into_iter().enumerate().map(device).collect();
        Self {
            members: Vec::new(),
            patience_ns: 0,
            missing: Vec::new(),
            plan: plan.clone(),
            devices,
            sensors: sensors.collect(),
            arrivals: BTreeMap::new(),
            abandoned: false,
            now_ns: 0,
            inputs: VecDeque::new(),
            journal: Vec::new(),
            ending: None,
        }
    }

    /// Devices of the plan that do not come up.
    #[must_use]
    pub fn without(mut self, missing: &[u32]) -> Self {
        self.missing = missing.to_vec();
        for device in missing {
            if let Some(device) = self.devices.get_mut(*device as usize) {
                device.dead = true;
            }
        }
        self
    }

    /// Runs the plan of `standing` to its end; gives the account and every journalled frame.
    pub fn perform(
        mut self,
        standing: Standing,
        mut happenings: Vec<Happening>,
    ) -> (Standing, Vec<Frame>) {
        happenings.sort_by_key(|h| h.at_ns);
        let mut happenings = VecDeque::from(happenings);
        let absent = |d: &u32| (*d, FaultKind::Missing, "it is not there".to_owned());
        let missing: Vec<_> = self.missing.iter().map(absent).collect();
        let start_ns = standing.last_ns();
        self.now_ns = start_ns;
        let mut run = Run::new(standing, &missing, Vec::new(), start_ns);
        for (index, device) in self.devices.iter().enumerate() {
            let each_ns = device.physics.expected_ns();
            run.expect_steps(index as u32, vec![each_ns; self.plan.steps.len()]);
        }
        let mut outputs = Vec::new();
        for watched in &self.sensors {
            outputs.extend(run.handle(Input::Table(watched.gauge.table.clone()), start_ns));
        }
        outputs.extend(run.begin(0, start_ns));
        self.carry_out(outputs);
        for _ in 0..EVENTS_MAX {
            if run.is_finished() {
                break;
            }
            while happenings.front().is_some_and(|h| h.at_ns <= self.now_ns) {
                self.inputs.extend(happenings.pop_front().map(|h| h.input));
            }
            self.devices();
            self.sensors();
            while let Some(input) = self.inputs.pop_front() {
                let outputs = run.handle(input, self.now_ns);
                self.carry_out(outputs);
            }
            let outputs = run.poll(self.now_ns);
            let idle = outputs.is_empty();
            self.carry_out(outputs);
            if idle {
                let next = happenings.front().map_or(u64::MAX, |h| h.at_ns);
                self.now_ns = self
                    .next_event()
                    .min(run.deadline(self.now_ns))
                    .min(next)
                    .max(self.now_ns + 1);
            }
        }
        self.last_rows(&mut run);
        let outputs = run.last_words(self.now_ns);
        self.carry_out(outputs);
        let closed = Frame::Closed(Closed {
            at_ns: self.now_ns,
            utc_end: String::new(),
            clock: ClockState {
                synchronised: Some(true),
                max_error_s: Some(0.0),
            },
            ending: self.ending.clone().unwrap_or(Ending::Complete),
        });
        self.journal.push(closed.clone());
        (run.close(&closed), self.journal)
    }

    fn last_rows(&mut self, run: &mut Run) {
        for index in 0..self.sensors.len() {
            if let Some(samples) = self.sensors[index].batch.take(u64::MAX, true) {
                let outputs = run.handle(Input::Samples(samples), self.now_ns);
                self.carry_out(outputs);
            }
        }
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Journal(frame) => self.journal.push(frame),
                Output::Tell(device, order) => self.tell(device, order),
                Output::Kill(device) => {
                    if let Some(device) = self.devices.get_mut(device as usize) {
                        device.dead = true;
                    }
                }
                Output::Abandon { .. } => self.abandoned = true,
                Output::Finished(ending) => self.ending = Some(ending),
            }
        }
    }

    fn tell(&mut self, index: u32, order: ToWorker) {
        let now = self.now_ns;
        let Some(device) = self.devices.get_mut(index as usize).filter(|d| !d.dead) else {
            return;
        };
        match order {
            ToWorker::Start(order) => {
                device.coupled = order.coupled;
                device.driver.start(order, now);
            }
            ToWorker::Stop => device.driver.stop(),
            ToWorker::Regroup {
                generation,
                members,
                patience,
            } => {
                self.patience_ns = patience.as_nanos() as u64;
                self.members = members;
                self.abandoned = false;
                self.arrivals.clear();
                self.devices.iter_mut().for_each(|d| d.broken = false);
                self.inputs
                    .push_back(Input::Worker(index, FromWorker::Regrouped { generation }));
            }
            ToWorker::Open { .. } | ToWorker::Prepare { .. } | ToWorker::Quit => {}
        }
    }

    /// Lets every driver act until it has to wait.
    fn devices(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            for index in 0..self.devices.len() {
                moved |= self.device(index);
            }
        }
    }

    /// One device as far as it can go now; whether anything happened that others may wait for.
    fn device(&mut self, index: usize) -> bool {
        let mut moved = false;
        while !self.devices[index].dead {
            let now = self.now_ns;
            self.devices[index].wait_ns = u64::MAX;
            moved |= self.start(index);
            match self.devices[index].driver.poll(now) {
                Act::Submit(submission) => {
                    moved = true;
                    self.submit(index, submission);
                }
                Act::Retire => match self.head_done(index) {
                    Some(done) if done.end_ns <= now => {
                        moved = true;
                        self.retire(index, &done);
                    }
                    Some(done) => {
                        self.devices[index].wait_ns = done.end_ns;
                        return moved;
                    }
                    None => return moved,
                },
                Act::Wait { until_ns } => {
                    self.flush(index);
                    self.rest(index, until_ns);
                    return moved;
                }
                Act::Done {
                    segment,
                    next_seq,
                    broken,
                } => {
                    moved = true;
                    self.flush(index);
                    let missing = self.absent_ranks();
                    let report = if broken {
                        let why = "an all-reduce did not complete".to_owned();
                        FromWorker::Broken {
                            segment,
                            next_seq,
                            why,
                            missing,
                        }
                    } else {
                        FromWorker::Idle { segment, next_seq }
                    };
                    self.inputs.push_back(Input::Worker(index as u32, report));
                }
            }
        }
        moved
    }

    /// As a worker does, it tells a rest that could be taken for a silence.
    fn rest(&mut self, index: usize, until_ns: u64) {
        let device = &mut self.devices[index];
        device.wait_ns = until_ns;
        let long = until_ns.saturating_sub(self.now_ns) > REST_NS;
        if device.driver.segment().is_some() && long && device.rests_until_ns != until_ns {
            device.rests_until_ns = until_ns;
            let rest = FromWorker::Resting { until_ns };
            self.inputs.push_back(Input::Worker(index as u32, rest));
        }
    }

    /// Ranks that some unfinished step still waits for.
    fn absent_ranks(&self) -> Vec<u32> {
        let first = self
            .arrivals
            .values()
            .find(|a| a.len() < self.members.len());
        let came = |m: &&u32| first.is_some_and(|a| !a.contains_key(m));
        self.members.iter().filter(came).copied().collect()
    }

    fn submit(&mut self, index: usize, submission: Submission) {
        let device = &mut self.devices[index];
        let step = device.driver.step().unwrap_or(0);
        device.queue.push_back(Queued {
            submission,
            step,
            submitted_ns: self.now_ns,
            started: None,
        });
    }

    /// Starts the oldest step if it has not been; whether that is news.
    fn start(&mut self, index: usize) -> bool {
        let device = &mut self.devices[index];
        let Some(head) = device.queue.front_mut().filter(|q| q.started.is_none()) else {
            return false;
        };
        let start_ns = device.free_ns.max(head.submitted_ns);
        let seq = head.submission.seq;
        let own_ns = device
            .physics
            .compute_ns(seq, start_ns)
            .map(|t| start_ns + t);
        head.started = Some((start_ns, own_ns));
        if let Some(at) = own_ns.filter(|_| device.coupled) {
            self.arrivals
                .entry(seq)
                .or_default()
                .insert(index as u32, at);
        }
        true
    }

    /// The oldest step of a device, if it is known when it ends.
    fn head_done(&mut self, index: usize) -> Option<StepDone> {
        let device = &self.devices[index];
        let head = device.queue.front()?;
        let own_ns = head.started?.1?;
        if !device.coupled {
            return Some(self.done(index, own_ns, 0, None));
        }
        let arrivals = self.arrivals.get(&head.submission.seq)?;
        if self.members.iter().all(|m| arrivals.contains_key(m)) {
            let last = arrivals.values().copied().max().unwrap_or(own_ns);
            let end = last + device.physics.reduce_ns();
            // All ranks see the votes of all: in virtual time every rank votes by the same clock.
            let votes = u32::from(head.submission.stop);
            return Some(self.done(index, end, votes, None));
        }
        let gave_up = own_ns + self.patience_ns;
        let broken = device.broken || self.abandoned || self.now_ns >= gave_up;
        self.devices[index].broken |= broken;
        broken.then(|| {
            let why = "other ranks did not arrive".to_owned();
            self.done(index, self.now_ns.max(own_ns), 0, Some(why))
        })
    }

    fn done(&self, index: usize, end_ns: u64, stop_votes: u32, fault: Option<String>) -> StepDone {
        let device = &self.devices[index];
        let (seq, start_ns, own_ns, step, parts) =
            device.queue.front().map_or((0, 0, 0, 0, None), |q| {
                let (start, own) = q.started.unwrap_or((q.submitted_ns, None));
                (
                    q.submission.seq,
                    start,
                    own.unwrap_or(start),
                    q.step,
                    Some(q.submission.parts),
                )
            });
        let spec = &self.plan.steps[step.min(self.plan.steps.len().saturating_sub(1))];
        let gemms = parts.is_some_and(|p| p.gemms);
        let reduces = parts.is_some_and(|p| p.buckets) && device.coupled && fault.is_none();
        let mut spans = Vec::new();
        if gemms {
            spans.push(Span {
                work: Work::Matmul,
                start_ns,
                end_ns: own_ns,
                amount: spec.flop().0,
            });
        }
        for bucket in spec.buckets.iter().filter(|_| reduces) {
            spans.push(Span {
                work: Work::AllReduce,
                start_ns: own_ns,
                end_ns,
                amount: bucket.bytes.0 as f64,
            });
        }
        let count = if gemms { spec.gemms.len() as u32 } else { 0 };
        // The share that would have been audited; there is no result to be wrong.
        let audited = (f64::from(count) * spec.audit_share).ceil() as u32;
        StepDone {
            seq,
            start_ns,
            end_ns,
            timer: Timer::DeviceEvent,
            spans,
            gemms: count,
            audited,
            audited_flop: spec.flop().0 * f64::from(audited) / f64::from(count.max(1)),
            mismatches: Vec::new(),
            stop_votes,
            collective_fault: fault,
            missing_ranks: Vec::new(),
            arrival_skew_ns: 0,
        }
    }

    fn retire(&mut self, index: usize, done: &StepDone) {
        let device = &mut self.devices[index];
        device.queue.pop_front();
        device.free_ns = device.free_ns.max(done.end_ns);
        if let Some((row, ops)) = device.driver.retired(done, |t| t)
            && done.collective_fault.is_none()
        {
            device.rows.rows.push(row);
            device.rows.ops.extend(ops);
        }
        if self.now_ns.saturating_sub(self.devices[index].flushed_ns) > BATCH_NS {
            self.flush(index);
        }
        // A step that all ranks have retired is no longer asked for.
        let oldest = self
            .devices
            .iter()
            .filter_map(|d| d.queue.front())
            .map(|q| q.submission.seq)
            .min();
        if let Some(oldest) = oldest {
            self.arrivals = self.arrivals.split_off(&oldest.min(done.seq));
        }
    }

    fn flush(&mut self, index: usize) {
        let device = &mut self.devices[index];
        device.flushed_ns = self.now_ns;
        if !device.rows.rows.is_empty() {
            let rows = std::mem::replace(&mut device.rows, empty(index as u32));
            self.inputs
                .push_back(Input::Worker(index as u32, FromWorker::Steps(rows)));
        }
    }

    fn sensors(&mut self) {
        for watched in &mut self.sensors {
            if watched.due_ns > self.now_ns {
                continue;
            }
            let reading = watched.gauge.sensor.read(self.now_ns);
            let device = watched.gauge.table.device;
            for what in watched.batch.add(self.now_ns, reading) {
                self.inputs.push_back(Input::Event(what, device));
            }
            self.inputs
                .extend(watched.batch.take(self.now_ns, false).map(Input::Samples));
            let period = watched.gauge.table.period_ns;
            watched.due_ns = next_due(watched.due_ns, self.now_ns, period, &mut watched.random);
        }
    }

    fn next_event(&self) -> u64 {
        let sensors = self.sensors.iter().map(|s| s.due_ns);
        let devices = self.devices.iter().filter(|d| !d.dead).map(|d| d.wait_ns);
        sensors.chain(devices).min().unwrap_or(u64::MAX)
    }
}

fn empty(device: u32) -> Steps {
    Steps {
        device,
        device_clock: true,
        rows: Vec::new(),
        ops: Vec::new(),
    }
}
