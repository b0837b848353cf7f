//! Bodies of responses to visitors, and the upload of a request's body into a tunnel.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use cok_proto::ResetCode;
use cok_transport::{ExchangeError, Received, RecvHalf, SendHalf};
use http::{HeaderMap, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Full;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::grpc;
use super::request::RequestBody;
use super::service::Visitor;
use crate::drain::phase::Watch;

/// A response's body.
#[derive(Debug)]
pub(crate) struct Body {
    kind: Kind,
    /// Counts the response once it is through.
    answer: Option<Answer>,
    /// An upload that nobody reads, for as long as the response goes on.
    kept: Option<Upload>,
}

#[derive(Debug)]
enum Kind {
    Full(Full<Bytes>),
    Tunnel(TunnelBody),
}

/// Counts a request when it is dropped, whether or not the response got through.
#[derive(Debug)]
pub(crate) struct Answer {
    /// To whom.
    pub(crate) visitor: Arc<Visitor>,
    /// When the request began.
    pub(crate) began: Instant,
    /// The response's status, once there is one.
    pub(crate) status: Option<StatusCode>,
    /// That it is waited for.
    pub(crate) running: TaskTrackerToken,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.visitor.answered(self.status, self.began);
    }
}

impl Body {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// A body that is all there.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Full(Full::new(bytes.into())), answer: None, kept: None }
    }

    /// A body that comes from a tunnel, `length` bytes long if that is known.
    pub(crate) fn tunnel(recv: Box<dyn RecvHalf>, length: Option<u64>) -> Self {
        Self {
            kind: Kind::Tunnel(TunnelBody { recv: Some(recv), left: length, ending: Ending::BreaksOff }),
            answer: None,
            kept: None,
        }
    }

    /// A stream of events that comes from a tunnel, and ends as if the service had ended it when the `time` is up. A
    /// visitor throws an event away that has not come to its end (WHATWG HTML, section 9.2.6), so no heed is paid to
    /// where one does. Any other body breaks off: what has been cut short must not look whole.
    pub(crate) fn events(recv: Box<dyn RecvHalf>, time: Watch) -> Self {
        Self {
            kind: Kind::Tunnel(TunnelBody { recv: Some(recv), left: None, ending: Ending::Events(time) }),
            answer: None,
            kept: None,
        }
    }

    /// A body that comes from a tunnel is that of a gRPC call, over HTTP/2 or HTTP/3: it ends with trailers that say so
    /// when the `last` moment has come, or the tunnel is lost.
    pub(crate) fn speaks_grpc(&mut self, last: Watch) {
        if let Kind::Tunnel(body) = &mut self.kind {
            body.ending = Ending::Grpc(last);
        }
    }

    /// Holds an upload until the body ends.
    pub(crate) fn keep(&mut self, upload: Upload) {
        self.kept = Some(upload);
    }

    /// The same body, counted at its end.
    #[must_use]
    pub(crate) fn counted(mut self, mut answer: Answer) -> Self {
        if matches!(&self.kind, Kind::Tunnel(TunnelBody { ending: Ending::Events(_), .. })) {
            answer.running = answer.visitor.daemon.running.lasting();
        }
        self.answer = Some(answer);
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = ExchangeError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        match &mut self.kind {
            Kind::Full(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Kind::Tunnel(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(body) => body.is_end_stream(),
            Kind::Tunnel(body) => body.recv.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(body) => body.size_hint(),
            Kind::Tunnel(body) => body.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

#[derive(Debug)]
struct TunnelBody {
    /// Gone once the body has ended.
    recv: Option<Box<dyn RecvHalf>>,
    left: Option<u64>,
    ending: Ending,
}

/// How a body ends that the daemon cuts short.
#[derive(Debug)]
enum Ending {
    /// It must not look whole.
    BreaksOff,
    /// As if the service had ended it, when that time is up.
    Events(Watch),
    /// With trailers that say so, at that moment.
    Grpc(Watch),
}

impl Ending {
    /// Ready once it is time to end, with the trailers for it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<HeaderMap>> {
        match self {
            Self::BreaksOff => Poll::Pending,
            Self::Events(time) => time.poll(cx).map(|()| None),
            Self::Grpc(last) => last.poll(cx).map(|()| Some(grpc::restarting())),
        }
    }
}

impl TunnelBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        if self.recv.is_some()
            && let Poll::Ready(trailers) = self.ending.poll(cx)
        {
            // The exchange is abandoned with it.
            self.recv = None;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        loop {
            let Some(recv) = &mut self.recv else { return Poll::Ready(None) };
            let received = match ready!(recv.poll_recv(cx)) {
                Ok(received) => received,
                Err(error) => {
                    self.recv = None;
                    let trailers = matches!(self.ending, Ending::Grpc(_)).then(|| grpc::lost(error)).flatten();
                    return Poll::Ready(Some(trailers.map(Frame::trailers).ok_or(error)));
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
                // The multiplexer lets no head follow the final one.
                Received::Head { .. } => continue,
            });
        }
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
    /// Of which nothing is read yet.
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

    /// Carries on; ready once nothing is left to do, be it that all is sent, that nobody wants it any more, or that the
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
                                self.send.reset(ResetCode::TooLarge);
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
                    self.send.reset(ResetCode::Cancelled);
                    return Poll::Ready(());
                }
            }
        }
    }
}
