//! A controller under a hall of agents that drive nothing: how much it costs, whether it keeps up, how well they start together.
//!
//! `cargo build --release && cargo run --release -p hallmark-tests --example twin_agents -- [NODES] [DEVICES] [SECONDS]`
//!
//! The controller is the real program, which runs a steady phase over so many nodes [default: 2,000] of so many devices each
//! [5], for so many seconds [60]. The agents are tasks of this process: their network (two connections each, mutual TLS),
//! their logs and what they say are an agent's own; but each device is a stand-in that tells a step and a row of 12 readings
//! once a second, all of them invented. Everything runs on this machine and shares its processor, so the run is a rehearsal.
//! It prints one line a figure and says nothing of whether they are good.

use hallmark::agent::dial::{self, Desk, Heard, lock};
use hallmark::agent::log::Log;
use hallmark::clock;
use hallmark::launch::Invitation;
use hallmark::protocol::link::{Claim, Pass, Said, Task, VERSION};
use hallmark::protocol::{FromWorker, Order, ToWorker};
use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Dtype, StepSpec};
use hallmark_results::frame::{
    Host, Provenance, Samples, Series, SeriesKind, StepRow, Steps, Table,
};
use hallmark_tests::program;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

type Outcome<T> = Result<T, Box<dyn Error>>;

const SECOND: u64 = 1_000_000_000;
/// Between two looks of all agents at what they were told.
const LOOK: Duration = Duration::from_millis(5);
/// Looks at the controller that one line tells of; there is one a second.
const LOOKS: usize = 5;
/// Readings of a device.
const SERIES: usize = 12;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual: u64| arguments.next().map_or(Ok(usual), |n| n.parse());
    let (nodes, devices, seconds) = (number(2_000)?, number(5)?, number(60)?);
    hallmark::shell::files::allow_many();
    let keep = tempfile::tempdir()?;
    let mut controller = start(keep.path(), nodes, devices, seconds)?;
    let invitations = invitations(
        &keep.path().join("run.join"),
        nodes as usize,
        &mut controller,
    )?;
    let mut agents: Vec<Agent> = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let network = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    for (index, invitation) in invitations.into_iter().enumerate() {
        let folder = keep.path().join("logs").join(index.to_string());
        agents.push(Agent::join(&network, &invitation, &folder, devices)?);
    }
    let mut peak_kb = 0;
    let mut busy: Vec<(u64, f64, u64)> = Vec::new();
    let (begun_ns, mut looked_ns) = (clock::monotonic_ns(), 0);
    while controller.try_wait()?.is_none() {
        if let Err(error) = agents.iter_mut().try_for_each(Agent::turn) {
            print!("{}", std::fs::read_to_string(keep.path().join("stdout"))?);
            return Err(error);
        }
        let now_ns = clock::monotonic_ns();
        if now_ns.saturating_sub(looked_ns) > SECOND {
            looked_ns = now_ns;
            let (busy_s, [kb, peak]) = cost(controller.id());
            peak_kb = peak_kb.max(peak);
            busy.push((now_ns - begun_ns, busy_s, kb));
        }
        std::thread::sleep(LOOK);
    }
    let code = controller.wait()?;
    tell(&agents, &busy, peak_kb);
    println!("the controller ended with {code}");
    print!("{}", std::fs::read_to_string(keep.path().join("stdout"))?);
    Ok(())
}

/// The controller, which waits for agents.
fn start(folder: &Path, nodes: u64, devices: u64, seconds: u64) -> Outcome<Child> {
    let site = folder.join("site.toml");
    std::fs::write(
        &site,
        format!(
            "schema_version = 1\nname = \"Twin agents\"\ncountry = \"NO\"\nregion = \"north\"\nhall = \"A\"\n\
             launcher = \"manual\"\n[devices]\ncount = {devices}\n[[rack]]\nname = \"R1\"\ncontract_power = \"40 kW\"\n\
             nodes = [\"n[1-{nodes}]\"]\n"
        ),
    )?;
    let profile = folder.join("steady.toml");
    std::fs::write(&profile, steady(seconds))?;
    let mut command = program::hallmark(["run", "--rehearsal", "--ui", "plain", "--mpi", "none"]);
    let child = command
        .arg("--site")
        .arg(site)
        .arg("--out")
        .arg(folder.join("run"))
        .arg(profile)
        .stdout(std::fs::File::create(folder.join("stdout"))?)
        .stderr(Stdio::inherit())
        .spawn()?;
    Ok(child)
}

fn steady(seconds: u64) -> String {
    format!(
        r#"
schema_version = 1
name = "twin-agents"
summary = "Stand-ins that do nothing; accepts no site."
accepts_site = false
seed = 1
[load]
dtype = ["f32"]
matmul = {{ m = 256, n = 256, k = 256 }}
bucket = "4 MiB"
queue_depth = 2
operand_pairs = 16
audit_share = 0.2
transients = true
[load.ramp]
levels = [1.0]
hold = "1 s"
[load.warmup]
least = "1 s"
limit = "2 s"
window = "1 s"
rate_tolerance = 0.5
temperature_tolerance = "50 K"
[[load.phase]]
name = "steady"
pattern = "steady"
duration = "{seconds} s"
[telemetry]
period = "1 s"
block = "10 s"
metrics = ["power_draw"]
[[criterion]]
name = "failures"
metric = "failures"
scope = "site"
statistic = "total"
at_most = "0"
"#
    )
}

/// What the launcher `manual` lays out, one for each node.
fn invitations(folder: &Path, nodes: usize, controller: &mut Child) -> Outcome<Vec<Invitation>> {
    loop {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let files: Vec<PathBuf> = files.map(|f| f.path()).collect();
        let read = |path: &PathBuf| serde_json::from_slice(&std::fs::read(path).ok()?).ok();
        let all: Vec<Invitation> = files.iter().filter_map(read).collect();
        if all.len() == nodes {
            return Ok(all);
        }
        if controller.try_wait()?.is_some() {
            return Err("the controller ended before it invited anybody".into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A device at work.
struct Device {
    order: Order,
    begun_ns: u64,
    next_seq: u64,
}

struct Agent {
    desk: Arc<Desk>,
    ears: Receiver<Heard>,
    info: DeviceInfo,
    first: u32,
    steps: Vec<StepSpec>,
    epoch_ns: u64,
    at_work: BTreeMap<u32, Device>,
    devices: u32,
    /// When the next rows of sensors are due; 0 before they are asked for.
    sense_ns: u64,
    /// By how much an order came after the time at which it was to begin.
    late_ns: Vec<u64>,
    /// It was told that the load is over.
    left: bool,
    /// Reports said, and the most that were not acknowledged yet.
    said: u64,
    owed: u64,
}

impl Agent {
    fn join(
        network: &tokio::runtime::Handle,
        invitation: &Invitation,
        folder: &Path,
        devices: u64,
    ) -> Outcome<Self> {
        let info = |index: u64| DeviceInfo {
            id: format!("cpu{index}"),
            engine: "cpu".to_owned(),
            name: "twin agent's stand-in".to_owned(),
            vendor: String::new(),
            pci: None,
            uuid: None,
            driver: String::new(),
            memory: Bytes::gibibytes(1),
            dtypes: vec![Dtype::F32],
            software: true,
            cores: Vec::new(),
            facts: Vec::new(),
        };
        let log = Log::open(folder, 1)?;
        let claim = Claim {
            version: VERSION,
            hallmark_version: env!("CARGO_PKG_VERSION").to_owned(),
            node: invitation.node.clone(),
            pass: Pass::Token(invitation.token.clone()),
            log: log.id(),
            last: 0,
            task: 0,
            pid: std::process::id(),
            host: Host {
                name: invitation.node.clone(),
                boot_id: invitation.node.clone(),
                ..Host::default()
            },
            rank: None,
            devices: (0..devices).map(info).collect(),
            watched: Vec::new(),
            absent: Vec::new(),
            mpi: Err("stand-ins have none".to_owned()),
        };
        let desk = Arc::new(Desk::new(log));
        let (heard, ears) = channel();
        let endpoint = dial::endpoint(invitation)?;
        let own = Arc::clone(&desk);
        network.spawn(async move {
            // Whoever listens has ended, if nobody hears it.
            let _ = heard.send(dial::dial(&endpoint, claim, &own, &heard).await);
        });
        Ok(Self {
            desk,
            ears,
            info: info(0),
            first: 0,
            steps: Vec::new(),
            epoch_ns: 0,
            at_work: BTreeMap::new(),
            devices: devices as u32,
            sense_ns: 0,
            late_ns: Vec::new(),
            left: false,
            said: 0,
            owed: 0,
        })
    }

    fn say(&mut self, said: Said) -> Outcome<()> {
        self.desk.say(said)?;
        self.said += 1;
        Ok(())
    }

    fn worker(&mut self, device: u32, report: FromWorker) -> Outcome<()> {
        self.say(Said::Worker { device, report })
    }

    /// Does what is due.
    fn turn(&mut self) -> Outcome<()> {
        while let Ok(heard) = self.ears.try_recv() {
            match heard {
                Heard::Task(task) => self.obey(*task)?,
                // The record is sealed after the last agent was told to leave.
                Heard::Lost(_) if self.left => {}
                Heard::Refused(why) | Heard::Lost(why) => return Err(why.into()),
            }
        }
        let now_ns = clock::monotonic_ns().wrapping_sub(self.epoch_ns);
        let due: Vec<u32> = self.at_work.keys().copied().collect();
        for device in due {
            self.work(device, now_ns)?;
        }
        if self.sense_ns > 0 && now_ns >= self.sense_ns {
            self.sense_ns = now_ns + SECOND;
            for device in 0..self.devices {
                // Within a few percent, as a device's readings under load are.
                let value =
                    |series: usize| vec![600.0 + (now_ns % 293) as f64 / 10.0 + series as f64];
                let samples = Samples {
                    table: device,
                    at_ns: vec![now_ns],
                    columns: (0..SERIES).map(value).collect(),
                };
                self.say(Said::Samples(samples))?;
            }
            let log = lock(&self.desk.log);
            self.owed = self.owed.max((log.last() + 1).saturating_sub(log.oldest()));
        }
        Ok(())
    }

    fn work(&mut self, device: u32, now_ns: u64) -> Outcome<()> {
        let Some(at_work) = self.at_work.get_mut(&device) else {
            return Ok(());
        };
        let (segment, until_ns) = (at_work.order.segment, at_work.order.until_ns);
        if now_ns < at_work.begun_ns + SECOND && now_ns < until_ns {
            return Ok(());
        }
        let end_ns = now_ns.min(until_ns.max(at_work.begun_ns + 1));
        let row = StepRow {
            seq: at_work.next_seq,
            segment,
            due_ns: at_work.begun_ns,
            start_ns: at_work.begun_ns,
            end_ns,
            compute_ns: end_ns - at_work.begun_ns,
            flop: 1e12,
            gemms: 1,
            ..StepRow::default()
        };
        (at_work.begun_ns, at_work.next_seq) = (end_ns, at_work.next_seq + 1);
        let next_seq = at_work.next_seq;
        let steps = Steps {
            device,
            device_clock: false,
            rows: vec![row],
            ops: Vec::new(),
            trials: Vec::new(),
        };
        self.worker(device, FromWorker::Steps(steps))?;
        if now_ns >= until_ns {
            self.at_work.remove(&device);
            self.worker(device, FromWorker::Idle { segment, next_seq })?;
        }
        Ok(())
    }

    fn obey(&mut self, task: Task) -> Outcome<()> {
        match task {
            Task::Muster { first } => self.first = first,
            Task::Drive { device, order } => self.drive(device, *order)?,
            Task::Sense { .. } => {
                for device in 0..self.devices {
                    self.say(Said::Table(self.table(device)))?;
                }
                self.sense_ns = 1;
            }
            Task::Finish => {
                self.sense_ns = 0;
                self.left = true;
                self.say(Said::Last)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn drive(&mut self, device: u32, order: ToWorker) -> Outcome<()> {
        match order {
            ToWorker::Open { epoch_ns, .. } => {
                self.epoch_ns = epoch_ns;
                let best = lock(&self.desk.offset).best();
                *lock(&self.desk.began) = best;
                let info = Box::new(self.info.clone());
                let opened = FromWorker::Opened {
                    info,
                    free_bytes: 1 << 30,
                    probe: None,
                    memory_faults: Vec::new(),
                };
                self.worker(device, opened)
            }
            ToWorker::Prepare { steps, .. } => {
                self.steps = steps;
                let prepared = FromWorker::Prepared {
                    self_test_passed: true,
                    self_test: "a stand-in tests nothing".to_owned(),
                    transport: None,
                    expected_ns: vec![SECOND; self.steps.len()],
                    facts: Vec::new(),
                };
                self.worker(device, prepared)
            }
            ToWorker::Regroup { generation, .. } => {
                self.worker(device, FromWorker::Regrouped { generation })
            }
            ToWorker::Start(order) => {
                let now_ns = clock::monotonic_ns().wrapping_sub(self.epoch_ns);
                self.late_ns.push(now_ns.saturating_sub(order.from_ns));
                let device_at_work = Device {
                    begun_ns: now_ns.max(order.from_ns),
                    next_seq: order.first_seq,
                    order,
                };
                self.at_work.insert(device, device_at_work);
                Ok(())
            }
            ToWorker::Stop => {
                if let Some(at_work) = self.at_work.remove(&device) {
                    let (segment, next_seq) = (at_work.order.segment, at_work.next_seq);
                    return self.worker(device, FromWorker::Idle { segment, next_seq });
                }
                Ok(())
            }
            ToWorker::Quit => Ok(()),
        }
    }

    fn table(&self, device: u32) -> Table {
        // One power, as a device has, and what is no power.
        let metric = |index: usize| match index {
            0 => Metric::PowerDraw,
            _ => Metric::ClockSm,
        };
        let series = |index: usize| Series {
            metric: metric(index),
            label: format!("invented-{index}"),
            unit: metric(index).spec().unit,
            kind: SeriesKind::Gauge,
            averaging_ns: None,
            accuracy: None,
        };
        Table {
            id: device,
            name: format!("stand-in-{device}"),
            source: "invented".to_owned(),
            provenance: Provenance::StandIn,
            device: Some(self.first + device),
            place: format!("cpu{device}"),
            period_ns: SECOND,
            series: (0..SERIES).map(series).collect(),
        }
    }
}

/// Processor seconds of a process, and its resident kB now and at most.
fn cost(pid: u32) -> (f64, [u64; 2]) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let busy_s = ticks.map(|t| t.parse::<f64>().unwrap_or(0.0) / 100.0).sum();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kb = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key));
        let kb = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse().ok());
        kb.unwrap_or(0)
    };
    (busy_s, ["VmRSS:", "VmHWM:"].map(kb))
}

fn tell(agents: &[Agent], busy: &[(u64, f64, u64)], peak_kb: u64) {
    let said: u64 = agents.iter().map(|a| a.said).sum();
    let owed = agents.iter().map(|a| a.owed).max().unwrap_or(0);
    let mut late: Vec<u64> = agents
        .iter()
        .flat_map(|a| a.late_ns.iter().copied())
        .collect();
    late.sort_unstable();
    let ms = |ns: u64| ns as f64 / 1e6;
    let mut text = String::new();
    let _ = writeln!(text, "agents: {}; reports: {said}", agents.len());
    let _ = writeln!(
        text,
        "most reports of one agent that were not acknowledged yet: {owed}"
    );
    let _ = writeln!(
        text,
        "orders: {}; after the time at which they begin: {} by more than 10 ms; median {:.3} ms, last {:.3} ms",
        late.len(),
        late.iter().filter(|ns| **ns > 10_000_000).count(),
        ms(late.get(late.len() / 2).copied().unwrap_or(0)),
        ms(late.last().copied().unwrap_or(0)),
    );
    let off = agents.iter().filter_map(|a| lock(&a.desk.offset).best());
    let off = off.map(|o| o.ns.unsigned_abs()).max().unwrap_or(0);
    let _ = writeln!(
        text,
        "clocks, which are one, were found apart by at most {:.3} ms",
        ms(off)
    );
    let _ = writeln!(text, "the controller:");
    for some in busy.windows(LOOKS + 1).step_by(LOOKS) {
        let (from, to) = (some[0], some[LOOKS]);
        let (from_s, to_s) = (from.0 as f64 / 1e9, to.0 as f64 / 1e9);
        let cores = (to.1 - from.1) / (to_s - from_s);
        let mb = to.2 / 1_000;
        let _ = writeln!(
            text,
            "  {from_s:>4.0} to {to_s:>4.0} s  {cores:>5.2} cores  {mb:>6} MB"
        );
    }
    let all = busy.last().map_or(0.0, |b| b.1);
    let _ = writeln!(
        text,
        "the controller's processor seconds: {all:.1}; peak memory: {} MB",
        peak_kb / 1_000
    );
    print!("{text}");
}
