//! Neighbouring values that are all numbers, and what one look at them tells.
//!
//! Refuses values of which one is not finite: those are taken run by run, by [`runs`].

use std::ops::Range;

/// Looked at together.
const AT_ONCE: usize = 4;

/// One value or more, all of them finite.
#[derive(Clone, Copy, Debug)]
pub struct Finite<'a> {
    values: &'a [f64],
    low: f64,
    high: f64,
    same: bool,
}

impl<'a> Finite<'a> {
    /// `None` where there is no value, or one that is not finite.
    pub fn of(values: &'a [f64]) -> Option<Self> {
        let first = *values.first()?;
        let (mut low, mut high) = ([first; AT_ONCE], [first; AT_ONCE]);
        let (mut odd, mut differ) = ([0.0; AT_ONCE], [0_u64; AT_ONCE]);
        let mut look = |at: usize, value: f64| {
            low[at] = if value < low[at] { value } else { low[at] };
            high[at] = if value > high[at] { value } else { high[at] };
            // Zero times anything but a number is none.
            odd[at] += value * 0.0;
            differ[at] |= value.to_bits() ^ first.to_bits();
        };
        let (fours, rest) = values.as_chunks::<AT_ONCE>();
        for four in fours {
            (0..AT_ONCE).for_each(|at| look(at, four[at]));
        }
        rest.iter().for_each(|value| look(0, *value));
        let finite = !odd.iter().sum::<f64>().is_nan();
        // Of zeros with either sign, the plain one.
        finite.then(|| Self {
            values,
            low: low.into_iter().fold(first, f64::min) + 0.0,
            high: high.into_iter().fold(first, f64::max) + 0.0,
            same: differ.iter().all(|d| *d == 0),
        })
    }

    pub fn values(&self) -> &'a [f64] {
        self.values
    }

    pub fn first(&self) -> f64 {
        self.values[0]
    }

    pub fn last(&self) -> f64 {
        self.values[self.values.len() - 1]
    }

    pub fn low(&self) -> f64 {
        self.low
    }

    pub fn high(&self) -> f64 {
        self.high
    }

    /// The one value that all of them are, bit for bit.
    pub fn same(&self) -> Option<f64> {
        self.same.then_some(self.first())
    }

    /// All of them are zero, whatever its sign.
    pub fn is_zero(&self) -> bool {
        self.same && self.first().abs() <= 0.0
    }
}

/// The rows of each run of finite values, as long as it goes.
pub fn runs(values: &[f64]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut from = 0;
    std::iter::from_fn(move || {
        from += values[from..].iter().take_while(|v| !v.is_finite()).count();
        let to = from + values[from..].iter().take_while(|v| v.is_finite()).count();
        let run = from..to;
        from = to;
        (!run.is_empty()).then_some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_values_is_so_and_one_that_is_no_number_shows() {
        for length in 1..20_usize {
            let values: Vec<f64> = (0..length).map(|i| ((i * 7) % 11) as f64 - 3.0).collect();
            let finite = Finite::of(&values).unwrap();
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            assert_eq!((finite.low(), finite.high()), (low, high));
            assert_eq!(finite.same().is_some(), length == 1);
            for at in 0..length {
                for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                    let mut values = values.clone();
                    values[at] = odd;
                    assert!(Finite::of(&values).is_none());
                    let found: Vec<_> = runs(&values).collect();
                    let both = [0..at, at + 1..length];
                    let both: Vec<_> = both.into_iter().filter(|r| !r.is_empty()).collect();
                    assert_eq!(found, both);
                }
            }
        }
        assert!(Finite::of(&[]).is_none());
        assert_eq!(Finite::of(&[4.0; 9]).unwrap().same(), Some(4.0));
        assert!(Finite::of(&[0.0; 9]).unwrap().is_zero());
        assert!(!Finite::of(&[0.0, 1.0]).unwrap().is_zero());
    }
}
