//! DNS queries for the zone that the daemon answers for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cok_certs::dns::SolverError;
use cok_certs::dns::embedded::{self, Embedded, Sockets};
use tracing::{error, info};

use crate::service_manager;

/// How often the daemon tries again to bind an address.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// How often the log repeats a reason that stays the same.
const TELL_AGAIN: Duration = Duration::from_secs(3600);

/// Takes note of what became of an address; the service's status shows why one is not served.
pub(crate) fn note(responder: &Embedded, address: SocketAddr, bound: &Result<Sockets, SolverError>) {
    if responder.note(address, bound.as_ref().err()) {
        service_manager::status(&responder.refused().unwrap_or_default());
    }
}

/// Answers until it is dropped. It tries again and again to bind an address that could not be bound.
pub(crate) async fn serve(responder: Arc<Embedded>, address: SocketAddr, mut bound: Result<Sockets, SolverError>) {
    let mut told: Option<(SolverError, Instant)> = None;
    let sockets = loop {
        note(&responder, address, &bound);
        match bound {
            Ok(sockets) => break sockets,
            Err(error) => {
                if told.as_ref().is_none_or(|(before, at)| *before != error || at.elapsed() >= TELL_AGAIN) {
                    error!(event = "dns_unavailable", %error, "{error}; no certificate is ordered until this is mended");
                    told = Some((error, Instant::now()));
                }
                tokio::time::sleep(BIND_AGAIN).await;
            }
        }
        bound = embedded::bind(address);
    };
    let address = sockets.address;
    info!(event = "listening", listener = "dns", %address, "listening on {address} for DNS");
    embedded::serve(responder, sockets).await;
}
