//! The trusted product: float64, simple loops, and how far a backend may stray from it.
//!
//! [`agree`] decides whether a float32 result is explained by rounding alone. It refuses NaN,
//! infinities and a wrong length. What it cannot see: at a large `k` one missing product can be
//! smaller than the bound; integer inputs, where every backend must be exact, close that gap.

/// Unit roundoff of float32 with rounding to nearest.
const F32_ROUNDOFF: f64 = 1.0 / 16_777_216.0;

/// Why a result is not the product.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Disagreement {
    /// Lengths that belong to no `m × k` times `k × n`.
    #[error(
        "lengths do not fit: c {c}, reference {want}, a {a}, b {b}, k {k}; pass whole matrices"
    )]
    Length {
        /// Values of the result.
        c: usize,
        /// Values of the reference.
        want: usize,
        /// Values of A.
        a: usize,
        /// Values of B.
        b: usize,
        /// Depth.
        k: usize,
    },
    /// At least one element is farther off than rounding explains.
    #[error(
        "{count} of {of} elements disagree; worst at row {row}, column {column}: got {got}, want {want}, \
         error {error:e} (relative {relative:e}) above the bound {bound:e}"
    )]
    Values {
        /// Elements beyond their bound.
        count: usize,
        /// Elements compared.
        of: usize,
        /// Row of the worst.
        row: usize,
        /// Column of the worst.
        column: usize,
        /// Its value.
        got: f32,
        /// Its reference.
        want: f64,
        /// Absolute difference.
        error: f64,
        /// Absolute difference over the reference's magnitude.
        relative: f64,
        /// Largest difference allowed there.
        bound: f64,
    },
}

/// `A[m×k] · B[k×n]`, row-major, in float64. A product of two float32 is exact in float64, so
/// each element is within `k · 2⁻⁵³ · Σ|a||b|` of the true sum.
///
/// # Panics
/// If a slice is shorter than its shape.
#[must_use]
pub fn matmul_f64(m: usize, n: usize, k: usize, a: &[f32], b: &[f32]) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        let row = &mut c[i * n..(i + 1) * n];
        for p in 0..k {
            let left = f64::from(a[i * k + p]);
            for (sum, right) in row.iter_mut().zip(&b[p * n..(p + 1) * n]) {
                *sum += left * f64::from(*right);
            }
        }
    }
    c
}

/// Whether `c` is `want` but for float32 rounding in any order of summation.
///
/// Bound of element (i, j): `k·u/(1 − k·u) · ‖aᵢ‖₂·‖bⱼ‖₂` with u = 2⁻²⁴, plus `k` times the
/// smallest normal float32 for backends that flush subnormals. `‖aᵢ‖·‖bⱼ‖ ≥ Σ|a||b|` by
/// Cauchy-Schwarz, so no correct float32 summation fails. Source: Higham, “Accuracy and Stability
/// of Numerical Algorithms”, 2nd ed., section 3.5.
///
/// # Errors
/// [`Disagreement`] with the worst element, or the lengths that do not fit.
pub fn agree(c: &[f32], want: &[f64], a: &[f32], b: &[f32], k: usize) -> Result<(), Disagreement> {
    agree_to(c, want, a, b, k, F32_ROUNDOFF, 0.0)
}

/// As [`agree`] for another precision: `sum` is the unit roundoff of the accumulation, `output`
/// that of a final rounding of C (0 where C keeps the accumulator's precision).
///
/// # Errors
/// As [`agree`].
pub fn agree_to(
    c: &[f32],
    want: &[f64],
    a: &[f32],
    b: &[f32],
    k: usize,
    sum: f64,
    output: f64,
) -> Result<(), Disagreement> {
    let (m, n) = shape(c, want, a, b, k)?;
    let ku = k as f64 * sum;
    let gamma = if ku < 1.0 {
        ku / (1.0 - ku)
    } else {
        f64::INFINITY
    };
    let rows: Vec<f64> = (0..m).map(|i| norm(&a[i * k..(i + 1) * k])).collect();
    let columns = column_norms(b, n);
    let tiny = k as f64 * f64::from(f32::MIN_POSITIVE);
    let bound_at =
        |at: usize| gamma * rows[at / n] * columns[at % n] + output * want[at].abs() + tiny;
    let error_at = |at: usize| (f64::from(c[at]) - want[at]).abs();
    // Anything not finite disagrees, however wide the bound, and is the worst there is.
    let excess_at = |at: usize| {
        if error_at(at).is_finite() {
            error_at(at) - bound_at(at)
        } else {
            f64::INFINITY
        }
    };
    let beyond = (0..c.len()).filter(|&at| excess_at(at) > 0.0);
    let count = beyond.clone().count();
    let Some(worst) = beyond.max_by(|&x, &y| excess_at(x).total_cmp(&excess_at(y))) else {
        return Ok(());
    };
    Err(Disagreement::Values {
        count,
        of: c.len(),
        row: worst / n,
        column: worst % n,
        got: c[worst],
        want: want[worst],
        error: error_at(worst),
        relative: error_at(worst) / want[worst].abs(),
        bound: bound_at(worst),
    })
}

/// Rows and columns of the product, from lengths that fit.
fn shape(
    c: &[f32],
    want: &[f64],
    a: &[f32],
    b: &[f32],
    k: usize,
) -> Result<(usize, usize), Disagreement> {
    // With k = 0 the inputs are empty and say nothing about m and n: one row will do.
    let per = |length: usize, none: usize| length.checked_div(k).unwrap_or(none);
    let (m, n) = (per(a.len(), 1), per(b.len(), c.len()));
    if m * k == a.len() && n * k == b.len() && c.len() == m * n && want.len() == c.len() {
        return Ok((m, n));
    }
    Err(Disagreement::Length {
        c: c.len(),
        want: want.len(),
        a: a.len(),
        b: b.len(),
        k,
    })
}

fn norm(values: &[f32]) -> f64 {
    values
        .iter()
        .map(|&x| f64::from(x).powi(2))
        .sum::<f64>()
        .sqrt()
}

fn column_norms(b: &[f32], n: usize) -> Vec<f64> {
    let mut squares = vec![0.0; n];
    for row in b.chunks_exact(n.max(1)) {
        for (square, &x) in squares.iter_mut().zip(row) {
            *square += f64::from(x).powi(2);
        }
    }
    squares.into_iter().map(f64::sqrt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_done_by_hand_comes_out() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let b = [7.0, 8.0, 9.0, 10.0, 11.0, 12.0];
        let want = [58.0, 64.0, 139.0, 154.0];
        let got = matmul_f64(2, 2, 3, &a, &b);
        assert!(
            got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12),
            "{got:?}"
        );
        assert_eq!(agree(&[58.0, 64.0, 139.0, 154.0], &got, &a, &b, 3), Ok(()));
    }

    #[test]
    fn one_wrong_element_is_found_and_located() {
        let (m, n, k) = (5, 7, 33);
        let value = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 50.0;
        let a: Vec<f32> = (0..m * k).map(value).collect();
        let b: Vec<f32> = (0..k * n).map(value).collect();
        let want = matmul_f64(m, n, k, &a, &b);
        let good: Vec<f32> = want.iter().map(|&x| x as f32).collect();
        assert_eq!(agree(&good, &want, &a, &b, k), Ok(()));
        for bad in [good[17] + 1e-3, f32::NAN, f32::INFINITY] {
            let mut c = good.clone();
            c[17] = bad;
            let Err(Disagreement::Values {
                count: 1,
                row: 2,
                column: 3,
                ..
            }) = agree(&c, &want, &a, &b, k)
            else {
                panic!("{bad} was not found");
            };
        }
    }

    #[test]
    fn a_missing_product_is_more_than_rounding() {
        let k = 257;
        let a = vec![1.0; k];
        let b = vec![1.0; k];
        let want = matmul_f64(1, 1, k, &a, &b);
        assert!(agree(&[(k - 1) as f32], &want, &a, &b, k).is_err());
    }

    #[test]
    fn depth_zero_wants_zeros_and_odd_lengths_are_refused() {
        assert_eq!(agree(&[0.0, 0.0], &[0.0, 0.0], &[], &[], 0), Ok(()));
        assert!(agree(&[0.0, 1.0], &[0.0, 0.0], &[], &[], 0).is_err());
        let refused = agree(&[0.0], &[0.0], &[1.0, 2.0, 3.0], &[1.0, 2.0], 2);
        assert!(matches!(refused, Err(Disagreement::Length { a: 3, .. })));
    }
}
