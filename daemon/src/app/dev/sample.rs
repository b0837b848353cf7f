//! The site behind `cokd dev` without a target: a page with an image, a stream of events, and an echo.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cok_client::Target;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::Interval;
use tracing::debug;

/// The interval between events of the sample stream.
const TICK: Duration = Duration::from_secs(1);

const PAGE: &str = r#"<!doctype html>
<html lang="en"><meta charset="utf-8"><title>cok</title>
<style>body{font:1.1em/1.5 system-ui,sans-serif;max-width:34em;margin:12vh auto;padding:0 1em}</style>
<img src="/logo.svg" width="96" height="96" alt="two ends of a tunnel">
<h1>It works</h1>
<p>This page came through a tunnel from a small server inside <code>cokd dev</code>.
Events from it: <b id="tick">none yet</b>.</p>
<p>Start <code>cokd dev 3000</code> to see your own service on port 3000 here.</p>
<script>
new EventSource("/events").onmessage = event => document.getElementById("tick").textContent = event.data;
</script>
</html>
"#;

const LOGO: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96"><path d="M8 76a40 40 0 0 1 80 0z"
fill="#246"/><path d="M26 76a22 22 0 0 1 44 0z" fill="#fc6"/></svg>
"##;

/// Starts the site on a free port of this machine.
pub(super) async fn start() -> anyhow::Result<Target> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let target = format!("http://{}", listener.local_addr()?).parse()?;
    tokio::spawn(crate::listen::accept(listener, |stream, peer| {
        tokio::spawn(async move {
            let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(request)) });
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                debug!(%peer, %error, "connection to the sample site ended");
            }
        });
    }));
    Ok(target)
}

fn answer(request: Request<Incoming>) -> Response<BoxBody<Bytes, hyper::Error>> {
    let full =
        |text: &'static str| Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed();
    let (status, kind, body) = match request.uri().path() {
        "/" => (StatusCode::OK, "text/html; charset=utf-8", full(PAGE)),
        "/logo.svg" => (StatusCode::OK, "image/svg+xml", full(LOGO)),
        "/events" => {
            let ticks = Ticks { interval: tokio::time::interval(TICK), count: 0 };
            (StatusCode::OK, "text/event-stream", ticks.boxed())
        }
        "/echo" => (StatusCode::OK, "application/octet-stream", request.into_body().boxed()),
        _ => (StatusCode::NOT_FOUND, "text/plain; charset=utf-8", full("The sample site has no such page.\n")),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A server-sent event every [`TICK`], for as long as the client listens.
struct Ticks {
    interval: Interval,
    count: u64,
}

impl Body for Ticks {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.interval.poll_tick(cx).map(|_| {
            self.count += 1;
            Some(Ok(Frame::data(Bytes::from(format!("data: {}\n\n", self.count)))))
        })
    }
}
