//! Path data of lines and bands: relative, one decimal, begun anew after each hole.

use super::super::svg::{Scale, n};
use super::course::{Line, Point};

/// A line as relative path data with one decimal, begun anew after each hole.
pub fn curve(line: &Line, x: &Scale, to_y: &impl Fn(f64) -> f64) -> String {
    let mut out = String::new();
    let mut last: Option<(u64, i64, i64)> = None;
    for point in &line.points {
        let (px, py) = (tenths(x.at(point.at_ns as f64)), tenths(to_y(point.mean)));
        match last {
            Some((at, lx, ly)) if point.at_ns - at.min(point.at_ns) <= line.reach_ns => {
                out.push_str(&format!("l{} {}", tenth(px - lx), tenth(py - ly)));
            }
            _ => out.push_str(&format!("M{} {}", tenth(px), tenth(py))),
        }
        last = Some((point.at_ns, px, py));
    }
    out
}

fn tenths(value: f64) -> i64 {
    (value * 10.0).round() as i64
}

fn tenth(value: i64) -> String {
    n(value as f64 / 10.0)
}

/// The band between low and high, stretch by stretch; nothing where it is thinner than `least` pixels throughout.
pub fn area(
    points: &[Point],
    reach_ns: u64,
    x: &Scale,
    to_y: &impl Fn(f64) -> f64,
    least: f64,
) -> String {
    let thick = points
        .iter()
        .any(|p| (to_y(p.low) - to_y(p.high)).abs() > least);
    if !thick {
        return String::new();
    }
    let mut out = String::new();
    let mut from = 0;
    for index in 1..=points.len() {
        let joined = points
            .get(index)
            .is_some_and(|p| p.at_ns - points[index - 1].at_ns.min(p.at_ns) <= reach_ns);
        if joined {
            continue;
        }
        let stretch = &points[from..index];
        from = index;
        let upper = stretch
            .iter()
            .map(|p| (tenths(x.at(p.at_ns as f64)), tenths(to_y(p.high))));
        let lower = stretch
            .iter()
            .rev()
            .map(|p| (tenths(x.at(p.at_ns as f64)), tenths(to_y(p.low))));
        let mut last: Option<(i64, i64)> = None;
        for (px, py) in upper.chain(lower) {
            match last {
                Some((lx, ly)) => out.push_str(&format!("l{} {}", tenth(px - lx), tenth(py - ly))),
                None => out.push_str(&format!("M{} {}", tenth(px), tenth(py))),
            }
            last = Some((px, py));
        }
        if !stretch.is_empty() {
            out.push('z');
        }
    }
    out
}
