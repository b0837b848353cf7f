//! The owner's operations on an exchange: it opens, reads, writes and abandons it, and releases its handles.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::exchange::{Exchange, State};
use super::{ExchangeKey, Mux};
use crate::error::ResetCode;
use crate::exchange::{
    ExchangeError, Finish, Handed, Holding, LINGER, OutHead, OutMessage, Received, RecvState, SendState,
};
use crate::frame::{MAX_REQUEST_HEAD, MAX_RESPONSE_HEAD};
use crate::head::{HeadTooLarge, RequestHead, ResponseHead, fields_len};
use crate::session::{OpenError, Role};

/// Body bytes that an exchange may queue before the pipe takes some: four TLS records. So the driver always has enough
/// for a full write, and a stalled peer costs little memory.
pub const SEND_BUFFER: usize = 64 * 1024;

impl Mux {
    /// Daemon: opens an exchange for a tunnel. With `end`, no body follows. The owner holds both handles.
    pub fn open(&mut self, tunnel: u32, head: Arc<RequestHead>, end: bool) -> Result<ExchangeKey, OpenError> {
        self.session.may_open(tunnel, self.exchanges.len())?;
        let length = head.encoded_len()?;
        if length > MAX_REQUEST_HEAD {
            return Err(HeadTooLarge.into());
        }
        let send = SendState::after_request(end, head.is_upgrade());
        let state = State::Running { send, recv: RecvState::before_head() };
        let mut exchange = Exchange::new(0, tunnel, state, &self.config, self.peer_window);
        exchange.waits_for_id = true;
        self.unannounced += 1;
        self.session.held(tunnel);
        exchange.outbox.heads.push_back(OutHead { message: OutMessage::Request(head), length, end });
        let key = ExchangeKey(self.exchanges.insert(exchange));
        self.schedule(key);
        Ok(key)
    }

    /// Takes the reader's next part. `None` if there is none at the moment.
    pub fn recv(&mut self, key: ExchangeKey) -> Option<Result<Received, ExchangeError>> {
        let now = self.now;
        let exchange = self.exchanges.get_mut(key.0)?;
        let Some(received) = exchange.inbox.pop() else {
            let Some(code) = exchange.inbox.broke_off() else { return exchange.broken().map(Err) };
            return Some(Err(self.read_break(key, code)));
        };
        let budget = &self.config.budget;
        if exchange.recv_is_over() {
            exchange.settle_window(budget);
        } else if let Received::Data { data, .. } = &received {
            let (read, unread) = (data.len(), exchange.inbox.unread());
            if exchange.window.consume(read, unread, now, || self.liveness.round_trip(), budget) {
                self.announce(key);
                self.probe_round_trip();
            }
        }
        Some(Ok(received))
    }

    /// Charges the body bytes of an exchange that have arrived and are unread.
    pub fn charge_to(&mut self, key: ExchangeKey, holding: Arc<Holding>) {
        if let Some(exchange) = self.exchanges.get_mut(key.0) {
            exchange.inbox.charge_to(holding);
        }
    }

    /// Whether the exchange takes body bytes now. The error says why it takes none at all; `Reset(NoError)` if the peer
    /// wants no more. After `Ok(false)`, an [`Event::Writable`](super::Event::Writable) follows once that changes.
    pub fn send_ready(&mut self, key: ExchangeKey) -> Result<bool, ExchangeError> {
        let Some(exchange) = self.exchanges.get_mut(key.0) else { return Err(ExchangeError::SessionLost) };
        match exchange.state {
            State::Broken(error) => return Err(error),
            State::Running { send: SendState::Stopped, .. } => return Err(ExchangeError::Reset(ResetCode::NoError)),
            State::Running { .. } => {}
        }
        let ready = exchange.outbox.body.len() < SEND_BUFFER;
        exchange.writer_waits = !ready;
        Ok(ready)
    }

    /// Why the exchange is over before its end; `None` while it is not. Once that changes, an
    /// [`Event::Writable`](super::Event::Writable) follows.
    pub fn broken(&self, key: ExchangeKey) -> Option<ExchangeError> {
        self.exchanges.get(key.0).map_or(Some(ExchangeError::SessionLost), Exchange::broken)
    }

    /// Client: queues a response head. With `end`, no body follows. Interim heads beyond
    /// [`MAX_INTERIM_HEADS`](crate::exchange::MAX_INTERIM_HEADS) are dropped, since they are hints. A second final head
    /// breaks the exchange, and so does a 101 to a request that is no upgrade or has not ended.
    pub fn send_response(&mut self, key: ExchangeKey, head: ResponseHead, end: bool) -> Result<(), HeadTooLarge> {
        let length = head.encoded_len()?;
        if length > MAX_RESPONSE_HEAD {
            return Err(HeadTooLarge);
        }
        let interim = head.is_interim();
        let end = end && !interim;
        let Some(exchange) = self.hand_over(key, |send| send.head(interim, end)) else { return Ok(()) };
        let switch = head.is_switch();
        exchange.outbox.heads.push_back(OutHead { message: OutMessage::Response(head), length, end });
        if !interim && exchange.recv().is_some_and(|recv| !recv.answered(switch)) {
            self.reset(key, ResetCode::LocalBroken);
            return Ok(());
        }
        self.schedule(key);
        Ok(())
    }

    /// Queues body bytes of any length; call it after [`Mux::send_ready`] returned `Ok(true)`. With `end`, nothing
    /// follows. On the client, a body before the final head breaks the exchange.
    pub fn send_data(&mut self, key: ExchangeKey, data: Bytes, end: bool) {
        if let Some(exchange) = self.hand_over(key, |send| send.body(end)) {
            if !data.is_empty() {
                exchange.outbox.body.push(data);
            }
            if end {
                exchange.outbox.finish = Some(Finish::End);
            }
            self.schedule(key);
        }
    }

    /// Queues trailers, which end the direction.
    pub fn send_trailers(&mut self, key: ExchangeKey, fields: HeaderMap) -> Result<(), HeadTooLarge> {
        if fields_len(&fields)? > MAX_RESPONSE_HEAD {
            return Err(HeadTooLarge);
        }
        if let Some(exchange) = self.hand_over(key, |send| send.body(true)) {
            exchange.outbox.finish = Some(Finish::Trailers(fields));
            self.schedule(key);
        }
        Ok(())
    }

    /// Breaks the direction towards the peer off, in order: what was handed over goes out first, then the code. Before a
    /// body, this abandons the exchange. After the end, it has no effect.
    pub fn break_off(&mut self, key: ExchangeKey, code: ResetCode) {
        let Some(exchange) = self.exchanges.get_mut(key.0) else { return };
        let Some(send) = exchange.send() else { return };
        match send.break_off() {
            Handed::Queue if exchange.waits_for_id => self.reset(key, code),
            Handed::Queue => {
                exchange.outbox.finish = Some(Finish::Break(code.or_cancelled()));
                exchange.broke_off = true;
                self.schedule(key);
            }
            Handed::Misuse => self.reset(key, code),
            Handed::Drop => {}
        }
    }

    /// The reader has come to where the peer's direction broke off. What this side still sends is not wanted, unless it
    /// is complete.
    fn read_break(&mut self, key: ExchangeKey, code: ResetCode) -> ExchangeError {
        let error = ExchangeError::Reset(code);
        if self.exchanges[key.0].send().is_some_and(|send| !send.may_leave()) {
            self.abandon(key, error, ResetCode::Cancelled);
        }
        error
    }

    /// Abandons the exchange in both directions. [`ResetCode::NoError`] would not abandon it, so it goes out as
    /// `Cancelled`.
    pub fn reset(&mut self, key: ExchangeKey, code: ResetCode) {
        let code = code.or_cancelled();
        self.abandon(key, ExchangeError::Reset(code), code);
    }

    fn abandon(&mut self, key: ExchangeKey, error: ExchangeError, code: ResetCode) {
        let Some(exchange) = self.exchanges.get_mut(key.0) else { return };
        if exchange.is_over() {
            return;
        }
        exchange.state = State::Broken(error);
        exchange.inbox.clear();
        exchange.outbox.clear();
        self.notify_readable(key);
        self.notify_writable(key);
        // The peer must not get a Reset for an id that it has never seen; ids may be left out.
        if self.exchanges[key.0].announced || self.session.role() == Role::Client {
            self.exchanges[key.0].reset = Some(code);
            self.announce(key);
        }
        self.forget_id(key);
    }

    /// Abandons all exchanges of a tunnel.
    pub fn reset_tunnel(&mut self, tunnel: u32, code: ResetCode) {
        let of_tunnel =
            |(index, exchange): (usize, &Exchange)| (exchange.tunnel == tunnel).then_some(ExchangeKey(index));
        let keys: Vec<ExchangeKey> = self.exchanges.iter().filter_map(of_tunnel).collect();
        for key in keys {
            self.reset(key, code);
        }
    }

    /// The sender leaves. Before it has handed over its end, this abandons the exchange on the daemon, and breaks the
    /// response off on the client.
    pub fn release_send(&mut self, key: ExchangeKey) {
        let Some(exchange) = self.exchanges.get_mut(key.0) else { return };
        exchange.held.send = false;
        if exchange.send().is_some_and(|send| !send.may_leave()) {
            match self.session.role() {
                Role::Daemon => self.reset(key, Role::Daemon.leaves_with()),
                Role::Client => self.break_off(key, Role::Client.leaves_with()),
            }
        }
        self.reap(key);
    }

    /// The reader leaves. On the daemon, leaving before the end abandons the exchange, unless its request broke off: the
    /// client gets [`LINGER`] to take that. On the client, the rest of the
    /// request is dropped, and NO_ERROR stops the daemon once the response has gone out.
    pub fn release_recv(&mut self, key: ExchangeKey) {
        let Some(exchange) = self.exchanges.get_mut(key.0) else { return };
        exchange.held.recv = false;
        exchange.inbox.clear();
        exchange.settle_window(&self.config.budget);
        match self.session.role() {
            Role::Daemon if exchange.broke_off && !exchange.is_over() => self.linger(key),
            Role::Daemon if !exchange.recv_is_over() => self.reset(key, ResetCode::Cancelled),
            Role::Daemon => {}
            Role::Client => {
                if let Some(recv) = exchange.recv() {
                    recv.leave();
                }
                self.stop_upload(key);
            }
        }
        self.reap(key);
    }

    /// Daemon: keeps an exchange without handles, so that the client gets its request up to where it broke off.
    fn linger(&mut self, key: ExchangeKey) {
        let until = self.now + LINGER;
        self.exchanges[key.0].lingers_until = Some(until);
        self.linger_check.get_or_insert(until);
    }

    /// Daemon: abandons the exchanges that have lingered long enough.
    pub(super) fn end_lingering(&mut self) {
        if self.linger_check.is_none_or(|check| check > self.now) {
            return;
        }
        let lingering = |(index, exchange): (usize, &Exchange)| Some((ExchangeKey(index), exchange.lingers_until?));
        let lingering: Vec<_> = self.exchanges.iter().filter_map(lingering).collect();
        let (ended, left): (Vec<_>, Vec<_>) = lingering.into_iter().partition(|(_, until)| *until <= self.now);
        self.linger_check = left.into_iter().map(|(_, until)| until).min();
        for (key, _) in ended {
            self.reset(key, ResetCode::Cancelled);
            self.reap(key);
        }
    }

    /// Advances the sender's state by a part. Returns the exchange if the part is to be queued. A part out of order
    /// ends this exchange, because the peer would end the session.
    fn hand_over(&mut self, key: ExchangeKey, step: impl FnOnce(&mut SendState) -> Handed) -> Option<&mut Exchange> {
        let handed = step(self.exchanges.get_mut(key.0)?.send()?);
        if handed == Handed::Misuse {
            self.reset(key, ResetCode::LocalBroken);
        }
        self.exchanges.get_mut(key.0).filter(|_| handed == Handed::Queue)
    }
}
