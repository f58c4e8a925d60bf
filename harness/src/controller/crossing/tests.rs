//! Who takes part in a formation, when all have shown their cards, and what came of it.

use super::*;
use crate::controller::hall::tests::claim;
use crate::protocol::link::TRIAL;
use crate::protocol::link::{Mpi, Pass};

fn cards(text: &str) -> Cards {
    vec![(text.to_owned(), text.to_owned())]
}

fn tried(bytes_per_s: f64, pairs: &[Pair]) -> Result<Tried, String> {
    let pairs = pairs.to_vec();
    Ok(Tried { bytes_per_s, pairs })
}

fn spans(tasks: &[(usize, Task)]) -> Vec<(usize, u32, u32, Vec<u32>)> {
    let span = |(node, task): &(usize, Task)| match task {
        Task::Bridge(span) => (*node, span.node, span.nodes, span.members.clone()),
        other => panic!("{other:?}"),
    };
    tasks.iter().map(span).collect()
}

#[test]
fn a_formation_takes_the_nodes_that_have_members_and_is_begun_once() {
    let mut crossing = Crossing::default();
    // The second node has not joined; of the third one device is lost, of the fourth all are.
    let devices = [0..2, 0..0, 2..4, 4..5];
    let trial = crossing.begin(TRIAL, &devices, &[]);
    assert_eq!(
        spans(&trial),
        [(0, 0, 3, vec![]), (2, 1, 3, vec![]), (3, 2, 3, vec![])]
    );
    let first = crossing.begin(1, &devices, &[0, 1, 3]);
    assert_eq!(spans(&first), [(0, 0, 2, vec![0, 1]), (2, 1, 2, vec![3])]);
    assert!(crossing.begin(1, &devices, &[0, 1, 3]).is_empty());
    assert!(crossing.begin(TRIAL, &devices, &[]).is_empty());
}

#[test]
fn cards_are_shown_to_all_once_all_have_put_theirs_up() {
    let mut crossing = Crossing::default();
    crossing.begin(3, &[0..1, 1..2], &[0, 1]);
    crossing.show(0, 3, 0, cards("a")).unwrap();
    // Of another generation, another round, a node that takes no part, and a second time.
    crossing.show(1, 2, 0, cards("old")).unwrap();
    crossing.show(1, 3, 1, cards("early")).unwrap();
    crossing.show(7, 3, 0, cards("stranger")).unwrap();
    crossing.show(0, 3, 0, cards("again")).unwrap();
    assert_eq!(crossing.complete(), None);
    crossing.show(1, 3, 0, cards("b")).unwrap();
    let all = Task::Cards {
        generation: 3,
        round: 0,
        cards: [cards("a"), cards("b")].concat(),
    };
    assert_eq!(crossing.complete(), Some((vec![0, 1], all)));
    assert_eq!(crossing.complete(), None);
    crossing.show(0, 3, 1, Cards::new()).unwrap();
    crossing.show(1, 3, 1, Cards::new()).unwrap();
    assert!(crossing.complete().is_some());
}

#[test]
fn a_trial_is_over_when_all_have_told_or_one_has_failed() {
    let mut crossing = Crossing::default();
    crossing.begin(TRIAL, &[0..1, 1..2], &[]);
    assert_eq!(crossing.outcome(), None);
    assert_eq!(crossing.ended(0, TRIAL, tried(3e9, &[])), None);
    assert_eq!(crossing.waiting(), [1]);
    assert_eq!(crossing.outcome(), None);
    crossing.ended(1, TRIAL, tried(2e9, &[]));
    assert_eq!(crossing.outcome(), Some(Ok(2e9)));
    // What fails in a trial is no fault of a run that has not begun.
    assert_eq!(crossing.ended(1, TRIAL, Err("no route".to_owned())), None);
    assert_eq!(crossing.outcome(), Some(Err((1, "no route".to_owned()))));
    for none in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        crossing.ended(1, TRIAL, tried(none, &[]));
        let why = "its bridge told no rate of the trial".to_owned();
        assert_eq!(crossing.outcome(), Some(Err((1, why))), "{none}");
    }
}

#[test]
fn a_bridge_that_ends_under_load_is_told_once_and_only_of_its_own_formation() {
    let mut crossing = Crossing::default();
    crossing.begin(2, &[0..1, 1..2], &[0, 1]);
    let died = || Err("it died".to_owned());
    assert_eq!(crossing.ended(0, 1, died()), None);
    assert_eq!(crossing.ended(0, 2, tried(0.0, &[])), None);
    assert_eq!(crossing.ended(0, 2, died()), Some("it died".to_owned()));
    assert_eq!(crossing.ended(0, 2, died()), None);
    assert_eq!(crossing.ended(0, 2, tried(0.0, &[])), None);
    assert_eq!(crossing.ended(0, 2, died()), None, "whatever came between");
}

fn with(node: &str, mpi: Result<Mpi, String>) -> Claim {
    Claim {
        mpi,
        ..claim(node, Pass::Session(String::new()))
    }
}

fn mpich(version: &str) -> Result<Mpi, String> {
    Ok(Mpi {
        version: version.to_owned(),
        world: World::Own,
    })
}

#[test]
fn nodes_that_cannot_reduce_into_each_other_are_told_from_those_that_may() {
    let two = |a, b| possible(&[with("n1", a), with("n2", b)]);
    assert_eq!(two(mpich("M 5"), mpich("M 5")), Ok("M 5".to_owned()));
    let none = Err("no library of MPI was found".to_owned());
    for (a, b, why) in [
        (
            mpich("M 5"),
            none.clone(),
            "node `n2`: no library of MPI was found",
        ),
        (none, mpich("M 5"), "node `n1`: no library"),
        (
            mpich("M 5"),
            mpich("M 4"),
            "node `n1` has M 5, node `n2` has M 4",
        ),
    ] {
        let told = two(a, b).unwrap_err();
        assert!(told.contains(why), "{told}");
    }
    let launched = |ranks| {
        let name = "Open MPI".to_owned();
        let version = "Open MPI v5".to_owned();
        let world = World::Launcher { name, ranks };
        Ok(Mpi { version, world })
    };
    assert!(two(launched(2), launched(2)).is_ok());
    let told = two(launched(3), launched(3)).unwrap_err();
    assert!(told.contains("3 ranks, and 2 nodes"), "{told}");
    let told = two(launched(2), launched(3)).unwrap_err();
    assert!(told.contains("one world"), "{told}");
    assert!(possible(&[]).is_err());
}

#[test]
fn more_ranks_than_can_be_checked_exactly_do_not_reduce() {
    let many = |count: usize| {
        let mut claim = with("n1", mpich("M"));
        claim.devices = vec![claim.devices[0].clone(); count];
        claim
    };
    let told = possible(&[many(64), with("n2", mpich("M"))]).unwrap_err();
    assert!(told.contains("at most 63"), "{told}");
    let told = possible(&[many(63), many(63), many(3)]).unwrap_err();
    assert!(told.contains("129 ranks"), "{told}");
}

fn pair(round: u32, peer: u32, bytes_per_s: f64, latency_s: f64) -> Pair {
    Pair {
        round,
        peer,
        bytes: 4 << 20,
        bytes_per_s,
        latency_s,
        wrong: u64::from(round == 2),
    }
}

#[test]
fn a_pair_counts_where_both_nodes_tell_of_it_and_as_the_worse_has_it() {
    let mut crossing = Crossing::default();
    // The second node of the site has not joined: places are 0, 1, 2 for nodes 0, 2, 3.
    crossing.begin(TRIAL, &[0..1, 0..0, 1..2, 2..3], &[]);
    let first = [
        pair(0, 1, 3e9, 2e-5),
        pair(1, 2, 1e9, 1e-5),
        pair(2, 1, 3e9, 2e-5),
    ];
    // The same round told by one side alone, a node that is none, and figures that cannot be.
    let second = [
        pair(0, 0, 2e9, 1e-5),
        pair(1, 2, 1e9, 1e-5),
        pair(2, 0, 4e9, 1e-5),
    ];
    let third = [
        pair(1, 0, f64::NAN, 1e-5),
        pair(0, 9, 1e9, 1e-5),
        pair(99, 1, 1e9, 1e-5),
    ];
    crossing.ended(0, TRIAL, tried(1e9, &first));
    crossing.ended(2, TRIAL, tried(1e9, &second));
    crossing.ended(3, TRIAL, tried(1e9, &third));
    let told = [
        ([0, 2], pair(0, 1, 2e9, 2e-5)),
        ([0, 2], pair(2, 1, 3e9, 2e-5)),
    ];
    assert_eq!(crossing.pairs(), told);
}

#[test]
fn cards_that_no_message_could_carry_to_all_are_their_own_nodes_fault() {
    let mut crossing = Crossing::default();
    crossing.begin(3, &[0..1, 1..2], &[0, 1]);
    let huge: Cards = vec![("key".to_owned(), "v".repeat(MESSAGE_MAX / 4))];
    let why = crossing.show(0, 3, 0, huge.clone()).unwrap_err();
    assert!(why.contains("are for each"), "{why}");
    assert!(crossing.show(0, 2, 0, huge).is_ok(), "of another formation");
    assert!(crossing.ended(0, 3, Err(why)).is_some());
    crossing
        .show(0, 3, 0, vec![("key".to_owned(), "v".to_owned())])
        .unwrap();
    assert!(crossing.complete().is_none());
}
