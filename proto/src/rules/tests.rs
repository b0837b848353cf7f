use serde_json::json;

use super::*;

fn all() -> Value {
    json!({
        "allow_cidr": ["192.0.2.0/24", "2001:db8::/32"],
        "allow_path": ["/", "/api/", "/grüße"],
        "basic_auth": ["me:a:b", "you:ä"],
        "deny_cidr": ["192.0.2.7/32"],
        "rate": {"per_second": 10, "burst": 50},
        "share": "00".repeat(31) + "ff",
        "share_revoked": ["0123456789abcdef"],
    })
}

#[test]
fn rules_are_written_as_they_were_read() {
    let rules = Rules::parse(&all()).unwrap();
    assert_eq!(rules.to_value(), all());
    assert_eq!(rules.check(), Ok(()));
    assert!(Rules::parse(&json!({})).unwrap().is_empty() && !rules.is_empty());
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", Rules::parse(&all()).unwrap());
    assert!(!shown.contains("a:b") && !shown.contains("255") && !shown.contains("ff"), "{shown}");
}

#[test]
fn what_is_unknown_or_malformed_is_refused() {
    let many = |count: usize| vec!["10.0.0.0/8"; count];
    for rules in [
        json!([]),
        json!(null),
        json!({"new": true}),
        json!({"basic_auth": []}),
        json!({"basic_auth": "me:secret"}),
        json!({"basic_auth": {"me": "secret"}}),
        json!({"basic_auth": ["secret"]}),
        json!({"basic_auth": [":secret"]}),
        json!({"basic_auth": ["secret:"]}),
        json!({"basic_auth": ["me:secret\n"]}),
        json!({"basic_auth": [format!("me:{}", "secret".repeat(50))]}),
        json!({"basic_auth": vec!["me:secret"; 17]}),
        json!({"allow_cidr": ["10.0.0.0/33"]}),
        json!({"allow_cidr": ["10.0.0.1/8"]}),
        json!({"allow_cidr": ["example.com"]}),
        json!({"deny_cidr": many(101)}),
        json!({"deny_cidr": [1]}),
        json!({"allow_path": ["api"]}),
        json!({"allow_path": ["/api/*"]}),
        json!({"allow_path": ["/a%20b"]}),
        json!({"allow_path": ["/a/../b"]}),
        json!({"allow_path": ["/a//b"]}),
        json!({"allow_path": ["//"]}),
        json!({"allow_path": ["/a;b"]}),
        json!({"allow_path": ["/a\\b"]}),
        json!({"share": "00"}),
        json!({"share_revoked": ["0123456789ABCDEF"]}),
        json!({"share_revoked": vec!["0123456789abcdef"; 257]}),
        json!({"share": "FF".repeat(32)}),
        json!({"share": ["00"]}),
        json!({"rate": 10}),
        json!({"rate": {}}),
        json!({"rate": {"per_second": 0}}),
        json!({"rate": {"per_second": 1.5}}),
        json!({"rate": {"per_second": 1, "burst": null}}),
        json!({"rate": {"per_second": 1, "per_minute": 1}}),
    ] {
        let why = Rules::parse(&rules).unwrap_err();
        assert!(!why.contains("secret") && !why.contains('\n') && why.len() < 200, "{why}");
    }
    assert!(Rules::parse(&json!({"allow_cidr": many(100)})).is_ok());
}

#[test]
fn networks_are_compared_with_canonical_addresses() {
    for (text, network) in [
        ("10.1.2.3", "10.1.2.3/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ("::/0", "::/0"),
        ("2001:db8::1", "2001:db8::1/128"),
    ] {
        assert_eq!(parse_network(text).unwrap().to_string(), network);
    }
}

#[test]
fn a_rate_without_a_burst_has_ten_seconds_worth() {
    let rate = |value| Rules::parse(&json!({"rate": value})).unwrap().rate;
    assert_eq!(rate(json!({"per_second": 10})), Some(Rate::new(10, 100)));
    assert_eq!(rate(json!({"per_second": 1_000_000})), Some(Rate::new(1_000_000, 1_000_000)));
}

#[test]
fn large_rules_are_named_before_they_are_sent() {
    let pair: Credentials = format!("me:{}", "x".repeat(253)).parse().unwrap();
    let path: PathPrefix = format!("/{}", "x".repeat(255)).parse().unwrap();
    let rules = Rules { basic_auth: vec![pair; 16], allow_path: vec![path; 32], ..Rules::default() };
    assert_eq!(rules.check().unwrap_err(), "the rules take 12463 bytes; the most is 12288");
}
