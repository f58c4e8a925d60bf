//! Who is silent, and which limit is reached.
//!
//! A silence counts only while something is due: not in the rest of a pulse, not while the run itself
//! stood still, not before this process began. A limit is judged by the highest of all series of its
//! metric, and a series without a value is as lost as a sensor that says nothing.

use super::{Duty, Run, Worker};
use hallmark_kernels::collective::LEAST_PATIENCE;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::quantity::Quantity;
use hallmark_profiles::units::human;
use hallmark_results::frame::{FaultKind, SeriesKind, Table, What};
use hallmark_results::standing::TableRun;
use std::time::Duration;

/// A device without a completed step for this long is silent, unless its steps are known to take longer:
/// with the time until its rows arrive and the clock is looked at, it is found within five seconds.
pub const SILENCE_NS: u64 = 4_600_000_000;
/// A rank that waits for others in an all-reduce gives up by itself first; this bounds what is left.
pub const GROUP_SILENCE_NS: u64 = 9_000_000_000;
/// Longest wait for a rank to take its place; those that wait for it give up by themselves first. The first time
/// memory is mapped on the way.
const REGROUP_SILENCE_NS: u64 = 20_000_000_000;
const FIRST_GROUP_SILENCE_NS: u64 = 60_000_000_000;
/// Times that a step may take of what it took before, or is expected to take.
const PATIENCE: u64 = 4;
/// Of those, the ones that a rank waits for the others of its group: it gives up before it is called silent itself.
const GROUP_PATIENCE: u32 = 3;
/// Longest expectation that is believed.
const EXPECTED_NS_MAX: u64 = 600_000_000_000;
/// Between two looks at all sensors of a hall for one that says nothing any more, which takes minutes to be one.
const SENSORS_EVERY_NS: u64 = 1_000_000_000;
/// A stretch at a stand that the record mentions.
const MENTIONED_NS: u64 = 1_000_000_000;

impl Run {
    /// Looks at the clock; a stretch in which the run itself stood still goes into the record.
    pub(super) fn look(&mut self, now_ns: u64) {
        let Some(stood_ns) = self.awake.look(now_ns).filter(|ns| *ns >= MENTIONED_NS) else {
            return;
        };
        let what = format!(
            "the run itself stood still for {:.1} s; that time counts as nobody's silence",
            stood_ns as f64 / 1e9
        );
        self.event(now_ns, None, What::Decision { what });
    }

    /// A worker has nothing to do until then; believed as far as the plan's pulse rests.
    pub(super) fn rest(&mut self, device: u32, until_ns: u64, now_ns: u64) {
        let segment = self.segment.and_then(|s| self.plan.schedule.get(s));
        let Some(pulse) = segment.and_then(|s| s.pulse) else {
            return;
        };
        let period_ns = (1e9 / pulse.frequency.value.max(1e-6)) as u64;
        let due_ns = until_ns.min(now_ns.saturating_add(period_ns));
        if let Some(worker) = self.workers.get_mut(device as usize) {
            worker.progress_ns = worker.progress_ns.max(due_ns);
        }
    }

    /// Nothing is known of a device whose node is not heard; the node's silence is told by whoever listens to it.
    pub(super) fn unreached(&mut self, device: u32, now_ns: u64) {
        if let Some(worker) = self.workers.get_mut(device as usize) {
            worker.progress_ns = worker.progress_ns.max(now_ns);
        }
    }

    /// The longest step that any of these has done, or is expected to take.
    fn longest_ns(&self, members: &[u32]) -> u64 {
        let known = members
            .iter()
            .filter_map(|m| self.workers.get(*m as usize))
            .flat_map(|w| w.expected_ns.iter().copied().chain([w.longest_step_ns]));
        known.max().unwrap_or(0).min(EXPECTED_NS_MAX)
    }

    /// How long each of these waits for the others before it gives the group up.
    pub(super) fn patience(&self, members: &[u32]) -> Duration {
        LEAST_PATIENCE.max(Duration::from_nanos(self.longest_ns(members)) * GROUP_PATIENCE)
    }

    /// All ranks were there and their all-reduce came to no end: what lies between the nodes is at fault. Told once for a
    /// formation; one that fails before any work, or of which a device is lost, is told of otherwise.
    pub(super) fn hung(&mut self, why: &str, missing: &[u32], now_ns: u64) {
        let whole = self.group.iter().all(|d| {
            let worker = self.workers.get(*d as usize);
            worker.is_some_and(|w| w.duty != Duty::Dead)
        });
        let known = self.told_hung == self.generation;
        if self.many_nodes && missing.is_empty() && whole && !known {
            self.told_hung = self.generation;
            let kind = FaultKind::Collective;
            let detail = format!("no all-reduce between the nodes any more: {why}");
            self.event(now_ns, None, What::Fault { kind, detail });
        }
    }

    /// Declares silent what has shown no completed step for too long.
    pub(super) fn watch(&mut self, now_ns: u64) {
        // A fast rank's step lasts as long as the slowest rank's.
        let (least, group_ns) = if self.coupled() {
            (GROUP_SILENCE_NS, self.longest_ns(&self.group))
        } else {
            (SILENCE_NS, 0)
        };
        let segment = self.segment.and_then(|s| self.plan.schedule.get(s));
        let step = segment.map_or(0, |s| s.step);
        let silent = self.workers.iter().enumerate().filter_map(|(device, w)| {
            // The first step of a kind has only the expectation to go by, every later one those before it.
            let known_ns = match w.longest_step_ns {
                0 => w.expected_ns.get(step).copied().unwrap_or(0),
                longest => longest,
            };
            let known_ns = known_ns.max(group_ns);
            let limit = match w.duty {
                Duty::Busy => least.max(known_ns.min(EXPECTED_NS_MAX).saturating_mul(PATIENCE)),
                // Nodes find each other anew for each formation.
                Duty::Regrouping if self.generation > 1 && !self.many_nodes => REGROUP_SILENCE_NS,
                Duty::Regrouping => FIRST_GROUP_SILENCE_NS,
                Duty::Idle | Duty::Broken | Duty::Dead => return None,
            };
            let quiet = self.awake.since(w.progress_ns, now_ns);
            let what = if w.duty == Duty::Busy {
                "no completed step"
            } else {
                "no place taken in the group"
            };
            (quiet > limit).then_some((device as u32, what, quiet))
        });
        for (device, what, quiet) in silent.collect::<Vec<_>>() {
            let detail = format!("{what} for {:.1} s", quiet as f64 / 1e9);
            self.lose(device, FaultKind::Silent, detail, now_ns);
        }
    }

    /// Stops where a sensor shows more than the profile allows, or no longer shows anything.
    pub(super) fn limits(&mut self, now_ns: u64) {
        if self.stopping.is_some() || self.finished {
            return;
        }
        let mut why = self.tripped();
        if why.is_none() && now_ns >= self.sensors_due_ns {
            self.sensors_due_ns = now_ns.saturating_add(SENSORS_EVERY_NS);
            why = self.lost_sensor(now_ns);
        }
        if let Some(why) = why {
            self.stop(why, now_ns);
        }
    }

    fn guarded(&self) -> [(Metric, Option<Quantity>); 2] {
        let stop = &self.plan.stop_when;
        [
            (Metric::TempCore, stop.temp_core_above),
            (Metric::PowerDraw, stop.power_draw_above),
        ]
    }

    /// Tables that this process fills.
    fn own_tables(&self) -> impl Iterator<Item = &TableRun> {
        let ids = self.tables.values().flatten();
        ids.filter_map(|id| self.standing.tables().get(*id as usize))
    }

    fn tripped(&self) -> Option<String> {
        for (metric, limit) in self.guarded() {
            let Some(limit) = limit else { continue };
            for run in self.own_tables() {
                let Some(device) = run.table.device else {
                    continue;
                };
                let of_metric = run
                    .table
                    .series
                    .iter()
                    .zip(run.latest.iter().zip(&run.valued_ns));
                let highest = of_metric
                    .filter(|(s, _)| s.metric == metric && s.kind != SeriesKind::Counter)
                    .filter(|(_, (_, at))| at.is_some_and(|at| at >= self.start_ns))
                    .map(|(_, (value, _))| *value)
                    .filter(|v| v.is_finite())
                    .reduce(f64::max);
                if let Some(value) = highest.filter(|v| *v > limit.value) {
                    return Some(format!(
                        "{metric} of {} reads {}, above {limit}",
                        self.plan.devices[device as usize].id,
                        human(value, limit.unit),
                    ));
                }
            }
        }
        None
    }

    /// A series that gave values and gives none any more; one that a limit rests on must have given some.
    fn lost_sensor(&self, now_ns: u64) -> Option<String> {
        let limit = self.plan.stop_when.sensor_lost_for?;
        let limit_ns = limit.duration().as_nanos() as u64;
        let guarded = self.guarded();
        let rests_on = |m: Metric| guarded.iter().any(|(g, limit)| *g == m && limit.is_some());
        for run in self.own_tables() {
            for (series, valued_ns) in run.table.series.iter().zip(&run.valued_ns) {
                let in_time = valued_ns.filter(|at| *at >= self.start_ns);
                if in_time.is_none() && valued_ns.is_none() && !rests_on(series.metric) {
                    // It never gave a value: absent, which coverage shows, and not lost.
                    continue;
                }
                let since_ns = in_time.unwrap_or(self.start_ns);
                let quiet = self.awake.since(since_ns, now_ns);
                if quiet > limit_ns && !self.is_gone(&run.table, since_ns) {
                    return Some(format!(
                        "{} has had no {} for {:.0} s",
                        run.table.name,
                        series.metric,
                        quiet as f64 / 1e9
                    ));
                }
            }
        }
        None
    }

    /// Whether all devices that a table belongs to are dead, or have shown no work since its readings ended: that is
    /// their own fault, which [`Self::watch`] tells, and the others go on.
    fn is_gone(&self, table: &Table, since_ns: u64) -> bool {
        let devices = self.plan.devices.iter().zip(&self.workers).enumerate();
        let mut own = devices.filter(|(index, (device, _))| match table.device {
            Some(of) => of as usize == *index,
            None => !device.node.is_empty() && device.node == table.place,
        });
        let gone = |worker: &Worker| {
            let last_step_ns = worker.longest_step_ns.min(EXPECTED_NS_MAX);
            let still_ns = since_ns.saturating_add(SILENCE_NS.saturating_add(last_step_ns));
            let silent = worker.duty != Duty::Idle && worker.progress_ns <= still_ns;
            worker.duty == Duty::Dead || silent
        };
        let mut any = false;
        let all = own.all(|(_, (_, worker))| {
            any = true;
            gone(worker)
        });
        any && all
    }
}
