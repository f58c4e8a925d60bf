//! The simulated hall as one world: devices, coolant, power and links go on together from look to look.
//!
//! It decides what is; what sensors make of it is [`super::meters`]'s, how long work takes [`super::work`]'s, what is
//! wrong [`super::trouble`]'s. One seed replays everything.

use super::chance::{Chance, Memory};
use super::cooling::{Branch, Loop};
use super::device::{Coolant, Device, Kind, Strain};
use super::nature::Nature;
use super::part::Part;
use super::scenario::effect::Shortcut;
use super::scenario::{Hall, Place, Scenario, Weather};
use super::task::Task;
use hallmark_profiles::workload::Dtype;

/// Devices are sorted when they are made: none beyond this many standard deviations is sold (binning; Sinha et al.,
/// SC22 find spreads of 1 to 3 % within one model and hardly a tail).
const BINNED: f64 = 2.4;
/// Film and paste are no better than so much below the median.
const RESISTANCE_LEAST: f64 = 0.85;

/// Counters of faults, by device.
pub const COUNTERS: usize = 7;

/// What of a device is neither heat nor power.
#[derive(Clone, Debug)]
pub struct Rank {
    /// It never answers again.
    pub hung: bool,
    /// Its sensors are not told.
    pub untold: bool,
    /// What its sensors read is kept back until it can be told.
    pub held: bool,
    /// Share of launches that come late, and how late, ns.
    pub late: (f64, u64),
    /// Wrong results per FLOP, bits of each, the temperature above which it happens.
    pub flips: Option<(f64, u32, f64)>,
    /// Wrong elements of sums, per element.
    pub reduce_flips: f64,
    pub shortcut: Option<Shortcut>,
    /// Frequency in Hz and depth of a swing of its power.
    pub swing: Option<(f64, f64)>,
    pub counters: [f64; COUNTERS],
    pub energy_j: f64,
    pub noise: Memory,
}

impl Rank {
    fn sound() -> Self {
        Self {
            hung: false,
            untold: false,
            held: false,
            late: (0.0, 0),
            flips: None,
            reduce_flips: 0.0,
            shortcut: None,
            swing: None,
            counters: [0.0; COUNTERS],
            energy_j: 0.0,
            noise: Memory::default(),
        }
    }

    /// Nothing is wrong that may pass again.
    pub fn mend(&mut self) {
        self.late = (0.0, 0);
        self.flips = None;
        self.reduce_flips = 0.0;
        self.shortcut = None;
        self.swing = None;
    }
}

/// The links of the group as a whole: the slowest decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Links {
    pub rate: f64,
    pub loss: f64,
    /// Share of operations that take so many times as long.
    pub tail: (f64, f64),
    /// Nothing passes before this time.
    pub down_until_ns: u64,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            rate: 1.0,
            loss: 0.0,
            tail: (0.0, 1.0),
            down_until_ns: 0,
        }
    }
}

/// The hall.
pub struct World {
    pub hall: Hall,
    pub weather: Weather,
    pub kind: Kind,
    pub gpus: Vec<Device>,
    pub ranks: Vec<Rank>,
    pub tasks: Vec<Task>,
    pub loops: Vec<Loop>,
    /// What cools each node.
    pub branches: Vec<Branch>,
    pub node_w: Vec<f64>,
    pub rack_w: Vec<f64>,
    pub links: Links,
    /// L/s of a node's branch as designed.
    pub litres_per_s: f64,
    pub now_ns: u64,
    /// Distance of its steps.
    pub tick_ns: u64,
    cooling: Chance,
    /// The loop of each rack.
    loop_of: Vec<usize>,
}

/// Groups of devices, by number.
#[must_use]
pub fn number(place: Place) -> usize {
    match place {
        Place::Feeder(i) | Place::Cdu(i) | Place::Rack(i) => i as usize,
        Place::Site | Place::Tray(..) | Place::Node(..) | Place::Gpu(..) => 0,
    }
}

impl World {
    /// The scenario's hall as `seed` makes it, at rest.
    ///
    /// # Errors
    /// One sentence where its devices cannot be simulated.
    pub fn new(scenario: &Scenario, dtype: Dtype, seed: u64) -> Result<Self, String> {
        let hall = scenario.hall.clone();
        let nature = Nature::draw(seed);
        let kind = Kind::new(Part::of(&hall.sku, dtype)?, nature);
        let supply = hall.supply.0;
        let nature = &kind.nature;
        let gpu = |index: u32| {
            let chance = &mut Chance::new(seed, "device", u64::from(index));
            let quality = 1.0 + hall.silicon_sigma * chance.within(BINNED);
            let resistance = 1.0 + nature.spread_resistance * chance.within(BINNED);
            let leak = 1.0 + nature.spread_leak * chance.within(BINNED);
            Device::new(
                &kind,
                quality,
                resistance.max(RESISTANCE_LEAST),
                leak,
                supply,
            )
        };
        let gpus: Vec<Device> = (0..hall.gpus()).map(gpu).collect();
        let node_full_w = f64::from(hall.gpus_per_node)
            * kind.part.board_w
            * (1.0 + nature.host_fixed + nature.host_share);
        let litres_per_s = nature.flow_per_kw * nature.liquid * node_full_w / 1_000.0 / 60.0;
        let racks = 0..hall.racks;
        let mut world = Self {
            ranks: gpus.iter().map(|_| Rank::sound()).collect(),
            tasks: vec![Task::default(); gpus.len()],
            loops: (0..hall.cdus).map(|_| Loop::new(supply)).collect(),
            branches: vec![Branch::default(); hall.nodes() as usize],
            node_w: vec![0.0; hall.nodes() as usize],
            rack_w: vec![0.0; hall.racks as usize],
            links: Links::default(),
            litres_per_s,
            now_ns: 0,
            tick_ns: scenario.conditions.tick.as_nanos() as u64,
            cooling: Chance::new(seed, "cooling", 0),
            loop_of: racks.map(|r| number(hall.cdu_of(r))).collect(),
            weather: scenario.weather,
            hall,
            kind,
            gpus,
        };
        world.power();
        Ok(world)
    }

    pub const fn nodes_per_rack(&self) -> usize {
        (self.hall.trays_per_rack * self.hall.nodes_per_tray) as usize
    }

    /// The loop that cools a node.
    #[must_use]
    pub fn loop_at(&self, node: usize) -> &Loop {
        &self.loops[self.loop_of[node / self.nodes_per_rack()]]
    }

    /// Heat that the liquid of a node takes at full load, W.
    pub fn full_heat_w(&self) -> f64 {
        let nature = &self.kind.nature;
        self.litres_per_s * 60.0 / nature.flow_per_kw * 1_000.0
    }

    /// Goes on to `now_ns`: coolant by the heat of before, devices by what they were busy with.
    pub fn advance(&mut self, now_ns: u64) {
        let dt_ns = now_ns.saturating_sub(self.now_ns);
        if dt_ns == 0 {
            return;
        }
        self.now_ns = now_ns;
        let (now_s, dt_s) = (now_ns as f64 / 1e9, dt_ns as f64 / 1e9);
        let full_w = self.full_heat_w();
        let nodes = self.nodes_per_rack();
        for (index, one) in self.loops.iter_mut().enumerate() {
            let racks = self.hall.racks_on(index as u32, self.hall.cdus);
            let count = (racks.len() * nodes).max(1) as f64;
            let racks = racks.start as usize..racks.end as usize;
            let heat_w = self.kind.nature.liquid * self.rack_w[racks].iter().sum::<f64>();
            let asked = (heat_w, self.litres_per_s * count, heat_w / (full_w * count));
            let world = (&self.kind.nature, &self.weather);
            one.step(world, asked, (now_s, dt_s), &mut self.cooling);
        }
        let per_node = self.hall.gpus_per_node as usize;
        for node in 0..self.branches.len() {
            let one = &self.loops[self.loop_of[node / nodes]];
            let heat_w = self.kind.nature.liquid * self.node_w[node];
            let branch = &mut self.branches[node];
            branch.step(heat_w, self.litres_per_s, one.flow, dt_s);
            let coolant = Coolant {
                mean_c: one.supply_c + branch.rise_k / 2.0,
                flow: branch.flow,
            };
            for index in node * per_node..(node + 1) * per_node {
                let busy = self.tasks[index].take(now_ns, dt_ns);
                let gpu = &mut self.gpus[index];
                gpu.step(&self.kind, busy, coolant, dt_s);
                self.ranks[index].energy_j += gpu.power_w * dt_s;
            }
        }
        self.power();
    }

    /// Sums of power: devices, hosts and losses.
    fn power(&mut self) {
        let per_node = self.hall.gpus_per_node as usize;
        let nature = &self.kind.nature;
        let fixed_w = nature.host_fixed * self.kind.part.board_w;
        for (node, gpus) in self.gpus.chunks_exact(per_node).enumerate() {
            let on = gpus.iter().filter(|g| !g.strain.off).count() as f64;
            let drawn: f64 = gpus.iter().map(|g| g.power_w).sum();
            self.node_w[node] = drawn * (1.0 + nature.host_share) + fixed_w * on;
        }
        let nodes = self.nodes_per_rack();
        for (rack, drawn) in self.node_w.chunks_exact(nodes).enumerate() {
            self.rack_w[rack] = drawn.iter().sum();
        }
    }

    /// What each device of a rack may draw where the rack is held to `most_w`.
    pub fn share_of_rack_w(&self, most_w: f64) -> f64 {
        let nature = &self.kind.nature;
        let count = f64::from(self.hall.gpus_per_rack());
        let fixed_w = nature.host_fixed * self.kind.part.board_w * count;
        ((most_w - fixed_w) / (count * (1.0 + nature.host_share))).max(self.kind.part.idle_w)
    }

    /// Power of some racks at this instant, W: hosts follow their devices.
    pub fn instant_w(&self, racks: std::ops::Range<u32>, now_ns: u64) -> f64 {
        let rack = self.hall.gpus_per_rack();
        let nature = &self.kind.nature;
        let fixed_w = nature.host_fixed * self.kind.part.board_w;
        let of = |index: usize| {
            let gpu = &self.gpus[index];
            if gpu.strain.off {
                return 0.0;
            }
            let mut switching = self.tasks[index].switching(now_ns);
            if let Some((hertz, depth)) = self.ranks[index].swing {
                let low = (now_ns as f64 / 1e9 * hertz).fract() >= 0.5;
                switching *= (1.0 - if low { depth } else { 0.0 }) / (1.0 - depth / 2.0);
            }
            gpu.instant_w(&self.kind, switching) * (1.0 + nature.host_share) + fixed_w
        };
        (racks.start * rack..racks.end * rack)
            .map(|i| of(i as usize))
            .sum()
    }

    /// Nothing is wrong that may pass again; what is broken for good stays so.
    pub fn mend(&mut self) {
        for gpu in &mut self.gpus {
            let off = gpu.strain.off;
            gpu.strain = Strain {
                off,
                ..Strain::default()
            };
        }
        self.ranks.iter_mut().for_each(Rank::mend);
        self.branches.iter_mut().for_each(|b| b.strain = 1.0);
        for one in &mut self.loops {
            one.strain = super::cooling::LoopStrain::default();
        }
        self.links = Links::default();
    }
}
