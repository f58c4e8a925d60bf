//! How a rank waits for a word of shared memory: a brief spin, then yielding, then sleep.
//!
//! Peers that run in step meet within the spin and pay no system call; a rank whose peer is late
//! gives its core back after a quarter of a millisecond. Sleep is cut into slices, so that a lost
//! wake-up or a mark set elsewhere costs at most one slice.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

/// Spinning lasts at most this long, and only while every rank can have a core.
const SPIN_NS: u64 = 50_000;
/// The least it lasts: about the time a flag takes between cores.
const SPIN_NS_MIN: u64 = 800;
/// After this long in all, the wait sleeps.
const YIELD_NS: u64 = 250_000;
/// Longest single sleep.
const SLICE_NS: u64 = 5_000_000;
/// Looks at the word between two looks at the clock.
const LOOKS: u32 = 16;

/// One wait, from the first look to the last.
pub(super) struct Patience {
    now_ns: fn() -> u64,
    began_ns: u64,
    deadline_ns: u64,
    spin_ns: u64,
    reached: Cell<Reached>,
}

/// How long to spin, learnt from how it went: two ranks that share a core after all, because
/// something else took the other, would spend every spin keeping each other from running.
pub(super) struct Spin(u64);

impl Default for Spin {
    fn default() -> Self {
        Self(SPIN_NS)
    }
}

impl Spin {
    pub(super) fn ns(&self) -> u64 {
        self.0
    }

    pub(super) fn learn(&mut self, from: &Patience) {
        self.0 = match from.reached.get() {
            // Whoever comes last has nothing to wait for and learns nothing.
            Reached::Nothing => self.0,
            Reached::Spin => (self.0 * 2).min(SPIN_NS),
            Reached::Yield => (self.0 / 2).max(SPIN_NS_MIN),
        };
    }
}

/// How far a wait went before its word came.
#[derive(Clone, Copy)]
enum Reached {
    Nothing,
    Spin,
    Yield,
}

/// Whether the time that was given is used up.
#[derive(PartialEq, Eq)]
pub(super) enum Patient {
    Still,
    NoMore,
}

impl Patience {
    /// `spin_ns`: 0 where no core is free for each rank, so that spinning would hold up the one waited for.
    pub(super) fn new(now_ns: fn() -> u64, deadline_ns: u64, spin_ns: u64) -> Self {
        Self {
            now_ns,
            began_ns: now_ns(),
            deadline_ns,
            spin_ns,
            reached: Cell::new(Reached::Nothing),
        }
    }

    /// Waits a little for `word` to change from `seen`; returns early if it does.
    pub(super) fn pause(&self, word: &AtomicU32, sleepers: &AtomicU32, seen: u32) -> Patient {
        let now_ns = (self.now_ns)();
        if now_ns >= self.deadline_ns {
            return Patient::NoMore;
        }
        let waited_ns = now_ns.saturating_sub(self.began_ns);
        if waited_ns < self.spin_ns {
            self.reached.set(Reached::Spin);
            for _ in 0..LOOKS {
                std::hint::spin_loop();
                if word.load(Ordering::Acquire) != seen {
                    break;
                }
            }
        } else if waited_ns < YIELD_NS {
            self.reached.set(Reached::Yield);
            std::thread::yield_now();
        } else {
            // The waker stores the word, then reads this count; this side counts itself, then the
            // kernel reads the word: one of the two sees the other.
            sleepers.fetch_add(1, Ordering::SeqCst);
            sleep(word, seen, SLICE_NS.min(self.deadline_ns - now_ns));
            sleepers.fetch_sub(1, Ordering::SeqCst);
        }
        Patient::Still
    }
}

/// Stores `value` where peers may be waiting for it, after everything written before.
pub(super) fn publish(word: &AtomicU32, sleepers: &AtomicU32, value: u32) {
    word.store(value, Ordering::SeqCst);
    if sleepers.load(Ordering::SeqCst) != 0 {
        wake(word);
    }
}

/// Sleeps while `word` reads `seen`, at most `limit_ns`; may return early.
#[cfg(target_os = "linux")]
fn sleep(word: &AtomicU32, seen: u32, limit_ns: u64) {
    use rustix::thread::futex::{Flags, Timespec, wait};
    let limit = Timespec {
        tv_sec: (limit_ns / 1_000_000_000) as i64,
        tv_nsec: (limit_ns % 1_000_000_000) as _,
    };
    // Every outcome, an error included, means the same: look again.
    let _ = wait(word, Flags::empty(), seen, Some(&limit));
}

/// Wakes all that sleep on `word`, in every process.
#[cfg(target_os = "linux")]
pub(super) fn wake(word: &AtomicU32) {
    // An error means that nobody sleeps there.
    let _ =
        rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), i32::MAX as u32);
}

/// Without a futex shared between processes, sleep is short and unconditional.
#[cfg(not(target_os = "linux"))]
fn sleep(_word: &AtomicU32, _seen: u32, limit_ns: u64) {
    std::thread::sleep(std::time::Duration::from_nanos(limit_ns.min(200_000)));
}

/// Sleepers wake by themselves.
#[cfg(not(target_os = "linux"))]
pub(super) fn wake(_word: &AtomicU32) {}
