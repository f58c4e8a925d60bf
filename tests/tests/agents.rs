//! A hall of several agents on this machine: one record and one verdict, also where agents are killed or cut off.
//!
//! The program is the real one, agents are its processes, reached over mutual TLS on the loopback; the devices are the
//! processor's cores. Such a hall is a rehearsal, so nothing here may ever be accepted as a site.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use hallmark_profiles::metric::Metric;
use hallmark_results::frame::{Ending, Event, FaultKind, What};
use hallmark_results::standing::Standing;
use hallmark_results::verdict::{Outcome, judge};
use hallmark_tests::agents::{HallRun, Setup, is_alive, signal};
use hallmark_tests::judged::{self, detail, faults, outcome, steps, whole_and_once};
use hallmark_tests::program;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

const SECOND: u64 = 1_000_000_000;

#[test]
fn two_nodes_give_one_record_and_one_verdict_and_leave_nothing_running() {
    let mut run = HallRun::start(2, 1, 6);
    run.wait_for_load(30);
    let processes = run.left_running();
    assert!(
        processes.len() >= 4,
        "two agents, two workers: {processes:?}"
    );
    let (code, standing) = run.end();
    let left: Vec<u32> = processes.into_iter().filter(|p| is_alive(*p)).collect();
    assert!(left.is_empty(), "still running: {left:?}");
    for node in ["n1", "n2"] {
        let log = run.folder.join("nodes").join(node).join("reports.hml");
        assert!(!log.exists(), "{node}'s log is of no use any more");
    }
    assert_ne!(code, 1, "{:?}", judge(&standing).sentence);
    for criterion in ["inventory", "failures", "integrity"] {
        assert_eq!(
            outcome(&standing, criterion),
            Outcome::Passed,
            "{criterion}"
        );
    }
    let plan = &standing.opened().plan;
    let devices = plan
        .devices
        .iter()
        .map(|d| (d.id.as_str(), d.node.as_str()));
    assert_eq!(
        devices.collect::<Vec<_>>(),
        [("n1/cpu0", "n1"), ("n2/cpu0", "n2")]
    );
    let rehearsal = |change: &String| change.contains("launcher local");
    assert!(plan.overrides.iter().any(rehearsal), "{:?}", plan.overrides);
    for node in ["n1", "n2"] {
        let host = format!("-{node}-host");
        let sampled = standing
            .tables()
            .iter()
            .find(|t| t.table.name.ends_with(&host));
        assert!(
            sampled.is_some_and(|t| t.last_ns.is_some()),
            "{node}'s own sensors are read"
        );
        let compared = standing.tables().iter().find(|t| {
            t.table.place == node
                && t.table
                    .series
                    .iter()
                    .any(|s| s.metric == Metric::ClockOffset)
        });
        let compared = &compared.unwrap().whole[0];
        // One machine's clock differs from itself by no more than heartbeats err.
        let (least, most) = compared.extremes.unwrap();
        assert!(
            compared.valid >= 5,
            "{node}: {} comparisons",
            compared.valid
        );
        assert!(least >= 0.0 && most < 1.0, "{node}: {least} to {most} s");
    }
    whole_and_once(&run.folder);
    assert_eq!(steps(&run.folder).len(), 2);
}

#[test]
fn a_killed_agent_is_its_nodes_fault_and_the_others_go_on() {
    let mut run = HallRun::start(3, 1, 12);
    run.wait_for_load(60);
    let victim = run.agent("n2");
    let workers = run.left_running();
    signal(victim, "-KILL");
    let (code, standing) = run.end();
    assert!(
        workers.into_iter().all(|p| !is_alive(p)),
        "its worker ended with it"
    );
    assert_eq!(code, 1, "{}", judge(&standing).sentence);
    let faults = faults(&standing);
    let (device, kind, told) = detail(faults[0]);
    assert_eq!((device, kind), (Some(1), FaultKind::Agent), "{told}");
    assert!(
        told.starts_with("the agent of node `n2` ended: signal: 9"),
        "{told}"
    );
    assert_eq!(outcome(&standing, "failures"), Outcome::Failed);
    assert_eq!(outcome(&standing, "integrity"), Outcome::Passed);
    let end_ns = standing.last_ns();
    let at_ns = faults[0].at_ns;
    let devices = standing.devices();
    assert!(devices[1].last_end_ns <= at_ns + SECOND);
    for alive in [0, 2] {
        assert!(
            devices[alive].last_end_ns + 3 * SECOND > end_ns,
            "device {alive} goes on"
        );
    }
    whole_and_once(&run.folder);
    // Its agent is started once more: its log is handed over whole, and its sensors go on in the tables that they had.
    assert_eq!(faults.len(), 1, "{faults:?}");
    let again =
        |e: &&Event| matches!(&e.what, What::Decision { what } if what.contains("once more"));
    assert_eq!(standing.events().iter().filter(again).count(), 1);
    let tables = standing.tables().iter();
    let host: Vec<_> = tables.filter(|t| t.table.name == "2-n2-host").collect();
    assert_eq!(host.len(), 1);
    assert!(host[0].last_ns.unwrap() > at_ns + 3 * SECOND);
}

#[test]
fn a_node_that_is_silent_on_both_connections_is_a_fault_and_what_it_says_later_is_taken_once() {
    let mut run = HallRun::start(2, 1, 45);
    run.wait_for_load(60);
    let victim = run.agent("n1");
    signal(victim, "-STOP");
    std::thread::sleep(Duration::from_secs(20));
    signal(victim, "-CONT");
    let (code, standing) = run.end();
    assert_eq!(code, 1, "{}", judge(&standing).sentence);
    let faults = faults(&standing);
    assert_eq!(faults.len(), 1, "{faults:?}");
    let (device, kind, told) = detail(faults[0]);
    assert_eq!((device, kind), (Some(0), FaultKind::Silent), "{told}");
    assert!(
        told.starts_with("node `n1` was silent on both its connections for 8."),
        "{told}"
    );
    // Its sensors are heard again, and nothing it says a second time stands twice.
    let host = standing
        .tables()
        .iter()
        .find(|t| t.table.name == "1-n1-host");
    assert!(host.unwrap().last_ns.unwrap() > faults[0].at_ns + 10 * SECOND);
    whole_and_once(&run.folder);
}

#[test]
fn a_controller_that_stood_still_blames_no_node_and_loses_nothing() {
    let mut run = HallRun::start(2, 1, 25);
    run.wait_for_load(60);
    signal(run.child.id(), "-STOP");
    std::thread::sleep(Duration::from_secs(12));
    signal(run.child.id(), "-CONT");
    let (_, standing) = run.end();
    assert_eq!(faults(&standing), [] as [&Event; 0]);
    let stood =
        |e: &Event| matches!(&e.what, What::Decision { what } if what.contains("stood still"));
    assert!(standing.events().iter().any(stood));
    whole_and_once(&run.folder);
}

#[test]
fn a_device_that_the_site_declares_and_no_node_brings_fails_the_inventory() {
    let mut run = HallRun::start(2, 2, 3);
    let (code, standing) = run.end();
    assert_eq!(code, 1);
    assert_eq!(outcome(&standing, "inventory"), Outcome::Failed);
    let told: Vec<&str> = faults(&standing).into_iter().map(|e| detail(e).2).collect();
    assert_eq!(
        told,
        [
            "device 2 of 2 of node `n1` of rack `R1` was not found; it has 1",
            "device 2 of 2 of node `n2` of rack `R1` was not found; it has 1",
        ]
    );
}

#[test]
fn over_ssh_a_machine_that_two_nodes_lead_to_is_one_node_and_the_other_is_missing_by_name() {
    // A stand-in that runs the command here, as if each host were this one.
    let programs = tempfile::tempdir().unwrap();
    let ssh = programs.path().join("ssh");
    let script = "#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nexec sh -c \"$3\"\n";
    std::fs::write(&ssh, script).unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut run = HallRun::launched(&Setup {
        launcher: "ssh",
        programs: Some(programs.path()),
        nodes: 2,
        ..Setup::default()
    });
    let (code, standing) = run.end();
    assert_eq!(code, 1);
    let nodes: BTreeSet<&str> = standing
        .opened()
        .plan
        .devices
        .iter()
        .map(|d| d.node.as_str())
        .collect();
    assert_eq!(nodes.len(), 1, "{nodes:?}");
    let told = detail(faults(&standing)[0]).2.to_owned();
    assert!(told.contains("is missing: node `n"), "{told}");
    assert!(told.contains("are one machine"), "{told}");
    assert_eq!(outcome(&standing, "inventory"), Outcome::Failed);
    whole_and_once(&run.folder);
}

#[test]
fn an_interrupt_ends_every_node_in_order_and_a_second_one_at_once() {
    for interrupts in [1, 2] {
        let mut run = HallRun::start(2, 1, 60);
        run.wait_for_load(60);
        let processes = run.left_running();
        let begun = Instant::now();
        for _ in 0..interrupts {
            signal(run.child.id(), "-INT");
            std::thread::sleep(Duration::from_millis(200));
        }
        let (code, standing) = run.end();
        let took = begun.elapsed();
        let told = standing.events();
        assert!(took < Duration::from_secs(20), "{took:?}, {told:#?}");
        assert_ne!(
            code, 0,
            "a run that was cut short shows less than it was to"
        );
        let ending = standing.closed().map(|c| c.ending.clone());
        assert!(matches!(ending, Some(Ending::Stopped { .. })), "{ending:?}");
        assert_eq!(faults(&standing), [] as [&Event; 0]);
        assert!(processes.into_iter().all(|p| !is_alive(p)), "still running");
        whole_and_once(&run.folder);
    }
}

/// Kills a run's controller, and asserts that all its processes end by themselves.
fn kill_controller(run: &mut HallRun) {
    let processes = run.left_running();
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    let begun = Instant::now();
    while processes.iter().any(|p| is_alive(*p)) {
        assert!(begun.elapsed() < Duration::from_secs(10), "still running");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_killed_controller_leaves_nothing_running_and_its_record_accepts_nothing() {
    let mut run = HallRun::start(2, 1, 60);
    run.wait_for_load(30);
    kill_controller(&mut run);
    let folder = run.folder.to_string_lossy().into_owned();
    let call = |command: &str| {
        let arguments = [command, folder.as_str()];
        program::finish(program::hallmark(arguments), Duration::from_secs(120))
    };
    let resumed = call("resume").expect_code(2);
    let asks = "this run is one of a hall (hall A of Rehearsal (NO, north), site file digest ";
    assert!(resumed.stderr.contains(asks), "{resumed}");
    let sealed = call("seal");
    assert!(matches!(sealed.code, Some(1 | 3)), "{sealed}");
    whole_and_once(&run.folder);
}

/// A hall's run under load whose controller was killed, and its account so far.
fn cut_off() -> (HallRun, Standing) {
    let mut run = HallRun::start(2, 1, 12);
    run.wait_for_load(40);
    kill_controller(&mut run);
    let before = hallmark::command::load::fold(&run.folder).unwrap();
    (run, before)
}

fn resume(run: &HallRun) -> program::Finished {
    let mut command = program::hallmark(["resume", "--ui", "plain", "--site"]);
    command.arg(run.site()).arg(&run.folder);
    program::finish(command, Duration::from_secs(120))
}

#[test]
fn a_hall_whose_controller_was_killed_goes_on_with_the_nodes_that_come_back() {
    let (run, before) = cut_off();
    let resumed = resume(&run);
    assert!(matches!(resumed.code, Some(0 | 3)), "{resumed}");
    let standing = judged::standing(&run.folder);
    assert!(
        standing.closed().is_some() && faults(&standing).is_empty(),
        "{resumed}"
    );
    let is_resumed = |e: &&Event| matches!(e.what, What::Resumed { .. });
    assert_eq!(standing.events().iter().filter(is_resumed).count(), 1);
    // Sensors go on in the tables that they had, and no step is told twice.
    let names = |standing: &Standing| -> BTreeSet<String> {
        standing
            .tables()
            .iter()
            .map(|t| t.table.name.clone())
            .collect()
    };
    assert_eq!(names(&standing), names(&before));
    assert_eq!(standing.oddities(), 0);
    for (device, steps) in standing.devices().iter().enumerate() {
        assert!(
            steps.steps > before.devices()[device].steps,
            "device {device}"
        );
    }
    let again = resume(&run).expect_code(2);
    assert!(again.stderr.contains("has ended and is sealed"), "{again}");

    let (run, before) = cut_off();
    // The second node's log cannot be begun, so its agent ends at once.
    let log = run.folder.join("nodes/resumed/n2/reports.hml");
    std::fs::create_dir_all(log).unwrap();
    let other = run.site().with_file_name("other.toml");
    let text = std::fs::read_to_string(run.site()).unwrap();
    std::fs::write(&other, text.replace("count = 1", "count = 2")).unwrap();
    let mut foreign = program::hallmark(["resume", "--site"]);
    foreign.arg(&other).arg(&run.folder);
    let refused = program::finish(foreign, Duration::from_secs(60)).expect_code(2);
    assert!(
        refused.stderr.contains("begun with another site file"),
        "{refused}"
    );
    let resumed = resume(&run);
    assert_eq!(resumed.code, Some(1), "{resumed}");
    let standing = judged::standing(&run.folder);
    let lost: Vec<Option<u32>> = faults(&standing).iter().map(|f| f.device).collect();
    assert_eq!(lost, [Some(1)], "{resumed}");
    assert!(standing.devices()[0].steps > before.devices()[0].steps);
    assert_eq!(outcome(&standing, "inventory"), Outcome::Failed);
}
