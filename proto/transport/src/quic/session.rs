//! A session on either side: its handshake, and the interface of the established session.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use cok_proto::exchange::check_initial_window;
use cok_proto::frame::{self, FrameType, MAX_REQUEST_HEAD};
use cok_proto::head::HeadTooLarge;
use cok_proto::session::{Admission, Carrier, Session, Signal};
use cok_proto::stream::{Arrived, ExchangeReader};
use cok_proto::{
    Bind, Bound, Connect, ConnectAck, DrainReason, ErrorMessage, RequestHead, ResetCode, Role, TunnelFrame, Unbind,
};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::sync::watch;

use super::control::{Control, close_reason, drive, fail, refuse};
use super::exchange::{Accepted, Asked, Begin, Exchange, exchange_id, turn_away};
use super::shared::{Shared, Slot};
use crate::{
    CloseReason, Config, Corked, Handshake, HandshakeError, Incoming, OpenError, SignsOfLife, Status, Transport,
};

/// Daemon: waits on a new connection for the client's control stream and its Connect, at most for `limit`. Pings before
/// Connect are answered, because a client tests its path with them.
pub async fn accept(
    connection: Connection,
    config: Config,
    limit: Duration,
) -> Result<Box<dyn Handshake>, HandshakeError> {
    let mut session = Session::daemon(Carrier::Streams, config.max_exchanges);
    let asked = async {
        let (send, recv) = connection.accept_bi().await.map_err(|_| close_reason(&connection))?;
        let mut control = Control::new(send, recv);
        loop {
            match control.signal(&connection, &mut session).await? {
                Signal::Connect(connect) => {
                    check_initial_window("Connect", connect.initial_window)
                        .map_err(|error| refuse(&connection, &error))?;
                    return Ok::<_, CloseReason>((control, connect));
                }
                Signal::Ping(opaque) => control.pong(&connection, opaque).await?,
                _ => {}
            }
        }
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(Ok((control, connect))) => Ok(Box::new(QuicHandshake { connection, control, session, connect, config })),
        Ok(Err(reason)) => Err(reason.into()),
        Err(_) => {
            connection.close(VarInt::from_u32(cok_proto::ErrorCode::Timeout.to_u32()), b"no Connect in time");
            Err(HandshakeError::TimedOut(limit))
        }
    }
}

/// Client: asks for a session and waits for the daemon's answer.
pub(super) async fn connect(
    connection: Connection,
    mut control: Control,
    config: Config,
    connect: &Connect,
    moving: &[u32],
) -> Result<(Arc<Shared>, Arc<dyn Transport>, ConnectAck), CloseReason> {
    let mut ask = BytesMut::new();
    frame::put_json(&mut ask, FrameType::Connect, connect);
    control.send(&connection, &ask).await?;
    let mut session = Session::client(Carrier::Streams, connect, moving);
    let ack = loop {
        match control.signal(&connection, &mut session).await? {
            Signal::Established(ack) => break ack,
            Signal::Ping(opaque) => control.pong(&connection, opaque).await?,
            _ => {}
        }
    };
    connection.set_max_concurrent_bi_streams(streams_for(session.max_exchanges()));
    let window = check_initial_window("ConnectAck", ack.initial_window).map_err(|error| refuse(&connection, &error))?;
    let shared = Shared::new(connection.clone(), session, &config, window);
    tokio::spawn(drive(shared.clone(), control));
    let session = QuicSession { accepting: Mutex::new(Accepting::new(&connection)), shared: shared.clone() };
    Ok((shared, Arc::new(session), ack))
}

/// Streams that a client grants for this many exchanges. QUIC returns credit for ended streams in batches of an eighth,
/// so a quarter more are granted.
fn streams_for(exchanges: u32) -> VarInt {
    VarInt::from_u32(exchanges / 4 * 5 + 16)
}

/// A client that waits for the daemon's decision. Dropped without one, its connection is closed.
struct QuicHandshake {
    connection: Connection,
    control: Control,
    session: Session,
    connect: Connect,
    config: Config,
}

impl Handshake for QuicHandshake {
    fn connect(&self) -> &Connect {
        &self.connect
    }

    fn accept(mut self: Box<Self>, ack: &ConnectAck, moved: &[(u32, Bound)]) -> Corked {
        self.session.accept(ack, moved);
        let shared = Shared::new(self.connection, self.session, &self.config, self.connect.initial_window);
        let mut state = shared.lock();
        frame::put_json(&mut state.outbox, FrameType::ConnectAck, ack);
        for (id, bound) in moved {
            frame::put_tunnel(&mut state.outbox, *id, &TunnelFrame::Bound(bound.clone()));
        }
        drop(state);
        let corked =
            Corked::new(Arc::new(QuicSession { accepting: Mutex::new(Accepting::default()), shared: shared.clone() }));
        tokio::spawn(drive(shared, self.control));
        corked
    }

    fn refuse(self: Box<Self>, error: &ErrorMessage) {
        fail(self.connection, self.control, error.clone());
    }
}

impl fmt::Debug for QuicHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicHandshake").field("connect", &self.connect).finish_non_exhaustive()
    }
}

struct QuicSession {
    /// Client: streams that the daemon has opened.
    accepting: Mutex<Accepting>,
    shared: Arc<Shared>,
}

impl Transport for QuicSession {
    fn name(&self) -> &'static str {
        "quic"
    }

    fn open(&self, tunnel: u32, head: Arc<RequestHead>, end: bool) -> Result<crate::ExchangeHalves, OpenError> {
        if head.encoded_len()? > MAX_REQUEST_HEAD {
            return Err(HeadTooLarge.into());
        }
        let slot = self.shared.open_slot(tunnel)?;
        let connection = &self.shared.connection;
        let begin = match pin!(connection.open_bi()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok((send, recv))) => {
                self.shared.note_opened(exchange_id(&send));
                Begin::Opened(send, recv)
            }
            Poll::Ready(Err(_)) => return Err(OpenError::Unavailable),
            Poll::Pending => {
                let connection = connection.clone();
                Begin::Opening(Box::pin(async move { connection.open_bi().await }))
            }
        };
        Ok(Exchange::request(begin, Asked { tunnel, head, end }, slot))
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        self.accepting.lock().poll(cx, &self.shared)
    }

    fn bind(&self, id: u32, bind: &Bind) -> bool {
        self.shared.say(id, |session| session.bind(id, bind))
    }

    fn answer_bind(&self, id: u32, answer: Result<Bound, ErrorMessage>) -> bool {
        self.shared.say(id, |session| match answer {
            Ok(bound) => session.bound(id, bound),
            Err(error) => session.refuse_bind(id, &error),
        })
    }

    fn unbind(&self, id: u32, unbind: &Unbind) -> bool {
        self.shared.say(id, |session| session.unbind(id, unbind))
    }

    fn reset_tunnel(&self, id: u32, code: ResetCode) {
        for exchange in self.shared.exchanges_of(id) {
            exchange.abandon(code);
        }
    }

    fn poll_tunnel(&self, cx: &mut Context<'_>) -> Poll<Option<(u32, TunnelFrame)>> {
        self.shared.poll_tunnel(cx)
    }

    fn drain(&self, reason: DrainReason, deadline: Duration) {
        self.shared.drain(reason, deadline);
    }

    fn close(&self, error: ErrorMessage) {
        self.shared.fail(&error);
    }

    fn ping(&self) {
        self.shared.lock().ping = true;
        self.shared.attention.notify_one();
    }

    fn round_trip(&self) -> Option<Duration> {
        Some(self.shared.connection.rtt())
    }

    fn signs_of_life(&self) -> SignsOfLife {
        // Acknowledgements are datagrams.
        SignsOfLife { received: self.shared.connection.stats().udp_rx.datagrams, progress: 0 }
    }

    fn cork(&self, corked: bool) {
        self.shared.lock().corked = corked;
        if !corked {
            self.shared.attention.notify_one();
        }
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    fn silence(&self) -> Option<watch::Receiver<bool>> {
        Some(self.shared.silent.subscribe())
    }
}

impl fmt::Debug for QuicSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicSession").field("peer", &self.shared.connection.remote_address()).finish_non_exhaustive()
    }
}

type Stream = Result<(SendStream, RecvStream), ConnectionError>;
type NextStream = Pin<Box<dyn Future<Output = (Connection, Stream)> + Send>>;
type HeadRead = Pin<Box<dyn Future<Output = Option<Incoming>> + Send>>;

/// Streams that wait for their request's head, each for its own.
#[derive(Default)]
struct Accepting {
    next: Option<NextStream>,
    heads: FuturesUnordered<HeadRead>,
}

impl Accepting {
    fn new(connection: &Connection) -> Self {
        let mut accepting = Self::default();
        accepting.await_stream(connection.clone());
        accepting
    }

    fn await_stream(&mut self, connection: Connection) {
        self.next = Some(Box::pin(async move {
            let stream = connection.accept_bi().await;
            (connection, stream)
        }));
    }

    fn poll(&mut self, cx: &mut Context<'_>, shared: &Arc<Shared>) -> Poll<Option<Incoming>> {
        while let Some(next) = &mut self.next
            && let Poll::Ready((connection, stream)) = next.as_mut().poll(cx)
        {
            self.next = None;
            let Ok((send, recv)) = stream else { break };
            self.await_stream(connection);
            match shared.accept_slot(exchange_id(&send)) {
                Some(slot) => self.heads.push(Box::pin(read_head(send, recv, slot))),
                None => turn_away(send, recv, ResetCode::Unprocessed),
            }
        }
        loop {
            match self.heads.poll_next_unpin(cx) {
                Poll::Ready(Some(Some(incoming))) => return Poll::Ready(Some(incoming)),
                // The request was cancelled before its head was whole.
                Poll::Ready(Some(None)) => {}
                Poll::Ready(None) if self.next.is_none() => return Poll::Ready(None),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Reads a stream until the request's head is whole.
async fn read_head(send: SendStream, mut recv: RecvStream, slot: Slot) -> Option<Incoming> {
    let id = exchange_id(&send);
    let mut reader = ExchangeReader::new(Role::Client, id);
    loop {
        match reader.read(Instant::now()) {
            Ok(Some(Arrived::Request { tunnel, head, end })) => {
                match slot.session().request_for(tunnel) {
                    Ok(Admission::Accept) => {
                        slot.set_tunnel(tunnel);
                        let accepted = Accepted { send, recv, reader, id };
                        return Some(Incoming {
                            tunnel,
                            head,
                            end,
                            exchange: Exchange::response(accepted, tunnel, slot),
                        });
                    }
                    Ok(Admission::Refuse) => turn_away(send, recv, ResetCode::Unprocessed),
                    Err(error) => slot.session().fail(&(&error).into()),
                }
                return None;
            }
            Ok(Some(Arrived::Part(_) | Arrived::Break(_))) => return None,
            Ok(None) => {}
            Err(error) => {
                slot.session().fail(&(&error).into());
                return None;
            }
        }
        let Ok(Some(chunk)) = recv.read_chunk(usize::MAX, true).await else {
            turn_away(send, recv, ResetCode::Cancelled);
            return None;
        };
        reader.push(chunk.bytes);
    }
}
