//! Bytes of bodies that wait for the rates of their tunnel and its key. A direction that has passed too many takes no more
//! until its time has come, so that the sender waits as for a slow receiver.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use cok_proto::head::HeadTooLarge;
use cok_proto::{RequestHead, ResetCode, ResponseHead};
use cok_transport::{ExchangeError, ExchangeHalves, OpenError, Received, RecvHalf, SendHalf};
use http::HeaderMap;
use tokio::time::{Instant, Sleep, sleep_until};

use super::context::Context as RequestContext;
use crate::admission::KeyRecord;
use crate::admission::rates::ByteRates;
use crate::tunnels::Live;

/// Opens an exchange whose bytes keep to the rates.
pub(super) fn open(
    context: &RequestContext,
    live: &Live,
    key: &KeyRecord,
    head: Arc<RequestHead>,
    end: bool,
) -> Result<ExchangeHalves, OpenError> {
    let halves = live.open(head, end)?;
    let rates = context.tunnel.and_then(|tunnel| context.visitor.edge.rates.bytes(tunnel, key));
    let Some(rates) = rates else { return Ok(halves) };
    let ExchangeHalves { send, recv } = halves;
    let send = Box::new(PacedSend { inner: send, pace: Pace::new(rates.clone()) });
    Ok(ExchangeHalves { send, recv: Box::new(PacedRecv { inner: recv, pace: Pace::new(rates) }) })
}

/// The pace of one direction.
#[derive(Debug)]
struct Pace {
    rates: ByteRates,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn new(rates: ByteRates) -> Self {
        Self { rates, pause: None }
    }

    /// Ready once more bytes may pass.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    fn passed(&mut self, bytes: usize) {
        let wait = self.rates.passed(bytes);
        if wait > Duration::ZERO {
            self.pause = Some(Box::pin(sleep_until(Instant::now() + wait)));
        }
    }
}

#[derive(Debug)]
struct PacedRecv {
    inner: Box<dyn RecvHalf>,
    pace: Pace,
}

impl RecvHalf for PacedRecv {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
        ready!(self.pace.poll(cx));
        let received = ready!(self.inner.poll_recv(cx));
        if let Ok(Received::Data { data, .. }) = &received {
            self.pace.passed(data.len());
        }
        Poll::Ready(received)
    }

    fn reset(&mut self, code: ResetCode) {
        self.inner.reset(code);
    }
}

#[derive(Debug)]
struct PacedSend {
    inner: Box<dyn SendHalf>,
    pace: Pace,
}

impl SendHalf for PacedSend {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        if self.pace.poll(cx).is_pending() {
            return self.inner.poll_broken(cx).map(Err);
        }
        self.inner.poll_ready(cx)
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeError> {
        self.inner.poll_broken(cx)
    }

    fn send_response(&mut self, head: ResponseHead, end: bool) -> Result<(), HeadTooLarge> {
        self.inner.send_response(head, end)
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        self.pace.passed(data.len());
        self.inner.send_data(data, end);
    }

    fn send_trailers(&mut self, fields: HeaderMap) -> Result<(), HeadTooLarge> {
        self.inner.send_trailers(fields)
    }

    fn break_off(&mut self, code: ResetCode) {
        self.inner.break_off(code);
    }

    fn reset(&mut self, code: ResetCode) {
        self.inner.reset(code);
    }
}
