//! Certificate settings. A change of any needs a restart.

use std::path::PathBuf;

use cok_certs::dns::embedded::Zone;

use crate::startup::startup;

startup! {
    /// Settings of certificates.
    struct Config {
        /// The source of certificates.
        source: Tls = "tls or acme",
    }
}

/// A source of certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    /// An authority, by ACME (RFC 8555).
    Acme(Box<Acme>),
    /// PEM files, which are read again when they change.
    Files {
        /// The certificate and its chain.
        cert: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// The daemon's own authority in the state directory, for development.
    SelfSigned,
}

/// The ACME server, and how the domain is proven to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acme {
    /// The server's directory URL.
    pub(crate) directory: String,
    /// The operator's addresses for the authority, such as `mailto:ops@example.com`.
    pub(crate) contact: Vec<String>,
    /// Trust anchors of a private server in PEM, instead of the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// A profile of certificates that the server may offer.
    pub(crate) profile: Option<String>,
    /// The account at the authority that ours is bound to (RFC 8555, section 7.3.4).
    pub(crate) external_account: Option<ExternalAccount>,
    /// The publisher of the DNS proof.
    pub(crate) dns: Dns,
}

/// Credentials for an external account binding, issued by the authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExternalAccount {
    /// The key's identifier.
    pub(crate) key_id: String,
    /// The file with the HMAC key in base64url.
    pub(crate) hmac_key_file: PathBuf,
}

/// The publisher of the TXT records that prove the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dns {
    /// The daemon answers for a zone itself.
    Embedded(Box<Zone>),
    /// A program of the operator.
    Exec {
        /// Its path.
        program: PathBuf,
    },
    /// An HTTP service of the operator.
    HttpReq {
        /// Its URL; `/present` and `/cleanup` are appended.
        url: String,
        /// The user, if it asks for one.
        username: Option<String>,
        /// The file with the user's password.
        password_file: Option<PathBuf>,
        /// Trust anchors of a private service in PEM.
        ca_file: Option<PathBuf>,
    },
    /// Dynamic updates (RFC 2136).
    Rfc2136 {
        /// The primary name server, with a port if it is not 53.
        server: String,
        /// The zone; the server is asked for it if absent.
        zone: Option<String>,
        /// The key that signs the updates (RFC 8945).
        tsig: Option<Tsig>,
    },
    /// The interface of a DNS provider; with the cargo feature `cloud-dns`.
    Cloud {
        /// The provider's name.
        provider: String,
        /// The file with the token, secret key or password.
        token_file: PathBuf,
        /// What some providers also need: a key's identifier, a user's name or an account's number.
        id: Option<String>,
        /// The zone at the provider; looked up if absent.
        zone: Option<String>,
    },
}

impl Dns {
    /// The file with its secret, if it has one.
    pub(crate) fn secret_file(&self) -> Option<&PathBuf> {
        match self {
            Self::Embedded(_) | Self::Exec { .. } => None,
            Self::HttpReq { password_file, .. } => password_file.as_ref(),
            Self::Rfc2136 { tsig, .. } => tsig.as_ref().map(|tsig| &tsig.secret_file),
            Self::Cloud { token_file, .. } => Some(token_file),
        }
    }
}

/// A TSIG key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tsig {
    /// Its name, the same as at the server.
    pub(crate) name: String,
    /// Its algorithm, such as `hmac-sha256`.
    pub(crate) algorithm: String,
    /// The file with its secret in base64.
    pub(crate) secret_file: PathBuf,
}

impl Tls {
    /// Whether the daemon answers DNS queries itself.
    pub(crate) fn answers_dns(&self) -> bool {
        matches!(self, Self::Acme(acme) if matches!(acme.dns, Dns::Embedded(_)))
    }
}
