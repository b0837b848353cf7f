//! The multiplexer: many exchanges over one ordered pipe of messages.
//!
//! A pure state machine for one side of one session. The owner feeds it what arrives ([`Mux::receive`]) and the time
//! ([`Mux::handle_timeout`]), takes out what is to be sent ([`Mux::transmit`]) and what has happened
//! ([`Mux::poll_event`]), and acts on single exchanges by their [`Key`]. Nothing in it waits, and every queue is
//! bounded: bodies by the granted windows and [`SEND_BUFFER`], exchanges by `max_exchanges`, Pongs by one.
//!
//! Order of sending: control frames; credit and Resets; heads and the first bytes after them; then bodies, one Data
//! frame for each exchange in turn.

mod exchange;
pub(crate) mod receive;
mod transmit;
mod window;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use slab::Slab;

use self::exchange::{Exchange, Finish, OutHead, Ring};
use crate::error::ResetCode;
use crate::frame::{self, FrameType, ID_LEN, MAX_HEAD};
use crate::head::{HeadTooLarge, RequestHead, ResponseHead, fields_len};
use crate::message::{Connect, ConnectAck, Drain, DrainReason, ErrorMessage};
use crate::session::{Carrier, Liveness, OpenError, Role, Session, SessionError, Silent};

pub use self::exchange::{ExchangeError, Received, SEND_BUFFER};
pub use self::window::{MAX_WINDOW, WindowBudget};

/// Interim heads (1xx) in one exchange; services send one or two.
pub const MAX_INTERIM_HEADS: u8 = 16;

/// What a session may use.
#[derive(Clone, Debug)]
pub struct Config {
    /// Body bytes that the peer may send on each exchange before the first WindowUpdate. We announce it, so the owner
    /// must put the same number into Connect or ConnectAck.
    pub initial_window: u32,
    /// The most exchanges at once. On the client, ConnectAck replaces it.
    pub max_exchanges: u32,
    /// What windows may grow out of.
    pub budget: WindowBudget,
}

/// Names a live exchange on this side. Valid until both its handles are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(usize);

impl Key {
    /// A small number, reused: an index for whatever the owner keeps beside an exchange.
    pub fn index(self) -> usize {
        self.0
    }
}

/// What has happened, in order.
#[derive(Debug)]
pub enum Event {
    /// Daemon: the client asks for a session; answer with [`Mux::accept`] or [`Mux::fail`].
    Connect(Connect),
    /// Client: the daemon granted the session.
    Established(ConnectAck),
    /// The peer drains: nothing new from here on.
    Drain(Drain),
    /// Client: a request arrived. Both handles of the exchange are now held by the owner.
    Opened {
        /// The exchange.
        key: Key,
        /// The request.
        head: RequestHead,
        /// No body follows.
        end: bool,
    },
    /// [`Mux::recv`] has something new for this exchange.
    Readable(Key),
    /// [`Mux::send_ready`] has something new for this exchange.
    Writable(Key),
}

/// One side of one session. See the module's documentation.
#[derive(Debug)]
pub struct Mux {
    session: Session,
    config: Config,
    /// The credit that the peer grants to each new exchange.
    peer_window: u32,
    exchanges: Slab<Exchange>,
    /// Exchanges that are not over on the wire.
    by_id: HashMap<u32, Key, BuildHasherDefault<IdHasher>>,
    events: VecDeque<Event>,
    liveness: Liveness,
    /// The latest time that the owner named; reading and writing bodies goes by it.
    now: Instant,
    skipped: usize,

    /// Encoded control frames.
    control: BytesMut,
    pong: Option<[u8; 8]>,
    /// Client: ids of requests to be sent back unprocessed.
    refused: VecDeque<RangeInclusive<u32>>,
    /// Exchanges with credit or a Reset to announce.
    control_ring: VecDeque<Key>,
    urgent_ring: VecDeque<Key>,
    bulk_ring: VecDeque<Key>,
}

impl Mux {
    /// The daemon's side; waits for Connect.
    pub fn daemon(config: Config, now: Instant) -> Self {
        Self::new(Role::Daemon, config, now)
    }

    /// The client's side; sends `connect` first.
    pub fn client(config: Config, connect: &Connect, now: Instant) -> Self {
        let mut mux = Self::new(Role::Client, config, now);
        frame::put_json(&mut mux.control, FrameType::Connect, connect);
        mux
    }

    fn new(role: Role, config: Config, now: Instant) -> Self {
        Self {
            session: Session::new(role, Carrier::Pipe, config.max_exchanges),
            config,
            peer_window: 0,
            exchanges: Slab::new(),
            by_id: HashMap::default(),
            events: VecDeque::new(),
            liveness: Liveness::new(now),
            now,
            skipped: 0,
            control: BytesMut::new(),
            pong: None,
            refused: VecDeque::new(),
            control_ring: VecDeque::new(),
            urgent_ring: VecDeque::new(),
            bulk_ring: VecDeque::new(),
        }
    }

    // ---- the session ----

    /// Daemon: grants the session that [`Event::Connect`] asked for.
    pub fn accept(&mut self, ack: &ConnectAck) {
        if self.session.accept() {
            frame::put_json(&mut self.control, FrameType::ConnectAck, ack);
            self.probe_round_trip();
        }
    }

    /// Ends the session with an Error frame, which still goes out by [`Mux::transmit`].
    pub fn fail(&mut self, error: &ErrorMessage) {
        if let Some(error) = self.session.fail(error) {
            frame::put_json(&mut self.control, FrameType::Error, &error);
            self.close();
        }
    }

    /// Ends the session at once: the pipe broke, or the peer sent its Error.
    pub fn close(&mut self) {
        self.session.close();
        self.pong = None;
        self.refused.clear();
        let keys: Vec<Key> = self.exchanges.iter().map(|(index, _)| Key(index)).collect();
        for key in keys {
            let exchange = &mut self.exchanges[key.0];
            if exchange.broken.is_none() {
                exchange.broken = Some(if self.session.role() == Role::Daemon && !exchange.announced {
                    ExchangeError::Reset(ResetCode::Unprocessed)
                } else {
                    ExchangeError::SessionLost
                });
            }
            exchange.reset = None;
            exchange.clear_outbox();
            self.notify_readable(key);
            self.notify_writable(key);
            self.forget_id(key);
        }
    }

    /// Whether the session has ended. What [`Mux::transmit`] still has is the last Error frame.
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// Announces that nothing new comes from this side, and that what runs may take until `deadline` from now.
    pub fn drain(&mut self, reason: DrainReason, deadline: Duration, now: Instant) {
        self.session.drain(reason, deadline, now);
    }

    /// When a draining session ends at the latest. The owner keeps that time.
    pub fn drain_deadline(&self) -> Option<Instant> {
        self.session.drain_deadline()
    }

    /// Whether a drained session has nothing left to do, so that its pipe may be closed.
    pub fn is_drained(&self) -> bool {
        self.session.is_drained(self.by_id.len()) && !self.has_transmit()
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        // A slot may have changed hands since; then its new owner is at worst told twice.
        match event {
            Event::Readable(key) => self.exchanges.get_mut(key.0).map(|exchange| exchange.readable_noted = false),
            Event::Writable(key) => self.exchanges.get_mut(key.0).map(|exchange| exchange.writable_noted = false),
            _ => None,
        };
        Some(event)
    }

    /// When [`Mux::handle_timeout`] wants to be called at the latest; `None` after the end.
    pub fn next_timeout(&self) -> Option<Instant> {
        (!self.is_closed()).then(|| self.liveness.deadline())
    }

    /// Sends a Ping if one is due; an error once the peer has been silent for too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionError> {
        self.now = now;
        if self.is_closed() {
            return Ok(());
        }
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

    /// The measured round trip, if there is one.
    pub fn round_trip(&self) -> Option<Duration> {
        self.liveness.round_trip()
    }

    /// How many exchanges are not over on the wire.
    pub fn open_exchanges(&self) -> usize {
        self.by_id.len()
    }

    /// Body bytes that arrived and wait for their readers, over all exchanges.
    pub fn unread_bytes(&self) -> usize {
        self.exchanges.iter().map(|(_, exchange)| exchange.unread).sum()
    }

    // ---- exchanges ----

    /// Daemon: opens an exchange. With `end`, no body follows. The owner holds both handles.
    pub fn open(&mut self, head: Arc<RequestHead>, end: bool) -> Result<Key, OpenError> {
        self.session.may_open(self.exchanges.len())?;
        if head.encoded_len()? > MAX_HEAD - ID_LEN {
            return Err(HeadTooLarge.into());
        }
        let id = self.session.next_id();
        let mut exchange = Exchange::new(id, self.config.initial_window, self.peer_window);
        exchange.heads.push_back((OutHead::Request(head), end));
        exchange.send_finished = end;
        let key = Key(self.exchanges.insert(exchange));
        self.by_id.insert(id, key);
        self.schedule(key);
        self.session.opened(id, self.now);
        Ok(key)
    }

    /// Takes what the exchange's reader gets next; `None` if nothing is there yet.
    pub fn recv(&mut self, key: Key) -> Option<Result<Received, ExchangeError>> {
        let now = self.now;
        let exchange = self.exchanges.get_mut(key.0)?;
        let Some(received) = exchange.pop() else { return exchange.broken.map(Err) };
        let budget = &self.config.budget;
        if exchange.recv_ended || exchange.broken.is_some() {
            exchange.settle_window(budget);
        } else if let Received::Data { data, .. } = &received {
            let (read, unread) = (data.len(), exchange.unread);
            if exchange.window.consume(read, unread, now, self.liveness.round_trip(), budget) {
                self.announce(key);
                self.probe_round_trip();
            }
        }
        Some(Ok(received))
    }

    /// Whether the exchange takes more body now; an error if it takes no more at all. After `Ok(false)`, an
    /// [`Event::Writable`] follows once that changes.
    pub fn send_ready(&mut self, key: Key) -> Result<bool, ExchangeError> {
        let Some(exchange) = self.exchanges.get_mut(key.0) else { return Err(ExchangeError::SessionLost) };
        if let Some(error) = exchange.broken {
            return Err(error);
        }
        if exchange.send_stopped {
            return Err(ExchangeError::Reset(ResetCode::NoError));
        }
        let ready = exchange.body.len() < SEND_BUFFER;
        exchange.writer_waits = !ready;
        Ok(ready)
    }

    /// Why the exchange is over before its end; `None` while it is not. Once that changes, an [`Event::Writable`] says
    /// so.
    pub fn broken(&self, key: Key) -> Option<ExchangeError> {
        self.exchanges.get(key.0).map_or(Some(ExchangeError::SessionLost), |exchange| exchange.broken)
    }

    /// Client: queues a response head. With `end`, no body follows. Interim heads beyond the sixteen that the protocol
    /// allows are dropped: they are hints. One final head comes after them; a second breaks the exchange.
    pub fn send_response(&mut self, key: Key, head: ResponseHead, end: bool) -> Result<(), HeadTooLarge> {
        if head.encoded_len()? > MAX_HEAD - ID_LEN {
            return Err(HeadTooLarge);
        }
        let role = self.session.role();
        if let Some(exchange) = self.sending(key) {
            if role == Role::Daemon || exchange.final_head_sent {
                self.reset(key, ResetCode::LocalBroken);
                return Ok(());
            }
            let end = end && !head.is_interim();
            if !head.is_interim() {
                exchange.final_head_sent = true;
            } else if exchange.interim_heads == MAX_INTERIM_HEADS {
                return Ok(());
            } else {
                exchange.interim_heads += 1;
            }
            exchange.heads.push_back((OutHead::Response(head), end));
            exchange.send_finished = end;
            self.schedule(key);
        }
        Ok(())
    }

    /// Queues body bytes; meant to follow a [`Mux::send_ready`] that said yes. With `end`, nothing follows. On the
    /// client, a body without a final head before it breaks the exchange.
    pub fn send_data(&mut self, key: Key, data: Bytes, end: bool) {
        if let Some(exchange) = self.sending_body(key) {
            if !data.is_empty() {
                exchange.body.push(data);
            }
            if end {
                exchange.finish = Some(Finish::End);
                exchange.send_finished = true;
            }
            self.schedule(key);
        }
    }

    /// Queues trailers, which end this side's direction.
    pub fn send_trailers(&mut self, key: Key, fields: HeaderMap) -> Result<(), HeadTooLarge> {
        if fields_len(&fields)? > MAX_HEAD - ID_LEN {
            return Err(HeadTooLarge);
        }
        if let Some(exchange) = self.sending_body(key) {
            exchange.finish = Some(Finish::Trailers(fields));
            exchange.send_finished = true;
            self.schedule(key);
        }
        Ok(())
    }

    /// Abandons the exchange in both directions. [`ResetCode::NoError`] would not: it goes out as `Cancelled`.
    pub fn reset(&mut self, key: Key, code: ResetCode) {
        let code = if code == ResetCode::NoError { ResetCode::Cancelled } else { code };
        let Some(exchange) = self.exchanges.get_mut(key.0) else { return };
        if exchange.is_over() {
            return;
        }
        exchange.broken = Some(ExchangeError::Reset(code));
        exchange.clear_inbox();
        exchange.clear_outbox();
        self.notify_readable(key);
        self.notify_writable(key);
        // An id that the peer has never seen may be left out; a Reset for it would break the protocol.
        if self.exchanges[key.0].announced || self.session.role() == Role::Client {
            self.exchanges[key.0].reset = Some(code);
            self.announce(key);
        }
        self.forget_id(key);
    }

    /// The sender is done with its handle. Before the direction was finished, this abandons the exchange.
    pub fn release_send(&mut self, key: Key) {
        let Some(exchange) = self.exchanges.get_mut(key.0) else { return };
        exchange.send_handle = false;
        if !exchange.send_finished && !exchange.send_stopped {
            self.reset(
                key,
                if self.session.role() == Role::Daemon { ResetCode::Cancelled } else { ResetCode::LocalBroken },
            );
        }
        self.reap(key);
    }

    /// The reader is done with its handle. On the daemon, leaving before the end abandons the exchange. On the client,
    /// what still comes is dropped, and the daemon is told to stop once the response is out.
    pub fn release_recv(&mut self, key: Key) {
        let Some(exchange) = self.exchanges.get_mut(key.0) else { return };
        exchange.recv_handle = false;
        exchange.clear_inbox();
        exchange.settle_window(&self.config.budget);
        if !exchange.recv_ended {
            match self.session.role() {
                Role::Daemon => self.reset(key, ResetCode::Cancelled),
                Role::Client => {
                    exchange.recv_stopped = true;
                    self.stop_upload(key);
                }
            }
        }
        self.reap(key);
    }

    // ---- inner parts that receiving and transmitting share ----

    /// The exchange, if its sender may still queue something.
    fn sending(&mut self, key: Key) -> Option<&mut Exchange> {
        let exchange = self.exchanges.get_mut(key.0)?;
        let open = exchange.broken.is_none() && !exchange.send_stopped && !exchange.send_finished;
        open.then_some(exchange)
    }

    /// The same, once a body may follow. A peer would end the session if one came before its head.
    fn sending_body(&mut self, key: Key) -> Option<&mut Exchange> {
        let client = self.session.role() == Role::Client;
        if self.sending(key).is_some_and(|exchange| client && !exchange.final_head_sent) {
            self.reset(key, ResetCode::LocalBroken);
        }
        self.sending(key)
    }

    /// Client: once the whole response is out and nobody reads the request, the upload has no purpose.
    fn stop_upload(&mut self, key: Key) {
        let exchange = &mut self.exchanges[key.0];
        if exchange.recv_stopped && exchange.send_ended && !exchange.recv_ended && exchange.broken.is_none() {
            exchange.recv_ended = true;
            exchange.reset = Some(ResetCode::NoError);
            self.announce(key);
            self.forget_id(key);
        }
    }

    /// Puts an exchange into the ring where it belongs, unless it waits in one already.
    fn schedule(&mut self, key: Key) {
        let exchange = &mut self.exchanges[key.0];
        if exchange.ring != Ring::None {
            return;
        }
        exchange.ring = exchange.wanted_ring();
        match exchange.ring {
            Ring::None => {}
            Ring::Urgent => self.urgent_ring.push_back(key),
            Ring::Bulk => self.bulk_ring.push_back(key),
        }
    }

    /// Queues an exchange's credit or Reset.
    fn announce(&mut self, key: Key) {
        let exchange = &mut self.exchanges[key.0];
        if !exchange.in_control {
            exchange.in_control = true;
            self.control_ring.push_back(key);
        }
    }

    /// Queues [`Event::Readable`], unless one waits already: thousands of frames fit into one message.
    fn notify_readable(&mut self, key: Key) {
        if !std::mem::replace(&mut self.exchanges[key.0].readable_noted, true) {
            self.events.push_back(Event::Readable(key));
        }
    }

    fn notify_writable(&mut self, key: Key) {
        if !std::mem::replace(&mut self.exchanges[key.0].writable_noted, true) {
            self.events.push_back(Event::Writable(key));
        }
    }

    fn probe_round_trip(&mut self) {
        if self.session.is_established()
            && let Some(ping) = self.liveness.probe(self.now)
        {
            frame::put_ping(&mut self.control, ping);
        }
    }

    /// Frames for this id are from now on those of a closed exchange, if it is over.
    fn forget_id(&mut self, key: Key) {
        let exchange = &mut self.exchanges[key.0];
        if exchange.is_over() || self.session.is_closed() {
            exchange.settle_window(&self.config.budget);
            if self.by_id.get(&exchange.id) == Some(&key) {
                self.by_id.remove(&exchange.id);
            }
        }
    }

    /// Frees the slot once nobody refers to it.
    fn reap(&mut self, key: Key) {
        let Some(exchange) = self.exchanges.get(key.0) else { return };
        let held = exchange.send_handle || exchange.recv_handle;
        let queued = exchange.ring != Ring::None || exchange.in_control;
        let over = exchange.is_over() || self.is_closed();
        if !held && !queued && over {
            self.exchanges.remove(key.0);
        }
    }
}

impl Drop for Mux {
    /// What the windows borrowed goes back to the process.
    fn drop(&mut self) {
        for (_, exchange) in &mut self.exchanges {
            exchange.window.release(&self.config.budget);
        }
    }
}

/// Exchange ids are chosen by the daemon, dense and rising, and at most `max_exchanges` are kept, so spreading their
/// bits is enough.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        // Multiplying by the golden ratio's fraction moves the low bits, which differ, to the high ones.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
