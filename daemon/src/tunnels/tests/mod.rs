//! Tunnels over the in-memory transport: a daemon's side, and clients that speak the protocol.

mod bindings;
mod footprint;
mod names;
mod revocation;
mod takeover;

use std::collections::VecDeque;
use std::time::Duration;

use cok_proto::{
    Bind, Connect, ConnectAck, ErrorCode, ErrorMessage, RequestHead, Scheme, SessionError, TunnelFrame, Unbind,
    UnbindReason,
};
use cok_transport::{CloseReason, HandshakeError, Status, Transport, memory};
use http::{HeaderMap, Method};
use tokio::time::timeout;

use super::origin::Origin;
use super::*;
use crate::admission::{self, KeyLimits, KeyRecord};
use crate::drain;
use crate::names::{Hostname, KeyDigest, SubdomainPattern};

/// A time limit far above what any test here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often two clients race for a name.
const RACES: usize = 10_000;

/// A daemon with two keys, each of which may have this many tunnels.
fn tunnels_for(max_tunnels: usize) -> Arc<Tunnels> {
    let key = |name: &str| KeyRecord {
        id: name.into(),
        name: name.into(),
        digest: KeyDigest::of(name),
        subdomains: vec![SubdomainPattern::parse("*").unwrap()],
        limits: KeyLimits { tunnels: max_tunnels, ..KeyLimits::default() },
        expires: None,
    };
    let live = admission::Live { keys: vec![key("a"), key("b")], ..admission::Live::default() };
    let admission = Admission::new(admission::Config { startup: admission::Startup::default(), live });
    let config = Config { startup: Startup::default(), live: LiveConfig::default() };
    let address = PublicAddress { domain: Hostname::parse("tunnel.test").unwrap(), port: 443 };
    Tunnels::new(config, address, admission, Drain::new(drain::Config::default()), Arc::default(), b"secret")
}

pub(super) fn tunnels() -> Arc<Tunnels> {
    tunnels_for(RACES)
}

/// What a client says in Connect: the key names the installation too.
fn connect(key: &str, name: Option<&str>) -> Connect {
    Connect {
        key: key.to_owned(),
        subdomain: name.map(str::to_owned),
        instance: key.to_owned(),
        initial_window: 256 * 1024,
        version: "tester 1".to_owned(),
        ..Connect::default()
    }
}

/// A client with a session. The session ends with it.
#[derive(Debug)]
struct Peer {
    transport: Arc<dyn Transport>,
    ack: ConnectAck,
    /// Frames about other tunnels than the one that was waited for.
    early: VecDeque<(u32, TunnelFrame)>,
}

impl Peer {
    /// Opens a session with these words. The tunnels `moving` are those of the session that it replaces.
    async fn open(tunnels: &Arc<Tunnels>, connect: Connect, moving: &[u32]) -> Result<Self, ErrorCode> {
        let config = cok_transport::Config {
            initial_window: 256 * 1024,
            max_exchanges: 100,
            budget: WindowBudget::new(1 << 20),
        };
        let (daemon, client) = memory::pipe();
        let (tunnels, accepting) = (tunnels.clone(), config.clone());
        tokio::spawn(async move {
            let handshake = memory::accept(daemon, accepting, PATIENCE).await.unwrap();
            serve::serve(&tunnels, handshake, Origin { peer: [127, 0, 0, 1].into(), transport: "memory" }).await;
        });
        match memory::connect(client, config, &connect, moving, PATIENCE).await {
            Ok((transport, ack)) => Ok(Self { transport, ack, early: VecDeque::new() }),
            Err(HandshakeError::Closed(CloseReason::Session(SessionError::Peer(refusal)))) => Err(refusal.code),
            Err(error) => panic!("{error}"),
        }
    }

    /// Opens a session without a tunnel.
    async fn without_tunnel(tunnels: &Arc<Tunnels>, key: &str) -> Self {
        Self::open(tunnels, Connect { tunnel: false, ..connect(key, None) }, &[]).await.unwrap()
    }

    /// The next frame about this tunnel.
    async fn frame(&mut self, id: u32) -> TunnelFrame {
        if let Some(at) = self.early.iter().position(|(early, _)| *early == id) {
            return self.early.remove(at).unwrap().1;
        }
        loop {
            let next = timeout(PATIENCE, self.transport.tunnel_frame()).await.expect("it takes too long");
            match next.expect("the session has ended") {
                (of, frame) if of == id => return frame,
                other => self.early.push_back(other),
            }
        }
    }

    async fn ask(&mut self, id: u32, bind: Bind) -> Result<String, ErrorMessage> {
        assert!(self.transport.bind(id, &bind));
        self.answer(id).await
    }

    /// Binds a name; the daemon picks one for `None`.
    async fn bind(&mut self, id: u32, name: Option<&str>) -> Result<String, ErrorMessage> {
        self.ask(id, Bind { subdomain: name.map(str::to_owned), ..Bind::default() }).await
    }

    async fn answer(&mut self, id: u32) -> Result<String, ErrorMessage> {
        match self.frame(id).await {
            TunnelFrame::Bound(bound) => Ok(bound.subdomain),
            TunnelFrame::Refused(error) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    async fn unbound(&mut self, id: u32) -> Unbind {
        match self.frame(id).await {
            TunnelFrame::Unbind(unbind) => unbind,
            other => panic!("{other:?}"),
        }
    }

    fn is_open(&self) -> bool {
        matches!(*self.transport.status().borrow(), Status::Open)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let left = ErrorMessage { code: ErrorCode::Other("left".to_owned()), message: String::new(), retryable: false };
        self.transport.close(left);
    }
}

fn name(name: &str) -> Subdomain {
    Subdomain::parse(name).unwrap()
}

/// Waits until a session serves the name.
async fn online(tunnels: &Tunnels, wanted: &str) -> Arc<Live> {
    let wait = async {
        loop {
            if let Some(live) = tunnels.find(&name(wanted)).and_then(|tunnel| tunnel.live()) {
                return live;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the tunnel does not come online")
}

/// Waits until the session with this id serves the name under this id.
async fn served_by(tunnels: &Tunnels, wanted: &str, peer: &Peer, tunnel: u32) {
    let wait = async {
        loop {
            let live = online(tunnels, wanted).await;
            if live.client.session == peer.ack.session && live.tunnel == tunnel {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.expect("it is served by another");
}

fn head() -> Arc<RequestHead> {
    Arc::new(RequestHead {
        method: Method::GET,
        target: "/".parse().unwrap(),
        scheme: Scheme::Https,
        authority: "demo.tunnel.test".parse().unwrap(),
        headers: HeaderMap::new(),
    })
}
