//! Control payloads. They are JSON, so that any language can write them and unknown members can be ignored.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use crate::error::{ErrorCode, ProtocolError};

/// Connect (0x01): the client's first frame.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// The API key.
    pub key: String,
    /// The wanted subdomain. If absent, the daemon picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdomain: Option<String>,
    /// Names this installation of the client, 1 to 64 bytes. The same key and instance may take its name back at once.
    pub instance: String,
    /// The session that this one takes over from, which then drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Body bytes that the daemon may send on each exchange before the first WindowUpdate. Unused over QUIC.
    #[serde(default = "default_window")]
    pub initial_window: u32,
    /// The client's name and version, for logs.
    #[serde(default)]
    pub version: String,
    /// Optional abilities of the client. Unknown ones are ignored.
    #[serde(default)]
    pub features: Vec<String>,
}

impl std::fmt::Debug for Connect {
    /// Leaves the key out, so that no log shows it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("subdomain", &self.subdomain)
            .field("instance", &self.instance)
            .field("replaces", &self.replaces)
            .field("initial_window", &self.initial_window)
            .field("version", &self.version)
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

/// ConnectAck (0x02): the daemon grants the session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectAck {
    /// Names this session in logs and in a later `replaces`.
    pub session: String,
    /// The subdomain that now belongs to the session.
    pub subdomain: String,
    /// The public address.
    pub url: String,
    /// Body bytes that the client may send on each exchange before the first WindowUpdate. Unused over QUIC.
    #[serde(default = "default_window")]
    pub initial_window: u32,
    /// The most exchanges that the daemon has open at once.
    #[serde(default = "default_max_exchanges")]
    pub max_exchanges: u32,
    /// Optional abilities that both sides have.
    #[serde(default)]
    pub features: Vec<String>,
}

/// Why a side drains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainReason {
    /// The daemon restarts: connect again at once.
    Restart,
    /// Another session took over.
    Handover,
    /// The exchange ids are used up: connect again at once.
    Ids,
    /// The sender stops and does not come back.
    Shutdown,
    /// Any other reason.
    #[serde(untagged)]
    Other(String),
}

/// Drain (0x03): the sender opens or takes nothing new. Open exchanges may finish until the deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Why.
    pub reason: DrainReason,
    /// How long open exchanges may still take, in milliseconds.
    pub deadline_ms: u64,
    /// From the daemon: the last exchange id that it used, 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exchange: Option<u32>,
}

impl Drain {
    /// How long open exchanges may still take.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

/// Error (0xFF): the session ends after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorMessage {
    /// The kind of error.
    pub code: ErrorCode,
    /// One line for a person.
    pub message: String,
    /// Whether a second attempt without changes can succeed.
    pub retryable: bool,
}

impl std::fmt::Display for ErrorMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl From<&ProtocolError> for ErrorMessage {
    fn from(error: &ProtocolError) -> Self {
        Self { code: error.code(), message: error.to_string(), retryable: false }
    }
}

/// The initial window if none is named: 256 KiB may be in flight before the receiver has measured the path.
pub const DEFAULT_WINDOW: u32 = 256 * 1024;

/// The most exchanges at once if the daemon names no number.
pub const DEFAULT_MAX_EXCHANGES: u32 = 1000;

fn default_window() -> u32 {
    DEFAULT_WINDOW
}

fn default_max_exchanges() -> u32 {
    DEFAULT_MAX_EXCHANGES
}

/// Parses a JSON payload, naming the frame in the error.
pub(crate) fn parse<'de, T: Deserialize<'de>>(kind: &'static str, payload: &'de [u8]) -> Result<T, ProtocolError> {
    serde_json::from_slice(payload).map_err(|error| ProtocolError::Malformed { kind, why: describe(&error) })
}

/// Describes what is wrong with a payload. The parser's own text may quote the payload, which can hold a key, at any
/// length.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let names_fields_only = text.starts_with("missing field") || text.starts_with("duplicate field");
    match error.classify() {
        Category::Data if names_fields_only => text,
        Category::Data => format!("a value of the wrong type at line {} column {}", error.line(), error.column()),
        _ => format!("not JSON at line {} column {}", error.line(), error.column()),
    }
}
