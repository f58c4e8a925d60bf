//! Halls played from end to end.

use super::scenario::{self, Scenario};
use super::*;
use hallmark_profiles::profile::{self, Loaded};
use hallmark_results::frame::Frame;
use hallmark_results::standing::Standing;
use hallmark_results::verdict::{Outcome, Verdict, judge};

const EIGHT: &str = r#"
schema_version = 1
name = "eight"
summary = "One node of eight."
[hall]
sku = "H100 SXM"
racks = 1
trays_per_rack = 1
gpus_per_node = 8
silicon_sigma = "1.5 %"
rack_power = "12 kW"
[run]
profile = "burn-in"
tick = "1 s"
"#;

fn scenario(text: &str) -> Scenario {
    scenario::parse(text, "test.toml").unwrap()
}

fn loaded(scenario: &Scenario) -> Loaded {
    profile::load(&scenario.conditions.profile).unwrap()
}

fn told(verdict: &Verdict) -> String {
    let open = verdict
        .findings
        .iter()
        .filter(|f| f.outcome != Outcome::Passed);
    let lines = open.map(|f| format!("{} {:?}: {}\n", f.criterion.name, f.outcome, f.why));
    format!("{}\n{}", verdict.sentence, lines.collect::<String>())
}

fn played(scenario: &Scenario, seed: u64) -> Standing {
    play(&loaded(scenario), scenario, seed, &mut |_| {}).unwrap()
}

#[test]
fn a_healthy_node_would_be_accepted_by_burn_in() {
    let scenario = scenario(EIGHT);
    for seed in 0..3 {
        let verdict = judge(&played(&scenario, seed));
        assert_eq!(
            verdict.sentence,
            "SIMULATED: would accept",
            "seed {seed}: {}",
            told(&verdict)
        );
        assert_eq!(verdict.outcome, Outcome::Inconclusive);
    }
}

#[test]
fn one_seed_gives_the_same_frames_and_another_gives_others() {
    let text = EIGHT.replace("tick = \"1 s\"", "duration = \"3 min\"\ntick = \"1 s\"");
    let scenario = scenario(&text);
    let frames = |seed| {
        let mut frames: Vec<Frame> = Vec::new();
        play(&loaded(&scenario), &scenario, seed, &mut |f| {
            frames.push(f.clone())
        })
        .unwrap();
        frames
    };
    let first = frames(7);
    // Debug text tells NaN from NaN no more than a reader does.
    assert_eq!(format!("{first:?}"), format!("{:?}", frames(7)));
    assert_ne!(format!("{:?}", first.last()), "");
    let samples = |f: &[Frame]| {
        f.iter()
            .filter(|f| matches!(f, Frame::Samples(_)))
            .take(40)
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_ne!(
        format!("{:?}", samples(&first)),
        format!("{:?}", samples(&frames(8)))
    );
}

/// Four nodes under the profile for halls, its days made minutes; `fault`: what ails the hall besides.
fn scaled(fault: &str) -> (Outcome, String) {
    let text = EIGHT
        .replace("trays_per_rack = 1", "trays_per_rack = 4")
        .replace("12 kW", "48 kW");
    let scenario = scenario(&format!("{text}{fault}"));
    let profile = profile::load("hall-acceptance").unwrap().text;
    let short = profile
        .replace("accepts_site = true", "accepts_site = false")
        .replace("least = \"10 min\"", "least = \"3 min\"")
        .replace("window = \"10 min\"", "window = \"2 min\"")
        .replace("duration = \"10 min\"", "duration = \"2 min\"")
        .replace("72 h", "5 min")
        .replace("min_samples = 50", "min_samples = 20")
        .replace("\"30 min\"", "\"2 min\"")
        .replace("duration = \"5 min\"", "duration = \"30 s\"");
    let loaded = profile::parse(&short, "short.toml").unwrap();
    let standing = play(&loaded, &scenario, 3, &mut |_| {}).unwrap();
    let verdict = judge(&standing);
    let finding = verdict
        .findings
        .iter()
        .find(|f| f.criterion.name == "scaling");
    let finding = finding.unwrap();
    (finding.outcome, finding.why.clone())
}

#[test]
fn what_nodes_reach_together_is_held_against_what_they_reach_by_themselves() {
    let (outcome, why) = scaled("");
    assert_eq!(outcome, Outcome::Passed, "{why}");
    let slow = "[[fault]]\nplace = \"any gpu\"\nat = \"1 s\"\ncauses = [\"link_slow\"]\nwithin = \"1 min\"\nlink_rate = { times = 0.02 }\n";
    let (outcome, why) = scaled(slow);
    assert_eq!(outcome, Outcome::Failed, "{why}");
}
