//! The cok daemon: it terminates public HTTPS for the names under one domain and passes requests on to the clients that
//! own those names.
//!
//! To follow a request, open in this order: [`listener`], [`edge`] and its parts, [`router`], [`registry`], then
//! `cok-transport` and the client's session and proxy. How a tunnel gets there in the first place is in [`tunnels`].

pub mod activation;
pub mod admin;
mod certificates;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dev;
pub mod edge;
pub mod keys;
pub mod listener;
pub mod memory;
pub mod metrics;
pub mod names;
pub mod places;
mod public_tls;
pub mod quic_secret;
pub mod quota;
mod quoted;
pub mod registry;
pub mod router;
pub mod running;
mod secrets;
pub mod service_manager;
pub mod shutdown;
mod state_file;
mod stop;
pub mod tunnels;
