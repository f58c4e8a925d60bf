//! Profiles: what to run, what to measure beside it and what must be shown, as one TOML file.
//!
//! A profile is data. Its digest is the SHA-256 of its text, fixed before a run starts.

use crate::criterion::Criterion;
use crate::error::ProfileError;
use crate::inventory::Inventory;
use crate::metric::Metric;
use crate::quantity::{Quantity, Size, Time, TimeOrZero};
use crate::units::Bytes;
use crate::workload::{Dtype, Gemm};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The version of the profile format that this build reads.
pub const SCHEMA_VERSION: u32 = 1;

/// The profiles that come with hallmark: name and text.
pub const BUILT_IN: [(&str, &str); 6] = [
    ("smoke", include_str!("../library/smoke.toml")),
    ("burn-in", include_str!("../library/burn-in.toml")),
    ("soak", include_str!("../library/soak.toml")),
    (
        "hall-acceptance",
        include_str!("../library/hall-acceptance.toml"),
    ),
    (
        "vendor-compare",
        include_str!("../library/vendor-compare.toml"),
    ),
    ("burn", include_str!("../library/burn.toml")),
];

/// A profile, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Version of this format; 1.
    pub schema_version: u32,
    /// Lower-case letters, digits and hyphens.
    pub name: String,
    /// One sentence: what this profile is for.
    pub summary: String,
    /// Whether ACCEPTED by this profile accepts a site.
    #[serde(default)]
    pub accepts_site: bool,
    /// The seed of operands and dither; `--seed` overrides it. What is audited is drawn anew for each run.
    #[serde(default)]
    pub seed: u64,
    /// The devices that the site is declared to have; a profile that accepts a site needs it, or `--expect-devices`.
    #[serde(default)]
    pub inventory: Option<Inventory>,
    pub load: Load,
    pub telemetry: Telemetry,
    #[serde(default, rename = "criterion")]
    pub criteria: Vec<Criterion>,
}

/// The work and its course in time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Element types in order of preference; the first that every device of the run has is used for all.
    pub dtype: Vec<Dtype>,
    /// The transformer whose matmuls a training step runs.
    #[serde(default)]
    pub model: Option<Model>,
    /// The matmul of `steady` and `pulse` phases.
    #[serde(default)]
    pub matmul: Option<Gemm>,
    /// Size of each array of a `memory` phase's copy and triad.
    #[serde(default)]
    pub memory: Option<Size>,
    /// Test nearly all free memory of each device by patterns before the load; a device without such a test, or on which
    /// it did not come to its end, leaves the run inconclusive, and a wrong word is a wrong result.
    #[serde(default)]
    pub memory_test: bool,
    /// Scale model and matmul, in powers of two, so that one step takes about this long on the slowest device.
    /// Such a run compares with nothing but itself.
    #[serde(default)]
    pub fit_step: Option<Time>,
    /// Gradient bucket, e.g. "25 MiB"; the last one of a step holds the rest.
    pub bucket: Size,
    /// Steps kept queued on each device.
    #[serde(default = "Load::default_queue_depth")]
    #[schemars(range(min = 2, max = 4))]
    pub queue_depth: u32,
    /// Operand pairs that matmuls rotate over.
    #[serde(default = "Load::default_operand_pairs")]
    #[schemars(range(min = 16, max = 1024))]
    pub operand_pairs: u32,
    /// Share of matmuls whose result is audited.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub audit_share: f64,
    /// Allows steps of the whole load at once; without it the load moves by the ramp's groups only.
    #[serde(default)]
    pub transients: bool,
    pub ramp: Ramp,
    pub warmup: Warmup,
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
    #[serde(default)]
    pub stop_when: StopWhen,
}

impl Load {
    const fn default_queue_depth() -> u32 {
        3
    }

    const fn default_operand_pairs() -> u32 {
        16
    }

    /// The phase that criteria judge by default: the longest one, the first of equals.
    pub fn main_phase(&self) -> usize {
        let longest = self.phases.iter().map(|p| p.duration.duration()).max();
        self.phases
            .iter()
            .position(|p| Some(p.duration.duration()) == longest)
            .unwrap_or(0)
    }

    /// Index of the phase in which each node does the whole training step by itself.
    pub fn by_node(&self) -> Option<usize> {
        let by_node = |p: &Phase| p.reach == Reach::Node && p.mode == Mode::Overlapped;
        self.phases.iter().position(by_node)
    }
}

/// Dimensions of the transformer layers of one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Width of the residual stream.
    #[schemars(range(min = 1))]
    pub hidden: u32,
    /// Width of the feed-forward layer.
    #[schemars(range(min = 1))]
    pub ffn: u32,
    /// Tokens of one rank's batch in one step.
    #[schemars(range(min = 1))]
    pub tokens: u32,
    #[schemars(range(min = 1))]
    pub layers: u32,
}

/// How the load rises and falls: shares of the devices, each held for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// Rising shares of the devices, the last one 1.
    pub levels: Vec<f64>,
    /// Time on each level but the last.
    pub hold: TimeOrZero,
}

/// When the warm-up ends: as soon as rate and temperature are steady.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Warmup {
    pub least: Time,
    /// Not steady by then: the run goes on, and its verdict is inconclusive.
    pub limit: Time,
    /// Rate and temperature are compared over this stretch.
    pub window: Time,
    /// Largest relative change of the rate between the window's halves.
    pub rate_tolerance: f64,
    /// Largest change of core temperature a minute.
    pub temperature_tolerance: Quantity,
}

/// What a phase's steps are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// Matmuls back to back.
    Steady,
    /// Forward, backward, all-reduce in buckets, optimizer.
    Training,
    /// Square wave of load; open loop.
    Pulse,
    /// Device copy and triad.
    Memory,
    /// The matmuls that draw most: as large as fit, back to back. Shapes are the harness' choice, clocks and limits
    /// stay as they are.
    Burn,
    /// All-reduces of one size after the other, from 8 B on, doubling, each checked exactly: the group by itself.
    Sweep,
}

/// Which parts of a training step run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    ComputeOnly,
    CollectiveOnly,
    /// Everything, the all-reduce beside the rest of the backward pass.
    #[default]
    Overlapped,
}

/// How far the gradients of a training step are summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Each node sums by itself, all nodes at the same time: what `scaling_efficiency` compares with. Where there is one
    /// node only, the phase is left out.
    Node,
    #[default]
    Hall,
}

/// A stretch of the run with one kind of load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    pub name: String,
    pub pattern: Pattern,
    #[serde(default)]
    pub mode: Mode,
    /// Only for `training`.
    #[serde(default)]
    pub reach: Reach,
    pub duration: Time,
    /// Only for `pulse`.
    #[serde(default)]
    pub pulse: Option<Pulse>,
    /// Only for `sweep`.
    #[serde(default)]
    pub sweep: Option<Sweep>,
}

/// The sizes of a sweep, and how often each is all-reduced. The sweep begins anew until the phase is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// The last size, a power of two; where memory does not allow it, the sweep ends earlier and says so.
    pub largest: Size,
    /// Operations of each size that count, out of place and in place each.
    #[schemars(range(min = 1, max = 10_000))]
    pub iterations: u32,
    /// Operations before them that are recorded and do not count.
    #[schemars(range(min = 1, max = 1_000))]
    pub warm_up: u32,
}

impl Sweep {
    /// The first size.
    pub const SMALLEST: Bytes = Bytes(8);
    /// The largest last size.
    pub const LARGEST: Bytes = Bytes::gibibytes(16);

    /// The sizes up to `largest`, doubling.
    pub fn sizes(largest: Bytes) -> impl Iterator<Item = Bytes> {
        let doubled = |size: &Bytes| size.0.checked_mul(2).map(Bytes);
        std::iter::successors(Some(Self::SMALLEST), doubled).take_while(move |s| *s <= largest)
    }
}

/// A square wave of load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pulse {
    pub frequency: Quantity,
    /// Share of each period under full load, 0 to 1 exclusive.
    pub duty: f64,
    /// How far the load falls in the rest of the period: 1 is idle.
    pub depth: f64,
}

/// Limits that end a run in good order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopWhen {
    #[serde(default)]
    pub temp_core_above: Option<Quantity>,
    #[serde(default)]
    pub power_draw_above: Option<Quantity>,
    /// A sensor that was there has been silent for this long.
    #[serde(default)]
    pub sensor_lost_for: Option<Time>,
}

/// What is sampled beside the load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Mean distance of samples; it is dithered by ±10 % so that no load can lock to it.
    pub period: Time,
    /// Length of the blocks that rates are judged in.
    pub block: Time,
    /// Sensor metrics that must be there. A declared metric without a series is inconclusive.
    #[serde(default)]
    pub metrics: Vec<Metric>,
}

/// A profile with the text it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub profile: Profile,
    /// The file, or the built-in profile's name.
    pub origin: String,
    pub text: String,
}

impl Loaded {
    /// SHA-256 of the text, in hexadecimal.
    pub fn digest(&self) -> String {
        digest(&self.text)
    }
}

/// SHA-256 of a profile's text, in hexadecimal.
pub fn digest(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// Finds a built-in profile by name, or reads a file: a name with a `/` or ending in `.toml`.
///
/// # Errors
/// [`ProfileError`], with file and line where there is one.
pub fn load(name: &str) -> Result<Loaded, ProfileError> {
    if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
        return parse(text, name);
    }
    if !name.contains('/') && !name.ends_with(".toml") {
        let known = BUILT_IN.map(|(known, _)| known).join(", ");
        return Err(ProfileError::Unknown {
            name: name.to_owned(),
            known,
        });
    }
    let text = std::fs::read_to_string(name).map_err(|e| ProfileError::Unreadable {
        file: name.to_owned(),
        why: e.to_string(),
    })?;
    parse(&text, name)
}

/// Reads and checks a profile's text; `origin` names it in errors.
///
/// # Errors
/// [`ProfileError::Syntax`] and [`ProfileError::Undeclared`].
pub fn parse(text: &str, origin: &str) -> Result<Loaded, ProfileError> {
    let loaded = read(text, origin)?;
    crate::check::accepts(&loaded.profile, text, origin)?;
    crate::check::believable(&loaded.profile, text, origin)?;
    Ok(loaded)
}

/// As [`parse`], for the profile of a record: one that lacks what accepting a site rests on is read, and accepts none.
///
/// # Errors
/// As [`parse`].
pub fn recall(text: &str, origin: &str) -> Result<Loaded, ProfileError> {
    let mut loaded = read(text, origin)?;
    loaded.profile.accepts_site &= crate::check::acceptance::fault(&loaded.profile).is_none()
        && crate::check::believable(&loaded.profile, text, origin).is_ok();
    Ok(loaded)
}

/// The name of the built-in profile that this one is called by without being it.
pub fn namesake(loaded: &Loaded) -> Option<(&'static str, String)> {
    let (name, text) = BUILT_IN
        .iter()
        .find(|(name, _)| *name == loaded.profile.name)?;
    (loaded.text != *text).then(|| (*name, digest(text)))
}

fn read(text: &str, origin: &str) -> Result<Loaded, ProfileError> {
    let profile: Profile = toml::from_str(text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start);
        let line = line_at(text, at);
        ProfileError::Syntax {
            file: origin.to_owned(),
            line,
            what: plainly(e.message(), text.lines().nth(line - 1).unwrap_or_default()),
        }
    })?;
    crate::check::check(&profile, text, origin)?;
    Ok(Loaded {
        profile,
        origin: origin.to_owned(),
        text: text.to_owned(),
    })
}

/// A parser's message as one line of visible text, in the words of all other refusals: what is unknown, what is known.
pub fn plainly(message: &str, line: &str) -> String {
    let visible = message.replace('\n', " ");
    let message: String = visible.chars().filter(|c| !c.is_control()).collect();
    // The line names what the value was to be: `dtype = ["f31"]`.
    let key = line.split('=').next().unwrap_or_default().trim();
    let is_key = |b: u8| b.is_ascii_lowercase() || b == b'_';
    let of = if line.contains('=') && key.bytes().all(is_key) {
        key
    } else {
        "value"
    };
    let said = message
        .replacen("unknown variant ", &format!("unknown {of} "), 1)
        .replacen("unknown field ", "unknown key ", 1);
    if said == message {
        return message;
    }
    said.replacen(", expected one of ", "; known: ", 1)
        .replacen(", expected ", "; known: ", 1)
}

/// The 1-based line of a byte offset.
pub fn line_at(text: &str, offset: usize) -> usize {
    let head = text.as_bytes().get(..offset).unwrap_or_default();
    1 + head.iter().filter(|b| **b == b'\n').count()
}

/// The JSON Schema of profiles, for editors.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smoke_with(from: &str, to: &str) -> String {
        let text = BUILT_IN[0].1;
        assert!(text.contains(from), "{from}");
        parse(&text.replacen(from, to, 1), "my.toml")
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn every_built_in_profile_is_sound_and_bears_its_own_name() {
        for (name, _) in BUILT_IN {
            let loaded = load(name).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(loaded.profile.name, name);
            assert!(!loaded.profile.criteria.is_empty());
        }
    }

    #[test]
    fn only_hall_acceptance_accepts_a_site() {
        let accepting: Vec<_> = BUILT_IN
            .iter()
            .filter(|(name, _)| load(name).unwrap().profile.accepts_site)
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(accepting, ["hall-acceptance"]);
    }

    #[test]
    fn an_unknown_profile_lists_the_known_ones() {
        let error = load("smok").unwrap_err().to_string();
        assert!(
            error.contains("smoke, burn-in, soak, hall-acceptance, vendor-compare, burn"),
            "{error}"
        );
    }

    #[test]
    fn bad_input_gets_one_line_with_file_line_and_what_is_known() {
        let cases = [
            (
                "metric = \"duty\"",
                "metric = \"dutty\"",
                "known: matmul_rate",
            ),
            (
                "at_least = \"5 %\"",
                "at_least = \"5 parsecs\"",
                "unknown unit `parsecs`",
            ),
            (
                "dtype = [\"f32\"]",
                "dtype = [\"f31\"]",
                "unknown dtype `f31`; known: `f64`, `f32`",
            ),
            (
                "scope = \"gpu\"",
                "scope = \"gpus\"",
                "unknown scope `gpus`; known: `gpu`",
            ),
            ("duration = \"6 s\"", "duration = \"0 s\"", ""),
            ("duration = \"6 s\"", "duration = \"-8 s\"", ""),
            (
                "statistic = \"p95\"",
                "statistic = \"p195\"",
                "known: median",
            ),
            (
                "metric = \"duty\"",
                "metric = \"rack_density\"",
                "which this profile never measures; it measures: matmul_rate",
            ),
            ("seed = 20260301", "sede = 1", "unknown key `sede`; known: "),
            (
                "metric = \"duty\"",
                "metric = \"kernel_rate\"",
                "kernel_rate is never judged: it hides every stall",
            ),
            (
                "hidden = 512",
                "hidden = 4000000000",
                "above the most there may be",
            ),
            (
                "layers = 2",
                "layers = 4000000000",
                "more than there may be",
            ),
            ("queue_depth = 3", "queue_depth = 9", "must be 2 to 4"),
            ("hidden = 512", "hidden = 0", "at least 1"),
            (
                "pattern = \"memory\"",
                "pattern = \"pulse\"",
                "needs a [load.matmul]",
            ),
            ("levels = [0.5, 1.0]", "levels = [1.0]", "transients"),
            (
                "at_most = \"2 %\"",
                "at_most = \"2 kW\"",
                "not in the unit of idle_gap",
            ),
            ("at_most = \"2 %\"", "", "has no limit"),
        ];
        for (from, to, wanted) in cases {
            let error = smoke_with(from, to);
            assert!(error.starts_with("my.toml:"), "{error}");
            assert!(error.contains(wanted), "{to}: {error}");
            assert!(!error.contains('\n'), "{error}");
            let line: usize = error.split(':').nth(1).unwrap().parse().unwrap();
            assert!(line > 0, "{error}");
        }
    }

    #[test]
    fn the_error_points_at_the_line_of_the_mistake() {
        let error = smoke_with("metric = \"duty\"", "metric = \"dutty\"");
        let line: usize = error.split(':').nth(1).unwrap().parse().unwrap();
        let text = BUILT_IN[0].1;
        let at = text.lines().nth(line - 1).unwrap();
        assert!(at.contains("duty"), "{error}: {at}");
    }

    #[test]
    fn a_key_of_an_inline_table_is_found_on_its_line() {
        let error = smoke_with("hidden = 512", "hidden = 4000000000");
        let line: usize = error.split(':').nth(1).unwrap().parse().unwrap();
        let at = BUILT_IN[0].1.lines().nth(line - 1).unwrap();
        assert!(at.starts_with("model = { hidden"), "{error}: {at}");
    }

    #[test]
    fn the_committed_schema_is_the_generated_one() {
        let committed = include_str!("../schema/profile.schema.json");
        let generated = serde_json::to_string_pretty(&schema()).unwrap();
        assert_eq!(
            committed.trim(),
            generated.trim(),
            "run `hallmark profiles schema > profiles/schema/profile.schema.json`"
        );
    }
}
