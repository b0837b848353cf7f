//! An exchange with a service in this process. The exchange's task runs the service.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cok_http::expects_continue;
use cok_proto::ResponseHead;
use cok_transport::{ExchangeError, SendHalf};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, StatusCode, Version, response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::Instant;
use tracing::debug;

use super::Failure;
use super::alarm::Alarm;
use super::body::{Progress, RequestBody};
use super::framing::{Length, final_head, is_bodiless};
use super::request::Request;
use super::respond::is_endless;
use super::response_body::pass_on;
use super::response_timeout::ResponseTimeout;
use crate::flight::{Flight, Stop};
use crate::service::{Body, LocalService, ServiceError, contained};
use crate::text::explain;

/// Has the service answer, and passes its response on.
pub(super) async fn exchange(
    service: &LocalService,
    request: Request,
    send: &mut Box<dyn SendHalf>,
    limit: Option<Duration>,
    flight: &mut Flight,
) -> Result<(), Failure> {
    if request.target.is_some() {
        return Err(Failure::Broke("a target that is not UTF-8 can pass only to HTTP/1.1 services".to_owned()));
    }
    let upload = request.message.body().progress();
    let is_head = request.message.method() == Method::HEAD;
    let expects = expects_continue(request.message.headers()) && !request.message.body().is_empty();
    let (wanted, mut is_wanted) = oneshot::channel();
    let wanted = expects.then_some(wanted);
    let mut message = request.message.map(|body| Body::new(Expected { body, wanted }));
    // An exchange of a tunnel is like one of HTTP/2: it has trailers in both directions and nothing hop by hop.
    *message.version_mut() = Version::HTTP_2;
    let mut alarm = Alarm::default();
    let began = Instant::now();
    let mut timeout = ResponseTimeout::new(limit, began, &mut alarm, upload.clone());
    let mut answer = pin!(service.call(message));
    let response = poll_fn(|cx| {
        if let Poll::Ready(result) = answer.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(|error| failure(&error)));
        }
        if !is_wanted.is_terminated()
            && let Poll::Ready(Ok(())) = Pin::new(&mut is_wanted).poll(cx)
        {
            proceed(send);
        }
        if send.poll_broken(cx).is_ready() {
            return Poll::Ready(Err(Failure::Gone));
        }
        timeout.poll(cx).map(Err)
    })
    .await?;
    let first_byte = Progress::first_byte(upload.as_deref(), began.elapsed());
    let (parts, mut body) = response.into_parts();
    if parts.status.is_informational() {
        return Err(Failure::Broke(format!("its final response was {}", parts.status)));
    }
    // A service that still holds the body may read it while it responds. One that has dropped it wants nothing.
    if expects && !is_wanted.is_terminated() && !matches!(is_wanted.try_recv(), Err(TryRecvError::Closed)) {
        proceed(send);
    }
    let length = length_of(&parts, &body, is_head);
    let end = is_head || is_bodiless(&Method::GET, parts.status) || body.is_end_stream();
    let stop = (!end && is_endless(&parts.headers)).then(|| flight.lasts());
    let mut head = final_head(parts, length)?;
    head.first_byte = first_byte;
    send.send_response(head, end).map_err(|_| Failure::TooLarge)?;
    if end { Ok(()) } else { pump(&mut body, send, stop).await }
}

/// Asks the visitor for the body, as HTTP servers do when their service begins to read (RFC 9110, section 10.1.1).
fn proceed(send: &mut Box<dyn SendHalf>) {
    if send.send_response(ResponseHead::new(StatusCode::CONTINUE, HeaderMap::new()), false).is_err() {
        debug!("an empty head is too large for the tunnel");
    }
}

/// The body of a request. It says when the service begins to read.
struct Expected {
    body: RequestBody,
    /// `None` if the visitor does not wait for this.
    wanted: Option<oneshot::Sender<()>>,
}

impl http_body::Body for Expected {
    type Data = Bytes;
    type Error = ExchangeError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        if let Some(wanted) = self.wanted.take() {
            // The exchange may have its response already.
            let _answered = wanted.send(());
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The length of a service's body. The body itself knows best, as with HTTP servers.
fn length_of(parts: &response::Parts, body: &Body, is_head: bool) -> Length {
    match body.size_hint().exact() {
        // A service may leave the body out of its response to HEAD. Then the length says nothing.
        Some(length) if is_head && length > 0 && !parts.headers.contains_key(CONTENT_LENGTH) => {
            Length::Decided(Some(length))
        }
        _ if is_head || is_bodiless(&Method::GET, parts.status) => Length::Bodiless,
        Some(length) => Length::Decided(Some(length)),
        None => Length::Announced,
    }
}

/// Passes the body on part by part, without delay and no faster than the tunnel takes it. With `stop`, the body ends in
/// order when the client stops.
async fn pump(body: &mut Body, send: &mut Box<dyn SendHalf>, mut stop: Option<Stop>) -> Result<(), Failure> {
    poll_fn(|cx| {
        if stop.as_mut().is_some_and(|stop| stop.poll(cx).is_ready()) {
            send.send_data(Bytes::new(), true);
            return Poll::Ready(Ok(()));
        }
        loop {
            match send.poll_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::Gone)),
                Poll::Ready(Ok(())) => {}
            }
            let polled = match contained(|| Pin::new(&mut *body).poll_frame(cx)) {
                Ok(polled) => polled,
                Err(panicked) => return Poll::Ready(Err(failure(&panicked))),
            };
            let polled = polled.map_err(|error| failure(&ServiceError::Failed(error)));
            if let Some(done) = pass_on(polled, || body.is_end_stream(), send, cx) {
                return done;
            }
        }
    })
    .await
}

fn failure(error: &ServiceError) -> Failure {
    Failure::Broke(explain(error))
}
