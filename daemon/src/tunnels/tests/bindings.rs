//! Tunnels that a client binds and unbinds in its session.

use std::time::Instant;

use cok_proto::{ExchangeError, ResetCode};
use cok_transport::OpenError;
use serde_json::json;

use super::*;

#[tokio::test]
async fn a_session_carries_many_tunnels() {
    let tunnels = tunnels();
    let mut peer = Peer::open(&tunnels, connect("a", Some("first")), &[]).await.unwrap();
    assert_eq!(peer.ack.url.as_deref(), Some("https://first.tunnel.test"));
    for id in 1..=40 {
        assert_eq!(peer.bind(id, Some(&format!("n{id}"))).await.unwrap(), format!("n{id}"));
    }
    served_by(&tunnels, "first", &peer, 0).await;
    for id in 1..=40 {
        served_by(&tunnels, &format!("n{id}"), &peer, id).await;
    }
    let live = online(&tunnels, "n7").await;
    let _exchange = live.open(head(), true).unwrap();
    let incoming = timeout(PATIENCE, peer.transport.accept()).await.unwrap().unwrap();
    assert_eq!(incoming.tunnel, 7);
    drop(peer);
    while tunnels.online() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_refused_tunnel_leaves_the_others_alone() {
    let tunnels = tunnels();
    let _other = Peer::open(&tunnels, connect("b", Some("taken")), &[]).await.unwrap();
    online(&tunnels, "taken").await;
    let mut peer = Peer::open(&tunnels, connect("a", Some("first")), &[]).await.unwrap();
    peer.bind(1, Some("second")).await.unwrap();
    assert_eq!(peer.bind(2, Some("taken")).await.unwrap_err().code, ErrorCode::NameTaken);
    assert_eq!(peer.bind(3, Some("not a name")).await.unwrap_err().code, ErrorCode::NameForbidden);
    served_by(&tunnels, "first", &peer, 0).await;
    served_by(&tunnels, "second", &peer, 1).await;
    assert!(peer.is_open());
}

#[tokio::test]
async fn what_the_daemon_cannot_do_is_refused() {
    let tunnels = tunnels();
    let mut peer = Peer::without_tunnel(&tunnels, "a").await;
    let asked = [
        Bind { kind: "tcp".to_owned(), ..Bind::default() },
        Bind { rules: json!({"basic_auth": "me:secret"}), ..Bind::default() },
        Bind { rules: json!(["basic_auth"]), ..Bind::default() },
    ];
    for (id, bind) in (1..).zip(asked) {
        let bind = Bind { subdomain: Some("open".to_owned()), ..bind };
        assert_eq!(peer.ask(id, bind).await.unwrap_err().code, ErrorCode::Unsupported);
    }
    assert!(tunnels.find(&name("open")).is_none());
    assert!(peer.is_open());
}

#[tokio::test]
async fn the_quota_of_a_key_counts_tunnels() {
    let tunnels = tunnels_for(2);
    let mut peer = Peer::open(&tunnels, connect("a", Some("first")), &[]).await.unwrap();
    peer.bind(1, Some("second")).await.unwrap();
    assert_eq!(peer.bind(2, Some("third")).await.unwrap_err().code, ErrorCode::LimitReached);
    served_by(&tunnels, "second", &peer, 1).await;
    peer.bind(3, Some("second")).await.expect("a name that moves is counted once");
    assert_eq!(peer.unbound(1).await.reason, UnbindReason::Moved);
    peer.transport.unbind(0, &Unbind::new(UnbindReason::Closed, Duration::ZERO));
    // The daemon reads the Unbind first.
    peer.bind(4, Some("third")).await.unwrap();
}

#[tokio::test]
async fn a_bind_of_a_name_that_the_session_holds_moves_it() {
    let tunnels = tunnels();
    let mut peer = Peer::without_tunnel(&tunnels, "a").await;
    peer.bind(1, Some("demo")).await.unwrap();
    served_by(&tunnels, "demo", &peer, 1).await;
    let mut presence = tunnels.find(&name("demo")).unwrap().presence();
    presence.mark_unchanged();
    peer.bind(2, Some("demo")).await.unwrap();
    let unbind = peer.unbound(1).await;
    assert_eq!((unbind.reason, unbind.address), (UnbindReason::Moved, None));
    assert!(unbind.deadline_ms > 0, "its exchanges may finish");
    served_by(&tunnels, "demo", &peer, 2).await;
    assert!(presence.has_changed().unwrap());
    assert!(matches!(&*presence.borrow_and_update(), Presence::Online(live) if live.tunnel == 2), "in one step");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_binds_for_one_name_in_flight_the_last_one_has_it() {
    for _ in 0..200 {
        let tunnels = tunnels();
        let mut peer = Peer::without_tunnel(&tunnels, "a").await;
        for id in 1..=3 {
            let bind = Bind { subdomain: Some("demo".to_owned()), ..Bind::default() };
            assert!(peer.transport.bind(id, &bind));
        }
        for id in 1..=2 {
            match peer.answer(id).await {
                Ok(_) => assert_eq!(peer.unbound(id).await.reason, UnbindReason::Moved),
                Err(error) => assert_eq!((error.code, error.retryable), (ErrorCode::Moved, true)),
            }
        }
        peer.answer(3).await.unwrap();
        served_by(&tunnels, "demo", &peer, 3).await;
    }
}

#[tokio::test]
async fn a_tunnel_that_its_client_ends_is_offline_at_once_and_stays_with_its_key() {
    let tunnels = tunnels();
    let mut peer = Peer::open(&tunnels, connect("a", Some("first")), &[]).await.unwrap();
    peer.bind(1, Some("demo")).await.unwrap();
    served_by(&tunnels, "demo", &peer, 1).await;
    let live = online(&tunnels, "demo").await;
    let mut running = live.open(head(), true).unwrap();
    let _incoming = timeout(PATIENCE, peer.transport.accept()).await.unwrap().unwrap();
    let mut presence = tunnels.find(&name("demo")).unwrap().presence();
    peer.transport.unbind(1, &Unbind::new(UnbindReason::Closed, PATIENCE));
    timeout(PATIENCE, presence.wait_for(|presence| matches!(presence, Presence::Closed(_)))).await.unwrap().unwrap();
    assert_eq!(live.open(head(), true).unwrap_err(), OpenError::Unbound);
    let waits = timeout(Duration::from_millis(50), running.recv.recv()).await;
    assert!(waits.is_err(), "what runs goes on: {waits:?}");
    let mut other = Peer::without_tunnel(&tunnels, "b").await;
    assert_eq!(other.bind(1, Some("demo")).await.unwrap_err().code, ErrorCode::NameTaken);
    served_by(&tunnels, "first", &peer, 0).await;
    peer.bind(2, Some("demo")).await.unwrap();
}

#[tokio::test]
async fn exchanges_of_an_ended_tunnel_end_by_the_deadline() {
    let tunnels = tunnels();
    let mut peer = Peer::without_tunnel(&tunnels, "a").await;
    for (id, deadline) in [(1, Duration::ZERO), (2, Duration::from_millis(300))] {
        peer.bind(id, Some("demo")).await.unwrap();
        served_by(&tunnels, "demo", &peer, id).await;
        let mut running = online(&tunnels, "demo").await.open(head(), true).unwrap();
        let _incoming = timeout(PATIENCE, peer.transport.accept()).await.unwrap().unwrap();
        let began = Instant::now();
        peer.transport.unbind(id, &Unbind::new(UnbindReason::Closed, deadline));
        let ended = timeout(PATIENCE, running.recv.recv()).await.unwrap().unwrap_err();
        assert_eq!(ended, ExchangeError::Reset(ResetCode::Cancelled));
        assert!(began.elapsed() >= deadline);
    }
    assert!(peer.is_open());
}

#[tokio::test]
async fn a_session_that_drains_takes_no_more_tunnels() {
    let tunnels = tunnels();
    let mut peer = Peer::without_tunnel(&tunnels, "a").await;
    peer.bind(1, Some("demo")).await.unwrap();
    served_by(&tunnels, "demo", &peer, 1).await;
    // An open exchange keeps the session alive.
    let _running = online(&tunnels, "demo").await.open(head(), true).unwrap();
    let _incoming = timeout(PATIENCE, peer.transport.accept()).await.unwrap().unwrap();
    assert!(peer.transport.bind(2, &Bind::default()));
    tunnels.drain_sessions(PATIENCE);
    // The Bind is answered, whether it came before the Drain or after it.
    match peer.answer(2).await {
        Ok(_) => {}
        Err(error) => assert_eq!((error.code, error.retryable), (ErrorCode::Draining, true)),
    }
    let mut status = peer.transport.status();
    timeout(PATIENCE, status.wait_for(|status| matches!(status, Status::Draining(_)))).await.unwrap().unwrap();
    assert!(!peer.transport.bind(3, &Bind::default()));
}
