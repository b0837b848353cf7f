//! gRPC calls that break off: their visitors get a status in trailers. Without one they would see a broken stream. Their
//! libraries take that for an error of the service and do not retry.
//!
//! Source: the gRPC over HTTP/2 protocol (PROTOCOL-HTTP2.md) and the status codes (statuscodes.md) of the gRPC project.

use cok_transport::ExchangeError;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::body::Body;
use super::pages::Problem;
use crate::own_answers::mark;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// UNAVAILABLE: the caller may retry.
const UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");

/// RESOURCE_EXHAUSTED: a quota of the caller or of the service is used up.
const RESOURCE_EXHAUSTED: HeaderValue = HeaderValue::from_static("8");

/// PERMISSION_DENIED, as for a 403.
const PERMISSION_DENIED: HeaderValue = HeaderValue::from_static("7");
/// UNIMPLEMENTED, as for a 404.
const UNIMPLEMENTED: HeaderValue = HeaderValue::from_static("12");
/// UNAUTHENTICATED, as for a 401.
const UNAUTHENTICATED: HeaderValue = HeaderValue::from_static("16");

/// Whether a request or response is one of gRPC, which ends with trailers. Not gRPC-Web, which has them in its body.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// The trailers of a call that ends because the daemon does.
pub(super) fn restarting() -> HeaderMap {
    unavailable("the server is restarting")
}

/// The trailers of a call that has lost its tunnel; none if something else has ended it.
pub(super) fn lost(error: ExchangeError) -> Option<HeaderMap> {
    matches!(error, ExchangeError::SessionLost).then(|| unavailable("the tunnel to the service was lost"))
}

/// The whole answer to a call that its tunnel or a rate does not let in: a head with the status, and nothing else.
pub(super) fn refused(problem: Problem) -> Response<Body> {
    let (status, message) = match problem {
        Problem::PasswordNeeded | Problem::LinkNeeded => (UNAUTHENTICATED, "the tunnel asks for credentials"),
        Problem::LinkExpired => (UNAUTHENTICATED, "the share link has expired"),
        Problem::TooMany | Problem::TooManyToTunnel => (RESOURCE_EXHAUSTED, "too many requests"),
        Problem::PathDenied => (UNIMPLEMENTED, "the tunnel is not open at this path"),
        _ => (PERMISSION_DENIED, "the tunnel is not open to this network"),
    };
    let mut response = Response::new(Body::empty().because(problem.ending()));
    let headers = response.headers_mut();
    mark(headers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, status);
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(message));
    response
}

fn unavailable(message: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(GRPC_STATUS, UNAVAILABLE), (GRPC_MESSAGE, HeaderValue::from_static(message))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_type() {
        let is = |kind| is_grpc(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]));
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc; charset=utf-8"] {
            assert!(is(kind), "{kind}");
        }
        for kind in ["application/grpc-web", "application/grpc-web+proto", "application/json", ""] {
            assert!(!is(kind), "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
