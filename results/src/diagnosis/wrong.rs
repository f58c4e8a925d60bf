//! Wrong results and errors of memory: what was counted, and whether heat has to do with it.
//!
//! Refuses to blame heat for fewer than four wrong results, or where the device was never cool.

use super::place::Groups;
use super::{Cause, Diagnosis, Sign};
use crate::frame::{Event, What};
use crate::standing::Standing;
use crate::stats::interval::Events;
use crate::stats::outlier::median;
use crate::verdict::CONFIDENCE;
use hallmark_profiles::metric::Metric;
use std::collections::BTreeMap;

/// How a wrong sum of an all-reduce is told by the kernels.
const OF_REDUCE: &str = "all-reduce of bucket";
/// Wrong results from which their temperatures say something.
const HOT_MIN: usize = 4;
/// Share of them that must lie in the hottest quarter, and the range that makes one, K.
const HOT_SHARE: f64 = 0.9;
const HOT_QUARTER: f64 = 0.75;
const HOT_RANGE_K: f64 = 4.0;
/// Corrected errors are a nuisance one by one, and a fault in such a number more than the peers'.
const CORRECTED_MIN: f64 = 10.0;
/// Errors that the driver tells of memory. Source: NVIDIA, “Xid Errors”: 48 DBE, 63/64 row remapping, 94/95 ECC.
const MEMORY_XIDS: [u64; 5] = [48, 63, 64, 94, 95];

pub fn all(standing: &Standing) -> Vec<Diagnosis> {
    let groups = Groups::of(&standing.opened().plan.devices);
    let mut found = results(standing, &groups);
    found.extend(memory(standing, &groups));
    found
}

/// One telling of wrong results: when, and how many.
type Told = (u64, u64);

/// By device: wrong matmuls, or wrong sums of all-reduces.
fn told(standing: &Standing, reduce: bool) -> BTreeMap<usize, Vec<Told>> {
    let of = |detail: &str| detail.starts_with(OF_REDUCE) == reduce;
    let one = |e: &Event| {
        let (what, count) = match &e.what {
            What::More { latest, count, .. } => (&**latest, *count),
            what => (what, 1),
        };
        match (e.device, what) {
            (Some(device), What::Mismatch { detail }) if of(detail) => {
                Some((device as usize, (e.at_ns, count)))
            }
            _ => None,
        }
    };
    by_device(standing.events().iter().filter_map(one))
}

fn by_device<T>(all: impl Iterator<Item = (usize, T)>) -> BTreeMap<usize, Vec<T>> {
    let mut found: BTreeMap<usize, Vec<T>> = BTreeMap::new();
    for (device, one) in all {
        found.entry(device).or_default().push(one);
    }
    found
}

fn together(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

fn results(standing: &Standing, groups: &Groups) -> Vec<Diagnosis> {
    let matmuls = told(standing, false).into_iter();
    let mut found: Vec<Diagnosis> = matmuls
        .map(|(device, matmuls)| matmul(standing, groups, device, &matmuls))
        .collect();
    let sums = told(standing, true).into_iter();
    let summed = sums.filter_map(|(device, sums)| {
        let first = sums.first()?.0;
        Some((device, first, together(sums.iter().map(|t| t.1))))
    });
    let reducing: Vec<(usize, u64, u64)> = summed.collect();
    let affected: Vec<usize> = reducing.iter().map(|r| r.0).collect();
    for place in groups.explain(&affected, |_| true, &[]) {
        let own = reducing
            .iter()
            .filter(|r| place.devices.contains(&(r.0 as u32)));
        let onset_ns = own.clone().map(|r| r.1).min();
        let count = together(own.map(|r| r.2));
        let evidence = vec![Sign::new(
            Metric::AuditErrors,
            format!("{count} reduced sums were wrong"),
        )];
        let one = Diagnosis::new(Cause::ReduceCorruption, place, 0.0, (0, 0), evidence);
        found.push(one.since(onset_ns));
    }
    found
}

fn matmul(standing: &Standing, groups: &Groups, device: usize, told: &[Told]) -> Diagnosis {
    let count = together(told.iter().map(|t| t.1));
    let run = &standing.devices()[device];
    let rate = Events::new(count, run.audited_flop).and_then(|e| e.interval(CONFIDENCE));
    let what = match rate {
        Some(rate) => format!(
            "{count} wrong results in {:.2e} audited FLOP ({:.1e} to {:.1e} per FLOP)",
            run.audited_flop, rate.low, rate.high
        ),
        None => format!("{count} wrong results"),
    };
    let mut evidence = vec![Sign::new(Metric::AuditErrors, what)];
    let heat = when_hot(standing, device, told);
    let cause = match heat {
        Some((hot, all, above)) => {
            let what = format!("{hot} of {all} while above {above:.0} °C");
            evidence.push(Sign::new(Metric::TempCore, what));
            Cause::HotCorruption
        }
        None => Cause::DataCorruption,
    };
    let p = heat.map_or(0.0, |(hot, _, _)| (1.0 - HOT_QUARTER).powi(hot as i32));
    let place = groups.gpu(device);
    let onset_ns = told.first().map(|t| t.0);
    Diagnosis::new(cause, place, p, (0, 0), evidence).since(onset_ns)
}

/// Wrong results in the hottest quarter, of how many, and what that quarter begins at, °C.
fn when_hot(standing: &Standing, device: usize, told: &[Told]) -> Option<(usize, usize, f64)> {
    if told.len() < HOT_MIN {
        return None;
    }
    let (run, column) = standing
        .tables_of(device as u32)
        .flat_map(|t| (0..t.table.series.len()).map(move |c| (t, c)))
        .find(|(t, c)| t.table.series[*c].metric == Metric::TempCore)?;
    let trace = &run.traces[column];
    // Only while it multiplies can it be wrong: a cool phase without matmuls clears nobody.
    let work = &standing.devices()[device].work;
    let rates: Vec<f64> = work.rates().collect();
    let warm = |(index, bin): (usize, &crate::trace::Bin)| {
        let at = index as u64 * trace.bin_ns() / work.bin_ns();
        let works = rates.get(at as usize).is_some_and(|r| *r > 0.0);
        bin.mean().filter(|_| works)
    };
    let bins = trace.bins();
    let mut all: Vec<f64> = bins.iter().enumerate().filter_map(warm).collect();
    all.sort_unstable_by(f64::total_cmp);
    let above = *all.get((HOT_QUARTER * all.len() as f64) as usize)?;
    let (cool, most) = (median(&all[..all.len() / 4])?, *all.last()?);
    let at = |(at_ns, _): &Told| {
        let index = (*at_ns / trace.bin_ns()) as usize;
        let near = bins.get(index.saturating_sub(2)..=index.min(bins.len() - 1))?;
        near.iter().rev().find_map(crate::trace::Bin::mean)
    };
    let heats: Vec<f64> = told.iter().filter_map(at).collect();
    let hot = heats.iter().filter(|h| **h >= above).count();
    let enough = heats.len() >= HOT_MIN && most - cool >= HOT_RANGE_K;
    (enough && hot as f64 >= HOT_SHARE * heats.len() as f64).then_some((hot, heats.len(), above))
}

/// Uncorrected errors, remapped rows, and corrected errors in numbers that peers do not have.
fn memory(standing: &Standing, groups: &Groups) -> Vec<Diagnosis> {
    let devices = standing.devices().len();
    let growth = |metric: Metric| -> Vec<f64> {
        let mut sums = vec![0.0; devices];
        for run in standing.tables() {
            let device = run.table.device.and_then(|d| sums.get_mut(d as usize));
            let columns = run.table.series.iter().zip(&run.whole);
            let own = columns.filter(|(s, _)| s.metric == metric);
            let own: f64 = own.map(|(_, w)| w.growth).sum();
            if let Some(sum) = device {
                *sum += own;
            }
        }
        sums
    };
    let uncorrected = growth(Metric::Ecc);
    let corrected = growth(Metric::EccCorrected);
    let remapped = growth(Metric::RowRemap);
    let usual = median(&corrected).unwrap_or(0.0);
    let mut errors = xids(standing);
    let mut found = Vec::new();
    for device in 0..devices {
        let mut evidence = Vec::new();
        let mut tell = |metric, count: f64, what: &str| {
            evidence.push(Sign::new(metric, format!("{count:.0} {what}")));
        };
        if uncorrected[device] >= 1.0 {
            tell(Metric::Ecc, uncorrected[device], "uncorrected ECC errors");
        }
        if remapped[device] >= 1.0 {
            tell(Metric::RowRemap, remapped[device], "rows remapped");
        }
        if corrected[device] >= CORRECTED_MIN && corrected[device] >= 10.0 * usual {
            tell(
                Metric::EccCorrected,
                corrected[device],
                "corrected ECC errors",
            );
        }
        let mut codes = errors.remove(&device).unwrap_or_default();
        codes.retain(|(_, code)| MEMORY_XIDS.contains(code));
        for (_, code) in &codes {
            evidence.push(Sign::new(Metric::Xid, format!("Xid {code}")));
        }
        evidence.dedup();
        if !evidence.is_empty() {
            let onset_ns = codes.first().map(|c| c.0);
            let place = groups.gpu(device);
            let one = Diagnosis::new(Cause::EccBurst, place, 0.0, (0, 0), evidence);
            found.push(one.since(onset_ns));
        }
    }
    found
}

/// By device, time and code of each of its Xids.
pub fn xids(standing: &Standing) -> BTreeMap<usize, Vec<(u64, u64)>> {
    let one = |e: &Event| {
        let what = match &e.what {
            What::More { latest, .. } => latest,
            what => what,
        };
        match (e.device, what) {
            (Some(device), What::Xid { code, .. }) => Some((device as usize, (e.at_ns, *code))),
            _ => None,
        }
    };
    by_device(standing.events().iter().filter_map(one))
}
