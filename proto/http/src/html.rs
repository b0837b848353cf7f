//! Text in pages.

/// Text of others as HTML shows it, in an element or in a quoted attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Browsers drop it, or show it as a mistake of the page.
            '\0' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_text_is_markup() {
        assert_eq!(
            escape("<a href=\"x\" b='&amp;'>\0é"),
            "&lt;a href=&quot;x&quot; b=&#39;&amp;amp;&#39;&gt;\u{fffd}é"
        );
    }
}
