//! Connections through a proxy: by CONNECT of HTTP (RFC 9110, section 9.3.6), or by SOCKS5 (RFC 1928 and 1929).
//!
//! The proxy is not trusted: what it says is bounded in size and time, and TLS with the daemon runs through it.

use std::net::SocketAddr;
use std::time::Duration;

use cok_host::dial::first_of;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

use super::failure::Cause;
use super::proxy_failure::{ProxyFailure, Why};
use super::{Stream, TLS, dial_tcp, furthest, http_connect, socks};
use crate::outbound::{Kind, Outbound, ProxyUrl};
use crate::server::resolve;
use crate::target::Address;

/// Timeout of a proxy's answer. Before it answers, it resolves a name and connects.
const ANSWER: Duration = Duration::from_secs(15);

/// A connection to the host through the proxy, to `connect_to` in the host's place.
pub(super) async fn open(outbound: &Outbound, host: &Address, connect_to: Option<SocketAddr>) -> Result<Stream, Cause> {
    let proxy = &outbound.proxy;
    let failed = |why| Cause::Proxy(Box::new(ProxyFailure::new(outbound, host, why)));
    let to = match connect_to {
        Some(address) => vec![To::Address(address)],
        None if proxy.kind == Kind::Socks5 => {
            let found = resolve(&host.host, host.port).await.map_err(|error| Cause::of_lookup(&error))?;
            found.into_iter().map(To::Address).collect()
        }
        None => vec![To::Name(host)],
    };
    let mut last = None;
    // The proxy has an address of its own for each name. Only a user who wants names resolved here has several.
    for to in to.iter().take(MOST_TRIES) {
        let stream = connection(outbound).await.map_err(failed)?;
        match timeout(ANSWER, ask(proxy, stream, to)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(why)) if why.is_about_the_address() => last = Some(why),
            Ok(Err(why)) => return Err(failed(why)),
            Err(_) => last = Some(Why::Silent(ANSWER)),
        }
    }
    Err(last.map_or_else(|| Cause::Unresolved("it has no address".to_owned()), failed))
}

/// The most addresses that a proxy is asked for. Each may take its whole timeout.
const MOST_TRIES: usize = 3;

/// What a proxy is asked to connect to.
pub(super) enum To<'a> {
    Address(SocketAddr),
    Name(&'a Address),
}

/// A connection to the proxy itself.
async fn connection(outbound: &Outbound) -> Result<Stream, Why> {
    let Address { host, port } = &outbound.proxy.address;
    let unreachable = |cause| Why::Unreachable(Box::new(cause));
    let addresses = resolve(host, *port).await.map_err(|error| unreachable(Cause::of_lookup(&error)))?;
    let stream = first_of(&addresses, dial_tcp).await.map_err(|failures| unreachable(furthest(failures)))?;
    let Some(tls) = &outbound.tls else { return Ok(Either::Left(stream)) };
    let name = ServerName::try_from(host.clone()).map_err(|error| unreachable(Cause::BadName(error.to_string())))?;
    match timeout(TLS, TlsConnector::from(tls.clone()).connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(Either::Right(Box::new(stream))),
        Ok(Err(error)) => Err(unreachable(Cause::of_tls(&error))),
        Err(_) => Err(unreachable(Cause::Silent { step: "the TLS handshake", within: TLS })),
    }
}

async fn ask(proxy: &ProxyUrl, mut stream: Stream, to: &To<'_>) -> Result<Stream, Why> {
    if let Kind::Http | Kind::Https = proxy.kind {
        let authority = match to {
            To::Address(address) => address.to_string(),
            To::Name(host) => host.to_string(),
        };
        http_connect::ask(&mut stream, &authority, proxy.basic()).await?;
        return Ok(stream);
    }
    match stream {
        Either::Left(stream) => socks::ask(stream, to, proxy.credentials()).await.map(Either::Left),
        // There is no SOCKS over TLS.
        Either::Right(_) => Err(Why::NotAProxy("it speaks TLS".to_owned())),
    }
}

/// The TCP connection under a stream.
pub(super) fn tcp(stream: &Stream) -> &TcpStream {
    match stream {
        Either::Left(tcp) => tcp,
        Either::Right(tls) => tls.get_ref().0,
    }
}
