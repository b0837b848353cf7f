//! The time limit until the service begins its response. Only the service's own time counts: while the service waits for a
//! visitor's upload, the limit does not run.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::Failure;
use super::alarm::Alarm;
use super::body::Progress;

/// Runs out when only the service delays the response.
pub(super) struct ResponseTimeout<'a> {
    limit: Option<Duration>,
    /// When it runs out, unless the service meanwhile takes a part of the upload.
    at: Instant,
    alarm: &'a mut Alarm,
    upload: Option<Arc<Progress>>,
    frames: u64,
}

impl<'a> ResponseTimeout<'a> {
    /// Starts the time at `began`.
    pub(super) fn new(
        limit: Option<Duration>,
        began: Instant,
        alarm: &'a mut Alarm,
        upload: Option<Arc<Progress>>,
    ) -> Self {
        Self { limit, at: began + limit.unwrap_or_default(), alarm, upload, frames: 0 }
    }

    /// Ready once it has run out.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let Some(limit) = self.limit else { return Poll::Pending };
        while self.alarm.poll_at(cx, self.at).is_ready() {
            let Some(upload) = &self.upload else { return Poll::Ready(Failure::Slow(limit)) };
            let frames = upload.frames();
            if frames == self.frames && !upload.waits_for_visitor() {
                return Poll::Ready(Failure::Slow(limit));
            }
            self.frames = frames;
            self.at = Instant::now() + limit;
        }
        Poll::Pending
    }
}
