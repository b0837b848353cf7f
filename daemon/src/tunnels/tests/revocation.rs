//! A key that changes while sessions of it live.

use super::*;

/// The key `a`, which may use these names and has these limits.
fn key(patterns: &[&str], limits: KeyLimits) -> KeyRecord {
    KeyRecord {
        id: "a".into(),
        name: "a".into(),
        digest: KeyDigest::of("a"),
        subdomains: patterns.iter().map(|pattern| SubdomainPattern::parse(pattern).unwrap()).collect(),
        limits,
        expires: None,
    }
}

async fn closed(peer: &Peer) -> ErrorMessage {
    match timeout(PATIENCE, peer.transport.closed()).await.unwrap() {
        CloseReason::Session(SessionError::Peer(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn is_closed(tunnels: &Tunnels, at: &str) -> bool {
    matches!(*tunnels.find(&name(at)).unwrap().presence().borrow(), Presence::Closed(_))
}

#[tokio::test]
async fn a_removed_key_ends_its_sessions_and_no_others() {
    let tunnels = tunnels();
    let a = Peer::open(&tunnels, connect("a", Some("one")), &[]).await.unwrap();
    let idle = Peer::without_tunnel(&tunnels, "a").await;
    let b = Peer::open(&tunnels, connect("b", Some("two")), &[]).await.unwrap();
    let others = tunnels.admission.keys.configured().into_iter().filter(|key| &*key.id == "b").collect();
    tunnels.admission.keys.replace(others);
    let refused = Peer::open(&tunnels, connect("a", Some("one")), &[]).await.unwrap_err();
    for error in [closed(&a).await, closed(&idle).await] {
        assert_eq!((error.code, error.retryable), (refused.clone(), false));
    }
    assert!(is_closed(&tunnels, "one") && b.is_open());
}

#[tokio::test]
async fn a_narrowed_pattern_ends_the_tunnels_that_it_no_longer_allows() {
    let tunnels = tunnels();
    let mut peer = Peer::without_tunnel(&tunnels, "a").await;
    peer.bind(1, Some("keep")).await.unwrap();
    peer.bind(2, Some("lose")).await.unwrap();
    tunnels.admission.keys.replace(vec![key(&["keep"], KeyLimits::default())]);
    let unbind = peer.unbound(2).await;
    assert_eq!((unbind.reason, unbind.deadline_ms), (UnbindReason::Revoked, 0));
    assert!(is_closed(&tunnels, "lose") && !is_closed(&tunnels, "keep") && peer.is_open());
    assert_eq!(peer.bind(3, Some("lose")).await.unwrap_err().code, ErrorCode::NameForbidden);
    tunnels.admission.keys.replace(vec![key(&["*"], KeyLimits::default())]);
    peer.bind(4, Some("lose")).await.unwrap();
}

#[tokio::test]
async fn a_lower_limit_ends_the_newest_tunnels_over_all_sessions() {
    let tunnels = tunnels();
    let (mut one, mut other) = (Peer::without_tunnel(&tunnels, "a").await, Peer::without_tunnel(&tunnels, "a").await);
    one.bind(1, Some("first")).await.unwrap();
    other.bind(1, Some("second")).await.unwrap();
    one.bind(2, Some("third")).await.unwrap();
    other.bind(2, Some("fourth")).await.unwrap();
    tunnels.admission.keys.replace(vec![key(&["*"], KeyLimits { tunnels: 2, ..KeyLimits::default() })]);
    assert_eq!(one.unbound(2).await.reason, UnbindReason::Revoked);
    assert_eq!(other.unbound(2).await.reason, UnbindReason::Revoked);
    assert!(!is_closed(&tunnels, "first") && !is_closed(&tunnels, "second"));
    assert_eq!(one.bind(3, Some("fifth")).await.unwrap_err().code, ErrorCode::LimitReached);
    tunnels.admission.keys.replace(vec![key(&["*"], KeyLimits { tunnels: 3, ..KeyLimits::default() })]);
    one.bind(4, Some("fifth")).await.unwrap();
}

#[tokio::test]
async fn a_key_has_its_sessions_and_a_successor_counts_once() {
    let tunnels = tunnels();
    tunnels.admission.keys.replace(vec![key(&["*"], KeyLimits { sessions: 2, ..KeyLimits::default() })]);
    let first = Peer::open(&tunnels, connect("a", Some("one")), &[]).await.unwrap();
    let second = Peer::without_tunnel(&tunnels, "a").await;
    let refused = Peer::open(&tunnels, connect("a", Some("two")), &[]).await.unwrap_err();
    assert_eq!(refused, ErrorCode::LimitReached);
    let replaces = Some(first.ack.session.clone());
    let successor = Peer::open(&tunnels, Connect { replaces, ..connect("a", Some("one")) }, &[0]).await.unwrap();
    assert_eq!(successor.ack.moved, 1);
    // With one session, the newest goes. The successor has the place of the first.
    tunnels.admission.keys.replace(vec![key(&["*"], KeyLimits { sessions: 1, ..KeyLimits::default() })]);
    assert_eq!(closed(&second).await.code, ErrorCode::LimitReached);
    assert!(successor.is_open());
}

#[tokio::test]
async fn keys_that_cannot_be_read_are_not_refused_for_good() {
    let tunnels = tunnels();
    tunnels.admission.keys.expect_stored();
    assert_eq!(Peer::open(&tunnels, connect("unknown", None), &[]).await.unwrap_err(), ErrorCode::Internal);
    assert!(Peer::open(&tunnels, connect("a", None), &[]).await.is_ok(), "a key of the configuration is known");
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_names_all_the_same() {
    let tunnels = tunnels();
    let (daemon, client) = memory::pipe();
    let config = cok_transport::Config { initial_window: 256 * 1024, max_exchanges: 9, budget: WindowBudget::new(9) };
    let (serving, accepting) = (tunnels.clone(), config.clone());
    tokio::spawn(async move {
        let handshake = memory::accept(daemon, accepting, PATIENCE).await.unwrap();
        serve::serve(&serving, handshake, Origin { peer: [127, 0, 0, 1].into(), transport: "memory" }).await;
    });
    let frozen = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connect = connect("a", Some("one"));
        let session = runtime.block_on(memory::connect(client, config, &connect, &[], PATIENCE)).unwrap();
        (runtime, session)
    });
    let (runtime, _session) = frozen.await.unwrap();
    let live = online(&tunnels, "one").await;
    tunnels.admission.keys.replace(Vec::new());
    let wait = async {
        while !is_closed(&tunnels, "one") {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
    assert!(live.open(head(), true).is_err());
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_request_keeps_the_key_that_it_came_with_in_one_session() {
    let tunnels = tunnels();
    let first = Peer::open(&tunnels, connect("a", Some("one")), &[]).await.unwrap();
    let live = online(&tunnels, "one").await;
    let (mut early, mut late) = (ServingKey::default(), ServingKey::default());
    let sessions = |serving: &mut ServingKey, live: &Arc<Live>| serving.of(live).limits.sessions;
    let before = sessions(&mut early, &live);
    tunnels.admission.keys.replace(vec![key(&["*"], KeyLimits { sessions: 7, ..KeyLimits::default() })]);
    assert_eq!((sessions(&mut early, &live), sessions(&mut late, &live)), (before, 7));
    let replaces = Some(first.ack.session.clone());
    let successor = Peer::open(&tunnels, Connect { replaces, ..connect("a", Some("one")) }, &[0]).await.unwrap();
    served_by(&tunnels, "one", &successor, 0).await;
    assert_eq!(sessions(&mut early, &online(&tunnels, "one").await), 7, "another session is asked afresh");
}
