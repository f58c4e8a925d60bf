//! Words that must not stand where they stand, and those that must.

use super::source::{line_of, words};
use super::{Complaint, File};

/// The two files that may ask what time it is.
const CLOCKS: [&str; 2] = ["harness/src/clock.rs", "kernels/src/timer.rs"];
const NAMELESS: [&str; 9] = [
    "mod", "util", "utils", "common", "manager", "managers", "helper", "helpers", "misc",
];
/// What may stand before a path, so that `a/work/b` is none.
const BEFORE_A_PATH: &str = " \t\n\"'`(<=:,[";

/// Every Rust file opens with what it decides and refuses.
#[must_use]
pub fn opening(file: &File) -> Vec<Complaint> {
    let missing = file.source.is_some() && !file.text.starts_with("//! ");
    let what = "opens without `//!`: say what it decides and what it refuses";
    missing
        .then(|| complaint(file, 1, what))
        .into_iter()
        .collect()
}

/// A file is named for the thing it holds.
#[must_use]
pub fn file_name(file: &File) -> Vec<Complaint> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    let nameless = file.source.is_some() && NAMELESS.contains(&stem);
    let what = format!("`{name}` names nothing; call it by the thing it holds");
    nameless
        .then(|| complaint(file, 1, what))
        .into_iter()
        .collect()
}

/// Time is asked in two files.
#[must_use]
pub fn clocks(file: &File) -> Vec<Complaint> {
    if file.is_test || CLOCKS.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let asked = [
        "Instant::now",
        "SystemTime::now",
        "Timestamp::now",
        "Zoned::now",
        "clock_gettime",
        "gettimeofday",
    ];
    shipped(file, &asked, |word| {
        format!("`{word}`: time is asked only in {}", CLOCKS.join(" and "))
    })
}

/// What ships reports errors; it does not panic on them.
#[must_use]
pub fn panics(file: &File) -> Vec<Complaint> {
    if file.is_test {
        return Vec::new();
    }
    shipped(file, &[".unwrap()", ".expect(", "panic!("], |word| {
        format!("`{word}` outside tests: return an error that says what to do")
    })
}

/// A lint that is silenced says why, and stops being silenced when it no longer fires.
#[must_use]
pub fn allows(file: &File) -> Vec<Complaint> {
    let Some(source) = &file.source else {
        return Vec::new();
    };
    let what = |_: &str| "`allow`: write `#[expect(…, reason = \"…\")]`".to_owned();
    found(file, &source.code, &["#[allow", "#![allow"], what)
}

/// Nothing is left for later.
#[must_use]
pub fn unfinished(file: &File) -> Vec<Complaint> {
    let Some(source) = &file.source else {
        return Vec::new();
    };
    let what = |word: &str| format!("`{word}`: finish it or leave it out");
    let mut complaints = found(file, &source.comments, &["TODO", "FIXME", "XXX"], what);
    complaints.extend(found(
        file,
        &source.code,
        &["todo!", "unimplemented!"],
        what,
    ));
    complaints
}

/// A place of one machine is of no use on another, and where packages come from is the user's choice.
#[must_use]
pub fn places(file: &File) -> Vec<Complaint> {
    // Taken apart, so that this file does not hold them.
    let folders = [
        ["/wo", "rk/"].concat(),
        ["/ho", "me/"].concat(),
        ["/ro", "ot/"].concat(),
        ["/Us", "ers/"].concat(),
    ];
    let hosts = [
        ["static.", "crates.io"].concat(),
        ["index.", "crates.io"].concat(),
        ["registry.", "npmjs.org"].concat(),
        ["files.", "pythonhosted.org"].concat(),
        ["proxy.", "golang.org"].concat(),
    ];
    let mut complaints = Vec::new();
    for folder in &folders {
        let begins = |at: &usize| {
            let before = file.text[..*at].chars().next_back();
            before.is_none_or(|c| BEFORE_A_PATH.contains(c))
        };
        let places = file.text.match_indices(folder.as_str()).map(|(at, _)| at);
        complaints.extend(places.filter(begins).map(|at| {
            let what = format!("`{folder}…` is a place of one machine");
            complaint(file, line_of(&file.text, at), what)
        }));
    }
    for host in &hosts {
        complaints.extend(words(&file.text, host).map(|at| {
            let what = format!(
                "`{host}` is a registry's host; where packages come from is the user's choice"
            );
            complaint(file, line_of(&file.text, at), what)
        }));
    }
    complaints
}

fn shipped(file: &File, wanted: &[&str], what: impl Fn(&str) -> String) -> Vec<Complaint> {
    match &file.source {
        Some(source) => found(file, &source.shipped, wanted, what),
        None => Vec::new(),
    }
}

fn found(
    file: &File,
    text: &str,
    wanted: &[&str],
    what: impl Fn(&str) -> String,
) -> Vec<Complaint> {
    let mut complaints: Vec<Complaint> = Vec::new();
    for word in wanted {
        let places = words(text, word);
        complaints.extend(places.map(|at| complaint(file, line_of(text, at), what(word))));
    }
    complaints.sort_by_key(|complaint| complaint.line);
    complaints
}

fn complaint(file: &File, line: usize, what: impl Into<String>) -> Complaint {
    Complaint {
        path: file.path.clone(),
        line,
        what: what.into(),
    }
}
