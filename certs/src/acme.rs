//! Certificates by ACME (RFC 8555): ordered, kept, renewed in time, and never in the way of anything else.

mod account;
mod directory;
mod http;
mod order;
mod plan;
mod problem;
mod published;
mod rollover;
mod status;

use std::any::Any;
use std::future::poll_fn;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use instant_acme::{Account, CertificateIdentifier};
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;
use tracing::{info, warn};

use self::directory::Directory;
use self::order::{Failure, Issued, Wanted};
use self::published::Published;
use crate::clock::{unix, unix_now};
use crate::dns::{BoxFuture, Solver, SolverError};
use crate::error::Error;
use crate::files;
use crate::files::Facts;
use crate::one_line::one_line;
use crate::resolver::CertResolver;
use crate::store::{Request, Store, Stored};

pub use self::plan::{State, Validity, Window, due, renewal};
pub use self::status::{Status, status};

/// How often requests of an operator and the lock of another process are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a process that cannot get the lock looks whether there is a newer certificate.
const LOAD_EVERY: Duration = Duration::from_secs(60);
/// How often it says that it can't, if that is an error and no matter of patience.
const TELL_EVERY: Duration = Duration::from_secs(3600);
/// Nanoseconds in a second.
const NANOS: i128 = 1_000_000_000;
/// How long a whole attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(600);
/// How soon saving is tried again after it failed, and how soon the state of a disk is.
const SAVE_AGAIN_AFTER: i64 = 60;
/// The least and the most time between two questions for the renewal window, in seconds (RFC 9773, section 4.3).
const ASK_WINDOW: (i64, i64) = (60, 24 * 3600);
/// How soon the renewal window is asked for again after a failure, or if the server does not say (RFC 9773, section 4.3.3).
const ASK_WINDOW_AGAIN: i64 = 6 * 3600;

/// Whom to ask, and as whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server's directory URL.
    pub directory: String,
    /// Such as `mailto:ops@example.com`.
    pub contact: Vec<String>,
    /// Trust anchors of a private server in PEM; without them those of the system count.
    pub ca_file: Option<PathBuf>,
    /// The key identifier and the decoded HMAC key of an external account binding (RFC 8555, section 7.3.4).
    pub external_account: Option<(String, Vec<u8>)>,
    /// A profile, if the server offers it.
    pub profile: Option<String>,
    /// Stands for all that an attempt depends on beside the names, such as a hash of account and solver: when it changes,
    /// the failures of before hold nothing up.
    pub fingerprint: String,
}

/// Whether there are trust anchors in a file, as for [`Settings::ca_file`].
pub fn check_ca_file(path: &Path) -> Result<(), Error> {
    http::Client::new(Some(path)).map(drop)
}

/// What happened, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// This certificate is served from now on.
    Serving(Validity),
    /// It is a new one.
    Issued,
    /// An attempt failed.
    Failed,
}

/// When the operator has asked for a new certificate, and when for a new key of the account, in nanoseconds since 1970. Both
/// are a reason for an attempt.
type Requested = [Option<i128>; 2];

/// Keeps one certificate fresh.
pub struct Renewer {
    settings: Settings,
    names: Vec<String>,
    store: Arc<Store>,
    solver: Arc<dyn Solver>,
    client: http::Client,
    state: State,
    current: Option<Stored>,
    unsaved: Option<(Arc<Issued>, i64)>,
    /// The operator's requests that were seen last; nothing before the first look.
    seen: Option<Requested>,
}

impl Renewer {
    /// A renewer for `names` that keeps its things in `store`. Nothing is asked of the server yet.
    pub fn new(settings: Settings, names: &[&str], store: Store, solver: Arc<dyn Solver>) -> Result<Self, Error> {
        let client = http::Client::new(settings.ca_file.as_deref())?;
        let current = store.load(names)?;
        let (names, store) = (names.iter().map(|name| (*name).to_owned()).collect(), Arc::new(store));
        let state = State::default();
        Ok(Self { settings, names, store, solver, client, state, current, unsaved: None, seen: None })
    }

    /// The certificate that was kept, if there is one.
    pub fn current(&self) -> Option<&Stored> {
        self.current.as_ref()
    }

    /// Renews for ever. Whatever fails is logged, kept for `cert status` and tried again.
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
        // Another process may have renewed meanwhile; and what is damaged is set aside only now.
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
        let published = {
            let (solver, store) = (self.solver.clone(), self.store.clone());
            on_disk(&self.store, move |_| Published::new(solver, store, purpose)).await
        };
        published.clean_up().await;
        loop {
            let now = unix_now();
            self.save_again(now).await;
            let requested = on_disk(&self.store, requested).await;
            let asked = is_news(requested, self.seen, now, self.state.tried_at);
            self.seen = Some(requested);
            if asked || self.due(now, requested != [None; 2]) <= now {
                match self.solver.ready() {
                    Ok(()) => self.attempt(now, requested, &published, &resolver, &report).await,
                    Err(why) => self.hold(&why).await,
                }
            } else {
                self.ask_for_window(now).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Meanwhile what the process saves that has the lock is served here too.
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
                // Nothing is renewed until somebody mends this.
                Err(error) if complained.is_none_or(|at| at.elapsed() >= TELL_EVERY) => {
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

    /// The newest certificate of the store.
    async fn load(&self) -> Option<Stored> {
        let names = self.names.clone();
        let load = move |store: &Store| store.load(&names.iter().map(String::as_str).collect::<Vec<_>>());
        on_disk(&self.store, load).await.unwrap_or_else(|error| {
            warn!(%error, "the certificates cannot be read: {error}");
            None
        })
    }

    /// When the next attempt begins. What an operator has asked for stays wanted until it succeeds.
    fn due(&self, now: i64, requested: bool) -> i64 {
        let due = if requested { plan::due_at_once } else { due };
        due(now, self.validity(), &self.state)
    }

    async fn attempt(
        &mut self,
        now: i64,
        requested: Requested,
        published: &Published,
        resolver: &CertResolver,
        report: &impl Fn(Event),
    ) {
        self.state.begin(now);
        // Kept before the order is placed: a crash loop must not order again and again.
        let state = self.state.clone();
        let ready =
            on_disk(&self.store, move |store| store.probe().and_then(|()| store.write_json("state.json", &state)));
        let result = match ready.await {
            Err(error) if !self.validity().is_some_and(|validity| validity.is_emergency(now)) => {
                Err(format!("no order is placed, since its certificate could not be kept: {error}"))
            }
            ready => {
                if let Err(error) = ready {
                    warn!(%error, "the next certificate will be served from memory alone, since it cannot be kept: {error}");
                }
                match tokio::time::timeout(ATTEMPT_TIMEOUT, caught(Box::pin(self.order(published)))).await {
                    Ok(result) => result.unwrap_or_else(|panic| Err(format!("a fault of this program: {panic}"))),
                    Err(_) => Err(format!("not done within {} s", ATTEMPT_TIMEOUT.as_secs())),
                }
            }
        };
        let now = unix_now();
        match result {
            Ok((issued, stored)) => {
                let Facts { issuer, serial, .. } = &stored.facts;
                info!(
                    event = "issued",
                    issuer, serial, "a certificate was issued by {issuer}, with the serial number {serial}"
                );
                self.state.succeeded(now, validity(&stored), fastrand::f64());
                self.serve(stored, resolver, report);
                self.unsaved = Some((Arc::new(issued), now));
                self.save_again(now).await;
                self.keep_state().await;
                if let [Some(at), _] = requested {
                    on_disk(&self.store, move |store| store.done(Request::Renewal, at)).await;
                }
                report(Event::Issued);
            }
            Err(error) => {
                let error = one_line(&error);
                self.state.failed(now, error.clone(), self.client.take_retry_after().map(unix));
                // Before anybody is told, who may look at it.
                self.keep_state().await;
                let next = self.due(now, requested != [None; 2]).saturating_sub(now);
                warn!(
                    event = "not_issued",
                    error,
                    next_try_in_seconds = next,
                    "no certificate was issued: {error}; the next attempt is in {next} s"
                );
                report(Event::Failed);
            }
        }
        // What was published is taken away, whatever became of the order: last, since it may take its time.
        published.clean_up().await;
    }

    /// Takes note of what keeps an attempt from its beginning, which is no failure: the next look may find it mended.
    async fn hold(&mut self, why: &SolverError) {
        let why = Some(why.to_string());
        if self.state.last_error != why {
            self.state.last_error = why;
            self.keep_state().await;
        }
    }

    async fn keep_state(&self) {
        let state = self.state.clone();
        if let Err(error) = on_disk(&self.store, move |store| store.write_json("state.json", &state)).await {
            warn!(%error, "the state of renewal cannot be kept: {error}");
        }
    }

    /// A certificate that could not be saved is served from memory, and saving is tried again.
    async fn save_again(&mut self, now: i64) {
        let Some((issued, at)) = &mut self.unsaved else { return };
        if *at > now && *at - now <= SAVE_AGAIN_AFTER {
            return;
        }
        let saved = issued.clone();
        match on_disk(&self.store, move |store| store.save(&saved.chain_pem, &saved.key_pem)).await {
            Ok(()) => self.unsaved = None,
            Err(error) => {
                warn!(event = "not_saved", %error, "the certificate is served from memory, since it cannot be saved: {error}");
                *at = now + SAVE_AGAIN_AFTER;
            }
        }
    }

    fn serve(&mut self, stored: Stored, resolver: &CertResolver, report: &impl Fn(Event)) {
        self.state.is_for(&stored.facts.serial);
        resolver.replace(stored.certified.clone());
        report(Event::Serving(validity(&stored)));
        self.current = Some(stored);
    }

    async fn order(&mut self, published: &Published) -> Result<(Issued, Stored), String> {
        self.client.take_retry_after();
        rollover::roll_over(&self.client, &self.settings.directory, &self.store).await?;
        let account = match account::kept(&self.client, &self.store).await? {
            Some(account) => account,
            None => account::create(&self.settings, &self.client, &self.store, None).await?,
        };
        let issued = match self.obtain(&account, published).await {
            Err(Failure::Account(error)) => {
                let now = unix_now();
                if !self.state.may_replace_account(now) {
                    return Err(format!("the server refuses the account: {error}"));
                }
                // That it was refused may have been a mood of the server: the account stays until there is another.
                let account =
                    account::create(&self.settings, &self.client, &self.store, Some(error.to_string())).await?;
                self.state.account_replaced_at = Some(now);
                self.obtain(&account, published).await
            }
            other => other,
        };
        let issued = issued.map_err(|failure| failure.to_string())?;
        let from = PathBuf::from(&self.settings.directory);
        let (certified, facts) = files::read(&from, issued.chain_pem.as_bytes(), &from, issued.key_pem.as_bytes())
            .map_err(|e| e.to_string())?;
        let missing = facts.missing(&self.names());
        if !missing.is_empty() {
            return Err(format!("the certificate from {} does not cover {}", from.display(), missing.join(" and ")));
        }
        Ok((issued, Stored { certified, facts }))
    }

    async fn obtain(&self, account: &Account, published: &Published) -> Result<Issued, Failure> {
        let profile = self.settings.profile.as_deref();
        let offered = profile.filter(|wanted| account.profiles().any(|offered| offered.name == *wanted));
        if let (Some(profile), None) = (profile, offered) {
            warn!(profile, "the ACME server does not offer the profile \"{profile}\"; ordering without");
        }
        let replaces: Option<&CertificateDer<'_>> =
            self.current.as_ref().and_then(|stored| stored.certified.cert.first());
        let wanted = Wanted { names: &self.names(), profile: offered, replaces };
        order::obtain(&self.client, account, wanted, published).await
    }

    /// Asks when the server would like the certificate to be renewed, as often as it wishes to be asked.
    async fn ask_for_window(&mut self, now: i64) {
        let Some(stored) = &self.current else { return };
        if self.state.ask_window_at.is_some_and(|at| at > now && at - now <= ASK_WINDOW.1) {
            return;
        }
        let Some(id) = stored.certified.cert.first().and_then(|leaf| CertificateIdentifier::try_from(leaf).ok()) else {
            return;
        };
        let answer = match Directory::get(&self.client, &self.settings.directory).await {
            Ok(directory) => directory.window(&self.client, &id).await,
            Err(error) => Err(error),
        };
        let (window, again) = match answer {
            Ok(Some((window, again))) => {
                (Some(window), again.unwrap_or(ASK_WINDOW_AGAIN).clamp(ASK_WINDOW.0, ASK_WINDOW.1))
            }
            Ok(None) => (None, ASK_WINDOW.1),
            Err(error) => {
                let error = one_line(&error);
                warn!(error, "the ACME server did not say when to renew: {error}");
                (self.state.window, ASK_WINDOW_AGAIN)
            }
        };
        self.state.window = window;
        self.state.ask_window_at = Some(now + again);
        self.keep_state().await;
    }

    fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    fn validity(&self) -> Option<Validity> {
        self.current.as_ref().map(validity)
    }
}

fn requested(store: &Store) -> Requested {
    [Request::Renewal, Request::Rollover].map(|request| store.requested_at(request))
}

/// Whether somebody has asked for an attempt that was not made yet. A request of before this process may have been seen to
/// already; then it waits its turn like all attempts, and so does one that a wrong clock has dated in the future, or it
/// would be news at every start.
fn is_news(requested: Requested, seen: Option<Requested>, now: i64, tried_at: Option<i64>) -> bool {
    let untried = |at: i128| (tried_at.map_or(i64::MIN, |tried| tried + 1)..=now).contains(&((at / NANOS) as i64));
    (0..requested.len()).any(|kind| match seen {
        Some(seen) => requested[kind].is_some() && requested[kind] != seen[kind],
        None => requested[kind].is_some_and(untried),
    })
}

/// A panic of the work is told and no more: what a server says must not end renewal, whatever the library makes of it.
async fn caught<T>(mut work: BoxFuture<'_, T>) -> Result<T, String> {
    // After a panic the work is dropped and never looked at again.
    let polled = |context: &mut Context<'_>| match panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)))
    {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(said(&*panic))),
    };
    poll_fn(polled).await
}

/// The words of a panic.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

/// Disks may be slow, and nobody else should wait for them.
async fn on_disk<T: Send + 'static>(store: &Arc<Store>, work: impl FnOnce(&Store) -> T + Send + 'static) -> T {
    let store = store.clone();
    match tokio::task::spawn_blocking(move || work(&store)).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => panic::resume_unwind(panic),
            // The runtime ends, and with it whoever waits.
            Err(_) => std::future::pending().await,
        },
    }
}

fn validity(stored: &Stored) -> Validity {
    Validity { not_before: stored.facts.not_before, not_after: stored.facts.not_after }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver};

    use super::*;
    use crate::authority::Authority;
    use crate::dns::SolverError;

    const URL: &str = "https://acme.test/dir";
    const NAMES: [&str; 2] = ["tunnel.test", "*.tunnel.test"];

    /// Is never asked.
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
        // Any authority will do: nobody is asked.
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
    async fn who_waits_for_the_lock_serves_what_its_holder_saves() {
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
    async fn a_lock_that_cannot_be_had_is_a_failure_every_hour() {
        let folder = tempfile::tempdir().unwrap();
        Store::open(folder.path(), URL).unwrap();
        std::fs::create_dir(Store::folder(folder.path(), URL).join("lock")).unwrap();
        let events = start(folder.path());
        tokio::time::sleep(TELL_EVERY / 2).await;
        assert_eq!(events.try_iter().collect::<Vec<_>>(), [Event::Failed]);
        tokio::time::sleep(TELL_EVERY * 2).await;
        assert_eq!(events.try_iter().collect::<Vec<_>>(), [Event::Failed; 2]);
    }

    #[test]
    fn a_request_is_news_once() {
        let at = |second: i128| Some(second * NANOS + 5);
        let news = |requested, seen| is_news(requested, seen, 100, Some(50));
        for kind in [|at| [at, None], |at| [None, at]] {
            let none = Some([None; 2]);
            assert!(news(kind(at(90)), none) && news(kind(at(200)), none), "whatever the clock says");
            assert!(!news(kind(at(90)), Some(kind(at(90)))) && !news(kind(None), Some(kind(at(90)))));
            assert!(news(kind(at(91)), Some(kind(at(90)))));
            // At the start: made before the last attempt, after it, and by a clock that ran ahead.
            assert_eq!(
                [40, 50, 51, 100, 101].map(|second| news(kind(at(second)), None)),
                [false, false, true, true, false]
            );
        }
        assert!(is_news([at(1), None], None, 100, None) && !is_news([None; 2], None, 100, None));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_words() {
        let work = async |number: u32| {
            tokio::task::yield_now().await;
            assert!(number < 2, "number {number}");
            number
        };
        assert_eq!(caught(Box::pin(work(1))).await, Ok(1));
        assert_eq!(caught(Box::pin(work(2))).await, Err("number 2".to_owned()));
    }
}
