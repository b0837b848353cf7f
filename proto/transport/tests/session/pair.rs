//! Two ends of a session over loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cok_proto::{Connect, ConnectAck, RequestHead, ResponseHead, Scheme};
use cok_transport::quic::{self, Dialer, Link, Session, Tuning};
use cok_transport::{Config, ExchangeHalves, Incoming, Received, Transport, WindowBudget};
use http::{HeaderMap, Method, StatusCode};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, ServerConfig};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const MIB: usize = 1024 * 1024;

/// A daemon's endpoint, and a dialer that trusts it.
pub(crate) struct Ends {
    pub(crate) server: Endpoint,
    pub(crate) dialer: Dialer,
    pub(crate) tls: rustls::ClientConfig,
}

impl Ends {
    pub(crate) fn new() -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let certificate: CertificateDer<'static> = cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
        tls.alpn_protocols = vec![quic::ALPN.to_vec()];
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        config.transport_config(quic::server_transport(&Tuning::default(), 256 * 1024, Duration::from_secs(60)));
        let server = Endpoint::server(config, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { server, dialer: Dialer::new(&tls, &Tuning::default()).unwrap(), tls }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.local_addr().unwrap()
    }

    pub(crate) async fn link(&self) -> (Link, quinn::Connection) {
        let (link, connection) = tokio::join!(self.dialer.dial(self.address(), "localhost", LIMIT), async {
            self.server.accept().await.unwrap().await.unwrap()
        });
        (link.unwrap(), connection)
    }

    /// A session with these limits on the daemon.
    pub(crate) async fn session(&self, daemon: Config) -> Pair {
        let (link, connection) = self.link().await;
        let most = daemon.max_exchanges;
        let ask = connect();
        let (session, transport) = tokio::join!(link.connect(config(), &ask, &[], LIMIT), async {
            let handshake = quic::accept(connection, daemon, LIMIT).await.unwrap();
            assert_eq!(handshake.connect().instance, "i");
            handshake.accept(&ConnectAck { max_exchanges: most, ..ack() }, &[]).uncork()
        });
        let Session { transport: client, ack, path } = session.unwrap();
        assert_eq!(ack.session, "s");
        Pair { daemon: transport, client, path }
    }
}

/// Both sides of a session.
pub(crate) struct Pair {
    pub(crate) daemon: Arc<dyn Transport>,
    pub(crate) client: Arc<dyn Transport>,
    pub(crate) path: quic::PathLiveness,
}

impl Pair {
    /// A session with the default limits.
    pub(crate) async fn new() -> (Self, Ends) {
        let ends = Ends::new();
        (ends.session(config()).await, ends)
    }

    /// An exchange on both sides.
    pub(crate) async fn exchange(&self, end: bool) -> (ExchangeHalves, Incoming) {
        let asked = self.daemon.open(0, head("/"), end).unwrap();
        let incoming = soon(self.client.accept()).await.unwrap();
        assert_eq!(incoming.end, end);
        (asked, incoming)
    }
}

pub(crate) fn config() -> Config {
    Config { initial_window: 256 * 1024, max_exchanges: 1000, budget: WindowBudget::new(64 * MIB) }
}

pub(crate) fn connect() -> Connect {
    Connect { key: "k".to_owned(), instance: "i".to_owned(), ..Connect::default() }
}

/// Grants a session with a first tunnel.
pub(crate) fn ack() -> ConnectAck {
    ConnectAck {
        session: "s".to_owned(),
        subdomain: Some("demo".to_owned()),
        url: Some("https://demo.example.com".to_owned()),
        initial_window: 256 * 1024,
        max_exchanges: 1000,
        ..ConnectAck::default()
    }
}

pub(crate) fn head(target: &'static str) -> Arc<RequestHead> {
    Arc::new(RequestHead {
        method: Method::POST,
        target: target.parse().unwrap(),
        scheme: Scheme::Https,
        authority: "demo.example.com".parse().unwrap(),
        headers: HeaderMap::new(),
    })
}

pub(crate) fn ok() -> ResponseHead {
    ResponseHead::new(StatusCode::OK, HeaderMap::new())
}

/// Fails if the future takes longer than a noisy machine would need.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it takes too long")
}

/// Everything up to the end: the body, and the trailers if there are any.
pub(crate) async fn read_all(recv: &mut Box<dyn cok_transport::RecvHalf>) -> (Vec<u8>, Option<HeaderMap>) {
    let mut body = Vec::new();
    loop {
        match soon(recv.recv()).await.unwrap() {
            Received::Data { data, end } => {
                body.extend_from_slice(&data);
                if end {
                    return (body, None);
                }
            }
            Received::Trailers(fields) => return (body, Some(fields)),
            Received::Head { end: true, .. } => return (body, None),
            Received::Head { .. } => {}
        }
    }
}

/// Sends a body in pieces, as the peer takes them.
pub(crate) async fn send_all(send: &mut Box<dyn cok_transport::SendHalf>, body: &Bytes, piece: usize) {
    for start in (0..body.len()).step_by(piece) {
        soon(send.ready()).await.unwrap();
        send.send_data(body.slice(start..body.len().min(start + piece)), start + piece >= body.len());
    }
    if body.is_empty() {
        send.send_data(Bytes::new(), true);
    }
    // Everything has been handed to quinn.
    let _broken = send.ready().await;
}

/// A body of varying bytes.
pub(crate) fn noise(length: usize) -> Bytes {
    (0..length).map(|at| (at * 31 % 251) as u8).collect::<Vec<_>>().into()
}
