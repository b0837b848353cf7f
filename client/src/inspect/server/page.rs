//! The page: one document with its style and its script, which loads nothing else.

use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::CONTENT_SECURITY_POLICY;

use super::reply::{self, Reply};

const DOCUMENT: &str = include_str!("../page/page.html");
const STYLE: &str = include_str!("../page/page.css");
const SCRIPT: &str = include_str!("../page/page.js");

/// The page and its policy.
struct Page {
    document: String,
    policy: HeaderValue,
}

/// The page. It holds no request, so it needs no token.
pub(super) fn page() -> Reply {
    static PAGE: OnceLock<Page> = OnceLock::new();
    let page = PAGE.get_or_init(made);
    let mut reply = reply::bytes("text/html; charset=utf-8", page.document.clone());
    reply.headers_mut().insert(CONTENT_SECURITY_POLICY, page.policy.clone());
    reply
}

fn made() -> Page {
    let document = DOCUMENT.replace("/* style */", STYLE).replace("/* script */", SCRIPT);
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes())));
    // Captured images are shown from memory. Forms and frames are of no use here.
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; img-src blob:; connect-src 'self'; base-uri 'none'; form-action \
         'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    let policy = HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    Page { document, policy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_exactly_what_its_policy_names() {
        let page = made();
        assert!(page.document.contains(&format!("<script>{SCRIPT}</script>")));
        assert!(page.document.contains(&format!("<style>{STYLE}</style>")));
        let policy = page.policy.to_str().unwrap();
        assert!(!policy.contains("unsafe") && policy.matches("sha256-").count() == 2, "{policy}");
        for outside in ["http://", "https://", "//cdn", "<link", "src="] {
            assert!(!page.document.contains(outside), "{outside}");
        }
    }
}
