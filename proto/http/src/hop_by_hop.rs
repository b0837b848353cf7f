//! Header fields that concern one connection only (RFC 9110, section 7.6.1). Each end drops them before it passes a head on.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Drops the hop-by-hop fields of a request. `te: trailers` stays, because the tunnel carries trailers.
pub fn strip_request(headers: &mut HeaderMap) {
    let te = headers.remove(TE);
    strip(headers);
    if te.is_some_and(|te| te.to_str().is_ok_and(takes_trailers)) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Drops the hop-by-hop fields of a response. A caller who answers 101 puts Upgrade back.
pub fn strip_response(headers: &mut HeaderMap) {
    strip(headers);
    headers.remove(TE);
}

/// Drops the known fields and those that Connection names.
fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            // A peer must not take away framing and routing.
            .filter(|name| *name != CONTENT_LENGTH && *name != HOST)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

/// Whether a value of TE lists `trailers`.
fn takes_trailers(te: &str) -> bool {
    te.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn what_connection_names_is_dropped() {
        let fields = map(&[
            ("connection", "close, x-private, content-length, host, te"),
            ("x-private", "1"),
            ("content-length", "3"),
            ("host", "demo.example.com"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("trailer", "x-sum"),
            ("x-kept", "1"),
        ]);
        let kept = [("content-length", "3"), ("host", "demo.example.com"), ("trailer", "x-sum"), ("x-kept", "1")];
        let mut response = fields.clone();
        strip_response(&mut response);
        assert_eq!(response, map(&kept));
        let mut request = fields;
        strip_request(&mut request);
        assert_eq!(request, map(&[&kept[..], &[("te", "trailers")]].concat()));
    }

    #[test]
    fn te_stays_only_with_trailers() {
        let mut request = map(&[("te", "gzip")]);
        strip_request(&mut request);
        assert_eq!(request, HeaderMap::new());
    }
}
