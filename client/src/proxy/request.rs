//! The request as the local service gets it.

use cok_proto::RequestHead;
use http::header::{HOST, HeaderValue};
use http::uri::{Authority, Parts, Scheme};
use http::{Uri, Version};

use super::HostHeader;
use super::body::RequestBody;
use super::local::Local;

/// A request that is ready to be sent.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) message: http::Request<RequestBody>,
    /// The visitor waits for a 100.
    pub(super) interim: bool,
    /// May be sent twice: idempotent and without a body (RFC 9110, section 9.2.2).
    pub(super) repeatable: bool,
}

/// Makes it from a head: the target in origin form, byte for byte, and Host as configured.
pub(super) fn build(
    head: RequestHead,
    body: RequestBody,
    local: &Local,
    host: &HostHeader,
) -> http::Request<RequestBody> {
    let RequestHead { method, target, scheme: _, authority, mut headers } = head;
    let host = match host {
        HostHeader::Preserve => HeaderValue::from_str(authority.as_str()).ok(),
        HostHeader::Rewrite => Some(local.own_host().clone()),
        HostHeader::Value(value) => Some(value.clone()),
    };
    if let Some(host) = host {
        headers.insert(HOST, host);
    }
    let mut request = http::Request::new(body);
    *request.method_mut() = method;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    let mut parts = Parts::default();
    parts.path_and_query = Some(target);
    // A target alone is always a URI.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request
}

/// Turns the request into HTTP/2's form: scheme and authority in the URI, no Host (RFC 9113, section 8.3.1).
pub(super) fn for_http2(request: &mut http::Request<RequestBody>, scheme: Scheme) {
    let host = request.headers_mut().remove(HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority.unwrap_or_else(|| Authority::from_static("localhost")));
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
}
