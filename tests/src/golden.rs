//! Texts that are kept word by word in `tests/golden`, so that a change of wording is seen and read.
//!
//! There is one way to renew them, after reading what changed:
//! `HALLMARK_RENEW=1 cargo test --package hallmark-tests --test snapshots`, then `git diff tests/golden`.

use std::path::{Path, PathBuf};

/// Set to `1` to write what is now said over what was kept.
pub const RENEW: &str = "HALLMARK_RENEW";

fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name)
}

/// Compares a text with the one that is kept under this name.
///
/// # Panics
/// They differ, or none is kept; the first line that differs is shown.
pub fn same(name: &str, text: &str) {
    let path = place(name);
    if std::env::var_os(RENEW).is_some_and(|v| v == "1") {
        write(&path, text);
        return;
    }
    let kept = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; {}", path.display(), renew()));
    if let Some(difference) = difference(&kept, text) {
        panic!(
            "{} is no longer what is said: {difference}; {}",
            path.display(),
            renew()
        );
    }
}

fn renew() -> String {
    format!("read the new text, and renew with {RENEW}=1")
}

fn write(path: &Path, text: &str) {
    let folder = path.parent().expect("a kept text lies in a folder");
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, text))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// The first line that differs; `None` where none does.
fn difference(kept: &str, text: &str) -> Option<String> {
    if kept == text {
        return None;
    }
    let (mut old, mut new) = (kept.lines(), text.lines());
    for line in 1.. {
        match (old.next(), new.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                let said =
                    |l: Option<&str>| l.map_or_else(|| "nothing".to_owned(), |l| format!("`{l}`"));
                return Some(format!("line {line} was {}, is {}", said(a), said(b)));
            }
        }
    }
    Some("they differ in how lines end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_shown() {
        assert_eq!(difference("a\nb\n", "a\nb\n"), None);
        let found = difference("a\nb\n", "a\nc\n").unwrap();
        assert_eq!(found, "line 2 was `b`, is `c`");
        let found = difference("a\n", "a\nb\n").unwrap();
        assert_eq!(found, "line 2 was nothing, is `b`");
        assert!(difference("a\n", "a").is_some());
    }
}
