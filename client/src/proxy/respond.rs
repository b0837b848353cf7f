//! Sends a request to the service and its response into the tunnel.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use cok_proto::ResponseHead;
use cok_transport::SendHalf;
use http::header::{CONNECTION, HeaderMap, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::Scheme;
use http::{Method, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::http2;

use super::Failure;
use super::body::RequestBody;
use super::pool::{Connection, Pool};
use super::request::{Request, for_http2};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What became of a request on a connection.
pub(super) enum Outcome {
    /// The response is through.
    Answered,
    /// The connection was closed before anything of the request was written.
    NotSent(Box<Request>),
}

/// Interim responses on their way from hyper's callback to the tunnel.
type Interim = Arc<Mutex<Vec<ResponseHead>>>;

/// Over an HTTP/1.1 connection, which this task polls itself and then gives back to the pool.
pub(super) async fn over_http1(
    mut connection: Connection,
    request: Request,
    send: &mut Box<dyn SendHalf>,
    limit: Option<Duration>,
    pool: &Pool,
) -> Result<Outcome, Failure> {
    let Request { mut message, interim: wants_interim, repeatable } = request;
    let method = message.method().clone();
    let interim = wants_interim.then(|| relay_interim(&mut message));
    let mut sending = pin!(connection.sender.try_send_request(message));
    // The sender is borrowed only until the request is queued, which is before the first poll.
    let wait = poll_fn(|cx| {
        connection.poll(cx);
        let polled = sending.as_mut().poll(cx);
        send_interim(interim.as_ref(), send);
        match polled {
            Poll::Ready(result) => Poll::Ready(Ok(result)),
            Poll::Pending => send.poll_broken(cx).map(|_| Err(Failure::Gone)),
        }
    });
    let response = match within(limit, wait).await?? {
        Ok(response) => response,
        Err(mut error) => {
            if let Some(message) = error.take_message() {
                return Ok(Outcome::NotSent(Box::new(Request { message, interim: wants_interim, repeatable })));
            }
            // Whatever cannot be parsed has at least arrived.
            if connection.reused && repeatable && !error.error().is_parse() {
                return Err(Failure::Stale);
            }
            return Err(Failure::Broke(explain(error.error())));
        }
    };
    let (head, mut body) = split(response);
    let end = has_no_body(&method, head.status) || body.is_end_stream();
    send.send_response(head, end).map_err(|_| Failure::TooLarge)?;
    if !end {
        pump(Some(&mut connection), &mut body, send).await?;
    }
    drop(body);
    pool.put(connection);
    Ok(Outcome::Answered)
}

/// Over the shared HTTP/2 connection.
pub(super) async fn over_http2(
    (mut sender, scheme): (http2::SendRequest<RequestBody>, Scheme),
    request: Request,
    send: &mut Box<dyn SendHalf>,
    limit: Option<Duration>,
) -> Result<(), Failure> {
    let Request { mut message, interim: wants_interim, repeatable } = request;
    let method = message.method().clone();
    let interim = wants_interim.then(|| relay_interim(&mut message));
    for_http2(&mut message, scheme);
    let wait = async {
        sender.ready().await.map_err(|error| Failure::Broke(explain(&error)))?;
        let mut sending = pin!(sender.send_request(message));
        poll_fn(|cx| {
            let polled = sending.as_mut().poll(cx);
            send_interim(interim.as_ref(), send);
            match polled {
                Poll::Ready(result) => Poll::Ready(Ok(result)),
                Poll::Pending => send.poll_broken(cx).map(|_| Err(Failure::Gone)),
            }
        })
        .await
    };
    let response = match within(limit, wait).await?? {
        Ok(response) => response,
        // Closed while the request was on its way (RFC 9113, section 8.7).
        Err(error) if repeatable && (error.is_canceled() || error.is_closed()) => return Err(Failure::Stale),
        Err(error) => return Err(Failure::Broke(explain(&error))),
    };
    let (head, mut body) = split(response);
    let end = has_no_body(&method, head.status) || body.is_end_stream();
    send.send_response(head, end).map_err(|_| Failure::TooLarge)?;
    if end { Ok(()) } else { pump(None, &mut body, send).await }
}

/// Passes a body on, chunk by chunk and each at once, no faster than the tunnel takes it.
pub(super) async fn pump(
    mut connection: Option<&mut Connection>,
    body: &mut Incoming,
    send: &mut Box<dyn SendHalf>,
) -> Result<(), Failure> {
    poll_fn(|cx| {
        loop {
            match send.poll_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::Gone)),
                Poll::Ready(Ok(())) => {}
            }
            if let Some(connection) = &mut connection {
                connection.poll(cx);
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return send.poll_broken(cx).map(|_| Err(Failure::Gone)),
                Poll::Ready(None) => {
                    send.send_data(Bytes::new(), true);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Failure::Broke(explain(&error)))),
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

/// The head for the tunnel, and the body.
pub(super) fn split(response: Response<Incoming>) -> (ResponseHead, Incoming) {
    let (parts, body) = response.into_parts();
    let mut headers = parts.headers;
    if parts.status != StatusCode::SWITCHING_PROTOCOLS {
        headers.remove(UPGRADE);
    }
    strip_hop_by_hop(&mut headers);
    (ResponseHead { status: parts.status, headers }, body)
}

/// Drops what concerns the connection to the service only (RFC 9110, section 7.6.1).
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let listed = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let named: Vec<HeaderName> = listed
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(|name| *name != UPGRADE && *name != http::header::CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, TE] {
        headers.remove(name);
    }
}

/// Whether a response can have no body (RFC 9112, section 6.3).
fn has_no_body(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

/// Has hyper put interim responses aside.
fn relay_interim(message: &mut http::Request<RequestBody>) -> Interim {
    let interim = Interim::default();
    let aside = interim.clone();
    hyper::ext::on_informational(message, move |response| {
        let head = ResponseHead { status: response.status(), headers: response.headers().clone() };
        aside.lock().unwrap_or_else(PoisonError::into_inner).push(head);
    });
    interim
}

fn send_interim(interim: Option<&Interim>, send: &mut Box<dyn SendHalf>) {
    let Some(interim) = interim else { return };
    for head in interim.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        // One that is too large is not missed: the final head says everything.
        if head.is_interim() && send.send_response(head, false).is_err() {
            tracing::debug!("an interim response was too large for the tunnel");
        }
    }
}

async fn within<T>(limit: Option<Duration>, future: impl Future<Output = T>) -> Result<T, Failure> {
    match limit {
        None => Ok(future.await),
        Some(limit) => tokio::time::timeout(limit, future).await.map_err(|_| Failure::Slow(limit)),
    }
}

/// An error with its causes, in one line.
pub(super) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
