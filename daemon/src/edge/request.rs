//! A request's body, whichever version of HTTP brings it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::http3;

/// A request's body.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// Over HTTP/1.1 and HTTP/2.
    Hyper(Incoming),
    /// Over HTTP/3.
    Http3(Box<http3::Body>),
}

/// The body will not be whole: the visitor has gone, or broken a rule.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request broke off")]
pub(crate) struct BrokenOff;

impl RequestBody {
    /// Ready once the visitor has abandoned the request, also while nothing is read. Only HTTP/3 can tell.
    pub(super) fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Hyper(_) => Poll::Pending,
            Self::Http3(body) => body.poll_abandoned(cx),
        }
    }

    /// Where interim heads for the visitor go, if it can get any.
    pub(super) fn interim(&self) -> Option<Arc<http3::Exchange>> {
        match self {
            Self::Hyper(_) => None,
            Self::Http3(body) => Some(body.exchange()),
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
            Self::Http3(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(body) => body.is_end_stream(),
            Self::Http3(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper(body) => body.size_hint(),
            Self::Http3(_) => SizeHint::default(),
        }
    }
}
