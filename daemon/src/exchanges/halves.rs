//! The halves of a watched exchange. They note each step, and break once the exchange is taken away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use cok_proto::ResetCode;
use cok_proto::ResponseHead;
use cok_proto::head::HeadTooLarge;
use cok_transport::{ExchangeError, Received, RecvHalf, SendHalf};
use http::HeaderMap;

use super::exchange::Exchange;

/// What a half reports whose exchange was taken away.
const ENDED: ExchangeError = ExchangeError::Reset(ResetCode::Cancelled);

/// Counts bytes. Only one half writes each counter, so this need not lock the bus.
fn add(counter: &AtomicU64, bytes: usize) {
    counter.store(counter.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
}

/// From the tunnel.
#[derive(Debug)]
pub(super) struct Receiving(pub(super) Arc<Exchange>);

impl RecvHalf for Receiving {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
        let polled = match &mut *self.0.recv.lock() {
            Some(recv) => recv.poll_recv(cx),
            None => return Poll::Ready(Err(ENDED)),
        };
        self.0.turn.asked(polled.is_ready());
        if let Poll::Ready(Ok(Received::Data { data, .. })) = &polled {
            add(&self.0.received, data.len());
            self.0.traffic().send(data.len());
        }
        polled
    }

    fn reset(&mut self, code: ResetCode) {
        if let Some(recv) = &mut *self.0.recv.lock() {
            recv.reset(code);
        }
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.0.turn.asked(false);
        let recv = self.0.recv.lock().take();
        drop(recv);
    }
}

/// Into the tunnel.
#[derive(Debug)]
pub(super) struct Sending(pub(super) Arc<Exchange>);

impl Sending {
    fn act<T>(&self, act: impl FnOnce(&mut dyn SendHalf) -> T) -> Option<T> {
        self.0.send.lock().as_mut().map(|send| act(&mut **send))
    }
}

impl SendHalf for Sending {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        let polled = self.act(|send| send.poll_ready(cx)).unwrap_or(Poll::Ready(Err(ENDED)));
        self.0.turn.set_owes(false);
        self.0.set_upload_blocked(polled.is_pending());
        polled
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeError> {
        let polled = self.act(|send| send.poll_broken(cx)).unwrap_or(Poll::Ready(ENDED));
        // Who asks this has found nothing to send.
        self.0.turn.set_owes(polled.is_pending());
        polled
    }

    fn send_response(&mut self, head: ResponseHead, end: bool) -> Result<(), HeadTooLarge> {
        self.act(|send| send.send_response(head, end)).unwrap_or(Ok(()))
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        self.0.turn.moved();
        add(&self.0.sent, data.len());
        self.0.traffic().receive(data.len());
        self.act(|send| send.send_data(data, end));
    }

    fn send_trailers(&mut self, fields: HeaderMap) -> Result<(), HeadTooLarge> {
        self.0.turn.moved();
        self.act(|send| send.send_trailers(fields)).unwrap_or(Ok(()))
    }

    fn break_off(&mut self, code: ResetCode) {
        self.act(|send| send.break_off(code));
    }

    fn reset(&mut self, code: ResetCode) {
        self.act(|send| send.reset(code));
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.turn.set_owes(false);
        self.0.set_upload_blocked(false);
        let send = self.0.send.lock().take();
        drop(send);
    }
}
