//! The JSON API beneath `/api/v1`: what `openapi.json` describes. It shows tunnels, sessions and the daemon, and acts on them.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use serde::Serialize;
use tracing::info;

use super::connection::{Body, Connection};
use super::wire::{Accepted, Failure, FailureCode, Hour, Session, Tunnel};
use super::{Admin, keys, not_allowed};
use crate::names::Subdomain;
use crate::observe::{POINT, text};

/// The path of the API. All others of it begin with it.
pub(crate) const API: &str = "/api/v1";
/// The path of all tunnels.
pub(crate) const TUNNELS: &str = "/api/v1/tunnels";
/// The path of the live changes.
pub(crate) const EVENTS: &str = "/api/v1/events";
/// The path of all sessions.
pub(crate) const SESSIONS: &str = "/api/v1/sessions";

/// The description of the API, which a test holds against its answers.
const OPENAPI: &str = include_str!("openapi.json");

/// What a path is about.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Description,
    Tunnels,
    Tunnel(String),
    Sessions,
    Session(String),
    Status,
    History,
    Events,
    Certificate,
    Renewal,
    Drain,
    Reload,
    Keys(keys::Asked),
}

impl Asked {
    /// `path` comes behind [`API`]. `None` if nothing is there.
    fn of(path: &str) -> Option<Self> {
        if let Some(asked) = keys::Asked::of(path) {
            return Some(Self::Keys(asked));
        }
        let mut segments = path.strip_prefix('/')?.split('/');
        let (first, second, third) = (segments.next()?, segments.next(), segments.next());
        Some(match (first, second, third) {
            ("openapi.json", None, _) => Self::Description,
            ("tunnels", None, _) => Self::Tunnels,
            ("tunnels", Some(name), None) => Self::Tunnel(keys::decoded(name)?),
            ("sessions", None, _) => Self::Sessions,
            ("sessions", Some(id), None) => Self::Session(keys::decoded(id)?),
            ("status", None, _) => Self::Status,
            ("history", None, _) => Self::History,
            ("events", None, _) => Self::Events,
            ("certificate", None, _) => Self::Certificate,
            ("certificate", Some("renew"), None) => Self::Renewal,
            ("drain", None, _) => Self::Drain,
            ("reload", None, _) => Self::Reload,
            _ => return None,
        })
    }

    /// The methods that it takes. Keys see to theirs themselves.
    fn methods(&self) -> Option<&'static str> {
        match self {
            Self::Keys(_) => None,
            Self::Renewal | Self::Drain | Self::Reload => Some("POST"),
            Self::Session(_) => Some("GET, HEAD, DELETE"),
            _ => Some("GET, HEAD"),
        }
    }
}

/// Answers a request to a path behind [`API`].
pub(super) async fn answer(
    admin: Arc<Admin>,
    path: &str,
    request: Request<Incoming>,
    connection: &Connection,
) -> Response<Body> {
    let Some(asked) = Asked::of(path) else {
        return failed(StatusCode::NOT_FOUND, "not_found", "there is nothing here; /api/v1/openapi.json has all paths");
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let takes = |methods: &&str| methods.split(", ").any(|method| method == request.method().as_str());
    if let Some(methods) = asked.methods().filter(|methods| !takes(methods)) {
        return not_allowed(methods).map(Body::from);
    }
    match asked {
        Asked::Description => json_text(StatusCode::OK, OPENAPI.to_owned()),
        Asked::Tunnels => show(move || admin.tunnel_list()).await,
        Asked::Tunnel(name) => admin.tunnel(&name),
        Asked::Sessions => show(move || admin.session_list()).await,
        Asked::Session(id) if reads => match admin.tunnels.session_view(&id) {
            Some(view) => json(StatusCode::OK, &Session::from(&view)),
            None => no_session(&id),
        },
        Asked::Session(id) => admin.end_session(&id),
        Asked::Status => show(move || admin.status(&admin.tunnels.views())).await,
        Asked::History => {
            json(StatusCode::OK, &Hour { seconds_per_point: POINT.as_secs(), points: admin.observers.history.points() })
        }
        Asked::Events => admin.listen(connection),
        Asked::Certificate => admin.certificate().await.map(Body::from),
        Asked::Renewal => admin.renew().await,
        Asked::Drain => admin.drain(),
        Asked::Reload => admin.reload().await.map(Body::from),
        Asked::Keys(asked) => keys::answer(&admin, &asked, request).await.map(Body::from),
    }
}

impl Admin {
    fn tunnel_list(&self) -> Vec<Tunnel> {
        let mut tunnels: Vec<_> = self.tunnels.views().iter().map(Tunnel::from).collect();
        tunnels.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        tunnels
    }

    fn session_list(&self) -> Vec<Session> {
        let mut sessions: Vec<_> = self.tunnels.session_views().iter().map(Session::from).collect();
        sessions.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        sessions
    }

    fn tunnel(&self, name: &str) -> Response<Body> {
        let view = Subdomain::parse(name).ok().and_then(|name| self.tunnels.view(&name));
        match view {
            Some(view) => json(StatusCode::OK, &Tunnel::from(&view)),
            None => failed(StatusCode::NOT_FOUND, "not_found", format!("there is no tunnel {name:?}")),
        }
    }

    fn end_session(&self, id: &str) -> Response<Body> {
        let Some(view) = self.tunnels.end_session_by_hand(id) else { return no_session(id) };
        let (key, address) = (&view.key.name, view.client.address);
        info!(event = "session_ended", session = id, %key, %address, "an operator ended session {id} of key {key}");
        json(StatusCode::OK, &Session::from(&view))
    }

    /// Asks for a new certificate.
    async fn renew(self: Arc<Self>) -> Response<Body> {
        match tokio::task::spawn_blocking(move || self.certificate.renew()).await {
            Ok(Ok(true)) => {
                info!(event = "renewal_asked", "an operator asked for a new certificate");
                accepted("asked for; the certificate shows what comes of it")
            }
            Ok(Ok(false)) => failed(
                StatusCode::CONFLICT,
                "not_acme",
                "certificates are renewed with [tls] mode = \"acme\" only; other ones are read again when they change",
            ),
            Ok(Err(error)) => failed(StatusCode::INTERNAL_SERVER_ERROR, "failed", error.to_string()),
            Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, "failed", error.to_string()),
        }
    }

    /// Stops the daemon, as SIGTERM does.
    fn drain(&self) -> Response<Body> {
        info!(event = "drain_asked", "an operator asked the daemon to stop");
        self.stop.cancel();
        accepted("the daemon stops; what runs may finish within drain_timeout")
    }

    /// Begins a stream of events.
    fn listen(&self, connection: &Connection) -> Response<Body> {
        let Some(listener) = self.feed.listen() else {
            let mut response =
                failed(StatusCode::SERVICE_UNAVAILABLE, "too_many", "too many listeners; close another page first");
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
            return response;
        };
        let progress = connection.begin_events();
        let events = stream::unfold((listener, progress), |(mut listener, progress)| async move {
            let piece: Bytes = listener.next().await?;
            progress.note();
            Some((Ok::<_, Infallible>(Frame::data(piece)), (listener, progress)))
        });
        let mut response = Response::new(UnsyncBoxBody::new(StreamBody::new(events)).into());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// Shows what takes time to collect, away from the threads of requests.
async fn show<T: Serialize>(collect: impl FnOnce() -> T + Send + 'static) -> Response<Body> {
    match tokio::task::spawn_blocking(move || serde_json::to_string(&collect())).await {
        Ok(Ok(text)) => json_text(StatusCode::OK, text + "\n"),
        Ok(Err(error)) => failed(StatusCode::INTERNAL_SERVER_ERROR, "failed", error.to_string()),
        Err(error) => failed(StatusCode::INTERNAL_SERVER_ERROR, "failed", error.to_string()),
    }
}

fn no_session(id: &str) -> Response<Body> {
    failed(StatusCode::NOT_FOUND, "not_found", format!("there is no session {id:?}"))
}

fn accepted(message: &str) -> Response<Body> {
    json(StatusCode::ACCEPTED, &Accepted { message: message.to_owned() })
}

fn failed(status: StatusCode, code: &'static str, message: impl Into<String>) -> Response<Body> {
    json(status, &Failure { error: FailureCode { code }, message: message.into() })
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    match serde_json::to_string(value) {
        Ok(text) => json_text(status, text + "\n"),
        Err(error) => json_text(StatusCode::INTERNAL_SERVER_ERROR, format!("{:?}\n", error.to_string())),
    }
}

fn json_text(status: StatusCode, json: String) -> Response<Body> {
    let mut response = text(json);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.map(Body::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_is_about_one_thing() {
        for (path, expected) in [
            ("/tunnels", Asked::Tunnels),
            ("/tunnels/a%62", Asked::Tunnel("ab".to_owned())),
            ("/sessions/1", Asked::Session("1".to_owned())),
            ("/certificate/renew", Asked::Renewal),
            ("/keys", Asked::Keys(keys::Asked::All)),
            ("/keys/a/rotate", Asked::Keys(keys::Asked::Rotation("a".to_owned()))),
        ] {
            assert_eq!(Asked::of(path), Some(expected), "{path}");
        }
        for other in
            ["", "/", "tunnels", "/tunnels/a/b", "/tunnels/%", "/status/x", "/certificate/other", "/keys/a/b/c"]
        {
            assert_eq!(Asked::of(other), None, "{other}");
        }
    }

    #[test]
    fn the_description_is_json() {
        let description: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        for path in [TUNNELS, EVENTS, SESSIONS] {
            let path = path.strip_prefix(API).unwrap();
            assert!(description["paths"].get(path).is_some(), "{path}");
        }
    }
}
