//! Text of others that is harmless to a terminal.

/// Escapes characters that control a terminal, that end a line, or that change the direction or the order of text.
pub fn harmless(text: impl IntoIterator<Item = char>) -> String {
    let mut shown = String::new();
    for c in text {
        if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Format characters of Unicode, and separators of lines.
pub fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
