//! Feeds the fold that decides when the warm-up is over: the rate of all devices together, and the
//! hottest core.

use hallmark_results::frame::What;
use hallmark_results::plan::Plan;
use hallmark_results::standing::Standing;
use hallmark_results::stats::steady::{Parameters, Steady, Warmth};

/// Rows arrive this much after the work at most, in good order.
const LAG_NS: u64 = 500_000_000;

/// The warm-up while it lasts.
pub struct WarmUp {
    steady: Steady,
    start_ns: u64,
    bin_ns: u64,
    /// FLOP by bin since the start.
    bins: Vec<f64>,
    /// Bins that have been given to the fold.
    given: usize,
}

impl WarmUp {
    /// `None` where the profile's figures allow no decision; the segment then runs to its limit.
    pub fn new(plan: &Plan, now_ns: u64) -> Option<Self> {
        let ns = |t: hallmark_profiles::quantity::Time| t.duration().as_nanos() as u64;
        let w = &plan.warmup;
        let parameters = Parameters {
            window_ns: ns(w.window),
            rate_tolerance: w.rate_tolerance,
            temperature_tolerance_k_per_min: w.temperature_tolerance.value,
            least_ns: ns(w.least),
            limit_ns: ns(w.limit),
        };
        Some(Self {
            steady: Steady::new(parameters, now_ns).ok()?,
            start_ns: now_ns,
            bin_ns: (ns(w.window) / 16).max(1),
            bins: Vec::new(),
            given: 0,
        })
    }

    /// Takes a completed step into account, its work spread over its time.
    pub fn work(&mut self, start_ns: u64, end_ns: u64, flop: f64) {
        let (from, to) = (
            start_ns.saturating_sub(self.start_ns),
            end_ns.saturating_sub(self.start_ns),
        );
        let (first, last) = (from / self.bin_ns, to / self.bin_ns);
        if last >= 1 << 20 {
            return;
        }
        if self.bins.len() <= last as usize {
            self.bins.resize(last as usize + 1, 0.0);
        }
        let length = end_ns.saturating_sub(start_ns).max(1) as f64;
        for bin in first..=last {
            let begin = from.max(bin * self.bin_ns);
            let end = to.min((bin + 1) * self.bin_ns);
            self.bins[bin as usize] += flop * end.saturating_sub(begin) as f64 / length;
        }
    }

    /// What to journal once the warm-up is over, by evidence or by its limit.
    pub fn poll(&mut self, now_ns: u64, standing: &Standing) -> Option<What> {
        let hottest = standing.hottest();
        let mut warmth = self.steady.tick(now_ns);
        loop {
            let end_ns = self.start_ns + (self.given as u64 + 1) * self.bin_ns;
            if end_ns + LAG_NS > now_ns || warmth != Warmth::Warming {
                break;
            }
            let flop = self.bins.get(self.given).copied().unwrap_or(0.0);
            let rate = flop * 1e9 / self.bin_ns as f64;
            self.given += 1;
            warmth = self.steady.push(end_ns, rate, hottest);
        }
        match warmth {
            Warmth::Warming => None,
            Warmth::SteadySince(_) => Some(What::Steady),
            Warmth::LimitReached => Some(What::NeverSteady {
                why: "rate or temperature still moved at the warm-up's limit".to_owned(),
            }),
        }
    }
}
