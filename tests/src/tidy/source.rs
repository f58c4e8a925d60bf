//! Takes Rust text apart: code, comments, literals, and what is compiled for tests only.
//!
//! Every part keeps the text's length and lines, with blanks for all else, so that a place found in
//! one is the same place in the file. It knows the lexical grammar and no more.

/// Rust text with its parts set apart; all of one length in bytes.
#[derive(Clone, Debug)]
pub struct Source {
    /// Neither comments nor the contents of literals.
    pub code: String,
    /// Comments only, documentation included.
    pub comments: String,
    /// As `code`, without items under `#[cfg(test)]`.
    pub shipped: String,
}

impl Source {
    #[must_use]
    pub fn new(text: &str) -> Self {
        let (code, comments) = split(text.as_bytes());
        let code = String::from_utf8_lossy(&code).into_owned();
        let comments = String::from_utf8_lossy(&comments).into_owned();
        let shipped = without_tests(&code);
        Self {
            code,
            comments,
            shipped,
        }
    }
}

/// Line of a byte, from 1.
#[must_use]
pub fn line_of(text: &str, at: usize) -> usize {
    let head = text.as_bytes().get(..at).unwrap_or_default();
    1 + head.iter().filter(|b| **b == b'\n').count()
}

/// Places where `word` stands and is no part of a longer name.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = text.as_bytes();
    let named = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let (first, last) = (word.bytes().next(), word.bytes().last());
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| {
            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
            let after = bytes.get(at + word.len());
            !(edge(first) && named(before) || edge(last) && named(after))
        })
}

/// The byte after the brace that closes the one at `open`.
#[must_use]
pub fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Modules in files of their own that are compiled for tests only: `#[cfg(test)] mod name;`.
#[must_use]
pub fn test_modules(code: &str) -> Vec<String> {
    let declared = test_items(code).filter_map(|(_, item)| {
        let item = code.get(item)?.trim();
        // Whatever its visibility.
        let at = words(item, "mod").next()?;
        let name = item.get(at + 3..)?.strip_suffix(';')?;
        Some(name.trim().to_owned())
    });
    declared.collect()
}

fn without_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    for (attribute, item) in test_items(code) {
        blank(&mut bytes, attribute.start..item.end);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

type Span = std::ops::Range<usize>;

/// Items under a `cfg` that names `test`: the attribute, and the item after it with its other
/// attributes.
fn test_items(code: &str) -> impl Iterator<Item = (Span, Span)> + '_ {
    code.match_indices("#[cfg(").filter_map(move |(start, _)| {
        let end = start + code[start..].find(']')? + 1;
        let condition = &code[start..end];
        if words(condition, "test").next().is_none() || condition.contains("not(test") {
            return None;
        }
        let mut begin = end;
        // Other attributes stand between it and its item.
        while let Some(next) = code[begin..].trim_start().strip_prefix("#[") {
            begin = code.len() - next.len() + next.find(']')? + 1;
        }
        Some((start..end, begin..item_end(code, begin)?))
    })
}

/// Ends at `;`, or with the block that comes first.
fn item_end(code: &str, begin: usize) -> Option<usize> {
    let rest = &code[begin..];
    let brace = rest.find('{').unwrap_or(rest.len());
    match rest[..brace].find(';') {
        Some(semicolon) => Some(begin + semicolon + 1),
        None => closing(code, begin + brace),
    }
}

fn blank(bytes: &mut [u8], span: Span) {
    for byte in bytes.get_mut(span).unwrap_or_default() {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

/// Code and comments, each with blanks for the other; literals are in neither.
fn split(text: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut code = text.to_vec();
    let mut comments = text.to_vec();
    blank(&mut comments, 0..text.len());
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let in_name = at > 0 && (text[at - 1].is_ascii_alphanumeric() || text[at - 1] == b'_');
        if rest.starts_with(b"//") || rest.starts_with(b"/*") {
            let end = at + comment(rest);
            comments[at..end].copy_from_slice(&text[at..end]);
            blank(&mut code, at..end);
            at = end;
        } else if let Some(length) = literal(rest, in_name) {
            blank(&mut code, at..at + length);
            at += length;
        } else {
            at += 1;
        }
    }
    (code, comments)
}

/// Bytes of the comment that `text` begins with; block comments nest.
fn comment(text: &[u8]) -> usize {
    if text.starts_with(b"//") {
        return text.iter().position(|b| *b == b'\n').unwrap_or(text.len());
    }
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        if text[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Bytes of the string or character that `text` begins with, prefix included.
fn literal(text: &[u8], in_name: bool) -> Option<usize> {
    let prefix = text.iter().take_while(|b| b"brc".contains(b)).count();
    let prefix = if in_name { 0 } else { prefix.min(2) };
    let raw = text[..prefix].contains(&b'r');
    let rest = &text[prefix..];
    let hashes = rest.iter().take_while(|b| **b == b'#').count();
    match rest.get(hashes)? {
        b'"' if raw => {
            let mut end = vec![b'"'];
            end.resize(hashes + 1, b'#');
            let body = &rest[hashes + 1..];
            let length = body.windows(end.len()).position(|w| w == end);
            Some(length.map_or(text.len(), |l| prefix + hashes + 1 + l + end.len()))
        }
        b'"' if hashes == 0 => Some(prefix + quoted(rest, b'"')),
        b'\'' if hashes == 0 && !raw => character(rest).map(|length| prefix + length),
        _ => None,
    }
}

/// Bytes from a quote to its partner; a backslash takes the next byte along.
fn quoted(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 2,
            byte if *byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// A character; `None` for a lifetime.
fn character(text: &[u8]) -> Option<usize> {
    if text.get(1) == Some(&b'\\') {
        return Some(quoted(text, b'\''));
    }
    // One character of one to four bytes, then the quote.
    let length = match text.get(1)? {
        0..=0x7f => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (text.get(1 + length) == Some(&b'\'')).then_some(length + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_no_code() {
        let text = r####"let a = "panic!(\" // no"; // panic!(1)
/* { /* nested */ panic!() */ let b = r#"panic!(" {"#; let c = '"'; let d = b'\''; let e: &'static str = "é";
let f = br"panic!()"; let g = '}'; let h = 'é'; let r#type = 1; bar"x""####;
        let source = Source::new(text);
        assert_eq!(source.code.len(), text.len());
        assert_eq!(source.code.lines().count(), text.lines().count());
        for hidden in ["panic", "{", "}", "\"", "nested", "é"] {
            assert!(!source.code.contains(hidden), "{hidden}: {}", source.code);
        }
        for kept in ["let a =", "let b =", "&'static str", "r#type", "bar"] {
            assert!(source.code.contains(kept), "{kept}: {}", source.code);
        }
        assert!(source.comments.contains("// panic!(1)"));
        assert!(source.comments.contains("/* { /* nested */ panic!() */"));
        assert!(!source.comments.contains("let"));
    }

    #[test]
    fn unfinished_literals_end_with_the_text() {
        for text in [
            "\"abc",
            "r#\"abc\"",
            "/* a",
            "'\\",
            "b\"\\",
            "//",
            "'",
            "r",
            "#[cfg(test",
            "#[cfg(test)]",
        ] {
            assert_eq!(Source::new(text).code.len(), text.len(), "{text}");
        }
    }

    #[test]
    fn what_is_for_tests_only_is_not_shipped() {
        let text = "fn a() {}\n#[cfg(test)]\n#[cfg(unix)]\nmod tests {\n fn b() {}\n}\nfn c() {}\n\
                    #[cfg(all(test, unix))]\nuse d::e;\nfn f() {}\n#[cfg(not(test))]\nfn g() {}\n\
                    #[cfg(test)]\nmod probe;\n#[cfg(test)]\npub(crate) mod sample;\n";
        let source = Source::new(text);
        for (name, shipped) in [
            ("a()", true),
            ("b()", false),
            ("c()", true),
            ("d::e", false),
            ("f()", true),
            ("g()", true),
        ] {
            assert_eq!(
                source.shipped.contains(name),
                shipped,
                "{name}: {}",
                source.shipped
            );
        }
        assert_eq!(test_modules(&source.code), ["probe", "sample"]);
    }

    #[test]
    fn a_word_is_not_found_inside_a_name() {
        assert_eq!(
            words("panic!( my_panic!( std::panic!(", "panic!(").count(),
            2
        );
        assert_eq!(
            words("Instant::now Instant::nowhere", "Instant::now").count(),
            1
        );
        assert_eq!(line_of("a\nb\n", 2), 2);
    }
}
