use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::hmac;
use cok_proto::rules::ShareKey;
use cok_proto::share::{Grant, LinkId};
use cok_proto::{Rules, Scheme};
use http::{HeaderName, Method};
use serde_json::json;

use super::*;
use crate::names::Subdomain;

const NOW: u64 = 1000;

fn access() -> Arc<Access> {
    let rules = json!({"basic_auth": ["me:secret"], "share": "07".repeat(32)});
    Access::new(&Rules::parse(&rules).unwrap(), &Subdomain::parse("demo").unwrap()).unwrap().unwrap()
}

fn token(path: &str, expires: u64) -> String {
    let grant = Grant { id: LinkId::new([1; 8]), expires, path: path.parse().unwrap() };
    let key = hmac::Key::new(hmac::HMAC_SHA256, ShareKey::new([7; 32]).as_bytes());
    let signature = hmac::sign(&key, grant.signed_text("demo").as_bytes()).as_ref().try_into().unwrap();
    Token { grant, signature }.to_text()
}

fn head(target: &str, fields: &[(&str, &str)]) -> Arc<RequestHead> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let authority = "demo.example.com".parse().unwrap();
    Arc::new(RequestHead {
        method: Method::GET,
        target: target.parse().unwrap(),
        scheme: Scheme::Https,
        authority,
        headers,
    })
}

fn shown(head: &RequestHead) -> Link {
    let access = access();
    let target = TargetParts::of(&head.target);
    link(access.share.as_ref().unwrap(), &head.headers, &target, UNIX_EPOCH + Duration::from_secs(NOW))
}

fn forwarded(head: &Arc<RequestHead>) -> Arc<RequestHead> {
    without(&access(), head, &TargetParts::of(&head.target))
}

#[test]
fn a_link_is_found_in_the_address_and_in_the_cookie() {
    let (good, docs, old) = (token("/", NOW + 60), token("/docs", NOW + 60), token("/", NOW));
    let of = |target: String, cookie: String| shown(&head(&target, &[("cookie", &cookie)]));
    assert_eq!(of("/x?a=1".into(), "a=1".into()), Link::None);
    let address = Link::Address { token: good.clone(), left: 60 };
    assert_eq!(of(format!("/x?a=1&cok_share={good}"), String::new()), address);
    assert_eq!(of("/x".into(), format!("a=1; __Host-cok_share={good}; b=2")), Link::Cookie);
    assert_eq!(of(format!("/docs/x?cok_share={docs}"), String::new()), Link::Address { token: docs.clone(), left: 60 });
    let invalid = Link::Unusable(InvalidLink::Invalid);
    assert_eq!(of(format!("/doc?cok_share={docs}"), String::new()), invalid);
    assert_eq!(of(format!("/docs/../x?cok_share={docs}"), String::new()), invalid);
    assert_eq!(of("/x?cok_share=1".into(), String::new()), invalid);
    assert_eq!(of(format!("/?cok_share={old}"), String::new()), Link::Unusable(InvalidLink::Expired));
    assert_eq!(of(format!("/?cok_share={old}"), format!("__Host-cok_share={good}")), Link::Cookie);
    assert_eq!(of(format!("/x?xcok_share={good}"), format!("cok_share={good}")), Link::None);
}

#[test]
fn passwords_are_read_as_programs_write_them() {
    let access = access();
    let passwords = access.passwords.as_ref().unwrap();
    for (value, known) in [
        ("Basic bWU6c2VjcmV0", true),
        ("bAsIc   bWU6c2VjcmV0", true),
        ("Basic bWU6c2VjcmV0=", false),
        ("Basic bWU6c2VjcmU", false),
        ("Basic", false),
        ("Bearer bWU6c2VjcmV0", false),
        ("Basic me:secret", false),
    ] {
        assert_eq!(password(passwords, &head("/", &[("authorization", value)]).headers), known, "{value}");
    }
}

#[test]
fn the_service_sees_only_its_own_fields() {
    let good = token("/", NOW + 60);
    let plain = head("/x?a=1", &[("authorization", "Bearer abc"), ("cookie", "a=1;b=2")]);
    assert!(Arc::ptr_eq(&forwarded(&plain), &plain), "nothing was for the daemon");
    let seen = forwarded(&head(
        &format!("/x?a=1&cok_share={good}&&b"),
        &[
            ("authorization", "Basic bWU6c2VjcmV0"),
            ("authorization", "Bearer abc"),
            ("cookie", &format!("a=1; __Host-cok_share={good}; b=2")),
            ("cookie", &format!("__Host-cok_share={good}")),
        ],
    ));
    assert_eq!(seen.target.as_bytes(), b"/x?a=1&&b");
    assert_eq!(seen.headers.get_all(AUTHORIZATION).iter().collect::<Vec<_>>(), ["Bearer abc"]);
    assert_eq!(seen.headers.get_all(COOKIES).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    for (target, left) in [("/x?cok_share=1", "/x"), ("/x?cok_share=1&a", "/x?a"), ("//x?a&cok_share=", "//x?a")] {
        assert_eq!(forwarded(&head(target, &[])).target.as_bytes(), left.as_bytes());
    }
}
