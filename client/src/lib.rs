//! The cok client: it dials out to a cokd daemon and carries the requests that come back to a local service.
//!
//! As a library it opens a tunnel in the same process: see [`Tunnel`]. To follow a session, open `session/keeper.rs`; to
//! follow a request, `proxy/mod.rs`.

pub mod cli;
mod config;
mod dial;
mod event;
mod flight;
mod instance;
pub mod logging;
mod options;
mod proxy;
mod server;
mod session;
mod target;
mod text;
mod times;
mod transport;
mod trust;
mod tunnel;

pub use event::{Event, Refused};
pub use instance::instance_id;
pub use options::{HostHeader, NAME_TIMEOUT, Options};
pub use server::Server;
pub use target::Target;
pub use transport::{PROBE_INTERVAL, TransportChoice};
pub use trust::{trust_file, trust_system};
pub use tunnel::Tunnel;
