//! When an exchange may write, while those of other tunnels wait for their turns. The rules are in `turns`.

use std::task::{Context, Poll};

use quinn::SendStream;

use super::Exchange;
use crate::quic::shared::Shared;
use crate::quic::turns::{BODY, FIRST_BYTES};

/// An exchange's place among those that send.
#[derive(Default)]
pub(super) struct Turn {
    /// Bytes handed to quinn.
    sent: u64,
    /// Counted among the writers that wait for room.
    waits: bool,
    /// Counted among the writers of first bytes that wait for room.
    waits_first: bool,
    /// It has let others pass, and writes next.
    has_let_pass: bool,
    priority: i32,
}

impl Turn {
    /// Ready once the exchange may write. It lets others pass once: a writer that waits because its own stream is full
    /// must not hold the others up.
    pub(super) fn take(&mut self, cx: &mut Context<'_>, exchange: &Exchange, send: &SendStream) -> Poll<()> {
        let (tunnel, sent, may_pass) = (exchange.tunnel, self.sent, !self.has_let_pass);
        let (priority, lets_pass) =
            exchange.session().take_turns(|turns| (turns.priority(tunnel, sent), may_pass && turns.lets_pass(tunnel)));
        self.set_priority(priority, send);
        self.has_let_pass = lets_pass;
        if lets_pass {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// The same while the session has exchanges of one tunnel: bodies let first bytes pass. Quinn wakes all writers at once
    /// when there is room, and hundreds of downloads would leave none.
    pub(super) fn take_alone(&mut self, cx: &mut Context<'_>, exchange: &Exchange, send: &SendStream) -> Poll<()> {
        self.set_priority(if self.is_first() { 0 } else { BODY }, send);
        self.has_let_pass = !self.has_let_pass && !self.is_first() && exchange.session().first_bytes_wait();
        if self.has_let_pass {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Whether what it sends now are an exchange's first bytes.
    fn is_first(&self) -> bool {
        self.sent < FIRST_BYTES
    }

    fn set_priority(&mut self, priority: i32, send: &SendStream) {
        if self.priority != priority {
            self.priority = priority;
            let _closed = send.set_priority(priority);
        }
    }

    pub(super) fn waits(&mut self, waits: bool, exchange: &Exchange) {
        let waits_first = waits && self.is_first();
        if std::mem::replace(&mut self.waits_first, waits_first) != waits_first {
            exchange.session().count_first(waits_first);
        }
        let waits = waits && exchange.session().is_contended();
        if self.waits != waits {
            self.waits = waits;
            exchange.session().take_turns(|turns| turns.set_waiting(exchange.tunnel, waits));
        }
    }

    pub(super) fn sent(&mut self, bytes: usize, exchange: &Exchange) {
        self.sent += bytes as u64;
        if !exchange.session().is_contended() {
            return;
        }
        exchange.session().take_turns(|turns| turns.sent(exchange.tunnel, bytes as u64));
    }

    /// The exchange is over: it does not wait any more.
    pub(super) fn leave(&mut self, tunnel: u32, session: &Shared) {
        if std::mem::take(&mut self.waits_first) {
            session.count_first(false);
        }
        if std::mem::take(&mut self.waits) {
            session.take_turns(|turns| turns.set_waiting(tunnel, false));
        }
    }
}
