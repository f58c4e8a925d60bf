//! The course of a run: which segment is on, who works on it, what a fault changes, when it is over.
//!
//! A state machine: it takes what workers, sensors and the operator say, with the time, and answers
//! with frames to journal and orders to give. It reads no clock and touches no process, so that ten
//! minutes of a run are one instant test. A fault is a frame, never an early return: the load on the
//! other devices goes on.

mod awake;
mod heat;
mod intake;
mod phase;
mod tally;
mod warmup;
pub(crate) mod watch;

use crate::protocol::{FromWorker, Order, ToWorker};
use crate::shell::fleet::Origin;
use awake::Awake;
use hallmark_results::frame::{Ending, FaultKind, Frame, Samples, Table, What};
use hallmark_results::plan::{Plan, SegmentKind};
use hallmark_results::standing::Standing;
use hallmark_results::store::shape::Shape;
use std::collections::BTreeMap;
use tally::Tally;
use warmup::WarmUp;

/// Formations of the group that may fail one after the other before its members count as lost.
const REGROUPS_MAX: u32 = 3;
/// Distance of polls without events.
const TICK_NS: u64 = 100_000_000;

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    Worker(u32, FromWorker),
    /// The worker's process ended or its pipe broke.
    Gone(u32, String),
    Table(Table),
    Samples(Samples),
    /// Events from sensors: gaps, Xids, as-found settings.
    Event(What, Option<u32>),
    /// The operator wants the run to end in good order.
    Interrupt,
    /// The operator wants the run to end now.
    Cut,
    /// The disk refuses frames, or one was set aside that no disk would take.
    JournalFailed(String),
    /// Nothing was heard of the device's whole node lately, so that its own silence says nothing.
    Unreached(u32),
    /// From another node, whose report is acknowledged once what it led to is on disk.
    From(Origin, Box<Input>),
}

impl Input {
    /// What was said, wherever it came from.
    pub fn inner(self) -> Self {
        match self {
            Self::From(_, input) => *input,
            input => input,
        }
    }
}

/// Something to be done by the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Journal(Frame),
    Tell(u32, ToWorker),
    Kill(u32),
    /// Give the group's generation up, so that nobody waits for the lost ranks.
    Abandon {
        generation: u32,
        lost: Vec<u32>,
    },
    Finished(Ending),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    /// Nothing to do.
    Idle,
    Busy,
    /// Its group broke; it waits for a regroup.
    Broken,
    Regrouping,
    Dead,
}

struct Worker {
    duty: Duty,
    /// Latest sign of completed work, or when the next is due after a rest that the plan gave it.
    progress_ns: u64,
    /// Longest step of the kind that is being done; 0 before the first.
    longest_step_ns: u64,
    /// About how long each of the plan's steps takes, by the worker's own estimate; an upper bound for the first one.
    expected_ns: Vec<u64>,
}

/// The run's state.
pub struct Run {
    plan: Plan,
    standing: Standing,
    workers: Vec<Worker>,
    /// Index into the schedule; `None` before the first.
    segment: Option<usize>,
    done: Vec<usize>,
    /// Counts orders, so that step numbers never repeat.
    orders: u64,
    until_ns: u64,
    /// Segment to begin with, once all are ready.
    first: Option<usize>,
    /// Counts the formations of the group; 0 before the first.
    generation: u32,
    /// Some step reduces, so the devices form a group.
    reduces: bool,
    /// The devices are of more than one node.
    many_nodes: bool,
    /// The generation of which is told that it broke with nobody missing.
    told_hung: u32,
    /// When it is next looked at whether a sensor is lost.
    sensors_due_ns: u64,
    /// Time from an order until it is begun, so that it has reached every node by then.
    lead_ns: u64,
    /// Members of the group as it stands; empty where no step reduces anything.
    group: Vec<u32>,
    /// Formations that failed since the last that succeeded.
    failed_regroups: u32,
    /// When the group broke.
    stalled_ns: Option<u64>,
    warm_up: Option<WarmUp>,
    stopping: Option<String>,
    finished: bool,
    /// This process's start: what happened before it says nothing of its sensors.
    start_ns: u64,
    awake: Awake,
    tally: Tally,
    shape: Shape,
    /// Number in the record of each table that this process declared; `None` for one that was refused.
    tables: BTreeMap<u32, Option<u32>>,
    /// The tables of before it was cut off, by name.
    before: BTreeMap<String, u32>,
    outputs: Vec<Output>,
}

impl Run {
    /// A run of the plan in `standing`, whose workers are prepared.
    ///
    /// `missing`: devices that did not come up, with the reason. `done`: segments that a resumed run need not repeat.
    pub fn new(
        standing: Standing,
        missing: &[(u32, FaultKind, String)],
        done: Vec<usize>,
        now_ns: u64,
    ) -> Self {
        let plan = standing.opened().plan.clone();
        let workers = plan.devices.iter().map(|_| Worker {
            duty: Duty::Idle,
            progress_ns: now_ns,
            longest_step_ns: 0,
            expected_ns: Vec::new(),
        });
        let mut run = Self {
            workers: workers.collect(),
            reduces: plan.steps.iter().any(|s| !s.buckets.is_empty()),
            told_hung: 0,
            sensors_due_ns: now_ns,
            many_nodes: plan.devices.windows(2).any(|d| d[0].node != d[1].node),
            lead_ns: phase::lead_ns(&plan),
            shape: intake::shape(&standing),
            before: intake::before(&standing),
            plan,
            standing,
            segment: None,
            done,
            orders: 0,
            until_ns: u64::MAX,
            first: None,
            generation: 0,
            group: Vec::new(),
            failed_regroups: 0,
            stalled_ns: None,
            warm_up: None,
            stopping: None,
            finished: false,
            start_ns: now_ns,
            awake: Awake::new(now_ns),
            tally: Tally::default(),
            tables: BTreeMap::new(),
            outputs: Vec::new(),
        };
        for (device, kind, detail) in missing {
            run.lose(*device, *kind, detail.clone(), now_ns);
        }
        run
    }

    /// About how long each of the plan's steps takes on a device, as its worker estimates.
    pub fn expect_steps(&mut self, device: u32, expected_ns: Vec<u64>) {
        if let Some(worker) = self.workers.get_mut(device as usize) {
            worker.expected_ns = expected_ns;
        }
    }

    /// Begins the schedule with segment `from`, once those that are here have formed their group.
    pub fn begin(&mut self, from: usize, now_ns: u64) -> Vec<Output> {
        self.first = Some(from);
        self.settle(now_ns);
        std::mem::take(&mut self.outputs)
    }

    /// Takes one thing that happened into account.
    pub fn handle(&mut self, input: Input, now_ns: u64) -> Vec<Output> {
        self.look(now_ns);
        match input.inner() {
            Input::Worker(device, report) => self.report(device, report, now_ns),
            Input::Gone(device, why) => self.lose(device, FaultKind::WorkerDied, why, now_ns),
            Input::Table(table) => self.table(table, now_ns),
            Input::Samples(samples) => self.samples(samples, now_ns),
            Input::Event(what, device) => self.sensed(what, device, now_ns),
            Input::Interrupt => self.stop("the operator asked for it".to_owned(), now_ns),
            Input::Cut => self.cut(now_ns),
            Input::JournalFailed(detail) => {
                let kind = FaultKind::Journal;
                self.event(now_ns, None, What::Fault { kind, detail });
            }
            Input::Unreached(device) => self.unreached(device, now_ns),
            // Nothing is said on behalf of others.
            Input::From(..) => {}
        }
        self.settle(now_ns);
        std::mem::take(&mut self.outputs)
    }

    /// Looks at the time.
    pub fn poll(&mut self, now_ns: u64) -> Vec<Output> {
        self.look(now_ns);
        self.watch(now_ns);
        self.limits(now_ns);
        self.tell_counts(now_ns, false);
        if let Some(warm_up) = &mut self.warm_up
            && let Some(what) = warm_up.poll(now_ns, &self.standing)
        {
            self.warm_up = None;
            self.event(now_ns, None, what);
            self.tell_busy(&ToWorker::Stop);
        }
        self.settle(now_ns);
        std::mem::take(&mut self.outputs)
    }

    /// When to poll next if nothing happens.
    pub fn deadline(&self, now_ns: u64) -> u64 {
        now_ns + TICK_NS
    }

    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The segment that is on: index and when it is over at the latest.
    pub fn current(&self) -> Option<(usize, u64)> {
        self.segment.map(|s| (s, self.until_ns))
    }

    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// What is still to be told before the closing frame.
    pub fn last_words(&mut self, now_ns: u64) -> Vec<Output> {
        self.tell_counts(now_ns, true);
        std::mem::take(&mut self.outputs)
    }

    /// Takes the closing frame, which only the shell can make: it has the wall clock.
    pub fn close(mut self, closed: &Frame) -> Standing {
        // A closing frame contradicts nothing.
        let _ = self.standing.push(closed);
        self.standing
    }

    fn tell_busy(&mut self, order: &ToWorker) {
        for (device, worker) in self.workers.iter().enumerate() {
            if worker.duty == Duty::Busy {
                self.outputs
                    .push(Output::Tell(device as u32, order.clone()));
            }
        }
    }

    fn report(&mut self, device: u32, report: FromWorker, now_ns: u64) {
        let Some(worker) = self.workers.get_mut(device as usize) else {
            return;
        };
        if worker.duty == Duty::Dead {
            // What it had done before it was given up was done all the same, and comes late from a node that was cut off.
            match report {
                FromWorker::Steps(steps) => _ = self.push(Frame::Steps(steps), now_ns),
                FromWorker::Mismatch { at_ns, detail } => self.wrong(device, at_ns, &detail),
                _ => {}
            }
            return;
        }
        match report {
            FromWorker::Steps(steps) => {
                worker.progress_ns = now_ns;
                for row in &steps.rows {
                    let length = row.end_ns.saturating_sub(row.start_ns);
                    worker.longest_step_ns = worker.longest_step_ns.max(length);
                    if let Some(warm_up) = &mut self.warm_up {
                        warm_up.work(row.start_ns, row.end_ns, row.flop);
                    }
                }
                self.push(Frame::Steps(steps), now_ns);
            }
            FromWorker::Resting { until_ns } => self.rest(device, until_ns, now_ns),
            FromWorker::Mismatch { at_ns, detail } => self.wrong(device, at_ns, &detail),
            FromWorker::SelfTest { passed, detail } => {
                self.event(now_ns, Some(device), What::SelfTest { passed, detail });
            }
            FromWorker::Idle { .. } => worker.duty = Duty::Idle,
            FromWorker::Broken { why, missing, .. } => {
                worker.duty = Duty::Broken;
                worker.progress_ns = now_ns;
                self.broke(why, &missing, now_ns);
            }
            FromWorker::Regrouped { .. } => worker.duty = Duty::Idle,
            FromWorker::Fault { kind, detail } => self.lose(device, kind, detail, now_ns),
            FromWorker::Opened { .. } | FromWorker::Prepared { .. } => {}
        }
    }

    /// A rank gave its group up: those it waited for and that still claim to work are silent.
    fn broke(&mut self, why: String, missing: &[u32], now_ns: u64) {
        self.stalled_ns.get_or_insert(now_ns);
        let lately_ns = now_ns.saturating_sub(watch::GROUP_SILENCE_NS);
        if self.awake.stood_since(lately_ns) {
            // A pause of the whole machine uses up the patience of healthy ranks; one that hangs is found without them.
            return;
        }
        self.hung(&why, missing, now_ns);
        for &rank in missing {
            if self
                .workers
                .get(rank as usize)
                .is_some_and(|w| w.duty == Duty::Busy)
            {
                self.lose(rank, FaultKind::Silent, why.clone(), now_ns);
            }
        }
    }

    fn lose(&mut self, device: u32, kind: FaultKind, detail: String, now_ns: u64) {
        let Some(worker) = self
            .workers
            .get_mut(device as usize)
            .filter(|w| w.duty != Duty::Dead)
        else {
            return;
        };
        worker.duty = Duty::Dead;
        self.event(now_ns, Some(device), What::Fault { kind, detail });
        self.outputs.push(Output::Kill(device));
        if self.group.contains(&device) {
            self.outputs.push(Output::Abandon {
                generation: self.generation,
                lost: vec![device],
            });
        }
        if self.coupled() {
            self.stalled_ns.get_or_insert(now_ns);
        }
    }

    /// Whether the devices' steps of the current segment belong together.
    fn coupled(&self) -> bool {
        let Some(segment) = self.segment.and_then(|s| self.plan.schedule.get(s)) else {
            return false;
        };
        let has_buckets = self
            .plan
            .steps
            .get(segment.step)
            .is_some_and(|s| !s.buckets.is_empty());
        segment.parts.buckets && has_buckets && segment.active > 1
    }

    fn stop(&mut self, why: String, now_ns: u64) {
        if self.stopping.is_some() || self.finished {
            return;
        }
        self.event(now_ns, None, What::Stop { why: why.clone() });
        self.stopping = Some(why);
        self.warm_up = None;
        self.tell_busy(&ToWorker::Stop);
    }

    fn cut(&mut self, now_ns: u64) {
        if self.finished {
            return;
        }
        let why = "the operator cut it short".to_owned();
        self.event(now_ns, None, What::Stop { why: why.clone() });
        for device in 0..self.workers.len() as u32 {
            self.outputs.push(Output::Kill(device));
        }
        self.finish(Ending::Stopped { why });
    }

    fn finish(&mut self, ending: Ending) {
        if self.finished {
            return;
        }
        self.finished = true;
        for (device, worker) in self.workers.iter().enumerate() {
            if worker.duty != Duty::Dead {
                self.outputs
                    .push(Output::Tell(device as u32, ToWorker::Quit));
            }
        }
        self.outputs.push(Output::Finished(ending));
    }

    /// Goes on wherever everyone has come to rest.
    fn settle(&mut self, now_ns: u64) {
        if self.finished || self.first.is_none() {
            return;
        }
        let any = |is: fn(Duty) -> bool| self.workers.iter().any(|w| is(w.duty));
        if !any(|d| d != Duty::Dead) {
            return self.finish(Ending::Stopped {
                why: "no device is left".to_owned(),
            });
        }
        if any(|d| matches!(d, Duty::Busy | Duty::Regrouping)) {
            return;
        }
        let unformed = self.reduces && self.group != self.alive();
        if unformed || any(|d| d == Duty::Broken) {
            return self.regroup(now_ns);
        }
        self.failed_regroups = 0;
        let Some(current) = self.segment else {
            return self.start(now_ns);
        };
        if let Some(since) = self.stalled_ns.take() {
            let members: Vec<u32> = self.alive();
            let stalled_ns = now_ns.saturating_sub(since);
            let generation = self.generation;
            let what = What::Regrouped {
                generation,
                members,
                stalled_ns,
            };
            self.event(now_ns, None, what);
            if self.stopping.is_none() && now_ns < self.until_ns {
                return self.order(current, now_ns);
            }
        }
        self.enter(self.after(current), now_ns);
    }

    /// Enters the first segment; the record learns who works together where it does not know.
    fn start(&mut self, now_ns: u64) {
        self.stalled_ns = None;
        if self.reduces && self.standing.members_at(now_ns) != self.group {
            let what = What::Regrouped {
                generation: self.generation,
                members: self.group.clone(),
                stalled_ns: 0,
            };
            self.event(now_ns, None, what);
        }
        let nothing = self.plan.schedule.len();
        let first = self.first.filter(|_| self.stopping.is_none());
        self.enter(first.unwrap_or(nothing), now_ns);
    }

    /// The segment that follows, which after a stop is the ramp down.
    fn after(&self, current: usize) -> usize {
        let schedule = &self.plan.schedule;
        if self.stopping.is_none() {
            let mut next = current + 1;
            while self.done.contains(&next) {
                next += 1;
            }
            return next;
        }
        let down = |s: &hallmark_results::plan::Segment| s.kind == SegmentKind::RampDown;
        let rest = schedule.iter().enumerate().skip(current + 1);
        // What is not yet up need not be brought down.
        let full = schedule
            .get(current)
            .is_some_and(|s| s.kind != SegmentKind::RampUp);
        rest.filter(|(_, s)| full && down(s))
            .map(|(i, _)| i)
            .next()
            .unwrap_or(schedule.len())
    }

    fn alive(&self) -> Vec<u32> {
        let alive = self
            .workers
            .iter()
            .enumerate()
            .filter(|(_, w)| w.duty != Duty::Dead);
        alive.map(|(device, _)| device as u32).collect()
    }

    fn regroup(&mut self, now_ns: u64) {
        self.failed_regroups += 1;
        if self.failed_regroups > REGROUPS_MAX + self.workers.len() as u32 {
            for device in self.alive() {
                let why = "the group could not be formed again".to_owned();
                self.lose(device, FaultKind::Collective, why, now_ns);
            }
            return self.settle(now_ns);
        }
        self.generation += 1;
        let members = self.alive();
        let patience = self.patience(&members);
        self.group = members.clone();
        for &device in &members {
            let worker = &mut self.workers[device as usize];
            worker.duty = Duty::Regrouping;
            worker.progress_ns = now_ns;
            let order = ToWorker::Regroup {
                generation: self.generation,
                members: members.clone(),
                patience,
            };
            self.outputs.push(Output::Tell(device, order));
        }
    }

    fn enter(&mut self, index: usize, now_ns: u64) {
        let Some(segment) = self.plan.schedule.get(index) else {
            let ending = match self.stopping.take() {
                Some(why) => Ending::Stopped { why },
                None => Ending::Complete,
            };
            return self.finish(ending);
        };
        self.segment = Some(index);
        let begin_ns = now_ns.saturating_add(self.lead_ns);
        self.until_ns = begin_ns.saturating_add(segment.duration_ns);
        self.warm_up = None;
        if segment.kind == SegmentKind::Warmup {
            self.warm_up = WarmUp::new(&self.plan, begin_ns);
            // The limit of the warm-up is the fold's to say; the order itself is only bounded loosely.
            self.until_ns = self.until_ns.saturating_add(2_000_000_000);
        }
        self.event(
            begin_ns,
            None,
            What::Segment {
                index: index as u32,
            },
        );
        self.order(index, now_ns);
    }

    /// Sets the segment's devices to work on it until its end.
    fn order(&mut self, index: usize, now_ns: u64) {
        let Some(segment) = self.plan.schedule.get(index).cloned() else {
            return;
        };
        let active: Vec<u32> = self
            .alive()
            .into_iter()
            .filter(|d| (*d as usize) < segment.active)
            .collect();
        let coupled = self.coupled();
        self.orders += 1;
        for device in active {
            let worker = &mut self.workers[device as usize];
            // What a step of another kind took says nothing of this one.
            worker.longest_step_ns = 0;
            worker.duty = Duty::Busy;
            worker.progress_ns = now_ns;
            let order = Order {
                segment: index as u32,
                step: segment.step,
                parts: segment.parts,
                from_ns: now_ns.saturating_add(self.lead_ns),
                until_ns: self.until_ns,
                coupled,
                first_seq: self.orders << 32,
                pulse: segment.pulse,
            };
            self.outputs
                .push(Output::Tell(device, ToWorker::Start(order)));
        }
        if !self.workers.iter().any(|w| w.duty == Duty::Busy) {
            // None of this segment's devices is left; the next one may have some.
            self.enter(index + 1, now_ns);
        }
    }
}
