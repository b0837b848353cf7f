//! One side of one session, from Connect to its end, by the same rules over every transport.
//!
//! A pure state machine: it judges control frames, tunnel ids, exchange ids and exchange counts, and knows who drains
//! and until when. It holds no exchange and writes no frame; [`mux`](crate::mux) does both over one pipe, and QUIC's streams do
//! so in `cok-transport`.

mod bindings;
mod drain;
mod draining;
mod liveness;
mod round_trip;
mod toll;
mod tunnels;

use std::time::{Duration, Instant};

use crate::error::{ErrorCode, ProtocolError, ResetCode};
use crate::frame::Frame;
use crate::head::HeadTooLarge;
use crate::message::{Bound, Connect, ConnectAck, Drain, DrainReason, ErrorMessage, TunnelFrame};

use self::bindings::Bindings;
pub use self::bindings::{MAX_BINDINGS, MAX_UNANSWERED};
use self::draining::{Draining, Side};
pub use self::liveness::{DEAD_AFTER, PING_AFTER};
pub(crate) use self::liveness::{Liveness, Silent};
pub use self::round_trip::LeastRoundTrip;
pub(crate) use self::toll::TinyData;
use self::toll::Toll;
pub use self::tunnels::Said;

/// The most exchanges at once that a client allows, whatever ConnectAck announces. It equals the largest
/// `max_exchanges` that cokd can be configured with, so it stops only a hostile daemon from filling our memory.
pub const MAX_EXCHANGES: u32 = 100_000;

/// Exchange ids stay below 2³¹. The daemon drains with [`DrainReason::Ids`] from this one on: the requests that wait to
/// go out by then still find ids.
const LAST_ID: u32 = (1 << 31) - 1 - MAX_EXCHANGES;
/// How long exchanges may still run in a session that has used up its ids.
const IDS_DEADLINE: Duration = Duration::from_secs(3600);

/// Longest text in an Error frame in bytes. The frame stays within its limit even if JSON escapes every byte.
const MAX_ERROR_TEXT: usize = 1024;

/// One of the two sides of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opens exchanges.
    Daemon,
    /// Answers exchanges.
    Client,
}

impl Role {
    /// The other side.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Daemon => Self::Client,
            Self::Client => Self::Daemon,
        }
    }

    /// The code with which this side abandons an exchange whose sender left before the end.
    pub const fn leaves_with(self) -> ResetCode {
        match self {
            Self::Daemon => ResetCode::Cancelled,
            Self::Client => ResetCode::LocalBroken,
        }
    }
}

/// What carries the session, and so the order in which frames arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// One ordered pipe: each frame arrives behind the frames that were sent before it.
    Pipe,
    /// A QUIC stream for each exchange and one for control frames. Streams may overtake each other, and the transport
    /// limits how many the daemon may open.
    Streams,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The peer broke the protocol. It gets an Error frame that says so.
    #[error("protocol error: {0}")]
    Protocol(#[from] ProtocolError),
    /// The peer sent an Error frame.
    #[error("{0}")]
    Peer(ErrorMessage),
    /// We sent an Error frame.
    #[error("closed: {0}")]
    Local(ErrorMessage),
    /// The peer was silent for [`DEAD_AFTER`].
    #[error("no sign of the peer for {} s", DEAD_AFTER.as_secs())]
    Silent,
}

impl SessionError {
    /// The Error frame that tells the peer: it was silent for too long.
    pub(crate) fn silent_message() -> ErrorMessage {
        ErrorMessage { code: ErrorCode::Timeout, message: Self::Silent.to_string(), retryable: true }
    }
}

/// Why an exchange cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The session is not established, drains or has ended: use its successor.
    #[error("the session takes no new exchanges")]
    Unavailable,
    /// The session has as many exchanges as it may have, or the tunnel has its share of them.
    #[error("too many exchanges at once")]
    Saturated,
    /// The session does not carry the tunnel any more.
    #[error("the session does not carry the tunnel")]
    Unbound,
    /// The head does not fit into a frame.
    #[error(transparent)]
    TooLarge(#[from] HeadTooLarge),
}

/// What a frame means for the owner of the session.
#[derive(Debug, PartialEq)]
pub enum Signal {
    /// Daemon: the client asks for the session.
    Connect(Connect),
    /// Client: the daemon granted the session.
    Established(ConnectAck),
    /// The peer drains, for the first time. [`Session::take_drain`] may have an answer.
    Drain(Drain),
    /// A frame about a tunnel. A Bind is to be answered with [`Session::bound`] or [`Session::refuse_bind`].
    Tunnel {
        /// The tunnel's id.
        id: u32,
        /// What the peer says about it.
        frame: TunnelFrame,
    },
    /// To be answered with this Refused: the rules of the session forbid the Bind of this tunnel.
    RefuseBind {
        /// The tunnel's id.
        id: u32,
        /// Why.
        error: ErrorMessage,
    },
    /// To be answered with a Pong of the same bytes.
    Ping([u8; 8]),
    /// Answers a Ping.
    Pong([u8; 8]),
    /// A frame of an exchange in an established session.
    Exchange(Frame),
    /// A frame of an unknown type, of this length in bytes with its header.
    Skipped(usize),
}

/// The client's verdict on a request that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Serves it.
    Accept,
    /// Resets it with UNPROCESSED.
    Refuse,
}

/// The state of one side of a session.
#[derive(Debug)]
enum Phase {
    /// Daemon: waits for Connect.
    AwaitConnect,
    /// Daemon: has Connect; the owner decides.
    AwaitDecision,
    /// Client: waits for ConnectAck.
    AwaitAck,
    /// Both sides take and open exchanges.
    Open,
    /// No exchange is opened any more; open ones go on.
    Draining(Draining),
    /// Nothing is received or opened. `error` is the Error that we sent.
    Closed { error: Option<ErrorMessage> },
}

/// One side of one session. See the module's documentation.
#[derive(Debug)]
pub struct Session {
    role: Role,
    carrier: Carrier,
    phase: Phase,
    max_exchanges: u32,
    bindings: Bindings,
    toll: Toll,
    /// Client: the session begins with a tunnel.
    wants_first: bool,
    /// Highest id that was opened here or arrived here; 0 for none.
    newest: u32,
    /// Highest id that both sides know of. On the daemon, newer requests may still wait to go out.
    known: u32,
}

impl Session {
    /// The daemon's side before Connect, with the most exchanges at once.
    pub fn daemon(carrier: Carrier, max_exchanges: u32) -> Self {
        Self::new(Role::Daemon, carrier, max_exchanges)
    }

    /// The client's side, which sends `connect`. The tunnels `moving` are those of the session that it replaces.
    /// ConnectAck names the most exchanges at once.
    pub fn client(carrier: Carrier, connect: &Connect, moving: &[u32]) -> Self {
        let mut session = Self::new(Role::Client, carrier, MAX_EXCHANGES);
        session.wants_first = connect.tunnel;
        for id in moving {
            session.bindings.expect_moved(*id);
        }
        session
    }

    fn new(role: Role, carrier: Carrier, max_exchanges: u32) -> Self {
        let phase = match role {
            Role::Daemon => Phase::AwaitConnect,
            Role::Client => Phase::AwaitAck,
        };
        let (bindings, toll) = (Bindings::default(), Toll::default());
        Self { role, carrier, phase, max_exchanges, bindings, toll, wants_first: false, newest: 0, known: 0 }
    }

    /// Our side.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The most exchanges at once.
    pub fn max_exchanges(&self) -> u32 {
        self.max_exchanges
    }

    // ---- the handshake and control frames ----

    /// Daemon: grants the session, with Connect's own tunnel if `ack` names it, and with tunnels of the replaced session.
    /// `false` unless a Connect waits for that.
    pub fn accept(&mut self, ack: &ConnectAck, moved: &[(u32, Bound)]) -> bool {
        let waits = matches!(self.phase, Phase::AwaitDecision);
        if waits {
            self.phase = Phase::Open;
            if ack.subdomain.is_some() {
                self.bindings.bind_now(0);
            }
            for (id, _) in moved {
                self.bindings.bind_now(*id);
            }
        }
        waits
    }

    /// Judges a frame that arrived. `None` if it changes nothing.
    pub fn receive(&mut self, frame: Frame, now: Instant) -> Result<Option<Signal>, SessionError> {
        if let Frame::Error(message) = frame {
            return Err(SessionError::Peer(message));
        }
        self.charge(&frame, now)?;
        match (&self.phase, frame) {
            (Phase::Closed { .. }, _) => Ok(None),
            (Phase::AwaitConnect, Frame::Connect(connect)) => {
                self.phase = Phase::AwaitDecision;
                Ok(Some(Signal::Connect(connect)))
            }
            // Over QUIC, a client tests the path before it claims a name.
            (Phase::AwaitConnect, Frame::Ping(opaque)) if self.carrier == Carrier::Streams => {
                Ok(Some(Signal::Ping(opaque)))
            }
            (Phase::AwaitConnect, frame) => Err(unexpected(&frame, "Connect must come first").into()),
            (Phase::AwaitAck, Frame::ConnectAck(ack)) => {
                if self.wants_first {
                    if ack.subdomain.is_none() || ack.url.is_none() {
                        let why = "it names no tunnel though one was asked for".to_owned();
                        return Err(ProtocolError::Malformed { kind: "ConnectAck", why }.into());
                    }
                    self.bindings.bind_now(0);
                }
                self.bindings.moved(ack.moved);
                self.max_exchanges = ack.max_exchanges.min(MAX_EXCHANGES);
                self.phase = Phase::Open;
                Ok(Some(Signal::Established(ack)))
            }
            (_, Frame::Ping(opaque)) => Ok(Some(Signal::Ping(opaque))),
            (_, Frame::Pong(opaque)) => Ok(Some(Signal::Pong(opaque))),
            (_, Frame::Skipped { length }) => Ok(Some(Signal::Skipped(length))),
            (Phase::AwaitAck, frame) => Err(unexpected(&frame, "ConnectAck must come first").into()),
            (Phase::AwaitDecision, frame) => Err(unexpected(&frame, "the session is not granted yet").into()),
            (_, Frame::Connect(_) | Frame::ConnectAck(_)) => {
                Err(ProtocolError::Unexpected { kind: "handshake", why: "the session is established" }.into())
            }
            (_, Frame::Drain(drain)) => Ok(self.receive_drain(&drain, now).then_some(Signal::Drain(drain))),
            (_, Frame::Tunnel { id, frame }) => Ok(self.receive_tunnel(id, frame)?),
            (_, frame) => Ok(Some(Signal::Exchange(frame))),
        }
    }

    // ---- exchanges ----

    /// Daemon: whether another exchange of this tunnel may be opened while the session holds `held`. If the
    /// session has other tunnels, one has at most half of the session's exchanges, so that the others always find room.
    pub fn may_open(&self, tunnel: u32, held: usize) -> Result<(), OpenError> {
        if self.role != Role::Daemon || !matches!(self.phase, Phase::Open) {
            return Err(OpenError::Unavailable);
        }
        let most = self.max_exchanges as usize;
        let of_tunnel = self.bindings.exchanges(tunnel).ok_or(OpenError::Unbound)?;
        let share = if self.bindings.len() > 1 { most.div_ceil(2) } else { most };
        if held >= most || of_tunnel >= share {
            return Err(OpenError::Saturated);
        }
        Ok(())
    }

    /// The id that follows the newest one.
    pub fn next_id(&self) -> u32 {
        self.newest.saturating_add(1)
    }

    /// Daemon: an exchange of this tunnel takes up memory, until [`Session::released`].
    pub fn held(&mut self, tunnel: u32) {
        self.bindings.opened(tunnel);
    }

    /// Daemon: an exchange of this tunnel has gone from memory.
    pub fn released(&mut self, tunnel: u32) {
        self.bindings.released(tunnel);
    }

    /// Daemon: this exchange was opened. After the last id, the session drains.
    pub fn opened(&mut self, id: u32, now: Instant) {
        self.newest = self.newest.max(id);
        if self.newest >= LAST_ID {
            self.drain(DrainReason::Ids, IDS_DEADLINE, now);
        }
    }

    /// Daemon: the request of this exchange goes out, so the client may name its id.
    pub fn announced(&mut self, id: u32) {
        self.known = self.known.max(id);
        self.earn_request();
    }

    /// Client: judges a request that arrived while `open` exchanges are open on the wire and `held` are in memory.
    ///
    /// Held exchanges that are over on the wire do not count against the daemon. A visitor who opens and cancels fast
    /// can make many of them, so a client refuses requests once it holds twice the allowed number.
    pub fn request(&mut self, id: u32, open: usize, held: usize) -> Result<Admission, ProtocolError> {
        let kind = "HTTPRequest";
        if id <= self.newest {
            return Err(ProtocolError::Unexpected { kind, why: "exchange ids must rise" });
        }
        let most = self.max_exchanges as usize;
        if self.carrier == Carrier::Pipe {
            if self.drained_by(Side::Peer) {
                return Err(ProtocolError::Unexpected { kind, why: "the sender has announced that it drains" });
            }
            if open >= most {
                return Err(ProtocolError::TooManyExchanges(self.max_exchanges));
            }
        }
        (self.newest, self.known) = (id, id);
        let full = held >= 2 * most;
        Ok(if full || self.is_closed() { Admission::Refuse } else { Admission::Accept })
    }

    /// Whether both sides know of this id: if no exchange has it, that exchange is over.
    pub fn was_opened(&self, id: u32) -> bool {
        (1..=self.known).contains(&id)
    }

    // ---- the end ----

    /// Ends the session with an Error. Returns the Error that is to be sent, its text cut to 1 KiB; `None` if the
    /// session has ended before.
    pub fn fail(&mut self, error: &ErrorMessage) -> Option<ErrorMessage> {
        if self.is_closed() {
            return None;
        }
        let error = shortened(error);
        self.phase = Phase::Closed { error: Some(error.clone()) };
        Some(error)
    }

    /// Ends the session: the connection broke, or the peer sent an Error.
    pub fn close(&mut self) {
        if !self.is_closed() {
            self.phase = Phase::Closed { error: None };
        }
    }

    /// Whether the handshake is done and the session has not ended.
    pub fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Draining(_))
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }

    /// The Error that we ended the session with.
    pub fn error(&self) -> Option<&ErrorMessage> {
        match &self.phase {
            Phase::Closed { error } => error.as_ref(),
            _ => None,
        }
    }
}

/// The same error with its text cut to [`MAX_ERROR_TEXT`].
fn shortened(error: &ErrorMessage) -> ErrorMessage {
    let mut error = error.clone();
    let fits = |end: &usize| error.message.is_char_boundary(*end);
    let end = (0..=MAX_ERROR_TEXT.min(error.message.len())).rev().find(fits).unwrap_or(0);
    error.message.truncate(end);
    error
}

fn unexpected(frame: &Frame, why: &'static str) -> ProtocolError {
    ProtocolError::Unexpected { kind: frame.name(), why }
}
