//! Devices that know nothing of each other, and sensors that each keep a period of their own.
//!
//! The simplest hall: a step takes what its device says, an all-reduce what the rank's device says.

use super::{Asked, Hall};
use crate::run::Input;
use crate::sensor::Sensor;
use crate::shell::probes::{Batch, next_due};
use hallmark_kernels::work::{Span, StepDone, Work};
use hallmark_results::frame::Table;
use hallmark_results::plan::Plan;
use hallmark_results::stats::bootstrap::SplitMix64;

/// What a simulated device does.
pub trait Physics {
    /// Time that the matmuls of this step take from now; `None` when the device never answers again.
    fn compute_ns(&mut self, seq: u64, now_ns: u64) -> Option<u64>;

    /// Time of the step's all-reduce once all ranks have come.
    fn reduce_ns(&self) -> u64;

    /// About how long a step takes, as a worker estimates before the first; 0 where it cannot.
    fn expected_ns(&self) -> u64 {
        0
    }
}

/// A simulated sensor and the table it fills.
pub struct Gauge {
    pub table: Table,
    pub sensor: Box<dyn Sensor>,
}

struct Watched {
    gauge: Gauge,
    batch: Batch,
    due_ns: u64,
    random: SplitMix64,
}

/// Devices and sensors side by side.
pub struct Separate {
    physics: Vec<Box<dyn Physics>>,
    sensors: Vec<Watched>,
}

impl Separate {
    pub(super) fn new(plan: &Plan, physics: Vec<Box<dyn Physics>>, gauges: Vec<Gauge>) -> Self {
        let watched = |gauge: Gauge| Watched {
            batch: Batch::new(gauge.table.id, gauge.table.series.len()),
            due_ns: 0,
            random: SplitMix64::new(plan.seed ^ u64::from(gauge.table.id)),
            gauge,
        };
        Self {
            physics,
            sensors: gauges.into_iter().map(watched).collect(),
        }
    }
}

impl Hall for Separate {
    fn tables(&self) -> Vec<Table> {
        let tables = self.sensors.iter().map(|s| s.gauge.table.clone());
        tables.collect()
    }

    fn expected_ns(&self, device: usize, _step: usize) -> u64 {
        self.physics[device].expected_ns()
    }

    fn begin(&mut self, device: usize, asked: &Asked, start_ns: u64) -> Option<u64> {
        let took = self.physics[device].compute_ns(asked.seq, start_ns)?;
        Some(start_ns + took)
    }

    fn reduced(&mut self, device: usize, _asked: &Asked, last_ns: u64) -> u64 {
        last_ns + self.physics[device].reduce_ns()
    }

    fn tell(&mut self, _device: usize, asked: &Asked, own_ns: u64, done: &mut StepDone) {
        let spec = asked.spec;
        let gemms = asked.parts.gemms;
        if gemms {
            done.spans.push(Span {
                work: Work::Matmul,
                start_ns: done.start_ns,
                end_ns: own_ns,
                amount: spec.flop().0,
            });
        }
        let reduces = asked.parts.buckets && asked.coupled && done.collective_fault.is_none();
        for bucket in spec.buckets.iter().filter(|_| reduces) {
            done.spans.push(Span {
                work: Work::AllReduce,
                start_ns: own_ns,
                end_ns: done.end_ns,
                amount: bucket.bytes.0 as f64,
            });
        }
        done.gemms = if gemms { spec.gemms.len() as u32 } else { 0 };
        // The share that would have been audited; there is no result to be wrong.
        done.audited = (f64::from(done.gemms) * spec.audit_share).ceil() as u32;
        done.audited_flop = spec.flop().0 * f64::from(done.audited) / f64::from(done.gemms.max(1));
    }

    fn next_ns(&self) -> u64 {
        let due = self.sensors.iter().map(|s| s.due_ns);
        due.min().unwrap_or(u64::MAX)
    }

    fn sense(&mut self, now_ns: u64, inputs: &mut dyn FnMut(Input)) {
        for watched in &mut self.sensors {
            if watched.due_ns > now_ns {
                continue;
            }
            let reading = watched.gauge.sensor.read(now_ns);
            let device = watched.gauge.table.device;
            for what in watched.batch.add(now_ns, reading) {
                inputs(Input::Event(what, device));
            }
            if let Some(rows) = watched.batch.take(now_ns, false) {
                inputs(Input::Samples(rows));
            }
            let period = watched.gauge.table.period_ns;
            watched.due_ns = next_due(watched.due_ns, now_ns, period, &mut watched.random);
        }
    }

    fn rest(&mut self, inputs: &mut dyn FnMut(Input)) {
        for watched in &mut self.sensors {
            if let Some(rows) = watched.batch.take(u64::MAX, true) {
                inputs(Input::Samples(rows));
            }
        }
    }
}
