//! Makes text from a record harmless: for the terminal, HTML, XML and Markdown.
//!
//! Refuses to pass on what a reader cannot see: control characters, terminal sequences, and marks that
//! reorder or hide the text around them.

/// Longest text that is passed on, in characters.
const LONGEST: usize = 4_000;

/// One line of visible text: terminal sequences and invisible marks dropped, white space made single.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut count = 0;
    while let Some(c) = chars.next() {
        if count >= LONGEST {
            out.push('…');
            break;
        }
        if c == '\u{1b}' || c == '\u{9b}' {
            skip_sequence(c, &mut chars);
        } else if c == '\u{a0}' || c == '\u{202f}' {
            out.push(c);
        } else if c.is_whitespace() {
            if !out.ends_with(' ') {
                out.push(' ');
            }
        } else if !c.is_control() && !is_hidden(c) {
            out.push(c);
        }
        count += 1;
    }
    out.trim_matches(' ').to_owned()
}

/// Drops the rest of a terminal sequence: `ESC [ … letter`, `ESC ] … BEL` or `ESC x`.
fn skip_sequence(start: char, chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    let kind = if start == '\u{9b}' {
        Some('[')
    } else {
        chars.next()
    };
    match kind {
        Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
        Some(']' | 'P' | 'X' | '^' | '_') => {
            while let Some(c) = chars.next() {
                if c == '\u{7}' || c == '\u{9c}' {
                    break;
                }
                if c == '\u{1b}' {
                    chars.next();
                    break;
                }
            }
        }
        _ => {}
    }
}

/// Marks that reorder, join or hide text, and characters that no font shows.
fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
        | '\u{e000}'..='\u{f8ff}' | '\u{fffe}' | '\u{ffff}')
}

/// For HTML and XML, in text and in quoted attributes alike.
pub fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// For Markdown, inside a table cell too: nothing becomes markup, a link or a mention.
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // An entity keeps trackers from turning these into mentions, references and links.
            '@' => out.push_str("&#64;\u{2060}"),
            '#' => out.push_str("&#35;\u{2060}"),
            ':' => out.push_str("&#58;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '|' | '~' | '$' | '!' => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    // Ordered lists, bullets and rules start a line.
    if out.starts_with(['-', '+', '='])
        || out.starts_with(|c: char| c.is_ascii_digit()) && starts_a_list(&out)
    {
        out.insert(0, '\u{2060}');
    }
    out
}

fn starts_a_list(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.starts_with(['.', ')'])
}

/// Columns that a text takes in a terminal.
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// Wide East Asian characters and pictographs take two columns, combining marks none.
pub fn char_width(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}'
        | '\u{1ab0}'..='\u{1aff}'
        | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{303e}'
        | '\u{3041}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}' => 2,
        '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}' => 2,
        '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_sequences_and_hidden_marks_are_dropped() {
        assert_eq!(clean("\u{1b}[31mred\u{1b}[0m"), "red");
        assert_eq!(clean("\u{1b}]0;title\u{7}a\u{9b}2Jb"), "ab");
        assert_eq!(clean("\u{1b}]8;;http://x\u{1b}\\link"), "link");
        assert_eq!(clean("a\u{202e}b\u{200b}c\0d\r\n\te"), "abcd e");
        assert_eq!(clean("5\u{a0}ms"), "5\u{a0}ms");
        assert_eq!(clean(&"x".repeat(9_000)).chars().count(), LONGEST + 1);
    }

    #[test]
    fn markup_stays_text_in_every_language() {
        let hostile = "</title><script>alert('1')</script>&\"";
        let escaped = xml(hostile);
        assert!(!escaped.contains(['<', '>', '"', '\'']), "{escaped}");
        let escaped = markdown("a|b *c* [d](http://e) <img> `f` @all #7");
        assert_eq!(
            escaped,
            "a\\|b \\*c\\* \\[d\\](http&#58;//e) &lt;img&gt; \\`f\\` &#64;\u{2060}all &#35;\u{2060}7"
        );
        assert_eq!(markdown("1. x"), "\u{2060}1. x");
    }

    #[test]
    fn wide_and_combining_characters_are_counted_as_a_terminal_shows_them() {
        assert_eq!(width("hall"), 4);
        assert_eq!(width("機房"), 4);
        assert_eq!(width("e\u{301}"), 1);
    }
}
