//! An exchange with a service in this process. The exchange's task runs the service.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use cok_transport::SendHalf;
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode, Version, response};
use http_body::Body as _;

use super::Failure;
use super::request::Request;
use super::respond::{head_of, is_endless};
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
    let upload = request.message.body().progress();
    let is_head = request.message.method() == Method::HEAD;
    let mut message = request.message.map(Body::new);
    // An exchange of a tunnel is like one of HTTP/2: it has trailers in both directions and nothing hop by hop.
    *message.version_mut() = Version::HTTP_2;
    let mut timer = pin!(None);
    let mut timeout = ResponseTimeout::new(limit, timer.as_mut(), upload);
    let mut answer = pin!(service.call(message));
    let response = poll_fn(|cx| {
        if let Poll::Ready(result) = answer.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(failure));
        }
        if send.poll_broken(cx).is_ready() {
            return Poll::Ready(Err(Failure::Gone));
        }
        timeout.poll(cx).map(Err)
    })
    .await?;
    let (mut parts, mut body) = response.into_parts();
    if parts.status.is_informational() {
        return Err(Failure::Broke(format!("its final response was {}", parts.status)));
    }
    announce_length(&mut parts, &body, is_head);
    let end = is_head || has_no_body(parts.status) || body.is_end_stream();
    let stop = (!end && is_endless(&parts.headers)).then(|| flight.lasts());
    send.send_response(head_of(parts), end).map_err(|_| Failure::TooLarge)?;
    if end { Ok(()) } else { pump(&mut body, send, stop).await }
}

/// Adds the length of the body if the body knows it, as HTTP servers do.
fn announce_length(parts: &mut response::Parts, body: &Body, is_head: bool) {
    if parts.headers.contains_key(CONTENT_LENGTH) || has_no_body(parts.status) {
        return;
    }
    // A service may leave the body out of its response to HEAD. Then the length says nothing.
    if let Some(length) = body.size_hint().exact().filter(|length| !is_head || *length > 0) {
        parts.headers.insert(CONTENT_LENGTH, length.into());
    }
}

fn has_no_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
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
                Err(panicked) => return Poll::Ready(Err(failure(panicked))),
            };
            match polled {
                Poll::Pending => return send.poll_broken(cx).map(|_| Err(Failure::Gone)),
                Poll::Ready(None) => {
                    send.send_data(Bytes::new(), true);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(failure(ServiceError::Failed(error)))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        let end = body.is_end_stream();
                        send.send_data(data, end);
                        if end {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        return Poll::Ready(send.send_trailers(trailers).map_err(|_| Failure::TooLarge));
                    }
                },
            }
        }
    })
    .await
}

fn failure(error: ServiceError) -> Failure {
    Failure::Broke(explain(&error))
}
