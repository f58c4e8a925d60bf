//! Who is let in and who is refused by name, what is taken once, and who is silent.

use super::*;
use crate::rank::Rank;
use hallmark_kernels::device::DeviceInfo;
use hallmark_profiles::units::Bytes;
use hallmark_results::frame::Host;

const SECOND: u64 = 1_000_000_000;

fn hall() -> Hall {
    let mut hall = Hall::new(["n1", "n2", "n3"], false);
    for node in 0..3 {
        hall.let_in(node, format!("token-{node}"));
    }
    hall
}

pub(in crate::controller) fn claim(node: &str, pass: Pass) -> Claim {
    let number: u32 = node.trim_start_matches('n').parse().unwrap_or(9);
    Claim {
        version: VERSION,
        hallmark_version: String::new(),
        node: node.to_owned(),
        pass,
        log: 70 + u64::from(number),
        last: 0,
        task: 0,
        pid: 100 + number,
        host: Host {
            boot_id: format!("boot-{number}"),
            ..Host::default()
        },
        rank: None,
        devices: vec![DeviceInfo {
            id: "cuda0".to_owned(),
            engine: "cuda".to_owned(),
            name: String::new(),
            vendor: String::new(),
            pci: None,
            uuid: Some(format!("GPU-{number}")),
            driver: String::new(),
            memory: Bytes(1),
            dtypes: Vec::new(),
            software: false,
            cores: Vec::new(),
            facts: Vec::new(),
        }],
        watched: Vec::new(),
        absent: Vec::new(),
        mpi: Err("no library of MPI was found".to_owned()),
    }
}

fn token(node: usize) -> Pass {
    Pass::Token(format!("token-{node}"))
}

/// Joins with a certificate of the claimed name.
fn join(hall: &mut Hall, claim: Claim, now_ns: u64) -> Result<Joined, Refusal> {
    let name = claim.node.clone();
    let session = format!("session-{name}");
    hall.join(claim, |n| n == name, &session, now_ns)
}

fn refused(hall: &mut Hall, claim: Claim) -> String {
    join(hall, claim, SECOND).unwrap_err().to_string()
}

#[test]
fn a_node_joins_by_its_own_certificate_and_an_unused_token_alone() {
    let mut hall = hall();
    let stranger = refused(&mut hall, claim("n9", token(0)));
    assert_eq!(
        stranger,
        "node `n9` is not in this run's site; known: n1, n2, n3"
    );
    let posing = hall
        .join(claim("n1", token(0)), |n| n == "n2", "s", 0)
        .unwrap_err();
    assert_eq!(
        posing,
        Refusal::Certificate {
            node: "n1".to_owned()
        }
    );
    let borrowed = refused(&mut hall, claim("n1", token(1)));
    assert_eq!(borrowed, "this is no join token of node `n1`");
    let joined = join(&mut hall, claim("n1", token(0)), 0).unwrap();
    assert!(!joined.restarted && !joined.log_lost);
    let once_more = join(&mut hall, claim("n1", token(0)), SECOND).unwrap();
    assert!(
        !once_more.restarted && once_more.link > joined.link,
        "the answer may have been lost"
    );
    let other = Claim {
        log: 77,
        ..claim("n1", token(0))
    };
    let replayed = refused(&mut hall, other);
    assert_eq!(
        replayed,
        "the join token of node `n1` was used already; a token is good for one agent"
    );
    let mut old = claim("n2", token(1));
    old.version = VERSION + 1;
    assert!(refused(&mut hall, old).starts_with("this controller speaks version"));
    assert!(hall.claim(0).is_some() && hall.claim(1).is_none());
}

#[test]
fn a_second_agent_under_a_living_nodes_name_is_refused_and_takes_a_dead_ones_place() {
    let mut hall = hall();
    let joined = join(&mut hall, claim("n1", token(0)), 0).unwrap();
    hall.let_in(0, "second".to_owned());
    let second = Claim {
        pid: 7,
        last: 1,
        ..claim("n1", Pass::Token("second".to_owned()))
    };
    let told = refused(&mut hall, second.clone());
    assert_eq!(
        told,
        "node `n1` has joined already, as process 101 of machine boot-1; process 7 may not join under its name"
    );
    // The living one loses nothing by the attempt.
    assert_eq!(hall.take(joined.node, joined.link, 1), Ok(true));
    hall.unlink(joined.node, joined.link);
    let again = join(&mut hall, second, 10 * SECOND).unwrap();
    assert!(again.restarted && !again.log_lost);
    let late = hall.take(joined.node, joined.link, 2);
    assert_eq!(
        late,
        Err(Refusal::Session {
            node: "n1".to_owned()
        }),
        "of the old link"
    );
}

#[test]
fn one_machine_one_device_one_rank_and_one_world_for_each_node() {
    let mut hall = hall();
    let ranked = |node: &str, at: usize, rank: u32, world: u32| Claim {
        rank: Some(Rank {
            rank,
            world: Some(world),
            launcher: "Slurm".to_owned(),
        }),
        ..claim(node, token(at))
    };
    join(&mut hall, ranked("n1", 0, 0, 4), 0).unwrap();
    let mut twin = ranked("n2", 1, 1, 4);
    twin.host.boot_id = "boot-1".to_owned();
    assert_eq!(
        refused(&mut hall, twin),
        "node `n2` and node `n1` are one machine, boot-1: each node joins once"
    );
    let mut hall = super::tests::hall();
    join(&mut hall, ranked("n1", 0, 0, 4), 0).unwrap();
    let mut twin = ranked("n2", 1, 1, 4);
    twin.devices[0].uuid = Some("gpu-1".to_owned());
    assert!(refused(&mut hall, twin).starts_with("device gpu-1 is on node `n2` and on node `n1`"));
    hall.let_in(1, "more".to_owned());
    let mut apart = ranked("n2", 1, 0, 2);
    apart.pass = Pass::Token("more".to_owned());
    assert_eq!(
        refused(&mut hall, apart),
        "node `n2` believes in 2 ranks of Slurm, node `n1` in 4 ranks of Slurm: they were started as two worlds"
    );
    let twice = refused(&mut hall, ranked("n3", 2, 0, 4));
    assert_eq!(twice, "node `n3` and node `n1` are both rank 0");
}

#[test]
fn a_report_is_taken_once_and_in_order_whatever_is_sent_again() {
    let mut hall = hall();
    let first = join(&mut hall, claim("n1", token(0)), 0).unwrap();
    let node = first.node;
    for number in 1..=5 {
        assert_eq!(hall.take(node, first.link, number), Ok(true));
    }
    hall.keep(node, first.log, 3);
    // The link breaks; the agent sends all that was not acknowledged again.
    let session = Pass::Session("session-n1".to_owned());
    let cut = refused(&mut hall, claim("n1", session.clone()));
    assert_eq!(
        cut,
        "the log of node `n1` ends at report 0, and 5 were taken of it: it was cut"
    );
    let back = Claim {
        last: 7,
        ..claim("n1", session)
    };
    let again = join(&mut hall, back, 30 * SECOND).unwrap();
    assert_eq!((again.kept, again.restarted), (3, false));
    let taken = (4..=7).map(|number| hall.take(node, again.link, number));
    assert_eq!(
        taken.collect::<Vec<_>>(),
        [Ok(false), Ok(false), Ok(true), Ok(true)]
    );
    let gap = hall.take(node, again.link, 9);
    let told = Refusal::Order {
        node: "n1".to_owned(),
        said: 9,
        due: 8,
    };
    assert_eq!(gap, Err(told));
    // Nobody can have on disk what was not taken.
    hall.keep(node, first.log, u64::MAX);
    assert_eq!(hall.kept(node), 7);
}

#[test]
fn what_is_on_disk_of_a_lost_log_acknowledges_nothing_of_the_one_begun_anew() {
    let mut hall = hall();
    let first = join(&mut hall, claim("n1", token(0)), 0).unwrap();
    for number in 1..=5 {
        assert_eq!(hall.take(0, first.link, number), Ok(true));
    }
    let anew = Claim {
        log: 5,
        last: 3,
        ..claim("n1", Pass::Session("session-n1".to_owned()))
    };
    let second = join(&mut hall, anew, SECOND).unwrap();
    assert!(second.log_lost);
    for number in 1..=3 {
        assert_eq!(hall.take(0, second.link, number), Ok(true));
    }
    hall.keep(0, first.log, 5);
    assert_eq!(hall.kept(0), 0);
    hall.keep(0, second.log, 2);
    assert_eq!(hall.kept(0), 2);
}

#[test]
fn tasks_wait_for_a_node_that_is_cut_off_and_are_not_given_to_its_successor() {
    let mut hall = hall();
    join(&mut hall, claim("n1", token(0)), 0).unwrap();
    for device in 0..3 {
        hall.task(0, Task::Kill { device });
    }
    hall.took(0, 1);
    let numbers = |tasks: Vec<(u64, Task)>| tasks.into_iter().map(|(n, _)| n).collect::<Vec<_>>();
    assert_eq!(numbers(hall.tasks_after(0, 0)), [2, 3]);
    let back = Claim {
        task: 2,
        ..claim("n1", Pass::Session("session-n1".to_owned()))
    };
    join(&mut hall, back, 60 * SECOND).unwrap();
    assert_eq!(numbers(hall.tasks_after(0, 0)), [3]);
    hall.let_in(0, "second".to_owned());
    let successor = claim("n1", Pass::Token("second".to_owned()));
    join(&mut hall, successor, 120 * SECOND).unwrap();
    assert_eq!(numbers(hall.tasks_after(0, 0)), [0_u64; 0]);
}

#[test]
fn silence_is_that_of_both_connections_together() {
    let mut hall = hall();
    assert_eq!(
        hall.quiet_ns(0, 99 * SECOND),
        None,
        "one that never joined is missing, not silent"
    );
    join(&mut hall, claim("n1", token(0)), 0).unwrap();
    hall.hear(0, Line::Link, 2 * SECOND);
    let is_for = |n: &str| n == "n1";
    assert_eq!(hall.beat("n1", is_for, "session-n1", 5 * SECOND), Ok(0));
    assert_eq!(hall.quiet_ns(0, 9 * SECOND), Some(4 * SECOND));
    let wrong = hall.beat("n1", is_for, "session-n2", 8 * SECOND);
    assert_eq!(
        wrong,
        Err(Refusal::Session {
            node: "n1".to_owned()
        })
    );
    let posing = hall.beat("n1", |n| n == "n2", "session-n1", 8 * SECOND);
    assert_eq!(
        posing,
        Err(Refusal::Certificate {
            node: "n1".to_owned()
        })
    );
    assert_eq!(
        hall.quiet_ns(0, 9 * SECOND),
        Some(4 * SECOND),
        "and keeps nobody alive"
    );
}

#[test]
fn a_node_that_has_not_come_back_shifts_nobodys_devices() {
    let found = nodes_of(&[0..0, 1..2, 2..4]);
    assert_eq!(found, [None, Some(1), Some(2), Some(2)]);
    assert_eq!(nodes_of(&[0..2, 2..3]), [Some(0), Some(0), Some(1)]);
    assert!(nodes_of(&[]).is_empty());
}
