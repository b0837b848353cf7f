//! The same session over each transport, for tests of what all have in common.

use std::sync::Arc;

use cok_proto::{Bound, Connect, ConnectAck, TunnelFrame};
use cok_transport::{Config, ExchangeHalves, Incoming, Transport, memory, quic, ws};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::pair::{Ends, LIMIT, ack, config, connect, head, soon};

/// What carries a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    Memory,
    Ws,
    Quic,
}

pub(crate) const CARRIED: [Carried; 3] = [Carried::Memory, Carried::Ws, Carried::Quic];

/// Both sides of a session with a tunnel 0.
pub(crate) struct Session {
    pub(crate) daemon: Arc<dyn Transport>,
    pub(crate) client: Arc<dyn Transport>,
    _ends: Option<Ends>,
}

impl Session {
    pub(crate) async fn new(by: Carried) -> Self {
        Self::begin(by, &connect(), &[], &ack(), &[]).await
    }

    /// A session that begins with these frames, and with the limit in `ack`. The client takes the tunnels `moving` over.
    pub(crate) async fn begin(
        by: Carried,
        connect: &Connect,
        moving: &[u32],
        ack: &ConnectAck,
        moved: &[(u32, Bound)],
    ) -> Self {
        let daemon = Config { max_exchanges: ack.max_exchanges, ..config() };
        match by {
            Carried::Memory => {
                let (near, far) = memory::pipe();
                let (client, handshake) =
                    tokio::join!(memory::connect(near, config(), connect, moving, LIMIT), async {
                        Some(memory::accept(far, daemon, LIMIT).await.unwrap().accept(ack, moved).uncork())
                    });
                Self { daemon: handshake.unwrap(), client: client.unwrap().0, _ends: None }
            }
            Carried::Ws => {
                let (near, far) = tokio::io::duplex(64 * 1024);
                let client = async {
                    let socket = ws::open(near, "localhost", LIMIT).await.unwrap();
                    ws::connect(socket, config(), connect, moving, LIMIT).await.unwrap().0
                };
                let daemon = async {
                    let far = upgraded(far).await;
                    ws::accept(far, Vec::new(), |_| 0, daemon, LIMIT).await.unwrap().accept(ack, moved).uncork()
                };
                let (client, daemon) = soon(async { tokio::join!(client, daemon) }).await;
                Self { daemon, client, _ends: None }
            }
            Carried::Quic => {
                let ends = Ends::new();
                let (link, connection) = ends.link().await;
                let (session, daemon) = tokio::join!(link.connect(config(), connect, moving, LIMIT), async {
                    quic::accept(connection, daemon, LIMIT).await.unwrap().accept(ack, moved).uncork()
                });
                Self { daemon, client: session.unwrap().transport, _ends: Some(ends) }
            }
        }
    }

    /// An exchange of a tunnel on both sides.
    pub(crate) async fn exchange(&self, tunnel: u32) -> (ExchangeHalves, Incoming) {
        let asked = self.daemon.open(tunnel, head("/"), false).unwrap();
        let incoming = soon(self.client.accept()).await.unwrap();
        assert_eq!(incoming.tunnel, tunnel);
        (asked, incoming)
    }

    /// Binds a tunnel.
    pub(crate) async fn bind(&self, id: u32) {
        assert!(self.client.bind(id, &cok_proto::Bind::default()));
        assert!(matches!(heard(&self.daemon).await, (of, TunnelFrame::Bind(_)) if of == id));
        assert!(self.daemon.answer_bind(id, Ok(bound(id))));
        assert_eq!(heard(&self.client).await, (id, TunnelFrame::Bound(bound(id))));
    }
}

/// The next frame about a tunnel.
pub(crate) async fn heard(side: &Arc<dyn Transport>) -> (u32, TunnelFrame) {
    soon(side.tunnel_frame()).await.expect("the session goes on")
}

/// What a tunnel of this id is called in tests.
pub(crate) fn bound(id: u32) -> Bound {
    Bound { subdomain: format!("t{id}"), url: format!("https://t{id}.example.com") }
}

/// Answers the upgrade to a WebSocket, as the daemon's HTTP side does.
async fn upgraded(mut stream: DuplexStream) -> DuplexStream {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let request = String::from_utf8(request).unwrap();
    let key = request.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key").then_some(value)
    });
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-protocol: {}\r\nsec-websocket-accept: {}\r\n\r\n",
        ws::SUBPROTOCOL,
        ws::accept_key(key.unwrap().as_bytes())
    );
    stream.write_all(response.as_bytes()).await.unwrap();
    stream
}
