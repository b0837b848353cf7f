//! Many tunnels in one session: each is bound, refused, displaced and closed by itself.

use std::time::Duration;

use cok_client::{Event, TunnelState};
use cok_proto::{ErrorCode, RequestHead, ResetCode, Scheme, Target, TunnelFrame, Unbind, UnbindReason};
use cok_transport::{ExchangeError, Transport};
use http::uri::Authority;
use http::{HeaderMap, Method};

use crate::daemon::{Client, Daemon, PATIENCE, accept, asked_for, bound, grant, refusal, tunnel};

/// How long a connection to the service takes that is not there.
async fn status_of(transport: &dyn Transport, tunnel: u32) -> ExchangeError {
    let head = RequestHead {
        method: Method::GET,
        target: Target::root(),
        scheme: Scheme::Https,
        authority: Authority::from_static("demo.tunnel.test"),
        headers: HeaderMap::new(),
    };
    let mut exchange = transport.open(tunnel, head.into(), true).unwrap();
    tokio::time::timeout(PATIENCE, exchange.recv.recv()).await.unwrap().unwrap_err()
}

async fn next_frame(transport: &dyn Transport) -> (u32, TunnelFrame) {
    tokio::time::timeout(PATIENCE, transport.tunnel_frame()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_refused_tunnel_leaves_the_others_alone() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client("1", Some("a"));
    let session = grant(daemon.asked().await.0, "s1", "a").await;
    client.connected().await;
    client.opener.open(tunnel("1", Some("b"))).unwrap();
    let (id, bind) = asked_for(&*session).await;
    assert!(id > session.tunnel);
    assert_eq!((bind.subdomain.as_deref(), bind.take_over), (Some("b"), true));
    session.answer_bind(id, Err(refusal(ErrorCode::NameForbidden)));
    match client.event().await {
        Event::Refused { retry_in: None, .. } => {}
        other => panic!("{other:?}"),
    }
    let states: Vec<_> = client.opener.status().await.into_iter().map(|tunnel| tunnel.state).collect();
    assert!(matches!(states[..], [TunnelState::Online, TunnelState::Refused(_)]), "{states:?}");
    // The service is not there, so the client answers.
    assert_eq!(status_of(&*session, session.tunnel).await, ExchangeError::Reset(ResetCode::LocalRefused));
    client.stop.cancel();
    client.end().await.unwrap();
}

#[tokio::test]
async fn a_closed_tunnel_is_unbound_and_its_requests_go_back() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client("1", Some("a"));
    let session = grant(daemon.asked().await.0, "s1", "a").await;
    client.connected().await;
    let opened = client.opener.open(tunnel("1", Some("b"))).unwrap();
    let (id, _) = asked_for(&*session).await;
    session.answer_bind(id, Ok(bound("b")));
    client.connected().await;
    opened.close();
    match next_frame(&*session).await {
        (unbound, TunnelFrame::Unbind(unbind)) => {
            assert_eq!((unbound, unbind.reason), (id, UnbindReason::Closed));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(client.opener.status().await.len(), 1);
    client.stop.cancel();
    client.end().await.unwrap();
}

#[tokio::test]
async fn a_displaced_tunnel_does_not_take_its_name_back() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client("1", Some("a"));
    let session = grant(daemon.asked().await.0, "s1", "a").await;
    client.connected().await;
    let mut unbind = Unbind::new(UnbindReason::Replaced, Duration::ZERO);
    (unbind.address, unbind.version) = (Some("192.0.2.1".to_owned()), Some("0.2.0".to_owned()));
    assert!(session.unbind(session.tunnel, &unbind));
    match client.event().await {
        Event::Displaced { address, version, retry_in, .. } => {
            assert_eq!((address.as_deref(), version.as_deref()), (Some("192.0.2.1"), Some("0.2.0")));
            assert!((60..=300).contains(&retry_in.as_secs()), "{retry_in:?}");
        }
        other => panic!("{other:?}"),
    }
    client.stop.cancel();
    client.end().await.unwrap();
}

#[tokio::test]
async fn all_tunnels_move_to_the_next_session_or_ask_again() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client("1", Some("a"));
    let session = grant(daemon.asked().await.0, "s1", "a").await;
    client.connected().await;
    client.opener.open(tunnel("1", Some("b"))).unwrap();
    let (second, _) = asked_for(&*session).await;
    session.answer_bind(second, Ok(bound("b")));
    client.connected().await;
    session.drain(cok_proto::DrainReason::Restart, PATIENCE);
    let (handshake, connect) = daemon.asked().await;
    assert_eq!(connect.replaces.as_deref(), Some("s1"));
    // One of them moves; the other asks again.
    let next = accept(handshake, "s2", &[(second, bound("b"))]);
    let (third, bind) = asked_for(&*next).await;
    assert!(third > second);
    assert_eq!(bind.subdomain.as_deref(), Some("a"));
    next.answer_bind(third, Ok(bound("a")));
    assert_eq!((client.connected().await.as_str(), client.connected().await.as_str()), ("s2", "s2"));
    for id in [second, third] {
        assert_eq!(status_of(&*next, id).await, ExchangeError::Reset(ResetCode::LocalRefused));
    }
    client.stop.cancel();
    client.end().await.unwrap();
}

#[tokio::test]
async fn a_client_that_keeps_trying_outlives_a_refused_key() {
    let daemon = Daemon::start().await;
    let mut options = daemon.options("1", Some("a"));
    options.0.keep_trying = true;
    let mut client = Client::start(options);
    daemon.asked().await.0.refuse(&refusal(ErrorCode::Unauthorized));
    match client.event().await {
        Event::Disconnected { reason, retry_in, .. } => {
            assert!(reason.contains("unauthorized"), "{reason}");
            assert_eq!(retry_in.as_secs(), 300);
        }
        other => panic!("{other:?}"),
    }
    client.stop.cancel();
    client.end().await.unwrap();
}
