//! The site's pages. All words of visitors are escaped.

use std::fmt::Write as _;

use cok_client::VisitorAddress;
use cok_http::html::escape;
use http::Request;
use http::header::{HOST, HeaderMap, VIA};

/// The end of each page but the first.
pub(super) const BOTTOM: &str = "<p><a href=\"/\">Back</a></p>\n</body>\n</html>\n";

/// The first page.
pub(super) fn home<B>(request: &Request<B>, transport: &str) -> String {
    let transport = match transport {
        "quic" => "QUIC, over UDP",
        "ws" => "a WebSocket, over TCP",
        other => other,
    };
    let headers = request.headers();
    let host = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let host = host.or_else(|| Some(String::from_utf8_lossy(headers.get(HOST)?.as_bytes()).into_owned()));
    let visitor = request.extensions().get().map(|VisitorAddress(address)| address.to_string());
    filled(
        include_str!("page.html"),
        &[
            ("{address}", &escape(&format!("https://{}", host.unwrap_or_default()))),
            ("{transport}", &escape(transport)),
            ("{version}", &escape(&version(headers))),
            ("{visitor}", &escape(&visitor.unwrap_or_else(|| "an unknown address".to_owned()))),
            ("{headers}", &rows(headers)),
        ],
    )
}

/// A page with a title and one sentence.
pub(super) fn message(title: &str, text: &str) -> String {
    format!("{}<p>{}</p>\n{BOTTOM}", top(title), escape(text))
}

/// What a page begins with.
pub(super) fn top(title: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <link rel=\"icon\" href=\"/icon.svg\" type=\"image/svg+xml\">\n<link rel=\"stylesheet\" href=\"/style.css\">\n\
         </head>\n<body>\n<h1>{title}</h1>\n"
    )
}

/// Puts texts into their places. What a text has in it stays as it is, even if it looks like a place.
fn filled(template: &str, texts: &[(&str, &str)]) -> String {
    let mut page = String::new();
    let mut rest = template;
    while let Some((at, place, text)) =
        texts.iter().filter_map(|(place, text)| Some((rest.find(place)?, place, text))).min_by_key(|(at, ..)| *at)
    {
        page.push_str(&rest[..at]);
        page.push_str(text);
        rest = &rest[at + place.len()..];
    }
    page + rest
}

/// The version of HTTP between the visitor and the daemon: the last one in Via, which `cokd dev` sets.
fn version(headers: &HeaderMap) -> String {
    let via = headers.get_all(VIA).iter().next_back().and_then(|via| via.to_str().ok()).unwrap_or_default();
    let last = via.rsplit(',').next().unwrap_or_default();
    match last.split_ascii_whitespace().next() {
        Some(version) => format!("HTTP/{version}"),
        None => "an unknown version of HTTP".to_owned(),
    }
}

fn rows(headers: &HeaderMap) -> String {
    let mut rows = String::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let _infallible = write!(rows, "\n<tr><td>{name}</td><td>{}</td></tr>", escape(&value));
    }
    rows
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn words_of_visitors_are_no_markup() {
        let mut request = Request::new(());
        let headers = request.headers_mut();
        headers.append("x-a", HeaderValue::from_static("<script>alert(1)</script>"));
        headers.append("x-b", HeaderValue::from_static("{transport}{headers}"));
        headers.append("x-c", HeaderValue::from_bytes(b"\xff\"'").unwrap());
        headers.append(HOST, HeaderValue::from_static("<b>"));
        headers.append(VIA, HeaderValue::from_static("1.1 <i>, <u>3 cok.localhost"));
        let page = home(&request, "quic");
        for markup in ["<script>alert", "<b>", "<i>", "<u>"] {
            assert!(!page.contains(markup), "{markup}");
        }
        assert!(
            page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && page.contains("<td>{transport}{headers}</td>")
        );
        assert!(page.contains("<td>\u{fffd}&quot;&#39;</td>") && page.contains("QUIC, over UDP"), "{page}");
        assert!(!message("<b>", "<i>").contains("<i>"));
    }

    #[test]
    fn the_last_hop_says_the_version() {
        let of = |via: &'static [&'static str]| {
            version(&via.iter().map(|via| (VIA, HeaderValue::from_static(via))).collect::<HeaderMap>())
        };
        assert_eq!(of(&["1.1 proxy", "3 cok.localhost"]), "HTTP/3");
        assert_eq!(of(&["1.1 proxy, 2 cok.localhost"]), "HTTP/2");
        assert_eq!(of(&[]), "an unknown version of HTTP");
    }
}
