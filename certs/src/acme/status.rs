//! What an operator is shown, read from the store beside a running process.

use std::path::Path;

use super::plan;
use super::requested::requested;
use super::state::State;
use super::validity::Validity;
use crate::error::Error;
use crate::files::Facts;
use crate::store::Store;

/// Where a certificate stands. Moments are in seconds since 1970.
#[derive(Clone, Debug)]
pub struct Status {
    /// The certificate that is kept; nothing before the first.
    pub certificate: Option<Facts>,
    /// When it is renewed if all goes well.
    pub next_renewal: Option<i64>,
    /// When the next attempt begins; now or before if it is about to.
    pub next_try: i64,
    /// When the last attempt began.
    pub last_try: Option<i64>,
    /// What went wrong with the last attempt.
    pub last_error: Option<String>,
    /// Attempts since the last success, or those that nothing came of.
    pub failures: u32,
    /// Somebody has asked for a new one, or for a new key of the account, which comes with it.
    pub requested: bool,
    /// A process renews it.
    pub managed: bool,
}

/// The status of the certificate for `names` from `directory` (a URL), as it is at `now`.
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
        // As the process that renews sees it: what was asked for is wanted until it succeeds.
        next_try: if requested { plan::due_at_once } else { plan::due }(now, validity, &state),
        last_try: state.tried_at.or(state.issued_at),
        last_error: state.last_error,
        failures: state.failures,
        certificate,
        requested,
        managed,
    })
}
