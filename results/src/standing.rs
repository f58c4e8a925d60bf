//! The running account of a run: one fold over its frames, live and after sealing alike.
//!
//! It keeps bounded memory whatever the run's length: distributions, blocks and traces, no raw
//! samples. Rows belong to the window that was open at their own time, so the order in which
//! devices and sensors arrive does not matter, as long as each one's rows are in order and the
//! event that opens a window comes before the rows inside it. It judges nothing: [`crate::verdict`].

mod apart;
mod gathered;
mod series;
pub mod sweep;
pub mod window;

use crate::diagnosis::sensor::LIVELY;
use crate::diagnosis::usual::Usual;
use crate::frame::{
    Closed, Event, Frame, Kin, Opened, SeriesKind, StepRow, Steps, Table, TrialRow, What,
};
use crate::plan::SegmentKind;
use crate::stats::reading::{Echo, Held};
use crate::trace::{Trace, WorkTrace, bins_of};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile::Profile;
pub use series::SeriesWindow;
use std::ops::Range;
use std::sync::OnceLock;
use window::Window;

/// Resumes whose segments are taken into account; more than one is doubted anyhow.
const RESUMES_MAX: usize = 3;
/// Width of the first bins of every trace.
const TRACE_BIN_NS: u64 = 100_000_000;

/// Everything known of a run so far.
pub struct Standing {
    opened: Opened,
    profile: Profile,
    tables: Vec<TableRun>,
    devices: Vec<DeviceRun>,
    windows: Vec<Window>,
    /// Who makes up the group from which time on.
    members: Vec<(u64, Vec<u32>)>,
    /// Time of all-reduces from the last rank's start on, for each byte of payload, s/B.
    reducing: Trace,
    /// Until the next sample, what is usual among the devices' sensors.
    usual: OnceLock<Usual>,
    events: Vec<Event>,
    closed: Option<Closed>,
    last_ns: u64,
    /// From when to when nobody drove a run that was then resumed.
    outages: Vec<(u64, u64)>,
    oddities: u64,
}

/// A sensor so far.
pub struct TableRun {
    pub table: Table,
    pub traces: Vec<Trace>,
    /// Latest value of each series; NaN where the latest read gave none.
    pub latest: Vec<f64>,
    /// Each series over the whole run, outside the segments too.
    pub whole: Vec<SeriesWindow>,
    /// How long each reading stayed at one value.
    pub held: Vec<Held>,
    /// Of powers: whether a stretch of readings came again.
    pub echoes: Vec<Option<Echo>>,
    first_ns: Option<u64>,
    /// Time of the latest value of each series; a read that gave none does not count.
    pub valued_ns: Vec<Option<u64>>,
    pub last_ns: Option<u64>,
}

/// A device so far, over all segments.
pub struct DeviceRun {
    /// FLOP of completed matmuls, spread over the steps that did them.
    pub work: WorkTrace,
    /// Bytes read and written by copy and triad.
    pub memory: WorkTrace,
    /// Time in matmuls, and in copy and triad, ns, spread over their steps.
    pub computing: WorkTrace,
    pub moving: WorkTrace,
    /// Time of each step in no kernel and no all-reduce, from its due time on, s; unknown where these overlap.
    pub outside: Trace,
    /// Its tables, by number.
    tables: Vec<u32>,
    pub steps: u64,
    pub last_end_ns: u64,
    pub audited: u64,
    pub gemms: u64,
    pub audited_flop: f64,
    pub flop: f64,
    pub mismatches: u64,
    /// Error events of its driver, each as it was told.
    pub xids: u64,
    pub self_test: Option<bool>,
    pub faults: Vec<Event>,
    /// All steps so far were timed by events on the device.
    pub device_clock: bool,
}

/// Frames that no run of hallmark can have written.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    #[error("the record does not begin with its opening frame")]
    NotOpened,
    #[error("the record was written by format {found}; this build reads up to {known}")]
    Version { found: u32, known: u32 },
    #[error("the record's profile cannot be used: {0}")]
    Profile(String),
    #[error("the record's plan is not the one whose digest it names")]
    PlanDigest,
    #[error("a frame names {what} {index}, of which the record has {count}")]
    Index {
        what: &'static str,
        index: u32,
        count: usize,
    },
    #[error("the record opens twice")]
    OpenedTwice,
    #[error("table {0} has columns of unequal length")]
    Ragged(u32),
    #[error("the record begins more segments than its plan and its resumes make: {0}")]
    Segments(usize),
}

impl Standing {
    /// Starts the account from a run's first frame.
    ///
    /// # Errors
    /// [`StandingError`] where the frame is not one, or its profile or plan is not what its digest names.
    pub fn open(frame: &Frame) -> Result<Self, StandingError> {
        let Frame::Opened(opened) = frame else {
            return Err(StandingError::NotOpened);
        };
        if opened.format_version > crate::frame::FORMAT_VERSION {
            return Err(StandingError::Version {
                found: opened.format_version,
                known: crate::frame::FORMAT_VERSION,
            });
        }
        if opened.plan.digest() != opened.plan_digest {
            return Err(StandingError::PlanDigest);
        }
        let profile = opened.plan.profile().map_err(StandingError::Profile)?;
        let count = opened.plan.devices.len();
        Ok(Self {
            devices: (0..count).map(|_| DeviceRun::new(bins_of(count))).collect(),
            members: vec![(0, (0..count as u32).collect())],
            opened: (**opened).clone(),
            profile,
            tables: Vec::new(),
            windows: Vec::new(),
            reducing: Trace::new(TRACE_BIN_NS),
            usual: OnceLock::new(),
            events: Vec::new(),
            closed: None,
            last_ns: 0,
            outages: Vec::new(),
            oddities: 0,
        })
    }

    /// Takes the next frame into account.
    ///
    /// # Errors
    /// [`StandingError`] for a frame that contradicts the record; the account is then unchanged.
    pub fn push(&mut self, frame: &Frame) -> Result<(), StandingError> {
        match frame {
            Frame::Opened(_) => Err(StandingError::OpenedTwice),
            Frame::Table(table) => self.table(table),
            Frame::Samples(samples) => self.samples(samples),
            Frame::Steps(steps) => self.steps(steps),
            Frame::Event(event) => self.event(event),
            Frame::Closed(closed) => {
                // Ending the workers takes a while in which nothing was asked of the devices.
                let end_ns = self.load_ended_ns(closed.at_ns);
                self.close_window(end_ns);
                self.last_ns = self.last_ns.max(closed.at_ns);
                self.closed = Some(closed.clone());
                Ok(())
            }
        }
    }

    fn table(&mut self, table: &Table) -> Result<(), StandingError> {
        if let Some(device) = table.device {
            self.known("device", device, self.devices.len())?;
        }
        if table.id as usize != self.tables.len() {
            // A resumed run declares its sensors anew; the same declaration is no second table.
            let same = self
                .tables
                .get(table.id as usize)
                .is_some_and(|t| t.table == *table);
            return if same {
                Ok(())
            } else {
                self.known("table", table.id, self.tables.len())
            };
        }
        let bins = bins_of(self.opened.plan.devices.len());
        if let Some(device) = table.device {
            self.devices[device as usize].tables.push(table.id);
        }
        self.tables.push(TableRun::new(table, bins));
        Ok(())
    }

    pub(crate) fn steps(&mut self, steps: &Steps) -> Result<(), StandingError> {
        self.known("device", steps.device, self.devices.len())?;
        let run = &mut self.devices[steps.device as usize];
        if !steps.rows.is_empty() {
            run.device_clock &= steps.device_clock;
        }
        for row in &steps.rows {
            let window = self.windows.iter().rposition(|w| {
                w.segment == row.segment && w.start_ns <= row.end_ns.saturating_add(FIT_SLACK_NS)
            });
            let window = window.filter(|w| self.windows[*w].is_next(steps.device, row));
            let (true, Some(window)) = (is_possible(row), window) else {
                self.oddities += 1;
                continue;
            };
            run.push(row);
            self.last_ns = self.last_ns.max(row.end_ns);
            let members = members_at(&self.members, row.end_ns);
            self.windows[window].step(steps.device, row, members);
        }
        for op in &steps.ops {
            let window = self.windows.iter_mut().rev();
            let window = window.into_iter().find(|w| w.start_ns <= op.start_ns);
            match window.filter(|_| op.end_ns >= op.start_ns) {
                Some(window) => {
                    let members = members_at(&self.members, op.end_ns);
                    let done = window.op(steps.device, op, members);
                    if let Some((end_ns, per_byte)) = done {
                        self.reducing.push(end_ns, per_byte);
                    }
                }
                None => self.oddities += 1,
            }
        }
        for trial in &steps.trials {
            let mut window = self.windows.iter_mut().rev();
            let window = window.find(|w| w.start_ns <= trial.start_ns);
            match window.filter(|_| is_possible_trial(trial)) {
                Some(window) => {
                    window.trial(steps.device, trial, members_at(&self.members, trial.end_ns));
                }
                None => self.oddities += 1,
            }
        }
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<(), StandingError> {
        if let Some(device) = event.device {
            self.known("device", device, self.devices.len())?;
        }
        self.last_ns = self.last_ns.max(event.at_ns);
        match &event.what {
            What::Segment { index } => {
                self.known("segment", *index, self.opened.plan.schedule.len())?;
                self.has_room_for_segment()?;
                self.close_window(event.at_ns);
                let segment = &self.opened.plan.schedule[*index as usize];
                let window = Window::new(*index, segment, event.at_ns, &self.opened.plan);
                self.windows.push(window);
            }
            What::Resumed { lost_ns } => {
                // The time in which nobody drove it is no phase's.
                let cut_ns = event.at_ns.saturating_sub(*lost_ns);
                self.close_window(cut_ns);
                self.outages.push((cut_ns, event.at_ns));
            }
            What::Gap { table, .. } => self.known("table", *table, self.tables.len())?,
            What::Regrouped { members, .. } => {
                self.members.push((event.at_ns, members.clone()));
            }
            What::Fault { .. } => self.on_device(event, |d, e| d.faults.push(e.clone())),
            What::Mismatch { .. } | What::Xid { .. } => self.count(event, &event.what, 1),
            What::SelfTest { passed, .. } => {
                // One failed self-test is not healed by a later one.
                let passed = *passed;
                self.on_device(event, |d, _| {
                    d.self_test = Some(passed && d.self_test != Some(false))
                });
            }
            What::More { latest, count, .. } => {
                if let What::Gap { table, .. } = **latest {
                    self.known("table", table, self.tables.len())?;
                }
                self.count(event, latest, *count);
                self.tell_together(event, latest, *count);
                return Ok(());
            }
            _ => {}
        }
        self.events.push(event.clone());
        Ok(())
    }

    /// A window takes room for each device, so that there are no more of them than a run can have.
    fn has_room_for_segment(&self) -> Result<(), StandingError> {
        let begun = 1 + self.outages.len().min(RESUMES_MAX);
        let most = self.opened.plan.schedule.len().saturating_mul(begun);
        match self.windows.len() < most {
            true => Ok(()),
            false => Err(StandingError::Segments(most)),
        }
    }

    /// Keeps one event for all of a kind that were told together, so that days of trouble take no more room than its first minute.
    fn tell_together(&mut self, event: &Event, latest: &What, count: u64) {
        let same = |e: &Event| match &e.what {
            What::More { latest: before, .. } => {
                e.device == event.device && before.kin() == latest.kin()
            }
            _ => false,
        };
        let mut merged = event.clone();
        if let Some(index) = self.events.iter().rposition(same)
            && let What::More {
                count: before,
                from_ns: since,
                ..
            } = self.events.remove(index).what
            && let What::More {
                count: sum,
                from_ns,
                ..
            } = &mut merged.what
        {
            *sum = count.saturating_add(before);
            *from_ns = since.min(*from_ns);
        }
        self.events.push(merged);
    }

    /// Counts what a device may have any number of.
    fn count(&mut self, event: &Event, what: &What, times: u64) {
        let kin = what.kin();
        self.on_device(event, |d, _| match kin {
            Some(Kin::Mismatch) => d.mismatches = d.mismatches.saturating_add(times),
            Some(Kin::Xid(_)) => d.xids = d.xids.saturating_add(times),
            _ => {}
        });
    }

    fn on_device(&mut self, event: &Event, change: impl FnOnce(&mut DeviceRun, &Event)) {
        if let Some(run) = event.device.and_then(|d| self.devices.get_mut(d as usize)) {
            change(run, event);
        }
    }

    fn close_window(&mut self, at_ns: u64) {
        if let Some(open) = self.windows.last_mut().filter(|w| w.end_ns.is_none()) {
            open.end_ns = Some(at_ns.max(open.start_ns));
        }
    }

    /// When the open window's load ended in a run that closed at `closed_ns`: its planned end, or that of
    /// the last step, whichever is later.
    fn load_ended_ns(&self, closed_ns: u64) -> u64 {
        let Some(open) = self.windows.last().filter(|w| w.end_ns.is_none()) else {
            return closed_ns;
        };
        let segment = &self.opened.plan.schedule[open.segment as usize];
        let planned = open.start_ns.saturating_add(segment.duration_ns);
        let last = self.devices.iter().map(|d| d.last_end_ns).max();
        planned.max(last.unwrap_or(0)).min(closed_ns)
    }

    fn known(&self, what: &'static str, index: u32, count: usize) -> Result<(), StandingError> {
        if (index as usize) < count {
            return Ok(());
        }
        Err(StandingError::Index { what, index, count })
    }

    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    pub fn tables(&self) -> &[TableRun] {
        &self.tables
    }

    /// The sensors of a device alone, in the order of their numbers.
    pub fn tables_of(&self, device: u32) -> impl Iterator<Item = &TableRun> + '_ {
        let own = self.devices.get(device as usize).map(|d| &d.tables);
        let own = own.into_iter().flatten();
        own.filter_map(|id| self.tables.get(*id as usize))
    }

    pub fn devices(&self) -> &[DeviceRun] {
        &self.devices
    }

    /// All windows in the order in which they opened; a resumed phase has more than one.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Whether a window, by its number, has a device do something else than the one before it.
    pub(crate) fn is_changed(&self, window: usize, device: u32) -> bool {
        let active = |w: usize| {
            let segment = self.windows.get(w)?.segment;
            let segment = self.opened.plan.schedule.get(segment as usize)?;
            Some(segment.active as u32)
        };
        let now = active(window).unwrap_or(0);
        match window.checked_sub(1).map_or(Some(0), active) {
            // A ramp: the others go on as before.
            Some(before) if before != now => (before.min(now)..before.max(now)).contains(&device),
            _ => true,
        }
    }

    /// A window in which nothing happened, for what is judged of a run that never got to its first one.
    pub fn blank(&self) -> Option<Window> {
        let plan = &self.opened.plan;
        let first = plan.schedule.first()?;
        Some(Window::new(0, first, 0, plan))
    }

    /// The window that counts for a phase: the last one, since a resumed run starts it anew.
    pub fn phase_window(&self, phase: usize) -> Option<&Window> {
        let kind = SegmentKind::Phase(phase);
        self.windows.iter().rev().find(|w| w.kind == kind)
    }

    /// Of a stretch of time, how much of it somebody drove the run.
    pub fn driven_ns(&self, stretch: Range<u64>) -> u64 {
        let lost = self.outages.iter().map(|(cut_ns, back_ns)| {
            let until = (*back_ns).min(stretch.end);
            until.saturating_sub((*cut_ns).max(stretch.start))
        });
        let length = stretch.end.saturating_sub(stretch.start);
        lost.fold(length, u64::saturating_sub)
    }

    pub fn events(&self) -> &[Event] {
        &self.events
    }

    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// Time of the latest row or event.
    pub fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// Rows that were counted but not used because their times contradict themselves.
    pub fn oddities(&self) -> u64 {
        self.oddities
    }

    /// What is usual among the devices' sensors so far.
    pub(crate) fn usual(&self) -> &Usual {
        self.usual.get_or_init(|| Usual::of(self, &LIVELY))
    }

    /// Time of all-reduces from the last rank's start on, for each byte of payload, s/B.
    pub fn reducing(&self) -> &Trace {
        &self.reducing
    }

    /// Devices that still take part at `at_ns`.
    pub fn members_at(&self, at_ns: u64) -> &[u32] {
        members_at(&self.members, at_ns)
    }

    /// The highest of the devices' latest core temperatures, °C.
    pub fn hottest(&self) -> Option<f64> {
        let own = self.tables.iter().filter(|t| t.table.device.is_some());
        own.flat_map(|t| t.table.series.iter().zip(&t.latest))
            .filter(|(s, v)| s.metric == Metric::TempCore && v.is_finite())
            .map(|(_, v)| *v)
            .reduce(f64::max)
    }

    /// Latest finite value of a gauge of a device, for the live view.
    pub fn latest(&self, device: u32, metric: Metric) -> Option<f64> {
        self.tables_of(device)
            .flat_map(|t| t.table.series.iter().zip(&t.latest))
            .find(|(s, v)| s.metric == metric && s.kind != SeriesKind::Counter && v.is_finite())
            .map(|(_, v)| *v)
    }
}

/// How far times of one device may be apart from others' by the fit of its clock, which is refreshed now and then.
const FIT_SLACK_NS: u64 = 100_000_000;

/// Whether a step's numbers can all be true at once. One that contradicts itself is counted, not used.
fn is_possible(row: &StepRow) -> bool {
    let length = row.end_ns.saturating_sub(row.start_ns);
    let amounts = [row.flop, row.audited_flop];
    row.start_ns <= row.end_ns
        && row.due_ns <= row.end_ns
        && amounts.iter().all(|a| a.is_finite() && *a >= 0.0)
        && row.audited <= row.gemms
        && row.audited_flop <= row.flop * (1.0 + 1e-9)
        && (row.flop <= 0.0 || row.gemms > 0)
        && (row.memory_bytes == 0 || row.memory_ns > 0)
        && row.memory_ns <= length.saturating_add(FIT_SLACK_NS)
}

/// Times that run forwards, over a payload of whole elements of which no more can be wrong than there are.
fn is_possible_trial(row: &TrialRow) -> bool {
    row.due_ns <= row.end_ns
        && row.start_ns <= row.arrived_ns
        && row.arrived_ns <= row.end_ns
        && row.bytes >= 4
        && row.bytes.is_multiple_of(4)
        && row.wrong <= row.bytes / 4
}

fn members_at(members: &[(u64, Vec<u32>)], at_ns: u64) -> &[u32] {
    let found = members.iter().rev().find(|(from, _)| *from <= at_ns);
    found.map_or(&[], |(_, list)| list)
}

impl DeviceRun {
    fn push(&mut self, row: &StepRow) {
        let moved = row.memory_bytes as f64;
        let (computing, moving) = (row.compute_ns as f64, row.memory_ns as f64);
        WorkTrace::push_each(
            [
                &mut self.work,
                &mut self.memory,
                &mut self.computing,
                &mut self.moving,
            ],
            row.start_ns,
            row.end_ns,
            [row.flop, moved, computing, moving],
        );
        let others = row
            .reduce_ns
            .saturating_add(row.optimizer_ns.max(row.memory_ns));
        let kernels = row.compute_ns.saturating_add(others);
        let whole = row.end_ns.saturating_sub(row.due_ns.min(row.start_ns));
        if let Some(outside) = whole.checked_sub(kernels) {
            self.outside.push(row.end_ns, outside as f64 / 1e9);
        }
        self.steps += 1;
        self.last_end_ns = self.last_end_ns.max(row.end_ns);
        self.audited += u64::from(row.audited);
        self.gemms += u64::from(row.gemms);
        self.audited_flop += row.audited_flop;
        self.flop += row.flop;
    }

    fn new(bins: usize) -> Self {
        let work = || WorkTrace::new(TRACE_BIN_NS).at_most(bins);
        Self {
            work: work(),
            memory: work(),
            computing: work(),
            moving: work(),
            outside: Trace::new(TRACE_BIN_NS).at_most(bins),
            tables: Vec::new(),
            steps: 0,
            last_end_ns: 0,
            audited: 0,
            gemms: 0,
            audited_flop: 0.0,
            flop: 0.0,
            mismatches: 0,
            xids: 0,
            self_test: None,
            faults: Vec::new(),
            device_clock: true,
        }
    }
}
