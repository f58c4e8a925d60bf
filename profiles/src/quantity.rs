//! Decides how a number with its unit is written in a profile: `"850 TFLOP/s"`, `"30.6 kW"`, `"25 MiB"`, `"10 min"`.
//!
//! Refuses a unit it does not know (the error lists those it knows), a value that is not finite, a duration or a size of
//! zero or less, and text that only nearly parses. What it writes it reads back to the same bits: decimal prefixes move
//! the exponent of the text, so no rounding happens between text and number. GB is 10⁹, GiB is 2³⁰.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use crate::units::{MINUS, NO_BREAK_SPACE, Unit};

use text::{Parsed, decimal_text, size_text, time_text};

pub use bounded::{Size, Time, TimeOrZero};

mod text;

/// Longer text is no quantity.
const TEXT_BYTES_MAX: usize = 64;
/// Up to here every whole number of bytes or nanoseconds is exact in an f64.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
const KNOWN_UNITS: &str = "ns, µs, ms, s, min, h, day; B, kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (powers of 1024); \
     B/s … TB/s, KiB/s … TiB/s; FLOP … EFLOP; FLOP/s … EFLOP/s; W, kW, MW; J, kJ, MJ, Wh, kWh, MWh; W/s, kW/s, MW/s; \
     FLOP/J … TFLOP/J; Hz … GHz; °C or degC (a temperature), K (a difference); %, %/day; L/min, L/min/kW, K/W, L/kWh; \
     1/FLOP, 1/GPU-day, rpm, count; none for a ratio";

/// Why a text is no quantity.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum QuantityError {
    #[error(
        "`{text}` does not start with a number; write a number, a space and a unit, such as `30.6 kW`"
    )]
    NoNumber { text: String },
    #[error("unknown unit `{unit}` in `{text}`{hint}; known: {KNOWN_UNITS}")]
    UnknownUnit {
        unit: String,
        text: String,
        hint: String,
    },
    #[error(
        "`{text}` is too large or too small for a number; write a finite value that is not rounded to zero"
    )]
    NotFinite { text: String },
    #[error(
        "`{text}` is {bytes} bytes long, a quantity has at most {TEXT_BYTES_MAX}; write such as `30.6 kW`"
    )]
    TooLong { text: String, bytes: usize },
    #[error("`{text}` is in {found}, not in {wanted}; write {example}")]
    WrongUnit {
        text: String,
        found: String,
        wanted: &'static str,
        example: &'static str,
    },
    #[error("duration `{text}` is not above zero; write how long, such as `10 min`")]
    NotPositive { text: String },
    #[error("duration `{text}` is negative; write `0 s` or longer")]
    Negative { text: String },
    #[error("duration `{text}` is outside of 1 ns to 100 days; write such as `10 min` or `72 h`")]
    OutOfRange { text: String },
    #[error(
        "size `{text}` is not a whole number of bytes from 1 B to 8192 TiB; write such as `25 MiB`"
    )]
    NotASize { text: String },
}

/// A value whose unit is not the one that was asked for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{quantity}` is in {found}, this needs {wanted}")]
pub struct UnitMismatch {
    pub quantity: String,
    pub found: Unit,
    pub wanted: Unit,
}

/// A number with its unit. `value` is in the unit's base: W, B/s, s, FLOP/s; per cent and L/min stay as they are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantity {
    pub value: f64,
    pub unit: Unit,
}

impl Quantity {
    #[must_use]
    pub const fn new(value: f64, unit: Unit) -> Quantity {
        Quantity { value, unit }
    }

    /// The value in the base of `wanted`. Per cent and plain ratios convert into each other (`0.5 %` is 0.005), plain
    /// numbers serve as counts and counts as plain numbers; nothing else converts: a temperature (°C) is no difference (K).
    ///
    /// # Errors
    /// [`UnitMismatch`] for any other pair of units.
    pub fn in_unit(self, wanted: Unit) -> Result<f64, UnitMismatch> {
        match (self.unit, wanted) {
            (found, wanted) if found == wanted => Ok(self.value),
            (Unit::Percent, Unit::One) => Ok(self.value / 100.0),
            (Unit::One, Unit::Percent) => Ok(self.value * 100.0),
            (Unit::One, Unit::Count) | (Unit::Count, Unit::One) => Ok(self.value),
            (found, wanted) => Err(UnitMismatch {
                quantity: self.canonical(),
                found,
                wanted,
            }),
        }
    }

    /// The shortest text that parses back to the same bits, with a plain space: what is stored.
    #[must_use]
    pub fn canonical(self) -> String {
        if !self.value.is_finite() {
            return format!("{} {}", self.value, self.unit);
        }
        let magnitude = self.value.abs();
        let sign = if self.value < 0.0 { "-" } else { "" };
        let (digits, unit) = match self.unit {
            Unit::Second => time_text(magnitude),
            Unit::Byte => size_text(magnitude),
            unit => decimal_text(magnitude, unit),
        };
        let space = if unit.is_empty() { "" } else { " " };
        format!("{sign}{digits}{space}{unit}")
    }
}

impl fmt::Display for Quantity {
    /// The canonical text as people read it: no-break space, true minus sign. It parses back too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&for_people(&self.canonical()))
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        let parsed = Parsed::read(text)?;
        let value = parsed.value(0)?;
        Ok(Quantity {
            value,
            unit: parsed.unit,
        })
    }
}

fn for_people(canonical: &str) -> String {
    // A minus only leads: exponents below zero keep the ASCII one, which is how the parser wants them.
    let spaced = canonical.replace(' ', &NO_BREAK_SPACE.to_string());
    match spaced.strip_prefix('-') {
        Some(magnitude) => format!("{MINUS}{magnitude}"),
        None => spaced,
    }
}

/// Text in files: a string both ways; a schema with a pattern and examples, so that editors complete it.
macro_rules! as_text {
    ($name:ident, $what:literal, $types:tt, $sign:literal, $units:literal, $examples:tt, $number:expr) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.canonical())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_f64<E: de::Error>(self, number: f64) -> Result<$name, E> {
                        let from_number: fn(f64) -> Option<$name> = $number;
                        from_number(number)
                            .ok_or_else(|| E::invalid_value(de::Unexpected::Float(number), &self))
                    }
                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        self.visit_f64(number as f64)
                    }
                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        self.visit_f64(number as f64)
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn schema_id() -> Cow<'static, str> {
                concat!(module_path!(), "::", stringify!($name)).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": $types,
                    "description": $what,
                    "pattern": concat!(r"^\s*",
                        $sign,
                        r"[0-9][0-9_]*(\.[0-9_]+)?([eE][-+]?[0-9]+)?\s*", $units, r"\s*$"),
                    "examples": $examples
                })
            }
        }
    };
}

as_text!(
    Quantity,
    "a number and its unit, such as \"850 TFLOP/s\", \"30.6 kW\", \"0.5 %\"; a ratio has no unit",
    ["string", "number"],
    "[-+−]?",
    r"\S*",
    [
        "850 TFLOP/s",
        "30.6 kW",
        "3 GB/s",
        "25 MiB",
        "10 min",
        "45 °C",
        "5 K",
        "0.5 %",
        "1.2 L/min/kW",
        "0.98"
    ],
    |number| number
        .is_finite()
        .then_some(Quantity::new(number, Unit::One))
);
mod bounded;

/// A seeded source of chance for the tests of this folder.
#[cfg(test)]
mod seeded {
    /// SplitMix64: every run of the tests sees the same numbers.
    pub(super) struct Seeded(pub(super) u64);

    impl Seeded {
        pub(super) fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seeded::Seeded;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn refused(text: &str) -> String {
        text.parse::<Quantity>().expect_err(text).to_string()
    }

    #[test]
    fn a_profile_writes_quantities_as_people_do() {
        for (text, value, unit) in [
            ("850 TFLOP/s", 850e12, Unit::FlopPerSecond),
            ("30.6 kW", 30_600.0, Unit::Watt),
            ("25 MiB", 26_214_400.0, Unit::Byte),
            ("25 MB", 25e6, Unit::Byte),
            ("10 min", 600.0, Unit::Second),
            ("72 h", 259_200.0, Unit::Second),
            ("500 ms", 0.5, Unit::Second),
            ("3 us", 3e-6, Unit::Second),
            ("0.5 %", 0.5, Unit::Percent),
            ("0.5 %/day", 0.5, Unit::PercentPerDay),
            ("1.2 L/min/kW", 1.2, Unit::LitrePerMinutePerKilowatt),
            ("5 K", 5.0, Unit::Kelvin),
            ("\u{2212}5 K", -5.0, Unit::Kelvin),
            ("45 °C", 45.0, Unit::Celsius),
            ("45 degC", 45.0, Unit::Celsius),
            ("10 Hz", 10.0, Unit::Hertz),
            ("3 GB/s", 3e9, Unit::BytePerSecond),
            ("3 GiB/s", 3.0 * 1_073_741_824.0, Unit::BytePerSecond),
            ("2", 2.0, Unit::One),
            ("1 kWh", 3.6e6, Unit::Joule),
            ("1_024 count", 1_024.0, Unit::Count),
            ("30000\u{a0}W", 30_000.0, Unit::Watt),
            ("5EFLOP", 5e18, Unit::Flop),
            ("1e3 MW", 1e9, Unit::Watt),
            ("3.0e-4 1/GPU-day", 3e-4, Unit::PerGpuDay),
        ] {
            assert_eq!(quantity(text), Quantity::new(value, unit), "{text}");
        }
    }

    #[test]
    fn an_unknown_unit_lists_the_known_ones() {
        let error = refused("850 TFLOPS");
        assert!(
            error.starts_with("unknown unit `TFLOPS` in `850 TFLOPS`; known: ns, µs, ms, s, min"),
            "{error}"
        );
        for unit in Unit::ALL.iter().filter(|unit| **unit != Unit::One) {
            assert!(error.contains(unit.symbol()), "{unit} is not listed");
        }
        assert!(refused("25 KB").contains("(did you mean `kB`?)"));
        assert!(refused("5 mb").contains("(did you mean `MB`?)"));
        assert!(
            refused("5 mb/s").contains("`MB/s`"),
            "there is no millibyte to suggest"
        );
    }

    #[test]
    fn what_only_nearly_parses_is_refused() {
        for text in [
            "",
            " ",
            "kW",
            "nan",
            "NaN W",
            "inf",
            "-inf W",
            "+",
            "-",
            ".5 W",
            "5. W",
            "1..2 W",
            "1,5 kW",
            "1 000 W",
            "--5 W",
            "1e400 W",
            "1e-400 W",
            "0x10 B",
            "5 W W",
            "5 mB",
            "5 kK",
            "5 k%",
            "1_ W",
            "_1 W",
            "1__0 W",
            "٣ W",
            "1e99999999999 W",
        ] {
            assert!(
                text.parse::<Quantity>().is_err(),
                "`{text}` was taken as {:?}",
                text.parse::<Quantity>()
            );
        }
        assert!(refused(&"9".repeat(65)).contains("is 65 bytes long"));
        assert!(
            !refused("5 \u{1b}[31m").contains('\u{1b}'),
            "an error is one plain line"
        );
    }

    #[test]
    fn what_is_written_reads_back_to_the_same_bits() {
        let mut seeded = Seeded(7);
        for round in 0..10_000 {
            let unit = Unit::ALL[(seeded.next() % Unit::ALL.len() as u64) as usize];
            let value = match round % 4 {
                0 => (seeded.next() % 1_000_000) as f64,
                1 => {
                    (seeded.next() % 10_000) as f64 / 100.0
                        * 10f64.powi((seeded.next() % 31) as i32 - 12)
                }
                2 => (seeded.next() % 100_000) as f64 * 1_024.0,
                _ => f64::from_bits(seeded.next()),
            };
            if !value.is_normal() && value.to_bits() != 0 {
                continue;
            }
            let original = Quantity::new(value, unit);
            for text in [original.canonical(), original.to_string()] {
                let read = text
                    .parse::<Quantity>()
                    .unwrap_or_else(|error| panic!("seed 7, {value:e} {unit:?}: {error}"));
                assert_eq!(
                    (read.value.to_bits(), read.unit),
                    (value.to_bits(), unit),
                    "seed 7, `{text}`"
                );
                assert_eq!(
                    read.canonical(),
                    original.canonical(),
                    "one value, one text"
                );
            }
        }
    }

    #[test]
    fn hostile_text_never_panics() {
        const PIECES: [&str; 26] = [
            "1",
            "0",
            "9",
            ".",
            "e",
            "E",
            "-",
            "+",
            "_",
            " ",
            "\u{a0}",
            "\u{2212}",
            "k",
            "Mi",
            "B",
            "/s",
            "°C",
            "%",
            "µ",
            "min",
            "\u{0}",
            "\u{202e}",
            "🔥",
            "FLOP",
            "99999999999999999999",
            "1e308",
        ];
        let mut seeded = Seeded(11);
        for _ in 0..10_000 {
            let length = seeded.next() % 9;
            let text: String = (0..length)
                .map(|_| PIECES[(seeded.next() % 26) as usize])
                .collect();
            if let Ok(read) = text.parse::<Quantity>() {
                assert!(read.value.is_finite(), "seed 11, `{text}`");
            }
            for error in [
                text.parse::<Time>().err().map(|e| e.to_string()),
                text.parse::<TimeOrZero>().err().map(|e| e.to_string()),
                text.parse::<Size>().err().map(|e| e.to_string()),
            ] {
                assert!(
                    !error.is_some_and(|line| line.contains(['\n', '\0'])),
                    "seed 11, `{text:?}`"
                );
            }
        }
    }

    #[test]
    fn per_cent_and_ratio_convert_but_a_temperature_is_no_difference() {
        assert!((quantity("0.5 %").in_unit(Unit::One).unwrap() - 0.005).abs() < 1e-15);
        assert!((quantity("0.97").in_unit(Unit::Percent).unwrap() - 97.0).abs() < 1e-12);
        let error = quantity("5 °C")
            .in_unit(Unit::Kelvin)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "`5 °C` is in °C, this needs K");
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        limit: Quantity,
        hold: Time,
        ramp: TimeOrZero,
        bucket: Size,
    }

    #[test]
    fn a_file_reads_back_as_it_was_written() {
        let text =
            "limit = \"850 TFLOP/s\"\nhold = \"10 min\"\nramp = \"0 s\"\nbucket = \"25 MiB\"\n";
        let file: File = toml::from_str(text).unwrap();
        assert_eq!(toml::to_string(&file).unwrap(), text);
        let ratio: File = toml::from_str(&text.replace("\"850 TFLOP/s\"", "0.97")).unwrap();
        assert_eq!(ratio.limit, Quantity::new(0.97, Unit::One));
        for (from, to) in [
            ("\"10 min\"", "10"),
            ("\"25 MiB\"", "25"),
            ("\"850 TFLOP/s\"", "nan"),
            ("\"850 TFLOP/s\"", "true"),
        ] {
            assert!(
                toml::from_str::<File>(&text.replace(from, to)).is_err(),
                "{to} was taken"
            );
        }
    }
}
