//! A tunnel's life: sessions come and go, the name stays.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod daemon;
mod library;
mod moving;
mod tunnels;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cok_client::Event;
use cok_proto::{DrainReason, ErrorCode, ErrorMessage, RequestHead, Scheme, Target};
use cok_transport::{ExchangeHalves, Received, Status};
use http::uri::Authority;
use http::{HeaderMap, Method};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use self::daemon::{Client, Daemon, PATIENCE, Session, accept, asked_for, bound, grant, grant_moved, refusal};

/// A service whose answer waits for a signal; its port, and the sender of that signal.
async fn slow_service() -> (String, mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (go_on, mut may_go_on) = mpsc::channel::<()>(1);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await.unwrap();
        may_go_on.recv().await.unwrap();
        stream.write_all(b"done").await.unwrap();
        // Until the client is done with it.
        assert_eq!(stream.read(&mut [0; 4096]).await.unwrap_or(0), 0);
    });
    (port.to_string(), go_on)
}

fn open(session: &Session) -> ExchangeHalves {
    let head = RequestHead {
        method: Method::GET,
        target: Target::root(),
        scheme: Scheme::Https,
        authority: Authority::from_static("demo.tunnel.test"),
        headers: HeaderMap::new(),
    };
    session.open(session.tunnel, Arc::new(head), true).unwrap()
}

async fn head(exchange: &mut ExchangeHalves) -> u16 {
    match tokio::time::timeout(PATIENCE, exchange.recv.recv()).await.unwrap().unwrap() {
        Received::Head { head, .. } => head.status.as_u16(),
        other => panic!("{other:?}"),
    }
}

async fn body(exchange: &mut ExchangeHalves) -> Received {
    tokio::time::timeout(PATIENCE, exchange.recv.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_lost_session_is_followed_by_one_of_the_same_name() {
    let daemon = Daemon::start().await;
    let mut client = daemon.client("1", None);
    let (handshake, connect) = daemon.asked().await;
    assert_eq!((connect.key.as_str(), connect.tunnel, connect.instance.as_str()), ("key", false, "instance"));
    let session = grant(handshake, "s1", "picked").await;
    assert_eq!((client.connected().await.as_str(), &session.wanted), ("s1", &None));
    let oops = || ErrorMessage { code: ErrorCode::Internal, message: "oops".to_owned(), retryable: true };
    session.close(oops());
    assert!(client.disconnected().await.contains("oops"));
    let (handshake, connect) = daemon.asked().await;
    assert_eq!(connect.replaces, None);
    let session = grant(handshake, "s2", "picked").await;
    assert_eq!((client.connected().await.as_str(), session.wanted.as_deref()), ("s2", Some("picked")));

    // Another client has the picked name by now.
    session.close(oops());
    client.disconnected().await;
    let transport = accept(daemon.asked().await.0, "s3", &[]);
    let (id, bind) = asked_for(&*transport).await;
    assert_eq!(bind.subdomain.as_deref(), Some("picked"));
    transport.answer_bind(id, Err(refusal(ErrorCode::NameTaken)));
    let (id, bind) = asked_for(&*transport).await;
    assert_eq!(bind.subdomain, None);
    transport.answer_bind(id, Ok(bound("another")));
    assert_eq!(client.connected().await, "s3");
    client.stop.cancel();
    client.end().await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_final() {
    let daemon = Daemon::start().await;
    let client = daemon.client("1", None);
    daemon.asked().await.0.refuse(&refusal(ErrorCode::Unauthorized));
    assert_eq!(client.end().await.unwrap_err().0.code, ErrorCode::Unauthorized);

    let client = daemon.client("1", Some("wanted"));
    let transport = accept(daemon.asked().await.0, "s1", &[]);
    let (id, bind) = asked_for(&*transport).await;
    assert_eq!(bind.subdomain.as_deref(), Some("wanted"));
    transport.answer_bind(id, Err(refusal(ErrorCode::NameForbidden)));
    assert_eq!(client.end().await.unwrap_err().0.code, ErrorCode::NameForbidden);

    // Likewise once it is online.
    let mut client = daemon.client("1", None);
    let session = grant(daemon.asked().await.0, "s2", "picked").await;
    client.connected().await;
    session.close(refusal(ErrorCode::Unauthorized));
    assert_eq!(client.end().await.unwrap_err().0.code, ErrorCode::Unauthorized);
}

#[tokio::test]
async fn a_draining_session_finishes_while_its_successor_runs() {
    let (target, go_on) = slow_service().await;
    let daemon = Daemon::start().await;
    let mut client = daemon.client(&target, Some("demo"));
    let session = grant(daemon.asked().await.0, "s1", "demo").await;
    client.connected().await;
    let mut exchange = open(&session);
    assert_eq!(head(&mut exchange).await, 200);
    session.drain(DrainReason::Restart, PATIENCE);
    // The first attempt fails, and the next one still says whom it replaces.
    let retry = ErrorMessage { retryable: true, ..refusal(ErrorCode::Internal) };
    daemon.asked().await.0.refuse(&retry);
    client.disconnected().await;
    let (handshake, connect) = daemon.asked().await;
    assert_eq!(connect.replaces.as_deref(), Some("s1"));
    let _next = grant_moved(handshake, "s2", "demo", session.tunnel);
    assert_eq!(client.connected().await, "s2");
    go_on.send(()).await.unwrap();
    assert_eq!(body(&mut exchange).await, Received::Data { data: Bytes::from_static(b"done"), end: true });
    client.stop.cancel();
    client.end().await.unwrap();
}

#[tokio::test]
async fn stopping_lets_running_exchanges_finish() {
    let (target, go_on) = slow_service().await;
    let daemon = Daemon::start().await;
    let mut client = daemon.client(&target, Some("demo"));
    let session = grant(daemon.asked().await.0, "s1", "demo").await;
    client.connected().await;
    let mut exchange = open(&session);
    assert_eq!(head(&mut exchange).await, 200);
    client.stop.cancel();
    let mut status = session.status();
    let drains = status.wait_for(|status| matches!(status, Status::Draining(_)));
    drop(tokio::time::timeout(PATIENCE, drains).await.expect("the client must announce its end").unwrap());
    assert!(!client.running.is_finished());
    go_on.send(()).await.unwrap();
    assert_eq!(body(&mut exchange).await, Received::Data { data: Bytes::from_static(b"done"), end: true });
    drop(exchange);
    client.end().await.unwrap();
}

#[tokio::test]
async fn a_daemon_that_leaves_is_asked_again() {
    let (target, go_on) = slow_service().await;
    let daemon = Daemon::start().await;
    let mut client = daemon.client(&target, Some("demo"));
    let session = grant(daemon.asked().await.0, "s1", "demo").await;
    client.connected().await;
    let mut exchange = open(&session);
    assert_eq!(head(&mut exchange).await, 200);
    session.drain(DrainReason::Shutdown, PATIENCE);
    assert!(client.disconnected().await.contains("shutting down"));
    let _next = grant(daemon.asked().await.0, "s2", "demo").await;
    assert_eq!(client.connected().await, "s2");
    go_on.send(()).await.unwrap();
    assert_eq!(body(&mut exchange).await, Received::Data { data: Bytes::from_static(b"done"), end: true });
    client.stop.cancel();
    client.end().await.unwrap();
}

#[tokio::test]
async fn a_taken_name_is_asked_for_again() {
    let daemon = Daemon::start().await;
    let mut options = daemon.options("1", Some("demo"));
    options.0.name_timeout = PATIENCE;
    let mut client = Client::start(options);
    let transport = accept(daemon.asked().await.0, "s1", &[]);
    let (id, _) = asked_for(&*transport).await;
    let began = Instant::now();
    transport.answer_bind(id, Err(refusal(ErrorCode::NameTaken)));
    match client.event().await {
        Event::NameTaken { name, within, .. } => assert_eq!((name.as_deref(), within), (Some("demo"), PATIENCE)),
        other => panic!("{other:?}"),
    }
    let (id, bind) = asked_for(&*transport).await;
    assert_eq!(bind.subdomain.as_deref(), Some("demo"));
    assert!(began.elapsed() >= Duration::from_secs(1), "not at once");
    transport.answer_bind(id, Ok(bound("demo")));
    assert_eq!(client.connected().await, "s1");
    client.stop.cancel();
    client.end().await.unwrap();
}

#[tokio::test]
async fn a_name_that_stays_taken_is_refused_in_the_end() {
    let daemon = Daemon::start().await;
    let mut options = daemon.options("1", Some("demo"));
    options.0.name_timeout = Duration::from_millis(300);
    let mut client = Client::start(options);
    let transport = accept(daemon.asked().await.0, "s1", &[]);
    for _ in 0..2 {
        let (id, _) = asked_for(&*transport).await;
        transport.answer_bind(id, Err(refusal(ErrorCode::NameTaken)));
    }
    assert!(matches!(client.event().await, Event::NameTaken { .. }));
    assert!(matches!(client.event().await, Event::Refused { retry_in: Some(_), .. }));
    assert_eq!(client.end().await.unwrap_err().0.code, ErrorCode::NameTaken);
}

#[tokio::test]
async fn a_tunnel_says_what_it_does_before_it_is_online() {
    let daemon = Daemon::start().await;
    let mut options = daemon.options("1", Some("demo"));
    options.0.connect_to = Some(([127, 0, 0, 1], 1).into());
    let mut client = Client::start(options);
    match client.any_event().await {
        Event::Connecting { server } => assert_eq!(server, "https://tunnel.test"),
        other => panic!("{other:?}"),
    }
    match client.any_event().await {
        Event::Disconnected { reason, was_online: false, .. } => assert_eq!(
            reason,
            "cannot reach https://tunnel.test: connection refused by 127.0.0.1:1; is cokd running there, and on this port?"
        ),
        other => panic!("{other:?}"),
    }
    client.stop.cancel();
    client.end().await.unwrap();
}

#[tokio::test]
async fn a_stop_says_what_it_waits_for() {
    let (target, go_on) = slow_service().await;
    let daemon = Daemon::start().await;
    let mut client = daemon.client(&target, Some("demo"));
    let session = grant(daemon.asked().await.0, "s1", "demo").await;
    client.connected().await;
    let mut exchange = open(&session);
    assert_eq!(head(&mut exchange).await, 200);
    client.stop.cancel();
    match client.event().await {
        Event::Stopping { requests: 1, streams: 0, within } => assert_eq!(within, Duration::from_secs(10)),
        other => panic!("{other:?}"),
    }
    go_on.send(()).await.unwrap();
    assert_eq!(body(&mut exchange).await, Received::Data { data: Bytes::from_static(b"done"), end: true });
    client.end().await.unwrap();
}
