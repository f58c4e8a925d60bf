//! Evidence that cannot be: told twice, faster than a part can be, over before it was due.

use super::{judged, not_passed, steps};
use hallmark_results::frame::{Frame, Steps};
use hallmark_results::verdict::{Outcome, judge};
use hallmark_tests::hall::{Hall, hall};
use hallmark_tests::synthetic::{finding, fold, record};

#[test]
fn a_step_that_was_recorded_twice_is_work_done_once() {
    let slow = record("burn-in").rates(|_, _| 0.6);
    let twice: Vec<Frame> = slow
        .frames()
        .into_iter()
        .flat_map(|f| vec![f.clone(); 1 + usize::from(matches!(f, Frame::Steps(_)))])
        .collect();
    let verdict = judge(&fold(&twice));
    not_passed(&verdict, &["reference"]);
    assert_ne!(verdict.outcome, Outcome::Passed);
}

#[test]
fn one_rank_that_reports_twice_is_not_two_ranks() {
    // Device 1's rows are lost; device 0 has sent its own a second time.
    let verdict = judged(&record("burn-in"), |frame| {
        if let Some(found) = steps(frame)
            && found.device == 0
        {
            let doubled = found.rows.iter().flat_map(|row| [*row; 2]).collect();
            *found = Steps {
                rows: doubled,
                ..found.clone()
            };
        } else if let Some(found) = steps(frame)
            && found.device == 1
        {
            found.rows.clear();
        }
    });
    not_passed(&verdict, &["stragglers"]);
}

#[test]
fn a_rate_above_the_datasheet_is_no_evidence() {
    // 989.5 TFLOP/s is all that the part has; 1.5 × 794.5 is a clock that runs slow.
    let verdict = record("burn-in").rates(|_, _| 1.5).judge();
    not_passed(&verdict, &["reference"]);
    assert_ne!(verdict.outcome, Outcome::Passed);
}

#[test]
fn a_step_that_was_due_after_its_end_took_no_time_and_is_no_evidence() {
    let verdict = record("smoke")
        .steps(|m, _, row| {
            // The slow ones are said to have been due later.
            if m.index.is_multiple_of(4) {
                row.due_ns = row.end_ns + 1;
            }
            true
        })
        .lengths(|m| if m.index.is_multiple_of(4) { 4.0 } else { 1.0 })
        .judge();
    not_passed(&verdict, &["step-time"]);
}

#[test]
fn operations_that_took_no_time_are_no_evidence() {
    let verdict = record("soak").hours(2.0).operations(|_| 0.0).judge();
    not_passed(
        &verdict,
        &["all-reduce", "all-reduce-p99", "all-reduce-p99.9"],
    );
}

#[test]
fn power_that_meters_of_several_levels_see_is_counted_once() {
    let shown = |hall: Hall| {
        let verdict = hall.judge();
        let found = finding(&verdict, "efficiency");
        let place = found.worst().expect("a place");
        place.estimate.as_ref().expect("an estimate").value
    };
    // The feeder watches all devices; racks and devices are behind it.
    let usual = shown(hall());
    let racks = shown(hall().meters(|m| m.racks.iter_mut().for_each(|r| *r *= 2.0)));
    assert!((racks / usual - 1.0).abs() < 1e-9, "{racks} {usual}");
    let feeder = shown(hall().meters(|m| m.feeder *= 2.0));
    assert!((feeder / usual - 0.5).abs() < 1e-6, "{feeder} {usual}");
}
