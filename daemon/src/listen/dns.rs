//! DNS queries for the zone that the daemon answers for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cok_certs::dns::SolverError;
use cok_certs::dns::embedded::{self, Embedded, Sockets};
use tracing::{error, info};

use crate::host::activation::Inherited;
use crate::host::notify;

/// The interval at which the daemon tries again to bind an address.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// The interval at which the log repeats an unchanged reason.
const TELL_AGAIN: Duration = Duration::from_secs(3600);

/// The responder for the DNS zone, with its addresses. An address that cannot be bound does not prevent the start; the
/// daemon tries again.
pub(crate) struct Dns {
    responder: Arc<Embedded>,
    addresses: Vec<(SocketAddr, Result<Sockets, SolverError>)>,
}

impl Dns {
    /// Binds all addresses, unless sockets were handed over.
    pub(crate) fn bind(
        responder: Arc<Embedded>,
        addresses: &[SocketAddr],
        inherited: &mut Inherited,
    ) -> anyhow::Result<Self> {
        let mut bound = Vec::new();
        for (udp, tcp) in inherited.dns_udp.drain(..).zip(inherited.dns_tcp.drain(..)) {
            let sockets = Sockets::from_std(udp, tcp).context("a DNS socket that was handed over")?;
            bound.push((sockets.address, Ok(sockets)));
        }
        if bound.is_empty() {
            bound = addresses.iter().map(|address| (*address, embedded::bind(*address))).collect();
        }
        Ok(Self { responder, addresses: bound })
    }

    /// A task for each address. It answers until it is dropped.
    pub(crate) fn serve(self) -> impl Iterator<Item = impl Future<Output = ()> + Send + 'static> {
        let Self { responder, addresses } = self;
        addresses.into_iter().map(move |(address, bound)| {
            // Reports the state before the daemon reports that it is ready.
            note(&responder, address, &bound);
            serve(responder.clone(), address, bound)
        })
    }
}

/// Records whether an address is served. The service's status line shows why one is not.
fn note(responder: &Embedded, address: SocketAddr, bound: &Result<Sockets, SolverError>) {
    if responder.note(address, bound.as_ref().err()) {
        notify::status(&responder.refused().unwrap_or_default());
    }
}

/// Answers until it is dropped. It keeps trying to bind an address that could not be bound.
async fn serve(responder: Arc<Embedded>, address: SocketAddr, mut bound: Result<Sockets, SolverError>) {
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
