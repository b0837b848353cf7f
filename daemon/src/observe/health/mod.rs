//! The daemon's health: the admin address shows it, and three paths on the base domain.
//!
//! Being alive means that the process runs, and ready means that visitors can use it. Components may fail meanwhile, since
//! traffic does not need them at once.

mod components;
mod looks;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use cok_store::StoreError;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub(crate) use self::components::{Component, Condition};
use self::components::{Components, Name};
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
    components: Components,
    /// Why the last attempt at a certificate failed in DNS.
    dns_failure: Mutex<Option<String>>,
    /// Free bytes for the state directory; [`UNKNOWN`] before the first look.
    disk_free: AtomicU64,
}

/// Free bytes that are not known.
const UNKNOWN: u64 = u64::MAX;

/// The health of the daemon, as operators get it in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The worst of what follows.
    pub(crate) status: Overall,
    /// Whether visitors can use the daemon.
    pub(crate) ready: bool,
    /// Why it is not ready.
    pub(crate) why: Option<String>,
    /// Each component.
    pub(crate) components: Vec<Component>,
}

/// The health of the daemon in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Overall {
    /// All is well.
    Ok,
    /// Visitors can use the daemon, but a component fails.
    Degraded,
    /// Visitors cannot use the daemon, or are about to lose it.
    Unready,
}

impl Health {
    /// The health of a daemon that does not listen yet.
    pub(crate) fn new(certificate: Arc<State>, drain: Arc<Drain>) -> Arc<Self> {
        Arc::new(Self {
            listening: AtomicBool::new(false),
            certificate,
            drain,
            store: OnceLock::new(),
            components: Components::new(),
            dns_failure: Mutex::default(),
            disk_free: AtomicU64::new(UNKNOWN),
        })
    }

    /// Shows the troubles of the store.
    pub(crate) fn watch_store(&self, troubles: watch::Receiver<Option<StoreError>>) {
        let _first = self.store.set(troubles);
    }

    /// Brings the components up to date that can be looked at without waiting.
    fn refresh(&self) {
        let certificate = self.certificate.trouble().or_else(|| self.certificate.refused());
        self.components.note(Name::Certificate, certificate);
        let dns = self.certificate.dns_trouble().or_else(|| self.dns_failure.lock().clone());
        self.components.note(Name::Dns, dns);
        let store = self.store.get().and_then(|store| store.borrow().as_ref().map(ToString::to_string));
        self.components.note(Name::Store, store);
    }

    /// The health of the daemon at this moment.
    pub(crate) fn report(&self) -> Report {
        self.refresh();
        let (why, components) = (self.unready(), self.components.all());
        let works = components.iter().all(|component| component.state == Condition::Ok);
        let status = match (&why, works) {
            (Some(_), _) => Overall::Unready,
            (None, false) => Overall::Degraded,
            (None, true) => Overall::Ok,
        };
        Report { status, ready: why.is_none(), why, components }
    }

    /// Which components work.
    pub(crate) fn working(&self) -> Vec<(&'static str, bool)> {
        self.refresh();
        self.components.working()
    }

    /// Free bytes for the state directory, if they are known.
    pub(crate) fn disk_free(&self) -> Option<u64> {
        let free = self.disk_free.load(Ordering::Relaxed);
        (free != UNKNOWN).then_some(free)
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
            "/health" if asker == Asker::Operator => return Some(json(&self.report())),
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

/// The answer in JSON. It is 200 whatever it says: the process lives.
fn json(report: &Report) -> Response<String> {
    // A report always has a JSON form.
    let mut response = text(serde_json::to_string(report).unwrap_or_default() + "\n");
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A plain-text response that must not be cached.
pub(crate) fn text(text: impl Into<String>) -> Response<String> {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    mark(response.headers_mut());
    response
}
