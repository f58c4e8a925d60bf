//! A hall by a real Slurm of four nodes on this machine: one verdict, also where an agent or a node's daemon is killed, and
//! no job and no process left after any end.
//!
//! The nodes share this machine and its boot id, so all runs but one are rehearsals, which accept no site.

#![cfg(target_os = "linux")]

use hallmark_results::frame::{Ending, FaultKind, What};
use hallmark_results::standing::Standing;
use hallmark_results::verdict::{Outcome, judge};
use hallmark_tests::agents::{HallRun, Setup, signal};
use hallmark_tests::judged::{outcome, told};
use hallmark_tests::program::{RunFolder, finish, hallmark};
use hallmark_tests::slurm::Cluster;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Four agents and their load are enough for a machine.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn launch(cluster: &Cluster, setup: Setup) -> HallRun {
    HallRun::launched(&Setup {
        launcher: "slurm",
        environment: &[("SLURM_CONF", &cluster.configuration())],
        nodes: 4,
        ..setup
    })
}

const REHEARSAL: Setup = Setup {
    launcher: "slurm",
    programs: None,
    environment: &[],
    arguments: &["--rehearsal"],
    site: "",
    nodes: 4,
    devices: 1,
    seconds: 8,
    profile: None,
    host: None,
};

fn faults(standing: &Standing) -> Vec<(Option<u32>, FaultKind, String)> {
    let told = |e: &hallmark_results::frame::Event| match &e.what {
        What::Fault { kind, detail } => Some((e.device, *kind, detail.clone())),
        _ => None,
    };
    standing.events().iter().filter_map(told).collect()
}

#[test]
fn four_nodes_of_slurm_are_one_run_with_one_verdict_that_accepts_no_site() {
    let _alone = alone();
    let Some(cluster) = Cluster::start(4) else {
        return;
    };
    let mut run = launch(
        &cluster,
        Setup {
            profile: Some("smoke"),
            ..REHEARSAL
        },
    );
    let (code, standing) = run.end();
    let (said, noted) = (run.stdout(), run.stderr());
    let plan = &standing.opened().plan;
    let nodes: Vec<&str> = plan.devices.iter().map(|d| d.node.as_str()).collect();
    assert_eq!(nodes, ["n1", "n2", "n3", "n4"], "{noted}");
    let verdict = judge(&standing);
    assert_eq!(faults(&standing), [], "{}", verdict.sentence);
    let expected = match verdict.outcome {
        Outcome::Passed => 0,
        Outcome::Failed => 1,
        Outcome::Inconclusive => 3,
    };
    assert_eq!(code, expected, "{}", verdict.sentence);
    // Four nodes on the cores of one machine may well miss a figure; what was counted must be right.
    for criterion in ["inventory", "failures", "integrity", "completion"] {
        let told = told(&standing, criterion);
        assert_eq!(outcome(&standing, criterion), Outcome::Passed, "{told}");
    }
    assert!(!verdict.accepts_site);
    assert!(plan.overrides.iter().any(|o| o.starts_with("--rehearsal")));
    assert!(said.contains("rehearsal"), "{said}");
    assert!(noted.contains("RUNNING"), "{noted}");
    cluster.wait_until_empty();
}

#[test]
fn a_killed_agent_is_its_nodes_fault_and_a_killed_slurmd_is_none_while_its_node_works_on() {
    let _alone = alone();
    let Some(mut cluster) = Cluster::start(4) else {
        return;
    };
    let mut run = launch(&cluster, REHEARSAL);
    run.wait_for_load(60);
    cluster.kill_slurmd(3);
    signal(cluster.agent("n2"), "-KILL");
    let (code, standing) = run.end();
    let verdict = judge(&standing);
    assert_eq!(code, 1, "{}", verdict.sentence);
    let faults = faults(&standing);
    let (device, kind, told) = &faults[0];
    assert_eq!((*device, *kind), (Some(1), FaultKind::Agent));
    assert!(told.starts_with("the agent of node `n2` ended: "), "{told}");
    assert!(faults.iter().all(|f| f.2.contains("`n2`")), "{faults:?}");
    assert_eq!(outcome(&standing, "failures"), Outcome::Failed);
    assert_eq!(outcome(&standing, "integrity"), Outcome::Passed);
    let last_ns = standing.last_ns();
    for alive in [0, 2, 3] {
        let device = &standing.devices()[alive];
        assert!(
            device.last_end_ns + 3_000_000_000 > last_ns,
            "device {alive} ended at {} ns of {last_ns}: {:?}",
            device.last_end_ns,
            standing.events().iter().rev().take(12).collect::<Vec<_>>()
        );
    }
    let left = cluster.processes();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_interrupt_ends_the_job_in_order_and_leaves_no_job_and_no_process() {
    let _alone = alone();
    let Some(cluster) = Cluster::start(4) else {
        return;
    };
    let mut run = launch(
        &cluster,
        Setup {
            seconds: 120,
            ..REHEARSAL
        },
    );
    run.wait_for_load(60);
    let begun = Instant::now();
    signal(run.child.id(), "-INT");
    let (code, standing) = run.end();
    assert!(
        begun.elapsed() < Duration::from_secs(40),
        "{:?}",
        begun.elapsed()
    );
    assert_ne!(code, 0);
    let ending = standing.closed().map(|c| c.ending.clone());
    assert!(matches!(ending, Some(Ending::Stopped { .. })), "{ending:?}");
    assert_eq!(faults(&standing), []);
    cluster.wait_until_empty();
}

#[test]
fn a_site_file_is_written_from_what_slurm_reports_and_differs_from_it_only_where_it_is_changed() {
    let _alone = alone();
    let Some(cluster) = Cluster::start(4) else {
        return;
    };
    let folder = RunFolder::new();
    let path = folder.path().join("hall.toml");
    let call = |arguments: &[&str]| {
        let mut command = hallmark(["site"]);
        command.args(arguments).arg(&path);
        command.env("SLURM_CONF", cluster.configuration());
        finish(command, Duration::from_secs(60))
    };
    let said = "--launcher=slurm --name=Rehearsal --country=NO --region=north --hall=A --contract-power=40kW";
    let said: Vec<&str> = said.split(' ').collect();
    let init = [
        &["init"],
        said.as_slice(),
        &["--partition=hall", "--output"],
    ]
    .concat();
    let written = call(&init).expect_code(0);
    assert!(written.stdout.contains("holds 4 nodes"), "{written}");
    let text = std::fs::read_to_string(&path).unwrap();
    for line in [
        "count = 8",
        "nodes = [\"n[1-2]\"]",
        "nodes = [\"n[3-4]\"]",
        "name = \"rack2\"",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}: {text}");
    }
    let same = call(&["check"]).expect_code(0);
    assert!(
        same.stdout.contains("it is what its launcher reports"),
        "{same}"
    );
    assert!(call(&init).expect_code(2).stderr.contains("exists"));
    let changed = text
        .replace("count = 8", "count = 4")
        .replace("n[3-4]", "n[3-5]");
    std::fs::write(&path, changed).unwrap();
    let told = call(&["check"]).expect_code(1).stdout;
    for line in [
        "differs: node `n1` is declared with 4 devices, and 8 are reported",
        "differs: node `n5` is declared, and not reported",
    ] {
        assert!(told.lines().any(|l| l == line), "{line}: {told}");
    }
}

#[test]
fn agents_that_srun_starts_by_hand_join_by_their_ranks_and_one_too_many_is_refused_by_name() {
    let _alone = alone();
    let Some(cluster) = Cluster::start(4) else {
        return;
    };
    let mut run = HallRun::launched(&Setup {
        launcher: "manual",
        seconds: 4,
        nodes: 3,
        ..REHEARSAL
    });
    run.wait_for("invitations", |r| r.stdout().contains("--join"));
    let join = run.folder.with_extension("join");
    let program = hallmark_tests::program::binary();
    let agents = |nodes: &str| {
        let mut srun = std::process::Command::new("srun");
        srun.env("SLURM_CONF", cluster.configuration())
            .args([nodes, "--overlap", "--mpi=none", "--input=none"])
            .arg(&program)
            .args(["agent", "--join"])
            .arg(&join);
        srun
    };
    let refused = finish(agents("-N4"), Duration::from_secs(60));
    assert_ne!(refused.code, Some(0), "{refused}");
    let told = "rank 3 of Slurm is no node's; known: n1, n2, n3";
    assert!(refused.stderr.contains(told), "{refused}");
    let (code, standing) = run.end();
    assert_ne!(code, 4, "{}", run.stderr());
    assert!(!judge(&standing).accepts_site);
    let nodes: Vec<&str> = standing
        .opened()
        .plan
        .devices
        .iter()
        .map(|d| d.node.as_str())
        .collect();
    assert_eq!(nodes, ["n1", "n2", "n3"]);
    assert_eq!(faults(&standing), []);
    assert!(!join.exists());
    cluster.wait_until_empty();
}

#[test]
fn an_interrupt_while_the_job_waits_cancels_it() {
    let _alone = alone();
    let Some(cluster) = Cluster::start(4) else {
        return;
    };
    let blocker = [
        "-N4",
        "--exclusive",
        "--output=/dev/null",
        "--wrap=sleep 60",
    ];
    assert!(!cluster.call("sbatch", &blocker).is_empty());
    let mut run = launch(&cluster, REHEARSAL);
    run.wait_for("the job to wait", |r| r.stderr().contains("PENDING"));
    signal(run.child.id(), "-INT");
    assert_eq!(
        run.child.wait().unwrap().code(),
        Some(4),
        "{}",
        run.stderr()
    );
    assert_eq!(cluster.jobs().lines().count(), 1, "{}", cluster.jobs());
    assert!(!run.folder.exists());
}

#[test]
fn without_the_switch_nodes_of_one_machine_are_one_node_and_the_others_are_missing_by_name() {
    let _alone = alone();
    let Some(cluster) = Cluster::start(4) else {
        return;
    };
    let mut run = launch(
        &cluster,
        Setup {
            seconds: 3,
            arguments: &[],
            ..REHEARSAL
        },
    );
    let (code, standing) = run.end();
    assert_eq!(code, 1);
    assert_eq!(outcome(&standing, "inventory"), Outcome::Failed);
    let faults = faults(&standing);
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(
        faults.iter().all(|f| f.2.contains("are one machine")),
        "{faults:?}"
    );
    cluster.wait_until_empty();
}
