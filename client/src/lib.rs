//! The cok client: it dials out to a cokd daemon and carries the requests that come back to a local service.
//!
//! As a library it opens tunnels in the same process: see [`Client`]. To follow a session, open `session/keeper.rs`; to
//! follow a request, `proxy/mod.rs`.

pub mod cli;
mod client;
mod config;
mod dial;
mod event;
mod flight;
mod instance;
pub mod logging;
mod name;
mod options;
mod proxy;
mod routes;
mod server;
mod session;
mod target;
mod text;
mod times;
mod transport;
mod trust;

pub use client::{Client, Driver, OpenTunnel};
pub use event::{Event, Refused, TunnelHandle, TunnelState, TunnelStatus};
pub use instance::instance_id;
pub use options::{ClientOptions, HostHeader, NAME_TIMEOUT, TunnelOptions};
pub use server::Server;
pub use target::Target;
pub use transport::{PROBE_INTERVAL, TransportChoice};
pub use trust::{trust_file, trust_system};
