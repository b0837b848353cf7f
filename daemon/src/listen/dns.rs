//! DNS queries for the zone that the daemon answers for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cok_certs::dns::embedded::{self, Embedded, Sockets};
use tracing::{error, info};

/// How often an address is tried again that another program has.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// Answers until it is dropped. An address that could not be bound is tried again and again.
pub(crate) async fn serve(responder: Arc<Embedded>, address: SocketAddr, mut bound: Option<Sockets>) {
    let sockets = loop {
        match bound.take().map_or_else(|| embedded::bind(address), Ok) {
            Ok(sockets) => break sockets,
            Err(error) => {
                error!(event = "dns_unavailable", %error, "{error}; certificates can't be renewed until this is mended");
                tokio::time::sleep(BIND_AGAIN).await;
            }
        }
    };
    let address = sockets.address;
    info!(event = "listening", listener = "dns", %address, "listening on {address} for DNS");
    embedded::serve(responder, sockets).await;
}
