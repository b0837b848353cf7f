//! What the two ends of an exchange hear when the client stops.

use bytes::BytesMut;
use cok_proto::ResetCode;
use http::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::yield_now;
use tokio::time::Instant;

use super::*;

const WEBSOCKET: &[(&str, &str)] = &[("upgrade", "websocket"), ("sec-websocket-key", "k")];
/// A masked Close frame, as the visitor answers.
const ANSWER: &[u8] = b"\x88\x82\0\0\0\0\x03\xe9";
const EVENT: &[u8] = b"data: 0\n\n";

/// The Close frame that the visitor gets.
fn close() -> Bytes {
    cok_http::websocket::going_away("the tunnel is being closed")
}

/// A service that answers one request with these bytes, and its end of the connection.
async fn service(response: impl Into<String>) -> (u16, tokio::task::JoinHandle<TcpStream>) {
    let (listener, port) = listen().await;
    let response = response.into();
    let connection = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
        stream.write_all(response.as_bytes()).await.unwrap();
        stream
    });
    (port, connection)
}

fn switch(protocol: &str) -> String {
    format!("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n")
}

/// Exactly so many bytes of the body.
async fn read(visitor: &mut Visitor, length: usize) -> Bytes {
    let mut read = BytesMut::new();
    while read.len() < length {
        let chunk = visitor.chunk().await.unwrap();
        assert!(!chunk.is_empty(), "the body ended after {read:?}");
        read.extend_from_slice(&chunk);
    }
    read.freeze()
}

#[tokio::test]
async fn a_websocket_is_closed_between_two_frames() {
    let (port, connection) = service(switch("WebSocket") + "\u{2}\u{6}mess").await;
    let daemon = Daemon::to(&port.to_string()).await;
    let mut visitor = daemon.open("GET", "/", WEBSOCKET, true);
    assert_eq!(visitor.head().await.unwrap().status, 101);
    let mut service = connection.await.unwrap();
    assert_eq!(read(&mut visitor, 6).await, &b"\x02\x06mess"[..]);
    assert_eq!(daemon.under_way(), (0, 1));
    daemon.stop();
    // The rest of the frame, and one more of which the visitor hears nothing.
    service.write_all(b"ag\x02\x01e").await.unwrap();
    assert_eq!(read(&mut visitor, 2 + close().len()).await, [b"ag", &close()[..]].concat());
    visitor.upload(ANSWER, false).await;
    let mut answer = [0; ANSWER.len()];
    service.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, ANSWER);
    service.write_all(b"\x88\x02\x03\xe9").await.unwrap();
    drop(service);
    assert_eq!(visitor.chunk().await.unwrap(), "");
    assert_eq!(daemon.under_way(), (0, 1), "until the visitor has ended as well");
    visitor.upload("", true).await;
    daemon.is_idle().await;
}

#[tokio::test]
async fn a_visitor_who_does_not_answer_has_a_second() {
    let (port, connection) = service(switch("websocket")).await;
    let daemon = Daemon::to(&port.to_string()).await;
    let mut visitor = daemon.open("GET", "/", WEBSOCKET, true);
    assert_eq!(visitor.head().await.unwrap().status, 101);
    let mut service = connection.await.unwrap();
    let began = Instant::now();
    daemon.stop();
    assert_eq!(read(&mut visitor, close().len()).await, close());
    assert_eq!(visitor.chunk().await.unwrap(), "", "it ends in order");
    assert!(began.elapsed() >= Duration::from_millis(900));
    assert_eq!(service.read(&mut [0; 1]).await.unwrap_or(0), 0, "the service sees the end");
    daemon.is_idle().await;
}

#[tokio::test]
async fn an_upgrade_that_comes_late_is_closed_at_once() {
    let (listener, port) = listen().await;
    let daemon = Daemon::to(&port.to_string()).await;
    let mut visitor = daemon.open("GET", "/", WEBSOCKET, true);
    let (mut service, _) = listener.accept().await.unwrap();
    assert_ne!(service.read(&mut [0; 4096]).await.unwrap(), 0);
    assert_eq!(daemon.under_way(), (1, 0));
    daemon.stop();
    // The exchange sees the stop before it sees the response.
    yield_now().await;
    service.write_all(switch("websocket").as_bytes()).await.unwrap();
    assert_eq!(visitor.head().await.unwrap().status, 101);
    assert_eq!(read(&mut visitor, close().len()).await, close());
}

#[tokio::test]
async fn another_protocol_is_broken_off() {
    let (port, connection) = service(switch("odd/1") + "odd").await;
    let odd = |config: &mut Config| config.upgrades = ["odd".parse().unwrap()].into_iter().collect();
    let daemon = Daemon::with(&port.to_string(), odd).await;
    let mut visitor = daemon.open("GET", "/", &[("upgrade", "odd/1")], true);
    assert_eq!(visitor.head().await.unwrap().status, 101);
    let _service = connection.await.unwrap();
    assert_eq!(read(&mut visitor, 3).await, "odd");
    daemon.stop();
    assert_eq!(visitor.chunk().await, Err(ExchangeError::Reset(ResetCode::LocalBroken)));
    daemon.is_idle().await;
}

#[tokio::test]
async fn an_event_stream_ends_in_order() {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    let (port, connection) = service(format!("{head}9\r\ndata: 0\n\n\r\n")).await;
    let daemon = Daemon::to(&port.to_string()).await;
    let mut visitor = daemon.get("/");
    assert_eq!(visitor.head().await.unwrap().status, 200);
    assert_eq!(read(&mut visitor, EVENT.len()).await, EVENT);
    assert_eq!(daemon.under_way(), (0, 1));
    daemon.stop();
    assert_eq!(visitor.chunk().await.unwrap(), "");
    daemon.is_idle().await;
    let mut service = connection.await.unwrap();
    assert_eq!(service.read(&mut [0; 1]).await.unwrap_or(0), 0, "the service sees the end");
}

#[tokio::test]
async fn an_event_stream_over_http2_ends_in_order() {
    let (listener, port) = listen().await;
    let service = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_request, mut respond) = connection.accept().await.unwrap().unwrap();
        let response = Response::builder().header("content-type", "text/event-stream").body(()).unwrap();
        let mut send = respond.send_response(response, false).unwrap();
        send.send_data(Bytes::from_static(EVENT), false).unwrap();
        tokio::select! {
            reset = std::future::poll_fn(|cx| send.poll_reset(cx)) => reset.unwrap(),
            _ = connection.accept() => panic!("the stream must end before the connection"),
        }
    });
    let daemon = Daemon::to(&format!("h2c://127.0.0.1:{port}")).await;
    let mut visitor = daemon.get("/");
    assert_eq!(visitor.head().await.unwrap().status, 200);
    assert_eq!(read(&mut visitor, EVENT.len()).await, EVENT);
    daemon.stop();
    assert_eq!(visitor.chunk().await.unwrap(), "");
    assert_eq!(tokio::time::timeout(PATIENCE, service).await.unwrap().unwrap(), h2::Reason::CANCEL);
}

#[tokio::test]
async fn other_responses_go_on() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 18\r\n\r\n";
    let (port, connection) = service(format!("{head}data: 0\n\n")).await;
    let daemon = Daemon::to(&port.to_string()).await;
    let mut visitor = daemon.get("/");
    assert_eq!(visitor.head().await.unwrap().status, 200);
    assert_eq!(read(&mut visitor, EVENT.len()).await, EVENT);
    assert_eq!(daemon.under_way(), (1, 0), "its visitor was told a length");
    daemon.stop();
    // The exchange sees the stop before the rest of the body.
    yield_now().await;
    connection.await.unwrap().write_all(EVENT).await.unwrap();
    assert_eq!(visitor.rest().await.unwrap().0.as_bytes(), EVENT);
}
