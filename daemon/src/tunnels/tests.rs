use std::time::Duration;

use cok_proto::{Connect, ErrorCode, SessionError};
use cok_transport::{CloseReason, HandshakeError, memory};

use super::origin::Origin;
use super::*;
use crate::admission::{self, KeyRecord};
use crate::drain;
use crate::names::{Hostname, KeyDigest, SubdomainPattern};

/// A time limit far above what any test here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often two clients race for a name.
const RACES: usize = 10_000;

fn tunnels() -> Arc<Tunnels> {
    let key = |name: &str| KeyRecord {
        name: name.into(),
        digest: KeyDigest::of(name),
        subdomains: vec![SubdomainPattern::parse("*").unwrap()],
        max_tunnels: RACES,
        expires: None,
    };
    let live = admission::Live { keys: vec![key("a"), key("b")], ..admission::Live::default() };
    let admission = Admission::new(admission::Config { startup: admission::Startup::default(), live });
    let config = Config { startup: Startup::default(), live: LiveConfig::default() };
    let address = PublicAddress { domain: Hostname::parse("tunnel.test").unwrap(), port: 443 };
    Tunnels::new(config, address, admission, Drain::new(drain::Config::default()), Arc::default(), b"secret")
}

/// Connects a client with this key that asks for a name. It stays online as long as the result is kept.
async fn ask(tunnels: &Arc<Tunnels>, key: &str, name: &str) -> Result<Arc<dyn cok_transport::Transport>, ErrorCode> {
    let config =
        cok_transport::Config { initial_window: 256 * 1024, max_exchanges: 100, budget: WindowBudget::new(1 << 20) };
    let (daemon, client) = memory::pipe();
    let (tunnels, accepting) = (tunnels.clone(), config.clone());
    tokio::spawn(async move {
        let handshake = memory::accept(daemon, accepting, PATIENCE).await.unwrap();
        serve::serve(&tunnels, handshake, Origin { peer: [127, 0, 0, 1].into(), transport: "memory" }).await;
    });
    let ask = Connect {
        key: key.to_owned(),
        subdomain: Some(name.to_owned()),
        instance: key.to_owned(),
        initial_window: 256 * 1024,
        ..Connect::default()
    };
    match memory::connect(client, config, &ask, &[], PATIENCE).await {
        Ok((transport, _)) => Ok(transport),
        Err(HandshakeError::Closed(CloseReason::Session(SessionError::Peer(refusal)))) => Err(refusal.code),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_keys_that_race_for_a_name_one_hears_yes_and_keeps_it() {
    let tunnels = tunnels();
    let mut won = [0; 2];
    for race in 0..RACES {
        let name = format!("n{race}");
        let (tunnels_a, tunnels_b, name_a, name_b) = (tunnels.clone(), tunnels.clone(), name.clone(), name.clone());
        let a = tokio::spawn(async move { ask(&tunnels_a, "a", &name_a).await });
        let b = tokio::spawn(async move { ask(&tunnels_b, "b", &name_b).await });
        let (a, b) = (a.await.unwrap(), b.await.unwrap());
        let winner = match (&a, &b) {
            (Ok(winner), Err(ErrorCode::NameTaken)) => {
                won[0] += 1;
                winner
            }
            (Err(ErrorCode::NameTaken), Ok(winner)) => {
                won[1] += 1;
                winner
            }
            other => panic!("race {race}: {other:?}"),
        };
        // It was granted the name, so it owns it from here on, and its session stays open.
        let status = winner.status();
        let name = Subdomain::parse(&name).unwrap();
        let mut presence = None;
        while presence.is_none() {
            presence = tunnels.find(&name).and_then(|tunnel| tunnel.live());
            tokio::task::yield_now().await;
        }
        assert!(matches!(*status.borrow(), cok_transport::Status::Open), "race {race}");
    }
    assert_eq!(won[0] + won[1], RACES);
}

/// A claim by a session of this client that was not granted.
fn claim(name: &str, key: &str, session: &str) -> directory::Claim {
    let record = KeyRecord {
        name: key.into(),
        digest: KeyDigest::of(key),
        subdomains: Vec::new(),
        max_tunnels: 1,
        expires: None,
    };
    let client = Client {
        session: session.to_owned(),
        key: Arc::new(record),
        owner: session::Owner { key: key.into(), instance: key.to_owned() },
        origin: Origin { peer: [127, 0, 0, 1].into(), transport: "memory" },
        version: String::new(),
    };
    let name = Subdomain::parse(name).unwrap();
    directory::Claim { name, client: Arc::new(client), take_over: true, vanished: None }
}

async fn online(tunnels: &Tunnels, name: &str) -> Arc<Live> {
    let name = Subdomain::parse(name).unwrap();
    loop {
        if let Some(live) = tunnels.find(&name).and_then(|tunnel| tunnel.live()) {
            return live;
        }
        tokio::task::yield_now().await;
    }
}

fn refusal(denied: directory::Denied) -> ErrorCode {
    match denied {
        directory::Denied::Refused(error) => error.code,
        directory::Denied::Served(_) => panic!("a session of the same key serves it"),
    }
}

#[tokio::test]
async fn a_reservation_that_is_dropped_changes_nothing() {
    let tunnels = tunnels();
    let before = ask(&tunnels, "a", "demo").await.unwrap();
    let live = online(&tunnels, "demo").await;
    let reservation = tunnels.directory.claim(&claim("demo", "a", "next")).unwrap();
    assert_eq!(refusal(tunnels.directory.claim(&claim("demo", "b", "other")).unwrap_err()), ErrorCode::NameTaken);
    drop(reservation);
    assert!(Arc::ptr_eq(&live, &online(&tunnels, "demo").await));
    assert!(matches!(*before.status().borrow(), cok_transport::Status::Open), "the predecessor serves on");
    drop(tunnels.directory.claim(&claim("free", "a", "x")).unwrap());
    assert!(tunnels.find(&Subdomain::parse("free").unwrap()).is_none(), "a name that was only reserved is not known");
    assert!(tunnels.directory.claim(&claim("free", "b", "y")).is_ok());
}

#[tokio::test]
async fn a_newer_session_of_the_same_client_goes_before_an_older_one() {
    let tunnels = tunnels();
    let older = tunnels.directory.claim(&claim("demo", "a", "older")).unwrap();
    let _newer = tunnels.directory.claim(&claim("demo", "a", "newer")).unwrap();
    let _transport = ask(&tunnels, "a", "other").await.unwrap();
    let transport = online(&tunnels, "other").await.transport.clone();
    let session = session::Session::new(claim("demo", "a", "older").client, transport);
    let permit = tunnels.admission.tunnels.acquire(&claim("x", "c", "c").client.key, &older.name).unwrap();
    let granted = claims::Granted { reservation: older, permit };
    let online = tunnels.metrics.clone().tunnel_online();
    let refused = tunnels.directory.activate(granted, &session, 0, online, PATIENCE).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Replaced);
}
