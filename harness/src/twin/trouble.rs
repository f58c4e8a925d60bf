//! What is wrong with a hall, and when: the scenario's effects as strains of the world.
//!
//! An effect changes what is (a resistance, a flow, a cap, a result), never what a metric should show. What passes is
//! worked out anew at each look; what is broken for good stays broken.

use super::device::Strain;
use super::scenario::effect::{AgentEnd, DeviceEnd, Part, Shortcut};
use super::scenario::{Effect, Place, Placed};
use super::work::ZEROS_SWITCHING;
use super::world::{COUNTERS, World, number};
use crate::controller::hall::{NODE_SILENCE_NS, ended, silence};
use crate::protocol::FromWorker;
use crate::run::Input;
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{FaultKind, What};
use std::ops::Range;
use std::time::Duration;

/// Counters of faults, in the order of the world's.
pub const COUNTED: [Metric; COUNTERS] = [
    Metric::Ecc,
    Metric::EccCorrected,
    Metric::Xid,
    Metric::RowRemap,
    Metric::NvlinkErr,
    Metric::PcieReplay,
    Metric::LinkFlaps,
];
/// Source: NVIDIA, “Xid Errors”: 79, GPU has fallen off the bus.
const OFF_THE_BUS: u64 = 79;

/// The scenario's faults in their places.
pub struct Troubles {
    placed: Vec<Placed>,
    /// Share of the severity at the last look.
    before: Vec<f64>,
    /// Faults whose device, agent or feed has ended for good.
    over: Vec<bool>,
}

impl Troubles {
    #[must_use]
    pub fn new(placed: Vec<Placed>) -> Self {
        Self {
            before: vec![0.0; placed.len()],
            over: vec![false; placed.len()],
            placed,
        }
    }

    #[must_use]
    pub fn placed(&self) -> &[Placed] {
        &self.placed
    }

    /// Devices that are declared and not there.
    #[must_use]
    pub fn missing(&self, world: &World) -> Vec<u32> {
        let absent = |p: &&Placed| p.fault.effects.contains(&Effect::Missing);
        let places = self.placed.iter().filter(absent);
        let mut all: Vec<u32> = places.flat_map(|p| p.place.gpus(&world.hall)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// When some fault begins or ends next after `now_ns`, so that the world looks then.
    #[must_use]
    pub fn next_ns(&self, now_ns: u64) -> u64 {
        let edges = self.placed.iter().flat_map(|p| {
            let span = p.fault.span;
            let onset = span.onset.as_nanos() as u64;
            let every = span.every.map_or(u64::MAX, |e| e.as_nanos() as u64).max(1);
            let turns = now_ns.saturating_sub(onset) / every;
            let lasts = span.lasts.map(|l| l.as_nanos() as u64);
            [turns, turns.saturating_add(1)]
                .into_iter()
                .flat_map(move |turn| {
                    let begin = onset.saturating_add(every.saturating_mul(turn));
                    [begin, lasts.map_or(u64::MAX, |l| begin.saturating_add(l))]
                })
        });
        let unheard = self.placed.iter().filter(|p| {
            p.fault
                .effects
                .contains(&Effect::Agent(AgentEnd::Partition))
        });
        // As the controller does it: a node that is not heard for so long is given up.
        let given_up = unheard.map(|p| p.begins_ns(now_ns).saturating_add(NODE_SILENCE_NS));
        let next = edges.chain(given_up).filter(|at| *at > now_ns).min();
        next.unwrap_or(u64::MAX)
    }

    /// Strains the world as of `now_ns`; what happens at that instant goes to `inputs`.
    pub fn strain(&mut self, world: &mut World, now_ns: u64, inputs: &mut Vec<Input>) {
        if self.placed.is_empty() {
            return;
        }
        world.mend();
        for index in 0..self.placed.len() {
            let placed = &self.placed[index];
            let share = placed.fault.span.share(Duration::from_nanos(now_ns));
            let grown = (share - self.before[index]).max(0.0);
            let begins = share > 0.0 && self.before[index] <= 0.0;
            self.before[index] = share;
            let gpus = usizes(placed.place.gpus(&world.hall));
            for effect in &placed.fault.effects {
                count(effect, gpus.clone(), grown, begins, world);
                if share > 0.0 {
                    heat_and_power(effect, placed.place, share, world);
                    links_and_results(effect, &gpus, share, world, placed.ends_ns(now_ns));
                }
                let ends = begins && !self.over[index];
                if ends && end(effect, placed.place, world, inputs) {
                    self.over[index] = true;
                }
                let ranks = &mut world.ranks[gpus.clone()];
                match effect {
                    Effect::Agent(AgentEnd::Partition) => {
                        ranks.iter_mut().for_each(|r| r.held = share > 0.0);
                        let quiet_ns = now_ns.saturating_sub(placed.begins_ns(now_ns));
                        let given_up = share > 0.0 && quiet_ns >= NODE_SILENCE_NS;
                        if given_up && !std::mem::replace(&mut self.over[index], true) {
                            let why = silence(&placed.place.to_string(), quiet_ns);
                            give_up(placed.place, FaultKind::Silent, &why, world, inputs);
                        }
                    }
                    Effect::Agent(AgentEnd::Restart) => {
                        ranks.iter_mut().for_each(|r| r.untold = share > 0.0);
                    }
                    _ => {}
                }
            }
        }
    }
}

fn usizes(range: Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

impl Placed {
    /// When the present turn of the fault begins, or the first one did not yet.
    fn begins_ns(&self, now_ns: u64) -> u64 {
        let span = self.fault.span;
        let onset = span.onset.as_nanos() as u64;
        let every = span.every.map_or(u64::MAX, |e| e.as_nanos() as u64).max(1);
        let turn = now_ns.saturating_sub(onset) / every;
        onset.saturating_add(turn.saturating_mul(every))
    }

    /// When the present turn of the fault is over.
    fn ends_ns(&self, now_ns: u64) -> u64 {
        let begin = self.begins_ns(now_ns);
        let lasts = self.fault.span.lasts;
        lasts.map_or(u64::MAX, |l| begin.saturating_add(l.as_nanos() as u64))
    }
}

/// Full effect at 1, none at 0.
fn part_of(times: f64, share: f64) -> f64 {
    1.0 + (times - 1.0) * share
}

/// Loops of a place.
fn loops(place: Place, world: &World) -> Range<usize> {
    match place {
        Place::Cdu(_) => number(place)..number(place) + 1,
        _ => 0..world.loops.len(),
    }
}

fn heat_and_power(effect: &Effect, place: Place, share: f64, world: &mut World) {
    let gpus = usizes(place.gpus(&world.hall));
    let each = |world: &mut World, change: &dyn Fn(&mut Strain)| {
        let gpus = &mut world.gpus[gpus.clone()];
        gpus.iter_mut().for_each(|g| change(&mut g.strain));
    };
    match *effect {
        Effect::Rate { of, times } => each(world, &|s| match of {
            Part::Core => s.rate *= part_of(times, share),
            Part::Memory => s.memory_rate *= part_of(times, share),
        }),
        Effect::ThermalResistance { of, times } => each(world, &|s| match of {
            Part::Core => s.core_resistance *= part_of(times, share),
            Part::Memory => s.memory_resistance *= part_of(times, share),
        }),
        Effect::CoreClock { times } => each(world, &|s| s.clock *= part_of(times, share)),
        Effect::PowerCap { times } => each(world, &|s| s.cap *= part_of(times, share)),
        Effect::Psu { clock_times } => each(world, &|s| s.brake *= part_of(clock_times, share)),
        Effect::Shortcut(Shortcut::Zeros) => each(world, &|s| s.switching *= ZEROS_SWITCHING),
        Effect::RackCap { at_most } => {
            let most_w = world.share_of_rack_w(at_most.0);
            each(world, &|s| s.share_w = s.share_w.min(most_w));
        }
        Effect::PowerSwing { frequency, depth } => {
            // Low for half of each period; the mean over a look is what heat and clocks see.
            let mean = 1.0 - depth * share / 2.0;
            each(world, &|s| s.switching *= mean);
            let swing = Some((frequency.0, depth * share));
            world.ranks[gpus.clone()]
                .iter_mut()
                .for_each(|r| r.swing = swing);
        }
        Effect::Flow { times } => flow(place, part_of(times, share), world),
        Effect::Supply { add } => {
            for one in loops(place, world) {
                world.loops[one].strain.add_k += add.0 * share;
            }
        }
        Effect::SupplySwing { amplitude, period } => {
            for one in loops(place, world) {
                world.loops[one].strain.swing = (amplitude.0 * share, period.as_secs_f64());
            }
        }
        Effect::Pump { times } => {
            for one in loops(place, world) {
                world.loops[one].strain.pump *= part_of(times, share);
            }
        }
        Effect::DewPoint { above_supply } => {
            for one in loops(place, world) {
                world.loops[one].strain.dew_above_k = Some(above_supply.0 * share);
            }
        }
        _ => {}
    }
}

/// Less flow in a branch, a rack or a whole loop.
fn flow(place: Place, times: f64, world: &mut World) {
    if let Place::Cdu(_) = place {
        world.loops[number(place)].strain.flow *= times;
        return;
    }
    let per_node = world.hall.gpus_per_node as usize;
    let gpus = usizes(place.gpus(&world.hall));
    for branch in &mut world.branches[gpus.start / per_node..gpus.end / per_node] {
        branch.strain *= times;
    }
}

fn links_and_results(
    effect: &Effect,
    gpus: &Range<usize>,
    share: f64,
    world: &mut World,
    ends_ns: u64,
) {
    match *effect {
        Effect::LinkRate { times } => {
            world.links.rate = world.links.rate.min(part_of(times, share));
        }
        Effect::LinkLoss { share: loss } => world.links.loss = world.links.loss.max(loss * share),
        Effect::LinkDown => {
            world.links.down_until_ns = world.links.down_until_ns.max(ends_ns);
        }
        Effect::LinkTail { share: of, times } => world.links.tail = (of * share, times),
        Effect::HostDelay { share: of, delay } => {
            let late = (of * share, delay.as_nanos() as u64);
            let ranks = &mut world.ranks[gpus.clone()];
            ranks.iter_mut().for_each(|r| r.late = late);
        }
        Effect::Flip {
            per_flop,
            bits,
            above,
        } => {
            let above_c = above.map_or(f64::NEG_INFINITY, |c| c.0);
            let flips = Some((per_flop * share, bits, above_c));
            let ranks = &mut world.ranks[gpus.clone()];
            ranks.iter_mut().for_each(|r| r.flips = flips);
        }
        Effect::ReduceFlip { per_element } => {
            let ranks = &mut world.ranks[gpus.clone()];
            ranks
                .iter_mut()
                .for_each(|r| r.reduce_flips = per_element * share);
        }
        Effect::Shortcut(shortcut) => {
            let ranks = &mut world.ranks[gpus.clone()];
            ranks.iter_mut().for_each(|r| r.shortcut = Some(shortcut));
        }
        _ => {}
    }
}

/// Counters of faults grow while a fault grows, and with what happens at its onset.
fn count(effect: &Effect, gpus: Range<usize>, grown: f64, begins: bool, world: &mut World) {
    let mut add = |metric: Metric, by: f64| {
        if let Some(at) = COUNTED.iter().position(|m| *m == metric) {
            let ranks = &mut world.ranks[gpus.clone()];
            ranks.iter_mut().for_each(|r| r.counters[at] += by);
        }
    };
    match *effect {
        Effect::Counter { metric, add: by } => add(metric, f64::from(by) * grown),
        Effect::Xid { .. } if begins => add(Metric::Xid, 1.0),
        Effect::Device(DeviceEnd::OffTheBus) if begins => add(Metric::Xid, 1.0),
        Effect::LinkDown if begins => add(Metric::LinkFlaps, 1.0),
        _ => {}
    }
}

/// What ends at once; true where it ends for good.
fn end(effect: &Effect, place: Place, world: &mut World, inputs: &mut Vec<Input>) -> bool {
    let gpus = place.gpus(&world.hall);
    let xid = |code: u64, detail: &str| What::Xid {
        code,
        detail: detail.to_owned(),
    };
    match *effect {
        Effect::Xid { code } => {
            let told =
                gpus.map(|d| Input::Event(xid(code.into(), "reported by the driver"), Some(d)));
            inputs.extend(told);
            false
        }
        Effect::Device(DeviceEnd::OffTheBus) => {
            for device in gpus {
                lose(world, device, true);
                inputs.push(Input::Event(
                    xid(OFF_THE_BUS, "GPU has fallen off the bus"),
                    Some(device),
                ));
                let lost = FromWorker::Fault {
                    kind: FaultKind::Device,
                    detail: "the device is lost".to_owned(),
                };
                inputs.push(Input::Worker(device, lost));
            }
            true
        }
        Effect::Device(DeviceEnd::Hang) => {
            gpus.for_each(|d| world.ranks[d as usize].hung = true);
            true
        }
        Effect::FeedOff => {
            for device in gpus {
                lose(world, device, true);
                let why = "its node no longer answers".to_owned();
                inputs.push(Input::Gone(device, why));
            }
            true
        }
        Effect::Agent(AgentEnd::Kill | AgentEnd::Restart) => {
            let why = ended(&place.to_string(), "signal: 9 (SIGKILL)");
            give_up(place, FaultKind::Agent, &why, world, inputs);
            if *effect == Effect::Agent(AgentEnd::Kill) {
                gpus.for_each(|d| world.ranks[d as usize].untold = true);
            }
            true
        }
        _ => false,
    }
}

/// The devices of a node that the controller gives up; their sensors may be heard again.
fn give_up(place: Place, kind: FaultKind, why: &str, world: &mut World, inputs: &mut Vec<Input>) {
    for device in place.gpus(&world.hall) {
        world.ranks[device as usize].hung = true;
        world.tasks[device as usize].step = None;
        let detail = why.to_owned();
        inputs.push(Input::Worker(device, FromWorker::Fault { kind, detail }));
    }
}

/// A device that works no more; without power it is cold as well.
fn lose(world: &mut World, device: u32, off: bool) {
    let device = device as usize;
    world.ranks[device].hung = true;
    world.ranks[device].untold = true;
    world.gpus[device].strain.off |= off;
    world.tasks[device].step = None;
}

#[cfg(test)]
mod tests;
