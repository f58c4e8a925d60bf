//! How soon a reading follows the load to another level.
//!
//! A fold over the readings of the first minute of a stretch with another load, one a second at most, in fixed memory.
//! Refuses (with `None`) a stretch of which less than eight seconds were seen, and readings that are not finite.

use super::outlier::median;

/// Length of what is looked at, s, and of it what must have been seen.
const LENGTH_S: f64 = 60.0;
const LEAST_S: f64 = 8.0;
/// From this share of what was seen on, the reading shows the new level.
const SETTLED: f64 = 0.75;
/// Of the way to the new level: where it is left, and how far a reading may be from the old level while it rests there.
const LEFT: f64 = 0.5;
const RESTS: f64 = 0.25;

/// Readings since the load changed.
#[derive(Clone, Debug)]
pub struct Response {
    before: f32,
    /// Time since the change, s, and value.
    readings: Vec<(f32, f32)>,
    told: Option<Follow>,
}

/// How a reading went to its new level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Follow {
    /// New level over old one, less one.
    pub share: f64,
    /// When it was half way there, s after the change.
    pub after_s: f64,
    /// It stayed at the old level until then.
    pub rested: bool,
}

impl Response {
    /// `before`: the last reading under the load of before.
    pub fn new(before: f64) -> Self {
        Self {
            before: before as f32,
            readings: Vec::new(),
            told: None,
        }
    }

    /// Readings in their order, each with its time since the load changed.
    pub fn push(&mut self, after_ns: u64, value: f64) {
        let after_s = after_ns as f64 / 1e9;
        let due = self.readings.last().map_or(0.0, |l| l.0.floor() + 1.0);
        if self.is_over() || !value.is_finite() || after_s < f64::from(due) {
            return;
        }
        self.readings.push((after_s as f32, value as f32));
        if after_s >= LENGTH_S {
            self.told = self.of_readings();
            // What is over is told by its figures alone.
            self.readings = vec![(after_s as f32, value as f32)];
        }
    }

    /// Nothing that comes now is looked at.
    pub fn is_over(&self) -> bool {
        (self.readings.last()).is_some_and(|l| f64::from(l.0) >= LENGTH_S)
    }

    /// How the reading followed; `None` where too little was seen, or where it had no level before.
    pub fn follow(&self) -> Option<Follow> {
        if self.is_over() {
            self.told
        } else {
            self.of_readings()
        }
    }

    /// The same as if it had gone by this share; of a stretch that is long over nothing.
    pub fn follow_by(&self, share: f64) -> Option<Follow> {
        let seen_s = self.seen_s()?;
        Some(self.gone(f64::from(self.before) * share, seen_s)).filter(|_| !self.is_over())
    }

    fn all(&self) -> impl Iterator<Item = (f64, f64)> {
        (self.readings.iter()).map(|(at, v)| (f64::from(*at), f64::from(*v)))
    }

    /// How much was seen, if that is enough.
    fn seen_s(&self) -> Option<f64> {
        let seen_s = self.all().last()?.0.min(LENGTH_S);
        (seen_s >= LEAST_S && self.before.is_finite() && self.before > 0.0).then_some(seen_s)
    }

    fn of_readings(&self) -> Option<Follow> {
        let seen_s = self.seen_s()?;
        let settled = self.all().filter(|(at, _)| *at >= SETTLED * seen_s);
        let after = median(&settled.map(|(_, v)| v).collect::<Vec<_>>())?;
        Some(self.gone(after - f64::from(self.before), seen_s))
    }

    /// As a way to a level that differs by so much.
    fn gone(&self, by: f64, seen_s: f64) -> Follow {
        let before = f64::from(self.before);
        let way = |value: f64| (value - before) / by;
        let left = self.all().find(|(_, v)| way(*v) >= LEFT);
        let after_s = left.map_or(seen_s, |(at, _)| at);
        let until: Vec<f64> = self
            .all()
            .take_while(|(at, _)| *at < after_s)
            .map(|(_, v)| v)
            .collect();
        // A reading that is a mean over some time lies in between for once.
        let (_, rests) = until.split_last().unwrap_or((&0.0, &[]));
        Follow {
            share: by / before,
            after_s,
            rested: rests.iter().all(|v| way(*v).abs() < RESTS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// A level of 400 that becomes 600 after so many seconds, read each `period_ns`.
    fn told(late_s: u64, period_ns: u64, for_s: u64) -> Option<Follow> {
        let mut response = Response::new(400.0);
        for k in 0..for_s * SECOND / period_ns {
            let at_ns = k * period_ns;
            // As even as a sensor of a watt: never quite at its level.
            let noise = (k % 5) as f64;
            let level = if at_ns < late_s * SECOND {
                400.0
            } else {
                600.0
            };
            response.push(at_ns, level + noise);
        }
        response.follow()
    }

    #[test]
    fn a_reading_that_comes_late_is_late_by_so_much_whatever_its_period() {
        for period_ns in [100_000_000, SECOND, 4 * SECOND] {
            for late_s in [0, 4, 12, 40] {
                let found = told(late_s, period_ns, 300).unwrap();
                assert!((found.share - 0.5).abs() < 0.02, "{found:?}");
                assert!(found.rested, "{found:?}");
                let late = found.after_s - late_s as f64;
                assert!((0.0..=period_ns as f64 / 1e9).contains(&late), "{found:?}");
            }
        }
    }

    #[test]
    fn what_is_open_is_told_by_what_there_is_and_too_little_by_nothing() {
        assert_eq!(told(10, SECOND, 8), None);
        let found = told(10, SECOND, 40).unwrap();
        assert!((found.after_s - 10.0).abs() < 1e-6, "{found:?}");
        assert_eq!(Response::new(400.0).follow(), None);
    }

    #[test]
    fn what_has_not_moved_yet_is_held_against_the_way_that_it_should_have_gone() {
        let mut late = Response::new(600.0);
        (0..11).for_each(|s| late.push(s * SECOND, 600.0));
        let found = late.follow_by(-0.8).unwrap();
        assert!(
            found.rested && (found.after_s - 10.0).abs() < 1e-6,
            "{found:?}"
        );
        // Half a kelvin of noise is no way.
        let found = late.follow().unwrap();
        assert!(found.share.abs() < 1e-6, "{found:?}");
        (11..70).for_each(|s| late.push(s * SECOND, 100.0));
        assert_eq!(late.follow_by(-0.8), None);
    }

    #[test]
    fn a_climb_does_not_rest_and_what_has_no_level_before_tells_nothing() {
        let mut climb = Response::new(400.0);
        (0..60).for_each(|s| climb.push(s * SECOND, 400.0 + 10.0 * s.min(40) as f64));
        assert!(!climb.follow().unwrap().rested);
        for before in [0.0, f64::NAN, f64::INFINITY] {
            let mut of = Response::new(before);
            (0..60).for_each(|s| of.push(s * SECOND, f64::NAN));
            (0..60).for_each(|s| of.push(s * SECOND, 500.0));
            assert_eq!(of.follow(), None, "{before}");
        }
    }
}
