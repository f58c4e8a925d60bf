//! Sweeps of all-reduces: bandwidth and latency against the size, both axes logarithmic, and the figures beneath.

use super::super::escape::xml;
use super::super::svg::{Anchor, Scale, Svg, n};
use super::super::sweep::{self, Size, Way};
use super::super::{Story, facts, words};
use crate::standing::window::Window;
use hallmark_profiles::units::{Unit, human};

const WIDTH: f64 = 482.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = WIDTH - 12.0;
const NAME: f64 = 15.0;
const PLOT: f64 = 190.0;

/// A curve: its name, class and points as payload in bytes and value.
struct Curve {
    name: &'static str,
    class: &'static str,
    points: Vec<(f64, f64)>,
}

/// Nothing where no phase swept.
pub fn section(story: &Story<'_>) -> String {
    let windows = sweep::windows(story).enumerate();
    windows
        .map(|(index, window)| of_window(story, index, window))
        .collect()
}

fn of_window(story: &Story<'_>, index: usize, window: &Window) -> String {
    let ranks = facts::ranks(story, window);
    let sizes = sweep::sizes(window, ranks);
    let heading = sweep::sentence(story, window).unwrap_or_default();
    let transport = &story.standing.opened().plan.transport;
    let incomplete = match window.group.sweep.untold(window.end_ns.is_some()) {
        0 => String::new(),
        some => format!(
            " {} that not every rank told of in the same way are in no figure.",
            words::counted(some as usize, "operation", "operations")
        ),
    };
    let along = |value: &dyn Fn(&Way<'_>) -> Option<f64>, in_place: bool| {
        let point = |size: &Size<'_>| {
            let way = if in_place { size.within } else { size.out };
            Some((size.bytes as f64, value(&way?)?))
        };
        sizes.iter().filter_map(point).collect::<Vec<_>>()
    };
    // One rank moves nothing over a link: what there is then is the algorithm's bandwidth.
    let bandwidth = |way: &Way<'_>| way.figures.map(|f| f.busbw.unwrap_or(f.algbw));
    let latency =
        |name: &'static str| move |way: &Way<'_>| sweep::quantile(way.trials.latency.get()?, name);
    let bandwidths = [
        curve("out of place", "l-d0", along(&bandwidth, false)),
        curve("in place", "l-d1", along(&bandwidth, true)),
    ];
    let latencies = [
        curve("p50 out of place", "l-d0", along(&latency("p50"), false)),
        curve("p50 in place", "l-d1", along(&latency("p50"), true)),
        curve("p99 out of place", "l-d2", along(&latency("p99"), false)),
    ];
    let kind = if ranks > 1 {
        "Bus bandwidth"
    } else {
        "Bandwidth"
    };
    let left = picture(
        &format!("sweep-bandwidth-{index}"),
        kind,
        &bandwidths,
        Unit::BytePerSecond,
    );
    let right = picture(
        &format!("sweep-latency-{index}"),
        "Latency",
        &latencies,
        Unit::Second,
    );
    let capital: String = {
        let mut letters = heading.chars();
        let first = letters.next().map(|c| c.to_uppercase().to_string());
        first.unwrap_or_default() + letters.as_str()
    };
    format!(
        "<section id=\"sweep-{index}\"><h2>{}</h2><p class=\"sub\">Phase {}, over {}. Each operation has a due time that never \
         moves, and its latency counts from that; bandwidth is the mean operation's, from the first rank's start to the last \
         one's end (algbw, and busbw by nccl-tests' factor); skew is the time from the first rank's start to the last one's, \
         transfer from there to the end.{incomplete}</p><div class=\"figures pair\"><figure><figcaption><b>{kind}</b> by size</figcaption>{left}</figure>\
         <figure><figcaption><b>Latency</b> from the due time, by size</figcaption>{right}</figure></div>{}</section>",
        xml(&capital),
        xml(&facts::segment_name(story, window)),
        xml(if transport.is_empty() {
            "a transport not stated"
        } else {
            transport
        }),
        table(&sizes),
    )
}

fn curve(name: &'static str, class: &'static str, points: Vec<(f64, f64)>) -> Curve {
    let positive = points.into_iter().filter(|(_, value)| *value > 0.0);
    Curve {
        name,
        class,
        points: positive.collect(),
    }
}

/// Both axes logarithmic; nothing where no curve has a point.
fn picture(id: &str, title: &str, curves: &[Curve], unit: Unit) -> String {
    let drawn: Vec<&Curve> = curves.iter().filter(|c| !c.points.is_empty()).collect();
    let all = || drawn.iter().flat_map(|c| &c.points);
    let least = |of: fn(&(f64, f64)) -> f64| all().map(of).fold(f64::INFINITY, f64::min);
    let most = |of: fn(&(f64, f64)) -> f64| all().map(of).fold(0.0, f64::max);
    if drawn.is_empty() {
        return String::new();
    }
    let top = 10.0 + NAME * drawn.len() as f64;
    let bottom = top + PLOT;
    let x = Scale::new(least(|p| p.0).log2(), most(|p| p.0).log2(), LEFT, RIGHT);
    let (low, high) = (least(|p| p.1).log10().floor(), most(|p| p.1).log10().ceil());
    let y = Scale::new(low, high.max(low + 1.0), bottom, top);
    let mut svg = Svg::default();
    axes(&mut svg, &x, &y, unit);
    for (row, curve) in drawn.iter().enumerate() {
        let at = NAME * row as f64 + 8.0;
        svg.line(LEFT, at, LEFT + 16.0, at, curve.class);
        svg.text(LEFT + 22.0, at + 4.0, "t2", Anchor::Start, curve.name);
        let place = |(bytes, value): &(f64, f64)| {
            format!("{} {}", n(x.at(bytes.log2())), n(y.at(value.log10())))
        };
        let places: Vec<String> = curve.points.iter().map(place).collect();
        svg.path(&format!("M{}", places.join("L")), curve.class, "");
    }
    let said = drawn.iter().map(|curve| {
        let ends = [curve.points.first(), curve.points.last()];
        let end = |(bytes, value): &(f64, f64)| {
            format!("{} at {}", human(*value, unit), sweep::size(*bytes as u64))
        };
        let ends: Vec<String> = ends.into_iter().flatten().map(end).collect();
        format!("{}: {}", curve.name, ends.join(" to "))
    });
    let said = said.collect::<Vec<_>>().join("; ");
    svg.finish(id, WIDTH, bottom + 26.0, &format!("{title} by size"), &said)
}

fn axes(svg: &mut Svg, x: &Scale, y: &Scale, unit: Unit) {
    let bottom = y.start;
    for decade in y.from as i32..=y.to as i32 {
        let at = y.at(f64::from(decade));
        svg.line(LEFT, at, RIGHT, at, "grid");
        let label = human(10_f64.powi(decade), unit);
        svg.text(LEFT - 7.0, at + 4.0, "t2", Anchor::End, &label);
    }
    let octaves = (x.to - x.from).round().max(1.0) as usize;
    let apart = octaves.div_ceil(5).max(1);
    for octave in (0..=octaves).step_by(apart) {
        let power = x.from + octave as f64;
        let at = x.at(power);
        svg.line(at, bottom, at, bottom + 4.0, "tick");
        let label = sweep::size(power.exp2().round() as u64);
        svg.text(at, bottom + 18.0, "t2", Anchor::Middle, &label);
    }
    svg.line(LEFT, bottom, RIGHT, bottom, "axis");
}

fn table(sizes: &[Size<'_>]) -> String {
    let mut rows = String::new();
    for size in sizes {
        for (way, name) in [(size.out, "out of place"), (size.within, "in place")] {
            if let Some(way) = way {
                rows.push_str(&row(size.bytes, name, &way));
            }
        }
    }
    format!(
        "<div class=\"scroll\"><table class=\"ev sizes\"><thead><tr><th>All-reduce</th><th class=\"n\">operations</th>\
         <th class=\"n\">mean</th><th class=\"n\">algbw</th><th class=\"n\">busbw</th>\
         <th class=\"n\">latency p50</th><th class=\"n\">p99</th><th class=\"n\">p99.9</th><th class=\"n\">skew p50</th>\
         <th class=\"n\">transfer p50</th><th class=\"n\">wrong</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

fn row(bytes: u64, name: &str, way: &Way<'_>) -> String {
    let trials = way.trials;
    let or_none = |value: Option<f64>, unit: Unit| {
        value.map_or_else(|| "–".to_owned(), |value| human(value, unit))
    };
    let quantile = |of: &crate::standing::window::Gathered, name: &str| {
        or_none(
            of.get().and_then(|times| sweep::quantile(times, name)),
            Unit::Second,
        )
    };
    let figures = way.figures;
    let cells = [
        human(trials.whole.count() as f64, Unit::Count),
        or_none(figures.map(|f| f.time_s), Unit::Second),
        or_none(figures.map(|f| f.algbw), Unit::BytePerSecond),
        or_none(figures.and_then(|f| f.busbw), Unit::BytePerSecond),
        quantile(&trials.latency, "p50"),
        quantile(&trials.latency, "p99"),
        quantile(&trials.latency, "p99.9"),
        quantile(&trials.skew, "p50"),
        quantile(&trials.transfer, "p50"),
        trials.wrong.to_string(),
    ];
    let cells: String = cells
        .iter()
        .map(|c| format!("<td class=\"n\">{c}</td>"))
        .collect();
    format!(
        "<tr><th scope=\"row\">{}, {name}</th>{cells}</tr>",
        sweep::size(bytes)
    )
}
