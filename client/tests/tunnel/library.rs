//! What a program sees that uses the client as a library.

use axum::Router;
use axum::routing::get;
use cok_client::{Client, ErrorCode, Event, OpenError, SettingError, Tunnel};
use cok_proto::{RequestHead, Target, TunnelFrame};
use cok_transport::{ExchangeHalves, Received, Transport};
use http::uri::Authority;

use super::*;
use crate::daemon::{accept, asked_for, bound, refusal};

/// The body of the response to a GET.
async fn visit(session: &dyn Transport, tunnel: u32) -> Vec<u8> {
    let head = RequestHead {
        method: http::Method::GET,
        target: Target::root(),
        scheme: cok_proto::Scheme::Https,
        authority: Authority::from_static("demo.tunnel.test"),
        headers: http::HeaderMap::new(),
    };
    let ExchangeHalves { send: _send, mut recv } = session.open(tunnel, Arc::new(head), true).unwrap();
    let mut body = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, recv.recv()).await.unwrap().unwrap() {
            Received::Head { .. } => {}
            Received::Data { data, end } => {
                body.extend_from_slice(&data);
                if end {
                    return body;
                }
            }
            Received::Trailers(_) => return body,
        }
    }
}

fn app() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

#[tokio::test]
async fn a_tunnel_opens_serves_and_closes() {
    let daemon = Daemon::start().await;
    let opening = tokio::spawn(daemon.builder().tunnel().subdomain("demo").service(app()).open());
    let (handshake, connect) = daemon.asked().await;
    assert_eq!((connect.key.as_str(), connect.instance.as_str()), ("key", "instance"));
    let session = accept(handshake, "one", &[]);
    let (id, bind) = asked_for(&*session).await;
    assert_eq!(bind.subdomain.as_deref(), Some("demo"));
    assert!(session.answer_bind(id, Ok(bound("demo"))));
    let tunnel = opening.await.unwrap().unwrap();
    assert_eq!(tunnel.url(), "https://demo.tunnel.test");

    let mut events = tunnel.events();
    assert_eq!(visit(&*session, id).await, b"hello");
    assert!(matches!(events.next().await, Some(Event::RequestBegan { .. })));
    assert!(matches!(events.next().await, Some(Event::RequestEnded { status: Some(200), bytes: 5, .. })));

    tokio::time::timeout(PATIENCE, tunnel.close()).await.unwrap();
    assert!(events.next().await.is_none(), "its client has ended too");
    tokio::time::timeout(PATIENCE, session.closed()).await.unwrap();
}

#[tokio::test]
async fn tunnels_of_a_client_share_its_session_and_end_by_themselves() {
    let daemon = Daemon::start().await;
    let client = daemon.builder().connect().unwrap();
    let (handshake, _) = daemon.asked().await;
    let session = accept(handshake, "one", &[]);
    let open = |name: &str| tokio::spawn(client.tunnel().subdomain(name).service(app()).open());

    // A refusal of the only tunnel does not end the client.
    let opening = open("taken");
    let (id, _) = asked_for(&*session).await;
    session.answer_bind(id, Err(refusal(ErrorCode::NameForbidden)));
    let error = opening.await.unwrap().unwrap_err();
    assert!(matches!(error, OpenError::Refused { code: ErrorCode::NameForbidden, .. }), "{error:?}");

    let mut opened: Vec<(u32, Tunnel)> = Vec::new();
    for name in ["a", "b"] {
        let opening = open(name);
        let (id, _) = asked_for(&*session).await;
        session.answer_bind(id, Ok(bound(name)));
        opened.push((id, opening.await.unwrap().unwrap()));
    }
    let (first, tunnel) = opened.remove(0);
    tunnel.close().await;
    match session.tunnel_frame().await {
        Some((id, TunnelFrame::Unbind(_))) => assert_eq!(id, first),
        other => panic!("{other:?}"),
    }
    assert_eq!(visit(&*session, opened[0].0).await, b"hello");
    // The session ends with the last handle.
    drop((opened, client));
    tokio::time::timeout(PATIENCE, session.closed()).await.unwrap();
}

#[tokio::test]
async fn a_refused_session_says_why() {
    let daemon = Daemon::start().await;
    let client = daemon.builder().connect().unwrap();
    let opening = tokio::spawn(client.tunnel().target("3000").open());
    let (handshake, _) = daemon.asked().await;
    handshake.refuse(&refusal(ErrorCode::Unauthorized));
    let error = opening.await.unwrap().unwrap_err();
    assert!(matches!(error, OpenError::Refused { code: ErrorCode::Unauthorized, .. }), "{error:?}");
    assert_eq!(client.ended().await.unwrap_err().0.code, ErrorCode::Unauthorized);
    let late = client.tunnel().target("3000").open().await.unwrap_err();
    assert!(matches!(late, OpenError::Refused { .. }), "{late:?}");
}

#[tokio::test]
async fn settings_that_cannot_work_are_errors_of_their_own() {
    let daemon = Daemon::start().await;
    let client = daemon.builder().connect().unwrap();
    let setting = |error| match error {
        OpenError::Setting(error) => error,
        other => panic!("{other:?}"),
    };
    let error = setting(client.tunnel().open().await.unwrap_err());
    assert!(matches!(error, SettingError::NoTarget), "{error:?}");
    let error = setting(client.tunnel().target("ftp://x").open().await.unwrap_err());
    assert!(matches!(error, SettingError::Target(_)), "{error:?}");
    let error = setting(client.tunnel().target("1").subdomain("a.b").open().await.unwrap_err());
    assert!(matches!(error, SettingError::Subdomain(_)), "{error:?}");
    let error = Client::builder("http://tunnel.test", "key").connect().unwrap_err();
    assert!(matches!(error, SettingError::Server(_)), "{error:?}");
    let error = Client::builder("https://tunnel.test", "two words").connect().unwrap_err();
    assert!(matches!(error, SettingError::Key), "{error:?}");
    let error = Client::builder("https://tunnel.test", "key").ca_file("/nowhere").connect().unwrap_err();
    assert!(matches!(error, SettingError::Trust(_)), "{error:?}");
}
