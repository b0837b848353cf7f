//! What `cert status` shows, read from the store while another process may renew.
//!
//! It changes nothing.

use std::path::Path;

use super::plan;
use super::requested::requested;
use super::state::State;
use super::validity::Validity;
use crate::error::Error;
use crate::files::Facts;
use crate::store::Store;

/// The state of a certificate. Moments are in seconds since 1970.
#[derive(Clone, Debug)]
pub struct Status {
    /// The newest certificate of the store; `None` before the first.
    pub certificate: Option<Facts>,
    /// When it is renewed if no attempt fails.
    pub next_renewal: Option<i64>,
    /// When the next attempt begins. A moment in the past means that it is about to begin.
    pub next_try: i64,
    /// When the last attempt began.
    pub last_try: Option<i64>,
    /// The error of the last attempt.
    pub last_error: Option<String>,
    /// True if the last error is one of DNS: the record for the proof could not be published.
    pub dns_failed: bool,
    /// Attempts since the last success.
    pub failures: u32,
    /// True while a request for a new certificate or a new account key is open.
    pub requested: bool,
    /// True if a running process renews it.
    pub managed: bool,
}

/// The status at `now` of the certificate for `names` from `directory` (a URL).
pub fn status(state_dir: &Path, directory: &str, names: &[&str], now: i64) -> Result<Status, Error> {
    let store = Store::existing(state_dir, directory)?;
    let (stored, state, requested, managed) = match &store {
        Some(store) => (
            store.load(names)?,
            store.read_json::<State>("state.json")?,
            requested(store) != [None; 2],
            store.is_held()?,
        ),
        None => (None, None, false, false),
    };
    let mut state = state.unwrap_or_default();
    let certificate = stored.map(|stored| stored.facts);
    if let Some(facts) = &certificate {
        state.is_for(&facts.serial);
    }
    let validity =
        certificate.as_ref().map(|facts| Validity { not_before: facts.not_before, not_after: facts.not_after });
    Ok(Status {
        next_renewal: validity.map(|validity| plan::renewal(validity, &state)),
        // Computed as in the renewing process: a request stays open until an attempt succeeds.
        next_try: if requested { plan::due_at_once } else { plan::due }(now, validity, &state),
        last_try: state.tried_at.or(state.issued_at),
        last_error: state.last_error,
        dns_failed: state.dns_failed,
        failures: state.failures,
        certificate,
        requested,
        managed,
    })
}
