//! `hallmark run` and `hallmark resume`: from a profile to a verdict.
//!
//! Everything that can be refused is refused before a file is written or a device is loaded.

use crate::cli::{Resume, Run, Show, Ui};
use crate::clock::{self, RunClock};
use crate::command::record;
use crate::exit::{Exit, Failure};
use crate::plan::{self, Settings, changes, inventory, libraries};
use crate::run::Input;
use crate::sensor::DeviceKey;
use crate::sensors::{self, Layout, Sources};
use crate::shell::fleet;
use crate::shell::inbox::{self, Inlet};
use crate::shell::pen::Pen;
use crate::shell::real::{self, Asked, Crew, Stage};
use crate::topology;
use crate::view::{View, json::Json, live::Live, plain::Plain};
use hallmark_kernels::device::{Absent, DeviceInfo};
use hallmark_profiles::profile;
use hallmark_profiles::workload::AuditSeed;
use hallmark_results::frame::{FORMAT_VERSION, FaultKind, Frame, Host, Opened, Table, What};
use hallmark_results::plan::{Plan, SegmentKind};
use hallmark_results::standing::Standing;
use hallmark_results::standing::window::Window;
use hallmark_results::store::journal::{JournalReader, JournalWriter};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

/// A run is not begun with less room than this for its record.
const ROOM_BYTES: u64 = 64 << 20;

/// Runs a profile on this machine.
///
/// # Errors
/// [`Failure`]: exit 2 before anything was written, 4 where the run itself broke.
pub fn run(args: &Run) -> Result<Exit, Failure> {
    let loaded = profile::load(&args.profile).map_err(Failure::usage)?;
    if let Some(site) = &args.site {
        return super::hall::run(args, site, &loaded);
    }
    let found = topology::find(&args.cuda.choice(), args.cuda.patience());
    let devices =
        topology::select(&found, &args.devices, &topology::cores()).map_err(Failure::usage)?;
    let host = topology::host();
    let mut settings = settings(args, &host.name)?;
    // A plan that cannot work on any device is refused before workers are started.
    plan::make(&loaded, &devices, &settings).map_err(Failure::usage)?;
    let sources = sources(&args.show, &args.replay);
    let sensors = sensors::open(&sources).map_err(Failure::usage)?;
    let folder = folder(args, &loaded.profile.name)?;
    let signals = inbox::open();
    listen(&signals.0)?;
    let mut view = view(args.show.ui)?;
    view.note(&format!("opening {} devices", devices.len()));
    let clock = RunClock::start();
    let mut crew = real::muster(
        &devices,
        clock,
        Asked {
            probe: loaded.profile.load.fit_step.is_some(),
            memory_test: loaded.profile.load.memory_test,
        },
        signals,
    )?;
    settings.probe = crew.probes.iter().flatten().copied().reduce(f64::min);
    let devices = merge(&devices, &crew);
    let mut plan = plan::make(&loaded, &devices, &settings).map_err(Failure::usage)?;
    view.note("preparing steps and testing the audit");
    let prepared = crew.prepare(&plan, clock)?;
    plan.transport.clone_from(&prepared.transport);
    let journal = create(&folder)?;
    super::stop::watch(&folder, &crew.inputs);
    let opened = opened(args, &folder, host, clock, plan);
    let standing = Standing::open(&opened).map_err(Failure::broken)?;
    let pen = Pen::start(journal, crew.inputs.clone());
    pen.write(opened);
    view.opened(&standing, &folder);
    let watched = sensors.devices();
    let Layout {
        tables,
        probes,
        mut events,
    } = sensors.lay_out(&standing.opened().plan, 0);
    events.extend(not_here(&standing.opened().plan, &watched, found.absent));
    events.extend(as_found(&prepared.facts));
    // The run's clock begins with its record; opening and preparing are no part of it.
    let stage = Stage {
        crew,
        prepared,
        clock,
        pen,
        probes,
        tables,
        events,
        view: view.as_mut(),
        from: 0,
        done: Vec::new(),
    };
    let (standing, pen) = real::perform(standing, stage);
    record::conclude(&folder, &standing, pen, view.as_mut())
}

/// Goes on with a run that was cut off.
///
/// # Errors
/// [`Failure`]: exit 2 where the folder holds no run that can go on, 4 where it broke again.
pub fn resume(args: &Resume) -> Result<Exit, Failure> {
    let (journal, _) = JournalWriter::recover(&args.run).map_err(Failure::usage)?;
    let standing = fold(&args.run)?;
    let resumable = |standing: &Standing| {
        let before = standing
            .events()
            .iter()
            .any(|e| matches!(e.what, What::Resumed { .. }));
        match (standing.closed().is_some(), before) {
            (true, _) => Err("this run has ended; `hallmark seal` closes it"),
            (_, true) => Err(
                "this run was resumed before, and one resume is allowed; `hallmark seal` closes it",
            ),
            _ => Ok(()),
        }
    };
    resumable(&standing).map_err(Failure::usage)?;
    let plan = standing.opened().plan.clone();
    unchanged(&plan, &args.show)?;
    let found = topology::find(&args.cuda.choice(), args.cuda.patience());
    let devices = again(&plan, &found.devices)?;
    let sensors = sensors::open(&sources(&args.show, &[])).map_err(Failure::usage)?;
    let signals = inbox::open();
    listen(&signals.0)?;
    let mut view = view(args.show.ui)?;
    let last_ns = standing.last_ns();
    let since_start = clock::since_utc_ns(&standing.opened().utc_start);
    let now_ns = since_start.unwrap_or(last_ns).max(last_ns);
    let clock = RunClock::resume(now_ns);
    let mut crew = real::muster(&devices, clock, Asked::default(), signals)?;
    view.note("preparing steps and testing the audit");
    let prepared = crew.prepare(&plan, clock)?;
    let pen = Pen::start(journal, crew.inputs.clone());
    super::stop::watch(&args.run, &crew.inputs);
    view.opened(&standing, &args.run);
    let mut layout = sensors.lay_out(&plan, 0);
    renumber(&mut layout, &standing);
    let mut events = layout.events;
    events.extend(as_found(&prepared.facts));
    events.extend(libraries::changed(&plan, &crew.opened));
    let lost_ns = clock.now_ns().saturating_sub(last_ns);
    events.insert(0, (None, What::Resumed { lost_ns }));
    let stage = Stage {
        crew,
        prepared,
        clock,
        pen,
        probes: layout.probes,
        tables: layout.tables,
        events,
        view: view.as_mut(),
        from: 0,
        done: completed(&standing),
    };
    let (standing, pen) = real::perform(standing, stage);
    record::conclude(&args.run, &standing, pen, view.as_mut())
}

/// What the command line, the environment and chance bring to a run.
pub(super) fn settings(args: &Run, node: &str) -> Result<Settings, Failure> {
    Ok(Settings {
        seed: args.seed,
        audit_seed: audit_seed()?,
        duration: args.duration,
        node: node.to_owned(),
        probe: None,
        devices: args.devices.clone(),
        expect_devices: args.expect_devices,
        hall: None,
        nvml: args.show.nvml.clone(),
        worker: fleet::other_program(),
    })
}

/// What a run is called: as its folder.
pub(super) fn run_id(folder: &Path) -> String {
    let name = folder.file_name();
    name.map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

/// The record's first frame.
pub(super) fn opened(args: &Run, folder: &Path, host: Host, clock: RunClock, plan: Plan) -> Frame {
    Frame::Opened(Box::new(Opened {
        format_version: FORMAT_VERSION,
        run_id: run_id(folder),
        hallmark_version: env!("CARGO_PKG_VERSION").to_owned(),
        utc_start: clock::utc_of_start(clock),
        clock: clock::clock_state(),
        host,
        remark: args.remark.clone(),
        plan_digest: plan.digest(),
        plan,
    }))
}

/// Declared devices that are missing, and engines that are not here.
fn not_here(plan: &Plan, watched: &[DeviceKey], engines: Vec<Absent>) -> Vec<(Option<u32>, What)> {
    let declared = plan.inventory.iter();
    let missing = declared.flat_map(|i| inventory::missing(i, &plan.devices, watched));
    let missing = missing.map(|detail| What::Fault {
        kind: FaultKind::Missing,
        detail,
    });
    let engines = engines.into_iter().map(|a| What::Absent {
        what: a.what,
        why: a.why,
        remedy: a.remedy,
    });
    missing.chain(engines).map(|what| (None, what)).collect()
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

/// A seed that nobody can know before the run, so that nobody can list what will be audited.
fn audit_seed() -> Result<AuditSeed, Failure> {
    /// JSON's readers hold whole numbers exactly up to here, and the record must keep the seed exactly.
    const BITS: u32 = 53;
    let drawn = getrandom::u64().map_err(|e| {
        Failure::broken(format!(
            "the operating system gave no random number for the audits: {e}"
        ))
    })?;
    Ok(AuditSeed(drawn >> (u64::BITS - BITS)))
}

/// What each device's engine decided, as events of that device.
pub(super) fn as_found(
    facts: &[(u32, Vec<(String, String)>)],
) -> impl Iterator<Item = (Option<u32>, What)> + '_ {
    facts.iter().flat_map(|(device, facts)| {
        facts.iter().cloned().map(|(key, value)| {
            let what = What::AsFound { key, value };
            (Some(*device), what)
        })
    })
}

fn sources(show: &Show, replay: &[PathBuf]) -> Sources {
    Sources {
        nvml: show.nvml.clone(),
        replay: replay.to_vec(),
        ..Sources::default()
    }
}

/// Reads a journal into an account.
pub fn fold(folder: &Path) -> Result<Standing, Failure> {
    let mut frames = JournalReader::open(folder).map_err(Failure::usage)?;
    let first = frames
        .next()
        .ok_or_else(|| Failure::usage("the journal is empty"))?;
    let mut standing =
        Standing::open(&first.map_err(Failure::inconclusive)?).map_err(Failure::inconclusive)?;
    for frame in frames {
        standing
            .push(&frame.map_err(Failure::inconclusive)?)
            .map_err(Failure::inconclusive)?;
    }
    Ok(standing)
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

/// Sensors that were there before keep their tables; others get new numbers.
fn renumber(layout: &mut Layout, standing: &Standing) {
    let mut next = standing.tables().len() as u32;
    for (table, probe) in layout.tables.iter_mut().zip(&mut layout.probes) {
        let same = |old: &Table| {
            Table {
                id: table.id,
                ..old.clone()
            } == *table
        };
        let before = standing.tables().iter().find(|t| same(&t.table));
        let id = before.map_or_else(
            || {
                next += 1;
                next - 1
            },
            |t| t.table.id,
        );
        if before.is_none() {
            // A sealed record has one file for each table, so names stay unique.
            table.name = format!("{}-{id}", table.name);
        }
        table.id = id;
        probe.table = id;
    }
}

/// The plan's devices as they are found now.
fn again(plan: &Plan, found: &[DeviceInfo]) -> Result<Vec<DeviceInfo>, Failure> {
    let one = |planned: &hallmark_results::plan::PlannedDevice| {
        let same = |d: &&DeviceInfo| {
            d.id == planned.id && d.name == planned.name && d.uuid == planned.uuid
        };
        let mut device = found.iter().find(same).cloned().ok_or_else(|| {
            let known = found
                .iter()
                .map(|d| format!("{} ({})", d.id, d.name))
                .collect::<Vec<_>>();
            Failure::usage(format!(
                "{} ({}) of this run is not here; this machine has: {}",
                planned.id,
                planned.name,
                known.join(", ")
            ))
        })?;
        device.cores.clone_from(&planned.cores);
        // Among them is what the first command line fixed for the engine: a resumed run goes on with the same.
        device.facts.clone_from(&planned.facts);
        Ok(device)
    };
    plan.devices.iter().map(one).collect()
}

/// What devices said when they opened, and for those that did not, what was found before.
pub(super) fn merge(devices: &[DeviceInfo], crew: &Crew) -> Vec<DeviceInfo> {
    devices
        .iter()
        .zip(&crew.opened)
        .map(|(found, opened)| opened.clone().unwrap_or_else(|| found.clone()))
        .collect()
}

/// The folder of a new run; refused before the load begins if it cannot hold a record.
pub(super) fn folder(args: &Run, profile: &str) -> Result<PathBuf, Failure> {
    let folder = args.out.clone().unwrap_or_else(|| {
        let id = format!("{}-{profile}", clock::utc_stamp());
        let runs = PathBuf::from("runs");
        let free = (1..).map(|n| {
            if n == 1 {
                runs.join(&id)
            } else {
                runs.join(format!("{id}-{n}"))
            }
        });
        free.take(1000)
            .find(|f| !f.exists())
            .unwrap_or_else(|| runs.join(id.clone()))
    });
    let taken = std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
    if taken {
        return Err(Failure::usage(format!(
            "{} holds something already; give --out a new folder",
            folder.display()
        )));
    }
    Ok(folder)
}

pub(super) fn create(folder: &Path) -> Result<JournalWriter, Failure> {
    let fail = |why: String| {
        Failure::broken(format!(
            "cannot keep a record in {}: {why}",
            folder.display()
        ))
    };
    std::fs::create_dir_all(folder).map_err(|e| fail(e.to_string()))?;
    let room = rustix::fs::statvfs(folder).map(|s| s.f_bavail.saturating_mul(s.f_frsize));
    if let Ok(room) = room.map_err(|e| fail(e.to_string()))
        && room < ROOM_BYTES
    {
        let _ = std::fs::remove_dir(folder);
        return Err(fail(format!(
            "{} free, at least {} are needed; free some space or give another --out",
            hallmark_profiles::units::Bytes(room),
            hallmark_profiles::units::Bytes(ROOM_BYTES)
        )));
    }
    JournalWriter::create(folder).map_err(|e| fail(e.to_string()))
}

/// Turns signals into inputs: the first ends the run in good order, the second at once.
pub(super) fn listen(inputs: &Inlet) -> Result<(), Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|e| Failure::broken(format!("cannot listen for signals: {e}")))?;
    let inputs = inputs.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            // A terminal that goes away does not end a soak of days; its record goes on.
            if signal != SIGHUP && inputs.send(Input::Interrupt).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// The pair of ends through which everything reaches the run.
pub type Channel = (Inlet, Receiver<Input>);

pub(super) fn view(ui: Ui) -> Result<Box<dyn View>, Failure> {
    let terminal = std::io::stdout().is_terminal();
    Ok(match ui {
        Ui::Json => Box::new(Json::new()),
        Ui::Plain => Box::new(Plain::new(terminal)),
        Ui::Auto if !terminal => Box::new(Plain::new(false)),
        Ui::Auto => match Live::new() {
            Ok(live) => Box::new(live),
            Err(_) => Box::new(Plain::new(true)),
        },
        Ui::Live => Box::new(Live::new().map_err(|e| {
            Failure::usage(format!(
                "no live view on this terminal: {e}; use --ui plain"
            ))
        })?),
    })
}
