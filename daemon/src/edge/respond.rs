//! The response for the visitor, from the head and the body that come out of the tunnel.

use std::sync::Arc;

use cok_http::content_length;
use cok_http::hop_by_hop::strip_response;
use cok_proto::ResponseHead;
use cok_transport::{RecvHalf, SendHalf};
use http::header::{ALT_SVC, UPGRADE};
use http::{HeaderValue, Method, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;

use super::body::Body;
use super::context::Context;
use super::lifetime::Lifetime;
use super::pages::Problem;
use super::upgrade::{Upgrade, splice};

/// A final response head, as the tunnel brings it.
pub(super) struct FinalHead {
    pub(super) head: ResponseHead,
    /// No body follows.
    pub(super) end: bool,
    /// The service has decided without the body that the visitor held back: it is not wanted.
    pub(super) declined: bool,
}

/// The response to a request with this method, over this version of HTTP.
pub(super) fn respond(
    context: &mut Context,
    answered: FinalHead,
    recv: Box<dyn RecvHalf>,
    method: &Method,
    version: Version,
) -> Response<Body> {
    let ResponseHead { status, mut headers, .. } = answered.head;
    strip_response(&mut headers);
    // The service's Alt-Svc names another address than ours (RFC 7838, section 3).
    headers.remove(ALT_SVC);
    let body = if answered.end {
        Body::empty()
    } else {
        let lifetime = Lifetime::of_response(version, &headers);
        context.set_lifetime(lifetime);
        let length = content_length(&headers).filter(|_| *method != Method::HEAD);
        Body::tunnel(recv, length, lifetime, &context.visitor.edge.drain)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The response to a visitor who asked to leave HTTP: raw bytes from here on, or an ordinary response.
pub(super) fn respond_to_upgrade(
    context: &mut Context,
    mut answered: FinalHead,
    upgrade: &Upgrade,
    on_upgrade: OnUpgrade,
    send: Box<dyn SendHalf>,
    recv: Box<dyn RecvHalf>,
    version: Version,
) -> Result<Response<Body>, Problem> {
    if answered.head.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(respond(context, answered, recv, &Method::GET, version));
    }
    let protocol: Option<HeaderValue> = answered.head.headers.get(UPGRADE).cloned();
    strip_response(&mut answered.head.headers);
    let response = upgrade.complete(answered.head.headers, protocol).ok_or(Problem::ServiceBroke)?;
    let lifetime = Lifetime::of_upgrade(upgrade.is_websocket());
    let visitor = Arc::clone(&context.visitor);
    let (in_flight, farewell) = (lifetime.token(&visitor.edge.drain), lifetime.farewell(&visitor.edge.drain));
    tokio::spawn(async move {
        splice(on_upgrade, send, recv, farewell).await;
        drop((visitor, in_flight));
    });
    Ok(response)
}
