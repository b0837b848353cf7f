//! Credit for one direction of one exchange, seen from the receiver, and the budget out of which it grows.
//!
//! A fixed window of 256 KiB caps an exchange at 33 Mbit/s over a path of 60 ms, so a window doubles when half of it is
//! used up within one and a half measured round trips by a reader that keeps up. All growth comes from one budget for
//! the process; the initial windows do not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// No exchange's window grows beyond this: 8 MiB carries 1 Gbit/s over 64 ms.
pub const MAX_WINDOW: u32 = 8 * 1024 * 1024;

/// Bytes by which all windows of a process together may grow beyond their initial size. Cloning shares the budget.
#[derive(Clone, Debug)]
pub struct WindowBudget(Arc<AtomicUsize>);

impl WindowBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// Bytes still to be had.
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

/// The receiver's account of one direction of one exchange.
#[derive(Debug)]
pub(crate) struct RecvWindow {
    /// Bytes that the peer may still send, as far as it has been told.
    credit: u64,
    /// Credit that is to be announced.
    grant: u32,
    /// What `credit` is filled up to.
    size: u32,
    /// How much of `size` is borrowed from the budget.
    borrowed: u32,
    /// Bytes that were read and not yet credited again.
    consumed: u32,
    /// When credit was last returned to a reader that kept up.
    returned_at: Option<Instant>,
}

impl RecvWindow {
    pub(crate) fn new(size: u32) -> Self {
        Self { credit: u64::from(size), grant: 0, size, borrowed: 0, consumed: 0, returned_at: None }
    }

    /// Books arriving bytes; an error names how many are beyond the credit.
    pub(crate) fn arrive(&mut self, bytes: usize) -> Result<(), u64> {
        let bytes = bytes as u64;
        match self.credit.checked_sub(bytes) {
            Some(left) => {
                self.credit = left;
                Ok(())
            }
            None => Err(bytes - self.credit),
        }
    }

    /// Books bytes that were read. Once half the window is used up, there is credit to announce, which may include
    /// growth if the reader has kept up since the last time: at most a quarter of the window is `unread`.
    pub(crate) fn consume(
        &mut self,
        bytes: usize,
        unread: usize,
        now: Instant,
        round_trip: Option<Duration>,
        budget: &WindowBudget,
    ) -> bool {
        self.consumed += bytes as u32;
        if self.consumed < self.size / 2 {
            return false;
        }
        let mut grant = self.consumed;
        let hurried = match (self.returned_at, round_trip) {
            (Some(before), Some(round_trip)) => now.duration_since(before) * 2 <= round_trip * 3,
            _ => false,
        };
        let keeps_up = unread <= self.size as usize / 4;
        if keeps_up && hurried && self.size <= MAX_WINDOW / 2 && budget.take(self.size as usize) {
            grant += self.size;
            self.borrowed += self.size;
            self.size *= 2;
        }
        self.consumed = 0;
        // A reader that left the window half full and then empties it at once is no measure of the path.
        self.returned_at = keeps_up.then_some(now);
        self.grant += grant;
        true
    }

    /// Takes the credit that goes out now. The peer may use it only from here on, or one that sends without waiting
    /// for credit while we can't write would have us count up for ever.
    pub(crate) fn take_grant(&mut self) -> u32 {
        let grant = std::mem::take(&mut self.grant);
        self.credit += u64::from(grant);
        grant
    }

    /// Gives what was borrowed back; called when nothing more can come and everything was read.
    pub(crate) fn release(&mut self, budget: &WindowBudget) {
        budget.give_back(std::mem::take(&mut self.borrowed) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Option<Duration> = Some(Duration::from_millis(60));

    #[test]
    fn credit_returns_at_half_a_window() {
        let budget = WindowBudget::new(0);
        let mut window = RecvWindow::new(1000);
        let now = Instant::now();
        assert_eq!(window.arrive(1000), Ok(()));
        assert_eq!(window.arrive(1), Err(1));
        assert!(!window.consume(499, 0, now, None, &budget));
        assert!(window.consume(1, 0, now, None, &budget));
        assert_eq!(window.arrive(1), Err(1), "the peer has not been told yet");
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
        assert!(window.consume(500, 0, now, ROUND_TRIP, &budget));
        assert_eq!(window.take_grant(), 500, "nothing to compare with yet");
        now += Duration::from_millis(30);
        assert!(window.consume(500, 0, now, ROUND_TRIP, &budget));
        assert_eq!(window.take_grant(), 500 + 1000, "half a window in half a trip");
        assert_eq!(budget.available(), 500);
        window.arrive(1000).unwrap();
        now += Duration::from_millis(30);
        assert!(window.consume(1000, 0, now, ROUND_TRIP, &budget));
        assert_eq!(window.take_grant(), 1000, "the budget is used up");
        window.release(&budget);
        assert_eq!(budget.available(), 1500);
    }

    #[test]
    fn a_slow_reader_does_not_grow() {
        let budget = WindowBudget::new(1 << 20);
        let mut window = RecvWindow::new(1000);
        let mut now = Instant::now();
        for (pause, unread) in [(1, 0), (200, 0), (1, 251)] {
            window.arrive(500).unwrap();
            now += Duration::from_millis(pause);
            assert!(window.consume(500, unread, now, ROUND_TRIP, &budget));
            assert_eq!(window.take_grant(), 500);
        }
        assert_eq!(budget.available(), 1 << 20);
    }

    /// It used to grow: the second half was read within a moment of the first.
    #[test]
    fn a_reader_that_empties_a_full_window_at_once_does_not_grow() {
        let budget = WindowBudget::new(1 << 20);
        let mut window = RecvWindow::new(1000);
        let mut now = Instant::now();
        for _ in 0..3 {
            window.arrive(1000).unwrap();
            now += Duration::from_secs(10);
            assert!(window.consume(500, 500, now, ROUND_TRIP, &budget));
            assert!(window.consume(500, 0, now, ROUND_TRIP, &budget));
            assert_eq!(window.take_grant(), 1000);
        }
        assert_eq!(budget.available(), 1 << 20);
    }
}
