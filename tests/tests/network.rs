//! A hall over a network that a test worsens: a node cut off, frames lost, a narrow and slow link, a clock that is ahead.
//!
//! The controller and each agent have a network namespace of their own, the devices are the processor's cores. What a
//! verdict says under such trouble is right or inconclusive, never wrong; and whatever a node has written down stands in
//! the record once. Such a hall is a rehearsal, so nothing here may ever be accepted as a site.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use hallmark::protocol::FromWorker;
use hallmark::protocol::link::Said;
use hallmark_profiles::metric::Metric;
use hallmark_results::diagnosis::pairs::{When, measured};
use hallmark_results::diagnosis::{Cause, Level};
use hallmark_results::frame::{ClockState, FaultKind, Frame, What};
use hallmark_results::standing::Standing;
use hallmark_results::verdict::{Outcome, judge};
use hallmark_tests::agents::signal;
use hallmark_tests::component::Component;
use hallmark_tests::judged::{detail, faults, outcome, standing_but, steps, told, whole_and_once};
use hallmark_tests::network::Network;
use hallmark_tests::network::hall::Spread;
use hallmark_tests::network::sent::Sent;
use hallmark_tests::network::wires::Link;
use std::path::Path;
use std::time::{Duration, Instant};

const SECOND: u64 = 1_000_000_000;
/// Judges what a node's times may be off.
const CLOCK: &str = r#"
[[criterion]]
name = "clock"
metric = "clock_offset"
scope = "node"
statistic = "max"
at_most = "30 ms"
"#;

fn cut() -> Link {
    Link {
        up: false,
        ..Link::default()
    }
}

fn lossy() -> Link {
    Link {
        loss: 0.2,
        ..Link::default()
    }
}

fn slow() -> Link {
    Link {
        delay: Duration::from_millis(20),
        rate: Some(50_000_000),
        ..Link::default()
    }
}

/// No node here is at fault, so nothing may be said against one, and what is not known is inconclusive.
fn right_or_inconclusive(code: i32, standing: &Standing) {
    let told: Vec<_> = faults(standing).into_iter().map(detail).collect();
    assert_eq!(told, [], "a fault of a hall without one");
    assert!(matches!(code, 0 | 3), "{}", judge(standing).sentence);
    for criterion in ["inventory", "failures", "integrity"] {
        let found = outcome(standing, criterion);
        assert_ne!(found, Outcome::Failed, "{criterion}");
    }
    assert!(!judge(standing).accepts_site);
}

/// All that the nodes have written down stands in the record once, and no step is missing.
fn nothing_lost_or_twice(hall: &mut Spread, nodes: usize) {
    whole_and_once(&hall.run.folder);
    for node in 1..=nodes {
        let (steps, samples) = hall.taken_once(node);
        println!("n{node}: {steps} steps, {samples} samples");
        assert!(steps > 20 && samples > 20, "{steps} {samples}");
    }
}

/// The verdict of the criterion on clocks, were the controller's own clock disciplined.
fn clock(folder: &Path) -> Outcome {
    let disciplined = |clock: &mut ClockState| {
        clock.synchronised = Some(true);
        clock.max_error_s = Some(0.001);
    };
    let standing = standing_but(folder, |frame| match frame {
        Frame::Opened(opened) => disciplined(&mut opened.clock),
        Frame::Closed(closed) => disciplined(&mut closed.clock),
        _ => {}
    });
    outcome(&standing, "clock")
}

/// By how much a node's times were off at most, s, by the rows of its clock, and how many there are.
///
/// There is at least one: a bad link makes comparisons rarer, and ends none for good.
fn off(standing: &Standing, node: &str) -> (f64, usize) {
    let of_node = standing.tables().iter().find(|t| {
        let metric = t.table.series.first().map(|s| s.metric);
        t.table.place == node && metric == Some(Metric::ClockOffset)
    });
    let rows = &of_node.unwrap().whole[0];
    (rows.extremes.unwrap().1, rows.valid as usize)
}

#[test]
fn a_node_that_is_cut_off_for_20_s_is_a_fault_within_10_s_and_what_it_did_meanwhile_is_taken_once()
{
    let Some(mut hall) = Spread::start(3, 28, "", |_| {}) else {
        return;
    };
    hall.works_in("steady");
    let begun = Instant::now();
    hall.set(1, cut());
    hall.run.wait_for("the fault", |r| {
        r.stdout().contains("silent on both its connections")
    });
    let found = begun.elapsed();
    assert!(found < Duration::from_secs(10), "{found:?}");
    std::thread::sleep(Duration::from_secs(20).saturating_sub(begun.elapsed()));
    hall.set(1, Link::default());
    let (code, standing) = hall.end();
    assert_eq!(code, 1, "{}", judge(&standing).sentence);
    assert_eq!(outcome(&standing, "failures"), Outcome::Failed);
    assert_eq!(outcome(&standing, "integrity"), Outcome::Passed);
    let faults = faults(&standing);
    assert_eq!(faults.len(), 1, "{faults:?}");
    let (device, kind, told) = detail(faults[0]);
    assert_eq!((device, kind), (Some(0), FaultKind::Silent), "{told}");
    assert!(told.starts_with("node `n1` was silent on both"), "{told}");
    println!("found after {found:?}: {told}");
    // It worked on while nobody heard it, and the others all the time.
    let at_ns = faults[0].at_ns;
    let devices = standing.devices();
    let last_ns = devices[0].last_end_ns;
    assert!(last_ns > at_ns + 8 * SECOND, "{last_ns}, {at_ns}");
    for other in [1, 2] {
        let last_ns = devices[other].last_end_ns;
        assert!(last_ns + 3 * SECOND > standing.last_ns(), "device {other}");
    }
    nothing_lost_or_twice(&mut hall, 3);
}

#[test]
fn a_node_that_is_cut_off_for_3_s_is_no_fault_and_works_on() {
    let Some(mut hall) = Spread::start(2, 10, CLOCK, |_| {}) else {
        return;
    };
    hall.works_in("steady");
    hall.set(1, cut());
    std::thread::sleep(Duration::from_secs(3));
    hall.set(1, Link::default());
    let (code, standing) = hall.end();
    right_or_inconclusive(code, &standing);
    nothing_lost_or_twice(&mut hall, 2);
    let longest = longest_pause(&mut hall, 1);
    println!(
        "longest pause {longest} ns, clock {:?}",
        off(&standing, "n1")
    );
    assert!(longest < 2 * SECOND, "{longest} ns without work");
}

/// Longest time between the ends of two steps of one order, ns.
fn longest_pause(hall: &mut Spread, node: usize) -> u64 {
    let steps = hall.sent(node).delivered().steps;
    let pauses = steps.values().flat_map(|rows| rows.windows(2));
    let within = pauses.filter(|pair| pair[0].seq >> 32 == pair[1].seq >> 32);
    within
        .map(|pair| pair[1].end_ns - pair[0].end_ns)
        .max()
        .unwrap()
}

#[test]
fn a_fifth_of_a_nodes_frames_may_be_lost_and_the_verdict_is_no_other() {
    let Some(mut hall) = Spread::start(2, 10, CLOCK, |network| network.set(1, lossy())) else {
        return;
    };
    let (code, standing) = hall.end();
    let traffic = hall.network.traffic(1);
    let (most_s, rows) = off(&standing, "n1");
    println!("{traffic:?}, clock {most_s} s in {rows} rows");
    assert!(traffic.lost * 10 > traffic.passed, "{traffic:?}");
    right_or_inconclusive(code, &standing);
    // Of several answers one has come without a loss.
    assert!(most_s < 0.1, "{most_s} s");
    assert_ne!(clock(&hall.run.folder), Outcome::Failed);
    nothing_lost_or_twice(&mut hall, 2);
}

#[test]
fn over_a_narrow_and_slow_link_a_nodes_times_are_less_certain_and_nothing_else() {
    let Some(mut hall) = Spread::start(2, 8, CLOCK, |network| network.set(1, slow())) else {
        return;
    };
    let (code, standing) = hall.end();
    let (most_s, rows) = off(&standing, "n1");
    println!(
        "{:?}, clock {most_s} s in {rows} rows",
        hall.network.traffic(1)
    );
    right_or_inconclusive(code, &standing);
    // Both comparisons, at the start and later, may err by half of a round trip.
    assert!((0.04..0.2).contains(&most_s), "{most_s} s");
    assert!(rows >= 5, "{rows} rows");
    assert_eq!(clock(&hall.run.folder), Outcome::Inconclusive);
    nothing_lost_or_twice(&mut hall, 2);
}

#[test]
fn a_clock_that_is_200_ms_ahead_is_found_and_the_nodes_times_are_the_controllers() {
    let ahead = Duration::from_millis(200);
    let started = Spread::start(2, 8, CLOCK, |network| network.set_clock_ahead(1, ahead));
    let Some(mut hall) = started else {
        return;
    };
    hall.works_in("steady");
    // When the newest of what a node has just written happened by its own account.
    let (mut lags, begun) = ([[i128::MAX; 2]; 2], Instant::now());
    while begun.elapsed() < Duration::from_secs(3) {
        for node in [1, 2] {
            heard(hall.sent(node), begun, &mut lags[node - 1]);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let (code, standing) = hall.end();
    println!("lags {lags:?} ns, clock {:?}", off(&standing, "n1"));
    for kind in [0, 1] {
        let apart_ns = (lags[0][kind] - lags[1][kind]).abs();
        assert!(apart_ns < 100_000_000, "{lags:?}");
    }
    right_or_inconclusive(code, &standing);
    for (node, behind_ms) in [("n1", -200.0), ("n2", 0.0)] {
        let told = measured_offset_ms(&standing, node);
        println!("{node}: {told} ms");
        assert!((told - behind_ms).abs() < 15.0, "{node}: {told} ms");
        let (most_s, rows) = off(&standing, node);
        assert!(most_s < 0.03 && rows >= 5, "{node}: {most_s} s, {rows}");
    }
    assert_eq!(clock(&hall.run.folder), Outcome::Passed);
    nothing_lost_or_twice(&mut hall, 2);
}

/// Least time from the newest sample, and from the newest step's end, of a report until it is written, less one constant
/// that all nodes share.
fn heard(sent: &mut Sent, begun: Instant, least: &mut [i128; 2]) {
    let newest = sent.news().iter().filter_map(|report| match &report.said {
        Said::Samples(samples) => Some((0, *samples.at_ns.last()?)),
        Said::Worker {
            report: FromWorker::Steps(steps),
            ..
        } => Some((1, steps.rows.last()?.end_ns)),
        _ => None,
    });
    let now = begun.elapsed().as_nanos().cast_signed();
    for (kind, at_ns) in newest {
        least[kind] = least[kind].min(now - i128::from(at_ns));
    }
}

/// How far the controller's clock was found to be ahead of a node's, ms.
fn measured_offset_ms(standing: &Standing, node: &str) -> f64 {
    let key = format!("{node}: clock offset");
    let mut found = standing.events().iter().filter_map(|e| match &e.what {
        What::AsFound { key: k, value } if *k == key => value.split(' ').next()?.parse().ok(),
        _ => None,
    });
    found.next().unwrap()
}

#[test]
fn a_node_that_fails_behind_a_bad_link_is_rejected_all_the_same() {
    let Some(mut hall) = Spread::start(3, 10, "", |network| network.set(1, lossy())) else {
        return;
    };
    hall.works_in("steady");
    hall.set(2, cut());
    signal(hall.workers(1)[0], "-STOP");
    signal(hall.workers(2)[0], "-KILL");
    std::thread::sleep(Duration::from_secs(3));
    hall.set(2, Link::default());
    let (code, standing) = hall.end();
    assert_eq!(code, 1, "{}", judge(&standing).sentence);
    assert_eq!(outcome(&standing, "failures"), Outcome::Failed);
    assert_eq!(outcome(&standing, "integrity"), Outcome::Passed);
    let mut told: Vec<_> = faults(&standing).into_iter().map(detail).collect();
    told.sort_by_key(|fault| fault.0);
    println!("{told:?}");
    let which: Vec<_> = told.iter().map(|f| (f.0, f.1)).collect();
    let [silent, died] = [FaultKind::Silent, FaultKind::WorkerDied];
    assert_eq!(which, [(Some(0), silent), (Some(1), died)], "{told:?}");
    assert!(steps(&hall.run.folder).len() == 3, "all of them had worked");
    nothing_lost_or_twice(&mut hall, 3);
}

#[test]
fn a_node_behind_a_narrow_link_is_named_by_its_pairs_with_the_others() {
    let Some(tools) = Component::Mpich.or_skip() else {
        return;
    };
    let library = tools.join("lib/libmpi_abi.so.1");
    let narrow = Link {
        rate: Some(50_000_000),
        ..Link::default()
    };
    let worsen = |network: &mut Network| network.set(2, narrow);
    let Some(mut hall) = Spread::reducing(4, 2, &library, worsen) else {
        return;
    };
    let (_, standing) = hall.end();
    let times: Vec<_> = measured(&standing).collect();
    let when: Vec<_> = times.iter().map(|m| m.when).collect();
    assert_eq!(when, [When::Before, When::After], "{times:?}");
    for rows in times.iter().map(|m| m.rows) {
        for row in rows {
            println!("{row:?}");
        }
        let of_narrow = rows.iter().filter(|r| r.nodes.contains(&"n2".to_owned()));
        // Every other node, and at least one of them again.
        assert!(of_narrow.clone().count() > 3, "{rows:?}");
        // The link carries 6.25 MB/s, in each way.
        assert!(
            of_narrow
                .clone()
                .all(|r| r.bytes_per_s < 6.5e6 && r.wrong == 0)
        );
    }
    println!("{}", told(&standing, "scaling"));
    assert_eq!(outcome(&standing, "scaling"), Outcome::Failed);
    let diagnoses = judge(&standing).diagnoses;
    let slow = diagnoses.iter().filter(|d| d.cause == Cause::LinkSlow);
    let slow: Vec<_> = slow
        .map(|d| (d.place.level, d.place.name.as_str()))
        .collect();
    assert_eq!(slow, [(Level::Node, "n2")], "{diagnoses:?}");
}
