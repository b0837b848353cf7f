//! The loop that keeps one certificate fresh: it waits for the store's lock, and then for each next attempt.
//!
//! `attempt` has the steps of an attempt, and `plan` computes when it is due.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::event::Event;
use super::http;
use super::ledger::Ledger;
use super::order::Issued;
use super::plan;
use super::requested::{Requested, is_news, requested};
use super::settings::Settings;
use super::state::State;
use super::validity::Validity;
use crate::clock::unix_now;
use crate::dns::{Solver, SolverError};
use crate::error::Error;
use crate::resolver::CertResolver;
use crate::store::{Store, Stored, on_disk};

/// Interval at which an operator's requests and another process's lock are checked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Interval at which a process without the lock looks for a newer certificate.
const LOAD_EVERY: Duration = Duration::from_secs(60);
/// Interval at which an error of the lock is logged.
const COMPLAIN_EVERY: Duration = Duration::from_secs(3600);

/// Keeps one certificate fresh.
pub struct Renewer {
    pub(super) settings: Settings,
    pub(super) names: Vec<String>,
    pub(super) store: Arc<Store>,
    solver: Arc<dyn Solver>,
    pub(super) client: http::Client,
    pub(super) state: State,
    pub(super) current: Option<Stored>,
    pub(super) unsaved: Option<(Arc<Issued>, i64)>,
    /// The operator's requests at the last check; `None` before the first.
    seen: Option<Requested>,
}

impl Renewer {
    /// A renewer for `names` that keeps its files in `store`. It sends nothing to the server yet.
    pub fn new(settings: Settings, names: &[&str], store: Store, solver: Arc<dyn Solver>) -> Result<Self, Error> {
        let client = http::Client::new(settings.ca_file.as_deref())?;
        let current = store.load(names)?;
        let (names, store) = (names.iter().map(|name| (*name).to_owned()).collect(), Arc::new(store));
        let state = State::default();
        Ok(Self { settings, names, store, solver, client, state, current, unsaved: None, seen: None })
    }

    /// The certificate of the store, if there is one.
    pub fn current(&self) -> Option<&Stored> {
        self.current.as_ref()
    }

    /// Renews without end. A failure is logged, shown by `cert status`, and tried again.
    pub async fn run(mut self, resolver: Arc<CertResolver>, report: impl Fn(Event)) {
        self.wait_for_lock(&resolver, &report).await;
        match on_disk(&self.store, |store| store.read_json("state.json")).await {
            Ok(state) => self.state = state.unwrap_or_else(|| State { lot: fastrand::f64(), ..State::default() }),
            Err(error) => warn!(%error, "the state of renewal cannot be read: {error}"),
        }
        let purpose = format!("{} {}", self.names.join(" "), self.settings.fingerprint);
        if self.state.is_meant_for(&purpose) {
            self.keep_state().await;
        }
        // Another process may have renewed while this one waited. Damaged files are set aside only now, under the lock.
        if let Some(stored) = self.load().await {
            self.serve(stored, &resolver, &report);
        }
        let now = unix_now();
        let wait = self.due(now, false).saturating_sub(now);
        if wait > 0 && (self.state.failures > 0 || self.current.is_none()) {
            info!(
                event = "waiting",
                next_try_in_seconds = wait,
                "no certificate is ordered for {wait} s, since the last attempt was a short time ago"
            );
        }
        let ledger = {
            let (solver, store) = (self.solver.clone(), self.store.clone());
            on_disk(&self.store, move |_| Ledger::new(solver, store, purpose)).await
        };
        ledger.clean_up().await;
        loop {
            let now = unix_now();
            self.save_again(now).await;
            let requested = on_disk(&self.store, requested).await;
            let asked = is_news(requested, self.seen, now, self.state.tried_at);
            self.seen = Some(requested);
            if asked || self.due(now, requested != [None; 2]) <= now {
                match self.solver.ready() {
                    Ok(()) => self.attempt(now, requested, &ledger, &resolver, &report).await,
                    Err(why) => self.hold(&why).await,
                }
            } else {
                self.ask_for_window(now).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits for the lock. Certificates that its holder saves in the meantime are served here, too.
    async fn wait_for_lock(&mut self, resolver: &CertResolver, report: &impl Fn(Event)) {
        let (mut waits, mut complained, mut loaded) = (false, None::<Instant>, Instant::now());
        loop {
            match on_disk(&self.store, Store::try_lock).await {
                Ok(true) => return,
                Ok(false) if waits => {}
                Ok(false) => {
                    waits = true;
                    info!("another process renews the certificate in the same state directory; waiting for it to end");
                }
                // Nothing is renewed until an operator repairs this.
                Err(error) if complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) => {
                    complained = Some(Instant::now());
                    warn!(event = "not_locked", %error, "cannot lock the certificate store, so nothing is renewed: {error}");
                    report(Event::Failed);
                }
                Err(_) => {}
            }
            if loaded.elapsed() >= LOAD_EVERY {
                loaded = Instant::now();
                let serial = self.current.as_ref().map(|stored| stored.facts.serial.clone());
                if let Some(stored) = self.load().await.filter(|stored| Some(&stored.facts.serial) != serial.as_ref()) {
                    self.serve(stored, resolver, report);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Loads the newest certificate of the store.
    async fn load(&self) -> Option<Stored> {
        let names = self.names.clone();
        let load = move |store: &Store| store.load(&names.iter().map(String::as_str).collect::<Vec<_>>());
        on_disk(&self.store, load).await.unwrap_or_else(|error| {
            warn!(%error, "the certificates cannot be read: {error}");
            None
        })
    }

    /// When the next attempt begins. An operator's request stays open until an attempt succeeds.
    pub(super) fn due(&self, now: i64, requested: bool) -> i64 {
        let due = if requested { plan::due_at_once } else { plan::due };
        due(now, self.validity(), &self.state)
    }

    /// Saves why no attempt can begin. This counts as no failure, since the next check may find it repaired.
    async fn hold(&mut self, why: &SolverError) {
        let why = Some(why.to_string());
        if self.state.last_error != why {
            (self.state.last_error, self.state.dns_failed) = (why, true);
            self.keep_state().await;
        }
    }

    pub(super) async fn keep_state(&self) {
        let state = self.state.clone();
        if let Err(error) = on_disk(&self.store, move |store| store.write_json("state.json", &state)).await {
            warn!(%error, "the state of renewal cannot be kept: {error}");
        }
    }

    pub(super) fn serve(&mut self, stored: Stored, resolver: &CertResolver, report: &impl Fn(Event)) {
        self.state.is_for(&stored.facts.serial);
        resolver.replace(stored.certified.clone());
        report(Event::Serving(validity(&stored)));
        self.current = Some(stored);
    }

    pub(super) fn validity(&self) -> Option<Validity> {
        self.current.as_ref().map(validity)
    }
}

pub(super) fn validity(stored: &Stored) -> Validity {
    Validity { not_before: stored.facts.not_before, not_after: stored.facts.not_after }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{self, Receiver};

    use super::*;
    use crate::authority::Authority;
    use crate::dns::BoxFuture;

    const URL: &str = "https://acme.test/dir";
    const NAMES: [&str; 2] = ["tunnel.test", "*.tunnel.test"];

    /// A solver that must not be called.
    #[derive(Debug)]
    struct NoDns;

    impl Solver for NoDns {
        fn present<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
            unreachable!()
        }

        fn cleanup<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
            unreachable!()
        }
    }

    /// Runs a renewer for as long as the runtime does.
    fn start(state_dir: &Path) -> Receiver<Event> {
        let directory = URL.to_owned();
        let fingerprint = String::new();
        // Any authority will do, since no request is sent.
        let ca_file = Some(Authority::load_or_create(&state_dir.join("own")).unwrap().ca_file().to_owned());
        let settings =
            Settings { directory, contact: Vec::new(), ca_file, external_account: None, profile: None, fingerprint };
        let store = Store::open(state_dir, URL).unwrap();
        let renewer = Renewer::new(settings, &NAMES, store, Arc::new(NoDns)).unwrap();
        let own = Authority::load_or_create(&state_dir.join("own")).unwrap().issue(&NAMES).unwrap();
        let (tell, events) = mpsc::channel();
        tokio::spawn(renewer.run(Arc::new(CertResolver::new(NAMES[0], own)), move |event| tell.send(event).unwrap()));
        events
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_without_the_lock_serves_what_its_holder_saves() {
        let folder = tempfile::tempdir().unwrap();
        let holder = Store::open(folder.path(), URL).unwrap();
        assert!(holder.try_lock().unwrap());
        let events = start(folder.path());
        tokio::time::sleep(LOAD_EVERY * 2).await;
        assert!(events.try_recv().is_err());
        let key = rcgen::KeyPair::generate().unwrap();
        let chain = rcgen::CertificateParams::new(NAMES.map(str::to_owned)).unwrap().self_signed(&key).unwrap();
        holder.save(&chain.pem(), &key.serialize_pem()).unwrap();
        tokio::time::sleep(LOAD_EVERY * 5).await;
        let events: Vec<_> = events.try_iter().collect();
        assert!(matches!(events[..], [Event::Serving(_)]), "once: {events:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_fails_is_reported_every_hour() {
        let folder = tempfile::tempdir().unwrap();
        Store::open(folder.path(), URL).unwrap();
        std::fs::create_dir(Store::folder(folder.path(), URL).join("lock")).unwrap();
        let events = start(folder.path());
        tokio::time::sleep(COMPLAIN_EVERY / 2).await;
        assert_eq!(events.try_iter().collect::<Vec<_>>(), [Event::Failed]);
        tokio::time::sleep(COMPLAIN_EVERY * 2).await;
        assert_eq!(events.try_iter().collect::<Vec<_>>(), [Event::Failed; 2]);
    }
}
