//! Connections to the local service: dialled, kept while idle, or shared by many exchanges.

pub(super) mod connection;
pub(super) mod dial_error;
pub(super) mod h2_pool;
pub(super) mod local;
pub(super) mod pool;
mod shared_wire;
pub(super) mod shortcut;
pub(super) mod tls;
mod turns;
mod wire;
