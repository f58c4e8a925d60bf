//! Sums of many numbers in four parts by turns, so that the processor adds four at once.
//!
//! The n-th number goes to part n modulo 4, however many arrive together: a slice gives to the last bit what its numbers
//! give one by one. Refuses nothing; numbers that are not finite make a sum that is not.
//!
//! Source of the exact step: Knuth, *The Art of Computer Programming*, vol. 2, §4.2.2, theorem B; what rounding loses is
//! kept apart as Neumaier does, 1974.

/// Parts of a sum.
pub const PARTS: usize = 4;

/// What comes before the next turn begins, whole turns, and what is left of the last one; `count` numbers came before.
pub fn turns<T>(numbers: &[T], count: u64) -> (&[T], &[[T; PARTS]], &[T]) {
    let turn = PARTS as u64;
    let before = ((turn - count % turn) % turn) as usize;
    let (head, rest) = numbers.split_at(before.min(numbers.len()));
    let (whole, tail) = rest.as_chunks::<PARTS>();
    (head, whole, tail)
}

/// A plain sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sum {
    parts: [f64; PARTS],
    count: u64,
}

impl Sum {
    pub fn push(&mut self, number: f64) {
        self.parts[(self.count % PARTS as u64) as usize] += number;
        self.count += 1;
    }

    /// So many zeros.
    pub fn skip(&mut self, zeros: u64) {
        self.count += zeros;
    }

    /// Adds each number times its weight.
    pub fn push_products(&mut self, numbers: &[f64], weights: &[f64]) {
        let (head, whole, tail) = turns(numbers, self.count);
        let (head_weights, whole_weights, tail_weights) = turns(weights, self.count);
        for (number, weight) in head.iter().zip(head_weights) {
            self.push(number * weight);
        }
        for (number, weight) in whole.iter().zip(whole_weights) {
            for part in 0..PARTS {
                self.parts[part] += number[part] * weight[part];
            }
        }
        self.count += (whole.len() * PARTS) as u64;
        for (number, weight) in tail.iter().zip(tail_weights) {
            self.push(number * weight);
        }
    }

    pub fn total(&self) -> f64 {
        let [a, b, c, d] = self.parts;
        (a + b) + (c + d)
    }
}

/// A sum that keeps what rounding would lose.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExactSum {
    parts: [f64; PARTS],
    rests: [f64; PARTS],
    count: u64,
}

/// The rounded sum, and what rounding took from it.
fn exactly(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    (sum, (a - (sum - of_b)) + (b - of_b))
}

impl ExactSum {
    pub fn push(&mut self, number: f64) {
        let part = (self.count % PARTS as u64) as usize;
        let (sum, rest) = exactly(self.parts[part], number);
        self.parts[part] = sum;
        self.rests[part] += rest;
        self.count += 1;
    }

    /// So many zeros.
    pub fn skip(&mut self, zeros: u64) {
        self.count += zeros;
    }

    pub fn push_all(&mut self, numbers: &[f64]) {
        let (head, whole, tail) = turns(numbers, self.count);
        head.iter().for_each(|n| self.push(*n));
        let (mut parts, mut rests) = (self.parts, self.rests);
        for four in whole {
            for part in 0..PARTS {
                let (sum, rest) = exactly(parts[part], four[part]);
                parts[part] = sum;
                rests[part] += rest;
            }
        }
        (self.parts, self.rests) = (parts, rests);
        self.count += (whole.len() * PARTS) as u64;
        tail.iter().for_each(|n| self.push(*n));
    }

    /// Adds all that was added to the other.
    pub fn merge(&mut self, other: &Self) {
        self.push_all(&other.parts);
        self.push_all(&other.rests);
    }

    pub fn total(&self) -> f64 {
        let (mut total, mut rests) = (0.0, 0.0);
        for (part, rest) in self.parts.iter().zip(&self.rests) {
            let (sum, lost) = exactly(total, *part);
            total = sum;
            rests += lost + rest;
        }
        total + rests
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::bootstrap::SplitMix64;

    #[test]
    fn slices_of_any_length_give_what_their_numbers_give_one_by_one() {
        let mut chance = SplitMix64::new(11);
        let numbers: Vec<f64> = (0..3_000).map(|_| 700.0 * chance.unit() - 20.0).collect();
        let weights: Vec<f64> = (0..3_000).map(|_| 1e9 * chance.unit()).collect();
        let (mut plain, mut exact) = (Sum::default(), ExactSum::default());
        for (number, weight) in numbers.iter().zip(&weights) {
            plain.push(number * weight);
            exact.push(*number);
        }
        let (mut plain_at_once, mut exact_at_once) = (Sum::default(), ExactSum::default());
        let mut from = 0;
        while from < numbers.len() {
            let to = (from + chance.below(23) as usize).min(numbers.len());
            plain_at_once.push_products(&numbers[from..to], &weights[from..to]);
            exact_at_once.push_all(&numbers[from..to]);
            from = to;
        }
        assert_eq!((plain, exact), (plain_at_once, exact_at_once));
        let naive: f64 = numbers.iter().sum();
        assert!((exact.total() / naive - 1.0).abs() < 1e-12);
    }

    #[test]
    fn what_rounding_would_lose_is_kept() {
        let mut sum = ExactSum::default();
        for number in [1.0, 1e100, 1.0, -1e100, 1.0, 0.0, 1.0, 1e-20] {
            sum.push(number);
        }
        let mut other = ExactSum::default();
        other.push_all(&[0.5, 1.0, -0.5, 1.0]);
        assert!((sum.total() - 4.0).abs() < 1e-12, "{}", sum.total());
        sum.merge(&other);
        assert!((sum.total() - 6.0).abs() < 1e-12, "{}", sum.total());
    }
}
