//! The state of the served certificate, for readiness and operators.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cok_certs::dns::embedded::Embedded;
use cok_certs::files::Facts;
use cok_certs::unix_now;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The state of the certificate.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// When it expires, in seconds since 1970; 0 while only a stand-in is served.
    not_after: AtomicI64,
    /// The certificate from files or from the daemon's own authority that is served.
    facts: Mutex<Option<Facts>>,
    /// Why the files that are there now are not served.
    refused: Mutex<Option<String>>,
    /// Answers DNS queries, if the daemon does so itself.
    responder: Mutex<Option<Arc<Embedded>>>,
    /// Wakes the one who watches the certificate.
    changed: Notify,
}

impl State {
    /// Sets the expiry of the served certificate.
    pub(super) fn set_not_after(&self, not_after: i64) {
        self.not_after.store(not_after, Ordering::Relaxed);
    }

    /// When the served certificate expires. `None` while only a stand-in is served.
    pub(super) fn not_after(&self) -> Option<i64> {
        Some(self.not_after.load(Ordering::Relaxed)).filter(|not_after| *not_after != 0)
    }

    /// Sets the served certificate, which no refusal concerns any more.
    pub(super) fn set_facts(&self, facts: &Facts) {
        *self.facts.lock() = Some(facts.clone());
        *self.refused.lock() = None;
    }

    /// Sets why new files are refused.
    pub(super) fn set_refused(&self, why: String) {
        *self.refused.lock() = Some(why);
    }

    /// The served certificate, unless ACME keeps it, and why newer files are refused.
    pub(super) fn served(&self) -> (Option<Facts>, Option<String>) {
        (self.facts.lock().clone(), self.refused.lock().clone())
    }

    /// Why newer files are not served.
    pub(crate) fn refused(&self) -> Option<String> {
        self.refused.lock().clone()
    }

    /// Sets the DNS responder.
    pub(super) fn set_responder(&self, responder: Arc<Embedded>) {
        *self.responder.lock() = Some(responder);
    }

    /// Wakes the one who waits in [`State::changed`].
    pub(super) fn note_change(&self) {
        self.changed.notify_one();
    }

    /// Waits for a change of the certificate, or for an attempt that failed. One task may wait.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Why the daemon does not answer DNS queries although it should.
    pub(crate) fn dns_trouble(&self) -> Option<String> {
        self.responder.lock().as_ref().and_then(|responder| responder.refused())
    }

    /// Why visitors don't trust the daemon; `None` while its certificate is valid.
    pub(crate) fn trouble(&self) -> Option<String> {
        let not_after = self.not_after.load(Ordering::Relaxed);
        if not_after > unix_now() {
            return None;
        }
        let what = if not_after == 0 {
            "there is no certificate yet, and a self-signed one is served"
        } else {
            "the certificate has expired"
        };
        Some(self.dns_trouble().map_or_else(|| what.to_owned(), |refused| format!("{what}: {refused}")))
    }
}
