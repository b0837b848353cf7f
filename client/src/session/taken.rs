//! The wait for a name that another client has.
//!
//! It may be a predecessor of this one: a container that has restarted, a machine that was cut off. Until the daemon
//! notices its end, this client asks again.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest wait between two tries. The longest is twice that, so that several clients do not ask in step.
const RETRY: Duration = Duration::from_secs(1);

/// How long the client goes on asking for a taken name.
#[derive(Debug)]
pub(super) struct Taken {
    timeout: Duration,
    /// The time of the first refusal.
    since: Option<Instant>,
}

impl Taken {
    /// Gives up after `timeout`; at once if that is zero.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, since: None }
    }

    /// Notes a refusal. Returns the wait until the next try, or `None` once the time is up.
    pub(super) fn refused(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        let left = self.timeout.checked_sub(now - since).filter(|left| !left.is_zero())?;
        Some(RETRY.mul_f64(1.0 + fastrand::f64()).min(left))
    }

    /// Whether the client waits for the name.
    pub(super) fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// Starts over: the last try did not end with a refusal of the name.
    pub(super) fn clear(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_name_is_asked_for_until_the_time_is_up_and_once_more_then() {
        let mut taken = Taken::new(45 * SECOND);
        let start = Instant::now();
        let (mut now, mut tries) = (start, 0);
        assert!(!taken.is_waiting());
        while let Some(wait) = taken.refused(now) {
            assert!(taken.is_waiting() && wait <= 2 * SECOND);
            assert!(wait >= SECOND || now + wait == start + 45 * SECOND);
            now += wait;
            tries += 1;
        }
        assert_eq!(now, start + 45 * SECOND);
        assert!((23..=46).contains(&tries), "{tries}");
    }

    #[test]
    fn the_time_starts_over_after_something_else() {
        let mut taken = Taken::new(2 * SECOND);
        let now = Instant::now();
        assert!(taken.refused(now).is_some());
        assert!(taken.refused(now + 2 * SECOND).is_none());
        taken.clear();
        assert!(taken.refused(now + 2 * SECOND).is_some());
    }

    #[test]
    fn no_time_is_no_second_try() {
        assert!(Taken::new(Duration::ZERO).refused(Instant::now()).is_none());
    }
}
