//! Resolves what a limit is relative to, for one place.

use super::evidence::Evidence;
use super::observe::Sight;
use crate::standing::Standing;
use hallmark_profiles::criterion::{Criterion, Reference, Statistic};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::sku::{Of, Skus};
use hallmark_profiles::units::Unit;
use std::collections::BTreeMap;

/// What one unit of the limit stands for at a place, or why it cannot be said.
pub fn base(standing: &Standing, criterion: &Criterion, sight: &Sight) -> Result<f64, String> {
    let base = resolve(standing, criterion, sight)?;
    if base > 0.0 {
        return Ok(base);
    }
    Err("what it is compared with is nothing".to_owned())
}

fn resolve(standing: &Standing, criterion: &Criterion, sight: &Sight) -> Result<f64, String> {
    match criterion.relative_to {
        Reference::Absolute => Ok(1.0),
        Reference::OwnMedian => {
            median(&sight.evidence).ok_or_else(|| "there is no median to compare with".to_owned())
        }
        Reference::PeerMedian => sight
            .peers
            .clone()
            .unwrap_or_else(|| Err("a place that is no device has no peers".to_owned())),
        Reference::FirstTenth => match &sight.evidence {
            Evidence::Blocks(values) if values.len() >= 10 => {
                let tenth = &values[..values.len() / 10];
                crate::stats::outlier::median(tenth)
                    .ok_or_else(|| "the first tenth is empty".to_owned())
            }
            _ => Err("there are too few blocks for a first tenth".to_owned()),
        },
        Reference::PowerLimit => sight
            .enforced
            .clone()
            .unwrap_or_else(|| Err("no device's power limit belongs to it".to_owned())),
        Reference::SkuDatasheet => {
            let metric = criterion.metric;
            let device = sight.device.map(|d| d as usize);
            let promised = device.and_then(|d| sku_datasheet(standing, d, metric));
            promised.ok_or_else(|| {
                format!("no datasheet's {metric} is known for this device and dtype")
            })
        }
        Reference::SkuReference => reference(standing, criterion.metric, sight.device),
    }
}

fn median(evidence: &Evidence) -> Option<f64> {
    let bounded = evidence.bounded(Statistic::Quantile(0.5), 0.5);
    bounded.ok().map(|b| b.value)
}

/// A place by its number, and its own median.
type Place = (usize, Option<f64>);

/// Tells each place the median over the other devices of the same SKU (or, without one, of the same name).
pub fn compare(standing: &Standing, sights: &mut [Sight]) {
    let devices = &standing.opened().plan.devices;
    let mut kinds: BTreeMap<(&str, &str), Vec<Place>> = BTreeMap::new();
    for (index, sight) in sights.iter().enumerate() {
        let planned = sight.device.and_then(|d| devices.get(d as usize));
        if let Some(planned) = planned {
            let model = planned.sku.as_ref().unwrap_or(&planned.name);
            let kind = kinds.entry((&planned.engine, model)).or_default();
            kind.push((index, median(&sight.evidence)));
        }
    }
    for of_kind in kinds.into_values() {
        let known: Vec<f64> = of_kind.iter().filter_map(|(_, own)| *own).collect();
        let all = crate::stats::outlier::median(&known);
        let mut others = crate::stats::outlier::medians_of_others(&known).into_iter();
        for (index, own) in of_kind {
            let peers = own.map_or(all, |_| others.next().flatten());
            let none = || "this run has no other device of this kind".to_owned();
            sights[index].peers = Some(peers.ok_or_else(none));
        }
    }
}

/// The reference of one device, or of all of them together where the place is the site.
fn reference(standing: &Standing, metric: Metric, device: Option<u32>) -> Result<f64, String> {
    let none = || format!("no reference for {metric} is known for this device and dtype");
    if metric == Metric::AllreduceBusbw {
        let transport = &standing.opened().plan.transport;
        if !transport.starts_with("nccl") {
            return Err(format!(
                "gradients moved by way of {transport}, which no link's reference can be held against"
            ));
        }
        // The group's figure does not add up over devices.
        return sku_reference(standing, 0, metric).ok_or_else(none);
    }
    match device {
        Some(device) => sku_reference(standing, device as usize, metric).ok_or_else(none),
        None => (0..standing.devices().len())
            .map(|d| sku_reference(standing, d, metric))
            .sum::<Option<f64>>()
            .ok_or_else(none),
    }
}

/// The SKU file's reference for a device of this run.
pub fn sku_reference(standing: &Standing, device: usize, metric: Metric) -> Option<f64> {
    let plan = &standing.opened().plan;
    let name = &plan.devices.get(device)?.name;
    let sku = Skus::built_in().ok()?.find(name)?;
    let mut of = Of::metric(metric);
    if metric == Metric::AllreduceBusbw {
        of = of.ranks(plan.devices.len() as u32);
    } else if metric.spec().unit == Unit::FlopPerSecond {
        of = of.dtype(plan.dtype);
    }
    Some(sku.reference(&of)?.value)
}

/// The least that the SKU file lets a device of this run show, whatever share of its reference is asked.
pub fn sku_floor(standing: &Standing, metric: Metric) -> Option<f64> {
    let plan = &standing.opened().plan;
    let sku = Skus::built_in().ok()?.find(&plan.devices.first()?.name)?;
    let of = Of::metric(metric).ranks(plan.devices.len() as u32);
    sku.reference(&of)?.floor
}

/// The datasheet's peak of a device of this run, FLOP/s.
pub fn sku_peak(standing: &Standing, device: usize) -> Option<f64> {
    sku_datasheet(standing, device, Metric::MatmulRate)
}

/// What the datasheet of a device of this run says of a metric, in the metric's unit.
pub fn sku_datasheet(standing: &Standing, device: usize, metric: Metric) -> Option<f64> {
    let plan = &standing.opened().plan;
    let sku = Skus::built_in()
        .ok()?
        .find(&plan.devices.get(device)?.name)?;
    let mut of = Of::metric(metric);
    if metric.spec().unit == Unit::FlopPerSecond {
        of = of.dtype(plan.dtype);
    }
    Some(sku.datasheet(&of)?.value)
}
