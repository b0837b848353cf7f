//! What a visitor claims about itself, its connection or its request's address. Services believe such fields, because a proxy
//! usually sets them. So the daemon drops them, unless a trusted proxy sent them, and `headers` sets some afresh.
//!
//! Names count as a CGI-like service sees them, which takes `_` and other marks for `-`: `X_Real_IP` is `X-Real-IP`. A
//! name that only looks like one of these is dropped even from a trusted proxy.

use http::HeaderName;

/// Whether the daemon drops this field of a request.
pub(super) fn is_dropped(name: &HeaderName, trusted: bool) -> bool {
    let name = name.as_str();
    match plain(name, &mut [0; LONGEST]) {
        // httpoxy, and the credentials for a proxy: they are no claims, and nothing for a service.
        None => matches!(name, "proxy" | "proxy-authorization") || (!trusted && is_claim(name)),
        Some(shadowed) => is_claim(shadowed) || FRAMING.contains(&shadowed),
    }
}

/// How much of an unusual name counts. Longer ones can only match by their beginning.
const LONGEST: usize = 64;

/// Fields of framing. A service may take `Content_Length` for one.
const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];

/// Which bytes of a name, in lower case, are letters, digits or `-`.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        plain[byte] = (byte as u8).is_ascii_alphanumeric() || byte as u8 == b'-';
        byte += 1;
    }
    plain
};

/// The name with `-` for all that is no letter and no digit; `None` if it has nothing else anyway.
fn plain<'a>(name: &str, buffer: &'a mut [u8; LONGEST]) -> Option<&'a str> {
    if name.bytes().all(|byte| PLAIN[usize::from(byte)]) {
        return None;
    }
    let length = name.len().min(LONGEST);
    for (to, from) in buffer.iter_mut().zip(name.bytes()) {
        *to = if PLAIN[usize::from(from)] { from } else { b'-' };
    }
    std::str::from_utf8(&buffer[..length]).ok()
}

/// Whether a name in lower case belongs to a claim.
fn is_claim(name: &str) -> bool {
    match name.strip_prefix("x-") {
        Some(rest) => X_FAMILIES.iter().any(|family| rest.starts_with(family)) || X.binary_search(&rest).is_ok(),
        None if !may_be_other(name.as_bytes()) => false,
        None => FAMILIES.iter().any(|family| name.starts_with(family)) || OTHERS.binary_search(&name).is_ok(),
    }
}

/// Whether a name begins like one in the two lists of other names. Most ordinary fields do not, and cost nothing more.
fn may_be_other(name: &[u8]) -> bool {
    let [first, second, ..] = name else { return false };
    let seconds: &[u8] = match first {
        b'a' | b'w' => b"l",
        b'c' => b"dflo",
        b'd' => b"o",
        b'f' => b"alor",
        b'h' => b"t",
        b'i' => b"n",
        b'p' | b't' => b"r",
        b'r' => b"e",
        b's' => b"cs",
        _ => return false,
    };
    seconds.contains(second)
}

/// Beginnings of names behind `x-`: all that they begin is a claim.
const X_FAMILIES: [&str; 11] = [
    "amzn-mtls-",
    "appengine-",
    "client-cert",
    "client-dn",
    "client-verify",
    "envoy-",
    "forwarded",
    "mtls-",
    "ssl-",
    "tls-client-",
    "vercel-",
];

/// Whole names behind `x-`, sorted.
const X: [&str; 57] = [
    "arr-clientcert",
    "arr-ssl",
    "auth-request-redirect",
    "azure-clientip",
    "azure-socketip",
    "bluecoat-via",
    "cdn-src-ip",
    "client-ip",
    "client-port",
    "client-proto",
    "client-scheme",
    "clientip",
    "cluster-client-ip",
    "coming-from",
    "host",
    "host-override",
    "http-destinationurl",
    "http-forwarded-for",
    "http-host-override",
    "https",
    "ingress-path",
    "nf-client-connection-ip",
    "original-for",
    "original-forwarded-for",
    "original-host",
    "original-method",
    "original-path",
    "original-port",
    "original-prefix",
    "original-proto",
    "original-remote-addr",
    "original-scheme",
    "original-uri",
    "original-url",
    "originating-ip",
    "proto",
    "protocol",
    "proxyuser-ip",
    "real-host",
    "real-ip",
    "real-port",
    "real-proto",
    "real-scheme",
    "remote-addr",
    "remote-address",
    "remote-host",
    "remote-ip",
    "remote-port",
    "replaced-path",
    "request-uri",
    "rewrite-url",
    "scheme",
    "script-name",
    "sucuri-clientip",
    "true-client-ip",
    "trusted-client-ip",
    "url-scheme",
];

/// Beginnings of other names. `http-` is what services ask for that take CGI's variables for names of fields.
const FAMILIES: [&str; 8] =
    ["cf-client-cert", "client-cert", "cloudfront-", "fly-forwarded-", "http-", "proxy", "ssl-client-", "wl-proxy-"];

/// Other whole names, sorted.
const OTHERS: [&str; 22] = [
    "ali-cdn-real-ip",
    "cdn-real-ip",
    "cdn-src-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-ipcountry",
    "cf-pseudo-ipv4",
    "cf-visitor",
    "client-ip",
    "coming-from",
    "do-connecting-ip",
    "fastly-client-ip",
    "fastly-ssl",
    "fly-client-ip",
    "forwarded",
    "forwarded-for",
    "forwarded-for-ip",
    "front-end-https",
    "incap-client-ip",
    "remote-addr",
    "script-name",
    "true-client-ip",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(name: &str, trusted: bool) -> bool {
        is_dropped(&HeaderName::from_bytes(name.as_bytes()).unwrap(), trusted)
    }

    #[test]
    fn the_lists_can_be_searched() {
        assert!(X.is_sorted() && OTHERS.is_sorted());
        assert!(OTHERS.iter().chain(&FAMILIES).all(|name| may_be_other(name.as_bytes())));
    }

    #[test]
    fn claims_are_dropped_in_each_spelling() {
        for name in [
            "X-Forwarded-For",
            "Forwarded",
            "X-Real-IP",
            "True-Client-IP",
            "CF-Connecting-IP",
            "X-Client-IP",
            "X-Forwarded-Ssl",
            "X-Url-Scheme",
            "Front-End-Https",
            "X-Host",
            "X-Forwarded-Prefix",
            "X-Script-Name",
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-SSL-Client-Cert",
            "Client-Cert",
            "X-Forwarded-Client-Cert",
            "X-Envoy-External-Address",
            "WL-Proxy-Client-IP",
        ] {
            assert!(dropped(name, false) && !dropped(name, true), "{name}");
            for mark in ["_", ".", "~"] {
                let shadow = name.replace('-', mark);
                if shadow != name {
                    assert!(dropped(&shadow, false) && dropped(&shadow, true), "{shadow}");
                }
            }
        }
        for name in ["Proxy", "Proxy-Authorization", "Proxy_Authorization", "Content_Length", "x_forwarded-for"] {
            assert!(dropped(name, false) && dropped(name, true), "{name}");
        }
    }

    #[test]
    fn other_fields_pass() {
        for name in [
            "Accept",
            "Content-Length",
            "Content-Type",
            "Cookie",
            "X-Requested-With",
            "X-HTTP-Method-Override",
            "X-CSRF-Token",
            "X-Original-Filename",
            "X-Request-ID",
            "X-Api-Key",
            "my_field",
            "user_agent",
            "x_api_key",
            "Traceparent",
            "HTTP2-Settings",
            "Client-Id",
            "X-Protocol-Version",
        ] {
            assert!(!dropped(name, false), "{name}");
        }
    }
}
