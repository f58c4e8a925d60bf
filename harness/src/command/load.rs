//! `hallmark run`: from a profile to a verdict.
//!
//! Everything that can be refused is refused before a file is written or a device is loaded.

use crate::cli::{Run, Show, Ui};
use crate::clock::{self, RunClock};
use crate::command::record;
use crate::exit::{Exit, Failure};
use crate::plan::{self, Settings, inventory};
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
use hallmark_results::frame::{FORMAT_VERSION, FaultKind, Frame, Host, Opened, What};
use hallmark_results::plan::Plan;
use hallmark_results::standing::Standing;
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
    record::conclude(&folder, standing, pen, view.as_mut())
}

/// What the command line, the environment and chance bring to a run.
pub(super) fn settings(args: &Run, node: &str) -> Result<Settings, Failure> {
    Ok(Settings {
        nodes: 1,
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

pub(super) fn sources(show: &Show, replay: &[PathBuf]) -> Sources {
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
    super::stop::forget(folder);
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
