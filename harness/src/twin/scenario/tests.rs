//! What a scenario's text may say, and what scaling and drawing make of it.

use super::effect::{Distortion, Part};
use super::*;
use hallmark_profiles::metric::Metric;
use hallmark_results::diagnosis::Cause;

const HALL: &str = r#"schema_version = 1
name = "cold-plate"
summary = "One cold plate is badly seated."

[hall]
sku = "H100 SXM"
racks = 2
trays_per_rack = 3
nodes_per_tray = 2
gpus_per_node = 8
cdus = 1
feeders = 2
silicon_sigma = "1.5 %"
rack_power = "66 kW"

[weather]
ambient = "20 °C"
afternoon = "6 K"
starts_at = "8 h"

[run]
profile = "soak"
duration = "1 h"
tick = "1 s"

[[fault]]
place = "any gpu"
at = "10 min"
grows_over = "1 min"
causes = ["cold_plate"]
within = "30 min"
thermal_resistance = { times = 1.3 }

[[fault]]
place = "rack1/tray2"
flow = { times = 0.7 }
sensor = [{ metric = "temp_core", add = "2 K" }, { metric = "power_draw", stuck = true }]
"#;

fn sound(text: &str) -> Scenario {
    parse(text, "hall.toml").unwrap_or_else(|e| panic!("{e}"))
}

fn refused(from: &str, to: &str) -> String {
    assert!(HALL.contains(from), "the text no longer says {from}");
    parse(&HALL.replacen(from, to, 1), "hall.toml")
        .expect_err(to)
        .to_string()
        .replace('\u{a0}', " ")
}

#[test]
fn a_scenario_says_what_is_wrong_where_from_when_and_what_should_be_found() {
    let scenario = sound(HALL);
    assert_eq!(scenario.hall.gpus(), 96);
    assert_eq!(scenario.expected, Expected::NotAccepted);
    let [plate, branch] = scenario.faults.as_slice() else {
        panic!("{:?}", scenario.faults);
    };
    assert_eq!(plate.spot, Spot::Any(Level::Gpu));
    let wanted = plate.wanted.clone().unwrap();
    assert_eq!(wanted.causes, [Cause::ColdPlate]);
    assert_eq!(wanted.within, Duration::from_secs(1800));
    let of = Part::Core;
    assert_eq!(
        plate.effects,
        [Effect::ThermalResistance { of, times: 1.3 }]
    );
    assert_eq!(branch.spot, Spot::Here(Place::Tray(1, 2)));
    assert_eq!(branch.wanted, None);
    let sensor = |metric, distortion| Effect::Sensor { metric, distortion };
    assert_eq!(
        branch.effects,
        [
            Effect::Flow { times: 0.7 },
            sensor(Metric::TempCore, Distortion::Offset { add: 2.0 }),
            sensor(Metric::PowerDraw, Distortion::Stuck),
        ]
    );
}

#[test]
fn a_fault_grows_lasts_and_comes_again() {
    let secs = Duration::from_secs;
    let span = Span {
        onset: secs(600),
        lasts: Some(secs(120)),
        every: Some(secs(3600)),
        grows_over: secs(60),
    };
    for (at, share) in [
        (0, 0.0),
        (599, 0.0),
        (600, 0.0),
        (630, 0.5),
        (660, 1.0),
        (719, 1.0),
        (720, 0.0),
        (4199, 0.0),
        (4230, 0.5),
        (4320, 0.0),
    ] {
        let found = span.share(secs(at));
        assert!((found - share).abs() < 1e-12, "{at} s: {found}");
    }
}

#[test]
fn severity_scales_about_what_is_sound_and_what_is_all_or_nothing_stays() {
    let scenario = sound(HALL);
    let double = scenario.scaled(2.0);
    let of = Part::Core;
    let [Effect::ThermalResistance { of: found, times }] = double.faults[0].effects[..] else {
        panic!("{:?}", double.faults[0]);
    };
    assert!(found == of && (times - 1.6).abs() < 1e-12);
    let [Effect::Flow { times }, _, stuck] = double.faults[1].effects[..] else {
        panic!("{:?}", double.faults[1]);
    };
    assert!((times - 0.4).abs() < 1e-12);
    assert!(!stuck.has_severity());
    let cap = Effect::RackCap {
        at_most: Watts(60_000.0),
    };
    let Effect::RackCap { at_most } = cap.scaled(2.0, &scenario.hall) else {
        panic!();
    };
    assert!((at_most.0 - 54_000.0).abs() < 1e-6);
    let brake = Effect::Psu { clock_times: 0.5 }.scaled(4.0, &scenario.hall);
    let Effect::Psu { clock_times } = brake else {
        panic!();
    };
    assert!(clock_times > 0.0, "a clock below zero is none");
}

#[test]
fn one_seed_draws_one_place_and_two_faults_do_not_share_one() {
    let text = HALL.replace("rack1/tray2\"\nflow = { times = 0.7 }", "any gpu\"");
    let scenario = sound(&text.replace("sensor = [", "rate = { times = 0.9 }\nsensor = ["));
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let placed = scenario.placed(seed);
        assert_eq!(placed, scenario.placed(seed));
        assert_ne!(placed[0].place, placed[1].place, "seed {seed}");
        seen.insert(placed[0].place);
    }
    assert!(seen.len() > 60, "{} of 96 places in 200 draws", seen.len());
}

#[test]
fn every_device_has_one_place_and_reads_back() {
    let hall = sound(HALL).hall;
    for index in 0..hall.gpus() {
        let place = hall.gpu(index);
        assert_eq!(place.gpus(&hall), index..index + 1);
        assert_eq!(place.to_string().parse(), Ok(place));
        for level in Level::ALL {
            let above = place.at(level, &hall).unwrap();
            assert!(above.gpus(&hall).contains(&index) && above.holds(place, &hall));
            assert_eq!(above.to_string().parse(), Ok(above));
        }
    }
    let shares = |count| -> Vec<_> { (0..count).map(|i| hall.racks_on(i, count)).collect() };
    assert_eq!(shares(2), [0..1, 1..2]);
    assert_eq!(shares(1), vec![0..2]);
    assert_eq!(hall.feeder_of(1), Place::Feeder(1));
    assert_eq!(Place::Rack(1).at(Level::Gpu, &hall), None);
}

/// A change to the text, and what is then said.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "schema_version = 1",
        "schema_version = 2",
        "hall.toml:1: schema_version 2 is not known",
    ),
    (
        "name = \"cold-plate\"",
        "name = \"Cold plate\"",
        "hall.toml:2: name must be",
    ),
    (
        "H100 SXM",
        "H100 SX",
        "hall.toml:6: unknown sku `H100 SX`; known: ",
    ),
    (
        "racks = 2",
        "racks = 0",
        "hall.toml:7: racks is 0; it may be 1 to 2048",
    ),
    (
        "racks = 2",
        "racks = 1000",
        "hall.toml:7: 48000 devices in all",
    ),
    ("feeders = 2", "feeders = 3", "hall.toml:12: feeders is 3"),
    (
        "\"1.5 %\"",
        "\"1.5 K\"",
        "hall.toml:13: silicon_sigma: `1.5 K` is in K",
    ),
    ("\"66 kW\"", "\"66 K\"", "hall.toml:14: rack_power: `66 K`"),
    (
        "\"6 K\"",
        "\"600 K\"",
        "hall.toml:18: afternoon is 600 K; it may be",
    ),
    (
        "tick = \"1 s\"",
        "tick = \"2 min\"",
        "hall.toml:24: tick must be",
    ),
    (
        "\"any gpu\"",
        "\"any chip\"",
        "hall.toml:27: unknown place `any chip`; known: site, rack0",
    ),
    (
        "rack1/tray2",
        "rack2/tray2",
        "hall.toml:35: rack2: the hall's racks are 0 to 1",
    ),
    (
        "rack1/tray2",
        "rack1/tray3",
        "hall.toml:35: tray3: the hall's trays are 0 to 2",
    ),
    (
        "flow = { times = 0.7 }",
        "flow = { times = -1 }",
        "hall.toml:36: flow is",
    ),
    (
        "flow = { times = 0.7 }",
        "flo = { times = 0.7 }",
        "hall.toml:36: unknown key `flo`; known: `place`, `at`, ",
    ),
    (
        "flow = { times",
        "flow = { share",
        "hall.toml:36: unknown key `share`; known: `times`",
    ),
    (
        "flow =",
        "pump =",
        "hall.toml:35: pump acts at no tray; it acts at: cdu, site",
    ),
    (
        "\"cold_plate\"]",
        "\"cold_plates\"]",
        "hall.toml:30: unknown cause `cold_plates`; known: slow_silicon, ",
    ),
    (
        "causes = [\"cold_plate\"]\n",
        "",
        "neither `within` nor `found_at`",
    ),
    (
        "within = \"30 min\"\n",
        "",
        "hall.toml:30: causes need `within`",
    ),
    (
        "thermal_resistance = { times = 1.3 }\n",
        "",
        "hall.toml:26: a fault does something",
    ),
    (
        "{ times = 1.3 }",
        "{ times = 1.3, of = \"skin\" }",
        "unknown",
    ),
    (
        "stuck = true",
        "stuck = false",
        "hall.toml:37: a sensor needs one of stuck",
    ),
    (
        "add = \"2 K\"",
        "add = \"2 W\"",
        "hall.toml:37: sensor: `2 W` is in W",
    ),
    ("\"temp_core\"", "\"temp_cor\"", "did you mean `temp_core`?"),
    (
        "at = \"10 min\"",
        "at = \"10 min\"\nevery = \"1 h\"",
        "every needs a `for`",
    ),
    (
        "at = \"10 min\"",
        "at = \"10 min\"\nfor = \"30 s\"",
        "grows_over is longer",
    ),
];

#[test]
fn what_a_scenario_cannot_mean_is_refused_with_its_line() {
    for (from, to, says) in REFUSED {
        let error = refused(from, to);
        assert!(error.contains(says), "{to}: {error}");
        assert!(
            error.starts_with("hall.toml:") && !error.contains('\n'),
            "{error}"
        );
    }
    let text = format!("expect = \"no_alarm\"\n{HALL}");
    let error = parse(&text, "hall.toml").unwrap_err().to_string();
    assert!(
        error.starts_with("hall.toml:1: expect is no_alarm"),
        "{error}"
    );
}

#[test]
fn what_a_fault_file_leaves_out_is_the_halls_and_without_one_it_is_missing() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("hall.toml"), HALL.replace("\"soak\"", "\"own.toml\"")).unwrap();
    let base = load(&path("hall.toml")).unwrap();
    assert_eq!(
        base.conditions.profile,
        path("own.toml").display().to_string()
    );
    let fault = "schema_version = 1\nname = \"slow\"\nsummary = \"Slow.\"\n\n[[fault]]\nplace = \"any gpu\"\n\
                 rate = { times = 0.95 }\ncauses = [\"slow_silicon\"]\nwithin = \"10 min\"\n";
    std::fs::write(path("slow.toml"), fault).unwrap();
    let slow = load_on(&path("slow.toml"), &base).unwrap();
    assert_eq!(
        (&slow.hall, &slow.conditions),
        (&base.hall, &base.conditions)
    );
    assert_eq!(slow.faults.len(), 1);
    let error = load(&path("slow.toml")).unwrap_err().to_string();
    assert!(
        error.ends_with("slow.toml:1: [hall] is missing, and no other file gives it"),
        "{error}"
    );
    let both = base.with_faults(&slow).unwrap();
    assert_eq!(both.faults.len(), 3);
}

#[test]
fn a_broken_scenario_never_panics() {
    for cut in (0..HALL.len())
        .filter(|c| HALL.is_char_boundary(*c))
        .step_by(7)
    {
        let _ = parse(&HALL[..cut], "cut.toml");
        let _ = parse(&HALL[cut..], "tail.toml");
        let _ = parse(
            &format!("{}\"{}", &HALL[..cut], &HALL[cut..]),
            "joined.toml",
        );
        let _ = HALL[cut..].parse::<Place>();
    }
    for text in [
        "rack",
        "rack-1",
        "rack4294967296",
        "rack1/",
        "rack1/tray2/node0/gpu3/x",
        "any site",
        "",
    ] {
        assert!(text.parse::<Spot>().is_err(), "{text}");
    }
}

#[test]
fn the_committed_schema_is_the_generated_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/scenario.schema.json");
    let generated = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("HALLMARK_RENEW").is_some_and(|v| v == "1") {
        std::fs::write(path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        committed, generated,
        "read the new schema, and renew with HALLMARK_RENEW=1"
    );
}
