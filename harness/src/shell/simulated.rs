//! The virtual shell: one event queue drives run, load drivers and sensors; no time passes.
//!
//! The same state machines as in the real shell, so that ten simulated minutes are one exact,
//! instant test. A hall here is one world whose devices are numbers: it says how long work takes,
//! when a device fails and what its sensors read; everything it says is *simulated*. An event costs
//! what the devices cost that it concerns, so that halls of thousands can be played.

pub mod meeting;
mod separate;

use crate::load::{Act, Driver};
use crate::protocol::{FromWorker, ToWorker};
use crate::run::{Input, Output, Run};
use hallmark_kernels::timer::Timer;
use hallmark_kernels::work::{StepDone, Submission};
use hallmark_profiles::workload::{Parts, StepSpec};
use hallmark_results::frame::{ClockState, Closed, Ending, FaultKind, Frame, Steps, Table};
use hallmark_results::plan::Plan;
use hallmark_results::standing::Standing;
use meeting::Meetings;
pub use separate::{Gauge, Physics, Separate};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// As a worker's: a rest longer than this is told.
const REST_NS: u64 = 1_000_000_000;
/// Rows are handed over at least this often.
const BATCH_NS: u64 = 200_000_000;
/// A simulation that does nothing for this many events is stuck.
const EVENTS_MAX: u64 = 20_000_000_000;

/// One step as a device is asked for it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub seq: u64,
    /// Index into the plan's steps.
    pub step: usize,
    pub spec: &'a StepSpec,
    pub parts: Parts,
    /// The ranks' steps belong together.
    pub coupled: bool,
}

/// A hall as one world.
pub trait Hall {
    /// The tables that its sensors fill, numbered from 0.
    fn tables(&self) -> Vec<Table>;

    /// About how long a step takes, as a worker estimates before the first; 0 where it cannot.
    fn expected_ns(&self, device: usize, step: usize) -> u64;

    /// When the device's own work of a step that starts at `start_ns` is done; `None` when it never answers again.
    fn begin(&mut self, device: usize, asked: &Asked, start_ns: u64) -> Option<u64>;

    /// When a coupled step ends on this device whose slowest rank had done its own work at `last_ns`.
    fn reduced(&mut self, device: usize, asked: &Asked, last_ns: u64) -> u64;

    /// Fills in what was done in a step that is over; the device's own work ended at `own_ns`.
    fn tell(&mut self, device: usize, asked: &Asked, own_ns: u64, done: &mut StepDone);

    /// When [`Self::sense`] is due next.
    fn next_ns(&self) -> u64;

    /// Reads what is due, and lets happen what happens by itself.
    fn sense(&mut self, now_ns: u64, inputs: &mut dyn FnMut(Input));

    /// Hands over what was read and not yet handed over, at the end.
    fn rest(&mut self, inputs: &mut dyn FnMut(Input));
}

/// Something the operator or the world does at a given time.
#[derive(Clone, Debug)]
pub struct Happening {
    pub at_ns: u64,
    pub input: Input,
}

struct Device {
    driver: Driver,
    queue: VecDeque<Queued>,
    free_ns: u64,
    dead: bool,
    coupled: bool,
    /// Its group broke; every later reduction fails at once until the survivors regroup.
    broken: bool,
    rows: Steps,
    flushed_ns: u64,
    /// When it is looked at next, by the latest entry in the queue of wakes.
    wake_ns: u64,
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

/// One run in virtual time.
pub struct World<H> {
    plan: Plan,
    hall: H,
    devices: Vec<Device>,
    /// Devices to be looked at, earliest first; an entry that is not its device's own `wake_ns` is void.
    wakes: BinaryHeap<Reverse<(u64, u32)>>,
    meetings: Meetings,
    /// As a real rank's: one that waits longer for others gives up.
    patience_ns: u64,
    /// Devices that did not come up.
    missing: Vec<u32>,
    abandoned: bool,
    now_ns: u64,
    batch_ns: u64,
    inputs: VecDeque<Input>,
    ending: Option<Ending>,
}

impl World<Separate> {
    /// Devices in the plan's order; sensors with tables numbered from 0.
    pub fn new(plan: &Plan, physics: Vec<Box<dyn Physics>>, gauges: Vec<Gauge>) -> Self {
        Self::of(plan, Separate::new(plan, physics, gauges))
    }
}

impl<H: Hall> World<H> {
    /// The plan's devices in this hall.
    pub fn of(plan: &Plan, hall: H) -> Self {
        let device = |index: usize| Device {
            driver: Driver::new(plan.queue_depth),
            queue: VecDeque::new(),
            free_ns: 0,
            dead: false,
            coupled: false,
            broken: false,
            rows: empty(index as u32),
            flushed_ns: 0,
            wake_ns: u64::MAX,
            rests_until_ns: 0,
        };
        Self {
            hall,
            devices: (0..plan.devices.len()).map(device).collect(),
            wakes: BinaryHeap::new(),
            meetings: Meetings::new(plan),
            patience_ns: 0,
            missing: Vec::new(),
            plan: plan.clone(),
            abandoned: false,
            now_ns: 0,
            batch_ns: BATCH_NS,
            inputs: VecDeque::new(),
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

    /// Rows of steps are handed over this often at least, where a quarter of the silence that is a fault allows it.
    #[must_use]
    pub fn batched(mut self, batch_ns: u64) -> Self {
        self.batch_ns = batch_ns.clamp(BATCH_NS, crate::run::watch::SILENCE_NS / 4);
        self
    }

    /// Runs the plan of `standing` to its end; gives the account and every journalled frame.
    pub fn perform(self, standing: Standing, happenings: Vec<Happening>) -> (Standing, Vec<Frame>) {
        let mut journal = Vec::new();
        let (standing, _) = self.perform_into(standing, happenings, &mut |frame| {
            journal.push(frame);
        });
        (standing, journal)
    }

    /// As [`Self::perform`], each frame handed to `journal` as it comes; gives the hall back.
    pub fn perform_into(
        mut self,
        standing: Standing,
        mut happenings: Vec<Happening>,
        journal: &mut dyn FnMut(Frame),
    ) -> (Standing, H) {
        happenings.sort_by_key(|h| h.at_ns);
        let mut happenings = VecDeque::from(happenings);
        let absent = |d: &u32| (*d, FaultKind::Missing, "it is not there".to_owned());
        let missing: Vec<_> = self.missing.iter().map(absent).collect();
        let start_ns = standing.last_ns();
        self.now_ns = start_ns;
        let mut run = Run::new(standing, &missing, Vec::new(), start_ns);
        for index in 0..self.devices.len() {
            let steps = 0..self.plan.steps.len();
            let expected = steps.map(|step| self.hall.expected_ns(index, step));
            run.expect_steps(index as u32, expected.collect());
        }
        for table in self.hall.tables() {
            let outputs = run.handle(Input::Table(table), start_ns);
            self.carry_out(outputs, journal);
        }
        let outputs = run.begin(0, start_ns);
        self.carry_out(outputs, journal);
        let mut look_ns = start_ns;
        for _ in 0..EVENTS_MAX {
            if run.is_finished() {
                break;
            }
            while happenings.front().is_some_and(|h| h.at_ns <= self.now_ns) {
                self.inputs.extend(happenings.pop_front().map(|h| h.input));
            }
            self.devices();
            if self.hall.next_ns() <= self.now_ns {
                let inputs = &mut self.inputs;
                self.hall
                    .sense(self.now_ns, &mut |input| inputs.push_back(input));
            }
            let mut idle = true;
            while let Some(input) = self.inputs.pop_front() {
                idle = false;
                let outputs = run.handle(input, self.now_ns);
                self.carry_out(outputs, journal);
            }
            if look_ns <= self.now_ns {
                let outputs = run.poll(self.now_ns);
                look_ns = run.deadline(self.now_ns);
                idle &= outputs.is_empty();
                self.carry_out(outputs, journal);
            }
            if idle {
                let next = happenings.front().map_or(u64::MAX, |h| h.at_ns);
                let next = next.min(self.next_wake()).min(self.hall.next_ns());
                self.now_ns = next.min(look_ns).max(self.now_ns + 1);
            }
        }
        self.hall.rest(&mut |input| self.inputs.push_back(input));
        while let Some(input) = self.inputs.pop_front() {
            let outputs = run.handle(input, self.now_ns);
            self.carry_out(outputs, journal);
        }
        let outputs = run.last_words(self.now_ns);
        self.carry_out(outputs, journal);
        let closed = Frame::Closed(Closed {
            at_ns: self.now_ns,
            utc_end: String::new(),
            clock: ClockState {
                synchronised: Some(true),
                max_error_s: Some(0.0),
            },
            ending: self.ending.clone().unwrap_or(Ending::Complete),
        });
        let standing = run.close(&closed);
        journal(closed);
        (standing, self.hall)
    }

    fn carry_out(&mut self, outputs: Vec<Output>, journal: &mut dyn FnMut(Frame)) {
        for output in outputs {
            match output {
                Output::Journal(frame) => journal(frame),
                Output::Tell(device, order) => self.order(device, order),
                Output::Kill(device) => {
                    if let Some(device) = self.devices.get_mut(device as usize) {
                        device.dead = true;
                    }
                }
                Output::Abandon { .. } => {
                    self.abandoned = true;
                    self.wake_all();
                }
                Output::Finished(ending) => self.ending = Some(ending),
            }
        }
    }

    fn order(&mut self, index: u32, order: ToWorker) {
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
                self.meetings.form(members);
                self.abandoned = false;
                self.devices.iter_mut().for_each(|d| d.broken = false);
                self.inputs
                    .push_back(Input::Worker(index, FromWorker::Regrouped { generation }));
            }
            ToWorker::Open { .. } | ToWorker::Prepare { .. } | ToWorker::Quit => {}
        }
        self.wake(index as usize, now);
    }

    /// Has a device looked at, at this time.
    fn wake(&mut self, index: usize, at_ns: u64) {
        self.devices[index].wake_ns = at_ns;
        if at_ns < u64::MAX {
            self.wakes.push(Reverse((at_ns, index as u32)));
        }
    }

    fn wake_all(&mut self) {
        for index in 0..self.devices.len() {
            self.wake(index, self.now_ns);
        }
    }

    /// When a device is to be looked at next.
    fn next_wake(&mut self) -> u64 {
        while let Some(Reverse((at_ns, index))) = self.wakes.peek().copied() {
            let device = &self.devices[index as usize];
            if device.wake_ns == at_ns && !device.dead {
                return at_ns;
            }
            self.wakes.pop();
        }
        u64::MAX
    }

    /// Lets every driver act that can, until all have to wait.
    fn devices(&mut self) {
        while self.next_wake() <= self.now_ns {
            if let Some(Reverse((_, index))) = self.wakes.pop() {
                let index = index as usize;
                let until_ns = self.device(index);
                self.wake(index, until_ns);
            }
        }
    }

    /// One device as far as it can go now; when it is to be looked at again.
    fn device(&mut self, index: usize) -> u64 {
        let now = self.now_ns;
        loop {
            self.start(index);
            match self.devices[index].driver.poll(now) {
                Act::Submit(submission) => self.submit(index, submission),
                Act::Retire => match self.head_end(index) {
                    Ok((end_ns, votes, fault)) if end_ns <= now => {
                        self.retire(index, end_ns, votes, fault);
                    }
                    Ok((end_ns, ..)) => return end_ns,
                    Err(until_ns) => return until_ns,
                },
                Act::Wait { until_ns } => {
                    self.flush(index);
                    self.rest(index, until_ns);
                    return until_ns;
                }
                Act::Done {
                    segment,
                    next_seq,
                    broken,
                } => {
                    self.flush(index);
                    let report = if broken {
                        FromWorker::Broken {
                            segment,
                            next_seq,
                            why: "an all-reduce did not complete".to_owned(),
                            missing: self.meetings.absent(),
                        }
                    } else {
                        FromWorker::Idle { segment, next_seq }
                    };
                    self.inputs.push_back(Input::Worker(index as u32, report));
                }
            }
        }
    }

    /// As a worker does, it tells a rest that could be taken for a silence.
    fn rest(&mut self, index: usize, until_ns: u64) {
        let device = &mut self.devices[index];
        let long = until_ns.saturating_sub(self.now_ns) > REST_NS;
        if device.driver.segment().is_some() && long && device.rests_until_ns != until_ns {
            device.rests_until_ns = until_ns;
            let rest = FromWorker::Resting { until_ns };
            self.inputs.push_back(Input::Worker(index as u32, rest));
        }
    }

    fn submit(&mut self, index: usize, submission: Submission) {
        let device = &mut self.devices[index];
        let step = device.driver.step().unwrap_or(0);
        device.queue.push_back(Queued {
            submission,
            step: step.min(self.plan.steps.len().saturating_sub(1)),
            submitted_ns: self.now_ns,
            started: None,
        });
    }

    /// Starts the oldest step if it has not been; the last rank to come wakes the others.
    fn start(&mut self, index: usize) {
        let device = &mut self.devices[index];
        let coupled = device.coupled;
        let Some(head) = device.queue.front_mut().filter(|q| q.started.is_none()) else {
            return;
        };
        let start_ns = device.free_ns.max(head.submitted_ns);
        let asked = Asked {
            seq: head.submission.seq,
            step: head.step,
            spec: &self.plan.steps[head.step],
            parts: head.submission.parts,
            coupled,
        };
        let own_ns = self.hall.begin(index, &asked, start_ns);
        head.started = Some((start_ns, own_ns));
        let (seq, parts) = (asked.seq, asked.parts);
        let Some(at_ns) = own_ns.filter(|_| coupled) else {
            return;
        };
        let all = self.meetings.come(index as u32, parts, seq, at_ns);
        for other in all.into_iter().flatten() {
            if other as usize != index {
                self.wake(other as usize, self.now_ns);
            }
        }
    }

    /// When the oldest step of a device ends, the votes to stop that came with it, and why its all-reduce failed;
    /// or when to look again, where that is not known yet.
    fn head_end(&mut self, index: usize) -> Result<(u64, u32, Option<String>), u64> {
        let device = &self.devices[index];
        let head = device.queue.front().ok_or(u64::MAX)?;
        let own_ns = head.started.and_then(|s| s.1).ok_or(u64::MAX)?;
        if !device.coupled {
            return Ok((own_ns, 0, None));
        }
        let Submission { parts, seq, .. } = head.submission;
        let met = self.meetings.met(index as u32, parts, seq);
        let (all, last_ns) = met.ok_or(u64::MAX)?;
        if all {
            let asked = asked(&self.plan, head, true);
            // All ranks see the votes of all: in virtual time every rank votes by the same clock.
            let votes = u32::from(head.submission.stop);
            let end_ns = self.hall.reduced(index, &asked, last_ns);
            return Ok((end_ns, votes, None));
        }
        let gave_up = own_ns.saturating_add(self.patience_ns);
        if device.broken || self.abandoned || self.now_ns >= gave_up {
            self.devices[index].broken = true;
            let why = "other ranks did not arrive".to_owned();
            return Ok((self.now_ns.max(own_ns), 0, Some(why)));
        }
        Err(gave_up)
    }

    fn retire(&mut self, index: usize, end_ns: u64, stop_votes: u32, fault: Option<String>) {
        let device = &mut self.devices[index];
        let Some(head) = device.queue.pop_front() else {
            return;
        };
        let (start_ns, own_ns) = head.started.unwrap_or((head.submitted_ns, None));
        let mut done = StepDone {
            seq: head.submission.seq,
            start_ns,
            end_ns,
            timer: Timer::DeviceEvent,
            spans: Vec::new(),
            gemms: 0,
            audited: 0,
            audited_flop: 0.0,
            mismatches: Vec::new(),
            stop_votes,
            collective_fault: fault,
            missing_ranks: Vec::new(),
            arrival_skew_ns: 0,
            self_test: None,
        };
        let asked = asked(&self.plan, &head, device.coupled);
        let parts = asked.parts;
        self.hall
            .tell(index, &asked, own_ns.unwrap_or(end_ns), &mut done);
        device.free_ns = device.free_ns.max(end_ns);
        for detail in std::mem::take(&mut done.mismatches) {
            let wrong = FromWorker::Mismatch {
                at_ns: end_ns,
                detail,
            };
            self.inputs.push_back(Input::Worker(index as u32, wrong));
        }
        if let Some((row, ops, _)) = device.driver.retired(&done, |t| t)
            && done.collective_fault.is_none()
        {
            device.rows.rows.push(row);
            device.rows.ops.extend(ops);
        }
        if self.now_ns.saturating_sub(device.flushed_ns) > self.batch_ns {
            self.flush(index);
        }
        self.meetings.leave(index as u32, parts, done.seq);
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
}

fn asked<'a>(plan: &'a Plan, head: &Queued, coupled: bool) -> Asked<'a> {
    Asked {
        seq: head.submission.seq,
        step: head.step,
        spec: &plan.steps[head.step],
        parts: head.submission.parts,
        coupled,
    }
}

fn empty(device: u32) -> Steps {
    Steps {
        device,
        device_clock: true,
        rows: Vec::new(),
        ops: Vec::new(),
        trials: Vec::new(),
    }
}
