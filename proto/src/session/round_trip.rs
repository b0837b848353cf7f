//! The least round trip of the last 5 to 10 minutes.
//!
//! Bodies that wait in queues make each sample longer, and a window that grows by such samples makes the queues longer
//! still. The least sample leaves out our own queues, unless bulk has filled the path all that time.

use std::time::{Duration, Instant};

/// A path may change, for example when a client moves to another network. So a sample counts for one to two periods.
const PERIOD: Duration = Duration::from_secs(300);

/// The least of the samples of this period and of the one before.
#[derive(Debug)]
pub struct LeastRoundTrip {
    began: Instant,
    least: Option<Duration>,
    /// Of the period before.
    previous: Option<Duration>,
}

impl LeastRoundTrip {
    /// No sample yet.
    pub fn new(now: Instant) -> Self {
        Self { began: now, least: None, previous: None }
    }

    /// Takes a sample in.
    pub fn add(&mut self, sample: Duration, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        if age >= PERIOD {
            self.previous = self.least.take().filter(|_| age < PERIOD * 2);
            self.began = now;
        }
        self.least = Some(self.least.map_or(sample, |least| least.min(sample)));
    }

    /// The round trip; `None` before the first sample.
    pub fn get(&self) -> Option<Duration> {
        self.least.into_iter().chain(self.previous).min()
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
            (PERIOD * 9, ms(90), ms(90)),
        ] {
            round_trip.add(sample, began + after);
            assert_eq!(round_trip.get(), Some(expected), "after {after:?}");
        }
    }
}
