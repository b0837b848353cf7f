//! Bodies of responses to visitors.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cok_http::TunnelBody;
use cok_proto::ResetCode;
use cok_transport::{ExchangeError, RecvHalf};
use http::{HeaderMap, Version};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Full;
use tracing::debug;

use super::context::Context as RequestContext;
use super::grpc;
use super::lifetime::Lifetime;
use super::parting::{Chunk, Delivery, Parting};
use super::response_judge::{Content, Counter, Violation, judge_trailers};
use super::upload::Upload;
use crate::drain::{Drain, Watch};
use crate::exchanges::{Exchange, Waiting};
use crate::host::flushes::Flushes;
use crate::observe::Ending;

/// A response's body.
#[derive(Debug)]
pub(crate) struct Body {
    kind: Kind,
    /// The request that it answers. Dropped when the response ends.
    context: Option<Box<RequestContext>>,
    /// How the request ends if the daemon answers in place of its tunnel.
    because: Option<Ending>,
    /// An upload that is no longer read. Dropped when the response ends.
    kept: Option<Upload>,
    /// Says that an own answer waits for its visitor, until its bytes are written.
    waits: Option<Arc<()>>,
}

#[derive(Debug)]
enum Kind {
    Full(Full<Bytes>),
    /// Nothing, although the head has a length.
    Announced(u64),
    Tunnel(Box<Response>),
}

impl Body {
    fn new(kind: Kind) -> Self {
        Self { kind, context: None, because: None, kept: None, waits: None }
    }

    /// No body.
    pub(super) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// A body that is complete.
    pub(super) fn full(bytes: impl Into<Bytes>) -> Self {
        Self::new(Kind::Full(Full::new(bytes.into())))
    }

    /// No body of a 304 over HTTP/1.1, whose head says how long it would be (RFC 9110, section 8.6). The edge's library
    /// leaves the length out of a 304 that has no body at all. With one of that length, it writes the head alone.
    pub(super) fn announced(length: u64) -> Self {
        Self::new(Kind::Announced(length))
    }

    /// A body that comes from a tunnel for a visitor over this version of HTTP. Its lifetime says how the daemon ends it.
    pub(super) fn tunnel(
        recv: Box<dyn RecvHalf>,
        content: Content,
        lifetime: Lifetime,
        drain: &Drain,
        (version, flushes): (Version, Flushes),
        exchange: Option<Arc<Exchange>>,
    ) -> Self {
        let response = Response {
            body: TunnelBody::new(recv, None),
            counter: Counter::new(content),
            trailers: None,
            lifetime,
            farewell: lifetime.farewell(drain),
            delivery: match version {
                Version::HTTP_2 => Delivery::Http2(Arc::default()),
                Version::HTTP_3 => Delivery::Http3,
                _ => Delivery::Http1 { to_close: version < Version::HTTP_11 && content == Content::Open },
            },
            flushes,
            parting: None,
            exchange,
            ending: None,
        };
        Self::new(Kind::Tunnel(Box::new(response)))
    }

    /// The same body, which answers a request that ends like this.
    #[must_use]
    pub(super) fn because(mut self, ending: impl Into<Option<Ending>>) -> Self {
        self.because = ending.into();
        self
    }

    /// Leaves nothing of it but why it answers.
    pub(super) fn clear(&mut self) {
        *self = Self::empty().because(self.because);
    }

    /// How its request ends, as far as the body can tell.
    fn ending(&self) -> Option<Ending> {
        let ending = match &self.kind {
            Kind::Full(body) => body.is_end_stream().then_some(Ending::Complete),
            Kind::Announced(_) => Some(Ending::Complete),
            Kind::Tunnel(response) => response.ending(),
        };
        self.because.or(ending)
    }

    /// Holds an upload until the body ends.
    pub(super) fn keep(&mut self, upload: Upload) {
        self.kept = Some(upload);
    }

    /// The same body. An answer of the daemon's own holds what `wait` returns until the library has written it.
    #[must_use]
    pub(super) fn watched(mut self, wait: impl FnOnce() -> Arc<()>) -> Self {
        if self.is_own() && !self.is_end_stream() {
            self.waits = Some(wait());
        }
        self
    }

    /// Counts bytes of a response from a tunnel that wait for its visitor, besides those of the body.
    pub(super) fn wait(&self, bytes: usize) -> Option<Waiting> {
        match &self.kind {
            Kind::Tunnel(response) if bytes > 0 => Some(response.exchange.as_ref()?.wait(bytes)),
            _ => None,
        }
    }

    /// Whether it comes from the daemon and not from a tunnel.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.kind, Kind::Full(_))
    }

    /// The same body, which counts its request at its end.
    #[must_use]
    pub(super) fn with(mut self, context: Box<RequestContext>) -> Self {
        self.context = Some(context);
        self
    }
}

impl http_body::Body for Body {
    type Data = Chunk;
    type Error = ExchangeError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, ExchangeError>>> {
        let this = &mut *self;
        match &mut this.kind {
            Kind::Full(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                if let (Some(Ok(frame)), Some(context)) = (&frame, &mut this.context) {
                    let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                    context.note(|record| record.response_bytes += bytes);
                }
                Poll::Ready(frame.map(|Ok(frame)| Ok(frame.map_data(|bytes| Chunk::own(bytes, this.waits.take())))))
            }
            Kind::Announced(_) => Poll::Ready(None),
            Kind::Tunnel(response) => response.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(body) => body.is_end_stream(),
            Kind::Announced(_) => false,
            Kind::Tunnel(response) => response.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(body) => body.size_hint(),
            Kind::Announced(length) => SizeHint::with_exact(*length),
            Kind::Tunnel(response) => response.size_hint(),
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let ending = self.ending();
        if let Some(context) = &mut self.context {
            context.set_ending(ending);
        }
    }
}

/// A body from a tunnel, and the way in which the daemon ends it.
#[derive(Debug)]
struct Response {
    body: TunnelBody,
    counter: Counter,
    /// Trailers that have come together with the last byte.
    trailers: Option<HeaderMap>,
    lifetime: Lifetime,
    /// When the daemon ends it properly.
    farewell: Option<Watch>,
    delivery: Delivery,
    /// The flushes of the visitor's connection.
    flushes: Flushes,
    /// It has broken off.
    parting: Option<Parting>,
    /// The exchange that it belongs to.
    exchange: Option<Arc<Exchange>>,
    /// How it ends, if it does not end as the service has ended it.
    ending: Option<Ending>,
}

impl Response {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Chunk>, ExchangeError>>> {
        loop {
            if let Some(parting) = &mut self.parting {
                let error = ready!(parting.poll(&self.delivery, &self.flushes, cx));
                return Poll::Ready(Some(Err(error)));
            }
            let is_grpc = self.lifetime == Lifetime::Grpc;
            if !self.is_end_stream()
                && let Some(farewell) = &mut self.farewell
                && farewell.poll(cx).is_ready()
            {
                // The exchange is abandoned with it. A stream of events may end anywhere: visitors drop an incomplete event
                // (WHATWG HTML, section 9.2.6).
                self.body.end();
                self.ending = Some(Ending::Drained);
                let trailers: Option<HeaderMap> = is_grpc.then(grpc::restarting);
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            match ready!(self.poll_judged(cx)) {
                Ok(frame) => return Poll::Ready(frame.map(Ok)),
                Err(Broken::Exchange(error)) => {
                    self.ending = Some(Ending::broken(error));
                    if is_grpc && let Some(trailers) = grpc::lost(error) {
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                    self.parting = Some(Parting::new(error, &self.flushes));
                }
                Err(Broken::Rule(violation)) => {
                    debug!(%violation, "a client broke a rule of HTTP");
                    self.body.end();
                    let error = ExchangeError::Reset(ResetCode::LocalBroken);
                    self.ending = Some(Ending::broken(error));
                    self.parting = Some(Parting::new(error, &self.flushes));
                }
            }
        }
    }

    /// The next part that the judge lets pass; `None` at the end.
    fn poll_judged(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Chunk>>, Broken>> {
        loop {
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Ok(Some(Frame::trailers(trailers))));
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()? else {
                let last = self.counter.end()?;
                return Poll::Ready(Ok((!last.is_empty()).then(|| Frame::data(self.chunk(last)))));
            };
            match frame.into_data() {
                Ok(data) => {
                    let data = self.counter.take(data, self.body.is_end_stream())?;
                    if !data.is_empty() {
                        return Poll::Ready(Ok(Some(Frame::data(self.chunk(data)))));
                    }
                }
                Err(frame) => {
                    let last = self.counter.end()?;
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    judge_trailers(&mut trailers);
                    // An empty section would be a frame without a field, which some decoders refuse.
                    self.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
                    if !last.is_empty() {
                        return Poll::Ready(Ok(Some(Frame::data(self.chunk(last)))));
                    }
                }
            }
        }
    }

    fn chunk(&self, bytes: Bytes) -> Chunk {
        self.delivery.chunk(bytes, self.exchange.as_ref())
    }

    /// Whether nothing more will come, not even an error.
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
            && self.trailers.is_none()
            && self.parting.is_none()
            && self.counter.left().is_none_or(|left| left == 0)
    }

    /// How it ends, if it is over.
    fn ending(&self) -> Option<Ending> {
        // Over HTTP/1.1 no one asks for trailers behind the last byte of a sized body.
        let is_whole = self.body.is_end_stream() && self.counter.left().is_none_or(|left| left == 0);
        self.ending.or(is_whole.then_some(Ending::Complete))
    }

    fn size_hint(&self) -> SizeHint {
        match self.counter.left() {
            Some(left) => SizeHint::with_exact(left),
            None if self.body.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

/// Why a body from a tunnel breaks off.
enum Broken {
    /// Its exchange has ended early.
    Exchange(ExchangeError),
    /// It breaks a rule.
    Rule(Violation),
}

impl From<ExchangeError> for Broken {
    fn from(error: ExchangeError) -> Self {
        Self::Exchange(error)
    }
}

impl From<Violation> for Broken {
    fn from(violation: Violation) -> Self {
        Self::Rule(violation)
    }
}
