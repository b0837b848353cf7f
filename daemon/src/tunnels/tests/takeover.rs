//! Sessions and tunnels that another session of the same client takes over.

use super::*;

fn replacing(key: &str, name: Option<&str>, session: &str) -> Connect {
    Connect { replaces: Some(session.to_owned()), tunnel: name.is_some(), ..connect(key, name) }
}

/// A session with the tunnels n1 to n5.
async fn five(tunnels: &Arc<Tunnels>) -> Peer {
    let mut peer = Peer::without_tunnel(tunnels, "a").await;
    for id in 1..=5 {
        peer.bind(id, Some(&format!("n{id}"))).await.unwrap();
        served_by(tunnels, &format!("n{id}"), &peer, id).await;
    }
    peer
}

#[tokio::test]
async fn all_tunnels_of_a_session_move_to_its_successor_under_their_ids() {
    let tunnels = tunnels();
    let old = five(&tunnels).await;
    // An open exchange keeps the old session alive.
    let _running = online(&tunnels, "n1").await.open(head(), true).unwrap();
    let _incoming = timeout(PATIENCE, old.transport.accept()).await.unwrap().unwrap();
    let replaces = replacing("a", None, &old.ack.session);
    let mut new = Peer::open(&tunnels, replaces, &[1, 2, 3, 4, 5]).await.unwrap();
    assert_eq!((new.ack.moved, new.ack.subdomain.as_ref()), (5, None));
    for id in 1..=5 {
        assert_eq!(new.answer(id).await.unwrap(), format!("n{id}"));
        served_by(&tunnels, &format!("n{id}"), &new, id).await;
    }
    let mut status = old.transport.status();
    timeout(PATIENCE, status.wait_for(|status| matches!(status, Status::Draining(_)))).await.unwrap().unwrap();
    let mut old = old;
    if old.transport.bind(6, &Bind::default()) {
        let refused = old.answer(6).await.unwrap_err();
        assert!(matches!(refused.code, ErrorCode::Draining | ErrorCode::Moved), "{refused:?}");
    }
    drop(old);
    assert_eq!(new.bind(6, Some("n6")).await.unwrap(), "n6");
    assert!(new.is_open());
    assert_eq!(tunnels.online(), 6);
}

#[tokio::test]
async fn rules_move_with_a_tunnel_and_a_later_bind_replaces_them() {
    let tunnels = tunnels();
    let mut old = Peer::without_tunnel(&tunnels, "a").await;
    let bind = |rules| Bind { subdomain: Some("demo".to_owned()), rules, ..Bind::default() };
    old.ask(1, bind(serde_json::json!({"allow_path": ["/a"]}))).await.unwrap();
    let mut new = Peer::open(&tunnels, replacing("a", None, &old.ack.session), &[1]).await.unwrap();
    assert_eq!(new.answer(1).await.unwrap(), "demo");
    served_by(&tunnels, "demo", &new, 1).await;
    let paths = |live: Arc<Live>| live.access.as_ref().map(|access| access.paths.len());
    assert_eq!(paths(online(&tunnels, "demo").await), Some(1));
    new.ask(2, bind(serde_json::json!({"allow_path": ["/a", "/b"]}))).await.unwrap();
    served_by(&tunnels, "demo", &new, 2).await;
    assert_eq!(paths(online(&tunnels, "demo").await), Some(2));
    new.ask(3, bind(serde_json::json!({}))).await.unwrap();
    served_by(&tunnels, "demo", &new, 3).await;
    assert_eq!(paths(online(&tunnels, "demo").await), None);
}

#[tokio::test]
async fn an_unknown_session_moves_nothing() {
    let tunnels = tunnels();
    let old = five(&tunnels).await;
    let unknown = Peer::open(&tunnels, replacing("a", None, "unknown"), &[]).await.unwrap();
    assert_eq!(unknown.ack.moved, 0);
    let foreign = Peer::open(&tunnels, replacing("b", None, &old.ack.session), &[]).await.unwrap();
    assert_eq!(foreign.ack.moved, 0, "another key");
    for id in 1..=5 {
        served_by(&tunnels, &format!("n{id}"), &old, id).await;
    }
    assert!(old.is_open());
}

#[tokio::test]
async fn the_first_tunnel_moves_unless_another_name_is_wanted() {
    for (wanted, first, moved) in [(None, "demo", 1), (Some("DEMO"), "demo", 1), (Some("other"), "other", 0)] {
        let tunnels = tunnels();
        let old = Peer::open(&tunnels, connect("a", Some("demo")), &[]).await.unwrap();
        served_by(&tunnels, "demo", &old, 0).await;
        let replaces = Connect { tunnel: true, ..replacing("a", wanted, &old.ack.session) };
        let new = Peer::open(&tunnels, replaces, &[0]).await.unwrap();
        assert_eq!((new.ack.subdomain.as_deref(), new.ack.moved), (Some(first), moved));
        served_by(&tunnels, first, &new, 0).await;
    }
}

#[tokio::test]
async fn the_first_tunnel_may_be_one_that_had_another_id() {
    let tunnels = tunnels();
    let old = five(&tunnels).await;
    let mut new = Peer::open(&tunnels, replacing("a", Some("n2"), &old.ack.session), &[1, 2, 3, 4, 5]).await.unwrap();
    assert_eq!((new.ack.subdomain.as_deref(), new.ack.moved), (Some("n2"), 4));
    served_by(&tunnels, "n2", &new, 0).await;
    for id in [1, 3, 4, 5] {
        new.answer(id).await.unwrap();
        served_by(&tunnels, &format!("n{id}"), &new, id).await;
    }
    assert!(new.is_open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bind_in_flight_on_a_replaced_session_is_bound_and_moves_or_is_refused() {
    for _ in 0..200 {
        let tunnels = tunnels();
        let mut old = Peer::open(&tunnels, connect("a", Some("demo")), &[]).await.unwrap();
        served_by(&tunnels, "demo", &old, 0).await;
        // An open exchange keeps the old session alive.
        let _running = online(&tunnels, "demo").await.open(head(), true).unwrap();
        let _incoming = timeout(PATIENCE, old.transport.accept()).await.unwrap().unwrap();
        let binding = async {
            let answer = old.bind(1, Some("late")).await;
            (answer, old)
        };
        let replaces = replacing("a", Some("demo"), &online(&tunnels, "demo").await.client.session);
        let ((answer, mut old), new) = tokio::join!(binding, Peer::open(&tunnels, replaces, &[0, 1]));
        let mut new = new.unwrap();
        served_by(&tunnels, "demo", &new, 0).await;
        match answer {
            // It was online before the session was replaced, and moved; or it was taken away again.
            Ok(_) if new.ack.moved == 2 => served_by(&tunnels, "late", &new, 1).await,
            Ok(_) => assert_eq!(old.unbound(1).await.reason, UnbindReason::Moved),
            Err(error) => {
                assert!(matches!(error.code, ErrorCode::Moved | ErrorCode::Draining), "{error:?}");
                assert!(error.retryable);
                new.bind(2, Some("late")).await.unwrap();
                served_by(&tunnels, "late", &new, 2).await;
            }
        }
    }
}

#[tokio::test]
async fn a_bind_whose_claim_was_granted_before_the_session_was_replaced_is_refused() {
    let tunnels = tunnels();
    let old = Peer::open(&tunnels, connect("a", Some("demo")), &[]).await.unwrap();
    served_by(&tunnels, "demo", &old, 0).await;
    let session = tunnels.directory.sessions().pop().unwrap();
    let request = claims::Request { client: &session.client, tunnel: 1, wanted: Some("late"), take_over: true };
    let granted = claims::claim(&tunnels, request).await.unwrap();
    let _moving = tunnels.directory.take_over(&old.ack.session, &session.client).unwrap();
    let online = tunnels.metrics.clone().tunnel_online(&Subdomain::parse("demo").unwrap());
    let refused = tunnels.directory.activate(granted, &session, 1, online, PATIENCE).unwrap_err();
    assert_eq!((refused.code, refused.retryable), (ErrorCode::Moved, true));
    let request = claims::Request { client: &session.client, tunnel: 2, wanted: Some("later"), take_over: true };
    assert_eq!(claims::claim(&tunnels, request).await.unwrap_err().code, ErrorCode::Moved);
}

#[tokio::test]
async fn a_displaced_session_learns_by_whom_and_goes_on_with_its_other_tunnels() {
    let tunnels = tunnels();
    let mut old = five(&tunnels).await;
    let mut new = Peer::without_tunnel(&tunnels, "a").await;
    new.bind(1, Some("n3")).await.unwrap();
    let unbind = old.unbound(3).await;
    assert_eq!(unbind.reason, UnbindReason::Replaced);
    assert_eq!(unbind.address.as_deref(), Some("127.0.0.1"));
    assert_eq!(unbind.version.as_deref(), Some("tester 1"));
    served_by(&tunnels, "n3", &new, 1).await;
    for id in [1, 2, 4, 5] {
        served_by(&tunnels, &format!("n{id}"), &old, id).await;
    }
    let first = Peer::open(&tunnels, connect("a", Some("n4")), &[]).await.unwrap();
    assert_eq!(old.unbound(4).await.reason, UnbindReason::Replaced, "by Connect too");
    served_by(&tunnels, "n4", &first, 0).await;
    assert!(old.is_open() && new.is_open());

    // The displaced one asks again, and displaces no other.
    let bind = Bind { subdomain: Some("n3".to_owned()), take_over: false, ..Bind::default() };
    assert_eq!(old.ask(6, bind.clone()).await.unwrap_err().code, ErrorCode::NameTaken);
    served_by(&tunnels, "n3", &new, 1).await;
    drop(new);
    while tunnels.find(&name("n3")).unwrap().live().is_some() {
        tokio::task::yield_now().await;
    }
    old.ask(7, bind).await.unwrap();
    served_by(&tunnels, "n3", &old, 7).await;
}

#[tokio::test]
async fn a_session_that_left_names_behind_does_not_take_its_successors_names_away() {
    let tunnels = tunnels();
    let old = five(&tunnels).await;
    let mut new = Peer::without_tunnel(&tunnels, "a").await;
    for id in 1..=5 {
        new.bind(id, Some(&format!("n{id}"))).await.unwrap();
        served_by(&tunnels, &format!("n{id}"), &new, id).await;
    }
    drop(old);
    while tunnels.directory.sessions().len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(tunnels.online(), 5);
}
