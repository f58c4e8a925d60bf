//! The agent of one node: it joins a run, starts a worker for each device and reads the node's sensors, as a run on one
//! machine does, and reports all of it to the controller.
//!
//! Where the hall reduces across nodes it also keeps the node's bridge (see [`crate::bridge`]).
//!
//! It decides nothing about the load. Every report is in the node's log before it is sent, and an agent that is started in
//! a killed one's place goes on with that log: what was not acknowledged is sent, sensors are read on. It ends with its workers when
//! it is told to, refused, left without a controller for a minute, or orphaned by its launcher.

mod crossing;
pub mod dial;
pub mod log;
pub(crate) mod offset;
mod pmi;

use crate::cli::Agent;
use crate::clock::{self, RunClock};
use crate::exit::{Exit, Failure};
use crate::launch::{Invitation, manual};
use crate::protocol::ToWorker;
use crate::protocol::link::{Claim, Pass, Said, Task, VERSION};
use crate::rank;
use crate::run::Input;
use crate::sensors::{self, Sensors, Sources};
use crate::shell::fleet::{self, Fleet};
use crate::shell::inbox::{self, Inlet};
use crate::shell::probes::Probes;
use crate::shell::real::environment;
use crate::topology;
use crossing::Crossing;
use dial::{Desk, Heard, lock};
use hallmark_kernels::device::DeviceInfo;
use hallmark_results::plan::Plan;
use log::Log;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Longest invitation, B.
const INVITATION_MAX: u64 = 1 << 20;
/// Longest wait for workers to end by themselves, and for sensors' last rows.
const END_MS: u64 = 2_000;
/// Longest wait for the clocks to be compared often enough, and then at all: a network that loses much delays answers.
const COMPARE_MS: u64 = 20_000;
const LAST_ROWS: Duration = Duration::from_millis(300);
/// Between two looks at whether anything came.
const LOOK: Duration = Duration::from_millis(20);

/// Joins the run that the invitation names.
///
/// # Errors
/// [`Failure`]: exit 2 for an invitation that is none, or a controller that refuses this agent; 4 where it lost its
/// controller or launcher. No worker is left running.
pub fn join(args: &Agent) -> Result<Exit, Failure> {
    let rank = rank::find(|name| std::env::var(name).ok()).map_err(Failure::usage)?;
    let host = topology::host();
    let invitation = match (&args.join, &args.invitation) {
        (Some(folder), _) => manual::choose(folder, &host.name, rank.as_ref())?,
        (None, Some(file)) => in_file(file)?,
        (None, None) => invitation()?,
    };
    if let Some(program) = fleet::other_program() {
        return Err(Failure::usage(format!(
            "{} {}: an agent drives its devices by itself alone",
            fleet::WORKER_BINARY,
            program.display()
        )));
    }
    keep_to(&invitation.cores);
    let found = topology::find(&args.cuda.choice(), args.cuda.patience());
    let devices = topology::select(&found, &invitation.devices, &topology::cores())
        .map_err(Failure::usage)?;
    let sources = Sources {
        nvml: args.nvml.clone(),
        ..Sources::default()
    };
    let sensors = sensors::open(&sources).map_err(Failure::usage)?;
    let id = getrandom::u64().map_err(Failure::broken)?;
    let log = Log::open(&invitation.folder, id.max(1)).map_err(Failure::broken)?;
    let last = log.last();
    let claim = Claim {
        version: VERSION,
        hallmark_version: env!("CARGO_PKG_VERSION").to_owned(),
        node: invitation.node.clone(),
        pass: Pass::Token(invitation.token.clone()),
        log: log.id(),
        last,
        task: 0,
        pid: std::process::id(),
        host,
        rank: rank.clone(),
        devices: devices.clone(),
        watched: sensors.devices(),
        absent: found.absent,
        mpi: crossing::find(args.mpi.as_ref(), rank.as_ref()),
    };
    let desk = Arc::new(Desk::new(log));
    let (heard, ears) = channel();
    match (&args.join, &args.invitation) {
        // Whoever started it may have given it no input; the kernel kills it with them.
        (Some(_), _) => fleet::die_with_parent().map_err(Failure::broken)?,
        // What runs containers gives none either, and tells it to end by a signal.
        (None, Some(_)) => told_to_end(&heard)?,
        (None, None) => orphaned(&heard),
    }
    let shared = Arc::clone(&desk);
    std::thread::spawn(move || dial::keep(&invitation, claim, &shared, &heard));
    let (inlet, inbox) = inbox::open();
    let mut node = Node {
        desk,
        devices,
        sensors: Some(sensors),
        inlet,
        inbox,
        again: last > 0,
        first: 0,
        fleet: None,
        crossing: Crossing::new(args.mpi.clone(), rank),
        probes: None,
        dismissed: BTreeSet::new(),
        finishing: false,
    };
    // This thread has started the workers, and they end with it.
    node.serve(&ears)
}

fn invitation() -> Result<Invitation, Failure> {
    let mut line = String::new();
    let stdin = std::io::stdin().lock();
    stdin
        .take(INVITATION_MAX)
        .read_line(&mut line)
        .map_err(|e| Failure::usage(format!("no invitation on standard input: {e}")))?;
    serde_json::from_str(&line).map_err(|e| {
        Failure::usage(format!(
            "no invitation on standard input: {e}; agents are started by `hallmark run --site`"
        ))
    })
}

/// The invitation in a file that nobody else may read.
fn in_file(path: &Path) -> Result<Invitation, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("no invitation in {}: {why}", path.display()))
    };
    let file = File::open(path).map_err(|e| wrong(&e))?;
    let about = file.metadata().map_err(|e| wrong(&e))?;
    if !about.is_file() {
        return Err(wrong(&"it is no file"));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        /// What a mode grants to everybody.
        const OTHERS: u32 = 0o007;
        let mode = about.permissions().mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(wrong(&format!(
                "everybody may read or write it (mode {mode:o}); make it its owner's alone: chmod 600"
            )));
        }
    }
    let mut text = String::new();
    let read = file.take(INVITATION_MAX).read_to_string(&mut text);
    read.map_err(|e| wrong(&e))?;
    // What does not fit is not shown: it may be a part of a secret.
    serde_json::from_str(&text)
        .map_err(|e| wrong(&format!("line {}, column {} is none", e.line(), e.column())))
}

/// Keeps this process, and all that it starts, to a node's share of the machine.
fn keep_to(cores: &[usize]) {
    #[cfg(target_os = "linux")]
    if !cores.is_empty() {
        let mut set = rustix::thread::CpuSet::new();
        cores.iter().for_each(|core| set.set(*core));
        // Cores that are not there leave all of them; what a device got is in the claim.
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = cores;
}

/// Tells when the launcher has closed this agent's input: it ended, however that was.
fn orphaned(heard: &Sender<Heard>) {
    let heard = heard.clone();
    std::thread::spawn(move || {
        let mut bytes = [0; 256];
        let mut stdin = std::io::stdin().lock();
        while let Ok(1..) = stdin.read(&mut bytes) {}
        let _ = heard.send(Heard::Lost("the launcher has ended".to_owned()));
    });
}

/// Tells when this process is told to end. The first process of a container has to ask for it: to it the kernel gives no
/// signal that it does not handle.
fn told_to_end(heard: &Sender<Heard>) -> Result<(), Failure> {
    use signal_hook::consts::SIGTERM;
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM])
        .map_err(|e| Failure::broken(format!("cannot listen for signals: {e}")))?;
    let heard = heard.clone();
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            let _ = heard.send(Heard::Lost("told to end by a signal".to_owned()));
        }
    });
    Ok(())
}

struct Node {
    desk: Arc<Desk>,
    devices: Vec<DeviceInfo>,
    /// Until they are read.
    sensors: Option<Sensors>,
    inlet: Inlet,
    inbox: Receiver<Input>,
    /// An agent before this one has told what it found.
    again: bool,
    /// Number in the whole plan of the first device.
    first: u32,
    fleet: Option<Fleet>,
    crossing: Crossing,
    probes: Option<Probes>,
    /// Devices whose workers were told to end, or were killed, by the run.
    dismissed: BTreeSet<u32>,
    finishing: bool,
}

impl Node {
    fn serve(&mut self, ears: &Receiver<Heard>) -> Result<Exit, Failure> {
        loop {
            match ears.recv_timeout(LOOK) {
                Ok(Heard::Task(task)) => {
                    if *task == Task::Leave {
                        self.leave();
                        return Ok(Exit::Accepted);
                    }
                    self.obey(*task)?;
                }
                Ok(Heard::Refused(why)) => {
                    return Err(Failure::usage(format!("refused by the controller: {why}")));
                }
                Ok(Heard::Lost(why)) => return Err(Failure::broken(why)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::broken("the network's thread died"));
                }
            }
            self.report_all()?;
        }
    }

    /// A log that the controller has on disk is of no use to anybody here; any other may be the only copy.
    fn leave(&self) {
        let log = lock(&self.desk.log);
        if !log.owes() {
            log.remove();
        }
    }

    /// Writes down what workers and sensors have said.
    fn report_all(&mut self) -> Result<(), Failure> {
        while let Ok(input) = self.inbox.try_recv() {
            if let Some(said) = self.said(input) {
                self.say(said)?;
            }
        }
        for said in self.crossing.said() {
            self.say(said)?;
        }
        Ok(())
    }

    fn say(&self, said: Said) -> Result<(), Failure> {
        // A node whose disk takes no report has nothing to show for its work, and ends.
        self.desk.say(said).map_err(Failure::broken)
    }

    /// In the numbers of the whole plan.
    fn said(&self, input: Input) -> Option<Said> {
        let whole = |device: u32| device + self.first;
        Some(match input {
            Input::Worker(device, report) => Said::Worker {
                device: whole(device),
                report,
            },
            // That workers end at the end is no news, nor that one does whose end the run has asked for.
            Input::Gone(..) if self.finishing => return None,
            Input::Gone(device, _) if self.dismissed.contains(&device) => return None,
            Input::Gone(device, why) => Said::Gone {
                device: whole(device),
                why,
            },
            Input::Table(mut table) => {
                table.device = table.device.map(whole);
                Said::Table(table)
            }
            Input::Samples(samples) => Said::Samples(samples),
            Input::Event(what, device) => Said::Event {
                what,
                device: device.map(whole),
            },
            _ => return None,
        })
    }

    fn obey(&mut self, task: Task) -> Result<(), Failure> {
        match task {
            Task::Muster { first } => {
                self.first = first;
                let environments: Vec<_> = self.devices.iter().map(environment).collect();
                let fleet = Fleet::start(&environments, &self.inlet);
                self.fleet =
                    Some(fleet.map_err(|e| {
                        Failure::broken(format!("cannot start a worker process: {e}"))
                    })?);
            }
            Task::Drive { device, order } => self.drive(device, *order)?,
            Task::Kill { device } => {
                if let (Some(fleet), Some(own)) = (&mut self.fleet, device.checked_sub(self.first))
                {
                    self.dismissed.insert(own);
                    fleet.kill(own);
                }
            }
            Task::Bridge(span) => self.crossing.start(&span),
            Task::Cards {
                generation, cards, ..
            } => self.crossing.show(generation, cards),
            Task::Abandon { generation, lost } => self.crossing.abandon(generation, &lost),
            Task::Sense {
                first,
                plan,
                epoch_ns,
            } => {
                self.first = first;
                self.sense(&plan, epoch_ns)?;
            }
            Task::Finish => self.finish()?,
            Task::Leave => {}
        }
        Ok(())
    }

    fn drive(&mut self, device: u32, mut order: ToWorker) -> Result<(), Failure> {
        let Some(own) = device.checked_sub(self.first) else {
            return Ok(());
        };
        if let ToWorker::Open { info, epoch_ns, .. } = &mut order {
            // The engine knows the device by the name that it has here.
            if let Some(known) = self.devices.get(own as usize) {
                info.id.clone_from(&known.id);
            }
            *epoch_ns = self.epoch(*epoch_ns)?;
        }
        if let ToWorker::Prepare { steps, groups, .. } = &mut order {
            let placed = self
                .crossing
                .place(groups, steps, self.first, self.devices.len());
            placed.map_err(Failure::broken)?;
        }
        if order == ToWorker::Quit {
            self.dismissed.insert(own);
        }
        if let Some(fleet) = &mut self.fleet {
            fleet.tell(own, &order);
        }
        Ok(())
    }

    /// The run's start on this node's clock. The offset is measured before the first order, and kept for all times that the
    /// node tells.
    fn epoch(&self, controllers_ns: u64) -> Result<u64, Failure> {
        let begun_ns = clock::monotonic_ns();
        if let Some(ahead) = *lock(&self.desk.began) {
            return Ok(controllers_ns.wrapping_sub_signed(ahead.ns));
        }
        loop {
            let (known, best) = {
                let offset = lock(&self.desk.offset);
                (offset.is_known(), offset.best())
            };
            let waited_ms = clock::monotonic_ns().saturating_sub(begun_ns) / 1_000_000;
            match best {
                Some(ahead) if known || waited_ms > COMPARE_MS => {
                    *lock(&self.desk.began) = Some(ahead);
                    return Ok(controllers_ns.wrapping_sub_signed(ahead.ns));
                }
                None if waited_ms > COMPARE_MS => {
                    let why = "no heartbeat was answered, so the clocks cannot be compared";
                    return Err(Failure::broken(why));
                }
                _ => clock::sleep(LOOK),
            }
        }
    }

    fn sense(&mut self, plan: &Plan, epoch_ns: u64) -> Result<(), Failure> {
        let Some(sensors) = self.sensors.take() else {
            return Ok(());
        };
        let layout = sensors.lay_out(plan, 0);
        for table in layout.tables {
            let told = self.said(Input::Table(table));
            told.map_or(Ok(()), |said| self.say(said))?;
        }
        let told = layout.events.into_iter().filter(|_| !self.again);
        for (device, what) in told {
            let told = self.said(Input::Event(what, device));
            told.map_or(Ok(()), |said| self.say(said))?;
        }
        let clock = RunClock::with_epoch(self.epoch(epoch_ns)?);
        self.probes = Some(Probes::start(layout.probes, clock, plan.seed, &self.inlet));
        Ok(())
    }

    /// Ends workers and sensors, and says that nothing follows.
    fn finish(&mut self) -> Result<(), Failure> {
        self.report_all()?;
        self.finishing = true;
        if let Some(probes) = self.probes.take() {
            probes.stop();
        }
        if let Some(fleet) = self.fleet.take() {
            fleet.end(END_MS);
        }
        self.crossing.leave();
        clock::sleep(LAST_ROWS);
        self.report_all()?;
        self.say(Said::Last)
    }
}
