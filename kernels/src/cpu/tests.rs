//! The processor engine end to end: steps, audits, self-test.

use super::*;
use crate::timer::now_ns;
use crate::work::Submission;
use hallmark_profiles::workload::{AuditSeed, Gemm, Parts};
use std::time::Duration;

fn spec() -> StepSpec {
    StepSpec {
        dtype: Dtype::F32,
        gemms: vec![
            Gemm::new(64, 96, 80),
            Gemm::new(17, 33, 65),
            Gemm::new(1, 1, 1),
        ],
        buckets: Vec::new(),
        parameters: 1000,
        memory: Bytes(1 << 20),
        audit_share: 1.0,
        operand_pairs: 16,
        seed: 11,
        audit_seed: Some(AuditSeed(12)),
        sweep: None,
    }
}

const ALL: Parts = Parts {
    gemms: true,
    buckets: true,
    optimizer: true,
    memory: true,
    within_node: false,
};

fn prepared(spec: &StepSpec) -> Box<dyn PreparedStep> {
    let engine = Cpu::new();
    let info = engine.list().unwrap().remove(0);
    engine.open(&info).unwrap().prepare(spec, None).unwrap()
}

#[test]
fn every_audited_matmul_of_every_step_is_right() {
    let mut step = prepared(&spec());
    for seq in 0..40 {
        let submission = Submission {
            seq,
            parts: ALL,
            stop: false,
        };
        step.submit(submission).unwrap();
        let done = step.retire(Duration::from_secs(20)).unwrap().unwrap();
        assert_eq!((done.seq, done.gemms, done.audited), (seq, 3, 3));
        assert!(done.mismatches.is_empty(), "{:?}", done.mismatches);
        assert!(done.end_ns > done.start_ns);
    }
}

#[test]
fn the_flipped_bit_is_caught_whatever_the_seed() {
    for seed in 0..20 {
        let mut step = prepared(&StepSpec {
            audit_seed: Some(AuditSeed(seed)),
            ..spec()
        });
        let test = step.self_test().unwrap();
        assert!(
            test.clean_passed && test.flip_caught,
            "seed {seed}: {}",
            test.detail
        );
    }
}

#[test]
fn steps_retire_in_the_order_queued() {
    let mut step = prepared(&spec());
    for seq in 0..3 {
        let submission = Submission {
            seq,
            parts: ALL,
            stop: false,
        };
        step.submit(submission).unwrap();
    }
    assert_eq!(step.in_flight(), 3);
    for seq in 0..3 {
        assert_eq!(
            step.retire(Duration::from_secs(20)).unwrap().unwrap().seq,
            seq
        );
    }
    assert!(step.retire(Duration::ZERO).unwrap().is_none());
}

#[test]
fn a_queued_step_begins_before_the_one_before_it_is_told() {
    let mut step = prepared(&spec());
    let mut queued_ns = Vec::new();
    for seq in 0..24 {
        let submission = Submission {
            seq,
            parts: ALL,
            stop: false,
        };
        step.submit(submission).unwrap();
        queued_ns.push(now_ns());
    }
    let mut retire = || {
        let done = step.retire(Duration::from_secs(20)).unwrap().unwrap();
        (done, now_ns())
    };
    let done: Vec<_> = (0..24).map(|_| retire()).collect();
    let mut back_to_back = 0;
    for (index, pair) in done.windows(2).enumerate() {
        let ((before, told_ns), (after, _)) = (&pair[0], &pair[1]);
        if queued_ns[index + 1] <= before.end_ns {
            assert!(after.start_ns <= *told_ns, "step {index}");
            back_to_back += 1;
        }
    }
    assert!(back_to_back > 0, "no step was queued behind another");
}

#[test]
fn a_dtype_that_the_processor_lacks_is_refused_with_those_it_has() {
    let engine = Cpu::new();
    let info = engine.list().unwrap().remove(0);
    let mut device = engine.open(&info).unwrap();
    let wanted = StepSpec {
        dtype: Dtype::Fp8E4m3,
        ..spec()
    };
    let error = device.prepare(&wanted, None).err().unwrap().to_string();
    assert!(
        error.contains("has no fp8_e4m3 matmul") && error.contains("f32"),
        "{error}"
    );
}

#[test]
fn a_step_that_does_not_fit_says_what_is_free_and_needed() {
    let engine = Cpu::new();
    let info = engine.list().unwrap().remove(0);
    let huge = StepSpec {
        gemms: vec![Gemm::new(1 << 20, 1 << 20, 4)],
        ..spec()
    };
    let error = engine
        .open(&info)
        .unwrap()
        .prepare(&huge, None)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("free, the step needs"), "{error}");
}
