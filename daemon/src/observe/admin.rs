//! The admin address: health, metrics and reload.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tracing::debug;

use super::health::{Asker, Health, text};
use super::metrics::Metrics;

/// The path that reloads the configuration, by POST.
pub(crate) const RELOAD: &str = "/reload";

/// Reloads the configuration. The error has one line for each reason why nothing changed.
pub(crate) type Reload = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The parts that the admin address shows.
pub(crate) struct Admin {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    reload: Reload,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("health", &self.health).finish_non_exhaustive()
    }
}

impl Admin {
    /// Builds it from these parts.
    pub(crate) fn new(health: Arc<Health>, metrics: Arc<Metrics>, reload: Reload) -> Arc<Self> {
        Arc::new(Self { health, metrics, reload })
    }

    /// Serves one connection.
    pub(crate) async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let service = service_fn(move |request: Request<Incoming>| {
            let admin = self.clone();
            async move { Ok::<_, Infallible>(admin.answer(&request).await) }
        });
        let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        if let Err(error) = connection.await {
            debug!(%peer, %error, "admin connection ended: {error}");
        }
    }

    async fn answer(self: Arc<Self>, request: &Request<Incoming>) -> Response<String> {
        let path = request.uri().path();
        if path == RELOAD && *request.method() == Method::POST {
            return self.reload().await;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) || path == RELOAD {
            let allowed = if path == RELOAD { "POST" } else { "GET, HEAD" };
            let mut response = text(format!("allowed here: {allowed}\n"));
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return response;
        }
        if path == "/metrics" {
            let mut response = text(self.metrics.encode());
            let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            return response;
        }
        self.health.answer(path, Asker::Operator).unwrap_or_else(|| {
            let mut response = text("/metrics, /health, /health/live and /health/ready are here\n");
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        })
    }

    /// Reloads the configuration. A failure gets 409 with one line for each reason.
    async fn reload(self: Arc<Self>) -> Response<String> {
        let (status, said) = match tokio::task::spawn_blocking(move || (self.reload)()).await {
            Ok(Ok(())) => (StatusCode::OK, "reloaded\n".to_owned()),
            Ok(Err(why)) => (StatusCode::CONFLICT, format!("{why}\n")),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        };
        let mut response = text(said);
        *response.status_mut() = status;
        response
    }
}
