//! The proxy, between the daemon's end of an in-memory session and services on real sockets.

mod http1;
mod http2;
mod in_process;
mod shortcut;
mod stopping;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cok_proto::{Connect, ConnectAck, RequestHead, ResponseHead, Scheme, Target};
use cok_transport::{ExchangeError, ExchangeHalves, Received, RecvHalf, SendHalf, Transport, WindowBudget, memory};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::net::{TcpListener, TcpStream};

use super::{Config, Proxy, Watch};
use crate::event::TunnelHandle;
use crate::events::Hub;
use crate::exchange::Origin;
use crate::flight::{InFlight, UnderWay};
use crate::options::HostHeader;
use crate::trust::client_config;
use crate::upgrades::Upgrades;

/// Long enough for a loaded machine, short enough to notice a hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a proxy for `target` needs.
fn config(target: &str) -> Config {
    Config {
        target: target.parse().unwrap(),
        tls: client_config(rustls::RootCertStore::empty()).unwrap(),
        fingerprints: None,
        upgrades: Upgrades::default(),
        host_header: HostHeader::Preserve,
        connect_timeout: PATIENCE,
        response_timeout: Some(PATIENCE),
        log_queries: false,
        watch: Watch::new(Hub::new(), TunnelHandle(0)),
    }
}

/// A daemon's end of a session whose client forwards to a service.
struct Daemon {
    session: Arc<dyn Transport>,
    in_flight: Arc<InFlight>,
}

impl Daemon {
    async fn to(target: &str) -> Self {
        Self::with(target, |_| {}).await
    }

    async fn with(target: &str, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(target);
        adjust(&mut config);
        let limits = cok_transport::Config {
            initial_window: 256 * 1024,
            max_exchanges: 100,
            budget: WindowBudget::new(1 << 20),
        };
        let ack = ConnectAck {
            subdomain: Some("demo".to_owned()),
            url: Some("https://demo.tunnel.test".to_owned()),
            initial_window: 256 * 1024,
            max_exchanges: 100,
            ..ConnectAck::default()
        };
        let ask = Connect { initial_window: 256 * 1024, ..Connect::default() };
        let (left, right) = memory::pipe();
        let accept = async {
            let handshake = memory::accept(left, limits.clone(), PATIENCE).await.unwrap();
            handshake.accept(&ack, &[]).uncork()
        };
        let (session, client) = tokio::join!(accept, memory::connect(right, limits.clone(), &ask, &[], PATIENCE));
        let (client, _) = client.unwrap();
        let in_flight = Arc::<InFlight>::default();
        let proxy = Proxy::new(config, in_flight.clone()).unwrap();
        tokio::spawn(async move {
            while let Some(incoming) = client.accept().await {
                tokio::spawn(proxy.clone().exchange(incoming, Origin::Visitor));
            }
        });
        Self { session, in_flight }
    }

    /// The client stops.
    fn stop(&self) {
        self.in_flight.stop();
    }

    /// How many requests the client has under way, and how many WebSockets and event streams.
    fn under_way(&self) -> (usize, usize) {
        let UnderWay { requests, streams } = self.in_flight.under_way();
        (requests, streams)
    }

    /// Waits until the client has nothing under way.
    async fn is_idle(&self) {
        let idle = async {
            while self.under_way() != (0, 0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, idle).await.expect("what was under way must end");
    }

    /// Opens an exchange; with `end`, without a body.
    fn open(&self, method: &str, target: &str, fields: &[(&str, &str)], end: bool) -> Visitor {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let head = RequestHead {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            target: target.parse().unwrap(),
            scheme: Scheme::Https,
            authority: Authority::from_static("demo.tunnel.test"),
            headers,
        };
        let ExchangeHalves { send, recv } = self.session.open(0, Arc::new(head), end).unwrap();
        Visitor { send, recv, ended: false }
    }

    fn get(&self, target: &str) -> Visitor {
        self.open("GET", target, &[], true)
    }
}

/// The daemon's side of one exchange.
struct Visitor {
    send: Box<dyn SendHalf>,
    recv: Box<dyn RecvHalf>,
    ended: bool,
}

impl Visitor {
    async fn next(&mut self) -> Result<Received, ExchangeError> {
        let received = tokio::time::timeout(PATIENCE, self.recv.recv()).await.expect("something must come")?;
        self.ended = match &received {
            Received::Head { end, .. } | Received::Data { end, .. } => *end,
            Received::Trailers(_) => true,
        };
        Ok(received)
    }

    async fn head(&mut self) -> Result<ResponseHead, ExchangeError> {
        match self.next().await? {
            Received::Head { head, .. } => Ok(head),
            other => panic!("a head must come first, not {other:?}"),
        }
    }

    /// The next bytes of the body; empty at its end.
    async fn chunk(&mut self) -> Result<Bytes, ExchangeError> {
        while !self.ended {
            match self.next().await? {
                Received::Data { data, .. } if data.is_empty() => {}
                Received::Data { data, .. } => return Ok(data),
                other => panic!("no more than data may come: {other:?}"),
            }
        }
        Ok(Bytes::new())
    }

    /// The rest of the body as text, and the trailers.
    async fn rest(&mut self) -> Result<(String, HeaderMap), ExchangeError> {
        let mut body = Vec::new();
        while !self.ended {
            match self.next().await? {
                Received::Data { data, .. } => body.extend_from_slice(&data),
                Received::Trailers(fields) => return Ok((String::from_utf8(body).unwrap(), fields)),
                Received::Head { .. } => panic!("a second head"),
            }
        }
        Ok((String::from_utf8(body).unwrap(), HeaderMap::new()))
    }

    /// The whole response: its status and its body.
    async fn response(&mut self) -> Result<(u16, String), ExchangeError> {
        let head = self.head().await?;
        Ok((head.status.as_u16(), self.rest().await?.0))
    }

    async fn upload(&mut self, data: impl Into<Bytes>, end: bool) {
        tokio::time::timeout(PATIENCE, self.send.ready()).await.expect("the tunnel must take more").unwrap();
        self.send.send_data(data.into(), end);
    }
}

/// A listener on a free port, and the port.
async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Runs `handle` for every connection.
fn accept_all<F>(listener: TcpListener, handle: impl Fn(usize, TcpStream) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(handle(number, stream));
        }
    });
}

#[tokio::test]
async fn an_exchange_takes_little_memory() {
    let proxy = Proxy::new(config("1"), Arc::default()).unwrap();
    let daemon = Daemon::to("1").await;
    let Visitor { send, recv, .. } = daemon.get("/");
    let head = RequestHead {
        method: Method::GET,
        target: Target::root(),
        scheme: Scheme::Https,
        authority: Authority::from_static("demo.tunnel.test"),
        headers: HeaderMap::new(),
    };
    let exchange = proxy.exchange(
        cok_transport::Incoming { tunnel: 0, head, end: true, exchange: ExchangeHalves { send, recv } },
        Origin::Visitor,
    );
    // Each request's task is made, moved and freed: with dialling in it, it would take 8 KiB and a tenth more time. The
    // allocator has 3 KiB for a task of this size.
    let size = std::mem::size_of_val(&exchange);
    assert!(size <= 3072, "{size}");
}
