//! Which service answers the requests of which tunnel of the session.

use std::collections::HashMap;
use std::sync::Arc;
#[cfg(feature = "trace")]
use std::sync::OnceLock;

use cok_proto::ResetCode;
#[cfg(feature = "trace")]
use cok_trace::Tracer;
use cok_transport::{Incoming, Transport};
use parking_lot::RwLock;

use crate::exchange::Origin;
use crate::flight::InFlight;
#[cfg(feature = "inspect")]
use crate::inspect::Exchanges;
use crate::proxy::Proxy;
#[cfg(feature = "trace")]
use crate::traced::traced;

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

    /// Sends further requests to the service, while the tunnel is open.
    #[cfg(feature = "inspect")]
    pub(crate) fn exchanges(self: &Arc<Self>) -> Exchanges {
        let slot = Arc::downgrade(self);
        Arc::new(move |incoming, origin| Some(Box::pin(slot.upgrade()?.proxy().exchange(incoming, origin))))
    }

    fn proxy(&self) -> Arc<Proxy> {
        self.proxy.read().clone()
    }
}

/// The tunnels of the sessions by their ids. An id means the same tunnel in a session and in its successor.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    slots: RwLock<HashMap<u32, Arc<Slot>>>,
    /// Records exchanges, if there is one.
    #[cfg(feature = "trace")]
    tracer: OnceLock<Tracer>,
}

impl Routes {
    /// Has exchanges recorded from now on. The first one stays.
    #[cfg(feature = "trace")]
    pub(crate) fn trace(&self, tracer: Tracer) {
        self.tracer.get_or_init(|| tracer);
    }

    /// Sends the requests of the tunnel with this id to a service.
    pub(crate) fn add(&self, id: u32, slot: Arc<Slot>) {
        self.slots.write().insert(id, slot);
    }

    /// Refuses later requests of the tunnel with this id.
    pub(crate) fn remove(&self, id: u32) {
        self.slots.write().remove(&id);
    }

    /// Answers a session's requests until no more can come. A request whose tunnel has ended goes back unprocessed.
    pub(crate) async fn serve(self: Arc<Self>, transport: Arc<dyn Transport>) {
        while let Some(mut incoming) = transport.accept().await {
            if let Some(slot) = self.find(&incoming) {
                let proxy = slot.proxy();
                #[cfg(feature = "trace")]
                if let Some(tracer) = self.tracer.get() {
                    incoming = traced(tracer, incoming, transport.name(), proxy.target());
                }
                // Starting a task copies its future several times over, and this one is large.
                tokio::spawn(Box::pin(proxy.exchange(incoming, Origin::Visitor)));
            } else {
                incoming.exchange.send.reset(ResetCode::Unprocessed);
            }
        }
    }

    fn find(&self, incoming: &Incoming) -> Option<Arc<Slot>> {
        self.slots.read().get(&incoming.tunnel).cloned()
    }
}
