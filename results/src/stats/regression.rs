//! What of a quantity its conditions explain: a linear fit that outliers do not move.
//!
//! Used to name causes (is a slow device hot, or capped, or slow by itself?), never to excuse one: what is
//! judged stays raw. Refuses (with `None`) fewer rows than two more than coefficients, rows of unequal
//! length, values that are not finite, and conditions that cannot be told apart.

use super::outlier::median;

/// Huber's tuning: 95 % of the efficiency of least squares at normal noise.
const HUBER: f64 = 1.345;
/// Rounds of reweighting at most; it settles in a few.
const ROUNDS: usize = 60;
/// 1 / Φ⁻¹(3/4).
const SIGMA_PER_MAD: f64 = 1.482_602_218_505_602;

/// A fitted line through many conditions.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// Intercept first, then one coefficient for each condition, in value units per condition unit.
    pub coefficients: Vec<f64>,
    /// Observed less fitted, in the order of the rows.
    pub residuals: Vec<f64>,
    /// Robust standard deviation of the residuals.
    pub sigma: f64,
}

/// Huber's M-estimate of value = intercept + Σ coefficient · condition.
///
/// `rows`: conditions and value of each observation. By iteratively reweighted least squares from the
/// least-squares start, scale by the residuals' MAD about 0 in each round. Sources: Huber, *Robust
/// Statistics*, ch. 7; Venables and Ripley, *Modern Applied Statistics with S*, §6.5 (`rlm`).
pub fn robust(rows: &[(Vec<f64>, f64)]) -> Option<Fit> {
    let width = rows.first()?.0.len();
    let finite = |(x, y): &(Vec<f64>, f64)| {
        x.len() == width && y.is_finite() && x.iter().all(|v| v.is_finite())
    };
    if rows.len() < width + 3 || !rows.iter().all(finite) {
        return None;
    }
    // Centred conditions of unit size keep the normal equations well apart from singular.
    let scales: Vec<(f64, f64)> = (0..width)
        .map(|c| scale_of(rows, c))
        .collect::<Option<_>>()?;
    let scaled: Vec<(Vec<f64>, f64)> = rows
        .iter()
        .map(|(x, y)| {
            let own = x
                .iter()
                .zip(&scales)
                .map(|(v, (mean, size))| (v - mean) / size);
            (std::iter::once(1.0).chain(own).collect(), *y)
        })
        .collect();
    let mut weights = vec![1.0; rows.len()];
    let mut beta = weighted(&scaled, &weights)?;
    let mut sigma = 0.0;
    for _ in 0..ROUNDS {
        let residuals = residuals(&scaled, &beta);
        let sizes: Vec<f64> = residuals.iter().map(|r| r.abs()).collect();
        sigma = SIGMA_PER_MAD * median(&sizes)?;
        let largest = scaled.iter().map(|(_, y)| y.abs()).fold(0.0, f64::max);
        if sigma <= largest * 1e-13 {
            break;
        }
        for (weight, size) in weights.iter_mut().zip(&sizes) {
            *weight = (HUBER * sigma / size.max(f64::MIN_POSITIVE)).min(1.0);
        }
        let next = weighted(&scaled, &weights)?;
        let moved = beta
            .iter()
            .zip(&next)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        beta = next;
        if moved <= sigma * 1e-9 {
            break;
        }
    }
    let residuals = residuals(&scaled, &beta);
    let slopes: Vec<f64> = beta[1..]
        .iter()
        .zip(&scales)
        .map(|(b, (_, size))| b / size)
        .collect();
    let shift: f64 = slopes
        .iter()
        .zip(&scales)
        .map(|(b, (mean, _))| b * mean)
        .sum();
    Some(Fit {
        coefficients: std::iter::once(beta[0] - shift).chain(slopes).collect(),
        residuals,
        sigma,
    })
}

/// Mean and standard deviation of a condition; `None` where it does not vary.
fn scale_of(rows: &[(Vec<f64>, f64)], column: usize) -> Option<(f64, f64)> {
    let n = rows.len() as f64;
    let mean = rows.iter().map(|(x, _)| x[column]).sum::<f64>() / n;
    let square = rows
        .iter()
        .map(|(x, _)| (x[column] - mean).powi(2))
        .sum::<f64>()
        / n;
    let size = square.sqrt();
    (size > mean.abs() * 1e-12).then_some((mean, size))
}

fn residuals(rows: &[(Vec<f64>, f64)], beta: &[f64]) -> Vec<f64> {
    let fitted = |x: &[f64]| x.iter().zip(beta).map(|(v, b)| v * b).sum::<f64>();
    rows.iter().map(|(x, y)| y - fitted(x)).collect()
}

/// Weighted least squares by the normal equations, Gauss–Jordan with pivoting.
fn weighted(rows: &[(Vec<f64>, f64)], weights: &[f64]) -> Option<Vec<f64>> {
    let width = rows.first()?.0.len();
    let mut matrix = vec![vec![0.0; width + 1]; width];
    for ((x, y), weight) in rows.iter().zip(weights) {
        for i in 0..width {
            for j in 0..width {
                matrix[i][j] += weight * x[i] * x[j];
            }
            matrix[i][width] += weight * x[i] * y;
        }
    }
    let size = matrix
        .iter()
        .enumerate()
        .map(|(i, row)| row[i])
        .fold(0.0, f64::max);
    for column in 0..width {
        let pivot = (column..width).max_by(|a, b| {
            matrix[*a][column]
                .abs()
                .total_cmp(&matrix[*b][column].abs())
        })?;
        matrix.swap(column, pivot);
        if matrix[column][column].abs() <= size * 1e-10 {
            return None;
        }
        for other in (0..width).filter(|r| *r != column) {
            let factor = matrix[other][column] / matrix[column][column];
            let taken = matrix[column].clone();
            matrix[other]
                .iter_mut()
                .zip(taken)
                .for_each(|(v, t)| *v -= factor * t);
        }
    }
    Some(
        (0..width)
            .map(|i| matrix[i][width] / matrix[i][i])
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Brownlee's stack loss: air flow, water temperature, acid concentration, loss.
    const STACK: [[f64; 4]; 21] = [
        [80.0, 27.0, 89.0, 42.0],
        [80.0, 27.0, 88.0, 37.0],
        [75.0, 25.0, 90.0, 37.0],
        [62.0, 24.0, 87.0, 28.0],
        [62.0, 22.0, 87.0, 18.0],
        [62.0, 23.0, 87.0, 18.0],
        [62.0, 24.0, 93.0, 19.0],
        [62.0, 24.0, 93.0, 20.0],
        [58.0, 23.0, 87.0, 15.0],
        [58.0, 18.0, 80.0, 14.0],
        [58.0, 18.0, 89.0, 14.0],
        [58.0, 17.0, 88.0, 13.0],
        [58.0, 18.0, 82.0, 11.0],
        [58.0, 19.0, 93.0, 12.0],
        [50.0, 18.0, 89.0, 8.0],
        [50.0, 18.0, 86.0, 7.0],
        [50.0, 19.0, 72.0, 8.0],
        [50.0, 19.0, 79.0, 8.0],
        [50.0, 20.0, 80.0, 9.0],
        [56.0, 20.0, 82.0, 15.0],
        [70.0, 20.0, 91.0, 15.0],
    ];

    fn stack() -> Vec<(Vec<f64>, f64)> {
        STACK.iter().map(|r| (r[..3].to_vec(), r[3])).collect()
    }

    fn near(got: &[f64], expected: &[f64], within: f64) {
        let close = got
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() <= within);
        assert!(close && got.len() == expected.len(), "{got:?} {expected:?}");
    }

    #[test]
    fn stack_loss_has_the_coefficients_that_venables_and_ripley_print() {
        let fit = robust(&stack()).unwrap();
        near(
            &fit.coefficients,
            &[-41.0265, 0.8294, 0.9261, -0.1278],
            2e-3,
        );
        near(&[fit.sigma], &[2.441], 5e-3);
    }

    #[test]
    fn least_squares_is_the_textbooks() {
        let rows: Vec<(Vec<f64>, f64)> = stack()
            .into_iter()
            .map(|(x, y)| (std::iter::once(1.0).chain(x).collect(), y))
            .collect();
        let beta = weighted(&rows, &[1.0; 21]).unwrap();
        near(&beta, &[-39.9197, 0.7156, 1.2953, -0.1521], 1e-4);
    }

    #[test]
    fn one_wild_row_in_ten_does_not_move_an_exact_line() {
        let mut rows: Vec<(Vec<f64>, f64)> = (0..30)
            .map(|i| (vec![f64::from(i)], 2.0 + 0.5 * f64::from(i)))
            .collect();
        for wild in [3, 14, 25] {
            rows[wild].1 += 100.0;
        }
        let fit = robust(&rows).unwrap();
        near(&fit.coefficients, &[2.0, 0.5], 1e-6);
        assert!((fit.residuals[14] - 100.0).abs() < 1e-4);
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        let twice: Vec<(Vec<f64>, f64)> = (0..9)
            .map(|i| (vec![f64::from(i), 2.0 * f64::from(i)], f64::from(i)))
            .collect();
        assert_eq!(robust(&twice), None);
        let still: Vec<(Vec<f64>, f64)> = (0..9).map(|i| (vec![4.0], f64::from(i))).collect();
        assert_eq!(robust(&still), None);
        assert_eq!(robust(&stack()[..5]), None);
        assert_eq!(robust(&[]), None);
    }
}
