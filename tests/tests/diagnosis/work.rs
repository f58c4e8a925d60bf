//! The devices' own work, their memory and their hosts, and wrong results.

use super::began;
use hallmark_results::diagnosis::{Cause, Level};
use hallmark_results::frame::What;
use hallmark_results::stats::bootstrap::SplitMix64;
use hallmark_tests::hall::{Hall, hall, named, nothing, of};
use std::f64::consts::TAU;

#[test]
fn a_device_that_grows_five_percent_slower_is_named() {
    let found = hall().state(|s| {
        s.quality *= if s.device == 9 && s.t_s > 600.0 {
            0.95
        } else {
            1.0
        }
    });
    let found = found.diagnose();
    let slow = named(&found, Cause::SlowSilicon);
    assert_eq!(slow.place.name, "gpu9");
    began(slow, 600.0, 60.0);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_device_far_slower_from_the_start_is_named() {
    let found = of(2, 4, 4).state(|s| s.quality *= if s.device == 9 { 0.88 } else { 1.0 });
    let found = found.diagnose();
    let slow = named(&found, Cause::SlowSilicon);
    assert_eq!((slow.place.name.as_str(), slow.onset_ns), ("gpu9", None));
}

#[test]
fn a_slow_drift_is_no_step() {
    let found = hall().lasting(24.0 * 60.0, 120.0).state(|s| {
        s.quality *= if s.device == 9 {
            1.0 - 0.01 * s.t_s.max(0.0) / s.of_s
        } else {
            1.0
        };
    });
    let found = found.diagnose();
    assert_eq!(named(&found, Cause::SlowDrift).place.name, "gpu9");
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn memory_that_slows_down_leaves_core_and_clock_as_they_were() {
    let found = hall().state(|s| {
        s.memory *= if s.device == 4 && s.t_s > 600.0 {
            0.95
        } else {
            1.0
        }
    });
    let found = found.told(|s, t| {
        t.memory += if s.device == 4 && s.t_s > 600.0 {
            12.0
        } else {
            0.0
        }
    });
    let found = found.diagnose();
    let memory = named(&found, Cause::MemoryThrottle);
    assert_eq!(memory.place.name, "gpu4");
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_late_host_is_a_node_and_not_its_devices() {
    // One launch in a hundred three milliseconds late, and some thirty launches a step.
    let late = |s: &mut hallmark_tests::hall::State| {
        let of = ((s.t_s / 4.0) as u64) << 8 | s.device as u64;
        let rare = SplitMix64::new(of).unit() < 0.26;
        if s.rack == 0 && s.tray == 1 && s.t_s > 400.0 && rare {
            s.outside_s += 3e-3;
        }
    };
    let found = hall().state(late).diagnose();
    let host = named(&found, Cause::HostJitter);
    assert_eq!(
        (host.place.level, host.place.name.as_str()),
        (Level::Node, "node-1")
    );
    assert_eq!(found.len(), 1, "{found:?}");
}

fn wrong(hall: Hall, times: &[f64], device: u32, detail: &str) -> Hall {
    times.iter().fold(hall, |hall, t_s| {
        let detail = detail.to_owned();
        hall.event(*t_s, Some(device), What::Mismatch { detail })
    })
}

#[test]
fn one_wrong_result_is_named_at_its_device() {
    let found = wrong(hall(), &[321.0], 7, "element 7 of 262144 differs by 64").diagnose();
    let one = named(&found, Cause::DataCorruption);
    assert_eq!(one.place.name, "gpu7");
    began(one, 321.0, 1.0);
}

#[test]
fn results_that_are_wrong_only_when_hot_are_told_from_those_that_are_wrong_at_any_time() {
    let warm =
        |s: &mut hallmark_tests::hall::State| s.supply_c += 5.0 * (TAU * s.t_s / 1200.0).sin();
    let hot = [260.0, 290.0, 310.0, 330.0, 350.0, 370.0];
    let any = [60.0, 310.0, 600.0, 800.0, 900.0, 1100.0];
    let told = "element 7 of 262144 differs by 64";
    let found = wrong(hall().state(warm), &hot, 7, told).diagnose();
    assert_eq!(named(&found, Cause::HotCorruption).place.name, "gpu7");
    assert!(found.iter().all(|d| d.cause != Cause::DataCorruption));
    let found = wrong(hall().state(warm), &any, 7, told).diagnose();
    assert_eq!(named(&found, Cause::DataCorruption).place.name, "gpu7");
}

#[test]
fn a_wrong_sum_is_the_all_reduces_and_not_the_devices() {
    let told = "all-reduce of bucket 2: digest 00, expected 01";
    let found = (0..16)
        .fold(hall(), |hall, d| wrong(hall, &[500.0], d, told))
        .diagnose();
    let reduce = named(&found, Cause::ReduceCorruption);
    assert_eq!(reduce.place.devices.len(), 16);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_burst_of_memory_errors_is_named_and_two_old_ones_are_not() {
    let burst = hall().told(|s, t| {
        if s.device == 3 && (600.0..640.0).contains(&s.t_s) {
            t.corrected += 2.0;
            t.remapped += 1.0;
        }
    });
    let found = burst.diagnose();
    assert_eq!(named(&found, Cause::EccBurst).place.name, "gpu3");
    let few = hall().told(|s, t| {
        t.corrected += if s.device == 3 && (600.0..604.0).contains(&s.t_s) {
            1.0
        } else {
            0.0
        }
    });
    nothing(&few.diagnose());
}
