//! The devices of a simulated hall as their SKU file describes them.
//!
//! Takes what is published of a model and refuses one of which too little is: a rate that was made up would be judged
//! against a reference that was not.

use hallmark_profiles::metric::Metric;
use hallmark_profiles::sku::{Fact, Of, Skus};
use hallmark_profiles::workload::Dtype;

/// Share of a datasheet's rate that back-to-back matmuls reach where no reference is published: what published
/// references of other types and models reach (ml-engineering, maximum achievable matmul FLOPS: 70 to 81 %).
const ACHIEVED: f64 = 0.72;
/// Power at rest as a share of board power: 60 to 75 W of a 700 W part (nvidia-smi of idle H100 SXM).
const IDLE: f64 = 0.10;
/// Core temperature of hardware slowdown where the SKU file has none: as of the parts that have one.
const SLOWDOWN_C: f64 = 89.0;
/// Memory temperature of throttling where the SKU file has none: as of the parts that have one.
const MEMORY_MAX_C: f64 = 95.0;
/// Highest core clock: H100 SXM's, nvidia-smi -q -d CLOCK; other parts lie within a few percent.
pub const CLOCK_HZ: f64 = 1.98e9;
/// Memory clock of HBM3 parts by the same source.
pub const CLOCK_MEMORY_HZ: f64 = 2.619e9;
/// Device memory where the SKU file has none.
const MEMORY_BYTES: f64 = 80.0 * 1_073_741_824.0;

/// One model of device.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// As a driver would report it.
    pub name: String,
    pub board_w: f64,
    pub idle_w: f64,
    /// FLOP/s of matmuls back to back under the power limit.
    pub rate: f64,
    /// B/s, read + written.
    pub memory_rate: f64,
    pub slowdown_c: f64,
    pub memory_max_c: f64,
    pub memory_bytes: u64,
    /// Bus bandwidth of a large all-reduce between so many ranks, B/s, as far as one is published.
    busbw: Vec<(u32, f64)>,
}

impl Part {
    /// The model with this name in the SKU files, doing its work in `dtype`.
    ///
    /// # Errors
    /// One sentence: the model is unknown, or too little is published of it.
    pub fn of(sku: &str, dtype: Dtype) -> Result<Self, String> {
        let skus = Skus::built_in().map_err(|e| e.to_string())?;
        let found = skus.iter().find(|s| s.name == sku);
        let found = found.ok_or_else(|| {
            let known: Vec<&str> = skus.iter().map(|s| s.name.as_str()).collect();
            format!("unknown SKU `{sku}`; known: {}", known.join(", "))
        })?;
        let lacks =
            |what: &str| format!("{sku}: its SKU file has no {what}; it cannot be simulated");
        let limit = |fact| found.limit(fact).map(|l| l.value);
        let published = |of: Of| {
            let reference = found.reference(&of).map(|r| r.value);
            reference.or_else(|| Some(found.datasheet(&of)?.value * ACHIEVED))
        };
        let board_w = limit(Fact::BoardPower).ok_or_else(|| lacks("board_power"))?;
        let matmul = Of::metric(Metric::MatmulRate).dtype(dtype);
        let busbw = found
            .reference
            .iter()
            .filter(|r| r.of.metric == Metric::AllreduceBusbw && r.of.algorithm.is_none());
        let name = found
            .matches
            .first()
            .ok_or_else(|| lacks("name to match"))?;
        Ok(Self {
            name: format!("{name} (simulated)"),
            board_w,
            idle_w: IDLE * board_w,
            rate: published(matmul).ok_or_else(|| lacks(&format!("matmul_rate in {dtype}")))?,
            memory_rate: published(Of::metric(Metric::HbmRate)).ok_or_else(|| lacks("hbm_rate"))?,
            slowdown_c: limit(Fact::SlowdownCore).unwrap_or(SLOWDOWN_C),
            memory_max_c: limit(Fact::OperatingMemoryMax).unwrap_or(MEMORY_MAX_C),
            memory_bytes: limit(Fact::Memory).unwrap_or(MEMORY_BYTES) as u64,
            busbw: busbw.filter_map(|r| Some((r.of.ranks?, r.value))).collect(),
        })
    }

    /// Bus bandwidth between `ranks`: the published figure of the nearest size; a tenth of the memory's rate where
    /// none is, which is what NVLink parts have of theirs.
    #[must_use]
    pub fn busbw(&self, ranks: usize) -> f64 {
        let off = |r: u32| (f64::from(r).ln() - (ranks.max(2) as f64).ln()).abs();
        let nearest = self
            .busbw
            .iter()
            .min_by(|a, b| off(a.0).total_cmp(&off(b.0)));
        nearest.map_or(self.memory_rate / 10.0, |(_, rate)| *rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_model_can_be_simulated_in_bf16_and_no_other() {
        for sku in Skus::built_in().unwrap().iter() {
            let part = Part::of(&sku.name, Dtype::Bf16).unwrap();
            assert!(part.rate > 1e14 && part.memory_rate > 1e12 && part.board_w >= 400.0);
            assert_eq!(
                Skus::built_in().unwrap().find(&part.name).unwrap().name,
                sku.name
            );
        }
        let error = Part::of("K80", Dtype::Bf16).unwrap_err();
        assert!(error.starts_with("unknown SKU `K80`; known: "), "{error}");
    }

    #[test]
    fn the_bus_bandwidth_of_a_size_that_is_published_is_the_published_one() {
        let part = Part::of("H100 SXM", Dtype::Bf16).unwrap();
        assert!((part.busbw(8) - 480e9).abs() < 1.0);
        assert!((part.busbw(64) - 387e9).abs() < 1.0);
        assert!((part.busbw(1024) - 387e9).abs() < 1.0);
    }
}
