//! Decides how a value with its unit is printed for people: prefix, 3–4 significant digits, no-break space, true minus.
//!
//! For reading, never for storing: the digits are rounded. Refuses nothing: a value that is not finite is said to be so.

use std::time::Duration;

use super::{BINARY_PREFIXES, MINUS, NO_BREAK_SPACE, PREFIXES, Unit};

/// Groups the thousands of counts.
const NARROW_NO_BREAK_SPACE: char = '\u{202f}';

/// Renders `value`, in the base of `unit` (W, B/s, s, …), for people: prefix chosen, 3–4 significant digits, a no-break
/// space before the unit, a true minus sign. Whole bytes that are a multiple of 2²⁰ are printed in binary units.
#[must_use]
pub fn human(value: f64, unit: Unit) -> String {
    if value.is_nan() {
        return "not a number".to_owned();
    }
    if value.is_infinite() {
        return with_unit(&signed(value, "∞"), unit.symbol());
    }
    let magnitude = value.abs();
    match unit {
        Unit::Count => with_unit(&signed(value, &counted(magnitude)), ""),
        Unit::Byte if binary_fits(magnitude) => signed(value, &binary_bytes(magnitude)),
        Unit::Second if magnitude >= 60.0 => match Duration::try_from_secs_f64(magnitude) {
            Ok(duration) => signed(value, &human_duration(duration)),
            Err(_) => with_unit(&signed(value, &plain(magnitude)), "s"),
        },
        _ if unit.takes_prefix() => {
            let (digits, prefix) = prefixed(magnitude, unit.takes_small_prefix());
            with_unit(
                &signed(value, &digits),
                &format!("{prefix}{}", unit.symbol()),
            )
        }
        _ => with_unit(&signed(value, &plain(magnitude)), unit.symbol()),
    }
}

/// Renders a duration for people: `1.24 ms`, `12.5 s`, `10 min 5 s`, `41 h 20 min`.
#[must_use]
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 59.95 {
        let (digits, prefix) = prefixed(seconds, true);
        return with_unit(&digits, &format!("{prefix}s"));
    }
    let (whole, small, ratio) = if seconds < 3_599.5 {
        ("min", "s", 60)
    } else {
        ("h", "min", 60)
    };
    let smallest_s = if whole == "min" { 1.0 } else { 60.0 };
    // Below 2⁶³ for any Duration: at most 1.8e19 s / 60, or 3,600 s / 1.
    let units = (seconds / smallest_s).round() as u64;
    let (large, rest) = (units / ratio, units % ratio);
    if rest == 0 {
        with_unit(&large.to_string(), whole)
    } else {
        format!(
            "{}{NO_BREAK_SPACE}{}",
            with_unit(&large.to_string(), whole),
            with_unit(&rest.to_string(), small)
        )
    }
}

fn with_unit(number: &str, unit: &str) -> String {
    if unit.is_empty() {
        number.to_owned()
    } else {
        format!("{number}{NO_BREAK_SPACE}{unit}")
    }
}

fn signed(value: f64, magnitude: &str) -> String {
    if value < 0.0 {
        format!("{MINUS}{magnitude}")
    } else {
        magnitude.to_owned()
    }
}

/// Digits and prefix of a non-negative value; a value that rounds to 1,000 takes the next prefix.
fn prefixed(magnitude: f64, small: bool) -> (String, &'static str) {
    if magnitude < f64::MIN_POSITIVE {
        return ("0".to_owned(), "");
    }
    for (prefix, power) in PREFIXES {
        if power < 0 && !small {
            continue;
        }
        let scaled = magnitude / 10f64.powi(power);
        if scaled < 0.999_5 {
            break;
        }
        if scaled < 999.95 {
            return (three_digits(scaled), prefix);
        }
    }
    (plain(magnitude), "")
}

/// A value of 0.9995 or more and below 1,000: `1.23`, `12.3`, `459.8`.
fn three_digits(scaled: f64) -> String {
    let decimals = if scaled < 9.995 { 2 } else { 1 };
    format!("{scaled:.decimals$}")
}

/// A non-negative value without prefix: `0.0123`, `0.950`, `63.4`, `12 345`, `3.00 × 10⁻¹⁸`.
fn plain(magnitude: f64) -> String {
    if magnitude < f64::MIN_POSITIVE {
        return "0".to_owned();
    }
    if !(0.000_999_5..9.999_995e6).contains(&magnitude) {
        return scientific(magnitude);
    }
    if magnitude >= 999.95 {
        return grouped(magnitude.round() as u64);
    }
    if magnitude >= 0.999_5 {
        return three_digits(magnitude);
    }
    let decimals = [(0.099_95, 3), (0.009_995, 4)]
        .iter()
        .find(|(from, _)| magnitude >= *from)
        .map_or(5, |d| d.1);
    format!("{magnitude:.decimals$}")
}

fn scientific(magnitude: f64) -> String {
    let text = format!("{magnitude:.2e}");
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return text;
    };
    let raised: String = exponent.chars().filter_map(superscript).collect();
    format!("{mantissa}{NO_BREAK_SPACE}×{NO_BREAK_SPACE}10{raised}")
}

fn superscript(digit: char) -> Option<char> {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    match digit {
        '-' => Some('⁻'),
        _ => DIGITS.get(digit.to_digit(10)? as usize).copied(),
    }
}

/// A count is whole when it is a count; a mean of counts has a fraction.
fn counted(magnitude: f64) -> String {
    if magnitude < 9.0e15 && magnitude.fract().abs() < f64::EPSILON {
        grouped(magnitude as u64)
    } else {
        plain(magnitude)
    }
}

/// Groups from five digits on: `1234`, `12 345`.
fn grouped(whole: u64) -> String {
    let digits = whole.to_string();
    if digits.len() < 5 {
        return digits;
    }
    let mut out = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(NARROW_NO_BREAK_SPACE);
        }
        out.push(digit);
    }
    out
}

/// Whether a byte size was meant in binary units: a multiple of 2²⁰, or below it one of 2¹⁰ that is no multiple of 10³.
fn binary_fits(magnitude: f64) -> bool {
    if !(1_024.0..9.0e15).contains(&magnitude) || magnitude.fract() > 0.0 {
        return false;
    }
    let whole = magnitude as u64;
    let mebibytes = whole.is_multiple_of(1 << 20);
    mebibytes || (whole < 1 << 20 && whole.is_multiple_of(1 << 10) && !whole.is_multiple_of(1_000))
}

fn binary_bytes(magnitude: f64) -> String {
    let (prefix, power) = BINARY_PREFIXES
        .into_iter()
        .rev()
        .find(|(_, power)| magnitude >= 2f64.powi(*power as i32))
        .unwrap_or(BINARY_PREFIXES[0]);
    let scaled = magnitude / 2f64.powi(power as i32);
    let digits = if scaled.fract() > 0.0 {
        plain(scaled)
    } else {
        format!("{scaled:.0}")
    };
    with_unit(&digits, &format!("{prefix}B"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Bytes;

    fn spaced(text: &str) -> String {
        text.replace(NO_BREAK_SPACE, " ")
            .replace(NARROW_NO_BREAK_SPACE, "_")
            .replace(MINUS, "-")
    }

    fn shown(value: f64, unit: Unit) -> String {
        spaced(&human(value, unit))
    }

    #[test]
    fn people_read_a_prefix_three_or_four_digits_and_the_unit() {
        assert_eq!(shown(1.234e12, Unit::FlopPerSecond), "1.23 TFLOP/s");
        assert_eq!(shown(459.8e9, Unit::BytePerSecond), "459.8 GB/s");
        assert_eq!(shown(30_600.0, Unit::Watt), "30.6 kW");
        assert_eq!(shown(-3.25, Unit::Kelvin), "-3.25 K");
        assert_eq!(shown(0.95, Unit::One), "0.950");
        assert_eq!(shown(0.0123, Unit::Percent), "0.0123 %");
        assert_eq!(shown(3e-18, Unit::PerFlop), "3.00 × 10⁻¹⁸ 1/FLOP");
        assert_eq!(shown(12_345.0, Unit::Count), "12_345");
        assert_eq!(shown(2.5, Unit::Count), "2.50");
        assert_eq!(shown(0.0, Unit::Watt), "0 W");
    }

    #[test]
    fn a_value_that_rounds_to_a_thousand_takes_the_next_prefix() {
        assert_eq!(shown(999.96e9, Unit::FlopPerSecond), "1.00 TFLOP/s");
        assert_eq!(shown(999.94e9, Unit::FlopPerSecond), "999.9 GFLOP/s");
        assert_eq!(shown(9.996, Unit::Watt), "10.0 W");
        assert_eq!(shown(0.999_96, Unit::Second), "1.00 s");
    }

    #[test]
    fn there_is_no_millibyte() {
        assert_eq!(shown(0.25, Unit::BytePerSecond), "0.250 B/s");
    }

    #[test]
    fn gigabytes_and_gibibytes_are_never_confused() {
        assert_eq!(spaced(&Bytes::mebibytes(25).to_string()), "25 MiB");
        assert_eq!(spaced(&Bytes::gibibytes(80).to_string()), "80 GiB");
        assert_eq!(spaced(&Bytes(80_000_000_000).to_string()), "80.0 GB");
        assert_eq!(spaced(&Bytes(64_000).to_string()), "64.0 kB");
        assert_eq!(spaced(&Bytes(4_096).to_string()), "4 KiB");
        assert_eq!(spaced(&Bytes::mebibytes(1_536).to_string()), "1.50 GiB");
    }

    #[test]
    fn durations_read_as_people_say_them() {
        let said = |seconds: f64| spaced(&human_duration(Duration::from_secs_f64(seconds)));
        assert_eq!(said(0.001_24), "1.24 ms");
        assert_eq!(said(59.96), "1 min");
        assert_eq!(said(605.0), "10 min 5 s");
        assert_eq!(said(3_599.7), "1 h");
        assert_eq!(said(148_800.0), "41 h 20 min");
        assert_eq!(said(259_200.0), "72 h");
        assert_eq!(said(0.0), "0 s");
    }

    #[test]
    fn what_is_not_finite_is_said_not_hidden() {
        assert_eq!(human(f64::NAN, Unit::Watt), "not a number");
        assert_eq!(shown(f64::NEG_INFINITY, Unit::Watt), "-∞ W");
        assert_eq!(shown(1e300, Unit::Second), "1.00 × 10³⁰⁰ s");
    }

    #[test]
    fn every_unit_prints_every_magnitude_without_a_panic() {
        for unit in Unit::ALL {
            for power in -320..=308 {
                let value = 10f64.powi(power);
                assert!(
                    !human(value, unit).is_empty() && !human(-value, unit).is_empty(),
                    "{unit:?} 1e{power}"
                );
            }
        }
    }
}
