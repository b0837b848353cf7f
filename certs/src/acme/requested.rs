//! What an operator has asked for, and when. The store keeps it; this judges whether it calls for an attempt.

use crate::store::{Request, Store};

/// Nanoseconds in a second.
const NANOS: i128 = 1_000_000_000;

/// When the operator has asked for a new certificate, and when for a new key of the account, in nanoseconds since 1970. Both
/// are a reason for an attempt.
pub(super) type Requested = [Option<i128>; 2];

pub(super) fn requested(store: &Store) -> Requested {
    [Request::Renewal, Request::Rollover].map(|request| store.requested_at(request))
}

/// Whether somebody has asked for an attempt that was not made yet. A request of before this process may have been seen to
/// already; then it waits its turn like all attempts, and so does one that a wrong clock has dated in the future, or it
/// would be news at every start.
pub(super) fn is_news(requested: Requested, seen: Option<Requested>, now: i64, tried_at: Option<i64>) -> bool {
    let untried = |at: i128| (tried_at.map_or(i64::MIN, |tried| tried + 1)..=now).contains(&((at / NANOS) as i64));
    (0..requested.len()).any(|kind| match seen {
        Some(seen) => requested[kind].is_some() && requested[kind] != seen[kind],
        None => requested[kind].is_some_and(untried),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_news_once() {
        let at = |second: i128| Some(second * NANOS + 5);
        let news = |requested, seen| is_news(requested, seen, 100, Some(50));
        for kind in [|at| [at, None], |at| [None, at]] {
            let none = Some([None; 2]);
            assert!(news(kind(at(90)), none) && news(kind(at(200)), none), "whatever the clock says");
            assert!(!news(kind(at(90)), Some(kind(at(90)))) && !news(kind(None), Some(kind(at(90)))));
            assert!(news(kind(at(91)), Some(kind(at(90)))));
            // At the start: made before the last attempt, after it, and by a clock that ran ahead.
            assert_eq!(
                [40, 50, 51, 100, 101].map(|second| news(kind(at(second)), None)),
                [false, false, true, true, false]
            );
        }
        assert!(is_news([at(1), None], None, 100, None) && !is_news([None; 2], None, 100, None));
    }
}
