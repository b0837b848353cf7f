//! One connection to the admin API: its room among others, and how long it may last.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// How long a request head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest request head, in bytes.
const LONGEST_HEAD: usize = 16 * 1024;
/// How long a connection may last. A program that asks again connects again. A stream of events lasts for as long as its
/// listener takes one in this time.
const LIFETIME: Duration = Duration::from_secs(300);
/// The most connections at once, through each door. Further ones wait at the socket, and are closed at the address. Streams
/// of events have room of their own.
const MAX_CONNECTIONS: usize = 64;

/// Room for connections through one door.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_CONNECTIONS)))
    }
}

/// Room for one connection.
pub(super) type Place = OwnedSemaphorePermit;

impl Places {
    /// Room, if there is some.
    pub(super) fn try_take(&self) -> Option<Place> {
        self.0.clone().try_acquire_owned().ok()
    }

    /// Waits for room.
    pub(super) async fn take(&self) -> Option<Place> {
        self.0.clone().acquire_owned().await.ok()
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// Given back when a stream of events begins, which has room of its own.
    place: Mutex<Option<Place>>,
    progress: Arc<Progress>,
}

/// Whether a stream of events moves.
#[derive(Debug, Default)]
pub(super) struct Progress(AtomicBool);

impl Progress {
    /// Notes that an event goes out.
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Connection {
    pub(super) fn new(place: Place) -> Arc<Self> {
        Arc::new(Self { place: Mutex::new(Some(place)), progress: Arc::default() })
    }

    /// Notes that it carries events from now on.
    pub(super) fn begin_events(&self) -> Arc<Progress> {
        self.place.lock().take();
        self.progress.clone()
    }

    /// Serves HTTP/1.1 on a stream until its end.
    pub(super) async fn serve<F: Future<Output = Response<Body>>>(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        answer: impl Fn(Request<Incoming>, Arc<Self>) -> F,
    ) -> hyper::Result<()> {
        let service = service_fn(|request| {
            let answered = answer(request, self.clone());
            async move { Ok::<_, Infallible>(answered.await) }
        });
        let mut builder = http1::Builder::new();
        let builder = builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(LONGEST_HEAD)
            .max_header_size(LONGEST_HEAD);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        loop {
            if let Ok(served) = timeout(LIFETIME, connection.as_mut()).await {
                return served;
            }
            if !self.progress.0.swap(false, Ordering::Relaxed) {
                connection.as_mut().graceful_shutdown();
                return timeout(HEAD_TIMEOUT, connection).await.unwrap_or(Ok(()));
            }
        }
    }
}

/// The body of an answer: a text, or a stream of events.
pub(super) enum Body {
    Text(Full<Bytes>),
    Events(UnsyncBoxBody<Bytes, Infallible>),
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Text(Full::from(text))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::Text(Full::from(text))
    }
}

impl From<UnsyncBoxBody<Bytes, Infallible>> for Body {
    fn from(events: UnsyncBoxBody<Bytes, Infallible>) -> Self {
        Self::Events(events)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Text(text) => Pin::new(text).poll_frame(cx),
            Self::Events(events) => Pin::new(events).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_end_stream(),
            Self::Events(events) => events.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => text.size_hint(),
            Self::Events(events) => events.size_hint(),
        }
    }
}
