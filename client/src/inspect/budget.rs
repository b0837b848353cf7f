//! How much is captured in a second. Beyond that, capture would slow the traffic, and make room for itself before anybody
//! could look at it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const SECOND: u64 = 1_000_000_000;

/// An allowance that grows with time, up to a limit. It takes no lock.
#[derive(Debug)]
pub(super) struct Budget {
    began: Instant,
    /// What a second brings.
    rate: u64,
    /// The time that brings as much as can be saved, in nanoseconds.
    longest: u64,
    /// The time, in nanoseconds since the beginning, whose allowance is spent. One `longest` is added.
    spent: AtomicU64,
}

impl Budget {
    /// Brings `rate` a second, and saves up to `limit`. It begins with the limit.
    pub(super) fn new(rate: u64, limit: u64) -> Self {
        Self { began: Instant::now(), rate, longest: limit * SECOND / rate, spent: AtomicU64::new(0) }
    }

    /// Spends some of it. Returns whether there was as much.
    pub(super) fn spend(&self, amount: u64) -> bool {
        // Five hundred years fit.
        self.spend_at(self.began.elapsed().as_nanos() as u64, amount)
    }

    fn spend_at(&self, now: u64, amount: u64) -> bool {
        let cost = amount.saturating_mul(SECOND) / self.rate;
        let spend = |spent: u64| {
            let spent = spent.max(now).saturating_add(cost);
            (spent <= now + self.longest).then_some(spent)
        };
        self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_comes_back_with_time_up_to_the_limit() {
        let budget = Budget::new(1000, 10);
        let spent_at = |now| (0..100).filter(|_| budget.spend_at(now, 1)).count();
        assert_eq!(spent_at(0), 10);
        assert_eq!(spent_at(SECOND / 1000), 1);
        assert_eq!(spent_at(SECOND / 200), 4);
        assert_eq!(spent_at(SECOND), 10);
        assert!(!budget.spend_at(2 * SECOND, 11) && budget.spend_at(2 * SECOND, 10));
    }

    #[test]
    fn an_absurd_amount_is_refused() {
        assert!(!Budget::new(1, 10).spend(u64::MAX));
    }
}
