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
