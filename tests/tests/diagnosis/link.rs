//! Links: flaps, reduced rates, congestion.

use super::began;
use hallmark_results::diagnosis::Cause;
use hallmark_tests::hall::{hall, named, nothing};

#[test]
fn a_link_that_flaps_is_named_at_its_device() {
    let found = hall()
        .told(|s, t| {
            t.flaps += if s.device == 6 && (600.0..602.0).contains(&s.t_s) {
                1.0
            } else {
                0.0
            }
        })
        .operations(|t_s, _| {
            if (600.0..602.0).contains(&t_s) {
                1_000.0
            } else {
                1.0
            }
        });
    let found = found.diagnose();
    assert_eq!(named(&found, Cause::LinkDown).place.name, "gpu6");
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_link_at_half_rate_makes_every_operation_longer_from_then_on() {
    let found = hall()
        .operations(|t_s, _| if t_s > 600.0 { 2.0 } else { 1.0 })
        .diagnose();
    let slow = named(&found, Cause::LinkSlow);
    assert_eq!(slow.place.devices.len(), 16);
    began(slow, 600.0, 60.0);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn sums_in_the_memory_of_one_nodes_processors_cross_no_link() {
    let slower = hall().operations(|t_s, _| if t_s > 600.0 { 2.0 } else { 1.0 });
    nothing(&slower.of_one_processor().diagnose());
    let few = hall().operations(|_, i| if i % 500 == 7 { 5.0 } else { 1.0 });
    nothing(&few.of_one_processor().diagnose());
}

#[test]
fn few_long_operations_are_a_congested_rail_and_a_wide_spread_is_not() {
    let found = hall().operations(|_, i| {
        if i % 500 == 7 {
            5.0
        } else {
            1.0 + (i % 7) as f64 * 0.01
        }
    });
    let found = found.diagnose();
    assert_eq!(named(&found, Cause::Congestion).onset_ns, None);
    assert_eq!(found.len(), 1, "{found:?}");
    nothing(
        &hall()
            .operations(|_, i| 1.0 + (i % 7) as f64 * 0.05)
            .diagnose(),
    );
}
