//! Lines for a terminal: styled text that fits its width. What peers say cannot control the terminal.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar as _;

use crate::harmless::harmless;

/// How a piece of text looks. Without colours, all look alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// As the terminal has it.
    #[default]
    Plain,
    /// Headings, and what matters most.
    Bold,
    /// What matters least.
    Dim,
    /// What is as it should be.
    Good,
    /// What may need a look.
    Notice,
    /// What is wrong.
    Bad,
    /// An address.
    Link,
    /// The line that is chosen.
    Chosen,
}

impl Style {
    /// The parameters of "select graphic rendition" (ECMA-48).
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Notice => "33",
            Self::Bad => "31",
            Self::Link => "36",
            Self::Chosen => "7",
        }
    }
}

/// One line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Style, String)>);

impl Line {
    /// Adds text. Characters that could control the terminal are escaped.
    #[must_use]
    pub fn add(mut self, style: Style, text: impl AsRef<str>) -> Self {
        self.0.push((style, harmless(text.as_ref().chars())));
        self
    }

    /// Adds text that fills a column of this width, and a space.
    #[must_use]
    pub fn column(self, style: Style, text: impl AsRef<str>, width: usize) -> Self {
        let text = harmless(text.as_ref().chars());
        let (cut, used) = cut(&text, width);
        let padding = " ".repeat(width - used + 1);
        self.add(style, format!("{cut}{padding}"))
    }

    /// The same, with the text at the right end of its column.
    #[must_use]
    pub fn right(self, style: Style, text: impl AsRef<str>, width: usize) -> Self {
        let text = harmless(text.as_ref().chars());
        let (cut, used) = cut(&text, width);
        let padding = " ".repeat(width - used);
        self.add(style, format!("{padding}{cut} "))
    }

    /// Adds another line's text.
    #[must_use]
    pub fn then(mut self, rest: Self) -> Self {
        self.0.extend(rest.0);
        self
    }

    /// The width in columns.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| columns(text)).sum()
    }

    /// The line with at most this many columns, and its width.
    pub fn render(&self, most: usize, colours: bool) -> (String, usize) {
        let (mut out, mut used) = (String::new(), 0);
        let is_long = self.width() > most;
        let room = if is_long { most.saturating_sub(1) } else { most };
        for (style, text) in &self.0 {
            let (part, width) = cut(text, room - used);
            used += width;
            if part.is_empty() {
                continue;
            }
            if colours && *style != Style::Plain {
                let _infallible = write!(out, "\u{1b}[{}m{part}\u{1b}[0m", style.code());
            } else {
                out.push_str(part);
            }
        }
        if is_long && most > 0 {
            out.push('…');
            used += 1;
        }
        (out, used)
    }
}

/// The text's beginning with at most this many columns, and its width.
fn cut(text: &str, most: usize) -> (&str, usize) {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        let width = c.width().unwrap_or(0);
        if used + width > most {
            return (text.get(..at).unwrap_or_default(), used);
        }
        used += width;
    }
    (text, used)
}

fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_and_controls_nothing() {
        let line = Line::default().column(Style::Bold, "ab", 4).add(Style::Link, "c\u{1b}[2J\u{202e}d");
        assert_eq!(line.render(80, false), ("ab   c\\u{1b}[2J\\u{202e}d".to_owned(), 24));
        assert_eq!(line.render(6, false), ("ab   …".to_owned(), 6));
        assert_eq!(line.render(6, true), ("\u{1b}[1mab   \u{1b}[0m…".to_owned(), 6));
        assert_eq!(line.render(0, true), (String::new(), 0));
        assert_eq!(Line::default().right(Style::Plain, "12", 4).render(80, false), ("  12 ".to_owned(), 5));
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let line = Line::default().add(Style::Plain, "日本語");
        assert_eq!(line.render(6, false), ("日本語".to_owned(), 6));
        // The second one would end behind the fourth column.
        assert_eq!(line.render(4, false), ("日…".to_owned(), 3));
        assert_eq!(Line::default().column(Style::Plain, "日本語", 5).render(80, false), ("日本  ".to_owned(), 6));
    }
}
