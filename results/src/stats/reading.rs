//! Whether a sensor's readings are its own and of now: held still, told again, off by a factor.
//!
//! Pure folds over readings in their order, in fixed memory. They say what was seen; that a reading should
//! have moved is the caller's knowledge. Refuses readings that are not finite: they are no readings.

use super::finite::Finite;
use std::collections::BTreeMap;

/// Readings in one remembered stretch.
const STRETCH: usize = 24;
/// Of a stretch so many steps must move: a quiet sensor repeats itself honestly.
const MOVES_MIN: usize = 18;
/// One stretch in so many is remembered, chosen by its content alone.
const ONE_IN: u64 = 8;
/// Stretches remembered.
const REMEMBERED: usize = 512;
/// Remembered stretches that must come again at one distance.
const AGAIN_MIN: u64 = 6;

/// How long a reading stayed at one value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Held {
    last: Option<f64>,
    since_ns: u64,
    last_ns: u64,
    /// The longest stretch of equal readings: from, to.
    pub longest_ns: (u64, u64),
    longest: f64,
    /// Readings that differ from the one before, and all that have one before.
    pub moved: u64,
    pub seen: u64,
}

impl Held {
    pub fn push(&mut self, at_ns: u64, value: f64) {
        if !value.is_finite() {
            return;
        }
        let same = self.last.is_some_and(|l| l.to_bits() == value.to_bits());
        self.seen += u64::from(self.last.is_some());
        if !same {
            self.moved += u64::from(self.last.is_some());
            self.since_ns = at_ns;
            self.last = Some(value);
        }
        self.hold(at_ns, value);
    }

    /// [`Self::push`] for each of the readings with its time.
    pub fn push_all(&mut self, at_ns: &[u64], readings: &Finite) {
        let (Some((first_ns, at_ns)), Some((first, values))) =
            (at_ns.split_first(), readings.values().split_first())
        else {
            return;
        };
        self.push(*first_ns, *first);
        if let (Some(value), Some(last_ns)) = (readings.same(), at_ns.last()) {
            self.seen += values.len() as u64;
            self.hold(*last_ns, value);
            return;
        }
        let mut before = first.to_bits();
        for (&at_ns, &value) in at_ns.iter().zip(values) {
            let same = value.to_bits() == before;
            before = value.to_bits();
            self.since_ns = if same { self.since_ns } else { at_ns };
            self.moved += u64::from(!same);
            self.hold(at_ns, value);
        }
        self.seen += values.len() as u64;
        self.last = Some(readings.last());
    }

    /// The value is still held at this time.
    fn hold(&mut self, at_ns: u64, value: f64) {
        self.last_ns = at_ns;
        let (from, to) = self.longest_ns;
        if at_ns.saturating_sub(self.since_ns) > to.saturating_sub(from) {
            self.longest_ns = (self.since_ns, at_ns);
            self.longest = value;
        }
    }

    /// Whether the longest stretch reaches the last reading.
    pub fn is_to_the_end(&self) -> bool {
        self.seen > 0 && self.longest_ns.1 == self.last_ns
    }

    /// The value of the longest stretch.
    pub fn longest_value(&self) -> f64 {
        self.longest
    }

    /// The value held now.
    pub fn value(&self) -> Option<f64> {
        self.last
    }

    /// Readings that moved, of all; `None` before the second.
    pub fn share_moved(&self) -> Option<f64> {
        (self.seen > 0).then(|| self.moved as f64 / self.seen as f64)
    }
}

/// A stretch of readings that came again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// When it began to come again.
    pub from_ns: u64,
    /// Readings between the first telling and the second.
    pub distance: u64,
    /// Remembered stretches that came again at this distance.
    pub count: u64,
}

/// Looks for stretches of readings that come again, digit for digit.
///
/// A rolling digest over [`STRETCH`] readings is remembered where it is a multiple of a number, so that the
/// same content is remembered wherever it stands. Sources: Karp and Rabin, “Efficient Randomized
/// Pattern-Matching Algorithms”, 1987; Schleimer, Wilkerson and Aiken, “Winnowing”, SIGMOD 2003.
#[derive(Clone, Debug, Default)]
pub struct Echo {
    recent: Vec<u64>,
    moves: usize,
    digest: u64,
    count: u64,
    /// Digest of a stretch and where it ended.
    known: BTreeMap<u64, u64>,
    order: std::collections::VecDeque<u64>,
    running: Option<Again>,
    found: Option<Again>,
}

const BASE: u64 = 0x0000_0100_0000_01b3;

impl Echo {
    pub fn push(&mut self, at_ns: u64, value: f64) {
        if !value.is_finite() {
            return;
        }
        let bits = mixed(value.to_bits());
        let slot = (self.count % STRETCH as u64) as usize;
        let moved = |a: Option<&u64>, b: u64| usize::from(a.is_some_and(|a| *a != b));
        if self.recent.len() < STRETCH {
            self.moves += moved(self.recent.last(), bits);
            self.recent.push(bits);
            self.digest = self.digest.wrapping_mul(BASE).wrapping_add(bits);
        } else {
            let oldest = self.recent[slot];
            let second = self.recent[(slot + 1) % STRETCH];
            let newest = self.recent[(slot + STRETCH - 1) % STRETCH];
            self.moves += usize::from(newest != bits);
            self.moves -= usize::from(oldest != second);
            let power = BASE.wrapping_pow(STRETCH as u32);
            self.digest = self.digest.wrapping_mul(BASE).wrapping_add(bits);
            self.digest = self.digest.wrapping_sub(oldest.wrapping_mul(power));
            self.recent[slot] = bits;
        }
        self.count += 1;
        if self.recent.len() == STRETCH && self.moves >= MOVES_MIN {
            let mark = mixed(self.digest);
            if mark.is_multiple_of(ONE_IN) {
                self.remember(at_ns, mark);
            }
        }
    }

    /// [`Self::push`] for each of the readings with its time.
    pub fn push_all(&mut self, at_ns: &[u64], readings: &Finite) {
        for (&at_ns, &value) in at_ns.iter().zip(readings.values()) {
            self.push(at_ns, value);
        }
    }

    fn remember(&mut self, at_ns: u64, mark: u64) {
        match self.known.insert(mark, self.count) {
            Some(before) if self.count - before >= STRETCH as u64 => {
                let distance = self.count - before;
                let running = self.running.filter(|r| r.distance == distance);
                let again = Again {
                    from_ns: running.map_or(at_ns, |r| r.from_ns),
                    distance,
                    count: running.map_or(0, |r| r.count) + 1,
                };
                self.running = Some(again);
                if again.count >= AGAIN_MIN && self.found.is_none_or(|f| f.count < again.count) {
                    self.found = Some(again);
                }
            }
            Some(_) => {}
            None => {
                self.running = None;
                self.order.push_back(mark);
            }
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// The longest stretch that came again; `None` where none did.
    pub fn found(&self) -> Option<Again> {
        self.found
    }
}

/// Spreads the bits of a number. Source: Stafford's thirteenth mixer, as in SplitMix64.
fn mixed(of: u64) -> u64 {
    let of = (of ^ (of >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let of = (of ^ (of >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    of ^ (of >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::bootstrap::SplitMix64;

    #[test]
    fn a_reading_that_stops_is_held_from_its_last_move() {
        let mut held = Held::default();
        for i in 0..100_u64 {
            held.push(i * 10, if i < 60 { i as f64 } else { 59.0 });
        }
        assert_eq!(held.longest_ns, (590, 990));
        assert!(held.is_to_the_end());
        assert_eq!((held.moved, held.seen), (59, 99));
        held.push(1_000, 7.0);
        assert!(!held.is_to_the_end() && held.longest_ns == (590, 990));
    }

    /// Watts with noise, in the sensor's steps of 0.1 W.
    fn watts(chance: &mut SplitMix64) -> f64 {
        (6_800.0 + 100.0 * chance.unit()).round() / 10.0
    }

    #[test]
    fn readings_that_come_again_are_found_where_they_begin_and_fresh_ones_never() {
        let seed = 61;
        println!("seed {seed}");
        let mut chance = SplitMix64::new(seed);
        for _ in 0..20 {
            let fresh: Vec<f64> = (0..3_000).map(|_| watts(&mut chance)).collect();
            let mut echo = Echo::default();
            fresh
                .iter()
                .enumerate()
                .for_each(|(i, v)| echo.push(i as u64, *v));
            assert_eq!(echo.found(), None);
            let old: Vec<f64> = fresh[2_000..2_400].to_vec();
            old.iter()
                .enumerate()
                .for_each(|(i, v)| echo.push(3_000 + i as u64, *v));
            let again = echo.found().unwrap();
            assert_eq!(again.distance, 1_000);
            assert!((3_020..3_120).contains(&again.from_ns), "{again:?}");
        }
    }

    #[test]
    fn a_temperature_in_whole_degrees_repeats_itself_honestly() {
        let mut chance = SplitMix64::new(62);
        let mut echo = Echo::default();
        for i in 0..20_000_u64 {
            let slow = 62.0 + (i as f64 / 400.0).sin() + 0.4 * (chance.unit() - 0.5);
            echo.push(i, slow.round());
        }
        assert_eq!(echo.found(), None);
    }

    #[test]
    fn what_is_no_number_is_no_reading() {
        let (mut held, mut echo) = (Held::default(), Echo::default());
        for i in 0..200 {
            held.push(i, f64::NAN);
            echo.push(i, f64::INFINITY);
        }
        assert_eq!((held.share_moved(), echo.found()), (None, None));
    }
}
