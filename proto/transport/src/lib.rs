//! How a session is carried.
//!
//! [`Transport`] stands at the level of exchanges, because that is where the ways to carry a session are alike: over
//! WebSocket the multiplexer of `cok-proto` makes the exchanges, over QUIC the streams do.
//!
//! - [`ws`]: one WebSocket (RFC 6455) through the multiplexer.
//! - [`quic`]: one QUIC connection (RFC 9000), a stream for each exchange.
//! - [`memory`]: the same multiplexer as over WebSocket, over a pair of channels, for tests.
//! - [`tcp`]: the socket options that every hop needs; [`Congestion`]: how fast a hop may send.
//!
//! What it does not do: TLS, names and keys, HTTP.

mod congestion;
pub mod memory;
mod muxed;
pub mod quic;
pub mod tcp;
pub mod ws;

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use cok_proto::head::HeadTooLarge;
use cok_proto::{
    Connect, ConnectAck, Drain, DrainReason, ErrorMessage, RequestHead, ResetCode, ResponseHead, SessionError,
};
use http::HeaderMap;
use tokio::sync::watch;

pub use self::congestion::Congestion;
pub use cok_proto::mux::Config;
pub use cok_proto::{ExchangeError, OpenError, Received, WindowBudget};

/// One established session, whichever way it is carried.
///
/// Dropping the last reference does not end the session: it ends when it has drained, when either side closes it, or
/// when the peer is gone.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// The transport's name as users know it: `ws`, `quic`, `memory`.
    fn name(&self) -> &'static str;

    /// Daemon: opens an exchange. With `end`, the request has no body.
    fn open(&self, head: Arc<RequestHead>, end: bool) -> Result<Exchange, OpenError>;

    /// Client: the next request; `None` once no more will come.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<Incoming>>;

    /// Announces that nothing new comes from this side. The session ends once its exchanges have, or after `deadline`.
    fn drain(&self, reason: DrainReason, deadline: Duration);

    /// Ends the session with an Error frame.
    fn close(&self, error: ErrorMessage);

    /// The state of the session as it changes.
    fn status(&self) -> watch::Receiver<Status>;

    /// Daemon: whether the peer gives no sign of life though it was asked for one. It may yet come back, or the session
    /// end. `None` where the connection itself tells when the peer's end is gone, as TCP does.
    fn silence(&self) -> Option<watch::Receiver<bool>> {
        None
    }
}

impl dyn Transport {
    /// Client: waits for the next request; `None` once no more will come.
    pub async fn accept(&self) -> Option<Incoming> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Waits for the end of the session.
    pub async fn closed(&self) -> CloseReason {
        let mut status = self.status();
        match status.wait_for(|status| matches!(status, Status::Closed(_))).await.as_deref() {
            Ok(Status::Closed(reason)) => reason.clone(),
            _ => CloseReason::Lost("its driver is gone".to_owned()),
        }
    }
}

/// Where a session stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// Exchanges come and go.
    Open,
    /// The peer opens or takes nothing new.
    Draining(Drain),
    /// It has ended.
    Closed(CloseReason),
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CloseReason {
    /// It had drained.
    #[error("the session has drained")]
    Drained,
    /// The peer closed the connection.
    #[error("the peer closed the connection")]
    PeerClosed,
    /// The connection broke.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The peer was restarted and knows nothing of the session (RFC 9000, section 10.3). So it is there again.
    #[error("connection lost: the peer was restarted and has forgotten the session")]
    Forgotten,
    /// One of the sides ended it for a reason.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// An exchange's two directions. Each may be moved to where it is used.
#[derive(Debug)]
pub struct Exchange {
    /// Towards the peer.
    pub send: Box<dyn SendHalf>,
    /// From the peer.
    pub recv: Box<dyn RecvHalf>,
}

/// A request that arrived at the client.
#[derive(Debug)]
pub struct Incoming {
    /// Its head.
    pub head: RequestHead,
    /// It has no body.
    pub end: bool,
    /// Where its body comes from and its response goes to.
    pub exchange: Exchange,
}

/// The direction towards the peer. Dropping it before it has ended abandons the exchange: CANCELLED from the daemon,
/// LOCAL_BROKEN from the client.
pub trait SendHalf: fmt::Debug + Send {
    /// Ready once [`SendHalf::send_data`] may be called. Also resolves, with the error, when the peer abandons the
    /// exchange or (`Reset(NoError)`) wants no more of the body.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>>;

    /// Resolves when nothing that is sent would reach anybody: the exchange was abandoned or the session ended.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeError>;

    /// Client: sends a response head. With `end`, the response has no body.
    fn send_response(&mut self, head: ResponseHead, end: bool) -> Result<(), HeadTooLarge>;

    /// Sends body bytes after [`SendHalf::poll_ready`]; any length, but what is handed over stays in memory until the
    /// peer takes it. With `end`, nothing follows.
    fn send_data(&mut self, data: Bytes, end: bool);

    /// Sends trailers and thereby ends this direction.
    fn send_trailers(&mut self, fields: HeaderMap) -> Result<(), HeadTooLarge>;

    /// Abandons the exchange.
    fn reset(&mut self, code: ResetCode);
}

/// The direction from the peer. On the daemon, dropping it before its end abandons the exchange; on the client, it
/// means that the rest of the request is not wanted.
pub trait RecvHalf: fmt::Debug + Send {
    /// What comes next. After a [`Received`] that ends the direction, it must not be called again.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>>;

    /// Abandons the exchange.
    fn reset(&mut self, code: ResetCode);
}

impl dyn RecvHalf {
    /// What comes next. After a [`Received`] that ends the direction, it must not be called again.
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

/// Daemon: a client that is asking for a session.
pub trait Handshake: fmt::Debug + Send {
    /// What the client asks for.
    fn connect(&self) -> &Connect;
    /// Grants the session.
    fn accept(self: Box<Self>, ack: &ConnectAck) -> Arc<dyn Transport>;
    /// Refuses it with an Error frame, which goes out before the connection is closed.
    fn refuse(self: Box<Self>, error: &ErrorMessage);
}

/// Why no session came to be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// The session ended before it was established; a refusal by the daemon is `Session(Peer(…))`.
    #[error(transparent)]
    Closed(#[from] CloseReason),
    /// The peer took too long.
    #[error("no answer to the request for a session within {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// Remembers whom to wake, without a new waker where the old one does.
fn set_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
