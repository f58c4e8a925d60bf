//! Decides the matmul of a `burn` phase: the one that draws most, chosen by its size alone.
//!
//! Large cubes leave the arithmetic units no pause, and operands fill their type's mantissa as far as audits allow.
//! Refuses to touch clocks, limits or modes, and to know what a device draws: the telemetry shows that.

use super::steady;
use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::profile::Load;
use hallmark_profiles::workload::{Dtype, Gemm};

/// Sides of the cubes, the one to be preferred first.
const SIDES: [u32; 7] = [8192, 4096, 2048, 1024, 512, 256, 128];

/// The largest cube whose step fits the smallest device and, where the profile fits its steps to the device, its time.
pub(super) fn gemm(load: &Load, dtype: Dtype, devices: &[DeviceInfo], probe: Option<f64>) -> Gemm {
    let memory = devices.iter().map(|d| d.memory.0).min().unwrap_or(0);
    let budget = load
        .fit_step
        .zip(probe)
        .map(|(target, rate)| rate * target.duration().as_secs_f64());
    let fits = |gemm: &Gemm| {
        let step = steady(load, *gemm, dtype, 0);
        step.footprint().0 < memory / 2 && budget.is_none_or(|flop| step.flop().0 <= flop)
    };
    let cubes = SIDES.map(|side| Gemm::new(side, side, side));
    let least = Gemm::new(64, 64, 64);
    cubes.into_iter().find(fits).unwrap_or(least)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{device, settings, smoke};
    use super::super::{Pattern, SegmentKind, make};
    use super::*;
    use hallmark_profiles::units::Bytes;

    #[test]
    fn a_burn_is_as_large_as_the_smallest_device_and_its_time_allow() {
        let text = smoke()
            .text
            .replace("pattern = \"memory\"", "pattern = \"burn\"");
        let burning = hallmark_profiles::profile::parse(&text, "burn.toml").unwrap();
        let phases = &burning.profile.load.phases;
        let at = phases.iter().position(|p| p.pattern == Pattern::Burn);
        let side = |memory, rate| {
            let small = DeviceInfo {
                memory,
                ..device("cpu0")
            };
            let plan = make(&burning, &[small, device("cpu1")], &settings(rate)).unwrap();
            let kind = SegmentKind::Phase(at.unwrap());
            let segment = plan.schedule.iter().find(|s| s.kind == kind).unwrap();
            assert!(segment.parts.gemms && !segment.parts.buckets && !segment.parts.memory);
            let gemms = &plan.steps[segment.step].gemms;
            assert!(gemms.iter().all(|g| g.m == g.n && g.n == g.k));
            gemms[0].m
        };
        let (large, small) = (Bytes::gibibytes(80), Bytes::gibibytes(4));
        assert!(side(large, 1e12) < side(large, 1e15));
        assert!(side(small, 1e15) < 8192);
    }
}
