//! What must not alarm: nothing is named where nothing is wrong.

use hallmark_results::diagnosis::{Cause, Level};
use hallmark_results::frame::What;
use hallmark_tests::hall::{RATED_W, SECOND_NS, hall, nothing, of};

#[test]
fn silicon_that_spreads_by_a_percent_and_a_half_is_healthy() {
    for seed in 1..=4 {
        println!("seed {seed}");
        nothing(&hall().seed(seed).diagnose());
    }
}

#[test]
fn a_larger_hall_of_many_trays_is_healthy() {
    for seed in 1..=2 {
        println!("seed {seed}");
        nothing(&of(4, 4, 4).lasting(20.0, 4.0).seed(seed).diagnose());
    }
}

#[test]
fn a_warm_afternoon_that_the_loop_absorbs_is_healthy() {
    // Outside it grows 6 K warmer; the loop lets a twentieth through.
    let warm = |t_s: f64, of_s: f64| 0.3 * (t_s / of_s).clamp(0.0, 1.0);
    let found = hall()
        .state(move |s| s.supply_c += warm(s.t_s, s.of_s))
        .diagnose();
    nothing(&found);
}

#[test]
fn a_software_cap_at_the_rated_limit_is_healthy() {
    let found = hall().state(|s| s.needs_w = RATED_W + 40.0 + (s.device % 5) as f64);
    nothing(&found.diagnose());
}

#[test]
fn one_lost_frame_of_telemetry_is_healthy() {
    let found = hall()
        .state(|s| s.heard &= s.device != 3 || !(600.0..604.0).contains(&s.t_s))
        .event(
            604.0,
            Some(3),
            What::Gap {
                table: 3,
                from_ns: 720 * SECOND_NS,
                reason: "read again after one retry".to_owned(),
            },
        );
    nothing(&found.diagnose());
}

#[test]
fn a_single_gpu_is_healthy() {
    for seed in 1..=3 {
        println!("seed {seed}");
        nothing(&of(1, 1, 1).seed(seed).diagnose());
    }
}

#[test]
fn two_faults_at_once_are_both_named() {
    let found = hall()
        .state(|s| {
            if s.t_s > 500.0 && s.device == 2 {
                s.r_th *= 1.3;
            }
            if s.t_s > 700.0 && s.rack == 1 && s.tray == 1 {
                s.cap_w = 0.85 * RATED_W;
            }
        })
        .diagnose();
    let plate = hallmark_tests::hall::named(&found, Cause::ColdPlate);
    assert_eq!(plate.place.name, "gpu2");
    let cap = hallmark_tests::hall::named(&found, Cause::PowerCap);
    assert_eq!(
        (cap.place.level, cap.place.name.as_str()),
        (Level::Node, "node-3")
    );
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn what_goes_with_the_load_is_no_fault_from_one_phase_to_the_next() {
    // All-reduces that compete with matmuls take longer than alone; fans and hosts draw as much whatever the devices do,
    // so a meter's share of them falls as the load rises.
    let found = hall()
        .after_collectives()
        .operations(|t_s, _| if t_s < 0.0 { 0.5 } else { 1.0 })
        .state(|s| s.needs_w = if s.t_s < 0.0 { 250.0 } else { s.needs_w })
        .meters(|m| {
            m.racks.iter_mut().for_each(|r| *r += 1_500.0);
            m.feeder += 3_000.0;
        });
    nothing(&found.diagnose());
}

#[test]
fn a_meter_that_holds_more_than_its_devices_is_not_scaled_when_they_draw_less() {
    let found = hall()
        .state(|s| s.brake = s.t_s > 600.0)
        .meters(|m| m.racks.iter_mut().for_each(|r| *r += 1_500.0))
        .diagnose();
    assert!(
        found.iter().all(|d| d.cause != Cause::SensorScaled),
        "{found:?}"
    );
}
