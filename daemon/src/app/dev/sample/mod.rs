//! The site behind `cokd dev` without a target. It shows what the tunnel does: how the request came, its headers, a stream of
//! events, an echo over a WebSocket, and an upload. It runs in the client, without a port, and works without JavaScript too.

mod events;
mod page;
mod socket;
mod upload;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use cok_client::{Body as RequestBody, BoxError, LocalService, Target};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use tower_service::Service;

type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What a page may load: the files of this site, and nothing that stands in the page itself.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'",
);

const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// The site. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Site {
    /// What carries the tunnel: `quic` or `ws`; empty before it is online.
    transport: Arc<Mutex<&'static str>>,
}

impl Site {
    /// The site as a tunnel's target.
    pub(super) fn target(&self) -> Target {
        Target::Service(LocalService::new(self.clone()))
    }

    /// Notes what carries the tunnel.
    pub(super) fn carried_by(&self, transport: &'static str) {
        *self.transport.lock() = transport;
    }
}

impl Service<Request<RequestBody>> for Site {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        let transport = *self.transport.lock();
        Box::pin(async move { Ok(answer(request, transport).await) })
    }
}

async fn answer(request: Request<RequestBody>, transport: &'static str) -> Response<Body> {
    let path = request.uri().path();
    let allowed = match path {
        "/echo" => "POST",
        "/upload" => "POST, PUT",
        _ => "GET, HEAD",
    };
    let mut response = if allowed.split(", ").any(|method| method == request.method().as_str()) {
        match path {
            "/" => full(StatusCode::OK, HTML, page::home(&request, transport)),
            "/style.css" => full(StatusCode::OK, "text/css; charset=utf-8", include_str!("style.css")),
            "/script.js" => full(StatusCode::OK, "text/javascript; charset=utf-8", include_str!("script.js")),
            "/icon.svg" | "/favicon.ico" => full(StatusCode::OK, "image/svg+xml", include_str!("icon.svg")),
            "/events" => with_body("text/event-stream", events::stream()),
            "/ticks" => with_body(HTML, events::page()),
            "/echo" => with_body(TEXT, request.into_body().boxed_unsync()),
            "/socket" => socket::accept(request),
            "/upload" => upload::receive(request).await,
            _ => full(
                StatusCode::NOT_FOUND,
                HTML,
                page::message("There is no such page", "The sample site has only one."),
            ),
        }
    } else {
        let mut response = full(StatusCode::METHOD_NOT_ALLOWED, TEXT, "This address knows other methods.\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        response
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn full(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = with_body(kind, Full::new(text.into()).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn with_body(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
