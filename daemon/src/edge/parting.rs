//! Last words: when a response breaks off, what came of it before reaches its visitor first.
//!
//! The edge's library drops what it has queued as soon as a body fails. So the body keeps its error back until the visitor's
//! connection has taken the bytes before it. HTTP/3 takes care of that where it resets the stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use cok_transport::ExchangeError;
use tokio::time::{Instant, Sleep, sleep};

use crate::exchanges::{Exchange, Waiting};
use crate::host::flushes::{Close, Flushes};

/// How often the body looks whether its bytes are gone. No waker reports it.
const LOOK: Duration = Duration::from_millis(5);

/// How long an HTTP/2 head may take from the queue of its stream to the connection. Only then is a reset behind it.
const HEAD: Duration = Duration::from_millis(20);

/// How long a visitor may take to read what came before the end. One that reads nothing cannot hold the request longer.
const MOST: Duration = Duration::from_secs(10);

/// A part of a body. Over HTTP/2 it knows of the others, so that one can tell when the library has written them all.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: Bytes,
    _queued: Option<Arc<()>>,
    /// Counts the part as waiting for its visitor.
    waiting: Option<Waiting>,
}

impl Chunk {
    /// An answer of the daemon's own. `queued` is dropped once it is written.
    pub(super) fn own(bytes: Bytes, queued: Option<Arc<()>>) -> Self {
        Self { bytes, _queued: queued, waiting: None }
    }

    /// The part's bytes, and what counts them as waiting.
    pub(super) fn into_parts(self) -> (Bytes, Option<Waiting>) {
        (self.bytes, self.waiting)
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}

/// How a visitor's connection takes a body.
#[derive(Debug)]
pub(super) enum Delivery {
    /// The connection polls the body, and flushes after that. The body may end with the connection (RFC 9112, section 8).
    Http1 { to_close: bool },
    /// The library queues chunks per stream; each holds a reference until it is written.
    Http2(Arc<()>),
    /// The edge writes them itself.
    Http3,
}

impl Delivery {
    /// The part of a body for this delivery, which belongs to an exchange.
    pub(super) fn chunk(&self, bytes: Bytes, exchange: Option<&Arc<Exchange>>) -> Chunk {
        let queued = if let Self::Http2(queued) = self { Some(queued.clone()) } else { None };
        let waiting = exchange.map(|exchange| exchange.wait(bytes.len()));
        Chunk { bytes, _queued: queued, waiting }
    }
}

/// An error that waits for the bytes before it.
#[derive(Debug)]
pub(super) struct Parting {
    error: ExchangeError,
    began: Instant,
    /// The completed flushes when it began.
    flushes: u64,
    look: Pin<Box<Sleep>>,
}

impl Parting {
    /// Begins to wait.
    pub(super) fn new(error: ExchangeError, flushes: &Flushes) -> Self {
        Self { error, began: Instant::now(), flushes: flushes.count(), look: Box::pin(sleep(LOOK)) }
    }

    /// The error, once the connection has taken everything or the visitor does not read.
    pub(super) fn poll(&mut self, delivery: &Delivery, flushes: &Flushes, cx: &mut Context<'_>) -> Poll<ExchangeError> {
        loop {
            let gone = match delivery {
                Delivery::Http1 { .. } => flushes.count() > self.flushes,
                Delivery::Http2(queued) => Arc::strong_count(queued) == 1 && self.began.elapsed() >= HEAD,
                Delivery::Http3 => true,
            };
            if gone || self.began.elapsed() >= MOST {
                if let Delivery::Http1 { to_close } = delivery {
                    flushes.close(if *to_close { Close::Reset } else { Close::Lingering });
                }
                return Poll::Ready(self.error);
            }
            ready!(self.look.as_mut().poll(cx));
            self.look.as_mut().reset(Instant::now() + LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn over_http2_the_error_waits_for_the_chunks() {
        let delivery = Delivery::Http2(Arc::default());
        let chunk = delivery.chunk(Bytes::from_static(b"last words"), None);
        let flushes = Flushes::default();
        let mut parting = Parting::new(ExchangeError::SessionLost, &flushes);
        let mut wait = async || poll_fn(|cx| parting.poll(&delivery, &flushes, cx)).await;
        assert!(tokio::time::timeout(Duration::from_secs(5), wait()).await.is_err());
        drop(chunk);
        assert_eq!(wait().await, ExchangeError::SessionLost);
    }

    #[tokio::test(start_paused = true)]
    async fn a_visitor_who_does_not_read_is_given_up() {
        let flushes = Flushes::default();
        let mut parting = Parting::new(ExchangeError::SessionLost, &flushes);
        let began = Instant::now();
        poll_fn(|cx| parting.poll(&Delivery::Http1 { to_close: false }, &flushes, cx)).await;
        assert!(began.elapsed() >= MOST);
    }
}
