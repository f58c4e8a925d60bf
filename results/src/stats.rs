//! Statistics that the verdict rests on: estimates with one-sided bounds, never a bare number.
//!
//! Pure: no clock, no input or output; chance only from a seed that the caller names. Every function
//! that cannot bound its estimate (too few samples, no spread to learn from) returns `None`, which the
//! verdict turns into *inconclusive*; none guesses.
//!
//! One convention throughout: `confidence` is that of *each side*. `low` and `high` are each a
//! one-sided bound at that confidence, so `low..high` at 0.95 covers the truth 90 % of the time or
//! more. A p-value comes as `p_at_most(limit)` (small: the quantity exceeds the limit) or
//! `p_at_least(limit)` (small: it falls short), and agrees with the bound of the same method: the
//! lower bound at confidence c stands above the limit exactly where `p_at_most(limit) < 1 − c`.

pub mod blocks;
pub mod bootstrap;
pub mod change;
pub mod dependence;
pub mod distribution;
pub mod finite;
mod histogram;
pub mod interval;
pub mod lag;
pub mod law;
pub mod multiplicity;
pub mod outlier;
pub mod quantile;
pub mod reading;
pub mod regression;
pub mod response;
pub mod spectrum;
pub mod steady;
pub mod sum;
pub mod thermal;
pub mod trend;

/// Whether `confidence` can be the confidence of one side: at least a half, below certainty.
fn is_confidence(confidence: f64) -> bool {
    (0.5..1.0).contains(&confidence)
}
