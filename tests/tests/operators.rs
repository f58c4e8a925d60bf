//! What an operator sees of a run from elsewhere, and how they end it: `hallmark status` and `hallmark stop`.

#![cfg(target_os = "linux")]

use hallmark_results::frame::Ending;
use hallmark_results::plan::SegmentKind;
use hallmark_tests::agents::{HallRun, is_alive, signal};
use hallmark_tests::program::{Finished, finish, hallmark};
use std::path::Path;
use std::time::{Duration, Instant};

fn call(arguments: &[&str], folder: &Path) -> Finished {
    let folder = folder.to_string_lossy().into_owned();
    let arguments = arguments.iter().copied().chain([folder.as_str()]);
    finish(hallmark(arguments), Duration::from_secs(60))
}

#[test]
fn a_stop_from_elsewhere_ramps_down_and_leaves_nothing_running_on_any_node() {
    for (order, ramps) in [(&["stop"] as &[&str], true), (&["stop", "--now"], false)] {
        let mut run = HallRun::start(2, 1, 120);
        run.wait_for_load(60);
        let processes = run.left_running();
        let told = call(&["status"], &run.folder).expect_code(0).stdout;
        assert!(told.contains("goes on: "), "{told}");
        assert!(told.contains("hall A of Rehearsal"), "{told}");
        let rack = "rack R1: 2 of 2\u{a0}nodes without a fault, 2 of 2\u{a0}devices without one";
        assert!(told.contains(rack), "{told}");
        assert!(told.contains("  n2  1 of 1\u{a0}device"), "{told}");
        let begun = Instant::now();
        let stopped = call(order, &run.folder).expect_code(0);
        // The ramp itself takes half a second.
        assert!(
            begun.elapsed() < Duration::from_millis(10_500),
            "{:?}",
            begun.elapsed()
        );
        assert!(stopped.stdout.contains("has ended: "), "{stopped}");
        let (_, standing) = run.end();
        assert!(processes.into_iter().all(|p| !is_alive(p)), "still running");
        let ending = standing.closed().map(|c| c.ending.clone());
        assert!(matches!(ending, Some(Ending::Stopped { .. })), "{ending:?}");
        let plan = &standing.opened().plan;
        let last = standing.windows().last().unwrap();
        let kind = plan.schedule[last.segment as usize].kind;
        assert_eq!(
            kind == SegmentKind::RampDown,
            ramps,
            "{order:?} ends in {kind:?}"
        );
        let told = call(&["status"], &run.folder).expect_code(0).stdout;
        assert!(told.contains("ended after "), "{told}");
        let again = call(order, &run.folder).expect_code(0);
        assert!(again.stdout.contains("has ended already"), "{again}");
    }
}

#[test]
fn status_names_the_node_that_failed_and_the_device_that_never_came_and_stop_refuses_what_nobody_drives()
 {
    let mut run = HallRun::start(2, 2, 60);
    run.wait_for_load(60);
    signal(run.agent("n2"), "-KILL");
    run.wait_for("the fault to be told", |r| {
        let told = call(&["status"], &r.folder).expect_code(0).stdout;
        told.contains("  n2  0 of 1\u{a0}device")
    });
    let told = call(&["status"], &run.folder).expect_code(0).stdout;
    for line in [
        "rack R1: 1 of 2\u{a0}nodes without a fault, 1 of 2\u{a0}devices without one",
        "the agent of node n2 ended",
        "missing: device 2 of 2 of node n1 of rack R1 was not found; it has 1",
        "so far failed: ",
    ] {
        assert!(told.replace('`', "").contains(line), "{line}: {told}");
    }
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    let told = call(&["status"], &run.folder).expect_code(0).stdout;
    assert!(told.contains("cut off after "), "{told}");
    let refused = call(&["stop"], &run.folder).expect_code(2);
    assert!(refused.stderr.contains("no run goes on in"), "{refused}");
    let nowhere = Path::new("/nowhere/at/all");
    assert_eq!(call(&["status"], nowhere).code, Some(2));
    assert_eq!(call(&["stop"], nowhere).code, Some(2));
}
