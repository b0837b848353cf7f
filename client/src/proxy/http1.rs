//! An exchange over an HTTP/1.1 connection. The exchange's task polls the connection.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use cok_transport::SendHalf;
use http::{Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::body::Progress;
use super::framing::{Length, check_coding, final_head, is_bodiless};
use super::invalid::diagnose;
use super::request::Request;
use super::respond::{head_of, is_endless};
use super::response_body::pass_on;
use super::response_timeout::ResponseTimeout;
use super::service::connection::{Shortcut, keeps_open};
use super::service::pool::{Connection, Pool};
use super::service::shortcut::Whole;
use super::{Failure, INTERIM_FLOOD, Outcome};
use crate::flight::{Flight, Stop};
use crate::text::explain;

/// Sends the request and passes the response on.
pub(super) async fn exchange(
    mut connection: Box<Connection>,
    request: Request,
    send: &mut Box<dyn SendHalf>,
    limit: Option<Duration>,
    pool: &Arc<Pool>,
    flight: &mut Flight,
) -> Result<Outcome, Failure> {
    let began = Instant::now();
    if request.repeatable && request.target.is_none() && connection.prepare_shortcut(&request.message) {
        match shortcut(&mut connection, began, send, limit).await? {
            Shortcut::Whole(whole) => {
                return respond_whole(connection, whole, send, pool).await.map(|()| Outcome::Answered);
            }
            Shortcut::Closed => return Ok(Outcome::Unanswered(Box::new(request))),
            Shortcut::HandedOver => {}
        }
    }
    // A box keeps the library's part out of the future that each common request copies.
    Box::pin(exchange_by_library(connection, request, began, send, limit, pool, flight)).await
}

/// Sends the request by the HTTP library, and passes the response on.
async fn exchange_by_library(
    mut connection: Box<Connection>,
    request: Request,
    began: Instant,
    send: &mut Box<dyn SendHalf>,
    limit: Option<Duration>,
    pool: &Arc<Pool>,
    flight: &mut Flight,
) -> Result<Outcome, Failure> {
    let answer = match ask(&mut connection, request, began, send, limit).await {
        // The library says little about a head that it cannot read. The bytes say more.
        Err(Failure::Invalid(why)) => return Err(diagnose(&connection.into_io().1, &why)),
        answer => answer?,
    };
    match answer {
        Answer::Response(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            Err(Failure::Broke("it switched protocols without being asked to".to_owned()))
        }
        Answer::Response(response) => {
            respond(connection, response, send, pool, flight).await.map(|()| Outcome::Answered)
        }
        Answer::None(again) => Ok(Outcome::Unanswered(again)),
    }
}

/// Sends a common request without the HTTP library, and waits for its response.
async fn shortcut(
    connection: &mut Connection,
    began: Instant,
    send: &mut Box<dyn SendHalf>,
    limit: Option<Duration>,
) -> Result<Shortcut, Failure> {
    let mut alarm = std::mem::take(&mut connection.alarm);
    let mut timeout = ResponseTimeout::new(limit, began, &mut alarm, None);
    let mut sent = 0;
    let result = poll_fn(|cx| {
        if let Poll::Ready(shortcut) = connection.poll_shortcut(cx, &mut sent) {
            return Poll::Ready(Ok(shortcut));
        }
        if send.poll_broken(cx).is_ready() {
            return Poll::Ready(Err(Failure::Gone));
        }
        timeout.poll(cx).map(Err)
    })
    .await?;
    connection.alarm = alarm;
    connection.is_bodiless = false;
    connection.took = began.elapsed();
    connection.first_byte = Some(connection.took);
    Ok(result)
}

/// Passes on a response that has arrived whole, and returns the connection to the pool before a slow visitor takes it.
async fn respond_whole(
    mut connection: Box<Connection>,
    Whole { parts, body }: Whole,
    send: &mut Box<dyn SendHalf>,
    pool: &Arc<Pool>,
) -> Result<(), Failure> {
    connection.heed_keep_alive(&parts.headers);
    let mut head = head_of(parts);
    head.first_byte = connection.first_byte;
    let end = body.is_empty();
    send.send_response(head, end).map_err(|_| Failure::TooLarge)?;
    pool.put(connection);
    if !end {
        poll_fn(|cx| send.poll_ready(cx)).await.map_err(|_| Failure::Gone)?;
        send.send_data(body, true);
    }
    Ok(())
}

/// Passes the response on, and then returns the connection to the pool if it is still open.
pub(super) async fn respond(
    mut connection: Box<Connection>,
    response: Response<Incoming>,
    send: &mut Box<dyn SendHalf>,
    pool: &Arc<Pool>,
    flight: &mut Flight,
) -> Result<(), Failure> {
    let (parts, mut body) = response.into_parts();
    let end = body.is_end_stream();
    let length = if connection.is_bodiless {
        Length::Bodiless
    } else {
        check_coding(parts.version, &parts.headers)?;
        Length::Decided(body.size_hint().exact())
    };
    connection.heed_keep_alive(&parts.headers);
    if !end && !connection.reused && keeps_open(parts.version, &parts.headers) && !is_endless(&parts.headers) {
        pool.grow(&mut connection);
    }
    let mut head = final_head(parts, length)?;
    head.first_byte = connection.first_byte;
    let stop = (!end && is_endless(&head.headers)).then(|| flight.lasts());
    if stop.is_some() {
        connection.lasts();
    }
    send.send_response(head, end).map_err(|_| Failure::TooLarge)?;
    if !end {
        pump(&mut connection, &mut body, send, stop).await?;
    }
    drop(body);
    pool.put(connection);
    Ok(())
}

/// The answer to a request.
pub(super) enum Answer {
    Response(Response<Incoming>),
    /// The service had closed the idle connection. The request may be sent again over a fresh one.
    None(Box<Request>),
}

/// Sends the request and waits for the head of the response.
pub(super) async fn ask(
    connection: &mut Connection,
    request: Request,
    began: Instant,
    send: &mut Box<dyn SendHalf>,
    limit: Option<Duration>,
) -> Result<Answer, Failure> {
    let (repeatable, target, upload) = (request.repeatable, request.target.clone(), request.message.body().progress());
    let method = request.message.method().clone();
    connection.replace_target(target.clone());
    let mut starvation = connection.starvation.take();
    // Only a connection that was idle can have been closed at this moment.
    let again = if connection.reused { request.without_fields() } else { None };
    connection.keep_fields(again.is_some());
    let mut message = request.into_http1();
    let interim = connection.interim.clone();
    interim.clear();
    hyper::ext::on_informational(&mut message, {
        let interim = interim.clone();
        move |response| interim.push(response.status(), response.headers())
    });
    let mut passed = 0;
    let mut response = pin!(connection.sender.try_send_request(message));
    let mut alarm = std::mem::take(&mut connection.alarm);
    let mut timeout = ResponseTimeout::new(limit, began, &mut alarm, upload.clone());
    let result = poll_fn(|cx| {
        let _ended = connection.poll(cx);
        let polled = response.as_mut().poll(cx);
        interim.pass_on(send, &mut passed);
        if let Poll::Ready(result) = polled {
            return Poll::Ready(Ok(result));
        }
        if send.poll_broken(cx).is_ready() {
            return Poll::Ready(Err(Failure::Gone));
        }
        if interim.is_flood() {
            return Poll::Ready(Err(Failure::Broke(INTERIM_FLOOD.to_owned())));
        }
        if let Some(starvation) = &mut starvation {
            starvation.poll(cx, upload.as_ref().is_some_and(|upload| upload.waits_for_visitor()));
        }
        timeout.poll(cx).map(Err)
    })
    .await?;
    connection.alarm = alarm;
    let mut error = match result {
        Ok(response) => {
            connection.is_bodiless = is_bodiless(&method, response.status());
            connection.took = began.elapsed();
            connection.first_byte = Progress::first_byte(upload.as_deref(), connection.took);
            return Ok(Answer::Response(response));
        }
        Err(error) => error,
    };
    if let Some(message) = error.take_message() {
        return Ok(Answer::None(Box::new(Request { message, repeatable, target })));
    }
    match again {
        Some(mut again) if passed == 0 && !error.error().is_parse() => match connection.kept_fields() {
            Some(fields) => {
                *again.message.headers_mut() = fields;
                Ok(Answer::None(Box::new(again)))
            }
            None => Err(failure(error.error())),
        },
        _ => Err(failure(error.error())),
    }
}

/// Passes the body on chunk by chunk, without delay and no faster than the tunnel takes it. With `stop`, the body ends in
/// order when the client stops.
async fn pump(
    connection: &mut Connection,
    body: &mut Incoming,
    send: &mut Box<dyn SendHalf>,
    mut stop: Option<Stop>,
) -> Result<(), Failure> {
    poll_fn(|cx| {
        if stop.as_mut().is_some_and(|stop| stop.poll(cx).is_ready()) {
            send.send_data(Bytes::new(), true);
            return Poll::Ready(Ok(()));
        }
        loop {
            match send.poll_ready(cx) {
                Poll::Pending => {
                    // The connection is polled even while the visitor takes nothing: the upload may go on, and the visitor
                    // may wait for its effect. The connection reads one buffer of the response ahead.
                    let _ended = connection.poll(cx);
                    return Poll::Pending;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Failure::Gone)),
                Poll::Ready(Ok(())) => {}
            }
            let mut polled = Pin::new(&mut *body).poll_frame(cx);
            if polled.is_pending() {
                // The body has asked for a chunk, so the connection may read on.
                let _ended = connection.poll(cx);
                polled = Pin::new(&mut *body).poll_frame(cx);
            }
            let polled = polled.map_err(|error| failure(&error));
            if let Some(done) = pass_on(polled, || body.is_end_stream(), send, cx) {
                return done;
            }
        }
    })
    .await
}

/// Finds who is at fault.
fn failure(error: &hyper::Error) -> Failure {
    if error.is_parse_too_large() {
        Failure::TooLarge
    } else if error.is_parse() {
        Failure::Invalid(explain(error))
    } else if error.is_user() {
        // The request's body has failed, so the visitor is gone.
        Failure::Gone
    } else {
        Failure::Broke(explain(error))
    }
}
