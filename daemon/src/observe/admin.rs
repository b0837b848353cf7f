//! Health, metrics and reload: on the admin address, and the three health paths on the base domain as well.

use std::convert::Infallible;
use std::sync::Arc;

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tracing::{debug, error, info};

use crate::app::Daemon;
use crate::edge::body::Body;
use crate::host::notify;
use crate::listen::tcp;

/// Where a reload is asked for, by POST.
pub(crate) const RELOAD: &str = "/reload";

/// Answers one of the health paths.
pub(crate) fn health(daemon: &Daemon, path: &str) -> Option<Response<Body>> {
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
pub(crate) async fn serve(daemon: Arc<Daemon>, listener: TcpListener) {
    tcp::accept(&listener, |stream, peer| {
        let daemon = daemon.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let daemon = daemon.clone();
                async move { Ok::<_, Infallible>(answer(&daemon, &request).await) }
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

async fn answer(daemon: &Arc<Daemon>, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    if path == RELOAD && *request.method() == Method::POST {
        return reload(daemon).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) || path == RELOAD {
        let allowed = if path == RELOAD { "POST" } else { "GET, HEAD" };
        let mut response = text_response(format!("allowed here: {allowed}\n"));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return response;
    }
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

/// Reads the configuration again; the service manager is told meanwhile, and so is whoever asked: 409 comes with a line
/// for each reason why all stays as it was.
pub(crate) async fn reload(daemon: &Arc<Daemon>) -> Response<Body> {
    if daemon.announced() {
        notify::reloading();
    }
    let result = {
        let daemon = daemon.clone();
        tokio::task::spawn_blocking(move || daemon.reload()).await
    };
    if daemon.announced() {
        notify::ready();
    }
    let (status, text) = match result {
        Ok(Ok(())) => {
            info!(event = "reloaded", "the configuration was read again");
            (StatusCode::OK, "reloaded\n".to_owned())
        }
        Ok(Err(error)) => {
            for line in error.to_string().lines() {
                error!(event = "not_reloaded", reason = line, "{line}; the configuration stays as it was");
            }
            (StatusCode::CONFLICT, format!("{error}\n"))
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    };
    let mut response = text_response(text);
    *response.status_mut() = status;
    response
}

fn text_response(text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
