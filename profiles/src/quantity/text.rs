//! Decides how a number and its unit are spelled, both ways, without losing a bit.
//!
//! A decimal prefix moves the exponent of the text and never multiplies a float; refuses what only nearly parses.

use super::{EXACT_MAX, QuantityError, TEXT_BYTES_MAX};
use crate::units::{BINARY_PREFIXES, MINUS, PREFIXES, Unit};

/// Characters of a text that an error repeats.
const SHOWN_MAX: usize = 24;

/// What a unit's spelling multiplies the number with: 10^`power` by moving the decimal point, then `factor`.
#[derive(Clone, Copy)]
struct Spelling {
    unit: Unit,
    power: i32,
    factor: f64,
}

/// Spellings that are no prefix before a symbol.
const SPECIAL: [(&str, Unit, i32, f64); 13] = [
    ("min", Unit::Second, 0, 60.0),
    ("h", Unit::Second, 0, 3_600.0),
    ("d", Unit::Second, 0, 86_400.0),
    ("day", Unit::Second, 0, 86_400.0),
    ("days", Unit::Second, 0, 86_400.0),
    ("Wh", Unit::Joule, 0, 3_600.0),
    ("kWh", Unit::Joule, 3, 3_600.0),
    ("MWh", Unit::Joule, 6, 3_600.0),
    ("degC", Unit::Celsius, 0, 1.0),
    ("\u{2103}", Unit::Celsius, 0, 1.0),
    ("%/d", Unit::PercentPerDay, 0, 1.0),
    ("/FLOP", Unit::PerFlop, 0, 1.0),
    ("/GPU-day", Unit::PerGpuDay, 0, 1.0),
];

fn spelling(text: &str) -> Option<Spelling> {
    if let Some((_, unit, power, factor)) = SPECIAL.into_iter().find(|special| special.0 == text) {
        return Some(Spelling {
            unit,
            power,
            factor,
        });
    }
    if let Some(unit) = Unit::ALL.into_iter().find(|unit| unit.symbol() == text) {
        return Some(Spelling {
            unit,
            power: 0,
            factor: 1.0,
        });
    }
    for unit in Unit::ALL.into_iter().filter(|unit| unit.takes_prefix()) {
        let Some(prefix) = text.strip_suffix(unit.symbol()) else {
            continue;
        };
        if matches!(unit, Unit::Byte | Unit::BytePerSecond)
            && let Some((_, bits)) = BINARY_PREFIXES.into_iter().find(|known| known.0 == prefix)
        {
            return Some(Spelling {
                unit,
                power: 0,
                factor: 2f64.powi(bits as i32),
            });
        }
        let prefix = if matches!(prefix, "u" | "\u{3bc}") {
            "µ"
        } else {
            prefix
        };
        let known = PREFIXES.into_iter().find(|known| known.0 == prefix);
        if let Some((_, power)) = known.filter(|known| known.1 >= 0 || unit.takes_small_prefix()) {
            return Some(Spelling {
                unit,
                power,
                factor: 1.0,
            });
        }
    }
    None
}

/// The known spelling that differs only in case, if there is one: `KB` was meant as `kB`, but that is not ours to decide.
fn near(text: &str) -> String {
    let lowered = text.to_lowercase();
    let mut candidates: Vec<String> = SPECIAL.iter().map(|special| special.0.to_owned()).collect();
    for unit in Unit::ALL {
        candidates.push(unit.symbol().to_owned());
        if unit.takes_prefix() {
            candidates.extend(
                PREFIXES
                    .iter()
                    .filter(|known| known.1 >= 0 || unit.takes_small_prefix())
                    .map(|known| format!("{}{}", known.0, unit.symbol())),
            );
        }
    }
    let matching: Vec<String> = candidates
        .into_iter()
        .filter(|known| known.to_lowercase() == lowered)
        .map(|known| format!("`{known}`"))
        .collect();
    if matching.is_empty() {
        String::new()
    } else {
        format!(" (did you mean {}?)", matching.join(" or "))
    }
}

/// A text taken apart: the number still as text, so that a prefix can move its exponent exactly.
pub(super) struct Parsed<'a> {
    pub(super) text: &'a str,
    negative: bool,
    /// ASCII digits with at most one point.
    digits: String,
    exponent: i32,
    pub(super) unit: Unit,
    power: i32,
    factor: f64,
}

impl<'a> Parsed<'a> {
    pub(super) fn read(text: &'a str) -> Result<Parsed<'a>, QuantityError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(QuantityError::TooLong {
                text: shown(text),
                bytes: text.len(),
            });
        }
        let trimmed = text.trim();
        let (negative, rest) = match trimmed.strip_prefix(['-', MINUS]) {
            Some(rest) => (true, rest),
            None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
        };
        let length = number_length(rest);
        let digits: String = rest[..length].chars().filter(|c| *c != '_').collect();
        if !rest.starts_with(|c: char| c.is_ascii_digit()) || digits.ends_with('.') {
            return Err(QuantityError::NoNumber { text: shown(text) });
        }
        let (exponent, rest) = exponent(&rest[length..]);
        let unit = rest.trim_start();
        let Some(found) = spelling(unit) else {
            return Err(QuantityError::UnknownUnit {
                unit: shown(unit),
                text: shown(text),
                hint: near(unit),
            });
        };
        Ok(Parsed {
            text,
            negative,
            digits,
            exponent,
            unit: found.unit,
            power: found.power,
            factor: found.factor,
        })
    }

    /// The value in the unit's base × 10^`extra`: finite, and zero only where the text says zero.
    pub(super) fn value(&self, extra: i32) -> Result<f64, QuantityError> {
        let not_finite = || QuantityError::NotFinite {
            text: shown(self.text),
        };
        let exponent = self
            .exponent
            .saturating_add(self.power)
            .saturating_add(extra);
        let number: f64 = format!("{}e{exponent}", self.digits)
            .parse()
            .map_err(|_| not_finite())?;
        let magnitude = number * self.factor;
        let is_zero = !self.digits.contains(|c: char| ('1'..='9').contains(&c));
        if !magnitude.is_finite() || (!is_zero && magnitude < f64::MIN_POSITIVE) {
            return Err(not_finite());
        }
        Ok(if self.negative && !is_zero {
            -magnitude
        } else {
            magnitude
        })
    }
}

/// The text for an error: shortened, control characters replaced, so that it is one clear line.
pub(super) fn shown(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(SHOWN_MAX)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        out.push('…');
    }
    out
}

/// Bytes of the leading digits with at most one point; `_` may stand between digits.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut point_seen = false;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'0'..=b'9' => {}
            b'.' if !point_seen => point_seen = true,
            b'_' if at > 0 && digit(at - 1) && digit(at + 1) => {}
            _ => break,
        }
        at += 1;
    }
    at
}

/// A leading `e±digits`, and what follows it. Any other `e` or `E` belongs to the unit (`EFLOP`).
fn exponent(text: &str) -> (i32, &str) {
    let none = (0, text);
    let Some(rest) = text.strip_prefix(['e', 'E']) else {
        return none;
    };
    let (negative, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest.strip_prefix('+').unwrap_or(rest)),
    };
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    if length == 0 {
        return none;
    }
    // Beyond five digits every number is 0 or infinite, which the caller refuses.
    let magnitude: i32 = rest[..length].parse().unwrap_or(99_999).min(99_999);
    (
        if negative { -magnitude } else { magnitude },
        &rest[length..],
    )
}

/// Shortest digits that give back `magnitude`, as a whole number and a power of ten: 8.5e14 is (`85`, 13).
fn shortest(magnitude: f64) -> (String, i32) {
    let text = format!("{magnitude:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let fraction = mantissa
        .split_once('.')
        .map_or(0, |parts| parts.1.len() as i32);
    (
        mantissa.replace('.', ""),
        exponent.parse::<i32>().unwrap_or(0) - fraction,
    )
}

/// Writes `digits` × 10^`power` plainly, or with an exponent where that would be long.
fn written(digits: &str, power: i32) -> String {
    let length = digits.len() as i32;
    match power {
        0..=6 => format!("{digits}{}", "0".repeat(power.unsigned_abs() as usize)),
        _ if power < 0 && -power < length => {
            let (whole, fraction) = digits.split_at((length + power) as usize);
            format!("{whole}.{fraction}")
        }
        _ if power < 0 && -power <= length + 5 => {
            format!("0.{}{digits}", "0".repeat((-power - length) as usize))
        }
        _ => format!("{digits}e{power}"),
    }
}

pub(super) fn decimal_text(magnitude: f64, unit: Unit) -> (String, String) {
    if magnitude < f64::MIN_POSITIVE {
        return ("0".to_owned(), unit.symbol().to_owned());
    }
    let (digits, power) = shortest(magnitude);
    let leading = power + digits.len() as i32 - 1;
    let fits = |prefix: i32| (prefix >= 0 || unit.takes_small_prefix()) && prefix <= leading;
    let best = PREFIXES
        .into_iter()
        .rev()
        .find(|(_, prefix)| unit.takes_prefix() && fits(*prefix));
    let (prefix, shift) = best.unwrap_or(("", 0));
    (
        written(&digits, power - shift),
        format!("{prefix}{}", unit.symbol()),
    )
}

/// Whole hours and minutes are written as such; everything else in a decimal prefix of the second.
pub(super) fn time_text(seconds: f64) -> (String, String) {
    for (name, length) in [("h", 3_600.0), ("min", 60.0)] {
        let count = seconds / length;
        if count >= 1.0 && count < EXACT_MAX / length && count.fract() <= 0.0 {
            return (format!("{count:.0}"), name.to_owned());
        }
    }
    if seconds >= 1.0 {
        let (digits, power) = shortest(seconds);
        return (written(&digits, power), "s".to_owned());
    }
    decimal_text(seconds, Unit::Second)
}

/// Sizes that are a multiple of 2¹⁰ and no shorter in decimal are written in binary units.
pub(super) fn size_text(bytes: f64) -> (String, String) {
    let (decimal, decimal_unit) = decimal_text(bytes, Unit::Byte);
    for (prefix, power) in BINARY_PREFIXES.into_iter().rev() {
        let count = bytes / 2f64.powi(power as i32);
        if bytes < EXACT_MAX && count >= 1.0 && count.fract() <= 0.0 {
            let text = format!("{count:.0}");
            if text.len() < decimal.len() {
                return (text, format!("{prefix}B"));
            }
        }
    }
    (decimal, decimal_unit)
}
