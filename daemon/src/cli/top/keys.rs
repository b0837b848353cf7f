//! What a terminal sends for the keys that are pressed.

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Character(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-Z.
    Suspend,
    /// Ctrl-L.
    Redraw,
}

/// The keys in what was read at once. Terminals write the sequence of one key at once (ECMA-48, xterm's control sequences).
pub(super) fn keys(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while let Some((key, length)) = first(bytes) {
        keys.extend(key);
        bytes = &bytes[length..];
    }
    keys
}

/// The first key, and how many bytes it takes. `None` at the end.
fn first(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let byte = *bytes.first()?;
    let key = match byte {
        b'\r' | b'\n' => Key::Enter,
        0x7f | 0x08 => Key::Backspace,
        0x03 => Key::Interrupt,
        0x1a => Key::Suspend,
        0x0c => Key::Redraw,
        0x1b => return Some(escaped(bytes)),
        _ => {
            let length = match byte {
                0xc0..0xe0 => 2,
                0xe0..0xf0 => 3,
                0xf0.. => 4,
                _ => 1,
            };
            let length = length.min(bytes.len());
            let character = std::str::from_utf8(&bytes[..length]).ok().and_then(|text| text.chars().next());
            return Some((character.filter(|c| !c.is_control()).map(Key::Character), length));
        }
    };
    Some((Some(key), 1))
}

/// A sequence that begins with Escape, or that key alone.
fn escaped(bytes: &[u8]) -> (Option<Key>, usize) {
    if !matches!(bytes.get(1), Some(b'[' | b'O')) {
        return (Some(Key::Escape), 1);
    }
    let rest = &bytes[2..];
    // Parameters, then the byte that ends the sequence.
    let parameters = rest.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
    let length = (2 + parameters + 1).min(bytes.len());
    let key = match (&rest[..parameters], rest.get(parameters)) {
        (b"" | b"1", Some(b'A')) => Some(Key::Up),
        (b"" | b"1", Some(b'B')) => Some(Key::Down),
        (b"" | b"1", Some(b'H')) | (b"1" | b"7", Some(b'~')) => Some(Key::Home),
        (b"" | b"1", Some(b'F')) | (b"4" | b"8", Some(b'~')) => Some(Key::End),
        (b"5", Some(b'~')) => Some(Key::PageUp),
        (b"6", Some(b'~')) => Some(Key::PageDown),
        _ => None,
    };
    (key, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_keys() {
        for (bytes, expected) in [
            (&b"q"[..], vec![Key::Character('q')]),
            (b"\x1b", vec![Key::Escape]),
            (b"\x1b[A\x1bOB", vec![Key::Up, Key::Down]),
            (b"\x1b[5~\x1b[6~s", vec![Key::PageUp, Key::PageDown, Key::Character('s')]),
            (b"\x1b[1~\x1b[F", vec![Key::Home, Key::End]),
            ("é\r\x7f".as_bytes(), vec![Key::Character('é'), Key::Enter, Key::Backspace]),
            (b"\x1b[1;5Cq", vec![Key::Character('q')]),
            (b"\x1b[200;200;200;200Rq", vec![Key::Character('q')]),
            (b"\x1b[", vec![]),
            (b"\xff\x00", vec![]),
            (b"\x03\x1a\x0c", vec![Key::Interrupt, Key::Suspend, Key::Redraw]),
        ] {
            assert_eq!(keys(bytes), expected, "{}", bytes.escape_ascii());
        }
    }
}
