//! Draws lines at the end of a terminal's text, again and again in the same place. What was there before scrolls up as usual.

use std::fmt::Write as _;

use cok_host::styled::Line;

/// Begins and ends an update that terminals show at once. Those that do not know it ignore it.
const BEGIN: &str = "\u{1b}[?2026h";
const END: &str = "\u{1b}[?2026l";
/// Erases to the end of the line, and to the end of the screen (ECMA-48).
const ERASE_LINE: &str = "\u{1b}[K";
const ERASE_BELOW: &str = "\u{1b}[J";

/// What stands on the terminal. The cursor is on the line below it.
#[derive(Debug, Default)]
pub(super) struct Screen {
    /// The lines, and their widths in columns.
    drawn: Vec<(String, usize)>,
    width: usize,
}

impl Screen {
    /// The text that replaces the drawn lines by `above`, which stays, and by `lines`. Empty if nothing changes.
    pub(super) fn draw(&mut self, above: &[String], lines: &[Line], width: usize, colours: bool) -> String {
        // In the last column, terminals differ about where the cursor is.
        let lines: Vec<_> = lines.iter().map(|line| line.render(width.saturating_sub(1), colours)).collect();
        if above.is_empty() && self.drawn == lines && self.width == width {
            return String::new();
        }
        let mut out = String::from(BEGIN);
        // A terminal that has become narrower has wrapped its lines.
        let rows: usize = self.drawn.iter().map(|(_, used)| used.div_ceil(width.max(1)).max(1)).sum();
        out.push('\r');
        if rows > 0 {
            let _infallible = write!(out, "\u{1b}[{rows}A");
        }
        if !above.is_empty() {
            out.push_str(ERASE_BELOW);
        }
        let shown = above.iter().map(String::as_str).chain(lines.iter().map(|(text, _)| text.as_str()));
        for text in shown {
            for part in [text, ERASE_LINE, "\r\n"] {
                out.push_str(part);
            }
        }
        out.push_str(ERASE_BELOW);
        out.push_str(END);
        (self.drawn, self.width) = (lines, width);
        out
    }

    /// Leaves the drawn lines where they are. The next ones come below.
    pub(super) fn leave(&mut self) {
        self.drawn.clear();
        self.width = 0;
    }
}

#[cfg(test)]
mod tests {
    use cok_host::styled::Style;

    use super::*;

    fn line(text: &str) -> Line {
        Line::default().add(Style::Plain, text)
    }

    fn draw(screen: &mut Screen, above: &[&str], lines: &[&str], width: usize) -> String {
        let above: Vec<_> = above.iter().map(|&text| text.to_owned()).collect();
        let lines: Vec<_> = lines.iter().map(|text| line(text)).collect();
        let drawn = screen.draw(&above, &lines, width, false);
        drawn.replace(BEGIN, "").replace(END, "").replace('\u{1b}', "^")
    }

    #[test]
    fn lines_are_replaced_in_their_place() {
        let mut screen = Screen::default();
        assert_eq!(draw(&mut screen, &[], &["one", "two"], 80), "\rone^[K\r\ntwo^[K\r\n^[J");
        assert_eq!(draw(&mut screen, &[], &["one", "two"], 80), "");
        assert_eq!(draw(&mut screen, &[], &["1"], 80), "\r^[2A1^[K\r\n^[J");
        assert_eq!(draw(&mut screen, &["log"], &["1"], 80), "\r^[1A^[Jlog^[K\r\n1^[K\r\n^[J");
        screen.leave();
        assert_eq!(draw(&mut screen, &[], &["1"], 80), "\r1^[K\r\n^[J");
    }

    #[test]
    fn a_narrower_terminal_has_wrapped_them() {
        let mut screen = Screen::default();
        draw(&mut screen, &[], &["123456789", "", "123"], 20);
        assert_eq!(draw(&mut screen, &[], &["12345", "", "1"], 4), "\r^[5A12…^[K\r\n^[K\r\n1^[K\r\n^[J");
    }
}
