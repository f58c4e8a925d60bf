//! The worker process: one device, driven at its own pace, its results on a pipe.
//!
//! A hang, a signal or an abort in a driver ends this process and nothing else. It decides when to
//! queue and retire (through [`crate::load::Driver`]), never what is acceptable.

use crate::clock::RunClock;
use crate::engines;
use crate::load::{Act, Driver};
use crate::protocol::{self, FromWorker, Group, ToWorker};
use hallmark_kernels::backend::{Device, PreparedStep};
use hallmark_kernels::collective::Collective;
use hallmark_kernels::collective::host::{HostCollective, Region};
use hallmark_kernels::error::KernelError;
use hallmark_kernels::timer::{Timer, now_ns};
use hallmark_kernels::work::{StepDone, Submission, bucket_layout};
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Dtype, Gemm, Parts, StepSpec};
use hallmark_results::frame::{FaultKind, OpRow, StepRow, Steps, TrialRow};
use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel,
};
use std::time::Duration;

mod memory;

/// Rows are sent at least this often.
const BATCH_NS: u64 = 200_000_000;
/// Reports that wait for a run that does not listen, a quarter of an hour of them; the device then waits too,
/// since work that nobody records is none.
const REPORTS_MAX: usize = 4_096;
/// Longest wait for one step before the driver looks at its messages again.
const PATIENCE: Duration = Duration::from_millis(50);
/// A rest longer than this is told, so that nobody takes it for a silence.
const REST_NS: u64 = 1_000_000_000;
/// Bytes per second that even a slow memory moves: only for what a step is expected to take at most.
const SLOW_BYTE_PER_S: u64 = 1_000_000_000;
/// Steps of the probe, at least and at most, and how long it goes on between them.
const PROBES: Range<u64> = 5..200;
const PROBE_NS: u64 = 300_000_000;
/// Times that nodes may need to sum under load of what they needed in the trial.
const NODES_MARGIN: f64 = 4.0;
/// Times that an operation of a sweep and its check pass over its payload, rather too many.
const SWEEP_PASSES: u64 = 16;

/// Why a worker ends before it is told to.
#[derive(Debug, thiserror::Error)]
enum WorkerError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("{0}")]
    Order(String),
}

/// Runs a worker on its standard input and output until it is told to quit or the pipe closes.
pub fn main(input: impl Read + Send + 'static, output: impl Write + Send + 'static) {
    let (orders, inbox) = channel();
    let (outbox, reports) = sync_channel(REPORTS_MAX);
    let _reader = std::thread::spawn(move || read_orders(input, &orders));
    let writer = std::thread::spawn(move || write_reports(output, &reports));
    let mut worker = Worker {
        inbox,
        outbox,
        clock: RunClock::with_epoch(0),
        index: 0,
    };
    if let Err(error) = worker.serve() {
        let kind = match &error {
            WorkerError::Kernel(KernelError::Collective(_)) => FaultKind::Collective,
            _ => FaultKind::Device,
        };
        worker.say(FromWorker::Fault {
            kind,
            detail: error.to_string(),
        });
    }
    drop(worker);
    let _ = writer.join();
}

fn read_orders(mut input: impl Read, orders: &Sender<ToWorker>) {
    // A pipe that closes or breaks ends the inbox, and with it the worker: no orphan keeps a device busy.
    while let Ok(Some(order)) = protocol::receive(&mut input) {
        if orders.send(order).is_err() {
            return;
        }
    }
}

fn write_reports(mut output: impl Write, reports: &Receiver<FromWorker>) {
    for report in reports {
        if protocol::send(&mut output, &report).is_err() {
            return;
        }
    }
}

struct Worker {
    inbox: Receiver<ToWorker>,
    outbox: SyncSender<FromWorker>,
    clock: RunClock,
    index: u32,
}

/// Everything prepared, and what has been done since the last report.
struct Bench {
    steps: Vec<Box<dyn PreparedStep>>,
    /// Indices of the steps that reduce, ascending: every rank forms their groups in this order.
    grouped: Vec<usize>,
    driver: Driver,
    rows: Vec<StepRow>,
    ops: Vec<OpRow>,
    trials: Vec<TrialRow>,
    device_clock: bool,
    flushed_ns: u64,
    /// Why the latest all-reduce failed, and who was missing.
    broken: Option<(String, Vec<u32>)>,
}

impl Worker {
    fn say(&self, report: FromWorker) {
        // A run that no longer listens closes the inbox too; that ends the loop.
        let _ = self.outbox.send(report);
    }

    fn serve(&mut self) -> Result<(), WorkerError> {
        let Some(mut device) = self.open()? else {
            return Ok(());
        };
        let Some(mut bench) = self.prepare(device.as_mut())? else {
            return Ok(());
        };
        loop {
            let now = self.clock.now_ns();
            match bench.driver.poll(now) {
                Act::Submit(submission) => bench.current()?.submit(submission)?,
                Act::Retire => {
                    if let Some(done) = bench.current()?.retire(PATIENCE)? {
                        self.take(&mut bench, &done);
                    }
                }
                Act::Wait { until_ns } => {
                    self.flush(&mut bench);
                    if bench.driver.segment().is_some() && until_ns.saturating_sub(now) > REST_NS {
                        self.say(FromWorker::Resting { until_ns });
                    }
                    let wait = Duration::from_nanos(until_ns.saturating_sub(now))
                        .min(Duration::from_secs(3600));
                    let go_on = match self.inbox.recv_timeout(wait) {
                        Ok(order) => self.obey(&mut bench, order)?,
                        Err(error) => error == RecvTimeoutError::Timeout,
                    };
                    if !go_on {
                        return Ok(());
                    }
                    continue;
                }
                Act::Done {
                    segment,
                    next_seq,
                    broken,
                } => {
                    self.flush(&mut bench);
                    self.say(if broken {
                        let (why, missing) = bench.broken.take().unwrap_or_default();
                        FromWorker::Broken {
                            segment,
                            next_seq,
                            why,
                            missing,
                        }
                    } else {
                        FromWorker::Idle { segment, next_seq }
                    });
                }
            }
            if now.saturating_sub(bench.flushed_ns) > BATCH_NS {
                self.flush(&mut bench);
            }
            let go_on = match self.inbox.try_recv() {
                Ok(order) => self.obey(&mut bench, order)?,
                Err(error) => error == TryRecvError::Empty,
            };
            if !go_on {
                return Ok(());
            }
        }
    }

    fn open(&mut self) -> Result<Option<Box<dyn Device>>, WorkerError> {
        let Ok(ToWorker::Open {
            device,
            info,
            epoch_ns,
            probe,
            memory_test,
        }) = self.inbox.recv()
        else {
            return Ok(None);
        };
        self.index = device;
        self.clock = RunClock::with_epoch(epoch_ns);
        pin(&info.cores);
        let engine = engines::find(&info.engine).ok_or_else(|| {
            WorkerError::Order(format!("this build has no engine `{}`", info.engine))
        })?;
        let mut open = engine.open(&info)?;
        let memory = match memory_test {
            true => Some(memory::test(open.as_mut())?),
            false => None,
        };
        let (fact, memory_faults) = memory.map_or((None, Vec::new()), |m| (Some(m.fact), m.wrong));
        let probe = if probe {
            Some(rate(open.as_mut())?)
        } else {
            None
        };
        let mut info = open.info().clone();
        info.facts.extend(fact);
        self.say(FromWorker::Opened {
            info: Box::new(info),
            free_bytes: open.free_memory().0,
            probe,
            memory_faults,
        });
        Ok(Some(open))
    }

    fn prepare(&mut self, device: &mut dyn Device) -> Result<Option<Bench>, WorkerError> {
        let Ok(ToWorker::Prepare {
            steps: specs,
            groups,
            queue_depth,
        }) = self.inbox.recv()
        else {
            return Ok(None);
        };
        let mut transport = None;
        let mut facts = Vec::new();
        let mut steps = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            let collective = match groups.iter().find(|g| g.step == index) {
                Some(group) => Some(attach(group, spec)?),
                None => None,
            };
            if let Some(collective) = &collective {
                transport = Some(collective.transport().to_owned());
            }
            let step = device.prepare(spec, collective)?;
            facts.extend(
                step.facts()
                    .into_iter()
                    .map(|(key, value)| (format!("step {index} {key}"), value)),
            );
            steps.push(step);
        }
        let began_ns = self.clock.now_ns();
        let (self_test_passed, self_test) = self_test(&specs, &mut steps)?;
        let test_ns = self.clock.now_ns().saturating_sub(began_ns);
        self.say(FromWorker::Prepared {
            self_test_passed,
            self_test,
            transport,
            expected_ns: expected(&specs, &groups, test_ns),
            facts,
        });
        let grouped = (0..steps.len()).filter(|s| groups.iter().any(|g| g.step == *s));
        Ok(Some(Bench {
            grouped: grouped.collect(),
            steps,
            driver: Driver::new(queue_depth),
            rows: Vec::new(),
            ops: Vec::new(),
            trials: Vec::new(),
            device_clock: true,
            flushed_ns: 0,
            broken: None,
        }))
    }

    /// Carries out an order; false means to end.
    fn obey(&self, bench: &mut Bench, order: ToWorker) -> Result<bool, WorkerError> {
        match order {
            ToWorker::Start(order) => {
                if order.step >= bench.steps.len() {
                    return Err(WorkerError::Order(format!(
                        "no step {} was prepared",
                        order.step
                    )));
                }
                bench.driver.start(order, self.clock.now_ns());
            }
            ToWorker::Stop => bench.driver.stop(),
            ToWorker::Regroup {
                generation,
                members,
                patience,
            } => {
                let mut formed = Ok(());
                for &index in &bench.grouped {
                    if let (Ok(()), Some(step)) = (&formed, bench.steps.get_mut(index)) {
                        formed = step.regroup(generation, &members, patience);
                    }
                }
                self.say(match formed {
                    Ok(()) => FromWorker::Regrouped { generation },
                    Err(error @ (KernelError::Lost { .. } | KernelError::Hung { .. })) => {
                        return Err(error.into());
                    }
                    // A rank that others do not meet is not broken itself: it waits for the next formation.
                    Err(error) => FromWorker::Broken {
                        segment: 0,
                        next_seq: 0,
                        why: error.to_string(),
                        missing: Vec::new(),
                    },
                });
            }
            ToWorker::Quit => return Ok(false),
            ToWorker::Open { .. } | ToWorker::Prepare { .. } => {
                return Err(WorkerError::Order(
                    "the device is open and prepared already".to_owned(),
                ));
            }
        }
        Ok(true)
    }

    fn take(&self, bench: &mut Bench, done: &StepDone) {
        for detail in &done.mismatches {
            self.say(FromWorker::Mismatch {
                at_ns: self.clock.at_ns(done.end_ns),
                detail: detail.clone(),
            });
        }
        if let Some(test) = &done.self_test {
            self.say(FromWorker::SelfTest {
                passed: test.clean_passed && test.flip_caught,
                detail: test.detail.clone(),
            });
        }
        bench.device_clock &= done.timer == Timer::DeviceEvent;
        let clock = self.clock;
        let failed = done.collective_fault.is_some();
        if let Some(why) = &done.collective_fault {
            bench
                .broken
                .get_or_insert((why.clone(), done.missing_ranks.clone()));
        }
        if let Some((row, ops, trials)) = bench.driver.retired(done, |t| clock.at_ns(t)) {
            // A step whose all-reduce failed is not a completed step; the fault is reported when the order ends.
            if !failed {
                bench.rows.push(row);
                bench.ops.extend(ops);
                bench.trials.extend(trials);
            }
        }
    }

    fn flush(&self, bench: &mut Bench) {
        bench.flushed_ns = self.clock.now_ns();
        if bench.rows.is_empty() {
            return;
        }
        self.say(FromWorker::Steps(Steps {
            device: self.index,
            device_clock: bench.device_clock,
            rows: std::mem::take(&mut bench.rows),
            ops: std::mem::take(&mut bench.ops),
            trials: std::mem::take(&mut bench.trials),
        }));
    }
}

impl Bench {
    fn current(&mut self) -> Result<&mut dyn PreparedStep, WorkerError> {
        let index = self.driver.step();
        match index.and_then(|i| self.steps.get_mut(i)) {
            Some(step) => Ok(step.as_mut()),
            None => Err(WorkerError::Order("no order is being worked on".to_owned())),
        }
    }
}

/// Takes this rank's place in the region; nobody is waited for, so that one who never comes holds nobody up.
fn attach(group: &Group, spec: &StepSpec) -> Result<Box<dyn Collective>, KernelError> {
    let region = Region::attach(&group.path, group.ranks, &bucket_layout(spec))?;
    let region = Arc::new(region);
    let attached = match group.hall {
        Some(hall) => HostCollective::attach_bridged(region, group.rank, hall.first, now_ns)?,
        None => HostCollective::attach(region, group.rank, now_ns)?,
    };
    Ok(Box::new(attached))
}

/// What each step takes at most, if matmuls go no slower than the self-test's one did, its checks included.
fn expected(specs: &[StepSpec], groups: &[Group], test_ns: u64) -> Vec<u64> {
    let tested = specs.iter().find_map(|s| s.gemms.first());
    let ns_per_flop = tested.map_or(0.0, |g| test_ns as f64 / g.flop().0.max(1.0));
    // Between nodes: as the trial went, which nothing else loaded.
    let beyond = groups.iter().find_map(|g| g.hall);
    let byte_per_s = beyond.map_or(f64::INFINITY, |b| b.bytes_per_s / NODES_MARGIN);
    let step = |spec: &StepSpec| {
        let payloads = spec.buckets.iter().map(|b| b.bytes.0);
        // Of a sweep one operation, not the whole visit: it is what ranks wait for each other.
        let between: u64 = match spec.sweep {
            Some(_) => payloads.max().unwrap_or(0),
            None => payloads.sum(),
        };
        // AdamW reads four arrays and writes three; copy and triad touch five.
        let mut bytes = spec.parameters * 28 + spec.memory.0 * 5;
        if spec.sweep.is_some() {
            bytes += between * SWEEP_PASSES;
        }
        let matmuls_ns = spec.flop().0 * ns_per_flop;
        let moves_s = bytes as f64 / SLOW_BYTE_PER_S as f64 + between as f64 / byte_per_s;
        (matmuls_ns + moves_s * 1e9) as u64
    };
    specs.iter().map(step).collect()
}

/// Runs the self-test of the first step that has matmuls.
fn self_test(
    specs: &[StepSpec],
    steps: &mut [Box<dyn PreparedStep>],
) -> Result<(bool, String), KernelError> {
    let with_matmul = specs.iter().position(|s| !s.gemms.is_empty());
    let Some(step) = with_matmul.and_then(|i| steps.get_mut(i)) else {
        return Ok((false, "no step has a matmul to test".to_owned()));
    };
    let test = step.self_test()?;
    Ok((test.clean_passed && test.flip_caught, test.detail))
}

/// FLOP/s of a small matmul, best of some steps: only to size a step, never a result.
///
/// Where devices share cores, each is probed while the others are too: it goes on until one step had the core alone.
fn rate(device: &mut dyn Device) -> Result<f64, KernelError> {
    let dtype = if device.info().dtypes.contains(&Dtype::F32) {
        Dtype::F32
    } else {
        device.info().dtypes.first().copied().unwrap_or(Dtype::F32)
    };
    let spec = StepSpec {
        dtype,
        gemms: vec![Gemm::new(384, 384, 384)],
        buckets: Vec::new(),
        parameters: 0,
        memory: Bytes(0),
        audit_share: 0.0,
        operand_pairs: 1,
        seed: 1,
        audit_seed: None,
        sweep: None,
    };
    let mut step = device.prepare(&spec, None)?;
    let parts = Parts {
        gemms: true,
        buckets: false,
        optimizer: false,
        memory: false,
        within_node: false,
    };
    let mut best = 0.0_f64;
    let began_ns = now_ns();
    for seq in 0..PROBES.end {
        if seq >= PROBES.start && now_ns().saturating_sub(began_ns) > PROBE_NS {
            break;
        }
        step.submit(Submission {
            seq,
            parts,
            stop: false,
        })?;
        let done = step.retire(Duration::from_secs(30))?;
        let Some(done) = done else { break };
        let elapsed = done.end_ns.saturating_sub(done.start_ns).max(1);
        best = best.max(spec.flop().0 * 1e9 / elapsed as f64);
    }
    Ok(best)
}

/// Keeps this process on the cores it was given, so that devices that share a processor share it as planned.
#[cfg(target_os = "linux")]
fn pin(cores: &[usize]) {
    if cores.is_empty() {
        return;
    }
    let mut set = rustix::thread::CpuSet::new();
    for &core in cores
        .iter()
        .filter(|c| **c < rustix::thread::CpuSet::MAX_CPU)
    {
        set.set(core);
    }
    // Refused inside a tighter cgroup: the pool then reports what it got.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

#[cfg(not(target_os = "linux"))]
fn pin(_cores: &[usize]) {}
