//! What rows, advice and pages say of plays that are made up here, seed 7.

use super::advice::advice;
use super::crew::{Part, perform};
use super::tell::Told;
use super::{Case, Picture, Played, Sought, Would, html, table, tell};
use crate::twin::scenario::{Expected, Scenario, parse};
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile;
use hallmark_results::stats::bootstrap::SplitMix64;
use std::sync::atomic::{AtomicBool, Ordering};

const HALL: &str = r#"schema_version = 1
name = "hall"
summary = "Nothing is wrong."
[hall]
sku = "H100 SXM"
racks = 2
trays_per_rack = 2
gpus_per_node = 8
rack_power = "33 kW"
[run]
profile = "smoke"
"#;

const PLATE: &str = r#"
[[fault]]
place = "any gpu"
at = "10 min"
causes = ["cold_plate"]
within = "30 min"
thermal_resistance = { times = 1.3 }
"#;

fn scenario(faults: &str, name: &str) -> Scenario {
    parse(
        &format!("{HALL}{faults}").replace("\"hall\"", &format!("\"{name}\"")),
        "test.toml",
    )
    .unwrap()
}

fn played(case: &Case, seed: u64, would: Would, found: Option<(f64, bool)>) -> Played {
    let wanted = case
        .scenario
        .faults
        .iter()
        .filter_map(|f| f.wanted.as_ref());
    let sought = wanted.map(|w| Sought {
        cause: w.causes[0].id().to_owned(),
        place: "rack0/tray1/node0/gpu3".to_owned(),
        within_s: w.within.as_secs_f64(),
        found: found.is_some(),
        after_s: found.map(|f| f.0),
        right_place: found.is_some(),
        right_cause: found.is_some_and(|f| f.1),
        said: found.map(|_| "rack 0, tray 1: cold plate <badly> seated".to_owned()),
    });
    Played {
        case: case.key(),
        seed,
        would: Some(would),
        broke: None,
        failed: vec!["thermal-resistance".to_owned()],
        undecided: Vec::new(),
        sought: sought.collect(),
        strays: Vec::new(),
        sealed: false,
        played_s: 3600.0,
        took_s: 1.0,
        picture: None,
    }
}

fn picture() -> Picture {
    let mut chance = SplitMix64::new(7);
    let points = 160;
    let mut noise = || chance.unit() - 0.5;
    Picture {
        metric: Metric::TempCore,
        unit: Metric::TempCore.spec().unit,
        at_s: (0..points).map(|i| 22.5 * f64::from(i)).collect(),
        here: (0..points)
            .map(|i| 56.0 + noise() + if i > 40 { 7.0 } else { 0.0 })
            .collect(),
        others: (0..points)
            .map(|_| [55.5 + 0.3 * noise(), 53.0 + noise(), 58.0 + noise()])
            .collect(),
        onset_s: Some(900.0),
        found_s: Some(1100.0),
    }
}

fn example() -> (Vec<Case>, Vec<Played>) {
    let hall = Case::new(&scenario("", "healthy"), 1.0);
    let plate = Case::new(&scenario(PLATE, "cold-plate"), 1.0);
    let mut plays = Vec::new();
    for seed in 1..=60 {
        let calm = if seed == 9 {
            Would::Reject
        } else {
            Would::Accept
        };
        plays.push(played(&hall, seed, calm, None));
        let found = match seed {
            1..=50 => Some((240.0, true)),
            51..=55 => Some((2400.0, false)),
            _ => None,
        };
        plays.push(played(&plate, seed, Would::Reject, found));
    }
    plays[1].picture = Some(picture());
    plays.push(Played {
        would: None,
        broke: Some("out of memory".to_owned()),
        ..played(&plate, 61, Would::Accept, None)
    });
    (vec![hall, plate], plays)
}

#[test]
fn a_row_counts_what_was_found_in_time_where_and_why_and_leaves_out_what_broke() {
    let (cases, plays) = example();
    let rows = table::rows(&cases, &plays);
    let (hall, plate) = (&rows[0], &rows[1]);
    assert_eq!((plate.plays, plate.broken), (60, 1));
    let of = |s: table::Share| (s.hits, s.of);
    assert_eq!(of(plate.found), (55, 60));
    assert_eq!(of(plate.in_time), (50, 60));
    assert_eq!(of(plate.right_cause), (50, 55));
    assert_eq!(of(plate.all_found), (50, 60));
    assert_eq!(of(plate.as_expected), (60, 60));
    assert!(hall.is_calm() && !plate.is_calm());
    assert_eq!(of(hall.rejected), (1, 60));
    assert_eq!(of(hall.as_expected), (59, 60));
    assert_eq!(of(hall.found), (0, 0));
    assert_eq!(plate.broke, ["out of memory"]);
    assert_eq!(hall.expected, Expected::NoAlarm);
}

#[test]
fn advice_names_what_fell_short_and_is_silent_where_nothing_did() {
    let (cases, plays) = example();
    let rows = table::rows(&cases, &plays);
    let smoke = profile::load("smoke").unwrap().profile;
    let said = advice(&smoke, &cases[1], &rows[1]).join("\n");
    // Smoke lasts a minute.
    assert!(said.contains("the run ends"), "{said}");
    assert!(said.contains("add `r_th`"), "{said}");
    assert!(said.contains("found later than wanted"), "{said}");
    let said = advice(&smoke, &cases[0], &rows[0]).join("\n");
    assert!(said.contains("is rejected: loosen or lengthen"), "{said}");
    let case = &cases[1];
    let sound: Vec<Played> = (1..=60)
        .map(|seed| played(case, seed, Would::Reject, Some((60.0, true))))
        .collect();
    let row = table::Row::of(case, &sound.iter().collect::<Vec<_>>());
    assert_eq!(advice(&smoke, case, &row), Vec::<String>::new());
}

#[test]
fn the_page_shows_bounds_pictures_and_advice_and_escapes_what_was_said() {
    let (cases, plays) = example();
    let rows = table::rows(&cases, &plays);
    let smoke = profile::load("smoke").unwrap().profile;
    let advice: Vec<_> = cases
        .iter()
        .zip(&rows)
        .map(|(c, r)| advice(&smoke, c, r))
        .collect();
    let told = Told {
        profile: "smoke",
        hall: "healthy",
        rows: &rows,
        advice: &advice,
        seeds: 60,
        done: 121,
        asked: 121,
        took_s: 12.0,
    };
    let page = html::page(&told);
    for shown in [
        "50/60",
        "SIMULATED",
        "1/60",
        "&lt;badly&gt;",
        "class=\"onset\"",
        "class=\"band\"",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    assert!(!page.contains("<badly>") && !page.contains("NaN") && !page.contains("http:"));
    let text = tell::text(&told);
    assert!(
        text.contains("cold-plate") && text.contains("rejected 1/60"),
        "{text}"
    );
    let json = tell::json(&told);
    assert_eq!(json["rows"][1]["in_time"]["hits"], 50);
    assert_eq!(json["provenance"], "simulated");
}

#[test]
fn a_play_that_breaks_breaks_itself_alone_and_a_stop_begins_no_more() {
    let case = Case::new(&scenario("", "healthy"), 1.0);
    let part = |seed| Part {
        case: 0,
        seed,
        wants_picture: false,
        sealed: false,
    };
    let parts: Vec<Part> = (0..40).map(part).collect();
    let stop = AtomicBool::new(false);
    let mut done = Vec::new();
    let play = |_: &Scenario, seed: u64, _: &mut dyn FnMut(&_)| match seed {
        3 => panic!("seed 3"),
        _ => Err(format!("seed {seed}")),
    };
    perform(&[case], &parts, 2, &stop, &play, &mut |part, played| {
        assert_eq!(part.seed, played.seed);
        done.push(played.broke.unwrap());
        if done.len() == 10 {
            stop.store(true, Ordering::Relaxed);
        }
    });
    assert!((10..40).contains(&done.len()), "{}", done.len());
    assert!(done.contains(&"the simulated hall panicked".to_owned()));
    assert!(done.contains(&"seed 0".to_owned()));
}
