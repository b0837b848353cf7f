//! Health and metrics: on the admin address, and the three health paths on the base domain as well.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tracing::debug;

use crate::daemon::Daemon;
use crate::edge::body::Body;
use crate::listener;

/// Answers one of the health paths.
pub fn health(daemon: &Daemon, path: &str) -> Option<Response<Body>> {
    let (healthy, text) = match path {
        "/health" | "/health/live" => (true, "ok\n"),
        "/health/ready" if daemon.ready() => (true, "ready\n"),
        "/health/ready" => (false, "not ready\n"),
        _ => return None,
    };
    let mut response = text_response(text);
    if !healthy {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Some(response)
}

/// Serves the admin address until the daemon stops.
pub async fn serve(daemon: Arc<Daemon>, listener: TcpListener) {
    listener::accept(&listener, |stream, peer| {
        let daemon = daemon.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answer(&daemon, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection =
                http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                debug!(%peer, %error, "admin connection ended");
            }
        });
    })
    .await;
}

fn answer(daemon: &Daemon, request: &Request<Incoming>) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text_response("only GET is answered here\n");
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        return response;
    }
    let path = request.uri().path();
    if path == "/metrics" {
        let mut response = text_response(daemon.metrics.encode());
        let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        return response;
    }
    health(daemon, path).unwrap_or_else(|| {
        let mut response = text_response("/metrics, /health, /health/live and /health/ready are here\n");
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    })
}

fn text_response(text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
