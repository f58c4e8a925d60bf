//! Pairs of nodes before the load and after it: who is slow with everybody, who with one other, and where floats change on the way.

use hallmark_results::diagnosis::pairs::When;
use hallmark_results::diagnosis::{Cause, Diagnosis, Level};
use hallmark_results::frame::{PairRow, What};
use hallmark_results::report::pairs::{sentence, ways};
use hallmark_tests::hall::{named, nothing, of};

/// Nodes of the invented hall: two racks of four.
const NODES: usize = 8;

/// Three rounds in which everybody meets three others, and more of the given pairs; `rate` in GB/s, by nodes and row.
fn rows(again: &[[usize; 2]], rate: impl Fn([usize; 2], usize) -> f64) -> Vec<PairRow> {
    let round = |r: usize| (0..NODES / 2).map(move |i| [i, NODES / 2 + (i + r) % (NODES / 2)]);
    let random = (0..3).flat_map(|r| round(r).map(move |p| (r as u32, p)));
    let retests = again.iter().map(|p| (3, *p));
    let row = |(index, (round, pair)): (usize, (u32, [usize; 2]))| PairRow {
        round,
        nodes: pair.map(|n| format!("node-{n}")),
        bytes: 4 << 20,
        bytes_per_s: 1e9 * rate(pair, index) * (1.0 + 0.02 * (index % 5) as f64),
        latency_s: 20e-6,
        wrong: 0,
    };
    random.chain(retests).enumerate().map(row).collect()
}

fn found(rows: Vec<PairRow>) -> Vec<Diagnosis> {
    of(2, 4, 2)
        .event(-600.0, None, What::Pairs { rows })
        .diagnose()
}

#[test]
fn a_node_that_is_slow_with_everybody_is_named_and_those_it_met_are_not() {
    let slow = |pair: [usize; 2], _| if pair.contains(&5) { 0.7 } else { 1.0 };
    let found = found(rows(&[[2, 5]], slow));
    let named = named(&found, Cause::LinkSlow);
    assert_eq!(
        (named.place.level, named.place.name.as_str()),
        (Level::Node, "node-5")
    );
    assert_eq!(named.place.devices, [10, 11]);
    assert!(
        named.is_nearly_certain() && named.onset_ns.is_none(),
        "{named:?}"
    );
    assert!(
        named.evidence[0].what.contains("4 pairs with 4 nodes"),
        "{named:?}"
    );
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn two_nodes_that_are_slow_with_each_other_alone_are_named_together_once_they_met_again() {
    let slow = |pair: [usize; 2], _| if pair == [1, 6] { 0.3 } else { 1.0 };
    nothing(&found(rows(&[], slow)));
    let found = found(rows(&[[1, 6]], slow));
    let named = named(&found, Cause::LinkSlow);
    assert_eq!(
        (named.place.level, named.place.name.as_str()),
        (Level::Pair, "node-1 with node-6")
    );
    assert_eq!(named.place.devices, [2, 3, 12, 13]);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn what_does_not_come_again_and_what_is_spread_evenly_is_no_slow_link() {
    // One bad measurement, and the pair is well the second time.
    nothing(&found(rows(&[[1, 6]], |p, i| {
        if p == [1, 6] && i < 12 { 0.3 } else { 1.0 }
    })));
    // Slow with one, well with others.
    nothing(&found(rows(&[], |p, _| {
        if p.contains(&2) && p[1] > 5 { 0.5 } else { 1.0 }
    })));
    nothing(&found(rows(&[], |_, i| [1.0, 0.85, 1.1, 0.9][i % 4])));
    nothing(&found(Vec::new()));
}

#[test]
fn a_node_far_away_is_named_by_its_latency() {
    let mut rows = rows(&[], |_, _| 1.0);
    for row in rows.iter_mut().filter(|r| r.nodes[0] == "node-3") {
        row.latency_s = 20e-3;
    }
    let found = found(rows);
    let named = named(&found, Cause::LinkSlow);
    assert_eq!(named.place.name, "node-3");
    assert!(
        named.evidence[0]
            .what
            .contains("20.0\u{a0}ms for a message"),
        "{named:?}"
    );
}

#[test]
fn a_node_that_became_slow_under_load_is_named_by_what_pairs_did_after_it() {
    let well = rows(&[], |_, _| 1.0);
    let slow = rows(&[[2, 5]], |p, _| if p.contains(&5) { 0.4 } else { 1.0 });
    let hall = of(2, 4, 2);
    let told = |first: &[PairRow], last: &[PairRow]| {
        let pairs = |rows: &[PairRow]| What::Pairs {
            rows: rows.to_vec(),
        };
        let hall = hall.clone().event(-600.0, None, pairs(first));
        hall.event(1_300.0, None, pairs(last)).diagnose()
    };
    nothing(&told(&well, &well));
    let after = told(&well, &slow);
    let node = named(&after, Cause::LinkSlow);
    assert_eq!((node.place.name.as_str(), after.len()), ("node-5", 1));
    let what = |d: &Diagnosis| {
        d.evidence
            .iter()
            .map(|s| s.what.clone())
            .collect::<Vec<_>>()
    };
    assert!(what(node)[0].starts_with("after the load: "), "{node:?}");
    // Seen twice it is one finding with two signs, and what was mended meanwhile is told too.
    let both = told(&slow, &slow);
    let signs = what(named(&both, Cause::LinkSlow));
    assert_eq!((both.len(), signs.len()), (1, 2), "{signs:?}");
    let before = told(&slow, &well);
    let first = &what(named(&before, Cause::LinkSlow))[0];
    assert!(first.starts_with("before the load: "), "{first}");
}

#[test]
fn floats_that_change_on_the_way_are_named_at_the_node_that_all_such_pairs_share() {
    let spoilt = |is: &dyn Fn(&PairRow) -> bool| {
        let mut rows = rows(&[], |_, _| 1.0);
        rows.iter_mut().filter(|r| is(r)).for_each(|r| r.wrong = 3);
        found(rows)
    };
    let shared = spoilt(&|r| r.nodes[1] == "node-7");
    let one = named(&shared, Cause::ReduceCorruption);
    assert_eq!((one.place.name.as_str(), shared.len()), ("node-7", 1));
    assert!(one.evidence[0].what.contains(": 9 floats"), "{one:?}");
    let single = spoilt(&|r| r.nodes == ["node-0", "node-4"]);
    assert_eq!(
        named(&single, Cause::ReduceCorruption).place.name,
        "node-0 with node-4"
    );
}

#[test]
fn figures_that_no_bridge_can_have_measured_name_nobody_and_break_nothing() {
    for bad in [f64::NAN, f64::INFINITY, 0.0, -1.0, f64::MAX] {
        let mut rows = rows(&[[1, 6]], |_, _| 1.0);
        for row in &mut rows {
            (row.bytes_per_s, row.latency_s) = (bad, bad);
        }
        rows[0].nodes = ["<b>".to_owned(), String::new()];
        assert!(!sentence(None, &rows).is_empty() && ways(&rows).len() <= rows.len());
        nothing(&found(rows));
    }
    assert!(sentence(None, &[]).starts_with("no two nodes"));
}

#[test]
fn one_sentence_tells_how_many_how_fast_and_which_was_slowest() {
    let rows = rows(&[[1, 6]], |p, _| if p == [1, 6] { 0.25 } else { 1.0 });
    let said = sentence(Some(When::Before), &rows);
    assert!(
        said.starts_with(
            "12\u{a0}pairs of nodes measured before the load: median 1.02\u{a0}GB/s each way"
        ),
        "{said}"
    );
    assert!(said.contains("the slowest, node-1 with node-6,"), "{said}");
    assert_eq!(ways(&rows)[0].times, 2);
}
