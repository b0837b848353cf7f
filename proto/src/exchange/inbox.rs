//! Parts that have arrived and wait for the exchange's reader. Credit bounds them; the window keeps it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::{Holding, Received, SHARE_FROM};
use crate::error::ResetCode;
use crate::head::ResponseHead;

/// Received parts in order. Small chunks behind others are gathered.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    parts: VecDeque<Received>,
    /// Small chunks behind `parts`.
    gathered: BytesMut,
    /// Body bytes in `parts` and `gathered`.
    unread: usize,
    /// The direction broke off behind all of it.
    broke_off: Option<ResetCode>,
    /// Where `unread` is charged.
    holding: Option<Arc<Holding>>,
}

impl Inbox {
    /// Body bytes that wait to be read.
    pub(crate) fn unread(&self) -> usize {
        self.unread
    }

    /// Charges what is unread, now and later.
    pub(crate) fn charge_to(&mut self, holding: Arc<Holding>) {
        holding.add(self.unread);
        self.holding = Some(holding);
    }

    pub(crate) fn push_head(&mut self, head: ResponseHead, end: bool) {
        self.parts.push_back(Received::Head { head, end });
    }

    pub(crate) fn push_data(&mut self, data: Bytes, end: bool) {
        self.unread += data.len();
        if let Some(holding) = &self.holding {
            holding.add(data.len());
        }
        let waits = !self.parts.is_empty() || !self.gathered.is_empty();
        if waits && data.len() < SHARE_FROM {
            self.gathered.extend_from_slice(&data);
            if end || self.gathered.len() >= SHARE_FROM {
                self.flush_gathered(end);
            }
        } else {
            self.flush_gathered(false);
            self.parts.push_back(Received::Data { data, end });
        }
    }

    pub(crate) fn push_trailers(&mut self, fields: HeaderMap) {
        self.flush_gathered(false);
        self.parts.push_back(Received::Trailers(fields));
    }

    pub(crate) fn push_break(&mut self, code: ResetCode) {
        self.broke_off = Some(code);
    }

    /// Why the direction broke off behind what waits.
    pub(crate) fn broke_off(&self) -> Option<ResetCode> {
        self.broke_off
    }

    /// Takes what the reader gets next.
    pub(crate) fn pop(&mut self) -> Option<Received> {
        if self.parts.is_empty() {
            self.flush_gathered(false);
        }
        let received = self.parts.pop_front()?;
        if let Received::Data { data, .. } = &received {
            self.give_back(data.len());
        }
        Some(received)
    }

    pub(crate) fn clear(&mut self) {
        self.parts.clear();
        self.gathered = BytesMut::new();
        self.give_back(self.unread);
    }

    fn give_back(&mut self, bytes: usize) {
        self.unread -= bytes;
        if let Some(holding) = &self.holding {
            holding.sub(bytes);
        }
    }

    fn flush_gathered(&mut self, end: bool) {
        if !self.gathered.is_empty() || end {
            let data = std::mem::take(&mut self.gathered).freeze();
            self.parts.push_back(Received::Data { data, end });
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.give_back(self.unread);
    }
}
