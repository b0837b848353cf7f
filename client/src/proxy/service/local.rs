//! The local service, and the choice between an existing connection to it and a fresh one.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use cok_host::dial::first_of;
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::dial_error::{DialError, lookup_failed};
use super::h2_pool::{H2Pool, Lease};
use super::pool::{Connection, Grant, Permit, Pool, Starvation};
use super::tls::{HTTP_2, LocalTls};
use super::wire::{Ending, Wire};
use crate::server::{names_this_machine, resolve};
use crate::service::LocalService;
use crate::target::{Address, Target};
use crate::unix_socket;

pub(crate) use super::wire::Io;

/// A target's host that cannot stand in a request.
#[derive(Debug, thiserror::Error)]
#[error("cannot forward to \"{0}\": that is no host")]
pub(crate) struct InvalidHost(pub(crate) String);

/// A connection that an exchange can use.
pub(crate) enum Service {
    /// One that the exchange has for itself.
    Http1(Box<Connection>),
    /// One that it shares with others.
    Http2(Lease),
}

/// The local service and how to reach it.
#[derive(Debug)]
pub(crate) struct Local {
    target: Target,
    own_host: HeaderValue,
    connect_timeout: Duration,
    tls: LocalTls,
    pub(crate) pool: Arc<Pool>,
    h2_pool: Arc<H2Pool>,
    /// The HTTP version of the service: one of the values below.
    speaks: AtomicU8,
    /// Held while a connection is opened that others may share, so that they wait for it.
    opening: tokio::sync::Mutex<()>,
}

/// Values of [`Local::speaks`].
const UNKNOWN: u8 = 0;
const HTTP_1_1: u8 = 1;
const HTTP_2_0: u8 = 2;

impl Local {
    pub(crate) fn new(target: Target, connect_timeout: Duration, tls: LocalTls) -> Result<Self, InvalidHost> {
        let (own_host, speaks) = match &target {
            Target::Http(address) => (address.authority(80), HTTP_1_1),
            Target::Https(address) => (address.authority(443), UNKNOWN),
            Target::H2c(address) => (address.authority(80), HTTP_2_0),
            Target::Unix(_) | Target::Service(_) => ("localhost".to_owned(), HTTP_1_1),
        };
        Ok(Self {
            own_host: HeaderValue::from_str(&own_host).map_err(|_| InvalidHost(own_host))?,
            target,
            connect_timeout,
            tls,
            pool: Pool::new(),
            h2_pool: Arc::default(),
            speaks: AtomicU8::new(speaks),
            opening: tokio::sync::Mutex::default(),
        })
    }

    /// The target.
    #[cfg(feature = "trace")]
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// The target's own host and port, as Host has it.
    pub(crate) fn own_host(&self) -> &HeaderValue {
        &self.own_host
    }

    /// The service, if it is in this process. It needs no connection, but for upgrades.
    pub(crate) fn in_process(&self) -> Option<&LocalService> {
        match &self.target {
            Target::Service(service) => Some(service),
            _ => None,
        }
    }

    /// A connection for a request with these fields. A `fresh` one was never idle, so it has not met an idle timeout of the service.
    pub(crate) async fn connect(&self, headers: &HeaderMap, fresh: bool) -> Result<Service, DialError> {
        if let Some(lease) = self.lease() {
            return Ok(Service::Http2(lease));
        }
        if self.speaks.load(Ordering::Relaxed) != HTTP_1_1 {
            // Dialling is rare and its future is large. A box keeps it out of every exchange's future.
            let service = Box::pin(self.in_time(async {
                let _opening = self.opening.lock().await;
                if let Some(lease) = self.lease() {
                    return Ok(Some(Service::Http2(lease)));
                }
                // Another exchange may have found out meanwhile.
                if self.speaks.load(Ordering::Relaxed) == HTTP_1_1 {
                    return Ok(None);
                }
                self.open(false, self.pool.open()).await.map(Some)
            }));
            if let Some(service) = service.await? {
                return Ok(service);
            }
        }
        let permit = match if fresh { Grant::Open(self.pool.open()) } else { self.pool.acquire(headers).await } {
            Grant::Connection(connection) => return Ok(Service::Http1(connection)),
            Grant::Open(permit) => permit,
        };
        Box::pin(self.in_time(self.open(true, permit))).await
    }

    /// A connection that can be upgraded, for a request with these fields.
    pub(crate) async fn connect_http1(&self, headers: &HeaderMap) -> Result<Box<Connection>, DialError> {
        if matches!(self.target, Target::H2c(_)) {
            return Err(self.without_upgrades());
        }
        let permit = match self.pool.acquire(headers).await {
            Grant::Connection(connection) => return Ok(connection),
            Grant::Open(permit) => permit,
        };
        match self.in_time(self.open(true, permit)).await? {
            Service::Http1(connection) => Ok(connection),
            Service::Http2(_) => Err(self.without_upgrades()),
        }
    }

    fn lease(&self) -> Option<Lease> {
        let scheme = if matches!(self.target, Target::Https(_)) { &Scheme::HTTPS } else { &Scheme::HTTP };
        self.h2_pool.lease(scheme)
    }

    async fn in_time<T>(&self, dial: impl Future<Output = io::Result<T>>) -> Result<T, DialError> {
        let result = tokio::time::timeout(self.connect_timeout, dial).await;
        result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| self.failed(&error))
    }

    fn without_upgrades(&self) -> DialError {
        DialError::Mismatch {
            to: self.target.to_string(),
            why: "it speaks HTTP/2 only, which has no upgrades".to_owned(),
        }
    }

    /// The failure with the service's address, for messages.
    fn failed(&self, error: &io::Error) -> DialError {
        let to = match &self.target {
            Target::Http(address) | Target::Https(address) | Target::H2c(address) => address.to_string(),
            Target::Unix(_) | Target::Service(_) => self.target.to_string(),
        };
        DialError::new(to, self.connect_timeout, error)
    }

    async fn open(&self, http1_only: bool, permit: Permit) -> io::Result<Service> {
        let mut starvation = Starvation::of(&permit);
        let mut dial = pin!(self.dial(http1_only, permit));
        let mut service = poll_fn(|cx| {
            starvation.poll(cx, false);
            dial.as_mut().poll(cx)
        })
        .await?;
        if let Service::Http1(connection) = &mut service {
            connection.starvation = Some(starvation);
        }
        Ok(service)
    }

    async fn dial(&self, http1_only: bool, permit: Permit) -> io::Result<Service> {
        match &self.target {
            Target::Service(service) => http1(Box::new(service.connect()), Ending::Strict, permit).await,
            Target::Unix(path) => http1(Box::new(unix_socket::connect(path).await?), Ending::Strict, permit).await,
            Target::Http(address) => http1(Box::new(self.tcp(address).await?), Ending::Strict, permit).await,
            Target::H2c(address) => {
                let wire = Wire::http2(Box::new(self.tcp(address).await?), Ending::Strict);
                self.http2(wire, &Scheme::HTTP).await
            }
            Target::Https(address) => {
                let tcp = self.tcp(address).await?;
                // A name that a resolver leads here proves nothing about who answers there.
                let is_loopback = names_this_machine(&address.host) && tcp.peer_addr()?.ip().is_loopback();
                let config = self.tls.config(is_loopback, http1_only);
                let name = ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
                let stream = TlsConnector::from(config).connect(name, tcp).await?;
                // No other machine can cut a connection within this one, so its end needs no proof.
                let ending = if is_loopback { Ending::Lenient } else { Ending::Strict };
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
                if !http1_only {
                    self.speaks.store(if is_http2 { HTTP_2_0 } else { HTTP_1_1 }, Ordering::Relaxed);
                }
                if is_http2 {
                    self.http2(Wire::http2(Box::new(stream), ending), &Scheme::HTTPS).await
                } else {
                    http1(Box::new(stream), ending, permit).await
                }
            }
        }
    }

    async fn http2(&self, wire: Wire, scheme: &Scheme) -> io::Result<Service> {
        Ok(Service::Http2(self.h2_pool.open(wire, scheme).await.map_err(io::Error::other)?))
    }

    async fn tcp(&self, address: &Address) -> io::Result<TcpStream> {
        let addresses = resolve(&address.host, address.port).await.map_err(lookup_failed)?;
        let stream = first_of(&addresses, TcpStream::connect).await.map_err(most_telling)?;
        cok_transport::tcp::tune(&stream)?;
        Ok(stream)
    }
}

/// The most telling of all addresses' failures: the first of an address that this machine can reach.
fn most_telling(failures: Vec<io::Error>) -> io::Error {
    let unreachable = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::AddrNotAvailable
        )
    };
    let told = failures.into_iter().rev().max_by_key(|error| !unreachable(error));
    told.unwrap_or_else(|| io::Error::other("the name has no address"))
}

async fn http1(io: Io, ending: Ending, mut permit: Permit) -> io::Result<Service> {
    let mut connection = Box::new(Connection::open(io, ending).await?);
    permit.opened();
    connection.permit = Some(permit);
    Ok(Service::Http1(connection))
}
