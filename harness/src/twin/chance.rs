//! The chance of a simulated hall: named streams from one seed, noise that remembers and has heavy tails.
//!
//! The same seed gives the same numbers, whatever order its streams are asked in.

use hallmark_results::stats::bootstrap::SplitMix64;

/// One stream of chance.
#[derive(Clone, Debug)]
pub struct Chance(SplitMix64);

impl Chance {
    /// The stream of `seed` with this name and number; streams say nothing of each other.
    #[must_use]
    pub fn new(seed: u64, name: &str, number: u64) -> Self {
        // FNV-1a over the name: any mixing will do, since the generator takes any seed.
        let named = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut mixed = SplitMix64::new(seed ^ named);
        Self(SplitMix64::new(
            mixed.bits() ^ number.wrapping_mul(0x9e37_79b9),
        ))
    }

    /// Uniform in 0..1.
    pub fn unit(&mut self) -> f64 {
        self.0.unit()
    }

    /// Uniform between two numbers.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.0.unit()
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    /// About standard normal: the sum of four uniforms, scaled; no tail beyond 3.5, which the heavy one supplies.
    pub fn normal(&mut self) -> f64 {
        /// Standard deviation of the sum of four 16-bit uniforms about their mean.
        const SPREAD: f64 = 37_836.96;
        let bits = self.0.bits();
        let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
        (sum as f64 - 131_070.0) / SPREAD
    }

    /// Normal, but one in fifty is four times as wide: kurtosis of about 13, as sensors and hosts show.
    pub fn heavy(&mut self) -> f64 {
        /// Keeps the variance at 1: 0.98 + 0.02 · 16 = 1.3.
        const NARROWED: f64 = 0.877_058;
        let wide = if self.0.bits() < u64::MAX / 50 {
            4.0
        } else {
            1.0
        };
        self.normal() * wide * NARROWED
    }

    /// Normal within `most` standard deviations, redrawn beyond.
    pub fn within(&mut self, most: f64) -> f64 {
        for _ in 0..64 {
            let drawn = self.normal();
            if drawn.abs() <= most {
                return drawn;
            }
        }
        0.0
    }

    /// A count whose mean is `mean`: Knuth's product for few, rounded normal for many.
    pub fn count(&mut self, mean: f64) -> u64 {
        if mean <= 0.0 {
            return 0;
        }
        if mean > 30.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u64;
        }
        let (limit, mut product, mut count) = ((-mean).exp(), self.unit(), 0);
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }
}

/// Noise whose next value remembers the one before: AR(1) of unit variance, driven by heavy tails.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory(f64);

impl Memory {
    /// The next value; `kept`: the share that is remembered over the time since the last.
    pub fn next(&mut self, kept: f64, chance: &mut Chance) -> f64 {
        let fresh = (1.0 - kept * kept).max(0.0).sqrt();
        self.0 = kept * self.0 + fresh * chance.heavy();
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(draws: &[f64]) -> (f64, f64, f64) {
        let n = draws.len() as f64;
        let mean = draws.iter().sum::<f64>() / n;
        let power = |p: i32| draws.iter().map(|x| (x - mean).powi(p)).sum::<f64>() / n;
        (mean, power(2), power(4) / (power(2) * power(2)))
    }

    #[test]
    fn normal_and_heavy_draws_have_unit_variance_and_only_heavy_ones_heavy_tails() {
        let mut chance = Chance::new(7, "test", 0);
        let draws: Vec<f64> = (0..200_000).map(|_| chance.normal()).collect();
        let (mean, variance, kurtosis) = moments(&draws);
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02);
        assert!(kurtosis < 3.1, "{kurtosis}");
        let draws: Vec<f64> = (0..200_000).map(|_| chance.heavy()).collect();
        let (mean, variance, kurtosis) = moments(&draws);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.05);
        assert!(kurtosis > 6.0, "{kurtosis}");
    }

    #[test]
    fn noise_remembers_as_much_as_it_is_told_to() {
        let mut chance = Chance::new(8, "test", 0);
        let mut noise = Memory::default();
        let draws: Vec<f64> = (0..100_000).map(|_| noise.next(0.9, &mut chance)).collect();
        let (_, variance, _) = moments(&draws);
        let lagged = draws.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / draws.len() as f64;
        assert!(
            (lagged / variance - 0.9).abs() < 0.01,
            "{}",
            lagged / variance
        );
    }

    #[test]
    fn counts_have_the_mean_they_are_asked_for() {
        let mut chance = Chance::new(9, "test", 0);
        for mean in [0.0, 0.02, 3.0, 400.0] {
            let sum: u64 = (0..20_000).map(|_| chance.count(mean)).sum();
            let found = sum as f64 / 20_000.0;
            assert!(
                (found - mean).abs() <= 0.05 * mean.max(0.02),
                "{mean}: {found}"
            );
        }
    }

    #[test]
    fn streams_of_one_seed_differ_by_name_and_number_and_replay() {
        let first = |name, number| Chance::new(1, name, number).unit().to_bits();
        assert_eq!(first("a", 0), first("a", 0));
        assert_ne!(first("a", 0), first("a", 1));
        assert_ne!(first("a", 0), first("b", 0));
    }
}
