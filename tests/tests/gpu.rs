//! What `tests/gpu` promises whoever carries it to a machine: parts by name, none lost, none believed twice, and a
//! folder small enough to carry away.
//!
//! The program here is a script that ends as a file beside it says; nothing computes, and nothing is proven of a device.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    reason = "what tests are built of fails by a panic"
)]

use hallmark_tests::{Finished, RunFolder, finish, json_lines};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Lists one device without cuBLASLt; `prove` ends with the code in the file `code`, `run` leaves a report and a seal.
const PROGRAM: &str = r#"#!/bin/sh
here=$(dirname "$0")
case $1 in
inspect) echo '{"devices":[{"engine":"cuda"}],"absent":[{"what":"libcublasLt.so.12"}]}' ;;
prove) exit "$(cat "$here/code")" ;;
run)
    while [ "$1" != --out ]; do shift; done
    mkdir -p "$2" && echo report >"$2/report.html" && echo head >"$2/seal"
    exit "$(cat "$here/code")"
    ;;
esac
"#;

fn program(folder: &RunFolder, name: &str, text: &str) -> PathBuf {
    let path = folder.write(name, text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn gpu(arguments: &[&str]) -> Finished {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("gpu");
    let mut command = Command::new("bash");
    command.arg(script).args(arguments);
    finish(command, Duration::from_secs(60))
}

/// Part and outcome of each line of the results.
fn outcomes(out: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(out.join("parts.jsonl")).unwrap();
    let word = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap().to_owned();
    let lines = json_lines(&text);
    let pairs = lines.iter().map(|l| (word(l, "part"), word(l, "outcome")));
    pairs.collect()
}

fn told(outcomes: &[(String, String)]) -> Vec<(&str, &str)> {
    let pairs = outcomes.iter();
    pairs.map(|(p, o)| (p.as_str(), o.as_str())).collect()
}

#[test]
fn an_unknown_part_is_refused_with_those_that_are_known() {
    let listed = gpu(&["--list"]).expect_code(0);
    assert!(listed.stdout.starts_with("1  own "), "{listed}");
    let refused = gpu(&["--part", "99"]).expect_code(2);
    assert!(refused.stderr.contains("unknown part `99`; known: 1 to"));
    assert!(refused.stderr.contains("own cublaslt run"), "{refused}");
}

#[test]
fn a_part_that_failed_is_run_again_and_one_that_passed_only_by_another_program() {
    let folder = RunFolder::new();
    let binary = program(&folder, "hallmark", PROGRAM);
    let out = folder.path().join("out");
    let run = |parts: &[&str], binary: &Path| {
        let (binary, out) = (binary.to_str().unwrap(), out.to_str().unwrap());
        gpu(&[&["--binary", binary, "--out", out], parts].concat())
    };
    folder.write("code", "1");
    let failed = run(&["--part", "own", "--part", "ratio"], &binary).expect_code(1);
    assert!(failed.stdout.contains("FAILED"), "{failed}");
    assert_eq!(
        told(&outcomes(&out)),
        [("own", "failed"), ("ratio", "not shown")]
    );
    folder.write("code", "0");
    let parts = [
        "--part",
        "1",
        "--part",
        "all-reduce",
        "--part",
        "run",
        "--part",
        "burn",
    ];
    let passing = run(&parts, &binary);
    assert_eq!(passing.code, Some(0), "{passing}");
    let passed = outcomes(&out);
    assert_eq!(
        told(&passed),
        [
            ("ratio", "not shown"),
            ("own", "passed"),
            ("all-reduce", "passed"),
            ("run", "passed"),
            ("burn", "passed")
        ]
    );
    // Named, a part is run whatever it came to before; its line stands once.
    folder.write("code", "4");
    let broken = run(&["--part", "run"], &binary).expect_code(1);
    assert!(broken.stdout.contains("exit 4, wanted one of: 0 3"));
    let after = outcomes(&out);
    assert_eq!(after.iter().filter(|(part, _)| part == "run").count(), 1);
    assert!(after.contains(&("run".to_owned(), "failed".to_owned())));
    let files: Vec<_> = std::fs::read_dir(&out).unwrap().collect();
    assert!(files.len() <= 8, "{files:?}");
    assert!(out.join("run.tar.gz").is_file() && out.join("burn.html").is_file());
}
