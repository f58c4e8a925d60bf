//! Why clocks are held down: the reasons watched, and the share of time each was active.
//!
//! Decides: the share from the driver's own nanosecond counter where the device has one, else from
//! the mask at the instant of the read (1 or 0, whose mean over dithered reads is the share).
//! Refuses: to choose one reason when several hold; each is a series of its own. An interval whose
//! counter went backwards has no value.

use hallmark_profiles::metric::Metric;

/// One clocks-event reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    pub metric: Metric,
    pub label: &'static str,
    /// Its bit in the mask. Source: `nvml.h`, `nvmlClocksEventReason…`.
    pub bit: u64,
    /// The field that counts its active time, ns, numbered as before driver 580.82.
    pub counter: Option<u32>,
}

/// The reasons that become series; the mask itself holds all others too.
pub const WATCHED: [Reason; 5] = [
    Reason {
        metric: Metric::PowerCapFrac,
        label: "sw_power_cap",
        bit: 0x04,
        counter: Some(74),
    },
    // Set together with the two below where the hardware tells them apart.
    Reason {
        metric: Metric::ThrottleFrac,
        label: "hw_slowdown",
        bit: 0x08,
        counter: None,
    },
    Reason {
        metric: Metric::ThrottleFrac,
        label: "sw_thermal",
        bit: 0x20,
        counter: Some(251),
    },
    Reason {
        metric: Metric::ThrottleFrac,
        label: "hw_thermal",
        bit: 0x40,
        counter: Some(252),
    },
    Reason {
        metric: Metric::ThrottleFrac,
        label: "hw_power_brake",
        bit: 0x80,
        counter: Some(253),
    },
];

/// Turns a counter of active time into the share of each interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ActiveTime {
    /// Run clock and counter at the last good read, ns.
    last: Option<(u64, f64)>,
    /// Active time that the driver reported beyond the interval that it fell into, ns.
    carried_ns: f64,
}

impl ActiveTime {
    /// The share of the time since the last read in which the reason was active, 0 to 1.
    ///
    /// `None`: there is no interval yet, or the counter went backwards. Drivers update the counter in
    /// lumps; what exceeds one interval is carried into the next, so that no active time is lost.
    pub fn share(&mut self, now_ns: u64, counter_ns: f64) -> Option<f64> {
        let (last_ns, last_counter_ns) = self.last.replace((now_ns, counter_ns))?;
        let elapsed_ns = now_ns.checked_sub(last_ns).filter(|ns| *ns > 0)? as f64;
        let grown_ns = counter_ns - last_counter_ns;
        if !grown_ns.is_finite() || grown_ns < 0.0 {
            self.carried_ns = 0.0;
            return None;
        }
        let active_ns = grown_ns + self.carried_ns;
        let counted_ns = active_ns.min(elapsed_ns);
        self.carried_ns = active_ns - counted_ns;
        Some(counted_ns / elapsed_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    #[test]
    fn active_time_is_a_share_of_the_interval() {
        let mut active = ActiveTime::default();
        assert_eq!(active.share(SECOND_NS, 5e9), None);
        assert_eq!(active.share(2 * SECOND_NS, 5.25e9), Some(0.25));
    }

    #[test]
    fn a_lump_of_active_time_is_spread_and_not_lost() {
        let mut active = ActiveTime::default();
        active.share(0, 0.0);
        let shares = [1.5e9, 1.5e9, 1.5e9].map(|counter_ns| {
            let now_ns = active.last.map_or(0, |(at_ns, _)| at_ns) + SECOND_NS;
            active.share(now_ns, counter_ns)
        });
        assert_eq!(shares, [Some(1.0), Some(0.5), Some(0.0)]);
    }

    #[test]
    fn a_counter_that_went_back_has_no_value_and_does_not_spoil_the_next() {
        let mut active = ActiveTime::default();
        active.share(0, 9e9);
        assert_eq!(active.share(SECOND_NS, 1e9), None);
        assert_eq!(active.share(2 * SECOND_NS, 1.5e9), Some(0.5));
    }

    #[test]
    fn time_that_stands_still_or_a_counter_that_is_no_number_has_no_value() {
        let mut active = ActiveTime::default();
        active.share(SECOND_NS, 0.0);
        assert_eq!(active.share(SECOND_NS, 1.0), None);
        assert_eq!(active.share(2 * SECOND_NS, f64::NAN), None);
    }
}
