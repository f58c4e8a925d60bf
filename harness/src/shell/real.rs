//! The real shell: processes for devices, threads for sensors, the machine's clock, the disk.
//!
//! It carries out what the state machine [`crate::run::Run`] answers, and decides nothing itself.

use crate::clock::{self, RunClock};
use crate::exit::Failure;
use crate::protocol::{FromWorker, ToWorker};
use crate::run::{Input, Output, Run};
use crate::shell::fleet::{Fleet, Origin, Progress, Workers};
use crate::shell::inbox::{INPUTS_MAX, Inlet};
use crate::shell::pen::Pen;
use crate::shell::probes::{Probe, Probes};
use crate::view::{Key, View};
use hallmark_kernels::device::DeviceInfo;
use hallmark_results::frame::{Closed, Ending, FaultKind, Frame, Table, What};
use hallmark_results::plan::Plan;
use hallmark_results::standing::Standing;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Longest wait for a device to open, and to test its memory or prepare (which may compile shaders).
const OPEN_NS: u64 = 60_000_000_000;
const PREPARE_NS: u64 = 180_000_000_000;
/// Between two looks at whether the whole record is on disk, and how many of them: three seconds.
const ON_DISK_LOOK: Duration = Duration::from_millis(20);
const ON_DISK_LOOKS: u32 = 150;
/// Longest wait for workers to end by themselves.
const END_MS: u64 = 2_000;

/// The workers of a run while it is being set up, and what they said.
pub struct Crew {
    pub fleet: Box<dyn Workers>,
    pub inputs: Inlet,
    pub inbox: Receiver<Input>,
    /// What each device said when it opened; `None` where it did not.
    pub opened: Vec<Option<DeviceInfo>>,
    pub probes: Vec<Option<f64>>,
    /// Devices that did not come up, and why.
    pub missing: Vec<(u32, FaultKind, String)>,
    /// Wrong words that a test of free memory found, by device.
    pub memory_faults: Vec<(u32, String)>,
}

/// Variables that a driver reads when it starts: a software adapter keeps to its share of the cores.
pub fn environment(info: &DeviceInfo) -> Vec<(String, String)> {
    if !info.software || info.engine == "cpu" {
        return Vec::new();
    }
    vec![("LP_NUM_THREADS".to_owned(), info.cores.len().to_string())]
}

/// What devices are asked when they are opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// A rate of small matmuls, for a profile that fits its step to the device.
    pub probe: bool,
    /// A test of free memory.
    pub memory_test: bool,
}

/// Starts a worker for each device and opens them all.
///
/// # Errors
/// [`Failure`] when no worker process can be started at all, or the operator interrupts.
pub fn muster(
    devices: &[DeviceInfo],
    clock: RunClock,
    asked: Asked,
    channel: (Inlet, Receiver<Input>),
) -> Result<Crew, Failure> {
    let environments: Vec<_> = devices.iter().map(environment).collect();
    let fleet = Fleet::start(&environments, &channel.0)
        .map_err(|e| Failure::broken(format!("cannot start a worker process: {e}")))?;
    open(Box::new(fleet), devices, clock, asked, channel)
}

/// Has these workers open their devices.
///
/// # Errors
/// [`Failure`] when the operator interrupts.
pub fn open(
    fleet: Box<dyn Workers>,
    devices: &[DeviceInfo],
    clock: RunClock,
    asked: Asked,
    channel: (Inlet, Receiver<Input>),
) -> Result<Crew, Failure> {
    let (inputs, inbox) = channel;
    let mut crew = Crew {
        fleet,
        inputs,
        inbox,
        opened: vec![None; devices.len()],
        probes: vec![None; devices.len()],
        missing: Vec::new(),
        memory_faults: Vec::new(),
    };
    for (index, info) in devices.iter().enumerate() {
        let order = ToWorker::Open {
            device: index as u32,
            info: info.clone(),
            epoch_ns: clock.epoch_ns(),
            probe: asked.probe,
            memory_test: asked.memory_test,
        };
        crew.fleet.tell(index as u32, &order);
    }
    let patience_ns = if asked.memory_test {
        PREPARE_NS
    } else {
        OPEN_NS
    };
    crew.await_all(clock, patience_ns, "open", |crew, device, report| {
        let FromWorker::Opened {
            info,
            probe,
            memory_faults,
            ..
        } = report
        else {
            return false;
        };
        let wrong = memory_faults.into_iter().map(|f| (device as u32, f));
        crew.memory_faults.extend(wrong);
        crew.opened[device] = Some(*info);
        crew.probes[device] = probe;
        true
    })?;
    Ok(crew)
}

impl Crew {
    /// Waits until every worker that is still there has answered; those that do not are missing.
    fn await_all(
        &mut self,
        clock: RunClock,
        patience_ns: u64,
        what: &str,
        mut take: impl FnMut(&mut Self, usize, FromWorker) -> bool,
    ) -> Result<(), Failure> {
        let deadline = clock.now_ns() + patience_ns;
        let mut waiting: Vec<bool> = (0..self.opened.len())
            .map(|d| !self.is_missing(d as u32))
            .collect();
        while waiting.contains(&true) {
            let now = clock.now_ns();
            if now >= deadline {
                for device in (0..waiting.len()).filter(|d| waiting[*d]) {
                    let why = format!("did not {what} within {} s", patience_ns / 1_000_000_000);
                    self.drop_device(device as u32, FaultKind::Missing, why);
                }
                break;
            }
            match self
                .inbox
                .recv_timeout(Duration::from_nanos(deadline - now).min(Duration::from_secs(1)))
                .map(Input::inner)
            {
                Ok(Input::Worker(device, FromWorker::Fault { detail, .. }))
                | Ok(Input::Gone(device, detail)) => {
                    // Also one that has answered: it is not there when the others are ready.
                    if let Some(flag) = waiting.get_mut(device as usize)
                        && !self.is_missing(device)
                    {
                        *flag = false;
                        self.drop_device(device, FaultKind::Missing, detail);
                    }
                }
                Ok(Input::Worker(device, report)) => {
                    let device = device as usize;
                    if device < waiting.len() && take(self, device, report) {
                        waiting[device] = false;
                    }
                }
                Ok(Input::Interrupt | Input::Cut) => {
                    return Err(Failure::broken(
                        "interrupted before the load began; nothing was measured",
                    ));
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(())
    }

    fn is_missing(&self, device: u32) -> bool {
        self.missing.iter().any(|(d, ..)| *d == device)
    }

    fn drop_device(&mut self, device: u32, kind: FaultKind, why: String) {
        self.fleet.kill(device);
        self.missing.push((device, kind, why));
    }

    /// Prepares all steps on all devices that are there, and lays out the memory of their group, which the run forms.
    ///
    /// # Errors
    /// [`Failure`] when its memory cannot be made or the operator interrupts.
    pub fn prepare(&mut self, plan: &Plan, clock: RunClock) -> Result<Prepared, Failure> {
        let present: Vec<u32> = (0..plan.devices.len() as u32)
            .filter(|d| !self.is_missing(*d))
            .collect();
        for &device in &present {
            let groups = self.fleet.groups(plan, device).map_err(Failure::broken)?;
            let order = ToWorker::Prepare {
                steps: plan.steps.clone(),
                groups,
                queue_depth: plan.queue_depth,
            };
            self.fleet.tell(device, &order);
        }
        let mut prepared = Prepared {
            self_tests: Vec::new(),
            expected_ns: Vec::new(),
            facts: Vec::new(),
            transport: String::new(),
        };
        self.await_all(
            clock,
            PREPARE_NS,
            "prepare its step",
            |_, device, report| {
                let FromWorker::Prepared {
                    self_test_passed,
                    self_test,
                    transport,
                    expected_ns,
                    facts,
                } = report
                else {
                    return false;
                };
                prepared
                    .self_tests
                    .push((device as u32, self_test_passed, self_test));
                prepared.expected_ns.push((device as u32, expected_ns));
                prepared.facts.push((device as u32, facts));
                prepared.transport = transport.unwrap_or_else(|| prepared.transport.clone());
                true
            },
        )?;
        Ok(prepared)
    }
}

/// What preparing came to.
pub struct Prepared {
    pub self_tests: Vec<(u32, bool, String)>,
    /// About how long each step takes, by device.
    pub expected_ns: Vec<(u32, Vec<u64>)>,
    /// What each device's engine decided for the whole run.
    pub facts: Vec<(u32, Vec<(String, String)>)>,
    pub transport: String,
}

/// Everything that a run needs from the moment the load begins.
pub struct Stage<'a> {
    pub crew: Crew,
    pub prepared: Prepared,
    pub clock: RunClock,
    pub pen: Pen,
    pub probes: Vec<Probe>,
    pub tables: Vec<Table>,
    pub events: Vec<(Option<u32>, What)>,
    pub view: &'a mut dyn View,
    /// First segment of the schedule.
    pub from: usize,
    /// Segments that were done before the run was cut off.
    pub done: Vec<usize>,
}

/// Drives the run to its end; gives the account and the journal's pen, which holds every frame.
pub fn perform(standing: Standing, stage: Stage) -> (Standing, Pen) {
    let Stage {
        mut crew,
        prepared,
        clock,
        pen,
        probes,
        tables,
        events,
        view,
        from,
        done,
    } = stage;
    let seed = standing.opened().plan.seed;
    let missing = std::mem::take(&mut crew.missing);
    let mut run = Run::new(standing, &missing, done, clock.now_ns());
    for (device, expected_ns) in prepared.expected_ns {
        run.expect_steps(device, expected_ns);
    }
    let mut hands = Hands {
        fleet: crew.fleet,
        pen: &pen,
        view,
        ending: None,
    };
    let mut first: Vec<Output> = Vec::new();
    for table in tables {
        first.extend(run.handle(Input::Table(table), clock.now_ns()));
    }
    for (device, passed, detail) in prepared.self_tests {
        let what = What::SelfTest { passed, detail };
        first.extend(run.handle(Input::Event(what, Some(device)), clock.now_ns()));
    }
    for (device, detail) in std::mem::take(&mut crew.memory_faults) {
        let what = What::Mismatch { detail };
        first.extend(run.handle(Input::Event(what, Some(device)), clock.now_ns()));
    }
    for (device, what) in events {
        first.extend(run.handle(Input::Event(what, device), clock.now_ns()));
    }
    let probes = Probes::start(probes, clock, seed, &crew.inputs);
    first.extend(run.begin(from, clock.now_ns()));
    hands.carry_out(first, &run, clock.now_ns());
    drive(&mut run, &mut hands, &crew.inbox, clock);
    probes.stop();
    last_rows(&mut run, &mut hands, &crew.inbox, clock);
    if hands.ending == Some(Ending::Complete) {
        part(&mut run, &mut hands, &crew.inbox, clock);
    }
    let last = run.last_words(clock.now_ns());
    hands.carry_out(last, &run, clock.now_ns());
    // Whoever still has something to say finds nobody, and ends.
    drop(crew.inbox);
    let Hands {
        mut fleet, ending, ..
    } = hands;
    let closed = Frame::Closed(Closed {
        at_ns: clock.now_ns(),
        utc_end: clock::utc_now(),
        clock: clock::clock_state(),
        ending: ending.unwrap_or(Ending::Complete),
    });
    let standing = run.close(&closed);
    pen.write(closed);
    if fleet.keeps_copies() {
        on_disk(fleet.as_mut(), &pen, clock);
    }
    // Last: a process that cannot be ended keeps nothing from the record.
    fleet.end(END_MS);
    (standing, pen)
}

/// Hands the run what happens, and carries out what it answers, until it is over.
fn drive(run: &mut Run, hands: &mut Hands, inbox: &Receiver<Input>, clock: RunClock) {
    let mut interrupts = 0;
    let mut origins: Vec<Origin> = Vec::new();
    let mut heard = |run: &mut Run, origins: &mut Vec<Origin>, input: Input| {
        if let Input::From(origin, _) = &input {
            origins.push(*origin);
        }
        let input = match input {
            Input::Interrupt => {
                interrupts += 1;
                if interrupts > 1 {
                    Input::Cut
                } else {
                    Input::Interrupt
                }
            }
            input => input,
        };
        run.handle(input, clock.now_ns())
    };
    let mut look_ns: u64 = 0;
    while !run.is_finished() {
        let wait = Duration::from_nanos(look_ns.saturating_sub(clock.now_ns()));
        let mut outputs = Vec::new();
        if let Ok(input) = inbox.recv_timeout(wait) {
            outputs.extend(heard(run, &mut origins, input));
        }
        // All that was said before this turn is heard before anyone is called silent; the inbox holds no more.
        for input in inbox.try_iter().take(INPUTS_MAX) {
            outputs.extend(heard(run, &mut origins, input));
        }
        match hands.view.pressed() {
            Some(Key::Stop) => outputs.extend(heard(run, &mut origins, Input::Interrupt)),
            Some(Key::Cut) => outputs.extend(heard(run, &mut origins, Input::Cut)),
            None => {}
        }
        let now = clock.now_ns();
        // However much is said: a look goes over all devices.
        let looks = now >= look_ns;
        if looks {
            outputs.extend(run.poll(now));
            look_ns = run.deadline(now);
        }
        hands.carry_out(outputs, run, now);
        if looks {
            hands.turn(run, &mut origins, now);
        }
        hands.view.tick(run, now);
    }
    hands.turn(run, &mut origins, clock.now_ns());
}

/// Takes what sensors and other machines still hand over; workers here have said everything before they reported idle.
fn last_rows(run: &mut Run, hands: &mut Hands, inbox: &Receiver<Input>, clock: RunClock) {
    const LOOK: Duration = Duration::from_millis(50);
    let deadline = clock.now_ns() + hands.fleet.finish();
    let mut origins = Vec::new();
    while let Some(left) = deadline.checked_sub(clock.now_ns())
        && !hands.fleet.is_drained()
    {
        match inbox.recv_timeout(Duration::from_nanos(left).min(LOOK)) {
            Ok(first) => {
                // What came meanwhile goes along: a look at all nodes after each would take longer than they have.
                for input in std::iter::once(first).chain(inbox.try_iter().take(INPUTS_MAX)) {
                    last_row(run, hands, &mut origins, input, clock.now_ns());
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        hands.turn(run, &mut origins, clock.now_ns());
    }
    // Whoever has said its last word had handed over all before it; the inbox holds no more.
    for input in inbox.try_iter().take(INPUTS_MAX) {
        last_row(run, hands, &mut origins, input, clock.now_ns());
    }
    hands.turn(run, &mut origins, clock.now_ns());
    let now = clock.now_ns();
    for detail in hands.fleet.lost() {
        let kind = FaultKind::Journal;
        let what = What::Fault { kind, detail };
        let outputs = run.handle(Input::Event(what, None), now);
        hands.carry_out(outputs, run, now);
    }
}

/// Puts on record what the others measure once all is over; whoever interrupts does not wait for it.
fn part(run: &mut Run, hands: &mut Hands, inbox: &Receiver<Input>, clock: RunClock) {
    let Hands { fleet, view, .. } = hands;
    let mut told = false;
    let measured = fleet.part(&mut |doing| {
        if !std::mem::replace(&mut told, true) {
            view.note(doing);
        }
        let ends = |input: Input| matches!(input, Input::Interrupt | Input::Cut);
        view.pressed().is_none() && !inbox.try_iter().take(INPUTS_MAX).any(ends)
    });
    for what in measured {
        let outputs = run.handle(Input::Event(what, None), clock.now_ns());
        hands.carry_out(outputs, run, clock.now_ns());
    }
}

fn last_row(
    run: &mut Run,
    hands: &mut Hands,
    origins: &mut Vec<Origin>,
    input: Input,
    now_ns: u64,
) {
    match &input {
        Input::From(origin, _) => origins.push(*origin),
        Input::Samples(_) | Input::Event(..) | Input::JournalFailed(_) => {}
        _ => return,
    }
    let outputs = run.handle(input, now_ns);
    hands.carry_out(outputs, run, now_ns);
}

/// Waits until all is on disk, and tells so those who keep copies till then.
fn on_disk(fleet: &mut dyn Workers, pen: &Pen, clock: RunClock) {
    for _ in 0..ON_DISK_LOOKS {
        if pen.durable() >= pen.handed() {
            break;
        }
        clock::sleep(ON_DISK_LOOK);
    }
    let progress = Progress {
        handed: pen.handed(),
        durable: pen.durable(),
    };
    fleet.turn(&[], progress, clock.now_ns());
}

struct Hands<'a> {
    fleet: Box<dyn Workers>,
    pen: &'a Pen,
    view: &'a mut dyn View,
    ending: Option<Ending>,
}

impl Hands<'_> {
    /// Tells those who drive the devices how far the record is, and the run what they know beside it.
    fn turn(&mut self, run: &mut Run, heard: &mut Vec<Origin>, now_ns: u64) {
        let progress = Progress {
            handed: self.pen.handed(),
            durable: self.pen.durable(),
        };
        for input in self.fleet.turn(heard, progress, now_ns) {
            let outputs = run.handle(input, now_ns);
            self.carry_out(outputs, run, now_ns);
        }
        heard.clear();
    }

    fn carry_out(&mut self, outputs: Vec<Output>, run: &Run, now_ns: u64) {
        for output in outputs {
            match output {
                Output::Journal(frame) => {
                    self.view.frame(&frame, run, now_ns);
                    self.pen.write(frame);
                }
                Output::Tell(device, order) => self.fleet.tell(device, &order),
                Output::Kill(device) => self.fleet.kill(device),
                Output::Abandon { generation, lost } => {
                    self.fleet.abandon(generation, &lost);
                }
                Output::Finished(ending) => self.ending = Some(ending),
            }
        }
    }
}
