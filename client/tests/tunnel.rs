//! A tunnel's life: sessions come and go, the name stays.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cok_client::{Event, HostHeader, Options, Refused, Server, TransportChoice, Tunnel, trust_file};
use cok_proto::message::DEFAULT_WINDOW;
use cok_proto::{Connect, ConnectAck, DrainReason, ErrorCode, ErrorMessage, RequestHead, Scheme};
use cok_transport::{Config, Congestion, Exchange, Handshake, Received, Transport, WindowBudget, quic, ws};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// As much of a daemon as a tunnel sees.
struct Daemon {
    listener: TcpListener,
    tls: TlsAcceptor,
    ca: tempfile::NamedTempFile,
}

impl Daemon {
    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["tunnel.test".to_owned()]).unwrap();
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.unwrap().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, tls: TlsAcceptor::from(Arc::new(config.unwrap())), ca }
    }

    /// A client for it that forwards to `target`, and what is heard of it.
    fn client(&self, target: &str, subdomain: Option<&str>) -> Client {
        self.client_by(TransportChoice::Ws, target, subdomain)
    }

    fn client_by(&self, transport: TransportChoice, target: &str, subdomain: Option<&str>) -> Client {
        let tls = trust_file(self.ca.path()).unwrap();
        let options = Options {
            server: "https://tunnel.test".parse::<Server>().unwrap(),
            connect_to: Some(self.listener.local_addr().unwrap()),
            transport,
            quic: quic::Dialer::new(&tls, &quic::Tuning::default()).unwrap(),
            congestion: Congestion::default(),
            probe_interval: PATIENCE,
            tls,
            key: "key".to_owned(),
            subdomain: subdomain.map(str::to_owned),
            instance: "instance".to_owned(),
            target: target.parse().unwrap(),
            host_header: HostHeader::Preserve,
            response_timeout: None,
            connect_timeout: PATIENCE,
        };
        let (sender, events) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let tunnel = Tunnel::new(options).unwrap();
        let stopped = stop.clone();
        let running = tokio::spawn(async move { tunnel.run(stopped, |event| drop(sender.send(event))).await });
        Client { events, stop, running }
    }

    /// The next client that asks for a session, and what it asks for.
    async fn asked(&self) -> (Box<dyn Handshake>, Connect) {
        let asked = async {
            let stream = self.upgraded().await;
            let budget = WindowBudget::new(1 << 20);
            let config = Config { initial_window: DEFAULT_WINDOW, max_exchanges: 10, budget };
            let handshake = ws::accept(stream, Vec::new(), config, PATIENCE).await.unwrap();
            let connect = handshake.connect().clone();
            (handshake, connect)
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("a client must come")
    }

    /// The next client's connection, as far as its upgrade to a WebSocket.
    async fn upgraded(&self) -> TlsStream<TcpStream> {
        let upgraded = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            let mut stream = self.tls.accept(stream).await.unwrap();
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

fn grant(handshake: Box<dyn Handshake>, session: &str, name: &str) -> Arc<dyn Transport> {
    handshake.accept(&ConnectAck {
        session: session.to_owned(),
        subdomain: name.to_owned(),
        url: format!("https://{name}.tunnel.test"),
        initial_window: DEFAULT_WINDOW,
        max_exchanges: 10,
        features: Vec::new(),
    })
}

fn refusal(code: ErrorCode) -> ErrorMessage {
    ErrorMessage { code, message: "no".to_owned(), retryable: false }
}

struct Client {
    events: mpsc::UnboundedReceiver<Event>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), Refused>>,
}

impl Client {
    async fn event(&mut self) -> Event {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("something must happen").unwrap()
    }

    async fn connected(&mut self) -> String {
        match self.event().await {
            Event::Connected { session, .. } => session,
            other => panic!("{other:?}"),
        }
    }

    async fn disconnected(&mut self) -> String {
        match self.event().await {
            Event::Disconnected { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    async fn end(self) -> Result<(), Refused> {
        tokio::time::timeout(PATIENCE, self.running).await.expect("the tunnel must end").unwrap()
    }
}

/// A service whose answer waits until it is told to go on; its port, and how to tell it.
async fn slow_service() -> (String, mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (go_on, mut may_go_on) = mpsc::channel::<()>(1);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await.unwrap();
        may_go_on.recv().await.unwrap();
        stream.write_all(b"done").await.unwrap();
        // Until the client is done with it.
        assert_eq!(stream.read(&mut [0; 4096]).await.unwrap_or(0), 0);
    });
    (port.to_string(), go_on)
}

fn open(transport: &dyn Transport) -> Exchange {
    let head = RequestHead {
        method: Method::GET,
        target: PathAndQuery::from_static("/"),
        scheme: Scheme::Https,
        authority: Authority::from_static("demo.tunnel.test"),
        headers: HeaderMap::new(),
    };
    transport.open(Arc::new(head), true).unwrap()
}

async fn head(exchange: &mut Exchange) -> u16 {
    match tokio::time::timeout(PATIENCE, exchange.recv.recv()).await.unwrap().unwrap() {
        Received::Head { head, .. } => head.status.as_u16(),
        other => panic!("{other:?}"),
    }
}

async fn body(exchange: &mut Exchange) -> Received {
    tokio::time::timeout(PATIENCE, exchange.recv.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_lost_session_is_followed_by_one_of_the_same_name() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client("1", None);
    let (handshake, connect) = daemon.asked().await;
    assert_eq!((connect.key.as_str(), connect.subdomain, connect.instance.as_str()), ("key", None, "instance"));
    let session = grant(handshake, "s1", "picked");
    assert_eq!(client.connected().await, "s1");
    session.close(ErrorMessage { code: ErrorCode::Internal, message: "oops".to_owned(), retryable: true });
    assert!(client.disconnected().await.contains("oops"));
    let (handshake, connect) = daemon.asked().await;
    assert_eq!((connect.subdomain.as_deref(), connect.replaces), (Some("picked"), None));
    let session = grant(handshake, "s2", "picked");
    assert_eq!(client.connected().await, "s2");

    // Somebody else has the picked name by now.
    session.close(ErrorMessage { code: ErrorCode::Internal, message: "oops".to_owned(), retryable: true });
    client.disconnected().await;
    daemon.asked().await.0.refuse(&refusal(ErrorCode::NameTaken));
    client.disconnected().await;
    let (handshake, connect) = daemon.asked().await;
    assert_eq!(connect.subdomain, None);
    grant(handshake, "s3", "another");
    assert_eq!(client.connected().await, "s3");
    client.stop.cancel();
    client.end().await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_final() {
    let daemon = Daemon::start().await;
    for (code, subdomain) in [(ErrorCode::Unauthorized, None), (ErrorCode::NameTaken, Some("wanted"))] {
        let client = daemon.client("1", subdomain);
        let (handshake, connect) = daemon.asked().await;
        assert_eq!(connect.subdomain.as_deref(), subdomain);
        handshake.refuse(&refusal(code.clone()));
        assert_eq!(client.end().await.unwrap_err().0.code, code);
    }
    // Likewise once it is online.
    let mut client = daemon.client("1", None);
    let session = grant(daemon.asked().await.0, "s1", "picked");
    client.connected().await;
    session.close(refusal(ErrorCode::Replaced));
    assert_eq!(client.end().await.unwrap_err().0.code, ErrorCode::Replaced);
}

#[tokio::test]
async fn a_draining_session_finishes_beside_its_successor() {
    let (target, go_on) = slow_service().await;
    let daemon = Daemon::start().await;
    let mut client = daemon.client(&target, Some("demo"));
    let session = grant(daemon.asked().await.0, "s1", "demo");
    client.connected().await;
    let mut exchange = open(&*session);
    assert_eq!(head(&mut exchange).await, 200);
    session.drain(DrainReason::Restart, PATIENCE);
    // The first attempt fails, and the next one still says whom it replaces.
    let retry = ErrorMessage { retryable: true, ..refusal(ErrorCode::Internal) };
    daemon.asked().await.0.refuse(&retry);
    client.disconnected().await;
    let (handshake, connect) = daemon.asked().await;
    assert_eq!(connect.replaces.as_deref(), Some("s1"));
    grant(handshake, "s2", "demo");
    assert_eq!(client.connected().await, "s2");
    go_on.send(()).await.unwrap();
    assert_eq!(body(&mut exchange).await, Received::Data { data: Bytes::from_static(b"done"), end: true });
    client.stop.cancel();
    client.end().await.unwrap();
}

#[tokio::test]
async fn stopping_lets_running_exchanges_finish() {
    let (target, go_on) = slow_service().await;
    let daemon = Daemon::start().await;
    let mut client = daemon.client(&target, Some("demo"));
    let session = grant(daemon.asked().await.0, "s1", "demo");
    client.connected().await;
    let mut exchange = open(&*session);
    assert_eq!(head(&mut exchange).await, 200);
    client.stop.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!client.running.is_finished());
    go_on.send(()).await.unwrap();
    assert_eq!(body(&mut exchange).await, Received::Data { data: Bytes::from_static(b"done"), end: true });
    drop(exchange);
    client.end().await.unwrap();
}

#[tokio::test]
async fn a_daemon_that_leaves_is_asked_again() {
    let (target, go_on) = slow_service().await;
    let daemon = Daemon::start().await;
    let mut client = daemon.client(&target, Some("demo"));
    let session = grant(daemon.asked().await.0, "s1", "demo");
    client.connected().await;
    let mut exchange = open(&*session);
    assert_eq!(head(&mut exchange).await, 200);
    session.drain(DrainReason::Shutdown, PATIENCE);
    assert!(client.disconnected().await.contains("shutting down"));
    let _next = grant(daemon.asked().await.0, "s2", "demo");
    assert_eq!(client.connected().await, "s2");
    go_on.send(()).await.unwrap();
    assert_eq!(body(&mut exchange).await, Received::Data { data: Bytes::from_static(b"done"), end: true });
    client.stop.cancel();
    client.end().await.unwrap();
}

#[tokio::test]
async fn an_attempt_that_was_given_up_may_replace_its_successor_once() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client("1", Some("demo"));
    // The connection breaks after the client has asked, so that nobody knows what became of it.
    let mut stream = daemon.upgraded().await;
    assert_ne!(stream.read(&mut [0; 1024]).await.unwrap(), 0);
    drop(stream);
    assert!(client.disconnected().await.contains("connection lost"));
    let session = grant(daemon.asked().await.0, "s1", "demo");
    client.connected().await;
    session.close(refusal(ErrorCode::Replaced));
    client.disconnected().await;
    let session = grant(daemon.asked().await.0, "s2", "demo");
    client.connected().await;
    // By now it is somebody else.
    session.close(refusal(ErrorCode::Replaced));
    assert_eq!(client.end().await.unwrap_err().0.code, ErrorCode::Replaced);
}

#[tokio::test]
async fn where_nobody_answers_over_udp_auto_falls_back_and_quic_does_not() {
    let daemon = Daemon::start().await;
    // It takes packets and never answers one, as where UDP is blocked.
    let silent = UdpSocket::bind(daemon.listener.local_addr().unwrap()).await.unwrap();
    let mut auto = daemon.client_by(TransportChoice::Auto, "1", Some("demo"));
    let _session = grant(daemon.asked().await.0, "s1", "demo");
    let Event::Fallback { from: "quic", to: "ws", reason: why } = auto.event().await else { panic!("no fallback") };
    assert!(why.starts_with("QUIC: no answer within "), "{why}");
    match auto.event().await {
        Event::Connected { transport: "ws", reason, .. } => assert_eq!(reason, why),
        other => panic!("{other:?}"),
    }
    assert_ne!(silent.recv(&mut [0; 2048]).await.unwrap(), 0, "QUIC was tried");
    auto.stop.cancel();
    auto.end().await.unwrap();

    let mut quic = daemon.client_by(TransportChoice::Quic, "1", Some("demo"));
    tokio::select! {
        reason = quic.disconnected() => assert!(reason.contains("over QUIC: no answer"), "{reason}"),
        _ = daemon.listener.accept() => panic!("quic means quic"),
    }
    quic.stop.cancel();
    quic.end().await.unwrap();
}
