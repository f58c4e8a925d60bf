//! Sensors that tell something else than what is: stuck, scaled, off, late, replayed, dropping.
//!
//! Decides what a distorted sensor says of a true reading. A reading that is not there stays not there.

use super::chance::Chance;
use super::scenario::effect::Distortion;
use super::scenario::{Effect, Hall, Placed, Span};
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::Table;
use std::collections::VecDeque;
use std::time::Duration;

/// Readings that are remembered at most, for what is told late or again.
const REMEMBERED: usize = 1 << 16;

/// One distortion of one column.
pub struct Bend {
    how: How,
    span: Span,
    /// Readings of before, oldest first.
    before: VecDeque<(u64, f64)>,
    /// Where a replay stands.
    next: usize,
    held: Option<f64>,
}

#[derive(Clone, Copy)]
enum How {
    Told(Distortion),
    /// Never anything.
    Nothing,
}

/// The distortions of a table's columns.
#[must_use]
pub fn of(table: &Table, placed: &[Placed], hall: &Hall) -> Vec<(usize, Bend)> {
    let mut bends = Vec::new();
    for placed in placed {
        for effect in &placed.fault.effects {
            let (metric, how) = match *effect {
                Effect::Sensor { metric, distortion } => (metric, How::Told(distortion)),
                Effect::MissingSeries { metric } => (metric, How::Nothing),
                _ => continue,
            };
            for column in columns(table, placed, metric, hall) {
                let bend = Bend {
                    how,
                    span: placed.fault.span,
                    before: VecDeque::new(),
                    next: 0,
                    held: None,
                };
                bends.push((column, bend));
            }
        }
    }
    bends
}

/// Columns of a metric, if the table is the fault's: the meter of its place, or a device of it.
fn columns(table: &Table, placed: &Placed, metric: Metric, hall: &Hall) -> Vec<usize> {
    let own = table.place == placed.place.to_string();
    let device = table
        .device
        .is_some_and(|d| placed.place.gpus(hall).contains(&d));
    let all = table.series.iter().enumerate();
    all.filter(|(_, s)| s.metric == metric && (own || device))
        .map(|(column, _)| column)
        .collect()
}

impl Bend {
    /// What the sensor says of `value` at `now_ns`.
    pub fn bent(&mut self, value: f64, now_ns: u64, chance: &mut Chance) -> f64 {
        let share = self.span.share(Duration::from_nanos(now_ns));
        let How::Told(distortion) = self.how else {
            return f64::NAN;
        };
        let on = share > 0.0;
        match distortion {
            Distortion::Scaled { times } => value * (1.0 + (times - 1.0) * share),
            Distortion::Offset { add } => value + add * share,
            Distortion::Dropped { share: dropped } if chance.unit() < dropped * share => f64::NAN,
            Distortion::Dropped { .. } => value,
            Distortion::Stuck if on => *self.held.get_or_insert(value),
            Distortion::Stuck => {
                self.held = None;
                value
            }
            Distortion::Delayed { by } => self.late(value, now_ns, by, on),
            Distortion::Replayed { stretch } => self.again(value, now_ns, stretch, on),
        }
    }

    /// As [`Self::bent`] for a reading that is only looked at, of which nothing is remembered.
    #[must_use]
    pub fn looked(&self, value: f64, now_ns: u64) -> f64 {
        let share = self.span.share(Duration::from_nanos(now_ns));
        match self.how {
            How::Told(Distortion::Stuck) if share > 0.0 => self.held.unwrap_or(value),
            How::Told(Distortion::Scaled { times }) => value * (1.0 + (times - 1.0) * share),
            How::Told(Distortion::Offset { add }) => value + add * share,
            _ => value,
        }
    }

    fn remember(&mut self, value: f64, now_ns: u64, for_ns: u64) {
        self.before.push_back((now_ns, value));
        let old = |f: &(u64, f64)| f.0 + for_ns < now_ns;
        while self.before.len() > REMEMBERED
            || (self.before.len() > 1 && self.before.front().is_some_and(old))
        {
            self.before.pop_front();
        }
    }

    fn late(&mut self, value: f64, now_ns: u64, by: Duration, on: bool) -> f64 {
        let by_ns = by.as_nanos() as u64;
        self.remember(value, now_ns, by_ns);
        if !on {
            return value;
        }
        self.before.front().map_or(value, |f| f.1)
    }

    fn again(&mut self, value: f64, now_ns: u64, stretch: Duration, on: bool) -> f64 {
        if !on {
            self.next = 0;
            self.remember(value, now_ns, stretch.as_nanos() as u64);
            return value;
        }
        let told = self.before.get(self.next).map_or(value, |f| f.1);
        self.next = (self.next + 1) % self.before.len().max(1);
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Readings 0, 1, 2 … each second, distorted from second 10 on.
    fn course(distortion: Distortion) -> Vec<f64> {
        let span = Span {
            onset: Duration::from_secs(10),
            lasts: None,
            every: None,
            grows_over: Duration::ZERO,
        };
        let mut bend = Bend {
            how: How::Told(distortion),
            span,
            before: VecDeque::new(),
            next: 0,
            held: None,
        };
        let mut chance = Chance::new(1, "bend", 0);
        let told = (0..20_u32).map(|s| bend.bent(f64::from(s), u64::from(s) * SECOND, &mut chance));
        told.collect()
    }

    #[test]
    fn each_distortion_tells_what_it_is_made_to_and_nothing_else_before() {
        let truth: Vec<f64> = (0..20).map(f64::from).collect();
        let same = |told: &[f64]| told.iter().zip(&truth).all(|(a, b)| (a - b).abs() < 1e-9);
        let tail = |told: &[f64]| told[10..].to_vec();
        let near = |a: Vec<f64>, b: Vec<f64>| a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-9);
        let three = Duration::from_secs(3);
        for (distortion, after) in [
            (Distortion::Stuck, vec![10.0; 10]),
            (
                Distortion::Scaled { times: 2.0 },
                (10..20).map(|s| 2.0 * f64::from(s)).collect(),
            ),
            (
                Distortion::Offset { add: -1.0 },
                (9..19).map(f64::from).collect(),
            ),
            (
                Distortion::Delayed { by: three },
                (7..17).map(f64::from).collect(),
            ),
            (
                Distortion::Replayed { stretch: three },
                vec![6.0, 7.0, 8.0, 9.0, 6.0, 7.0, 8.0, 9.0, 6.0, 7.0],
            ),
        ] {
            let told = course(distortion);
            assert!(same(&told[..10]), "{distortion:?}");
            assert!(near(tail(&told), after), "{distortion:?}: {told:?}");
        }
        let told = course(Distortion::Dropped { share: 1.0 });
        assert!(told[10..].iter().all(|v| v.is_nan()));
    }
}
