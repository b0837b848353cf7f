//! Bodies of responses on their way into the tunnel, where the exchange's task polls them.

use std::task::{Context, Poll};

use bytes::Bytes;
use cok_transport::SendHalf;
use http_body::Frame;

use super::Failure;

/// Passes on what a poll of a response's body has brought; `is_end` says whether nothing follows it. Returns the outcome of the
/// exchange, or that it waits; `None` if the body is to be polled again.
pub(super) fn pass_on(
    polled: Poll<Option<Result<Frame<Bytes>, Failure>>>,
    is_end: impl FnOnce() -> bool,
    send: &mut Box<dyn SendHalf>,
    cx: &mut Context<'_>,
) -> Option<Poll<Result<(), Failure>>> {
    let frame = match polled {
        Poll::Pending => return Some(send.poll_broken(cx).map(|_| Err(Failure::Gone))),
        Poll::Ready(None) => {
            send.send_data(Bytes::new(), true);
            return Some(Poll::Ready(Ok(())));
        }
        Poll::Ready(Some(Err(failure))) => return Some(Poll::Ready(Err(failure))),
        Poll::Ready(Some(Ok(frame))) => frame,
    };
    match frame.into_data() {
        Ok(data) => {
            let end = is_end();
            send.send_data(data, end);
            end.then_some(Poll::Ready(Ok(())))
        }
        Err(frame) => {
            let trailers = frame.into_trailers().unwrap_or_default();
            Some(Poll::Ready(send.send_trailers(trailers).map_err(|_| Failure::TooLarge)))
        }
    }
}
