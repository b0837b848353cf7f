//! The fields of every answer that the daemon gives by itself: what browsers may do with it. Responses of services have none
//! of them.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

/// The only style of the daemon's pages, for light and dark. [`POLICY`] names its hash.
pub(crate) const STYLE: &str = "\
    :root{color-scheme:light dark;--ink:#1c1e21;--paper:#fff;--soft:#5a626c;--line:#d5d9de}\
    @media (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#15171a;--soft:#9ca5af;--line:#343a41}}\
    body{font:1.1em/1.5 system-ui,sans-serif;max-width:34em;margin:15vh auto;padding:0 1em;color:var(--ink);background:var(--paper)}\
    h1{line-height:1.2}code{overflow-wrap:anywhere}\
    footer{margin-top:2em;padding-top:.7em;border-top:1px solid var(--line);color:var(--soft);font-size:.85em}";

/// Nothing may run, load, or frame a page.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'sha256-HAxAkvDRxT4WsLrfjfTG3BiX7D0wOEnYsev9uJeglck='; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);

/// Marks an answer as the daemon's own: browsers do not guess its type, do not keep it, and name its address to no one.
pub(crate) fn mark(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn the_policy_allows_the_style_of_the_pages() {
        let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
        assert!(POLICY.to_str().unwrap().contains(&format!("'sha256-{hash}'")), "{hash}");
    }
}
