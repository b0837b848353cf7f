//! The choice between QUIC and WebSocket, and moving from one to the other.

use std::time::Duration;

use cok_client::{Event, TransportChoice};
use cok_proto::{DrainReason, ErrorCode};
use cok_transport::CloseReason;
use tokio::net::UdpSocket;

use crate::daemon::{Daemon, PATIENCE, asked_over, grant, grant_moved, refusal};

#[tokio::test]
async fn without_an_answer_over_udp_auto_falls_back_and_quic_does_not() {
    let daemon = Daemon::start().await;
    // It takes packets and never answers one, as where UDP is blocked.
    let silent = UdpSocket::bind(daemon.listener.local_addr().unwrap()).await.unwrap();
    let mut auto = daemon.client_by(TransportChoice::Auto, PATIENCE, "1", Some("demo"));
    let _session = grant(daemon.asked().await.0, "s1", "demo").await;
    let why = auto.fell_back().await;
    assert!(why.starts_with("QUIC: no answer within "), "{why}");
    assert_ne!(silent.recv(&mut [0; 2048]).await.unwrap(), 0, "QUIC was tried");
    auto.stop.cancel();
    auto.end().await.unwrap();

    let mut quic = daemon.client_by(TransportChoice::Quic, PATIENCE, "1", Some("demo"));
    tokio::select! {
        reason = quic.disconnected() => assert!(reason.contains("over QUIC: no answer"), "{reason}"),
        _ = daemon.listener.accept() => panic!("quic means quic"),
    }
    quic.stop.cancel();
    quic.end().await.unwrap();
}

#[tokio::test]
async fn moving_to_quic_names_the_session_that_it_replaces() {
    let daemon = Daemon::start().await;
    let silent = UdpSocket::bind(daemon.listener.local_addr().unwrap()).await.unwrap();
    let mut client = daemon.client_by(TransportChoice::Auto, Duration::from_millis(50), "1", Some("demo"));
    let first = grant(daemon.asked().await.0, "s1", "demo").await;
    client.fell_back().await;
    drop(silent);
    let endpoint = daemon.quic();
    // A refusal ends the attempt, not the session that there is.
    let (handshake, connect) = asked_over(&endpoint).await;
    assert_eq!(connect.replaces.as_deref(), Some("s1"));
    handshake.refuse(&refusal(ErrorCode::LimitReached));
    let (handshake, connect) = asked_over(&endpoint).await;
    assert_eq!(connect.replaces.as_deref(), Some("s1"));
    let second = grant_moved(handshake, "s2", "demo", first.tunnel);
    first.drain(DrainReason::Handover, PATIENCE);
    match client.event().await {
        Event::Connected { transport: "quic", session, reason, .. } => {
            assert_eq!((session.as_str(), reason.as_str()), ("s2", "moved: QUIC answers again"));
        }
        other => panic!("{other:?}"),
    }
    // The first one's end is no news.
    assert_eq!(tokio::time::timeout(PATIENCE, first.closed()).await.unwrap(), CloseReason::Drained);
    second.close(refusal(ErrorCode::Unauthorized));
    assert_eq!(client.end().await.unwrap_err().0.code, ErrorCode::Unauthorized);
}

#[tokio::test]
async fn a_quic_that_leaves_connect_unanswered_makes_way_for_the_websocket() {
    let daemon = Daemon::start().await;
    let endpoint = daemon.quic();
    let mut client = daemon.client_by(TransportChoice::Auto, PATIENCE, "1", Some("demo"));
    let (_unanswered, _) = asked_over(&endpoint).await;
    let why = client.disconnected().await;
    assert!(why.starts_with("no answer to the request for a session"), "{why}");
    let _session = grant(daemon.asked().await.0, "s1", "demo").await;
    assert_eq!(client.fell_back().await, format!("QUIC: {why}"));
    client.stop.cancel();
    client.end().await.unwrap();
}
