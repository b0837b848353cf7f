//! The credit window of one direction of an exchange, as its receiver keeps it, and the budget for its growth.
//!
//! A fixed window of 256 KiB caps an exchange at 33 Mbit/s over a path of 60 ms. So a window doubles when a reader that
//! keeps up consumes half of it within one and a half round trips of the path ([`LeastRoundTrip`]). All growth comes from
//! one budget for the process; the initial windows do not. The window does not know how much its peer sends; the
//! multiplexer reports every byte.
//!
//! Credit returns by half a window. A window at its limit returns eighths: with halves, one could wait here while the other is on
//! its way.
//!
//! [`LeastRoundTrip`]: crate::session::LeastRoundTrip

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::error::ProtocolError;

/// The largest credit that a sender may have in bytes, as in RFC 9113, section 6.9.1.
pub const MAX_CREDIT: u64 = (1 << 31) - 1;
/// The largest window in bytes that growth leads to: 8 MiB carry 1 Gbit/s over 64 ms.
const MAX_WINDOW: u32 = 8 * 1024 * 1024;

/// Bytes by which all windows of a process may grow, in total, beyond their initial sizes. A clone shares the budget.
#[derive(Clone, Debug)]
pub struct WindowBudget(Arc<AtomicUsize>);

impl WindowBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Bytes that are left.
    pub fn available(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Checks the window that a peer announces in a message of this kind: it must leave room for returned credit.
pub fn check_initial_window(kind: &'static str, size: u32) -> Result<u32, ProtocolError> {
    if u64::from(size) <= MAX_CREDIT {
        Ok(size)
    } else {
        Err(ProtocolError::Malformed { kind, why: "initial_window is above 2147483647".to_owned() })
    }
}

/// The receiver's account of one direction of one exchange.
#[derive(Debug)]
pub struct RecvWindow {
    /// Bytes that the peer may still send by the credit that has gone out.
    credit: u64,
    /// Bytes of credit that wait to go out.
    grant: u32,
    /// The window's size in bytes, to which `credit` is filled up.
    size: u32,
    /// The size up to which it may grow.
    most: u32,
    /// Bytes of `size` that are borrowed from the budget.
    borrowed: u32,
    /// Bytes that were read and not credited again.
    consumed: u32,
    /// When credit was last returned to a reader that kept up.
    returned_at: Option<Instant>,
    /// It is too small for the path, and at its limit.
    is_tight: bool,
}

impl RecvWindow {
    /// A window of `size` bytes at first, which grows up to 8 MiB.
    pub fn new(size: u32) -> Self {
        Self::growing_to(size, MAX_WINDOW)
    }

    /// A window of `size` bytes at first, which grows up to `most` bytes.
    pub fn growing_to(size: u32, most: u32) -> Self {
        Self {
            credit: u64::from(size),
            grant: 0,
            size,
            most,
            borrowed: 0,
            consumed: 0,
            returned_at: None,
            is_tight: false,
        }
    }

    /// The window's size in bytes: how many may be unread.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Takes arriving bytes off the credit. The error is how many of them are beyond it.
    pub fn arrive(&mut self, bytes: usize) -> Result<(), u64> {
        let bytes = bytes as u64;
        match self.credit.checked_sub(bytes) {
            Some(left) => {
                self.credit = left;
                Ok(())
            }
            None => Err(bytes - self.credit),
        }
    }

    /// Counts bytes that were read. `true` once enough of the window is consumed, so that credit waits to go out. The credit
    /// includes growth if the reader keeps up, with at most a quarter of the window `unread`.
    pub fn consume(
        &mut self,
        bytes: usize,
        unread: usize,
        now: Instant,
        round_trip: impl FnOnce() -> Option<Duration>,
        budget: &WindowBudget,
    ) -> bool {
        self.consumed += bytes as u32;
        if self.consumed < self.size / if self.is_tight { 8 } else { 2 } {
            return false;
        }
        let mut grant = self.consumed;
        let hurried = match (self.returned_at, round_trip()) {
            (Some(before), Some(round_trip)) => now.duration_since(before) * 2 <= round_trip * 3,
            _ => false,
        };
        let keeps_up = unread <= self.size as usize / 4;
        if keeps_up && hurried {
            if self.size > self.most / 2 {
                self.is_tight = true;
            } else if budget.take(self.size as usize) {
                grant += self.size;
                self.borrowed += self.size;
                self.size *= 2;
            }
        }
        self.consumed = 0;
        // A reader that leaves the window half full and then empties it at once does not measure the path.
        self.returned_at = keeps_up.then_some(now);
        self.grant += grant;
        true
    }

    /// Takes the credit that goes out now. It counts only from here on: otherwise a peer that ignores credit while our
    /// writes stall could make the counter overflow.
    pub fn take_grant(&mut self) -> u32 {
        let grant = std::mem::take(&mut self.grant);
        self.credit += u64::from(grant);
        grant
    }

    /// Returns what was borrowed, once nothing more can come and everything was read.
    pub fn release(&mut self, budget: &WindowBudget) {
        budget.give_back(std::mem::take(&mut self.borrowed) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(60);

    #[test]
    fn credit_returns_at_half_a_window() {
        let budget = WindowBudget::new(0);
        let mut window = RecvWindow::new(1000);
        let now = Instant::now();
        assert_eq!(window.arrive(1000), Ok(()));
        assert_eq!(window.arrive(1), Err(1));
        assert!(!window.consume(499, 0, now, || None, &budget));
        assert!(window.consume(1, 0, now, || None, &budget));
        assert_eq!(window.arrive(1), Err(1), "the credit has not gone out");
        assert_eq!(window.take_grant(), 500);
        assert_eq!(window.take_grant(), 0);
        assert_eq!(window.arrive(501), Err(1));
        assert_eq!(window.arrive(500), Ok(()));
    }

    #[test]
    fn a_reader_that_keeps_up_grows_its_window_out_of_the_budget() {
        let budget = WindowBudget::new(1500);
        let mut window = RecvWindow::new(1000);
        let mut now = Instant::now();
        window.arrive(1000).unwrap();
        assert!(window.consume(500, 0, now, || Some(ROUND_TRIP), &budget));
        assert_eq!(window.take_grant(), 500, "nothing to compare with yet");
        now += Duration::from_millis(30);
        assert!(window.consume(500, 0, now, || Some(ROUND_TRIP), &budget));
        assert_eq!(window.take_grant(), 500 + 1000, "half a window in half a trip");
        assert_eq!(budget.available(), 500);
        window.arrive(1000).unwrap();
        now += Duration::from_millis(30);
        assert!(window.consume(1000, 0, now, || Some(ROUND_TRIP), &budget));
        assert_eq!(window.take_grant(), 1000, "the budget is used up");
        window.release(&budget);
        assert_eq!(budget.available(), 1500);
    }

    #[test]
    fn a_window_at_its_limit_returns_smaller_credit() {
        let budget = WindowBudget::new(1 << 20);
        let mut window = RecvWindow::growing_to(1000, 1000);
        let now = Instant::now();
        window.arrive(1000).unwrap();
        for _ in 0..2 {
            assert!(!window.consume(499, 0, now, || Some(ROUND_TRIP), &budget));
            assert!(window.consume(1, 0, now, || Some(ROUND_TRIP), &budget));
            assert_eq!(window.take_grant(), 500);
            window.arrive(500).unwrap();
        }
        assert!(!window.consume(124, 0, now, || Some(ROUND_TRIP), &budget));
        assert!(window.consume(1, 0, now, || Some(ROUND_TRIP), &budget));
        assert_eq!((window.take_grant(), window.size()), (125, 1000));
    }

    #[test]
    fn a_window_grows_once_the_budget_has_room_again() {
        let (budget, now) = (WindowBudget::new(0), Instant::now());
        let mut window = RecvWindow::growing_to(1000, 2000);
        window.arrive(1000).unwrap();
        for _ in 0..3 {
            assert!(window.consume(500, 0, now, || Some(ROUND_TRIP), &budget));
            assert_eq!(window.take_grant(), 500);
            window.arrive(500).unwrap();
        }
        budget.give_back(1000);
        assert!(window.consume(500, 0, now, || Some(ROUND_TRIP), &budget));
        assert_eq!((window.take_grant(), window.size()), (1500, 2000));
    }

    #[test]
    fn a_slow_reader_does_not_grow() {
        let budget = WindowBudget::new(1 << 20);
        let mut window = RecvWindow::new(1000);
        let mut now = Instant::now();
        for (pause, unread) in [(1, 0), (200, 0), (1, 251)] {
            window.arrive(500).unwrap();
            now += Duration::from_millis(pause);
            assert!(window.consume(500, unread, now, || Some(ROUND_TRIP), &budget));
            assert_eq!(window.take_grant(), 500);
        }
        assert_eq!(budget.available(), 1 << 20);
    }

    /// A regression: the second half is read within a moment of the first, which looked like a fast path.
    #[test]
    fn a_reader_that_empties_a_full_window_at_once_does_not_grow() {
        let budget = WindowBudget::new(1 << 20);
        let mut window = RecvWindow::new(1000);
        let mut now = Instant::now();
        for _ in 0..3 {
            window.arrive(1000).unwrap();
            now += Duration::from_secs(10);
            assert!(window.consume(500, 500, now, || Some(ROUND_TRIP), &budget));
            assert!(window.consume(500, 0, now, || Some(ROUND_TRIP), &budget));
            assert_eq!(window.take_grant(), 1000);
        }
        assert_eq!(budget.available(), 1 << 20);
    }
}
