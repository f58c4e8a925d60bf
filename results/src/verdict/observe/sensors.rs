//! What sensors gave: series by place and scope, and how completely they gave it.
//!
//! A device of the plan whose sensor is not there is a place without evidence, never a place less. A
//! series that was read too seldom, or that never moves, cannot pass; what it has shown to be wrong counts.

use super::super::evidence::Evidence;
use super::{Scene, Sight, gathered, missing};
use crate::diagnosis::place::Groups;
use crate::diagnosis::{Level, sensor};
use crate::frame::{Series, SeriesKind, Table};
use crate::standing::SeriesWindow;
use crate::standing::TableRun;
use crate::stats::interval::Interval;
use hallmark_profiles::criterion::{Criterion, Scope, Statistic};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::{Unit, human};
use std::collections::BTreeSet;

/// Share of the expected samples below which a series cannot pass anything.
const COVERAGE_FLOOR: f64 = 0.95;
/// A gap longer than this, or than so many periods, is a stretch of which nothing is known.
const GAP_NS: u64 = 5_000_000_000;
const GAP_PERIODS: u64 = 10;
/// More samples of a device than its period leaves room for weigh the moments of their sender's choice.
const CROWDED: f64 = 1.1;
const CROWDED_LEAST: f64 = 5.0;
/// Who tells of a device cannot say for itself how seldom that need be: its period counts up to so much, or the plan's.
/// A meter of the hall may give a mean each minute.
const PERIOD_NS: u64 = 2_000_000_000;
const METER_PERIOD_NS: u64 = 120_000_000_000;
/// Samples over the run from which a reading that never changed is a stuck sensor, not a steady device.
const STUCK_SAMPLES: u64 = 200;

/// Counters of faults: what happens before or between the phases counts too.
pub const OF_THE_RUN: [Metric; 7] = [
    Metric::Xid,
    Metric::Ecc,
    Metric::EccCorrected,
    Metric::RowRemap,
    Metric::NvlinkErr,
    Metric::PcieReplay,
    Metric::LinkFlaps,
];

/// One series of one sensor.
#[derive(Clone, Copy)]
pub(super) struct Channel<'a> {
    pub run: &'a TableRun,
    column: usize,
}

impl<'a> Channel<'a> {
    pub fn series(&self) -> &'a Series {
        &self.run.table.series[self.column]
    }

    pub(super) fn whole(&self) -> &'a SeriesWindow {
        &self.run.whole[self.column]
    }

    fn named(&self) -> String {
        let series = self.series();
        if series.label.is_empty() {
            return series.metric.to_string();
        }
        format!("{} {}", series.metric, series.label)
    }
}

/// Every series of a metric, over these sensors.
pub(super) fn channels_in<'a>(
    runs: impl IntoIterator<Item = &'a TableRun>,
    wanted: impl Fn(&Series) -> bool,
) -> Vec<Channel<'a>> {
    let columns = |run: &'a TableRun| 0..run.table.series.len();
    let all = runs.into_iter();
    let all = all.flat_map(|run| columns(run).map(move |column| Channel { run, column }));
    all.filter(|c| wanted(c.series())).collect()
}

impl<'a> Scene<'a> {
    /// Every series of a metric, over all sensors.
    pub(super) fn channels(&self, wanted: impl Fn(&Series) -> bool) -> Vec<Channel<'a>> {
        channels_in(self.standing.tables(), wanted)
    }

    /// Series of a metric at the places of the criterion's scope.
    pub(super) fn series(&self, criterion: &Criterion) -> Vec<Sight<'a>> {
        let metric = criterion.metric;
        let all = self.channels(|s| s.metric == metric);
        if criterion.scope == Scope::Gpu {
            return self.by_device(criterion, &all);
        }
        let (level, groups) = (
            level(criterion.scope),
            Groups::of(&self.standing.opened().plan.devices),
        );
        let at = |c: &Channel, l| !c.series().is_of_a_part() && self.is_at(c, l, &groups);
        let found: Vec<Channel> = all
            .iter()
            .filter(|c| level.is_none_or(|level| at(c, level)))
            .copied()
            .collect();
        if found.is_empty() {
            let scope = format!("{:?}", criterion.scope).to_lowercase();
            return vec![missing(scope, format!("no sensor gave {metric}"))];
        }
        // A rack, CDU, feeder or node that the plan names and whose meter is not there is a place without evidence.
        let places = found.iter().map(|c| groups.of_meter(&c.run.table.place));
        let places: BTreeSet<(Level, String)> = places.map(|p| (p.level, p.name)).collect();
        let named = groups.all().iter().filter(|g| Some(g.level) == level);
        let unseen = named.filter(|g| !places.contains(&(g.level, g.label.clone())));
        let unseen = unseen.map(|g| missing(&g.label, format!("no sensor gave {metric} of it")));
        let counters = found.iter().all(|c| c.series().kind == SeriesKind::Counter);
        if counters && criterion.statistic == Statistic::Total {
            let sum = std::iter::once(self.sum(criterion, &found));
            return sum.chain(unseen).collect();
        }
        let sight = |c: &Channel<'a>| self.sight(c, criterion);
        found.iter().map(sight).chain(unseen).collect()
    }

    /// Whether a meter stands at such a place: the run's own host is a node, and a name that the plan does not know is
    /// taken at its word.
    fn is_at(&self, channel: &Channel, level: Level, groups: &Groups) -> bool {
        let table = &channel.run.table;
        if table.device.is_some() {
            return false;
        }
        let own = table.place == self.standing.opened().host.name;
        let place = groups.of_meter(&table.place);
        let unknown = place.level == Level::Hall && place.devices.is_empty();
        match level {
            Level::Node => own || place.level == Level::Node,
            _ => !own && (unknown || place.level == level),
        }
    }

    /// One or more sights for each device of the plan.
    fn by_device(&self, criterion: &Criterion, all: &[Channel<'a>]) -> Vec<Sight<'a>> {
        let devices = &self.standing.opened().plan.devices;
        let on_devices = all.iter().any(|c| c.run.table.device.is_some());
        // A processor's shares have the node's sensors for their own.
        let shared = !on_devices && !all.is_empty() && devices.iter().all(|d| d.software);
        if shared {
            return all.iter().map(|c| self.sight(c, criterion)).collect();
        }
        let mut owned: Vec<Vec<Channel>> = vec![Vec::new(); devices.len()];
        for channel in all {
            let device = channel.run.table.device;
            if let Some(own) = device.and_then(|d| owned.get_mut(d as usize)) {
                own.push(*channel);
            }
        }
        let mut sights = Vec::new();
        for (index, (device, own)) in devices.iter().zip(owned).enumerate() {
            if own.is_empty() {
                let why = format!("no sensor gave {} of this device", criterion.metric);
                let evidence = Evidence::Missing(why);
                sights.push(Sight::new(device.id.clone(), Some(index as u32), evidence));
            } else if criterion.metric == Metric::ThrottleFrac
                && criterion.statistic == Statistic::Total
            {
                sights.push(self.any_reason(&device.id, index as u32, &own));
            } else {
                sights.extend(own.iter().map(|c| self.sight(c, criterion)));
            }
        }
        sights
    }

    /// Time under any reason: at least that of the longest, at most that of all together.
    fn any_reason(&self, place: &str, device: u32, own: &[Channel<'a>]) -> Sight<'a> {
        let shares = own.iter().filter(|c| c.series().kind == SeriesKind::Gauge);
        let (mut most, mut sum, mut samples) = (0.0_f64, 0.0, u64::MAX);
        let mut thin = None;
        for channel in shares {
            let window = self.window_of(channel, false);
            let Some(share) = window.and_then(SeriesWindow::mean_over_time) else {
                let why = format!("{} has no valid sample in this phase", channel.named());
                return Sight::new(place, Some(device), Evidence::Missing(why));
            };
            most = most.max(share);
            sum += share;
            samples = samples.min(window.map_or(0, |w| w.valid));
            thin = thin.or_else(|| self.thin(channel, false));
        }
        if samples == u64::MAX {
            let why = "no sensor gave the time under a reason".to_owned();
            return Sight::new(place, Some(device), Evidence::Missing(why));
        }
        let high = sum.min(1.0);
        let evidence = Evidence::Interval {
            at: Box::new(move |_| {
                Some(Interval {
                    low: most,
                    value: most,
                    high,
                })
            }),
            samples,
        };
        Sight {
            thin,
            ..Sight::new(place, Some(device), evidence)
        }
    }

    /// Growth of counters at all places of a scope together; one that is not known leaves the sum unknown.
    fn sum(&self, criterion: &Criterion, found: &[Channel<'a>]) -> Sight<'a> {
        let whole = is_run_wide(criterion);
        let devices = &self.standing.opened().plan.devices;
        let owners: BTreeSet<u32> = found.iter().filter_map(|c| c.run.table.device).collect();
        let lacks = |d: &usize| !owners.is_empty() && !owners.contains(&(*d as u32));
        let place = format!("{:?}", criterion.scope).to_lowercase();
        let mut thin = (0..devices.len()).find(lacks).map(|d| {
            let id = &devices[d].id;
            format!("no sensor gave {} of {id}", criterion.metric)
        });
        let (mut value, mut samples) = (0.0, u64::MAX);
        for channel in found {
            let window = self.window_of(channel, whole);
            value += window.map_or(0.0, |w| self.growth(channel, w, whole));
            samples = samples.min(window.map_or(0, |w| w.valid));
            thin = thin.or_else(|| self.thin(channel, whole));
        }
        Sight {
            thin,
            ..Sight::new(place, None, Evidence::Exact { value, samples })
        }
    }

    /// The device that a series belongs to, or where its meter is.
    fn place_of(&self, channel: &Channel<'a>) -> String {
        let table = &channel.run.table;
        let devices = &self.standing.opened().plan.devices;
        let device = table.device.and_then(|d| devices.get(d as usize));
        device.map_or_else(|| table.place.clone(), |d| d.id.clone())
    }

    pub(super) fn window_of(&self, channel: &Channel<'a>, whole: bool) -> Option<&'a SeriesWindow> {
        if whole {
            return Some(channel.whole());
        }
        let table = channel.run.table.id;
        self.window.series(table, channel.column as u32)
    }

    fn sight(&self, channel: &Channel<'a>, criterion: &Criterion) -> Sight<'a> {
        let whole = is_run_wide(criterion);
        let series = channel.series();
        let named = channel.named();
        let (own, wanted) = (series.unit, series.metric.spec().unit);
        let evidence = match self.window_of(channel, whole).filter(|w| w.valid > 0) {
            _ if own != wanted => {
                Evidence::Missing(format!("{named} came in {own}, not in {wanted}"))
            }
            Some(window) => self.of_series(channel, window, criterion.statistic, whole),
            None => Evidence::Missing(format!("{named} has no valid sample")),
        };
        let place = self.place_of(channel);
        let place = if series.label.is_empty() {
            place
        } else {
            format!("{place} {}", series.label)
        };
        Sight {
            thin: self.thin(channel, whole),
            ..Sight::new(place, channel.run.table.device, evidence)
        }
    }

    /// What a series says for a statistic.
    fn of_series(
        &self,
        channel: &Channel<'a>,
        w: &'a SeriesWindow,
        statistic: Statistic,
        whole: bool,
    ) -> Evidence<'a> {
        let (series, samples) = (channel.series(), w.valid);
        let metric = series.metric;
        match series.kind {
            SeriesKind::Counter => Evidence::Exact {
                value: self.growth(channel, w, whole),
                samples,
            },
            SeriesKind::Mask => {
                Evidence::Missing(format!("{metric} is a mask; judge the time of its reasons"))
            }
            // A state over the run, such as failed row remaps: its worst.
            SeriesKind::Gauge if whole => Evidence::Exact {
                value: w.extremes.map_or(f64::NAN, |(_, high)| high),
                samples,
            },
            // The total of a share of time is its mean over that time.
            SeriesKind::Gauge if statistic == Statistic::Total && series.unit == Unit::One => {
                w.mean_over_time().map_or_else(
                    || Evidence::Missing(format!("{metric} has no valid sample in this phase")),
                    |value| Evidence::Exact { value, samples },
                )
            }
            SeriesKind::Gauge => gathered(&w.values, "no valid sample in this phase"),
        }
    }

    /// What a counter grew by; of driver errors over the run no fewer than were told one by one, for the first sample of a
    /// counter is its beginning, and an error may come before it.
    fn growth(&self, channel: &Channel<'a>, window: &SeriesWindow, whole: bool) -> f64 {
        let devices = self.standing.devices();
        let device = channel
            .run
            .table
            .device
            .and_then(|d| devices.get(d as usize));
        match device {
            Some(device) if whole && channel.series().metric == Metric::Xid => {
                window.growth.max(device.xids as f64)
            }
            _ => window.growth,
        }
    }

    /// Why a series shows too little to pass, if it does.
    pub(super) fn thin(&self, channel: &Channel<'a>, whole: bool) -> Option<String> {
        let series = self.window_of(channel, whole);
        let (start_ns, end_ns) = self.stretch(whole);
        let period_ns = self.period_ns(&channel.run.table);
        let expected = expected(self.standing.driven_ns(start_ns..end_ns), period_ns);
        let valid = series.map_or(0, |w| w.valid);
        if (valid as f64) < COVERAGE_FLOOR * expected {
            return Some(format!("only {valid} of about {expected:.0} samples came"));
        }
        let of_device = channel.run.table.device.is_some();
        if of_device && valid as f64 > CROWDED * expected + CROWDED_LEAST {
            return Some(format!(
                "{valid} samples came, where {expected:.0} were due"
            ));
        }
        let gap = series.map_or(u64::MAX, |w| w.longest_gap_to(start_ns, end_ns));
        if gap > GAP_NS.max(GAP_PERIODS.saturating_mul(period_ns)) {
            return Some(format!("nothing came for {:.1} s", gap as f64 / 1e9));
        }
        let ill = || sensor::ill(self.standing, channel.run.table.id as usize, channel.column);
        stuck(channel).or_else(|| ill().map(|i| i.why))
    }

    /// Time after which a sensor's next reading was due.
    fn period_ns(&self, table: &Table) -> u64 {
        let most = if table.device.is_some() {
            PERIOD_NS
        } else {
            METER_PERIOD_NS
        };
        let of_plan = self.standing.opened().plan.sample_period_ns;
        table.period_ns.clamp(1, most.max(of_plan))
    }

    /// The time that is looked at: the window, or all segments of the run.
    fn stretch(&self, whole: bool) -> (u64, u64) {
        let windows = self.standing.windows();
        match (windows.first(), windows.last()) {
            (Some(first), Some(last)) if whole => {
                let end_ns = last.end_ns.unwrap_or_else(|| self.standing.last_ns());
                (first.start_ns, end_ns)
            }
            _ => (self.window.start_ns, self.end_ns),
        }
    }

    /// Per series that the profile declares (or of all, where it declares none): what was received of what was expected.
    pub(super) fn coverage(&self) -> Vec<Sight<'a>> {
        self.every_series(|s, window, period_ns| {
            let expected = expected(s.length(), period_ns);
            // Dither can fit a sample more into the window than the mean period says.
            let valid = window.map_or(0, |w| w.valid) as f64;
            // Many samples at once say nothing of the time in which none came.
            let covered = window.map_or(0, |w| w.covered_ns(s.end_ns)) as f64;
            let of_time = covered / s.length().max(1) as f64;
            100.0 * (valid / expected).min(of_time).min(1.0)
        })
    }

    pub(super) fn gaps(&self) -> Vec<Sight<'a>> {
        self.every_series(|s, window, period_ns| {
            let whole = s.length();
            let longest = window.map_or(whole, |w| w.longest_gap_to(s.window.start_ns, s.end_ns));
            // A meter that gives a mean each minute is silent in between by design; up to a second is no matter.
            let due = if period_ns > 1_000_000_000 {
                period_ns
            } else {
                0
            };
            longest.saturating_sub(due) as f64 / 1e9
        })
    }

    fn every_series(
        &self,
        value: impl Fn(&Self, Option<&SeriesWindow>, u64) -> f64,
    ) -> Vec<Sight<'a>> {
        let declared = &self.standing.profile().telemetry.metrics;
        let wanted = |s: &Series| declared.is_empty() || declared.contains(&s.metric);
        let sight = |c: Channel<'a>| {
            let window = self.window_of(&c, false);
            let evidence = Evidence::Exact {
                value: value(self, window, self.period_ns(&c.run.table)),
                samples: window.map_or(0, |w| w.valid),
            };
            let place = match c.run.table.device {
                Some(_) => self.place_of(&c),
                None => c.run.table.name.clone(),
            };
            let place = format!("{place} {}", c.named());
            Sight::new(place, c.run.table.device, evidence)
        };
        let sights: Vec<_> = self.channels(wanted).into_iter().map(sight).collect();
        if sights.is_empty() {
            return vec![missing("site", "no sensor gave a series")];
        }
        sights
    }
}

/// The kind of place that a scope is; none where all sensors are looked at together.
const fn level(scope: Scope) -> Option<Level> {
    match scope {
        Scope::Node => Some(Level::Node),
        Scope::Rack => Some(Level::Rack),
        Scope::Cdu => Some(Level::Cdu),
        Scope::Feeder => Some(Level::Feeder),
        Scope::Gpu | Scope::Group | Scope::Site => None,
    }
}

/// Whether the criterion counts what happened at any time, not only in one phase.
pub fn is_run_wide(criterion: &Criterion) -> bool {
    criterion.phase.is_none() && OF_THE_RUN.contains(&criterion.metric)
}

/// Samples that a stretch must hold; one may fall out at its edges.
fn expected(length_ns: u64, period_ns: u64) -> f64 {
    (length_ns as f64 / period_ns as f64 - 1.0).max(1.0)
}

/// A power or temperature that reads the same from idle to full load and back is not that device's.
fn stuck(channel: &Channel) -> Option<String> {
    let moves = matches!(
        channel.series().metric,
        Metric::PowerDraw | Metric::PowerInstant | Metric::TempCore | Metric::TempMemory
    );
    let whole = channel.whole();
    let (low, high) = whole.extremes?;
    let same = high - low <= 0.0;
    (moves && same && whole.valid >= STUCK_SAMPLES).then(|| {
        let value = human(low, channel.series().unit);
        format!("it read {value} from the start to the end: a stuck sensor?")
    })
}
