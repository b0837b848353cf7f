//! The parts that an exchange's sender has handed over and that wait to go out.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::SHARE_FROM;
use crate::error::ResetCode;
use crate::head::{RequestHead, ResponseHead};

/// Parts in the order in which they go out: heads, body, end.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) heads: VecDeque<OutHead>,
    pub(crate) body: BodyQueue,
    /// How the direction ends behind the body.
    pub(crate) finish: Option<Finish>,
}

/// A head that waits to go out.
#[derive(Debug)]
pub(crate) struct OutHead {
    pub(crate) message: OutMessage,
    /// Its encoded length in bytes.
    pub(crate) length: usize,
    /// No body follows.
    pub(crate) end: bool,
}

/// What a head begins.
#[derive(Debug)]
pub(crate) enum OutMessage {
    /// Shared with the caller, who may send it again over another session.
    Request(Arc<RequestHead>),
    Response(ResponseHead),
}

/// How a direction ends behind its queued body.
#[derive(Debug)]
pub(crate) enum Finish {
    End,
    Trailers(HeaderMap),
    /// It breaks off.
    Break(ResetCode),
}

impl Outbox {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Body bytes that wait to go out. Small chunks that wait are gathered, since each alone costs more than its bytes.
#[derive(Debug, Default)]
pub(crate) struct BodyQueue {
    chunks: VecDeque<Bytes>,
    /// Small chunks behind `chunks`.
    gathered: BytesMut,
    length: usize,
}

impl BodyQueue {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(crate) fn push(&mut self, data: Bytes) {
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

    /// Moves the first `length` bytes into `out`. There must be that many.
    pub(crate) fn take_into(&mut self, out: &mut BytesMut, length: usize) {
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

    fn flush_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.gathered).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_bytes_that_wait_are_gathered_in_order() {
        let mut outbox = BodyQueue::default();
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
