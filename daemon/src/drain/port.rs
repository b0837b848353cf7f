//! A UDP port of QUIC as a stop sees it: its endpoint, its socket, and the connections that are open.

use std::sync::Arc;

use cok_transport::quic::LayeredSocket;
use quinn::Endpoint;

use super::detached::Connections;
use super::initials;

/// A served UDP port.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    /// The endpoint of all its connections.
    pub(crate) endpoint: Endpoint,
    /// The endpoint's first socket.
    pub(crate) socket: Arc<LayeredSocket<initials::Socket>>,
    /// Its open connections.
    pub(crate) connections: Arc<Connections>,
}

impl Port {
    /// Leaves new peers unanswered, for the next process: a refusal would be final. Runs until it is dropped.
    pub(super) async fn ignore_new(self) {
        while let Some(incoming) = self.endpoint.accept().await {
            incoming.ignore();
        }
    }
}
