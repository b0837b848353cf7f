//! What the program says about its tunnels.

use std::io::{self, Write as _};

use tracing::{info, warn};

use crate::tunnel::Event;

/// Reports what happens to one tunnel. Its address goes to standard output, alone on its line, when it is first online
/// and whenever the address has changed; the rest is for the log.
pub(super) fn reporter() -> impl FnMut(Event) {
    let mut shown = String::new();
    move |event| match event {
        Event::Connected { transport, url, session, reason } => {
            if url != shown {
                // Nobody may read it any more; the tunnel stays up all the same.
                let _closed = writeln!(io::stdout(), "{url}");
                shown.clone_from(&url);
            }
            info!(event = "connected", transport, url, session, reason, "the tunnel is online: {url}");
        }
        Event::Fallback { from, to, reason } => {
            info!(event = "fallback", from, to, reason, "the tunnel takes {to}: {reason}");
        }
        Event::Disconnected { reason, retry_in } => {
            warn!(
                event = "disconnected",
                reason,
                retry_in_ms = retry_in.as_millis() as u64,
                "the tunnel is offline: {reason}"
            );
        }
    }
}
