//! A session over one QUIC connection (RFC 9000).
//!
//! The client's first bidirectional stream carries the control frames. For each exchange the daemon opens a
//! bidirectional stream, which carries the same frames as over WebSocket, with the same credit. QUIC does the rest of the
//! multiplexer's work: fair turns, cancelling (RESET_STREAM and STOP_SENDING with the codes of Reset frames) and liveness.
//!
//! To follow an exchange, read `session` and `exchange`. To follow a session, read `dial` (client), [`accept`] (daemon)
//! and `control`. UDP sockets are in `socket`, `layer` and `gro`.
//!
//! After a Drain, a side without exchanges finishes its direction of the control stream. Once both sides have, the
//! connection is closed, so that nothing in flight is lost.

mod control;
mod dial;
mod exchange;
mod gro;
mod layer;
mod liveness;
mod probe;
mod runtime;
mod session;
mod settings;
mod shared;
mod socket;
mod turns;
mod window;

use std::sync::Arc;
use std::time::Duration;

pub use self::dial::{DialError, Dialer, Link, Session, client_tls};
pub use self::gro::split_gro;
pub use self::layer::{LayeredSocket, UdpLayer};
pub use self::liveness::PathLiveness;
pub use self::probe::reaches;
pub use self::runtime::runtime;
pub use self::session::accept;
pub use self::settings::{Tuning, take_large_datagrams};
pub use self::socket::{BUFFER, Buffers, Offload, bind, enlarge, wrap};

/// The protocol's name in the TLS handshake (RFC 7301).
pub const ALPN: &[u8] = b"cok/1";

/// The QUIC settings of a daemon's endpoint, on which visitors and tunnels arrive. Four times `initial_window` bytes of
/// a stream may be in flight. `idle` is how long a visitor's connection may be silent; clients ask for less.
pub fn server_transport(tuning: &Tuning, initial_window: u32, idle: Duration) -> Arc<quinn::TransportConfig> {
    settings::server(tuning, initial_window, idle)
}
