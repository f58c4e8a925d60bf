//! Many hypotheses judged together: which of them may be rejected without raising false alarms.
//!
//! Holm guards against even one false rejection among the gates of a verdict. Benjamini–Hochberg bounds
//! the share of false names on a list of suspects that will be retested. A p-value that is NaN is a
//! hypothesis without evidence: it counts as 1, is never rejected, and still counts in their number.

/// Holm's adjusted p-values, in the order given: reject where `adjusted <= alpha`.
///
/// Valid under any dependence. Source: Holm, “A Simple Sequentially Rejective Multiple Test Procedure”,
/// 1979; in adjusted form: Wright 1992.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let order = ascending(p_values);
    let mut adjusted = vec![1.0; p_values.len()];
    let mut floor = 0.0_f64;
    for (place, index) in order.iter().enumerate() {
        let left = (p_values.len() - place) as f64;
        floor = floor.max((left * evidence(p_values[*index])).min(1.0));
        adjusted[*index] = floor;
    }
    adjusted
}

/// Benjamini–Hochberg adjusted p-values, in the order given: naming all with `adjusted <= rate` keeps
/// the expected share of false names at or below `rate`.
///
/// Valid for independent or positively dependent tests. Source: Benjamini and Hochberg 1995.
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let order = ascending(p_values);
    let mut adjusted = vec![1.0; p_values.len()];
    let mut ceiling = 1.0_f64;
    for (place, index) in order.iter().enumerate().rev() {
        let share = p_values.len() as f64 / (place + 1) as f64;
        ceiling = ceiling.min(share * evidence(p_values[*index]));
        adjusted[*index] = ceiling;
    }
    adjusted
}

fn evidence(p_value: f64) -> f64 {
    if p_value.is_nan() {
        1.0
    } else {
        p_value.clamp(0.0, 1.0)
    }
}

/// Places of the p-values, smallest first; equal ones keep their order.
fn ascending(p_values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| evidence(p_values[*a]).total_cmp(&evidence(p_values[*b])));
    order
}

#[cfg(test)]
mod tests {
    use super::{benjamini_hochberg, holm};
    use crate::stats::bootstrap::SplitMix64;

    fn near(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (a, b) in got.iter().zip(expected) {
            assert!((a - b).abs() < 1e-12, "{got:?} {expected:?}");
        }
    }

    #[test]
    fn adjusted_values_equal_those_worked_by_hand() {
        // 0.005·4, 0.01·3, 0.03·2, 0.04·1 raised to the largest so far.
        near(&holm(&[0.01, 0.04, 0.03, 0.005]), &[0.03, 0.06, 0.06, 0.02]);
        near(&holm(&[]), &[]);
        near(&holm(&[0.2]), &[0.2]);
        near(&holm(&[0.9, 0.9]), &[1.0, 1.0]);
        near(
            &benjamini_hochberg(&[0.01, 0.04, 0.03, 0.005]),
            &[0.02, 0.04, 0.04, 0.02],
        );
    }

    #[test]
    fn benjamini_and_hochbergs_own_example_names_four() {
        // Their 1995 paper: 15 tests, at 0.05 Bonferroni rejects 3 and theirs 4.
        let p_values = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
            0.5719, 0.6528, 0.7590, 1.0000,
        ];
        let named = |adjusted: Vec<f64>| adjusted.iter().filter(|p| **p <= 0.05).count();
        assert_eq!(named(benjamini_hochberg(&p_values)), 4);
        assert_eq!(named(holm(&p_values)), 3);
    }

    #[test]
    fn holm_equals_stepping_down_until_the_first_that_stands() {
        let seed = 31;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        for _ in 0..500 {
            let many = chance.below(12) as usize;
            let p_values: Vec<f64> = (0..many).map(|_| chance.unit().powi(4)).collect();
            let mut sorted = p_values.clone();
            sorted.sort_by(f64::total_cmp);
            let standing = sorted
                .iter()
                .enumerate()
                .find(|(i, p)| **p > 0.05 / (many - i) as f64);
            let rejected = standing.map_or(many, |(i, _)| i);
            let adjusted = holm(&p_values);
            assert_eq!(adjusted.iter().filter(|p| **p <= 0.05).count(), rejected);
        }
    }

    #[test]
    fn a_missing_p_value_is_never_rejected_yet_counts() {
        near(&holm(&[f64::NAN, 0.02]), &[1.0, 0.04]);
        near(&benjamini_hochberg(&[f64::NAN, 0.02]), &[1.0, 0.04]);
    }
}
