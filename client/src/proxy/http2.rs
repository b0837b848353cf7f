//! An exchange over one stream of a shared HTTP/2 connection. The exchange's task polls the stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use cok_http::content_length;
use cok_transport::SendHalf;
use h2::{Reason, RecvStream, SendStream};
use http::{Response, StatusCode};
use http_body::Body as _;
use tokio::time::Instant;

use super::alarm::Alarm;
use super::body::{Progress, RequestBody};
use super::framing::{Length, final_head, is_bodiless};
use super::request::Request;
use super::respond::{Interim, is_endless};
use super::response_timeout::ResponseTimeout;
use super::service::h2_pool::Lease;
use super::{Failure, INTERIM_FLOOD, Outcome};
use crate::flight::{Flight, Stop};
use crate::text::explain;

/// Sends the request and passes the response on.
pub(super) async fn exchange(
    lease: Lease,
    request: Request,
    send: &mut Box<dyn SendHalf>,
    limit: Option<Duration>,
    flight: &mut Flight,
) -> Result<Outcome, Failure> {
    let method = request.message.method().clone();
    let (response, mut upload, first_byte) = match ask(lease, request, send, limit).await? {
        Answer::Response(response, upload, first_byte) => (response, upload, first_byte),
        Answer::None(again) => return Ok(Outcome::Unanswered(again)),
    };
    let (parts, mut body) = response.into_parts();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Failure::Broke("HTTP/2 has no 101".to_owned()));
    }
    let bodiless = is_bodiless(&method, parts.status);
    let end = bodiless || body.is_end_stream();
    let stop = (!end && is_endless(&parts.headers)).then(|| flight.lasts());
    let length = if bodiless { Length::Bodiless } else { Length::Announced };
    let mut head = final_head(parts, length)?;
    head.first_byte = first_byte;
    let left = content_length(&head.headers);
    send.send_response(head, end).map_err(|_| Failure::TooLarge)?;
    if !end {
        pump(&mut upload, &mut body, left, send, stop).await?;
    }
    // The service does not want the rest of an upload: dropping the stream resets it.
    Ok(Outcome::Answered)
}

/// The answer to a request.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
enum Answer {
    /// With the time that the service took, if it was measured.
    Response(Response<RecvStream>, Upload, Option<Duration>),
    /// There is none, and the request may be sent again: it was not processed, or is safe to repeat.
    None(Box<Request>),
}

async fn ask(
    mut lease: Lease,
    request: Request,
    send: &mut Box<dyn SendHalf>,
    limit: Option<Duration>,
) -> Result<Answer, Failure> {
    if request.target.is_some() {
        return Err(Failure::Broke("a target that is not UTF-8 can pass only to HTTP/1.1 services".to_owned()));
    }
    let head = request.http2_head(lease.scheme());
    let mut alarm = Alarm::default();
    let progress = request.message.body().progress();
    let mut timeout = ResponseTimeout::new(limit, Instant::now(), &mut alarm, progress.clone());
    let ready = poll_fn(|cx| {
        if let Poll::Ready(result) = lease.sender.poll_ready(cx) {
            return Poll::Ready(Ok(result));
        }
        if send.poll_broken(cx).is_ready() {
            return Poll::Ready(Err(Failure::Gone));
        }
        timeout.poll(cx).map(Err)
    });
    if ready.await?.is_err() {
        lease.forget();
        return Ok(Answer::None(Box::new(request)));
    }
    let (end, began) = (request.message.body().is_end_stream(), Instant::now());
    let (mut response, stream) = match lease.sender.send_request(head, end) {
        Ok(sent) => sent,
        Err(error) if error.is_go_away() || error.is_io() => {
            lease.forget();
            return Ok(Answer::None(Box::new(request)));
        }
        Err(error) => return Err(Failure::Broke(explain(&error))),
    };
    let Request { message, repeatable, target } = request;
    let (head, body) = message.into_parts();
    let mut upload = Upload { body, stream, chunk: Bytes::new(), done: end, lease };
    let interim = Interim::default();
    let mut passed = 0;
    let result = poll_fn(|cx| {
        while let Poll::Ready(Some(Ok(response))) = response.poll_informational(cx) {
            interim.push(response.status(), response.headers());
            interim.pass_on(send, &mut passed);
            if interim.is_flood() {
                return Poll::Ready(Err(Failure::Broke(INTERIM_FLOOD.to_owned())));
            }
        }
        if let Poll::Ready(Err(failure)) = upload.poll(cx) {
            return Poll::Ready(Err(failure));
        }
        if let Poll::Ready(result) = Pin::new(&mut response).poll(cx) {
            return Poll::Ready(Ok(result));
        }
        if send.poll_broken(cx).is_ready() {
            return Poll::Ready(Err(Failure::Gone));
        }
        timeout.poll(cx).map(Err)
    })
    .await?;
    let error = match result {
        Ok(response) => {
            let first_byte = Progress::first_byte(progress.as_deref(), began.elapsed());
            return Ok(Answer::Response(response, upload, first_byte));
        }
        Err(error) => error,
    };
    let lost = !error.is_reset();
    if lost {
        upload.lease.forget();
    }
    let Upload { body, .. } = upload;
    if (is_unprocessed(&error) && body.is_untouched()) || (repeatable && lost && passed == 0) {
        return Ok(Answer::None(Box::new(Request {
            message: http::Request::from_parts(head, body),
            repeatable,
            target,
        })));
    }
    Err(Failure::Broke(explain(&error)))
}

/// Whether the service has said that it has not acted on the request (RFC 9113, section 8.7).
fn is_unprocessed(error: &h2::Error) -> bool {
    error.is_remote()
        && (error.reason() == Some(Reason::REFUSED_STREAM)
            || (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR)))
}

/// A request's body on its way into the stream.
struct Upload {
    body: RequestBody,
    stream: SendStream<Bytes>,
    /// Data that waits for the stream's window.
    chunk: Bytes,
    done: bool,
    lease: Lease,
}

impl Upload {
    /// Sends as much as the service's windows allow. The response reports errors of the stream.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while !self.done {
            if !self.chunk.is_empty() {
                self.stream.reserve_capacity(self.chunk.len());
                if self.stream.capacity() == 0 && !matches!(ready!(self.stream.poll_capacity(cx)), Some(Ok(_))) {
                    self.done = true;
                    break;
                }
                let room = self.stream.capacity().min(self.chunk.len());
                let part = self.chunk.split_to(room);
                let end = self.chunk.is_empty() && self.body.is_end_stream();
                self.done = self.stream.send_data(part, end).is_err() || end;
                continue;
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => {
                    let _closed = self.stream.send_data(Bytes::new(), true);
                    self.done = true;
                }
                Some(Err(_)) => return Poll::Ready(Err(Failure::Gone)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.chunk = data,
                    Err(frame) => {
                        let _closed = self.stream.send_trailers(frame.into_trailers().unwrap_or_default());
                        self.done = true;
                    }
                },
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Passes the body on chunk by chunk, without delay and no faster than the tunnel takes it, while the upload goes on. `left`
/// is its length, if the service has announced it. With `stop`, the body ends in order when the client stops.
async fn pump(
    upload: &mut Upload,
    body: &mut RecvStream,
    mut left: Option<u64>,
    send: &mut Box<dyn SendHalf>,
    mut stop: Option<Stop>,
) -> Result<(), Failure> {
    poll_fn(|cx| {
        if stop.as_mut().is_some_and(|stop| stop.poll(cx).is_ready()) {
            send.send_data(Bytes::new(), true);
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(Err(failure)) = upload.poll(cx) {
            return Poll::Ready(Err(failure));
        }
        loop {
            match send.poll_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::Gone)),
                Poll::Ready(Ok(())) => {}
            }
            match body.poll_data(cx) {
                Poll::Pending => return send.poll_broken(cx).map(|_| Err(Failure::Gone)),
                // The end of the connection hides the end of the stream if the upload still went on.
                Poll::Ready(Some(Err(_))) if left == Some(0) => {
                    send.send_data(Bytes::new(), true);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Failure::Broke(explain(&error)))),
                Poll::Ready(Some(Ok(data))) => {
                    // The tunnel was ready for the data and holds it now, so the service may send more.
                    let _closed = body.flow_control().release_capacity(data.len());
                    left = left.and_then(|left| left.checked_sub(data.len() as u64));
                    let end = body.is_end_stream();
                    send.send_data(data, end);
                    if end {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(None) => {
                    return match body.poll_trailers(cx) {
                        Poll::Pending => send.poll_broken(cx).map(|_| Err(Failure::Gone)),
                        Poll::Ready(Err(error)) => Poll::Ready(Err(Failure::Broke(explain(&error)))),
                        Poll::Ready(Ok(Some(trailers))) => {
                            Poll::Ready(send.send_trailers(trailers).map_err(|_| Failure::TooLarge))
                        }
                        Poll::Ready(Ok(None)) => {
                            send.send_data(Bytes::new(), true);
                            Poll::Ready(Ok(()))
                        }
                    };
                }
            }
        }
    })
    .await
}
