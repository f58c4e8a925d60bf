//! The faults on which detection is scored, read from `tests/scenarios`.

use hallmark::twin::scenario::{self, Scenario};
use std::path::{Path, PathBuf};

/// The healthy hall of a folder, then every fault on it, by name.
fn of(name: &str) -> Vec<Scenario> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("scenarios")
        .join(name);
    let base = scenario::load(&folder.join("hall.toml")).unwrap_or_else(|e| panic!("{e}"));
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.flatten().map(|f| f.path()).collect();
    files.retain(|f| !f.ends_with("hall.toml") && !f.ends_with("profile.toml"));
    files.sort();
    let faults = files.iter().map(|file| {
        let scenario = scenario::load_on(file, &base).unwrap_or_else(|e| panic!("{e}"));
        let stem = file.file_stem().map(|s| s.to_string_lossy().into_owned());
        assert_eq!(
            Some(&scenario.name),
            stem.as_ref(),
            "a file is called by its scenario"
        );
        scenario
    });
    let faults: Vec<_> = faults.collect();
    std::iter::once(base).chain(faults).collect()
}

/// All of them: halls that are well, faults, and two faults at once.
///
/// # Panics
/// A file is wrong; the message says which, and where.
#[must_use]
pub fn all() -> Vec<Scenario> {
    ["short", "slow"].into_iter().flat_map(of).collect()
}

/// The one of that name.
///
/// # Panics
/// There is none.
#[must_use]
pub fn named(name: &str) -> Scenario {
    let found = all().into_iter().find(|s| s.name == name);
    found.unwrap_or_else(|| panic!("no scenario is called `{name}`"))
}
