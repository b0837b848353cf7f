//! Services in this process, as axum applications.

use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use axum::{Extension, Router};
use cok_proto::ResetCode;
use futures_util::stream;
use hyper_util::rt::TokioIo;
use tokio::sync::{Notify, mpsc};

use super::*;
use crate::event::Event;
use crate::service::{LocalService, VisitorAddress};
use crate::target::Target;

/// The size of each part of an endless body.
const PART: usize = 16 * 1024;

/// A daemon whose client has this service.
async fn daemon(app: Router) -> Daemon {
    Daemon::with("1", |config| {
        config.target = Target::Service(LocalService::new(app));
        config.upgrades = ["echo".parse().unwrap()].into_iter().collect();
    })
    .await
}

fn text(text: &'static str) -> Router {
    Router::new().route("/", get(move || async move { text }))
}

fn echo() -> Router {
    Router::new().route("/", any(|body: Body| async move { body }))
}

#[tokio::test]
async fn the_services_own_time_is_measured() {
    const WORK: Duration = Duration::from_millis(20);
    let slow = Router::new().route("/", get(|| async { tokio::time::sleep(WORK).await }));
    let head = daemon(slow).await.get("/").head().await.unwrap();
    assert!(head.first_byte.is_some_and(|time| time >= WORK), "{head:?}");
    // A response that comes before the end of the upload does not depend on the rest.
    let daemon = daemon(echo()).await;
    let mut visitor = daemon.open("POST", "/", &[], false);
    visitor.upload("part", false).await;
    assert_eq!(visitor.head().await.unwrap().first_byte, None);
}

#[tokio::test]
async fn a_body_comes_back_part_by_part_and_with_its_trailers() {
    let daemon = daemon(echo()).await;
    let mut visitor = daemon.open("POST", "/", &[], false);
    for number in 0..10 {
        let sent = format!("part {number}");
        visitor.upload(sent.clone(), false).await;
        if number == 0 {
            assert_eq!(visitor.head().await.unwrap().status, 200);
        }
        assert_eq!(visitor.chunk().await.unwrap(), sent);
    }
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("10"))]);
    visitor.send.send_trailers(trailers.clone()).unwrap();
    assert_eq!(visitor.rest().await.unwrap(), (String::new(), trailers));
}

#[tokio::test]
async fn a_response_announces_its_length() {
    let daemon = daemon(text("hello")).await;
    for method in ["GET", "HEAD"] {
        let mut visitor = daemon.open(method, "/", &[], true);
        let head = visitor.head().await.unwrap();
        assert_eq!((head.status.as_u16(), &head.headers["content-length"]), (200, &HeaderValue::from_static("5")));
        assert_eq!(visitor.rest().await.unwrap().0, if method == "GET" { "hello" } else { "" });
    }
}

async fn panics() -> StatusCode {
    panic!("at once")
}

#[tokio::test]
async fn a_visitor_who_asks_first_sends_only_what_the_service_wants() {
    let app = echo()
        .route("/whole", any(|body: Bytes| async move { body }))
        .route("/refused", any(|| async { StatusCode::PAYLOAD_TOO_LARGE }));
    let daemon = daemon(app).await;
    let ask = |path| daemon.open("POST", path, &[("expect", "100-continue"), ("content-length", "4")], false);
    for path in ["/", "/whole"] {
        let mut visitor = ask(path);
        assert_eq!(visitor.head().await.unwrap().status, 100, "{path}");
        visitor.upload("body", true).await;
        assert_eq!(visitor.response().await.unwrap(), (200, "body".to_owned()));
    }
    assert_eq!(ask("/refused").head().await.unwrap().status, 413);
}

#[tokio::test]
async fn a_panic_fails_only_its_own_request() {
    let go_on = Arc::new(Notify::new());
    let may_go_on = go_on.clone();
    let body = move || async move {
        let parts = stream::unfold(false, move |began| {
            let may_go_on = may_go_on.clone();
            async move {
                if began {
                    may_go_on.notified().await;
                    panic!("after the first part");
                }
                Some((Ok::<_, Infallible>("begin"), true))
            }
        });
        Body::from_stream(parts)
    };
    let app = text("alive").route("/head", get(panics)).route("/body", get(body));
    let daemon = daemon(app).await;
    assert_eq!(daemon.get("/head").head().await.unwrap_err(), ExchangeError::Reset(ResetCode::LocalBroken));
    let mut visitor = daemon.get("/body");
    assert_eq!(visitor.head().await.unwrap().status, 200);
    assert_eq!(visitor.chunk().await.unwrap(), "begin");
    go_on.notify_one();
    assert_eq!(visitor.rest().await.unwrap_err(), ExchangeError::Reset(ResetCode::LocalBroken));
    let upgrade = daemon.open("GET", "/head", &[("upgrade", "websocket")], true).head().await;
    assert_eq!(upgrade.unwrap_err(), ExchangeError::Reset(ResetCode::LocalBroken));
    assert_eq!(daemon.get("/").response().await.unwrap(), (200, "alive".to_owned()));
    daemon.is_idle().await;
}

#[tokio::test]
async fn a_request_says_who_the_visitor_is() {
    let app = Router::new()
        .route("/", get(|Extension(VisitorAddress(ip)): Extension<VisitorAddress>| async move { ip.to_string() }));
    let daemon = daemon(app).await;
    for fields in [&[("x-forwarded-for", "2001:db8::1")][..], &[("x-forwarded-for", "2001:db8::1"), ("upgrade", "x")]] {
        let mut visitor = daemon.open("GET", "/", fields, true);
        assert_eq!(visitor.response().await.unwrap().1, "2001:db8::1");
    }
}

#[tokio::test]
async fn bytes_pass_both_ways_after_an_upgrade() {
    let switch = |mut request: Request| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            tokio::io::copy(&mut reader, &mut writer).await
        });
        (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "echo")]).into_response()
    };
    let daemon = daemon(Router::new().route("/", get(switch))).await;
    let mut visitor = daemon.open("GET", "/", &[("upgrade", "echo")], true);
    let head = visitor.head().await.unwrap();
    assert_eq!((head.status.as_u16(), &head.headers["upgrade"]), (101, &HeaderValue::from_static("echo")));
    for number in 0..10 {
        visitor.upload(format!("message {number}"), false).await;
        assert_eq!(visitor.chunk().await.unwrap(), format!("message {number}"));
    }
    visitor.upload("", true).await;
    assert_eq!(visitor.chunk().await.unwrap(), "");
}

#[tokio::test]
async fn a_silent_service_times_out() {
    let app = Router::new().route("/", get(pending::<Response>));
    let daemon = Daemon::with("1", |config| {
        config.target = Target::Service(LocalService::new(app));
        config.response_timeout = Some(Duration::from_millis(100));
    })
    .await;
    assert_eq!(daemon.get("/").head().await.unwrap_err(), ExchangeError::Reset(ResetCode::LocalTimeout));
}

/// Says when it is dropped.
struct Freed(mpsc::UnboundedSender<&'static str>);

impl Drop for Freed {
    fn drop(&mut self) {
        let _gone = self.0.send("freed");
    }
}

#[tokio::test]
async fn a_visitor_who_leaves_frees_the_service() {
    let (says, mut said) = mpsc::unbounded_channel();
    let wait = move || {
        says.send("called").unwrap();
        let freed = Freed(says.clone());
        async move {
            let _freed = freed;
            pending::<Response>().await
        }
    };
    let daemon = daemon(Router::new().route("/", get(wait))).await;
    let visitor = daemon.get("/");
    assert_eq!(tokio::time::timeout(PATIENCE, said.recv()).await.unwrap(), Some("called"));
    drop(visitor);
    assert_eq!(tokio::time::timeout(PATIENCE, said.recv()).await.unwrap(), Some("freed"));
}

#[tokio::test]
async fn a_service_is_no_faster_than_its_visitor() {
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let endless = move || {
        let count = count.clone();
        async move {
            Body::from_stream(stream::repeat_with(move || {
                count.fetch_add(PART, Ordering::Relaxed);
                Ok::<_, Infallible>(Bytes::from_static(&[0; PART]))
            }))
        }
    };
    let daemon = daemon(Router::new().route("/", get(endless))).await;
    let mut visitor = daemon.get("/");
    visitor.head().await.unwrap();
    let mut read = 0;
    while read < 4 << 20 {
        read += visitor.chunk().await.unwrap().len();
        let ahead = made.load(Ordering::Relaxed).saturating_sub(read);
        // The window may grow up to the budget of the session, which is 1 MiB.
        assert!(ahead <= 2 << 20, "{ahead} bytes wait");
    }
}

#[tokio::test]
async fn those_who_listen_hear_of_requests() {
    let hub = Hub::new();
    let watch = Watch::new(hub.clone(), TunnelHandle(7));
    let daemon = Daemon::with("1", |config| {
        (config.target, config.watch) = (Target::Service(LocalService::new(text("hello"))), watch);
    })
    .await;
    daemon.get("/unheard").response().await.unwrap();
    daemon.is_idle().await;
    let mut events = hub.listen(None);
    daemon.get("/?q=1").response().await.unwrap();
    let Some(Event::RequestBegan { tunnel: TunnelHandle(7), request, method, path, query }) = events.next().await
    else {
        panic!("a request must begin")
    };
    assert_eq!((method.as_str(), path.as_str(), query.as_deref()), ("GET", "/", Some("q=1")));
    let Some(Event::RequestEnded { request: ended, status, bytes, complete, .. }) = events.next().await else {
        panic!("it must end")
    };
    assert_eq!((ended, status, bytes, complete), (request, Some(200), 5, true));
}
