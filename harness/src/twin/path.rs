//! The hall's path through a run: the same plan, state machines, account and journal as a real one's.
//!
//! Nothing here judges; what it makes is *simulated* and accepts no site.

use super::TwinError;
use super::chance::Chance;
use super::meters::Meters;
use super::order::{self, Ordered};
use super::scenario::{Placed, Scenario};
use super::tables::{self, Source};
use super::trouble::Troubles;
use super::work::Works;
use super::world::World;
use crate::run::Input;
use crate::shell::simulated::{Asked, Hall, Happening, World as Shell};
use hallmark_kernels::work::StepDone;
use hallmark_profiles::profile::Loaded;
use hallmark_results::frame::{ClockState, FORMAT_VERSION, Frame, Host, Opened, Table, What};
use hallmark_results::plan::Plan;
use hallmark_results::standing::Standing;
use hallmark_results::store::error::StoreError;
use hallmark_results::store::journal::JournalWriter;
use hallmark_results::store::seal::{Sealed, seal};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};

/// The tick is dithered by so much, so that no reading locks to the load.
const DITHER: f64 = 0.05;
/// Frames between two calls for the disk.
const SYNC_FRAMES: u64 = 4_096;
/// Frames that wait for the journal at most.
const FRAMES_AHEAD: usize = 4_096;
/// The wall clock of a simulated hall.
const UTC_START: &str = "2026-01-01T00:00:00Z";

/// A hall with its work, its troubles and its meters.
struct Twin {
    world: World,
    works: Works,
    troubles: Troubles,
    meters: Meters,
    tables: Vec<(Source, Table)>,
    tick_ns: u64,
    feeder_ns: u64,
    next_tick_ns: u64,
    next_feeder_ns: u64,
    next_edge_ns: u64,
    dither: Chance,
    told: Vec<Input>,
}

impl Twin {
    fn new(
        ordered: &Ordered,
        world: World,
        scenario: &Scenario,
        placed: Vec<Placed>,
        seed: u64,
    ) -> Self {
        let ns = |d: std::time::Duration| d.as_nanos() as u64;
        let tick_ns = ns(scenario.conditions.tick);
        let feeder_ns = ns(scenario.conditions.feeder_tick).min(tick_ns);
        let tables = tables::all(&scenario.hall, tick_ns, feeder_ns);
        let run_ns = ordered.plan.schedule.iter().map(|s| s.duration_ns).sum();
        Self {
            works: Works::new(&ordered.plan, &ordered.stands_for, seed),
            meters: Meters::new(&world, &tables, &placed, seed, run_ns),
            troubles: Troubles::new(placed),
            dither: Chance::new(seed, "dither", 0),
            next_feeder_ns: if feeder_ns < tick_ns { 0 } else { u64::MAX },
            next_tick_ns: 0,
            next_edge_ns: 0,
            told: Vec::new(),
            tick_ns,
            feeder_ns,
            tables,
            world,
        }
    }
}

impl Hall for Twin {
    fn tables(&self) -> Vec<Table> {
        self.tables.iter().map(|(_, table)| table.clone()).collect()
    }

    fn expected_ns(&self, _device: usize, step: usize) -> u64 {
        self.works.expected_ns(&self.world, step)
    }

    fn begin(&mut self, device: usize, asked: &Asked, start_ns: u64) -> Option<u64> {
        self.works.begin(&mut self.world, device, asked, start_ns)
    }

    fn reduced(&mut self, device: usize, asked: &Asked, last_ns: u64) -> u64 {
        self.works.reduced(&self.world, device, asked, last_ns)
    }

    fn tell(&mut self, device: usize, asked: &Asked, _own_ns: u64, done: &mut StepDone) {
        self.works.tell(&mut self.world, device, asked, done);
    }

    fn next_ns(&self) -> u64 {
        let next = self.next_tick_ns.min(self.next_feeder_ns);
        next.min(self.next_edge_ns)
    }

    fn sense(&mut self, now_ns: u64, inputs: &mut dyn FnMut(Input)) {
        let ticks = now_ns >= self.next_tick_ns;
        if ticks || now_ns >= self.next_edge_ns {
            self.world.advance(now_ns);
            self.troubles
                .strain(&mut self.world, now_ns, &mut self.told);
            self.next_edge_ns = self.troubles.next_ns(now_ns);
        }
        if ticks {
            let placed = self.troubles.placed();
            self.meters.trouble(placed, &self.world, &mut self.told);
            let tick_ns = self.tick_ns;
            self.meters
                .read_all(&self.world, now_ns, tick_ns, &mut self.told);
            let dithered = 1.0 + DITHER * (2.0 * self.dither.unit() - 1.0);
            self.next_tick_ns = self.next_tick_ns.max(now_ns.saturating_sub(tick_ns));
            self.next_tick_ns += (tick_ns as f64 * dithered) as u64;
        }
        if now_ns >= self.next_feeder_ns {
            self.meters
                .read_feeders(&self.world, now_ns, &mut self.told);
            self.next_feeder_ns = now_ns + self.feeder_ns;
        }
        self.told.drain(..).for_each(inputs);
    }

    fn rest(&mut self, inputs: &mut dyn FnMut(Input)) {
        self.meters.rest(&mut self.told);
        self.told.drain(..).for_each(inputs);
    }
}

/// What each device says of itself at the start.
fn as_found(plan: &Plan, world: &World) -> Vec<Happening> {
    let settings = |device: u32| {
        let gpu = &world.gpus[device as usize];
        let part = &world.kind.part;
        let clock = super::part::CLOCK_HZ * gpu.strain.clock / 1e6;
        [
            ("driver", "simulated".to_owned()),
            ("vbios", "simulated".to_owned()),
            ("memory_total", part.memory_bytes.to_string()),
            ("clock_sm_max", format!("{clock:.0} MHz")),
            (
                "power_limit_enforced",
                format!("{:.0} W", part.board_w * gpu.strain.cap),
            ),
        ]
    };
    let event = |device: u32, what: What| Happening {
        at_ns: 0,
        input: Input::Event(what, Some(device)),
    };
    let devices = 0..plan.devices.len() as u32;
    let of = |device: u32| {
        let passed = What::SelfTest {
            passed: true,
            detail: "simulated: the flipped bit was seen".to_owned(),
        };
        let found = settings(device).map(|(key, value)| What::AsFound {
            key: key.to_owned(),
            value,
        });
        let all = std::iter::once(passed).chain(found);
        all.map(move |what| event(device, what)).collect::<Vec<_>>()
    };
    devices.flat_map(of).collect()
}

fn opened(plan: Plan, seed: u64) -> Frame {
    Frame::Opened(Box::new(Opened {
        format_version: FORMAT_VERSION,
        run_id: format!("simulated-{seed}"),
        hallmark_version: env!("CARGO_PKG_VERSION").to_owned(),
        utc_start: UTC_START.to_owned(),
        clock: ClockState {
            synchronised: Some(true),
            max_error_s: Some(0.0),
        },
        host: Host {
            name: "simulated hall".to_owned(),
            ..Host::default()
        },
        remark: None,
        plan_digest: plan.digest(),
        plan,
    }))
}

/// Gives a scenario's hall the profile's run, as `seed` has it; each frame goes to `journal` as it comes.
///
/// # Errors
/// [`TwinError`]: the hall or the profile cannot be played.
pub fn play(
    loaded: &Loaded,
    scenario: &Scenario,
    seed: u64,
    journal: &mut dyn FnMut(&Frame),
) -> Result<Standing, TwinError> {
    perform(loaded, scenario, seed, &mut |frame| journal(&frame))
}

fn perform(
    loaded: &Loaded,
    scenario: &Scenario,
    seed: u64,
    journal: &mut dyn FnMut(Frame),
) -> Result<Standing, TwinError> {
    let ordered = order::plan(loaded, scenario)?;
    let plan = &ordered.plan;
    let placed = scenario.placed(seed);
    let fresh = || World::new(scenario, plan.dtype, seed).map_err(TwinError::Part);
    let mut begun = fresh()?;
    let mut troubles = Troubles::new(placed.clone());
    let missing = troubles.missing(&begun);
    // Settings are read once, at the start; what is wrong with them then is found then.
    troubles.strain(&mut begun, 0, &mut Vec::new());
    let mut happenings = as_found(plan, &begun);
    happenings.retain(|h| !matches!(h.input, Input::Event(_, Some(d)) if missing.contains(&d)));
    let mut world = fresh()?;
    for device in &missing {
        let rank = &mut world.ranks[*device as usize];
        (rank.hung, rank.untold) = (true, true);
        world.gpus[*device as usize].strain.off = true;
    }
    let mut twin = Twin::new(&ordered, world, scenario, placed, seed);
    twin.works.members -= missing.len().min(twin.works.members);
    let first = opened(plan.clone(), seed);
    let standing = Standing::open(&first)?;
    journal(first);
    let tick_ns = twin.tick_ns;
    let shell = Shell::of(plan, twin).without(&missing).batched(tick_ns);
    Ok(shell.perform_into(standing, happenings, journal).0)
}

/// As [`play`], kept in `folder`: journalled as it comes, on a thread of its own, and sealed at the end.
///
/// # Errors
/// [`TwinError`]: also where the disk refuses the record.
pub fn record(
    loaded: &Loaded,
    scenario: &Scenario,
    seed: u64,
    folder: &Path,
) -> Result<(Standing, Sealed), TwinError> {
    std::fs::create_dir_all(folder).map_err(|e| TwinError::Folder {
        folder: folder.display().to_string(),
        why: e.to_string(),
    })?;
    let journal = JournalWriter::create(folder)?;
    let (sender, frames) = sync_channel(FRAMES_AHEAD);
    let standing = std::thread::scope(|scope| {
        let writer = scope.spawn(move || write(journal, frames));
        // A writer that was refused a frame takes no more of them, and says why in the end.
        let played = perform(loaded, scenario, seed, &mut |frame| {
            let _ = sender.send(frame);
        });
        drop(sender);
        let written = writer.join();
        let died = || TwinError::Folder {
            folder: folder.display().to_string(),
            why: "what writes its journal broke".to_owned(),
        };
        written.map_err(|_| died())??;
        played
    })?;
    Ok((standing, seal(folder)?))
}

/// Appends frames until there are no more, or one is refused.
fn write(mut journal: JournalWriter, frames: Receiver<Frame>) -> Result<(), StoreError> {
    for frame in frames {
        journal.append(&frame)?;
        if journal.frames().is_multiple_of(SYNC_FRAMES) {
            journal.sync()?;
        }
    }
    journal.close().map(drop)
}
