//! When the next certificate is ordered: pure reckoning with moments in seconds since 1970.

use serde::{Deserialize, Serialize};

/// Waits after failures, one after another; the last one stays. An authority forgives few failures an hour.
const WAITS: [i64; 8] = [10, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600];
/// The longest that a server's `Retry-After` is believed.
const LONGEST_WAIT: i64 = 24 * 3600;
/// In the emergency window no wait is longer: the certificate is about to expire.
const EMERGENCY_WAIT: i64 = 600;

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// In seconds since 1970.
    pub not_before: i64,
    /// In seconds since 1970.
    pub not_after: i64,
}

impl Validity {
    /// The last tenth of the lifetime.
    fn emergency(self) -> i64 {
        self.not_after - (self.not_after - self.not_before) / 10
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
    /// Attempts since the last success. An attempt counts from before it begins, so that one that a crash cuts short
    /// counts too.
    pub failures: u32,
    /// When the last attempt began.
    pub tried_at: Option<i64>,
    /// When the next may begin.
    pub next_try: Option<i64>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// What the authority suggests for the certificate of this serial number.
    pub window: Option<Window>,
    /// When the authority is to be asked for the window again.
    pub ask_window_at: Option<i64>,
    /// Where in a window this certificate is renewed, 0 to 1: drawn anew for each, so that not all daemons come at once.
    pub lot: f64,
}

impl State {
    /// To be kept before an attempt begins.
    pub fn begin(&mut self, now: i64) {
        let wait = WAITS[(self.failures as usize).min(WAITS.len() - 1)];
        self.failures = self.failures.saturating_add(1);
        self.tried_at = Some(now);
        // Up to a tenth more.
        self.next_try = Some(now + wait + (wait as f64 / 10.0 * self.lot.clamp(0.0, 1.0)) as i64);
    }

    /// An attempt failed; `retry_after` is the moment that the server named.
    pub fn failed(&mut self, now: i64, error: String, retry_after: Option<i64>) {
        self.last_error = Some(error);
        let named = retry_after.map_or(now, |at| at.min(now + LONGEST_WAIT));
        self.next_try = Some(self.next_try.map_or(named, |at| at.max(named)));
    }

    /// A certificate was issued; `lot` is drawn from 0 to 1.
    pub fn succeeded(lot: f64) -> Self {
        Self { lot, ..Self::default() }
    }
}

/// When the certificate is to be renewed, failures left aside: in the window that the authority suggests, else at one
/// third of the lifetime left; never later than the emergency window.
pub fn renewal(validity: Validity, state: &State) -> i64 {
    let lot = state.lot.clamp(0.0, 1.0);
    let at = if let Some(Window { start, end }) = state.window {
        start.saturating_add((end.saturating_sub(start).max(0) as f64 * lot) as i64)
    } else {
        let lifetime = validity.not_after - validity.not_before;
        validity.not_after - lifetime / 3 - (lifetime as f64 / 30.0 * lot) as i64
    };
    at.min(validity.emergency())
}

/// When the next attempt is to begin, which may have passed. Without a certificate: as soon as failures allow.
pub fn due(now: i64, validity: Option<Validity>, state: &State) -> i64 {
    let wanted = validity.map_or(now, |validity| renewal(validity, state));
    let emergency = validity.is_some_and(|validity| now >= validity.emergency());
    let allowed = match (state.tried_at, state.next_try) {
        // The clock has been set back: what was reckoned by it means nothing.
        (Some(tried), _) if tried > now => None,
        (Some(tried), Some(next)) if emergency => Some(next.min(tried + EMERGENCY_WAIT)),
        (_, next) => next,
    };
    allowed.map_or(wanted, |allowed| allowed.max(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;
    const VALIDITY: Validity = Validity { not_before: 0, not_after: 90 * DAY };

    #[test]
    fn one_third_of_the_lifetime_is_left_at_renewal_and_a_little_more_by_lot() {
        assert_eq!(renewal(VALIDITY, &State::default()), 60 * DAY);
        assert_eq!(renewal(VALIDITY, &State::succeeded(1.0)), 57 * DAY);
        assert_eq!(due(5 * DAY, Some(VALIDITY), &State::default()), 60 * DAY);
    }

    #[test]
    fn the_window_of_the_authority_comes_first_but_not_after_the_emergency() {
        let mut state = State::succeeded(0.5);
        state.window = Some(Window { start: 10 * DAY, end: 12 * DAY });
        assert_eq!(renewal(VALIDITY, &state), 11 * DAY);
        state.window = Some(Window { start: 12 * DAY, end: 10 * DAY });
        assert_eq!(renewal(VALIDITY, &state), 12 * DAY, "a nonsensical one");
        state.window = Some(Window { start: 100 * DAY, end: 200 * DAY });
        assert_eq!(renewal(VALIDITY, &state), 81 * DAY);
    }

    #[test]
    fn attempts_are_ever_further_apart_even_if_each_is_cut_short() {
        let (mut state, mut now, mut gaps) = (State::default(), 1000, Vec::new());
        assert_eq!(due(now, None, &state), now);
        for _ in 0..10 {
            state.begin(now);
            let next = due(now, None, &state);
            gaps.push(next - now);
            now = next;
        }
        assert_eq!(gaps[..8], WAITS);
        assert_eq!(gaps[9], WAITS[7]);
    }

    #[test]
    fn retry_after_is_honoured_within_reason() {
        let mut state = State::default();
        state.begin(0);
        state.failed(5, "429".into(), Some(7200));
        assert_eq!(due(5, None, &state), 7200);
        state.failed(5, "429".into(), Some(i64::MAX));
        assert_eq!(due(5, None, &state), 5 + LONGEST_WAIT);
    }

    #[test]
    fn near_expiry_no_wait_is_long() {
        let mut state = State { failures: 7, ..State::default() };
        let now = 85 * DAY;
        state.begin(now);
        assert_eq!(due(now, Some(VALIDITY), &state), now + EMERGENCY_WAIT);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_hold_renewal_up() {
        let mut state = State { failures: 7, ..State::default() };
        state.begin(10 * DAY);
        assert_eq!(due(9 * DAY, None, &state), 9 * DAY);
    }
}
