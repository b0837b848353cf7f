//! The tunnels whose requests are captured.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use cok_transport::Incoming;
use parking_lot::Mutex;

use crate::event::TunnelHandle;
use crate::exchange::Origin;

/// An exchange on its way to the service.
pub(crate) type Exchanged = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Sends a request to the service of a tunnel. `None` once the tunnel is closed.
pub(crate) type Exchanges = Arc<dyn Fn(Incoming, Origin) -> Option<Exchanged> + Send + Sync>;

/// The tunnels of a client.
#[derive(Debug, Default)]
pub(super) struct Tunnels(Mutex<HashMap<TunnelHandle, Known>>);

struct Known {
    label: Option<String>,
    exchanges: Exchanges,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Known({:?})", self.label)
    }
}

impl Tunnels {
    /// Notes a tunnel. The names of closed ones stay, since their requests may.
    pub(super) fn opened(&self, tunnel: TunnelHandle, label: Option<String>, exchanges: Exchanges) {
        self.0.lock().insert(tunnel, Known { label, exchanges });
    }

    /// The names of all tunnels.
    pub(super) fn labels(&self) -> HashMap<TunnelHandle, String> {
        let tunnels = self.0.lock();
        tunnels.iter().filter_map(|(tunnel, known)| Some((*tunnel, known.label.clone()?))).collect()
    }

    /// What answers the requests of a tunnel.
    pub(super) fn exchanges(&self, tunnel: TunnelHandle) -> Option<Exchanges> {
        Some(self.0.lock().get(&tunnel)?.exchanges.clone())
    }
}
