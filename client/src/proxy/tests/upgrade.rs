use cok_proto::ResetCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::*;

const FIELDS: &[(&str, &str)] = &[("upgrade", "websocket"), ("sec-websocket-key", "k")];

/// Answers an upgrade with 101 and a greeting in the same write, then echoes until the end.
async fn echo_service() -> u16 {
    let (listener, port) = listen().await;
    accept_all(listener, |_, mut stream| async move {
        let mut head = vec![0; 4096];
        let read = stream.read(&mut head).await.unwrap();
        let head = String::from_utf8(head[..read].to_vec()).unwrap();
        assert!(head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
        let response = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                        sec-websocket-accept: a\r\n\r\nhello";
        stream.write_all(response.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let _broken = tokio::io::copy(&mut reader, &mut writer).await;
    });
    port
}

#[tokio::test]
async fn bytes_pass_both_ways_after_a_101() {
    let port = echo_service().await;
    let daemon = Daemon::to(&port.to_string()).await;
    let mut visitor = daemon.open("GET", "/chat", FIELDS, true);
    let head = visitor.head().await.unwrap();
    assert_eq!(head.status, 101);
    assert!(!visitor.ended && head.first_byte.is_some());
    assert_eq!(
        (&head.headers["upgrade"], &head.headers["sec-websocket-accept"]),
        (&HeaderValue::from_static("websocket"), &HeaderValue::from_static("a"))
    );
    assert!(!head.headers.contains_key("connection"));
    assert_eq!(visitor.chunk().await.unwrap(), "hello");
    for number in 0..10 {
        visitor.upload(format!("message {number}"), false).await;
        assert_eq!(visitor.chunk().await.unwrap(), format!("message {number}"));
    }
    // A lot at once, both ways.
    let Visitor { mut send, mut recv, .. } = visitor;
    let upload = async move {
        for _ in 0..256 {
            send.ready().await.unwrap();
            send.send_data(Bytes::from_static(&[7; 16 * 1024]), false);
        }
        send.send_data(Bytes::new(), true);
        send
    };
    let download = async move {
        let mut total = 0;
        loop {
            match recv.recv().await.unwrap() {
                Received::Data { data, end } => {
                    total += data.len();
                    if end {
                        return total;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    };
    let (_, total) = tokio::time::timeout(PATIENCE, async { tokio::join!(upload, download) }).await.unwrap();
    assert_eq!(total, 256 * 16 * 1024, "the half-closed direction ends the echo, after all of it");
}

#[tokio::test]
async fn a_visitor_who_leaves_ends_the_connection() {
    let (listener, port) = listen().await;
    let (closed, mut is_closed) = mpsc::channel(1);
    accept_all(listener, move |_, mut stream| {
        let closed = closed.clone();
        async move {
            assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n").await.unwrap();
            while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
            closed.send(()).await.unwrap();
        }
    });
    let daemon = Daemon::to(&port.to_string()).await;
    let mut visitor = daemon.open("GET", "/", FIELDS, true);
    assert_eq!(visitor.head().await.unwrap().status, 101);
    drop(visitor);
    tokio::time::timeout(Duration::from_secs(1), is_closed.recv()).await.expect("the service must see it").unwrap();
}

#[tokio::test]
async fn another_answer_is_an_ordinary_response() {
    let (listener, port) = listen().await;
    accept_all(listener, |_, mut stream| async move {
        while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {
            stream.write_all(b"HTTP/1.1 426 No\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
        }
    });
    let daemon = Daemon::to(&port.to_string()).await;
    for _ in 0..2 {
        let mut visitor = daemon.open("GET", "/", FIELDS, true);
        assert_eq!(visitor.response().await.unwrap(), (426, "no".to_owned()));
    }
}

#[tokio::test]
async fn services_without_upgrades_say_so() {
    let (listener, port) = listen().await;
    drop(listener);
    let http2 = format!("h2c://127.0.0.1:{port}");
    for (target, code) in [(port.to_string(), ResetCode::LocalRefused), (http2, ResetCode::LocalMismatch)] {
        let daemon = Daemon::to(&target).await;
        let error = daemon.open("GET", "/", FIELDS, true).head().await.unwrap_err();
        assert_eq!(error, ExchangeError::Reset(code));
    }
}

/// A proxy that allows `tcp` besides WebSocket, in front of a service that gives this answer once it has read `request`.
async fn attaching(request: &'static str, answer: &'static str) -> Daemon {
    let (listener, port) = listen().await;
    accept_all(listener, move |_, mut stream| async move {
        let mut read = Vec::new();
        while !read.ends_with(request.as_bytes()) {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "{}", String::from_utf8_lossy(&read));
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let _broken = tokio::io::copy(&mut reader, &mut writer).await;
    });
    Daemon::with(&port.to_string(), |config| config.upgrades = ["tcp".parse().unwrap()].into_iter().collect()).await
}

const ATTACHED: &str = "HTTP/1.1 101 UPGRADED\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\n";

#[tokio::test]
async fn an_upgrade_may_have_a_body() {
    for (length, sent) in [(Some("4"), "\r\n\r\nbody"), (None, "4\r\nbody\r\n0\r\n\r\n")] {
        let daemon = attaching(sent, ATTACHED).await;
        let fields: Vec<_> = [("upgrade", "tcp")].into_iter().chain(length.map(|l| ("content-length", l))).collect();
        let mut visitor = daemon.open("POST", "/attach", &fields, false);
        visitor.upload("body".to_owned(), true).await;
        let head = visitor.head().await.unwrap();
        assert_eq!((head.status.as_u16(), &head.headers["upgrade"]), (101, &HeaderValue::from_static("tcp")));
        visitor.upload("raw bytes".to_owned(), false).await;
        assert_eq!(visitor.chunk().await.unwrap(), "raw bytes");
    }
}

#[tokio::test]
async fn what_the_owner_does_not_allow_is_an_ordinary_request() {
    for protocol in ["SPDY/3.1", "h2c", "h2c, tcp", ""] {
        let daemon = attaching("\r\n\r\nbody", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let mut visitor = daemon.open("POST", "/", &[("upgrade", protocol), ("content-length", "4")], false);
        visitor.upload("body".to_owned(), true).await;
        assert_eq!(visitor.response().await.unwrap(), (200, "ok".to_owned()), "{protocol}");
    }
}

#[tokio::test]
async fn a_switch_to_another_protocol_is_a_failure() {
    for answer in ["HTTP/1.1 101 OK\r\nupgrade: websocket\r\n\r\n", "HTTP/1.1 101 OK\r\nconnection: upgrade\r\n\r\n"] {
        let daemon = attaching("\r\n\r\n", answer).await;
        let error = daemon.open("GET", "/", &[("upgrade", "tcp")], true).head().await.unwrap_err();
        assert_eq!(error, ExchangeError::Reset(ResetCode::LocalBroken));
    }
}
