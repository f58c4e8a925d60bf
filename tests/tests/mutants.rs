//! The tables of mutants hold together: each mistake can still be written where it says, every kind of criterion has
//! one, and the table of outcomes (`tests/mutants/README.md`) is of these mutants, none of which survived.
//!
//! It tries none of them: that is `tests/mutants/run`.
#![expect(
    clippy::expect_used,
    reason = "a test, and what it is built of, fails by a panic"
)]

use hallmark_tests::mutants::{self, Mutant};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the workspace").to_path_buf()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Fails with all that is wrong.
fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_text_that_a_mutant_replaces_stands_exactly_once_and_names_are_unique() {
    let (root, mut names, mut wrong) = (root(), BTreeSet::new(), Vec::new());
    for Mutant {
        name,
        file,
        old,
        new,
        tests,
        ..
    } in mutants::all(&root)
    {
        let count = read(&root.join(&file)).matches(&old).count();
        if count != 1 {
            wrong.push(format!(
                "{name}: its old text stands {count} times in {file}"
            ));
        }
        if old == new || tests.is_empty() {
            wrong.push(format!("{name}: it changes nothing, or names no test"));
        }
        if !names.insert(name.clone()) {
            wrong.push(format!("{name}: it stands twice"));
        }
    }
    none(wrong);
}

#[test]
fn every_kind_of_criterion_has_a_mutant() {
    let all = mutants::all(&root());
    let kinds: BTreeSet<String> = all.iter().flat_map(|m| m.kinds.clone()).collect();
    let lacking = mutants::needed().into_iter().filter(|k| !kinds.contains(k));
    let lacking = lacking.map(|kind| format!("{kind}: no mutant is of this kind"));
    let odd = kinds.iter().filter(|k| !mutants::is_known(k));
    let odd = odd.map(|kind| format!("{kind}: there is no such kind"));
    none(lacking.chain(odd).collect());
}

/// Texts of a package's tests: those within its sources, or those of one binary.
fn sources(package: &str, binary: &str) -> String {
    let root = root().join(package);
    let paths = match binary {
        "lib" => mutants::files(&root.join("src"), "rs"),
        _ => {
            let mut paths = mutants::files(&root.join("tests").join(binary), "rs");
            paths.push(root.join("tests").join(format!("{binary}.rs")));
            paths
        }
    };
    paths.iter().map(|p| read(p)).collect()
}

#[test]
fn the_tests_that_must_notice_a_mutant_exist() {
    let (mut known, mut wrong) = (BTreeMap::new(), Vec::new());
    for mutant in mutants::all(&root()) {
        for test in &mutant.tests {
            let mut words = test.splitn(3, ' ');
            let mut word = || words.next().unwrap_or_default().to_owned();
            let (package, binary, path) = (word(), word(), word());
            let text = known
                .entry((package.clone(), binary.clone()))
                .or_insert_with(|| sources(&package, &binary));
            let wanted = match path.strip_suffix("::") {
                Some(module) => format!("mod {}", module.rsplit("::").next().unwrap_or_default()),
                None if path.is_empty() => "#[test]".to_owned(),
                None => format!(
                    "#[test]\nfn {}(",
                    path.rsplit("::").next().unwrap_or_default()
                ),
            };
            let stands = text.lines().map(str::trim_start).collect::<Vec<_>>();
            if !stands.join("\n").contains(&wanted) {
                wrong.push(format!("{}: there is no test `{test}`", mutant.name));
            }
        }
    }
    none(wrong);
}

#[test]
fn what_became_of_each_mutant_is_told_and_none_survived() {
    let page = read(&root().join("tests/mutants/README.md"));
    let table = page.split("| mutant | of | became |").nth(1);
    let table = table.unwrap_or_default().lines();
    let cells = |line: &str| -> Option<(String, String)> {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let (name, _, became) = (cells.next()?, cells.next()?, cells.next()?);
        Some((name.to_owned(), became.trim_end_matches(" |").to_owned()))
    };
    let told: BTreeMap<String, String> = table.filter_map(cells).collect();
    let all: BTreeSet<String> = mutants::all(&root()).into_iter().map(|m| m.name).collect();
    let names: BTreeSet<String> = told.keys().cloned().collect();
    let odd = names.symmetric_difference(&all);
    let odd = odd.map(|n| format!("{n}: not of this table; run tests/mutants/run"));
    let well = |b: &String| b.starts_with("killed by `") || b == "not tried yet";
    let survived = told.iter().filter(|(_, became)| !well(became));
    let survived = survived.map(|(name, became)| format!("{name}: {became}"));
    none(odd.chain(survived).collect());
}
