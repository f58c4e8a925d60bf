//! The whole screen: which page is open, which device is chosen, and what stands where.
//!
//! It draws any size, down to one cell; what does not fit goes in the order of what matters least. It reads no
//! key by itself and no clock.

use super::super::plain::reading::{DeviceReading, Reading, State};
use super::super::plain::words::{self, Weight};
use super::devices::{self, Mark, Sort};
use super::ink::{self, BAD, BOLD, COURSE, PLAIN, QUIET, UNSURE};
use super::pages;
use super::spark::Axis;
use super::{Asked, gates};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};
use hallmark_results::frame::Event;
use hallmark_results::plan::SegmentKind;
use hallmark_results::verdict::{Finding, Outcome, Verdict};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

/// A run at an instant, with what is made of it once for all parts of the screen.
pub struct Scene<'a> {
    pub reading: Reading<'a>,
    pub devices: Vec<DeviceReading>,
    pub marks: Vec<Mark>,
    pub verdict: Option<&'a Verdict>,
    pub folder: &'a str,
}

impl<'a> Scene<'a> {
    pub fn new(reading: Reading<'a>, verdict: Option<&'a Verdict>, folder: &'a str) -> Self {
        let devices = reading.devices();
        let marks = devices::marks(&reading, &devices, verdict);
        Self {
            reading,
            devices,
            marks,
            verdict,
            folder,
        }
    }

    /// The time axis of all courses: from the first load to the latest instant that every working device has
    /// told of.
    pub fn axis(&self) -> Axis {
        let standing = self.reading.standing;
        let start = standing.windows().first().map_or(0, |w| w.start_ns);
        let working = self.devices.iter().filter(|d| d.state == State::Working);
        let ends =
            working.filter_map(|d| self.reading.recent(&standing.devices()[d.index as usize]));
        let to = ends.map(|(_, to)| to).min().unwrap_or(self.reading.now_ns);
        Axis::of_time(start, to)
    }

    fn lost(&self) -> usize {
        self.devices
            .iter()
            .filter(|d| matches!(d.state, State::Lost(_)))
            .count()
    }
}

/// What is on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Page {
    #[default]
    Overview,
    Gates,
    Events,
    Device,
    Help,
}

/// What the operator has chosen to see.
#[derive(Default)]
pub struct Screen {
    pub page: Page,
    pub sort: Sort,
    /// The chosen device, by its place in the plan: it stays chosen when the order changes.
    pub chosen: Option<u32>,
    /// First line shown of a page that is longer than the screen.
    pub scroll: usize,
    /// A question that waits for its second key.
    pub asked: Option<Asked>,
}

impl Screen {
    /// Moves the choice, or the page, by some lines.
    pub fn step(&mut self, scene: &Scene<'_>, by: isize) {
        if self.page != Page::Overview {
            self.scroll = self.scroll.saturating_add_signed(by);
            return;
        }
        let order = devices::order(scene, self.sort);
        let at = self
            .place(scene, &order)
            .map_or(if by > 0 { 0 } else { order.len() }, |at| {
                at.saturating_add_signed(by)
            });
        let at = at.min(order.len().saturating_sub(1));
        self.chosen = order.get(at).map(|i| *i as u32);
    }

    fn place(&self, scene: &Scene<'_>, order: &[usize]) -> Option<usize> {
        let chosen = self
            .chosen
            .filter(|c| (*c as usize) < scene.devices.len())?;
        order.iter().position(|i| *i == chosen as usize)
    }

    pub fn open(&mut self, page: Page) {
        self.page = if self.page == page {
            Page::Overview
        } else {
            page
        };
        self.scroll = 0;
    }

    /// Draws everything.
    pub fn draw(&mut self, scene: &Scene<'_>, area: Rect, buffer: &mut Buffer) {
        let (columns, rows) = (area.width as usize, area.height as usize);
        let lines = self.lines(scene, columns, rows);
        paint(&lines, area, buffer);
    }

    fn lines(&mut self, scene: &Scene<'_>, columns: usize, rows: usize) -> Vec<Line<'static>> {
        let airy = rows >= 28;
        let inner = columns.saturating_sub(1);
        let mut top = vec![title(scene, inner)];
        let blank = || Line::default();
        if rows >= 20 {
            top.push(blank());
        }
        top.push(verdict(scene, inner));
        if airy {
            top.push(blank());
        }
        top.push(progress(scene, inner));
        if airy {
            top.push(blank());
        }
        let keys = keys(self, inner);
        let middle = rows.saturating_sub(top.len() + 1);
        let body = match self.page {
            Page::Overview => self.overview(scene, inner, middle, airy),
            page => {
                let all = match page {
                    Page::Gates => gates::page(scene, inner),
                    Page::Events => pages::events(scene, inner),
                    Page::Device => pages::device(scene, self.chosen, inner),
                    Page::Overview | Page::Help => pages::help(scene, inner),
                };
                let mut body = if airy { Vec::new() } else { vec![blank()] };
                let room = middle.saturating_sub(body.len() + 1);
                self.scroll = self.scroll.min(all.len().saturating_sub(room));
                body.extend(all.into_iter().skip(self.scroll).take(room));
                body
            }
        };
        let mut lines = top;
        lines.extend(body.into_iter().take(middle));
        lines.truncate(rows.saturating_sub(1));
        lines.resize(rows.saturating_sub(1), Line::default());
        lines.push(keys);
        lines.into_iter().map(indented).collect()
    }

    fn overview(
        &self,
        scene: &Scene<'_>,
        columns: usize,
        rows: usize,
        airy: bool,
    ) -> Vec<Line<'static>> {
        let mut lines = vec![figures(scene, columns)];
        let blank = Line::default;
        if rows > 4 {
            lines.push(blank());
        }
        let news_rows = if rows >= 40 {
            5
        } else if airy {
            3
        } else {
            1
        };
        let news = news(scene, columns, news_rows);
        // Blank lines around gates and news.
        let around = if rows > 10 { 2 } else { 0 };
        let room = rows.saturating_sub(lines.len() + news.len() + around + usize::from(airy));
        let listed = scene.devices.len() + 2;
        let gates_room = if rows > 10 {
            room.saturating_sub(listed.min(room * 3 / 5))
        } else {
            0
        };
        let gates = gates::overview(scene, columns, gates_room);
        let order = devices::order(scene, self.sort);
        let chosen = self.place(scene, &order);
        let device_room = room.saturating_sub(gates.len());
        let table = devices::table(scene, self.sort, chosen, columns, device_room);
        let has_gates = !gates.is_empty();
        lines.extend(table);
        if around > 0 && has_gates {
            lines.push(blank());
        }
        lines.extend(gates);
        if around > 0 {
            lines.push(blank());
        }
        lines.extend(news);
        lines
    }
}

/// Draws what there is to see before the load starts: who runs, and what is being done.
pub fn preparing(head: &[String], notes: &[String], area: Rect, buffer: &mut Buffer) {
    let columns = (area.width as usize).saturating_sub(1);
    let mut lines: Vec<Line<'static>> = Vec::new();
    for (index, text) in head.iter().enumerate() {
        let style = if index == 0 { BOLD } else { PLAIN };
        lines.push(ink::line(vec![Span::styled(text.clone(), style)], columns));
        if index == 0 {
            lines.push(Line::default());
        }
    }
    lines.push(Line::default());
    let rows = (area.height as usize).saturating_sub(lines.len());
    let skipped = notes.len().saturating_sub(rows);
    for (index, note) in notes.iter().enumerate().skip(skipped) {
        let style = if index + 1 == notes.len() {
            COURSE
        } else {
            QUIET
        };
        lines.push(ink::line(vec![Span::styled(note.clone(), style)], columns));
    }
    let lines: Vec<Line<'static>> = lines.into_iter().map(indented).collect();
    paint(&lines, area, buffer);
}

fn indented(mut line: Line<'static>) -> Line<'static> {
    // A lead of one column keeps text off the edge.
    line.spans.insert(0, Span::raw(" "));
    line
}

fn paint(lines: &[Line<'static>], area: Rect, buffer: &mut Buffer) {
    for (line, y) in lines.iter().zip(area.top()..area.bottom()) {
        line.render(Rect::new(area.x, y, area.width, 1), buffer);
    }
}

fn title(scene: &Scene<'_>, columns: usize) -> Line<'static> {
    let opened = scene.reading.standing.opened();
    let start = vec![
        Span::styled("hallmark", BOLD),
        Span::raw(format!("  run {}", words::clean(&opened.run_id))),
    ];
    let profile = words::clean(&scene.reading.standing.profile().name);
    let mut end = vec![Span::styled(
        format!("{profile} · {}", words::short(&opened.plan_digest)),
        QUIET,
    )];
    let banner = words::banner(scene.reading.standing);
    if !banner.is_empty() {
        end.push(Span::styled(format!(" · {banner}"), UNSURE));
    }
    ink::ends(start, end, columns)
}

/// The running verdict, and what the run is at.
fn verdict(scene: &Scene<'_>, columns: usize) -> Line<'static> {
    let start = scene.verdict.map_or_else(
        || vec![Span::styled("… not judged yet", QUIET)],
        |verdict| standing(scene, verdict),
    );
    let end = match scene.reading.stopping() {
        Some(_) => Span::styled("stopping, then seals", UNSURE),
        None if scene.lost() > 0 && scene.lost() < scene.devices.len() => {
            Span::styled("load goes on", QUIET)
        }
        None => Span::raw(""),
    };
    ink::ends(start, vec![end], columns)
}

/// What the gates come to so far; those that wait for their phase to end decide nothing yet.
fn standing(scene: &Scene<'_>, verdict: &Verdict) -> Vec<Span<'static>> {
    let decided = |outcome: Outcome| {
        let mut found = verdict.findings.iter().filter(|f| f.outcome == outcome);
        found.find(|f| !gates::is_pending(&scene.reading, f))
    };
    let pending = |f: &&Finding| gates::is_pending(&scene.reading, f);
    let open = verdict.findings.iter().filter(pending).count();
    let held = verdict.count(Outcome::Passed);
    // The sentence tells of the first finding, which may be one that still waits.
    let reason = |finding: &Finding| {
        let text = match verdict.findings.first() {
            Some(first) if !gates::is_pending(&scene.reading, first) => verdict.sentence.clone(),
            _ => format!("{}: {}", finding.criterion.name, finding.why),
        };
        Span::styled(words::clean(&text), BOLD)
    };
    if let Some(failed) = decided(Outcome::Failed) {
        return vec![Span::styled("✕ failing  ", BAD), reason(failed)];
    }
    if let Some(unknown) = decided(Outcome::Inconclusive) {
        return vec![Span::styled("◇ inconclusive  ", UNSURE), reason(unknown)];
    }
    if open > 0 {
        let text = format!("no gate has failed; {held} hold so far, {open} need more time");
        return vec![Span::styled("… open  ", UNSURE), Span::raw(text)];
    }
    let text = format!("all {held} gates hold so far");
    vec![Span::styled("✓ holding  ", BOLD), Span::raw(text)]
}

fn progress(scene: &Scene<'_>, columns: usize) -> Line<'static> {
    let progress = scene.reading.progress();
    let current = scene.reading.segment();
    let warm = current.is_some_and(|s| s.kind == SegmentKind::Warmup);
    let at_most = if warm { "at most " } else { "" };
    let mut text = format!("  {:>3.0}\u{a0}%", (progress.share * 100.0).floor());
    let total = words::countdown(progress.done_ns + progress.left_ns);
    let left = format!("{at_most}{} left", words::countdown(progress.left_ns));
    let name = current.map(|s| words::clean(&s.name)).unwrap_or_default();
    let middle = format!(
        "   {name}   {} of {total}, ",
        words::countdown(progress.done_ns)
    );
    let right = ink::width(&text) + ink::width(&middle) + ink::width(&left);
    let with_middle = right + 12 <= columns;
    let right = if with_middle {
        right
    } else {
        ink::width(&text) + 2 + ink::width(&left)
    };
    let bar = columns.saturating_sub(right).min(columns * 2 / 3);
    let full = ((progress.share * bar as f64) as usize).min(bar);
    text = text.replace(
        "100\u{a0}%",
        if progress.left_ns > 0 {
            " 99\u{a0}%"
        } else {
            "100\u{a0}%"
        },
    );
    let mut spans = vec![
        Span::styled("━".repeat(full), COURSE),
        Span::styled("─".repeat(bar - full), QUIET),
        Span::styled(text, BOLD),
    ];
    spans.push(Span::raw(if with_middle {
        middle
    } else {
        "  ".to_owned()
    }));
    spans.push(Span::styled(left, BOLD));
    ink::line(spans, columns)
}

/// Key figures of the machine, as many as fit, those that matter most first.
fn figures(scene: &Scene<'_>, columns: usize) -> Line<'static> {
    let reading = &scene.reading;
    let sum = |values: Vec<f64>| (!values.is_empty()).then(|| values.iter().sum::<f64>());
    let rates = sum(scene
        .devices
        .iter()
        .filter_map(|d| d.rate_flop_per_s)
        .collect());
    let memory = sum(scene
        .devices
        .iter()
        .filter_map(|d| d.memory_byte_per_s)
        .collect());
    let power = sum(scene.devices.iter().filter_map(|d| d.power_w).collect())
        .or_else(|| reading.node(Metric::PowerDraw));
    let hottest = scene
        .devices
        .iter()
        .filter_map(|d| d.temp_core_c)
        .max_by(f64::total_cmp);
    let hottest = hottest.or_else(|| reading.node(Metric::TempCore));
    let audits = reading.audits();
    let total = scene.devices.len();
    let alive = total - scene.lost();
    let mut shown: Vec<(&str, String, bool)> = Vec::new();
    let mut put = |name, value: Option<String>, bad| shown.extend(value.map(|v| (name, v, bad)));
    put("rate", rates.map(|r| human(r, Unit::FlopPerSecond)), false);
    let devices = Some(format!("{alive}/{total}"));
    if alive < total {
        put("devices", devices.clone(), true);
    }
    put(
        "memory",
        memory.map(|r| human(r, Unit::BytePerSecond)),
        false,
    );
    put("power", power.map(|p| human(p, Unit::Watt)), false);
    put("hottest", hottest.map(|t| human(t, Unit::Celsius)), false);
    let audited = audits
        .share()
        .map(|s| format!("{:.1}\u{a0}%, {} wrong", s * 100.0, audits.wrong));
    put("audited", audited, audits.wrong > 0);
    if alive == total {
        put("devices", devices, false);
    }
    put(
        "bus",
        reading
            .bus_byte_per_s()
            .map(|b| human(b, Unit::BytePerSecond)),
        false,
    );
    put(
        "CPU",
        reading
            .node(Metric::CpuLoad)
            .map(|l| format!("{l:.0}\u{a0}%")),
        false,
    );
    put(
        "CPU clock",
        reading
            .node(Metric::CpuFrequency)
            .map(|f| human(f, Unit::Hertz)),
        false,
    );
    let mut spans: Vec<Span<'static>> = Vec::new();
    let mut used = 0;
    for (name, value, bad) in shown {
        let gap = if spans.is_empty() { 0 } else { 3 };
        let wide = gap + name.len() + 1 + ink::width(&value);
        if used + wide > columns && !spans.is_empty() {
            continue;
        }
        used += wide;
        spans.push(Span::styled(format!("{}{name} ", " ".repeat(gap)), QUIET));
        spans.push(Span::styled(value, if bad { BAD } else { BOLD }));
    }
    ink::line(spans, columns)
}

/// The latest events, what is wrong before what is not.
fn news(scene: &Scene<'_>, columns: usize, rows: usize) -> Vec<Line<'static>> {
    let standing = scene.reading.standing;
    let mut events: Vec<&Event> = standing
        .events()
        .iter()
        .filter(|e| words::weight(&e.what) > Weight::Quiet)
        .collect();
    events.reverse();
    events.sort_by_key(|e| std::cmp::Reverse(words::weight(&e.what).max(Weight::Plain)));
    if rows != 1 {
        events.truncate(rows);
        events.sort_by_key(|e| std::cmp::Reverse(e.at_ns));
        return events
            .iter()
            .map(|e| ink::line(told(scene, e), columns))
            .collect();
    }
    let mut spans: Vec<Span<'static>> = Vec::new();
    for event in events.into_iter().take(3) {
        if !spans.is_empty() {
            spans.push(Span::raw("   "));
        }
        spans.extend(told(scene, event));
    }
    vec![ink::line(spans, columns)]
}

/// When, and what.
pub fn told(scene: &Scene<'_>, event: &Event) -> Vec<Span<'static>> {
    let style = match words::weight(&event.what) {
        Weight::Bad => BAD,
        Weight::Unsure => UNSURE,
        Weight::Plain => PLAIN,
        Weight::Quiet => QUIET,
    };
    vec![
        Span::styled(words::clock(event.at_ns) + " ", QUIET),
        Span::styled(words::event(scene.reading.standing, event), style),
    ]
}

/// Keys that do something on this page.
fn keys(screen: &Screen, columns: usize) -> Line<'static> {
    if let Some(asked) = screen.asked {
        let (question, key) = match asked {
            Asked::Stop => ("stop the load, seal and judge?", "q"),
            Asked::Cut => ("cut the run at once?", "Q"),
        };
        let spans = vec![
            Span::styled(question, UNSURE),
            Span::raw("   press "),
            Span::styled(key, BOLD),
            Span::raw(" again; any other key goes on"),
        ];
        return ink::line(spans, columns);
    }
    let list: &[(&str, &str)] = match screen.page {
        Page::Overview => &[
            ("q", "stop and seal"),
            ("↑↓", "choose"),
            ("⏎", "device"),
            ("g", "gates"),
            ("e", "events"),
            ("s", "sort"),
            ("?", "help"),
            ("Q", "cut"),
        ],
        _ => &[
            ("Esc", "back"),
            ("↑↓", "scroll"),
            ("g", "gates"),
            ("e", "events"),
            ("?", "help"),
            ("q", "stop and seal"),
            ("Q", "cut"),
        ],
    };
    let gap = if columns >= 90 { 3 } else { 2 };
    let mut spans = Vec::new();
    for (index, (key, what)) in list.iter().enumerate() {
        let lead = if index == 0 { 0 } else { gap };
        spans.push(Span::styled(format!("{}{key}", " ".repeat(lead)), BOLD));
        spans.push(Span::styled(format!(" {what}"), QUIET));
    }
    ink::line(spans, columns)
}
