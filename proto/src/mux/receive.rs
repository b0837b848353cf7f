//! Receives messages: checks each frame against the state of the session and the exchange, then applies it.

use std::time::Instant;

use bytes::Bytes;

use super::exchange::{Exchange, State};
use super::{Event, ExchangeKey, Mux};
use crate::error::{ProtocolError, ResetCode};
use crate::exchange::{ExchangeError, MAX_CREDIT, RecvState, SendState, check_initial_window};
use crate::frame::{Frame, FrameHeader, HEADER_LEN, MAX_DATA_FRAME, MAX_MESSAGE, SKIP_BUDGET};
use crate::message::ErrorMessage;
use crate::session::{Admission, Role, SessionError, Signal};

/// Runs of refused requests whose Resets wait to go out; they take some kilobytes.
const MAX_REFUSED: usize = 1000;

impl Mux {
    /// Takes in one message of whole frames. After an error the session has ended. If the peer was at fault,
    /// [`Mux::transmit`] has the Error frame for it.
    pub fn receive(&mut self, message: Bytes, now: Instant) -> Result<(), SessionError> {
        self.now = now;
        self.liveness.received(now);
        self.messages += 1;
        if self.is_closed() {
            return Ok(());
        }
        match self.receive_frames(message) {
            Err(SessionError::Protocol(error)) => {
                self.fail(&ErrorMessage::from(&error));
                Err(error.into())
            }
            Err(error) => {
                self.close();
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    fn receive_frames(&mut self, mut message: Bytes) -> Result<(), SessionError> {
        if message.len() > MAX_MESSAGE {
            return Err(ProtocolError::MessageTooLong(message.len()).into());
        }
        let whole = message.len();
        while !message.is_empty() {
            let frame =
                if whole > MAX_DATA_FRAME { decode_apart(&mut message, whole) } else { Frame::decode(&mut message) };
            self.receive_frame(frame?.ok_or(ProtocolError::TruncatedFrame)?)?;
        }
        Ok(())
    }

    fn receive_frame(&mut self, frame: Frame) -> Result<(), SessionError> {
        match self.session.receive(frame, self.now)? {
            Some(Signal::Connect(connect)) => {
                self.peer_window = check_initial_window("Connect", connect.initial_window)?;
                self.events.push_back(Event::Connect(connect));
            }
            Some(Signal::Established(ack)) => {
                self.peer_window = check_initial_window("ConnectAck", ack.initial_window)?;
                self.events.push_back(Event::Established(ack));
                self.probe_round_trip();
            }
            Some(Signal::Drain(drain)) => self.events.push_back(Event::Drain(drain)),
            Some(Signal::Ping(opaque)) => self.pong = Some(opaque),
            Some(Signal::Pong(opaque)) => self.liveness.pong(opaque, self.now),
            Some(Signal::Skipped(length)) => {
                self.skipped += length;
                if self.skipped > SKIP_BUDGET {
                    return Err(ProtocolError::SkipBudget.into());
                }
            }
            Some(Signal::Tunnel { id, frame }) => self.events.push_back(Event::Tunnel { id, frame }),
            Some(Signal::RefuseBind { id, error }) => {
                self.refuse_bind(id, &error);
            }
            Some(Signal::Exchange(frame)) => self.receive_exchange_frame(frame)?,
            None => {}
        }
        Ok(())
    }

    fn receive_exchange_frame(&mut self, frame: Frame) -> Result<(), ProtocolError> {
        let kind = frame.name();
        if self.session.role() == Role::Daemon
            && let Some(id) = frame.exchange()
        {
            self.session.charge_exchange(&frame, self.by_id.contains_key(&id), self.now)?;
        }
        match (self.session.role(), frame) {
            (Role::Client, Frame::Request { id, tunnel, head, end }) => {
                let admission = self.session.request(id, self.by_id.len(), self.exchanges.len())?;
                if self.session.request_for(tunnel)? == Admission::Refuse || admission == Admission::Refuse {
                    return self.refuse(id);
                }
                let recv = RecvState::after_request(end, head.is_upgrade());
                let state = State::Running { send: SendState::before_response(), recv };
                let mut exchange = Exchange::new(id, tunnel, state, &self.config, self.peer_window);
                exchange.announced = true;
                let key = ExchangeKey(self.exchanges.insert(exchange));
                self.by_id.insert(id, key);
                self.events.push_back(Event::Opened { key, tunnel, head, end });
            }
            (Role::Daemon, Frame::Response { id, head, end }) => {
                let Some((key, exchange)) = self.find(kind, id)? else { return Ok(()) };
                if let State::Running { send, recv } = &mut exchange.state {
                    recv.response(head.is_interim(), end)?;
                    if !head.is_interim() {
                        send.answered(head.is_switch())?;
                    }
                }
                if exchange.held.recv {
                    exchange.inbox.push_head(head, end);
                }
                self.arrived(key, end);
            }
            (role, Frame::Data { id, body, end }) => {
                let now = self.now;
                let Some((key, exchange)) = self.find(kind, id)? else { return Ok(()) };
                let wanted = takes_body(exchange, kind)?;
                if role == Role::Daemon {
                    exchange.tiny.charge(body.len(), end, now)?;
                }
                exchange.window.arrive(body.len()).map_err(|excess| ProtocolError::CreditExceeded { id, excess })?;
                if end || !body.is_empty() {
                    if wanted {
                        exchange.inbox.push_data(body, end);
                    }
                    self.arrived(key, end);
                }
            }
            (_, Frame::Trailers { id, fields }) => {
                let Some((key, exchange)) = self.find(kind, id)? else { return Ok(()) };
                if takes_body(exchange, kind)? {
                    exchange.inbox.push_trailers(fields);
                }
                self.arrived(key, true);
            }
            (_, Frame::Break { id, code }) => {
                let Some((key, exchange)) = self.find(kind, id)? else { return Ok(()) };
                if takes_body(exchange, kind)? {
                    exchange.inbox.push_break(code.or_cancelled());
                    if let Some(recv) = exchange.recv() {
                        recv.stop();
                    }
                    self.arrived(key, true);
                } else {
                    // No reader is left that could come to the break.
                    self.reset(key, ResetCode::Cancelled);
                }
            }
            (role, Frame::Reset { id, code }) => {
                let Some((key, exchange)) = self.find(kind, id)? else { return Ok(()) };
                // NO_ERROR from a daemon cancels: it has no response that could go on.
                if code == ResetCode::NoError && role == Role::Daemon {
                    if let Some(send) = exchange.send() {
                        send.stop();
                    }
                    exchange.outbox.clear();
                } else {
                    exchange.state = State::Broken(ExchangeError::Reset(code));
                    exchange.reset = None;
                    exchange.inbox.clear();
                    exchange.outbox.clear();
                    self.notify_readable(key);
                }
                self.notify_writable(key);
                self.forget_id(key);
                self.reap(key);
            }
            (_, Frame::WindowUpdate { id, increment }) => {
                let Some((key, exchange)) = self.find(kind, id)? else { return Ok(()) };
                exchange.credit += u64::from(increment);
                if increment == 0 || exchange.credit > MAX_CREDIT {
                    self.reset(key, ResetCode::Cancelled);
                } else {
                    self.schedule(key);
                }
            }
            (..) => return Err(ProtocolError::Unexpected { kind, why: "not from this side, or not now" }),
        }
        Ok(())
    }

    /// Client: sends a request back unprocessed.
    fn refuse(&mut self, id: u32) -> Result<(), ProtocolError> {
        let runs = self.refused.len();
        match self.refused.back_mut() {
            Some(last) if *last.end() == id - 1 => *last = *last.start()..=id,
            _ if runs >= MAX_REFUSED => return Err(ProtocolError::TooManyExchanges(self.session.max_exchanges())),
            _ => self.refused.push_back(id..=id),
        }
        Ok(())
    }

    /// The exchange of an id. `None` if it is over, so that the frame has crossed its end.
    fn find(&mut self, kind: &'static str, id: u32) -> Result<Option<(ExchangeKey, &mut Exchange)>, ProtocolError> {
        if let Some(&key) = self.by_id.get(&id) {
            return Ok(Some((key, &mut self.exchanges[key.0])));
        }
        if self.session.was_opened(id) {
            return Ok(None);
        }
        Err(ProtocolError::NeverOpened { kind, id })
    }

    /// Notifies an exchange's reader of a new part.
    fn arrived(&mut self, key: ExchangeKey, end: bool) {
        self.notify_readable(key);
        if end {
            let exchange = &mut self.exchanges[key.0];
            if let Some(recv) = exchange.recv() {
                recv.end();
            }
            exchange.settle_window(&self.config.budget);
            self.forget_id(key);
            self.reap(key);
        }
    }
}

/// Takes a frame off a message of `whole` bytes. A small part of a large message is copied, so that it does not hold
/// the whole message in memory. Messages are that large only to carry one large head.
fn decode_apart(message: &mut Bytes, whole: usize) -> Result<Option<Frame>, ProtocolError> {
    let Some(header) = FrameHeader::parse(message)? else { return Ok(None) };
    let length = HEADER_LEN + header.length;
    if length >= whole / 4 || length > message.len() {
        return Frame::decode(message);
    }
    Frame::decode(&mut Bytes::copy_from_slice(&message.split_to(length)))
}

/// Whether a part of the body may come now, and its reader still wants it.
fn takes_body(exchange: &mut Exchange, kind: &'static str) -> Result<bool, ProtocolError> {
    let Some(recv) = exchange.recv() else { return Ok(false) };
    recv.check_body(kind)?;
    Ok(*recv != RecvState::Unwanted && exchange.held.recv)
}
