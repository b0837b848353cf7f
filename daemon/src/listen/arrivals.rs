//! How a connection over TCP gets in: past the limits, and past the PROXY protocol where that is spoken.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tracing::{debug, warn};

use super::seldom::Seldom;
use super::{Listen, proxy_protocol};
use crate::admission::{ConnectionPermit, Full, Waiting};
use crate::observe::{Limit, Rate};

/// When the log said last that there is no room.
static TOLD: Seldom = Seldom::new();

/// A connection that may come in, or has to wait.
pub(super) enum Entry {
    /// It has its permit.
    Admitted(ConnectionPermit),
    /// It has its permit, but its visitor's address is not known yet.
    Proxied(ConnectionPermit),
    /// It waits until idle connections make room.
    Waits(Waiting),
}

/// Looks at a fresh connection. `None` if it is refused, without a word: an answer would cost more.
pub(super) fn enter(listen: &Listen, peer: SocketAddr) -> Option<Entry> {
    let admission = &listen.admission;
    let proxied = admission.connections.speaks_proxy_protocol(peer.ip());
    if !proxied && let Err(error) = admission.rates.connection(peer.ip()) {
        listen.metrics.refusals.over(Rate::Connections);
        debug!(%peer, "{error}");
        return None;
    }
    match admission.connections.acquire_among_all() {
        Ok(permit) if proxied => Some(Entry::Proxied(permit)),
        Ok(mut permit) => {
            permit.count(&admission.connections, peer.ip()).inspect_err(|full| refused(listen, peer, *full)).ok()?;
            Some(Entry::Admitted(permit))
        }
        Err(full) => {
            if TOLD.is_due() {
                warn!(
                    event = "no_room",
                    "there are as many public connections as limits.max_connections allows; idle ones are closed"
                );
            }
            let waiting = admission.connections.wait(true);
            if waiting.is_none() {
                refused(listen, peer, full);
            }
            waiting.map(Entry::Waits)
        }
    }
}

impl Entry {
    /// Waits for room and reads what a proxy says. Returns the permit and the visitor's address.
    pub(super) async fn admit(
        self,
        listen: &Listen,
        stream: &mut TcpStream,
        peer: SocketAddr,
    ) -> Option<(ConnectionPermit, SocketAddr)> {
        let admission = &listen.admission;
        let mut permit = match self {
            Self::Admitted(permit) => return Some((permit, peer)),
            Self::Proxied(permit) => permit,
            Self::Waits(waiting) => waiting.room().await.inspect_err(|full| refused(listen, peer, *full)).ok()?,
        };
        let mut visitor = peer;
        if admission.connections.speaks_proxy_protocol(peer.ip()) {
            let said = tokio::select! {
                said = proxy_protocol::read(stream) => said,
                () = permit.member().is_shed() => return None,
            };
            match said {
                Ok(said) => visitor = said.unwrap_or(peer),
                Err(error) => {
                    debug!(%peer, %error, "no header of the PROXY protocol: {error}");
                    return None;
                }
            }
            if let Err(error) = admission.rates.connection(visitor.ip()) {
                listen.metrics.refusals.over(Rate::Connections);
                debug!(%visitor, "{error}");
                return None;
            }
        }
        permit.count(&admission.connections, visitor.ip()).inspect_err(|full| refused(listen, visitor, *full)).ok()?;
        Some((permit, visitor))
    }
}

/// Counts a connection beyond a limit.
pub(super) fn refused(listen: &Listen, peer: SocketAddr, full: Full) {
    let limit = match full {
        Full::InAll => Limit::Connections,
        Full::OfAddress => Limit::AddressConnections,
    };
    listen.metrics.refusals.beyond(limit);
    debug!(%peer, "{full}");
}
