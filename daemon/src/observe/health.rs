//! Whether the daemon accepts traffic: on the admin address, and the three health paths on the base domain as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};

use crate::certificates::State;
use crate::drain::{Drain, Phase};

/// Who asks for the daemon's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Somebody on the admin address, who gets the reason.
    Operator,
    /// Somebody on the base domain, who gets no reason.
    Public,
}

/// The daemon's health.
#[derive(Debug)]
pub(crate) struct Health {
    listening: AtomicBool,
    certificate: Arc<State>,
    drain: Arc<Drain>,
}

impl Health {
    /// Of a daemon that does not listen yet.
    pub(crate) fn new(certificate: Arc<State>, drain: Arc<Drain>) -> Arc<Self> {
        Arc::new(Self { listening: AtomicBool::new(false), certificate, drain })
    }

    /// Notes that the daemon listens.
    pub(crate) fn set_listening(&self) {
        self.listening.store(true, Ordering::Relaxed);
    }

    /// Why the daemon accepts no traffic, or none that visitors trust. `None` once it listens, has a valid certificate from
    /// where it should come, and does not stop.
    pub(crate) fn unready(&self) -> Option<String> {
        if !self.listening.load(Ordering::Relaxed) || self.drain.phase() >= Phase::Draining {
            return Some("the daemon is starting or stopping".to_owned());
        }
        self.certificate.trouble()
    }

    /// Answers one of the health paths; `None` for any other path.
    pub(crate) fn answer(&self, path: &str, asker: Asker) -> Option<Response<String>> {
        let unready = match path {
            "/health" | "/health/live" => return Some(text("ok\n")),
            "/health/ready" => self.unready(),
            _ => return None,
        };
        let Some(why) = unready else { return Some(text("ready\n")) };
        let mut response = match asker {
            Asker::Operator => text(format!("not ready: {why}\n")),
            Asker::Public => text("not ready\n"),
        };
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        Some(response)
    }
}

/// A plain-text response that no cache keeps.
pub(super) fn text(text: impl Into<String>) -> Response<String> {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
