//! The messages of a stream.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::summary::milliseconds;
use crate::inspect::decode::MessageKind;
use crate::inspect::live::Side;
use crate::inspect::store::{Entry, Passed};

/// A part of an exchange's messages.
#[derive(Debug, Serialize)]
pub(in crate::inspect) struct MessagePage {
    /// How many have passed in all.
    total: u64,
    /// The number of the earliest that is kept.
    first_kept: Option<u64>,
    /// Why later messages of a direction are not found.
    trouble: Option<String>,
    /// The oldest first.
    messages: Vec<ShownMessage>,
}

/// A message.
#[derive(Debug, Serialize)]
struct ShownMessage {
    /// Its number in the exchange.
    number: u64,
    /// `visitor` or `service`.
    from: &'static str,
    /// The time since the beginning of the exchange.
    after_ms: f64,
    /// What it is, such as `text`, `event` or `ping`.
    kind: &'static str,
    /// The length of the whole payload, and of what was sent.
    size: u64,
    sent: u64,
    /// The payload, if it is text.
    text: Option<String>,
    /// The payload in Base64, if it is not.
    base64: Option<String>,
    /// The payload is longer than what is kept of it.
    truncated: bool,
    /// Why it may not be what was meant.
    trouble: Option<String>,
    /// An event's type, id and reconnection time.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<ShownEvent>,
    /// The code of a Close.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Debug, Serialize)]
struct ShownEvent {
    name: Option<String>,
    id: Option<String>,
    retry_ms: Option<u64>,
}

impl MessagePage {
    /// At most `limit` messages behind the one of this number; without one, the latest.
    pub(in crate::inspect) fn new(entry: &Entry, after: Option<u64>, limit: usize) -> Self {
        let messages = &entry.messages;
        let latest: Vec<&Arc<Passed>> = match after {
            Some(after) => messages.latest.iter().filter(|passed| passed.number > after).take(limit).collect(),
            None => messages.latest.iter().skip(messages.latest.len().saturating_sub(limit)).collect(),
        };
        Self {
            total: messages.from_visitor + messages.from_service,
            first_kept: messages.latest.front().map(|passed| passed.number),
            trouble: entry.decoders.trouble.clone(),
            messages: latest.into_iter().map(|passed| shown(passed)).collect(),
        }
    }
}

fn shown(passed: &Passed) -> ShownMessage {
    let message = &passed.message;
    let text = text(&message.bytes, message.is_truncated());
    ShownMessage {
        number: passed.number,
        from: if passed.side == Side::Request { "visitor" } else { "service" },
        after_ms: milliseconds(passed.after),
        kind: message.kind.name(),
        size: message.size,
        sent: message.sent,
        base64: text.is_none().then(|| STANDARD.encode(&message.bytes)),
        text,
        truncated: message.is_truncated(),
        trouble: message.trouble.as_ref().map(ToString::to_string),
        event: match &message.kind {
            MessageKind::Event { name, id, retry, .. } => {
                Some(ShownEvent { name: name.clone(), id: id.clone(), retry_ms: *retry })
            }
            _ => None,
        },
        code: match message.kind {
            MessageKind::Close { code } => code,
            _ => None,
        },
    }
}

/// The bytes as text, if they are UTF-8. The end of a truncated text may be a part of a character, which is left out.
fn text(bytes: &[u8], is_truncated: bool) -> Option<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.to_owned()),
        Err(error) if is_truncated && error.error_len().is_none() => {
            String::from_utf8(bytes[..error.valid_up_to()].to_vec()).ok()
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_cut_within_a_character_stays_text() {
        assert_eq!(text("aé".as_bytes(), false).as_deref(), Some("aé"));
        assert_eq!(text(b"a\xc3", true).as_deref(), Some("a"));
        assert_eq!(text(b"a\xc3", false), None);
        assert_eq!(text(b"a\xff", true), None);
    }
}
