//! What a visitor may send over HTTP/3 that brings no exchange forward, in one account for each connection. Frames,
//! streams and resets spend from it; requests, bodies and responses fill it.
//!
//! The unit is a tenth of a frame, as over HTTP/2.

use std::sync::Arc;
use std::time::Instant;

use cok_proto::budget::Budget;
use h3::error::Code;
use parking_lot::Mutex;

use super::violation::Violation;

/// What a connection may spend at once: 1,000 frames.
const MOST: u32 = 10_000;
/// What time adds in a second: 100 frames.
const PER_SECOND: u32 = 1_000;

/// A frame on the control stream, a DATA frame of no bytes, an instruction of QPACK.
const USELESS: u32 = 10;
/// A PRIORITY_UPDATE. It is dropped, and a browser may send some with each request.
const PRIORITY_COST: u32 = 3;
/// A DATA frame with fewer bytes than a message of gRPC has: 10,000 at once, and 1,000 in a second.
const TINY: u64 = 5;
const TINY_COST: u32 = 1;
/// A DATA frame with at least so many bytes earns something.
const LARGE: u64 = 1024;
const DATA_EARNS: u32 = 20;
/// A unidirectional stream beyond those that RFC 9114 demands. Programs open one or two of reserved types.
const STREAM_COST: u32 = 50;
/// A request. Cancelling it takes that back, and some more: 1,000 at once, and 100 in a second.
const REQUEST_EARNS: u32 = 100;
const CANCEL_COST: u32 = REQUEST_EARNS + USELESS;
/// A stream without a head: the reset may overtake it.
const EMPTY_COST: u32 = 2 * USELESS;
/// A response to its end.
const END_EARNS: u32 = 20;

const SPENT: Violation = Violation::connection(Code::H3_EXCESSIVE_LOAD, "too much that brings no request forward");

/// A connection's account. A clone shares it.
#[derive(Clone, Debug)]
pub(super) struct Account(Arc<Mutex<Budget>>);

impl Account {
    /// The full account of a fresh connection.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Budget::new(MOST, PER_SECOND))))
    }

    /// Settles what a reader of frames has gathered.
    pub(super) fn settle(&self, toll: &mut Toll) -> Result<(), Violation> {
        let Toll { spent, earned } = std::mem::take(toll);
        if earned > 0 {
            self.0.lock().earn(earned);
        }
        if spent > 0 { self.spend(spent) } else { Ok(()) }
    }

    /// A unidirectional stream was opened.
    pub(super) fn stream(&self) -> Result<(), Violation> {
        self.spend(STREAM_COST)
    }

    /// Some instructions of QPACK have come.
    pub(super) fn instructions(&self, count: usize) -> Result<(), Violation> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count == 0 { Ok(()) } else { self.spend(count.saturating_mul(USELESS)) }
    }

    /// A request has come.
    pub(super) fn request(&self) {
        self.0.lock().earn(REQUEST_EARNS);
    }

    /// A response has gone out to its end.
    pub(super) fn answered(&self) {
        self.0.lock().earn(END_EARNS);
    }

    /// A stream was cancelled, with the request that had come on it or without one.
    pub(super) fn cancelled(&self, asked: bool) -> Result<(), Violation> {
        self.spend(if asked { CANCEL_COST } else { EMPTY_COST })
    }

    fn spend(&self, units: u32) -> Result<(), Violation> {
        self.0.lock().spend(units, Instant::now()).map_err(|_| SPENT)
    }
}

/// What a reader of frames has gathered for the account.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Toll {
    pub(super) spent: u32,
    pub(super) earned: u32,
}

impl Toll {
    /// A frame of no use.
    pub(super) fn useless(&mut self) {
        self.spent = self.spent.saturating_add(USELESS);
    }

    /// A frame that changes a priority.
    pub(super) fn priority(&mut self) {
        self.spent = self.spent.saturating_add(PRIORITY_COST);
    }

    /// A DATA frame.
    pub(super) fn data(&mut self, length: u64) {
        match length {
            0 => self.useless(),
            1..TINY => self.spent = self.spent.saturating_add(TINY_COST),
            TINY..LARGE => {}
            LARGE.. => self.earned = self.earned.saturating_add(DATA_EARNS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often something passes at once, up to a bound.
    fn most(mut pass: impl FnMut(&Account) -> Result<(), Violation>) -> usize {
        let account = Account::new();
        (0..50_000).take_while(|_| pass(&account).is_ok()).count()
    }

    fn of_toll(mut note: impl FnMut(&mut Toll)) -> usize {
        most(|account| {
            let mut toll = Toll::default();
            note(&mut toll);
            account.settle(&mut toll)
        })
    }

    /// Time passes while a test runs, and adds a little.
    fn about(count: usize, expected: usize) {
        assert!((expected..expected + expected / 4).contains(&count), "{count}, not {expected}");
    }

    #[test]
    fn what_is_of_no_use_runs_dry() {
        about(of_toll(Toll::useless), 1000);
        about(of_toll(|toll| toll.data(0)), 1000);
        about(of_toll(|toll| toll.data(1)), 10_000);
        about(of_toll(Toll::priority), 3333);
        about(most(Account::stream), 200);
        about(most(|account| account.cancelled(false)), 500);
        about(most(|account| account.instructions(10)), 100);
    }

    #[test]
    fn requests_and_bodies_never_run_dry() {
        assert_eq!(of_toll(|toll| toll.data(16)), 50_000);
        assert_eq!(of_toll(|toll| toll.data(5000)), 50_000);
        assert_eq!(
            most(|account| {
                account.request();
                (0..10).try_for_each(|_| account.instructions(1))
            }),
            50_000
        );
    }

    #[test]
    fn a_thousand_requests_may_be_cancelled_at_once() {
        let cancel = |account: &Account| {
            account.request();
            account.cancelled(true)
        };
        about(most(cancel), 990);
        // One that has been answered costs nothing.
        assert_eq!(
            most(|account| {
                account.answered();
                cancel(account)
            }),
            50_000
        );
    }
}
