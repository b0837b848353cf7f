//! Buffers for an exchange's bytes on their way to and from quinn. They do not limit themselves; `poll_ready` does.
//!
//! Body bytes become Data frames as far as the peer's credit goes. The rest is held, and what follows it waits behind.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use cok_proto::frame::{self, DATA_CHUNK};

/// The most body bytes that are joined: a full Data frame.
pub(super) const MOST_JOINED: usize = 16 * 1024;
/// Longest body in bytes that is copied behind its frame's header. Longer ones are not copied.
const COPY_BELOW: usize = 1024;

/// Frames that quinn has not taken yet.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) chunks: VecDeque<Bytes>,
    /// The buffer for headers and short bodies.
    pub(super) scratch: BytesMut,
    /// Body bytes that wait for credit.
    held: VecDeque<Bytes>,
    /// Frames that follow them.
    behind: BytesMut,
}

impl Outbox {
    /// Queues what was written to the scratch buffer.
    pub(super) fn seal(&mut self) {
        if !self.scratch.is_empty() {
            self.chunks.push_back(self.scratch.split().freeze());
        }
    }

    /// Whether something waits for room in quinn.
    pub(super) fn is_queued(&self) -> bool {
        !self.chunks.is_empty() || !self.scratch.is_empty()
    }

    /// Whether something waits for credit.
    pub(super) fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// The buffer for a frame that needs no credit and follows everything so far.
    pub(super) fn rear(&mut self) -> &mut BytesMut {
        if self.is_held() { &mut self.behind } else { &mut self.scratch }
    }

    /// Queues body bytes as far as the credit goes, and holds the rest.
    pub(super) fn push_data(&mut self, id: u32, mut data: Bytes, end: bool, credit: &mut u64) {
        if !self.is_held() {
            let first = take_credit(&mut data, credit);
            if data.is_empty() {
                return self.frame_data(id, first, end);
            }
            if !first.is_empty() {
                self.frame_data(id, first, false);
            }
        }
        if !data.is_empty() {
            self.held.push_back(data);
        }
        if end {
            frame::put_data_header(&mut self.behind, id, 0, true);
        }
    }

    /// Queues what is held as far as the credit goes, and behind the last of it what follows.
    pub(super) fn release(&mut self, id: u32, credit: &mut u64) {
        while *credit > 0
            && let Some(mut data) = self.held.pop_front()
        {
            let first = take_credit(&mut data, credit);
            if !data.is_empty() {
                self.held.push_front(data);
            }
            self.frame_data(id, first, false);
        }
        if !self.is_held() && !self.behind.is_empty() {
            self.scratch.extend_from_slice(&std::mem::take(&mut self.behind));
        }
    }

    fn frame_data(&mut self, id: u32, mut data: Bytes, end: bool) {
        loop {
            let chunk = data.split_to(data.len().min(DATA_CHUNK));
            let last = data.is_empty();
            frame::put_data_header(&mut self.scratch, id, chunk.len(), end && last);
            if chunk.len() <= COPY_BELOW {
                self.scratch.extend_from_slice(&chunk);
            } else {
                self.seal();
                self.chunks.push_back(chunk);
            }
            if last {
                return self.seal();
            }
        }
    }
}

/// Takes the bytes that the credit allows.
fn take_credit(data: &mut Bytes, credit: &mut u64) -> Bytes {
    let length = data.len().min(usize::try_from(*credit).unwrap_or(usize::MAX));
    *credit -= length as u64;
    data.split_to(length)
}

/// Body bytes that are ready together, joined in one piece of memory.
#[derive(Default)]
pub(super) struct Joined {
    first: Bytes,
    more: BytesMut,
}

impl Joined {
    pub(super) fn push(&mut self, data: Bytes) {
        if self.first.is_empty() && self.more.is_empty() {
            self.first = data;
            return;
        }
        if self.more.is_empty() {
            self.more.reserve(MOST_JOINED + self.first.len());
            self.more.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.more.extend_from_slice(&data);
    }

    pub(super) fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn take(&mut self) -> Bytes {
        if self.more.is_empty() { std::mem::take(&mut self.first) } else { self.more.split().freeze() }
    }
}
