//! The course of a run: which segment is on, who works on it, what a fault changes, when it is over.
//!
//! A state machine: it takes what workers, sensors and the operator say, with the time, and answers
//! with frames to journal and orders to give. It reads no clock and touches no process, so that ten
//! minutes of a run are one instant test. A fault is a frame, never an early return: the load on the
//! other devices goes on.

mod warmup;

use crate::protocol::{FromWorker, Order, ToWorker};
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{Ending, Event, FaultKind, Frame, Samples, Table, What};
use hallmark_results::plan::{Plan, SegmentKind};
use hallmark_results::standing::Standing;
use warmup::WarmUp;

/// A device without a completed step for this long is silent, unless its steps are known to take longer.
const SILENCE_NS: u64 = 5_000_000_000;
/// A rank that waits for others in an all-reduce gives up by itself first; this bounds what is left.
const GROUP_SILENCE_NS: u64 = 9_000_000_000;
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
    JournalFailed(String),
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
    /// Latest sign of completed work.
    progress_ns: u64,
    longest_step_ns: u64,
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
    generation: u32,
    /// Members of the group as it stands; empty where no step reduces anything.
    group: Vec<u32>,
    /// When the group broke.
    stalled_ns: Option<u64>,
    warm_up: Option<WarmUp>,
    stopping: Option<String>,
    finished: bool,
    journal_lost: bool,
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
        let reduces = plan.steps.iter().any(|s| !s.buckets.is_empty());
        let lost = |d: &u32| missing.iter().any(|(m, ..)| m == d);
        let group = (0..plan.devices.len() as u32)
            .filter(|d| reduces && !lost(d))
            .collect();
        let workers = plan.devices.iter().map(|_| Worker {
            duty: Duty::Idle,
            progress_ns: now_ns,
            longest_step_ns: 0,
        });
        let mut run = Self {
            workers: workers.collect(),
            plan,
            standing,
            segment: None,
            done,
            orders: 0,
            until_ns: u64::MAX,
            generation: 1,
            group,
            stalled_ns: None,
            warm_up: None,
            stopping: None,
            finished: false,
            journal_lost: false,
            outputs: Vec::new(),
        };
        for (device, kind, detail) in missing {
            run.lose(*device, *kind, detail.clone(), now_ns);
        }
        run
    }

    /// Begins the schedule; `from` is the first segment.
    pub fn begin(&mut self, from: usize, now_ns: u64) -> Vec<Output> {
        self.enter(from, now_ns);
        self.settle(now_ns);
        std::mem::take(&mut self.outputs)
    }

    /// Takes one thing that happened into account.
    pub fn handle(&mut self, input: Input, now_ns: u64) -> Vec<Output> {
        match input {
            Input::Worker(device, report) => self.report(device, report, now_ns),
            Input::Gone(device, why) => self.lose(device, FaultKind::WorkerDied, why, now_ns),
            Input::Table(table) => self.push(Frame::Table(table)),
            Input::Samples(samples) => {
                self.push(Frame::Samples(samples));
                self.limits(now_ns);
            }
            Input::Event(what, device) => self.event(now_ns, device, what),
            Input::Interrupt => self.stop("the operator asked for it".to_owned(), now_ns),
            Input::Cut => self.cut(now_ns),
            Input::JournalFailed(why) if !self.journal_lost => {
                self.journal_lost = true;
                let kind = FaultKind::Journal;
                self.event(now_ns, None, What::Fault { kind, detail: why });
            }
            Input::JournalFailed(_) => {}
        }
        self.settle(now_ns);
        std::mem::take(&mut self.outputs)
    }

    /// Looks at the time.
    pub fn poll(&mut self, now_ns: u64) -> Vec<Output> {
        self.watch(now_ns);
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

    /// Takes the closing frame, which only the shell can make: it has the wall clock.
    pub fn close(mut self, closed: &Frame) -> Standing {
        // A closing frame contradicts nothing.
        let _ = self.standing.push(closed);
        self.standing
    }

    fn push(&mut self, frame: Frame) {
        match self.standing.push(&frame) {
            Ok(()) => self.outputs.push(Output::Journal(frame)),
            // A sensor or worker that contradicts itself is a fault of its own, not the end of the run.
            Err(error) => {
                let at_ns = self.standing.last_ns();
                let what = What::Fault {
                    kind: FaultKind::Sensor,
                    detail: error.to_string(),
                };
                self.event(at_ns, None, what);
            }
        }
    }

    fn event(&mut self, at_ns: u64, device: Option<u32>, what: What) {
        let frame = Frame::Event(Event {
            at_ns,
            device,
            what,
        });
        if self.standing.push(&frame).is_ok() {
            self.outputs.push(Output::Journal(frame));
        }
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
                self.push(Frame::Steps(steps));
            }
            FromWorker::Mismatch { at_ns, detail } => {
                self.event(at_ns, Some(device), What::Mismatch { detail });
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

    /// Declares silent what has shown no completed step for too long.
    fn watch(&mut self, now_ns: u64) {
        let least = if self.coupled() {
            GROUP_SILENCE_NS
        } else {
            SILENCE_NS
        };
        let silent = self.workers.iter().enumerate().filter_map(|(device, w)| {
            let limit = least.max(w.longest_step_ns.saturating_mul(4));
            let quiet = now_ns.saturating_sub(w.progress_ns);
            let working = matches!(w.duty, Duty::Busy | Duty::Regrouping);
            (working && quiet > limit).then_some((device as u32, quiet))
        });
        for (device, quiet) in silent.collect::<Vec<_>>() {
            let detail = format!("no completed step for {:.1} s", quiet as f64 / 1e9);
            self.lose(device, FaultKind::Silent, detail, now_ns);
        }
    }

    /// Stops where a sensor shows more than the profile allows.
    fn limits(&mut self, now_ns: u64) {
        let stop = &self.plan.stop_when;
        let checks = [
            (Metric::TempCore, stop.temp_core_above),
            (Metric::PowerDraw, stop.power_draw_above),
        ];
        let tripped = checks.into_iter().find_map(|(metric, limit)| {
            let limit = limit?;
            (0..self.workers.len() as u32).find_map(|device| {
                let value = self
                    .standing
                    .latest(device, metric)
                    .filter(|v| *v > limit.value)?;
                let shown = hallmark_profiles::units::human(value, limit.unit);
                Some(format!(
                    "{} of {} reads {shown}, above {limit}",
                    metric, self.plan.devices[device as usize].id
                ))
            })
        });
        let lost_for = stop.sensor_lost_for.map(|t| t.duration().as_nanos() as u64);
        let lost = self.standing.tables().iter().find_map(|t| {
            let quiet = now_ns.saturating_sub(t.last_ns.unwrap_or(now_ns));
            let over = lost_for.is_some_and(|limit| quiet > limit);
            over.then(|| {
                format!(
                    "{} has been silent for {:.0} s",
                    t.table.name,
                    quiet as f64 / 1e9
                )
            })
        });
        if let Some(why) = tripped.or(lost) {
            self.stop(why, now_ns);
        }
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
        if self.finished || self.segment.is_none() {
            return;
        }
        let alive = |d: &Duty| *d != Duty::Dead;
        let duties: Vec<Duty> = self.workers.iter().map(|w| w.duty).collect();
        if !duties.iter().any(alive) {
            return self.finish(Ending::Stopped {
                why: "no device is left".to_owned(),
            });
        }
        if duties
            .iter()
            .any(|d| matches!(d, Duty::Busy | Duty::Regrouping))
        {
            return;
        }
        if !self.group.is_empty() && self.group != self.alive() || duties.contains(&Duty::Broken) {
            return self.regroup(now_ns);
        }
        let current = self.segment.unwrap_or(0);
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
        self.generation += 1;
        let members = self.alive();
        self.group = members.clone();
        for &device in &members {
            let worker = &mut self.workers[device as usize];
            worker.duty = Duty::Regrouping;
            worker.progress_ns = now_ns;
            let order = ToWorker::Regroup {
                generation: self.generation,
                members: members.clone(),
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
        self.until_ns = now_ns.saturating_add(segment.duration_ns);
        self.warm_up = None;
        if segment.kind == SegmentKind::Warmup {
            self.warm_up = WarmUp::new(&self.plan, now_ns);
            // The limit of the warm-up is the fold's to say; the order itself is only bounded loosely.
            self.until_ns = self.until_ns.saturating_add(2_000_000_000);
        }
        self.event(
            now_ns,
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
            worker.duty = Duty::Busy;
            worker.progress_ns = now_ns;
            let order = Order {
                segment: index as u32,
                step: segment.step,
                parts: segment.parts,
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
