//! The course of an invented run: segments, steps, samples and what goes wrong.
//!
//! Chance comes from one seed, so that the same run is the same frames.

use super::{Invented, SECOND_NS, Tale};
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{
    Event, FaultKind, Frame, OpRow, Samples, Series, SeriesKind, StepRow, Steps, Table, What,
};
use hallmark_results::plan::Segment;
use hallmark_results::stats::bootstrap::SplitMix64;

/// When the last device of a broken run loses its cooling, and when it dies.
const HOT_NS: u64 = 36 * SECOND_NS;
const DEAD_NS: u64 = 47 * SECOND_NS;
/// The stretch in which a sensor says nothing.
const SILENT_NS: [u64; 2] = [30 * SECOND_NS, 31 * SECOND_NS];
/// Devices from which on everything happens less often: a hall need not take minutes to test.
const CROWD: usize = 64;

struct Chance(SplitMix64);

impl Chance {
    /// Evenly from −0.5 to 0.5.
    fn noise(&mut self) -> f64 {
        self.0.unit() - 0.5
    }
}

fn event(at_ns: u64, device: Option<u32>, what: What) -> Frame {
    Frame::Event(Event {
        at_ns,
        device,
        what,
    })
}

impl Invented {
    /// All frames between the first and the last.
    pub(super) fn course(&self) -> Vec<Frame> {
        let mut chance = Chance(SplitMix64::new(7));
        let mut frames = self.tables();
        frames.extend(self.as_found());
        let end_ns = self.end_ns();
        let (mut start, mut seq) = (0, 0);
        for (index, segment) in self.schedule().iter().enumerate() {
            if start >= end_ns {
                break;
            }
            let what = What::Segment {
                index: index as u32,
            };
            frames.push(event(start, None, what));
            let stop = (start + segment.duration_ns).min(end_ns);
            let mut now = start;
            while now < stop {
                let next = (now + self.step_ns(segment, &mut chance)).min(stop);
                let devices = 0..segment.active;
                frames.extend(
                    devices.filter_map(|d| {
                        self.step(segment, index, d, (seq, now, next), &mut chance)
                    }),
                );
                (now, seq) = (next, seq + 1);
            }
            start = stop;
        }
        frames.extend(self.samples(&mut chance));
        frames.extend(self.mishaps());
        frames
    }

    const fn crowded(&self) -> bool {
        self.devices > CROWD
    }

    fn step_ns(&self, segment: &Segment, chance: &mut Chance) -> u64 {
        let usual_ms = match (segment.parts.gemms, segment.parts.buckets) {
            (true, true) => 132.0,
            (true, false) => 112.0,
            _ => 40.0,
        };
        let rare = if chance.noise() > 0.492 { 1.35 } else { 1.0 };
        let crowd = if self.crowded() { 8.0 } else { 1.0 };
        (crowd * rare * usual_ms * 1e6 * (1.0 + 0.03 * chance.noise().abs())) as u64
    }

    fn is_last(&self, device: usize) -> bool {
        device + 1 == self.devices
    }

    fn is_hot(&self, device: usize, at_ns: u64) -> bool {
        self.tale == Tale::Broken && self.is_last(device) && at_ns > HOT_NS
    }

    /// A device's rate, as a part of what its kind has.
    fn own_rate(&self, device: usize, at_ns: u64) -> f64 {
        let unsettled = self.tale == Tale::Unshown && self.is_last(device) && self.devices > 1;
        if self.is_hot(device, at_ns) {
            0.81
        } else if unsettled {
            // By turns above and below what its peers allow, a few seconds each.
            if (at_ns / (2 * SECOND_NS)).is_multiple_of(2) {
                0.93
            } else {
                0.97
            }
        } else {
            1.0 - 0.0015 * (device % 8) as f64
        }
    }

    fn step(
        &self,
        segment: &Segment,
        index: usize,
        device: usize,
        (seq, start, end): (u64, u64, u64),
        chance: &mut Chance,
    ) -> Option<Frame> {
        let hot = self.is_hot(device, start);
        if hot && start > DEAD_NS {
            return None;
        }
        let length = (end - start) as f64;
        let parts = segment.parts;
        let own = self.own_rate(device, start);
        let flop = if parts.gemms {
            6.2e14 * own * length / 1e9 * (1.0 + 0.004 * chance.noise())
        } else {
            0.0
        };
        let share = if hot {
            0.96
        } else {
            0.8 + 0.015 * chance.noise()
        };
        let reduces = parts.buckets && !parts.memory;
        let ops = if reduces && device == 0 {
            let op = |part: u64| OpRow {
                seq,
                start_ns: start + part * 5_000_000,
                end_ns: start + part * 5_000_000 + ((1.0 + 0.25 * chance.noise()) * 2.3e6) as u64,
                bytes: 25 << 20,
            };
            (0..3).map(op).collect()
        } else {
            Vec::new()
        };
        let row = StepRow {
            seq,
            segment: index as u32,
            due_ns: start,
            start_ns: start + 20_000,
            end_ns: end,
            compute_ns: if parts.gemms {
                (length * share) as u64
            } else {
                0
            },
            reduce_ns: if reduces { 7_000_000 } else { 0 },
            optimizer_ns: if parts.optimizer { 2_000_000 } else { 0 },
            flop,
            gemms: if parts.gemms { 24 } else { 0 },
            audited: if parts.gemms { 3 } else { 0 },
            audited_flop: flop / 8.0,
            reduced_bytes: if reduces { 75 << 20 } else { 0 },
            memory_bytes: if parts.memory {
                (length * 2.9e3) as u64
            } else {
                0
            },
            memory_ns: if parts.memory { length as u64 } else { 0 },
            skew_ns: 0,
        };
        Some(Frame::Steps(Steps {
            device: device as u32,
            device_clock: true,
            rows: vec![row],
            ops,
            trials: Vec::new(),
        }))
    }

    /// Sampled more seldom where there are many devices.
    fn period_ns(&self) -> u64 {
        if self.crowded() {
            2 * SECOND_NS
        } else {
            SECOND_NS / 10
        }
    }

    fn tables(&self) -> Vec<Frame> {
        let gauge = |metric: Metric, label: &str, averaging_ns, accuracy: Option<&str>| Series {
            metric,
            label: self.named(label),
            unit: metric.spec().unit,
            kind: SeriesKind::Gauge,
            averaging_ns,
            accuracy: accuracy.map(|a| self.named(a)),
        };
        let table = |id: usize, name: String, source: &str, device: Option<u32>, series| Table {
            id: id as u32,
            name,
            source: self.named(source),
            provenance: self.provenance,
            device,
            place: self.node(device.unwrap_or(0) as usize),
            period_ns: self.period_ns(),
            series,
        };
        let load = vec![gauge(Metric::CpuLoad, "", None, None)];
        let node = table(0, "cpu".to_owned(), "/proc/stat", None, load);
        let device = |index: usize| {
            let series = vec![
                gauge(Metric::PowerDraw, "", Some(SECOND_NS), Some("±5 W")),
                gauge(Metric::TempCore, "", Some(0), Some("±1 °C")),
                gauge(Metric::ClockSm, "", Some(0), None),
                gauge(Metric::ThrottleFrac, "hw_thermal", None, None),
                gauge(Metric::PowerCapFrac, "sw_power_cap", None, None),
            ];
            let (name, device) = (format!("nvml-{index}"), Some(index as u32));
            table(index + 1, name, "NVML 13.580.95", device, series)
        };
        let all = std::iter::once(node).chain((0..self.devices).map(device));
        all.map(Frame::Table).collect()
    }

    fn as_found(&self) -> Vec<Frame> {
        let found = |device: Option<u32>, key: &str, value: &str| {
            let (key, value) = (self.named(key), self.named(value));
            event(0, device, What::AsFound { key, value })
        };
        let mut frames = vec![
            found(None, "driver", "580.95.05"),
            found(None, "governor", "performance"),
            event(
                0,
                None,
                What::Absent {
                    what: self.named("power of the rack"),
                    why: self.named("no PDU was named"),
                    remedy: self.named("replay its meter with --replay"),
                },
            ),
        ];
        for device in 0..self.devices as u32 {
            let limit = if device == 1 && self.tale == Tale::Broken {
                "650 W"
            } else {
                "700 W"
            };
            frames.push(found(Some(device), "power_limit", limit));
            let detail = self.named("the flipped bit was caught");
            let passed = true;
            frames.push(event(5, Some(device), What::SelfTest { passed, detail }));
        }
        let steady = match self.tale {
            Tale::Unshown => What::NeverSteady {
                why: self.named("the core temperature still rose by 7.2 K a minute after 9 s"),
            },
            _ => What::Steady,
        };
        frames.push(event(10 * SECOND_NS, None, steady));
        frames
    }

    fn samples(&self, chance: &mut Chance) -> Vec<Frame> {
        let period = self.period_ns();
        let times: Vec<u64> = (0..self.end_ns() / period)
            .map(|i| i * period + period / 3)
            .collect();
        let mut frames = Vec::new();
        for device in 0..self.devices {
            let mut out = Samples {
                table: device as u32 + 1,
                at_ns: Vec::new(),
                columns: vec![Vec::new(); 5],
            };
            for &at in &times {
                let silent = self.tale == Tale::Unshown && device == 0;
                if silent && (SILENT_NS[0]..SILENT_NS[1]).contains(&at) {
                    continue;
                }
                let rise = 1.0 - (-(at as f64) / 4e9).exp();
                let hot = self.is_hot(device, at);
                let dead = hot && at > DEAD_NS;
                let since_hot = at.saturating_sub(HOT_NS) as f64 / 1e9;
                let heat = if hot {
                    26.0 * (1.0 - (-since_hot / 3.0).exp())
                } else {
                    0.0
                };
                let power = 110.0
                    + 575.0
                        * rise
                        * if dead {
                            0.1
                        } else if hot {
                            0.84
                        } else {
                            1.0
                        };
                out.at_ns.push(at);
                let row = [
                    power + 14.0 * chance.noise(),
                    34.0 + 29.0 * rise + (device % 8) as f64 * 0.6 + heat + 0.8 * chance.noise(),
                    if hot { 1.45e9 } else { 1.68e9 } + 1.2e7 * chance.noise(),
                    if hot { 0.5 + 0.3 * chance.noise() } else { 0.0 },
                    0.22 + 0.1 * chance.noise(),
                ];
                for (column, value) in out.columns.iter_mut().zip(row) {
                    column.push(value);
                }
            }
            frames.push(Frame::Samples(out));
        }
        let load = times.iter().map(|_| 23.0 + 6.0 * chance.noise()).collect();
        frames.push(Frame::Samples(Samples {
            table: 0,
            at_ns: times,
            columns: vec![load],
        }));
        frames
    }

    fn mishaps(&self) -> Vec<Frame> {
        let last = self.devices as u32 - 1;
        match self.tale {
            Tale::Good => Vec::new(),
            Tale::Broken => vec![
                event(
                    DEAD_NS - 2 * SECOND_NS,
                    Some(last),
                    What::Mismatch {
                        detail: self.named("element 7 of 262144 differs by 64"),
                    },
                ),
                event(
                    DEAD_NS,
                    Some(last),
                    What::Fault {
                        kind: FaultKind::WorkerDied,
                        detail: self.named("its worker was ended by signal 11"),
                    },
                ),
                event(
                    DEAD_NS + SECOND_NS / 2,
                    None,
                    What::Regrouped {
                        generation: 1,
                        members: (0..last).collect(),
                        stalled_ns: SECOND_NS / 2,
                    },
                ),
            ],
            Tale::Unshown => vec![event(
                SILENT_NS[1],
                Some(0),
                What::Gap {
                    table: 1,
                    from_ns: SILENT_NS[0],
                    reason: self.named("NVML: the call timed out"),
                },
            )],
        }
    }
}
