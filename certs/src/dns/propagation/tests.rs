use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;
use crate::dns::knot::{Knot, Zone, free_port};
use crate::dns::rfc2136::{Rfc2136, Settings};
use crate::dns::{Solver as _, parse_name};

const DEADLINE: Duration = Duration::from_secs(30);

/// An ACL that allows every change.
const SECTIONS: &str = "acl:\n  - id: all\n    address: 127.0.0.0/8\n    action: update\n";

fn start(ip: &str, port: u16, records: &str) -> Option<Knot> {
    let records = format!("ns 60 IN A 127.0.0.1\nns2 60 IN A 127.0.0.2\n{records}");
    let zone = Zone { name: "example.com", records: &records, settings: "    acl: all" };
    Knot::try_start(&[], (ip, port), SECTIONS, &[zone])
}

/// Two servers of one zone that receive changes separately, and a resolver that knows both.
fn servers() -> (Knot, Knot, Resolver) {
    let records = "@ 60 IN NS ns\n@ 60 IN NS ns2\n_acme-challenge.alias 60 IN CNAME _acme-challenge.tunnel\n";
    loop {
        let port = free_port("127.0.0.1");
        if let (Some(one), Some(two)) = (start("127.0.0.1", port, records), start("127.0.0.2", port, records)) {
            let resolver = resolver(&one);
            return (one, two, resolver);
        }
    }
}

/// The zone's server gives the same answers as a resolver would.
fn resolver(server: &Knot) -> Resolver {
    let mut resolver = Resolver::at(server.address);
    resolver.port = server.address.port();
    resolver
}

async fn present(server: &Knot, values: &[String]) {
    let settings = Settings { server: server.address.to_string(), zone: None, key: None };
    let solver = Rfc2136::new("tunnel.example.com", settings).unwrap();
    for value in values {
        solver.present(value).await.unwrap();
    }
}

fn values() -> Vec<String> {
    vec!["base".to_owned(), "wildcard".to_owned()]
}

#[tokio::test]
async fn it_waits_for_the_last_value_at_the_last_server() {
    let (one, two, resolver) = servers();
    present(&one, &values()).await;
    present(&two, &values()[..1]).await;
    let all_there = AtomicBool::new(false);
    let settle = async {
        // A CNAME record leads to the name.
        let name = parse_name("_acme-challenge.alias.example.com").unwrap();
        settled_by(Ok(resolver.clone()), &name, &values(), None, DEADLINE).await;
        assert!(all_there.load(Ordering::Relaxed), "it resolved too early");
    };
    let late = async {
        // Late enough that the first look finds it missing.
        sleep(Duration::from_millis(300)).await;
        all_there.store(true, Ordering::Relaxed);
        present(&two, &values()[1..]).await;
    };
    timeout(DEADLINE, async { tokio::join!(settle, late) }).await.expect("it resolves");
}

#[tokio::test]
async fn it_waits_neither_endlessly_nor_needlessly() {
    let (one, two, resolver) = servers();
    let name = parse_name("_acme-challenge.tunnel.example.com").unwrap();
    let at = |server: &Knot| NameServer { name: "given".to_owned(), addresses: vec![server.address] };
    assert_eq!(look(&at(&one), &name, &values()).await, Seen::NotYet);
    // The values never come, and it stops at its time limit.
    let (time, resolvers) = (Duration::from_millis(1500), Ok(resolver.clone()));
    timeout(DEADLINE, settled_by(resolvers, &name, &values(), None, time)).await.expect("it gives up");
    present(&one, &values()).await;
    present(&two, &values()).await;
    assert_eq!(look(&at(&two), &name, &values()).await, Seen::All);
    let started = Instant::now();
    settled_by(Ok(resolver), &name, &values(), None, Duration::from_secs(3600)).await;
    assert!(started.elapsed() < DEADLINE);
}

#[tokio::test]
async fn it_goes_on_if_anything_is_out_of_order() {
    let name = parse_name("_acme-challenge.tunnel.example.com").unwrap();
    let hour = Duration::from_secs(3600);
    let closed = ([127, 0, 0, 1], free_port("127.0.0.1")).into();
    let settle = |resolver, primary| async {
        timeout(DEADLINE, settled_by(resolver, &name, &values(), primary, hour)).await.expect("it goes on");
    };
    settle(Err(Unknown::NoResolver("a test".to_owned())), None).await;
    settle(Ok(Resolver::at(closed)), None).await;
    let primary = NameServer { name: "primary".to_owned(), addresses: vec![closed] };
    settle(Ok(Resolver::at(closed)), Some(primary)).await;
    // The zone is known and its servers do not answer.
    let one = (0..5).find_map(|_| start("127.0.0.1", free_port("127.0.0.1"), "@ 60 IN NS ns")).expect("a server");
    let mut resolver = resolver(&one);
    resolver.port = free_port("127.0.0.1");
    settle(Ok(resolver), None).await;
    // A server refuses questions about other zones.
    let other = parse_name("_acme-challenge.tunnel.example.org").unwrap();
    let primary = NameServer { name: "primary".to_owned(), addresses: vec![one.address] };
    let (none, values) = (Err(Unknown::NoResolver("a test".to_owned())), values());
    timeout(DEADLINE, settled_by(none, &other, &values, Some(primary), hour)).await.expect("it goes on");
}
