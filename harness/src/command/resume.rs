//! `hallmark resume`: goes on with a run that was cut off, on this machine or on all nodes of its hall.
//!
//! The plan is fixed: what it does not name cannot be brought in. On one machine all its devices must be here again; of a
//! hall the devices of a node that does not come back are lost, and the others go on.

use super::hall::{self, Joined};
use super::load::{as_found, fold, listen, run_id, sources, view};
use crate::cli::{Resume, Show};
use crate::clock::{self, RunClock};
use crate::command::record;
use crate::controller::Controller;
use crate::exit::{Exit, Failure};
use crate::launch::slurm;
use crate::plan::{changes, libraries};
use crate::run::Input;
use crate::sensors::{self, Layout};
use crate::shell::fleet;
use crate::shell::inbox;
use crate::shell::pen::Pen;
use crate::shell::real::{self, Asked, Crew, Stage};
use crate::topology;
use crate::view::View;
use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::site::{self, Launcher, LoadedSite};
use hallmark_profiles::units::Bytes;
use hallmark_results::frame::What;
use hallmark_results::plan::{Plan, PlannedDevice, SegmentKind};
use hallmark_results::standing::Standing;
use hallmark_results::standing::window::Window;
use hallmark_results::store::JOURNAL;
use hallmark_results::store::journal::JournalWriter;
use hallmark_results::store::manifest::SEAL;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

/// Goes on with a run that was cut off.
///
/// # Errors
/// [`Failure`]: exit 2 where the folder holds no run that can go on, 4 where it broke again.
pub fn resume(args: &Resume) -> Result<Exit, Failure> {
    if args.run.join(SEAL).exists() && !args.run.join(JOURNAL).exists() {
        return Err(Failure::usage(format!(
            "the run in {} has ended and is sealed",
            args.run.display()
        )));
    }
    super::stop::forget(&args.run);
    let (journal, _) = JournalWriter::recover(&args.run).map_err(Failure::usage)?;
    let standing = fold(&args.run)?;
    resumable(&standing)?;
    unchanged(&standing.opened().plan, &args.show)?;
    let begun = hall::told(&standing).map(str::to_owned);
    match (&args.site, begun) {
        (None, None) => alone(args, standing, journal),
        (Some(site), Some(begun)) => on_all_nodes(args, site, &begun, standing, journal),
        (None, Some(begun)) => Err(Failure::usage(format!(
            "this run is one of a hall ({begun}); give --site with the file that it was begun with"
        ))),
        (Some(_), None) => Err(Failure::usage(
            "this run was begun on one machine, so it cannot go on with --site",
        )),
    }
}

fn resumable(standing: &Standing) -> Result<(), Failure> {
    let mut events = standing.events().iter();
    if standing.closed().is_some() {
        return Err(Failure::usage(
            "this run has ended; `hallmark seal` closes it",
        ));
    }
    if events.any(|e| matches!(e.what, What::Resumed { .. })) {
        return Err(Failure::usage(
            "this run was resumed before, and one resume is allowed; `hallmark seal` closes it",
        ));
    }
    Ok(())
}

/// The clock of a run that began when its record says.
fn clock_of(standing: &Standing) -> RunClock {
    let last_ns = standing.last_ns();
    let since_start = clock::since_utc_ns(&standing.opened().utc_start);
    RunClock::resume(since_start.unwrap_or(last_ns).max(last_ns))
}

fn resumed(standing: &Standing, clock: RunClock) -> (Option<u32>, What) {
    let lost_ns = clock.now_ns().saturating_sub(standing.last_ns());
    (None, What::Resumed { lost_ns })
}

/// On this machine.
fn alone(args: &Resume, standing: Standing, journal: JournalWriter) -> Result<Exit, Failure> {
    let plan = standing.opened().plan.clone();
    let found = topology::find(&args.cuda.choice(), args.cuda.patience());
    let devices: Result<Vec<DeviceInfo>, Failure> = plan
        .devices
        .iter()
        .map(|planned| again(planned, &found.devices))
        .collect();
    let devices = devices?;
    let sensors = sensors::open(&sources(&args.show, &[])).map_err(Failure::usage)?;
    let signals = inbox::open();
    listen(&signals.0)?;
    let mut view = view(args.show.ui)?;
    let clock = clock_of(&standing);
    let crew = real::muster(&devices, clock, Asked::default(), signals)?;
    super::stop::watch(&args.run, &crew.inputs);
    go_on(
        &args.run,
        standing,
        (journal, clock),
        crew,
        view.as_mut(),
        |plan| sensors.lay_out(plan, 0),
    )
}

/// Goes on with the devices of a crew; `lay_out` begins to read sensors, once it is prepared.
fn go_on(
    folder: &Path,
    standing: Standing,
    (journal, clock): (JournalWriter, RunClock),
    mut crew: Crew,
    view: &mut dyn View,
    lay_out: impl FnOnce(&Plan) -> Layout,
) -> Result<Exit, Failure> {
    let plan = standing.opened().plan.clone();
    view.note("preparing steps and testing the audit");
    let prepared = crew.prepare(&plan, clock)?;
    let pen = Pen::start(journal, crew.inputs.clone());
    view.opened(&standing, folder);
    let layout = lay_out(&plan);
    let mut events = vec![resumed(&standing, clock)];
    events.extend(layout.events);
    events.extend(as_found(&prepared.facts));
    events.extend(libraries::changed(&plan, &crew.opened));
    let stage = Stage {
        crew,
        prepared,
        clock,
        pen,
        probes: layout.probes,
        tables: layout.tables,
        events,
        view,
        from: 0,
        done: completed(&standing),
    };
    let (standing, pen) = real::perform(standing, stage);
    record::conclude(folder, standing, pen, view)
}

/// The site file, where it is the one that the run was begun with and can be used here.
fn its_site(path: &Path, begun: &str) -> Result<LoadedSite, Failure> {
    let site = site::load(&path.to_string_lossy()).map_err(Failure::usage)?;
    let now = hall::about(&site);
    if now != begun {
        return Err(Failure::usage(format!(
            "this run was begun with another site file: {begun}, and this one is {now}"
        )));
    }
    if site.site.launcher == Launcher::Slurm && slurm::allocation().is_none() {
        return Err(Failure::usage(
            "a run goes on within an allocation of Slurm: salloc the nodes, and resume it there",
        ));
    }
    Ok(site)
}

/// On the nodes of its hall.
fn on_all_nodes(
    args: &Resume,
    path: &Path,
    begun: &str,
    standing: Standing,
    journal: JournalWriter,
) -> Result<Exit, Failure> {
    let site = its_site(path, begun)?;
    let plan = standing.opened().plan.clone();
    let rehearsal = crate::plan::hall::is_rehearsal(&site, &plan.overrides);
    let (inlet, inbox) = inbox::open();
    listen(&inlet)?;
    let mut view = view(args.show.ui)?;
    let mut controller = Controller::start(&site, &run_id(&args.run), rehearsal, &inlet)?;
    super::stop::watch(&args.run, &inlet);
    let interrupted = || hall::wants_to_end(&inbox);
    view.note(&hall::waiting(&site, &args.run, args.mpi.as_deref())?);
    let start = hall::Start {
        site: &site,
        folder: &args.run,
        // What is left of the agents before is of another controller.
        logs: &args.run.join("nodes").join("resumed"),
        arguments: &hall::arguments(&args.cuda, args.mpi.as_deref()),
        rehearsal,
        planned: Duration::from_nanos(plan.duration_ns()),
    };
    start.launch(&mut controller)?;
    let joined = hall::joined(&site, &mut controller, interrupted, |told| view.note(told))?;
    let (devices, ranges, lost) = taken_up(&plan, &site, &joined)?;
    controller.muster(ranges);
    if fleet::reducing(&plan).next().is_some() {
        view.note(hall::TRYING);
        let claims: Vec<_> = joined.iter().flatten().map(|j| j.claim.clone()).collect();
        let tried = controller.try_reducing(&claims, interrupted)?;
        tried.map_err(|why| {
            Failure::broken(format!("this run reduces, which it cannot now: {why}"))
        })?;
    }
    let pairs = controller.pairs();
    let desk = controller.handle();
    let clock = clock_of(&standing);
    for (device, why) in lost {
        // Nobody will hear it, if the run has ended meanwhile.
        let _ = inlet.send(Input::Gone(device, why));
    }
    let channel = (inlet, inbox);
    let crew = real::open(
        Box::new(controller),
        &devices,
        clock,
        Asked::default(),
        channel,
    )?;
    go_on(
        &args.run,
        standing,
        (journal, clock),
        crew,
        view.as_mut(),
        |plan| {
            desk.sense(plan, clock.epoch_ns());
            Layout {
                probes: Vec::new(),
                tables: desk.clock_tables(),
                events: hall::facts(&desk, pairs),
            }
        },
    )
}

/// The plan's devices as their nodes have them now, which of them are whose, and those whose node has not come back.
type TakenUp = (Vec<DeviceInfo>, Vec<Range<u32>>, Vec<(u32, String)>);

fn taken_up(
    plan: &Plan,
    site: &LoadedSite,
    joined: &[Result<Joined, String>],
) -> Result<TakenUp, Failure> {
    let (mut devices, mut ranges, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for (node, joined) in site.nodes().zip(joined) {
        let own = plan.devices.iter().filter(|d| d.node == node.name);
        let first = devices.len() as u32;
        match joined {
            Ok(joined) => {
                for planned in own {
                    devices.push(again(planned, &joined.devices)?);
                }
                ranges.push(first..devices.len() as u32);
            }
            Err(why) => {
                for planned in own {
                    lost.push((devices.len() as u32, why.clone()));
                    devices.push(as_planned(planned));
                }
                ranges.push(0..0);
            }
        }
    }
    let in_order = devices.iter().zip(&plan.devices).all(|(d, p)| d.id == p.id);
    if devices.len() != plan.devices.len() || !in_order {
        return Err(Failure::usage(
            "the run's devices are not those of this site file's nodes",
        ));
    }
    if lost.len() == devices.len() {
        let why = lost.into_iter().next().map(|(_, why)| why);
        let why = why.unwrap_or_default();
        return Err(Failure::broken(format!("no node has joined: {why}")));
    }
    Ok((devices, ranges, lost))
}

/// A device that nobody has seen since the run was cut off.
fn as_planned(planned: &PlannedDevice) -> DeviceInfo {
    DeviceInfo {
        id: planned.id.clone(),
        engine: planned.engine.clone(),
        name: planned.name.clone(),
        vendor: planned.vendor.clone(),
        pci: planned.pci.clone(),
        uuid: planned.uuid.clone(),
        driver: planned.driver.clone(),
        memory: Bytes(planned.memory_bytes),
        dtypes: Vec::new(),
        software: planned.software,
        cores: planned.cores.clone(),
        facts: planned.facts.clone(),
    }
}

/// Refuses to bring into a resumed run what its plan, which is fixed, does not name.
fn unchanged(plan: &Plan, show: &Show) -> Result<(), Failure> {
    let nvml = show.nvml.as_deref().map(changes::nvml);
    let worker = fleet::other_program().as_deref().map(changes::worker);
    let new = |change: &String| !plan.overrides.contains(change);
    match nvml.into_iter().chain(worker).find(new) {
        Some(change) => Err(Failure::usage(format!(
            "this run was begun without it, so it cannot go on with {change}"
        ))),
        None => Ok(()),
    }
}

/// Phases that were done in full, in the schedule's numbering: they need not be run again. One that was
/// cut short, by the operator or by a limit, is not done.
fn completed(standing: &Standing) -> Vec<usize> {
    let schedule = &standing.opened().plan.schedule;
    let whole = |w: &&Window| {
        let planned = schedule
            .get(w.segment as usize)
            .map_or(0, |s| s.duration_ns);
        // The last step may end a little before the window does.
        let slack = (planned / 100).min(1_000_000_000);
        w.end_ns
            .is_some_and(|end| end.saturating_sub(w.start_ns) + slack >= planned)
    };
    let done = standing.windows().iter().filter(whole);
    let phases = done.filter(|w| matches!(w.kind, SegmentKind::Phase(_)));
    phases.map(|w| w.segment as usize).collect()
}

/// A device of the plan as it is found now.
fn again(planned: &PlannedDevice, found: &[DeviceInfo]) -> Result<DeviceInfo, Failure> {
    let same =
        |d: &&DeviceInfo| d.id == planned.id && d.name == planned.name && d.uuid == planned.uuid;
    let mut device = found.iter().find(same).cloned().ok_or_else(|| {
        let known = found.iter().map(|d| format!("{} ({})", d.id, d.name));
        let known: Vec<String> = known.collect();
        Failure::usage(format!(
            "{} ({}) of this run is not here; found: {}",
            planned.id,
            planned.name,
            known.join(", ")
        ))
    })?;
    device.cores.clone_from(&planned.cores);
    // Among them is what the first command line fixed for the engine: a resumed run goes on with the same.
    device.facts.clone_from(&planned.facts);
    Ok(device)
}
