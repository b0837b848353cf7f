//! The admin page: one document with its style and scripts, embedded in the program. It loads nothing from elsewhere.

use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response};

/// Only these files may style and script the page, and it asks only its own address. No text becomes markup: the page has no
/// way to make any, and the browser refuses it as well.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// The files, by their paths.
const FILES: [(&str, &str, &str); 7] = [
    ("/", "text/html; charset=utf-8", include_str!("index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("/page.js", SCRIPT, include_str!("page.js")),
    ("/plots.js", SCRIPT, include_str!("plots.js")),
    ("/text.js", SCRIPT, include_str!("text.js")),
    ("/tunnels.js", SCRIPT, include_str!("tunnels.js")),
    ("/icon.svg", "image/svg+xml", include_str!("icon.svg")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The file at a path.
pub(super) fn file(path: &str) -> Option<Response<&'static str>> {
    let (_, kind, content) = FILES.into_iter().find(|(at, _, _)| *at == path)?;
    let mut response = Response::new(content);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // The page of a daemon that was upgraded would not fit its API.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_needs_only_its_own_files() {
        let page = file("/").unwrap().into_body();
        for attribute in ["src=\"", "href=\""] {
            for (at, _) in page.match_indices(attribute) {
                let target = page[at + attribute.len()..].split('"').next().unwrap();
                assert!(target.starts_with('#') || file(target).is_some(), "{target}");
            }
        }
        for forbidden in ["style=", "onclick", "<script>", "javascript:"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        for (at, _, script) in FILES.into_iter().filter(|(_, kind, _)| *kind == SCRIPT) {
            for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!script.contains(forbidden), "{forbidden} in {at}");
            }
        }
    }
}
