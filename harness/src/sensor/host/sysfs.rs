//! The kernel's small text files, read with bounds.
//!
//! Decides: how much of a file is read and which text is a number or a label. Refuses: files that
//! are longer than any attribute, numbers that are not finite, and control characters in labels:
//! what stands in these files may come from a device, and ends in a record and on a terminal.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// An attribute is one page at most.
const ATTRIBUTE_BYTES_MAX: u64 = 4096;
/// A table such as `/proc/cpuinfo` of a machine with thousands of cores.
const TABLE_BYTES_MAX: u64 = 16 << 20;
/// Directories with more entries are not sysfs.
const ENTRIES_MAX: usize = 16_384;
const LABEL_CHARS_MAX: usize = 32;

/// Reads a one-line attribute.
///
/// # Errors
/// As the kernel gives them, or `InvalidData` for one that is too long or no UTF-8.
pub fn attribute(path: &Path) -> io::Result<String> {
    bounded(path, ATTRIBUTE_BYTES_MAX).map(|text| text.trim().to_owned())
}

/// Reads a table of many lines.
///
/// # Errors
/// As [`attribute`].
pub fn table(path: &Path) -> io::Result<String> {
    bounded(path, TABLE_BYTES_MAX)
}

fn bounded(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(bytes_max + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        let why = format!("longer than {bytes_max} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(text)
}

/// Reads an attribute that is one finite number.
///
/// # Errors
/// As [`attribute`], or `InvalidData` where it is no number.
pub fn number(path: &Path) -> io::Result<f64> {
    let text = attribute(path)?;
    parse(&text).ok_or_else(|| {
        let why = format!("`{}` is no number", label(&text));
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

/// Reads an attribute that is a count, exactly.
///
/// # Errors
/// As [`number`].
pub fn count(path: &Path) -> io::Result<u64> {
    let text = attribute(path)?;
    text.parse().map_err(|_| {
        let why = format!("`{}` is no count", label(&text));
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

/// A finite number, or nothing.
pub fn parse(text: &str) -> Option<f64> {
    let number: f64 = text.trim().parse().ok()?;
    number.is_finite().then_some(number)
}

/// Text that is safe to print and to name a series by: printable ASCII, cut to a sane length.
pub fn label(text: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_graphic() || c == ' ' {
            c
        } else {
            '?'
        }
    };
    text.trim()
        .chars()
        .take(LABEL_CHARS_MAX)
        .map(plain)
        .collect()
}

/// `text` as part of a sensor's name: letters, digits and `-`.
pub fn name_part(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    text.trim()
        .chars()
        .take(LABEL_CHARS_MAX)
        .map(plain)
        .collect()
}

/// The entries of a directory that begin with `prefix`, by name, numbers in order of size.
///
/// # Errors
/// The directory cannot be read.
pub fn entries(folder: &Path, prefix: &str) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found: Vec<_> = std::fs::read_dir(folder)?
        .take(ENTRIES_MAX)
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(name, _)| name.starts_with(prefix))
        .collect();
    found.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_holds_cannot_reach_the_terminal_or_exhaust_memory() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("name");
        std::fs::write(&path, "a".repeat(5000)).unwrap();
        assert_eq!(
            attribute(&path).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(
            attribute(&path).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(label("\u{1b}[31mred\n"), "?[31mred");
        assert_eq!(label(&"x".repeat(99)).len(), LABEL_CHARS_MAX);
        assert_eq!(name_part("../etc:0"), "---etc-0");
    }

    #[test]
    fn only_finite_numbers_are_numbers() {
        for text in ["", "nan", "inf", "-inf", "1e999", "0x10", "1 2", "1,5"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
        assert_eq!(parse(" -42\n"), Some(-42.0));
    }

    #[test]
    fn entries_come_in_the_order_of_their_numbers() {
        let folder = tempfile::TempDir::new().unwrap();
        for name in ["cpu10", "cpu9", "cpu0", "other"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let found = entries(folder.path(), "cpu").unwrap();
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["cpu0", "cpu9", "cpu10"]);
    }
}
