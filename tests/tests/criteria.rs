//! Every criterion of every built-in profile can pass, can fail, and is inconclusive without its evidence.
//!
//! The list is read from the profiles, so a criterion that is added without a fixture (`criteria/fixture.rs`)
//! fails here with its name. What no built-in profile judges, and what decides at the edge of a limit, is in the
//! modules beside it. Records are invented ([`hallmark_tests::synthetic`]), the judge is the real one.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test, and what it is built of, fails by a panic"
)]

#[path = "criteria/again.rs"]
mod again;
#[path = "criteria/change.rs"]
mod change;
#[path = "criteria/edge.rs"]
mod edge;
#[path = "criteria/fixture.rs"]
mod fixture;
#[path = "criteria/honest.rs"]
mod honest;
#[path = "criteria/series.rs"]
mod series;
#[path = "criteria/unasked.rs"]
mod unasked;

use fixture::good;
use hallmark_profiles::metric::Metric;
use hallmark_profiles::profile::{self, BUILT_IN, Loaded};
use hallmark_results::frame::Frame;
use hallmark_results::verdict::{Finding, Outcome, Verdict, judge};
use hallmark_tests::synthetic::{Record, criteria, finding, fold};

/// A built-in profile with more criteria, each without its header.
fn with(name: &str, criteria: &str) -> Loaded {
    let text = profile::load(name).expect("a built-in profile").text;
    let text = format!("{text}\n[[criterion]]\n{criteria}");
    profile::parse(&text, "with.toml").unwrap_or_else(|e| panic!("{e}"))
}

/// The verdict on a record whose frames are changed one by one.
fn judged(run: &Record, change: impl FnMut(&mut Frame)) -> Verdict {
    let mut frames = run.frames();
    frames.iter_mut().for_each(change);
    judge(&fold(&frames))
}

/// Says for each criterion of a profile what is wrong with it, and fails with all of it.
fn each(name: &'static str, wrong: impl Fn(&fixture::Case) -> Option<String>) {
    let mut all = Vec::new();
    let loaded = profile::load(name).expect("a built-in profile");
    for criterion in criteria(&loaded.profile) {
        let case = fixture::Case {
            profile: name,
            phase: fixture::phase(&loaded.profile, &criterion),
            criterion,
        };
        let complaint = wrong(&case);
        all.extend(complaint.map(|c| format!("{name}/{}: {c}", case.criterion.name)));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// A test for each built-in profile.
macro_rules! of_each_profile {
    ($module:ident, $check:ident) => {
        mod $module {
            #[test]
            fn smoke() {
                super::$check("smoke");
            }
            #[test]
            fn burn_in() {
                super::$check("burn-in");
            }
            #[test]
            fn burn() {
                super::$check("burn");
            }
            #[test]
            fn soak() {
                super::$check("soak");
            }
            #[test]
            fn vendor_compare() {
                super::$check("vendor-compare");
            }
            #[test]
            fn hall_acceptance() {
                super::$check("hall-acceptance");
            }
        }
    };
}

of_each_profile!(
    every_criterion_of_every_profile_fails_where_it_does_not_hold,
    fails
);
of_each_profile!(
    no_criterion_of_any_profile_is_decided_without_its_evidence,
    is_open
);

#[test]
fn no_built_in_profile_is_left_out() {
    let mut names = BUILT_IN.map(|(name, _)| name);
    names.sort_unstable();
    let tried = [
        "burn",
        "burn-in",
        "hall-acceptance",
        "smoke",
        "soak",
        "vendor-compare",
    ];
    assert_eq!(names, tried, "give the new one its test above");
}

fn told(f: &Finding) -> String {
    format!("{:?}: {}", f.outcome, f.why)
}

/// Metrics of the evidence itself.
const OF_EVIDENCE: [Metric; 4] = [
    Metric::TelemetryCoverage,
    Metric::TelemetryGap,
    Metric::AuditShare,
    Metric::ClockOffset,
];

#[test]
fn every_criterion_of_every_profile_passes_where_all_is_well() {
    for (name, _) in BUILT_IN {
        let loaded = profile::load(name).expect("a built-in profile");
        let verdict = good(name, &loaded.profile).judge();
        let short: Vec<_> = verdict
            .findings
            .iter()
            .filter(|f| f.outcome != Outcome::Passed)
            .map(|f| format!("{name}/{}: {}", f.criterion.name, told(f)))
            .collect();
        assert!(short.is_empty(), "{}", short.join("\n"));
        let all = criteria(&loaded.profile).len();
        assert_eq!(verdict.findings.len(), all, "{name}");
    }
}

fn fails(name: &'static str) {
    each(name, |case| {
        let Some(record) = case.failing() else {
            return Some("has no record on which it fails; add one".to_owned());
        };
        let verdict = record.judge();
        let found = finding(&verdict, &case.criterion.name);
        // Too little evidence decides nothing, against a hall no more than for it.
        let expected = if OF_EVIDENCE.contains(&case.criterion.metric) {
            Outcome::Inconclusive
        } else {
            Outcome::Failed
        };
        (found.outcome != expected || verdict.outcome != expected).then(|| told(found))
    });
}

fn is_open(name: &'static str) {
    each(name, |case| {
        let Some(record) = case.missing() else {
            return Some("has no record that lacks its evidence; add one".to_owned());
        };
        let verdict = record.judge();
        let found = finding(&verdict, &case.criterion.name);
        (found.outcome != Outcome::Inconclusive || verdict.outcome == Outcome::Passed)
            .then(|| told(found))
    });
}

#[test]
fn three_days_on_a_whole_hall_accept_the_site_and_no_shorter_run_does() {
    let verdict = hallmark_tests::synthetic::record("hall-acceptance").judge();
    assert_eq!(verdict.word(), "ACCEPTED", "{}", verdict.sentence);
    let loaded = profile::load("hall-acceptance").expect("a built-in profile");
    let verdict = good("hall-acceptance", &loaded.profile).judge();
    assert_eq!(
        (verdict.outcome, verdict.word()),
        (Outcome::Passed, "PASSED"),
        "what the command line shortened accepts no site"
    );
}
