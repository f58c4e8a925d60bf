//! All-reduces across the nodes of a hall, through real libraries of MPI: every sum checked, also where an agent is killed,
//! a bridge dies or hangs, or launchers of MPI have started the agents.
//!
//! The nodes are processes of this machine, so nothing here is a figure of a network, and no site is accepted.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use hallmark_results::frame::{FaultKind, Frame, What};
use hallmark_results::standing::Standing;
use hallmark_results::store::read;
use hallmark_results::verdict::{Outcome, judge};
use hallmark_tests::RunFolder;
use hallmark_tests::agents::{HallRun, Setup, is_alive, signal};
use hallmark_tests::component::Component;
use hallmark_tests::judged::outcome;
use hallmark_tests::swept::profile;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Several nodes are enough for a machine.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// MPICH's library by the standard's interface.
fn mpich() -> Option<PathBuf> {
    Component::Mpich
        .or_skip()
        .map(|tools| tools.join("lib/libmpi_abi.so.1"))
}

fn start(nodes: usize, library: &Path, folder: &RunFolder, seconds: u32) -> HallRun {
    let profile = profile(folder, seconds);
    HallRun::launched(&Setup {
        nodes,
        profile: Some(&profile),
        environment: &[("HALLMARK_MPI", library)],
        ..Setup::default()
    })
}

/// Wrong elements and operations of all checked all-reduces, by rank.
fn checked(folder: &Path) -> BTreeMap<u32, (u64, u64)> {
    let mut found: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for frame in read::open_any(folder).unwrap().frames().unwrap() {
        let Frame::Steps(steps) = frame.unwrap() else {
            continue;
        };
        let sums = found.entry(steps.device).or_default();
        for trial in &steps.trials {
            sums.0 += trial.wrong;
            sums.1 += 1;
        }
    }
    found
}

fn faults(standing: &Standing) -> Vec<(Option<u32>, FaultKind, String)> {
    let fault = |e: &hallmark_results::frame::Event| match &e.what {
        What::Fault { kind, detail } => Some((e.device, *kind, detail.clone())),
        _ => None,
    };
    standing.events().iter().filter_map(fault).collect()
}

/// Members of each formation of the group, in their order.
fn formations(standing: &Standing) -> Vec<Vec<u32>> {
    let formed = |e: &hallmark_results::frame::Event| match &e.what {
        What::Regrouped { members, .. } => Some(members.clone()),
        _ => None,
    };
    standing.events().iter().filter_map(formed).collect()
}

/// Process ids of the bridges of a run.
fn bridges(run: &HallRun) -> Vec<u32> {
    let is_bridge = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).nth(1) == Some(b"bridge".as_slice())
    };
    run.left_running().into_iter().filter(is_bridge).collect()
}

/// Waits until all-reduces are under way, and gives the bridges by which they go.
fn reducing(run: &HallRun, nodes: usize) -> Vec<u32> {
    run.wait_for("the sweep", |r| r.stdout().contains("  all-reduce, "));
    run.wait_for("the bridges", |r| bridges(r).len() == nodes);
    bridges(run)
}

/// What holds of every run here that came to its end with a group of these.
fn reduced_rightly(run: &HallRun, standing: &Standing, ranks: &[u32], library: &str) {
    let transport = &standing.opened().plan.transport;
    assert!(
        transport.contains(&format!("between nodes {library}")),
        "{transport}"
    );
    assert_eq!(outcome(standing, "integrity"), Outcome::Passed);
    assert_eq!(outcome(standing, "self-test"), Outcome::Passed);
    let checked = checked(&run.folder);
    assert!(
        checked.values().all(|(wrong, _)| *wrong == 0),
        "{checked:?}"
    );
    for rank in ranks {
        let operations = checked.get(rank).map_or(0, |c| c.1);
        assert!(operations > 20, "rank {rank}: {operations} checked");
    }
    assert!(!judge(standing).accepts_site);
}

#[test]
fn nodes_reduce_into_each_other_exactly_and_every_report_names_what_carried_it() {
    let _alone = alone();
    let Some(library) = mpich() else { return };
    let folder = RunFolder::new();
    let mut run = start(3, &library, &folder, 3);
    let bridges = reducing(&run, 3);
    let (code, standing) = run.end();
    assert!(matches!(code, 0 | 3), "{}", run.stderr());
    assert_eq!(faults(&standing), []);
    reduced_rightly(&run, &standing, &[0, 1, 2], "MPICH Version: 5.0.2");
    for gate in ["latency", "bandwidth"] {
        assert_eq!(outcome(&standing, gate), Outcome::Passed, "{gate}");
    }
    assert_eq!(
        formations(&standing),
        Vec::<Vec<u32>>::new(),
        "the first one is the plan's"
    );
    let limits = &standing.opened().plan.limits;
    let staged = |l: &String| l.contains("between nodes through MPICH Version: 5.0.2");
    assert!(limits.iter().any(staged), "{limits:?}");
    let table = hallmark_tests::hallmark(["report", "--format", "nccl"])
        .arg(&run.folder)
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("between nodes MPICH"), "{table}");
    // A busy machine may not come to the larger sizes.
    let row = |line: &str| line.split_whitespace().next() == Some("8");
    assert!(table.lines().any(row), "{table}");
    let left: Vec<u32> = bridges.into_iter().filter(|p| is_alive(*p)).collect();
    assert!(left.is_empty(), "still running: {left:?}");
}

#[test]
fn a_killed_agent_takes_its_node_out_of_the_group_and_the_others_find_each_other_anew() {
    let _alone = alone();
    let Some(library) = mpich() else { return };
    let folder = RunFolder::new();
    let mut run = start(3, &library, &folder, 6);
    reducing(&run, 3);
    signal(run.agent("n3"), "-KILL");
    let (code, standing) = run.end();
    assert_eq!(code, 1, "{}", run.stderr());
    assert_eq!(outcome(&standing, "failures"), Outcome::Failed);
    let lost = faults(&standing);
    let agent = |f: &(Option<u32>, FaultKind, String)| (f.0, f.1) == (Some(2), FaultKind::Agent);
    assert!(lost.iter().any(agent), "{lost:?}");
    let formed = formations(&standing);
    assert_eq!(
        formed.last().map(Vec::as_slice),
        Some(&[0, 1][..]),
        "{formed:?}"
    );
    // Nothing that the two summed by themselves is wrong.
    reduced_rightly(&run, &standing, &[0, 1], "MPICH");
}

#[test]
fn a_bridge_that_dies_is_its_nodes_fault_and_one_that_hangs_is_a_finding_and_work_goes_on() {
    let _alone = alone();
    let Some(library) = mpich() else { return };
    for (how, told) in [
        ("-KILL", "node `n2`: it ended without a word"),
        ("-STOP", "no all-reduce between the nodes any more: rank "),
    ] {
        let folder = RunFolder::new();
        let mut run = start(2, &library, &folder, 9);
        // Children come in the order of their nodes.
        let bridge = reducing(&run, 2)[1];
        signal(bridge, how);
        let (code, standing) = run.end();
        assert_eq!(code, 1, "{how}: {}", run.stderr());
        let found = faults(&standing);
        let named = |f: &(Option<u32>, FaultKind, String)| {
            f.1 == FaultKind::Collective && f.2.starts_with(told)
        };
        assert!(found.iter().any(named), "{how}: {found:?}");
        assert!(
            found.iter().all(|f| f.0.is_none()),
            "{how}: no device is lost: {found:?}"
        );
        assert_eq!(formations(&standing), [[0, 1]], "{how}");
        reduced_rightly(&run, &standing, &[0, 1], "MPICH");
        assert!(!is_alive(bridge), "{how}");
    }
}

#[test]
fn without_a_library_nothing_is_reduced_and_the_record_says_why() {
    let _alone = alone();
    for (library, why) in [
        ("none", "node `n1`: the run was started with --mpi none"),
        (
            "libc.so.6",
            "libc.so.6 is no library of MPI that is known: it has no MPI_Get_library_version",
        ),
    ] {
        let folder = RunFolder::new();
        let mut run = start(2, Path::new(library), &folder, 1);
        let (_, standing) = run.end();
        let limits = &standing.opened().plan.limits;
        assert!(limits.iter().any(|l| l.contains(why)), "{limits:?}");
        assert!(
            run.stdout()
                .contains("nothing will be all-reduced: node `n1`: "),
            "{}",
            run.stdout()
        );
        for gate in ["latency", "bandwidth"] {
            assert_eq!(outcome(&standing, gate), Outcome::Inconclusive, "{gate}");
        }
        assert_eq!(standing.opened().plan.transport, "");
    }
}

/// Agents that a launcher of MPI starts by hand: two of them, in one world.
fn by_hand(launcher: &Path, options: &[&str], library: Option<&Path>, name: &str) {
    let folder = RunFolder::new();
    let profile = profile(&folder, 2);
    let mut run = HallRun::launched(&Setup {
        launcher: "manual",
        nodes: 2,
        arguments: &["--rehearsal"],
        profile: Some(&profile),
        ..Setup::default()
    });
    run.wait_for("invitations", |r| r.stdout().contains("--join"));
    let mut command = Command::new(launcher);
    command.args(options).args(["-n", "2"]);
    command
        .arg(hallmark_tests::program::binary())
        .args(["agent", "--join"]);
    command.arg(run.folder.with_extension("join"));
    if let Some(library) = library {
        command.arg("--mpi").arg(library);
    }
    let agents: Child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (code, standing) = run.end();
    assert_eq!(faults(&standing), [], "{name}");
    assert!(matches!(code, 0 | 3), "{name}: {}", run.stderr());
    reduced_rightly(&run, &standing, &[0, 1], name);
    // It takes it amiss when a rank ends without leaving its world.
    assert!({ agents }.wait().unwrap().success(), "{name}");
}

#[test]
fn agents_that_mpirun_of_open_mpi_starts_reduce_in_the_world_that_it_formed() {
    let _alone = alone();
    let Some(mpirun) = Component::OpenMpi.or_skip() else {
        return;
    };
    let options = ["--allow-run-as-root", "--oversubscribe"];
    by_hand(&mpirun, &options, None, "Open MPI v");
}

#[test]
fn agents_that_mpiexec_of_mpich_starts_reduce_in_the_world_that_it_formed() {
    let _alone = alone();
    let Some(tools) = Component::Mpich.or_skip() else {
        return;
    };
    let library = tools.join("lib/libmpi.so.12");
    by_hand(
        &tools.join("bin/mpiexec"),
        &[],
        Some(&library),
        "MPICH Version: 5.0.2",
    );
}
