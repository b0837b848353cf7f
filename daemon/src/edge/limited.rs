//! Requests over a rate: 429 (RFC 6585, section 4) with the fields of draft-ietf-httpapi-ratelimit-headers, or a status of
//! gRPC, whose libraries would take a 429 for a service that is not there.

use http::Response;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};

use super::body::Body;
use super::context::Context;
use super::grpc;
use super::known::Known;
use super::pages::{Problem, Reader, page_until};
use crate::admission::Rate;
use crate::admission::rates::{Exceeded, Whose};
use crate::names::Subdomain;
use crate::tunnels::Tunnel;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Counts a request against the rate of its visitor. A trusted proxy that names no visitor has none.
pub(super) fn admit_visitor(context: &Context) -> Result<(), Exceeded> {
    context.address.map_or(Ok(()), |address| context.visitor.edge.rates.visitor(address))
}

/// Counts a request against the rates of its tunnel: what its client allows each visitor, its own, and its key's.
pub(super) fn admit_to_tunnel(
    context: &mut Context,
    (known, name): (&Known, &Subdomain),
    tunnel: &Tunnel,
) -> Result<(), Exceeded> {
    let edge = &context.visitor.edge;
    let (number, live) = (*known.number.get_or_init(|| edge.rates.number(name)), tunnel.live());
    context.tunnel = Some(number);
    if let Some(rate) = live.as_ref().and_then(|live| live.visitor_rate())
        && let Some(address) = context.address
    {
        edge.rates.visitor_of_tunnel(number, address, rate)?;
    }
    let key = live.as_ref().map(|live| &**context.key.of(live));
    edge.rates.tunnel(number, key)
}

/// The answer to a request over a rate.
pub(super) fn too_many(exceeded: Exceeded, reader: Reader<'_>) -> Response<Body> {
    let seconds = exceeded.wait.as_secs() + u64::from(exceeded.wait.subsec_nanos() > 0);
    let seconds = seconds.max(1);
    let (whose, problem) = match exceeded.whose {
        Whose::Visitor => ("visitor", Problem::TooMany),
        Whose::Tunnel => ("tunnel", Problem::TooManyToTunnel),
        Whose::Key => ("key", Problem::TooManyToTunnel),
    };
    let mut response = if grpc::is_grpc(reader.headers()) {
        grpc::refused(problem)
    } else {
        page_until(problem, reader, Some(seconds))
    };
    let (burst, window) = (exceeded.rate.burst.get(), window(exceeded.rate));
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    for (name, value) in [
        (RATELIMIT_POLICY, format!("\"{whose}\";q={burst};w={window}")),
        (RATELIMIT, format!("\"{whose}\";r=0;t={seconds}")),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    response
}

/// In how many seconds a rate has its whole burst again, rounded up.
fn window(rate: Rate) -> u32 {
    rate.burst.get().div_ceil(rate.per_second.get())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::CONTENT_TYPE;
    use http::{HeaderMap, Method, StatusCode};

    use super::*;

    #[test]
    fn the_answer_says_when_to_come_again() {
        let exceeded = Exceeded { whose: Whose::Tunnel, rate: Rate::new(2, 5), wait: Duration::from_millis(1001) };
        let plain = HeaderMap::new();
        let response = too_many(exceeded, Reader::new(&Method::GET, &plain, None));
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        let headers = response.headers();
        assert_eq!(headers["retry-after"], "2");
        assert_eq!(headers["ratelimit-policy"], "\"tunnel\";q=5;w=3");
        assert_eq!(headers["ratelimit"], "\"tunnel\";r=0;t=2");
        let grpc = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
        let response = too_many(exceeded, Reader::new(&Method::POST, &grpc, None));
        assert_eq!((response.status(), &response.headers()["grpc-status"]), (StatusCode::OK, &"8".parse().unwrap()));
    }
}
