use std::sync::Arc;

use cok_proto::ResetCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Mutex, mpsc};

use super::*;

const PLAIN: &str = "HTTP/1.1 200 OK\r\nkeep-alive: timeout=5\r\ncontent-length: 5\r\n\r\nplain";

/// Responses, after some of which the service closes the connection.
const RESPONSES: &[(&str, bool)] = &[
    (PLAIN, false),
    ("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nX-A: 1\r\nx-b: \r\nX-a: ä\r\nContent-Length: 2\r\n\r\nok", false),
    ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", false),
    ("HTTP/1.1 200 Fine\r\ncontent-length: 2\r\n\r\nok", false),
    ("HTTP/1.1 200 OK\r\nconnection: x-a\r\nx-a: 1\r\ncontent-length: 2\r\n\r\nok", false),
    ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", true),
    ("HTTP/1.1 200 OK\r\nproxy-connection: close\r\nte: x\r\ncontent-length: 2\r\n\r\nok", false),
    ("HTTP/1.1 200 OK\r\n\r\nto the end", true),
    ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok", false),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok, and more", false),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n", false),
    ("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false),
    ("HTTP/1.1 204 No Content\r\n\r\n", false),
    ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", false),
    ("HTTP/1.1 200 OK\r\nx : 1\r\ncontent-length: 2\r\n\r\nok", false),
    // The service breaks a rule.
    ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", false),
    ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", false),
    ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok", true),
    ("HTTP/1.1 200 OK\r\nx y: 1\r\ncontent-length: 2\r\n\r\nok", false),
    ("HTTP/1.1 200 OK\r\ncontent-le", true),
    ("SSH-2.0-OpenSSH_9.2\r\n", false),
    ("", true),
];

/// A service that sends the response whose number is the path; `/` stands for a plain one. It reports each request's head, and
/// how many came before it on its connection.
async fn service() -> (u16, mpsc::UnboundedReceiver<(usize, String)>) {
    let (listener, port) = listen().await;
    let (came, requests) = mpsc::unbounded_channel();
    accept_all(listener, move |_, mut stream| {
        let came = came.clone();
        async move {
            for number in 0.. {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    if !stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                        return;
                    }
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).and_then(|path| path[1..].parse::<usize>().ok());
                came.send((number, head)).unwrap();
                let (response, closes) = path.map_or((PLAIN, false), |path| RESPONSES[path]);
                if stream.write_all(response.as_bytes()).await.is_err() || closes {
                    return;
                }
            }
        }
    });
    (port, requests)
}

/// All that a visitor gets.
async fn outcome(visitor: &mut Visitor) -> (Vec<String>, Result<(String, HeaderMap), ExchangeError>) {
    let mut heads = Vec::new();
    loop {
        match visitor.head().await {
            Ok(head) => {
                heads.push(format!("{} {:?} {:?}", head.status, head.reason, head.headers));
                if !head.is_interim() {
                    return (heads, visitor.rest().await);
                }
            }
            Err(error) => return (heads, Err(error)),
        }
    }
}

#[tokio::test]
async fn a_connection_that_was_used_before_answers_as_a_fresh_one_does() {
    for (number, response) in RESPONSES.iter().enumerate() {
        let (port, mut requests) = service().await;
        let fields = [("accept", "a: b"), ("cookie", "a=1"), ("cookie", "b=2"), ("x-empty", "")];
        let ask = |daemon: &Daemon| daemon.open("GET", &format!("/{number}"), &fields, true);
        let daemon = Daemon::to(&port.to_string()).await;
        let fresh = outcome(&mut ask(&daemon)).await;
        let (before, sent) = requests.recv().await.unwrap();
        assert_eq!(before, 0);
        drop(daemon);

        let daemon = Daemon::to(&port.to_string()).await;
        assert_eq!(daemon.get("/").response().await.unwrap(), (200, "plain".to_owned()));
        let used = outcome(&mut ask(&daemon)).await;
        let plain = requests.recv().await.unwrap();
        assert_eq!((plain.0, requests.recv().await.unwrap()), (0, (1, sent)), "it is the second of its connection");
        assert_eq!(format!("{used:?}"), format!("{fresh:?}"), "{response:?}");
    }
}

#[tokio::test]
async fn a_head_passes_before_its_body_has_come() {
    let (listener, port) = listen().await;
    let (send_part, parts) = mpsc::unbounded_channel::<&str>();
    let parts = Arc::new(Mutex::new(parts));
    accept_all(listener, move |_, mut stream| {
        let parts = parts.clone();
        async move {
            let mut parts = parts.lock().await;
            while let Some(part) = parts.recv().await {
                if part.starts_with("HTTP") {
                    assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
                }
                stream.write_all(part.as_bytes()).await.unwrap();
            }
        }
    });
    let daemon = Daemon::to(&port.to_string()).await;
    send_part.send(PLAIN).unwrap();
    assert_eq!(daemon.get("/").response().await.unwrap(), (200, "plain".to_owned()));
    let mut visitor = daemon.get("/");
    send_part.send("HTTP/1.1 200 OK\r\ncontent-").unwrap();
    send_part.send("length: 4\r\n\r\n").unwrap();
    assert_eq!(visitor.head().await.unwrap().status, 200);
    for part in ["bo", "dy"] {
        send_part.send(part).unwrap();
        assert_eq!(visitor.chunk().await.unwrap(), part);
    }
    assert_eq!(visitor.chunk().await.unwrap(), "");
}

#[tokio::test]
async fn a_silent_service_times_out_on_a_used_connection_too() {
    let (listener, port) = listen().await;
    accept_all(listener, |_, mut stream| async move {
        assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
        stream.write_all(PLAIN.as_bytes()).await.unwrap();
        while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
    });
    let limit = Duration::from_millis(200);
    let daemon = Daemon::with(&port.to_string(), |options| options.response_timeout = Some(limit)).await;
    assert_eq!(daemon.get("/").response().await.unwrap(), (200, "plain".to_owned()));
    assert_eq!(daemon.get("/").head().await.unwrap_err(), ExchangeError::Reset(ResetCode::LocalTimeout));
}
