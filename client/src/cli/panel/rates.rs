//! The figures of connections: how many there were, their rates, and how long they took.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The length of a slot of [`Rates`].
const SLOT: Duration = Duration::from_secs(5);
/// The slots of the longest rate: five minutes.
const SLOTS: usize = 60;
/// The slots of the shorter rate: one minute.
const SHORT: usize = 12;
/// The most durations from which percentiles are taken: the latest.
const DURATIONS: usize = 1000;

/// The figures of all exchanges.
#[derive(Debug)]
pub(super) struct Rates {
    /// Exchanges so far.
    pub(super) total: u64,
    began: Instant,
    /// Exchanges in the latest slots, the newest last, and the number of the newest.
    slots: VecDeque<u64>,
    newest: u64,
    durations: VecDeque<Duration>,
}

/// The figures at one moment.
#[derive(Debug)]
pub(super) struct Figures {
    /// Exchanges a second in the last minute and the last five.
    pub(super) per_second: [f64; 2],
    /// The median and the ninetieth percentile of the latest durations.
    pub(super) percentiles: Option<[Duration; 2]>,
}

impl Rates {
    pub(super) fn new(now: Instant) -> Self {
        Self { total: 0, began: now, slots: VecDeque::from([0]), newest: 0, durations: VecDeque::new() }
    }

    /// An exchange has begun.
    pub(super) fn began(&mut self, now: Instant) {
        self.total += 1;
        self.advance(now);
        if let Some(slot) = self.slots.back_mut() {
            *slot += 1;
        }
    }

    /// An exchange has taken so long.
    pub(super) fn took(&mut self, time: Duration) {
        if self.durations.len() == DURATIONS {
            self.durations.pop_front();
        }
        self.durations.push_back(time);
    }

    /// The figures of this moment.
    pub(super) fn figures(&mut self, now: Instant) -> Figures {
        self.advance(now);
        let rate = |slots: usize| {
            let count: u64 = self.slots.iter().rev().take(slots).sum();
            count as f64 / (SLOT * slots as u32).as_secs_f64()
        };
        let mut sorted: Vec<_> = self.durations.iter().copied().collect();
        sorted.sort_unstable();
        // The nearest rank.
        let percentile = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        let percentiles = percentile(50).zip(percentile(90)).map(|(middle, high)| [middle, high]);
        Figures { per_second: [rate(SHORT), rate(SLOTS)], percentiles }
    }

    fn advance(&mut self, now: Instant) {
        let slot = now.saturating_duration_since(self.began).as_secs() / SLOT.as_secs();
        let ahead = slot.saturating_sub(self.newest);
        for _ in 0..ahead.min(SLOTS as u64) {
            self.slots.push_back(0);
        }
        while self.slots.len() > SLOTS {
            self.slots.pop_front();
        }
        self.newest = self.newest.max(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_minutes() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        for second in 0..60 {
            rates.began(start + Duration::from_secs(second));
        }
        let after = |rates: &mut Rates, seconds| {
            rates.figures(start + Duration::from_secs(seconds)).per_second.map(|rate| format!("{rate:.2}"))
        };
        assert_eq!(after(&mut rates, 59), ["1.00", "0.20"]);
        assert_eq!(after(&mut rates, 125), ["0.00", "0.20"]);
        assert_eq!(after(&mut rates, 100_000), ["0.00", "0.00"]);
        assert_eq!(rates.total, 60);
    }

    #[test]
    fn percentiles_are_of_the_latest_durations() {
        let now = Instant::now();
        let mut rates = Rates::new(now);
        assert_eq!(rates.figures(now).percentiles, None);
        for milliseconds in 1..=DURATIONS as u64 + 10 {
            rates.took(Duration::from_millis(milliseconds));
        }
        assert_eq!(rates.figures(now).percentiles, Some([510, 910].map(Duration::from_millis)));
    }
}
