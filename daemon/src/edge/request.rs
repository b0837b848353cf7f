//! A request's body, whichever version of HTTP brings it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::interim::InterimHeads;

/// A request's body.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// Over HTTP/1.1 and HTTP/2.
    Hyper(Incoming),
    /// Over HTTP/3.
    Stream(Pin<Box<dyn VisitorStream>>),
}

/// A request's body on a stream of its own, which says more about its visitor than a body does.
pub(super) trait VisitorStream: Body<Data = Bytes, Error = BrokenOff> + fmt::Debug + Send {
    /// Ready once the visitor has abandoned the request, also while nothing is read.
    fn poll_abandoned(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;

    /// Where interim heads for the visitor go.
    fn interim(&self) -> Arc<InterimHeads>;
}

/// The body broke off: the visitor has left, or has broken a rule.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request broke off")]
pub(crate) struct BrokenOff;

impl RequestBody {
    /// Ready once the visitor has abandoned the request, also while nothing is read. Only HTTP/3 can tell.
    pub(super) fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Hyper(_) => Poll::Pending,
            Self::Stream(body) => body.as_mut().poll_abandoned(cx),
        }
    }

    /// Where interim heads for the visitor go, if it can get any.
    pub(super) fn interim(&self) -> Option<Arc<InterimHeads>> {
        match self {
            Self::Hyper(_) => None,
            Self::Stream(body) => Some(body.interim()),
        }
    }
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        Self::Hyper(body)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(|_| BrokenOff),
            Self::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(body) => body.is_end_stream(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper(body) => body.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
