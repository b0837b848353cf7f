//! Turns bytes into text by their charset. It knows the charsets that HTTP bodies have in practice.

use std::borrow::Cow;

/// What windows-1252 has in place of C1 controls. The web reads ISO 8859-1 and ASCII as windows-1252 too.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// A charset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Charset {
    /// UTF-8, also in place of charsets that are not known here.
    Utf8,
    /// windows-1252, ISO 8859-1 and ASCII.
    Latin1,
    /// UTF-16, the low byte first.
    Utf16Le,
    /// UTF-16, the high byte first.
    Utf16Be,
}

impl Charset {
    /// The charset with this name, in upper or lower case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name.trim().to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" => Some(Self::Utf8),
            "iso-8859-1" | "iso8859-1" | "latin1" | "windows-1252" | "cp1252" | "us-ascii" | "ascii" => {
                Some(Self::Latin1)
            }
            "utf-16" | "utf-16le" => Some(Self::Utf16Le),
            "utf-16be" => Some(Self::Utf16Be),
            _ => None,
        }
    }

    /// The name, as in `Content-Type`.
    #[cfg(test)]
    fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Latin1 => "windows-1252",
            Self::Utf16Le => "utf-16le",
            Self::Utf16Be => "utf-16be",
        }
    }

    /// The charset that a byte order mark tells, and the mark's length.
    pub(crate) fn of_mark(bytes: &[u8]) -> Option<(Self, usize)> {
        match bytes {
            [0xef, 0xbb, 0xbf, ..] => Some((Self::Utf8, 3)),
            [0xff, 0xfe, ..] => Some((Self::Utf16Le, 2)),
            [0xfe, 0xff, ..] => Some((Self::Utf16Be, 2)),
            _ => None,
        }
    }

    /// The text of these bytes. What is not valid becomes U+FFFD.
    pub(crate) fn decode(self, bytes: &[u8]) -> Cow<'_, str> {
        let utf16 = |unit: fn([u8; 2]) -> u16| {
            let (pairs, rest) = bytes.as_chunks();
            let units = pairs.iter().map(|pair| unit(*pair));
            let text = char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER));
            text.chain(rest.iter().map(|_| char::REPLACEMENT_CHARACTER)).collect::<String>()
        };
        match self {
            Self::Utf8 => String::from_utf8_lossy(bytes),
            Self::Latin1 => bytes.iter().map(|byte| latin1(*byte)).collect::<String>().into(),
            Self::Utf16Le => utf16(u16::from_le_bytes).into(),
            Self::Utf16Be => utf16(u16::from_be_bytes).into(),
        }
    }
}

/// The character of a byte of windows-1252.
fn latin1(byte: u8) -> char {
    match byte {
        0x80..=0x9f => WINDOWS_1252[usize::from(byte - 0x80)],
        byte => byte.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_text() {
        assert_eq!(Charset::Utf8.decode("naïve".as_bytes()), "naïve");
        assert_eq!(Charset::Utf8.decode(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(Charset::Latin1.decode(b"na\xefve \x80\x9f\xff\x81"), "naïve €Ÿÿ\u{81}");
        assert_eq!(Charset::Utf16Le.decode(b"a\0\x3d\xd8\x00\xde"), "a😀");
        assert_eq!(Charset::Utf16Be.decode(b"\0a\xd8\x3d\xde\x00"), "a😀");
        assert_eq!(Charset::Utf16Be.decode(b"\xd8\x3d\0a\0"), "\u{fffd}a\u{fffd}");
    }

    #[test]
    fn names_and_marks_tell_the_charset() {
        assert_eq!(Charset::named(" UTF-8"), Some(Charset::Utf8));
        assert_eq!(Charset::named("ISO-8859-1"), Some(Charset::Latin1));
        assert_eq!(Charset::named("utf-16BE"), Some(Charset::Utf16Be));
        assert_eq!(Charset::named("shift_jis"), None);
        for charset in [Charset::Utf8, Charset::Latin1, Charset::Utf16Le, Charset::Utf16Be] {
            assert_eq!(Charset::named(charset.name()), Some(charset));
        }
        assert_eq!(Charset::of_mark(b"\xff\xfea\0"), Some((Charset::Utf16Le, 2)));
        assert_eq!(Charset::of_mark("\u{feff}a".as_bytes()), Some((Charset::Utf8, 3)));
        assert_eq!(Charset::of_mark(b"plain"), None);
    }
}
