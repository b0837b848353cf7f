//! An entry of systemd's journal in its native protocol (systemd's "Journal Native Protocol"): one datagram an entry.

use std::time::Duration;

use super::super::record::Record;
use super::entry::{Fields, Moment, describe, millis};

/// Room for a usual entry.
const USUAL: usize = 768;
/// What our fields begin with, as in the daemon's other entries.
const PREFIX: &[u8] = b"COK_";
/// Syslog's level "info" (RFC 5424), and the name of the program.
const HEAD: &[u8] = b"PRIORITY=6\nSYSLOG_IDENTIFIER=cokd\n";

/// The entry of a request.
pub(super) fn entry(record: &Record, moment: Moment, queries: bool) -> Vec<u8> {
    let mut entry = Entry { fields: Vec::with_capacity(USUAL), ..Entry::default() };
    entry.fields.extend_from_slice(HEAD);
    describe(record, moment, queries, &mut entry);
    entry.finish(moment)
}

/// An entry that is being written, and what its message says.
#[derive(Default)]
struct Entry {
    fields: Vec<u8>,
    method: String,
    path: String,
    host: String,
    status: Option<u64>,
    ending: String,
    duration: Option<Duration>,
}

impl Entry {
    fn put(&mut self, name: &str, value: &str) {
        self.fields.extend_from_slice(PREFIX);
        self.fields.extend(name.bytes().map(|byte| byte.to_ascii_uppercase()));
        self.fields.push(b'=');
        put_escaped(&mut self.fields, value);
        self.fields.push(b'\n');
    }

    fn finish(mut self, moment: Moment) -> Vec<u8> {
        let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let status = self.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        let (method, host, path) = (or_dash(self.method), or_dash(self.host), self.path);
        let message = match (moment, self.duration) {
            (Moment::Began, _) | (_, None) => format!("{method} {host}{path} {status}: a stream begins"),
            (_, Some(took)) => format!("{method} {host}{path} {status} {} ms: {}", millis(took), self.ending),
        };
        self.fields.extend_from_slice(b"MESSAGE=");
        put_escaped(&mut self.fields, &message);
        self.fields.push(b'\n');
        self.fields
    }
}

impl Fields for Entry {
    fn text(&mut self, name: &'static str, value: &str) {
        let said = match name {
            "method" => Some(&mut self.method),
            "path" => Some(&mut self.path),
            "host" => Some(&mut self.host),
            "ending" => Some(&mut self.ending),
            _ => None,
        };
        if let Some(said) = said {
            value.clone_into(said);
        }
        self.put(name, value);
    }

    fn number(&mut self, name: &'static str, value: u64) {
        if name == "status" {
            self.status = Some(value);
        }
        self.put(name, &value.to_string());
    }

    fn duration(&mut self, name: &'static str, value: Duration) {
        if name == "duration_ms" {
            self.duration = Some(value);
        }
        self.put(name, &millis(value));
    }
}

/// Writes a value. A line break in one would begin another field.
fn put_escaped(entry: &mut Vec<u8>, value: &str) {
    for c in value.chars() {
        if c.is_control() {
            entry.extend(c.escape_default().map(|c| c as u8));
        } else {
            entry.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_makes_no_field_of_its_own() {
        let mut entry = Entry::default();
        entry.text("key", "a\nMESSAGE=b");
        entry.text("method", "GET");
        entry.text("host", "a.example");
        entry.text("path", "/x");
        entry.number("status", 200);
        entry.duration("duration_ms", Duration::from_millis(3));
        entry.text("ending", "complete");
        let text = String::from_utf8(entry.finish(Moment::Request)).unwrap();
        assert!(text.starts_with("COK_KEY=a\\nMESSAGE=b\nCOK_METHOD=GET\n"), "{text}");
        assert!(text.ends_with("\nMESSAGE=GET a.example/x 200 3.000 ms: complete\n"), "{text}");
    }
}
