//! How the screen is drawn: few colours, text cut and aligned by what the terminal shows.
//!
//! Colour only repeats what a shape or a word says: orange is a fault, ochre is not known, blue is the
//! course of the run, grey is what need not be read.

use hallmark_results::verdict::Outcome;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

pub const PLAIN: Style = Style::new();
pub const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
/// Readable on dark and on light ground.
pub const QUIET: Style = Style::new().fg(Color::Indexed(245));
pub const BAD: Style = Style::new().fg(Color::Indexed(208));
pub const UNSURE: Style = Style::new().fg(Color::Indexed(178));
pub const COURSE: Style = Style::new().fg(Color::Indexed(75));

/// Columns that the text takes on a terminal.
pub fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// At most `columns` wide, with “…” where something was cut.
pub fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut used = 1;
    let mut buffer = [0; 4];
    for c in text.chars() {
        used += width(c.encode_utf8(&mut buffer));
        if used > columns {
            break;
        }
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// Exactly `columns` wide, text at the left.
pub fn left(text: &str, columns: usize) -> String {
    let text = cut(text, columns);
    let fill = columns.saturating_sub(width(&text));
    text + &" ".repeat(fill)
}

/// Exactly `columns` wide, text at the right.
pub fn right(text: &str, columns: usize) -> String {
    let text = cut(text, columns);
    " ".repeat(columns.saturating_sub(width(&text))) + &text
}

/// A line of styled pieces, at most `columns` wide.
pub fn line(spans: Vec<Span<'static>>, columns: usize) -> Line<'static> {
    let mut room = columns;
    let mut out = Vec::new();
    for span in spans {
        let wide = span.width();
        if wide <= room {
            room -= wide;
            out.push(span);
            continue;
        }
        out.push(Span::styled(cut(&span.content, room), span.style));
        break;
    }
    Line::from(out)
}

/// Two groups at both ends of the line; the right one goes where there is no room for it.
pub fn ends(start: Vec<Span<'static>>, end: Vec<Span<'static>>, columns: usize) -> Line<'static> {
    let wide = |spans: &[Span<'_>]| spans.iter().map(Span::width).sum::<usize>();
    let (a, b) = (wide(&start), wide(&end));
    // The start may lose its tail to an end that says something of its own, but not most of itself.
    let room = columns.saturating_sub(b + 2);
    if b == 0 || b > columns || (a > room && room < columns / 2) {
        return line(start, columns);
    }
    let mut out = line(start, room);
    let fill = columns.saturating_sub(out.width() + b);
    out.spans.push(Span::raw(" ".repeat(fill)));
    out.spans.extend(end);
    out
}

/// Lines of at most `columns`, broken at spaces; a longer word is cut.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines
            .last_mut()
            .filter(|l| width(l) + 1 + width(word) <= columns)
        {
            Some(last) => {
                last.push(' ');
                last.push_str(word);
            }
            None => lines.push(cut(word, columns)),
        }
    }
    lines
}

/// Shape and style of an outcome.
pub const fn outcome(outcome: Outcome) -> (&'static str, Style) {
    match outcome {
        Outcome::Passed => ("✓", QUIET),
        Outcome::Inconclusive => ("◇", UNSURE),
        Outcome::Failed => ("✕", BAD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_and_aligned_by_what_the_terminal_shows() {
        assert_eq!(cut("rack 7 tray 3", 6), "rack …");
        assert_eq!(cut("機房", 3), "機…");
        assert_eq!(cut("機房", 0), "");
        assert_eq!(left("ab", 4), "ab  ");
        assert_eq!(right("ab", 4), "  ab");
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
    }

    #[test]
    fn the_right_end_gives_way_before_the_left_one_is_lost() {
        let both = |columns| {
            let line = ends(
                vec![Span::raw("verdict")],
                vec![Span::raw("load goes on")],
                columns,
            );
            line.spans
                .iter()
                .map(|s| s.content.to_string())
                .collect::<String>()
        };
        assert_eq!(both(24), "verdict     load goes on");
        assert_eq!(both(16), "verdict");
        assert_eq!(both(3), "ve…");
        assert_eq!(both(0), "");
    }
}
