//! Decides the quantities whose kind and range are fixed: a duration above zero, one that may be zero, a size.
//!
//! Refuses zero, negative values, fractions of a byte, and what is too long for its nanoseconds to stay exact.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::text::{Parsed, shown};
use super::{EXACT_MAX, Quantity, QuantityError, for_people};
use crate::units::{Bytes, Unit};

/// The longest duration: its nanoseconds are still exact.
const LONGEST: Duration = Duration::from_secs(100 * 86_400);

/// A duration above zero, from 1 ns to 100 days: `"10 min"`, `"72 h"`, `"500 ms"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

/// A duration of zero or more, to 100 days: `"0 s"`, `"10 min"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOrZero(Duration);

/// A size above zero in whole bytes: `"25 MiB"`, `"8 GB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(Bytes);

impl Time {
    /// `None` for a duration of zero or above 100 days.
    #[must_use]
    pub fn new(duration: Duration) -> Option<Time> {
        (!duration.is_zero() && duration <= LONGEST).then_some(Time(duration))
    }

    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl TimeOrZero {
    /// `None` above 100 days.
    #[must_use]
    pub fn new(duration: Duration) -> Option<TimeOrZero> {
        (duration <= LONGEST).then_some(TimeOrZero(duration))
    }

    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl Size {
    /// `None` for zero bytes or more than 2⁵³ (8192 TiB), up to which every size is exact in its text.
    #[must_use]
    pub fn new(bytes: Bytes) -> Option<Size> {
        (bytes.0 > 0 && bytes.0 <= EXACT_MAX as u64).then_some(Size(bytes))
    }

    #[must_use]
    pub const fn bytes(self) -> Bytes {
        self.0
    }
}

/// Reads a duration; zero is let through, the caller decides.
fn duration(text: &str) -> Result<Duration, QuantityError> {
    let parsed = Parsed::read(text)?;
    if parsed.unit != Unit::Second {
        return Err(wrong_unit(
            &parsed,
            "a unit of time",
            "such as `10 min` or `500 ms`",
        ));
    }
    let nanoseconds = parsed.value(9)?;
    let text = || shown(text);
    if nanoseconds < 0.0 {
        return Err(QuantityError::Negative { text: text() });
    }
    let zero = nanoseconds < f64::MIN_POSITIVE;
    if !zero && !(1.0..=LONGEST.as_nanos() as f64).contains(&nanoseconds) {
        return Err(QuantityError::OutOfRange { text: text() });
    }
    Ok(Duration::from_nanos(nanoseconds.round() as u64))
}

fn wrong_unit(parsed: &Parsed<'_>, wanted: &'static str, example: &'static str) -> QuantityError {
    let found = if parsed.unit == Unit::One {
        "no unit".to_owned()
    } else {
        format!("`{}`", parsed.unit)
    };
    QuantityError::WrongUnit {
        text: shown(parsed.text),
        found,
        wanted,
        example,
    }
}

/// Whole numbers of the largest unit that leaves none over: exact by construction.
fn duration_text(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let units: [(&str, u128); 6] = [
        ("h", 3_600_000_000_000),
        ("min", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("µs", 1_000),
        ("ns", 1),
    ];
    let whole = units
        .iter()
        .find(|(_, length)| nanoseconds > 0 && nanoseconds.is_multiple_of(*length));
    whole.map_or_else(
        || "0 s".to_owned(),
        |(name, length)| format!("{} {name}", nanoseconds / length),
    )
}

impl FromStr for Time {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Time, QuantityError> {
        let not_positive = || QuantityError::NotPositive { text: shown(text) };
        match duration(text) {
            Ok(Duration::ZERO) | Err(QuantityError::Negative { .. }) => Err(not_positive()),
            other => other.map(Time),
        }
    }
}

impl FromStr for TimeOrZero {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<TimeOrZero, QuantityError> {
        duration(text).map(TimeOrZero)
    }
}

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Size, QuantityError> {
        let parsed = Parsed::read(text)?;
        if parsed.unit != Unit::Byte {
            return Err(wrong_unit(
                &parsed,
                "bytes",
                "such as `25 MiB` (2²⁰) or `25 MB` (10⁶)",
            ));
        }
        let bytes = parsed.value(0)?;
        if !(1.0..=EXACT_MAX).contains(&bytes) || bytes.fract() > 0.0 {
            return Err(QuantityError::NotASize { text: shown(text) });
        }
        Ok(Size(Bytes(bytes as u64)))
    }
}

impl Time {
    fn canonical(self) -> String {
        duration_text(self.0)
    }
}

impl TimeOrZero {
    fn canonical(self) -> String {
        duration_text(self.0)
    }
}

impl Size {
    fn canonical(self) -> String {
        Quantity::new(self.0.0 as f64, Unit::Byte).canonical()
    }
}

macro_rules! display_text {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&for_people(&self.canonical()))
            }
        }
    )+};
}

display_text!(Time, TimeOrZero, Size);

as_text!(
    Time,
    "a duration above zero, such as \"10 min\", \"72 h\" or \"500 ms\"",
    "string",
    "[+]?",
    "(ns|µs|us|ms|s|min|h|d|days?)",
    ["500 ms", "10 s", "10 min", "72 h"],
    |_| None
);
as_text!(
    TimeOrZero,
    "a duration of zero or more, such as \"0 s\" or \"10 min\"",
    "string",
    "[+]?",
    "(ns|µs|us|ms|s|min|h|d|days?)",
    ["0 s", "500 ms", "10 min"],
    |_| None
);
as_text!(
    Size,
    "a size above zero in whole bytes, such as \"25 MiB\" (2²⁰) or \"8 GB\" (10⁹)",
    "string",
    "[+]?",
    "(B|[kMGTPEZY]B|[KMGTPE]iB)",
    ["25 MiB", "1 GiB", "8 GB"],
    |_| None
);

#[cfg(test)]
mod tests {
    use super::super::seeded::Seeded;
    use super::*;

    #[test]
    fn a_duration_is_above_zero_and_exact() {
        for (text, written) in [
            ("10 min", "10 min"),
            ("72 h", "72 h"),
            ("3 day", "72 h"),
            ("90 s", "90 s"),
            ("0.5 s", "500 ms"),
            ("1 ns", "1 ns"),
            ("0.1 h", "6 min"),
        ] {
            let time: Time = text.parse().unwrap();
            assert_eq!(time.canonical(), written);
            assert_eq!(
                time.to_string().parse::<Time>(),
                Ok(time),
                "what people read parses too"
            );
        }
        for text in ["0 s", "-1 s", "-0 s", "0 h"] {
            let error = text.parse::<Time>().unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("is not above zero; write how long"),
                "{error}"
            );
        }
        assert_eq!("0 s".parse::<TimeOrZero>(), Ok(TimeOrZero(Duration::ZERO)));
        assert!(
            "-1 ms"
                .parse::<TimeOrZero>()
                .unwrap_err()
                .to_string()
                .contains("is negative")
        );
        assert!(
            "0.5 ns"
                .parse::<Time>()
                .unwrap_err()
                .to_string()
                .contains("outside of 1 ns to 100 days")
        );
        assert!("101 day".parse::<TimeOrZero>().is_err());
        let error = "10".parse::<Time>().unwrap_err().to_string();
        assert_eq!(
            error,
            "`10` is in no unit, not in a unit of time; write such as `10 min` or `500 ms`"
        );
    }

    #[test]
    fn every_nanosecond_survives_the_text() {
        let mut seeded = Seeded(13);
        for _ in 0..20_000 {
            let time = Time::new(Duration::from_nanos(
                1 + seeded.next() % LONGEST.as_nanos() as u64,
            ))
            .unwrap();
            assert_eq!(time.canonical().parse::<Time>(), Ok(time), "seed 13");
        }
    }

    #[test]
    fn a_size_is_whole_bytes_and_gib_is_not_gb() {
        assert_eq!(
            "25 MiB".parse::<Size>().unwrap().bytes(),
            Bytes::mebibytes(25)
        );
        assert_eq!(
            "8 GB".parse::<Size>().unwrap().bytes(),
            Bytes(8_000_000_000)
        );
        assert_ne!("8 GB".parse::<Size>(), "8 GiB".parse::<Size>());
        for (text, written) in [
            ("26214400 B", "25 MiB"),
            ("25 MB", "25 MB"),
            ("1.5 KiB", "1.536 kB"),
            ("1 GiB", "1 GiB"),
        ] {
            assert_eq!(text.parse::<Size>().unwrap().canonical(), written);
        }
        for text in ["0 B", "-1 B", "0.5 B", "1e30 B", "25"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
