//! The pages behind the overview: events, one device, help.

use super::super::plain::reading::{DeviceReading, State};
use super::super::plain::words;
use super::ink::{self, BAD, BOLD, PLAIN, QUIET};
use super::screen::{Scene, told};
use hallmark_profiles::units::{Unit, human};
use hallmark_results::frame::{SeriesKind, What};
use hallmark_results::plan::PlannedDevice;
use hallmark_results::standing::DeviceRun;
use ratatui::text::{Line, Span};

/// Column in which the second part of a labelled line starts.
const LABEL: usize = 26;

fn heading(text: &str) -> Line<'static> {
    Line::from(Span::styled(format!(" {text}"), BOLD))
}

fn labelled(label: &str, text: &str, columns: usize) -> Line<'static> {
    let spans = vec![
        Span::styled(format!(" {}", ink::left(label, LABEL)), QUIET),
        Span::styled(format!(" {text}"), PLAIN),
    ];
    ink::line(spans, columns)
}

/// Everything that happened, the newest first; settings as found are told on the devices' pages.
pub fn events(scene: &Scene<'_>, columns: usize) -> Vec<Line<'static>> {
    let all = scene.reading.standing.events().iter().rev();
    let mut lines: Vec<Line<'static>> = all
        .filter(|e| !matches!(e.what, What::AsFound { .. }))
        .map(|event| {
            let mut spans = vec![Span::raw(" ")];
            spans.extend(told(scene, event));
            ink::line(spans, columns)
        })
        .collect();
    if lines.is_empty() {
        lines.push(Line::from(Span::styled(" nothing has happened yet", QUIET)));
    }
    lines
}

/// All that is known of one device.
pub fn device(scene: &Scene<'_>, chosen: Option<u32>, columns: usize) -> Vec<Line<'static>> {
    let standing = scene.reading.standing;
    let index = chosen.unwrap_or(0);
    let planned = standing.opened().plan.devices.get(index as usize);
    let (Some(planned), Some(reading), Some(run)) = (
        planned,
        scene.devices.get(index as usize),
        standing.devices().get(index as usize),
    ) else {
        let text = " this run has no such device";
        return vec![Line::from(Span::styled(text, QUIET))];
    };
    let id = words::clean(&planned.id);
    let mut lines = vec![heading(&format!("{id}   {}", words::clean(&planned.name)))];
    for fault in &run.faults {
        let label = format!(" {} ", ink::left("fault", LABEL));
        let mut spans = vec![Span::styled(label, QUIET)];
        let text = words::event(standing, fault);
        spans.push(Span::styled(
            format!("{} {text}", words::clock(fault.at_ns)),
            BAD,
        ));
        lines.push(ink::line(spans, columns));
    }
    let put = |lines: &mut Vec<Line<'static>>, rows: Vec<(String, String)>| {
        let rows = rows.into_iter().filter(|(_, text)| !text.is_empty());
        lines.extend(rows.map(|(label, text)| labelled(&label, &text, columns)));
    };
    put(&mut lines, work(reading, run));
    sensors(scene, index, columns, &mut lines);
    lines.push(Line::default());
    put(&mut lines, identity(planned));
    let found = standing
        .events()
        .iter()
        .filter_map(|event| match &event.what {
            What::AsFound { key, value } if event.device == Some(index) => Some((
                words::spoken(key),
                format!("{} (as found)", words::clean(value)),
            )),
            _ => None,
        });
    put(&mut lines, found.collect());
    lines
}

/// What a device does and has done; an empty text is not shown.
fn work(reading: &DeviceReading, run: &DeviceRun) -> Vec<(String, String)> {
    let state = match reading.state {
        State::Lost(kind) => format!("lost: {}", words::fault(kind)),
        State::Working => "working".to_owned(),
        State::Waiting => "waits for its turn".to_owned(),
    };
    let shown = |value: Option<f64>, unit| value.map(|v| human(v, unit)).unwrap_or_default();
    let percent = reading.against_peers.map(|r| r * 100.0);
    let (audited, gemms, wrong) = (run.audited, run.gemms, run.mismatches);
    let test = match run.self_test {
        Some(true) => "passed: the flipped bit was caught",
        Some(false) => "FAILED: the flipped bit was missed",
        None => "not done",
    };
    let timing = match (run.steps, run.device_clock) {
        (0, _) => "",
        (_, true) => "events on the device",
        (_, false) => "the host’s clock",
    };
    let rows = [
        ("state", state),
        ("rate", shown(reading.rate_flop_per_s, Unit::FlopPerSecond)),
        ("against peers", shown(percent, Unit::Percent)),
        ("steps", human(run.steps as f64, Unit::Count)),
        (
            "audited",
            format!("{audited} of {gemms} matmuls, {wrong} wrong"),
        ),
        ("self-test", test.to_owned()),
        ("timed by", timing.to_owned()),
    ];
    rows.map(|(label, text)| (label.to_owned(), text)).to_vec()
}

fn identity(planned: &PlannedDevice) -> Vec<(String, String)> {
    let optional = |text: &Option<String>| text.as_deref().map(words::clean).unwrap_or_default();
    let mut rows = vec![
        ("engine".to_owned(), words::clean(&planned.engine)),
        ("vendor".to_owned(), words::clean(&planned.vendor)),
        ("driver".to_owned(), words::clean(&planned.driver)),
        ("node".to_owned(), words::clean(&planned.node)),
        ("PCI".to_owned(), optional(&planned.pci)),
        ("UUID".to_owned(), optional(&planned.uuid)),
        ("reference".to_owned(), optional(&planned.sku)),
    ];
    let facts = planned.facts.iter();
    rows.extend(facts.map(|(key, value)| (words::spoken(key), words::clean(value))));
    rows
}

/// Latest value of each of the device's series, or of the node's where it has none of its own.
fn sensors(scene: &Scene<'_>, index: u32, columns: usize, lines: &mut Vec<Line<'static>>) {
    let tables = scene.reading.standing.tables();
    let own = scene.reading.standing.tables_of(index).next().is_some();
    let wanted = if own { Some(index) } else { None };
    for run in tables.iter().filter(|t| t.table.device == wanted) {
        lines.push(Line::default());
        let whose = if own { "" } else { " of the node" };
        lines.push(heading(&format!(
            "{}{whose}   {}",
            words::spoken(&run.table.name),
            words::clean(&run.table.source)
        )));
        for (series, value) in run.table.series.iter().zip(&run.latest) {
            let label = words::clean(&series.label);
            let name = series.metric.id().replace('_', " ");
            let name = if label.is_empty() {
                name
            } else {
                format!("{name}, {}", words::spoken(&label))
            };
            let text = match series.kind {
                _ if !value.is_finite() => "no value".to_owned(),
                SeriesKind::Mask => format!("{:#b}", *value as u64),
                SeriesKind::Gauge | SeriesKind::Counter => human(*value, series.unit),
            };
            lines.push(labelled(&name, &text, columns));
        }
    }
}

/// What the keys and shapes mean, and where the record lies.
pub fn help(scene: &Scene<'_>, columns: usize) -> Vec<Line<'static>> {
    let entries = [
        (
            "q, Ctrl-C",
            "ramp down, seal the record and judge it; q asks once more",
        ),
        (
            "Q, Ctrl-C again",
            "end at once; the record is sealed as it is",
        ),
        (
            "↑ ↓ PgUp PgDn Home End",
            "choose a device, or scroll a page",
        ),
        ("Enter", "the chosen device: sensors, identity, faults"),
        ("g", "all gates with their reasons"),
        ("e", "all events, the newest first"),
        ("s", "sort devices: worst, hottest, plan"),
        ("Esc", "back to the overview"),
        ("Ctrl-L", "draw the screen anew"),
        ("", ""),
        ("✕", "shown not to hold, lost, or a wrong result"),
        ("◇", "cannot be shown either way"),
        ("…", "not enough seen yet"),
        ("✓", "shown to hold, so far"),
        ("% peers", "rate against the median of the devices alike"),
        ("", ""),
    ];
    let mut lines: Vec<Line<'static>> = entries
        .iter()
        .map(|(key, what)| labelled(key, what, columns))
        .collect();
    lines.push(labelled("record", &words::clean(scene.folder), columns));
    lines.push(labelled(
        "plan",
        &words::clean(&scene.reading.standing.opened().plan_digest),
        columns,
    ));
    lines
}
