//! What is gone, was never there, was set up otherwise, or was silent.

use super::began;
use hallmark_results::diagnosis::{Cause, Level};
use hallmark_results::frame::{FaultKind, What};
use hallmark_tests::hall::{hall, named};

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
