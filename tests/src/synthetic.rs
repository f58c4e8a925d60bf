//! Records of runs that never took place, to try the judge on: eight devices on which every criterion
//! of a built-in profile holds, until a test takes something away or makes it worse.
//!
//! The plan is the real one of the profile; only its long phases are shortened, and the plan says so.
//! Rows go through the real fold. The figures are invented, and called measured so that the judge
//! treats them as it treats a hall's; no such record is ever written into a report.

mod course;
mod healthy;

use hallmark::plan::{self, Settings};
use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::criterion::Criterion;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile::{self, Loaded};
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::Dtype;
use hallmark_results::frame::{
    ClockState, Ending, FORMAT_VERSION, FaultKind, Frame, Host, Opened, SeriesKind, StepRow, What,
};
use hallmark_results::plan::{Plan, SegmentKind};
use hallmark_results::standing::Standing;
use hallmark_results::verdict::{Finding, Verdict, judge};
use std::rc::Rc;

pub const SECOND_NS: u64 = 1_000_000_000;
/// A driver's name that finds a SKU with a reference for matmuls and for an all-reduce of eight.
pub const H100: &str = "NVIDIA H100 80GB HBM3";

/// When something is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// Name of the segment, e.g. `train`.
    pub phase: &'a str,
    /// 0 at its start, 1 at its end.
    pub progress: f64,
    /// Counts the steps or samples of the whole run.
    pub index: u64,
}

/// Where a series is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Device(u32),
    /// A node, rack, CDU or feeder by its name.
    Hall(String),
}

impl Place {
    pub fn hall(name: &str) -> Self {
        Self::Hall(name.to_owned())
    }
}

/// A series: its value at a moment, NaN where a read gave none.
#[derive(Clone)]
struct Told {
    metric: Metric,
    place: Place,
    kind: SeriesKind,
    value: Rc<dyn Fn(&Moment<'_>) -> f64>,
}

type StepEdit = Rc<dyn Fn(&Moment<'_>, u32, &mut StepRow) -> bool>;
type Keep = Rc<dyn Fn(&Frame) -> bool>;

/// A run to be judged.
#[derive(Clone)]
pub struct Record {
    plan: Plan,
    main: usize,
    told: Vec<Told>,
    edits: Vec<StepEdit>,
    keeps: Vec<Keep>,
    /// Length of a step as a multiple of the usual one.
    length: Rc<dyn Fn(&Moment<'_>) -> f64>,
    /// Time of an all-reduce as a multiple of the usual one; NaN where it was not recorded.
    operation: Rc<dyn Fn(u64) -> f64>,
    self_tests: Vec<Option<bool>>,
    events: Vec<(Option<u32>, What)>,
    clock_error_s: Option<f64>,
    ending: Option<Ending>,
}

/// A run of a built-in profile on eight devices, on which every criterion holds.
///
/// # Panics
/// There is no such profile.
#[must_use]
pub fn record(name: &str) -> Record {
    of(&profile::load(name).unwrap_or_else(|e| panic!("{e}")), 8)
}

/// A run of a profile that has been read, on so many devices.
///
/// # Panics
/// The profile cannot be planned for them.
#[must_use]
pub fn of(loaded: &Loaded, devices: usize) -> Record {
    let tested = || ("memory_tested".to_owned(), "all of it, invented".to_owned());
    let asked = loaded.profile.load.memory_test;
    let mut infos: Vec<_> = (0..devices).map(info).collect();
    for info in infos.iter_mut().filter(|_| asked) {
        info.facts.push(tested());
    }
    let settings = Settings {
        node: "node-1".to_owned(),
        expect_devices: Some(devices as u32),
        nodes: 2,
        ..Settings::default()
    };
    let mut plan = plan::make(loaded, &infos, &settings).unwrap_or_else(|e| panic!("{e}"));
    "nccl, invented".clone_into(&mut plan.transport);
    course::time_nodes(&mut plan, loaded.profile.load.main_phase());
    let metrics = &loaded.profile.telemetry.metrics;
    Record {
        main: loaded.profile.load.main_phase(),
        told: metrics
            .iter()
            .flat_map(|m| healthy::series(*m, devices as u32))
            .collect(),
        edits: Vec::new(),
        keeps: Vec::new(),
        length: Rc::new(|_| 1.0),
        operation: Rc::new(|_| 1.0),
        self_tests: vec![Some(true); devices],
        events: Vec::new(),
        clock_error_s: Some(0.001),
        ending: Some(Ending::Complete),
        plan,
    }
}

fn info(index: usize) -> DeviceInfo {
    DeviceInfo {
        id: format!("gpu{index}"),
        engine: "synthetic".to_owned(),
        name: H100.to_owned(),
        vendor: String::new(),
        pci: None,
        uuid: None,
        driver: String::new(),
        memory: Bytes::gibibytes(400),
        dtypes: vec![Dtype::F32, Dtype::Bf16],
        software: false,
        cores: Vec::new(),
        facts: Vec::new(),
    }
}

impl Record {
    /// The main phase lasts so many hours, and the warm-up a minute.
    #[must_use]
    pub fn hours(mut self, hours: f64) -> Self {
        for segment in &mut self.plan.schedule {
            match segment.kind {
                SegmentKind::Phase(phase) if phase == self.main => {
                    segment.duration_ns = (hours * 3600.0 * SECOND_NS as f64) as u64;
                }
                SegmentKind::Warmup => segment.duration_ns = 60 * SECOND_NS,
                _ => {}
            }
        }
        course::time_nodes(&mut self.plan, self.main);
        self.plan
            .overrides
            .push(format!("the main phase lasts {hours} h"));
        self
    }

    /// A device's name as its driver gives it; another name is another model, or none that is known.
    #[must_use]
    pub fn named(mut self, device: usize, name: &str) -> Self {
        name.clone_into(&mut self.plan.devices[device].name);
        let sku = hallmark_profiles::sku::find(name).ok().flatten();
        self.plan.devices[device].sku = sku.map(|s| s.name.clone());
        self
    }

    /// Anything of the plan.
    #[must_use]
    pub fn plan(mut self, change: impl Fn(&mut Plan)) -> Self {
        change(&mut self.plan);
        self
    }

    /// Matmul rate of each device as a multiple of a healthy one's.
    #[must_use]
    pub fn rates(self, share: impl Fn(&Moment<'_>, u32) -> f64 + 'static) -> Self {
        self.steps(move |moment, device, row| {
            let share = share(moment, device);
            row.flop *= share;
            row.audited_flop *= share;
            true
        })
    }

    /// Changes each step's row; one for which it says `false` was never recorded.
    #[must_use]
    pub fn steps(
        mut self,
        edit: impl Fn(&Moment<'_>, u32, &mut StepRow) -> bool + 'static,
    ) -> Self {
        self.edits.push(Rc::new(edit));
        self
    }

    /// Length of each step as a multiple of the usual one.
    #[must_use]
    pub fn lengths(mut self, length: impl Fn(&Moment<'_>) -> f64 + 'static) -> Self {
        self.length = Rc::new(length);
        self
    }

    /// Time of the n-th all-reduce as a multiple of the usual one; NaN where it was not recorded.
    #[must_use]
    pub fn operations(mut self, factor: impl Fn(u64) -> f64 + 'static) -> Self {
        self.operation = Rc::new(factor);
        self
    }

    /// A series at one place, instead of the one there; NaN is “no value”.
    #[must_use]
    pub fn series(
        mut self,
        metric: Metric,
        place: Place,
        value: impl Fn(&Moment<'_>) -> f64 + 'static,
    ) -> Self {
        self.told.retain(|t| t.metric != metric || t.place != place);
        self.told.push(Told {
            kind: healthy::kind(metric),
            value: Rc::new(value),
            metric,
            place,
        });
        self
    }

    /// Takes away the series of a metric at one place.
    #[must_use]
    pub fn without(mut self, metric: Metric, place: &Place) -> Self {
        self.told
            .retain(|t| t.metric != metric || t.place != *place);
        self
    }

    /// Takes away all series.
    #[must_use]
    pub fn without_telemetry(mut self) -> Self {
        self.told.clear();
        self
    }

    /// The places at which a metric is taken.
    #[must_use]
    pub fn places(&self, metric: Metric) -> Vec<Place> {
        let of = self.told.iter().filter(|t| t.metric == metric);
        of.map(|t| t.place.clone()).collect()
    }

    /// The samples of a metric for which `hidden` says so have no value.
    #[must_use]
    pub fn hide(mut self, metric: Metric, hidden: impl Fn(&Moment<'_>) -> bool + 'static) -> Self {
        let hidden = Rc::new(hidden);
        for told in self.told.iter_mut().filter(|t| t.metric == metric) {
            let (value, hidden) = (Rc::clone(&told.value), Rc::clone(&hidden));
            told.value = Rc::new(move |m| if hidden(m) { f64::NAN } else { value(m) });
        }
        self
    }

    #[must_use]
    pub fn self_test(mut self, device: usize, passed: Option<bool>) -> Self {
        self.self_tests[device] = passed;
        self
    }

    /// Something that happens in the middle of the main phase.
    #[must_use]
    pub fn event(mut self, device: Option<u32>, what: What) -> Self {
        self.events.push((device, what));
        self
    }

    #[must_use]
    pub fn fault(self, device: u32, kind: FaultKind) -> Self {
        let detail = "invented".to_owned();
        self.event(Some(device), What::Fault { kind, detail })
    }

    /// Largest error of the node's clock, s; `None` where nothing disciplines it.
    #[must_use]
    pub fn clock(mut self, error_s: Option<f64>) -> Self {
        self.clock_error_s = error_s;
        self
    }

    /// How it ended; `None`: it has not.
    #[must_use]
    pub fn ending(mut self, ending: Option<Ending>) -> Self {
        self.ending = ending;
        self
    }

    /// Takes away the frames for which `keep` says `false`.
    #[must_use]
    pub fn keep(mut self, keep: impl Fn(&Frame) -> bool + 'static) -> Self {
        self.keeps.push(Rc::new(keep));
        self
    }

    /// As if the phase of this name had never begun.
    #[must_use]
    pub fn never_began(self, phase: &str) -> Self {
        let of = |s: &hallmark_results::plan::Segment| s.name == phase;
        let Some(gone) = self.plan.schedule.iter().position(of) else {
            return self;
        };
        self.keep(move |f| match f {
            Frame::Event(event) => {
                !matches!(event.what, What::Segment { index } if index as usize == gone)
            }
            _ => true,
        })
    }

    /// As if no load had ever begun.
    #[must_use]
    pub fn idle(self) -> Self {
        self.keep(|f| match f {
            Frame::Steps(_) => false,
            Frame::Event(event) => !matches!(event.what, What::Segment { .. } | What::Steady),
            _ => true,
        })
    }

    /// Every frame, the opening one first.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        let mut frames = vec![Frame::Opened(Box::new(self.opened()))];
        frames.extend(course::frames(self));
        frames.retain(|f| self.keeps.iter().all(|keep| keep(f)));
        frames
    }

    fn opened(&self) -> Opened {
        // No more often than its invented sensors are read.
        let mut plan = self.plan.clone();
        plan.sample_period_ns = plan.sample_period_ns.max(course::period_ns(self));
        Opened {
            format_version: FORMAT_VERSION,
            run_id: "synthetic".to_owned(),
            hallmark_version: "test".to_owned(),
            utc_start: "2026-01-01T00:00:00Z".to_owned(),
            clock: self.clock_state(),
            host: Host {
                name: "node-1".to_owned(),
                ..Host::default()
            },
            remark: None,
            plan_digest: plan.digest(),
            plan,
        }
    }

    fn clock_state(&self) -> ClockState {
        ClockState {
            synchronised: Some(self.clock_error_s.is_some()),
            max_error_s: self.clock_error_s,
        }
    }

    /// The verdict on it.
    #[must_use]
    pub fn judge(&self) -> Verdict {
        judge(&fold(&self.frames()))
    }
}

/// The account of some frames.
///
/// # Panics
/// They are no run's.
#[must_use]
pub fn fold(frames: &[Frame]) -> Standing {
    let (first, rest) = frames.split_first().expect("a run has an opening frame");
    let mut standing = Standing::open(first).unwrap_or_else(|e| panic!("{e}"));
    for frame in rest {
        standing.push(frame).unwrap_or_else(|e| panic!("{e}"));
    }
    standing
}

/// What a criterion came to.
///
/// # Panics
/// The verdict says nothing of it.
#[must_use]
pub fn finding<'a>(verdict: &'a Verdict, criterion: &str) -> &'a Finding {
    let mut all = verdict.findings.iter();
    all.find(|f| f.criterion.name == criterion)
        .unwrap_or_else(|| panic!("nothing was judged under the name `{criterion}`"))
}

/// The criteria of a profile, those that hold unasked included.
#[must_use]
pub fn criteria(profile: &profile::Profile) -> Vec<Criterion> {
    let stated = profile.criteria.clone();
    let implied = hallmark_results::verdict::implied::always(&stated);
    [stated, implied].concat()
}
