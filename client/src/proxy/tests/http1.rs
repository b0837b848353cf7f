use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cok_proto::ResetCode;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};

use super::*;

type Body = BoxBody<Bytes, hyper::Error>;

fn text(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// What a service sees of a request, or the request's body back again.
async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        "/echo" => Response::new(request.into_body().boxed()),
        "/204" => {
            let mut response = Response::new(text(""));
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        _ => {
            let line = format!("{} {} {:?}", request.method(), request.uri(), request.headers().get("host").unwrap());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut response = Response::new(text(format!("{line} {}", body.len())));
            response.headers_mut().insert("keep-alive", HeaderValue::from_static("timeout=5"));
            response.headers_mut().append("set-cookie", HeaderValue::from_static("a=1"));
            response.headers_mut().append("set-cookie", HeaderValue::from_bytes(b"b=\xe4").unwrap());
            response
        }
    })
}

/// A real HTTP/1.1 service; its port, and how many connections it has had.
async fn service() -> (u16, Arc<AtomicUsize>) {
    let (listener, port) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    accept_all(listener, move |_, stream| {
        count.fetch_add(1, Ordering::Relaxed);
        async move {
            let _broken = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
        }
    });
    (port, connections)
}

/// Reads a request's head (and whatever else has come with it).
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    while !read.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
    Some(String::from_utf8(read).unwrap())
}

#[tokio::test]
async fn requests_and_responses_pass_unchanged() {
    let (port, connections) = service().await;
    let daemon = Daemon::to(&port.to_string()).await;
    let mut visitor = daemon.open("GET", "/a%2Fb//../%C3%A4?q=%20|&x", &[("x-odd", "1")], true);
    let head = visitor.head().await.unwrap();
    assert_eq!(head.status, 200);
    assert!(!head.headers.contains_key("keep-alive"));
    let cookies: Vec<_> = head.headers.get_all("set-cookie").iter().map(HeaderValue::as_bytes).collect();
    assert_eq!(cookies, [&b"a=1"[..], b"b=\xe4"]);
    assert_eq!(visitor.rest().await.unwrap().0, "GET /a%2Fb//../%C3%A4?q=%20|&x \"demo.tunnel.test\" 0");

    let mut visitor = daemon.open("HEAD", "/", &[], true);
    let head = visitor.head().await.unwrap();
    assert!(visitor.ended, "a response to HEAD has no body");
    assert_ne!(head.headers["content-length"], "0");

    let mut visitor = daemon.get("/204");
    assert_eq!(visitor.head().await.unwrap().status, 204);
    assert!(visitor.ended);

    let mut visitor = daemon.open("OPTIONS", "*", &[], true);
    assert_eq!(visitor.response().await.unwrap(), (200, "OPTIONS * \"demo.tunnel.test\" 0".to_owned()));
    // It rests for a moment after each response that has no body by rule.
    assert!(connections.load(Ordering::Relaxed) <= 3, "the connection is used again");
}

#[tokio::test]
async fn the_host_is_rewritten_on_request() {
    let (port, _) = service().await;
    let daemon = Daemon::with(&port.to_string(), |options| options.host_header = HostHeader::Rewrite).await;
    assert_eq!(daemon.get("/").response().await.unwrap().1, format!("GET / \"localhost:{port}\" 0"));
    let host = "other.test:8".parse::<HostHeader>().unwrap();
    let daemon = Daemon::with(&port.to_string(), |options| options.host_header = host).await;
    assert_eq!(daemon.get("/").response().await.unwrap().1, "GET / \"other.test:8\" 0");
}

#[tokio::test]
async fn a_body_comes_back_chunk_by_chunk() {
    let (port, _) = service().await;
    let daemon = Daemon::to(&port.to_string()).await;
    let mut visitor = daemon.open("POST", "/echo", &[], false);
    for number in 0..10 {
        let sent = format!("chunk {number}");
        visitor.upload(sent.clone(), false).await;
        if number == 0 {
            assert_eq!(visitor.head().await.unwrap().status, 200);
        }
        // The next one is only sent once this one is back.
        assert_eq!(visitor.chunk().await.unwrap(), sent);
    }
    visitor.upload("", true).await;
    assert_eq!(visitor.chunk().await.unwrap(), "");
}

#[tokio::test]
async fn every_method_may_have_a_body() {
    let (port, connections) = service().await;
    let daemon = Daemon::to(&port.to_string()).await;
    for method in ["GET", "POST", "DELETE"] {
        for fields in [&[][..], &[("content-length", "5")]] {
            let mut visitor = daemon.open(method, "/", fields, false);
            visitor.upload("hello", true).await;
            let (_, body) = visitor.response().await.unwrap();
            assert_eq!(body, format!("{method} / \"demo.tunnel.test\" 5"));
        }
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_early_response_stops_the_upload() {
    let (listener, port) = listen().await;
    accept_all(listener, |_, mut stream| async move {
        read_head(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
        // It never reads the body; closing is the client's part.
        while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
    });
    let daemon = Daemon::to(&port.to_string()).await;
    let mut visitor = daemon.open("POST", "/", &[], false);
    visitor.upload("begin", false).await;
    assert_eq!(visitor.response().await.unwrap(), (413, "no".to_owned()));
    let stopped = tokio::time::timeout(PATIENCE, async {
        loop {
            match visitor.send.ready().await {
                Ok(()) => visitor.send.send_data(Bytes::from_static(&[0; 8192]), false),
                Err(error) => return error,
            }
        }
    });
    assert_eq!(stopped.await.unwrap(), ExchangeError::Reset(ResetCode::NoError));
}

#[tokio::test]
async fn an_upload_goes_on_while_the_visitor_reads_nothing() {
    const UPLOAD: usize = 4 * 1024 * 1024;
    let (listener, port) = listen().await;
    let (done, mut is_done) = mpsc::channel(1);
    accept_all(listener, move |_, stream| {
        let done = done.clone();
        async move {
            let (mut reader, mut writer) = stream.into_split();
            tokio::spawn(async move {
                let _full = writer.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                while writer.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
            });
            let mut read = 0;
            while read < UPLOAD {
                read += reader.read(&mut [0; 8 * 1024]).await.unwrap();
            }
            done.send(()).await.unwrap();
        }
    });
    let daemon = Daemon::to(&port.to_string()).await;
    let mut visitor = daemon.open("POST", "/", &[("content-length", &UPLOAD.to_string())], false);
    visitor.upload("x", false).await;
    assert_eq!(visitor.head().await.unwrap().status, 200);
    for sent in 1..=UPLOAD / 8192 {
        visitor.upload(vec![0; 8192], sent == UPLOAD / 8192).await;
    }
    tokio::time::timeout(PATIENCE, is_done.recv()).await.expect("the whole upload must arrive").unwrap();
}

#[tokio::test]
async fn a_service_that_dies_is_not_a_success() {
    let (listener, port) = listen().await;
    let die = Arc::new(Notify::new());
    let to_die = die.clone();
    accept_all(listener, move |_, mut stream| {
        let to_die = to_die.clone();
        async move {
            let head = read_head(&mut stream).await.unwrap();
            if head.contains("/body") {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
                to_die.notified().await;
            } else if head.contains("/nonsense") {
                stream.write_all(b"what?\r\n\r\n").await.unwrap();
            } else if head.contains("/switch") {
                stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n").await.unwrap();
            }
        }
    });
    let daemon = Daemon::to(&port.to_string()).await;
    let mut visitor = daemon.get("/body");
    assert_eq!(visitor.head().await.unwrap().status, 200);
    assert_eq!(visitor.chunk().await.unwrap(), "half");
    die.notify_one();
    assert_eq!(visitor.rest().await.unwrap_err(), ExchangeError::Reset(ResetCode::LocalBroken));
    for (target, code) in
        [("/head", ResetCode::LocalBroken), ("/nonsense", ResetCode::LocalInvalid), ("/switch", ResetCode::LocalBroken)]
    {
        assert_eq!(daemon.get(target).head().await.unwrap_err(), ExchangeError::Reset(code));
    }
}

#[tokio::test]
async fn no_service_is_refused() {
    let (listener, port) = listen().await;
    drop(listener);
    for target in [port.to_string(), "unix:/nowhere/at/all.sock".to_owned(), format!("h2c://127.0.0.1:{port}")] {
        let daemon = Daemon::to(&target).await;
        assert_eq!(daemon.get("/").head().await.unwrap_err(), ExchangeError::Reset(ResetCode::LocalRefused));
    }
}

#[tokio::test]
async fn a_silent_service_times_out() {
    let (listener, port) = listen().await;
    accept_all(listener, |_, mut stream| async move {
        while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
    });
    let limit = Duration::from_millis(200);
    let daemon = Daemon::with(&port.to_string(), |options| options.response_timeout = Some(limit)).await;
    assert_eq!(daemon.get("/").head().await.unwrap_err(), ExchangeError::Reset(ResetCode::LocalTimeout));
    // The daemon sends the body soon, whether the service sends a 100 or not.
    let mut expecting = daemon.open("POST", "/", &[("expect", "100-continue")], false);
    assert!(tokio::time::timeout(limit * 2, expecting.recv.recv()).await.is_err());
    expecting.upload("body", true).await;
    assert_eq!(expecting.head().await.unwrap_err(), ExchangeError::Reset(ResetCode::LocalTimeout));
    // A visitor who takes long to send is not the service's fault.
    let mut visitor = daemon.open("POST", "/", &[], false);
    for _ in 0..5 {
        visitor.upload("slowly", false).await;
        assert!(tokio::time::timeout(limit, visitor.recv.recv()).await.is_err());
    }
    visitor.upload("", true).await;
    assert_eq!(visitor.head().await.unwrap_err(), ExchangeError::Reset(ResetCode::LocalTimeout));
}

#[tokio::test]
async fn a_visitor_who_leaves_frees_the_service() {
    let (listener, port) = listen().await;
    let (came, mut has_come) = mpsc::channel(1);
    let (closed, mut is_closed) = mpsc::channel(1);
    accept_all(listener, move |_, mut stream| {
        let (came, closed) = (came.clone(), closed.clone());
        async move {
            let head = read_head(&mut stream).await.unwrap();
            came.send(()).await.unwrap();
            if head.contains("/body") {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegin").await.unwrap();
            }
            while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
            closed.send(()).await.unwrap();
        }
    });
    let daemon = Daemon::to(&port.to_string()).await;
    for target in ["/head", "/body"] {
        let mut visitor = daemon.get(target);
        tokio::time::timeout(PATIENCE, has_come.recv()).await.expect("the request must come").unwrap();
        if target == "/body" {
            visitor.head().await.unwrap();
            assert_eq!(visitor.chunk().await.unwrap(), "begin");
        }
        drop(visitor);
        tokio::time::timeout(Duration::from_secs(1), is_closed.recv()).await.expect("the service must see it").unwrap();
    }
}

#[tokio::test]
async fn interim_responses_pass() {
    let (listener, port) = listen().await;
    accept_all(listener, |_, mut stream| async move {
        let head = read_head(&mut stream).await.unwrap();
        assert!(head.contains("expect: 100-continue") && !head.contains("body"));
        let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
        stream.write_all(interim.as_bytes()).await.unwrap();
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"body");
        // Far more of them than the protocol lets pass.
        for _ in 0..50 {
            stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone").await.unwrap();
        while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
    });
    let daemon = Daemon::to(&port.to_string()).await;
    let mut visitor = daemon.open("PUT", "/", &[("expect", "100-continue"), ("content-length", "4")], false);
    let hints = visitor.head().await.unwrap();
    assert_eq!((hints.status.as_u16(), hints.headers["link"].as_bytes()), (103, &b"</a.css>"[..]));
    assert_eq!(visitor.head().await.unwrap().status, 100);
    visitor.upload("body", true).await;
    loop {
        let head = visitor.head().await.unwrap();
        if !head.is_interim() {
            assert_eq!(head.status, 200);
            break;
        }
    }
    assert_eq!(visitor.rest().await.unwrap().0, "done");
}

/// A service that answers once on each connection; the next request there is read and then met by a close.
async fn closing_service() -> (u16, Arc<AtomicUsize>) {
    let (listener, port) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    accept_all(listener, move |_, mut stream| {
        count.fetch_add(1, Ordering::Relaxed);
        async move {
            read_head(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            read_head(&mut stream).await;
        }
    });
    (port, connections)
}

#[tokio::test]
async fn a_stale_connection_is_replaced_if_that_is_safe() {
    let (port, connections) = closing_service().await;
    let daemon = Daemon::to(&port.to_string()).await;
    for _ in 0..5 {
        assert_eq!(daemon.get("/").response().await.unwrap(), (200, "ok".to_owned()));
    }
    assert_eq!(connections.load(Ordering::Relaxed), 5);
    // A POST may have been acted upon.
    let error = daemon.open("POST", "/", &[], true).response().await.unwrap_err();
    assert_eq!(error, ExchangeError::Reset(ResetCode::LocalBroken));
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_not_used() {
    let (listener, port) = listen().await;
    let (closed, mut is_closed) = mpsc::channel(10);
    accept_all(listener, move |_, mut stream| {
        let closed = closed.clone();
        async move {
            read_head(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            drop(stream);
            closed.send(()).await.unwrap();
        }
    });
    let daemon = Daemon::to(&port.to_string()).await;
    for _ in 0..5 {
        assert_eq!(daemon.open("POST", "/", &[], true).response().await.unwrap(), (200, "ok".to_owned()));
        is_closed.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_request_is_sent_again_as_it_was() {
    let (listener, port) = listen().await;
    let (came, mut requests) = mpsc::channel(10);
    accept_all(listener, move |number, mut stream| {
        let came = came.clone();
        async move {
            while let Some(head) = read_head(&mut stream).await {
                came.send(head.clone()).await.unwrap();
                // The first connection ends with its second request unanswered.
                if number == 0 && !head.starts_with("GET /first ") {
                    return;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
        }
    });
    let daemon = Daemon::to(&port.to_string()).await;
    assert_eq!(daemon.get("/first").response().await.unwrap(), (200, "ok".to_owned()));
    requests.recv().await.unwrap();
    let long = "x".repeat(3000);
    let fields = [("accept", "a: b"), ("x-empty", ""), ("cookie", "a=1"), ("x-long", &long), ("cookie", "b=2")];
    let mut visitor = daemon.open("DELETE", "/%C3%A4?q=1", &fields, true);
    assert_eq!(visitor.response().await.unwrap(), (200, "ok".to_owned()));
    let (first, second) = (requests.recv().await.unwrap(), requests.recv().await.unwrap());
    assert_eq!(first, second);
    assert!(first.starts_with("DELETE /%C3%A4?q=1 HTTP/1.1\r\naccept: a: b\r\nx-empty: \r\n"), "{first}");
    assert!(first.contains("\r\ncookie: a=1\r\ncookie: b=2\r\n") && first.contains(&long), "{first}");
}

#[tokio::test]
async fn heads_are_carried_up_to_the_protocols_limit() {
    let (listener, port) = listen().await;
    accept_all(listener, |_, mut stream| async move {
        let head = read_head(&mut stream).await.unwrap();
        let size: usize = head[5..].split(' ').next().unwrap().parse().unwrap();
        // A field's length is 16 bits, so that it takes several.
        let value = "x".repeat(990);
        let fields = (0..size / 1000).fold(String::new(), |fields, n| {
            format!(
                "{fields}x-{n}: {value}
"
            )
        });
        let response = format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\nok");
        let _closed = stream.write_all(response.as_bytes()).await;
        read_head(&mut stream).await;
    });
    let daemon = Daemon::to(&port.to_string()).await;
    assert_eq!(daemon.get("/60000").response().await.unwrap(), (200, "ok".to_owned()));
    for target in ["/70000", "/99000"] {
        let error = daemon.get(target).response().await.unwrap_err();
        assert_eq!(error, ExchangeError::Reset(ResetCode::TooLarge), "{target}");
    }
}

#[tokio::test]
async fn unix_sockets_serve_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(answer);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let daemon = Daemon::to(&format!("unix:{}", path.display())).await;
    assert_eq!(daemon.get("/").response().await.unwrap().1, "GET / \"demo.tunnel.test\" 0");
}

#[tokio::test]
async fn chunked_responses_bring_their_trailers() {
    let (listener, port) = listen().await;
    accept_all(listener, |_, mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            let response = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                            2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    });
    let daemon = Daemon::to(&port.to_string()).await;
    for _ in 0..2 {
        let mut visitor = daemon.open("GET", "/", &[("te", "trailers")], true);
        let head = visitor.head().await.unwrap();
        assert_eq!(head.headers["trailer"], "x-sum");
        assert!(!head.headers.contains_key("transfer-encoding"));
        let (body, trailers) = visitor.rest().await.unwrap();
        assert_eq!((body.as_str(), trailers["x-sum"].as_bytes()), ("ok", &b"7"[..]));
    }
}
