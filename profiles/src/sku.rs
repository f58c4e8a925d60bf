//! What is known of each device model: the vendor's datasheet, figures that were really reached, limits of the part.
//!
//! Every figure carries its source. A figure nobody published is absent, never guessed. Refuses a reference that lies
//! outside of 40–100 % of its datasheet figure: a limit mistyped by a unit prefix passes every device, or none.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::metric::{Better, Metric};
use crate::quantity::Quantity;
use crate::units::Unit;
use crate::workload::Dtype;

mod file;

/// Where a reference may lie, as a share of its datasheet figure.
pub(crate) const BAND: RangeInclusive<f64> = 0.40..=1.00;

const BUILT_IN: [(&str, &str); 7] = [
    ("skus/a100.toml", include_str!("../skus/a100.toml")),
    ("skus/h100.toml", include_str!("../skus/h100.toml")),
    ("skus/h200.toml", include_str!("../skus/h200.toml")),
    ("skus/b200.toml", include_str!("../skus/b200.toml")),
    ("skus/gb200.toml", include_str!("../skus/gb200.toml")),
    ("skus/mi300x.toml", include_str!("../skus/mi300x.toml")),
    ("skus/mi355x.toml", include_str!("../skus/mi355x.toml")),
];

/// What is wrong with a SKU file.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SkuError {
    #[error("{file}:{line}: {what}")]
    Syntax {
        file: String,
        line: usize,
        what: String,
    },
    #[error("{file}:{line}: {what} is given in {found}, its unit is {wanted}")]
    Unit {
        file: String,
        line: usize,
        what: String,
        found: Unit,
        wanted: Unit,
    },
    #[error("{file}:{line}: {what} is {value}; a figure is above zero")]
    NotPositive {
        file: String,
        line: usize,
        what: String,
        value: Quantity,
    },
    #[error(
        "{file}:{line}: {what} has no datasheet figure to be held against; add a [[datasheet]] entry for it first"
    )]
    NoDatasheet {
        file: String,
        line: usize,
        what: String,
    },
    #[error(
        "{file}:{line}: {what} is {value}, {percent} % of its datasheet figure {datasheet}; \
         40 to 100 % is believable: check the unit's prefix, and dense against sparse"
    )]
    OutsideBand {
        file: String,
        line: usize,
        what: String,
        value: Quantity,
        percent: String,
        datasheet: Quantity,
    },
    #[error("{file}:{line}: {what} is given twice, first at line {first}; keep one")]
    Twice {
        file: String,
        line: usize,
        what: String,
        first: usize,
    },
    #[error(
        "{file}:{line}: {what} cannot be a reference: only a rate, of which more is better, is held against a datasheet"
    )]
    NotARate {
        file: String,
        line: usize,
        what: String,
    },
    #[error("{file}: `{key}` is empty; {remedy}")]
    Empty {
        file: String,
        key: &'static str,
        remedy: &'static str,
    },
}

/// Who makes a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Vendor {
    Nvidia,
    Amd,
}

/// How a collective moves its bytes, where a figure holds for one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    Ring,
    Tree,
    /// The switch makes the sum.
    Nvls,
    NvlsTree,
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Algorithm::Ring => "ring",
            Algorithm::Tree => "tree",
            Algorithm::Nvls => "nvls",
            Algorithm::NvlsTree => "nvls_tree",
        })
    }
}

/// What a figure is of. In an entry `None` leaves it open, except `algorithm`: there `None` is what the library picks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Of {
    pub metric: Metric,
    pub dtype: Option<Dtype>,
    /// m, n, k of a matmul.
    pub shape: Option<[u64; 3]>,
    pub ranks: Option<u32>,
    pub algorithm: Option<Algorithm>,
}

impl Of {
    #[must_use]
    pub const fn metric(metric: Metric) -> Of {
        Of {
            metric,
            dtype: None,
            shape: None,
            ranks: None,
            algorithm: None,
        }
    }

    #[must_use]
    pub const fn dtype(mut self, dtype: Dtype) -> Of {
        self.dtype = Some(dtype);
        self
    }

    /// m, n, k of a matmul.
    #[must_use]
    pub const fn shape(mut self, shape: [u64; 3]) -> Of {
        self.shape = Some(shape);
        self
    }

    #[must_use]
    pub const fn ranks(mut self, ranks: u32) -> Of {
        self.ranks = Some(ranks);
        self
    }

    #[must_use]
    pub const fn algorithm(mut self, algorithm: Algorithm) -> Of {
        self.algorithm = Some(algorithm);
        self
    }

    /// How closely an entry of this kind answers `wanted`; `None` if it does not.
    fn answers(&self, wanted: &Of) -> Option<u8> {
        fn open<T: PartialEq>(entry: Option<&T>, wanted: Option<&T>) -> Option<u8> {
            match entry {
                None => Some(0),
                Some(entry) => (wanted == Some(entry)).then_some(1),
            }
        }
        if self.metric != wanted.metric || self.algorithm != wanted.algorithm {
            return None;
        }
        let dtype = open(self.dtype.as_ref(), wanted.dtype.as_ref())?;
        let shape = open(self.shape.as_ref(), wanted.shape.as_ref())?;
        let ranks = open(self.ranks.as_ref(), wanted.ranks.as_ref())?;
        Some(dtype + shape + ranks)
    }
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.metric)?;
        if let Some(dtype) = self.dtype {
            write!(f, " {dtype}")?;
        }
        if let Some([m, n, k]) = self.shape {
            write!(f, " {m}×{n}×{k}")?;
        }
        if let Some(ranks) = self.ranks {
            write!(f, " on {ranks} ranks")?;
        }
        if let Some(algorithm) = self.algorithm {
            write!(f, " by {algorithm}")?;
        }
        Ok(())
    }
}

/// A figure that the vendor states, or that follows from one: nothing can exceed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Datasheet {
    pub of: Of,
    /// In the metric's unit.
    pub value: f64,
    pub source: String,
}

/// A figure that was reached, and that a healthy device reaches again.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    pub of: Of,
    /// In the metric's unit.
    pub value: f64,
    /// A gate goes no lower than this, whatever share of `value` it allows.
    pub floor: Option<f64>,
    pub source: String,
}

/// A limit or property of the part. What a device itself reports of its limits outranks these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// Power that the part is built for, in W.
    BoardPower,
    /// Device memory, in bytes.
    Memory,
    /// Core temperature at which hardware slows down, in °C.
    SlowdownCore,
    /// Core temperature at which the part switches off, in °C.
    ShutdownCore,
    /// Highest core temperature of normal operation, in °C.
    OperatingCoreMax,
    /// Highest memory temperature of normal operation, in °C.
    OperatingMemoryMax,
}

impl Fact {
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Fact::BoardPower => Unit::Watt,
            Fact::Memory => Unit::Byte,
            Fact::SlowdownCore
            | Fact::ShutdownCore
            | Fact::OperatingCoreMax
            | Fact::OperatingMemoryMax => Unit::Celsius,
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Fact::BoardPower => "board_power",
            Fact::Memory => "memory",
            Fact::SlowdownCore => "slowdown_core",
            Fact::ShutdownCore => "shutdown_core",
            Fact::OperatingCoreMax => "operating_core_max",
            Fact::OperatingMemoryMax => "operating_memory_max",
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    pub fact: Fact,
    /// In the fact's unit.
    pub value: f64,
    pub source: String,
}

/// A device model.
#[derive(Clone, Debug, PartialEq)]
pub struct Sku {
    pub name: String,
    pub vendor: Vendor,
    /// Parts of the name that the driver reports, matched as whole words.
    pub matches: Vec<String>,
    /// Words that make it another model.
    pub excludes: Vec<String>,
    pub datasheet: Vec<Datasheet>,
    pub reference: Vec<Reference>,
    pub limit: Vec<Limit>,
}

impl Sku {
    /// Reads and lints one file. `file` only names it in errors.
    ///
    /// # Errors
    /// [`SkuError`] with file and line: syntax, unknown keys, wrong units, and every reference outside of 40–100 % of its
    /// datasheet figure.
    pub fn parse(file: &str, text: &str) -> Result<Sku, SkuError> {
        file::parse(file, text)
    }

    /// The figure to hold a measurement against: the closest entry, a shape's own before the general one.
    #[must_use]
    pub fn reference(&self, wanted: &Of) -> Option<&Reference> {
        closest(&self.reference, wanted, |entry| &entry.of)
    }

    /// The datasheet figure for the same thing.
    #[must_use]
    pub fn datasheet(&self, wanted: &Of) -> Option<&Datasheet> {
        closest(&self.datasheet, wanted, |entry| &entry.of)
    }

    #[must_use]
    pub fn limit(&self, fact: Fact) -> Option<&Limit> {
        self.limit.iter().find(|limit| limit.fact == fact)
    }

    /// Length of the longest match, `None` if this is another model.
    fn matched(&self, device_name: &str) -> Option<usize> {
        if self
            .excludes
            .iter()
            .any(|word| has_words(device_name, word))
        {
            return None;
        }
        self.matches
            .iter()
            .filter(|words| has_words(device_name, words))
            .map(String::len)
            .max()
    }
}

fn closest<'a, T>(entries: &'a [T], wanted: &Of, of: impl Fn(&T) -> &Of) -> Option<&'a T> {
    let answering = entries.iter().filter_map(|entry| {
        of(entry)
            .answers(wanted)
            .map(|closeness| (closeness, entry))
    });
    answering
        .max_by_key(|(closeness, _)| *closeness)
        .map(|(_, entry)| entry)
}

/// Whether `words` stand in `name` as whole words, in any case: `B200` is in `NVIDIA B200`, not in `NVIDIA GB200`.
fn has_words(name: &str, words: &str) -> bool {
    let (name, words) = (name.to_ascii_lowercase(), words.to_ascii_lowercase());
    let edge = |c: Option<char>| !c.is_some_and(char::is_alphanumeric);
    name.match_indices(&words).any(|(at, found)| {
        edge(name[..at].chars().next_back()) && edge(name[at + found.len()..].chars().next())
    })
}

/// The device models that are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Skus(Vec<Sku>);

impl Skus {
    /// The models that are built in.
    ///
    /// # Errors
    /// [`SkuError`] if a built-in file is broken, which the tests of this crate rule out.
    pub fn built_in() -> Result<&'static Skus, SkuError> {
        static PARSED: OnceLock<Result<Skus, SkuError>> = OnceLock::new();
        let parse = || {
            BUILT_IN
                .iter()
                .map(|(file, text)| Sku::parse(file, text))
                .collect::<Result<_, _>>()
                .map(Skus)
        };
        PARSED.get_or_init(parse).as_ref().map_err(Clone::clone)
    }

    /// Adds an operator's own model; of two that match a device alike, it is the one that is found.
    #[must_use]
    pub fn with(mut self, sku: Sku) -> Skus {
        self.0.push(sku);
        self
    }

    /// The model of a device by the name that its driver reports; the longest match wins. `None` for a model that is not
    /// known: then there is no reference, and what needs one is inconclusive.
    #[must_use]
    pub fn find(&self, device_name: &str) -> Option<&Sku> {
        let matching = self
            .0
            .iter()
            .filter_map(|sku| sku.matched(device_name).map(|length| (length, sku)));
        matching
            .max_by_key(|(length, _)| *length)
            .map(|(_, sku)| sku)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Sku> {
        self.0.iter()
    }
}

/// [`Skus::find`] in the built-in models.
///
/// # Errors
/// As [`Skus::built_in`].
pub fn find(device_name: &str) -> Result<Option<&'static Sku>, SkuError> {
    Ok(Skus::built_in()?.find(device_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BF16: Of = Of::metric(Metric::MatmulRate).dtype(Dtype::Bf16);

    fn named(device_name: &str) -> Option<&'static str> {
        find(device_name).unwrap().map(|sku| sku.name.as_str())
    }

    #[test]
    fn a_driver_s_name_finds_its_model_and_no_other() {
        for (device_name, sku) in [
            ("NVIDIA A100-SXM4-80GB", Some("A100 SXM 80GB")),
            ("NVIDIA A100-SXM4-40GB", None),
            ("NVIDIA A100 80GB PCIe", None),
            ("NVIDIA H100 80GB HBM3", Some("H100 SXM")),
            ("NVIDIA H100 PCIe", None),
            ("NVIDIA H100 NVL", None),
            ("NVIDIA H200", Some("H200 SXM")),
            ("NVIDIA H200 NVL", None),
            ("NVIDIA GH200 480GB", None),
            ("NVIDIA B200", Some("B200 SXM")),
            ("NVIDIA GB200", Some("GB200")),
            ("AMD Instinct MI300X OAM", Some("MI300X")),
            ("AMD Instinct MI355X", Some("MI355X")),
            ("AMD Instinct MI350X", None),
            ("llvmpipe (LLVM 15.0.6, 256 bits)", None),
            ("", None),
        ] {
            assert_eq!(named(device_name), sku, "{device_name}");
        }
    }

    #[test]
    fn every_built_in_figure_has_a_source_and_lies_below_its_datasheet() {
        for sku in Skus::built_in().unwrap().iter() {
            assert!(
                sku.datasheet(&BF16).is_some() && sku.reference(&BF16).is_some(),
                "{}",
                sku.name
            );
            assert!(sku.limit(Fact::BoardPower).is_some(), "{}", sku.name);
            for reference in &sku.reference {
                let share = reference.value / sku.datasheet(&reference.of).unwrap().value;
                assert!(
                    BAND.contains(&share),
                    "{} {}: {share}",
                    sku.name,
                    reference.of
                );
            }
        }
    }

    #[test]
    fn a_shape_s_own_reference_comes_before_the_general_one() {
        let sku = find("NVIDIA H100 80GB HBM3").unwrap().unwrap();
        let value = |of: Of| sku.reference(&of).map(|reference| reference.value / 1e12);
        assert_eq!(value(BF16.shape([8192, 8192, 8192])), Some(798.0));
        assert_eq!(value(BF16.shape([4096, 4096, 4096])), Some(794.5));
        assert_eq!(value(BF16), Some(794.5));
        assert_eq!(
            value(Of::metric(Metric::MatmulRate).dtype(Dtype::F64)),
            None,
            "an unknown reference is absent"
        );
        assert_eq!(
            value(Of::metric(Metric::MatmulRate)),
            None,
            "no dtype, no reference"
        );
    }

    #[test]
    fn a_ring_is_never_held_against_a_sum_made_in_the_switch() {
        let busbw = Of::metric(Metric::AllreduceBusbw);
        let sku = find("NVIDIA H200").unwrap().unwrap();
        let value = |of: Of| sku.reference(&of).map(|reference| reference.value / 1e9);
        assert_eq!(value(busbw.ranks(8)), Some(482.0));
        assert_eq!(
            value(busbw.ranks(8).algorithm(Algorithm::Ring)),
            Some(367.0)
        );
        assert_eq!(value(busbw.ranks(8).algorithm(Algorithm::Tree)), None);
        assert_eq!(value(busbw.ranks(4)), None);
        let b200 = find("NVIDIA B200").unwrap().unwrap();
        assert_eq!(
            b200.reference(&busbw.ranks(8).algorithm(Algorithm::Ring)),
            None
        );
    }

    #[test]
    fn the_floor_of_eight_h100_is_460_gb_a_second() {
        let sku = find("NVIDIA H100 80GB HBM3").unwrap().unwrap();
        let reference = sku
            .reference(&Of::metric(Metric::AllreduceBusbw).ranks(8))
            .unwrap();
        assert_eq!(reference.floor, Some(460e9));
    }

    #[test]
    fn an_operator_s_own_file_outranks_the_built_in_one() {
        let text = BUILT_IN[1].1.replace("H100 SXM\"", "our H100\"");
        let skus = Skus::built_in()
            .unwrap()
            .clone()
            .with(Sku::parse("ours.toml", &text).unwrap());
        assert_eq!(skus.find("NVIDIA H100 80GB HBM3").unwrap().name, "our H100");
    }
}
