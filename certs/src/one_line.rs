//! Makes a peer's text fit for one line of a log.

/// The most characters of a text; enough to understand a reason.
const LONGEST: usize = 500;

/// Escapes control characters in a reason that may come from a peer, and cuts a long one.
pub fn one_line(text: &str) -> String {
    let mut line = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == LONGEST {
            line.push('…');
            break;
        }
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stays_short_and_on_its_line() {
        assert_eq!(one_line("lost: \"x\"\n\u{1b}[2J"), r#"lost: "x"\n\u{1b}[2J"#);
        assert_eq!(one_line(&"é".repeat(1000)), format!("{}…", "é".repeat(LONGEST)));
        assert_eq!(one_line(&"x".repeat(LONGEST)), "x".repeat(LONGEST));
    }
}
