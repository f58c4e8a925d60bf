//! A number is what it says: results that are none, rules that are code, and GB that are 10⁹ bytes.

use hallmark_kernels::audit::{self, Expected};
use hallmark_profiles::profile;
use hallmark_profiles::units::Unit;
use hallmark_profiles::workload::{AuditSeed, Dtype, Gemm};
use hallmark_results::frame::Frame;
use hallmark_results::verdict::Outcome;
use hallmark_tests::synthetic::{finding, record};

/// The exact product of the audit's own operands.
fn product(gemm: Gemm, seed: u64, range: u32) -> Vec<f32> {
    let [na, nb, _] = gemm.elements();
    let (mut a, mut b) = (vec![0.0; na as usize], vec![0.0; nb as usize]);
    audit::fill(&mut a, seed, audit::Stream::A, 0, range);
    audit::fill(&mut b, seed, audit::Stream::B, 0, range);
    let (n, k) = (gemm.n as usize, gemm.k as usize);
    let element = |at: usize| {
        let row = &a[at / n * k..at / n * k + k];
        let terms = row.iter().enumerate().map(|(l, x)| x * b[l * n + at % n]);
        terms.sum()
    };
    (0..gemm.m as usize * n).map(element).collect()
}

#[test]
fn a_result_that_is_no_number_is_never_right() {
    let gemm = Gemm::new(3, 5, 64);
    let range = audit::operand_range(Dtype::Bf16, gemm.k).expect("an exact range");
    let seed = 20_260_301;
    let expected = Expected::new(gemm, seed, AuditSeed(seed), 0, range);
    let right = product(gemm, seed, range);
    let wrong = |c: &[f32]| {
        let mut rows = vec![0; gemm.m as usize];
        audit::row_sums(c, &expected.challenge, &mut rows);
        expected.check(&rows)
    };
    assert!(wrong(&right).is_none());
    let none = [
        f32::NAN,
        -f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
    ];
    for value in none {
        for at in 0..right.len() {
            let mut c = right.clone();
            c[at] = value;
            assert!(wrong(&c).is_some(), "{value} at {at} is taken for a result");
        }
        let all = vec![value; right.len()];
        assert!(wrong(&all).is_some(), "nothing but {value} is a result");
    }
}

#[test]
fn a_rule_is_data_and_code_in_its_place_is_refused() {
    for code in [
        "__import__('os').system('true') or 1",
        "lambda value: value > 0",
        "${HOME}",
        "1 if True else 2",
        "value * 0.95",
    ] {
        let text = profile::load("smoke").expect("built in").text;
        for from in ["at_least = \"5 %\"", "statistic = \"p95\""] {
            let key = from.split(' ').next().expect("a key");
            let harmed = text.replacen(from, &format!("{key} = \"{code}\""), 1);
            assert_ne!(harmed, text);
            let error = profile::parse(&harmed, "rule.toml");
            assert!(error.is_err(), "{key} = {code} was taken");
        }
    }
}

#[test]
fn bus_bandwidth_is_ten_to_the_ninth_bytes_by_the_ranks_over_the_time_they_took() {
    let run = record("soak").hours(2.0);
    let mut rates: Vec<f64> = run
        .frames()
        .iter()
        .filter_map(|f| match f {
            Frame::Steps(steps) if steps.ops.len() > 30_000 => Some(&steps.ops),
            _ => None,
        })
        .flatten()
        .map(|op| op.bytes as f64 * (2.0 * 7.0 / 8.0) / ((op.end_ns - op.start_ns) as f64 / 1e9))
        .collect();
    assert!(rates.len() > 30_000);
    rates.sort_by(f64::total_cmp);
    let median = rates[rates.len() / 2];
    let verdict = run.judge();
    let found = finding(&verdict, "all-reduce");
    let seen = found.worst().and_then(|p| p.estimate).expect("a figure");
    assert_eq!(seen.unit, Unit::BytePerSecond);
    assert!(
        (seen.value / median - 1.0).abs() < 2e-3,
        "{seen:?} {median}"
    );
    // 2³⁰ would have shown 442.
    let shown = format!("{:.1}\u{a0}GB/s", seen.value / 1e9);
    assert!(found.why.contains(&shown), "{} {shown}", found.why);
}

#[test]
fn a_rate_is_judged_by_the_second_not_by_the_sampling_tick() {
    // Half of the time idle between steps of full speed: what a tick that waits for work would call healthy.
    let run = record("burn-in").steps(|_, _, row| {
        row.end_ns = row.start_ns + (row.end_ns - row.start_ns) / 2;
        row.flop /= 2.0;
        true
    });
    let verdict = run.judge();
    assert_eq!(finding(&verdict, "reference").outcome, Outcome::Failed);
    assert_eq!(finding(&verdict, "idle-gap").outcome, Outcome::Failed);
    assert_eq!(finding(&verdict, "duration").outcome, Outcome::Failed);
}
