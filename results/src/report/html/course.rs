//! Gathers the run's course: which quantities are drawn on the common time axis, and what each line is.
//!
//! Stretches without samples stay holes. Devices beyond a handful become a band with their median, and
//! those that a gate failed stay lines of their own.

use super::super::escape::{clean, xml};
use super::super::{Story, facts, svg, words};
use super::panels;
use crate::frame::{SeriesKind, What};
use crate::standing::TableRun;
use crate::trace::{Trace, WorkTrace};
use crate::verdict::Outcome;
use hallmark_profiles::criterion::Reference;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::Unit;

/// Points of a line: at least, and at most where lines are few enough to be looked into.
const POINTS: (u64, u64) = (360, 900);
/// Points of all lines of a panel, about.
const POINTS_OF_PANEL: u64 = 1_500;
/// More lines than this become a band.
const LINES: usize = 6;
/// Panels at most; the table of series names everything.
const PANELS: usize = 12;
/// Lines of suspects beside a band.
const SUSPECTS: usize = 4;

/// One quantity on the time axis.
pub struct Panel {
    pub title: String,
    pub unit: Unit,
    /// What values are multiplied by before they are shown in `unit`.
    pub factor: f64,
    pub lines: Vec<Line>,
    /// Smallest and largest of all devices, where they are too many for lines.
    pub band: Vec<Point>,
    /// Limit and what it is called.
    pub limits: Vec<(f64, String)>,
    /// Stretches without data: from, to, why.
    pub gaps: Vec<(u64, u64, String)>,
    /// The range always shown.
    pub least_range: Option<(f64, f64)>,
    /// Shares of time, drawn as one lane for each line.
    pub lanes: bool,
}

/// One device or place.
pub struct Line {
    pub name: String,
    pub ink: Ink,
    pub points: Vec<Point>,
    /// Longest distance of neighbouring points that is no hole, ns.
    pub reach_ns: u64,
    /// Mean over the judged window.
    pub level: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// A gate failed it, it had a fault, or a diagnosis names it.
    Bad,
    /// The n-th of the devices.
    Device(usize),
    /// The node, the hall.
    Place,
}

#[derive(Clone, Copy)]
pub struct Point {
    pub at_ns: u64,
    pub low: f64,
    pub mean: f64,
    pub high: f64,
}

pub fn section(story: &Story<'_>) -> String {
    if story.standing.last_ns() == 0 || story.standing.windows().is_empty() {
        return "<section id=\"course\"><h2>No load ran</h2><p class=\"sub\">The record holds no segment of the schedule, \
                so there is no course to draw.</p></section>"
            .to_owned();
    }
    let mut all = panels(story);
    let left_out: Vec<String> = all
        .iter()
        .skip(PANELS)
        .map(|p| p.title.to_lowercase())
        .collect();
    all.truncate(PANELS);
    let left_out = if left_out.is_empty() {
        String::new()
    } else {
        format!(" Recorded but not drawn: {}.", xml(&left_out.join(", ")))
    };
    let many = story.standing.devices().len() > LINES;
    let lines = if many {
        "Blue is the median of the devices, the grey band reaches from the least to the greatest of them; <b class=\"tf\">orange</b> \
         did not pass a gate or is named as a cause."
    } else {
        "<b class=\"tf\">Orange</b> failed a gate, had a fault or is named as a cause; a pale band behind a line is the range within each stretch."
    };
    format!(
        "<section id=\"course\"><h2>{}</h2><p class=\"sub\">All signals on one time axis. {lines} Shaded: ramps and warm-up, kept \
         but not judged. Hatched: no data; nothing is joined across it. On the right: means over the judged phase.{left_out}</p><div class=\"scroll\">{}</div></section>",
        xml(&heading(story)),
        panels::draw(story, &all),
    )
}

/// What the course shows, in one line.
fn heading(story: &Story<'_>) -> String {
    let faults: Vec<_> = story
        .standing
        .events()
        .iter()
        .filter(|e| matches!(e.what, What::Fault { .. }))
        .collect();
    if let Some(first) = faults.first() {
        let what = words::event(&first.what, |id| facts::table_name(story, id));
        let what = what.map_or_else(|| "fault".to_owned(), |(kind, _)| kind.to_owned());
        let place = facts::device_id(story, first.device);
        return format!("{place}: {what} at {}", words::instant(first.at_ns));
    }
    let Some(window) = facts::main_window(story) else {
        return "The run ended before the judged window".to_owned();
    };
    let now = story.standing.last_ns();
    let spreads = window
        .devices
        .iter()
        .enumerate()
        .filter_map(|(index, device)| {
            let mut rates = facts::block_rates(window, device, now);
            let median = facts::median(&rates).filter(|m| *m > 0.0 && rates.len() >= 5)?;
            rates.sort_by(f64::total_cmp);
            let lowest = rates.first()? / median;
            Some((index, 100.0 * (1.0 - lowest)))
        });
    let worst = spreads.max_by(|a, b| a.1.total_cmp(&b.1));
    match worst {
        Some((_, drop)) if drop < 2.0 => {
            let all = if story.standing.devices().len() == 1 {
                "The device"
            } else {
                "Every device"
            };
            format!("{all} held its rate: no block more than {drop:.1}\u{a0}% below its median")
        }
        Some((index, drop)) => {
            let id = facts::device_id(story, Some(index as u32));
            format!("The lowest block of {id} is {drop:.0}\u{a0}% below its median")
        }
        None => "Rates and sensors over the run".to_owned(),
    }
}

/// Panels in the order in which cause follows effect: rate, power, heat, clocks, reasons, then the rest.
fn panels(story: &Story<'_>) -> Vec<Panel> {
    const ORDER: [Metric; 14] = [
        Metric::PowerDraw,
        Metric::PowerInstant,
        Metric::TempCore,
        Metric::TempMemory,
        Metric::ThermalMargin,
        Metric::ClockSm,
        Metric::ThrottleFrac,
        Metric::CpuFrequency,
        Metric::CpuLoad,
        Metric::Utilisation,
        Metric::ClockMemory,
        Metric::CoolantSupply,
        Metric::CoolantReturn,
        Metric::FlowPerKw,
    ];
    let mut out: Vec<Panel> = work(story).into_iter().collect();
    let rest = Metric::ALL
        .iter()
        .filter(|m| !ORDER.contains(m) && **m != Metric::PowerCapFrac);
    for metric in ORDER.iter().chain(rest) {
        out.extend(gauge(story, *metric));
    }
    out
}

/// The devices that a gate failed, that had a fault, or that a diagnosis names.
fn is_bad(story: &Story<'_>, device: usize) -> bool {
    let failed = story.verdict.findings.iter().flat_map(|f| &f.places);
    let failed = failed
        .into_iter()
        .any(|o| o.device == Some(device as u32) && o.outcome == Outcome::Failed);
    // A cause that all share tells none of them from the others.
    let few = SUSPECTS.min(story.standing.devices().len().saturating_sub(1));
    let mut causes = story.verdict.diagnoses.iter().map(|d| &d.place.devices);
    let named = causes.any(|at| at.len() <= few && at.contains(&(device as u32)));
    let run = story.standing.devices().get(device);
    failed || named || run.is_some_and(|r| !r.faults.is_empty() || r.mismatches > 0)
}

fn ink(story: &Story<'_>, device: Option<u32>) -> Ink {
    match device {
        None => Ink::Place,
        Some(device) if is_bad(story, device as usize) => Ink::Bad,
        Some(device) => Ink::Device(device as usize),
    }
}

fn work(story: &Story<'_>) -> Option<Panel> {
    let end = story.standing.last_ns();
    let most = resolution(story);
    let window = facts::main_window(story);
    let lines: Vec<Line> = story
        .standing
        .devices()
        .iter()
        .enumerate()
        .filter(|(_, run)| run.flop > 0.0)
        .map(|(index, run)| {
            let points = rate_points(&run.work, run.last_end_ns, end, most);
            Line {
                name: facts::device_id(story, Some(index as u32)),
                ink: ink(story, Some(index as u32)),
                level: level(
                    &points,
                    window.map(|w| (w.start_ns, w.end_ns.unwrap_or(end))),
                ),
                points,
                reach_ns: u64::MAX,
            }
        })
        .collect();
    if lines.is_empty() {
        return None;
    }
    let panel = Panel {
        title: "Matmul rate".to_owned(),
        unit: Unit::FlopPerSecond,
        factor: 1.0,
        lines,
        band: Vec::new(),
        limits: limits(story, Metric::MatmulRate),
        gaps: Vec::new(),
        least_range: Some((0.0, 0.0)),
        lanes: false,
    };
    Some(crowded(panel))
}

/// Points of each line: the fewer the devices, the finer.
fn resolution(story: &Story<'_>) -> u64 {
    let devices = story.standing.devices().len().max(1) as u64;
    (POINTS_OF_PANEL / devices).clamp(POINTS.0, POINTS.1)
}

/// A work trace in at most `most` stretches; the last, partly filled one is left out.
fn rate_points(trace: &WorkTrace, last_end_ns: u64, end_ns: u64, most: u64) -> Vec<Point> {
    let width = trace.bin_ns();
    let group = (end_ns / most / width).max(1) as usize;
    let whole = (last_end_ns / width) as usize;
    let rates: Vec<f64> = trace.rates().take(whole.max(1)).collect();
    let mut points: Vec<Point> = rates
        .chunks(group)
        .enumerate()
        .map(|(index, chunk)| {
            let mean = chunk.iter().sum::<f64>() / chunk.len() as f64;
            let at_ns = (index * group) as u64 * width + chunk.len() as u64 * width / 2;
            Point {
                at_ns,
                low: mean,
                mean,
                high: mean,
            }
        })
        .collect();
    // After its last step a device did nothing, which is no hole.
    if end_ns > last_end_ns + 2 * width * group as u64 {
        for at_ns in [last_end_ns, end_ns] {
            points.push(Point {
                at_ns,
                low: 0.0,
                mean: 0.0,
                high: 0.0,
            });
        }
    }
    points
}

/// A trace in at most `most` stretches; empty ones are left out.
fn trace_points(trace: &Trace, end_ns: u64, most: u64) -> Vec<Point> {
    let width = trace.bin_ns();
    let group = (end_ns / most / width).max(1) as usize;
    let bins = trace.bins();
    let chunks = bins.chunks(group).enumerate();
    let point = |(index, chunk): (usize, &[crate::trace::Bin])| {
        let filled = || chunk.iter().filter(|b| b.count > 0);
        let count: u64 = filled().map(|b| b.count).sum();
        if count == 0 {
            return None;
        }
        Some(Point {
            at_ns: (index * group) as u64 * width + chunk.len() as u64 * width / 2,
            low: filled().map(|b| b.min).fold(f64::INFINITY, f64::min),
            mean: filled().map(|b| b.sum).sum::<f64>() / count as f64,
            high: filled().map(|b| b.max).fold(f64::NEG_INFINITY, f64::max),
        })
    };
    chunks.filter_map(point).collect()
}

/// Mean of the points inside the judged window, of all where there is none.
fn level(points: &[Point], window: Option<(u64, u64)>) -> Option<f64> {
    let (from, to) = window.unwrap_or((0, u64::MAX));
    let inside: Vec<f64> = points
        .iter()
        .filter(|p| p.at_ns >= from && p.at_ns < to)
        .map(|p| p.mean)
        .collect();
    (!inside.is_empty()).then(|| inside.iter().sum::<f64>() / inside.len() as f64)
}

fn gauge(story: &Story<'_>, metric: Metric) -> Option<Panel> {
    // Reasons why clocks are held down belong on one panel.
    let lanes = metric == Metric::ThrottleFrac;
    let wanted = |m: Metric| m == metric || lanes && m == Metric::PowerCapFrac;
    let end = story.standing.last_ns();
    let most = resolution(story);
    let window = facts::main_window(story).map(|w| (w.start_ns, w.end_ns.unwrap_or(end)));
    let (mut lines, mut gaps, mut unit) = (Vec::new(), Vec::new(), metric.spec().unit);
    for run in story.standing.tables() {
        let columns = run.table.series.iter().enumerate();
        for (column, series) in
            columns.filter(|(_, s)| wanted(s.metric) && s.kind == SeriesKind::Gauge)
        {
            let Some(trace) = run.traces.get(column) else {
                continue;
            };
            let points = trace_points(trace, end, most);
            unit = series.unit;
            gaps.extend(told_gaps(story, run));
            if points.is_empty() {
                gaps.push((0, end, "no sample".to_owned()));
                continue;
            }
            let reach_ns = (3 * run.table.period_ns)
                .max(5 * trace.bin_ns() * (end / most / trace.bin_ns()).max(1) / 2);
            gaps.extend(holes(&points, reach_ns, end));
            lines.push(Line {
                name: line_name(story, run, &series.label, lanes),
                ink: ink(story, run.table.device),
                level: level(&points, window),
                points,
                reach_ns,
            });
        }
    }
    if lines.is_empty() {
        return None;
    }
    let (factor, unit) = words::shown_in(metric, unit);
    let title = if lanes {
        "Why clocks were held down".to_owned()
    } else {
        words::capital(&words::metric(metric))
    };
    let least_range = match (metric, unit) {
        (_, Unit::Percent) => Some((0.0, 100.0)),
        (_, Unit::Watt) => Some((0.0, 0.0)),
        _ => None,
    };
    let limits = limits(story, metric);
    let panel = Panel {
        title,
        unit,
        factor,
        lines,
        band: Vec::new(),
        limits,
        gaps,
        least_range,
        lanes,
    };
    Some(if lanes {
        worst_lanes(panel)
    } else {
        crowded(panel)
    })
}

fn line_name(story: &Story<'_>, run: &TableRun, label: &str, lanes: bool) -> String {
    let owner = facts::owner(story, &run.table);
    let label = if lanes {
        words::reason(label)
    } else {
        words::spoken(label)
    };
    match (lanes, label.is_empty()) {
        // Lanes are sorted out by reason; the owner comes after it.
        (true, _) => format!("{label}\n{owner}"),
        (false, true) => owner,
        (false, false) => format!("{owner} {label}"),
    }
}

/// Gaps that the record names, of one sensor.
fn told_gaps(story: &Story<'_>, run: &TableRun) -> Vec<(u64, u64, String)> {
    let events = story.standing.events().iter();
    events
        .filter_map(|event| match &event.what {
            What::Gap {
                table,
                from_ns,
                reason,
            } if *table == run.table.id => Some((
                *from_ns,
                event.at_ns,
                format!("{}: {}", facts::owner(story, &run.table), clean(reason)),
            )),
            _ => None,
        })
        .collect()
}

/// Holes between points, and before the first and after the last of them.
fn holes(points: &[Point], reach_ns: u64, end_ns: u64) -> Vec<(u64, u64, String)> {
    let ends = 2 * reach_ns;
    let mut out = Vec::new();
    let mut add = |from: u64, to: u64| out.push((from, to, String::new()));
    for pair in points.windows(2) {
        if pair[1].at_ns - pair[0].at_ns > reach_ns {
            add(pair[0].at_ns, pair[1].at_ns);
        }
    }
    if let (Some(first), Some(last)) = (points.first(), points.last()) {
        if first.at_ns > ends {
            add(0, first.at_ns);
        }
        if end_ns.saturating_sub(last.at_ns) > ends {
            add(last.at_ns, end_ns);
        }
    }
    out
}

/// Absolute limits of gates on a metric, as values to draw.
fn limits(story: &Story<'_>, metric: Metric) -> Vec<(f64, String)> {
    let findings = story.verdict.findings.iter();
    findings
        .filter(|f| f.criterion.metric == metric && f.criterion.relative_to == Reference::Absolute)
        .filter(|f| f.unit == metric.spec().unit)
        .flat_map(|f| f.at_least.into_iter().chain(f.at_most))
        .map(|limit| {
            (
                limit,
                format!("limit {}", words::value(limit, metric, metric.spec().unit)),
            )
        })
        .collect()
}

/// Turns more lines than a reader can tell apart into a band, their median, and the suspects.
fn crowded(mut panel: Panel) -> Panel {
    if panel.lines.len() <= LINES {
        return panel;
    }
    let all = std::mem::take(&mut panel.lines);
    let mut columns: std::collections::BTreeMap<u64, Vec<Point>> =
        std::collections::BTreeMap::new();
    let spacing = all
        .iter()
        .filter_map(|l| Some(l.points.get(1)?.at_ns - l.points.first()?.at_ns))
        .max()
        .unwrap_or(1)
        .max(1);
    for point in all.iter().flat_map(|l| &l.points) {
        columns
            .entry(point.at_ns / spacing)
            .or_default()
            .push(*point);
    }
    let middle = |(slot, points): (&u64, &Vec<Point>)| {
        let means: Vec<f64> = points.iter().map(|p| p.mean).collect();
        let fold = |f: fn(f64, f64) -> f64, start: f64| means.iter().copied().fold(start, f);
        Some(Point {
            at_ns: slot * spacing + spacing / 2,
            low: fold(f64::min, f64::INFINITY),
            mean: facts::median(&means)?,
            high: fold(f64::max, f64::NEG_INFINITY),
        })
    };
    panel.band = columns.iter().filter_map(middle).collect();
    let levels: Vec<f64> = all.iter().filter_map(|l| l.level).collect();
    panel.lines.push(Line {
        name: format!("median of {}", all.len()),
        ink: Ink::Device(0),
        points: panel
            .band
            .iter()
            .map(|p| Point {
                low: p.mean,
                high: p.mean,
                ..*p
            })
            .collect(),
        reach_ns: all.iter().map(|l| l.reach_ns).max().unwrap_or(u64::MAX),
        level: facts::median(&levels),
    });
    // One silent sensor of many leaves a band that is still true; only where all are silent is nothing known.
    let end = panel.gaps.iter().map(|g| g.1).max().unwrap_or(0).max(
        all.iter()
            .filter_map(|l| l.points.last())
            .map(|p| p.at_ns)
            .max()
            .unwrap_or(0),
    );
    panel.gaps = if panel.gaps.is_empty() {
        Vec::new()
    } else {
        holes(&panel.band, panel.lines[0].reach_ns, end)
    };
    panel
        .lines
        .extend(all.into_iter().filter(|l| l.ink == Ink::Bad).take(SUSPECTS));
    panel
}

/// One lane for each reason: the place with the largest share.
fn worst_lanes(mut panel: Panel) -> Panel {
    let mut lanes: Vec<Line> = Vec::new();
    for line in std::mem::take(&mut panel.lines) {
        let reason = |l: &Line| l.name.split('\n').next().unwrap_or_default().to_owned();
        match lanes
            .iter_mut()
            .find(|known| reason(known) == reason(&line))
        {
            Some(known) if known.level < line.level => *known = line,
            Some(_) => {}
            None => lanes.push(line),
        }
    }
    panel.lines = lanes;
    panel
}

/// A short course of a device's rate for its row in the table: path data in a box, `None` without steps.
pub fn spark(story: &Story<'_>, device: usize, width: f64, height: f64) -> Option<String> {
    let run = story
        .standing
        .devices()
        .get(device)
        .filter(|r| r.flop > 0.0)?;
    let end = story.standing.last_ns();
    let points = rate_points(&run.work, run.last_end_ns, end, POINTS.0);
    let top = points.iter().map(|p| p.mean).fold(0.0, f64::max);
    let x = svg::Scale::new(0.0, end as f64, 1.0, width - 1.0);
    let y = svg::Scale::new(0.0, top, height - 1.0, 2.0);
    let mut path = String::new();
    // Points closer than a pixel and a half become one.
    let slot = |p: &Point| (x.at(p.at_ns as f64) / 1.6) as i64;
    let alike = |a: &Point, b: &Point| slot(a) == slot(b) && (a.mean > 0.0) == (b.mean > 0.0);
    for chunk in points.chunk_by(alike) {
        let count = chunk.len() as f64;
        let at = chunk.iter().map(|p| p.at_ns as f64).sum::<f64>() / count;
        let mean = chunk.iter().map(|p| p.mean).sum::<f64>() / count;
        path.push(if path.is_empty() { 'M' } else { 'L' });
        path.push_str(&format!("{} {}", svg::n(x.at(at)), svg::n(y.at(mean))));
    }
    Some(path)
}
