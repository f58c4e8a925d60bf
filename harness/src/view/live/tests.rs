//! Looks at the screen as a terminal would show it.

use super::super::plain::sample::{SECOND_NS, Sample, TRAIN};
use super::*;
use hallmark_results::frame::{FaultKind, What};
use hallmark_results::verdict::Outcome;
use ratatui::backend::TestBackend;

/// What a terminal of that size shows, line by line.
fn shown(sample: &Sample, screen: &mut Screen, columns: u16, rows: u16) -> Vec<String> {
    drawn(sample, &judge(&sample.standing), screen, (columns, rows))
}

fn drawn(
    sample: &Sample,
    verdict: &Verdict,
    screen: &mut Screen,
    (columns, rows): (u16, u16),
) -> Vec<String> {
    let reading = Reading {
        standing: &sample.standing,
        current: sample.current(),
        now_ns: sample.now_ns,
    };
    let scene = Scene::new(reading, Some(verdict), "runs/x");
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal
        .draw(|frame| screen.draw(&scene, frame.area(), frame.buffer_mut()))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| {
        (0..columns)
            .map(|x| buffer[(x, y)].symbol())
            .collect::<String>()
            .trim_end()
            .to_owned()
    };
    (0..rows).map(row).collect()
}

fn has(lines: &[String], wanted: &str) -> bool {
    lines.iter().any(|l| l.contains(wanted))
}

fn troubled() -> Sample {
    let mut sample = Sample::training(12);
    for device in 0..12 {
        sample.sensors(
            device,
            [
                600.0 + f64::from(device),
                60.0,
                26.0,
                1.66e9,
                if device == 1 { 68.0 } else { 0.0 },
            ],
        );
    }
    let detail = "no completed step for 9.0 s".to_owned();
    sample.event(
        Some(7),
        What::Fault {
            kind: FaultKind::Silent,
            detail,
        },
    );
    sample.run(5, TRAIN as u32, |d| d != 7);
    sample
}

#[test]
fn eighty_by_twenty_four_tells_the_story() {
    let lines = shown(&troubled(), &mut Screen::default(), 80, 24);
    let all = lines.join("\n");
    assert!(
        lines[0].starts_with(" hallmark  run 20260302-060000") && lines[0].contains("SIMULATED"),
        "{all}"
    );
    assert!(lines[2].contains("load goes on"), "{all}");
    assert!(
        lines[3].contains("━")
            && lines[3].contains("40\u{a0}%")
            && lines[3].contains("1\u{a0}min\u{a0}7\u{a0}s left"),
        "{all}"
    );
    assert!(
        lines[4].contains("1.09\u{a0}PFLOP/s") && lines[4].contains("devices 11/12"),
        "{all}"
    );
    // Worst first: the lost one, then the slowest.
    let row = |name: &str| lines.iter().position(|l| l.contains(name)).unwrap();
    let (lost, slow) = (row("✕ gpu7 "), row(" gpu1 "));
    assert!(lost < slow, "{all}");
    assert!(
        lines[lost].contains("silent") && lines[slow].contains("power cap, heat hw"),
        "{all}"
    );
    assert!(
        has(&lines, " more, ") && has(&lines, "worst first"),
        "{all}"
    );
    assert!(
        has(&lines, "gpu7 silent: no completed step for 9.0 s"),
        "{all}"
    );
    assert!(
        lines[23].starts_with(" q stop and seal") && lines[23].contains("? help"),
        "{all}"
    );
    assert!(lines.iter().all(|l| l.chars().count() <= 80), "{all}");
}

#[test]
fn a_wide_screen_shows_all_devices_columns_and_gates() {
    let lines = shown(&troubled(), &mut Screen::default(), 120, 40);
    let all = lines.join("\n");
    for device in 0..12 {
        assert!(has(&lines, &format!(" gpu{device} ")), "{all}");
    }
    for title in [
        "TFLOP/s",
        "last 1\u{a0}min, ",
        "% peers",
        "power W",
        "core °C",
        "margin K",
        "MHz",
        "reasons",
    ] {
        assert!(has(&lines, title), "{title}: {all}");
    }
    for gate in [
        "self test",
        "inventory",
        "integrity",
        "completion",
        "idle gap",
    ] {
        assert!(has(&lines, gate), "{gate}: {all}");
    }
    assert!(
        has(&lines, "90.0") && has(&lines, "600") && has(&lines, "1660"),
        "{all}"
    );
}

#[test]
fn what_is_not_measured_is_said_beside_what_is() {
    let lines = shown(&Sample::training(2), &mut Screen::default(), 100, 30);
    assert!(
        has(
            &lines,
            "not measured: power, core temperature, clock, clock reasons"
        ),
        "{}",
        lines.join("\n")
    );
    assert!(!has(&lines, "power W"), "{}", lines.join("\n"));
}

#[test]
fn no_size_and_no_state_of_a_run_panics() {
    let mut dead = Sample::training(2);
    for device in 0..2 {
        dead.event(
            Some(device),
            What::Fault {
                kind: FaultKind::Device,
                detail: String::new(),
            },
        );
    }
    dead.event(
        None,
        What::Stop {
            why: "no device is left".to_owned(),
        },
    );
    let hostile = Sample::named(3, "\u{1b}]0;evil\u{7}\u{202e}名前");
    let samples = [
        Sample::new(0),
        Sample::new(1),
        Sample::training(1),
        dead,
        hostile,
        troubled(),
        Sample::training(300),
    ];
    let sizes = [
        (1, 1),
        (2, 3),
        (7, 2),
        (20, 5),
        (30, 11),
        (79, 23),
        (80, 24),
        (100, 30),
        (250, 70),
        (60, 200),
    ];
    let pages = [
        Page::Overview,
        Page::Gates,
        Page::Events,
        Page::Device,
        Page::Help,
    ];
    for sample in &samples {
        let verdict = judge(&sample.standing);
        for size in sizes {
            for page in pages {
                let mut screen = Screen {
                    page,
                    scroll: 5,
                    chosen: Some(2),
                    ..Screen::default()
                };
                let lines = drawn(sample, &verdict, &mut screen, size);
                assert!(
                    lines
                        .iter()
                        .flat_map(|l| l.chars())
                        .all(|c| !c.is_control() && c != '\u{202e}')
                );
            }
        }
    }
}

#[test]
fn with_all_devices_lost_nothing_claims_to_work() {
    let mut dead = Sample::training(2);
    for device in 0..2 {
        dead.event(
            Some(device),
            What::Fault {
                kind: FaultKind::Device,
                detail: "gone".to_owned(),
            },
        );
    }
    dead.now_ns += 10 * SECOND_NS;
    let lines = shown(&dead, &mut Screen::default(), 80, 24);
    let all = lines.join("\n");
    assert!(
        has(&lines, "devices 0/2") && !has(&lines, "load goes on"),
        "{all}"
    );
    assert!(has(&lines, "✕ gpu0") && has(&lines, "✕ gpu1"), "{all}");
}

#[test]
fn the_choice_stays_with_its_device_and_is_kept_in_sight() {
    let sample = Sample::training(40);
    let reading = Reading {
        standing: &sample.standing,
        current: sample.current(),
        now_ns: sample.now_ns,
    };
    let scene = Scene::new(reading, None, "");
    let mut screen = Screen::default();
    screen.step(&scene, 1);
    assert_eq!(screen.chosen, Some(1), "the slowest comes first");
    screen.step(&scene, isize::MAX);
    assert_eq!(screen.chosen, Some(39));
    screen.step(&scene, 1);
    assert_eq!(screen.chosen, Some(39));
    let lines = shown(&sample, &mut screen, 80, 24);
    assert!(
        has(&lines, "›") && has(&lines, "gpu39"),
        "{}",
        lines.join("\n")
    );
    screen.step(&scene, isize::MIN);
    assert_eq!(screen.chosen, Some(1));
    screen.open(Page::Device);
    let lines = shown(&sample, &mut screen, 80, 24);
    assert!(
        has(&lines, "gpu1   Accelerator") && has(&lines, "0000:01:00.0"),
        "{}",
        lines.join("\n")
    );
}

fn press(keys: &mut Keyboard, code: KeyCode) -> Option<Key> {
    keys.press(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn stopping_asks_once_and_control_c_does_not() {
    let mut keys = Keyboard::default();
    assert_eq!(press(&mut keys, KeyCode::Char('q')), None);
    assert_eq!(
        press(&mut keys, KeyCode::Char('g')),
        None,
        "any other key goes on"
    );
    assert_eq!(keys.screen.page, Page::Overview);
    assert_eq!(press(&mut keys, KeyCode::Char('q')), None);
    assert_eq!(press(&mut keys, KeyCode::Char('q')), Some(Key::Stop));
    assert_eq!(press(&mut keys, KeyCode::Char('Q')), None);
    assert_eq!(
        press(&mut keys, KeyCode::Char('q')),
        None,
        "the question was another one"
    );
    assert_eq!(press(&mut keys, KeyCode::Char('Q')), None);
    assert_eq!(press(&mut keys, KeyCode::Char('Q')), Some(Key::Cut));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(keys.press(interrupt), Some(Key::Stop));
    assert_eq!(keys.press(interrupt), Some(Key::Cut));
}

#[test]
fn a_question_is_shown_where_the_keys_are() {
    let mut screen = Screen {
        asked: Some(Asked::Cut),
        ..Screen::default()
    };
    let lines = shown(&Sample::training(1), &mut screen, 80, 24);
    assert!(
        lines[23].contains("cut the run at once?   press Q again"),
        "{}",
        lines[23]
    );
}

#[test]
fn every_key_that_is_listed_does_something() {
    for (code, page) in [
        (KeyCode::Char('g'), Page::Gates),
        (KeyCode::Char('e'), Page::Events),
        (KeyCode::Char('?'), Page::Help),
        (KeyCode::Enter, Page::Device),
    ] {
        let mut keys = Keyboard::default();
        press(&mut keys, code);
        assert_eq!(keys.screen.page, page);
        assert!(keys.pending());
        press(&mut keys, KeyCode::Esc);
        assert_eq!(keys.screen.page, Page::Overview);
    }
    let mut keys = Keyboard::default();
    press(&mut keys, KeyCode::Char('s'));
    assert_eq!(keys.screen.sort, devices::Sort::Hottest);
    press(&mut keys, KeyCode::Down);
    press(&mut keys, KeyCode::PageUp);
    assert_eq!(keys.moves, [1, -PAGE]);
}

/// A verdict whose only finding is that one.
fn saying(metric: hallmark_profiles::metric::Metric, outcome: Outcome) -> Verdict {
    let sample = Sample::training(1);
    let mut verdict = judge(&sample.standing);
    verdict
        .findings
        .retain(|f| f.criterion.metric == metric && f.criterion.name != "evidence");
    verdict.findings.truncate(1);
    for finding in &mut verdict.findings {
        finding.outcome = outcome;
        "the reason".clone_into(&mut finding.why);
    }
    verdict.outcome = outcome;
    "the sentence".clone_into(&mut verdict.sentence);
    verdict
}

#[test]
fn what_only_grows_is_open_until_its_phase_ends_and_what_failed_has_failed() {
    use hallmark_profiles::metric::Metric;
    let line = |sample: &Sample, verdict: &Verdict| {
        drawn(sample, verdict, &mut Screen::default(), (100, 30)).swap_remove(2)
    };
    let duty = saying(Metric::Duty, Outcome::Failed);
    let wrong = saying(Metric::AuditErrors, Outcome::Failed);
    let mut sample = Sample::training(1);
    assert!(line(&sample, &duty).contains("… open  no gate has failed"));
    assert!(line(&sample, &wrong).contains("✕ failing  the sentence"));
    sample.event(None, What::Segment { index: 3 });
    assert!(line(&sample, &duty).contains("✕ failing  the sentence"));
}
