//! One simulated device: how much power it draws, how warm that makes it, and how fast it may then be.
//!
//! Power is rest, leakage that grows with temperature, and switching that grows with clock and voltage. A governor
//! lowers the clock until the power limit holds; another lowers it where the core is too hot. Heat leaves through two
//! poles in a row, whose answer to a constant power is exact for any step of time (Foster network, JESD51-14).

use super::nature::Nature;
use super::part::Part;

/// Temperature at which [`Nature::leak`] is given.
const LEAK_C: f64 = 60.0;
/// Coolant and device at which a model's reference was measured.
const REFERENCE_COOLANT_C: f64 = 30.0;
/// Film resistance ∝ flow^-0.4 in a microchannel's laminar entry (Shah and London 1978: between 1/3 and 0.8).
const FILM_EXPONENT: f64 = 0.4;
/// A thermal governor takes this much of the clock each second, gives back this much, and lets go this far below.
const THROTTLE_PER_S: f64 = 0.02;
const RECOVER_PER_S: f64 = 0.01;
const HYSTERESIS_K: f64 = 3.0;
/// A governor never takes more than this.
const LEAST_CLOCK: f64 = 0.25;
/// Switching power relative to full matmuls: waiting in a collective, and streaming memory.
pub const REDUCING: f64 = 0.35;
pub const STREAMING: f64 = 0.55;

/// What is wrong with a device now; the sound one changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Strain {
    /// Multiplies the rate of matmuls and of memory.
    pub rate: f64,
    pub memory_rate: f64,
    /// Multiplies the highest clock: a setting, and a power brake.
    pub clock: f64,
    pub brake: f64,
    /// Multiply the resistances to the coolant.
    pub core_resistance: f64,
    pub memory_resistance: f64,
    /// Multiplies the power limit.
    pub cap: f64,
    /// What its rack leaves it, W.
    pub share_w: f64,
    pub off: bool,
    /// Multiplies switching power: operands of zeros, a swing from outside.
    pub switching: f64,
}

impl Default for Strain {
    fn default() -> Self {
        Self {
            rate: 1.0,
            memory_rate: 1.0,
            clock: 1.0,
            brake: 1.0,
            core_resistance: 1.0,
            memory_resistance: 1.0,
            cap: 1.0,
            share_w: f64::INFINITY,
            off: false,
            switching: 1.0,
        }
    }
}

/// The coolant at a device.
#[derive(Clone, Copy, Debug)]
pub struct Coolant {
    /// Mean of the branch, °C.
    pub mean_c: f64,
    /// Flow over the design's.
    pub flow: f64,
}

/// What a device was busy with since the last look, as shares of that time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Busy {
    pub compute: f64,
    pub reduce: f64,
    pub stream: f64,
}

impl Busy {
    /// Switching power relative to matmuls all the time.
    #[must_use]
    pub fn switching(self) -> f64 {
        self.compute + REDUCING * self.reduce + STREAMING * self.stream
    }
}

/// A model of device in one hall: what is the same for all of them.
#[derive(Clone, Debug)]
pub struct Kind {
    pub part: Part,
    pub nature: Nature,
    /// Switching power of full matmuls at the highest clock, W.
    switching_w: f64,
    /// Clock under full matmuls at the power limit, as a share of the highest, for the reference's conditions.
    pub reference_clock: f64,
}

impl Kind {
    #[must_use]
    pub fn new(part: Part, nature: Nature) -> Self {
        let hot = REFERENCE_COOLANT_C + nature.rise_core_k;
        let leak_w = nature.leak * part.board_w * ((hot - LEAK_C) / nature.leak_k).exp();
        let switching_w = nature.demand * part.board_w - part.idle_w - leak_w;
        let left = (part.board_w - part.idle_w - leak_w) / switching_w;
        Self {
            reference_clock: left.min(1.0).powf(1.0 / nature.exponent),
            part,
            nature,
            switching_w,
        }
    }
}

/// One device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Rate over the median device's, at one clock.
    pub quality: f64,
    resistance: f64,
    leak: f64,
    /// Rises over the coolant that the three poles have reached, K.
    fast_k: f64,
    slow_k: f64,
    memory_k: f64,
    pub core_c: f64,
    pub memory_c: f64,
    pub power_w: f64,
    /// Clock as a share of the highest.
    pub clock: f64,
    /// What the thermal governors leave.
    thermal: f64,
    memory_thermal: f64,
    /// Reasons that held since the last look, as shares of that time.
    pub capped: bool,
    pub strain: Strain,
}

impl Device {
    /// A device at rest in coolant of `coolant_c`; `resistance` and `leak`: relative to the hall's.
    #[must_use]
    pub fn new(kind: &Kind, quality: f64, resistance: f64, leak: f64, coolant_c: f64) -> Self {
        let mut device = Self {
            quality,
            resistance,
            leak,
            fast_k: 0.0,
            slow_k: 0.0,
            memory_k: 0.0,
            core_c: coolant_c,
            memory_c: coolant_c,
            power_w: kind.part.idle_w,
            clock: 1.0,
            thermal: 1.0,
            memory_thermal: 1.0,
            capped: false,
            strain: Strain::default(),
        };
        let coolant = Coolant {
            mean_c: coolant_c,
            flow: 1.0,
        };
        device.step(kind, Busy::default(), coolant, 1e6);
        device
    }

    fn leak_w(&self, kind: &Kind) -> f64 {
        let nature = &kind.nature;
        let hot = ((self.core_c - LEAK_C) / nature.leak_k).min(3.0).exp();
        self.leak * nature.leak * kind.part.board_w * hot
    }

    /// Goes on by `dt_s` in which it was busy as told: governors first, then power, then heat.
    pub fn step(&mut self, kind: &Kind, busy: Busy, coolant: Coolant, dt_s: f64) {
        let (part, nature) = (&kind.part, &kind.nature);
        if self.strain.off {
            self.power_w = 0.0;
            self.heat(nature, part, coolant, dt_s);
            return;
        }
        self.thermal = governed(self.thermal, self.core_c, part.slowdown_c, dt_s);
        self.memory_thermal = governed(self.memory_thermal, self.memory_c, part.memory_max_c, dt_s);
        let switching = kind.switching_w * busy.switching() * self.strain.switching;
        let base = part.idle_w + self.leak_w(kind);
        let cap = (part.board_w * self.strain.cap).min(self.strain.share_w);
        let allowed = self.strain.clock * self.strain.brake * self.thermal;
        let left = (cap - base).max(0.01 * part.board_w) / switching.max(1e-9);
        let under_cap = left.min(1.0).powf(1.0 / nature.exponent);
        self.capped = under_cap < allowed;
        self.clock = allowed.min(under_cap).max(LEAST_CLOCK * self.strain.brake);
        self.power_w = base + switching * self.clock.powf(nature.exponent);
        self.heat(nature, part, coolant, dt_s);
    }

    fn heat(&mut self, nature: &Nature, part: &Part, coolant: Coolant, dt_s: f64) {
        let share = self.power_w / part.board_w;
        let film = coolant.flow.max(0.02).powf(-FILM_EXPONENT);
        let film = 1.0 + nature.share_film * (film - 1.0);
        let core_k = nature.rise_core_k * self.resistance * self.strain.core_resistance * share;
        let memory_k =
            nature.rise_memory_k * self.resistance * self.strain.memory_resistance * share;
        let toward = |from: &mut f64, to: f64, tau_s: f64| {
            *from += (to - *from) * (1.0 - (-dt_s / tau_s).exp());
        };
        toward(
            &mut self.fast_k,
            core_k * nature.share_fast,
            nature.tau_fast_s,
        );
        let slow_k = core_k * (1.0 - nature.share_fast) * film;
        toward(&mut self.slow_k, slow_k, nature.tau_slow_s);
        toward(&mut self.memory_k, memory_k * film, nature.tau_memory_s);
        self.core_c = coolant.mean_c + self.fast_k + self.slow_k;
        self.memory_c = coolant.mean_c + self.memory_k;
    }

    /// Power at an instant of which `switching` says how busy it is, relative to full matmuls.
    #[must_use]
    pub fn instant_w(&self, kind: &Kind, switching: f64) -> f64 {
        if self.strain.off {
            return 0.0;
        }
        let switching = kind.switching_w * switching * self.strain.switching;
        kind.part.idle_w + self.leak_w(kind) + switching * self.clock.powf(kind.nature.exponent)
    }

    /// FLOP/s of matmuls at the present clock.
    #[must_use]
    pub fn rate(&self, kind: &Kind) -> f64 {
        let clock = self.clock / kind.reference_clock;
        kind.part.rate * kind.nature.rate * self.quality * clock * self.strain.rate
    }

    /// B/s of copies, read + written.
    #[must_use]
    pub fn memory_rate(&self, kind: &Kind) -> f64 {
        kind.part.memory_rate * self.memory_thermal * self.strain.memory_rate
    }

    /// Whether a thermal governor, of the core or of the memory, takes some of the clock.
    #[must_use]
    pub fn throttles(&self) -> (bool, bool) {
        (self.thermal < 0.999, self.memory_thermal < 0.999)
    }

    /// Memory clock as a share of its rated one.
    #[must_use]
    pub const fn memory_clock(&self) -> f64 {
        self.memory_thermal
    }
}

/// What a thermal governor leaves of the clock after `dt_s` at this temperature.
fn governed(left: f64, now_c: f64, limit_c: f64, dt_s: f64) -> f64 {
    if now_c >= limit_c {
        // The further above, the faster, as far as to hold it there.
        let over = (1.0 + (now_c - limit_c)).min(8.0);
        return (left - THROTTLE_PER_S * over * dt_s.min(5.0)).max(LEAST_CLOCK);
    }
    if now_c < limit_c - HYSTERESIS_K {
        return (left + RECOVER_PER_S * dt_s.min(5.0)).min(1.0);
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_profiles::workload::Dtype;

    const FULL: Busy = Busy {
        compute: 1.0,
        reduce: 0.0,
        stream: 0.0,
    };
    const COOLANT: Coolant = Coolant {
        mean_c: 30.0,
        flow: 1.0,
    };

    fn kind(seed: u64) -> Kind {
        Kind::new(
            Part::of("H100 SXM", Dtype::Bf16).unwrap(),
            Nature::draw(seed),
        )
    }

    fn device(kind: &Kind) -> Device {
        Device::new(kind, 1.0, 1.0, 1.0, 30.0)
    }

    fn settle(device: &mut Device, kind: &Kind, busy: Busy, coolant: Coolant) {
        for _ in 0..2_000 {
            device.step(kind, busy, coolant, 1.0);
        }
    }

    #[test]
    fn full_matmuls_draw_the_power_limit_and_reach_the_reference() {
        for seed in 0..20 {
            let kind = kind(seed);
            let mut device = device(&kind);
            settle(&mut device, &kind, FULL, COOLANT);
            assert!((device.power_w / 700.0 - 1.0).abs() < 1e-6 && device.capped);
            let rate = device.rate(&kind) / (kind.part.rate * kind.nature.rate);
            assert!((rate - 1.0).abs() < 0.002, "seed {seed}: {rate}");
            assert!((device.core_c - 30.0 - kind.nature.rise_core_k).abs() < 0.05);
        }
    }

    #[test]
    fn warmer_coolant_costs_clock_and_a_lower_cap_costs_more() {
        let kind = kind(1);
        let mut device = device(&kind);
        settle(&mut device, &kind, FULL, COOLANT);
        let cool = device.rate(&kind);
        let warm = Coolant {
            mean_c: 40.0,
            ..COOLANT
        };
        settle(&mut device, &kind, FULL, warm);
        let lost = 1.0 - device.rate(&kind) / cool;
        assert!((0.003..0.04).contains(&lost), "{lost}");
        device.strain.cap = 0.85;
        settle(&mut device, &kind, FULL, COOLANT);
        let lost = 1.0 - device.rate(&kind) / cool;
        assert!((0.05..0.12).contains(&lost), "{lost}");
        assert!((device.power_w - 595.0).abs() < 1e-6);
    }

    #[test]
    fn both_time_constants_are_those_of_the_two_poles() {
        let kind = kind(2);
        let mut device = device(&kind);
        let rest = device.core_c;
        device.strain.clock = 0.5; // Below the cap: the power does not follow the temperature's governor.
        let (mut at, mut course) = (0.0, Vec::new());
        while at < 600.0 {
            device.step(&kind, FULL, COOLANT, 0.1);
            at += 0.1;
            course.push((at, device.core_c - rest));
        }
        let end = course.last().unwrap().1;
        let slow = |at: f64| course[(at * 10.0) as usize - 1].1;
        // Late on only the slow pole is left.
        let (t1, t2) = (30.0, 60.0);
        let tau = (t2 - t1) / ((end - slow(t1)) / (end - slow(t2))).ln();
        let nature = &kind.nature;
        assert!(
            (tau / nature.tau_slow_s - 1.0).abs() < 0.1,
            "{tau} {}",
            nature.tau_slow_s
        );
        let share = slow(4.0 * nature.tau_fast_s) / end;
        assert!(share > 0.9 * nature.share_fast, "{share}");
    }

    #[test]
    fn a_hot_core_is_throttled_until_it_holds_its_limit_and_recovers() {
        let kind = kind(3);
        let mut device = device(&kind);
        device.strain.core_resistance = 2.5;
        let hot = Coolant {
            mean_c: 45.0,
            ..COOLANT
        };
        settle(&mut device, &kind, FULL, hot);
        assert!(device.throttles().0 && device.clock < 0.9);
        assert!(
            (device.core_c - kind.part.slowdown_c).abs() < 4.0,
            "{}",
            device.core_c
        );
        device.strain.core_resistance = 1.0;
        settle(&mut device, &kind, FULL, COOLANT);
        assert!(!device.throttles().0);
    }

    #[test]
    fn less_flow_warms_a_device_by_its_film_alone() {
        let kind = kind(4);
        let mut device = device(&kind);
        settle(&mut device, &kind, FULL, COOLANT);
        let before = device.core_c - 30.0;
        let less = Coolant {
            flow: 0.7,
            ..COOLANT
        };
        settle(&mut device, &kind, FULL, less);
        let more = (device.core_c - 30.0) / before - 1.0;
        assert!((0.005..0.06).contains(&more), "{more}");
    }
}
