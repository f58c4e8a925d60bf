//! The step of a sweep: sizes up to what is asked for, or to what memory allows, and where a sweep is possible at all.
//!
//! Refuses to sweep where the figures would be of something else than the devices: a GPU's buffers would pass through the
//! host's memory, and one rank alone has nobody to reduce with.

use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::profile::{Pattern, Profile, Sweep};
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::{Bucket, StepSpec, Trials};

/// Engines whose own memory is the one that the group shares.
const ENGINES: [&str; 1] = ["cpu"];
/// Share of the memory that the other steps leave free which a sweep may take: the system and its caches need some too.
const MEMORY_SHARE: u64 = 2;
/// All sizes together hold nearly twice the largest, in and out.
const BUFFERS: u64 = 4;

/// Whether these devices can sweep together.
pub fn possible(devices: &[DeviceInfo], ranks: usize) -> bool {
    ranks > 1 && devices.iter().all(|d| ENGINES.contains(&d.engine.as_str()))
}

/// The step of a sweep, made from one that has no work.
pub fn spec(sweep: Option<Sweep>, empty: StepSpec) -> StepSpec {
    let Some(sweep) = sweep else {
        // A profile is checked for this when it is read.
        return empty;
    };
    StepSpec {
        buckets: buckets(sweep.largest.bytes()),
        // Every result is checked.
        audit_share: 1.0,
        sweep: Some(Trials {
            warm_up: sweep.warm_up,
            iterations: sweep.iterations,
        }),
        ..empty
    }
}

fn buckets(largest: Bytes) -> Vec<Bucket> {
    let sizes = Sweep::sizes(largest);
    sizes.map(|bytes| Bucket { bytes, after: 0 }).collect()
}

/// Ends sweeps where memory ends; gives the largest size that is left, where it is not the one asked for.
pub fn fit(steps: &mut [StepSpec], devices: &[DeviceInfo]) -> Option<Bytes> {
    let others = steps.iter().filter(|s| s.sweep.is_none());
    let taken = others.map(|s| s.footprint().0).fold(0, u64::saturating_add);
    let sweeps = steps.iter().filter(|s| s.sweep.is_some()).count().max(1) as u64;
    let sharing = devices.len().max(1) as u64;
    let least = devices.iter().map(|d| d.memory.0).min().unwrap_or(0);
    let room = (least / sharing).saturating_sub(taken) / MEMORY_SHARE / BUFFERS / sweeps;
    let mut shortened = None;
    for step in steps.iter_mut().filter(|s| s.sweep.is_some()) {
        let asked = step.buckets.last().map_or(0, |b| b.bytes.0);
        if asked > room {
            step.buckets = buckets(Bytes(room.max(Sweep::SMALLEST.0)));
            shortened = step.buckets.last().map(|b| b.bytes);
        }
    }
    shortened
}

/// What the sweeps of this run cannot show.
pub fn limits(profile: &Profile, possible: bool, shortened: Option<Bytes>) -> Vec<String> {
    let phases = profile.load.phases.iter();
    let sweeps = phases.filter(|p| p.pattern == Pattern::Sweep);
    let left_out = sweeps.filter(|_| !possible).map(|phase| {
        format!(
            "phase `{}` was left out: all-reduces are swept between two processors of one machine or more, and these devices \
             are not that",
            phase.name
        )
    });
    let shortened = shortened.map(|largest| {
        format!("the sweep of all-reduces ends at {largest}: memory does not allow more")
    });
    left_out.chain(shortened).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hallmark_profiles::workload::Dtype;

    fn device(engine: &str, memory: u64) -> DeviceInfo {
        DeviceInfo {
            id: "x0".to_owned(),
            engine: engine.to_owned(),
            name: "X".to_owned(),
            vendor: String::new(),
            pci: None,
            uuid: None,
            driver: String::new(),
            memory: Bytes(memory),
            dtypes: vec![Dtype::F32],
            software: true,
            cores: Vec::new(),
            facts: Vec::new(),
        }
    }

    fn step(largest: u64) -> StepSpec {
        StepSpec {
            dtype: Dtype::F32,
            gemms: Vec::new(),
            buckets: buckets(Bytes(largest)),
            parameters: 0,
            memory: Bytes(0),
            audit_share: 1.0,
            operand_pairs: 16,
            seed: 1,
            audit_seed: None,
            sweep: Some(Trials {
                warm_up: 1,
                iterations: 1,
            }),
        }
    }

    #[test]
    fn sizes_double_from_eight_bytes_to_the_largest() {
        let sizes: Vec<u64> = buckets(Bytes(64)).iter().map(|b| b.bytes.0).collect();
        assert_eq!(sizes, [8, 16, 32, 64]);
    }

    #[test]
    fn a_sweep_ends_where_memory_ends_and_says_so() {
        let devices = [device("cpu", 1 << 20), device("cpu", 1 << 20)];
        let mut steps = [step(1 << 30)];
        let left = fit(&mut steps, &devices);
        // Half a mebibyte for each rank, half of it for the sweep, a quarter of that for the largest size.
        assert_eq!(left, Some(Bytes(1 << 16)));
        assert_eq!(steps[0].buckets.last().unwrap().bytes, Bytes(1 << 16));
        assert!(steps[0].footprint().0 <= 1 << 18);
        assert_eq!(fit(&mut steps, &devices), None);
    }

    #[test]
    fn only_processors_sweep_and_only_together() {
        let cpu = || device("cpu", 1 << 30);
        assert!(possible(&[cpu(), cpu()], 2));
        assert!(!possible(&[cpu()], 1));
        assert!(!possible(&[cpu(), device("wgpu", 1 << 30)], 2));
        assert!(!possible(
            &[device("cuda", 1 << 30), device("cuda", 1 << 30)],
            2
        ));
    }
}
