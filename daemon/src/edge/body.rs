//! Bodies of responses to visitors, and the upload of a request's body into a tunnel.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cok_http::TunnelBody;
use cok_proto::ResetCode;
use cok_transport::{ExchangeError, RecvHalf, SendHalf};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Full;

use super::context::Context as RequestContext;
use super::grpc;
use super::lifetime::Lifetime;
use super::request::RequestBody;
use crate::drain::{Drain, Watch};

/// A response's body.
#[derive(Debug)]
pub(crate) struct Body {
    kind: Kind,
    /// The request that it answers. Dropped when the response ends.
    context: Option<RequestContext>,
    /// An upload that is no longer read. Dropped when the response ends.
    kept: Option<Upload>,
}

#[derive(Debug)]
enum Kind {
    Full(Full<Bytes>),
    Tunnel(Response),
}

impl Body {
    /// No body.
    pub(super) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// A body that is complete.
    pub(super) fn full(bytes: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Full(Full::new(bytes.into())), context: None, kept: None }
    }

    /// A body that comes from a tunnel, `length` bytes long if that is known. Its lifetime says how the daemon ends it.
    pub(super) fn tunnel(recv: Box<dyn RecvHalf>, length: Option<u64>, lifetime: Lifetime, drain: &Drain) -> Self {
        let farewell = lifetime.farewell(drain);
        let response = Response { body: TunnelBody::new(recv, length), lifetime, farewell };
        Self { kind: Kind::Tunnel(response), context: None, kept: None }
    }

    /// Holds an upload until the body ends.
    pub(super) fn keep(&mut self, upload: Upload) {
        self.kept = Some(upload);
    }

    /// The same body, which counts its request at its end.
    #[must_use]
    pub(super) fn with(mut self, context: RequestContext) -> Self {
        self.context = Some(context);
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = ExchangeError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        match &mut self.kind {
            Kind::Full(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Kind::Tunnel(response) => response.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(body) => body.is_end_stream(),
            Kind::Tunnel(response) => response.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(body) => body.size_hint(),
            Kind::Tunnel(response) => response.body.size_hint(),
        }
    }
}

/// A body from a tunnel, and the way in which the daemon ends it.
#[derive(Debug)]
struct Response {
    body: TunnelBody,
    lifetime: Lifetime,
    /// When the daemon ends it properly.
    farewell: Option<Watch>,
}

impl Response {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        let is_grpc = self.lifetime == Lifetime::Grpc;
        if !self.body.is_end_stream()
            && let Some(farewell) = &mut self.farewell
            && farewell.poll(cx).is_ready()
        {
            // The exchange is abandoned with it. A stream of events may end anywhere: visitors drop an incomplete event
            // (WHATWG HTML, section 9.2.6).
            self.body.end();
            let trailers: Option<HeaderMap> = is_grpc.then(grpc::restarting);
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Err(error)) if is_grpc => Some(grpc::lost(error).map(Frame::trailers).ok_or(error)),
            frame => frame,
        })
    }
}

/// Carries a request's body into the tunnel, chunk by chunk, as the tunnel takes it.
#[derive(Debug)]
pub(crate) struct Upload {
    body: RequestBody,
    send: Box<dyn SendHalf>,
    started: bool,
}

impl Upload {
    /// An upload that has read nothing yet.
    pub(crate) fn new(body: RequestBody, send: Box<dyn SendHalf>) -> Self {
        Self { body, send, started: false }
    }

    /// Whether none of the body has been read, so that it can be sent over another session.
    pub(crate) fn is_unread(&self) -> bool {
        !self.started
    }

    /// What is left of the body.
    pub(crate) fn into_rest(self) -> RequestBody {
        self.body
    }

    /// Carries on. Ready once nothing is left to do: all is sent, it is not wanted any more, or the
    /// visitor has gone.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.send.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => {
                    // While the service reads nothing, the visitor may leave.
                    ready!(self.body.poll_abandoned(cx));
                    self.send.reset(ResetCode::Cancelled);
                    return Poll::Ready(());
                }
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    // While the visitor is silent, the exchange may end.
                    return self.send.poll_broken(cx).map(|_| ());
                }
                Poll::Ready(Some(Ok(frame))) => {
                    self.started = true;
                    match frame.into_data() {
                        Ok(data) => {
                            let end = self.body.is_end_stream();
                            self.send.send_data(data, end);
                            if end {
                                return Poll::Ready(());
                            }
                        }
                        Err(frame) => {
                            let trailers = frame.into_trailers().unwrap_or_default();
                            if self.send.send_trailers(trailers).is_err() {
                                self.send.break_off(ResetCode::TooLarge);
                            }
                            return Poll::Ready(());
                        }
                    }
                }
                Poll::Ready(None) => {
                    self.send.send_data(Bytes::new(), true);
                    return Poll::Ready(());
                }
                Poll::Ready(Some(Err(_))) => {
                    self.send.break_off(ResetCode::Cancelled);
                    return Poll::Ready(());
                }
            }
        }
    }
}
