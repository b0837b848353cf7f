//! The session with the daemon: kept up over the better transport, and opened again whenever it ends. It carries the
//! tunnels of the client.
//!
//! It knows nothing of HTTP and of the services behind the tunnels; `routes` leads to them.

mod keeper;
mod open;
mod sleep;
mod taken;
mod transport_policy;
mod tunnels;

use std::time::Duration;

pub(crate) use self::keeper::Keeper;
use self::transport_policy::TransportPolicy;
pub(crate) use self::tunnels::{Command, Patience, Tunnels, Wanted};
use crate::dial;

/// What a session needs.
#[derive(Debug)]
pub(crate) struct Config {
    /// The ways to the daemon.
    pub(crate) dial: dial::Config,
    /// The limits of its exchanges.
    pub(crate) limits: cok_transport::Config,
    /// The first wait until a session on WebSocket tries QUIC again.
    pub(crate) probe_interval: Duration,
    /// The API key.
    pub(crate) key: String,
    /// This installation.
    pub(crate) instance: String,
    /// How to deal with refusals.
    pub(crate) patience: Patience,
}

impl Config {
    fn policy(&self) -> TransportPolicy {
        let proxy = self.dial.proxy.as_ref().map(ToString::to_string);
        TransportPolicy::new(self.dial.transport, proxy, self.probe_interval)
    }
}
