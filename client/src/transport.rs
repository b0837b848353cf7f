//! Which transport a user wants.

use std::time::Duration;

use clap::ValueEnum;

/// How long a tunnel on WebSocket waits until it tries QUIC again, unless the user says otherwise. A try costs both sides
/// a handshake.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// How to reach the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TransportChoice {
    /// QUIC where it works, a WebSocket where it does not
    #[default]
    Auto,
    /// QUIC, or nothing
    Quic,
    /// A WebSocket, or nothing
    Ws,
}

impl TransportChoice {
    /// Reads it where no flag was given.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::from_str(text, false).map_err(|_| format!("expected auto, quic or ws, not \"{text}\""))
    }
}
