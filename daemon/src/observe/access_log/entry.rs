//! The fields of a line, whatever it looks like. Their names and units are stable: scripts read them.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use cok_proto::share;

use super::super::record::Record;

/// The most bytes of a path that a line has. Longer ones are cut.
const LONGEST_PATH: usize = 2048;
/// The most bytes of other text from outside.
const LONGEST_TEXT: usize = 256;

/// The moment that a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// The end of a request.
    Request,
    /// The beginning of an exchange that lasts.
    Began,
    /// Its end.
    Ended,
}

impl Moment {
    /// Its name in the field `event`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Began => "stream_began",
            Self::Ended => "stream_ended",
        }
    }
}

/// Takes the fields of a line, in their order.
pub(super) trait Fields {
    /// A word of ours: letters, digits, `_`, `/` and `.`.
    fn word(&mut self, name: &'static str, value: &'static str) {
        self.text(name, value);
    }
    /// A text.
    fn text(&mut self, name: &'static str, value: &str);
    /// A number.
    fn number(&mut self, name: &'static str, value: u64);
    /// A duration, in milliseconds.
    fn duration(&mut self, name: &'static str, value: Duration);
}

/// Names all that is known of a request. What is unknown has no field.
pub(super) fn describe(record: &Record, moment: Moment, queries: bool, fields: &mut impl Fields) {
    let time = if moment == Moment::Request { record.began_at } else { SystemTime::now() };
    fields.text("time", &humantime::format_rfc3339_millis(time).to_string());
    fields.word("event", moment.name());
    fields.text("id", &hex(record.id.into(), 16));
    if let Some(lasting) = record.lasting {
        fields.word("kind", lasting.name());
    }
    if let Some(tunnel) = &record.tunnel {
        fields.text("tunnel", tunnel.as_str());
    }
    if let Some(key) = &record.key {
        fields.text("key", cut(&key.name, LONGEST_TEXT));
    }
    if let Some(authority) = &record.authority {
        fields.text("host", cut(authority.as_str(), LONGEST_TEXT));
    }
    fields.text("visitor", &address(record.visitor.unwrap_or(record.peer)));
    if record.visitor != Some(record.peer) {
        fields.text("peer", &address(record.peer));
    }
    fields.word("protocol", record.protocol());
    if let Some(transport) = record.transport {
        fields.word("transport", transport);
    }
    if let Some(method) = &record.method {
        fields.text("method", cut(method.as_str(), LONGEST_TEXT));
    }
    if let Some(target) = &record.target {
        fields.text("path", &path(target.as_bytes(), queries));
    }
    if let Some(status) = record.status {
        fields.number("status", status.as_u16().into());
    }
    if moment != Moment::Began {
        fields.number("received", record.request_bytes);
        fields.number("sent", record.response_bytes);
        fields.duration("duration_ms", record.duration());
    }
    let phases = record.phases();
    fields.duration("edge_ms", phases.edge);
    for (name, phase) in [("waiting_ms", phases.waiting), ("tunnel_ms", phases.tunnel), ("service_ms", phases.service)]
    {
        if let Some(phase) = phase {
            fields.duration(name, phase);
        }
    }
    if record.attempts > 0 {
        fields.number("attempts", record.attempts.into());
    }
    if let Some(ending) = record.ending.filter(|_| moment != Moment::Began) {
        fields.word("ending", ending.name());
        if let Some(reason) = ending.reason() {
            fields.word("reason", reason);
        }
    }
    if let Some(trace) = record.trace_id {
        fields.text("trace_id", &hex(trace, 32));
    }
}

/// A duration in milliseconds with three digits behind the point.
pub(super) fn millis(duration: Duration) -> String {
    let mut text = Vec::new();
    put_millis(&mut text, duration);
    String::from_utf8(text).unwrap_or_default()
}

/// Writes [`millis`]. `format!` would take a third of the time of a line.
pub(super) fn put_millis(text: &mut Vec<u8>, duration: Duration) {
    let micros = duration.as_secs() * 1_000_000 + u64::from(duration.subsec_micros());
    let rest = (micros % 1000) as u32;
    text.extend_from_slice(itoa::Buffer::new().format(micros / 1000).as_bytes());
    text.push(b'.');
    text.extend([rest / 100, rest / 10 % 10, rest % 10].map(|digit| b'0' + digit as u8));
}

fn hex(number: u128, digits: u32) -> String {
    let digit = |place: u32| char::from_digit((number >> (4 * place)) as u32 & 15, 16);
    (0..digits).rev().filter_map(digit).collect()
}

fn address(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            let mut text = itoa::Buffer::new().format(first).to_owned();
            for octet in rest {
                text.push('.');
                text.push_str(itoa::Buffer::new().format(octet));
            }
            text
        }
        address @ IpAddr::V6(_) => address.to_string(),
    }
}

/// The beginning of a text.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// A target as a line shows it: in ASCII, with anything else percent-encoded, and cut if it is long. The token of a share link
/// is not shown.
fn path(target: &[u8], queries: bool) -> String {
    let (path, query) = match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    };
    let mut shown = String::with_capacity(target.len().min(LONGEST_PATH));
    push(&mut shown, path);
    if let Some(query) = query.filter(|_| queries) {
        for (number, pair) in query.split(|byte| *byte == b'&').enumerate() {
            shown.push(if number == 0 { '?' } else { '&' });
            let is_token = pair.strip_prefix(share::PARAMETER.as_bytes()).is_some_and(|rest| rest.starts_with(b"="));
            if is_token {
                shown.push_str(share::PARAMETER);
                push(&mut shown, b"=*");
            } else {
                push(&mut shown, pair);
            }
        }
    }
    if shown.len() > LONGEST_PATH {
        shown.truncate(LONGEST_PATH);
        shown.push_str("...");
    }
    shown
}

fn push(shown: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in bytes {
        // More would be cut anyway.
        if shown.len() > LONGEST_PATH {
            return;
        }
        if byte.is_ascii_graphic() {
            shown.push(char::from(*byte));
        } else {
            shown.push('%');
            shown.push(char::from(DIGITS[usize::from(byte >> 4)]));
            shown.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_in_plain_characters() {
        assert_eq!(path(b"/a?b=c", false), "/a");
        assert_eq!(path(b"/a?b=c&d", true), "/a?b=c&d");
        assert_eq!(path(b"*", true), "*");
        assert_eq!(path(b"/\xff\xc3\xa9\x1b\n\r \x7f", false), "/%FF%C3%A9%1B%0A%0D%20%7F");
        assert_eq!(path(b"/a?cok_share=secret&b", true), "/a?cok_share=*&b");
        assert_eq!(path(b"/a?x&cok_share=secret", true), "/a?x&cok_share=*");
        let long = path(format!("/{}", "a".repeat(100_000)).as_bytes(), true);
        assert_eq!((long.len(), &long[long.len() - 4..]), (LONGEST_PATH + 3, "a..."));
    }

    #[test]
    fn numbers_and_addresses_have_their_usual_forms() {
        assert_eq!(
            (hex(0xab, 16), hex(u128::MAX - 1, 32)),
            ("00000000000000ab".to_owned(), format!("{:x}", u128::MAX - 1))
        );
        for text in ["127.0.0.1", "255.10.0.200", "::1", "2001:db8::7"] {
            assert_eq!(address(text.parse().unwrap()), text);
        }
        assert_eq!(address("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1");
    }

    #[test]
    fn durations_are_milliseconds_to_the_microsecond() {
        assert_eq!(millis(Duration::from_nanos(1_234_567_890)), "1234.567");
        assert_eq!(millis(Duration::from_micros(5)), "0.005");
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("ab\u{e9}", 3), "ab");
    }
}
