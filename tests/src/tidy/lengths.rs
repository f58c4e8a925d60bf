//! How long a file and a function may be.

use super::source::{closing, line_of, words};
use super::{Complaint, File};

/// Most lines of a file.
pub const FILE_LINES_MAX: usize = 600;
/// Most lines of a function, its signature included.
pub const FUNCTION_LINES_MAX: usize = 80;

/// Sources that people write; generated text and documents may be longer.
const WRITTEN: [&str; 5] = [".rs", ".wgsl", ".cu", ".sh", "/run"];

#[must_use]
pub fn file_length(file: &File) -> Vec<Complaint> {
    let lines = file.text.lines().count();
    if lines <= FILE_LINES_MAX || !WRITTEN.iter().any(|ending| file.path.ends_with(ending)) {
        return Vec::new();
    }
    let what =
        format!("{lines} lines; a file has at most {FILE_LINES_MAX}: split it by what it decides");
    vec![complaint(file, 1, what)]
}

#[must_use]
pub fn function_lengths(file: &File) -> Vec<Complaint> {
    let Some(source) = &file.source else {
        return Vec::new();
    };
    let code = &source.code;
    let long = words(code, "fn").filter_map(|at| {
        let (name, end) = function(code, at)?;
        let (first, last) = (line_of(code, at), line_of(code, end - 1));
        let lines = last - first + 1;
        (lines > FUNCTION_LINES_MAX).then(|| {
            let what =
                format!("`{name}` has {lines} lines; a function has at most {FUNCTION_LINES_MAX}");
            complaint(file, first, what)
        })
    });
    long.collect()
}

/// Name and end of the function whose `fn` is at `at`; `None` for a type or a declaration without
/// a body.
fn function(code: &str, at: usize) -> Option<(&str, usize)> {
    let rest = code.get(at + 2..)?.trim_start();
    let named = |c: char| c.is_alphanumeric() || c == '_' || c == '#';
    let length = rest.find(|c| !named(c)).unwrap_or(rest.len());
    let name = rest.get(..length).filter(|name| !name.is_empty())?;
    let begin = code.len() - rest.len() + length;
    let mut depth = 0_i32;
    for (offset, byte) in code.get(begin..)?.bytes().enumerate() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b';' if depth == 0 => return None,
            b'{' if depth == 0 => return Some((name, closing(code, begin + offset)?)),
            _ => {}
        }
    }
    None
}

fn complaint(file: &File, line: usize, what: String) -> Complaint {
    Complaint {
        path: file.path.clone(),
        line,
        what,
    }
}
