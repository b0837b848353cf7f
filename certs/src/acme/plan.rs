//! When the next certificate is ordered: pure reckoning with moments in seconds since 1970.

use serde::{Deserialize, Serialize};

/// Waits after failures, one after another; the last one stays. An authority forgives few failures an hour.
const WAITS: [i64; 8] = [10, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600];
/// The longest that a server's `Retry-After` is believed.
const LONGEST_WAIT: i64 = 24 * 3600;
/// In the emergency window no wait is longer, of our own or named by the server: visitors are about to be turned away,
/// and one request in ten minutes is no burden.
const EMERGENCY_WAIT: i64 = 600;
/// After a certificate was issued, none is ordered for this long, whatever the server or the clock suggests; it doubles
/// each time that the next one is due again long before its time.
const REST: i64 = 3600;
/// And for no longer than this.
const LONGEST_REST: i64 = 24 * 3600;
/// Without any certificate visitors are turned away, so no wait of our own is longer than this...
const LONGEST_WAIT_WITHOUT: i64 = 3600;
/// ...and the rest is this part of what it would be with one: ten minutes at first. It still grows, for whatever loses one
/// certificate after another.
const REST_WITHOUT: i64 = 6;
/// A certificate that the server does not know any account for gets a new one at most this often.
const NEW_ACCOUNT_EVERY: i64 = 24 * 3600;

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// In seconds since 1970.
    pub not_before: i64,
    /// In seconds since 1970.
    pub not_after: i64,
}

impl Validity {
    /// Whether the certificate is about to expire, or has.
    pub fn is_emergency(self, now: i64) -> bool {
        now >= self.emergency()
    }

    /// When the last tenth of the lifetime begins.
    fn emergency(self) -> i64 {
        self.not_after - self.lifetime() / 10
    }

    fn lifetime(self) -> i64 {
        self.not_after.saturating_sub(self.not_before).max(0)
    }
}

/// When the authority would like a certificate to be renewed (RFC 9773, section 4.2), in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its start.
    pub start: i64,
    /// Its end.
    pub end: i64,
}

/// What renewal remembers over restarts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What the attempts are for: names, account and solver, in the caller's words.
    pub purpose: Option<String>,
    /// Attempts since the last success. An attempt counts from before it begins, so that one that a crash cuts short
    /// counts too.
    pub failures: u32,
    /// When the last attempt began.
    pub tried_at: Option<i64>,
    /// When it failed, if it did.
    pub failed_at: Option<i64>,
    /// When the next may begin, as far as we are concerned.
    pub next_try: Option<i64>,
    /// When the next may begin, as the server has named it.
    pub retry_after: Option<i64>,
    /// When the last certificate was issued.
    pub issued_at: Option<i64>,
    /// For how long after that none is ordered, in seconds.
    pub rest: i64,
    /// When an account was last replaced that the server did not take any more.
    pub account_replaced_at: Option<i64>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// What the authority suggests for the certificate of `window_of`.
    pub window: Option<Window>,
    /// The serial number of the certificate that the window is for.
    pub window_of: Option<String>,
    /// When the authority is to be asked for the window again.
    pub ask_window_at: Option<i64>,
    /// Where in a window this certificate is renewed, 0 to 1: drawn anew for each, so that not all daemons come at once.
    pub lot: f64,
}

impl State {
    /// To be kept before an attempt begins.
    pub fn begin(&mut self, now: i64) {
        self.failures = self.failures.saturating_add(1);
        (self.tried_at, self.failed_at) = (Some(now), None);
        self.next_try = Some(now + self.wait());
    }

    /// An attempt failed; `retry_after` is the moment that the server named. Waits count from now: an attempt may take longer
    /// than the wait that was reckoned at its beginning.
    pub fn failed(&mut self, now: i64, error: String, retry_after: Option<i64>) {
        self.failed_at = Some(now);
        self.next_try = Some(now + self.wait());
        self.last_error = Some(error);
        self.retry_after = retry_after.map(|at| at.min(now + LONGEST_WAIT));
    }

    /// After so many failures.
    fn wait(&self) -> i64 {
        let wait = WAITS[(self.failures.saturating_sub(1) as usize).min(WAITS.len() - 1)];
        // Up to a tenth more.
        wait + (wait as f64 / 10.0 * self.lot.clamp(0.0, 1.0)) as i64
    }

    /// A certificate was issued; `lot` is drawn from 0 to 1.
    pub fn succeeded(&mut self, now: i64, validity: Validity, lot: f64) {
        // Renewed before a third of its lifetime has passed: by an operator, or because somebody's clock or advice is
        // wrong, which must not go on and on.
        let lifetime = validity.lifetime();
        let early = self.issued_at.is_some_and(|at| (0..lifetime / 3).contains(&now.saturating_sub(at)));
        let first = REST.min(lifetime / 10);
        let rest = if early { self.rest.saturating_mul(2).clamp(first, LONGEST_REST.min(lifetime / 3)) } else { first };
        let (purpose, account_replaced_at) = (self.purpose.take(), self.account_replaced_at);
        *self = Self { purpose, lot, issued_at: Some(now), rest, account_replaced_at, ..Self::default() };
    }

    /// Forgets the failures and the rest of attempts that were for something else: who has mended a mistake must not wait
    /// for it. What the server has asked for stays, and when an account was replaced. Says whether this is news.
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

    /// Whether an account that the server refuses may be replaced now.
    pub fn may_replace_account(&self, now: i64) -> bool {
        self.account_replaced_at.is_none_or(|at| at > now || now - at >= NEW_ACCOUNT_EVERY)
    }

    /// Forgets a window that is for another certificate.
    pub fn is_for(&mut self, serial: &str) {
        if self.window_of.as_deref() != Some(serial) {
            (self.window, self.ask_window_at, self.window_of) = (None, None, Some(serial.to_owned()));
        }
    }
}

/// When the certificate is to be renewed, failures left aside: in the window that the authority suggests, else at one
/// third of the lifetime left; never later than the emergency window.
pub fn renewal(validity: Validity, state: &State) -> i64 {
    let lot = state.lot.clamp(0.0, 1.0);
    let at = if let Some(Window { start, end }) = state.window {
        start.saturating_add((end.saturating_sub(start).max(0) as f64 * lot) as i64)
    } else {
        let lifetime = validity.lifetime();
        validity.not_after - lifetime / 3 - (lifetime as f64 / 30.0 * lot) as i64
    };
    at.min(validity.emergency())
}

/// When the next attempt is to begin, not before now. Without a certificate: as soon as failures allow.
pub fn due(now: i64, validity: Option<Validity>, state: &State) -> i64 {
    let wanted = validity.map_or(now, |validity| renewal(validity, state));
    due_at_once(now, validity, state).max(wanted)
}

/// The same if somebody wants it now, however long the old one is good for.
pub(super) fn due_at_once(now: i64, validity: Option<Validity>, state: &State) -> i64 {
    let emergency = validity.is_some_and(|validity| validity.is_emergency(now));
    // What was reckoned by a clock that has been set back since means nothing.
    let since = |at: Option<i64>| at.filter(|at| *at <= now);
    let (mut own, mut named, mut rest) = (None, None, state.rest);
    if let Some(tried) = since(state.tried_at) {
        let last = since(state.failed_at).unwrap_or(tried);
        (own, named) = (state.next_try, state.retry_after);
        if emergency {
            own = own.map(|at| at.min(last + EMERGENCY_WAIT));
            named = named.map(|at| at.min(last + EMERGENCY_WAIT));
        }
        if validity.is_none() {
            own = own.map(|at| at.min(last + LONGEST_WAIT_WITHOUT));
        }
    }
    if validity.is_none() {
        rest /= REST_WITHOUT;
    }
    let rested = since(state.issued_at).map(|at| at.saturating_add(rest));
    [own, named, rested].into_iter().flatten().fold(now, i64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;
    const VALIDITY: Validity = Validity { not_before: 0, not_after: 90 * DAY };

    #[test]
    fn one_third_of_the_lifetime_is_left_at_renewal_and_a_little_more_by_lot() {
        assert_eq!(renewal(VALIDITY, &State::default()), 60 * DAY);
        assert_eq!(renewal(VALIDITY, &State { lot: 1.0, ..State::default() }), 57 * DAY);
        assert_eq!(due(5 * DAY, Some(VALIDITY), &State::default()), 60 * DAY);
    }

    #[test]
    fn the_window_of_the_authority_comes_first_but_not_after_the_emergency() {
        let mut state = State { lot: 0.5, ..State::default() };
        state.window = Some(Window { start: 10 * DAY, end: 12 * DAY });
        assert_eq!(renewal(VALIDITY, &state), 11 * DAY);
        state.window = Some(Window { start: 12 * DAY, end: 10 * DAY });
        assert_eq!(renewal(VALIDITY, &state), 12 * DAY, "a nonsensical one");
        state.window = Some(Window { start: 100 * DAY, end: 200 * DAY });
        assert_eq!(renewal(VALIDITY, &state), 81 * DAY);
    }

    #[test]
    fn attempts_are_ever_further_apart_even_if_each_is_cut_short() {
        let gaps = |validity| {
            let (mut state, mut now, mut gaps) = (State::default(), 60 * DAY, Vec::new());
            assert_eq!(due(now, validity, &state), now);
            for _ in 0..10 {
                state.begin(now);
                let next = due(now, validity, &state);
                gaps.push(next - now);
                now = next;
            }
            gaps
        };
        assert_eq!(gaps(Some(VALIDITY))[..8], WAITS);
        assert_eq!(gaps(Some(VALIDITY))[9], WAITS[7]);
        // Without a certificate they come once an hour at last.
        assert_eq!(gaps(None)[..5], WAITS[..5]);
        assert_eq!(gaps(None)[5..], [3600; 5]);
    }

    #[test]
    fn certificates_that_are_lost_one_after_another_are_ordered_ever_more_seldom() {
        let (mut state, mut now, mut gaps) = (State::default(), 1000, Vec::new());
        for _ in 0..7 {
            state.begin(now);
            state.succeeded(now, Validity { not_before: now, not_after: now + 90 * DAY }, 0.5);
            let next = due(now, None, &state);
            gaps.push((next - now) / 60);
            now = next;
        }
        assert_eq!(gaps, [10, 20, 40, 80, 160, 240, 240]);
    }

    #[test]
    fn failures_and_rest_end_with_what_they_were_for() {
        let now = 1000;
        let mut state = State { failures: 7, account_replaced_at: Some(5), ..State::default() };
        assert!(state.is_meant_for("a"), "which a version before did not know");
        state.begin(now);
        state.failed(now, "wrong credentials".into(), None);
        assert!(!state.is_meant_for("a"));
        assert_eq!(due(now, None, &state), now + 3600);
        assert!(state.is_meant_for("b"));
        assert_eq!((due(now, None, &state), state.account_replaced_at), (now, Some(5)));
        // Another name, right after the certificate for one that was mistyped.
        state.begin(now);
        state.succeeded(now, Validity { not_before: now, not_after: now + 90 * DAY }, 0.0);
        assert!(due(now, None, &state) > now && !state.is_meant_for("b"));
        assert!(state.is_meant_for("c"));
        assert_eq!(due(now, None, &state), now);
        // The server's own wish is no matter of settings.
        state.begin(now);
        state.failed(now, "429".into(), Some(now + 7200));
        assert!(state.is_meant_for("d"));
        assert_eq!(due(now, None, &state), now + 7200);
    }

    #[test]
    fn after_an_attempt_that_took_long_there_is_a_wait_too() {
        let mut state = State::default();
        state.begin(0);
        state.failed(600, "not done".into(), None);
        assert_eq!(due(600, None, &state), 600 + WAITS[0]);
        let now = 85 * DAY;
        state.failures = 7;
        state.begin(now);
        state.failed(now + 600, "not done".into(), Some(now + DAY));
        assert_eq!(due(now + 600, Some(VALIDITY), &state), now + 600 + EMERGENCY_WAIT);
        assert_eq!(due(now + 600, None, &state), now + DAY);
    }

    #[test]
    fn retry_after_is_honoured_within_reason() {
        let mut state = State::default();
        state.begin(0);
        state.failed(5, "429".into(), Some(7200));
        assert_eq!(due(5, None, &state), 7200);
        state.failed(5, "429".into(), Some(i64::MAX));
        assert_eq!(due(5, None, &state), 5 + LONGEST_WAIT);
        // But not until visitors are turned away.
        let now = 85 * DAY;
        state.begin(now);
        state.failed(now, "429".into(), Some(now + 300));
        assert_eq!(due(now, Some(VALIDITY), &state), now + 300);
        state.failed(now, "429".into(), Some(now + DAY));
        assert_eq!(due(now, Some(VALIDITY), &state), now + EMERGENCY_WAIT);
    }

    #[test]
    fn certificates_that_are_due_at_once_make_no_storm_of_orders() {
        let (mut state, mut now, mut gaps) = (State::default(), 1000, Vec::new());
        for _ in 0..7 {
            state.begin(now);
            let validity = Validity { not_before: now, not_after: now + 90 * DAY };
            state.succeeded(now, validity, 0.5);
            state.window = Some(Window { start: 0, end: 1 });
            let next = due(now, Some(validity), &state);
            gaps.push((next - now) / 3600);
            now = next;
        }
        assert_eq!(gaps, [1, 2, 4, 8, 16, 24, 24]);
        // A clock that runs ahead by more than the lifetime: each is expired when it comes.
        let expired = Validity { not_before: 0, not_after: 90 * DAY };
        now = 100 * DAY;
        for hours in [1, 2, 4] {
            state.succeeded(now, expired, 0.5);
            assert_eq!(due(now, Some(expired), &state), now + hours * 3600);
            now += 10;
        }
        // One that is in time begins anew.
        now += 60 * DAY;
        state.succeeded(now, VALIDITY, 0.5);
        assert_eq!(state.rest, REST);
        // Short-lived ones are renewed in time all the same.
        let short = Validity { not_before: now, not_after: now + 600 };
        state.succeeded(now, short, 0.0);
        assert_eq!(due(now, Some(short), &state), now + 400);
    }

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

    #[test]
    fn near_expiry_no_wait_is_long() {
        let mut state = State { failures: 7, ..State::default() };
        let now = 85 * DAY;
        state.begin(now);
        assert_eq!(due(now, Some(VALIDITY), &state), now + EMERGENCY_WAIT);
        assert_eq!(due_at_once(now, Some(VALIDITY), &state), now + EMERGENCY_WAIT);
    }

    #[test]
    fn what_was_asked_for_waits_for_failures_alone() {
        let (mut state, now) = (State::default(), 5 * DAY);
        assert_eq!(due_at_once(now, Some(VALIDITY), &state), now);
        state.begin(now);
        assert_eq!(due_at_once(now, Some(VALIDITY), &state), now + WAITS[0]);
        assert_eq!(due(now, Some(VALIDITY), &state), 60 * DAY);
    }

    #[test]
    fn a_day_forward_and_back_neither_stops_renewal_nor_orders_without_end() {
        // Due today, and the clock runs a day ahead: one order by it, and then rest.
        let (mut state, today, ahead) = (State::default(), 60 * DAY, 61 * DAY);
        assert_eq!(due(ahead, Some(VALIDITY), &state), ahead);
        state.begin(ahead);
        let new = Validity { not_before: today, not_after: today + 90 * DAY };
        state.succeeded(ahead, new, 0.0);
        assert_eq!(due(ahead + 10, Some(new), &state), new.not_after - 30 * DAY);
        // Set right again, the new one is good for as long as it says.
        assert_eq!(due(today, Some(new), &state), new.not_after - 30 * DAY);
        // An attempt that failed by the wrong clock does not hold the right one up.
        state.begin(ahead);
        state.failed(ahead, "429".into(), Some(ahead + DAY));
        assert_eq!(due(today, None, &state), today);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_hold_renewal_up() {
        let mut state = State { failures: 7, ..State::default() };
        state.begin(10 * DAY);
        assert_eq!(due(9 * DAY, None, &state), 9 * DAY);
    }
}
