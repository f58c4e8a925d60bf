//! Makes the plan: a pure function of a profile, the devices found and what the command line changed.
//!
//! It lowers a transformer to plain matmuls and buckets, lays out the schedule, and refuses what
//! cannot run (no such dtype, not enough memory) before anything starts.

pub mod changes;
pub mod hall;
pub mod inventory;
pub mod libraries;

use hallmark_kernels::audit;
use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::profile::{Load, Loaded, Mode, Model, Pattern, Phase, Profile, Reach};
use hallmark_profiles::quantity::{Size, Time};
use hallmark_profiles::sku;
use hallmark_profiles::units::{Bytes, Unit, human};
use hallmark_profiles::workload::{AuditSeed, Bucket, Dtype, Gemm, Parts, StepSpec};
use hallmark_results::frame::Provenance;
use hallmark_results::plan::{Plan, PlannedDevice, Segment, SegmentKind};
use std::path::PathBuf;
use std::time::Duration;

mod burn;
pub mod length;
mod sweep;

use length::{PHASE_MIN_MS, shorten};

/// Matmuls in one step of a steady or pulse phase.
const STEADY_MATMULS: usize = 8;
/// Most buckets of one step: beyond it their number, not their bytes, would be measured.
const BUCKETS_MAX: usize = 65_536;

/// What the command line changed, and what only the machine knows.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub seed: Option<u64>,
    /// Drawn from the operating system for each run; zero where nothing is accepted by it, as in a simulation.
    pub audit_seed: AuditSeed,
    /// Total length of all phases.
    pub duration: Option<Time>,
    pub node: String,
    /// Rough FLOP/s of the slowest device, where the profile fits its step to it.
    pub probe: Option<f64>,
    /// The devices as they were asked for; empty or `auto` where none was left out.
    pub devices: Vec<String>,
    /// How many devices the operator declares.
    pub expect_devices: Option<u32>,
    /// The hall, where more than this machine takes part.
    pub hall: Option<hall::Hall>,
    /// Nodes of a hall that is simulated.
    pub nodes: usize,
    /// The NVML library, where it was given by hand.
    pub nvml: Option<PathBuf>,
    /// The program that drives the devices, where it is not this one.
    pub worker: Option<PathBuf>,
}

/// A profile that cannot run on these devices.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum PlanError {
    #[error("no element type that {profile} asks for ({wanted}) is on every device: {had}")]
    Dtype {
        profile: String,
        wanted: String,
        had: String,
    },
    #[error(
        "{device} has {} free, the profile's steps need {} (largest matmul {largest}); use smaller matmuls or stop other jobs",
        whole_mebibytes(*free),
        whole_mebibytes(*need)
    )]
    Memory {
        device: String,
        free: Bytes,
        need: Bytes,
        largest: Gemm,
    },
    #[error(
        "{profile} accepts a site only where its devices are declared: give --expect-devices N, or an [inventory] in a copy of the profile"
    )]
    NoInventory { profile: String },
    #[error(
        "{profile} declares {declared} devices, and --expect-devices says {asked}; leave the option out, or correct the profile"
    )]
    InventoryTwice {
        profile: String,
        declared: u32,
        asked: u32,
    },
    #[error(
        "{profile} declares {declared} devices, and the site file {found}; correct one of them"
    )]
    InventoryOfSite {
        profile: String,
        declared: u32,
        found: u32,
    },
    #[error(
        "{profile} declares {what} that the site file does not; with --site that file declares the devices, so name it there"
    )]
    InventoryBySite { profile: String, what: &'static str },
    #[error("matmul {gemm} in {dtype} cannot be audited exactly: k must be at most {k_max}")]
    NotExact {
        gemm: Gemm,
        dtype: Dtype,
        k_max: u64,
    },
    #[error(
        "a step would all-reduce {bytes} in more than {BUCKETS_MAX} buckets of {bucket}; use a larger `bucket`"
    )]
    Buckets { bytes: Bytes, bucket: Size },
    #[error(
        "a run of {asked} is too short: its phase `{phase}` would last {short}, and no phase may last less than {PHASE_MIN_MS} ms; use at least {least}"
    )]
    TooShort {
        asked: Time,
        phase: String,
        short: String,
        least: String,
    },
}

/// Rounded so that both sides of a comparison are said in powers of 1024.
fn whole_mebibytes(size: Bytes) -> String {
    human((size.0 >> 20 << 20) as f64, Unit::Byte)
}

/// The plan for `loaded` on `devices`.
///
/// # Errors
/// [`PlanError`]; nothing has been started.
pub fn make(
    loaded: &Loaded,
    devices: &[DeviceInfo],
    settings: &Settings,
) -> Result<Plan, PlanError> {
    let mut profile = loaded.profile.clone();
    let inventory = inventory::declared(loaded, settings)?;
    let mut overrides = changes::of(loaded, settings);
    if let Some(duration) = settings.duration {
        shorten(&mut profile, duration)?;
        overrides.push(format!(
            "--duration {duration}: phases scaled to {duration} in all"
        ));
    }
    if let Some(seed) = settings.seed {
        profile.seed = seed;
        overrides.push(format!("--seed {seed}"));
    }
    let dtype = dtype(&profile, devices)?;
    if let (Some(target), Some(rate)) = (profile.load.fit_step, settings.probe) {
        fit(&mut profile.load, target.duration(), rate, dtype, devices);
    }
    let burn = burn::gemm(&profile.load, dtype, devices, settings.probe);
    let hall = settings.hall.as_ref();
    let ranks = hall.map_or(devices.len(), |h| h.ranks(devices.len()));
    let sweeps = sweep::possible(devices, ranks);
    let (mut steps, step_of) = steps(&profile, dtype, ranks, burn, sweeps);
    let shortened = sweep::fit(&mut steps, devices);
    for step in &mut steps {
        step.audit_seed = Some(settings.audit_seed);
    }
    check(&steps, &profile.load, devices, settings)?;
    let mut limits = limits(&profile, devices);
    limits.extend(sweep::limits(&profile, sweeps, shortened));
    let nodes = hall.map_or(settings.nodes, hall::Hall::nodes);
    limits.extend(hall::left_out(&profile, nodes));
    let mut planned: Vec<PlannedDevice> = devices.iter().map(|d| planned(d, settings)).collect();
    if let Some(hall) = &settings.hall {
        limits.push(hall.limit());
        overrides.extend(hall.changes.iter().cloned());
        hall.place(&mut planned);
    }
    Ok(Plan {
        profile_text: loaded.text.clone(),
        profile_origin: loaded.origin.clone(),
        profile_digest: loaded.digest(),
        overrides,
        inventory,
        seed: profile.seed,
        devices: planned,
        dtype,
        schedule: schedule(&profile, &steps, &step_of, (devices.len(), nodes)),
        limits,
        steps,
        warmup: profile.load.warmup.clone(),
        stop_when: profile.load.stop_when.clone(),
        queue_depth: profile.load.queue_depth,
        sample_period_ns: ns(profile.telemetry.period.duration()),
        block_ns: ns(profile.telemetry.block.duration()),
        transport: String::new(),
    })
}

/// Whether a profile asks for all-reduces, where there is more than one device.
pub fn reduces(profile: &Profile) -> bool {
    let asked = |phase: &Phase| match phase.pattern {
        Pattern::Sweep => true,
        Pattern::Training => phase.mode != Mode::ComputeOnly,
        _ => false,
    };
    profile.load.phases.iter().any(asked)
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn planned(device: &DeviceInfo, settings: &Settings) -> PlannedDevice {
    PlannedDevice {
        id: device.id.clone(),
        engine: device.engine.clone(),
        name: device.name.clone(),
        vendor: device.vendor.clone(),
        pci: device.pci.clone(),
        uuid: device.uuid.clone(),
        driver: device.driver.clone(),
        node: settings.node.clone(),
        sku: sku::find(&device.name)
            .ok()
            .flatten()
            .map(|s| s.name.clone()),
        software: device.software,
        cores: device.cores.clone(),
        memory_bytes: device.memory.0,
        promised: Vec::new(),
        facts: device.facts.clone(),
        // What another program says of a device is no measurement by this one.
        provenance: match settings.worker {
            Some(_) => Provenance::StandIn,
            None => Provenance::Measured,
        },
    }
}

fn dtype(profile: &Profile, devices: &[DeviceInfo]) -> Result<Dtype, PlanError> {
    let on_all = |d: &&Dtype| devices.iter().all(|device| device.dtypes.contains(d));
    let names = |list: &[Dtype]| list.iter().map(|d| d.name()).collect::<Vec<_>>().join(", ");
    profile
        .load
        .dtype
        .iter()
        .find(on_all)
        .copied()
        .ok_or_else(|| PlanError::Dtype {
            profile: profile.name.clone(),
            wanted: names(&profile.load.dtype),
            had: devices
                .iter()
                .map(|d| format!("{} has {}", d.id, names(&d.dtypes)))
                .collect::<Vec<_>>()
                .join("; "),
        })
}

/// Scales the model and the matmul by a power of two, to the largest whose step takes at most `target`.
fn fit(load: &mut Load, target: Duration, rate: f64, dtype: Dtype, devices: &[DeviceInfo]) {
    let budget = rate * target.as_secs_f64();
    let memory = devices.iter().map(|d| d.memory.0).min().unwrap_or(0);
    let (model, matmul) = (load.model, load.matmul);
    for exponent in (-5_i32..=6).rev() {
        // Four times a dimension still fits 32 bits, however large the profile's own is.
        let scaled = |x: u32| (f64::from(x) * 2_f64.powi(exponent)).clamp(1.0, 1e9) as u32;
        load.model = model.map(|m| Model {
            hidden: scaled(m.hidden),
            ffn: scaled(m.ffn),
            tokens: scaled(m.tokens),
            layers: m.layers,
        });
        load.matmul = matmul.map(|g| Gemm::new(scaled(g.m), scaled(g.n), scaled(g.k)));
        let training = load.model.map(|m| training(load, &m, dtype, 0));
        let steady = load.matmul.map(|g| steady(load, g, dtype, 0));
        let fits = |spec: &StepSpec| {
            spec.flop().0 <= budget
                && spec.footprint().0 < memory / 2
                && spec.buckets.len() <= BUCKETS_MAX
        };
        if training.iter().chain(&steady).all(fits) {
            return;
        }
    }
}

/// The distinct steps, and for each phase the index of its own.
fn steps(
    profile: &Profile,
    dtype: Dtype,
    ranks: usize,
    burn: Gemm,
    sweeps: bool,
) -> (Vec<StepSpec>, Vec<usize>) {
    let load = &profile.load;
    let mut steps: Vec<StepSpec> = Vec::new();
    let mut index = Vec::new();
    for phase in &load.phases {
        if phase.pattern == Pattern::Sweep && !sweeps {
            // It is left out of the schedule.
            index.push(0);
            continue;
        }
        let spec = match (phase.pattern, load.model, load.matmul, load.memory) {
            (Pattern::Training, Some(model), ..) => training(load, &model, dtype, profile.seed),
            (Pattern::Memory, _, _, Some(size)) => StepSpec {
                memory: size.bytes(),
                ..empty(load, dtype, profile.seed)
            },
            (Pattern::Burn, ..) => steady(load, burn, dtype, profile.seed),
            (Pattern::Sweep, ..) => sweep::spec(phase.sweep, empty(load, dtype, profile.seed)),
            (_, _, Some(gemm), _) => steady(load, gemm, dtype, profile.seed),
            // A profile is checked for this when it is read.
            _ => empty(load, dtype, profile.seed),
        };
        let spec = if ranks < 2 {
            StepSpec {
                buckets: Vec::new(),
                ..spec
            }
        } else {
            spec
        };
        let at = steps.iter().position(|s| *s == spec).unwrap_or_else(|| {
            steps.push(spec);
            steps.len() - 1
        });
        index.push(at);
    }
    (steps, index)
}

fn empty(load: &Load, dtype: Dtype, seed: u64) -> StepSpec {
    StepSpec {
        dtype,
        gemms: Vec::new(),
        buckets: Vec::new(),
        parameters: 0,
        memory: Bytes(0),
        audit_share: load.audit_share,
        operand_pairs: load.operand_pairs,
        seed,
        audit_seed: None,
        sweep: None,
    }
}

fn steady(load: &Load, gemm: Gemm, dtype: Dtype, seed: u64) -> StepSpec {
    StepSpec {
        gemms: vec![gemm; STEADY_MATMULS],
        ..empty(load, dtype, seed)
    }
}

/// The matmuls of transformer layers: forward; then, from the last layer to the first, the gradient of
/// the data and of the weights; buckets are ready as soon as enough weight gradients are.
///
/// Attention's own matmuls are left out: they grow with sequence length, which a profile does not name.
fn training(load: &Load, model: &Model, dtype: Dtype, seed: u64) -> StepSpec {
    let Model {
        hidden: h,
        ffn: f,
        tokens: t,
        layers,
    } = *model;
    // (inputs, outputs) of the weights: query-key-value, attention output, feed-forward up and down.
    let weights = [(h, 3 * h), (h, h), (h, f), (f, h)];
    let mut gemms: Vec<Gemm> = (0..layers)
        .flat_map(|_| weights.iter().map(|&(i, o)| Gemm::new(t, o, i)))
        .collect();
    let (mut buckets, mut pending, mut parameters) = (Vec::new(), 0_u64, 0_u64);
    for _ in 0..layers {
        for &(i, o) in weights.iter().rev() {
            gemms.push(Gemm::new(t, i, o));
            gemms.push(Gemm::new(i, o, t));
            let count = u64::from(i) * u64::from(o);
            parameters = parameters.saturating_add(count);
            pending = pending.saturating_add(count.saturating_mul(4));
            // One more than there may be is enough to refuse them.
            while pending >= load.bucket.bytes().0 && buckets.len() <= BUCKETS_MAX {
                pending -= load.bucket.bytes().0;
                buckets.push(Bucket {
                    bytes: load.bucket.bytes(),
                    after: gemms.len() as u32 - 1,
                });
            }
        }
    }
    if pending > 0 {
        buckets.push(Bucket {
            bytes: Bytes(pending),
            after: gemms.len() as u32 - 1,
        });
    }
    StepSpec {
        gemms,
        buckets,
        parameters,
        ..empty(load, dtype, seed)
    }
}

fn check(
    steps: &[StepSpec],
    load: &Load,
    devices: &[DeviceInfo],
    settings: &Settings,
) -> Result<(), PlanError> {
    for gemm in steps.iter().flat_map(|s| &s.gemms) {
        let dtype = steps[0].dtype;
        if audit::operand_range(dtype, gemm.k).is_none() {
            return Err(PlanError::NotExact {
                gemm: *gemm,
                dtype,
                k_max: audit::K_MAX,
            });
        }
    }
    let need = steps
        .iter()
        .map(|s| s.footprint().0)
        .fold(0, u64::saturating_add);
    let all = steps.iter().flat_map(|s| &s.gemms).copied();
    let largest = all
        .max_by(|a, b| a.flop().0.total_cmp(&b.flop().0))
        .unwrap_or(Gemm::new(1, 1, 1));
    let node = |index: usize| settings.hall.as_ref().and_then(|h| h.places.get(index));
    for (index, device) in devices.iter().enumerate() {
        let here = devices
            .iter()
            .enumerate()
            .filter(|(i, _)| node(*i) == node(index));
        let sharing = here.filter(|(_, d)| d.software).count().max(1) as u64;
        let free = if device.software {
            device.memory.0 / sharing
        } else {
            device.memory.0
        };
        if need > free {
            return Err(PlanError::Memory {
                device: device.id.clone(),
                free: Bytes(free),
                need: Bytes(need),
                largest,
            });
        }
    }
    if let Some(step) = steps.iter().find(|s| s.buckets.len() > BUCKETS_MAX) {
        return Err(PlanError::Buckets {
            bytes: Bytes(step.parameters.saturating_mul(4)),
            bucket: load.bucket,
        });
    }
    Ok(())
}

fn parts(phase: &Phase) -> Parts {
    let (gemms, buckets, optimizer) = match (phase.pattern, phase.mode) {
        (Pattern::Memory, _) => (false, false, false),
        (Pattern::Sweep, _) => (false, true, false),
        (Pattern::Steady | Pattern::Pulse | Pattern::Burn, _) => (true, false, false),
        (Pattern::Training, Mode::ComputeOnly) => (true, false, true),
        (Pattern::Training, Mode::CollectiveOnly) => (false, true, false),
        (Pattern::Training, Mode::Overlapped) => (true, true, true),
    };
    Parts {
        gemms,
        buckets,
        optimizer,
        memory: phase.pattern == Pattern::Memory,
        within_node: phase.reach == Reach::Node,
    }
}

fn schedule(
    profile: &Profile,
    steps: &[StepSpec],
    step_of: &[usize],
    (devices, nodes): (usize, usize),
) -> Vec<Segment> {
    let load = &profile.load;
    let main = load.main_phase();
    let main_parts = load.phases.get(main).map_or(
        Parts {
            gemms: true,
            buckets: false,
            optimizer: false,
            memory: false,
            within_node: false,
        },
        parts,
    );
    // During the ramp not all ranks are there to reduce with.
    let alone = Parts {
        buckets: false,
        ..main_parts
    };
    let main_step = step_of.get(main).copied().unwrap_or(0);
    let hold_ns = ns(load.ramp.hold.duration());
    let level = |kind: SegmentKind, share: f64| Segment {
        name: format!("ramp {:.0} %", share * 100.0),
        kind,
        step: main_step,
        parts: alone,
        duration_ns: hold_ns,
        active: ((share * devices as f64).ceil() as usize).clamp(1, devices.max(1)),
        pulse: None,
    };
    let below_full: Vec<f64> = load
        .ramp
        .levels
        .iter()
        .copied()
        .filter(|l| *l < 1.0 && hold_ns > 0)
        .collect();
    let up = below_full
        .iter()
        .map(|&share| level(SegmentKind::RampUp, share));
    let down = below_full
        .iter()
        .rev()
        .map(|&share| level(SegmentKind::RampDown, share));
    let warmup = Segment {
        name: "warm-up".to_owned(),
        kind: SegmentKind::Warmup,
        step: main_step,
        parts: main_parts,
        duration_ns: ns(load.warmup.limit.duration()),
        active: devices,
        pulse: None,
    };
    let phases = phases(load, steps, step_of, (devices, nodes));
    up.chain([warmup]).chain(phases).chain(down).collect()
}

/// The phases that have work for these devices.
fn phases(
    load: &Load,
    steps: &[StepSpec],
    step_of: &[usize],
    (devices, nodes): (usize, usize),
) -> Vec<Segment> {
    // A phase without work for these devices, such as reducing alone, is left out; what it would show is then not known.
    let works = |s: &Segment| {
        let step = &steps[s.step];
        let p = s.parts;
        (p.gemms && !step.gemms.is_empty())
            || (p.buckets && !step.buckets.is_empty())
            || (p.memory && step.memory.0 > 0)
    };
    let possible = |(i, phase): &(usize, &Phase)| {
        let swept = (phase.pattern == Pattern::Sweep) == steps[step_of[*i]].sweep.is_some();
        swept && (phase.reach == Reach::Hall || nodes > 1)
    };
    let phases = load.phases.iter().enumerate().filter(possible);
    let phases = phases.map(|(i, phase)| Segment {
        name: phase.name.clone(),
        kind: SegmentKind::Phase(i),
        step: step_of[i],
        parts: parts(phase),
        duration_ns: ns(phase.duration.duration()),
        active: devices,
        pulse: phase.pulse,
    });
    phases.filter(works).collect()
}

/// What this run cannot show, whatever happens.
fn limits(profile: &Profile, devices: &[DeviceInfo]) -> Vec<String> {
    let mut limits = Vec::new();
    if devices.len() < 2
        && profile
            .load
            .phases
            .iter()
            .any(|p| p.mode != Mode::ComputeOnly)
    {
        limits.push(
            "one device alone: nothing is all-reduced, and no device has peers to compare with"
                .to_owned(),
        );
    }
    if profile.load.fit_step.is_some() {
        limits.push(
            "the step is sized to the device, so its figures compare with no other machine"
                .to_owned(),
        );
    }
    limits
}

#[cfg(test)]
mod tests;
