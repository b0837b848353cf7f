//! A session over one QUIC connection (RFC 9000): the control frames on the client's first bidirectional stream, and
//! for each exchange a bidirectional stream that the daemon opens, carrying the same frames as over WebSocket.
//!
//! QUIC itself does what the multiplexer does there: flow control, fair turns, cancelling (RESET_STREAM and STOP_SENDING
//! with the codes of Reset frames), liveness. To follow an exchange, open `session` and `exchange`; to follow a session,
//! `dial` (client), [`accept`] (daemon) and `control`.
//!
//! Ending: a side whose exchanges are over after a Drain finishes its direction of the control stream; once both have,
//! the connection is closed, so that nothing is lost that still was on its way.

mod control;
mod dial;
mod exchange;
mod gro;
mod layer;
mod liveness;
mod session;
mod settings;
mod shared;
mod socket;
mod window;

use std::sync::Arc;
use std::time::Duration;

pub use self::dial::{DialError, Dialer, Link, Session, client_tls};
pub use self::gro::split_gro;
pub use self::layer::{LayeredSocket, UdpLayer};
pub use self::liveness::PathLiveness;
pub use self::session::accept;
pub use self::settings::Tuning;
pub use self::socket::{BUFFER, Buffers, Offload, bind, enlarge, wrap};

/// The protocol's name in the TLS handshake (RFC 7301).
pub const ALPN: &[u8] = b"cok/1";

/// The QUIC settings of a daemon's endpoint, on which both visitors and tunnels arrive. Of each stream, four times
/// `initial_window` bytes may be under way. `idle` is how long a visitor's connection may be silent; clients ask for
/// less.
pub fn server_transport(tuning: &Tuning, initial_window: u32, idle: Duration) -> Arc<quinn::TransportConfig> {
    settings::server(tuning, initial_window, idle)
}
