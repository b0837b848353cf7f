//! The transports that carry a session.
//!
//! [`Transport`] is an interface at the level of exchanges, where all transports are alike. Over WebSocket the
//! multiplexer of `cok-proto` makes exchanges, over QUIC streams do.
//!
//! - [`ws`]: one WebSocket (RFC 6455) through the multiplexer.
//! - [`quic`]: one QUIC connection (RFC 9000), a stream for each exchange.
//! - [`memory`]: the same multiplexer as over WebSocket, over a pair of channels, for tests.
//! - [`tcp`]: socket options of TCP connections; [`Congestion`]: the congestion controller of TCP and QUIC connections.
//!
//! The crate does not speak HTTP, set up TLS, or know names and keys.

mod congestion;
pub mod memory;
mod muxed;
pub mod quic;
pub mod tcp;
pub mod tls;
pub mod ws;

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use cok_proto::head::HeadTooLarge;
use cok_proto::{
    Bind, Bound, Connect, ConnectAck, Drain, DrainReason, ErrorMessage, RequestHead, ResponseHead, SessionError,
    TunnelFrame, Unbind,
};
use http::HeaderMap;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::congestion::Congestion;
pub use cok_proto::mux::Config;
pub use cok_proto::{Account, ExchangeError, Holding, OpenError, Received, ResetCode, WindowBudget};

/// How often a sign of life is looked for while somebody waits for it.
const ANSWER_POLL: Duration = Duration::from_millis(20);

/// One established session over some transport.
///
/// Dropping the last reference does not end the session. It ends when it has drained, when either side closes it, or
/// when the peer is gone.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// The transport's name in the interface: `ws`, `quic` or `memory`.
    fn name(&self) -> &'static str;

    /// Daemon: opens an exchange for a tunnel. With `end`, the request has no body.
    fn open(&self, tunnel: u32, head: Arc<RequestHead>, end: bool) -> Result<ExchangeHalves, OpenError>;

    /// Client: polls for the next request. `None` once no more will come.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<Incoming>>;

    /// Client: asks for a tunnel. Ids rise, and are above those of moved tunnels. `false` if the session takes no Bind
    /// now: it drains, or has too many tunnels or unanswered Binds.
    fn bind(&self, id: u32, bind: &Bind) -> bool;

    /// Daemon: answers a Bind. `false` if the client does not wait for the answer any more.
    fn answer_bind(&self, id: u32, answer: Result<Bound, ErrorMessage>) -> bool;

    /// Ends a tunnel. Its open exchanges go on; [`Transport::reset_tunnel`] ends them. `false` if it has ended already.
    fn unbind(&self, id: u32, unbind: &Unbind) -> bool;

    /// Abandons all exchanges of a tunnel.
    fn reset_tunnel(&self, id: u32, code: ResetCode);

    /// Polls for the next frame about a tunnel, with the tunnel's id. `None` once the session has ended. One task may
    /// poll.
    fn poll_tunnel(&self, cx: &mut Context<'_>) -> Poll<Option<(u32, TunnelFrame)>>;

    /// Announces that nothing new comes from this side. The session ends once its exchanges have ended, or after
    /// `deadline`. A later call can only bring the end forward.
    fn drain(&self, reason: DrainReason, deadline: Duration);

    /// Ends the session with an Error frame.
    fn close(&self, error: ErrorMessage);

    /// Holds back what the session sends, or lets it out. Over QUIC, exchanges have streams of their own and go on. Use
    /// [`Corked`].
    fn cork(&self, corked: bool);

    /// Watches the state of the session.
    fn status(&self) -> watch::Receiver<Status>;

    /// Sends a Ping, which the peer answers at once.
    fn ping(&self);

    /// The round trip to the peer; `None` before the first measure.
    fn round_trip(&self) -> Option<Duration>;

    /// What the peer has shown of itself so far.
    fn signs_of_life(&self) -> SignsOfLife;

    /// Daemon: watches whether the client is silent, true while it does not answer on its path. It may answer again, or
    /// the session ends. `None` if the connection itself reports a dead peer, as TCP does.
    fn silence(&self) -> Option<watch::Receiver<bool>> {
        None
    }
}

impl dyn Transport {
    /// Client: waits for the next request. `None` once no more will come.
    pub async fn accept(&self) -> Option<Incoming> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Waits for the next frame about a tunnel. `None` once the session has ended.
    pub async fn tunnel_frame(&self) -> Option<(u32, TunnelFrame)> {
        poll_fn(|cx| self.poll_tunnel(cx)).await
    }

    /// Whether the peer shows that it is there: asks it, and waits for a sign of life at most for `limit`.
    ///
    /// On a slow line, the question waits behind other bytes, and a message takes seconds to come. So what the connection
    /// carries in the second half of the time counts too. In the first half it does not: a kernel acknowledges the
    /// question for a client that has stopped.
    pub async fn answers(&self, limit: Duration) -> bool {
        let before = self.signs_of_life();
        let (half, deadline) = (Instant::now() + limit / 2, Instant::now() + limit);
        let mut progress = None;
        self.ping();
        loop {
            if matches!(*self.status().borrow(), Status::Closed(_)) {
                return false;
            }
            let (signs, now) = (self.signs_of_life(), Instant::now());
            if signs.received != before.received {
                return true;
            }
            if now >= half && progress.is_none() {
                progress = Some(signs.progress);
            }
            if now >= deadline {
                return progress.is_some_and(|by_half| by_half != signs.progress);
            }
            tokio::time::sleep(ANSWER_POLL).await;
        }
    }

    /// Waits for the end of the session.
    pub async fn closed(&self) -> CloseReason {
        let mut status = self.status();
        match status.wait_for(|status| matches!(status, Status::Closed(_))).await.as_deref() {
            Ok(Status::Closed(reason)) => reason.clone(),
            _ => CloseReason::Lost("its driver has stopped".to_owned()),
        }
    }
}

/// Numbers that grow while a peer is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignsOfLife {
    /// Messages or datagrams that came.
    pub received: u64,
    /// A count that grows with what the connection carries, where that says more than `received`.
    pub progress: u64,
}

/// The state of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// Exchanges can be opened.
    Open,
    /// The peer opens or takes no new exchanges.
    Draining(Drain),
    /// It has ended.
    Closed(CloseReason),
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CloseReason {
    /// It drained.
    #[error("the session has drained")]
    Drained,
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    PeerClosed,
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The peer restarted, does not know the session, and sent a stateless reset (RFC 9000, section 10.3).
    #[error("connection lost: the peer was restarted and has forgotten the session")]
    Forgotten,
    /// One of the sides ended it with an Error, or one broke the protocol or fell silent.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// An exchange's two directions. Each is a handle of its own and may be used in another task.
#[derive(Debug)]
pub struct ExchangeHalves {
    /// Towards the peer.
    pub send: Box<dyn SendHalf>,
    /// From the peer.
    pub recv: Box<dyn RecvHalf>,
}

/// A request that arrived at the client.
#[derive(Debug)]
pub struct Incoming {
    /// The tunnel that it is for.
    pub tunnel: u32,
    /// Its head.
    pub head: RequestHead,
    /// True if the request has no body.
    pub end: bool,
    /// The directions of its body and its response.
    pub exchange: ExchangeHalves,
}

/// The direction towards the peer. Dropping it before its end abandons the exchange with CANCELLED on the daemon. On the
/// client, it breaks the response off with LOCAL_BROKEN.
pub trait SendHalf: fmt::Debug + Send {
    /// Ready once [`SendHalf::send_data`] may be called. Ready with an error when the exchange was abandoned, or with
    /// `Reset(NoError)` when the peer wants no more of the body.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>>;

    /// Ready once the peer takes nothing more: the exchange was abandoned or the session ended. Over QUIC also, with
    /// `Reset(NoError)`, when the peer wants no more of the body.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeError>;

    /// Client: sends a response head. With `end`, the response has no body.
    fn send_response(&mut self, head: ResponseHead, end: bool) -> Result<(), HeadTooLarge>;

    /// Sends body bytes of any length, after [`SendHalf::poll_ready`]. They stay in memory until the peer takes them.
    /// With `end`, nothing follows.
    fn send_data(&mut self, data: Bytes, end: bool);

    /// Sends trailers, which end this direction.
    fn send_trailers(&mut self, fields: HeaderMap) -> Result<(), HeadTooLarge>;

    /// Breaks the body off where it is, since its source has failed: the peer gets everything that was sent before, and
    /// then the code. Before a body, this abandons the exchange. After the end, it has no effect.
    fn break_off(&mut self, code: ResetCode);

    /// Abandons the exchange at once, with all that waits to go out.
    fn reset(&mut self, code: ResetCode);
}

/// The direction from the peer. On the daemon, dropping it before its end abandons the exchange. On the client,
/// dropping it only refuses the rest of the request.
pub trait RecvHalf: fmt::Debug + Send {
    /// Polls for the next part. Must not be called after a [`Received`] that ends the direction. The request of an
    /// upgrade has two ends: after a 101, raw bytes come. Where the peer's body broke off, the error follows what was sent
    /// before.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>>;

    /// Abandons the exchange.
    fn reset(&mut self, code: ResetCode);

    /// Charges what the transport holds of this direction until it is read.
    fn charge_to(&mut self, _holding: Arc<Holding>) {}
}

impl dyn RecvHalf {
    /// Waits for the next part. Must not be called after a [`Received`] that ends the direction.
    pub async fn recv(&mut self) -> Result<Received, ExchangeError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }
}

impl dyn SendHalf {
    /// Waits until [`SendHalf::send_data`] may be called.
    pub async fn ready(&mut self) -> Result<(), ExchangeError> {
        poll_fn(|cx| self.poll_ready(cx)).await
    }
}

/// Daemon: a client that asks for a session. Dropped without a decision, its connection is closed.
pub trait Handshake: fmt::Debug + Send {
    /// The client's Connect.
    fn connect(&self) -> &Connect;
    /// Grants the session, with the tunnels that move to it from the replaced one. The client hears of it once the session
    /// is uncorked.
    fn accept(self: Box<Self>, ack: &ConnectAck, moved: &[(u32, Bound)]) -> Corked;
    /// Refuses it with an Error frame, which goes out before the connection is closed.
    fn refuse(self: Box<Self>, error: &ErrorMessage);
}

/// Guard of a session that holds back what it sends. Its owner can make true what the frames promise before the peer reads
/// them. A session has one at a time.
#[derive(Debug)]
pub struct Corked(Arc<dyn Transport>);

impl Corked {
    /// Corks a session.
    pub fn new(session: Arc<dyn Transport>) -> Self {
        session.cork(true);
        Self(session)
    }

    /// The session.
    pub fn session(&self) -> &Arc<dyn Transport> {
        &self.0
    }

    /// Lets out what the session has held back. Returns it.
    pub fn uncork(self) -> Arc<dyn Transport> {
        self.0.clone()
    }
}

impl Drop for Corked {
    fn drop(&mut self) {
        self.0.cork(false);
    }
}

/// Why a session was not established.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// The connection ended first. A refusal by the daemon is `Session(Peer(…))`.
    #[error(transparent)]
    Closed(#[from] CloseReason),
    /// The peer took too long.
    #[error("no answer to the request for a session within {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// Stores the task's waker. It clones one only if the stored one wakes another task.
fn set_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
