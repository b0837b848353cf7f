//! When an operator has asked for an attempt.
//!
//! The store keeps the requests. This file judges whether one of them is new.

use crate::store::{Request, Store};

/// Nanoseconds in a second.
const NANOS: i128 = 1_000_000_000;

/// When the operator has asked for a new certificate, and when for a new account key, in nanoseconds since 1970.
///
/// Each of them causes an attempt.
pub(super) type Requested = [Option<i128>; 2];

pub(super) fn requested(store: &Store) -> Requested {
    [Request::Renewal, Request::Rollover].map(|request| store.requested_at(request))
}

/// True if a request has come for which there was no attempt yet.
///
/// At the start of a process, a request counts only if it is younger than the last attempt. Others may be done already,
/// so they wait like all attempts. A request with a date in the future waits as well, or it would be new at every
/// start.
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
    fn a_request_is_new_once() {
        let at = |second: i128| Some(second * NANOS + 5);
        let news = |requested, seen| is_news(requested, seen, 100, Some(50));
        for kind in [|at| [at, None], |at| [None, at]] {
            let none = Some([None; 2]);
            assert!(news(kind(at(90)), none) && news(kind(at(200)), none), "with any time of the clock");
            assert!(!news(kind(at(90)), Some(kind(at(90)))) && !news(kind(None), Some(kind(at(90)))));
            assert!(news(kind(at(91)), Some(kind(at(90)))));
            // At the start: a request from before the last attempt, from after it, and from a clock that was ahead.
            assert_eq!(
                [40, 50, 51, 100, 101].map(|second| news(kind(at(second)), None)),
                [false, false, true, true, false]
            );
        }
        assert!(is_news([at(1), None], None, 100, None) && !is_news([None; 2], None, 100, None));
    }
}
