//! Attempts that were given up after their Connect had been sent. It may still be under way, and once it arrives, the
//! daemon takes it for the newer session: it closes ours as replaced, in favour of one that is not there any more.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How long a Connect may be under way: the kernel goes on sending what a closed connection still held.
const LATE: Duration = Duration::from_secs(60);
/// The most attempts that are remembered; each has lasted for seconds.
const MOST: usize = 16;

/// The latest attempts that were given up.
#[derive(Debug, Default)]
pub(super) struct LostConnects(VecDeque<Instant>);

impl LostConnects {
    /// An attempt was given up.
    pub(super) fn note(&mut self, now: Instant) {
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    /// Whether one of them may be what has replaced our session. Each can do so only once; what comes after that is
    /// another client.
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
