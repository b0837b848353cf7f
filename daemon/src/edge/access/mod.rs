//! Whom a tunnel lets in: its rules, applied to each request that it is about to carry.
//!
//! The rules are those of the binding that serves the request. So they hold over every version of HTTP, on a connection that
//! is open already, and for a request that has waited for its tunnel.

mod credentials;
mod path;

use std::sync::Arc;
use std::time::SystemTime;

use cok_proto::RequestHead;
use http::header::{ACCEPT, LOCATION, SET_COOKIE, UPGRADE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Response, StatusCode};

use self::credentials::{Link, TargetParts};
use super::body::Body;
use super::grpc::{is_grpc, refused};
use super::pages::{Problem, Reader, page};
use super::proxied::visitor_address;
use super::visitor::Visitor;
use crate::admission::{Access, InvalidLink};
use crate::own_answers::mark;
use crate::tunnels::Live;

/// Answers a browser that has not named a password yet. Its user sees a dialog.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"tunnel\", charset=\"UTF-8\"");

/// Lets a request into the tunnel that serves it, or answers it. The head that comes back lacks what was for the daemon alone.
pub(super) fn admit(
    visitor: &Visitor,
    head: &Arc<RequestHead>,
    live: &Live,
) -> Result<Arc<RequestHead>, Box<Response<Body>>> {
    let Some(access) = &live.access else { return Ok(head.clone()) };
    judge(access, head, visitor)
}

fn judge(access: &Access, head: &Arc<RequestHead>, visitor: &Visitor) -> Result<Arc<RequestHead>, Box<Response<Body>>> {
    let address = visitor_address(&head.headers, visitor.address(), &visitor.edge.config().trusted_proxies);
    if !access.admits(address) {
        return Err(Box::new(deny(Problem::NetworkDenied, head)));
    }
    let target = TargetParts::of(&head.target);
    if !access.paths.is_empty() && !path::is_allowed(target.path, access.paths.iter()) {
        return Err(Box::new(deny(Problem::PathDenied, head)));
    }
    if access.passwords.is_none() && access.share.is_none() {
        return Ok(head.clone());
    }
    let link = access
        .share
        .as_ref()
        .map_or(Link::None, |share| credentials::link(share, &head.headers, &target, SystemTime::now()));
    if let Link::Address { token, left } = &link
        && let Some(response) = into_cookie(head, &target, token, *left)
    {
        return Err(Box::new(response));
    }
    let used_password =
        access.passwords.as_ref().is_some_and(|passwords| credentials::password(passwords, &head.headers));
    if !used_password && !link.is_valid() && !is_preflight(head) {
        let problem = match (&link, &access.passwords) {
            (_, Some(_)) => Problem::PasswordNeeded,
            (Link::Unusable(InvalidLink::Expired), None) => Problem::LinkExpired,
            _ => Problem::LinkNeeded,
        };
        return Err(Box::new(deny(problem, head)));
    }
    Ok(credentials::without(access, head, &target))
}

/// The answer to a visitor who may not come in. A program that speaks gRPC gets its status in place of a page.
fn deny(problem: Problem, head: &RequestHead) -> Response<Body> {
    if is_grpc(&head.headers) {
        return refused(problem);
    }
    let mut response = page(problem, Reader::of(head));
    if problem == Problem::PasswordNeeded {
        response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
    }
    response
}

/// Sends a browser that came by a link to the same address without the token, with a cookie in its place. `None` for programs
/// that may not keep cookies: they send the token each time.
fn into_cookie(head: &RequestHead, target: &TargetParts<'_>, token: &str, left: u64) -> Option<Response<Body>> {
    let is_read = matches!(head.method, Method::GET | Method::HEAD) && !head.headers.contains_key(UPGRADE);
    let accepts = head
        .headers
        .get_all(ACCEPT)
        .iter()
        .any(|accept| accept.as_bytes().windows(9).any(|part| part.eq_ignore_ascii_case(b"text/html")));
    if !is_read || !accepts {
        return None;
    }
    // An absolute address, since a path that begins with two slashes would name a host.
    let location = [b"https://", head.authority.as_str().as_bytes(), &target.without_token()].concat();
    let cookie =
        format!("{}={token}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={left}", cok_proto::share::COOKIE);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    mark(headers);
    headers.insert(LOCATION, HeaderValue::from_bytes(&location).ok()?);
    headers.insert(SET_COOKIE, HeaderValue::from_str(&cookie).ok()?);
    Some(response)
}

/// Whether a browser asks if a page of another site may send a request. It sends no credentials with the question (Fetch
/// standard, section 4.8). A request that a service may take for another one, or that leaves HTTP, is no such question.
fn is_preflight(head: &RequestHead) -> bool {
    const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];
    head.method == Method::OPTIONS
        && head.headers.contains_key("origin")
        && head.headers.contains_key("access-control-request-method")
        && !head.headers.contains_key(UPGRADE)
        && !OVERRIDES.iter().any(|name| head.headers.contains_key(*name))
}
