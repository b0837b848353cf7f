//! WebSockets (RFC 6455) that pass through: one direction of one is followed, and closed when the end that carries it goes
//! away.

mod farewell;
mod frames;

pub use self::farewell::{Farewell, going_away};
pub use self::frames::Frames;

/// The protocol's name in `upgrade` (RFC 6455, section 4.1) and `:protocol` (RFC 8441, section 5).
pub const WEBSOCKET: &str = "websocket";

/// Whether the value of an `upgrade` field names the WebSocket protocol.
pub fn is_websocket(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(WEBSOCKET.as_bytes())
}
