//! Heat, from the chip outwards.

use super::began;
use hallmark_results::diagnosis::{Cause, Level};
use hallmark_tests::hall::{State, hall, named, nothing, of};
use std::f64::consts::TAU;

fn in_tray(s: &State) -> bool {
    s.rack == 1 && s.tray == 0
}

#[test]
fn a_cold_plate_that_comes_loose_is_named_with_its_onset() {
    let found = hall().state(|s| {
        s.r_th *= if s.device == 5 && s.t_s > 600.0 {
            1.3
        } else {
            1.0
        }
    });
    let found = found.diagnose();
    let plate = named(&found, Cause::ColdPlate);
    assert_eq!(plate.place.name, "gpu5");
    began(plate, 600.0, 90.0);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_cold_plate_badly_seated_from_the_start_is_named() {
    let found = of(2, 4, 4).state(|s| s.r_th *= if s.device == 5 { 1.4 } else { 1.0 });
    let found = found.diagnose();
    let plate = named(&found, Cause::ColdPlate);
    assert_eq!((plate.place.name.as_str(), plate.onset_ns), ("gpu5", None));
}

#[test]
fn paste_that_is_pumped_out_climbs_and_does_not_step() {
    let slow = |s: &mut State| {
        s.r_th *= if s.device == 5 {
            1.0 + 0.05 * s.t_s.max(0.0) / s.of_s
        } else {
            1.0
        }
    };
    let found = hall().lasting(24.0 * 60.0, 120.0).state(slow).diagnose();
    assert_eq!(named(&found, Cause::PumpOut).place.name, "gpu5");
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn low_flow_of_a_branch_heats_its_whole_tray() {
    let found = hall().state(|s| {
        s.flow *= if in_tray(s) && s.t_s > 400.0 {
            0.7
        } else {
            1.0
        }
    });
    let found = found.diagnose();
    let branch = named(&found, Cause::BranchFlow);
    assert_eq!(
        (branch.place.level, branch.place.name.as_str()),
        (Level::Tray, "rack 1, tray 0")
    );
    began(branch, 400.0, 90.0);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        branch
            .sentence()
            .starts_with("rack 1, tray 0: branch flow low (ΔT on 4 GPUs up ")
    );
}

#[test]
fn a_warm_supply_heats_all_alike_and_leaves_resistance_as_it_was() {
    let found = hall()
        .state(|s| s.supply_c += if s.t_s > 700.0 { 3.0 } else { 0.0 })
        .diagnose();
    let warm = named(&found, Cause::SupplyWarm);
    assert_eq!(
        (warm.place.level, warm.place.name.as_str()),
        (Level::Cdu, "cdu-1")
    );
    began(warm, 700.0, 60.0);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_supply_that_swings_is_hunting_and_one_that_is_noisy_is_not() {
    let swing = |s: &mut State| s.supply_c += (TAU * s.t_s / 120.0).sin();
    let found = hall().state(swing).diagnose();
    let hunting = named(&found, Cause::Hunting);
    assert_eq!(hunting.place.name, "cdu-1");
    let told = hunting.sentence().replace('\u{a0}', " ");
    assert!(
        told.contains(" every 1 min 59 s") || told.contains(" every 2 min"),
        "{told}"
    );
    let noisy = hall().meters(|m| m.supply += 0.3 * ((m.t_s * 7.3).sin() * (m.t_s * 0.31).cos()));
    assert!(
        noisy
            .diagnose()
            .iter()
            .all(|d| d.cause != Cause::Hunting || d.confidence < 0.9)
    );
}

#[test]
fn a_pump_that_trips_takes_the_flow_with_it() {
    let found = hall()
        .state(|s| s.flow *= if s.t_s > 600.0 { 0.5 } else { 1.0 })
        .meters(|m| {
            if m.t_s > 600.0 {
                m.flow *= 0.5;
                m.pump *= 0.45;
            }
        })
        .diagnose();
    let pump = named(&found, Cause::PumpTrip);
    assert_eq!(pump.place.name, "cdu-1");
    began(pump, 600.0, 60.0);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn supply_below_the_dew_point_is_named_and_a_thin_margin_is_not() {
    let found = hall()
        .meters(|m| m.dew -= if m.t_s > 300.0 { 7.0 } else { 0.0 })
        .diagnose();
    let dew = named(&found, Cause::DewPoint);
    began(dew, 300.0, 20.0);
    nothing(&hall().meters(|m| m.dew -= 5.0).diagnose());
}

#[test]
fn a_rack_that_throttles_is_named_with_what_heats_it() {
    let found = hall().state(|s| {
        s.flow *= if s.rack == 1 && s.t_s > 500.0 {
            0.13
        } else {
            1.0
        }
    });
    let found = found.diagnose();
    let hot = named(&found, Cause::ThermalThrottle);
    assert_eq!(
        (hot.place.level, hot.place.name.as_str()),
        (Level::Rack, "rack 1")
    );
    assert_eq!(named(&found, Cause::BranchFlow).place.name, "rack 1");
    assert!(
        found
            .iter()
            .all(|d| d.cause != Cause::PowerCap && d.cause != Cause::SlowSilicon)
    );
}
