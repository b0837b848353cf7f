//! What `cokd cert status` shows: from the running daemon, or else from its files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cok_certs::acme::{self, Status};
use cok_certs::files::{self, Facts};
use cok_certs::store::{Request, Store};
use cok_certs::{Authority, unix_now};
use serde::{Deserialize, Serialize};

use super::{AUTHORITY, Config, State, Tls, names};
use crate::host::credentials;

/// The fields that are shown, flat for scripts. Unknown ones are null. Moments are in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CertificateStatus {
    pub(crate) source: String,
    pub(crate) names: Vec<String>,
    pub(crate) issuer: Option<String>,
    pub(crate) serial: Option<String>,
    pub(crate) not_before: Option<i64>,
    pub(crate) not_after: Option<i64>,
    /// The certificate of the daemon's own authority, for those who trust it.
    pub(crate) authority: Option<PathBuf>,
    pub(crate) authority_not_after: Option<i64>,
    pub(crate) next_renewal: Option<i64>,
    pub(crate) next_try: Option<i64>,
    pub(crate) last_try: Option<i64>,
    pub(crate) last_error: Option<String>,
    /// True if the last error is one of DNS.
    pub(crate) dns_failed: Option<bool>,
    pub(crate) failures: Option<u32>,
    pub(crate) requested: Option<bool>,
    /// True if a daemon runs, which keeps the certificate fresh.
    pub(crate) managed: Option<bool>,
}

/// The status of a running daemon's certificate.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(super) config: Config,
    pub(super) domain: String,
    pub(super) state_dir: PathBuf,
    pub(super) state: Arc<State>,
}

impl Served {
    /// The status now. It reads files.
    pub(crate) fn status(&self) -> Result<CertificateStatus, cok_certs::Error> {
        let (facts, refused) = self.state.served();
        Ok(match &self.config.source {
            Tls::Acme(_) => stored(&self.config, &self.domain, &self.state_dir)?,
            Tls::Files { .. } => {
                CertificateStatus { last_error: refused, managed: Some(true), ..CertificateStatus::of("files", facts) }
            }
            Tls::SelfSigned => {
                let shown = CertificateStatus { managed: Some(true), ..CertificateStatus::of("self-signed", facts) };
                shown.with_authority(&self.state_dir)
            }
        })
    }

    /// When the certificate expires, in seconds since 1970. `None` while only a stand-in is served.
    pub(crate) fn not_after(&self) -> Option<i64> {
        self.state.not_after()
    }

    /// Asks for a new certificate. `false` if none can be had that way. It writes a file.
    pub(crate) fn renew(&self) -> Result<bool, cok_certs::Error> {
        let Tls::Acme(acme) = &self.config.source else { return Ok(false) };
        let Some(store) = Store::existing(&self.state_dir, &acme.directory)? else { return Ok(false) };
        store.request(Request::Renewal)?;
        Ok(true)
    }
}

/// The status as the files have it, without a daemon.
pub(crate) fn stored(config: &Config, domain: &str, state_dir: &Path) -> Result<CertificateStatus, cok_certs::Error> {
    let names = names(domain);
    Ok(match &config.source {
        Tls::Acme(acme) => {
            let covered = names.each_ref().map(String::as_str);
            let status = acme::status(state_dir, &acme.directory, &covered, unix_now())?;
            let Status { certificate, next_renewal, next_try, last_try, last_error, .. } = status;
            let Status { dns_failed, failures, requested, managed, .. } = status;
            CertificateStatus {
                next_renewal,
                next_try: Some(next_try),
                last_try,
                last_error,
                dns_failed: Some(dns_failed),
                failures: Some(failures),
                requested: Some(requested),
                managed: Some(managed),
                ..CertificateStatus::of("acme", certificate)
            }
        }
        Tls::Files { cert, .. } => {
            let facts = files::first_facts(&credentials::resolve(cert))?;
            CertificateStatus { managed: Some(false), ..CertificateStatus::of("files", Some(facts)) }
        }
        // The daemon keeps the key in memory, and the certificate in a file as well.
        Tls::SelfSigned => {
            let file = Authority::issued_file(&state_dir.join(AUTHORITY));
            let facts = if file.exists() { Some(files::first_facts(&file)?) } else { None };
            let shown = CertificateStatus { managed: Some(false), ..CertificateStatus::of("self-signed", facts) };
            let shown = shown.with_authority(state_dir);
            if shown.names.is_empty() { CertificateStatus { names: names.to_vec(), ..shown } } else { shown }
        }
    })
}

impl CertificateStatus {
    fn of(source: &str, facts: Option<Facts>) -> Self {
        let source = source.to_owned();
        let Some(Facts { names, issuer, serial, not_before, not_after }) = facts else {
            return Self { source, ..Self::default() };
        };
        Self {
            source,
            names,
            issuer: Some(issuer),
            serial: Some(serial),
            not_before: Some(not_before),
            not_after: Some(not_after),
            ..Self::default()
        }
    }

    /// Adds the daemon's own authority, if it is there.
    fn with_authority(mut self, state_dir: &Path) -> Self {
        let file = Authority::certificate_file(&state_dir.join(AUTHORITY));
        if let Ok(facts) = files::first_facts(&file) {
            self.authority = Some(file);
            self.authority_not_after = Some(facts.not_after);
        }
        self
    }
}
