//! The measurement itself.

use super::began;
use hallmark_results::diagnosis::Cause;
use hallmark_tests::hall::{State, Told, hall, named};
use std::cell::RefCell;

/// Readings of one device, by the time at which they were true.
fn remembered(retell: impl Fn(&[f64], f64) -> Option<f64> + 'static) -> impl Fn(&State, &mut Told) {
    let past = RefCell::new(Vec::new());
    move |s, t| {
        if s.device == 6 {
            let mut past = past.borrow_mut();
            past.push(t.power);
            t.power = retell(&past, s.t_s).unwrap_or(t.power);
        }
    }
}

#[test]
fn a_reading_that_stays_where_it_was_is_stuck() {
    let found = hall().told(remembered(|past, t_s| {
        (t_s > 600.0).then(|| past[past.len() - ((t_s - 600.0) / 4.0) as usize - 1])
    }));
    let found = found.diagnose();
    let stuck = named(&found, Cause::SensorStuck);
    assert_eq!(stuck.place.name, "gpu6");
    began(stuck, 600.0, 5.0);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn readings_told_again_and_again_are_stale() {
    let found = hall().told(remembered(|past, _| Some(past[(past.len() - 1) / 8 * 8])));
    let found = found.diagnose();
    assert_eq!(named(&found, Cause::SensorStale).place.name, "gpu6");
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_stretch_of_readings_that_comes_again_is_replayed() {
    let found = hall().told(remembered(|past, t_s| {
        (t_s > 600.0).then(|| past[past.len() - 1 - 120])
    }));
    let found = found.diagnose();
    assert_eq!(named(&found, Cause::SensorReplayed).place.name, "gpu6");
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_meter_that_reads_five_percent_more_is_scaled_and_a_hall_that_draws_more_is_not() {
    let found = hall()
        .meters(|m| m.racks[1] *= if m.t_s > 600.0 { 1.05 } else { 1.0 })
        .diagnose();
    let scaled = named(&found, Cause::SensorScaled);
    assert_eq!(scaled.place.name, "rack 1");
    began(scaled, 600.0, 60.0);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn power_read_too_low_is_told_from_power_that_is_low() {
    let from = |s: &State| s.device == 6 && s.t_s > 600.0;
    let read = hall()
        .told(move |s, t| t.power *= if from(s) { 0.8 } else { 1.0 })
        .diagnose();
    assert_eq!(named(&read, Cause::SensorScaled).place.name, "gpu6");
    // Zeros for operands: as much work as ever, at less power and heat.
    let zeros = hall()
        .state(move |s| s.needs_w *= if from(s) { 0.7 } else { 1.0 })
        .diagnose();
    assert_eq!(named(&zeros, Cause::ShortcutWork).place.name, "gpu6");
    assert!(
        zeros
            .iter()
            .all(|d| d.cause != Cause::SensorScaled && d.cause != Cause::PowerCap)
    );
}
