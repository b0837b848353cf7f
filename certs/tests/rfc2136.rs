//! Tests dynamic updates against knotd, a real name server (Debian's package `knot`).

#![allow(clippy::unwrap_used, reason = "a test says by panicking that it failed")]

mod knot;

use std::fs;
use std::path::PathBuf;

use cok_certs::dns::rfc2136::{Key, Rfc2136, Settings};
use cok_certs::dns::{Solver, SolverError};
use knot::{Knot, Zone};

const SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA==";
const OTHER_SECRET: &str = "b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXI=";
const CHALLENGE: &str = "_acme-challenge.tunnel.example.com.";

/// The keys `cokd` and `long` may change the TXT records of some names; `watcher` may change nothing.
const SECTIONS: &str = "
key:
  - id: cokd
    algorithm: hmac-sha256
    secret: c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA==
  - id: long
    algorithm: hmac-sha512
    secret: c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA==
  - id: watcher
    algorithm: hmac-sha256
    secret: c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA==
acl:
  - id: challenges
    key: [cokd, long]
    action: update
    update-type: TXT
    update-owner: name
    update-owner-match: equal
    update-owner-name: [_acme-challenge.tunnel, x.acme]
";

const RECORDS: &str = "
@ 60 IN NS ns
ns 60 IN A 127.0.0.1
_acme-challenge.tunnel 60 IN TXT somebody-else
_acme-challenge.alias 60 IN CNAME x.acme
sub 60 IN NS ns.example.net.
";

fn server() -> Knot {
    let settings = "    acl: challenges";
    let zones = [Zone { name: "example.com", records: RECORDS, settings }];
    Knot::start("127.0.0.1", SECTIONS, &zones)
}

fn key(name: &str, algorithm: &str, secret: &str) -> Key {
    Key::new(name, algorithm, secret).unwrap()
}

fn solver(server: &Knot, domain: &str, zone: Option<&str>, key: impl Into<Option<Key>>) -> Rfc2136 {
    let settings = Settings { server: server.address.to_string(), zone: zone.map(str::to_owned), key: key.into() };
    Rfc2136::new(domain, settings).unwrap()
}

async fn refusal(solver: &Rfc2136) -> String {
    match solver.present("value").await.unwrap_err() {
        SolverError::Setup(why) => why,
        SolverError::Unavailable(why) => panic!("it should be an error of the setup: {why}"),
    }
}

#[tokio::test]
async fn base_and_wildcard_values_leave_those_of_others_alone() {
    let server = server();
    let solver = solver(&server, "tunnel.example.com", None, key("cokd", "hmac-sha256", SECRET));
    for value in ["-base-value", "wildcard-value", "-base-value"] {
        solver.present(value).await.unwrap();
    }
    let texts = |texts: &[&str]| texts.iter().map(|text| ((*text).to_owned(), 60)).collect::<Vec<_>>();
    assert_eq!(server.texts(CHALLENGE), texts(&["-base-value", "somebody-else", "wildcard-value"]));
    solver.cleanup("-base-value").await.unwrap();
    solver.cleanup("-base-value").await.unwrap();
    solver.cleanup("never there").await.unwrap();
    assert_eq!(server.texts(CHALLENGE), texts(&["somebody-else", "wildcard-value"]));
    solver.cleanup("wildcard-value").await.unwrap();
    assert_eq!(server.texts(CHALLENGE), texts(&["somebody-else"]));
    assert!(solver.present(&"x".repeat(256)).await.is_err());
}

#[tokio::test]
async fn other_algorithms_and_a_configured_zone_work() {
    let server = server();
    let solver = solver(&server, "tunnel.example.com", Some("Example.com"), key("LONG.", "hmac-sha512", SECRET));
    solver.present("value").await.unwrap();
    assert_eq!(server.texts(CHALLENGE).len(), 2);
}

#[tokio::test]
async fn a_cname_is_followed() {
    let server = server();
    let solver = solver(&server, "alias.example.com", None, key("cokd", "hmac-sha256", SECRET));
    solver.present("value").await.unwrap();
    assert_eq!(server.texts("x.acme.example.com."), [("value".to_owned(), 60)]);
    solver.cleanup("value").await.unwrap();
    assert_eq!(server.texts("x.acme.example.com."), []);
}

#[tokio::test]
async fn each_refusal_says_who_has_to_do_what() {
    let server = server();
    let at = server.address.to_string();
    let cokd = || Some(key("cokd", "hmac-sha256", SECRET));
    let tunnel = "tunnel.example.com";
    for (domain, zone, key, parts) in [
        // The ACL does not list this name.
        ("other.example.com", None, cokd(), vec!["_acme-challenge.other.example.com.", "ACL", "cokd."]),
        // This key may change nothing.
        (tunnel, None, Some(key("watcher", "hmac-sha256", SECRET)), vec![CHALLENGE, "ACL", "watcher."]),
        (tunnel, None, None, vec![CHALLENGE, "ACL", "without a TSIG key"]),
        (
            tunnel,
            None,
            Some(key("stranger", "hmac-sha256", SECRET)),
            vec!["no key of this name", "stranger.", "BADKEY"],
        ),
        (tunnel, None, Some(key("cokd", "hmac-sha384", SECRET)), vec!["hmac-sha384", "cokd.", "BADKEY"]),
        (
            tunnel,
            None,
            Some(key("cokd", "hmac-sha256", OTHER_SECRET)),
            vec!["another secret for the key cokd.", "BADSIG"],
        ),
        // The server does not have these zones.
        (tunnel, Some("tunnel.example.com"), cokd(), vec!["not the primary server of the zone tunnel.example.com."]),
        (tunnel, Some("example.org"), cokd(), vec![CHALLENGE, "not in the zone example.org."]),
        ("tunnel.example.org", None, cokd(), vec!["serves no zone", "_acme-challenge.tunnel.example.org."]),
        ("a.sub.example.com", None, cokd(), vec!["serves no zone", "_acme-challenge.a.sub.example.com."]),
    ] {
        let what = format!("{domain} {zone:?} {key:?}");
        let why = refusal(&solver(&server, domain, zone, key)).await;
        assert!(why.contains(&at) || zone == Some("example.org"), "{what}: {why}");
        for part in parts {
            assert!(why.contains(part), "{what}: {why:?} has no {part:?}\n{}", server.log());
        }
        assert!(!why.contains(SECRET) && !why.contains(OTHER_SECRET));
    }
    assert_eq!(server.texts(CHALLENGE).len(), 1, "nothing was changed");
}

#[tokio::test]
async fn an_unreachable_server_is_named() {
    let port = knot::free_port("127.0.0.1");
    let settings = Settings { server: format!("127.0.0.1:{port}"), zone: None, key: None };
    let solver = Rfc2136::new("tunnel.example.com", settings).unwrap();
    let error = solver.present("value").await.unwrap_err();
    assert!(matches!(error, SolverError::Unavailable(_)));
    assert!(error.to_string().contains(&format!("127.0.0.1:{port} cannot be reached")), "{error}");
}

/// The library that changes the time of a program (Debian's package `faketime`).
fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|folder| folder.unwrap().path());
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketime.so.1"));
    libraries.find(|library| library.exists()).expect("the Debian package faketime is installed")
}

#[tokio::test]
async fn a_difference_of_the_clocks_is_reported_in_seconds() {
    let zones = [Zone { name: "example.com", records: RECORDS, settings: "    acl: challenges" }];
    let library = faketime();
    let environment = [("LD_PRELOAD", library.to_str().unwrap()), ("FAKETIME", "+2h")];
    let server = Knot::start_in(&environment, "127.0.0.1", SECTIONS, &zones);
    let why = refusal(&solver(&server, "tunnel.example.com", None, key("cokd", "hmac-sha256", SECRET))).await;
    assert!(why.contains("BADTIME") && why.contains("NTP"), "{why}\n{}", server.log());
    let behind = why.split("clock is ").nth(1).and_then(|rest| rest.split(" s behind").next());
    let seconds: u64 = behind.expect("how far it is behind").parse().unwrap();
    assert!((7000..7300).contains(&seconds), "{why}");
}
