//! A tunnel's half of an exchange for tests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use cok_proto::head::HeadTooLarge;
use cok_proto::{ResetCode, ResponseHead};
use cok_transport::{ExchangeError, Received, RecvHalf, SendHalf};
use http::HeaderMap;
use parking_lot::Mutex;

/// A half that brings what it was given, and notes what it takes.
#[derive(Debug, Default)]
pub(crate) struct TestHalf {
    /// What it brings.
    pub(crate) parts: VecDeque<Bytes>,
    /// It takes nothing.
    pub(crate) blocked: bool,
    /// What it has taken.
    pub(crate) taken: Arc<Mutex<Taken>>,
}

/// What a half has taken.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Parts of a body. The last one may say that it is the end.
    pub(crate) data: Vec<(Bytes, bool)>,
    /// Early ends.
    pub(crate) resets: Vec<ResetCode>,
}

impl RecvHalf for TestHalf {
    fn poll_recv(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
        let part = self.parts.pop_front();
        part.map_or(Poll::Pending, |data| Poll::Ready(Ok(Received::Data { data, end: false })))
    }

    fn reset(&mut self, code: ResetCode) {
        self.taken.lock().resets.push(code);
    }
}

impl SendHalf for TestHalf {
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        if self.blocked { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_broken(&mut self, _cx: &mut Context<'_>) -> Poll<ExchangeError> {
        Poll::Pending
    }

    fn send_response(&mut self, _head: ResponseHead, _end: bool) -> Result<(), HeadTooLarge> {
        Ok(())
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        self.taken.lock().data.push((data, end));
    }

    fn send_trailers(&mut self, _fields: HeaderMap) -> Result<(), HeadTooLarge> {
        Ok(())
    }

    fn break_off(&mut self, code: ResetCode) {
        self.taken.lock().resets.push(code);
    }

    fn reset(&mut self, code: ResetCode) {
        self.taken.lock().resets.push(code);
    }
}
