//! Exchanges that leave HTTP: once the service has answered 101, raw bytes go both ways. When the client stops, the visitor
//! of a WebSocket gets a Close frame. Other protocols have no such frame and break off.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use cok_http::pump::{Pump, PumpError, Visitor};
use cok_http::websocket::{Farewell, going_away, is_websocket};
use cok_proto::RequestHead;
use cok_transport::{RecvHalf, SendHalf};
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use tokio::time::{Instant, sleep};

use super::body::RequestBody;
use super::flight::Flight;
use super::http1::{Answer, ask, respond};
use super::invalid::diagnose;
use super::lent::{Returned, lend};
use super::local::Io;
use super::request::Request;
use super::respond::head_of;
use super::unless_gone::unless_gone;
use super::{Failure, Proxy};
use crate::upgrades::Upgrades;

/// How long an upgraded connection may go on once the client stops: the closing handshake of a WebSocket takes one round trip
/// to the visitor.
const CLOSING: Duration = Duration::from_secs(1);
/// Why the client closes a WebSocket: the text in the visitor's Close frame.
const STOPPING: &str = "the tunnel is being closed";

/// A request that asks for an upgrade which the owner allows.
pub(super) struct Asked {
    pub(super) head: RequestHead,
    /// The protocol that it asks for.
    pub(super) protocol: HeaderValue,
    pub(super) recv: Box<dyn RecvHalf>,
    /// It has no body.
    pub(super) end: bool,
}

/// Where the raw bytes of a request's direction will come from.
enum Raw {
    /// The request has no body.
    Here(Box<dyn RecvHalf>),
    /// They follow the body.
    BehindBody(Returned),
}

impl Raw {
    /// `None` if the body has not ended.
    fn take(self) -> Option<Box<dyn RecvHalf>> {
        match self {
            Self::Here(recv) => Some(recv),
            Self::BehindBody(returned) => returned.take(),
        }
    }
}

/// The protocol that a request asks for, if the owner allows it. Takes the field `upgrade` away otherwise. Then the service
/// answers an ordinary request, which declines the upgrade (RFC 9110, section 7.8).
pub(super) fn wanted(head: &mut RequestHead, allowed: &Upgrades) -> Option<HeaderValue> {
    let mut asked = head.headers.get_all(UPGRADE).iter();
    let (protocol, another) = (asked.next().cloned(), asked.next());
    let protocol = protocol.filter(|protocol| another.is_none() && allowed.allow(protocol.as_bytes()));
    if protocol.is_none() {
        head.headers.remove(UPGRADE);
    }
    protocol
}

/// Sends the request with its body and, after a 101, carries bytes until both ways have ended.
pub(super) async fn exchange(
    proxy: &Proxy,
    asked: Asked,
    send: &mut Box<dyn SendHalf>,
    flight: &mut Flight,
) -> Result<(), Failure> {
    let Asked { mut head, protocol, recv, end } = asked;
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    let (body, raw) = if end {
        (RequestBody::empty(), Raw::Here(recv))
    } else {
        let (recv, returned) = lend(recv);
        (RequestBody::new(recv, &head.headers), Raw::BehindBody(returned))
    };
    let mut request = Request::new(head, body, proxy.local.own_host(), &proxy.host);
    let (connection, response) = loop {
        let dial = proxy.local.connect_http1(request.message.headers());
        let mut connection = unless_gone(send, proxy.response_timeout, dial).await?;
        let answer = match ask(&mut connection, request, Instant::now(), send, proxy.response_timeout).await {
            Err(Failure::Invalid(why)) => return Err(diagnose(&connection.into_io().1, &why)),
            answer => answer?,
        };
        match answer {
            Answer::Response(response) => break (connection, response),
            Answer::None(_) if !connection.reused => return Err(Failure::Broke("it closed the connection".to_owned())),
            Answer::None(again) => request = *again,
        }
    };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return respond(connection, response, send, &proxy.local.pool, flight).await;
    }
    let (parts, _no_body) = response.into_parts();
    let names = |named: &HeaderValue| named.as_bytes().eq_ignore_ascii_case(protocol.as_bytes());
    if !parts.headers.get(UPGRADE).is_some_and(names) {
        return Err(Failure::Broke("it switched to another protocol than the visitor asked for".to_owned()));
    }
    let Some(recv) = raw.take() else {
        return Err(Failure::Broke("it switched protocols before the end of the request".to_owned()));
    };
    let closes = parts.headers.get(UPGRADE).is_some_and(|protocol| is_websocket(protocol.as_bytes()));
    let farewell = closes.then(|| Farewell::new(going_away(STOPPING)));
    let mut head = head_of(parts);
    head.first_byte = connection.first_byte;
    send.send_response(head, false).map_err(|_| Failure::TooLarge)?;
    let mut connection = connection;
    poll_fn(|cx| {
        if connection.poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        send.poll_broken(cx).map(|_| Err(Failure::Gone))
    })
    .await?;
    let (io, read) = connection.into_io();
    let mut pump = Pump::new(io, read, &mut **send, recv, Visitor::Tunnel, farewell);
    let (mut stop, mut limit) = (flight.lasts(), None);
    poll_fn(|cx| {
        if limit.is_none() && stop.poll(cx).is_ready() {
            limit = Some(Box::pin(sleep(CLOSING)));
            pump.close_websocket();
        }
        if let Poll::Ready(result) = pump.poll(cx) {
            return Poll::Ready(result.map_err(failure));
        }
        match &mut limit {
            Some(limit) => limit.as_mut().poll(cx).map(|()| cut(&mut pump)),
            None => Poll::Pending,
        }
    })
    .await
}

/// Ends what has not ended in time. A visitor with a Close frame has seen the end. Other protocols break off, so that
/// their bytes do not look complete.
fn cut(pump: &mut Pump<'_, Io>) -> Result<(), Failure> {
    if !pump.is_websocket_closed() {
        return Err(Failure::Stopped);
    }
    pump.end_to_tunnel();
    Ok(())
}

fn failure(error: PumpError) -> Failure {
    match error {
        PumpError::Connection(error) => Failure::Broke(error.to_string()),
        PumpError::Exchange(_) => Failure::Gone,
    }
}
