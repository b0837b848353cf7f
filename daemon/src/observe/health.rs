//! The daemon's health: the admin address shows it, and three paths on the base domain.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use cok_store::StoreError;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use tokio::sync::watch;

use crate::certificates::State;
use crate::drain::{Drain, Phase};
use crate::own_answers::mark;

/// The party that asks for the daemon's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A party on the admin address. It gets the reason.
    Operator,
    /// A party on the base domain. It gets no reason.
    Public,
}

/// The daemon's health.
#[derive(Debug)]
pub(crate) struct Health {
    listening: AtomicBool,
    certificate: Arc<State>,
    drain: Arc<Drain>,
    /// Why the store does not work.
    store: OnceLock<watch::Receiver<Option<StoreError>>>,
}

impl Health {
    /// The health of a daemon that does not listen yet.
    pub(crate) fn new(certificate: Arc<State>, drain: Arc<Drain>) -> Arc<Self> {
        Arc::new(Self { listening: AtomicBool::new(false), certificate, drain, store: OnceLock::new() })
    }

    /// Shows the troubles of the store.
    pub(crate) fn watch_store(&self, troubles: watch::Receiver<Option<StoreError>>) {
        let _first = self.store.set(troubles);
    }

    /// What does not work although traffic goes on.
    fn trouble(&self) -> Option<String> {
        self.store.get()?.borrow().as_ref().map(ToString::to_string)
    }

    /// Notes that the daemon listens.
    pub(crate) fn set_listening(&self) {
        self.listening.store(true, Ordering::Relaxed);
    }

    /// Why the daemon is not ready. `None` if it listens, has a valid certificate from its configured source, and does
    /// not stop.
    pub(crate) fn unready(&self) -> Option<String> {
        if !self.listening.load(Ordering::Relaxed) || self.drain.phase() >= Phase::Draining {
            return Some("the daemon is starting or stopping".to_owned());
        }
        self.certificate.trouble()
    }

    /// Answers one of the health paths; `None` for any other path.
    pub(crate) fn answer(&self, path: &str, asker: Asker) -> Option<Response<String>> {
        let unready = match path {
            "/health" if asker == Asker::Operator => {
                let trouble = self.trouble().map(|trouble| format!("trouble: {trouble}\n"));
                return Some(text(format!("ok\n{}", trouble.unwrap_or_default())));
            }
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

/// A plain-text response that must not be cached.
pub(crate) fn text(text: impl Into<String>) -> Response<String> {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    mark(response.headers_mut());
    response
}
