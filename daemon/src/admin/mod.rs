//! The admin API: health, metrics, the certificate, reload and keys. It answers on the admin address and on a socket in the state directory.
//!
//! Who can open the socket may do everything. The address is open to every program of the machine, and to the pages that
//! a browser there shows: [`Access`] decides what they may ask for.

mod access;
mod keys;
mod log_level;
mod socket;

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cok_store::Store;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

pub(crate) use self::access::Access;
pub(crate) use self::keys::{KEYS, path_of, record_of, rotation_of};
pub(crate) use self::log_level::{Change as LogLevelChange, LOG_LEVEL, LogLevel, Timer as LogLevelTimer};
pub(crate) use self::socket::{AdminSocket, connect, path};
use crate::admission::Admission;
use crate::certificates::Served;
use crate::observe::{Asker, Form, Health, Metrics, text};

/// The path that reloads the configuration, by POST.
pub(crate) const RELOAD: &str = "/reload";
/// The path of the certificate's status, in JSON.
pub(crate) const CERTIFICATE: &str = "/certificate";
/// The path of the daemon's health, in JSON.
pub(crate) const HEALTH: &str = "/health";

/// How long a request head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest request head, in bytes.
const LONGEST_HEAD: usize = 16 * 1024;
/// How long a connection may last. A program that asks again connects again.
const LIFETIME: Duration = Duration::from_secs(300);
/// The most connections at once, through each door. Further ones wait at the socket, and are closed at the address.
const MAX_CONNECTIONS: usize = 64;

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
    pub(crate) admission: Arc<Admission>,
    pub(crate) certificate: Served,
    /// Where keys are kept.
    pub(crate) store: Arc<dyn Store>,
    /// What the admin address answers. A reload changes it.
    pub(crate) access: Arc<ArcSwap<Access>>,
    pub(crate) reload: Reload,
    /// Ends changes of what is logged.
    pub(crate) log_level: Arc<LogLevelTimer>,
    /// Connections to the admin address.
    pub(crate) places: Places,
}

/// Room for connections through one door.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_CONNECTIONS)))
    }
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
        if let Ok(_place) = self.places.0.clone().try_acquire_owned() {
            self.serve(stream, Door::Address).await;
        }
    }

    /// Serves one connection.
    async fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin, door: Door) {
        let service = service_fn(move |request: Request<Incoming>| {
            let admin = self.clone();
            async move { Ok::<_, Infallible>(admin.answer(request, door).await) }
        });
        let mut builder = http1::Builder::new();
        let builder = builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(LONGEST_HEAD)
            .max_header_size(LONGEST_HEAD);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let served = if let Ok(served) = timeout(LIFETIME, connection.as_mut()).await {
            served
        } else {
            connection.as_mut().graceful_shutdown();
            timeout(HEAD_TIMEOUT, connection).await.unwrap_or(Ok(()))
        };
        if let Err(error) = served {
            debug!(?door, %error, "admin connection ended: {error}");
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, door: Door) -> Response<String> {
        let access = self.access.load();
        if door == Door::Address
            && let Err(denied) = access.check(&request)
        {
            return access.refusal(denied);
        }
        drop(access);
        let path = request.uri().path();
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
                text("/metrics, /health, /health/live, /health/ready, /certificate, /keys, /log-level and /reload are here\n");
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
