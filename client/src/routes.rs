//! Which service answers the requests of which tunnel of the session.

use std::collections::HashMap;
use std::sync::Arc;

use cok_proto::ResetCode;
use cok_transport::{Incoming, Transport};
use parking_lot::RwLock;

use crate::flight::InFlight;
use crate::proxy::Proxy;

/// The service behind one tunnel. It can be swapped while the tunnel is online; exchanges under way stay with the old one.
#[derive(Debug)]
pub(crate) struct Slot {
    proxy: RwLock<Arc<Proxy>>,
    /// The exchanges of the tunnel.
    pub(crate) in_flight: Arc<InFlight>,
}

impl Slot {
    /// `in_flight` must be the proxy's.
    pub(crate) fn new(proxy: Arc<Proxy>, in_flight: Arc<InFlight>) -> Arc<Self> {
        Arc::new(Self { proxy: RwLock::new(proxy), in_flight })
    }

    /// Sends later requests to another service.
    pub(crate) fn set(&self, proxy: Arc<Proxy>) {
        *self.proxy.write() = proxy;
    }

    fn proxy(&self) -> Arc<Proxy> {
        self.proxy.read().clone()
    }
}

/// The tunnels of the sessions by their ids. An id means the same tunnel in a session and in its successor.
#[derive(Debug, Default)]
pub(crate) struct Routes(RwLock<HashMap<u32, Arc<Slot>>>);

impl Routes {
    /// Sends the requests of the tunnel with this id to a service.
    pub(crate) fn add(&self, id: u32, slot: Arc<Slot>) {
        self.0.write().insert(id, slot);
    }

    /// Refuses later requests of the tunnel with this id.
    pub(crate) fn remove(&self, id: u32) {
        self.0.write().remove(&id);
    }

    /// Answers a session's requests until no more can come. A request whose tunnel has ended goes back unprocessed.
    pub(crate) async fn serve(self: Arc<Self>, transport: Arc<dyn Transport>) {
        while let Some(mut incoming) = transport.accept().await {
            if let Some(slot) = self.find(&incoming) {
                // Starting a task copies its future several times over, and this one is large.
                tokio::spawn(Box::pin(slot.proxy().exchange(incoming)));
            } else {
                incoming.exchange.send.reset(ResetCode::Unprocessed);
            }
        }
    }

    fn find(&self, incoming: &Incoming) -> Option<Arc<Slot>> {
        self.0.read().get(&incoming.tunnel).cloned()
    }
}
