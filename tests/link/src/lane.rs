//! Delay, queue and loss in one direction of the link. It takes `now` and does no I/O.

use std::time::{Duration, Instant};

use fastrand::Rng;

/// One direction.
#[derive(Debug)]
pub(crate) struct Lane {
    delay: Duration,
    /// Seconds for each byte.
    pace: f64,
    /// The longest wait in the queue: its length divided by the rate.
    patience: Duration,
    loss: f64,
    chance: Rng,
    /// The time when the last admitted packet leaves the queue.
    free: Option<Instant>,
}

impl Lane {
    /// Makes a lane of `rate` bits a second with a queue of `queue` bytes.
    pub(crate) fn new(delay: Duration, rate: f64, queue: u64, loss: f64, seed: u64) -> Self {
        let pace = 8.0 / rate;
        let patience = Duration::from_secs_f64(pace * queue as f64);
        Self { delay, pace, patience, loss, chance: Rng::with_seed(seed), free: None }
    }

    /// Returns when a packet that arrives now comes out, or `None` if the queue is full or the packet is lost.
    pub(crate) fn admit(&mut self, now: Instant, length: usize) -> Option<Instant> {
        let turn = self.free.map_or(now, |free| free.max(now));
        if turn - now > self.patience {
            return None;
        }
        let left = turn + Duration::from_secs_f64(self.pace * length as f64);
        self.free = Some(left);
        // A lost packet still takes its time on the wire.
        (self.chance.f64() >= self.loss).then_some(left + self.delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// 8 Mbit/s are one byte each microsecond.
    fn lane(loss: f64) -> Lane {
        Lane::new(10 * MS, 8e6, 3000, loss, 7)
    }

    #[test]
    fn packets_take_turns() {
        let (mut lane, now) = (lane(0.0), Instant::now());
        assert_eq!(lane.admit(now, 1000), Some(now + 11 * MS));
        assert_eq!(lane.admit(now, 500), Some(now + 11 * MS + MS / 2));
        let later = now + 5 * MS;
        assert_eq!(lane.admit(later, 1000), Some(later + 11 * MS));
    }

    #[test]
    fn a_full_queue_drops() {
        let (mut lane, now) = (lane(0.0), Instant::now());
        let admitted = (0..10).filter(|_| lane.admit(now, 1000).is_some()).count();
        // One is on the wire, and three wait.
        assert_eq!(admitted, 4);
        assert!(lane.admit(now + MS, 1000).is_some());
    }

    #[test]
    fn loss_is_what_was_asked_for() {
        let (mut lane, now) = (lane(0.02), Instant::now());
        let lost = (0..100_000).filter(|turn| lane.admit(now + 2 * MS * *turn, 1000).is_none()).count();
        assert!((1800..2200).contains(&lost), "{lost} of 100000");
    }
}
