//! State that receiving, transmitting and the handles share: the rings of exchanges, the events and the slots.

use super::exchange::{Ring, State};
use super::{Event, ExchangeKey, Mux};
use crate::error::ResetCode;
use crate::exchange::RecvState;
use crate::frame;

impl Mux {
    /// Client: stops the upload once the response has gone out and the request's reader has left.
    pub(super) fn stop_upload(&mut self, key: ExchangeKey) {
        let exchange = &mut self.exchanges[key.0];
        if let State::Running { send, recv: recv @ RecvState::Unwanted } = &mut exchange.state
            && send.is_over()
        {
            recv.stop();
            exchange.reset = Some(ResetCode::NoError);
            self.announce(key);
            self.forget_id(key);
        }
    }

    /// Puts an exchange into the ring where it belongs, unless it waits in one already.
    pub(super) fn schedule(&mut self, key: ExchangeKey) {
        let exchange = &mut self.exchanges[key.0];
        if exchange.ring != Ring::None {
            return;
        }
        exchange.ring = exchange.wanted_ring();
        match exchange.ring {
            Ring::None => {}
            Ring::Urgent => self.urgent.push(key, &mut self.exchanges),
            Ring::Bulk => self.bulk.push(key, &mut self.exchanges),
        }
    }

    /// Queues an exchange for its credit or Reset.
    pub(super) fn announce(&mut self, key: ExchangeKey) {
        let exchange = &mut self.exchanges[key.0];
        if !exchange.in_control {
            exchange.in_control = true;
            self.control_ring.push_back(key);
        }
    }

    /// Queues [`Event::Readable`] unless one waits already: a message holds thousands of frames.
    pub(super) fn notify_readable(&mut self, key: ExchangeKey) {
        if !std::mem::replace(&mut self.exchanges[key.0].noted.recv, true) {
            self.events.push_back(Event::Readable(key));
        }
    }

    /// Queues [`Event::Writable`] unless one waits already.
    pub(super) fn notify_writable(&mut self, key: ExchangeKey) {
        if !std::mem::replace(&mut self.exchanges[key.0].noted.send, true) {
            self.events.push_back(Event::Writable(key));
        }
    }

    /// Queues a Ping that measures the round trip, if the last measure is old.
    pub(super) fn probe_round_trip(&mut self) {
        if self.session.is_established()
            && let Some(ping) = self.liveness.probe(self.now)
        {
            frame::put_ping(&mut self.control, ping);
        }
    }

    /// Daemon: the request of this exchange has gone out under a new id.
    pub(super) fn announced(&mut self, key: ExchangeKey) {
        let exchange = &mut self.exchanges[key.0];
        if std::mem::take(&mut exchange.waits_for_id) {
            exchange.announced = true;
            self.unannounced -= 1;
            self.by_id.insert(exchange.id, key);
            self.session.opened(exchange.id, self.now);
            self.session.announced(exchange.id);
        }
    }

    /// Forgets the id of an exchange that is over, so that frames for it are ignored.
    pub(super) fn forget_id(&mut self, key: ExchangeKey) {
        let exchange = &mut self.exchanges[key.0];
        if exchange.is_over() || self.session.is_closed() {
            exchange.settle_window(&self.config.budget);
            if std::mem::take(&mut exchange.waits_for_id) {
                self.unannounced -= 1;
            } else if self.by_id.get(&exchange.id) == Some(&key) {
                self.by_id.remove(&exchange.id);
            }
        }
    }

    /// Frees the slot once no handle and no queue refers to it.
    pub(super) fn reap(&mut self, key: ExchangeKey) {
        let Some(exchange) = self.exchanges.get(key.0) else { return };
        let held = exchange.held.send || exchange.held.recv;
        let queued = exchange.ring != Ring::None || exchange.in_control;
        let over = exchange.is_over() || self.is_closed();
        if !held && !queued && over {
            let exchange = self.exchanges.remove(key.0);
            self.session.released(exchange.tunnel);
        }
    }
}
