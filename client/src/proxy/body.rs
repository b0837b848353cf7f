//! A request's body on its way from the tunnel to the local service.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cok_http::{TunnelBody, content_length};
use cok_transport::{ExchangeError, RecvHalf};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// The body as the HTTP libraries take it.
#[derive(Debug)]
pub(super) struct RequestBody {
    body: TunnelBody,
    /// `None` if there never was a body.
    progress: Option<Arc<Progress>>,
}

/// The progress of a body. The response timeout watches it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    frames: AtomicU64,
    /// The service waits for more of the body from the visitor.
    visitors_turn: AtomicBool,
    /// When the service took the last of it.
    ended: OnceLock<Instant>,
}

impl Progress {
    /// The number of frames passed on.
    pub(super) fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// When the service took the last of the body.
    pub(super) fn ended(&self) -> Option<Instant> {
        self.ended.get().copied()
    }

    /// How much of the time that a response `took` was the service's own: since it had the whole request. `None` if the
    /// response came before the end of an upload, which it does not depend on then.
    pub(super) fn first_byte(upload: Option<&Self>, took: Duration) -> Option<Duration> {
        match upload {
            Some(upload) => upload.ended().map(|ended| ended.elapsed()),
            None => Some(took),
        }
    }

    /// Whether the service waits for the visitor.
    pub(super) fn waits_for_visitor(&self) -> bool {
        self.visitors_turn.load(Ordering::Relaxed)
    }
}

impl RequestBody {
    pub(super) fn empty() -> Self {
        Self { body: TunnelBody::empty(), progress: None }
    }

    pub(super) fn new(recv: Box<dyn RecvHalf>, headers: &HeaderMap) -> Self {
        Self { body: TunnelBody::new(recv, content_length(headers)), progress: Some(Arc::default()) }
    }

    /// Whether there never was a body.
    pub(super) fn is_empty(&self) -> bool {
        self.progress.is_none()
    }

    /// Whether the service has taken nothing of it.
    pub(super) fn is_untouched(&self) -> bool {
        self.progress.as_ref().is_none_or(|progress| progress.frames() == 0 && !self.body.is_end_stream())
    }

    /// The progress of the body; `None` without a body.
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
        if self.body.is_end_stream() {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Pending => self.note(true, 0),
            Poll::Ready(Some(Err(_))) => {}
            // The end counts too: the response timeout starts over from there.
            Poll::Ready(_) => self.note(false, 1),
        }
        if self.body.is_end_stream()
            && let Some(progress) = &self.progress
        {
            progress.ended.get_or_init(Instant::now);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
