//! Acceptance criteria as data: which statistic of which metric, over which scope, against which limit.
//!
//! A criterion decides nothing by itself; `results` judges it. It cannot hold code.

use crate::metric::Metric;
use crate::quantity::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Criterion {
    /// The gate's name in findings and reports, e.g. `throughput`.
    pub name: String,
    pub metric: Metric,
    pub scope: Scope,
    pub statistic: Statistic,
    /// What the limits are counted in: the metric's own unit, or a multiple of a reference.
    #[serde(default)]
    pub relative_to: Reference,
    /// The observed value must not be below this, e.g. "30.6 kW"; a plain ratio where `relative_to` is set.
    #[serde(default)]
    pub at_least: Option<Quantity>,
    /// The observed value must not be above this.
    #[serde(default)]
    pub at_most: Option<Quantity>,
    /// Share of the places in scope that may miss the limit, 0 to 1.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub allowed_share: f64,
    /// Fewest samples for a decision; with fewer the criterion is inconclusive.
    #[serde(default)]
    pub min_samples: u64,
    /// The phase whose window is judged; by default the profile's main phase, the longest one.
    #[serde(default)]
    pub phase: Option<String>,
    /// Which side a miss points to.
    #[serde(default)]
    pub side: Side,
    /// What to do on a miss, for the punch list.
    #[serde(default)]
    pub remedy: Option<String>,
}

/// The kind of place that is judged: each GPU by itself, or the group as one.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Any compute device; a CPU share counts as one.
    Gpu,
    Node,
    Rack,
    Cdu,
    Feeder,
    /// The ranks that work together.
    Group,
    Site,
}

/// What the limit is a multiple of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// Nothing: the limit is in the metric's own unit.
    #[default]
    Absolute,
    /// The SKU file's reference for this device and dtype; inconclusive where it has none.
    SkuReference,
    /// The SKU file's datasheet figure for this device and dtype; inconclusive where it has none.
    SkuDatasheet,
    /// The median of the other devices of the same SKU; inconclusive where there are none.
    PeerMedian,
    /// The median of the same place and window.
    OwnMedian,
    /// The median of the first tenth of the same place's window.
    FirstTenth,
    /// The power limit that the device's driver enforced in the window; inconclusive where it is not known or moved.
    PowerLimit,
}

/// Who has to act on a miss.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Power, cooling, space: the partner's.
    Hall,
    /// Servers and devices.
    #[default]
    It,
    Link,
    /// hallmark or the way in which it was run.
    Harness,
}

/// How the samples of a window become one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistic {
    /// A quantile, 0 < q < 1: `median`, `p1` … `p99.9`.
    Quantile(f64),
    Mean,
    Max,
    Min,
    /// Theil–Sen slope, in the metric's unit a day, as a percentage of the median.
    Slope,
    /// Coefficient of variation of the blocks: standard deviation over mean.
    Variation,
    /// From the first to the last hundredth of the samples, `p99 − p1`: how steady a reading was in the window.
    Spread,
    /// The metric's own total over the window: a count, a delta of a counter, a duration, a fraction of time.
    Total,
}

const STATISTICS: &str = "median, mean, min, max, slope, variation, spread, total, p1 to p99.9";

impl std::fmt::Display for Statistic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Quantile(q) if (q - 0.5).abs() < 1e-9 => f.pad("median"),
            Self::Quantile(q) => f.pad(&format!("p{}", (q * 1e5).round() / 1e3)),
            Self::Mean => f.pad("mean"),
            Self::Max => f.pad("max"),
            Self::Min => f.pad("min"),
            Self::Slope => f.pad("slope"),
            Self::Variation => f.pad("variation"),
            Self::Spread => f.pad("spread"),
            Self::Total => f.pad("total"),
        }
    }
}

impl std::str::FromStr for Statistic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || format!("unknown statistic `{text}`; known: {STATISTICS}");
        Ok(match text {
            "median" => Self::Quantile(0.5),
            "mean" => Self::Mean,
            "max" => Self::Max,
            "min" => Self::Min,
            "slope" => Self::Slope,
            "variation" => Self::Variation,
            "spread" => Self::Spread,
            "total" => Self::Total,
            _ => {
                let percent: f64 = text
                    .strip_prefix('p')
                    .and_then(|p| p.parse().ok())
                    .ok_or_else(unknown)?;
                if !(percent > 0.0 && percent < 100.0) {
                    return Err(unknown());
                }
                Self::Quantile(percent / 100.0)
            }
        })
    }
}

impl Serialize for Statistic {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Statistic {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Statistic {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Statistic".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "How the samples of a window become one number.",
            "pattern": "^(median|mean|min|max|slope|variation|spread|total|p[0-9]{1,2}([.][0-9]+)?)$",
            "examples": ["median", "p99", "p99.9", "total"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statistic_reads_back_as_written() {
        for text in [
            "median", "p1", "p5", "p95", "p99", "p99.9", "mean", "max", "slope", "spread", "total",
        ] {
            assert_eq!(text.parse::<Statistic>().unwrap().to_string(), text);
        }
        for text in ["p0", "p100", "p", "pNaN", "p-5", "avg", ""] {
            assert!(
                text.parse::<Statistic>()
                    .unwrap_err()
                    .contains("known: median"),
                "{text}"
            );
        }
    }
}
