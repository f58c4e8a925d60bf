//! What of a run is shown at an instant: progress, each device's rate and sensors, audits.
//!
//! Decides how recent figures are made from the running account; judges nothing. A figure that nothing
//! was measured for is `None`, never zero.

use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{FaultKind, SeriesKind, What};
use hallmark_results::plan::{Segment, SegmentKind};
use hallmark_results::standing::window::Window;
use hallmark_results::standing::{DeviceRun, Standing};

/// Rates are means over this stretch.
const RECENT_NS: u64 = 3_000_000_000;

/// Clocks-event reasons by their bit, as people call them. Source: `nvml.h`, `nvmlClocksEventReason…`.
///
/// Idle, application clocks and sync boost hold down nothing under load and are left out.
const REASONS: [(u32, &str); 5] = [
    (2, "power cap"),
    (3, "hw"),
    (5, "heat"),
    (6, "heat hw"),
    (7, "power brake"),
];

/// A run at an instant.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    pub standing: &'a Standing,
    /// The segment that is on, and when it is over at the latest.
    pub current: Option<(usize, u64)>,
    pub now_ns: u64,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Time in segments.
    pub done_ns: u64,
    /// At most: a warm-up may end earlier.
    pub left_ns: u64,
    /// 0 to 1.
    pub share: f64,
}

/// What a device is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Working,
    /// Not in the part of the devices that is loaded.
    Waiting,
    /// Out of the run.
    Lost(FaultKind),
}

/// A device at an instant.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceReading {
    pub index: u32,
    pub state: State,
    /// Mean of the last seconds within the segment; `None` before there is one.
    pub rate_flop_per_s: Option<f64>,
    /// Bytes read and written by copy and triad, likewise.
    pub memory_byte_per_s: Option<f64>,
    /// Against the median of the working devices of its name and engine, 1 is alike; `None` without peers.
    pub against_peers: Option<f64>,
    pub power_w: Option<f64>,
    pub temp_core_c: Option<f64>,
    pub margin_k: Option<f64>,
    pub clock_hz: Option<f64>,
    /// `None` where reasons are not read.
    pub reasons: Option<Vec<&'static str>>,
    pub mismatches: u64,
    pub faults: usize,
}

/// Audits over the whole run and all devices.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Audits {
    pub audited: u64,
    pub gemms: u64,
    pub wrong: u64,
}

impl Audits {
    /// 0 to 1; `None` before the first matmul.
    pub fn share(self) -> Option<f64> {
        (self.gemms > 0).then(|| self.audited as f64 / self.gemms as f64)
    }
}

impl<'a> Reading<'a> {
    pub fn segment(&self) -> Option<&'a Segment> {
        let (index, _) = self.current?;
        self.standing.opened().plan.schedule.get(index)
    }

    /// The window that is open.
    pub fn window(&self) -> Option<&'a Window> {
        self.standing
            .windows()
            .last()
            .filter(|w| w.end_ns.is_none())
    }

    /// Why the run is being ended before its time.
    pub fn stopping(&self) -> Option<&'a str> {
        let mut events = self.standing.events().iter().rev();
        // What stopped an earlier part of a resumed run is past.
        let last = events.find(|e| matches!(e.what, What::Stop { .. } | What::Resumed { .. }))?;
        match &last.what {
            What::Stop { why } => Some(why),
            _ => None,
        }
    }

    pub fn progress(&self) -> Progress {
        let done_ns: u64 = self
            .standing
            .windows()
            .iter()
            .map(|w| w.length_ns(self.now_ns))
            .sum();
        let schedule = &self.standing.opened().plan.schedule;
        let sum = |segments: &[Segment], only_down: bool| -> u64 {
            let counted = segments
                .iter()
                .filter(|s| !only_down || s.kind == SegmentKind::RampDown);
            counted.map(|s| s.duration_ns).sum()
        };
        let stopping = self.stopping().is_some();
        let left_ns = match self.current {
            None => sum(schedule, false),
            Some((index, until_ns)) => {
                let current = match schedule.get(index) {
                    Some(s) if stopping && s.kind != SegmentKind::RampDown => 0,
                    // An order's end says more than a warm-up's limit should: it is bounded only loosely.
                    Some(s) => {
                        let limit = self
                            .window()
                            .map_or(until_ns, |w| w.start_ns.saturating_add(s.duration_ns));
                        until_ns.min(limit).saturating_sub(self.now_ns)
                    }
                    None => 0,
                };
                current + sum(schedule.get(index + 1..).unwrap_or_default(), stopping)
            }
        };
        let total = (done_ns + left_ns).max(1) as f64;
        Progress {
            done_ns,
            left_ns,
            share: done_ns as f64 / total,
        }
    }

    pub fn audits(&self) -> Audits {
        self.standing
            .devices()
            .iter()
            .fold(Audits::default(), |sum, d| Audits {
                audited: sum.audited + d.audited,
                gemms: sum.gemms + d.gemms,
                wrong: sum.wrong + d.mismatches,
            })
    }

    /// All devices in the plan's order.
    pub fn devices(&self) -> Vec<DeviceReading> {
        let mut all: Vec<DeviceReading> = (0..self.standing.devices().len())
            .map(|i| self.device(i))
            .collect();
        let planned = &self.standing.opened().plan.devices;
        let alike = |a: usize, b: usize| {
            planned[a].name == planned[b].name && planned[a].engine == planned[b].engine
        };
        // Devices of one kind are listed together by every engine: one pass for each kind.
        let mut kinds: Vec<usize> = Vec::new();
        for index in 0..all.len() {
            if !kinds.iter().any(|k| alike(*k, index)) {
                kinds.push(index);
            }
        }
        for kind in kinds {
            let members: Vec<usize> = (0..all.len()).filter(|i| alike(kind, *i)).collect();
            let working = members.iter().filter(|i| all[**i].state == State::Working);
            let mut rates: Vec<f64> = working.filter_map(|i| all[*i].rate_flop_per_s).collect();
            rates.sort_by(f64::total_cmp);
            let Some(median) = median(&rates).filter(|m| rates.len() > 1 && *m > 0.0) else {
                continue;
            };
            for member in members {
                all[member].against_peers = all[member].rate_flop_per_s.map(|r| r / median);
            }
        }
        all
    }

    fn device(&self, index: usize) -> DeviceReading {
        let run = &self.standing.devices()[index];
        let device = index as u32;
        let latest = |metric| self.standing.latest(device, metric);
        let (has_gemms, has_memory) = self
            .segment()
            .map_or((false, false), |s| (s.parts.gemms, s.parts.memory));
        let rate = |on: bool, rates: &dyn Fn(u64, u64) -> Option<f64>| {
            let (from, to) = self.recent(run)?;
            on.then(|| rates(from, to)).flatten()
        };
        DeviceReading {
            index: device,
            state: self.state(index),
            rate_flop_per_s: rate(has_gemms, &|from, to| {
                mean_rate(run.work.bin_ns(), run.work.rates(), from, to)
            }),
            memory_byte_per_s: rate(has_memory, &|from, to| {
                mean_rate(run.memory.bin_ns(), run.memory.rates(), from, to)
            }),
            against_peers: None,
            power_w: latest(Metric::PowerDraw).or_else(|| latest(Metric::PowerInstant)),
            temp_core_c: latest(Metric::TempCore),
            margin_k: latest(Metric::ThermalMargin),
            clock_hz: latest(Metric::ClockSm),
            reasons: self.reasons(device),
            mismatches: run.mismatches,
            faults: run.faults.len(),
        }
    }

    fn state(&self, index: usize) -> State {
        let run = &self.standing.devices()[index];
        let lost = |kind: FaultKind| !matches!(kind, FaultKind::Sensor | FaultKind::Journal);
        let fault = run.faults.iter().rev().find_map(|e| match e.what {
            What::Fault { kind, .. } if lost(kind) => Some(kind),
            _ => None,
        });
        match (fault, self.segment()) {
            (Some(kind), _) => State::Lost(kind),
            (None, Some(segment)) if index < segment.active => State::Working,
            _ => State::Waiting,
        }
    }

    /// The stretch that a device's recent rate is taken over.
    ///
    /// It ends with the last completed step, since what is under way is not known, unless that is so
    /// long ago that the device is at a stand: then its rate falls to zero.
    pub fn recent(&self, run: &DeviceRun) -> Option<(u64, u64)> {
        let start = self.window()?.start_ns;
        let quiet = self.now_ns.saturating_sub(run.last_end_ns) > RECENT_NS;
        let to = if quiet { self.now_ns } else { run.last_end_ns };
        let from = to.saturating_sub(RECENT_NS).max(start);
        (to > from).then_some((from, to))
    }

    /// Reasons that hold the clock down now; several may hold at once.
    fn reasons(&self, device: u32) -> Option<Vec<&'static str>> {
        let tables = self.standing.tables_of(device);
        let mut series = tables.flat_map(|t| t.table.series.iter().zip(&t.latest));
        let (_, mask) = series.find(|(s, v)| {
            s.kind == SeriesKind::Mask && s.metric == Metric::ThrottleFrac && v.is_finite()
        })?;
        let mask = *mask as u64;
        Some(
            REASONS
                .iter()
                .filter(|(bit, _)| mask >> bit & 1 == 1)
                .map(|(_, name)| *name)
                .collect(),
        )
    }

    /// Latest value of a sensor of the node, the highest where there are several.
    pub fn node(&self, metric: Metric) -> Option<f64> {
        let tables = self
            .standing
            .tables()
            .iter()
            .filter(|t| t.table.device.is_none());
        let series = tables.flat_map(|t| t.table.series.iter().zip(&t.latest));
        let values = series
            .filter(|(s, v)| s.metric == metric && s.kind == SeriesKind::Gauge && v.is_finite());
        values.map(|(_, v)| *v).max_by(f64::total_cmp)
    }

    /// Bus bandwidth of the open window's largest all-reduce, B/s: median time, payload · 2(n − 1)/n.
    pub fn bus_byte_per_s(&self) -> Option<f64> {
        let window = self.window()?;
        let (bytes, times) = window.group.ops.last_key_value()?;
        let median_s = times.get()?.quantile(0.5).filter(|t| *t > 0.0)?;
        let ranks = self.standing.members_at(self.now_ns).len();
        let factor = 2.0 * (ranks.checked_sub(1)? as f64) / ranks as f64;
        Some(*bytes as f64 / median_s * factor)
    }
}

/// Mean of a trace of rates between two instants, by overlap; bins that are not there yet count as zero.
pub fn mean_rate(
    bin_ns: u64,
    rates: impl Iterator<Item = f64>,
    from_ns: u64,
    to_ns: u64,
) -> Option<f64> {
    let length = to_ns.checked_sub(from_ns).filter(|l| *l > 0)?;
    let first = from_ns / bin_ns;
    let bins = rates.enumerate().skip(first as usize);
    let overlap = |index: usize| {
        let start = (index as u64).saturating_mul(bin_ns);
        let end = start.saturating_add(bin_ns).min(to_ns);
        end.saturating_sub(start.max(from_ns))
    };
    let inside = bins.take_while(|(i, _)| (*i as u64).saturating_mul(bin_ns) < to_ns);
    let work: f64 = inside.map(|(i, rate)| rate * overlap(i) as f64).sum();
    Some(work / length as f64)
}

/// Of sorted values; the lower of the two middle ones.
fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}
