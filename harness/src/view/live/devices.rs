//! The devices, worst first: rate, its recent course, sensors and what holds the clock down.
//!
//! A column that no device has a value for is not shown; the line below names it as not measured.

use super::super::plain::reading::{DeviceReading, Reading, State};
use super::super::plain::words;
use super::gates;
use super::ink::{self, BAD, BOLD, PLAIN, QUIET};
use super::screen::Scene;
use super::spark::Axis;
use hallmark_profiles::units::MINUS;
use hallmark_results::verdict::{Outcome, Verdict};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// Fewest columns that a course is readable in, and most that it is given.
const BARS_MIN: usize = 8;
const BARS_MAX: usize = 72;
/// Two for the glyph, one for the mark of the chosen row.
const GLYPH: usize = 3;
const GAP: usize = 2;

/// In which order devices are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    #[default]
    Worst,
    Hottest,
    Plan,
}

impl Sort {
    pub const fn next(self) -> Self {
        match self {
            Self::Worst => Self::Hottest,
            Self::Hottest => Self::Plan,
            Self::Plan => Self::Worst,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Worst => "worst first",
            Self::Hottest => "hottest first",
            Self::Plan => "in the plan’s order",
        }
    }
}

/// How a device stands, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    Bad,
    Open,
    Good,
}

/// How each device stands, in the plan's order.
pub fn marks(
    reading: &Reading<'_>,
    devices: &[DeviceReading],
    verdict: Option<&Verdict>,
) -> Vec<Mark> {
    let mut worst: Vec<Option<Outcome>> = vec![None; devices.len()];
    let findings = verdict.iter().flat_map(|v| &v.findings);
    let decided = findings.filter(|f| !gates::is_pending(reading, f));
    for place in decided.flat_map(|f| &f.places) {
        if let Some(slot) = place.device.and_then(|d| worst.get_mut(d as usize)) {
            *slot = (*slot).max(Some(place.outcome));
        }
    }
    let mark = |(device, worst): (&DeviceReading, Option<Outcome>)| {
        if matches!(device.state, State::Lost(_))
            || device.mismatches > 0
            || worst == Some(Outcome::Failed)
        {
            Mark::Bad
        } else if worst == Some(Outcome::Passed) {
            Mark::Good
        } else {
            Mark::Open
        }
    };
    devices.iter().zip(worst).map(mark).collect()
}

const fn glyph(mark: Mark) -> (&'static str, Style) {
    match mark {
        Mark::Bad => ("✕", BAD),
        Mark::Open => ("…", QUIET),
        Mark::Good => ("✓", QUIET),
    }
}

/// Indices into the scene's devices, as listed.
pub fn order(scene: &Scene<'_>, sort: Sort) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scene.devices.len()).collect();
    // Whole per cents: rows of healthy devices must not change places with every drawing.
    let rate = |d: &DeviceReading| {
        d.against_peers
            .map_or(f64::INFINITY, |r| (r * 100.0).round())
    };
    match sort {
        Sort::Plan => {}
        Sort::Worst => {
            let fine = |i: usize| scene.marks[i] != Mark::Bad;
            order.sort_by(|&a, &b| {
                let (x, y) = (&scene.devices[a], &scene.devices[b]);
                fine(a)
                    .cmp(&fine(b))
                    .then(rate(x).total_cmp(&rate(y)))
                    .then(a.cmp(&b))
            });
        }
        Sort::Hottest => {
            let heat = |i: usize| scene.devices[i].temp_core_c.unwrap_or(f64::NEG_INFINITY);
            order.sort_by(|&a, &b| heat(b).total_cmp(&heat(a)).then(a.cmp(&b)));
        }
    }
    order
}

/// A column of figures: its title, its cells, whether it goes early where room is short.
struct Column {
    title: String,
    cells: Vec<String>,
    bad: Vec<bool>,
    rank: u8,
    at_right: bool,
}

impl Column {
    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|c| ink::width(c)).max().unwrap_or(0);
        cells.max(ink::width(&self.title))
    }

    fn cell(&self, text: &str) -> String {
        if self.at_right {
            ink::right(text, self.width())
        } else {
            ink::left(text, self.width())
        }
    }
}

/// Header, rows and the line below: at most `rows` lines of `columns` columns.
pub fn table(
    scene: &Scene<'_>,
    sort: Sort,
    chosen: Option<usize>,
    columns: usize,
    rows: usize,
) -> Vec<Line<'static>> {
    if rows < 2 {
        return Vec::new();
    }
    let order = order(scene, sort);
    let room = rows - 2;
    let first = chosen.map_or(0, |c| c.saturating_sub(room.saturating_sub(1)));
    let shown: Vec<usize> = order.iter().copied().skip(first).take(room).collect();
    let listed: Vec<&DeviceReading> = shown.iter().map(|i| &scene.devices[*i]).collect();

    let names: Vec<String> = listed
        .iter()
        .map(|d| words::device(scene.reading.standing, Some(d.index)))
        .collect();
    let name_width = names
        .iter()
        .map(|n| ink::width(n))
        .max()
        .unwrap_or(0)
        .clamp(6, (columns / 4).max(6));
    let mut figures = figures(scene, &listed);
    let mut taken = GLYPH + name_width + BARS_MIN + GAP;
    let mut by_rank: Vec<u8> = figures.iter().map(|c| c.rank).collect();
    by_rank.sort_unstable();
    let mut kept = Vec::new();
    for rank in by_rank {
        let width = figures
            .iter()
            .find(|c| c.rank == rank)
            .map_or(0, Column::width)
            + GAP;
        if taken + width <= columns {
            taken += width;
            kept.push(rank);
        }
    }
    figures.retain(|c| kept.contains(&c.rank));
    let bars = (BARS_MIN + columns.saturating_sub(taken)).min(BARS_MAX);
    let axis = scene.axis();
    let rates: Vec<Vec<Option<f64>>> = listed
        .iter()
        .map(|d| {
            axis.rates(
                &scene.reading.standing.devices()[d.index as usize].work,
                bars,
            )
        })
        .collect();
    let axis = axis.fit(&rates);

    let mut lines = vec![header(&figures, name_width, bars, &axis, columns)];
    for (row, device) in listed.iter().enumerate() {
        let is_chosen = chosen == Some(first + row);
        let spans = row_spans(
            scene,
            device,
            &figures,
            row,
            (&names[row], name_width),
            &axis.bars(&rates[row]),
            is_chosen,
        );
        lines.push(ink::line(spans, columns));
    }
    lines.push(below(scene, sort, &order, first, shown.len(), columns));
    lines
}

fn header(
    figures: &[Column],
    name_width: usize,
    bars: usize,
    axis: &Axis,
    columns: usize,
) -> Line<'static> {
    let mut text = " ".repeat(GLYPH) + &ink::left("device", name_width);
    let title = axis.title();
    let title = if ink::width(&title) > bars {
        title.split(',').next().unwrap_or_default().to_owned()
    } else {
        title
    };
    for (index, column) in figures.iter().enumerate() {
        text.push_str(&" ".repeat(GAP));
        text.push_str(&column.cell(&column.title));
        if index == 0 {
            text.push_str(&" ".repeat(GAP));
            text.push_str(&ink::left(&title, bars));
        }
    }
    ink::line(
        vec![Span::styled(text.trim_end().to_owned(), QUIET)],
        columns,
    )
}

fn row_spans(
    scene: &Scene<'_>,
    device: &DeviceReading,
    figures: &[Column],
    row: usize,
    (name, name_width): (&str, usize),
    bars: &str,
    is_chosen: bool,
) -> Vec<Span<'static>> {
    let mark = scene.marks[device.index as usize];
    let (shape, style) = glyph(mark);
    let name_style = if is_chosen { BOLD } else { PLAIN };
    let mut spans = vec![
        Span::styled(if is_chosen { "›" } else { " " }, BOLD),
        Span::styled(format!("{shape} "), style),
        Span::styled(ink::left(name, name_width), name_style),
    ];
    for (index, column) in figures.iter().enumerate() {
        let style = if column.bad[row] { BAD } else { PLAIN };
        spans.push(Span::raw(" ".repeat(GAP)));
        spans.push(Span::styled(column.cell(&column.cells[row]), style));
        if index == 0 {
            spans.push(Span::raw(" ".repeat(GAP)));
            spans.push(Span::styled(
                bars.to_owned(),
                if mark == Mark::Bad { BAD } else { QUIET },
            ));
        }
    }
    spans
}

/// The columns there are values for, in the order in which they stand.
fn figures(scene: &Scene<'_>, listed: &[&DeviceReading]) -> Vec<Column> {
    let rate = rate_column(listed);
    let heat = |d: &DeviceReading| {
        d.reasons
            .iter()
            .flatten()
            .any(|r| r.starts_with("heat") || *r == "hw")
    };
    let peers = |d: &DeviceReading| d.against_peers.map(|r| fixed(r * 100.0, 1));
    let mut columns = vec![rate];
    let mut put = |title: &str,
                   rank: u8,
                   value: &dyn Fn(&DeviceReading) -> Option<String>,
                   bad: &dyn Fn(&DeviceReading) -> bool| {
        if scene.devices.iter().any(|d| value(d).is_some()) {
            columns.push(Column {
                title: title.to_owned(),
                cells: listed
                    .iter()
                    .map(|d| value(d).unwrap_or_else(|| "–".to_owned()))
                    .collect(),
                bad: listed.iter().map(|d| bad(d)).collect(),
                rank,
                at_right: true,
            });
        }
    };
    put("% peers", 2, &peers, &|_| false);
    put("power W", 4, &|d| d.power_w.map(|v| fixed(v, 0)), &|_| {
        false
    });
    put("core °C", 3, &|d| d.temp_core_c.map(|v| fixed(v, 1)), &heat);
    put("margin K", 6, &|d| d.margin_k.map(|v| fixed(v, 1)), &heat);
    put("MHz", 5, &|d| d.clock_hz.map(|v| fixed(v / 1e6, 0)), &heat);
    let remark = |d: &DeviceReading| match d.state {
        State::Lost(kind) => Some(words::fault(kind).to_owned()),
        _ if d.mismatches > 0 => Some(format!("{} wrong", d.mismatches)),
        State::Waiting if scene.reading.current.is_some() => Some("waits".to_owned()),
        _ => d
            .reasons
            .as_ref()
            .map(|r| r.join(", "))
            .filter(|r| !r.is_empty()),
    };
    let bad = |d: &DeviceReading| matches!(d.state, State::Lost(_)) || d.mismatches > 0 || heat(d);
    put("reasons", 1, &remark, &bad);
    for column in columns.iter_mut().filter(|c| c.title == "reasons") {
        column.at_right = false;
        column
            .cells
            .iter_mut()
            .filter(|c| *c == "–")
            .for_each(String::clear);
    }
    columns
}

/// Rates in the one unit that suits the highest: of copy and triad where no matmuls run.
fn rate_column(listed: &[&DeviceReading]) -> Column {
    let matmul = listed.iter().any(|d| d.rate_flop_per_s.is_some());
    let of = |d: &DeviceReading| {
        if matmul {
            d.rate_flop_per_s
        } else {
            d.memory_byte_per_s
        }
    };
    let highest = listed.iter().filter_map(|d| of(d)).fold(0.0, f64::max);
    let prefixes = [("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)];
    let (prefix, scale) = prefixes
        .into_iter()
        .find(|(_, s)| highest >= *s)
        .unwrap_or(("G", 1e9));
    let unit = if matmul || highest <= 0.0 {
        "FLOP/s"
    } else {
        "B/s"
    };
    let decimals = if highest / scale < 9.995 { 2 } else { 1 };
    Column {
        title: format!("{prefix}{unit}"),
        cells: listed
            .iter()
            .map(|d| of(d).map_or_else(|| "–".to_owned(), |r| fixed(r / scale, decimals)))
            .collect(),
        bad: listed
            .iter()
            .map(|d| matches!(d.state, State::Lost(_)))
            .collect(),
        rank: 0,
        at_right: true,
    }
}

/// With so many decimals, thousands grouped, a true minus.
fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && whole.len() > 4 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value < 0.0 {
        format!("{MINUS}{grouped}{rest}")
    } else {
        grouped + rest
    }
}

fn below(
    scene: &Scene<'_>,
    sort: Sort,
    order: &[usize],
    first: usize,
    shown: usize,
    columns: usize,
) -> Line<'static> {
    let hidden: Vec<usize> = order
        .iter()
        .take(first)
        .chain(order.iter().skip(first + shown))
        .copied()
        .collect();
    let bad = hidden
        .iter()
        .filter(|i| scene.marks[**i] == Mark::Bad)
        .count();
    let mut start = Vec::new();
    if !hidden.is_empty() {
        let rest = if bad == 0 {
            "none of them flagged".to_owned()
        } else {
            format!("{bad} of them flagged")
        };
        let text = format!("   {} more, {rest}", hidden.len());
        start.push(Span::styled(text, if bad == 0 { QUIET } else { BAD }));
    }
    let absent = absent(scene);
    if !absent.is_empty() {
        let lead = if start.is_empty() { "   " } else { "; " };
        start.push(Span::styled(
            format!("{lead}not measured: {}", absent.join(", ")),
            QUIET,
        ));
    }
    ink::ends(start, vec![Span::styled(sort.name(), QUIET)], columns)
}

/// What no device has a sensor for.
fn absent(scene: &Scene<'_>) -> Vec<&'static str> {
    let lacks = |has: fn(&DeviceReading) -> bool| !scene.devices.iter().any(has);
    let all = [
        ("power", lacks(|d| d.power_w.is_some())),
        ("core temperature", lacks(|d| d.temp_core_c.is_some())),
        ("clock", lacks(|d| d.clock_hz.is_some())),
        ("clock reasons", lacks(|d| d.reasons.is_some())),
    ];
    all.into_iter()
        .filter(|(_, lacks)| *lacks && !scene.devices.is_empty())
        .map(|(name, _)| name)
        .collect()
}
