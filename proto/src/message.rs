//! Control payloads. They are JSON, so that any language can write them and unknown members can be ignored.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::error::Category;

use crate::error::{ErrorCode, ProtocolError};
use crate::rules::{Rules, short};

/// Connect (0x01): the client's first frame.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// The API key.
    pub key: String,
    /// Whether the session begins with a tunnel, whose id is 0. Otherwise nothing is claimed until a Bind.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub tunnel: bool,
    /// The first tunnel's wanted subdomain. If absent, the daemon picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdomain: Option<String>,
    /// Names this installation of the client, 1 to 64 bytes. The same key and instance may take its name back at once.
    pub instance: String,
    /// The session that this one takes over from. All its tunnels move here under their ids, and it drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Body bytes that the daemon may send on each exchange before the first WindowUpdate. Unused over QUIC.
    #[serde(default = "default_window")]
    pub initial_window: u32,
    /// The client's name and version, for logs.
    #[serde(default)]
    pub version: String,
    /// Optional abilities of the client. Unknown ones are ignored; see [`common_features`].
    #[serde(default)]
    pub features: Vec<String>,
    /// Over WebSocket: why the client has not come over QUIC, which it prefers. For the daemon's figures alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackReason>,
}

/// Why a client that prefers QUIC comes over WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FallbackReason {
    /// Nothing came back over UDP.
    NoAnswer,
    /// A handshake succeeded, but no data came through.
    NoData,
    /// The client's machine has no UDP or no route.
    NoUdp,
    /// A proxy on the way carries only TCP.
    Proxy,
    /// The path of a QUIC session has turned bad.
    BadPath,
    /// Any other reason.
    #[serde(untagged)]
    Other(String),
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            key: String::new(),
            tunnel: true,
            subdomain: None,
            instance: String::new(),
            replaces: None,
            initial_window: DEFAULT_WINDOW,
            version: String::new(),
            features: Vec::new(),
            fallback: None,
        }
    }
}

impl std::fmt::Debug for Connect {
    /// Leaves the key out, so that no log shows it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("tunnel", &self.tunnel)
            .field("subdomain", &self.subdomain)
            .field("instance", &self.instance)
            .field("replaces", &self.replaces)
            .field("initial_window", &self.initial_window)
            .field("version", &self.version)
            .field("features", &self.features)
            .field("fallback", &self.fallback)
            .finish_non_exhaustive()
    }
}

/// ConnectAck (0x02): the daemon grants the session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectAck {
    /// Names this session in logs and in a later `replaces`.
    pub session: String,
    /// The first tunnel's name; `None` if the session begins without a tunnel.
    #[serde(default)]
    pub subdomain: Option<String>,
    /// The first tunnel's public address; `None` if the session begins without a tunnel.
    #[serde(default)]
    pub url: Option<String>,
    /// How many tunnels move here from the replaced session. A Bound for each follows at once.
    #[serde(default)]
    pub moved: u32,
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

/// Bind (0x04): the client asks for a tunnel.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// The kind of endpoint. Only [`KIND_HTTP`] exists.
    #[serde(default = "kind_http")]
    pub kind: String,
    /// The wanted name. If absent, the daemon picks one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdomain: Option<String>,
    /// What the daemon must do to the tunnel's requests: [`Rules`]. They are read later, since a rule that the daemon does
    /// not know is refused and does not end the session.
    #[serde(default = "no_rules", skip_serializing_if = "is_empty_object")]
    pub rules: Value,
    /// Whether the tunnel may displace another session of the same key and instance.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub take_over: bool,
}

/// A tunnel that carries HTTP.
pub const KIND_HTTP: &str = "http";

impl Default for Bind {
    fn default() -> Self {
        Self { kind: kind_http(), subdomain: None, rules: no_rules(), take_over: true }
    }
}

impl std::fmt::Debug for Bind {
    /// Leaves the values of rules out, since passwords are among them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rules: Vec<&str> =
            self.rules.as_object().into_iter().flat_map(|rules| rules.keys().map(String::as_str)).collect();
        f.debug_struct("Bind")
            .field("kind", &self.kind)
            .field("subdomain", &self.subdomain)
            .field("rules", &rules)
            .field("take_over", &self.take_over)
            .finish_non_exhaustive()
    }
}

impl Bind {
    /// The rules of the tunnel, or what this version cannot do of what is asked: an unknown kind, or a rule.
    pub fn checked(&self) -> Result<Rules, String> {
        if self.kind != KIND_HTTP {
            return Err(format!("tunnels of kind {:?} are not supported", short(&self.kind)));
        }
        Rules::parse(&self.rules)
    }
}

/// Bound (0x05): the tunnel is online.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Its name.
    pub subdomain: String,
    /// Its public address.
    pub url: String,
}

/// Unbind (0x07): a tunnel ends. Its open exchanges may finish until the deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unbind {
    /// Why.
    pub reason: UnbindReason,
    /// How long open exchanges may still take, in milliseconds. 0 resets them.
    #[serde(default)]
    pub deadline_ms: u64,
    /// With `replaced`: the address that the other client connects from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// With `replaced`: the other client's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl Unbind {
    /// An Unbind without further members.
    pub fn new(reason: UnbindReason, deadline: Duration) -> Self {
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        Self { reason, deadline_ms, address: None, version: None }
    }

    /// How long open exchanges may still take.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

/// Why a tunnel ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnbindReason {
    /// From the client: its user has closed the tunnel.
    Closed,
    /// Another session of the same key and instance has taken the name over.
    Replaced,
    /// A later Bind of the same session has taken the name.
    Moved,
    /// The key no longer allows the tunnel.
    Revoked,
    /// Any other reason.
    #[serde(untagged)]
    Other(String),
}

/// What one side says about a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TunnelFrame {
    /// The client asks for it.
    Bind(Bind),
    /// The daemon grants it.
    Bound(Bound),
    /// The daemon refuses it.
    Refused(ErrorMessage),
    /// Either side ends it.
    Unbind(Unbind),
}

/// The optional abilities of this version. None may change the coding of exchange streams, which can arrive before
/// ConnectAck.
pub const FEATURES: &[&str] = &[];

/// The abilities that both sides have: those of ours that the peer names.
pub fn common_features(theirs: &[String]) -> Vec<String> {
    FEATURES.iter().filter(|ours| theirs.iter().any(|theirs| theirs == *ours)).map(|&ours| ours.to_owned()).collect()
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

fn kind_http() -> String {
    KIND_HTTP.to_owned()
}

fn no_rules() -> Value {
    Value::Object(serde_json::Map::new())
}

fn is_empty_object(value: &Value) -> bool {
    value.as_object().is_some_and(serde_json::Map::is_empty)
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

fn default_window() -> u32 {
    DEFAULT_WINDOW
}

fn default_max_exchanges() -> u32 {
    DEFAULT_MAX_EXCHANGES
}

/// Parses a payload, which must be a JSON object, naming the frame in the error. serde alone would also take the members
/// as an array, in the order of our struct.
pub(crate) fn parse<'de, T: Deserialize<'de>>(kind: &'static str, payload: &'de [u8]) -> Result<T, ProtocolError> {
    if payload.trim_ascii_start().first().is_some_and(|first| *first == b'[') {
        return Err(ProtocolError::Malformed { kind, why: "not a JSON object".to_owned() });
    }
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
