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
pub(super) struct RecvWindow {
    /// Bytes that the peer may still send.
    credit: u64,
    /// What `credit` is filled up to.
    size: u32,
    /// How much of `size` is borrowed from the budget.
    borrowed: u32,
    /// Bytes that were read and not yet credited again.
    consumed: u32,
    /// When credit was last returned.
    returned_at: Option<Instant>,
}

impl RecvWindow {
    pub(super) fn new(size: u32) -> Self {
        Self { credit: u64::from(size), size, borrowed: 0, consumed: 0, returned_at: None }
    }

    /// Books arriving bytes; an error names how many are beyond the credit.
    pub(super) fn arrive(&mut self, bytes: usize) -> Result<(), u64> {
        let bytes = bytes as u64;
        match self.credit.checked_sub(bytes) {
            Some(left) => {
                self.credit = left;
                Ok(())
            }
            None => Err(bytes - self.credit),
        }
    }

    /// Books bytes that were read. Once half the window is used up, returns the credit to grant, which may include
    /// growth if the reader keeps up: at most a quarter of the window is `unread`.
    pub(super) fn consume(
        &mut self,
        bytes: usize,
        unread: usize,
        now: Instant,
        round_trip: Option<Duration>,
        budget: &WindowBudget,
    ) -> Option<u32> {
        self.consumed += bytes as u32;
        if self.consumed < self.size / 2 {
            return None;
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
        self.returned_at = Some(now);
        self.credit += u64::from(grant);
        Some(grant)
    }

    /// Gives what was borrowed back; called once, when the exchange is over.
    pub(super) fn release(&mut self, budget: &WindowBudget) {
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
        assert_eq!(window.consume(499, 0, now, None, &budget), None);
        assert_eq!(window.consume(1, 0, now, None, &budget), Some(500));
        assert_eq!(window.arrive(501), Err(1));
        assert_eq!(window.arrive(500), Ok(()));
    }

    #[test]
    fn a_reader_that_keeps_up_grows_its_window_out_of_the_budget() {
        let budget = WindowBudget::new(1500);
        let mut window = RecvWindow::new(1000);
        let mut now = Instant::now();
        window.arrive(1000).unwrap();
        assert_eq!(window.consume(500, 0, now, ROUND_TRIP, &budget), Some(500), "nothing to compare with yet");
        now += Duration::from_millis(30);
        assert_eq!(window.consume(500, 0, now, ROUND_TRIP, &budget), Some(500 + 1000), "half a window in half a trip");
        assert_eq!(budget.available(), 500);
        window.arrive(1000).unwrap();
        now += Duration::from_millis(30);
        assert_eq!(window.consume(1000, 0, now, ROUND_TRIP, &budget), Some(1000), "the budget is used up");
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
            assert_eq!(window.consume(500, unread, now, ROUND_TRIP, &budget), Some(500));
        }
        assert_eq!(budget.available(), 1 << 20);
    }
}
