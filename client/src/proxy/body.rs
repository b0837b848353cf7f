//! A request's body on its way from the tunnel to the local service.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use cok_transport::{ExchangeError, Received, RecvHalf};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
use http_body::{Body, Frame, SizeHint};

/// The body as HTTP libraries take it.
#[derive(Debug)]
pub(super) struct RequestBody {
    /// Gone once the body has ended.
    recv: Option<Box<dyn RecvHalf>>,
    left: Option<u64>,
    progress: Option<Arc<Progress>>,
}

/// How far a body has come, for those who wait for the response to it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    frames: AtomicU64,
    /// The service would take more, and the visitor has not sent it yet.
    visitors_turn: AtomicBool,
    /// The visitor sends nothing before the service has said 100, so it is the service's turn until then.
    expects: bool,
}

impl Progress {
    /// How many frames were passed on.
    pub(super) fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Whether it is the visitor that keeps the service waiting.
    pub(super) fn waits_for_visitor(&self) -> bool {
        self.visitors_turn.load(Ordering::Relaxed) && !(self.expects && self.frames() == 0)
    }
}

impl RequestBody {
    pub(super) fn empty() -> Self {
        Self { recv: None, left: None, progress: None }
    }

    pub(super) fn new(recv: Box<dyn RecvHalf>, headers: &HeaderMap) -> Self {
        let left = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let progress = Progress { expects: headers.contains_key(EXPECT), ..Progress::default() };
        Self { recv: Some(recv), left, progress: Some(Arc::new(progress)) }
    }

    /// Whether there never was a body.
    pub(super) fn is_empty(&self) -> bool {
        self.progress.is_none()
    }

    /// Whether nothing of it was taken yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.progress.as_ref().is_none_or(|progress| progress.frames() == 0 && self.recv.is_some())
    }

    /// How far the body has come; `None` if there is none.
    pub(super) fn progress(&self) -> Option<Arc<Progress>> {
        self.progress.clone()
    }

    fn note(&self, visitors_turn: bool, frames: u64) {
        if let Some(progress) = &self.progress {
            progress.visitors_turn.store(visitors_turn, Ordering::Relaxed);
            progress.frames.fetch_add(frames, Ordering::Relaxed);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = ExchangeError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        loop {
            let Some(recv) = &mut self.recv else { return Poll::Ready(None) };
            let received = match recv.poll_recv(cx) {
                Poll::Pending => {
                    self.note(true, 0);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(received)) => received,
                Poll::Ready(Err(error)) => {
                    self.recv = None;
                    return Poll::Ready(Some(Err(error)));
                }
            };
            self.note(false, 1);
            return Poll::Ready(match received {
                Received::Data { data, end } => {
                    if end {
                        self.recv = None;
                    }
                    if data.is_empty() {
                        continue;
                    }
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    Some(Ok(Frame::data(data)))
                }
                Received::Trailers(fields) => {
                    self.recv = None;
                    Some(Ok(Frame::trailers(fields)))
                }
                // The multiplexer takes no head from a daemon but the one that opened the exchange.
                Received::Head { .. } => continue,
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.recv.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.recv, self.left) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Some(left)) => SizeHint::with_exact(left),
            (Some(_), None) => SizeHint::default(),
        }
    }
}
