//! Calm lines for logs and pipes: what runs, what happens, how far it is; the summary last.
//!
//! A line for each thing worth knowing and one every ten seconds; the text never holds up the run.

use super::View;
use crate::run::Run;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};
use hallmark_results::frame::{Event, Frame, What};
use hallmark_results::plan::SegmentKind;
use hallmark_results::standing::Standing;
use hallmark_results::verdict::Verdict;
use outlet::Outlet;
use reading::{DeviceReading, Reading, State};
use std::path::Path;
use words::Weight;

pub mod outlet;
pub mod reading;
pub mod words;

/// Distance of progress lines.
const PERIOD_NS: u64 = 10_000_000_000;
/// With more devices than this a progress line tells of the worst alone, and one line of all self-tests that passed.
const LISTED: usize = 4;

/// The view; `colour` paints what went wrong.
pub struct Plain {
    colour: bool,
    out: Outlet,
    next_ns: u64,
    /// Self-tests passed that no line has told yet.
    passed: usize,
}

impl Plain {
    /// Writes to standard output.
    pub fn new(colour: bool) -> Self {
        Self::writing_to(Outlet::stdout(), colour)
    }

    fn writing_to(out: Outlet, colour: bool) -> Self {
        Self {
            colour,
            out,
            next_ns: PERIOD_NS,
            passed: 0,
        }
    }

    fn line(&mut self, text: &str) {
        match self.out.take_refused() {
            0 => {}
            refused => {
                let told = format!("({refused} lines were not shown: nobody read them)\n");
                self.out.send(told.into_bytes());
            }
        }
        self.out.send(format!("{text}\n").into_bytes());
    }

    fn timed(&mut self, at_ns: u64, text: &str, weight: Weight) {
        let code = match weight {
            Weight::Bad => "38;5;208",
            Weight::Unsure => "38;5;178",
            Weight::Plain | Weight::Quiet => "",
        };
        let text = if self.colour && !code.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        };
        self.line(&format!("{}  {text}", words::clock(at_ns)));
    }

    fn event(&mut self, event: &Event, standing: &Standing) {
        let weight = words::weight(&event.what);
        if matches!(event.what, What::AsFound { .. }) {
            return;
        }
        let devices = standing.devices().len();
        if matches!(event.what, What::SelfTest { passed: true, .. }) && devices > LISTED {
            self.passed += 1;
            return;
        }
        let passed = std::mem::take(&mut self.passed);
        if passed > 0 {
            let text = format!("{passed} of {devices} devices: {}", words::SELF_TEST_PASSED);
            self.timed(event.at_ns, &text, Weight::Plain);
        }
        let text = match &event.what {
            What::Segment { index } => begins(standing, *index as usize),
            _ => words::event(standing, event),
        };
        self.timed(event.at_ns, &text, weight);
    }

    fn progress(&mut self, reading: &Reading<'_>) {
        self.timed(reading.now_ns, &progress_line(reading), Weight::Plain);
    }
}

impl View for Plain {
    fn opened(&mut self, standing: &Standing, folder: &Path) {
        for line in opening(standing, folder) {
            self.line(&line);
        }
    }

    fn note(&mut self, text: &str) {
        self.line(&words::clean(text));
    }

    fn frame(&mut self, frame: &Frame, run: &Run, _now_ns: u64) {
        if let Frame::Event(event) = frame {
            self.event(event, run.standing());
        }
    }

    fn tick(&mut self, run: &Run, now_ns: u64) {
        if now_ns < self.next_ns || run.current().is_none() {
            return;
        }
        self.next_ns = (now_ns / PERIOD_NS + 1) * PERIOD_NS;
        self.progress(&Reading {
            standing: run.standing(),
            current: run.current(),
            now_ns,
        });
    }

    fn verdict(&mut self, _verdict: &Verdict, summary: &str, _folder: &Path, head: &str) {
        self.out.insist(closing(summary, head).into_bytes());
        self.out.finish();
    }
}

/// The chain's head in full, to be noted elsewhere, and the summary, whose last line is the verdict.
pub fn closing(summary: &str, head: &str) -> String {
    let head = match words::clean(head) {
        head if head.is_empty() => "none: the record is not sealed".to_owned(),
        head => head,
    };
    let end = if summary.ends_with('\n') { "" } else { "\n" };
    format!("chain head  {head}\n\n{summary}{end}")
}

fn opening(standing: &Standing, folder: &Path) -> Vec<String> {
    let opened = standing.opened();
    let plan = &opened.plan;
    let mut lines = vec![format!(
        "hallmark {}   run {}",
        words::clean(&opened.hallmark_version),
        words::clean(&opened.run_id)
    )];
    let banner = words::banner(standing);
    if !banner.is_empty() {
        lines.push(format!(
            "figures     {banner}: no result of the hardware named"
        ));
    }
    let profile = standing.profile();
    lines.push(format!(
        "profile     {} ({}): {}",
        words::clean(&profile.name),
        words::short(&plan.profile_digest),
        words::clean(&profile.summary)
    ));
    lines.push(format!("plan        {}", words::clean(&opened.plan_digest)));
    let host = &opened.host;
    lines.push(format!(
        "host        {}, {}",
        words::clean(&host.name),
        words::counted(host.cores as usize, "core", "cores")
    ));
    let mut kinds: Vec<(String, Vec<String>)> = Vec::new();
    for device in &plan.devices {
        let kind = format!(
            "{}, {} {}",
            words::clean(&device.name),
            words::clean(&device.engine),
            plan.dtype
        );
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, ids)) => ids.push(words::clean(&device.id)),
            None => kinds.push((kind, vec![words::clean(&device.id)])),
        }
    }
    for (kind, ids) in kinds {
        let ids = if ids.len() > 8 {
            format!("{} to {} ({})", ids[0], ids[ids.len() - 1], ids.len())
        } else {
            ids.join(" ")
        };
        lines.push(format!("devices     {ids}: {kind}"));
    }
    lines.push(format!(
        "folder      {}",
        words::clean(&folder.display().to_string())
    ));
    let parts = plan.schedule.iter().map(|s| {
        format!(
            "{} {}",
            words::clean(&s.name),
            words::duration(s.duration_ns)
        )
    });
    lines.push(format!(
        "takes       at most {}: {}",
        words::duration(plan.duration_ns()),
        parts.collect::<Vec<_>>().join(", ")
    ));
    lines.extend(
        plan.overrides
            .iter()
            .map(|o| format!("changed     {}", words::clean(o))),
    );
    lines.extend(
        plan.limits
            .iter()
            .map(|l| format!("cannot show {}", words::clean(l))),
    );
    lines
}

fn begins(standing: &Standing, index: usize) -> String {
    let plan = &standing.opened().plan;
    let Some(segment) = plan.schedule.get(index) else {
        return words::segment(standing, index);
    };
    let limit = if segment.kind == SegmentKind::Warmup {
        "up to "
    } else {
        ""
    };
    let active = segment.active.min(plan.devices.len());
    let on = if active < plan.devices.len() {
        format!(", {active} of {} devices", plan.devices.len())
    } else {
        String::new()
    };
    format!(
        "{}, {limit}{}{on}",
        words::clean(&segment.name),
        words::duration(segment.duration_ns)
    )
}

fn progress_line(reading: &Reading<'_>) -> String {
    let progress = reading.progress();
    let devices = reading.devices();
    let mut parts = vec![format!("{:>3.0}\u{a0}%", progress.share * 100.0)];
    parts.push(match reading.stopping() {
        Some(_) => "stopping".to_owned(),
        None => format!("{} left", words::countdown(progress.left_ns)),
    });
    parts.extend(
        reading
            .current
            .map(|(index, _)| words::segment(reading.standing, index)),
    );
    if devices.len() <= LISTED {
        parts.extend(devices.iter().map(|d| device_text(reading.standing, d)));
    } else {
        parts.extend(crowd_text(reading.standing, &devices));
    }
    parts.extend(
        reading
            .bus_byte_per_s()
            .map(|b| format!("all-reduce bus {}", human(b, Unit::BytePerSecond))),
    );
    parts.extend(node_text(reading));
    let audits = reading.audits();
    if let Some(share) = audits.share() {
        parts.push(format!(
            "audited {}, {} wrong",
            human(share * 100.0, Unit::Percent),
            audits.wrong
        ));
    }
    parts.join(" · ")
}

fn device_text(standing: &Standing, device: &DeviceReading) -> String {
    let mut text = words::device(standing, Some(device.index));
    let mut put = |part: String| {
        text.push(' ');
        text.push_str(&part);
    };
    match device.state {
        State::Lost(kind) => put(format!("LOST ({})", words::fault(kind))),
        State::Waiting => put("waits".to_owned()),
        State::Working => {
            let rate = device
                .rate_flop_per_s
                .map(|r| human(r, Unit::FlopPerSecond));
            let memory = device
                .memory_byte_per_s
                .map(|r| human(r, Unit::BytePerSecond));
            rate.into_iter().chain(memory).for_each(&mut put);
        }
    }
    device
        .power_w
        .map(|p| human(p, Unit::Watt))
        .into_iter()
        .for_each(&mut put);
    device
        .temp_core_c
        .map(|t| human(t, Unit::Celsius))
        .into_iter()
        .for_each(&mut put);
    for reason in device.reasons.iter().flatten() {
        put(format!("[{reason}]"));
    }
    text
}

/// Many devices: how many work, the middle and the worst.
fn crowd_text(standing: &Standing, devices: &[DeviceReading]) -> Vec<String> {
    let working: Vec<&DeviceReading> = devices
        .iter()
        .filter(|d| d.state == State::Working)
        .collect();
    let mut parts = vec![format!(
        "{} of {} devices at work",
        working.len(),
        devices.len()
    )];
    let mut rates: Vec<(f64, u32)> = working
        .iter()
        .filter_map(|d| Some((d.rate_flop_per_s?, d.index)))
        .collect();
    rates.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let (Some((low, worst)), Some((middle, _))) = (rates.first(), rates.get(rates.len() / 2)) {
        let said = |rate: f64| human(rate, Unit::FlopPerSecond);
        parts.push(format!(
            "median {}, slowest {} {}",
            said(*middle),
            words::device(standing, Some(*worst)),
            said(*low)
        ));
    }
    let powers: Vec<f64> = devices.iter().filter_map(|d| d.power_w).collect();
    if !powers.is_empty() {
        parts.push(human(powers.iter().sum(), Unit::Watt));
    }
    let hottest = devices
        .iter()
        .filter_map(|d| d.temp_core_c)
        .max_by(f64::total_cmp);
    parts.extend(hottest.map(|t| format!("hottest {}", human(t, Unit::Celsius))));
    parts
}

/// What only the node's own sensors tell.
fn node_text(reading: &Reading<'_>) -> Vec<String> {
    let shown = [
        (Metric::PowerDraw, Unit::Watt, "node"),
        (Metric::TempCore, Unit::Celsius, "node"),
        (Metric::CpuLoad, Unit::Percent, "CPU"),
    ];
    let said =
        |(metric, unit, name)| Some(format!("{name} {}", human(reading.node(metric)?, unit)));
    shown.into_iter().filter_map(said).collect()
}

#[cfg(test)]
pub mod sample;
#[cfg(test)]
mod tests;
