//! An exchange's bytes on their way to quinn and from it.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use cok_proto::frame::{self, DATA_CHUNK};

/// Body bytes that are joined before they are handed on: a full Data frame.
pub(super) const MOST_JOINED: usize = 16 * 1024;
/// Body bytes up to here are copied behind their frame's header; longer ones stay where they are.
const COPY_BELOW: usize = 1024;

/// Frames that quinn has not taken yet.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) chunks: VecDeque<Bytes>,
    /// Where headers and short bodies are written; handed over in parts.
    pub(super) scratch: BytesMut,
}

impl Outbox {
    /// Moves what was written to the scratch space into the queue.
    pub(super) fn seal(&mut self) {
        if !self.scratch.is_empty() {
            self.chunks.push_back(self.scratch.split().freeze());
        }
    }

    pub(super) fn push_data(&mut self, id: u32, mut data: Bytes, end: bool) {
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

/// Body bytes that are ready together, in one piece of memory.
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
