//! The tables of mutants (`tests/mutants`): small mistakes in the judge that the tests must notice.
//!
//! It decides what a table must hold and which kinds of criterion there are; trying the mutants is `tests/mutants/run`'s.

use hallmark_profiles::check::{FROM_LOAD, Form, form};
use hallmark_profiles::criterion::{Reference, Statistic};
use hallmark_profiles::metric::Metric;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Kinds that are of no criterion in particular.
const OTHERS: [&str; 8] = [
    "record seal",
    "record journal",
    "verdict",
    "diagnosis",
    "settings",
    "stats",
    "standing",
    "profile",
];

/// One mistake.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutant {
    pub name: String,
    pub kinds: Vec<String>,
    pub file: String,
    pub old: String,
    pub new: String,
    /// Package folder, `lib` or the test binary, part of a test's name.
    pub tests: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mutant: Vec<Mutant>,
}

/// All mutants below the root of the repository.
///
/// # Panics
/// A table cannot be read.
#[must_use]
pub fn all(root: &Path) -> Vec<Mutant> {
    let mut paths = files(&root.join("tests/mutants"), "toml");
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("a table");
        let file: File =
            toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        file.mutant
    };
    paths.iter().flat_map(read).collect()
}

/// Every file with this ending in a folder and those below it.
#[must_use]
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let below = |path: PathBuf| match path.is_dir() {
        true => files(&path, ending),
        false => vec![path],
    };
    let found = entries.flatten().flat_map(|e| below(e.path()));
    let ends = |p: &PathBuf| p.extension().is_some_and(|e| e == ending);
    found.filter(ends).collect()
}

/// Kinds that need a mutant each: what the load gives, metric by metric; what sensors give, by its form; the
/// statistics and references of criteria; the record.
#[must_use]
pub fn needed() -> BTreeSet<String> {
    let of_metric = |m: &Metric| match FROM_LOAD.contains(m) {
        true => m.id().to_owned(),
        false => of_series(form(*m)).to_owned(),
    };
    let metrics = Metric::ALL.iter().map(of_metric);
    let statistics = STATISTICS.map(|s| format!("statistic {}", of_statistic(s)));
    let references = REFERENCES.map(|r| format!("reference {}", of_reference(r)));
    let others = OTHERS.map(str::to_owned);
    let all = metrics.chain(statistics).chain(references).chain(others);
    all.collect()
}

/// Whether a kind is one that a mutant can be of.
#[must_use]
pub fn is_known(kind: &str) -> bool {
    needed().contains(kind) || kind.parse::<Metric>().is_ok()
}

/// Metrics of sensors that are judged alike; those of the load have kinds of their own.
const fn of_series(form: Form) -> &'static str {
    match form {
        Form::Share => "series share",
        Form::Growth => "series growth",
        Form::GrowthAndStates => "series states",
        Form::Values | Form::Blocks | Form::Figure | Form::Lowest | Form::Highest => {
            "series values"
        }
    }
}

/// A new statistic does not compile in [`of_statistic`] before it has a line there; it needs one here too.
const STATISTICS: [Statistic; 8] = [
    Statistic::Quantile(0.5),
    Statistic::Mean,
    Statistic::Max,
    Statistic::Min,
    Statistic::Slope,
    Statistic::Variation,
    Statistic::Spread,
    Statistic::Total,
];

const fn of_statistic(statistic: Statistic) -> &'static str {
    match statistic {
        Statistic::Quantile(_) => "quantile",
        Statistic::Mean => "mean",
        Statistic::Max => "max",
        Statistic::Min => "min",
        Statistic::Slope => "slope",
        Statistic::Variation => "variation",
        Statistic::Spread => "spread",
        Statistic::Total => "total",
    }
}

/// As [`STATISTICS`].
const REFERENCES: [Reference; 7] = [
    Reference::Absolute,
    Reference::SkuReference,
    Reference::SkuDatasheet,
    Reference::PeerMedian,
    Reference::OwnMedian,
    Reference::FirstTenth,
    Reference::PowerLimit,
];

const fn of_reference(reference: Reference) -> &'static str {
    match reference {
        Reference::Absolute => "absolute",
        Reference::SkuReference => "sku_reference",
        Reference::SkuDatasheet => "sku_datasheet",
        Reference::PeerMedian => "peer_median",
        Reference::OwnMedian => "own_median",
        Reference::FirstTenth => "first_tenth",
        Reference::PowerLimit => "power_limit",
    }
}
