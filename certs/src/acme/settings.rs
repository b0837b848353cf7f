//! Which ACME server is used, and under which account.

use std::path::{Path, PathBuf};

use super::http;
use crate::error::Error;

/// The settings of renewal.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server's directory URL.
    pub directory: String,
    /// Where the server reaches the operator, such as `mailto:ops@example.com`.
    pub contact: Vec<String>,
    /// The authorities of a private server in PEM. Without it, those of the system are trusted.
    pub ca_file: Option<PathBuf>,
    /// The key identifier and the decoded HMAC key of an external account binding (RFC 8555, section 7.3.4).
    pub external_account: Option<(String, Vec<u8>)>,
    /// The certificate profile to order, if the server offers it.
    pub profile: Option<String>,
    /// A hash of everything that an attempt depends on besides the names, such as account and solver. When it changes,
    /// earlier failures no longer delay attempts.
    pub fingerprint: String,
}

/// Checks that a file is fit for [`Settings::ca_file`].
pub fn check_ca_file(path: &Path) -> Result<(), Error> {
    http::Client::new(Some(path)).map(drop)
}
