//! The fields of every answer that the daemon gives by itself: what browsers may do with it. Responses of services have none
//! of them.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};

/// The only style of the daemon's pages. [`POLICY`] names its hash.
pub(crate) const STYLE: &str =
    "body{font:1.1em/1.5 system-ui,sans-serif;max-width:34em;margin:15vh auto;padding:0 1em}";

/// Nothing may run, load, or frame a page.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'sha256-ttNFncpUYXMQGbCeyW1mEnUXIKBT06O7jU5JX/qlDnM='; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
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
