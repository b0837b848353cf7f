//! A line of JSON.

use std::io::Write as _;
use std::time::Duration;

use super::super::record::Record;
use super::entry::{Fields, Moment, describe, put_millis};

/// Room for a usual line.
const USUAL: usize = 512;

/// The line of a request, with its end.
pub(super) fn line(record: &Record, moment: Moment, queries: bool) -> Vec<u8> {
    let mut object = Object(Vec::with_capacity(USUAL));
    describe(record, moment, queries, &mut object);
    let Object(mut line) = object;
    line.extend_from_slice(b"}\n");
    line
}

/// An object that is being written.
struct Object(Vec<u8>);

impl Object {
    /// Begins a field.
    fn name(&mut self, name: &'static str) {
        let before: &[u8] = if self.0.is_empty() { b"{\"" } else { b",\"" };
        self.0.extend_from_slice(before);
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }
}

impl Fields for Object {
    fn word(&mut self, name: &'static str, value: &'static str) {
        self.name(name);
        self.0.push(b'"');
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'"');
    }

    fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        self.0.push(b'"');
        // All bytes are looked at, so that the compiler can look at many at once.
        if value.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~') & !matches!(byte, b'"' | b'\\')) {
            self.0.extend_from_slice(value.as_bytes());
        } else {
            put_escaped(&mut self.0, value);
        }
        self.0.push(b'"');
    }

    fn number(&mut self, name: &'static str, value: u64) {
        self.name(name);
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn duration(&mut self, name: &'static str, value: Duration) {
        self.name(name);
        put_millis(&mut self.0, value);
    }
}

/// Writes text in ASCII. What is none is escaped, which leaves nothing that could control a terminal or hide in a line.
fn put_escaped(line: &mut Vec<u8>, value: &str) {
    for c in value.chars() {
        match c {
            '"' | '\\' => line.extend_from_slice(&[b'\\', c as u8]),
            ' '..='~' => line.push(c as u8),
            c => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _infallible = write!(line, "\\u{unit:04x}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::millis;
    use super::*;

    #[test]
    fn text_from_outside_comes_back_as_it_was() {
        for text in ["plain", "", "\"\\", "a\nb\r\u{1b}[2J\0", "\u{9b}\u{202e}\u{2028}", "\u{e9}\u{1f600}"] {
            let mut object = Object(Vec::new());
            object.text("key", text);
            object.number("status", 200);
            object.duration("edge_ms", Duration::from_micros(1500));
            object.word("event", "request");
            let line = [&object.0[..], b"}"].concat();
            assert!(line.iter().all(|byte| matches!(byte, b' '..=b'~')), "{text:?}");
            let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(value, serde_json::json!({"key": text, "status": 200, "edge_ms": 1.5, "event": "request"}));
        }
    }

    #[test]
    fn durations_are_those_of_other_destinations() {
        for duration in [0, 7, 42, 999, 1000, 12_345, 987_654_321].map(Duration::from_micros) {
            let mut object = Object(Vec::new());
            object.duration("ms", duration);
            assert_eq!(object.0, format!("{{\"ms\":{}", millis(duration)).into_bytes());
        }
    }
}
