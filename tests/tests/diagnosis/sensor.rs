//! The measurement itself.

use super::began;
use hallmark_results::diagnosis::{Cause, diagnose};
use hallmark_results::frame::{Event, Frame, What};
use hallmark_tests::hall::{Hall, SECOND_NS, State, Told, hall, named, nothing};
use hallmark_tests::synthetic::fold;
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
fn a_temperature_that_rests_between_two_digits_for_once_is_not_stuck_and_one_that_rests_to_the_end_is()
 {
    let resting = |rest: std::ops::Range<f64>| {
        hall().after_collectives().told(move |s, t| {
            let period_s = if [3, 4].contains(&s.device) {
                200.0
            } else {
                20.0
            };
            let rests = s.device == 6 && rest.contains(&s.t_s);
            let digit = (s.t_s / period_s).rem_euclid(2.0).floor();
            t.core = 60.0 + if rests { 0.0 } else { digit };
        })
    };
    nothing(&resting(300.0..800.0).diagnose());
    // To the end; and while the load became another.
    for rest in [700.0..1_300.0, -200.0..300.0] {
        let stuck = resting(rest).diagnose();
        assert_eq!(named(&stuck, Cause::SensorStuck).place.name, "gpu6");
        assert_eq!(stuck.len(), 1, "{stuck:?}");
    }
}

#[test]
fn readings_told_again_and_again_are_stale() {
    let found = hall().told(remembered(|past, _| Some(past[(past.len() - 1) / 8 * 8])));
    let found = found.diagnose();
    assert_eq!(named(&found, Cause::SensorStale).place.name, "gpu6");
    assert_eq!(found.len(), 1, "{found:?}");
}

/// A hall whose load rises from one phase to the next, read each second.
fn rising() -> Hall {
    let hall = hall().after_collectives().lasting(20.0, 1.0);
    hall.state(|s| s.needs_w *= if s.t_s < 0.0 { 0.6 } else { 1.0 })
}

/// The same, of which one device's power comes so many seconds late.
fn late(ticks: usize) -> Hall {
    rising().told(remembered(move |past, _| {
        past.len().checked_sub(1 + ticks).map(|at| past[at])
    }))
}

#[test]
fn a_power_that_follows_the_load_late_is_stale() {
    let found = late(10).diagnose();
    let stale = named(&found, Cause::SensorStale);
    assert_eq!(stale.place.name, "gpu6");
    began(stale, 300.0, 1.0);
    assert_eq!(found.len(), 1, "{found:?}");
    // An averaging sensor may well come a second or two after one that does not.
    nothing(&late(2).diagnose());
}

#[test]
fn a_power_that_follows_late_with_its_devices_work_is_not_stale() {
    let mut frames = late(10).frames();
    let mut begins = frames.iter().filter_map(|f| match f {
        Frame::Event(Event {
            at_ns,
            what: What::Segment { index },
            ..
        }) => Some((*index, *at_ns)),
        _ => None,
    });
    let (train, begun) = begins.next_back().expect("a phase");
    for frame in &mut frames {
        if let Frame::Steps(steps) = frame
            && steps.device == 6
        {
            steps
                .rows
                .retain(|r| r.segment != train || r.start_ns >= begun + 10 * SECOND_NS);
        }
    }
    let found = diagnose(&fold(&frames));
    assert!(
        found.iter().all(|d| d.cause != Cause::SensorStale),
        "{found:?}"
    );
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
