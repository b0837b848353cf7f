//! One exchange: what has come in and waits to be read, what waits to go out, and which directions have ended.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::window::{RecvWindow, WindowBudget};
use crate::error::ResetCode;
use crate::head::{RequestHead, ResponseHead};

/// Body bytes that one exchange may hand over before the pipe takes some: four TLS records, so that the driver always
/// finds a full write, and no more, so that a stalled peer costs little.
pub const SEND_BUFFER: usize = 64 * 1024;

/// Chunks at least this long are passed on in the memory they came in; shorter ones that have to wait are gathered,
/// so that a peer who sends single bytes cannot hold a whole read buffer with each.
const SHARE_FROM: usize = 4 * 1024;

/// What a reader gets, in order.
#[derive(Debug, PartialEq)]
pub enum Received {
    /// A response head: any number of interim ones, then the final one. With `end`, nothing follows.
    Head {
        /// The head.
        head: ResponseHead,
        /// Whether this ends the direction.
        end: bool,
    },
    /// Body bytes. With `end`, nothing follows.
    Data {
        /// The bytes; may be empty with `end`.
        data: Bytes,
        /// Whether this ends the direction.
        end: bool,
    },
    /// Trailers; nothing follows.
    Trailers(HeaderMap),
}

/// Why an exchange cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The peer (or our own side, through another handle) abandoned it.
    #[error("exchange reset: {0}")]
    Reset(ResetCode),
    /// The session ended under it.
    #[error("the session ended")]
    SessionLost,
}

/// A head that waits to go out.
#[derive(Debug)]
pub(super) enum OutHead {
    /// Shared with the caller, who may have to send it again over another session.
    Request(Arc<RequestHead>),
    Response(ResponseHead),
}

/// How a direction is to end after its queued body.
#[derive(Debug)]
pub(super) enum Finish {
    End,
    Trailers(HeaderMap),
}

/// Which ring an exchange waits in for its turn to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ring {
    None,
    Urgent,
    Bulk,
}

/// Body bytes that wait to go out. Small chunks that have to wait are gathered: each alone would cost more than its bytes.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    chunks: VecDeque<Bytes>,
    /// Small chunks behind `chunks`.
    gathered: BytesMut,
    length: usize,
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if !self.is_empty() && data.len() < SHARE_FROM {
            self.length += data.len();
            self.gathered.extend_from_slice(&data);
            if self.gathered.len() >= SHARE_FROM {
                self.flush_gathered();
            }
        } else {
            self.flush_gathered();
            self.length += data.len();
            self.chunks.push_back(data);
        }
    }

    fn flush_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.gathered).freeze());
        }
    }

    /// Moves the first `length` bytes into `out`; there must be as many.
    pub(super) fn take_into(&mut self, out: &mut BytesMut, length: usize) {
        self.length -= length;
        let mut left = length;
        while left > 0 {
            if self.chunks.is_empty() {
                self.flush_gathered();
            }
            let Some(chunk) = self.chunks.front_mut() else { break };
            if chunk.len() <= left {
                left -= chunk.len();
                out.extend_from_slice(chunk);
                self.chunks.pop_front();
            } else {
                out.extend_from_slice(&chunk.split_to(left));
                left = 0;
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) id: u32,

    pub(super) inbox: VecDeque<Received>,
    /// Small chunks that arrived behind others, not yet moved into `inbox`.
    gathered: BytesMut,
    /// Body bytes in `inbox` and `gathered`.
    pub(super) unread: usize,
    pub(super) window: RecvWindow,
    pub(super) final_head_seen: bool,
    /// How many were seen or, on the client, sent.
    pub(super) interim_heads: u8,
    pub(super) recv_ended: bool,
    /// Nobody reads any more; what still comes is dropped and earns no credit.
    pub(super) recv_stopped: bool,

    pub(super) heads: VecDeque<(OutHead, bool)>,
    pub(super) final_head_sent: bool,
    /// The peer knows of this exchange.
    pub(super) announced: bool,
    pub(super) body: Outbox,
    pub(super) finish: Option<Finish>,
    pub(super) credit: u64,
    pub(super) data_sent: bool,
    /// The caller has handed over everything.
    pub(super) send_finished: bool,
    /// The peer has been sent everything, or wants no more.
    pub(super) send_ended: bool,
    /// The peer wants no more of our body, though the other direction goes on.
    pub(super) send_stopped: bool,

    pub(super) broken: Option<ExchangeError>,
    pub(super) reset: Option<ResetCode>,
    pub(super) ring: Ring,
    pub(super) in_control: bool,
    pub(super) send_handle: bool,
    pub(super) recv_handle: bool,
    pub(super) writer_waits: bool,
    /// Its events that the owner has not taken yet.
    pub(super) readable_noted: bool,
    pub(super) writable_noted: bool,
}

impl Exchange {
    pub(super) fn new(id: u32, recv_window: u32, send_credit: u32) -> Self {
        Self {
            id,
            inbox: VecDeque::new(),
            gathered: BytesMut::new(),
            unread: 0,
            window: RecvWindow::new(recv_window),
            final_head_seen: false,
            interim_heads: 0,
            recv_ended: false,
            recv_stopped: false,
            heads: VecDeque::new(),
            final_head_sent: false,
            announced: false,
            body: Outbox::default(),
            finish: None,
            credit: u64::from(send_credit),
            data_sent: false,
            send_finished: false,
            send_ended: false,
            send_stopped: false,
            broken: None,
            reset: None,
            ring: Ring::None,
            in_control: false,
            send_handle: true,
            recv_handle: true,
            writer_waits: false,
            readable_noted: false,
            writable_noted: false,
        }
    }

    /// Puts arriving body bytes where the reader finds them.
    pub(super) fn push_data(&mut self, data: Bytes, end: bool) {
        self.unread += data.len();
        let waits = !self.inbox.is_empty() || !self.gathered.is_empty();
        if waits && data.len() < SHARE_FROM {
            self.gathered.extend_from_slice(&data);
            if end || self.gathered.len() >= SHARE_FROM {
                self.flush_gathered(end);
            }
        } else {
            self.flush_gathered(false);
            self.inbox.push_back(Received::Data { data, end });
        }
    }

    pub(super) fn push_trailers(&mut self, fields: HeaderMap) {
        self.flush_gathered(false);
        self.inbox.push_back(Received::Trailers(fields));
    }

    fn flush_gathered(&mut self, end: bool) {
        if !self.gathered.is_empty() || end {
            let data = std::mem::take(&mut self.gathered).freeze();
            self.inbox.push_back(Received::Data { data, end });
        }
    }

    /// Takes what the reader gets next.
    pub(super) fn pop(&mut self) -> Option<Received> {
        if self.inbox.is_empty() {
            self.flush_gathered(false);
        }
        let received = self.inbox.pop_front()?;
        if let Received::Data { data, .. } = &received {
            self.unread -= data.len();
        }
        Some(received)
    }

    pub(super) fn clear_inbox(&mut self) {
        self.inbox.clear();
        self.gathered = BytesMut::new();
        self.unread = 0;
    }

    /// What the window borrowed goes back once nothing more comes and everything was read: until then the memory is in
    /// use, whether or not the exchange is over.
    pub(super) fn settle_window(&mut self, budget: &WindowBudget) {
        if (self.recv_ended || self.broken.is_some()) && self.unread == 0 {
            self.window.release(budget);
        }
    }

    pub(super) fn clear_outbox(&mut self) {
        self.heads.clear();
        self.body = Outbox::default();
        self.finish = None;
    }

    /// Nothing more can come or go on the wire, apart from a queued Reset.
    pub(super) fn is_over(&self) -> bool {
        self.broken.is_some() || (self.recv_ended && self.send_ended)
    }

    /// The ring in which this exchange should wait, judged by what it could send now.
    pub(super) fn wanted_ring(&self) -> Ring {
        let body_ready = !self.body.is_empty() && self.credit > 0;
        let finish_ready = self.body.is_empty() && self.finish.is_some();
        if !self.heads.is_empty() {
            Ring::Urgent
        } else if body_ready || finish_ready {
            // First bytes go ahead of bulk: a visitor waits for them.
            if self.data_sent { Ring::Bulk } else { Ring::Urgent }
        } else {
            Ring::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_bytes_that_wait_are_gathered_in_order() {
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for round in 0..20_000_u32 {
            let length = if round % 5000 == 4999 { SHARE_FROM } else { 1 };
            let chunk = vec![round as u8; length];
            expected.extend_from_slice(&chunk);
            outbox.push(chunk.into());
        }
        assert_eq!(outbox.len(), expected.len());
        assert!(outbox.chunks.len() <= 2 * expected.len() / SHARE_FROM + 1, "{}", outbox.chunks.len());
        let mut out = BytesMut::new();
        for length in [1, 0, 4095, 4096, 9, expected.len() - 8201] {
            outbox.take_into(&mut out, length);
        }
        assert!(outbox.is_empty() && out == expected);
    }
}
