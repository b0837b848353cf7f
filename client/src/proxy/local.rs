//! Connections to the local service.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use http::uri::Scheme;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tracing::debug;

use super::body::RequestBody;
use super::pool::Connection;
use crate::connect::{connect_any, resolve};
use crate::target::{Address, Target};

/// What one HTTP/1.1 connection reads ahead; the longest head that the tunnel carries fits.
const H1_BUFFER: usize = 80 * 1024;
/// HTTP/2: how much of a response may be under way.
const H2_STREAM_WINDOW: u32 = 1024 * 1024;
/// HTTP/2: the same for the connection.
const H2_CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// HTTP/2: how much of a request's body may wait in one stream.
const H2_SEND_BUFFER: usize = 64 * 1024;
/// The longest header list that the tunnel carries.
const H2_HEADER_LIST: u32 = 64 * 1024;

/// Any byte stream to the service.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) type Io = TokioIo<Box<dyn Stream>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{0}")]
    Refused(io::Error),
    #[error("no answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
}

/// The local service and how to reach it.
#[derive(Debug)]
pub(super) struct Local {
    target: Target,
    own_host: HeaderValue,
    connect_timeout: Duration,
    tls: Arc<ClientConfig>,
    tls_http1: Arc<ClientConfig>,
    shared: Mutex<Shared>,
}

/// What is known of the service's HTTP/2.
#[derive(Debug)]
enum Shared {
    Unknown,
    Http2(http2::SendRequest<RequestBody>),
    Http1Only,
}

impl Local {
    pub(super) fn new(target: &Target, connect_timeout: Duration, trust: &ClientConfig) -> anyhow::Result<Self> {
        let own_host = match target {
            Target::Http(address) | Target::Https(address) | Target::H2c(address) => address.to_string(),
            Target::Unix(_) => "localhost".to_owned(),
        };
        let mut tls = trust.clone();
        if matches!(target, Target::Https(address) if is_loopback(&address.host)) {
            tls.dangerous().set_certificate_verifier(Arc::new(AnyCertificate(aws_lc_rs::default_provider())));
        }
        let mut tls_http1 = tls.clone();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tls_http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            own_host: HeaderValue::from_str(&own_host)?,
            target: target.clone(),
            connect_timeout,
            tls: Arc::new(tls),
            tls_http1: Arc::new(tls_http1),
            shared: Mutex::new(if matches!(target, Target::Http(_) | Target::Unix(_)) {
                Shared::Http1Only
            } else {
                Shared::Unknown
            }),
        })
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The target's own host and port, as Host has it.
    pub(super) fn own_host(&self) -> &HeaderValue {
        &self.own_host
    }

    /// The shared HTTP/2 connection; `None` if the service speaks HTTP/1.1.
    pub(super) async fn http2(&self) -> Result<Option<(http2::SendRequest<RequestBody>, Scheme)>, DialError> {
        let scheme = if matches!(self.target, Target::Https(_)) { Scheme::HTTPS } else { Scheme::HTTP };
        match &*self.shared.lock().unwrap_or_else(PoisonError::into_inner) {
            Shared::Http2(sender) if !sender.is_closed() => return Ok(Some((sender.clone(), scheme))),
            Shared::Http1Only => return Ok(None),
            _ => {}
        }
        let Some(io) = self.dial(false).await? else {
            *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Shared::Http1Only;
            return Ok(None);
        };
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(H2_STREAM_WINDOW)
            .initial_connection_window_size(H2_CONNECTION_WINDOW)
            .max_send_buf_size(H2_SEND_BUFFER)
            .max_header_list_size(H2_HEADER_LIST)
            .handshake(io);
        let (sender, connection) = self.within(async { handshake.await.map_err(io::Error::other) }).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "HTTP/2 connection to the service ended");
            }
        });
        // Two exchanges may have dialled at once; each goes on with its own, later ones share the last.
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Shared::Http2(sender.clone());
        Ok(Some((sender, scheme)))
    }

    /// A fresh HTTP/1.1 connection.
    pub(super) async fn http1(&self) -> Result<Connection, DialError> {
        let io = self.http1_io().await?;
        let handshake = http1::Builder::new().max_buf_size(H1_BUFFER).handshake(io);
        let (sender, driver) = handshake.await.map_err(|error| DialError::Refused(io::Error::other(error)))?;
        Ok(Connection::new(sender, driver))
    }

    /// A fresh byte stream for HTTP/1.1.
    pub(super) async fn http1_io(&self) -> Result<Io, DialError> {
        let none = || DialError::Refused(io::Error::other("the service does not speak HTTP/1.1"));
        self.dial(true).await?.ok_or_else(none)
    }

    /// A fresh byte stream; `None` if HTTP/2 was wanted over TLS and the service has none.
    async fn dial(&self, http1: bool) -> Result<Option<Io>, DialError> {
        let stream: Option<Box<dyn Stream>> = match &self.target {
            Target::Unix(path) => Some(Box::new(self.within(UnixStream::connect(path)).await?)),
            // Prior knowledge goes for the whole service.
            Target::H2c(_) if http1 => None,
            Target::Http(address) | Target::H2c(address) => Some(Box::new(self.tcp(address).await?)),
            Target::Https(address) => {
                let tcp = self.tcp(address).await?;
                let name = ServerName::try_from(address.host.clone())
                    .map_err(|error| DialError::Refused(io::Error::other(error)))?;
                let config = if http1 { &self.tls_http1 } else { &self.tls };
                let tls = self.within(TlsConnector::from(config.clone()).connect(name, tcp)).await?;
                let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                (http1 || http2).then(|| Box::new(tls) as Box<dyn Stream>)
            }
        };
        Ok(stream.map(TokioIo::new))
    }

    async fn tcp(&self, address: &Address) -> Result<TcpStream, DialError> {
        let addresses = self.within(resolve(&address.host, address.port)).await?;
        let stream = connect_any(&addresses, self.connect_timeout).await.map_err(|error| self.failed(error))?;
        stream.set_nodelay(true).map_err(DialError::Refused)?;
        Ok(stream)
    }

    async fn within<T>(&self, dial: impl Future<Output = io::Result<T>>) -> Result<T, DialError> {
        match tokio::time::timeout(self.connect_timeout, dial).await {
            Ok(result) => result.map_err(|error| self.failed(error)),
            Err(_) => Err(DialError::TimedOut(self.connect_timeout)),
        }
    }

    fn failed(&self, error: io::Error) -> DialError {
        match error.kind() {
            io::ErrorKind::TimedOut => DialError::TimedOut(self.connect_timeout),
            _ => DialError::Refused(error),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Accepts whatever a service on this machine presents: developers sign their own certificates, and what listens on a
/// loopback address is on this machine whatever its certificate says.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
