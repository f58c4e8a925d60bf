//! What the program says, word by word: help of every command, and reports of invented runs.
//!
//! The texts lie in `tests/golden`. How to renew them: [`hallmark_tests::golden`].

use hallmark_tests::golden;
use hallmark_tests::program::{finish, hallmark};
use hallmark_tests::staged::{Invented, Tale};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn help(command: &[&str]) -> String {
    let arguments = command.iter().copied().chain(["--help"]);
    let finished = finish(hallmark(arguments), PATIENCE).expect_code(0);
    assert_eq!(finished.stderr, "");
    finished.stdout
}

#[test]
fn the_help_of_every_command_is_the_one_that_was_read_and_approved() {
    for command in [
        &[] as &[&str],
        &["run"],
        &["resume"],
        &["seal"],
        &["status"],
        &["stop"],
        &["inspect"],
        &["prove"],
        &["rehearse"],
        &["judge"],
        &["report"],
        &["publish"],
        &["profiles"],
        &["profiles", "list"],
        &["profiles", "show"],
        &["profiles", "check"],
        &["profiles", "schema"],
        &["site"],
        &["site", "init"],
        &["site", "check"],
        &["site", "schema"],
        &["completions"],
    ] {
        let name = if command.is_empty() {
            "hallmark".to_owned()
        } else {
            command.join("-")
        };
        let text = help(command);
        let widest = text.lines().map(|l| l.chars().count()).max();
        assert!(widest <= Some(120), "{name}: {widest:?} columns");
        golden::same(&format!("help/{name}.txt"), &text);
    }
}

#[test]
fn every_command_that_the_help_names_has_a_help_that_is_kept() {
    let text = help(&[]);
    let commands = text
        .lines()
        .skip_while(|l| *l != "Commands:")
        .skip(1)
        .take_while(|l| !l.is_empty())
        .filter_map(|l| l.split_whitespace().next())
        .filter(|name| *name != "help");
    let commands: Vec<&str> = commands.collect();
    let known = [
        "run",
        "resume",
        "seal",
        "status",
        "stop",
        "rehearse",
        "inspect",
        "prove",
        "judge",
        "report",
        "publish",
        "profiles",
        "site",
        "completions",
    ];
    assert_eq!(commands, known);
}

#[test]
fn the_reports_of_invented_runs_are_the_ones_that_were_read_and_approved() {
    for (name, tale) in [
        ("passed", Tale::Good),
        ("rejected", Tale::Broken),
        ("inconclusive", Tale::Unshown),
    ] {
        let invented = Invented::new(2, tale);
        for (format, ending) in [
            ("text", "txt"),
            ("markdown", "md"),
            ("json", "json"),
            ("junit", "xml"),
        ] {
            golden::same(
                &format!("reports/{name}.{ending}"),
                &invented.report(format),
            );
        }
    }
}

#[test]
fn a_simulated_run_says_so_in_every_report() {
    let invented = Invented::simulated(2, Tale::Good);
    for (format, ending) in [("text", "txt"), ("markdown", "md")] {
        let text = invented.report(format);
        assert!(text.contains("SIMULATED"), "{text}");
        golden::same(&format!("reports/simulated.{ending}"), &text);
    }
}
