//! What a profile must satisfy beyond its types: ranges, names, and criteria that can be measured.

pub mod acceptance;
mod datasheet;
mod scope;
mod statistic;

pub use statistic::{Form, form};

use crate::criterion::{Criterion, Reference, Statistic};
use crate::error::ProfileError;
use crate::metric::Metric;
use crate::profile::{Load, Mode, Pattern, Phase, Profile, Reach, SCHEMA_VERSION, Sweep};
use crate::units::Unit;

/// Metrics that the load and the run itself produce, whatever the sensors.
pub const FROM_LOAD: [Metric; 28] = [
    Metric::MatmulRate,
    Metric::KernelRate,
    Metric::MatmulEfficiency,
    Metric::SustainRatio,
    Metric::Drift,
    Metric::StepTime,
    Metric::StepSkew,
    Metric::ExposedComm,
    Metric::ScalingEfficiency,
    Metric::IdleGap,
    Metric::AllreduceAlgbw,
    Metric::AllreduceBusbw,
    Metric::AllreduceLatency,
    Metric::HbmRate,
    Metric::AuditErrors,
    Metric::AuditExposure,
    Metric::AuditShare,
    Metric::SdcUcl,
    Metric::TelemetryCoverage,
    Metric::TelemetryAge,
    Metric::TelemetryGap,
    Metric::ClockOffset,
    Metric::Duty,
    Metric::StepsCompleted,
    Metric::Inventory,
    Metric::Failures,
    Metric::SelfTest,
    Metric::FlopPerJoule,
];

/// Metrics that may be looked at and are never judged, and why.
const NEVER_JUDGED: [(Metric, &str); 1] = [(
    Metric::KernelRate,
    "it hides every stall between matmuls; judge matmul_rate, which counts them",
)];

/// Largest dimension of a model or a matmul: beyond it no device is meant, and products of two dimensions stay far
/// from the end of 64 bits.
const DIMENSION_MAX: u32 = 1 << 20;
/// Most layers of one rank.
const LAYERS_MAX: u32 = 4_096;

/// Where the n-th line that opens `[[table]]` is; line 1 if there is none.
fn line_of(text: &str, header: &str, nth: usize) -> usize {
    let mut lines = text.lines().enumerate().filter(|(_, l)| l.trim() == header);
    lines.nth(nth).map_or(1, |(i, _)| i + 1)
}

/// Where a key first stands: at the start of a line, or within an inline table.
fn line_of_key(text: &str, key: &str) -> usize {
    let stands = |line: &str| {
        line.match_indices(key).any(|(at, _)| {
            let before = line[..at].trim_end();
            let alone = before.is_empty() || before.ends_with(['{', ',']);
            alone && line[at + key.len()..].trim_start().starts_with('=')
        })
    };
    text.lines().position(stands).map_or(1, |i| i + 1)
}

struct Checker<'a> {
    text: &'a str,
    origin: &'a str,
}

impl Checker<'_> {
    fn require(
        &self,
        holds: bool,
        line: usize,
        what: impl FnOnce() -> String,
    ) -> Result<(), ProfileError> {
        if holds {
            return Ok(());
        }
        Err(ProfileError::Syntax {
            file: self.origin.to_owned(),
            line,
            what: what(),
        })
    }

    fn key(
        &self,
        holds: bool,
        key: &str,
        what: impl FnOnce() -> String,
    ) -> Result<(), ProfileError> {
        self.require(holds, line_of_key(self.text, key), what)
    }
}

/// Checks a parsed profile against its own rules.
///
/// # Errors
/// [`ProfileError::Syntax`] with the line of the offending key or table, or [`ProfileError::Undeclared`].
pub fn check(profile: &Profile, text: &str, origin: &str) -> Result<(), ProfileError> {
    let c = Checker { text, origin };
    let version = profile.schema_version;
    c.key(version == SCHEMA_VERSION, "schema_version", || {
        format!("schema_version {version} is not known; this build reads {SCHEMA_VERSION}")
    })?;
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let name_ok =
        !profile.name.is_empty() && profile.name.len() <= 64 && profile.name.bytes().all(legal);
    c.key(name_ok, "name", || {
        format!(
            "name `{}` must be 1 to 64 lower-case letters, digits or hyphens",
            profile.name
        )
    })?;
    if let Some((key, what)) = profile.inventory.as_ref().and_then(|i| i.fault()) {
        c.key(false, key, || format!("[inventory]: {what}"))?;
    }
    load(&c, &profile.load)?;
    for (i, phase) in profile.load.phases.iter().enumerate() {
        let line = line_of(text, "[[load.phase]]", i);
        self::phase(&c, &profile.load, phase, line)?;
        let first = profile
            .load
            .phases
            .iter()
            .position(|p| p.name == phase.name);
        c.require(first == Some(i), line, || {
            format!("phase `{}` stands twice", phase.name)
        })?;
    }
    for (i, criterion) in profile.criteria.iter().enumerate() {
        let line = line_of(text, "[[criterion]]", i);
        self::criterion(&c, profile, criterion, line)?;
        let first = profile
            .criteria
            .iter()
            .position(|p| p.name == criterion.name);
        c.require(first == Some(i), line, || {
            format!("criterion `{}` stands twice", criterion.name)
        })?;
    }
    Ok(())
}

/// Checks that a profile which accepts a site judges what accepting one rests on.
///
/// # Errors
/// [`ProfileError::Syntax`] at `accepts_site`, with all that is missing.
pub fn accepts(profile: &Profile, text: &str, origin: &str) -> Result<(), ProfileError> {
    let fault = acceptance::fault(profile);
    let c = Checker { text, origin };
    c.key(fault.is_none(), "accepts_site", || {
        fault.unwrap_or_default()
    })
}

/// Checks that least rates can be meant, held against what the declared model is sold as.
///
/// # Errors
/// [`ProfileError::Syntax`] at the first criterion that cannot.
pub fn believable(profile: &Profile, text: &str, origin: &str) -> Result<(), ProfileError> {
    let c = Checker { text, origin };
    let faults = profile.criteria.iter().enumerate();
    let mut faults = faults.filter_map(|(i, k)| Some((i, datasheet::fault(profile, k)?)));
    faults.next().map_or(Ok(()), |(i, what)| {
        c.require(false, line_of(text, "[[criterion]]", i), || what)
    })
}

fn load(c: &Checker, load: &Load) -> Result<(), ProfileError> {
    c.key(!load.dtype.is_empty(), "dtype", || {
        "dtype needs at least one element type".to_owned()
    })?;
    c.key((2..=4).contains(&load.queue_depth), "queue_depth", || {
        format!("queue_depth {} must be 2 to 4", load.queue_depth)
    })?;
    c.key(
        (16..=1024).contains(&load.operand_pairs),
        "operand_pairs",
        || format!("operand_pairs {} must be 16 to 1024", load.operand_pairs),
    )?;
    c.key(
        (0.0..=1.0).contains(&load.audit_share),
        "audit_share",
        || format!("audit_share {} must be 0 to 1", load.audit_share),
    )?;
    let bucket = load.bucket.bytes().0;
    c.key(bucket.is_multiple_of(4) && bucket > 0, "bucket", || {
        format!(
            "bucket of {} is not a whole number of f32 elements",
            load.bucket
        )
    })?;
    c.key(!load.phases.is_empty(), "[load]", || {
        "the load has no phase; add a [[load.phase]]".to_owned()
    })?;
    main_phase(c, load)?;
    let levels = &load.ramp.levels;
    let rising = levels.windows(2).all(|w| w[0] < w[1]) && levels.first().is_some_and(|l| *l > 0.0);
    let full = levels.last().is_some_and(|l| (l - 1.0).abs() < 1e-9);
    c.key(rising && full, "levels", || {
        "ramp levels must rise from above 0 to 1, e.g. [0.25, 0.5, 0.75, 1.0]".to_owned()
    })?;
    c.key(levels.len() > 1 || load.transients, "levels", || {
        "a step start of the whole load needs `transients = true`".to_owned()
    })?;
    warmup(c, load)?;
    if let Some(model) = load.model {
        let least = model
            .hidden
            .min(model.ffn)
            .min(model.tokens)
            .min(model.layers);
        c.key(least > 0, "hidden", || {
            "model dimensions must be at least 1".to_owned()
        })?;
        let most = model.hidden.max(model.ffn).max(model.tokens);
        c.key(most <= DIMENSION_MAX, "hidden", || {
            format!("model dimension {most} is above the most there may be, {DIMENSION_MAX}")
        })?;
        c.key(model.layers <= LAYERS_MAX, "layers", || {
            format!(
                "{} layers are more than there may be on one rank, {LAYERS_MAX}",
                model.layers
            )
        })?;
    }
    if let Some(g) = load.matmul {
        c.key(g.m.min(g.n).min(g.k) > 0, "matmul", || {
            format!("matmul {g} has a zero dimension")
        })?;
        c.key(g.m.max(g.n).max(g.k) <= DIMENSION_MAX, "matmul", || {
            format!("matmul {g} has a dimension above the most there may be, {DIMENSION_MAX}")
        })?;
    }
    let stop = &load.stop_when;
    let celsius = stop.temp_core_above.is_none_or(|q| q.unit == Unit::Celsius);
    c.key(celsius, "temp_core_above", || {
        "temp_core_above must be in °C".to_owned()
    })?;
    let watt = stop.power_draw_above.is_none_or(|q| q.unit == Unit::Watt);
    c.key(watt, "power_draw_above", || {
        "power_draw_above must be in W".to_owned()
    })
}

/// The rules by which the fold that ends the warm-up takes its parameters: one it refuses would leave a run without
/// evidence of its warm-up. A test holds the two together.
fn main_phase(c: &Checker, load: &Load) -> Result<(), ProfileError> {
    let main = load.phases.get(load.main_phase());
    let warms = main.is_none_or(|p| p.pattern != Pattern::Sweep);
    c.key(warms, "sweep", || {
        "the longest phase is a sweep, which warms no device up; make another one longer".to_owned()
    })?;
    let together = main.is_none_or(|p| p.reach == Reach::Hall);
    c.key(together, "reach", || {
        "in the longest phase each node is by itself; make one longer in which the hall works together"
            .to_owned()
    })
}

fn warmup(c: &Checker, load: &Load) -> Result<(), ProfileError> {
    /// Parts that the fold divides its window into.
    const PARTS: u128 = 48;
    let w = &load.warmup;
    let window_ns = w.window.duration().as_nanos();
    c.key(window_ns >= PARTS, "window", || {
        format!(
            "warm-up window {} cannot be divided in {PARTS}; give seconds",
            w.window
        )
    })?;
    let needed_ns = window_ns + window_ns / 4;
    c.key(w.limit.duration().as_nanos() >= needed_ns, "limit", || {
        format!(
            "warm-up limit {} is below five quarters of its window {}, which evidence needs; raise the limit or \
             shorten the window",
            w.limit, w.window
        )
    })?;
    c.key(w.least <= w.limit, "limit", || {
        format!(
            "warm-up limit {} is below its least time {}",
            w.limit, w.least
        )
    })?;
    c.key(
        w.rate_tolerance > 0.0 && w.rate_tolerance < 1.0,
        "rate_tolerance",
        || {
            format!(
                "rate_tolerance {} must be between 0 and 1",
                w.rate_tolerance
            )
        },
    )?;
    c.key(
        w.temperature_tolerance.unit == Unit::Kelvin,
        "temperature_tolerance",
        || {
            format!(
                "temperature_tolerance is in {}, not K",
                w.temperature_tolerance.unit
            )
        },
    )?;
    let tolerance = w.temperature_tolerance;
    c.key(tolerance.value >= 0.0, "temperature_tolerance", || {
        format!("temperature_tolerance {tolerance} must not be negative")
    })
}

fn phase(c: &Checker, load: &Load, phase: &Phase, line: usize) -> Result<(), ProfileError> {
    let name = &phase.name;
    let needs = |what: &str| format!("phase `{name}` needs {what}");
    match phase.pattern {
        Pattern::Training => {
            c.require(load.model.is_some(), line, || needs("a [load.model]"))?;
        }
        Pattern::Steady => {
            c.require(load.matmul.is_some(), line, || needs("a [load.matmul]"))?;
        }
        Pattern::Memory => {
            c.require(load.memory.is_some(), line, || needs("`memory` in [load]"))?;
        }
        Pattern::Burn => {}
        Pattern::Sweep => sweep(c, phase, line)?,
        Pattern::Pulse => {
            c.require(load.matmul.is_some(), line, || needs("a [load.matmul]"))?;
            c.require(load.transients, line, || {
                needs("`transients = true`: it steps the whole load")
            })?;
            let Some(pulse) = phase.pulse else {
                return c.require(false, line, || needs("pulse = { frequency, duty, depth }"));
            };
            let hertz = pulse.frequency.unit == Unit::Hertz && pulse.frequency.value > 0.0;
            c.require(hertz, line, || needs("a frequency above 0 Hz"))?;
            c.require(pulse.duty > 0.0 && pulse.duty < 1.0, line, || {
                needs("a duty between 0 and 1")
            })?;
            c.require(pulse.depth > 0.0 && pulse.depth <= 1.0, line, || {
                needs("a depth above 0, up to 1")
            })?;
        }
    }
    let pulse_only = phase.pulse.is_none() || phase.pattern == Pattern::Pulse;
    c.require(pulse_only, line, || {
        format!("phase `{name}` is no pulse, yet has `pulse`")
    })?;
    let sweep_only = phase.sweep.is_none() || phase.pattern == Pattern::Sweep;
    c.require(sweep_only, line, || {
        format!("phase `{name}` is no sweep, yet has `sweep`")
    })?;
    let mode_only = phase.mode == Mode::Overlapped || phase.pattern == Pattern::Training;
    c.require(mode_only, line, || {
        format!("phase `{name}`: `mode` is for training phases only")
    })?;
    let sums = phase.pattern == Pattern::Training && phase.mode != Mode::ComputeOnly;
    c.require(phase.reach == Reach::Hall || sums, line, || {
        format!("phase `{name}` sums nothing, so its sums have no `reach`")
    })
}

/// Whether a criterion compares with a phase that the profile does not have.
fn without_nodes(profile: &Profile, criterion: &Criterion) -> Option<String> {
    let known = profile.load.by_node().is_some();
    (criterion.metric == Metric::ScalingEfficiency && !known).then(|| {
        format!(
            "criterion `{}` compares with nodes by themselves; add a training phase with reach = \"node\"",
            criterion.name
        )
    })
}

fn sweep(c: &Checker, phase: &Phase, line: usize) -> Result<(), ProfileError> {
    let needs = |what: String| format!("phase `{}` needs {what}", phase.name);
    let Some(sweep) = phase.sweep else {
        let all = "sweep = { largest, iterations, warm_up }";
        return c.require(false, line, || needs(all.to_owned()));
    };
    let largest = sweep.largest.bytes();
    let known = Sweep::SMALLEST..=Sweep::LARGEST;
    c.require(
        known.contains(&largest) && largest.0.is_power_of_two(),
        line,
        || {
            needs(format!(
                "a `largest` that is a power of two from {} to {}, not {}",
                Sweep::SMALLEST,
                Sweep::LARGEST,
                sweep.largest
            ))
        },
    )?;
    let count = |key: &str, value: u32, most: u32| {
        c.require((1..=most).contains(&value), line, || {
            needs(format!("`{key}` from 1 to {most}, not {value}"))
        })
    };
    count("iterations", sweep.iterations, 10_000)?;
    count("warm_up", sweep.warm_up, 1_000)
}

fn criterion(
    c: &Checker,
    profile: &Profile,
    criterion: &Criterion,
    line: usize,
) -> Result<(), ProfileError> {
    let name = &criterion.name;
    let metric = criterion.metric;
    let declared = &profile.telemetry.metrics;
    let refused = NEVER_JUDGED.iter().find(|(never, _)| *never == metric);
    c.require(refused.is_none(), line, || {
        let why = refused.map_or("", |(_, why)| why);
        format!("criterion `{name}`: {metric} is never judged: {why}")
    })?;
    if !FROM_LOAD.contains(&metric) && !declared.contains(&metric) {
        let judged = |m: &&Metric| NEVER_JUDGED.iter().all(|(never, _)| never != *m);
        let known = FROM_LOAD.iter().chain(declared).filter(judged);
        let known = known.map(ToString::to_string);
        return Err(ProfileError::Undeclared {
            file: c.origin.to_owned(),
            line,
            criterion: name.clone(),
            metric,
            known: known.collect::<Vec<_>>().join(", "),
        });
    }
    let limits = [criterion.at_least, criterion.at_most];
    c.require(limits.iter().any(Option::is_some), line, || {
        format!("criterion `{name}` has no limit; give at_least or at_most")
    })?;
    let faults = [statistic::fault(criterion), scope::fault(criterion)];
    let compared = without_nodes(profile, criterion);
    for what in faults.into_iter().chain([compared]).flatten() {
        c.require(false, line, || what)?;
    }
    let enforced = Metric::PowerLimit;
    let told = criterion.relative_to != Reference::PowerLimit || declared.contains(&enforced);
    c.require(told, line, || {
        format!("criterion `{name}` compares with {enforced}, which no sensor is asked for; declare it in [telemetry]")
    })?;
    let relative = criterion.relative_to != Reference::Absolute;
    let unit = match criterion.statistic {
        _ if relative => Unit::One,
        Statistic::Slope => Unit::PercentPerDay,
        Statistic::Variation => Unit::One,
        Statistic::Spread => metric.spec().unit.difference(),
        _ => metric.spec().unit,
    };
    for limit in limits.into_iter().flatten() {
        let same = limit.unit == unit
            || (limit.unit == Unit::Percent && unit == Unit::One)
            || (limit.unit == Unit::One && unit == Unit::Count);
        c.require(same, line, || {
            format!(
                "criterion `{name}`: the limit {limit} is not in the unit of {metric}, {}",
                unit_name(unit)
            )
        })?;
    }
    let share = criterion.allowed_share;
    c.require((0.0..=1.0).contains(&share), line, || {
        format!("criterion `{name}`: allowed_share {share} must be 0 to 1")
    })?;
    if let Some(wanted) = &criterion.phase {
        let known: Vec<_> = profile
            .load
            .phases
            .iter()
            .map(|p| p.name.as_str())
            .collect();
        c.require(known.contains(&wanted.as_str()), line, || {
            format!(
                "criterion `{name}`: unknown phase `{wanted}`; this profile has: {}",
                known.join(", ")
            )
        })?;
    }
    Ok(())
}

fn unit_name(unit: Unit) -> String {
    match unit {
        Unit::One => "a plain number or %".to_owned(),
        other => other.to_string(),
    }
}
