//! The course of a run against trouble: pauses, pulses, sensors that go blind, devices that never came, floods.
//!
//! The state machines are the real ones; time passes only where a test says so.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use hallmark::plan::{self, Settings};
use hallmark::protocol::{FromWorker, ToWorker};
use hallmark::run::{Input, Output, Run};
use hallmark::shell::simulated::{Happening, Physics, World};
use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::Dtype;
use hallmark_results::frame::*;
use hallmark_results::standing::Standing;
use hallmark_results::store::shape::Shape;
use hallmark_results::verdict::{Outcome, judge};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
const TICK: u64 = SECOND / 10;

const PROFILE: &str = r#"
schema_version = 1
name = "course"
summary = "Steps for a few simulated minutes."
[load]
dtype = ["f32"]
transients = true
model = { hidden = 256, ffn = 1024, tokens = 256, layers = 2 }
matmul = { m = 512, n = 512, k = 512 }
bucket = "1 MiB"
audit_share = 0.1
[load.ramp]
levels = [1.0]
hold = "10 s"
[load.warmup]
least = "20 s"
limit = "1 min"
window = "20 s"
rate_tolerance = 0.02
temperature_tolerance = "2 K"
[[load.phase]]
name = "work"
PATTERN
duration = "3 min"
STOP
[telemetry]
period = "100 ms"
block = "10 s"
[[criterion]]
name = "idle-gap"
metric = "idle_gap"
scope = "gpu"
statistic = "total"
at_most = "0.1 %"
"#;

fn device(index: usize) -> DeviceInfo {
    DeviceInfo {
        id: format!("sim{index}"),
        engine: "twin".to_owned(),
        name: "simulated device".to_owned(),
        vendor: String::new(),
        pci: None,
        uuid: None,
        driver: String::new(),
        memory: Bytes::gibibytes(8),
        dtypes: vec![Dtype::F32],
        software: false,
        cores: Vec::new(),
        facts: Vec::new(),
    }
}

fn opened(pattern: &str, stop: &str, devices: usize) -> Frame {
    let text = PROFILE.replace("PATTERN", pattern).replace("STOP", stop);
    let loaded = profile::parse(&text, "course.toml").unwrap();
    let infos: Vec<_> = (0..devices).map(device).collect();
    let mut plan = plan::make(&loaded, &infos, &Settings::default()).unwrap();
    for device in &mut plan.devices {
        device.provenance = Provenance::Simulated;
    }
    let clock = ClockState {
        synchronised: Some(true),
        max_error_s: Some(0.0),
    };
    Frame::Opened(Box::new(Opened {
        format_version: FORMAT_VERSION,
        run_id: "course".to_owned(),
        hallmark_version: "test".to_owned(),
        utc_start: "2026-01-01T00:00:00Z".to_owned(),
        clock,
        host: Host::default(),
        remark: None,
        plan_digest: plan.digest(),
        plan,
    }))
}

const TRAINING: &str = "pattern = \"training\"";
const STEADY: &str = "pattern = \"steady\"";

/// A device whose steps take a fixed time, until it hangs.
#[derive(Clone, Copy)]
struct Steady {
    step_ns: u64,
    hangs_at_ns: u64,
}

impl Physics for Steady {
    fn compute_ns(&mut self, _seq: u64, now_ns: u64) -> Option<u64> {
        (now_ns < self.hangs_at_ns).then_some(self.step_ns)
    }

    fn reduce_ns(&self) -> u64 {
        5_000_000
    }

    fn expected_ns(&self) -> u64 {
        self.step_ns
    }
}

fn simulate(opened: &Frame, devices: &[Steady], missing: &[u32]) -> Standing {
    let standing = Standing::open(opened).unwrap();
    let plan = standing.opened().plan.clone();
    let physics = devices.iter().map(|d| Box::new(*d) as Box<dyn Physics>);
    let world = World::new(&plan, physics.collect(), Vec::new()).without(missing);
    let never = Happening {
        at_ns: 3_600 * SECOND,
        input: Input::Cut,
    };
    world.perform(standing, vec![never]).0
}

fn faults(standing: &Standing) -> Vec<(u64, Option<u32>, FaultKind)> {
    let of = |e: &Event| match e.what {
        What::Fault { kind, .. } => Some((e.at_ns, e.device, kind)),
        _ => None,
    };
    standing.events().iter().filter_map(of).collect()
}

/// A run that a test leads by the hand: what it said, and what it told to journal.
struct Led {
    run: Run,
    now_ns: u64,
    outputs: Vec<Output>,
    seq: u64,
}

impl Led {
    fn begin(opened: &Frame) -> Self {
        let standing = Standing::open(opened).unwrap();
        Self::resume(standing, 0, Vec::new())
    }

    fn resume(standing: Standing, now_ns: u64, tables: Vec<Table>) -> Self {
        let mut led = Self {
            run: Run::new(standing, &[], Vec::new(), now_ns),
            now_ns,
            outputs: Vec::new(),
            seq: 0,
        };
        for table in tables {
            led.say(Input::Table(table));
        }
        let begun = led.run.begin(0, now_ns);
        led.outputs.extend(begun);
        let devices = led.run.standing().devices().len() as u32;
        for device in 0..devices {
            led.say(Input::Worker(
                device,
                FromWorker::Regrouped { generation: 1 },
            ));
        }
        led
    }

    fn say(&mut self, input: Input) {
        let outputs = self.run.handle(input, self.now_ns);
        self.outputs.extend(outputs);
    }

    fn poll(&mut self, after_ns: u64) {
        self.now_ns += after_ns;
        let outputs = self.run.poll(self.now_ns);
        self.outputs.extend(outputs);
    }

    /// Every device completes a step of a tenth of a second.
    fn work(&mut self) {
        self.poll(TICK);
        self.seq += 1;
        for device in 0..self.run.standing().devices().len() as u32 {
            let row = StepRow {
                seq: self.seq,
                start_ns: self.now_ns - TICK,
                due_ns: self.now_ns - TICK,
                end_ns: self.now_ns,
                ..StepRow::default()
            };
            self.say(Input::Worker(
                device,
                FromWorker::Steps(Steps {
                    device,
                    device_clock: true,
                    rows: vec![row],
                    ops: Vec::new(),
                    trials: Vec::new(),
                }),
            ));
        }
    }

    fn rows(&mut self, table: u32, values: &[f64]) {
        let samples = Samples {
            table,
            at_ns: vec![self.now_ns],
            columns: values.iter().map(|v| vec![*v]).collect(),
        };
        self.say(Input::Samples(samples));
    }

    fn killed(&self) -> Vec<u32> {
        let of = |o: &Output| match o {
            Output::Kill(device) => Some(*device),
            _ => None,
        };
        self.outputs.iter().filter_map(of).collect()
    }

    fn stopped(&self) -> Option<String> {
        self.run
            .standing()
            .events()
            .iter()
            .find_map(|e| match &e.what {
                What::Stop { why } => Some(why.clone()),
                _ => None,
            })
    }

    fn journal(&self) -> Vec<Frame> {
        let of = |o: &Output| match o {
            Output::Journal(frame) => Some(frame.clone()),
            _ => None,
        };
        self.outputs.iter().filter_map(of).collect()
    }
}

fn series(metric: Metric, label: &str) -> Series {
    Series {
        metric,
        label: label.to_owned(),
        unit: metric.spec().unit,
        kind: SeriesKind::Gauge,
        averaging_ns: None,
        accuracy: None,
    }
}

fn table(id: u32, name: &str, series: Vec<Series>) -> Table {
    Table {
        id,
        name: name.to_owned(),
        source: "simulated".to_owned(),
        provenance: Provenance::Simulated,
        device: Some(0),
        place: "sim0".to_owned(),
        period_ns: TICK,
        series,
    }
}

#[test]
fn a_run_that_stood_still_itself_calls_nobody_silent_and_says_so() {
    for pattern in [TRAINING, STEADY] {
        let mut led = Led::begin(&opened(pattern, "", 2));
        (0..30).for_each(|_| led.work());
        led.poll(11 * SECOND);
        (0..20).for_each(|_| led.poll(TICK));
        assert_eq!(led.killed(), [0; 0], "{pattern}");
        let said = led.run.standing().events().iter().any(
            |e| matches!(&e.what, What::Decision { what } if what.contains("stood still for 11.0 s")),
        );
        assert!(said);
        // It has not become deaf: who says nothing while it listens is silent.
        (0..100).for_each(|_| led.poll(TICK));
        assert_eq!(led.killed(), [0, 1], "{pattern}");
    }
}

#[test]
fn a_pause_of_the_machine_that_breaks_the_group_kills_no_rank() {
    let mut led = Led::begin(&opened(TRAINING, "", 2));
    (0..30).for_each(|_| led.work());
    led.now_ns += 11 * SECOND;
    for (device, missing) in [(0, vec![1]), (1, vec![])] {
        let broken = FromWorker::Broken {
            segment: 0,
            next_seq: 31,
            why: "rank 0 waited 3500 ms for ranks [1]".to_owned(),
            missing,
        };
        led.say(Input::Worker(device, broken));
    }
    assert_eq!(led.killed(), [0; 0]);
    let regroup = Output::Tell(
        1,
        ToWorker::Regroup {
            generation: 2,
            members: vec![0, 1],
            patience: Duration::from_millis(3_500),
        },
    );
    assert!(led.outputs.contains(&regroup));
}

#[test]
fn the_rest_of_a_pulse_is_no_silence() {
    let pulse = "pattern = \"pulse\"\npulse = { frequency = \"0.1 Hz\", duty = 0.4, depth = 1.0 }";
    let steady = Steady {
        step_ns: SECOND / 5,
        hangs_at_ns: u64::MAX,
    };
    let standing = simulate(&opened(pulse, "", 2), &[steady; 2], &[]);
    assert_eq!(faults(&standing), []);
    assert_eq!(standing.closed().unwrap().ending, Ending::Complete);
    // In the loaded part of a cycle a device that hangs is found as soon as anywhere.
    let start = standing.phase_window(0).unwrap().start_ns;
    let hang = start + 41 * SECOND;
    let hangs = Steady {
        hangs_at_ns: hang,
        ..steady
    };
    let standing = simulate(&opened(pulse, "", 2), &[steady, hangs], &[]);
    let found = faults(&standing);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].1, found[0].2), (Some(1), FaultKind::Silent));
    let after = found[0].0 - hang;
    assert!(after < 5 * SECOND + SECOND / 5, "{after}");
}

#[test]
fn a_first_step_of_eighteen_seconds_is_no_silence() {
    let slow = Steady {
        step_ns: 18 * SECOND,
        hangs_at_ns: u64::MAX,
    };
    let standing = simulate(&opened(STEADY, "", 1), &[slow], &[]);
    assert_eq!(faults(&standing), []);
    assert_eq!(standing.closed().unwrap().ending, Ending::Complete);
    let dead = Steady {
        hangs_at_ns: 0,
        ..slow
    };
    let standing = simulate(&opened(STEADY, "", 1), &[dead], &[]);
    let found = faults(&standing);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].0 < 75 * SECOND, "{found:?}");
}

#[test]
fn those_that_came_form_the_group_without_the_one_that_never_did() {
    let steady = Steady {
        step_ns: TICK,
        hangs_at_ns: u64::MAX,
    };
    for missing in [vec![1], vec![0, 2]] {
        let standing = simulate(&opened(TRAINING, "", 3), &[steady; 3], &missing);
        let ending = &standing.closed().unwrap().ending;
        assert_eq!(*ending, Ending::Complete, "without {missing:?}");
        let present: Vec<u32> = (0..3).filter(|d| !missing.contains(d)).collect();
        assert_eq!(standing.members_at(standing.last_ns()), present);
        let window = standing.phase_window(0).unwrap();
        assert!(
            window.group.step_time.count() > 1_500,
            "steps of the group are whole"
        );
        let verdict = judge(&standing);
        // It is simulated, so it rejects nothing; it says that it would.
        let said = &verdict.sentence;
        assert_eq!(verdict.outcome, Outcome::Inconclusive, "{said}");
        assert!(said.starts_with("SIMULATED: would reject: sim"), "{said}");
    }
}

const LOST: &str = "[load.stop_when]\nsensor_lost_for = \"10 s\"\ntemp_core_above = \"95 °C\"";

#[test]
fn a_sensor_that_gives_rows_without_values_is_lost() {
    let opened = opened(STEADY, LOST, 1);
    let tables = || {
        let both = vec![series(Metric::TempCore, ""), series(Metric::PowerDraw, "")];
        vec![table(0, "gpu", both)]
    };
    let standing = || Standing::open(&opened).unwrap();
    let mut led = Led::resume(standing(), 0, tables());
    for _ in 0..50 {
        led.work();
        led.rows(0, &[60.0, 300.0]);
    }
    assert_eq!(led.stopped(), None);
    for _ in 0..150 {
        led.work();
        led.rows(0, &[f64::NAN, 300.0]);
    }
    let why = led.stopped().unwrap();
    assert!(why.contains("no temp_core for 10 s"), "{why}");
    // A sensor whose read never returns sends nothing at all.
    let mut led = Led::resume(standing(), 0, tables());
    led.work();
    led.rows(0, &[60.0, 300.0]);
    (0..150).for_each(|_| led.work());
    assert!(led.stopped().is_some());
}

#[test]
fn the_hottest_of_a_metrics_series_is_the_one_that_is_judged() {
    let both = vec![
        series(Metric::TempCore, "edge"),
        series(Metric::TempCore, "junction"),
    ];
    let standing = Standing::open(&opened(STEADY, LOST, 1)).unwrap();
    let mut led = Led::resume(standing, 0, vec![table(0, "gpu", both)]);
    led.work();
    led.rows(0, &[45.0, 94.0]);
    led.work();
    assert_eq!(led.stopped(), None);
    led.rows(0, &[45.0, 110.0]);
    led.work();
    let why = led.stopped().unwrap();
    assert!(why.contains("110"), "{why}");
}

#[test]
fn a_run_that_goes_on_after_an_hour_is_not_stopped_for_the_hours_silence() {
    let declared = || vec![table(0, "gpu", vec![series(Metric::TempCore, "")])];
    let opened = opened(STEADY, LOST, 1);
    let mut standing = Standing::open(&opened).unwrap();
    standing.push(&Frame::Table(declared().remove(0))).unwrap();
    // The last value before the pause was too hot for today, too: it says nothing of now.
    let before = Samples {
        table: 0,
        at_ns: vec![SECOND],
        columns: vec![vec![99.0]],
    };
    standing.push(&Frame::Samples(before)).unwrap();
    let mut led = Led::resume(standing, 3_600 * SECOND, declared());
    for _ in 0..20 {
        led.work();
        led.rows(0, &[60.0]);
    }
    assert_eq!(led.stopped(), None);
    (0..120).for_each(|_| led.work());
    let why = led.stopped().unwrap();
    assert!(why.contains("for 10 s"), "{why}");
}

#[test]
fn a_table_that_no_journal_takes_keeps_no_other_frame_out() {
    let opened = opened(STEADY, "", 1);
    let twins = vec![
        series(Metric::FanSpeed, "other fan"),
        series(Metric::FanSpeed, "other fan"),
    ];
    let tables = vec![
        table(0, "fans", twins),
        table(1, "gpu", vec![series(Metric::TempCore, "")]),
    ];
    let mut led = Led::resume(Standing::open(&opened).unwrap(), 0, tables);
    for _ in 0..10 {
        led.work();
        led.rows(0, &[900.0, 900.0]);
        led.rows(1, &[60.0]);
    }
    let mut shape = Shape::default();
    shape.check(&opened).unwrap();
    for frame in led.journal() {
        shape.check(&frame).unwrap();
    }
    let standing = led.run.standing();
    assert_eq!(standing.tables().len(), 1);
    assert_eq!(standing.tables()[0].table.name, "gpu");
    assert_eq!(standing.tables()[0].latest.len(), 1);
    assert_eq!(standing.tables()[0].valued_ns, [Some(SECOND)]);
    let told = faults(standing);
    assert_eq!(told.len(), 1, "told once: {told:?}");
    assert_eq!(told[0].2, FaultKind::Sensor);
}

#[test]
fn a_flood_of_wrong_results_is_counted_and_fills_neither_memory_nor_journal() {
    let opened = opened(STEADY, "", 2);
    let mut led = Led::begin(&opened);
    let mut given = 0;
    for _ in 0..600 {
        led.work();
        for _ in 0..100 {
            given += 1;
            let detail = format!("matmul {given} is wrong");
            let at_ns = led.now_ns;
            led.say(Input::Worker(1, FromWorker::Mismatch { at_ns, detail }));
            led.say(Input::Event(
                What::Xid {
                    code: 63,
                    detail: String::new(),
                },
                Some(0),
            ));
        }
    }
    led.say(Input::Cut);
    let now_ns = led.now_ns;
    let last = led.run.last_words(now_ns);
    led.outputs.extend(last);
    let standing = led.run.standing();
    assert_eq!(standing.devices()[1].mismatches, given);
    assert_eq!(standing.devices()[0].mismatches, 0);
    let events = standing.events().len();
    assert!(events < 100, "{events} events are kept");
    let events = led
        .journal()
        .iter()
        .filter(|f| matches!(f, Frame::Event(_)))
        .count();
    assert!(events < 150, "{events} events are journalled");
    let mut folded = Standing::open(&opened).unwrap();
    for frame in led.journal() {
        folded.push(&frame).unwrap();
    }
    assert_eq!(folded.devices()[1].mismatches, given);
    assert_eq!(folded.events(), standing.events());
    assert_eq!(judge(&folded), judge(standing));
    let latest = standing.events().iter().find_map(|e| match &e.what {
        What::More { latest, .. } if latest.kin() == Some(Kin::Mismatch) => Some(latest.clone()),
        _ => None,
    });
    let detail = format!("matmul {given} is wrong; no sensor gives its core's temperature");
    assert_eq!(*latest.unwrap(), What::Mismatch { detail });
}

#[test]
fn a_wrong_result_is_told_with_the_cores_temperature_and_how_old_that_is() {
    let standing = Standing::open(&opened(STEADY, "", 2)).unwrap();
    let core = series(Metric::TempCore, "");
    let mut led = Led::resume(standing, 0, vec![table(0, "gpu", vec![core])]);
    let told = |led: &mut Led, device: u32| {
        let (at_ns, detail) = (led.now_ns, "tile 3 is wrong".to_owned());
        led.say(Input::Worker(
            device,
            FromWorker::Mismatch { at_ns, detail },
        ));
        let events = led.run.standing().events();
        let mut latest = events.iter().rev().filter_map(|e| match &e.what {
            What::Mismatch { detail } => Some(detail.clone()),
            _ => None,
        });
        latest.next().unwrap().replace('\u{a0}', " ")
    };
    led.work();
    assert!(told(&mut led, 0).ends_with("wrong; its core's temperature has not been read yet"));
    led.rows(0, &[71.5]);
    (0..3).for_each(|_| led.work());
    let (own, other) = (told(&mut led, 0), told(&mut led, 1));
    assert!(
        own.contains("core at 71.5") && own.contains("300.0 ms before"),
        "{own}"
    );
    assert!(
        other.ends_with("no sensor gives its core's temperature"),
        "{other}"
    );
    led.rows(0, &[f64::NAN]);
    led.work();
    let blind = told(&mut led, 0);
    assert!(
        blind.contains("gave no value, the latest 400.0 ms before"),
        "{blind}"
    );
}

#[test]
fn a_wrong_result_that_is_told_after_its_device_was_given_up_counts() {
    let mut led = Led::begin(&opened(STEADY, "", 2));
    led.work();
    led.say(Input::Gone(1, "it ended".to_owned()));
    let (at_ns, detail) = (led.now_ns, "tile 3 is wrong".to_owned());
    led.say(Input::Worker(1, FromWorker::Mismatch { at_ns, detail }));
    assert_eq!(led.run.standing().devices()[1].mismatches, 1);
}
