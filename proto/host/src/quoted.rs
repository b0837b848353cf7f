//! Quotes text from peers and files for one line of a log or message.

/// The most characters that are shown; enough to recognise a value.
const MOST_QUOTED: usize = 60;

/// Puts a value in quotes. Escapes control characters, and cuts a long value.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(MOST_QUOTED) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_short_and_on_its_line() {
        assert_eq!(quoted("a\n\"b\u{1b}"), r#""a\n\"b\u{1b}""#);
        assert_eq!(quoted(&"é".repeat(1000)), format!("\"{}\"…", "é".repeat(MOST_QUOTED)));
    }
}
