//! A request's body on its way from the tunnel to the local service.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cok_transport::{ExchangeError, Received, RecvHalf};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};

/// The body as hyper's client takes it.
#[derive(Debug)]
pub(super) struct RequestBody {
    /// Gone once the body has ended.
    recv: Option<Box<dyn RecvHalf>>,
    left: Option<u64>,
}

impl RequestBody {
    pub(super) fn empty() -> Self {
        Self { recv: None, left: None }
    }

    pub(super) fn new(recv: Box<dyn RecvHalf>, headers: &HeaderMap) -> Self {
        let left = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        Self { recv: Some(recv), left }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.recv.is_none()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = ExchangeError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        loop {
            let Some(recv) = &mut self.recv else { return Poll::Ready(None) };
            let received = match ready!(recv.poll_recv(cx)) {
                Ok(received) => received,
                Err(error) => {
                    self.recv = None;
                    return Poll::Ready(Some(Err(error)));
                }
            };
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
