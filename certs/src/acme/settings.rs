//! Which ACME server is asked, and with which account.

use std::path::{Path, PathBuf};

use super::http;
use crate::error::Error;

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
