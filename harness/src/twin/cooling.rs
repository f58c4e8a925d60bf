//! The coolant of a simulated hall: loops that hold their supply, branches that warm as they cool.
//!
//! A loop follows its set point with a lag, noise that remembers and a little of the day outside. A branch's coolant
//! warms by its heat over what flows: ρ·c_p·Q·ΔT is the heat that the liquid takes, always.

use super::chance::{Chance, Memory};
use super::nature::Nature;
use super::scenario::Weather;

/// ρ·c_p of water with 25 % propylene glycol at 35 °C: 1,015 kg/m³ · 3,950 J/kg/K, in J per litre and kelvin
/// (OCP, guidelines for PG25).
pub const HEAT_PER_LITRE_K: f64 = 4_010.0;
/// A branch boils or is shut long before it is this much warmer.
const RISE_MAX_K: f64 = 60.0;
/// A valve and a plate heat exchanger follow their target with this time constant, s.
const VALVE_S: f64 = 12.0;
/// Heat of a rack reaches the loop's return sensor with this one: volume of pipes over flow.
const RETURN_S: f64 = 25.0;
/// A branch's own coolant.
const BRANCH_S: f64 = 8.0;
/// Speed of a CDU's pump at the design's flow, rpm.
pub const PUMP_RPM: f64 = 3_200.0;
const DAY_S: f64 = 86_400.0;
/// The day is warmest at three in the afternoon.
const WARMEST_S: f64 = 15.0 * 3_600.0;

/// What is done to a loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoopStrain {
    pub add_k: f64,
    /// Amplitude in K, period in s.
    pub swing: (f64, f64),
    pub flow: f64,
    pub pump: f64,
    /// The dew point over the set point, where the air is that moist.
    pub dew_above_k: Option<f64>,
}

impl Default for LoopStrain {
    fn default() -> Self {
        Self {
            add_k: 0.0,
            swing: (0.0, 1.0),
            flow: 1.0,
            pump: 1.0,
            dew_above_k: None,
        }
    }
}

/// One coolant distribution unit with its loop.
#[derive(Clone, Debug)]
pub struct Loop {
    set_c: f64,
    pub supply_c: f64,
    pub return_c: f64,
    /// Over the design's.
    pub flow: f64,
    pub pump: f64,
    pub facility_c: f64,
    pub dew_c: f64,
    noise: Memory,
    rise_k: f64,
    steady_c: f64,
    pub strain: LoopStrain,
}

impl Loop {
    #[must_use]
    pub fn new(set_c: f64) -> Self {
        Self {
            set_c,
            supply_c: set_c,
            return_c: set_c,
            flow: 1.0,
            pump: 1.0,
            facility_c: set_c,
            dew_c: 0.0,
            noise: Memory::default(),
            rise_k: 0.0,
            steady_c: set_c,
            strain: LoopStrain::default(),
        }
    }

    /// Goes on by `dt_s` to `now_s`; `heat_w` enters at a design flow of `litres_per_s`, `load` of what it is made for.
    pub fn step(
        &mut self,
        (nature, weather): (&Nature, &Weather),
        (heat_w, litres_per_s, load): (f64, f64, f64),
        (now_s, dt_s): (f64, f64),
        chance: &mut Chance,
    ) {
        let day = outside(weather, now_s);
        let strain = self.strain;
        let toward = |from: f64, to: f64, tau_s: f64| to + (from - to) * (-dt_s / tau_s).exp();
        let target = self.set_c + strain.add_k + nature.ambient_share * (day - weather.ambient.0);
        self.steady_c = toward(self.steady_c, target, VALVE_S);
        let kept = (-dt_s / nature.supply_memory_s).exp();
        let noise = nature.supply_noise_k * self.noise.next(kept, chance);
        let (amplitude, period_s) = strain.swing;
        let swing = amplitude * (std::f64::consts::TAU * now_s / period_s).sin();
        self.supply_c = self.steady_c + noise + swing;
        // A pump runs down within a second or two; the flow follows it (affinity laws: Q ∝ n).
        self.pump = toward(self.pump, strain.pump, 1.0);
        self.flow = (self.pump * strain.flow).max(0.02);
        let rise = (heat_w / (HEAT_PER_LITRE_K * litres_per_s * self.flow)).min(RISE_MAX_K);
        let lag_s = RETURN_S / self.flow;
        self.rise_k = toward(self.rise_k, rise, lag_s);
        self.return_c = self.supply_c + self.rise_k;
        self.facility_c = self.set_c - nature.approach_k * load.clamp(0.2, 1.2);
        self.dew_c = strain
            .dew_above_k
            .map_or(weather.dew_point.0, |k| self.set_c + k);
    }
}

/// Temperature outside at this time of the run, °C: a sine over the day.
#[must_use]
pub fn outside(weather: &Weather, now_s: f64) -> f64 {
    let time = weather.starts_at.as_secs_f64() + now_s;
    let phase = std::f64::consts::TAU * (time - WARMEST_S) / DAY_S;
    weather.ambient.0 + weather.afternoon.0 * (1.0 + phase.cos()) / 2.0
}

/// One branch: what cools a node.
#[derive(Clone, Copy, Debug)]
pub struct Branch {
    /// Over the design's, the loop's share included.
    pub flow: f64,
    /// What is done to it.
    pub strain: f64,
    pub rise_k: f64,
}

impl Default for Branch {
    fn default() -> Self {
        Self {
            flow: 1.0,
            strain: 1.0,
            rise_k: 0.0,
        }
    }
}

impl Branch {
    /// Goes on by `dt_s` with `heat_w` into a design flow of `litres_per_s`, of which the loop gives `flow`.
    pub fn step(&mut self, heat_w: f64, litres_per_s: f64, flow: f64, dt_s: f64) {
        self.flow = (flow * self.strain).max(0.02);
        let rise = (heat_w / (HEAT_PER_LITRE_K * litres_per_s * self.flow)).min(RISE_MAX_K);
        let lag_s = BRANCH_S / self.flow;
        self.rise_k = rise + (self.rise_k - rise) * (-dt_s / lag_s).exp();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_profiles::units::{Celsius, Kelvin};
    use std::time::Duration;

    fn weather(afternoon: f64) -> Weather {
        Weather {
            ambient: Celsius(18.0),
            afternoon: Kelvin(afternoon),
            dew_point: Celsius(12.0),
            starts_at: Duration::from_secs(8 * 3_600),
        }
    }

    fn run(one: &mut Loop, weather: &Weather, seconds: u32) -> Vec<f64> {
        let (nature, mut chance) = (Nature::draw(1), Chance::new(1, "loop", 0));
        let mut supplies = Vec::new();
        for second in 0..seconds {
            let (heat, at) = ((100_000.0, 2.2, 1.0), (f64::from(second), 1.0));
            one.step((&nature, weather), heat, at, &mut chance);
            supplies.push(one.supply_c);
        }
        supplies
    }

    #[test]
    fn all_heat_of_the_liquid_leaves_with_it() {
        let mut one = Loop::new(30.0);
        run(&mut one, &weather(0.0), 600);
        let carried = HEAT_PER_LITRE_K * 2.2 * (one.return_c - one.supply_c);
        assert!((carried / 100_000.0 - 1.0).abs() < 1e-6, "{carried}");
        let mut branch = Branch::default();
        (0..600).for_each(|_| branch.step(10_000.0, 0.22, 0.7, 1.0));
        let carried = HEAT_PER_LITRE_K * 0.22 * 0.7 * branch.rise_k;
        assert!((carried / 10_000.0 - 1.0).abs() < 1e-6, "{carried}");
    }

    #[test]
    fn a_loop_absorbs_a_warm_afternoon_and_follows_its_own_fault() {
        let mut one = Loop::new(30.0);
        let day = run(&mut one, &weather(6.0), 36_000);
        let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
        let (morning, afternoon) = (mean(&day[..3_600]), mean(&day[23_400..27_000]));
        assert!((afternoon - morning).abs() < 0.4, "{}", afternoon - morning);
        one.strain.add_k = 3.0;
        let after = run(&mut one, &weather(6.0), 120);
        assert!((mean(&after[60..]) - afternoon - 3.0).abs() < 0.5);
    }

    #[test]
    fn a_tripped_pump_takes_the_flow_along_within_seconds() {
        let mut one = Loop::new(30.0);
        run(&mut one, &weather(0.0), 600);
        one.strain.pump = 0.1;
        run(&mut one, &weather(0.0), 5);
        assert!(one.flow < 0.12 && one.pump < 0.12, "{}", one.flow);
    }
}
