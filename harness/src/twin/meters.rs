//! The meters of a simulated hall: what they make of what is.
//!
//! Each reading is averaged over its window, off by its meter's own error, noisy with memory and heavy tails, rounded
//! to its digits, and sometimes not there. What the plant computes from readings (reconciliation, heat balance, flow
//! per kilowatt) it computes from what its meters said, errors and distortions included.

use super::bend::Bend;
use super::chance::{Chance, Memory};
use super::cooling::{HEAT_PER_LITRE_K, PUMP_RPM};
use super::part::{CLOCK_HZ, CLOCK_MEMORY_HZ};
use super::scenario::{Effect, Placed};
use super::tables::{SPECTRUM_NS, Source};
use super::world::World;
use crate::run::Input;
use hallmark_results::frame::{Samples, Table, What};
use std::collections::VecDeque;

/// Columns of a row at most.
pub const COLUMNS: usize = 12;
/// Rows of a table that are handed over together, and the longest that they wait: the longer the run the longer, since
/// what is found of it is told to no better than a ten-thousandth of its length.
const ROWS: usize = 32;
const WAIT_NS: u64 = 2_000_000_000;
const WAITS: u64 = 10_000;
/// Steps of what sensors tell: core clocks (nvidia-smi -q -d SUPPORTED_CLOCKS), temperatures.
const CLOCK_STEP_HZ: f64 = 15e6;
/// Time over which a device's resistance is read, s.
const RESISTANCE_S: f64 = 30.0;
/// A band's share of the variance is read over this much.
const BAND_NS: u64 = 60_000_000_000;
/// What varies more slowly than blocks of this length lies below 0.1 Hz.
const BLOCK_NS: u64 = 10_000_000_000;
/// A reading that failed is asked again where this is less than the period: an agent's patience.
const RETRIED_NS: u64 = 2_000_000_000;
/// Host processors are busy so much while they launch work, %.
const CPU_LOAD: f64 = 12.0;
/// Half of a heartbeat's round trip, s.
const HEARTBEAT_S: f64 = 0.5e-3;

/// One table and the rows that wait to be told.
struct Sheet {
    source: Source,
    period_ns: u64,
    due_ns: u64,
    samples: Samples,
    bends: Vec<(usize, Bend)>,
    /// Own error of the meter, relative; and of its second quantity, absolute.
    error: f64,
    offset: f64,
    noise: [Memory; 2],
    /// What it said last of its first quantity; for a device, a mean of power and of rise as well.
    said: f64,
    mean: (f64, f64),
    /// Since when nothing could be told.
    silent_ns: Option<u64>,
    wait_ns: u64,
    shift_ns: u64,
    /// Ticks of which the handing over is put off.
    late: u32,
}

/// All meters.
pub struct Meters {
    sheets: Vec<Sheet>,
    chance: Chance,
    feeders: Vec<VecDeque<(u64, f64)>>,
    minutes: Vec<(f64, u32)>,
    first: First,
    frames: Vec<(usize, u32)>,
}

/// Number of the first table of each kind.
#[derive(Clone, Copy)]
struct First {
    node: usize,
    rack: usize,
}

impl Meters {
    /// Meters of the tables `all`, distorted by what the scenario says of them, in a run as long as `run_ns`.
    #[must_use]
    pub fn new(
        world: &World,
        all: &[(Source, Table)],
        placed: &[Placed],
        seed: u64,
        run_ns: u64,
    ) -> Self {
        let mut chance = Chance::new(seed, "meters", 0);
        let nature = &world.kind.nature;
        let sheet = |(source, table): &(Source, Table)| {
            let spread = match source {
                Source::Node(_) => nature.node_meter,
                Source::Rack(_) | Source::Feeder(_) => nature.pdu_meter,
                Source::Tray(_) | Source::Cdu(_) => nature.flow_meter,
                _ => 0.0,
            };
            let offset = match source {
                Source::Load(_) => nature.core_sensor_k,
                _ => nature.loop_sensor_k,
            };
            Sheet {
                source: *source,
                period_ns: table.period_ns,
                due_ns: 0,
                samples: empty(table),
                bends: super::bend::of(table, placed, &world.hall),
                error: spread * chance.within(2.5),
                offset: offset * chance.within(2.5),
                noise: [Memory::default(); 2],
                said: f64::NAN,
                mean: (0.0, 0.0),
                silent_ns: None,
                wait_ns: WAIT_NS.max(run_ns / WAITS),
                shift_ns: 0,
                late: 0,
            }
        };
        let sheets: Vec<Sheet> = all.iter().map(sheet).collect();
        let first =
            |is: fn(&Source) -> bool| sheets.iter().position(|s| is(&s.source)).unwrap_or(0);
        Self {
            first: First {
                node: first(|s| matches!(s, Source::Node(_))),
                rack: first(|s| matches!(s, Source::Rack(_))),
            },
            feeders: vec![VecDeque::new(); world.hall.feeders as usize],
            minutes: vec![(0.0, 0); world.hall.racks as usize],
            frames: vec![(0, 0); placed.len()],
            sheets,
            chance,
        }
    }

    /// Clocks that are off and frames that are lost on the way.
    pub fn trouble(&mut self, placed: &[Placed], world: &World, inputs: &mut Vec<Input>) {
        let now = std::time::Duration::from_nanos(world.now_ns);
        for (index, placed) in placed.iter().enumerate() {
            let share = placed.fault.span.share(now);
            let gpus = placed.place.gpus(&world.hall);
            let within = |s: &Sheet| match s.source {
                Source::Load(i) | Source::Health(i) => gpus.contains(&(i as u32)),
                Source::Node(i) => gpus.contains(&(i as u32 * world.hall.gpus_per_node)),
                _ => false,
            };
            for effect in &placed.fault.effects {
                match *effect {
                    Effect::Clock { offset } => {
                        let shift_ns = (offset.as_nanos() as f64 * share) as u64;
                        let own = self.sheets.iter_mut().filter(|s| within(s));
                        own.for_each(|s| s.shift_ns = shift_ns);
                    }
                    Effect::LostFrames { count } if share > 0.0 && self.frames[index].1 == 0 => {
                        self.frames[index] = (0, count);
                        let own = self.sheets.iter_mut().filter(|s| within(s));
                        own.for_each(|s| s.late = count);
                        let what = format!(
                            "{count} telemetry frames of {} were lost on the way and came with the next try",
                            placed.place
                        );
                        inputs.push(Input::Event(What::Decision { what }, None));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Reads the feeders alone, between two ticks.
    pub fn read_feeders(&mut self, world: &World, now_ns: u64, inputs: &mut Vec<Input>) {
        for index in 0..self.sheets.len() {
            if let Source::Feeder(_) = self.sheets[index].source {
                self.read(index, world, now_ns, inputs);
            }
        }
    }

    /// Reads what is due at a tick; a table that is due within half a tick is read now.
    pub fn read_all(&mut self, world: &World, now_ns: u64, tick_ns: u64, inputs: &mut Vec<Input>) {
        for index in 0..self.sheets.len() {
            let sheet = &self.sheets[index];
            let fast = sheet.period_ns < tick_ns;
            if !fast && sheet.due_ns <= now_ns + tick_ns / 2 {
                self.read(index, world, now_ns, inputs);
                self.sheets[index].due_ns += self.sheets[index].period_ns;
            }
        }
    }

    fn read(&mut self, index: usize, world: &World, now_ns: u64, inputs: &mut Vec<Input>) {
        let source = self.sheets[index].source;
        let mut row = [f64::NAN; COLUMNS];
        let (untold, held) = told_by(source, world);
        if untold {
            self.sheets[index].silent_ns.get_or_insert(now_ns);
            return;
        }
        match source {
            Source::Load(i) => self.load(index, i, world, &mut row),
            Source::Health(i) => self.health(i, world, &mut row),
            Source::Node(i) => self.node(index, i, world, &mut row),
            Source::Tray(i) => self.tray(index, i, world, &mut row),
            Source::Rack(i) => self.rack(index, i, world, &mut row),
            Source::Minute(i) => self.minute(i, &mut row),
            Source::Cdu(i) => self.cdu(index, i, world, &mut row),
            Source::Feeder(i) => self.feeder(index, i, world, now_ns, &mut row),
        }
        let sheet = &mut self.sheets[index];
        let dropped =
            sheet.period_ns < RETRIED_NS && self.chance.unit() < world.kind.nature.dropout;
        for (column, bend) in &mut sheet.bends {
            row[*column] = bend.bent(row[*column], now_ns, &mut self.chance);
        }
        if dropped {
            return;
        }
        sheet.said = row[0];
        sheet.tell(&row, now_ns, held, inputs);
    }

    fn load(&mut self, index: usize, i: usize, world: &World, row: &mut [f64; COLUMNS]) {
        let (gpu, nature, part) = (&world.gpus[i], &world.kind.nature, &world.kind.part);
        let chance = &mut self.chance;
        let sheet = &mut self.sheets[index];
        let noise = nature.power_noise * sheet.noise[0].next(nature.power_memory, chance);
        row[0] = (gpu.power_w * (1.0 + noise) * 100.0).round() / 100.0;
        row[1] = (gpu.core_c + sheet.offset + 0.2 * chance.normal()).round();
        row[2] = (gpu.memory_c + sheet.offset + 0.2 * chance.normal()).round();
        let clock = CLOCK_HZ * gpu.clock;
        row[3] = (clock / CLOCK_STEP_HZ + 0.3 * chance.normal()).round() * CLOCK_STEP_HZ;
        row[4] = CLOCK_MEMORY_HZ * gpu.memory_clock();
        row[5] = (part.board_w * gpu.strain.cap).round();
        let (core, memory) = gpu.throttles();
        row[6] = f64::from(u8::from(core || memory));
        row[7] = f64::from(u8::from(gpu.strain.brake < 0.999));
        row[8] = row[7];
        row[9] = f64::from(u8::from(gpu.capped));
        row[10] = world.ranks[i].energy_j.round();
        row[11] = if world.tasks[i].step.is_some() {
            100.0
        } else {
            0.0
        };
        // A mean of power and of the rise over the branch's coolant, for the resistance.
        let one = world.loop_at(i / world.hall.gpus_per_node as usize);
        let branch = &world.branches[i / world.hall.gpus_per_node as usize];
        let rise = gpu.core_c + sheet.offset - one.supply_c - branch.rise_k / 2.0;
        let kept = (-(sheet.period_ns as f64) / 1e9 / RESISTANCE_S).exp();
        sheet.mean.0 += (row[0] - sheet.mean.0) * (1.0 - kept);
        sheet.mean.1 += (rise - sheet.mean.1) * (1.0 - kept);
    }

    fn health(&mut self, i: usize, world: &World, row: &mut [f64; COLUMNS]) {
        for (value, counted) in row.iter_mut().zip(&world.ranks[i].counters) {
            *value = (counted + 1e-9).floor();
        }
        let (power, rise) = self.sheets[i].mean;
        let noise = 1.0 + 0.004 * self.chance.heavy();
        row[world.ranks[i].counters.len()] = if power > 1.0 {
            rise / power * noise
        } else {
            f64::NAN
        };
    }

    fn node(&mut self, index: usize, i: usize, world: &World, row: &mut [f64; COLUMNS]) {
        let sheet = &mut self.sheets[index];
        let noise = 0.002 * sheet.noise[0].next(0.5, &mut self.chance);
        row[0] = (world.node_w[i] * (1.0 + sheet.error + noise)).round();
        let first = i * world.hall.gpus_per_node as usize;
        let busy = world.tasks[first].step.is_some();
        let load = if busy { CPU_LOAD } else { 1.0 };
        row[1] = (load * (1.0 + 0.1 * self.chance.heavy()) * 10.0)
            .round()
            .max(0.0)
            / 10.0;
        // A bound, which holds what a heartbeat may err by.
        let ahead_s = self.sheets[index].shift_ns as f64 / 1e9;
        row[2] = ahead_s + HEARTBEAT_S;
    }

    fn tray(&mut self, index: usize, i: usize, world: &World, row: &mut [f64; COLUMNS]) {
        let nodes = world.hall.nodes_per_tray as usize;
        let flow: f64 = world.branches[i * nodes..(i + 1) * nodes]
            .iter()
            .map(|b| b.flow * world.litres_per_s * 60.0)
            .sum();
        let noise = 0.004 * self.chance.heavy();
        row[0] = flow * (1.0 + self.sheets[index].error + noise);
    }

    fn rack(&mut self, index: usize, i: usize, world: &World, row: &mut [f64; COLUMNS]) {
        let nodes = world.nodes_per_rack();
        let liquid = world.kind.nature.liquid;
        let (mut flow, mut rise) = (0.0, 0.0);
        for branch in &world.branches[i * nodes..(i + 1) * nodes] {
            let litres = branch.flow * world.litres_per_s * 60.0;
            flow += litres;
            rise += litres * branch.rise_k;
        }
        let own = self.first.node + i * nodes;
        let parts: f64 = self.sheets[own..own + nodes].iter().map(|s| s.said).sum();
        let chance = &mut self.chance;
        let sheet = &mut self.sheets[index];
        let noise = 0.001 * sheet.noise[0].next(0.5, chance);
        row[0] = (world.rack_w[i] * (1.0 + sheet.error + noise)).round();
        // What is computed from the meter is computed from what it says; the row's own turn comes with its column.
        let said = sheet.bends.iter().filter(|b| b.0 == 0);
        let power = said.fold(row[0], |said, (_, bend)| bend.looked(said, world.now_ns));
        row[1] = if power > 0.0 {
            (parts - power) / power * 100.0
        } else {
            f64::NAN
        };
        row[2] = flow * (1.0 + sheet.error + 0.004 * chance.heavy());
        row[3] = row[2] / (power.max(1_000.0) * liquid / 1_000.0);
        row[4] = rise / flow.max(1e-6) + sheet.offset + 0.05 * chance.heavy();
        let minute = &mut self.minutes[i];
        *minute = (minute.0 + power, minute.1 + 1);
    }

    fn minute(&mut self, i: usize, row: &mut [f64; COLUMNS]) {
        let (sum, count) = std::mem::take(&mut self.minutes[i]);
        if count > 0 {
            row[0] = sum / f64::from(count);
        }
    }

    fn cdu(&mut self, index: usize, i: usize, world: &World, row: &mut [f64; COLUMNS]) {
        let racks = world.hall.racks_on(i as u32, world.hall.cdus);
        let racks = self.first.rack + racks.start as usize..self.first.rack + racks.end as usize;
        let nodes = racks.len() * world.nodes_per_rack();
        let power: f64 = self.sheets[racks].iter().map(|s| s.said).sum();
        let one = &world.loops[i];
        let chance = &mut self.chance;
        let sheet = &mut self.sheets[index];
        let mut degree = |c: f64| ((c + 0.02 * chance.heavy()) * 100.0).round() / 100.0;
        row[0] = degree(one.supply_c);
        row[1] = degree(one.return_c + sheet.offset);
        let flow = world.litres_per_s * one.flow * nodes as f64;
        row[2] = flow * 60.0 * (1.0 + sheet.error + 0.003 * chance.heavy());
        row[3] = (PUMP_RPM * one.pump * (1.0 + 0.001 * chance.heavy())).round();
        row[4] = row[0] - one.facility_c;
        row[5] = row[0] - one.dew_c + 0.05 * chance.heavy();
        let carried = HEAT_PER_LITRE_K * row[2] / 60.0 * (row[1] - row[0]);
        let liquid = world.kind.nature.liquid * power;
        row[6] = if liquid > 1_000.0 {
            (carried / liquid - 1.0) * 100.0
        } else {
            f64::NAN
        };
    }

    fn feeder(
        &mut self,
        index: usize,
        i: usize,
        world: &World,
        now_ns: u64,
        row: &mut [f64; COLUMNS],
    ) {
        let racks = world.hall.racks_on(i as u32, world.hall.feeders);
        let sheet = &mut self.sheets[index];
        let noise = 0.0005 * sheet.noise[0].next(0.3, &mut self.chance);
        let drawn = if sheet.period_ns < world.tick_ns {
            world.instant_w(racks, now_ns)
        } else {
            world.rack_w[racks.start as usize..racks.end as usize]
                .iter()
                .sum()
        };
        row[0] = (drawn * (1.0 + sheet.error + noise)).round();
        if sheet.period_ns <= SPECTRUM_NS {
            let seen = &mut self.feeders[i];
            seen.push_back((now_ns, row[0]));
            while seen.front().is_some_and(|f| f.0 + BAND_NS < now_ns) {
                seen.pop_front();
            }
            row[1] = if seen.len().is_multiple_of(64) || sheet.mean.1 <= 0.0 {
                band(seen)
            } else {
                sheet.mean.0
            };
            sheet.mean = (row[1], 1.0);
        }
    }

    /// Hands over all rows that wait.
    pub fn rest(&mut self, inputs: &mut Vec<Input>) {
        self.sheets.iter_mut().for_each(|s| s.hand_over(inputs));
    }
}

/// Share of the variance within blocks of ten seconds: what swings at 0.1 Hz or faster.
fn band(seen: &VecDeque<(u64, f64)>) -> f64 {
    let n = seen.len() as f64;
    let mean = seen.iter().map(|s| s.1).sum::<f64>() / n;
    let (mut all, mut within) = (0.0, 0.0);
    let mut block: (u64, f64, f64, f64) = (u64::MAX, 0.0, 0.0, 0.0);
    let spent = |b: (u64, f64, f64, f64)| {
        if b.1 > 0.0 {
            b.3 - b.2 * b.2 / b.1
        } else {
            0.0
        }
    };
    for &(at, watts) in seen {
        let off = watts - mean;
        all += off * off;
        if at / BLOCK_NS != block.0 {
            within += spent(block);
            block = (at / BLOCK_NS, 0.0, 0.0, 0.0);
        }
        block = (block.0, block.1 + 1.0, block.2 + off, block.3 + off * off);
    }
    within += spent(block);
    if all > 0.0 {
        (within / all).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

/// Whether what a source reads is told to nobody, and whether it is kept back.
fn told_by(source: Source, world: &World) -> (bool, bool) {
    let rank = match source {
        Source::Load(i) | Source::Health(i) => &world.ranks[i],
        Source::Node(i) => &world.ranks[i * world.hall.gpus_per_node as usize],
        _ => return (false, false),
    };
    (rank.untold, rank.held)
}

fn empty(table: &Table) -> Samples {
    Samples {
        table: table.id,
        at_ns: Vec::new(),
        columns: vec![Vec::new(); table.series.len()],
    }
}

impl Sheet {
    fn tell(&mut self, row: &[f64; COLUMNS], now_ns: u64, held: bool, inputs: &mut Vec<Input>) {
        if let Some(from_ns) = self.silent_ns.take() {
            let gap = What::Gap {
                table: self.samples.table,
                from_ns,
                reason: "its node's agent did not answer".to_owned(),
            };
            inputs.push(Input::Event(gap, None));
        }
        let at_ns = now_ns + self.shift_ns;
        self.samples.at_ns.push(at_ns);
        for (column, value) in self.samples.columns.iter_mut().zip(row) {
            // Meters tell some seven digits; so does an f32.
            column.push(f64::from(*value as f32));
        }
        let since = at_ns
            - self
                .samples
                .at_ns
                .first()
                .copied()
                .unwrap_or(at_ns)
                .min(at_ns);
        let full = self.samples.at_ns.len() >= ROWS || since >= self.wait_ns;
        if held || !full {
            return;
        }
        if self.late > 0 {
            self.late -= 1;
            return;
        }
        self.hand_over(inputs);
    }

    fn hand_over(&mut self, inputs: &mut Vec<Input>) {
        if self.samples.at_ns.is_empty() {
            return;
        }
        let columns = vec![Vec::with_capacity(ROWS); self.samples.columns.len()];
        let fresh = Samples {
            table: self.samples.table,
            at_ns: Vec::with_capacity(ROWS),
            columns,
        };
        inputs.push(Input::Samples(std::mem::replace(&mut self.samples, fresh)));
    }
}
