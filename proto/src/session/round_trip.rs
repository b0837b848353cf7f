//! The round trip of a path without the queues that our own traffic makes.
//!
//! Bodies that wait in queues make each sample longer. A window that grows by such samples makes the queues longer still.
//! So the least sample of the last minutes counts.

use std::time::{Duration, Instant};

/// A path may change, for example when a client moves to another network. So a sample counts for one to two periods.
const PERIOD: Duration = Duration::from_secs(300);

/// The least of the samples of this period and of the one before.
#[derive(Debug)]
pub struct LeastRoundTrip {
    began: Instant,
    least: Option<Duration>,
    before: Option<Duration>,
}

impl LeastRoundTrip {
    /// No sample yet.
    pub fn new(now: Instant) -> Self {
        Self { began: now, least: None, before: None }
    }

    /// Takes a sample in.
    pub fn sample(&mut self, sample: Duration, now: Instant) {
        if now.saturating_duration_since(self.began) >= PERIOD {
            self.began = now;
            self.before = self.least.take();
        }
        self.least = Some(self.least.map_or(sample, |least| least.min(sample)));
    }

    /// The round trip; `None` before the first sample.
    pub fn get(&self) -> Option<Duration> {
        self.least.into_iter().chain(self.before).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_sample_counts_for_two_periods() {
        let ms = Duration::from_millis;
        let began = Instant::now();
        let mut round_trip = LeastRoundTrip::new(began);
        assert_eq!(round_trip.get(), None);
        for (after, sample, expected) in [
            (Duration::ZERO, ms(20), ms(20)),
            (ms(1000), ms(500), ms(20)),
            (ms(2000), ms(10), ms(10)),
            (PERIOD, ms(60), ms(10)),
            (PERIOD + ms(299_999), ms(70), ms(10)),
            (PERIOD * 2, ms(80), ms(60)),
        ] {
            round_trip.sample(sample, began + after);
            assert_eq!(round_trip.get(), Some(expected), "after {after:?}");
        }
    }
}
