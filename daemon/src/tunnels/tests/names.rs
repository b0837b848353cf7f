//! Who gets a name: races, reservations, clients that vanish, and names that the daemon picks.

use std::time::Instant;

use super::*;

/// Connects a client with this key that asks for a name. It stays online as long as the result is kept.
async fn ask(tunnels: &Arc<Tunnels>, key: &str, name: &str) -> Result<Peer, ErrorCode> {
    Peer::open(tunnels, connect(key, Some(name)), &[]).await
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
        let status = winner.transport.status();
        let name = Subdomain::parse(&name).unwrap();
        assert!(
            tunnels.find(&name).is_some_and(|tunnel| tunnel.live().is_some()),
            "race {race}: it heard yes too early"
        );
        assert!(matches!(*status.borrow(), cok_transport::Status::Open), "race {race}");
    }
    assert_eq!(won[0] + won[1], RACES);
}

/// How many races two sessions have. More tunnels in a moment are a flood.
const OF_A_SESSION: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_keys_that_bind_a_name_at_once_one_gets_it() {
    let tunnels = tunnels();
    let (mut a, mut b) = (Peer::without_tunnel(&tunnels, "a").await, Peer::without_tunnel(&tunnels, "b").await);
    for race in 1..=RACES {
        if race % OF_A_SESSION == 0 {
            (a, b) = (Peer::without_tunnel(&tunnels, "a").await, Peer::without_tunnel(&tunnels, "b").await);
        }
        let (id, name) = (u32::try_from(race).unwrap(), format!("n{race}"));
        let (of_a, of_b) = tokio::join!(a.bind(id, Some(&name)), b.bind(id, Some(&name)));
        let (winner, code) = match (of_a, of_b) {
            (Ok(_), Err(error)) => (&mut a, error.code),
            (Err(error), Ok(_)) => (&mut b, error.code),
            other => panic!("race {race}: {other:?}"),
        };
        assert_eq!(code, ErrorCode::NameTaken);
        let parsed = Subdomain::parse(&name).unwrap();
        assert!(
            tunnels.find(&parsed).is_some_and(|tunnel| tunnel.live().is_some()),
            "race {race}: it heard yes too early"
        );
        served_by(&tunnels, &name, winner, id).await;
        winner.transport.unbind(id, &Unbind::new(UnbindReason::Closed, Duration::ZERO));
    }
    assert!(a.is_open() && b.is_open());
}

/// A claim by a session of this client that was not granted.
fn claim(name: &str, key: &str, session: &str) -> directory::Claim {
    let record = KeyRecord {
        id: key.into(),
        name: key.into(),
        digest: KeyDigest::of(key),
        subdomains: Vec::new(),
        limits: KeyLimits::default(),
        expires: None,
    };
    let client = session::Client {
        session: session.to_owned(),
        key: Arc::new(record.clone()),
        grant: record.into(),
        owner: session::Owner { key: key.into(), instance: key.to_owned() },
        origin: Origin { peer: [127, 0, 0, 1].into(), transport: "memory" },
        version: String::new(),
    };
    let name = Subdomain::parse(name).unwrap();
    directory::Claim { name, client: Arc::new(client), tunnel: 0, from: directory::TakeFrom::Client, vanished: None }
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
    assert!(matches!(*before.transport.status().borrow(), cok_transport::Status::Open), "the predecessor serves on");
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
    let transport = super::online(&tunnels, "other").await.transport.clone();
    let sessions = tunnels.admission.sessions.acquire(&claim("x", "c", "c").client.key).unwrap();
    let session = session::Session::new(
        claim("demo", "a", "older").client,
        transport,
        sessions,
        tunnels.metrics.sessions.open("ws"),
    );
    let permit = tunnels.admission.tunnels.acquire(&claim("x", "c", "c").client.key, &older.name).unwrap();
    let granted = claims::Granted { reservation: older, permit };
    let online = tunnels.metrics.clone().tunnel_online(&Subdomain::parse("demo").unwrap());
    let refused = tunnels.directory.activate(granted, &session, 0, online, PATIENCE).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Replaced);
}

/// A session that serves this name and whose client has frozen: nothing reads its pipe or writes to it. The runtime keeps
/// it frozen.
async fn frozen(tunnels: &Arc<Tunnels>, connect: Connect) -> (tokio::runtime::Runtime, Peer) {
    let (daemon, client) = memory::pipe();
    let config = cok_transport::Config { initial_window: 256 * 1024, max_exchanges: 9, budget: WindowBudget::new(9) };
    let (serving, accepting) = (tunnels.clone(), config.clone());
    tokio::spawn(async move {
        let handshake = memory::accept(daemon, accepting, PATIENCE).await.unwrap();
        serve::serve(&serving, handshake, Origin { peer: [127, 0, 0, 1].into(), transport: "memory" }).await;
    });
    let begun = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let session = runtime.block_on(memory::connect(client, config, &connect, &[], PATIENCE));
        let (transport, ack) = session.unwrap();
        (runtime, Peer { transport, ack, early: VecDeque::new() })
    });
    begun.await.unwrap()
}

fn other_instance(name: &str, instance: &str) -> Connect {
    Connect { instance: instance.to_owned(), ..connect("a", Some(name)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_whose_client_vanished_is_free_for_its_key_within_three_seconds() {
    let tunnels = tunnels();
    let (frozen, before) = frozen(&tunnels, other_instance("gone", "before")).await;
    online(&tunnels, "gone").await;
    assert_eq!(ask(&tunnels, "b", "gone").await.err(), Some(ErrorCode::NameTaken), "another key waits for nothing");
    let began = Instant::now();
    let after = Peer::open(&tunnels, other_instance("gone", "after"), &[]).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    served_by(&tunnels, "gone", &after, 0).await;
    frozen.shutdown_background();
    drop(before);
}

#[tokio::test]
async fn a_client_that_answers_keeps_its_name() {
    let tunnels = tunnels();
    let before = Peer::open(&tunnels, other_instance("kept", "before"), &[]).await.unwrap();
    let mut after = Peer::without_tunnel(&tunnels, "a").await;
    assert_eq!(after.bind(1, Some("kept")).await.unwrap_err().code, ErrorCode::NameTaken);
    served_by(&tunnels, "kept", &before, 0).await;
    assert!(before.is_open());
}

#[tokio::test]
async fn a_picked_name_is_the_same_after_a_reconnect() {
    let tunnels = tunnels();
    let first = Peer::open(&tunnels, connect("a", None), &[]).await.unwrap();
    let picked = first.ack.subdomain.clone().unwrap();
    served_by(&tunnels, &picked, &first, 0).await;
    let again = Connect { replaces: Some(first.ack.session.clone()), ..connect("a", None) };
    let second = Peer::open(&tunnels, again, &[0]).await.unwrap();
    assert_eq!(second.ack.subdomain.as_ref(), Some(&picked), "taken over");
    served_by(&tunnels, &picked, &second, 0).await;
    drop((first, second));
    while tunnels.online() > 0 {
        tokio::task::yield_now().await;
    }
    let third = Peer::open(&tunnels, connect("a", None), &[]).await.unwrap();
    assert_eq!(third.ack.subdomain.as_ref(), Some(&picked), "picked again");
    let other = Peer::open(&tunnels, connect("b", None), &[]).await.unwrap();
    assert_ne!(other.ack.subdomain.as_ref(), Some(&picked), "another installation");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_without_a_wanted_name_get_one_each_though_all_are_asked_for_at_once() {
    const UNNAMED: u32 = 10;
    let tunnels = tunnels();
    let mut names = Vec::new();
    for _ in 0..2 {
        let mut peer = Peer::without_tunnel(&tunnels, "a").await;
        for id in 1..=UNNAMED {
            assert!(peer.transport.bind(id, &Bind::default()));
        }
        let mut picked = Vec::new();
        for id in 1..=UNNAMED {
            let name = peer.answer(id).await.unwrap();
            served_by(&tunnels, &name, &peer, id).await;
            picked.push(name);
        }
        picked.sort();
        picked.dedup();
        assert_eq!(picked.len(), UNNAMED as usize);
        names.push(picked);
        drop(peer);
        while tunnels.online() > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(names[0], names[1], "the same ones after a reconnect");
}
