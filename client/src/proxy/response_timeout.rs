//! The time limit until the service begins its response. Only the service's own time counts: while the service waits for a
//! visitor's upload, the limit does not run.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::Failure;
use super::body::Progress;

/// Runs out when only the service delays the response.
pub(super) struct ResponseTimeout<'a> {
    limit: Duration,
    timer: Pin<&'a mut Option<Sleep>>,
    upload: Option<Arc<Progress>>,
    frames: u64,
}

impl<'a> ResponseTimeout<'a> {
    /// Starts the timer. `timer` is its place, pinned by the caller.
    pub(super) fn new(
        limit: Option<Duration>,
        mut timer: Pin<&'a mut Option<Sleep>>,
        upload: Option<Arc<Progress>>,
    ) -> Self {
        timer.set(limit.map(tokio::time::sleep));
        Self { limit: limit.unwrap_or_default(), timer, upload, frames: 0 }
    }

    /// Ready once it has run out.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            let Some(mut timer) = self.timer.as_mut().as_pin_mut() else { return Poll::Pending };
            ready!(timer.as_mut().poll(cx));
            let Some(upload) = &self.upload else { return Poll::Ready(Failure::Slow(self.limit)) };
            let frames = upload.frames();
            if frames == self.frames && !upload.waits_for_visitor() {
                return Poll::Ready(Failure::Slow(self.limit));
            }
            self.frames = frames;
            timer.reset(Instant::now() + self.limit);
        }
    }
}
