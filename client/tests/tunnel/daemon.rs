//! As much of a daemon as a tunnel sees, and a client for it.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use cok_client::{
    ClientBuilder, ClientOptions, Event, HostHeader, Refused, Server, TargetTrust, TransportChoice, TunnelOptions,
    Upgrades, trust_file,
};
use cok_proto::message::DEFAULT_WINDOW;
use cok_proto::{Bind, Bound, Connect, ConnectAck, ErrorCode, ErrorMessage, TunnelFrame};
use cok_transport::{Config, Congestion, Handshake, Transport, WindowBudget, quic, ws};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon that does what each test says.
pub(crate) struct Daemon {
    pub(crate) listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    ca: tempfile::NamedTempFile,
}

impl Daemon {
    pub(crate) async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["tunnel.test".to_owned()]).unwrap();
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.unwrap().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, tls: Arc::new(config.unwrap()), ca }
    }

    /// A client for it that forwards to `target`, and what is heard of it.
    pub(crate) fn client(&self, target: &str, subdomain: Option<&str>) -> Client {
        self.client_by(TransportChoice::Ws, PATIENCE, target, subdomain)
    }

    /// The same, with a choice of transports.
    pub(crate) fn client_by(
        &self,
        transport: TransportChoice,
        probe_interval: Duration,
        target: &str,
        subdomain: Option<&str>,
    ) -> Client {
        let mut options = self.options(target, subdomain);
        (options.0.transport, options.0.probe_interval) = (transport, probe_interval);
        Client::start(options)
    }

    /// What a client for it needs that forwards to `target` over WebSocket.
    pub(crate) fn options(&self, target: &str, subdomain: Option<&str>) -> (ClientOptions, TunnelOptions) {
        let tls = trust_file(self.ca.path()).unwrap();
        let client = ClientOptions {
            server: "https://tunnel.test".parse::<Server>().unwrap(),
            connect_to: Some(self.listener.local_addr().unwrap()),
            proxy: None,
            transport: TransportChoice::Ws,
            quic: quic::Dialer::new(&tls, &quic::Tuning::default()).unwrap(),
            congestion: Congestion::default(),
            probe_interval: PATIENCE,
            tls,
            key: "key".to_owned(),
            name_timeout: Duration::ZERO,
            keep_trying: false,
            log_queries: false,
            instance: "instance".to_owned(),
        };
        (client, tunnel(target, subdomain))
    }

    /// The settings of a client for it, as a library has them.
    pub(crate) fn builder(&self) -> ClientBuilder {
        let builder = cok_client::Client::builder("https://tunnel.test", "key").ca_file(self.ca.path());
        builder.connect_to(self.listener.local_addr().unwrap()).transport(TransportChoice::Ws).instance("instance")
    }

    /// Begins to take QUIC connections on the port of the listener.
    pub(crate) fn quic(&self) -> quinn::Endpoint {
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = vec![quic::ALPN.to_vec()];
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        config.transport_config(quic::server_transport(&quic::Tuning::default(), 256 * 1024, PATIENCE));
        quinn::Endpoint::server(config, self.listener.local_addr().unwrap()).unwrap()
    }

    /// The next client that asks for a session, and what it asks for.
    pub(crate) async fn asked(&self) -> (Box<dyn Handshake>, Connect) {
        let asked = async {
            let stream = self.upgraded().await;
            let handshake = ws::accept(stream, Vec::new(), |_| 0, config(), PATIENCE).await.unwrap();
            let connect = handshake.connect().clone();
            (handshake, connect)
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("a client must come")
    }

    /// The next client's connection, as far as its upgrade to a WebSocket.
    pub(crate) async fn upgraded(&self) -> TlsStream<TcpStream> {
        let upgraded = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(self.tls.clone()).accept(stream).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
            }
            let head = String::from_utf8(head).unwrap();
            let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
            let response = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 sec-websocket-protocol: cok.v1\r\nsec-websocket-accept: {}\r\n\r\n",
                ws::accept_key(key.as_bytes())
            );
            stream.write_all(response.as_bytes()).await.unwrap();
            stream
        };
        tokio::time::timeout(PATIENCE, upgraded).await.expect("a client must come")
    }
}

fn config() -> Config {
    Config { initial_window: DEFAULT_WINDOW, max_exchanges: 10, budget: WindowBudget::new(1 << 20) }
}

/// The next client that asks for a session over QUIC, and what it asks for.
pub(crate) async fn asked_over(quic: &quinn::Endpoint) -> (Box<dyn Handshake>, Connect) {
    let asked = async {
        loop {
            // A client that finds the WebSocket quicker gives its connection up.
            let Ok(connection) = quic.accept().await.unwrap().await else { continue };
            if let Ok(handshake) = quic::accept(connection, config(), PATIENCE).await {
                let connect = handshake.connect().clone();
                return (handshake, connect);
            }
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("a client must come")
}

/// What a client needs for a tunnel to `target`.
pub(crate) fn tunnel(target: &str, subdomain: Option<&str>) -> TunnelOptions {
    TunnelOptions {
        label: None,
        subdomain: subdomain.map(str::to_owned),
        rules: cok_client::Rules::default(),
        target: target.parse().unwrap(),
        host_header: HostHeader::Preserve,
        target_trust: TargetTrust::System,
        upgrades: Upgrades::default(),
        response_timeout: None,
        connect_timeout: PATIENCE,
    }
}

/// A session that was granted, and its first tunnel.
pub(crate) struct Session {
    pub(crate) transport: Arc<dyn Transport>,
    /// The tunnel's id.
    pub(crate) tunnel: u32,
    /// The name that the client asked for.
    pub(crate) wanted: Option<String>,
}

impl Deref for Session {
    type Target = dyn Transport;

    fn deref(&self) -> &Self::Target {
        &*self.transport
    }
}

/// Grants a session without a tunnel.
pub(crate) fn accept(handshake: Box<dyn Handshake>, session: &str, moved: &[(u32, Bound)]) -> Arc<dyn Transport> {
    let ack = ConnectAck {
        session: session.to_owned(),
        moved: u32::try_from(moved.len()).unwrap(),
        initial_window: DEFAULT_WINDOW,
        max_exchanges: 10,
        ..ConnectAck::default()
    };
    handshake.accept(&ack, moved).uncork()
}

/// The next Bind.
pub(crate) async fn asked_for(transport: &dyn Transport) -> (u32, Bind) {
    match tokio::time::timeout(PATIENCE, transport.tunnel_frame()).await.expect("a Bind must come") {
        Some((id, TunnelFrame::Bind(bind))) => (id, bind),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn bound(name: &str) -> Bound {
    Bound { subdomain: name.to_owned(), url: format!("https://{name}.tunnel.test") }
}

/// Grants a session and the tunnel that its client then asks for.
pub(crate) async fn grant(handshake: Box<dyn Handshake>, session: &str, name: &str) -> Session {
    let transport = accept(handshake, session, &[]);
    let (tunnel, bind) = asked_for(&*transport).await;
    assert!(transport.answer_bind(tunnel, Ok(bound(name))));
    Session { transport, tunnel, wanted: bind.subdomain }
}

/// Grants a session to which this tunnel moves.
pub(crate) fn grant_moved(handshake: Box<dyn Handshake>, session: &str, name: &str, tunnel: u32) -> Session {
    let transport = accept(handshake, session, &[(tunnel, bound(name))]);
    Session { transport, tunnel, wanted: None }
}

pub(crate) fn refusal(code: ErrorCode) -> ErrorMessage {
    ErrorMessage { code, message: "no".to_owned(), retryable: false }
}

/// A running client with a tunnel, and what is heard of them.
pub(crate) struct Client {
    /// Opens more tunnels.
    pub(crate) opener: cok_client::Client,
    events: mpsc::UnboundedReceiver<Event>,
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), Refused>>,
}

impl Client {
    pub(crate) fn start((options, tunnel): (ClientOptions, TunnelOptions)) -> Self {
        let (client, driver) = cok_client::Client::new(options);
        client.open(tunnel).unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running = tokio::spawn(async move { driver.run(stopped, |event| drop(sender.send(event))).await });
        Self { opener: client, events, stop, running }
    }

    /// What happens next, after the first word of each tunnel.
    pub(crate) async fn event(&mut self) -> Event {
        loop {
            let event = self.any_event().await;
            if !matches!(event, Event::Connecting { .. }) {
                return event;
            }
        }
    }

    pub(crate) async fn any_event(&mut self) -> Event {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("something must happen").unwrap()
    }

    pub(crate) async fn connected(&mut self) -> String {
        match self.event().await {
            Event::Connected { session, .. } => session,
            other => panic!("{other:?}"),
        }
    }

    /// Expects a fall-back to WebSocket; why.
    pub(crate) async fn fell_back(&mut self) -> String {
        let why = match self.event().await {
            Event::Fallback { from: "quic", to: "ws", reason } => reason,
            other => panic!("{other:?}"),
        };
        match self.event().await {
            Event::Connected { transport: "ws", reason, .. } => assert_eq!(reason, why),
            other => panic!("{other:?}"),
        }
        why
    }

    pub(crate) async fn disconnected(&mut self) -> String {
        match self.event().await {
            Event::Disconnected { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn end(self) -> Result<(), Refused> {
        tokio::time::timeout(PATIENCE, self.running).await.expect("the tunnel must end").unwrap()
    }
}
