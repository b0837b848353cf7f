//! A request's body, whichever version of HTTP brings it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::interim::InterimHeads;
use super::judge::{Fault, check_trailers};

/// A request's body.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// Over HTTP/1.1 and HTTP/2.
    Hyper {
        /// What the library reads.
        body: Incoming,
        /// Where its faults are noted. `None` without a body.
        doubt: Option<Doubt>,
    },
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

/// A fault of a body, noted while the request is answered.
#[derive(Clone, Debug)]
pub(super) struct Doubt(Arc<OnceLock<Fault>>);

impl Doubt {
    /// No fault so far.
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    /// Notes a fault. The first one counts.
    pub(super) fn cast(&self, fault: Fault) {
        let _first_counts = self.0.set(fault);
    }

    /// The fault, if there is one by now.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.0.get().copied()
    }
}

impl RequestBody {
    /// A body over HTTP/1.1, with the faults that the layer under the library has found, or over HTTP/2.
    pub(super) fn hyper(body: Incoming, doubt: Option<Doubt>) -> Self {
        let doubt = doubt.or_else(|| (!body.is_end_stream()).then(Doubt::new));
        Self::Hyper { body, doubt }
    }

    /// Where its faults are noted. HTTP/3 resets the stream instead.
    pub(super) fn doubt(&self) -> Option<Doubt> {
        match self {
            Self::Hyper { doubt, .. } => doubt.clone(),
            Self::Stream(_) => None,
        }
    }

    /// Ready once the visitor has abandoned the request, also while nothing is read. Only HTTP/3 can tell.
    pub(super) fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Hyper { .. } => Poll::Pending,
            Self::Stream(body) => body.as_mut().poll_abandoned(cx),
        }
    }

    /// Where interim heads for the visitor go, if it can get any.
    pub(super) fn interim(&self) -> Option<Arc<InterimHeads>> {
        match self {
            Self::Hyper { .. } => None,
            Self::Stream(body) => Some(body.interim()),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Hyper { body, doubt } => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                if let Some(Ok(frame)) = &frame
                    && let Some(Err(fault)) = frame.trailers_ref().map(check_trailers)
                {
                    if let Some(doubt) = doubt {
                        doubt.cast(fault);
                    }
                    return Poll::Ready(Some(Err(BrokenOff)));
                }
                Poll::Ready(frame.map(|frame| frame.map_err(|_| BrokenOff)))
            }
            Self::Stream(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper { body, .. } => body.is_end_stream(),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Hyper { body, .. } => body.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}
