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
