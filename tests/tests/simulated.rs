//! Runs in virtual time: the same state machines as in a real run, exact and instant.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use hallmark::plan::{self, Settings};
use hallmark::run::Input;
use hallmark::shell::simulated::{Happening, Physics, World};
use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::Dtype;
use hallmark_results::frame::{
    ClockState, Ending, FORMAT_VERSION, FaultKind, Frame, Host, Opened, Provenance, Samples,
    Series, SeriesKind, Table, What,
};
use hallmark_results::plan::SegmentKind;
use hallmark_results::standing::Standing;
use hallmark_results::verdict::{Outcome, judge};

const SECOND: u64 = 1_000_000_000;

/// A device whose steps take a fixed time, until it hangs.
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

/// Ten minutes of training steps on a group of devices.
const TEN_MINUTES: &str = r#"
schema_version = 1
name = "ten-minutes"
summary = "Ten simulated minutes."
[load]
dtype = ["f32"]
model = { hidden = 256, ffn = 1024, tokens = 256, layers = 2 }
bucket = "1 MiB"
audit_share = 0.1
[load.ramp]
levels = [0.25, 0.5, 0.75, 1.0]
hold = "10 s"
[load.warmup]
least = "20 s"
limit = "2 min"
window = "20 s"
rate_tolerance = 0.02
temperature_tolerance = "2 K"
[[load.phase]]
name = "train"
pattern = "training"
duration = "9 min"
[telemetry]
period = "100 ms"
block = "10 s"
[[criterion]]
name = "step-time"
metric = "step_time"
scope = "group"
statistic = "p99"
at_most = "150 ms"
min_samples = 299
[[criterion]]
name = "throughput"
metric = "matmul_rate"
scope = "gpu"
statistic = "median"
relative_to = "peer_median"
at_least = "95 %"
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

fn opened(devices: usize) -> Frame {
    opened_with(TEN_MINUTES, devices)
}

fn opened_with(text: &str, devices: usize) -> Frame {
    let loaded = profile::parse(text, "ten-minutes.toml").unwrap();
    let infos: Vec<_> = (0..devices).map(device).collect();
    let mut plan = plan::make(&loaded, &infos, &Settings::default()).unwrap();
    for device in &mut plan.devices {
        device.provenance = Provenance::Simulated;
    }
    Frame::Opened(Box::new(Opened {
        format_version: FORMAT_VERSION,
        run_id: "simulated".to_owned(),
        hallmark_version: "test".to_owned(),
        utc_start: "2026-01-01T00:00:00Z".to_owned(),
        clock: ClockState {
            synchronised: Some(true),
            max_error_s: Some(0.0),
        },
        host: Host::default(),
        remark: None,
        plan_digest: plan.digest(),
        plan,
    }))
}

/// Runs with one step time for each device; device `hangs.0` stops answering at `hangs.1`.
fn run(
    steps_ms: &[u64],
    hangs: Option<(usize, u64)>,
    mut happenings: Vec<Happening>,
) -> (Standing, Vec<Frame>) {
    // A simulated device has no memory to flip a bit in; the run is told that its self-test passed.
    happenings.extend((0..steps_ms.len() as u32).map(|device| Happening {
        at_ns: 0,
        input: Input::Event(
            What::SelfTest {
                passed: true,
                detail: "simulated".to_owned(),
            },
            Some(device),
        ),
    }));
    let opened = opened(steps_ms.len());
    let standing = Standing::open(&opened).unwrap();
    let plan = standing.opened().plan.clone();
    let physics = steps_ms.iter().enumerate().map(|(index, ms)| {
        let hangs_at_ns = hangs.filter(|h| h.0 == index).map_or(u64::MAX, |h| h.1);
        Box::new(Steady {
            step_ns: ms * 1_000_000,
            hangs_at_ns,
        }) as Box<dyn Physics>
    });
    let world = World::new(&plan, physics.collect(), Vec::new());
    let (standing, mut frames) = world.perform(standing, happenings);
    frames.insert(0, opened);
    (standing, frames)
}

fn faults(standing: &Standing) -> Vec<(u64, Option<u32>, FaultKind)> {
    let of = |e: &hallmark_results::frame::Event| match e.what {
        What::Fault { kind, .. } => Some((e.at_ns, e.device, kind)),
        _ => None,
    };
    standing.events().iter().filter_map(of).collect()
}

#[test]
fn ten_minutes_with_eight_devices_are_exact_and_repeatable() {
    let (standing, frames) = run(&[100; 8], None, Vec::new());
    assert_eq!(standing.closed().unwrap().ending, Ending::Complete);
    let window = standing.phase_window(0).unwrap();
    // 100 ms of matmuls and 5 ms of reducing: a step each 105 ms for 540 s, and the few that the group finishes together.
    let steps = window.group.step_time.count();
    assert!((5_140..=5_150).contains(&steps), "{steps}");
    assert!(faults(&standing).is_empty());
    let verdict = judge(&standing);
    assert_eq!(
        verdict.sentence, "SIMULATED: would accept",
        "{:#?}",
        verdict.findings
    );
    assert_eq!(
        verdict.outcome,
        Outcome::Inconclusive,
        "what is simulated never accepts"
    );
    let (_, again) = run(&[100; 8], None, Vec::new());
    assert_eq!(frames, again, "the same world gives the same frames");
}

#[test]
fn the_sealed_verdict_is_the_running_one() {
    let (live, frames) = run(&[100, 100, 108, 100], None, Vec::new());
    let mut folded = Standing::open(&frames[0]).unwrap();
    for frame in &frames[1..] {
        folded.push(frame).unwrap();
    }
    assert_eq!(judge(&live), judge(&folded));
}

#[test]
fn a_hung_rank_is_found_within_five_seconds_and_the_others_go_on() {
    let hang = 200 * SECOND;
    let (standing, _) = run(&[100; 4], Some((2, hang)), Vec::new());
    let faults = faults(&standing);
    assert_eq!(faults.len(), 1, "{faults:?}");
    let (at_ns, device, kind) = faults[0];
    assert_eq!((device, kind), (Some(2), FaultKind::Silent));
    assert!(
        at_ns - hang < 5 * SECOND,
        "found after {} ms",
        (at_ns - hang) / 1_000_000
    );
    let regrouped = standing.events().iter().find_map(|e| match &e.what {
        What::Regrouped { members, .. } => Some(members.clone()),
        _ => None,
    });
    assert_eq!(regrouped, Some(vec![0, 1, 3]));
    for survivor in [0, 1, 3] {
        let run = &standing.devices()[survivor];
        assert!(
            run.last_end_ns > standing.last_ns() - 60 * SECOND,
            "device {survivor} stopped early"
        );
    }
    would_reject(&judge(&standing));
}

#[test]
fn a_fast_rank_waits_for_one_whose_steps_are_long() {
    let (standing, _) = run(&[100, 6_000], None, Vec::new());
    let faults = faults(&standing);
    assert!(faults.is_empty(), "{faults:?}");
    let steps = standing.phase_window(0).unwrap().group.step_time.count();
    assert!((88..=98).contains(&steps), "{steps}");
}

#[test]
fn a_run_whose_devices_are_all_dead_is_rejected_at_once() {
    let (standing, _) = run(&[100], Some((0, 100 * SECOND)), Vec::new());
    assert!(standing.last_ns() < 110 * SECOND, "{}", standing.last_ns());
    would_reject(&judge(&standing));
}

/// What is simulated rejects nothing; it says that it would.
fn would_reject(verdict: &hallmark_results::verdict::Verdict) {
    let said = &verdict.sentence;
    assert_eq!(verdict.outcome, Outcome::Inconclusive, "{said}");
    assert!(said.starts_with("SIMULATED: would reject: "), "{said}");
}

#[test]
fn an_interrupted_run_ramps_down_and_is_inconclusive() {
    let stop = Happening {
        at_ns: 300 * SECOND,
        input: Input::Interrupt,
    };
    let (standing, _) = run(&[100; 4], None, vec![stop]);
    let Some(Ending::Stopped { why }) = standing.closed().map(|c| c.ending.clone()) else {
        panic!("{:?}", standing.closed());
    };
    assert!(why.contains("operator"), "{why}");
    let downs = standing
        .windows()
        .iter()
        .filter(|w| w.kind == SegmentKind::RampDown)
        .count();
    assert_eq!(downs, 3, "75 %, 50 %, 25 %");
    assert_eq!(judge(&standing).outcome, Outcome::Inconclusive);
}

#[test]
fn a_second_interrupt_cuts_at_once() {
    let press = |at_ns, input| Happening { at_ns, input };
    let happenings = vec![
        press(300 * SECOND, Input::Interrupt),
        press(301 * SECOND, Input::Cut),
    ];
    let (standing, _) = run(&[100; 4], None, happenings);
    assert!(standing.last_ns() < 302 * SECOND);
}

#[test]
fn a_slow_device_fails_against_its_peers() {
    // Each by itself: without a group a slow device holds nobody up.
    let (standing, _) = run(&[100, 100, 100, 300], None, Vec::new());
    let verdict = judge(&standing);
    let step = verdict
        .findings
        .iter()
        .find(|f| f.criterion.name == "step-time")
        .unwrap();
    assert_eq!(step.outcome, Outcome::Failed, "{}", step.why);
}

#[test]
fn a_declared_sensor_that_gave_nothing_leaves_the_run_undecided_and_is_named() {
    let text = TEN_MINUTES.replace(
        "block = \"10 s\"",
        "block = \"10 s\"\nmetrics = [\"power_draw\"]",
    );
    let standing = Standing::open(&opened_with(&text, 1)).unwrap();
    let verdict = judge(&standing);
    let named =
        |f: &&hallmark_results::verdict::Finding| f.why.contains("no sensor gave it: power_draw");
    let finding = verdict.findings.iter().find(named).unwrap();
    assert_eq!(finding.outcome, Outcome::Inconclusive);
    assert!(verdict.not_measured.iter().any(|n| n.what == "power_draw"));
}

/// Ten minutes with the row remaps of one device, of which `failed` were so before it began.
fn row_remap(failed: f64) -> Outcome {
    let gate = "metrics = [\"row_remap\"]\n[[criterion]]\nname = \"row-remap\"\nmetric = \"row_remap\"\nscope = \"gpu\"\n\
                statistic = \"max\"\nat_most = \"0 count\"\n[[criterion]]\nname = \"step-time\"";
    let text = TEN_MINUTES.replacen("[[criterion]]\nname = \"step-time\"", gate, 1);
    let opened = opened_with(&text, 1);
    let standing = Standing::open(&opened).unwrap();
    let plan = standing.opened().plan.clone();
    let series = |label: &str, kind| Series {
        metric: Metric::RowRemap,
        label: label.to_owned(),
        unit: Metric::RowRemap.spec().unit,
        kind,
        averaging_ns: None,
        accuracy: None,
    };
    let table = Table {
        id: 0,
        name: "nvml-gpu0-health".to_owned(),
        source: "NVML".to_owned(),
        provenance: Provenance::Simulated,
        device: Some(0),
        place: "sim0".to_owned(),
        period_ns: SECOND,
        series: vec![
            series("uncorrectable", SeriesKind::Counter),
            series("failed", SeriesKind::Gauge),
        ],
    };
    let samples = Samples {
        table: 0,
        at_ns: (1..622).map(|s| s * SECOND).collect(),
        // Eight rows were remapped long ago: history, and no growth.
        columns: vec![vec![8.0; 621], vec![failed; 621]],
    };
    let happenings = vec![
        Happening {
            at_ns: 0,
            input: Input::Table(table),
        },
        Happening {
            at_ns: 622 * SECOND,
            input: Input::Samples(samples),
        },
    ];
    let physics = (0..1).map(|_| {
        Box::new(Steady {
            step_ns: 100_000_000,
            hangs_at_ns: u64::MAX,
        }) as Box<dyn Physics>
    });
    let world = World::new(&plan, physics.collect(), Vec::new());
    let (standing, _) = world.perform(standing, happenings);
    let verdict = judge(&standing);
    let mut findings = verdict.findings.iter();
    let found = findings.find(|f| f.criterion.name == "row-remap").unwrap();
    println!("{}", found.why);
    found.outcome
}

#[test]
fn a_remap_that_had_failed_before_the_run_began_fails_its_gate() {
    assert_eq!(row_remap(1.0), Outcome::Failed);
    assert_eq!(row_remap(0.0), Outcome::Passed);
}

/// Ten minutes of two devices, of which the second's sensor ends after 200 s, and the device itself then or never.
fn blind(hangs_at_ns: u64) -> Standing {
    let stop = "[load.stop_when]\nsensor_lost_for = \"20 s\"\n[telemetry]";
    let opened = opened_with(&TEN_MINUTES.replace("[telemetry]", stop), 2);
    let standing = Standing::open(&opened).unwrap();
    let plan = standing.opened().plan.clone();
    let told = |device: u32, until_s: u64| {
        let table = Table {
            id: device,
            name: format!("gpu-{device}"),
            source: "simulated".to_owned(),
            provenance: Provenance::Simulated,
            device: Some(device),
            place: format!("sim{device}"),
            period_ns: SECOND,
            series: vec![Series {
                metric: Metric::PowerDraw,
                label: String::new(),
                unit: Metric::PowerDraw.spec().unit,
                kind: SeriesKind::Gauge,
                averaging_ns: None,
                accuracy: None,
            }],
        };
        let row = move |s: u64| Happening {
            at_ns: s * SECOND,
            input: Input::Samples(Samples {
                table: device,
                at_ns: vec![s * SECOND],
                columns: vec![vec![500.0 + (s % 7) as f64]],
            }),
        };
        let first = Happening {
            at_ns: 0,
            input: Input::Table(table),
        };
        std::iter::once(first).chain((1..until_s).map(row))
    };
    let mut happenings: Vec<Happening> = told(0, 700).chain(told(1, 200)).collect();
    happenings.sort_by_key(|h| h.at_ns);
    let physics = [u64::MAX, hangs_at_ns].map(|hangs_at_ns| {
        Box::new(Steady {
            step_ns: 100_000_000,
            hangs_at_ns,
        }) as Box<dyn Physics>
    });
    let world = World::new(&plan, physics.into(), Vec::new());
    world.perform(standing, happenings).0
}

#[test]
fn a_device_that_dies_with_its_sensors_is_its_own_fault_and_the_others_go_on() {
    let standing = blind(200 * SECOND);
    assert_eq!(standing.closed().unwrap().ending, Ending::Complete);
    let found = faults(&standing);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].1, found[0].2), (Some(1), FaultKind::Silent));
    // One that works on unseen is what the limit is for.
    let ending = blind(u64::MAX).closed().unwrap().ending.clone();
    let Ending::Stopped { why } = ending else {
        panic!("{ending:?}");
    };
    assert!(why.contains("gpu-1 has had no power_draw"), "{why}");
}
