//! The constants of one hall, drawn by its seed from ranges that published halls span. No judge sees them.
//!
//! Rises of temperature are given at board power, so that one range serves parts of 400 W and of 1,400 W.

use super::chance::Chance;

/// What one seed makes of a hall.
#[derive(Clone, Debug, PartialEq)]
pub struct Nature {
    /// Core over coolant at board power, K: 700 W parts on cold plates run 25 to 35 K over their water (Heydari et
    /// al., ASME InterPACK 2022; OCP cold plate guidelines give 0.03 to 0.05 K/W).
    pub rise_core_k: f64,
    /// Share of it between junction and cold plate, whose pole is the fast one (JESD51-14: two-pole structure).
    pub share_fast: f64,
    /// s: die and lid; cold plate and loop.
    pub tau_fast_s: f64,
    pub tau_slow_s: f64,
    /// Memory over coolant at board power, K: HBM sensors read a few kelvin over the core's.
    pub rise_memory_k: f64,
    pub tau_memory_s: f64,
    /// Share of the core's resistance that is the coolant's film, which grows as flow falls.
    pub share_film: f64,
    /// Relative spread of thermal resistance between devices: mounting and paste.
    pub spread_resistance: f64,
    /// Leakage at 60 °C as a share of board power, and how many kelvin multiply it by e: 15 to 30 % and 40 to 70 K in
    /// 28 nm to 5 nm parts (Liu et al., DATE 2007; Sinha et al., SC22 on variability of GPUs).
    pub leak: f64,
    pub leak_k: f64,
    pub spread_leak: f64,
    /// Power that full matmuls would draw at the highest clock, in board powers: the cap governor holds it at one.
    pub demand: f64,
    /// Dynamic power grows with this power of the clock, since voltage rises with it (Mei et al., 2017: 2 to 3).
    pub exponent: f64,
    /// The hall's median device against its model's reference.
    pub rate: f64,
    /// Relative noise of a step's compute time.
    pub step_noise: f64,
    /// Relative noise of one all-reduce, and the share of operations that other traffic makes 1.3 times as long.
    pub op_noise: f64,
    pub op_busy: f64,
    /// Achieved share of the published bus bandwidth.
    pub link: f64,
    /// Hosts, switches and losses: a fixed share of the board power of a node's devices, and a share of their draw
    /// (DGX H100: 10.2 kW with 8 × 700 W).
    pub host_fixed: f64,
    pub host_share: f64,
    /// Share of a rack's power that its liquid takes away (OCP, ASHRAE TC 9.9: 70 to 98 %).
    pub liquid: f64,
    /// Coolant at full load, L/min per kW (ASHRAE TC 9.9: 1 to 1.5; the contract asks at least 1.2).
    pub flow_per_kw: f64,
    /// K between the facility's water and the loop's supply at full load.
    pub approach_k: f64,
    /// Control noise of the supply, K, and how long it is remembered, s.
    pub supply_noise_k: f64,
    pub supply_memory_s: f64,
    /// Of the ambient's day, what reaches the supply.
    pub ambient_share: f64,
    /// Relative error of node, PDU, feeder and flow meters (standard deviation between meters), and of two temperature
    /// sensors against each other, K (EE HPC WG level 1 to 3; IEC 62053 class 1).
    pub node_meter: f64,
    pub pdu_meter: f64,
    pub flow_meter: f64,
    pub loop_sensor_k: f64,
    /// Relative noise of a device's power sensor and the share remembered from one second to the next.
    pub power_noise: f64,
    pub power_memory: f64,
    /// Offset between core sensors, K (standard deviation).
    pub core_sensor_k: f64,
    /// Share of readings that a sensor fails to give.
    pub dropout: f64,
}

impl Nature {
    /// The constants of `seed`.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let chance = &mut Chance::new(seed, "nature", 0);
        let mut c = |low: f64, high: f64| chance.between(low, high);
        Self {
            rise_core_k: c(22.0, 34.0),
            share_fast: c(0.35, 0.55),
            tau_fast_s: c(0.6, 2.5),
            tau_slow_s: c(15.0, 60.0),
            rise_memory_k: c(26.0, 38.0),
            tau_memory_s: c(20.0, 80.0),
            share_film: c(0.15, 0.30),
            spread_resistance: c(0.015, 0.045),
            leak: c(0.06, 0.14),
            leak_k: c(40.0, 70.0),
            spread_leak: c(0.05, 0.15),
            demand: c(1.04, 1.15),
            exponent: c(2.0, 2.8),
            rate: c(0.99, 1.03),
            step_noise: c(0.0005, 0.002),
            op_noise: c(0.01, 0.04),
            op_busy: c(0.0002, 0.002),
            link: c(0.96, 1.02),
            host_fixed: c(0.08, 0.16),
            host_share: c(0.08, 0.16),
            liquid: c(0.75, 0.95),
            flow_per_kw: c(1.38, 1.65),
            approach_k: c(2.0, 3.8),
            supply_noise_k: c(0.03, 0.15),
            supply_memory_s: c(10.0, 40.0),
            ambient_share: c(0.0, 0.05),
            node_meter: c(0.002, 0.006),
            pdu_meter: c(0.001, 0.005),
            flow_meter: c(0.004, 0.012),
            loop_sensor_k: c(0.02, 0.08),
            power_noise: c(0.002, 0.006),
            power_memory: c(0.3, 0.8),
            core_sensor_k: c(0.2, 0.8),
            dropout: c(0.0, 0.0005),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_one_nature_and_seeds_differ() {
        assert_eq!(Nature::draw(3), Nature::draw(3));
        assert_ne!(Nature::draw(3), Nature::draw(4));
    }
}
