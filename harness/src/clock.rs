//! The run's clock: nanoseconds since the run's start, and what is known of wall time.
//!
//! The only file of this crate that reads a clock or sleeps. State machines take time as an
//! argument, so that a virtual shell can drive them.

use hallmark_results::frame::ClockState;
use jiff::Timestamp;
use std::time::Duration;

/// Time since the start of a run, on the machine's monotonic clock.
///
/// All processes of a run on one machine share the epoch, and with it the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunClock {
    epoch_ns: u64,
}

impl RunClock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self {
            epoch_ns: hallmark_kernels::timer::now_ns(),
        }
    }

    /// A clock that reads `already_ns` now: a run that goes on.
    pub fn resume(already_ns: u64) -> Self {
        Self {
            epoch_ns: hallmark_kernels::timer::now_ns().wrapping_sub(already_ns),
        }
    }

    /// A clock with the epoch that another process of this machine uses.
    pub const fn with_epoch(epoch_ns: u64) -> Self {
        Self { epoch_ns }
    }

    pub const fn epoch_ns(self) -> u64 {
        self.epoch_ns
    }

    pub fn now_ns(self) -> u64 {
        self.at_ns(hallmark_kernels::timer::now_ns())
    }

    /// Run time of a reading of the monotonic clock.
    pub const fn at_ns(self, monotonic_ns: u64) -> u64 {
        // A resumed run's epoch may lie before the machine's boot, hence wrapping; a time before the epoch reads 0.
        let since = monotonic_ns.wrapping_sub(self.epoch_ns);
        if since > u64::MAX / 2 { 0 } else { since }
    }
}

/// The machine's monotonic clock, as [`RunClock::at_ns`] takes it and clocks of two machines are compared by.
pub fn monotonic_ns() -> u64 {
    hallmark_kernels::timer::now_ns()
}

/// Wall time now, RFC 3339 with milliseconds, UTC.
pub fn utc_now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// Wall time at which `clock` read zero, RFC 3339 with milliseconds, UTC: times of a record count from it.
pub fn utc_of_start(clock: RunClock) -> String {
    let since = i64::try_from(clock.now_ns()).unwrap_or(i64::MAX);
    let then = Timestamp::now().checked_sub(jiff::SignedDuration::from_nanos(since));
    then.map_or_else(|_| utc_now(), |then| format!("{then:.3}"))
}

/// Wall time now as a run id: `20261123-084500`.
pub fn utc_stamp() -> String {
    Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string()
}

/// Nanoseconds from an RFC 3339 time until now; `None` if it cannot be read or lies ahead.
pub fn since_utc_ns(text: &str) -> Option<u64> {
    let then: Timestamp = text.parse().ok()?;
    let elapsed = Timestamp::now().as_nanosecond() - then.as_nanosecond();
    u64::try_from(elapsed).ok()
}

/// Waits; for threads that own a device or a sensor.
pub fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}

/// What the kernel says of the wall clock's discipline.
#[cfg(target_os = "linux")]
pub fn clock_state() -> ClockState {
    // SAFETY: a zeroed `timex` asks for nothing to be changed (`modes` = 0); the kernel only writes into it.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    if state < 0 {
        return ClockState {
            synchronised: None,
            max_error_s: None,
        };
    }
    ClockState {
        synchronised: Some(timex.status & libc::STA_UNSYNC == 0 && state != libc::TIME_ERROR),
        max_error_s: Some(timex.maxerror as f64 / 1e6),
    }
}

#[cfg(not(target_os = "linux"))]
pub fn clock_state() -> ClockState {
    ClockState {
        synchronised: None,
        max_error_s: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_clock_goes_on_where_it_stopped() {
        let clock = RunClock::resume(5_000_000_000_000);
        let now = clock.now_ns();
        assert!(
            (5_000_000_000_000..5_001_000_000_000).contains(&now),
            "{now}"
        );
    }

    #[test]
    fn the_start_in_wall_time_is_where_the_clock_read_zero() {
        let start = utc_of_start(RunClock::resume(60_000_000_000));
        let since = since_utc_ns(&start).unwrap();
        assert!((60_000_000_000..61_000_000_000).contains(&since), "{since}");
    }

    #[test]
    fn a_reading_from_before_the_start_is_zero_not_an_age() {
        assert_eq!(RunClock::with_epoch(100).at_ns(40), 0);
        assert_eq!(RunClock::with_epoch(100).at_ns(140), 40);
    }
}
