//! The tunnels whose requests are captured.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::event::TunnelHandle;
use crate::proxy::Proxy;
use crate::routes::Slot;

/// The tunnels of a client.
#[derive(Debug, Default)]
pub(super) struct Tunnels(Mutex<HashMap<TunnelHandle, Known>>);

#[derive(Debug)]
struct Known {
    label: Option<String>,
    slot: Weak<Slot>,
}

impl Tunnels {
    /// Notes a tunnel. The names of closed ones stay for as long as their requests may.
    pub(super) fn opened(&self, tunnel: TunnelHandle, label: Option<String>, slot: &Arc<Slot>) {
        self.0.lock().insert(tunnel, Known { label, slot: Arc::downgrade(slot) });
    }

    /// The names of all tunnels.
    pub(super) fn labels(&self) -> HashMap<TunnelHandle, String> {
        let tunnels = self.0.lock();
        tunnels.iter().filter_map(|(tunnel, known)| Some((*tunnel, known.label.clone()?))).collect()
    }

    /// The service behind a tunnel; `None` once that is closed.
    pub(super) fn proxy(&self, tunnel: TunnelHandle) -> Option<Arc<Proxy>> {
        Some(self.0.lock().get(&tunnel)?.slot.upgrade()?.proxy())
    }
}
