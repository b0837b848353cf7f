use std::time::Instant;

use super::*;
use crate::dns::embedded::Host;
use crate::dns::knot::{self, Knot};

/// A parent zone and its resolver. The zone's server gives the same answers as a resolver would.
fn parent(records: &str) -> (Knot, Resolver) {
    let records = format!("@ 60 IN NS ns\nns 60 IN A 127.0.0.1\n{records}");
    let zone = knot::Zone { name: "example.com", records: &records, settings: "" };
    let server = Knot::start("127.0.0.1", "", &[zone]);
    let mut resolver = Resolver::at(server.address);
    resolver.port = server.address.port();
    (server, resolver)
}

async fn lines(records: &str, zone: &Zone) -> Vec<String> {
    let (_server, resolver) = parent(records);
    advise_by(&resolver, zone, "tunnel.example.com").await.iter().map(Finding::to_string).collect()
}

fn whole() -> Zone {
    let host = Host { addresses: vec!["192.0.2.1".parse().unwrap()], ..Host::default() };
    Zone::whole("tunnel.example.com", None, host).unwrap()
}

#[tokio::test]
async fn the_challenge_zone_needs_one_record_and_its_server_an_address() {
    let zone = Zone::challenge("tunnel.example.com", None, None).unwrap();
    let ns = "_acme-challenge.tunnel.example.com. 3600 IN NS tunnel.example.com.";
    let a = "tunnel.example.com. 3600 IN A 192.0.2.1";
    assert_eq!(lines(&format!("{ns}\n{a}"), &zone).await, Vec::<String>::new());
    // The missing record, once it is there, makes the delegation right.
    assert_eq!(lines(a, &zone).await, [format!("missing in the zone example.com: {ns}")]);
    assert_eq!(
        lines(ns, &zone).await,
        ["missing in the zone example.com: tunnel.example.com. 3600 IN A <the public address of this machine>"]
    );
    assert_eq!(lines("", &zone).await.len(), 2);
}

#[tokio::test]
async fn records_that_lead_elsewhere_are_named() {
    let zone = Zone::challenge("tunnel.example.com", None, None).unwrap();
    let (ns, a) = ("_acme-challenge.tunnel 60 IN NS", "tunnel 60 IN A 192.0.2.1\nother 60 IN A 192.0.2.2");
    let found = lines(&format!("{ns} other\n{a}"), &zone).await;
    assert!(found[0].contains("is delegated to other.example.com., which is not this daemon's name"), "{found:?}");
    assert!(found[1].starts_with("missing in the zone example.com: "), "{found:?}");
    let found = lines(&format!("{ns} other\n{ns} tunnel\n{a}"), &zone).await;
    assert!(found.len() == 1 && found[0].contains("delegated to other.example.com. as well"), "{found:?}");
    // Two names for one machine are right.
    let found = lines(&format!("{ns} twin\n{ns} tunnel\n{a}\ntwin 60 IN A 192.0.2.1"), &zone).await;
    assert_eq!(found, Vec::<String>::new());
    let found = lines(&format!("_acme-challenge.tunnel 60 IN CNAME x.acme\n{a}"), &zone).await;
    assert!(found.len() == 1 && found[0].contains("leads to x.acme.example.com."), "{found:?}");
    let records = format!("{ns} tunnel\ntunnel 60 IN CNAME other\nother 60 IN A 192.0.2.2");
    let found = lines(&records, &zone).await;
    assert!(found.len() == 1 && found[0].contains("tunnel.example.com. is a CNAME record"), "{found:?}");
}

#[tokio::test]
async fn a_zone_of_another_name_needs_a_cname_too() {
    let zone = Zone::challenge("tunnel.example.com", Some("x.acme.example.com"), Some("tunnel.example.com")).unwrap();
    let cname = "_acme-challenge.tunnel.example.com. 3600 IN CNAME x.acme.example.com.";
    let ns = "x.acme.example.com. 3600 IN NS tunnel.example.com.";
    let a = "tunnel 60 IN A 192.0.2.1";
    assert_eq!(lines(&format!("{cname}\n{ns}\n{a}"), &zone).await, Vec::<String>::new());
    let found = lines(a, &zone).await;
    assert_eq!(found, [cname, ns].map(|record| format!("missing in the zone example.com: {record}")));
    let found = lines(&format!("_acme-challenge.tunnel 60 IN CNAME y.acme\n{ns}\n{a}"), &zone).await;
    assert!(found.len() == 1 && found[0].contains("leads to y.acme.example.com.") && found[0].contains(cname));
}

#[tokio::test]
async fn the_whole_domain_needs_glue() {
    let ns = "tunnel.example.com. 3600 IN NS tunnel.example.com.";
    let glue = "tunnel.example.com. 3600 IN A 192.0.2.1";
    assert_eq!(lines(&format!("{ns}\n{glue}"), &whole()).await, Vec::<String>::new());
    let missing = |record: &str| format!("missing in the zone example.com: {record}");
    assert_eq!(lines("", &whole()).await, [missing(ns), missing(glue)]);
    let found = lines(&format!("{ns}\ntunnel.example.com. 3600 IN A 192.0.2.9"), &whole()).await;
    assert!(found.len() == 1 && found[0].contains("has the address 192.0.2.9, and not this machine's 192.0.2.1"));
}

#[tokio::test]
async fn a_server_that_cannot_be_asked_is_not_a_missing_record() {
    let zone = Zone::challenge("tunnel.example.com", None, None).unwrap();
    let closed: SocketAddr = ([127, 0, 0, 1], knot::free_port("127.0.0.1")).into();
    let unknown = |found: &[Finding]| found.iter().all(|finding| matches!(finding, Finding::Unknown(_)));
    let found = advise(&zone, "tunnel.example.com", Some(closed)).await;
    assert!(found.len() == 1 && unknown(&found), "{found:?}");
    assert!(found[0].to_string().contains(&closed.to_string()), "{}", found[0]);
    // The resolver answers, and the zone's servers do not.
    let (_server, mut resolver) = parent("");
    resolver.port = closed.port();
    let started = Instant::now();
    let found = advise_by(&resolver, &zone, "tunnel.example.com").await;
    assert!(unknown(&found) && !found.is_empty(), "{found:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
    // The resolver knows no such zone.
    let zone = Zone::challenge("tunnel.example.org", None, None).unwrap();
    let found = advise_by(&resolver, &zone, "tunnel.example.org").await;
    assert!(unknown(&found) && found[0].to_string().contains("no zone"), "{found:?}");
}
