//! The telemetry of NVIDIA devices, through the real nvml-wrapper and a scripted stand-in library.
//!
//! Here: what is read, in which unit, and what is told of that which a device lacks. What goes wrong
//! in mid-run is in `faults`; each test has a library, a script and a clock of its own (`world`).
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test, and what it is built of, fails by a panic"
)]

#[path = "nvml/faults.rs"]
mod faults;
#[path = "nvml/world.rs"]
mod world;

use hallmark::sensor::nvml::{Group, IDENTITY, KEYS, NvmlSensor};
use hallmark::sensor::{DeviceKey, Reading, Sensor};
use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{Provenance, SeriesKind, What};
use serde_json::json;
use sha2::{Digest, Sha256};
use world::{
    FIRST, POWER_CAP, SECOND, SECOND_NS, SW_THERMAL, World, absent, device, healthy, key, place,
    value,
};

#[test]
fn readings_are_in_base_units_and_a_stand_in_is_never_called_measured() {
    let world = World::start(json!({ "devices": [healthy()] }));
    let mut sensor = world.sensor(FIRST, Group::Load);
    let about = sensor.describe();
    assert_eq!(about.provenance, Provenance::StandIn);
    assert_eq!(about.name, "nvml-gpu0");
    assert_eq!(about.source, "NVML 13.580.95.05");
    let reading = sensor.read(0);
    assert_eq!(reading.trouble, None);
    let read = |metric, label| value(&sensor, &reading, metric, label);
    assert_eq!(read(Metric::PowerInstant, ""), Some(433.0));
    assert_eq!(read(Metric::PowerDraw, "average"), Some(420.0));
    assert_eq!(read(Metric::Energy, ""), Some(123_456.789));
    assert_eq!(read(Metric::TempCore, ""), Some(63.0));
    assert_eq!(read(Metric::TempMemory, ""), Some(71.0));
    assert_eq!(read(Metric::ThermalMargin, ""), Some(24.0));
    assert_eq!(read(Metric::ClockSm, ""), Some(1.755e9));
    assert_eq!(read(Metric::ClockMemory, ""), Some(2.619e9));
    assert_eq!(read(Metric::Utilisation, ""), Some(99.0));
    assert_eq!(read(Metric::MemoryUsed, ""), Some(7_516_192_768.0));
    for series in about.series {
        assert_eq!(series.unit, series.metric.spec().unit, "{}", series.metric);
        let window = (series.label == "average").then_some(SECOND_NS);
        assert_eq!(series.averaging_ns, window, "{}", series.metric);
    }
}

#[test]
fn counts_of_errors_and_the_state_of_links_are_read() {
    let world = World::start(json!({ "devices": [healthy()] }));
    let mut sensor = world.sensor(FIRST, Group::Health);
    let reading = sensor.read(0);
    assert_eq!(reading.trouble, None);
    let read = |metric, label| value(&sensor, &reading, metric, label);
    assert_eq!(read(Metric::EccCorrected, "volatile"), Some(3.0));
    assert_eq!(read(Metric::EccCorrected, "aggregate"), Some(12.0));
    assert_eq!(read(Metric::Ecc, "volatile"), Some(0.0));
    assert_eq!(read(Metric::Ecc, "aggregate"), Some(1.0));
    assert_eq!(read(Metric::RowRemap, "correctable"), Some(2.0));
    assert_eq!(read(Metric::RowRemap, "uncorrectable"), Some(1.0));
    assert_eq!(read(Metric::RowRemap, "pending"), Some(1.0));
    assert_eq!(read(Metric::RowRemap, "failed"), Some(0.0));
    let kind = |label| {
        let place = place(&sensor, Metric::RowRemap, label).expect("a series");
        sensor.describe().series[place].kind
    };
    assert_eq!(kind("uncorrectable"), SeriesKind::Counter);
    // What held before the run began must be seen, so a state is no counter, of which growth counts.
    assert_eq!(kind("pending"), SeriesKind::Gauge);
    assert_eq!(kind("failed"), SeriesKind::Gauge);
    assert_eq!(read(Metric::PcieReplay, ""), Some(4.0));
    assert_eq!(read(Metric::PcieWidth, ""), Some(8.0));
    assert_eq!(read(Metric::PcieGeneration, ""), Some(5.0));
    assert_eq!(read(Metric::PowerLimit, ""), Some(650.0));
    assert_eq!(read(Metric::NvlinkErr, "link0"), Some(10.0));
    assert_eq!(read(Metric::NvlinkErr, "link1"), Some(10.0));
    assert_eq!(place(&sensor, Metric::NvlinkErr, "link2"), None);
}

#[test]
fn a_reading_that_the_device_lacks_is_told_once_with_a_remedy_and_is_no_zero() {
    let lacking = device(
        FIRST,
        0x1b,
        json!({ "energy_mj": null }),
        json!({ "82": null }),
    );
    let world = World::start(json!({
        "devices": [lacking],
        "missing": ["nvmlDeviceGetUtilizationRates"]
    }));
    let mut sensor = world.sensor(FIRST, Group::Load);
    for metric in [Metric::Energy, Metric::TempMemory, Metric::Utilisation] {
        assert_eq!(place(&sensor, metric, ""), None, "{metric}");
        assert!(absent(&sensor, metric.id()), "{metric}");
    }
    let first = sensor.read(0);
    assert_eq!(first.trouble, None);
    let told = |reading: &Reading| {
        let absences = reading
            .events
            .iter()
            .filter(|event| matches!(event, What::Absent { .. }));
        absences.count()
    };
    assert_eq!(told(&first), sensor.absent().len());
    assert!(
        sensor
            .absent()
            .iter()
            .all(|absent| !absent.remedy.is_empty())
    );
    assert_eq!(told(&sensor.read(SECOND_NS)), 0);
}

#[test]
fn a_reading_that_the_device_lacks_is_not_asked_for_again() {
    let lacking = device(
        FIRST,
        0x1b,
        json!({ "energy_mj": null }),
        json!({ "82": null }),
    );
    // From the first second on, to ask for either would report the device as lost.
    let world = World::start(json!({
        "devices": [lacking],
        "faults": [
            { "function": "field:82", "code": "GPU_IS_LOST", "from_s": 1 },
            { "function": "nvmlDeviceGetTotalEnergyConsumption", "code": "GPU_IS_LOST", "from_s": 1 }
        ]
    }));
    let mut sensor = world.sensor(FIRST, Group::Load);
    world.at(2.0);
    let reading = sensor.read(2 * SECOND_NS);
    assert_eq!(reading.trouble, None);
    assert_eq!(
        value(&sensor, &reading, Metric::PowerInstant, ""),
        Some(433.0)
    );
}

#[test]
fn two_reasons_at_once_are_both_seen() {
    let both = json!({ "reasons_mask": POWER_CAP | SW_THERMAL });
    let world = World::start(json!({ "devices": [device(FIRST, 0x1b, both, json!({}))] }));
    let mut sensor = world.sensor(FIRST, Group::Load);
    let reading = sensor.read(0);
    let read = |metric, label| value(&sensor, &reading, metric, label);
    assert_eq!(read(Metric::ThrottleFrac, "reasons"), Some(36.0));
    assert_eq!(read(Metric::PowerCapFrac, "sw_power_cap"), Some(1.0));
    assert_eq!(read(Metric::ThrottleFrac, "sw_thermal"), Some(1.0));
    assert_eq!(read(Metric::ThrottleFrac, "hw_thermal"), Some(0.0));
    assert_eq!(read(Metric::ThrottleFrac, "hw_power_brake"), Some(0.0));
    let mask = place(&sensor, Metric::ThrottleFrac, "reasons").expect("the mask is a series");
    assert_eq!(sensor.describe().series[mask].kind, SeriesKind::Mask);
}

#[test]
fn time_under_a_reason_comes_from_the_drivers_counter_by_either_numbering() {
    // The counter runs at a quarter of the time; the mask, seen at the instant, says never.
    let quarter = json!({ "from": 5e9, "per_second": 0.25e9 });
    for (driver, field) in [("570.86.15", "252"), ("580.95.05", "270")] {
        let fields = json!({ field: quarter });
        let world = World::start(json!({
            "driver_version": driver,
            "devices": [device(FIRST, 0x1b, json!({}), fields)]
        }));
        let mut sensor = world.sensor(FIRST, Group::Load);
        let first = sensor.read(0);
        let share = |sensor: &NvmlSensor, reading: &Reading| {
            value(sensor, reading, Metric::ThrottleFrac, "hw_thermal")
        };
        assert_eq!(
            share(&sensor, &first),
            None,
            "{driver}: there is no interval yet"
        );
        assert_eq!(first.trouble, None);
        world.at(4.0);
        let second = sensor.read(4 * SECOND_NS);
        assert_eq!(share(&sensor, &second), Some(0.25), "{driver}");
    }
}

#[test]
fn a_field_keeps_its_full_width_and_sign_whatever_its_type() {
    let active_ns = 4_200_000_000_u64; // the step below crosses 32 bits
    for kind in [
        "unsigned_long",
        "unsigned_long_long",
        "signed_long_long",
        "double",
    ] {
        let steps = json!([[0, active_ns], [1, active_ns + 500_000_000]]);
        let mut gpu = device(FIRST, 0x1b, json!({}), json!({ "74": steps, "82": -5 }));
        gpu["field_types"] = json!({ "74": kind, "82": "signed_int" });
        let world = World::start(json!({ "devices": [gpu] }));
        let mut sensor = world.sensor(FIRST, Group::Load);
        sensor.read(0);
        world.at(1.0);
        let reading = sensor.read(SECOND_NS);
        let share = value(&sensor, &reading, Metric::PowerCapFrac, "sw_power_cap");
        assert_eq!(share, Some(0.5), "{kind}");
        assert_eq!(value(&sensor, &reading, Metric::TempMemory, ""), Some(-5.0));
    }
}

#[test]
fn where_counters_of_a_link_are_gone_its_newer_fields_are_read_by_link() {
    let gone = json!({
        "nvlink_replays": null, "nvlink_recoveries": null,
        "nvlink_crc_flit": null, "nvlink_crc_data": null
    });
    let fields = json!({ "208": 5, "208@1": 7, "215": 1, "215@1": 1 });
    let world = World::start(json!({ "devices": [device(FIRST, 0x1b, gone, fields)] }));
    let mut sensor = world.sensor(FIRST, Group::Health);
    let reading = sensor.read(0);
    assert_eq!(reading.trouble, None);
    assert_eq!(
        value(&sensor, &reading, Metric::NvlinkErr, "link0"),
        Some(6.0)
    );
    assert_eq!(
        value(&sensor, &reading, Metric::NvlinkErr, "link1"),
        Some(8.0)
    );
}

#[test]
fn without_a_margin_the_distance_to_the_slowdown_limit_is_computed_and_labelled() {
    let readings = json!({ "margin_temperature_c": null });
    let world = World::start(json!({ "devices": [device(FIRST, 0x1b, readings, json!({}))] }));
    let mut sensor = world.sensor(FIRST, Group::Load);
    let reading = sensor.read(0);
    let margin = value(
        &sensor,
        &reading,
        Metric::ThermalMargin,
        "slowdown less core",
    );
    assert_eq!(margin, Some(24.0));
}

#[test]
fn settings_are_told_as_found_and_one_that_cannot_be_read_says_so() {
    let readings = json!({ "ecc_mode_pending": 0, "mig_mode": null });
    let world = World::start(json!({
        "devices": [device(FIRST, 0x1b, readings, json!({}))],
        "faults": [{ "function": "nvmlDeviceGetVbiosVersion", "code": "UNKNOWN" }]
    }));
    let found = world.sensor(FIRST, Group::Load).as_found();
    let setting = |key: &str| {
        let entry = found.iter().find(|(name, _)| name == key);
        entry.map_or("no such key", |(_, value)| value.as_str())
    };
    assert_eq!(setting("name"), "Fake H100 80GB HBM3");
    assert_eq!(setting("serial"), "1650000000001");
    assert_eq!(setting("pci"), "0000:1b:00.0");
    assert_eq!(setting("driver"), "580.95.05");
    assert_eq!(setting("cuda"), "13.0");
    assert_eq!(
        setting("vbios"),
        "unreadable: an internal driver error occurred"
    );
    assert_eq!(setting("ecc"), "on, off after the next reset");
    assert_eq!(setting("mig"), "not supported");
    assert_eq!(setting("power_limit_enforced"), "650 W");
    assert_eq!(setting("power_limit_default"), "700 W");
    assert_eq!(setting("power_limit_range"), "200 W to 700 W");
    assert_eq!(setting("clock_sm_max"), "1980 MHz");
    assert_eq!(setting("temp_slowdown"), "87 °C");
    assert_eq!(setting("pcie_generation"), "5");
    assert_eq!(setting("pcie_width"), "8");
    assert_eq!(setting("pcie_width_max"), "16");
    assert_eq!(setting("nvlinks_active"), "2");
}

#[test]
fn a_device_is_found_by_uuid_or_pci_and_an_unknown_one_says_what_to_do() {
    let second = device(SECOND, 0x43, json!({}), json!({}));
    let world = World::start(json!({ "devices": [healthy(), second] }));
    let by_pci = DeviceKey {
        uuid: None,
        pci: Some("0000:43:00.0".to_owned()),
    };
    let found = world
        .library
        .open(&by_pci)
        .unwrap_or_else(|absent| panic!("{absent}"));
    assert_eq!(found.key().uuid.as_deref(), Some(SECOND));
    assert!(found.key().matches(&by_pci));
    for unknown in [key("GPU-none"), DeviceKey::default()] {
        let absent = world.library.open(&unknown).map(|_| ()).unwrap_err();
        assert!(
            !absent.why.is_empty() && !absent.remedy.is_empty(),
            "{absent}"
        );
    }
}

#[test]
fn every_device_tells_the_same_settings_in_the_same_words() {
    let poor = json!({ "mig_mode": null, "pcie_width_max": null, "energy_mj": null });
    let second = device(SECOND, 0x43, poor, json!({}));
    let world = World::start(json!({ "devices": [healthy(), second] }));
    let settings = |uuid| world.sensor(uuid, Group::Load).as_found();
    let (rich, poor) = (settings(FIRST), settings(SECOND));
    for found in [&rich, &poor] {
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, KEYS);
    }
    let differ: Vec<&str> = rich
        .iter()
        .zip(&poor)
        .filter(|(a, b)| a != b)
        .map(|((key, _), _)| key.as_str())
        .collect();
    assert!(
        ["mig", "pcie_width_max"].iter().all(|k| differ.contains(k)),
        "{differ:?}"
    );
    let expected = |key: &&str| IDENTITY.contains(key) || ["mig", "pcie_width_max"].contains(key);
    assert!(differ.iter().all(expected), "{differ:?}");
}

#[test]
fn the_library_that_was_loaded_is_told_with_its_digest() {
    let world = World::start(json!({ "devices": [healthy()] }));
    let found = world.library.file();
    let setting = |key: &str| {
        let entry = found.iter().find(|(name, _)| name == key);
        entry.map_or("", |(_, value)| value.as_str())
    };
    let file = setting("nvml_library");
    assert!(
        file.starts_with('/') && file.ends_with("/libnvidia-ml.so.1"),
        "{file}"
    );
    let bytes = std::fs::read(file).expect("the file that was loaded is there");
    let digest = hallmark_results::plan::hex(&Sha256::digest(bytes));
    assert_eq!(setting("nvml_library_sha256"), digest);
}
