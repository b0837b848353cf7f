//! The two handles of a multiplexed exchange. They hold a key; the state is the multiplexer's.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use cok_proto::head::HeadTooLarge;
use cok_proto::mux::ExchangeKey;
use cok_proto::{ResetCode, ResponseHead};
use http::HeaderMap;

use super::Shared;
use crate::{ExchangeError, Holding, Received, RecvHalf, SendHalf, set_waker};

pub(super) struct MuxSend {
    shared: Arc<Shared>,
    key: ExchangeKey,
}

impl MuxSend {
    pub(super) fn new(shared: Arc<Shared>, key: ExchangeKey) -> Self {
        Self { shared, key }
    }
}

impl SendHalf for MuxSend {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        let mut state = self.shared.lock();
        match state.mux.send_ready(self.key) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => {
                set_waker(&mut state.waiting(self.key).send, cx);
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeError> {
        let mut state = self.shared.lock();
        if let Some(error) = state.mux.broken(self.key) {
            return Poll::Ready(error);
        }
        set_waker(&mut state.waiting(self.key).broken, cx);
        Poll::Pending
    }

    fn send_response(&mut self, head: ResponseHead, end: bool) -> Result<(), HeadTooLarge> {
        self.shared.act(|state| state.mux.send_response(self.key, head, end))
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        self.shared.act(|state| state.mux.send_data(self.key, data, end));
    }

    fn send_trailers(&mut self, fields: HeaderMap) -> Result<(), HeadTooLarge> {
        self.shared.act(|state| state.mux.send_trailers(self.key, fields))
    }

    fn break_off(&mut self, code: ResetCode) {
        self.shared.act(|state| state.mux.break_off(self.key, code));
    }

    fn reset(&mut self, code: ResetCode) {
        self.shared.act(|state| state.mux.reset(self.key, code));
    }
}

impl Drop for MuxSend {
    fn drop(&mut self) {
        self.shared.act(|state| {
            // Another exchange may get the slot now; it must not inherit a waker.
            let waiting = state.waiting(self.key);
            waiting.send = None;
            waiting.broken = None;
            state.mux.release_send(self.key);
        });
    }
}

impl fmt::Debug for MuxSend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MuxSend").field(&self.key).finish()
    }
}

pub(super) struct MuxRecv {
    shared: Arc<Shared>,
    key: ExchangeKey,
}

impl MuxRecv {
    pub(super) fn new(shared: Arc<Shared>, key: ExchangeKey) -> Self {
        Self { shared, key }
    }
}

impl RecvHalf for MuxRecv {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
        self.shared.act(|state| {
            if let Some(received) = state.mux.recv(self.key) {
                return Poll::Ready(received);
            }
            set_waker(&mut state.waiting(self.key).recv, cx);
            Poll::Pending
        })
    }

    fn reset(&mut self, code: ResetCode) {
        self.shared.act(|state| state.mux.reset(self.key, code));
    }

    fn charge_to(&mut self, holding: Arc<Holding>) {
        self.shared.lock().mux.charge_to(self.key, holding);
    }
}

impl Drop for MuxRecv {
    fn drop(&mut self) {
        self.shared.act(|state| {
            state.waiting(self.key).recv = None;
            state.mux.release_recv(self.key);
        });
    }
}

impl fmt::Debug for MuxRecv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MuxRecv").field(&self.key).finish()
    }
}
