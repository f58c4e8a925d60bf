//! When the run itself stood still: stopped by a signal, paused with its machine, held up by whatever it called.
//!
//! Nobody can be heard meanwhile, so that time is no silence of a device or a sensor. It tells such
//! stretches apart from those of others by the distance of looks at the clock, and judges nobody.

use std::collections::VecDeque;

/// The run looks at its clock ten times a second; a stretch this long without a look is one at a stand.
const STILL_NS: u64 = 500_000_000;
/// Stretches kept: far more than fit into the longest silence that is waited for.
const KEPT: usize = 256;

/// The looks at the clock so far.
pub struct Awake {
    seen_ns: u64,
    /// Start and end of the stretches at a stand, oldest first.
    stood: VecDeque<(u64, u64)>,
}

impl Awake {
    pub fn new(now_ns: u64) -> Self {
        Self {
            seen_ns: now_ns,
            stood: VecDeque::new(),
        }
    }

    /// Looks at the clock; gives the length of the stretch at a stand that ends now, if one does.
    pub fn look(&mut self, now_ns: u64) -> Option<u64> {
        let from_ns = self.seen_ns;
        self.seen_ns = from_ns.max(now_ns);
        let length_ns = now_ns.saturating_sub(from_ns);
        if length_ns <= STILL_NS {
            return None;
        }
        if self.stood.len() == KEPT {
            self.stood.pop_front();
        }
        self.stood.push_back((from_ns, now_ns));
        Some(length_ns)
    }

    /// Time from `from_ns` until now without what was spent at a stand.
    pub fn since(&self, from_ns: u64, now_ns: u64) -> u64 {
        if !self.stood_since(from_ns) {
            return now_ns.saturating_sub(from_ns);
        }
        let lost: u64 = self
            .stood
            .iter()
            .map(|(begun, ended)| {
                let begun = (*begun).max(from_ns);
                (*ended).min(now_ns).saturating_sub(begun)
            })
            .sum();
        now_ns.saturating_sub(from_ns).saturating_sub(lost)
    }

    /// Whether it stood still at any time since `from_ns`.
    pub fn stood_since(&self, from_ns: u64) -> bool {
        self.stood.back().is_some_and(|(_, ended)| *ended > from_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_stretch_at_a_stand_is_nobodys_silence_and_every_other_one_is() {
        let mut awake = Awake::new(0);
        for tick in 1..=10 {
            assert_eq!(awake.look(tick * SECOND / 10), None);
        }
        assert_eq!(awake.look(12 * SECOND), Some(11 * SECOND));
        assert_eq!(awake.since(SECOND / 2, 12 * SECOND), SECOND / 2);
        assert_eq!(awake.since(6 * SECOND, 12 * SECOND), 0);
        assert_eq!(awake.since(12 * SECOND, 14 * SECOND), 2 * SECOND);
        assert!(awake.stood_since(11 * SECOND) && !awake.stood_since(12 * SECOND));
    }

    #[test]
    fn a_clock_that_steps_back_is_no_stretch() {
        let mut awake = Awake::new(5 * SECOND);
        assert_eq!(awake.look(SECOND), None);
        assert_eq!(awake.look(5 * SECOND + 1), None);
    }
}
