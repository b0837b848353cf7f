//! The stream of events: as server-sent events without an end, and as a page that grows for ten seconds.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use cok_client::BoxError;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::time::{Interval, interval};

use super::{Body, page};

/// The interval between two events.
const TICK: Duration = Duration::from_secs(1);
/// How many events the page has.
const ON_PAGE: u64 = 10;

/// Events without an end.
pub(super) fn stream() -> Body {
    Ticks { interval: interval(TICK), count: 0, most: None }.boxed_unsync()
}

/// A page that gets a line for each event.
pub(super) fn page() -> Body {
    Ticks { interval: interval(TICK), count: 0, most: Some(ON_PAGE) }.boxed_unsync()
}

/// An event each [`TICK`], for as long as the visitor listens.
struct Ticks {
    interval: Interval,
    count: u64,
    /// The last one of a page; `None` for server-sent events.
    most: Option<u64>,
}

impl http_body::Body for Ticks {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        ready!(self.interval.poll_tick(cx));
        self.count += 1;
        let (count, is_first) = (self.count, self.count == 1);
        let text = match self.most {
            None => format!("data: {count}\n\n"),
            Some(most) => {
                let before = if is_first { page::top("Events as they happen") } else { String::new() };
                let after = if count == most { page::BOTTOM } else { "" };
                format!("{before}<p>event {count} of {most}</p>\n{after}")
            }
        };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(text)))))
    }

    fn is_end_stream(&self) -> bool {
        self.most == Some(self.count)
    }
}
