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

use crate::daemon::Daemon;
use crate::edge::body::Body;
use crate::{listener, service_manager};

/// Where a reload is asked for, by POST.
pub const RELOAD: &str = "/reload";

/// Whoever asks for the daemon's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// On the admin address: the reason is for them.
    Operator,
    /// On the base domain.
    Public,
}

/// Answers one of the health paths.
pub fn health(daemon: &Daemon, path: &str, asker: Asker) -> Option<Response<Body>> {
    let unready = match path {
        "/health" | "/health/live" => return Some(text_response("ok\n")),
        "/health/ready" => daemon.unready(),
        _ => return None,
    };
    let Some(why) = unready else { return Some(text_response("ready\n")) };
    let mut response = match asker {
        Asker::Operator => text_response(format!("not ready: {why}\n")),
        Asker::Public => text_response("not ready\n"),
    };
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    Some(response)
}

/// Serves the admin address until the daemon stops.
pub async fn serve(daemon: Arc<Daemon>, listener: TcpListener) {
    listener::accept(&listener, |stream, peer| {
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
    health(daemon, path, Asker::Operator).unwrap_or_else(|| {
        let mut response = text_response("/metrics, /health, /health/live and /health/ready are here\n");
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    })
}

/// Reads the configuration again; the service manager is told meanwhile, and so is whoever asked: 409 comes with a line
/// for each reason why all stays as it was.
pub async fn reload(daemon: &Arc<Daemon>) -> Response<Body> {
    if daemon.announced() {
        service_manager::reloading();
    }
    let result = {
        let daemon = daemon.clone();
        tokio::task::spawn_blocking(move || daemon.reload()).await
    };
    if daemon.announced() {
        service_manager::ready();
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
