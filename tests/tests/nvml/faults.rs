//! What goes wrong: missing symbols, errors in mid-run, lost devices, hangs, Xid errors.

use crate::world::{
    FIRST, POWER_CAP, SECOND, SECOND_NS, World, absent, device, healthy, key, load, value,
};
use hallmark::clock::RunClock;
use hallmark::plan::{self, Settings};
use hallmark::run::Input;
use hallmark::sensor::nvml::Group;
use hallmark::sensor::{Reading, Sensor, Trouble};
use hallmark::sensors::{Layout, Sensors};
use hallmark::shell::probes::Probes;
use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::units::Bytes;
use hallmark_profiles::workload::Dtype;
use hallmark_results::frame::What;
use hallmark_results::plan::Plan;
use serde_json::json;
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

#[test]
fn a_symbol_that_the_library_truly_lacks_costs_only_its_own_series() {
    let symbols = [
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetRemappedRows",
        "nvmlEventSetCreate",
    ];
    let world = World::without(&symbols, json!({ "devices": [healthy()] }));
    let mut load = world.sensor(FIRST, Group::Load);
    assert!(absent(&load, "temp_core"));
    let reading = load.read(0);
    assert_eq!(reading.trouble, None);
    assert_eq!(
        value(&load, &reading, Metric::PowerInstant, ""),
        Some(433.0)
    );
    let mut health = world.sensor(FIRST, Group::Health);
    assert!(absent(&health, "row_remap") && absent(&health, "xid"));
    let why = &health.absent()[0].why;
    assert_eq!(why, "the library lacks the function");
    let reading = health.read(0);
    assert_eq!(reading.trouble, None);
    assert_eq!(value(&health, &reading, Metric::PcieReplay, ""), Some(4.0));
}

#[test]
fn a_driver_without_field_values_still_gives_power_as_its_functions_do() {
    let world = World::without(
        &["nvmlDeviceGetFieldValues"],
        json!({ "devices": [healthy()] }),
    );
    let mut sensor = world.sensor(FIRST, Group::Load);
    let reading = sensor.read(0);
    assert_eq!(reading.trouble, None);
    assert!(absent(&sensor, "power_instant") && absent(&sensor, "temp_memory"));
    assert_eq!(
        value(&sensor, &reading, Metric::PowerDraw, "usage"),
        Some(421.5)
    );
    let series = sensor.describe().series;
    let power = series
        .iter()
        .find(|series| series.metric == Metric::PowerDraw);
    assert_eq!(power.and_then(|series| series.averaging_ns), None);
}

#[test]
fn an_old_driver_gives_its_reasons_by_their_old_name() {
    let reasons = json!({ "reasons_mask": POWER_CAP });
    let script = json!({ "devices": [device(FIRST, 0x1b, reasons, json!({}))] });
    let absent = World::without(&["nvmlDeviceGetCurrentClocksEventReasons"], script.clone());
    let mut missing = script;
    missing["missing"] = json!(["nvmlDeviceGetCurrentClocksEventReasons"]);
    for world in [absent, World::start(missing)] {
        let mut sensor = world.sensor(FIRST, Group::Load);
        let reading = sensor.read(0);
        let mask = value(&sensor, &reading, Metric::ThrottleFrac, "reasons");
        assert_eq!(mask, Some(4.0));
    }
}

#[test]
fn an_error_in_mid_run_is_a_gap_with_its_reason_and_the_rest_goes_on() {
    let world = World::start(json!({
        "devices": [healthy()],
        "faults": [
            { "function": "field:186", "code": "UNKNOWN", "from_s": 2, "until_s": 4 },
            // A device that had it and says no longer: a gap, not a series that never was.
            { "function": "nvmlDeviceGetTemperature", "code": "NOT_SUPPORTED", "from_s": 2, "until_s": 4 }
        ]
    }));
    let mut sensor = world.sensor(FIRST, Group::Load);
    assert_eq!(sensor.read(0).trouble, None);
    world.at(3.0);
    let reading = sensor.read(3 * SECOND_NS);
    assert_eq!(value(&sensor, &reading, Metric::PowerInstant, ""), None);
    assert_eq!(value(&sensor, &reading, Metric::TempCore, ""), None);
    assert_eq!(
        value(&sensor, &reading, Metric::PowerDraw, "average"),
        Some(420.0)
    );
    let Some(Trouble::Failed(why)) = &reading.trouble else {
        panic!("{:?}", reading.trouble);
    };
    assert!(
        why.contains("power_instant: an internal driver error"),
        "{why}"
    );
    assert!(
        why.contains("temp_core: the requested operation is not available"),
        "{why}"
    );
    world.at(5.0);
    let reading = sensor.read(5 * SECOND_NS);
    assert_eq!(reading.trouble, None);
    assert_eq!(
        value(&sensor, &reading, Metric::PowerInstant, ""),
        Some(433.0)
    );
}

#[test]
fn when_the_call_for_all_fields_fails_what_has_its_own_call_is_still_read() {
    let world = World::start(json!({
        "devices": [healthy()],
        "faults": [{ "function": "nvmlDeviceGetFieldValues", "code": "UNKNOWN", "from_s": 1 }]
    }));
    let mut sensor = world.sensor(FIRST, Group::Load);
    world.at(1.0);
    let reading = sensor.read(SECOND_NS);
    assert_eq!(value(&sensor, &reading, Metric::PowerInstant, ""), None);
    assert_eq!(value(&sensor, &reading, Metric::TempCore, ""), Some(63.0));
    assert!(matches!(reading.trouble, Some(Trouble::Failed(_))));
}

#[test]
fn a_lost_gpu_is_told_apart_from_a_failed_read_and_its_neighbour_goes_on() {
    let second = device(SECOND, 0x43, json!({}), json!({}));
    let world = World::start(json!({
        "devices": [healthy(), second],
        "faults": [{ "function": "*", "device": 0, "code": "GPU_IS_LOST", "from_s": 3, "until_s": 9 }]
    }));
    let mut lost = world.sensor(FIRST, Group::Load);
    let mut neighbour = world.sensor(SECOND, Group::Load);
    world.at(3.0);
    let reading = lost.read(3 * SECOND_NS);
    assert!(
        reading.values.iter().all(|value| value.is_nan()),
        "{reading:?}"
    );
    let Some(Trouble::Lost(why)) = &reading.trouble else {
        panic!("{:?}", reading.trouble);
    };
    assert!(
        why.contains(FIRST) && why.contains("fell off the bus"),
        "{why}"
    );
    let reading = neighbour.read(3 * SECOND_NS);
    assert_eq!(reading.trouble, None);
    assert_eq!(
        value(&neighbour, &reading, Metric::PowerInstant, ""),
        Some(433.0)
    );
    // It is opened no more, and it says why.
    let absent = world.library.open(&key(FIRST)).map(|_| ()).unwrap_err();
    assert!(absent.why.contains("fell off the bus"), "{absent}");
    let (present, missing) = world.library.devices();
    assert_eq!((present.len(), missing.len()), (1, 1));
    world.at(9.0);
    assert_eq!(lost.read(9 * SECOND_NS).trouble, None, "it came back");
}

#[test]
fn a_call_that_hangs_holds_up_its_own_thread_alone() {
    const HANG_S: f64 = 1.5;
    let second = device(SECOND, 0x43, json!({}), json!({}));
    let world = World::start(json!({
        "devices": [healthy(), second],
        "faults": [{ "function": "nvmlDeviceGetTemperature", "device": 0, "hang_s": HANG_S, "from_s": 1 }]
    }));
    let mut hung = world.sensor(FIRST, Group::Load);
    let mut neighbour = world.sensor(SECOND, Group::Load);
    world.at(1.0);
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let reading = hung.read(SECOND_NS);
            let temperature = value(&hung, &reading, Metric::TempCore, "");
            send.send(temperature).expect("the test still listens");
        });
        let early = receive.recv_timeout(Duration::from_millis(100));
        assert_eq!(
            early,
            Err(mpsc::RecvTimeoutError::Timeout),
            "the call hangs"
        );
        assert_eq!(neighbour.read(SECOND_NS).trouble, None);
        assert_eq!(
            receive.try_recv(),
            Err(mpsc::TryRecvError::Empty),
            "the neighbour did not wait"
        );
        let late = receive.recv_timeout(Duration::from_secs(60));
        assert_eq!(
            late,
            Ok(Some(63.0)),
            "and the value comes when the call returns"
        );
    });
}

#[test]
fn an_xid_is_an_event_with_its_number_delivered_once() {
    let mut gpu = healthy();
    gpu["events"] = json!([
        { "at_s": 0.5, "data": 13 },
        { "at_s": 2, "data": 48 },
        { "at_s": 2.5, "data": 79 },
        { "at_s": 2.5, "kind": 16, "data": 0 }
    ]);
    let world = World::start(json!({ "devices": [gpu] }));
    world.at(1.0);
    let mut sensor = world.sensor(FIRST, Group::Health);
    let xids = |reading: &Reading| -> Vec<u64> {
        let codes = reading.events.iter().filter_map(|event| match event {
            What::Xid { code, .. } => Some(*code),
            _ => None,
        });
        codes.collect()
    };
    let before = sensor.read(SECOND_NS);
    assert_eq!(
        xids(&before),
        [0_u64; 0],
        "what came before it was opened is not its own"
    );
    assert_eq!(value(&sensor, &before, Metric::Xid, ""), Some(0.0));
    world.at(3.0);
    let reading = sensor.read(3 * SECOND_NS);
    assert_eq!(xids(&reading), [48, 79]);
    assert_eq!(value(&sensor, &reading, Metric::Xid, ""), Some(2.0));
    let after = sensor.read(4 * SECOND_NS);
    assert_eq!(xids(&after), [0_u64; 0]);
    assert_eq!(
        value(&sensor, &after, Metric::Xid, ""),
        Some(2.0),
        "the count stays"
    );
}

#[test]
fn the_xid_of_a_device_that_is_lost_is_still_told() {
    let mut gpu = healthy();
    gpu["events"] = json!([{ "at_s": 2, "data": 79 }]);
    let world = World::start(json!({
        "devices": [gpu],
        "faults": [{ "function": "*", "device": 0, "code": "GPU_IS_LOST", "from_s": 2 }]
    }));
    let mut sensor = world.sensor(FIRST, Group::Health);
    world.at(2.0);
    let reading = sensor.read(2 * SECOND_NS);
    assert!(
        matches!(reading.trouble, Some(Trouble::Lost(_))),
        "{:?}",
        reading.trouble
    );
    let told = |event: &What| matches!(event, What::Xid { code: 79, .. });
    assert!(reading.events.iter().any(told), "{:?}", reading.events);
}

/// A run on the first device alone, as its plan.
fn plan_of_first() -> Plan {
    let loaded = hallmark_profiles::profile::load("smoke").unwrap_or_else(|e| panic!("{e}"));
    let info = DeviceInfo {
        id: "wgpu0".to_owned(),
        engine: "wgpu".to_owned(),
        name: "Fake H100 80GB HBM3".to_owned(),
        vendor: String::new(),
        pci: Some("0000:1b:00.0".to_owned()),
        uuid: None,
        driver: String::new(),
        memory: Bytes::gibibytes(80),
        dtypes: vec![Dtype::F32],
        software: false,
        cores: Vec::new(),
        facts: Vec::new(),
    };
    plan::make(&loaded, &[info], &Settings::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// All sensors of both devices, as a run lays them out.
fn laid_out(world: &World) -> Layout {
    let mut sensors = Sensors {
        facts: world.library.file(),
        ..Sensors::default()
    };
    for uuid in [FIRST, SECOND] {
        for group in [Group::Load, Group::Health] {
            let sensor = Box::new(world.sensor(uuid, group));
            sensors.present.push((sensor, Some(10_000_000)));
        }
    }
    sensors.lay_out(&plan_of_first(), 0)
}

#[test]
fn a_device_that_telemetry_sees_and_the_run_does_not_load_is_told_once() {
    let second = device(SECOND, 0x43, json!({}), json!({}));
    let world = World::start(json!({ "devices": [healthy(), second] }));
    let layout = laid_out(&world);
    assert_eq!(layout.tables.len(), 2, "only the loaded device is sampled");
    let idle = |(_, what): &&(Option<u32>, What)| matches!(what, What::Absent { what, .. } if *what == format!("load on device {SECOND}"));
    assert_eq!(layout.events.iter().filter(idle).count(), 1);
    let told = |key: &str| {
        let is = |(_, what): &&(Option<u32>, What)| matches!(what, What::AsFound { key: k, .. } if k == key);
        layout.events.iter().filter(is).count()
    };
    assert_eq!((told("nvml_library"), told("nvml_library_sha256")), (1, 1));
    assert_eq!(told("driver"), 1, "settings are those of the loaded device");
}

#[test]
fn an_xid_in_a_run_is_its_devices_own() {
    let mut gpu = healthy();
    gpu["events"] = json!([{ "at_s": 2, "data": 79 }]);
    let second = device(SECOND, 0x43, json!({}), json!({}));
    let world = World::start(json!({ "devices": [gpu, second] }));
    let layout = laid_out(&world);
    let (send, inbox) = hallmark::shell::inbox::open();
    let probes = Probes::start(layout.probes, RunClock::start(), 1, &send);
    world.at(3.0);
    let xid = loop {
        match inbox.recv_timeout(Duration::from_secs(60)) {
            Ok(Input::Event(What::Xid { code, .. }, device)) => break (code, device),
            Ok(_) => {}
            Err(error) => panic!("no Xid was told: {error}"),
        }
    };
    probes.stop();
    assert_eq!(xid, (79, Some(0)));
}

#[test]
fn a_link_that_goes_down_is_counted_and_one_that_cannot_be_read_is_not_hidden() {
    let links = json!({ "nvlink_count": [[0, 2], [1, 1]] });
    let world = World::start(json!({ "devices": [device(FIRST, 0x1b, links, json!({}))] }));
    let mut sensor = world.sensor(FIRST, Group::Health);
    world.at(1.0);
    let reading = sensor.read(SECOND_NS);
    assert_eq!(
        value(&sensor, &reading, Metric::LinkFlaps, "nvlink"),
        Some(1.0)
    );
    assert_eq!(
        value(&sensor, &reading, Metric::NvlinkErr, "link0"),
        Some(10.0)
    );
    assert_eq!(value(&sensor, &reading, Metric::NvlinkErr, "link1"), None);
    let Some(Trouble::Failed(why)) = reading.trouble else {
        panic!("{:?}", reading.trouble);
    };
    assert!(why.contains("nvlink_err (link1)"), "{why}");
}

#[test]
fn a_library_that_does_not_start_is_absent_with_its_reason() {
    for (code, expected) in [
        ("DRIVER_NOT_LOADED", "not loaded"),
        ("LIB_RM_VERSION_MISMATCH", "different versions"),
        ("NO_PERMISSION", "may not talk"),
    ] {
        let folder = TempDir::new().expect("a temporary folder");
        let faults = json!([{ "function": "nvmlInit_v2", "code": code }]);
        let script = json!({ "devices": [healthy()], "faults": faults });
        let absent = load(&folder, &[], script).map(|_| ()).unwrap_err();
        assert!(absent.why.contains(expected), "{absent}");
        assert!(!absent.remedy.is_empty());
    }
}

#[test]
fn the_stand_in_refuses_a_script_that_could_pass_for_a_real_device_or_that_it_does_not_know() {
    let mut real = healthy();
    real["name"] = json!("NVIDIA H100 80GB HBM3");
    let misspelt = device(FIRST, 0x1b, json!({ "power_usage_watts": 1 }), json!({}));
    let unordered = device(
        FIRST,
        0x1b,
        json!({ "temperature_c": [[2, 50], [1, 60]] }),
        json!({}),
    );
    for refused in [
        vec![real],
        vec![misspelt],
        vec![unordered],
        vec![healthy(), healthy()],
    ] {
        let folder = TempDir::new().expect("a temporary folder");
        let script = json!({ "devices": refused });
        assert!(load(&folder, &[], script).is_err());
    }
}
