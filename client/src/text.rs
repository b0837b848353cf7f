//! Text for messages: errors with their causes, and the words of peers, cut and escaped to stay on one line.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::Write as _;
use std::io;

pub(crate) use cok_host::harmless::harmless;
#[cfg(feature = "inspect")]
pub(crate) use cok_host::harmless::is_invisible;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// The most characters that are shown of a peer's words.
const LONGEST: usize = 200;

/// What a visitor's path has encoded when it is shown. All that is not ASCII is encoded as well: some of it are spaces and marks
/// that make one line look like another.
const IN_PATHS: &AsciiSet = &CONTROLS.add(b' ');

/// The words of a peer or a visitor, on one line and not too long.
pub(crate) fn quoted(text: &str) -> String {
    let is_long = text.chars().nth(LONGEST).is_some();
    let mut shown = harmless(text.chars().take(LONGEST));
    if is_long {
        shown.push('…');
    }
    shown
}

/// A visitor's path, as it may stand in a line.
pub(crate) fn path_text(path: &str) -> Cow<'_, str> {
    utf8_percent_encode(path, IN_PATHS).into()
}

/// An error with its causes, in one line.
pub(crate) fn explain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Some errors repeat their cause.
        let said = cause.to_string();
        if !text.ends_with(&said) {
            let _infallible = write!(text, ": {said}");
        }
        source = cause.source();
    }
    text
}

/// The reason for a system's error, without the error number.
pub(crate) fn io_reason(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    let Some(number) = error.raw_os_error() else { return explain(error) };
    if let kind @ (Kind::ConnectionRefused
    | Kind::ConnectionReset
    | Kind::HostUnreachable
    | Kind::NetworkUnreachable
    | Kind::PermissionDenied
    | Kind::TimedOut) = error.kind()
    {
        return kind.to_string();
    }
    let text = error.to_string();
    text.strip_suffix(&format!(" (os error {number})")).unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_stays_on_one_line_and_short() {
        assert_eq!(quoted("a\nb\u{1b}[2J é"), "a\\nb\\u{1b}[2J é");
        assert_eq!(quoted(&"é".repeat(LONGEST + 1)), "é".repeat(LONGEST) + "…");
        assert_eq!(quoted(&"é".repeat(LONGEST)), "é".repeat(LONGEST));
        assert_eq!(quoted("a\u{2028}b\u{202e}c"), "a\\u{2028}b\\u{202e}c");
    }

    #[test]
    fn a_path_has_no_odd_characters() {
        assert_eq!(path_text("/a?b=%20&c"), "/a?b=%20&c");
        let odd = "/é\u{2003}\u{a0}\u{2028}\u{202e} \n";
        assert_eq!(path_text(odd), "/%C3%A9%E2%80%83%C2%A0%E2%80%A8%E2%80%AE%20%0A");
    }

    #[test]
    fn the_system_says_why_in_words() {
        assert_eq!(io_reason(&io::Error::from_raw_os_error(111)), "connection refused");
        assert_eq!(io_reason(&io::Error::from_raw_os_error(2)), "No such file or directory");
        assert_eq!(io_reason(&io::Error::other(io::Error::other("why"))), "why");
    }
}
