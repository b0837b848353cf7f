//! The certificate that the daemon serves: its source and its renewal. This part knows no connections; they ask the
//! resolver.

mod config;
mod solver;
mod state;
mod status;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cok_certs::acme::{self, Event, Renewer, Validity};
use cok_certs::dns::embedded::Embedded;
use cok_certs::files::{self, Facts, Watch};
use cok_certs::store::Store;
use cok_certs::{Authority, CertResolver, date};
use parking_lot::Mutex;
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tracing::{error, info, warn};

pub(crate) use self::config::{Acme, Config, Dns, ExternalAccount, Tls, Tsig};
pub(crate) use self::state::State;
pub(crate) use self::status::{CertificateStatus, Served, stored};
use crate::host::credentials;
use crate::host::service_view::{FileAccess, advice};

/// The folder of the daemon's own authority, in the state directory.
pub(crate) const AUTHORITY: &str = "authority";

/// The interval at which a self-signed certificate is replaced. It is valid for 90 days.
const REISSUE_EVERY: Duration = Duration::from_secs(24 * 3600);

/// The interval at which certificate files are checked. A change counts once two checks find the same state.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The pause before refused files are read again unchanged. The disk may have failed, or the clock may be slightly
/// behind.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// A function that reads a secret from a file.
type Read<'a> = &'a dyn Fn(&Path) -> anyhow::Result<String>;

/// The names that a certificate must cover.
pub(crate) fn names(domain: &str) -> [String; 2] {
    [domain.to_owned(), format!("*.{domain}")]
}

/// The certificate that is served, and its source.
pub(crate) struct Certificates {
    names: [String; 2],
    resolver: Arc<CertResolver>,
    source: Source,
    report: Reporter,
}

/// A change of the certificate, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A certificate of this validity is served.
    Serving(Validity),
    /// A new certificate replaced the old one while the process ran.
    Renewed,
    /// An attempt to get a certificate failed.
    Failed,
}

/// Reports changes to the state and the metrics.
#[derive(Clone)]
struct Reporter {
    state: Arc<State>,
    on_change: Arc<dyn Fn(Change) + Send + Sync>,
}

impl Reporter {
    fn report(&self, change: Change) {
        if let Change::Serving(validity) = change {
            self.state.set_not_after(validity.not_after);
        }
        (self.on_change)(change);
        self.state.note_change();
    }
}

enum Source {
    Acme(Box<Renewer>),
    Files { cert: PathBuf, key: PathBuf, watch: Watch },
    SelfSigned(Authority),
}

impl Certificates {
    /// Loads the stored certificate for `domain` without a request to any server. Also returns the DNS responder if the
    /// daemon answers for the zone itself. Its addresses may be bound later; the daemon serves its present certificate
    /// until then.
    pub(crate) fn new(
        config: &Config,
        domain: &str,
        state_dir: &Path,
        on_change: impl Fn(Change) + Send + Sync + 'static,
    ) -> anyhow::Result<(Self, Option<Arc<Embedded>>)> {
        let names = names(domain);
        let covered = names.each_ref().map(String::as_str);
        let report = Reporter { state: Arc::default(), on_change: Arc::new(on_change) };
        let mut responder = None;
        let (certificate, source) = match &config.source {
            Tls::Files { cert, key } => {
                let (cert, key) = (credentials::resolve(cert), credentials::resolve(key));
                let watch = Watch::new(vec![cert.clone(), key.clone()]);
                let (certificate, facts) = files::load(&cert, &key, &covered).map_err(with_advice)?;
                serving(&report, "files", &facts);
                (certificate, Source::Files { cert, key, watch })
            }
            Tls::SelfSigned => {
                let (authority, certificate) = self_signed(state_dir, &covered)?;
                serving(&report, "self-signed", &files::facts_of(&certificate)?);
                (certificate, Source::SelfSigned(authority))
            }
            Tls::Acme(acme) => {
                let solver;
                (solver, responder) = solver::new(&acme.dns, domain, &credentials::read)?;
                let store = Store::open(state_dir, &acme.directory)?;
                let renewer = Renewer::new(settings(acme, &credentials::read)?, &covered, store, solver)?;
                let certificate = if let Some(stored) = renewer.current() {
                    serving(&report, "acme", &stored.facts);
                    stored.certified.clone()
                } else {
                    let (_, certificate) = self_signed(state_dir, &covered)?;
                    warn!(
                        event = "stand_in",
                        "there is no certificate yet; a self-signed one is served until there is"
                    );
                    certificate
                };
                if let Some(responder) = &responder {
                    report.state.set_responder(responder.clone());
                }
                (certificate, Source::Acme(Box::new(renewer)))
            }
        };
        let resolver = Arc::new(CertResolver::new(domain, certificate));
        Ok((Self { names, resolver, source, report }, responder))
    }

    /// The state of the certificate.
    pub(crate) fn state(&self) -> Arc<State> {
        self.report.state.clone()
    }

    /// Its status for operators.
    pub(crate) fn served(&self, config: &Config, domain: &str, state_dir: &Path) -> Served {
        let (config, domain, state_dir) = (config.clone(), domain.to_owned(), state_dir.to_owned());
        Served { config, domain, state_dir, state: self.state() }
    }

    /// The resolver that picks a connection's certificate.
    pub(crate) fn resolver(&self) -> Arc<CertResolver> {
        self.resolver.clone()
    }

    /// Renews the certificate in time. Runs until it is dropped.
    pub(crate) async fn keep_fresh(self) {
        let Self { names, resolver, source, report } = self;
        match source {
            Source::Acme(renewer) => {
                let on_event = move |event| match event {
                    Event::Serving(validity) => {
                        report.report(Change::Serving(validity));
                        let (not_after, until) = (validity.not_after, date(validity.not_after));
                        info!(
                            event = "certificate",
                            source = "acme",
                            not_after,
                            "the certificate is served; it is valid until {until}"
                        );
                    }
                    Event::Issued => report.report(Change::Renewed),
                    Event::Failed => report.report(Change::Failed),
                };
                renewer.run(resolver, on_event).await;
            }
            Source::Files { cert, key, watch } => {
                let watch = Arc::new(Mutex::new(watch));
                // When files were refused last, and why.
                let mut refused: Option<(Instant, String)> = None;
                loop {
                    tokio::time::sleep(LOOK_EVERY).await;
                    let (watch, cert, key, names) = (watch.clone(), cert.clone(), key.clone(), names.clone());
                    let again = refused.as_ref().is_some_and(|(at, _)| at.elapsed() >= AGAIN_AFTER);
                    // The disk may be slow.
                    let looked = tokio::task::spawn_blocking(move || {
                        let changed = watch.lock().changed();
                        let load = || files::load(&cert, &key, &names.each_ref().map(String::as_str));
                        (changed || again).then(|| (changed, load()))
                    });
                    let Ok(Some((changed, loaded))) = looked.await else { continue };
                    let why = loaded.as_ref().err().map(ToString::to_string);
                    // Does not log the same error twice for the same files.
                    let said = !changed && why.is_some() && refused.take().map(|(_, why)| why) == why;
                    refused = why.map(|why| (Instant::now(), why));
                    if !said {
                        take(&report, &resolver, "files", loaded);
                    }
                }
            }
            Source::SelfSigned(authority) => loop {
                tokio::time::sleep(REISSUE_EVERY).await;
                let issued = authority.issue(&names.each_ref().map(String::as_str));
                let issued = issued.and_then(|certificate| Ok((certificate.clone(), files::facts_of(&certificate)?)));
                take(&report, &resolver, "self-signed", issued);
            },
        }
    }
}

/// Serves a new certificate, or logs why it is refused.
fn take(
    report: &Reporter,
    resolver: &CertResolver,
    source: &str,
    found: Result<(Arc<CertifiedKey>, Facts), cok_certs::Error>,
) {
    match found {
        Ok((certificate, facts)) => {
            resolver.replace(certificate);
            report.report(Change::Renewed);
            serving(report, source, &facts);
        }
        Err(error) => {
            report.state.set_refused(error.to_string());
            report.report(Change::Failed);
            error!(event = "certificate_refused", %error, "{error}; the certificate before is served on");
        }
    }
}

/// Mistakes in the settings that only show in use and would prevent a start, each with its key and file. `look` says
/// what the daemon will find at a path. Asks no server and writes nothing.
pub(crate) fn mistakes(config: &Config, domain: &str, look: &dyn Fn(&Path) -> FileAccess) -> Vec<String> {
    let mut mistakes = Vec::new();
    match &config.source {
        Tls::Files { cert, key } => {
            let seen = [("tls.cert", look(cert)), ("tls.key", look(key))];
            for (name, found) in &seen {
                if let FileAccess::Unreadable(why) = found {
                    mistakes.push(format!("{name}: {why}"));
                }
            }
            if let [(_, FileAccess::File(cert)), (_, FileAccess::File(key))] = &seen
                && let Err(error) = files::load(cert, key, &names(domain).each_ref().map(String::as_str))
            {
                let name = if error.path() == Some(&**key) { "tls.key" } else { "tls.cert" };
                mistakes.push(format!("{name}: {error}"));
            }
        }
        Tls::SelfSigned => {}
        Tls::Acme(acme) => {
            let read = |path: &Path| match look(path) {
                FileAccess::File(file) => credentials::read(&file),
                FileAccess::Unknown => Ok(STAND_IN.to_owned()),
                FileAccess::Unreadable(why) => Err(anyhow::Error::msg(why)),
            };
            if let Err(error) = solver::new(&acme.dns, domain, &read) {
                mistakes.push(format!("acme.dns: {error:#}"));
            }
            if let Err(error) = external_account(acme, &read) {
                mistakes.push(format!("acme.eab_hmac_key_file: {error:#}"));
            }
            match acme.ca_file.as_deref().map(look) {
                Some(FileAccess::Unreadable(why)) => mistakes.push(format!("acme.ca_file: {why}")),
                Some(FileAccess::File(file)) => {
                    if let Err(error) = acme::check_ca_file(&file) {
                        mistakes.push(format!("acme.ca_file: {error}"));
                    }
                }
                Some(FileAccess::Unknown) | None => {}
            }
        }
    }
    mistakes
}

/// Placeholder for a secret that `cokd check` cannot read. It is base64, like many secrets.
const STAND_IN: &str = "c3RhbmQtaW4h";

/// Adds to an unreadable file how the service gets it.
fn with_advice(error: cok_certs::Error) -> anyhow::Error {
    match &error {
        cok_certs::Error::Io { path, error: why } if why.kind() == ErrorKind::PermissionDenied => {
            anyhow::anyhow!("{error}; {}", advice(path))
        }
        _ => error.into(),
    }
}

fn serving(report: &Reporter, source: &str, facts: &Facts) {
    report.state.set_facts(facts);
    report.report(Change::Serving(Validity { not_before: facts.not_before, not_after: facts.not_after }));
    let (not_after, serial) = (facts.not_after, &facts.serial);
    let until = date(not_after);
    info!(
        event = "certificate",
        source,
        not_after,
        serial,
        "the certificate ({source}, serial number {serial}) is served; it is valid until {until}"
    );
}

fn self_signed(state_dir: &Path, names: &[&str]) -> anyhow::Result<(Authority, Arc<CertifiedKey>)> {
    let authority = Authority::load_or_create(&state_dir.join(AUTHORITY))?;
    let ca_file = authority.ca_file().display();
    info!(event = "authority", %ca_file, "the daemon has an authority of its own, which clients trust by --ca-file {ca_file}");
    let certificate = authority.issue(names)?;
    Ok((authority, certificate))
}

fn settings(acme: &Acme, read: Read<'_>) -> anyhow::Result<acme::Settings> {
    Ok(acme::Settings {
        directory: acme.directory.clone(),
        contact: acme.contact.clone(),
        ca_file: acme.ca_file.clone(),
        external_account: external_account(acme, read)?,
        profile: acme.profile.clone(),
        fingerprint: fingerprint(acme, read)?,
    })
}

/// The identifier and the HMAC key of the external account binding.
fn external_account(acme: &Acme, read: Read<'_>) -> anyhow::Result<Option<(String, Vec<u8>)>> {
    let Some(account) = &acme.external_account else { return Ok(None) };
    let text = read(&account.hmac_key_file)?;
    // Authorities issue the key with and without padding. The decoder's error would show bytes of it.
    let key = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
    let key = key.with_context(|| format!("{}: expected base64url", account.hmac_key_file.display()))?;
    Ok(Some((account.key_id.clone(), key)))
}

/// A hash of everything that an order depends on: the settings, and the content of the secret files that they name.
fn fingerprint(acme: &Acme, read: Read<'_>) -> anyhow::Result<String> {
    let hmac_key = acme.external_account.as_ref().map(|account| &account.hmac_key_file);
    let mut digest = Sha256::new_with_prefix(format!("{acme:?}"));
    for path in hmac_key.into_iter().chain(acme.dns.secret_file()) {
        digest.update(Sha256::digest(read(path)?));
    }
    Ok(BASE64_URL_SAFE_NO_PAD.encode(digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::service_view::ServiceView;

    fn look(path: &Path) -> FileAccess {
        ServiceView::new(None, Path::new("/none/cokd.toml")).unwrap().look(path)
    }

    #[test]
    fn what_would_keep_the_daemon_from_its_start_is_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("nonsense"), "{}").unwrap();
        std::fs::write(path("good"), STAND_IN).unwrap();
        let place = folder.path().display();
        let mistakes = |lines: &str| {
            let config =
                crate::config::Config::parse(&format!("domain = \"a.example\"\n{lines}"), "cokd.toml").unwrap();
            mistakes(&config.certificates, "a.example", &look)
        };
        let eab = |file: &str| format!("[acme]\neab_key_id = \"a\"\neab_hmac_key_file = \"{file}\"");
        let tsig = |file: &str| {
            let dns = "[acme.dns]\nprovider = \"rfc2136\"\nserver = \"a\"\ntsig_name = \"k\"";
            format!("{dns}\ntsig_secret_file = \"{file}\"")
        };
        for fine in [
            String::new(),
            eab(&format!("{place}/good")),
            tsig(&format!("{place}/good")),
            // Credentials, which only the service can read.
            eab("cokd-test-credential"),
            tsig("cokd-test-credential"),
            "[tls]\nmode = \"files\"\ncert = \"cokd-test-credential\"\nkey = \"b\"".to_owned(),
        ] {
            assert_eq!(mistakes(&fine), [""; 0], "{fine}");
        }
        for (lines, key, file) in [
            (
                format!("[tls]\nmode = \"files\"\ncert = \"{place}/nonsense\"\nkey = \"{place}/good\""),
                "tls.cert",
                "nonsense",
            ),
            (format!("[acme]\nca_file = \"{place}/nonsense\""), "acme.ca_file", "nonsense"),
            (eab(&format!("{place}/nonsense")), "acme.eab_hmac_key_file", "nonsense"),
            (tsig(&format!("{place}/nonsense")), "acme.dns", "nonsense"),
        ] {
            let [mistake] = &mistakes(&lines)[..] else { panic!("{lines}") };
            let start = format!("{key}: ");
            assert!(mistake.starts_with(&start) && mistake.contains(&format!("{place}/{file}")), "{mistake}");
        }
    }

    #[cfg(feature = "cloud-dns")]
    #[test]
    fn a_missing_provider_id_is_a_mistake() {
        let text = "domain = \"a.example\"\n[acme.dns]\nprovider = \"route53\"\ntoken_file = \"cokd-test-credential\"";
        let [mistake] =
            &mistakes(&crate::config::Config::parse(text, "cokd.toml").unwrap().certificates, "a.example", &look)[..]
        else {
            panic!()
        };
        assert!(mistake.starts_with("acme.dns: route53 wants"), "{mistake}");
    }
}
