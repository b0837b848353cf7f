//! The cok client: it dials out to a cokd daemon and carries the requests that come back to a local service.
//!
//! As a library it opens a tunnel in the same process: see [`Tunnel`]. To follow a request, open
//! `tunnel/keeper.rs`, then `proxy` and its parts.

pub mod cli;
mod config;
mod dial;
mod instance;
pub mod logging;
mod options;
mod proxy;
mod server;
mod target;
mod text;
mod times;
mod transport;
mod trust;
mod tunnel;

pub use instance::instance_id;
pub use options::{HostHeader, NAME_TIMEOUT, Options};
pub use server::Server;
pub use target::Target;
pub use transport::{PROBE_INTERVAL, TransportChoice};
pub use trust::{trust_file, trust_system};
pub use tunnel::{Event, Refused, Tunnel};
