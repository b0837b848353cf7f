//! What renewal remembers across restarts: failures, waits and the server's suggestions.
//!
//! When an attempt is due is computed from it elsewhere.

use serde::{Deserialize, Serialize};

use super::validity::{Validity, Window};

/// The wait after each failure in a row, in seconds; the last one repeats. An authority tolerates few failures an hour.
pub(super) const WAITS: [i64; 8] = [10, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600];
/// The longest `Retry-After` that is respected.
pub(super) const LONGEST_WAIT: i64 = 24 * 3600;
/// How long no certificate is ordered after one was issued, whatever the server or the clock suggests. It doubles each
/// time that the next certificate is due long before its time...
pub(super) const REST: i64 = 3600;
/// ...up to this.
const LONGEST_REST: i64 = 24 * 3600;
/// An account that the server refuses is replaced at most this often.
const NEW_ACCOUNT_EVERY: i64 = 24 * 3600;

/// What renewal remembers across restarts. Moments are in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What the attempts are for: names, account and solver, as the caller describes them.
    pub(super) purpose: Option<String>,
    /// Attempts since the last success. An attempt is counted before it begins, so that a crash does not hide it.
    pub failures: u32,
    /// When the last attempt began.
    pub(super) tried_at: Option<i64>,
    /// When the last attempt failed, if it did.
    pub(super) failed_at: Option<i64>,
    /// When the next attempt may begin by our own waits.
    pub(super) next_try: Option<i64>,
    /// When the next attempt may begin by the server's `Retry-After`.
    pub(super) retry_after: Option<i64>,
    /// When the last certificate was issued.
    pub(super) issued_at: Option<i64>,
    /// How long no certificate is ordered after that, in seconds.
    pub(super) rest: i64,
    /// When an account was last replaced because the server refused it.
    pub(super) account_replaced_at: Option<i64>,
    /// The last error.
    pub last_error: Option<String>,
    /// The last error is one of DNS: the record for the proof could not be published.
    pub(super) dns_failed: bool,
    /// The authority's suggestion for the certificate `window_of`.
    pub(super) window: Option<Window>,
    /// The serial number of the certificate that the window is for.
    pub(super) window_of: Option<String>,
    /// When to ask the authority for the window again.
    pub(super) ask_window_at: Option<i64>,
    /// Where in a window this certificate is renewed, from 0 to 1. It is drawn for each certificate, so that not all
    /// daemons come at once.
    pub(super) lot: f64,
}

impl State {
    /// Counts an attempt. The caller saves the state before the attempt begins.
    pub fn begin(&mut self, now: i64) {
        self.failures = self.failures.saturating_add(1);
        (self.tried_at, self.failed_at) = (Some(now), None);
        self.next_try = Some(now + self.wait());
    }

    /// Records that the attempt failed; `retry_after` is the moment that the server named.
    ///
    /// The wait counts from now, because an attempt may take longer than the wait that [`Self::begin`] has set.
    pub(super) fn failed(&mut self, now: i64, error: String, retry_after: Option<i64>) {
        self.failed_at = Some(now);
        self.next_try = Some(now + self.wait());
        self.last_error = Some(error);
        self.retry_after = retry_after.map(|at| at.min(now + LONGEST_WAIT));
    }

    /// The wait after this many failures.
    fn wait(&self) -> i64 {
        let wait = WAITS[(self.failures.saturating_sub(1) as usize).min(WAITS.len() - 1)];
        // Up to a tenth more.
        wait + (wait as f64 / 10.0 * self.lot.clamp(0.0, 1.0)) as i64
    }

    /// Records that a certificate was issued; `lot` is drawn from 0 to 1.
    pub(super) fn succeeded(&mut self, now: i64, validity: Validity, lot: f64) {
        // Renewed in the first third of its lifetime: on request, or because a clock or the server's advice is wrong.
        // The latter must not repeat endlessly.
        let lifetime = validity.lifetime();
        let early = self.issued_at.is_some_and(|at| (0..lifetime / 3).contains(&now.saturating_sub(at)));
        let first = REST.min(lifetime / 10);
        let rest = if early { self.rest.saturating_mul(2).clamp(first, LONGEST_REST.min(lifetime / 3)) } else { first };
        let (purpose, account_replaced_at) = (self.purpose.take(), self.account_replaced_at);
        *self = Self { purpose, lot, issued_at: Some(now), rest, account_replaced_at, ..Self::default() };
    }

    /// Clears failures and the pause between orders if the attempts had another purpose, so that a corrected setting
    /// takes effect at once.
    ///
    /// The server's `Retry-After` stays, and so does the time of the last new account. Returns true if the purpose is
    /// new.
    pub fn is_meant_for(&mut self, purpose: &str) -> bool {
        if self.purpose.as_deref() == Some(purpose) {
            return false;
        }
        if self.purpose.replace(purpose.to_owned()).is_some() {
            self.failures = 0;
            self.rest = 0;
            (self.next_try, self.issued_at, self.last_error) = (None, None, None);
        }
        true
    }

    /// True if an account that the server refuses may be replaced now.
    pub(super) fn may_replace_account(&self, now: i64) -> bool {
        self.account_replaced_at.is_none_or(|at| at > now || now - at >= NEW_ACCOUNT_EVERY)
    }

    /// Forgets the window of any other certificate.
    pub(super) fn is_for(&mut self, serial: &str) {
        if self.window_of.as_deref() != Some(serial) {
            (self.window, self.ask_window_at, self.window_of) = (None, None, Some(serial.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;
    const VALIDITY: Validity = Validity { not_before: 0, not_after: 90 * DAY };

    #[test]
    fn a_window_is_for_one_certificate_only() {
        let mut state = State::default();
        state.is_for("a");
        state.window = Some(Window { start: 1, end: 2 });
        state.is_for("a");
        assert!(state.window.is_some());
        state.is_for("b");
        assert!(state.window.is_none() && state.ask_window_at.is_none());
    }

    #[test]
    fn an_account_is_replaced_once_a_day_at_the_most() {
        let mut state = State::default();
        assert!(state.may_replace_account(0));
        state.account_replaced_at = Some(100);
        state.succeeded(200, VALIDITY, 0.0);
        assert!(!state.may_replace_account(100 + DAY - 1));
        assert!(state.may_replace_account(100 + DAY) && state.may_replace_account(99));
    }
}
