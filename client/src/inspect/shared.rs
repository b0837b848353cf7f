//! What viewers use.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::queue::Load;
use super::store::Store;
use super::token::Token;
use super::tunnels::Tunnels;

/// The inspector as the server, views and replays see it.
#[derive(Debug)]
pub(super) struct Shared {
    /// The captured exchanges.
    pub(super) store: Arc<Store>,
    /// The queue's load.
    pub(super) load: Arc<Load>,
    /// The tunnels whose exchanges are captured.
    pub(super) tunnels: Tunnels,
    /// Where the server listens.
    pub(super) address: SocketAddr,
    /// What callers must know.
    pub(super) token: Token,
    /// The traffic's runtime, where replays run.
    pub(super) runtime: Handle,
}
