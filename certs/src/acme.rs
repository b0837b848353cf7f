//! Certificates by ACME (RFC 8555): ordered, kept, renewed in time, and never in the way of anything else.

mod http;
mod order;
mod plan;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, AccountCredentials, CertificateIdentifier, Error as AcmeError, ExternalAccountKey, NewAccount,
};
use rustls_pki_types::CertificateDer;
use tracing::{info, warn};

use self::order::{Issued, Wanted, past_bad_nonces};
use crate::dns::Solver;
use crate::store::{Store, Stored};
use crate::{CertResolver, Error, files};

pub use self::plan::{State, Validity, Window, due, renewal};

/// How often requests of an operator and the lock of another process are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a whole attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(600);
/// How soon saving is tried again after it failed, and how soon the state of a disk is.
const SAVE_AGAIN_AFTER: i64 = 60;
/// The least and the most time between two questions for the renewal window, in seconds (RFC 9773, section 4.3).
const ASK_WINDOW: (i64, i64) = (60, 24 * 3600);
/// How soon the renewal window is asked for again after a failure (RFC 9773, section 4.3.3).
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

/// Keeps one certificate fresh.
pub struct Renewer {
    settings: Settings,
    names: Vec<String>,
    store: Store,
    solver: Arc<dyn Solver>,
    client: http::Client,
    state: State,
    current: Option<Stored>,
    unsaved: Option<(Issued, i64)>,
}

impl Renewer {
    /// A renewer for `names` that keeps its things in `store`. Nothing is asked of the server yet.
    pub fn new(settings: Settings, names: &[&str], store: Store, solver: Arc<dyn Solver>) -> Result<Self, Error> {
        let client = http::Client::new(settings.ca_file.as_deref())?;
        let current = store.load(names)?;
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Ok(Self { settings, names, store, solver, client, state: State::default(), current, unsaved: None })
    }

    /// The certificate that was kept, if there is one.
    pub fn current(&self) -> Option<&Stored> {
        self.current.as_ref()
    }

    /// Renews for ever. Whatever fails is logged, kept for `cert status` and tried again.
    pub async fn run(mut self, resolver: Arc<CertResolver>, report: impl Fn(Event)) {
        self.wait_for_lock().await;
        match self.store.read_json("state.json") {
            Ok(state) => self.state = state.unwrap_or_else(|| State::succeeded(fastrand::f64())),
            Err(error) => warn!(%error, "the state of renewal cannot be read"),
        }
        // Another process may have renewed meanwhile; and what is damaged is set aside only now.
        match self.store.load(&self.names()) {
            Ok(Some(stored)) => self.serve(stored, &resolver, &report),
            Ok(None) => {}
            Err(error) => warn!(%error, "the certificates cannot be read"),
        }
        loop {
            let now = unix_now();
            self.save_again(now);
            let asked = self.store.take_request();
            if !asked {
                self.ask_for_window(now).await;
            }
            if asked || due(now, self.validity(), &self.state) <= now {
                self.attempt(now, &resolver, &report).await;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn wait_for_lock(&mut self) {
        let mut told = false;
        loop {
            match self.store.try_lock() {
                Ok(true) => return,
                Ok(false) if !told => info!("another process renews the certificate; waiting for it to end"),
                Err(error) if !told => warn!(%error, "cannot lock the certificate store"),
                _ => {}
            }
            told = true;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn attempt(&mut self, now: i64, resolver: &CertResolver, report: &impl Fn(Event)) {
        self.state.begin(now);
        // Kept before the order is placed: a crash loop must not order again and again.
        let ready = self.store.probe().and_then(|()| self.store.write_json("state.json", &self.state));
        let result = match ready {
            Ok(()) => match tokio::time::timeout(ATTEMPT_TIMEOUT, self.order()).await {
                Ok(result) => result,
                Err(_) => Err(format!("not done within {} s", ATTEMPT_TIMEOUT.as_secs())),
            },
            Err(error) => Err(format!("no order is placed, since its certificate could not be kept: {error}")),
        };
        let now = unix_now();
        match result {
            Ok((issued, stored)) => {
                info!(event = "issued", issuer = stored.facts.issuer, serial = stored.facts.serial);
                self.state = State::succeeded(fastrand::f64());
                self.serve(stored, resolver, report);
                report(Event::Issued);
                self.unsaved = Some((issued, now));
                self.save_again(now);
            }
            Err(error) => {
                let unix = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |at| at.as_secs());
                let retry_after = self.client.take_retry_after().map(|at| i64::try_from(unix(at)).unwrap_or(i64::MAX));
                self.state.failed(now, error.clone(), retry_after);
                let next = self.state.next_try.unwrap_or(now).saturating_sub(now);
                warn!(event = "not_issued", error, next_try_in_seconds = next);
                report(Event::Failed);
            }
        }
        self.keep_state();
    }

    fn keep_state(&self) {
        if let Err(error) = self.store.write_json("state.json", &self.state) {
            warn!(%error, "the state of renewal cannot be kept");
        }
    }

    /// A certificate that could not be saved is served from memory, and saving is tried again.
    fn save_again(&mut self, now: i64) {
        let Some((issued, at)) = &mut self.unsaved else { return };
        if *at > now && *at - now <= SAVE_AGAIN_AFTER {
            return;
        }
        match self.store.save(&issued.chain_pem, &issued.key_pem) {
            Ok(()) => self.unsaved = None,
            Err(error) => {
                warn!(event = "not_saved", %error, "the certificate is served from memory");
                *at = now + SAVE_AGAIN_AFTER;
            }
        }
    }

    fn serve(&mut self, stored: Stored, resolver: &CertResolver, report: &impl Fn(Event)) {
        resolver.replace(stored.certified.clone());
        report(Event::Serving(validity(&stored)));
        self.current = Some(stored);
    }

    async fn order(&mut self) -> Result<(Issued, Stored), String> {
        self.client.take_retry_after();
        let account = self.account().await?;
        let issued = match self.obtain(&account).await {
            Err(error) if order::is(&error, "accountDoesNotExist") => {
                self.store.discard("account.json", "the server does not know this account any more");
                let account = self.account().await?;
                self.obtain(&account).await
            }
            other => other,
        };
        let issued = issued.map_err(|error| error.to_string())?;
        let from = PathBuf::from(&self.settings.directory);
        let (certified, facts) = files::read(&from, issued.chain_pem.as_bytes(), &from, issued.key_pem.as_bytes())
            .map_err(|e| e.to_string())?;
        let missing = facts.missing(&self.names());
        if !missing.is_empty() {
            return Err(format!("the certificate from {} does not cover {}", from.display(), missing.join(" and ")));
        }
        Ok((issued, Stored { certified, facts }))
    }

    async fn obtain(&self, account: &Account) -> Result<Issued, AcmeError> {
        let profile = self.settings.profile.as_deref();
        let offered = profile.filter(|wanted| account.profiles().any(|offered| offered.name == *wanted));
        if let (Some(profile), None) = (profile, offered) {
            warn!(profile, "the server does not offer this profile; ordering without");
        }
        let replaces: Option<&CertificateDer<'_>> =
            self.current.as_ref().and_then(|stored| stored.certified.cert.first());
        let wanted = Wanted { names: &self.names(), profile: offered, replaces };
        order::obtain(account, wanted, &*self.solver).await
    }

    /// The account that was kept, else a new one.
    async fn account(&self) -> Result<Account, String> {
        let builder = || Account::builder_with_http(Box::new(self.client.clone()));
        let kept: Option<AccountCredentials> = self.store.read_json("account.json").map_err(|e| e.to_string())?;
        if let Some(credentials) = kept {
            return builder().from_credentials(credentials).await.map_err(|error| error.to_string());
        }
        let contact: Vec<&str> = self.settings.contact.iter().map(String::as_str).collect();
        let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let directory = &self.settings.directory;
        let external = self.settings.external_account.as_ref();
        let external = external.map(|(id, key)| ExternalAccountKey::new(id.clone(), key));
        let created = past_bad_nonces!(builder().create(&wanted, directory.clone(), external.as_ref()));
        let (account, credentials) = created.map_err(|error| error.to_string())?;
        info!(event = "account", id = account.id());
        self.store.write_json("account.json", &credentials).map_err(|error| error.to_string())?;
        Ok(account)
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
        let (window, again) = match self.window(&id).await {
            Ok((window, again)) => (Some(window), again.clamp(ASK_WINDOW.0, ASK_WINDOW.1)),
            Err(WindowError::Unsupported) => (None, ASK_WINDOW.1),
            Err(WindowError::Failed(error)) => {
                warn!(%error, "the server could not be asked when to renew");
                (self.state.window, ASK_WINDOW_AGAIN)
            }
        };
        self.state.window = window;
        self.state.ask_window_at = Some(now + again);
        self.keep_state();
    }

    async fn window(&self, id: &CertificateIdentifier<'_>) -> Result<(Window, i64), WindowError> {
        let asked = async {
            let account = self.account().await.map_err(WindowError::Failed)?;
            let (info, again) = account.renewal_info(id).await.map_err(|error| match error {
                AcmeError::Unsupported(_) => WindowError::Unsupported,
                other => WindowError::Failed(other.to_string()),
            })?;
            let window = info.suggested_window;
            let window = Window { start: window.start.unix_timestamp(), end: window.end.unix_timestamp() };
            Ok((window, i64::try_from(again.as_secs()).unwrap_or(i64::MAX)))
        };
        asked.await
    }

    fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    fn validity(&self) -> Option<Validity> {
        self.current.as_ref().map(validity)
    }
}

enum WindowError {
    Unsupported,
    Failed(String),
}

fn validity(stored: &Stored) -> Validity {
    Validity { not_before: stored.facts.not_before, not_after: stored.facts.not_after }
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
