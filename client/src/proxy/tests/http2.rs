use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cok_proto::ResetCode;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response};
use rustls::pki_types::PrivateKeyDer;
use tokio::sync::{Notify, mpsc};

use super::*;

type Stream = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves HTTP/2 on every connection: `handle` for every stream.
fn serve_http2<F>(
    listener: TcpListener,
    builder: Builder,
    handle: impl Fn(Stream) -> F + Send + Sync + 'static,
) -> Arc<AtomicUsize>
where
    F: Future<Output = ()> + Send + 'static,
{
    let connections = Arc::new(AtomicUsize::new(0));
    let (count, handle) = (connections.clone(), Arc::new(handle));
    accept_all(listener, move |_, stream| {
        count.fetch_add(1, Ordering::Relaxed);
        let (builder, handle) = (builder.clone(), handle.clone());
        async move {
            let mut connection = builder.handshake(stream).await.unwrap();
            while let Some(Ok(stream)) = connection.accept().await {
                tokio::spawn(handle(stream));
            }
        }
    });
    connections
}

/// Echoes a body with a trailer.
async fn echo((request, mut respond): Stream) {
    let line = format!("{} {}", request.method(), request.uri());
    let response = Response::builder().header("x-line", line).body(()).unwrap();
    let mut body = request.into_body();
    let mut send = respond.send_response(response, false).unwrap();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        send.send_data(data, false).unwrap();
    }
    let mut trailers = body.trailers().await.ok().flatten().unwrap_or_default();
    trailers.insert("x-status", HeaderValue::from_static("0"));
    let _gone = send.send_trailers(trailers);
}

async fn h2c() -> (TcpListener, String) {
    let (listener, port) = listen().await;
    (listener, format!("h2c://127.0.0.1:{port}"))
}

#[tokio::test]
async fn the_services_own_time_is_measured() {
    const WORK: Duration = Duration::from_millis(20);
    let (listener, target) = h2c().await;
    serve_http2(listener, Builder::new(), |(_, mut respond): Stream| async move {
        tokio::time::sleep(WORK).await;
        respond.send_response(Response::new(()), true).unwrap();
    });
    let head = Daemon::to(&target).await.get("/").head().await.unwrap();
    assert!(head.first_byte.is_some_and(|time| time >= WORK), "{head:?}");
}

#[tokio::test]
async fn streams_pass_both_ways_with_trailers() {
    let (listener, target) = h2c().await;
    let connections = serve_http2(listener, Builder::new(), echo);
    let daemon = Daemon::to(&target).await;
    for _ in 0..2 {
        let mut visitor = daemon.open("POST", "/pkg.Service/Call?x", &[("te", "trailers")], false);
        for number in 0..5 {
            visitor.upload(format!("message {number}"), false).await;
            if number == 0 {
                let head = visitor.head().await.unwrap();
                assert_eq!(head.headers["x-line"], "POST http://demo.tunnel.test/pkg.Service/Call?x");
            }
            assert_eq!(visitor.chunk().await.unwrap(), format!("message {number}"));
        }
        visitor.send.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())])).unwrap();
        let (rest, trailers) = visitor.rest().await.unwrap();
        assert_eq!(
            (rest.as_str(), &trailers["x-status"], &trailers["x-sum"]),
            ("", &HeaderValue::from_static("0"), &HeaderValue::from_static("7"))
        );
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1, "the connection is shared");
}

#[tokio::test]
async fn large_bodies_pass_in_both_directions() {
    const CHUNKS: usize = 512;
    let (listener, target) = h2c().await;
    serve_http2(listener, Builder::new(), echo);
    let daemon = Daemon::to(&target).await;
    let Visitor { mut send, recv, .. } = daemon.open("POST", "/", &[], false);
    let upload = async {
        for number in 1..=CHUNKS {
            send.ready().await.unwrap();
            send.send_data(Bytes::from_static(&[b'x'; 16 * 1024]), number == CHUNKS);
        }
        std::future::pending::<()>().await;
    };
    let mut visitor = Visitor { send: daemon.get("/").send, recv, ended: false };
    let download = async {
        visitor.head().await.unwrap();
        visitor.rest().await.unwrap().0.len()
    };
    let total = tokio::select! {
        () = upload => unreachable!(),
        total = tokio::time::timeout(PATIENCE, download) => total.unwrap(),
    };
    assert_eq!(total, CHUNKS * 16 * 1024);
}

#[tokio::test]
async fn a_service_with_few_streams_gets_more_connections() {
    let (listener, target) = h2c().await;
    let mut builder = Builder::new();
    builder.max_concurrent_streams(1);
    let connections = serve_http2(listener, builder, echo);
    let daemon = Daemon::to(&target).await;
    daemon.get("/").response().await.unwrap();
    let mut visitors: Vec<_> = (0..20).map(|_| daemon.open("POST", "/", &[], false)).collect();
    for visitor in &mut visitors {
        visitor.upload("x", true).await;
    }
    for visitor in &mut visitors {
        visitor.head().await.unwrap();
        assert_eq!(visitor.rest().await.unwrap().0, "x");
    }
    assert!((2..=8).contains(&connections.load(Ordering::Relaxed)), "{connections:?}");
}

#[tokio::test]
async fn stalled_visitors_do_not_stop_others() {
    let (listener, target) = h2c().await;
    serve_http2(listener, Builder::new(), |(request, mut respond)| async move {
        if request.uri().path() == "/quick" {
            let mut send = respond.send_response(Response::new(()), false).unwrap();
            send.send_data(Bytes::from_static(b"ok"), true).unwrap();
            return;
        }
        let mut send = respond.send_response(Response::new(()), false).unwrap();
        send.send_data(Bytes::from(vec![0; 4 * 1024 * 1024]), true).unwrap();
        std::future::poll_fn(|cx| send.poll_reset(cx)).await.ok();
    });
    let daemon = Daemon::to(&target).await;
    let mut stalled: Vec<_> = (0..40).map(|_| daemon.get("/endless")).collect();
    for visitor in &mut stalled {
        visitor.head().await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(daemon.get("/quick").response().await.unwrap(), (200, "ok".to_owned()));
}

#[tokio::test]
async fn refused_streams_are_sent_again() {
    let (listener, target) = h2c().await;
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    serve_http2(listener, Builder::new(), move |(request, mut respond)| {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        async move { if first { respond.send_reset(Reason::REFUSED_STREAM) } else { echo((request, respond)).await } }
    });
    let daemon = Daemon::to(&target).await;
    assert_eq!(daemon.open("POST", "/", &[], true).response().await.unwrap().0, 200);
    assert_eq!(seen.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_closed_connection_is_replaced() {
    let (listener, port) = listen().await;
    accept_all(listener, |_, stream| async move {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        respond.send_response(Response::new(()), true).unwrap();
        connection.graceful_shutdown();
        while connection.accept().await.is_some() {}
    });
    let daemon = Daemon::to(&format!("h2c://127.0.0.1:{port}")).await;
    for _ in 0..20 {
        assert_eq!(daemon.open("POST", "/", &[], true).head().await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn visitors_and_services_learn_of_each_others_failures() {
    let (listener, target) = h2c().await;
    let (reset, mut was_reset) = mpsc::channel(1);
    let head_came = Arc::new(Notify::new());
    let may_die = head_came.clone();
    serve_http2(listener, Builder::new(), move |(request, mut respond)| {
        let (reset, may_die) = (reset.clone(), may_die.clone());
        async move {
            match request.uri().path() {
                "/dies" => {
                    let mut send = respond.send_response(Response::new(()), false).unwrap();
                    send.send_data(Bytes::from_static(b"half"), false).unwrap();
                    may_die.notified().await;
                    send.send_reset(Reason::INTERNAL_ERROR);
                }
                "/silent" => std::future::pending().await,
                _ => {
                    let mut send = respond.send_response(Response::new(()), false).unwrap();
                    let reason = std::future::poll_fn(|cx| send.poll_reset(cx)).await.unwrap();
                    reset.send(reason).await.unwrap();
                }
            }
        }
    });
    let limit = Duration::from_millis(300);
    let daemon = Daemon::with(&target, |options| options.response_timeout = Some(limit)).await;
    let mut visitor = daemon.get("/dies");
    assert_eq!(visitor.head().await.unwrap().status, 200);
    head_came.notify_one();
    assert_eq!(visitor.rest().await.unwrap_err(), ExchangeError::Reset(ResetCode::LocalBroken));
    let error = daemon.get("/silent").head().await.unwrap_err();
    assert_eq!(error, ExchangeError::Reset(ResetCode::LocalTimeout));
    let mut visitor = daemon.get("/");
    visitor.head().await.unwrap();
    drop(visitor);
    let reason = tokio::time::timeout(Duration::from_secs(1), was_reset.recv()).await.unwrap();
    assert_eq!(reason, Some(Reason::CANCEL));
}

#[tokio::test]
async fn interim_responses_pass() {
    let (listener, target) = h2c().await;
    serve_http2(listener, Builder::new(), |(request, mut respond)| async move {
        respond.send_informational(Response::builder().status(100).body(()).unwrap()).unwrap();
        echo((request, respond)).await;
    });
    let daemon = Daemon::to(&target).await;
    let mut visitor = daemon.open("PUT", "/", &[("expect", "100-continue")], false);
    assert_eq!(visitor.head().await.unwrap().status, 100);
    visitor.upload("body", true).await;
    visitor.head().await.unwrap();
    assert_eq!(visitor.rest().await.unwrap().0, "body");
}

/// A service with a certificate of its own making; it says which version of HTTP it speaks.
async fn tls_service(alpn: &[&[u8]]) -> u16 {
    let made = rcgen::generate_simple_self_signed(["elsewhere.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (listener, port) = listen().await;
    accept_all(listener, move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
                Ok::<_, std::convert::Infallible>(Response::new(format!("{:?}", request.version())))
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            let _broken = if io.inner().get_ref().1.alpn_protocol() == Some(b"h2") {
                let executor = hyper_util::rt::TokioExecutor::new();
                hyper::server::conn::http2::Builder::new(executor).serve_connection(io, service).await
            } else {
                hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
            };
        }
    });
    port
}

#[tokio::test]
async fn over_tls_both_sides_choose() {
    for (alpn, version) in
        [(&[b"h2".as_slice(), b"http/1.1"][..], "HTTP/2.0"), (&[b"http/1.1"], "HTTP/1.1"), (&[], "HTTP/1.1")]
    {
        let port = tls_service(alpn).await;
        let daemon = Daemon::to(&format!("https://localhost:{port}")).await;
        for _ in 0..3 {
            assert_eq!(daemon.get("/").response().await.unwrap(), (200, version.to_owned()));
        }
    }
}
