//! Host names of a rack: one name, or a numbered row of them as schedulers write it, e.g. `n[01-16]`.
//!
//! It refuses a row that is empty, runs backwards or has more names than a hall has nodes.

use super::NODES_MAX;

/// Longest host name within a domain name (RFC 1123), with its domain.
const HOST_MAX: usize = 253;

/// The names that a text stands for.
///
/// # Errors
/// One sentence that names the text.
pub fn expand(text: &str) -> Result<Vec<String>, String> {
    let wrong = |why: &str| Err(format!("nodes `{text}`: {why}"));
    let Some((before, rest)) = text.split_once('[') else {
        return match is_host(text) {
            true => Ok(vec![text.to_owned()]),
            false => wrong("a host name is 1 to 253 letters, digits, `-`, `_` and `.`"),
        };
    };
    let Some((range, after)) = rest.split_once(']') else {
        return wrong("a `[` without `]`");
    };
    let Some((low, high)) = range.split_once('-') else {
        return wrong("write a row as [first-last], e.g. n[01-16]");
    };
    let number = |digits: &str| {
        let plain = (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse::<usize>().ok()).flatten()
    };
    let (Some(first), Some(last)) = (number(low), number(high)) else {
        return wrong("first and last of a row are numbers");
    };
    if last < first {
        return wrong("the row runs backwards");
    }
    if last - first >= NODES_MAX {
        return wrong("more names than a hall has nodes");
    }
    let width = low.len();
    let names: Vec<String> = (first..=last)
        .map(|n| format!("{before}{n:0width$}{after}"))
        .collect();
    match names.iter().all(|n| is_host(n)) {
        true => Ok(names),
        false => wrong("a host name is 1 to 253 letters, digits, `-`, `_` and `.`"),
    }
}

/// Names as rows, in their order: neighbours that count up become one, e.g. n01, n02 are `n[01-02]`.
#[must_use]
pub fn rows(names: &[&str]) -> Vec<String> {
    /// Digits that a row's number may have.
    const DIGITS: usize = 9;
    let numbered = |name: &str| {
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (head, tail) = name.split_at(name.len() - digits.min(DIGITS));
        let number = tail.parse::<u32>().ok()?;
        Some((head.to_owned(), tail.len(), number))
    };
    let mut rows = Vec::new();
    let mut from = 0;
    while from < names.len() {
        let first = numbered(names[from]);
        let follows = |(i, name): (usize, &&str)| match (&first, numbered(name)) {
            (Some((head, width, number)), Some(other)) => {
                other == (head.clone(), *width, number + i as u32)
            }
            _ => i == 0,
        };
        let rest = names[from..].iter().enumerate();
        let count = rest.take_while(|pair| follows(*pair)).count().max(1);
        rows.push(match first.filter(|_| count > 1) {
            Some((head, width, number)) => {
                let last = number + count as u32 - 1;
                format!("{head}[{number:0width$}-{last:0width$}]")
            }
            None => names[from].to_owned(),
        });
        from += count;
    }
    rows
}

fn is_host(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    // A name that begins like an option would be one to the program it is handed to.
    let begins = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    begins && name.len() <= HOST_MAX && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_its_leading_zeros_and_its_domain() {
        let row = expand("n[08-11].hall").unwrap();
        assert_eq!(row, ["n08.hall", "n09.hall", "n10.hall", "n11.hall"]);
        assert_eq!(expand("gpu-a").unwrap(), ["gpu-a"]);
    }

    #[test]
    fn names_become_rows_that_stand_for_the_same_names() {
        let names = ["n08", "n09", "n10", "n12", "gpu-a", "n13", "n1", "n2", "7"];
        let made = rows(&names);
        assert_eq!(made, ["n[08-10]", "n12", "gpu-a", "n13", "n[1-2]", "7"]);
        let back: Vec<String> = made.iter().flat_map(|r| expand(r).unwrap()).collect();
        assert_eq!(back, names);
        assert_eq!(rows(&["n9", "n10"]), ["n9", "n10"]);
    }

    #[test]
    fn what_is_no_row_says_why() {
        for (text, why) in [
            ("n[3-1]", "backwards"),
            ("n[1-99999999]", "more names"),
            ("n[1,2]", "[first-last]"),
            ("n[1-", "without"),
            ("n[a-b]", "numbers"),
            ("", "host name"),
            ("-oProxyCommand=x", "host name"),
            ("a b", "host name"),
            ("n[1-2][3-4]", "host name"),
        ] {
            let error = expand(text).unwrap_err();
            assert!(error.contains(why) && error.contains(text), "{error}");
        }
    }
}
