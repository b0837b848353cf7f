//! Which transport a user wants.

use std::time::Duration;

/// The default wait until a tunnel on WebSocket tries QUIC again. A try costs both sides a handshake.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// How to reach the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "program", derive(clap::ValueEnum))]
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
    /// Reads a value of the environment or the file.
    #[cfg(feature = "program")]
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        <Self as clap::ValueEnum>::from_str(text, false)
            .map_err(|_| format!("expected auto, quic or ws, not \"{text}\""))
    }
}
