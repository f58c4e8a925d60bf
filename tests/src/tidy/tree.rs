//! The files of the repository that the style holds for.
//!
//! Leaves out what is built, what a run wrote and what the version control keeps.

use super::source::{Source, test_modules};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const LEFT_OUT: [&str; 6] = [
    "target",
    ".git",
    "runs",
    "artifacts",
    "corpus-found",
    "node_modules",
];
const ENDINGS: [&str; 14] = [
    "rs", "toml", "md", "wgsl", "cu", "ptx", "html", "css", "js", "svg", "sh", "json", "csv", "yml",
];
/// Scripts without an ending.
const SCRIPTS: [&str; 1] = ["run"];

/// One text file.
#[derive(Clone, Debug)]
pub struct File {
    /// From the root, with `/`.
    pub path: String,
    pub text: String,
    /// The parts, for Rust.
    pub source: Option<Source>,
    /// Only ever compiled for tests, benchmarks or examples.
    pub is_test: bool,
}

impl File {
    #[must_use]
    pub fn new(path: &str, text: &str) -> Self {
        let in_tests = |part: &str| matches!(part, "tests" | "benches" | "examples" | "fuzz");
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            source: path.ends_with(".rs").then(|| Source::new(text)),
            is_test: path.split('/').any(in_tests) || path.ends_with("/tests.rs"),
        }
    }
}

/// All text files below a root.
#[derive(Clone, Debug)]
pub struct Tree {
    pub root: PathBuf,
    pub files: Vec<File>,
}

impl Tree {
    /// Reads the repository that this crate is part of.
    ///
    /// # Panics
    /// A file cannot be read.
    #[must_use]
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        Self::below(root.expect("the crate lies in the repository"))
    }

    /// Reads the files below `root`.
    ///
    /// # Panics
    /// A file cannot be read.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        let mut files = Vec::new();
        collect(root, root, &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        mark_test_modules(&mut files);
        Self {
            root: root.to_owned(),
            files,
        }
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
            .path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_symlink() || LEFT_OUT.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files);
            continue;
        }
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        if !ENDINGS.contains(&ending.as_ref()) && !SCRIPTS.contains(&name.as_str()) {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let inside = path.strip_prefix(root).unwrap_or(&path);
        let inside = inside.to_string_lossy().replace('\\', "/");
        files.push(File::new(&inside, &String::from_utf8_lossy(&bytes)));
    }
}

/// A module that its parent declares under `#[cfg(test)]` is a test, with all below it.
fn mark_test_modules(files: &mut [File]) {
    let mut modules = BTreeSet::new();
    for file in files.iter() {
        let Some(source) = &file.source else { continue };
        let stem = file.path.strip_suffix(".rs").unwrap_or(&file.path);
        let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let base = if matches!(name, "lib" | "main") {
            folder
        } else {
            stem
        };
        for module in test_modules(&source.code) {
            modules.insert(format!("{base}/{module}"));
        }
    }
    for file in files {
        let is_below = |module: &String| {
            let rest = file.path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        file.is_test = file.is_test || modules.iter().any(is_below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_declared_for_tests_is_one_with_all_below_it() {
        let root = tempfile::TempDir::new().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("a/src/lib.rs", "#[cfg(test)]\nmod sample;\nmod real;\n");
        write("a/src/sample.rs", "");
        write("a/src/sample/deep.rs", "");
        write("a/src/sampled.rs", "");
        write("a/src/real.rs", "#[cfg(test)]\nmod inner;\n");
        write("a/src/real/inner.rs", "");
        write("target/x.rs", "");
        write("a/picture.png", "");
        let tree = Tree::below(root.path());
        let found: Vec<_> = tree
            .files
            .iter()
            .map(|f| (f.path.as_str(), f.is_test))
            .collect();
        let wanted = [
            ("a/src/lib.rs", false),
            ("a/src/real.rs", false),
            ("a/src/real/inner.rs", true),
            ("a/src/sample.rs", true),
            ("a/src/sample/deep.rs", true),
            ("a/src/sampled.rs", false),
        ];
        assert_eq!(found, wanted);
    }
}
