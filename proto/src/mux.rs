//! The multiplexer: many exchanges over one ordered pipe of messages.
//!
//! A pure state machine for one side of one session. The owner feeds it messages ([`Mux::receive`]) and the time
//! ([`Mux::handle_timeout`]). It takes out messages ([`Mux::transmit`]) and events ([`Mux::poll_event`]), and acts on
//! single exchanges by their [`ExchangeKey`]. Nothing waits in it, and every queue is bounded: bodies by the granted
//! windows and [`SEND_BUFFER`], exchanges by `max_exchanges`, Pongs by one.
//!
//! Order of sending: control frames; credit and Resets; heads and the first bytes after them; then bodies, one Data
//! frame for each tunnel in turn, and within a tunnel for each exchange in turn. The rules of the session are [`Session`]'s, those of an exchange's directions are
//! [`exchange`](crate::exchange)'s; the pipe is the owner's.

mod exchange;
mod handles;
mod queues;
pub(crate) mod receive;
mod transmit;
mod tunnels;
mod turns;

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use slab::Slab;

use self::exchange::{Exchange, State};
use self::turns::Turns;
use crate::error::ResetCode;
use crate::exchange::{ExchangeError, WindowBudget};
use crate::frame::{self, FrameType};
use crate::head::RequestHead;
use crate::ids::ById;
use crate::message::{Bound, Connect, ConnectAck, Drain, DrainReason, ErrorMessage, TunnelFrame};
use crate::session::{Carrier, Liveness, Role, Session, SessionError, Silent};

pub use self::handles::SEND_BUFFER;

/// A session's limits, over any transport.
#[derive(Clone, Debug)]
pub struct Config {
    /// Body bytes that the peer may send on each exchange before the first WindowUpdate. The owner must put the same
    /// number into Connect or ConnectAck.
    pub initial_window: u32,
    /// The most exchanges at once. On the client, ConnectAck replaces it.
    pub max_exchanges: u32,
    /// The budget for the growth of windows.
    pub budget: WindowBudget,
}

/// Names an exchange on this side. Valid until both its handles are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeKey(usize);

impl ExchangeKey {
    /// A small number, reused after the exchange: an index for what the owner keeps about it.
    pub fn index(self) -> usize {
        self.0
    }
}

/// Something that happened, in order.
#[derive(Debug)]
pub enum Event {
    /// Daemon: the client asks for a session. Answer with [`Mux::accept`] or [`Mux::fail`].
    Connect(Connect),
    /// Client: the daemon granted the session.
    Established(ConnectAck),
    /// The peer drains: it opens or takes nothing new.
    Drain(Drain),
    /// A frame about a tunnel. Answer a Bind with [`Mux::bound`] or [`Mux::refuse_bind`].
    Tunnel {
        /// The tunnel's id.
        id: u32,
        /// What the peer says about it.
        frame: TunnelFrame,
    },
    /// Client: a request arrived. The owner now holds both handles of the exchange.
    Opened {
        /// The exchange.
        key: ExchangeKey,
        /// The tunnel that the request is for.
        tunnel: u32,
        /// The request.
        head: RequestHead,
        /// No body follows.
        end: bool,
    },
    /// [`Mux::recv`] has something new for this exchange.
    Readable(ExchangeKey),
    /// [`Mux::send_ready`] has something new for this exchange.
    Writable(ExchangeKey),
}

/// One side of one session over one pipe. See the module's documentation.
#[derive(Debug)]
pub struct Mux {
    session: Session,
    config: Config,
    /// Body bytes that the peer grants to each new exchange.
    peer_window: u32,
    exchanges: Slab<Exchange>,
    /// Exchanges that are not over on the wire.
    by_id: ById<ExchangeKey>,
    /// Daemon: exchanges whose requests wait to go out. They get their ids then: tunnels take turns, and ids rise.
    unannounced: usize,
    events: VecDeque<Event>,
    liveness: Liveness,
    /// The latest time that the owner passed in. Reading and writing bodies uses it.
    now: Instant,
    /// Messages that have come.
    messages: u64,
    /// Bytes of unknown frames so far.
    skipped: usize,

    /// Encoded control frames.
    control: BytesMut,
    pong: Option<[u8; 8]>,
    /// Client: ids of refused requests, whose Resets wait to go out.
    refused: VecDeque<RangeInclusive<u32>>,
    /// Daemon: when the first of the exchanges that linger is given up, at the earliest.
    linger_check: Option<Instant>,
    /// Exchanges whose credit or Reset waits to go out.
    control_ring: VecDeque<ExchangeKey>,
    urgent: Turns,
    bulk: Turns,
}

impl Mux {
    /// The daemon's side, which waits for Connect.
    pub fn daemon(config: Config, now: Instant) -> Self {
        Self::new(Session::daemon(Carrier::Pipe, config.max_exchanges), config, now)
    }

    /// The client's side, which sends `connect` first. The tunnels `moving` are those of the session that it replaces.
    pub fn client(config: Config, connect: &Connect, moving: &[u32], now: Instant) -> Self {
        let mut mux = Self::new(Session::client(Carrier::Pipe, connect, moving), config, now);
        frame::put_json(&mut mux.control, FrameType::Connect, connect);
        mux
    }

    fn new(session: Session, config: Config, now: Instant) -> Self {
        Self {
            session,
            config,
            peer_window: 0,
            exchanges: Slab::new(),
            by_id: ById::default(),
            unannounced: 0,
            events: VecDeque::new(),
            liveness: Liveness::new(now),
            now,
            messages: 0,
            skipped: 0,
            control: BytesMut::new(),
            pong: None,
            refused: VecDeque::new(),
            linger_check: None,
            control_ring: VecDeque::new(),
            urgent: Turns::default(),
            bulk: Turns::default(),
        }
    }

    // ---- the session ----

    /// Daemon: grants the session that [`Event::Connect`] asked for, with the tunnels that move to it.
    pub fn accept(&mut self, ack: &ConnectAck, moved: &[(u32, Bound)]) {
        if self.session.accept(ack, moved) {
            frame::put_json(&mut self.control, FrameType::ConnectAck, ack);
            for (id, bound) in moved {
                frame::put_tunnel(&mut self.control, *id, &TunnelFrame::Bound(bound.clone()));
            }
            self.probe_round_trip();
        }
    }

    /// Ends the session with an Error frame, which [`Mux::transmit`] still has.
    pub fn fail(&mut self, error: &ErrorMessage) {
        if let Some(error) = self.session.fail(error) {
            frame::put_json(&mut self.control, FrameType::Error, &error);
            self.close();
        }
    }

    /// Ends the session at once: the pipe broke, or the peer sent an Error.
    pub fn close(&mut self) {
        self.session.close();
        self.pong = None;
        self.refused.clear();
        let keys: Vec<ExchangeKey> = self.exchanges.iter().map(|(index, _)| ExchangeKey(index)).collect();
        for key in keys {
            let exchange = &mut self.exchanges[key.0];
            if exchange.broken().is_none() {
                exchange.state = State::Broken(if self.session.role() == Role::Daemon && !exchange.announced {
                    ExchangeError::Reset(ResetCode::Unprocessed)
                } else {
                    ExchangeError::SessionLost
                });
            }
            exchange.reset = None;
            exchange.outbox.clear();
            self.notify_readable(key);
            self.notify_writable(key);
            self.forget_id(key);
        }
    }

    /// Whether the session has ended. What [`Mux::transmit`] still has is the last Error frame.
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// Announces that nothing new comes from this side and that open exchanges end within `deadline`. Only the first
    /// call is announced; a later one can only bring the end forward.
    pub fn drain(&mut self, reason: DrainReason, deadline: Duration, now: Instant) {
        self.session.drain(reason, deadline, now);
    }

    /// When a draining session ends at the latest. The owner has to end it then.
    pub fn drain_deadline(&self) -> Option<Instant> {
        self.session.drain_deadline()
    }

    /// Whether a drained session has nothing left to do, so that its pipe may be closed.
    pub fn is_drained(&self) -> bool {
        self.session.is_drained(self.open_exchanges()) && !self.has_transmit()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        // The slot may serve another exchange by now, which then gets an event too many.
        match event {
            Event::Readable(key) => self.exchanges.get_mut(key.0).map(|exchange| exchange.noted.recv = false),
            Event::Writable(key) => self.exchanges.get_mut(key.0).map(|exchange| exchange.noted.send = false),
            _ => None,
        };
        Some(event)
    }

    /// The latest time for the next call of [`Mux::handle_timeout`]. `None` after the end.
    pub fn next_timeout(&self) -> Option<Instant> {
        let alive = self.liveness.deadline();
        (!self.is_closed()).then(|| self.linger_check.map_or(alive, |check| check.min(alive)))
    }

    /// Queues a Ping if one is due, and gives up what has lingered long enough. An error once the peer has been silent for
    /// [`DEAD_AFTER`](crate::session::DEAD_AFTER).
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        self.now = now;
        if self.is_closed() {
            return Ok(());
        }
        self.end_lingering();
        match self.liveness.check(now) {
            Ok(None) => Ok(()),
            Ok(Some(ping)) => {
                frame::put_ping(&mut self.control, ping);
                Ok(())
            }
            Err(Silent) => {
                self.fail(&SessionError::silent_message());
                Err(SessionError::Silent)
            }
        }
    }

    /// Queues a Ping unless one waits for its Pong.
    pub fn ping(&mut self, now: Instant) {
        self.now = now;
        if self.session.is_established()
            && let Some(ping) = self.liveness.ask(now)
        {
            frame::put_ping(&mut self.control, ping);
        }
    }

    /// How many messages have come.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// The least round trip of the last minutes; `None` before the first Pong.
    pub fn round_trip(&self) -> Option<Duration> {
        self.liveness.round_trip()
    }

    /// How many exchanges are not over on the wire, with those whose requests wait to go out.
    pub fn open_exchanges(&self) -> usize {
        self.by_id.len() + self.unannounced
    }

    /// Body bytes that arrived and wait for their readers, over all exchanges.
    pub fn unread_bytes(&self) -> usize {
        self.exchanges.iter().map(|(_, exchange)| exchange.inbox.unread()).sum()
    }
}

impl Drop for Mux {
    /// Returns what the windows borrowed to the budget.
    fn drop(&mut self) {
        for (_, exchange) in &mut self.exchanges {
            exchange.window.release(&self.config.budget);
        }
    }
}
