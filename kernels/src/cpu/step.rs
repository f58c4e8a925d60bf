//! A prepared step on a share of the processor: operands made once, then only queued and retired.
//!
//! One thread owns the core pool and runs steps in the order queued; the all-reduce of a bucket
//! starts on [`super::reduce`]'s thread as soon as the matmul that fills it has ended.

use super::matmul::{Shape, Workspace, matmul_bf16, matmul_f32};
use super::memory;
use super::pool::Pool;
use super::reduce::{Ask, Reducer};
use crate::audit::{self, Expected, Stream};
use crate::backend::{PreparedStep, SelfTest, pair_of};
use crate::collective::Collective;
use crate::device::DeviceInfo;
use crate::error::KernelError;
use crate::timer::{Timer, now_ns};
use crate::work::{Span, StepDone, Submission, Work};
use half::bf16;
use hallmark_profiles::workload::{AuditSeed, Dtype, Gemm, StepSpec};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

enum Order {
    Step(Submission),
    SelfTest,
    Regroup(u32, Vec<u32>, Duration),
}

enum Answer {
    Done(Box<StepDone>),
    SelfTest(SelfTest),
    Regrouped(Option<String>),
}

/// Handle to the thread that runs the steps.
pub struct CpuStep {
    device: String,
    asks: Option<Sender<Order>>,
    answers: Receiver<Result<Answer, KernelError>>,
    thread: Option<JoinHandle<()>>,
    in_flight: usize,
}

impl CpuStep {
    /// Fills operands and expectations; returns when the first step can be queued.
    pub fn new(
        info: &DeviceInfo,
        spec: &StepSpec,
        collective: Option<Box<dyn Collective>>,
    ) -> Result<Self, KernelError> {
        let (asks, inbox) = channel();
        let (outbox, answers) = channel();
        let (spec, cores, device) = (spec.clone(), info.cores.clone(), info.id.clone());
        let (ready, readied) = channel();
        let thread =
            std::thread::spawn(
                move || match Machine::new(device, spec, &cores, collective) {
                    Ok(mut machine) => {
                        let _ = ready.send(Ok(()));
                        work(&mut machine, &inbox, &outbox);
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                },
            );
        let step = Self {
            device: info.id.clone(),
            asks: Some(asks),
            answers,
            thread: Some(thread),
            in_flight: 0,
        };
        match readied.recv() {
            Ok(result) => result.map(|()| step),
            Err(_) => Err(step.gone()),
        }
    }

    fn gone(&self) -> KernelError {
        KernelError::Lost {
            device: self.device.clone(),
            why: "the thread that computes ended".to_owned(),
        }
    }

    fn ask(&self, ask: Order) -> Result<(), KernelError> {
        let sent = self.asks.as_ref().map(|asks| asks.send(ask));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(self.gone()),
        }
    }
}

impl Drop for CpuStep {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl PreparedStep for CpuStep {
    fn submit(&mut self, submission: Submission) -> Result<(), KernelError> {
        self.ask(Order::Step(submission))?;
        self.in_flight += 1;
        Ok(())
    }

    fn retire(&mut self, patience: Duration) -> Result<Option<StepDone>, KernelError> {
        if self.in_flight == 0 {
            return Ok(None);
        }
        match self.answers.recv_timeout(patience) {
            Ok(Ok(Answer::Done(done))) => {
                self.in_flight -= 1;
                Ok(Some(*done))
            }
            Ok(Ok(_)) | Err(RecvTimeoutError::Disconnected) => Err(self.gone()),
            Ok(Err(error)) => Err(error),
            Err(RecvTimeoutError::Timeout) => Ok(None),
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn self_test(&mut self) -> Result<SelfTest, KernelError> {
        self.ask(Order::SelfTest)?;
        match self.answers.recv() {
            Ok(Ok(Answer::SelfTest(test))) => Ok(test),
            Ok(Err(error)) => Err(error),
            _ => Err(self.gone()),
        }
    }

    fn regroup(
        &mut self,
        generation: u32,
        members: &[u32],
        patience: Duration,
    ) -> Result<(), KernelError> {
        self.ask(Order::Regroup(generation, members.to_vec(), patience))?;
        match self.answers.recv() {
            Ok(Ok(Answer::Regrouped(None))) => Ok(()),
            Ok(Ok(Answer::Regrouped(Some(what)))) => Err(KernelError::Device {
                device: self.device.clone(),
                what,
            }),
            Ok(Err(error)) => Err(error),
            _ => Err(self.gone()),
        }
    }
}

/// Serves what is asked, in order, until nobody asks or listens any more.
///
/// What is done is told once the next has begun, where one is queued: telling wakes the thread that waits, which on
/// a shared core may run at once, and its time and that of others then belong to a step instead of lying between two.
fn work(
    machine: &mut Machine,
    inbox: &Receiver<Order>,
    outbox: &Sender<Result<Answer, KernelError>>,
) {
    let mut untold = None;
    loop {
        let queued = inbox.try_recv();
        let start_ns = now_ns();
        if untold.take().is_some_and(|told| outbox.send(told).is_err()) {
            return;
        }
        let (ask, start_ns) = match queued {
            Ok(ask) => (ask, start_ns),
            Err(TryRecvError::Empty) => match inbox.recv() {
                Ok(ask) => (ask, now_ns()),
                Err(_) => return,
            },
            Err(TryRecvError::Disconnected) => return,
        };
        untold = Some(machine.serve(ask, start_ns));
    }
}

enum Operands {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Operands {
    fn new(dtype: Dtype, length: u64, seed: u64, stream: Stream, pair: u32, range: u32) -> Self {
        let mut values = vec![0.0; length as usize];
        audit::fill(&mut values, seed, stream, pair, range);
        if dtype == Dtype::Bf16 {
            return Self::Bf16(values.into_iter().map(bf16::from_f32).collect());
        }
        Self::F32(values)
    }
}

/// Everything the computing thread owns.
struct Machine {
    device: String,
    spec: StepSpec,
    pool: Pool,
    workspace: Workspace,
    a: Vec<Operands>,
    b: Vec<Operands>,
    c: Vec<f32>,
    rows: Vec<u32>,
    expected: BTreeMap<(Gemm, u32), Expected>,
    /// Parameters, gradients and the two moments.
    optimizer: [Vec<f32>; 4],
    updates: u64,
    arrays: [Vec<f32>; 3],
    reducer: Option<Reducer>,
}

impl Machine {
    fn new(
        device: String,
        spec: StepSpec,
        cores: &[usize],
        collective: Option<Box<dyn Collective>>,
    ) -> Result<Self, KernelError> {
        let fail = |what: String| KernelError::Device {
            device: device.clone(),
            what,
        };
        let pool = Pool::new(cores.len().max(1), cores).map_err(|e| fail(e.to_string()))?;
        let workspace = Workspace::new(pool.threads()).map_err(|e| fail(e.to_string()))?;
        let [na, nb, nc] = spec.largest();
        let range = range(&spec)?;
        let pairs = if spec.gemms.is_empty() {
            0
        } else {
            spec.operand_pairs
        };
        let operands = |stream, length| -> Vec<Operands> {
            (0..pairs)
                .map(|p| Operands::new(spec.dtype, length, spec.seed, stream, p, range))
                .collect()
        };
        let (a, b) = (operands(Stream::A, na), operands(Stream::B, nb));
        let mut expected = BTreeMap::new();
        if spec.audit_share > 0.0 {
            for (&gemm, pair) in spec
                .gemms
                .iter()
                .flat_map(|g| (0..pairs).map(move |p| (g, p)))
            {
                let (a, b) = (&a[pair as usize], &b[pair as usize]);
                expected
                    .entry((gemm, pair))
                    .or_insert_with(|| match (a, b) {
                        (Operands::F32(a), Operands::F32(b)) => {
                            Expected::of(gemm, spec.audits(), pair, a, b)
                        }
                        _ => Expected::new(gemm, spec.seed, spec.audits(), pair, range),
                    });
            }
        }
        let filled = |length: u64, value: f32| vec![value; length as usize];
        let (p, m) = (spec.parameters, spec.memory.0 / 4);
        let reducer = collective.map(|c| Reducer::start(c, &spec));
        Ok(Self {
            c: filled(nc, 0.0),
            rows: Vec::new(),
            optimizer: [
                filled(p, 0.5),
                filled(p, 0.25),
                filled(p, 0.0),
                filled(p, 0.0),
            ],
            updates: 0,
            arrays: [filled(m, 0.0), filled(m, 1.0), filled(m, 2.0)],
            device,
            spec,
            pool,
            workspace,
            a,
            b,
            expected,
            reducer,
        })
    }

    fn serve(&mut self, ask: Order, start_ns: u64) -> Result<Answer, KernelError> {
        match ask {
            Order::Step(submission) => {
                let done = self.step(submission, start_ns)?;
                Ok(Answer::Done(Box::new(done)))
            }
            Order::SelfTest => Ok(Answer::SelfTest(self.self_test()?)),
            Order::Regroup(generation, members, patience) => {
                Ok(Answer::Regrouped(match &self.reducer {
                    Some(reducer) => {
                        reducer.ask(Ask::Regroup {
                            generation,
                            members,
                            patience,
                        });
                        reducer.answer().fault.map(|(why, _)| why)
                    }
                    None => None,
                }))
            }
        }
    }

    fn fail(&self, what: impl std::fmt::Display) -> KernelError {
        KernelError::Device {
            device: self.device.clone(),
            what: what.to_string(),
        }
    }

    fn step(&mut self, submission: Submission, start_ns: u64) -> Result<StepDone, KernelError> {
        let Submission { seq, parts, stop } = submission;
        let mut done = StepDone {
            seq,
            start_ns,
            end_ns: 0,
            timer: Timer::HostClock,
            spans: Vec::with_capacity(8),
            gemms: 0,
            audited: 0,
            audited_flop: 0.0,
            mismatches: Vec::new(),
            stop_votes: 0,
            collective_fault: None,
            missing_ranks: Vec::new(),
            arrival_skew_ns: 0,
            self_test: None,
        };
        if parts.buckets
            && let Some(reducer) = &self.reducer
        {
            let node = parts.within_node;
            reducer.ask(Ask::Within { node });
        }
        if parts.gemms {
            self.gemms(submission, &mut done)?;
        } else if parts.buckets && self.spec.sweep.is_some() {
            if let Some(reducer) = &self.reducer {
                reducer.ask(Ask::Sweep { seq });
            }
        } else if parts.buckets {
            for bucket in 0..self.spec.buckets.len() {
                self.reduce(bucket, seq);
            }
        }
        if parts.buckets
            && let Some(reducer) = &self.reducer
        {
            reducer.ask(Ask::Vote { stop });
            let reduced = reducer.answer();
            done.spans.extend(reduced.spans);
            done.mismatches.extend(reduced.mismatches);
            done.stop_votes = reduced.stop_votes;
            done.arrival_skew_ns = reduced.skew_ns;
            done.self_test = reduced.self_test;
            if let Some((why, missing)) = reduced.fault {
                done.collective_fault = Some(why);
                done.missing_ranks = missing;
            }
        }
        if parts.optimizer && self.spec.parameters > 0 {
            self.update(&mut done)?;
        }
        if parts.memory && self.spec.memory.0 > 0 {
            self.stream(&mut done)?;
        }
        done.end_ns = now_ns();
        Ok(done)
    }

    fn reduce(&self, bucket: usize, seq: u64) {
        if let Some(reducer) = &self.reducer {
            reducer.ask(Ask::Reduce { bucket, seq });
        }
    }

    fn gemms(&mut self, submission: Submission, done: &mut StepDone) -> Result<(), KernelError> {
        let Submission { seq, parts, .. } = submission;
        let mut bucket = 0;
        for index in 0..self.spec.gemms.len() {
            let gemm = self.spec.gemms[index];
            let pair = pair_of(seq, index, self.spec.operand_pairs);
            let begun = now_ns();
            self.matmul(gemm, pair)?;
            merge(&mut done.spans, begun, now_ns(), gemm.flop().0);
            done.gemms += 1;
            if audit::selects(self.spec.audits(), seq, index as u32, self.spec.audit_share) {
                self.audit(gemm, pair, done);
            }
            while parts.buckets
                && self
                    .spec
                    .buckets
                    .get(bucket)
                    .is_some_and(|b| b.after as usize == index)
            {
                self.reduce(bucket, seq);
                bucket += 1;
            }
        }
        Ok(())
    }

    fn matmul(&mut self, gemm: Gemm, pair: u32) -> Result<(), KernelError> {
        let [na, nb, nc] = gemm.elements().map(|e| e as usize);
        let shape = Shape {
            m: gemm.m as usize,
            n: gemm.n as usize,
            k: gemm.k as usize,
        };
        let c = &mut self.c[..nc];
        let pair = pair as usize;
        let result = match (&self.a[pair], &self.b[pair]) {
            (Operands::F32(a), Operands::F32(b)) => matmul_f32(
                &mut self.pool,
                &mut self.workspace,
                shape,
                &a[..na],
                &b[..nb],
                c,
            ),
            (Operands::Bf16(a), Operands::Bf16(b)) => matmul_bf16(
                &mut self.pool,
                &mut self.workspace,
                shape,
                &a[..na],
                &b[..nb],
                c,
            ),
            _ => return Err(self.fail("operands of two types were prepared")),
        };
        result.map_err(|e| self.fail(e))
    }

    fn audit(&mut self, gemm: Gemm, pair: u32, done: &mut StepDone) {
        let Some(expected) = self.expected.get(&(gemm, pair)) else {
            return;
        };
        let begun = now_ns();
        self.rows.resize(gemm.m as usize, 0);
        audit::row_sums(
            &self.c[..gemm.elements()[2] as usize],
            &expected.challenge,
            &mut self.rows,
        );
        done.mismatches
            .extend(expected.check(&self.rows).map(|m| m.to_string()));
        done.audited += 1;
        done.audited_flop += gemm.flop().0;
        done.spans.push(Span {
            work: Work::Audit,
            start_ns: begun,
            end_ns: now_ns(),
            amount: gemm.flop().0,
        });
    }

    fn update(&mut self, done: &mut StepDone) -> Result<(), KernelError> {
        let begun = now_ns();
        self.updates = self.updates.saturating_add(1);
        let [params, grads, m, v] = &mut self.optimizer;
        let updated = memory::adamw(
            &mut self.pool,
            params,
            m,
            v,
            grads,
            &memory::AdamW::default(),
            self.updates,
        );
        updated.map_err(|e| self.fail(e))?;
        done.spans.push(Span {
            work: Work::Optimizer,
            start_ns: begun,
            end_ns: now_ns(),
            amount: self.spec.parameters as f64 * 28.0,
        });
        Ok(())
    }

    fn stream(&mut self, done: &mut StepDone) -> Result<(), KernelError> {
        let [a, b, c] = &mut self.arrays;
        let bytes = self.spec.memory.0 as f64;
        let begun = now_ns();
        let copied = memory::copy(&mut self.pool, c, b);
        let between = now_ns();
        let added = memory::triad(&mut self.pool, a, b, c, 0.5);
        let end = now_ns();
        copied.and(added).map_err(|e| self.fail(e))?;
        for (work, start_ns, end_ns, amount) in [
            (Work::Copy, begun, between, 2.0 * bytes),
            (Work::Triad, between, end, 3.0 * bytes),
        ] {
            done.spans.push(Span {
                work,
                start_ns,
                end_ns,
                amount,
            });
        }
        Ok(())
    }

    fn self_test(&mut self) -> Result<SelfTest, KernelError> {
        let Some(&gemm) = self.spec.gemms.first() else {
            return Ok(SelfTest {
                clean_passed: false,
                flip_caught: false,
                detail: "this step has no matmul to test".to_owned(),
            });
        };
        let expected = Expected::new(
            gemm,
            self.spec.seed,
            self.spec.audits(),
            0,
            range(&self.spec)?,
        );
        self.matmul(gemm, 0)?;
        let count = gemm.elements()[2] as usize;
        let mut rows = vec![0; gemm.m as usize];
        audit::row_sums(&self.c[..count], &expected.challenge, &mut rows);
        let clean_passed = expected.check(&rows).is_none();
        let (element, bit) = flip_place(self.spec.audits(), &self.c[..count]);
        self.c[element] = f32::from_bits(self.c[element].to_bits() ^ (1 << bit));
        audit::row_sums(&self.c[..count], &expected.challenge, &mut rows);
        let mismatch = expected.check(&rows);
        Ok(SelfTest {
            clean_passed,
            flip_caught: mismatch.is_some(),
            detail: format!(
                "bit {bit} of element {element} of matmul {gemm} was flipped; {}",
                mismatch.map_or_else(|| "the audit did not see it".to_owned(), |m| m.to_string())
            ),
        })
    }
}

/// Which bit the self-test flips: any of any element, but for the sign of a zero.
fn flip_place(seed: AuditSeed, c: &[f32]) -> (usize, u32) {
    let element = audit::hash(seed.0, Stream::Flip, 0, 0) as usize % c.len().max(1);
    let bits = if c[element] == 0.0 { 31 } else { 32 };
    (element, audit::hash(seed.0, Stream::Flip, 1, 0) % bits)
}

/// The operand range that suits all matmuls of the step.
fn range(spec: &StepSpec) -> Result<u32, KernelError> {
    let mut ranges = spec.gemms.iter().map(|&gemm| {
        audit::operand_range(spec.dtype, gemm.k).ok_or(KernelError::NoExactRange {
            gemm,
            dtype: spec.dtype,
            k_max: audit::K_MAX,
        })
    });
    ranges.try_fold(u32::MAX, |least, range| Ok(least.min(range?)))
}

/// Adds matmul time to the last span where it is adjacent matmul time.
fn merge(spans: &mut Vec<Span>, start_ns: u64, end_ns: u64, amount: f64) {
    match spans.last_mut() {
        Some(last) if last.work == Work::Matmul => {
            last.end_ns = end_ns;
            last.amount += amount;
        }
        _ => spans.push(Span {
            work: Work::Matmul,
            start_ns,
            end_ns,
            amount,
        }),
    }
}
