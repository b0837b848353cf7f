//! Transmits messages: packs whole frames into messages of one TLS record, in the order that the module above states.

use bytes::{Buf as _, BytesMut};

use super::exchange::{Exchange, Ring};
use super::{ExchangeKey, Mux, SEND_BUFFER};
use crate::error::ResetCode;
use crate::exchange::{Finish, OutHead, OutMessage, Outbox};
use crate::frame::{self, DATA_CHUNK, FrameHeader, FrameType, HEADER_LEN, ID_LEN, MESSAGE_TARGET};
use crate::head::fields_len;

/// The length in bytes of a Reset, WindowUpdate, Ping or Pong.
const SMALL_FRAME: usize = HEADER_LEN + 8;
/// Bytes that a message must have left for a Drain.
const DRAIN_ROOM: usize = 256;

impl Mux {
    /// True if [`Mux::transmit`] has something to send.
    pub fn has_transmit(&self) -> bool {
        !self.control.is_empty()
            || self.pong.is_some()
            || self.session.has_drain()
            || !self.refused.is_empty()
            || !self.control_ring.is_empty()
            || !self.urgent.is_empty()
            || !self.bulk.is_empty()
    }

    /// Writes the next message to `out`, which must be empty. `false` if there is nothing to send. A message is filled
    /// up to [`MESSAGE_TARGET`]; only a single longer head or control frame exceeds it.
    pub fn transmit(&mut self, out: &mut BytesMut) -> bool {
        debug_assert!(out.is_empty(), "a message starts empty");
        let full = self.transmit_control(out);
        if self.is_closed() {
            self.discard_rings();
        } else if !full {
            let _full = self.transmit_credit(out)
                || self.transmit_urgent(out)
                || self.transmit_drain(out)
                || self.transmit_bulk(out);
        }
        !out.is_empty()
    }

    /// Writes control frames. `true` if the message is full: a thousand tunnels that move take several messages.
    fn transmit_control(&mut self, out: &mut BytesMut) -> bool {
        while let Ok(Some(header)) = FrameHeader::parse(&self.control) {
            let length = HEADER_LEN + header.length;
            if !fits(out, length) {
                return true;
            }
            out.extend_from_slice(&self.control[..length]);
            self.control.advance(length);
        }
        out.extend_from_slice(&self.control);
        self.control.clear();
        self.session.answers_sent();
        if self.pong.is_some() && !fits(out, SMALL_FRAME) {
            return true;
        }
        if let Some(opaque) = self.pong.take() {
            frame::put_pong(out, opaque);
        }
        false
    }

    /// Writes Resets and credit. Returns `true` if the message is full, like the next three functions.
    fn transmit_credit(&mut self, out: &mut BytesMut) -> bool {
        while let Some(ids) = self.refused.front_mut() {
            if !fits(out, SMALL_FRAME) {
                return true;
            }
            if let Some(id) = ids.next() {
                frame::put_reset(out, id, ResetCode::Unprocessed);
            }
            if ids.is_empty() {
                self.refused.pop_front();
            }
        }
        while let Some(&key) = self.control_ring.front() {
            if !fits(out, 2 * SMALL_FRAME) {
                return true;
            }
            self.control_ring.pop_front();
            let exchange = &mut self.exchanges[key.0];
            exchange.in_control = false;
            if !exchange.recv_is_over() {
                let grant = exchange.window.take_grant();
                if grant > 0 {
                    frame::put_window_update(out, exchange.id, grant);
                }
            }
            if let Some(code) = exchange.reset.take() {
                frame::put_reset(out, exchange.id, code);
            }
            self.reap(key);
        }
        false
    }

    /// Writes heads and the first bytes after them.
    fn transmit_urgent(&mut self, out: &mut BytesMut) -> bool {
        while let Some(key) = self.urgent.front() {
            let exchange = &mut self.exchanges[key.0];
            if exchange.waits_for_id {
                exchange.id = self.session.next_id();
            }
            let credit = exchange.credit;
            let sent = if exchange.outbox.heads.is_empty() { put_body(exchange, out) } else { put_head(exchange, out) };
            let length = credit - exchange.credit;
            if length > 0 {
                self.session.earn_data(1, length as usize);
            }
            if !sent {
                return true;
            }
            self.announced(key);
            if self.exchanges[key.0].wanted_ring() != Ring::Urgent {
                self.urgent.pop(&mut self.exchanges);
                self.turn_over(key);
            }
        }
        false
    }

    /// Writes the Drain behind every request that was opened before it; no request may follow it.
    fn transmit_drain(&mut self, out: &mut BytesMut) -> bool {
        if self.session.has_drain() && !fits(out, DRAIN_ROOM) {
            return true;
        }
        if let Some(drain) = self.session.take_drain() {
            frame::put_json(out, FrameType::Drain, &drain);
        }
        false
    }

    /// Writes one Data frame for each tunnel in turn, of its exchanges in turn.
    fn transmit_bulk(&mut self, out: &mut BytesMut) -> bool {
        while let Some(key) = self.bulk.front() {
            let exchange = &mut self.exchanges[key.0];
            let credit = exchange.credit;
            if !put_body(exchange, out) {
                return true;
            }
            let length = credit - exchange.credit;
            if length > 0 {
                self.session.earn_data(1, length as usize);
            }
            self.bulk.pop(&mut self.exchanges);
            self.turn_over(key);
        }
        false
    }

    /// Ends an exchange's turn: it queues again if it has more, and its writer may go on.
    fn turn_over(&mut self, key: ExchangeKey) {
        let exchange = &mut self.exchanges[key.0];
        exchange.ring = Ring::None;
        if exchange.writer_waits && exchange.outbox.body.len() < SEND_BUFFER {
            exchange.writer_waits = false;
            self.notify_writable(key);
        }
        if self.exchanges[key.0].send_is_over() {
            self.stop_upload(key);
            self.forget_id(key);
            self.reap(key);
        } else {
            self.schedule(key);
        }
    }

    /// Drops the queues of all exchanges, since the session has ended.
    fn discard_rings(&mut self) {
        for key in std::mem::take(&mut self.control_ring) {
            self.exchanges[key.0].in_control = false;
            self.reap(key);
        }
        for mut ring in [std::mem::take(&mut self.urgent), std::mem::take(&mut self.bulk)] {
            while let Some(key) = ring.pop(&mut self.exchanges) {
                self.exchanges[key.0].ring = Ring::None;
                self.reap(key);
            }
        }
    }
}

/// Whether `length` more bytes fit into the message. The first frame always fits.
fn fits(out: &BytesMut, length: usize) -> bool {
    out.is_empty() || out.len() + length <= MESSAGE_TARGET
}

/// Writes the exchange's next head. `false` if it must wait for the next message.
fn put_head(exchange: &mut Exchange, out: &mut BytesMut) -> bool {
    let Some(OutHead { message, length, end: ends }) = exchange.outbox.heads.front() else { return true };
    // A request has its tunnel's id as well.
    if !fits(out, HEADER_LEN + 2 * ID_LEN + length) {
        return false;
    }
    match message {
        OutMessage::Request(head) => frame::put_request(out, exchange.id, exchange.tunnel, head, *ends),
        OutMessage::Response(head) => frame::put_response(out, exchange.id, head, *ends),
    }
    let ends = *ends;
    exchange.outbox.heads.pop_front();
    if ends {
        end(exchange);
    }
    true
}

/// Writes the exchange's next Data frame, gathered from as many queued chunks as fit, or its end. `false` if it must
/// wait for the next message.
fn put_body(exchange: &mut Exchange, out: &mut BytesMut) -> bool {
    let Outbox { body, finish, .. } = &mut exchange.outbox;
    let credit = usize::try_from(exchange.credit).unwrap_or(usize::MAX);
    let length = body.len().min(credit).min(DATA_CHUNK);
    let last = length == body.len();
    let ends = last && matches!(finish, Some(Finish::End));
    if length > 0 || ends {
        if !fits(out, HEADER_LEN + ID_LEN + length) {
            return false;
        }
        frame::put_data_header(out, exchange.id, length, ends);
        body.take_into(out, length);
        exchange.credit -= length as u64;
        exchange.is_bulk = true;
        if ends {
            end(exchange);
        }
    } else if last && let Some(Finish::Trailers(fields)) = finish {
        if !fits(out, HEADER_LEN + ID_LEN + fields_len(fields).unwrap_or(0)) {
            return false;
        }
        frame::put_trailers(out, exchange.id, fields);
        end(exchange);
    } else if last && let Some(Finish::Break(code)) = finish {
        if !fits(out, SMALL_FRAME) {
            return false;
        }
        frame::put_break(out, exchange.id, *code);
        end(exchange);
    }
    // Otherwise the exchange was abandoned or is out of credit, so the next message has nothing of it either.
    true
}

/// Records that the last part has gone out.
fn end(exchange: &mut Exchange) {
    exchange.outbox.finish = None;
    if let Some(send) = exchange.send() {
        send.end();
    }
}
