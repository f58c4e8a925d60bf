//! The plan that a simulated hall is given: the profile's own, its steps told in larger pieces where there are many.
//!
//! A hall of a thousand devices does billions of steps in three days. The plan is made as for a real run; then steps
//! are repeated in place so that their rows fit a budget, and buckets are merged so that as many operations are told as
//! a judge asks for. A pulse keeps steps short against its period. The plan says so among its overrides.

use super::TwinError;
use super::part::Part;
use super::scenario::{Hall, Level, Scenario};
use crate::plan::{self, Settings};
use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::criterion::Criterion;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile::{Loaded, Profile};
use hallmark_profiles::quantity::Time;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Bucket, Dtype, StepSpec};
use hallmark_results::frame::Provenance;
use hallmark_results::plan::{Plan, Segment, SegmentKind};

/// Rows of steps that one run may have, over all devices.
const ROWS_MAX: f64 = 4e6;
/// No step is told in pieces longer than this, or than the tick where that is longer, ns.
const PIECE_NS: f64 = 1e9;
/// Steps in the high part of a pulse.
const STEPS_IN_PULSE: f64 = 8.0;
/// Operations of a step where nobody asks for more; where a criterion does, a tenth more than it asks for.
const OPS_OF_STEP: f64 = 2.0;
const OPS_MARGIN: f64 = 1.1;

/// A plan, and for each of its steps how many of the profile's it stands for.
pub struct Ordered {
    pub plan: Plan,
    pub stands_for: Vec<f64>,
}

/// The first of the profile's types that something is published of for this model.
///
/// # Errors
/// Why the last of them will not do.
pub fn dtype(loaded: &Loaded, sku: &str) -> Result<(Dtype, Part), TwinError> {
    let mut why = "the profile names no element type".to_owned();
    for dtype in &loaded.profile.load.dtype {
        match Part::of(sku, *dtype) {
            Ok(part) => return Ok((*dtype, part)),
            Err(reason) => why = reason,
        }
    }
    Err(TwinError::Part(why))
}

/// The plan for a scenario's hall.
///
/// # Errors
/// [`TwinError::Plan`] where the profile cannot run on such devices.
pub fn plan(loaded: &Loaded, scenario: &Scenario) -> Result<Ordered, TwinError> {
    let (dtype, part) = dtype(loaded, &scenario.hall.sku)?;
    let hall = &scenario.hall;
    let devices: Vec<DeviceInfo> = (0..hall.gpus())
        .map(|i| device(hall, &part, dtype, i))
        .collect();
    let declares = loaded.profile.inventory.is_none();
    let settings = Settings {
        duration: scenario.conditions.duration.and_then(Time::new),
        probe: Some(part.rate),
        nodes: hall.nodes() as usize,
        expect_devices: declares.then(|| hall.gpus()),
        ..Settings::default()
    };
    let mut plan = plan::make(loaded, &devices, &settings)?;
    for (index, planned) in plan.devices.iter_mut().enumerate() {
        planned.provenance = Provenance::Simulated;
        let node = hall.gpu(index as u32).at(Level::Node, hall);
        planned.node = node.map_or_else(String::new, |n| n.to_string());
    }
    let tick_ns = scenario.conditions.tick.as_nanos() as u64;
    plan.sample_period_ns = tick_ns;
    plan.transport = "simulated links".to_owned();
    let stands_for = in_pieces(&mut plan, &loaded.profile, &part, tick_ns);
    Ok(Ordered { plan, stands_for })
}

fn device(hall: &Hall, part: &Part, dtype: Dtype, index: u32) -> DeviceInfo {
    let place = hall.gpu(index);
    let groups = [
        Level::Node,
        Level::Tray,
        Level::Rack,
        Level::Cdu,
        Level::Feeder,
    ];
    let fact = |level: Level| {
        let group = place.at(level, hall)?;
        Some((level.name().to_owned(), group.to_string()))
    };
    DeviceInfo {
        id: place.to_string(),
        engine: "twin".to_owned(),
        name: part.name.clone(),
        vendor: String::new(),
        pci: None,
        uuid: Some(format!("simulated-{index}")),
        driver: "simulated".to_owned(),
        memory: Bytes(part.memory_bytes),
        dtypes: vec![dtype],
        software: false,
        cores: Vec::new(),
        facts: groups.into_iter().filter_map(fact).collect(),
    }
}

/// About how long a step of a segment takes, ns.
fn takes_ns(segment: &Segment, spec: &StepSpec, part: &Part, ranks: usize) -> f64 {
    let (mut own, mut sums) = (0.0, 0.0);
    if segment.parts.gemms {
        own += spec.flop().0 / part.rate;
    }
    if segment.parts.memory {
        own += 5.0 * spec.memory.0 as f64 / part.memory_rate;
    }
    if segment.parts.optimizer {
        own += 28.0 * spec.parameters as f64 / part.memory_rate;
    }
    if segment.parts.buckets && ranks > 1 {
        let bytes: f64 = spec.buckets.iter().map(|b| b.bytes.0 as f64).sum();
        sums = 2.0 * bytes / part.busbw(ranks);
    }
    (own.max(sums) * 1e9).max(1e5)
}

/// Operations that the criteria of a segment's phase ask for.
fn asked_ops(profile: &Profile, segment: &Segment) -> f64 {
    let SegmentKind::Phase(phase) = segment.kind else {
        return 0.0;
    };
    let of_ops = |m: Metric| {
        matches!(
            m,
            Metric::AllreduceLatency | Metric::AllreduceBusbw | Metric::AllreduceAlgbw
        )
    };
    let own = |c: &&Criterion| of_ops(c.metric) && Plan::phase_of(profile, c) == phase;
    let asked = profile.criteria.iter().filter(own).map(|c| c.min_samples);
    OPS_MARGIN * asked.max().unwrap_or(0) as f64
}

/// Repeats the plan's steps in place; gives how many each then stands for.
fn in_pieces(plan: &mut Plan, profile: &Profile, part: &Part, tick_ns: u64) -> Vec<f64> {
    let ranks = plan.devices.len();
    let natural = std::mem::take(&mut plan.steps);
    let takes = |s: &Segment| takes_ns(s, &natural[s.step], part, ranks);
    let total: f64 = plan
        .schedule
        .iter()
        .map(|s| s.duration_ns as f64 * s.active as f64)
        .sum();
    // A fifth for pulses, whose steps cannot grow.
    let piece_ns = (total / (0.8 * ROWS_MAX)).min(PIECE_NS.max(tick_ns as f64));
    let mut made: Vec<(usize, u64, u64)> = Vec::new();
    let mut steps = Vec::new();
    let mut schedule = std::mem::take(&mut plan.schedule);
    for segment in &mut schedule {
        let own_ns = takes(segment);
        let aim_ns = segment.pulse.map_or(piece_ns, |p| {
            let high_ns = 1e9 * p.duty / p.frequency.value.max(1e-6);
            piece_ns.min(high_ns / STEPS_IN_PULSE)
        });
        let times = (aim_ns / own_ns).round().max(1.0) as u64;
        let spec = &natural[segment.step];
        let most = spec.buckets.len() as f64 * times as f64;
        let count = segment.duration_ns as f64 / (own_ns * times as f64);
        let asked = (asked_ops(profile, segment) / count.max(1.0)).ceil();
        let ops = asked.max(OPS_OF_STEP).min(most) as u64;
        let key = (segment.step, times, ops);
        let known = made.iter().position(|m| *m == key);
        segment.step = known.unwrap_or_else(|| {
            made.push(key);
            steps.push(repeated(spec, times, ops));
            steps.len() - 1
        });
    }
    if made.iter().any(|m| m.1 > 1) {
        let most = made.iter().map(|m| m.1).max().unwrap_or(1);
        plan.overrides.push(format!(
            "simulated: steps are told in pieces of up to {most}, buckets merged"
        ));
    }
    plan.schedule = schedule;
    plan.steps = steps;
    made.iter().map(|m| m.1 as f64).collect()
}

/// A step that does so many times the work, its buckets merged to `ops`.
fn repeated(spec: &StepSpec, times: u64, ops: u64) -> StepSpec {
    let count = spec.gemms.len() * times as usize;
    let gemms: Vec<_> = spec.gemms.iter().copied().cycle().take(count).collect();
    let bytes: u64 = spec.buckets.iter().map(|b| b.bytes.0).sum::<u64>() * times;
    let after = gemms.len().saturating_sub(1) as u32;
    let bucket = Bucket {
        bytes: Bytes((bytes / ops.max(1)).max(4) / 4 * 4),
        after,
    };
    StepSpec {
        gemms,
        buckets: vec![bucket; ops as usize],
        parameters: spec.parameters * times,
        memory: Bytes(spec.memory.0 * times),
        ..spec.clone()
    }
}
