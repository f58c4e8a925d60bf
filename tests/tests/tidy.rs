//! What a machine can hold of the house style, held on this repository; and each check on a small
//! sample that breaks it, so that a check that sees nothing fails.

use hallmark_tests::tidy::{
    self, Complaint, FILE_LINES_MAX, FUNCTION_LINES_MAX, File, Tree, directions,
};
use std::sync::OnceLock;

fn tree() -> &'static Tree {
    static TREE: OnceLock<Tree> = OnceLock::new();
    TREE.get_or_init(Tree::read)
}

/// Fails with every complaint of `check` about the repository.
fn holds(check: fn(&File) -> Vec<Complaint>) {
    none(tree().files.iter().flat_map(check).collect());
}

fn none(complaints: Vec<Complaint>) {
    let lines: Vec<String> = complaints.iter().map(Complaint::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} complaints:\n{}",
        lines.len(),
        lines.join("\n")
    );
}

/// Lines that `check` complains of in a file of this text.
fn lines(check: fn(&File) -> Vec<Complaint>, path: &str, text: &str) -> Vec<usize> {
    check(&File::new(path, text))
        .iter()
        .map(|complaint| complaint.line)
        .collect()
}

const NONE: [usize; 0] = [];
const SOURCE: &str = "results/src/a.rs";

#[test]
fn the_tree_that_is_held_is_the_repository() {
    for path in [
        "Cargo.toml",
        "harness/src/main.rs",
        "harness/src/clock.rs",
        "kernels/src/timer.rs",
        "kernels/wgsl/tiled.wgsl",
        "profiles/library/smoke.toml",
        "tests/run",
        "tests/tests/tidy.rs",
    ] {
        assert!(
            tree().files.iter().any(|file| file.path == path),
            "{path} is not seen"
        );
    }
    let is_built = |file: &&File| file.path.contains("target/");
    assert_eq!(
        tree().files.iter().find(is_built).map(|file| &file.path),
        None
    );
}

#[test]
fn every_file_opens_with_what_it_decides() {
    holds(tidy::opening);
    assert_eq!(
        lines(tidy::opening, SOURCE, "use std::fs;\n//! late\n"),
        [1]
    );
    assert_eq!(lines(tidy::opening, SOURCE, "//!\n"), [1]);
    assert_eq!(lines(tidy::opening, SOURCE, "//! Decides.\n"), NONE);
}

#[test]
fn a_file_is_named_for_the_thing_it_holds() {
    holds(tidy::file_name);
    for name in ["a/src/mod.rs", "utils.rs", "a/common.rs", "a/manager.rs"] {
        assert_eq!(lines(tidy::file_name, name, ""), [1], "{name}");
    }
    assert_eq!(lines(tidy::file_name, "a/model.rs", ""), NONE);
}

#[test]
fn time_is_asked_in_two_files() {
    holds(tidy::clocks);
    let bad = "//! D.\nfn a() { std::time::Instant::now(); }\nuse rustix::time::clock_gettime;\n\
               // Instant::now\nconst A: &str = \"SystemTime::now\";\n\
               #[cfg(test)]\nmod tests { fn b() { Instant::now(); } }\nfn c() { SystemTime::now(); }\n";
    assert_eq!(lines(tidy::clocks, SOURCE, bad), [2, 3, 8]);
    for path in [
        "harness/src/clock.rs",
        "kernels/src/timer.rs",
        "tests/src/a.rs",
        "kernels/benches/a.rs",
    ] {
        assert_eq!(lines(tidy::clocks, path, bad), NONE, "{path}");
    }
}

#[test]
fn nothing_that_ships_panics_on_an_error() {
    holds(tidy::panics);
    let bad = "//! D.\nfn a() { b().unwrap(); }\nfn c() { d().expect(\"e\"); }\nfn f() { panic!(\"g\") }\n\
               #[expect(clippy::panic)]\nfn h() { i().unwrap_or(0); j().expect_err(\"k\"); }\n\
               #[cfg(test)]\nmod tests {\n    fn l() { m().unwrap(); }\n}\n";
    assert_eq!(lines(tidy::panics, SOURCE, bad), [2, 3, 4]);
    for path in [
        "results/src/a/tests.rs",
        "tests/tests/a.rs",
        "results/benches/a.rs",
        "results/examples/a.rs",
    ] {
        assert_eq!(lines(tidy::panics, path, bad), NONE, "{path}");
    }
}

#[test]
fn no_lint_is_silenced_without_a_reason() {
    holds(tidy::allows);
    let bad = "//! D.\n#![allow(dead_code)]\n#[allow(unused)]\nfn a() {}\n// #[allow(x)]\n#[expect(unused, reason = \"b\")]\n";
    assert_eq!(lines(tidy::allows, SOURCE, bad), [2, 3]);
}

#[test]
fn nothing_is_left_for_later() {
    holds(tidy::unfinished);
    let bad = "//! D.\n// TODO: a\n/* b FIXME */\nfn c() { todo!() }\nfn d() { unimplemented!() }\n/// XXX\n\
               const E: &str = \"TODO\";\nfn mastodon_TODOS() {}\n";
    let mut found = lines(tidy::unfinished, SOURCE, bad);
    found.sort_unstable();
    assert_eq!(found, [2, 3, 4, 5, 6]);
}

#[test]
fn no_place_of_one_machine_and_no_registry_is_named() {
    holds(tidy::places);
    // Taken apart, so that this file passes its own check.
    let bad = [
        "see /wo",
        "rk/a\n`/ho",
        "me/me`\n/ro",
        "ot/x\nstatic.",
        "crates.io\na/wo",
        "rk/b\n",
    ]
    .concat();
    let mut found = lines(tidy::places, "README.md", &bad);
    found.sort_unstable();
    assert_eq!(found, [1, 2, 3, 4]);
}

#[test]
fn no_file_is_longer_than_it_can_be_read() {
    holds(tidy::file_length);
    let text = "//! D.\n".repeat(FILE_LINES_MAX);
    assert_eq!(lines(tidy::file_length, SOURCE, &text), NONE);
    assert_eq!(lines(tidy::file_length, SOURCE, &format!("{text}\n")), [1]);
    assert_eq!(
        lines(tidy::file_length, "BENCHMARKS.md", &format!("{text}\n")),
        NONE
    );
}

#[test]
fn no_function_is_longer_than_it_can_be_held_in_mind() {
    holds(tidy::function_lengths);
    let body = |lines: usize| "    let a = '{'; // }\n".repeat(lines);
    let function = |lines: usize| {
        let body = body(lines - 4);
        format!(
            "//! D.\nfn a<const N: usize>(\n    b: [u8; 4], c: fn(u8) -> u8,\n) -> u8 {{\n{body}}}\n"
        )
    };
    let at_most = function(FUNCTION_LINES_MAX);
    assert_eq!(lines(tidy::function_lengths, SOURCE, &at_most), NONE);
    let longer = format!(
        "{at_most}trait T {{\n    fn d(&self);\n}}\n{}",
        function(FUNCTION_LINES_MAX + 1)
    );
    let first = at_most.lines().count() + 3 + 2;
    assert_eq!(lines(tidy::function_lengths, SOURCE, &longer), [first]);
}

#[test]
fn crates_know_only_what_the_plan_of_the_house_lets_them_know() {
    let mut complaints = Vec::new();
    for folder in ["profiles", "kernels", "results", "harness"] {
        let path = format!("{folder}/Cargo.toml");
        let file = tree()
            .files
            .iter()
            .find(|file| file.path == path)
            .expect("each crate has a manifest");
        complaints.extend(directions(folder, &file.text));
    }
    none(complaints);
    let bad = [
        (
            "profiles",
            "[dependencies]\nhallmark-results.workspace = true",
        ),
        (
            "kernels",
            "[dev-dependencies]\nhallmark-results = { path = \"../results\" }",
        ),
        (
            "results",
            "[target.'cfg(unix)'.dependencies]\nhallmark-kernels.workspace = true",
        ),
        (
            "results",
            "[dependencies.renamed]\npackage = \"hallmark\"\nworkspace = true",
        ),
        ("harness", "[build-dependencies]\nhallmark-tests = \"0.1\""),
        ("harness", "[dependencies]\nwgpu = \"30\""),
        ("results", "[dependencies]\nclap = \"4\""),
        ("lobby", "[dependencies]"),
        ("results", "[dependencies"),
    ];
    for (folder, manifest) in bad {
        assert_eq!(
            directions(folder, manifest).len(),
            1,
            "{folder}: {manifest}"
        );
    }
    let good = "[dependencies]\nhallmark-profiles.workspace = true\nserde = \"1\"";
    none(directions("results", good));
}

#[test]
fn the_committed_schema_is_the_one_that_the_types_generate() {
    let path = tree().root.join("profiles/schema/profile.schema.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let committed: serde_json::Value =
        serde_json::from_str(&text).expect("the committed schema is JSON");
    let generated = hallmark_profiles::profile::schema().to_value();
    assert!(
        committed == generated,
        "write it anew: hallmark profiles schema > profiles/schema/profile.schema.json"
    );
}
