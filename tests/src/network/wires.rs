//! What becomes of a frame between two hosts: lost, or delivered at a known time.
//!
//! A state machine without clock or device; time is an argument, counted from any instant. Every host hangs on the switch
//! by a wire of its own, so a frame passes two wires, and each may lose it, hold it back or be cut. It refuses nothing
//! and never reorders what passes one wire at one delay.

use hallmark_results::stats::bootstrap::SplitMix64;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// What a wire with a rate holds back at most; a frame that would wait longer is lost.
const BUFFER: Duration = Duration::from_millis(50);
/// Where the addresses of receiver and sender lie in a frame, B.
const RECEIVER: std::ops::Range<usize> = 0..6;
const SENDER: std::ops::Range<usize> = 6..12;

/// What a host's wire is like, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// From one end to the other.
    pub delay: Duration,
    /// Share of the frames that are lost, 0 to 1.
    pub loss: f64,
    /// Most that passes, bit/s; any amount where it is `None`.
    pub rate: Option<u64>,
    /// Whether anything passes.
    pub up: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            loss: 0.0,
            rate: None,
            up: true,
        }
    }
}

/// Frames that have met a host's wire, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub passed: u64,
    pub lost: u64,
}

#[derive(Clone, Copy)]
enum Way {
    ToSwitch = 0,
    ToHost = 1,
}

#[derive(Debug, Default)]
struct Wire {
    link: Link,
    /// Until when each direction is taken.
    busy: [Duration; 2],
    traffic: Traffic,
}

/// When a frame is due, its number, where it goes to, and its bytes.
type Flying = (Duration, u64, usize, Vec<u8>);

/// The wires of all hosts, and the frames on their way.
#[derive(Debug)]
pub struct Wires {
    wires: Vec<Wire>,
    /// The host behind each address that has sent something.
    known: BTreeMap<[u8; 6], usize>,
    /// By due time, then in their order; with the host that each is for.
    flight: BinaryHeap<Reverse<Flying>>,
    taken: u64,
    chance: SplitMix64,
}

impl Wires {
    /// Wires of so many hosts, none of which worsens anything; `seed` is that of all losses.
    #[must_use]
    pub fn new(hosts: usize, seed: u64) -> Self {
        Self {
            wires: (0..hosts).map(|_| Wire::default()).collect(),
            known: BTreeMap::new(),
            flight: BinaryHeap::new(),
            taken: 0,
            chance: SplitMix64::new(seed),
        }
    }

    /// Makes a host's wire another from now on; frames on their way keep their time.
    pub fn set(&mut self, host: usize, link: Link) {
        self.wires[host].link = link;
    }

    /// What has met a host's wire so far.
    #[must_use]
    pub fn traffic(&self, host: usize) -> Traffic {
        self.wires[host].traffic
    }

    /// Takes a frame that a host has sent.
    pub fn take(&mut self, now: Duration, from: usize, frame: &[u8]) {
        let (Some(receiver), Some(sender)) = (frame.get(RECEIVER), frame.get(SENDER)) else {
            return;
        };
        if let Ok(sender) = sender.try_into() {
            self.known.insert(sender, from);
        }
        let only = self.known.get(receiver).copied();
        let Some(at_switch) = self.pass(from, Way::ToSwitch, now, frame.len()) else {
            return;
        };
        let hosts = 0..self.wires.len();
        let to = hosts.filter(|host| *host != from && only.is_none_or(|only| only == *host));
        for host in to {
            if let Some(due) = self.pass(host, Way::ToHost, at_switch, frame.len()) {
                self.taken += 1;
                let entry = (due, self.taken, host, frame.to_vec());
                self.flight.push(Reverse(entry));
            }
        }
    }

    /// When a frame that meets a wire then has passed it; `None` where it is lost.
    fn pass(&mut self, host: usize, way: Way, then: Duration, bytes: usize) -> Option<Duration> {
        // Drawn in any case, so that a change of one wire does not change the luck of the others.
        let luck = self.chance.unit();
        let wire = &mut self.wires[host];
        let Link {
            delay,
            loss,
            rate,
            up,
        } = wire.link;
        let busy = &mut wire.busy[way as usize];
        let free = then.max(*busy);
        if !up || luck < loss || rate.is_some() && free - then > BUFFER {
            wire.traffic.lost += 1;
            return None;
        }
        let takes = rate.map_or(0.0, |rate| bytes as f64 * 8.0 / rate as f64);
        let passed = free + Duration::from_secs_f64(takes);
        if rate.is_some() {
            *busy = passed;
        }
        wire.traffic.passed += 1;
        Some(passed + delay)
    }

    /// When the next frame is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.flight.peek().map(|Reverse((due, ..))| *due)
    }

    /// The next frame that is due by now, and for whom; one that comes to a wire that was cut meanwhile is lost.
    pub fn due(&mut self, now: Duration) -> Option<(usize, Vec<u8>)> {
        while self.next_due().is_some_and(|due| due <= now) {
            let Reverse((_, _, host, frame)) = self.flight.pop()?;
            if self.wires[host].link.up {
                return Some((host, frame));
            }
            let traffic = &mut self.wires[host].traffic;
            (traffic.passed, traffic.lost) = (traffic.passed - 1, traffic.lost + 1);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYONE: u8 = 0xFF;

    /// A frame from one host to another, of so many bytes.
    fn frame(to: u8, from: u8, bytes: usize) -> Vec<u8> {
        let mut frame = vec![0; bytes];
        frame[RECEIVER].fill(to);
        frame[SENDER].fill(from);
        frame
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Hosts that have all been heard of.
    fn wires(hosts: u8) -> Wires {
        let mut wires = Wires::new(usize::from(hosts), 11);
        for host in 0..hosts {
            wires.take(ms(0), usize::from(host), &frame(EVERYONE, host, 60));
        }
        while wires.due(ms(0)).is_some() {}
        wires
    }

    #[test]
    fn a_frame_comes_to_its_receiver_alone_after_the_delays_of_both_wires() {
        let mut wires = wires(3);
        for (host, delay) in [(0, ms(5)), (1, ms(20))] {
            let link = Link {
                delay,
                ..Link::default()
            };
            wires.set(host, link);
        }
        wires.take(ms(100), 0, &frame(1, 0, 60));
        assert_eq!(wires.next_due(), Some(ms(125)));
        assert_eq!(wires.due(ms(124)), None);
        assert_eq!(wires.due(ms(125)), Some((1, frame(1, 0, 60))));
        assert_eq!(wires.due(ms(999)), None);
    }

    #[test]
    fn whom_nobody_has_heard_of_is_looked_for_everywhere() {
        let mut wires = Wires::new(3, 11);
        wires.take(ms(0), 1, &frame(2, 1, 60));
        let to = [wires.due(ms(0)), wires.due(ms(0))].map(|f| f.map(|f| f.0));
        assert_eq!(to, [Some(0), Some(2)]);
    }

    #[test]
    fn nothing_passes_a_cut_wire_not_even_what_was_on_its_way() {
        let mut wires = wires(2);
        let slow = Link {
            delay: ms(50),
            ..Link::default()
        };
        let cut = Link { up: false, ..slow };
        wires.set(1, slow);
        wires.take(ms(0), 0, &frame(1, 0, 60));
        wires.set(1, cut);
        wires.take(ms(10), 0, &frame(1, 0, 60));
        wires.take(ms(10), 1, &frame(0, 1, 60));
        assert_eq!(wires.due(ms(1_000)), None);
        let before = wires.traffic(1).lost;
        assert_eq!(before, 3);
        wires.set(1, slow);
        wires.take(ms(2_000), 0, &frame(1, 0, 60));
        assert!(wires.due(ms(2_050)).is_some());
        assert_eq!(wires.traffic(1).lost, before);
    }

    #[test]
    fn a_share_of_the_frames_is_lost_and_the_same_ones_by_the_same_seed() {
        let lost = |seed| {
            let mut wires = Wires::new(2, seed);
            let link = Link {
                loss: 0.2,
                ..Link::default()
            };
            wires.set(1, link);
            let send = |n: u64| {
                let now = ms(n);
                wires.take(now, 0, &frame(1, 0, 60));
                wires.due(now).is_none()
            };
            (0..10_000).map(send).collect::<Vec<bool>>()
        };
        let once = lost(3);
        let share = once.iter().filter(|l| **l).count() as f64 / 10_000.0;
        assert!((0.18..0.22).contains(&share), "{share}");
        assert_eq!(once, lost(3));
        assert_ne!(once, lost(4));
    }

    #[test]
    fn a_rate_spreads_a_burst_and_what_its_buffer_does_not_hold_is_lost() {
        let mut wires = wires(2);
        // 1,250 B take 10 ms of it.
        let slow = Link {
            rate: Some(1_000_000),
            ..Link::default()
        };
        wires.set(1, slow);
        for _ in 0..10 {
            wires.take(ms(0), 0, &frame(1, 0, 1_250));
        }
        let mut came = Vec::new();
        for now in 0..200 {
            while wires.due(ms(now)).is_some() {
                came.push(now);
            }
        }
        assert_eq!(came, [10, 20, 30, 40, 50, 60]);
        assert_eq!(wires.traffic(1).lost, 4);
    }
}
