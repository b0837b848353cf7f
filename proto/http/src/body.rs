//! One direction of a tunnel's exchange as an HTTP body. The caller decides what an early end means.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cok_transport::{ExchangeError, Received, RecvHalf};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};

/// A body that comes out of a tunnel. Its half of the exchange is dropped as soon as the body has ended.
#[derive(Debug)]
pub struct TunnelBody {
    /// `None` once the body has ended.
    recv: Option<Box<dyn RecvHalf>>,
    /// The bytes still to come, if the head announced a length.
    left: Option<u64>,
}

impl TunnelBody {
    /// A body without bytes.
    pub fn empty() -> Self {
        Self { recv: None, left: None }
    }

    /// A body that comes from `recv`, with its `length` if that is known.
    pub fn new(recv: Box<dyn RecvHalf>, length: Option<u64>) -> Self {
        Self { recv: Some(recv), left: length }
    }

    /// Ends the body here and drops its half of the exchange.
    pub fn end(&mut self) {
        self.recv = None;
    }
}

/// The length that a head announces for its body.
pub fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Body for TunnelBody {
    type Data = Bytes;
    type Error = ExchangeError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        loop {
            let Some(recv) = &mut self.recv else { return Poll::Ready(None) };
            match ready!(recv.poll_recv(cx)) {
                Ok(Received::Data { data, end }) => {
                    if end {
                        self.end();
                    }
                    if data.is_empty() {
                        continue;
                    }
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Received::Trailers(fields)) => {
                    self.end();
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                // The multiplexer lets no head follow the one that stands before the body.
                Ok(Received::Head { .. }) => {}
                Err(error) => {
                    self.end();
                    return Poll::Ready(Some(Err(error)));
                }
            }
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use cok_proto::ResetCode;

    use super::*;

    /// A half that brings what it was given, and then stays silent.
    #[derive(Debug)]
    struct Script(VecDeque<Result<Received, ExchangeError>>);

    impl RecvHalf for Script {
        fn poll_recv(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
            self.0.pop_front().map_or(Poll::Pending, Poll::Ready)
        }

        fn reset(&mut self, _code: ResetCode) {}
    }

    fn body(length: Option<u64>, script: impl IntoIterator<Item = Result<Received, ExchangeError>>) -> TunnelBody {
        TunnelBody::new(Box::new(Script(script.into_iter().collect())), length)
    }

    fn data(data: &'static [u8], end: bool) -> Received {
        Received::Data { data: Bytes::from_static(data), end }
    }

    fn poll(body: &mut TunnelBody) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    fn chunk(body: &mut TunnelBody) -> Option<Bytes> {
        match poll(body) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            _ => None,
        }
    }

    #[test]
    fn the_size_counts_down_to_the_end() {
        let mut body = body(Some(5), [data(b"abc", false), data(b"", false), data(b"de", true)].map(Ok));
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(chunk(&mut body).unwrap(), "abc");
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(2), false));
        assert_eq!(chunk(&mut body).unwrap(), "de", "an empty chunk is no frame");
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(0), true));
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn trailers_and_errors_end_it() {
        let mut whole = body(None, [Ok(Received::Trailers(HeaderMap::new()))]);
        assert!(whole.size_hint().exact().is_none());
        assert!(matches!(poll(&mut whole), Poll::Ready(Some(Ok(frame))) if frame.is_trailers()));
        assert!(whole.is_end_stream());
        let mut broken = body(None, [Ok(data(b"a", false)), Err(ExchangeError::SessionLost)]);
        assert_eq!(chunk(&mut broken).unwrap(), "a");
        assert!(matches!(poll(&mut broken), Poll::Ready(Some(Err(ExchangeError::SessionLost)))));
        assert!(matches!(poll(&mut broken), Poll::Ready(None)));
    }
}
