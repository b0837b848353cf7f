//! One request: whose it is, and who answers it.

use std::str::FromStr as _;
use std::sync::Arc;

use cok_http::expects_continue;
use http::header::{ALT_SVC, CONTENT_LENGTH, HOST, UPGRADE};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;

use super::body::Body;
use super::context::Context;
use super::forward::forward;
use super::linger::linger;
use super::pages::{Problem, page};
use super::request::RequestBody;
use super::route::{Route, route};
use super::upgrade::Upgrade;
use super::visitor::Visitor;
use crate::observe::Asker;

/// Answers one request, and counts it.
pub(super) async fn respond(visitor: &Arc<Visitor>, request: Request<RequestBody>) -> Response<Body> {
    let mut context = Context::new(visitor);
    let (version, is_head) = (request.version(), *request.method() == Method::HEAD);
    // Over HTTP/1.1 it is the connection's only request as long as it has no response.
    let upgrades = version == Version::HTTP_11 && request.headers().contains_key(UPGRADE);
    if upgrades {
        visitor.set_upgrading(true);
    }
    let mut response = answer(&mut context, request).await;
    if upgrades && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        visitor.set_upgrading(false);
    }
    if is_head {
        drop_body(&mut response);
    }
    if version != Version::HTTP_3
        && let Some(alternative) = &visitor.edge.alt_svc
    {
        response.headers_mut().insert(ALT_SVC, alternative.clone());
    }
    context.set_status(response.status());
    response.map(|body| body.with(context))
}

async fn answer(context: &mut Context, request: Request<RequestBody>) -> Response<Body> {
    let Some(authority) = authority(&request) else { return refuse(Problem::BadRequest, request) };
    let edge = context.visitor.edge.clone();
    match route(&edge.domain, authority.host()) {
        Route::Foreign => refuse(Problem::Misdirected, request),
        Route::Unusable => refuse(Problem::UnknownName, request),
        Route::Base => answer_on_base(&context.visitor, request),
        Route::Tunnel(name) => {
            let Some(tunnel) = edge.tunnels.find(&name) else {
                return refuse(Problem::UnknownName, request);
            };
            match Upgrade::of(&request) {
                Ok(upgrade) => forward(context, &tunnel, request, authority, upgrade).await,
                Err(problem) => refuse(problem, request),
            }
        }
    }
}

/// The daemon itself: tunnels connect here, and health checks ask.
fn answer_on_base(visitor: &Visitor, mut request: Request<RequestBody>) -> Response<Body> {
    let path = request.uri().path();
    if path == cok_transport::ws::PATH {
        return visitor.edge.tunnels.upgrade(&mut request, visitor.address()).map(Body::full);
    }
    if matches!(*request.method(), Method::GET | Method::HEAD)
        && let Some(response) = visitor.edge.health.answer(path, Asker::Public)
    {
        return response.map(Body::full);
    }
    refuse(Problem::NoPage, request)
}

/// Leaves of a response to HEAD what belongs to it (RFC 9110, section 9.3.2): over HTTP/2 the edge's library would send
/// the body.
fn drop_body(response: &mut Response<Body>) {
    if let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0)
        && !response.headers().contains_key(CONTENT_LENGTH)
    {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    *response.body_mut() = Body::empty();
}

/// The page for a problem. The visitor's body is read and dropped.
fn refuse(problem: Problem, request: Request<RequestBody>) -> Response<Body> {
    let response = page(problem, request.headers());
    if !expects_continue(request.headers()) {
        linger(request.into_body());
    }
    response
}

/// The authority that a request is for (RFC 9112, section 3.2; RFC 9113, section 8.3.1); `None` if there is none, or
/// more than one.
fn authority(request: &Request<RequestBody>) -> Option<Authority> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() || (host.is_none() && request.version() == Version::HTTP_11) {
        return None;
    }
    // An absolute target, and HTTP/2's :authority, stand above Host.
    let authority = match (request.uri().authority(), host) {
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => Authority::from_str(host.to_str().ok()?).ok()?,
        (None, None) => return None,
    };
    (!authority.as_str().contains('@') && !authority.host().is_empty()).then_some(authority)
}
