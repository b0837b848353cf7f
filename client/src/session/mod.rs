//! The session with the daemon: kept up over the better transport, and opened again whenever it ends.
//!
//! It carries exchanges and knows nothing of the services behind them. Whatever starts it also brings a function that
//! serves the exchanges of a new session.

mod keeper;
mod lost_connects;
mod open;
mod taken;
mod transport_policy;

use std::time::Duration;

pub(crate) use self::keeper::Keeper;
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
    /// The wanted name; without one the daemon picks.
    pub(crate) subdomain: Option<String>,
    /// How long to ask for a name that another client has.
    pub(crate) name_timeout: Duration,
}
