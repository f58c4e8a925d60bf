//! How far the controller's clock is ahead of the node's, from the times of heartbeats.
//!
//! Of the latest answers the one with the shortest round trip counts, since it bounds the error best. Pure: it reads no
//! clock. Source: RFC 5905, section 8 (offset and delay of an exchange) and section 10 (the sample of least delay).

use crate::protocol::link::{Ahead, Beaten};
use std::collections::VecDeque;

/// Answers that are compared.
const KEPT: usize = 16;

/// The latest answers.
#[derive(Debug, Default)]
pub struct Offset {
    answers: VecDeque<Ahead>,
}

impl Offset {
    /// Takes an answer into account: a beat left at `sent_ns` and its answer came at `came_ns`, both on the node's clock.
    pub fn push(&mut self, sent_ns: u64, answer: Beaten, came_ns: u64) {
        let (there, back) = (
            i128::from(answer.came_ns) - i128::from(sent_ns),
            i128::from(answer.left_ns) - i128::from(came_ns),
        );
        let trip_ns = there - back;
        if trip_ns < 0 {
            // An answer that took less than no time is no measurement.
            return;
        }
        let (Ok(ns), Ok(error_ns)) = (
            i64::try_from((there + back) / 2),
            u64::try_from((trip_ns + 1) / 2),
        ) else {
            return;
        };
        if self.answers.len() == KEPT {
            self.answers.pop_front();
        }
        self.answers.push_back(Ahead { ns, error_ns });
    }

    /// The best of them.
    pub fn best(&self) -> Option<Ahead> {
        self.answers.iter().copied().min_by_key(|a| a.error_ns)
    }

    /// Whether there are enough to begin with.
    pub fn is_known(&self) -> bool {
        self.answers.len() >= KEPT / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uneven_way_is_off_by_no_more_than_the_stated_error_and_the_shortest_trip_counts() {
        // The controller is 5 s ahead; 3 ms there, 1 ms back, then 0.2 ms each way.
        let ahead = 5_000_000_000;
        let mut offset = Offset::default();
        let beat = |offset: &mut Offset, sent: u64, there: u64, back: u64| {
            let came_ns = sent + there + ahead;
            let left_ns = came_ns + 50_000;
            offset.push(sent, Beaten { came_ns, left_ns }, left_ns - ahead + back);
        };
        beat(&mut offset, 1_000_000_000, 3_000_000, 1_000_000);
        let rough = offset.best().unwrap();
        assert_eq!(
            rough,
            Ahead {
                ns: 5_001_000_000,
                error_ns: 2_000_000
            }
        );
        beat(&mut offset, 2_000_000_000, 200_000, 200_000);
        let best = offset.best().unwrap();
        assert_eq!(
            best,
            Ahead {
                ns: 5_000_000_000,
                error_ns: 200_000
            }
        );
        assert!(!offset.is_known());
        for _ in 0..KEPT {
            beat(&mut offset, 3_000_000_000, 900_000, 900_000);
        }
        assert_eq!(
            offset.best().unwrap().error_ns,
            900_000,
            "the old ones are forgotten"
        );
        assert!(offset.is_known());
    }

    #[test]
    fn an_answer_from_before_its_question_is_no_measurement() {
        let mut offset = Offset::default();
        let answer = Beaten {
            came_ns: 10,
            left_ns: 900,
        };
        offset.push(100, answer, 200);
        assert_eq!(offset.best(), None);
    }
}
