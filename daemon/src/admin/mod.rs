//! The admin API: health, metrics, the certificate, reload, keys, tunnels and sessions, and a page that shows them. It answers
//! on the admin address and on a socket in the state directory.
//!
//! Who can open the socket may do everything. The address is open to every program of the machine, and to the pages that
//! a browser there shows: [`Access`] decides what they may ask for.

mod access;
mod api;
mod connection;
mod feed;
mod keys;
mod log_level;
mod page;
mod socket;
mod status;
pub(crate) mod wire;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use cok_store::Store;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

pub(crate) use self::access::Access;
pub(crate) use self::api::{API, EVENTS, SESSIONS, TUNNELS};
pub(crate) use self::connection::Places;
use self::connection::{Body, Connection, Place};
pub(crate) use self::feed::{Feed, GONE, RESYNC, STATUS, TRAFFIC, TUNNEL};
pub(crate) use self::keys::{KEYS, path_of, record_of, rotation_of};
pub(crate) use self::log_level::{Change as LogLevelChange, LOG_LEVEL, LogLevel, Timer as LogLevelTimer};
pub(crate) use self::socket::{AdminSocket, connect, path};
pub(crate) use self::status::Identity;
use crate::admission::Admission;
use crate::certificates::Served;
use crate::drain::Drain;
use crate::exchanges::Exchanges;
use crate::observe::{Asker, Form, Health, Metrics, Observers, text};
use crate::tunnels::Tunnels;

/// The path that reloads the configuration, by POST.
pub(crate) const RELOAD: &str = "/reload";
/// The path of the certificate's status, in JSON.
pub(crate) const CERTIFICATE: &str = "/certificate";
/// The path of the daemon's health, in JSON.
pub(crate) const HEALTH: &str = "/health";

/// Settings of the admin API, which a reload changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    /// Host names and addresses by which programs may ask at the admin address, besides loopback addresses and
    /// `localhost`. Default: none. A page in a browser can ask under any name that is listed here.
    pub(crate) hosts: Vec<String>,
    /// A file with the token that changes over the admin address need, of 16 characters or more. Without one, changes are
    /// possible over the socket only.
    pub(crate) token_file: Option<PathBuf>,
}

/// Reloads the configuration. The error has one line for each reason why nothing changed.
pub(crate) type Reload = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The parts that the admin API shows and changes.
pub(crate) struct Admin {
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) observers: Arc<Observers>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) exchanges: Arc<Exchanges>,
    pub(crate) drain: Arc<Drain>,
    pub(crate) certificate: Served,
    /// Where keys are kept.
    pub(crate) store: Arc<dyn Store>,
    /// What the admin address answers. A reload changes it.
    pub(crate) access: Arc<ArcSwap<Access>>,
    pub(crate) reload: Reload,
    /// Ends changes of what is logged.
    pub(crate) log_level: Arc<LogLevelTimer>,
    /// Stops the daemon.
    pub(crate) stop: CancellationToken,
    pub(crate) identity: Identity,
    /// Live changes.
    pub(crate) feed: Feed,
    /// Connections to the admin address.
    pub(crate) places: Places,
}

/// The way by which a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// The admin address.
    Address,
    /// The socket in the state directory.
    Socket,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("health", &self.health).finish_non_exhaustive()
    }
}

impl Admin {
    /// Serves one connection to the admin address, if there is room for it.
    pub(crate) async fn serve_at_address(self: Arc<Self>, stream: TcpStream) {
        if let Some(place) = self.places.try_take() {
            self.serve(stream, Door::Address, place).await;
        }
    }

    /// Serves one connection.
    async fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin, door: Door, place: Place) {
        let answer = move |request, connection: Arc<Connection>| {
            let admin = self.clone();
            async move { admin.answer(request, door, &connection).await }
        };
        if let Err(error) = Connection::new(place).serve(stream, answer).await {
            debug!(?door, %error, "admin connection ended: {error}");
        }
    }

    /// Answers a request that may be made.
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        door: Door,
        connection: &Connection,
    ) -> Response<Body> {
        let access = self.access.load();
        if door == Door::Address
            && let Err(denied) = access.check(&request)
        {
            return access.refusal(denied).map(Body::from);
        }
        drop(access);
        let path = request.uri().path().to_owned();
        if let Some(path) = path.strip_prefix(API) {
            return api::answer(self, path, request, connection).await;
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if let Some(file) = page::file(&path).filter(|_| reads) {
            return file.map(Body::from);
        }
        self.answer_in_text(&path, request).await.map(Body::from)
    }

    /// Answers at the paths that programs and scripts of operators have always asked at.
    async fn answer_in_text(self: Arc<Self>, path: &str, request: Request<Incoming>) -> Response<String> {
        if path == RELOAD && *request.method() == Method::POST {
            return self.reload().await;
        }
        if let Some(asked) = keys::Asked::of(path) {
            return keys::answer(&self, &asked, request).await;
        }
        if path == LOG_LEVEL {
            return log_level::answer(&self, request).await;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) || path == RELOAD {
            return not_allowed(if path == RELOAD { "POST" } else { "GET, HEAD" });
        }
        if path == "/metrics" {
            let form = Form::accepted(request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()));
            return self.metrics(form).await;
        }
        if path == CERTIFICATE {
            return self.certificate().await;
        }
        self.health.answer(path, Asker::Operator).unwrap_or_else(|| {
            let mut response =
                text("/, /api/v1, /metrics, /health, /health/live, /health/ready, /certificate, /keys, /log-level and /reload are here\n");
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        })
    }

    /// Shows the metrics.
    async fn metrics(self: Arc<Self>, form: Form) -> Response<String> {
        // Some of them come from files of the kernel.
        let encoded = tokio::task::spawn_blocking(move || self.metrics.encode(form)).await;
        let mut response = text(encoded.unwrap_or_default());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
        response
    }

    /// Shows the certificate.
    async fn certificate(self: Arc<Self>) -> Response<String> {
        let read = tokio::task::spawn_blocking(move || self.certificate.status().map_err(anyhow::Error::from));
        let said = read.await.map_err(anyhow::Error::from).flatten();
        let said = said.and_then(|status| Ok(serde_json::to_string(&status)?));
        match said {
            Ok(json) => {
                let mut response = text(json + "\n");
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(error) => {
                let mut response = text(format!("{error:#}\n"));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
        }
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

fn not_allowed(allowed: &'static str) -> Response<String> {
    let mut response = text(format!("allowed here: {allowed}\n"));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
