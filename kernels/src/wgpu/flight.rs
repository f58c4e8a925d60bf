//! Decides what a step in flight becomes once the device has ended it: spans on the run's clock, checked audits.
//!
//! Spans come from the device's timestamps where it has them. Otherwise the host notes when each submission ended:
//! an upper bound, and the record says so. Refuses to report a tick that no pair maps to the host's clock.

use super::encode::{Audited, Launch, Planned};
use super::feeder::{Fed, Submitted};
use super::gpu::Gpu;
use super::layout::Layout;
use crate::audit::Expected;
use crate::error::KernelError;
use crate::timer::{TickFit, Timer, now_ns};
use crate::work::{Span, StepDone};
use ::wgpu::{Buffer, SubmissionIndex};
use hallmark_profiles::workload::{Gemm, StepSpec};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Expected row sums by shape and pair.
pub(super) type Answers = BTreeMap<(Gemm, u32), Expected>;

/// A queued step.
pub(super) struct Flight {
    pub seq: u64,
    pub slot: usize,
    pub spans: Vec<Planned>,
    pub audits: Vec<Audited>,
    gemms: u32,
    /// `None` until the bucket thread has submitted the step.
    pub fed: Option<Fed>,
    /// Parts that have not ended yet.
    pending: VecDeque<Submitted>,
    /// Host-timed spans, by number.
    host: Vec<(usize, u64, u64)>,
    /// End of the part before, on the host's clock.
    since_ns: u64,
    /// When the step was last seen unfinished, and when it was seen finished.
    seen_ns: (u64, u64),
}

/// What a step is read from and compared with.
pub(super) struct Harvest<'a> {
    pub gpu: &'a Gpu,
    pub spec: &'a StepSpec,
    pub layout: &'a Layout,
    pub readback: &'a Buffer,
    pub answers: &'a Answers,
}

/// Length of one look at the device while a pair is being taken for the clock fit.
const LOOK: Duration = Duration::from_micros(100);
/// A readback of an ended step only waits for the driver's bookkeeping.
const READ_LIMIT: Duration = Duration::from_secs(10);

impl Flight {
    pub fn new(slot: usize, launch: &Launch) -> Self {
        Self {
            seq: launch.seq,
            slot,
            spans: launch.spans.clone(),
            audits: launch.audits.clone(),
            gemms: launch.gemms,
            fed: None,
            pending: VecDeque::new(),
            host: Vec::new(),
            since_ns: 0,
            seen_ns: (0, 0),
        }
    }

    pub fn submitted(&mut self, fed: Fed) {
        self.pending = fed.parts.iter().cloned().collect();
        self.since_ns = fed.submitted_ns;
        self.seen_ns = (fed.submitted_ns, fed.submitted_ns);
        self.fed = Some(fed);
    }

    /// Waits for the device until `deadline_ns`; says whether every part has ended.
    ///
    /// `close`: look often, so that the end is known to [`LOOK`] for the clock fit.
    pub fn ended(&mut self, gpu: &Gpu, deadline_ns: u64, close: bool) -> Result<bool, KernelError> {
        let by_host = gpu.tick_ns.is_none();
        while let Some((spans, index)) = self.pending.front().cloned() {
            // With timestamps only the last part matters: the queue runs in order.
            if !by_host && self.pending.len() > 1 {
                self.pending.pop_front();
                continue;
            }
            if !self.part_ended(gpu, &index, deadline_ns, close)? {
                return Ok(false);
            }
            let end_ns = self.seen_ns.1;
            if by_host {
                let start_ns = self.since_ns;
                self.host.extend(spans.map(|n| (n, start_ns, end_ns)));
                self.since_ns = end_ns;
            }
            self.pending.pop_front();
        }
        Ok(true)
    }

    fn part_ended(
        &mut self,
        gpu: &Gpu,
        index: &SubmissionIndex,
        deadline_ns: u64,
        close: bool,
    ) -> Result<bool, KernelError> {
        loop {
            let before_ns = now_ns();
            let left = Duration::from_nanos(deadline_ns.saturating_sub(before_ns));
            let limit = if close { left.min(LOOK) } else { left };
            let ended = gpu.wait(index, limit)?;
            let after_ns = now_ns();
            if ended {
                self.seen_ns.1 = after_ns;
                return Ok(true);
            }
            self.seen_ns.0 = after_ns;
            if after_ns >= deadline_ns {
                return Ok(false);
            }
        }
    }

    /// Reads timestamps and row sums of the ended step and checks them.
    ///
    /// `close`: the end was watched closely; its tick becomes a pair of `fit`.
    pub fn harvest(
        self,
        source: &Harvest<'_>,
        fit: &mut TickFit,
        close: bool,
    ) -> Result<StepDone, KernelError> {
        let gpu = source.gpu;
        let timed = gpu.tick_ns.is_some();
        let mut wrong = Vec::new();
        let mut spans = self.host_spans();
        if timed && !self.spans.is_empty() || !self.audits.is_empty() {
            let read = |bytes: &[u8]| {
                let ticks = words::<u64>(bytes, 0, if timed { 2 * self.spans.len() } else { 0 });
                self.check(bytes, source).map(|wrong| (ticks, wrong))
            };
            let (ticks, found) = gpu.read(source.readback, READ_LIMIT, read)??;
            wrong = found;
            if timed {
                if let Some(&last) = ticks.last().filter(|_| close) {
                    fit.pair(last, self.seen_ns.0, self.seen_ns.1);
                }
                spans = self.device_spans(&ticks, fit, gpu)?;
            }
        }
        let Some(fed) = self.fed else {
            return Err(KernelError::Device {
                device: gpu.id.clone(),
                what: format!("step {} was harvested before it was submitted", self.seq),
            });
        };
        spans.extend(fed.reduced);
        spans.sort_by_key(|s| s.start_ns);
        wrong.extend(fed.mismatches);
        let empty_ns = self.seen_ns.1;
        let (collective_fault, missing_ranks) = match fed.fault {
            Some(broken) => (Some(broken.why), broken.missing),
            None => (None, Vec::new()),
        };
        let flop = |a: &Audited| source.spec.gemms[a.gemm].flop().0;
        Ok(StepDone {
            seq: self.seq,
            start_ns: spans.iter().map(|s| s.start_ns).min().unwrap_or(empty_ns),
            end_ns: spans.iter().map(|s| s.end_ns).max().unwrap_or(empty_ns),
            timer: if timed {
                Timer::DeviceEvent
            } else {
                Timer::HostClock
            },
            spans,
            gemms: self.gemms,
            audited: self.audits.len() as u32,
            audited_flop: self.audits.iter().map(flop).sum(),
            mismatches: wrong,
            stop_votes: fed.stop_votes,
            collective_fault,
            missing_ranks,
            arrival_skew_ns: fed.arrival_skew_ns,
            self_test: None,
        })
    }

    /// What the audits found wrong in the readback.
    fn check(&self, bytes: &[u8], source: &Harvest<'_>) -> Result<Vec<String>, KernelError> {
        let mut wrong = Vec::new();
        for audited in &self.audits {
            let gemm = source.spec.gemms[audited.gemm];
            let Some(expected) = source.answers.get(&(gemm, audited.pair)) else {
                return Err(KernelError::Device {
                    device: source.gpu.id.clone(),
                    what: format!(
                        "no row sums were expected of {gemm} with pair {}",
                        audited.pair
                    ),
                });
            };
            let rows = words::<u32>(bytes, source.layout.rows_at(audited.gemm), gemm.m as usize);
            wrong.extend(expected.check(&rows).map(|m| m.to_string()));
        }
        Ok(wrong)
    }

    fn host_spans(&self) -> Vec<Span> {
        self.host
            .iter()
            .map(|&(number, start_ns, end_ns)| self.span(number, start_ns, end_ns))
            .collect()
    }

    fn device_spans(
        &self,
        ticks: &[u64],
        fit: &TickFit,
        gpu: &Gpu,
    ) -> Result<Vec<Span>, KernelError> {
        let at = |tick: u64| {
            fit.host_ns(tick).ok_or_else(|| KernelError::Device {
                device: gpu.id.clone(),
                what: "its clock was never compared with the host's".into(),
            })
        };
        ticks
            .chunks_exact(2)
            .enumerate()
            .map(|(number, pair)| Ok(self.span(number, at(pair[0])?, at(pair[1])?)))
            .collect()
    }

    fn span(&self, number: usize, start_ns: u64, end_ns: u64) -> Span {
        let Planned { work, amount } = self.spans[number];
        Span {
            work,
            start_ns,
            end_ns,
            amount,
        }
    }
}

/// `count` words that start at byte `at`.
pub(super) fn words<T: bytemuck::Pod>(bytes: &[u8], at: usize, count: usize) -> Vec<T> {
    let end = at + count * size_of::<T>();
    bytemuck::pod_collect_to_vec::<u8, T>(bytes.get(at..end).unwrap_or_default())
}
