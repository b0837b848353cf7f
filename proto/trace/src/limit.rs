//! A rate limit without a lock: the generic cell rate algorithm in one atomic number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lets so many through each second, and as many at once.
#[derive(Debug)]
pub(crate) struct Limit {
    per_second: u32,
    began: Instant,
    /// When all that was let through is paid for, in nanoseconds since `began`.
    paid: AtomicU64,
}

impl Limit {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second: per_second.max(1), began: Instant::now(), paid: AtomicU64::new(0) }
    }

    /// Lets one through, unless the rate is used up.
    pub(crate) fn take(&self) -> bool {
        self.take_at(self.began.elapsed())
    }

    fn take_at(&self, now: Duration) -> bool {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (now, second) = (nanos(now), nanos(Duration::from_secs(1)));
        let price = second / u64::from(self.per_second);
        let pay = |paid: u64| {
            let after = paid.max(now).saturating_add(price);
            (after <= now.saturating_add(second)).then_some(after)
        };
        self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lets_through_as_many_as_the_rate_says() {
        let limit = Limit::new(10);
        let passed = |at: Duration| (0..100).filter(|_| limit.take_at(at)).count();
        assert_eq!(passed(Duration::ZERO), 10);
        assert_eq!(passed(Duration::from_millis(99)), 0);
        assert_eq!(passed(Duration::from_millis(250)), 2);
        assert_eq!(passed(Duration::from_secs(100)), 10, "an idle time is not saved up");
    }
}
