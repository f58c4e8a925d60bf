//! What the plain view says of runs that were made up.

use super::outlet::tests::Sink;
use super::reading::{Reading, State};
use super::sample::{SECOND_NS, Sample, TRAIN, UNITS, begun};
use super::*;
use hallmark_results::frame::FaultKind;

fn reading(sample: &Sample) -> Reading<'_> {
    Reading {
        standing: &sample.standing,
        current: sample.current(),
        now_ns: sample.now_ns,
    }
}

fn close(a: f64, b: f64) -> bool {
    (a / b - 1.0).abs() < 0.01
}

#[test]
fn rates_are_of_the_last_seconds_and_compare_with_peers() {
    let mut sample = Sample::training(3);
    let devices = reading(&sample).devices();
    assert!(close(devices[0].rate_flop_per_s.unwrap(), 100e12));
    assert!(close(devices[1].against_peers.unwrap(), 0.9));
    assert!(close(devices[2].against_peers.unwrap(), 1.0));
    // A device that falls silent shows it; the others do not change.
    sample.run(10, TRAIN as u32, |d| d != 2);
    let devices = reading(&sample).devices();
    assert_eq!(devices[2].rate_flop_per_s, Some(0.0));
    assert!(close(devices[0].rate_flop_per_s.unwrap(), 100e12));
}

#[test]
fn a_figure_that_nothing_measures_is_absent_never_zero() {
    let sample = Sample::training(2);
    let device = &reading(&sample).devices()[0];
    assert_eq!(
        (
            device.power_w,
            device.temp_core_c,
            device.margin_k,
            device.clock_hz
        ),
        (None, None, None, None)
    );
    assert_eq!(device.reasons, None);
    let line = progress_line(&reading(&sample));
    assert!(!line.contains('W') && !line.contains("°C"), "{line}");
    // Alone, a device has nobody to compare with.
    let alone = Sample::training(1);
    assert_eq!(reading(&alone).devices()[0].against_peers, None);
    // Before the load there is no rate.
    let idle = Sample::new(1);
    assert_eq!(reading(&idle).devices()[0].rate_flop_per_s, None);
    assert_eq!(reading(&idle).audits().share(), None);
}

#[test]
fn every_reason_that_holds_is_told() {
    let mut sample = Sample::training(1);
    sample.sensors(0, [612.0, 86.4, 0.6, 1.462e9, f64::from(0x44)]);
    let device = &reading(&sample).devices()[0];
    assert_eq!(
        device.reasons.as_deref(),
        Some(&["power cap", "heat hw"][..])
    );
    for (metric, unit) in UNITS {
        assert_eq!(
            metric.spec().unit,
            unit,
            "the views print {metric} as {unit}"
        );
    }
    let line = progress_line(&reading(&sample));
    assert!(
        line.contains("612.0\u{a0}W 86.4\u{a0}°C [power cap] [heat hw]"),
        "{line}"
    );
}

#[test]
fn progress_counts_what_is_left_and_a_stop_leaves_the_ramp_down() {
    let mut sample = Sample::training(2);
    let progress = reading(&sample).progress();
    // 2 s + 8 s of a warm-up planned for 20 s + 30 s; left are 70 s and the ramp down.
    assert_eq!(
        (progress.done_ns, progress.left_ns),
        (40 * SECOND_NS, 72 * SECOND_NS)
    );
    assert!(close(progress.share, 40.0 / 112.0));
    sample.event(
        None,
        What::Stop {
            why: "the operator asked for it".to_owned(),
        },
    );
    assert_eq!(reading(&sample).progress().left_ns, 2 * SECOND_NS);
    assert_eq!(
        reading(&sample).stopping(),
        Some("the operator asked for it")
    );
    sample.event(None, What::Resumed { lost_ns: 5 });
    assert_eq!(reading(&sample).stopping(), None);
}

#[test]
fn a_lost_device_is_named_and_the_others_go_on() {
    let mut sample = Sample::training(2);
    sample.event(
        Some(1),
        What::Fault {
            kind: FaultKind::Silent,
            detail: "no step for 9 s".to_owned(),
        },
    );
    let reading = reading(&sample);
    let devices = reading.devices();
    assert_eq!(devices[1].state, State::Lost(FaultKind::Silent));
    assert_eq!(devices[0].state, State::Working);
    let line = progress_line(&reading);
    assert!(
        line.contains("gpu1 LOST (silent)") && line.contains("gpu0 100.0\u{a0}TFLOP/s"),
        "{line}"
    );
    // A sensor's fault loses no device.
    let mut sample = Sample::training(1);
    sample.event(
        Some(0),
        What::Fault {
            kind: FaultKind::Sensor,
            detail: String::new(),
        },
    );
    assert_eq!(self::reading(&sample).devices()[0].state, State::Working);
}

#[test]
fn many_devices_take_one_line_that_names_the_slowest() {
    let sample = Sample::training(40);
    let line = progress_line(&reading(&sample));
    assert!(
        line.contains(
            "40 of 40 devices at work · median 100.0\u{a0}TFLOP/s, slowest gpu1 90.0\u{a0}TFLOP/s"
        ),
        "{line}"
    );
    assert!(line.chars().count() < 200, "{line}");
}

#[test]
fn a_run_is_told_from_its_opening_to_the_chain_head() {
    let sink = Sink::default();
    let mut view = Plain::writing_to(Outlet::to(sink.clone()), false);
    let run = begun(2, SECOND_NS);
    view.opened(run.standing(), Path::new("runs/x"));
    view.note("devices \u{1b}[31mready");
    for event in run.standing().events() {
        view.frame(&Frame::Event(event.clone()), &run, SECOND_NS);
    }
    let fault = What::Fault {
        kind: FaultKind::WorkerDied,
        detail: "signal 9\nat\u{7} once".to_owned(),
    };
    view.frame(
        &Frame::Event(Event {
            at_ns: 3 * SECOND_NS,
            device: Some(1),
            what: fault,
        }),
        &run,
        3 * SECOND_NS,
    );
    for tick in 0..250_u64 {
        view.tick(&run, tick * SECOND_NS / 10);
    }
    let verdict = hallmark_results::verdict::judge(run.standing());
    view.verdict(&verdict, "the summary\n", Path::new("runs/x"), "abc");
    let text = sink.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("hallmark 0.1.0   run 20260302-060000"),
        "{text}"
    );
    assert!(
        text.contains("SIMULATED: no result of the hardware named"),
        "{text}"
    );
    let digest = &run.standing().opened().plan_digest;
    assert!(
        digest.len() == 64 && text.contains(digest.as_str()),
        "{text}"
    );
    assert!(
        text.contains("devices     gpu0 gpu1: Accelerator, twin f32"),
        "{text}"
    );
    assert!(
        text.contains("at most 2\u{a0}min 4\u{a0}s")
            || text.contains("at most 2\u{a0}min\u{a0}4\u{a0}s"),
        "{text}"
    );
    assert!(lines.contains(&"devices ready"), "{text}");
    assert!(
        lines.contains(&"00:00:01  ramp up 50 %, 2.00\u{a0}s, 1 of 2 devices"),
        "{text}"
    );
    assert!(
        lines.contains(&"00:00:03  gpu1 worker died: signal 9 at once"),
        "{text}"
    );
    let progress = lines
        .iter()
        .filter(|l| l.contains("\u{a0}%") && l.contains(" left"))
        .count();
    assert_eq!(progress, 2, "one line every ten seconds: {text}");
    assert!(text.ends_with("chain head  abc\n\nthe summary\n"), "{text}");
    assert!(
        text.chars().all(|c| c == '\n' || !c.is_control()),
        "{text:?}"
    );
}

#[test]
fn colour_repeats_what_words_say() {
    let sink = Sink::default();
    let mut view = Plain::writing_to(Outlet::to(sink.clone()), true);
    let run = begun(2, 0);
    let fault = What::Fault {
        kind: FaultKind::Device,
        detail: "x".to_owned(),
    };
    view.frame(
        &Frame::Event(Event {
            at_ns: 0,
            device: Some(0),
            what: fault,
        }),
        &run,
        0,
    );
    view.frame(
        &Frame::Event(Event {
            at_ns: 0,
            device: None,
            what: What::Steady,
        }),
        &run,
        0,
    );
    view.out.finish();
    let text = sink.text();
    assert!(
        text.contains("\u{1b}[38;5;208mgpu0 device error: x\u{1b}[0m\n"),
        "{text:?}"
    );
    assert!(
        text.contains("00:00:00  warm-up ended: rate and temperature are steady\n"),
        "{text:?}"
    );
}
