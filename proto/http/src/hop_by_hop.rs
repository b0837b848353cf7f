//! Header fields that concern one connection only (RFC 9110, section 7.6.1). Each end drops them before it passes a head on.
//! The other fields keep their order.

use http::StatusCode;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE, UPGRADE};

/// Drops the hop-by-hop fields of a request, and the fields that the caller `also` drops. `te: trailers` stays, because the
/// tunnel carries trailers.
pub fn strip_request(headers: &mut HeaderMap, also: impl Fn(&HeaderName) -> bool) {
    let keeps_te = headers.get(TE).is_some_and(|te| te.to_str().is_ok_and(takes_trailers));
    let named = named_by_connection(headers);
    retain(headers, |name| {
        (*name == TE && keeps_te) || !(concerns_connection(name) || named.contains(name) || also(name))
    });
    if keeps_te {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Drops the hop-by-hop fields of a response. A 101 keeps Upgrade, and so does a 426 (RFC 9110, section 15.5.22).
pub fn strip_response(status: StatusCode, headers: &mut HeaderMap) {
    let keeps_upgrade = matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED);
    let named = named_by_connection(headers);
    retain(headers, |name| (*name == UPGRADE && keeps_upgrade) || !(concerns_connection(name) || named.contains(name)));
}

/// Keeps the fields that `keep` chooses, in their order. The map's own `remove` would move the last field into the gap.
pub fn retain(headers: &mut HeaderMap, keep: impl Fn(&HeaderName) -> bool) {
    let Some(first) = headers.keys().position(|name| !keep(name)) else { return };
    // Taking fields off the end leaves the others where they are.
    if headers.keys_len() - first <= first && headers.keys_len() == headers.len() {
        let behind: Vec<_> = headers.keys().skip(first).cloned().collect();
        let mut taken = Vec::with_capacity(behind.len());
        for name in behind.into_iter().rev() {
            let value = headers.remove(&name);
            taken.extend(value.filter(|_| keep(&name)).map(|value| (name, value)));
        }
        headers.extend(taken.into_iter().rev());
        return;
    }
    // The caller is about to add a few fields of its own.
    let mut kept = HeaderMap::with_capacity(headers.len() + 8);
    let mut current: Option<HeaderName> = None;
    for (name, value) in std::mem::take(headers) {
        // Only the first value of a name comes with it.
        if let Some(name) = name {
            current = keep(&name).then_some(name);
        }
        if let Some(name) = &current {
            kept.append(name, value);
        }
    }
    *headers = kept;
}

/// The fields that Connection names. A peer must not take away framing and routing.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        // What most visitors send names no field.
        .filter(|name| !["keep-alive", "close", "upgrade"].iter().any(|option| name.eq_ignore_ascii_case(option)))
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        .filter(|name| *name != CONTENT_LENGTH && *name != HOST)
        .collect()
}

/// Whether a field concerns one connection by its name alone.
fn concerns_connection(name: &HeaderName) -> bool {
    matches!(name.as_str(), "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade")
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
        strip_response(StatusCode::OK, &mut response);
        assert_eq!(response, map(&kept));
        let mut request = fields;
        strip_request(&mut request, |_| false);
        assert_eq!(request, map(&[&kept[..], &[("te", "trailers")]].concat()));
    }

    #[test]
    fn te_stays_only_with_trailers() {
        let mut request = map(&[("te", "gzip")]);
        strip_request(&mut request, |_| false);
        assert_eq!(request, HeaderMap::new());
    }

    #[test]
    fn the_others_keep_their_order() {
        let mut request = HeaderMap::new();
        let sent = ["host", "b", "connection", "a", "te", "d", "x-private", "c", "d", "x-also"];
        for (n, name) in sent.iter().enumerate() {
            let value = if *name == "connection" { "x-private".to_owned() } else { n.to_string() };
            request.append(*name, value.parse().unwrap());
        }
        strip_request(&mut request, |name| name == HOST || name == "x-also");
        let left: Vec<_> = request.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(left, [("b", "1"), ("a", "3"), ("d", "5"), ("d", "8"), ("c", "7")]);
    }

    #[test]
    fn fields_before_the_first_dropped_one_keep_their_order_too() {
        for (dropped, place) in [("b", 1), ("f", 5), ("g", 6), ("none", 7)] {
            let all = ["a", "b", "c", "d", "e", "f", "g"];
            let mut headers = map(&all.map(|name| (name, "1")));
            retain(&mut headers, |name| name != dropped);
            let mut left = all.to_vec();
            left.splice(place.min(all.len())..(place + 1).min(all.len()), []);
            assert_eq!(headers.keys().collect::<Vec<_>>(), left, "{dropped}");
        }
        let mut headers = map(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5"), ("f", "6")]);
        retain(&mut headers, |name| name != "d" && name != "f");
        assert_eq!(headers, map(&[("a", "1"), ("b", "2"), ("c", "3"), ("e", "5")]));
    }

    #[test]
    fn a_switch_and_a_demand_for_it_keep_upgrade() {
        for (status, kept) in [(101, true), (426, true), (200, false), (400, false)] {
            let mut headers = map(&[("connection", "upgrade"), ("upgrade", "tls/1.2")]);
            strip_response(StatusCode::from_u16(status).unwrap(), &mut headers);
            assert_eq!(headers.contains_key(UPGRADE), kept, "{status}");
            assert!(!headers.contains_key(CONNECTION));
        }
    }
}
