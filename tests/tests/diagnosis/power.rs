//! Power: brakes, caps and swings.

use super::began;
use hallmark_results::diagnosis::{Cause, Level};
use hallmark_tests::hall::{RATED_W, hall, named, nothing, of};

#[test]
fn a_lost_supply_brakes_its_node() {
    let found = hall()
        .state(|s| s.brake = s.rack == 0 && s.tray == 1 && s.t_s > 600.0)
        .diagnose();
    let brake = named(&found, Cause::PowerBrake);
    assert_eq!(
        (brake.place.level, brake.place.name.as_str()),
        (Level::Node, "node-1")
    );
    began(brake, 600.0, 20.0);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_lowered_limit_is_found_where_it_was_lowered() {
    let cap = |from: f64, node: Option<usize>| {
        hall().state(move |s| {
            let own = s.rack * 2 + s.tray;
            if s.t_s > from && node.is_none_or(|n| n == own) {
                s.cap_w = 0.85 * RATED_W;
            }
        })
    };
    let found = cap(600.0, Some(2)).diagnose();
    let node = named(&found, Cause::PowerCap);
    assert_eq!(
        (node.place.level, node.place.name.as_str()),
        (Level::Node, "node-2")
    );
    began(node, 600.0, 60.0);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_capped_rack_is_a_rack_and_not_its_nodes() {
    let found = hall().state(|s| {
        s.cap_w *= if s.rack == 1 && s.t_s > 600.0 {
            0.88
        } else {
            1.0
        }
    });
    let found = found.diagnose();
    let rack = named(&found, Cause::RackCap);
    assert_eq!(
        (rack.place.level, rack.place.name.as_str()),
        (Level::Rack, "rack 1")
    );
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_limit_lowered_on_every_device_is_not_lost_in_the_common_course() {
    let found = of(1, 2, 4).state(|s| s.cap_w *= if s.t_s > 600.0 { 0.85 } else { 1.0 });
    let found = found.diagnose();
    assert_eq!(named(&found, Cause::RackCap).place.devices.len(), 8);
}

#[test]
fn a_feeder_that_swings_is_named_and_a_steady_one_is_not() {
    // Within each row's four seconds the bins see both ends of a swing.
    let swing = |t_s: f64, tick: u64| {
        if t_s > 600.0 && tick.is_multiple_of(2) {
            0.4
        } else {
            0.0
        }
    };
    let found = hall()
        .meters(move |m| m.feeder *= 1.0 - swing(m.t_s, (m.t_s / 4.0) as u64))
        .diagnose();
    assert_eq!(named(&found, Cause::PowerSwing).place.name, "feeder-1");
    nothing(&hall().seed(9).diagnose());
}
