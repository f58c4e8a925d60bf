//! How long the work of a simulated device takes, how the ranks' sums move, and which results are wrong.
//!
//! The same orders as a real worker gets, answered with spans of time. An audit sees a wrong result as often as it
//! looks: the plan's share.

use super::chance::Chance;
use super::scenario::effect::Shortcut;
use super::task::Step;
use super::world::{Links, World};
use crate::shell::simulated::Asked;
use crate::shell::simulated::meeting::nodes;
use hallmark_kernels::audit::Mismatch;
use hallmark_kernels::work::{Span, StepDone, Work};
use hallmark_profiles::workload::Gemm;
use hallmark_results::plan::Plan;
use std::collections::{BTreeMap, VecDeque};

/// Arrays that AdamW reads and writes for each parameter: 4 and 3 of f32.
const OPTIMIZER_BYTES: f64 = 28.0;
/// Arrays that copy and triad move: 2 and 3.
const MEMORY_ARRAYS: f64 = 5.0;
/// Start of a collective, s (NCCL on NVLink: some ten microseconds).
const OP_LATENCY_S: f64 = 15e-6;
/// Share of a step's matmuls after which the first bucket is ready: forward is a third.
const FIRST_BUCKET: f64 = 1.0 / 3.0;
/// Going back for lost packets: throughput over what it was is 1 / (1 + so much · loss), as go-back-N transports show
/// (Mittal et al., “Revisiting Network Support for RDMA”, SIGCOMM 2018).
const GO_BACK: f64 = 100.0;
/// An operation that meets other traffic takes this many times as long.
const BUSY_TIMES: f64 = 1.3;
/// A step remembers so much of the noise of the one before.
const STEP_KEPT: f64 = 0.3;
/// Shared all-reduces that are remembered: more steps than this are never in flight.
const SHARED: usize = 16;
/// Lower precision is faster by this (half the bits, twice the rate, less what does not scale).
const LOWER_PRECISION_RATE: f64 = 1.8;
/// Operands of zeros toggle little: switching power falls by about a third (He et al., "thermal throttling by input
/// data", 2023: 18 to 40 %).
pub const ZEROS_SWITCHING: f64 = 0.65;

/// A step of the plan in figures.
#[derive(Clone, Copy, Debug)]
struct Figures {
    flop: f64,
    bucket_bytes: f64,
    buckets: usize,
    optimizer_bytes: f64,
    memory_bytes: f64,
    gemms: u32,
    audit_share: f64,
    /// Steps of the profile that this one stands for.
    stands_for: f64,
}

/// The ranks' operations of one step.
#[derive(Clone, Debug)]
struct Shared {
    seq: u64,
    ops: Vec<(u64, u64)>,
    end_ns: u64,
}

impl Shared {
    /// The operations as a rank has them whose own matmuls end at `compute_ns`: what it waits for slower ranks it waits
    /// within its all-reduces, as their kernels do.
    fn seen_from(&self, compute_ns: u64) -> Vec<(u64, u64)> {
        let busy_ns: u64 = self.ops.iter().map(|(start, end)| end - start).sum();
        let left_ns = self.end_ns.saturating_sub(compute_ns);
        let longer = (left_ns as f64 / busy_ns.max(1) as f64).max(1.0);
        let seen = |at_ns: u64| {
            let before_end = self.end_ns.saturating_sub(at_ns) as f64 * longer;
            self.end_ns.saturating_sub(before_end as u64)
        };
        let all = self.ops.iter();
        all.map(|(start, end)| (seen(*start), seen(*end))).collect()
    }
}

/// The work of a plan on a hall.
pub struct Works {
    figures: Vec<Figures>,
    /// All-reduces of all ranks, and of those of each node by themselves.
    shared: BTreeMap<Option<usize>, VecDeque<Shared>>,
    /// The node of each device.
    nodes: Vec<usize>,
    chance: Chance,
    /// Ranks that take part.
    pub members: usize,
}

impl Works {
    /// `stands_for`: for each of the plan's steps, how many of the profile's it stands for.
    #[must_use]
    pub fn new(plan: &Plan, stands_for: &[f64], seed: u64) -> Self {
        let figures = plan.steps.iter().zip(stands_for);
        let figures = figures.map(|(spec, stands_for)| Figures {
            flop: spec.flop().0,
            bucket_bytes: spec.buckets.first().map_or(0.0, |b| b.bytes.0 as f64),
            buckets: spec.buckets.len(),
            optimizer_bytes: OPTIMIZER_BYTES * spec.parameters as f64,
            memory_bytes: MEMORY_ARRAYS * spec.memory.0 as f64,
            gemms: spec.gemms.len() as u32,
            audit_share: spec.audit_share,
            stands_for: *stands_for,
        });
        Self {
            figures: figures.collect(),
            shared: BTreeMap::new(),
            nodes: nodes(plan),
            chance: Chance::new(seed, "work", 0),
            members: plan.devices.len(),
        }
    }

    /// About how long a step takes, rather too long.
    #[must_use]
    pub fn expected_ns(&self, world: &World, step: usize) -> u64 {
        let figures = &self.figures[step];
        let part = &world.kind.part;
        let alone = figures.flop / part.rate
            + (figures.optimizer_bytes + figures.memory_bytes) / part.memory_rate;
        let reduce = figures.buckets as f64 * self.op_s(world, figures, self.members);
        (1.5e9 * (alone + reduce)) as u64
    }

    /// One operation on sound links, s.
    fn op_s(&self, world: &World, figures: &Figures, ranks: usize) -> f64 {
        let n = ranks.max(2) as f64;
        let busbw = world.kind.part.busbw(ranks) * world.kind.nature.link;
        OP_LATENCY_S + figures.bucket_bytes * 2.0 * (n - 1.0) / n / busbw
    }

    /// When the device's own work is done; `None` for one that never answers.
    pub fn begin(
        &mut self,
        world: &mut World,
        device: usize,
        asked: &Asked,
        start_ns: u64,
    ) -> Option<u64> {
        let figures = self.figures[asked.step];
        let (gpu, rank) = (&world.gpus[device], &mut world.ranks[device]);
        if rank.hung || gpu.strain.off {
            return None;
        }
        let kind = &world.kind;
        let noise = 1.0 + kind.nature.step_noise * rank.noise.next(STEP_KEPT, &mut self.chance);
        let mut rate = gpu.rate(kind);
        if rank.shortcut == Some(Shortcut::LowerPrecision) {
            rate *= LOWER_PRECISION_RATE;
        }
        let memory_rate = gpu.memory_rate(kind);
        let (late, late_ns) = rank.late;
        let delays = if late > 0.0 {
            self.chance.count(late * figures.stands_for)
        } else {
            0
        };
        let ns = |s: f64| (s * 1e9 * noise.max(0.5)) as u64;
        let compute = if asked.parts.gemms {
            figures.flop / rate
        } else {
            0.0
        };
        let memory = if asked.parts.memory {
            figures.memory_bytes / memory_rate
        } else {
            0.0
        };
        let optimizer = if asked.parts.optimizer {
            figures.optimizer_bytes / memory_rate
        } else {
            0.0
        };
        let delay_ns = delays * late_ns;
        let compute_ns = start_ns + delay_ns + ns(compute + memory);
        let own = if asked.coupled { 0 } else { ns(optimizer) };
        world.tasks[device].begin(Step {
            start_ns,
            delay_ns,
            compute_ns,
            own_ns: compute_ns + own,
            copies: !asked.parts.gemms && asked.parts.memory,
            optimizer_ns: ns(optimizer),
        });
        Some(compute_ns + own)
    }

    /// When a coupled step ends on a device: the ranks' sums first, then its own optimizer.
    pub fn reduced(&mut self, world: &World, device: usize, asked: &Asked, last_ns: u64) -> u64 {
        let end_ns = match self.known(device, asked) {
            Some(shared) => shared.end_ns,
            None => {
                let party = self.party(device, asked);
                let shared = self.share(world, asked, last_ns, party);
                let end_ns = shared.end_ns;
                let kept = self.shared.entry(party).or_default();
                kept.push_back(shared);
                if kept.len() > SHARED {
                    kept.pop_front();
                }
                end_ns
            }
        };
        end_ns + world.tasks[device].step.map_or(0, |s| s.optimizer_ns)
    }

    /// With whom a device sums: all, or those of its node.
    fn party(&self, device: usize, asked: &Asked) -> Option<usize> {
        asked.parts.within_node.then(|| self.nodes[device])
    }

    fn known(&self, device: usize, asked: &Asked) -> Option<&Shared> {
        let kept = self.shared.get(&self.party(device, asked))?;
        kept.iter().rev().find(|s| s.seq == asked.seq)
    }

    /// The operations of a step whose slowest rank is done at `last_ns`; what ails the links between nodes, a node by
    /// itself does not meet.
    fn share(
        &mut self,
        world: &World,
        asked: &Asked,
        last_ns: u64,
        party: Option<usize>,
    ) -> Shared {
        let figures = self.figures[asked.step];
        let own = |node| self.nodes.iter().filter(|n| **n == node).count();
        let ranks = party.map_or(self.members, own);
        let links = party.map_or(world.links, |_| Links::default());
        let nature = &world.kind.nature;
        let slow = (1.0 + GO_BACK * links.loss) / links.rate.max(1e-3);
        let each_s = self.op_s(world, &figures, ranks) * slow;
        let operations = if ranks > 1 { figures.buckets } else { 0 };
        let mut took: Vec<u64> = (0..operations)
            .map(|_| {
                let noise = 1.0 + nature.op_noise * self.chance.heavy();
                let busy = self.chance.unit() < nature.op_busy;
                let tail = links.tail.0 > 0.0 && self.chance.unit() < links.tail.0;
                let times =
                    if busy { BUSY_TIMES } else { 1.0 } * if tail { links.tail.1 } else { 1.0 };
                (each_s * noise.max(0.5) * times * 1e9) as u64
            })
            .collect();
        // What is on the way when a link goes down waits for it.
        if let Some(first) = took.first_mut() {
            *first += links.down_until_ns.saturating_sub(last_ns);
        }
        let sum: u64 = took.iter().sum();
        let ready_ns = if asked.parts.gemms {
            let compute = (figures.flop / world.kind.part.rate * 1e9) as u64;
            last_ns.saturating_sub((compute as f64 * (1.0 - FIRST_BUCKET)) as u64)
        } else {
            last_ns
        };
        let least_ns = last_ns + took.last().copied().unwrap_or(0);
        let end_ns = (ready_ns + sum).max(least_ns);
        let mut at_ns = end_ns - sum.min(end_ns);
        let ops = took.iter().map(|ns| {
            let start_ns = at_ns;
            at_ns += ns;
            (start_ns, at_ns)
        });
        Shared {
            seq: asked.seq,
            ops: ops.collect(),
            end_ns,
        }
    }

    /// Fills in what a step that is over has done.
    pub fn tell(&mut self, world: &mut World, device: usize, asked: &Asked, done: &mut StepDone) {
        let figures = self.figures[asked.step];
        let step = world.tasks[device].step;
        world.tasks[device].end(done.end_ns);
        let Some(step) = step else { return };
        let from_ns = step.start_ns + step.delay_ns;
        let mut span = |work, start_ns, end_ns, amount| {
            done.spans.push(Span {
                work,
                start_ns,
                end_ns,
                amount,
            });
        };
        if asked.parts.gemms {
            span(Work::Matmul, from_ns, step.compute_ns, figures.flop);
        }
        if asked.parts.memory {
            span(Work::Copy, from_ns, step.compute_ns, figures.memory_bytes);
        }
        if asked.parts.optimizer && step.optimizer_ns > 0 {
            let start_ns = done.end_ns.saturating_sub(step.optimizer_ns);
            span(
                Work::Optimizer,
                start_ns,
                done.end_ns,
                figures.optimizer_bytes,
            );
        }
        let reduces = asked.parts.buckets && asked.coupled && done.collective_fault.is_none();
        let shared = self.known(device, asked);
        for (start_ns, end_ns) in shared
            .iter()
            .filter(|_| reduces)
            .flat_map(|s| s.seen_from(step.compute_ns))
        {
            span(Work::AllReduce, start_ns, end_ns, figures.bucket_bytes);
        }
        if asked.parts.gemms {
            done.gemms = figures.gemms;
            done.audited = (f64::from(done.gemms) * figures.audit_share).ceil() as u32;
            let share = f64::from(done.audited) / f64::from(done.gemms.max(1));
            done.audited_flop = figures.flop * share;
            self.wrong(world, device, asked, share, done);
        }
        if reduces {
            self.wrong_sums(world, device, &figures, done);
        }
    }

    /// Wrong results that an audit looked at.
    fn wrong(
        &mut self,
        world: &World,
        device: usize,
        asked: &Asked,
        share: f64,
        done: &mut StepDone,
    ) {
        let of = self.figures[asked.step];
        let (gpu, rank) = (&world.gpus[device], &world.ranks[device]);
        if rank.shortcut.is_some() {
            let wrong = self.telling(&asked.spec.gemms, u64::MAX);
            done.mismatches.push(wrong);
        }
        let Some((per_flop, bits, above_c)) = rank.flips else {
            return;
        };
        if gpu.core_c < above_c {
            return;
        }
        for _ in 0..self.chance.count(per_flop * of.flop * share).min(64) {
            done.mismatches
                .push(self.telling(&asked.spec.gemms, u64::from(bits)));
        }
    }

    /// As a kernel's audit tells a wrong matmul; `bits` of one row's element, or more rows than one.
    fn telling(&mut self, gemms: &[Gemm], bits: u64) -> String {
        let Some(gemm) = gemms.get(self.chance.below(gemms.len() as u64) as usize) else {
            return "an audited matmul is wrong".to_owned();
        };
        let (pair, row) = (
            self.chance.below(16) as u32,
            self.chance.below(gemm.m.into()) as u32,
        );
        let expected = self.chance.below(u64::MAX);
        let mut digest = expected;
        for _ in 0..bits.min(8) {
            digest ^= 1 << self.chance.below(24);
        }
        let all = bits == u64::MAX;
        let wrong = Mismatch {
            gemm: *gemm,
            pair,
            row: if all { 0 } else { row },
            bad_rows: if all { gemm.m } else { 1 },
            digest,
            expected,
        };
        wrong.to_string()
    }

    /// Wrong elements of a sum: the digests of the ranks differ, and each rank's audit of its sums sees its own.
    fn wrong_sums(&mut self, world: &World, device: usize, of: &Figures, done: &mut StepDone) {
        let per_element = world.ranks[device].reduce_flips;
        if per_element > 0.0 {
            let elements = of.bucket_bytes * of.buckets as f64 / 4.0;
            for _ in 0..self.chance.count(per_element * elements).min(64) {
                let bucket = self.chance.below(of.buckets.max(1) as u64);
                let (found, expected) = (self.chance.below(u64::MAX), self.chance.below(u64::MAX));
                done.mismatches.push(format!(
                    "all-reduce of bucket {bucket}: digest {found:016x}, expected {expected:016x}"
                ));
            }
        }
    }
}
