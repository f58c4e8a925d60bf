//! What is gone, was never there, was set up otherwise, or was silent.

use super::began;
use hallmark_profiles::metric::Metric;
use hallmark_results::diagnosis::{Cause, Level};
use hallmark_results::diagnosis::{Diagnosis, diagnose};
use hallmark_results::frame::{
    AT_LEAST, FaultKind, Frame, Provenance, Samples, Series, SeriesKind, Table, What,
};
use hallmark_tests::hall::{SECOND_NS, hall, named, nothing};
use hallmark_tests::synthetic::fold;

#[test]
fn a_gpu_off_the_bus_is_named_with_its_xid() {
    let xid = What::Xid {
        code: 79,
        detail: "fallen off the bus".to_owned(),
    };
    let found = hall()
        .state(|s| s.alive &= s.device != 11 || s.t_s < 600.0)
        .event(600.0, Some(11), xid)
        .fault(602.0, 11, FaultKind::Silent, "no step for 2 s")
        .diagnose();
    let lost = named(&found, Cause::DeviceLost);
    assert_eq!(lost.place.name, "gpu11");
    began(lost, 600.0, 1.0);
    assert!(lost.sentence().contains("Xid 79"));
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_node_that_goes_at_once_lost_its_feed_and_not_its_devices() {
    let mut hall = hall().state(|s| s.alive &= s.rack != 1 || s.tray != 1 || s.t_s < 600.0);
    for device in 12..16 {
        let t_s = 601.0 + f64::from(device) * 0.1;
        hall = hall.fault(t_s, device, FaultKind::Silent, "no step");
    }
    let found = hall.diagnose();
    let feed = named(&found, Cause::FeedLoss);
    assert_eq!(
        (feed.place.level, feed.place.name.as_str()),
        (Level::Node, "node-3")
    );
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_node_whose_agent_ended_lost_no_feed_unless_its_meter_says_so() {
    let told = "the agent of node `node-3` ended: signal: 9 (SIGKILL)";
    let mut hall = hall().state(|s| s.alive &= s.rack != 1 || s.tray != 1 || s.t_s < 600.0);
    for device in 12..16 {
        hall = hall.fault(600.0, device, FaultKind::Agent, told);
    }
    let found = hall.diagnose();
    let agent = named(&found, Cause::AgentRestart);
    assert_eq!(agent.place.name, "node-3");
    assert!(agent.sentence().contains(told), "{}", agent.sentence());
    began(agent, 600.0, 1.0);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn an_agent_that_is_silent_for_a_while_is_no_loss() {
    let found = hall()
        .state(|s| s.heard &= s.rack != 0 || s.tray != 1 || !(600.0..640.0).contains(&s.t_s))
        .diagnose();
    let agent = named(&found, Cause::AgentRestart);
    assert_eq!(agent.place.name, "node-1");
    began(agent, 600.0, 5.0);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn missing_devices_of_a_node_are_missing_as_a_node() {
    let mut hall = hall().state(|s| s.alive &= s.rack != 1 || s.tray != 0);
    for device in 8..12 {
        hall = hall.fault(-100.0, device, FaultKind::Missing, "not there");
    }
    let found = hall.diagnose();
    assert_eq!(named(&found, Cause::Missing).place.name, "node-2");
    assert!(
        found
            .iter()
            .all(|d| d.cause != Cause::DeviceLost && d.cause != Cause::FeedLoss)
    );
}

#[test]
fn a_device_set_up_otherwise_is_named_with_the_setting() {
    let mut hall = hall();
    for device in 0..16 {
        let value = if device == 5 { "600 W" } else { "700 W" };
        let found = What::AsFound {
            key: "power_limit".to_owned(),
            value: value.to_owned(),
        };
        hall = hall.event(-100.0, Some(device), found);
    }
    let found = hall.diagnose();
    let unlike = named(&found, Cause::Settings);
    assert_eq!(unlike.place.name, "gpu5");
    assert!(unlike.sentence().contains("600 W, its peers 700 W"));
    assert_eq!(found.len(), 1, "{found:?}");
}

/// What is found of a sound hall where a node's clock was compared once a second, and was off at most and at least by so
/// many seconds.
fn compared(most_s: f64, least_s: f64) -> Vec<Diagnosis> {
    let mut frames = hall().frames();
    let tables = frames.iter().filter(|f| matches!(f, Frame::Table(_)));
    let id = tables.count() as u32;
    let series = |label: &str| Series {
        metric: Metric::ClockOffset,
        label: label.to_owned(),
        unit: Metric::ClockOffset.spec().unit,
        kind: SeriesKind::Gauge,
        averaging_ns: None,
        accuracy: None,
    };
    let table = Table {
        id,
        name: "4-node-3-clock".to_owned(),
        source: "heartbeats".to_owned(),
        provenance: Provenance::Measured,
        device: None,
        place: "node-3".to_owned(),
        period_ns: SECOND_NS,
        series: vec![series(""), series(AT_LEAST)],
    };
    let rows = 200..400_u64;
    let samples = Samples {
        table: id,
        at_ns: rows.clone().map(|t| t * SECOND_NS).collect(),
        columns: vec![
            rows.clone().map(|_| most_s).collect(),
            rows.map(|_| least_s).collect(),
        ],
    };
    let last = frames.len() - 1;
    frames.splice(last..last, [Frame::Table(table), Frame::Samples(samples)]);
    diagnose(&fold(&frames))
}

#[test]
fn a_clock_that_is_off_is_named_and_one_whose_heartbeats_are_long_on_their_way_is_not() {
    nothing(&compared(0.33, 0.0));
    let found = compared(0.33, 0.21);
    let skew = named(&found, Cause::ClockSkew);
    assert_eq!(skew.place.name, "node-3");
    assert!(skew.sentence().contains("210.0"), "{}", skew.sentence());
}
