//! Decides the order of a step's work on the device, what is audited, and between which events each phase is timed.
//!
//! Pure: no device. Every step has the same numbered places for events, of which it uses those it needs: one before
//! its matmuls, one behind each matmul and one behind its audit, then those of the tail. So a step that is queued as a
//! graph, in which all places have their event, is read like one that is queued kernel by kernel.

use super::layout::Layout;
use crate::audit;
use crate::backend::pair_of;
use crate::work::{Submission, Work};
use hallmark_profiles::workload::{Parts, StepSpec};

/// A phase whose time will be known when it has run, from one event to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Planned {
    pub work: Work,
    pub amount: f64,
    pub from: usize,
    pub to: usize,
}

/// A matmul whose row sums will be in the readback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Audited {
    pub gemm: usize,
    pub pair: u32,
}

/// A bucket that leaves the device in this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub bucket: usize,
    /// The matmul behind which it leaves; `None` where no matmul runs.
    pub after: Option<usize>,
    /// Filled afresh for this step, so that its total can be checked.
    pub audited: bool,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Course {
    pub seq: u64,
    pub parts: Parts,
    pub spans: Vec<Planned>,
    pub audits: Vec<Audited>,
    pub ready: Vec<Ready>,
    /// This rank's vote, where the step reduces.
    pub stop: Option<bool>,
    pub gemms: u32,
}

/// Places of events in a step of `gemms` matmuls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Places {
    gemms: usize,
}

impl Places {
    pub const fn new(gemms: usize) -> Self {
        Self { gemms }
    }

    pub const START: usize = 0;

    /// Behind matmul `gemm`.
    pub const fn gemm(gemm: usize) -> usize {
        1 + 2 * gemm
    }

    /// Behind its audit.
    pub const fn audit(gemm: usize) -> usize {
        2 + 2 * gemm
    }

    /// Before the optimizer.
    pub const fn tail(self) -> usize {
        1 + 2 * self.gemms
    }

    pub const fn optimizer(self) -> usize {
        self.tail() + 1
    }

    pub const fn copy(self) -> usize {
        self.tail() + 2
    }

    pub const fn triad(self) -> usize {
        self.tail() + 3
    }

    /// Behind everything.
    pub const fn end(self) -> usize {
        self.tail() + 4
    }

    pub const fn count(self) -> usize {
        self.end() + 1
    }
}

impl Course {
    /// `reduces`: this rank has a group for the buckets.
    pub fn new(spec: &StepSpec, layout: &Layout, submission: Submission, reduces: bool) -> Self {
        let Submission { seq, parts, stop } = submission;
        let reduces = reduces && parts.buckets;
        let mut course = Self {
            seq,
            parts,
            spans: Vec::new(),
            audits: Vec::new(),
            ready: Vec::new(),
            stop: reduces.then_some(stop),
            gemms: 0,
        };
        if parts.gemms {
            course.matmuls(spec, layout, reduces);
        } else if reduces {
            course.leave(spec, None);
        }
        course.tail(spec, layout);
        course
    }

    fn matmuls(&mut self, spec: &StepSpec, layout: &Layout, reduces: bool) {
        let (mut from, mut flop) = (Places::START, 0.0);
        for (gemm, shape) in spec.gemms.iter().enumerate() {
            flop += shape.flop().0;
            let audited = audit::selects(spec.audits(), self.seq, gemm as u32, spec.audit_share);
            let fills = reduces && spec.buckets.iter().any(|b| b.after as usize == gemm);
            if audited || fills || gemm + 1 == spec.gemms.len() {
                self.span(Work::Matmul, flop, from, Places::gemm(gemm));
                (from, flop) = (Places::gemm(gemm), 0.0);
            }
            if audited {
                let pair = pair_of(self.seq, gemm, layout.pairs);
                self.audits.push(Audited { gemm, pair });
                self.span(Work::Audit, shape.flop().0, from, Places::audit(gemm));
                from = Places::audit(gemm);
            }
            if fills {
                self.leave(spec, Some(gemm));
            }
        }
        self.gemms = spec.gemms.len() as u32;
    }

    /// The buckets that `after` completes; all of them where no matmul runs.
    fn leave(&mut self, spec: &StepSpec, after: Option<usize>) {
        for (bucket, filled) in spec.buckets.iter().enumerate() {
            if after.is_none_or(|gemm| filled.after as usize == gemm) {
                let number = audit::bucket_key(bucket as u32);
                let audited = audit::selects(spec.audits(), self.seq, number, spec.audit_share);
                self.ready.push(Ready {
                    bucket,
                    after,
                    audited,
                });
            }
        }
    }

    fn tail(&mut self, spec: &StepSpec, layout: &Layout) {
        let places = Places::new(spec.gemms.len());
        let mut from = places.tail();
        if self.parts.optimizer && layout.parameter_fours > 0 {
            let bytes = layout.parameter_fours as f64 * 16.0 * 7.0;
            self.span(Work::Optimizer, bytes, from, places.optimizer());
            from = places.optimizer();
        }
        if self.parts.memory && layout.memory_fours > 0 {
            let bytes = layout.memory_fours as f64 * 16.0;
            self.span(Work::Copy, 2.0 * bytes, from, places.copy());
            self.span(Work::Triad, 3.0 * bytes, places.copy(), places.triad());
        }
    }

    fn span(&mut self, work: Work, amount: f64, from: usize, to: usize) {
        self.spans.push(Planned {
            work,
            amount,
            from,
            to,
        });
    }

    /// Whether a phase begins or ends at this place.
    pub fn uses(&self, place: usize) -> bool {
        self.spans.iter().any(|s| s.from == place || s.to == place)
    }

    pub fn audits(&self, gemm: usize) -> bool {
        self.audits.iter().any(|a| a.gemm == gemm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_profiles::units::Bytes;
    use hallmark_profiles::workload::{Bucket, Dtype, Gemm};

    fn spec(share: f64) -> StepSpec {
        let bucket = |after| Bucket {
            bytes: Bytes(64),
            after,
        };
        StepSpec {
            dtype: Dtype::Bf16,
            gemms: vec![Gemm::new(8, 8, 8); 4],
            buckets: vec![bucket(1), bucket(3), bucket(3)],
            parameters: 9,
            memory: Bytes(32),
            audit_share: share,
            operand_pairs: 3,
            seed: 5,
            audit_seed: None,
            sweep: None,
        }
    }

    fn layout() -> Layout {
        Layout {
            range: 8,
            pairs: 3,
            operand_bytes: [0; 3],
            parameter_fours: 3,
            memory_fours: 2,
            first_row: vec![0, 8, 16, 24],
            rows: 32,
            need: Bytes(0),
        }
    }

    fn course(share: f64, parts: [bool; 4], reduces: bool) -> Course {
        let [gemms, buckets, optimizer, memory] = parts;
        let parts = Parts {
            gemms,
            buckets,
            optimizer,
            memory,
            within_node: false,
        };
        let submission = Submission {
            seq: 10,
            parts,
            stop: true,
        };
        Course::new(&spec(share), &layout(), submission, reduces)
    }

    #[test]
    fn neighbouring_matmuls_are_one_span_and_each_audit_has_its_own() {
        let plain = course(0.0, [true, false, false, false], false);
        assert_eq!(plain.spans.len(), 1);
        assert!((plain.spans[0].amount - 4.0 * 1024.0).abs() < 1e-9);
        let audited = course(1.0, [true, false, false, false], false);
        let works: Vec<_> = audited.spans.iter().map(|s| s.work).collect();
        assert_eq!(works, [Work::Matmul, Work::Audit].repeat(4));
        // Each phase begins where the one before ended.
        assert!(audited.spans.windows(2).all(|w| w[0].to == w[1].from));
        let pairs: Vec<_> = audited.audits.iter().map(|a| a.pair).collect();
        assert_eq!(pairs, [1, 2, 0, 1]);
    }

    #[test]
    fn a_bucket_leaves_behind_the_matmul_that_fills_it_and_only_with_a_group() {
        let group = course(0.0, [true, true, true, false], true);
        let left: Vec<_> = group.ready.iter().map(|r| (r.bucket, r.after)).collect();
        assert_eq!(left, [(0, Some(1)), (1, Some(3)), (2, Some(3))]);
        assert_eq!(group.stop, Some(true));
        let alone = course(0.0, [true, true, true, false], false);
        assert_eq!((alone.ready.len(), alone.stop), (0, None));
        let only = course(0.0, [false, true, false, false], true);
        assert!(only.ready.iter().all(|r| r.after.is_none()) && only.ready.len() == 3);
        assert_eq!((only.gemms, only.spans.len()), (0, 0));
    }

    #[test]
    fn bytes_count_what_is_read_and_what_is_written() {
        let course = course(0.0, [false, false, true, true], false);
        let amounts: Vec<_> = course.spans.iter().map(|s| (s.work, s.amount)).collect();
        assert_eq!(
            amounts,
            [
                (Work::Optimizer, 3.0 * 16.0 * 7.0),
                (Work::Copy, 2.0 * 32.0),
                (Work::Triad, 3.0 * 32.0)
            ]
        );
    }

    #[test]
    fn no_two_places_are_the_same_and_all_have_an_event() {
        let places = Places::new(4);
        let mut all = vec![Places::START];
        all.extend((0..4).flat_map(|g| [Places::gemm(g), Places::audit(g)]));
        all.extend([
            places.tail(),
            places.optimizer(),
            places.copy(),
            places.triad(),
            places.end(),
        ]);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, (0..places.count()).collect::<Vec<_>>());
    }
}
