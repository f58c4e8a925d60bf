//! `hallmark run --site`: one run over all nodes of a hall, one record, one verdict.
//!
//! It is the same run as on one machine, whose workers are reached through agents. A node that does not join is missing
//! and stays so; the others are loaded, and the record says what was not there.

use super::load::{as_found, create, folder, listen, opened, run_id, settings, view};
use crate::cli::{Cuda, Run};
use crate::clock::RunClock;
use crate::command::record;
use crate::controller::{Controller, Handle};
use crate::exit::{Exit, Failure};
use crate::launch::kubernetes::manifest::Order;
use crate::launch::{self, kubernetes, local, manual, quoted, slurm, ssh};
use crate::plan::{self, Settings, hall, length};
use crate::protocol::link::Claim;
use crate::run::Input;
use crate::shell::inbox;
use crate::shell::pen::Pen;
use crate::shell::real::{self, Asked, Crew, Stage};
use crate::topology;
use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::profile::Loaded;
use hallmark_profiles::site::{self, Launcher, LoadedSite};
use hallmark_results::frame::{FaultKind, PairRow, What};
use hallmark_results::standing::Standing;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Longest wait for all agents to join: their engines are asked for their devices first.
const GATHER_NS: u64 = 90_000_000_000;
/// The same where somebody has to start them first.
const BY_HAND_NS: u64 = 600_000_000_000;
/// Invitations for agents that are started by hand.
pub(super) const JOIN: &str = ".join";
/// What a cluster was asked for, less its secrets.
const KEPT: &str = ".k8s.json";
/// What is done before the load where nodes reduce together.
pub(super) const TRYING: &str =
    "trying whether the nodes sum across each other, and how fast pairs of them exchange";
/// The key under which the record keeps which site it is.
const SITE: &str = "site";

/// Runs a profile on all nodes of a site.
///
/// # Errors
/// [`Failure`]: exit 2 before anything was written, 4 where the run itself broke.
pub fn run(args: &Run, path: &Path, loaded: &Loaded) -> Result<Exit, Failure> {
    let site = site::load(&path.to_string_lossy()).map_err(Failure::usage)?;
    refuse(args)?;
    let planned = planned(args, loaded)?;
    if args.dry_run {
        return super::preview::show(args, path, &site, loaded, planned);
    }
    if site.site.launcher == Launcher::Slurm && slurm::allocation().is_none() {
        return super::batch::run(args, path, &site, &folder(args, &loaded.profile.name)?);
    }
    let host = topology::host();
    let mut settings = settings(args, &host.name)?;
    let folder = folder(args, &loaded.profile.name)?;
    let (inlet, inbox) = inbox::open();
    listen(&inlet)?;
    let mut view = view(args.show.ui)?;
    let rehearsal = is_rehearsal(args, &site);
    let mut controller = Controller::start(&site, &run_id(&folder), rehearsal, &inlet)?;
    // Before the agents: a run that cannot keep a record loads nobody.
    let journal = create(&folder)?;
    super::stop::watch(&folder, &inlet);
    let undo = |_: &Failure| forget(&folder);
    let interrupted = || wants_to_end(&inbox);
    if rehearsal {
        view.note("a rehearsal: nodes may be processes of one machine, and no site is accepted");
    }
    view.note(&waiting(&site, &folder, args.mpi.as_deref())?);
    let start = Start {
        site: &site,
        folder: &folder,
        logs: &folder.join("nodes"),
        arguments: &arguments(&args.cuda, args.mpi.as_deref()),
        rehearsal,
        planned,
    };
    let gathered = gathered(&start, &mut controller, interrupted, |told| view.note(told));
    let (joined, devices, claims) = gathered.inspect_err(undo)?;
    let clock = RunClock::start();
    view.note(&format!("opening {} devices", devices.len()));
    let asked = asked(loaded);
    let note = |told: &str| view.note(told);
    let reduces = tried(loaded, &mut controller, &claims, interrupted, note).inspect_err(undo)?;
    let pairs = controller.pairs();
    let desk = controller.handle();
    let mut crew = real::open(Box::new(controller), &devices, clock, asked, (inlet, inbox))
        .inspect_err(undo)?;
    settings.probe = crew.probes.iter().flatten().copied().reduce(f64::min);
    let of_nodes = joined.iter().map(|j| j.clone().unwrap_or_default());
    let of_nodes: Vec<Vec<DeviceInfo>> = of_nodes.collect();
    settings.hall = Some(hall::Hall::new(&site, args.rehearsal, &of_nodes, reduces));
    let devices = merge(&devices, &crew);
    let planned = plan::make(loaded, &devices, &settings).map_err(Failure::usage);
    let mut plan = planned.inspect_err(undo)?;
    view.note("preparing steps and testing the audit");
    let prepared = crew.prepare(&plan, clock).inspect_err(undo)?;
    plan.transport = transport(&prepared.transport, &settings);
    let opened = opened(args, &folder, host, clock, plan);
    let standing = Standing::open(&opened).map_err(Failure::broken)?;
    let pen = Pen::start(journal, crew.inputs.clone());
    pen.write(opened);
    view.opened(&standing, &folder);
    let mut events = found(&site, &joined, &claims);
    events.extend(as_found(&prepared.facts));
    events.extend(facts(&desk, pairs));
    desk.sense(&standing.opened().plan, clock.epoch_ns());
    let stage = Stage {
        crew,
        prepared,
        clock,
        pen,
        probes: Vec::new(),
        tables: desk.clock_tables(),
        events,
        view: view.as_mut(),
        from: 0,
        done: Vec::new(),
    };
    let (standing, pen) = real::perform(standing, stage);
    record::conclude(&folder, standing, pen, view.as_mut())
}

/// Whether the operator wants to end before the load began.
pub(super) fn wants_to_end(inbox: &Receiver<Input>) -> bool {
    let mut inputs = inbox.try_iter();
    inputs.any(|i| matches!(i, Input::Interrupt | Input::Cut))
}

fn asked(loaded: &Loaded) -> Asked {
    Asked {
        probe: loaded.profile.load.fit_step.is_some(),
        memory_test: loaded.profile.load.memory_test,
    }
}

/// What is waited for, and what is to be done for it.
pub(super) fn waiting(
    site: &LoadedSite,
    folder: &Path,
    mpi: Option<&Path>,
) -> Result<String, Failure> {
    let nodes = site.nodes().count();
    if site.site.launcher != Launcher::Manual {
        return Ok(format!("waiting for {nodes} nodes"));
    }
    Ok(format!(
        "waiting for {nodes} nodes; start one process on each, e.g. by mpirun or srun: {}",
        by_hand(folder, mpi)?
    ))
}

/// The command that somebody types on each node.
pub(super) fn by_hand(folder: &Path, mpi: Option<&Path>) -> Result<String, Failure> {
    let join = std::path::absolute(super::beside(folder, JOIN)).map_err(Failure::broken)?;
    let mut words = format!(
        "hallmark agent --join {}",
        quoted(&join.display().to_string())
    );
    if let Some(library) = mpi {
        words += &format!(" --mpi {}", quoted(&library.display().to_string()));
    }
    Ok(words)
}

/// Whether nodes may be processes of one machine; then no site is ever accepted.
fn is_rehearsal(args: &Run, site: &LoadedSite) -> bool {
    args.rehearsal || site.site.launcher == Launcher::Local
}

/// What a run on one machine may be asked for and a hall's cannot, so that nothing is passed over in silence.
fn refuse(args: &Run) -> Result<(), Failure> {
    let given =
        |option: &str, why: &str| Err(Failure::usage(format!("{option} with --site: {why}")));
    if args.expect_devices.is_some() {
        return given("--expect-devices", "the site file declares the devices");
    }
    if args
        .devices
        .iter()
        .any(|d| d != plan::changes::EVERY_DEVICE)
    {
        return given("--devices", "all devices of a node take part");
    }
    if !args.replay.is_empty() {
        return given("--replay", "only the nodes' own sensors are read");
    }
    Ok(())
}

/// What the program is to do on a node.
pub(super) fn arguments(cuda: &Cuda, mpi: Option<&Path>) -> Vec<String> {
    let mut arguments = vec!["agent".to_owned()];
    arguments.extend(cuda.arguments());
    let library = mpi.iter();
    arguments.extend(library.flat_map(|l| ["--mpi".to_owned(), l.display().to_string()]));
    arguments
}

/// How long the run's schedule is at most.
fn planned(args: &Run, loaded: &Loaded) -> Result<Duration, Failure> {
    let mut profile = loaded.profile.clone();
    if let Some(total) = args.duration {
        length::shorten(&mut profile, total).map_err(Failure::usage)?;
    }
    Ok(length::planned(&profile))
}

/// What starts a run's agents.
pub(super) struct Start<'a> {
    pub site: &'a LoadedSite,
    pub folder: &'a Path,
    /// Gets a folder for each node.
    pub logs: &'a Path,
    pub arguments: &'a [String],
    pub rehearsal: bool,
    /// How long the run is at most.
    pub planned: Duration,
}

impl Start<'_> {
    /// Has the site's launcher start an agent on each node.
    ///
    /// # Errors
    /// [`Failure`]: the launcher cannot.
    pub(super) fn launch(&self, controller: &mut Controller) -> Result<(), Failure> {
        let program = std::env::current_exe().map_err(Failure::broken)?;
        let nodes: Vec<&str> = self.site.nodes().map(|n| n.name).collect();
        let hall = launch::Hall {
            controller,
            nodes: &nodes,
            logs: self.logs,
            program: &program,
            arguments: self.arguments,
            rehearsal: self.rehearsal,
        };
        let agents = match self.site.site.launcher {
            Launcher::Local => local::start(&hall)?,
            Launcher::Slurm => slurm::start(&hall)?,
            Launcher::Ssh => ssh::start(&hall)?,
            Launcher::Manual => manual::start(&hall, &super::beside(self.folder, JOIN))?,
            Launcher::Kubernetes => {
                let order = Order {
                    name: &kubernetes::draw_name(),
                    run: &run_id(self.folder),
                    site: self.site,
                    asked: kubernetes::asked(self.site)?,
                    arguments: self.arguments,
                    planned: self.planned,
                };
                kubernetes::start(&hall, &order, &super::beside(self.folder, KEPT))?
            }
        };
        controller.attend(agents);
        Ok(())
    }
}

/// A node that has joined: what it said, and its devices under the names that they have among those of all nodes.
pub(super) struct Joined {
    pub claim: Claim,
    pub devices: Vec<DeviceInfo>,
}

/// Longest wait for agents to join.
fn patience_ns(site: &LoadedSite) -> u64 {
    match (site.site.launcher, &site.site.kubernetes) {
        (Launcher::Manual, _) => BY_HAND_NS,
        // An agent's time begins once its pod runs.
        (_, Some(asked)) => asked.start_limit().as_secs() * 1_000_000_000 + GATHER_NS,
        _ => GATHER_NS,
    }
}

/// Waits for the agents; for each node of the site what came of it, or why it has not joined.
///
/// # Errors
/// [`Failure`] when the operator interrupts.
pub(super) fn joined(
    site: &LoadedSite,
    controller: &mut Controller,
    interrupted: impl FnMut() -> bool,
    note: impl FnMut(&str),
) -> Result<Vec<Result<Joined, String>>, Failure> {
    controller.gather(patience_ns(site), interrupted, note)?;
    let nodes = site.nodes().enumerate();
    let one = |(index, node): (usize, site::Node<'_>)| {
        let claim = controller.claim(index)?;
        let named = |d: &DeviceInfo| DeviceInfo {
            id: hall::name(node.name, &d.id),
            ..d.clone()
        };
        let devices = claim.devices.iter().map(named).collect();
        Ok(Joined { claim, devices })
    };
    Ok(nodes.map(one).collect())
}

/// For each node its devices or why it has not joined; all devices in their order; what the nodes said.
type Gathered = (
    Vec<Result<Vec<DeviceInfo>, String>>,
    Vec<DeviceInfo>,
    Vec<Claim>,
);

/// Starts the agents of a new run, waits for them, and numbers the devices of all nodes that have joined.
fn gathered(
    start: &Start,
    controller: &mut Controller,
    interrupted: impl FnMut() -> bool,
    note: impl FnMut(&str),
) -> Result<Gathered, Failure> {
    start.launch(controller)?;
    let joined = joined(start.site, controller, interrupted, note)?;
    let devices = numbered(controller, &joined)?;
    let claims = joined.iter().flatten().map(|j| j.claim.clone()).collect();
    let of_nodes = joined.into_iter().map(|j| j.map(|j| j.devices)).collect();
    Ok((of_nodes, devices, claims))
}

/// Numbers the devices of all nodes that have joined, and has their workers started.
fn numbered(
    controller: &mut Controller,
    joined: &[Result<Joined, String>],
) -> Result<Vec<DeviceInfo>, Failure> {
    let mut devices: Vec<DeviceInfo> = Vec::new();
    let mut ranges = Vec::new();
    for node in joined {
        let first = devices.len() as u32;
        devices.extend(node.iter().flat_map(|n| n.devices.iter().cloned()));
        ranges.push(first..devices.len() as u32);
    }
    if devices.is_empty() {
        let why = joined.iter().find_map(|j| j.as_ref().err().cloned());
        return Err(Failure::broken(format!(
            "no node has joined: {}",
            why.unwrap_or_default()
        )));
    }
    controller.muster(ranges);
    Ok(devices)
}

/// Which site it is, and by which file.
pub(super) fn about(site: &LoadedSite) -> String {
    let hall = &site.site;
    format!(
        "hall {} of {} ({}, {}), site file digest {}",
        hall.hall,
        hall.name,
        hall.country,
        hall.region,
        site.digest()
    )
}

/// The same of a run so far; `None` of one that is no hall's.
pub(super) fn told(standing: &Standing) -> Option<&str> {
    let mut events = standing.events().iter();
    events.find_map(|e| match &e.what {
        What::AsFound { key, value } if e.device.is_none() && key == SITE => Some(value.as_str()),
        _ => None,
    })
}

/// What is known of the nodes' clocks and of the ways between them before the load.
pub(super) fn facts(desk: &Handle, pairs: Vec<PairRow>) -> Vec<(Option<u32>, What)> {
    let clocks = desk.clocks().into_iter();
    let clocks = clocks.map(|(key, value)| What::AsFound { key, value });
    let pairs = (!pairs.is_empty()).then_some(What::Pairs { rows: pairs });
    clocks.chain(pairs).map(|what| (None, what)).collect()
}

/// A run that was not begun leaves nothing behind: not its empty journal either.
fn forget(folder: &Path) {
    let _ = std::fs::remove_file(folder.join(hallmark_results::store::JOURNAL));
}

/// By which library the nodes sum across each other, as they have just tried it, or why they do not.
fn tried(
    loaded: &Loaded,
    controller: &mut Controller,
    claims: &[Claim],
    interrupted: impl FnMut() -> bool,
    mut note: impl FnMut(&str),
) -> Result<Result<String, String>, Failure> {
    if !plan::reduces(&loaded.profile) {
        return Ok(Err("the profile asks for no all-reduces".to_owned()));
    }
    note(TRYING);
    let tried = controller.try_reducing(claims, interrupted)?;
    if let Err(why) = &tried {
        note(&format!("nothing will be all-reduced: {why}"));
    }
    Ok(tried)
}

/// What moves the bytes of all-reduces, within a node and between nodes.
fn transport(within: &str, settings: &Settings) -> String {
    let library = settings.hall.as_ref().map(|h| h.reduces.as_ref());
    match library {
        Some(Ok(library)) if !within.is_empty() => {
            format!("{within}; between nodes {library}")
        }
        _ => within.to_owned(),
    }
}

/// What devices said when they opened, under the names that they have among those of all nodes.
fn merge(devices: &[DeviceInfo], crew: &Crew) -> Vec<DeviceInfo> {
    let opened = crew.opened.iter();
    let one = |(found, opened): (&DeviceInfo, &Option<DeviceInfo>)| DeviceInfo {
        id: found.id.clone(),
        ..opened.clone().unwrap_or_else(|| found.clone())
    };
    devices.iter().zip(opened).map(one).collect()
}

/// What is missing of the site, what the nodes are, and which engines they lack.
fn found(
    site: &LoadedSite,
    joined: &[Result<Vec<DeviceInfo>, String>],
    claims: &[Claim],
) -> Vec<(Option<u32>, What)> {
    let missing = hall::missing(site, joined)
        .into_iter()
        .map(|detail| What::Fault {
            kind: FaultKind::Missing,
            detail,
        });
    let fact = |key: String, value: String| What::AsFound { key, value };
    let nodes = claims.iter().flat_map(|claim| {
        let host = &claim.host;
        let machine = format!(
            "{} ({}, {} cores, {}), boot {}",
            host.name, host.cpu, host.cores, host.kernel, host.boot_id
        );
        let absent = claim.absent.iter().map(|a| What::Absent {
            what: format!("{}: {}", claim.node, a.what),
            why: a.why.clone(),
            remedy: a.remedy.clone(),
        });
        std::iter::once(fact(format!("{}: machine", claim.node), machine)).chain(absent)
    });
    let all = std::iter::once(fact(SITE.to_owned(), about(site)))
        .chain(missing)
        .chain(nodes);
    all.map(|what| (None, what)).collect()
}
