//! Draws: scales, ticks and the few shapes that the report's pictures are made of.
//!
//! Knows no metric and no verdict. Coordinates have one decimal: finer than any screen at this size.

use super::escape::xml;
use hallmark_profiles::units::{MINUS, Unit};

/// A picture in the making.
#[derive(Default)]
pub struct Svg {
    body: String,
}

/// Where a text stands against its point.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    /// What was drawn so far, to be put inside another picture.
    pub fn into_body(self) -> String {
        self.body
    }

    pub fn raw(&mut self, text: &str) {
        self.body.push_str(text);
    }

    pub fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, class: &str) {
        let (x1, y1, x2, y2) = (n(x1), n(y1), n(x2), n(y2));
        self.body.push_str(&format!(
            "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>"
        ));
    }

    pub fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, class: &str) {
        let (x, y, width, height) = (n(x), n(y), n(width.max(0.0)), n(height.max(0.0)));
        self.body.push_str(&format!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>"
        ));
    }

    pub fn circle(&mut self, x: f64, y: f64, radius: f64, class: &str) {
        let (x, y, radius) = (n(x), n(y), n(radius));
        self.body.push_str(&format!(
            "<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"{radius}\"/>"
        ));
    }

    /// `extra`: further attributes, already escaped.
    pub fn path(&mut self, d: &str, class: &str, extra: &str) {
        if !d.is_empty() {
            self.body
                .push_str(&format!("<path class=\"{class}\" d=\"{d}\"{extra}/>"));
        }
    }

    pub fn text(&mut self, x: f64, y: f64, class: &str, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let (x, y) = (n(x), n(y));
        self.body.push_str(&format!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\"{anchor}>{}</text>",
            xml(text)
        ));
    }

    /// The picture with its title and description for those who do not see it.
    pub fn finish(
        self,
        id: &str,
        width: f64,
        height: f64,
        title: &str,
        description: &str,
    ) -> String {
        format!(
            "<svg class=\"fig\" id=\"{id}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{}</title><desc id=\"{id}-d\">{}</desc>{}</svg>",
            n(width),
            n(height),
            xml(title),
            xml(description),
            self.body
        )
    }
}

/// A coordinate with one decimal at most.
pub fn n(value: f64) -> String {
    if !value.is_finite() {
        return "0".to_owned();
    }
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

/// A straight map from values to coordinates.
#[derive(Clone, Copy)]
pub struct Scale {
    pub from: f64,
    pub to: f64,
    pub start: f64,
    pub end: f64,
}

impl Scale {
    /// An empty range of values is widened, so that nothing divides by zero.
    pub fn new(from: f64, to: f64, start: f64, end: f64) -> Self {
        let to = if to > from {
            to
        } else {
            from + from.abs().max(1.0) * 1e-3
        };
        Self {
            from,
            to,
            start,
            end,
        }
    }

    pub fn at(&self, value: f64) -> f64 {
        self.start + (value - self.from) / (self.to - self.from) * (self.end - self.start)
    }

    /// As [`Scale::at`], held inside the picture.
    pub fn inside(&self, value: f64) -> f64 {
        self.at(value.clamp(self.from, self.to))
    }
}

/// Round values from `from` to `to`, about `count` of them.
pub fn ticks(from: f64, to: f64, count: usize) -> Vec<f64> {
    let span = to - from;
    if !(span.is_finite() && span > 0.0) || count == 0 {
        return Vec::new();
    }
    // One mark alone gives no scale, and no distance by which to choose its digits.
    [count, 2 * count, 4 * count]
        .into_iter()
        .map(|count| round_marks(from, to, count))
        .find(|marks| marks.len() > 1)
        .unwrap_or_default()
}

fn round_marks(from: f64, to: f64, count: usize) -> Vec<f64> {
    let rough = (to - from) / count as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|s| s * power)
        .find(|s| *s >= rough * 0.999)
        .unwrap_or(rough);
    multiples(from, to, step)
}

/// The multiples of `step` inside a range.
pub fn multiples(from: f64, to: f64, step: f64) -> Vec<f64> {
    let first = (from / step - 1e-6).ceil();
    let last = (to / step + 1e-6).floor();
    let count = (last - first).clamp(-1.0, 200.0);
    (0..=count as i64)
        .map(|i| (first + i as f64) * step)
        .filter(|_| count >= 0.0)
        .collect()
}

/// Distance of ticks on a time axis, ns: what clocks and calendars divide into.
pub fn time_step_ns(span_ns: u64, count: u64) -> u64 {
    const S: u64 = 1_000_000_000;
    const STEPS: [u64; 19] = [
        S / 10,
        S / 2,
        S,
        2 * S,
        5 * S,
        10 * S,
        20 * S,
        30 * S,
        60 * S,
        120 * S,
        300 * S,
        600 * S,
        1_800 * S,
        3_600 * S,
        7_200 * S,
        10_800 * S,
        21_600 * S,
        43_200 * S,
        86_400 * S,
    ];
    let rough = span_ns / count.max(1);
    let fitting = STEPS.into_iter().find(|s| *s >= rough);
    fitting.unwrap_or_else(|| rough.div_ceil(86_400 * S) * 86_400 * S)
}

/// A number on an axis, with the decimals that its distance to the next one needs.
pub fn tick_label(value: f64, step: f64) -> String {
    let decimals = (-(step.abs().max(1e-12)).log10() - 1e-9)
        .ceil()
        .clamp(0.0, 6.0) as usize;
    // 2.5 needs one decimal more than its power of ten says.
    let uneven = (step * 10f64.powi(decimals as i32)).fract() > 1e-6;
    let text = format!("{:.*}", decimals + usize::from(uneven), value.abs());
    let is_zero = text.chars().all(|c| matches!(c, '0' | '.'));
    if value < 0.0 && !is_zero {
        format!("{MINUS}{text}")
    } else {
        text
    }
}

/// One prefix for a whole axis: what to divide values by, and the unit then.
pub fn axis_unit(unit: Unit, largest: f64) -> (f64, String) {
    const PREFIXES: [(&str, f64); 9] = [
        ("E", 1e18),
        ("P", 1e15),
        ("T", 1e12),
        ("G", 1e9),
        ("M", 1e6),
        ("k", 1e3),
        ("", 1.0),
        ("m", 1e-3),
        ("µ", 1e-6),
    ];
    let symbol = if unit == Unit::One { "" } else { unit.symbol() };
    if !(unit.takes_prefix() && largest.is_finite() && largest > 0.0) {
        return (1.0, symbol.to_owned());
    }
    let allowed = |factor: f64| {
        let small = factor >= 1.0 || unit.takes_small_prefix();
        // Seconds grow into minutes, not kiloseconds.
        small && !(unit == Unit::Second && factor > 1.0)
    };
    let found = PREFIXES
        .into_iter()
        .filter(|(_, f)| allowed(*f))
        .find(|(_, f)| largest >= *f * 0.999);
    let (prefix, factor) = found.unwrap_or(("", 1.0));
    (factor, format!("{prefix}{symbol}"))
}

/// Three significant digits of a value on an axis.
pub fn digits(value: f64) -> String {
    let magnitude = value.abs();
    let decimals = if !(f64::MIN_POSITIVE..99.95).contains(&magnitude) {
        0
    } else if magnitude >= 9.995 {
        1
    } else if magnitude >= 0.9995 {
        2
    } else {
        3
    };
    let text = format!("{magnitude:.decimals$}");
    if value < 0.0 {
        format!("{MINUS}{text}")
    } else {
        text
    }
}

/// Moves labels apart: `wanted` heights become heights at least `distance` from each other, inside
/// `top` to `bottom` as long as they fit, in the same order.
pub fn apart(wanted: &[f64], distance: f64, top: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut placed = wanted.to_vec();
    let mut least = top;
    for &index in &order {
        placed[index] = placed[index].max(least);
        least = placed[index] + distance;
    }
    let mut most = bottom;
    for &index in order.iter().rev() {
        placed[index] = placed[index].min(most);
        most = placed[index] - distance;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 100.0, 4), [0.0, 25.0, 50.0, 75.0, 100.0]);
        assert_eq!(ticks(0.0, 9.0, 4), [0.0, 2.5, 5.0, 7.5]);
        assert!(
            ticks(1.66, 1.72, 3).len() > 1,
            "a narrow range has a scale too"
        );
        assert!(ticks(1.61, 1.79, 2).len() > 1);
        assert!(ticks(3.0, 3.0, 4).is_empty() && ticks(0.0, f64::NAN, 4).is_empty());
        assert_eq!(time_step_ns(60_000_000_000, 8), 10_000_000_000);
        assert_eq!(time_step_ns(72 * 3_600_000_000_000, 8), 43_200_000_000_000);
    }

    #[test]
    fn an_axis_has_one_prefix_and_enough_decimals() {
        assert_eq!(
            axis_unit(Unit::FlopPerSecond, 6.3e10),
            (1e9, "GFLOP/s".to_owned())
        );
        assert_eq!(axis_unit(Unit::Second, 0.12), (1e-3, "ms".to_owned()));
        assert_eq!(axis_unit(Unit::Second, 5_000.0), (1.0, "s".to_owned()));
        assert_eq!(axis_unit(Unit::Celsius, 60.0), (1.0, "°C".to_owned()));
        assert_eq!(tick_label(-2.5, 2.5), "−2.5");
        assert_eq!(tick_label(0.12, 0.02), "0.12");
        assert_eq!(tick_label(40.0, 20.0), "40");
        assert_eq!(
            (tick_label(3.0, 1.0), tick_label(0.3, 0.1)),
            ("3".to_owned(), "0.3".to_owned())
        );
    }

    #[test]
    fn labels_are_moved_apart_in_their_order() {
        assert_eq!(
            apart(&[10.0, 11.0, 50.0], 12.0, 0.0, 60.0),
            [10.0, 22.0, 50.0]
        );
        assert_eq!(apart(&[59.0, 60.0], 12.0, 0.0, 60.0), [48.0, 60.0]);
    }

    #[test]
    fn text_in_a_picture_is_escaped() {
        let mut svg = Svg::default();
        svg.text(0.0, 0.0, "t", Anchor::Start, "</text><script>");
        assert!(!svg.finish("a", 1.0, 1.0, "<b>", "&").contains("<script"));
    }
}
