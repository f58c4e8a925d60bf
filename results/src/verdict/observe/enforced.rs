//! The power limit that a device's driver enforced, which its power is held against.
//!
//! One limit for the whole window, or none: a share of a limit that moved says nothing. Refuses to let a run pass whose
//! limit was lowered, before the window or in it, since a lower limit is easier to reach.

use super::sensors::channels_in;
use super::{Scene, Sight};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};

/// Two readings of a limit nearer than this are the same one, W: drivers tell milliwatts.
const SAME_W: f64 = 0.5;

impl<'a> Scene<'a> {
    /// Adds what the driver enforced at the place of `sight`, and what of it leaves the sight thin.
    pub(super) fn enforce(&self, sight: &mut Sight<'a>) {
        let found = self.enforced(sight.device);
        sight.enforced = Some(found.map(|(limit, thin)| {
            sight.thin = sight.thin.take().or(thin);
            limit
        }));
    }

    /// The limit, W, and why a pass cannot rest on it, if it cannot.
    fn enforced(&self, device: Option<u32>) -> Result<(f64, Option<String>), String> {
        let metric = Metric::PowerLimit;
        let own = device.into_iter().flat_map(|d| self.standing.tables_of(d));
        let own = channels_in(own, |s| s.metric == metric && s.unit == Unit::Watt);
        let channel = own.first();
        let channel = channel.ok_or_else(|| format!("no sensor gave {metric} of this device"))?;
        let said = |w| human(w, Unit::Watt);
        let none = || format!("{metric} has no valid sample in this phase");
        let window = self.window_of(channel, false).and_then(|w| w.extremes);
        let (low, high) = window.ok_or_else(none)?;
        if high - low > SAME_W {
            let (low, high) = (said(low), said(high));
            return Err(format!(
                "the enforced power limit moved between {low} and {high} in this phase"
            ));
        }
        let highest = self.window_of(channel, true).and_then(|w| w.extremes);
        let highest = highest.map_or(high, |(_, highest)| highest);
        let lowered = (highest - high > SAME_W).then(|| {
            let (from, to) = (said(highest), said(high));
            format!("the enforced power limit was lowered from {from} to {to} during the run")
        });
        Ok((low, lowered.or_else(|| self.thin(channel, false))))
    }
}
