//! Which certificate is served, where it comes from, and what keeps it fresh.

mod solver;

use std::fs::File;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cok_certs::acme::{self, Event, Renewer};
use cok_certs::dns::SolverError;
use cok_certs::dns::embedded::{self, Embedded, Sockets};
use cok_certs::files::{self, Facts, Watch};
use cok_certs::store::Store;
use cok_certs::{Authority, CertResolver, date};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::activation::Inherited;
use crate::config::{Acme, Config, Tls};
use crate::metrics::Metrics;
use crate::secrets;

/// How often a certificate of our own is made anew; it is valid for 90 days.
const REISSUE_EVERY: Duration = Duration::from_secs(24 * 3600);

/// How often the files of a certificate are looked at. A change counts once two looks have found the same.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How soon files that were refused are looked at again although they have not changed: a disk may have been out of order,
/// or the clock a little behind that of whoever has made the certificate.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// What reads a secret.
type Read = fn(&Path) -> anyhow::Result<String>;

/// The names that a certificate must cover.
pub(crate) fn names(domain: &str) -> [String; 2] {
    [domain.to_owned(), format!("*.{domain}")]
}

/// The certificate that is served, and its source.
pub(crate) struct Certificates {
    names: [String; 2],
    resolver: Arc<CertResolver>,
    source: Source,
    metrics: Arc<Metrics>,
}

enum Source {
    Acme(Box<Renewer>),
    Files { cert: PathBuf, key: PathBuf, watch: Watch },
    SelfSigned(Authority),
}

/// The responder for the DNS zone, with its addresses. One that cannot be bound is no reason not to start: the daemon
/// serves what certificate it has, and tries the address again.
pub(crate) struct Dns {
    pub(crate) responder: Arc<Embedded>,
    pub(crate) listeners: Vec<(SocketAddr, Result<Sockets, SolverError>)>,
}

impl Certificates {
    /// Loads what is there. Nothing is asked of anyone yet.
    pub(crate) fn new(
        config: &Config,
        metrics: Arc<Metrics>,
        inherited: &mut Inherited,
    ) -> anyhow::Result<(Self, Option<Dns>)> {
        let domain = config.domain.as_str();
        let names = names(domain);
        let covered = names.each_ref().map(String::as_str);
        let mut dns = None;
        let (certificate, source) = match &config.tls {
            Tls::Files { cert, key } => {
                let (cert, key) = (secrets::place(cert), secrets::place(key));
                let watch = Watch::new(vec![cert.clone(), key.clone()]);
                let (certificate, facts) = files::load(&cert, &key, &covered)?;
                serving(&metrics, "files", &facts);
                (certificate, Source::Files { cert, key, watch })
            }
            Tls::SelfSigned => {
                let (authority, certificate) = self_signed(config, &covered)?;
                serving(&metrics, "self-signed", &files::facts_of(&certificate)?);
                (certificate, Source::SelfSigned(authority))
            }
            Tls::Acme(acme) => {
                let (solver, responder) = solver::new(&acme.dns, domain, secrets::read)?;
                let store = Store::open(&config.state_dir, &acme.directory)?;
                let renewer = Renewer::new(settings(acme, secrets::read)?, &covered, store, solver)?;
                let certificate = if let Some(stored) = renewer.current() {
                    serving(&metrics, "acme", &stored.facts);
                    stored.certified.clone()
                } else {
                    let (_, certificate) = self_signed(config, &covered)?;
                    warn!(
                        event = "stand_in",
                        "there is no certificate yet; a self-signed one is served until there is"
                    );
                    certificate
                };
                let bind = |responder| Dns::bind(responder, &config.listen.dns, inherited);
                dns = responder.map(bind).transpose()?;
                (certificate, Source::Acme(Box::new(renewer)))
            }
        };
        let resolver = Arc::new(CertResolver::new(domain, certificate));
        Ok((Self { names, resolver, source, metrics }, dns))
    }

    /// Which certificate a connection gets.
    pub(crate) fn resolver(&self) -> Arc<CertResolver> {
        self.resolver.clone()
    }

    /// Keeps the certificate fresh, for ever.
    pub(crate) async fn keep_fresh(self) {
        let Self { names, resolver, source, metrics } = self;
        match source {
            Source::Acme(renewer) => {
                let report = move |event| match event {
                    Event::Serving(validity) => {
                        metrics.certificate_expiry.set(validity.not_after);
                        let (not_after, until) = (validity.not_after, date(validity.not_after));
                        info!(
                            event = "certificate",
                            source = "acme",
                            not_after,
                            "the certificate is served; it is valid until {until}"
                        );
                    }
                    Event::Issued => {
                        metrics.certificate_renewals.inc();
                    }
                    Event::Failed => {
                        metrics.certificate_failures.inc();
                    }
                };
                renewer.run(resolver, report).await;
            }
            Source::Files { cert, key, watch } => {
                let watch = Arc::new(Mutex::new(watch));
                // When files were refused last, and why.
                let mut refused: Option<(Instant, String)> = None;
                loop {
                    tokio::time::sleep(LOOK_EVERY).await;
                    let (watch, cert, key, names) = (watch.clone(), cert.clone(), key.clone(), names.clone());
                    let again = refused.as_ref().is_some_and(|(at, _)| at.elapsed() >= AGAIN_AFTER);
                    // The files may be on a disk that is slow.
                    let looked = tokio::task::spawn_blocking(move || {
                        let changed = watch.lock().unwrap_or_else(PoisonError::into_inner).changed();
                        let load = || files::load(&cert, &key, &names.each_ref().map(String::as_str));
                        (changed || again).then(|| (changed, load()))
                    });
                    let Ok(Some((changed, loaded))) = looked.await else { continue };
                    let why = loaded.as_ref().err().map(ToString::to_string);
                    // The same is not said twice of the same files.
                    let said = !changed && why.is_some() && refused.take().map(|(_, why)| why) == why;
                    refused = why.map(|why| (Instant::now(), why));
                    if !said {
                        take(&metrics, &resolver, "files", loaded);
                    }
                }
            }
            Source::SelfSigned(authority) => loop {
                tokio::time::sleep(REISSUE_EVERY).await;
                let issued = authority.issue(&names.each_ref().map(String::as_str));
                let issued = issued.and_then(|certificate| Ok((certificate.clone(), files::facts_of(&certificate)?)));
                take(&metrics, &resolver, "self-signed", issued);
            },
        }
    }
}

/// Serves another certificate from now on, or says why not.
fn take(
    metrics: &Metrics,
    resolver: &CertResolver,
    source: &str,
    found: Result<(Arc<CertifiedKey>, Facts), cok_certs::Error>,
) {
    match found {
        Ok((certificate, facts)) => {
            resolver.replace(certificate);
            metrics.certificate_renewals.inc();
            serving(metrics, source, &facts);
        }
        Err(error) => {
            metrics.certificate_failures.inc();
            error!(event = "certificate_refused", %error, "{error}; the certificate before is served on");
        }
    }
}

/// What is wrong with the settings that shows only when they are used, each with its key and file: what would keep the
/// daemon from its start. Nobody is asked, and nothing is made.
pub(crate) fn mistakes(config: &Config) -> Vec<String> {
    let domain = config.domain.as_str();
    let mut mistakes = Vec::new();
    match &config.tls {
        Tls::Files { cert, key } if is_visible(cert) && is_visible(key) => {
            let (cert, key) = (secrets::place(cert), secrets::place(key));
            if let Err(error) = files::load(&cert, &key, &names(domain).each_ref().map(String::as_str)) {
                let name = if error.path() == Some(&*key) { "tls.key" } else { "tls.cert" };
                mistakes.push(format!("{name}: {error}"));
            }
        }
        Tls::Files { .. } | Tls::SelfSigned => {}
        Tls::Acme(acme) => {
            if let Err(error) = solver::new(&acme.dns, domain, read_visible) {
                mistakes.push(format!("acme.dns: {error:#}"));
            }
            if let Err(error) = external_account(acme, read_visible) {
                mistakes.push(format!("acme.eab_hmac_key_file: {error:#}"));
            }
            if let Some(ca_file) = &acme.ca_file
                && let Err(error) = acme::check_ca_file(ca_file)
            {
                mistakes.push(format!("acme.ca_file: {error}"));
            }
        }
    }
    mistakes
}

/// What stands for a secret that whoever checks the configuration cannot see, in base64 as many have to be.
const STAND_IN: &str = "c3RhbmQtaW4h";

fn read_visible(path: &Path) -> anyhow::Result<String> {
    if is_visible(path) { secrets::read(path) } else { Ok(STAND_IN.to_owned()) }
}

/// Credentials of the service are seen by the service alone, and the files of its user by nobody else; what cannot be seen
/// is no mistake.
fn is_visible(path: &Path) -> bool {
    match File::open(secrets::place(path)) {
        Ok(_) => true,
        Err(error) => path.is_absolute() && error.kind() != ErrorKind::PermissionDenied,
    }
}

impl Dns {
    /// Binds all addresses, unless sockets were handed over.
    fn bind(responder: Arc<Embedded>, addresses: &[SocketAddr], inherited: &mut Inherited) -> anyhow::Result<Self> {
        let mut listeners = Vec::new();
        for (udp, tcp) in inherited.dns_udp.drain(..).zip(inherited.dns_tcp.drain(..)) {
            let sockets = Sockets::from_std(udp, tcp).context("a DNS socket that was handed over")?;
            listeners.push((sockets.address, Ok(sockets)));
        }
        if listeners.is_empty() {
            listeners = addresses.iter().map(|address| (*address, embedded::bind(*address))).collect();
        }
        Ok(Self { responder, listeners })
    }
}

fn serving(metrics: &Metrics, source: &str, facts: &Facts) {
    metrics.certificate_expiry.set(facts.not_after);
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

fn self_signed(config: &Config, names: &[&str]) -> anyhow::Result<(Authority, Arc<CertifiedKey>)> {
    let authority = Authority::load_or_create(&config.state_dir.join("authority"))?;
    let ca_file = authority.ca_file().display();
    info!(event = "authority", %ca_file, "the daemon has an authority of its own, which clients trust by --ca-file {ca_file}");
    let certificate = authority.issue(names)?;
    Ok((authority, certificate))
}

fn settings(acme: &Acme, read: Read) -> anyhow::Result<acme::Settings> {
    Ok(acme::Settings {
        directory: acme.directory.clone(),
        contact: acme.contact.clone(),
        ca_file: acme.ca_file.clone(),
        external_account: external_account(acme, read)?,
        profile: acme.profile.clone(),
        fingerprint: fingerprint(acme, read)?,
    })
}

/// The identifier and the HMAC key of the account that ours is bound to.
fn external_account(acme: &Acme, read: Read) -> anyhow::Result<Option<(String, Vec<u8>)>> {
    let Some(account) = &acme.external_account else { return Ok(None) };
    let text = read(&account.hmac_key_file)?;
    // Authorities hand it out with and without padding. The decoder's error would show bytes of the key.
    let key = BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
    let key = key.with_context(|| format!("{}: expected base64url", account.hmac_key_file.display()))?;
    Ok(Some((account.key_id.clone(), key)))
}

/// Changes with all that an order depends on: the settings, and what stands in the files of secrets that they name.
fn fingerprint(acme: &Acme, read: Read) -> anyhow::Result<String> {
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

    #[test]
    fn what_would_keep_the_daemon_from_its_start_is_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("nonsense"), "{}").unwrap();
        std::fs::write(path("good"), STAND_IN).unwrap();
        let place = folder.path().display();
        let mistakes = |lines: &str| {
            let config = Config::parse(&format!("domain = \"a.example\"\n{lines}"), "cokd.toml").unwrap();
            mistakes(&config)
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
            // Credentials of the service.
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
    fn what_a_provider_wants_beside_the_token_is_missed() {
        let text = "domain = \"a.example\"\n[acme.dns]\nprovider = \"route53\"\ntoken_file = \"cokd-test-credential\"";
        let [mistake] = &mistakes(&Config::parse(text, "cokd.toml").unwrap())[..] else { panic!() };
        assert!(mistake.starts_with("acme.dns: route53 wants"), "{mistake}");
    }
}
