//! Tells together what happens over and over, so that days of trouble fill neither memory nor disk.
//!
//! The first of each kind and device go into the record as they are. After that they are counted, and the
//! count is told with the latest of them in full, often enough that a run that is killed loses seconds of
//! counting. Nothing goes uncounted; what ends by itself, such as a device's one fault, is never counted here.

use hallmark_results::frame::{Event, Kin, What};
use std::collections::BTreeMap;

/// Events of one kind and device that are told one by one.
const FIRST: u64 = 32;
/// Distance of counts: short at first, longer as they go on.
const EVERY_NS: u64 = 1_000_000_000;
const EVERY_NS_MAX: u64 = 10_000_000_000;

/// What has been told and what is still to tell.
#[derive(Default)]
pub struct Tally {
    kinds: BTreeMap<(Option<u32>, Kin), Told>,
}

struct Told {
    singly: u64,
    every_ns: u64,
    waiting: Option<Waiting>,
}

struct Waiting {
    latest: Event,
    count: u64,
    from_ns: u64,
    due_ns: u64,
}

impl Tally {
    /// Takes an event; gives it back where it is to be told now as it is.
    pub fn take(&mut self, event: Event, now_ns: u64) -> Option<Event> {
        let Some(kin) = event.what.kin() else {
            return Some(event);
        };
        let told = self.kinds.entry((event.device, kin)).or_insert(Told {
            singly: 0,
            every_ns: EVERY_NS,
            waiting: None,
        });
        if told.singly < FIRST {
            told.singly += 1;
            return Some(event);
        }
        let due_ns = now_ns.saturating_add(told.every_ns);
        match &mut told.waiting {
            Some(waiting) => {
                waiting.count += 1;
                waiting.latest = event;
            }
            None => {
                told.waiting = Some(Waiting {
                    count: 1,
                    from_ns: event.at_ns,
                    due_ns,
                    latest: event,
                });
            }
        }
        None
    }

    /// The counts that are due by now; all of them at the end.
    pub fn due(&mut self, now_ns: u64, all: bool) -> Vec<Event> {
        let mut events = Vec::new();
        for told in self.kinds.values_mut() {
            let Some(waiting) = told.waiting.take_if(|w| all || now_ns >= w.due_ns) else {
                continue;
            };
            told.every_ns = (told.every_ns * 2).min(EVERY_NS_MAX);
            let Event {
                at_ns,
                device,
                what,
            } = waiting.latest;
            events.push(Event {
                at_ns,
                device,
                what: What::More {
                    latest: Box::new(what),
                    count: waiting.count,
                    from_ns: waiting.from_ns,
                },
            });
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(at_ns: u64, device: u32) -> Event {
        let detail = format!("wrong at {at_ns}");
        Event {
            at_ns,
            device: Some(device),
            what: What::Mismatch { detail },
        }
    }

    #[test]
    fn a_million_wrong_results_are_all_counted_in_few_events() {
        let mut tally = Tally::default();
        let (mut told, mut events) = (0, 0);
        for i in 0..1_000_000_u64 {
            let now = i * 10_000_000;
            for event in tally
                .take(wrong(now, 3), now)
                .into_iter()
                .chain(tally.due(now, false))
            {
                events += 1;
                told += match event.what {
                    What::More { count, .. } => count,
                    _ => 1,
                };
            }
        }
        let last = tally.due(u64::MAX, true);
        assert_eq!(last.len(), 1);
        let What::More { latest, count, .. } = &last[0].what else {
            panic!("{:?}", last[0]);
        };
        assert!(
            matches!(&**latest, What::Mismatch { detail } if detail == "wrong at 9999990000000")
        );
        assert_eq!(told + count, 1_000_000);
        // Nearly three hours: one event each ten seconds.
        assert!((900..1_100).contains(&events), "{events}");
    }

    #[test]
    fn devices_and_kinds_are_counted_apart_and_a_devices_fault_never_waits() {
        let mut tally = Tally::default();
        for i in 0..FIRST {
            assert!(tally.take(wrong(i, 0), i).is_some());
        }
        assert!(tally.take(wrong(40, 0), 40).is_none());
        assert!(tally.take(wrong(40, 1), 40).is_some());
        let stop = What::Stop { why: String::new() };
        for i in 0..100 {
            let event = Event {
                at_ns: i,
                device: None,
                what: stop.clone(),
            };
            assert!(tally.take(event, i).is_some());
        }
    }
}
