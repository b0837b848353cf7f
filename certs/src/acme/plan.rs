//! Computes when the next certificate is ordered, from moments in seconds since 1970.
//!
//! Pure functions: no clock, no disk, no network.

use super::state::State;
use super::validity::{Validity, Window};

/// The longest wait in the emergency window, both our own and the server's. Visitors are about to be turned away, and
/// one request in ten minutes is no burden.
const EMERGENCY_WAIT: i64 = 600;
/// The longest wait of our own without any certificate, since visitors are turned away.
const LONGEST_WAIT_WITHOUT: i64 = 3600;
/// Without a certificate the rest is divided by this: ten minutes at first. It still grows, in case each certificate
/// gets lost.
const REST_WITHOUT: i64 = 6;

/// When the certificate is to be renewed, leaving failures aside.
///
/// This is in the window that the authority suggests, or else when a third of the lifetime is left. It is never later
/// than the emergency window.
pub(super) fn renewal(validity: Validity, state: &State) -> i64 {
    let lot = state.lot.clamp(0.0, 1.0);
    let at = if let Some(Window { start, end }) = state.window {
        start.saturating_add((end.saturating_sub(start).max(0) as f64 * lot) as i64)
    } else {
        let lifetime = validity.lifetime();
        validity.not_after - lifetime / 3 - (lifetime as f64 / 30.0 * lot) as i64
    };
    at.min(validity.emergency())
}

/// When the next attempt is to begin, at the earliest now. Without a certificate, only failures delay it.
pub(super) fn due(now: i64, validity: Option<Validity>, state: &State) -> i64 {
    let wanted = validity.map_or(now, |validity| renewal(validity, state));
    due_at_once(now, validity, state).max(wanted)
}

/// The same for an attempt on request, which does not wait for the certificate's age.
pub(super) fn due_at_once(now: i64, validity: Option<Validity>, state: &State) -> i64 {
    let emergency = validity.is_some_and(|validity| validity.is_emergency(now));
    // A moment in the future was taken from a clock that has since been set back. It counts for nothing.
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
    use crate::acme::state::{LONGEST_WAIT, REST, WAITS};

    const DAY: i64 = 24 * 3600;
    const VALIDITY: Validity = Validity { not_before: 0, not_after: 90 * DAY };

    #[test]
    fn one_third_of_the_lifetime_is_left_at_renewal_or_a_little_more() {
        assert_eq!(renewal(VALIDITY, &State::default()), 60 * DAY);
        assert_eq!(renewal(VALIDITY, &State { lot: 1.0, ..State::default() }), 57 * DAY);
        assert_eq!(due(5 * DAY, Some(VALIDITY), &State::default()), 60 * DAY);
    }

    #[test]
    fn the_window_of_the_authority_counts_until_the_emergency() {
        let mut state = State { lot: 0.5, ..State::default() };
        state.window = Some(Window { start: 10 * DAY, end: 12 * DAY });
        assert_eq!(renewal(VALIDITY, &state), 11 * DAY);
        state.window = Some(Window { start: 12 * DAY, end: 10 * DAY });
        assert_eq!(renewal(VALIDITY, &state), 12 * DAY, "a window that ends before it begins");
        state.window = Some(Window { start: 100 * DAY, end: 200 * DAY });
        assert_eq!(renewal(VALIDITY, &state), 81 * DAY);
    }

    #[test]
    fn waits_grow_even_if_each_attempt_is_cut_short() {
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
        // Without a certificate the wait is an hour at most.
        assert_eq!(gaps(None)[..5], WAITS[..5]);
        assert_eq!(gaps(None)[5..], [3600; 5]);
    }

    #[test]
    fn lost_certificates_are_ordered_at_growing_intervals() {
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
    fn new_settings_end_failures_and_rest() {
        let now = 1000;
        let mut state = State { failures: 7, account_replaced_at: Some(5), ..State::default() };
        assert!(state.is_meant_for("a"), "files of older versions have no purpose");
        state.begin(now);
        state.failed(now, "wrong credentials".into(), None);
        assert!(!state.is_meant_for("a"));
        assert_eq!(due(now, None, &state), now + 3600);
        assert!(state.is_meant_for("b"));
        assert_eq!((due(now, None, &state), state.account_replaced_at), (now, Some(5)));
        // The name is corrected right after a certificate for a mistyped one.
        state.begin(now);
        state.succeeded(now, Validity { not_before: now, not_after: now + 90 * DAY }, 0.0);
        assert!(due(now, None, &state) > now && !state.is_meant_for("b"));
        assert!(state.is_meant_for("c"));
        assert_eq!(due(now, None, &state), now);
        // The server's own wait does not depend on the settings.
        state.begin(now);
        state.failed(now, "429".into(), Some(now + 7200));
        assert!(state.is_meant_for("d"));
        assert_eq!(due(now, None, &state), now + 7200);
    }

    #[test]
    fn a_wait_follows_a_long_attempt_too() {
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
        // It is cut short when the certificate is about to expire.
        let now = 85 * DAY;
        state.begin(now);
        state.failed(now, "429".into(), Some(now + 300));
        assert_eq!(due(now, Some(VALIDITY), &state), now + 300);
        state.failed(now, "429".into(), Some(now + DAY));
        assert_eq!(due(now, Some(VALIDITY), &state), now + EMERGENCY_WAIT);
    }

    #[test]
    fn certificates_that_are_due_at_once_cause_no_storm_of_orders() {
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
        // The clock is ahead by more than the lifetime, so each certificate has expired when it arrives.
        let expired = Validity { not_before: 0, not_after: 90 * DAY };
        now = 100 * DAY;
        for hours in [1, 2, 4] {
            state.succeeded(now, expired, 0.5);
            assert_eq!(due(now, Some(expired), &state), now + hours * 3600);
            now += 10;
        }
        // A renewal in time starts the rest over.
        now += 60 * DAY;
        state.succeeded(now, VALIDITY, 0.5);
        assert_eq!(state.rest, REST);
        // Short-lived certificates are renewed in time as well.
        let short = Validity { not_before: now, not_after: now + 600 };
        state.succeeded(now, short, 0.0);
        assert_eq!(due(now, Some(short), &state), now + 400);
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
    fn only_failures_delay_what_an_operator_asked_for() {
        let (mut state, now) = (State::default(), 5 * DAY);
        assert_eq!(due_at_once(now, Some(VALIDITY), &state), now);
        state.begin(now);
        assert_eq!(due_at_once(now, Some(VALIDITY), &state), now + WAITS[0]);
        assert_eq!(due(now, Some(VALIDITY), &state), 60 * DAY);
    }

    #[test]
    fn a_clock_moved_a_day_ahead_and_back_neither_stops_renewal_nor_repeats_orders() {
        // Renewal is due today, and the clock is a day ahead: one order follows, and then a rest.
        let (mut state, today, ahead) = (State::default(), 60 * DAY, 61 * DAY);
        assert_eq!(due(ahead, Some(VALIDITY), &state), ahead);
        state.begin(ahead);
        let new = Validity { not_before: today, not_after: today + 90 * DAY };
        state.succeeded(ahead, new, 0.0);
        assert_eq!(due(ahead + 10, Some(new), &state), new.not_after - 30 * DAY);
        // With the right time again, the new certificate counts as long as it says.
        assert_eq!(due(today, Some(new), &state), new.not_after - 30 * DAY);
        // A failure under the wrong clock does not delay attempts under the right one.
        state.begin(ahead);
        state.failed(ahead, "429".into(), Some(ahead + DAY));
        assert_eq!(due(today, None, &state), today);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_delay_renewal() {
        let mut state = State { failures: 7, ..State::default() };
        state.begin(10 * DAY);
        assert_eq!(due(9 * DAY, None, &state), 9 * DAY);
    }
}
