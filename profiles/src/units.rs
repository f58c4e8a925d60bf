//! Decides what a physical number is: one type per unit, arithmetic only where it is physical, and how a value is
//! printed for people.
//!
//! Refuses, at compile time, to add watts to joules or two absolute temperatures. GB is 10⁹ bytes, GiB is 2³⁰; what is
//! printed always says which one it used. [`human`] rounds to 3–4 significant digits: it is for reading, never for
//! storing (that is [`crate::quantity::Quantity`], which round-trips).

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Sub};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use render::{human, human_duration};

mod render;

/// Between a number and its unit: a line never breaks there.
pub const NO_BREAK_SPACE: char = '\u{a0}';
/// The true minus sign of printed numbers.
pub const MINUS: char = '\u{2212}';
/// The unit of a series, a limit or a reference, where it is only known at run time.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A plain ratio.
    One,
    Percent,
    Second,
    Byte,
    BytePerSecond,
    Flop,
    FlopPerSecond,
    Watt,
    Joule,
    /// An absolute temperature; differences are in [`Unit::Kelvin`].
    Celsius,
    /// A temperature difference.
    Kelvin,
    Hertz,
    /// Whole things: events, devices, steps.
    Count,
    PercentPerDay,
    WattPerSecond,
    FlopPerJoule,
    LitrePerMinute,
    LitrePerMinutePerKilowatt,
    KelvinPerWatt,
    LitrePerKilowattHour,
    /// A rate of silent errors per unit of work.
    PerFlop,
    /// A rate of failures per device and day.
    PerGpuDay,
    RevolutionPerMinute,
}

impl Unit {
    /// The unit of a distance between two values: kelvin between temperatures, otherwise its own.
    #[must_use]
    pub const fn difference(self) -> Self {
        match self {
            Self::Celsius => Self::Kelvin,
            own => own,
        }
    }

    /// Every unit, in the order in which they are listed to people.
    pub const ALL: [Unit; 23] = [
        Unit::One,
        Unit::Percent,
        Unit::Second,
        Unit::Byte,
        Unit::BytePerSecond,
        Unit::Flop,
        Unit::FlopPerSecond,
        Unit::Watt,
        Unit::Joule,
        Unit::Celsius,
        Unit::Kelvin,
        Unit::Hertz,
        Unit::Count,
        Unit::PercentPerDay,
        Unit::WattPerSecond,
        Unit::FlopPerJoule,
        Unit::LitrePerMinute,
        Unit::LitrePerMinutePerKilowatt,
        Unit::KelvinPerWatt,
        Unit::LitrePerKilowattHour,
        Unit::PerFlop,
        Unit::PerGpuDay,
        Unit::RevolutionPerMinute,
    ];

    /// The symbol that people read and write, without prefix; empty for a plain ratio.
    #[must_use]
    pub const fn symbol(self) -> &'static str {
        match self {
            Unit::One => "",
            Unit::Percent => "%",
            Unit::Second => "s",
            Unit::Byte => "B",
            Unit::BytePerSecond => "B/s",
            Unit::Flop => "FLOP",
            Unit::FlopPerSecond => "FLOP/s",
            Unit::Watt => "W",
            Unit::Joule => "J",
            Unit::Celsius => "°C",
            Unit::Kelvin => "K",
            Unit::Hertz => "Hz",
            Unit::Count => "count",
            Unit::PercentPerDay => "%/day",
            Unit::WattPerSecond => "W/s",
            Unit::FlopPerJoule => "FLOP/J",
            Unit::LitrePerMinute => "L/min",
            Unit::LitrePerMinutePerKilowatt => "L/min/kW",
            Unit::KelvinPerWatt => "K/W",
            Unit::LitrePerKilowattHour => "L/kWh",
            Unit::PerFlop => "1/FLOP",
            Unit::PerGpuDay => "1/GPU-day",
            Unit::RevolutionPerMinute => "rpm",
        }
    }

    /// Whether k, M, G … and m, µ, n are used with this unit.
    #[must_use]
    pub const fn takes_prefix(self) -> bool {
        matches!(
            self,
            Unit::Second
                | Unit::Byte
                | Unit::BytePerSecond
                | Unit::Flop
                | Unit::FlopPerSecond
                | Unit::Watt
                | Unit::Joule
                | Unit::Hertz
                | Unit::WattPerSecond
                | Unit::FlopPerJoule
                | Unit::KelvinPerWatt
        )
    }

    /// Whether prefixes below one (m, µ, n) make sense: there is no millibyte.
    #[must_use]
    pub const fn takes_small_prefix(self) -> bool {
        self.takes_prefix()
            && !matches!(
                self,
                Unit::Byte
                    | Unit::BytePerSecond
                    | Unit::Flop
                    | Unit::FlopPerSecond
                    | Unit::FlopPerJoule
            )
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Unit::One {
            "1"
        } else {
            self.symbol()
        })
    }
}

/// The decimal prefixes: spelling, power of ten. Ordered from small to large.
pub(crate) const PREFIXES: [(&str, i32); 13] = [
    ("p", -12),
    ("n", -9),
    ("µ", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
    ("Z", 21),
    ("Y", 24),
];

/// The binary prefixes of bytes: spelling, power of two. Ordered from small to large.
pub(crate) const BINARY_PREFIXES: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];

/// A number of bytes, exact.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&human(self.0 as f64, Unit::Byte))
    }
}

impl Bytes {
    /// `count` × 2²⁰ bytes; saturates at `u64::MAX`.
    #[must_use]
    pub const fn mebibytes(count: u64) -> Bytes {
        Bytes(count.saturating_mul(1 << 20))
    }

    /// `count` × 2³⁰ bytes; saturates at `u64::MAX`.
    #[must_use]
    pub const fn gibibytes(count: u64) -> Bytes {
        Bytes(count.saturating_mul(1 << 30))
    }
}

impl Add for Bytes {
    type Output = Bytes;
    /// Saturates: a sum of sizes beyond 2⁶⁴ fits no machine, and must not wrap into one that does.
    fn add(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Bytes) {
        *self = *self + other;
    }
}

impl Mul<u64> for Bytes {
    type Output = Bytes;
    /// Saturates, as [`Bytes::add`] does.
    fn mul(self, count: u64) -> Bytes {
        Bytes(self.0.saturating_mul(count))
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Bytes>>(items: I) -> Bytes {
        items.fold(Bytes(0), Add::add)
    }
}

macro_rules! float_unit {
    ($(#[$doc:meta])* $name:ident, $unit:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub f64);

        impl $name {
            /// The same unit, for values whose unit is only known at run time.
            pub const UNIT: Unit = $unit;
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&human(self.0, $unit))
            }
        }
    };
}

/// Amounts and rates can be added, scaled, and compared as a ratio; absolute temperatures cannot.
macro_rules! linear {
    ($($name:ident),+) => {$(
        impl Add for $name {
            type Output = $name;
            fn add(self, other: $name) -> $name {
                $name(self.0 + other.0)
            }
        }
        impl AddAssign for $name {
            fn add_assign(&mut self, other: $name) {
                self.0 += other.0;
            }
        }
        impl Sub for $name {
            type Output = $name;
            fn sub(self, other: $name) -> $name {
                $name(self.0 - other.0)
            }
        }
        impl Mul<f64> for $name {
            type Output = $name;
            fn mul(self, factor: f64) -> $name {
                $name(self.0 * factor)
            }
        }
        impl Div<f64> for $name {
            type Output = $name;
            fn div(self, divisor: f64) -> $name {
                $name(self.0 / divisor)
            }
        }
        impl Div for $name {
            type Output = f64;
            fn div(self, other: $name) -> f64 {
                self.0 / other.0
            }
        }
        impl Sum for $name {
            fn sum<I: Iterator<Item = $name>>(items: I) -> $name {
                $name(items.map(|item| item.0).sum())
            }
        }
    )+};
}

/// `$amount / Duration = $rate` and back. A zero duration gives infinity (or NaN for zero amounts), which every consumer
/// of a rate refuses: it is never turned into a zero.
macro_rules! per_time {
    ($amount:ident, $rate:ident) => {
        impl Div<Duration> for $amount {
            type Output = $rate;
            fn div(self, elapsed: Duration) -> $rate {
                $rate(self.0 as f64 / elapsed.as_secs_f64())
            }
        }
    };
}

float_unit!(
    /// Bytes per second.
    ByteRate,
    Unit::BytePerSecond
);
float_unit!(
    /// Floating-point operations: 2·m·n·k for a matmul.
    Flops,
    Unit::Flop
);
float_unit!(
    /// Floating-point operations per second.
    FlopRate,
    Unit::FlopPerSecond
);
float_unit!(
    /// Power.
    Watts,
    Unit::Watt
);
float_unit!(
    /// Energy.
    Joules,
    Unit::Joule
);
float_unit!(
    /// An absolute temperature. Its difference to another is in [`Kelvin`]:
    ///
    /// ```
    /// use hallmark_profiles::units::{Celsius, Kelvin};
    /// let difference: Kelvin = Celsius(45.0) - Celsius(40.0);
    /// ```
    /// A sum of two has no meaning:
    ///
    /// ```compile_fail
    /// use hallmark_profiles::units::Celsius;
    /// let nonsense = Celsius(40.0) + Celsius(40.0);
    /// ```
    Celsius,
    Unit::Celsius
);
float_unit!(
    /// A temperature difference.
    Kelvin,
    Unit::Kelvin
);
float_unit!(
    /// Cycles per second.
    Hertz,
    Unit::Hertz
);

linear!(ByteRate, Flops, FlopRate, Watts, Joules, Kelvin, Hertz);
per_time!(Bytes, ByteRate);
per_time!(Flops, FlopRate);
per_time!(Joules, Watts);

impl Mul<Duration> for Watts {
    type Output = Joules;
    fn mul(self, elapsed: Duration) -> Joules {
        Joules(self.0 * elapsed.as_secs_f64())
    }
}

impl Mul<Duration> for FlopRate {
    type Output = Flops;
    fn mul(self, elapsed: Duration) -> Flops {
        Flops(self.0 * elapsed.as_secs_f64())
    }
}

impl Sub for Celsius {
    type Output = Kelvin;
    fn sub(self, other: Celsius) -> Kelvin {
        Kelvin(self.0 - other.0)
    }
}

impl Add<Kelvin> for Celsius {
    type Output = Celsius;
    fn add(self, difference: Kelvin) -> Celsius {
        Celsius(self.0 + difference.0)
    }
}

impl Sub<Kelvin> for Celsius {
    type Output = Celsius;
    fn sub(self, difference: Kelvin) -> Celsius {
        Celsius(self.0 - difference.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_keeps_the_units() {
        let second = Duration::from_secs(2);
        assert_eq!(Bytes(10) / second, ByteRate(5.0));
        assert_eq!(Flops(10.0) / second, FlopRate(5.0));
        assert_eq!(Watts(10.0) * second, Joules(20.0));
        assert_eq!(Joules(20.0) / second, Watts(10.0));
        assert_eq!(Celsius(50.0) - Celsius(45.0), Kelvin(5.0));
        assert_eq!(Celsius(50.0) - Kelvin(5.0), Celsius(45.0));
        assert_eq!(
            [Watts(1.0), Watts(2.0)].into_iter().sum::<Watts>(),
            Watts(3.0)
        );
        assert_eq!(
            Bytes(u64::MAX) + Bytes(1),
            Bytes(u64::MAX),
            "a size never wraps"
        );
    }
}
