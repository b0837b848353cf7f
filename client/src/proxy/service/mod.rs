//! Connections to the local service: dialled, kept while idle, or shared by many exchanges.

mod connection;
pub(super) mod h2_pool;
pub(super) mod local;
pub(super) mod pool;
mod tls;
mod wire;
