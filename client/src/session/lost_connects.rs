//! Attempts that ended after their Connect was sent, but before an answer came.
//!
//! Such a Connect may arrive late. The daemon then takes it for a newer session and closes the live one as replaced.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How late a Connect may arrive: the kernel sends buffered data of a closed connection for a while.
const LATE: Duration = Duration::from_secs(60);
/// The most attempts that are remembered. Each has lasted for seconds, so more are rare.
const MOST: usize = 16;

/// The times of the latest lost attempts.
#[derive(Debug, Default)]
pub(super) struct LostConnects(VecDeque<Instant>);

impl LostConnects {
    /// Remembers a lost attempt.
    pub(super) fn note(&mut self, now: Instant) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    /// Whether a lost attempt may have replaced the live session. Each can do so only once, so it is forgotten: the next
    /// time, another client has replaced the session.
    pub(super) fn excuse(&mut self, now: Instant) -> bool {
        self.0.retain(|at| now - *at < LATE);
        self.0.pop_front().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_excuses_once_and_for_a_minute() {
        let (mut lost_connects, now) = (LostConnects::default(), Instant::now());
        assert!(!lost_connects.excuse(now));
        lost_connects.note(now);
        assert!(lost_connects.excuse(now + LATE / 2));
        assert!(!lost_connects.excuse(now + LATE / 2));
        lost_connects.note(now);
        assert!(!lost_connects.excuse(now + LATE));
        for _ in 0..3 * MOST {
            lost_connects.note(now);
        }
        assert_eq!(lost_connects.0.len(), MOST);
    }
}
